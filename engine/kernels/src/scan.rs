//! Running values: for each row the sum, the product, the least or the greatest of all rows up to
//! it, or from the last row on.
//!
//! Rows that do not count (nulls) are passed over; what is written for them is the running value.
//!
//! **Float sums** go by blocks of 256 rows by *global* row index, and parts of whole blocks (the
//! engine's morsels, 65,536 rows). With `m` for the sum of the parts before, `q` for the sum of the
//! part's blocks before and `s` for the running sum inside the block, each added up in order from
//! 0.0, a row's value is `m + (q + s)`. So it depends on row indices alone, whatever the threads,
//! the tiles and the chunks. A part ends with the very value that the next one starts from, and so
//! does a block: where nothing negative is added, the values never fall. A value is the result of
//! at most 256 + 256 + n / 65,536 additions one upon the other, where `numpy.cumsum` has n. Float32
//! accumulates in f64. Four blocks are added up side by side: one addition has to wait for the one
//! before, four have not.
//!
//! **Float products** are multiplied strictly in order: split, a product of many factors could
//! leave the range of the type on its way though the running one does not.
//!
//! **Integers** are exact: the first row whose value does not fit is told.
//!
//! **Least and greatest** leave NaN out; rows before the first number are NaN. A zero is +0.0
//! whatever its sign was, as in `reduce`.
//!
//! NaN is always the same NaN.

use crate::level::Level;
use crate::prim::{Native, Prim, with_prim};
use crate::reduce::{BLOCK, Extremes, ExtremesFn, SumIntFn, Wide, extremes, sum_int};
use crate::tile::mem::{load, store};
use std::mem::MaybeUninit;

/// Blocks that are added up side by side.
const GROUP: usize = 4;

/// What runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scan {
    /// The sum: of i64, u64, f32 and f64.
    Sum,
    /// The product: of the same.
    Product,
    /// The least, of every type.
    Min,
    /// The greatest, of every type.
    Max,
}

/// What some rows came to.
#[derive(Clone, Copy, Debug)]
pub enum Total {
    /// The sum or product of integers.
    Int(i128),
    /// The sum or product of floats.
    Float(f64),
    /// The least and greatest.
    Extremes(Extremes),
}

/// The running value at some row of a part.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Of float sums: that of the parts before.
    before: f64,
    /// Of float sums that of the part's blocks before, of float products the product.
    inside: f64,
    /// Of integers, the least and the greatest: the value, as [`Native::to_bits64`].
    bits: u64,
}

/// `(running, dst, src, valid, rows, reverse)` to the number of rows, in the order in which they
/// were gone through, before the first whose value does not fit.
type StepFn = unsafe fn(&mut Running, *mut u8, *const u8, *const u8, usize, bool) -> usize;

/// How the total of a part is found without its running values.
#[derive(Clone, Copy, Debug)]
enum Apart {
    Int(SumIntFn),
    Float,
    Extremes(ExtremesFn),
    /// Not at all.
    InOrder,
}

/// One function of running values, for one type and direction.
#[derive(Clone, Copy, Debug)]
pub struct Scanner {
    scan: Scan,
    prim: Prim,
    reverse: bool,
    step: StepFn,
    apart: Apart,
}

impl Scanner {
    /// That of values of type `p`, from the last row on if `reverse`. `None` where there is none
    /// for the type.
    pub fn new(scan: Scan, p: Prim, reverse: bool, level: Level) -> Option<Scanner> {
        let step: StepFn = match (scan, p) {
            (Scan::Sum, Prim::F64) => sum_float::<f64>,
            (Scan::Sum, Prim::F32) => sum_float::<f32>,
            (Scan::Sum, Prim::I64) => sum_i64,
            (Scan::Sum, Prim::U64) => sum_u64,
            (Scan::Product, Prim::F64) => product_float::<f64>,
            (Scan::Product, Prim::F32) => product_float::<f32>,
            (Scan::Product, Prim::I64) => product_i64,
            (Scan::Product, Prim::U64) => product_u64,
            (Scan::Sum | Scan::Product, _) => return None,
            (Scan::Min, _) => with_prim!(p, T => extreme::<T, false>),
            (Scan::Max, _) => with_prim!(p, T => extreme::<T, true>),
        };
        let apart = match scan {
            Scan::Product => Apart::InOrder,
            Scan::Sum => sum_int(p, level).map_or(Apart::Float, Apart::Int),
            Scan::Min | Scan::Max => Apart::Extremes(extremes(p, level)),
        };
        Some(Scanner { scan, prim: p, reverse, step, apart })
    }

    /// Whether the totals of parts can be found apart from each other, in any order.
    pub fn splits(&self) -> bool {
        !matches!(self.apart, Apart::InOrder)
    }

    /// That of no rows.
    pub fn nothing(&self) -> Total {
        match self.scan {
            Scan::Sum if self.prim.is_float() => Total::Float(0.0),
            Scan::Sum => Total::Int(0),
            Scan::Product if self.prim.is_float() => Total::Float(1.0),
            Scan::Product => Total::Int(1),
            Scan::Min | Scan::Max => Total::Extremes(Extremes::default()),
        }
    }

    /// Adds the next rows of a part (the ones before, if in reverse) to its total, whole blocks but
    /// for the column's last one. Nothing if it does not split.
    ///
    /// # Safety
    /// `src` is readable for `rows` values of the type, `valid` null or readable for their bits in
    /// whole words.
    pub unsafe fn add(&self, total: &mut Total, src: *const u8, valid: *const u8, rows: usize) {
        // SAFETY: by contract; nothing is written where the destination is null.
        unsafe {
            match (self.apart, total) {
                (Apart::Int(f), Total::Int(sum)) => *sum += f(src, valid, rows),
                (Apart::Float, Total::Float(sum)) => {
                    let mut running = Running { before: 0.0, inside: *sum, bits: 0 };
                    let nowhere = std::ptr::null_mut();
                    (self.step)(&mut running, nowhere, src, valid, rows, self.reverse);
                    *sum = running.inside;
                }
                (Apart::Extremes(f), Total::Extremes(e)) => {
                    *e = e.merge(f(src, valid, rows), self.prim);
                }
                _ => {}
            }
        }
    }

    /// The total of the parts before and the part after them. That of integers goes on past what a
    /// running value can be.
    pub fn join(&self, before: Total, part: Total) -> Total {
        match (before, part) {
            (Total::Int(a), Total::Int(b)) => Total::Int(a.saturating_add(b)),
            (Total::Float(a), Total::Float(b)) => Total::Float(a + b),
            (Total::Extremes(a), Total::Extremes(b)) => Total::Extremes(a.merge(b, self.prim)),
            _ => before,
        }
    }

    /// The running value before the first row of a part. `None`: what is before does not fit.
    pub fn begin(&self, before: Total) -> Option<Running> {
        let zero = Running { before: 0.0, inside: 0.0, bits: 0 };
        Some(match before {
            Total::Float(v) if self.scan == Scan::Sum => Running { before: v, ..zero },
            Total::Float(v) => Running { inside: v, ..zero },
            Total::Int(v) if self.prim == Prim::U64 => {
                Running { bits: u64::try_from(v).ok()?, ..zero }
            }
            Total::Int(v) => Running { bits: i64::try_from(v).ok()? as u64, ..zero },
            Total::Extremes(e) if e.some => {
                Running { bits: if self.scan == Scan::Min { e.min } else { e.max }, ..zero }
            }
            // What every number is better than.
            Total::Extremes(_) => with_prim!(self.prim, T => {
                let worst = if self.scan == Scan::Min { T::GREATEST } else { T::LEAST };
                let nan = f64::NAN.to_bits();
                Running { bits: if self.prim.is_float() { nan } else { worst.to_bits64() }, ..zero }
            }),
        })
    }

    /// Goes through the next `rows` rows of a part (the ones before, if in reverse; whole blocks but
    /// for the column's last one) and writes the running value of each. Returns how many of them,
    /// in the order in which they are gone through, come before the first whose value does not fit;
    /// nothing of use is written from that one on.
    ///
    /// # Safety
    /// `dst` is writable and `src` readable for `rows` values of the type, `valid` null or readable
    /// for their bits in whole words; they do not overlap.
    pub unsafe fn write(
        &self,
        running: &mut Running,
        dst: *mut u8,
        src: *const u8,
        valid: *const u8,
        rows: usize,
    ) -> usize {
        // SAFETY: by contract.
        unsafe { (self.step)(running, dst, src, valid, rows, self.reverse) }
    }

    /// The total at the end of a part.
    pub fn end(&self, running: &Running) -> Total {
        match (self.scan, self.prim) {
            (Scan::Sum, p) if p.is_float() => Total::Float(running.before + running.inside),
            (Scan::Product, p) if p.is_float() => Total::Float(running.inside),
            (Scan::Sum | Scan::Product, Prim::U64) => Total::Int(i128::from(running.bits)),
            (Scan::Sum | Scan::Product, _) => Total::Int(i128::from(running.bits as i64)),
            (Scan::Min | Scan::Max, p) => {
                let some = !(p.is_float() && f64::from_bits(running.bits).is_nan());
                Total::Extremes(Extremes { some, min: running.bits, max: running.bits })
            }
        }
    }
}

/// The first row that is gone through, and the step to the next: wrapping.
#[inline(always)]
fn way(rows: usize, reverse: bool) -> (usize, usize) {
    if reverse { (rows.wrapping_sub(1), usize::MAX) } else { (0, 1) }
}

/// Whether row `i` counts.
///
/// # Safety
/// `valid` is null or readable for `i + 1` bits.
#[inline(always)]
unsafe fn counts(valid: *const u8, i: usize) -> bool {
    // SAFETY: by contract.
    valid.is_null() || unsafe { valid.add(i / 8).read() } >> (i % 8) & 1 != 0
}

/// Sums of floats. A null `dst`: only what they come to.
///
/// # Safety
/// As [`Scanner::write`].
unsafe fn sum_float<T: Wide>(
    running: &mut Running,
    dst: *mut u8,
    src: *const u8,
    valid: *const u8,
    rows: usize,
    reverse: bool,
) -> usize {
    let width = size_of::<T>();
    // Filled before it is read, as far as it is read.
    let mut sums = MaybeUninit::<[f64; GROUP * BLOCK]>::uninit();
    let sums = sums.as_mut_ptr().cast::<f64>();
    let blocks = rows.div_ceil(BLOCK);
    let mut done = 0;
    while done < blocks {
        let group = (blocks - done).min(GROUP);
        let from = if reverse { blocks - done - group } else { done } * BLOCK;
        let n = (rows - from).min(group * BLOCK);
        // SAFETY: rows `from` to `from + n` are within all of them, and n within the sums.
        unsafe {
            let src = src.add(from * width);
            if valid.is_null() {
                run_blocks::<T>(sums, src, n, reverse);
            } else {
                let valid = valid.add(from / 8);
                for i in 0..n {
                    // A choice, not a branch.
                    let v = load::<T>(src, i).wide().to_bits();
                    let counts = u64::from(counts(valid, i)).wrapping_neg();
                    sums.add(i).write(f64::from_bits(v & counts));
                }
                run_blocks::<f64>(sums, sums.cast(), n, reverse);
            }
        }
        for k in 0..group {
            let at = if reverse { group - 1 - k } else { k } * BLOCK;
            let len = (n - at).min(BLOCK);
            // SAFETY: the block has its rows, one at least, and both ends are its own.
            unsafe {
                let total = sums.add(if reverse { at } else { at + len - 1 }).read();
                if !dst.is_null() {
                    let dst = dst.add((from + at) * width);
                    place::<T>(dst, sums.add(at), len, running, total);
                }
                running.inside += total;
            }
        }
        done += group;
    }
    rows
}

/// The running sums inside each block, from 0.0.
///
/// # Safety
/// `src` is readable for `rows` values, `sums` writable for as many, at most GROUP * BLOCK; they
/// are apart, or the same.
unsafe fn run_blocks<T: Wide>(sums: *mut f64, src: *const u8, rows: usize, reverse: bool) {
    if rows == GROUP * BLOCK {
        let (mut at, step) = way(BLOCK, reverse);
        let mut s = [0.0; GROUP];
        for _ in 0..BLOCK {
            for (k, s) in s.iter_mut().enumerate() {
                // SAFETY: at < BLOCK, k < GROUP.
                unsafe {
                    *s += load::<T>(src, at + k * BLOCK).wide();
                    sums.add(at + k * BLOCK).write(*s);
                }
            }
            at = at.wrapping_add(step);
        }
        return;
    }
    for from in (0..rows).step_by(BLOCK) {
        let n = (rows - from).min(BLOCK);
        let (mut at, step) = way(n, reverse);
        let mut s = 0.0;
        for _ in 0..n {
            // SAFETY: from + at < rows.
            unsafe {
                s += load::<T>(src, from + at).wide();
                sums.add(from + at).write(s);
            }
            at = at.wrapping_add(step);
        }
    }
}

/// Writes the values of a block whose sum is `total`.
///
/// # Safety
/// `dst` is writable, `sums` readable for `rows` values.
#[inline(always)]
unsafe fn place<T: Wide>(
    dst: *mut u8,
    sums: *const f64,
    rows: usize,
    running: &Running,
    total: f64,
) {
    let (m, q) = (running.before, running.inside);
    // What is NaN stays so to the end.
    if (m + (q + total)).is_nan() {
        for i in 0..rows {
            // SAFETY: i < rows.
            unsafe { store::<T>(dst, i, one_nan(m + (q + sums.add(i).read()))) };
        }
        return;
    }
    for i in 0..rows {
        // SAFETY: i < rows.
        unsafe { store::<T>(dst, i, T::narrow(m + (q + sums.add(i).read()))) };
    }
}

/// The nearest value of the type; NaN always the same.
#[inline(always)]
fn one_nan<T: Wide>(x: f64) -> T {
    T::narrow(if x.is_nan() { f64::NAN } else { x })
}

/// # Safety
/// As [`Scanner::write`].
unsafe fn product_float<T: Wide>(
    running: &mut Running,
    dst: *mut u8,
    src: *const u8,
    valid: *const u8,
    rows: usize,
    reverse: bool,
) -> usize {
    let (mut at, step) = way(rows, reverse);
    let mut product = running.inside;
    for _ in 0..rows {
        // SAFETY: at < rows.
        unsafe {
            if counts(valid, at) {
                product *= load::<T>(src, at).wide();
            }
            store::<T>(dst, at, one_nan(product));
        }
        at = at.wrapping_add(step);
    }
    running.inside = product;
    rows
}

macro_rules! exact {
    ($($name:ident $t:ty, $operation:ident;)*) => {$(
        /// # Safety
        /// As [`Scanner::write`].
        unsafe fn $name(
            running: &mut Running,
            dst: *mut u8,
            src: *const u8,
            valid: *const u8,
            rows: usize,
            reverse: bool,
        ) -> usize {
            let (mut at, step) = way(rows, reverse);
            let mut value = <$t>::from_bits64(running.bits);
            for done in 0..rows {
                // SAFETY: at < rows.
                unsafe {
                    if counts(valid, at) {
                        let (next, beyond) = value.$operation(load::<$t>(src, at));
                        if beyond {
                            return done;
                        }
                        value = next;
                    }
                    store::<$t>(dst, at, value);
                }
                at = at.wrapping_add(step);
            }
            running.bits = value.to_bits64();
            rows
        }
    )*};
}
exact! {
    sum_i64 i64, overflowing_add;
    sum_u64 u64, overflowing_add;
    product_i64 i64, overflowing_mul;
    product_u64 u64, overflowing_mul;
}

/// # Safety
/// As [`Scanner::write`].
unsafe fn extreme<T: Native, const MAX: bool>(
    running: &mut Running,
    dst: *mut u8,
    src: *const u8,
    valid: *const u8,
    rows: usize,
    reverse: bool,
) -> usize {
    let (mut at, step) = way(rows, reverse);
    let mut best = T::from_bits64(running.bits);
    for _ in 0..rows {
        // SAFETY: at < rows.
        unsafe {
            let v = load::<T>(src, at);
            // The best may be NaN, which is worse than any number.
            let worse = if MAX { v <= best } else { v >= best };
            if !worse && !v.is_nan() && counts(valid, at) {
                best = if v == T::ZERO { T::ZERO } else { v };
            }
            store::<T>(dst, at, best);
        }
        at = at.wrapping_add(step);
    }
    running.bits = best.to_bits64();
    rows
}

#[cfg(test)]
mod tests;
