//! Comparisons of strings: with a literal, with another column; lengths.

use super::{CorruptString, Offset, Offsets, Rows, Str, Views, damaged, with_strings};
use crate::bytes;
use crate::level::{Level, leveled};
use crate::tile::Compare;
use crate::tile::mem::{low_bits, pack, store_word};
use crate::view::{ColumnView, Layout};
use std::cmp::Ordering;

/// A string to compare with, and what loops want to know of it.
struct Literal<'a> {
    bytes: &'a [u8],
    /// Its first eight bytes, zeros after its end.
    word: u64,
    /// Its first sixteen bytes, zeros after its end.
    double: u128,
}

impl<'a> Literal<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let head = bytes.len().min(16);
        // SAFETY: the first `head` bytes of the slice are readable.
        let double = unsafe { bytes::packed(bytes.as_ptr(), head, bytes.len()) };
        Literal { bytes, word: double as u64, double }
    }

    /// Order of a string relative to it.
    #[inline(always)]
    fn order_of(&self, s: Str) -> Ordering {
        let len = self.bytes.len();
        if s.room >= 16 {
            // The first sixteen bytes, as numbers: zeros after the end come first, as they must.
            // SAFETY: s.room bytes are readable.
            let head = unsafe { bytes::packed(s.ptr, s.len.min(16), s.room) };
            if head != self.double {
                return head.swap_bytes().cmp(&self.double.swap_bytes());
            }
            if s.len <= 16 || len <= 16 {
                return s.len.cmp(&len);
            }
        }
        // SAFETY: both are readable for their lengths.
        unsafe { bytes::order(s.ptr, s.len, self.bytes.as_ptr(), len) }
    }

    /// Is the string equal to it?
    #[inline(always)]
    fn equals(&self, s: Str) -> bool {
        let len = self.bytes.len();
        if s.len != len {
            return false;
        }
        if len <= 16 && s.room >= 16 {
            // SAFETY: s.room bytes are readable.
            return unsafe { bytes::packed(s.ptr, len, s.room) } == self.double;
        }
        // SAFETY: both are readable for len bytes.
        unsafe { bytes::equal(s.ptr, self.bytes.as_ptr(), len) }
    }
}

/// Does a comparison hold for an order?
fn holds(op: Compare, order: Ordering) -> bool {
    match op {
        Compare::Eq => order == Ordering::Equal,
        Compare::Ne => order != Ordering::Equal,
        Compare::Lt => order == Ordering::Less,
        Compare::Le => order != Ordering::Greater,
        Compare::Gt => order == Ordering::Greater,
        Compare::Ge => order != Ordering::Less,
    }
}

/// Compares the strings of rows `start .. start + rows` with a literal, by their bytes, into a
/// bitmap: `ceil(rows / 64)` whole words, bits past `rows` zero.
///
/// # Errors
/// [`CorruptString`] where a row that is not null has damaged offsets. (Comparing a Utf8View for
/// equality looks at fewer of them than it could.)
///
/// # Safety
/// `start + rows <= column.len`; `dst` is writable for `ceil(rows / 64)` words and overlaps nothing.
pub unsafe fn compare_literal(
    op: Compare,
    column: &ColumnView<'_>,
    start: usize,
    rows: usize,
    literal: &[u8],
    dst: *mut u8,
) -> Result<(), CorruptString> {
    let lit = Literal::new(literal);
    if matches!(op, Compare::Eq | Compare::Ne) {
        let args = EqArgs { column, start, rows, lit: &lit, flip: op == Compare::Ne, dst };
        let level = Level::best();
        // SAFETY: the contract is passed on; the lookups return code that this CPU runs.
        return unsafe {
            match column.layout {
                Layout::Utf8 => equal_offsets::<i32>(level)(&args),
                Layout::LargeUtf8 => equal_offsets::<i64>(level)(&args),
                Layout::Utf8View => equal_views(level)(&args),
                _ => Err(CorruptString { row: start }),
            }
        };
    }
    let test = |s: Str| holds(op, lit.order_of(s));
    // SAFETY: the contract is passed on.
    unsafe { each(column, start, rows, dst, test) }
}

/// Writes the bitmap of the rows whose string passes a test.
///
/// # Safety
/// As [`compare_literal`].
pub(super) unsafe fn each(
    column: &ColumnView<'_>,
    start: usize,
    rows: usize,
    dst: *mut u8,
    test: impl Fn(Str) -> bool,
) -> Result<(), CorruptString> {
    let done = with_strings!(column, strings => {
        for w in 0..rows.div_ceil(64) {
            let mut word = 0u64;
            for k in 0..(rows - 64 * w).min(64) {
                let row = start + 64 * w + k;
                // SAFETY: row < start + rows <= len.
                let s = match unsafe { strings.at(row) } {
                    Some(s) => s,
                    // SAFETY: as above.
                    None => unsafe { damaged(column, row) }?,
                };
                word |= u64::from(test(s)) << k;
            }
            // SAFETY: word w is one of dst's.
            unsafe { store_word(dst, w, word) };
        }
    });
    done.ok_or(CorruptString { row: start })
}

/// What the equality loops take.
struct EqArgs<'a> {
    column: &'a ColumnView<'a>,
    start: usize,
    rows: usize,
    lit: &'a Literal<'a>,
    flip: bool,
    dst: *mut u8,
}

type Done = Result<(), CorruptString>;

leveled! {
    fn equal_offsets<O: Offset>(args: &EqArgs<'_>) -> Done = equal_offsets_body
}
leveled! {
    fn equal_views<>(args: &EqArgs<'_>) -> Done = equal_views_body
}

/// Equality by length first, from the offsets alone; then the bytes of those that are left.
#[inline(always)]
unsafe fn equal_offsets_body<O: Offset, const L: u8>(args: &EqArgs<'_>) -> Done {
    let &EqArgs { column, start, rows, lit, flip, dst } = args;
    let strings = Offsets::<O>::new(column);
    let length = O::from_len(lit.bytes.len());
    let flip = if flip { !0u64 } else { 0 };
    for w in 0..rows.div_ceil(64) {
        let first = start + 64 * w;
        let n = (rows - 64 * w).min(64);
        let mut word = 0u64;
        if n == 64 {
            let mut same = [0u8; 64];
            let mut falling = 0u8;
            let wanted = length.unwrap_or(O::ZERO);
            for (k, s) in same.iter_mut().enumerate() {
                // SAFETY: first + 64 <= len, and there are len + 1 offsets.
                let (from, to) =
                    unsafe { (strings.offset(first + k), strings.offset(first + k + 1)) };
                *s = u8::from(to.minus(from) == wanted);
                falling |= u8::from(to < from);
            }
            // SAFETY: as above.
            let (from, to) = unsafe { (strings.offset(first), strings.offset(first + 64)) };
            let bounds = (from.index(), to.index());
            match bounds {
                // All are in order between two that are in range.
                (Some(from), Some(to)) if falling == 0 && to <= strings.limit => {
                    if length.is_some() {
                        // SAFETY: first + 64 <= len.
                        word = unsafe { candidates(strings, first, pack::<L>(&same), from, lit) };
                    }
                }
                // SAFETY: first + 64 <= len.
                _ => word = unsafe { equal_slow(strings, column, first, 64, lit) }?,
            }
        } else {
            // SAFETY: first + n <= len.
            word = unsafe { equal_slow(strings, column, first, n, lit) }?;
        }
        // SAFETY: word w is one of dst's.
        unsafe { store_word(dst, w, (word ^ flip) & low_bits(n)) };
    }
    Ok(())
}

/// Of 64 rows from `first` on, those of `word` have the literal's length: which are equal to it?
/// `from` was read as the offset of the first.
#[inline(always)]
unsafe fn candidates<O: Offset>(
    strings: Offsets<'_, O>,
    first: usize,
    word: u64,
    from: usize,
    lit: &Literal<'_>,
) -> u64 {
    let len = lit.bytes.len();
    if len == 0 || word == 0 {
        return word;
    }
    let mask = low_bits(8 * len.min(8));
    if word == !0 && len <= 8 && from.saturating_add(64 * len + 8) <= strings.readable {
        // All 64 have this length, so they lie one after the other: no offsets are needed.
        let mut equal = [0u8; 64];
        for (k, e) in equal.iter_mut().enumerate() {
            // SAFETY: from + len * k + 8 <= readable, checked above with the same `from`. (If the
            // offsets have changed since, the answer is one of the past; no address is.)
            let v = unsafe { bytes::word(strings.values.add(from + len * k)) };
            *e = u8::from(v & mask == lit.word);
        }
        return pack::<{ crate::level::BASELINE }>(&equal);
    }
    let mut equal = 0u64;
    let mut left = word;
    while left != 0 {
        let k = left.trailing_zeros() as usize;
        left &= left - 1;
        // SAFETY: first + k < len. The offset is read and checked again: bounds belong to the
        // value that becomes the address.
        let hit = match unsafe { strings.at(first + k) } {
            Some(s) => lit.equals(s),
            None => false,
        };
        equal |= u64::from(hit) << k;
    }
    equal
}

/// Row by row, every offset checked: fewer than 64 rows, or some of them damaged.
unsafe fn equal_slow<O: Offset>(
    strings: Offsets<'_, O>,
    column: &ColumnView<'_>,
    first: usize,
    n: usize,
    lit: &Literal<'_>,
) -> Result<u64, CorruptString> {
    let mut word = 0u64;
    for k in 0..n {
        // SAFETY: first + n <= len by the caller's word.
        let s = match unsafe { strings.at(first + k) } {
            Some(s) => s,
            // SAFETY: as above.
            None => unsafe { damaged(column, first + k) }?,
        };
        word |= u64::from(lit.equals(s)) << k;
    }
    Ok(word)
}

/// Equality of views: the first eight bytes are the length and a prefix; short strings are settled
/// by the second eight, long ones by their bytes.
#[inline(always)]
unsafe fn equal_views_body<const L: u8>(args: &EqArgs<'_>) -> Done {
    let &EqArgs { column, start, rows, lit, flip, dst } = args;
    let strings = Views::new(column);
    let flip = if flip { !0u64 } else { 0 };
    let len = lit.bytes.len();
    let possible = u32::try_from(len).is_ok();
    // Length in the low half, then four bytes; the next eight bytes.
    let head = (lit.word << 32) | (len as u64 & 0xffff_ffff);
    let tail = (lit.double >> 32) as u64;
    let short = len <= 12;
    for w in 0..rows.div_ceil(64) {
        let n = (rows - 64 * w).min(64);
        let first = start + 64 * w;
        let mut same = [0u8; 64];
        for (k, s) in same.iter_mut().enumerate().take(n) {
            // SAFETY: first + n <= len, and there are len views of 16 bytes.
            let (a, b) = unsafe {
                let p = strings.views.add(16 * (first + k));
                (bytes::word(p), bytes::word(p.add(8)))
            };
            *s = u8::from(a == head) & (u8::from(b == tail) | u8::from(!short));
        }
        let mut word = if possible { pack::<L>(&same) } else { 0 };
        if !short {
            let mut left = word;
            while left != 0 {
                let k = left.trailing_zeros() as usize;
                left &= left - 1;
                // SAFETY: first + k < len.
                let s = match unsafe { strings.at(first + k) } {
                    Some(s) => s,
                    // SAFETY: as above.
                    None => unsafe { damaged(column, first + k) }?,
                };
                if !lit.equals(s) {
                    word &= !(1 << k);
                }
            }
        }
        // SAFETY: word w is one of dst's.
        unsafe { store_word(dst, w, (word ^ flip) & low_bits(n)) };
    }
    Ok(())
}

/// Compares rows `a_start ..` of one column of strings with rows `b_start ..` of another, by their
/// bytes, into a bitmap as [`compare_literal`] does. The layouts may differ.
///
/// # Errors
/// [`CorruptString`] where a row that is not null has damaged offsets.
///
/// # Safety
/// `a_start + rows <= a.len`, `b_start + rows <= b.len`; `dst` is writable for `ceil(rows / 64)`
/// words and overlaps nothing.
pub unsafe fn compare_columns(
    op: Compare,
    a: &ColumnView<'_>,
    a_start: usize,
    b: &ColumnView<'_>,
    b_start: usize,
    rows: usize,
    dst: *mut u8,
) -> Result<(), CorruptString> {
    let equality = matches!(op, Compare::Eq | Compare::Ne);
    let done = with_strings!(a, left => with_strings!(b, right => {
        for w in 0..rows.div_ceil(64) {
            let mut word = 0u64;
            for k in 0..(rows - 64 * w).min(64) {
                let at = 64 * w + k;
                // SAFETY: at < rows, so both rows lie within their columns.
                let (x, y) = unsafe {
                    let x = match left.at(a_start + at) {
                        Some(s) => s,
                        None => damaged(a, a_start + at)?,
                    };
                    let y = match right.at(b_start + at) {
                        Some(s) => s,
                        None => damaged(b, b_start + at)?,
                    };
                    (x, y)
                };
                // SAFETY: both strings are readable for their lengths.
                let hit = unsafe {
                    if equality {
                        (x.len == y.len && bytes::equal(x.ptr, y.ptr, x.len))
                            == (op == Compare::Eq)
                    } else {
                        holds(op, bytes::order(x.ptr, x.len, y.ptr, y.len))
                    }
                };
                word |= u64::from(hit) << k;
            }
            // SAFETY: word w is one of dst's.
            unsafe { store_word(dst, w, word) };
        }
    }));
    done.flatten().ok_or(CorruptString { row: a_start })
}

/// Lengths in bytes of the strings of rows `start .. start + rows`.
///
/// # Errors
/// [`CorruptString`] where a row that is not null has damaged offsets.
///
/// # Safety
/// `start + rows <= column.len`; `dst` is writable for `rows` values and overlaps nothing.
pub unsafe fn lengths(
    column: &ColumnView<'_>,
    start: usize,
    rows: usize,
    dst: *mut i64,
) -> Result<(), CorruptString> {
    let done = with_strings!(column, strings => {
        for k in 0..rows {
            // SAFETY: start + k < len.
            let s = match unsafe { strings.at(start + k) } {
                Some(s) => s,
                // SAFETY: as above.
                None => unsafe { damaged(column, start + k) }?,
            };
            // SAFETY: k < rows.
            unsafe { dst.add(k).write_unaligned(s.len as i64) };
        }
    });
    done.ok_or(CorruptString { row: start })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LAYOUTS, Owned, Random};
    use super::*;
    use crate::testing::many;

    const OPS: [Compare; 6] =
        [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];

    fn expected(op: Compare, a: &[u8], b: &[u8]) -> bool {
        match op {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
        }
    }

    fn check(words: &[u64], rows: usize, want: impl Fn(usize) -> bool, what: &str) {
        for i in 0..words.len() * 64 {
            let got = words[i / 64] >> (i % 64) & 1 == 1;
            assert_eq!(got, i < rows && want(i), "{what}, row {i} of {rows}");
        }
    }

    #[test]
    fn comparison_with_a_literal_is_that_of_byte_slices() {
        let mut r = Random(2);
        for max in [2, 7, 20, 60] {
            let data = r.strings(700, max, 9);
            for layout in LAYOUTS {
                let owned = Owned::new(layout, &data);
                let view = owned.view();
                for round in 0..if cfg!(miri) { 2 } else { 12 } {
                    let lit = if round % 2 == 0 {
                        r.string(max)
                    } else {
                        data[r.below(700) as usize].clone().unwrap_or_default()
                    };
                    for op in OPS {
                        let start = r.below(300) as usize;
                        let rows = r.below(400) as usize;
                        let mut dst = vec![!0u64; rows.div_ceil(64)];
                        // SAFETY: start + rows < 700; dst has room for the words.
                        unsafe {
                            compare_literal(op, &view, start, rows, &lit, dst.as_mut_ptr().cast())
                        }
                        .unwrap();
                        let row = |i: usize| data[start + i].clone().unwrap_or_default();
                        check(&dst, rows, |i| expected(op, &row(i), &lit), "literal");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_lengths_take_the_strided_path_up_to_the_last_byte() {
        // Exact-size buffers, so a load past the end is a fault of the allocator's checkers.
        for len in 1..=17usize {
            let data: Vec<Option<Vec<u8>>> =
                (0..256).map(|i| Some(vec![b'a' + u8::from(i % 3 == 0); len])).collect();
            for layout in LAYOUTS {
                let owned = Owned::new(layout, &data);
                let view = owned.view();
                let lit = vec![b'b'; len];
                let mut dst = vec![0u64; 4];
                // SAFETY: 256 rows; four words.
                unsafe {
                    compare_literal(Compare::Eq, &view, 0, 256, &lit, dst.as_mut_ptr().cast())
                }
                .unwrap();
                check(&dst, 256, |i| i % 3 == 0, "strided");
            }
        }
    }

    #[test]
    fn columns_of_any_two_layouts_compare() {
        let mut r = Random(3);
        let a = r.strings(400, 3, 8);
        let b = r.strings(400, 3, 8);
        for la in LAYOUTS {
            for lb in LAYOUTS {
                let (oa, ob) = (Owned::new(la, &a), Owned::new(lb, &b));
                for op in OPS {
                    let mut dst = vec![!0u64; 4];
                    // SAFETY: 17 + 200 and 5 + 200 are below 400; four words.
                    unsafe {
                        let dst = dst.as_mut_ptr().cast();
                        compare_columns(op, &oa.view(), 17, &ob.view(), 5, 200, dst)
                    }
                    .unwrap();
                    let (x, y) = (
                        |i: usize| a[17 + i].clone().unwrap_or_default(),
                        |i: usize| b[5 + i].clone().unwrap_or_default(),
                    );
                    check(&dst, 200, |i| expected(op, &x(i), &y(i)), "columns");
                }
            }
        }
    }

    #[test]
    fn lengths_are_in_bytes() {
        let data = [Some("né".as_bytes()), None, Some(b""), Some(b"thirteen bytes")];
        for layout in LAYOUTS {
            let owned = Owned::new(layout, &data);
            let mut dst = [-1i64; 3];
            // SAFETY: rows 1 to 3 exist; three values.
            unsafe { lengths(&owned.view(), 1, 3, dst.as_mut_ptr()) }.unwrap();
            assert_eq!(dst, [0, 0, 14]);
        }
    }

    #[test]
    fn damaged_offsets_never_lead_outside() {
        let mut r = Random(4);
        let data = r.strings(256, 12, 6);
        let hostile = [-1, i64::from(i32::MIN), i64::MIN, 1 << 20, i64::MAX, 3, 0];
        for layout in [Layout::Utf8, Layout::LargeUtf8] {
            for round in 0..many(300) {
                let mut owned = Owned::new(layout, &data);
                let at = r.below(257) as usize;
                owned.set_offset(at, hostile[round % hostile.len()]);
                let view = owned.view();
                let mut dst = vec![0u64; 4];
                for op in OPS {
                    for lit in [&b""[..], b"a", b"abab", b"ab\0zab\0zab\0z"] {
                        // SAFETY: 256 rows; four words. Damage must give an error or an answer.
                        let got = unsafe {
                            compare_literal(op, &view, 0, 256, lit, dst.as_mut_ptr().cast())
                        };
                        if let Err(e) = got {
                            assert!(e.row + 1 == at || e.row == at);
                        }
                    }
                }
            }
        }
    }
}
