//! Running values. With several threads each morsel's total is found first, and those of the
//! morsels before it say where a morsel's running values begin; one thread goes through the morsels
//! in order, and takes the total along. Both ways the bits are the same: the sums of a morsel begin
//! anew (see `insitu_kernels::scan`).

use std::sync::{Mutex, OnceLock, PoisonError};

use insitu_kernels::copy::{stream_fence, stream_piece};
use insitu_kernels::scan::{Running, Scanner, Total};
use insitu_kernels::tile::TILE_MAX;

use crate::compile::graph::{Id, Repr};
use crate::compile::program::Program;
use crate::compile::stage::{Stage, What};
use crate::compile::windows::Scanned;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::map::{computed, frame, make, streams, written};
use crate::exec::output::Rows;
use crate::exec::run::{Job, MORSEL, lost};
use crate::exec::tile::{Failed, Frame, Target, Worker};
use crate::pool;

/// Estimated nanoseconds per row and running value.
const COST: f64 = 1.0;

/// What the running values that are wanted are of: values and validities.
pub(crate) fn roots(stage: &Stage) -> Vec<Id> {
    computed(stage)
        .into_iter()
        .filter(|(i, ..)| scanned(stage, *i).is_some())
        .flat_map(|(_, v, valid)| std::iter::once(v).chain(valid))
        .collect()
}

fn scanned(stage: &Stage, output: usize) -> Option<&Scanned> {
    match &stage.outputs.get(output)?.what {
        What::Scan(scanned) => Some(scanned),
        _ => None,
    }
}

/// One running value of the stage, and where what it is of is among the roots.
struct One<'s> {
    scanner: Scanner,
    text: &'s str,
    dtype: &'s DataType,
    width: usize,
    /// In the program that makes the columns.
    value: usize,
    valid: Option<usize>,
    /// In the program of totals.
    total_value: usize,
    total_valid: Option<usize>,
}

fn ones<'s>(stage: &'s Stage, program: &Program, reverse: bool) -> Result<Vec<One<'s>>> {
    let (mut at, mut total_at) = (0, 0);
    let mut ones = Vec::new();
    for (output, value, valid) in computed(stage) {
        let width = 1 + usize::from(valid.is_some());
        if let Some(scanned) = scanned(stage, output) {
            let Repr::Num(p) = stage.graph.node(value).repr else { return Err(lost()) };
            ones.push(One {
                scanner: Scanner::new(scanned.scan, p, reverse, program.level).ok_or_else(lost)?,
                text: &scanned.text,
                dtype: stage.outputs.get(output).map(|o| &o.dtype).ok_or_else(lost)?,
                width: p.width(),
                value: at,
                valid: valid.map(|_| at + 1),
                total_value: total_at,
                total_valid: valid.map(|_| total_at + 1),
            });
            total_at += width;
        }
        at += width;
    }
    Ok(ones)
}

pub(crate) fn run<'a>(job: &Job<'_, 'a>, reverse: bool) -> Result<Rows<'a>> {
    let (stage, program) = (&job.compiled.stage, &job.compiled.main);
    let rows = job.source.rows;
    let morsels = rows.div_ceil(MORSEL);
    let ones = ones(stage, program, reverse)?;
    let (made, targets) = make(job)?;
    let frame = frame(job, program, &[]);
    let stream = streams(&made);
    let pass = Pass { frame: &frame, ones: &ones, targets: &targets, stream, reverse };
    let cost = program.cost + COST * ones.len() as f64;
    let together = rows as f64 * cost > pool::PARALLEL_NS && morsels > 1 && pool::threads() > 1;
    if targets.is_empty() {
        // Nobody reads what it would make.
    } else if together && ones.iter().all(|one| one.scanner.splits()) {
        let befores = totals(job, &ones, reverse, cost)?;
        each(job, reverse, cost, &|i, start, n| {
            let befores = befores.get(i).ok_or_else(|| Failed::at(start, lost()))?;
            pass.write(start, n, befores).map(drop)
        })?;
    } else {
        if let Some(p) = job.run.cx.progress {
            // Of totals, which need no pass here.
            p.advance(rows as u64);
        }
        let total: Vec<Total> = ones.iter().map(|one| one.scanner.nothing()).collect();
        let total = Mutex::new(total);
        // Not worth a thread: in order.
        each(job, reverse, 0.0, &|_, start, n| {
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            *total = pass.write(start, n, &total)?;
            Ok(())
        })?;
    }
    written(job, &made)
}

/// Calls `work` for every morsel, numbered in the direction of the scan, with its first row and its
/// rows. Of several failures the first in that direction counts.
fn each(
    job: &Job<'_, '_>,
    reverse: bool,
    ns_per_row: f64,
    work: &(dyn Fn(usize, usize, usize) -> Result<(), Failed> + Sync),
) -> Result<()> {
    let rows = job.source.rows;
    let count = rows.div_ceil(MORSEL);
    let progress = job.run.cx.progress;
    job.run.items(count, rows as f64 * ns_per_row, &|i| {
        let start = if reverse { count - 1 - i } else { i } * MORSEL;
        let n = MORSEL.min(rows - start);
        work(i, start, n).map_err(|failed| match reverse {
            true => Failed::at(rows - 1 - failed.row.min(rows - 1), failed.error),
            false => failed,
        })?;
        if let Some(p) = progress {
            p.advance(n as u64);
        }
        Ok(())
    })
}

/// The tiles of a morsel, in the direction of the scan: first row, rows.
fn tiles(
    tile: usize,
    start: usize,
    n: usize,
    reverse: bool,
) -> impl Iterator<Item = (usize, usize)> {
    let count = n.div_ceil(tile);
    (0..count).map(move |i| {
        let at = if reverse { count - 1 - i } else { i } * tile;
        (start + at, tile.min(n - at))
    })
}

/// What the morsels before each morsel come to.
fn totals(
    job: &Job<'_, '_>,
    ones: &[One<'_>],
    reverse: bool,
    cost: f64,
) -> Result<Vec<Vec<Total>>> {
    let program = job.compiled.write.as_ref().ok_or_else(lost)?;
    let frame = frame(job, program, &[]);
    let morsels = job.source.rows.div_ceil(MORSEL);
    let parts: Vec<OnceLock<Vec<Total>>> = (0..morsels).map(|_| OnceLock::new()).collect();
    let nothing = || -> Vec<Total> { ones.iter().map(|o| o.scanner.nothing()).collect() };
    each(job, reverse, cost, &|i, start, n| {
        let mut worker = Worker::new(&frame).map_err(|e| Failed::at(start, e))?;
        let mut totals = nothing();
        for (at, rows) in tiles(program.tile_rows, start, n, reverse) {
            worker.run(at, rows)?;
            for (one, total) in ones.iter().zip(&mut totals) {
                let valid = one.total_valid.map_or(std::ptr::null(), |r| worker.root(r));
                // SAFETY: roots hold the tile's rows, bits in whole words.
                unsafe { one.scanner.add(total, worker.root(one.total_value), valid, rows) };
            }
        }
        if let Some(part) = parts.get(i) {
            // Each morsel sets its own part, once.
            let _ = part.set(totals);
        }
        Ok(())
    })?;
    let mut before = nothing();
    let mut befores = Vec::with_capacity(morsels);
    for part in parts {
        befores.push(before.clone());
        let part = part.into_inner().ok_or_else(lost)?;
        for ((one, before), part) in ones.iter().zip(&mut before).zip(part) {
            *before = one.scanner.join(*before, part);
        }
    }
    Ok(befores)
}

/// The pass that writes.
struct Pass<'p> {
    frame: &'p Frame<'p>,
    ones: &'p [One<'p>],
    /// Of the roots.
    targets: &'p [Target],
    stream: bool,
    reverse: bool,
}

impl Pass<'_> {
    /// Writes the columns of a morsel; `befores` is what the morsels before it come to. Returns
    /// what they come to with it.
    fn write(&self, start: usize, n: usize, befores: &[Total]) -> Result<Vec<Total>, Failed> {
        let (program, stream) = (self.frame.program, self.stream);
        let mut worker = Worker::new(self.frame).map_err(|e| Failed::at(start, e))?;
        let past_cache = stream_piece(program.level);
        let last = if self.reverse { start } else { start + n - 1 };
        let mut running: Vec<Running> = Vec::with_capacity(self.ones.len());
        for (one, before) in self.ones.iter().zip(befores) {
            // The row that left the type is in a morsel before: it speaks.
            let begun = one.scanner.begin(*before);
            running.push(begun.ok_or_else(|| Failed::at(last, overflow(one, last)))?);
        }
        let mut room = [0u64; TILE_MAX];
        let put = |target: &Target, at: usize, src: *const u8, rows: usize| {
            let dst = (target.base + target.repr.bytes(at)) as *mut u8;
            let bytes = target.repr.bytes(rows);
            // SAFETY: source and target hold the tile's rows, bits in whole words (buffers are lent
            // in multiples of 64 bytes).
            unsafe {
                if stream {
                    past_cache(dst, src, bytes);
                } else {
                    dst.copy_from_nonoverlapping(src, bytes);
                }
            }
        };
        for (at, rows) in tiles(program.tile_rows, start, n, self.reverse) {
            worker.run(at, rows)?;
            let mut scans = self.ones.iter().zip(&mut running).peekable();
            for (root, target) in self.targets.iter().enumerate() {
                let Some((one, running)) = scans.next_if(|(one, _)| one.value == root) else {
                    put(target, at, worker.root(root), rows);
                    continue;
                };
                let valid = one.valid.map_or(std::ptr::null(), |r| worker.root(r));
                let dst = match stream {
                    true => room.as_mut_ptr().cast::<u8>(),
                    false => (target.base + at * one.width) as *mut u8,
                };
                // SAFETY: the root holds the tile's rows, bits in whole words; so do the target and
                // the room, which nothing else reads or writes.
                let fit =
                    unsafe { one.scanner.write(running, dst, worker.root(root), valid, rows) };
                if fit < rows {
                    let row = if self.reverse { at + rows - 1 - fit } else { at + fit };
                    return Err(Failed::at(row, overflow(one, row)));
                }
                if stream {
                    put(target, at, dst, rows);
                }
            }
        }
        if stream {
            stream_fence();
        }
        Ok(self.ones.iter().zip(&running).map(|(one, r)| one.scanner.end(r)).collect())
    }
}

fn overflow(one: &One<'_>, row: usize) -> Error {
    Error::Overflow(format!(
        "{} leaves {} at row {row}; cast to float64 first",
        one.text, one.dtype
    ))
}
