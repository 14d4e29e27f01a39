//! The loops themselves: flat, over raw pointers, at the widest level that this processor has.

/// How a pass writes. See [`crate::floor_write`].
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    Triad,
    TriadStream,
    TriadInPlace,
    Copy,
    CopyStream,
}

impl Shape {
    pub(crate) fn from_number(number: u32) -> Option<Shape> {
        [Shape::Triad, Shape::TriadStream, Shape::TriadInPlace, Shape::Copy, Shape::CopyStream]
            .get(number as usize)
            .copied()
    }
}

const SCALE: f64 = 0.5;

/// Reads `STREAMS` parts of the range side by side: one stream alone does not keep the memory busy.
///
/// # Safety
///
/// `bytes` readable bytes at `address`, which is aligned to 8.
#[inline(always)]
unsafe fn read_body<const STREAMS: usize>(address: usize, bytes: usize) -> u64 {
    let (words, part) = (address as *const u64, bytes / 8 / STREAMS);
    let mut sums = [0u64; STREAMS];
    for i in 0..part {
        for (stream, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `stream * part + i` is below `STREAMS * part`, which the range holds.
            *sum = sum.wrapping_add(unsafe { words.add(stream * part + i).read() });
        }
    }
    for i in STREAMS * part..bytes / 8 {
        // SAFETY: `i` is below the number of words.
        sums[0] = sums[0].wrapping_add(unsafe { words.add(i).read() });
    }
    sums.iter().fold(0, |sum, part| sum.wrapping_add(*part))
}

/// # Safety
///
/// As [`crate::floor_write`] demands of its buffers.
#[inline(always)]
unsafe fn triad_body(out: *mut f64, a: *const f64, b: *const f64, rows: usize) {
    for i in 0..rows {
        // SAFETY: `i < rows`, which all three hold.
        unsafe { *out.add(i) = *a.add(i) + SCALE * *b.add(i) };
    }
}

/// Its own loop: were the destination passed as an operand of [`triad_body`], the compiler's test for
/// overlap would take the scalar way.
///
/// # Safety
///
/// As [`crate::floor_write`] demands of its buffers.
#[inline(always)]
unsafe fn in_place_body(out: *mut f64, a: *const f64, rows: usize) {
    for i in 0..rows {
        // SAFETY: `i < rows`, which both hold.
        unsafe { *out.add(i) += SCALE * *a.add(i) };
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{SCALE, in_place_body, read_body, triad_body};
    use std::arch::x86_64::*;

    /// The same five loops for one register width.
    macro_rules! level {
        ($name:ident, $feature:literal, $lanes:literal, $set:ident, $load:ident, $add:ident, $mul:ident, $stream:ident) => {
            pub(crate) mod $name {
                use super::*;

                /// # Safety
                /// The processor has this level; otherwise as [`read_body`].
                #[target_feature(enable = $feature)]
                pub(crate) unsafe fn read(streams: u32, address: usize, bytes: usize) -> u64 {
                    // SAFETY: passed on.
                    unsafe {
                        match streams {
                            1 => read_body::<1>(address, bytes),
                            2 => read_body::<2>(address, bytes),
                            _ => read_body::<4>(address, bytes),
                        }
                    }
                }

                /// # Safety
                /// The processor has this level; otherwise as [`triad_body`].
                #[target_feature(enable = $feature)]
                pub(crate) unsafe fn triad(
                    out: *mut f64,
                    a: *const f64,
                    b: *const f64,
                    rows: usize,
                ) {
                    // SAFETY: passed on.
                    unsafe { triad_body(out, a, b, rows) }
                }

                /// # Safety
                /// The processor has this level; otherwise as [`in_place_body`].
                #[target_feature(enable = $feature)]
                pub(crate) unsafe fn in_place(out: *mut f64, a: *const f64, rows: usize) {
                    // SAFETY: passed on.
                    unsafe { in_place_body(out, a, rows) }
                }

                /// # Safety
                /// The processor has this level; 64-byte alignment, and `rows` a multiple of 8.
                #[target_feature(enable = $feature)]
                pub(crate) unsafe fn triad_stream(
                    out: *mut f64,
                    a: *const f64,
                    b: *const f64,
                    rows: usize,
                ) {
                    let scale = $set(SCALE);
                    let mut i = 0;
                    while i + $lanes <= rows {
                        // SAFETY: `i + lanes <= rows`, and `out` is aligned to 64 like every multiple of the
                        // register's width from it.
                        unsafe {
                            $stream(out.add(i), $add($load(a.add(i)), $mul(scale, $load(b.add(i)))))
                        };
                        i += $lanes;
                    }
                    _mm_sfence();
                }

                /// # Safety
                /// As [`triad_stream`], without `b`.
                #[target_feature(enable = $feature)]
                pub(crate) unsafe fn copy_stream(out: *mut f64, a: *const f64, rows: usize) {
                    let mut i = 0;
                    while i + $lanes <= rows {
                        // SAFETY: as in `triad_stream`.
                        unsafe { $stream(out.add(i), $load(a.add(i))) };
                        i += $lanes;
                    }
                    _mm_sfence();
                }
            }
        };
    }

    level!(
        w512,
        "avx512f",
        8,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_add_pd,
        _mm512_mul_pd,
        _mm512_stream_pd
    );
    level!(
        w256,
        "avx2",
        4,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_add_pd,
        _mm256_mul_pd,
        _mm256_stream_pd
    );
    level!(w128, "sse2", 2, _mm_set1_pd, _mm_loadu_pd, _mm_add_pd, _mm_mul_pd, _mm_stream_pd);
}

/// Bits of the widest registers; 0 where there is no loop for this processor but the plain one.
pub(crate) fn level() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            512
        } else if is_x86_feature_detected!("avx2") {
            256
        } else {
            128
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Calls the loop of this processor's level; elsewhere, what stands for it.
macro_rules! dispatch {
    ($loop:ident($($arg:expr),*), $otherwise:expr) => {{
        #[cfg(target_arch = "x86_64")]
        let result = match level() {
            512 => wide::w512::$loop($($arg),*),
            256 => wide::w256::$loop($($arg),*),
            _ => wide::w128::$loop($($arg),*),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let result = $otherwise;
        result
    }};
}

/// A checksum of `bytes` bytes, read as 1, 2 or 4 streams side by side.
///
/// # Safety
///
/// `bytes` readable bytes at `address`, which is aligned to 8.
pub(crate) unsafe fn read(streams: u32, address: usize, bytes: usize) -> u64 {
    // SAFETY: passed on; the level was asked of the processor.
    unsafe { dispatch!(read(streams, address, bytes), read_body::<1>(address, bytes)) }
}

/// One piece of a pass that writes.
///
/// # Safety
///
/// As [`crate::floor_write`] demands, for `bytes` bytes from these addresses.
pub(crate) unsafe fn write(shape: Shape, out: usize, a: usize, b: usize, bytes: usize) {
    let (out, a, b, rows) = (out as *mut f64, a as *const f64, b as *const f64, bytes / 8);
    // SAFETY: passed on; the level was asked of the processor.
    unsafe {
        match shape {
            Shape::Triad => dispatch!(triad(out, a, b, rows), triad_body(out, a, b, rows)),
            Shape::TriadStream => {
                dispatch!(triad_stream(out, a, b, rows), triad_body(out, a, b, rows))
            }
            Shape::TriadInPlace => dispatch!(in_place(out, a, rows), in_place_body(out, a, rows)),
            Shape::Copy => out.copy_from_nonoverlapping(a, rows),
            Shape::CopyStream => {
                dispatch!(copy_stream(out, a, rows), out.copy_from_nonoverlapping(a, rows))
            }
        }
    }
}
