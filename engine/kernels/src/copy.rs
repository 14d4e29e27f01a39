//! Copies into shared memory: plain and streaming, with statistics on the way, of bitmaps and
//! string offsets to their normal form.

use crate::level::{V3, V4, leveled};
use crate::tile::mem::{load_run, load_word, store_word};

mod offsets;
mod stats;

pub use offsets::{Offset, OffsetError, rebase_offsets};
pub use stats::{CopyStatsFn, ZoneStats, copy_with_stats};

/// `(dst, src, bytes)`: copies past the cache, for results larger than its share that are not read
/// again soon. Ends with a store fence, so that a later release store publishes the copy.
///
/// # Safety (of the call)
/// `src` is readable, `dst` writable for `bytes` bytes, and they do not overlap.
pub type StreamCopyFn = unsafe fn(dst: *mut u8, src: *const u8, bytes: usize);

leveled! {
    /// The streaming copy of a level. Where the architecture has no streaming stores it is a plain
    /// one.
    pub fn stream_copy<>(dst: *mut u8, src: *const u8, bytes: usize) = stream_copy_body
}

#[inline(always)]
unsafe fn stream_copy_body<const L: u8>(dst: *mut u8, src: *const u8, bytes: usize) {
    // SAFETY: passed on as it is.
    unsafe { stream::<L>(dst, src, bytes) }
    fence();
}

leveled! {
    /// A [`stream_copy`] without its fence, for copies in many pieces: call [`stream_fence`] after
    /// the last and before anything publishes them.
    pub fn stream_piece<>(dst: *mut u8, src: *const u8, bytes: usize) = stream
}

/// Orders the streaming stores of [`stream_piece`] before later stores of this thread.
pub fn stream_fence() {
    fence();
}

/// Orders streaming stores before later stores.
#[inline(always)]
fn fence() {
    // (Miri knows neither streaming stores nor their fence.)
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    }
}

/// A streaming copy without its fence: whole lines of the destination by streaming stores, its
/// unaligned ends by plain ones.
///
/// # Safety
/// As for [`StreamCopyFn`]; the level is one the CPU has.
#[inline(always)]
unsafe fn stream<const L: u8>(dst: *mut u8, src: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::*;
        let head = dst.align_offset(64).min(bytes);
        let lines = (bytes - head) / 64;
        // SAFETY: head, lines and tail partition the bytes; d is 64-byte aligned.
        unsafe {
            dst.copy_from_nonoverlapping(src, head);
            let (d, s) = (dst.add(head), src.add(head));
            for i in 0..lines {
                let (d, s) = (d.add(64 * i), s.add(64 * i));
                if L == V4 {
                    _mm512_stream_si512(d.cast(), _mm512_loadu_si512(s.cast()));
                } else if L == V3 {
                    let (a, b) =
                        (_mm256_loadu_si256(s.cast()), _mm256_loadu_si256(s.add(32).cast()));
                    _mm256_stream_si256(d.cast(), a);
                    _mm256_stream_si256(d.add(32).cast(), b);
                } else {
                    for k in 0..4 {
                        let v = _mm_loadu_si128(s.add(16 * k).cast());
                        _mm_stream_si128(d.add(16 * k).cast(), v);
                    }
                }
            }
            d.add(64 * lines)
                .copy_from_nonoverlapping(s.add(64 * lines), bytes - head - 64 * lines);
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    // SAFETY: passed on as it is.
    unsafe {
        let _ = (L == V3, L == V4);
        dst.copy_from_nonoverlapping(src, bytes)
    }
}

/// Zeroes `dst` from byte `len` to the next multiple of 64.
///
/// # Safety
/// `dst` is writable to the next multiple of 64 bytes from `len` on.
pub unsafe fn zero_padding(dst: *mut u8, len: usize) {
    // SAFETY: within what the caller promises.
    unsafe { dst.add(len).write_bytes(0, len.next_multiple_of(64) - len) }
}

/// `(dst, src, offset, rows) -> set bits`: copies `rows` bits of a bitmap from bit `offset` on to
/// bit 0 of `dst`, as `ceil(rows / 64)` whole words, bits past `rows` zero.
///
/// # Safety (of the call)
/// `src` is readable for `ceil((offset + rows) / 8)` bytes, `dst` writable for
/// `8 * ceil(rows / 64)` bytes; they do not overlap.
pub type CopyBitsFn = unsafe fn(dst: *mut u8, src: *const u8, offset: usize, rows: usize) -> usize;

leveled! {
    /// The copy of bitmaps. Also the way to read a bitmap from any row on: a chunk that begins
    /// inside a block, a slice.
    pub fn copy_bits<>(dst: *mut u8, src: *const u8, offset: usize, rows: usize) -> usize =
        copy_bits_body
}

#[inline(always)]
unsafe fn copy_bits_body<const L: u8>(
    dst: *mut u8,
    src: *const u8,
    offset: usize,
    rows: usize,
) -> usize {
    // SAFETY: the byte that holds the first bit.
    let (src, shift) = (unsafe { src.add(offset / 8) }, offset % 8);
    // Words of which a whole word and the byte after it can be read.
    let mut full = rows / 64;
    if shift != 0 && full > 0 && (shift + rows).div_ceil(8) < 8 * full + 1 {
        full -= 1;
    }
    let mut n = 0u64;
    for w in 0..full {
        // SAFETY: bits 64 * w to 64 * w + shift + 64 are within the source.
        unsafe {
            let mut word = load_word(src, w);
            if shift != 0 {
                let next = u64::from(src.add(8 * w + 8).read());
                word = word >> shift | next << (64 - shift);
            }
            n = n.wrapping_add(u64::from(word.count_ones()));
            store_word(dst, w, word);
        }
    }
    for w in full..rows.div_ceil(64) {
        let bits = (rows - 64 * w).min(64);
        // SAFETY: bits 64 * w to 64 * w + shift + bits are within the source.
        let word = unsafe { load_run(src.add(8 * w), shift, bits) };
        n = n.wrapping_add(u64::from(word.count_ones()));
        // SAFETY: w < ceil(rows / 64).
        unsafe { store_word(dst, w, word) }
    }
    n as usize
}

#[cfg(test)]
mod tests;
