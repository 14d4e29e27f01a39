//! Buffers of results: allocation, tails, and what a stage leaves for the next.

use std::ptr::NonNull;

use insitu_kernels::copy::zero_padding;
use insitu_kernels::level::Level;
use insitu_kernels::tile::count_bits;

use crate::compile::graph::Repr;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::source::{SourceColumn, view_of};
use crate::memory::{Memory, NewColumn, Span};

/// A column that a stage gives.
#[derive(Clone, Debug)]
pub(crate) enum Column<'a> {
    /// An input column, untouched, all its rows.
    Shared(SourceColumn<'a>),
    /// Written by the stage.
    New(NewColumn),
    /// Not made, since nobody reads it.
    Skipped,
}

/// What a stage gives.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: Vec<Column<'a>>,
}

impl Rows<'_> {
    /// Whether a column that a stage wrote has a null.
    pub(crate) fn has_nulls(&self) -> bool {
        self.columns.iter().any(|c| matches!(c, Column::New(c) if c.null_count > 0))
    }
}

/// A buffer being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) ptr: NonNull<u8>,
    pub(crate) len: usize,
    /// Whether the memory goes on to the next multiple of 64 bytes.
    pub(crate) padded: bool,
}

// SAFETY: workers write disjoint parts of the memory, which the allocator lent to the run.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `len` bytes.
    pub(crate) fn new(memory: &dyn Memory, len: usize) -> Result<Buffer> {
        Ok(Buffer { ptr: memory.allocate(len)?, len, padded: memory.owner().is_padded() })
    }

    /// A buffer for `rows` rows; bits in whole words, but `len` counts bytes in use.
    pub(crate) fn of(memory: &dyn Memory, repr: Repr, rows: usize) -> Result<Buffer> {
        let len = match repr {
            Repr::Num(p) => rows.checked_mul(p.width()),
            Repr::Bits => Some(rows.div_ceil(8)),
        };
        Buffer::new(memory, len.ok_or(Error::OutOfMemory { bytes: usize::MAX })?)
    }

    pub(crate) fn base(&self) -> usize {
        self.ptr.as_ptr() as usize
    }

    /// All of it zero, tail included.
    pub(crate) fn zeroed(self) -> Buffer {
        let bytes = if self.padded { self.len.next_multiple_of(64) } else { self.len };
        // SAFETY: memory is lent in whole multiples of 64 bytes, if it is padded.
        unsafe { self.ptr.as_ptr().write_bytes(0, bytes) };
        self
    }

    /// The finished buffer, its tail zeroed.
    pub(crate) fn finish(self) -> Span {
        if self.padded {
            // SAFETY: as above.
            unsafe { zero_padding(self.ptr.as_ptr(), self.len) };
        }
        Span { ptr: self.ptr, len: self.len }
    }
}

/// A finished column of numbers or bits: the validity is dropped if there are no nulls.
pub(crate) fn finish(
    values: Buffer,
    validity: Option<Buffer>,
    rows: usize,
    level: Level,
) -> NewColumn {
    let (validity, null_count) = finish_validity(validity, rows, level);
    NewColumn {
        null_count,
        validity,
        values: Some(values.finish()),
        offsets: None,
        variadic: Vec::new(),
    }
}

/// The validity and the null count; none if there are no nulls.
pub(crate) fn finish_validity(
    validity: Option<Buffer>,
    rows: usize,
    level: Level,
) -> (Option<Span>, usize) {
    let Some(validity) = validity else { return (None, 0) };
    // SAFETY: the bitmap has `rows` bits.
    let valid = unsafe { count_bits(level)(validity.ptr.as_ptr(), rows) };
    match rows - valid.min(rows) {
        0 => (None, 0),
        nulls => (Some(validity.finish()), nulls),
    }
}

/// The column as the next stage's input.
///
/// # Safety
/// The spans, and those that `variadic` is written to, stay allocated for `'a`.
pub(crate) unsafe fn as_source<'a>(
    dtype: &DataType,
    rows: usize,
    column: &NewColumn,
    heap: &'a dyn Memory,
) -> Result<SourceColumn<'a>> {
    let mut variadic: &'a [(*const u8, usize)] = &[];
    if !column.variadic.is_empty() {
        let n = column.variadic.len();
        let at = heap.allocate(n * size_of::<(*const u8, usize)>())?.cast::<(*const u8, usize)>();
        for (i, s) in column.variadic.iter().enumerate() {
            // SAFETY: i < n, for which there is room; the heap aligns to 64.
            unsafe { at.add(i).write((s.ptr.as_ptr().cast_const(), s.len)) };
        }
        // SAFETY: n were just written, into memory of this process that nobody else knows.
        variadic = unsafe { std::slice::from_raw_parts(at.as_ptr(), n) };
    }
    // SAFETY: by contract.
    let view = unsafe { view_of(dtype, rows, column, variadic) };
    Ok(SourceColumn { chunks: vec![view], starts: vec![0], stats: None, origin: None })
}
