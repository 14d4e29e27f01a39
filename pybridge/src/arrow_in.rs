//! Data on its way into a region: whatever has the Arrow PyCapsule interface, pandas, and
//! mappings of arrays, as a stream of record batches. The engine copies and checks them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use insitu::foreign;
use pyo3::exceptions::{PyStopIteration, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::PySchema;

use crate::query::Query;
use crate::table::Table;
use crate::{arrow_out, errors, shutdown};

type Item = Result<RecordBatch, ArrowError>;

/// A stream of record batches from Python.
pub struct Source {
    /// What every batch looks like.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: Box<dyn Iterator<Item = Item> + Send>,
    /// What Python raised while the batches were read, if it did.
    pub raised: Raised,
}

/// A Python exception on its way around the engine, whose errors know no Python.
#[derive(Clone, Default)]
pub struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    fn set(&self, error: PyErr) -> ArrowError {
        let text = error.to_string();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        ArrowError::CDataInterface(text)
    }

    /// The exception, once.
    pub fn take(&self) -> Option<PyErr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The table of the engine that `data` is, or that is the result of the query that it is.
pub fn ours(data: &Bound<'_, PyAny>) -> PyResult<Option<insitu::Table>> {
    let py = data.py();
    if let Ok(query) = data.cast::<Query>() {
        return Ok(Some(query.get().collect(py, None, false, false, None)?.here(py)?.clone()));
    }
    data.cast::<Table>().ok().map(|table| table.get().here(py).cloned()).transpose()
}

/// `data` as a stream of record batches that are to become rows of a table of that schema.
pub fn rows_of(data: &Bound<'_, PyAny>, schema: &SchemaRef) -> PyResult<Source> {
    let py = data.py();
    let _inside = shutdown::enter();
    if let Some(table) = ours(data)? {
        let batches = Box::new(arrow_out::batches(py, &table)?.into_iter().map(Ok));
        return Ok(Source { schema: table.schema(), batches, raised: Raised::default() });
    }
    let mapping = py.import("collections.abc")?.getattr("Mapping")?;
    if data.is_instance(&mapping)? && !data.hasattr(intern!(py, "__arrow_c_stream__"))? {
        let ingest = py.import("insitu._ingest")?;
        let schema = arrow_out::pyarrow_schema(py, schema)?;
        return pyarrow(&ingest.call_method1("from_mapping_as", (data, schema))?);
    }
    source(data)
}

/// `data` as a stream of record batches.
pub fn source(data: &Bound<'_, PyAny>) -> PyResult<Source> {
    let py = data.py();
    let _inside = shutdown::enter();
    match package(data)?.as_str() {
        "pyarrow" => pyarrow(data),
        "pandas" => {
            let ingest = py.import("insitu._ingest")?;
            stream(&ingest.call_method1("from_pandas", (data,))?)
        }
        _ if data.hasattr(intern!(py, "__arrow_c_stream__"))? => stream(data),
        _ if data.hasattr(intern!(py, "__arrow_c_array__"))? => array(data),
        _ if data.is_instance(&py.import("collections.abc")?.getattr("Mapping")?)? => {
            let ingest = py.import("insitu._ingest")?;
            pyarrow(&ingest.call_method1("from_mapping", (data,))?)
        }
        _ => Err(refuse(data)?),
    }
}

/// The top-level package of the class of `data`.
fn package(data: &Bound<'_, PyAny>) -> PyResult<String> {
    let module = data.get_type().module()?;
    Ok(module.to_str()?.split('.').next().unwrap_or_default().to_owned())
}

fn refuse(data: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let class = data.get_type().fully_qualified_name()?;
    let message = format!(
        "a `{class}` is not tabular; put() takes anything with __arrow_c_stream__ or \
         __arrow_c_array__ (pyarrow, Polars, DuckDB, ...), a pandas DataFrame, or a dict of \
         one-dimensional arrays"
    );
    Ok(errors::new(data.py(), "TypeMismatch", message))
}

/// pyarrow's objects are checked first: the C interface carries no buffer sizes, so that offsets
/// beyond a buffer's end can only be seen on this side of it.
fn pyarrow(data: &Bound<'_, PyAny>) -> PyResult<Source> {
    let py = data.py();
    if data.is_instance(&py.import("pyarrow")?.getattr("RecordBatchReader")?)? {
        let schema: PySchema = data.getattr(intern!(py, "schema"))?.extract()?;
        let raised = Raised::default();
        let reader = data.clone().unbind();
        let batches = Box::new(CheckedReader { reader, raised: raised.clone() });
        return Ok(Source { schema: schema.into_inner(), batches, raised });
    }
    validate(data)?;
    if data.hasattr(intern!(py, "null_count"))? {
        // An Array or ChunkedArray; if of structs, it is a table unless whole rows are null.
        let nulls: usize = data.getattr(intern!(py, "null_count"))?.extract()?;
        if nulls > 0 {
            let message = "an array of structs with null rows is no table; drop or fill them";
            return Err(errors::new(py, "InvalidData", message));
        }
    }
    if data.hasattr(intern!(py, "__arrow_c_stream__"))? {
        stream(data)
    } else if data.hasattr(intern!(py, "__arrow_c_array__"))? {
        array(data)
    } else {
        Err(refuse(data)?)
    }
}

/// Lets pyarrow check its own object, in constant time per array.
pub fn validate(data: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = data.py();
    if let Some(validate) = data.getattr_opt(intern!(py, "validate"))? {
        validate.call0().map_err(|error| invalid(py, &error))?;
    }
    Ok(())
}

fn invalid(py: Python<'_>, cause: &PyErr) -> PyErr {
    let message = format!("not valid Arrow data: {}", cause.value(py));
    let error = errors::new(py, "InvalidData", message);
    error.set_cause(py, Some(cause.clone_ref(py)));
    error
}

fn stream(data: &Bound<'_, PyAny>) -> PyResult<Source> {
    let py = data.py();
    let capsule = data.call_method0(intern!(py, "__arrow_c_stream__"))?;
    let capsule = capsule
        .cast_into::<PyCapsule>()
        .map_err(|error| not_columns(py, data, &PyErr::from(error)))?;
    let pointer = capsule.pointer_checked(Some(c"arrow_array_stream"))?;
    // SAFETY: a capsule of that name holds a stream; what is left in it is an empty one.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.cast().as_ptr()) };
    // A stream whose items are not structs has no schema of columns.
    let reader = guarded(|| foreign::ForeignStream::new(stream))
        .map_err(|error| not_columns(py, data, &PyValueError::new_err(error.to_string())))?;
    let schema = reader.schema();
    let raised = Raised::default();
    let batches =
        Box::new(Guarded { inner: reader, asked: Instant::now(), raised: raised.clone() });
    Ok(Source { schema, batches, raised })
}

fn array(data: &Bound<'_, PyAny>) -> PyResult<Source> {
    let batch = record_batch(data)?;
    let (schema, raised) = (batch.schema(), Raised::default());
    Ok(Source { schema, batches: Box::new(std::iter::once(Ok(batch))), raised })
}

/// What has the interface of an array of structs, as a record batch.
fn record_batch(data: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let py = data.py();
    let pair = data.call_method0(intern!(py, "__arrow_c_array__"))?;
    let (schema, array): (Bound<'_, PyCapsule>, Bound<'_, PyCapsule>) =
        pair.extract().map_err(|error: PyErr| not_columns(py, data, &error))?;
    let pointer = schema.pointer_checked(Some(c"arrow_schema"))?.cast::<FFI_ArrowSchema>();
    // SAFETY: a capsule of that name holds a schema, and lives until the end of this call.
    let columns = Schema::try_from(unsafe { pointer.as_ref() });
    let columns = columns
        .map_err(|error| not_columns(py, data, &PyValueError::new_err(error.to_string())))?;
    let pointer = array.pointer_checked(Some(c"arrow_array"))?;
    // SAFETY: a capsule of that name holds an array; what is left in it is an empty one.
    let array = unsafe { FFI_ArrowArray::from_raw(pointer.cast().as_ptr()) };
    // SAFETY: both capsules come from one call, by which the array is of the schema.
    guarded(|| unsafe { foreign::record_batch(array, &Arc::new(columns)) })
        .map_err(|error| errors::new(py, "InvalidData", format!("not valid Arrow data: {error}")))
}

/// What a panic over another library's data is: an error of the data.
fn guarded<T>(work: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let text = "it breaks the rules of the Arrow C data interface";
        Err(ArrowError::CDataInterface(text.to_owned()))
    })
}

fn not_columns(py: Python<'_>, data: &Bound<'_, PyAny>, cause: &PyErr) -> PyErr {
    if !cause.is_instance_of::<PyValueError>(py) && !cause.is_instance_of::<PyTypeError>(py) {
        return cause.clone_ref(py);
    }
    let class = data.get_type().fully_qualified_name();
    let class = class.as_ref().map_or_else(|_| "object".into(), ToString::to_string);
    let message = format!(
        "this `{class}` is not a table but something else in Arrow ({}); give its values a name: \
         put(name, {{\"column\": values}})",
        cause.value(py)
    );
    let error = errors::new(py, "TypeMismatch", message);
    error.set_cause(py, Some(cause.clone_ref(py)));
    error
}

/// A stream of another library: a panic inside the import is an error of the data, and Ctrl-C
/// is heard between batches.
struct Guarded<I> {
    inner: I,
    asked: Instant,
    raised: Raised,
}

impl<I: Iterator<Item = Item>> Iterator for Guarded<I> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.asked.elapsed() > Duration::from_millis(50) {
            self.asked = Instant::now();
            if let Some(Err(error)) = Python::try_attach(|py| py.check_signals()) {
                return Some(Err(self.raised.set(error)));
            }
        }
        // The stream is not used again after an error.
        guarded(|| self.inner.next().transpose()).transpose()
    }
}

/// A `pyarrow.RecordBatchReader`, each of whose batches pyarrow checks.
struct CheckedReader {
    reader: Py<PyAny>,
    raised: Raised,
}

impl CheckedReader {
    fn read(&self, py: Python<'_>) -> PyResult<Option<RecordBatch>> {
        py.check_signals()?;
        let batch = match self.reader.call_method0(py, intern!(py, "read_next_batch")) {
            Ok(batch) => batch.into_bound(py),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => return Ok(None),
            Err(error) => return Err(error),
        };
        validate(&batch)?;
        record_batch(&batch).map(Some)
    }
}

impl Iterator for CheckedReader {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let Some(read) = Python::try_attach(|py| self.read(py)) else {
            let text = "the interpreter has ended".to_owned();
            return Some(Err(ArrowError::CDataInterface(text)));
        };
        read.map_err(|error| self.raised.set(error)).transpose()
    }
}
