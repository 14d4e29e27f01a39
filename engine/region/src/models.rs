//! Models of the protocols for loom, which runs them in every interleaving, with the reorderings
//! that the memory model allows: `make test-loom`.
//!
//! They run the steps of [`crate::protocol`] and [`crate::index`], the code that runs on regions,
//! on words of loom's. A process is a thread; it may die after each of its steps, which is tried
//! for one step after the other. What a table's memory holds is a cell of loom's, which fails the
//! model when it is recycled or written while another reads it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is tests")]

mod index;
mod leases;
mod passes;
mod pins;
mod publish;
mod sessions;

use std::cell::Cell;
use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;

use crate::protocol;
use crate::state::{self, State};

/// What the memory of a published table holds, and what it holds once it was recycled.
const CONTENT: u64 = 42;
const RECYCLED: u64 = 13;

/// How a process's life may end: at its step of this number, from 0.
#[derive(Clone, Copy, Debug)]
struct Fate(Option<usize>);

/// A process that may die.
struct Life {
    fate: Fate,
    steps: Cell<usize>,
}

/// That a process is dead: it does nothing any more.
#[derive(Debug)]
struct Died;

impl Life {
    fn new(fate: Fate) -> Self {
        Self { fate, steps: Cell::new(0) }
    }

    /// A point between two steps.
    fn step(&self) -> Result<(), Died> {
        let step = self.steps.replace(self.steps.get() + 1);
        if self.fate.0 == Some(step) { Err(Died) } else { Ok(()) }
    }
}

/// Explores a model in which one process has up to `steps` steps, for every end of its life.
fn explore(steps: usize, model: impl Fn(Fate) + Clone + Send + Sync + 'static) {
    for fate in std::iter::once(None).chain((0..steps).map(Some)) {
        let model = model.clone();
        check(move || model(Fate(fate)));
    }
}

/// Runs a model in every interleaving, and says how many there are.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = runs.clone();
    loom::model(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} interleavings", runs.load(Ordering::Relaxed));
}

/// A table slot with two words of bits, and the memory that it owns.
struct Slot {
    state: AtomicU64,
    pins: AtomicU64,
    leases: AtomicU64,
    memory: UnsafeCell<u64>,
}

impl Slot {
    fn new(state: State, sequence: u64) -> Self {
        Self {
            state: AtomicU64::new(state::word(state, sequence)),
            pins: AtomicU64::new(0),
            leases: AtomicU64::new(0),
            memory: UnsafeCell::new(CONTENT),
        }
    }

    fn seen(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// As who holds the slot may do.
    fn read(&self) -> u64 {
        // SAFETY: loom fails the model if this is not so.
        self.memory.with(|at| unsafe { *at })
    }

    /// As who writes alone may do.
    fn write(&self, value: u64) {
        // SAFETY: loom fails the model if this is not so.
        self.memory.with_mut(|at| unsafe { *at = value });
    }

    /// Frees the slot if it is retired and unheld, which its pins say, or with its leases `count`
    /// words; under the writer lock.
    fn reclaim(&self, count: u64) -> bool {
        self.reclaim_unless(count, || false)
    }

    /// The same, unless something else keeps it.
    fn reclaim_unless(&self, count: u64, kept: impl FnOnce() -> bool) -> bool {
        let lines = |i: u64| Ok::<_, Died>([&self.pins, &self.leases][i as usize]);
        let found = protocol::reclaimable(&self.state, count, lines);
        let Some(seen) = found.unwrap() else { return false };
        if kept() {
            return false;
        }
        if !protocol::shut_out(&self.state, seen, count, lines).unwrap() {
            return false;
        }
        self.write(RECYCLED);
        self.state.store(state::word(State::Free, state::sequence(seen)), Ordering::Release);
        true
    }
}

/// A session's lock byte: what the kernel drops when its process dies.
struct LockByte(AtomicU64);

impl LockByte {
    fn held() -> Self {
        Self(AtomicU64::new(1))
    }

    fn lock(&self) -> bool {
        self.0.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn unlock(&self) {
        self.0.store(0, Ordering::Release);
    }
}
