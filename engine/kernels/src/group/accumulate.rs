//! Accumulators by group number: one array per aggregate, updated tile by tile.
//!
//! Sums of floats add in the order of rows, in one or four lanes by global row number; partial
//! accumulators are merged lane by lane, in the order of their ranges. So a result depends on the
//! rows, the ranges and the lanes, and on nothing else.

use super::{GroupError, bits_or_ones, reserve};
use crate::prim::{Native, Prim, with_float, with_prim};
use crate::reduce::Quantile;
use crate::tile::TILE_MAX;
use crate::tile::mem::{load, low_bits, store, store_word};
use crate::view::Layout;
use std::any::Any;
use std::fmt;

use moments::Variance;
use picks::{ArgExtreme, Edge};
use product::{ProductFloats, ProductInts};
use ranks::Quantiles;
use sums::{Mean, SumFloat, SumInt};

/// What is computed per group. All but `Len`, `First` and `Last` skip nulls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Aggregate {
    /// Rows, nulls included.
    Len,
    /// Rows that are not null.
    Count,
    /// Sum; 0 of nothing. Integers are exact, see [`SumOverflow`].
    Sum,
    /// Least value, NaN skipped; null of nothing.
    Min,
    /// Greatest value, NaN skipped; null of nothing.
    Max,
    /// Mean, of integers from their exact sum; null of nothing.
    Mean,
    /// Product; 1 of nothing. Integers are exact, see [`SumOverflow`].
    Product,
    /// Variance of floats; null of `ddof` values or fewer.
    Var {
        /// What is taken from the number of values before dividing by it.
        ddof: u64,
    },
    /// The square root of the variance.
    Std {
        /// As for `Var`.
        ddof: u64,
    },
    /// Whether one of some booleans is true; false of nothing.
    Any,
    /// Whether all of some booleans are true; true of nothing.
    All,
    /// The value of the first row, null if it is.
    First,
    /// The value of the last row, null if it is.
    Last,
    /// Which of the group's rows, from 0 and nulls counted, has the least value, NaN skipped: the
    /// first of equal ones; null of nothing.
    ArgMin,
    /// The same of the greatest value.
    ArgMax,
    /// A quantile, with NaN as the greatest value; null of nothing.
    Quantile(Quantile),
    /// How many different values there are, null one of them. No accumulator counts them: that is
    /// the number of groups that [`super::Keys`] finds with the value as one more key.
    NUnique,
}

/// How many accumulators a group has side by side. Several keep a run of equal keys from waiting
/// for its own stores. Part of the order of float sums: choose it from the rows alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lanes {
    /// One, for many groups.
    One,
    /// Four, by row number mod 4, for few groups.
    Four,
}

impl Lanes {
    /// What pays for an *estimated* number of groups (never the number found so far).
    pub const fn for_groups(estimate: u64) -> Lanes {
        if estimate <= 1024 { Lanes::Four } else { Lanes::One }
    }

    const fn count(self) -> usize {
        match self {
            Lanes::One => 1,
            Lanes::Four => 4,
        }
    }
}

/// A sum or product of integers does not fit its 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SumOverflow {
    /// The first group concerned.
    pub group: usize,
    /// Its sum or product; none if it is a product too large to be known.
    pub sum: Option<i128>,
}

impl fmt::Display for SumOverflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sum {
            Some(sum) => write!(f, "the result {sum} does not fit 64 bits"),
            None => write!(f, "the product does not fit 64 bits"),
        }
    }
}

impl std::error::Error for SumOverflow {}

/// A tile of what is aggregated.
struct Tile {
    ids: *const u32,
    values: *const u8,
    validity: *const u8,
    mask: *const u8,
    rows: usize,
    first_row: u64,
}

impl Tile {
    /// Calls `f` for each selected, valid row.
    ///
    /// # Safety
    /// The bitmaps are null or readable for `rows` bits.
    #[inline(always)]
    unsafe fn each(&self, mut f: impl FnMut(usize)) {
        if self.validity.is_null() && self.mask.is_null() {
            for i in 0..self.rows {
                f(i);
            }
            return;
        }
        for w in 0..self.rows.div_ceil(64) {
            // SAFETY: 64 * w < rows.
            let mut word = unsafe {
                bits_or_ones(self.validity, w, self.rows) & bits_or_ones(self.mask, w, self.rows)
            };
            if word == low_bits(64) {
                for k in 0..64 {
                    f(64 * w + k);
                }
                continue;
            }
            while word != 0 {
                f(64 * w + word.trailing_zeros() as usize);
                word &= word - 1;
            }
        }
    }

    /// Value `i`.
    ///
    /// # Safety
    /// `i < rows`, and the values are of type `T`.
    #[inline(always)]
    unsafe fn value<T: Native>(&self, i: usize) -> T {
        // SAFETY: by contract.
        unsafe { load::<T>(self.values, i) }
    }

    /// Place of row `i` in an array with `LANES` lanes per group.
    ///
    /// # Safety
    /// `i < rows`.
    #[inline(always)]
    unsafe fn place<const LANES: usize>(&self, i: usize) -> usize {
        // SAFETY: ids are readable for rows numbers.
        let id = unsafe { self.ids.add(i).read() } as usize;
        id * LANES + (self.first_row as usize).wrapping_add(i) % LANES
    }
}

/// Runs `$body` with the constant `$lanes`.
macro_rules! with_lanes {
    ($count:expr, $lanes:ident => $body:expr) => {
        if $count == 4 {
            const $lanes: usize = 4;
            $body
        } else {
            const $lanes: usize = 1;
            $body
        }
    };
}

mod moments;
mod picks;
mod product;
mod ranks;
mod sums;

/// The state of an aggregate: arrays with `lanes` entries per group.
trait State: Any + Send + Sync + fmt::Debug {
    /// Room for `slots` entries in all.
    fn resize(&mut self, slots: usize) -> Result<(), GroupError>;
    /// Room for the rows of one more tile, where rows are kept.
    fn reserve(&mut self) -> Result<(), GroupError> {
        Ok(())
    }
    /// # Safety
    /// As [`Accumulator::update`].
    unsafe fn update(&mut self, tile: &Tile, lanes: usize);
    fn merge(&mut self, other: &dyn State, mapping: &[u32], lanes: usize)
    -> Result<(), GroupError>;
    /// # Safety
    /// As [`Accumulator::finish`]; returns the nulls.
    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError>;
    fn as_any(&self) -> &dyn Any;
}

/// Where results go.
struct Out {
    values: *mut u8,
    validity: *mut u8,
}

impl Out {
    /// # Safety
    /// Result `g` of type `T` is writable.
    #[inline(always)]
    unsafe fn put<T: Native>(&self, g: usize, v: T) {
        // SAFETY: by contract.
        unsafe { store::<T>(self.values, g, v) }
    }

    /// Writes the validity; returns the nulls.
    ///
    /// # Safety
    /// The validity is writable for `ceil(groups / 64)` words.
    unsafe fn valid(&self, groups: usize, is_valid: impl Fn(usize) -> bool) -> usize {
        let mut nulls = 0;
        for w in 0..groups.div_ceil(64) {
            let n = (groups - 64 * w).min(64);
            let mut word = 0u64;
            for k in 0..n {
                word |= u64::from(is_valid(64 * w + k)) << k;
            }
            nulls += n - word.count_ones() as usize;
            // SAFETY: w < ceil(groups / 64).
            unsafe { store_word(self.validity, w, word) };
        }
        nulls
    }
}

/// Extends an array to `slots` entries.
fn extend<T: Copy>(v: &mut Vec<T>, slots: usize, value: T) -> Result<(), GroupError> {
    if slots > v.len() {
        reserve(v, slots - v.len())?;
        v.resize(slots, value);
    }
    Ok(())
}

/// The entries of a group.
fn lanes_of<T>(v: &[T], g: usize, lanes: usize) -> &[T] {
    v.get(g * lanes..).and_then(|v| v.get(..lanes)).unwrap_or(&[])
}

/// Merges arrays entry by entry.
fn merge_with<T: Copy>(
    mine: &mut [T],
    theirs: &[T],
    mapping: &[u32],
    lanes: usize,
    mut f: impl FnMut(&mut T, T),
) -> Result<(), GroupError> {
    for (group, to) in theirs.chunks_exact(lanes).zip(mapping) {
        let to = *to as usize * lanes;
        let into = mine.get_mut(to..).and_then(|m| m.get_mut(..lanes));
        for (m, t) in into.ok_or(GroupError::Mismatch)?.iter_mut().zip(group) {
            f(m, *t);
        }
    }
    Ok(())
}

fn same<T: Any>(other: &dyn State) -> Result<&T, GroupError> {
    other.as_any().downcast_ref::<T>().ok_or(GroupError::Mismatch)
}

/// Rows per group.
#[derive(Debug, Default)]
struct Counts {
    n: Vec<u64>,
}

impl Counts {
    fn total(&self, g: usize, lanes: usize) -> u64 {
        lanes_of(&self.n, g, lanes).iter().sum()
    }
}

impl State for Counts {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.n, slots, 0)
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let n = self.n.as_mut_ptr();
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe { tile.each(|i| *n.add(tile.place::<LANES>(i)) += 1) }
        });
    }

    fn merge(
        &mut self,
        other: &dyn State,
        mapping: &[u32],
        lanes: usize,
    ) -> Result<(), GroupError> {
        merge_with(&mut self.n, &same::<Counts>(other)?.n, mapping, lanes, |m, t| *m += t)
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            // SAFETY: g < groups.
            unsafe { out.put(g, self.total(g, lanes) as i64) };
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |_| true) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Least (`MAX` false) or greatest values. Of equal values (−0.0 and 0.0) the first of a lane
/// stays.
#[derive(Debug)]
struct Extreme<T, const MAX: bool> {
    /// A group without values has the type's worst value, or NaN.
    best: Vec<T>,
    /// Integers have no value to spare: which entries are taken? Unused for floats.
    seen: Vec<u8>,
    /// The result of nothing; none: null.
    nothing: Option<T>,
}

impl<T: Native, const MAX: bool> Extreme<T, MAX> {
    fn new(nothing: Option<T>) -> Self {
        Extreme { best: Vec::new(), seen: Vec::new(), nothing }
    }

    /// What everything beats.
    fn worst() -> T {
        if T::PRIM.is_float() {
            T::from_bits64(f64::NAN.to_bits())
        } else if MAX {
            T::LEAST
        } else {
            T::GREATEST
        }
    }

    #[inline(always)]
    fn better(v: T, than: T) -> bool {
        (if MAX { v > than } else { v < than }) | than.is_nan()
    }

    /// The best of a group's lanes, if it has one.
    fn result(&self, g: usize, lanes: usize) -> Option<T> {
        let mut best = None;
        for (l, v) in lanes_of(&self.best, g, lanes).iter().enumerate() {
            let there = if T::PRIM.is_float() {
                !v.is_nan()
            } else {
                self.seen.get(g * lanes + l).copied() == Some(1)
            };
            if there && best.is_none_or(|b| Self::better(*v, b)) {
                best = Some(*v);
            }
        }
        best.or(self.nothing)
    }
}

impl<T: Native, const MAX: bool> State for Extreme<T, MAX> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.best, slots, Self::worst())?;
        if T::PRIM.is_float() { Ok(()) } else { extend(&mut self.seen, slots, 0) }
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let (best, seen) = (self.best.as_mut_ptr(), self.seen.as_mut_ptr());
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe {
                tile.each(|i| {
                    let place = tile.place::<LANES>(i);
                    let (at, v) = (best.add(place), tile.value::<T>(i));
                    *at = if Self::better(v, *at) { v } else { *at };
                    if !T::PRIM.is_float() {
                        *seen.add(place) = 1;
                    }
                });
            }
        });
    }

    fn merge(
        &mut self,
        other: &dyn State,
        mapping: &[u32],
        lanes: usize,
    ) -> Result<(), GroupError> {
        let other = same::<Self>(other)?;
        merge_with(&mut self.best, &other.best, mapping, lanes, |m, t| {
            if Self::better(t, *m) {
                *m = t;
            }
        })?;
        merge_with(&mut self.seen, &other.seen, mapping, lanes, |m, t| *m |= t)
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            // SAFETY: g < groups.
            unsafe { out.put(g, self.result(g, lanes).unwrap_or(T::ZERO)) };
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |g| self.result(g, lanes).is_some()) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// One aggregate of all groups.
#[derive(Debug)]
pub struct Accumulator {
    state: Box<dyn State>,
    aggregate: Aggregate,
    output: Prim,
    /// Values are bits, to be made bytes first.
    bits: bool,
    lanes: Lanes,
    groups: usize,
}

impl Accumulator {
    /// An accumulator of an aggregate of a column of numbers or booleans (`Len` and `Count` do not
    /// look at values, and take any layout). `None` if there is no such aggregate of that layout.
    pub fn new(aggregate: Aggregate, input: Layout, lanes: Lanes) -> Option<Accumulator> {
        let prim = match input {
            Layout::Prim(p) => Some(p),
            Layout::Bool => Some(Prim::U8),
            _ => None,
        };
        let (state, output): (Box<dyn State>, Prim) = match aggregate {
            Aggregate::Len | Aggregate::Count => (Box::new(Counts::default()), Prim::I64),
            Aggregate::Sum => with_prim!(prim?, T => match T::PRIM {
                Prim::F32 | Prim::F64 => (Box::new(SumFloat::<T>::new()), T::PRIM),
                Prim::U64 => (Box::new(SumInt::<T>::new()), Prim::U64),
                _ => (Box::new(SumInt::<T>::new()), Prim::I64),
            }),
            Aggregate::Mean => with_prim!(prim?, T => {
                let state: Box<dyn State> = if T::PRIM.is_float() {
                    Box::new(Mean::new(SumFloat::<T>::new()))
                } else {
                    Box::new(Mean::new(SumInt::<T>::new()))
                };
                (state, Prim::F64)
            }),
            Aggregate::Min => with_prim!(prim?, T => {
                (Box::new(Extreme::<T, false>::new(None)), T::PRIM)
            }),
            Aggregate::Max => with_prim!(prim?, T => {
                (Box::new(Extreme::<T, true>::new(None)), T::PRIM)
            }),
            Aggregate::Any | Aggregate::All if input != Layout::Bool => return None,
            Aggregate::Any => (Box::new(Extreme::<u8, true>::new(Some(0))), Prim::U8),
            Aggregate::All => (Box::new(Extreme::<u8, false>::new(Some(1))), Prim::U8),
            Aggregate::Product => with_prim!(prim?, T => match T::PRIM {
                Prim::F32 | Prim::F64 => (Box::new(ProductFloats::<T>::new()), T::PRIM),
                Prim::U64 => (Box::new(ProductInts::<T>::new()), Prim::U64),
                _ => (Box::new(ProductInts::<T>::new()), Prim::I64),
            }),
            Aggregate::Var { ddof } => with_float!(prim?, T => {
                (Box::new(Variance::<T>::new(ddof, false)) as Box<dyn State>, Prim::F64)
            })?,
            Aggregate::Std { ddof } => with_float!(prim?, T => {
                (Box::new(Variance::<T>::new(ddof, true)) as Box<dyn State>, Prim::F64)
            })?,
            Aggregate::First => match prim {
                Some(p) => with_prim!(p, T => (Box::new(Edge::<T, false>::new(false)), T::PRIM)),
                None => (Box::new(Edge::<u8, false>::new(true)), Prim::U64),
            },
            Aggregate::Last => match prim {
                Some(p) => with_prim!(p, T => (Box::new(Edge::<T, true>::new(false)), T::PRIM)),
                None => (Box::new(Edge::<u8, true>::new(true)), Prim::U64),
            },
            Aggregate::ArgMin => with_prim!(prim?, T => {
                (Box::new(ArgExtreme::<T, false>::new()), Prim::I64)
            }),
            Aggregate::ArgMax => with_prim!(prim?, T => {
                (Box::new(ArgExtreme::<T, true>::new()), Prim::I64)
            }),
            Aggregate::Quantile(q) => with_prim!(prim?, T => {
                (Box::new(Quantiles::<T>::new(q)), Prim::F64)
            }),
            Aggregate::NUnique => return None,
        };
        let bits = input == Layout::Bool;
        Some(Accumulator { state, aggregate, output, bits, lanes, groups: 0 })
    }

    /// The type of the results: I64 for `Len`, `Count`, `ArgMin`, `ArgMax`, and sums and products
    /// of integers up to 32 bits, of I64 and of booleans; U64 for those of U64; F32 and F64 for
    /// theirs; F64 for `Mean`, `Var`, `Std` and `Quantile`; the input for the others (booleans: U8,
    /// 0 or 1). `First` and `Last` of any other layout give U64: the global number of the row.
    pub fn output(&self) -> Prim {
        self.output
    }

    /// Makes room for at least `groups` groups, and for the rows of one more tile where rows are
    /// kept; never shrinks.
    ///
    /// # Errors
    /// [`GroupError::OutOfMemory`].
    pub fn resize(&mut self, groups: usize) -> Result<(), GroupError> {
        if groups > self.groups {
            let slots = groups.checked_mul(self.lanes.count()).ok_or(GroupError::Mismatch)?;
            self.state.resize(slots)?;
            self.groups = groups;
        }
        self.state.reserve()
    }

    /// Adds a tile. Rows count if `mask` selects them and `validity` has them (null pointers: all);
    /// `Len` ignores the validity.
    ///
    /// # Safety
    /// `rows <= TILE_MAX`. `ids` is readable for `rows` aligned numbers, those of rows that count
    /// below what [`Accumulator::resize`] was last called with; `values` is readable for `rows`
    /// values of the input's type (unused, and may be null, for `Len` and `Count`); bitmaps for
    /// `ceil(rows / 8)` bytes. `first_row` is the global number of the tile's first row.
    pub unsafe fn update(
        &mut self,
        ids: *const u32,
        values: *const u8,
        validity: *const u8,
        mask: *const u8,
        rows: usize,
        first_row: u64,
    ) {
        let validity = if self.aggregate == Aggregate::Len { std::ptr::null() } else { validity };
        let mut tile = Tile { ids, values, validity, mask, rows, first_row };
        let mut bytes = [0u8; TILE_MAX];
        if self.bits && !matches!(self.aggregate, Aggregate::Len | Aggregate::Count) {
            // SAFETY: values are a bitmap of rows bits, rows <= TILE_MAX.
            unsafe { super::unpack(values, rows, &mut bytes) };
            tile.values = bytes.as_ptr();
        }
        // SAFETY: the contract is passed on.
        unsafe { self.state.update(&tile, self.lanes.count()) };
    }

    /// Adds the groups of another accumulator of the same kind, made from rows after this one's:
    /// `mapping` (see [`super::Keys::merge`]) has its groups' numbers here. Makes room as needed.
    ///
    /// # Errors
    /// [`GroupError::Mismatch`] for another kind or a mapping too short, or `OutOfMemory`.
    pub fn merge(&mut self, other: &Accumulator, mapping: &[u32]) -> Result<(), GroupError> {
        if self.aggregate != other.aggregate
            || self.lanes != other.lanes
            || mapping.len() < other.groups
        {
            return Err(GroupError::Mismatch);
        }
        let groups = mapping.iter().max().map_or(0, |m| *m as usize + 1);
        self.resize(groups)?;
        self.state.merge(&*other.state, mapping, self.lanes.count())
    }

    /// Writes the results of groups 0 to `groups`; returns the number of nulls, whose values are 0.
    ///
    /// # Errors
    /// [`GroupError::Overflow`] if a sum or product of integers does not fit, or `OutOfMemory`.
    ///
    /// # Safety
    /// `values` is writable for `groups` values of [`Accumulator::output`], `validity` for
    /// `ceil(groups / 64)` words.
    pub unsafe fn finish(
        &self,
        groups: usize,
        values: *mut u8,
        validity: *mut u8,
    ) -> Result<usize, GroupError> {
        let out = Out { values, validity };
        // SAFETY: the contract is passed on.
        unsafe { self.state.finish(groups, self.lanes.count(), &out) }
    }
}
