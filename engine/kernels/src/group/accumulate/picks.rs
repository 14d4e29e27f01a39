//! Rows picked per group: the first, the last, that of the least or greatest value.

use super::{Out, State, Tile, extend, lanes_of, same};
use crate::group::{GroupError, bits_or_ones};
use crate::prim::Native;
use std::any::Any;

/// No row.
const NONE: u64 = u64::MAX;

impl Tile {
    /// Calls `f` with each selected row and whether it is valid.
    ///
    /// # Safety
    /// The bitmaps are null or readable for `rows` bits.
    #[inline(always)]
    unsafe fn each_selected(&self, mut f: impl FnMut(usize, bool)) {
        for w in 0..self.rows.div_ceil(64) {
            // SAFETY: 64 * w < rows.
            let (mut word, valid) = unsafe {
                (bits_or_ones(self.mask, w, self.rows), bits_or_ones(self.validity, w, self.rows))
            };
            while word != 0 {
                let k = word.trailing_zeros();
                f(64 * w + k as usize, valid >> k & 1 != 0);
                word &= word - 1;
            }
        }
    }
}

/// A row and what it holds.
#[derive(Clone, Copy, Debug)]
struct Pick<T> {
    /// The global row, or NONE.
    row: u64,
    value: T,
    valid: bool,
}

/// The value of the first (`LAST` false) or last row, null or not.
#[derive(Debug)]
pub(super) struct Edge<T, const LAST: bool> {
    picks: Vec<Pick<T>>,
    /// Give the row's number instead of its value.
    numbers: bool,
}

impl<T: Native, const LAST: bool> Edge<T, LAST> {
    pub(super) fn new(numbers: bool) -> Self {
        Edge { picks: Vec::new(), numbers }
    }

    #[inline(always)]
    fn better(row: u64, than: u64) -> bool {
        than == NONE || (if LAST { row > than } else { row < than })
    }

    fn result(&self, g: usize, lanes: usize) -> Option<Pick<T>> {
        let lanes = lanes_of(&self.picks, g, lanes).iter().filter(|p| p.row != NONE);
        let pick = if LAST { lanes.max_by_key(|p| p.row) } else { lanes.min_by_key(|p| p.row) };
        pick.filter(|p| p.valid || self.numbers).copied()
    }
}

impl<T: Native, const LAST: bool> State for Edge<T, LAST> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.picks, slots, Pick { row: NONE, value: T::ZERO, valid: false })
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let picks = self.picks.as_mut_ptr();
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe {
                tile.each_selected(|i, valid| {
                    let pick = &mut *picks.add(tile.place::<LANES>(i));
                    let row = tile.first_row.wrapping_add(i as u64);
                    if Self::better(row, pick.row) {
                        let value = if self.numbers { T::ZERO } else { tile.value::<T>(i) };
                        *pick = Pick { row, value, valid };
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
        super::merge_with(&mut self.picks, &other.picks, mapping, lanes, |m, t| {
            if t.row != NONE && Self::better(t.row, m.row) {
                *m = t;
            }
        })
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            let pick = self.result(g, lanes);
            // SAFETY: g < groups.
            unsafe {
                if self.numbers {
                    out.put(g, pick.map_or(0, |p| p.row));
                } else {
                    out.put(g, pick.map_or(T::ZERO, |p| p.value));
                }
            }
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |g| self.result(g, lanes).is_some()) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The best value of a group, and the place of its row among the group's rows.
#[derive(Clone, Copy, Debug)]
struct Best<T> {
    /// Rows of the group so far, nulls among them.
    rows: u64,
    /// The row's place, or NONE.
    at: u64,
    value: T,
}

/// The row of the least (`MAX` false) or greatest value, the first of equal ones, NaN and null left
/// out; counted among the rows of the group. Of the lanes the first alone is used: the places of
/// rows follow from the order of all of them.
#[derive(Debug)]
pub(super) struct ArgExtreme<T, const MAX: bool> {
    best: Vec<Best<T>>,
}

impl<T: Native, const MAX: bool> ArgExtreme<T, MAX> {
    pub(super) fn new() -> Self {
        ArgExtreme { best: Vec::new() }
    }

    #[inline(always)]
    fn better(value: T, best: &Best<T>) -> bool {
        best.at == NONE || (if MAX { value > best.value } else { value < best.value })
    }
}

impl<T: Native, const MAX: bool> State for ArgExtreme<T, MAX> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.best, slots, Best { rows: 0, at: NONE, value: T::ZERO })
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let best = self.best.as_mut_ptr();
        // SAFETY: ids are readable for rows numbers, and below the number of groups, for each of
        // which there are `lanes` entries.
        unsafe {
            tile.each_selected(|i, valid| {
                let best = &mut *best.add(tile.ids.add(i).read() as usize * lanes);
                let value = tile.value::<T>(i);
                if valid && !value.is_nan() && Self::better(value, best) {
                    (best.at, best.value) = (best.rows, value);
                }
                best.rows += 1;
            });
        }
    }

    fn merge(
        &mut self,
        other: &dyn State,
        mapping: &[u32],
        lanes: usize,
    ) -> Result<(), GroupError> {
        let other = same::<Self>(other)?;
        super::merge_with(&mut self.best, &other.best, mapping, lanes, |m, t| {
            if t.at != NONE && Self::better(t.value, m) {
                (m.at, m.value) = (m.rows + t.at, t.value);
            }
            m.rows += t.rows;
        })
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        let at = |g: usize| {
            let best = lanes_of(&self.best, g, lanes).first();
            best.map(|b| b.at).filter(|at| *at != NONE)
        };
        for g in 0..groups {
            // SAFETY: g < groups.
            unsafe { out.put(g, at(g).unwrap_or(0) as i64) };
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |g| at(g).is_some()) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
