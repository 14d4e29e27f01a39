//! Bitmaps, appended run by run at any bit.

use arrow::buffer::NullBuffer;

/// Appends bits to a bitmap in memory, least significant first, by whole words.
pub(crate) struct BitWriter {
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
    pub unsafe fn new(to: *mut u8) -> BitWriter {
        BitWriter { to, word: 0, filled: 0, at: 0, ones: 0 }
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
            let step = (count - done).min(64);
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
fn read(from: &[u8], start: usize) -> u64 {
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
    use super::*;

    #[test]
    fn runs_of_any_length_at_any_bit_come_out_as_they_went_in() {
        let source: Vec<u8> = (0..100u32).map(|i| (i * 37 + 11) as u8).collect();
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (i % 8) & 1;
        for lens in [vec![1, 63, 64, 65], vec![5, 0, 130, 7, 64, 1], vec![64, 64], vec![3]] {
            let mut expected = Vec::new();
            let mut out = vec![0xAAu8; 128];
            // SAFETY: at most 300 bits are appended.
            let mut writer = unsafe { BitWriter::new(out.as_mut_ptr()) };
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
