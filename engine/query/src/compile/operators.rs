//! Lowering of operators on two values: arithmetic on numbers and times, comparison, logic, choice.

use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{Arith, BitOp, Compare, Unary, overflows};

use crate::compile::convert::*;
use crate::compile::graph::{Id, Op, Repr};
use crate::compile::lower::*;
use crate::dtype::{DataType, TimeUnit};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::FunctionId;
use crate::scalar::Scalar;
use crate::typing::{finer, per_day, promote};

impl Lower<'_> {
    pub(super) fn arithmetic(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        use FunctionId as F;
        if a.dtype.is_temporal() || b.dtype.is_temporal() {
            return self.time_arithmetic(id, a, b, args, e);
        }
        let mut common = self.common_number(id, &a, &b, args, e)?;
        if common == DataType::Null {
            return Ok(a);
        }
        if id == F::Div && !common.is_float() {
            common = DataType::Float64;
        }
        let a = self.coerce(a, &common, &args[0])?;
        let b = self.coerce(b, &common, &args[1])?;
        self.number_op(id, a, b, common, e)
    }

    /// The type in which two sides that must be numbers meet; null if both are null literals.
    pub(super) fn common_number(
        &self,
        id: FunctionId,
        a: &Typed,
        b: &Typed,
        args: Args,
        e: &Expr,
    ) -> Result<DataType> {
        let (ta, tb) = (self.side_type(a, b), self.side_type(b, a));
        let common = match (&ta, &tb) {
            (DataType::Null, DataType::Null) => Some(DataType::Null),
            (DataType::Null, t) | (t, DataType::Null) if t.is_numeric() => Some(t.clone()),
            (DataType::Bool, DataType::Bool) => Some(DataType::Int64),
            _ => promote(&ta, &tb),
        };
        common.ok_or_else(|| {
            Error::TypeMismatch(format!(
                "{e}: {} is {ta} and {} is {tb}; {} needs numbers; {}",
                args[0],
                args[1],
                symbol(id),
                advice(&ta, &tb)
            ))
        })
    }

    /// An operator on two numbers of one type already; the result has type `dtype`.
    pub(super) fn number_op(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        dtype: DataType,
        e: &Expr,
    ) -> Result<Typed> {
        use FunctionId as F;
        let p = prim(&dtype)?;
        let op = match id {
            F::Add => Arith::Add,
            F::Sub => Arith::Sub,
            F::Mul => Arith::Mul,
            F::Div => Arith::Div,
            F::FloorDiv => Arith::FloorDiv,
            F::Mod => Arith::Mod,
            _ => {
                return Err(Error::Unsupported(format!(
                    "{e}: {} is not implemented yet",
                    id.function()
                )));
            }
        };
        let (x, y) = (self.node_of(&a)?, self.node_of(&b)?);
        let mut valid = self.graph.both_valid(a.valid, b.valid);
        if p.is_integer() && matches!(op, Arith::FloorDiv | Arith::Mod) {
            // The kernel looks at its second operand.
            let nonzero = self.graph.add(Op::DivValid, p, Repr::Bits, &[y, y]);
            valid = self.graph.both_valid(valid, Some(nonzero));
        }
        if self.checked && overflows(op, p, Level::Baseline).is_some() {
            let fails = self.graph.add(Op::Overflows(op), p, Repr::Bits, &[x, y]);
            self.check_overflow(fails, valid, vec![x, y], &dtype, e);
        }
        let value = self.graph.arith(op, p, x, y);
        Ok(node(dtype, value, valid))
    }

    pub(super) fn time_arithmetic(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        use DataType::*;
        use FunctionId as F;
        let (ta, tb) = (self.side_type(&a, &b), self.side_type(&b, &a));
        let fail = || {
            Error::TypeMismatch(format!(
                "{e}: {} is {ta} and {} is {tb}, to which {} does not apply; {}",
                args[0],
                args[1],
                symbol(id),
                advice(&ta, &tb)
            ))
        };
        let point = |t: &DataType| matches!(t, Date32 | Date64 | Timestamp(..));
        match (&ta, &tb, id) {
            (Date32, Date32, F::Sub) => {
                let (x, y) =
                    (self.in_unit(a, &Date32, &args[0])?, self.in_unit(b, &Date32, &args[1])?);
                let valid = self.graph.both_valid(x.valid, y.valid);
                let (x, y) = (self.node_of(&x)?, self.node_of(&y)?);
                let x = self.graph.cast(Prim::I32, Prim::I64, x);
                let y = self.graph.cast(Prim::I32, Prim::I64, y);
                let days = self.graph.arith(Arith::Sub, Prim::I64, x, y);
                let value = self.scale(days, 86_400);
                Ok(node(Duration(TimeUnit::Second), value, valid))
            }
            (l, r, F::Sub) if point(l) && point(r) => {
                let common = common_type(l, r).ok_or_else(fail)?;
                let unit = match &common {
                    Timestamp(u, _) => *u,
                    _ => TimeUnit::Millisecond,
                };
                let a = self.in_unit(a, &common, &args[0])?;
                let b = self.in_unit(b, &common, &args[1])?;
                self.number_op(id, a, b, Duration(unit), e)
            }
            (Date32, Duration(u), F::Add | F::Sub) | (Duration(u), Date32, F::Add) => {
                let unit = *u;
                let (date, span, span_arg, date_arg) = if ta == Date32 {
                    (a, b, &args[1], &args[0])
                } else {
                    (b, a, &args[0], &args[1])
                };
                let date = self.in_unit(date, &Date32, date_arg)?;
                let span = self.in_unit(span, &Duration(unit), span_arg)?;
                let valid = self.graph.both_valid(date.valid, span.valid);
                let (d, mut s) = (self.node_of(&date)?, self.node_of(&span)?);
                if id == F::Sub {
                    s = self.graph.add(
                        Op::Unary(Unary::Neg),
                        Prim::I64,
                        Repr::Num(Prim::I64),
                        &[s],
                    );
                }
                let days = self.scale_down(s, per_day(unit));
                // In 64 bits, where the sum of days cannot overflow.
                let wide = self.graph.cast(Prim::I32, Prim::I64, d);
                let sum = self.graph.arith(Arith::Add, Prim::I64, wide, days);
                if self.checked {
                    let fits = self.graph.add(Op::Fits(Prim::I32), Prim::I64, Repr::Bits, &[sum]);
                    let fails = self.graph.not(fits);
                    self.check_overflow(fails, valid, vec![d], &Date32, e);
                }
                let value = self.graph.cast(Prim::I64, Prim::I32, sum);
                Ok(node(Date32, value, valid))
            }
            (Timestamp(u, tz), Duration(v), F::Add | F::Sub) => {
                let unit = finer(*u, *v);
                let to = Timestamp(unit, tz.clone());
                let a = self.in_unit(a, &to, &args[0])?;
                let b = self.in_unit(b, &Duration(unit), &args[1])?;
                self.number_op(id, a, b, to, e)
            }
            (Duration(v), Timestamp(u, tz), F::Add) => {
                let unit = finer(*u, *v);
                let to = Timestamp(unit, tz.clone());
                let a = self.in_unit(a, &Duration(unit), &args[0])?;
                let b = self.in_unit(b, &to, &args[1])?;
                self.number_op(id, a, b, to, e)
            }
            (Duration(u), Duration(v), F::Add | F::Sub | F::Mod | F::Div | F::FloorDiv) => {
                let unit = finer(*u, *v);
                let a = self.in_unit(a, &Duration(unit), &args[0])?;
                let b = self.in_unit(b, &Duration(unit), &args[1])?;
                match id {
                    F::Div => {
                        let a = self.convert(a, &Float64)?;
                        let b = self.convert(b, &Float64)?;
                        self.number_op(id, a, b, Float64, e)
                    }
                    F::FloorDiv => self.number_op(id, a, b, Int64, e),
                    _ => self.number_op(id, a, b, Duration(unit), e),
                }
            }
            (Duration(u), n, F::Mul | F::FloorDiv) if n.is_integer() => {
                let to = Duration(*u);
                let a = self.in_unit(a, &to, &args[0])?;
                let b = self.in_unit(b, &Int64, &args[1])?;
                self.number_op(id, a, b, to, e)
            }
            (n, Duration(u), F::Mul) if n.is_integer() => {
                let to = Duration(*u);
                let a = self.in_unit(a, &Int64, &args[0])?;
                let b = self.in_unit(b, &to, &args[1])?;
                self.number_op(id, a, b, to, e)
            }
            (Null, t, _) | (t, Null, _) => {
                let t = t.clone();
                self.null_of(&t)
            }
            _ => Err(fail()),
        }
    }

    /// [`Lower::coerce`] of an operand of arithmetic: when checked, a time must fit a finer unit.
    fn in_unit(&mut self, t: Typed, to: &DataType, arg: &Expr) -> Result<Typed> {
        if self.checked
            && let Value::Node(v) = t.value
            && let Some(fits) = self.finer_fits(v, &t.dtype, to)
        {
            let fails = self.graph.not(fits);
            self.check_overflow(fails, t.valid, vec![v], &t.dtype, arg);
        }
        self.coerce(t, to, arg)
    }

    pub(super) fn compare(
        &mut self,
        op: Compare,
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        if a.dtype.is_string() && b.dtype.is_string() {
            return self.compare_strings(op, a, b);
        }
        for (t, arg) in [(&a, &args[0]), (&b, &args[1])] {
            if matches!(t.value, Value::Column(_)) && t.dtype != DataType::Null {
                let other = if std::ptr::eq(t, &a) { &b } else { &a };
                if t.dtype.is_string() && other.dtype != DataType::Null {
                    return Err(Error::TypeMismatch(format!(
                        "{e}: {arg} is {} and the other side is {}; {}",
                        t.dtype,
                        other.dtype,
                        advice(&a.dtype, &b.dtype)
                    )));
                }
                if !t.dtype.is_string() {
                    return Err(Error::Unsupported(format!(
                        "{e}: {arg} is {}, which insitu stores but does not compute on",
                        t.dtype
                    )));
                }
                return self.null_of(&DataType::Bool);
            }
        }
        if a.dtype == DataType::Null && b.dtype.is_string()
            || b.dtype == DataType::Null && a.dtype.is_string()
        {
            return self.null_of(&DataType::Bool);
        }
        let sides = [a.clone(), b.clone()];
        let (a, b) = self.unify(a, b, [&args[0], &args[1]], e)?;
        let valid = self.graph.both_valid(a.valid, b.valid);
        if a.dtype == DataType::Null {
            return self.null_of(&DataType::Bool);
        }
        if a.dtype == DataType::Float16 {
            return Err(Error::Unsupported(format!(
                "{e}: {}",
                advice(&DataType::Float16, &DataType::Float16)
            )));
        }
        let (x, y) = (self.node_of(&a)?, self.node_of(&b)?);
        let value = if a.dtype == DataType::Bool {
            match op {
                Compare::Eq => {
                    let ne = self.graph.bits(BitOp::Xor, &[x, y]);
                    self.graph.not(ne)
                }
                Compare::Ne => self.graph.bits(BitOp::Xor, &[x, y]),
                Compare::Lt => self.graph.bits(BitOp::AndNot, &[y, x]),
                Compare::Le => self.graph.bits(BitOp::OrNot, &[y, x]),
                Compare::Gt => self.graph.bits(BitOp::AndNot, &[x, y]),
                Compare::Ge => self.graph.bits(BitOp::OrNot, &[x, y]),
            }
        } else {
            let value = self.graph.compare(op, prim(&a.dtype)?, x, y);
            self.beyond_unit(op, value, &sides, &a.dtype)?
        };
        Ok(node(DataType::Bool, value, valid))
    }

    /// A comparison of times whose unit was made finer: where a time does not fit the finer unit
    /// it is beyond all that do, and its sign alone says on which side.
    fn beyond_unit(
        &mut self,
        op: Compare,
        value: Id,
        sides: &[Typed; 2],
        common: &DataType,
    ) -> Result<Id> {
        let mut value = value;
        for (side, op) in sides.iter().zip([op, op.flip()]) {
            let Value::Node(v) = side.value else { continue };
            let Some(fits) = self.finer_fits(v, &side.dtype, common) else { continue };
            let p = prim(&side.dtype)?;
            let zero = self.graph.number(p, 0);
            let answer = match op {
                Compare::Eq => self.graph.boolean(false),
                Compare::Ne => self.graph.boolean(true),
                Compare::Lt | Compare::Le => self.graph.compare(Compare::Lt, p, v, zero),
                Compare::Gt | Compare::Ge => self.graph.compare(Compare::Gt, p, v, zero),
            };
            value = self.graph.add(Op::SelectBits, Prim::U8, Repr::Bits, &[fits, value, answer]);
        }
        Ok(value)
    }

    pub(super) fn compare_strings(&mut self, op: Compare, a: Typed, b: Typed) -> Result<Typed> {
        let valid = self.graph.both_valid(a.valid, b.valid);
        let op = match (&a.value, &b.value) {
            (Value::Column(x), Value::Column(y)) => Op::StrColumns(op, *x, *y),
            (Value::Column(x), Value::Weak(Scalar::Str(s))) => {
                Op::StrCompare(op, *x, self.graph.text(s))
            }
            (Value::Weak(Scalar::Str(s)), Value::Column(y)) => {
                Op::StrCompare(op.flip(), *y, self.graph.text(s))
            }
            (Value::Weak(Scalar::Str(s)), Value::Weak(Scalar::Str(t))) => {
                let yes = match op {
                    Compare::Eq => s == t,
                    Compare::Ne => s != t,
                    Compare::Lt => s < t,
                    Compare::Le => s <= t,
                    Compare::Gt => s > t,
                    Compare::Ge => s >= t,
                };
                let value = self.graph.boolean(yes);
                return Ok(node(DataType::Bool, value, None));
            }
            _ => {
                return Err(Error::Unsupported(
                    "only string columns and string literals can be compared".into(),
                ));
            }
        };
        let value = self.graph.add(op, Prim::U8, Repr::Bits, &[]);
        Ok(node(DataType::Bool, value, valid))
    }

    pub(super) fn logic(&mut self, id: FunctionId, a: Typed, b: Typed) -> Result<Typed> {
        let (x, y) = (self.node_of(&a)?, self.node_of(&b)?);
        let (op, kleene) = match id {
            FunctionId::And => (BitOp::And, Some(BitOp::KleeneAnd)),
            FunctionId::Or => (BitOp::Or, Some(BitOp::KleeneOr)),
            _ => (BitOp::Xor, None),
        };
        let value = self.graph.bits(op, &[x, y]);
        let valid = match (a.valid, b.valid, kleene) {
            (None, None, _) => None,
            (v, w, None) => self.graph.both_valid(v, w),
            (v, w, Some(kleene)) => {
                let all = self.graph.boolean(true);
                let valid = self.graph.bits(kleene, &[x, v.unwrap_or(all), y, w.unwrap_or(all)]);
                (self.graph.known_bit(valid) != Some(true)).then_some(valid)
            }
        };
        Ok(node(DataType::Bool, value, valid))
    }

    /// A choice by a mask that is never null.
    pub(super) fn choose(&mut self, mask: Id, then: &Typed, otherwise: &Typed) -> Result<Typed> {
        let (x, y) = (self.node_of(then)?, self.node_of(otherwise)?);
        let value = match then.dtype.prim() {
            Some(p) => self.graph.add(Op::Select, p, Repr::Num(p), &[mask, x, y]),
            None => self.graph.add(Op::SelectBits, Prim::U8, Repr::Bits, &[mask, x, y]),
        };
        let valid = match (then.valid, otherwise.valid) {
            (None, None) => None,
            (v, w) => {
                let all = self.graph.boolean(true);
                let operands = [mask, v.unwrap_or(all), w.unwrap_or(all)];
                Some(self.graph.add(Op::SelectBits, Prim::U8, Repr::Bits, &operands))
            }
        };
        Ok(node(then.dtype.clone(), value, valid))
    }

    /// A chain of choices: condition, value, condition, value, ..., and the value where none holds.
    pub(super) fn when(&mut self, chain: Vec<Typed>, exprs: &[&Expr], e: &Expr) -> Result<Typed> {
        let last = chain.len().saturating_sub(1);
        let (mut masks, mut values, mut args) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (t, arg)) in chain.into_iter().zip(exprs).enumerate() {
            if i % 2 == 1 || i == last {
                values.push(t);
                args.push((*arg).clone());
                continue;
            }
            let c = self.as_bool(t, arg)?;
            let condition = self.node_of(&c)?;
            masks.push(match c.valid {
                Some(v) => self.graph.and(condition, v),
                None => condition,
            });
        }
        let mut values = self.common(values, &args, e, |t| no_strings(t, e).map(|()| t.clone()))?;
        let mut chosen =
            values.pop().ok_or_else(|| Error::InvalidPlan(format!("{e} is no choice")))?;
        if chosen.dtype == DataType::Null {
            return Ok(chosen);
        }
        for (mask, then) in masks.into_iter().zip(values).rev() {
            chosen = self.choose(mask, &then, &chosen)?;
        }
        Ok(chosen)
    }

    pub(super) fn fill_null(&mut self, a: Typed, b: Typed, args: Args, e: &Expr) -> Result<Typed> {
        if a.valid.is_none() && a.value.weak().is_none() && a.dtype == b.dtype {
            return Ok(a);
        }
        if a.valid.is_none()
            && a.dtype.is_string()
            && b.dtype.is_string()
            && matches!(a.value, Value::Column(_))
        {
            return Ok(a);
        }
        let (a, b) = self.unify_choice(a, b, [&args[0], &args[1]], e)?;
        self.first_valid(a, b)
    }

    pub(super) fn fill_nan(&mut self, a: Typed, b: Typed, args: Args, e: &Expr) -> Result<Typed> {
        let own = self.side_type(&a, &b);
        if !own.is_numeric() && own != DataType::Null {
            return Err(mismatch(e, &args[0], &own, "a number"));
        }
        let replacement = self.side_type(&b, &a);
        if !replacement.is_numeric() && replacement != DataType::Null {
            return Err(mismatch(e, &args[1], &replacement, "a number"));
        }
        if !own.is_float() {
            return self.settled(a);
        }
        let (a, b) = self.unify(a, b, [&args[0], &args[1]], e)?;
        let v = self.node_of(&a)?;
        let nan = self.graph.unary(Unary::IsNan, prim(&a.dtype)?, v);
        let mask = match a.valid {
            Some(valid) => self.graph.and(nan, valid),
            None => nan,
        };
        self.choose(mask, &b, &a)
    }

    /// Equal or both null, or the opposite.
    pub(super) fn missing(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        let (v, w) = (self.known(&a), self.known(&b));
        let equal = self.compare(Compare::Eq, a, b, args, e)?;
        let equal = self.node_of(&equal)?;
        let both = self.graph.and(v, w);
        let equal = self.graph.and(both, equal);
        let any = self.graph.bits(BitOp::Or, &[v, w]);
        let neither = self.graph.not(any);
        let mut value = self.graph.bits(BitOp::Or, &[equal, neither]);
        if id == FunctionId::NeMissing {
            value = self.graph.not(value);
        }
        Ok(node(DataType::Bool, value, None))
    }
}
