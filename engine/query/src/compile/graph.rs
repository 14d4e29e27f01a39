//! The graph of kernel calls that expressions are lowered to: one node per value or bitmap.
//!
//! Nodes are interned, so that a common subexpression is one node, and folded, so that what only
//! depends on constants is a constant. A node's operands have smaller numbers than itself.

use std::sync::Arc;

use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{
    Arith, BitOp, Compare, Math, Math2, Pair, TileFn, Unary, arith, bits, bool_to_prim, cast,
    cast_fits, compare, div_valid, f64_to_half, half_to_f32, math, math2, overflows, pair,
    prim_to_bool, round_overflows, select, select_bits, unary,
};
use rustc_hash::FxHashMap;

use crate::dtype::DataType;
use crate::scalar::Scalar;

/// The number of a node.
pub(crate) type Id = u32;

/// What a node holds per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Repr {
    /// A number.
    Num(Prim),
    /// A bit.
    Bits,
}

impl Repr {
    /// Bytes that `rows` rows take, whole words for bits.
    pub(crate) fn bytes(self, rows: usize) -> usize {
        match self {
            Repr::Num(p) => p.width() * rows,
            Repr::Bits => rows.div_ceil(64) * 8,
        }
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// The values of a source column.
    Values(u32),
    /// The validity bitmap of a source column.
    Validity(u32),
    /// The values of a source column, so many rows before; beyond its ends arbitrary.
    ShiftedValues(u32, i64),
    /// The validity bitmap of a source column, so many rows before.
    ShiftedValidity(u32, i64),
    /// Rows for which the source has one so many rows before.
    InRange(i64),
    /// A constant: the number's own bits, or 0 and 1 for booleans.
    Const(u64),
    /// A number given when the query runs: [`Graph::params`] says which, and as what.
    Param(u32),
    /// One value of an earlier reduction, known when the stage starts.
    Given(u32),
    /// Whether that value is not null.
    GivenValid(u32),
    /// Two numbers of one type to a third.
    Arith(Arith),
    /// Rows whose divisor is not zero.
    DivValid,
    /// Rows for which arithmetic leaves its type.
    Overflows(Arith),
    /// A function of one number.
    Unary(Unary),
    /// A transcendental function of one float.
    Math(Math),
    /// A transcendental function of two floats.
    Math2(Math2),
    /// A function of two numbers of one type, beside arithmetic.
    Pair(Pair),
    /// Rows for which rounding to a multiple leaves its type.
    RoundOverflows,
    /// Two numbers to a bit.
    Compare(Compare),
    /// Number to number, as Rust's `as`.
    Cast,
    /// Half precision, as its 16 bits, to f32.
    FromHalf,
    /// f64 to half precision, as its 16 bits.
    ToHalf,
    /// Rows whose value a strict cast to this type accepts.
    Fits(Prim),
    /// Bit to number.
    BoolToNum,
    /// Number to bit.
    NumToBool,
    /// A choice between numbers by a bit.
    Select,
    /// A choice between bits by a bit.
    SelectBits,
    /// Logic on bits.
    Bits(BitOp),
    /// A string column against a text.
    StrCompare(Compare, u32, u32),
    /// Two string columns.
    StrColumns(Compare, u32, u32),
    /// A string column against a set of texts.
    StrIn(u32, u32),
    /// Numbers against a set.
    NumIn(u32),
}

impl Op {
    /// Whether it reads a column of strings, in its own row.
    fn reads_text(self) -> bool {
        matches!(self, Op::StrCompare(..) | Op::StrColumns(..) | Op::StrIn(..))
    }
}

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) op: Op,
    /// The type of the operands, where they are numbers; else of the result.
    pub(crate) prim: Prim,
    pub(crate) repr: Repr,
    args: [Id; 4],
    arity: u8,
}

impl Node {
    /// The operands.
    pub(crate) fn args(&self) -> &[Id] {
        self.args.get(..usize::from(self.arity)).unwrap_or(&[])
    }

    /// The kernel that computes it, if one does.
    pub(crate) fn kernel(&self, level: Level) -> Option<TileFn> {
        match self.op {
            Op::Arith(op) => arith(op, self.prim, level),
            Op::DivValid => div_valid(self.prim, level),
            Op::Overflows(op) => overflows(op, self.prim, level),
            Op::Unary(op) => unary(op, self.prim, level),
            Op::Math(op) => math(op, self.prim, level),
            Op::Math2(op) => math2(op, self.prim, level),
            Op::Pair(op) => pair(op, self.prim, level),
            Op::RoundOverflows => round_overflows(self.prim, level),
            Op::Compare(op) => Some(compare(op, self.prim, level)),
            Op::Cast => match self.repr {
                Repr::Num(to) => Some(cast(self.prim, to, level)),
                Repr::Bits => None,
            },
            Op::FromHalf => Some(half_to_f32(level)),
            Op::ToHalf => Some(f64_to_half(level)),
            Op::Fits(to) => cast_fits(self.prim, to, level),
            Op::BoolToNum => Some(bool_to_prim(self.prim, level)),
            Op::NumToBool => Some(prim_to_bool(self.prim, level)),
            Op::Select => select(self.prim.width(), level),
            Op::SelectBits => Some(select_bits(level)),
            Op::Bits(op) => Some(bits(op, level)),
            _ => None,
        }
    }

    /// The kernel's name, for people.
    pub(crate) fn name(&self) -> String {
        let p = self.prim.name();
        match self.op {
            Op::Arith(op) => format!("{op:?}.{p}").to_lowercase(),
            Op::DivValid => format!("div_valid.{p}"),
            Op::Overflows(op) => format!("overflows.{op:?}.{p}").to_lowercase(),
            Op::Unary(op) => format!("{op:?}.{p}").to_lowercase(),
            Op::Math(op) => format!("{op:?}.{p}").to_lowercase(),
            Op::Math2(op) => format!("{op:?}.{p}").to_lowercase(),
            Op::Pair(op) => format!("{op:?}.{p}").to_lowercase(),
            Op::RoundOverflows => format!("overflows.round.{p}"),
            Op::Compare(op) => format!("{op:?}.{p}").to_lowercase(),
            Op::Cast => match self.repr {
                Repr::Num(to) => format!("cast.{p}.{}", to.name()),
                Repr::Bits => "cast".into(),
            },
            Op::FromHalf => "cast.float16.float32".into(),
            Op::ToHalf => "cast.float64.float16".into(),
            Op::Fits(to) => format!("fits.{p}.{}", to.name()),
            Op::BoolToNum => format!("from_bool.{p}"),
            Op::NumToBool => format!("to_bool.{p}"),
            Op::Select => format!("select.{p}"),
            Op::SelectBits => "select.bits".into(),
            Op::Bits(op) => format!("bits.{op:?}").to_lowercase(),
            Op::StrCompare(op, ..) => format!("{op:?}.str").to_lowercase(),
            Op::StrColumns(op, ..) => format!("{op:?}.str_columns").to_lowercase(),
            Op::StrIn(..) => "is_in.str".into(),
            Op::NumIn(_) => format!("is_in.{p}"),
            Op::Values(c) => format!("column {c}"),
            Op::Validity(c) => format!("validity {c}"),
            Op::ShiftedValues(c, n) => format!("column {c} shifted by {n}"),
            Op::ShiftedValidity(c, n) => format!("validity {c} shifted by {n}"),
            Op::InRange(n) => format!("rows shifted by {n}"),
            Op::Const(v) => format!("const {v:#x}"),
            Op::Param(i) => format!("param {i}"),
            Op::Given(i) => format!("given {i}"),
            Op::GivenValid(i) => format!("given validity {i}"),
        }
    }
}

/// The nodes of one stage, and the tables its string and set nodes refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    known: FxHashMap<Node, Id>,
    /// The parameters that are put in when the query runs, each with the type it is taken as.
    pub(crate) params: Vec<(Arc<str>, DataType)>,
    pub(crate) texts: Vec<Arc<str>>,
    pub(crate) text_sets: Vec<Arc<[Scalar]>>,
    /// Sorted, each by its bits as an unsigned number.
    pub(crate) num_sets: Vec<Arc<[u64]>>,
}

impl Graph {
    pub(crate) fn node(&self, id: Id) -> Node {
        self.nodes.get(id as usize).copied().unwrap_or(Node {
            op: Op::Const(0),
            prim: Prim::U8,
            repr: Repr::Bits,
            args: [0; 4],
            arity: 0,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the validity of a source column has a node.
    pub(crate) fn has_validity(&self, column: u32) -> bool {
        let (op, args) = (Op::Validity(column), [0; 4]);
        self.known.contains_key(&Node { op, prim: Prim::U8, repr: Repr::Bits, args, arity: 0 })
    }

    /// The node of that operation on those operands: a known one, a folded one, or a new one.
    pub(crate) fn add(&mut self, op: Op, prim: Prim, repr: Repr, operands: &[Id]) -> Id {
        let mut args = [0; 4];
        for (a, o) in args.iter_mut().zip(operands) {
            *a = *o;
        }
        let node = Node { op, prim, repr, args, arity: operands.len().min(4) as u8 };
        if let Some(id) = self.known.get(&node) {
            return *id;
        }
        let node = self.fold(&node).unwrap_or(node);
        if let Some(id) = self.known.get(&node) {
            return *id;
        }
        let id = self.nodes.len() as Id;
        self.nodes.push(node);
        self.known.insert(node, id);
        id
    }

    /// The constant that a node of constants comes to: its own kernel, run on one row. At the
    /// level of programs: transcendental functions differ between levels in the last bits, and a
    /// constant's should be that of a column which has the same value in every row.
    fn fold(&self, node: &Node) -> Option<Node> {
        if node.arity == 0 {
            return None;
        }
        let mut inputs = [0u64; 4];
        for (slot, id) in inputs.iter_mut().zip(node.args()) {
            match self.node(*id).op {
                Op::Const(v) => *slot = v,
                _ => return None,
            }
        }
        let kernel = node.kernel(Level::best())?;
        let mut out = [0u64; 8];
        let src = [0, 1, 2, 3].map(|i: usize| {
            inputs.get(i).map_or(std::ptr::null(), |v| std::ptr::from_ref(v).cast::<u8>())
        });
        // SAFETY: each operand is readable for one row (at most 8 bytes), the result writable for
        // one row or one word, and they do not overlap.
        unsafe { kernel(out.as_mut_ptr().cast(), &src, 1) };
        Some(Node {
            op: Op::Const(out[0]),
            args: [0; 4],
            arity: 0,
            prim: result_prim(node),
            ..*node
        })
    }

    /// The node's values `n` rows before. None: it depends on strings, which are only read in
    /// their own row.
    pub(crate) fn shifted(&mut self, root: Id, n: i64) -> Option<Id> {
        let count = root as usize + 1;
        let mut needed = vec![false; count];
        needed[root as usize] = true;
        for id in (0..=root).rev() {
            if needed[id as usize] {
                self.node(id).args().iter().for_each(|a| needed[*a as usize] = true);
            }
        }
        let mut there: Vec<Id> = vec![0; count];
        for id in (0..=root).filter(|id| needed[*id as usize]) {
            let node = self.node(id);
            let op = match node.op {
                Op::Values(c) => Op::ShiftedValues(c, n),
                Op::Validity(c) => Op::ShiftedValidity(c, n),
                Op::ShiftedValues(c, m) => Op::ShiftedValues(c, m.saturating_add(n)),
                Op::ShiftedValidity(c, m) => Op::ShiftedValidity(c, m.saturating_add(n)),
                Op::InRange(m) => Op::InRange(m.saturating_add(n)),
                op if op.reads_text() => return None,
                op => op,
            };
            let args: Vec<Id> = node.args().iter().map(|a| there[*a as usize]).collect();
            there[id as usize] = self.add(op, node.prim, node.repr, &args);
        }
        there.last().copied()
    }

    /// Whether any node reads strings.
    pub(crate) fn reads_text(&self) -> bool {
        self.nodes.iter().any(|n| n.op.reads_text())
    }

    /// Whether the node's values come of strings.
    pub(crate) fn depends_on_text(&self, root: Id) -> bool {
        let mut seen = vec![false; root as usize + 1];
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            if seen.get_mut(id as usize).is_none_or(|s| std::mem::replace(s, true)) {
                continue;
            }
            let node = self.node(id);
            if node.op.reads_text() {
                return true;
            }
            stack.extend(node.args());
        }
        false
    }

    /// Whether any node reads other rows than its own.
    pub(crate) fn is_shifted(&self) -> bool {
        self.nodes.iter().any(|n| matches!(n.op, Op::InRange(_)))
    }

    pub(crate) fn number(&mut self, prim: Prim, bits: u64) -> Id {
        self.add(Op::Const(bits), prim, Repr::Num(prim), &[])
    }

    /// A parameter that is put in when the query runs, as a number of that type.
    pub(crate) fn param(&mut self, name: &Arc<str>, dtype: &DataType, prim: Prim) -> Id {
        let is_it = |(n, t): &(Arc<str>, DataType)| n == name && t == dtype;
        let at = self.params.iter().position(is_it).unwrap_or_else(|| {
            self.params.push((name.clone(), dtype.clone()));
            self.params.len() - 1
        });
        self.add(Op::Param(at as u32), prim, Repr::Num(prim), &[])
    }

    pub(crate) fn boolean(&mut self, value: bool) -> Id {
        self.add(Op::Const(u64::from(value)), Prim::U8, Repr::Bits, &[])
    }

    /// The boolean that the node is on every row, if it is a constant.
    pub(crate) fn known_bit(&self, id: Id) -> Option<bool> {
        match self.node(id) {
            Node { op: Op::Const(v), repr: Repr::Bits, .. } => Some(v & 1 == 1),
            _ => None,
        }
    }

    pub(crate) fn bits(&mut self, op: BitOp, operands: &[Id]) -> Id {
        let known = |g: &Graph, i: usize| operands.get(i).and_then(|id| g.known_bit(*id));
        match (op, operands) {
            (BitOp::And, [a, b]) if a == b || known(self, 1) == Some(true) => return *a,
            (BitOp::And, [_, b]) if known(self, 0) == Some(true) => return *b,
            (BitOp::Or, [a, b]) if a == b || known(self, 1) == Some(false) => return *a,
            (BitOp::Or, [_, b]) if known(self, 0) == Some(false) => return *b,
            _ => {}
        }
        self.add(Op::Bits(op), Prim::U8, Repr::Bits, operands)
    }

    pub(crate) fn and(&mut self, a: Id, b: Id) -> Id {
        self.bits(BitOp::And, &[a, b])
    }

    pub(crate) fn not(&mut self, a: Id) -> Id {
        self.bits(BitOp::Not, &[a])
    }

    /// Validity of what needs both: none stands for all valid.
    pub(crate) fn both_valid(&mut self, a: Option<Id>, b: Option<Id>) -> Option<Id> {
        let both = match (a, b) {
            (None, v) | (v, None) => v,
            (Some(a), Some(b)) => Some(self.and(a, b)),
        };
        both.filter(|v| self.known_bit(*v) != Some(true))
    }

    pub(crate) fn arith(&mut self, op: Arith, p: Prim, a: Id, b: Id) -> Id {
        self.add(Op::Arith(op), p, Repr::Num(p), &[a, b])
    }

    pub(crate) fn unary(&mut self, op: Unary, p: Prim, a: Id) -> Id {
        let repr = if op.is_test() { Repr::Bits } else { Repr::Num(p) };
        self.add(Op::Unary(op), p, repr, &[a])
    }

    pub(crate) fn pair(&mut self, op: Pair, p: Prim, a: Id, b: Id) -> Id {
        self.add(Op::Pair(op), p, Repr::Num(p), &[a, b])
    }

    pub(crate) fn compare(&mut self, op: Compare, p: Prim, a: Id, b: Id) -> Id {
        self.add(Op::Compare(op), p, Repr::Bits, &[a, b])
    }

    pub(crate) fn cast(&mut self, from: Prim, to: Prim, a: Id) -> Id {
        if from == to { a } else { self.add(Op::Cast, from, Repr::Num(to), &[a]) }
    }

    pub(crate) fn text(&mut self, s: &Arc<str>) -> u32 {
        let at = self.texts.iter().position(|t| t == s).unwrap_or_else(|| {
            self.texts.push(s.clone());
            self.texts.len() - 1
        });
        at as u32
    }
}

fn result_prim(node: &Node) -> Prim {
    match node.repr {
        Repr::Num(p) => p,
        Repr::Bits => Prim::U8,
    }
}
