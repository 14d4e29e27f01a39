//! Formulas over arrays anywhere in the process: no region, no tables.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use insitu::evaluate::{Argument, Formula, Kind, Operand, Program};
use insitu::{DataType, Error, Result, Scalar};

use crate::args::{self, Out};
use crate::handles::{self, InsituFormula};
use crate::options::{
    Heeds, INSITU_TYPE_BOOL, INSITU_TYPE_FLOAT32, INSITU_TYPE_FLOAT64, INSITU_TYPE_INT8,
    INSITU_TYPE_INT16, INSITU_TYPE_INT32, INSITU_TYPE_INT64, INSITU_TYPE_UINT8, INSITU_TYPE_UINT16,
    INSITU_TYPE_UINT32, InsituOptions, InsituType, Options,
};
use crate::status::{InsituError, InsituStatus, enter};

/// An array of the caller's: values one behind the other, aligned to their type, no more.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InsituArray {
    /// The operand that it is; NULL for the result.
    pub name: *const c_char,
    /// The type of its values: booleans, or numbers.
    pub r#type: InsituType,
    /// 1 if it is one value for all rows; else 0.
    pub scalar: u32,
    /// The first value.
    pub data: *mut c_void,
}

/// Reads a formula in numexpr's language: `"where(a > 0, a*b + 2*c, sqrt(b))"`. Its kinds of values
/// are booleans, 32 and 64-bit integers and floats; narrower integers become 32-bit ones; the
/// reductions are `sum(x)`, `prod(x)`, `min(x)` and `max(x)`, of a whole formula. What it is compiled
/// to, for operands of some types, is kept with it.
///
/// Errors: `INSITU_INVALID_PLAN`, with the position of what is wrong; `INSITU_UNSUPPORTED` for
/// complex numbers and strings; `INSITU_LIMIT_EXCEEDED`.
///
/// # Safety
/// `text`, `formula` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_formula_parse(
    text: *const c_char,
    formula: *mut InsituFormula,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(formula, "formula")?;
        // SAFETY: the caller's promise.
        let text = unsafe { args::text(text, "text") }?;
        let read = Formula::parse(text, false)?;
        if let Some((reduction, Some(axis))) = read.reduction()
            && axis != 0
        {
            return Err(Error::InvalidArgument(format!(
                "{} along axis {axis}: the arrays have one, 0",
                reduction.name()
            )));
        }
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(read)?) };
        Ok(())
    })
}

/// The type of a formula's values over operands of these types; what they point to is not looked at.
///
/// Errors: `INSITU_TYPE_MISMATCH` for operators and functions that do not take such operands;
/// `INSITU_INVALID_ARGUMENT` for an operand that is missing, or of no type of numbers, or of unsigned
/// ones of 64 bits, which formulas do not have.
///
/// # Safety
/// `operands` names `n_operands` arrays; `result` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_formula_type(
    formula: InsituFormula,
    operands: *const InsituArray,
    n_operands: usize,
    result: *mut InsituType,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(result, "result")?;
        let formula = handles::get(formula)?;
        // SAFETY: the caller's promise.
        let given = unsafe { args::structs(operands, n_operands, "operands") }?;
        // SAFETY: as above.
        let program = formula.program(&types(&unsafe { find(&formula, given) }?)?)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(of_kind(program.kind())) };
        Ok(())
    })
}

/// Computes a formula for `rows` rows, in one pass, with all of the engine's threads: from the
/// operands, which are found by their names (each has one; the first of a name counts, and what the
/// formula does not name is passed over), to `out`, which is of the type that `insitu_formula_type`
/// says. A reduction gives one value. `out` may be one of the operands, or overlap with some; nobody
/// else may write to any of them meanwhile. Heeds the options' task; after `INSITU_CANCELLED` and
/// `INSITU_OUT_OF_MEMORY`, what `out` holds is not known.
///
/// Errors: those of `insitu_formula_type`; `INSITU_TYPE_MISMATCH` if `out` is of another type;
/// `INSITU_INVALID_ARGUMENT` for data that is NULL or not aligned, for a reduction of single values
/// alone, and for the smallest or largest of no rows; `INSITU_OVERFLOW` for a sum or product that does not fit; `INSITU_OUT_OF_MEMORY`,
/// `INSITU_CANCELLED`.
///
/// # Safety
/// `operands` names `n_operands` arrays, whose data may be read for `rows` values, or one; that of
/// `out` may be written to; `options` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_formula_evaluate(
    formula: InsituFormula,
    operands: *const InsituArray,
    n_operands: usize,
    rows: usize,
    out: *const InsituArray,
    options: *const InsituOptions,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        args::check(out, "out")?;
        // SAFETY: not null and aligned; the caller's promise.
        let out = unsafe { out.read() };
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, 0, Heeds::Nothing) }?;
        let formula = handles::get(formula)?;
        // SAFETY: the caller's promise.
        let given = unsafe { args::structs(operands, n_operands, "operands") }?;
        // SAFETY: as above.
        let found = unsafe { find(&formula, given) }?;
        let program = formula.program(&types(&found)?)?;
        let kind = of_kind(program.kind());
        if out.r#type != kind {
            return Err(Error::TypeMismatch(format!(
                "the formula's values are of type {kind}, out is of type {}; \
                 insitu_formula_type tells",
                out.r#type
            )));
        }
        let reduction = formula.reduction().map(|(reduction, _)| reduction);
        let results = if reduction.is_some() { 1 } else { rows };
        check(&out, "out", results)?;
        let mut arguments = Vec::with_capacity(found.len());
        for (array, name) in found.iter().zip(formula.names()) {
            let values = if array.scalar == 0 { rows } else { 1 };
            check(array, name, values)?;
            arguments.push(match array.scalar {
                0 => Argument::Array(array.data.cast_const().cast()),
                // SAFETY: not null and aligned; the caller's promise.
                _ => Argument::Value(unsafe { read(array) }),
            });
        }
        let interrupt = || options.is_cancelled();
        let alike = found.iter().all(|array| array.scalar != 0);
        let value = match (program.constant(), reduction) {
            (Some(_), Some(reduction)) => {
                return Err(Error::InvalidArgument(format!(
                    "{} of constants: there are no rows",
                    reduction.name()
                )));
            }
            (Some(value), None) => value.clone(),
            (None, Some(reduction)) if alike => {
                return Err(Error::InvalidArgument(format!(
                    "{} of single values: there are no rows",
                    reduction.name()
                )));
            }
            (None, Some(reduction)) => {
                // SAFETY: the arguments are those that the program is for, checked for NULL and
                // alignment; the caller's promise.
                let value = unsafe { program.reduce(&arguments, rows, &interrupt) }?;
                value.ok_or_else(|| {
                    let what = format!("{} of no values; there is none", reduction.name());
                    Error::InvalidArgument(what)
                })?
            }
            (None, None) => {
                // SAFETY: as above, of `out` too.
                return unsafe { run(&program, &arguments, &out, rows, alike, &interrupt) };
            }
        };
        // SAFETY: `out` is of that type, checked for NULL and alignment; the caller's promise.
        unsafe { fill(&out, &value, results) };
        Ok(())
    })
}

/// Releases a formula. Calls that compute it go on.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_formula_release(
    formula: InsituFormula,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::release(formula))
}

/// The operands of a formula among arrays, in its order.
///
/// # Safety
/// The names are texts as they are described.
unsafe fn find(formula: &Formula, given: &[InsituArray]) -> Result<Vec<InsituArray>> {
    let mut names = Vec::with_capacity(given.len());
    for array in given {
        // SAFETY: the caller's promise.
        names.push(unsafe { args::text(array.name, "the name of an operand") }?);
    }
    let find = |wanted: &Arc<str>| {
        let at = names.iter().position(|name| *name == &**wanted);
        let array = at.and_then(|at| given.get(at)).copied();
        array.ok_or_else(|| {
            Error::InvalidArgument(format!("the operand {wanted:?} of the formula is missing"))
        })
    };
    formula.names().iter().map(find).collect()
}

/// What the operands are to the formula's types.
fn types(operands: &[InsituArray]) -> Result<Vec<Operand>> {
    let operand = |array: &InsituArray| {
        let dtype = match array.r#type {
            INSITU_TYPE_BOOL | INSITU_TYPE_UINT8 => DataType::UInt8,
            INSITU_TYPE_INT8 => DataType::Int8,
            INSITU_TYPE_INT16 => DataType::Int16,
            INSITU_TYPE_INT32 => DataType::Int32,
            INSITU_TYPE_UINT16 => DataType::UInt16,
            INSITU_TYPE_UINT32 => DataType::UInt32,
            INSITU_TYPE_INT64 => DataType::Int64,
            INSITU_TYPE_FLOAT32 => DataType::Float32,
            INSITU_TYPE_FLOAT64 => DataType::Float64,
            other => {
                return Err(Error::InvalidArgument(format!(
                    "an operand is of type {other}; formulas compute on booleans and numbers, but \
                     not on unsigned ones of 64 bits"
                )));
            }
        };
        let (boolean, scalar) = (array.r#type == INSITU_TYPE_BOOL, array.scalar != 0);
        Ok(Operand { dtype, boolean, scalar })
    };
    operands.iter().map(operand).collect()
}

fn of_kind(kind: Kind) -> InsituType {
    match kind {
        Kind::Bool => INSITU_TYPE_BOOL,
        Kind::Int => INSITU_TYPE_INT32,
        Kind::Long => INSITU_TYPE_INT64,
        Kind::Float => INSITU_TYPE_FLOAT32,
        Kind::Double => INSITU_TYPE_FLOAT64,
    }
}

/// Bytes of a value of a type of numbers, to which it is aligned as well.
fn width(kind: InsituType) -> usize {
    match kind {
        INSITU_TYPE_BOOL | INSITU_TYPE_INT8 | INSITU_TYPE_UINT8 => 1,
        INSITU_TYPE_INT16 | INSITU_TYPE_UINT16 => 2,
        INSITU_TYPE_INT32 | INSITU_TYPE_UINT32 | INSITU_TYPE_FLOAT32 => 4,
        _ => 8,
    }
}

/// # Errors
/// For data that cannot be so many values of that type.
fn check(array: &InsituArray, name: &str, values: usize) -> Result<()> {
    let width = width(array.r#type);
    let too_many = values.checked_mul(width).is_none_or(|bytes| isize::try_from(bytes).is_err());
    if too_many {
        return Err(Error::LimitExceeded(format!("{name:?} would have {values} values")));
    }
    if values > 0 && array.data.is_null() {
        return Err(Error::InvalidArgument(format!("the data of {name:?} is NULL")));
    }
    if !array.data.addr().is_multiple_of(width) {
        return Err(Error::InvalidArgument(format!(
            "the data of {name:?} is at {:p}, which is not a multiple of {width}, the size of its \
             values",
            array.data
        )));
    }
    Ok(())
}

/// The one value of an operand.
///
/// # Safety
/// There is one of its type, aligned.
unsafe fn read(array: &InsituArray) -> Scalar {
    let at = array.data;
    // SAFETY: the caller's promise.
    unsafe {
        match array.r#type {
            INSITU_TYPE_BOOL => Scalar::Int((at.cast::<u8>().read() != 0).into()),
            INSITU_TYPE_UINT8 => Scalar::Int(at.cast::<u8>().read().into()),
            INSITU_TYPE_INT8 => Scalar::Int(at.cast::<i8>().read().into()),
            INSITU_TYPE_INT16 => Scalar::Int(at.cast::<i16>().read().into()),
            INSITU_TYPE_INT32 => Scalar::Int(at.cast::<i32>().read().into()),
            INSITU_TYPE_UINT16 => Scalar::Int(at.cast::<u16>().read().into()),
            INSITU_TYPE_UINT32 => Scalar::Int(at.cast::<u32>().read().into()),
            INSITU_TYPE_FLOAT32 => Scalar::Float(at.cast::<f32>().read().into()),
            INSITU_TYPE_FLOAT64 => Scalar::Float(at.cast::<f64>().read()),
            _ => Scalar::Int(at.cast::<i64>().read()),
        }
    }
}

/// Runs a program row by row.
///
/// # Safety
/// As of [`Program::run`], but that without arrays, all `alike`, there may be many rows.
unsafe fn run(
    program: &Program,
    arguments: &[Argument],
    out: &InsituArray,
    rows: usize,
    alike: bool,
    interrupt: &dyn Fn() -> bool,
) -> Result<()> {
    let to = out.data.cast::<u8>();
    if !alike {
        // SAFETY: the caller's promise.
        return unsafe { program.run(arguments, rows, to, interrupt) };
    }
    // SAFETY: as above; there is room for one value if for any.
    unsafe { program.run(arguments, rows.min(1), to, interrupt) }?;
    let width = width(out.r#type);
    for row in 1..rows {
        // SAFETY: `out` has `rows` values, the first of which was written.
        unsafe { to.add(row * width).copy_from_nonoverlapping(to, width) };
    }
    Ok(())
}

/// Stores a value of the result's type so many times.
///
/// # Safety
/// There is room for so many, aligned.
unsafe fn fill(out: &InsituArray, value: &Scalar, times: usize) {
    let (whole, float) = match value {
        Scalar::Bool(v) => (i64::from(*v), f64::from(u8::from(*v))),
        Scalar::Int(v) => (*v, *v as f64),
        Scalar::UInt(v) => (*v as i64, *v as f64),
        Scalar::Float(v) => (*v as i64, *v),
        _ => (0, 0.0),
    };
    for row in 0..times {
        // SAFETY: the caller's promise.
        unsafe {
            match out.r#type {
                INSITU_TYPE_BOOL => out.data.cast::<u8>().add(row).write(u8::from(whole != 0)),
                INSITU_TYPE_INT32 => out.data.cast::<i32>().add(row).write(whole as i32),
                INSITU_TYPE_FLOAT32 => out.data.cast::<f32>().add(row).write(float as f32),
                INSITU_TYPE_FLOAT64 => out.data.cast::<f64>().add(row).write(float),
                _ => out.data.cast::<i64>().add(row).write(whole),
            }
        }
    }
}
