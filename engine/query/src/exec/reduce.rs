//! Whole columns to one row. Float sums go by the fixed blocks of `insitu_kernels::reduce`; the
//! parts of the morsels are merged in order, so that no bit depends on threads or chunks.

use std::sync::OnceLock;

use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::reduce::{Extremes, ExtremesFn, SumF64, SumIntFn, extremes, sum_int};
use insitu_kernels::tile::{TILE_MAX, count_bits};

use crate::compile::graph::{Graph, Id, Repr};
use crate::compile::lower::{Typed, Value};
use crate::compile::stage::{Agg, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::map::frame;
use crate::exec::output::{Buffer, Column, Rows};
use crate::exec::run::{Job, columns, lost};
use crate::exec::tile::{Failed, Worker};
use crate::functions::FunctionId;
use crate::memory::NewColumn;

/// Which roots hold a value and its validity.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    pub(crate) value: Option<usize>,
    pub(crate) valid: Option<usize>,
}

/// Adds the nodes of a value to the roots.
pub(crate) fn place(t: &Typed, wants_value: bool, roots: &mut Vec<Id>) -> Places {
    let mut add = |id: Id| {
        roots.push(id);
        roots.len() - 1
    };
    let value = match t.value {
        Value::Node(v) if wants_value => Some(add(v)),
        _ => None,
    };
    Places { value, valid: t.valid.map(&mut add) }
}

/// The roots of the aggregates' arguments.
pub(crate) fn places(aggs: &[Agg], roots: &mut Vec<Id>) -> Vec<Places> {
    aggs.iter()
        .map(|a| match &a.arg {
            Some(t) => place(t, a.function != FunctionId::Count, roots),
            None => Places::default(),
        })
        .collect()
}

/// What holds the argument's values.
pub(crate) fn repr_of(graph: &Graph, agg: &Agg) -> Option<Repr> {
    match agg.arg.as_ref()?.value {
        Value::Node(v) => Some(graph.node(v).repr),
        _ => None,
    }
}

/// One aggregate so far.
struct State {
    kind: StateKind,
    /// Rows that counted.
    n: u64,
}

enum StateKind {
    Count,
    Floats(Box<SumF64>),
    Integers(SumIntFn, i128),
    Extremes(ExtremesFn, Prim, Extremes),
    /// Set bits among those that counted.
    Bits(u64),
}

impl State {
    fn new(agg: &Agg, repr: Option<Repr>, level: Level) -> Option<State> {
        use FunctionId as F;
        let kind = match (agg.function, repr) {
            (F::Count | F::Len, _) => StateKind::Count,
            (F::Sum | F::Mean, Some(Repr::Num(p))) if p.is_float() => {
                StateKind::Floats(Box::new(SumF64::new(p, level)?))
            }
            (F::Sum | F::Mean, Some(Repr::Num(p))) => StateKind::Integers(sum_int(p, level)?, 0),
            (F::Min | F::Max, Some(Repr::Num(p))) => {
                StateKind::Extremes(extremes(p, level), p, Extremes::default())
            }
            (_, Some(Repr::Bits)) => StateKind::Bits(0),
            _ => return None,
        };
        Some(State { kind, n: 0 })
    }

    /// # Safety
    /// `values` holds `rows` values of the argument's type, `mask` is null or holds their bits.
    unsafe fn add(
        &mut self,
        row: usize,
        values: *const u8,
        mask: *const u8,
        rows: usize,
        level: Level,
    ) {
        let count = count_bits(level);
        // SAFETY: by contract.
        unsafe {
            self.n += if mask.is_null() { rows as u64 } else { count(mask, rows) as u64 };
            match &mut self.kind {
                StateKind::Count => {}
                StateKind::Floats(sum) => sum.add(row as u64, values, mask, rows),
                StateKind::Integers(f, sum) => *sum += f(values, mask, rows),
                StateKind::Extremes(f, p, e) => *e = e.merge(f(values, mask, rows), *p),
                StateKind::Bits(n) => {
                    *n += if mask.is_null() {
                        count(values, rows) as u64
                    } else {
                        let mut both = [0u64; TILE_MAX / 64];
                        for (w, word) in both.iter_mut().enumerate().take(rows.div_ceil(64)) {
                            *word = values.cast::<u64>().add(w).read_unaligned()
                                & mask.cast::<u64>().add(w).read_unaligned();
                        }
                        count(both.as_ptr().cast(), rows) as u64
                    };
                }
            }
        }
    }

    fn merge(&mut self, other: State) {
        self.n += other.n;
        match (&mut self.kind, other.kind) {
            (StateKind::Floats(a), StateKind::Floats(b)) => a.merge(*b),
            (StateKind::Integers(_, a), StateKind::Integers(_, b)) => *a += b,
            (StateKind::Extremes(_, p, a), StateKind::Extremes(_, _, b)) => *a = a.merge(b, *p),
            (StateKind::Bits(a), StateKind::Bits(b)) => *a += b,
            _ => {}
        }
    }

    /// The result's bits; none for null.
    fn finish(self, agg: &Agg) -> Result<Option<u64>> {
        use FunctionId as F;
        let n = self.n;
        Ok(match (agg.function, self.kind) {
            (F::Count | F::Len, _) => Some(n),
            (F::Sum, StateKind::Floats(sum)) => Some(match agg.dtype {
                DataType::Float32 => u64::from((sum.finish() as f32).to_bits()),
                _ => sum.finish().to_bits(),
            }),
            (F::Sum, StateKind::Integers(_, sum)) => Some(fit(sum, agg)?),
            (F::Sum, StateKind::Bits(set)) => Some(set),
            (F::Mean, _) if n == 0 => None,
            (F::Mean, StateKind::Floats(sum)) => Some((sum.finish() / n as f64).to_bits()),
            (F::Mean, StateKind::Integers(_, sum)) => Some((sum as f64 / n as f64).to_bits()),
            (F::Mean, StateKind::Bits(set)) => Some((set as f64 / n as f64).to_bits()),
            (f, StateKind::Extremes(_, p, e)) if e.some => {
                let bits = if f == F::Min { e.min } else { e.max };
                Some(match p {
                    Prim::F32 => u64::from((f64::from_bits(bits) as f32).to_bits()),
                    _ => bits,
                })
            }
            (F::Min, StateKind::Bits(set)) if n > 0 => Some(u64::from(set == n)),
            (F::Max, StateKind::Bits(set)) if n > 0 => Some(u64::from(set > 0)),
            _ => None,
        })
    }
}

/// The sum in 64 bits.
fn fit(sum: i128, agg: &Agg) -> Result<u64> {
    let bits = match agg.dtype {
        DataType::UInt64 => u64::try_from(sum).ok(),
        _ => i64::try_from(sum).ok().map(|v| v as u64),
    };
    bits.ok_or_else(|| overflow(&agg.text, sum, &agg.dtype))
}

pub(crate) fn overflow(what: &str, sum: i128, dtype: &DataType) -> Error {
    Error::Overflow(format!("{what} is {sum}, which does not fit {dtype}; cast to float64 first"))
}

pub(crate) fn run<'a>(job: &Job<'_, 'a>, aggs: &[Agg]) -> Result<Rows<'a>> {
    let (stage, program) = (&job.compiled.stage, &job.compiled.main);
    let level = program.level;
    let places = places(aggs, &mut Vec::new());
    let states = || -> Result<Vec<State>> {
        aggs.iter()
            .map(|a| State::new(a, repr_of(&stage.graph, a), level).ok_or_else(lost))
            .collect()
    };
    let rows = job.source.rows;
    let frame = frame(job, program, &[]);
    let morsels = rows.div_ceil(crate::exec::run::MORSEL);
    let parts: Vec<OnceLock<Vec<State>>> = (0..morsels).map(|_| OnceLock::new()).collect();
    job.run.morsels(rows, program.cost + 0.1 * aggs.len() as f64, &|m, start, n| {
        let fail = |e| Failed::at(start, e);
        let mut states = states().map_err(fail)?;
        let mut worker = Worker::new(&frame).map_err(fail)?;
        let mut at = start;
        while at < start + n {
            let tile = program.tile_rows.min(start + n - at);
            if worker.run(at, tile)? {
                let mask = worker.mask();
                for (state, place) in states.iter_mut().zip(&places) {
                    let mut both = [0u64; TILE_MAX / 64];
                    let valid = place.valid.map_or(std::ptr::null(), |r| worker.root(r));
                    // SAFETY: roots and mask hold the tile's rows; bits in whole words.
                    unsafe {
                        let mask = effective(mask, valid, tile, &mut both);
                        let values = place.value.map_or(std::ptr::null(), |r| worker.root(r));
                        state.add(at, values, mask, tile, level);
                    }
                }
            }
            at += tile;
        }
        if let Some(part) = parts.get(m) {
            // Each morsel sets its own part, once.
            let _ = part.set(states);
        }
        Ok(())
    })?;
    let mut total = states()?;
    for part in parts {
        for (state, part) in total.iter_mut().zip(part.into_inner().ok_or_else(lost)?) {
            state.merge(part);
        }
    }
    let results: Result<Vec<Option<u64>>> =
        total.into_iter().zip(aggs).map(|(s, a)| s.finish(a)).collect();
    let results = results?;
    let columns = columns(stage, |_, what| {
        let What::Agg(i) = what else { return Err(lost()) };
        let (value, agg) =
            (results.get(*i).copied().ok_or_else(lost)?, aggs.get(*i).ok_or_else(lost)?);
        one(job, value, &agg.dtype)
    })?;
    Ok(Rows { rows: 1, columns })
}

/// The rows that count: selected and valid; null pointer: all.
///
/// # Safety
/// The bitmaps are null or hold `rows` bits in whole words.
unsafe fn effective(
    mask: *const u8,
    valid: *const u8,
    rows: usize,
    both: &mut [u64; TILE_MAX / 64],
) -> *const u8 {
    if valid.is_null() {
        return mask;
    }
    if mask.is_null() {
        return valid;
    }
    for (w, word) in both.iter_mut().enumerate().take(rows.div_ceil(64)) {
        // SAFETY: by contract.
        *word = unsafe {
            mask.cast::<u64>().add(w).read_unaligned() & valid.cast::<u64>().add(w).read_unaligned()
        };
    }
    both.as_ptr().cast()
}

/// A column of one row.
fn one<'a>(job: &Job<'_, '_>, value: Option<u64>, dtype: &DataType) -> Result<Column<'a>> {
    let width = dtype.prim().map_or(1, Prim::width);
    let values = Buffer::new(job.memory, width)?.zeroed();
    let bytes = value.unwrap_or(0).to_le_bytes();
    for (i, b) in bytes.iter().enumerate().take(width) {
        // SAFETY: i < width.
        unsafe { values.ptr.as_ptr().add(i).write(*b) };
    }
    let validity = match value {
        Some(_) => None,
        None => Some(Buffer::new(job.memory, 1)?.zeroed().finish()),
    };
    Ok(Column::New(NewColumn {
        null_count: usize::from(value.is_none()),
        validity,
        values: Some(values.finish()),
        offsets: None,
        variadic: Vec::new(),
    }))
}
