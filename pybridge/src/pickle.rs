//! Handles on their way to another process: where the region is, and there the way to a table that
//! has a name, or a pass for a result that has none; never the data.

use std::path::PathBuf;
use std::sync::Mutex;

use insitu::{Location, Pass, Way, WeakRegion};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::region::Region;
use crate::table::Table;
use crate::{errors, module, site};

/// Regions that were opened for what was unpickled, so that it shares one handle on each. Locked
/// with the GIL held and never for long, so that a fork finds it unlocked; else it is left alone.
static OPENED: Mutex<Vec<(Home, WeakRegion)>> = Mutex::new(Vec::new());

/// Where a region is.
#[derive(Clone, PartialEq)]
struct Home {
    name: Option<String>,
    path: Option<PathBuf>,
    id: u128,
}

impl Home {
    fn of(region: &insitu::Region) -> Self {
        let path = region.path().map(ToOwned::to_owned);
        Self { name: region.name().map(ToOwned::to_owned), path, id: region.id() }
    }

    /// The region.
    fn open(&self, py: Python<'_>) -> PyResult<insitu::Region> {
        if let Ok(opened) = OPENED.try_lock()
            && let Some((_, known)) = opened.iter().find(|(home, _)| home == self)
            && let Some(region) = known.upgrade()
        {
            return Ok(region);
        }
        let location = match (&self.name, &self.path) {
            (Some(name), _) => Some(Location::Shm(name.clone())),
            (None, Some(path)) => Some(Location::File(path.clone())),
            (None, None) => None,
        };
        let known = match &self.name {
            Some(name) => py.detach(|| insitu::Region::known(name, self.id)),
            None => Ok(None),
        };
        let region = match (known.map_err(|error| errors::raise(py, error))?, location) {
            (Some(region), _) => region,
            (None, Some(location)) => module::open_at(py, location, false)?.0,
            (None, None) => inherited(py, self.id, false)?.0,
        };
        if region.id() != self.id {
            let gone = "what was pickled is gone: its region was removed, and another one has its \
                        name";
            return Err(errors::new(py, "Stale", gone));
        }
        if let Ok(mut opened) = OPENED.try_lock() {
            opened.retain(|(home, known)| home != self && known.upgrade().is_some());
            opened.push((self.clone(), region.downgrade()));
        }
        Ok(region)
    }
}

/// The anonymous region of that identity, if this process has it.
fn inherited(py: Python<'_>, id: u128, read_only: bool) -> PyResult<Region> {
    let found = py.detach(|| insitu::Region::anonymous(id, read_only));
    found.map_err(|error| errors::raise(py, error))?.map(Region).ok_or_else(|| {
        errors::new(
            py,
            "Unsupported",
            "what lies in an anonymous region goes to processes that have inherited the region, \
             and this one has not: name the region when you create it, create(\"...\"), or pass \
             on its descriptor, region.fileno(), and open(fd=...) it here first",
        )
    })
}

/// What pickle keeps of a table.
pub fn reduce<'py>(py: Python<'py>, table: &insitu::Table) -> PyResult<Bound<'py, PyTuple>> {
    let Home { name, path, id } = Home::of(table.region());
    let native = py.import("insitu._native")?;
    let way = site::detach(py, || table.way()).map_err(|error| errors::raise(py, error))?;
    if let (Some(table), Some(way)) = (table.name(), way) {
        let open = native.getattr("_open_table")?;
        let way = (way.slot, way.sequence, way.identity, way.rows);
        return (open, (name, path, id, table, way)).into_pyobject(py);
    }
    let pass = site::detach(py, || table.pass()).map_err(|error| errors::raise(py, error))?;
    let open = native.getattr("_open_result")?;
    (open, (name, path, id, pass.slot, pass.sequence, pass.number)).into_pyobject(py)
}

/// What pickle keeps of a region.
pub fn reduce_region<'py>(
    py: Python<'py>,
    region: &insitu::Region,
) -> PyResult<Bound<'py, PyTuple>> {
    let Home { name, path, id } = Home::of(region);
    let open = py.import("insitu._native")?.getattr("_open_region")?;
    (open, (name, path, id, region.is_read_only())).into_pyobject(py)
}

/// Unpickles a table's handle; `Stale` if its name now means another table, or none, and nobody
/// keeps the one that it meant. An update makes no other table.
#[pyfunction]
pub fn _open_table(
    py: Python<'_>,
    region: Option<String>,
    path: Option<PathBuf>,
    id: u128,
    name: &str,
    way: (u32, u64, u64, u64),
) -> PyResult<Table> {
    let region = Home { name: region, path, id }.open(py)?;
    let (slot, sequence, identity, rows) = way;
    let way = Way::new(slot, sequence, identity, rows);
    site::detach(py, || region.follow(name, way))
        .map(Table)
        .map_err(|error| errors::raise(py, error))
}

/// Unpickles a result without a name; `Stale` if these bytes were unpickled before, or nobody
/// keeps it any more.
#[pyfunction]
pub fn _open_result(
    py: Python<'_>,
    region: Option<String>,
    path: Option<PathBuf>,
    id: u128,
    slot: u32,
    sequence: u64,
    number: u32,
) -> PyResult<Table> {
    let region = Home { name: region, path, id }.open(py)?;
    site::detach(py, || region.redeem(Pass::new(slot, sequence, number)))
        .map(Table)
        .map_err(|error| errors::raise(py, error))
}

/// Unpickles a region: opens it. A region of the same name that was made since will do.
#[pyfunction]
pub fn _open_region(
    py: Python<'_>,
    name: Option<String>,
    path: Option<PathBuf>,
    id: u128,
    read_only: bool,
) -> PyResult<Region> {
    match (name, path) {
        (Some(name), _) => module::open_at(py, Location::Shm(name), read_only),
        (None, Some(path)) => module::open_at(py, Location::File(path), read_only),
        (None, None) => inherited(py, id, read_only),
    }
}
