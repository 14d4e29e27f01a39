//! Lowering of functions of any number of values in a row: the first that is not null, the smallest
//! and the largest, sums, means, and logic.

use insitu_kernels::tile::{Arith, BitOp, Pair};

use crate::compile::convert::*;
use crate::compile::graph::{Id, Op, Repr};
use crate::compile::lower::*;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::FunctionId;
use crate::scalar::Scalar;
use crate::typing::natural;

impl Lower<'_> {
    pub(super) fn horizontal(
        &mut self,
        id: FunctionId,
        inputs: Vec<Typed>,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        use FunctionId as F;
        if inputs.is_empty() {
            return Err(Error::InvalidArgument(format!("{e}: give it at least one expression")));
        }
        match id {
            F::AllHorizontal | F::AnyHorizontal => {
                let op = if id == F::AllHorizontal { F::And } else { F::Or };
                let mut all: Option<Typed> = None;
                for (t, arg) in inputs.into_iter().zip(args) {
                    let t = self.as_bool(t, arg)?;
                    all = Some(match all {
                        None => t,
                        Some(before) => self.logic(op, before, t)?,
                    });
                }
                all.ok_or_else(|| Error::InvalidPlan(format!("{e} lacks an argument")))
            }
            F::Coalesce => {
                let values =
                    self.common(inputs, args, e, |t| no_strings(t, e).map(|()| t.clone()))?;
                self.folded(values, |lower, first, next| lower.first_valid(first, next))
            }
            F::MinHorizontal | F::MaxHorizontal => {
                let values = self.common(inputs, args, e, |t| match t {
                    DataType::Null | DataType::Bool => Ok(t.clone()),
                    t if t.is_numeric() || t.is_temporal() => Ok(t.clone()),
                    t => Err(wrong(e, t, "numbers, booleans or times")),
                })?;
                let least = id == F::MinHorizontal;
                self.folded(values, |lower, a, b| lower.extreme(least, a, b))
            }
            F::SumHorizontal | F::MeanHorizontal => {
                let mean = id == F::MeanHorizontal;
                let values = self.common(inputs, args, e, |t| match t {
                    DataType::Null => Ok(DataType::Null),
                    DataType::Float32 => Ok(DataType::Float32),
                    DataType::Bool if !mean => Ok(DataType::Int64),
                    t if mean && (t.is_numeric() || *t == DataType::Bool) => Ok(DataType::Float64),
                    t if t.is_numeric() => Ok(t.clone()),
                    DataType::Duration(_) if !mean => Ok(t.clone()),
                    t if mean => Err(wrong(e, t, "numbers")),
                    t => Err(wrong(e, t, "numbers or durations")),
                })?;
                self.totals(values, mean, e)
            }
            _ => Err(Error::Unsupported(format!("{e}: {} is not implemented yet", id.function()))),
        }
    }

    /// All values in one type: `to` says which, of the common one.
    pub(super) fn common(
        &mut self,
        inputs: Vec<Typed>,
        args: Args,
        e: &Expr,
        to: impl Fn(&DataType) -> Result<DataType>,
    ) -> Result<Vec<Typed>> {
        // Literals are weak beside the columns' common type.
        let mut common = DataType::Null;
        for t in inputs.iter().filter(|t| t.value.weak().is_none()) {
            let both = common_type(&common, &t.dtype);
            common = both.ok_or_else(|| no_common(e, &common, &t.dtype))?;
        }
        let beside = common.clone();
        for t in &inputs {
            let Some(s) = t.value.weak() else { continue };
            let own = match beside {
                DataType::Null => natural(s),
                _ => self.literal_type(s, &beside),
            };
            let both = common_type(&common, &own);
            common = both.ok_or_else(|| no_common(e, &common, &own))?;
        }
        let to = to(&common)?;
        inputs.into_iter().zip(args).map(|(t, arg)| self.coerce(t, &to, arg)).collect()
    }

    fn folded(
        &mut self,
        values: Vec<Typed>,
        mut step: impl FnMut(&mut Self, Typed, Typed) -> Result<Typed>,
    ) -> Result<Typed> {
        let mut values = values.into_iter();
        let first = values.next();
        let mut out = first.ok_or_else(|| Error::InvalidPlan("no values to choose from".into()))?;
        for next in values {
            out = step(self, out, next)?;
        }
        Ok(out)
    }

    /// The first of two values of one type that is not null.
    pub(super) fn first_valid(&mut self, a: Typed, b: Typed) -> Result<Typed> {
        match a.valid {
            None => Ok(a),
            Some(_) if a.dtype == DataType::Null => Ok(a),
            Some(v) => {
                let value = Typed { valid: None, ..a };
                let chosen = self.choose(v, &value, &Typed { valid: None, ..b.clone() })?;
                let valid = b.valid.map(|w| self.graph.bits(BitOp::Or, &[v, w]));
                Ok(Typed { valid, ..chosen })
            }
        }
    }

    /// The smaller or larger of two values of one type; of null and a value the value.
    fn extreme(&mut self, least: bool, a: Typed, b: Typed) -> Result<Typed> {
        if a.dtype == DataType::Null {
            return Ok(a);
        }
        let valid = match (a.valid, b.valid) {
            (Some(v), Some(w)) => Some(self.graph.bits(BitOp::Or, &[v, w])),
            _ => None,
        };
        // A null stands back for the other value.
        let bare = |t: &Typed| Typed { valid: None, ..t.clone() };
        let mut sides = [self.node_of(&a)?, self.node_of(&b)?];
        for (side, (own, other)) in sides.iter_mut().zip([(&a, &b), (&b, &a)]) {
            if let Some(v) = own.valid {
                let stands = self.choose(v, &bare(own), &bare(other))?;
                *side = self.node_of(&stands)?;
            }
        }
        let [x, y] = sides;
        let value = match a.dtype.prim() {
            Some(p) => {
                let op = if least { Pair::Min } else { Pair::Max };
                if x == y { x } else { self.graph.pair(op, p, x, y) }
            }
            None => self.graph.bits(if least { BitOp::And } else { BitOp::Or }, &[x, y]),
        };
        Ok(node(a.dtype, value, valid))
    }

    /// Sum or mean of values of one type, nulls left out.
    fn totals(&mut self, values: Vec<Typed>, mean: bool, e: &Expr) -> Result<Typed> {
        let dtype = match values.first() {
            Some(t) if t.dtype == DataType::Null => {
                let to = if mean { DataType::Float64 } else { DataType::Int64 };
                return if mean {
                    self.null_of(&to)
                } else {
                    self.literal(&Value::Weak(Scalar::Int(0)), &to, "0")
                };
            }
            Some(t) => t.dtype.clone(),
            None => return Err(Error::InvalidPlan(format!("{e} lacks an argument"))),
        };
        let p = prim(&dtype)?;
        let zero = self.graph.number(p, 0);
        let (mut known, mut counted): (u32, Option<Id>) = (0, None);
        let mut some: Vec<Id> = Vec::new();
        let mut sum: Option<Typed> = None;
        for t in values {
            let v = self.node_of(&t)?;
            let v = match t.valid {
                None => {
                    known += 1;
                    v
                }
                Some(valid) => {
                    some.push(valid);
                    if mean {
                        let one = self.graph.add(Op::BoolToNum, p, Repr::Num(p), &[valid]);
                        counted = Some(match counted {
                            Some(n) => self.graph.arith(Arith::Add, p, n, one),
                            None => one,
                        });
                    }
                    self.graph.add(Op::Select, p, Repr::Num(p), &[valid, v, zero])
                }
            };
            let t = node(dtype.clone(), v, None);
            sum = Some(match sum {
                None => t,
                Some(before) => self.number_op(FunctionId::Add, before, t, dtype.clone(), e)?,
            });
        }
        let sum = sum.ok_or_else(|| Error::InvalidPlan(format!("{e} lacks an argument")))?;
        if !mean {
            return Ok(sum);
        }
        let known_bits = match dtype {
            DataType::Float32 => u64::from((known as f32).to_bits()),
            _ => f64::from(known).to_bits(),
        };
        let certain = self.graph.number(p, known_bits);
        let count = match counted {
            Some(n) => self.graph.arith(Arith::Add, p, n, certain),
            None => certain,
        };
        let total = self.node_of(&sum)?;
        let value = self.graph.arith(Arith::Div, p, total, count);
        let valid = if known > 0 {
            None
        } else {
            some.into_iter().reduce(|a, b| self.graph.bits(BitOp::Or, &[a, b]))
        };
        Ok(node(dtype, value, valid))
    }
}

fn no_common(e: &Expr, a: &DataType, b: &DataType) -> Error {
    Error::TypeMismatch(format!("{e}: {a} and {b} have no common type; {}", advice(a, b)))
}

fn wrong(e: &Expr, t: &DataType, want: &str) -> Error {
    Error::TypeMismatch(format!("{e}: its values are {t}, it needs {want}"))
}
