//! Lowering of operations on the bits of integers.

use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{Pair, Unary};

use crate::compile::convert::*;
use crate::compile::lower::*;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::FunctionId;
use crate::typing::promote;

impl Lower<'_> {
    /// Logic of booleans, or the same of integers bit by bit.
    pub(super) fn logic_or_bits(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        if self.side_type(&a, &b).is_integer() || self.side_type(&b, &a).is_integer() {
            return self.bits_of_integers(id, a, b, args, e);
        }
        let a = self.as_bool(a, &args[0])?;
        let b = self.as_bool(b, &args[1])?;
        self.logic(id, a, b)
    }

    /// An operation on the bits of two integers, in their common type.
    pub(super) fn bits_of_integers(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        use FunctionId as F;
        let (ta, tb) = (self.side_type(&a, &b), self.side_type(&b, &a));
        let common = match (&ta, &tb) {
            (DataType::Null, DataType::Null) => return Ok(a),
            (DataType::Null, t) | (t, DataType::Null) => Some(t.clone()),
            (DataType::Bool, DataType::Bool) => Some(DataType::Int64),
            _ => promote(&ta, &tb),
        };
        // uint64 and int64 have float64 in common, which has no bits to speak of.
        let Some(common) = common.filter(DataType::is_integer) else {
            return Err(Error::TypeMismatch(format!(
                "{e}: {} is {ta} and {} is {tb}; {} needs integers of a common integer type; {}",
                args[0],
                args[1],
                symbol(id),
                advice(&ta, &tb)
            )));
        };
        let a = self.coerce(a, &common, &args[0])?;
        let b = self.coerce(b, &common, &args[1])?;
        let (x, y) = (self.node_of(&a)?, self.node_of(&b)?);
        let op = match id {
            F::And => Pair::BitAnd,
            F::Or => Pair::BitOr,
            F::Xor => Pair::BitXor,
            F::ShiftLeft => Pair::ShiftLeft,
            _ => Pair::ShiftRight,
        };
        let value = self.graph.pair(op, prim(&common)?, x, y);
        let valid = self.graph.both_valid(a.valid, b.valid);
        Ok(node(common, value, valid))
    }

    /// The opposite of booleans, the complement of integers.
    pub(super) fn complement(&mut self, a: Typed, args: Args) -> Result<Typed> {
        let a = self.settled(a)?;
        if a.dtype.is_integer() {
            let v = self.node_of(&a)?;
            let value = self.graph.unary(Unary::Invert, prim(&a.dtype)?, v);
            return Ok(node(a.dtype, value, a.valid));
        }
        let a = self.as_bool(a, &args[0])?;
        let v = self.node_of(&a)?;
        let value = self.graph.not(v);
        Ok(node(DataType::Bool, value, a.valid))
    }

    /// How many bits of an integer are of a kind.
    pub(super) fn count_of_bits(
        &mut self,
        id: FunctionId,
        a: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        use FunctionId as F;
        let a = self.settled(a)?;
        if a.dtype == DataType::Null {
            return self.null_of(&DataType::UInt32);
        }
        if !a.dtype.is_integer() {
            return Err(mismatch(e, &args[0], &a.dtype, "an integer; cast it first"));
        }
        let p = prim(&a.dtype)?;
        let mut v = self.node_of(&a)?;
        if matches!(id, F::CountZeros | F::LeadingOnes | F::TrailingOnes) {
            v = self.graph.unary(Unary::Invert, p, v);
        }
        let op = match id {
            F::CountOnes | F::CountZeros => Unary::CountOnes,
            F::LeadingOnes | F::LeadingZeros => Unary::LeadingZeros,
            _ => Unary::TrailingZeros,
        };
        let count = self.graph.unary(op, p, v);
        let value = self.graph.cast(p, Prim::U32, count);
        Ok(node(DataType::UInt32, value, a.valid))
    }
}
