//! Handles on their way to another process: where the region is, and there the way to a table that
//! has a name, or a pass for a result that has none; never the data.

use std::path::PathBuf;
use std::sync::Mutex;

use insitu::{Location, Pass, Way, WeakRegion};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::handle::Handle;
use crate::region::Region;
use crate::table::Table;
use crate::{errors, site};

/// Regions that were opened for what was unpickled, so that it shares one handle on each. Locked
/// with the GIL held and never for long, so that a fork finds it unlocked; else it is left alone.
static OPENED: Mutex<Vec<(Home, WeakRegion)>> = Mutex::new(Vec::new());

/// Where a region is.
#[derive(Clone, PartialEq)]
pub struct Home {
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
    fn open(&self, py: Python<'_>) -> insitu::Result<insitu::Region> {
        if let Ok(opened) = OPENED.try_lock()
            && let Some((_, known)) = opened.iter().find(|(home, _)| home == self)
            && let Some(region) = known.upgrade()
        {
            return Ok(region);
        }
        let region = py.detach(|| {
            if let Some(name) = &self.name
                && let Some(region) = insitu::Region::known(name, self.id)?
            {
                return Ok(region);
            }
            self.open_again(false)
        })?;
        if region.id() != self.id {
            return Err(insitu::Error::Stale(
                "what was pickled is gone: its region was removed, and another one has its name"
                    .into(),
            ));
        }
        if let Ok(mut opened) = OPENED.try_lock() {
            opened.retain(|(home, known)| home != self && known.upgrade().is_some());
            opened.push((self.clone(), region.downgrade()));
        }
        Ok(region)
    }

    /// What is there now, by its name or path; an anonymous region if this process has it.
    fn open_again(&self, read_only: bool) -> insitu::Result<insitu::Region> {
        match (&self.name, &self.path) {
            (Some(name), _) => insitu::Region::open(Location::Shm(name.clone()), read_only),
            (None, Some(path)) => insitu::Region::open(Location::File(path.clone()), read_only),
            (None, None) => insitu::Region::anonymous(self.id, read_only)?.ok_or_else(|| {
                insitu::Error::Unsupported(
                    "what lies in an anonymous region goes to processes that have inherited the \
                     region, and this one has not: name the region when you create it, \
                     create(\"...\"), or pass on its descriptor, region.fileno(), and open(fd=...) \
                     it here first"
                        .into(),
                )
            }),
        }
    }
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.name, &self.path) {
            (Some(name), _) => write!(f, "Region {name:?}"),
            (None, Some(path)) => write!(f, "Region in {}", path.display()),
            (None, None) => f.write_str("Anonymous region"),
        }
    }
}

/// What pickle keeps of a handle.
pub enum Sent {
    Table { region: Home, name: String, way: Way },
    Result { region: Home, pass: Pass },
    Region { region: Home, read_only: bool },
}

impl Sent {
    /// The function that receives it, and what that is given.
    pub fn pickled<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let native = py.import("insitu._native")?;
        match self {
            Sent::Table { region: Home { name: region, path, id }, name, way } => {
                let open = native.getattr("_open_table")?;
                let way = (way.slot, way.sequence, way.identity, way.rows);
                (open, (region, path, id, name, way)).into_pyobject(py)
            }
            Sent::Result { region: Home { name, path, id }, pass } => {
                let open = native.getattr("_open_result")?;
                (open, (name, path, id, pass.slot, pass.sequence, pass.number)).into_pyobject(py)
            }
            Sent::Region { region: Home { name, path, id }, read_only } => {
                let open = native.getattr("_open_region")?;
                (open, (name, path, id, read_only)).into_pyobject(py)
            }
        }
    }
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sent::Table { name, .. } => write!(f, "Table {name:?}"),
            Sent::Result { .. } => f.write_str("Anonymous table"),
            Sent::Region { region, .. } => region.fmt(f),
        }
    }
}

/// What pickle keeps of a table.
pub fn send(py: Python<'_>, table: &insitu::Table) -> PyResult<Sent> {
    let region = Home::of(table.region());
    let way = site::detach(py, || table.way()).map_err(|error| errors::raise(py, error))?;
    if let (Some(name), Some(way)) = (table.name(), way) {
        return Ok(Sent::Table { region, name: name.to_owned(), way });
    }
    let pass = site::detach(py, || table.pass()).map_err(|error| errors::raise(py, error))?;
    Ok(Sent::Result { region, pass })
}

/// What pickle keeps of a region.
pub fn send_region(region: &insitu::Region) -> Sent {
    Sent::Region { region: Home::of(region), read_only: region.is_read_only() }
}

/// Unpickles a table's handle, which is `Stale` if its name now means another table, or none, and
/// nobody keeps the one that it meant. An update makes no other table.
#[pyfunction]
pub fn _open_table(
    py: Python<'_>,
    region: Option<String>,
    path: Option<PathBuf>,
    id: u128,
    name: String,
    way: (u32, u64, u64, u64),
) -> Table {
    let region = Home { name: region, path, id };
    let (slot, sequence, identity, rows) = way;
    let way = Way::new(slot, sequence, identity, rows);
    let found = region.open(py).and_then(|region| site::detach(py, || region.follow(&name, way)));
    Table(Handle::received(Sent::Table { region, name, way }, found))
}

/// Unpickles a result without a name, whose handle is `Stale` if these bytes were unpickled before,
/// or nobody keeps it any more.
#[pyfunction]
pub fn _open_result(
    py: Python<'_>,
    region: Option<String>,
    path: Option<PathBuf>,
    id: u128,
    slot: u32,
    sequence: u64,
    number: u32,
) -> Table {
    let region = Home { name: region, path, id };
    let pass = Pass::new(slot, sequence, number);
    let found = region.open(py).and_then(|region| site::detach(py, || region.redeem(pass)));
    Table(Handle::received(Sent::Result { region, pass }, found))
}

/// Unpickles a region: opens it. A region of the same name that was made since will do.
#[pyfunction]
pub fn _open_region(
    py: Python<'_>,
    name: Option<String>,
    path: Option<PathBuf>,
    id: u128,
    read_only: bool,
) -> Region {
    let region = Home { name, path, id };
    let found = py.detach(|| region.open_again(read_only));
    Region(Handle::received(Sent::Region { region, read_only }, found))
}
