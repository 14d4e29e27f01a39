//! Borrowed views of columns: what query and core hand to loops.
//!
//! Raw pointers, never slices: another process may write the memory while it is read. What is read
//! may therefore change, and values are never trusted as addresses.

use crate::prim::Prim;
use std::marker::PhantomData;
use std::ptr;

/// How a column's values lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// `len` numbers.
    Prim(Prim),
    /// A bitmap, least significant bit first.
    Bool,
    /// UTF-8 with `len + 1` offsets of 32 bits.
    Utf8,
    /// UTF-8 with `len + 1` offsets of 64 bits.
    LargeUtf8,
    /// `len` views of 16 bytes: short strings inside, long ones in variadic buffers.
    Utf8View,
    /// Stored and handed on, never computed on.
    Opaque,
}

/// One chunk of one column.
///
/// The pointers are readable for `'a`: `values` for `values_len` bytes, `validity` (if not null)
/// for `len` bits, `offsets` (of string layouts) for `len + 1` of them, each of `variadic` for its
/// length in bytes.
#[derive(Clone, Copy, Debug)]
pub struct ColumnView<'a> {
    /// How the values lie.
    pub layout: Layout,
    /// Rows.
    pub len: usize,
    /// A hint from statistics: it chooses plans, it never licenses an access. `Some(0)` with a
    /// null `validity` means no nulls.
    pub null_count: Option<usize>,
    /// Bitmap of valid rows, least significant bit first, bit offset 0. Null pointer: all valid.
    pub validity: *const u8,
    /// Values: numbers, bits, string bytes or 16-byte views.
    pub values: *const u8,
    /// Readable bytes at `values`.
    pub values_len: usize,
    /// `len + 1` offsets into `values` (Utf8: i32, LargeUtf8: i64), else null.
    pub offsets: *const u8,
    /// Data buffers of Utf8View: (pointer, bytes).
    pub variadic: &'a [(*const u8, usize)],
    /// All buffers are readable, and zero, from their end to the next multiple of 64 bytes.
    pub padded: bool,
    _borrow: PhantomData<&'a ()>,
}

// SAFETY: a view only reads, through raw pointers, memory that its constructor's caller promised to
// be readable for 'a; nothing in it is tied to a thread.
unsafe impl Send for ColumnView<'_> {}
// SAFETY: as above; shared use only reads.
unsafe impl Sync for ColumnView<'_> {}

impl<'a> ColumnView<'a> {
    /// A view without nulls, offsets, variadic buffers or padding; the `with_` methods add them.
    ///
    /// # Safety
    /// `values` is readable for `values_len` bytes for all of `'a`, and `values_len` covers `len`
    /// rows of a `Prim`, `Bool` or `Utf8View` layout. Peers may write the memory meanwhile, but it
    /// stays mapped.
    pub unsafe fn new(layout: Layout, len: usize, values: *const u8, values_len: usize) -> Self {
        ColumnView {
            layout,
            len,
            null_count: Some(0),
            validity: ptr::null(),
            values,
            values_len,
            offsets: ptr::null(),
            variadic: &[],
            padded: false,
            _borrow: PhantomData,
        }
    }

    /// Adds a validity bitmap (a null pointer: all valid) and the null count, if it is known.
    ///
    /// # Safety
    /// `validity` is null, or readable for `ceil(len / 8)` bytes for all of `'a`.
    pub unsafe fn with_validity(mut self, validity: *const u8, null_count: Option<usize>) -> Self {
        self.validity = validity;
        self.null_count = if validity.is_null() { Some(0) } else { null_count };
        self
    }

    /// Adds string offsets.
    ///
    /// # Safety
    /// `offsets` is readable for `len + 1` offsets of the layout's width for all of `'a`. Their
    /// values need not be right.
    pub unsafe fn with_offsets(mut self, offsets: *const u8) -> Self {
        self.offsets = offsets;
        self
    }

    /// Adds the data buffers of a Utf8View.
    ///
    /// # Safety
    /// Each pointer is readable for its length for all of `'a`.
    pub unsafe fn with_variadic(mut self, variadic: &'a [(*const u8, usize)]) -> Self {
        self.variadic = variadic;
        self
    }

    /// Says that all buffers are padded to 64 bytes.
    ///
    /// # Safety
    /// Every buffer of the view is readable, and zero, from its end to the next multiple of 64
    /// bytes after it (counted from its start).
    pub unsafe fn with_padding(mut self) -> Self {
        self.padded = true;
        self
    }

    /// May the column have nulls? False only if it has no bitmap: the null count is a hint and
    /// takes no part.
    pub fn may_have_nulls(&self) -> bool {
        !self.validity.is_null()
    }

    /// Bytes per row of the values, if fixed and at least one byte: `Prim` widths and 16 for views.
    pub fn row_width(&self) -> Option<usize> {
        match self.layout {
            Layout::Prim(p) => Some(p.width()),
            Layout::Utf8View => Some(16),
            Layout::Bool | Layout::Utf8 | Layout::LargeUtf8 | Layout::Opaque => None,
        }
    }
}
