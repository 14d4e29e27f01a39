//! Assignments to columns of a table, as an update makes them: one graph of the new values, and two
//! ways to run it. As a stage it gives the table with the new columns beside the old ones; its roots
//! alone, tile by tile, are what an update writes over the old values.
//!
//! The checks of the new values count only where the condition holds, so that both ways fail at the
//! same rows. A new value takes the column's type or is refused: no assignment changes a type.

use std::sync::Arc;

use crate::compile::convert::common_type;
use crate::compile::graph::{Graph, Id};
use crate::compile::lower::{Check, CheckKind, Lower, Named, SetRows, Text, Typed, Value};
use crate::compile::planner::Planner;
use crate::compile::program::Action;
use crate::compile::stage::{Input, Options, Stage, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::scalar::Scalar;
use crate::schema::{Field, Schema};

/// One column that gets new values.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    /// Its position in the schema.
    pub(crate) column: usize,
    /// Value and validity of all rows, chosen or not; none for what the graph does not compute.
    pub(crate) nodes: Option<(Id, Option<Id>)>,
    /// Whether a chosen row's new value may be null.
    pub(crate) nullable: bool,
}

/// Assignments, lowered.
pub(crate) struct Assignments {
    /// The last one gives the whole table; one before it, if there is one, the aggregates.
    pub(crate) stages: Vec<Stage>,
    pub(crate) assigned: Vec<Assigned>,
    /// The chosen rows; none if all are.
    pub(crate) chosen: Option<Id>,
    /// How many of the last stage's actions belong to the condition.
    pub(crate) before: usize,
    /// What reads other rows than its own, if anything does.
    pub(crate) window: Option<String>,
    /// Whether the new values are computed of the table itself, not of a stage's rows, which are
    /// beside it already.
    pub(crate) is_direct: bool,
}

/// Lowers `sets` (columns by name, and their new values) for the rows that the condition chooses.
/// `aggregates_null`: whether aggregates may be null.
pub(crate) fn build(
    sets: &[(Arc<str>, Expr)],
    condition: Option<&Expr>,
    schema: &Schema,
    options: &Options<'_>,
    aggregates_null: bool,
) -> Result<Assignments> {
    let mut columns = Vec::with_capacity(sets.len());
    for (name, _) in sets {
        let at = schema.index_of(name)?;
        if columns.contains(&at) {
            return Err(Error::InvalidArgument(format!(
                "the column {name:?} is given two new values"
            )));
        }
        columns.push(at);
    }
    let mut p = Planner::new(options);
    let mut b = p.begin(Input::Source, schema.clone());
    let shown = b.columns.len();
    let mut exprs: Vec<Expr> =
        condition.into_iter().chain(sets.iter().map(|(_, e)| e)).cloned().collect();
    let window = exprs.iter().find(|e| e.has_window()).map(Expr::to_string);
    // Aggregates are of all rows, and of the old values, as is what is read of other rows: computed
    // before anything else.
    (b, exprs) = p.row_by_row(b, &exprs, aggregates_null)?;
    let is_direct = b.input == Input::Source;
    let mut exprs = exprs.iter();
    let mut chosen = None;
    if condition.is_some()
        && let Some(e) = exprs.next()
    {
        let t = p.lower(&mut b, e)?;
        let bits = match (&t.dtype, &t.value) {
            (DataType::Bool, Value::Node(v)) => *v,
            (DataType::Null, _) => b.graph.boolean(false),
            _ => {
                return Err(Error::TypeMismatch(format!(
                    "update: where={e} is {}, a boolean is needed; compare it with something",
                    t.dtype
                )));
            }
        };
        let mask = match t.valid {
            Some(valid) => b.graph.and(bits, valid),
            None => bits,
        };
        chosen = (b.graph.known_bit(mask) != Some(true)).then_some(mask);
    }
    let before = b.actions.len();
    let mut new = Vec::with_capacity(columns.len());
    let mut assigned = Vec::with_capacity(columns.len());
    for (at, e) in columns.iter().zip(exprs) {
        let (Some(field), Some(old)) = (schema.fields().get(*at), b.columns.get(*at)) else {
            return Err(Error::InvalidPlan("a column was lost".into()));
        };
        let old = old.typed.clone();
        let mut lower = Lower {
            graph: &mut b.graph,
            columns: &b.columns,
            params: options.params,
            types_only: options.types_only,
            checked: options.checked,
            checks: Vec::new(),
        };
        let t = lower.expr(e)?;
        let text = text(&t, &field.dtype);
        let mut t = match &text {
            Some(Text::Literal(_)) => Typed { valid: None, ..old.clone() },
            Some(Text::Null) => {
                let no = lower.graph.boolean(false);
                Typed { valid: Some(no), ..old.clone() }
            }
            Some(Text::Column(_)) | None => lower.assigned(t, field, e)?,
        };
        let mut checks = lower.checks;
        if !field.nullable && field.dtype != DataType::Null {
            checks.extend(null_check(&mut b.graph, &t, field));
            t.valid = None;
        }
        for mut check in checks {
            if let Some(mask) = chosen {
                check.fails = b.graph.and(check.fails, mask);
            }
            if b.checks.iter().all(|c| c.fails != check.fails) {
                let action = Action::Check(b.checks.len(), check.fails, check.values.clone());
                b.actions.push(action);
                b.checks.push(check);
            }
        }
        let nullable = t.valid.is_some();
        // A whole column is another one as it is, without a look at its rows.
        let text = text.filter(|to| chosen.is_some() || !matches!(to, Text::Column(_)));
        if let (Some(to), Value::Column(column)) = (text, &old.value) {
            let rows = chosen.unwrap_or_else(|| b.graph.boolean(true));
            let value = Value::Set(SetRows { column: *column, rows, to });
            t = Typed { dtype: old.dtype.clone(), value, valid: t.valid.or(old.valid) };
        } else if let Some(mask) = chosen {
            if !matches!(t.value, Value::Node(_)) {
                return Err(Error::Unsupported(format!(
                    "update: the column {:?} is {}, of which single rows cannot be set yet, only whole columns",
                    field.name, field.dtype
                )));
            }
            let mut lower = Lower {
                graph: &mut b.graph,
                columns: &b.columns,
                params: options.params,
                types_only: options.types_only,
                checked: options.checked,
                checks: Vec::new(),
            };
            t = lower.choose(mask, &t, &old)?;
        }
        let nodes = match t.value {
            Value::Node(v) if field.dtype != DataType::Null => Some((v, t.valid)),
            _ => None,
        };
        assigned.push(Assigned { column: *at, nodes, nullable });
        new.push(Named { name: field.name.clone(), typed: t });
    }
    b.columns.truncate(shown);
    for (at, named) in columns.into_iter().zip(new) {
        if let Some(c) = b.columns.get_mut(at) {
            *c = named;
        }
    }
    p.finish(b)?;
    let mut stages = p.into_stages();
    // Another column's values are copied: shared, neither could be written over any more.
    for a in assigned.iter().filter(|a| a.nodes.is_some()) {
        if let Some(output) = stages.last_mut().and_then(|s| s.outputs.get_mut(a.column))
            && matches!(output.what, What::Input(from) if from != a.column)
        {
            output.what = What::Computed;
        }
    }
    Ok(Assignments { stages, assigned, chosen, before, window, is_direct })
}

/// What a column of strings is set to; none for other columns, and for what is none of its type.
fn text(t: &Typed, dtype: &DataType) -> Option<Text> {
    if !dtype.is_string() {
        return None;
    }
    match &t.value {
        Value::Weak(Scalar::Str(text)) => Some(Text::Literal(text.clone())),
        Value::Weak(Scalar::Null) => Some(Text::Null),
        _ if t.dtype == DataType::Null => Some(Text::Null),
        Value::Column(column) if t.dtype == *dtype => Some(Text::Column(*column)),
        _ => None,
    }
}

/// A check that no null comes into a column that is declared without.
fn null_check(graph: &mut Graph, t: &Typed, field: &Field) -> Option<Check> {
    let fails = graph.not(t.valid?);
    if graph.known_bit(fails) == Some(false) {
        return None;
    }
    let kind = CheckKind::Null { column: field.name.clone() };
    Some(Check { fails, values: Vec::new(), dtype: field.dtype.clone(), kind })
}

impl Lower<'_> {
    /// A new value in the type of the column that gets it. Numbers may widen; what could lose
    /// something has to be cast.
    fn assigned(&mut self, t: Typed, field: &Field, e: &Expr) -> Result<Typed> {
        let to = &field.dtype;
        let mismatch = |found: &DataType| {
            let advice = match to.prim().is_some() || *to == DataType::Bool {
                true => format!("write ({e}).cast(\"{to}\")"),
                false => format!("give it values of type {to}"),
            };
            Error::TypeMismatch(format!(
                "update: the column {:?} is {to} and {e} is {found}; an update never changes a \
                 column's type: {advice}, or make a new table with with_columns",
                field.name
            ))
        };
        if let Some(s) = t.value.weak() {
            let own = self.literal_type(s, to);
            if own != *to && !matches!(s, Scalar::Null) {
                return Err(mismatch(&own));
            }
            return self.literal(&t.value, to, &format!("update of {:?}", field.name));
        }
        if t.dtype == *to {
            return Ok(t);
        }
        if t.dtype == DataType::Null {
            return self.null_of(to);
        }
        let widens = t.dtype.is_numeric()
            && to.is_numeric()
            && common_type(&t.dtype, to).as_ref() == Some(to);
        if !widens {
            return Err(mismatch(&t.dtype));
        }
        self.convert(t, to)
    }
}
