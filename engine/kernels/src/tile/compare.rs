//! Comparisons, and the way from any test of rows to a bitmap.

use super::mem::{load, pack, store_word};
use super::{Kernel, TileFn, tile_fn};
use crate::level::Level;
use crate::prim::{Native, Prim, with_prim};
use std::marker::PhantomData;

/// A comparison. IEEE for floats: with NaN all but [`Compare::Ne`] are false.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Compare {
    /// left == right
    Eq,
    /// left != right
    Ne,
    /// left < right
    Lt,
    /// left <= right
    Le,
    /// left > right
    Gt,
    /// left >= right
    Ge,
}

impl Compare {
    /// Every comparison.
    pub const ALL: [Compare; 6] =
        [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];

    /// The comparison that gives the same answer with its operands swapped.
    pub const fn flip(self) -> Compare {
        match self {
            Compare::Eq => Compare::Eq,
            Compare::Ne => Compare::Ne,
            Compare::Lt => Compare::Gt,
            Compare::Le => Compare::Ge,
            Compare::Gt => Compare::Lt,
            Compare::Ge => Compare::Le,
        }
    }
}

/// The kernel that writes the bitmap of `left op right`.
pub fn compare(op: Compare, p: Prim, level: Level) -> TileFn {
    match op {
        Compare::Eq => with_prim!(p, T => bitmap_fn::<Holds<Eq, T>>(level)),
        Compare::Ne => with_prim!(p, T => bitmap_fn::<Holds<Ne, T>>(level)),
        Compare::Lt => with_prim!(p, T => bitmap_fn::<Holds<Lt, T>>(level)),
        Compare::Le => with_prim!(p, T => bitmap_fn::<Holds<Le, T>>(level)),
        Compare::Gt => with_prim!(p, T => bitmap_fn::<Holds<Gt, T>>(level)),
        Compare::Ge => with_prim!(p, T => bitmap_fn::<Holds<Ge, T>>(level)),
    }
}

/// A yes-or-no question about row `i` of the operands.
pub(super) trait Test {
    /// # Safety
    /// The operands that the test reads have more than `i` values.
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool;
}

/// The kernel that writes the bitmap of a test's answers.
pub(super) fn bitmap_fn<P: Test>(level: Level) -> TileFn {
    tile_fn::<ToBitmap<P>>(level)
}

struct ToBitmap<P>(PhantomData<P>);

impl<P: Test> Kernel for ToBitmap<P> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let src = *src;
        let full = rows / 64;
        for w in 0..full {
            let mut bytes = [0u8; 64];
            for (j, b) in bytes.iter_mut().enumerate() {
                // SAFETY: 64 * w + j < 64 * full <= rows.
                *b = u8::from(unsafe { P::test(&src, 64 * w + j) });
            }
            // SAFETY: the destination has ceil(rows / 64) words.
            unsafe { store_word(dst, w, pack::<L>(&bytes)) }
        }
        if !rows.is_multiple_of(64) {
            let mut word = 0u64;
            for j in 0..rows % 64 {
                // SAFETY: 64 * full + j < rows.
                word |= u64::from(unsafe { P::test(&src, 64 * full + j) }) << j;
            }
            // SAFETY: the destination has ceil(rows / 64) words.
            unsafe { store_word(dst, full, word) }
        }
    }
}

trait Relation {
    fn holds<T: Native>(a: T, b: T) -> bool;
}

struct Holds<R, T>(PhantomData<(R, T)>);

impl<R: Relation, T: Native> Test for Holds<R, T> {
    #[inline(always)]
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool {
        // SAFETY: i < rows.
        unsafe { R::holds::<T>(load(src[0], i), load(src[1], i)) }
    }
}

macro_rules! relation {
    ($($name:ident $op:tt),*) => {$(
        struct $name;
        impl Relation for $name {
            #[inline(always)]
            fn holds<T: Native>(a: T, b: T) -> bool { a $op b }
        }
    )*};
}
relation!(Eq ==, Ne !=, Lt <, Le <=, Gt >, Ge >=);
