//! Hashing of keys for tables that live as long as one query.
//!
//! Of byte strings, the idea is the folded multiply known from wyhash and foldhash: multiply two 64-bit words into
//! 128 bits and xor the halves, so that every bit of the input reaches the top bits, which the
//! tables take as the slot number. The seeds are fixed: group numbers follow first appearance, so
//! a hash never shows in a result.

use crate::bytes;

/// Odd digits of pi: no structure.
const K0: u64 = 0x243f_6a88_85a3_08d3;
const K1: u64 = 0xa409_3822_299f_31d1;
const K2: u64 = 0x4528_21e6_38d0_1377;

/// The halves of the 128-bit product of `a` and `b`, xored.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let p = (a as u128).wrapping_mul(b as u128);
    (p as u64) ^ ((p >> 64) as u64)
}

/// Brings the high bits down, and everything up to the top.
#[inline(always)]
const fn mix(x: u64) -> u64 {
    (x ^ (x >> 32)).wrapping_mul(K1)
}

/// Hash of a word: the top bits are the good ones. No folded product, which does not vectorise, but
/// multiply, shift, multiply. (One multiplication alone resonates with some strides of the keys:
/// up to 20 places looked at instead of 1.2.)
#[inline(always)]
pub const fn hash_word(x: u64) -> u64 {
    mix(x.wrapping_mul(K1))
}

/// Hash of two words: the top bits are the good ones.
#[inline(always)]
pub const fn hash_words(lo: u64, hi: u64) -> u64 {
    mix(lo.wrapping_mul(K1).wrapping_add(hi.wrapping_mul(K2)))
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
    // The middle of the product, where most bits of the input meet, comes to its top.
    let h = fold(lo ^ h, hi ^ K1) ^ lo.wrapping_mul(K2);
    h ^ (h << 32)
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

    /// Mean number of places looked at to find `keys` keys again, in a table of `places`.
    fn probes(keys: u64, places: usize, hash: impl Fn(u64) -> u64) -> f64 {
        let shift = 64 - places.trailing_zeros();
        let mut taken = vec![false; places];
        let mut looked = 0usize;
        for k in 0..keys {
            let mut at = (hash(k) >> shift) as usize;
            looked += 1;
            while taken[at % places] {
                at += 1;
                looked += 1;
            }
            taken[at % places] = true;
        }
        looked as f64 / keys as f64
    }

    #[test]
    fn regular_keys_are_found_in_few_steps() {
        // A random function looks at 1.15 places on average in a quarter full table, at 1.5 in a
        // half full one.
        let steps = [1u64, 2, 3, 10, 1000, 1 << 20, 1 << 32, 1 << 40, 1 << 52, 86_400_000_000];
        let tables = [(250, 1024, 1.4), (4000, 16_384, 1.4), (32_000, 65_536, 1.8)];
        for (keys, places, most) in tables.into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
            for step in steps {
                // Beyond 64 bits the keys would repeat.
                let keys = keys.min(u64::MAX / step);
                let at = |i: u64| i.wrapping_mul(step);
                let found = [
                    probes(keys, places, |i| hash_word(at(i))),
                    probes(keys, places, |i| hash_word(at(i).wrapping_neg())),
                    probes(keys, places, |i| hash_word((i as f64 * step as f64).to_bits())),
                    probes(keys, places, |i| hash_words(at(i), 3 << 56)),
                    probes(keys, places, |i| hash_words(7, at(i))),
                ];
                for (k, found) in found.iter().enumerate() {
                    assert!(*found < most, "{keys} keys, step {step}, hash {k}: {found}");
                }
            }
        }
    }

    #[test]
    fn every_length_and_every_byte_matters() {
        let mut seen = HashSet::new();
        let hash = |b: &[u8]| {
            // SAFETY: the slice is readable for its length.
            unsafe { hash_bytes(b.as_ptr(), b.len()) }
        };
        for len in (0..80usize).step_by(if cfg!(miri) { 5 } else { 1 }) {
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
