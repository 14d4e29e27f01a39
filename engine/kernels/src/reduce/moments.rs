//! Variances whose bits do not depend on the split of their rows, in one pass over memory.
//!
//! Of each block of 256 rows (by global row index) the sums of the deviations from a pivot and of
//! their squares are taken. The pivot is the mean of the block's first 32 rows, if enough of these
//! count, else the mean of the block. So one pass does: m values whose mean is apart from that of all
//! n by d have squares of at least m d^2 about the latter, hence the squares about the pivot are at
//! most 1 + n / m times those about the mean: with a sixteenth of all, no more than four bits can be
//! lost to cancellation. (If the squares so become too large for the type, the mean of the block
//! is taken after all.)
//!
//! Blocks are joined by the formula of Chan, Golub and LeVeque (Updating formulae and a pairwise
//! algorithm for computing sample variances, 1979) in the tree of `tree`. The mean of a part is held
//! as a rounded one (the pivot) and the sum of the deviations from it, which is small: so the distance
//! of two means is known to far more digits than either mean has, and the result is as good as that of
//! two passes over the whole column, however far from zero the values are.

#[cfg(target_arch = "x86_64")]
use crate::level::V3;
use crate::level::{Level, leveled};
use crate::prim::Prim;
#[cfg(target_arch = "x86_64")]
use crate::reduce::four::each_four;
use crate::reduce::sum::{BLOCK, Plus, Wide, block_body as block_sum, fold, load_block};
use crate::reduce::tree::{Joined, Tree};
use crate::tile::mem::load;

/// Number, mean and squared deviations of some values.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    n: u64,
    /// Near the mean.
    pivot: f64,
    /// The sum of the deviations from the pivot.
    sum: f64,
    /// The sum of their squares.
    squares: f64,
}

impl Moments {
    /// Those of no values.
    pub const EMPTY: Moments = Moments { n: 0, pivot: 0.0, sum: 0.0, squares: 0.0 };

    /// Adds one value. Whenever the number of values has doubled, the pivot is moved to their mean:
    /// then the squares about it are at most twice those about the mean, so that no more than a bit
    /// is lost to cancellation, whatever came first.
    #[inline(always)]
    pub(crate) fn push(&mut self, x: f64) {
        if self.n & self.n.wrapping_sub(1) == 0 {
            if self.n == 0 {
                self.pivot = x;
            } else {
                *self = self.pivoted(self.n, self.sum / self.n as f64, self.about_mean());
            }
        }
        let d = x - self.pivot;
        self.n += 1;
        self.sum += d;
        self.squares += d * d;
    }

    /// The same pivot moved by `shift`, to the mean: `n` values with those squares about it.
    #[inline(always)]
    fn pivoted(self, n: u64, shift: f64, squares: f64) -> Moments {
        let pivot = self.pivot + shift;
        // What rounding the pivot lost.
        let rest = shift - (pivot - self.pivot);
        let sum = rest * n as f64;
        Moments { n, pivot, sum, squares: squares + rest * sum }
    }

    /// The sum of the squared deviations from the mean.
    #[inline(always)]
    fn about_mean(&self) -> f64 {
        let squares = self.squares - self.sum * (self.sum / self.n as f64);
        // Rounding must not make it negative; NaN stays.
        if squares < 0.0 { 0.0 } else { squares }
    }

    /// Those of both sets of values.
    pub fn join(self, other: Moments) -> Moments {
        if self.n == 0 {
            return other;
        }
        if other.n == 0 {
            return self;
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let (mine, theirs) = (self.sum / a, other.sum / b);
        let apart = (other.pivot - self.pivot) + (theirs - mine);
        let share = b / (a + b);
        let squares = self.about_mean() + other.about_mean() + apart * apart * (a * share);
        self.pivoted(self.n + other.n, mine + apart * share, squares)
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// The variance: the sum of the squared deviations from the mean by `n - ddof`. None of `ddof`
    /// values or fewer. Always the same NaN.
    pub fn variance(&self, ddof: u64) -> Option<f64> {
        let freedom = self.n.checked_sub(ddof).filter(|n| *n > 0)?;
        let variance = self.about_mean() / freedom as f64;
        Some(if variance.is_nan() { f64::NAN } else { variance })
    }
}

impl Joined for Moments {
    const ABSENT: Moments = Moments::EMPTY;
    fn join(self, right: Moments) -> Moments {
        Moments::join(self, right)
    }
}

/// Lanes of the deviations of a block: two sums of as many fill half the registers of v3.
const LANES: usize = 16;

/// The rows of a block whose mean serves for that of all.
const HEAD: usize = 32;
/// What part of the rows that count these must be, at least: one of so many. Half of an even share, so
/// that nulls here and there do not send half of all blocks the longer way.
const FEWEST: u32 = 16;

type BlockFn = unsafe fn(values: *const u8, mask: &[u64; 4]) -> Moments;

/// The moments of f64 or f32 values (taken as f64), or part of them. To be added to and merged as
/// [`super::FoldF64`] is.
#[derive(Clone, Debug)]
pub struct MomentsF64 {
    tree: Tree<Moments>,
    /// The block that has begun and has not ended: its rows, and which of them count.
    open: Option<u64>,
    rows: [u64; BLOCK],
    mask: [u64; 4],
    width: usize,
    block_fn: BlockFn,
}

impl MomentsF64 {
    /// Those of no rows yet. `None` if `p` is not a float type.
    pub fn new(p: Prim, level: Level) -> Option<MomentsF64> {
        let block_fn: BlockFn = match p {
            Prim::F64 => block_of::<f64>(level),
            Prim::F32 => block_of::<f32>(level),
            _ => return None,
        };
        let (tree, rows, mask) = (Tree::new(), [0; BLOCK], [0; 4]);
        Some(MomentsF64 { tree, open: None, rows, mask, width: p.width(), block_fn })
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
                self.tree.add(block, unsafe { (self.block_fn)(at, &words) });
            } else {
                if self.open != Some(block) {
                    self.close();
                    self.open = Some(block);
                }
                // SAFETY: n values, which from `inside` on lie in the block; its rows have room
                // for values of eight bytes.
                unsafe {
                    let to = self.rows.as_mut_ptr().cast::<u8>().add(inside * self.width);
                    crate::bytes::copy(to, at, n * self.width);
                }
                for i in 0..n {
                    let (to, bit) = (inside + i, words[i / 64] >> (i % 64) & 1);
                    self.mask[to / 64] |= bit << (to % 64);
                }
                if inside + n == BLOCK {
                    self.close();
                }
            }
            done += n;
        }
    }

    /// Adds another part of the same.
    pub fn merge(&mut self, mut other: MomentsF64) {
        self.close();
        other.close();
        self.tree.merge(other.tree);
    }

    /// The moments of all rows.
    pub fn finish(&mut self) -> Moments {
        self.close();
        self.tree.value()
    }

    /// Ends the open block.
    fn close(&mut self) {
        if let Some(block) = self.open.take() {
            let mask = std::mem::take(&mut self.mask);
            // SAFETY: the rows of a whole block; those that were not added are not in the mask.
            let value = unsafe { (self.block_fn)(self.rows.as_ptr().cast(), &mask) };
            self.tree.add(block, value);
        }
    }
}

leveled! {
    fn block_of<T: Wide>(values: *const u8, mask: &[u64; 4]) -> Moments = block_body
}

#[inline(always)]
unsafe fn block_body<T: Wide, const L: u8>(values: *const u8, mask: &[u64; 4]) -> Moments {
    let n: u32 = mask.iter().map(|word| word.count_ones()).sum();
    if n == 0 {
        return Moments::EMPTY;
    }
    let head = mask[0] as u32;
    let mut whole = head.count_ones() * FEWEST < n;
    loop {
        let mut pivot = if whole {
            // SAFETY: BLOCK values.
            unsafe { block_sum::<T, Plus, L>(values, mask) / f64::from(n) }
        } else {
            // SAFETY: HEAD of BLOCK values.
            unsafe { head_sum::<T>(values, head) / f64::from(head.count_ones()) }
        };
        if !pivot.is_finite() {
            // SAFETY: as above.
            pivot = unsafe { shares::<T>(values, mask, f64::from(n)) };
        }
        // SAFETY: as above.
        let (sum, squares) = unsafe { deviations::<T, L>(values, mask, pivot) };
        // Squares that are too large about the one mean need not be about the other.
        if whole || squares != f64::INFINITY {
            return Moments { n: u64::from(n), pivot, sum, squares };
        }
        whole = true;
    }
}

/// The sum of those of the first rows of a block that count.
///
/// # Safety
/// `p` is readable for HEAD values.
#[inline(always)]
unsafe fn head_sum<T: Wide>(p: *const u8, rows: u32) -> f64 {
    let mut lanes = [0.0; HEAD];
    for (j, lane) in lanes.iter_mut().enumerate() {
        // SAFETY: j < HEAD.
        let x = unsafe { load::<T>(p, j) }.wide();
        *lane = if rows >> j & 1 != 0 { x } else { 0.0 };
    }
    fold::<Plus, HEAD>(&mut lanes)
}

/// The sums of the deviations from the pivot of the rows that count, and of their squares. Row r
/// goes to lane r mod 16; of a row that does not count the deviation is zero.
///
/// # Safety
/// `p` is readable for BLOCK values; the CPU has what level L needs.
#[inline(always)]
unsafe fn deviations<T: Wide, const L: u8>(
    p: *const u8,
    mask: &[u64; 4],
    pivot: f64,
) -> (f64, f64) {
    #[cfg(target_arch = "x86_64")]
    if L >= V3 {
        // SAFETY: by contract; V3 has AVX2.
        return unsafe { deviations_v3::<T>(p, mask, pivot) };
    }
    let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
    if mask[0] & mask[1] & mask[2] & mask[3] == !0 {
        for k in 0..BLOCK / LANES {
            for (j, (sum, square)) in sums.iter_mut().zip(&mut squares).enumerate() {
                // SAFETY: k * LANES + j < BLOCK.
                let d = unsafe { load::<T>(p, k * LANES + j) }.wide() - pivot;
                *sum += d;
                *square += d * d;
            }
        }
    } else {
        for k in 0..BLOCK / LANES {
            let rows = mask[k * LANES / 64] >> (k * LANES % 64);
            for (j, (sum, square)) in sums.iter_mut().zip(&mut squares).enumerate() {
                // SAFETY: k * LANES + j < BLOCK.
                let x = unsafe { load::<T>(p, k * LANES + j) }.wide();
                let d = if rows >> j & 1 != 0 { x - pivot } else { 0.0 };
                *sum += d;
                *square += d * d;
            }
        }
    }
    (fold::<Plus, LANES>(&mut sums), fold::<Plus, LANES>(&mut squares))
}

/// [`deviations`] four rows at a time, in the same lanes; also where all rows count, of which LLVM
/// makes slower code.
///
/// # Safety
/// As there; the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn deviations_v3<T: Wide>(p: *const u8, mask: &[u64; 4], pivot: f64) -> (f64, f64) {
    use std::arch::x86_64::*;
    // SAFETY: by contract. The lanes are four vectors of four.
    unsafe {
        let (zero, pivot) = (_mm256_setzero_pd(), _mm256_set1_pd(pivot));
        let (mut sums, mut squares) = ([zero; LANES / 4], [zero; LANES / 4]);
        each_four::<T>(p, mask, |row, x, counts| {
            let v = row / 4 % (LANES / 4);
            let d = _mm256_blendv_pd(zero, _mm256_sub_pd(x, pivot), counts);
            sums[v] = _mm256_add_pd(sums[v], d);
            squares[v] = _mm256_add_pd(squares[v], _mm256_mul_pd(d, d));
        });
        let folded = |vectors: [__m256d; LANES / 4]| {
            let mut lanes = [0.0; LANES];
            for (v, four) in vectors.iter().enumerate() {
                _mm256_storeu_pd(lanes.as_mut_ptr().add(4 * v), *four);
            }
            fold::<Plus, LANES>(&mut lanes)
        };
        (folded(sums), folded(squares))
    }
}

/// The mean of values whose sum is beyond the type, or of which some are not finite.
///
/// # Safety
/// `p` is readable for BLOCK values.
#[inline(never)]
unsafe fn shares<T: Wide>(p: *const u8, mask: &[u64; 4], n: f64) -> f64 {
    let rows = (0..BLOCK).filter(|i| mask[i / 64] >> (i % 64) & 1 != 0);
    // SAFETY: i < BLOCK.
    rows.map(|i| unsafe { load::<T>(p, i) }.wide() / n).sum()
}
