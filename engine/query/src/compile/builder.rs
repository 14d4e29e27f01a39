//! A stage in the making: the steps that pile up in it, until one of them ends it.

use insitu_kernels::prim::Prim;

use crate::compile::graph::{Graph, Op, Repr};
use crate::compile::lower::{Check, Named, Typed, Value};
use crate::compile::program::Action;
use crate::compile::stage::{Input, Kind, OutColumn, Stage, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::schema::Schema;

/// A stage in the making: columns over its input.
pub(super) struct Builder {
    pub(super) input: Input,
    pub(super) given: Option<usize>,
    pub(super) schema: Schema,
    pub(super) slices: Vec<(i64, Option<u64>)>,
    pub(super) graph: Graph,
    pub(super) actions: Vec<Action>,
    pub(super) checks: Vec<Check>,
    pub(super) columns: Vec<Named>,
}

impl Builder {
    pub(super) fn has_filter(&self) -> bool {
        self.actions.iter().any(|a| matches!(a, Action::Keep(_)))
    }

    /// The input column that this is, untouched, if it is one.
    pub(super) fn input_column(&self, t: &Typed) -> Option<usize> {
        match t.value {
            Value::Column(c) => Some(c as usize),
            Value::Node(v) => {
                let Op::Values(c) = self.graph.node(v).op else { return None };
                let f = self.schema.fields().get(c as usize)?;
                let own = match t.valid {
                    None => !self.graph.has_validity(c),
                    Some(valid) => self.graph.node(valid).op == Op::Validity(c),
                };
                (f.dtype == t.dtype && own).then_some(c as usize)
            }
            Value::Weak(_) | Value::Param(..) | Value::Set(_) => None,
        }
    }

    /// The same stage, before anything ends it.
    pub(super) fn again(&self) -> Builder {
        Builder {
            input: self.input,
            given: self.given,
            schema: self.schema.clone(),
            slices: self.slices.clone(),
            graph: self.graph.clone(),
            actions: self.actions.clone(),
            checks: self.checks.clone(),
            columns: self.columns.clone(),
        }
    }

    pub(super) fn into_stage(self, kind: Kind, outputs: Vec<OutColumn>) -> Stage {
        Stage {
            input: self.input,
            given: self.given,
            schema: self.schema,
            slices: self.slices,
            graph: self.graph,
            actions: self.actions,
            checks: self.checks,
            kind,
            needed: vec![false; outputs.len()],
            outputs,
            passes: Vec::new(),
        }
    }

    pub(super) fn into_map(self, what: &str) -> Result<Stage> {
        let moves = self.has_filter() || !self.slices.is_empty();
        let mut outputs = Vec::with_capacity(self.columns.len());
        for c in &self.columns {
            if moves {
                movable(c, if self.has_filter() { what } else { "slice" })?;
            }
            let at = self.input_column(&c.typed);
            let t = &c.typed;
            let what = match (&t.value, at) {
                (_, Some(at)) => What::Input(at),
                (_, None) if t.dtype == DataType::Null => What::Null,
                (Value::Node(_), None) => What::Computed,
                (Value::Set(set), None) => What::Set(set.clone()),
                _ => {
                    return Err(Error::Unsupported(format!(
                        "{:?}: a new column of type {}",
                        c.name, t.dtype
                    )));
                }
            };
            outputs.push(OutColumn {
                name: c.name.clone(),
                dtype: t.dtype.clone(),
                nullable: t.valid.is_some() || t.dtype == DataType::Null,
                what,
                nodes: match t.value {
                    Value::Node(v) => Some((v, t.valid)),
                    _ => None,
                },
            });
        }
        Ok(self.into_stage(Kind::Map, outputs))
    }
}

/// An input column, typed.
pub(super) fn column(graph: &mut Graph, i: u32, dtype: &DataType, nullable: bool) -> Typed {
    let value = match dtype.prim() {
        Some(p) => Value::Node(graph.add(Op::Values(i), p, Repr::Num(p), &[])),
        None if *dtype == DataType::Bool => {
            Value::Node(graph.add(Op::Values(i), Prim::U8, Repr::Bits, &[]))
        }
        None => Value::Column(i),
    };
    let valid = nullable.then(|| graph.add(Op::Validity(i), Prim::U8, Repr::Bits, &[]));
    Typed { dtype: dtype.clone(), value, valid }
}

/// Refuses columns whose rows cannot be moved.
pub(super) fn movable(c: &Named, what: &str) -> Result<()> {
    if c.typed.dtype.is_movable() {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "{what}: the column {:?} is {}, whose rows insitu cannot move yet; select the other columns first",
        c.name, c.typed.dtype
    )))
}
