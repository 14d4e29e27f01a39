//! What keeps a table's bytes where they are: a pin on a slot of the catalog, or the session's own
//! memory for a result that has no name.

use std::sync::Arc;

use insitu_region::{Extent, Lease, Part, Pin};
use parking_lot::Mutex;

use crate::error::Result;
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
#[derive(Clone, Default)]
pub(crate) struct Anonymous {
    /// Memory from the region.
    pub extents: Vec<Arc<OwnExtent>>,
    /// Parts of slabs, for results so small that an extent each would cost more than they do.
    pub slabs: Vec<Arc<SlabPiece>>,
    /// Tables whose buffers it shares: their content must not change.
    pub leases: Vec<Lease>,
}

/// An extent that this session took for results.
pub(crate) struct OwnExtent {
    /// The memory.
    pub extent: Extent,
    /// Once it belongs to a table of the catalog: a lease on that table, which keeps memory and
    /// content for the results that were there before.
    pub published: Mutex<Option<Lease>>,
}

impl OwnExtent {
    /// An extent that belongs to no table.
    pub fn new(extent: Extent) -> OwnExtent {
        OwnExtent { extent, published: Mutex::new(None) }
    }
}

impl Anonymous {
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

    /// Publishes a table made of this memory: `publish` gets the parts. The caller holds the lock
    /// that keeps two threads from handing over the same extents.
    ///
    /// # Errors
    /// Those of `publish`, and of taking a lease on what it made.
    pub fn publish_with(&self, publish: impl FnOnce(&[Part<'_>]) -> Result<Pin>) -> Result<Pin> {
        let mut shared: Vec<Lease> = self.leases.clone();
        let mut own = Vec::new();
        for extent in &self.extents {
            match extent.published.lock().as_ref() {
                None => own.push(extent),
                Some(lease) => {
                    let sequence = lease.pin().sequence();
                    if !shared.iter().any(|l| l.pin().sequence() == sequence) {
                        shared.push(lease.clone());
                    }
                }
            }
        }
        let parts: Vec<Part<'_>> = own
            .iter()
            .map(|e| Part::Owned(&e.extent))
            .chain(shared.iter().map(|l| Part::Of(l.pin())))
            .collect();
        let pin = publish(&parts)?;
        if !own.is_empty() {
            let lease = pin.lease()?;
            for extent in own {
                *extent.published.lock() = Some(lease.clone());
            }
        }
        Ok(pin)
    }
}
