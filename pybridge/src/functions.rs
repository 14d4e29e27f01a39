//! The methods of expressions and columns and the free functions that come from the engine's one
//! function table, and Python's operators.

// pyo3 writes unsafe wrappers around each method; inside a macro of ours the lint takes them for
// our code. There is no `unsafe` of our own here.
#![allow(unsafe_op_in_unsafe_fn)]

use insitu_query::Expr as Tree;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::column::Column;
use crate::expr::{self, Expr, Operand, call, operand};
use crate::{errors, given};

/// An option that is a word.
type Text<'a> = &'a str;

/// One method for each function of the engine's table that has a receiver.
macro_rules! methods {
    ($($id:ident $method:ident $name:literal $args:tt $kind:ident $rule:ident $nulls:ident $failure:ident $doc:literal;)*) => {
        $(method! { $kind $method $name $args $doc })*
    };
}

macro_rules! method {
    ($kind:ident $method:ident $name:literal () $doc:literal) => {};
    (Horizontal $method:ident $name:literal $args:tt $doc:literal) => {};
    (Window $method:ident $name:literal $args:tt $doc:literal) => {};
    (Cumulative $method:ident $name:literal (
        $receiver:ident; $option:ident : $t:ident = $default:tt
    ) $doc:literal) => {
        #[pymethods]
        impl Expr {
            #[doc = $doc]
            #[pyo3(signature = (*, $option = $default))]
            fn $method(
                &self, py: Python<'_>, #[pyo3(from_py_with = given::flag)] $option: $t
            ) -> PyResult<Expr> {
                call(py, $name, vec![self.0.clone(), Tree::literal($option)])
            }
        }
    };
    ($kind:ident $method:ident $name:literal ($receiver:ident $(, $arg:ident)*) $doc:literal) => {
        #[pymethods]
        impl Expr {
            #[doc = $doc]
            fn $method(&self, py: Python<'_> $(, $arg: Operand)*) -> PyResult<Expr> {
                call(py, $name, vec![self.0.clone() $(, $arg.0)*])
            }
        }
    };
    ($kind:ident $method:ident $name:literal (
        $receiver:ident $(, $arg:ident)*; $($option:ident : $t:ident = $default:tt),+
    ) $doc:literal) => {
        #[pymethods]
        impl Expr {
            #[doc = $doc]
            #[pyo3(signature = ($($arg,)* $($option = $default),+))]
            fn $method(
                &self, py: Python<'_> $(, $arg: Operand)* $(, $option: $t)+
            ) -> PyResult<Expr> {
                let options = [$(Tree::literal($option)),+];
                call(py, $name, [self.0.clone() $(, $arg.0)*].into_iter().chain(options).collect())
            }
        }
    };
}

insitu_query::function_table!(methods);

/// One free function for each of the table that takes any number of expressions.
macro_rules! horizontals {
    ($($id:ident $method:ident $name:literal $args:tt $kind:ident $rule:ident $nulls:ident $failure:ident $doc:literal;)*) => {
        $(horizontal! { $kind $method $name $doc })*

        /// Adds the free functions to the module.
        pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(registered! { module $kind $method })*
            Ok(())
        }
    };
}

macro_rules! horizontal {
    (Horizontal $method:ident $name:literal $doc:literal) => {
        #[doc = $doc]
        #[pyfunction]
        #[pyo3(signature = (*exprs))]
        fn $method(exprs: &Bound<'_, PyTuple>) -> PyResult<Expr> {
            call(exprs.py(), $name, expr::columns(exprs, None)?)
        }
    };
    ($kind:ident $method:ident $name:literal $doc:literal) => {};
}

macro_rules! registered {
    ($module:ident Horizontal $method:ident) => {
        $module.add_function(wrap_pyfunction!($method, $module)?)?;
    };
    ($module:ident $kind:ident $method:ident) => {};
}

insitu_query::function_table!(horizontals);

/// Python's operators, by the function each one calls. An argument that is no operand raises,
/// where pyo3 would return `NotImplemented` if it converted it: Python would then try other ways,
/// and `col("a") == object()` would quietly be False.
macro_rules! operators {
    ($($dunder:ident $reflected:ident $name:literal;)*) => {
        $(
            #[pymethods]
            impl Expr {
                fn $dunder(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
                    call(other.py(), $name, vec![self.0.clone(), operand(other)?])
                }

                fn $reflected(&self, other: &Bound<'_, PyAny>) -> PyResult<Expr> {
                    call(other.py(), $name, vec![operand(other)?, self.0.clone()])
                }
            }
        )*
    };
}

operators! {
    __add__ __radd__ "add";
    __sub__ __rsub__ "sub";
    __mul__ __rmul__ "mul";
    __truediv__ __rtruediv__ "div";
    __floordiv__ __rfloordiv__ "floor_div";
    __mod__ __rmod__ "mod";
    __and__ __rand__ "and";
    __or__ __ror__ "or";
    __xor__ __rxor__ "xor";
    __lshift__ __rlshift__ "shift_left";
    __rshift__ __rrshift__ "shift_right";
}

#[pymethods]
impl Expr {
    fn __pow__(&self, other: &Bound<'_, PyAny>, modulus: &Bound<'_, PyAny>) -> PyResult<Expr> {
        no_modulus(modulus)?;
        call(other.py(), "pow", vec![self.0.clone(), operand(other)?])
    }

    fn __rpow__(&self, other: &Bound<'_, PyAny>, modulus: &Bound<'_, PyAny>) -> PyResult<Expr> {
        no_modulus(modulus)?;
        call(other.py(), "pow", vec![operand(other)?, self.0.clone()])
    }
}

/// Python's `pow` has a third argument.
fn no_modulus(modulus: &Bound<'_, PyAny>) -> PyResult<()> {
    if modulus.is_none() {
        return Ok(());
    }
    Err(errors::new(
        modulus.py(),
        "TypeMismatch",
        "pow() of expressions takes no modulus; write (a ** b) % m",
    ))
}

/// One reduction for each aggregate of the engine's table.
macro_rules! reductions {
    ($($id:ident $method:ident $name:literal $args:tt $kind:ident $rule:ident $nulls:ident $failure:ident $doc:literal;)*) => {
        $(reduction! { $kind $method $name $args $doc })*
    };
}

macro_rules! reduction {
    (Aggregate $method:ident $name:literal (
        $receiver:ident $(, $arg:ident)* $(; $($option:ident : $t:ident = $default:tt),+)?
    ) $doc:literal) => {
        #[pymethods]
        impl Column {
            #[doc = $doc]
            #[pyo3(signature = ($($arg,)* $($($option = $default),+)?))]
            fn $method<'py>(
                &self, py: Python<'py> $(, $arg: f64)* $($(, $option: $t)+)?
            ) -> PyResult<Bound<'py, PyAny>> {
                let settings = vec![$(Tree::literal($arg),)* $($(Tree::literal($option)),+)?];
                self.reduce(py, $name, settings)
            }
        }
    };
    ($kind:ident $method:ident $name:literal $args:tt $doc:literal) => {};
}

insitu_query::function_table!(reductions);
