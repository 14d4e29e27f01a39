//! Updates of tables, and the block that has one exclusively.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use insitu::UpdateOptions;
use insitu_query::Expr as Tree;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString, PyTuple};

use crate::table::Table;
use crate::{errors, expr, interrupt, shutdown};

/// The new values of an update: from a mapping, and from keyword arguments.
pub fn sets(
    table: &insitu::Table,
    mapping: Option<&Bound<'_, PyAny>>,
    columns: Option<&Bound<'_, PyDict>>,
    py: Python<'_>,
) -> PyResult<Vec<(Arc<str>, Tree)>> {
    let _inside = shutdown::enter();
    let mut sets: Vec<(Arc<str>, Tree)> = Vec::new();
    let mut add = |name: &str, value: &Bound<'_, PyAny>| {
        if let Err(insitu::Error::UnknownColumn { name, nearest }) = table.column_index(name) {
            return Err(unknown(py, &name, nearest.as_deref()));
        }
        if sets.iter().any(|(known, _)| &**known == name) {
            return Err(errors::new(
                py,
                "InvalidArgument",
                format!("the column {name:?} is given two new values"),
            ));
        }
        sets.push((name.into(), expr::operand(value)?));
        Ok(())
    };
    if let Some(mapping) = mapping {
        let Ok(mapping) = mapping.cast::<PyMapping>() else {
            return Err(errors::new(
                py,
                "TypeMismatch",
                "update takes a mapping of column names to new values; write \
                 update({\"name\": value}) or update(name=value)",
            ));
        };
        for item in mapping.items()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            let Ok(name) = name.extract::<&str>() else {
                let what = "the keys of an update are names of columns";
                return Err(errors::new(py, "TypeMismatch", what));
            };
            add(name, &value)?;
        }
    }
    for (name, value) in columns.into_iter().flatten() {
        add(name.extract()?, &value)?;
    }
    Ok(sets)
}

/// The condition of an update.
pub fn condition(value: &Bound<'_, PyAny>) -> PyResult<Tree> {
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_string_lossy();
        let message = format!(
            "where={text:?} is text, not a condition; compare a column, as in \
             where=col({text:?}) > 0, or, if it is a column of booleans, write where=col({text:?})"
        );
        return Err(errors::new(value.py(), "TypeMismatch", message));
    }
    expr::operand(value)
}

fn unknown(py: Python<'_>, name: &str, nearest: Option<&str>) -> PyErr {
    let meant = nearest.map_or(String::new(), |n| format!("; did you mean {n:?}?"));
    let error = errors::new(
        py,
        "UnknownColumn",
        format!(
            "no column named {name:?}{meant}{} an update adds no column; with_columns makes a \
             table that has it",
            if meant.is_empty() { ":" } else { "" }
        ),
    );
    let value = error.value(py);
    // An attribute that cannot be set is a lesser evil than hiding the error behind another.
    let _ = value.setattr("name", name).and_then(|()| value.setattr("nearest", nearest));
    error
}

/// A time in seconds; none to leave it to the engine.
pub fn seconds(py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Duration>> {
    match timeout {
        None => Ok(None),
        // Longer than a clock can say is for ever.
        Some(t) if t >= 0.0 => {
            Ok(Some(Duration::try_from_secs_f64(t).unwrap_or(Duration::from_secs(1 << 40))))
        }
        Some(t) => Err(errors::new(
            py,
            "InvalidArgument",
            format!("timeout={t} is no time to wait; give seconds, or None"),
        )),
    }
}

/// A table that a block has exclusively, from `Table.exclusive`.
///
/// A context manager, which gives the table: the lease begins at entry and ends at exit.
#[pyclass(frozen, module = "insitu", name = "Exclusive")]
pub struct Exclusive {
    table: insitu::Table,
    timeout: Option<Duration>,
    held: Mutex<Option<insitu::Exclusive>>,
}

impl Exclusive {
    pub fn new(table: insitu::Table, timeout: Option<Duration>) -> Self {
        Self { table, timeout, held: Mutex::new(None) }
    }

    fn held(&self) -> MutexGuard<'_, Option<insitu::Exclusive>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Exclusive {
    fn __enter__(&self, py: Python<'_>) -> PyResult<Table> {
        let lease = interrupt::detached(py, None, |interrupt| {
            let (timeout, interrupt) = (self.timeout, Some(interrupt));
            self.table.exclusive(UpdateOptions { timeout, interrupt, ..UpdateOptions::default() })
        })?;
        // A second entry is refused by the lease that the first one has.
        *self.held() = Some(lease);
        Ok(self.table.clone().into())
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        let held = self.held().take();
        py.detach(|| drop(held));
    }

    fn __repr__(&self) -> String {
        let state = if self.held().is_some() { "held" } else { "not held" };
        format!("Exclusive lease on table {:?}, {state}", self.table.name().unwrap_or_default())
    }
}
