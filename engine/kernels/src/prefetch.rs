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
