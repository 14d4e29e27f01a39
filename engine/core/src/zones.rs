//! Keeps a table's statistics true across updates: the records of the changed columns are written
//! anew, zone by zone as the values are, and the content version at which all of it is true comes
//! last. Until then it says the version before, and nobody believes it.

use std::sync::atomic::{Ordering, fence};

use arrow_schema::DataType;
use insitu_kernels::copy::{ZoneStats, copy_with_stats};
use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::count_bits;
use insitu_kernels::view::ColumnView;

use crate::region::FIRST_CONTENT;
use crate::statistics::{self, RECORD, ZONE_ROWS, physical_type};

/// Where the header says at which content version the statistics were true; 0: as published.
const CONTENT: usize = 32;

/// Of a zone of which nothing is known.
const UNKNOWN: ZoneStats =
    ZoneStats { null_count: ZoneStats::UNKNOWN, flags: 0, ..ZoneStats::EMPTY };

/// Whether a statistics buffer of `len` bytes is true of a table at that content version.
///
/// # Safety
/// `from` is null or readable for `len` bytes.
pub(crate) unsafe fn are_true(from: *const u8, len: usize, content: u64) -> bool {
    if from.is_null() || len < RECORD {
        return false;
    }
    // SAFETY: within the header.
    let at = unsafe { from.add(CONTENT).cast::<u64>().read_unaligned() };
    // What is read of the records after this is at least as new.
    fence(Ordering::Acquire);
    at == content || at == 0 && content == FIRST_CONTENT
}

/// Whether a statistics buffer of `len` bytes is one for so many columns, and zones of each.
///
/// # Safety
/// `from` is null or readable for `len` bytes.
pub(crate) unsafe fn are_of(from: *const u8, len: usize, columns: usize, zones: usize) -> bool {
    if from.is_null() || len < statistics::size(columns, zones) {
        return false;
    }
    // SAFETY: within the header.
    let number = |at: usize| unsafe { from.add(at).cast::<u64>().read_unaligned() };
    number(0) == u64::from_le_bytes(statistics::MAGIC)
        && number(8) == (ZONE_ROWS as u64) << 32 | u64::from(statistics::VERSION)
        && number(16) == columns as u64
        && number(24) == zones as u64
}

/// A statistics buffer that is being brought up to date.
pub(crate) struct Zones {
    base: *mut u8,
    /// Rows of each chunk, and the zones that they make.
    chunks: Vec<usize>,
    zones: usize,
    types: Vec<Option<Prim>>,
    /// The columns that change.
    changed: Vec<usize>,
    /// Whether the records of the other columns are true.
    rest: bool,
}

// SAFETY: the buffer is this object's to write, by contract of its makers; workers write records of
// zones that are theirs alone.
unsafe impl Send for Zones {}
// SAFETY: as above.
unsafe impl Sync for Zones {}

fn types_of(types: &[&DataType]) -> Vec<Option<Prim>> {
    types.iter().map(|d| physical_type(d)).collect()
}

impl Zones {
    /// The statistics of a table that is changed in place; `rest`: they were true until now. None
    /// if the buffer is not one for those columns and zones.
    ///
    /// # Safety
    /// `base` is writable for `len` bytes, and nobody else writes there as long as this lives.
    pub unsafe fn of(
        base: *mut u8,
        len: usize,
        types: &[&DataType],
        chunks: Vec<usize>,
        changed: &[usize],
        rest: bool,
    ) -> Option<Zones> {
        let zones = statistics::zones(chunks.iter().copied());
        // SAFETY: by contract.
        let known = unsafe { are_of(base, len, types.len(), zones) };
        let types = types_of(types);
        known.then(|| Zones { base, chunks, zones, types, changed: changed.into(), rest })
    }

    /// Statistics of a table that is to be published, in a fresh buffer. The other columns' records
    /// are those of `from`, if there are any.
    ///
    /// # Safety
    /// `base` is 8-byte aligned, and writable by this alone for the size of that many columns and
    /// zones; `from` is null or readable for as much, true, and of the same columns and zones.
    pub unsafe fn make(
        base: *mut u8,
        from: *const u8,
        types: &[&DataType],
        chunks: Vec<usize>,
        changed: &[usize],
    ) -> Zones {
        let zones = statistics::zones(chunks.iter().copied());
        // SAFETY: by contract.
        unsafe {
            if from.is_null() {
                let none: Vec<statistics::ColumnZones> =
                    types.iter().map(|d| statistics::ColumnZones::new(d)).collect();
                statistics::write(base, &none, zones);
            } else {
                base.copy_from_nonoverlapping(from, statistics::size(types.len(), zones));
            }
        }
        let rest = !from.is_null();
        Zones { base, chunks, zones, types: types_of(types), changed: changed.into(), rest }
    }

    /// The record of a column, or of a zone of it.
    fn record(&self, column: usize, zone: Option<usize>) -> *mut ZoneStats {
        let index = match zone {
            None => column,
            Some(zone) => self.types.len() + column * self.zones + zone,
        };
        self.base.wrapping_add((index + 1) * RECORD).cast()
    }

    fn store(&self, column: usize, zone: Option<usize>, stats: ZoneStats) {
        if column < self.types.len() && zone.is_none_or(|zone| zone < self.zones) {
            // SAFETY: one of the buffer's records; see `of` and `make`.
            unsafe { self.record(column, zone).write_unaligned(stats) };
        }
    }

    /// Whether every zone has to be told of, not only those that change.
    pub fn wants_every_zone(&self) -> bool {
        !self.rest
    }

    /// Takes the statistics of a zone of the `index`th changed column.
    pub fn tell(&self, index: usize, zone: usize, stats: &ZoneStats) {
        if let Some(column) = self.changed.get(index) {
            self.store(*column, Some(zone), *stats);
        }
    }

    /// Takes the statistics of all zones of the `index`th changed column, from the chunks of the
    /// table.
    ///
    /// # Safety
    /// The views show the table's columns, as `types` said.
    pub unsafe fn look(&self, index: usize, chunks: &[Vec<ColumnView<'_>>]) {
        let Some(column) = self.changed.get(index) else { return };
        let prim = self.types.get(*column).copied().flatten();
        let mut zone = 0;
        for view in chunks.iter().filter_map(|chunk| chunk.get(*column)) {
            for first in (0..view.len).step_by(ZONE_ROWS) {
                let rows = ZONE_ROWS.min(view.len - first);
                // SAFETY: rows of the chunk; zones start at whole bytes of bitmaps.
                self.tell(index, zone, &unsafe { zone_of(view, prim, first, rows) });
                zone += 1;
            }
        }
    }

    /// Forgets what is known of the `index`th changed column.
    pub fn forget(&self, index: usize) {
        if let Some(column) = self.changed.get(index) {
            self.forget_column(*column);
        }
    }

    fn forget_column(&self, column: usize) {
        for (zone, rows) in statistics::zone_rows(&self.chunks).enumerate() {
            self.store(column, Some(zone), ZoneStats { rows, ..UNKNOWN });
        }
    }

    /// Sums the zones up, and says that the statistics are true at that content version; 0: as
    /// published.
    pub fn finish(self, content: u64) {
        for column in 0..self.types.len() {
            let changed = self.changed.contains(&column);
            if !changed && !self.rest {
                self.forget_column(column);
            }
            if changed || !self.rest {
                self.sum_up(column);
            }
        }
        fence(Ordering::Release);
        // SAFETY: within the header.
        unsafe { self.base.add(CONTENT).cast::<u64>().write_unaligned(content) };
    }

    fn sum_up(&self, column: usize) {
        let prim = self.types.get(column).copied().flatten();
        let sum = (0..self.zones).fold(ZoneStats::EMPTY, |sum, zone| {
            // SAFETY: a record of the buffer; any bits are one.
            let zone = unsafe { self.record(column, Some(zone)).read_unaligned() };
            sum.merge(&zone, prim.unwrap_or(Prim::U8))
        });
        let flags = if prim.is_some() { sum.flags } else { 0 };
        self.store(column, None, ZoneStats { flags, ..sum });
    }
}

/// # Safety
/// The view has `rows` rows from `first` on, a multiple of 64, of that type.
unsafe fn zone_of(
    view: &ColumnView<'_>,
    prim: Option<Prim>,
    first: usize,
    rows: usize,
) -> ZoneStats {
    let level = Level::best();
    let validity = match view.validity.is_null() {
        true => view.validity,
        false => view.validity.wrapping_add(first / 8),
    };
    if let Some(prim) = prim {
        let from = view.values.wrapping_add(first * prim.width());
        // SAFETY: by contract; nothing is copied.
        return unsafe {
            copy_with_stats(prim, level)(std::ptr::null_mut(), from, validity, rows, false)
        };
    }
    let valid = match validity.is_null() {
        true => rows,
        // SAFETY: by contract.
        false => unsafe { count_bits(level)(validity, rows) },
    };
    let null_count = (rows - valid.min(rows)) as u64;
    ZoneStats { rows: rows as u64, null_count, flags: 0, ..ZoneStats::EMPTY }
}
