//! Cutting a plan into stages. Steps that work row by row (filter, select, with_columns) pile up
//! in one stage; aggregates, sorts and slices of filtered rows end it.

use std::collections::HashSet;
use std::sync::Arc;

use insitu_kernels::prim::Prim;

use crate::compile::builder::{Builder, column, movable};
use crate::compile::graph::{Graph, Op, Repr};
use crate::compile::lower::{Lower, Named, Typed, Value};
use crate::compile::order;
use crate::compile::program::Action;
use crate::compile::split::{Split, free_columns, is_literal, mixes};
use crate::compile::stage::{Agg, Input, Kind, Options, OutColumn, Stage, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::{Expr, ExprKind};
use crate::functions::{FunctionId, NullRule};
use crate::plan::{MAX_STEPS, Plan};
use crate::schema::Schema;

/// Cuts a plan into stages; the last one gives the result.
pub(crate) fn build(plan: &Plan, schema: &Schema, options: &Options<'_>) -> Result<Vec<Stage>> {
    let mut steps = Vec::new();
    let mut at = plan;
    loop {
        steps.push(at);
        if steps.len() > MAX_STEPS {
            return Err(Error::LimitExceeded(format!("the plan has more than {MAX_STEPS} steps")));
        }
        match at.input() {
            Some(input) => at = input,
            None => break,
        }
    }
    let mut p = Planner::new(options);
    let mut b = p.begin(Input::Source, schema.clone());
    for step in steps.into_iter().rev() {
        b = match step {
            Plan::Scan => b,
            Plan::Filter { predicates, .. } => p.filter(b, predicates)?,
            Plan::Select { exprs, .. } => p.select(b, exprs)?,
            Plan::WithColumns { exprs, .. } => p.with_columns(b, exprs)?,
            Plan::Aggregate { keys, aggs, .. } => p.aggregate(b, keys, aggs)?,
            Plan::Sort { keys, descending, nulls_last, .. } => {
                p.sort(b, keys, descending, *nulls_last)?
            }
            Plan::Slice { offset, len, .. } => p.slice(b, *offset, *len)?,
        };
    }
    p.finish(b)?;
    Ok(p.stages)
}

pub(super) struct Planner<'a> {
    stages: Vec<Stage>,
    options: &'a Options<'a>,
    /// Names of hidden columns that were given.
    hidden: usize,
}

impl<'a> Planner<'a> {
    pub(super) fn new(options: &'a Options<'a>) -> Planner<'a> {
        Planner { stages: Vec::new(), options, hidden: 0 }
    }

    pub(super) fn into_stages(self) -> Vec<Stage> {
        self.stages
    }

    /// The number of a hidden column that no other has.
    pub(super) fn next_hidden(&mut self) -> usize {
        self.hidden += 1;
        self.hidden - 1
    }

    pub(super) fn begin(&self, input: Input, schema: Schema) -> Builder {
        let mut graph = Graph::default();
        let mut columns = Vec::with_capacity(schema.len());
        for (i, f) in schema.fields().iter().enumerate() {
            let nullable = match input {
                Input::Source => self.options.nulls.get(i).copied().unwrap_or(f.nullable),
                Input::Stage(_) => f.nullable,
            } && f.dtype != DataType::Null;
            columns.push(Named {
                name: f.name.clone(),
                typed: column(&mut graph, i as u32, &f.dtype, nullable),
            });
        }
        Builder {
            input,
            given: None,
            schema,
            slices: Vec::new(),
            graph,
            actions: Vec::new(),
            checks: Vec::new(),
            columns,
        }
    }

    pub(super) fn lower(&self, b: &mut Builder, e: &Expr) -> Result<Typed> {
        let mut lower = Lower {
            graph: &mut b.graph,
            columns: &b.columns,
            params: self.options.params,
            types_only: self.options.types_only,
            checked: self.options.checked,
            checks: Vec::new(),
        };
        let typed = lower.expr(e)?;
        let typed = lower.settled(typed)?;
        for check in lower.checks {
            let known = b.checks.iter().any(|c| c.fails == check.fails);
            if !known {
                let action = Action::Check(b.checks.len(), check.fails, check.values.clone());
                b.actions.push(action);
                b.checks.push(check);
            }
        }
        Ok(typed)
    }

    fn filter(&mut self, b: Builder, predicates: &[Expr]) -> Result<Builder> {
        let shown = b.columns.len();
        let (mut b, predicates) = self.settle(b, predicates)?;
        for e in &predicates {
            if e.has_aggregate() {
                return Err(Error::InvalidPlan(format!(
                    "{e}: a filter cannot aggregate; compute the aggregate with with_columns first"
                )));
            }
            let t = self.lower(&mut b, e)?;
            let bits = match (&t.dtype, &t.value) {
                (DataType::Bool, Value::Node(v)) => *v,
                (DataType::Null, _) => b.graph.boolean(false),
                _ => {
                    return Err(Error::TypeMismatch(format!(
                        "filter: {e} is {}, a boolean is needed; compare it with something",
                        t.dtype
                    )));
                }
            };
            let parts = order::conjuncts(&mut b.graph, bits, t.valid);
            b.actions.extend(parts.into_iter().map(Action::Keep));
        }
        b.columns.truncate(shown);
        Ok(b)
    }

    fn named(&self, b: &mut Builder, exprs: &[Expr]) -> Result<Vec<Named>> {
        let mut out: Vec<Named> = Vec::with_capacity(exprs.len());
        for e in exprs {
            let name = e.output_name();
            if out.iter().any(|n| n.name == name) {
                return Err(duplicate(&name));
            }
            out.push(Named { name, typed: self.lower(b, e)? });
        }
        Ok(out)
    }

    fn select(&mut self, mut b: Builder, exprs: &[Expr]) -> Result<Builder> {
        if exprs.iter().any(Expr::has_window) {
            // What is not selected need not be moved on.
            let named: HashSet<Arc<str>> = exprs.iter().flat_map(named_columns).collect();
            let known = b.columns.iter().filter(|c| named.contains(&c.name)).count();
            if known == named.len() {
                b.columns.retain(|c| named.contains(&c.name));
            }
        }
        let (mut b, exprs) = self.settle(b, exprs)?;
        let has = |e: &Expr| e.has_aggregate();
        if !exprs.iter().any(has) {
            // Literals alone make a column as long as the table.
            b.columns = self.named(&mut b, &exprs)?;
            return Ok(b);
        }
        let one_row = exprs.iter().all(|e| has(e) || is_literal(e));
        if one_row && exprs.iter().all(|e| !mixes(e)) {
            return self.reduce(b, &exprs);
        }
        let (mut b, exprs) = self.row_by_row(b, &exprs, true)?;
        let columns = self.named(&mut b, &exprs)?;
        b.columns = columns;
        Ok(b)
    }

    fn with_columns(&mut self, b: Builder, exprs: &[Expr]) -> Result<Builder> {
        let shown = b.columns.len();
        let (mut b, exprs) = self.row_by_row(b, exprs, true)?;
        let named = self.named(&mut b, &exprs)?;
        // The values of aggregates and of other rows, which only the new columns need.
        b.columns.truncate(shown);
        for new in named {
            match b.columns.iter_mut().find(|c| c.name == new.name) {
                Some(old) => *old = new,
                None => b.columns.push(new),
            }
        }
        Ok(b)
    }

    /// Aggregates to one row, and expressions over that row.
    fn reduce(&mut self, b: Builder, exprs: &[Expr]) -> Result<Builder> {
        let mut split = Split::from(self.hidden);
        let exprs: Vec<Expr> = exprs.iter().map(|e| split.expr(e)).collect();
        self.hidden += split.calls.len();
        let next = self.reduce_stage(b, &split)?;
        let (mut next, exprs) = self.settle(next, &exprs)?;
        next.columns = self.named(&mut next, &exprs)?;
        Ok(next)
    }

    fn reduce_stage(&mut self, mut b: Builder, split: &Split) -> Result<Builder> {
        let aggs = self.aggs(&mut b, split)?;
        let outputs = agg_outputs(&aggs, split);
        let stage = b.into_stage(Kind::Reduce { aggs }, outputs);
        Ok(self.push(stage))
    }

    /// Computes the aggregates in the expressions first, and gives the stage their values.
    /// `nullable`: whether those that can be null by their kind may be.
    pub(super) fn broadcast(
        &mut self,
        b: Builder,
        exprs: &[Expr],
        nullable: bool,
    ) -> Result<(Builder, Vec<Expr>)> {
        // The rows are read again by the second stage, so the first must not own them.
        let mut b = if b.has_filter() || b.given.is_some() { self.materialise(b)?.0 } else { b };
        let mut split = Split::from(self.hidden);
        let exprs: Vec<Expr> = exprs.iter().map(|e| split.expr(e)).collect();
        self.hidden += split.calls.len();
        let copy = b.again();
        let reduced = self.reduce_stage(copy, &split)?;
        let Input::Stage(stage) = reduced.input else {
            return Err(Error::InvalidPlan("a reduction was lost".into()));
        };
        b.given = Some(stage);
        for (i, f) in reduced.schema.fields().iter().enumerate() {
            let (op, valid) = (Op::Given(i as u32), Op::GivenValid(i as u32));
            let value = match f.dtype.prim() {
                Some(p) => b.graph.add(op, p, Repr::Num(p), &[]),
                None if f.dtype == DataType::Bool => b.graph.add(op, Prim::U8, Repr::Bits, &[]),
                None => {
                    return Err(Error::Unsupported(format!(
                        "{}: an aggregate of type {} beside row values",
                        f.name, f.dtype
                    )));
                }
            };
            let may = f.nullable && nullable;
            let valid = may.then(|| b.graph.add(valid, Prim::U8, Repr::Bits, &[]));
            b.columns.push(Named {
                name: f.name.clone(),
                typed: Typed { dtype: f.dtype.clone(), value: Value::Node(value), valid },
            });
        }
        Ok((b, exprs))
    }

    fn aggs(&self, b: &mut Builder, split: &Split) -> Result<Vec<Agg>> {
        let mut aggs = Vec::with_capacity(split.calls.len());
        for (call, _) in &split.calls {
            let ExprKind::Call(f, args) = call.kind() else { continue };
            aggs.push(self.agg(b, call, f, args)?);
        }
        Ok(aggs)
    }

    fn aggregate(&mut self, b: Builder, keys: &[Expr], aggs: &[Expr]) -> Result<Builder> {
        if let (false, Some(e)) = (keys.is_empty(), aggs.iter().find(|e| e.has_window())) {
            return Err(Error::Unsupported(format!(
                "agg: {e}: rows of a group are not counted yet; compute that with with_columns, over all rows, or sort and filter first"
            )));
        }
        let (b, keys) = self.settle(b, keys)?;
        let (mut b, aggs) = self.settle(b, aggs)?;
        if let Some(k) = keys.iter().find(|k| k.has_aggregate()) {
            return Err(Error::InvalidPlan(format!("{k}: a group key cannot aggregate")));
        }
        if keys.is_empty() {
            if aggs.iter().any(mixes) {
                return Err(Error::InvalidPlan(
                    "agg without keys needs an aggregate around every column".into(),
                ));
            }
            return self.reduce(b, &aggs);
        }
        let keys = self.named(&mut b, &keys)?;
        for k in &keys {
            if !k.typed.dtype.is_key() || k.typed.dtype == DataType::Null {
                return Err(Error::Unsupported(format!(
                    "group_by: the key {:?} is {}, which cannot be grouped by",
                    k.name, k.typed.dtype
                )));
            }
        }
        let mut split = Split::from(self.hidden);
        let exprs: Vec<Expr> = aggs.iter().map(|e| split.expr(e)).collect();
        for e in &exprs {
            for name in free_columns(e) {
                let known = keys.iter().any(|k| k.name == name)
                    || split.calls.iter().any(|(_, n)| *n == name);
                if !known {
                    let exists = b.columns.iter().any(|c| c.name == name);
                    return Err(if exists {
                        Error::InvalidPlan(format!(
                            "agg: the column {name:?} is neither a key nor inside an aggregate; say which value of the group is meant, as in col({name:?}).min()"
                        ))
                    } else {
                        crate::schema::unknown_column(&name, b.columns.iter().map(|c| &*c.name))
                    });
                }
            }
        }
        self.hidden += split.calls.len();
        let specs = self.aggs(&mut b, &split)?;
        let mut outputs: Vec<OutColumn> = keys
            .iter()
            .enumerate()
            .map(|(i, k)| OutColumn {
                name: k.name.clone(),
                dtype: k.typed.dtype.clone(),
                nullable: k.typed.valid.is_some(),
                what: What::Key(i),
                nodes: None,
            })
            .collect();
        outputs.extend(agg_outputs(&specs, &split));
        let names: Vec<Arc<str>> = keys.iter().map(|k| k.name.clone()).collect();
        let stage = b.into_stage(Kind::Group { keys, aggs: specs }, outputs);
        let mut next = self.push(stage);
        let mut columns: Vec<Named> =
            next.columns.iter().filter(|c| names.contains(&c.name)).cloned().collect();
        for new in self.named(&mut next, &exprs)? {
            if columns.iter().any(|c| c.name == new.name) {
                return Err(duplicate(&new.name));
            }
            columns.push(new);
        }
        next.columns = columns;
        Ok(next)
    }

    fn sort(
        &mut self,
        b: Builder,
        keys: &[Expr],
        descending: &[bool],
        nulls_last: bool,
    ) -> Result<Builder> {
        if keys.is_empty() {
            return Ok(b);
        }
        let shown = b.columns.len();
        let (mut b, keys) = self.settle(b, keys)?;
        if descending.len() > 1 && descending.len() != keys.len() {
            return Err(Error::InvalidArgument(format!(
                "sort: {} keys, but {} values for descending; give one, or one per key",
                keys.len(),
                descending.len()
            )));
        }
        let first = descending.first().copied().unwrap_or(false);
        let descending: Vec<bool> =
            (0..keys.len()).map(|i| descending.get(i).copied().unwrap_or(first)).collect();
        let mut key_columns = Vec::with_capacity(keys.len());
        for (i, k) in keys.iter().enumerate() {
            if k.has_aggregate() {
                return Err(Error::InvalidPlan(format!("{k}: a sort key cannot aggregate")));
            }
            if let ExprKind::Column(name) = k.kind()
                && b.columns.iter().filter(|c| c.name == *name).count() == 1
                && let Some(at) = b.columns.iter().position(|c| c.name == *name)
            {
                key_columns.push(at);
            } else {
                let typed = self.lower(&mut b, k)?;
                b.columns.push(Named { name: hidden(self.next_hidden()), typed });
                key_columns.push(b.columns.len() - 1);
            }
            let t = &b.columns[key_columns[i]].typed.dtype;
            if !t.is_key() {
                return Err(Error::Unsupported(format!(
                    "sort: {k} is {t}, which has no order here"
                )));
            }
        }
        let names: Vec<Arc<str>> = b.columns.iter().map(|c| c.name.clone()).collect();
        for c in b.columns.iter().take(shown) {
            movable(c, "sort")?;
        }
        let (input, positions) = self.materialise(b)?;
        let outputs: Vec<OutColumn> = (0..shown)
            .filter_map(|i| {
                let at = positions.get(i).copied()?;
                let f = input.schema.fields().get(at)?;
                Some(OutColumn {
                    name: names.get(i)?.clone(),
                    dtype: f.dtype.clone(),
                    nullable: input.columns.get(at)?.typed.valid.is_some()
                        || f.dtype == DataType::Null,
                    what: What::Input(at),
                    nodes: None,
                })
            })
            .collect();
        let keys = key_columns.iter().filter_map(|k| positions.get(*k).copied()).collect();
        let stage = input.into_stage(Kind::Sort { keys, descending, nulls_last }, outputs);
        Ok(self.push(stage))
    }

    fn slice(&mut self, b: Builder, offset: i64, len: Option<u64>) -> Result<Builder> {
        // A slice of rows that are only mapped, each by itself, is a slice of the input.
        let mut b = if b.has_filter() || b.graph.is_shifted() { self.materialise(b)?.0 } else { b };
        if b.given.is_some() {
            b = self.materialise(b)?.0;
        }
        b.slices.push((offset, len));
        Ok(b)
    }

    /// A builder whose columns are input columns as they are, in full length: ends the stage
    /// unless it is so already. Gives the position of each column in the new input.
    pub(super) fn materialise(&mut self, b: Builder) -> Result<(Builder, Vec<usize>)> {
        let plain: Option<Vec<usize>> =
            b.columns.iter().map(|c| b.input_column(&c.typed)).collect();
        if let Some(positions) = plain
            && b.actions.is_empty()
            && b.slices.is_empty()
        {
            return Ok((b, positions));
        }
        let positions = (0..b.columns.len()).collect();
        let stage = b.into_map("filter")?;
        Ok((self.push(stage), positions))
    }

    fn add(&mut self, mut stage: Stage) {
        order::arrange(&mut stage, self.options);
        self.stages.push(stage);
    }

    /// Adds a stage, and starts the next one on its result.
    pub(super) fn push(&mut self, stage: Stage) -> Builder {
        let schema = stage.output_schema();
        self.add(stage);
        self.begin(Input::Stage(self.stages.len() - 1), schema)
    }

    /// The last stage: a projection is left to the stage before, where there is one.
    pub(super) fn finish(&mut self, b: Builder) -> Result<()> {
        let plain: Option<Vec<usize>> =
            b.columns.iter().map(|c| b.input_column(&c.typed)).collect();
        if let (Input::Stage(at), Some(picks)) = (b.input, plain)
            && at + 1 == self.stages.len()
            && b.given.is_none()
            && b.actions.is_empty()
            && b.slices.is_empty()
            && let Some(last) = self.stages.last_mut()
        {
            last.outputs = picks
                .iter()
                .zip(&b.columns)
                .filter_map(|(i, c)| {
                    last.outputs.get(*i).map(|o| OutColumn { name: c.name.clone(), ..o.clone() })
                })
                .collect();
            last.needed = vec![true; last.outputs.len()];
        } else {
            let mut stage = b.into_map("filter")?;
            stage.needed = vec![true; stage.outputs.len()];
            self.add(stage);
        }
        // What no later stage reads need not be made.
        for i in (0..self.stages.len()).rev() {
            let used = self.stages.get(i).map(Stage::reads).unwrap_or_default();
            for (input, column) in used {
                if let Some(n) = self.stages.get_mut(input).and_then(|s| s.needed.get_mut(column)) {
                    *n = true;
                }
            }
        }
        Ok(())
    }
}

/// The columns that an expression names, in aggregates too.
fn named_columns(e: &Expr) -> Vec<Arc<str>> {
    let mut out = Vec::new();
    let mut stack = vec![e];
    while let Some(e) = stack.pop() {
        match e.kind() {
            ExprKind::Column(n) => out.push(n.clone()),
            other => stack.extend(other.children()),
        }
    }
    out
}

fn duplicate(name: &str) -> Error {
    Error::InvalidPlan(format!("two columns are named {name:?}; rename one with alias"))
}

/// The name of a column that users do not see.
pub(super) fn hidden(i: usize) -> Arc<str> {
    format!("\u{0}{i}").into()
}

fn agg_outputs(aggs: &[Agg], split: &Split) -> Vec<OutColumn> {
    aggs.iter()
        .zip(&split.calls)
        .enumerate()
        .map(|(i, (a, (_, name)))| OutColumn {
            name: name.clone(),
            dtype: a.dtype.clone(),
            nullable: match a.function.function().nulls {
                NullRule::SkipToNull => true,
                NullRule::Take => a.function != FunctionId::NUnique,
                _ => false,
            },
            what: What::Agg(i),
            nodes: None,
        })
        .collect()
}
