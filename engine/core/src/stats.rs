//! What a region and this process's use of it amount to, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers about a region. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The most bytes the region may hold.
    pub capacity: u64,
    /// The extents of tables, manifests and unpublished memory, in granules of 64 KiB.
    pub used: u64,
    /// `capacity` less `used`.
    pub free: u64,
    /// What the operating system has set aside: used, or warm for the next use.
    pub reserved: u64,
    /// Tables that can be looked up.
    pub tables: u64,
    /// Replaced or deleted tables that handles still keep.
    pub retired: u64,
    /// Tables whose updater died while it changed them in place.
    pub poisoned: u64,
    /// Results on their way to other processes.
    pub tickets: u64,
    /// The largest number of tables the region has room for.
    pub max_tables: u64,
    /// Living sessions, this process's included.
    pub sessions: u64,
    /// Extents that belong to this session and are not part of a table.
    pub extents: u64,
    /// How often a dead process's work was taken over.
    pub recoveries: u64,
    /// Copies that this process made and a user might not expect: a small result that got a name,
    /// new columns beside a table of several chunks, a dictionary that had to be unified, and
    /// those that a face counted with [`crate::Region::count_copy`].
    pub copies: u64,
    /// The bytes of those copies.
    pub copied_bytes: u64,
    /// Updates of this process that worked in place.
    pub updates_in_place: u64,
    /// Updates of this process that wrote fresh buffers and swapped.
    pub updates_swapped: u64,
}

/// What one process counts about its use of one region.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    copies: AtomicU64,
    copied_bytes: AtomicU64,
    updates_in_place: AtomicU64,
    updates_swapped: AtomicU64,
}

impl Counters {
    /// One copy that a user might not expect.
    pub fn copy(&self, bytes: u64) {
        self.copies.fetch_add(1, Ordering::Relaxed);
        self.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One update in place.
    pub fn updated_in_place(&self) {
        self.updates_in_place.fetch_add(1, Ordering::Relaxed);
    }

    /// One update that was swapped in.
    pub fn updated_swapped(&self) {
        self.updates_swapped.fetch_add(1, Ordering::Relaxed);
    }

    /// These counts beside the region's own numbers.
    pub fn with(&self, region: &insitu_region::Stats) -> Stats {
        Stats {
            capacity: region.capacity,
            used: region.used,
            free: region.free,
            reserved: region.reserved,
            tables: region.tables,
            retired: region.retired,
            poisoned: region.poisoned,
            tickets: region.tickets,
            max_tables: region.max_tables,
            sessions: region.sessions,
            extents: region.extents,
            recoveries: region.recoveries,
            copies: self.copies.load(Ordering::Relaxed),
            copied_bytes: self.copied_bytes.load(Ordering::Relaxed),
            updates_in_place: self.updates_in_place.load(Ordering::Relaxed),
            updates_swapped: self.updates_swapped.load(Ordering::Relaxed),
        }
    }
}
