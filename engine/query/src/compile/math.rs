//! Lowering of functions of floats, transcendental most of them, and of powers.

use insitu_kernels::tile::{Arith, Math, Math2, Pair};

use crate::compile::convert::*;
use crate::compile::graph::{Id, Op, Repr};
use crate::compile::lower::*;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::FunctionId;
use crate::scalar::Scalar;

/// The kernel of a function of one float, if it is one.
pub(super) fn transcendental(id: FunctionId) -> Option<Math> {
    use FunctionId as F;
    Some(match id {
        F::Exp => Math::Exp,
        F::Exp2 => Math::Exp2,
        F::Expm1 => Math::Expm1,
        F::Log => Math::Log,
        F::Log2 => Math::Log2,
        F::Log10 => Math::Log10,
        F::Log1p => Math::Log1p,
        F::Sinh => Math::Sinh,
        F::Cosh => Math::Cosh,
        F::Tanh => Math::Tanh,
        F::Asinh => Math::Asinh,
        F::Acosh => Math::Acosh,
        F::Atanh => Math::Atanh,
        F::Sin => Math::Sin,
        F::Cos => Math::Cos,
        F::Tan => Math::Tan,
        F::Asin => Math::Asin,
        F::Acos => Math::Acos,
        F::Atan => Math::Atan,
        F::Cbrt => Math::Cbrt,
        F::Degrees => Math::Degrees,
        F::Radians => Math::Radians,
        _ => return None,
    })
}

/// The kernel of a function of two floats, if it is one. Powers have rules of their own.
pub(super) fn of_floats(id: FunctionId) -> Option<Op> {
    use FunctionId as F;
    Some(match id {
        F::Atan2 => Op::Math2(Math2::Atan2),
        F::Hypot => Op::Math2(Math2::Hypot),
        F::CopySign => Op::Pair(Pair::CopySign),
        F::NextAfter => Op::Pair(Pair::NextAfter),
        _ => return None,
    })
}

impl Lower<'_> {
    /// A function of one float; integers turn into Float64 before.
    pub(super) fn transcendental(
        &mut self,
        op: Math,
        a: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        let a = self.settled(a)?;
        if a.dtype == DataType::Null {
            return Ok(a);
        }
        if !a.dtype.is_numeric() {
            return Err(mismatch(e, &args[0], &a.dtype, "a number; cast it first"));
        }
        let a = if a.dtype.is_float() { a } else { self.coerce(a, &DataType::Float64, &args[0])? };
        let p = prim(&a.dtype)?;
        let v = self.node_of(&a)?;
        let value = self.graph.add(Op::Math(op), p, Repr::Num(p), &[v]);
        Ok(node(a.dtype, value, a.valid))
    }

    /// A function of two floats, in the common type; integers turn into Float64 before.
    pub(super) fn of_floats(
        &mut self,
        (id, op): (FunctionId, Op),
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        if a.dtype.is_temporal() || b.dtype.is_temporal() {
            return Err(Error::TypeMismatch(format!(
                "{e}: {} is {} and {} is {}; {} needs numbers",
                args[0],
                a.dtype,
                args[1],
                b.dtype,
                symbol(id)
            )));
        }
        let mut common = self.common_number(id, &a, &b, args, e)?;
        if common == DataType::Null {
            return Ok(a);
        }
        if !common.is_float() {
            common = DataType::Float64;
        }
        let a = self.coerce(a, &common, &args[0])?;
        let b = self.coerce(b, &common, &args[1])?;
        let valid = self.graph.both_valid(a.valid, b.valid);
        let p = prim(&common)?;
        let (x, y) = (self.node_of(&a)?, self.node_of(&b)?);
        let value = self.graph.add(op, p, Repr::Num(p), &[x, y]);
        Ok(node(common, value, valid))
    }

    /// a ** b: integers stay integers where the exponent is a literal of at least 0, else the power
    /// is a float.
    pub(super) fn power(&mut self, a: Typed, b: Typed, args: Args, e: &Expr) -> Result<Typed> {
        if a.dtype.is_temporal() || b.dtype.is_temporal() {
            return Err(Error::TypeMismatch(format!(
                "{e}: {} is {} and {} is {}; ** needs numbers",
                args[0], a.dtype, args[1], b.dtype
            )));
        }
        let mut common = self.common_number(FunctionId::Pow, &a, &b, args, e)?;
        if common == DataType::Null {
            return Ok(a);
        }
        // Not of a parameter: its values differ from run to run, and the type must not.
        let exponent = match &b.value {
            Value::Weak(Scalar::Bool(n)) => Some(u64::from(*n)),
            Value::Weak(Scalar::Int(n)) => u64::try_from(*n).ok(),
            Value::Weak(Scalar::UInt(n)) => Some(*n),
            _ => None,
        };
        if common.is_integer() {
            if let Some(n) = exponent {
                return self.whole_power(a, n, common, args, e);
            }
            common = DataType::Float64;
        }
        let square = matches!(b.value, Value::Weak(Scalar::Float(2.0))) || exponent == Some(2);
        let a = self.coerce(a, &common, &args[0])?;
        let b = self.coerce(b, &common, &args[1])?;
        let valid = self.graph.both_valid(a.valid, b.valid);
        let p = prim(&common)?;
        let (x, y) = (self.node_of(&a)?, self.node_of(&b)?);
        let value = if square {
            // As the kernel gives it, only faster.
            self.graph.arith(Arith::Mul, p, x, x)
        } else {
            self.graph.add(Op::Math2(Math2::Pow), p, Repr::Num(p), &[x, y])
        };
        Ok(node(common, value, valid))
    }

    /// An integer to a known power, by squaring from the highest bit of the exponent down: what
    /// overflows on the way overflows at the end, too.
    fn whole_power(
        &mut self,
        a: Typed,
        exponent: u64,
        dtype: DataType,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        let a = self.coerce(a, &dtype, &args[0])?;
        let p = prim(&dtype)?;
        let base = self.node_of(&a)?;
        if exponent == 0 {
            let one = self.graph.number(p, 1);
            return Ok(node(dtype, one, a.valid));
        }
        let times = |this: &mut Self, x: Id, y: Id| {
            if this.checked {
                let fails = this.graph.add(Op::Overflows(Arith::Mul), p, Repr::Bits, &[x, y]);
                this.check_overflow(fails, a.valid, vec![base], &dtype, e);
            }
            this.graph.arith(Arith::Mul, p, x, y)
        };
        let mut value = base;
        for bit in (0..exponent.ilog2()).rev() {
            value = times(self, value, value);
            if exponent >> bit & 1 == 1 {
                value = times(self, value, base);
            }
        }
        Ok(node(dtype, value, a.valid))
    }
}
