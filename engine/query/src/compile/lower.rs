//! Lowering: an expression over named columns becomes typed nodes of the graph. Types are checked
//! here; the rules are those of `typing`.
//!
//! Validity is lowered beside the value, as bitmap nodes of its own; a column without nulls has
//! none, and then nothing is computed for it. Values under a null are arbitrary.

use std::sync::Arc;

use insitu_kernels::tile::{Compare, Unary};
use rustc_hash::FxHashMap;

use crate::compile::convert::*;
use crate::compile::graph::{Graph, Id, Op, Repr};
use crate::compile::math::{of_floats, transcendental};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::{Expr, ExprKind, Node as ExprNode};
use crate::functions::{FunctionId, FunctionKind};
use crate::scalar::Scalar;
use crate::typing::{Class, natural};

/// What an expression came to.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) dtype: DataType,
    pub(crate) value: Value,
    /// The rows that are not null; none if all are.
    pub(crate) valid: Option<Id>,
}

/// Where the value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// In the graph.
    Node(Id),
    /// A source column that the graph does not compute values of: strings and opaque types.
    Column(u32),
    /// A literal that has not met a column yet.
    Weak(Scalar),
    /// A number for a parameter, likewise. Other values of its class may come later: what is
    /// compiled depends on its class alone (see `typing::Class`).
    Param(Arc<str>, Scalar),
    /// A column of strings of which some rows are set.
    Set(SetRows),
}

impl Value {
    /// What is a literal, or stands for one, until it meets a column.
    pub(crate) fn weak(&self) -> Option<&Scalar> {
        match self {
            Value::Weak(s) | Value::Param(_, s) => Some(s),
            _ => None,
        }
    }
}

/// A source column of strings of which some rows are set.
#[derive(Clone, Debug)]
pub(crate) struct SetRows {
    pub(crate) column: u32,
    /// The rows that are set, in the graph.
    pub(crate) rows: Id,
    pub(crate) to: Text,
}

/// What strings are set to.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// All to the same.
    Literal(Arc<str>),
    /// Each to what another source column of the type has in the row.
    Column(u32),
    Null,
}

/// A row check that ends the run where a bit is set.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) fails: Id,
    /// The values to report, and their type.
    pub(crate) values: Vec<Id>,
    pub(crate) dtype: DataType,
    pub(crate) kind: CheckKind,
}

/// What a failed check reports.
#[derive(Clone, Debug)]
pub(crate) enum CheckKind {
    /// `CastFailed`.
    Cast { what: String, to: DataType },
    /// `Overflow` of an operator.
    Overflow { what: String },
    /// A null that a column declared without would get.
    Null { column: Arc<str> },
}

/// A named column of the step before.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    pub(crate) typed: Typed,
}

/// Lowers the expressions of one step.
pub(crate) struct Lower<'a> {
    pub(crate) graph: &'a mut Graph,
    pub(crate) columns: &'a [Named],
    pub(crate) params: &'a [(&'a str, Scalar)],
    /// Parameters without a value stand for a null: only types are wanted.
    pub(crate) types_only: bool,
    pub(crate) checked: bool,
    pub(crate) checks: Vec<Check>,
}

pub(super) type Args<'e> = &'e [Expr];

impl Lower<'_> {
    /// Lowers an expression without aggregates.
    pub(crate) fn expr(&mut self, root: &Expr) -> Result<Typed> {
        // Post-order with a stack of our own: depth costs no stack, shared parts are lowered once.
        let mut done: FxHashMap<*const ExprNode, Typed> = FxHashMap::default();
        let mut stack = vec![(root, false)];
        while let Some((e, ready)) = stack.pop() {
            let key = Arc::as_ptr(&e.0);
            if done.contains_key(&key) {
                continue;
            }
            if !ready {
                stack.push((e, true));
                stack.extend(inputs_of(e).into_iter().map(|c| (c, false)));
                continue;
            }
            let inputs: Vec<Typed> =
                inputs_of(e).iter().filter_map(|c| done.get(&Arc::as_ptr(&c.0)).cloned()).collect();
            let typed = self.combine(e, inputs)?;
            done.insert(key, typed);
        }
        done.remove(&Arc::as_ptr(&root.0))
            .ok_or_else(|| Error::InvalidPlan("an expression was lost while it was typed".into()))
    }

    /// The value of a literal or a column as a node (or column), after all weak typing.
    pub(crate) fn settled(&mut self, t: Typed) -> Result<Typed> {
        match t.value.weak() {
            Some(s) => {
                let dtype = natural(s);
                self.literal(&t.value, &dtype, "a literal")
            }
            None => Ok(t),
        }
    }

    pub(super) fn combine(&mut self, e: &Expr, inputs: Vec<Typed>) -> Result<Typed> {
        let mut inputs = inputs.into_iter();
        let mut next =
            || inputs.next().ok_or_else(|| Error::InvalidPlan(format!("{e} lacks an argument")));
        match e.kind() {
            ExprKind::Column(name) => {
                let mut found = self.columns.iter().filter(|c| c.name == *name);
                match (found.next(), found.next()) {
                    (Some(c), None) => Ok(c.typed.clone()),
                    (Some(_), Some(_)) => Err(Error::InvalidPlan(format!(
                        "several columns are named {name:?}; rename them before computing on them"
                    ))),
                    (None, _) => Err(crate::schema::unknown_column(
                        name,
                        self.columns.iter().map(|c| &*c.name),
                    )),
                }
            }
            ExprKind::Literal(s) => Ok(weak(s.clone())),
            ExprKind::Param(name) => match self.params.iter().find(|(n, _)| **n == **name) {
                Some((_, s)) if Class::of(s).is_some() => Ok(Typed {
                    dtype: natural(s),
                    value: Value::Param(name.clone(), s.clone()),
                    valid: None,
                }),
                Some((_, s)) => Ok(weak(s.clone())),
                None if self.types_only => Ok(weak(Scalar::Null)),
                None => Err(Error::InvalidArgument(format!(
                    "the parameter {name:?} has no value; give one when the query runs"
                ))),
            },
            ExprKind::Alias { .. } => next(),
            ExprKind::Cast { input, dtype, strict } => {
                let t = next()?;
                self.cast(t, dtype, *strict, input)
            }
            ExprKind::IsIn { input, values } => {
                let t = next()?;
                self.is_in(t, values, input)
            }
            ExprKind::When { .. } => {
                let all = inputs_of(e);
                let inputs = all.iter().map(|_| next()).collect::<Result<Vec<_>>>()?;
                self.when(inputs, &all, e)
            }
            ExprKind::Call(f, args) => {
                if f.kind == FunctionKind::Aggregate {
                    return Err(Error::InvalidPlan(format!(
                        "{e} aggregates, which is not possible here: aggregates stand in select and agg, not inside other aggregates, filters or keys"
                    )));
                }
                if f.kind == FunctionKind::Cumulative {
                    return Err(Error::Unsupported(format!(
                        "{e}: a running value of what is aggregated is not possible here; compute what is inside with with_columns first"
                    )));
                }
                match args.len() {
                    _ if f.kind == FunctionKind::Horizontal => {
                        let all = args.iter().map(|_| next()).collect::<Result<Vec<_>>>()?;
                        self.horizontal(f.id, all, args, e)
                    }
                    1 => {
                        let a = next()?;
                        self.call1(f.id, a, args, e)
                    }
                    2 => {
                        let (a, b) = (next()?, next()?);
                        self.call2(f.id, a, b, args, e)
                    }
                    _ => {
                        let (a, b, c) = (next()?, next()?, next()?);
                        self.call3(f.id, a, b, c, args, e)
                    }
                }
            }
            ExprKind::TooLarge => e.check_limits().and_then(|()| next()),
        }
    }

    pub(super) fn call1(
        &mut self,
        id: FunctionId,
        a: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        use FunctionId as F;
        if let Some(op) = transcendental(id) {
            return self.transcendental(op, a, args, e);
        }
        match id {
            F::IsNull | F::IsNotNull => {
                let valid = self.known(&a);
                let value = if id == F::IsNull { self.graph.not(valid) } else { valid };
                Ok(node(DataType::Bool, value, None))
            }
            F::Not => self.complement(a, args),
            F::CountOnes
            | F::CountZeros
            | F::LeadingOnes
            | F::LeadingZeros
            | F::TrailingOnes
            | F::TrailingZeros => self.count_of_bits(id, a, args, e),
            F::Neg | F::Abs | F::Sign | F::Sqrt | F::Floor | F::Ceil | F::Trunc => {
                let a = self.settled(a)?;
                let duration =
                    matches!(a.dtype, DataType::Duration(_)) && matches!(id, F::Neg | F::Abs);
                if a.dtype == DataType::Null {
                    return Ok(a);
                }
                if !a.dtype.is_numeric() && !duration {
                    return Err(mismatch(e, &args[0], &a.dtype, "a number; cast it first"));
                }
                let a = if id == F::Sqrt && !a.dtype.is_float() {
                    self.coerce(a, &DataType::Float64, &args[0])?
                } else {
                    a
                };
                let p = prim(&a.dtype)?;
                let v = self.node_of(&a)?;
                let op = match id {
                    F::Neg => Unary::Neg,
                    F::Abs if p.is_unsigned() => return Ok(a),
                    F::Abs => Unary::Abs,
                    F::Sign => Unary::Sign,
                    F::Sqrt => Unary::Sqrt,
                    // Integers are whole already.
                    _ if p.is_integer() => return Ok(a),
                    F::Floor => Unary::Floor,
                    F::Trunc => Unary::Trunc,
                    _ => Unary::Ceil,
                };
                if self.checked && p.is_integer() && op != Unary::Sign {
                    let fails = if p.is_unsigned() {
                        let zero = self.graph.number(p, 0);
                        self.graph.compare(Compare::Ne, p, v, zero)
                    } else {
                        let over = if op == Unary::Neg {
                            Unary::NegOverflows
                        } else {
                            Unary::AbsOverflows
                        };
                        self.graph.add(Op::Unary(over), p, Repr::Bits, &[v])
                    };
                    self.check_overflow(fails, a.valid, vec![v], &a.dtype, e);
                }
                let value = self.graph.add(Op::Unary(op), p, Repr::Num(p), &[v]);
                Ok(node(a.dtype, value, a.valid))
            }
            F::IsNan | F::IsNotNan | F::IsFinite | F::IsInfinite => {
                let a = self.settled(a)?;
                if a.dtype == DataType::Null {
                    return self.null_of(&DataType::Bool);
                }
                if !a.dtype.is_numeric() {
                    return Err(mismatch(e, &args[0], &a.dtype, "a number"));
                }
                let p = prim(&a.dtype)?;
                let v = self.node_of(&a)?;
                let value = if p.is_integer() {
                    self.graph.boolean(!matches!(id, F::IsNan | F::IsInfinite))
                } else {
                    let op = match id {
                        F::IsFinite => Unary::IsFinite,
                        F::IsInfinite => Unary::IsInfinite,
                        _ => Unary::IsNan,
                    };
                    let bit = self.graph.add(Op::Unary(op), p, Repr::Bits, &[v]);
                    if id == F::IsNotNan { self.graph.not(bit) } else { bit }
                };
                Ok(node(DataType::Bool, value, a.valid))
            }
            _ => Err(Error::Unsupported(format!("{e}: {} is not implemented yet", id.function()))),
        }
    }

    /// Which rows are not null.
    pub(super) fn known(&mut self, t: &Typed) -> Id {
        match (t.value.weak(), t.valid) {
            (Some(s), _) => {
                let known = !matches!(s, Scalar::Null);
                self.graph.boolean(known)
            }
            (_, Some(v)) => v,
            (_, None) => self.graph.boolean(t.dtype != DataType::Null),
        }
    }

    pub(super) fn call2(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        use FunctionId as F;
        if let Some(op) = of_floats(id) {
            return self.of_floats((id, op), a, b, args, e);
        }
        let compare = match id {
            F::Eq => Compare::Eq,
            F::Ne => Compare::Ne,
            F::Lt => Compare::Lt,
            F::Le => Compare::Le,
            F::Gt => Compare::Gt,
            F::Ge => Compare::Ge,
            F::And | F::Or | F::Xor => return self.logic_or_bits(id, a, b, args, e),
            F::ShiftLeft | F::ShiftRight => return self.bits_of_integers(id, a, b, args, e),
            F::FillNull => return self.fill_null(a, b, args, e),
            F::Pow => return self.power(a, b, args, e),
            F::FillNan => return self.fill_nan(a, b, args, e),
            F::EqMissing | F::NeMissing => return self.missing(id, a, b, args, e),
            F::Round => return self.round(a, &b, args, e),
            F::Diff => return self.diff(a, &b, args, e),
            F::PctChange => return self.pct_change(a, &b, args, e),
            _ => return self.arithmetic(id, a, b, args, e),
        };
        self.compare(compare, a, b, args, e)
    }

    pub(super) fn call3(
        &mut self,
        id: FunctionId,
        a: Typed,
        b: Typed,
        c: Typed,
        args: Args,
        e: &Expr,
    ) -> Result<Typed> {
        match id {
            FunctionId::IsBetween => {
                let low = [args[0].clone(), args[1].clone()];
                let high = [args[0].clone(), args[2].clone()];
                let above = self.compare(Compare::Ge, a.clone(), b, &low, e)?;
                let below = self.compare(Compare::Le, a, c, &high, e)?;
                self.logic(FunctionId::And, above, below)
            }
            FunctionId::Shift => self.shift(a, b, &c, args, e),
            FunctionId::Clip => {
                let mut out = a;
                for (bound, arg, op) in [(b, &args[1], Compare::Lt), (c, &args[2], Compare::Gt)] {
                    let (v, bound) = self.unify(out, bound, [&args[0], arg], e)?;
                    if !v.dtype.is_numeric() && !v.dtype.is_temporal() {
                        return Err(mismatch(e, &args[0], &v.dtype, "a number or a time"));
                    }
                    let p = prim(&v.dtype)?;
                    let (x, y) = (self.node_of(&v)?, self.node_of(&bound)?);
                    let outside = self.graph.compare(op, p, x, y);
                    let value = self.graph.add(Op::Select, p, Repr::Num(p), &[outside, y, x]);
                    let valid = self.graph.both_valid(v.valid, bound.valid);
                    out = node(v.dtype, value, valid);
                }
                Ok(out)
            }
            _ => Err(Error::Unsupported(format!("{e}: {} is not implemented yet", id.function()))),
        }
    }
}

/// What an expression is made of. A chain of choices is one: condition, value, condition, value, ...,
/// and the value where none holds; so all its values have one type, beside which literals are weak.
fn inputs_of(e: &Expr) -> Vec<&Expr> {
    let mut at = e;
    let mut chain = Vec::new();
    while let ExprKind::When { condition, then, otherwise } = at.kind() {
        chain.extend([condition, then]);
        at = otherwise;
    }
    if chain.is_empty() {
        return e.kind().children();
    }
    chain.push(at);
    chain
}
