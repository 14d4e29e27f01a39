//! Compiled queries: microseconds a call.

use insitu_query::Scalar;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::table::Table;
use crate::{errors, given, interrupt, literal};

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
        let values = values(params)?;
        let table = table.map(|table| table.get().here(py)).transpose()?;
        interrupt::detached(py, None, |interrupt| {
            let interrupt = Some(interrupt);
            let options = insitu::RunOptions { checked, interrupt, progress: None };
            self.0.run(table, &values, options)
        })
        .map(Table::from)
    }

    /// How the query runs; `analyze=True` runs it once, with the values of its parameters, as
    /// `Query.explain` does.
    #[pyo3(signature = (*, analyze=false, **params))]
    fn explain(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = given::flag)] analyze: bool,
        params: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let values = values(params)?;
        if analyze {
            return interrupt::detached(py, None, |interrupt| {
                let interrupt = Some(interrupt);
                let options = insitu::RunOptions { interrupt, ..insitu::RunOptions::default() };
                self.0.analyze(&values, options)
            });
        }
        if let Some((name, _)) = values.first() {
            let message = format!(
                "explain takes the value of the parameter {name:?} to run the query, and does so \
                 with analyze=True only"
            );
            return Err(errors::new(py, "InvalidArgument", message));
        }
        Ok(self.0.explain())
    }

    fn __repr__(&self) -> String {
        format!("Prepared query:\n{}", self.0.explain())
    }
}

/// Values of parameters.
fn values(params: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<(String, Scalar)>> {
    let mut values = Vec::new();
    for (name, value) in params.into_iter().flatten() {
        values.push((name.extract()?, literal::scalar(&value)?));
    }
    Ok(values)
}
