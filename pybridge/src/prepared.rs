//! Compiled queries: microseconds a call.

use insitu_query::Scalar;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::table::Table;
use crate::{interrupt, literal};

/// A compiled query.
#[pyclass(frozen, module = "insitu", name = "Prepared")]
pub struct Prepared(pub insitu::Prepared);

#[pymethods]
impl Prepared {
    /// Runs the query on its table as it is now, or on `table`, which must have the same columns.
    ///
    /// The other keyword arguments are the values of the query's `param(...)`s: each has one, and
    /// there are no others, else `InvalidArgument`. The result is an anonymous table; drop it before
    /// the next run, and that run writes to the same warm memory.
    #[pyo3(signature = (*, table=None, checked=false, **params))]
    fn run(
        &self,
        py: Python<'_>,
        table: Option<&Bound<'_, Table>>,
        checked: bool,
        params: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Table> {
        let mut values: Vec<(String, Scalar)> = Vec::new();
        for (name, value) in params.into_iter().flatten() {
            values.push((name.extract()?, literal::scalar(&value)?));
        }
        let table = table.map(|table| table.get().here(py)).transpose()?;
        interrupt::detached(py, None, |interrupt| {
            let interrupt = Some(interrupt);
            let options = insitu::RunOptions { checked, interrupt, progress: None };
            self.0.run(table, &values, options)
        })
        .map(Table::from)
    }

    /// How the query runs: its pipelines and their kernels.
    fn explain(&self) -> String {
        self.0.explain()
    }

    fn __repr__(&self) -> String {
        format!("Prepared query:\n{}", self.explain())
    }
}
