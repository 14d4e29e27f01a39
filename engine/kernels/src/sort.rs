//! Stable sorting of row numbers by one or several columns.
//!
//! Every value becomes an order-preserving word of 64 bits; words are sorted by radix (by
//! comparison where rows are few). The word of a string is its first seven bytes and, up to eight,
//! its length: that settles strings of at most seven bytes; runs of equal words of longer ones are
//! then sorted by their bytes. Several keys are sorted one after the other from the last on, each
//! pass stable.

use crate::bytes;
use crate::prim::{Native, with_prim};
use crate::strings::{CorruptString, Str, StrCursor};
use crate::take::{Chunked, Index, is_valid};
use crate::tile::mem::load;
use crate::view::{ColumnView, Layout};
use std::cmp::Ordering;
use std::fmt;

/// A column to sort by.
#[derive(Clone, Copy, Debug)]
pub struct SortKey<'a> {
    /// Its chunks, in order.
    pub chunks: &'a [ColumnView<'a>],
    /// Greatest first. NaN is the greatest value; equal rows keep their order all the same.
    pub descending: bool,
    /// Nulls after all values (else before), whatever the direction.
    pub nulls_last: bool,
}

/// Why rows could not be sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SortError {
    /// A key column is shorter than the rows to sort.
    TooFewRows,
    /// The rows do not fit the type of row numbers.
    TooManyRows,
    /// A string has damaged offsets.
    Corrupt(CorruptString),
    /// An opaque column has no order.
    Unsupported,
    /// No memory for the words.
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
}

impl fmt::Display for SortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SortError::TooFewRows => write!(f, "a sort key has fewer rows than there are to sort"),
            SortError::TooManyRows => write!(f, "too many rows for 32-bit row numbers"),
            SortError::Corrupt(e) => e.fmt(f),
            SortError::Unsupported => write!(f, "a column of this type cannot be sorted by"),
            SortError::OutOfMemory { bytes } => write!(f, "no memory for {bytes} bytes to sort"),
        }
    }
}

impl std::error::Error for SortError {}

impl From<CorruptString> for SortError {
    fn from(e: CorruptString) -> Self {
        SortError::Corrupt(e)
    }
}

/// Below this many rows, comparing beats counting digits.
const RADIX_ROWS: usize = 4096;

/// A word and its row.
#[derive(Clone, Copy, Debug)]
struct Pair<I> {
    word: u64,
    row: I,
}

/// A vector with room for `n`, or the error that there is no memory for it.
fn with_room<T>(n: usize) -> Result<Vec<T>, SortError> {
    let mut v = Vec::new();
    v.try_reserve_exact(n)
        .map_err(|_| SortError::OutOfMemory { bytes: n.saturating_mul(size_of::<T>()) })?;
    Ok(v)
}

/// The word of a number: words compare as the numbers do, NaN greatest, −0.0 as 0.0.
#[inline(always)]
fn word<T: Native>(v: T) -> u64 {
    const TOP: u64 = 1 << 63;
    if !T::PRIM.is_float() {
        return if T::PRIM.is_signed() { v.to_bits64() ^ TOP } else { v.to_bits64() };
    }
    if v.is_nan() {
        return u64::MAX;
    }
    let bits = if v == T::ZERO { 0 } else { v.to_bits64() };
    // Negative numbers fall with their bits; positive ones come after all of them.
    if bits & TOP != 0 { !bits } else { bits | TOP }
}

/// In the lowest byte of a string's word: there are bytes that the word does not hold.
const LONGER: u64 = 8;

/// The word of a string.
///
/// # Safety
/// `s` is readable for its room.
#[inline(always)]
unsafe fn string_word(s: Str) -> u64 {
    let head = s.len.min(7);
    // SAFETY: by contract; head <= s.len.
    let packed = unsafe { bytes::packed(s.ptr, head, s.room) } as u64;
    packed.swap_bytes() | (s.len as u64).min(LONGER)
}

/// Sorts the numbers of rows 0 to `rows` by one or several keys, the first the most significant.
/// Stable; without keys, rows stay in their order.
///
/// # Errors
/// [`SortError`].
pub fn argsort<I: Index>(keys: &[SortKey<'_>], rows: usize) -> Result<Vec<I>, SortError> {
    if rows > 0 {
        I::from_row(rows - 1).ok_or(SortError::TooManyRows)?;
    }
    let mut order: Vec<I> = with_room(rows)?;
    order.extend((0..rows).filter_map(I::from_row));
    for key in keys.iter().rev() {
        let column = Chunked::new(key.chunks);
        if column.rows() < rows as u64 {
            return Err(SortError::TooFewRows);
        }
        pass(key, &column, &mut order)?;
    }
    Ok(order)
}

/// One stable pass over the rows in their present order.
fn pass<I: Index>(
    key: &SortKey<'_>,
    column: &Chunked<'_>,
    order: &mut Vec<I>,
) -> Result<(), SortError> {
    let mut pairs: Vec<Pair<I>> = with_room(order.len())?;
    let mut nulls: Vec<I> = Vec::new();
    let mut long = false;
    let flip = if key.descending { !0u64 } else { 0 };
    for row in order.iter() {
        let (chunk, at) = column.find(row.row()).ok_or(SortError::TooFewRows)?;
        // SAFETY: at < chunk.len.
        if !unsafe { is_valid(chunk, at) } {
            nulls.push(*row);
            continue;
        }
        let word = match chunk.layout {
            // SAFETY: at < chunk.len, and the values are of that type.
            Layout::Prim(p) => with_prim!(p, T => word(unsafe { load::<T>(chunk.values, at) })),
            // SAFETY: at < chunk.len.
            Layout::Bool => unsafe { u64::from(chunk.values.add(at / 8).read() >> (at % 8) & 1) },
            Layout::Utf8 | Layout::LargeUtf8 | Layout::Utf8View => {
                let cursor = StrCursor::new(chunk).ok_or(SortError::Unsupported)?;
                // SAFETY: what the cursor returns is readable for its room.
                let word = unsafe { string_word(cursor.str(at)?) };
                long |= word & 0xff == LONGER;
                word
            }
            Layout::Opaque => return Err(SortError::Unsupported),
        };
        pairs.push(Pair { word: word ^ flip, row: *row });
    }
    if pairs.len() < RADIX_ROWS {
        pairs.sort_by_key(|p| p.word);
    } else {
        radix(&mut pairs)?;
    }
    if long {
        settle(key, column, &mut pairs)?;
    }
    order.clear();
    if !key.nulls_last {
        order.extend_from_slice(&nulls);
    }
    order.extend(pairs.iter().map(|p| p.row));
    if key.nulls_last {
        order.extend_from_slice(&nulls);
    }
    Ok(())
}

/// Sorts by the words, from their lowest byte on; bytes that all words share cost nothing.
fn radix<I: Index>(pairs: &mut Vec<Pair<I>>) -> Result<(), SortError> {
    let n = pairs.len();
    let mut counts = [[0usize; 256]; 8];
    let mut sorted = true;
    let mut before = 0u64;
    for p in pairs.iter() {
        sorted &= before <= p.word;
        before = p.word;
        for (digit, count) in p.word.to_le_bytes().iter().zip(&mut counts) {
            if let Some(c) = count.get_mut(usize::from(*digit)) {
                *c += 1;
            }
        }
    }
    if sorted {
        return Ok(());
    }
    let mut other: Vec<Pair<I>> = with_room(n)?;
    other.extend_from_slice(pairs);
    for (d, count) in counts.iter().enumerate() {
        if count.contains(&n) {
            continue;
        }
        let mut starts = [0usize; 256];
        let mut at = 0;
        for (start, c) in starts.iter_mut().zip(count) {
            *start = at;
            at += c;
        }
        for p in pairs.iter() {
            let digit = usize::from((p.word >> (8 * d)) as u8);
            // The digit is below 256, and starts are below n as long as no digit comes more often
            // than it was counted (words are private, so it does not).
            if let Some(start) = starts.get_mut(digit) {
                if let Some(to) = other.get_mut(*start) {
                    *to = *p;
                }
                *start += 1;
            }
        }
        std::mem::swap(pairs, &mut other);
    }
    Ok(())
}

/// Sorts runs of equal words, of strings longer than these, by their bytes.
fn settle<I: Index>(
    key: &SortKey<'_>,
    column: &Chunked<'_>,
    pairs: &mut [Pair<I>],
) -> Result<(), SortError> {
    let string = |p: &Pair<I>| {
        // A column that is written meanwhile may fail here where it did not before; then any order
        // will do.
        let found = column.find(p.row.row());
        let cursor = found.and_then(|(c, at)| Some((StrCursor::new(c)?, at)));
        cursor.and_then(|(c, at)| c.str(at).ok()).unwrap_or(Str::EMPTY)
    };
    let compare = |a: &Pair<I>, b: &Pair<I>| {
        let (x, y) = (string(a), string(b));
        // SAFETY: both are readable for their lengths.
        let order = unsafe { bytes::order(x.ptr, x.len, y.ptr, y.len) };
        if key.descending { order.reverse() } else { order }
    };
    let flip = if key.descending { !0u64 } else { 0 };
    let mut scratch = Vec::new();
    for run in pairs.chunk_by_mut(|a, b| a.word == b.word) {
        let word = run.first().map_or(0, |p| p.word) ^ flip;
        if run.len() > 1 && word & 0xff == LONGER {
            merge_sort(run, &mut scratch, &compare)?;
        }
    }
    Ok(())
}

/// A stable merge sort that does not mind a comparison that contradicts itself, as one does that
/// reads memory which another process writes (the standard library's may panic then).
fn merge_sort<T: Copy>(
    v: &mut [T],
    scratch: &mut Vec<T>,
    compare: &impl Fn(&T, &T) -> Ordering,
) -> Result<(), SortError> {
    // A run of equal strings, or of sorted ones, is the usual case.
    let sorted = v.windows(2).all(|w| match w {
        [a, b] => compare(a, b) != Ordering::Greater,
        _ => true,
    });
    if sorted {
        return Ok(());
    }
    for short in v.chunks_mut(8) {
        for i in 1..short.len() {
            for j in (1..=i).rev() {
                match short.get(j - 1..=j) {
                    Some([a, b]) if compare(a, b) == Ordering::Greater => short.swap(j - 1, j),
                    _ => break,
                }
            }
        }
    }
    scratch.clear();
    scratch.try_reserve(v.len()).map_err(|_| SortError::OutOfMemory { bytes: size_of_val(v) })?;
    let mut width = 8;
    while width < v.len() {
        scratch.clear();
        for both in v.chunks(2 * width) {
            let (mut a, mut b) = both.split_at(width.min(both.len()));
            while let ([x, a_rest @ ..], [y, b_rest @ ..]) = (a, b) {
                if compare(x, y) == Ordering::Greater {
                    scratch.push(*y);
                    b = b_rest;
                } else {
                    scratch.push(*x);
                    a = a_rest;
                }
            }
            scratch.extend_from_slice(a);
            scratch.extend_from_slice(b);
        }
        v.copy_from_slice(scratch);
        width *= 2;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prim::Prim;
    use crate::strings::tests::{LAYOUTS, Owned, Random};
    use crate::testing::many;

    /// Order of two nullable values under a key's rules.
    fn naive<T>(
        a: &Option<T>,
        b: &Option<T>,
        descending: bool,
        nulls_last: bool,
        order: impl Fn(&T, &T) -> Ordering,
    ) -> Ordering {
        match (a, b) {
            (None, None) => Ordering::Equal,
            (None, _) if nulls_last => Ordering::Greater,
            (None, _) => Ordering::Less,
            (_, None) if nulls_last => Ordering::Less,
            (_, None) => Ordering::Greater,
            (Some(x), Some(y)) if descending => order(y, x),
            (Some(x), Some(y)) => order(x, y),
        }
    }

    fn bitmap(rows: impl Iterator<Item = bool>) -> Vec<u8> {
        let bits: Vec<bool> = rows.collect();
        bits.chunks(8)
            .map(|c| c.iter().enumerate().fold(0, |b, (k, v)| b | u8::from(*v) << k))
            .collect()
    }

    #[test]
    fn floats_sort_with_nan_last_and_zeros_equal() {
        let mut r = Random(21);
        for rows in [0usize, 1, 7, many(1000), many(20_000)] {
            let data: Vec<Option<f64>> = (0..rows)
                .map(|_| match r.below(12) {
                    0 => None,
                    1 => Some(f64::NAN),
                    2 => Some(-0.0),
                    3 => Some(0.0),
                    4 => Some(f64::INFINITY),
                    5 => Some(f64::NEG_INFINITY),
                    6 => Some(-f64::NAN),
                    _ => Some(f64::from_bits(r.next())),
                })
                .collect();
            let values: Vec<f64> = data.iter().map(|v| v.unwrap_or(1.0)).collect();
            let valid = bitmap(data.iter().map(Option::is_some));
            // SAFETY: the vectors outlive the view.
            let view = unsafe {
                ColumnView::new(Layout::Prim(Prim::F64), rows, values.as_ptr().cast(), 8 * rows)
                    .with_validity(valid.as_ptr(), None)
            };
            for (descending, nulls_last) in [(false, true), (true, true), (true, false)] {
                let key = SortKey { chunks: &[view], descending, nulls_last };
                let got: Vec<u32> = argsort(&[key], rows).unwrap();
                let mut want: Vec<u32> = (0..rows as u32).collect();
                let order = |x: &f64, y: &f64| {
                    x.partial_cmp(y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
                };
                want.sort_by(|a, b| {
                    let (a, b) = (&data[*a as usize], &data[*b as usize]);
                    naive(a, b, descending, nulls_last, order)
                });
                assert_eq!(got, want, "{rows} {descending} {nulls_last}");
            }
        }
    }

    #[test]
    fn every_integer_type_sorts_with_its_sign() {
        let mut r = Random(22);
        for p in Prim::ALL.into_iter().filter(|p| p.is_integer()) {
            with_prim!(p, T => {
                for rows in [300, 9000].map(many) {
                    let data: Vec<T> = (0..rows).map(|_| T::from_bits64(r.next())).collect();
                    // SAFETY: the vector outlives the view.
                    let view = unsafe {
                        let bytes = rows * p.width();
                        ColumnView::new(Layout::Prim(p), rows, data.as_ptr().cast(), bytes)
                    };
                    let key = SortKey { chunks: &[view], descending: false, nulls_last: true };
                    let got: Vec<u64> = argsort(&[key], rows).unwrap();
                    let mut want: Vec<u64> = (0..rows as u64).collect();
                    want.sort_by(|a, b| {
                        data[*a as usize].partial_cmp(&data[*b as usize]).unwrap()
                    });
                    assert_eq!(got, want);
                }
            });
        }
    }

    #[test]
    fn strings_sort_by_bytes_with_nul_and_shared_prefixes() {
        let mut r = Random(23);
        for (rows, max) in [(50, 3), (many(3000), 9), (many(6000), 14), (many(5000), 30)] {
            let mut data = r.strings(rows, max, 9);
            for row in data.iter_mut().flatten() {
                if r.below(2) == 0 {
                    row.splice(0..0, *b"sharedp");
                }
            }
            for layout in LAYOUTS {
                let (left, right) = data.split_at(rows / 3);
                let owned = [Owned::new(layout, left), Owned::new(layout, right)];
                let chunks = [owned[0].view(), owned[1].view()];
                for descending in [false, true] {
                    let key = SortKey { chunks: &chunks, descending, nulls_last: true };
                    let got: Vec<u32> = argsort(&[key], rows).unwrap();
                    let mut want: Vec<u32> = (0..rows as u32).collect();
                    want.sort_by(|a, b| {
                        let (a, b) = (&data[*a as usize], &data[*b as usize]);
                        naive(a, b, descending, true, Ord::cmp)
                    });
                    assert!(got == want, "{layout:?} {rows} {max} {descending}");
                }
            }
        }
    }

    #[test]
    fn several_keys_sort_from_the_first_on_and_ties_keep_their_order() {
        let mut r = Random(24);
        let rows = many(5000);
        let names = r.strings(rows, 2, 6);
        let bits: Vec<bool> = (0..rows).map(|_| r.below(2) == 0).collect();
        let numbers: Vec<i16> = (0..rows).map(|_| r.below(5) as i16 - 2).collect();
        let owned = Owned::new(Layout::Utf8, &names);
        let packed = bitmap(bits.iter().copied());
        // SAFETY: the vectors outlive the views.
        let (b, n) = unsafe {
            (
                ColumnView::new(Layout::Bool, rows, packed.as_ptr(), packed.len()),
                ColumnView::new(Layout::Prim(Prim::I16), rows, numbers.as_ptr().cast(), 2 * rows),
            )
        };
        let s = [owned.view()];
        let keys = [
            SortKey { chunks: &[n], descending: true, nulls_last: true },
            SortKey { chunks: &s, descending: false, nulls_last: false },
            SortKey { chunks: &[b], descending: true, nulls_last: true },
        ];
        let got: Vec<u32> = argsort(&keys, rows).unwrap();
        let mut want: Vec<u32> = (0..rows as u32).collect();
        want.sort_by(|x, y| {
            let (x, y) = (*x as usize, *y as usize);
            numbers[y]
                .cmp(&numbers[x])
                .then_with(|| naive(&names[x], &names[y], false, false, Ord::cmp))
                .then_with(|| bits[y].cmp(&bits[x]))
        });
        assert_eq!(got, want);
    }

    #[test]
    fn a_comparison_that_contradicts_itself_does_no_harm() {
        let r = std::cell::RefCell::new(Random(25));
        let mut v: Vec<u32> = (0..1000).collect();
        let compare = |_: &u32, _: &u32| match r.borrow_mut().below(3) {
            0 => Ordering::Less,
            1 => Ordering::Equal,
            _ => Ordering::Greater,
        };
        merge_sort(&mut v, &mut Vec::new(), &compare).unwrap();
        v.sort_unstable();
        assert!(v.into_iter().eq(0..1000), "every element is still there, once");
    }

    #[test]
    fn opaque_short_and_damaged_columns_are_errors() {
        let mut owned = Owned::new(Layout::Utf8, &[Some("a"), Some("b")]);
        fn key<'a>(chunks: &'a [ColumnView<'a>]) -> [SortKey<'a>; 1] {
            [SortKey { chunks, descending: false, nulls_last: true }]
        }
        let (views, rows) = ([owned.view()], 3);
        assert_eq!(argsort::<u32>(&key(&views), rows), Err(SortError::TooFewRows));
        // SAFETY: opaque columns are not read.
        let opaque = [unsafe { ColumnView::new(Layout::Opaque, 2, std::ptr::null(), 0) }];
        assert_eq!(argsort::<u32>(&key(&opaque), 2), Err(SortError::Unsupported));
        owned.set_offset(2, -5);
        let views = [owned.view()];
        let corrupt = SortError::Corrupt(CorruptString { row: 1 });
        assert_eq!(argsort::<u32>(&key(&views), 2), Err(corrupt));
    }
}
