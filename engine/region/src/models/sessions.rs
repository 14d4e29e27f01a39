//! Sessions' ends: who takes over from a dead session never takes from a living one, whether it is
//! the dead one's successor in the slot or holds the writer lock.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::{Died, Fate, Life, LockByte, explore};
use crate::protocol;

/// A region with one session slot, in which one session comes after the other, and one word of
/// pins.
struct Region {
    byte: LockByte,
    incarnation: AtomicU64,
    pins: AtomicU64,
    writer: AtomicU64,
    dirty: AtomicU64,
    /// What is derived, and changed under the writer lock only.
    derived: UnsafeCell<u64>,
}

const BIT: u64 = 1;

impl Region {
    /// With a session in the slot, of incarnation 1, that holds a pin.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            byte: LockByte::held(),
            incarnation: AtomicU64::new(1),
            pins: AtomicU64::new(BIT),
            writer: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            derived: UnsafeCell::new(0),
        })
    }

    fn sweep(&self) {
        assert_ne!(self.incarnation.load(Ordering::Acquire), 0, "nobody's death was counted");
        protocol::clear_bit(&self.pins, BIT);
        self.incarnation.store(0, Ordering::Release);
    }

    /// What a session does in its slot last, and then the kernel.
    fn leave(&self, life: &Life) {
        let _: Result<(), Died> = (|| {
            life.step()?;
            protocol::let_go(&self.pins, BIT);
            life.step()?;
            self.incarnation.store(0, Ordering::Release);
            life.step()
        })();
        self.byte.unlock();
    }

    /// The next session in the slot, if it is free: sweeps it first if it is a corpse's. It pins.
    fn join(&self) -> bool {
        if !self.byte.lock() {
            return false;
        }
        if self.incarnation.load(Ordering::Acquire) != 0 {
            self.sweep();
        }
        self.incarnation.store(2, Ordering::Release);
        self.pins.fetch_or(BIT, Ordering::AcqRel);
        true
    }

    fn take_over(&self) {
        let swept = protocol::take_over(
            &self.incarnation,
            || self.byte.lock(),
            || self.byte.unlock(),
            || {
                self.sweep();
                Ok::<_, Died>(())
            },
        );
        swept.unwrap();
    }

    /// What a writer does, with the lock. Two at once would fail the model.
    fn change(&self, life: &Life) -> Result<(), Died> {
        // SAFETY: loom fails the model if this is not so.
        let add = || self.derived.with_mut(|at| unsafe { *at += 1 });
        if protocol::enter(&self.dirty) {
            // Made again: even.
            // SAFETY: as above.
            self.derived.with_mut(|at| unsafe { *at = 0 });
        }
        add();
        life.step()?;
        add();
        life.step()?;
        protocol::leave(&self.dirty);
        life.step()
    }
}

#[test]
fn loom_a_sessions_successor_is_not_swept() {
    explore(3, |fate| {
        let region = Region::new();
        let others = [
            {
                let region = region.clone();
                thread::spawn(move || region.join())
            },
            {
                let region = region.clone();
                thread::spawn(move || {
                    region.take_over();
                    false
                })
            },
        ];
        region.leave(&Life::new(fate));
        let joined = others.map(|thread| thread.join().unwrap())[0];
        let incarnation = region.incarnation.load(Ordering::Acquire);
        let pinned = region.pins.load(Ordering::Acquire);
        if joined {
            assert_eq!((incarnation, pinned), (2, BIT), "a living session was swept");
        } else {
            // Nobody lives here: what is left is swept by the next, and then nothing is.
            region.take_over();
            let incarnation = region.incarnation.load(Ordering::Acquire);
            assert_eq!((incarnation, region.pins.load(Ordering::Acquire)), (0, 0));
        }
    });
}

/// What sessions of incarnation `n`, in slot `n`, put into the writer lock's word.
fn token(n: u64) -> u64 {
    n << 1
}

#[test]
fn loom_the_writer_lock_is_stolen_from_the_dead_only() {
    explore(3, |fate| {
        let region = Region::new();
        assert!(protocol::try_take(&region.writer, token(1)));
        let thief = |mine: u64| {
            let region = region.clone();
            thread::spawn(move || {
                let seen = region.writer.load(Ordering::Relaxed);
                let taken = if seen == 0 {
                    protocol::try_take(&region.writer, token(mine))
                } else if seen == token(1) {
                    let lock = || Ok::<_, Died>(region.byte.lock());
                    let unlock = || {
                        region.byte.unlock();
                        Ok(())
                    };
                    protocol::steal(&region.writer, seen, token(mine), lock, unlock).unwrap()
                } else {
                    // Its holder lives: that has its own byte.
                    false
                };
                if taken {
                    region.change(&Life::new(Fate(None))).unwrap();
                    assert_eq!(protocol::release(&region.writer), token(mine));
                    if seen == token(1) {
                        region.byte.unlock();
                    }
                }
            })
        };
        let thieves = [thief(2), thief(3)];
        let life = Life::new(fate);
        if region.change(&life).is_ok() {
            assert_eq!(protocol::release(&region.writer), token(1));
        }
        // Leaves, or the kernel does it.
        region.byte.unlock();
        for thread in thieves {
            thread.join().unwrap();
        }
        // SAFETY: all threads are joined.
        let derived = region.derived.with(|at| unsafe { *at });
        assert!(region.dirty.load(Ordering::Acquire) == 1 || derived % 2 == 0);
    });
}
