//! Functions of other rows that no tile program computes beside the rest: running values, and
//! shifts of what is not a number. They are taken out of expressions into a stage of their own,
//! which gives them as hidden columns; what is around them reads these.
//!
//! A running value is of the rows as they are where the step stands, so filters end their stage
//! first. One stage scans in one direction, and what is inside a running value comes a stage
//! earlier.

use std::collections::HashMap;
use std::sync::Arc;

use insitu_kernels::scan::Scan;

use crate::compile::builder::Builder;
use crate::compile::lower::{Text, Typed, Value};
use crate::compile::planner::{Planner, hidden};
use crate::compile::split::{free_columns, rebuilt};
use crate::compile::stage::{Kind, OutColumn, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::{Expr, ExprKind};
use crate::functions::{Function, FunctionId, FunctionKind, TypeRule};
use crate::scalar::Scalar;
use crate::typing::{product_type, sum_type};

/// A running value that a stage makes.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    pub(crate) scan: Scan,
    /// As it was written.
    pub(crate) text: Arc<str>,
}

/// A source column of strings, moved along the rows.
#[derive(Clone, Debug)]
pub(crate) struct ShiftedText {
    pub(crate) column: u32,
    /// By so many rows.
    pub(crate) by: i64,
    /// What stands where there is no such row: a literal, or null.
    pub(crate) fill: Text,
}

/// What one stage is to give.
#[derive(Default)]
struct Round {
    outputs: Vec<OutColumn>,
    /// Calls by their fingerprint, and what is given for them. (Text would not tell all apart.)
    known: HashMap<u64, Vec<(Expr, Expr)>>,
    /// The direction of the stage's running values, if it has any.
    reverse: Option<bool>,
}

impl Planner<'_> {
    /// The builder, or the next one on its rows, and the expressions with what they read of other
    /// rows in reach: columns are those of before, hidden ones behind them. Running values of
    /// aggregates are left.
    pub(super) fn settle(&mut self, b: Builder, exprs: &[Expr]) -> Result<(Builder, Vec<Expr>)> {
        let mut exprs = exprs.to_vec();
        if !exprs.iter().any(Expr::has_window) {
            return Ok((b, exprs));
        }
        let mut b = if b.has_filter() { self.materialise(b)?.0 } else { b };
        loop {
            let mut round = Round::default();
            let mut taken = Vec::with_capacity(exprs.len());
            for e in &exprs {
                let name = e.output_name();
                let out = self.taken(&mut b, &mut round, e)?;
                taken.push(if out.output_name() == name { out } else { out.alias(name) });
            }
            if round.outputs.is_empty() {
                return Ok((b, exprs));
            }
            exprs = taken;
            let mut stage = b.into_map("filter")?;
            stage.outputs.append(&mut round.outputs);
            stage.needed.resize(stage.outputs.len(), false);
            if let Some(reverse) = round.reverse {
                stage.kind = Kind::Scan { reverse };
            }
            b = self.push(stage);
        }
    }

    /// [`Planner::settle`], with aggregates, too, computed and given to the rows. `nullable`:
    /// whether those that can be null by their kind may be.
    pub(super) fn row_by_row(
        &mut self,
        b: Builder,
        exprs: &[Expr],
        nullable: bool,
    ) -> Result<(Builder, Vec<Expr>)> {
        let (mut b, mut exprs) = self.settle(b, exprs)?;
        if exprs.iter().any(Expr::has_aggregate) {
            exprs.iter().try_for_each(no_window_of_one_row)?;
            (b, exprs) = self.broadcast(b, &exprs, nullable)?;
            (b, exprs) = self.settle(b, &exprs)?;
        }
        Ok((b, exprs))
    }

    /// The expression without those of its parts that this round gives.
    fn taken(&mut self, b: &mut Builder, round: &mut Round, e: &Expr) -> Result<Expr> {
        if !e.has_window() {
            return Ok(e.clone());
        }
        let mut children = Vec::new();
        let mut same = true;
        for child in e.kind().children() {
            let taken = self.taken(b, round, child)?;
            same &= Arc::ptr_eq(&taken.0, &child.0);
            children.push(taken);
        }
        if let ExprKind::Call(f, args) = e.kind()
            && let Some(first) = args.first()
            && same
            && !first.has_aggregate()
            && !first.has_cumulative()
        {
            let mut known = round.known.get(&e.fingerprint()).into_iter().flatten();
            if let Some((_, given)) = known.find(|(call, _)| call.is_same(e)) {
                return Ok(given.clone());
            }
            let out = match f.kind {
                FunctionKind::Cumulative => self.cumulative(b, round, f, args, e)?,
                FunctionKind::Window => self.shift_of_text(b, round, f, args, e)?,
                _ => None,
            };
            if let Some(out) = out {
                round.known.entry(e.fingerprint()).or_default().push((e.clone(), out.clone()));
                return Ok(out);
            }
        }
        Ok(rebuilt(e, children))
    }

    /// A hidden column for what this round gives.
    fn give(
        &mut self,
        round: &mut Round,
        dtype: DataType,
        what: What,
        nullable: bool,
        nodes: Option<(u32, Option<u32>)>,
    ) -> Expr {
        let name = hidden(self.next_hidden());
        round.outputs.push(OutColumn { name: name.clone(), dtype, nullable, what, nodes });
        Expr::column(name)
    }

    /// A running value. None: not in this round.
    fn cumulative(
        &mut self,
        b: &mut Builder,
        round: &mut Round,
        f: &Function,
        args: &[Expr],
        e: &Expr,
    ) -> Result<Option<Expr>> {
        let [x, reverse] = args else { return Ok(None) };
        let ExprKind::Literal(Scalar::Bool(reverse)) = *reverse.kind() else {
            return Err(Error::InvalidArgument(format!("{e}: reverse is True or False")));
        };
        if round.reverse.is_some_and(|r| r != reverse) {
            return Ok(None);
        }
        let typed = self.lower(b, x)?;
        let t = typed.dtype.clone();
        let (scan, dtype) = match f.id {
            FunctionId::CumSum => (Scan::Sum, sum_type(&t)),
            FunctionId::CumProd => (Scan::Product, product_type(&t)),
            FunctionId::CumCount => (Scan::Sum, Some(DataType::Int64)),
            FunctionId::CumMin => (Scan::Min, ordered(&t, e)?),
            FunctionId::CumMax => (Scan::Max, ordered(&t, e)?),
            _ => return Ok(None),
        };
        let Some(dtype) = dtype else {
            let needs = if f.rule == TypeRule::Product { "numbers" } else { "numbers or times" };
            return Err(Error::TypeMismatch(format!(
                "{e}: {x} is {t}, which has no {}; it needs {needs}",
                f.name
            )));
        };
        // As what the loops run over.
        let made = match f.id {
            FunctionId::CumCount => x.is_not_null().cast(DataType::Int64, false),
            _ if t == DataType::Bool && f.rule == TypeRule::Ordered => {
                x.cast(DataType::UInt8, false)
            }
            _ if t != dtype => x.cast(dtype.clone(), false),
            _ => x.clone(),
        };
        let typed = if made.is_same(x) { typed } else { self.lower(b, &made)? };
        let Value::Node(value) = typed.value else {
            return Err(Error::Unsupported(format!("{e}: running values of {t}")));
        };
        round.reverse = Some(reverse);
        let what = What::Scan(Scanned { scan, text: e.to_string().into() });
        let nodes = Some((value, typed.valid));
        let out = self.give(round, typed.dtype, what, typed.valid.is_some(), nodes);
        let is_bits = t == DataType::Bool && f.rule == TypeRule::Ordered;
        Ok(Some(if is_bits { out.cast(DataType::Bool, false) } else { out }))
    }

    /// A shift of strings, or of what is computed of strings, which tile programs read in their own
    /// row only. None: of anything else.
    fn shift_of_text(
        &mut self,
        b: &mut Builder,
        round: &mut Round,
        f: &Function,
        args: &[Expr],
        e: &Expr,
    ) -> Result<Option<Expr>> {
        let Some((x, rest)) = args.split_first() else { return Ok(None) };
        let is_text = |name: &Arc<str>| {
            b.columns.iter().any(|c| c.name == *name && matches!(c.typed.value, Value::Column(_)))
                || b.graph.reads_text()
        };
        if !free_columns(x).iter().any(is_text) {
            return Ok(None);
        }
        match self.lower(b, x)? {
            Typed { dtype, value: Value::Column(column), .. } if dtype.is_string() => {
                let (FunctionId::Shift, [fill, by]) = (f.id, rest) else { return Ok(None) };
                let fill = match fill.kind() {
                    ExprKind::Literal(Scalar::Null) => Text::Null,
                    ExprKind::Literal(Scalar::Str(s)) => Text::Literal(s.clone()),
                    _ => {
                        return Err(Error::Unsupported(format!(
                            "{e}: strings are shifted with a literal string, or null, as fill_value"
                        )));
                    }
                };
                let ExprKind::Literal(Scalar::Int(by)) = *by.kind() else {
                    return Err(Error::InvalidArgument(format!(
                        "{e}: n must be an integer literal, the same for all rows"
                    )));
                };
                let what = What::Shifted(ShiftedText { column, by, fill });
                Ok(Some(self.give(round, dtype, what, true, None)))
            }
            Typed { dtype, value: Value::Node(v), valid }
                if b.graph.depends_on_text(v)
                    || valid.is_some_and(|v| b.graph.depends_on_text(v)) =>
            {
                let nodes = Some((v, valid));
                let x = self.give(round, dtype, What::Computed, valid.is_some(), nodes);
                Ok(Some(Expr::of(f.id, [x].into_iter().chain(rest.iter().cloned()).collect())))
            }
            _ => Ok(None),
        }
    }
}

/// The type that least and greatest of it have; none if it has no order.
fn ordered(t: &DataType, e: &Expr) -> Result<Option<DataType>> {
    if t.is_string() {
        return Err(Error::Unsupported(format!("{e}: of strings is not implemented yet")));
    }
    let has = *t == DataType::Bool || t.is_numeric() || t.is_temporal();
    Ok(has.then(|| t.clone()))
}

/// Refuses to count rows of an aggregate, which has one.
fn no_window_of_one_row(e: &Expr) -> Result<()> {
    let mut stack = vec![e];
    while let Some(e) = stack.pop() {
        if !e.has_window() {
            continue;
        }
        if let ExprKind::Call(f, args) = e.kind()
            && matches!(f.kind, FunctionKind::Window | FunctionKind::Cumulative)
            && let Some(x) = args.first().filter(|x| x.has_aggregate())
            && free_columns(x).is_empty()
        {
            return Err(Error::InvalidPlan(format!(
                "{e}: {x} is one value, not one per row, so that there is no row before or after \
                 it; leave {} out, or compute the column that is meant with with_columns first",
                f.name
            )));
        }
        stack.extend(e.kind().children());
    }
    Ok(())
}
