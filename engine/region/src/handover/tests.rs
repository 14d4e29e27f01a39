//! What can stand in the way of a fork's hand-over, and what sessions are not judged by.

use std::os::fd::AsRawFd;
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

#[test]
fn what_a_child_stores_through_an_open_window_stays_with_it() {
    if elsewhere("what_a_child_stores_through_an_open_window_stays_with_it") {
        return;
    }
    let region = memfd(16 << 20);
    let bytes = 3 << 20;
    let extents: Vec<_> = (0..5).map(|_| region.allocate(bytes).unwrap()).collect();
    let windows: Vec<_> =
        extents.iter().map(|e| region.window(e.offset() + 64, 100_000).unwrap()).collect();
    let (first, last) = (0, 99_999);
    let read = |i: usize, at: usize| {
        // SAFETY: within the window, which is mapped for as long as it lives.
        unsafe { windows[i].as_mut_ptr().add(at).read_volatile() }
    };
    let write = |i: usize, at: usize, value: u8| {
        // SAFETY: as above, and open, or a child's own.
        unsafe { windows[i].as_mut_ptr().add(at).write_volatile(value) }
    };
    for (i, at) in (0..5).flat_map(|i| [(i, first), (i, last)]) {
        write(i, at, 7);
    }
    windows[3].seal().unwrap();
    windows[4].revoke().unwrap();
    let mut pipe = [0; 2];
    // SAFETY: gives two descriptors, which the test keeps to its end.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: the child runs what follows, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut byte = [0_u8];
        // SAFETY: a hang ends by a signal.
        unsafe { libc::alarm(60) };
        // SAFETY: into the byte above, with which the parent says that it has sealed a window.
        unsafe { libc::read(pipe[0], byte.as_mut_ptr().cast(), 1) };
        let mut right = (read(3, last), read(4, last)) == (7, 0);
        for (i, at) in (0..3).flat_map(|i| [(i, first), (i, last)]) {
            right &= read(i, at) == 7;
            write(i, at, 9);
            right &= read(i, at) == 9;
        }
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!right)) };
    }
    windows[0].seal().unwrap();
    // SAFETY: a byte to the child.
    assert_eq!(unsafe { libc::write(pipe[1], [1_u8].as_ptr().cast(), 1) }, 1);
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    for (i, at) in (0..3).flat_map(|i| [(i, first), (i, last)]) {
        assert_eq!(read(i, at), 7, "window {i}, byte {at}");
    }
    assert_eq!(status, 0);
    // The parent's go on as before, and what a grandchild stores is not the child's either.
    write(1, last, 8);
    // SAFETY: the extent has that byte.
    assert_eq!(unsafe { extents[1].as_ptr().add(64 + last).read() }, 8);
    child(|| {
        write(1, last, 10);
        child(|| {
            write(1, last, 11);
            true
        });
        read(1, last) == 10
    });
    assert_eq!(read(1, last), 8);
    // Without its descriptor nothing but zeros can be had.
    let fd = region.for_tests().backing.fd().unwrap().as_raw_fd();
    // SAFETY: as a program does that closes descriptors it does not know.
    unsafe { libc::close(fd) };
    child(|| {
        let seen = read(1, last);
        write(1, last, 12);
        seen == 0 && read(1, last) == 12
    });
    assert_eq!(read(1, last), 8);
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
