//! One row per group. Rows are cut into fixed ranges, their number a function of the rows and of a
//! sampled estimate of the groups alone; each range numbers its groups and aggregates on its own,
//! and ranges are merged in order. So groups come in order of first appearance, and no bit depends
//! on threads or chunks.

use std::sync::OnceLock;

use insitu_kernels::group::{Accumulator, Aggregate, GroupError, KeyDst, Keys, Lanes};
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{TILE_MAX, prim_to_bool};
use insitu_kernels::view::Layout;

use crate::compile::graph::{Id, Repr};
use crate::compile::lower::{Named, Typed, Value};
use crate::compile::stage::{Agg, Stage, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::keys::{Ids, Numbering};
use crate::exec::map::frame;
use crate::exec::output::{Buffer, Column, Rows, finish, finish_validity};
use crate::exec::reduce::{Places, overflow, place, places, repr_of};
use crate::exec::run::{Job, MORSEL, columns, lost};
use crate::exec::sort::gather;
use crate::exec::tile::{Failed, Frame, Worker};
use crate::functions::FunctionId;
use crate::memory::{Memory, NewColumn};

/// Tiles that are sampled to estimate the number of groups.
const SAMPLE_TILES: usize = 16;
/// Ranges where groups are few, and where they are many.
const RANGES: (usize, usize) = (64, 8);
/// What is few.
const FEW_GROUPS: u64 = 4096;

/// The roots of a group stage: keys first, then arguments.
pub(crate) fn roots(keys: &[Named], aggs: &[Agg]) -> (Vec<Id>, Vec<Places>, Vec<Places>) {
    let mut roots = Vec::new();
    let keys = keys.iter().map(|k| place(&k.typed, true, &mut roots)).collect();
    let args = places(aggs, &mut roots);
    (roots, keys, args)
}

/// The groups of a range of rows.
struct Part {
    keys: Keys,
    states: Vec<State>,
}

/// An aggregate of the groups of a range of rows.
enum State {
    Accumulated(Accumulator),
    /// Different values: each with the number of its group.
    Unique {
        keys: Keys,
        groups: Vec<u32>,
    },
}

struct Plan<'a> {
    stage: &'a Stage,
    frame: &'a Frame<'a>,
    keys: &'a [Named],
    aggs: &'a [Agg],
    arg_places: Vec<Places>,
    numbering: Numbering<'a>,
    /// Of the aggregates that count different values: the keys, and the value as one more.
    uniques: Vec<Option<Numbering<'a>>>,
    lanes: Lanes,
}

pub(crate) fn run<'a>(job: &Job<'_, 'a>, keys: &[Named], aggs: &[Agg]) -> Result<Rows<'a>> {
    let (stage, program) = (&job.compiled.stage, &job.compiled.main);
    let rows = job.source.rows;
    let frame = frame(job, program, &[]);
    let (_, key_places, arg_places) = roots(keys, aggs);
    let names: Vec<&str> = keys.iter().map(|k| &*k.name).collect();
    let typed: Vec<&Typed> = keys.iter().map(|k| &k.typed).collect();
    let uniques = aggs
        .iter()
        .zip(&arg_places)
        .map(|(a, place)| {
            let arg = a.arg.as_ref().filter(|_| a.aggregate == Aggregate::NUnique)?;
            let typed = typed.iter().copied().chain([arg]).collect();
            let places = key_places.iter().copied().chain([*place]).collect();
            Some(Numbering::new(job, &frame, typed, places, a.text.clone()))
        })
        .collect();
    let what = format!("group_by {}", names.join(", "));
    let numbering = Numbering::new(job, &frame, typed, key_places, what);
    let lanes = Lanes::One;
    let mut plan = Plan { stage, frame: &frame, keys, aggs, arg_places, numbering, uniques, lanes };
    let mut ranges = 1;
    if rows > 2 * MORSEL {
        let estimate = plan.estimate(rows)?;
        plan.lanes = Lanes::for_groups(estimate);
        let most = if estimate <= FEW_GROUPS { RANGES.0 } else { RANGES.1 };
        ranges = (rows / MORSEL).clamp(1, most);
    }
    // Whole blocks of rows, so that bitmaps start at words.
    let range_rows = rows.div_ceil(ranges).next_multiple_of(TILE_MAX).max(TILE_MAX);
    let ranges = rows.div_ceil(range_rows);
    let parts: Vec<OnceLock<Part>> = (0..ranges).map(|_| OnceLock::new()).collect();
    let cost = program.cost + 1.0 + 0.5 * aggs.len() as f64;
    let progress = job.run.cx.progress;
    job.run.items(ranges, rows as f64 * cost, &|i| {
        let start = i * range_rows;
        let n = range_rows.min(rows - start);
        let part = plan.range(start, n, rows)?;
        if let Some(slot) = parts.get(i) {
            let _ = slot.set(part);
        }
        if let Some(p) = progress {
            p.advance(n as u64);
        }
        Ok(())
    })?;
    let parts: Option<Vec<Part>> = parts.into_iter().map(OnceLock::into_inner).collect();
    let mut parts = parts.ok_or_else(lost)?.into_iter();
    let mut total = match parts.next() {
        Some(first) => first,
        None => plan.empty(0)?,
    };
    for part in parts {
        plan.merge(&mut total, &part).map_err(|e| plan.numbering.error(e))?;
    }
    let groups = total.keys.groups();
    let columns = columns(stage, |_, what| match what {
        What::Key(i) => plan.key_column(job, &total.keys, *i, groups).map(Column::New),
        What::Agg(i) => {
            let (state, agg) = (total.states.get(*i), aggs.get(*i));
            let (Some(state), Some(agg)) = (state, agg) else { return Err(lost()) };
            plan.agg_column(job, state, agg, groups).map(Column::New)
        }
        _ => Err(lost()),
    })?;
    Ok(Rows { rows: groups, columns })
}

impl Plan<'_> {
    fn empty(&self, rows: usize) -> Result<Part> {
        let states: Result<Vec<State>> = self
            .aggs
            .iter()
            .zip(&self.uniques)
            .map(|(a, unique)| {
                if let Some(n) = unique {
                    let keys = Keys::new(&n.kinds, rows as u64);
                    return Ok(State::Unique { keys, groups: Vec::new() });
                }
                let layout = match repr_of(&self.stage.graph, a) {
                    Some(Repr::Num(p)) => Layout::Prim(p),
                    Some(Repr::Bits) => Layout::Bool,
                    None => Layout::Opaque,
                };
                let made = Accumulator::new(a.aggregate, layout, self.lanes);
                made.map(State::Accumulated).ok_or_else(|| {
                    Error::Unsupported(format!("{}: not implemented per group", a.text))
                })
            })
            .collect();
        Ok(Part { keys: Keys::new(&self.numbering.kinds, rows as u64), states: states? })
    }

    /// Adds the groups of the next range.
    fn merge(&self, total: &mut Part, part: &Part) -> Result<(), GroupError> {
        let mapping = total.keys.merge(&part.keys)?;
        for (mine, theirs) in total.states.iter_mut().zip(&part.states) {
            match (mine, theirs) {
                (State::Accumulated(a), State::Accumulated(b)) => a.merge(b, &mapping)?,
                (
                    State::Unique { keys, groups },
                    State::Unique { keys: other, groups: their_groups },
                ) => {
                    let pairs = keys.merge(other)?;
                    resize(groups, keys.groups())?;
                    for (pair, group) in pairs.iter().zip(their_groups) {
                        let to = groups.get_mut(*pair as usize);
                        let group = mapping.get(*group as usize);
                        *to.ok_or(GroupError::Mismatch)? = *group.ok_or(GroupError::Mismatch)?;
                    }
                }
                _ => return Err(GroupError::Mismatch),
            }
        }
        Ok(())
    }

    /// An estimate of the number of groups: a function of the rows alone.
    fn estimate(&self, rows: usize) -> Result<u64> {
        let mut keys = Keys::new(&self.numbering.kinds, rows as u64);
        let mut worker = Worker::new(self.frame)?;
        let mut ids = Ids([0; TILE_MAX]);
        let step = (rows / SAMPLE_TILES) & !63;
        let mut seen = 0;
        for i in 0..SAMPLE_TILES {
            let tile = self.frame.program.tile_rows.min(256);
            // A row that fails here fails again in its turn, if no earlier one does.
            if worker.run(i * step, tile).unwrap_or(false) {
                let numbered = self.numbering.number(&worker, &mut keys, i * step, tile, &mut ids);
                numbered.map_err(|f| f.error)?;
                seen += tile;
            }
        }
        let found = keys.groups();
        // Mostly new ones: there may be any number.
        Ok(if found * 2 > seen { (rows / 2) as u64 } else { found as u64 })
    }

    fn range(&self, start: usize, n: usize, rows: usize) -> Result<Part, Failed> {
        let fail = |e| Failed::at(start, e);
        let mut part = self.empty(rows).map_err(fail)?;
        let mut worker = Worker::new(self.frame).map_err(fail)?;
        let (mut ids, mut pairs) = (Ids([0; TILE_MAX]), Ids([0; TILE_MAX]));
        let tile_rows = self.frame.program.tile_rows;
        let mut at = start;
        while at < start + n {
            let tile = tile_rows.min(start + n - at);
            if worker.run(at, tile)? {
                self.numbering.number(&worker, &mut part.keys, at, tile, &mut ids)?;
                let groups = part.keys.groups();
                let mask = worker.mask();
                let aggs = part.states.iter_mut().zip(&self.arg_places).zip(&self.uniques);
                for ((state, p), unique) in aggs {
                    let a = match (state, unique) {
                        (State::Accumulated(a), _) => a,
                        (State::Unique { keys, groups }, Some(n)) => {
                            n.number(&worker, keys, at, tile, &mut pairs)?;
                            let known = groups.len();
                            resize(groups, keys.groups()).map_err(|e| fail(n.error(e)))?;
                            // SAFETY: the mask is null or holds the tile's bits.
                            unsafe { name_new(groups, known, mask, &ids, &pairs, tile) };
                            continue;
                        }
                        _ => return Err(fail(lost())),
                    };
                    a.resize(groups).map_err(|e| fail(self.numbering.error(e)))?;
                    let values = p.value.map_or(std::ptr::null(), |r| worker.root(r));
                    let valid = p.valid.map_or(std::ptr::null(), |r| worker.root(r));
                    // SAFETY: roots and mask hold the tile's rows; numbers are below `groups`.
                    unsafe { a.update(ids.0.as_ptr(), values, valid, mask, tile, at as u64) };
                }
            }
            at += tile;
        }
        Ok(part)
    }

    fn key_column(
        &self,
        job: &Job<'_, '_>,
        keys: &Keys,
        i: usize,
        groups: usize,
    ) -> Result<NewColumn> {
        let key = self.keys.get(i).ok_or_else(lost)?;
        let dtype = &key.typed.dtype;
        let level = self.frame.program.level;
        if *dtype == DataType::Utf8View {
            let Value::Column(c) = key.typed.value else { return Err(lost()) };
            let offset = job.source.offset as u64;
            let rows: Vec<u64> = keys.first_rows().iter().map(|r| r + offset).collect();
            return gather(job.memory, job.source.column(c as usize)?, &rows, dtype, &key.name);
        }
        let validity = Buffer::of(job.memory, Repr::Bits, groups)?;
        let repr = match dtype.prim() {
            Some(p) => Some(Repr::Num(p)),
            None if *dtype == DataType::Bool => Some(Repr::Bits),
            None => None,
        };
        let (values, offsets) = match repr {
            Some(repr) => (Buffer::of(job.memory, repr, groups)?, None),
            None => {
                let width = if *dtype == DataType::LargeUtf8 { 8 } else { 4 };
                let offsets = Buffer::new(job.memory, (groups + 1) * width)?.zeroed();
                (Buffer::new(job.memory, keys.key_bytes(i))?, Some(offsets))
            }
        };
        let dst = KeyDst {
            values: values.ptr.as_ptr(),
            offsets: offsets.map_or(std::ptr::null_mut(), |o| o.ptr.as_ptr()),
            large: *dtype == DataType::LargeUtf8,
            validity: validity.ptr.as_ptr(),
        };
        // SAFETY: the buffers were just made for `groups` groups; bits in whole words.
        unsafe { keys.write_key(i, &dst) }.map_err(|e| self.numbering.error(e))?;
        let (validity, null_count) = finish_validity(Some(validity), groups, level);
        Ok(NewColumn {
            null_count,
            validity,
            values: Some(values.finish()),
            offsets: offsets.map(Buffer::finish),
            variadic: Vec::new(),
        })
    }

    fn agg_column(
        &self,
        job: &Job<'_, '_>,
        state: &State,
        agg: &Agg,
        groups: usize,
    ) -> Result<NewColumn> {
        let level = self.frame.program.level;
        let a = match state {
            State::Accumulated(a) => a,
            State::Unique { groups: of, .. } => {
                let counts = Buffer::of(job.memory, Repr::Num(Prim::I64), groups)?.zeroed();
                for group in of.iter().filter(|g| (**g as usize) < groups) {
                    // SAFETY: below `groups`, for which the buffer was made.
                    unsafe { *counts.ptr.as_ptr().cast::<i64>().add(*group as usize) += 1 };
                }
                return Ok(finish(counts, None, groups, level));
            }
        };
        let validity = Buffer::of(job.memory, Repr::Bits, groups)?;
        let out = a.output();
        let is_bool = agg.dtype == DataType::Bool;
        // The numbers of rows, of what cannot be accumulated.
        let picked = agg.dtype.is_string();
        let aside = is_bool || picked;
        let memory = if aside { job.run.heap as &dyn Memory } else { job.memory };
        let values = Buffer::of(memory, Repr::Num(out), groups)?;
        // SAFETY: the buffers were just made for `groups` results; bits in whole words.
        let finished = unsafe { a.finish(groups, values.ptr.as_ptr(), validity.ptr.as_ptr()) };
        finished.map_err(|e| match e {
            GroupError::Overflow(e) => overflow(&agg.text, e.sum, &agg.dtype),
            e => self.numbering.error(e),
        })?;
        if matches!(agg.function, FunctionId::Min | FunctionId::Max) {
            // SAFETY: the results were just written.
            unsafe { positive_zeros(out, values.ptr.as_ptr(), groups) };
        }
        if picked {
            let Some(Value::Column(c)) = agg.arg.as_ref().map(|a| &a.value) else {
                return Err(lost());
            };
            let offset = job.source.offset as u64;
            let rows: Vec<u64> = (0..groups)
                // SAFETY: g < groups, of which each has a row.
                .map(|g| unsafe { values.ptr.as_ptr().cast::<u64>().add(g).read() } + offset)
                .collect();
            let column = job.source.column(*c as usize)?;
            return gather(job.memory, column, &rows, &agg.dtype, &agg.text);
        }
        if !is_bool {
            return Ok(finish(values, Some(validity), groups, level));
        }
        let bits = Buffer::of(job.memory, Repr::Bits, groups)?;
        let kernel = prim_to_bool(out, level);
        for start in (0..groups).step_by(TILE_MAX) {
            let n = TILE_MAX.min(groups - start);
            let src = [(values.base() + start * out.width()) as *const u8; 4];
            // SAFETY: n values from `start` on, and their bits in whole words.
            unsafe { kernel((bits.base() + start / 8) as *mut u8, &src, n) };
        }
        Ok(finish(bits, Some(validity), groups, level))
    }
}

/// Makes room for the groups of `n` pairs.
fn resize(groups: &mut Vec<u32>, n: usize) -> Result<(), GroupError> {
    let more = n.saturating_sub(groups.len());
    groups
        .try_reserve(more)
        .map_err(|_| GroupError::OutOfMemory { bytes: more * size_of::<u32>() })?;
    groups.resize(n, 0);
    Ok(())
}

/// Notes the groups of the pairs from number `known` on, which a tile brought.
///
/// # Safety
/// `mask` is null or holds `rows` bits.
unsafe fn name_new(
    groups: &mut [u32],
    known: usize,
    mask: *const u8,
    ids: &Ids,
    pairs: &Ids,
    rows: usize,
) {
    if groups.len() == known {
        return;
    }
    for (i, (pair, id)) in pairs.0.iter().zip(&ids.0).enumerate().take(rows) {
        // SAFETY: i < rows.
        let selected = mask.is_null() || unsafe { mask.add(i / 8).read() } >> (i % 8) & 1 != 0;
        if selected
            && *pair as usize >= known
            && let Some(group) = groups.get_mut(*pair as usize)
        {
            *group = *id;
        }
    }
}

/// Writes +0.0 for -0.0, as the reductions of whole columns do: which of two equal zeros a group
/// met first must not show.
///
/// # Safety
/// `p` holds `n` values of the type, which nobody else writes.
unsafe fn positive_zeros(prim: Prim, p: *mut u8, n: usize) {
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            match prim {
                Prim::F32 => p.cast::<f32>().add(i).write(p.cast::<f32>().add(i).read() + 0.0),
                Prim::F64 => p.cast::<f64>().add(i).write(p.cast::<f64>().add(i).read() + 0.0),
                _ => return,
            }
        }
    }
}
