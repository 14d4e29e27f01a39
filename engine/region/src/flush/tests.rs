//! Flushes one at a time: what is durable after each, and what stands in their way.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::layout::{LOCK_BASE, header, session as session_field, slot};
use crate::lock::LockFile;
use crate::sync::testing::fail_once;
use crate::{
    CreateOptions, Error, Exclusive, Flushed, FullCause, Location, Obstacle, Part, Patience,
    Region, kill,
};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        // In memory: what is tested here is what is written, not how long a disk takes.
        Self(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("region")
    }

    fn create(&self, capacity: u64) -> Region {
        let options = CreateOptions { capacity: Some(capacity), ..CreateOptions::default() };
        Region::create(Location::File(self.path()), options).unwrap()
    }

    /// Opens it as after another boot: what is in the file now is what the disk had.
    fn reboot(&self) -> crate::Result<Region> {
        let file = std::fs::OpenOptions::new().write(true).open(self.path()).unwrap();
        let boot = std::process::id().to_le_bytes();
        std::os::unix::fs::FileExt::write_all_at(&file, &boot, header::BOOT_ID).unwrap();
        self.open()
    }

    fn open(&self) -> crate::Result<Region> {
        Region::open(Location::File(self.path()), false)
    }

    fn flip(&self, at: u64) {
        flip(&self.path(), at);
    }
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn flush(region: &Region) -> crate::Result<Flushed> {
    flush_within(region, Duration::from_millis(200))
}

fn flush_within(region: &Region, timeout: Duration) -> crate::Result<Flushed> {
    region.flush(&Patience { timeout, interrupt: &|| false, what: "a test" })
}

/// Publishes a table of `bytes` bytes, all `with`.
fn put(region: &Region, name: &str, bytes: u64, with: u8) {
    let extent = region.allocate(bytes).unwrap();
    // SAFETY: the extent is ours and that long.
    unsafe { extent.as_mut_ptr().write_bytes(with, extent.len() as usize) };
    region.publish(name, &[Part::Owned(&extent)], name.as_bytes(), true).unwrap();
}

/// The byte that a table was filled with.
fn byte(region: &Region, name: &str) -> u8 {
    let pin = region.lookup(name).unwrap();
    let (offset, bytes) = pin.extents().unwrap()[0];
    let all = region.for_tests().bytes.read(offset, bytes).unwrap();
    assert!(all.iter().all(|b| *b == all[0]));
    all[0]
}

fn healthy(region: &Region) {
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn a_file_opens_after_another_boot_as_it_was_flushed() {
    let place = Place::new();
    let region = place.create(4 << 20);
    assert_eq!(flush(&region).unwrap(), Flushed::default());
    put(&region, "a", 300_000, 1);
    put(&region, "b", 100, 2);
    let flushed = flush(&region).unwrap();
    assert_eq!(flushed.tables, 2);
    assert!(flushed.bytes >= 300_100);
    healthy(&region);
    let sequence = region.lookup("b").unwrap().sequence();
    put(&region, "a", 200_000, 3);
    put(&region, "c", 100, 4);
    region.delete("b").unwrap();
    // What was flushed is kept, and nothing of what came after.
    drop(region);
    let region = place.reboot().unwrap();
    healthy(&region);
    assert_eq!(region.names().unwrap(), ["a", "b"]);
    assert_eq!((byte(&region, "a"), byte(&region, "b")), (1, 2));
    assert_eq!(region.lookup("b").unwrap().sequence(), sequence);
    put(&region, "d", 100, 5);
    assert!(region.lookup("d").unwrap().sequence() > sequence + (1 << 32) - 10);
    // The second flush of the same has nothing to do.
    assert_eq!(flush(&region).unwrap().tables, 3);
    let before = region.for_tests().bytes.word(header::SEQUENCE).unwrap().load(Ordering::Relaxed);
    assert_eq!(flush(&region).unwrap().bytes, 0);
    let after = region.for_tests().bytes.word(header::SEQUENCE).unwrap().load(Ordering::Relaxed);
    assert_eq!(before, after);
    for name in region.names().unwrap() {
        region.delete(&name).unwrap();
    }
    flush(&region).unwrap();
    healthy(&region);
    // Nothing but the checkpoint takes memory then.
    assert_eq!(region.stats().unwrap().used, 64 << 10);
    drop(region);
    let region = place.reboot().unwrap();
    assert_eq!(region.names().unwrap(), [""; 0]);
    healthy(&region);
}

#[test]
fn what_is_durable_is_neither_recycled_nor_written_in_place() {
    let place = Place::new();
    let region = place.create(2 << 20);
    let session = region.for_tests();
    put(&region, "a", 1 << 20, 1);
    let extents = region.lookup("a").unwrap().extents().unwrap();
    assert!(!session.is_durable(&extents).unwrap());
    flush(&region).unwrap();
    assert!(session.is_durable(&extents).unwrap());
    region.delete("a").unwrap();
    assert!(session.is_durable(&extents).unwrap());
    match region.allocate(3 << 19) {
        Err(Error::RegionFull { cause: FullCause::Flush, .. }) => {}
        other => panic!("{other:?}"),
    }
    let (cause, keepers) = (FullCause::Flush, Vec::new());
    let words = Error::RegionFull { needed: 1, free: 0, capacity: 1, cause, keepers };
    assert!(words.to_string().contains("frees that await a flush"));
    flush(&region).unwrap();
    assert!(!session.is_durable(&extents).unwrap());
    assert!(region.allocate(3 << 19).is_ok());
    healthy(&region);
}

#[test]
fn a_file_that_is_full_to_the_last_granule_can_be_flushed() {
    let place = Place::new();
    let region = place.create(1 << 20);
    for i in 0..15 {
        put(&region, &format!("t{i}"), 40_000, i);
    }
    while let Ok(extent) = region.allocate(64 << 10) {
        region.publish("rest", &[Part::Owned(&extent)], b"", true).unwrap();
    }
    for i in 0..5 {
        flush(&region).unwrap();
        healthy(&region);
        region.delete(&format!("t{i}")).unwrap();
        flush(&region).unwrap();
        healthy(&region);
        put(&region, &format!("t{i}"), 40_000, i);
        region.gc().unwrap();
        healthy(&region);
    }
}

#[test]
fn as_many_tables_as_there_is_room_for_can_be_flushed() {
    let place = Place::new();
    let options =
        CreateOptions { capacity: Some(1 << 20), max_tables: Some(3), ..CreateOptions::default() };
    let region = Region::create(Location::File(place.path()), options).unwrap();
    for round in 0..20 {
        for name in ["a", "b", "c"] {
            if round != 0 {
                region.delete(name).unwrap();
            }
            put(&region, name, 100, round);
        }
        let full = region.publish("d", &[], b"", false);
        assert!(matches!(full, Err(Error::TableLimit { limit: 3 })), "{full:?}");
        flush(&region).unwrap();
        healthy(&region);
    }
    drop(region);
    let region = place.reboot().unwrap();
    assert_eq!(region.names().unwrap(), ["a", "b", "c"]);
    healthy(&region);
}

#[test]
fn a_flush_that_failed_to_write_is_the_last() {
    for what in ["flush: data on disk", "flush: root on disk"] {
        let place = Place::new();
        let region = place.create(1 << 20);
        put(&region, "a", 1_000, 1);
        flush(&region).unwrap();
        put(&region, "b", 1_000, 2);
        fail_once(what);
        assert!(matches!(flush(&region), Err(Error::Io { .. })));
        for _ in 0..2 {
            match flush(&region) {
                Err(Error::Io { context, source }) => {
                    assert!(context.contains("no flush of it can succeed any more"));
                    assert!(source.to_string().contains("earlier"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(region.verify().problems.iter().any(|p| p.contains("failed to write")));
        // Also for who opens it next; all it holds can be read.
        drop(region);
        let region = place.open().unwrap();
        assert!(matches!(flush(&region), Err(Error::Io { .. })));
        assert_eq!((byte(&region, "a"), byte(&region, "b")), (1, 2));
        drop(region);
        // The next boot reads the disk, and knows again what is on it.
        let region = place.reboot().unwrap();
        assert_eq!(byte(&region, "a"), 1);
        flush(&region).unwrap();
        healthy(&region);
    }
}

/// Takes a table exclusively.
fn exclusively(region: &Region, name: &str) -> Exclusive {
    let patience =
        Patience { timeout: Duration::from_secs(9), interrupt: &|| false, what: "a test" };
    let updater = region.lookup(name).unwrap().updater(&patience).unwrap();
    updater.exclusive(&patience).map_err(|(_, e)| e).unwrap()
}

#[test]
fn poisoned_tables_stay_as_an_earlier_flush_made_them() {
    let place = Place::new();
    let region = place.create(1 << 20);
    put(&region, "a", 1_000, 1);
    put(&region, "b", 1_000, 1);
    flush(&region).unwrap();
    put(&region, "a", 1_000, 2);
    put(&region, "b", 1_000, 3);
    put(&region, "new", 1_000, 2);
    for name in ["a", "new"] {
        // Dropped half done, as by a death.
        let _ = exclusively(&region, name).begin().unwrap();
    }
    let flushed = flush(&region).unwrap();
    assert_eq!((flushed.tables, flushed.left_out), (2, vec!["a".into(), "new".into()]));
    healthy(&region);
    std::fs::copy(place.path(), place.path().with_extension("copy")).unwrap();
    region.lookup("a").unwrap().repair().unwrap();
    let flushed = flush(&region).unwrap();
    assert_eq!((flushed.tables, flushed.left_out), (2, vec!["new".into()]));
    drop(region);
    let region = place.reboot().unwrap();
    assert_eq!((byte(&region, "a"), byte(&region, "b")), (2, 3));
    drop(region);
    std::fs::rename(place.path().with_extension("copy"), place.path()).unwrap();
    let region = place.reboot().unwrap();
    assert_eq!(region.names().unwrap(), ["a", "b"]);
    assert_eq!((byte(&region, "a"), byte(&region, "b")), (1, 3));
    healthy(&region);
}

#[test]
fn a_flush_waits_until_no_update_is_half_done() {
    let place = Place::new();
    let region = place.create(1 << 20);
    put(&region, "a", 1_000, 1);
    put(&region, "b", 1_000, 1);
    // Its own thread's update would wait for it in turn.
    let held = exclusively(&region, "a");
    let since = Instant::now();
    match flush_within(&region, Duration::from_secs(60)) {
        Err(Error::LeaseHeld { name, holders }) => {
            assert_eq!((name.as_str(), holders.len()), ("a", 1));
        }
        other => panic!("{other:?}"),
    }
    assert!(since.elapsed() < Duration::from_secs(20));
    std::thread::scope(|scope| {
        let flush_there = |timeout| {
            let region = region.clone();
            scope.spawn(move || flush_within(&region, timeout))
        };
        let refused = flush_there(Duration::from_millis(50)).join().unwrap();
        assert!(matches!(refused, Err(Error::LeaseHeld { .. })), "{refused:?}");
        let interrupted = scope.spawn(|| {
            let asked = AtomicBool::new(false);
            region.flush(&Patience {
                timeout: Duration::from_secs(60),
                interrupt: &|| asked.swap(true, Ordering::SeqCst),
                what: "a test",
            })
        });
        assert!(matches!(interrupted.join().unwrap(), Err(Error::Cancelled)));
        let waiting = flush_there(Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(150));
        assert!(!waiting.is_finished());
        // What is written meanwhile is part of it.
        held.begin().unwrap();
        let (offset, bytes) = held.updater().pin().extents().unwrap()[0];
        let to = held.as_mut_ptr(offset, bytes).unwrap();
        // SAFETY: the extent is leased exclusively, and that long.
        unsafe { to.write_bytes(2, bytes as usize) };
        held.finish().unwrap();
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap().tables, 2);
    });
    // No lease that was taken meanwhile stays.
    assert!(region.leases().unwrap().is_empty(), "{:?}", region.leases());
    // From now on it is written in place no more.
    let held = exclusively(&region, "a");
    let extents = held.updater().pin().extents().unwrap();
    assert_eq!(held.updater().obstacle(&extents).unwrap(), Some(Obstacle::Durable));
    drop((held, region));
    assert_eq!(byte(&place.reboot().unwrap(), "a"), 2);
}

#[test]
fn a_flush_does_not_wait_for_the_dead() {
    let place = Place::new();
    let region = place.create(1 << 20);
    put(&region, "a", 1_000, 1);
    let session = region.for_tests();
    let held = exclusively(&region, "a");
    let slot = held.pin().0.held.slot;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| flush_within(&region, Duration::from_secs(20)));
        std::thread::sleep(Duration::from_millis(150));
        assert!(!waiting.is_finished());
        // It is gone without a trace.
        let _gone = std::mem::ManuallyDrop::new(held);
        session.updates.lock().remove(&slot);
        assert_eq!(waiting.join().unwrap().unwrap().tables, 1);
    });
    healthy(&region);
}

#[test]
fn two_threads_flush_one_after_the_other() {
    let place = Place::new();
    let region = place.create(8 << 20);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let region = region.clone();
            scope.spawn(move || {
                for i in 0..10 {
                    put(&region, &format!("t{t}"), 10_000, i);
                    flush_within(&region, Duration::from_secs(60)).unwrap();
                }
            });
        }
    });
    healthy(&region);
    drop(region);
    let region = place.reboot().unwrap();
    for t in 0..4 {
        assert_eq!(byte(&region, &format!("t{t}")), 9);
    }
}

#[test]
fn readers_without_a_session_stop_flushes_only_when_many_checkpoints_pile_up() {
    let place = Place::new();
    let region = place.create(4 << 20);
    put(&region, "a", 1_000, 0);
    flush(&region).unwrap();
    let reader = Region::open(Location::File(place.path()), true).unwrap();
    let mut done = 0;
    let refused = loop {
        put(&region, "a", 1_000, done);
        match flush(&region) {
            Ok(_) => done += 1,
            Err(e) => break e,
        }
        healthy(&region);
    };
    assert!(done >= slot::HIDDEN as u8 - 2, "{done}");
    assert!(matches!(refused, Error::RegionFull { cause: FullCause::ReadOnlyOpener, .. }));
    drop(reader);
    flush(&region).unwrap();
    region.gc().unwrap();
    healthy(&region);
    assert_eq!(region.stats().unwrap().retired, 0);
}

#[test]
fn damage_is_found_and_named() {
    let place = Place::new();
    let region = place.create(4 << 20);
    put(&region, "good", 200_000, 1);
    put(&region, "bad", 200_000, 2);
    flush(&region).unwrap();
    let (offset, _) = region.lookup("bad").unwrap().extents().unwrap()[0];
    place.flip(offset + 70_000);
    let problems = region.verify().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("table \"bad\"") && problems[0].contains(&offset.to_string()));
    // Tables next to it stay durable; a sum once made is kept, and goes on telling.
    put(&region, "other", 1_000, 3);
    flush(&region).unwrap();
    assert_eq!(region.verify().problems, problems);
    drop(region);
    // An undisturbed file opens; what is wrong in it is found on demand.
    let region = place.reboot().unwrap();
    assert_eq!(region.verify().problems, problems);
    assert_eq!(byte(&region, "good"), 1);
}

#[test]
fn damaged_roots_fall_back_to_what_is_whole_or_are_refused() {
    let place = Place::new();
    let region = place.create(4 << 20);
    let state = |with| {
        put(&region, "a", 200_000, with);
        flush(&region).unwrap();
        std::fs::copy(place.path(), place.path().with_extension(with.to_string())).unwrap();
    };
    (1..=4).for_each(state);
    let newest = (0..2).max_by_key(|&i| region.for_tests().root(i).unwrap().unwrap().number);
    let newest = header::ROOTS[newest.unwrap()];
    let oldest = header::ROOTS[0] + header::ROOTS[1] - newest;
    drop(region);
    let reset = || std::fs::copy(place.path().with_extension("4"), place.path()).unwrap();

    // The older root says nothing that counts.
    place.flip(oldest + 20);
    assert_eq!(byte(&place.reboot().unwrap(), "a"), 4);
    // What the older root names is not what it was: the memory was recycled, or is no more.
    reset();
    place.flip(newest + 20);
    match place.reboot() {
        Err(Error::RegionCorrupt { offset, .. }) => assert!(offset != 0),
        Ok(region) => assert_eq!(byte(&region, "a"), 3),
        Err(e) => panic!("{e}"),
    }
    reset();
    place.flip(newest + 20);
    place.flip(oldest + 20);
    match place.reboot() {
        Err(Error::RegionCorrupt { what, offset }) => {
            assert!(what.contains("both of its durable roots"), "{what}");
            assert_eq!(offset, header::ROOTS[0]);
        }
        other => panic!("{other:?}"),
    }
    // In the same boot nobody needs the roots; a flush writes one anew.
    reset();
    place.flip(newest + 20);
    place.flip(oldest + 20);
    let region = place.open().unwrap();
    assert_eq!(byte(&region, "a"), 4);
    assert!(!region.verify().ok());
    put(&region, "a", 1_000, 5);
    flush(&region).unwrap();
    healthy(&region);
    drop(region);
    assert_eq!(byte(&place.reboot().unwrap(), "a"), 5);
}

#[test]
fn a_first_flush_leaves_no_empty_state_to_fall_back_to() {
    let place = Place::new();
    let region = place.create(1 << 20);
    put(&region, "a", 1_000, 1);
    flush(&region).unwrap();
    drop(region);
    for root in header::ROOTS {
        let copy = place.path().with_extension("copy");
        std::fs::copy(place.path(), &copy).unwrap();
        flip(&place.path(), root + 20);
        assert_eq!(byte(&place.reboot().unwrap(), "a"), 1);
        std::fs::rename(copy, place.path()).unwrap();
    }
}

#[test]
fn a_damaged_root_is_written_again_although_nothing_has_changed() {
    let place = Place::new();
    let region = place.create(1 << 20);
    for with in 1..=3 {
        put(&region, "a", 1_000, with);
        flush(&region).unwrap();
    }
    for root in header::ROOTS {
        place.flip(root + 20);
    }
    assert!(!region.verify().ok());
    flush(&region).unwrap();
    healthy(&region);
    drop(region);
    let region = place.reboot().unwrap();
    assert_eq!(byte(&region, "a"), 3);
    healthy(&region);
}

/// Locks a session's byte in a region's file, as a process would that has just come, or goes.
fn passer(path: &Path, index: u64) -> LockFile {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let lock = LockFile::reopen(std::os::fd::AsFd::as_fd(&file), true).unwrap();
    assert!(lock.try_lock(LOCK_BASE + index, 1).unwrap());
    lock
}

#[test]
fn nobody_joins_a_file_that_was_not_recovered_since_the_system_started() {
    let place = Place::new();
    let region = place.create(1 << 20);
    put(&region, "a", 1_000, 1);
    flush(&region).unwrap();
    put(&region, "b", 1_000, 2);
    drop(region);
    // Who was recovering it has just died, and another is quicker to look at the locks.
    let other = passer(&place.path(), 7);
    let region = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            drop(other);
        });
        place.reboot().unwrap()
    });
    assert_eq!(region.names().unwrap(), ["a"]);
    healthy(&region);
}

#[test]
fn a_file_that_cannot_be_recovered_is_left_as_it_is() {
    let place = Place::new();
    let region = place.create(1 << 20);
    put(&region, "a", 200_000, 1);
    flush(&region).unwrap();
    let (l, slots) = (region.for_tests().layout, region.for_tests().slots_high());
    let (offset, bytes) = region.lookup("a").unwrap().extents().unwrap()[0];
    drop(region);
    // What the disk has of all that is volatile may be of different moments: here a session that
    // died in the writer lock, has the table's memory, and had not reserved it yet.
    let file = std::fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    let write = |at: u64, bytes: &[u8]| {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
    };
    let page = l.session(5);
    for (at, value) in [
        (header::SESSIONS_HIGH, 6),
        (page + session_field::INCARNATION, 9),
        (page + session_field::RECORDS, offset),
        (page + session_field::RECORDS + 8, bytes),
        (header::WRITER, (9 << 9 | 5) << 1),
        (header::DIRTY, 1),
        (l.warm_bits, 0),
    ] {
        write(at, &value.to_le_bytes());
    }
    write(l.slots, &vec![0; (u64::from(slots) * slot::BYTES) as usize]);
    for root in header::ROOTS {
        place.flip(root + 20);
    }
    let refused = place.reboot();
    assert!(matches!(refused, Err(Error::RegionCorrupt { .. })), "{refused:?}");
    // Somebody knows how to mend the roots.
    for root in header::ROOTS {
        place.flip(root + 20);
    }
    let region = place.reboot().unwrap();
    assert_eq!(byte(&region, "a"), 1);
    healthy(&region);
}

#[test]
fn damage_anywhere_in_a_file_is_survived_by_who_opens_it() {
    let place = Place::new();
    let region = place.create(1 << 20);
    for i in 0..6 {
        put(&region, &format!("t{i}"), 3_000, i);
    }
    flush(&region).unwrap();
    put(&region, "t0", 3_000, 7);
    flush(&region).unwrap();
    let l = region.for_tests().layout;
    let kept = region.for_tests().place_of(0).unwrap();
    drop(region);
    let whole = std::fs::read(place.path()).unwrap();
    let mut seed = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..120 {
        let mut bytes = whole.clone();
        let (from, to) = match round % 4 {
            0 => (header::ROOTS[0], header::ROOTS[1] + header::ROOT_BYTES),
            1 => (kept.offset, kept.offset + 16 * u64::from(kept.extents) + 1_000),
            2 => (256, 1_024),
            _ => (l.arena, l.arena + (1 << 19)),
        };
        for _ in 0..1 + random() % 3 {
            let at = (from + random() % (to - from)) as usize;
            bytes[at] ^= 1 << (random() % 8);
        }
        std::fs::write(place.path(), &bytes).unwrap();
        match place.reboot() {
            Ok(region) => {
                let _ = region.verify();
                let _ = region.names();
                put(&region, "after", 1_000, 1);
                let _ = flush(&region);
            }
            Err(Error::RegionCorrupt { .. }) => {}
            Err(e) => panic!("round {round}: {e}"),
        }
    }
}

const ROLE: &str = "INSITU_TEST_FLUSHER";

/// Not a test of its own: what the processes of the test below run, until they die at a point.
#[test]
fn flusher() {
    let Ok(path) = std::env::var(ROLE) else { return };
    let region = Region::open(Location::File(path.into()), false).unwrap();
    for i in 0..3 {
        put(&region, &format!("t{i}"), 70_000, 8);
        flush_within(&region, Duration::from_secs(9)).unwrap();
        region.delete("t9").ok();
    }
}

/// Killed at each point of a flush and of a recovery: in the same boot nothing that was published
/// is lost, whatever became of the flush, and the next one succeeds.
#[test]
fn a_process_killed_at_any_point_of_a_flush_loses_nothing() {
    let points = kill::POINTS.iter().filter(|p| p.starts_with("flush") || p.starts_with("restore"));
    let mut died = Vec::new();
    for point in points {
        for pass in 1..=2 {
            let place = Place::new();
            let region = place.create(1 << 20);
            put(&region, "kept", 70_000, 5);
            put(&region, "t9", 1_000, 6);
            flush(&region).unwrap();
            put(&region, "later", 70_000, 7);
            drop(region);
            let restores = point.starts_with("restore");
            if restores {
                place.flip(header::BOOT_ID);
            }
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "flush::tests::flusher"])
                .env(ROLE, place.path())
                .env("INSITU_KILL_AT", point)
                .env("INSITU_KILL_PASS", pass.to_string())
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            if std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL) {
                died.push(*point);
            }
            for round in 0..2 {
                let region = if round == 0 { place.open() } else { place.reboot() }.unwrap();
                healthy(&region);
                assert_eq!(byte(&region, "kept"), 5);
                assert_eq!(region.contains("later").unwrap(), !restores, "{point}");
                if let Ok(pin) = region.lookup("t0") {
                    assert_eq!(byte(&region, pin.name()), 8);
                }
                put(&region, "after", 1_000, 9);
                flush(&region).unwrap();
                region.gc().unwrap();
                healthy(&region);
            }
        }
    }
    for point in kill::POINTS.iter().filter(|p| p.starts_with("flush") || p.starts_with("restore"))
    {
        // Abandoned is what is interrupted, or cannot be written.
        assert!(died.contains(point) || *point == "flush: abandoned", "nobody died at {point}");
    }
}
