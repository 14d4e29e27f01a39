//! Lowering of rounding to decimals.

use insitu_kernels::tile::{Pair, Unary};

use crate::compile::convert::*;
use crate::compile::graph::{Op, Repr};
use crate::compile::lower::*;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::scalar::Scalar;
use crate::typing::scalar_bits;

impl Lower<'_> {
    /// An option that is an integer.
    pub(super) fn whole(&self, option: &Typed, name: &str, e: &Expr) -> Result<i64> {
        match &option.value {
            Value::Weak(Scalar::Int(n)) => Ok(*n),
            Value::Weak(Scalar::Null) if self.types_only => Ok(0),
            _ => Err(Error::InvalidArgument(format!(
                "{e}: {name} must be an integer literal, the same for all rows"
            ))),
        }
    }

    /// `value.round(decimals)`, by NumPy's way: scaled by a power of ten, rounded, scaled back.
    pub(super) fn round(&mut self, a: Typed, by: &Typed, args: Args, e: &Expr) -> Result<Typed> {
        let decimals = self.whole(by, "decimals", e)?;
        let a = self.settled(a)?;
        if a.dtype == DataType::Null {
            return Ok(a);
        }
        if !a.dtype.is_numeric() {
            return Err(mismatch(e, &args[0], &a.dtype, "a number; cast it first"));
        }
        let p = prim(&a.dtype)?;
        let v = self.node_of(&a)?;
        if decimals == 0 && p.is_float() {
            let value = self.graph.unary(Unary::Round, p, v);
            return Ok(node(a.dtype, value, a.valid));
        }
        if decimals >= 0 && p.is_integer() {
            return Ok(a);
        }
        let power = power_of_ten(decimals.unsigned_abs(), &a.dtype);
        let op = if decimals > 0 { Pair::RoundToFraction } else { Pair::RoundToMultiple };
        let Some(power) = power else {
            if decimals > 0 {
                // No float has so many decimals that rounding could change it.
                return Ok(a);
            }
            return Err(Error::InvalidArgument(format!(
                "{e}: 10 to the power of {} is no {}; give decimals nearer to 0",
                decimals.unsigned_abs(),
                a.dtype
            )));
        };
        let step = self.graph.number(p, power);
        if self.checked && p.is_integer() {
            let fails = self.graph.add(Op::RoundOverflows, p, Repr::Bits, &[v, step]);
            self.check_overflow(fails, a.valid, vec![v], &a.dtype, e);
        }
        let value = self.graph.pair(op, p, v, step);
        Ok(node(a.dtype, value, a.valid))
    }
}

/// The bits of that power of ten, if the type has it.
fn power_of_ten(exponent: u64, t: &DataType) -> Option<u64> {
    if t.is_float() {
        let power: f64 = format!("1e{}", exponent.min(400)).parse().ok()?;
        let finite = match t {
            DataType::Float32 => (power as f32).is_finite(),
            _ => power.is_finite(),
        };
        return scalar_bits(&Scalar::Float(power), t).filter(|_| finite);
    }
    let power = 10u64.checked_pow(u32::try_from(exponent).ok()?)?;
    scalar_bits(&Scalar::UInt(power), t)
}
