//! Memory that a session owns: to be filled, and to be shared by tables.

use std::sync::Arc;

use crate::arena::Raw;
use crate::region::Region;
use crate::session::Session;

/// Memory of this session, for its holder alone until a table that shares it is published.
/// Freed when dropped.
pub struct Extent {
    pub(crate) raw: Raw,
    pub(crate) writable: *mut u8,
    pub(crate) exported: *const u8,
    pub(crate) session: Arc<Session>,
    pub(crate) region: Region,
}

// SAFETY: the addresses stay mapped while `session` lives, and name memory that no other extent
// of any process has; writing through them is the holder's business, with raw pointers.
unsafe impl Send for Extent {}
// SAFETY: as above; a shared reference gives out addresses only.
unsafe impl Sync for Extent {}

impl std::fmt::Debug for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extent")
            .field("offset", &self.raw.offset)
            .field("len", &self.raw.bytes)
            .finish_non_exhaustive()
    }
}

impl Extent {
    /// Where it begins, in bytes from the region's start; a multiple of 64.
    pub fn offset(&self) -> u64 {
        self.raw.offset
    }

    /// Its size in bytes: what was asked for, rounded up to 64.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u64 {
        self.raw.bytes
    }

    /// Its address in the read-write mapping.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.writable
    }

    /// Its address in the read-only mapping: for what is exported.
    pub fn as_ptr(&self) -> *const u8 {
        self.exported
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.session.free(self.raw);
    }
}
