//! Writing the selected rows of a tile one after another.
//!
//! Nothing is written past the rows that are selected: a result's parts, counted before, lie side
//! by side and may be written by different threads.

use crate::level::{Level, V3, V4, leveled};
use crate::prefetch::prefetch;
use crate::prim::Native;
use crate::tile::mem::{load, load_bits, low_bits, store};
use std::sync::atomic::{AtomicU64, Ordering};

/// `(dst, room, values, mask, rows) -> rows written`: writes the values whose bit is set to `dst`,
/// in order, and no more than `room` of them.
///
/// # Safety (of the call)
/// `dst` is writable for `room` values, which nobody else writes meanwhile (up to 63 of them past the
/// selected ones may be written with garbage), `values` readable for `rows` values, `mask` readable for
/// `ceil(rows / 8)` bytes; `dst` overlaps neither. `rows` is not bounded by the tile size.
pub type CompactFn =
    unsafe fn(dst: *mut u8, room: usize, values: *const u8, mask: *const u8, rows: usize) -> usize;

/// The function for values of `width` bytes. `None`: the width is not 1, 2, 4 or 8.
pub fn compact(width: usize, level: Level) -> Option<CompactFn> {
    #[cfg(target_arch = "x86_64")]
    if level.min(Level::detected()) == Level::V4 && is_x86_feature_detected!("avx512vbmi2") {
        match width {
            1 => return Some(compact_vbmi2::<u8>),
            2 => return Some(compact_vbmi2::<u16>),
            _ => {}
        }
    }
    Some(match width {
        1 => compact_of::<u8>(level),
        2 => compact_of::<u16>(level),
        4 => compact_of::<u32>(level),
        8 => compact_of::<u64>(level),
        _ => return None,
    })
}

leveled! {
    fn compact_of<T: Native>(
        dst: *mut u8, room: usize, values: *const u8, mask: *const u8, rows: usize,
    ) -> usize = compact_body
}

/// The loop over mask words, with nothing for words without and a copy for words with all rows.
#[inline(always)]
unsafe fn compact_body<T: Native, const L: u8>(
    dst: *mut u8,
    room: usize,
    values: *const u8,
    mask: *const u8,
    rows: usize,
) -> usize {
    let mut out = 0;
    for w in 0..rows.div_ceil(64) {
        // SAFETY: 64 * w < rows.
        let word = unsafe { load_bits(mask, w, rows) };
        // What follows these rows: other columns have their turn before.
        let width = size_of::<T>();
        prefetch(values.wrapping_add((64 * w + rows) * width), 64 * width);
        if word == 0 {
            continue;
        }
        let left = rows - 64 * w;
        // SAFETY: row 64 * w is within the values; `out` never exceeds `room`.
        unsafe {
            let from = values.add(64 * w * size_of::<T>());
            let to = dst.add(out * size_of::<T>());
            if word == !0 && room - out >= 64 {
                to.copy_from_nonoverlapping(from, 64 * size_of::<T>());
                out += 64;
            } else if left >= 64 && room - out >= 64 {
                // Whole vectors can be read and written.
                out += compact64::<T, L>(to, from, word);
            } else {
                out += each(to.cast::<T>(), room - out, from, word);
            }
        }
    }
    out
}

/// One set bit after the other, at most `room` of them.
///
/// # Safety
/// `to` is writable for `room` values, `from` readable up to the highest set bit.
#[inline(always)]
unsafe fn each<T: Native>(to: *mut T, room: usize, from: *const u8, word: u64) -> usize {
    let mut bits = word;
    let mut n = 0;
    while bits != 0 && n < room {
        // SAFETY: n < room; the bit is set.
        unsafe { store::<T>(to.cast(), n, load(from, bits.trailing_zeros() as usize)) };
        bits &= bits - 1;
        n += 1;
    }
    n
}

/// 64 rows where `to` has room for 64, written by whole vectors: what is written past the selected
/// rows is within the room that this call was given, and is overwritten by the next word.
///
/// # Safety
/// `to` is writable, `from` readable for 64 values.
#[inline(always)]
unsafe fn compact64<T: Native, const L: u8>(to: *mut u8, from: *const u8, word: u64) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        if L == V4 && size_of::<T>() >= 4 {
            let lanes = 64 / size_of::<T>();
            let mut n = 0;
            for k in 0..size_of::<T>() {
                let m = (word >> ((lanes * k) & 63)) & low_bits(lanes);
                // SAFETY: vector k is within 64 values; n <= lanes * k, so a whole vector has room.
                // Compressed in a register and stored whole: compressing stores are microcoded on
                // some CPUs.
                unsafe {
                    let x = _mm512_loadu_si512(from.add(64 * k).cast());
                    let packed = if size_of::<T>() == 8 {
                        _mm512_maskz_compress_epi64(m as u8, x)
                    } else {
                        _mm512_maskz_compress_epi32(m as u16, x)
                    };
                    _mm512_storeu_si512(to.add(n * size_of::<T>()).cast(), packed);
                }
                n += m.count_ones() as usize;
            }
            return n;
        }
        if L == V3 && size_of::<T>() >= 4 {
            let lanes = 32 / size_of::<T>();
            let mut n = 0;
            for k in 0..2 * size_of::<T>() {
                let m = (word >> (lanes * k)) & low_bits(lanes);
                // SAFETY: as above, for vectors of 32 bytes; the tables have 2^lanes rows.
                unsafe {
                    let x = _mm256_loadu_si256(from.add(32 * k).cast());
                    let table: *const [u32; 8] =
                        if size_of::<T>() == 8 { PAIRS.as_ptr() } else { SINGLES.as_ptr() };
                    let order = _mm256_loadu_si256(table.add(m as usize).cast());
                    let packed = _mm256_permutevar8x32_epi32(x, order);
                    _mm256_storeu_si256(to.add(n * size_of::<T>()).cast(), packed);
                }
                n += m.count_ones() as usize;
            }
            return n;
        }
    }
    let _ = (L == V3, L == V4);
    // SAFETY: room for 64 values.
    unsafe { each::<T>(to.cast(), 64, from, word) }
}

/// For each mask of eight 4-byte values, the set ones' positions in order.
static SINGLES: [[u32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut m = 0;
    while m < 256 {
        let (mut i, mut n) = (0, 0);
        while i < 8 {
            if m >> i & 1 != 0 {
                table[m][n] = i as u32;
                n += 1;
            }
            i += 1;
        }
        m += 1;
    }
    table
};

/// For each mask of four 8-byte values, the set ones' halves' positions in order.
static PAIRS: [[u32; 8]; 16] = {
    let mut table = [[0; 8]; 16];
    let mut m = 0;
    while m < 16 {
        let (mut i, mut n) = (0, 0);
        while i < 4 {
            if m >> i & 1 != 0 {
                table[m][n] = 2 * i as u32;
                table[m][n + 1] = 2 * i as u32 + 1;
                n += 2;
            }
            i += 1;
        }
        m += 1;
    }
    table
};

/// [`compact`] of 1 and 2 bytes on CPUs with AVX-512 VBMI2, which is not part of x86-64-v4.
///
/// # Safety
/// That of [`CompactFn`]; the CPU has v4 and VBMI2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,popcnt,bmi1,bmi2")]
unsafe fn compact_vbmi2<T: Native>(
    dst: *mut u8,
    room: usize,
    values: *const u8,
    mask: *const u8,
    rows: usize,
) -> usize {
    use std::arch::x86_64::*;
    let lanes = 64 / size_of::<T>();
    let mut out = 0;
    for w in 0..rows.div_ceil(64) {
        // SAFETY: 64 * w < rows.
        let word = unsafe { load_bits(mask, w, rows) };
        if word == 0 {
            continue;
        }
        // SAFETY: row 64 * w is within the values; `out` never exceeds `room`; whole vectors only
        // where 64 values can be read and written.
        unsafe {
            let from = values.add(64 * w * size_of::<T>());
            if rows - 64 * w < 64 || room - out < 64 {
                let to = dst.add(out * size_of::<T>());
                out += each::<T>(to.cast(), room - out, from, word);
                continue;
            }
            for k in 0..size_of::<T>() {
                let m = (word >> ((lanes * k) & 63)) & low_bits(lanes);
                let x = _mm512_loadu_si512(from.add(64 * k).cast());
                let packed = if size_of::<T>() == 1 {
                    _mm512_maskz_compress_epi8(m, x)
                } else {
                    _mm512_maskz_compress_epi16(m as u32, x)
                };
                _mm512_storeu_si512(dst.add(out * size_of::<T>()).cast(), packed);
                out += m.count_ones() as usize;
            }
        }
    }
    out
}

/// `(dst, at, bits, mask, rows) -> bits written`: appends the bits of `bits` whose bit in `mask` is
/// set to the bitmap `dst`, from bit `at` on.
///
/// The words of `dst` that the written bits lie in must have been zeroed: bits are or-ed in, in the
/// first and the last word atomically, so that threads may append to neighbouring ranges of one
/// bitmap.
///
/// # Safety (of the call)
/// `dst` is 8-byte aligned and writable for the words that hold bits `at` to `at` + selected rows;
/// `bits` and `mask` are readable for `ceil(rows / 8)` bytes and do not overlap `dst`. Other
/// threads write `dst` only through this function, other bits.
pub type CompactBitsFn =
    unsafe fn(dst: *mut u64, at: usize, bits: *const u8, mask: *const u8, rows: usize) -> usize;

leveled! {
    /// The function for bitmaps.
    pub fn compact_bits<>(
        dst: *mut u64, at: usize, bits: *const u8, mask: *const u8, rows: usize,
    ) -> usize = compact_bits_body
}

#[inline(always)]
unsafe fn compact_bits_body<const L: u8>(
    dst: *mut u64,
    at: usize,
    bits: *const u8,
    mask: *const u8,
    rows: usize,
) -> usize {
    let (mut word, mut filled) = (at / 64, at % 64);
    let mut first = true;
    let mut pending = 0u64;
    let mut written = 0;
    for w in 0..rows.div_ceil(64) {
        // SAFETY: 64 * w < rows.
        let (b, m) = unsafe { (load_bits(bits, w, rows), load_bits(mask, w, rows)) };
        let (packed, n) = (extract::<L>(b, m), m.count_ones() as usize);
        pending |= packed << filled;
        written += n;
        if filled + n >= 64 {
            // SAFETY: the word is full of bits that are ours to write, but for the first.
            unsafe { put(dst.add(word), pending, first) };
            first = false;
            word += 1;
            pending = if filled == 0 { 0 } else { packed >> (64 - filled) };
            filled = filled + n - 64;
        } else {
            filled += n;
        }
    }
    if pending != 0 {
        // SAFETY: a word that holds written bits; others may write its other bits.
        unsafe { put(dst.add(word), pending, true) };
    }
    written
}

/// Writes a word, or ors it into one that is shared.
///
/// # Safety
/// `p` is aligned and writable.
#[inline(always)]
unsafe fn put(p: *mut u64, v: u64, shared: bool) {
    if shared {
        // SAFETY: aligned and writable; all writers of shared words come through here.
        unsafe { AtomicU64::from_ptr(p) }.fetch_or(v.to_le(), Ordering::Relaxed);
    } else {
        // SAFETY: writable, and all its bits are ours.
        unsafe { p.write(v.to_le()) }
    }
}

/// The bits of `v` that are set in `m`, side by side from bit 0 on.
#[inline(always)]
fn extract<const L: u8>(v: u64, m: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if L >= V3 {
        // SAFETY: bodies of these levels run only where the CPU has BMI2.
        return unsafe { std::arch::x86_64::_pext_u64(v, m) };
    }
    if m == !0 {
        return v;
    }
    let (mut bits, mut out, mut n) = (m, 0u64, 0);
    while bits != 0 {
        out |= (v >> bits.trailing_zeros() & 1) << n;
        bits &= bits - 1;
        n += 1;
    }
    out
}

#[cfg(test)]
mod tests;
