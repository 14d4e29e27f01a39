//! Tables: handles of immutable Arrow data in a region, and the starting points of queries.

use arrow_array::RecordBatch;
use insitu::UpdateOptions;
use insitu_query::Scalar;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};

use crate::column::Column;
use crate::handle::Handle;
use crate::query::{self, Descending, GroupBy, Query};
use crate::update::{self, Exclusive};
use crate::writable::Writable;
use crate::{arrow_in, arrow_out, display, errors, given, interrupt, pickle, shutdown, site};

/// A table in a region.
#[pyclass(frozen, module = "insitu", name = "Table")]
pub struct Table(pub Handle<insitu::Table>);

impl From<insitu::Table> for Table {
    fn from(table: insitu::Table) -> Self {
        Self(Handle::Here(table))
    }
}

impl Table {
    /// The table; raises what is the case if it was sent here and cannot be had.
    #[inline]
    pub fn here(&self, py: Python<'_>) -> PyResult<&insitu::Table> {
        self.0.here(py)
    }

    /// The table as an Arrow stream; any number of streams may be open.
    pub fn stream<'py>(
        &self,
        py: Python<'py>,
        requested: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let table = self.here(py)?;
        arrow_out::stream(py, &table.schema(), arrow_out::batches(py, table)?, requested)
    }

    fn start(&self, py: Python<'_>) -> PyResult<Query> {
        Ok(Query(self.here(py)?.query()))
    }
}

/// The number of rows; what does not fit is of no table that this process can address.
fn rows(table: &insitu::Table) -> usize {
    usize::try_from(table.num_rows()).unwrap_or(usize::MAX)
}

/// The first rows, to be shown; a view where there may be one.
fn shown(py: Python<'_>, table: &insitu::Table) -> PyResult<Vec<RecordBatch>> {
    if table.name().is_some() && table.is_own() {
        let first = Query(table.query()).limit(display::SHOWN as u64);
        return arrow_out::batches(py, first.collect(py, None, false, false, None)?.here(py)?);
    }
    arrow_out::batches(py, table)
}

fn title(py: Python<'_>, table: &insitu::Table) -> String {
    let name = match table.name() {
        Some(name) => format!("Table {name:?}"),
        None => "Anonymous table".to_owned(),
    };
    let schema = table.schema();
    let columns = match schema.fields().len() {
        1 => "1 column".to_owned(),
        n => format!("{n} columns"),
    };
    let rows = display::rows(rows(table));
    let bytes = display::bytes(py.detach(|| table.nbytes()));
    let shared =
        if table.name().is_some() { "shared by name" } else { "of this process until it is named" };
    format!("{name}: {rows}, {columns}, {bytes}, {shared}")
}

#[pymethods]
impl Table {
    /// The name in the region; None for an anonymous result.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<Option<&str>> {
        Ok(self.here(py)?.name())
    }

    /// The schema, a `pyarrow.Schema`.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        arrow_out::pyarrow_schema(py, &self.here(py)?.schema())
    }

    /// The names of the columns.
    #[getter]
    fn columns(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let schema = self.here(py)?.schema();
        Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
    }

    /// Rows and columns.
    #[getter]
    fn shape(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        let table = self.here(py)?;
        Ok((rows(table), table.num_columns()))
    }

    /// The number of rows.
    #[getter]
    fn num_rows(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.here(py)?.num_rows())
    }

    /// The bytes of all buffers, without padding.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        let table = self.here(py)?;
        Ok(py.detach(|| table.nbytes()))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(rows(self.here(py)?))
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        self.here(py)?;
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
        Column::of(py, self.here(py)?, name)
    }

    /// Whether there is a column of that name.
    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        let schema = self.here(name.py())?.schema();
        Ok(name.extract::<&str>().is_ok_and(|name| schema.column_with_name(name).is_some()))
    }

    /// The first `n` rows, as a table.
    #[pyo3(signature = (n=5))]
    fn head(&self, py: Python<'_>, #[pyo3(from_py_with = given::count)] n: u64) -> PyResult<Table> {
        self.start(py)?.limit(n).collect(py, None, false, false, None)
    }

    /// The table that the name stands for now.
    fn latest(&self, py: Python<'_>) -> PyResult<Table> {
        let table = self.here(py)?;
        site::detach(py, || table.latest())
            .map(Table::from)
            .map_err(|error| errors::raise(py, error))
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
        let table = self.here(py)?;
        let arrow_in::Source { schema, batches, raised } =
            arrow_in::rows_of(data, &table.schema())?;
        interrupt::detached(py, None, |interrupt| table.append(&schema, batches, interrupt))
            .map(Table::from)
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
    /// Values made of other rows of the columns that change can be written over the old ones if
    /// those are all before, or all behind, and at most 65,536 rows away (`shift(1)`, `diff()`).
    /// Running values (`cum_sum()`) and other shifts are always written beside. A column's first
    /// nulls get a bitmap of their own, beside the values, which are written over; within
    /// `exclusive()`, and where anybody has another handle on the table, the column is swapped.
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
        #[pyo3(from_py_with = given::flag)] in_place: bool,
        #[pyo3(from_py_with = given::flag)] atomic: bool,
        #[pyo3(from_py_with = given::flag)] checked: bool,
        #[pyo3(from_py_with = given::seconds)] timeout: Option<f64>,
        columns: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        let (py, table) = (slf.py(), slf.get().here(slf.py())?);
        let sets = update::sets(table, mapping, columns, py)?;
        let condition = r#where.map(update::condition).transpose()?;
        let timeout = update::seconds(py, timeout)?;
        interrupt::detached(py, None, |interrupt| {
            let interrupt = Some(interrupt);
            let options =
                UpdateOptions { in_place, atomic, checked, timeout, interrupt, what: "update" };
            table.update(sets, condition, options)
        })?;
        Ok(slf)
    }

    /// What `update` would do now, as text: whether the new values are written over the old ones or
    /// beside them and swapped in, and why; in which order the rows; the programs that run.
    ///
    /// Takes the arguments of `update`. Aggregates in them are computed; nothing is changed.
    #[pyo3(
        signature = (mapping=None, /, *, r#where=None, checked=false, timeout=None, **columns),
        text_signature = "($self, mapping=None, /, *, where=None, checked=False, timeout=None, **columns)"
    )]
    fn explain_update(
        &self,
        py: Python<'_>,
        mapping: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = given::flag)] checked: bool,
        #[pyo3(from_py_with = given::seconds)] timeout: Option<f64>,
        columns: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let table = self.here(py)?;
        let sets = update::sets(table, mapping, columns, py)?;
        let condition = r#where.map(update::condition).transpose()?;
        let timeout = update::seconds(py, timeout)?;
        interrupt::detached(py, None, |interrupt| {
            let options = UpdateOptions {
                checked,
                timeout,
                interrupt: Some(interrupt),
                what: "explain_update",
                ..UpdateOptions::default()
            };
            table.explain_update(sets, condition, options)
        })
    }

    /// The table for this thread alone, for several updates: `with t.exclusive() as t: ...`.
    ///
    /// Nobody else reads or changes it until the block ends, in any process; views that exist keep
    /// it from beginning: `LeaseHeld` names who holds them, after waiting for `timeout` seconds
    /// (without it, not at all; for another's update to end, 10 seconds).
    ///
    /// Who begins to read meanwhile, in any process and thread, waits for the end of the block: 10
    /// seconds at most, then `LeaseHeld` with this process and line. So keep the block shorter than
    /// that. Updates wait as long, or as their `timeout` says. An update in the block that has to be
    /// swapped in lets readers in for a moment.
    ///
    /// This thread may query, update and copy (`to_numpy(copy=True)`) in the block, and open
    /// `writable()` in it. Views, which could outlive it, and `append` are `LeaseHeld`. Results
    /// share no memory with the table.
    #[pyo3(signature = (timeout=None))]
    fn exclusive(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::seconds)] timeout: Option<f64>,
    ) -> PyResult<Exclusive> {
        Ok(Exclusive::new(self.here(py)?.clone(), update::seconds(py, timeout)?))
    }

    /// The table's values as NumPy arrays to store into: `with t.writable() as w: w["x"][:9] = 0`.
    ///
    /// Columns of fixed width only, and which rows are null does not change. Nobody else reads or
    /// changes the table meanwhile; views that exist keep the block from beginning: `LeaseHeld`
    /// names who holds them, after waiting for `timeout` seconds (without it, not at all; for
    /// another's update to end, 10 seconds). Who begins to read meanwhile, in any process and thread,
    /// waits for the end of the block: 10 seconds at most, then `LeaseHeld` with this process and
    /// line. This thread itself, which would wait for ever, is told at once.
    ///
    /// Where another table shares the memory, the last flush made it durable, or a process has the
    /// region open read-only, copies of the columns are written, and swapped in at the end: then all
    /// read the old values meanwhile, without waiting, and the block ends what they see of them.
    ///
    /// After an exception what was stored over old values stays, and copies are forgotten. If the
    /// process dies in the block after it has asked for a column, the table is poisoned; of copies
    /// nothing is left, and it is as it was.
    #[pyo3(signature = (timeout=None))]
    fn writable(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::seconds)] timeout: Option<f64>,
    ) -> PyResult<Writable> {
        Ok(Writable::new(self.here(py)?.clone(), update::seconds(py, timeout)?))
    }

    /// Accepts a poisoned table as it is, and returns it: the process that was updating it in place
    /// died on the way, and each row has its old or its new values. Other tables stay as they are.
    /// (The other ways out are to put the table anew, with `replace=True`, and to delete it.)
    fn repair<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, table) = (slf.py(), slf.get().here(slf.py())?);
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
        #[pyo3(from_py_with = given::flag_or_none)] copy: Option<bool>,
        fill: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = slf.py();
        let (table, arrays) = (slf.get().here(py)?, PyDict::new(py));
        for index in 0..table.num_columns() {
            let column = Bound::new(py, Column::at(table, index))?;
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
        let table = slf.get().here(py)?;
        match table.only_value().map_err(|error| errors::raise(py, error))? {
            Some(Scalar::Float(value)) => return value.into_bound_py_any(py),
            Some(Scalar::Int(value)) => return value.into_bound_py_any(py),
            Some(Scalar::UInt(value)) => return value.into_bound_py_any(py),
            Some(Scalar::Bool(value)) => return value.into_bound_py_any(py),
            Some(Scalar::Null) => return Ok(py.None().into_bound(py)),
            _ => {}
        }
        match (rows(table), table.num_columns()) {
            (1, 1) => Column::item(&Bound::new(py, Column::at(table, 0))?),
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
        self.start(predicates.py())?.filter(predicates)
    }

    /// These columns instead of the old ones; reductions give one row.
    #[pyo3(signature = (*exprs, **named))]
    fn select(
        &self,
        exprs: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Query> {
        self.start(exprs.py())?.select(exprs, named)
    }

    /// These columns beside the old ones; equal names replace.
    #[pyo3(signature = (*exprs, **named))]
    fn with_columns(
        &self,
        exprs: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Query> {
        self.start(exprs.py())?.with_columns(exprs, named)
    }

    /// Groups of rows with equal keys; `.agg(...)` computes one row for each.
    #[pyo3(signature = (*keys, **named))]
    fn group_by(
        &self,
        keys: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<GroupBy> {
        self.start(keys.py())?.group_by(keys, named)
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
        #[pyo3(from_py_with = query::descending)] descending: Descending,
        #[pyo3(from_py_with = given::flag)] nulls_last: bool,
    ) -> PyResult<Query> {
        self.start(py)?.sort(py, keys, descending, nulls_last)
    }

    /// The first `n` rows, as a query.
    fn limit(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::count)] n: u64,
    ) -> PyResult<Query> {
        Ok(self.start(py)?.limit(n))
    }

    /// `n` rows from the `offset`-th on, to the end without `n`; a negative offset counts from
    /// the end.
    #[pyo3(signature = (offset, n=None))]
    fn slice(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::offset)] offset: i64,
        #[pyo3(from_py_with = given::count_or_none)] n: Option<u64>,
    ) -> PyResult<Query> {
        Ok(self.start(py)?.slice(offset, n))
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
    ///
    /// Unpickling does not raise if the table, or its region, is gone, or cannot be opened: using the
    /// handle does, in whatever way (`Stale`, `RegionNotFound`, `Unsupported`, ...). Pickled again, it
    /// is what it was.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match &self.0 {
            Handle::Here(table) => pickle::send(py, table)?.pickled(py),
            Handle::Lost(lost) => lost.sent.pickled(py),
        }
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
        arrow_out::schema(py, &self.here(py)?.schema())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let table = match &self.0 {
            Handle::Here(table) => table,
            Handle::Lost(lost) => return Ok(lost.to_string()),
        };
        match shown(py, table) {
            Ok(batches) => {
                Ok(display::text(&title(py, table), &table.schema(), &batches, rows(table)))
            }
            Err(error) if errors::is(py, &error, "Error") => {
                Ok(format!("{}\n  cannot be read: {}", title(py, table), error.value(py)))
            }
            // Ctrl-C, while somebody who has it exclusively is waited for.
            Err(error) => Err(error),
        }
    }

    /// For notebooks.
    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let table = match &self.0 {
            Handle::Here(table) => table,
            Handle::Lost(lost) => return Ok(display::html_of(&lost.to_string())),
        };
        let batches = shown(py, table)?;
        Ok(display::html(&title(py, table), &table.schema(), &batches, rows(table)))
    }
}
