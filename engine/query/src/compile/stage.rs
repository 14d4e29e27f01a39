//! A stage: what it reads, what it does with the rows, and what it gives.

use std::sync::Arc;

use insitu_kernels::group::Aggregate;

use crate::compile::graph::{Graph, Id, Op};
use crate::compile::lower::{Check, Named, SetRows, Text, Typed, Value};
use crate::compile::program::Action;
use crate::compile::windows::{Scanned, ShiftedText};
use crate::dtype::DataType;
use crate::functions::FunctionId;
use crate::scalar::Scalar;
use crate::schema::{Field, Schema};
use crate::table::ColumnStats;

/// What a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The source table.
    Source,
    /// The result of an earlier stage.
    Stage(usize),
}

/// One aggregate of a stage.
#[derive(Clone, Debug)]
pub(crate) struct Agg {
    pub(crate) function: FunctionId,
    /// The same with its settings.
    pub(crate) aggregate: Aggregate,
    /// What is aggregated; none for `len`.
    pub(crate) arg: Option<Typed>,
    pub(crate) dtype: DataType,
    pub(crate) text: String,
}

/// What a stage does with the rows.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Writes columns, of the rows kept.
    Map,
    /// Writes columns, some of running values; of all rows.
    Scan {
        /// From the last row on.
        reverse: bool,
    },
    /// One row of aggregates.
    Reduce { aggs: Vec<Agg> },
    /// One row per group: the keys are the stage's first columns, then the aggregates.
    Group { keys: Vec<Named>, aggs: Vec<Agg> },
    /// The input's rows in order of some of its columns.
    Sort { keys: Vec<usize>, descending: Vec<bool>, nulls_last: bool },
}

/// A column that a stage can give.
#[derive(Clone, Debug)]
pub(crate) struct OutColumn {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: DataType,
    pub(crate) nullable: bool,
    pub(crate) what: What,
    /// Value and validity in the graph, where they are there.
    pub(crate) nodes: Option<(Id, Option<Id>)>,
}

/// Where a stage's column comes from.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// An input column as it is.
    Input(usize),
    /// Computed.
    Computed,
    /// An input column of strings, of which some rows are set.
    Set(SetRows),
    /// Running values of what is computed.
    Scan(Scanned),
    /// An input column of strings, of which each row is another one's.
    Shifted(ShiftedText),
    /// Key of that number.
    Key(usize),
    /// Aggregate of that number.
    Agg(usize),
    /// Only nulls.
    Null,
}

/// One stage.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) input: Input,
    /// A stage of one row whose values are known when this one starts.
    pub(crate) given: Option<usize>,
    /// The input's columns.
    pub(crate) schema: Schema,
    /// Slices of the input, applied in order.
    pub(crate) slices: Vec<(i64, Option<u64>)>,
    pub(crate) graph: Graph,
    pub(crate) actions: Vec<Action>,
    pub(crate) checks: Vec<Check>,
    pub(crate) kind: Kind,
    pub(crate) outputs: Vec<OutColumn>,
    /// Which outputs later stages use.
    pub(crate) needed: Vec<bool>,
    /// What share of the rows each predicate is thought to pass, in the order of the actions.
    pub(crate) passes: Vec<f64>,
}

impl Stage {
    pub(crate) fn has_filter(&self) -> bool {
        self.actions.iter().any(|a| matches!(a, Action::Keep(_)))
    }

    /// Whether input columns that become outputs as they are need no copy.
    pub(crate) fn shares(&self) -> bool {
        let by_row = matches!(self.kind, Kind::Map | Kind::Scan { .. });
        by_row && !self.has_filter() && self.slices.is_empty()
    }

    pub(super) fn output_schema(&self) -> Schema {
        let fields: Vec<Field> = self
            .outputs
            .iter()
            .map(|o| Field::new(o.name.clone(), o.dtype.clone(), o.nullable))
            .collect();
        Schema::new(fields)
    }
}

/// What lowering depends on, beside plan and schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options<'a> {
    /// Per source column, whether it has a validity bitmap anywhere.
    pub(crate) nulls: &'a [bool],
    pub(crate) params: &'a [(&'a str, Scalar)],
    pub(crate) types_only: bool,
    pub(crate) checked: bool,
    /// What is known of the source's columns, and its rows: hints.
    pub(crate) stats: &'a [ColumnStats],
    pub(crate) rows: usize,
}

impl Stage {
    /// The earlier stages' columns that are read here.
    pub(super) fn reads(&self) -> Vec<(usize, usize)> {
        let (columns, given) = self.needs(true);
        let mut out: Vec<(usize, usize)> =
            given.into_iter().filter_map(|c| Some((self.given?, c))).collect();
        if let Input::Stage(s) = self.input {
            out.extend(columns.into_iter().map(|c| (s, c)));
        }
        out
    }

    /// The columns of the input whose rows are read: not those that are handed on as they are.
    pub(crate) fn columns_read(&self) -> Vec<usize> {
        let (mut columns, _) = self.needs(!self.shares());
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Columns of the input, with `moved` those that become outputs as they are too, and values of
    /// the stage before; some of them more than once.
    fn needs(&self, moved: bool) -> (Vec<usize>, Vec<usize>) {
        let mut given = Vec::new();
        let mut columns: Vec<usize> = Vec::new();
        let mut stack: Vec<Id> = Vec::new();
        let mut typed = |t: &Typed, stack: &mut Vec<Id>| {
            match t.value {
                Value::Node(v) => stack.push(v),
                Value::Column(c) => columns.push(c as usize),
                Value::Weak(_) | Value::Param(..) | Value::Set(_) => {}
            }
            stack.extend(t.valid);
        };
        match &self.kind {
            Kind::Map | Kind::Scan { .. } => {}
            Kind::Reduce { aggs } => {
                aggs.iter().filter_map(|a| a.arg.as_ref()).for_each(|t| typed(t, &mut stack));
            }
            Kind::Group { keys, aggs } => {
                keys.iter().for_each(|k| typed(&k.typed, &mut stack));
                aggs.iter().filter_map(|a| a.arg.as_ref()).for_each(|t| typed(t, &mut stack));
            }
            Kind::Sort { keys, .. } => columns.extend(keys),
        }
        for (o, needed) in self.outputs.iter().zip(&self.needed) {
            match &o.what {
                What::Input(c) if *needed && moved => columns.push(*c),
                What::Shifted(shifted) if *needed => columns.push(shifted.column as usize),
                What::Set(set) if *needed => {
                    stack.push(set.rows);
                    columns.push(set.column as usize);
                    if let Text::Column(c) = set.to {
                        columns.push(c as usize);
                    }
                }
                _ => {}
            }
            if let (What::Computed | What::Scan(_), Some((value, valid)), true) =
                (&o.what, o.nodes, *needed)
            {
                stack.push(value);
                stack.extend(valid);
            }
        }
        for a in &self.actions {
            match a {
                Action::Keep(id) => stack.push(*id),
                Action::Check(_, id, values) => {
                    stack.push(*id);
                    stack.extend(values);
                }
            }
        }
        let mut seen = vec![false; self.graph.len()];
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut seen[id as usize], true) {
                continue;
            }
            let node = self.graph.node(id);
            stack.extend(node.args());
            match node.op {
                Op::Values(c)
                | Op::Validity(c)
                | Op::ShiftedValues(c, _)
                | Op::ShiftedValidity(c, _) => columns.push(c as usize),
                Op::StrCompare(_, c, _) | Op::StrIn(c, _) => columns.push(c as usize),
                Op::StrColumns(_, a, b) => columns.extend([a as usize, b as usize]),
                Op::Given(c) | Op::GivenValid(c) => given.push(c as usize),
                _ => {}
            }
        }
        (columns, given)
    }
}
