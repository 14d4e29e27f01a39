//! Leases against an exclusive lease: what a lease sees does not change, and what a dead writer
//! left half written is not read.

use std::sync::atomic::Ordering;

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{CONTENT, Died, Fate, Life, Slot, explore};
use crate::protocol;
use crate::state::{self, State};

/// What the update writes first, and at last.
const HALF: u64 = 77;
const DONE: u64 = 99;

struct Region {
    slot: Slot,
    /// The writer lock.
    writer: Mutex<()>,
}

impl Region {
    fn set(&self, to: State) {
        let _writer = self.writer.lock().unwrap();
        protocol::publish(&self.slot.state, state::word(to, 1));
    }
}

/// Leases the table, if it can be had now, and reads it twice.
fn read(region: &Region) {
    let slot = &region.slot;
    let seen = slot.seen();
    if state::state(seen) != Some(State::Published) {
        return;
    }
    if protocol::hold(&slot.leases, 1, false, &slot.state, seen) {
        let first = slot.read();
        assert!(first == CONTENT || first == DONE, "half an update was read");
        assert_eq!(slot.read(), first);
    }
    protocol::let_go(&slot.leases, 1);
}

/// Updates the table in place if nobody leases it; whether it did.
fn update(region: &Region, life: &Life) -> Result<bool, Died> {
    let slot = &region.slot;
    let shut = {
        let _writer = region.writer.lock().unwrap();
        protocol::shut(&slot.state, state::word(State::Leased, 1));
        protocol::is_unheld(1, |_| Ok::<_, Died>(&slot.leases))?
    };
    life.step()?;
    if !shut {
        region.set(State::Published);
        return Ok(false);
    }
    region.set(State::Writing);
    life.step()?;
    slot.write(HALF);
    life.step()?;
    slot.write(DONE);
    life.step()?;
    region.set(State::Leased);
    life.step()?;
    region.set(State::Published);
    Ok(true)
}

fn run(fate: Fate, updates: usize) {
    let region = Arc::new(Region { slot: Slot::new(State::Published, 1), writer: Mutex::new(()) });
    let reader = {
        let region = region.clone();
        thread::spawn(move || read(&region))
    };
    for _ in 0..updates {
        let updated = update(&region, &Life::new(fate));
        if updated.is_err() {
            // Who takes over from the dead.
            let _writer = region.writer.lock().unwrap();
            if let Some(after) = state::orphaned(region.slot.state.load(Ordering::Acquire)) {
                protocol::publish(&region.slot.state, after);
            }
        }
        match state::state(region.slot.seen()) {
            Some(State::Published) => {}
            Some(State::Poisoned) => assert!(updated.is_err()),
            other => panic!("the table is left {other:?}"),
        }
    }
    reader.join().unwrap();
    assert_eq!(region.slot.leases.load(Ordering::Acquire), 0);
}

#[test]
fn loom_a_lease_sees_the_old_or_the_new_and_nothing_in_between() {
    explore(5, |fate| run(fate, 1));
}

#[test]
fn loom_a_lease_between_two_updates_stops_the_second() {
    super::check(|| run(Fate(None), 2));
}
