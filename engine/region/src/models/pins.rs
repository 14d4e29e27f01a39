//! A pin against retiring and reclaiming: memory is never recycled under a pin, and never lost.

use std::sync::atomic::Ordering;

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{CONTENT, Died, Fate, Life, Slot, check, explore};
use crate::protocol;
use crate::state::{self, State};

struct Region {
    slot: Slot,
    /// The writer lock. Its own model is in `sessions`.
    writer: Mutex<()>,
}

/// How a reader comes to the table.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// By its name: not if it is retired.
    Name,
    /// By a link, or with a pass: while it is there.
    Link,
    /// It was pinned before, by two.
    Pinned,
}

/// A reader's life: pins the table if it is there, reads it, and lets go. Says whether it left
/// the slot to be looked at when the writer lock is next taken.
fn read(region: &Region, bit: u64, way: Way, life: &Life) -> Result<bool, Died> {
    let slot = &region.slot;
    let seen = slot.seen();
    let retired = state::state(seen) == Some(State::Retired);
    if !(crate::catalog::visible(seen) || (retired && way == Way::Link)) {
        return Ok(false);
    }
    if protocol::hold(&slot.pins, bit, false, &slot.state, seen) {
        life.step()?;
        assert_eq!(slot.read(), CONTENT);
        life.step()?;
    }
    protocol::let_go(&slot.pins, bit);
    life.step()?;
    if !protocol::is_left_over(&slot.state) {
        return Ok(false);
    }
    life.step()?;
    let Ok(_writer) = region.writer.try_lock() else { return Ok(true) };
    slot.reclaim(2);
    Ok(false)
}

fn delete(region: &Region) {
    let _writer = region.writer.lock().unwrap();
    protocol::retire(&region.slot.state, 0);
    region.slot.reclaim(2);
}

/// Deletes the table while others read it.
fn run(way: Way, fate: Fate) {
    let region = Arc::new(Region { slot: Slot::new(State::Published, 1), writer: Mutex::new(()) });
    region.slot.pins.store(if way == Way::Pinned { 3 } else { 0 }, Ordering::Relaxed);
    let threads: Vec<_> = (0..if way == Way::Pinned { 2 } else { 1 })
        .map(|i| {
            let region = region.clone();
            thread::spawn(move || {
                let life = Life::new(fate);
                if way != Way::Pinned {
                    return read(&region, 1 << i, way, &life);
                }
                assert_eq!(region.slot.read(), CONTENT);
                protocol::let_go(&region.slot.pins, 1 << i);
                Ok(protocol::is_left_over(&region.slot.state))
            })
        })
        .collect();
    delete(&region);
    for (i, thread) in threads.into_iter().enumerate() {
        let left = thread.join().unwrap();
        if left.is_err() {
            protocol::clear_bit(&region.slot.pins, 1 << i);
        }
        if !matches!(left, Ok(false)) {
            // What was deferred, or left by the dead, is done by who next takes the lock.
            let _writer = region.writer.lock().unwrap();
            region.slot.reclaim(2);
        }
    }
    let freed = state::state(region.slot.seen()) == Some(State::Free);
    assert!(freed, "the table's memory is lost");
}

#[test]
fn loom_a_pin_keeps_memory_and_the_last_to_let_go_frees_it() {
    explore(4, |fate| run(Way::Name, fate));
}

#[test]
fn loom_of_two_pins_the_last_frees() {
    check(|| run(Way::Pinned, Fate(None)));
}

#[test]
fn loom_who_comes_by_a_link_keeps_a_retired_table_or_finds_it_gone() {
    explore(4, |fate| run(Way::Link, fate));
}
