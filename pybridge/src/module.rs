//! The native module: its functions and classes.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use insitu::{CreateOptions, IfExists, Location};
use insitu_query::FunctionKind;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString, PyTuple};

use crate::builder::Builder;
use crate::column::Column;
use crate::evaluate;
use crate::expr::{self, Expr, Then, When};
use crate::prepared::Prepared;
use crate::query::{GroupBy, Query};
use crate::region::{Region, Report};
use crate::table::Table;
use crate::update::Exclusive;
use crate::writable::Writable;
use crate::{errors, functions, given, look, pickle, shutdown, site};

/// Bytes, or a size such as "8GiB".
enum Capacity {
    Bytes(u64),
    Text(String),
}

impl<'py> FromPyObject<'_, 'py> for Capacity {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = value.cast::<PyString>() {
            return Ok(Capacity::Text(text.to_str()?.to_owned()));
        }
        value.extract().map(Capacity::Bytes).map_err(|_| {
            let kind = match value.is_instance_of::<PyInt>() {
                true => "InvalidArgument",
                false => "TypeMismatch",
            };
            let advice = "is no size; give bytes as an int, or text such as \"8GiB\"";
            errors::new(value.py(), kind, format!("a capacity of {} {advice}", *value))
        })
    }
}

impl Capacity {
    fn bytes(self, py: Python<'_>) -> PyResult<u64> {
        match self {
            Capacity::Bytes(bytes) => Ok(bytes),
            Capacity::Text(text) => {
                insitu::parse_bytes(&text).map_err(|error| errors::raise(py, error))
            }
        }
    }
}

fn place(
    py: Python<'_>,
    name: Option<String>,
    path: Option<PathBuf>,
) -> PyResult<Option<Location>> {
    match (name, path) {
        (Some(_), Some(_)) => {
            Err(errors::new(py, "InvalidArgument", "give a name or a path, not both"))
        }
        (Some(name), None) => Ok(Some(Location::Shm(name))),
        (None, Some(path)) => Ok(Some(Location::File(path))),
        (None, None) => Ok(None),
    }
}

/// Creates a region: POSIX shared memory under a name, a file at a path, or, without either,
/// anonymous memory that is inherited or passed on by its descriptor.
///
/// `name`: 1 to 200 letters, digits, `_`, `.` or `-`. `capacity`: the most bytes it may hold, as an
/// int or as text in KiB, MiB, GiB, TiB (binary) or KB, MB, GB, TB (decimal), in bytes without a
/// unit; from 64 KiB to 16 TiB, rounded up to whole 64 KiB. Memory is taken only as it is used.
/// Default: half of what the backing can hold. `max_tables`: for how many tables there is room, 1
/// to 16,777,216; default: one per 64 KiB of capacity, from 1,024 to a million. `if_exists`:
/// "error", "open" (keeps the existing capacity) or "replace". `ephemeral`: the region goes with its
/// last process.
///
/// Raises `RegionExists`, `InvalidArgument`, `PermissionDenied`, `RegionFull`, `Io`.
#[pyfunction]
#[pyo3(signature = (name=None, *, path=None, capacity=None, max_tables=None, if_exists="error", ephemeral=false))]
fn create(
    py: Python<'_>,
    #[pyo3(from_py_with = given::region)] name: Option<String>,
    #[pyo3(from_py_with = given::path)] path: Option<PathBuf>,
    capacity: Option<Capacity>,
    #[pyo3(from_py_with = given::tables)] max_tables: Option<u32>,
    #[pyo3(from_py_with = given::name)] if_exists: &str,
    #[pyo3(from_py_with = given::flag)] ephemeral: bool,
) -> PyResult<Region> {
    let location = place(py, name, path)?.unwrap_or(Location::Memfd);
    let if_exists = match if_exists {
        "error" => IfExists::Error,
        "open" => IfExists::Open,
        "replace" => IfExists::Replace,
        other => {
            let advice =
                format!("if_exists is {other:?}; it can be \"error\", \"open\" or \"replace\"");
            return Err(errors::new(py, "InvalidArgument", advice));
        }
    };
    let capacity = capacity.map(|capacity| capacity.bytes(py)).transpose()?;
    let options = CreateOptions { capacity, max_tables, if_exists, ephemeral };
    py.detach(|| insitu::Region::create(location, options))
        .map(Region::from)
        .map_err(|error| errors::raise(py, error))
}

/// Opens a region by its name, its file's path, or an anonymous region's descriptor.
///
/// A descriptor stays the caller's. `read_only=True`: nothing can be written, and nobody recycles
/// memory while such a reader is there. Raises `RegionNotFound`, `RegionCorrupt`,
/// `VersionMismatch`, `PermissionDenied`, `SessionLimit`.
#[pyfunction]
#[pyo3(signature = (name=None, *, path=None, fd=None, read_only=false))]
fn open(
    py: Python<'_>,
    #[pyo3(from_py_with = given::region)] name: Option<String>,
    #[pyo3(from_py_with = given::path)] path: Option<PathBuf>,
    #[pyo3(from_py_with = given::descriptor)] fd: Option<RawFd>,
    #[pyo3(from_py_with = given::flag)] read_only: bool,
) -> PyResult<Region> {
    let location = match (place(py, name, path)?, fd) {
        (Some(location), None) => location,
        (None, Some(fd)) => Location::Fd(duplicate(py, fd)?),
        (Some(_), Some(_)) => {
            let advice = "give a name, a path or a descriptor, only one of them";
            return Err(errors::new(py, "InvalidArgument", advice));
        }
        (None, None) => {
            let advice = "which region? give a name, a path or a descriptor";
            return Err(errors::new(py, "InvalidArgument", advice));
        }
    };
    py.detach(|| insitu::Region::open(location, read_only))
        .map(Region::from)
        .map_err(|error| errors::raise(py, error))
}

fn duplicate(py: Python<'_>, fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(errors::new(py, "InvalidArgument", format!("{fd} is no file descriptor")));
    }
    // SAFETY: the number is not negative; if no file is open there, duplicating it fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed
        .try_clone_to_owned()
        .map_err(|error| errors::new(py, "Io", format!("file descriptor {fd}: {error}")))
}

/// Removes a region by its name or its file's path; processes that have it open carry on.
///
/// Raises `RegionNotFound`.
#[pyfunction]
#[pyo3(signature = (name=None, *, path=None))]
fn remove(
    py: Python<'_>,
    #[pyo3(from_py_with = given::region)] name: Option<String>,
    #[pyo3(from_py_with = given::path)] path: Option<PathBuf>,
) -> PyResult<()> {
    let Some(location) = place(py, name, path)? else {
        return Err(errors::new(py, "InvalidArgument", "which region? give a name or a path"));
    };
    py.detach(|| insitu::Region::remove(&location)).map_err(|error| errors::raise(py, error))
}

/// The named regions of this machine, as a list of dicts: name, capacity and resident (bytes),
/// ephemeral, problem (why it cannot be used, or None).
#[pyfunction]
fn regions(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let records = py.detach(insitu::Region::list).map_err(|error| errors::raise(py, error))?;
    let list = PyList::empty(py);
    for record in records {
        let dict = PyDict::new(py);
        dict.set_item("name", record.name)?;
        dict.set_item("capacity", record.capacity)?;
        dict.set_item("resident", record.resident)?;
        dict.set_item("ephemeral", record.ephemeral)?;
        dict.set_item("problem", record.problem)?;
        list.append(dict)?;
    }
    Ok(list)
}

/// The engine's function table, for the generated stubs and the tests: for each function its
/// method, the arguments after the receiver (options as Python writes them, "decimals: int = 0"),
/// "operator", "method", "window", "cumulative", "horizontal" (a free function of any number of
/// expressions) or "aggregate", and the line of documentation; functions without arguments are left out.
#[pyfunction]
fn _functions(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for function in insitu_query::functions() {
        let Some((_, rest)) = function.args.split_first() else { continue };
        let plain = rest.len() - function.options.len();
        let options = function.options.iter().map(|(kind, default)| {
            let kind = match *kind {
                "i64" => "int",
                "f64" => "float",
                "Text" => "str",
                kind => kind,
            };
            let default = if *default == "false" { "False" } else { *default };
            format!(": {kind} = {default}")
        });
        let rest = rest.iter().zip(std::iter::repeat_n(String::new(), plain).chain(options));
        let rest: Vec<String> = rest.map(|(name, option)| format!("{name}{option}")).collect();
        let kind = match function.kind {
            FunctionKind::Operator => "operator",
            FunctionKind::Method => "method",
            FunctionKind::Horizontal => "horizontal",
            FunctionKind::Window => "window",
            FunctionKind::Cumulative => "cumulative",
            FunctionKind::Aggregate => "aggregate",
        };
        list.append((function.method, PyTuple::new(py, rest)?, kind, function.doc))?;
    }
    Ok(list)
}

/// Arrow data in shared memory, computed where it lies: the native part of `insitu`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    shutdown::register(module.py());
    site::register();
    module.setattr("__version__", env!("CARGO_PKG_VERSION"))?;
    errors::register(module)?;
    module.add_class::<Builder>()?;
    module.add_class::<Column>()?;
    module.add_class::<Exclusive>()?;
    module.add_class::<Expr>()?;
    module.add_class::<GroupBy>()?;
    module.add_class::<Prepared>()?;
    module.add_class::<Query>()?;
    module.add_class::<Region>()?;
    module.add_class::<Report>()?;
    module.add_class::<Table>()?;
    module.add_class::<Then>()?;
    module.add_class::<When>()?;
    module.add_class::<Writable>()?;
    module.add_function(wrap_pyfunction!(expr::col, module)?)?;
    module.add_function(wrap_pyfunction!(expr::len, module)?)?;
    module.add_function(wrap_pyfunction!(expr::lit, module)?)?;
    module.add_function(wrap_pyfunction!(expr::param, module)?)?;
    module.add_function(wrap_pyfunction!(expr::when, module)?)?;
    functions::register(module)?;
    module.add_function(wrap_pyfunction!(create, module)?)?;
    module.add_function(wrap_pyfunction!(open, module)?)?;
    module.add_function(wrap_pyfunction!(remove, module)?)?;
    module.add_function(wrap_pyfunction!(regions, module)?)?;
    module.setattr("_open_table", wrap_pyfunction!(pickle::_open_table, module)?)?;
    module.setattr("_open_result", wrap_pyfunction!(pickle::_open_result, module)?)?;
    module.setattr("_open_region", wrap_pyfunction!(pickle::_open_region, module)?)?;
    module.setattr("_cells", wrap_pyfunction!(look::_cells, module)?)?;
    module.setattr("_chunks", wrap_pyfunction!(look::_chunks, module)?)?;
    module.setattr("_poison", wrap_pyfunction!(look::_poison, module)?)?;
    module.setattr("_statistics", wrap_pyfunction!(look::_statistics, module)?)?;
    module.setattr("_functions", wrap_pyfunction!(_functions, module)?)?;
    module.setattr("_Formula", module.py().get_type::<evaluate::Formula>())?;
    module.setattr("_set_threads", wrap_pyfunction!(evaluate::_set_threads, module)?)?;
    module.setattr("_threads", wrap_pyfunction!(evaluate::_threads, module)?)?;
    // pyo3 collects a list of names; the package has one of its own.
    module.delattr("__all__")
}

/// The region's counters as a dict.
pub fn stats<'py>(py: Python<'py>, stats: &insitu::Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("capacity", stats.capacity)?;
    dict.set_item("used", stats.used)?;
    dict.set_item("free", stats.free)?;
    dict.set_item("reserved", stats.reserved)?;
    dict.set_item("tables", stats.tables)?;
    dict.set_item("retired", stats.retired)?;
    dict.set_item("poisoned", stats.poisoned)?;
    dict.set_item("tickets", stats.tickets)?;
    dict.set_item("sessions", stats.sessions)?;
    dict.set_item("extents", stats.extents)?;
    dict.set_item("max_tables", stats.max_tables)?;
    dict.set_item("recoveries", stats.recoveries)?;
    dict.set_item("copies", stats.copies)?;
    dict.set_item("copied_bytes", stats.copied_bytes)?;
    dict.set_item("updates_in_place", stats.updates_in_place)?;
    dict.set_item("updates_swapped", stats.updates_swapped)?;
    Ok(dict)
}

/// Who holds what, as a list of dicts.
pub fn leases<'py>(
    py: Python<'py>,
    records: &[insitu::LeaseRecord],
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for record in records {
        let dict = PyDict::new(py);
        dict.set_item("pid", record.pid)?;
        dict.set_item("table", &record.table)?;
        dict.set_item("sequence", record.sequence)?;
        dict.set_item("current", record.current)?;
        dict.set_item("kind", record.kind.name())?;
        dict.set_item("since", record.since.map(|millis| millis as f64 / 1000.0))?;
        dict.set_item("what", &record.what)?;
        dict.set_item("bytes", record.bytes)?;
        list.append(dict)?;
    }
    Ok(list)
}
