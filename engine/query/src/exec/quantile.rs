//! Quantiles of whole columns: the value of a rank, digit by digit.
//!
//! Each pass over the rows counts the values of one digit among those that have the digits found
//! so far, which narrows down what a rank can be; when few enough rows are left they are gathered
//! and selected among. The memory needed does not depend on the table, and the columns are not
//! copied. Everything is a count: nothing depends on who counted which rows.

use std::sync::{Mutex, PoisonError};

use insitu_kernels::group::Aggregate;
use insitu_kernels::prim::Prim;
use insitu_kernels::reduce::{
    DIGIT_BITS, Prefix, Quantile, count_digits, gather_ordered, ordered_bits, ordered_to_f64,
};
use insitu_kernels::tile::TILE_MAX;

use crate::compile::graph::Repr;
use crate::compile::stage::Agg;
use crate::error::{Error, Result};
use crate::exec::reduce::{Places, effective, repr_of};
use crate::exec::run::{Job, lost};
use crate::exec::tile::{Failed, Frame, Worker};

/// Rows that are gathered rather than counted once more.
const GATHER: u64 = 1 << 18;

/// How often each value of a digit occurs.
type Counts = [u64; 1 << DIGIT_BITS];

/// A value looked for, of which the leading digits are known.
struct Search {
    /// The aggregate whose argument it is searched in.
    agg: usize,
    prim: Prim,
    prefix: Prefix,
    /// Rows that have the prefix.
    among: u64,
    /// Its rank among them.
    rank: u64,
    /// Its order's number, when it is found.
    found: Option<u64>,
}

/// What a pass finds out for one prefix.
enum Pass {
    Count(Mutex<Vec<Box<Counts>>>),
    Gather(Mutex<Vec<u64>>),
}

/// One prefix that a pass looks for.
struct Step {
    agg: usize,
    prim: Prim,
    prefix: Prefix,
    pass: Pass,
}

/// The quantiles among the aggregates, by their numbers.
pub(crate) fn quantiles(
    job: &Job<'_, '_>,
    frame: &Frame<'_>,
    aggs: &[Agg],
    places: &[Places],
) -> Result<Vec<(usize, Option<f64>)>> {
    let mut wanted = Vec::new();
    for (i, agg) in aggs.iter().enumerate() {
        let Aggregate::Quantile(quantile) = agg.aggregate else { continue };
        let prim = match repr_of(&frame.stage.graph, agg).ok_or_else(lost)? {
            Repr::Num(p) => p,
            // Counted as bytes 0 and 1.
            Repr::Bits => Prim::U8,
        };
        wanted.push((i, prim, quantile));
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // The first digits, which say how many rows there are, too; of few rows, all of them.
    let many = job.source.rows as u64 > GATHER;
    let steps: Vec<Step> = wanted
        .iter()
        .map(|(agg, prim, _)| Step::new(*agg, *prim, Prefix::default(), many))
        .collect();
    run(job, frame, aggs, places, &steps)?;
    let mut searches: Vec<Search> = Vec::new();
    let mut results = Vec::new();
    for ((agg, prim, quantile), step) in wanted.into_iter().zip(steps) {
        let n = step.len();
        let Some((low, high, part)) = quantile.ranks(n) else {
            results.push((agg, prim, None));
            continue;
        };
        let prefix = Prefix::default();
        let search = |rank| Search { agg, prim, prefix, among: n, rank, found: None };
        let mut both = [search(low), search(high)];
        step.answer(&mut both.iter_mut().collect::<Vec<_>>())?;
        searches.extend(both);
        results.push((agg, prim, Some(part)));
    }
    while searches.iter().any(|s| s.found.is_none()) {
        let mut steps: Vec<Step> = Vec::new();
        let open = |s: &&mut Search| s.found.is_none();
        for s in searches.iter_mut().filter(open) {
            if !steps.iter().any(|step| step.serves(s)) {
                steps.push(Step::new(s.agg, s.prim, s.prefix, s.among > GATHER));
            }
        }
        run(job, frame, aggs, places, &steps)?;
        for step in steps {
            let served = searches.iter_mut().filter(|s| s.found.is_none() && step.serves(s));
            let mut served: Vec<&mut Search> = served.collect();
            step.answer(&mut served)?;
        }
    }
    let mut found = searches.into_iter().filter_map(|s| s.found);
    let mut out = Vec::with_capacity(results.len());
    for (agg, prim, part) in results {
        let value = match part {
            None => None,
            Some(part) => {
                let mut next = || found.next().map(|key| ordered_to_f64(prim, key));
                let (low, high) = (next().ok_or_else(lost)?, next().ok_or_else(lost)?);
                Some(Quantile::between(low, high, part))
            }
        };
        out.push((agg, value));
    }
    Ok(out)
}

impl Search {
    /// One digit more, from how often each of its values occurs.
    fn narrow(&mut self, counts: &[Box<Counts>]) -> Result<()> {
        let bits = ordered_bits(self.prim);
        let digit = (bits - self.prefix.bits).min(DIGIT_BITS);
        for value in 0..1usize << digit {
            let n: u64 = counts.iter().filter_map(|c| c.get(value)).sum();
            if self.rank >= n {
                self.rank -= n;
                continue;
            }
            self.among = n;
            self.prefix = Prefix {
                value: self.prefix.value << digit | value as u64,
                bits: self.prefix.bits + digit,
            };
            if self.prefix.bits == bits {
                self.found = Some(self.prefix.value);
            }
            return Ok(());
        }
        Err(changed())
    }
}

/// Fewer rows than a pass before had: somebody writes to the column.
fn changed() -> Error {
    Error::InvalidData("a column was written while a quantile of it was looked for".into())
}

impl Step {
    fn new(agg: usize, prim: Prim, prefix: Prefix, count: bool) -> Step {
        let pass = if count {
            Pass::Count(Mutex::new(Vec::new()))
        } else {
            Pass::Gather(Mutex::new(Vec::new()))
        };
        Step { agg, prim, prefix, pass }
    }

    fn serves(&self, s: &Search) -> bool {
        self.agg == s.agg && self.prefix == s.prefix
    }

    /// How many rows the pass found.
    fn len(&self) -> u64 {
        match &self.pass {
            Pass::Count(counts) => {
                let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                counts.iter().map(|c| c.iter().sum::<u64>()).sum()
            }
            Pass::Gather(keys) => keys.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
        }
    }

    /// What a morsel is counted in: that of an earlier one, if there is one that nobody has.
    fn begin(&self) -> Result<(Option<Box<Counts>>, Vec<u64>)> {
        let Pass::Count(counts) = &self.pass else { return Ok((None, Vec::new())) };
        let had = counts.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok((Some(had.map_or_else(no_counts, Ok)?), Vec::new()))
    }

    /// Puts what a morsel came to with the rest.
    fn end(&self, counted: Option<Box<Counts>>, mut gathered: Vec<u64>) -> Result<()> {
        match &self.pass {
            Pass::Count(counts) => {
                counts.lock().unwrap_or_else(PoisonError::into_inner).extend(counted);
            }
            Pass::Gather(keys) => {
                let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = gathered.len() * size_of::<u64>();
                keys.try_reserve(gathered.len()).map_err(|_| Error::OutOfMemory { bytes })?;
                keys.append(&mut gathered);
            }
        }
        Ok(())
    }

    /// Tells those who look for the prefix what the pass found out.
    fn answer(self, served: &mut [&mut Search]) -> Result<()> {
        match self.pass {
            Pass::Gather(keys) => {
                let mut keys = keys.into_inner().unwrap_or_else(PoisonError::into_inner);
                served.iter_mut().try_for_each(|s| {
                    let rank = usize::try_from(s.rank).ok().filter(|rank| *rank < keys.len());
                    s.found = Some(*keys.select_nth_unstable(rank.ok_or_else(changed)?).1);
                    Ok(())
                })
            }
            Pass::Count(counts) => {
                let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
                served.iter_mut().try_for_each(|s| s.narrow(&counts))
            }
        }
    }
}

/// Nothing counted yet.
fn no_counts() -> Result<Box<Counts>> {
    let mut counts = Vec::new();
    let bytes = size_of::<Counts>();
    counts.try_reserve_exact(1 << DIGIT_BITS).map_err(|_| Error::OutOfMemory { bytes })?;
    counts.resize(1 << DIGIT_BITS, 0u64);
    counts.into_boxed_slice().try_into().map_err(|_| Error::OutOfMemory { bytes })
}

/// One pass over the rows, for all steps.
fn run(
    job: &Job<'_, '_>,
    frame: &Frame<'_>,
    aggs: &[Agg],
    places: &[Places],
    steps: &[Step],
) -> Result<()> {
    let program = frame.program;
    let rows = job.source.rows;
    let cost = program.cost + steps.len() as f64;
    if let Some(p) = job.run.cx.progress {
        p.expect(rows as u64);
    }
    job.run.morsels(rows, cost, &|_, start, n| {
        let fail = |e| Failed::at(start, e);
        let mut worker = Worker::new(frame).map_err(fail)?;
        let mut work: Vec<(Option<Box<Counts>>, Vec<u64>)> = Vec::with_capacity(steps.len());
        for step in steps {
            work.push(step.begin().map_err(fail)?);
        }
        let mut at = start;
        while at < start + n {
            let tile = program.tile_rows.min(start + n - at);
            if worker.run(at, tile)? {
                for (step, (counts, keys)) in steps.iter().zip(&mut work) {
                    let place = places.get(step.agg).copied().unwrap_or_default();
                    let root = |r: Option<usize>| r.map_or(std::ptr::null(), |r| worker.root(r));
                    let mut values = root(place.value);
                    let mut bytes = [0u8; TILE_MAX];
                    let agg = aggs.get(step.agg);
                    let bits = agg.and_then(|a| repr_of(&frame.stage.graph, a)) == Some(Repr::Bits);
                    if bits {
                        for (i, b) in bytes.iter_mut().enumerate().take(tile) {
                            // SAFETY: the root holds the tile's bits.
                            *b = unsafe { values.add(i / 8).read() } >> (i % 8) & 1;
                        }
                        values = bytes.as_ptr();
                    }
                    let mut both = [0u64; TILE_MAX / 64];
                    let (p, prefix) = (step.prim, step.prefix);
                    // SAFETY: roots and mask hold the tile's rows; bits in whole words.
                    let room = unsafe {
                        let mask = effective(worker.mask(), root(place.valid), tile, &mut both);
                        match counts {
                            Some(counts) => {
                                count_digits(p, values, mask, tile, prefix, counts);
                                true
                            }
                            None => gather_ordered(p, values, mask, tile, prefix, keys),
                        }
                    };
                    if !room {
                        return Err(fail(Error::OutOfMemory { bytes: keys.len() * 8 }));
                    }
                }
            }
            at += tile;
        }
        for (step, (counts, keys)) in steps.iter().zip(work) {
            step.end(counts, keys).map_err(fail)?;
        }
        Ok(())
    })
}
