//! Whole columns to one row. Float sums go by the fixed blocks of `insitu_kernels::reduce`; the
//! parts of the morsels are merged in order, so that no bit depends on threads or chunks.

use std::sync::{Mutex, OnceLock, PoisonError};

use insitu_kernels::group::{Aggregate, Keys};
use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_kernels::reduce::{
    Extremes, ExtremesFn, MomentsF64, ProductF64, ProductInt, ProductIntFn, SumF64, SumIntFn,
    extremes, first_bit, last_bit, position, product_int, raw_bits, sum_int,
};
use insitu_kernels::tile::{TILE_MAX, count_bits};

use crate::compile::graph::{Graph, Id, Repr};
use crate::compile::lower::{Typed, Value};
use crate::compile::stage::{Agg, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::keys::{Ids, Numbering};
use crate::exec::map::frame;
use crate::exec::output::{Buffer, Column, Rows};
use crate::exec::quantile::quantiles;
use crate::exec::run::{Job, MORSEL, columns, lost};
use crate::exec::sort::gather;
use crate::exec::tile::{Failed, Frame, Worker};
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

/// One aggregate so far, or several that are read of one state.
struct State {
    kind: StateKind,
    /// Rows that counted.
    n: u64,
    /// Rows that were selected, null or not.
    rows: u64,
}

enum StateKind {
    Count,
    Floats(Box<SumF64>),
    Integers(SumIntFn, i128),
    FloatProduct(Box<ProductF64>),
    IntegerProduct(ProductIntFn, ProductInt),
    Moments(Box<MomentsF64>),
    Extremes(ExtremesFn, Prim, Extremes),
    /// Set bits among those that counted.
    Bits(u64),
    /// The first (or last) row.
    Edge {
        last: bool,
        repr: Option<Repr>,
        found: Option<Edge>,
    },
    /// The row of the least (or greatest) value: that, and the row among those selected.
    Arg {
        extremes: ExtremesFn,
        repr: Repr,
        max: bool,
        best: Option<(u64, u64)>,
    },
    /// Computed apart.
    Elsewhere,
}

/// A row that was picked.
#[derive(Clone, Copy)]
struct Edge {
    /// After slicing.
    row: usize,
    /// The value, unless it is null or not in the program.
    bits: Option<u64>,
}

/// A tile of an argument: null pointers where there is nothing.
#[derive(Clone, Copy)]
struct Tile {
    /// The first row.
    row: usize,
    rows: usize,
    values: *const u8,
    /// The rows selected.
    mask: *const u8,
    /// The rows that are not null.
    valid: *const u8,
    /// The rows that count: both.
    both: *const u8,
}

impl State {
    fn new(agg: &Agg, repr: Option<Repr>, level: Level) -> Option<State> {
        use Aggregate as A;
        let number = match repr {
            Some(Repr::Num(p)) => Some(p),
            _ => None,
        };
        let float = number.filter(|p| p.is_float());
        let kind = match agg.aggregate {
            A::Count | A::Len => StateKind::Count,
            A::Quantile(_) | A::NUnique => StateKind::Elsewhere,
            A::First | A::Last => {
                StateKind::Edge { last: agg.aggregate == A::Last, repr, found: None }
            }
            A::ArgMin | A::ArgMax => StateKind::Arg {
                extremes: extremes(number.unwrap_or(Prim::U8), level),
                repr: repr?,
                max: agg.aggregate == A::ArgMax,
                best: None,
            },
            A::Sum | A::Mean => match (float, number) {
                (Some(p), _) => StateKind::Floats(Box::new(SumF64::new(p, level)?)),
                (_, Some(p)) => StateKind::Integers(sum_int(p, level)?, 0),
                _ => StateKind::Bits(0),
            },
            A::Product => match (float, number) {
                (Some(p), _) => StateKind::FloatProduct(Box::new(ProductF64::new(p, level)?)),
                (_, Some(p)) => StateKind::IntegerProduct(product_int(p)?, ProductInt::EMPTY),
                _ => StateKind::Bits(0),
            },
            A::Min | A::Max => match number {
                Some(p) => StateKind::Extremes(extremes(p, level), p, Extremes::default()),
                None => StateKind::Bits(0),
            },
            A::Any | A::All => StateKind::Bits(0),
            A::Var { .. } | A::Std { .. } => {
                StateKind::Moments(Box::new(MomentsF64::new(float?, level)?))
            }
        };
        if matches!(kind, StateKind::Bits(_)) && repr != Some(Repr::Bits) {
            return None;
        }
        Some(State { kind, n: 0, rows: 0 })
    }

    /// # Safety
    /// The tile holds `rows` values of the argument's type, and bitmaps of as many bits in whole
    /// words.
    unsafe fn add(&mut self, tile: &Tile, level: Level) {
        let Tile { row, rows, values, mask, valid, both } = *tile;
        let count = count_bits(level);
        let counted =
            // SAFETY: by contract.
            |m: *const u8| if m.is_null() { rows as u64 } else { unsafe { count(m, rows) as u64 } };
        // SAFETY: by contract.
        unsafe {
            match &mut self.kind {
                StateKind::Elsewhere => return,
                StateKind::Edge { last, repr, found } => {
                    if *last || found.is_none() {
                        let at = if *last { last_bit(mask, rows) } else { first_bit(mask, rows) };
                        let pick = |at: usize| {
                            let null = !valid.is_null() && !bit(valid, at);
                            let bits = match repr {
                                _ if null || values.is_null() => None,
                                Some(Repr::Num(p)) => Some(raw_bits(*p, values, at)),
                                Some(Repr::Bits) => Some(u64::from(bit(values, at))),
                                None => None,
                            };
                            Edge { row: row + at, bits }
                        };
                        *found = at.map(pick).or(*found);
                    }
                    return;
                }
                StateKind::Arg { extremes, repr, max, best } => {
                    let mut bytes = [0u8; TILE_MAX];
                    let (p, values) = match repr {
                        Repr::Num(p) => (*p, values),
                        Repr::Bits => {
                            for (i, b) in bytes.iter_mut().enumerate().take(rows) {
                                *b = u8::from(bit(values, i));
                            }
                            (Prim::U8, bytes.as_ptr())
                        }
                    };
                    let e = extremes(values, both, rows);
                    let value = if *max { e.max } else { e.min };
                    if e.some
                        && best.is_none_or(|(b, _)| beats(p, value, b, *max))
                        && let Some(at) = position(p, values, both, rows, value)
                    {
                        let before = if mask.is_null() { at } else { count(mask, at) };
                        *best = Some((value, self.rows + before as u64));
                    }
                    self.rows += counted(mask);
                    return;
                }
                StateKind::Count => {}
                StateKind::Floats(sum) => sum.add(row as u64, values, both, rows),
                StateKind::Integers(f, sum) => *sum += f(values, both, rows),
                StateKind::FloatProduct(p) => p.add(row as u64, values, both, rows),
                StateKind::IntegerProduct(f, p) => *p = p.merge(f(values, both, rows)),
                StateKind::Moments(m) => m.add(row as u64, values, both, rows),
                StateKind::Extremes(f, p, e) => *e = e.merge(f(values, both, rows), *p),
                StateKind::Bits(n) => {
                    *n += if both.is_null() {
                        count(values, rows) as u64
                    } else {
                        let mut set = [0u64; TILE_MAX / 64];
                        for (w, word) in set.iter_mut().enumerate().take(rows.div_ceil(64)) {
                            *word = values.cast::<u64>().add(w).read_unaligned()
                                & both.cast::<u64>().add(w).read_unaligned();
                        }
                        count(set.as_ptr().cast(), rows) as u64
                    };
                }
            }
            self.n += counted(both);
        }
    }

    /// Adds the rows that come after.
    fn merge(&mut self, other: State) {
        match (&mut self.kind, other.kind) {
            (StateKind::Floats(a), StateKind::Floats(b)) => a.merge(*b),
            (StateKind::Integers(_, a), StateKind::Integers(_, b)) => *a += b,
            (StateKind::FloatProduct(a), StateKind::FloatProduct(b)) => a.merge(*b),
            (StateKind::IntegerProduct(_, a), StateKind::IntegerProduct(_, b)) => *a = a.merge(b),
            (StateKind::Moments(a), StateKind::Moments(b)) => a.merge(*b),
            (StateKind::Extremes(_, p, a), StateKind::Extremes(_, _, b)) => *a = a.merge(b, *p),
            (StateKind::Bits(a), StateKind::Bits(b)) => *a += b,
            (StateKind::Edge { last, found: a, .. }, StateKind::Edge { found: b, .. }) => {
                *a = if *last { b.or(*a) } else { a.or(b) };
            }
            (StateKind::Arg { repr, max, best, .. }, StateKind::Arg { best: theirs, .. }) => {
                let p = match repr {
                    Repr::Num(p) => *p,
                    Repr::Bits => Prim::U8,
                };
                if let Some((value, at)) = theirs
                    && best.is_none_or(|(b, _)| beats(p, value, b, *max))
                {
                    *best = Some((value, self.rows + at));
                }
            }
            _ => {}
        }
        self.n += other.n;
        self.rows += other.rows;
    }

    /// The result's bits; none for null.
    fn finish(&mut self, agg: &Agg) -> Result<Option<u64>> {
        use Aggregate as A;
        let n = self.n;
        let float = |v: f64| match agg.dtype {
            DataType::Float32 => u64::from((v as f32).to_bits()),
            _ => v.to_bits(),
        };
        Ok(match (agg.aggregate, &mut self.kind) {
            (A::Count | A::Len, _) => Some(n),
            (A::Sum, StateKind::Floats(sum)) => Some(float(sum.finish())),
            (A::Sum, StateKind::Integers(_, sum)) => Some(fit(Some(*sum), agg)?),
            (A::Sum, StateKind::Bits(set)) => Some(*set),
            (A::Product, StateKind::FloatProduct(p)) => Some(float(p.finish())),
            (A::Product, StateKind::IntegerProduct(_, p)) => Some(fit(p.value(), agg)?),
            (A::Product | A::All, StateKind::Bits(set)) => Some(u64::from(*set == n)),
            (A::Any, StateKind::Bits(set)) => Some(u64::from(*set > 0)),
            (A::Mean, _) if n == 0 => None,
            (A::Mean, StateKind::Floats(sum)) => Some((sum.finish() / n as f64).to_bits()),
            (A::Mean, StateKind::Integers(_, sum)) => Some((*sum as f64 / n as f64).to_bits()),
            (A::Mean, StateKind::Bits(set)) => Some((*set as f64 / n as f64).to_bits()),
            (A::Var { ddof }, StateKind::Moments(m)) => m.finish().variance(ddof).map(f64::to_bits),
            (A::Std { ddof }, StateKind::Moments(m)) => {
                m.finish().variance(ddof).map(|v| v.sqrt().to_bits())
            }
            (a, StateKind::Extremes(_, p, e)) if e.some => {
                let bits = if a == A::Min { e.min } else { e.max };
                Some(match p {
                    Prim::F32 => u64::from((f64::from_bits(bits) as f32).to_bits()),
                    _ => bits,
                })
            }
            (A::Min, StateKind::Bits(set)) if n > 0 => Some(u64::from(*set == n)),
            (A::Max, StateKind::Bits(set)) if n > 0 => Some(u64::from(*set > 0)),
            (_, StateKind::Edge { found, .. }) => found.and_then(|f| f.bits),
            (_, StateKind::Arg { best, .. }) => best.map(|(_, at)| at),
            _ => None,
        })
    }

    /// The row picked, after slicing.
    fn picked(&self) -> Option<usize> {
        match self.kind {
            StateKind::Edge { found, .. } => found.map(|f| f.row),
            _ => None,
        }
    }
}

/// Bit `i`.
///
/// # Safety
/// `p` is readable for `i + 1` bits.
unsafe fn bit(p: *const u8, i: usize) -> bool {
    // SAFETY: by contract.
    unsafe { p.add(i / 8).read() >> (i % 8) & 1 != 0 }
}

/// Whether one value is strictly less (or greater) than another, both as their 64 bits.
fn beats(p: Prim, value: u64, than: u64, max: bool) -> bool {
    let (a, b) = if max { (than, value) } else { (value, than) };
    if p.is_float() {
        f64::from_bits(a) < f64::from_bits(b)
    } else if p.is_signed() {
        (a as i64) < b as i64
    } else {
        a < b
    }
}

/// The sum or product in 64 bits; none: it is too large to be known.
fn fit(sum: Option<i128>, agg: &Agg) -> Result<u64> {
    let bits = sum.and_then(|sum| match agg.dtype {
        DataType::UInt64 => u64::try_from(sum).ok(),
        _ => i64::try_from(sum).ok().map(|v| v as u64),
    });
    bits.ok_or_else(|| overflow(&agg.text, sum, &agg.dtype))
}

pub(crate) fn overflow(what: &str, sum: Option<i128>, dtype: &DataType) -> Error {
    let how = sum.map_or(String::new(), |sum| format!(" is {sum}, which"));
    Error::Overflow(format!("{what}{how} does not fit {dtype}; cast to float64 first"))
}

pub(crate) fn run<'a>(job: &Job<'_, 'a>, aggs: &[Agg]) -> Result<Rows<'a>> {
    let (stage, program) = (&job.compiled.stage, &job.compiled.main);
    let level = program.level;
    let Sharing { places, first, of } = job.compiled.sharing.as_ref().ok_or_else(lost)?;
    let states = || -> Result<Vec<State>> {
        let own = first.iter().filter_map(|i| aggs.get(*i));
        own.map(|a| State::new(a, repr_of(&stage.graph, a), level).ok_or_else(lost)).collect()
    };
    // Of quantiles alone the passes are their own.
    let apart = aggs.iter().all(|a| matches!(a.aggregate, Aggregate::Quantile(_)));
    let rows = if apart { 0 } else { job.source.rows };
    let frame = frame(job, program, &[]);
    let uniques = Uniques::all(job, &frame, aggs, places);
    let morsels = rows.div_ceil(MORSEL);
    let parts: Vec<OnceLock<Vec<State>>> = (0..morsels).map(|_| OnceLock::new()).collect();
    let cost = program.cost + aggs.iter().map(cost).sum::<f64>();
    job.run.morsels(rows, cost, &|m, start, n| {
        let fail = |e| Failed::at(start, e);
        let mut states = states().map_err(fail)?;
        let mut worker = Worker::new(&frame).map_err(fail)?;
        let mut keys: Vec<Keys> = uniques.iter().map(|u| u.take(rows)).collect();
        let mut ids: Option<Ids> = None;
        let mut at = start;
        while at < start + n {
            let tile = program.tile_rows.min(start + n - at);
            if worker.run(at, tile)? {
                let mask = worker.mask();
                for (state, first) in states.iter_mut().zip(first) {
                    let place = places.get(*first).copied().unwrap_or_default();
                    let mut both = [0u64; TILE_MAX / 64];
                    let valid = place.valid.map_or(std::ptr::null(), |r| worker.root(r));
                    let values = place.value.map_or(std::ptr::null(), |r| worker.root(r));
                    // SAFETY: roots and mask hold the tile's rows; bits in whole words.
                    unsafe {
                        let both = effective(mask, valid, tile, &mut both);
                        let tile = Tile { row: at, rows: tile, values, mask, valid, both };
                        state.add(&tile, level);
                    }
                }
                for (unique, keys) in uniques.iter().zip(&mut keys) {
                    let ids = ids.get_or_insert_default();
                    unique.numbering.number(&worker, keys, at, tile, ids)?;
                }
            }
            at += tile;
        }
        for (unique, keys) in uniques.iter().zip(keys) {
            unique.put(keys);
        }
        if let Some(part) = parts.get(m) {
            // Each morsel sets its own part, once.
            let _ = part.set(states);
        }
        Ok(())
    })?;
    let mut parts = parts.into_iter().map(|part| part.into_inner().ok_or_else(lost));
    let mut total = parts.next().unwrap_or_else(states)?;
    for part in parts {
        for (state, part) in total.iter_mut().zip(part?) {
            state.merge(part);
        }
    }
    let mut results = Vec::with_capacity(aggs.len());
    for (agg, own) in aggs.iter().zip(of) {
        results.push(total.get_mut(*own).ok_or_else(lost)?.finish(agg)?);
    }
    let state = |i: usize| of.get(i).and_then(|s| total.get(*s)).ok_or_else(lost);
    for unique in uniques {
        let agg = unique.agg;
        let counted = Some(unique.count()?);
        *results.get_mut(agg).ok_or_else(lost)? = counted;
    }
    for (agg, value) in quantiles(job, &frame, aggs, places)? {
        *results.get_mut(agg).ok_or_else(lost)? = value.map(f64::to_bits);
    }
    let columns = columns(stage, |_, what| {
        let What::Agg(i) = what else { return Err(lost()) };
        let (value, agg) =
            (results.get(*i).copied().ok_or_else(lost)?, aggs.get(*i).ok_or_else(lost)?);
        if agg.dtype.is_string() {
            return string(job, agg, state(*i)?.picked());
        }
        one(job, value, &agg.dtype)
    })?;
    Ok(Rows { rows: 1, columns })
}

/// What aggregates are read of.
pub(crate) struct Sharing {
    /// Of each aggregate the roots that hold its argument.
    places: Vec<Places>,
    /// The first aggregate of each state.
    first: Vec<usize>,
    /// Of each aggregate the state.
    of: Vec<usize>,
}

impl Sharing {
    /// Adds the aggregates' arguments to the roots.
    pub(crate) fn new(aggs: &[Agg], roots: &mut Vec<Id>) -> Sharing {
        let mut first: Vec<usize> = Vec::with_capacity(aggs.len());
        let mut of = Vec::with_capacity(aggs.len());
        for (i, agg) in aggs.iter().enumerate() {
            let same = |j: &usize| aggs.get(*j).is_some_and(|other| share(other, agg));
            let found = first.iter().position(same);
            of.push(found.unwrap_or(first.len()));
            if found.is_none() {
                first.push(i);
            }
        }
        Sharing { places: places(aggs, roots), first, of }
    }
}

/// Whether two aggregates are of one argument and read of one state, as least and greatest are.
fn share(a: &Agg, b: &Agg) -> bool {
    use Aggregate as A;
    let argument = |agg: &Agg| match agg.arg.as_ref()? {
        Typed { value: Value::Node(v), valid, .. } => Some((*v, *valid)),
        _ => None,
    };
    let alike = matches!(
        (&a.aggregate, &b.aggregate),
        (A::Count, A::Count)
            | (A::Sum | A::Mean, A::Sum | A::Mean)
            | (A::Min | A::Max, A::Min | A::Max)
            | (A::Var { .. } | A::Std { .. }, A::Var { .. } | A::Std { .. })
    );
    alike && argument(a).is_some_and(|argument_a| argument(b) == Some(argument_a))
}

/// Estimated nanoseconds per row.
fn cost(agg: &Agg) -> f64 {
    match agg.aggregate {
        Aggregate::NUnique => 5.0,
        Aggregate::Var { .. } | Aggregate::Std { .. } => 0.5,
        _ => 0.1,
    }
}

/// What counts the different values of one aggregate's argument. Tables are taken by whoever works
/// on a morsel, and put back: there are as many as threads. The number does not depend on which
/// table a value went to.
struct Uniques<'a> {
    agg: usize,
    numbering: Numbering<'a>,
    tables: Mutex<Vec<Keys>>,
}

impl<'a> Uniques<'a> {
    fn all(
        job: &Job<'_, '_>,
        frame: &'a Frame<'a>,
        aggs: &'a [Agg],
        places: &[Places],
    ) -> Vec<Uniques<'a>> {
        let unique = |(i, (agg, place)): (usize, (&'a Agg, &Places))| {
            let arg = agg.arg.as_ref().filter(|_| agg.aggregate == Aggregate::NUnique)?;
            let what = agg.text.clone();
            let numbering = Numbering::new(job, frame, vec![arg], vec![*place], what);
            Some(Uniques { agg: i, numbering, tables: Mutex::new(Vec::new()) })
        };
        aggs.iter().zip(places).enumerate().filter_map(unique).collect()
    }

    fn take(&self, rows: usize) -> Keys {
        let table = self.tables.lock().unwrap_or_else(PoisonError::into_inner).pop();
        table.unwrap_or_else(|| Keys::new(&self.numbering.kinds, rows as u64))
    }

    fn put(&self, keys: Keys) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).push(keys);
    }

    fn count(self) -> Result<u64> {
        let Uniques { numbering, tables, .. } = self;
        let mut tables = tables.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The smaller go into the largest.
        tables.sort_by_key(Keys::groups);
        let Some(mut all) = tables.pop() else { return Ok(0) };
        for other in tables {
            all.merge(&other).map_err(|e| numbering.error(e))?;
        }
        Ok(all.groups() as u64)
    }
}

/// The string of a row, as a column of one row.
fn string<'a>(job: &Job<'_, '_>, agg: &Agg, row: Option<usize>) -> Result<Column<'a>> {
    let Some(Value::Column(c)) = agg.arg.as_ref().map(|a| &a.value) else { return Err(lost()) };
    if let Some(row) = row {
        let column = job.source.column(*c as usize)?;
        let row = (row + job.source.offset) as u64;
        return gather(job.memory, column, &[row], &agg.dtype, &agg.text).map(Column::New);
    }
    let zeros = |bytes| Buffer::new(job.memory, bytes).map(|b| b.zeroed().finish());
    let (values, offsets) = match agg.dtype {
        DataType::Utf8 => (0, Some(zeros(2 * size_of::<i32>())?)),
        DataType::LargeUtf8 => (0, Some(zeros(2 * size_of::<i64>())?)),
        _ => (16, None),
    };
    Ok(Column::New(NewColumn {
        null_count: 1,
        validity: Some(zeros(1)?),
        values: Some(zeros(values)?),
        offsets,
        variadic: Vec::new(),
    }))
}

/// The rows that count: selected and valid; null pointer: all.
///
/// # Safety
/// The bitmaps are null or hold `rows` bits in whole words.
pub(crate) unsafe fn effective(
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
