//! What keeps a table's bytes where they are: a pin on a slot of the catalog, or the session's own
//! memory for a result that has no name.

use std::collections::BTreeMap;
use std::sync::Arc;

use insitu_region::{Extent, Lease, Part, Pin};

use crate::error::Result;
use crate::layout::{Layout, Place};
use crate::manifest::ALIGN;
use crate::region::Shared;
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

    /// The same without parts of slabs, which stay the process's own: what of the layout lies there
    /// is copied, and nothing else. With the layout as it is then.
    ///
    /// # Errors
    /// `RegionFull`, `RegionCorrupt`, `Stale`.
    pub fn out_of_slabs(&self, shared: &Shared, layout: &Layout) -> Result<(Anonymous, Layout)> {
        let in_slab = |place: Place| {
            let holds = |piece: &Arc<SlabPiece>| {
                piece.offset() <= place.offset && place.offset - piece.offset() < piece.len() as u64
            };
            self.slabs.iter().any(holds)
        };
        let padded = |place: Place| place.len.next_multiple_of(ALIGN);
        let (mut moved, mut bytes) = (BTreeMap::new(), 0);
        layout.each_place(&mut |_, place| {
            if in_slab(place) && !moved.contains_key(&(place.offset, place.len)) {
                moved.insert((place.offset, place.len), bytes);
                bytes += padded(place);
            }
        });
        let mut kept = Anonymous { slabs: Vec::new(), ..self.clone() };
        if moved.is_empty() {
            return Ok((kept, layout.clone()));
        }
        let extent = shared.allocate(bytes)?;
        for ((offset, len), at) in &moved {
            let place = Place { offset: *offset, len: *len };
            let (from, to) =
                (shared.address(place)?, extent.as_mut_ptr().wrapping_add(*at as usize));
            // SAFETY: `address` checked the range, padding included, which this keeps; the extent is
            // ours, and has room for all ranges one behind the other.
            unsafe { to.copy_from_nonoverlapping(from, padded(place) as usize) };
        }
        shared.counters.copy(bytes);
        let layout = layout.relocated(&|place| {
            let at = moved.get(&(place.offset, place.len))?;
            Some(Place { offset: extent.offset() + at, ..place })
        });
        kept.extents.push(Arc::new(extent));
        Ok((kept, layout))
    }

    /// What of this memory a table of that layout lies in: the rest is others' to keep, or not.
    ///
    /// # Errors
    /// `RegionCorrupt`, `Stale`.
    pub fn used_by(&self, layout: &Layout) -> Result<Used<'_>> {
        let lies_in =
            |extent: &Extent| !layout.extents_in(&[(extent.offset(), extent.len())]).is_empty();
        let own = self.extents.iter().map(AsRef::as_ref).filter(|extent| lies_in(extent)).collect();
        let mut shared = Vec::with_capacity(self.leases.len());
        for lease in &self.leases {
            let extents = layout.extents_in(&lease.pin().extents()?);
            if !extents.is_empty() {
                shared.push((lease.pin(), extents));
            }
        }
        Ok(Used { own, shared })
    }
}

/// What of a result's memory a table made of it lies in.
pub(crate) struct Used<'a> {
    own: Vec<&'a Extent>,
    /// Of tables of the catalog.
    shared: Vec<(&'a Pin, Vec<(u64, u64)>)>,
}

impl Used<'_> {
    /// What a table made of this memory consists of.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let own = self.own.iter().map(|extent| Part::Owned(extent));
        own.chain(self.shared.iter().map(|(pin, extents)| Part::Extents(pin, extents))).collect()
    }
}
