//! Column types named from Python: pyarrow types, NumPy dtypes, the built-in classes, and their
//! names as strings.

use arrow::datatypes::DataType as ArrowType;
use insitu_query::{DataType, TimeUnit};
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
    from_arrow(arrow.as_ref()).ok_or_else(refuse)
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

/// The engine's name of an Arrow type that it computes on.
fn from_arrow(dtype: &ArrowType) -> Option<DataType> {
    use arrow::datatypes::TimeUnit as ArrowUnit;
    let unit = |unit: &ArrowUnit| match unit {
        ArrowUnit::Second => TimeUnit::Second,
        ArrowUnit::Millisecond => TimeUnit::Millisecond,
        ArrowUnit::Microsecond => TimeUnit::Microsecond,
        ArrowUnit::Nanosecond => TimeUnit::Nanosecond,
    };
    Some(match dtype {
        ArrowType::Null => DataType::Null,
        ArrowType::Boolean => DataType::Bool,
        ArrowType::Int8 => DataType::Int8,
        ArrowType::Int16 => DataType::Int16,
        ArrowType::Int32 => DataType::Int32,
        ArrowType::Int64 => DataType::Int64,
        ArrowType::UInt8 => DataType::UInt8,
        ArrowType::UInt16 => DataType::UInt16,
        ArrowType::UInt32 => DataType::UInt32,
        ArrowType::UInt64 => DataType::UInt64,
        ArrowType::Float16 => DataType::Float16,
        ArrowType::Float32 => DataType::Float32,
        ArrowType::Float64 => DataType::Float64,
        ArrowType::Date32 => DataType::Date32,
        ArrowType::Date64 => DataType::Date64,
        ArrowType::Time32(u) => DataType::Time32(unit(u)),
        ArrowType::Time64(u) => DataType::Time64(unit(u)),
        ArrowType::Timestamp(u, tz) => DataType::Timestamp(unit(u), tz.clone()),
        ArrowType::Duration(u) => DataType::Duration(unit(u)),
        ArrowType::Utf8 => DataType::Utf8,
        ArrowType::LargeUtf8 => DataType::LargeUtf8,
        ArrowType::Utf8View => DataType::Utf8View,
        _ => return None,
    })
}
