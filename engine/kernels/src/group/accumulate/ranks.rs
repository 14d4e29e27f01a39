//! Quantiles per group: the values are kept, and selected among when all are there.

use super::{Out, State, Tile, same};
use crate::group::{GroupError, filled, reserve};
use crate::prim::Native;
use crate::reduce::{Quantile, ordered, ordered_to_f64};
use crate::tile::TILE_MAX;
use std::any::Any;
use std::marker::PhantomData;

/// Quantiles of numbers, as f64. Needs memory for every row that counts: 12 bytes, and 8 more in
/// the end.
#[derive(Debug)]
pub(super) struct Quantiles<T> {
    quantile: Quantile,
    /// Of each row its group, and its value as a number of its order.
    ids: Vec<u32>,
    keys: Vec<u64>,
    _type: PhantomData<T>,
}

impl<T: Native> Quantiles<T> {
    pub(super) fn new(quantile: Quantile) -> Self {
        Quantiles { quantile, ids: Vec::new(), keys: Vec::new(), _type: PhantomData }
    }

    /// The quantile of each group.
    fn results(&self, groups: usize) -> Result<Vec<Option<f64>>, GroupError> {
        // Keys by group: where each group's begin, then each key to its place.
        let mut ends = filled(0usize, groups + 1)?;
        for id in &self.ids {
            if let Some(end) = ends.get_mut(*id as usize + 1) {
                *end += 1;
            }
        }
        for g in 0..groups {
            ends[g + 1] += ends[g];
        }
        let mut sorted = filled(0u64, self.keys.len())?;
        let mut next = filled(0usize, groups)?;
        next.copy_from_slice(&ends[..groups]);
        for (id, key) in self.ids.iter().zip(&self.keys) {
            let Some(at) = next.get_mut(*id as usize) else { continue };
            if let Some(slot) = sorted.get_mut(*at) {
                *slot = *key;
            }
            *at += 1;
        }
        let mut results = filled(None, groups)?;
        for (g, result) in results.iter_mut().enumerate() {
            let Some(keys) = sorted.get_mut(ends[g]..ends[g + 1]) else { continue };
            let Some((low, high, part)) = self.quantile.ranks(keys.len() as u64) else { continue };
            let (_, low_key, above) = keys.select_nth_unstable(low as usize);
            let low_key = *low_key;
            let high_key = if high > low { above.iter().min().copied() } else { None };
            let value = |key| ordered_to_f64(T::PRIM, key);
            let high_value = value(high_key.unwrap_or(low_key));
            *result = Some(Quantile::between(value(low_key), high_value, part));
        }
        Ok(results)
    }
}

impl<T: Native> State for Quantiles<T> {
    fn resize(&mut self, _slots: usize) -> Result<(), GroupError> {
        Ok(())
    }

    fn reserve(&mut self) -> Result<(), GroupError> {
        reserve(&mut self.ids, TILE_MAX)?;
        reserve(&mut self.keys, TILE_MAX)
    }

    unsafe fn update(&mut self, tile: &Tile, _lanes: usize) {
        // SAFETY: by contract. There is room for a tile's rows.
        unsafe {
            tile.each(|i| {
                self.ids.push(tile.ids.add(i).read());
                self.keys.push(ordered(tile.value::<T>(i)));
            });
        }
    }

    fn merge(
        &mut self,
        other: &dyn State,
        mapping: &[u32],
        _lanes: usize,
    ) -> Result<(), GroupError> {
        let other = same::<Self>(other)?;
        reserve(&mut self.ids, other.ids.len())?;
        reserve(&mut self.keys, other.keys.len())?;
        for id in &other.ids {
            self.ids.push(*mapping.get(*id as usize).ok_or(GroupError::Mismatch)?);
        }
        self.keys.extend_from_slice(&other.keys);
        Ok(())
    }

    unsafe fn finish(&self, groups: usize, _lanes: usize, out: &Out) -> Result<usize, GroupError> {
        let results = self.results(groups)?;
        for (g, result) in results.iter().enumerate() {
            // SAFETY: g < groups.
            unsafe { out.put(g, result.unwrap_or(0.0)) };
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |g| results.get(g).is_some_and(Option::is_some)) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
