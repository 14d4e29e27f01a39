//! Handles on their way to another process: the way to the region, the table's name and identity,
//! never the data.

use std::path::PathBuf;

use insitu::Location;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::region::Region;
use crate::table::Table;
use crate::{errors, module, site};

/// What pickle keeps of a table.
pub fn reduce<'py>(py: Python<'py>, table: &insitu::Table) -> PyResult<Bound<'py, PyTuple>> {
    let identity = table.identity().map_err(|error| errors::raise(py, error))?;
    let (Some(name), Some(identity)) = (table.name(), identity) else {
        return Err(errors::new(
            py,
            "Unsupported",
            "an anonymous table cannot be pickled; give it a name: region.put(name, table)",
        ));
    };
    let id = table.region().id();
    let (region, path) = way(py, table.region())?;
    let open = py.import("insitu._native")?.getattr("_open_table")?;
    (open, (region, path, id, name, identity, table.num_rows())).into_pyobject(py)
}

/// What pickle keeps of a region.
pub fn reduce_region<'py>(
    py: Python<'py>,
    region: &insitu::Region,
) -> PyResult<Bound<'py, PyTuple>> {
    let (name, path) = way(py, region)?;
    let open = py.import("insitu._native")?.getattr("_open_region")?;
    (open, (name, path, region.is_read_only())).into_pyobject(py)
}

/// The region's name, or its file's path.
fn way(py: Python<'_>, region: &insitu::Region) -> PyResult<(Option<String>, Option<PathBuf>)> {
    match (region.name(), region.path()) {
        (Some(name), _) => Ok((Some(name.to_owned()), None)),
        (None, Some(path)) => Ok((None, Some(path.to_owned()))),
        (None, None) => Err(errors::new(
            py,
            "Unsupported",
            "what lies in an anonymous region cannot be pickled; create the region with a name, or \
             pass on its descriptor, region.fileno(), and open(fd=...) it there",
        )),
    }
}

fn open(
    py: Python<'_>,
    name: Option<String>,
    path: Option<PathBuf>,
    read_only: bool,
) -> PyResult<Region> {
    let location = match (name, path) {
        (Some(name), _) => Location::Shm(name),
        (None, Some(path)) => Location::File(path),
        (None, None) => {
            return Err(errors::new(py, "InvalidArgument", "a pickle without a region"));
        }
    };
    module::open_at(py, location, read_only)
}

/// Unpickles a table's handle; `Stale` if its name now means another table, or none.
#[pyfunction]
pub fn _open_table(
    py: Python<'_>,
    region: Option<String>,
    path: Option<PathBuf>,
    id: u128,
    name: &str,
    identity: u64,
    rows: u64,
) -> PyResult<Table> {
    let region = open(py, region, path, false)?;
    let stale = |what: &str| {
        errors::new(py, "Stale", format!("the pickled table {name:?} is gone: {what}"))
    };
    if region.0.id() != id {
        return Err(stale("its region was removed, and another one has its name"));
    }
    let found = site::detach(py, || {
        let table = region.0.get(name)?;
        Ok((table.identity()?, table))
    });
    match found {
        // An update changes no number of rows; an append does, and handles do not follow it.
        Ok((now, table)) if now == Some(identity) && table.num_rows() == rows => Ok(Table(table)),
        Ok((now, _)) if now == Some(identity) => {
            Err(stale("rows were appended to it; get it by its name"))
        }
        Ok(_) => Err(stale("it was replaced; get the new one by its name")),
        Err(insitu::Error::TableNotFound { .. }) => Err(stale("it was deleted")),
        Err(error) => Err(errors::raise(py, error)),
    }
}

/// Unpickles a region: opens it.
#[pyfunction]
pub fn _open_region(
    py: Python<'_>,
    name: Option<String>,
    path: Option<PathBuf>,
    read_only: bool,
) -> PyResult<Region> {
    open(py, name, path, read_only)
}
