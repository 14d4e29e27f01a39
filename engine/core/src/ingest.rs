//! Takes Arrow data into a region: one chunk per column, however many batches it comes in, each
//! value copied once, straight to its final place.
//!
//! The way of a `put`: the batches are gathered (they are the caller's memory, not yet copied) and
//! cut into chunks where 32-bit offsets would overflow (`chunks`), dictionaries are unified
//! (`dictionary`), the buffers measured and laid out (`measure`), one extent taken, the buffers
//! written (`write`), on all threads and with statistics in the same pass (`copies`), and the
//! *copy* checked against Arrow's rules (`validate`). Whatever fails drops the extent, and the
//! region is as it was.
//!
//! The source is not trusted: an array that came through the C interface may have any numbers in
//! it. What is read of it is bounds-checked first, and never handed to code that panics.

pub(crate) mod bits;
mod chunks;
mod copies;
mod dictionary;
pub(crate) mod measure;
mod views;
mod write;

use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use insitu_query::ColumnStats;
use insitu_region::Extent;

use crate::error::{Error, Result};
use crate::layout::{Chunk, Column, Layout, Place};
use crate::region::Shared;
use crate::statistics::{self, ColumnZones};
use crate::validate;
use copies::Copies;
use dictionary::Dictionaries;
use measure::{Arranger, Node};
use write::Writer;

pub(crate) use views::{View, parse as parse_view};

#[cfg(test)]
mod tests;

/// Some rows of one source array.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The array.
    pub data: ArrayData,
    /// The first row, counted from the array's own offset.
    pub start: usize,
    /// Rows.
    pub len: usize,
    /// Which batch it came in: tells which dictionary its keys mean.
    pub batch: usize,
}

impl Piece {
    /// The first row, counted from the start of the buffers.
    pub(crate) fn physical(&self) -> Option<usize> {
        self.data.offset().checked_add(self.start)
    }
}

/// What an ingest made: memory that belongs to the caller, and what lies in it.
pub(crate) struct Ingested {
    /// The memory.
    pub extents: Vec<Extent>,
    /// Where the buffers lie.
    pub layout: Layout,
    /// What is known of the columns.
    pub stats: Vec<ColumnStats>,
}

/// Copies the batches in.
pub(crate) fn ingest(
    shared: &Shared,
    schema: &SchemaRef,
    batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
    interrupt: &dyn Fn() -> bool,
) -> Result<Ingested> {
    for field in schema.fields() {
        check_type(field.data_type()).map_err(|e| in_column(e, field.name()))?;
    }
    let batches = gather(schema, batches, interrupt)?;
    let columns: Vec<Vec<ArrayData>> = (0..schema.fields().len())
        .map(|i| batches.iter().filter_map(|b| b.columns().get(i)).map(|a| a.to_data()).collect())
        .collect();
    let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    drop(batches);
    ingest_columns(shared, schema, &columns, &rows, Cut::Above(i32::MAX as u64), interrupt)
}

/// Where a table is cut into chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Between batches, where what 32-bit offsets span would exceed this.
    Above(u64),
    /// Between all batches.
    EveryBatch,
}

/// The batches that have rows, checked to be of that schema.
fn gather(
    schema: &Schema,
    batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
    interrupt: &dyn Fn() -> bool,
) -> Result<Vec<RecordBatch>> {
    let mut gathered = Vec::new();
    for batch in batches {
        if interrupt() {
            return Err(Error::Cancelled);
        }
        let batch =
            batch.map_err(|e| Error::InvalidData(format!("the source of the data failed: {e}")))?;
        let found = batch.schema_ref();
        if found.fields().len() != schema.fields().len() {
            return Err(Error::SchemaMismatch(format!(
                "a batch has {} columns, the schema has {}",
                found.fields().len(),
                schema.fields().len()
            )));
        }
        for ((field, column), declared) in
            found.fields().iter().zip(batch.columns()).zip(schema.fields())
        {
            if !column.data_type().equals_datatype(declared.data_type()) {
                return Err(Error::SchemaMismatch(format!(
                    "a batch has column {:?} of type {}, the schema says {:?} of type {}",
                    field.name(),
                    column.data_type(),
                    declared.name(),
                    declared.data_type()
                )));
            }
        }
        if batch.num_rows() > 0 {
            gathered.push(batch);
        }
    }
    Ok(gathered)
}

/// Copies columns in; `columns[c][b]` is column `c` of batch `b`, which has `rows[b]` rows.
pub(crate) fn ingest_columns(
    shared: &Shared,
    schema: &SchemaRef,
    columns: &[Vec<ArrayData>],
    rows: &[usize],
    cut: Cut,
    interrupt: &dyn Fn() -> bool,
) -> Result<Ingested> {
    let types: Vec<&DataType> = schema.fields().iter().map(|f| f.data_type()).collect();
    let name = |index: usize| schema.fields().get(index).map_or("", |f| f.name().as_str());

    let mut arranger = Arranger::new();
    let mut dictionaries =
        Dictionaries::unify(&types, columns, &mut arranger, |e, i| in_column(e, name(i)))?;
    if dictionaries.copied_bytes() > 0 {
        shared.counters.copy(dictionaries.copied_bytes());
    }

    // Measure.
    let mut measured: Vec<(usize, Vec<Node>)> = Vec::new();
    for batches in chunks::cut(&types, columns, rows, cut)? {
        let rows_of: usize = rows.get(batches.clone()).unwrap_or_default().iter().sum();
        dictionaries.rewind();
        let mut nodes = Vec::with_capacity(types.len());
        for (index, (dtype, arrays)) in types.iter().zip(columns).enumerate() {
            let pieces = batches
                .clone()
                .zip(arrays.get(batches.clone()).unwrap_or_default())
                .map(|(batch, data)| Piece { data: data.clone(), start: 0, len: data.len(), batch })
                .collect();
            let node = measure::measure(dtype, pieces, &mut dictionaries, &mut arranger)
                .map_err(|e| in_column(e, name(index)))?;
            let declared = schema.fields().get(index);
            if node.validity.len > 0 && declared.is_some_and(|f| !f.is_nullable()) {
                let row = node.first_null().unwrap_or_default();
                return Err(Error::InvalidData(format!(
                    "column {:?} is declared without nulls but row {row} is null",
                    name(index)
                )));
            }
            nodes.push(node);
        }
        measured.push((rows_of, nodes));
    }
    let zones = statistics::zones(measured.iter().map(|(rows, _)| *rows));
    let statistics = arranger.take(statistics::size(types.len(), zones))?;

    // Write.
    let mut extents = Vec::new();
    let mut base = (0u64, std::ptr::null_mut());
    if arranger.total() > 0 {
        let extent = shared.allocate_with(arranger.total() as u64, interrupt)?;
        base = (extent.offset(), extent.as_mut_ptr());
        if (extent.len() as usize) < arranger.total() || base.1.is_null() {
            return Err(Error::corrupt("an extent is shorter than was asked for"));
        }
        extents.push(extent);
    }
    // SAFETY: the extent has as many bytes as the arranger handed out, belongs to this session
    // alone until it is published, and lives to the end of this function.
    let mut writer = unsafe { Writer::new(base.1, base.0, interrupt) };
    writer.write_dictionaries(&mut dictionaries)?;
    let mut all_zones: Vec<ColumnZones> = types.iter().map(|d| ColumnZones::new(d)).collect();
    let mut made: Vec<Arc<Chunk>> = Vec::with_capacity(measured.len());
    let mut first_row = 0u64;
    for (rows, nodes) in measured {
        dictionaries.rewind();
        let mut columns = Vec::with_capacity(nodes.len());
        let mut copies = Copies::new();
        for (index, (node, zones)) in nodes.iter().zip(&mut all_zones).enumerate() {
            let column = writer
                .write(node, Some((index, zones)), &mut dictionaries, &mut copies)
                .map_err(|e| in_column(e, name(index)))?;
            columns.push(Arc::new(column));
        }
        writer.make(copies, &mut all_zones)?;
        check(&types, &columns, base, first_row, name)?;
        made.push(Arc::new(Chunk { rows: rows as u64, columns }));
        first_row += rows as u64;
    }
    // SAFETY: the place was handed out for as many zones of as many columns.
    unsafe { statistics::write(base.1.wrapping_add(statistics.offset), &all_zones, zones) };
    let stats = all_zones.iter().map(ColumnZones::hints).collect();
    let statistics =
        Place { offset: base.0 + statistics.offset as u64, len: statistics.len as u64 };
    let layout = Layout {
        rows: first_row,
        chunks: made,
        statistics: if statistics.len > 0 { statistics } else { Place::default() },
        origin: 0,
    };
    Ok(Ingested { extents, layout, stats })
}

/// Checks what was written.
fn check<'a>(
    types: &[&DataType],
    columns: &[Arc<Column>],
    base: (u64, *mut u8),
    first_row: u64,
    name: impl Fn(usize) -> &'a str,
) -> Result<()> {
    let address = |place: Place| {
        let at = usize::try_from(place.offset.wrapping_sub(base.0)).unwrap_or_default();
        Ok(if place.is_absent() { std::ptr::null() } else { base.1.wrapping_add(at).cast_const() })
    };
    for (index, (dtype, column)) in types.iter().zip(columns).enumerate() {
        // SAFETY: every place was handed out of the extent that starts at `base`, for as many
        // bytes as the column's type and length take.
        unsafe { validate::column(dtype, column, &address) }.map_err(|fault| {
            let row = fault.row.map_or(String::new(), |r| format!(", row {}", first_row + r));
            Error::InvalidData(format!("column {:?}{row}: {}", name(index), fault.what))
        })?;
    }
    Ok(())
}

/// # Errors
/// `Unsupported` for types that a region does not hold, anywhere in a type.
pub(crate) fn check_type(dtype: &DataType) -> Result<()> {
    let shape = crate::layout::shape(dtype)?;
    if let Some(values) = &shape.dictionary {
        if has_dictionary(values) {
            return Err(Error::Unsupported(
                "a dictionary whose values contain dictionaries; decode the inner ones first"
                    .into(),
            ));
        }
        check_type(values)?;
    }
    shape.children.iter().try_for_each(|child| check_type(child.data_type()))
}

pub(crate) fn has_dictionary(dtype: &DataType) -> bool {
    crate::layout::shape(dtype).is_ok_and(|shape| {
        shape.dictionary.is_some()
            || shape.children.iter().any(|child| has_dictionary(child.data_type()))
    })
}

/// The same error, saying in which column.
pub(crate) fn in_column(error: Error, name: &str) -> Error {
    match error {
        Error::InvalidData(text) => Error::InvalidData(format!("column {name:?}: {text}")),
        Error::Unsupported(text) => Error::Unsupported(format!("column {name:?}: {text}")),
        Error::LimitExceeded(text) => Error::LimitExceeded(format!("column {name:?}: {text}")),
        other => other,
    }
}
