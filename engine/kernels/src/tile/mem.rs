//! Unaligned loads and stores of values and bitmap words, and packing of 64 answers into a word.

use crate::level::{V3, V4};
use crate::prim::Native;

/// Value `i` of a column of `T`.
///
/// # Safety
/// `p` is readable for `i + 1` values.
#[inline(always)]
pub(crate) unsafe fn load<T: Native>(p: *const u8, i: usize) -> T {
    // SAFETY: in bounds by contract; every bit pattern is a T.
    unsafe { p.cast::<T>().add(i).read_unaligned() }
}

/// Writes value `i` of a column of `T`.
///
/// # Safety
/// `p` is writable for `i + 1` values.
#[inline(always)]
pub(crate) unsafe fn store<T: Native>(p: *mut u8, i: usize, v: T) {
    // SAFETY: in bounds by contract.
    unsafe { p.cast::<T>().add(i).write_unaligned(v) }
}

/// Word `w` of a bitmap.
///
/// # Safety
/// `p` is readable for `8 * (w + 1)` bytes.
#[inline(always)]
pub(crate) unsafe fn load_word(p: *const u8, w: usize) -> u64 {
    // SAFETY: in bounds by contract.
    u64::from_le(unsafe { p.cast::<u64>().add(w).read_unaligned() })
}

/// The first `bits` (1 to 63) bits of word `w` of a bitmap, the others zero. Reads only the bytes
/// that hold them.
///
/// # Safety
/// `p` is readable for `8 * w + ceil(bits / 8)` bytes.
#[inline(always)]
pub(crate) unsafe fn load_part(p: *const u8, w: usize, bits: usize) -> u64 {
    let mut word = 0u64;
    let bytes = bits.div_ceil(8);
    for k in 0..bytes {
        // SAFETY: byte k of the word is below ceil(bits / 8).
        word |= u64::from(unsafe { p.add(8 * w + k).read() }) << (8 * k);
    }
    word & low_bits(bits)
}

/// Word `w` of a bitmap of `rows` bits: whole, or its readable part.
///
/// # Safety
/// `p` is readable for `ceil(rows / 8)` bytes and `64 * w < rows`.
#[inline(always)]
pub(crate) unsafe fn load_bits(p: *const u8, w: usize, rows: usize) -> u64 {
    let left = rows - 64 * w;
    if left >= 64 {
        // SAFETY: the whole word is within the bitmap.
        unsafe { load_word(p, w) }
    } else {
        // SAFETY: `left` bits of the word are within the bitmap.
        unsafe { load_part(p, w, left) }
    }
}

/// `bits` (1 to 64) bits from bit `shift` (0 to 7) on, reading only the bytes that hold them.
///
/// # Safety
/// `p` is readable for `ceil((shift + bits) / 8)` bytes.
#[inline]
pub(crate) unsafe fn load_run(p: *const u8, shift: usize, bits: usize) -> u64 {
    // SAFETY: each branch reads the bytes that hold bits shift to shift + bits.
    let word = unsafe {
        if shift + bits < 64 {
            load_part(p, 0, shift + bits) >> shift
        } else {
            let low = load_word(p, 0) >> shift;
            let more = shift + bits - 64;
            if more == 0 { low } else { low | load_part(p, 1, more) << (64 - shift) }
        }
    };
    word & low_bits(bits)
}

/// Writes word `w` of a bitmap.
///
/// # Safety
/// `p` is writable for `8 * (w + 1)` bytes.
#[inline(always)]
pub(crate) unsafe fn store_word(p: *mut u8, w: usize, v: u64) {
    // SAFETY: in bounds by contract.
    unsafe { p.cast::<u64>().add(w).write_unaligned(v.to_le()) }
}

/// A word whose lowest `n` (0 to 64) bits are set.
#[inline(always)]
pub(crate) const fn low_bits(n: usize) -> u64 {
    if n >= 64 { !0 } else { (1u64 << n) - 1 }
}

/// Packs 64 bytes that are 0 or 1 into a word, byte 0 into bit 0.
#[inline(always)]
pub(crate) fn pack<const L: u8>(bytes: &[u8; 64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        let p = bytes.as_ptr();
        if L == V4 {
            // SAFETY: 64 readable bytes; V4 bodies run only where the CPU has AVX-512 BW.
            unsafe {
                let v = _mm512_loadu_si512(p.cast());
                _mm512_test_epi8_mask(v, v)
            }
        } else if L == V3 {
            // SAFETY: twice 32 readable bytes; V3 bodies run only where the CPU has AVX2.
            unsafe {
                let lo = _mm256_loadu_si256(p.cast());
                let hi = _mm256_loadu_si256(p.add(32).cast());
                let lo = _mm256_movemask_epi8(_mm256_slli_epi16::<7>(lo)) as u32;
                let hi = _mm256_movemask_epi8(_mm256_slli_epi16::<7>(hi)) as u32;
                u64::from(lo) | u64::from(hi) << 32
            }
        } else {
            let mut word = 0u64;
            for k in 0..4 {
                // SAFETY: four times 16 readable bytes; SSE2 is part of x86-64.
                let m = unsafe {
                    let v = _mm_loadu_si128(p.add(16 * k).cast());
                    _mm_movemask_epi8(_mm_slli_epi16::<7>(v)) as u32
                };
                word |= u64::from(m) << (16 * k);
            }
            word
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (L == V3, L == V4);
        pack_portable(bytes)
    }
}

/// [`pack`] without vector instructions: a multiplication gathers eight bytes' lowest bits.
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
#[inline(always)]
fn pack_portable(bytes: &[u8; 64]) -> u64 {
    let mut word = 0u64;
    for (k, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let gathered = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= gathered << (8 * k);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_agree() {
        let mut state = 7u64;
        for _ in 0..200 {
            let mut bytes = [0u8; 64];
            let mut expected = 0u64;
            for (i, b) in bytes.iter_mut().enumerate() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *b = (state >> 63) as u8;
                expected |= u64::from(*b) << i;
            }
            assert_eq!(pack_portable(&bytes), expected);
            assert_eq!(pack::<{ crate::level::BASELINE }>(&bytes), expected);
        }
    }

    #[test]
    fn a_partial_word_reads_only_its_bytes() {
        let bytes = [0xffu8; 9];
        for bits in 1..64 {
            // SAFETY: 9 bytes hold word 0.
            assert_eq!(unsafe { load_part(bytes.as_ptr(), 0, bits) }, low_bits(bits));
        }
        // SAFETY: byte 8 holds bits 64 to 71.
        assert_eq!(unsafe { load_bits(bytes.as_ptr(), 1, 67) }, 0b111);
    }
}
