//! The block in which NumPy writes the values of a published table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use insitu::UpdateOptions;
use numpy::PyArrayDescr;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::filled::Arrays;
use crate::{errors, given, interrupt, numpy_out, shutdown};

/// A table whose values a block may write, from `Table.writable`.
///
/// A context manager: the lease begins at entry and ends at exit.
#[pyclass(frozen, module = "insitu", name = "Writable")]
pub struct Writable {
    table: insitu::Table,
    timeout: Option<Duration>,
    writing: Mutex<Option<Arc<insitu::Writing>>>,
    arrays: Arrays<usize>,
}

impl Writable {
    pub fn new(table: insitu::Table, timeout: Option<Duration>) -> Self {
        Self { table, timeout, writing: Mutex::new(None), arrays: Arrays::new() }
    }

    /// Locked for a moment, with the GIL: no fork of Python's finds it locked.
    fn writing(&self) -> MutexGuard<'_, Option<Arc<insitu::Writing>>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Writable {
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let this = slf.get();
        let writing = interrupt::detached(slf.py(), None, |interrupt| {
            let (timeout, interrupt) = (this.timeout, Some(interrupt));
            let what = "writable";
            let options = UpdateOptions { timeout, interrupt, what, ..UpdateOptions::default() };
            this.table.writable(options)
        })?;
        // A second entry is refused by the lease that the first one has.
        *this.writing() = Some(Arc::new(writing));
        Ok(slf)
    }

    #[pyo3(signature = (exception, *_details))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exception: &Bound<'_, PyAny>,
        _details: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let closed = self.arrays.close(py);
        let Some(writing) = self.writing().take() else { return closed };
        let failed = !exception.is_none();
        let ended = py.detach(|| if failed { writing.abandon() } else { writing.finish() });
        match ended {
            // Not to hide what ended the block.
            Err(_) if failed => Ok(()),
            ended => ended.map_err(|error| errors::raise(py, error)).and(closed),
        }
    }

    /// The column's values as a NumPy array to store into; which rows are null does not change.
    /// The block's end makes it read-only. Booleans are bytes, dates in days int32, times of day
    /// integers, decimals opaque bytes. `TypeMismatch` for columns without a fixed width.
    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given::name)] column: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let index = self.table.column_index(column).map_err(|e| errors::raise(py, e))?;
        if let Some(array) = self.arrays.get(py, &index) {
            return Ok(array);
        }
        let Some(writing) = self.writing().clone() else {
            let advice = "a table is written within a block: with table.writable() as w: ...";
            return Err(errors::new(py, "InvalidArgument", advice));
        };
        let canvas = py.detach(|| writing.values(index));
        let canvas = canvas.map_err(|error| errors::raise(py, error))?;
        let dtype = numpy_out::filled_as(self.table.schema().field(index).data_type());
        let dtype = dtype.ok_or_else(|| {
            errors::new(py, "TypeMismatch", "NumPy has no type for values of this width")
        })?;
        self.arrays.add(py, index, canvas, &dtype)
    }

    /// Stores values into a whole column: what NumPy broadcasts. `InvalidData` for numbers that the
    /// column's integers cannot hold unchanged, before anything is stored.
    fn __setitem__(
        &self,
        #[pyo3(from_py_with = given::name)] column: &str,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = values.py();
        let _inside = shutdown::enter();
        let index = self.table.column_index(column).map_err(|e| errors::raise(py, e))?;
        let mut values = values.clone();
        if let Some(dtype) = numpy_out::filled_as(self.table.schema().field(index).data_type()) {
            let dtype = PyArrayDescr::new(py, dtype)?;
            let ingest = py.import("insitu._ingest")?;
            values = ingest.call_method1("fitting", (column, dtype, values))?;
        }
        self.__getitem__(py, column)?.set_item(py.Ellipsis(), values)
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.table.num_rows()).unwrap_or(usize::MAX)
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self) -> String {
        let state = if self.writing().is_some() { "open" } else { "not open" };
        format!("Writable table {:?}, {state}", self.table.name().unwrap_or_default())
    }
}
