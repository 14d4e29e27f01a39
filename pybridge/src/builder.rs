//! Tables while they are built: NumPy arrays over the region's memory to be filled, or batches to be
//! appended.

use arrow_array::Array;
use arrow_data::ArrayData;
use arrow_schema::DataType;
use insitu::BuildOptions;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyTuple};
use pyo3_arrow::{PyChunkedArray, PySchema};

use crate::filled::Arrays;
use crate::table::Table;
use crate::{arrow_in, arrow_out, errors, given, interrupt, numpy_out, shutdown, site, types};

/// A table that is being built, from `Region.build`.
///
/// A context manager: leaving the block publishes the table, an exception discards it.
#[pyclass(frozen, module = "insitu", name = "Builder")]
pub struct Builder {
    builder: insitu::Builder,
    /// The arrays that were handed out, by column, and whether they are its validity.
    arrays: Arrays<(usize, bool)>,
}

impl Builder {
    /// Begins a table.
    pub fn begin(
        region: &insitu::Region,
        name: &str,
        schema: &Bound<'_, PyAny>,
        options: BuildOptions,
    ) -> PyResult<Builder> {
        let py = schema.py();
        let _inside = shutdown::enter();
        let named =
            PyCFunction::new_closure(py, None, None, |arguments: &Bound<'_, PyTuple>, _| {
                types::pyarrow_type(&arguments.get_item(0)?).map(Bound::unbind)
            })?;
        let ingest = py.import("insitu._ingest")?;
        let schema: PySchema = ingest.call_method1("schema_of", (schema, named))?.extract()?;
        let schema = schema.into_inner();
        let builder = site::detach(py, || region.build(name, schema, options))
            .map_err(|error| errors::raise(py, error))?;
        Ok(Builder { builder, arrays: Arrays::new() })
    }

    fn index(&self, py: Python<'_>, column: &str) -> PyResult<usize> {
        self.builder.column_index(column).map_err(|error| errors::raise(py, error))
    }

    fn dtype(&self, index: usize) -> DataType {
        self.builder.schema().field(index).data_type().clone()
    }

    /// The array over a column's values, or its validity; always the same one.
    fn array<'py>(
        &self,
        py: Python<'py>,
        index: usize,
        validity: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        if self.builder.is_open()
            && let Some(array) = self.arrays.get(py, &(index, validity))
        {
            return Ok(array);
        }
        let canvas = py.detach(|| match validity {
            true => self.builder.validity(index),
            false => self.builder.values(index),
        });
        let canvas = canvas.map_err(|error| errors::raise(py, error))?;
        let dtype = match validity {
            true => Some("bool".to_owned()),
            false => numpy_out::filled_as(&self.dtype(index)),
        };
        let dtype = dtype.ok_or_else(|| {
            errors::new(py, "TypeMismatch", "NumPy has no type for values of this width")
        })?;
        self.arrays.add(py, (index, validity), canvas, &dtype)
    }
}

/// Whether NumPy stores all values of one array in another without a change.
fn is_safe(
    numpy: &Bound<'_, PyModule>,
    from: &Bound<'_, PyAny>,
    to: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    let name = intern!(numpy.py(), "dtype");
    numpy.call_method1("can_cast", (from.getattr(name)?, to.getattr(name)?))?.extract()
}

#[pymethods]
impl Builder {
    /// The column's values as a NumPy array over the region's memory, to be filled in place. The
    /// block's end makes it read-only. Booleans are bytes, dates in days int32, times of day
    /// integers, decimals opaque bytes. `TypeMismatch` for columns without a fixed width: assign
    /// those.
    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given::name)] column: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.array(py, self.index(py, column)?, false)
    }

    /// Gives a column all its values, and its nulls: from an Arrow array, a NumPy array, a list or
    /// a pandas or Polars Series, which is copied. A column of fixed width also takes what NumPy
    /// broadcasts, such as a number.
    fn __setitem__(
        &self,
        #[pyo3(from_py_with = given::name)] column: &str,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = values.py();
        let _inside = shutdown::enter();
        let index = self.index(py, column)?;
        let dtype = self.dtype(index);
        if numpy_out::same_bytes(&dtype).is_ok() || dtype == DataType::Boolean {
            // What NumPy has as well is stored by NumPy, and no row of it is null; but its NaT is.
            let numpy = py.import("numpy")?;
            let kind = match values.is_instance(&numpy.getattr("ma")?.getattr("MaskedArray")?)? {
                true => "masked".to_owned(),
                false if values.is_instance(&numpy.getattr("ndarray")?)? => {
                    values.getattr("dtype")?.getattr("kind")?.extract()?
                }
                false if values.is_instance(&numpy.getattr("generic")?)? => "scalar".into(),
                false if !values.hasattr("__len__")? => "scalar".into(),
                false => "other".into(),
            };
            let scalar = kind == "scalar" && !values.is_none();
            let mut array = None;
            if scalar || (kind.len() == 1 && !"mMO".contains(&kind)) {
                array = Some(self.array(py, index, false)?);
            }
            // Other numbers are cast below, where none is changed.
            if let Some(array) = array
                && (scalar || is_safe(&numpy, values, &array)?)
            {
                if !scalar {
                    let (rows, shape) = (array.len()?, values.getattr("shape")?);
                    if !shape.eq((rows,))? {
                        let message = format!(
                            "column {column:?} was given values of shape {shape}, the table has \
                             {rows} rows"
                        );
                        return Err(errors::new(py, "ShapeMismatch", message));
                    }
                }
                match scalar {
                    true => {
                        let ingest = py.import("insitu._ingest")?;
                        ingest.call_method1("fill", (column, &array, values))?;
                    }
                    false => array.set_item(py.Ellipsis(), values)?,
                }
                return py
                    .detach(|| self.builder.all_valid(index))
                    .map_err(|error| errors::raise(py, error));
            }
        }
        let declared = arrow_out::pyarrow_type(py, self.builder.schema(), index)?;
        let ingest = py.import("insitu._ingest")?;
        let array = ingest.call_method1("column", (column, values, declared))?;
        arrow_in::validate(&array)?;
        let chunked = match array.hasattr(intern!(py, "chunks"))? {
            true => array,
            false => py.import("pyarrow")?.call_method1("chunked_array", ([array],))?,
        };
        let array: PyChunkedArray = chunked.extract()?;
        let arrays: Vec<ArrayData> = array.chunks().iter().map(|chunk| chunk.to_data()).collect();
        interrupt::detached(py, None, |interrupt| self.builder.assign(index, arrays, interrupt))
    }

    /// Which rows of a column are valid, as an array of booleans to be filled; all are valid until
    /// something else is stored.
    fn validity<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given::name)] column: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.array(py, self.index(py, column)?, true)
    }

    /// Appends rows: anything that `Region.put` takes, with columns of the same names and types.
    /// It is copied. `SchemaMismatch` and `InvalidData` leave out the batch at fault.
    fn append(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = data.py();
        let arrow_in::Source { schema, batches, raised } =
            arrow_in::rows_of(data, self.builder.schema())?;
        interrupt::detached(py, None, |interrupt| self.builder.append(&schema, batches, interrupt))
            .map_err(|error| raised.take().unwrap_or(error))
    }

    /// Publishes the table and returns its handle. The arrays that were handed out are read-only
    /// from now on; if it fails, the builder is discarded.
    fn seal(&self, py: Python<'_>) -> PyResult<Table> {
        if self.builder.is_open() {
            self.arrays.close(py)?;
        }
        interrupt::detached(py, None, |interrupt| self.builder.seal(interrupt)).map(Table::from)
    }

    /// Gives the memory back. The arrays that were handed out are read-only and zero from now on.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        let closed = self.arrays.close(py);
        py.detach(|| self.builder.discard()).map_err(|error| errors::raise(py, error))?;
        closed
    }

    /// The table, once it is published; until then `InvalidArgument`.
    #[getter]
    fn table(&self, py: Python<'_>) -> PyResult<Table> {
        self.builder.table().map(Table::from).ok_or_else(|| {
            let message = match self.builder.is_open() {
                true => "the table is not published yet: leave the block, or call seal()",
                false => "the builder was discarded: there is no table",
            };
            errors::new(py, "InvalidArgument", message)
        })
    }

    /// The name that the table will have.
    #[getter]
    fn name(&self) -> &str {
        self.builder.name()
    }

    /// The schema that the table will have, a `pyarrow.Schema`.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        arrow_out::pyarrow_schema(py, self.builder.schema())
    }

    /// The number of rows; when batches are appended, those so far.
    #[getter]
    fn num_rows(&self) -> u64 {
        self.builder.num_rows()
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.num_rows()).unwrap_or(usize::MAX)
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exception, *_details))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exception: &Bound<'_, PyAny>,
        _details: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        if !exception.is_none() {
            return self.discard(py);
        }
        // Sealed or discarded in the block: as the caller wanted.
        if self.builder.is_open() { self.seal(py).map(drop) } else { Ok(()) }
    }

    fn __repr__(&self) -> String {
        let state = match (self.builder.is_open(), self.builder.table()) {
            (true, _) => "being built",
            (false, Some(_)) => "published",
            (false, None) => "discarded",
        };
        let columns = self.builder.schema().fields().len();
        let rows = self.num_rows();
        format!("Builder of {:?}: {rows} rows, {columns} columns, {state}", self.builder.name())
    }
}
