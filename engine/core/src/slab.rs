//! Memory for small results: pieces of extents that this process keeps and uses again, so that a
//! query on small data takes no lock of the region and writes to warm pages.
//!
//! Pieces come in powers of two from 64 bytes to 32 KiB. A dropped piece is the first to be used
//! again; slabs are given back when the region is closed.
//!
//! A fork ends all this, in the parent as in the child: what was alive then belongs to both, and
//! neither can tell when the other is done with it. Both begin new slabs; the old go with their last
//! piece.

use std::ptr::NonNull;
use std::sync::Arc;

use insitu_region::{Extent, ForkMutex, fork_epoch};

use crate::error::Result;

/// The largest piece, in bytes. What is larger gets an extent of its own.
pub(crate) const MAX_PIECE: usize = 32 << 10;
const MIN_PIECE: usize = 64;
const CLASSES: usize = 10;
/// Bytes of a slab: four granules of the region.
const SLAB: usize = 256 << 10;

/// The slabs of one region in this process.
pub(crate) struct Slabs {
    state: ForkMutex<State>,
}

#[derive(Default)]
struct State {
    /// Between which forks they were made.
    epoch: u64,
    /// Free pieces by class: the slab and the offset in it.
    free: [Vec<(Arc<Extent>, usize)>; CLASSES],
    /// The slab that new pieces are cut from, and how much of it is.
    current: Option<(Arc<Extent>, usize)>,
    /// Set at close: dropped pieces are no longer kept.
    closed: bool,
}

/// A piece of a slab, free again when dropped.
pub(crate) struct SlabPiece {
    slabs: Arc<Slabs>,
    slab: Arc<Extent>,
    offset: usize,
    class: usize,
    epoch: u64,
}

impl Slabs {
    /// No slabs yet.
    pub fn new() -> Slabs {
        Slabs { state: ForkMutex::default() }
    }

    /// A piece of at least `bytes` bytes, at most [`MAX_PIECE`]; `grow` takes a new extent of that
    /// many bytes from the region.
    ///
    /// # Errors
    /// Those of `grow`.
    pub fn take(
        self: &Arc<Self>,
        bytes: usize,
        grow: impl FnOnce(usize) -> Result<Extent>,
    ) -> Result<SlabPiece> {
        let size = bytes.clamp(MIN_PIECE, MAX_PIECE).next_power_of_two();
        let class = (size.trailing_zeros() - MIN_PIECE.trailing_zeros()) as usize;
        let epoch = fork_epoch();
        let piece = |slab, offset| SlabPiece { slabs: self.clone(), slab, offset, class, epoch };

        let mut state = self.state.lock();
        if state.epoch != epoch {
            *state = State { epoch, closed: state.closed, ..State::default() };
        }
        if let Some((slab, offset)) = state.free.get_mut(class).and_then(Vec::pop) {
            return Ok(piece(slab, offset));
        }
        if let Some((slab, used)) = &mut state.current
            && *used + size <= SLAB
        {
            let offset = *used;
            *used += size;
            return Ok(piece(slab.clone(), offset));
        }
        let slab = Arc::new(grow(SLAB)?);
        slab.keep();
        state.current = Some((slab.clone(), size));
        Ok(piece(slab, 0))
    }

    /// Gives back what no live result uses, and keeps nothing from now on.
    pub fn close(&self) {
        let mut state = self.state.lock();
        *state = State { epoch: state.epoch, closed: true, ..State::default() };
    }
}

impl SlabPiece {
    /// Where it starts in the read-write mapping.
    pub fn as_mut_ptr(&self) -> NonNull<u8> {
        let base = self.slab.as_mut_ptr();
        // SAFETY: the piece lies within the slab, so the address is within the same mapping.
        let ptr = unsafe { base.add(self.offset) };
        // An extent never lies at address zero; dangling is never dereferenced for lack of bytes.
        NonNull::new(ptr).unwrap_or(NonNull::dangling())
    }

    /// Where it starts in the region, in bytes from its base.
    pub fn offset(&self) -> u64 {
        self.slab.offset() + self.offset as u64
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        MIN_PIECE << self.class
    }
}

impl Drop for SlabPiece {
    fn drop(&mut self) {
        let mut state = self.slabs.state.lock();
        if state.closed || self.epoch != fork_epoch() || self.epoch != state.epoch {
            return;
        }
        if let Some(free) = state.free.get_mut(self.class) {
            free.push((self.slab.clone(), self.offset));
        }
    }
}
