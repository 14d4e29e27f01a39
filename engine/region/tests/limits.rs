//! At the limits of memory: a full file system, a full control group, a limit of address space.
//! Several processes put tables until nothing more fits. Each refusal is a typed error, nobody is
//! killed, what was published reads as it was written, and what is deleted makes room again.
//!
//! Each limit is made for the test alone, in a mount namespace or a control group of its own; where
//! the system does not allow that, the test says so and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use insitu_region::{CreateOptions, Error, Extent, FullCause, Location, Part, Region};

const ROLE: &str = "INSITU_TEST_ROLE";
const REGION: &str = "INSITU_TEST_REGION";
const WHO: &str = "INSITU_TEST_WHO";
/// Sizes of tables; a process goes on to the next smaller one when one no longer fits.
const SIZES: [u64; 5] = [5 << 20, 700_000, 64 << 10, 6_000, 900];

/// A process that plays a role of this file.
struct Peer {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Peer {
    /// In the control group `group`, if there is one.
    fn start(role: &str, region: &str, who: usize, group: Option<&Path>) -> Peer {
        let program = std::env::current_exe().unwrap();
        let mut command = match group {
            None => Command::new(program),
            Some(group) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh"]);
                shell.arg(group.join("cgroup.procs")).arg(program);
                shell
            }
        };
        let mut child = command
            .args(["--exact", "role", "--nocapture"])
            .envs([(ROLE, role), (REGION, region), (WHO, &who.to_string())])
            // A backtrace takes megabytes, which a full control group does not have.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Peer { child, out }
    }

    fn expect(&mut self, said: &str) {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() != 0 {
            if line.trim_end() == said {
                return;
            }
            line.clear();
        }
        panic!("the peer ended before it said {said:?}: {:?}", self.child.wait());
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended:?}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    println!("\n{what}");
}

fn wait() {
    let _ = std::io::stdin().read(&mut [0]);
}

/// What a table of that name has in each page, but for the page's number in the first word.
fn page(name: &str) -> Vec<u64> {
    let seed = name.bytes().fold(1u64, |seed, b| seed.wrapping_mul(131).wrapping_add(b.into()));
    (0..512).map(|i| (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

fn fill(name: &str, extent: &Extent) {
    let mut page = page(name);
    let words = extent.len() as usize / 8;
    for (number, start) in (0..words).step_by(page.len()).enumerate() {
        page[0] = number as u64;
        let count = page.len().min(words - start);
        let to = extent.as_mut_ptr().cast::<u64>().wrapping_add(start);
        // SAFETY: our own extent. A page that was not reserved would be SIGBUS, or SIGKILL, here.
        unsafe { to.copy_from_nonoverlapping(page.as_ptr(), count) };
    }
}

/// Reads all tables; gives how many there are.
fn check_all(region: &Region) -> usize {
    let names = region.names().unwrap();
    for name in &names {
        let pin = region.lookup(name).unwrap();
        assert_eq!(pin.manifest().unwrap(), name.as_bytes());
        let (offset, len) = pin.extents().unwrap()[0];
        let at = pin.slice(offset, len).unwrap().cast::<u64>();
        let mut page = page(name);
        let words = len as usize / 8;
        for (number, start) in (0..words).step_by(page.len()).enumerate() {
            page[0] = number as u64;
            let count = page.len().min(words - start);
            // SAFETY: the pin keeps the extent, which nobody writes.
            let found = unsafe { std::slice::from_raw_parts(at.wrapping_add(start), count) };
            assert!(found == &page[..count], "page {number} of {name}");
        }
    }
    names.len()
}

/// Puts one table. `false`: there was no room, for that cause.
fn put(region: &Region, name: &str, bytes: u64, cause: FullCause) -> bool {
    let put = region.allocate(bytes).and_then(|extent| {
        fill(name, &extent);
        region.publish(name, &[Part::Owned(&extent)], name.as_bytes(), false).map(drop)
    });
    match put {
        Ok(()) => true,
        Err(Error::RegionFull { cause: found, needed, .. }) => {
            assert_eq!(found, cause);
            assert!(needed > 0);
            false
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// Puts tables of all sizes until none of the smallest fits. Gives how many.
fn put_until_full(region: &Region, round: usize, who: &str, cause: FullCause) -> usize {
    let mut count = 0;
    for bytes in SIZES {
        while put(region, &format!("{round}.{who}.{count}"), bytes, cause) {
            count += 1;
        }
    }
    count
}

/// Not a test of its own: what the peers run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let name = std::env::var(REGION).unwrap();
    let who = std::env::var(WHO).unwrap();
    match role.as_str() {
        "fill shm" | "fill group" => {
            let cause = match role.as_str() {
                "fill shm" => FullCause::SharedMemory,
                _ => FullCause::Cgroup,
            };
            let region = Region::open(Location::Shm(name), false).unwrap();
            say("ready");
            wait();
            put_until_full(&region, 1, &who, cause);
            say("full");
            wait();
            put_until_full(&region, 2, &who, cause);
            say("full again");
            wait();
        }
        "small tmpfs" => on_a_small_tmpfs(&name),
        "little address space" => {
            let limit = libc::rlimit { rlim_cur: 2 << 30, rlim_max: 2 << 30 };
            // SAFETY: sets this process's own limit from a live structure.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
            let before = temporaries();
            for location in [Location::Shm(name.clone()), Location::Memfd] {
                let options = CreateOptions { capacity: Some(1 << 30), ..CreateOptions::default() };
                let error = Region::create(location, options).unwrap_err();
                let said = error.to_string();
                assert!(matches!(error, Error::Io { .. }), "{error:?}");
                for word in ["ulimit -v", "raise the limit", "less capacity"] {
                    assert!(said.contains(word), "{said}");
                }
            }
            assert_eq!(temporaries(), before);
            let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
            let region = Region::create(Location::Memfd, options).unwrap();
            assert!(region.allocate(1 << 20).is_ok());
            say("done");
        }
        other => panic!("no role {other}"),
    }
}

/// Shared memory of this process under temporary names, or under its region's.
fn temporaries() -> usize {
    let name = std::env::var(REGION).unwrap();
    let entries = std::fs::read_dir("/dev/shm").unwrap();
    let ours =
        entries.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(&name));
    ours.count()
}

/// Four processes fill a region, and once more after half of it was deleted.
fn fill_twice(region: &Region, name: &str, role: &str, group: Option<&Path>, full: impl Fn()) {
    let mut peers: Vec<Peer> = (0..4).map(|who| Peer::start(role, name, who, group)).collect();
    for said in ["ready", "full", "full again"] {
        peers.iter_mut().for_each(|peer| peer.expect(said));
        if said != "ready" {
            full();
            // How many there are is up to which sizes the processes came to in the end.
            assert!(check_all(region) > 12);
            let used = region.stats().unwrap().used;
            assert!(used > 60 << 20, "{used} bytes are in use");
            assert!(region.verify().ok(), "{:?}", region.verify());
        }
        if said == "full" {
            for name in region.names().unwrap().iter().step_by(2) {
                region.delete(name).unwrap();
            }
        }
        peers.iter_mut().for_each(Peer::go_on);
    }
    peers.into_iter().for_each(Peer::finish);
    check_all(region);
    assert_eq!(region.stats().unwrap().sessions, 1);
}

fn on_a_small_tmpfs(name: &str) {
    let options = CreateOptions { capacity: Some(1 << 30), ..CreateOptions::default() };
    let region = Region::create(Location::Shm(name.into()), options).unwrap();
    let place = std::fs::File::open("/dev/shm").unwrap();
    fill_twice(&region, name, "fill shm", None, || {
        // Who was refused while another tried in vain may have left a little.
        while put(
            &region,
            &format!("last {}", region.names().unwrap().len()),
            64 << 10,
            FullCause::SharedMemory,
        ) {}
        let stat = rustix::fs::fstatfs(&place).unwrap();
        let free = stat.f_bavail * stat.f_bsize as u64;
        assert!(free < 64 << 10, "{free} bytes were left");
    });
    without_a_page(&region);
    say("done");
}

/// Where there is not a page left, nothing is touched that needs one.
fn without_a_page(region: &Region) {
    let mut rest = std::fs::File::create("/dev/shm/rest").unwrap();
    while rest.write(&[1; 4096]).is_ok_and(|n| n > 0) {}
    let options = CreateOptions { capacity: Some(1 << 20), ..CreateOptions::default() };
    match Region::create(Location::Shm("another".into()), options) {
        Err(Error::RegionFull { cause: FullCause::SharedMemory, .. }) => {}
        other => panic!("{other:?}"),
    }
    // Children take the session slots that others have had, until one needs the first of a page.
    let name = region.names().unwrap().swap_remove(0);
    let pin = region.lookup(&name).unwrap();
    let (out, mut end) = std::io::pipe().unwrap();
    let mut out = BufReader::new(out);
    let mut children = Vec::new();
    let told = (0..20).any(|_| {
        // SAFETY: the child writes a line, and waits for its end.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: asks to be ended with its parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let told = matches!(pin.manifest(), Err(Error::Stale(_)));
            let _ = end.write_all(format!("{told}\n").as_bytes());
            loop {
                // SAFETY: without conditions.
                unsafe { libc::pause() };
            }
        }
        children.push(pid);
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line == "true\n"
    });
    for pid in children {
        // SAFETY: ends a child made above, and waits for it.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
    assert!(told);
    std::fs::remove_file("/dev/shm/rest").unwrap();
    region.gc().unwrap();
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn a_small_tmpfs_is_filled_to_the_last_block_by_several_processes() {
    let script =
        "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec \"$0\" --exact role --nocapture";
    // SAFETY: asks who we are.
    let root = unsafe { libc::geteuid() } == 0;
    let mut command = Command::new("unshare");
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    let run = command
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .envs([(ROLE, "small tmpfs"), (REGION, "limits"), (WHO, "0")])
        .output();
    let Ok(run) = run else { return eprintln!("not run: there is no unshare(1)") };
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if !out.contains("running 1 test") {
        return eprintln!("not run: no mount namespace of our own: {err}");
    }
    assert!(run.status.success() && out.contains("done"), "{:?}\n{out}\n{err}", run.status);
}

/// A control group for memory, gone when dropped.
struct Group {
    path: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Group {
    /// Below this process's own group, or why there can be none.
    fn new(bytes: u64) -> Result<Group, String> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let mut why = String::from("no memory controller");
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let (root, limit, usage) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
                "memory" => {
                    let root = "/sys/fs/cgroup/memory";
                    (root, "memory.limit_in_bytes", "memory.usage_in_bytes")
                }
                _ => continue,
            };
            let name = format!("insitu-limits-{}", std::process::id());
            let path = Path::new(root).join(path.trim_start_matches('/')).join(name);
            if let Err(e) = std::fs::create_dir(&path) {
                why = format!("{}: {e}", path.display());
                continue;
            }
            let group = Group { path, limit, usage };
            match std::fs::write(group.path.join(limit), bytes.to_string()) {
                Ok(()) => {
                    // Where there is swap, the group shall not have it.
                    let _ = std::fs::write(group.path.join("memory.swap.max"), "0");
                    return Ok(group);
                }
                Err(e) => why = format!("{limit}: {e}"),
            }
        }
        Err(why)
    }

    fn read(&self, file: &str) -> u64 {
        std::fs::read_to_string(self.path.join(file)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[test]
fn a_control_group_is_filled_to_within_two_mebibytes_per_process() {
    let group = match Group::new(160 << 20) {
        Ok(group) => group,
        Err(why) => return eprintln!("not run: no control group of our own: {why}"),
    };
    let name = format!("limits-group-{}", std::process::id());
    let options =
        CreateOptions { capacity: Some(1 << 30), ephemeral: true, ..CreateOptions::default() };
    let region = Region::create(Location::Shm(name.clone()), options).unwrap();
    fill_twice(&region, &name, "fill group", Some(&group.path), || {
        let left = group.read(group.limit) - group.read(group.usage);
        eprintln!("{left} bytes were left by four processes");
        assert!(left <= 4 * (2 << 20), "{left} bytes were left");
    });
}

#[test]
fn a_limit_of_address_space_is_named_in_the_error() {
    let name = format!("limits-space-{}", std::process::id());
    let mut peer = Peer::start("little address space", &name, 0, None);
    peer.expect("done");
    peer.finish();
}
