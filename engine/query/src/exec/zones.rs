//! Rows that a stage need not look at: zones of which the statistics say that none of their rows
//! passes the predicates.
//!
//! Statistics are believed here, as values are: false ones give wrong answers, but never a wrong
//! access. Only predicates before the first check count, since a check may end the run.

use insitu_kernels::copy::ZoneStats;
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{BitOp, Compare};

use crate::compile::graph::{Graph, Id, Op, Repr};
use crate::compile::program::{Action, Given};
use crate::compile::stage::Stage;
use crate::exec::given::Tiles;
use crate::exec::source::Source;
use crate::table::ZoneView;

/// Nodes of predicates that are looked at: of larger ones the rest is passed over.
const PATIENCE: usize = 1 << 10;

/// What is asked of a zone: whether some row of it may pass.
enum Test {
    /// A column's values, as numbers of another type, against a number.
    Compare { column: usize, from: Prim, to: Prim, op: Compare, value: Number },
    /// Whether any row of a column is valid.
    Valid { column: usize },
    /// All of them.
    All(Vec<Test>),
    /// Any of them.
    Any(Vec<Test>),
    /// Nothing is known.
    Maybe,
}

/// A number that two types' values compare as.
#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Float(f64),
}

/// A zone by its number, and its rows.
#[derive(Clone, Copy)]
struct Zone {
    number: usize,
    rows: u64,
}

/// What a stage asks of each zone of its source.
pub(crate) struct Skips<'a> {
    zones: ZoneView<'a>,
    test: Test,
    /// Of each chunk the first row, and the first zone.
    chunks: Vec<(usize, usize)>,
    rows: usize,
}

impl<'a> Skips<'a> {
    /// What the stage's predicates ask; none if there are no statistics, or nothing to ask of them.
    pub(crate) fn new(stage: &Stage, source: &Source<'a>, given: &Tiles) -> Option<Skips<'a>> {
        let zones = source.zones?;
        let mut reader = Reader { graph: &stage.graph, given, left: PATIENCE };
        let keeps = stage.actions.iter().map_while(|action| match action {
            Action::Keep(id) => Some(*id),
            Action::Check(..) => None,
        });
        let test = reader.all(keeps.collect());
        if matches!(test, Test::Maybe) {
            return None;
        }
        let column = source.columns.first()?;
        let mut first = 0;
        let mut chunks = Vec::with_capacity(column.chunks.len());
        let mut rows = 0;
        for (chunk, start) in column.chunks.iter().zip(&column.starts) {
            chunks.push((*start, first));
            first += chunk.len.div_ceil(zones.rows_per_zone());
            rows = start + chunk.len;
        }
        // Statistics of another number of zones are of other chunks.
        (first == zones.len()).then_some(Skips { zones, test, chunks, rows })
    }

    /// Whether no row passes of the zone that a row is in, counted before slicing, and the row after
    /// the zone.
    pub(crate) fn at(&self, row: usize) -> (bool, usize) {
        let chunk = self.chunks.partition_point(|(start, _)| *start <= row).saturating_sub(1);
        let Some((start, first)) = self.chunks.get(chunk).copied() else { return (false, row) };
        let next = self.chunks.get(chunk + 1).map_or(self.rows, |(start, _)| *start);
        let per_zone = self.zones.rows_per_zone();
        let within = (row - start) / per_zone;
        let begin = start + within * per_zone;
        let end = (begin + per_zone).min(next);
        let zone = Zone { number: first + within, rows: end.saturating_sub(begin) as u64 };
        (!self.may(&self.test, zone), end)
    }

    /// How many of the rows from one on, counted before slicing, are in zones of which none passes.
    pub(crate) fn rows(&self, from: usize, rows: usize) -> usize {
        let (mut at, end, mut skipped) = (from, from + rows, 0);
        while at < end {
            let (none, next) = self.at(at);
            let next = next.clamp(at + 1, end);
            skipped += if none { next - at } else { 0 };
            at = next;
        }
        skipped
    }

    /// What is known of a column's zone. A record of other rows is not of this zone.
    fn record(&self, column: usize, zone: Zone) -> Option<ZoneStats> {
        self.zones.record(column, zone.number).filter(|record| record.rows == zone.rows)
    }

    fn may(&self, test: &Test, zone: Zone) -> bool {
        match test {
            Test::All(all) => all.iter().all(|test| self.may(test, zone)),
            Test::Any(any) => any.iter().any(|test| self.may(test, zone)),
            Test::Valid { column } => {
                self.record(*column, zone).is_none_or(|zone| zone.null_count != zone.rows)
            }
            Test::Compare { column, from, to, op, value } => {
                let Some(zone) = self.record(*column, zone) else { return true };
                if zone.null_count == zone.rows {
                    return false;
                }
                // Without a range all that is known is how many rows are null.
                if !zone.has(ZoneStats::HAS_RANGE) {
                    return true;
                }
                let ends = (of_column(zone.min, *from, *to), of_column(zone.max, *from, *to));
                let (Some(min), Some(max)) = ends else { return true };
                passes(*op, min, max, zone.has(ZoneStats::HAS_NAN), *value)
            }
            Test::Maybe => true,
        }
    }
}

/// Reads tests off a graph.
struct Reader<'a> {
    graph: &'a Graph,
    given: &'a Tiles,
    left: usize,
}

impl Reader<'_> {
    /// The rows that have all bits.
    fn all(&mut self, ids: Vec<Id>) -> Test {
        let mut tests: Vec<Test> = ids.into_iter().map(|id| self.of(id)).collect();
        tests.retain(|test| !matches!(test, Test::Maybe));
        if tests.is_empty() { Test::Maybe } else { Test::All(tests) }
    }

    /// The rows that have a bit.
    fn of(&mut self, id: Id) -> Test {
        let Some(left) = self.left.checked_sub(1) else { return Test::Maybe };
        self.left = left;
        let node = self.graph.node(id);
        match (node.op, node.args()) {
            (Op::Bits(BitOp::And), args) => self.all(args.to_vec()),
            (Op::Bits(BitOp::Or), args) => {
                let any: Vec<Test> = args.iter().map(|id| self.of(*id)).collect();
                let unknown = any.iter().any(|test| matches!(test, Test::Maybe));
                if unknown { Test::Maybe } else { Test::Any(any) }
            }
            (Op::Validity(column), _) => Test::Valid { column: column as usize },
            (Op::Compare(op), [a, b]) => self
                .compare(op, *a, *b, node.prim)
                .or_else(|| self.compare(op.flip(), *b, *a, node.prim))
                .unwrap_or(Test::Maybe),
            _ => Test::Maybe,
        }
    }

    fn compare(&self, op: Compare, values: Id, value: Id, to: Prim) -> Option<Test> {
        let node = self.graph.node(values);
        let (column, from) = match (node.op, node.args(), node.repr) {
            (Op::Values(column), _, Repr::Num(prim)) => (column, prim),
            (Op::Cast, [below], _) => {
                let below = self.graph.node(*below);
                let (Op::Values(column), Repr::Num(prim)) = (below.op, below.repr) else {
                    return None;
                };
                (column, prim)
            }
            _ => return None,
        };
        let (op, value) = (op, self.number(value, to)?);
        Some(Test::Compare { column: column as usize, from, to, op, value })
    }

    /// The number that a node is in every row.
    fn number(&self, id: Id, prim: Prim) -> Option<Number> {
        let bits = match self.graph.node(id).op {
            Op::Const(bits) => bits,
            Op::Param(index) => self.first(Given::Param(index), prim)?,
            Op::Given(column) => self.first(Given::Value(column), prim)?,
            _ => return None,
        };
        Some(match prim {
            Prim::I8 => Number::Whole(i128::from(bits as i8)),
            Prim::I16 => Number::Whole(i128::from(bits as i16)),
            Prim::I32 => Number::Whole(i128::from(bits as i32)),
            Prim::I64 => Number::Whole(i128::from(bits as i64)),
            Prim::U8 => Number::Whole(i128::from(bits as u8)),
            Prim::U16 => Number::Whole(i128::from(bits as u16)),
            Prim::U32 => Number::Whole(i128::from(bits as u32)),
            Prim::U64 => Number::Whole(i128::from(bits)),
            Prim::F32 => Number::Float(f64::from(f32::from_bits(bits as u32))),
            Prim::F64 => Number::Float(f64::from_bits(bits)),
        })
    }

    /// The first value of a constant's tile, as its own bits.
    fn first(&self, given: Given, prim: Prim) -> Option<u64> {
        let tile = self.given.of(given)?;
        // SAFETY: a tile has at least one value of its type.
        Some(unsafe { insitu_kernels::reduce::raw_bits(prim, tile, 0) })
    }
}

/// A value of a zone's record, of a column of type `from`, as the comparison sees it: as a number of
/// type `to`. None where the cast between them does not keep the order.
fn of_column(bits: u64, from: Prim, to: Prim) -> Option<Number> {
    let whole = || {
        if from.is_signed() { i128::from(bits as i64) } else { i128::from(bits) }
    };
    match (from.is_float(), to.is_float()) {
        (true, true) if from == to || to == Prim::F64 => Some(Number::Float(f64::from_bits(bits))),
        (false, false) if from == to || keeps(from, to) => Some(Number::Whole(whole())),
        // Rounded as the cast rounds.
        (false, true) if to == Prim::F32 => Some(Number::Float(f64::from(whole() as f32))),
        (false, true) => Some(Number::Float(whole() as f64)),
        _ => None,
    }
}

/// Whether an integer type holds all values of another.
fn keeps(from: Prim, to: Prim) -> bool {
    match (from.is_signed(), to.is_signed()) {
        (true, false) => false,
        (false, true) => to.width() > from.width(),
        _ => to.width() >= from.width(),
    }
}

/// Whether a value between two others may compare so; beside these there may be NaN.
fn passes(op: Compare, min: Number, max: Number, nan: bool, value: Number) -> bool {
    let ordered = |a: Number, b: Number| match (a, b) {
        (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        _ => None,
    };
    let unordered = matches!(value, Number::Float(v) if v.is_nan());
    if unordered {
        return op == Compare::Ne;
    }
    let (Some(low), Some(high)) = (ordered(min, value), ordered(max, value)) else { return true };
    match op {
        Compare::Lt => low.is_lt(),
        Compare::Le => low.is_le(),
        Compare::Gt => high.is_gt(),
        Compare::Ge => high.is_ge(),
        Compare::Eq => low.is_le() && high.is_ge(),
        Compare::Ne => nan || low.is_ne() || high.is_ne(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass() {
        use Compare::*;
        let (one, five) = (Number::Whole(1), Number::Whole(5));
        let may = |op, value| passes(op, one, five, false, Number::Whole(value));
        for (op, values) in [
            (Lt, [false, false, true, true, true]),
            (Le, [false, true, true, true, true]),
            (Gt, [true, true, true, false, false]),
            (Ge, [true, true, true, true, false]),
            (Eq, [false, true, true, true, false]),
            (Ne, [true; 5]),
        ] {
            assert_eq!([0, 1, 3, 5, 6].map(|v| may(op, v)), values, "{op:?}");
        }
        assert!(!passes(Ne, one, one, false, one));
        let zero = Number::Float(0.0);
        assert!(!passes(Ne, Number::Float(-0.0), zero, false, zero));
        assert!(passes(Ne, zero, zero, true, zero));
        assert!(passes(Eq, Number::Float(-0.0), Number::Float(-0.0), false, zero));
        let nan = Number::Float(f64::NAN);
        assert!(!passes(Lt, zero, zero, true, nan) && passes(Ne, zero, zero, true, nan));
    }

    #[test]
    fn casts_that_keep_the_order() {
        let whole = |bits, from, to| match of_column(bits, from, to) {
            Some(Number::Whole(n)) => Some(n),
            _ => None,
        };
        assert_eq!(whole(-3i64 as u64, Prim::I8, Prim::I64), Some(-3));
        assert_eq!(whole(u64::MAX, Prim::U64, Prim::U64), Some(i128::from(u64::MAX)));
        assert_eq!(whole(3, Prim::U32, Prim::I64), Some(3));
        // Such casts wrap.
        assert_eq!(whole(3, Prim::U64, Prim::I64), None);
        assert_eq!(whole(3, Prim::I64, Prim::I32), None);
        assert_eq!(whole(3, Prim::I8, Prim::U8), None);
        assert!(of_column(3, Prim::F64, Prim::F32).is_none());
        let rounded = of_column((1 << 53) + 1, Prim::I64, Prim::F64);
        assert!(matches!(rounded, Some(Number::Float(x)) if x == 9007199254740992.0));
    }
}
