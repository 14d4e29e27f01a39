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

/// A reader's life: pins the table if it is there, reads it, and lets go. Says whether it left
/// the slot to be looked at when the writer lock is next taken.
fn read(region: &Region, bit: u64, life: &Life) -> Result<bool, Died> {
    let slot = &region.slot;
    let seen = slot.seen();
    if !crate::catalog::visible(seen) {
        return Ok(false);
    }
    if protocol::hold(&slot.pins, bit, false, &slot.state, seen) {
        life.step()?;
        assert_eq!(slot.read(), CONTENT);
        life.step()?;
    }
    let_go(region, bit, life)
}

fn let_go(region: &Region, bit: u64, life: &Life) -> Result<bool, Died> {
    let slot = &region.slot;
    protocol::let_go(&slot.pins, bit);
    life.step()?;
    if !protocol::is_left_over(&slot.state) {
        return Ok(false);
    }
    life.step()?;
    let Ok(_writer) = region.writer.try_lock() else { return Ok(true) };
    slot.reclaim();
    Ok(false)
}

/// Comes to a version of a table by a link, or with a pass: it is retired, and kept by another's
/// pin, which is let go meanwhile.
fn follow(region: &Region, bit: u64, life: &Life) -> Result<bool, Died> {
    let slot = &region.slot;
    let seen = slot.seen();
    if state::state(seen) != Some(State::Retired) {
        return Ok(false);
    }
    if protocol::hold(&slot.pins, bit, false, &slot.state, seen) {
        life.step()?;
        assert_eq!(slot.read(), CONTENT);
        life.step()?;
    }
    let_go(region, bit, life)
}

#[test]
fn loom_a_retired_table_can_be_pinned_until_it_is_freed() {
    explore(4, |fate| {
        let slot = Slot::new(State::Retired, 1);
        slot.pins.store(1, Ordering::Relaxed);
        let region = Arc::new(Region { slot, writer: Mutex::new(()) });
        let follower = {
            let region = region.clone();
            thread::spawn(move || follow(&region, 2, &Life::new(fate)))
        };
        let left = let_go(&region, 1, &Life::new(Fate(None)));
        drop(left);
        let died = follower.join().unwrap().is_err();
        let _writer = region.writer.lock().unwrap();
        if died {
            protocol::clear_bit(&region.slot.pins, 2);
        }
        region.slot.reclaim();
        let freed = state::state(region.slot.seen()) == Some(State::Free);
        assert!(freed, "the table's memory is lost");
    });
}

fn delete(region: &Region) {
    let _writer = region.writer.lock().unwrap();
    protocol::retire(&region.slot.state, 0);
    region.slot.reclaim();
}

/// Deletes the table while another process reads it; with `pinned` two have pinned it before, read
/// it, and let go.
fn run(pinned: bool, fate: Fate) {
    let region = Arc::new(Region { slot: Slot::new(State::Published, 1), writer: Mutex::new(()) });
    region.slot.pins.store(if pinned { 3 } else { 0 }, Ordering::Relaxed);
    let threads: Vec<_> = (0..if pinned { 2 } else { 1 })
        .map(|i| {
            let region = region.clone();
            thread::spawn(move || {
                let life = Life::new(fate);
                if !pinned {
                    return read(&region, 1 << i, &life);
                }
                assert_eq!(region.slot.read(), CONTENT);
                let_go(&region, 1 << i, &life)
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
            region.slot.reclaim();
        }
    }
    let freed = state::state(region.slot.seen()) == Some(State::Free);
    assert!(freed, "the table's memory is lost");
}

#[test]
fn loom_a_pin_keeps_memory_and_the_last_to_let_go_frees_it() {
    explore(4, |fate| run(false, fate));
}

#[test]
fn loom_of_two_pins_the_last_frees() {
    check(|| run(true, Fate(None)));
}
