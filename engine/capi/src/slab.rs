//! Values behind numbers: a table of slots that any thread looks up, fills and empties without a
//! lock.
//!
//! A number is a slot's index and the stamp of what lies in it: its tag, by which its user tells
//! kinds of values apart, and a generation. A slot's word holds the same stamp, whether the number
//! is still good, and how many use the value: the number itself is one use, and so is each call
//! that has looked it up. Taking a number back ends its own use; whoever ends the last one drops
//! the value and gives the slot to the next. So a value never goes while somebody looks at it, and
//! a number never names what came after.
//!
//! There is no lock that a fork could leave locked: what another thread had in hand at a fork is lost
//! to the child (a slot that it never uses again, and a value that it keeps until it ends), all else
//! is as it was.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Bits of an index.
pub(crate) const INDEX_BITS: u32 = 24;
/// Bits of a tag, the lowest of a stamp.
pub(crate) const TAG_BITS: u32 = 4;
/// Bits of a stamp.
pub(crate) const STAMP_BITS: u32 = 36;

/// The last generation, after which a slot is not used again.
const LAST_GENERATION: u64 = (1 << (STAMP_BITS - TAG_BITS)) - 1;
/// Slots of the first segment; each further one has twice as many as that before it.
const FIRST: usize = 64;
/// Segments, which together have as many slots as there are indexes but the last 64.
const SEGMENTS: usize = 18;
/// Slots in all.
const SLOTS: u32 = (FIRST as u32) * ((1 << SEGMENTS) - 1);

// A slot's word: stamp, closed, uses.
const USES: u64 = (1 << 27) - 1;
const CLOSED: u64 = 1 << 27;
const STAMP: u32 = 28;

/// Values of one type, by numbers.
pub(crate) struct Slab<T> {
    segments: [AtomicPtr<Slot<T>>; SEGMENTS],
    /// Emptied slots: a count of changes, and the first one's index plus one.
    free: AtomicU64,
    /// The first slot that was never used.
    fresh: AtomicU32,
}

struct Slot<T> {
    word: AtomicU64,
    /// The next emptied slot's index plus one.
    next: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: values are handed out by shared reference, to any thread, and dropped by any.
unsafe impl<T: Send + Sync> Sync for Slab<T> {}

/// Why a number names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It was taken back.
    Gone,
    /// It was never given out.
    Never,
    /// It is that of a value with this tag, but for the tag.
    Other(u64),
    /// More calls use it at once than are counted.
    Busy,
}

/// A use of a value.
pub(crate) struct Use<'s, T> {
    slab: &'s Slab<T>,
    slot: &'s Slot<T>,
    index: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Slab<T> {
        Slab {
            segments: [const { AtomicPtr::new(ptr::null_mut()) }; SEGMENTS],
            free: AtomicU64::new(0),
            fresh: AtomicU32::new(0),
        }
    }

    /// Puts a value somewhere. Gives the index and the stamp, whose generation is not 0; the value
    /// back if all slots are taken.
    pub(crate) fn insert(&self, value: T, tag: u64) -> Result<(u32, u64), T> {
        let Some((index, slot)) = self.pop().or_else(|| self.fresh()) else { return Err(value) };
        // SAFETY: an emptied or fresh slot is in nobody's hands: its word says closed, without uses.
        unsafe { (*slot.value.get()).write(value) };
        let generation = (slot.word.load(Ordering::Relaxed) >> STAMP >> TAG_BITS) + 1;
        let stamp = generation << TAG_BITS | tag;
        slot.word.store(stamp << STAMP | 1, Ordering::Release);
        Ok((index, stamp))
    }

    /// The value that a number names.
    #[inline]
    pub(crate) fn get(&self, index: u32, stamp: u64) -> Result<Use<'_, T>, Missing> {
        self.change(index, stamp, |word| word + 1)
    }

    /// Takes a number back. The value is dropped with its last use, this one or another.
    #[inline]
    pub(crate) fn take(&self, index: u32, stamp: u64) -> Result<Use<'_, T>, Missing> {
        // The number's own use becomes the caller's.
        self.change(index, stamp, |word| word | CLOSED)
    }

    #[inline]
    fn change(
        &self,
        index: u32,
        stamp: u64,
        to: impl Fn(u64) -> u64,
    ) -> Result<Use<'_, T>, Missing> {
        let Some(slot) = self.slot(index) else { return Err(Missing::Never) };
        let mut seen = slot.word.load(Ordering::Relaxed);
        loop {
            if seen >> STAMP != stamp || seen & CLOSED != 0 {
                return Err(why(seen, stamp));
            }
            if seen & USES == USES {
                return Err(Missing::Busy);
            }
            // Acquire: what the one who filled the slot wrote there.
            match slot.word.compare_exchange_weak(
                seen,
                to(seen),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Use { slab: self, slot, index }),
                Err(other) => seen = other,
            }
        }
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (segment, at) = place(index);
        let first = NonNull::new(self.segments.get(segment)?.load(Ordering::Acquire))?;
        // SAFETY: a segment has as many slots as `place` counts on, and is never freed.
        Some(unsafe { first.add(at).as_ref() })
    }

    /// An emptied slot.
    fn pop(&self) -> Option<(u32, &Slot<T>)> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let index = (head as u32 & ((1 << INDEX_BITS) - 1)).checked_sub(1)?;
            let slot = self.slot(index)?;
            let next = u64::from(slot.next.load(Ordering::Relaxed));
            // Counting changes tells a list that was taken and given back meanwhile.
            let after = ((head >> INDEX_BITS) + 1) << INDEX_BITS | next;
            match self.free.compare_exchange_weak(head, after, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some((index, slot)),
                Err(other) => head = other,
            }
        }
    }

    fn push(&self, index: u32, slot: &Slot<T>) {
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            slot.next.store(head as u32 & ((1 << INDEX_BITS) - 1), Ordering::Relaxed);
            let after = ((head >> INDEX_BITS) + 1) << INDEX_BITS | (u64::from(index) + 1);
            // Release: who takes it sees `next`, and the value gone.
            match self.free.compare_exchange_weak(head, after, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    /// A slot that was never used.
    #[cold]
    fn fresh(&self) -> Option<(u32, &Slot<T>)> {
        let next = |index: u32| (index < SLOTS).then_some(index + 1);
        let index = self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        let (segment, _) = place(index);
        let home = self.segments.get(segment)?;
        if home.load(Ordering::Acquire).is_null() {
            let slots = (0..FIRST << segment).map(|_| Slot {
                word: AtomicU64::new(CLOSED),
                next: AtomicU32::new(0),
                value: UnsafeCell::new(MaybeUninit::uninit()),
            });
            let made = Box::into_raw(slots.collect::<Box<[Slot<T>]>>());
            let null = ptr::null_mut();
            if home
                .compare_exchange(null, made.cast(), Ordering::AcqRel, Ordering::Acquire)
                .is_err()
            {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
            }
        }
        Some((index, self.slot(index)?))
    }
}

/// Why a stamp is not that of a slot with this word.
#[cold]
fn why(word: u64, stamp: u64) -> Missing {
    let now = word >> STAMP;
    let (generation, last) = (stamp >> TAG_BITS, now >> TAG_BITS);
    if generation == 0 || generation > last {
        return Missing::Never;
    }
    if generation < last {
        return Missing::Gone;
    }
    match (word & CLOSED != 0, stamp == now) {
        (true, true) => Missing::Gone,
        (true, false) => Missing::Never,
        (false, _) => Missing::Other(now & ((1 << TAG_BITS) - 1)),
    }
}

/// The segment of a slot, and its place there.
#[inline]
fn place(index: u32) -> (usize, usize) {
    let at = index as usize + FIRST;
    let segment = (at.ilog2() - FIRST.ilog2()) as usize;
    (segment, at - (FIRST << segment))
}

impl<T> Deref for Use<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a slot with a use has a value, which stays until the last use ends.
        unsafe { (*self.slot.value.get()).assume_init_ref() }
    }
}

impl<T> Drop for Use<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: whoever drops the value does so after all that was done with it.
        let before = self.slot.word.fetch_sub(1, Ordering::Release);
        if before & USES == 1 {
            // The last one; the word says closed, or the number itself would be a use. (A load, not a
            // fence, which is lost on the sanitizer of threads.)
            self.slot.word.load(Ordering::Acquire);
            // SAFETY: nobody uses the value, and nobody can come to: the number is taken back.
            unsafe { (*self.slot.value.get()).assume_init_drop() };
            if before >> STAMP >> TAG_BITS < LAST_GENERATION {
                self.slab.push(self.index, self.slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const TAG: u64 = 5;
    const FIRST_STAMP: u64 = 1 << TAG_BITS | TAG;

    #[test]
    fn a_number_names_what_it_was_given_for_and_nothing_later() {
        let slab = Slab::new();
        let (index, first) = slab.insert("one", TAG).unwrap();
        assert_eq!(*slab.get(index, first).unwrap(), "one");
        drop(slab.take(index, first).unwrap());
        assert_eq!(slab.get(index, first).err(), Some(Missing::Gone));
        let (again, second) = slab.insert("two", TAG).unwrap();
        assert_eq!((again, second), (index, first + (1 << TAG_BITS)));
        assert_eq!(slab.get(index, first).err(), Some(Missing::Gone));
        assert_eq!(slab.take(index, first).err(), Some(Missing::Gone));
        assert_eq!(*slab.get(index, second).unwrap(), "two");
    }

    #[test]
    fn numbers_that_were_never_given_out_name_nothing() {
        let slab = Slab::new();
        assert_eq!(slab.get(0, FIRST_STAMP).err(), Some(Missing::Never));
        let (index, stamp) = slab.insert(7, TAG).unwrap();
        assert_eq!(stamp, FIRST_STAMP);
        for (index, stamp) in [
            (index, 0),
            (index, TAG),
            (index, stamp + (1 << TAG_BITS)),
            (index + 1, FIRST_STAMP),
            (index + 1, 0),
            (1 << 23, FIRST_STAMP),
            (u32::MAX >> 8, FIRST_STAMP),
        ] {
            assert_eq!(slab.get(index, stamp).err(), Some(Missing::Never));
            assert_eq!(slab.take(index, stamp).err(), Some(Missing::Never));
        }
        assert_eq!(slab.get(index, stamp + 1).err(), Some(Missing::Other(TAG)));
        assert_eq!(slab.take(index, stamp ^ TAG).err(), Some(Missing::Other(TAG)));
        drop(slab.take(index, stamp).unwrap());
        assert_eq!(slab.get(index, stamp + 1).err(), Some(Missing::Never));
    }

    #[test]
    fn a_value_stays_as_long_as_it_is_used() {
        let slab = Slab::new();
        let value = Arc::new(());
        let (index, stamp) = slab.insert(value.clone(), TAG).unwrap();
        let used = slab.get(index, stamp).unwrap();
        drop(slab.take(index, stamp).unwrap());
        assert_eq!(Arc::strong_count(&value), 2);
        assert_eq!(slab.get(index, stamp).err(), Some(Missing::Gone));
        // Its slot is not given away meanwhile.
        let (other, other_stamp) = slab.insert(Arc::new(()), TAG).unwrap();
        assert_ne!(other, index);
        drop(used);
        assert_eq!(Arc::strong_count(&value), 1);
        drop(slab.take(other, other_stamp).unwrap());
    }

    #[test]
    fn many_values_have_places_of_their_own() {
        let slab = Slab::new();
        let many = if cfg!(miri) { 200 } else { 5_000 };
        let numbers: Vec<_> = (0..many).map(|i| slab.insert(i, TAG).unwrap()).collect();
        assert_eq!(numbers.iter().map(|n| n.0).collect::<HashSet<_>>().len(), numbers.len());
        for (i, (index, stamp)) in numbers.iter().enumerate() {
            assert_eq!(*slab.get(*index, *stamp).unwrap(), i);
        }
        assert_eq!(place(SLOTS - 1), (SEGMENTS - 1, (FIRST << (SEGMENTS - 1)) - 1));
    }

    #[test]
    fn a_slot_whose_generations_are_spent_is_not_used_again() {
        let slab = Slab::new();
        let (index, stamp) = slab.insert((), TAG).unwrap();
        drop(slab.take(index, stamp).unwrap());
        let slot = slab.slot(index).unwrap();
        slot.word.store((LAST_GENERATION - 1) << TAG_BITS << STAMP | CLOSED, Ordering::Relaxed);
        let last = slab.insert((), TAG).unwrap();
        assert_eq!(last, (index, LAST_GENERATION << TAG_BITS | TAG));
        drop(slab.take(last.0, last.1).unwrap());
        assert_ne!(slab.insert((), TAG).unwrap().0, index);
        assert_eq!(slab.get(last.0, last.1).err(), Some(Missing::Gone));
    }

    #[test]
    fn threads_look_up_and_take_back_the_same_numbers() {
        static LIVE: AtomicUsize = AtomicUsize::new(0);
        struct Counted(u64);
        impl Drop for Counted {
            fn drop(&mut self) {
                assert_eq!(self.0, 0xC0FFEE);
                self.0 = 0;
                LIVE.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        let slab = Slab::new();
        let shared: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (slab, shared) = (&slab, &shared);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let place = &shared[(round + thread) % shared.len()];
                        if thread < 2 {
                            LIVE.fetch_add(1, Ordering::Relaxed);
                            let made = slab.insert(Counted(0xC0FFEE), TAG).ok().unwrap();
                            let number = u64::from(made.0) << STAMP_BITS | made.1;
                            let old = place.swap(number, Ordering::AcqRel);
                            if old != 0 {
                                let taken = slab.take(
                                    (old >> STAMP_BITS) as u32,
                                    old & ((1 << STAMP_BITS) - 1),
                                );
                                assert_eq!(taken.unwrap().0, 0xC0FFEE);
                            }
                        } else {
                            let number = place.load(Ordering::Acquire);
                            let got = slab.get(
                                (number >> STAMP_BITS) as u32,
                                number & ((1 << STAMP_BITS) - 1),
                            );
                            if let Ok(value) = got {
                                assert_eq!(value.0, 0xC0FFEE);
                            }
                        }
                    }
                });
            }
        });
        assert!(LIVE.load(Ordering::Relaxed) <= shared.len());
    }
}
