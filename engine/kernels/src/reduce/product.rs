//! Exact products of integers.

use crate::prim::{Native, Prim, with_int};
use crate::tile::mem::{load, load_bits};

/// The exact product of some integers, or that its magnitude is 2^64 or more. Factors may come in
/// any order: a zero makes zero of whatever there is besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProductInt {
    zero: bool,
    negative: bool,
    /// Of the factors that are not zero; none: 2^64 or more.
    magnitude: Option<u64>,
}

impl Default for ProductInt {
    fn default() -> Self {
        ProductInt::EMPTY
    }
}

impl ProductInt {
    /// The product of nothing: one.
    pub const EMPTY: ProductInt = ProductInt { zero: false, negative: false, magnitude: Some(1) };

    /// One factor more.
    #[inline(always)]
    pub(crate) fn push<T: Native>(&mut self, v: T) {
        let bits = v.to_bits64();
        let negative = T::PRIM.is_signed() && (bits as i64) < 0;
        let magnitude = if negative { bits.wrapping_neg() } else { bits };
        if magnitude == 0 {
            self.zero = true;
        } else {
            self.negative ^= negative;
            self.magnitude = self.magnitude.and_then(|m| m.checked_mul(magnitude));
        }
    }

    /// The factors of both.
    pub fn merge(self, other: ProductInt) -> ProductInt {
        ProductInt {
            zero: self.zero | other.zero,
            negative: self.negative ^ other.negative,
            magnitude: self.magnitude.zip(other.magnitude).and_then(|(a, b)| a.checked_mul(b)),
        }
    }

    /// The product; `None` if its magnitude is 2^64 or more.
    pub fn value(self) -> Option<i128> {
        if self.zero {
            return Some(0);
        }
        let magnitude = i128::from(self.magnitude?);
        Some(if self.negative { -magnitude } else { magnitude })
    }
}

/// `(values, mask, rows) -> the exact product`. `rows` is not bounded by the tile size.
///
/// # Safety (of the call)
/// `values` is readable for `rows` values, `mask` is null or readable for `ceil(rows / 8)` bytes.
pub type ProductIntFn = unsafe fn(values: *const u8, mask: *const u8, rows: usize) -> ProductInt;

/// The exact product of an integer type. `None` for floats: see [`super::ProductF64`]. One chain of
/// multiplications, which no instruction level has wider.
pub fn product_int(p: Prim) -> Option<ProductIntFn> {
    with_int!(p, T => product_of::<T> as ProductIntFn)
}

/// # Safety
/// As [`ProductIntFn`].
unsafe fn product_of<T: Native>(values: *const u8, mask: *const u8, rows: usize) -> ProductInt {
    let mut product = ProductInt::EMPTY;
    for w in 0..rows.div_ceil(64) {
        let n = (rows - 64 * w).min(64);
        // SAFETY: 64 * w < rows.
        let word = if mask.is_null() { !0 } else { unsafe { load_bits(mask, w, rows) } };
        for k in 0..n {
            if word >> k & 1 != 0 {
                // SAFETY: 64 * w + k < rows.
                product.push(unsafe { load::<T>(values, 64 * w + k) });
            }
        }
        if product.zero {
            break;
        }
    }
    product
}
