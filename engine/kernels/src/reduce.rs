//! Reductions of whole columns: float sums, products and variances that do not depend on how rows
//! were split, exact integer sums and products, extremes.
//!
//! Every function takes a bitmap of the rows that count (selected and valid; null: all) with bit 0
//! for its first row.

use crate::level::{Level, leveled};
use crate::prim::{Native, Prim, with_int};
use crate::tile::mem::{load, load_bits};
use crate::tile::select::blend;
use std::mem::MaybeUninit;

mod extremes;
mod find;
#[cfg(target_arch = "x86_64")]
mod four;
mod moments;
mod product;
mod rank;
mod sum;
mod tree;
pub(crate) use extremes::Running;
pub use extremes::{Extremes, ExtremesFn, extremes};
pub use find::{first_bit, last_bit, position, raw_bits};
pub use moments::{Moments, MomentsF64};
pub use product::{ProductInt, ProductIntFn, product_int};
pub(crate) use rank::ordered;
pub use rank::{
    DIGIT_BITS, Interpolation, Prefix, Quantile, count_digits, gather_ordered, ordered_bits,
    ordered_to_f64,
};
pub(crate) use sum::Wide;
pub use sum::{BLOCK, FoldF64, LANES, Operation, Plus, ProductF64, SumF64, Times};

/// Rows that a masked reduction prepares at a time.
const PIECE: usize = 1024;

/// `(values, mask, rows) -> the exact sum`. `rows` is not bounded by the tile size. The total is
/// exact for every column that fits in memory; whether it fits the result's type is checked by the
/// caller, once.
///
/// # Safety (of the call)
/// `values` is readable for `rows` values, `mask` is null or readable for `ceil(rows / 8)` bytes.
pub type SumIntFn = unsafe fn(values: *const u8, mask: *const u8, rows: usize) -> i128;

/// The exact sum of an integer type. `None` for floats: see [`SumF64`].
pub fn sum_int(p: Prim, level: Level) -> Option<SumIntFn> {
    with_int!(p, T => sum_int_of::<T>(level))
}

leveled! {
    fn sum_int_of<T: SumInt>(values: *const u8, mask: *const u8, rows: usize) -> i128 = sum_int_body
}

#[inline(always)]
unsafe fn sum_int_body<T: SumInt, const L: u8>(
    values: *const u8,
    mask: *const u8,
    rows: usize,
) -> i128 {
    let mut total = 0i128;
    let mut done = 0;
    if mask.is_null() {
        while done < rows {
            let n = (rows - done).min(T::MOST);
            // SAFETY: rows done to done + n are within the column.
            total += unsafe { T::sum(values.add(done * size_of::<T>()), n) };
            done += n;
        }
        return total;
    }
    // Filled before it is read, as far as it is read.
    let mut scratch = MaybeUninit::<[T; PIECE]>::uninit();
    let piece = scratch.as_mut_ptr().cast::<u8>();
    let zeros = [T::ZERO; 64];
    let blend = blend::<T>(Level::of(L));
    while done < rows {
        let n = (rows - done).min(PIECE);
        // SAFETY: rows done to done + n are within column and mask; `done` is a multiple of 64;
        // the scratch has PIECE values.
        total += unsafe {
            let (v, m) = (values.add(done * size_of::<T>()), mask.add(done / 8));
            blend(piece, v, address(&zeros), 0, m, n);
            T::sum(piece, n)
        };
        done += n;
    }
    total
}

/// An integer type whose sum is exact.
trait SumInt: Native {
    /// Rows that one `sum` may take without overflow inside.
    const MOST: usize;
    /// # Safety
    /// `p` is readable for `rows` values; `rows` is at most MOST.
    unsafe fn sum(p: *const u8, rows: usize) -> i128;
}

macro_rules! sum_narrow {
    ($($t:ty => $wide:ty),*) => {$(
        impl SumInt for $t {
            const MOST: usize = 1 << 30;
            #[inline(always)]
            unsafe fn sum(p: *const u8, rows: usize) -> i128 {
                // 2^30 values below 2^32 stay below 2^62.
                let mut s: $wide = 0;
                for i in 0..rows {
                    // SAFETY: i < rows.
                    s = s.wrapping_add(<$wide>::from(unsafe { load::<$t>(p, i) }));
                }
                i128::from(s)
            }
        }
    )*};
}
sum_narrow!(i8 => i64, i16 => i64, i32 => i64, u8 => u64, u16 => u64, u32 => u64);

macro_rules! sum_wide {
    ($($t:ty, $bias:expr);*) => {$(
        impl SumInt for $t {
            const MOST: usize = 1 << 30;
            #[inline(always)]
            unsafe fn sum(p: *const u8, rows: usize) -> i128 {
                // Halves apart: 2^30 values below 2^32 stay below 2^62. Signed values are lifted
                // by 2^63 first, so that both halves are unsigned (AVX2 has no arithmetic shift of
                // 64 bits).
                let (mut low, mut high) = (0u64, 0u64);
                for i in 0..rows {
                    // SAFETY: i < rows.
                    let u = unsafe { load::<$t>(p, i) } as u64 ^ $bias;
                    low = low.wrapping_add(u & 0xffff_ffff);
                    high = high.wrapping_add(u >> 32);
                }
                let lifted = i128::from(low) + (i128::from(high) << 32);
                lifted - rows as i128 * i128::from($bias)
            }
        }
    )*};
}
sum_wide!(i64, 1u64 << 63; u64, 0u64);

/// The address of values as kernels take it.
#[inline(always)]
fn address<T>(values: &[T]) -> *const u8 {
    values.as_ptr().cast()
}

/// The first of `rows` bits that is set.
///
/// # Safety
/// `mask` is readable for `rows` bits.
#[inline(always)]
pub(crate) unsafe fn first_set(mask: *const u8, rows: usize) -> Option<usize> {
    for w in 0..rows.div_ceil(64) {
        // SAFETY: 64 * w < rows.
        let word = unsafe { load_bits(mask, w, rows) };
        if word != 0 {
            return Some(64 * w + word.trailing_zeros() as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests;
