//! Row by row: new columns beside the old ones.

use insitu_kernels::copy::{copy_bits, stream_fence, stream_piece};

use crate::compile::graph::{Id, Repr};
use crate::compile::program::Program;
use crate::compile::stage::{Stage, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::filter;
use crate::exec::output::{Buffer, Column, Rows, finish};
use crate::exec::run::{Job, columns, lost};
use crate::exec::source::SourceColumn;
use crate::exec::strings;
use crate::exec::tile::{Failed, Frame, Target, Worker};
use crate::exec::zones::Skips;
use crate::memory::{NewColumn, Owner};

/// Bytes of new columns from which they are written past the cache: more than a share of it, so
/// that nothing would be left of them for the next reader, and each line would be read before it is
/// written.
const STREAM_BYTES: usize = 16 << 20;

/// The outputs that the program computes (of a filter, moved columns too), in the order of its
/// roots: (output, value, validity).
pub(crate) fn computed(stage: &Stage) -> Vec<(usize, Id, Option<Id>)> {
    let filter = stage.has_filter();
    stage
        .outputs
        .iter()
        .zip(&stage.needed)
        .enumerate()
        .filter_map(|(i, (o, needed))| {
            let (value, valid) = match &o.what {
                What::Computed | What::Scan(_) => o.nodes?,
                What::Input(_) if filter => o.nodes?,
                // Which rows are set, of strings.
                What::Set(set) => (set.rows, None),
                _ => return None,
            };
            needed.then_some((i, value, valid))
        })
        .collect()
}

/// The roots of the outputs, values and validities.
pub(crate) fn roots(stage: &Stage) -> Vec<Id> {
    computed(stage).into_iter().flat_map(|(_, v, valid)| std::iter::once(v).chain(valid)).collect()
}

pub(crate) fn run<'a>(job: &Job<'_, 'a>) -> Result<Rows<'a>> {
    if job.compiled.stage.has_filter() { filter::run(job) } else { mapped(job) }
}

/// A column of `rows` nulls.
pub(super) fn nulls(rows: usize) -> Column<'static> {
    Column::New(NewColumn { null_count: rows, ..NewColumn::default() })
}

/// Buffers of a computed column.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) output: usize,
    pub(super) values: Buffer,
    pub(super) validity: Option<Buffer>,
    pub(super) repr: Repr,
}

/// Buffers for the computed columns of all rows: each column's, and each root's.
pub(super) fn make(job: &Job<'_, '_>) -> Result<(Vec<Made>, Vec<Target>)> {
    let (stage, rows) = (&job.compiled.stage, job.source.rows);
    let mut made = Vec::new();
    let mut targets = Vec::new();
    for (output, value, valid) in computed(stage) {
        let repr = stage.graph.node(value).repr;
        let set = stage.outputs.get(output).is_some_and(|o| matches!(o.what, What::Set(_)));
        let memory = if set { job.run.heap } else { job.memory };
        let values = Buffer::of(memory, repr, rows)?;
        targets.push(Target { base: values.base(), repr });
        let mut validity = None;
        if valid.is_some() {
            let buffer = Buffer::of(job.memory, Repr::Bits, rows)?;
            targets.push(Target { base: buffer.base(), repr: Repr::Bits });
            validity = Some(buffer);
        }
        made.push(Made { output, values, validity, repr });
    }
    Ok((made, targets))
}

/// Whether columns of all rows are written past the cache.
pub(super) fn streams(made: &[Made]) -> bool {
    made.iter().map(|m| m.values.len).sum::<usize>() >= STREAM_BYTES
}

fn mapped<'a>(job: &Job<'_, 'a>) -> Result<Rows<'a>> {
    let program = &job.compiled.main;
    let rows = job.source.rows;
    let (made, targets) = make(job)?;
    let stream = streams(&made);
    // Over a column that is read: after all of a tile was read, which no kernel need know of.
    let held = stream || job.memory.owner() == Owner::Caller { is_read: true };
    let frame = Frame { held, ..frame(job, program, &targets) };
    if !program.instrs.is_empty() || !targets.is_empty() {
        // Roots that are no instruction's result (constants, columns, doubles) are copied.
        let past_cache = stream_piece(program.level);
        let copied: Vec<(usize, Target)> = program
            .roots
            .iter()
            .zip(&targets)
            .enumerate()
            .filter(|(_, (r, _))| held || !r.forwarded)
            .map(|(i, (_, t))| (i, *t))
            .collect();
        job.run.morsels(rows, program.cost, &|_, start, n| {
            let mut worker = Worker::new(&frame).map_err(|e| Failed::at(start, e))?;
            let mut at = start;
            while at < start + n {
                let tile = program.tile_rows.min(start + n - at);
                worker.run(at, tile)?;
                for (root, target) in &copied {
                    let dst = (target.base + target.repr.bytes(at)) as *mut u8;
                    let (src, bytes) = (worker.root(*root), target.repr.bytes(tile));
                    // A caller's column that is copied to its own place.
                    if std::ptr::eq(src, dst) {
                        continue;
                    }
                    // SAFETY: root and target hold the tile's rows, bits in whole words (the
                    // buffer is lent in multiples of 64 bytes; what a caller's is, is numbers).
                    // They are apart.
                    unsafe {
                        if stream {
                            past_cache(dst, src, bytes);
                        } else {
                            dst.copy_from_nonoverlapping(src, bytes);
                        }
                    }
                }
                at += tile;
            }
            if stream {
                stream_fence();
            }
            Ok(())
        })?;
    }
    written(job, &made)
}

/// The stage's columns of all rows: those that were made, and the others.
pub(super) fn written<'a>(job: &Job<'_, 'a>, made: &[Made]) -> Result<Rows<'a>> {
    let (stage, rows) = (&job.compiled.stage, job.source.rows);
    let sliced = !stage.slices.is_empty();
    let columns = columns(stage, |i, what| {
        let dtype = stage.outputs.get(i).map(|o| &o.dtype).ok_or_else(lost)?;
        if let Some(m) = made.iter().find(|m| m.output == i) {
            if let What::Set(set) = what {
                return strings::set(job, set, dtype, m.values).map(Column::New);
            }
            let level = job.compiled.main.level;
            return Ok(Column::New(finish(m.values, m.validity, rows, level)));
        }
        match what {
            What::Null => Ok(nulls(rows)),
            What::Shifted(shifted) => strings::shift(job, shifted, dtype).map(Column::New),
            What::Input(c) => {
                let column = job.source.column(*c)?;
                if !sliced && (!job.last || column.origin.is_some()) {
                    return Ok(Column::Shared(column.clone()));
                }
                copy_rows(job, column, dtype)
            }
            _ => Err(lost()),
        }
    })?;
    Ok(Rows { rows, columns })
}

/// A copy of an input column's rows that slices left.
fn copy_rows<'a>(
    job: &Job<'_, 'a>,
    column: &SourceColumn<'a>,
    dtype: &DataType,
) -> Result<Column<'a>> {
    let (rows, offset) = (job.source.rows, job.source.offset);
    let level = job.compiled.main.level;
    if *dtype == DataType::Null {
        return Ok(nulls(rows));
    }
    let repr = match (dtype.prim(), dtype) {
        (Some(p), _) => Repr::Num(p),
        (None, DataType::Bool) => Repr::Bits,
        (None, d) if d.is_string() => {
            return strings::copy(job, column, dtype, strings::Chosen::All).map(Column::New);
        }
        (None, d) => {
            return Err(Error::Unsupported(format!("moving rows of type {d}")));
        }
    };
    let values = Buffer::of(job.memory, repr, rows)?;
    let has_nulls = column.chunks.iter().any(|c| !c.validity.is_null());
    let validity = if has_nulls { Some(Buffer::of(job.memory, Repr::Bits, rows)?) } else { None };
    job.run.morsels(rows, 0.5, &|_, start, n| {
        // Morsels start at whole words, so tiles of bits do too.
        let mut done = 0;
        for (chunk, local, count) in column.pieces(offset + start, n) {
            if let Repr::Num(p) = repr {
                let w = p.width();
                // SAFETY: count rows from `local` on are in the chunk, and the buffer has room
                // for all rows.
                unsafe {
                    (values.ptr.as_ptr().add((start + done) * w))
                        .copy_from_nonoverlapping(chunk.values.add(local * w), count * w);
                }
            }
            done += count;
        }
        let bitmaps =
            [(matches!(repr, Repr::Bits)).then_some((values, false)), validity.map(|v| (v, true))];
        for (buffer, is_validity) in bitmaps.into_iter().flatten() {
            let dst = (buffer.base() + start / 8) as *mut u8;
            let mut done = 0;
            for (chunk, local, count) in column.pieces(offset + start, n) {
                let src = if is_validity { chunk.validity } else { chunk.values };
                // SAFETY: the rows are in the chunk; the buffer holds whole words for all rows.
                unsafe { put_bits(dst, done, src, local, count, level) };
                done += count;
            }
        }
        Ok(())
    })?;
    Ok(Column::New(finish(values, validity, rows, level)))
}

/// Writes `n` bits of a bitmap (a null pointer: ones) at bit `at`, where all bits before `at` are
/// written; clears the rest of the last word.
///
/// # Safety
/// `dst` is writable for the words of `at + n` bits, `src` null or readable for `from + n` bits.
unsafe fn put_bits(
    dst: *mut u8,
    at: usize,
    src: *const u8,
    from: usize,
    n: usize,
    level: insitu_kernels::level::Level,
) {
    let mut word = [0u64; 1];
    let mut done = 0;
    while done < n {
        let (w, shift) = ((at + done) / 64, (at + done) % 64);
        let take = (64 - shift).min(n - done);
        // SAFETY: by contract.
        unsafe {
            if shift == 0 && !src.is_null() {
                let whole = n - done;
                copy_bits(level)(dst.add(w * 8), src, from + done, whole);
                return;
            }
            if src.is_null() {
                word[0] = if take == 64 { !0 } else { (1 << take) - 1 };
            } else {
                copy_bits(level)(word.as_mut_ptr().cast(), src, from + done, take);
            }
            let p = dst.cast::<u64>().add(w);
            let before = if shift == 0 { 0 } else { p.read() & ((1 << shift) - 1) };
            p.write(before | word[0] << shift);
        }
        done += take;
    }
}

pub(crate) fn frame<'a>(
    job: &'a Job<'_, '_>,
    program: &'a Program,
    targets: &'a [Target],
) -> Frame<'a> {
    Frame {
        stage: &job.compiled.stage,
        program,
        source: job.source,
        sets: &job.compiled.sets,
        given: job.given,
        targets,
        held: false,
        skips: program.mask.and_then(|_| Skips::new(&job.compiled.stage, job.source, job.given)),
    }
}
