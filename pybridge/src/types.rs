//! Column types named from Python: pyarrow types, NumPy dtypes, the built-in classes, and their
//! names as strings.

use insitu_query::DataType;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString, PyType};
use pyo3_arrow::PyDataType;

use crate::{errors, shutdown};

/// The column type of the engine that `value` names.
pub fn data_type(value: &Bound<'_, PyAny>) -> PyResult<DataType> {
    let arrow: PyDataType = pyarrow_type(value)?.extract()?;
    match insitu::data_type(arrow.as_ref()) {
        DataType::Opaque(_) => Err(refuse(value)),
        dtype => Ok(dtype),
    }
}

fn refuse(value: &Bound<'_, PyAny>) -> PyErr {
    errors::new(
        value.py(),
        "TypeMismatch",
        format!(
            "{value} names no column type; use a pyarrow type, a NumPy dtype or a name such as \
             \"int64\", \"float32\", \"string\", \"date32\", \"timestamp[us]\""
        ),
    )
}

/// The `pyarrow.DataType` that `value` names.
pub fn pyarrow_type<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let _inside = shutdown::enter();
    let pyarrow = py.import("pyarrow")?;
    if value.is_instance_of::<PyType>() {
        for (class, name) in [
            (py.get_type::<PyBool>(), "bool_"),
            (py.get_type::<PyInt>(), "int64"),
            (py.get_type::<PyFloat>(), "float64"),
            (py.get_type::<PyString>(), "string"),
        ] {
            if value.is(&class) {
                return pyarrow.call_method0(name);
            }
        }
    }
    if value.is_instance(&pyarrow.getattr("DataType")?)? {
        return Ok(value.clone());
    }
    if let Ok(name) = value.cast::<PyString>()
        && let Ok(dtype) = pyarrow
            .getattr("types")?
            .getattr("lib")?
            .call_method1("type_for_alias", (alias(name.to_str()?),))
    {
        return Ok(dtype);
    }
    if let Ok(name) = value.cast::<PyString>()
        && let Some((unit, zone)) = zoned(name.to_str()?)
        && let Ok(dtype) = pyarrow.call_method1("timestamp", (unit, zone))
    {
        return Ok(dtype);
    }
    let dtype = py.import("numpy")?.call_method1("dtype", (value,)).map_err(|_| refuse(value))?;
    pyarrow.call_method1("from_numpy_dtype", (dtype,)).map_err(|_| refuse(value))
}

/// Unit and zone of `timestamp[us, UTC]`, which pyarrow writes `timestamp[us, tz=UTC]`.
fn zoned(name: &str) -> Option<(&str, &str)> {
    let (unit, zone) = name.strip_prefix("timestamp[")?.strip_suffix(']')?.split_once(',')?;
    let zone = zone.trim_start();
    Some((unit, zone.strip_prefix("tz=").unwrap_or(zone)))
}

/// pyarrow's alias for a name of ours where they differ.
fn alias(name: &str) -> &str {
    match name {
        "utf8" | "str" => "string",
        "large_utf8" => "large_string",
        "utf8_view" => "string_view",
        name => name,
    }
}
