//! Death at every point of every protocol: a process is killed there, and the others carry on.
//!
//! For each point a process (this test's binary, in a role) runs the workload that is listed to
//! reach it, and must die there by SIGKILL. Then nothing that was published may be lost or torn,
//! what the survivor sees must be as it was, new work must proceed within a second, and after `gc`
//! the region must hold exactly what its tables need.
#![cfg(feature = "kill-points")]
// The lints' exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use insitu_region::{
    CreateOptions, Error, Extent, KILL_POINTS, Lease, Location, Part, Patience, Pin, Region,
};

const ROLE: &str = "INSITU_TEST_ROLE";
const REGION: &str = "INSITU_TEST_REGION";
/// Where in a file's header the boot's identity lies.
const BOOT_ID: u64 = 256;
/// Where in the header the position of the table slots lies, and the number of those ever used.
const SLOTS: u64 = 72;
const SLOTS_HIGH: u64 = 536;
/// How long a table slot is, and where in it lies the time until which passes of the dead are kept.
const SLOT_BYTES: u64 = 512;
const TICKET_UNTIL: u64 = 232;

/// Which workload reaches which points.
const WORKLOADS: &[(&str, &[&str])] = &[
    (
        "tables",
        &[
            "claim: block counted",
            "claim: block marked used",
            "claim: counted",
            "claim: marked used",
            "delete: index entry removed",
            "delete: unlocked",
            "free: block marked free",
            "free: counted",
            "free: marked free",
            "free: owner dropped",
            "free: row cleared",
            "free: without owner",
            "hold: held",
            "hold: left over",
            "hold: let go",
            "publish: index entry made",
            "publish: index entry replaced",
            "publish: manifest released",
            "publish: manifest written",
            "publish: owner counted",
            "publish: published",
            "publish: slot filled",
            "publish: slot taken",
            "publish: unlocked",
            "reclaim: owner dropped",
            "reclaim: shut out",
            "reclaim: slot freed",
            "record: cleared",
            "record: made",
            "record: size stored",
            "reserve: marked warm",
            "reserve: padding released",
            "reserve: run reserved",
            "retire: retired",
            "slot: half listed",
            "slot: taken from the list",
            "slot: zeroed",
            "writer: clean",
            "writer: dirty",
            "writer: taken",
        ],
    ),
    ("slabs", &["slab: half listed", "slab: half unlisted", "slab: listed", "slab: made"]),
    (
        "records",
        &[
            "records: block chained",
            "records: block made",
            "records: granule taken",
            "records: reserved",
            "records: warm",
        ],
    ),
    (
        "many",
        &["index: emptied", "index: entry made", "index: even", "index: odd", "index: resized"],
    ),
    ("trim", &["trim: claimed", "trim: marked cold", "trim: punched"]),
    (
        "grow",
        &[
            "grow: begun",
            "grow: marked warm",
            "grow: recorded",
            "grow: run reserved",
            "grow: taken",
            "shrink: recorded",
        ],
    ),
    (
        "join",
        &[
            "join: described",
            "join: joined",
            "join: locked",
            "join: numbered",
            "join: page counted",
            "join: page reserved",
            "join: slot clean",
            "leave: swept",
        ],
    ),
    (
        "update",
        &[
            "exclusive: finished",
            "exclusive: finished without a name",
            "exclusive: reopened",
            "exclusive: shut",
            "exclusive: writing",
            "link: number stored",
            "link: sequence stored",
            "repair: repaired",
            "splice: successor changed",
            "swap: superseded",
            "update: begun",
            "update: content version raised",
            "update: ended",
        ],
    ),
    (
        "ticket",
        &["ticket: issued", "ticket: numbered", "ticket: pinned", "ticket: signed", "ticket: used"],
    ),
    (
        "after a corpse",
        &[
            "rebuild: arena cleared",
            "rebuild: arena made",
            "rebuild: index made",
            "rebuild: link made",
            "rebuild: loser retired",
            "rebuild: records counted",
            "rebuild: tables counted",
            "sweep: chain cut",
            "sweep: done",
            "sweep: owner dropped",
            "sweep: passes given time",
            "sweep: ready",
            "sweep: record cleared",
            "sweep: slots swept",
            "sweep: update ended",
            "writer: rebuilt",
        ],
    ),
    ("after a corpse that freed", &["rebuild: not freed"]),
    (
        "fork",
        &[
            "fork: all ready",
            "fork: bit set",
            "fork: extent recorded",
            "fork: in the child",
            "fork: owner counted",
            "fork: session taken",
            "fork: slot locked",
            "fork: slot taken",
        ],
    ),
    ("alone after a corpse", &["recover: epoch raised", "recover: writer lock cleared"]),
    (
        "create",
        &[
            "create: complete",
            "create: header reserved",
            "create: header written",
            "create: joined",
            "create: named",
        ],
    ),
    ("ephemeral", &["leave: alone", "leave: marked removed"]),
    ("churn", &["hold: too late", "writer: released over sleepers"]),
    (
        "flush",
        &[
            "flush: content written",
            "flush: data on disk",
            "flush: done",
            "flush: memory taken",
            "flush: owners counted",
            "flush: pending",
            "flush: root half written",
            "flush: root on disk",
            "flush: root written",
            "flush: slot filled",
            "flush: slot hidden",
            "flush: slot taken",
            "flush: switched",
            "flush: turn taken",
        ],
    ),
    ("flush given up", &["flush: abandoned"]),
    (
        "restore",
        &[
            "restore: emptied",
            "restore: epoch raised",
            "restore: forgotten",
            "restore: marks set",
            "restore: rebuilt",
            "restore: slot restored",
            "restore: slots restored",
        ],
    ),
];

fn patience() -> Patience<'static> {
    Patience { timeout: Duration::from_secs(10), interrupt: &|| false, what: "a torture" }
}

/// Memory that holds nothing but this number.
fn stamped(region: &Region, bytes: u64, with: u64) -> Extent {
    let extent = region.allocate(bytes).unwrap();
    stamp(extent.as_mut_ptr(), extent.len(), with);
    extent
}

fn stamp(at: *mut u8, bytes: u64, with: u64) {
    for i in 0..bytes as usize / 8 {
        // SAFETY: within memory of the caller's own, which is 64-aligned.
        unsafe { at.cast::<u64>().add(i).write_volatile(with) };
    }
}

/// A table whose manifest is the number that its memory holds.
fn put(region: &Region, name: &str, bytes: u64, with: u64) -> Pin {
    let extent = stamped(region, bytes, with);
    region.publish(name, &[Part::Owned(&extent)], &with.to_le_bytes(), true).unwrap()
}

/// Whether a leased table's memory holds nothing but one number: its manifest's, or, for one that
/// is updated in place, twice that.
fn is_whole(lease: &Lease) -> bool {
    let pin = lease.pin();
    let with = u64::from_le_bytes(pin.manifest().unwrap()[..8].try_into().unwrap());
    let mut seen = BTreeSet::new();
    for (offset, len) in pin.extents().unwrap() {
        let at = pin.slice(offset, len).unwrap().cast::<u64>();
        // SAFETY: within the arena by `slice`, and leased.
        seen.extend((0..len as usize / 8).map(|i| unsafe { at.add(i).read_volatile() }));
    }
    seen.len() <= 1 && seen.iter().all(|&n| n == with || n == 2 * with)
}

/// Where a workload runs.
struct Place {
    /// A file's directory; else it is shared memory.
    directory: Option<tempfile::TempDir>,
    name: String,
}

impl Place {
    fn new(workload: &str, point: &str) -> Self {
        let file = matches!(workload, "flush" | "flush given up" | "restore");
        let letters = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let name = format!("test-points-{}-{}", letters(point), std::process::id());
        Self { directory: file.then(|| tempfile::tempdir().unwrap()), name }
    }

    fn path(&self) -> Option<std::path::PathBuf> {
        self.directory.as_ref().map(|d| d.path().join("region"))
    }

    fn location(&self) -> Location {
        match self.path() {
            Some(path) => Location::File(path),
            None => Location::Shm(self.name.clone()),
        }
    }

    /// Has all results that dead processes had sent be kept no longer.
    fn end_grace(&self) {
        use std::os::unix::fs::FileExt;
        let path = self.path().unwrap_or_else(|| format!("/dev/shm/insitu.{}", self.name).into());
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let number = |at| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).unwrap();
            u64::from_le_bytes(bytes)
        };
        for slot in 0..number(SLOTS_HIGH) {
            let at = number(SLOTS) + slot * SLOT_BYTES + TICKET_UNTIL;
            if number(at) != 0 {
                file.write_all_at(&1_u64.to_le_bytes(), at).unwrap();
            }
        }
    }

    fn create(&self) -> Region {
        let options = CreateOptions { capacity: Some(16 << 20), ..CreateOptions::default() };
        Region::create(self.location(), options).unwrap()
    }

    fn open(&self) -> Region {
        Region::open(self.location(), false).unwrap()
    }

    /// Runs a role to its end, which is death if it is asked for and reached.
    fn run(&self, role: &str, kill_at: Option<(&str, u64)>) -> ExitStatus {
        let region = match self.path() {
            Some(path) => path.display().to_string(),
            None => self.name.clone(),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "role", "--nocapture"])
            .env(ROLE, role)
            .env(REGION, region)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some((at, pass)) = kill_at {
            command.env("INSITU_KILL_AT", at).env("INSITU_KILL_PASS", pass.to_string());
        }
        let mut child = command.spawn().unwrap();
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if since.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                panic!("{role}, to be killed at {kill_at:?}, hangs");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Region::remove(&self.location());
    }
}

/// What the survivor holds, and looks at after each death.
struct Kept {
    leases: Vec<Lease>,
    /// A version that was superseded.
    old: Pin,
}

fn keep(region: &Region) -> Kept {
    let small = put(region, "kept small", 100, 11);
    let large = put(region, "kept large", 200_000, 12);
    let replaced = put(region, "kept replaced", 5_000, 13);
    put(region, "kept replaced", 6_000, 14);
    let old = put(region, "kept swapped", 70_000, 15);
    let extent = stamped(region, 70_000, 16);
    let updater = old.updater(&patience()).unwrap();
    updater.swap(&[Part::Owned(&extent)], &16_u64.to_le_bytes()).unwrap();
    Kept { leases: [small, large, replaced].map(|pin| pin.lease().unwrap()).into(), old }
}

impl Kept {
    fn check(&self) {
        for lease in &self.leases {
            assert!(is_whole(lease), "{:?} has changed", lease.pin());
        }
        assert!(is_whole(&self.old.lease().unwrap()));
        assert_eq!(self.old.follow().unwrap().manifest().unwrap(), 16_u64.to_le_bytes());
    }
}

/// What must hold after a death, whatever it was.
fn check(place: &Place, region: &Region, kept: Option<&Kept>, used: u64) {
    // New work first: it takes over from the dead.
    let since = Instant::now();
    put(region, "new work", 100_000, 5);
    assert!(is_whole(&region.lookup("new work").unwrap().lease().unwrap()));
    region.delete("new work").unwrap();
    let took = since.elapsed();
    assert!(took < Duration::from_secs(1), "new work took {took:?}");
    if let Some(kept) = kept {
        kept.check();
    }
    region.gc().unwrap();
    let report = region.verify();
    assert!(report.ok(), "{:?}", report.problems);
    assert_eq!(region.stats().unwrap().sessions, 1);
    for name in region.names().unwrap() {
        let pin = region.lookup(&name).unwrap();
        match pin.lease() {
            Ok(lease) => assert!(is_whole(&lease), "{name:?} is torn"),
            Err(Error::Poisoned { .. }) => {
                assert!(name.starts_with("updated"), "{name:?} is poisoned");
                pin.repair().unwrap();
                pin.lease().unwrap();
            }
            Err(e) => panic!("{e}"),
        }
        if !name.starts_with("kept") {
            drop(pin);
            region.delete(&name).unwrap();
        }
    }
    // What the dead had sent is kept for a time, and no longer.
    place.end_grace();
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    let retired = if kept.is_some() { 2 } else { 0 };
    assert_eq!((stats.used, stats.retired, stats.extents), (used, retired, 0), "{stats:?}");
    let report = region.verify();
    assert!(report.ok(), "{:?}", report.problems);
}

/// Kills a process at a point; whether it got there.
fn die_at(workload: &str, point: &str, pass: u64) -> bool {
    let place = Place::new(workload, point);
    let kill_at = Some((point, pass));
    let killed = |status: ExitStatus| {
        assert!(status.success() || status.signal() == Some(9), "{workload}, {point}: {status:?}");
        status.signal() == Some(9)
    };
    match workload {
        "create" => {
            let died = killed(place.run(workload, kill_at));
            // The name is there, and good, or is not there.
            match Region::open(place.location(), false) {
                Ok(region) => check(&place, &region, None, 0),
                Err(Error::RegionNotFound { .. }) => {
                    drop(place.create());
                    check(&place, &place.open(), None, 0);
                }
                Err(e) => panic!("{e}"),
            }
            died
        }
        "ephemeral" => {
            let died = killed(place.run(workload, kill_at));
            // Removed by the next who looks, or gone.
            match Region::open(place.location(), false) {
                Ok(region) => check(&place, &region, None, 0),
                Err(Error::RegionNotFound { .. }) => {}
                Err(e) => panic!("{e}"),
            }
            died
        }
        "restore" => {
            let region = place.create();
            let kept = keep(&region);
            region.flush(&patience()).unwrap();
            put(&region, "not flushed", 300_000, 4);
            drop(kept);
            let mut names = region.names().unwrap();
            names.retain(|name| name != "not flushed");
            drop(region);
            another_boot(&place);
            let died = killed(place.run(workload, kill_at));
            let region = place.open();
            assert_eq!(region.names().unwrap(), names);
            for name in &names {
                assert!(is_whole(&region.lookup(name).unwrap().lease().unwrap()));
            }
            assert!(region.verify().ok(), "{:?}", region.verify());
            died
        }
        "alone after a corpse" => {
            let region = place.create();
            region.publish("replaced", &[], &0_u64.to_le_bytes(), false).unwrap();
            drop(region);
            assert!(killed(place.run("corpse", Some(("publish: published", 3)))));
            let died = killed(place.run("join", kill_at));
            check(&place, &place.open(), None, 0);
            died
        }
        _ => {
            let region = place.create();
            let kept = keep(&region);
            let used = region.stats().unwrap().used;
            if workload == "after a corpse" {
                region.publish("replaced", &[], &0_u64.to_le_bytes(), false).unwrap();
                assert!(killed(place.run("corpse", Some(("publish: published", 3)))));
            }
            if workload == "after a corpse that freed" {
                assert!(killed(place.run("tables", Some(("reclaim: shut out", 1)))));
            }
            let done = AtomicBool::new(false);
            let died = std::thread::scope(|scope| {
                if workload == "churn" {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            put(&region, "churn", 100, 7);
                        }
                    });
                }
                let died = killed(place.run(workload, kill_at));
                done.store(true, Ordering::Relaxed);
                died
            });
            if workload.starts_with("flush") {
                // What is durable stays used until the next flush.
                region.flush(&patience()).unwrap();
                let found = region.names().unwrap();
                kept.check();
                assert!(found.iter().any(|name| name == "kept large"));
                assert!(region.verify().ok(), "{:?}", region.verify());
            } else {
                check(&place, &region, Some(&kept), used);
            }
            died
        }
    }
}

/// Makes a file that nobody has open look as if the system had been started again since.
fn another_boot(place: &Place) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(place.path().unwrap()).unwrap();
    file.write_all_at(&[7; 16], BOOT_ID).unwrap();
}

/// Not a test of its own: what the processes run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let name = std::env::var(REGION).unwrap();
    let location = || match name.starts_with('/') {
        true => Location::File(name.clone().into()),
        false => Location::Shm(name.clone()),
    };
    if role == "create" || role == "ephemeral" {
        let options = CreateOptions {
            capacity: Some(4 << 20),
            ephemeral: role == "ephemeral",
            ..CreateOptions::default()
        };
        Region::create(location(), options).unwrap();
        return;
    }
    let region = Region::open(location(), false).unwrap();
    match role.as_str() {
        "join" | "restore" | "after a corpse" | "after a corpse that freed" => {
            let _ = region.gc();
        }
        "tables" => {
            let a = put(&region, "a", 100, 21);
            put(&region, "b", 5_000, 22);
            put(&region, "c", 300_000, 23);
            put(&region, "d", 5 << 20, 24);
            put(&region, "a", 200, 25);
            drop(a);
            let both = [Part::Of(&region.lookup("c").unwrap())];
            region.publish("e", &both, &23_u64.to_le_bytes(), false).unwrap();
            region.delete("c").unwrap();
            put(&region, "f", 100, 26);
            region.delete("b").unwrap();
            put(&region, "g", 100, 27);
        }
        "slabs" => {
            let mut extents: Vec<_> = (0..300).map(|i| stamped(&region, 1_000, i)).collect();
            // A hole in each of several full slabs, and then none.
            for i in [200, 100, 10] {
                drop(extents.swap_remove(i));
            }
            extents.extend((0..3).map(|i| stamped(&region, 1_000, i)));
        }
        "records" => {
            // Some slabs have room, and all else that is warm is used. Then their blocks use up the
            // places for records in the session's page, without making anything warm: the memory
            // for more places is cold.
            let sizes = [1_000, 2_000, 4_000];
            let mut extents: Vec<_> = sizes.map(|bytes| region.allocate(bytes).unwrap()).into();
            let idle = || region.stats().unwrap().reserved - region.stats().unwrap().used;
            while extents.len() < 60 || idle() > 0 {
                extents.push(region.allocate(64 << 10).unwrap());
            }
            let room = [(1_000, 40), (2_000, 28), (4_000, 12)];
            let places = extents.len()..extents.len() + 80;
            assert!(places.start < 94 && places.end > 96, "{places:?}");
            let small = room.into_iter().flat_map(|(bytes, n)| (0..n).map(move |_| bytes));
            extents.extend(small.map(|bytes| region.allocate(bytes).unwrap()));
        }
        "many" => {
            for i in 0..400 {
                region.publish(&format!("t{i}"), &[], &0_u64.to_le_bytes(), false).unwrap();
            }
        }
        "trim" => {
            drop(stamped(&region, 5 << 20, 1));
            region.trim().unwrap();
        }
        "grow" => {
            let mut growable = region.grow(100_000).unwrap();
            for bytes in [1 << 20, 3 << 20, 6 << 20] {
                growable.extend(bytes, 0).unwrap();
            }
            let extent = growable.seal(3 << 20).unwrap();
            stamp(extent.as_mut_ptr(), extent.len(), 31);
            region.publish("grown", &[Part::Owned(&extent)], &31_u64.to_le_bytes(), true).unwrap();
        }
        "update" => update(&region),
        "ticket" => {
            let extent = stamped(&region, 1_000, 41);
            let parts = [Part::Owned(&extent)];
            let ticket = region.ticket(&parts, &41_u64.to_le_bytes()).unwrap();
            let passes = [ticket.issue().unwrap().unwrap(), ticket.issue().unwrap().unwrap()];
            drop((ticket, extent));
            let [one, two] = passes.map(|pass| region.redeem(pass).unwrap());
            assert!(is_whole(&one.lease().unwrap()) && is_whole(&two.lease().unwrap()));
        }
        "corpse" => {
            let extents: Vec<_> = (0..300).map(|i| stamped(&region, 1_000, i)).collect();
            let large = stamped(&region, 3 << 20, 1);
            let ticket = region.ticket(&[Part::Owned(&large)], &1_u64.to_le_bytes()).unwrap();
            ticket.issue().unwrap().unwrap();
            let updated = put(&region, "updated", 10_000, 51);
            let exclusive = updated.updater(&patience()).unwrap().exclusive(&patience()).unwrap();
            exclusive.begin().unwrap();
            put(&region, "replaced", 100, 52);
            drop((extents, exclusive));
        }
        "churn" => {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..3_000 {
                        drop(region.lookup("churn"));
                    }
                });
                for _ in 0..3_000 {
                    put(&region, "churn", 100, 8);
                }
            });
        }
        "fork" => fork(&region),
        "flush" => {
            for with in 61..64 {
                put(&region, "flushed", 100_000, with);
                region.flush(&patience()).unwrap();
            }
        }
        "flush given up" => {
            put(&region, "flushed", 100_000, 61);
            for calls in 0..20 {
                let left = std::cell::Cell::new(calls);
                let interrupt = || {
                    left.set(left.get() - 1);
                    left.get() < 0
                };
                let _ = region.flush(&Patience { interrupt: &interrupt, ..patience() });
            }
        }
        other => panic!("no role {other}"),
    }
}

/// Forks with everything that a process can have, and dies the child's death if that dies.
fn fork(region: &Region) {
    let pin = put(region, "forked", 10_000, 71);
    let lease = pin.lease().unwrap();
    let extents = [1_000, 100_000].map(|bytes| stamped(region, bytes, 72));
    extents.iter().for_each(Extent::keep);
    // SAFETY: the child leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let good = is_whole(&lease) && region.verify().ok();
        drop((lease, pin, extents));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert!(is_whole(&lease));
    region.gc().unwrap();
    assert!(region.verify().ok(), "{:?}", region.verify());
    drop(extents);
    if status == libc::SIGKILL {
        // SAFETY: ends this process at once.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    assert_eq!(status, 0);
}

fn update(region: &Region) {
    let pin = put(region, "updated", 10_000, 41);
    let (at, len) = pin.extents().unwrap()[0];
    {
        let exclusive = pin.updater(&patience()).unwrap().exclusive(&patience()).unwrap();
        exclusive.begin().unwrap();
        stamp(exclusive.as_mut_ptr(at, len).unwrap(), len, 2 * 41);
        exclusive.finish().unwrap();
    }
    // Begun and not finished: poisoned.
    {
        let exclusive = pin.updater(&patience()).unwrap().exclusive(&patience()).unwrap();
        exclusive.begin().unwrap();
        stamp(exclusive.as_mut_ptr(at, len).unwrap(), len, 41);
    }
    pin.repair().unwrap();
    // Three versions, of which the second is given up first.
    let swap = |pin: &Pin, with: u64| {
        let extent = stamped(region, 70_000, with);
        let updater = pin.updater(&patience()).unwrap();
        updater.swap(&[Part::Owned(&extent)], &with.to_le_bytes()).unwrap()
    };
    let second = swap(&pin, 42);
    let third = swap(&second, 43);
    drop(second);
    assert_eq!(pin.follow().unwrap().sequence(), third.sequence());
    let extent = stamped(region, 1_000, 44);
    let updater = pin.updater(&patience()).unwrap();
    let last = updater.revise(&[Part::Owned(&extent)], &44_u64.to_le_bytes()).unwrap();
    // It loses its name while it is written.
    let exclusive = last.updater(&patience()).unwrap().exclusive(&patience()).unwrap();
    exclusive.begin().unwrap();
    region.delete("updated").unwrap();
    assert!(matches!(exclusive.finish(), Err(Error::Stale(_))));
}

#[test]
fn every_point_is_listed_once() {
    let mut listed: Vec<&str> = WORKLOADS.iter().flat_map(|(_, points)| *points).copied().collect();
    listed.sort_unstable();
    let mut points = KILL_POINTS.to_vec();
    points.sort_unstable();
    assert_eq!(listed, points, "list new points of `kill.rs` under a workload that reaches them");
}

#[test]
fn a_death_at_any_point_loses_tears_and_leaks_nothing() {
    let only = std::env::var("POINT").ok();
    let mut deaths = 0;
    let mut missed = Vec::new();
    for (workload, points) in WORKLOADS {
        for point in points.iter().filter(|&&point| only.as_deref().is_none_or(|p| p == point)) {
            // What takes two at the same moment takes a few attempts.
            let attempts = if *workload == "churn" { 50 } else { 1 };
            let died = (0..attempts).any(|_| die_at(workload, point, 1));
            if !died {
                missed.push((workload, point));
            }
            deaths += u32::from(died);
            // Later passes, which not every workload has.
            for pass in [2, 5] {
                deaths += u32::from(die_at(workload, point, pass));
            }
        }
    }
    assert!(missed.is_empty(), "not reached: {missed:?}");
    println!("{deaths} deaths at {} points", KILL_POINTS.len());
}
