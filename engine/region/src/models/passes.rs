//! Passes against reclaiming: of several who come with one, one has the result, and its memory is
//! kept until it has pinned it.

use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU64;
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{CONTENT, Died, Fate, Life, Slot, explore};
use crate::protocol;
use crate::state::{self, State};

struct Region {
    slot: Slot,
    passes: AtomicU64,
    /// The writer lock. Its own model is in `sessions`.
    writer: Mutex<()>,
}

impl Region {
    /// As whoever takes the writer lock may do.
    fn reclaim(&self) -> bool {
        self.slot.reclaim_unless(2, || protocol::has_passes(&self.passes))
    }
}

/// How a receiver fared.
#[derive(Debug)]
enum Outcome {
    Received,
    /// Another had it.
    Stale,
}

fn receive(region: &Region, bit: u64, life: &Life) -> Result<Outcome, Died> {
    let slot = &region.slot;
    let seen = slot.seen();
    if state::state(seen) != Some(State::Retired) {
        return Ok(Outcome::Stale);
    }
    let held = protocol::hold(&slot.pins, bit, false, &slot.state, seen);
    life.step()?;
    let mine = held && protocol::use_pass(&region.passes, 1);
    life.step()?;
    if mine {
        assert_eq!(slot.read(), CONTENT);
    }
    protocol::let_go(&slot.pins, bit);
    life.step()?;
    if protocol::is_left_over(&slot.state)
        && let Ok(_writer) = region.writer.try_lock()
    {
        region.reclaim();
    }
    Ok(if mine { Outcome::Received } else { Outcome::Stale })
}

/// A result on its way, and `receivers` who come with the same pass; the first may die.
fn run(receivers: usize, sweeps: bool, fate: Fate) {
    let region = Arc::new(Region {
        slot: Slot::new(State::Retired, 1),
        passes: AtomicU64::new(1),
        writer: Mutex::new(()),
    });
    let rivals: Vec<_> = (1..receivers)
        .map(|i| {
            let region = region.clone();
            thread::spawn(move || receive(&region, 1 << i, &Life::new(Fate(None))))
        })
        .collect();
    let sweeper = sweeps.then(|| {
        let region = region.clone();
        thread::spawn(move || {
            let _writer = region.writer.lock().unwrap();
            region.reclaim();
        })
    });
    let mut outcomes = vec![receive(&region, 1, &Life::new(fate))];
    if outcomes.iter().any(Result::is_err) {
        protocol::clear_bit(&region.slot.pins, 1);
    }
    outcomes.extend(rivals.into_iter().map(|rival| rival.join().unwrap()));
    if let Some(sweeper) = sweeper {
        sweeper.join().unwrap();
    }
    let received = outcomes.iter().filter(|o| matches!(o, Ok(Outcome::Received))).count();
    let died = outcomes.iter().any(Result::is_err);
    assert!(received == 1 || (died && received == 0), "{received} have received it");
    // What was deferred, or left by the dead, is done by who next takes the lock.
    let _writer = region.writer.lock().unwrap();
    region.reclaim();
    let freed = state::state(region.slot.seen()) == Some(State::Free);
    let outstanding = region.passes.load(Ordering::Relaxed) != 0;
    assert_ne!(freed, outstanding, "the result's memory is lost, or the result is");
}

#[test]
fn loom_a_pass_is_good_for_one() {
    explore(3, |fate| run(2, false, fate));
}

#[test]
fn loom_a_result_is_there_until_its_receiver_has_pinned_it() {
    explore(3, |fate| run(1, true, fate));
}
