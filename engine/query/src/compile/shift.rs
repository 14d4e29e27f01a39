//! Lowering of functions that read other rows than their own: what they are made of is read there,
//! so that nothing in between has to be kept.

use insitu_kernels::prim::Prim;

use crate::compile::convert::*;
use crate::compile::graph::{Op, Repr};
use crate::compile::lower::*;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::FunctionId;
use crate::scalar::Scalar;

/// Nodes of a stage beyond which nothing more is shifted: each shift computes all that is below it
/// once more, so that shifts of shifts by different numbers of rows double with each.
const MAX_NODES: usize = 1 << 16;

impl Lower<'_> {
    /// The value `n` rows before, `fill` where there is no such row.
    pub(super) fn shift(
        &mut self,
        a: Typed,
        fill: Typed,
        n: &Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        let n = self.whole(n, "n", e)?;
        let a = self.settled(a)?;
        if matches!(fill.value, Value::Weak(Scalar::Null)) || n == 0 {
            return self.shifted(a, n, e);
        }
        let there = self.moved(a, n, e)?;
        let (there, fill) = self.unify_choice(there, fill, [&args[0], &args[1]], e)?;
        if there.dtype == DataType::Null {
            return Ok(there);
        }
        let within = self.graph.add(Op::InRange(n), Prim::U8, Repr::Bits, &[]);
        self.choose(within, &there, &fill)
    }

    /// The value minus that `n` rows before.
    pub(super) fn diff(&mut self, a: Typed, n: &Typed, args: Args, e: &Expr) -> Result<Typed> {
        let n = self.whole(n, "n", e)?;
        let a = self.settled(a)?;
        let before = self.shifted(a.clone(), n, e)?;
        let args = [args[0].clone(), args[0].clone()];
        self.arithmetic(FunctionId::Sub, a, before, &args, e)
    }

    /// The value divided by that `n` rows before, less 1.
    pub(super) fn pct_change(
        &mut self,
        a: Typed,
        n: &Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        let n = self.whole(n, "n", e)?;
        let a = self.settled(a)?;
        let before = self.shifted(a.clone(), n, e)?;
        let args = [args[0].clone(), args[0].clone()];
        let share = self.arithmetic(FunctionId::Div, a, before, &args, e)?;
        self.arithmetic(FunctionId::Sub, share, weak(Scalar::Float(1.0)), &args, e)
    }

    /// The value `n` rows before, null where there is no such row.
    fn shifted(&mut self, a: Typed, n: i64, e: &Expr) -> Result<Typed> {
        let mut there = self.moved(a, n, e)?;
        if n != 0 && there.dtype != DataType::Null {
            let within = self.graph.add(Op::InRange(n), Prim::U8, Repr::Bits, &[]);
            there.valid = Some(match there.valid {
                Some(own) => self.graph.and(own, within),
                None => within,
            });
        }
        Ok(there)
    }

    /// The value `n` rows before, anything where there is no such row.
    fn moved(&mut self, a: Typed, n: i64, e: &Expr) -> Result<Typed> {
        if n == 0 || a.dtype == DataType::Null {
            return Ok(a);
        }
        let unsupported = || {
            Error::Unsupported(format!(
                "{e}: only columns of numbers, booleans, times and strings can be shifted here, and what is computed of them"
            ))
        };
        let Value::Node(v) = a.value else { return Err(unsupported()) };
        if self.graph.len() > MAX_NODES {
            return Err(Error::LimitExceeded(format!(
                "{e}: shifts of shifts grow too large: more than {MAX_NODES} steps; collect() a part \
                 of them, and shift its columns"
            )));
        }
        let value = self.graph.shifted(v, n).ok_or_else(unsupported)?;
        let valid = match a.valid {
            Some(own) => Some(self.graph.shifted(own, n).ok_or_else(unsupported)?),
            None => None,
        };
        Ok(node(a.dtype, value, valid))
    }
}
