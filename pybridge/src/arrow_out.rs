//! Arrow out: capsules of the Arrow PyCapsule interface over the region's bytes.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{ArrowError, Field, FieldRef, SchemaRef};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use pyo3_arrow::ffi::{
    ArrayIterator, ArrayReader, to_array_pycapsules, to_schema_pycapsule, to_stream_pycapsule,
};
use pyo3_arrow::{PyField, PySchema};

use crate::{errors, interrupt, shutdown};

/// The table's chunks as record batches over the read-only mapping; their buffers own a lease.
pub fn batches(py: Python<'_>, table: &insitu::Table) -> PyResult<Vec<RecordBatch>> {
    interrupt::detached(py, None, |interrupt| table.to_batches_with(interrupt))
}

/// An `arrow_schema` capsule of a schema.
pub fn schema<'py>(py: Python<'py>, schema: &SchemaRef) -> PyResult<Bound<'py, PyCapsule>> {
    Ok(to_schema_pycapsule(py, schema.as_ref())?)
}

/// A schema as a `pyarrow.Schema`.
pub fn pyarrow_schema<'py>(py: Python<'py>, schema: &SchemaRef) -> PyResult<Bound<'py, PyAny>> {
    let _inside = shutdown::enter();
    PySchema::new(schema.clone()).into_pyarrow(py)
}

/// A column's type as a `pyarrow.DataType`.
pub fn pyarrow_type<'py>(
    py: Python<'py>,
    schema: &SchemaRef,
    index: usize,
) -> PyResult<Bound<'py, PyAny>> {
    pyarrow_schema(py, schema)?.call_method1("field", (index,))?.getattr("type")
}

/// An `arrow_schema` capsule of one field.
pub fn field<'py>(py: Python<'py>, field: &FieldRef) -> PyResult<Bound<'py, PyCapsule>> {
    Ok(to_schema_pycapsule(py, field.as_ref())?)
}

/// The type that a consumer asks for, if it is another than it gets, and there is a cast to it.
fn wanted(field: &FieldRef, requested: Option<Bound<'_, PyCapsule>>) -> PyResult<Option<FieldRef>> {
    let Some(requested) = requested else { return Ok(None) };
    let wanted = PyField::from_arrow_pycapsule(&requested)?.into_inner();
    let (from, to) = (field.data_type(), wanted.data_type());
    if from == to || !can_cast_types(from, to) {
        return Ok(None);
    }
    Ok(Some(Arc::new(wanted.as_ref().clone().with_metadata(field.metadata().clone()))))
}

/// A value that does not fit the type is an error, and never null.
fn strictly(array: &dyn Array, wanted: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, wanted.data_type(), &options)
}

/// An `arrow_array_stream` capsule of arrays, cast to `requested` where they can be.
fn arrays<'py>(
    py: Python<'py>,
    field: FieldRef,
    arrays: impl Iterator<Item = ArrayRef> + Send + 'static,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let reader: Box<dyn ArrayReader + Send> = match wanted(&field, requested)? {
        Some(wanted) => {
            let to = wanted.clone();
            let cast = arrays.map(move |array| strictly(&array, &to));
            Box::new(ArrayIterator::new(cast, wanted))
        }
        None => Box::new(ArrayIterator::new(arrays.map(Ok), field)),
    };
    Ok(to_stream_pycapsule(py, reader, None)?)
}

/// An `arrow_array_stream` capsule of record batches, cast to `requested` where it can be.
pub fn stream<'py>(
    py: Python<'py>,
    schema: &SchemaRef,
    batches: Vec<RecordBatch>,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let row = Field::new_struct("", schema.fields().clone(), false)
        .with_metadata(schema.metadata().clone());
    let structs = batches.into_iter().map(|batch| Arc::new(StructArray::from(batch)) as ArrayRef);
    arrays(py, Arc::new(row), structs, requested)
}

/// An `arrow_array_stream` capsule of one column's chunks.
pub fn column_stream<'py>(
    py: Python<'py>,
    field: &FieldRef,
    chunks: Vec<ArrayRef>,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    arrays(py, field.clone(), chunks.into_iter(), requested)
}

/// The capsules (schema, array) of one array.
pub fn array<'py>(
    py: Python<'py>,
    field: &FieldRef,
    array: &ArrayRef,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let Some(wanted) = wanted(field, requested)? else {
        return Ok(to_array_pycapsules(py, field.clone(), array, None)?);
    };
    let cast = py
        .detach(|| strictly(array, &wanted))
        .map_err(|error| errors::new(py, "CastFailed", error.to_string()))?;
    Ok(to_array_pycapsules(py, wanted, &cast, None)?)
}

/// A table's or query's stream as a `pyarrow.Table`. Unlike `pyarrow.table`, this does not import
/// pandas to see whether it was given a frame.
pub fn pyarrow_table<'py>(streamed: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let _inside = shutdown::enter();
    let reader = streamed.py().import("pyarrow")?.getattr("RecordBatchReader")?;
    reader.call_method1("from_stream", (streamed,))?.call_method0("read_all")
}
