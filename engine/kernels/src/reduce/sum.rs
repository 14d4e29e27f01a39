//! Float sums and products whose bits do not depend on the split of their rows.
//!
//! Rows are added in blocks of 256 by *global* row index. Inside a block, row r goes to lane
//! r mod 32, and each lane adds its up to eight values in order; the 32 lanes are folded in halves
//! (0 with 16, 1 with 17, ...; then 0 with 8; ...). Over the blocks stands the tree of `tree`. So
//! the order of additions is a function of row indices alone, whatever the morsels, the threads or
//! the chunks; and short blocks keep the error that of pairwise summation.
//!
//! Rows that do not count are skipped. -0.0 is the neutral element of IEEE addition (x + -0.0 is x
//! for every x, -0.0 included), so adding -0.0 *is* skipping, bit for bit: absent rows and absent
//! blocks count as -0.0. Products go the same way, with 1.0 as the neutral element.

use crate::level::{Level, V3, V4, leveled};
use crate::prim::{Native, Prim};
#[cfg(target_arch = "x86_64")]
use crate::reduce::four::each_four;
use crate::reduce::tree::{Joined, Tree};
use crate::tile::mem::{load, load_run};
use crate::tile::select::blend;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Rows per block.
pub const BLOCK: usize = 256;
/// Lanes per block.
pub const LANES: usize = 32;

type BlockFn = unsafe fn(values: *const u8, mask: &[u64; 4]) -> f64;
type PartFn = unsafe fn(
    lanes: &mut [f64; LANES],
    row: usize,
    values: *const u8,
    mask: &[u64; 4],
    rows: usize,
);

/// The sum of f64 or f32 values (these accumulate in f64), or part of one.
pub type SumF64 = FoldF64<Plus>;

/// The product of f64 or f32 values (these accumulate in f64), or part of one.
pub type ProductF64 = FoldF64<Times>;

/// An operation that values are folded by.
pub trait Operation: sealed::Sealed + Copy + Send + Sync + std::fmt::Debug + 'static {
    /// The neutral element: folding it in changes no bit.
    const NEUTRAL: f64;
    /// Both.
    fn of(a: f64, b: f64) -> f64;
    /// The result as it is given out: NaN always the same NaN.
    fn settled(x: f64) -> f64;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Plus {}
    impl Sealed for super::Times {}
}

/// Addition.
#[derive(Clone, Copy, Debug)]
pub struct Plus;

impl Operation for Plus {
    const NEUTRAL: f64 = -0.0;
    #[inline(always)]
    fn of(a: f64, b: f64) -> f64 {
        a + b
    }
    fn settled(x: f64) -> f64 {
        // Zero always +0.0, that of no rows too.
        if x.is_nan() { f64::NAN } else { x + 0.0 }
    }
}

/// Multiplication.
#[derive(Clone, Copy, Debug)]
pub struct Times;

impl Operation for Times {
    const NEUTRAL: f64 = 1.0;
    #[inline(always)]
    fn of(a: f64, b: f64) -> f64 {
        a * b
    }
    fn settled(x: f64) -> f64 {
        if x.is_nan() { f64::NAN } else { x }
    }
}

/// A block's value.
#[derive(Clone, Copy, Debug)]
struct Value<O>(f64, PhantomData<O>);

impl<O: Operation> Joined for Value<O> {
    const ABSENT: Self = Value(O::NEUTRAL, PhantomData);
    fn join(self, right: Self) -> Self {
        Value(O::of(self.0, right.0), PhantomData)
    }
}

/// A sum or product of f64 or f32 values (these accumulate in f64), or part of one.
///
/// Parts of a column may be added to several accumulators in any pattern of whole blocks, and
/// merged in any order: the bits are those of one accumulator. Rows of *one* block must go to one
/// accumulator, in ascending order (a block may be split over two chunks of a column, never over
/// two threads).
#[derive(Clone, Debug)]
pub struct FoldF64<O> {
    tree: Tree<Value<O>>,
    /// The block that has begun and has not ended.
    open: Option<u64>,
    lanes: [f64; LANES],
    width: usize,
    block_fn: BlockFn,
    part_fn: PartFn,
}

impl<O: Operation> FoldF64<O> {
    /// That of no rows yet. `None` if `p` is not a float type.
    pub fn new(p: Prim, level: Level) -> Option<Self> {
        let (block_fn, part_fn): (BlockFn, PartFn) = match p {
            Prim::F64 => (block_of::<f64, O>(level), part_of::<f64, O>(level)),
            Prim::F32 => (block_of::<f32, O>(level), part_of::<f32, O>(level)),
            _ => return None,
        };
        let (tree, lanes) = (Tree::new(), [O::NEUTRAL; LANES]);
        Some(FoldF64 { tree, open: None, lanes, width: p.width(), block_fn, part_fn })
    }

    /// Adds `rows` rows whose first has the global index `row`. Rows whose bit in `mask` (null:
    /// none) is clear are skipped. Any number of rows, from any row on; ascending within a block.
    ///
    /// # Safety
    /// `values` is readable for `rows` values of the type, `mask` is null or readable for
    /// `ceil(rows / 8)` bytes.
    pub unsafe fn add(&mut self, row: u64, values: *const u8, mask: *const u8, rows: usize) {
        let mut done = 0;
        while done < rows {
            let at = row.wrapping_add(done as u64);
            let (block, inside) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let n = (BLOCK - inside).min(rows - done);
            let words = if mask.is_null() {
                [!0; 4]
            } else {
                // SAFETY: bits done to done + n are within the mask.
                unsafe { load_block(mask, done, n) }
            };
            // SAFETY: rows done to done + n are within the values.
            let at = unsafe { values.add(done * self.width) };
            if n == BLOCK {
                self.close();
                // SAFETY: BLOCK values.
                let value = unsafe { (self.block_fn)(at, &words) };
                self.tree.add(block, Value(value, PhantomData));
            } else {
                if self.open != Some(block) {
                    self.close();
                    self.open = Some(block);
                }
                // SAFETY: n values.
                unsafe { (self.part_fn)(&mut self.lanes, inside, at, &words, n) };
                if inside + n == BLOCK {
                    self.close();
                }
            }
            done += n;
        }
    }

    /// Adds another part of the same.
    pub fn merge(&mut self, mut other: Self) {
        self.close();
        other.close();
        self.tree.merge(other.tree);
    }

    /// The result: of no rows 0.0 or 1.0, NaN always the same NaN, a sum of zero always +0.0.
    pub fn finish(&mut self) -> f64 {
        self.close();
        O::settled(self.tree.value().0)
    }

    /// Ends the open block.
    fn close(&mut self) {
        if let Some(block) = self.open.take() {
            let value = fold::<O, LANES>(&mut self.lanes);
            self.lanes = [O::NEUTRAL; LANES];
            self.tree.add(block, Value(value, PhantomData));
        }
    }
}

/// Up to 256 bits of a bitmap from bit `at` on, the rest clear.
///
/// # Safety
/// `mask` is readable for `at + rows` bits.
#[inline]
pub(super) unsafe fn load_block(mask: *const u8, at: usize, rows: usize) -> [u64; 4] {
    let mut words = [0u64; 4];
    for (w, word) in words.iter_mut().enumerate() {
        if 64 * w >= rows {
            break;
        }
        let n = (rows - 64 * w).min(64);
        let from = at + 64 * w;
        // SAFETY: bits `from` to `from` + n are within the mask.
        *word = unsafe { load_run(mask.add(from / 8), from % 8, n) };
    }
    words
}

/// Folds the lanes in halves.
#[inline(always)]
pub(super) fn fold<O: Operation, const N: usize>(lanes: &mut [f64; N]) -> f64 {
    let mut half = N / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] = O::of(lanes[j], lanes[j + half]);
        }
        half /= 2;
    }
    lanes[0]
}

leveled! {
    fn block_of<T: Wide, O: Operation>(values: *const u8, mask: &[u64; 4]) -> f64 = block_body
}

#[inline(always)]
pub(super) unsafe fn block_body<T: Wide, O: Operation, const L: u8>(
    values: *const u8,
    mask: &[u64; 4],
) -> f64 {
    if mask[0] & mask[1] & mask[2] & mask[3] == !0 {
        // SAFETY: BLOCK values.
        return unsafe { dense::<T, O>(values) };
    }
    if mask[0] | mask[1] | mask[2] | mask[3] == 0 {
        return O::NEUTRAL;
    }
    #[cfg(target_arch = "x86_64")]
    if L == V4 && O::NEUTRAL == 0.0 {
        // SAFETY: BLOCK values; V4 bodies run only where the CPU has AVX-512.
        return unsafe { T::masked_v4(values, mask) };
    }
    #[cfg(target_arch = "x86_64")]
    if L == V3 && O::NEUTRAL == 0.0 {
        // SAFETY: BLOCK values; V3 bodies run only where the CPU has AVX2.
        return unsafe { masked_v3::<T>(values, mask) };
    }
    let mut scratch = MaybeUninit::<[T; BLOCK]>::uninit();
    let piece = scratch.as_mut_ptr().cast::<u8>();
    let mask = mask.map(u64::to_le);
    // SAFETY: BLOCK values in the block and the scratch, which the blend fills before it is read;
    // BLOCK bits in the mask.
    unsafe {
        let skips = [T::narrow(O::NEUTRAL); 64];
        let (skip, mask) = (skips.as_ptr().cast(), mask.as_ptr().cast());
        blend::<T>(Level::of(L))(piece, values, skip, 0, mask, BLOCK);
        dense::<T, O>(piece)
    }
}

/// # Safety
/// `p` is readable for BLOCK values.
#[inline(always)]
unsafe fn dense<T: Wide, O: Operation>(p: *const u8) -> f64 {
    // Row by row of lanes, so that memory is read in order: lane by lane, LLVM reads every other
    // line first and the rest after, which the prefetchers of the CPU do not follow.
    let mut lanes = [0.0; LANES];
    for (j, lane) in lanes.iter_mut().enumerate() {
        // SAFETY: j < LANES < BLOCK.
        *lane = unsafe { load::<T>(p, j) }.wide();
    }
    for k in 1..BLOCK / LANES {
        for (j, lane) in lanes.iter_mut().enumerate() {
            // SAFETY: k * LANES + j < BLOCK.
            *lane = O::of(*lane, unsafe { load::<T>(p, k * LANES + j) }.wide());
        }
    }
    fold::<O, LANES>(&mut lanes)
}

leveled! {
    fn part_of<T: Wide, O: Operation>(
        lanes: &mut [f64; LANES], row: usize, values: *const u8, mask: &[u64; 4], rows: usize,
    ) = part_body
}

/// Adds `rows` rows, the first at `row` of the block, to the lanes.
#[inline(always)]
unsafe fn part_body<T: Wide, O: Operation, const L: u8>(
    lanes: &mut [f64; LANES],
    row: usize,
    values: *const u8,
    mask: &[u64; 4],
    rows: usize,
) {
    // Into a block of its own, the rows that are not there or do not count as neutral.
    let skips = [T::narrow(O::NEUTRAL); 64];
    let mut block = [T::narrow(O::NEUTRAL); BLOCK];
    let (row, rows) = (row.min(BLOCK), rows.min(BLOCK - row.min(BLOCK)));
    let mask = mask.map(u64::to_le);
    // SAFETY: `rows` values, which from `row` on lie in the block; BLOCK bits in the mask.
    unsafe {
        let to = block.as_mut_ptr().add(row).cast::<u8>();
        let (skip, mask) = (skips.as_ptr().cast(), mask.as_ptr().cast());
        blend::<T>(Level::of(L))(to, values, skip, 0, mask, rows);
    }
    for eighth in block.chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(eighth) {
            *lane = O::of(*lane, x.wide());
        }
    }
}

/// The sum of the rows of a block whose bits are set.
///
/// # Safety
/// As [`each_four`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn masked_v3<T: Wide>(p: *const u8, mask: &[u64; 4]) -> f64 {
    use std::arch::x86_64::*;
    // SAFETY: the caller says that the CPU has AVX2 and that BLOCK values are readable. The lanes
    // are eight vectors of four.
    unsafe {
        let skip = _mm256_set1_pd(-0.0);
        let mut sums = [skip; LANES / 4];
        each_four::<T>(p, mask, |row, x, counts| {
            let sum = &mut sums[row / 4 % (LANES / 4)];
            *sum = _mm256_add_pd(*sum, _mm256_blendv_pd(skip, x, counts));
        });
        let mut lanes = [0.0; LANES];
        for (v, sum) in sums.iter().enumerate() {
            _mm256_storeu_pd(lanes.as_mut_ptr().add(4 * v), *sum);
        }
        fold::<Plus, LANES>(&mut lanes)
    }
}

/// A float type that accumulates as f64.
pub(crate) trait Wide: Native {
    fn wide(self) -> f64;
    /// The nearest value of the type.
    fn narrow(x: f64) -> Self;
    /// Four rows from `row` on, as f64.
    ///
    /// # Safety
    /// `p` is readable for `row + 4` values; the CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load4(p: *const u8, row: usize) -> std::arch::x86_64::__m256d;

    /// The sum of the rows of a block whose bits are set: masked additions straight from memory,
    /// where going through a blended copy costs as much as three comparisons.
    ///
    /// # Safety
    /// `p` is readable for BLOCK values; the CPU has AVX-512 F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn masked_v4(p: *const u8, mask: &[u64; 4]) -> f64;
}

/// Eight rows of f64, or eight of f32 as f64.
#[cfg(target_arch = "x86_64")]
macro_rules! masked_v4 {
    ($load:expr) => {
        #[inline(always)]
        unsafe fn masked_v4(p: *const u8, mask: &[u64; 4]) -> f64 {
            use std::arch::x86_64::*;
            // SAFETY: the caller says that the CPU has AVX-512 and that BLOCK values are readable:
            // row + 8 <= BLOCK. The lanes are four vectors of eight.
            unsafe {
                let mut sums = [_mm512_set1_pd(-0.0); LANES / 8];
                for k in 0..BLOCK / LANES {
                    let rows = (mask[k / 2] >> (32 * (k % 2))) as u32;
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let x = $load(p, k * LANES + 8 * v);
                        *sum = _mm512_mask_add_pd(*sum, (rows >> (8 * v)) as u8, *sum, x);
                    }
                }
                let mut lanes = [0.0; LANES];
                for (v, sum) in sums.iter().enumerate() {
                    _mm512_storeu_pd(lanes.as_mut_ptr().add(8 * v), *sum);
                }
                fold::<Plus, LANES>(&mut lanes)
            }
        }
    };
}
impl Wide for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(x: f64) -> f64 {
        x
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load4(p: *const u8, row: usize) -> std::arch::x86_64::__m256d {
        // SAFETY: by contract.
        unsafe { std::arch::x86_64::_mm256_loadu_pd(p.cast::<f64>().add(row)) }
    }
    #[cfg(target_arch = "x86_64")]
    masked_v4!(|p: *const u8, row: usize| _mm512_loadu_pd(p.cast::<f64>().add(row)));
}
impl Wide for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn narrow(x: f64) -> f32 {
        x as f32
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load4(p: *const u8, row: usize) -> std::arch::x86_64::__m256d {
        use std::arch::x86_64::*;
        // SAFETY: by contract.
        unsafe { _mm256_cvtps_pd(_mm_loadu_ps(p.cast::<f32>().add(row))) }
    }
    #[cfg(target_arch = "x86_64")]
    masked_v4!(|p: *const u8, row: usize| _mm512_cvtps_pd(_mm256_loadu_ps(
        p.cast::<f32>().add(row)
    )));
}
