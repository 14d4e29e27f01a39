//! What the command line shows of a table: cells as text, and what was noted of the columns.

use arrow_array::{Array, ArrayRef};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::column::Column;
use crate::table::Table;
use crate::{arrow_out, errors};

const OPTIONS: FormatOptions<'_> = FormatOptions::new().with_display_error(true);

/// Per column the first `rows` values as text; null is None.
#[pyfunction]
pub fn _cells(py: Python<'_>, table: &Table, rows: usize) -> PyResult<Vec<Vec<Option<String>>>> {
    let table = table.here(py)?;
    let batches = arrow_out::batches(py, table)?;
    let mut columns = vec![Vec::new(); table.num_columns()];
    let mut left = rows;
    for batch in batches {
        let batch = batch.slice(0, batch.num_rows().min(left));
        left -= batch.num_rows();
        for (texts, array) in columns.iter_mut().zip(batch.columns()) {
            texts.extend(cells(array));
        }
    }
    Ok(columns)
}

fn cells(array: &ArrayRef) -> Vec<Option<String>> {
    let formatter = ArrayFormatter::try_new(array.as_ref(), &OPTIONS);
    let text = |row: usize| match &formatter {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(_) => "?".to_owned(),
    };
    (0..array.len()).map(|row| array.is_valid(row).then(|| text(row))).collect()
}

/// If a process died while it changed the table in place, and nobody has accepted what it left: the
/// sentence that says so, and who it was.
#[pyfunction]
pub fn _poison(py: Python<'_>, table: &Table) -> PyResult<Option<String>> {
    let table = table.here(py)?;
    Ok(py.detach(|| table.poison()).map(|error| error.to_string()))
}

/// In how many chunks the table lies; what cannot be read raises.
#[pyfunction]
pub fn _chunks(py: Python<'_>, table: &Table) -> PyResult<usize> {
    let table = table.here(py)?;
    // One without columns has nothing that could lie in chunks. Of a poisoned one nothing is read.
    match table.num_columns() {
        0 => Ok(0),
        _ if table.is_poisoned() => Ok(table.num_chunks()),
        _ => Column::at(table, 0).num_chunks(py),
    }
}

/// Per column what was noted when the table was written, as a dict: nulls, min, max, nan, sorted
/// ("ascending", "descending" or None). Numbers are numbers, times are text. None without any.
#[pyfunction]
pub fn _statistics<'py>(py: Python<'py>, table: &Table) -> PyResult<Option<Bound<'py, PyList>>> {
    let table = table.here(py)?;
    let summaries = py.detach(|| table.summaries()).map_err(|error| errors::raise(py, error))?;
    let Some(summaries) = summaries else { return Ok(None) };
    let list = PyList::empty(py);
    for summary in summaries {
        let dict = PyDict::new(py);
        dict.set_item("nulls", summary.nulls)?;
        for (row, key) in ["min", "max"].into_iter().enumerate() {
            dict.set_item(
                key,
                summary.range.as_ref().map(|range| value(py, range, row)).transpose()?,
            )?;
        }
        dict.set_item("nan", summary.nan)?;
        let sorted = match (summary.ascending, summary.descending) {
            (true, _) => Some("ascending"),
            (false, true) => Some("descending"),
            (false, false) => None,
        };
        dict.set_item("sorted", sorted)?;
        list.append(dict)?;
    }
    Ok(Some(list))
}

/// A number as a Python number, anything else as text.
fn value<'py>(py: Python<'py>, array: &ArrayRef, row: usize) -> PyResult<Bound<'py, PyAny>> {
    let formatter = ArrayFormatter::try_new(array.as_ref(), &OPTIONS)
        .map_err(|error| errors::new(py, "InvalidData", error.to_string()))?;
    let text = formatter.value(row).to_string();
    let kind = match array.data_type() {
        DataType::Float32 | DataType::Float64 => "float",
        dtype if dtype.is_integer() => "int",
        _ => return Ok(text.into_pyobject(py)?.into_any()),
    };
    py.import("builtins")?.getattr(kind)?.call1((text,))
}
