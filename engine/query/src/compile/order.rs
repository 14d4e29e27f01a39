//! The order in which a stage tries its predicates: first those that cost little for the rows they
//! drop, since a tile of which no row is left is done with.
//!
//! Which rows pass does not depend on the order. What may end a run does, so that no predicate
//! passes a check, and none that reads strings, which may turn out not to be any, moves ahead of an
//! earlier one. Estimates are pure functions of the graph and the statistics.

use std::collections::HashSet;

use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{BitOp, Compare, Unary};

use crate::compile::graph::{Graph, Id, Node, Op, Repr};
use crate::compile::program::Action;
use crate::compile::stage::{Input, Options, Stage};
use crate::table::ColumnStats;

/// Nanoseconds per row that an instruction takes, and that a byte from memory does.
const INSTRUCTION: f64 = 0.15;
const BYTE: f64 = 0.1;
/// The share of rows that equal some value, where nothing is known.
const EQUAL: f64 = 0.1;
/// The share of rows below some value, where nothing is known.
const BELOW: f64 = 1.0 / 3.0;
/// The share of rows that are not null, where nothing is known.
const VALID: f64 = 0.95;
/// The least share of rows that a predicate is thought to drop: costs are divided by it.
const LEAST: f64 = 1e-6;
/// Nodes that are looked at for costs before the predicates stay as they were written.
const PATIENCE: usize = 1 << 20;

/// The predicates that hold together where the value is true and valid.
pub(super) fn conjuncts(graph: &mut Graph, value: Id, valid: Option<Id>) -> Vec<Id> {
    let mut out = Vec::new();
    let (mut seen, mut known) = (HashSet::new(), HashSet::new());
    let mut stack = vec![(value, valid)];
    while let Some((value, valid)) = stack.pop() {
        if !seen.insert((value, valid)) {
            continue;
        }
        let node = graph.node(value);
        if let (Op::Bits(BitOp::And), [a, b]) = (node.op, node.args()) {
            let validity = valid.map(|valid| graph.node(valid));
            match validity.as_ref().map(|v| (v.op, v.args())) {
                None => {
                    stack.extend([(*b, None), (*a, None)]);
                    continue;
                }
                // Valid where both are, as far as true and valid goes.
                Some((Op::Bits(BitOp::KleeneAnd), [x, v, y, w])) if (x, y) == (a, b) => {
                    stack.extend([(*b, Some(*w)), (*a, Some(*v))]);
                    continue;
                }
                Some(_) => {}
            }
        }
        let keep = valid.map_or(value, |valid| graph.and(value, valid));
        if graph.known_bit(keep) != Some(true) && known.insert(keep) {
            out.push(keep);
        }
    }
    if out.is_empty() {
        out.push(graph.boolean(true));
    }
    out
}

/// Puts the predicates between one check and the next in order, and notes what share of the rows
/// each is thought to pass.
pub(super) fn arrange(stage: &mut Stage, options: &Options<'_>) {
    if !stage.has_filter() {
        return;
    }
    let none: &[ColumnStats] = &[];
    let stats = if stage.input == Input::Source { options.stats } else { none };
    let pass = Rates { graph: &stage.graph, stats, rows: options.rows }.all();
    let rate = |id: Id| pass.get(id as usize).copied().unwrap_or(1.0);
    let mut costs = Costs::new(&stage.graph);
    let mut actions = std::mem::take(&mut stage.actions);
    for run in actions.chunk_by_mut(|a, b| is_keep(a) && is_keep(b)) {
        let mut ranked = Vec::with_capacity(run.len());
        let mut latest = 0.0f64;
        for action in run.iter() {
            let Action::Keep(id) = action else { continue };
            let Some((cost, may_fail)) = costs.of(*id) else { break };
            let mut rank = cost / (1.0 - rate(*id)).max(LEAST);
            latest = latest.max(rank);
            if may_fail {
                rank = latest;
            }
            ranked.push((rank, *id));
        }
        // Checks, or more than there is patience for.
        if ranked.len() < run.len() {
            continue;
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (action, (_, id)) in run.iter_mut().zip(ranked) {
            *action = Action::Keep(id);
        }
    }
    let keeps = actions.iter().filter_map(|a| match a {
        Action::Keep(id) => Some(rate(*id)),
        Action::Check(..) => None,
    });
    stage.passes = keeps.collect();
    stage.actions = actions;
}

fn is_keep(action: &Action) -> bool {
    matches!(action, Action::Keep(_))
}

/// What predicates cost, each with all that it needs.
struct Costs<'a> {
    graph: &'a Graph,
    /// The last predicate, by number, for which a node was counted.
    counted: Vec<usize>,
    predicates: usize,
    visits: usize,
}

impl<'a> Costs<'a> {
    fn new(graph: &'a Graph) -> Costs<'a> {
        Costs { graph, counted: vec![0; graph.len()], predicates: 0, visits: 0 }
    }

    /// Nanoseconds per row, and whether it reads strings; none when patience is at its end.
    fn of(&mut self, root: Id) -> Option<(f64, bool)> {
        let (mut cost, mut strings) = (INSTRUCTION, false);
        self.predicates += 1;
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            let counted = self.counted.get_mut(id as usize)?;
            if std::mem::replace(counted, self.predicates) == self.predicates {
                continue;
            }
            self.visits += 1;
            if self.visits > PATIENCE {
                return None;
            }
            let node = self.graph.node(id);
            strings |= matches!(node.op, Op::StrCompare(..) | Op::StrColumns(..) | Op::StrIn(..));
            cost += self.own(&node);
            stack.extend(node.args());
        }
        Some((cost, strings))
    }

    fn own(&self, node: &Node) -> f64 {
        match (node.op, node.repr) {
            (Op::Values(_) | Op::ShiftedValues(..), Repr::Num(p)) => BYTE * p.width() as f64,
            (
                Op::Values(_) | Op::ShiftedValues(..) | Op::Validity(_) | Op::ShiftedValidity(..),
                _,
            ) => BYTE / 8.0,
            (
                Op::Const(_) | Op::Param(_) | Op::Given(_) | Op::GivenValid(_) | Op::InRange(_),
                _,
            ) => 0.0,
            (Op::NumIn(set), _) => {
                let values = self.graph.num_sets.get(set as usize).map_or(0, |s| s.len());
                1.0 + (values.max(1) as f64).log2()
            }
            (op, _) => INSTRUCTION + extra_cost(op),
        }
    }
}

/// Nanoseconds per row that an instruction takes beyond those of a plain loop.
pub(super) fn extra_cost(op: Op) -> f64 {
    match op {
        Op::Math(_) => 2.0,
        Op::Math2(_) => 8.0,
        Op::StrCompare(..) => 3.0,
        Op::StrColumns(..) | Op::StrIn(..) => 6.0,
        _ => 0.0,
    }
}

/// What share of the rows has a bit set, by what is known of the columns.
struct Rates<'a> {
    graph: &'a Graph,
    stats: &'a [ColumnStats],
    rows: usize,
}

impl Rates<'_> {
    /// Of every node; of numbers, anything.
    fn all(&self) -> Vec<f64> {
        let mut rates: Vec<f64> = Vec::with_capacity(self.graph.len());
        for id in 0..self.graph.len() as Id {
            let rate = self.of(&self.graph.node(id), &rates);
            rates.push(if rate.is_nan() { 0.5 } else { rate.clamp(0.0, 1.0) });
        }
        rates
    }

    fn of(&self, node: &Node, before: &[f64]) -> f64 {
        // Operands have smaller numbers.
        let arg = |i: usize| {
            let rate = node.args().get(i).and_then(|id| before.get(*id as usize));
            rate.copied().unwrap_or(0.5)
        };
        match node.op {
            Op::Const(bits) => (bits & 1) as f64,
            Op::Validity(c) | Op::ShiftedValidity(c, _) => self.valid(c),
            Op::Compare(op) => match node.args() {
                [a, b] => self.compared(op, *a, *b),
                _ => 0.5,
            },
            Op::StrCompare(op, ..) | Op::StrColumns(op, ..) => by_default(op),
            Op::StrIn(_, set) => {
                let texts = self.graph.text_sets.get(set as usize).map_or(0, |s| s.len());
                (EQUAL * texts as f64).min(0.5)
            }
            Op::NumIn(set) => {
                let values = self.graph.num_sets.get(set as usize).map_or(0, |s| s.len()) as f64;
                let range = node.args().first().and_then(|a| self.range(*a));
                match range {
                    Some((low, high, true)) => values / (high - low + 1.0),
                    _ => (EQUAL * values).min(0.5),
                }
            }
            Op::Unary(Unary::IsNan | Unary::IsInfinite) => 1.0 - VALID,
            Op::Unary(Unary::IsFinite) => VALID,
            Op::SelectBits => arg(0) * arg(1) + (1.0 - arg(0)) * arg(2),
            Op::Bits(op) => match op {
                BitOp::And => arg(0) * arg(1),
                BitOp::Or => arg(0) + arg(1) - arg(0) * arg(1),
                BitOp::Xor => arg(0) + arg(1) - 2.0 * arg(0) * arg(1),
                BitOp::AndNot => arg(0) * (1.0 - arg(1)),
                BitOp::OrNot => 1.0 - arg(1) + arg(0) * arg(1),
                BitOp::Not => 1.0 - arg(0),
                BitOp::Copy => arg(0),
                BitOp::And3 => arg(0) * arg(1) * arg(2),
                // Of validities, beside the values that are valid.
                BitOp::KleeneAnd | BitOp::KleeneOr => arg(1) * arg(3),
            },
            _ => 0.5,
        }
    }

    fn valid(&self, column: u32) -> f64 {
        let nulls = self.stats.get(column as usize).and_then(|s| s.null_count);
        match nulls {
            Some(nulls) if self.rows > 0 => 1.0 - nulls as f64 / self.rows as f64,
            _ => VALID,
        }
    }

    fn compared(&self, op: Compare, a: Id, b: Id) -> f64 {
        if let (Some(range), Some(value)) = (self.range(a), self.constant(b)) {
            return share(op, range, value);
        }
        if let (Some(value), Some(range)) = (self.constant(a), self.range(b)) {
            return share(op.flip(), range, value);
        }
        by_default(op)
    }

    /// The least and the greatest value of a column, however it is cast, and whether they are whole
    /// numbers; none if they are not known.
    fn range(&self, mut id: Id) -> Option<(f64, f64, bool)> {
        loop {
            let node = self.graph.node(id);
            match (node.op, node.args()) {
                (Op::Cast, [from]) => id = *from,
                (Op::Values(column), _) => {
                    let stats = self.stats.get(column as usize)?;
                    let whole = stats.min.zip(stats.max).map(|(a, b)| (a as f64, b as f64, true));
                    let range = whole.or(stats.range.map(|(a, b)| (a, b, false)));
                    return range.filter(|(a, b, _)| a <= b && (b - a).is_finite());
                }
                _ => return None,
            }
        }
    }

    fn constant(&self, id: Id) -> Option<f64> {
        let node = self.graph.node(id);
        let (Op::Const(bits), Repr::Num(prim)) = (node.op, node.repr) else { return None };
        let value = match prim {
            Prim::I8 => f64::from(bits as i8),
            Prim::I16 => f64::from(bits as i16),
            Prim::I32 => f64::from(bits as i32),
            Prim::I64 => bits as i64 as f64,
            Prim::U8 => f64::from(bits as u8),
            Prim::U16 => f64::from(bits as u16),
            Prim::U32 => f64::from(bits as u32),
            Prim::U64 => bits as f64,
            Prim::F32 => f64::from(f32::from_bits(bits as u32)),
            Prim::F64 => f64::from_bits(bits),
        };
        (!value.is_nan()).then_some(value)
    }
}

/// The share of values that compare so, of values spread evenly over a range.
fn share(op: Compare, (low, high, whole): (f64, f64, bool), value: f64) -> f64 {
    let outside = value < low || value > high;
    let equal = match (outside, whole || low == high) {
        (true, _) => 0.0,
        (false, true) => 1.0 / (high - low + 1.0),
        (false, false) => EQUAL,
    };
    // Whole numbers take a place each.
    let width = high - low + if whole { 1.0 } else { 0.0 };
    let below = match (value <= low, value > high) {
        (true, _) => 0.0,
        (_, true) => 1.0,
        _ => (value - low) / width,
    };
    let upto = match whole {
        true => (below + equal).min(1.0),
        false if value >= high => 1.0,
        false => below,
    };
    match op {
        Compare::Eq => equal,
        Compare::Ne => 1.0 - equal,
        Compare::Lt => below,
        Compare::Le => upto,
        Compare::Gt => 1.0 - upto,
        Compare::Ge => 1.0 - below,
    }
}

fn by_default(op: Compare) -> f64 {
    match op {
        Compare::Eq => EQUAL,
        Compare::Ne => 1.0 - EQUAL,
        _ => BELOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_range() {
        let whole = (0.0, 9.0, true);
        let near = |op, range, value, expected: f64| {
            let got = share(op, range, value);
            assert!((got - expected).abs() < 1e-12, "{op:?} {range:?} {value}: {got}");
        };
        near(Compare::Eq, whole, 3.0, 0.1);
        near(Compare::Ne, whole, 3.0, 0.9);
        near(Compare::Lt, whole, 3.0, 0.3);
        near(Compare::Le, whole, 3.0, 0.4);
        near(Compare::Gt, whole, 3.0, 0.6);
        near(Compare::Ge, whole, 3.0, 0.7);
        near(Compare::Eq, whole, 10.0, 0.0);
        near(Compare::Lt, whole, 10.0, 1.0);
        near(Compare::Ge, whole, 10.0, 0.0);
        near(Compare::Le, whole, -1.0, 0.0);
        near(Compare::Gt, whole, f64::INFINITY, 0.0);
        let one = (2.0, 2.0, false);
        near(Compare::Eq, one, 2.0, 1.0);
        near(Compare::Lt, one, 2.0, 0.0);
        near(Compare::Le, one, 2.0, 1.0);
        near(Compare::Gt, one, 1.0, 1.0);
        near(Compare::Lt, (0.0, 4.0, false), 1.0, 0.25);
    }

    #[test]
    fn conjunctions_come_apart() {
        let mut g = Graph::default();
        let column = |g: &mut Graph, c| g.add(Op::Values(c), Prim::U8, Repr::Bits, &[]);
        let validity = |g: &mut Graph, c| g.add(Op::Validity(c), Prim::U8, Repr::Bits, &[]);
        let (a, b, c) = (column(&mut g, 0), column(&mut g, 1), column(&mut g, 2));
        let (v, w) = (validity(&mut g, 0), validity(&mut g, 1));
        let both = g.and(a, b);
        let all = g.and(both, c);
        assert_eq!(conjuncts(&mut g, all, None), [a, b, c]);
        let valid = g.bits(BitOp::KleeneAnd, &[a, v, b, w]);
        let (x, y) = (g.and(a, v), g.and(b, w));
        assert_eq!(conjuncts(&mut g, both, Some(valid)), [x, y]);
        // Of another validity than its parts': as a whole.
        let whole = g.and(both, v);
        assert_eq!(conjuncts(&mut g, both, Some(v)), [whole]);
        let yes = g.boolean(true);
        assert_eq!(conjuncts(&mut g, yes, None), [yes]);
    }
}
