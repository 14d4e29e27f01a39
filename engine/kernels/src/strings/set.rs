//! Membership of strings in a set of literals.

use super::{CorruptString, Str};
use crate::bytes;
use crate::hash::{hash_bytes, hash_words};
use crate::view::ColumnView;

/// The longest string that is packed, with its length, into 16 bytes.
pub(crate) const PACKED_MAX: usize = 15;

/// A string of at most [`PACKED_MAX`] bytes as a number: equal numbers are equal strings. The top
/// byte is the length plus one, so that zero is no string.
///
/// # Safety
/// `p` is readable for `max(len, room)` bytes, `len <= PACKED_MAX`.
#[inline(always)]
pub(crate) unsafe fn pack_short(p: *const u8, len: usize, room: usize) -> u128 {
    // SAFETY: by contract.
    unsafe { bytes::packed(p, len, room) | (len as u128 + 1) << 120 }
}

/// A set of literals, for [`is_in`].
#[derive(Debug)]
pub struct LiteralSet {
    /// Bit `min(length, 63)` is set where a long literal has that length.
    lengths: u64,
    /// Short literals: open addressing by the top bits of the hash; zero is an empty place. The
    /// number of places is a power of two, more than twice that of literals.
    short: Vec<u128>,
    shift: u32,
    /// Long literals by hash, sorted.
    long: Vec<(u64, Box<[u8]>)>,
}

impl LiteralSet {
    /// A set of these literals; equal ones count once.
    pub fn new<'s>(literals: impl IntoIterator<Item = &'s [u8]>) -> LiteralSet {
        let mut lengths = 0u64;
        let mut shorts = Vec::new();
        let mut long = Vec::new();
        for literal in literals {
            lengths |= 1 << literal.len().min(63);
            // SAFETY: the slice is readable for its length.
            unsafe {
                let (p, len) = (literal.as_ptr(), literal.len());
                if len <= PACKED_MAX {
                    shorts.push(pack_short(p, len, len));
                } else {
                    long.push((hash_bytes(p, len), Box::from(literal)));
                }
            }
        }
        long.sort();
        long.dedup();
        let places = (shorts.len() * 4).next_power_of_two().max(16);
        let mut set = LiteralSet {
            lengths,
            short: vec![0; places],
            shift: 64 - places.trailing_zeros(),
            long,
        };
        for s in shorts {
            let at = set.find(s);
            if let Some(place) = set.short.get_mut(at) {
                *place = s;
            }
        }
        set
    }

    /// The place of a packed string, or the empty one where it would stand.
    #[inline(always)]
    fn find(&self, packed: u128) -> usize {
        let mask = self.short.len() - 1;
        let mut at = (hash_words(packed as u64, (packed >> 64) as u64) >> self.shift) as usize;
        loop {
            let there = self.short.get(at & mask).copied().unwrap_or(0);
            if there == packed || there == 0 {
                return at & mask;
            }
            at += 1;
        }
    }

    /// Is the string one of them?
    pub fn contains(&self, s: &[u8]) -> bool {
        self.has(Str { ptr: s.as_ptr(), len: s.len(), room: s.len() })
    }

    #[inline(always)]
    fn has(&self, s: Str) -> bool {
        // (Short strings are not asked for their length: a branch on it is a coin's toss.)
        if s.len <= PACKED_MAX {
            // SAFETY: a Str is readable for its room, which is at least its length.
            let packed = unsafe { pack_short(s.ptr, s.len, s.room) };
            return self.short.get(self.find(packed)).copied() == Some(packed);
        }
        if self.lengths >> s.len.min(63) & 1 == 0 {
            return false;
        }
        // SAFETY: a Str is readable for its length.
        let hash = unsafe { hash_bytes(s.ptr, s.len) };
        let from = self.long.partition_point(|(h, _)| *h < hash);
        self.long.iter().skip(from).take_while(|(h, _)| *h == hash).any(|(_, l)| {
            // SAFETY: both are readable for the length they share.
            l.len() == s.len && unsafe { bytes::equal(l.as_ptr(), s.ptr, s.len) }
        })
    }
}

/// Which of the strings of rows `start .. start + rows` are in the set: a bitmap of
/// `ceil(rows / 64)` whole words, bits past `rows` zero.
///
/// # Errors
/// [`CorruptString`] where a row that is not null has damaged offsets.
///
/// # Safety
/// `start + rows <= column.len`; `dst` is writable for `ceil(rows / 64)` words and overlaps nothing.
pub unsafe fn is_in(
    set: &LiteralSet,
    column: &ColumnView<'_>,
    start: usize,
    rows: usize,
    dst: *mut u8,
) -> Result<(), CorruptString> {
    // SAFETY: the contract is passed on.
    unsafe { super::compare::each(column, start, rows, dst, |s| set.has(s)) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LAYOUTS, Owned, Random};
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn membership_is_that_of_a_hash_set() {
        let mut r = Random(5);
        for (max, size) in [(3, 1), (3, 10), (20, 300), (70, 40), (4, 0)] {
            let data = r.strings(1000, max, 10);
            let mut literals: Vec<Vec<u8>> = (0..size).map(|_| r.string(max)).collect();
            literals.extend(data.iter().take(size).flatten().cloned());
            let naive: HashSet<&[u8]> = literals.iter().map(Vec::as_slice).collect();
            let set = LiteralSet::new(literals.iter().map(Vec::as_slice));
            for layout in LAYOUTS {
                let owned = Owned::new(layout, &data);
                let mut dst = vec![!0u64; 15];
                // SAFETY: 40 + 930 <= 1000; 15 words hold 930 bits.
                unsafe { is_in(&set, &owned.view(), 40, 930, dst.as_mut_ptr().cast()) }.unwrap();
                for i in 0..960 {
                    let got = dst[i / 64] >> (i % 64) & 1 == 1;
                    let row = data.get(40 + i).cloned().flatten().unwrap_or_default();
                    assert_eq!(got, i < 930 && naive.contains(row.as_slice()), "row {i}");
                    assert_eq!(set.contains(&row), naive.contains(row.as_slice()));
                }
            }
        }
    }
}
