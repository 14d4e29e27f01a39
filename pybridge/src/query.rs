//! Lazy queries: steps over a table, run by `collect` and its shorthands.

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};

use crate::expr::columns;
use crate::interrupt::Watch;
use crate::prepared::Prepared;
use crate::table::Table;
use crate::{arrow_out, errors, given, interrupt, site};

/// A query: steps over a table that run when it is collected.
#[pyclass(frozen, module = "insitu", name = "Query")]
pub struct Query(pub insitu::Query);

/// What `group_by(...)` returns: it waits for its `.agg(...)`.
#[pyclass(frozen, module = "insitu", name = "GroupBy")]
pub struct GroupBy {
    query: insitu::Query,
    keys: Vec<insitu_query::Expr>,
}

/// One direction for all keys, or one for each.
#[derive(FromPyObject)]
pub enum Descending {
    All(bool),
    Each(Vec<bool>),
}

/// One bool, or one for each key.
pub fn descending(value: &Bound<'_, PyAny>) -> PyResult<Descending> {
    value.extract().map_err(|_| {
        let message = "descending is True or False, or a list with one of them for each key";
        errors::new(value.py(), "TypeMismatch", message)
    })
}

#[pymethods]
impl Query {
    /// The rows for which all predicates hold; null does not select.
    #[pyo3(signature = (*predicates))]
    pub fn filter(&self, predicates: &Bound<'_, PyTuple>) -> PyResult<Query> {
        Ok(Query(self.0.filter(columns(predicates, None)?)))
    }

    /// These columns instead of the old ones; reductions give one row.
    #[pyo3(signature = (*exprs, **named))]
    pub fn select(
        &self,
        exprs: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Query> {
        Ok(Query(self.0.select(columns(exprs, named)?)))
    }

    /// These columns beside the old ones; equal names replace.
    #[pyo3(signature = (*exprs, **named))]
    pub fn with_columns(
        &self,
        exprs: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Query> {
        Ok(Query(self.0.with_columns(columns(exprs, named)?)))
    }

    /// Groups of rows with equal keys; `.agg(...)` computes one row for each.
    ///
    /// Null is a key like any other, and NaN equals itself. Groups come in order of first
    /// appearance.
    #[pyo3(signature = (*keys, **named))]
    pub fn group_by(
        &self,
        keys: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<GroupBy> {
        Ok(GroupBy { query: self.0.clone(), keys: columns(keys, named)? })
    }

    /// The rows in the order of the keys; stable.
    ///
    /// `descending` is one bool, or one for each key. NaN is the largest value. Nulls come last,
    /// also when descending, unless `nulls_last=False` (Polars puts them first by default).
    #[pyo3(
        signature = (*keys, descending=Descending::All(false), nulls_last=true),
        text_signature = "($self, *keys, descending=False, nulls_last=True)"
    )]
    pub fn sort(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyTuple>,
        #[pyo3(from_py_with = descending)] descending: Descending,
        #[pyo3(from_py_with = given::flag)] nulls_last: bool,
    ) -> PyResult<Query> {
        let keys = columns(keys, None)?;
        let descending = match descending {
            Descending::All(all) => vec![all; keys.len()],
            Descending::Each(each) if each.len() == keys.len() => each,
            Descending::Each(each) => {
                let (given, keys) = (each.len(), keys.len());
                return Err(errors::new(
                    py,
                    "ShapeMismatch",
                    format!(
                        "descending has {given} values for {keys} keys; give one bool, or one for each key"
                    ),
                ));
            }
        };
        Ok(Query(self.0.sort(keys, descending, nulls_last)))
    }

    /// The first `n` rows.
    pub fn limit(&self, #[pyo3(from_py_with = given::count)] n: u64) -> Query {
        Query(self.0.slice(0, Some(n)))
    }

    /// `n` rows from the `offset`-th on, to the end without `n`; a negative offset counts from
    /// the end.
    #[pyo3(signature = (offset, n=None))]
    pub fn slice(
        &self,
        #[pyo3(from_py_with = given::offset)] offset: i64,
        #[pyo3(from_py_with = given::count_or_none)] n: Option<u64>,
    ) -> Query {
        Query(self.0.slice(offset, n))
    }

    /// Runs the query; the result is a table in the region.
    ///
    /// With a name every process sees it at once; `TableExists` if the name is taken, unless
    /// `replace=True`. Without one the result is anonymous and lives as long as its handles and
    /// views. `checked=True`: integer arithmetic that leaves its type raises `Overflow` instead
    /// of wrapping. `progress`: True for a bar on stderr, if it takes longer than half a second; or
    /// a callable of (rows done, rows to do), called now and then and at the end; what it raises
    /// ends the query. A row counts once for every pass over it.
    #[pyo3(signature = (name=None, *, replace=false, checked=false, progress=None))]
    pub fn collect(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::name_or_none)] name: Option<&str>,
        #[pyo3(from_py_with = given::flag)] replace: bool,
        #[pyo3(from_py_with = given::flag)] checked: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Table> {
        let watch = Watch::of(progress)?;
        let outcome = interrupt::detached(py, watch.as_ref(), |interrupt| {
            let options = insitu::CollectOptions {
                replace,
                checked,
                interrupt: Some(interrupt),
                progress: watch.as_ref().map(|watch| &watch.progress),
            };
            self.0.collect(name, options)
        });
        let told = watch.map_or(Ok(()), |watch| watch.end(py, outcome.is_ok()));
        let table = outcome?;
        told.map(|()| table.into())
    }

    /// The result as a `pyarrow.Table`.
    fn to_arrow<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Table::to_arrow(&self.anonymous(py)?)
    }

    /// The result as a `pandas.DataFrame`.
    #[pyo3(signature = (**options))]
    fn to_pandas<'py>(
        &self,
        py: Python<'py>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Table::to_pandas(&self.anonymous(py)?, options)
    }

    /// The result as a `polars.DataFrame`.
    fn to_polars<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Table::to_polars(&self.anonymous(py)?)
    }

    /// The result as a dict of NumPy arrays; `copy` and `fill` as in `Column.to_numpy`.
    #[pyo3(
        signature = (copy=Some(false), fill=None),
        text_signature = "($self, copy=False, fill=None)"
    )]
    fn to_numpy<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = given::flag_or_none)] copy: Option<bool>,
        fill: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        Table::to_numpy(&self.anonymous(py)?, copy, fill)
    }

    /// The only value of a result of one row and one column; null is None.
    fn item<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Table::item(&self.anonymous(py)?)
    }

    /// The schema of the result, a `pyarrow.Schema`; checks the whole plan.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let schema = self.0.schema().map_err(|error| errors::raise(py, error))?;
        arrow_out::pyarrow_schema(py, &schema)
    }

    /// The names of the result's columns.
    #[getter]
    fn columns(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let schema = self.0.schema().map_err(|error| errors::raise(py, error))?;
        Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
    }

    /// Compiles the query once, to run it often: `prepared.run(x=5)`.
    fn prepare(&self, py: Python<'_>) -> PyResult<Prepared> {
        site::detach(py, || self.0.prepare())
            .map(Prepared)
            .map_err(|error| errors::raise(py, error))
    }

    /// How the query runs: its pipelines and their kernels, level, and bytes per row.
    ///
    /// `analyze=True` runs it once, drops the result, and says of each pipeline, too, how many rows
    /// went in and out, how long it took, and how many bytes per second it read and wrote: those of
    /// the columns it needs, counted once, and of the columns it makes.
    #[pyo3(signature = (*, analyze=false))]
    fn explain(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::flag)] analyze: bool,
    ) -> PyResult<String> {
        if analyze {
            return interrupt::detached(py, None, |interrupt| {
                let interrupt = Some(interrupt);
                self.0.analyze(insitu::RunOptions { interrupt, ..insitu::RunOptions::default() })
            });
        }
        py.detach(|| self.0.explain()).map_err(|error| errors::raise(py, error))
    }

    /// Runs the query, for consumers of Arrow streams.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        self.collect(py, None, false, false, None)?.stream(py, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = self.0.schema().map_err(|error| errors::raise(py, error))?;
        arrow_out::schema(py, &schema)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.explain(py, false) {
            Ok(plan) => format!("Query, not run yet:\n{plan}"),
            Err(error) => format!("Query that cannot run: {}", error.value(py)),
        }
    }
}

impl Query {
    fn anonymous<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Table>> {
        Bound::new(py, self.collect(py, None, false, false, None)?)
    }
}

#[pymethods]
impl GroupBy {
    /// One row for each group: the keys, then these aggregates.
    #[pyo3(signature = (*exprs, **named))]
    fn agg(
        &self,
        exprs: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Query> {
        Ok(Query(self.query.group_by(self.keys.clone(), columns(exprs, named)?)))
    }

    fn __repr__(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        format!("group_by({}), which needs .agg(...)", keys.join(", "))
    }
}
