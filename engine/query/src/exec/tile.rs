//! Running a tile program: one worker's slots, moved along the rows tile by tile.

mod shifted;

use std::cell::Cell;
use std::sync::Arc;

use insitu_kernels::copy::{CopyBitsFn, copy_bits};
use insitu_kernels::prefetch::prefetch;
use insitu_kernels::prim::Prim;
use insitu_kernels::strings::{CorruptString, LiteralSet, compare_columns, compare_literal, is_in};
use insitu_kernels::tile::{TILE_MAX, any_bit, fill_bits, store_bits};
use insitu_kernels::view::ColumnView;

use crate::compile::graph::Repr;
use crate::compile::lower::CheckKind;
use crate::compile::program::{Cursor, Instr, Line, Place, Program, Slot};
use crate::compile::stage::Stage;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::given::Tiles;
use crate::exec::run::lost;
use crate::exec::source::{Source, SourceColumn};
use crate::exec::zones::Skips;

/// A final buffer that root `i` is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) base: usize,
    pub(crate) repr: Repr,
}

/// What all workers of a stage share.
pub(crate) struct Frame<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) program: &'a Program,
    pub(crate) source: &'a Source<'a>,
    pub(crate) sets: &'a [Arc<LiteralSet>],
    pub(crate) given: &'a Tiles,
    pub(crate) targets: &'a [Target],
    /// Tiles of the targets stay in scratch; whoever runs the worker moves them on.
    pub(crate) held: bool,
    /// Zones of which no row passes the predicates.
    pub(crate) skips: Option<Skips<'a>>,
}

thread_local! {
    /// What a thread's workers are made of, kept between runs.
    static SPARE: Cell<Option<Room>> = const { Cell::new(None) };
}

/// The memory of a worker.
#[derive(Default)]
struct Room {
    scratch: Vec<Line>,
    slots: Vec<*mut u8>,
    moving: Vec<(Slot, Target)>,
    /// Of each cursor, in the order of the program's.
    reaches: Vec<Reach>,
    /// What to ask for ahead while the tile at hand is worked on.
    coming: Vec<(*const u8, usize)>,
    /// The slots that move on with the tiles, the bytes that each moves on by, and whether it is
    /// asked for ahead.
    steps: Vec<(Slot, usize, bool)>,
}

impl Room {
    /// The thread's, empty but for the scratch.
    fn take() -> Room {
        let mut room = SPARE.take().unwrap_or_default();
        let Room { scratch: _, slots, moving, reaches, coming, steps } = &mut room;
        slots.clear();
        moving.clear();
        reaches.clear();
        coming.clear();
        steps.clear();
        room
    }
}

/// The chunk that a cursor is in: rows `first` to `end`, counted before slicing, from `at` on.
#[derive(Clone, Copy)]
struct Reach {
    slot: Slot,
    first: usize,
    end: usize,
    /// Values or bits; null for the bits of a chunk without a bitmap.
    at: *const u8,
    /// Bytes per row; 0: bits.
    width: usize,
    /// Whether tiles can be read where they lie: of bits, if they start at whole bytes.
    direct: bool,
    /// Its number: where the next one is looked for first.
    chunk: usize,
}

impl Reach {
    const NOWHERE: Reach = Reach {
        slot: 0,
        first: 0,
        end: 0,
        at: std::ptr::null(),
        width: 0,
        direct: false,
        chunk: 0,
    };
}

/// The tile after a whole one, if the slots have but to be moved on to it.
#[derive(Default)]
struct Next {
    /// Its first row.
    row: usize,
    /// The row up to which every cursor's tiles lie one after another where they are.
    until: usize,
}

fn too_short(row: usize) -> Failed {
    Failed::at(row, Error::ShapeMismatch("a column is shorter than its table".into()))
}

/// One worker: its scratch, and where each slot is for the tile at hand.
pub(crate) struct Worker<'a> {
    frame: &'a Frame<'a>,
    room: Room,
    /// Where a cursor's tile is put together when it does not lie in one piece.
    staging: usize,
    stage_bytes: usize,
    copy_bits: CopyBitsFn,
    ahead: bool,
    /// Bytes to ask for at each instruction.
    share: usize,
    next: Next,
    /// Whether any cursor reads other rows than the tile's own.
    shifted: bool,
    /// Whether rows from one on to another are skipped, counted before slicing.
    zone: (usize, usize, bool),
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.room);
        if room.scratch.len() <= 1 << 14 {
            SPARE.set(Some(room));
        }
    }
}

/// Tiles ahead of the one at work that columns are asked for.
const AHEAD: usize = 2;
/// Columns of numbers from which asking ahead pays, if something is computed of them: where there is
/// nothing between the reads (bare sums), the CPU does better by itself.
const AHEAD_COLUMNS: usize = 2;
/// Rows from which it pays: fewer may well be in the cache.
const AHEAD_ROWS: usize = 32_768;

/// All rows valid, for a tile.
static ONES: [u64; TILE_MAX / 64] = [!0; TILE_MAX / 64];

impl<'a> Worker<'a> {
    pub(crate) fn new(frame: &'a Frame<'a>) -> Result<Worker<'a>> {
        let p = frame.program;
        let stage_bytes = p.tile_rows * 8;
        let staging = p.scratch_bytes.next_multiple_of(64);
        let holding = staging + p.cursors.len() * stage_bytes;
        let held = if frame.held { frame.targets.len() } else { 0 };
        let bytes = holding + held * stage_bytes;
        let mut room = Room::take();
        let Room { scratch, slots, moving, reaches, .. } = &mut room;
        let lines = bytes.div_ceil(64).max(1);
        if scratch.len() < lines {
            scratch
                .try_reserve_exact(lines - scratch.len())
                .map_err(|_| Error::OutOfMemory { bytes })?;
            scratch.resize(lines, Line([0; 64]));
        }
        let base = scratch.as_mut_ptr().cast::<u8>();
        reaches.resize(p.cursors.len(), Reach::NOWHERE);
        for (i, place) in p.places.iter().enumerate() {
            let slot = i as Slot;
            slots.push(match *place {
                // SAFETY: the compiler gave offsets below scratch_bytes.
                Place::Scratch(at) => unsafe { base.add(at) },
                Place::Const(at) => {
                    // SAFETY: the compiler gave offsets within the constants.
                    unsafe { p.constants.as_ptr().cast::<u8>().add(at) }.cast_mut()
                }
                Place::Given(i) => {
                    let tile = frame.given.of(i).ok_or_else(lost)?;
                    tile.cast_mut()
                }
                Place::Cursor(c) => {
                    if let Some(reach) = reaches.get_mut(c) {
                        reach.slot = slot;
                    }
                    std::ptr::null_mut()
                }
                // SAFETY: i < held, so a tile of 8-byte values is left from there on.
                Place::Output(i) if i < held => unsafe { base.add(holding + i * stage_bytes) },
                Place::Output(i) => {
                    if let Some(t) = frame.targets.get(i) {
                        moving.push((slot, *t));
                    }
                    std::ptr::null_mut()
                }
            });
        }
        let numbers = p.cursors.iter().filter(|c| matches!(c, Cursor::Numbers(..))).count();
        let calls = p.instrs.iter().filter(|i| matches!(i, Instr::Call { .. })).count();
        Ok(Worker {
            frame,
            room,
            staging,
            stage_bytes,
            copy_bits: copy_bits(p.level),
            share: 0,
            next: Next::default(),
            shifted: p.cursors.iter().any(|c| c.shift().is_some()),
            zone: (0, 0, false),
            ahead: frame.source.rows >= AHEAD_ROWS
                && numbers >= AHEAD_COLUMNS
                && calls >= AHEAD_COLUMNS.max(numbers - 1),
        })
    }

    /// Where a slot is now.
    #[inline]
    pub(crate) fn slot(&self, slot: Slot) -> *mut u8 {
        self.room.slots.get(usize::from(slot)).copied().unwrap_or(std::ptr::null_mut())
    }

    /// Where root `i` is now.
    #[inline]
    pub(crate) fn root(&self, i: usize) -> *const u8 {
        self.frame.program.roots.get(i).map_or(std::ptr::null(), |r| self.slot(r.slot))
    }

    /// The mask of the tile at hand, if the stage filters.
    #[inline]
    pub(crate) fn mask(&self) -> *const u8 {
        self.frame.program.mask.map_or(std::ptr::null(), |s| self.slot(s))
    }

    /// Runs the program on `rows` rows from `row` on, counted after slicing. False: no row is
    /// left, and what comes after the mask was not computed. `row` is a multiple of 64.
    pub(crate) fn run(&mut self, row: usize, rows: usize) -> Result<bool, Failed> {
        let frame = self.frame;
        if let Some(skips) = &frame.skips
            && self.skipped(skips, row + frame.source.offset, rows)
        {
            return Ok(false);
        }
        let whole = rows == frame.program.tile_rows;
        // What comes after a tile that is not whole, or was not found, is looked for.
        let next = std::mem::replace(&mut self.next.row, usize::MAX);
        if whole && row == next && row + rows <= self.next.until {
            self.move_on();
        } else {
            self.seek(row, rows)?;
        }
        if whole {
            self.next.row = row + rows;
        }
        for instr in &frame.program.instrs {
            if !self.room.coming.is_empty() {
                self.ask(self.share);
            }
            match *instr {
                Instr::Call { kernel, dst, src } => {
                    let src = src.map(|s| self.slot(s).cast_const());
                    // SAFETY: the compiler matched kernel, types and slots; scratch and constants
                    // hold a tile, cursors and targets were checked to hold `rows` rows from here.
                    unsafe { kernel(self.slot(dst), &src, rows) };
                }
                Instr::Mask { src, first } => {
                    let (Some(mask), src) = (frame.program.mask, self.slot(src)) else { continue };
                    let mask = self.slot(mask);
                    // SAFETY: both hold a tile's bits; And may write over its operand.
                    let any = unsafe {
                        if first {
                            (frame.program.copy_bits)(mask, &[src.cast_const(); 4], rows);
                        } else {
                            let src = [mask.cast_const(), src, src, src];
                            (frame.program.and)(mask, &src, rows);
                        }
                        any_bit(mask, rows)
                    };
                    if !any {
                        return Ok(false);
                    }
                }
                Instr::Check { index, fails, masked } => {
                    self.check(index, fails, masked, row, rows)?;
                }
                Instr::StrCompare { op, column, text, dst } => {
                    let text = frame.stage.graph.texts.get(text as usize);
                    let text = text.map_or(&b""[..], |t| t.as_bytes());
                    // SAFETY: `strings` gives rows of the chunk and room for their bits.
                    self.strings(column, row, rows, dst, |view, start, n, dst| unsafe {
                        compare_literal(op, view, start, n, text, dst)
                    })?;
                }
                Instr::StrIn { column, set, dst } => {
                    let Some(set) = frame.sets.get(set as usize) else { continue };
                    // SAFETY: as above.
                    self.strings(column, row, rows, dst, |view, start, n, dst| unsafe {
                        is_in(set, view, start, n, dst)
                    })?;
                }
                Instr::StrColumns { op, left, right, dst } => {
                    self.two_columns(op, left, right, row, rows, dst)?;
                }
                Instr::NumIn { prim, set, src, dst } => {
                    let Some(set) = frame.stage.graph.num_sets.get(set as usize) else { continue };
                    // SAFETY: the slots hold `rows` values and a tile's bits.
                    unsafe { number_in(prim, set, self.slot(src), self.slot(dst), rows) };
                }
            }
        }
        Ok(true)
    }

    /// Whether a tile lies in a zone of which no row passes.
    #[inline]
    fn skipped(&mut self, skips: &Skips<'_>, row: usize, rows: usize) -> bool {
        if row < self.zone.0 || row >= self.zone.1 {
            let (none, end) = skips.at(row);
            self.zone = (row, end, none);
        }
        self.zone.2 && row + rows <= self.zone.1
    }

    /// Asks for the next `bytes` bytes of the tiles to come: a share at every instruction, so that
    /// memory works while the CPU computes. All at once they stand in each other's way.
    #[inline]
    fn ask(&mut self, mut bytes: usize) {
        while let Some((p, left)) = self.room.coming.last_mut() {
            let n = bytes.min(*left);
            prefetch(*p, n);
            *p = p.wrapping_add(n);
            *left -= n;
            bytes -= n;
            if *left > 0 {
                return;
            }
            self.room.coming.pop();
        }
    }

    /// Points cursors and targets at the tile after the one at hand.
    #[inline]
    fn move_on(&mut self) {
        self.room.coming.clear();
        for (slot, step, ask) in &self.room.steps {
            if let Some(s) = self.room.slots.get_mut(usize::from(*slot)) {
                *s = s.wrapping_add(*step);
                if *ask {
                    self.room.coming.push((s.wrapping_add(AHEAD * step).cast_const(), *step));
                }
            }
        }
    }

    /// Points cursors and targets at a tile.
    fn seek(&mut self, row: usize, rows: usize) -> Result<(), Failed> {
        self.room.coming.clear();
        self.room.steps.clear();
        self.next.until = usize::MAX;
        for (slot, target) in &self.room.moving {
            let at = target.base + target.repr.bytes(row);
            if let Some(s) = self.room.slots.get_mut(usize::from(*slot)) {
                *s = at as *mut u8;
            }
            self.room.steps.push((*slot, target.repr.bytes(rows), false));
        }
        let from = row + self.frame.source.offset;
        for c in 0..self.room.reaches.len() {
            let Some(mut reach) = self.room.reaches.get(c).copied() else { continue };
            if self.shifted
                && let Some(at) = self.seek_shifted(c, row, rows)?
            {
                if let Some(s) = self.room.slots.get_mut(usize::from(reach.slot)) {
                    *s = at.cast_mut();
                }
                self.next.until = 0;
                continue;
            }
            if from < reach.first || from >= reach.end {
                reach = self.reach(c, reach, from, row)?;
                if let Some(r) = self.room.reaches.get_mut(c) {
                    *r = reach;
                }
            }
            // In one piece; of bits, whole words: slots of bits have clean tails.
            let direct = reach.end - from >= rows && (reach.width > 0 || rows.is_multiple_of(64));
            let at = if direct && reach.direct {
                let local = from - reach.first;
                self.next.until = self.next.until.min(reach.end - self.frame.source.offset);
                if reach.width > 0 {
                    let bytes = rows * reach.width;
                    self.room.steps.push((reach.slot, bytes, self.ahead));
                    // SAFETY: the chunk was checked to hold its rows, and these are within it.
                    let at = unsafe { reach.at.add(local * reach.width) };
                    if self.ahead {
                        self.room.coming.push((at.wrapping_add(AHEAD * bytes), bytes));
                    }
                    at
                } else if reach.at.is_null() {
                    // All rows of a chunk without a bitmap are valid.
                    ONES.as_ptr().cast()
                } else {
                    self.room.steps.push((reach.slot, rows / 8, false));
                    // SAFETY: the bitmap covers the chunk, which holds these rows.
                    unsafe { reach.at.add(local / 8) }
                }
            } else {
                self.next.until = 0;
                self.stage(c, reach.width, from, row, rows)?
            };
            if let Some(s) = self.room.slots.get_mut(usize::from(reach.slot)) {
                *s = at.cast_mut();
            }
        }
        let bytes = self.room.coming.iter().map(|c| c.1).sum::<usize>();
        self.share = (bytes / self.frame.program.instrs.len().max(1)).next_multiple_of(64);
        Ok(())
    }

    /// Cursor `c` of the program, and its column.
    fn cursor(&self, c: usize, row: usize) -> Result<(Cursor, &'a SourceColumn<'a>), Failed> {
        let frame = self.frame;
        let found = frame.program.cursors.get(c).and_then(|cursor| {
            Some((*cursor, frame.source.columns.get(cursor.column()? as usize)?))
        });
        found.ok_or_else(|| Failed::at(row, Error::ShapeMismatch("a column is missing".into())))
    }

    /// The chunk that a cursor's row `from` is in.
    fn reach(&self, c: usize, last: Reach, from: usize, row: usize) -> Result<Reach, Failed> {
        let (cursor, column) = self.cursor(c, row)?;
        let (slot, mut number) = (last.slot, last.chunk);
        let Some((chunk, local)) = column.locate(from, &mut number) else {
            return Err(too_short(row));
        };
        let first = from - local;
        let (at, width) = match cursor {
            Cursor::Numbers(_, p) => (chunk.values, p.width()),
            Cursor::Bools(_) => (chunk.values, 0),
            Cursor::Validity(_) => (chunk.validity, 0),
            // Found by `seek_shifted`, always.
            _ => return Err(too_short(row)),
        };
        // Bits are read from whole bytes on; `from` is a multiple of 64 rows after the slice.
        let direct = width > 0 || local.is_multiple_of(8);
        Ok(Reach { slot, first, end: first + chunk.len, at, width, direct, chunk: number })
    }

    /// Where a cursor's tile is put together.
    fn stage_of(&mut self, c: usize) -> *mut u8 {
        // SAFETY: each cursor has stage_bytes of staging after the scratch, enough for a tile of
        // 8-byte values.
        unsafe {
            self.room.scratch.as_mut_ptr().cast::<u8>().add(self.staging + c * self.stage_bytes)
        }
    }

    /// Puts a tile together that does not lie in one piece.
    fn stage(
        &mut self,
        c: usize,
        width: usize,
        from: usize,
        row: usize,
        rows: usize,
    ) -> Result<*const u8, Failed> {
        let (cursor, column) = self.cursor(c, row)?;
        let stage = self.stage_of(c);
        let mut done = 0;
        for (chunk, local, n) in column.pieces(from, rows) {
            // SAFETY: n rows of the chunk from `local` on, and n of the tile's rows from `done` on.
            unsafe { self.put(cursor, width, chunk, local, n, stage, done) };
            done += n;
        }
        if done < rows { Err(too_short(row)) } else { Ok(stage.cast_const()) }
    }

    /// Copies a piece of a column into a tile.
    ///
    /// # Safety
    /// `n` rows from `local` on are in the chunk, and `n` from `done` on in the tile at `stage`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn put(
        &self,
        cursor: Cursor,
        width: usize,
        chunk: &ColumnView<'_>,
        local: usize,
        n: usize,
        stage: *mut u8,
        done: usize,
    ) {
        let bits = match cursor {
            Cursor::Numbers(..) | Cursor::ShiftedNumbers(..) | Cursor::InRange(_) => {
                // SAFETY: by contract.
                unsafe {
                    stage
                        .add(done * width)
                        .copy_from_nonoverlapping(chunk.values.add(local * width), n * width);
                }
                return;
            }
            Cursor::Bools(_) | Cursor::ShiftedBools(..) => chunk.values,
            Cursor::Validity(_) | Cursor::ShiftedValidity(..) => chunk.validity,
        };
        // SAFETY: by contract; the temporary holds a tile's bits.
        unsafe {
            if done == 0 {
                if bits.is_null() {
                    fill_bits(stage, true, n);
                } else {
                    (self.copy_bits)(stage, bits, local, n);
                }
                return;
            }
            let mut piece = [0u64; TILE_MAX / 64];
            let dst = piece.as_mut_ptr().cast::<u8>();
            if bits.is_null() {
                fill_bits(dst, true, n);
            } else {
                (self.copy_bits)(dst, bits, local, n);
            }
            append(stage, done, &piece, n);
        }
    }

    /// Fills a slot of bits from a string column, chunk by chunk.
    fn strings(
        &self,
        column: u32,
        row: usize,
        rows: usize,
        dst: Slot,
        mut f: impl FnMut(&ColumnView<'_>, usize, usize, *mut u8) -> Result<(), CorruptString>,
    ) -> Result<(), Failed> {
        let source = self.frame.source;
        let c = source.columns.get(column as usize).ok_or_else(|| too_short(row))?;
        let dst = self.slot(dst);
        let mut done = 0;
        for (chunk, local, n) in c.pieces(row + source.offset, rows) {
            let wrong = |e: CorruptString| {
                Failed::at(row + done, corrupt(self.frame.stage, column, row + done, e))
            };
            if done == 0 {
                f(chunk, local, n, dst).map_err(wrong)?;
            } else {
                let mut piece = [0u64; TILE_MAX / 64];
                f(chunk, local, n, piece.as_mut_ptr().cast()).map_err(wrong)?;
                // SAFETY: the slot holds a tile's bits, of which `done` are written.
                unsafe { append(dst, done, &piece, n) };
            }
            done += n;
        }
        if done < rows { Err(too_short(row)) } else { Ok(()) }
    }

    fn two_columns(
        &self,
        op: insitu_kernels::tile::Compare,
        left: u32,
        right: u32,
        row: usize,
        rows: usize,
        dst: Slot,
    ) -> Result<(), Failed> {
        let source = self.frame.source;
        let (Some(l), Some(r)) =
            (source.columns.get(left as usize), source.columns.get(right as usize))
        else {
            return Err(too_short(row));
        };
        let from = row + source.offset;
        let (mut done, mut hl, mut hr) = (0, 0, 0);
        while done < rows {
            let (Some((a, i)), Some((b, j))) =
                (l.locate(from + done, &mut hl), r.locate(from + done, &mut hr))
            else {
                break;
            };
            let n = (a.len - i).min(b.len - j).min(rows - done);
            let mut piece = [0u64; TILE_MAX / 64];
            // SAFETY: n rows are within both chunks, and the piece holds a tile's bits.
            unsafe { compare_columns(op, a, i, b, j, n, piece.as_mut_ptr().cast()) }.map_err(
                |e| Failed::at(row + done, corrupt(self.frame.stage, left, row + done, e)),
            )?;
            let dst = self.slot(dst);
            // SAFETY: the slot holds a tile's bits, of which `done` are written.
            unsafe {
                if done == 0 {
                    dst.copy_from_nonoverlapping(piece.as_ptr().cast(), n.div_ceil(64) * 8);
                } else {
                    append(dst, done, &piece, n);
                }
            }
            done += n;
        }
        if done < rows { Err(too_short(row)) } else { Ok(()) }
    }

    /// Fails if a selected row's bit is set.
    fn check(
        &self,
        index: usize,
        fails: Slot,
        masked: bool,
        row: usize,
        rows: usize,
    ) -> Result<(), Failed> {
        let (fails, mask) = (self.slot(fails), masked.then(|| self.mask()));
        for w in 0..rows.div_ceil(64) {
            // SAFETY: both hold a tile's bits; whole words of scratch, or staged.
            let word = unsafe {
                let f = fails.cast::<u64>().add(w).read_unaligned();
                match mask {
                    Some(m) => f & m.cast::<u64>().add(w).read_unaligned(),
                    None => f,
                }
            };
            let word = if rows - w * 64 < 64 { word & ((1 << (rows - w * 64)) - 1) } else { word };
            if word != 0 {
                let at = w * 64 + word.trailing_zeros() as usize;
                return Err(Failed::at(row + at, self.failure(index, row + at, at)));
            }
        }
        Ok(())
    }

    fn failure(&self, index: usize, row: usize, at: usize) -> Error {
        let Some(check) = self.frame.stage.checks.get(index) else {
            return Error::Overflow("arithmetic overflow".into());
        };
        let slots = self.frame.program.check_values.get(index).map_or(&[][..], Vec::as_slice);
        let mut values = slots.iter().map(|s| {
            // SAFETY: the slot holds at least at + 1 values of the check's type.
            unsafe { show(self.slot(*s), at, &check.dtype) }
        });
        match &check.kind {
            CheckKind::Cast { what, to } => Error::CastFailed {
                column: what.clone(),
                row: row as u64,
                value: values.next().unwrap_or_default(),
                to: to.to_string(),
            },
            CheckKind::Null { column } => Error::InvalidData(format!(
                "update: the column {column:?} is declared without nulls but row {row} would be null"
            )),
            CheckKind::Overflow { what } => {
                let values: Vec<String> = values.collect();
                Error::Overflow(format!(
                    "{what} leaves {} at row {row}, where the values are {}; cast to a wider type first",
                    check.dtype,
                    values.join(" and ")
                ))
            }
        }
    }
}

/// Appends bits to a tile.
///
/// # Safety
/// `dst` holds a tile's bits, of which the first `done` are written.
unsafe fn append(dst: *mut u8, done: usize, piece: &[u64], n: usize) {
    // Clear what the earlier bits leave of their word and all after it.
    for (w, word) in piece.iter().enumerate().take(n.div_ceil(64)) {
        let bits = (n - w * 64).min(64);
        // SAFETY: by contract; store_bits touches only the bytes of those bits.
        unsafe { store_bits(dst, done + w * 64, *word, bits) };
    }
    let end = done + n;
    if !end.is_multiple_of(64) {
        // SAFETY: the last word is within the tile.
        unsafe {
            let last = dst.cast::<u64>().add(end / 64);
            last.write_unaligned(last.read_unaligned() & ((1 << (end % 64)) - 1));
        }
    }
}

fn corrupt(stage: &Stage, column: u32, row: usize, e: CorruptString) -> Error {
    let name = stage.schema.fields().get(column as usize).map_or("?", |f| &*f.name);
    Error::InvalidData(format!("column {name:?}: near row {row}: {e}"))
}

/// # Safety
/// `p` holds at least `at + 1` values of the type.
unsafe fn show(p: *const u8, at: usize, dtype: &DataType) -> String {
    macro_rules! read {
        ($t:ty) => {
            // SAFETY: by contract.
            unsafe { p.cast::<$t>().add(at).read_unaligned() }
        };
    }
    match dtype.prim() {
        Some(Prim::I8) => read!(i8).to_string(),
        Some(Prim::I16) => read!(i16).to_string(),
        Some(Prim::I32) => read!(i32).to_string(),
        Some(Prim::I64) => read!(i64).to_string(),
        Some(Prim::U8) => read!(u8).to_string(),
        Some(Prim::U16) => read!(u16).to_string(),
        Some(Prim::U32) => read!(u32).to_string(),
        Some(Prim::U64) => read!(u64).to_string(),
        Some(Prim::F32) => format!("{:?}", read!(f32)),
        Some(Prim::F64) => format!("{:?}", read!(f64)),
        None => String::new(),
    }
}

/// Which numbers are in a sorted set.
///
/// # Safety
/// `src` is readable for `rows` values, `dst` writable for their bits in whole words.
unsafe fn number_in(prim: Prim, set: &[u64], src: *const u8, dst: *mut u8, rows: usize) {
    for w in 0..rows.div_ceil(64) {
        let mut word = 0u64;
        for k in 0..(rows - w * 64).min(64) {
            let i = w * 64 + k;
            // SAFETY: i < rows.
            let v = unsafe {
                match prim.width() {
                    1 => u64::from(src.add(i).read()),
                    2 => u64::from(src.cast::<u16>().add(i).read_unaligned()),
                    4 => u64::from(src.cast::<u32>().add(i).read_unaligned()),
                    _ => src.cast::<u64>().add(i).read_unaligned(),
                }
            };
            word |= u64::from(set.binary_search(&v).is_ok()) << k;
        }
        // SAFETY: by contract.
        unsafe { dst.cast::<u64>().add(w).write_unaligned(word) };
    }
}

/// A run that failed, and the row at which it did: of several, the first row counts.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) row: usize,
    pub(crate) error: Error,
}

impl Failed {
    pub(crate) fn at(row: usize, error: Error) -> Failed {
        Failed { row, error }
    }
}
