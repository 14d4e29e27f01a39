//! The rows that a filter keeps. They are counted first, in a pass that leaves their bitmap; the
//! second pass writes each morsel's rows where the ones before it end, so that results are
//! contiguous.

use std::sync::atomic::{AtomicUsize, Ordering};

use insitu_kernels::compact::{CompactFn, compact, compact_bits};
use insitu_kernels::copy::{StreamCopyFn, stream_fence, stream_piece};
use insitu_kernels::tile::{any_bit, count_bits};

use crate::compile::graph::Repr;
use crate::compile::program::{Line, Program};
use crate::compile::stage::What;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::map::{Made, computed, frame, nulls, streams};
use crate::exec::output::{Buffer, Column, Rows, finish};
use crate::exec::run::{Job, MORSEL, columns, lost};
use crate::exec::strings;
use crate::exec::tile::{Failed, Worker};

/// The rows that pass.
struct Kept {
    bitmap: Buffer,
    /// Of each morsel, how many pass before it; of the end, all.
    starts: Vec<usize>,
    total: usize,
}

pub(super) fn run<'a>(job: &Job<'_, 'a>) -> Result<Rows<'a>> {
    let stage = &job.compiled.stage;
    let kept = count(job)?;
    let made = write(job, &kept)?;
    let (total, level) = (kept.total, job.compiled.main.level);
    let columns = columns(stage, |i, what| {
        if let Some(m) = made.iter().find(|m| m.output == i) {
            return Ok(Column::New(finish(m.values, m.validity, total, level)));
        }
        match what {
            What::Null => Ok(nulls(total)),
            What::Input(c) => {
                let column = job.source.column(*c)?;
                let dtype = stage.outputs.get(i).map(|o| &o.dtype).ok_or_else(lost)?;
                if *dtype == DataType::Null {
                    return Ok(nulls(total));
                }
                let (bitmap, starts) = (kept.bitmap, &kept.starts);
                let chosen = strings::Chosen::Bits { bitmap, starts, total };
                strings::copy(job, column, dtype, chosen).map(Column::New)
            }
            _ => Err(lost()),
        }
    })?;
    Ok(Rows { rows: total, columns })
}

/// The pass that evaluates the predicates.
fn count(job: &Job<'_, '_>) -> Result<Kept> {
    let main = &job.compiled.main;
    let rows = job.source.rows;
    let bitmap = Buffer::of(job.run.heap, Repr::Bits, rows)?;
    let counts: Vec<AtomicUsize> =
        (0..rows.div_ceil(MORSEL)).map(|_| AtomicUsize::new(0)).collect();
    let counter = count_bits(main.level);
    let counting = frame(job, main, &[]);
    job.run.morsels(rows, main.cost, &|m, start, n| {
        let mut worker = Worker::new(&counting).map_err(|e| Failed::at(start, e))?;
        let mut at = start;
        while at < start + n {
            let tile = main.tile_rows.min(start + n - at);
            let dst = (bitmap.base() + at / 8) as *mut u8;
            let bytes = Repr::Bits.bytes(tile);
            // SAFETY: the bitmap holds whole words for all rows; tiles start at whole words; the
            // mask is a tile's bits.
            unsafe {
                if worker.run(at, tile)? {
                    dst.copy_from_nonoverlapping(worker.mask(), bytes);
                } else {
                    dst.write_bytes(0, bytes);
                }
            }
            at += tile;
        }
        // SAFETY: the morsel's bits were just written.
        let selected = unsafe { counter((bitmap.base() + start / 8) as *const u8, n) };
        if let Some(c) = counts.get(m) {
            c.store(selected, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let mut total = 0;
    let before = |c: AtomicUsize| {
        let start = total;
        total += c.into_inner();
        start
    };
    let mut starts: Vec<usize> = counts.into_iter().map(before).collect();
    starts.push(total);
    Ok(Kept { bitmap, starts, total })
}

/// The pass that writes the kept rows of the columns that are numbers and bits.
fn write(job: &Job<'_, '_>, kept: &Kept) -> Result<Vec<Made>> {
    let stage = &job.compiled.stage;
    let program = job.compiled.write.as_ref().ok_or_else(lost)?;
    let mut made: Vec<Made> = Vec::new();
    for (output, value, valid) in computed(stage) {
        let repr = stage.graph.node(value).repr;
        let values = Buffer::of(job.memory, repr, kept.total)?;
        // Bits are or-ed in.
        let values = if repr == Repr::Bits { values.zeroed() } else { values };
        let validity = match valid {
            Some(_) => Some(Buffer::of(job.memory, Repr::Bits, kept.total)?.zeroed()),
            None => None,
        };
        made.push(Made { output, values, validity, repr });
    }
    if made.is_empty() || kept.total == 0 {
        return Ok(made);
    }
    let frame = frame(job, program, &[]);
    let bits = compact_bits(program.level);
    let stream = streams(&made);
    let cost = program.cost + 0.5 * made.len() as f64;
    job.run.morsels(job.source.rows, cost, &|m, start, n| {
        let (Some(first), Some(end)) = (kept.starts.get(m), kept.starts.get(m + 1)) else {
            return Ok(());
        };
        let (mut to, end) = (*first, *end);
        if to == end {
            return Ok(());
        }
        let failed = |e| Failed::at(start, e);
        let mut worker = Worker::new(&frame).map_err(failed)?;
        let mut sinks = Vec::with_capacity(made.len());
        for made in &made {
            sinks.push(Sink::new(made, to, program, stream).map_err(failed)?);
        }
        let mut at = start;
        while at < start + n {
            let tile = program.tile_rows.min(start + n - at);
            let mask = (kept.bitmap.base() + at / 8) as *const u8;
            // SAFETY: the bitmap covers all rows.
            if !unsafe { any_bit(mask, tile) } {
                at += tile;
                continue;
            }
            worker.run(at, tile)?;
            let mut root = 0;
            let mut written = 0;
            for (made, sink) in made.iter().zip(&mut sinks) {
                let src = worker.root(root);
                root += 1;
                // SAFETY: the root holds the tile's rows, the mask its bits; the output holds
                // `end - to` more rows of this morsel, which no other worker writes (bits: all
                // others go through the same kernel).
                unsafe {
                    written = match sink {
                        Sink::Bits(dst) => bits(*dst, to, src, mask, tile),
                        Sink::Numbers { pack, width, dst } => {
                            pack(dst.add(to * *width), end - to, src, mask, tile)
                        }
                        Sink::Lines { pack, lines } => lines.add(*pack, src, mask, tile),
                    };
                    if let Some(v) = made.validity {
                        bits(v.base() as *mut u64, to, worker.root(root), mask, tile);
                        root += 1;
                    }
                }
            }
            to += written;
            at += tile;
        }
        for sink in &mut sinks {
            if let Sink::Lines { lines, .. } = sink {
                // SAFETY: what was packed are this morsel's rows.
                unsafe { lines.send(true) };
            }
        }
        if stream {
            stream_fence();
        }
        Ok(())
    })?;
    Ok(made)
}

/// Where a morsel's rows of one column go.
enum Sink {
    Bits(*mut u64),
    Numbers { pack: CompactFn, width: usize, dst: *mut u8 },
    Lines { pack: CompactFn, lines: Lines },
}

impl Sink {
    /// Of a column whose rows go on from row `to` of the result.
    fn new(made: &Made, to: usize, program: &Program, stream: bool) -> Result<Sink> {
        let dst = made.values.ptr.as_ptr();
        let Repr::Num(p) = made.repr else { return Ok(Sink::Bits(dst.cast())) };
        let pack = compact(p.width(), program.level).ok_or_else(lost)?;
        if !stream {
            return Ok(Sink::Numbers { pack, width: p.width(), dst });
        }
        let at = dst.wrapping_add(to * p.width());
        Ok(Sink::Lines { pack, lines: Lines::new(at, p.width(), program)? })
    }
}

/// Bytes that are sent on at once.
const PIECE: usize = 2048;

/// Kept values on their way past the cache: packed here, sent on in whole lines of the result. Sent
/// tile by tile, the ends of each would be lines written in two parts, which takes several times as
/// long.
struct Lines {
    past_cache: StreamCopyFn,
    room: Vec<Line>,
    width: usize,
    /// Bytes of the room in use.
    used: usize,
    /// Where they go.
    dst: *mut u8,
}

impl Lines {
    fn new(dst: *mut u8, width: usize, program: &Program) -> Result<Lines> {
        // What a tile may add to an almost full piece, and the garbage that packing may write.
        let bytes = PIECE + (program.tile_rows + 64) * width;
        let mut room = Vec::new();
        room.try_reserve_exact(bytes.div_ceil(64)).map_err(|_| Error::OutOfMemory { bytes })?;
        room.resize(bytes.div_ceil(64), Line([0; 64]));
        Ok(Lines { past_cache: stream_piece(program.level), room, width, used: 0, dst })
    }

    /// Packs a tile's selected values, and returns how many they are.
    ///
    /// # Safety
    /// `src` holds `rows` values, no more than a tile's, and `mask` their bits. The destination has
    /// room for those selected after all before.
    unsafe fn add(
        &mut self,
        pack: CompactFn,
        src: *const u8,
        mask: *const u8,
        rows: usize,
    ) -> usize {
        let left = (self.room.len() * 64 - self.used) / self.width;
        // SAFETY: less than a piece is in use, so a tile and 64 more have room.
        let n = unsafe {
            pack(self.room.as_mut_ptr().cast::<u8>().add(self.used), left, src, mask, rows)
        };
        self.used += n * self.width;
        if self.used >= PIECE {
            // SAFETY: by contract.
            unsafe { self.send(false) };
        }
        n
    }

    /// Sends on what is packed: up to the end of a line of the destination, or all.
    ///
    /// # Safety
    /// As for [`Lines::add`].
    unsafe fn send(&mut self, all: bool) {
        let over = self.dst.wrapping_add(self.used).addr() % 64;
        let bytes = if all { self.used } else { self.used.saturating_sub(over) };
        let room = self.room.as_mut_ptr().cast::<u8>();
        // SAFETY: the bytes in use are within the room, and have room in the destination. What is
        // left is less than a line, and moves to the front from beyond it.
        unsafe {
            (self.past_cache)(self.dst, room, bytes);
            self.dst = self.dst.add(bytes);
            room.copy_from(room.add(bytes), self.used - bytes);
        }
        self.used -= bytes;
    }
}
