//! Finding rows: the first or last that counts, the first of a value.

use crate::prim::{Native, Prim, with_prim};
use crate::tile::mem::{load, load_bits, low_bits};

/// The first of `rows` bits that is set; a null pointer is all ones.
///
/// # Safety
/// `mask` is null or readable for `ceil(rows / 8)` bytes.
pub unsafe fn first_bit(mask: *const u8, rows: usize) -> Option<usize> {
    if mask.is_null() {
        return (rows > 0).then_some(0);
    }
    // SAFETY: by contract.
    unsafe { super::first_set(mask, rows) }
}

/// The last of `rows` bits that is set; a null pointer is all ones.
///
/// # Safety
/// As [`first_bit`].
pub unsafe fn last_bit(mask: *const u8, rows: usize) -> Option<usize> {
    if mask.is_null() {
        return rows.checked_sub(1);
    }
    (0..rows.div_ceil(64)).rev().find_map(|w| {
        // SAFETY: 64 * w < rows.
        let word = unsafe { load_bits(mask, w, rows) };
        word.checked_ilog2().map(|bit| 64 * w + bit as usize)
    })
}

/// The first row that counts and equals a value given as [`Native::to_bits64`] (−0.0 equals 0.0).
///
/// # Safety
/// `values` is readable for `rows` values of type `p`, `mask` is null or readable for
/// `ceil(rows / 8)` bytes.
pub unsafe fn position(
    p: Prim,
    values: *const u8,
    mask: *const u8,
    rows: usize,
    value: u64,
) -> Option<usize> {
    with_prim!(p, T => {
        let value = T::from_bits64(value);
        (0..rows.div_ceil(64)).find_map(|w| {
            let n = (rows - 64 * w).min(64);
            // SAFETY: 64 * w < rows.
            let word = if mask.is_null() { low_bits(n) } else { unsafe { load_bits(mask, w, rows) } };
            (0..n)
                // SAFETY: 64 * w + k < rows.
                .find(|k| word >> k & 1 != 0 && unsafe { load::<T>(values, 64 * w + k) } == value)
                .map(|k| 64 * w + k)
        })
    })
}

/// Value `row` of a column as it lies in memory, zero-extended.
///
/// # Safety
/// `values` is readable for `row + 1` values of type `p`.
pub unsafe fn raw_bits(p: Prim, values: *const u8, row: usize) -> u64 {
    // SAFETY: by contract; every bit pattern is an integer.
    unsafe {
        match p.width() {
            1 => u64::from(load::<u8>(values, row)),
            2 => u64::from(load::<u16>(values, row)),
            4 => u64::from(load::<u32>(values, row)),
            _ => load::<u64>(values, row),
        }
    }
}
