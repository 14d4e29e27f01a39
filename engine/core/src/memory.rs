//! Lends region memory to a query for its results, and says afterwards where in the region each
//! buffer came to lie.

use std::ptr::NonNull;
use std::sync::Arc;

use insitu_query::{Memory, Span};
use insitu_region::{Extent, ForkMutex};

use crate::error::{Error, Result};
use crate::layout::Place;
use crate::region::Shared;
use crate::slab::{MAX_PIECE, SlabPiece};
use crate::storage::Anonymous;

/// Bytes of an extent that the small buffers of a named result share.
const SHARED_EXTENT: usize = 64 << 10;

/// The memory of one result.
pub(crate) struct ResultMemory<'a> {
    shared: &'a Shared,
    /// Whether the result will be a table of the catalog, and so must not use slabs.
    named: bool,
    blocks: ForkMutex<Blocks>,
}

#[derive(Default)]
struct Blocks {
    extents: Vec<Arc<Extent>>,
    slabs: Vec<SlabPiece>,
    /// For small buffers of a named result: bytes used of the last shared extent, and which one.
    filling: Option<(usize, usize)>,
}

impl<'a> ResultMemory<'a> {
    /// Memory for a result that gets a name (`named`) or not.
    pub fn new(shared: &'a Shared, named: bool) -> ResultMemory<'a> {
        ResultMemory { shared, named, blocks: ForkMutex::default() }
    }

    fn lend(&self, bytes: usize) -> Result<NonNull<u8>> {
        let size = bytes.max(1).checked_next_multiple_of(64);
        let size = size.ok_or(Error::OutOfMemory { bytes })?;
        let mut blocks = self.blocks.lock();
        if size > MAX_PIECE {
            let extent = self.shared.allocate(size as u64)?;
            let ptr = address(extent.as_mut_ptr())?;
            blocks.extents.push(Arc::new(extent));
            return Ok(ptr);
        }
        if !self.named {
            let piece = self.shared.slabs.take(size, |slab| self.shared.allocate(slab as u64))?;
            let ptr = piece.as_mut_ptr();
            blocks.slabs.push(piece);
            return Ok(ptr);
        }
        if let Some((used, index)) = blocks.filling
            && used + size <= SHARED_EXTENT
            && let Some(own) = blocks.extents.get(index)
        {
            // SAFETY: the extent has SHARED_EXTENT bytes, of which `used` are taken.
            let ptr = address(unsafe { own.as_mut_ptr().add(used) })?;
            blocks.filling = Some((used + size, index));
            return Ok(ptr);
        }
        let extent = self.shared.allocate(SHARED_EXTENT as u64)?;
        let ptr = address(extent.as_mut_ptr())?;
        blocks.filling = Some((size, blocks.extents.len()));
        blocks.extents.push(Arc::new(extent));
        Ok(ptr)
    }

    /// Where in the region a buffer lies that was lent here.
    ///
    /// # Errors
    /// `InvalidData` if it was not lent here.
    pub fn place(&self, span: Span) -> Result<Place> {
        let blocks = self.blocks.lock();
        let address = span.ptr.as_ptr().addr();
        let within = |start: *mut u8, len: usize, offset: u64| {
            let at = address.checked_sub(start.addr())?;
            let end = at.checked_add(span.len)?;
            (end <= len).then(|| Place { offset: offset + at as u64, len: span.len as u64 })
        };
        let slabs = blocks.slabs.iter().rev();
        let extents = blocks.extents.iter().rev();
        slabs
            .map(|p| (p.as_mut_ptr().as_ptr(), p.len(), p.offset()))
            .chain(extents.map(|e| (e.as_mut_ptr(), e.len() as usize, e.offset())))
            .find_map(|(start, len, offset)| within(start, len, offset))
            .ok_or_else(|| Error::InvalidData("a result lies outside the memory lent to it".into()))
    }

    /// What now keeps the result's bytes.
    pub fn finish(self) -> Anonymous {
        let blocks = self.blocks.into_inner();
        Anonymous {
            extents: blocks.extents,
            slabs: blocks.slabs.into_iter().map(Arc::new).collect(),
            leases: Vec::new(),
        }
    }
}

fn address(ptr: *mut u8) -> Result<NonNull<u8>> {
    NonNull::new(ptr).ok_or_else(|| Error::corrupt("an extent lies at address zero"))
}

impl Memory for ResultMemory<'_> {
    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>, insitu_query::Error> {
        self.lend(bytes).map_err(|error| insitu_query::Error::Memory(Box::new(error)))
    }
}
