//! Hashing of keys for tables that live as long as one query.
//!
//! The idea is the folded multiply known from wyhash and foldhash: multiply two 64-bit words into
//! 128 bits and xor the halves, so that every bit of the input reaches the top bits, which the
//! tables take as the slot number. The seeds are fixed: group numbers follow first appearance, so
//! a hash never shows in a result.

use crate::bytes;

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd1b5_4a32_d192_ed03;
const K2: u64 = 0x8cb9_2ba7_2f3d_8dd7;

/// The halves of the 128-bit product of `a` and `b`, xored.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let p = (a as u128).wrapping_mul(b as u128);
    (p as u64) ^ ((p >> 64) as u64)
}

/// Brings the middle of a folded product, where most bits of the input meet, to its top.
#[inline(always)]
const fn finish(h: u64) -> u64 {
    h ^ (h << 32)
}

/// Hash of a word. The top bits are the best ones.
#[inline(always)]
pub const fn hash_word(x: u64) -> u64 {
    finish(fold(x ^ K0, K1))
}

/// Hash of two words.
#[inline(always)]
pub const fn hash_words(lo: u64, hi: u64) -> u64 {
    // One round: a constant on each side keeps zeros from wiping the other word out; the last xor
    // keeps what a product with an unlucky factor would lose.
    finish(fold(lo ^ K0, hi ^ K1) ^ lo.wrapping_mul(K2))
}

/// Hash of a byte string of any length.
///
/// # Safety
/// `p` is readable for `len` bytes.
#[inline]
pub unsafe fn hash_bytes(p: *const u8, len: usize) -> u64 {
    // (The length is spread first, or it could stand for a byte of the string.)
    let mut h = K2.wrapping_add((len as u64).wrapping_mul(K0));
    let mut at = 0;
    while len - at > 16 {
        // SAFETY: at + 16 < len.
        let (a, b) = unsafe { (bytes::word(p.add(at)), bytes::word(p.add(at + 8))) };
        h = fold(a ^ h, b ^ K0);
        at += 16;
    }
    // The last 16 bytes, some of them for a second time; of a short string all there is.
    let (lo, hi) = if len >= 16 {
        // SAFETY: the last 16 bytes lie within the string.
        unsafe { (bytes::word(p.add(len - 16)), bytes::word(p.add(len - 8))) }
    } else {
        // SAFETY: len bytes are readable.
        let v = unsafe { bytes::packed(p, len, len) };
        (v as u64, (v >> 64) as u64)
    };
    finish(fold(lo ^ h, hi ^ K1) ^ lo.wrapping_mul(K2))
}

/// Asks for a cache line ahead of its use. Any address is allowed: nothing is accessed.
#[inline(always)]
pub(crate) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch does not access memory and never faults; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn consecutive_words_spread_over_the_top_bits() {
        // 4096 balls into 4096 bins leave 1 - 1/e = 63 % of the bins used if the hash is good.
        for step in [1u64, 2, 1000, 1 << 20, 1 << 40, 86_400_000_000] {
            let used: HashSet<u64> =
                (0..4096u64).map(|i| hash_word(i.wrapping_mul(step)) >> 52).collect();
            assert!(used.len() > 2400, "step {step}: {} bins", used.len());
            let used: HashSet<u64> =
                (0..4096u64).map(|i| hash_words(i.wrapping_mul(step), 3 << 56) >> 52).collect();
            assert!(used.len() > 2400, "step {step}: {} bins", used.len());
            let used: HashSet<u64> =
                (0..4096u64).map(|i| hash_words(7, i.wrapping_mul(step)) >> 52).collect();
            assert!(used.len() > 2400, "step {step}: {} bins", used.len());
        }
    }

    #[test]
    fn every_length_and_every_byte_matters() {
        let mut seen = HashSet::new();
        let hash = |b: &[u8]| {
            // SAFETY: the slice is readable for its length.
            unsafe { hash_bytes(b.as_ptr(), b.len()) }
        };
        for len in 0..80usize {
            let zeros = vec![0u8; len];
            assert!(seen.insert(hash(&zeros)), "length {len}");
            for at in 0..len {
                let mut one = zeros.clone();
                one[at] = 1;
                assert!(seen.insert(hash(&one)), "byte {at} of {len}");
            }
        }
    }
}
