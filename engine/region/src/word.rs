//! A 64-bit word that several processes change: in shared memory, or in a model of it.
//!
//! The protocols ([`crate::protocol`], [`crate::index`]) are written over this trait, so that the
//! code that runs on regions is the code that loom puts through every interleaving. Where the order
//! of two words matters to both sides, it is made by sequentially consistent *fences*: of
//! sequentially consistent stores and exchanges loom knows only what acquire and release give.

use std::sync::atomic::{AtomicU64, Ordering};

/// An atomic number of 64 bits.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64, order: Ordering) -> u64;
    /// Stores `new` if the value is `seen`; whether it did.
    fn exchange(&self, seen: u64, new: u64, order: Ordering) -> bool;
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64;
    fn fetch_and(&self, bits: u64, order: Ordering) -> u64;
    /// A fence for words of this kind.
    fn fence(order: Ordering);
}

macro_rules! word {
    ($word:ty, $fence:path) => {
        impl Word for $word {
            #[inline(always)]
            fn load(&self, order: Ordering) -> u64 {
                <$word>::load(self, order)
            }

            #[inline(always)]
            fn store(&self, value: u64, order: Ordering) {
                <$word>::store(self, value, order);
            }

            #[inline(always)]
            fn swap(&self, value: u64, order: Ordering) -> u64 {
                <$word>::swap(self, value, order)
            }

            #[inline(always)]
            fn exchange(&self, seen: u64, new: u64, order: Ordering) -> bool {
                <$word>::compare_exchange(self, seen, new, order, Ordering::Relaxed).is_ok()
            }

            #[inline(always)]
            fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
                <$word>::fetch_or(self, bits, order)
            }

            #[inline(always)]
            fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
                <$word>::fetch_and(self, bits, order)
            }

            #[inline(always)]
            fn fence(order: Ordering) {
                $fence(order);
            }
        }
    };
}

word!(AtomicU64, std::sync::atomic::fence);
#[cfg(all(loom, test))]
word!(loom::sync::atomic::AtomicU64, loom::sync::atomic::fence);
