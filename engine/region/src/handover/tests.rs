//! What can stand in the way of a fork's hand-over, and what sessions are not judged by.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::backing;
use crate::layout::{LOCK_BASE, SESSIONS, header, session as field};
use crate::lock::LockFile;
use crate::session::Session;
use crate::{CreateOptions, Error, Location, Part, Region};

const ALONE: &str = "INSITU_TEST_HANDOVER_ALONE";

/// Whether this is not the test's own process: then that was started, and has passed. A fork passes
/// on the regions of all other tests, too.
fn elsewhere(test: &str) -> bool {
    let test = format!("handover::tests::{test}");
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        return false;
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(ALONE, &test)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{out}\n{err}", run.status);
    true
}

fn memfd(capacity: u64) -> Region {
    let options = CreateOptions { capacity: Some(capacity), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

/// A second session in the same region, as another process would have it.
fn another(region: &Region) -> Arc<Session> {
    let made = backing::open(region.location().unwrap(), true).unwrap();
    Arc::new(Session::open(made.into(), false).unwrap())
}

/// Whether `look` passes in a forked child, and how long the fork was held up.
fn child(look: impl FnOnce() -> bool) -> Duration {
    let since = Instant::now();
    // SAFETY: the child runs `look` and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    let took = since.elapsed();
    if pid == 0 {
        // SAFETY: a hang ends by a signal.
        unsafe { libc::alarm(60) };
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!matches!(passed, Ok(true)))) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
    took
}

#[test]
fn a_child_for_which_there_is_no_session_left_is_told() {
    if elsewhere("a_child_for_which_there_is_no_session_left_is_told") {
        return;
    }
    let region = memfd(4 << 20);
    let pin = region.publish("t", &[], b"m", false).unwrap();
    let session = region.for_tests();
    let others = LockFile::reopen(session.backing.fd().unwrap(), true).unwrap();
    for index in 1..u64::from(SESSIONS) {
        assert!(others.try_lock(LOCK_BASE + index, 1).unwrap());
    }
    child(|| {
        let pin = pin.manifest();
        matches!(pin, Err(Error::Stale(_)))
            && matches!(region.names(), Err(Error::SessionLimit { limit: SESSIONS }))
    });
    others.unlock(LOCK_BASE + 511, 1).unwrap();
    child(|| pin.manifest().unwrap() == b"m" && region.for_tests().index() == 511);
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn a_child_takes_a_corpses_slot_only_if_there_is_no_other() {
    if elsewhere("a_child_takes_a_corpses_slot_only_if_there_is_no_other") {
        return;
    }
    let region = memfd(4 << 20);
    let pin = region.publish("t", &[], b"m", false).unwrap();
    let left_behind = || child(|| region.lookup("t").is_ok());
    left_behind();
    let session = region.for_tests();
    let incarnation = |index| {
        let at = session.layout.session(index) + field::INCARNATION;
        session.bytes.word(at).unwrap().load(Ordering::Relaxed)
    };
    let first = incarnation(1);
    assert_ne!(first, 0);
    child(|| region.for_tests().index() == 2);
    let others = LockFile::reopen(session.backing.fd().unwrap(), true).unwrap();
    for index in 3..u64::from(SESSIONS) {
        assert!(others.try_lock(LOCK_BASE + index, 1).unwrap());
    }
    child(|| {
        let session = region.for_tests();
        session.index() == 1 && incarnation(1) == session.token() >> 9
    });
    assert!(incarnation(1) > first);
    drop(pin);
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn a_fork_does_not_wait_for_a_stopped_writer() {
    if elsewhere("a_fork_does_not_wait_for_a_stopped_writer") {
        return;
    }
    let region = memfd(4 << 20);
    let pin = region.publish("t", &[], b"m", false).unwrap();
    let (session, other) = (region.for_tests(), another(&region));
    // It lives, and never goes on.
    let word = session.bytes.word(header::WRITER).unwrap();
    word.store(other.token() << 1, Ordering::SeqCst);
    let took = child(|| matches!(pin.manifest(), Err(Error::Stale(_))));
    assert!(took < Duration::from_secs(3), "{took:?}");
    word.store(0, Ordering::SeqCst);
    child(|| pin.manifest().unwrap() == b"m");
    assert_eq!(region.stats().unwrap().sessions, 3);
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().sessions, 2);
}

#[test]
fn a_fork_from_a_full_region_succeeds_and_the_child_is_told() {
    if elsewhere("a_fork_from_a_full_region_succeeds_and_the_child_is_told") {
        return;
    }
    let region = memfd(1 << 20);
    // More than a session's page has records for: the child's need a block, and there is no room.
    let mut kept = Vec::new();
    while let Ok(extent) = region.allocate(1 << 10) {
        extent.keep();
        kept.push(extent);
    }
    assert!(kept.len() > 200);
    let refused = |extent| {
        matches!(region.publish("t", &[Part::Owned(extent)], b"", false), Err(Error::Stale(_)))
    };
    child(|| refused(&kept[0]) && region.names().is_ok());
    kept.truncate(kept.len() - 70);
    // What the attempt took is given back.
    assert!(region.verify().ok(), "{:?}", region.verify());
    child(|| region.publish("t", &[Part::Owned(&kept[0])], b"", false).is_ok());
    drop(kept);
    region.delete("t").unwrap();
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.sessions), (0, 1), "{stats:?}");
    assert!(region.verify().ok(), "{:?}", region.verify());
}

/// A process's number says nothing: it may be another's by now, or of a process that is not ours.
#[test]
fn whether_a_session_lives_is_not_judged_by_its_process_number() {
    let region = memfd(4 << 20);
    region.publish("t", &[], b"m", false).unwrap();
    let (session, other) = (region.for_tests(), another(&region));
    let held = other.lookup("t").unwrap();
    let page = session.layout.session(other.index());
    let (pid, start) =
        (session.bytes.half(page + field::PID).unwrap(), session.bytes.word(page + field::START));
    region.delete("t").unwrap();
    // No such process; or a session of ours that has ended; it lives all the same.
    for number in [0, 1 << 30, u32::MAX] {
        pid.store(number, Ordering::Relaxed);
        start.as_ref().unwrap().store(7, Ordering::Relaxed);
        region.gc().unwrap();
        assert_eq!(region.stats().unwrap().retired, 1);
    }
    assert!(other.bytes.word(page).unwrap().load(Ordering::Relaxed) != 0);
    // It dies, and its number is that of a living process by now: ours, or the first of all.
    other.lock.give_up(LOCK_BASE + u64::from(other.index())).unwrap();
    pid.store(std::process::id(), Ordering::Relaxed);
    start.as_ref().unwrap().store(super::session::start_time(), Ordering::Relaxed);
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.retired, stats.sessions), (0, 1), "{stats:?}");
    // Not to be dropped: its slot is free.
    let _ = std::mem::ManuallyDrop::new((other, held));
}
