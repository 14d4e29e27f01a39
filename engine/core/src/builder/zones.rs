//! The last pass over columns that were filled as bytes: booleans and validity become bits, null
//! rows zero, and statistics are gathered; zone by zone, on all threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow_schema::DataType;
use insitu_kernels::copy::{ZoneStats, copy_with_stats};
use insitu_kernels::level::Level;
use insitu_query::{Ended, parallel};

use super::pack;
use crate::error::{Error, Result};
use crate::statistics::{ColumnZones, ZONE_ROWS, physical_type};

/// Nanoseconds that a row takes, roughly.
const NS_PER_ROW: f64 = 0.5;

/// One column to be finished. Addresses, not references: the bytes are shared memory.
pub(crate) struct Unfinished<'a> {
    /// Its type.
    pub dtype: &'a DataType,
    /// The values; of booleans the bytes. Null for types without.
    pub values: *mut u8,
    /// Bytes of a value.
    pub width: usize,
    /// Of booleans: where the bits go. Null for others.
    pub bits: *mut u8,
    /// Whether rows are valid, a byte each; null if all are.
    pub valid: *const u8,
    /// Where their bits go; null if all are valid.
    pub validity: *mut u8,
}

// SAFETY: addresses of memory that is the builder's alone; each zone of it is one task's.
unsafe impl Sync for Unfinished<'_> {}

/// What came of one column.
pub(crate) struct Finished {
    /// Its statistics.
    pub zones: ColumnZones,
    /// How many rows are null.
    pub nulls: u64,
}

/// Finishes columns of `rows` rows.
///
/// # Errors
/// `Cancelled`.
///
/// # Safety
/// Of each column, `values` is writable for `rows * width` bytes, `valid` null or readable for
/// `rows` bytes, `bits` and `validity` are null or writable for `8 * ceil(rows / 64)`, and all of
/// it is the caller's alone.
pub(crate) unsafe fn finish(
    columns: &[Unfinished<'_>],
    rows: usize,
    interrupt: &dyn Fn() -> bool,
) -> Result<Vec<Finished>> {
    let zones = rows.div_ceil(ZONE_ROWS);
    let stats: Vec<Mutex<ZoneStats>> =
        (0..columns.len() * zones).map(|_| Mutex::new(ZoneStats::EMPTY)).collect();
    let nulls: Vec<AtomicU64> = columns.iter().map(|_| AtomicU64::new(0)).collect();
    let ns = (rows * columns.len()) as f64 * NS_PER_ROW;
    let ended = parallel(columns.len() * zones, ns, interrupt, &|task| {
        let (index, zone) = (task / zones, task % zones);
        let (Some(column), Some(to)) = (columns.get(index), stats.get(task)) else { return };
        let start = zone * ZONE_ROWS;
        let count = ZONE_ROWS.min(rows - start);
        // SAFETY: a zone's rows of what the caller promised; it begins on a word of all bitmaps.
        let found = unsafe { finish_zone(column, start, count) };
        *to.lock().unwrap_or_else(PoisonError::into_inner) = found;
        if let Some(nulls) = nulls.get(index) {
            nulls.fetch_add(found.null_count, Ordering::Relaxed);
        }
    });
    match ended {
        Ended::Done => {}
        Ended::Interrupted => return Err(Error::Cancelled),
        Ended::Failed => {
            return Err(Error::Unsupported("a thread failed while a table was sealed".into()));
        }
    }
    let mut stats = stats.into_iter();
    let finished = columns.iter().zip(nulls).map(|(column, nulls)| {
        let mut all = ColumnZones::new(column.dtype);
        all.begin_chunk();
        for zone in stats.by_ref().take(zones) {
            all.add(&zone.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        Finished { zones: all, nulls: nulls.into_inner() }
    });
    Ok(finished.collect())
}

/// # Safety
/// As for [`finish`], for `count` rows from `start` on, a multiple of 64.
unsafe fn finish_zone(column: &Unfinished<'_>, start: usize, count: usize) -> ZoneStats {
    let values = column.values.wrapping_add(start * column.width);
    let mut validity = std::ptr::null();
    let mut null_count = 0;
    // SAFETY: all within what the caller promised.
    unsafe {
        if !column.validity.is_null() {
            let to = column.validity.add(start / 8);
            let valid = pack::pack(column.valid.add(start), count, to);
            null_count = (count - valid) as u64;
            validity = to.cast_const();
        }
        if !column.bits.is_null() {
            let to = column.bits.add(start / 8);
            pack::pack(values, count, to);
            if null_count > 0 {
                for word in 0..count.div_ceil(64) {
                    let to = to.add(word * 8).cast::<u64>();
                    let valid = validity.add(word * 8).cast::<u64>().read_unaligned();
                    to.write_unaligned(to.read_unaligned() & valid);
                }
            }
        } else if null_count > 0 {
            pack::zero_nulls(validity, count, values, column.width);
        }
        match physical_type(column.dtype) {
            Some(prim) => {
                let look = copy_with_stats(prim, Level::best());
                let validity = if null_count > 0 { validity } else { std::ptr::null() };
                look(std::ptr::null_mut(), values, validity, count, false)
            }
            None => ZoneStats { rows: count as u64, null_count, flags: 0, ..ZoneStats::EMPTY },
        }
    }
}
