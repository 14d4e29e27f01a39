//! The layout: where everything lies. `docs/region-format.md` says why.
//!
//! Positions are byte offsets from the region's start; numbers are little-endian.

use crate::error::{Error, Result};

/// The first eight bytes of every region. The line ends catch transfers in text mode.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"INSITU\r\n");
/// The version of this layout; any change raises it.
pub(crate) const VERSION: u32 = 4;

/// The unit of large extents.
pub(crate) const GRANULE: u64 = 64 << 10;
/// The unit of reserving: a large page.
pub(crate) const BLOCK: u64 = 2 << 20;
/// Granules whose rows fill a page: rows and bits are reserved for as many at a time.
pub(crate) const GRANULES_PER_PAGE: u64 = PAGE / granule::BYTES;
/// Granules in a block.
pub(crate) const GRANULES_PER_BLOCK: u64 = BLOCK / GRANULE;
/// The page size the layout assumes for metadata.
pub(crate) const PAGE: u64 = 4096;
/// Every buffer starts on this many bytes.
pub(crate) const ALIGN: u64 = 64;
/// The address span of the arena, in capacities.
pub(crate) const SPAN_FACTOR: u64 = 4;

/// Session slots; also the number of bits in a pin line.
pub(crate) const SESSIONS: u32 = 512;
/// Where the lock bytes begin: far past any file's end, so that they never meet data.
pub(crate) const LOCK_BASE: u64 = 0x7000_0000_0000_0000;
/// The byte that read-only openers hold a read lock on.
pub(crate) const LOCK_READERS: u64 = LOCK_BASE + SESSIONS as u64;

/// Fields of the header.
pub(crate) mod header {
    pub(crate) const BYTES: u64 = 4096;
    pub(crate) const MAGIC: u64 = 0;
    pub(crate) const VERSION: u64 = 8;
    pub(crate) const HEADER_BYTES: u64 = 12;
    pub(crate) const ID: u64 = 16;
    pub(crate) const CAPACITY: u64 = 32;
    pub(crate) const SPAN: u64 = 40;
    pub(crate) const MAX_TABLES: u64 = 48;
    pub(crate) const MAX_SESSIONS: u64 = 52;
    pub(crate) const GRANULE: u64 = 56;
    pub(crate) const BLOCK: u64 = 60;
    pub(crate) const OFFSETS: u64 = 64;
    pub(crate) const CHECKSUM: u64 = 152;

    pub(crate) const BOOT_ID: u64 = 256;
    pub(crate) const FLAGS: u64 = 272;
    pub(crate) const EPOCH: u64 = 280;
    pub(crate) const SEQUENCE: u64 = 288;
    pub(crate) const INCARNATION: u64 = 296;
    pub(crate) const RECOVERIES: u64 = 304;
    pub(crate) const SESSIONS_HIGH: u64 = 312;

    pub(crate) const WRITER: u64 = 320;
    pub(crate) const DIRTY: u64 = 328;

    /// The checkpoint that the last flush made durable: its slot + 1.
    pub(crate) const CHECKPOINT: u64 = 336;
    /// The checkpoint that is being made durable: its slot + 1, or 0.
    pub(crate) const PENDING: u64 = 344;
    /// Who flushes, as in the writer lock.
    pub(crate) const FLUSHER: u64 = 352;

    pub(crate) const PUBLISHES: u64 = 384;

    pub(crate) const INDEX_SEQLOCK: u64 = 448;
    pub(crate) const INDEX_LOG2: u64 = 456;
    pub(crate) const INDEX_OCCUPIED: u64 = 464;
    pub(crate) const TABLES: u64 = 472;

    pub(crate) const ARENA_HIGH: u64 = 512;
    pub(crate) const COMMITTED: u64 = 520;
    pub(crate) const USED: u64 = 528;
    pub(crate) const SLOTS_HIGH: u64 = 536;
    pub(crate) const FREE_SLOT: u64 = 552;
    pub(crate) const RETIRED: u64 = 560;
    pub(crate) const CLASS_HINTS: u64 = 576;
    pub(crate) const WARM_STACK: u64 = 640;
    pub(crate) const WARM_STACK_ENTRIES: u64 = 8;
    /// Two durable roots, checksummed, written in turn by `flush`.
    pub(crate) const ROOTS: [u64; 2] = [1024, 1536];
    pub(crate) const ROOT_BYTES: u64 = 512;

    pub(crate) const FLAG_REMOVED: u64 = 1;
    pub(crate) const FLAG_EPHEMERAL: u64 = 2;
    /// The system failed to write the file: what is on the disk is not known any more.
    pub(crate) const FLAG_SYNC_FAILED: u64 = 4;
    /// Where the fields begin that mean nothing after another boot, up to the durable roots.
    pub(crate) const VOLATILE: u64 = SESSIONS_HIGH;
}

/// Fields of a session page.
pub(crate) mod session {
    pub(crate) const BYTES: u64 = 4096;
    pub(crate) const INCARNATION: u64 = 0;
    pub(crate) const PID: u64 = 8;
    pub(crate) const START: u64 = 16;
    pub(crate) const CHAIN: u64 = 24;
    pub(crate) const CHAIN_COUNT: u64 = 32;
    pub(crate) const LOG: u64 = 64;
    pub(crate) const LOG_ENTRIES: u64 = 31;
    pub(crate) const LOG_BYTES: u64 = 64;
    pub(crate) const LOG_WHAT: u64 = 16;
    pub(crate) const LOG_WHAT_BYTES: u64 = 48;
    /// Notes on tables that are being built.
    pub(crate) const BUILDS: u64 = 2048;
    pub(crate) const BUILD_ENTRIES: u64 = 8;
    pub(crate) const BUILD_BYTES: u64 = 64;
    pub(crate) const BUILD_TEXT: u64 = 16;
    pub(crate) const BUILD_TEXT_BYTES: u64 = 48;
    pub(crate) const RECORDS: u64 = BUILDS + BUILD_ENTRIES * BUILD_BYTES;
    pub(crate) const RECORD_COUNT: u64 = (BYTES - RECORDS) / 16;
    /// In a chained block: the next block's offset, then records from here to the granule's end.
    pub(crate) const CHAIN_NEXT: u64 = 0;
    pub(crate) const CHAIN_RECORDS: u64 = 16;
    pub(crate) const CHAIN_RECORD_COUNT: u64 = (super::GRANULE - CHAIN_RECORDS) / 16;
}

/// Fields of a table slot.
pub(crate) mod slot {
    pub(crate) const BYTES: u64 = 512;
    pub(crate) const STATE: u64 = 0;
    pub(crate) const CONTENT: u64 = 8;
    pub(crate) const MANIFEST: u64 = 16;
    pub(crate) const MANIFEST_BYTES: u64 = 24;
    pub(crate) const EXTENTS: u64 = 32;
    pub(crate) const NAME_BYTES: u64 = 36;
    pub(crate) const NAME_HASH: u64 = 40;
    pub(crate) const UPDATER: u64 = 48;
    pub(crate) const SUPERSEDED_BY: u64 = 56;
    pub(crate) const PINS: u64 = 64;
    pub(crate) const LEASES: u64 = 128;
    pub(crate) const TICKET: u64 = 192;
    pub(crate) const TICKETS: u64 = 200;
    pub(crate) const NEXT_FREE: u64 = 208;
    pub(crate) const SUPERSEDED_SEQUENCE: u64 = 216;
    pub(crate) const PREDECESSOR: u64 = 224;
    pub(crate) const TICKET_UNTIL: u64 = 232;
    pub(crate) const TICKET_PID: u64 = 240;
    pub(crate) const TICKETS_ISSUED: u64 = 244;
    pub(crate) const TICKET_SINCE: u64 = 248;
    /// Of tables, which are no tickets, for messages: who left it half written, the session that
    /// it was, and since when it was writing.
    pub(crate) const BREAKER_PID: u64 = TICKET_PID;
    pub(crate) const BREAKER_SESSION: u64 = NEXT_FREE;
    pub(crate) const BREAKER_SINCE: u64 = TICKET_SINCE;
    pub(crate) const NAME: u64 = 256;
    pub(crate) const NAME_MAX: usize = 255;
    /// The first slots are never tables': they hold the checkpoints of files.
    pub(crate) const HIDDEN: u32 = 8;
}

/// Fields of a granule row.
pub(crate) mod granule {
    pub(crate) const BYTES: u64 = 32;
    pub(crate) const KIND: u64 = 0;
    pub(crate) const CLASS: u64 = 4;
    pub(crate) const REFS: u64 = 8;
    pub(crate) const LEN: u64 = 12;
    pub(crate) const OCCUPANCY: u64 = 16;
    pub(crate) const NEXT: u64 = 24;
    pub(crate) const PREV: u64 = 28;
    pub(crate) const KIND_NONE: u32 = 0;
    pub(crate) const KIND_HEAD: u32 = 1;
    pub(crate) const KIND_SLAB: u32 = 2;
    /// Reference counts of one slab granule's blocks: 64 numbers of 32 bits.
    pub(crate) const BLOCK_ROW_BYTES: u64 = 256;
}

/// The smallest class of small extents, as a power of two: 1 KiB.
pub(crate) const CLASS_MIN_LOG2: u32 = 10;
/// How many classes there are: 1, 2, 4, 8, 16 and 32 KiB.
pub(crate) const CLASSES: u32 = 6;

/// The size class of an extent of `bytes`, or `None` when it takes whole granules.
pub(crate) fn class_of(bytes: u64) -> Option<u32> {
    if bytes > GRANULE / 2 {
        return None;
    }
    let log2 = bytes.max(1).next_power_of_two().trailing_zeros().max(CLASS_MIN_LOG2);
    Some(log2 - CLASS_MIN_LOG2)
}

/// The block size of a class in bytes.
pub(crate) fn class_bytes(class: u32) -> u64 {
    1 << (CLASS_MIN_LOG2 + class.min(CLASSES - 1))
}

/// Where the parts of one region lie; a pure function of capacity and `max_tables`, so that a
/// header with other positions is known to be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) capacity: u64,
    pub(crate) max_tables: u32,
    pub(crate) span: u64,
    pub(crate) sessions: u64,
    pub(crate) slots: u64,
    pub(crate) index: u64,
    pub(crate) index_max_log2: u64,
    pub(crate) granules: u64,
    pub(crate) block_refs: u64,
    pub(crate) used_bits: u64,
    pub(crate) warm_bits: u64,
    pub(crate) known_bits: u64,
    pub(crate) arena: u64,
    pub(crate) granule_count: u64,
}

/// The index's size while there are few tables, as a power of two.
pub(crate) const INDEX_MIN_LOG2: u64 = 9;

/// Bytes of the bitmap of known granules.
pub(crate) fn known_bytes(granule_count: u64) -> u64 {
    (granule_count / GRANULES_PER_PAGE / 64 + 1) * 8
}

fn round_up(value: u64, to: u64) -> Option<u64> {
    value.checked_add(to - 1).map(|v| v & !(to - 1))
}

impl Layout {
    /// The layout of a region of `capacity` bytes, rounded up to granules.
    pub(crate) fn new(capacity: u64, max_tables: Option<u32>) -> Result<Self> {
        Self::compute(capacity, max_tables).ok_or_else(|| {
            Error::InvalidArgument(format!(
                "a capacity of {capacity} bytes is out of range: a region has 64 KiB to 16 TiB"
            ))
        })
    }

    fn compute(capacity: u64, max_tables: Option<u32>) -> Option<Self> {
        if capacity == 0 || capacity > 1 << 44 {
            return None;
        }
        let capacity = round_up(capacity, GRANULE)?;
        let max_tables = match max_tables {
            Some(n) => n.clamp(1, 1 << 24),
            None => u32::try_from(capacity / GRANULE).unwrap_or(u32::MAX).clamp(1_024, 1_000_000),
        };
        let granule_count = capacity.checked_mul(SPAN_FACTOR)? / GRANULE;
        let index_entries = u64::from(max_tables).checked_mul(2)?.next_power_of_two();
        let sessions = header::BYTES;
        let slots = round_up(sessions + u64::from(SESSIONS) * session::BYTES, GRANULE)?;
        let slot_count = u64::from(max_tables) + u64::from(slot::HIDDEN);
        let index = round_up(slots.checked_add(slot_count * slot::BYTES)?, GRANULE)?;
        let granules = round_up(index.checked_add(index_entries * 8)?, GRANULE)?;
        let block_refs = round_up(granules.checked_add(granule_count * granule::BYTES)?, GRANULE)?;
        let used_bits =
            round_up(block_refs.checked_add(granule_count * granule::BLOCK_ROW_BYTES)?, GRANULE)?;
        // One word more than needed: runs are searched a word at a time.
        let bitmap = (granule_count / 64 + 1) * 8;
        let warm_bits = round_up(used_bits.checked_add(bitmap)?, GRANULE)?;
        let known_bits = round_up(warm_bits.checked_add(bitmap)?, GRANULE)?;
        let arena = round_up(known_bits.checked_add(known_bytes(granule_count))?, BLOCK)?;
        let span = round_up(arena.checked_add(granule_count * GRANULE)?, BLOCK)?;
        Some(Self {
            capacity,
            max_tables,
            span,
            sessions,
            slots,
            index,
            index_max_log2: u64::from(index_entries.trailing_zeros()).max(INDEX_MIN_LOG2),
            granules,
            block_refs,
            used_bits,
            warm_bits,
            known_bits,
            arena,
            granule_count,
        })
    }

    fn offsets(&self) -> [u64; 11] {
        [
            self.sessions,
            self.slots,
            self.index,
            self.index_max_log2,
            self.granules,
            self.block_refs,
            self.used_bits,
            self.warm_bits,
            self.arena,
            self.granule_count,
            LOCK_BASE,
        ]
    }

    /// The constant part of the header, checksum included; the magic is left zero, since it is
    /// what makes a header count and is stored last.
    pub(crate) fn encode(&self, id: u128) -> [u8; 160] {
        let mut out = [0_u8; 160];
        let mut put = |at: u64, bytes: &[u8]| {
            let at = at as usize;
            if let Some(to) = out.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(header::MAGIC, &MAGIC.to_le_bytes());
        put(header::VERSION, &VERSION.to_le_bytes());
        put(header::HEADER_BYTES, &(header::BYTES as u32).to_le_bytes());
        put(header::ID, &id.to_le_bytes());
        put(header::CAPACITY, &self.capacity.to_le_bytes());
        put(header::SPAN, &self.span.to_le_bytes());
        put(header::MAX_TABLES, &self.max_tables.to_le_bytes());
        put(header::MAX_SESSIONS, &SESSIONS.to_le_bytes());
        put(header::GRANULE, &(GRANULE as u32).to_le_bytes());
        put(header::BLOCK, &(BLOCK as u32).to_le_bytes());
        for (i, value) in self.offsets().into_iter().enumerate() {
            put(header::OFFSETS + 8 * i as u64, &value.to_le_bytes());
        }
        let sum = checksum(&out[..header::CHECKSUM as usize]);
        if let Some(to) = out.get_mut(header::CHECKSUM as usize..) {
            to.copy_from_slice(&sum.to_le_bytes());
        }
        out
    }

    /// Reads and checks a header; `file_bytes` is the size of what holds it.
    pub(crate) fn decode(bytes: &[u8], file_bytes: u64) -> Result<(Self, u128)> {
        let corrupt = |what: &str, at: u64| Err(Error::corrupt(what, at));
        if u64_at(bytes, header::MAGIC) != Some(MAGIC) {
            return corrupt("it does not begin as a region does", header::MAGIC);
        }
        let Some(found) = u32_at(bytes, header::VERSION) else {
            return corrupt("it ends inside the header", bytes.len() as u64);
        };
        if found != VERSION {
            return Err(Error::VersionMismatch { found, expected: VERSION });
        }
        let (Some(capacity), Some(max_tables), Some(constant), Some(sum), Some(low), Some(high)) = (
            u64_at(bytes, header::CAPACITY),
            u32_at(bytes, header::MAX_TABLES),
            bytes.get(..header::CHECKSUM as usize),
            u64_at(bytes, header::CHECKSUM),
            u64_at(bytes, header::ID),
            u64_at(bytes, header::ID + 8),
        ) else {
            return corrupt("it ends inside the header", bytes.len() as u64);
        };
        if checksum(constant) != sum {
            return corrupt("the header's checksum does not match", header::CHECKSUM);
        }
        let id = u128::from(high) << 64 | u128::from(low);
        let layout = Self::compute(capacity, Some(max_tables));
        let Some(layout) = layout.filter(|l| bytes.get(..160) == Some(&l.encode(id)[..])) else {
            return corrupt("the header's positions do not fit its capacity", header::OFFSETS);
        };
        if file_bytes < layout.span {
            return Err(Error::corrupt(
                format!("it was truncated: {file_bytes} of {} bytes are there", layout.span),
                file_bytes,
            ));
        }
        Ok((layout, id))
    }

    pub(crate) fn session(&self, index: u32) -> u64 {
        self.sessions + u64::from(index.min(SESSIONS - 1)) * session::BYTES
    }

    /// How many slots there are, hidden ones included.
    pub(crate) fn slot_count(&self) -> u32 {
        self.max_tables + slot::HIDDEN
    }

    pub(crate) fn slot(&self, index: u32) -> u64 {
        self.slots + u64::from(index.min(self.slot_count() - 1)) * slot::BYTES
    }

    pub(crate) fn granule_row(&self, granule: u64) -> u64 {
        self.granules + granule.min(self.granule_count - 1) * granule::BYTES
    }

    pub(crate) fn block_row(&self, granule: u64) -> u64 {
        self.block_refs + granule.min(self.granule_count - 1) * granule::BLOCK_ROW_BYTES
    }

    /// Where a granule's bytes begin.
    pub(crate) fn granule_at(&self, granule: u64) -> u64 {
        self.arena + granule.min(self.granule_count) * GRANULE
    }

    /// The granule that holds `offset`, if the arena has one.
    pub(crate) fn granule_of(&self, offset: u64) -> Option<u64> {
        let granule = offset.checked_sub(self.arena)? / GRANULE;
        (granule < self.granule_count).then_some(granule)
    }

    /// Whether `len` bytes at `offset` lie in the arena.
    pub(crate) fn in_arena(&self, offset: u64, len: u64) -> bool {
        let end = self.arena + self.granule_count * GRANULE;
        offset >= self.arena && offset.checked_add(len).is_some_and(|to| to <= end)
    }
}

/// FNV-1a, 64 bits: spread enough for a checksum against accidents and for hashing short names,
/// and three lines in any language that reads the format.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

pub(crate) fn u64_at(bytes: &[u8], at: u64) -> Option<u64> {
    let at = at as usize;
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: u64) -> Option<u32> {
    let at = at as usize;
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_refuses_damage() {
        let layout = Layout::new(10 << 20, None).unwrap();
        let bytes = layout.encode(7);
        assert_eq!(Layout::decode(&bytes, layout.span).unwrap(), (layout, 7));
        for at in 0..160 {
            let mut bad = bytes;
            bad[at] ^= 0x40;
            let err = Layout::decode(&bad, layout.span).unwrap_err();
            let version = (8..12).contains(&at);
            assert_eq!(version, matches!(err, Error::VersionMismatch { .. }), "byte {at}");
            assert_eq!(!version, matches!(err, Error::RegionCorrupt { .. }), "byte {at}");
        }
        for cut in 0..160 {
            assert!(Layout::decode(&bytes[..cut], layout.span).is_err());
        }
        assert!(matches!(
            Layout::decode(&bytes, layout.span - 1),
            Err(Error::RegionCorrupt { .. })
        ));
    }

    #[test]
    fn parts_do_not_overlap_at_any_capacity() {
        for capacity in [1, 65_536, 1 << 20, 100 << 20, 1 << 33, 1 << 44] {
            let l = Layout::new(capacity, None).unwrap();
            assert!(l.slot(l.max_tables - 1) + slot::BYTES <= l.index);
            assert!(l.index + (8 << l.index_max_log2) <= l.granules);
            assert!(l.granule_row(l.granule_count - 1) + granule::BYTES <= l.block_refs);
            assert!(l.block_row(l.granule_count - 1) + granule::BLOCK_ROW_BYTES <= l.used_bits);
            assert!(l.warm_bits + l.granule_count / 8 <= l.known_bits);
            assert!(l.known_bits + known_bytes(l.granule_count) <= l.arena);
            assert_eq!(l.arena % BLOCK, 0);
            assert!(l.granule_at(l.granule_count) <= l.span);
        }
        assert!(Layout::new(0, None).is_err());
        assert!(Layout::new(u64::MAX, None).is_err());
    }

    #[test]
    fn classes_cover_small_sizes() {
        assert_eq!(class_of(0), Some(0));
        assert_eq!(class_of(1024), Some(0));
        assert_eq!(class_of(1025), Some(1));
        assert_eq!(class_of(32 << 10), Some(5));
        assert_eq!(class_of((32 << 10) + 1), None);
        assert_eq!(class_bytes(5), 32 << 10);
    }
}
