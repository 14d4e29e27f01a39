//! What a stage reads: columns in chunks, and the range of rows that slices left of them.

use insitu_kernels::view::{ColumnView, Layout};

use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::memory::NewColumn;
use crate::schema::Field;
use crate::table::{ColumnStats, TableView, ZoneView};

/// One column: its chunks, and the row each starts at.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceColumn<'a> {
    pub(crate) chunks: Vec<ColumnView<'a>>,
    pub(crate) starts: Vec<usize>,
    pub(crate) stats: Option<ColumnStats>,
    /// The source table's column that this is, as a whole.
    pub(crate) origin: Option<usize>,
}

impl<'a> SourceColumn<'a> {
    /// The chunk that holds a row, and the row within; chunks are tried from `hint` on.
    #[inline]
    pub(crate) fn locate(&self, row: usize, hint: &mut usize) -> Option<(&ColumnView<'a>, usize)> {
        let fits = |i: usize| {
            let (chunk, start) = (self.chunks.get(i)?, *self.starts.get(i)?);
            (row >= start && row - start < chunk.len).then(|| (chunk, row - start))
        };
        if let Some(found) = fits(*hint) {
            return Some(found);
        }
        if let Some(found) = fits(*hint + 1) {
            *hint += 1;
            return Some(found);
        }
        let i = self.starts.partition_point(|s| *s <= row);
        // Empty chunks start where the next one does: the last that starts at or before the row
        // holds it.
        *hint = i.checked_sub(1)?;
        fits(*hint)
    }

    /// The pieces of a range of rows: (chunk, first row within, rows), in order.
    pub(crate) fn pieces(
        &self,
        row: usize,
        rows: usize,
    ) -> impl Iterator<Item = (&ColumnView<'a>, usize, usize)> {
        self.pieces_near(row, rows, 0)
    }

    /// [`SourceColumn::pieces`] of which the first is likely in chunk `hint`, or behind it.
    pub(crate) fn pieces_near(
        &self,
        row: usize,
        rows: usize,
        hint: usize,
    ) -> impl Iterator<Item = (&ColumnView<'a>, usize, usize)> {
        let (mut at, end, mut hint) = (row, row + rows, hint);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (chunk, local) = self.locate(at, &mut hint)?;
            let n = (chunk.len - local).min(end - at);
            at += n;
            Some((chunk, local, n))
        })
    }
}

/// The columns of a stage's input; unused ones are empty.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    pub(crate) columns: Vec<SourceColumn<'a>>,
    /// The first row, after slicing.
    pub(crate) offset: usize,
    /// Rows, after slicing.
    pub(crate) rows: usize,
    /// What is known of the zones of the columns' chunks, where these are a table's.
    pub(crate) zones: Option<ZoneView<'a>>,
}

impl<'a> Source<'a> {
    /// The columns of a table.
    pub(crate) fn of_table(table: &TableView<'a>) -> Result<Source<'a>> {
        let mut columns: Vec<SourceColumn<'a>> = Vec::with_capacity(table.schema.len());
        for (i, field) in table.schema.fields().iter().enumerate() {
            let mut column = SourceColumn {
                chunks: Vec::with_capacity(table.chunks.len()),
                starts: Vec::with_capacity(table.chunks.len()),
                stats: table.stats.as_ref().and_then(|s| s.get(i)).copied(),
                origin: Some(i),
            };
            let mut start = 0;
            for chunk in &table.chunks {
                let Some(view) = chunk.get(i) else { continue };
                check_layout(field, view)?;
                column.chunks.push(*view);
                column.starts.push(start);
                start += view.len;
            }
            columns.push(column);
        }
        Ok(Source { columns, offset: 0, rows: table.rows, zones: table.zones })
    }

    /// Applies a slice to the rows that are left.
    pub(crate) fn slice(&mut self, offset: i64, len: Option<u64>) {
        let skip = if offset >= 0 {
            usize::try_from(offset).unwrap_or(usize::MAX).min(self.rows)
        } else {
            let back = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            // A slice that starts before the first row loses those rows of its length.
            let missing = back.saturating_sub(self.rows);
            let len = len.map(|n| n.saturating_sub(missing as u64));
            let skip = self.rows - back.min(self.rows);
            self.offset += skip;
            self.rows -= skip;
            if let Some(n) = len {
                self.rows = self.rows.min(usize::try_from(n).unwrap_or(usize::MAX));
            }
            return;
        };
        self.offset += skip;
        self.rows -= skip;
        if let Some(n) = len {
            self.rows = self.rows.min(usize::try_from(n).unwrap_or(usize::MAX));
        }
    }

    pub(crate) fn column(&self, i: usize) -> Result<&SourceColumn<'a>> {
        self.columns.get(i).ok_or_else(|| Error::ShapeMismatch("a column is missing".into()))
    }
}

/// The layout that the loops expect of a type.
pub(crate) fn layout_of(dtype: &DataType) -> Layout {
    match dtype {
        DataType::Bool => Layout::Bool,
        DataType::Utf8 => Layout::Utf8,
        DataType::LargeUtf8 => Layout::LargeUtf8,
        DataType::Utf8View => Layout::Utf8View,
        _ => dtype.prim().map_or(Layout::Opaque, Layout::Prim),
    }
}

/// A view must hold what its type says, in full length: the loops rely on it.
fn check_layout(field: &Field, view: &ColumnView<'_>) -> Result<()> {
    let expected = layout_of(&field.dtype);
    let (fits, bytes) = match (expected, view.layout) {
        (Layout::Opaque, _) => (true, 0),
        (Layout::Prim(p), Layout::Prim(q)) => {
            // Signed and unsigned views of one width are the same bits.
            (
                p.width() == q.width() && p.is_float() == q.is_float(),
                view.len.saturating_mul(p.width()),
            )
        }
        (Layout::Utf8View, Layout::Utf8View) => (true, view.len.saturating_mul(16)),
        (Layout::Bool, Layout::Bool) => (true, view.len.div_ceil(8)),
        (Layout::Utf8, Layout::Utf8) | (Layout::LargeUtf8, Layout::LargeUtf8) => {
            (view.len == 0 || !view.offsets.is_null(), 0)
        }
        _ => (false, 0),
    };
    if !fits || view.values_len < bytes {
        return Err(Error::InvalidData(format!(
            "column {:?}: its buffers ({:?}, {} bytes) do not hold {} rows of {}",
            field.name, view.layout, view.values_len, view.len, field.dtype
        )));
    }
    Ok(())
}

/// A view of a column that a stage wrote.
///
/// # Safety
/// The spans stay allocated for `'a`, and `variadic` are the column's.
pub(crate) unsafe fn view_of<'a>(
    dtype: &DataType,
    rows: usize,
    column: &NewColumn,
    variadic: &'a [(*const u8, usize)],
) -> ColumnView<'a> {
    static EMPTY: [u64; 8] = [0; 8];
    let (values, len) = match column.values {
        Some(s) => (s.ptr.as_ptr().cast_const(), s.len),
        None => (EMPTY.as_ptr().cast(), 0),
    };
    // SAFETY: a stage writes `rows` rows of the type, with offsets and validity of that length, and
    // zeroes the tails; the caller keeps the memory.
    unsafe {
        let mut view = ColumnView::new(layout_of(dtype), rows, values, len);
        if let Some(v) = column.validity {
            view = view.with_validity(v.ptr.as_ptr(), Some(column.null_count));
        }
        if let Some(o) = column.offsets {
            view = view.with_offsets(o.ptr.as_ptr());
        }
        view.with_variadic(variadic).with_padding()
    }
}
