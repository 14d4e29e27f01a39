//! The exception tree, made from the engine's one table of errors: each class stands under
//! `insitu.Error` and under the built-in that a Python user would catch.

use std::collections::HashMap;

use insitu::{Error, ErrorCode};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};

static CLASSES: PyOnceLock<HashMap<&'static str, Py<PyType>>> = PyOnceLock::new();

/// The built-in class that the exception called `name` also is.
fn builtin(name: &str) -> &'static str {
    match name {
        "RegionNotFound" => "FileNotFoundError",
        "RegionExists" => "FileExistsError",
        "TableNotFound" | "UnknownColumn" => "KeyError",
        "RegionFull" | "OutOfMemory" => "MemoryError",
        "Timeout" | "LeaseHeld" => "TimeoutError",
        "TypeMismatch" => "TypeError",
        "PermissionDenied" => "PermissionError",
        "Io" => "OSError",
        "Overflow" => "OverflowError",
        "Unsupported" => "NotImplementedError",
        _ => "ValueError",
    }
}

/// Makes the classes and adds them to the module.
pub fn register<'py>(module: &Bound<'py, PyModule>) -> PyResult<()> {
    let py = module.py();
    let builtins = py.import("builtins")?;
    let metaclass = py.get_type::<PyType>();
    let make = |name: &str, doc: &str, bases: &Bound<'py, PyTuple>, kind: &str| {
        let namespace = PyDict::new(py);
        namespace.set_item("__module__", "insitu")?;
        namespace.set_item("__doc__", doc)?;
        if kind == "KeyError" {
            // KeyError prints the repr of its argument; a sentence should read as one.
            let plain = builtins.getattr("BaseException")?.getattr("__str__")?;
            namespace.set_item("__str__", plain)?;
        }
        for (attribute, initial) in attributes(name) {
            match initial {
                Initial::Number => namespace.set_item(*attribute, 0)?,
                Initial::Text => namespace.set_item(*attribute, "")?,
                Initial::None => namespace.set_item(*attribute, py.None())?,
                Initial::Several => namespace.set_item(*attribute, PyTuple::empty(py))?,
            }
        }
        metaclass.call1((name, bases, namespace))?.cast_into::<PyType>().map_err(PyErr::from)
    };

    let mut classes = HashMap::new();
    let exception = PyTuple::new(py, [builtins.getattr("Exception")?])?;
    let doc = "The base of all of insitu's exceptions.";
    let base = make("Error", doc, &exception, "Exception")?;
    module.add("Error", &base)?;
    for code in ErrorCode::ALL {
        let (name, kind) = (code.name(), builtin(code.name()));
        let bases = PyTuple::new(py, [base.as_any(), &builtins.getattr(kind)?])?;
        let class = make(name, code.sentence(), &bases, kind)?;
        module.add(name, &class)?;
        classes.insert(name, class.unbind());
    }
    classes.insert("Error", base.unbind());
    // A second import in the same process (a subinterpreter) would find the classes made.
    let _ = CLASSES.set(py, classes);
    Ok(())
}

/// What an attribute is before anything is known.
enum Initial {
    Number,
    Text,
    None,
    /// A sequence; empty, and one that cannot be filled, since all exceptions share it.
    Several,
}

/// The attributes of the exception called `name`, beside its message.
fn attributes(name: &str) -> &'static [(&'static str, Initial)] {
    use Initial::{None, Number, Several, Text};
    match name {
        "RegionFull" => {
            &[("needed", Number), ("free", Number), ("capacity", Number), ("cause", Text)]
        }
        "RegionCorrupt" => &[("what", Text), ("offset", Number)],
        "VersionMismatch" => &[("found", Number), ("expected", Number)],
        "TableNotFound" | "UnknownColumn" => &[("name", Text), ("nearest", None)],
        "TableExists" => &[("name", Text)],
        "LeaseHeld" => &[("name", Text), ("holders", Several)],
        "Poisoned" => &[("name", Text), ("pid", Number), ("since", None), ("what", Text)],
        "CastFailed" => &[("column", Text), ("row", Number), ("value", Text), ("to", Text)],
        "OutOfMemory" => &[("bytes", Number)],
        _ => &[],
    }
}

/// An exception by the name of its class.
pub fn new(py: Python<'_>, name: &str, message: impl Into<String>) -> PyErr {
    let Some(class) = CLASSES.get(py).and_then(|classes| classes.get(name)) else {
        return PyRuntimeError::new_err(message.into());
    };
    PyErr::from_type(class.bind(py).clone(), (message.into(),))
}

/// Whether an exception is of the class of that name.
pub fn is(py: Python<'_>, error: &PyErr, name: &str) -> bool {
    CLASSES
        .get(py)
        .and_then(|classes| classes.get(name))
        .is_some_and(|class| error.is_instance(py, class.bind(py)))
}

/// The engine's error as an exception, with its attributes.
pub fn raise(py: Python<'_>, error: Error) -> PyErr {
    raised(py, &error)
}

/// The same of an error that may be raised more than once.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let raised = new(py, error.code().name(), error.to_string());
    // An attribute that cannot be set is a lesser evil than hiding the error behind another.
    let _ = set_attributes(raised.value(py), error);
    raised
}

fn set_attributes(raised: &Bound<'_, PyAny>, error: &Error) -> PyResult<()> {
    match error {
        Error::RegionFull { needed, free, capacity, cause, .. } => {
            raised.setattr("needed", needed)?;
            raised.setattr("free", free)?;
            raised.setattr("capacity", capacity)?;
            raised.setattr("cause", cause)
        }
        Error::RegionCorrupt { what, offset } => {
            raised.setattr("what", what)?;
            raised.setattr("offset", offset)
        }
        Error::VersionMismatch { found, expected } => {
            raised.setattr("found", found)?;
            raised.setattr("expected", expected)
        }
        Error::TableNotFound { name, nearest } | Error::UnknownColumn { name, nearest } => {
            raised.setattr("name", name)?;
            raised.setattr("nearest", nearest)
        }
        Error::TableExists { name } => raised.setattr("name", name),
        Error::LeaseHeld { name, holders, .. } => {
            raised.setattr("name", name)?;
            raised.setattr("holders", holder_list(raised.py(), holders)?)
        }
        Error::Poisoned { name, by, .. } => {
            raised.setattr("name", name)?;
            let Some(by) = by else { return Ok(()) };
            raised.setattr("pid", by.pid)?;
            raised.setattr("since", by.since.map(|millis| millis as f64 / 1000.0))?;
            raised.setattr("what", &by.what)
        }
        Error::CastFailed { column, row, value, to } => {
            raised.setattr("column", column)?;
            raised.setattr("row", row)?;
            raised.setattr("value", value)?;
            raised.setattr("to", to)
        }
        Error::OutOfMemory { bytes } => raised.setattr("bytes", bytes),
        Error::Io { source, .. } => match source.raw_os_error() {
            Some(number) => raised.setattr("errno", number),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Who holds a table, as a list of dicts: pid, since (seconds since the epoch, or None), what, kind.
fn holder_list<'py>(py: Python<'py>, holders: &[insitu::Holder]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for holder in holders {
        let dict = PyDict::new(py);
        dict.set_item("pid", holder.pid)?;
        dict.set_item("since", holder.since.map(|millis| millis as f64 / 1000.0))?;
        dict.set_item("what", &holder.what)?;
        dict.set_item("kind", holder.kind.name())?;
        list.append(dict)?;
    }
    Ok(list)
}
