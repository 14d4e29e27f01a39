//! Sums and means per group.

use super::{Counts, Out, State, SumOverflow, Tile, extend, lanes_of, merge_with, same};
use crate::group::GroupError;
use crate::prim::{Native, Prim};
use std::any::Any;

/// Exact sums of integers. Most rows go to 64-bit sums; a bound on what these may hold, kept from
/// the magnitudes of the tiles, says when they must be emptied into 128-bit ones.
#[derive(Debug)]
pub(super) struct SumInt<T> {
    fast: Vec<i64>,
    /// Empty until needed.
    wide: Vec<i128>,
    /// No entry of `fast` is further from zero.
    bound: u128,
    _type: std::marker::PhantomData<T>,
}

impl<T: Native> SumInt<T> {
    pub(super) fn new() -> Self {
        SumInt { fast: Vec::new(), wide: Vec::new(), bound: 0, _type: std::marker::PhantomData }
    }

    /// Bits that hold the magnitude of every value of the tile, masked or not.
    ///
    /// # Safety
    /// The values are readable.
    unsafe fn bits(tile: &Tile) -> u32 {
        if T::PRIM.width() < 8 {
            return 8 * T::PRIM.width() as u32;
        }
        let mut any = 0u64;
        for i in 0..tile.rows {
            // SAFETY: i < rows.
            let v = unsafe { tile.value::<T>(i) }.to_bits64();
            // The complement of a negative number has the same bits but for the sign.
            any |= if T::PRIM.is_signed() { v ^ ((v as i64 >> 63) as u64) } else { v };
        }
        // One more: the magnitude of the least number is that of the greatest plus one.
        64 - any.leading_zeros() + 1
    }

    /// Empties the 64-bit sums into the 128-bit ones.
    fn drain(&mut self) {
        self.widen();
        for (wide, fast) in self.wide.iter_mut().zip(&mut self.fast) {
            *wide += i128::from(*fast);
            *fast = 0;
        }
        self.bound = 0;
    }

    fn widen(&mut self) {
        if self.wide.len() < self.fast.len() {
            self.wide.resize(self.fast.len(), 0);
        }
    }

    fn total(&self, g: usize, lanes: usize) -> i128 {
        let fast: i128 = lanes_of(&self.fast, g, lanes).iter().map(|v| i128::from(*v)).sum();
        fast + lanes_of(&self.wide, g, lanes).iter().sum::<i128>()
    }

    #[inline(always)]
    fn as_i64(v: T) -> i64 {
        v.to_bits64() as i64
    }
}

impl<T: Native> State for SumInt<T> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.fast, slots, 0)?;
        if self.wide.is_empty() { Ok(()) } else { extend(&mut self.wide, slots, 0) }
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        // SAFETY: the values are readable.
        let bits = unsafe { Self::bits(tile) };
        let slots = self.fast.len() as u128;
        // With so many groups that the 64-bit sums would be emptied all the time, do without them.
        if bits >= 62 || 1u128 << (63 - bits) < 4 * slots.min(1 << 40) {
            self.widen();
            let wide = self.wide.as_mut_ptr();
            with_lanes!(lanes, LANES => {
                // SAFETY: ids are below the number of groups, for which there is room.
                unsafe {
                    tile.each(|i| {
                        let bits = tile.value::<T>(i).to_bits64();
                        let v = if T::PRIM.is_signed() {
                            i128::from(bits as i64)
                        } else {
                            i128::from(bits)
                        };
                        *wide.add(tile.place::<LANES>(i)) += v;
                    });
                }
            });
            return;
        }
        let more = (tile.rows as u128) << bits;
        if self.bound + more >= 1 << 63 {
            self.drain();
        }
        self.bound += more;
        let fast = self.fast.as_mut_ptr();
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe {
                tile.each(|i| {
                    let at = fast.add(tile.place::<LANES>(i));
                    *at = (*at).wrapping_add(Self::as_i64(tile.value::<T>(i)));
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
        if self.bound + other.bound >= 1 << 63 {
            self.drain();
        }
        if self.bound + other.bound >= 1 << 63 {
            return Err(GroupError::Mismatch); // cannot be: each bound is below 2^63
        }
        self.bound += other.bound;
        merge_with(&mut self.fast, &other.fast, mapping, lanes, |m, t| *m = m.wrapping_add(t))?;
        if !other.wide.is_empty() {
            self.widen();
            merge_with(&mut self.wide, &other.wide, mapping, lanes, |m, t| *m += t)?;
        }
        Ok(())
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            let sum = self.total(g, lanes);
            let over = GroupError::Overflow(SumOverflow { group: g, sum: Some(sum) });
            // SAFETY: g < groups.
            unsafe {
                if T::PRIM == Prim::U64 {
                    let v = u64::try_from(sum).map_err(|_| over)?;
                    out.put(g, v);
                } else {
                    let v = i64::try_from(sum).map_err(|_| over)?;
                    out.put(g, v);
                }
            }
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |_| true) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Sums of floats, in f64.
#[derive(Debug)]
pub(super) struct SumFloat<T> {
    sums: Vec<f64>,
    _type: std::marker::PhantomData<T>,
}

impl<T: Native> SumFloat<T> {
    pub(super) fn new() -> Self {
        SumFloat { sums: Vec::new(), _type: std::marker::PhantomData }
    }

    fn total(&self, g: usize, lanes: usize) -> f64 {
        match *lanes_of(&self.sums, g, lanes) {
            [a, b, c, d] => (a + b) + (c + d),
            [a] => a,
            _ => 0.0,
        }
    }
}

impl<T: Native> State for SumFloat<T> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.sums, slots, 0.0)
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let sums = self.sums.as_mut_ptr();
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe {
                tile.each(|i| {
                    let v = f64::from_bits(tile.value::<T>(i).to_bits64());
                    *sums.add(tile.place::<LANES>(i)) += v;
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
        merge_with(&mut self.sums, &same::<Self>(other)?.sums, mapping, lanes, |m, t| *m += t)
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            let sum = self.total(g, lanes);
            // SAFETY: g < groups.
            unsafe { if T::PRIM == Prim::F32 { out.put(g, sum as f32) } else { out.put(g, sum) } }
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |_| true) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A sum and the number of its rows.
#[derive(Debug)]
pub(super) struct Mean<S> {
    sum: S,
    counts: Counts,
}

impl<S> Mean<S> {
    pub(super) fn new(sum: S) -> Self {
        Mean { sum, counts: Counts::default() }
    }
}

/// A sum that a mean can be made from.
pub(super) trait Total: State {
    fn as_f64(&self, g: usize, lanes: usize) -> f64;
}

impl<T: Native> Total for SumInt<T> {
    fn as_f64(&self, g: usize, lanes: usize) -> f64 {
        self.total(g, lanes) as f64
    }
}

impl<T: Native> Total for SumFloat<T> {
    fn as_f64(&self, g: usize, lanes: usize) -> f64 {
        self.total(g, lanes)
    }
}

impl<S: Total> State for Mean<S> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        self.sum.resize(slots)?;
        self.counts.resize(slots)
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        // SAFETY: the contract is passed on.
        unsafe {
            self.sum.update(tile, lanes);
            self.counts.update(tile, lanes);
        }
    }

    fn merge(
        &mut self,
        other: &dyn State,
        mapping: &[u32],
        lanes: usize,
    ) -> Result<(), GroupError> {
        let other = same::<Self>(other)?;
        self.sum.merge(&other.sum, mapping, lanes)?;
        self.counts.merge(&other.counts, mapping, lanes)
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            let n = self.counts.total(g, lanes);
            let mean = if n == 0 { 0.0 } else { self.sum.as_f64(g, lanes) / n as f64 };
            // SAFETY: g < groups.
            unsafe { out.put(g, mean) };
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |g| self.counts.total(g, lanes) != 0) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
