//! Strings: one cursor (pointer, length) over the three layouts, and the loops on top of it.
//!
//! Offsets and views are data, and data is not trusted with addresses: every address is bounded by
//! the very value it is made from, at the moment of use, even where a loop before has looked at the
//! same offsets (another process may have written them in between).
//!
//! Functions here work on rows `start .. start + rows` of one chunk, ignore validity (the caller
//! combines it), and treat a null row as any other, except that a null row whose offsets are
//! damaged is an empty string and no error.

mod compare;
mod set;

use crate::view::{ColumnView, Layout};
use std::fmt;
use std::marker::PhantomData;

pub use compare::{compare_columns, compare_literal, lengths};
pub use set::{LiteralSet, is_in};
pub(crate) use set::{PACKED_MAX, pack_short};

/// A string whose offsets or view point outside its buffers, in a row that is not null. (Also the
/// answer to a column that does not hold strings: planning rules that out.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CorruptString {
    /// Row of the chunk.
    pub row: usize,
}

impl fmt::Display for CorruptString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the offsets of the string in row {} of its chunk are out of range", self.row)
    }
}

impl std::error::Error for CorruptString {}

/// One string.
#[derive(Clone, Copy)]
pub(crate) struct Str {
    /// Its first byte.
    pub(crate) ptr: *const u8,
    /// Its bytes.
    pub(crate) len: usize,
    /// Bytes readable from `ptr` on, at least `len`.
    pub(crate) room: usize,
}

impl Str {
    pub(crate) const EMPTY: Str = Str { ptr: std::ptr::dangling(), len: 0, room: 0 };
}

/// Rows of strings in one of the layouts.
pub(crate) trait Rows: Copy {
    /// The string of a row; `None` if what describes it points outside.
    ///
    /// # Safety
    /// `row` is below the length of the view it was made from. What is returned is readable as
    /// long as the view's borrow lasts.
    unsafe fn at(self, row: usize) -> Option<Str>;
}

/// An offset type.
pub(crate) trait Offset: Copy + PartialOrd + 'static {
    /// Zero.
    const ZERO: Self;
    /// A number of bytes as an offset, if it fits.
    fn from_len(len: usize) -> Option<Self>;
    /// As an index; `None` if negative.
    fn index(self) -> Option<usize>;
    /// As an index; beyond any buffer if negative.
    fn wrapped(self) -> usize;
    /// Difference, wrapping.
    fn minus(self, other: Self) -> Self;
}

macro_rules! offset {
    ($t:ty) => {
        impl Offset for $t {
            const ZERO: $t = 0;
            #[inline(always)]
            fn from_len(len: usize) -> Option<$t> {
                <$t>::try_from(len).ok()
            }
            #[inline(always)]
            fn index(self) -> Option<usize> {
                usize::try_from(self).ok()
            }
            #[inline(always)]
            fn wrapped(self) -> usize {
                self as isize as usize
            }
            #[inline(always)]
            fn minus(self, other: $t) -> $t {
                self.wrapping_sub(other)
            }
        }
    };
}
offset!(i32);
offset!(i64);

/// Strings of the Utf8 and LargeUtf8 layouts.
#[derive(Clone, Copy)]
pub(crate) struct Offsets<'a, O> {
    pub(crate) offsets: *const u8,
    pub(crate) values: *const u8,
    /// Bytes that strings may cover.
    pub(crate) limit: usize,
    /// Bytes that may be read.
    pub(crate) readable: usize,
    _borrow: PhantomData<&'a O>,
}

impl<'a, O: Offset> Offsets<'a, O> {
    pub(crate) fn new(view: &ColumnView<'a>) -> Self {
        Offsets {
            offsets: view.offsets,
            values: view.values,
            limit: view.values_len,
            readable: if view.padded {
                view.values_len.next_multiple_of(64)
            } else {
                view.values_len
            },
            _borrow: PhantomData,
        }
    }

    /// Offset `i`.
    ///
    /// # Safety
    /// `i` is at most the length of the view.
    #[inline(always)]
    pub(crate) unsafe fn offset(self, i: usize) -> O {
        // SAFETY: a string view has len + 1 offsets.
        unsafe { self.offsets.cast::<O>().add(i).read_unaligned() }
    }
}

impl<O: Offset> Rows for Offsets<'_, O> {
    #[inline(always)]
    unsafe fn at(self, row: usize) -> Option<Str> {
        // SAFETY: row < len, and there are len + 1 offsets.
        let (from, to) = unsafe { (self.offset(row), self.offset(row + 1)) };
        // What is negative wraps to more than any limit (a slice has at most isize::MAX bytes), and
        // `from` is at most `to`: two comparisons check all.
        let (from, to) = (from.wrapped(), to.wrapped());
        if from > to || to > self.limit.min(isize::MAX as usize) {
            return None;
        }
        // SAFETY: from <= limit, which is within the values.
        let ptr = unsafe { self.values.add(from) };
        Some(Str { ptr, len: to - from, room: self.readable - from })
    }
}

/// Strings of the Utf8View layout.
#[derive(Clone, Copy)]
pub(crate) struct Views<'a> {
    pub(crate) views: *const u8,
    /// Readable bytes at `views`.
    readable: usize,
    variadic: &'a [(*const u8, usize)],
    padded: bool,
}

impl<'a> Views<'a> {
    pub(crate) fn new(view: &ColumnView<'a>) -> Self {
        Views {
            views: view.values,
            readable: view.values_len,
            variadic: view.variadic,
            padded: view.padded,
        }
    }
}

impl Rows for Views<'_> {
    #[inline(always)]
    unsafe fn at(self, row: usize) -> Option<Str> {
        // SAFETY: row < len, and there are len views of 16 bytes.
        let (p, view) = unsafe {
            let p = self.views.add(16 * row);
            (p, u128::from_le(p.cast::<u128>().read_unaligned()))
        };
        let len = usize::try_from(view as u32).ok()?;
        if len <= 12 {
            // The bytes stand in the view, after its length.
            let room = self.readable.saturating_sub(16 * row + 4).max(12);
            // SAFETY: within the 16 bytes of the view.
            return Some(Str { ptr: unsafe { p.add(4) }, len, room });
        }
        let buffer = usize::try_from((view >> 64) as u32).ok()?;
        let offset = usize::try_from((view >> 96) as u32).ok()?;
        let &(base, size) = self.variadic.get(buffer)?;
        let end = offset.checked_add(len)?;
        if end > size {
            return None;
        }
        let readable = if self.padded { size.next_multiple_of(64) } else { size };
        // SAFETY: offset <= size.
        Some(Str { ptr: unsafe { base.add(offset) }, len, room: readable - offset })
    }
}

/// Runs `$body` with `$rows` a [`Rows`] of the view's layout; `None` if it holds no strings.
macro_rules! with_strings {
    ($view:expr, $rows:ident => $body:expr) => {
        match $view.layout {
            $crate::view::Layout::Utf8 => {
                let $rows = $crate::strings::Offsets::<i32>::new($view);
                Some($body)
            }
            $crate::view::Layout::LargeUtf8 => {
                let $rows = $crate::strings::Offsets::<i64>::new($view);
                Some($body)
            }
            $crate::view::Layout::Utf8View => {
                let $rows = $crate::strings::Views::new($view);
                Some($body)
            }
            _ => None,
        }
    };
}
pub(crate) use with_strings;

/// What to take for a row whose description is damaged: an empty string where it is null.
///
/// # Safety
/// `row` is below the length of the view.
#[cold]
#[inline(never)]
pub(crate) unsafe fn damaged(view: &ColumnView<'_>, row: usize) -> Result<Str, CorruptString> {
    if !view.validity.is_null() {
        // SAFETY: row < len, and the bitmap has len bits.
        let byte = unsafe { view.validity.add(row / 8).read() };
        if byte >> (row % 8) & 1 == 0 {
            return Ok(Str::EMPTY);
        }
    }
    Err(CorruptString { row })
}

/// A cursor over the strings of one chunk.
#[derive(Clone, Copy)]
pub struct StrCursor<'a> {
    view: ColumnView<'a>,
}

impl<'a> StrCursor<'a> {
    /// A cursor over a column of strings; `None` if it holds something else.
    pub fn new(view: &ColumnView<'a>) -> Option<StrCursor<'a>> {
        matches!(view.layout, Layout::Utf8 | Layout::LargeUtf8 | Layout::Utf8View)
            .then_some(StrCursor { view: *view })
    }

    /// Pointer and length of the string in a row, readable for `'a`. A null row yields what lies
    /// there, an empty string if that is damaged.
    ///
    /// # Errors
    /// [`CorruptString`] if the row is past the end, or its offsets point outside the buffers.
    #[inline]
    pub fn get(&self, row: usize) -> Result<(*const u8, usize), CorruptString> {
        self.str(row).map(|s| (s.ptr, s.len))
    }

    /// [`StrCursor::get`], with the room for wide loads.
    #[inline]
    pub(crate) fn str(&self, row: usize) -> Result<Str, CorruptString> {
        if row >= self.view.len {
            return Err(CorruptString { row });
        }
        // SAFETY: row < len.
        let found = with_strings!(&self.view, rows => unsafe { rows.at(row) });
        match found.flatten() {
            Some(s) => Ok(s),
            // SAFETY: row < len.
            None => unsafe { damaged(&self.view, row) },
        }
    }

    /// A copy of the string's bytes.
    ///
    /// # Errors
    /// As [`StrCursor::get`].
    pub fn to_vec(&self, row: usize) -> Result<Vec<u8>, CorruptString> {
        let (p, len) = self.get(row)?;
        let mut v = vec![0u8; len];
        // SAFETY: the string is readable for len bytes; the vector is new.
        unsafe { crate::bytes::copy(v.as_mut_ptr(), p, len) };
        Ok(v)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// String columns on the heap in exact-size buffers, in every layout.
    pub(crate) struct Owned {
        layout: Layout,
        len: usize,
        pub(crate) values: Box<[u8]>,
        pub(crate) offsets: Box<[u8]>,
        pub(crate) validity: Option<Box<[u8]>>,
        variadic_data: Vec<Box<[u8]>>,
        variadic: Vec<(*const u8, usize)>,
    }

    pub(crate) const LAYOUTS: [Layout; 3] = [Layout::Utf8, Layout::LargeUtf8, Layout::Utf8View];

    impl Owned {
        pub(crate) fn new<S: AsRef<[u8]>>(layout: Layout, rows: &[Option<S>]) -> Owned {
            let mut validity = vec![0u8; rows.len().div_ceil(8)];
            let mut values = Vec::new();
            let mut offsets = Vec::new();
            let mut data: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
            let mut push_offset = |n: usize| match layout {
                Layout::Utf8 => offsets.extend_from_slice(&(n as i32).to_le_bytes()),
                Layout::LargeUtf8 => offsets.extend_from_slice(&(n as i64).to_le_bytes()),
                _ => {}
            };
            push_offset(0);
            for (i, row) in rows.iter().enumerate() {
                let s = row.as_ref().map_or(&[][..], |s| s.as_ref());
                if row.is_some() {
                    validity[i / 8] |= 1 << (i % 8);
                }
                if layout == Layout::Utf8View {
                    let mut v = [0u8; 16];
                    v[..4].copy_from_slice(&(s.len() as u32).to_le_bytes());
                    if s.len() <= 12 {
                        v[4..4 + s.len()].copy_from_slice(s);
                    } else {
                        let b = i % 2;
                        v[4..8].copy_from_slice(&s[..4]);
                        v[8..12].copy_from_slice(&(b as u32).to_le_bytes());
                        v[12..].copy_from_slice(&(data[b].len() as u32).to_le_bytes());
                        data[b].extend_from_slice(s);
                    }
                    values.extend_from_slice(&v);
                } else {
                    values.extend_from_slice(s);
                    push_offset(values.len());
                }
            }
            let variadic_data: Vec<Box<[u8]>> =
                data.into_iter().map(Vec::into_boxed_slice).collect();
            let variadic = variadic_data.iter().map(|b| (b.as_ptr(), b.len())).collect();
            Owned {
                layout,
                len: rows.len(),
                values: values.into_boxed_slice(),
                offsets: offsets.into_boxed_slice(),
                validity: rows.iter().any(Option::is_none).then(|| validity.into_boxed_slice()),
                variadic_data,
                variadic,
            }
        }

        pub(crate) fn view(&self) -> ColumnView<'_> {
            assert_eq!(self.variadic_data.len(), self.variadic.len());
            let validity = self.validity.as_ref().map_or(std::ptr::null(), |v| v.as_ptr());
            // SAFETY: every buffer is owned by self, which the view borrows.
            unsafe {
                let view =
                    ColumnView::new(self.layout, self.len, self.values.as_ptr(), self.values.len())
                        .with_validity(validity, None)
                        .with_variadic(&self.variadic);
                if self.offsets.is_empty() {
                    view
                } else {
                    view.with_offsets(self.offsets.as_ptr())
                }
            }
        }

        pub(crate) fn set_offset(&mut self, i: usize, v: i64) {
            match self.layout {
                Layout::Utf8 => {
                    self.offsets[4 * i..4 * i + 4].copy_from_slice(&(v as i32).to_le_bytes());
                }
                Layout::LargeUtf8 => {
                    self.offsets[8 * i..8 * i + 8].copy_from_slice(&v.to_le_bytes());
                }
                _ => {}
            }
        }
    }

    /// A small generator for tests: SplitMix64.
    pub(crate) struct Random(pub(crate) u64);

    impl Random {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
        pub(crate) fn below(&mut self, n: u64) -> u64 {
            self.next() % n.max(1)
        }
        /// A string of up to `max` letters of a small alphabet, NUL among them.
        pub(crate) fn string(&mut self, max: u64) -> Vec<u8> {
            let len = self.below(max + 1);
            (0..len).map(|_| b"ab\0z"[self.below(4) as usize]).collect()
        }
        pub(crate) fn strings(
            &mut self,
            rows: usize,
            max: u64,
            nulls: u64,
        ) -> Vec<Option<Vec<u8>>> {
            (0..rows)
                .map(|_| (nulls == 0 || self.below(nulls) != 0).then(|| self.string(max)))
                .collect()
        }
    }

    #[test]
    fn the_cursor_reads_every_layout() {
        let mut r = Random(1);
        let rows = r.strings(300, 40, 7);
        for layout in LAYOUTS {
            let owned = Owned::new(layout, &rows);
            let view = owned.view();
            let cursor = StrCursor::new(&view).unwrap();
            for (i, row) in rows.iter().enumerate() {
                assert_eq!(cursor.to_vec(i).unwrap(), row.clone().unwrap_or_default());
            }
            assert_eq!(cursor.get(300), Err(CorruptString { row: 300 }));
        }
    }

    #[test]
    fn damaged_offsets_are_an_error_unless_the_row_is_null() {
        for layout in [Layout::Utf8, Layout::LargeUtf8] {
            let rows = [Some("alpha"), None, Some("beta"), Some("gamma")];
            for (at, bad) in [(1, -1), (1, 1 << 30), (2, i64::from(i32::MIN)), (3, 2), (4, 15)] {
                let mut owned = Owned::new(layout, &rows);
                owned.set_offset(at, bad);
                let view = owned.view();
                let cursor = StrCursor::new(&view).unwrap();
                let fails: Vec<bool> = (0..4).map(|i| cursor.get(i).is_err()).collect();
                assert!(fails[at - 1] || at == 2, "{layout:?} offset {at} = {bad}");
                assert!(!fails[1], "a null row is never an error");
            }
        }
    }

    #[test]
    fn damaged_views_are_an_error_unless_the_row_is_null() {
        let long = "a string that is longer than twelve bytes";
        let rows = [Some(long), None, Some("short"), Some(long)];
        for (row, at, bytes) in [
            (0usize, 0usize, 200u32.to_le_bytes()), // length past the buffer
            (0, 8, 2u32.to_le_bytes()),             // no such buffer
            (3, 12, u32::MAX.to_le_bytes()),        // offset past the buffer
            (3, 0, u32::MAX.to_le_bytes()),
        ] {
            let mut owned = Owned::new(Layout::Utf8View, &rows);
            owned.values[16 * row + at..16 * row + at + 4].copy_from_slice(&bytes);
            owned.values[16..20].copy_from_slice(&u32::MAX.to_le_bytes()); // the null row
            let view = owned.view();
            let cursor = StrCursor::new(&view).unwrap();
            assert_eq!(cursor.get(row), Err(CorruptString { row }));
            assert_eq!(cursor.to_vec(1).unwrap(), b"");
            assert_eq!(cursor.to_vec(2).unwrap(), b"short");
        }
    }
}
