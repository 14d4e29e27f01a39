//! Lowering of casts, with their checks, and of membership in a set of literals.

use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{Arith, BitOp, Compare, cast_fits};

use crate::compile::convert::*;
use crate::compile::graph::{Id, Op, Repr};
use crate::compile::lower::*;
use crate::dtype::{DataType, TimeUnit};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::scalar::Scalar;
use crate::typing::{natural, per_day, scalar_bits};

impl Lower<'_> {
    pub(super) fn is_in(&mut self, t: Typed, values: &[Scalar], input: &Expr) -> Result<Typed> {
        let values: Vec<&Scalar> = values.iter().filter(|v| !matches!(v, Scalar::Null)).collect();
        if t.dtype.is_string() {
            if let Some(v) = values.iter().find(|v| !matches!(v, Scalar::Str(_))) {
                return Err(Error::TypeMismatch(format!(
                    "{input}.is_in: {input} is {} and {v} is not a string",
                    t.dtype
                )));
            }
            let value = match &t.value {
                Value::Column(c) => {
                    let set = values.iter().map(|v| (*v).clone()).collect();
                    self.graph.text_sets.push(set);
                    let set = self.graph.text_sets.len() as u32 - 1;
                    self.graph.add(Op::StrIn(*c, set), Prim::U8, Repr::Bits, &[])
                }
                Value::Weak(s) => self.graph.boolean(values.contains(&s)),
                Value::Node(_) | Value::Param(..) | Value::Set(_) => {
                    return Err(Error::Unsupported(format!("{input}.is_in")));
                }
            };
            return Ok(node(DataType::Bool, value, t.valid));
        }
        let t = self.settled(t)?;
        if t.dtype == DataType::Null {
            return self.null_of(&DataType::Bool);
        }
        let x = self.node_of(&t)?;
        let mut set = Vec::with_capacity(values.len());
        for v in values {
            let comparable = matches!(
                (v, &t.dtype),
                (Scalar::Int(_) | Scalar::UInt(_) | Scalar::Float(_), d) if d.is_numeric()
            ) || matches!((v, &t.dtype), (Scalar::Bool(_), DataType::Bool))
                || (t.dtype.is_temporal() && natural(v).is_temporal());
            if !comparable {
                return Err(Error::TypeMismatch(format!(
                    "{input}.is_in: {input} is {} and {v} is {}; {}",
                    t.dtype,
                    natural(v),
                    advice(&t.dtype, &natural(v))
                )));
            }
            // What the type cannot hold equals none of its values.
            set.extend(scalar_bits(v, &t.dtype).filter(|b| exact(v, *b, &t.dtype)));
        }
        set.sort_unstable();
        set.dedup();
        let value = match prim(&t.dtype) {
            Err(_) => {
                // Booleans.
                let (no, yes) = (set.contains(&0), set.contains(&1));
                match (no, yes) {
                    (true, true) => self.graph.boolean(true),
                    (false, false) => self.graph.boolean(false),
                    (false, true) => x,
                    (true, false) => self.graph.not(x),
                }
            }
            Ok(p) if set.len() <= 8 => {
                let mut any = self.graph.boolean(false);
                for v in set {
                    let c = self.graph.number(p, v);
                    let hit = self.graph.compare(Compare::Eq, p, x, c);
                    any = self.graph.bits(BitOp::Or, &[any, hit]);
                }
                any
            }
            Ok(p) => {
                if p.is_float() {
                    // Both zeros are one number.
                    let negative = if p == Prim::F32 { 1u64 << 31 } else { 1 << 63 };
                    if set.contains(&negative) || set.contains(&0) {
                        set.extend([0, negative]);
                        set.sort_unstable();
                        set.dedup();
                    }
                }
                self.graph.num_sets.push(set.into());
                let set = self.graph.num_sets.len() as u32 - 1;
                self.graph.add(Op::NumIn(set), p, Repr::Bits, &[x])
            }
        };
        Ok(node(DataType::Bool, value, t.valid))
    }

    pub(super) fn cast(
        &mut self,
        t: Typed,
        to: &DataType,
        strict: bool,
        input: &Expr,
    ) -> Result<Typed> {
        use DataType::*;
        let t = self.settled(t)?;
        if t.dtype == *to {
            return Ok(t);
        }
        if t.dtype == Null {
            return self.null_of(to);
        }
        if t.dtype == Float16 {
            let half = self.node_of(&t)?;
            let value = self.graph.add(Op::FromHalf, Prim::U16, Repr::Num(Prim::F32), &[half]);
            return self.cast(node(Float32, value, t.valid), to, strict, input);
        }
        let number = |d: &DataType| d.is_numeric() || *d == Bool;
        if *to == Float16 && number(&t.dtype) {
            // By way of float64, which has them all or is further from the limits than float16.
            let t = self.convert(t, &Float64)?;
            let v = self.node_of(&t)?;
            let value = self.graph.add(Op::ToHalf, Prim::F64, Repr::Num(Prim::U16), &[v]);
            return Ok(node(Float16, value, t.valid));
        }
        let time = |d: &DataType| matches!(d, Date32 | Date64 | Timestamp(..));
        let possible = match (&t.dtype, to) {
            (a, b) if number(a) && number(b) => true,
            (a, b) if a.is_temporal() && number(b) => true,
            (a, b) if number(a) && b.is_temporal() => true,
            (Timestamp(_, a), Timestamp(_, b)) => a.is_some() == b.is_some(),
            (Timestamp(_, tz), Date32 | Date64) | (Date32 | Date64, Timestamp(_, tz)) => {
                tz.is_none()
            }
            (a, b) if time(a) && time(b) => true,
            (Duration(_), Duration(_)) => true,
            (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
            _ => false,
        };
        if !possible {
            return Err(Error::Unsupported(format!(
                "cast of {input} from {} to {to}: not implemented{}",
                t.dtype,
                match (&t.dtype, to) {
                    (Timestamp(..), Timestamp(..)) =>
                        "; adding or dropping a time zone needs a calendar",
                    (a, b) if a.is_string() || b.is_string() =>
                        " between strings and other types yet",
                    _ => "",
                }
            )));
        }
        // Numbers and times meet at the times' own integers.
        let (from, target) = (physical(&t.dtype, to), physical(to, &t.dtype));
        let t = Typed { dtype: from.clone(), ..t };
        let v = self.node_of(&t)?;
        let fits = match (&from, &target) {
            (a, b) if number(a) && number(b) && *a != Bool && *b != Bool => {
                let (p, q) = (prim(a)?, prim(b)?);
                // No kernel: every value fits. (A constant's node has none either, but it is the
                // answer already: the type is asked, not the node.)
                cast_fits(p, q, Level::Baseline)
                    .map(|_| self.graph.add(Op::Fits(q), p, Repr::Bits, &[v]))
            }
            (Timestamp(u, _), Date32) => {
                let days = self.scale_down(v, per_day(*u));
                Some(self.graph.add(Op::Fits(Prim::I32), Prim::I64, Repr::Bits, &[days]))
            }
            (Date64, Date32) => {
                let days = self.scale_down(v, 86_400_000);
                Some(self.graph.add(Op::Fits(Prim::I32), Prim::I64, Repr::Bits, &[days]))
            }
            (Time32(u) | Time64(u), Time32(w)) => {
                let wide = self.graph.cast(prim(&from)?, Prim::I64, v);
                let there = self.rescaled(wide, *u, *w);
                Some(self.graph.add(Op::Fits(Prim::I32), Prim::I64, Repr::Bits, &[there]))
            }
            (a, b) => self.finer_fits(v, a, b),
        }
        .filter(|f| self.graph.known_bit(*f) != Some(true));
        let mut out = self.convert(t, &target)?;
        out.dtype = to.clone();
        if let Some(fits) = fits {
            if strict {
                let mut fails = self.graph.not(fits);
                if let Some(valid) = out.valid {
                    fails = self.graph.and(fails, valid);
                }
                self.checks.push(Check {
                    fails,
                    values: vec![v],
                    dtype: from,
                    kind: CheckKind::Cast { what: input.to_string(), to: to.clone() },
                });
            } else {
                out.valid = self.graph.both_valid(out.valid, Some(fits));
            }
        }
        Ok(out)
    }

    /// Rows whose time stays in 64 bits in a finer unit; none if all do.
    pub(super) fn finer_fits(&mut self, v: Id, from: &DataType, to: &DataType) -> Option<Id> {
        use DataType::*;
        match (from, to) {
            (Timestamp(u, _), Timestamp(w, _))
            | (Duration(u), Duration(w))
            | (Time64(u), Time64(w))
                if w > u =>
            {
                Some(self.mul_fits(v, w.per_second() / u.per_second()))
            }
            (Date32, Timestamp(u, _)) => {
                let wide = self.graph.cast(Prim::I32, Prim::I64, v);
                Some(self.mul_fits(wide, per_day(*u)))
            }
            (Date64, Timestamp(u, _)) if *u > TimeUnit::Millisecond => {
                Some(self.mul_fits(v, u.per_second() / 1000))
            }
            _ => None,
        }
    }

    /// Rows whose value times a constant stays in 64 bits.
    pub(super) fn mul_fits(&mut self, v: Id, by: i64) -> Id {
        let c = self.graph.number(Prim::I64, by as u64);
        let over = self.graph.add(Op::Overflows(Arith::Mul), Prim::I64, Repr::Bits, &[v, c]);
        self.graph.not(over)
    }

    pub(super) fn check_overflow(
        &mut self,
        fails: Id,
        valid: Option<Id>,
        values: Vec<Id>,
        dtype: &DataType,
        e: &Expr,
    ) {
        let fails = match valid {
            Some(v) => self.graph.and(fails, v),
            None => fails,
        };
        if self.graph.known_bit(fails) == Some(false) {
            return;
        }
        let dtype = dtype.prim().map_or(DataType::Int64, DataType::of_prim);
        let kind = CheckKind::Overflow { what: e.to_string() };
        self.checks.push(Check { fails, values, dtype, kind });
    }
}
