//! What a stage did in one run: rows, time and bytes.

use std::collections::HashSet;
use std::time::Duration;

use insitu_kernels::view::{ColumnView, Layout};

use crate::compile::stage::Stage;
use crate::exec::output::{Column, Rows};
use crate::exec::source::{Source, SourceColumn};
use crate::exec::zones::Skips;

/// What a stage did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) rows_in: usize,
    pub(crate) rows_out: usize,
    /// Rows in zones that the statistics let it pass over.
    pub(crate) skipped: usize,
    pub(crate) time: Duration,
    /// Of the columns read, each counted once however often it was read, without what was passed
    /// over.
    pub(crate) bytes_read: u64,
    /// Of the columns written.
    pub(crate) bytes_written: u64,
}

impl Done {
    pub(crate) fn of(
        stage: &Stage,
        source: &Source<'_>,
        skips: Option<&Skips<'_>>,
        rows: &Rows<'_>,
        time: Duration,
    ) -> Done {
        let columns = stage.columns_read();
        let read = columns.iter().filter_map(|c| source.columns.get(*c));
        let bytes: u64 = read.map(|c| bytes_of(c, source.offset, source.rows)).sum();
        let skipped = skips.map_or(0, |skips| skips.rows(source.offset, source.rows));
        let looked_at = (source.rows - skipped.min(source.rows)) as u128;
        Done {
            rows_in: source.rows,
            rows_out: rows.rows,
            skipped,
            time,
            bytes_read: (u128::from(bytes) * looked_at / source.rows.max(1) as u128) as u64,
            bytes_written: written(rows),
        }
    }

    /// Bytes read and written per second, in units of 10^9.
    pub(crate) fn gigabytes_per_second(&self) -> f64 {
        let bytes = (self.bytes_read + self.bytes_written) as f64;
        bytes / self.time.as_secs_f64().max(1e-9) / 1e9
    }
}

/// Bytes of some rows of a column. Of texts, their chunks' share by rows: nothing is looked at.
fn bytes_of(column: &SourceColumn<'_>, offset: usize, rows: usize) -> u64 {
    let pieces = column.pieces(offset, rows);
    pieces.map(|(chunk, _, rows)| values_of(chunk, rows) + validity_of(chunk, rows)).sum()
}

fn values_of(chunk: &ColumnView<'_>, rows: usize) -> u64 {
    let share = |bytes: usize| (bytes as u128 * rows as u128 / chunk.len.max(1) as u128) as u64;
    let rows = rows as u64;
    match chunk.layout {
        Layout::Prim(p) => rows * p.width() as u64,
        Layout::Bool => rows.div_ceil(8),
        Layout::Utf8 => rows * 4 + share(chunk.values_len),
        Layout::LargeUtf8 => rows * 8 + share(chunk.values_len),
        Layout::Utf8View => rows * 16 + chunk.variadic.iter().map(|v| share(v.1)).sum::<u64>(),
        Layout::Opaque => 0,
    }
}

fn validity_of(chunk: &ColumnView<'_>, rows: usize) -> u64 {
    if chunk.validity.is_null() { 0 } else { rows.div_ceil(8) as u64 }
}

fn written(rows: &Rows<'_>) -> u64 {
    // Two columns may be one.
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for column in &rows.columns {
        let Column::New(c) = column else { continue };
        for span in [c.validity, c.values, c.offsets].iter().flatten().chain(&c.variadic) {
            if seen.insert(span.ptr) {
                bytes += span.len as u64;
            }
        }
    }
    bytes
}
