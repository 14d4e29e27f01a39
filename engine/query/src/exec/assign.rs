//! Writing new values over old ones. Per tile all right-hand sides are computed first, into scratch
//! in L1, and then stored: each reads only its own row, and only old values. Morsels are rows of one
//! chunk, as the zones of statistics are, so that bitmaps are written by whole words.
//!
//! What can fail has failed before, in a pass over all rows that writes nothing.

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
        let (mut row, mut count) = (0, 0);
        let mut chunks = Vec::with_capacity(table.chunks.len());
        for chunk in &table.chunks {
            let rows = chunk.first().map_or(0, |c| c.len);
            chunks.push((row, rows, count));
            row += rows;
            count += rows.div_ceil(MORSEL);
        }
        Morsels { chunks, count }
    }

    fn get(&self, number: usize) -> Option<Morsel> {
        let chunk = self.chunks.partition_point(|c| c.2 <= number).checked_sub(1)?;
        let (first, rows, base) = *self.chunks.get(chunk)?;
        let local = (number - base) * MORSEL;
        Some(Morsel { chunk, row: first + local, local, rows: MORSEL.min(rows - local) })
    }
}

/// Stores the roots of `program` over the columns. `places[c][w]` is where chunk `c` of column
/// `written[w]` can be written. `zones` is told of each zone that was written to, or of each zone
/// at all with `every_zone`.
///
/// # Safety
/// Every place is writable, and no one else's to read or write, for the rows of its chunk, up to
/// the next multiple of 64 bytes; a missing validity stands for a chunk without a bitmap.
pub(crate) unsafe fn write(
    run: &Run<'_>,
    reading: &Reading<'_>,
    program: &Program,
    table: &TableView<'_>,
    written: &[Written],
    places: &[Vec<Writable>],
    zones: Option<&ZoneSink<'_>>,
) -> Result<()> {
    let frame = reading.frame(program);
    let morsels = Morsels::of(table);
    // Roots that lie in a column may be overwritten before they are stored.
    let in_columns: Vec<usize> = program
        .roots
        .iter()
        .enumerate()
        .filter(|(_, r)| matches!(program.places.get(usize::from(r.slot)), Some(Place::Cursor(_))))
        .map(|(i, _)| i)
        .collect();
    let gather: Vec<Gather> = written.iter().map(|w| Gather::new(w.repr, program)).collect();
    let cost = program.cost + 0.2 * written.len() as f64;
    run.items(morsels.count, table.rows as f64 * cost, &|number| {
        let Some(m) = morsels.get(number) else { return Ok(()) };
        let lost = || Failed::at(m.row, Error::ShapeMismatch("a column is missing".into()));
        let (views, places) =
            (table.chunks.get(m.chunk).ok_or_else(lost)?, places.get(m.chunk).ok_or_else(lost)?);
        let mut worker = Worker::new(&frame).map_err(|e| Failed::at(m.row, e))?;
        let mut spare = vec![Line([0; 64]); in_columns.len() * (TILE_MAX * 8 / 64)];
        let mut saved: Vec<*const u8> = vec![std::ptr::null(); program.roots.len()];
        let mut touched = false;
        let mut done = 0;
        while done < m.rows {
            let tile = program.tile_rows.min(m.rows - done);
            let local = m.local + done;
            if worker.run(m.row + done, tile)? {
                touched = true;
                for (i, root) in saved.iter_mut().enumerate() {
                    *root = worker.root(i);
                }
                for (i, lines) in in_columns.iter().zip(spare.chunks_mut(TILE_MAX * 8 / 64)) {
                    let Some(root) = saved.get_mut(*i) else { continue };
                    let to = lines.as_mut_ptr().cast::<u8>();
                    let width = root_width(written, *i);
                    // SAFETY: a cursor holds the tile's rows, the spare tile any of them.
                    unsafe { to.copy_from_nonoverlapping(*root, width.bytes(tile)) };
                    *root = to;
                }
                for (w, place) in written.iter().zip(places) {
                    let root = |i: usize| saved.get(i).copied().unwrap_or(std::ptr::null());
                    // SAFETY: the root holds the tile's rows in scratch, a constant or a spare
                    // tile; the place is the chunk's by contract, and no other worker has rows of
                    // this morsel, whose first is at a whole word of bits.
                    unsafe {
                        match w.repr {
                            Repr::Num(p) => place
                                .values
                                .add(local * p.width())
                                .copy_from_nonoverlapping(root(w.value), tile * p.width()),
                            Repr::Bits => store(place.values, local, root(w.value), tile),
                        }
                        if !place.validity.is_null() {
                            match w.valid {
                                Some(i) => store(place.validity, local, root(i), tile),
                                None => store(place.validity, local, ALL.as_ptr().cast(), tile),
                            }
                        }
                    }
                }
            }
            done += tile;
        }
        if let Some(sink) = zones.filter(|z| touched || z.every) {
            for (i, (w, gather)) in written.iter().zip(&gather).enumerate() {
                let view = views.get(w.column).ok_or_else(lost)?;
                // SAFETY: the morsel's rows are rows of the chunk.
                let stats = unsafe { gather.zone(view, m.local, m.rows) };
                (sink.tell)(i, number, &stats);
            }
        }
        Ok(())
    })
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
