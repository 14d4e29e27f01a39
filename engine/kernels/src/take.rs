//! Gathering rows by number, for every layout but the opaque one.
//!
//! In two passes: [`take_sizes`] says what memory the result needs, [`take`] writes it. Row numbers
//! are checked in both; so are the bytes that strings take, since another process may have written
//! the column in between.

use crate::bytes;
use crate::prim::Native;
use crate::strings::{CorruptString, Str, StrCursor};
use crate::tile::mem::{load, store, store_word};
use crate::view::{ColumnView, Layout};
use std::fmt;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// A row number: u32 or u64. Where nulls are allowed, the greatest number stands for null.
pub trait Index: sealed::Sealed + Copy + Send + Sync + Ord + fmt::Debug + 'static {
    /// What stands for null.
    const NULL: Self;
    /// A row as a number of this type, if it fits below [`Index::NULL`].
    fn from_row(row: usize) -> Option<Self>;
    /// The row.
    fn row(self) -> u64;
}

macro_rules! index {
    ($t:ty) => {
        impl Index for $t {
            const NULL: $t = <$t>::MAX;
            #[inline(always)]
            fn from_row(row: usize) -> Option<$t> {
                <$t>::try_from(row).ok().filter(|r| *r != <$t>::MAX)
            }
            #[inline(always)]
            fn row(self) -> u64 {
                u64::from(self)
            }
        }
    };
}
index!(u32);
index!(u64);

/// Why rows could not be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TakeError {
    /// A row number past the end.
    OutOfBounds {
        /// The row asked for.
        row: u64,
        /// How many there are.
        rows: u64,
    },
    /// The bytes of the result do not fit its 32-bit offsets.
    OffsetOverflow {
        /// How many there would be.
        bytes: u64,
    },
    /// A string has damaged offsets.
    Corrupt(CorruptString),
    /// The column was written between the two passes.
    Changed,
    /// The column is opaque, or its chunks differ in layout.
    Unsupported,
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeError::OutOfBounds { row, rows } => write!(f, "row {row} of {rows} rows"),
            TakeError::OffsetOverflow { bytes } => {
                write!(f, "{bytes} bytes of strings do not fit 32-bit offsets: cast to LargeUtf8")
            }
            TakeError::Corrupt(e) => e.fmt(f),
            TakeError::Changed => write!(f, "the column was written while it was read"),
            TakeError::Unsupported => write!(f, "rows of such a column cannot be gathered"),
        }
    }
}

impl std::error::Error for TakeError {}

impl From<CorruptString> for TakeError {
    fn from(e: CorruptString) -> Self {
        TakeError::Corrupt(e)
    }
}

/// What a result needs, in bytes. Bitmaps are counted in whole words of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TakeSizes {
    /// Numbers, bits, bytes of strings (Utf8, LargeUtf8), or views.
    pub values: usize,
    /// Offsets (Utf8, LargeUtf8).
    pub offsets: usize,
    /// The one data buffer of views.
    pub data: usize,
    /// The validity bitmap: 0 if there are no nulls.
    pub validity: usize,
    /// How many rows are null.
    pub nulls: usize,
}

/// Where a result goes; pointers whose size is 0 may be null.
#[derive(Clone, Copy, Debug)]
pub struct TakeDst {
    /// [`TakeSizes::values`] bytes.
    pub values: *mut u8,
    /// [`TakeSizes::offsets`] bytes.
    pub offsets: *mut u8,
    /// [`TakeSizes::data`] bytes.
    pub data: *mut u8,
    /// [`TakeSizes::validity`] bytes; null: none is written.
    pub validity: *mut u8,
    /// Bytes before the first string: what offsets (and views) start from. Not 0 where a result is
    /// written in parts, each with sizes of its own; `values` (of views: `data`) then points at the
    /// part's bytes.
    pub base: usize,
}

/// The chunks of a column as one run of rows.
pub(crate) struct Chunked<'a> {
    chunks: &'a [ColumnView<'a>],
    /// First row of each chunk.
    starts: Vec<u64>,
    rows: u64,
}

impl<'a> Chunked<'a> {
    pub(crate) fn new(chunks: &'a [ColumnView<'a>]) -> Chunked<'a> {
        let mut rows = 0u64;
        let starts = chunks
            .iter()
            .map(|c| {
                let start = rows;
                rows = rows.saturating_add(c.len as u64);
                start
            })
            .collect();
        Chunked { chunks, starts, rows }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The layout of all chunks.
    fn layout(&self) -> Option<Layout> {
        let first = self.chunks.first()?.layout;
        self.chunks.iter().all(|c| c.layout == first).then_some(first)
    }

    /// The chunk that holds a row, and the row in it (which is below its length).
    #[inline(always)]
    pub(crate) fn find(&self, row: u64) -> Option<(&'a ColumnView<'a>, usize)> {
        if let [only] = self.chunks {
            return (row < only.len as u64).then_some((only, row as usize));
        }
        if row >= self.rows {
            return None;
        }
        let at = self.starts.partition_point(|s| *s <= row).checked_sub(1)?;
        let chunk = self.chunks.get(at)?;
        let row = row - self.starts.get(at)?;
        (row < chunk.len as u64).then_some((chunk, row as usize))
    }

    fn check(&self, row: u64) -> Result<(&'a ColumnView<'a>, usize), TakeError> {
        self.find(row).ok_or(TakeError::OutOfBounds { row, rows: self.rows })
    }
}

/// Is the row not null?
///
/// # Safety
/// `row < chunk.len`.
#[inline(always)]
pub(crate) unsafe fn is_valid(chunk: &ColumnView<'_>, row: usize) -> bool {
    // SAFETY: the bitmap has a bit for every row.
    chunk.validity.is_null() || unsafe { chunk.validity.add(row / 8).read() } >> (row % 8) & 1 == 1
}

/// What taking these rows of a column needs. `nullable`: [`Index::NULL`] yields a null; else it is a
/// row like another.
///
/// # Errors
/// [`TakeError`].
pub fn take_sizes<I: Index>(
    chunks: &[ColumnView<'_>],
    indices: &[I],
    nullable: bool,
) -> Result<TakeSizes, TakeError> {
    let mut sizes = TakeSizes::default();
    let rows = Chunked::new(chunks);
    let words = indices.len().div_ceil(64) * 8;
    let layout = match rows.layout() {
        None if chunks.is_empty() && indices.is_empty() => return Ok(sizes),
        None | Some(Layout::Opaque) => return Err(TakeError::Unsupported),
        Some(layout) => layout,
    };
    let strings = matches!(layout, Layout::Utf8 | Layout::LargeUtf8 | Layout::Utf8View);
    let mut bytes = 0u64;
    for index in indices {
        if nullable && *index == I::NULL {
            sizes.nulls += 1;
            continue;
        }
        let (chunk, row) = rows.check(index.row())?;
        // SAFETY: row < chunk.len.
        if !unsafe { is_valid(chunk, row) } {
            sizes.nulls += 1;
        } else if strings {
            let (_, len) = string(chunk, row)?;
            // Short strings stay in their views.
            if layout != Layout::Utf8View || len > 12 {
                bytes = bytes.saturating_add(len as u64);
            }
        }
    }
    let small = matches!(layout, Layout::Utf8 | Layout::Utf8View);
    let limit = if small { i32::MAX as u64 } else { i64::MAX as u64 };
    if bytes > limit {
        return Err(TakeError::OffsetOverflow { bytes });
    }
    let n = indices.len();
    match layout {
        Layout::Prim(p) => sizes.values = n * p.width(),
        Layout::Bool => sizes.values = words,
        Layout::Utf8 => (sizes.values, sizes.offsets) = (bytes as usize, 4 * (n + 1)),
        Layout::LargeUtf8 => (sizes.values, sizes.offsets) = (bytes as usize, 8 * (n + 1)),
        Layout::Utf8View => (sizes.values, sizes.data) = (16 * n, bytes as usize),
        Layout::Opaque => return Err(TakeError::Unsupported),
    }
    sizes.validity = if sizes.nulls > 0 { words } else { 0 };
    Ok(sizes)
}

/// A string of a chunk.
#[inline(always)]
fn string(chunk: &ColumnView<'_>, row: usize) -> Result<(*const u8, usize), TakeError> {
    let cursor = StrCursor::new(chunk).ok_or(TakeError::Unsupported)?;
    Ok(cursor.get(row)?)
}

/// Takes rows of a column, in the column's layout; null rows get zero values and empty strings.
///
/// # Errors
/// [`TakeError`]; what was written is then meaningless.
///
/// # Safety
/// `sizes` are those of [`take_sizes`] for the same arguments, and the destinations are writable
/// for them and overlap nothing.
pub unsafe fn take<I: Index>(
    chunks: &[ColumnView<'_>],
    indices: &[I],
    nullable: bool,
    sizes: &TakeSizes,
    dst: &TakeDst,
) -> Result<(), TakeError> {
    let rows = Chunked::new(chunks);
    let layout = match rows.layout() {
        None if chunks.is_empty() && indices.is_empty() => return Ok(()),
        None => return Err(TakeError::Unsupported),
        Some(layout) => layout,
    };
    if sizes.validity != 0 && !dst.validity.is_null() {
        let valid = |c: &ColumnView<'_>, r: usize| {
            // SAFETY: bits asks for rows of the chunk.
            unsafe { is_valid(c, r) }
        };
        // SAFETY: there are sizes.validity bytes, the words that hold a bit per index.
        unsafe { take_bits(&rows, indices, nullable, dst.validity, valid)? };
    }
    // SAFETY: the contract is passed on, arm by arm for the layout of all chunks.
    unsafe {
        match layout {
            Layout::Prim(p) => match p.width() {
                1 => take_fixed::<I, u8>(&rows, indices, nullable, dst.values),
                2 => take_fixed::<I, u16>(&rows, indices, nullable, dst.values),
                4 => take_fixed::<I, u32>(&rows, indices, nullable, dst.values),
                _ => take_fixed::<I, u64>(&rows, indices, nullable, dst.values),
            },
            Layout::Bool => take_bits(&rows, indices, nullable, dst.values, |c, r| {
                // A null row's bit is made false, whatever lies there.
                is_valid(c, r) && c.values.add(r / 8).read() >> (r % 8) & 1 == 1
            }),
            Layout::Utf8 => take_strings::<I, i32>(&rows, indices, nullable, sizes, dst),
            Layout::LargeUtf8 => take_strings::<I, i64>(&rows, indices, nullable, sizes, dst),
            Layout::Utf8View => take_views(&rows, indices, nullable, sizes, dst),
            Layout::Opaque => Err(TakeError::Unsupported),
        }
    }
}

/// # Safety
/// The chunks hold values as wide as `T`; `dst` is writable for `indices.len()` of them.
unsafe fn take_fixed<I: Index, T: Native>(
    rows: &Chunked<'_>,
    indices: &[I],
    nullable: bool,
    dst: *mut u8,
) -> Result<(), TakeError> {
    if let ([only], false) = (rows.chunks, nullable)
        && only.validity.is_null()
    {
        // One chunk without nulls: check and load, nothing else.
        for (k, index) in indices.iter().enumerate() {
            let row = index.row();
            if row >= only.len as u64 {
                return Err(TakeError::OutOfBounds { row, rows: rows.rows });
            }
            // SAFETY: row < len; k < indices.len().
            unsafe { store::<T>(dst, k, load::<T>(only.values, row as usize)) };
        }
        return Ok(());
    }
    for (k, index) in indices.iter().enumerate() {
        let v = if nullable && *index == I::NULL {
            T::ZERO
        } else {
            let (chunk, row) = rows.check(index.row())?;
            // SAFETY: row < chunk.len.
            unsafe { if is_valid(chunk, row) { load::<T>(chunk.values, row) } else { T::ZERO } }
        };
        // SAFETY: k < indices.len().
        unsafe { store::<T>(dst, k, v) };
    }
    Ok(())
}

/// # Safety
/// `bit` may be asked for any row of any chunk; `dst` is writable for `ceil(indices.len() / 64)`
/// words.
unsafe fn take_bits<I: Index>(
    rows: &Chunked<'_>,
    indices: &[I],
    nullable: bool,
    dst: *mut u8,
    bit: impl Fn(&ColumnView<'_>, usize) -> bool,
) -> Result<(), TakeError> {
    for (w, part) in indices.chunks(64).enumerate() {
        let mut word = 0u64;
        for (k, index) in part.iter().enumerate() {
            if !(nullable && *index == I::NULL) {
                let (chunk, row) = rows.check(index.row())?;
                word |= u64::from(bit(chunk, row)) << k;
            }
        }
        // SAFETY: w < ceil(indices.len() / 64).
        unsafe { store_word(dst, w, word) };
    }
    Ok(())
}

/// The string to write for an index; empty for nulls.
#[inline(always)]
fn chosen<I: Index>(rows: &Chunked<'_>, index: I, nullable: bool) -> Result<Str, TakeError> {
    if nullable && index == I::NULL {
        return Ok(Str::EMPTY);
    }
    let (chunk, row) = rows.check(index.row())?;
    // SAFETY: row < chunk.len.
    if !unsafe { is_valid(chunk, row) } {
        return Ok(Str::EMPTY);
    }
    let cursor = StrCursor::new(chunk).ok_or(TakeError::Unsupported)?;
    Ok(cursor.str(row)?)
}

/// An offset of a result.
trait PutOffset {
    /// # Safety
    /// Offset `i` of `p` is writable.
    unsafe fn put(p: *mut u8, i: usize, at: usize) -> Result<(), TakeError>;
}

macro_rules! put_offset {
    ($t:ty) => {
        impl PutOffset for $t {
            #[inline(always)]
            unsafe fn put(p: *mut u8, i: usize, at: usize) -> Result<(), TakeError> {
                let v = <$t>::try_from(at)
                    .map_err(|_| TakeError::OffsetOverflow { bytes: at as u64 })?;
                // SAFETY: by contract.
                unsafe { p.cast::<$t>().add(i).write_unaligned(v) };
                Ok(())
            }
        }
    };
}
put_offset!(i32);
put_offset!(i64);

/// # Safety
/// The destinations are writable for `sizes`.
unsafe fn take_strings<I: Index, O: PutOffset>(
    rows: &Chunked<'_>,
    indices: &[I],
    nullable: bool,
    sizes: &TakeSizes,
    dst: &TakeDst,
) -> Result<(), TakeError> {
    let mut at = 0usize;
    for (k, index) in indices.iter().enumerate() {
        // SAFETY: there are indices.len() + 1 offsets.
        unsafe { O::put(dst.offsets, k, dst.base.saturating_add(at))? };
        let s = chosen(rows, *index, nullable)?;
        if s.len > sizes.values - at {
            return Err(TakeError::Changed);
        }
        // SAFETY: at + s.len <= sizes.values; the string is readable for its length.
        unsafe { bytes::copy(dst.values.add(at), s.ptr, s.len) };
        at += s.len;
    }
    // SAFETY: as above.
    unsafe { O::put(dst.offsets, indices.len(), dst.base.saturating_add(at))? };
    if at == sizes.values { Ok(()) } else { Err(TakeError::Changed) }
}

/// # Safety
/// The destinations are writable for `sizes`.
unsafe fn take_views<I: Index>(
    rows: &Chunked<'_>,
    indices: &[I],
    nullable: bool,
    sizes: &TakeSizes,
    dst: &TakeDst,
) -> Result<(), TakeError> {
    let mut at = 0usize;
    for (k, index) in indices.iter().enumerate() {
        let s = chosen(rows, *index, nullable)?;
        let view = if s.len <= 12 {
            // SAFETY: the string is readable for its room.
            let packed = unsafe { bytes::packed(s.ptr, s.len, s.room) };
            s.len as u128 | packed << 32
        } else {
            if s.len > sizes.data - at {
                return Err(TakeError::Changed);
            }
            // The prefix is read from the copy: the two must agree.
            // SAFETY: at + s.len <= sizes.data; the string is readable for its length.
            let prefix = unsafe {
                let to = dst.data.add(at);
                bytes::copy(to, s.ptr, s.len);
                bytes::word(to) as u32
            };
            let offset = dst.base.saturating_add(at);
            if offset > i32::MAX as usize {
                return Err(TakeError::OffsetOverflow { bytes: offset as u64 });
            }
            at += s.len;
            s.len as u128 | u128::from(prefix) << 32 | (offset as u128) << 96
        };
        // SAFETY: k < indices.len(), and there are as many views.
        unsafe { dst.values.cast::<u128>().add(k).write_unaligned(view.to_le()) };
    }
    if at == sizes.data { Ok(()) } else { Err(TakeError::Changed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prim::Prim;
    use crate::strings::tests::{LAYOUTS, Owned, Random};

    /// Takes into exact-size heap memory; returns (values, offsets, data, validity).
    fn taken<I: Index>(
        chunks: &[ColumnView<'_>],
        indices: &[I],
        nullable: bool,
    ) -> Result<([Vec<u8>; 4], TakeSizes), TakeError> {
        let sizes = take_sizes(chunks, indices, nullable)?;
        let mut out = [
            vec![0xa5u8; sizes.values],
            vec![0xa5; sizes.offsets],
            vec![0xa5; sizes.data],
            vec![0xa5; sizes.validity],
        ];
        let [values, offsets, data, validity] = out.each_mut().map(|v| v.as_mut_ptr());
        let dst = TakeDst { values, offsets, data, validity, base: 0 };
        // SAFETY: the buffers have the sizes asked for.
        unsafe { take(chunks, indices, nullable, &sizes, &dst)? };
        Ok((out, sizes))
    }

    fn bit(bytes: &[u8], i: usize) -> bool {
        bytes.is_empty() || bytes[i / 8] >> (i % 8) & 1 == 1
    }

    #[test]
    fn strings_of_several_chunks_come_out_in_the_order_asked() {
        let mut r = Random(11);
        let rows = r.strings(500, 30, 5);
        for layout in LAYOUTS {
            let parts = [&rows[..100], &rows[100..100], &rows[100..437], &rows[437..]];
            let owned: Vec<Owned> = parts.iter().map(|p| Owned::new(layout, p)).collect();
            let chunks: Vec<ColumnView<'_>> = owned.iter().map(Owned::view).collect();
            let indices: Vec<u32> = (0..900)
                .map(|_| if r.below(10) == 0 { u32::MAX } else { r.below(500) as u32 })
                .collect();
            let (out, sizes) = taken(&chunks, &indices, true).unwrap();
            let variadic = [(out[2].as_ptr(), out[2].len())];
            // SAFETY: the buffers live as long as the view.
            let view = unsafe {
                ColumnView::new(layout, 900, out[0].as_ptr(), out[0].len())
                    .with_offsets(out[1].as_ptr())
                    .with_variadic(&variadic)
            };
            let cursor = StrCursor::new(&view).unwrap();
            let mut nulls = 0;
            for (k, i) in indices.iter().enumerate() {
                let want = rows.get(*i as usize).cloned().flatten();
                assert_eq!(bit(&out[3], k), want.is_some());
                nulls += usize::from(want.is_none());
                assert_eq!(cursor.to_vec(k).unwrap(), want.unwrap_or_default());
            }
            assert_eq!(nulls, sizes.nulls);
        }
    }

    #[test]
    fn numbers_and_bits_come_out_in_the_order_asked() {
        let mut r = Random(12);
        let bytes: Vec<u8> = (0..800).map(|_| r.next() as u8).collect();
        let validity: Vec<u8> = (0..13).map(|_| r.next() as u8).collect();
        let indices: Vec<u64> = (0..257).map(|_| r.below(100)).collect();
        for nulls in [false, true] {
            for layout in Prim::ALL.map(Layout::Prim).into_iter().chain([Layout::Bool]) {
                // SAFETY: 800 bytes hold 100 values of any width; 13 bytes hold 100 bits.
                let view = unsafe {
                    let v = ColumnView::new(layout, 100, bytes.as_ptr(), bytes.len());
                    if nulls { v.with_validity(validity.as_ptr(), None) } else { v }
                };
                let (out, sizes) = taken(&[view], &indices, false).unwrap();
                assert_eq!(sizes.validity != 0, nulls);
                for (k, i) in indices.iter().enumerate() {
                    let i = *i as usize;
                    let valid = !nulls || bit(&validity, i);
                    assert_eq!(bit(&out[3], k), valid);
                    match layout {
                        Layout::Prim(p) => {
                            let w = p.width();
                            let want =
                                if valid { &bytes[i * w..(i + 1) * w] } else { &[0u8; 8][..w] };
                            assert_eq!(&out[0][k * w..(k + 1) * w], want);
                        }
                        _ => assert_eq!(bit(&out[0], k), valid && bit(&bytes, i)),
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_past_the_end_is_an_error() {
        let owned = Owned::new(Layout::Utf8, &[Some("a"), Some("b")]);
        let view = owned.view();
        let past = Err(TakeError::OutOfBounds { row: 2, rows: 2 });
        assert_eq!(take_sizes(&[view], &[0u32, 2], false), past);
        let null = Err(TakeError::OutOfBounds { row: u64::from(u32::MAX), rows: 2 });
        assert_eq!(take_sizes(&[view], &[u32::MAX], false), null);
        assert_eq!(take_sizes(&[view], &[u32::MAX], true).unwrap().nulls, 1);
        let none: Result<TakeSizes, _> = take_sizes::<u32>(&[], &[], false);
        assert_eq!(none, Ok(TakeSizes::default()));
    }

    #[test]
    fn a_column_that_changes_between_the_passes_is_an_error_and_not_an_overrun() {
        let before = Owned::new(Layout::Utf8, &[Some("ab"), Some("c")]);
        let after = Owned::new(Layout::Utf8, &[Some("ab"), Some("cdefgh")]);
        let sizes = take_sizes(&[before.view()], &[0u32, 1], false).unwrap();
        let mut values = vec![0u8; sizes.values];
        let mut offsets = vec![0u8; sizes.offsets];
        let null = std::ptr::null_mut();
        let (v, o) = (values.as_mut_ptr(), offsets.as_mut_ptr());
        let dst = TakeDst { values: v, offsets: o, data: null, validity: null, base: 0 };
        // SAFETY: the buffers have the sizes; that these are of other rows is what is tested.
        let got = unsafe { take(&[after.view()], &[0u32, 1], false, &sizes, &dst) };
        assert_eq!(got, Err(TakeError::Changed));
    }

    #[test]
    fn damaged_offsets_are_an_error() {
        let mut owned = Owned::new(Layout::LargeUtf8, &[Some("ab"), Some("c")]);
        owned.set_offset(1, 1 << 40);
        let got = take_sizes(&[owned.view()], &[0u32, 1], false);
        assert_eq!(got, Err(TakeError::Corrupt(CorruptString { row: 0 })));
    }
}
