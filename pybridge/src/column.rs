//! One column of a table: its views, and the reductions as methods.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow_schema::{DataType, FieldRef, Schema};
use numpy::PyArrayDescr;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, intern};

use crate::query::Query;
use crate::table::Table;
use crate::{arrow_out, display, errors, expr, given, interrupt, numpy_out, shutdown};

/// A column of a table.
#[pyclass(frozen, weakref, module = "insitu", name = "Column")]
pub struct Column {
    pub table: insitu::Table,
    pub index: usize,
    pub field: FieldRef,
}

impl Column {
    /// The column of that name; `UnknownColumn` names the nearest.
    pub fn of(py: Python<'_>, table: &insitu::Table, name: &str) -> PyResult<Self> {
        let index = table.column_index(name).map_err(|error| errors::raise(py, error))?;
        Ok(Self::at(table, index))
    }

    /// The column at a position that the schema has.
    pub fn at(table: &insitu::Table, index: usize) -> Self {
        let field = table.schema().fields()[index].clone();
        Self { table: table.clone(), index, field }
    }

    fn rows(&self) -> usize {
        usize::try_from(self.table.num_rows()).unwrap_or(usize::MAX)
    }

    /// The column's name.
    pub fn name(&self) -> &str {
        self.field.name()
    }

    /// The chunks as Arrow arrays over the region's bytes; each owns a lease.
    fn arrays(&self, py: Python<'_>) -> PyResult<Vec<ArrayRef>> {
        interrupt::detached(py, None, |interrupt| self.table.column_with(self.index, interrupt))
    }

    /// The column, or a copy of it where this thread has the table exclusively and views are refused:
    /// for what is copied out in any case.
    fn to_copy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, column) = (slf.py(), slf.get());
        if column.table.name().is_none() {
            return Ok(slf.clone());
        }
        let copy = |interrupt: &dyn Fn() -> bool| column.table.own_copy(column.index, interrupt);
        match interrupt::detached(py, None, copy)? {
            Some(copy) => Bound::new(py, Self::at(&copy, 0)),
            None => Ok(slf.clone()),
        }
    }

    fn not_zero_copy(&self, py: Python<'_>, why: &str, how: &str) -> PyErr {
        let name = self.name();
        errors::new(
            py,
            "NotZeroCopy",
            format!("column {name:?} cannot be viewed without a copy: {why}; {how}"),
        )
    }

    /// The value in the first row, if it is a number, a boolean, a string or null: what pyarrow
    /// would make of it, in a tenth of the time.
    fn scalar<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let arrays = self.arrays(py)?;
        let Some(array) = arrays.iter().find(|array| !array.is_empty()) else { return Ok(None) };
        if array.is_null(0) {
            return Ok(Some(py.None().into_bound(py)));
        }
        macro_rules! number {
            ($($of:ident => $t:ident),*) => {
                match array.data_type() {
                    $(DataType::$of => array.as_primitive::<$t>().value(0).into_bound_py_any(py),)*
                    DataType::Boolean => array.as_boolean().value(0).into_bound_py_any(py),
                    DataType::Utf8 => array.as_string::<i32>().value(0).into_bound_py_any(py),
                    _ => return Ok(None),
                }
            };
        }
        number!(
            Int8 => Int8Type, Int16 => Int16Type, Int32 => Int32Type, Int64 => Int64Type,
            UInt8 => UInt8Type, UInt16 => UInt16Type, UInt32 => UInt32Type, UInt64 => UInt64Type,
            Float32 => Float32Type, Float64 => Float64Type
        )
        .map(Some)
    }

    /// A view, or the error that says why there is none.
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        const COPY: &str = "pass copy=True";
        let dtype = match numpy_out::dtype_of(py, self.field.data_type()) {
            Ok(dtype) => dtype?,
            Err(why) => return Err(self.not_zero_copy(py, why, COPY)),
        };
        let mut arrays = self.arrays(py)?;
        arrays.retain(|array| !array.is_empty());
        let array = match arrays.len() {
            0 => new_empty_array(self.field.data_type()),
            1 => arrays.remove(0),
            n => return Err(self.not_zero_copy(py, &format!("it has {n} chunks"), COPY)),
        };
        match array.null_count() {
            0 => {}
            n => {
                let why = format!("{n} of its values are null");
                return Err(self.not_zero_copy(
                    py,
                    &why,
                    "pass copy=True, and fill= for the nulls",
                ));
            }
        }
        numpy_out::view(py, array, dtype)
    }

    /// A fresh, writable array of a column without nulls whose values NumPy has as well; none for
    /// others. pyarrow would import pandas for it.
    fn copied_bytes<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let boolean = *self.field.data_type() == DataType::Boolean;
        let dtype = match numpy_out::same_bytes(self.field.data_type()) {
            Ok(dtype) => dtype,
            Err(_) if boolean => "bool".into(),
            Err(_) => return Ok(None),
        };
        let dtype = PyArrayDescr::new(py, dtype)?;
        let arrays = self.arrays(py)?;
        if arrays.iter().any(|array| array.null_count() > 0) {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(arrays.len());
        for mut array in arrays {
            if boolean {
                // NumPy's booleans are bytes, 0 or 1.
                array = py
                    .detach(|| arrow_cast::cast(&array, &DataType::UInt8))
                    .map_err(|error| errors::new(py, "InvalidData", error.to_string()))?;
            }
            parts.push(numpy_out::view(py, array, dtype.clone())?);
        }
        match parts.as_slice() {
            [] => Ok(Some(py.import("numpy")?.call_method1("empty", (0, dtype))?)),
            [part] => part.call_method0(intern!(py, "copy")).map(Some),
            _ => Ok(Some(py.import("numpy")?.call_method1("concatenate", (parts,))?)),
        }
    }

    /// A fresh, writable array; nulls become `fill`, or what pyarrow makes of them.
    fn copied<'py>(
        slf: &Bound<'py, Self>,
        fill: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let _inside = shutdown::enter();
        let slf = &Self::to_copy(slf)?;
        if fill.is_none()
            && let Some(array) = slf.get().copied_bytes(py)?
        {
            return Ok(array);
        }
        let mut chunked = Self::to_arrow(slf)?;
        if let Some(fill) = fill {
            let compute = py.import("pyarrow.compute")?;
            chunked = compute
                .call_method1("fill_null", (chunked, fill))
                .map_err(|error| slf.get().refuse_fill(py, fill, error))?;
        }
        let array = chunked.call_method0("to_numpy")?;
        // pyarrow hands out read-only views where it can.
        let flags = array.getattr(intern!(py, "flags"))?;
        if flags.getattr(intern!(py, "owndata"))?.is_truthy()?
            && flags.getattr(intern!(py, "writeable"))?.is_truthy()?
        {
            return Ok(array);
        }
        array.call_method0(intern!(py, "copy"))
    }

    fn refuse_fill(&self, py: Python<'_>, fill: &Bound<'_, PyAny>, cause: PyErr) -> PyErr {
        let error = errors::new(
            py,
            "TypeMismatch",
            format!("{fill} cannot fill column {:?} of {}", self.name(), self.field.data_type()),
        );
        error.set_cause(py, Some(cause));
        error
    }
}

#[pymethods]
impl Column {
    /// The column's name.
    #[getter(name)]
    fn py_name(&self) -> &str {
        self.name()
    }

    /// The column's type, a `pyarrow.DataType`.
    #[getter]
    fn dtype<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let field = slf.py().import("pyarrow")?.call_method1("field", (slf,))?;
        field.getattr("type")
    }

    /// How many of the values are null.
    #[getter]
    fn null_count(slf: &Bound<'_, Self>) -> PyResult<usize> {
        if *slf.get().field.data_type() == DataType::Null {
            // Arrow counts bits of a bitmap, which such a column has not.
            return Ok(slf.get().rows());
        }
        let column = Self::to_copy(slf)?;
        Ok(column.get().arrays(slf.py())?.iter().map(|array| array.null_count()).sum())
    }

    /// In how many pieces the column lies in memory.
    #[getter]
    pub fn num_chunks(&self, py: Python<'_>) -> PyResult<usize> {
        if self.table.is_own() {
            return Ok(self.table.num_chunks());
        }
        // A table that cannot be read has none to speak of.
        Ok(self.arrays(py)?.len())
    }

    fn __len__(&self) -> usize {
        self.rows()
    }

    /// The values as a NumPy array.
    ///
    /// `copy=False`: a read-only view of the shared bytes, or `NotZeroCopy`, which says why not: a
    /// view needs a fixed-width type, no nulls and one chunk. `copy=True`: a fresh array of your
    /// own. `copy=None`: a view where there can be one, else a copy. Timestamps become
    /// `datetime64`, in UTC. In a copy, nulls become `fill`; without it NaN or NaT, and integers
    /// with nulls become float64, as in pyarrow and pandas.
    #[pyo3(
        signature = (copy=Some(false), fill=None),
        text_signature = "($self, copy=False, fill=None)"
    )]
    pub fn to_numpy<'py>(
        slf: &Bound<'py, Self>,
        #[pyo3(from_py_with = given::flag_or_none)] copy: Option<bool>,
        fill: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match copy {
            Some(true) => Self::copied(slf, fill.as_ref()),
            Some(false) => slf.get().view(py),
            None => match slf.get().view(py) {
                Err(error)
                    if errors::is(py, &error, "NotZeroCopy")
                        || errors::is(py, &error, "LeaseHeld") && slf.get().table.is_own() =>
                {
                    let array = Self::copied(slf, fill.as_ref())?;
                    let bytes = array.getattr(intern!(py, "nbytes"))?.extract()?;
                    slf.get().table.region().count_copy(bytes);
                    Ok(array)
                }
                result => result,
            },
        }
    }

    /// For `numpy.asarray(column)`: a view where there can be one.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let array = Self::to_numpy(slf, copy, None)?;
        let _inside = shutdown::enter();
        let Some(dtype) = dtype else { return Ok(array) };
        let dtype = PyArrayDescr::new(py, dtype)?;
        if copy == Some(false) && !array.getattr(intern!(py, "dtype"))?.eq(&dtype)? {
            let why = format!("its values are not {dtype}");
            return Err(slf.get().not_zero_copy(py, &why, "leave copy=False out"));
        }
        let options = PyDict::new(py);
        options.set_item("copy", false)?;
        array.call_method(intern!(py, "astype"), (dtype,), Some(&options))
    }

    /// The values as a `pyarrow.ChunkedArray`, without a copy.
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let _inside = shutdown::enter();
        slf.py().import("pyarrow")?.call_method1("chunked_array", (slf,))
    }

    /// The values as a `pandas.Series` of the column's name.
    fn to_pandas<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let _inside = shutdown::enter();
        let series = Self::to_arrow(slf)?.call_method0("to_pandas")?;
        series.call_method1("rename", (slf.get().name(),))
    }

    /// The values as a `polars.Series` of the column's name.
    fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let _inside = shutdown::enter();
        slf.py().import("polars")?.call_method1("Series", (slf.get().name(), Self::to_arrow(slf)?))
    }

    /// The values as a list of Python values; null is None.
    fn to_pylist<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let _inside = shutdown::enter();
        Self::to_arrow(&Self::to_copy(slf)?)?.call_method0("to_pylist")
    }

    /// The only value of a column of one row; null is None.
    ///
    /// Raises `ShapeMismatch` if the column has not exactly one row.
    pub fn item<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let column = Self::to_copy(slf)?;
        match column.get().rows() {
            1 => match column.get().scalar(slf.py())? {
                Some(value) => Ok(value),
                None => Self::to_pylist(&column)?.get_item(0),
            },
            rows => Err(errors::new(
                slf.py(),
                "ShapeMismatch",
                format!("item() needs exactly one value; column {:?} has {rows}", slf.get().name()),
            )),
        }
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        arrow_out::column_stream(py, &self.field, self.arrays(py)?, requested_schema)
    }

    /// For consumers that take one array; several chunks are joined in a copy.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let mut arrays = self.arrays(py)?;
        let array = match arrays.len() {
            0 => new_empty_array(self.field.data_type()),
            1 => arrays.remove(0),
            _ => {
                let parts: Vec<&dyn Array> = arrays.iter().map(|array| array.as_ref()).collect();
                py.detach(|| arrow_select::concat::concat(&parts))
                    .map_err(|error| errors::new(py, "InvalidData", error.to_string()))?
            }
        };
        arrow_out::array(py, &self.field, &array, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        arrow_out::field(py, &self.field)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let column = slf.get();
        let dtype = Self::dtype(slf)?.str()?;
        let schema = Arc::new(Schema::new(vec![column.field.clone()]));
        let mut batches = Vec::new();
        for array in Self::to_copy(slf)?.get().arrays(slf.py())? {
            batches.push(
                RecordBatch::try_new(schema.clone(), vec![array])
                    .map_err(|error| errors::new(slf.py(), "InvalidData", error.to_string()))?,
            );
        }
        let rows = column.rows();
        let title = format!("Column {:?}: {dtype}, {}", column.name(), display::rows(rows));
        Ok(display::text(&title, &schema, &batches, rows))
    }
}

impl Column {
    /// One aggregate of the column with its settings, as a Python scalar.
    pub fn reduce<'py>(
        &self,
        py: Python<'py>,
        function: &str,
        settings: Vec<insitu_query::Expr>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let column = insitu_query::Expr::column(self.name());
        let arguments = std::iter::once(column).chain(settings).collect();
        let aggregate = expr::call(py, function, arguments)?;
        let query = Query(self.table.query().select(vec![aggregate.0]));
        let result = query.collect(py, None, false, false, None)?;
        Table::item(&Bound::new(py, result)?)
    }
}
