//! What becomes of passes when their sender ends, with clocks that are set.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{GRACE, ticks};
use crate::backing;
use crate::catalog::Fate;
use crate::layout::{header, slot};
use crate::session::Session;
use crate::state::{self, State};
use crate::types::Pass;
use crate::{CreateOptions, Error, HoldKind, Location, Region};

fn memfd() -> Region {
    let options = CreateOptions { capacity: Some(1 << 20), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

/// A second session in the same region and process, as another process would have it.
fn another(region: &Region) -> Arc<Session> {
    let made = backing::open(region.location().unwrap(), true).unwrap();
    Arc::new(Session::open(made.into(), false).unwrap())
}

fn healthy(region: &Region) {
    assert!(region.verify().ok(), "{:?}", region.verify());
}

/// A result of two passes, sent by a session that then leaves.
fn sent(region: &Region) -> [Pass; 2] {
    let sender = another(region);
    let raw = sender.allocate(100_000).unwrap();
    let fate = Fate::Hidden(state::TICKET);
    let held = sender.publish("", &[(raw.offset, raw.bytes)], b"result", fate).unwrap();
    sender.free(raw);
    let passes = [0, 1].map(|number| {
        assert_eq!(sender.issue(held.slot).unwrap(), Some(number));
        Pass::new(held.slot, held.sequence, number)
    });
    sender.unhold(held.slot, crate::pins::Line::Pins);
    region.gc().unwrap();
    assert_ne!(region.stats().unwrap().used, 0);
    passes
}

fn until(region: &Region, pass: Pass) -> u64 {
    let session = region.for_tests();
    let at = session.layout.slot(pass.slot) + slot::TICKET_UNTIL;
    session.bytes.word(at).unwrap().load(Ordering::Relaxed)
}

fn set_until(region: &Region, pass: Pass, to: u64) {
    let session = region.for_tests();
    let at = session.layout.slot(pass.slot) + slot::TICKET_UNTIL;
    session.bytes.word(at).unwrap().store(to, Ordering::Relaxed);
}

#[test]
fn passes_outlive_their_sender_for_a_time() {
    let region = memfd();
    let passes = sent(&region);
    let left = until(&region, passes[0]) - ticks();
    assert!(left > 0 && u128::from(left) <= GRACE.as_millis(), "{left}");
    healthy(&region);
    let one = region.redeem(passes[0]).unwrap();
    // One is received, and the other is still on its way.
    drop(one);
    region.gc().unwrap();
    let leases = region.leases().unwrap();
    assert!(leases.iter().any(|l| l.kind == HoldKind::Ticket && l.pid == std::process::id()));
    healthy(&region);
    // Too late is only who comes after the memory was taken.
    set_until(&region, passes[1], 1);
    drop(region.redeem(passes[1]).unwrap());
    assert_eq!((region.stats().unwrap().used, region.leases().unwrap().len()), (0, 0));
    assert!(matches!(region.redeem(passes[1]), Err(Error::Stale(_))));
    healthy(&region);
}

#[test]
fn what_nobody_received_in_time_is_freed() {
    let region = memfd();
    // By `gc`; and a time that no clock can have made keeps nothing.
    for over in [1, ticks().saturating_sub(1).max(1), ticks() + 2 * GRACE.as_millis() as u64] {
        let passes = sent(&region);
        set_until(&region, passes[0], over);
        assert_eq!(region.leases().unwrap().len(), 1);
        healthy(&region);
        assert!(region.gc().unwrap() > 0);
        assert_eq!((region.stats().unwrap().used, region.leases().unwrap().len()), (0, 0));
        assert!(matches!(region.redeem(passes[0]), Err(Error::Stale(_))));
        healthy(&region);
    }
}

#[test]
fn who_needs_the_memory_gets_it_when_the_time_is_over() {
    let region = memfd();
    let most = region.stats().unwrap().capacity - (128 << 10);
    let passes = sent(&region);
    assert!(matches!(region.allocate(most), Err(Error::RegionFull { .. })));
    set_until(&region, passes[0], 1);
    assert!(region.allocate(most).is_ok());
    assert!(matches!(region.redeem(passes[0]), Err(Error::Stale(_))));
    healthy(&region);
}

#[test]
fn a_session_that_comes_after_a_sender_has_nothing_of_it() {
    let region = memfd();
    let passes = sent(&region);
    let before = until(&region, passes[0]);
    set_until(&region, passes[0], before - 1);
    // In the very slot of the sender, as the first sees: it neither keeps nor prolongs.
    let next = another(&region);
    assert_eq!(next.ticket_of(passes[0].slot).unwrap() & 0x1ff, u64::from(next.index()));
    assert_ne!(next.ticket_of(passes[0].slot).unwrap(), next.token());
    drop(next);
    assert_eq!(until(&region, passes[0]), before - 1);
    let next = another(&region);
    set_until(&region, passes[0], 1);
    region.gc().unwrap();
    assert!(matches!(next.redeem(passes[0]), Err(Error::Stale(_))));
    drop(next);
    healthy(&region);
}

#[test]
fn a_slot_that_another_has_sent_is_not_sent_again() {
    let region = memfd();
    let passes = sent(&region);
    let received = region.redeem(passes[0]).unwrap();
    assert!(received.issue().unwrap().is_none());
    let again = region.ticket(&[crate::Part::Of(&received)], b"result").unwrap();
    let pass = again.issue().unwrap().unwrap();
    drop((received, again));
    for pass in [pass, passes[1]] {
        assert_eq!(region.redeem(pass).unwrap().manifest().unwrap(), b"result");
    }
    assert_eq!(region.stats().unwrap().used, 0);
    healthy(&region);
}

#[test]
fn who_died_as_it_freed_a_result_keeps_nobody_waiting() {
    let region = memfd();
    let passes = sent(&region);
    let session = region.for_tests();
    let word = session.bytes.word(session.layout.slot(passes[0].slot) + slot::STATE).unwrap();
    let seen = word.load(Ordering::Relaxed);
    word.store(state::reclaiming(seen), Ordering::Relaxed);
    session.bytes.word(header::DIRTY).unwrap().store(1, Ordering::Relaxed);
    drop(region.redeem(passes[0]).unwrap());
    // Without that trace it is damage, which the next writer mends.
    word.store(state::reclaiming(seen), Ordering::Relaxed);
    assert_eq!(state::state(word.load(Ordering::Relaxed)), Some(State::Reclaiming));
    assert!(matches!(region.redeem(passes[1]), Err(Error::RegionCorrupt { .. })));
    drop(region.redeem(passes[1]).unwrap());
    healthy(&region);
}
