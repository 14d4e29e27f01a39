//! The table a query reads: borrowed column views, chunk by chunk.

use std::marker::PhantomData;

use insitu_kernels::copy::ZoneStats;
use insitu_kernels::view::ColumnView;

use crate::error::{Error, Result};
use crate::schema::Schema;

/// What is known of a whole column without reading it. Hints only: they choose plans, and never
/// license an access or change a result ([`ZoneView`] says which rows need not be looked at).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColumnStats {
    /// The smallest value of an integer, date or timestamp column.
    pub min: Option<i64>,
    /// The largest value of an integer, date or timestamp column.
    pub max: Option<i64>,
    /// The least and the greatest value of a float column, but NaN.
    pub range: Option<(f64, f64)>,
    /// The number of nulls.
    pub null_count: Option<u64>,
    /// An estimate of the number of distinct values.
    pub distinct: Option<u64>,
}

/// What is known of each zone of a table: so many rows of a chunk, or what is left of it. Records
/// are read when a query asks for them; they may lie in memory that others write to, and are true
/// for as long as the table's content stays.
#[derive(Clone, Copy, Debug)]
pub struct ZoneView<'a> {
    records: *const ZoneStats,
    columns: usize,
    zones: usize,
    rows_per_zone: usize,
    borrowed: PhantomData<&'a ZoneStats>,
}

// SAFETY: records are copied before they are looked at, whoever writes them; any bits are one.
unsafe impl Send for ZoneView<'_> {}
// SAFETY: as above.
unsafe impl Sync for ZoneView<'_> {}

impl<'a> ZoneView<'a> {
    /// The zones of the first column, then those of the second, and so on.
    ///
    /// # Safety
    /// `records` is readable for `columns * zones` records for as long as `'a`, aligned or not.
    pub unsafe fn new(
        records: *const ZoneStats,
        columns: usize,
        zones: usize,
        rows_per_zone: usize,
    ) -> ZoneView<'a> {
        let rows_per_zone = rows_per_zone.max(1);
        ZoneView { records, columns, zones, rows_per_zone, borrowed: PhantomData }
    }

    /// Zones of a column.
    pub(crate) fn len(&self) -> usize {
        self.zones
    }

    pub(crate) fn rows_per_zone(&self) -> usize {
        self.rows_per_zone
    }

    /// What is known of a column's zone.
    pub(crate) fn record(&self, column: usize, zone: usize) -> Option<ZoneStats> {
        (column < self.columns && zone < self.zones).then(|| {
            // SAFETY: one of the records; any bits are one.
            unsafe { self.records.add(column * self.zones + zone).read_unaligned() }
        })
    }
}

/// A table as the engine sees it: a schema and, per chunk, one view per column.
#[derive(Clone, Debug)]
pub struct TableView<'a> {
    /// The columns' names and types.
    pub schema: &'a Schema,
    /// Rows over all chunks.
    pub rows: usize,
    /// `chunks[c][column]`; every chunk has all columns, of equal length.
    pub chunks: Vec<Vec<ColumnView<'a>>>,
    /// Per column over the table.
    pub stats: Option<Vec<ColumnStats>>,
    /// What is known of each zone: it tells which zones a filter need not look at. False records
    /// give wrong answers, as false values do, and never a wrong access.
    pub zones: Option<ZoneView<'a>>,
}

impl TableView<'_> {
    /// Checks that the chunks fit the schema and add up to the rows.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if not.
    pub fn check(&self) -> Result<()> {
        let mut rows = 0usize;
        for chunk in &self.chunks {
            if chunk.len() != self.schema.len() {
                return Err(Error::ShapeMismatch(format!(
                    "a chunk has {} columns, the schema has {}",
                    chunk.len(),
                    self.schema.len()
                )));
            }
            let len = chunk.first().map_or(0, |c| c.len);
            if chunk.iter().any(|c| c.len != len) {
                return Err(Error::ShapeMismatch(
                    "the columns of a chunk have different lengths".into(),
                ));
            }
            rows = rows.saturating_add(len);
        }
        if rows != self.rows && !self.schema.is_empty() {
            return Err(Error::ShapeMismatch(format!(
                "the chunks have {rows} rows, the table says {}",
                self.rows
            )));
        }
        Ok(())
    }
}
