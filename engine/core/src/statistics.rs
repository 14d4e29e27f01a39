//! The statistics buffer of a table: what is known of each column, and of each zone of it, in
//! records of one width that are read without decoding anything.
//!
//! Layout, in 64-byte records, all numbers little-endian:
//!
//! | records | content |
//! |---|---|
//! | 1 | header: magic `insitust`, u32 version 1, u32 rows per zone, u64 columns, u64 zones per column, u64 content version at which it was true, zeros |
//! | columns | per column, the statistics of all its rows |
//! | columns × zones | per column, per zone: a zone is 65,536 rows of a chunk, or what is left of it |
//!
//! A record is [`ZoneStats`]. A peer may write anything here, as it may write any values. Statistics
//! choose plans and say which zones a filter need not look at: false ones give wrong answers, as false
//! values do. They never license an access.

use arrow_schema::DataType;
use insitu_kernels::copy::ZoneStats;
use insitu_kernels::prim::Prim;
use insitu_query::{ColumnStats, ZoneView};

use crate::error::{Error, Result};
use crate::types;

/// Rows of a zone.
pub(crate) const ZONE_ROWS: usize = 1 << 16;
pub(crate) const RECORD: usize = 64;
pub(crate) const MAGIC: [u8; 8] = *b"insitust";
pub(crate) const VERSION: u32 = 1;

const _: () = assert!(size_of::<ZoneStats>() == RECORD);

/// Of no rows, with no claim.
const NOTHING: ZoneStats = ZoneStats { flags: 0, ..ZoneStats::EMPTY };

/// The number type that a column's values are, if they are numbers.
pub(crate) fn physical_type(dtype: &DataType) -> Option<Prim> {
    let dtype = types::from_arrow(dtype);
    // Half precision is not the number that its bits are.
    dtype.prim().filter(|_| dtype != insitu_query::DataType::Float16)
}

/// Zones of a table whose chunks have that many rows.
pub(crate) fn zones(chunks: impl Iterator<Item = usize>) -> usize {
    chunks.map(|rows| rows.div_ceil(ZONE_ROWS)).sum()
}

/// The rows of each of them.
pub(crate) fn zone_rows(chunks: &[usize]) -> impl Iterator<Item = u64> {
    chunks.iter().flat_map(|rows| {
        (0..*rows).step_by(ZONE_ROWS).map(move |first| ZONE_ROWS.min(rows - first) as u64)
    })
}

/// Bytes of the statistics buffer.
pub(crate) fn size(columns: usize, zones: usize) -> usize {
    RECORD.saturating_mul(columns.saturating_mul(zones.saturating_add(1)).saturating_add(1))
}

/// The statistics of one column, gathered run by run.
pub(crate) struct ColumnZones {
    prim: Option<Prim>,
    zones: Vec<ZoneStats>,
    fresh: bool,
}

impl ColumnZones {
    /// Nothing gathered of a column of that type.
    pub fn new(dtype: &DataType) -> ColumnZones {
        ColumnZones { prim: physical_type(dtype), zones: Vec::new(), fresh: true }
    }

    /// The next run begins a chunk, and so a zone.
    pub fn begin_chunk(&mut self) {
        self.fresh = true;
    }

    /// Adds the rows right after those before; a run does not cross a zone's end.
    pub fn add(&mut self, run: &ZoneStats) {
        let prim = self.prim.unwrap_or(Prim::U8);
        match self.zones.last_mut() {
            Some(zone) if !self.fresh && zone.rows < ZONE_ROWS as u64 => {
                *zone = zone.merge(run, prim);
            }
            _ => self.zones.push(*run),
        }
        self.fresh = false;
    }

    /// Adds a chunk's zones of a column that has no numbers: rows and nulls only.
    ///
    /// # Safety
    /// `validity` is null, or readable for `rows` bits rounded up to 64.
    pub unsafe fn count_nulls(&mut self, validity: *const u8, rows: usize) {
        let mut done = 0;
        while done < rows {
            let count = (rows - done).min(ZONE_ROWS);
            let mut valid = if validity.is_null() { count as u64 } else { 0 };
            if !validity.is_null() {
                for word in 0..count.div_ceil(64) {
                    let at = validity.wrapping_add(done / 8 + word * 8);
                    // SAFETY: within the bitmap, which the caller promised to whole words.
                    let bits = unsafe { at.cast::<u64>().read_unaligned() };
                    let left = count - word * 64;
                    let mask = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
                    valid += u64::from((u64::from_le(bits) & mask).count_ones());
                }
            }
            let null_count = count as u64 - valid;
            self.zones.push(ZoneStats {
                rows: count as u64,
                null_count,
                flags: 0,
                ..ZoneStats::EMPTY
            });
            done += count;
        }
    }

    /// How many zones there are.
    pub fn len(&self) -> usize {
        self.zones.len()
    }

    fn summary(&self) -> ZoneStats {
        let prim = self.prim.unwrap_or(Prim::U8);
        let all = self.zones.iter().fold(ZoneStats::EMPTY, |sum, zone| sum.merge(zone, prim));
        ZoneStats { flags: if self.prim.is_some() { all.flags } else { 0 }, ..all }
    }

    /// What a query is told.
    pub fn hints(&self) -> ColumnStats {
        hints(&self.summary(), self.prim)
    }
}

fn hints(stats: &ZoneStats, prim: Option<Prim>) -> ColumnStats {
    let ranged = prim.filter(|_| stats.has(ZoneStats::HAS_RANGE));
    let known = ranged.filter(|p| !p.is_float());
    let floats = ranged.filter(|p| p.is_float());
    // An unsigned value past the signed range tells a query nothing that fits its hint.
    let value = |bits: u64| {
        let bits = bits as i64;
        known.filter(|p| *p != Prim::U64 || bits >= 0).map(|_| bits)
    };
    ColumnStats {
        min: value(stats.min),
        max: value(stats.max),
        range: floats.map(|_| (f64::from_bits(stats.min), f64::from_bits(stats.max))),
        null_count: (stats.null_count != ZoneStats::UNKNOWN).then_some(stats.null_count),
        distinct: None,
    }
}

/// # Safety
/// `to` is writable for a record.
unsafe fn write_header(to: *mut u8, columns: usize, zones: usize) {
    let mut header = [0u8; RECORD];
    let fields: [(usize, &[u8]); 5] = [
        (0, &MAGIC),
        (8, &VERSION.to_le_bytes()),
        (12, &(ZONE_ROWS as u32).to_le_bytes()),
        (16, &(columns as u64).to_le_bytes()),
        (24, &(zones as u64).to_le_bytes()),
    ];
    for (at, bytes) in fields {
        for (to, from) in header.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
    // SAFETY: the header is the first record of the buffer.
    unsafe { to.copy_from_nonoverlapping(header.as_ptr(), RECORD) };
}

/// Writes the statistics of a table that begins with chunks of another, of `kept` rows each, and
/// goes on with the zones of `new`. `from` has the statistics of the other, with `old` zones per
/// column; null: nothing is known of it. Returns what queries are told of the columns.
///
/// # Safety
/// `to` is as for [`write`], for all these zones; `from` is null or readable for the statistics of
/// as many columns and `old` zones, of which the first are those of the `kept` chunks.
pub(crate) unsafe fn write_behind(
    to: *mut u8,
    from: *const u8,
    old: usize,
    kept: &[usize],
    new: &[ColumnZones],
) -> Vec<ColumnStats> {
    let stay = zones(kept.iter().copied());
    let all = stay + new.first().map_or(0, ColumnZones::len);
    let record =
        |base: *mut u8, index: usize| base.wrapping_add((index + 1) * RECORD).cast::<ZoneStats>();
    // SAFETY: by contract; records are plain numbers.
    unsafe {
        write_header(to, new.len(), all);
        let column = |(index, column): (usize, &ColumnZones)| {
            let prim = column.prim.unwrap_or(Prim::U8);
            let first = new.len() + index * all;
            let mut sum = ZoneStats::EMPTY;
            if from.is_null() {
                for (zone, rows) in zone_rows(kept).enumerate() {
                    let unknown = ZoneStats { rows, null_count: ZoneStats::UNKNOWN, ..NOTHING };
                    record(to, first + zone).write(unknown);
                    sum = sum.merge(&unknown, prim);
                }
            } else {
                let from = from.cast_mut();
                let zones = record(from, new.len() + index * old);
                record(to, first)
                    .cast::<u8>()
                    .copy_from_nonoverlapping(zones.cast(), stay * RECORD);
                if stay == old {
                    sum = record(from, index).read_unaligned();
                } else {
                    let zones = (0..stay).map(|zone| record(to, first + zone).read());
                    sum = zones.fold(sum, |sum, zone| sum.merge(&zone, prim));
                }
            }
            for (zone, stats) in column.zones.iter().enumerate() {
                record(to, first + stay + zone).write(*stats);
            }
            let sum = sum.merge(&column.summary(), prim);
            let sum = ZoneStats { flags: if column.prim.is_some() { sum.flags } else { 0 }, ..sum };
            record(to, index).write(sum);
            hints(&sum, column.prim)
        };
        new.iter().enumerate().map(column).collect()
    }
}

/// Writes the statistics buffer.
///
/// # Safety
/// `to` is 8-byte aligned and writable for [`size`] bytes of that many columns and zones.
pub(crate) unsafe fn write(to: *mut u8, columns: &[ColumnZones], zones: usize) {
    // SAFETY: by contract.
    unsafe { write_header(to, columns.len(), zones) };
    let store = |index: usize, stats: ZoneStats| {
        let to = to.wrapping_add((index + 1) * RECORD);
        // SAFETY: there are columns × (zones + 1) records after the header, 64-byte aligned.
        unsafe { to.cast::<ZoneStats>().write(stats) };
    };
    for (index, column) in columns.iter().enumerate() {
        store(index, column.summary());
        for zone in 0..zones {
            let stats = column.zones.get(zone).copied().unwrap_or(ZoneStats {
                null_count: ZoneStats::UNKNOWN,
                flags: 0,
                ..ZoneStats::EMPTY
            });
            store(columns.len() + index * zones + zone, stats);
        }
    }
}

/// Reads the zones of each column from a statistics buffer of `len` bytes, of a table whose chunks
/// have that many rows. Where it is not one for those, or true of another content version, the
/// zones are unknown, but for their rows.
///
/// # Safety
/// `from` is null or readable for `len` bytes.
pub(crate) unsafe fn read_zones(
    from: *const u8,
    len: usize,
    dtypes: &[&DataType],
    chunks: &[usize],
    version: u64,
) -> Vec<ColumnZones> {
    let count = zones(chunks.iter().copied());
    let mut known = !from.is_null() && len >= size(dtypes.len(), count);
    if known {
        let number = |at: usize| {
            // SAFETY: there is at least one record.
            u64::from_le(unsafe { from.add(at).cast::<u64>().read_unaligned() })
        };
        let at = number(32);
        known = number(0) == u64::from_le_bytes(MAGIC)
            && number(8) as u32 == VERSION
            && number(16) == dtypes.len() as u64
            && number(24) == count as u64
            && (at == version || (at == 0 && version <= 1));
    }
    let rows: Vec<u64> = zone_rows(chunks).collect();
    let column = |(index, dtype): (usize, &&DataType)| {
        let zones = rows.iter().enumerate().map(|(zone, rows)| {
            let record = 1 + dtypes.len() + index * count + zone;
            if known {
                // SAFETY: the length was checked for all records; any bits are a valid one.
                let found =
                    unsafe { from.add(record * RECORD).cast::<ZoneStats>().read_unaligned() };
                if found.rows == *rows {
                    return found;
                }
            }
            let null_count = ZoneStats::UNKNOWN;
            ZoneStats { rows: *rows, null_count, flags: 0, ..ZoneStats::EMPTY }
        });
        ColumnZones { prim: physical_type(dtype), zones: zones.collect(), fresh: true }
    };
    dtypes.iter().enumerate().map(column).collect()
}

/// The records of the zones in a statistics buffer.
///
/// # Safety
/// `from` is readable for [`size`] bytes of that many columns and zones for as long as `'a`.
pub(crate) unsafe fn view<'a>(from: *const u8, columns: usize, zones: usize) -> ZoneView<'a> {
    let first = from.wrapping_add((1 + columns) * RECORD).cast();
    // SAFETY: by contract, as many records follow the header and those of the columns.
    unsafe { ZoneView::new(first, columns, zones, ZONE_ROWS) }
}

/// Reads the columns' summaries from a statistics buffer of `len` bytes; none if it is not one
/// for those columns.
///
/// # Safety
/// `from` is readable for `len` bytes.
pub(crate) unsafe fn read(
    from: *const u8,
    len: usize,
    dtypes: &[&DataType],
) -> Result<Option<Vec<ColumnStats>>> {
    // SAFETY: the caller's promise.
    let Some((_, records)) = (unsafe { read_columns(from, len, dtypes.len()) })? else {
        return Ok(None);
    };
    let columns = records.iter().zip(dtypes);
    Ok(Some(columns.map(|(stats, dtype)| hints(stats, physical_type(dtype))).collect()))
}

/// Reads the records of the columns, and the content version at which they were true (0: as
/// published), from a statistics buffer of `len` bytes; none if it is not one for so many columns.
///
/// # Safety
/// `from` is readable for `len` bytes.
pub(crate) unsafe fn read_columns(
    from: *const u8,
    len: usize,
    columns: usize,
) -> Result<Option<(u64, Vec<ZoneStats>)>> {
    if from.is_null() || len < size(columns, 0) {
        return Ok(None);
    }
    let mut header = [0u8; RECORD];
    // SAFETY: there is at least one record.
    unsafe { header.as_mut_ptr().copy_from_nonoverlapping(from, RECORD) };
    let number = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |b| u64::from_le_bytes(*b))
    };
    if !header.starts_with(&MAGIC) {
        return Err(Error::corrupt("a table's statistics are not statistics"));
    }
    let version = number(8) as u32;
    if version != VERSION || number(16) != columns as u64 {
        return Ok(None);
    }
    let record = |index: usize| {
        let at = from.wrapping_add((index + 1) * RECORD);
        // SAFETY: the length was checked for a record per column; any bits are a valid record.
        unsafe { at.cast::<ZoneStats>().read_unaligned() }
    };
    Ok(Some((number(32), (0..columns).map(record).collect())))
}
