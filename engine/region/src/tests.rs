//! Several sessions in one process, crash windows made by hand, and damaged memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::arena::Raw;
use crate::backing;
use crate::kill::watching;
use crate::layout::{LOCK_BASE, SESSIONS, header, session as field, slot};
use crate::lock::LockFile;
use crate::session::{Deferred, Session};
use crate::state::{self, State};
use crate::{CreateOptions, Error, Location, Part, Patience, Region};

fn options(capacity: u64) -> CreateOptions {
    CreateOptions { capacity: Some(capacity), ..CreateOptions::default() }
}

fn memfd(capacity: u64) -> Region {
    Region::create(Location::Memfd, options(capacity)).unwrap()
}

/// A second session in the same region and process, as another process would have it.
fn another(region: &Region) -> Arc<Session> {
    let made = backing::open(region.location().unwrap(), true).unwrap();
    Arc::new(Session::open(made.into(), false).unwrap())
}

fn healthy(region: &Region) {
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn a_block_of_records_is_not_taken_from_an_extents_padding() {
    let region = memfd(64 << 20);
    // One record place is left, and one warm granule: the next extent takes the place and is
    // padded to a block, and the padding's records need a block of their own.
    let held: Vec<_> = (0..191).map(|_| region.allocate(64 << 10).unwrap()).collect();
    let next = region.allocate(128 << 10).unwrap();
    healthy(&region);
    let more: Vec<_> = (0..40).map(|_| region.allocate(64 << 10).unwrap()).collect();
    healthy(&region);
    drop((held, next, more));
    healthy(&region);
}

#[test]
fn blocks_of_records_count_against_the_capacity() {
    let region = memfd(1 << 20);
    let mut held = Vec::new();
    while let Ok(extent) = region.allocate(1 << 10) {
        held.push(extent);
    }
    healthy(&region);
    assert!(held.len() > 900, "{}", held.len());
}

#[test]
fn a_joiner_waits_for_the_first_session_to_recover() {
    let name = format!("test-join-{}", std::process::id());
    let location = || Location::Shm(name.clone());
    drop(Region::create(location(), options(1 << 20)).unwrap());
    let made = backing::open(location(), true).unwrap();
    let first = LockFile::reopen(made.fd().unwrap(), true).unwrap();
    assert!(first.try_lock(LOCK_BASE, SESSIONS.into()).unwrap());
    let opened = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        Region::open(location(), false)
    });
    Region::remove(&location()).unwrap();
    opened.unwrap();
}

#[test]
fn a_corpses_lock_is_stolen_although_its_slot_is_taken_again() {
    let region = memfd(1 << 20);
    let session = region.for_tests();
    // It died between giving up its slot and releasing the lock.
    let token = 99 << 9 | 1;
    session.bytes.word(header::WRITER).unwrap().store(token << 1, Ordering::Release);
    let other = another(&region);
    assert_eq!(other.index(), 1);
    let since = Instant::now();
    region.publish("t", &[], b"m", false).unwrap();
    assert!(since.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_is_pinned_can_be_leased_although_somebody_was_about_to_free_it() {
    let region = memfd(1 << 20);
    let pin = region.publish("t", &[], b"m", false).unwrap();
    region.delete("t").unwrap();
    let session = region.for_tests();
    let word = session.bytes.word(session.layout.slot(pin.0.held.slot) + slot::STATE).unwrap();
    let seen = word.load(Ordering::Acquire);
    assert_eq!(state::state(seen), Some(State::Retired));
    // It lives still, and looks who holds it.
    word.store(state::reclaiming(seen), Ordering::Release);
    std::thread::scope(|scope| {
        let leasing = scope.spawn(|| pin.lease().map(drop));
        word.store(seen, Ordering::Release);
        leasing.join().unwrap().unwrap();
    });
    // It has died over that.
    word.store(state::reclaiming(seen), Ordering::Release);
    session.bytes.word(header::DIRTY).unwrap().store(1, Ordering::Release);
    drop(pin.lease().unwrap());
    healthy(&region);
}

#[test]
fn a_lock_that_names_no_session_is_taken_without_touching_its_page() {
    let region = memfd(1 << 20);
    let session = region.for_tests();
    session.bytes.word(header::WRITER).unwrap().store((99 << 9 | 400) << 1, Ordering::Release);
    region.publish("t", &[], b"m", false).unwrap();
    healthy(&region);
    let page = session.layout.session(400);
    let next = rustix::fs::seek(session.backing.fd().unwrap(), rustix::fs::SeekFrom::Data(page));
    assert!(next.unwrap() > page);
}

#[test]
fn names_are_waited_for_by_who_cannot_mend_their_index() {
    let name = format!("test-names-{}", std::process::id());
    let location = || Location::Shm(name.clone());
    let region = Region::create(location(), options(1 << 20)).unwrap();
    region.publish("t", &[], b"m", false).unwrap();
    let reader = Region::open(location(), true).unwrap();
    let session = region.for_tests();
    let seqlock = || session.bytes.word(header::INDEX_SEQLOCK).unwrap();
    seqlock().fetch_add(1, Ordering::AcqRel);
    let names = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            seqlock().fetch_add(1, Ordering::AcqRel);
        });
        reader.names()
    });
    Region::remove(&location()).unwrap();
    assert_eq!(names.unwrap(), ["t"]);
}

/// Makes the next attempt to get the writer lock fail, as a stopped process that has it would.
fn deny(session: &Session) {
    session.defer(Deferred::Extent(Raw { record: 0, offset: 1, bytes: 64 }));
}

#[test]
fn what_was_reserved_is_given_up_when_the_lock_cannot_be_had_then() {
    let region = memfd(16 << 20);
    let session = region.for_tests();
    let denied = |at: &'static str, work: &dyn Fn() -> crate::Result<()>| {
        let watched = session.clone();
        let watcher = move |point| {
            if point == at {
                deny(&watched);
            }
        };
        let refused = watching::during(watcher, work);
        assert!(matches!(refused, Err(Error::RegionCorrupt { .. })), "{at}: {refused:?}");
        healthy(&region);
        let stats = region.stats().unwrap();
        assert_eq!((stats.used, stats.extents), (0, 0), "{at}: {stats:?}");
    };
    denied("reserve: run reserved", &|| region.allocate(5 << 20).map(drop));
    assert_eq!(region.stats().unwrap().reserved, 0);
    let arena = session.layout.arena;
    let next = rustix::fs::seek(session.backing.fd().unwrap(), rustix::fs::SeekFrom::Data(arena));
    assert!(next.is_err(), "{next:?}");
    // A slab's granule, and idle memory on its way back to the system.
    denied("reserve: marked warm", &|| region.allocate(100).map(drop));
    assert!(region.stats().unwrap().reserved > 0);
    denied("trim: punched", &|| region.trim().map(drop));
}

#[test]
fn an_extent_that_could_not_grow_is_as_it_was() {
    let region = memfd(256 << 20);
    let session = region.for_tests();
    let mut growable = region.grow(2 << 20).unwrap();
    let (len, before) = (growable.len(), region.stats().unwrap());
    let watched = session.clone();
    let watcher = move |point| {
        if point == "grow: run reserved" {
            deny(&watched);
        }
    };
    let refused = watching::during(watcher, || growable.extend(20 << 20, 0));
    assert!(matches!(refused, Err(Error::RegionCorrupt { .. })), "{refused:?}");
    assert_eq!(growable.len(), len);
    healthy(&region);
    let after = region.stats().unwrap();
    assert_eq!((after.used, after.reserved), (before.used, before.reserved));
    // And grows after all.
    growable.extend(20 << 20, 0).unwrap();
    assert!(growable.len() >= 20 << 20);
    healthy(&region);
    let interrupted = growable.extend_with(160 << 20, 0, &|| true);
    assert!(matches!(interrupted, Err(Error::Cancelled)), "{interrupted:?}");
    healthy(&region);
    drop(growable.seal(1 << 20).unwrap());
    assert_eq!(region.stats().unwrap().used, 0);
    healthy(&region);
}

#[test]
fn a_name_that_is_always_there_is_always_found() {
    let region = memfd(4 << 20);
    let other = another(&region);
    for name in ["a", "b"] {
        region.publish(name, &[], b"", true).unwrap();
    }
    let done = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut missed = 0;
            while !done.load(Ordering::Relaxed) {
                match other.lookup("a") {
                    Ok(held) => other.unhold(held.slot, crate::pins::Line::Pins),
                    Err(Error::TableNotFound { .. }) => missed += 1,
                    Err(e) => panic!("{e}"),
                }
            }
            missed
        });
        for _ in 0..20_000 {
            // Each takes the slot that the other gave up.
            region.publish("a", &[], b"", true).unwrap();
            region.publish("b", &[], b"", true).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert_eq!(missed, 0);
}

#[test]
fn a_damaged_retired_table_is_stepped_over() {
    let region = memfd(4 << 20);
    let session = region.for_tests();
    let pin = region.publish("t", &[], b"m", false).unwrap();
    let good = region.publish("u", &[], b"m", false).unwrap();
    let at = session.layout.slot(pin.0.held.slot) + slot::MANIFEST;
    region.delete("t").unwrap();
    region.delete("u").unwrap();
    session.bytes.word(at).unwrap().store(17, Ordering::Relaxed);
    drop(pin);
    drop(good);
    region.gc().unwrap();
    // What is damaged stays; what is not goes.
    assert_eq!(region.stats().unwrap().retired, 1);
    assert!(region.allocate(2 << 20).is_ok());
    region.publish("v", &[], b"m", false).unwrap();
}

#[test]
fn a_damaged_table_can_be_deleted_and_replaced() {
    let region = memfd(4 << 20);
    let session = region.for_tests();
    for name in ["t", "u"] {
        let pin = region.publish(name, &[], b"m", false).unwrap();
        let at = session.layout.slot(pin.0.held.slot) + slot::MANIFEST;
        session.bytes.word(at).unwrap().store(17, Ordering::Relaxed);
        assert!(matches!(pin.manifest(), Err(Error::RegionCorrupt { .. })));
    }
    region.delete("t").unwrap();
    region.publish("u", &[], b"new", true).unwrap();
    assert_eq!(region.names().unwrap(), ["u"]);
    assert_eq!(region.lookup("u").unwrap().manifest().unwrap(), b"new");
}

#[test]
fn a_manifest_in_memory_that_was_never_reserved_is_not_read() {
    let region = memfd(64 << 20);
    let session = region.for_tests();
    let pin = region.publish("t", &[], b"m", false).unwrap();
    let at = session.layout.slot(pin.0.held.slot);
    let message = session.layout.granule_count * (64 << 10) - (1 << 20);
    session.bytes.word(at + slot::MANIFEST_BYTES).unwrap().store(message, Ordering::Relaxed);
    assert!(matches!(pin.manifest(), Err(Error::RegionCorrupt { .. })));
    session.bytes.word(at + slot::MANIFEST_BYTES).unwrap().store(1, Ordering::Relaxed);
    session.bytes.half(at + slot::EXTENTS).unwrap().store(1 << 20, Ordering::Relaxed);
    assert!(matches!(pin.extents(), Err(Error::RegionCorrupt { .. })));
}

#[test]
fn a_chain_of_records_that_bites_its_tail_ends() {
    let region = memfd(1 << 30);
    let session = region.for_tests();
    let held: Vec<_> = (0..300).map(|_| region.allocate(64).unwrap()).collect();
    let page = session.layout.session(session.index());
    let block = session.bytes.word(page + field::CHAIN).unwrap().load(Ordering::Relaxed);
    session.bytes.word(block).unwrap().store(block, Ordering::Relaxed);
    let (records, chain) = session.write().unwrap().session_records(session.index()).unwrap();
    assert_eq!((records.len(), chain.len()), (300, 1));
    drop(held);
}

#[test]
fn a_killed_delete_is_done_or_not_begun() {
    let region = memfd(1 << 20);
    let session = region.for_tests();
    let slot_of = region.publish("t", &[], b"m", false).unwrap().0.held.slot;
    // It died after the store that decides: the next writer completes it.
    {
        let writer = session.write().unwrap();
        writer.mark_retired(slot_of).unwrap();
        writer.broken.set(true);
    }
    assert!(matches!(region.lookup("t"), Err(Error::TableNotFound { .. })));
    region.gc().unwrap();
    let word = session.state_word(slot_of).unwrap();
    assert_eq!(state::state(word), Some(State::Free));
    healthy(&region);
}

/// Wrecks one word of the metadata after the other and has everything tried on it: errors are
/// fine, panics and endless loops are not.
#[test]
fn damage_anywhere_in_the_metadata_is_survived() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..400 {
        let region = memfd(1 << 20);
        let session = region.for_tests();
        let extent = region.allocate(100_000).unwrap();
        let small = region.allocate(100).unwrap();
        let parts = [Part::Owned(&extent), Part::Owned(&small)];
        let pin = region.publish("t", &parts, b"m", false).unwrap();
        region.publish("u", &[], b"m", false).unwrap();
        region.delete("t").unwrap();
        let patience = Patience { timeout: Duration::ZERO, ..Patience::reader("") };
        let first = region.publish("v", &[], b"1", false).unwrap();
        let second = first.updater(&patience).unwrap().swap(&[], b"2").unwrap();
        let third = second.updater(&patience).unwrap().swap(&[], b"3").unwrap();
        let ticket = region.ticket(&[], b"m").unwrap().issue().unwrap();
        let l = session.layout;
        let (from, to) = match round % 6 {
            0 => (256, 1024),
            1 => (l.sessions, l.sessions + 1100),
            2 => {
                let from = slot::HIDDEN + round % 8;
                (l.slot(from), l.slot(from) + slot::BYTES / 2)
            }
            3 => (l.index, l.index + 4096),
            4 => (l.granules, l.granules + 10 * 32),
            _ => (l.used_bits, l.used_bits + 8),
        };
        for _ in 0..1 + round % 4 {
            let at = from + random() % ((to - from) / 8) * 8;
            // The lock itself names a living holder for ten seconds.
            if at == header::WRITER {
                continue;
            }
            let value = match random() % 6 {
                0 => u64::MAX,
                1 => random() % 100,
                2 => l.arena + random() % (8 << 20) / 64 * 64,
                3 => 1 << (random() % 64),
                4 => u64::MAX << 32,
                _ => random(),
            };
            session.bytes.word(at).unwrap().store(value, Ordering::Relaxed);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        for _ in 0..2 {
            let _ = region.names();
            let _ = region.lookup("u").map(|pin| (pin.manifest().is_ok(), pin.extents().is_ok()));
            let _ = pin.manifest();
            let _ = region.allocate(300);
            let _ = region.allocate(200_000);
            let _ = region.publish("w", &[Part::Of(&pin)], b"w", true);
            let _ = region.publish("x", &[Part::Owned(&extent)], b"x", true);
            for version in [&first, &second, &third] {
                let _ = version.follow().map(|last| last.manifest().is_ok());
                let _ = version.lease_within(&patience);
                let _ = version.updater(&patience).map(|updater| updater.swap(&[], b"n"));
                let updater = version.updater(&patience);
                let exclusive = updater.map(|updater| updater.exclusive(&patience));
                let _ = exclusive
                    .map(|e| e.map(|e| (e.begin().is_ok(), e.updater().obstacle(&[]).is_ok())));
                let _ = version.repair();
            }
            let _ = region.redeem(ticket.unwrap());
            let _ = region.wait("v", None, &patience);
            let _ = region.delete("u");
            let _ = region.stats();
            let _ = region.leases();
            let _ = region.verify();
            let _ = region.gc();
            let _ = region.trim();
        }
        drop((pin, extent, small, first, second, third));
        let _ = region.gc();
        assert!(Instant::now() < deadline, "round {round}");
    }
}

#[test]
fn a_file_of_another_boot_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region");
    let location = || Location::File(path.clone());
    let region = Region::create(location(), options(1 << 20)).unwrap();
    region.publish("t", &[], b"m", false).unwrap();
    let boot =
        region.for_tests().bytes.word(header::BOOT_ID).unwrap().fetch_xor(1, Ordering::SeqCst);
    drop(region);
    assert!(matches!(Region::open(location(), true), Err(Error::Unsupported(_))));
    let region = Region::open(location(), false).unwrap();
    assert_eq!(region.names().unwrap(), [""; 0]);
    assert_eq!(
        region.for_tests().bytes.word(header::BOOT_ID).unwrap().load(Ordering::SeqCst),
        boot
    );
    healthy(&region);
    assert!(Region::open(location(), true).is_ok());
}

#[test]
fn of_two_sessions_that_leave_at_once_one_removes_the_region() {
    for round in 0..50 {
        let name = format!("test-leave-{}-{round}", std::process::id());
        let ephemeral = CreateOptions { ephemeral: true, ..options(1 << 20) };
        let region = Region::create(Location::Shm(name.clone()), ephemeral).unwrap();
        let other = another(&region);
        std::thread::scope(|scope| {
            scope.spawn(move || drop(other));
            drop(region);
        });
        let left = Region::remove(&Location::Shm(name));
        assert!(matches!(left, Err(Error::RegionNotFound { .. })), "round {round}");
    }
}
