//! NumPy's functions of arrays, called on expressions: `numpy.sqrt(col("x"))` is the expression
//! `col("x").sqrt()`. Nulls stay null.

use insitu_query::{DataType, Expr as Tree, Scalar};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::expr::{Expr, call, operand};
use crate::{errors, shutdown};

/// NumPy's name of a function, and the engine's. What the engine has not yet is refused by name.
const FUNCTIONS: &[(&str, &str)] = &[
    ("absolute", "abs"),
    ("add", "add"),
    ("arccos", "arccos"),
    ("arccosh", "arccosh"),
    ("arcsin", "arcsin"),
    ("arcsinh", "arcsinh"),
    ("arctan", "arctan"),
    ("arctan2", "arctan2"),
    ("arctanh", "arctanh"),
    ("bitwise_and", "and"),
    ("bitwise_or", "or"),
    ("bitwise_xor", "xor"),
    ("cbrt", "cbrt"),
    ("ceil", "ceil"),
    ("copysign", "copysign"),
    ("cos", "cos"),
    ("cosh", "cosh"),
    ("deg2rad", "radians"),
    ("degrees", "degrees"),
    ("divide", "div"),
    ("equal", "eq"),
    ("exp", "exp"),
    ("exp2", "exp2"),
    ("expm1", "expm1"),
    ("fabs", "abs"),
    ("floor", "floor"),
    ("floor_divide", "floor_div"),
    ("greater", "gt"),
    ("greater_equal", "ge"),
    ("hypot", "hypot"),
    ("invert", "not"),
    ("isfinite", "is_finite"),
    ("isinf", "is_infinite"),
    ("isnan", "is_nan"),
    ("left_shift", "shift_left"),
    ("less", "lt"),
    ("less_equal", "le"),
    ("log", "log"),
    ("log10", "log10"),
    ("log1p", "log1p"),
    ("log2", "log2"),
    ("multiply", "mul"),
    ("negative", "neg"),
    ("nextafter", "nextafter"),
    ("not_equal", "ne"),
    ("power", "pow"),
    ("rad2deg", "degrees"),
    ("radians", "radians"),
    ("remainder", "mod"),
    ("right_shift", "shift_right"),
    ("rint", "round"),
    ("sign", "sign"),
    ("sin", "sin"),
    ("sinh", "sinh"),
    ("sqrt", "sqrt"),
    ("subtract", "sub"),
    ("tan", "tan"),
    ("tanh", "tanh"),
    ("trunc", "trunc"),
];

/// The expression for a call of a NumPy function.
pub fn apply(
    ufunc: &Bound<'_, PyAny>,
    method: &str,
    inputs: &Bound<'_, PyTuple>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Expr> {
    let py = ufunc.py();
    let _inside = shutdown::enter();
    let name: String = ufunc.getattr(intern!(py, "__name__"))?.extract()?;
    if method != "__call__" {
        return Err(errors::new(
            py,
            "TypeMismatch",
            format!(
                "numpy.{name}.{method} works on arrays, not on expressions; use an aggregate such \
                 as sum(), min() or max(), or take the values with to_numpy()"
            ),
        ));
    }
    if let Some(options) = options
        && let Some((option, _)) = options.iter().next()
    {
        return Err(errors::new(
            py,
            "TypeMismatch",
            format!(
                "numpy.{name} of an expression takes no {option}=: an expression has no values \
                 yet; use when() instead of where=, cast() instead of dtype=, and select() or \
                 update() instead of out="
            ),
        ));
    }
    let args = inputs.iter().map(|input| argument(&input)).collect::<PyResult<Vec<_>>>()?;
    if let Some(tree) = composed(&name, &args) {
        return Ok(Expr(tree));
    }
    let known = FUNCTIONS.iter().find(|(numpy, _)| *numpy == name);
    match known.and_then(|(_, own)| insitu_query::Function::by_name(own)) {
        Some(function) => {
            let options = function.defaults().into_iter().map(Tree::literal);
            call(py, function.name, args.into_iter().chain(options).collect())
        }
        None => Err(errors::new(
            py,
            "Unsupported",
            format!(
                "numpy.{name} has no counterpart among the functions of expressions; take the \
                 values with to_numpy(), or say it with the methods of Expr"
            ),
        )),
    }
}

/// An argument as an expression. NumPy makes an array without dimensions of a scalar of its own that
/// is compared.
fn argument(input: &Bound<'_, PyAny>) -> PyResult<Tree> {
    let py = input.py();
    if let Some(dimensions) = input.getattr_opt(intern!(py, "ndim"))?
        && dimensions.eq(0)?
    {
        return operand(&input.get_item(PyTuple::empty(py))?);
    }
    operand(input)
}

/// What is said with several of the engine's functions.
fn composed(name: &str, args: &[Tree]) -> Option<Tree> {
    Some(match (name, args) {
        ("positive", [a]) => a.clone(),
        ("square", [a]) => a.mul(a),
        ("isnat", [a]) => a.is_null(),
        // Of negative numbers NumPy counts the bits of their size.
        ("bitwise_count", [a]) => a.abs().bitwise_count_ones().cast(DataType::UInt8, true),
        ("logical_not", [a]) => a.cast(DataType::Bool, true).not_(),
        ("logical_and", [a, b]) => truth(a).and_(truth(b)),
        ("logical_or", [a, b]) => truth(a).or_(truth(b)),
        ("logical_xor", [a, b]) => truth(a).xor(truth(b)),
        // The engine's own skip NaN and null; NumPy's keep NaN, but for fmin and fmax.
        ("fmin", [a, b]) => of_both(a, b, Tree::min_horizontal(args.to_vec())),
        ("fmax", [a, b]) => of_both(a, b, Tree::max_horizontal(args.to_vec())),
        ("minimum", [a, b]) => {
            of_both(a, b, Tree::when(a.ne(a).or_(a.le(b)), a.clone(), b.clone()))
        }
        ("maximum", [a, b]) => {
            of_both(a, b, Tree::when(a.ne(a).or_(a.ge(b)), a.clone(), b.clone()))
        }
        _ => return None,
    })
}

fn truth(value: &Tree) -> Tree {
    value.cast(DataType::Bool, true)
}

/// The value where neither side is null.
fn of_both(a: &Tree, b: &Tree, value: Tree) -> Tree {
    Tree::when(a.is_null().or_(b.is_null()), Tree::literal(Scalar::Null), value)
}
