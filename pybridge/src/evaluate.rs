//! Formulas over NumPy arrays: operands to addresses, where they can be used as they lie. Arrays
//! whose elements do not lie one after another in the same order are given in pieces by
//! `_evaluate.py`, which has NumPy iterate over them.

use std::sync::Arc;

use insitu::evaluate::{Argument, Kind, Operand, Program};
use insitu::{DataType, Scalar};
use numpy::{Element, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, npyffi};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyInt, PyTuple};

use crate::{errors, given, interrupt};

/// A formula that was read, with its programs.
#[pyclass(frozen, module = "insitu._native", name = "_Formula")]
pub struct Formula {
    formula: insitu::evaluate::Formula,
    names: Py<PyTuple>,
}

/// An array that is computed on as it lies.
struct Direct<'py> {
    array: Bound<'py, PyUntypedArray>,
    dtype: DataType,
    boolean: bool,
}

/// What an operand came to.
enum Given<'py> {
    Value(Scalar, Operand),
    Array(Direct<'py>),
    /// NumPy must convert it first.
    Foreign,
}

/// Which casts of operands may be done without asking NumPy.
#[derive(Clone, Copy, PartialEq)]
enum Casts {
    /// Those that keep values or their kind.
    All,
    /// Those that keep values.
    Exact,
    None,
}

#[pymethods]
impl Formula {
    #[new]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = given::name)] text: &str,
        exact: bool,
    ) -> PyResult<Formula> {
        let formula = insitu::evaluate::Formula::parse(text, exact);
        let formula = formula.map_err(|error| errors::raise(py, error))?;
        let names = PyTuple::new(py, formula.names().iter().map(|name| &**name))?.unbind();
        Ok(Formula { formula, names })
    }

    /// The names of the operands, sorted.
    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        self.names.bind(py).clone()
    }

    /// The reduction's name and its axis, or None.
    #[getter]
    fn reduction(&self) -> Option<(&'static str, Option<u8>)> {
        self.formula.reduction().map(|(reduction, axis)| (reduction.name(), axis))
    }

    /// The type of the result for operands of these types, and the result if it is a constant.
    fn result<'py>(
        &self,
        py: Python<'py>,
        operands: &Bound<'py, PyTuple>,
    ) -> PyResult<(&'static str, Option<Bound<'py, PyAny>>)> {
        let mut types = Vec::with_capacity(operands.len());
        for (index, operand) in operands.iter().enumerate() {
            types.push(match self.given(&operand, index)? {
                Given::Value(_, operand) => operand,
                Given::Array(direct) => direct.operand(),
                Given::Foreign => {
                    let what = "an operand must be converted first";
                    return Err(errors::new(py, "InvalidArgument", what));
                }
            });
        }
        let program = self.program(py, &types)?;
        let constant = program.constant().map(|value| python(py, value)).transpose()?;
        Ok((numpy_name(program.kind()), constant))
    }

    /// The result over arrays that lie alike, or None if NumPy must bring them together first.
    /// `reduce`: whether a reduction is done, of all values; else what it would reduce is given.
    fn run<'py>(
        &self,
        py: Python<'py>,
        operands: &Bound<'py, PyTuple>,
        out: Option<&Bound<'py, PyAny>>,
        order: &str,
        casting: &str,
        reduce: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let casts = match casting {
            "same_kind" | "unsafe" => Casts::All,
            "safe" => Casts::Exact,
            "no" | "equiv" => Casts::None,
            _ => return Ok(None),
        };
        let mut types = Vec::with_capacity(operands.len());
        let mut arguments = Vec::with_capacity(operands.len());
        let mut arrays: Vec<Bound<'py, PyUntypedArray>> = Vec::with_capacity(operands.len());
        let (mut c, mut f) = (true, true);
        for (index, operand) in settled(operands)?.iter().enumerate() {
            match self.given(operand, index)? {
                Given::Foreign => return Ok(None),
                Given::Value(value, operand) => {
                    types.push(operand);
                    arguments.push(Argument::Value(value));
                }
                Given::Array(direct) => {
                    let operand = direct.operand();
                    if !allowed(&direct, casts) {
                        return Ok(None);
                    }
                    let array = direct.array;
                    c &= array.is_c_contiguous();
                    f &= array.is_fortran_contiguous();
                    if !(c || f) || arrays.first().is_some_and(|a| a.shape() != array.shape()) {
                        return Ok(None);
                    }
                    arguments.push(Argument::Array(data(&array)));
                    types.push(operand);
                    arrays.push(array);
                }
            }
        }
        let program = self.program(py, &types)?;
        if program.constant().is_some() {
            return Ok(None);
        }
        let shape: &[usize] = arrays.first().map_or(&[], |array| array.shape());
        let rows: usize = shape.iter().product();
        if reduce && let Some((reduction, axis)) = self.formula.reduction() {
            if out.is_some() || axis.is_some_and(|axis| axis != 0 || shape.len() != 1) {
                return Ok(None);
            }
            let run = Run(&arguments);
            let value = interrupt::detached(py, None, |interrupt| {
                // SAFETY: `arrays` keeps them; each has `rows` values.
                unsafe { program.reduce(run.arguments(), rows, interrupt) }
            })?;
            let value = value.ok_or_else(|| {
                let what = format!("{} of no values; there is none", reduction.name());
                errors::new(py, "InvalidArgument", what)
            })?;
            return single(py, &value, program.kind()).map(Some);
        }
        match order {
            "K" | "A" => {}
            "C" => f = false,
            "F" => c = false,
            _ => return Ok(None),
        }
        if !(c || f) {
            return Ok(None);
        }
        let result = match out {
            None => empty(py, program.kind(), shape, !c)?,
            Some(out) => {
                let Ok(array) = out.cast::<PyUntypedArray>() else {
                    let what = "out must be a NumPy array";
                    return Err(errors::new(py, "TypeMismatch", what));
                };
                let alike = c && array.is_c_contiguous() || f && array.is_fortran_contiguous();
                let writable = flags(array) & npyffi::NPY_ARRAY_WRITEABLE != 0;
                if array.shape() != shape || !alike || !writable || !is_of(array, program.kind()) {
                    return Ok(None);
                }
                array.clone()
            }
        };
        let (run, to) = (Run(&arguments), data(&result) as usize);
        interrupt::detached(py, None, |interrupt| {
            // SAFETY: `arrays` keeps the operands, `result` is kept too; both have `rows` values, as
            // their shapes say, and NumPy says that they are aligned. That nobody else writes them
            // meanwhile is the caller's to see to, as with all of NumPy.
            unsafe { program.run(run.arguments(), rows, to as *mut u8, interrupt) }
        })?;
        Ok(Some(result.into_any()))
    }
}

/// Arguments, for another thread's eyes: the arrays are kept by the call.
struct Run<'a>(&'a [Argument]);

// SAFETY: addresses are read by the call that lends the arrays alone, on whatever thread.
unsafe impl Send for Run<'_> {}
// SAFETY: as above.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    fn arguments(&self) -> &[Argument] {
        self.0
    }
}

impl Formula {
    fn program(&self, py: Python<'_>, types: &[Operand]) -> PyResult<Arc<Program>> {
        self.formula.program(types).map_err(|error| errors::raise(py, error))
    }

    /// An operand as it is told. Of what was settled none of Python's code is run.
    fn given<'py>(&self, value: &Bound<'py, PyAny>, index: usize) -> PyResult<Given<'py>> {
        if let Ok(array) = value.cast::<PyUntypedArray>() {
            return self.array(array.clone(), index);
        }
        if let Ok(float) = value.cast::<PyFloat>() {
            return Ok(scalar(Scalar::Float(float.value()), DataType::Float64, false));
        }
        if let Ok(flag) = value.cast::<PyBool>() {
            return Ok(scalar(Scalar::Int(flag.is_true().into()), DataType::UInt8, true));
        }
        if value.is_exact_instance_of::<PyInt>()
            && let Ok(int) = value.extract::<i64>()
        {
            return Ok(scalar(Scalar::Int(int), DataType::Int64, false));
        }
        self.array(as_array(value)?, index)
    }

    fn array<'py>(&self, array: Bound<'py, PyUntypedArray>, index: usize) -> PyResult<Given<'py>> {
        let descr = array.dtype();
        let dtype = match (descr.kind(), descr.itemsize()) {
            (b'b', _) => DataType::UInt8,
            (b'i', 1) => DataType::Int8,
            (b'i', 2) => DataType::Int16,
            (b'i', 4) => DataType::Int32,
            (b'i', 8) => DataType::Int64,
            (b'u', 1) => DataType::UInt8,
            (b'u', 2) => DataType::UInt16,
            (b'u', 4) => DataType::UInt32,
            (b'u', 8) => DataType::UInt64,
            (b'f', 4) => DataType::Float32,
            (b'f', 8) => DataType::Float64,
            (b'f', _) => return Ok(Given::Foreign),
            (kind, _) => {
                let name = self.formula.names().get(index).map_or("?", |name| name);
                let why = match kind {
                    b'c' => "complex numbers; take .real and .imag apart in NumPy",
                    b'S' | b'U' | b'T' => "strings; compare them in a query",
                    b'M' | b'm' => "times; view them as int64",
                    _ => "such values; convert them to numbers first",
                };
                let what = format!(
                    "the operand {name:?} is {}: formulas do not compute on {why}",
                    descr.str()?
                );
                return Err(errors::new(array.py(), "Unsupported", what));
            }
        };
        let aligned = flags(&array) & npyffi::NPY_ARRAY_ALIGNED != 0;
        if !aligned || descr.is_native_byteorder() == Some(false) {
            return Ok(Given::Foreign);
        }
        let boolean = descr.kind() == b'b';
        if array.ndim() == 0 {
            // SAFETY: an array of one value of that type, aligned.
            let value = unsafe { read(data(&array), &dtype) };
            let dtype = if dtype == DataType::UInt64 { DataType::Int64 } else { dtype };
            return Ok(scalar(value, dtype, boolean));
        }
        Ok(Given::Array(Direct { array, dtype, boolean }))
    }
}

impl Direct<'_> {
    fn operand(&self) -> Operand {
        // Unsigned 64-bit integers are signed ones to formulas, bit for bit.
        let dtype = match &self.dtype {
            DataType::UInt64 => DataType::Int64,
            dtype => dtype.clone(),
        };
        Operand { dtype, boolean: self.boolean, scalar: false }
    }
}

/// NumPy's array of anything.
fn as_array<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    static ASARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let array = ASARRAY.import(value.py(), "numpy", "asarray")?.call1((value,))?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// The operands, each an array or one of Python's own numbers: what must be converted runs code of
/// anybody's, which may change the type or the shape of arrays that were looked at before.
fn settled<'py>(operands: &Bound<'py, PyTuple>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let settle = |value: Bound<'py, PyAny>| {
        let is_number = value.is_instance_of::<PyFloat>()
            || value.is_instance_of::<PyBool>()
            || value.is_exact_instance_of::<PyInt>() && value.extract::<i64>().is_ok();
        if is_number || value.is_instance_of::<PyUntypedArray>() {
            return Ok(value);
        }
        as_array(&value).map(Bound::into_any)
    };
    operands.iter().map(settle).collect()
}

fn scalar<'py>(value: Scalar, dtype: DataType, boolean: bool) -> Given<'py> {
    Given::Value(value, Operand { dtype, boolean, scalar: true })
}

/// Whether the array may be taken as the kind that formulas see it as.
fn allowed(direct: &Direct<'_>, casts: Casts) -> bool {
    match casts {
        Casts::All => true,
        Casts::Exact => direct.dtype != DataType::UInt64,
        Casts::None => {
            direct.boolean
                || Kind::of(&direct.dtype).is_some_and(|kind| kind.data_type() == direct.dtype)
        }
    }
}

fn flags(array: &Bound<'_, PyUntypedArray>) -> i32 {
    // SAFETY: a live array.
    unsafe { (*array.as_array_ptr()).fields.flags }
}

fn data(array: &Bound<'_, PyUntypedArray>) -> *const u8 {
    // SAFETY: a live array.
    unsafe { (*array.as_array_ptr()).fields.data.cast_const().cast() }
}

/// # Safety
/// `at` is readable for a value of that type, and aligned.
unsafe fn read(at: *const u8, dtype: &DataType) -> Scalar {
    macro_rules! int {
        ($t:ty) => {
            // SAFETY: by contract.
            Scalar::Int(unsafe { at.cast::<$t>().read() } as i64)
        };
    }
    match dtype {
        DataType::Int8 => int!(i8),
        DataType::Int16 => int!(i16),
        DataType::Int32 => int!(i32),
        DataType::UInt8 => int!(u8),
        DataType::UInt16 => int!(u16),
        DataType::UInt32 => int!(u32),
        // SAFETY: by contract.
        DataType::Float32 => Scalar::Float(f64::from(unsafe { at.cast::<f32>().read() })),
        // SAFETY: by contract.
        DataType::Float64 => Scalar::Float(unsafe { at.cast::<f64>().read() }),
        _ => int!(i64),
    }
}

fn numpy_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int => "int32",
        Kind::Long => "int64",
        Kind::Float => "float32",
        Kind::Double => "float64",
    }
}

/// Whether an array has the type of a kind, aligned and in this machine's byte order.
fn is_of(array: &Bound<'_, PyUntypedArray>, kind: Kind) -> bool {
    let descr = array.dtype();
    let wanted = match kind {
        Kind::Bool => (b'b', 1),
        Kind::Int => (b'i', 4),
        Kind::Long => (b'i', 8),
        Kind::Float => (b'f', 4),
        Kind::Double => (b'f', 8),
    };
    (descr.kind(), descr.itemsize()) == wanted
        && descr.is_native_byteorder() != Some(false)
        && flags(array) & npyffi::NPY_ARRAY_ALIGNED != 0
}

/// A new array, to be filled.
fn empty<'py>(
    py: Python<'py>,
    kind: Kind,
    shape: &[usize],
    fortran: bool,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let dtype = match kind {
        Kind::Bool => bool::get_dtype(py),
        Kind::Int => i32::get_dtype(py),
        Kind::Long => i64::get_dtype(py),
        Kind::Float => f32::get_dtype(py),
        Kind::Double => f64::get_dtype(py),
    };
    // NumPy has no more than 64 axes, and no longer ones than its own integers count.
    let mut shape: Vec<npyffi::npy_intp> = shape.iter().map(|n| *n as npyffi::npy_intp).collect();
    // SAFETY: NumPy takes over the type, copies the shape, and returns a new reference, or null with
    // an exception (of too little memory). Values are plain, and written before anybody reads them.
    let array = unsafe {
        let array = npyffi::PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            npyffi::get_type_object(py, npyffi::NpyTypes::PyArray_Type),
            dtype.into_dtype_ptr(),
            shape.len() as i32,
            shape.as_mut_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            i32::from(fortran),
            std::ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(py, array)?
    };
    Ok(array.cast_into::<PyUntypedArray>()?)
}

fn python<'py>(py: Python<'py>, value: &Scalar) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Scalar::Bool(v) => PyBool::new(py, *v).to_owned().into_any(),
        Scalar::Int(v) => v.into_pyobject(py)?.into_any(),
        Scalar::Float(v) => PyFloat::new(py, *v).into_any(),
        _ => py.None().into_bound(py),
    })
}

/// An array without axes.
fn single<'py>(py: Python<'py>, value: &Scalar, kind: Kind) -> PyResult<Bound<'py, PyAny>> {
    let array = empty(py, kind, &[], false)?;
    array.set_item(PyTuple::empty(py), python(py, value)?)?;
    Ok(array.into_any())
}

/// Sets the number of threads.
#[pyfunction]
pub fn _set_threads(n: usize) {
    insitu::set_threads(n);
}

/// The number of threads.
#[pyfunction]
pub fn _threads() -> usize {
    insitu::threads()
}
