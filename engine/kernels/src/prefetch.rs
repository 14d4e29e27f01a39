//! Asking for memory ahead of its use.

/// Asks for `bytes` bytes from `p` on to be brought into the second-level cache. A hint: any
/// address is allowed, none is accessed.
///
/// Pays where a program reads several columns and computes between them: each returns to its column
/// after the others had theirs, and the prefetchers of the CPU begin anew. In small shares between
/// the loops, not all at once, and not into the first level, where the tiles at work are (Q6's shape
/// over 10M rows, one thread of a Zen 4: 31 ms without, 22 at once, 37 into the first level; in
/// shares, with the sums masked, 20 and 13).
#[inline]
pub fn prefetch(p: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        // SAFETY: SSE is part of x86-64, and a prefetch of any address has no effect but on caches.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(line).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (p, bytes);
}

/// By how many bytes a loop over one column asks ahead of its reads.
const AHEAD: usize = 4096;

/// Asks for the line that a loop over one column comes to [`AHEAD`] bytes after `p`. To be called
/// between the loop's reads, a few lines at a time: the prefetchers of the CPU stop at the end of each
/// page and begin anew on the next (masked sum of 80 MB in pages of 4 KiB, two threads of a Zen 3:
/// 4.6 ms without, 3.6 so, 5.3 with the lines of 2 KiB at once). Loops that do nothing but read gain
/// nothing.
#[inline(always)]
pub(crate) fn line_ahead(p: *const u8) {
    prefetch(p.wrapping_add(AHEAD), 64);
}
