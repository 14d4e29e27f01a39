//! Least and greatest values of a column, in one pass over memory. NaN takes no part.

#[cfg(target_arch = "x86_64")]
use crate::level::V3;
use crate::level::{Level, leveled};
use crate::prim::{Native, Prim, with_prim};
#[cfg(target_arch = "x86_64")]
use crate::reduce::four::each_four;
#[cfg(target_arch = "x86_64")]
use crate::reduce::sum::{BLOCK, Wide, load_block};
use crate::reduce::{PIECE, address, first_set};
use crate::tile::mem::load;
use crate::tile::select::blend;
use std::mem::MaybeUninit;

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
/// As for [`SumIntFn`](super::SumIntFn).
pub type ExtremesFn = unsafe fn(values: *const u8, mask: *const u8, rows: usize) -> Extremes;

/// Least and greatest value of a type, in one pass.
pub fn extremes(p: Prim, level: Level) -> ExtremesFn {
    with_prim!(p, T => extremes_of::<T>(level))
}

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
    #[cfg(target_arch = "x86_64")]
    if L >= V3 && !mask.is_null() {
        match T::PRIM {
            // SAFETY: by contract; V3 and V4 bodies run only where the CPU has AVX2.
            Prim::F32 => return unsafe { masked_v3::<f32>(values, mask, rows) },
            // SAFETY: as above.
            Prim::F64 => return unsafe { masked_v3::<f64>(values, mask, rows) },
            _ => {}
        }
    }
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

/// The extremes of the rows whose bits are set, straight from memory. Rows that do not count are
/// taken as NaN, which both comparisons pass over.
///
/// # Safety
/// As [`SumIntFn`](super::SumIntFn); the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn masked_v3<T: Wide>(values: *const u8, mask: *const u8, rows: usize) -> Extremes {
    use std::arch::x86_64::*;
    // As many chains of comparisons as hide how long each takes.
    const CHAINS: usize = 4;
    // SAFETY: by contract. The rows of a block that is not full are copied to where there is a whole
    // one; the bits of others are clear.
    let (least, greatest) = unsafe {
        let odd = _mm256_set1_pd(f64::NAN);
        let mut least = [_mm256_set1_pd(f64::INFINITY); CHAINS];
        let mut greatest = [_mm256_set1_pd(f64::NEG_INFINITY); CHAINS];
        let mut last = [T::ZERO; BLOCK];
        for at in (0..rows).step_by(BLOCK) {
            let n = (rows - at).min(BLOCK);
            let mut block = values.add(at * size_of::<T>());
            if n < BLOCK {
                let to = last.as_mut_ptr().cast::<u8>();
                crate::bytes::copy(to, block, n * size_of::<T>());
                block = to;
            }
            each_four::<T>(block, &load_block(mask, at, n), |row, x, counts| {
                let (x, chain) = (_mm256_blendv_pd(odd, x, counts), row / 4 % CHAINS);
                // Of two numbers of which one is NaN these give the second.
                least[chain] = _mm256_min_pd(x, least[chain]);
                greatest[chain] = _mm256_max_pd(x, greatest[chain]);
            });
        }
        let mut ends = (f64::INFINITY, f64::NEG_INFINITY);
        for (least, greatest) in least.into_iter().zip(greatest) {
            let (mut low, mut high) = ([0.0; 4], [0.0; 4]);
            _mm256_storeu_pd(low.as_mut_ptr(), least);
            _mm256_storeu_pd(high.as_mut_ptr(), greatest);
            for (low, high) in low.into_iter().zip(high) {
                ends.0 = if low < ends.0 { low } else { ends.0 };
                ends.1 = if high > ends.1 { high } else { ends.1 };
            }
        }
        ends
    };
    // If there was no value the ends are still crossed.
    Extremes {
        some: least <= greatest,
        min: positive_zero(least).to_bits64(),
        max: positive_zero(greatest).to_bits64(),
    }
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
