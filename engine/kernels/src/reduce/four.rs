//! Masked blocks of floats four rows at a time, by AVX2: the rows that count straight from the bits.

use crate::prefetch::line_ahead;
use crate::reduce::sum::{BLOCK, Wide};

/// By how much a word of 32 rows is shifted for the bit of each to be the sign of 64.
static TO_SIGN: [u64; 32] = {
    let mut shifts = [0; 32];
    let mut row = 0;
    while row < 32 {
        shifts[row] = 63 - row as u64;
        row += 1;
    }
    shifts
};

/// Calls `f` for each four rows of a block, in order, with the number of the first, the rows, and
/// whether they count as the signs of four lanes: what AVX2 blends by. Straight from memory and from
/// the bits, where going through a blended copy costs several times the reduction itself.
///
/// # Safety
/// `p` is readable for BLOCK values; the CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn each_four<T: Wide>(
    p: *const u8,
    mask: &[u64; 4],
    mut f: impl FnMut(usize, std::arch::x86_64::__m256d, std::arch::x86_64::__m256d),
) {
    use std::arch::x86_64::*;
    // Of as many rows at a time as the inner loop is unrolled for: what `f` keeps for each of eight
    // fours then stays in registers.
    for half in 0..BLOCK / 32 {
        let bytes = 32 * size_of::<T>();
        for line in (0..bytes).step_by(64) {
            line_ahead(p.wrapping_add(half * bytes + line));
        }
        let word = mask[half / 2] >> (32 * (half % 2));
        for k in 0..8 {
            // SAFETY: the CPU has AVX2; 32 * half + 4 * k + 4 <= BLOCK, and 4 * k + 4 <= 32.
            unsafe {
                let shifts = _mm256_loadu_si256(TO_SIGN.as_ptr().add(4 * k).cast());
                let signs = _mm256_sllv_epi64(_mm256_set1_epi64x(word as i64), shifts);
                let row = 32 * half + 4 * k;
                f(row, T::load4(p, row), _mm256_castsi256_pd(signs));
            }
        }
    }
}
