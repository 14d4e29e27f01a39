//! What keeps a table's bytes where they are: a pin on a slot of the catalog, or the session's own
//! memory for a result that has no name.

use std::sync::Arc;

use insitu_region::{Extent, Lease, Pin};

use crate::slab::SlabPiece;

/// The keeper of a table's bytes.
pub(crate) enum Storage {
    /// A table of the catalog: the pin keeps its memory.
    Named(Pin),
    /// A result of this session.
    Anonymous(Anonymous),
}

/// The memory of a result without a name, and what it shares with others. Flat: what it shares
/// with another result, it keeps itself.
///
/// When such memory is given to a table of the catalog, it stays the result's as well: the region
/// counts both, frees it with the last of them, and lets nobody change it in place meanwhile.
#[derive(Clone, Default)]
pub(crate) struct Anonymous {
    /// Memory from the region.
    pub extents: Vec<Arc<Extent>>,
    /// Parts of slabs, for results so small that an extent each would cost more than they do.
    pub slabs: Vec<Arc<SlabPiece>>,
    /// Tables whose buffers it shares: their content must not change.
    pub leases: Vec<Lease>,
}

impl Anonymous {
    /// Passes the memory on to forked children from now on: the result is done.
    pub fn keep(&self) {
        self.extents.iter().for_each(|extent| extent.keep());
    }

    /// Also keeps what `other` keeps.
    pub fn share(&mut self, other: &Anonymous) {
        for extent in &other.extents {
            if !self.extents.iter().any(|e| Arc::ptr_eq(e, extent)) {
                self.extents.push(extent.clone());
            }
        }
        for piece in &other.slabs {
            if !self.slabs.iter().any(|p| Arc::ptr_eq(p, piece)) {
                self.slabs.push(piece.clone());
            }
        }
        for lease in &other.leases {
            self.share_lease(lease);
        }
    }

    /// Also keeps a table of the catalog.
    pub fn share_lease(&mut self, lease: &Lease) {
        let sequence = lease.pin().sequence();
        if !self.leases.iter().any(|l| l.pin().sequence() == sequence) {
            self.leases.push(lease.clone());
        }
    }
}
