//! Reductions of whole columns: float sums, products and variances that do not depend on how rows
//! were split, exact integer sums and products, extremes.
//!
//! Every function takes a bitmap of the rows that count (selected and valid; null: all) with bit 0
//! for its first row.

use crate::level::{Level, leveled};
use crate::prim::{Native, Prim, with_int, with_prim};
use crate::tile::mem::{load, load_bits};
use crate::tile::select::blend;
use std::mem::MaybeUninit;

mod find;
mod moments;
mod product;
mod rank;
mod sum;
mod tree;
pub use find::{first_bit, last_bit, position, raw_bits};
pub use moments::{Moments, MomentsF64};
pub use product::{ProductInt, ProductIntFn, product_int};
pub(crate) use rank::ordered;
pub use rank::{
    DIGIT_BITS, Interpolation, Prefix, Quantile, count_digits, gather_ordered, ordered_bits,
    ordered_to_f64,
};
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

/// The least and greatest of some values, as [`Native::to_bits64`]. NaN takes no part; a zero is
/// +0.0 whatever its sign was, so that the bits do not depend on the order of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extremes {
    /// Was there a value (other than NaN)? If not, the rest means nothing.
    pub some: bool,
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
}

impl Extremes {
    /// The extremes of both sets of values of type `p`. In any order.
    pub fn merge(self, other: Extremes, p: Prim) -> Extremes {
        if !self.some {
            return other;
        }
        if !other.some {
            return self;
        }
        with_prim!(p, T => {
            let least = T::from_bits64(other.min) < T::from_bits64(self.min);
            let greatest = T::from_bits64(other.max) > T::from_bits64(self.max);
            Extremes {
                some: true,
                min: if least { other.min } else { self.min },
                max: if greatest { other.max } else { self.max },
            }
        })
    }
}

/// `(values, mask, rows) -> extremes`. `rows` is not bounded by the tile size.
///
/// # Safety (of the call)
/// As for [`SumIntFn`].
pub type ExtremesFn = unsafe fn(values: *const u8, mask: *const u8, rows: usize) -> Extremes;

/// Least and greatest value of a type, in one pass.
pub fn extremes(p: Prim, level: Level) -> ExtremesFn {
    with_prim!(p, T => extremes_of::<T>(level))
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

leveled! {
    fn extremes_of<T: Native>(values: *const u8, mask: *const u8, rows: usize) -> Extremes =
        extremes_body
}

#[inline(always)]
unsafe fn extremes_body<T: Native, const L: u8>(
    values: *const u8,
    mask: *const u8,
    rows: usize,
) -> Extremes {
    let mut running = Running::<T>::new();
    // Filled before it is read, as far as it is read.
    let mut scratch = MaybeUninit::<[T; PIECE]>::uninit();
    let blend = blend::<T>(Level::of(L));
    let step = if mask.is_null() { rows } else { PIECE };
    let mut done = 0;
    while done < rows {
        let n = (rows - done).min(step);
        // SAFETY: rows done to done + n are within column and mask; `done` is a multiple of 64.
        unsafe {
            let mut v = values.add(done * size_of::<T>());
            done += n;
            if !mask.is_null() {
                let m = mask.add((done - n) / 8);
                let Some(first) = first_set(m, n) else { continue };
                // Rows that do not count repeat one that does.
                let other = [load::<T>(v, first); 64];
                blend(scratch.as_mut_ptr().cast(), v, address(&other), 0, m, n);
                v = scratch.as_ptr().cast();
            }
            running.add(v, n);
        }
    }
    running.finish()
}

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

/// Running extremes, in as many lanes as fill 128 bytes: a comparison of floats cannot be
/// reassociated by the compiler, but a flat loop over lanes needs no reassociation. All lanes of
/// least, greatest and NaN stay in registers, and memory is read once and in its order, so that the
/// processor's prefetching runs ahead (a Zen 3 reads 800 MB of float64 on two threads in 34 ms as
/// it does for an exclusive or; over 2 KiB at a time, lane by lane, in 50).
pub(crate) struct Running<T> {
    // LANES of each are in use, and initialised.
    min: MaybeUninit<[T; 128]>,
    max: MaybeUninit<[T; 128]>,
    /// The last NaN of each lane, or zero.
    odd: MaybeUninit<[T; 128]>,
}

impl<T: Native> Running<T> {
    /// Integers of 64 bits have no least and greatest in AVX2: with 16 lanes the compiler unrolls
    /// the loop over them and makes scalars of it (five times as long), with 32 it does not.
    const LANES: usize =
        if size_of::<T>() == 8 && !T::PRIM.is_float() { 256 } else { 128 } / size_of::<T>();

    #[inline(always)]
    pub(crate) fn new() -> Self {
        let mut running = Running {
            min: MaybeUninit::uninit(),
            max: MaybeUninit::uninit(),
            odd: MaybeUninit::uninit(),
        };
        let Running { min, max, odd } = &mut running;
        for (lanes, x) in [(min, T::GREATEST), (max, T::LEAST), (odd, T::ZERO)] {
            for j in 0..Self::LANES {
                // SAFETY: j < LANES <= 128.
                unsafe { lanes.as_mut_ptr().cast::<T>().add(j).write(x) };
            }
        }
        running
    }

    /// The lanes.
    #[inline(always)]
    fn lanes(&mut self) -> [&mut [T]; 3] {
        let Running { min, max, odd } = self;
        [min, max, odd].map(|lanes| {
            // SAFETY: LANES values of each were initialised by `new`, which alone makes one.
            unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), Self::LANES) }
        })
    }

    /// # Safety
    /// `p` is readable for `rows` values.
    #[inline(always)]
    pub(crate) unsafe fn add(&mut self, p: *const u8, rows: usize) {
        let [min, max, odd] = self.lanes();
        let mut look = |j: usize, x: T| {
            // NaN compares as neither, and is passed over.
            min[j] = if x < min[j] { x } else { min[j] };
            max[j] = if x > max[j] { x } else { max[j] };
            if T::PRIM.is_float() {
                odd[j] = if x.is_nan() { x } else { odd[j] };
            }
        };
        let steps = rows / Self::LANES;
        for s in 0..steps {
            for j in 0..Self::LANES {
                // SAFETY: step s is within the rows.
                look(j, unsafe { load::<T>(p, s * Self::LANES + j) });
            }
        }
        for (j, i) in (steps * Self::LANES..rows).enumerate() {
            // SAFETY: i < rows.
            look(j, unsafe { load::<T>(p, i) });
        }
    }

    /// Has there been a NaN?
    #[inline(always)]
    pub(crate) fn nan(&mut self) -> bool {
        let [_, _, odd] = self.lanes();
        T::PRIM.is_float() && odd.iter().any(|x| x.is_nan())
    }

    #[inline(always)]
    pub(crate) fn finish(&mut self) -> Extremes {
        let (mut least, mut greatest) = (T::GREATEST, T::LEAST);
        let [min, max, _] = self.lanes();
        for (min, max) in min.iter().zip(max) {
            least = if *min < least { *min } else { least };
            greatest = if *max > greatest { *max } else { greatest };
        }
        // If there was no value the ends are still crossed.
        Extremes {
            some: least <= greatest,
            min: positive_zero(least).to_bits64(),
            max: positive_zero(greatest).to_bits64(),
        }
    }
}

#[inline(always)]
fn positive_zero<T: Native>(x: T) -> T {
    if x == T::ZERO { T::ZERO } else { x }
}

#[cfg(test)]
mod tests;
