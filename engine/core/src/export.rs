//! Tables as Arrow arrays that point into the read-only mapping.
//!
//! Each buffer owns a [`Keeper`], which owns a version of the table and a lease on it: memory and content stay
//! for as long as any view of them does, whatever is closed or deleted meanwhile.

use std::ptr::NonNull;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::DataType;
use insitu_region::Lease;

use crate::error::{Error, Result};
use crate::layout::{Chunk, Column, Place, shape};
use crate::table::Table;
use crate::version::Version;

/// What an exported buffer owns.
struct Keeper {
    _lease: Option<Lease>,
    version: Arc<Version>,
}

// Keepers sit inside Arrow buffers, which promise to be unwind safe. Nothing that a keeper owns is
// changed through a shared reference but atomics and locks that recover.
impl std::panic::RefUnwindSafe for Keeper {}

/// All rows, one batch per chunk.
pub(crate) fn batches(table: &Table, interrupt: &dyn Fn() -> bool) -> Result<Vec<RecordBatch>> {
    let keeper = keep(table, interrupt)?;
    let meta = &keeper.version.meta;
    meta.layout.chunks.iter().map(|chunk| batch(&keeper, chunk)).collect()
}

/// One column, one array per chunk.
pub(crate) fn column(
    table: &Table,
    index: usize,
    interrupt: &dyn Fn() -> bool,
) -> Result<Vec<ArrayRef>> {
    let keeper = keep(table, interrupt)?;
    let meta = &keeper.version.meta;
    let Some(field) = meta.arrow.fields().get(index) else {
        return Err(Error::InvalidArgument(format!(
            "column {index} was asked for, the table has {}",
            meta.arrow.fields().len()
        )));
    };
    let columns = meta.layout.chunks.iter().filter_map(|chunk| chunk.columns.get(index));
    columns.map(|column| array(&keeper, field.data_type(), column)).collect()
}

/// Some chunks of a table, as untyped arrays of all columns each.
pub(crate) fn chunks(
    table: &Table,
    chunks: &[Arc<Chunk>],
    interrupt: &dyn Fn() -> bool,
) -> Result<Vec<Vec<ArrayData>>> {
    let keeper = keep(table, interrupt)?;
    let schema = table.schema();
    let of = |chunk: &Arc<Chunk>| {
        let columns = schema.fields().iter().zip(&chunk.columns);
        columns.map(|(field, column)| data(&keeper, field.data_type(), column)).collect()
    };
    chunks.iter().map(of).collect()
}

/// Some columns of a version, per column and chunk, to be copied while the caller has the table
/// exclusively: nothing else keeps their content.
pub(crate) fn to_copy(version: &Arc<Version>, columns: &[usize]) -> Result<Vec<Vec<ArrayData>>> {
    version.trust_values()?;
    let keeper = Arc::new(Keeper { _lease: None, version: version.clone() });
    let (fields, chunks) = (version.meta.arrow.fields(), &version.meta.layout.chunks);
    let of = |index: &usize| -> Result<Vec<ArrayData>> {
        let field = fields.get(*index);
        let chunks = chunks.iter().filter_map(|chunk| Some((field?, chunk.columns.get(*index)?)));
        chunks.map(|(field, column)| data(&keeper, field.data_type(), column)).collect()
    };
    columns.iter().map(of).collect()
}

fn keep(table: &Table, interrupt: &dyn Fn() -> bool) -> Result<Arc<Keeper>> {
    let (version, lease) = table.leased("view", interrupt)?;
    version.trust_values()?;
    Ok(Arc::new(Keeper { _lease: lease, version }))
}

fn batch(keeper: &Arc<Keeper>, chunk: &Chunk) -> Result<RecordBatch> {
    let schema = keeper.version.meta.arrow.clone();
    let mut arrays = Vec::with_capacity(chunk.columns.len());
    for (field, column) in schema.fields().iter().zip(&chunk.columns) {
        arrays.push(array(keeper, field.data_type(), column)?);
    }
    let rows = length(chunk.rows)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| Error::corrupt(format!("a table contradicts its schema: {e}")))
}

fn array(keeper: &Arc<Keeper>, dtype: &DataType, column: &Column) -> Result<ArrayRef> {
    Ok(make_array(data(keeper, dtype, column)?))
}

/// The bytes of one chunk of one column as Arrow's untyped array.
fn data(keeper: &Arc<Keeper>, dtype: &DataType, column: &Column) -> Result<ArrayData> {
    let shape = shape(dtype)?;
    let len = length(column.len)?;
    let mut builder = ArrayData::builder(dtype.clone()).len(len);
    if !column.validity.is_absent() {
        let bits = BooleanBuffer::new(buffer(keeper, column.validity)?, 0, len);
        let nulls = match column.null_count.and_then(|n| usize::try_from(n).ok()) {
            // SAFETY: the count was taken when the bitmap was written, or by its publisher; a
            // wrong one gives wrong answers but no wrong access, as with any other value there.
            Some(count) if count <= len => unsafe { NullBuffer::new_unchecked(bits, count) },
            _ => NullBuffer::new(bits),
        };
        builder = builder.nulls(Some(nulls));
    }
    for place in &column.buffers {
        builder = builder.add_buffer(buffer(keeper, *place)?);
    }
    if let (Some(values), Some(child)) = (&shape.dictionary, column.children.first()) {
        builder = builder.add_child_data(data(keeper, values, child)?);
    }
    for (field, child) in shape.children.iter().zip(&column.children) {
        builder = builder.add_child_data(data(keeper, field.data_type(), child)?);
    }
    // SAFETY: lengths of buffers and children were checked against the type when the layout was
    // decoded or made. The values (offsets, UTF-8, dictionary keys) were checked after they were
    // copied and before they were published, and in files again by `trust_values`.
    Ok(unsafe { builder.build_unchecked() })
}

fn buffer(keeper: &Arc<Keeper>, place: Place) -> Result<Buffer> {
    let address = keeper.version.address(place)?;
    match NonNull::new(address.cast_mut()) {
        Some(address) if place.len > 0 => {
            let len = length(place.len)?;
            // SAFETY: the range was checked against the mapping, which the keeper keeps; it is
            // read-only at the page level, and content does not change while the lease is held.
            Ok(unsafe { Buffer::from_custom_allocation(address, len, keeper.clone()) })
        }
        // Aligned as any buffer, which an empty `Vec` would not be.
        _ => Ok(MutableBuffer::new(0).into()),
    }
}

fn length(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::corrupt("a length exceeds what memory can have"))
}
