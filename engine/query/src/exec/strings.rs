//! Copying the rows of a string column that a filter or a slice kept, or all of them with some set
//! to others, or moved along: lengths are counted per morsel first, then each morsel writes its bytes where the
//! ones before it end.

use std::sync::OnceLock;

use insitu_kernels::compact::compact_bits;
use insitu_kernels::copy::copy_bits;
use insitu_kernels::take::{Index, TakeDst, TakeSizes, take, take_sizes};
use insitu_kernels::tile::{TILE_MAX, fill_bits};
use insitu_kernels::view::{ColumnView, Layout};

use crate::compile::graph::Repr;
use crate::compile::lower::{SetRows, Text};
use crate::compile::windows::ShiftedText;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::output::{Buffer, finish_validity};
use crate::exec::run::{Job, MORSEL, lost};
use crate::exec::sort::take_error;
use crate::exec::source::SourceColumn;
use crate::exec::tile::Failed;
use crate::memory::{Heap, Memory, NewColumn};

/// Which rows are copied.
#[derive(Clone, Copy)]
pub(crate) enum Chosen<'a> {
    /// All that slices left.
    All,
    /// Those whose bit is set; `starts` has the first result row of each morsel.
    Bits { bitmap: Buffer, starts: &'a [usize], total: usize },
    /// All, but those whose bit is set are other rows.
    Set { bitmap: Buffer, to: Others },
    /// The one so many rows before, of as many rows; where there is none, another row.
    Shifted { by: i64, rows: usize, to: Others },
}

/// Rows behind the column's own, in chunks that were added to it.
#[derive(Clone, Copy)]
pub(crate) enum Others {
    /// This one.
    One(u64),
    /// One for each, of which the first is this.
    Each(u64),
    /// None: nulls.
    Null,
}

impl Others {
    fn of(self, row: u64) -> u64 {
        match self {
            Others::One(at) => at,
            Others::Each(first) => first + row,
            Others::Null => u64::NULL,
        }
    }
}

impl Chosen<'_> {
    /// The numbers of a morsel's chosen rows in the column.
    fn rows(&self, offset: usize, start: usize, n: usize) -> Vec<u64> {
        match self {
            Chosen::All => (start..start + n).map(|r| (r + offset) as u64).collect(),
            Chosen::Shifted { by, rows, to } => (start..start + n)
                .map(|row| {
                    let from = usize::try_from(row as i128 - i128::from(*by)).ok();
                    match from.filter(|from| from < rows) {
                        Some(from) => (from + offset) as u64,
                        None => to.of(row as u64),
                    }
                })
                .collect(),
            Chosen::Set { bitmap, to } => {
                let mut out = Vec::with_capacity(n);
                for w in 0..n.div_ceil(64) {
                    let at = (bitmap.base() + start / 8 + w * 8) as *const u64;
                    // SAFETY: the bitmap has whole words for all rows; morsels start at words.
                    let word = unsafe { at.read_unaligned() };
                    out.extend((0..(n - w * 64).min(64)).map(|k| {
                        let row = (start + w * 64 + k + offset) as u64;
                        if word >> k & 1 == 1 { to.of(row) } else { row }
                    }));
                }
                out
            }
            Chosen::Bits { bitmap, .. } => {
                let mut out = Vec::new();
                for w in 0..n.div_ceil(64) {
                    let at = (bitmap.base() + start / 8 + w * 8) as *const u64;
                    // SAFETY: the bitmap has whole words for all rows; morsels start at words.
                    let mut word = unsafe { at.read_unaligned() };
                    while word != 0 {
                        let row = start + w * 64 + word.trailing_zeros() as usize;
                        out.push((row + offset) as u64);
                        word &= word - 1;
                    }
                }
                out
            }
        }
    }
}

/// An input column of strings, with the rows set whose bit is.
pub(crate) fn set(
    job: &Job<'_, '_>,
    set: &SetRows,
    dtype: &DataType,
    bitmap: Buffer,
) -> Result<NewColumn> {
    let mut column = job.source.column(set.column as usize)?.clone();
    let to = others(job, &mut column, &set.to, dtype)?;
    copy(job, &column, dtype, Chosen::Set { bitmap, to })
}

/// An input column of strings, moved along its rows.
pub(crate) fn shift(
    job: &Job<'_, '_>,
    shifted: &ShiftedText,
    dtype: &DataType,
) -> Result<NewColumn> {
    let mut column = job.source.column(shifted.column as usize)?.clone();
    let to = others(job, &mut column, &shifted.fill, dtype)?;
    let rows = job.source.rows;
    copy(job, &column, dtype, Chosen::Shifted { by: shifted.by, rows, to })
}

/// Puts the strings that stand for a column's own behind these.
fn others<'a>(
    job: &Job<'a, 'a>,
    column: &mut SourceColumn<'a>,
    to: &'a Text,
    dtype: &DataType,
) -> Result<Others> {
    let own: usize = column.chunks.iter().map(|chunk| chunk.len).sum();
    Ok(match to {
        Text::Null => Others::Null,
        Text::Column(other) => {
            column.chunks.extend(&job.source.column(*other as usize)?.chunks);
            Others::Each(own as u64)
        }
        Text::Literal(text) => {
            column.chunks.push(one(text, dtype, job.run.heap)?);
            Others::One(own as u64)
        }
    })
}

/// A column of one string.
fn one<'a>(text: &'a str, dtype: &DataType, heap: &'a Heap) -> Result<ColumnView<'a>> {
    let (bytes, len) = (text.as_ptr(), text.len());
    let short = i32::try_from(len).map_err(|_| {
        Error::LimitExceeded(format!("a string of {len} bytes does not fit a column of {dtype}"))
    });
    // Two offsets, or a view.
    let words = heap.allocate(16)?.cast::<[u64; 2]>();
    // SAFETY: the heap lends sixteen bytes, and aligns them; text and heap live as long as the view.
    unsafe {
        Ok(match dtype {
            DataType::Utf8View => {
                let mut view = [0; 16];
                let (head, tail) = view.split_at_mut(4);
                head.copy_from_slice(&short?.to_le_bytes());
                let inside = tail.len().min(if len <= tail.len() { len } else { 4 });
                for (to, from) in tail.iter_mut().zip(text.as_bytes().iter().take(inside)) {
                    *to = *from;
                }
                words.cast::<[u8; 16]>().write(view);
                let data = heap.allocate(size_of::<(*const u8, usize)>())?;
                let data = data.cast::<(*const u8, usize)>();
                data.write((bytes, len));
                let data = std::slice::from_raw_parts(data.as_ptr(), 1);
                ColumnView::new(Layout::Utf8View, 1, words.as_ptr().cast(), 16).with_variadic(data)
            }
            DataType::LargeUtf8 => {
                words.write([0, (len as u64).to_le()]);
                ColumnView::new(Layout::LargeUtf8, 1, bytes, len)
                    .with_offsets(words.as_ptr().cast())
            }
            _ => {
                words.cast::<[i32; 2]>().write([0, short?.to_le()]);
                ColumnView::new(Layout::Utf8, 1, bytes, len).with_offsets(words.as_ptr().cast())
            }
        })
    }
}

pub(crate) fn copy(
    job: &Job<'_, '_>,
    column: &SourceColumn<'_>,
    dtype: &DataType,
    chosen: Chosen<'_>,
) -> Result<NewColumn> {
    let (rows, offset) = (job.source.rows, job.source.offset);
    let level = job.compiled.main.level;
    let total = match chosen {
        Chosen::All | Chosen::Set { .. } | Chosen::Shifted { .. } => rows,
        Chosen::Bits { total, .. } => total,
    };
    let null = matches!(
        chosen,
        Chosen::Set { to: Others::Null, .. } | Chosen::Shifted { to: Others::Null, .. }
    );
    let fail = |row: usize, e| Failed::at(row, take_error("of strings", e));
    let morsels = rows.div_ceil(MORSEL);
    let parts: Vec<OnceLock<TakeSizes>> = (0..morsels).map(|_| OnceLock::new()).collect();
    job.run.morsels(rows, 2.0, &|m, start, n| {
        let chosen = chosen.rows(offset, start, n);
        let sizes = take_sizes(&column.chunks, &chosen, null).map_err(|e| fail(start, e))?;
        if let Some(p) = parts.get(m) {
            let _ = p.set(sizes);
        }
        Ok(())
    })?;
    let parts: Option<Vec<TakeSizes>> = parts.into_iter().map(OnceLock::into_inner).collect();
    let parts = parts.ok_or_else(lost)?;
    let view = *dtype == DataType::Utf8View;
    let mut bytes = 0usize;
    let bases: Vec<usize> = parts
        .iter()
        .map(|p| {
            let base = bytes;
            bytes = bytes.saturating_add(if view { p.data } else { p.values });
            base
        })
        .collect();
    if bytes > i32::MAX as usize && *dtype != DataType::LargeUtf8 {
        return Err(Error::LimitExceeded(format!(
            "{bytes} bytes of strings do not fit the 32-bit offsets of {dtype}; store the column as large_utf8"
        )));
    }
    let width = if *dtype == DataType::LargeUtf8 { 8 } else { 4 };
    let data = Buffer::new(job.memory, bytes)?;
    let (views, offsets) = if view {
        (Some(Buffer::new(job.memory, total * 16)?), None)
    } else {
        (None, Some(Buffer::new(job.memory, (total + 1) * width)?.zeroed()))
    };
    let has_nulls = null || column.chunks.iter().any(|c| !c.validity.is_null());
    let validity =
        if has_nulls { Some(Buffer::of(job.memory, Repr::Bits, total)?.zeroed()) } else { None };
    let bits = compact_bits(level);
    job.run.morsels(rows, 4.0, &|m, start, n| {
        let (Some(sizes), Some(base)) = (parts.get(m), bases.get(m)) else { return Ok(()) };
        let to = match chosen {
            Chosen::All | Chosen::Set { .. } | Chosen::Shifted { .. } => start,
            Chosen::Bits { starts, .. } => {
                starts.get(m).copied().ok_or_else(|| Failed::at(start, lost()))?
            }
        };
        let chosen_rows = chosen.rows(offset, start, n);
        // The offsets of a morsel end with the first of the next: each goes through its own.
        let mut own = vec![0u64; (chosen_rows.len() + 1) * width / 8 + 1];
        let at = |b: &Option<Buffer>, skip: usize| b.map_or(0, |b| b.base() + skip) as *mut u8;
        // All rows of a morsel are whole words of the bitmap.
        let set = matches!(chosen, Chosen::Set { .. } | Chosen::Shifted { .. });
        let own_bits = if set { at(&validity, start / 8) } else { std::ptr::null_mut() };
        let dst = TakeDst {
            values: if view { at(&views, to * 16) } else { (data.base() + base) as *mut u8 },
            offsets: own.as_mut_ptr().cast(),
            data: (data.base() + base) as *mut u8,
            validity: own_bits,
            base: *base,
        };
        // SAFETY: the sizes are those of the same rows; the bytes of this morsel end where the
        // next one's begin, and views are disjoint, as are whole words of bits.
        unsafe { take(&column.chunks, &chosen_rows, null, sizes, &dst) }
            .map_err(|e| fail(start, e))?;
        if !own_bits.is_null() && sizes.validity == 0 {
            // SAFETY: as above; the buffer has whole words for all rows.
            unsafe { fill_bits(own_bits, true, n) };
        }
        if let Some(offsets) = offsets {
            let last = usize::from(to + chosen_rows.len() == total);
            if !chosen_rows.is_empty() {
                // SAFETY: the morsel's own offsets; who has the last row writes the end of it, too.
                unsafe {
                    (offsets.ptr.as_ptr().add(to * width)).copy_from_nonoverlapping(
                        own.as_ptr().cast(),
                        (chosen_rows.len() + last) * width,
                    );
                }
            }
        }
        if let Some(validity) = validity.filter(|_| !set) {
            let mut at = start;
            let mut to = to;
            while at < start + n {
                let tile = TILE_MAX.min(start + n - at);
                let mut valid = [0u64; TILE_MAX / 64];
                let mut mask = [0u64; TILE_MAX / 64];
                let mut done = 0;
                for (chunk, local, count) in column.pieces(at + offset, tile) {
                    let mut piece = [0u64; TILE_MAX / 64];
                    // SAFETY: the rows are in the chunk, the pieces hold a tile's bits.
                    unsafe {
                        let p = piece.as_mut_ptr().cast::<u8>();
                        if chunk.validity.is_null() {
                            fill_bits(p, true, count);
                        } else {
                            copy_bits(level)(p, chunk.validity, local, count);
                        }
                        for (w, word) in piece.iter().enumerate().take(count.div_ceil(64)) {
                            let n = (count - w * 64).min(64);
                            insitu_kernels::tile::store_bits(
                                valid.as_mut_ptr().cast(),
                                done + w * 64,
                                *word,
                                n,
                            );
                        }
                    }
                    done += count;
                }
                // SAFETY: the arrays hold a tile's bits; the bitmap was zeroed, and others write
                // it through the same kernel only.
                unsafe {
                    match chosen {
                        Chosen::All | Chosen::Shifted { .. } => {
                            fill_bits(mask.as_mut_ptr().cast(), true, tile);
                        }
                        Chosen::Set { bitmap, .. } | Chosen::Bits { bitmap, .. } => {
                            mask.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(
                                (bitmap.base() + at / 8) as *const u8,
                                tile.div_ceil(64) * 8,
                            );
                        }
                    }
                    to += bits(
                        validity.base() as *mut u64,
                        to,
                        valid.as_ptr().cast(),
                        mask.as_ptr().cast(),
                        tile,
                    );
                }
                at += tile;
            }
        }
        Ok(())
    })?;
    let (validity, null_count) = finish_validity(validity, total, level);
    let data = data.finish();
    Ok(match (views, offsets) {
        (Some(views), _) => NewColumn {
            null_count,
            validity,
            values: Some(views.finish()),
            offsets: None,
            variadic: if bytes > 0 { vec![data] } else { Vec::new() },
        },
        (None, offsets) => NewColumn {
            null_count,
            validity,
            values: Some(data),
            offsets: offsets.map(Buffer::finish),
            variadic: Vec::new(),
        },
    })
}
