//! Writing over values that other rows' new ones are made of. Where all of these read rows before
//! their own, rows are written from the last to the first; where all read rows behind, from the
//! first to the last: what is read is still old. Each thread walks one range of rows, and has a copy
//! of the rows next to it that it reads and another thread writes.

use std::fmt;
use std::ops::Range;

use insitu_kernels::view::{ColumnView, Layout};

use crate::compile::program::{Line, Program};
use crate::error::{Error, Result};
use crate::exec::run::MORSEL;
use crate::exec::source::{Source, SourceColumn};

/// Rows from its own that a new value may read in place: copies of so many are what each thread may
/// have to keep.
const FARTHEST: usize = MORSEL;

/// How rows have to be walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// From the last row to the first.
    pub(crate) down: bool,
    /// The largest distance between a row and one that it reads.
    reach: usize,
    /// Columns that are written and read in other rows.
    columns: Vec<usize>,
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (order, side) = match self.down {
            true => ("last row to the first", "before"),
            false => ("first row to the last", "behind"),
        };
        write!(f, "from the {order}, since rows up to {} {side} are read", self.reach)
    }
}

impl Walk {
    /// The walk that a program asks for which writes some columns; none if any order will do. As an
    /// error, why there is none.
    pub(crate) fn of(program: &Program, written: &[usize]) -> Result<Option<Walk>, &'static str> {
        let mut columns = Vec::new();
        let (mut back, mut ahead) = (0, 0);
        for cursor in &program.cursors {
            let (Some(shift), Some(column)) = (cursor.shift(), cursor.column()) else { continue };
            let column = column as usize;
            if !written.contains(&column) {
                continue;
            }
            let reach = usize::try_from(shift.unsigned_abs()).unwrap_or(usize::MAX);
            let side = if shift > 0 { &mut back } else { &mut ahead };
            *side = reach.max(*side);
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        match (back, ahead) {
            (0, 0) => Ok(None),
            (reach, 0) | (0, reach) if reach > FARTHEST => {
                Err("columns that change are read too far from each row (more than 65,536 rows)")
            }
            (reach, 0) | (0, reach) => Ok(Some(Walk { down: back > 0, reach, columns })),
            _ => Err("columns that change are read on both sides of each row"),
        }
    }
}

/// The rows of one thread, by morsels, and what it reads beside them.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) morsels: Range<usize>,
    halo: Vec<Saved>,
}

/// Rows of one chunk of a column, copied.
#[derive(Debug)]
struct Saved {
    column: usize,
    chunk: usize,
    /// Its first row within the chunk, a multiple of 64.
    first: usize,
    rows: usize,
    values: Vec<Line>,
    validity: Option<Vec<Line>>,
}

impl Span {
    /// A span of `rows` rows by number, whose morsels are given, with copies of what `walk` reads
    /// beside them.
    pub(crate) fn new(
        walk: &Walk,
        source: &Source<'_>,
        morsels: Range<usize>,
        rows: Range<usize>,
    ) -> Result<Span> {
        let beside = match walk.down {
            true => rows.start.saturating_sub(walk.reach)..rows.start,
            false => rows.end..rows.end.saturating_add(walk.reach).min(source.rows),
        };
        let mut halo = Vec::new();
        for column in &walk.columns {
            let chunks = source.column(*column)?;
            for (chunk, (view, start)) in chunks.chunks.iter().zip(&chunks.starts).enumerate() {
                let first = beside.start.max(*start);
                let end = beside.end.min(start + view.len);
                if first < end {
                    // In whole words of bits.
                    let first = (first - start) / 64 * 64;
                    let end = (end - start).next_multiple_of(64).min(view.len);
                    halo.push(Saved::of(view, *column, chunk, first, end - first)?);
                }
            }
        }
        Ok(Span { morsels, halo })
    }

    /// The source as this span's thread is to see it, of the columns that `program` reads.
    pub(crate) fn source<'s>(
        &'s self,
        source: &Source<'s>,
        program: &Program,
    ) -> Result<Source<'s>> {
        let mut columns = with_room(source.columns.len())?;
        for (index, column) in source.columns.iter().enumerate() {
            columns.push(match program.reads(index) {
                true => self.column(index, column)?,
                false => SourceColumn::default(),
            });
        }
        Ok(Source { columns, offset: source.offset, rows: source.rows, zones: None })
    }

    fn column<'s>(&'s self, index: usize, column: &SourceColumn<'s>) -> Result<SourceColumn<'s>> {
        let pieces = self.halo.iter().filter(|s| s.column == index);
        // Each may leave a part of its chunk on either side.
        let room = column.chunks.len().saturating_add(2 * pieces.clone().count());
        let mut seen = SourceColumn {
            chunks: with_room(room)?,
            starts: with_room(room)?,
            stats: column.stats,
            origin: column.origin,
        };
        let mut saved = pieces.peekable();
        for (chunk, (view, start)) in column.chunks.iter().zip(&column.starts).enumerate() {
            let mut add = |view: ColumnView<'s>, at: usize| {
                seen.chunks.push(view);
                seen.starts.push(start + at);
            };
            // A span has rows on one side only: of a chunk at most one piece is saved.
            let Some(piece) = saved.next_if(|s| s.chunk == chunk) else {
                add(*view, 0);
                continue;
            };
            let end = piece.first + piece.rows;
            if piece.first > 0 {
                add(part(view, 0, piece.first), 0);
            }
            add(piece.view(view), piece.first);
            if end < view.len {
                add(part(view, end, view.len - end), end);
            }
        }
        Ok(seen)
    }
}

/// An empty list with room for so many values.
fn with_room<T>(count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    list.try_reserve_exact(count).map_err(|_| Error::OutOfMemory { bytes })?;
    Ok(list)
}

/// Bytes of `rows` rows of a column that can be written over.
fn bytes(layout: Layout, rows: usize) -> usize {
    match layout {
        Layout::Prim(p) => rows * p.width(),
        _ => rows.div_ceil(8),
    }
}

/// Rows of a chunk, from a multiple of 64 on.
fn part<'a>(view: &ColumnView<'a>, first: usize, rows: usize) -> ColumnView<'a> {
    let (at, len) = (bytes(view.layout, first), bytes(view.layout, rows));
    // SAFETY: the chunk has `first + rows` rows of numbers or bits, and as many bits of validity.
    unsafe {
        let part = ColumnView::new(view.layout, rows, view.values.add(at), len);
        match view.validity.is_null() {
            true => part,
            false => part.with_validity(view.validity.add(first / 8), None),
        }
    }
}

impl Saved {
    fn of(
        view: &ColumnView<'_>,
        column: usize,
        chunk: usize,
        first: usize,
        rows: usize,
    ) -> Result<Saved> {
        let part = part(view, first, rows);
        let copy = |from: *const u8, len: usize| -> Result<Vec<Line>> {
            let mut lines: Vec<Line> = with_room(len.div_ceil(64))?;
            lines.resize(len.div_ceil(64), Line([0; 64]));
            // SAFETY: `len` bytes of the part, and room for them.
            unsafe { lines.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from, len) };
            Ok(lines)
        };
        let values = copy(part.values, part.values_len)?;
        let validity = match part.validity.is_null() {
            true => None,
            false => Some(copy(part.validity, rows.div_ceil(8))?),
        };
        Ok(Saved { column, chunk, first, rows, values, validity })
    }

    /// The copy as a chunk like the one it is of.
    fn view(&self, like: &ColumnView<'_>) -> ColumnView<'_> {
        let len = bytes(like.layout, self.rows);
        // SAFETY: of this layout and so many rows were the copies made.
        unsafe {
            let view = ColumnView::new(like.layout, self.rows, self.values.as_ptr().cast(), len);
            match &self.validity {
                Some(bits) => view.with_validity(bits.as_ptr().cast(), None),
                None => view,
            }
        }
    }
}
