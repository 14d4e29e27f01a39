//! Tables: handles of immutable Arrow data in a region, and the starting points of queries.

use arrow::array::RecordBatch;
use insitu::UpdateOptions;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};

use crate::column::Column;
use crate::query::{Descending, GroupBy, Query};
use crate::update::{self, Exclusive};
use crate::writable::Writable;
use crate::{arrow_in, arrow_out, display, errors, expr, interrupt, pickle, shutdown, site};

/// A table in a region.
#[pyclass(frozen, module = "insitu", name = "Table")]
pub struct Table(pub insitu::Table);

impl Table {
    /// The table as an Arrow stream; any number of streams may be open.
    pub fn stream<'py>(
        &self,
        py: Python<'py>,
        requested: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        arrow_out::stream(py, &self.0.schema(), arrow_out::batches(py, &self.0)?, requested)
    }

    fn start(&self) -> Query {
        Query(self.0.query())
    }

    /// The number of rows; what does not fit is of no table that this process can address.
    fn rows(&self) -> usize {
        usize::try_from(self.0.num_rows()).unwrap_or(usize::MAX)
    }

    /// The first rows, to be shown; a view where there may be one.
    fn shown(&self, py: Python<'_>) -> PyResult<Vec<RecordBatch>> {
        if self.0.name().is_some() && self.0.is_own() {
            let first = self.head(py, display::SHOWN as u64)?;
            return arrow_out::batches(py, &first.0);
        }
        arrow_out::batches(py, &self.0)
    }

    fn title(&self, py: Python<'_>) -> String {
        let name = match self.0.name() {
            Some(name) => format!("Table {name:?}"),
            None => "Anonymous table".to_owned(),
        };
        let schema = self.0.schema();
        let columns = match schema.fields().len() {
            1 => "1 column".to_owned(),
            n => format!("{n} columns"),
        };
        let rows = display::rows(self.rows());
        let bytes = display::bytes(self.nbytes(py));
        let shared = if self.0.name().is_some() {
            "shared by name"
        } else {
            "of this process until it is named"
        };
        format!("{name}: {rows}, {columns}, {bytes}, {shared}")
    }
}

#[pymethods]
impl Table {
    /// The name in the region; None for an anonymous result.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// The schema, a `pyarrow.Schema`.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        arrow_out::pyarrow_schema(py, &self.0.schema())
    }

    /// The names of the columns.
    #[getter]
    fn columns(&self) -> Vec<String> {
        self.0.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Rows and columns.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.rows(), self.0.schema().fields().len())
    }

    /// The number of rows.
    #[getter]
    fn num_rows(&self) -> u64 {
        self.0.num_rows()
    }

    /// The bytes of all buffers, without padding.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.0.nbytes())
    }

    fn __len__(&self) -> usize {
        self.rows()
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        Err(errors::new(
            py,
            "TypeMismatch",
            "a table is neither true nor false; ask len(table) == 0 whether it is empty",
        ))
    }

    /// A column by its name; `UnknownColumn` suggests the nearest one.
    fn __getitem__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Column> {
        let Ok(name) = name.extract::<&str>() else {
            return Err(errors::new(
                py,
                "TypeMismatch",
                "a table is indexed by a column's name; rows are taken with head(), slice() and filter()",
            ));
        };
        Column::of(py, &self.0, name)
    }

    /// Whether there is a column of that name.
    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<&str>().is_ok_and(|name| self.0.schema().column_with_name(name).is_some())
    }

    /// The first `n` rows, as a table.
    #[pyo3(signature = (n=5))]
    fn head(&self, py: Python<'_>, n: u64) -> PyResult<Table> {
        self.start().limit(n).collect(py, None, false, false, None)
    }

    /// The table that the name stands for now.
    fn latest(&self, py: Python<'_>) -> PyResult<Table> {
        site::detach(py, || self.0.latest()).map(Table).map_err(|error| errors::raise(py, error))
    }

    /// Appends rows to the table of this name, and returns its next revision, which shares the old
    /// buffers. This handle, and all others, stay on the rows that they have until `latest()`;
    /// appends from several threads and processes all land.
    ///
    /// `data`: anything that `Region.put` takes, with columns of the same names and types. Raises
    /// `SchemaMismatch`, `InvalidData`, `RegionFull`, and `Stale` if the name stands for another
    /// table by now.
    fn append(&self, data: &Bound<'_, PyAny>) -> PyResult<Table> {
        let py = data.py();
        let arrow_in::Source { schema, batches, raised } =
            arrow_in::rows_of(data, &self.0.schema())?;
        interrupt::detached(py, None, |interrupt| self.0.append(&schema, batches, interrupt))
            .map(Table)
            .map_err(|error| raised.take().unwrap_or(error))
    }

    /// Gives columns new values, in all rows or in those for which `where` holds (null does not
    /// choose). Returns the table.
    ///
    /// The columns come as a mapping, as keyword arguments, or both; scalars are literals. Every
    /// right-hand side reads the old values, of all columns and all rows. No column is added and
    /// none changes its type: `col("n") * 1.5` for an integer column is a `TypeMismatch`; cast it.
    /// A row that fails (`CastFailed`, `Overflow` with `checked=True`) is found before any row is
    /// changed, and counts only if it is chosen.
    ///
    /// The values are written over the old ones where nobody holds a view of the table and nothing
    /// shares its memory; else the new columns are written beside the old ones and swapped in. It
    /// looks the same from outside: handles and prepared queries, in every process, see the new
    /// content at their next use, views keep the bytes they saw. `in_place=True`: over the old
    /// values or not at all; raises `LeaseHeld` (who reads it, after waiting for `timeout` seconds)
    /// or `Unsupported` (what else is in the way). `atomic=True`: always swapped in, so that Ctrl-C
    /// or the death of this process leave the old table; in place, Ctrl-C is heeded until the first
    /// row is written, and death leaves the table `Poisoned`: see `repair()`.
    ///
    /// Updates of one table come one after the other; another one is waited for, 10 seconds unless
    /// `timeout` says otherwise. Raises `Stale` if the table was replaced or deleted.
    #[pyo3(
        signature = (mapping=None, /, *, r#where=None, in_place=false, atomic=false, checked=false, timeout=None, **columns),
        text_signature = "($self, mapping=None, /, *, where=None, in_place=False, atomic=False, checked=False, timeout=None, **columns)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn update<'py>(
        slf: Bound<'py, Self>,
        mapping: Option<&Bound<'py, PyAny>>,
        r#where: Option<&Bound<'py, PyAny>>,
        in_place: bool,
        atomic: bool,
        checked: bool,
        timeout: Option<f64>,
        columns: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        let (py, table) = (slf.py(), &slf.get().0);
        let sets = update::sets(table, mapping, columns, py)?;
        let condition = r#where.map(expr::operand).transpose()?;
        let timeout = update::seconds(py, timeout)?;
        interrupt::detached(py, None, |interrupt| {
            let interrupt = Some(interrupt);
            let options =
                UpdateOptions { in_place, atomic, checked, timeout, interrupt, what: "update" };
            table.update(sets, condition, options)
        })?;
        Ok(slf)
    }

    /// The table for this thread alone, for several updates: `with t.exclusive() as t: ...`.
    ///
    /// Nobody else reads or changes it until the block ends, in any process; views that exist keep
    /// it from beginning: `LeaseHeld` names who holds them, after waiting for `timeout` seconds.
    /// New readers wait for the end of the block. An update in it that has to be swapped in lets
    /// them in for a moment.
    ///
    /// This thread may query, update and copy (`to_numpy(copy=True)`) in the block, and open
    /// `writable()` in it. Views, which could outlive it, and `append` are `LeaseHeld`. Results
    /// share no memory with the table.
    #[pyo3(signature = (timeout=None))]
    fn exclusive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Exclusive> {
        Ok(Exclusive::new(self.0.clone(), update::seconds(py, timeout)?))
    }

    /// The table's values as NumPy arrays to store into: `with t.writable() as w: w["x"][:9] = 0`.
    ///
    /// Columns of fixed width only, and which rows are null does not change. Nobody else reads or
    /// changes the table meanwhile; views that exist keep the block from beginning: `LeaseHeld`
    /// names who holds them, after waiting for `timeout` seconds. Where another table shares the
    /// memory, the last flush made it durable, or a process has the region open read-only, copies
    /// of the columns are written, and swapped in at the end.
    ///
    /// After an exception what was stored over old values stays, and copies are forgotten. If the
    /// process dies in the block, the table is poisoned.
    #[pyo3(signature = (timeout=None))]
    fn writable(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Writable> {
        Ok(Writable::new(self.0.clone(), update::seconds(py, timeout)?))
    }

    /// Accepts a poisoned table as it is, and returns it: the process that was updating it in place
    /// died on the way, and each row has its old or its new values. Other tables stay as they are.
    fn repair<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, table) = (slf.py(), &slf.get().0);
        py.detach(|| table.repair()).map_err(|error| errors::raise(py, error))?;
        Ok(slf)
    }

    /// The table as a `pyarrow.Table`, without a copy.
    pub fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        arrow_out::pyarrow_table(slf.as_any())
    }

    /// The table as a `pandas.DataFrame`; the options are those of `pyarrow.Table.to_pandas`.
    #[pyo3(signature = (**options))]
    pub fn to_pandas<'py>(
        slf: &Bound<'py, Self>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _inside = shutdown::enter();
        Self::to_arrow(slf)?.call_method("to_pandas", (), options)
    }

    /// The table as a `polars.DataFrame`.
    pub fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let _inside = shutdown::enter();
        slf.py().import("polars")?.call_method1("from_arrow", (Self::to_arrow(slf)?,))
    }

    /// The columns as a dict of NumPy arrays; `copy` and `fill` as in `Column.to_numpy`.
    #[pyo3(
        signature = (copy=Some(false), fill=None),
        text_signature = "($self, copy=False, fill=None)"
    )]
    pub fn to_numpy<'py>(
        slf: &Bound<'py, Self>,
        copy: Option<bool>,
        fill: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = slf.py();
        let arrays = PyDict::new(py);
        for index in 0..slf.get().0.schema().fields().len() {
            let column = Bound::new(py, Column::at(&slf.get().0, index))?;
            let name = column.get().name().to_owned();
            arrays.set_item(name, Column::to_numpy(&column, copy, fill.clone())?)?;
        }
        Ok(arrays)
    }

    /// The only value of a table of one row and one column; null is None.
    ///
    /// Raises `ShapeMismatch` for any other shape.
    pub fn item<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match slf.get().shape() {
            (1, 1) => Column::item(&Bound::new(py, Column::at(&slf.get().0, 0))?),
            (rows, columns) => Err(errors::new(
                py,
                "ShapeMismatch",
                format!(
                    "item() needs a table of 1 row and 1 column; this one has {rows} and {columns}"
                ),
            )),
        }
    }

    /// The rows for which all predicates hold; null does not select.
    #[pyo3(signature = (*predicates))]
    fn filter(&self, predicates: &Bound<'_, PyTuple>) -> PyResult<Query> {
        self.start().filter(predicates)
    }

    /// These columns instead of the old ones; reductions give one row.
    #[pyo3(signature = (*exprs, **named))]
    fn select(
        &self,
        exprs: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Query> {
        self.start().select(exprs, named)
    }

    /// These columns beside the old ones; equal names replace.
    #[pyo3(signature = (*exprs, **named))]
    fn with_columns(
        &self,
        exprs: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Query> {
        self.start().with_columns(exprs, named)
    }

    /// Groups of rows with equal keys; `.agg(...)` computes one row for each.
    #[pyo3(signature = (*keys, **named))]
    fn group_by(
        &self,
        keys: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<GroupBy> {
        self.start().group_by(keys, named)
    }

    /// The rows in the order of the keys; see `Query.sort`.
    #[pyo3(
        signature = (*keys, descending=Descending::All(false), nulls_last=true),
        text_signature = "($self, *keys, descending=False, nulls_last=True)"
    )]
    fn sort(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyTuple>,
        descending: Descending,
        nulls_last: bool,
    ) -> PyResult<Query> {
        self.start().sort(py, keys, descending, nulls_last)
    }

    /// The first `n` rows, as a query.
    fn limit(&self, n: u64) -> Query {
        self.start().limit(n)
    }

    /// `n` rows from the `offset`-th on, to the end without `n`; a negative offset counts from
    /// the end.
    #[pyo3(signature = (offset, n=None))]
    fn slice(&self, offset: i64, n: Option<u64>) -> Query {
        self.start().slice(offset, n)
    }

    /// A handle's copy is the handle.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// A handle's copy is the handle: the data is not the process's own.
    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    /// Pickles the handle, never the data: unpickling opens the region and finds the table there.
    /// What was pickled of a result without a name can be unpickled once, by whoever comes first;
    /// pickle it once for each receiver. It stays until then, also for a minute after this process
    /// has ended.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        pickle::reduce(py, &self.0)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        self.stream(py, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        arrow_out::schema(py, &self.0.schema())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.shown(py) {
            Ok(batches) => display::text(&self.title(py), &self.0.schema(), &batches, self.rows()),
            Err(error) => format!("{}\n  cannot be read: {}", self.title(py), error.value(py)),
        }
    }

    /// For notebooks.
    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let batches = self.shown(py)?;
        Ok(display::html(&self.title(py), &self.0.schema(), &batches, self.rows()))
    }
}
