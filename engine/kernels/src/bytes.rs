//! Byte strings behind raw pointers: loads, equality and order that read no byte outside.
//!
//! Not slices: the bytes may lie in memory that another process writes.

use std::cmp::Ordering;

/// 16 times 0xff, then 16 zeros: a load at `16 - n` has `n` low bytes set.
static MASKS: [u8; 32] = {
    let mut m = [0u8; 32];
    let mut i = 0;
    while i < 16 {
        m[i] = 0xff;
        i += 1;
    }
    m
};

/// Eight bytes, the first the lowest.
///
/// # Safety
/// `p` is readable for 8 bytes.
#[inline(always)]
pub(crate) unsafe fn word(p: *const u8) -> u64 {
    // SAFETY: in bounds by contract.
    u64::from_le(unsafe { p.cast::<u64>().read_unaligned() })
}

/// A value whose lowest `n` bytes are 0xff. `n` is at most 16.
#[inline(always)]
pub(crate) fn low_mask(n: usize) -> u128 {
    // (The min costs nothing where n is known, and keeps the read inside whatever n is.)
    let p = MASKS.as_ptr();
    // SAFETY: 16 - n is in 0..=16, so 16 bytes from there lie in the 32.
    u128::from_le(unsafe { p.add(16 - n.min(16)).cast::<u128>().read_unaligned() })
}

/// A string of at most 16 bytes as a number: its bytes from the lowest on, zeros above.
///
/// # Safety
/// `p` is readable for `max(len, room)` bytes; `len <= 16`.
#[inline(always)]
pub(crate) unsafe fn packed(p: *const u8, len: usize, room: usize) -> u128 {
    if room >= 16 {
        // SAFETY: 16 bytes are readable.
        u128::from_le(unsafe { p.cast::<u128>().read_unaligned() }) & low_mask(len)
    } else {
        // SAFETY: len bytes are readable.
        unsafe { packed_exact(p, len) }
    }
}

/// [`packed`] that reads `len` bytes and no more.
#[cold]
#[inline(never)]
unsafe fn packed_exact(p: *const u8, len: usize) -> u128 {
    let mut v = 0u128;
    for i in 0..len.min(16) {
        // SAFETY: i < len.
        v |= u128::from(unsafe { p.add(i).read() }) << (8 * i);
    }
    v
}

/// Are the two strings of `len` bytes equal?
///
/// # Safety
/// Both are readable for `len` bytes.
#[inline]
pub(crate) unsafe fn equal(a: *const u8, b: *const u8, len: usize) -> bool {
    let mut at = 0;
    while len - at >= 8 {
        // SAFETY: at + 8 <= len.
        if unsafe { word(a.add(at)) != word(b.add(at)) } {
            return false;
        }
        at += 8;
    }
    while at < len {
        // SAFETY: at < len.
        if unsafe { a.add(at).read() != b.add(at).read() } {
            return false;
        }
        at += 1;
    }
    true
}

/// Order of two strings by their bytes, a prefix before what it begins.
///
/// # Safety
/// `a` is readable for `a_len` bytes, `b` for `b_len`.
#[inline]
pub(crate) unsafe fn order(a: *const u8, a_len: usize, b: *const u8, b_len: usize) -> Ordering {
    let len = a_len.min(b_len);
    let mut at = 0;
    while len - at >= 8 {
        // SAFETY: at + 8 <= len.
        let (x, y) = unsafe { (word(a.add(at)), word(b.add(at))) };
        if x != y {
            return x.swap_bytes().cmp(&y.swap_bytes());
        }
        at += 8;
    }
    while at < len {
        // SAFETY: at < len.
        let (x, y) = unsafe { (a.add(at).read(), b.add(at).read()) };
        if x != y {
            return x.cmp(&y);
        }
        at += 1;
    }
    a_len.cmp(&b_len)
}

/// Copies `len` bytes.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes; they do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: by contract.
    unsafe { std::ptr::copy_nonoverlapping(src, dst, len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_and_order_are_those_of_slices() {
        let all: Vec<Vec<u8>> = (0..20usize)
            .step_by(if cfg!(miri) { 4 } else { 1 })
            .flat_map(|len| {
                (0..=len).map(move |at| {
                    let mut v = vec![b'm'; len];
                    if at < len {
                        v[at] = if at % 2 == 0 { 0 } else { 0xff };
                    }
                    v
                })
            })
            .collect();
        for a in &all {
            for b in &all {
                // SAFETY: lengths are those of the vectors (of which equal takes the least).
                unsafe {
                    assert_eq!(order(a.as_ptr(), a.len(), b.as_ptr(), b.len()), a.cmp(b));
                    let n = a.len().min(b.len());
                    assert_eq!(equal(a.as_ptr(), b.as_ptr(), n), a[..n] == b[..n]);
                }
            }
        }
    }

    #[test]
    fn packing_is_the_same_with_and_without_room() {
        let data: Vec<u8> = (1..=32).collect();
        for len in 0..=16usize {
            let mut expected = [0u8; 16];
            expected[..len].copy_from_slice(&data[..len]);
            let exact = data[..len].to_vec();
            // SAFETY: 32 bytes are readable; of `exact` no more than its length is read.
            unsafe {
                assert_eq!(packed(data.as_ptr(), len, 32), u128::from_le_bytes(expected));
                assert_eq!(packed(exact.as_ptr(), len, len), u128::from_le_bytes(expected));
            }
        }
    }
}
