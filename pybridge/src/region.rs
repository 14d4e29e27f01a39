//! Regions: shared memory that holds tables by name.

use std::ffi::CString;

use insitu::PutOptions;
use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::builder::Builder;
use crate::handle::Handle;
use crate::table::Table;
use crate::{arrow_in, display, errors, given, interrupt, module, pickle, shutdown, site, update};

/// A region: shared memory that holds tables by name.
///
/// A context manager: leaving the block closes it. The region itself, and the tables in it, live
/// until `remove`.
#[pyclass(frozen, module = "insitu", name = "Region")]
pub struct Region(pub Handle<insitu::Region>);

impl From<insitu::Region> for Region {
    fn from(region: insitu::Region) -> Self {
        Self(Handle::Here(region))
    }
}

impl Region {
    /// The region; raises what is the case if it was sent here and cannot be had.
    fn here(&self, py: Python<'_>) -> PyResult<&insitu::Region> {
        self.0.here(py)
    }

    fn put_data(
        &self,
        name: &str,
        data: &Bound<'_, PyAny>,
        replace: bool,
    ) -> PyResult<insitu::Table> {
        let py = data.py();
        let region = self.here(py)?;
        // Our own tables and results share their buffers, if they lie in this region.
        if let Some(table) = arrow_in::ours(data)? {
            return interrupt::detached(py, None, |interrupt| {
                let options = PutOptions { replace, interrupt: Some(interrupt) };
                if region.is_same(table.region()) {
                    return region.put_table_with(name, &table, options);
                }
                let batches = table.to_batches_with(interrupt)?.into_iter().map(Ok);
                region.put_with(name, table.schema(), batches, options)
            });
        }
        let arrow_in::Source { schema, batches, raised } = arrow_in::source(data)?;
        interrupt::detached(py, None, |interrupt| {
            let options = PutOptions { replace, interrupt: Some(interrupt) };
            region.put_with(name, schema, batches, options)
        })
        .map_err(|error| raised.take().unwrap_or(error))
    }
}

#[pymethods]
impl Region {
    /// Writes a table and returns its handle; other processes see it at once.
    ///
    /// `data`: anything with `__arrow_c_stream__` or `__arrow_c_array__` (pyarrow, Polars,
    /// DuckDB, ...), pandas, or a dict of one-dimensional arrays of equal length. It is copied
    /// once, and checked; a table of this region shares its buffers instead. From pandas, missing
    /// values become null and a RangeIndex is dropped; NumPy's NaN stays NaN, NaT becomes null.
    ///
    /// Raises `TableExists` if the name is taken, unless `replace=True`; `RegionFull`,
    /// `InvalidData`, `ShapeMismatch`, `TypeMismatch`.
    #[pyo3(signature = (name, data, *, replace=false))]
    fn put(
        &self,
        #[pyo3(from_py_with = given::name)] name: &str,
        data: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = given::flag)] replace: bool,
    ) -> PyResult<Table> {
        self.put_data(name, data, replace).map(Table::from)
    }

    /// Begins a table whose memory comes first: NumPy views of it are filled, or batches appended,
    /// and it is published when the block ends; an exception discards it.
    ///
    /// `schema`: a `pyarrow.Schema`, or a dict of names and types. With `rows`, columns of fixed
    /// width are filled in place (`b["x"][:] = ...`) and others assigned (`b["s"] = values`);
    /// what is not stored is whatever the memory held, or zero with `zero=True`. Without `rows`,
    /// `b.append(data)` takes batches of any number.
    ///
    /// Raises `TableExists` if the name is taken, unless `replace=True`: here, and once more when
    /// it is published.
    #[pyo3(signature = (name, schema, rows=None, *, replace=false, zero=false))]
    fn build(
        &self,
        #[pyo3(from_py_with = given::name)] name: &str,
        schema: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = given::count_or_none)] rows: Option<u64>,
        #[pyo3(from_py_with = given::flag)] replace: bool,
        #[pyo3(from_py_with = given::flag)] zero: bool,
    ) -> PyResult<Builder> {
        let options = insitu::BuildOptions { rows, replace, zero };
        Builder::begin(self.here(schema.py())?, name, schema, options)
    }

    /// The table of that name; `TableNotFound`, a `KeyError`, names the nearest.
    fn __getitem__(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::name)] name: &str,
    ) -> PyResult<Table> {
        let region = self.here(py)?;
        site::detach(py, || region.get(name))
            .map(Table::from)
            .map_err(|error| errors::raise(py, error))
    }

    /// Writes a table, replacing the one of that name.
    fn __setitem__(
        &self,
        #[pyo3(from_py_with = given::name)] name: &str,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.put_data(name, data, true).map(drop)
    }

    /// Removes the name. Handles and views of the table keep it until they are gone.
    fn __delitem__(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::name)] name: &str,
    ) -> PyResult<()> {
        let region = self.here(py)?;
        py.detach(|| region.delete(name)).map_err(|error| errors::raise(py, error))
    }

    /// Waits until there is a table of that name and returns it, or, with `newer_than`, until there
    /// is a newer one than that handle has seen last: one that was put in its place, appended to,
    /// or updated. Nothing is polled; Ctrl-C interrupts.
    ///
    /// Raises `Timeout` when that takes longer than `timeout` seconds.
    #[pyo3(signature = (name, newer_than=None, timeout=None))]
    fn wait(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::name)] name: &str,
        newer_than: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = given::seconds)] timeout: Option<f64>,
    ) -> PyResult<Table> {
        let timeout = update::seconds(py, timeout)?;
        let region = self.here(py)?;
        let newer_than = newer_than.map(|seen| match seen.cast::<Table>() {
            Ok(table) => table.get().here(py).cloned(),
            Err(_) => {
                let advice = "newer_than is the handle that was seen last, an insitu.Table";
                Err(errors::new(py, "TypeMismatch", advice))
            }
        });
        let newer_than = newer_than.transpose()?;
        interrupt::detached(py, None, |interrupt| {
            region.wait(name, newer_than.as_ref(), timeout, interrupt)
        })
        .map(Table::from)
    }

    fn __contains__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        let region = self.here(py)?;
        match name.extract::<&str>() {
            Ok(name) => {
                py.detach(|| region.contains(name)).map_err(|error| errors::raise(py, error))
            }
            Err(_) => Ok(false),
        }
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.names(py).map(|names| names.len())
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyList::new(py, self.names(py)?)?.call_method0("__iter__")
    }

    /// The names of the tables, sorted.
    fn names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let region = self.here(py)?;
        let mut names = py.detach(|| region.names()).map_err(|error| errors::raise(py, error))?;
        names.sort_unstable();
        Ok(names)
    }

    /// The region's name; None for a file or anonymous memory.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<Option<&str>> {
        Ok(self.here(py)?.name())
    }

    /// The file's path; None for other regions.
    #[getter]
    fn path(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.here(py)?.path().map(|path| path.display().to_string()))
    }

    /// The most bytes that the region may hold.
    #[getter]
    fn capacity(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.here(py)?.capacity())
    }

    /// Whether the region was opened read-only.
    #[getter]
    fn read_only(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.here(py)?.is_read_only())
    }

    /// Whether `close()` was called.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.here(py)?.is_closed())
    }

    /// The descriptor of an anonymous region, to be inherited or sent to another process.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.here(py)?.fd().ok_or_else(|| {
            let advice = "only an anonymous region has a descriptor to pass on; others are opened by name or path";
            errors::new(py, "Unsupported", advice)
        })
    }

    /// Reclaims what dead processes left and what nobody holds any more; returns the bytes freed.
    fn gc(&self, py: Python<'_>) -> PyResult<u64> {
        let region = self.here(py)?;
        py.detach(|| region.gc()).map_err(|error| errors::raise(py, error))
    }

    /// Gives free memory back to the operating system; returns the bytes.
    fn trim(&self, py: Python<'_>) -> PyResult<u64> {
        let region = self.here(py)?;
        py.detach(|| region.trim()).map_err(|error| errors::raise(py, error))
    }

    /// What the region holds, as a dict; sizes are in bytes.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let region = self.here(py)?;
        let stats = py.detach(|| region.stats()).map_err(|error| errors::raise(py, error))?;
        module::stats(py, &stats)
    }

    /// Checks every structure of the region; never raises on damage, but reports it.
    fn verify(&self, py: Python<'_>) -> PyResult<Report> {
        let region = self.here(py)?;
        let report = py.detach(|| region.verify());
        let insitu::Report { problems, tables, extents, poisoned, .. } = report;
        Ok(Report { problems, tables, extents, poisoned })
    }

    /// Who holds which table, and what is being built, as a list of dicts: pid, table, sequence,
    /// current, kind ("pin", "lease", "update", "exclusive", "ticket" or "build"), since (seconds
    /// since the epoch, or None), what (the line of Python, and what for), bytes (the table's memory,
    /// shared or not). Of what a process is building, the first eight are there.
    fn leases<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let region = self.here(py)?;
        let records = py.detach(|| region.leases()).map_err(|error| errors::raise(py, error))?;
        module::leases(py, &records)
    }

    /// Makes a file durable: after a loss of power it opens as the last flush that returned left
    /// it, or a later one. Elsewhere there is nothing to do. Nothing is durable before it; `close`
    /// does not flush.
    ///
    /// It waits up to ten seconds until no table is being updated in place (`LeaseHeld`). Of a
    /// poisoned table, what an earlier flush made durable stays so, and a `RuntimeWarning` says it.
    /// `OSError` if the disk fails; then no later flush of this file succeeds either.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let region = self.here(py)?;
        let flushed = interrupt::detached(py, None, |interrupt| region.flush(Some(interrupt)))?;
        if flushed.left_out.is_empty() {
            return Ok(());
        }
        let text = format!(
            "not flushed, since an update of them was interrupted: {}; drop them, or accept them \
             with repair()",
            flushed.left_out.join(", ")
        );
        let _inside = shutdown::enter();
        let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)
    }

    /// Closes this handle and the handles of its tables, which raise `Stale` from then on; views
    /// stay valid. Closing again does nothing.
    fn close(&self, py: Python<'_>) {
        if let Handle::Here(region) = &self.0 {
            py.detach(|| region.close());
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().here(slf.py())?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    /// Pickles the way to the region, to be opened by name or path elsewhere. If it cannot be opened
    /// there, unpickling does not raise, but using it does.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match &self.0 {
            Handle::Here(region) => pickle::send_region(region).pickled(py),
            Handle::Lost(lost) => lost.sent.pickled(py),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let region = match &self.0 {
            Handle::Here(region) => region,
            Handle::Lost(lost) => return lost.to_string(),
        };
        let place = match (region.name(), region.path()) {
            (Some(name), _) => format!("Region {name:?}"),
            (None, Some(path)) => format!("Region in {}", path.display()),
            (None, None) => "Anonymous region".to_owned(),
        };
        match py.detach(|| region.stats()) {
            Ok(stats) => {
                let tables = if stats.tables == 1 { "table" } else { "tables" };
                format!(
                    "{place}: {} {tables}, {} of {} used",
                    stats.tables,
                    display::bytes(stats.used),
                    display::bytes(stats.capacity)
                )
            }
            Err(error) => format!("{place}: {error}"),
        }
    }
}

/// What `Region.verify()` found.
#[pyclass(frozen, module = "insitu", name = "Report")]
pub struct Report {
    /// One sentence for each problem; empty when all is well.
    #[pyo3(get)]
    problems: Vec<String>,
    /// How many tables were checked.
    #[pyo3(get)]
    tables: u64,
    /// How many extents were checked.
    #[pyo3(get)]
    extents: u64,
    /// One sentence for each table whose process died while it changed it in place. The region is
    /// none the worse for it.
    #[pyo3(get)]
    poisoned: Vec<String>,
}

#[pymethods]
impl Report {
    /// Whether nothing wrong was found.
    #[getter]
    fn ok(&self) -> bool {
        self.problems.is_empty()
    }

    fn __repr__(&self) -> String {
        let checked = format!("{} tables, {} extents", self.tables, self.extents);
        let found = match self.problems.len() {
            0 => "ok".to_owned(),
            n => format!("{n} problems"),
        };
        let lines = self.problems.iter().chain(&self.poisoned);
        let lines: String = lines.map(|line| format!("\n  {line}")).collect();
        format!("Report: {found} ({checked}){lines}")
    }
}
