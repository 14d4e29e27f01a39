//! Choosing between two columns by a bitmap, and broadcasting one value.

use super::mem::{load, load_bits, low_bits, store, store_word};
use super::{Kernel, TileFn, tile_fn};
use crate::level::{Level, V4};
use crate::prim::Native;
use std::marker::PhantomData;

/// The kernel `dst = if mask { then } else { otherwise }` for values of `width` bytes, operands
/// `[mask bitmap, then, otherwise]`. `None`: the width is not 1, 2, 4 or 8.
pub fn select(width: usize, level: Level) -> Option<TileFn> {
    Some(match width {
        1 => tile_fn::<Select<u8>>(level),
        2 => tile_fn::<Select<u16>>(level),
        4 => tile_fn::<Select<u32>>(level),
        8 => tile_fn::<Select<u64>>(level),
        _ => return None,
    })
}

/// [`select`] for booleans: all three operands and the result are bitmaps.
pub fn select_bits(level: Level) -> TileFn {
    tile_fn::<SelectBits>(level)
}

/// The kernel that writes operand 0, one value of `width` bytes, to all rows: makes broadcast
/// tiles. `None`: the width is not 1, 2, 4 or 8.
pub fn fill(width: usize, level: Level) -> Option<TileFn> {
    Some(match width {
        1 => tile_fn::<Fill<u8>>(level),
        2 => tile_fn::<Fill<u16>>(level),
        4 => tile_fn::<Fill<u32>>(level),
        8 => tile_fn::<Fill<u64>>(level),
        _ => return None,
    })
}

/// Sets `rows` bits of the bitmap at `dst` to `value`: `ceil(rows / 64)` words, bits past `rows`
/// zero. Not bounded by the tile size.
///
/// # Safety
/// `dst` is writable for `8 * ceil(rows / 64)` bytes.
pub unsafe fn fill_bits(dst: *mut u8, value: bool, rows: usize) {
    let word = if value { !0 } else { 0 };
    for w in 0..rows.div_ceil(64) {
        // SAFETY: w < ceil(rows / 64).
        unsafe { store_word(dst, w, word & low_bits(rows - 64 * w)) }
    }
}

struct Select<T>(PhantomData<T>);

impl<T: Native> Kernel for Select<T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [mask, a, b, _] = *src;
        for w in 0..rows.div_ceil(64) {
            // SAFETY: 64 * w < rows.
            let word = unsafe { load_bits(mask, w, rows) };
            let left = rows - 64 * w;
            let at = 64 * w * size_of::<T>();
            // SAFETY: row 64 * w is within operands and destination, and `left` rows follow.
            unsafe {
                let (d, a, b) = (dst.add(at), a.add(at), b.add(at));
                if left >= 64 {
                    blend64::<T, L>(d, a, b, word);
                } else {
                    for j in 0..left {
                        let v = if word >> j & 1 != 0 { load::<T>(a, j) } else { load(b, j) };
                        store::<T>(d, j, v);
                    }
                }
            }
        }
    }
}

/// 64 rows of [`select`].
///
/// # Safety
/// `a` and `b` are readable, `d` writable for 64 values; `L` is a level the CPU has.
#[inline(always)]
pub(crate) unsafe fn blend64<T: Native, const L: u8>(
    d: *mut u8,
    a: *const u8,
    b: *const u8,
    word: u64,
) {
    #[cfg(target_arch = "x86_64")]
    if L == V4 {
        use std::arch::x86_64::*;
        let lanes = 64 / size_of::<T>();
        for k in 0..size_of::<T>() {
            // SAFETY: vector k of size_of::<T>() vectors is within 64 values.
            unsafe {
                let x = _mm512_loadu_si512(a.add(64 * k).cast());
                let y = _mm512_loadu_si512(b.add(64 * k).cast());
                let m = word >> ((lanes * k) & 63);
                let v = match size_of::<T>() {
                    1 => _mm512_mask_blend_epi8(m, y, x),
                    2 => _mm512_mask_blend_epi16(m as u32, y, x),
                    4 => _mm512_mask_blend_epi32(m as u16, y, x),
                    _ => _mm512_mask_blend_epi64(m as u8, y, x),
                };
                _mm512_storeu_si512(d.add(64 * k).cast(), v);
            }
        }
        return;
    }
    for j in 0..64 {
        // Both are loaded, so that this is a blend and no branch.
        // SAFETY: j < 64.
        unsafe {
            let (x, y) = (load::<T>(a, j), load::<T>(b, j));
            store::<T>(d, j, if word >> j & 1 != 0 { x } else { y });
        }
    }
}

/// Copies `rows` values, those whose bit is clear replaced from `other`.
///
/// # Safety
/// `dst` is writable, `src` readable for `rows` values, `mask` for `rows` bits; `L` is a level the
/// CPU has.
#[inline(always)]
pub(crate) unsafe fn replace_rows<T: Native, const L: u8>(
    dst: *mut u8,
    src: *const u8,
    mask: *const u8,
    rows: usize,
    other: &[T; 64],
) {
    for w in 0..rows.div_ceil(64) {
        let at = 64 * w * size_of::<T>();
        // SAFETY: 64 * w < rows, and `rows - 64 * w` values follow there.
        unsafe {
            let word = load_bits(mask, w, rows);
            if rows - 64 * w >= 64 {
                blend64::<T, L>(dst.add(at), src.add(at), other.as_ptr().cast(), word);
            } else {
                for (j, other) in other.iter().enumerate().take(rows - 64 * w) {
                    let v = load::<T>(src.add(at), j);
                    store::<T>(dst.add(at), j, if word >> j & 1 != 0 { v } else { *other });
                }
            }
        }
    }
}

struct SelectBits;

impl Kernel for SelectBits {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [mask, a, b, _] = *src;
        for w in 0..rows.div_ceil(64) {
            // SAFETY: 64 * w < rows; the destination has ceil(rows / 64) words.
            unsafe {
                let m = load_bits(mask, w, rows);
                let v = (m & load_bits(a, w, rows)) | (!m & load_bits(b, w, rows));
                store_word(dst, w, v & low_bits(rows - 64 * w));
            }
        }
    }
}

struct Fill<T>(PhantomData<T>);

impl<T: Native> Kernel for Fill<T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        // SAFETY: the operand is one value.
        let v = unsafe { load::<T>(src[0], 0) };
        for i in 0..rows {
            // SAFETY: i < rows.
            unsafe { store::<T>(dst, i, v) }
        }
    }
}
