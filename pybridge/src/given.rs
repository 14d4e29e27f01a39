//! Arguments as they are given: what is not of the kind that a function takes is an error of this
//! package, as all its errors are, and says what would be.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use crate::errors;

fn wrong(value: &Bound<'_, PyAny>, wanted: &str) -> PyErr {
    let class = value.get_type().fully_qualified_name();
    let class = class.as_ref().map_or_else(|_| "object".into(), ToString::to_string);
    let shown = value.repr().map_or_else(|_| "this".into(), |text| text.to_string());
    // An array or a table is not to be read here.
    let shown = if shown.len() > 80 || shown.contains('\n') { "this".into() } else { shown };
    let message = format!("{wanted} is asked for; {shown} is of type `{class}`");
    errors::new(value.py(), "TypeMismatch", message)
}

/// None, or what is read of another value.
fn or_none<'a, 'py, T>(
    value: &'a Bound<'py, PyAny>,
    read: impl FnOnce(&'a Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<Option<T>> {
    if value.is_none() { Ok(None) } else { read(value).map(Some) }
}

/// A name, of a table or a column, or other text.
pub fn name<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let Ok(text) = value.cast::<PyString>() else { return Err(wrong(value, "a name, a str,")) };
    text.to_str().map_err(|error| {
        errors::new(value.py(), "InvalidArgument", format!("{text:?} is no text: {error}"))
    })
}

/// A name, or None.
pub fn name_or_none<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<Option<&'a str>> {
    or_none(value, name)
}

/// The name of a region, or None.
pub fn region(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    or_none(value, |value| name(value).map(str::to_owned))
}

/// A file's path, or None.
pub fn path(value: &Bound<'_, PyAny>) -> PyResult<Option<PathBuf>> {
    or_none(value, |value| value.extract().map_err(|_| wrong(value, "a path, a str or a Path,")))
}

/// What can be called.
pub fn callable<'a, 'py>(value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyAny>> {
    if value.is_callable() { Ok(value) } else { Err(wrong(value, "a bool or a callable")) }
}

/// A number of rows.
pub fn count(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(count) = value.extract() {
        return Ok(count);
    }
    let index = integer(value, "a number of rows, an int,")?;
    let message = format!("{index} is no number of rows: it is an int from 0 on, below 2**64");
    Err(errors::new(value.py(), "InvalidArgument", message))
}

/// A number of rows, or None.
pub fn count_or_none(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    or_none(value, count)
}

/// A row to begin at, or, negative, from the end.
pub fn offset(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(offset) = value.extract() {
        return Ok(offset);
    }
    let index = integer(value, "an offset in rows, an int,")?;
    let message = format!("{index} is no offset in rows: its size is below 2**63");
    Err(errors::new(value.py(), "InvalidArgument", message))
}

/// How many tables, or None.
pub fn tables(value: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
    or_none(value, |value| {
        if let Ok(tables) = value.extract() {
            return Ok(tables);
        }
        let index = integer(value, "max_tables, an int,")?;
        let message = format!("max_tables is {index}; a region has room for 1 to 16777216 tables");
        Err(errors::new(value.py(), "InvalidArgument", message))
    })
}

/// A file descriptor, or None.
pub fn descriptor(value: &Bound<'_, PyAny>) -> PyResult<Option<i32>> {
    or_none(value, |value| {
        if let Ok(descriptor) = value.extract() {
            return Ok(descriptor);
        }
        let index = integer(value, "a file descriptor, an int,")?;
        let message = format!("{index} is no file descriptor");
        Err(errors::new(value.py(), "InvalidArgument", message))
    })
}

/// What is an int, but not one of those that fit.
fn integer<'py>(value: &Bound<'py, PyAny>, wanted: &str) -> PyResult<Bound<'py, PyAny>> {
    let index = value.call_method0("__index__").map_err(|_| wrong(value, wanted))?;
    if index.is_instance_of::<PyInt>() { Ok(index) } else { Err(wrong(value, wanted)) }
}

/// Whether or not.
pub fn flag(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| wrong(value, "True or False"))
}

/// Whether or not, or None.
pub fn flag_or_none(value: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    or_none(value, flag)
}

/// A time in seconds, or None.
pub fn seconds(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    or_none(value, |value| {
        value.extract().map_err(|_| wrong(value, "a time in seconds, a number,"))
    })
}
