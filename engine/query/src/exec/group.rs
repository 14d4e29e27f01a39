//! One row per group. Rows are cut into fixed ranges, their number a function of the rows and of a
//! sampled estimate of the groups alone; each range numbers its groups and aggregates on its own,
//! and ranges are merged in order. So groups come in order of first appearance, and no bit depends
//! on threads or chunks.

use std::sync::OnceLock;

use insitu_kernels::group::{
    Accumulator, Aggregate, GroupError, KeyDst, KeyInput, KeyKind, Keys, Lanes,
};
use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::{TILE_MAX, prim_to_bool};
use insitu_kernels::view::Layout;

use crate::compile::graph::{Id, Op, Repr};
use crate::compile::lower::{Named, Value};
use crate::compile::stage::{Agg, Stage, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::map::frame;
use crate::exec::output::{Buffer, Column, Rows, finish, finish_validity};
use crate::exec::reduce::{Places, overflow, place, places, repr_of};
use crate::exec::run::{Job, MORSEL, columns, lost};
use crate::exec::sort::gather;
use crate::exec::tile::{Failed, Frame, Worker};
use crate::functions::FunctionId;
use crate::memory::NewColumn;

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
    accumulators: Vec<Accumulator>,
}

struct Plan<'a> {
    stage: &'a Stage,
    frame: &'a Frame<'a>,
    keys: &'a [Named],
    aggs: &'a [Agg],
    key_places: Vec<Places>,
    arg_places: Vec<Places>,
    kinds: Vec<KeyKind>,
    lanes: Lanes,
}

pub(crate) fn run<'a>(job: &Job<'_, 'a>, keys: &[Named], aggs: &[Agg]) -> Result<Rows<'a>> {
    let (stage, program) = (&job.compiled.stage, &job.compiled.main);
    let rows = job.source.rows;
    let frame = frame(job, program, &[]);
    let (_, key_places, arg_places) = roots(keys, aggs);
    let kinds: Vec<KeyKind> = keys.iter().map(|k| kind(job, k)).collect();
    let mut plan =
        Plan { stage, frame: &frame, keys, aggs, key_places, arg_places, kinds, lanes: Lanes::One };
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
        let mapping = total.keys.merge(&part.keys).map_err(|e| plan.error(e))?;
        for (a, b) in total.accumulators.iter_mut().zip(&part.accumulators) {
            a.merge(b, &mapping).map_err(|e| plan.error(e))?;
        }
    }
    let groups = total.keys.groups();
    let columns = columns(stage, |_, what| match what {
        What::Key(i) => plan.key_column(job, &total.keys, *i, groups).map(Column::New),
        What::Agg(i) => {
            let (a, agg) = (total.accumulators.get(*i), aggs.get(*i));
            let (Some(a), Some(agg)) = (a, agg) else { return Err(lost()) };
            agg_column(job, a, agg, groups, program.level).map(Column::New)
        }
        _ => Err(lost()),
    })?;
    Ok(Rows { rows: groups, columns })
}

/// What the table of a key column is made for.
fn kind(job: &Job<'_, '_>, key: &Named) -> KeyKind {
    let t = &key.typed;
    let Value::Node(v) = t.value else { return KeyKind::Str };
    let node = job.compiled.stage.graph.node(v);
    match node.repr {
        Repr::Bits => KeyKind::Bool,
        Repr::Num(prim) => {
            let stats = match node.op {
                Op::Values(c) => job.source.columns.get(c as usize).and_then(|c| c.stats),
                _ => None,
            };
            // 64-bit unsigned statistics may have wrapped.
            let range = stats
                .filter(|_| prim.is_integer() && prim != Prim::U64)
                .and_then(|s| Some((i128::from(s.min?), i128::from(s.max?))));
            KeyKind::Prim { prim, range }
        }
    }
}

impl Plan<'_> {
    fn error(&self, e: GroupError) -> Error {
        match e {
            GroupError::TooManyGroups => Error::LimitExceeded(format!("group_by: {e}")),
            GroupError::OutOfMemory { bytes } => Error::OutOfMemory { bytes },
            GroupError::Corrupt(c) => {
                let names: Vec<&str> = self.keys.iter().map(|k| &*k.name).collect();
                Error::InvalidData(format!("group_by {}: {c}", names.join(", ")))
            }
            _ => Error::Unsupported(format!("group_by: {e}")),
        }
    }

    fn empty(&self, rows: usize) -> Result<Part> {
        let accumulators: Result<Vec<Accumulator>> = self
            .aggs
            .iter()
            .map(|a| {
                let layout = match repr_of(&self.stage.graph, a) {
                    Some(Repr::Num(p)) => Layout::Prim(p),
                    Some(Repr::Bits) => Layout::Bool,
                    None => Layout::Opaque,
                };
                Accumulator::new(aggregate(a.function)?, layout, self.lanes).ok_or_else(|| {
                    Error::Unsupported(format!("{}: not implemented per group", a.text))
                })
            })
            .collect();
        Ok(Part { keys: Keys::new(&self.kinds, rows as u64), accumulators: accumulators? })
    }

    /// An estimate of the number of groups: a function of the rows alone.
    fn estimate(&self, rows: usize) -> Result<u64> {
        let mut keys = Keys::new(&self.kinds, rows as u64);
        let mut worker = Worker::new(self.frame)?;
        let mut ids = Ids([0; TILE_MAX]);
        let step = (rows / SAMPLE_TILES) & !63;
        let mut seen = 0;
        for i in 0..SAMPLE_TILES {
            let tile = self.frame.program.tile_rows.min(256);
            // A row that fails here fails again in its turn, if no earlier one does.
            if worker.run(i * step, tile).unwrap_or(false) {
                self.number(&worker, &mut keys, i * step, tile, &mut ids).map_err(|f| f.error)?;
                seen += tile;
            }
        }
        let found = keys.groups();
        // Mostly new ones: there may be any number.
        Ok(if found * 2 > seen { (rows / 2) as u64 } else { found as u64 })
    }

    /// Group numbers of a tile.
    fn number(
        &self,
        worker: &Worker<'_>,
        keys: &mut Keys,
        row: usize,
        rows: usize,
        ids: &mut Ids,
    ) -> Result<(), Failed> {
        let source = self.frame.source;
        let mut done = 0;
        // String keys are read chunk by chunk.
        while done < rows {
            let mut n = rows - done;
            let mut views = Vec::new();
            for key in self.keys {
                if let Value::Column(c) = key.typed.value {
                    let column = source.columns.get(c as usize);
                    let found = column.and_then(|c| {
                        c.locate(row + done + source.offset, &mut 0).map(|(v, at)| (*v, at))
                    });
                    let Some((view, at)) = found else {
                        return Err(Failed::at(row, lost()));
                    };
                    n = n.min(view.len - at);
                    views.push((view, at));
                }
            }
            let mut masks = Vec::with_capacity(self.keys.len() + 1);
            for p in &self.key_places {
                masks.push(p.valid.map_or(std::ptr::null(), |r| worker.root(r)));
            }
            masks.push(worker.mask());
            // A tile of two chunks: bitmaps are moved to the piece's first bit.
            let mut moved = Vec::new();
            if done > 0 || n < rows {
                for m in &mut masks {
                    if !m.is_null() {
                        let mut bits = Box::new([0u64; TILE_MAX / 64]);
                        // SAFETY: the bitmap holds the tile's rows.
                        unsafe {
                            insitu_kernels::copy::copy_bits(self.frame.program.level)(
                                bits.as_mut_ptr().cast(),
                                *m,
                                done,
                                n,
                            );
                        }
                        *m = bits.as_ptr().cast();
                        moved.push(bits);
                    }
                }
            }
            let mask = masks.last().copied().unwrap_or(std::ptr::null());
            let mut strings = views.iter();
            let mut bools = Vec::new();
            let mut inputs = Vec::with_capacity(self.keys.len());
            for ((k, kind), p) in self.kinds.iter().enumerate().zip(&self.key_places) {
                let validity = masks.get(k).copied().unwrap_or(std::ptr::null());
                let value = p.value.map_or(std::ptr::null(), |r| worker.root(r));
                inputs.push(match kind {
                    KeyKind::Prim { prim, .. } => KeyInput::Prim {
                        // SAFETY: the root holds the tile's rows.
                        values: unsafe { value.add(done * prim.width()) },
                        validity,
                    },
                    KeyKind::Bool => {
                        let mut bits = Box::new([0u64; TILE_MAX / 64]);
                        // SAFETY: the root holds the tile's bits.
                        unsafe {
                            insitu_kernels::copy::copy_bits(self.frame.program.level)(
                                bits.as_mut_ptr().cast(),
                                value,
                                done,
                                n,
                            );
                        }
                        let bits_at = bits.as_ptr().cast();
                        bools.push(bits);
                        KeyInput::Bool { bits: bits_at, validity }
                    }
                    KeyKind::Str => match strings.next() {
                        Some((view, start)) => {
                            KeyInput::Str { column: view, start: *start, validity }
                        }
                        None => return Err(Failed::at(row, lost())),
                    },
                });
            }
            // SAFETY: the inputs hold `n` rows, the ids have room for the tile's.
            unsafe {
                let to = ids.0.as_mut_ptr().add(done);
                keys.assign(&inputs, mask, n, (row + done) as u64, to)
                    .map_err(|e| Failed::at(row, self.error(e)))?;
            }
            done += n;
        }
        Ok(())
    }

    fn range(&self, start: usize, n: usize, rows: usize) -> Result<Part, Failed> {
        let fail = |e| Failed::at(start, e);
        let mut part = self.empty(rows).map_err(fail)?;
        let mut worker = Worker::new(self.frame).map_err(fail)?;
        let mut ids = Ids([0; TILE_MAX]);
        let tile_rows = self.frame.program.tile_rows;
        let mut at = start;
        while at < start + n {
            let tile = tile_rows.min(start + n - at);
            if worker.run(at, tile)? {
                self.number(&worker, &mut part.keys, at, tile, &mut ids)?;
                let groups = part.keys.groups();
                let mask = worker.mask();
                for (a, p) in part.accumulators.iter_mut().zip(&self.arg_places) {
                    a.resize(groups).map_err(|e| fail(self.error(e)))?;
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
        unsafe { keys.write_key(i, &dst) }.map_err(|e| self.error(e))?;
        let (validity, null_count) = finish_validity(Some(validity), groups, level);
        Ok(NewColumn {
            null_count,
            validity,
            values: Some(values.finish()),
            offsets: offsets.map(Buffer::finish),
            variadic: Vec::new(),
        })
    }
}

/// A tile's group numbers.
#[repr(align(64))]
struct Ids([u32; TILE_MAX]);

fn aggregate(f: FunctionId) -> Result<Aggregate> {
    Ok(match f {
        FunctionId::Sum => Aggregate::Sum,
        FunctionId::Mean => Aggregate::Mean,
        FunctionId::Min => Aggregate::Min,
        FunctionId::Max => Aggregate::Max,
        FunctionId::Count => Aggregate::Count,
        FunctionId::Len => Aggregate::Len,
        _ => return Err(lost()),
    })
}

fn agg_column(
    job: &Job<'_, '_>,
    a: &Accumulator,
    agg: &Agg,
    groups: usize,
    level: Level,
) -> Result<NewColumn> {
    let validity = Buffer::of(job.memory, Repr::Bits, groups)?;
    let out = a.output();
    let is_bool = agg.dtype == DataType::Bool;
    let memory = if is_bool { job.run.heap as &dyn crate::memory::Memory } else { job.memory };
    let values = Buffer::of(memory, Repr::Num(out), groups)?;
    // SAFETY: the buffers were just made for `groups` results; bits in whole words.
    unsafe { a.finish(groups, values.ptr.as_ptr(), validity.ptr.as_ptr()) }
        .map_err(|e| overflow(&agg.text, e.sum, &agg.dtype))?;
    if matches!(agg.function, FunctionId::Min | FunctionId::Max) {
        // SAFETY: the results were just written.
        unsafe { positive_zeros(out, values.ptr.as_ptr(), groups) };
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
