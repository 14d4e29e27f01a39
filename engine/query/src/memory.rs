//! Memory for results: the trait that whoever runs a query lends, the heap for intermediates, and
//! the shape of what a query returns.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::schema::Schema;

/// Lends memory for results.
pub trait Memory: Send + Sync {
    /// At least `bytes` bytes, aligned to 64, readable and writable up to the next multiple of
    /// 64, with arbitrary contents, exclusive to the caller, valid as long as `self`. Asked for 0
    /// bytes, any aligned address will do.
    ///
    /// # Errors
    /// Whatever the lender wants to say, as [`Error::Memory`] or [`Error::OutOfMemory`].
    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Whose memory it is that [`Memory::allocate`] lends.
    fn owner(&self) -> Owner {
        Owner::Lender
    }
}

/// Whose memory it is that a [`Memory`] lends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The lender's, made for results: aligned, and padded, as [`Memory::allocate`] says.
    Lender,
    /// An array of the caller's: aligned to its values only, and without padding. What is beyond
    /// the bytes that were asked for is others'. Such memory is for results that are one column of
    /// numbers without nulls, row by row.
    Caller {
        /// Whether it is that of a column that is read, row for row: each tile is computed before
        /// any of it is written.
        is_read: bool,
    },
}

impl Owner {
    pub(crate) fn is_padded(self) -> bool {
        self == Owner::Lender
    }
}

/// Memory of this process, freed with the object.
#[derive(Debug, Default)]
pub struct Heap {
    blocks: Mutex<Vec<(NonNull<u8>, Layout)>>,
}

// SAFETY: the blocks are owned by this object alone, nothing about them is bound to a thread, and
// the list is behind a mutex.
unsafe impl Send for Heap {}
// SAFETY: as above; `allocate` is the only shared operation and it locks.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty heap.
    pub fn new() -> Heap {
        Heap::default()
    }
}

impl Memory for Heap {
    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>> {
        let size = bytes.max(1).checked_next_multiple_of(64).ok_or(Error::OutOfMemory { bytes })?;
        let layout = Layout::from_size_align(size, 64).map_err(|_| Error::OutOfMemory { bytes })?;
        // SAFETY: the size is not zero.
        let block = NonNull::new(unsafe { alloc(layout) }).ok_or(Error::OutOfMemory { bytes })?;
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).push((block, layout));
        Ok(block)
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        for (block, layout) in
            self.blocks.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..)
        {
            // SAFETY: allocated above with this layout, freed only here.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
    }
}

/// A buffer of a result: where [`Memory`] lent it, and how many bytes of it are used. The bytes
/// from `len` to the next multiple of 64 are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte, 64-aligned.
    pub ptr: NonNull<u8>,
    /// Bytes used.
    pub len: usize,
}

// SAFETY: a span is an address and a length; whoever dereferences it answers for that.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

/// A column that the query wrote: one contiguous chunk. Two columns of one output may name the
/// same spans (`select(a, b=a)` of a computed `a`).
#[derive(Clone, Debug, Default)]
pub struct NewColumn {
    /// The exact number of nulls.
    pub null_count: usize,
    /// The validity bitmap; absent if there are no nulls (or the type is null).
    pub validity: Option<Span>,
    /// Values: numbers, bits, string bytes, or 16-byte string views.
    pub values: Option<Span>,
    /// String offsets, rows + 1 of them.
    pub offsets: Option<Span>,
    /// Data buffers of string views.
    pub variadic: Vec<Span>,
}

/// One column of a result.
#[derive(Clone, Debug)]
pub enum OutputColumn {
    /// All chunks of that source column, untouched.
    Shared {
        /// The column's position in the source schema.
        source: usize,
    },
    /// Written by the query.
    New(NewColumn),
}

/// What a query returns. Either every column covers the source's rows (`Shared` or `New`), or all
/// are `New`.
#[derive(Clone, Debug)]
pub struct Output {
    /// Names and types of the columns.
    pub schema: Schema,
    /// Rows.
    pub rows: usize,
    /// One per field of the schema.
    pub columns: Vec<OutputColumn>,
}
