//! Arrow out: capsules of the Arrow PyCapsule interface over the region's bytes.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StructArray};
use arrow::datatypes::{Field, FieldRef, SchemaRef};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use pyo3_arrow::PySchema;
use pyo3_arrow::ffi::{
    ArrayIterator, to_array_pycapsules, to_schema_pycapsule, to_stream_pycapsule,
};

use crate::{errors, shutdown, site};

/// The table's chunks as record batches over the read-only mapping; their buffers own a lease.
pub fn batches(py: Python<'_>, table: &insitu::Table) -> PyResult<Vec<RecordBatch>> {
    site::detach(py, || table.to_batches()).map_err(|error| errors::raise(py, error))
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

/// An `arrow_array_stream` capsule of record batches, cast to `requested` where it can be.
pub fn stream<'py>(
    py: Python<'py>,
    schema: &SchemaRef,
    batches: Vec<RecordBatch>,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let row = Field::new_struct("", schema.fields().clone(), false)
        .with_metadata(schema.metadata().clone());
    let structs =
        batches.into_iter().map(|batch| Ok(Arc::new(StructArray::from(batch)) as ArrayRef));
    let reader = Box::new(ArrayIterator::new(structs, Arc::new(row)));
    Ok(to_stream_pycapsule(py, reader, requested)?)
}

/// An `arrow_array_stream` capsule of one column's chunks.
pub fn column_stream<'py>(
    py: Python<'py>,
    field: &FieldRef,
    arrays: Vec<ArrayRef>,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let reader = Box::new(ArrayIterator::new(arrays.into_iter().map(Ok), field.clone()));
    Ok(to_stream_pycapsule(py, reader, requested)?)
}

/// The capsules (schema, array) of one array.
pub fn array<'py>(
    py: Python<'py>,
    field: &FieldRef,
    array: &ArrayRef,
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyTuple>> {
    Ok(to_array_pycapsules(py, field.clone(), array, requested)?)
}

/// A table's or query's stream as a `pyarrow.Table`. Unlike `pyarrow.table`, this does not import
/// pandas to see whether it was given a frame.
pub fn pyarrow_table<'py>(streamed: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let _inside = shutdown::enter();
    let reader = streamed.py().import("pyarrow")?.getattr("RecordBatchReader")?;
    reader.call_method1("from_stream", (streamed,))?.call_method0("read_all")
}
