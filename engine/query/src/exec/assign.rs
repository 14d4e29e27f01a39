//! Writing new values over old ones. Per tile all right-hand sides are computed first, into scratch
//! in L1, and then stored, so that each reads only old values. Morsels are rows of one chunk, as the
//! zones of statistics are, so that bitmaps are written by whole words.
//!
//! What can fail has failed before, in a pass over all rows that writes nothing.

use std::ops::Range;
use std::sync::Arc;

use insitu_kernels::copy::{CopyStatsFn, ZoneStats, copy_with_stats};
use insitu_kernels::strings::LiteralSet;
use insitu_kernels::tile::{TILE_MAX, count_bits};
use insitu_kernels::view::ColumnView;

use crate::compile::graph::Repr;
use crate::compile::program::{Line, Place, Program};
use crate::compile::stage::Stage;
use crate::error::{Error, Result};
use crate::exec::given::Tiles;
use crate::exec::run::{MORSEL, Run};
use crate::exec::source::Source;
use crate::exec::tile::{Failed, Frame, Worker};
use crate::exec::walk::{Span, Walk};
use crate::pool::{self, PARALLEL_NS};
use crate::table::TableView;
use crate::update::{Writable, ZoneSink};

/// What both passes read.
pub(crate) struct Reading<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) source: &'a Source<'a>,
    pub(crate) sets: &'a [Arc<LiteralSet>],
    pub(crate) given: &'a Tiles,
}

impl<'a> Reading<'a> {
    fn frame(&'a self, program: &'a Program) -> Frame<'a> {
        Frame {
            stage: self.stage,
            program,
            source: self.source,
            sets: self.sets,
            given: self.given,
            targets: &[],
            held: false,
            // Statistics change as the values do.
            skips: None,
        }
    }
}

/// Runs the program over all rows and writes nothing: fails as writing would, at the first row that
/// fails.
pub(crate) fn check(run: &Run<'_>, reading: &Reading<'_>, program: &Program) -> Result<()> {
    let frame = reading.frame(program);
    run.morsels(reading.source.rows, program.cost, &|_, start, n| {
        let mut worker = Worker::new(&frame).map_err(|e| Failed::at(start, e))?;
        let mut at = start;
        while at < start + n {
            let tile = program.tile_rows.min(start + n - at);
            worker.run(at, tile).map_err(|failed| first(&mut worker, at, failed)).map(drop)?;
            at += tile;
        }
        Ok(())
    })
}

/// The first row of the tile that fails: of several checks, the first in order has spoken.
fn first(worker: &mut Worker<'_>, at: usize, mut failed: Failed) -> Failed {
    while failed.row > at {
        match worker.run(at, failed.row - at) {
            Err(earlier) if earlier.row < failed.row => failed = earlier,
            _ => break,
        }
    }
    failed
}

/// One column that is written, and where its value and validity are among the program's roots.
pub(crate) struct Written {
    pub(crate) column: usize,
    pub(crate) repr: Repr,
    pub(crate) value: usize,
    pub(crate) valid: Option<usize>,
}

/// Where a morsel lies.
struct Morsel {
    chunk: usize,
    /// Its first row, in the table and in its chunk.
    row: usize,
    local: usize,
    rows: usize,
}

/// The morsels of each chunk, in order.
struct Morsels {
    /// Per chunk: its first row, its rows, its first morsel.
    chunks: Vec<(usize, usize, usize)>,
    count: usize,
}

impl Morsels {
    fn of(table: &TableView<'_>) -> Morsels {
        Morsels::of_chunks(table.chunks.iter().map(|chunk| chunk.first().map_or(0, |c| c.len)))
    }

    /// Of chunks of so many rows.
    fn of_chunks(sizes: impl ExactSizeIterator<Item = usize>) -> Morsels {
        let (mut row, mut count) = (0, 0);
        let mut chunks = Vec::with_capacity(sizes.len());
        for rows in sizes {
            chunks.push((row, rows, count));
            row += rows;
            count += rows.div_ceil(MORSEL);
        }
        Morsels { chunks, count }
    }

    fn get(&self, number: usize) -> Option<Morsel> {
        if number >= self.count {
            return None;
        }
        let chunk = self.chunks.partition_point(|c| c.2 <= number).checked_sub(1)?;
        let (first, rows, base) = *self.chunks.get(chunk)?;
        let local = (number - base) * MORSEL;
        Some(Morsel { chunk, row: first + local, local, rows: MORSEL.min(rows - local) })
    }

    /// The number of the morsel that begins nearest to a row.
    fn nearest(&self, row: usize) -> usize {
        let Some(chunk) = self.chunks.partition_point(|c| c.0 <= row).checked_sub(1) else {
            return 0;
        };
        let Some((first, rows, base)) = self.chunks.get(chunk).copied() else { return 0 };
        let within = (row - first).min(rows);
        let before = within / MORSEL;
        let (start, end) = (before * MORSEL, rows.min((before + 1) * MORSEL));
        base + before + usize::from(start < end && within - start > end - within)
    }
}

/// The spans of a table that is walked: one per thread, if threads are worth it, of about as many
/// rows each, in whole morsels.
pub(crate) fn spans(
    walk: &Walk,
    source: &Source<'_>,
    table: &TableView<'_>,
    program: &Program,
) -> Result<Vec<Span>> {
    let morsels = Morsels::of(table);
    let parallel = table.rows as f64 * program.cost > PARALLEL_NS;
    let count = if parallel { pool::threads().min(morsels.count) } else { 1 };
    let first_row = |number: usize| morsels.get(number).map_or(table.rows, |m| m.row);
    let mut spans = Vec::with_capacity(count);
    let mut start = 0;
    for i in 1..=count {
        let end = match i == count {
            true => morsels.count,
            false => morsels.nearest((table.rows as u128 * i as u128 / count as u128) as usize),
        };
        if start < end {
            spans.push(Span::new(walk, source, start..end, first_row(start)..first_row(end))?);
            start = end;
        }
    }
    Ok(spans)
}

/// Stores the roots of `program` over the columns. `places[c][w]` is where chunk `c` of column
/// `written[w]` can be written. `zones` is told of each zone that was written to, or of each zone
/// at all with `every_zone`. The spans are those of the walk, if the program asks for one.
///
/// # Safety
/// Every place is writable, and no one else's to read or write, for the rows of its chunk, up to
/// the next multiple of 64 bytes; a missing validity stands for a chunk without a bitmap. No row
/// has changed since the spans were made, and each source is its span's.
pub(crate) unsafe fn write(
    run: &Run<'_>,
    reading: &Reading<'_>,
    program: &Program,
    to: &Over<'_>,
    walk: Option<(&Walk, &[(&Span, Source<'_>)])>,
) -> Result<()> {
    let morsels = Morsels::of(to.table);
    // Roots that lie in a column may be overwritten before they are stored.
    let in_columns: Vec<usize> = program
        .roots
        .iter()
        .enumerate()
        .filter(|(_, r)| matches!(program.places.get(usize::from(r.slot)), Some(Place::Cursor(_))))
        .map(|(i, _)| i)
        .collect();
    let gather = to.written.iter().map(|w| Gather::new(w.repr, program)).collect();
    let writer = Writer { program, to, morsels, in_columns, gather };
    let ns = to.table.rows as f64 * (program.cost + 0.2 * to.written.len() as f64);
    match walk {
        None => {
            let frame = reading.frame(program);
            run.items(writer.morsels.count, ns, &|number| {
                // SAFETY: by contract; each morsel is one worker's alone, and its rows are read
                // by nobody else.
                unsafe { writer.rows(&frame, number..number + 1, false) }
            })
        }
        Some((walk, spans)) => run.items(spans.len(), ns, &|i| {
            let Some((span, source)) = spans.get(i) else { return Ok(()) };
            let reading = Reading { source, ..*reading };
            let frame = reading.frame(program);
            // SAFETY: by contract; spans are one worker's alone. What is read of other rows was
            // copied where another span writes it, and lies behind in the walk else.
            unsafe { writer.rows(&frame, span.morsels.clone(), walk.down) }
        }),
    }
}

/// What is written over.
pub(crate) struct Over<'a> {
    pub(crate) table: &'a TableView<'a>,
    pub(crate) written: &'a [Written],
    pub(crate) places: &'a [Vec<Writable>],
    pub(crate) zones: Option<&'a ZoneSink<'a>>,
}

/// What all workers of a writing pass share.
struct Writer<'a> {
    program: &'a Program,
    to: &'a Over<'a>,
    morsels: Morsels,
    /// Roots that lie in columns.
    in_columns: Vec<usize>,
    gather: Vec<Gather>,
}

/// A worker's buffers: tiles of what lies in columns, and where each root is.
struct Spare {
    lines: Vec<Line>,
    roots: Vec<*const u8>,
}

impl Writer<'_> {
    /// Writes some morsels, `down`: from the last row to the first.
    ///
    /// # Safety
    /// That of [`write`]; nobody else reads or writes rows of these morsels, and no row reads one
    /// that comes before it in this order, but as the frame's source has it.
    unsafe fn rows(
        &self,
        frame: &Frame<'_>,
        numbers: Range<usize>,
        down: bool,
    ) -> Result<(), Failed> {
        let row = self.morsels.get(numbers.start).map_or(0, |m| m.row);
        let mut worker = Worker::new(frame).map_err(|e| Failed::at(row, e))?;
        let mut spare = Spare {
            lines: vec![Line([0; 64]); self.in_columns.len() * (TILE_MAX * 8 / 64)],
            roots: vec![std::ptr::null(); self.program.roots.len()],
        };
        let count = numbers.len();
        for i in 0..count {
            let number = numbers.start + if down { count - 1 - i } else { i };
            // SAFETY: by contract.
            unsafe { self.morsel(&mut worker, &mut spare, number, down)? };
        }
        Ok(())
    }

    /// # Safety
    /// As of [`Writer::rows`].
    unsafe fn morsel(
        &self,
        worker: &mut Worker<'_>,
        spare: &mut Spare,
        number: usize,
        down: bool,
    ) -> Result<(), Failed> {
        let Some(m) = self.morsels.get(number) else { return Ok(()) };
        let lost = || Failed::at(m.row, Error::ShapeMismatch("a column is missing".into()));
        let views = self.to.table.chunks.get(m.chunk).ok_or_else(lost)?;
        let places = self.to.places.get(m.chunk).ok_or_else(lost)?;
        let step = self.program.tile_rows;
        let tiles = m.rows.div_ceil(step);
        let mut touched = false;
        for i in 0..tiles {
            let done = step * if down { tiles - 1 - i } else { i };
            let rows = step.min(m.rows - done);
            if worker.run(m.row + done, rows)? {
                touched = true;
                // SAFETY: by contract, for the tile's rows.
                unsafe { self.tile(worker, spare, places, m.local + done, rows) };
            }
        }
        if let Some(sink) = self.to.zones.filter(|z| touched || z.every) {
            for (i, (w, gather)) in self.to.written.iter().zip(&self.gather).enumerate() {
                let view = views.get(w.column).ok_or_else(lost)?;
                // SAFETY: the morsel's rows are rows of the chunk.
                let stats = unsafe { gather.zone(view, m.local, m.rows) };
                (sink.tell)(i, number, &stats);
            }
        }
        Ok(())
    }

    /// Stores what the worker computed of a tile, from row `local` of its chunk on.
    ///
    /// # Safety
    /// That of [`write`], for the tile's rows.
    unsafe fn tile(
        &self,
        worker: &Worker<'_>,
        spare: &mut Spare,
        places: &[Writable],
        local: usize,
        rows: usize,
    ) {
        for (i, root) in spare.roots.iter_mut().enumerate() {
            *root = worker.root(i);
        }
        for (i, lines) in self.in_columns.iter().zip(spare.lines.chunks_mut(TILE_MAX * 8 / 64)) {
            let Some(root) = spare.roots.get_mut(*i) else { continue };
            let to = lines.as_mut_ptr().cast::<u8>();
            let width = root_width(self.to.written, *i);
            // SAFETY: a cursor holds the tile's rows, the spare tile any of them.
            unsafe { to.copy_from_nonoverlapping(*root, width.bytes(rows)) };
            *root = to;
        }
        for (w, place) in self.to.written.iter().zip(places) {
            let root = |i: usize| spare.roots.get(i).copied().unwrap_or(std::ptr::null());
            // SAFETY: the root holds the tile's rows in scratch, a constant or a spare tile; the
            // place is the chunk's by contract, and no other worker has rows of this morsel, whose
            // first is at a whole word of bits.
            unsafe {
                match w.repr {
                    Repr::Num(p) => place
                        .values
                        .add(local * p.width())
                        .copy_from_nonoverlapping(root(w.value), rows * p.width()),
                    Repr::Bits => store(place.values, local, root(w.value), rows),
                }
                if !place.validity.is_null() {
                    match w.valid {
                        Some(i) => store(place.validity, local, root(i), rows),
                        None => store(place.validity, local, ALL.as_ptr().cast(), rows),
                    }
                }
            }
        }
    }
}

/// All rows valid, for a tile.
static ALL: [u64; TILE_MAX / 64] = [!0; TILE_MAX / 64];

/// The kind of root `i`.
fn root_width(written: &[Written], i: usize) -> Repr {
    written.iter().find(|w| w.value == i).map_or(Repr::Bits, |w| w.repr)
}

/// Stores a tile's bits from row `at` of a bitmap on, a multiple of 64. Bits past the rows are
/// zeroed.
///
/// # Safety
/// The bitmap is writable for `at + rows` rows rounded up to 64, `src` readable for `rows` bits in
/// whole words.
unsafe fn store(bitmap: *mut u8, at: usize, src: *const u8, rows: usize) {
    let whole = rows / 64 * 8;
    // SAFETY: by contract.
    unsafe {
        let to = bitmap.add(at / 8);
        to.copy_from_nonoverlapping(src, whole);
        if !rows.is_multiple_of(64) {
            let last = src.add(whole).cast::<u64>().read_unaligned();
            let bits = last & ((1 << (rows % 64)) - 1);
            to.add(whole).cast::<u64>().write_unaligned(bits);
        }
    }
}

/// How statistics of a zone are gathered.
struct Gather {
    look: Option<(CopyStatsFn, usize)>,
    count: unsafe fn(*const u8, usize) -> usize,
}

impl Gather {
    fn new(repr: Repr, program: &Program) -> Gather {
        let look = match repr {
            Repr::Num(p) => Some((copy_with_stats(p, program.level), p.width())),
            Repr::Bits => None,
        };
        Gather { look, count: count_bits(program.level) }
    }

    /// # Safety
    /// The chunk has `rows` rows from `local` on, a multiple of 64.
    unsafe fn zone(&self, view: &ColumnView<'_>, local: usize, rows: usize) -> ZoneStats {
        let validity = match view.validity.is_null() {
            true => view.validity,
            // SAFETY: the bitmap covers the chunk.
            false => unsafe { view.validity.add(local / 8) },
        };
        match self.look {
            // SAFETY: rows of the chunk; nothing is copied.
            Some((look, width)) => unsafe {
                let from = view.values.add(local * width);
                look(std::ptr::null_mut(), from, validity, rows, false)
            },
            None => {
                let valid = match validity.is_null() {
                    true => rows,
                    // SAFETY: as above.
                    false => unsafe { (self.count)(validity, rows) },
                };
                let null_count = (rows - valid.min(rows)) as u64;
                ZoneStats { rows: rows as u64, null_count, flags: 0, ..ZoneStats::EMPTY }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_morsel_is_none_further_away() {
        let tiny = std::iter::repeat_n(3, 500);
        let mixed: Vec<usize> = [0, 1_000_000, 0].into_iter().chain(tiny).collect();
        let layouts: [&[usize]; 5] =
            [&mixed, &[], &[0, 0], &[MORSEL, 2 * MORSEL, 1], &[70_000, 5, 0, 100]];
        for sizes in layouts {
            let morsels = Morsels::of_chunks(sizes.iter().copied());
            let total: usize = sizes.iter().sum();
            let begins = |i: usize| morsels.get(i).map_or(total, |m| m.row);
            let distance = |i: usize, row: usize| begins(i).abs_diff(row);
            for row in (0..=total).step_by(997).chain([total / 2, total]) {
                let nearest = morsels.nearest(row);
                assert!(nearest <= morsels.count);
                let least = (0..=morsels.count).map(|i| distance(i, row)).min();
                assert_eq!(Some(distance(nearest, row)), least, "{row} of {total}");
            }
        }
    }
}
