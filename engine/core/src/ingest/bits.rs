//! Bitmaps, put together of runs that begin at any bit.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_buffer::NullBuffer;
use insitu_kernels::copy::CopyBitsFn;
use insitu_query::parallel;

use super::copies::ended_well;
use crate::error::Result;

/// Bits that a thread writes at a time: whole lines of the cache.
const TASK: usize = 1 << 20;
/// Estimated nanoseconds that 64 bits take.
const NS_PER_WORD: f64 = 1.0;

/// Some bits of a bitmap.
pub(crate) struct Part<'s> {
    /// Where they are; `None` if all are set.
    pub from: Option<&'s [u8]>,
    /// The first of them.
    pub start: usize,
    /// How many they are.
    pub len: usize,
}

/// The destination, shared by threads that write different words of it.
struct To(*mut u8);

// SAFETY: it is an address; who writes what is `write`'s business.
unsafe impl Sync for To {}

/// Writes the parts, one behind the other, as one bitmap; on several threads if it is large.
/// Returns the number of set bits.
///
/// # Errors
/// `Cancelled` if the interrupt, asked on this thread, said so.
///
/// # Safety
/// `to` is writable, and the caller's alone, for all parts' bits rounded up to 64.
pub(crate) unsafe fn write(
    to: *mut u8,
    parts: &[Part<'_>],
    copy: CopyBitsFn,
    interrupt: &dyn Fn() -> bool,
) -> Result<usize> {
    let mut ends = Vec::with_capacity(parts.len());
    let bits = parts.iter().fold(0, |sum, part| {
        ends.push(sum + part.len);
        sum + part.len
    });
    let (to, ones) = (To(to), AtomicUsize::new(0));
    let ns = (bits / 64) as f64 * NS_PER_WORD;
    let ended = parallel(bits.div_ceil(TASK), ns, interrupt, &|task| {
        let to = &to;
        let (mut row, end) = (task * TASK, bits.min((task + 1) * TASK));
        // SAFETY: the caller's promise; a task begins on a word, so that each is one task's.
        let mut writer = unsafe { BitWriter::new(to.0.wrapping_add(row / 8), copy) };
        let first = ends.partition_point(|end| *end <= row);
        for (part, part_end) in parts.iter().zip(&ends).skip(first) {
            if row >= end {
                break;
            }
            let count = (*part_end).min(end) - row;
            match part.from {
                None => writer.ones(count),
                Some(from) => writer.copy(from, part.start + part.len - (part_end - row), count),
            }
            row += count;
        }
        ones.fetch_add(writer.finish().0, Ordering::Relaxed);
    });
    ended_well(ended)?;
    Ok(ones.into_inner())
}

/// Appends bits to a bitmap in memory, least significant first, by whole words.
pub(crate) struct BitWriter {
    copy: CopyBitsFn,
    to: *mut u8,
    /// Bits gathered but not yet written, and how many.
    word: u64,
    filled: u32,
    /// Bytes written.
    at: usize,
    /// Bits set so far.
    ones: usize,
}

impl BitWriter {
    /// Writes from `to` on.
    ///
    /// # Safety
    /// `to` is writable for all words that will be appended, rounded up to 8 bytes.
    pub unsafe fn new(to: *mut u8, copy: CopyBitsFn) -> BitWriter {
        BitWriter { copy, to, word: 0, filled: 0, at: 0, ones: 0 }
    }

    /// Appends the low `count` (at most 64) bits of `bits`.
    fn push(&mut self, bits: u64, count: u32) {
        if count == 0 {
            return;
        }
        let bits = if count == 64 { bits } else { bits & ((1 << count) - 1) };
        self.ones += bits.count_ones() as usize;
        self.word |= bits << self.filled;
        let total = self.filled + count;
        if total < 64 {
            self.filled = total;
            return;
        }
        self.flush();
        self.filled = total - 64;
        // What did not fit: the bits from position 64 - old filled on.
        let taken = count - self.filled;
        self.word = if taken == 64 { 0 } else { bits >> taken };
        if self.filled == 0 {
            self.word = 0;
        }
    }

    fn flush(&mut self) {
        // SAFETY: the caller of `new` promised room for every word.
        unsafe { self.to.add(self.at).cast::<u64>().write_unaligned(self.word.to_le()) };
        self.at += 8;
        self.word = 0;
    }

    /// Appends `count` set bits.
    pub fn ones(&mut self, mut count: usize) {
        while count > 0 {
            let step = count.min(64);
            self.push(u64::MAX, step as u32);
            count -= step;
        }
    }

    /// Appends `count` bits of `from`, beginning at bit `start`. Bits past its end are zero.
    pub fn copy(&mut self, from: &[u8], start: usize, count: usize) {
        let mut done = 0;
        while done < count {
            // To the end of a word, whole words at once, and what is left.
            let words = (count - done) / 64;
            let end = start.checked_add(done + words * 64);
            if self.filled == 0 && words > 0 && end.is_some_and(|end| end.div_ceil(8) <= from.len())
            {
                // SAFETY: the source was asked for its length just now; the caller of `new`
                // promised room for every word.
                self.ones += unsafe {
                    (self.copy)(self.to.add(self.at), from.as_ptr(), start + done, words * 64)
                };
                self.at += words * 8;
                done += words * 64;
                continue;
            }
            let step = (count - done).min(64 - self.filled as usize);
            self.push(read(from, start + done), step as u32);
            done += step;
        }
    }

    /// Writes what is left. Returns the number of set bits, and of bytes written.
    pub fn finish(mut self) -> (usize, usize) {
        if self.filled > 0 {
            self.flush();
        }
        (self.ones, self.at)
    }
}

/// 64 bits from bit `start` on; zeros past the end.
pub(crate) fn read(from: &[u8], start: usize) -> u64 {
    let (byte, shift) = (start / 8, (start % 8) as u32);
    let word = |at: usize| -> u64 {
        let rest = from.get(at..).unwrap_or_default();
        match rest.first_chunk::<8>() {
            Some(whole) => u64::from_le_bytes(*whole),
            None => rest.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b)),
        }
    };
    let low = word(byte) >> shift;
    if shift == 0 {
        return low;
    }
    let high = from.get(byte + 8).copied().unwrap_or(0);
    low | u64::from(high) << (64 - shift)
}

/// Whether row `row` of an array with these nulls is valid.
pub(crate) fn is_valid(nulls: Option<&NullBuffer>, row: usize) -> bool {
    match nulls {
        None => true,
        Some(nulls) => {
            let bit = nulls.offset().wrapping_add(row);
            nulls.validity().get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use insitu_kernels::copy::copy_bits;
    use insitu_kernels::level::Level;

    use super::*;

    #[test]
    fn parts_are_put_together_on_any_number_of_threads() {
        let source: Vec<u8> = (0..2_000_003_u32).map(|i| (i.wrapping_mul(37) >> 3) as u8).collect();
        let lens = [5, 0, 3_000_001, 64, TASK, 7, 4_000_000];
        let parts: Vec<Part<'_>> = lens
            .iter()
            .enumerate()
            .map(|(n, len)| Part {
                from: (n != 3).then_some(&source),
                start: n * 13 + 3,
                len: *len,
            })
            .collect();
        let bits: usize = lens.iter().sum();
        let mut out = vec![0xAAu8; bits.div_ceil(64) * 8];
        let copy = copy_bits(Level::best());
        // SAFETY: as many words as the bits take.
        let ones = unsafe { write(out.as_mut_ptr(), &parts, copy, &|| false) }.unwrap();
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (i % 8) & 1 == 1;
        let mut expected = (0..parts.len()).flat_map(|n| {
            let part = &parts[n];
            (0..part.len).map(move |i| part.from.is_none_or(|from| bit(from, part.start + i)))
        });
        let mut count = 0;
        for i in 0..bits {
            let set = expected.next().unwrap();
            count += usize::from(set);
            assert_eq!(bit(&out, i), set, "bit {i}");
        }
        assert!((bits..out.len() * 8).all(|i| !bit(&out, i)));
        assert_eq!(ones, count);
    }

    #[test]
    fn runs_of_any_length_at_any_bit_come_out_as_they_went_in() {
        let source: Vec<u8> = (0..100u32).map(|i| (i * 37 + 11) as u8).collect();
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (i % 8) & 1;
        for lens in [vec![1, 63, 64, 65], vec![5, 0, 130, 7, 64, 1], vec![64, 64], vec![3]] {
            let mut expected = Vec::new();
            let mut out = vec![0xAAu8; 128];
            // SAFETY: at most 300 bits are appended.
            let mut writer = unsafe { BitWriter::new(out.as_mut_ptr(), copy_bits(Level::best())) };
            for (n, len) in lens.iter().enumerate() {
                let start = n * 13 + 3;
                writer.copy(&source, start, *len);
                expected.extend((start..start + len).map(|i| bit(&source, i)));
                writer.ones(n);
                expected.extend(std::iter::repeat_n(1, n));
            }
            let (ones, bytes) = writer.finish();
            assert_eq!(ones, expected.iter().filter(|b| **b == 1).count());
            assert_eq!(bytes, expected.len().div_ceil(64) * 8);
            for (i, b) in expected.iter().enumerate() {
                assert_eq!(bit(&out, i), *b, "bit {i} of runs {lens:?}");
            }
            for i in expected.len()..bytes * 8 {
                assert_eq!(bit(&out, i), 0, "padding bit {i}");
            }
        }
    }
}
