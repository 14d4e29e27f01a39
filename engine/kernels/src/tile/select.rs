//! Choosing between two columns by a bitmap, and broadcasting one value.

use super::mem::{load, load_bits, low_bits, store, store_word};
use super::{Kernel, TileFn, tile_fn};
use crate::level::{Level, V4, leveled};
use crate::prim::Native;
use std::marker::PhantomData;

/// The kernel `dst = if mask { then } else { otherwise }` for values of `width` bytes, operands
/// `[mask bitmap, then, otherwise]`. `None`: the width is not 1, 2, 4 or 8.
pub fn select(width: usize, level: Level) -> Option<TileFn> {
    Some(match width {
        1 => tile_fn::<Select<i8>>(level),
        2 => tile_fn::<Select<i16>>(level),
        4 => tile_fn::<Select<i32>>(level),
        8 => tile_fn::<Select<i64>>(level),
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

impl<T: Word> Kernel for Select<T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [mask, a, b, _] = *src;
        // SAFETY: passed on as it is.
        unsafe { blend_body::<T, L>(dst, a, b, size_of::<T>(), mask, rows) }
    }
}

/// `(dst, then, otherwise, step, mask, rows)`: see [`blend`].
pub(crate) type BlendFn =
    unsafe fn(*mut u8, *const u8, *const u8, step: usize, mask: *const u8, rows: usize);

/// [`select`] for other loops' use, out of line so that it is compiled once per width and level.
/// `step` is the width, or 0: `otherwise` is then 64 equal values. `rows` is not bounded.
pub(crate) fn blend<T: Native>(level: Level) -> BlendFn {
    match size_of::<T>() {
        1 => blend_of::<i8>(level),
        2 => blend_of::<i16>(level),
        4 => blend_of::<i32>(level),
        _ => blend_of::<i64>(level),
    }
}

leveled! {
    fn blend_of<T: Word>(
        dst: *mut u8, a: *const u8, b: *const u8, step: usize, mask: *const u8, rows: usize,
    ) = blend_body
}

#[inline(always)]
unsafe fn blend_body<T: Word, const L: u8>(
    dst: *mut u8,
    a: *const u8,
    b: *const u8,
    step: usize,
    mask: *const u8,
    rows: usize,
) {
    for w in 0..rows.div_ceil(64) {
        let at = 64 * w * size_of::<T>();
        // SAFETY: row 64 * w is within operands and destination, and `left` rows follow; `b` has
        // 64 values from 64 * w * step on where that many rows follow.
        unsafe {
            let word = load_bits(mask, w, rows);
            let (d, a, b, left) = (dst.add(at), a.add(at), b.add(64 * w * step), rows - 64 * w);
            if L == V4 && left >= 64 {
                blend64::<T>(d, a, b, word);
            } else {
                blend_by_table::<T>(d, a, b, word, left.min(64));
            }
        }
    }
}

/// Bits to bytes by table, bytes to values by sign extension: LLVM vectorises that. Of a test of
/// bits it makes branches, which random masks mispredict (0.4 to 3 ns a row).
///
/// # Safety
/// `a` and `b` are readable, `d` writable for `rows` (at most 64) values.
#[inline(always)]
unsafe fn blend_by_table<T: Word>(d: *mut u8, a: *const u8, b: *const u8, word: u64, rows: usize) {
    let mut bytes = [[0i8; 8]; 8];
    for (k, eight) in bytes.iter_mut().enumerate() {
        *eight = SPREAD[(word >> (8 * k)) as usize & 0xff];
    }
    let masks = bytes.as_flattened();
    // The bound is not a constant, so that this stays a loop and is not unrolled 64 times.
    for (j, m) in masks.iter().enumerate().take(rows) {
        // SAFETY: j < rows.
        unsafe { store::<T>(d, j, T::blend(load(a, j), load(b, j), *m)) }
    }
}

/// # Safety
/// `a` and `b` are readable, `d` writable for 64 values; the CPU has v4.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn blend64<T: Word>(d: *mut u8, a: *const u8, b: *const u8, word: u64) {
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
}

/// # Safety
/// As [`blend_by_table`] with 64 rows.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn blend64<T: Word>(d: *mut u8, a: *const u8, b: *const u8, word: u64) {
    // SAFETY: passed on.
    unsafe { blend_by_table::<T>(d, a, b, word, 64) }
}

/// A signed integer that stands for any type of its width.
trait Word: Native {
    /// `a` where the mask is -1, `b` where it is 0.
    fn blend(a: Self, b: Self, mask: i8) -> Self;
}

macro_rules! word {
    ($($t:ty),*) => {$(
        impl Word for $t {
            #[inline(always)]
            #[allow(clippy::useless_conversion)]
            fn blend(a: $t, b: $t, mask: i8) -> $t {
                let m = <$t>::from(mask);
                a & m | b & !m
            }
        }
    )*};
}
word!(i8, i16, i32, i64);

/// For each byte of a bitmap, eight bytes of all ones or zeros.
static SPREAD: [[i8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut i = 0;
    while i < 256 * 8 {
        table[i / 8][i % 8] = if (i / 8) >> (i % 8) & 1 != 0 { -1 } else { 0 };
        i += 1;
    }
    table
};

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
