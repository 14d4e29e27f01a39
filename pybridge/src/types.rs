//! Column types named from Python: pyarrow types, NumPy dtypes, the built-in classes, and their
//! names as strings.

use insitu_query::DataType;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString, PyType};
use pyo3_arrow::PyDataType;

use crate::errors;

/// The column type that `value` names.
pub fn data_type(value: &Bound<'_, PyAny>) -> PyResult<DataType> {
    let py = value.py();
    let refuse = || {
        errors::new(
            py,
            "TypeMismatch",
            format!(
                "{value} names no column type; use a pyarrow type, a NumPy dtype or a name such \
                 as \"int64\", \"float32\", \"string\", \"date32\", \"timestamp[us]\""
            ),
        )
    };
    if value.is_instance_of::<PyType>() {
        for (class, dtype) in [
            (py.get_type::<PyBool>(), DataType::Bool),
            (py.get_type::<PyInt>(), DataType::Int64),
            (py.get_type::<PyFloat>(), DataType::Float64),
            (py.get_type::<PyString>(), DataType::Utf8),
        ] {
            if value.is(&class) {
                return Ok(dtype);
            }
        }
    }
    let pyarrow = py.import("pyarrow")?;
    let named = if value.is_instance(&pyarrow.getattr("DataType")?)? {
        value.clone()
    } else if let Ok(name) = value.cast::<PyString>()
        && let Ok(dtype) = pyarrow
            .getattr("types")?
            .getattr("lib")?
            .call_method1("type_for_alias", (alias(name.to_str()?),))
    {
        dtype
    } else {
        let dtype = py.import("numpy")?.call_method1("dtype", (value,)).map_err(|_| refuse())?;
        pyarrow.call_method1("from_numpy_dtype", (dtype,)).map_err(|_| refuse())?
    };
    let arrow: PyDataType = named.extract()?;
    match insitu::data_type(arrow.as_ref()) {
        DataType::Opaque(_) => Err(refuse()),
        dtype => Ok(dtype),
    }
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
