//! Tile programs: a flat list of instructions over numbered slots, scheduled from the graph.
//!
//! A slot is a column cursor, a constant's broadcast tile, scratch that stays in L1, or a place in
//! a final buffer. Chains of + - * are fused (see `fusion`). An instruction's destination is never
//! one of its operands.

use std::fmt::Write as _;

use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{BitOp, Compare, TILE_MAX, TileFn, bits, fill, fill_bits};

use crate::compile::fusion::Fusion;
use crate::compile::graph::{Graph, Id, Op, Repr};
use crate::compile::order::extra_cost;
use crate::error::{Error, Result};

/// Number of a slot.
pub(crate) type Slot = u16;

/// Bytes of L1 that a tile's live slots may take.
const L1_BUDGET: usize = 16 * 1024;
/// The fewest rows of a tile: one block of a reproducible sum.
pub(crate) const TILE_MIN: usize = 256;

/// What the source gives for a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// The numbers of a column.
    Numbers(u32, Prim),
    /// The bits of a boolean column.
    Bools(u32),
    /// The validity bitmap of a column.
    Validity(u32),
    /// The numbers of a column, so many rows before.
    ShiftedNumbers(u32, Prim, i64),
    /// The bits of a boolean column, so many rows before.
    ShiftedBools(u32, i64),
    /// The validity bitmap of a column, so many rows before.
    ShiftedValidity(u32, i64),
    /// Which rows have one so many rows before.
    InRange(i64),
}

impl Cursor {
    /// How many rows before the tile's own it reads; none of the tile's own.
    pub(crate) fn shift(self) -> Option<i64> {
        match self {
            Cursor::ShiftedNumbers(.., n)
            | Cursor::ShiftedBools(_, n)
            | Cursor::ShiftedValidity(_, n)
            | Cursor::InRange(n) => Some(n),
            _ => None,
        }
    }

    /// The column it reads.
    pub(crate) fn column(self) -> Option<u32> {
        match self {
            Cursor::Numbers(c, _)
            | Cursor::Bools(c)
            | Cursor::Validity(c)
            | Cursor::ShiftedNumbers(c, ..)
            | Cursor::ShiftedBools(c, _)
            | Cursor::ShiftedValidity(c, _) => Some(c),
            Cursor::InRange(_) => None,
        }
    }
}

/// Where a slot's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At a cursor of that number.
    Cursor(usize),
    /// In the program's constants, at that offset.
    Const(usize),
    /// In the worker's scratch, at that offset per tile row times 8.
    Scratch(usize),
    /// In output buffer of that number.
    Output(usize),
    /// In the run's constants.
    Given(Given),
}

/// A constant of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A value of an earlier reduction, by its column.
    Value(u32),
    /// Whether that is not null.
    Valid(u32),
    /// A parameter, by its number in the graph.
    Param(u32),
}

/// One instruction.
#[derive(Clone, Copy)]
pub(crate) enum Instr {
    /// Calls a kernel.
    Call { kernel: TileFn, dst: Slot, src: [Slot; 4] },
    /// Compares a string column with a text.
    StrCompare { op: Compare, column: u32, text: u32, dst: Slot },
    /// Compares two string columns.
    StrColumns { op: Compare, left: u32, right: u32, dst: Slot },
    /// Looks strings up in a set.
    StrIn { column: u32, set: u32, dst: Slot },
    /// Looks numbers up in a set.
    NumIn { prim: Prim, set: u32, src: Slot, dst: Slot },
    /// Narrows the mask; the tile ends if no row is left.
    Mask { src: Slot, first: bool },
    /// Ends the run if a row fails that the mask selects, where one was made before.
    Check { index: usize, fails: Slot, masked: bool },
}

/// A value that the sink reads, or that was written for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) slot: Slot,
    /// Already in its final place.
    pub(crate) forwarded: bool,
}

/// What the program does in order, beside computing.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Keeps the rows whose bit is set.
    Keep(Id),
    /// The check of that number.
    Check(usize, Id, Vec<Id>),
}

/// 64 bytes, aligned to a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// A compiled program.
pub(crate) struct Program {
    pub(crate) instrs: Vec<Instr>,
    pub(crate) places: Vec<Place>,
    pub(crate) cursors: Vec<Cursor>,
    pub(crate) roots: Vec<Root>,
    /// Slots of each check's operands.
    pub(crate) check_values: Vec<Vec<Slot>>,
    pub(crate) tile_rows: usize,
    pub(crate) scratch_bytes: usize,
    /// The slot of the mask, if there are predicates.
    pub(crate) mask: Option<Slot>,
    /// String columns read.
    pub(crate) strings: Vec<u32>,
    /// The constants that a run gives.
    pub(crate) given: Vec<(Given, Repr)>,
    pub(crate) level: Level,
    pub(crate) and: TileFn,
    pub(crate) copy_bits: TileFn,
    pub(crate) constants: Vec<Line>,
    /// Estimated nanoseconds per row, for the decision to use threads.
    pub(crate) cost: f64,
    names: Vec<String>,
}

// SAFETY: a program is immutable after compilation: function pointers, numbers and owned constants.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// Whether it reads the source's column of that number.
    pub(crate) fn reads(&self, column: usize) -> bool {
        let is_it = |c: u32| c as usize == column;
        self.cursors
            .iter()
            .filter_map(|c| c.column())
            .chain(self.strings.iter().copied())
            .any(is_it)
    }

    /// Lists the instructions, for people.
    pub(crate) fn describe(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "  program: {} instructions, level {:?}, {} rows per tile, {} bytes of scratch",
            self.instrs.len(),
            self.level,
            self.tile_rows,
            self.scratch_bytes
        );
        for line in &self.names {
            let _ = writeln!(out, "    {line}");
        }
        out
    }
}

/// Schedules the graph: `actions` in order, then `roots`. With `forward`, root `i` is written
/// straight to output buffer `i` where it can be.
pub(crate) fn compile(
    graph: &Graph,
    actions: &[Action],
    roots: &[Id],
    forward: bool,
    level: Level,
) -> Result<Program> {
    let fusion = Fusion::plan(graph, actions, roots);
    let mut c =
        Compiler { graph, level, fusion, seq: Vec::new(), emitted: vec![false; graph.len()] };
    for action in actions {
        match action {
            Action::Keep(id) => {
                c.demand(*id);
                c.seq.push(Item::Keep(*id));
            }
            Action::Check(index, fails, values) => {
                c.demand(*fails);
                for v in values {
                    c.demand(*v);
                }
                c.seq.push(Item::Check(*index, *fails, values.clone()));
            }
        }
    }
    for id in roots {
        c.demand(*id);
    }
    c.finish(actions, roots, forward)
}

/// One step of the order of execution.
enum Item {
    Node(Id),
    Keep(Id),
    Check(usize, Id, Vec<Id>),
}

struct Compiler<'a> {
    graph: &'a Graph,
    level: Level,
    fusion: Fusion,
    seq: Vec<Item>,
    emitted: Vec<bool>,
}

impl Compiler<'_> {
    /// Puts a node and what it needs into the order, operands first.
    fn demand(&mut self, root: Id) {
        let mut stack = vec![(root, false)];
        while let Some((id, ready)) = stack.pop() {
            if self.emitted[id as usize] {
                continue;
            }
            if ready {
                self.emitted[id as usize] = true;
                self.seq.push(Item::Node(id));
                continue;
            }
            stack.push((id, true));
            stack.extend(
                self.fusion
                    .fused(self.graph, id, self.level)
                    .operands
                    .into_iter()
                    .map(|o| (o, false)),
            );
        }
    }

    fn finish(self, actions: &[Action], roots: &[Id], forward: bool) -> Result<Program> {
        let n = self.graph.len();
        // Last use of every node, as a position in the order; roots live to the end.
        let mut last = vec![0usize; n];
        for (at, item) in self.seq.iter().enumerate() {
            match item {
                Item::Node(id) => {
                    for o in self.fusion.fused(self.graph, *id, self.level).operands {
                        last[o as usize] = at;
                    }
                }
                Item::Keep(id) => last[*id as usize] = at,
                Item::Check(_, id, values) => {
                    last[*id as usize] = at;
                    for v in values {
                        last[*v as usize] = at;
                    }
                }
            }
        }
        for id in roots {
            last[*id as usize] = usize::MAX;
        }
        let mut p = Program {
            instrs: Vec::new(),
            places: Vec::new(),
            cursors: Vec::new(),
            roots: Vec::new(),
            check_values: Vec::new(),
            tile_rows: TILE_MIN,
            scratch_bytes: 0,
            mask: None,
            strings: Vec::new(),
            given: Vec::new(),
            level: self.level,
            and: bits(BitOp::And, self.level),
            copy_bits: bits(BitOp::Copy, self.level),
            constants: Vec::new(),
            cost: 0.0,
            names: Vec::new(),
        };
        let mut slot_of: Vec<Option<Slot>> = vec![None; n];
        // Free scratch, by kind; offsets are in eighths of a byte per row: 64 for numbers, 1 for
        // bits, so that they scale with the tile.
        let (mut free_nums, mut free_bits): (Vec<Slot>, Vec<Slot>) = (Vec::new(), Vec::new());
        let (mut nums, mut bit_slots) = (0usize, 0usize);
        let mut releases: Vec<Vec<Id>> = vec![Vec::new(); self.seq.len()];
        for (id, at) in last.iter().enumerate() {
            if let Some(list) = releases.get_mut(*at) {
                list.push(id as Id);
            }
        }
        if actions.iter().any(|a| matches!(a, Action::Keep(_))) {
            p.mask = Some(p.slot(Place::Scratch(0))?);
            bit_slots += 1;
        }
        let mut widest = 1usize;
        let mut consts: Vec<(Repr, u64)> = Vec::new();
        let mut first_mask = true;
        let mut bytes_per_row = 0.0f64;
        for (at, item) in self.seq.iter().enumerate() {
            match item {
                Item::Keep(id) => {
                    let src = p.find(&slot_of, *id)?;
                    p.instrs.push(Instr::Mask { src, first: first_mask });
                    p.names.push(format!("keep     <- {}", p.show(src)));
                    first_mask = false;
                }
                Item::Check(index, fails, values) => {
                    let fails = p.find(&slot_of, *fails)?;
                    let values: Result<Vec<Slot>> =
                        values.iter().map(|v| p.find(&slot_of, *v)).collect();
                    if p.check_values.len() <= *index {
                        p.check_values.resize(*index + 1, Vec::new());
                    }
                    p.check_values[*index] = values?;
                    p.instrs.push(Instr::Check { index: *index, fails, masked: !first_mask });
                    p.names.push(format!("check    <- {}", p.show(fails)));
                }
                Item::Node(id) => {
                    let node = self.graph.node(*id);
                    let leaf = match node.op {
                        Op::Values(c) => {
                            let cursor = match node.repr {
                                Repr::Num(prim) => Cursor::Numbers(c, prim),
                                Repr::Bits => Cursor::Bools(c),
                            };
                            bytes_per_row += node.repr.bytes(64) as f64 / 64.0;
                            p.cursors.push(cursor);
                            Some(Place::Cursor(p.cursors.len() - 1))
                        }
                        Op::Validity(c) => {
                            p.cursors.push(Cursor::Validity(c));
                            Some(Place::Cursor(p.cursors.len() - 1))
                        }
                        Op::ShiftedValues(c, n) => {
                            p.cursors.push(match node.repr {
                                Repr::Num(prim) => Cursor::ShiftedNumbers(c, prim, n),
                                Repr::Bits => Cursor::ShiftedBools(c, n),
                            });
                            Some(Place::Cursor(p.cursors.len() - 1))
                        }
                        Op::ShiftedValidity(c, n) => {
                            p.cursors.push(Cursor::ShiftedValidity(c, n));
                            Some(Place::Cursor(p.cursors.len() - 1))
                        }
                        Op::InRange(n) => {
                            p.cursors.push(Cursor::InRange(n));
                            Some(Place::Cursor(p.cursors.len() - 1))
                        }
                        Op::Const(v) => {
                            consts.push((node.repr, v));
                            Some(Place::Const(consts.len() - 1))
                        }
                        Op::Given(c) => Some(Place::Given(Given::Value(c))),
                        Op::GivenValid(c) => Some(Place::Given(Given::Valid(c))),
                        Op::Param(i) => Some(Place::Given(Given::Param(i))),
                        _ => None,
                    };
                    if let Some(Place::Given(given)) = leaf {
                        p.given.push((given, node.repr));
                    }
                    if let Repr::Num(prim) = node.repr {
                        widest = widest.max(prim.width());
                    }
                    if let Some(place) = leaf {
                        slot_of[*id as usize] = Some(p.slot(place)?);
                        continue;
                    }
                    let output = roots.iter().position(|r| r == id).filter(|_| forward);
                    let dst = match (output, node.repr) {
                        (Some(i), _) => p.slot(Place::Output(i))?,
                        (None, Repr::Num(_)) => match free_nums.pop() {
                            Some(s) => s,
                            None => {
                                nums += 1;
                                p.slot(Place::Scratch((nums - 1) * 64 + 1))?
                            }
                        },
                        (None, Repr::Bits) => match free_bits.pop() {
                            Some(s) => s,
                            None => {
                                bit_slots += 1;
                                p.slot(Place::Scratch((bit_slots - 1) * 2))?
                            }
                        },
                    };
                    slot_of[*id as usize] = Some(dst);
                    self.emit(&mut p, *id, dst, &slot_of)?;
                }
            }
            for id in &releases[at] {
                let node = self.graph.node(*id);
                let Some(slot) = slot_of[*id as usize] else { continue };
                if matches!(p.places.get(usize::from(slot)), Some(Place::Scratch(_))) {
                    match node.repr {
                        Repr::Num(_) => free_nums.push(slot),
                        Repr::Bits => free_bits.push(slot),
                    }
                }
            }
        }
        for (i, id) in roots.iter().enumerate() {
            let slot = p.find(&slot_of, *id)?;
            let forwarded = p.places.get(usize::from(slot)) == Some(&Place::Output(i));
            p.roots.push(Root { slot, forwarded });
            if forward {
                bytes_per_row += self.graph.node(*id).repr.bytes(64) as f64 / 64.0;
            }
        }
        let streams = p.cursors.iter().map(|c| match c {
            Cursor::Numbers(_, prim) | Cursor::ShiftedNumbers(_, prim, _) => prim.width(),
            _ => 0,
        });
        let outputs = if forward { roots.len() * widest } else { 0 };
        let live = nums * widest + streams.sum::<usize>() + outputs;
        let rows = L1_BUDGET / live.max(1);
        p.tile_rows = match rows {
            0..512 => TILE_MIN,
            512..1024 => 512,
            _ => TILE_MAX,
        };
        // Scratch: all number slots, then all bit slots, each on a line of its own.
        let num_bytes = p.tile_rows * widest;
        let bit_bytes = (p.tile_rows / 8).next_multiple_of(64);
        for place in &mut p.places {
            if let Place::Scratch(code) = place {
                *code = if *code % 2 == 1 {
                    (*code - 1) / 64 * num_bytes
                } else {
                    nums * num_bytes + *code / 2 * bit_bytes
                };
            }
        }
        p.scratch_bytes = nums * num_bytes + bit_slots * bit_bytes;
        // Constants no longer than a tile, so that they do not crowd the same cache sets.
        let mut offsets = Vec::with_capacity(consts.len());
        for (repr, value) in consts {
            offsets.push(p.constants.len() * 64);
            broadcast(&mut p.constants, repr, value, p.tile_rows, self.level)?;
        }
        for place in &mut p.places {
            if let Place::Const(i) = place {
                *i = offsets.get(*i).copied().unwrap_or(0);
            }
        }
        p.cost += 0.1 * bytes_per_row + 0.15 * p.instrs.len() as f64;
        Ok(p)
    }

    fn emit(&self, p: &mut Program, id: Id, dst: Slot, slot_of: &[Option<Slot>]) -> Result<()> {
        let node = self.graph.node(id);
        let fused = self.fusion.fused(self.graph, id, self.level);
        let mut src = [0; 4];
        for (s, o) in src.iter_mut().zip(&fused.operands) {
            *s = p.find(slot_of, *o)?;
        }
        let shown: Vec<String> =
            src.iter().take(fused.operands.len()).map(|s| p.show(*s)).collect();
        p.names.push(format!("{:<8} <- {} {}", p.show(dst), fused.name, shown.join(" ")));
        let mut string = |c: u32| {
            if !p.strings.contains(&c) {
                p.strings.push(c);
            }
        };
        p.cost += extra_cost(node.op);
        p.instrs.push(match node.op {
            Op::StrCompare(op, column, text) => {
                string(column);
                Instr::StrCompare { op, column, text, dst }
            }
            Op::StrColumns(op, left, right) => {
                string(left);
                string(right);
                Instr::StrColumns { op, left, right, dst }
            }
            Op::StrIn(column, set) => {
                string(column);
                Instr::StrIn { column, set, dst }
            }
            Op::NumIn(set) => Instr::NumIn { prim: node.prim, set, src: src[0], dst },
            _ => {
                let kernel = fused.kernel.ok_or_else(|| {
                    Error::Unsupported(format!("there is no loop for {}", fused.name))
                })?;
                Instr::Call { kernel, dst, src }
            }
        });
        Ok(())
    }
}

impl Program {
    fn slot(&mut self, place: Place) -> Result<Slot> {
        let slot = Slot::try_from(self.places.len())
            .map_err(|_| Error::LimitExceeded("the expressions need too many slots".into()))?;
        self.places.push(place);
        Ok(slot)
    }

    fn find(&self, slot_of: &[Option<Slot>], id: Id) -> Result<Slot> {
        slot_of
            .get(id as usize)
            .copied()
            .flatten()
            .ok_or_else(|| Error::InvalidPlan("an operand was not scheduled".into()))
    }

    fn show(&self, slot: Slot) -> String {
        match self.places.get(usize::from(slot)) {
            Some(Place::Cursor(i)) => match self.cursors.get(*i) {
                Some(Cursor::Numbers(c, _) | Cursor::Bools(c)) => format!("col{c}"),
                Some(Cursor::Validity(c)) => format!("valid{c}"),
                Some(Cursor::ShiftedNumbers(c, _, n) | Cursor::ShiftedBools(c, n)) => {
                    format!("col{c}[{n}]")
                }
                Some(Cursor::ShiftedValidity(c, n)) => format!("valid{c}[{n}]"),
                Some(Cursor::InRange(n)) => format!("rows[{n}]"),
                None => "?".into(),
            },
            Some(Place::Const(_)) => format!("const{slot}"),
            Some(Place::Scratch(_)) => format!("tmp{slot}"),
            Some(Place::Output(i)) => format!("out{i}"),
            Some(Place::Given(Given::Value(i))) => format!("given{i}"),
            Some(Place::Given(Given::Valid(i))) => format!("given_valid{i}"),
            Some(Place::Given(Given::Param(i))) => format!("param{i}"),
            None => "?".into(),
        }
    }
}

/// Appends a tile of equal values.
pub(crate) fn broadcast(
    lines: &mut Vec<Line>,
    repr: Repr,
    value: u64,
    rows: usize,
    level: Level,
) -> Result<()> {
    let start = lines.len();
    let bytes = repr.bytes(rows);
    lines.resize(start + bytes.div_ceil(64), Line([0; 64]));
    let Some(first) = lines.get_mut(start) else {
        return Err(Error::InvalidPlan("an empty constant".into()));
    };
    let dst = std::ptr::from_mut(first).cast::<u8>();
    match repr {
        Repr::Num(p) => {
            let kernel = fill(p.width(), level)
                .ok_or_else(|| Error::Unsupported("a constant of that width".into()))?;
            let src = [std::ptr::from_ref(&value).cast::<u8>(); 4];
            // SAFETY: the tile was made large enough for that many values; the operand is one
            // value of at most 8 bytes, little-endian like the constant.
            unsafe { kernel(dst, &src, rows) };
        }
        Repr::Bits => {
            // SAFETY: the tile has that many bits, in whole words.
            unsafe { fill_bits(dst, value & 1 == 1, rows) };
        }
    }
    Ok(())
}
