//! One process: updates of a table by exclusive leases and by swaps, what handles see of them,
//! waiting, and results on their way to other processes.

// The lints' exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use insitu_region::{
    CreateOptions, Error, Exclusive, HoldKind, Location, Obstacle, Part, Pass, Patience, Pin,
    Region,
};

fn region() -> Region {
    let options = CreateOptions { capacity: Some(8 << 20), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

fn table(region: &Region, name: &str, bytes: u64) -> Pin {
    let extent = region.allocate(bytes).unwrap();
    region.publish(name, &[Part::Owned(&extent)], b"m", false).unwrap()
}

fn patience(millis: u64) -> Patience<'static> {
    Patience {
        timeout: Duration::from_millis(millis),
        interrupt: &|| false,
        what: "a test of updates",
    }
}

fn exclusive(pin: &Pin) -> Exclusive {
    pin.updater(&patience(0)).unwrap().exclusive(&patience(0)).unwrap()
}

fn healthy(region: &Region) {
    assert!(region.verify().ok(), "{:?}", region.verify());
}

fn empty(region: &Region) {
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.tables, stats.retired), (0, 0, 0), "{stats:?}");
    healthy(region);
}

#[test]
fn an_exclusive_lease_writes_in_place_and_raises_the_content_version() {
    let region = region();
    let pin = table(&region, "t", 1 << 20);
    assert_eq!(pin.content_version(), 1);
    let (at, len) = pin.extents().unwrap()[0];
    {
        let exclusive = exclusive(&pin);
        assert_eq!(exclusive.updater().obstacle(&[(at + 64, 64)]).unwrap(), None);
        assert!(matches!(exclusive.finish(), Err(Error::InvalidArgument(_))));
        assert_eq!(exclusive.begin().unwrap(), 2);
        assert!(matches!(exclusive.begin(), Err(Error::InvalidArgument(_))));
        // SAFETY: within the table that is exclusively leased.
        unsafe { exclusive.as_mut_ptr(at, len).unwrap().write_bytes(7, len as usize) };
        assert!(exclusive.as_mut_ptr(at, len + 64).is_err());
        exclusive.finish().unwrap();
        healthy(&region);
    }
    let lease = pin.lease().unwrap();
    // SAFETY: within the leased table.
    assert_eq!(unsafe { region.slice(at, len).unwrap().add(len as usize - 1).read_volatile() }, 7);
    assert_eq!((pin.content_version(), pin.is_current()), (2, true));
    drop((lease, pin));
    region.delete("t").unwrap();
    empty(&region);
}

#[test]
fn nobody_leases_what_is_exclusively_leased_and_the_other_way_round() {
    let region = region();
    let pin = table(&region, "t", 100);
    let lease = pin.lease_for("reading").unwrap();
    let updater = pin.updater(&patience(0)).unwrap();
    let since = Instant::now();
    // Waiting for one's own process makes no sense.
    let (updater, e) = updater.exclusive(&patience(60_000)).unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(5));
    match e {
        Error::LeaseHeld { name, holders } => {
            assert_eq!((name.as_str(), holders.len()), ("t", 1));
            let holder = &holders[0];
            assert_eq!((holder.pid, holder.kind), (std::process::id(), HoldKind::Lease));
            assert!(holder.since.is_some());
        }
        e => panic!("{e}"),
    }
    // It was shut for a moment only.
    drop((pin.lease().unwrap(), lease));
    let exclusive = updater.exclusive(&patience(0)).unwrap();
    let since = Instant::now();
    match pin.lease() {
        Err(Error::LeaseHeld { holders, .. }) => {
            assert_eq!(holders[0].kind, HoldKind::Exclusive);
            assert_eq!(holders[0].what, "a test of updates");
        }
        other => panic!("{other:?}"),
    }
    assert!(since.elapsed() < Duration::from_secs(5), "this very thread has it");
    let leases = region.leases().unwrap();
    assert!(leases.iter().any(|l| l.kind == HoldKind::Exclusive && l.what == "a test of updates"));
    // Pins do not mind.
    drop(region.lookup("t").unwrap());
    drop(exclusive);
    pin.lease().unwrap();
}

#[test]
fn readers_in_other_threads_wait_for_an_exclusive_lease() {
    let region = region();
    let pin = table(&region, "t", 100);
    let held = exclusive(&pin);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let since = Instant::now();
            assert!(matches!(pin.lease_within(&patience(20)), Err(Error::LeaseHeld { .. })));
            assert!(since.elapsed() >= Duration::from_millis(20));
            let stop = Patience { interrupt: &|| true, ..patience(60_000) };
            assert!(matches!(pin.lease_within(&stop), Err(Error::Cancelled)));
            pin.lease().unwrap();
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(100));
        held.begin().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        held.finish().unwrap();
        let ended = Instant::now();
        drop(held);
        let read = reader.join().unwrap();
        assert!(read >= ended && read - ended < Duration::from_secs(5));
    });
}

#[test]
fn updates_of_one_table_come_one_after_the_other() {
    let region = region();
    let pin = table(&region, "t", 8);
    let at = pin.extents().unwrap()[0].0;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let updater = pin.updater(&patience(60_000)).unwrap();
                    let exclusive = updater.exclusive(&patience(60_000)).unwrap();
                    exclusive.begin().unwrap();
                    let word = exclusive.as_mut_ptr(at, 8).unwrap().cast::<u64>();
                    // SAFETY: a word of the table that is exclusively leased.
                    unsafe { word.write_volatile(word.read_volatile() + 1) };
                    exclusive.finish().unwrap();
                }
            });
        }
    });
    let lease = pin.lease().unwrap();
    // SAFETY: within the leased table.
    let counted = unsafe { lease.pin().slice(at, 8).unwrap().cast::<u64>().read_volatile() };
    assert_eq!(counted, 800);
    assert_eq!(pin.content_version(), 801);
    let mine = pin.updater(&patience(0)).unwrap();
    assert!(matches!(pin.updater(&patience(60_000)), Err(Error::LeaseHeld { .. })));
    drop(mine);
    healthy(&region);
}

#[test]
fn an_update_that_was_not_finished_poisons() {
    let region = region();
    let pin = table(&region, "t", 100);
    let exclusive = exclusive(&pin);
    exclusive.begin().unwrap();
    drop(exclusive);
    assert!(pin.is_poisoned() && pin.is_current());
    assert!(matches!(pin.lease(), Err(Error::Poisoned { .. })));
    assert!(matches!(pin.updater(&patience(0)), Err(Error::Poisoned { .. })));
    let share = region.publish("u", &[Part::Of(&pin)], b"m", false);
    assert!(matches!(share, Err(Error::Poisoned { .. })));
    healthy(&region);
    // Its name yields a handle.
    let found = region.lookup("t").unwrap();
    found.repair().unwrap();
    assert_eq!((pin.is_poisoned(), pin.content_version()), (false, 3));
    pin.lease().unwrap();
    found.repair().unwrap();
    assert_eq!(pin.content_version(), 3);
}

#[test]
fn a_poisoned_table_can_be_replaced_and_deleted_and_stays_poisoned_for_its_handles() {
    for replace in [true, false] {
        let region = region();
        let pin = table(&region, "t", 100);
        let exclusive = exclusive(&pin);
        exclusive.begin().unwrap();
        drop(exclusive);
        if replace {
            region.publish("t", &[], b"new", true).unwrap();
            assert_eq!(region.lookup("t").unwrap().manifest().unwrap(), b"new");
        } else {
            region.delete("t").unwrap();
        }
        assert!(pin.is_poisoned() && !pin.is_current());
        assert!(matches!(pin.lease(), Err(Error::Poisoned { .. })));
        healthy(&region);
        pin.repair().unwrap();
        pin.lease().unwrap();
        drop(pin);
        assert_eq!(region.stats().unwrap().retired, 0);
        healthy(&region);
    }
}

#[test]
fn a_table_can_lose_its_name_under_an_exclusive_lease() {
    for replace in [true, false] {
        let lose = |region: &Region| {
            if replace {
                region.publish("t", &[], b"new", true).unwrap();
            } else {
                region.delete("t").unwrap();
            }
        };
        // Before it is written: nothing is.
        let region = region();
        let pin = table(&region, "t", 100);
        let held = exclusive(&pin);
        lose(&region);
        assert!(matches!(held.begin(), Err(Error::Stale(_))));
        healthy(&region);
        pin.lease().unwrap();
        drop((held, pin));
        assert_eq!(region.stats().unwrap().retired, 0);

        // While it is written: its handles wait, and see the end.
        let pin = table(&region, "u", 100);
        let held = exclusive(&pin);
        held.begin().unwrap();
        region.delete("u").unwrap();
        assert!(matches!(pin.lease(), Err(Error::LeaseHeld { .. })));
        assert!(matches!(held.finish(), Err(Error::Stale(_))));
        pin.lease().unwrap();
        drop((held, pin));
        assert_eq!(region.stats().unwrap().retired, 0);

        // Written and given up: nobody believes it.
        let pin = table(&region, "u", 100);
        let held = exclusive(&pin);
        held.begin().unwrap();
        region.delete("u").unwrap();
        drop(held);
        assert!(matches!(pin.lease(), Err(Error::Poisoned { .. })));
        drop(pin);
        assert_eq!(region.stats().unwrap().retired, 0);
        healthy(&region);
    }
}

#[test]
fn what_shares_memory_is_an_obstacle() {
    let region = region();
    let extent = region.allocate(1000).unwrap();
    let pin = region.publish("t", &[Part::Owned(&extent)], b"m", false).unwrap();
    let place = [(extent.offset(), 8)];
    let updater = pin.updater(&patience(0)).unwrap();
    let obstacle = || updater.obstacle(&place).unwrap();
    // The session still has the extent itself.
    assert_eq!(obstacle(), Some(Obstacle::Shared));
    drop(extent);
    assert_eq!(obstacle(), None);
    let other = region.publish("other", &[Part::Of(&pin)], b"m", false).unwrap();
    assert_eq!(obstacle(), Some(Obstacle::Shared));
    // A table that is held after its name is gone shares it still.
    region.delete("other").unwrap();
    assert_eq!(obstacle(), Some(Obstacle::Shared));
    drop(other);
    assert_eq!(obstacle(), None);
    let lease = pin.lease().unwrap();
    assert_eq!(obstacle(), Some(Obstacle::Leased));
    drop(lease);
    let descriptor = region.location().unwrap();
    let reader = Region::open(descriptor, true).unwrap();
    assert_eq!(obstacle(), Some(Obstacle::ReadOnlyOpener));
    let refused = pin.updater(&patience(0));
    assert!(matches!(refused, Err(Error::LeaseHeld { .. })), "{refused:?}");
    drop(reader);
    assert_eq!(obstacle(), None);
    assert!(matches!(updater.obstacle(&[(0, 8)]), Err(Error::InvalidArgument(_))));
}

#[test]
fn a_read_only_opener_keeps_others_from_exclusive_leases() {
    let region = region();
    let pin = table(&region, "t", 100);
    let reader = Region::open(region.location().unwrap(), true).unwrap();
    let updater = pin.updater(&patience(0)).unwrap();
    let (updater, e) = updater.exclusive(&patience(10)).unwrap_err();
    match e {
        Error::LeaseHeld { holders, .. } => assert_eq!(holders[0].kind, HoldKind::Reader),
        e => panic!("{e}"),
    }
    drop(reader);
    let held = updater.exclusive(&patience(0)).unwrap();
    // Who comes now waits for the end.
    let reader = Region::open(region.location().unwrap(), true).unwrap();
    let theirs = reader.lookup("t").unwrap();
    assert!(matches!(theirs.lease_within(&patience(5)), Err(Error::LeaseHeld { .. })));
    drop(held);
    theirs.lease().unwrap();
}

#[test]
fn a_swap_leads_handles_to_the_new_version_and_views_stay() {
    let region = region();
    let first = table(&region, "t", 1000);
    let kept = first.extents().unwrap();
    let view = first.lease().unwrap();
    let extent = region.allocate(2000).unwrap();
    let updater = first.updater(&patience(0)).unwrap();
    let parts = [Part::Extents(&first, &kept), Part::Owned(&extent)];
    let second = updater.swap(&parts, b"2").unwrap();
    drop(extent);
    assert!(first.is_superseded() && !first.is_current() && second.is_current());
    assert_eq!(second.extents().unwrap().len(), 2);
    assert_eq!(first.follow().unwrap().sequence(), second.sequence());
    assert_eq!(second.follow().unwrap().sequence(), second.sequence());
    assert_eq!(view.pin().manifest().unwrap(), b"m");
    healthy(&region);
    // An update through the old handle updates what it sees.
    let third = first.updater(&patience(0)).unwrap().swap(&[], b"3").unwrap();
    assert_eq!(first.follow().unwrap().sequence(), third.sequence());
    healthy(&region);
    // The middle goes, the ends stay.
    drop(second);
    assert_eq!(region.stats().unwrap().retired, 1);
    healthy(&region);
    assert_eq!(first.follow().unwrap().sequence(), third.sequence());
    drop(view);
    // After it lost its name, the last version is what handles of older ones see.
    region.publish("t", &[], b"other", true).unwrap();
    drop(third);
    assert_eq!(region.stats().unwrap().retired, 2);
    assert_eq!(first.follow().unwrap().manifest().unwrap(), b"3");
    assert!(matches!(first.updater(&patience(0)), Err(Error::Stale(_))));
    healthy(&region);
    region.gc().unwrap();
    assert_eq!(first.follow().unwrap().manifest().unwrap(), b"3");
    healthy(&region);
    drop(first);
    assert_eq!(region.stats().unwrap().retired, 0);
    region.delete("t").unwrap();
    empty(&region);
}

#[test]
fn a_thousand_swaps_leave_no_versions_behind() {
    let region = region();
    let first = table(&region, "t", 100);
    let mut pins = Vec::new();
    for i in 0..1000_u32 {
        let extent = region.allocate(100).unwrap();
        let updater = first.updater(&patience(0)).unwrap();
        let pin = updater.swap(&[Part::Owned(&extent)], &i.to_le_bytes()).unwrap();
        if i % 10 == 0 {
            pins.push(pin);
        }
        if pins.len() > 5 {
            pins.swap_remove(i as usize % 5);
        }
        assert!(region.stats().unwrap().retired <= 7);
        assert_eq!(first.follow().unwrap().manifest().unwrap(), i.to_le_bytes());
        for pin in &pins {
            assert_eq!(pin.follow().unwrap().manifest().unwrap(), i.to_le_bytes());
        }
    }
    healthy(&region);
    region.gc().unwrap();
    healthy(&region);
    region.delete("t").unwrap();
    drop((first, pins));
    empty(&region);
}

#[test]
fn handles_are_followed_while_versions_come_and_go() {
    let region = region();
    let first = table(&region, "t", 100);
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for i in 0..2_000_u64 {
                let updater = first.updater(&patience(60_000)).unwrap();
                updater.swap(&[], &i.to_le_bytes()).unwrap();
            }
        });
        let mut seen = 0;
        let mut held = Vec::new();
        while !swaps.is_finished() {
            let last = first.follow().unwrap();
            assert!(last.sequence() >= seen);
            seen = last.sequence();
            held.push(last);
            if held.len() > 3 {
                let old = held.swap_remove(seen as usize % 3);
                assert!(old.follow().unwrap().sequence() >= seen);
            }
        }
    });
    assert_eq!(first.follow().unwrap().manifest().unwrap(), 1_999_u64.to_le_bytes());
    drop(first);
    region.delete("t").unwrap();
    region.gc().unwrap();
    empty(&region);
}

#[test]
fn a_revision_leaves_old_handles_where_they_are() {
    let region = region();
    let first = table(&region, "t", 1000);
    let piece = region.allocate(500).unwrap();
    let parts = [Part::Of(&first), Part::Owned(&piece)];
    let second = first.updater(&patience(0)).unwrap().revise(&parts, b"2").unwrap();
    drop(piece);
    assert!(!first.is_superseded() && !first.is_current() && second.is_current());
    assert_eq!(first.follow().unwrap().sequence(), first.sequence());
    assert!(matches!(first.updater(&patience(0)), Err(Error::Stale(_))));
    // In place would change what the old handles see.
    let updater = second.updater(&patience(0)).unwrap();
    let shared = first.extents().unwrap();
    assert_eq!(updater.obstacle(&shared).unwrap(), Some(Obstacle::Shared));
    drop(updater);
    healthy(&region);
    // A revision of a swapped table: older handles see the last version before it.
    let third = second.updater(&patience(0)).unwrap().swap(&[], b"3").unwrap();
    let fourth = third.updater(&patience(0)).unwrap().revise(&[], b"4").unwrap();
    drop(third);
    assert_eq!(second.follow().unwrap().manifest().unwrap(), b"3");
    healthy(&region);
    drop((first, second, fourth));
    assert_eq!(region.stats().unwrap().retired, 0);
}

#[test]
fn a_swap_of_a_table_that_lost_its_name_is_stale() {
    let region = region();
    let pin = table(&region, "t", 100);
    let updater = pin.updater(&patience(0)).unwrap();
    region.publish("t", &[], b"other", true).unwrap();
    assert!(matches!(updater.swap(&[], b"2"), Err(Error::Stale(_))));
    let updater = region.lookup("t").unwrap().updater(&patience(0)).unwrap();
    region.delete("t").unwrap();
    assert!(matches!(updater.revise(&[], b"2"), Err(Error::Stale(_))));
    drop(pin);
    empty(&region);
}

#[test]
fn waiting_for_a_table_ends_with_its_publish_its_update_or_in_time() {
    let region = region();
    let since = Instant::now();
    let timeout = region.wait("t", None, &patience(30));
    assert!(matches!(timeout, Err(Error::Timeout { .. })), "{timeout:?}");
    assert!(since.elapsed() >= Duration::from_millis(30));
    let stop = Patience { interrupt: &|| true, ..patience(60_000) };
    assert!(matches!(region.wait("t", None, &stop), Err(Error::Cancelled)));
    let later = |what: &(dyn Fn() + Sync), newer_than: Option<(u64, u64)>| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                what();
            });
            region.wait("t", newer_than, &patience(60_000)).unwrap()
        })
    };
    let known = |pin: &Pin| Some((pin.sequence(), pin.content_version()));
    let first = later(&|| drop(table(&region, "t", 100)), None);
    let seen = known(&first);
    assert_eq!(region.wait("t", None, &patience(0)).unwrap().sequence(), first.sequence());
    assert!(matches!(region.wait("t", seen, &patience(0)), Err(Error::Timeout { .. })));
    let same = later(
        &|| {
            let exclusive = exclusive(&first);
            exclusive.begin().unwrap();
            exclusive.finish().unwrap();
        },
        seen,
    );
    assert_eq!((same.sequence(), same.content_version()), (first.sequence(), 2));
    let second = later(
        &|| drop(first.updater(&patience(0)).unwrap().swap(&[], b"2").unwrap()),
        known(&same),
    );
    assert!(second.sequence() > first.sequence());
    region.close();
    assert!(matches!(region.wait("t", None, &patience(0)), Err(Error::Stale(_))));
}

#[test]
fn a_ticket_is_kept_until_its_passes_are_redeemed() {
    let region = region();
    let extent = region.allocate(1000).unwrap();
    let ticket = region.ticket(&[Part::Owned(&extent)], b"result").unwrap();
    drop(extent);
    assert_eq!(region.names().unwrap(), [""; 0]);
    assert!(!ticket.is_current() && !ticket.is_superseded());
    let passes = [ticket.issue().unwrap().unwrap(), ticket.issue().unwrap().unwrap()];
    drop(ticket);
    healthy(&region);
    region.gc().unwrap();
    assert!(region.leases().unwrap().iter().any(|l| l.kind == HoldKind::Ticket));
    for pass in passes {
        let received = region.redeem(pass).unwrap();
        assert_eq!(received.manifest().unwrap(), b"result");
        received.lease().unwrap();
        // Once, whether or not somebody has it, and whatever else was sent.
        assert!(matches!(region.redeem(pass), Err(Error::Stale(_))));
        healthy(&region);
    }
    assert!(matches!(region.redeem(passes[1]), Err(Error::Stale(_))));
    for pass in [Pass::new(99, 1, 0), Pass::new(passes[0].slot, passes[0].sequence, 64)] {
        assert!(matches!(region.redeem(pass), Err(Error::Stale(_))));
    }
    empty(&region);
    // A bit is all there is of a pass.
    let ticket = region.ticket(&[], b"m").unwrap();
    let passes: Vec<_> = std::iter::from_fn(|| ticket.issue().unwrap()).collect();
    assert_eq!(passes.len(), 64);
    drop(ticket);
    assert!(passes.into_iter().rev().all(|pass| region.redeem(pass).is_ok()));
    empty(&region);
    // Never sent, it goes with its handle.
    drop(region.ticket(&[], b"m").unwrap());
    empty(&region);
}
