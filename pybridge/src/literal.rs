//! Python values as literals of the engine: int, float, bool, str, None, the classes of
//! `datetime`, and the scalars of NumPy, pandas and pyarrow.

use insitu_query::{Scalar, TimeUnit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString, PyType};

use crate::{errors, given, shutdown};

/// `datetime.date(1970, 1, 1).toordinal()`.
const EPOCH_ORDINAL: i32 = 719_163;

/// The literal that `value` stands for; `TypeMismatch` if it stands for none.
pub fn scalar(value: &Bound<'_, PyAny>) -> PyResult<Scalar> {
    let py = value.py();
    if value.is_none() {
        return Ok(Scalar::Null);
    }
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(Scalar::Bool(value.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return integer(value);
    }
    if let Ok(value) = value.cast::<PyFloat>() {
        return Ok(Scalar::Float(value.value()));
    }
    if value.is_instance_of::<PyString>() {
        return Ok(Scalar::Str(given::name(value)?.into()));
    }
    let _inside = shutdown::enter();
    // Timestamps and timedeltas of pandas have nanoseconds, which datetime's classes lack.
    if let Ok(exact) = value.getattr(intern!(py, "asm8")) {
        let aware = value.getattr_opt(intern!(py, "tzinfo"))?.is_some_and(|zone| !zone.is_none());
        return numpy_scalar(&exact, aware);
    }
    if value.is_instance(class(py, &DATETIME, "datetime")?)? {
        return datetime(value);
    }
    if value.is_instance(class(py, &DATE, "date")?)? {
        let ordinal: i32 = value.call_method0(intern!(py, "toordinal"))?.extract()?;
        return Ok(Scalar::Date32(ordinal - EPOCH_ORDINAL));
    }
    if value.is_instance(class(py, &TIMEDELTA, "timedelta")?)? {
        return Ok(Scalar::Duration { value: microseconds(value)?, unit: TimeUnit::Microsecond });
    }
    if value.is_instance(NUMPY_GENERIC.import(py, "numpy", "generic")?)? {
        return numpy_scalar(value, false);
    }
    let name = value.get_type().name()?;
    if name.to_str()? == "NAType" {
        return Ok(Scalar::Null);
    }
    if let Some(as_py) = value.getattr_opt(intern!(py, "as_py"))? {
        return scalar(&as_py.call0()?);
    }
    Err(errors::new(
        py,
        "TypeMismatch",
        format!(
            "a value of type `{}` cannot be a literal; literals are int, float, bool, str, None, \
             datetime.date, datetime.datetime, datetime.timedelta and NumPy scalars",
            name.to_str()?
        ),
    ))
}

fn integer(value: &Bound<'_, PyAny>) -> PyResult<Scalar> {
    if let Ok(value) = value.extract::<i64>() {
        return Ok(Scalar::Int(value));
    }
    match value.extract::<u64>() {
        Ok(value) => Ok(Scalar::UInt(value)),
        Err(_) => Err(errors::new(
            value.py(),
            "InvalidArgument",
            format!("the integer {value} does not fit 64 bits"),
        )),
    }
}

/// Microseconds since the epoch; an aware datetime is UTC from here on.
fn datetime(value: &Bound<'_, PyAny>) -> PyResult<Scalar> {
    let py = value.py();
    let class = class(py, &DATETIME, "datetime")?;
    let zone = value.getattr(intern!(py, "tzinfo"))?;
    let (epoch, tz) = if zone.is_none() {
        (class.call1((1970, 1, 1))?, None)
    } else {
        let utc = py.import("datetime")?.getattr("timezone")?.getattr("utc")?;
        (class.call1((1970, 1, 1, 0, 0, 0, 0, utc))?, Some("UTC".into()))
    };
    let since = value.sub(epoch)?;
    Ok(Scalar::Timestamp { value: microseconds(&since)?, unit: TimeUnit::Microsecond, tz })
}

fn microseconds(timedelta: &Bound<'_, PyAny>) -> PyResult<i64> {
    let py = timedelta.py();
    let days: i64 = timedelta.getattr(intern!(py, "days"))?.extract()?;
    let seconds: i64 = timedelta.getattr(intern!(py, "seconds"))?.extract()?;
    let micros: i64 = timedelta.getattr(intern!(py, "microseconds"))?.extract()?;
    days.checked_mul(86_400_000_000)
        .and_then(|days| days.checked_add(seconds * 1_000_000 + micros))
        .ok_or_else(|| {
            errors::new(py, "InvalidArgument", format!("{timedelta} does not fit microseconds"))
        })
}

/// A NumPy scalar by the kind of its dtype; `aware`: it counts from the epoch in UTC.
fn numpy_scalar(value: &Bound<'_, PyAny>, aware: bool) -> PyResult<Scalar> {
    let py = value.py();
    let dtype = value.getattr(intern!(py, "dtype"))?;
    let kind: String = dtype.getattr(intern!(py, "kind"))?.extract()?;
    match kind.as_str() {
        "b" | "i" | "u" | "f" | "U" => {
            let item = value.call_method0(intern!(py, "item"))?;
            // A long double's item is itself.
            if !item.is(value)
                && !item.is_instance(NUMPY_GENERIC.import(py, "numpy", "generic")?)?
            {
                return scalar(&item);
            }
        }
        "M" | "m" => {
            let numpy = py.import("numpy")?;
            if numpy.call_method1("isnat", (value,))?.extract()? {
                return Ok(Scalar::Null);
            }
            let (unit, step): (String, i64) =
                numpy.call_method1("datetime_data", (&dtype,))?.extract()?;
            let (unit, width) = match (unit.as_str(), step) {
                ("s", 1) => (TimeUnit::Second, "s"),
                ("ms", 1) => (TimeUnit::Millisecond, "ms"),
                ("us", 1) => (TimeUnit::Microsecond, "us"),
                ("ns", 1) => (TimeUnit::Nanosecond, "ns"),
                ("D" | "W" | "M" | "Y", _) if kind == "M" => {
                    let days = value.call_method1("astype", ("datetime64[D]",))?;
                    let days: i64 = days.call_method1("astype", ("int64",))?.extract()?;
                    return i32::try_from(days).map(Scalar::Date32).map_err(|_| {
                        errors::new(py, "InvalidArgument", format!("{value} is no 32-bit date"))
                    });
                }
                ("h" | "m" | "D" | "W", _) => (TimeUnit::Second, "s"),
                _ => {
                    return Err(errors::new(
                        py,
                        "TypeMismatch",
                        format!(
                            "{dtype} has no counterpart; convert it to [s], [ms], [us] or [ns]"
                        ),
                    ));
                }
            };
            let target = if kind == "M" { "datetime64" } else { "timedelta64" };
            let count: i64 = value
                .call_method1("astype", (format!("{target}[{width}]"),))?
                .call_method1("astype", ("int64",))?
                .extract()?;
            return Ok(if kind == "M" {
                Scalar::Timestamp { value: count, unit, tz: aware.then(|| "UTC".into()) }
            } else {
                Scalar::Duration { value: count, unit }
            });
        }
        _ => {}
    }
    Err(errors::new(py, "TypeMismatch", format!("a NumPy {dtype} cannot be a literal")))
}

static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static DATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static TIMEDELTA: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static NUMPY_GENERIC: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn class<'a, 'py>(
    py: Python<'py>,
    cell: &'a PyOnceLock<Py<PyType>>,
    name: &str,
) -> PyResult<&'a Bound<'py, PyType>> {
    cell.import(py, "datetime", name)
}
