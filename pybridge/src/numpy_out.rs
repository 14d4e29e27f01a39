//! NumPy views of Arrow arrays: same bytes, read-only, alive for as long as the view is.
//!
//! A view's base object is a [`Keeper`], which owns the Arrow array; the array's buffers own a
//! lease on the table, and the lease keeps the mapping. So no order of `del`, `close()` and `gc`
//! leaves a view dangling. The mapping itself is read-only: writing through a view that someone
//! forced writable faults instead of corrupting what other processes read.
//!
//! Arrays that are to be filled lie in a mapping of their own, which their base object keeps, and
//! which is made read-only when the filling ends.

use std::ffi::c_void;

use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use numpy::npyffi::{self, NpyTypes, PY_ARRAY_API, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::prelude::*;

/// The base object of a view; it only keeps the array, and with it the lease, alive.
#[pyclass(frozen, module = "insitu._native", name = "_Keeper")]
struct Keeper {
    _array: ArrayRef,
}

/// The NumPy dtype that has the same bytes as `dtype`, or the reason why there is none.
pub fn same_bytes(dtype: &DataType) -> Result<String, &'static str> {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    Ok(match dtype {
        DataType::Int8 => "int8".into(),
        DataType::Int16 => "int16".into(),
        DataType::Int32 => "int32".into(),
        DataType::Int64 => "int64".into(),
        DataType::UInt8 => "uint8".into(),
        DataType::UInt16 => "uint16".into(),
        DataType::UInt32 => "uint32".into(),
        DataType::UInt64 => "uint64".into(),
        DataType::Float16 => "float16".into(),
        DataType::Float32 => "float32".into(),
        DataType::Float64 => "float64".into(),
        DataType::Timestamp(u, _) => format!("datetime64[{}]", unit(u)),
        DataType::Duration(u) => format!("timedelta64[{}]", unit(u)),
        DataType::Date64 => "datetime64[ms]".into(),
        DataType::Boolean => return Err("booleans are stored as bits, NumPy's are bytes"),
        DataType::Date32 => {
            return Err("dates are 32-bit days, NumPy's datetime64[D] has 64 bits");
        }
        DataType::Time32(_) | DataType::Time64(_) => return Err("NumPy has no time of day"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            return Err("strings have different lengths");
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => return Err("NumPy has no type for binary values"),
        DataType::Dictionary(..) => return Err("NumPy has no dictionary-encoded type"),
        DataType::Null => return Err("a column of type null has no values"),
        _ => return Err("NumPy has no type with the same bytes"),
    })
}

/// The dtype of [`same_bytes`]. Of numbers without its name, which NumPy takes longer to read than
/// a view takes to make.
pub fn dtype_of<'py>(
    py: Python<'py>,
    dtype: &DataType,
) -> Result<PyResult<Bound<'py, PyArrayDescr>>, &'static str> {
    Ok(Ok(match dtype {
        DataType::Int8 => numpy::dtype::<i8>(py),
        DataType::Int16 => numpy::dtype::<i16>(py),
        DataType::Int32 => numpy::dtype::<i32>(py),
        DataType::Int64 => numpy::dtype::<i64>(py),
        DataType::UInt8 => numpy::dtype::<u8>(py),
        DataType::UInt16 => numpy::dtype::<u16>(py),
        DataType::UInt32 => numpy::dtype::<u32>(py),
        DataType::UInt64 => numpy::dtype::<u64>(py),
        DataType::Float32 => numpy::dtype::<f32>(py),
        DataType::Float64 => numpy::dtype::<f64>(py),
        _ => return same_bytes(dtype).map(|name| PyArrayDescr::new(py, name)),
    }))
}

/// A read-only view of `array`, which must have no nulls, under the NumPy dtype `descr`.
///
/// The caller has got `descr` from [`dtype_of`] for the type of this array.
pub fn view<'py>(
    py: Python<'py>,
    array: ArrayRef,
    descr: Bound<'py, PyArrayDescr>,
) -> PyResult<Bound<'py, PyAny>> {
    let data = array.to_data();
    let width = descr.itemsize();
    let rows = array.len();
    // An Arrow array that exists has `offset + len` values in its first buffer.
    let start = data.offset() * width;
    let address = match data.buffers().first() {
        // Pointers only: no reference to bytes that another process may write.
        Some(values) if rows > 0 && values.len() >= start + rows * width => {
            values.as_ptr().wrapping_add(start)
        }
        _ => {
            let empty = py.import("numpy")?.call_method1("empty", (0, descr))?;
            empty.call_method1("setflags", (false,))?;
            return Ok(empty);
        }
    };
    drop(data);
    let keeper = Bound::new(py, Keeper { _array: array })?;
    // SAFETY: `address` has `rows * width` readable bytes, aligned to 64 at their buffer's start,
    // for as long as `keeper`, which owns the array.
    unsafe { array_over(descr, address.cast_mut(), rows, false, keeper.into_any()) }
}

/// The base object of an array that is to be filled; it keeps the memory mapped.
#[pyclass(frozen, module = "insitu._native", name = "_Canvas")]
struct Canvas {
    _canvas: insitu::Canvas,
}

/// A writable array over memory that is to be filled, under the NumPy dtype `descr`.
pub fn writable<'py>(
    py: Python<'py>,
    canvas: insitu::Canvas,
    descr: Bound<'py, PyArrayDescr>,
) -> PyResult<Bound<'py, PyAny>> {
    let rows = canvas.len().checked_div(descr.itemsize()).unwrap_or(0);
    let address = canvas.as_mut_ptr();
    let keeper = Bound::new(py, Canvas { _canvas: canvas })?;
    // SAFETY: the canvas has so many bytes, and stays mapped for as long as `keeper` owns it. It
    // begins at a multiple of 64.
    unsafe { array_over(descr, address, rows, true, keeper.into_any()) }
}

/// The dtype under which a column of fixed width is handed out to be filled; `None` for others.
/// Where NumPy has no type of the same meaning, it is one of the same bytes: dates are int32 days,
/// times of day the integers that they are, decimals and intervals opaque bytes.
pub fn filled_as(dtype: &DataType) -> Option<String> {
    if let Ok(same) = same_bytes(dtype) {
        return Some(same);
    }
    Some(match dtype {
        DataType::Boolean => "bool".into(),
        DataType::Date32 | DataType::Time32(_) => "int32".into(),
        DataType::Time64(_) => "int64".into(),
        DataType::Interval(IntervalUnit::YearMonth) => "int32".into(),
        DataType::Interval(IntervalUnit::DayTime) => "V8".into(),
        DataType::Interval(IntervalUnit::MonthDayNano) => "V16".into(),
        DataType::Decimal32(..) => "V4".into(),
        DataType::Decimal64(..) => "V8".into(),
        DataType::Decimal128(..) => "V16".into(),
        DataType::Decimal256(..) => "V32".into(),
        DataType::FixedSizeBinary(width) if *width > 0 => format!("V{width}"),
        _ => return None,
    })
}

/// An array of `rows` values of `descr` at `address`, with `keeper` as its base object.
///
/// # Safety
/// `address` is aligned for the dtype and has as many bytes, readable, and writable if
/// `writeable`, for as long as `keeper` lives.
unsafe fn array_over<'py>(
    descr: Bound<'py, PyArrayDescr>,
    address: *mut u8,
    rows: usize,
    writeable: bool,
    keeper: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = descr.py();
    let mut dims = [rows as npy_intp];
    let flags = if writeable { npyffi::NPY_ARRAY_CARRAY } else { npyffi::NPY_ARRAY_CARRAY_RO };
    // SAFETY: the API table is NumPy's own, imported under the GIL. `descr` is handed over as
    // a new reference, as PyArray_NewFromDescr steals one. The caller vouches for the memory, which
    // lives as long as `keeper`, which becomes the base object below.
    let array = unsafe {
        let object = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            npyffi::get_type_object(py, NpyTypes::PyArray_Type),
            descr.into_dtype_ptr(),
            1,
            dims.as_mut_ptr(),
            std::ptr::null_mut(),
            address.cast::<c_void>(),
            flags,
            std::ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(py, object)?
    };
    // SAFETY: `array` is the array made above; the call steals the reference to `keeper`.
    let status =
        unsafe { PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), keeper.into_ptr()) };
    if status != 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(array)
}
