//! Forks: what a child inherits works there, and each of the two gives back its own share only.
//! Every test runs in a process of its own, since a fork passes on all that its process has.

// The lints' exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use insitu_region::{CreateOptions, Error, Extent, Location, Part, Patience, Pin, Region};

const ALONE: &str = "INSITU_TEST_ALONE";

/// Whether this is not the test's own process: then that was started, and has passed.
fn elsewhere(test: &str) -> bool {
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        return false;
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{out}\n{err}", run.status);
    true
}

/// A named region that is removed at the end, also when the test fails.
struct Place(String);

impl Place {
    fn new(what: &str) -> Self {
        Self(format!("test-fork-{what}-{}", std::process::id()))
    }

    fn create(&self, capacity: u64) -> Region {
        let options = CreateOptions { capacity: Some(capacity), ..CreateOptions::default() };
        Region::create(Location::Shm(self.0.clone()), options).unwrap()
    }

    fn open(&self, read_only: bool) -> Region {
        Region::open(Location::Shm(self.0.clone()), read_only).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Region::remove(&Location::Shm(self.0.clone()));
    }
}

fn healthy(region: &Region) {
    assert!(region.verify().ok(), "{:?}", region.verify());
}

/// A child and a way to tell it to go on.
struct Forked {
    pid: libc::pid_t,
    go: [i32; 2],
    ready: [i32; 2],
}

fn pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    ends
}

fn await_byte(fd: i32) {
    let mut byte = 0_u8;
    // SAFETY: reads one byte into a live variable.
    assert_eq!(unsafe { libc::read(fd, (&raw mut byte).cast(), 1) }, 1, "the other side ended");
}

fn send_byte(fd: i32) {
    // SAFETY: writes one live byte.
    assert_eq!(unsafe { libc::write(fd, [1_u8].as_ptr().cast(), 1) }, 1);
}

/// What the child uses to speak with its parent.
struct Parent {
    go: i32,
    ready: i32,
}

impl Parent {
    fn meet(&self) {
        send_byte(self.ready);
        await_byte(self.go);
    }
}

/// Forks; the child runs `work`, and ends without running destructors of anything else.
fn fork(work: impl FnOnce(&Parent)) -> Forked {
    fork_by(
        || {
            // SAFETY: the child runs `work` and leaves by `_exit`.
            unsafe { libc::fork() }
        },
        work,
    )
}

fn fork_by(make: impl FnOnce() -> libc::pid_t, work: impl FnOnce(&Parent)) -> Forked {
    let (go, ready) = (pipe(), pipe());
    let pid = make();
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: closes the parent's ends in the child; a hang ends by a signal.
        unsafe {
            libc::close(go[1]);
            libc::close(ready[0]);
            libc::alarm(60);
        }
        let parent = Parent { go: go[0], ready: ready[1] };
        let passed = catch_unwind(AssertUnwindSafe(|| work(&parent))).is_ok();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!passed)) };
    }
    // SAFETY: closes the child's ends here.
    unsafe {
        libc::close(go[0]);
        libc::close(ready[1]);
    }
    Forked { pid, go, ready }
}

impl Forked {
    fn expect(&self) {
        await_byte(self.ready[0]);
    }

    fn go_on(&self) {
        send_byte(self.go[1]);
    }

    fn wait(self) -> i32 {
        let mut status = 0;
        // SAFETY: waits for our child.
        assert_eq!(unsafe { libc::waitpid(self.pid, &raw mut status, 0) }, self.pid);
        // SAFETY: our own pipes.
        unsafe {
            libc::close(self.go[1]);
            libc::close(self.ready[0]);
        }
        status
    }

    fn passes(self) {
        assert_eq!(self.wait(), 0, "the child failed");
    }

    fn kill(self) {
        // SAFETY: our own child.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        assert_eq!(self.wait(), libc::SIGKILL);
    }
}

/// Sets a flag when it goes, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The child's copy of what its parent's code owns and will drop: by `_exit` the child never gets
/// to drop the original.
fn inherited<T>(value: &T) -> T {
    // SAFETY: only called in forked children, once for each value, which is not used afterwards.
    unsafe { std::ptr::read(value) }
}

fn fill(extent: &Extent, with: u8) {
    // SAFETY: the caller's own extent.
    unsafe { extent.as_mut_ptr().write_bytes(with, extent.len() as usize) };
}

fn is_all(at: *const u8, len: u64, with: u8) -> bool {
    // SAFETY: the caller holds the memory.
    (0..len as usize).all(|i| unsafe { at.add(i).read_volatile() } == with)
}

fn put(region: &Region, name: &str, bytes: u64, with: u8) -> Pin {
    let extent = region.allocate(bytes).unwrap();
    fill(&extent, with);
    region.publish(name, &[Part::Owned(&extent)], name.as_bytes(), true).unwrap()
}

fn view(pin: &Pin) -> (*const u8, u64) {
    let (offset, len) = pin.extents().unwrap()[0];
    (pin.slice(offset, len).unwrap(), len)
}

/// Writes over all memory that is free.
fn scribble(region: &Region) {
    region.gc().unwrap();
    let mut taken = Vec::new();
    for bytes in [256 << 10, 64 << 10, 1 << 10] {
        while let Ok(extent) = region.allocate(bytes) {
            fill(&extent, 0xee);
            taken.push(extent);
        }
    }
}

#[test]
fn a_childs_views_stay_whatever_the_parent_does() {
    if elsewhere("a_childs_views_stay_whatever_the_parent_does") {
        return;
    }
    let place = Place::new("stay");
    let region = place.create(8 << 20);
    let pins = [put(&region, "a", 1 << 20, 1), put(&region, "b", 100, 2), put(&region, "c", 9, 3)];
    let lease = pins[0].lease_for("a view").unwrap();
    let results: Vec<_> = (0..300).map(|_| region.allocate(1000).unwrap()).collect();
    for (i, extent) in results.iter().enumerate() {
        fill(extent, i as u8);
        extent.keep();
    }
    let views = [view(&pins[0]), view(&pins[1]), view(&pins[2])];
    let child = fork(|parent| {
        parent.meet();
        for (i, (at, len)) in views.into_iter().enumerate() {
            assert!(is_all(at, len, i as u8 + 1));
        }
        for (i, extent) in results.iter().enumerate() {
            assert!(is_all(extent.as_ptr(), extent.len(), i as u8));
        }
        let held = region.leases().unwrap();
        let mine = |h: &&insitu_region::LeaseRecord| h.pid == std::process::id();
        assert!(held.iter().filter(mine).any(|h| h.what == "a view"), "{held:?}");
        assert_eq!(held.iter().filter(mine).count(), 4);
        healthy(&region);
        // A table of an inherited result.
        let part = Part::Owned(&results[7]);
        region.publish("from the child", &[part], b"m", true).unwrap();
        drop((inherited(&pins), inherited(&lease), inherited(&results)));
        assert_eq!(region.stats().unwrap().extents, 0);
        region.gc().unwrap();
        healthy(&region);
        parent.meet();
    });
    child.expect();
    drop((pins, lease, results));
    for name in ["a", "b", "c"] {
        region.delete(name).unwrap();
    }
    scribble(&region);
    healthy(&region);
    child.go_on();
    child.expect();
    let pin = region.lookup("from the child").unwrap();
    let (at, len) = view(&pin);
    assert!(is_all(at, len, 7));
    drop(pin);
    region.delete("from the child").unwrap();
    // The child has given back all that it had; nothing is left of either.
    assert_eq!(region.stats().unwrap().used, 0);
    child.go_on();
    child.passes();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().sessions, 1);
    healthy(&region);
}

#[test]
fn a_parents_views_stay_whatever_the_child_does() {
    if elsewhere("a_parents_views_stay_whatever_the_child_does") {
        return;
    }
    let place = Place::new("parents");
    let region = place.create(8 << 20);
    let pin = put(&region, "a", 1 << 20, 1);
    let result = region.allocate(5000).unwrap();
    fill(&result, 2);
    result.keep();
    let (at, len) = view(&pin);
    let child = fork(|_| {
        drop((inherited(&pin), inherited(&result)));
        region.delete("a").unwrap();
        scribble(&region);
        put(&region, "b", 1000, 9);
        healthy(&region);
    });
    child.passes();
    assert!(is_all(at, len, 1));
    assert!(is_all(result.as_ptr(), result.len(), 2));
    assert!(matches!(region.lookup("a"), Err(Error::TableNotFound { .. })));
    assert_eq!(region.names().unwrap(), ["b"]);
    drop((pin, result));
    region.delete("b").unwrap();
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.sessions, stats.retired), (0, 1, 0), "{stats:?}");
    healthy(&region);
}

#[test]
fn what_a_dead_child_held_is_reclaimed() {
    if elsewhere("what_a_dead_child_held_is_reclaimed") {
        return;
    }
    let place = Place::new("dead");
    let region = place.create(8 << 20);
    for killed in [false, true] {
        let pin = put(&region, "t", 3 << 20, 1);
        let results: Vec<_> = (0..250).map(|_| region.allocate(100).unwrap()).collect();
        results.iter().for_each(Extent::keep);
        let child = fork(|parent| {
            let more = (0..250).map(|_| region.allocate(100).unwrap()).collect::<Vec<_>>();
            parent.meet();
            drop(more);
            // Without giving anything back.
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        });
        child.expect();
        drop((pin, results));
        region.delete("t").unwrap();
        region.gc().unwrap();
        assert!(region.stats().unwrap().used > 3 << 20);
        // Its memory is not to be had while it lives, and is at once when it does not.
        assert!(matches!(region.allocate(6 << 20), Err(Error::RegionFull { .. })));
        if killed {
            child.kill();
        } else {
            child.go_on();
            child.passes();
        }
        drop(region.allocate(6 << 20).unwrap());
        region.gc().unwrap();
        let stats = region.stats().unwrap();
        assert_eq!((stats.used, stats.sessions, stats.retired), (0, 1, 0), "{stats:?}");
        healthy(&region);
    }
}

#[test]
fn a_dead_child_has_no_handle_on_a_table() {
    if elsewhere("a_dead_child_has_no_handle_on_a_table") {
        return;
    }
    let place = Place::new("others");
    let region = place.create(8 << 20);
    let pin = put(&region, "t", 1000, 1);
    let patience = || Patience { timeout: Duration::ZERO, interrupt: &|| false, what: "a test" };
    let others = || pin.updater(&patience()).unwrap().has_others().unwrap();
    assert!(!others());
    let (clone, again) = (pin.clone(), region.lookup("t").unwrap());
    assert!(others());
    drop(again);
    assert!(!others(), "clones are one");
    drop(clone);
    let child = fork(Parent::meet);
    child.expect();
    assert!(others());
    child.kill();
    assert!(!others());
    healthy(&region);
}

#[test]
fn a_child_outlives_its_parent_and_has_children_of_its_own() {
    if elsewhere("a_child_outlives_its_parent_and_has_children_of_its_own") {
        return;
    }
    let place = Place::new("generations");
    let region = place.create(8 << 20);
    let observer = fork(|parent| {
        // A middle process between us and the two below.
        let pin = put(&region, "t", 1 << 20, 5);
        let result = region.allocate(200 << 10).unwrap();
        fill(&result, 6);
        result.keep();
        let (at, len) = view(&pin);
        let grandchild = fork(|_| {
            let great = fork(|up| {
                up.meet();
                // Both above are gone by now, or will be.
                assert!(is_all(at, len, 5));
                assert!(is_all(result.as_ptr(), result.len(), 6));
                region.publish("kept", &[Part::Owned(&result)], b"m", true).unwrap();
                drop((inherited(&pin), inherited(&result)));
                up.meet();
            });
            great.expect();
            region.delete("t").unwrap();
            great.go_on();
            great.expect();
            great.go_on();
            great.passes();
            // SAFETY: dies with all it holds.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        });
        assert_eq!(grandchild.wait(), libc::SIGKILL);
        assert!(is_all(at, len, 5));
        parent.meet();
        // SAFETY: as above.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    });
    observer.expect();
    observer.go_on();
    assert_eq!(observer.wait(), libc::SIGKILL);
    let pin = region.lookup("kept").unwrap();
    let (at, len) = view(&pin);
    scribble(&region);
    assert!(is_all(at, len, 6));
    drop(pin);
    region.delete("kept").unwrap();
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.sessions), (0, 1), "{stats:?}");
    healthy(&region);
}

#[test]
fn where_nothing_is_held_a_child_joins_on_first_use() {
    if elsewhere("where_nothing_is_held_a_child_joins_on_first_use") {
        return;
    }
    let place = Place::new("lazy");
    let region = place.create(8 << 20);
    drop(put(&region, "t", 1000, 1));
    fork(|_| {
        // It has no session, and its parent's is not touched, also by dropping a clone.
        drop(region.clone());
        let own = place.open(false);
        assert_eq!(own.stats().unwrap().sessions, 2);
        let pins: Vec<_> = std::thread::scope(|scope| {
            let lookups: Vec<_> = (0..8).map(|_| scope.spawn(|| region.lookup("t"))).collect();
            lookups.into_iter().map(|found| found.join().unwrap().unwrap()).collect()
        });
        // All handles of a region are one session.
        assert_eq!(own.stats().unwrap().sessions, 2);
        let (at, len) = view(&pins[0]);
        assert!(is_all(at, len, 1));
        put(&region, "u", 10, 2);
        drop((pins, own));
        region.close();
        assert!(matches!(region.names(), Err(Error::Stale(_))));
    })
    .passes();
    assert_eq!(region.names().unwrap(), ["t", "u"]);
    assert_eq!(region.stats().unwrap().sessions, 1);
    healthy(&region);
}

#[test]
fn a_child_whose_fork_no_handler_saw_has_no_share_and_can_join() {
    if elsewhere("a_child_whose_fork_no_handler_saw_has_no_share_and_can_join") {
        return;
    }
    let place = Place::new("raw");
    let region = place.create(8 << 20);
    let pin = put(&region, "t", 1000, 1);
    let lease = pin.lease().unwrap();
    let extent = region.allocate(1000).unwrap();
    extent.keep();
    fork_by(
        || {
            let flags = libc::SIGCHLD as libc::c_long;
            // SAFETY: as fork(2), without what the C library does around it.
            unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as libc::pid_t }
        },
        |_| {
            assert!(matches!(pin.manifest(), Err(Error::Stale(_))));
            assert!(matches!(pin.lease(), Err(Error::Stale(_))));
            let part = Part::Owned(&extent);
            assert!(matches!(region.publish("u", &[part], b"", false), Err(Error::Stale(_))));
            let own = region.lookup("t").unwrap();
            assert_eq!(own.manifest().unwrap(), b"t");
            assert_eq!(region.stats().unwrap().sessions, 2);
            drop((inherited(&pin), inherited(&lease), inherited(&extent)));
            healthy(&region);
        },
    )
    .passes();
    // Nothing of ours was released.
    let used = region.stats().unwrap().used;
    region.delete("t").unwrap();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, used);
    assert_eq!(region.stats().unwrap().retired, 1);
    drop((pin, lease, extent));
    assert_eq!(region.stats().unwrap().used, 0);
    healthy(&region);
}

#[test]
fn what_only_runs_is_not_passed_on() {
    if elsewhere("what_only_runs_is_not_passed_on") {
        return;
    }
    let place = Place::new("running");
    let region = place.create(8 << 20);
    let pin = put(&region, "t", 1000, 1);
    let running = pin.lease_while("a query").unwrap();
    let unfinished = region.allocate(1 << 20).unwrap();
    let child = fork(|parent| {
        let mine = |kind| {
            let held = region.leases().unwrap();
            held.iter().filter(|h| h.pid == std::process::id() && h.kind == kind).count()
        };
        assert_eq!(mine(insitu_region::HoldKind::Lease), 0);
        assert_eq!(mine(insitu_region::HoldKind::Pin), 1);
        let part = Part::Owned(&unfinished);
        assert!(matches!(region.publish("u", &[part], b"", false), Err(Error::Stale(_))));
        drop((inherited(&running), inherited(&unfinished)));
        // A lease of our own, and what ran before the fork does not take it away.
        let lease = pin.lease().unwrap();
        assert_eq!(mine(insitu_region::HoldKind::Lease), 1);
        drop(lease);
        parent.meet();
    });
    child.expect();
    region.delete("t").unwrap();
    child.go_on();
    child.passes();
    healthy(&region);
}

/// Forks in a callback of the first call, whose other calls say `false`, and awaits the child. The
/// child's callback says `stop`.
fn forking(forked: &std::cell::Cell<bool>, stop: bool) -> impl Fn() -> bool {
    move || {
        if forked.replace(true) {
            return false;
        }
        // SAFETY: the child leaves by `_exit` where `forking` was used.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: a hang ends by a signal.
            unsafe { libc::alarm(60) };
            IS_CHILD.store(true, Ordering::Relaxed);
            return stop;
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "the child was not told");
        false
    }
}

static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Ends a child of `forking`, which must have been told that what it was doing is its parent's.
fn end_child<T: std::fmt::Debug>(outcome: &Result<T, Error>) {
    if IS_CHILD.load(Ordering::Relaxed) {
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!matches!(outcome, Err(Error::Stale(_))))) };
    }
}

#[test]
fn what_forks_while_memory_is_reserved_leaves_it_to_the_parent() {
    if elsewhere("what_forks_while_memory_is_reserved_leaves_it_to_the_parent") {
        return;
    }
    let options = CreateOptions { capacity: Some(512 << 20), ..CreateOptions::default() };
    let region = Region::create(Location::Memfd, options).unwrap();
    // So that a session is passed on.
    let _held = put(&region, "t", 100, 1);
    let path = format!("/proc/self/fd/{}", region.raw_fd().unwrap());
    let blocks =
        || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512;
    for stop in [false, true] {
        let (before, forked) = (blocks(), std::cell::Cell::new(false));
        let extent = region.allocate_with(150 << 20, &forking(&forked, stop));
        end_child(&extent);
        let extent = extent.unwrap();
        assert!(forked.get());
        assert!(blocks() >= before + (140 << 20), "the child has given it back");
        healthy(&region);
        drop(extent);
        region.trim().unwrap();

        let (before, forked) = (blocks(), std::cell::Cell::new(false));
        let mut growable = region.grow(1 << 20).unwrap();
        let grown = growable.extend_with(150 << 20, 0, &forking(&forked, stop));
        end_child(&grown);
        assert_eq!(grown.unwrap(), 0);
        assert!(forked.get());
        assert!(blocks() >= before + (140 << 20), "the child has given it back");
        healthy(&region);
        drop(growable);
        region.trim().unwrap();
        healthy(&region);
    }
}

#[test]
fn what_forks_in_the_middle_of_a_flush_leaves_it_to_the_parent() {
    if elsewhere("what_forks_in_the_middle_of_a_flush_leaves_it_to_the_parent") {
        return;
    }
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = CreateOptions { capacity: Some(4 << 20), ..CreateOptions::default() };
    let location = Location::File(directory.path().join("region"));
    let region = Region::create(location, options).unwrap();
    let _held = put(&region, "t", 100_000, 1);
    let flush = |interrupt: &dyn Fn() -> bool| {
        region.flush(&Patience { timeout: Duration::from_secs(9), interrupt, what: "" })
    };
    for stop in [false, true] {
        put(&region, "t", 100_000, 2);
        let forked = std::cell::Cell::new(false);
        let flushed = flush(&forking(&forked, stop));
        end_child(&flushed);
        assert_eq!(flushed.unwrap().tables, 1);
        assert!(forked.get());
        healthy(&region);
        put(&region, "u", 100_000, 3);
        assert_eq!(flush(&|| false).unwrap().tables, 2);
        healthy(&region);
        region.delete("u").unwrap();
    }
}

#[test]
fn read_only_sessions_are_passed_on_as_well() {
    if elsewhere("read_only_sessions_are_passed_on_as_well") {
        return;
    }
    let place = Place::new("reader");
    let writer = place.create(8 << 20);
    let middle = fork(|parent| {
        let reader = place.open(true);
        writer.close();
        put(&place.open(false), "t", 1 << 20, 1);
        let pin = reader.lookup("t").unwrap();
        let (at, len) = view(&pin);
        let child = fork(|up| {
            up.meet();
            assert!(is_all(at, len, 1));
            assert_eq!(reader.names().unwrap(), [""; 0]);
            assert!(matches!(reader.delete("t"), Err(Error::ReadOnly)));
            drop((inherited(&pin), inherited(&reader)));
            up.meet();
        });
        child.expect();
        drop((pin, reader));
        parent.meet();
        child.go_on();
        child.expect();
        parent.meet();
        child.go_on();
        child.passes();
    });
    middle.expect();
    writer.delete("t").unwrap();
    writer.gc().unwrap();
    // The child reads, though the process that opened does no longer.
    assert_eq!(writer.stats().unwrap().retired, 1);
    scribble(&writer);
    middle.go_on();
    middle.expect();
    writer.gc().unwrap();
    assert_eq!(writer.stats().unwrap().retired, 0);
    middle.go_on();
    middle.passes();
}

#[test]
fn a_child_that_executes_another_program_leaves_a_corpse_that_is_swept() {
    if elsewhere("a_child_that_executes_another_program_leaves_a_corpse_that_is_swept") {
        return;
    }
    let place = Place::new("exec");
    let region = place.create(8 << 20);
    let pin = put(&region, "t", 3 << 20, 1);
    let mut started = Vec::new();
    for _ in 0..5 {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sleep");
        command.arg("60");
        // SAFETY: does nothing; but with it the standard library forks, handlers included.
        unsafe { command.pre_exec(|| Ok(())) };
        started.push(command.spawn().unwrap());
    }
    region.delete("t").unwrap();
    drop(pin);
    assert!(region.allocate(6 << 20).is_ok());
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.sessions), (0, 1), "{stats:?}");
    for mut child in started {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn many_forks_at_once_and_thousands_one_after_the_other() {
    if elsewhere("many_forks_at_once_and_thousands_one_after_the_other") {
        return;
    }
    let place = Place::new("many");
    let region = place.create(8 << 20);
    let pin = put(&region, "t", 1000, 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..150 {
                    fork(|_| assert_eq!(region.lookup("t").unwrap().manifest().unwrap(), b"t"))
                        .passes();
                    assert_eq!(pin.manifest().unwrap(), b"t");
                }
            });
        }
    });
    // More than there are slots, at one time few.
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().sessions, 1);
    healthy(&region);
}

#[test]
fn forks_in_the_middle_of_other_threads_work_never_hang() {
    if elsewhere("forks_in_the_middle_of_other_threads_work_never_hang") {
        return;
    }
    let place = Place::new("hammer");
    let region = place.create(64 << 20);
    let kept = put(&region, "kept", 100_000, 42);
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = |me: u64| {
        let mut held = Vec::new();
        for i in 0_u64.. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            rounds.fetch_add(1, Ordering::Relaxed);
            let name = format!("t{}", (me + i) % 5);
            let extent = region.allocate(1 << (i % 19)).unwrap();
            let parts = [Part::Owned(&extent)];
            let pin = region.publish(&name, &parts, name.as_bytes(), true).unwrap();
            if i.is_multiple_of(3) {
                extent.keep();
                held.push((extent, pin.lease().unwrap()));
            }
            if i.is_multiple_of(7) {
                let _ = region.delete(&name);
            }
            held.drain(..held.len().saturating_sub(5));
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let stop = Stop(&done);
        for me in 0..2 {
            scope.spawn(move || work(me));
        }
        while rounds.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        for round in 0..200 {
            fork(|_| {
                let (at, len) = view(&kept);
                assert!(is_all(at, len, 42));
                put(&region, &format!("from {}", round % 3), 3000, 7);
                region.lookup("kept").unwrap();
                region.names().unwrap();
                if round % 20 == 0 {
                    region.gc().unwrap();
                }
                std::thread::scope(|scope| {
                    scope.spawn(|| put(&region, "thread", 100, 1));
                });
            })
            .passes();
        }
        drop(stop);
    });
    let (at, len) = view(&kept);
    assert!(is_all(at, len, 42));
    drop(kept);
    for name in region.names().unwrap() {
        region.delete(&name).unwrap();
    }
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.sessions, stats.retired), (0, 1, 0), "{stats:?}");
    healthy(&region);
}

#[test]
fn a_fork_with_a_dozen_tables_costs_little() {
    if elsewhere("a_fork_with_a_dozen_tables_costs_little") {
        return;
    }
    let place = Place::new("cost");
    let region = place.create(64 << 20);
    let time = || {
        let mut times: Vec<_> = (0..60)
            .map(|_| {
                let since = Instant::now();
                // SAFETY: the child ends at once.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    // SAFETY: as said.
                    unsafe { libc::_exit(0) };
                }
                let took = since.elapsed();
                let mut status = 0;
                // SAFETY: waits for the child made above.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                took
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let without = time();
    let pins: Vec<_> = (0..12).map(|i| put(&region, &format!("t{i}"), 1000, 1)).collect();
    let leases: Vec<_> = pins.iter().map(|pin| pin.lease().unwrap()).collect();
    let with = time();
    println!("fork: {without:?} with nothing held, {with:?} with 12 tables leased");
    assert!(with < without + Duration::from_millis(20));
    drop(leases);
}

#[test]
fn closing_every_descriptor_does_not_end_a_session() {
    if elsewhere("closing_every_descriptor_does_not_end_a_session") {
        return;
    }
    let place = Place::new("closefrom");
    let watcher = place.create(8 << 20);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("region");
    let file = || Location::File(file.clone());
    let options = CreateOptions { capacity: Some(8 << 20), ..CreateOptions::default() };
    let on_disk = Region::create(file(), options).unwrap();
    put(&on_disk, "t", 1000, 1);
    let child = fork(|parent| {
        let region = place.open(false);
        let on_disk = Region::open(file(), false).unwrap();
        let pin = put(&region, "t", 2 << 20, 1);
        let result = region.allocate(1000).unwrap();
        result.keep();
        // As daemonising libraries do; and the numbers are soon used again.
        for fd in 3..200 {
            if fd != parent.go && fd != parent.ready {
                // SAFETY: what is under test: the region must not mind.
                unsafe { libc::close(fd) };
            }
        }
        let taken: Vec<_> = (0..12).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        parent.meet();
        // Alive, and reading, writing, reclaiming and growing as before.
        let (at, len) = view(&pin);
        assert!(is_all(at, len, 1));
        put(&region, "u", 3 << 20, 2);
        put(&on_disk, "u", 3 << 20, 2);
        drop(pin);
        region.delete("t").unwrap();
        assert_eq!(region.stats().unwrap().retired, 0);
        region.gc().unwrap();
        region.trim().unwrap();
        healthy(&region);
        // A child of such a process.
        fork(|_| {
            put(&region, "v", 1000, 3);
            drop(inherited(&result));
        })
        .passes();
        parent.meet();
        drop(result);
        drop((region, on_disk));
        // No descriptor of others was closed.
        for file in taken {
            // SAFETY: asks whether the number is open.
            assert_ne!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) }, -1);
        }
    });
    child.expect();
    watcher.delete("t").unwrap();
    watcher.gc().unwrap();
    let stats = watcher.stats().unwrap();
    assert_eq!((stats.sessions, stats.retired), (2, 1), "{stats:?}");
    put(&watcher, "t", 10, 9);
    child.go_on();
    child.expect();
    assert_eq!(watcher.names().unwrap(), ["u", "v"]);
    watcher.gc().unwrap();
    assert_eq!(watcher.stats().unwrap().sessions, 2);
    child.go_on();
    child.passes();
    watcher.gc().unwrap();
    assert_eq!(watcher.stats().unwrap().sessions, 1);
    assert!(on_disk.contains("u").unwrap());
    healthy(&watcher);
    healthy(&on_disk);
}

#[test]
fn an_anonymous_region_whose_descriptor_is_gone_serves_reads() {
    if elsewhere("an_anonymous_region_whose_descriptor_is_gone_serves_reads") {
        return;
    }
    let options = CreateOptions { capacity: Some(8 << 20), ..CreateOptions::default() };
    let region = Region::create(Location::Memfd, options).unwrap();
    let pin = put(&region, "t", 1 << 20, 1);
    drop(put(&region, "u", 100, 2));
    let child = fork(|parent| {
        for fd in 3..200 {
            if fd != parent.go && fd != parent.ready {
                // SAFETY: what is under test.
                unsafe { libc::close(fd) };
            }
        }
        let (at, len) = view(&pin);
        parent.meet();
        assert!(is_all(at, len, 1));
        assert_eq!(region.lookup("u").unwrap().manifest().unwrap(), b"u");
        for refused in [
            region.allocate(1000).map(drop),
            region.publish("v", &[], b"", false).map(drop),
            region.delete("u"),
            region.gc().map(drop),
            region.location().map(drop),
        ] {
            match refused {
                Err(Error::Stale(why)) => assert!(why.contains("descriptor"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        // Its own children may be refused as well, but nothing hangs or crashes.
        fork(|_| assert!(matches!(region.names(), Err(Error::Stale(_))))).passes();
        assert!(is_all(at, len, 1));
        drop((inherited(&pin), inherited(&region)));
    });
    child.expect();
    drop(pin);
    region.delete("t").unwrap();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().retired, 1);
    child.go_on();
    child.passes();
    region.delete("u").unwrap();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
    healthy(&region);
}

#[test]
fn zombies_are_dead_and_stopped_processes_are_not() {
    if elsewhere("zombies_are_dead_and_stopped_processes_are_not") {
        return;
    }
    let place = Place::new("zombie");
    let region = place.create(8 << 20);
    put(&region, "t", 1 << 20, 1);
    let child = fork(|parent| {
        let pin = region.lookup("t").unwrap();
        parent.meet();
        drop(pin);
    });
    child.expect();
    // SAFETY: stops our own child.
    unsafe { libc::kill(child.pid, libc::SIGSTOP) };
    let mut status = 0;
    // SAFETY: waits until it has stopped.
    unsafe { libc::waitpid(child.pid, &raw mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status));
    region.delete("t").unwrap();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().retired, 1);
    // SAFETY: kills our own child, and waits until it is dead, without reaping it.
    unsafe {
        libc::kill(child.pid, libc::SIGKILL);
        let mut info = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        assert_eq!(libc::waitid(libc::P_PID, child.pid as u32, &raw mut info, flags), 0);
    }
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.sessions, stats.retired), (0, 1, 0), "{stats:?}");
    assert_eq!(child.wait(), libc::SIGKILL);
}

/// Not a test of its own: what the process does that is killed in a hand-over, or whose child is.
#[cfg(feature = "kill-points")]
#[test]
fn victim() {
    let Ok(name) = std::env::var("INSITU_TEST_VICTIM") else { return };
    let place = std::mem::ManuallyDrop::new(Place(name));
    let region = place.open(false);
    let reader = place.open(true);
    let pins: Vec<_> = ["a", "b"].iter().map(|name| region.lookup(name).unwrap()).collect();
    let lease = pins[0].lease().unwrap();
    let results: Vec<_> = (0..200).map(|_| region.allocate(1000).unwrap()).collect();
    results.iter().for_each(Extent::keep);
    let child = fork(|_| {
        assert!(lease.pin().manifest().is_ok());
        region.allocate(10).unwrap();
    });
    let status = child.wait();
    assert!(status == 0 || status == libc::SIGKILL, "{status}");
    assert!(pins.iter().all(|pin| pin.manifest().is_ok()));
    assert!(reader.names().is_ok());
    println!("{}", if status == 0 { "nobody died" } else { "the child died" });
}

#[cfg(feature = "kill-points")]
#[test]
fn who_dies_in_a_hand_over_leaves_nothing() {
    let place = Place::new("points");
    let region = place.create(8 << 20);
    for name in ["a", "b"] {
        put(&region, name, 100_000, 7);
    }
    let before = region.stats().unwrap();
    let points = insitu_region::KILL_POINTS.iter().filter(|point| point.starts_with("fork: "));
    let mut died = 0;
    for point in points {
        for pass in ["1", "2", "150"] {
            let run = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "victim", "--nocapture"])
                .env("INSITU_TEST_VICTIM", &place.0)
                .env("INSITU_KILL_AT", point)
                .env("INSITU_KILL_PASS", pass)
                .output()
                .unwrap();
            let out = String::from_utf8_lossy(&run.stdout);
            let killed = std::os::unix::process::ExitStatusExt::signal(&run.status);
            let in_child = point.contains("child") || point.contains("session taken");
            match (killed, pass) {
                (Some(libc::SIGKILL), _) => died += 1,
                (None, "1") if in_child => {
                    assert!(out.contains("the child died"), "{point}: {out}")
                }
                (None, "2" | "150") => assert!(run.status.success(), "{point}: {run:?}"),
                _ => panic!("{point}, pass {pass}: {run:?}"),
            }
            // What was there is there, and new work goes on; after a gc nothing else is.
            assert_eq!(region.names().unwrap(), ["a", "b"]);
            drop(put(&region, "c", 1000, 1));
            region.delete("c").unwrap();
            region.gc().unwrap();
            let stats = region.stats().unwrap();
            assert_eq!((stats.used, stats.sessions), (before.used, 1), "{point}, pass {pass}");
            healthy(&region);
        }
    }
    assert!(died >= 6, "{died}");
}
