//! Variances and standard deviations per group.

use super::{Out, State, Tile, extend, lanes_of, merge_with, same};
use crate::group::GroupError;
use crate::prim::Native;
use crate::reduce::Moments;
use std::any::Any;
use std::marker::PhantomData;

/// The moments of floats, in f64.
#[derive(Debug)]
pub(super) struct Variance<T> {
    moments: Vec<Moments>,
    ddof: u64,
    root: bool,
    _type: PhantomData<T>,
}

impl<T: Native> Variance<T> {
    /// Divides by the number less `ddof`; `root`: takes the square root.
    pub(super) fn new(ddof: u64, root: bool) -> Self {
        Variance { moments: Vec::new(), ddof, root, _type: PhantomData }
    }

    fn total(&self, g: usize, lanes: usize) -> Option<f64> {
        let all = match *lanes_of(&self.moments, g, lanes) {
            [a, b, c, d] => a.join(b).join(c.join(d)),
            [a] => a,
            _ => Moments::EMPTY,
        };
        let variance = all.variance(self.ddof);
        if self.root { variance.map(f64::sqrt) } else { variance }
    }
}

impl<T: Native> State for Variance<T> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.moments, slots, Moments::EMPTY)
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let moments = self.moments.as_mut_ptr();
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe {
                tile.each(|i| {
                    let v = f64::from_bits(tile.value::<T>(i).to_bits64());
                    (*moments.add(tile.place::<LANES>(i))).push(v);
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
        merge_with(&mut self.moments, &other.moments, mapping, lanes, |m, t| *m = m.join(t))
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            // SAFETY: g < groups.
            unsafe { out.put(g, self.total(g, lanes).unwrap_or(0.0)) };
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |g| self.total(g, lanes).is_some()) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
