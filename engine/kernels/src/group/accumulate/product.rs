//! Products per group.

use super::{Out, State, SumOverflow, Tile, extend, lanes_of, merge_with, same};
use crate::group::GroupError;
use crate::prim::{Native, Prim};
use crate::reduce::ProductInt;
use std::any::Any;
use std::marker::PhantomData;

/// Products of integers, exact.
#[derive(Debug)]
pub(super) struct ProductInts<T> {
    products: Vec<ProductInt>,
    _type: PhantomData<T>,
}

impl<T: Native> ProductInts<T> {
    pub(super) fn new() -> Self {
        ProductInts { products: Vec::new(), _type: PhantomData }
    }
}

impl<T: Native> State for ProductInts<T> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.products, slots, ProductInt::EMPTY)
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let products = self.products.as_mut_ptr();
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe {
                tile.each(|i| {
                    let product = &mut *products.add(tile.place::<LANES>(i));
                    product.push(tile.value::<T>(i));
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
        merge_with(&mut self.products, &other.products, mapping, lanes, |m, t| *m = m.merge(t))
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            let all = lanes_of(&self.products, g, lanes)
                .iter()
                .fold(ProductInt::EMPTY, |all, lane| all.merge(*lane));
            let over = GroupError::Overflow(SumOverflow { group: g, sum: all.value() });
            let product = all.value().ok_or(over)?;
            // SAFETY: g < groups.
            unsafe {
                if T::PRIM == Prim::U64 {
                    out.put(g, u64::try_from(product).map_err(|_| over)?);
                } else {
                    out.put(g, i64::try_from(product).map_err(|_| over)?);
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

/// Products of floats, in f64.
#[derive(Debug)]
pub(super) struct ProductFloats<T> {
    products: Vec<f64>,
    _type: PhantomData<T>,
}

impl<T: Native> ProductFloats<T> {
    pub(super) fn new() -> Self {
        ProductFloats { products: Vec::new(), _type: PhantomData }
    }
}

impl<T: Native> State for ProductFloats<T> {
    fn resize(&mut self, slots: usize) -> Result<(), GroupError> {
        extend(&mut self.products, slots, 1.0)
    }

    unsafe fn update(&mut self, tile: &Tile, lanes: usize) {
        let products = self.products.as_mut_ptr();
        with_lanes!(lanes, LANES => {
            // SAFETY: ids are below the number of groups, for which there is room.
            unsafe {
                tile.each(|i| {
                    let v = f64::from_bits(tile.value::<T>(i).to_bits64());
                    *products.add(tile.place::<LANES>(i)) *= v;
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
        merge_with(&mut self.products, &other.products, mapping, lanes, |m, t| *m *= t)
    }

    unsafe fn finish(&self, groups: usize, lanes: usize, out: &Out) -> Result<usize, GroupError> {
        for g in 0..groups {
            let product: f64 = match *lanes_of(&self.products, g, lanes) {
                [a, b, c, d] => (a * b) * (c * d),
                [a] => a,
                _ => 1.0,
            };
            let product = if product.is_nan() { f64::NAN } else { product };
            // SAFETY: g < groups.
            unsafe {
                if T::PRIM == Prim::F32 { out.put(g, product as f32) } else { out.put(g, product) }
            }
        }
        // SAFETY: by contract.
        Ok(unsafe { out.valid(groups, |_| true) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
