//! Booleans as bytes, one each as NumPy has them, and as bits as Arrow has them.

use crate::ingest::bits::read;

/// Packs `rows` bytes (not zero: true) into bits, as whole words, zeros past the last row. Returns
/// how many are set.
///
/// # Safety
/// `from` is readable for `rows` bytes, `to` writable for `8 * ceil(rows / 64)`; they do not
/// overlap.
pub(crate) unsafe fn pack(from: *const u8, rows: usize, to: *mut u8) -> usize {
    let mut ones = 0;
    for index in 0..rows.div_ceil(64) {
        let count = (rows - index * 64).min(64);
        // SAFETY: the rows of this word, and the word, are within what the caller promised.
        unsafe {
            let word = word(from.add(index * 64), count);
            ones += word.count_ones() as usize;
            to.add(index * 8).cast::<u64>().write_unaligned(word.to_le());
        }
    }
    ones
}

/// The bits of `count` (at most 64) bytes.
///
/// # Safety
/// `from` is readable for `count` bytes.
#[inline(always)]
unsafe fn word(from: *const u8, count: usize) -> u64 {
    let mut bits = 0;
    for eight in 0..count / 8 {
        // SAFETY: eight bytes below `count`.
        let bytes = unsafe { from.add(eight * 8).cast::<u64>().read_unaligned() };
        bits |= gather(u64::from_le(bytes)) << (eight * 8);
    }
    for row in count / 8 * 8..count {
        // SAFETY: below `count`.
        bits |= u64::from(unsafe { from.add(row).read() } != 0) << row;
    }
    bits
}

/// One bit for each of eight bytes, the lowest first: whether it is not zero.
#[inline(always)]
fn gather(bytes: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The high bit of each byte that is not zero, then down to its lowest.
    let flags = (((bytes & LOW) + LOW) | bytes) & !LOW;
    // The product brings the lowest bit of byte i to bit 56 + i.
    (flags >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Spreads `rows` bits, from bit `start` on, into bytes of 0 and 1.
///
/// # Safety
/// `from` is readable for `ceil((start + rows) / 8)` bytes, `to` writable for `rows`; they do not
/// overlap.
pub(crate) unsafe fn unpack(from: *const u8, start: usize, rows: usize, to: *mut u8) {
    for row in 0..rows {
        let bit = start + row;
        // SAFETY: within what the caller promised.
        unsafe { to.add(row).write(from.add(bit / 8).read() >> (bit % 8) & 1) };
    }
}

/// Appends `count` bits, of `from` from its bit `start` on or all set, behind the first `at` bits of
/// a bitmap. Returns how many are set. Bits of `from` past its end are zero.
///
/// # Safety
/// `to` holds `at` bits and is writable for as many more, rounded up to a word.
pub(crate) unsafe fn append_bits(
    to: *mut u8,
    at: usize,
    count: usize,
    from: Option<(&[u8], usize)>,
) -> usize {
    let low = |n: usize| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    let (mut done, mut ones) = (0, 0);
    while done < count {
        let bit = at + done;
        let shift = bit % 64;
        let step = (64 - shift).min(count - done);
        let bits = from.map_or(u64::MAX, |(bytes, start)| read(bytes, start + done)) & low(step);
        let word = to.wrapping_add(bit / 64 * 8).cast::<u64>();
        // SAFETY: the word holds bits that the caller promised room for.
        unsafe {
            let before = if shift == 0 { 0 } else { u64::from_le(word.read_unaligned()) };
            word.write_unaligned((before & low(shift) | bits << shift).to_le());
        }
        ones += bits.count_ones() as usize;
        done += step;
    }
    ones
}

/// Zeroes the values of rows that are null, so that no stale byte is published.
///
/// # Safety
/// `bits` is readable for `8 * ceil(rows / 64)` bytes, `values` writable for `rows * width`.
pub(crate) unsafe fn zero_nulls(bits: *const u8, rows: usize, values: *mut u8, width: usize) {
    for index in 0..rows.div_ceil(64) {
        let count = (rows - index * 64).min(64);
        // SAFETY: a word that the caller promised.
        let valid = u64::from_le(unsafe { bits.add(index * 8).cast::<u64>().read_unaligned() });
        let mut null = !valid & if count == 64 { u64::MAX } else { (1 << count) - 1 };
        while null != 0 {
            let row = index * 64 + null.trailing_zeros() as usize;
            // SAFETY: a row below `rows`.
            unsafe { values.add(row * width).write_bytes(0, width) };
            null &= null - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_appended_at_any_bit() {
        let source: Vec<u8> = (0..100u32).map(|i| (i * 37 + 11) as u8).collect();
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (i % 8) & 1;
        let mut out = vec![0xAA_u8; 128];
        let mut expected = Vec::new();
        for (n, count) in [1, 63, 64, 65, 0, 130, 7].into_iter().enumerate() {
            let at = expected.len();
            let start = n * 13 + 3;
            let from = (n % 3 != 1).then_some((source.as_slice(), start));
            // SAFETY: 330 bits are appended in all.
            let ones = unsafe { append_bits(out.as_mut_ptr(), at, count, from) };
            let set = |i| if from.is_some() { bit(&source, start + i) } else { 1 };
            expected.extend((0..count).map(set));
            assert_eq!(ones, expected[at..].iter().filter(|b| **b == 1).count());
        }
        for (i, b) in expected.iter().enumerate() {
            assert_eq!(bit(&out, i), *b, "bit {i}");
        }
    }

    #[test]
    fn bytes_become_bits_and_bits_bytes() {
        for rows in [0, 1, 7, 8, 9, 63, 64, 65, 1000] {
            // Any byte that is not zero is true.
            let bytes: Vec<u8> = (0..rows).map(|i| [0, 1, 0x80, 0, 255, 2][i * 7 % 6]).collect();
            let mut bits = vec![0xAA_u8; rows.div_ceil(64) * 8];
            // SAFETY: as many words as the rows take.
            let ones = unsafe { pack(bytes.as_ptr(), rows, bits.as_mut_ptr()) };
            assert_eq!(ones, bytes.iter().filter(|b| **b != 0).count());
            for start in [0, 3, 64].into_iter().filter(|start| *start <= rows) {
                let mut back = vec![9_u8; rows - start];
                // SAFETY: the bits cover all rows.
                unsafe { unpack(bits.as_ptr(), start, rows - start, back.as_mut_ptr()) };
                let expected: Vec<u8> = bytes[start..].iter().map(|b| u8::from(*b != 0)).collect();
                assert_eq!(back, expected);
            }
            assert!((rows..bits.len() * 8).all(|i| bits[i / 8] >> (i % 8) & 1 == 0));
            let mut values = vec![7_u8; rows * 3];
            // SAFETY: three bytes a row.
            unsafe { zero_nulls(bits.as_ptr(), rows, values.as_mut_ptr(), 3) };
            for (row, value) in values.chunks(3).enumerate() {
                assert_eq!(value, if bytes[row] != 0 { [7; 3] } else { [0; 3] });
            }
        }
    }
}
