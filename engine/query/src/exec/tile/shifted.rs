//! Where a tile's operands are that come from other rows than its own.

use insitu_kernels::tile::store_bits;

use super::{Failed, Worker, too_short};
use crate::compile::program::Cursor;

impl Worker<'_> {
    /// The tile of a cursor that reads other rows than the tile's own; none if it does not. Beyond
    /// the ends of the source there are zeros.
    pub(super) fn seek_shifted(
        &mut self,
        c: usize,
        row: usize,
        rows: usize,
    ) -> Result<Option<*const u8>, Failed> {
        let source = self.frame.source;
        let Some(cursor) = self.frame.program.cursors.get(c).copied() else { return Ok(None) };
        let Some(shift) = cursor.shift() else { return Ok(None) };
        // Of the tile's rows those that have a source row `shift` before them: first..end.
        let (at, shift) = (row as i128, i128::from(shift));
        let within = |i: i128| i.clamp(0, rows as i128) as usize;
        let first = within(shift - at);
        let end = within(source.rows as i128 + shift - at).max(first);
        let from = (source.offset as i128 + at + first as i128 - shift).max(0) as usize;
        let width = match cursor {
            Cursor::ShiftedNumbers(_, prim, _) => prim.width(),
            _ => 0,
        };
        if cursor.column().is_some() {
            let (_, column) = self.cursor(c, row)?;
            let mut nowhere = 0;
            let hint = self.room.reaches.get_mut(c).map_or(&mut nowhere, |reach| &mut reach.chunk);
            if width > 0
                && end - first == rows
                && let Some((chunk, local)) = column.locate(from, hint)
                && chunk.len - local >= rows
            {
                // SAFETY: the chunk was checked to hold its rows, and these are within it.
                return Ok(Some(unsafe { chunk.values.add(local * width) }));
            }
        }
        let stage = self.stage_of(c);
        let bytes = if width > 0 { rows * width } else { rows.div_ceil(64) * 8 };
        // SAFETY: the staging holds a tile.
        unsafe { stage.write_bytes(0, bytes) };
        if cursor.column().is_none() {
            // SAFETY: the bits are within the tile's.
            (first..end).step_by(64).for_each(|i| unsafe {
                store_bits(stage, i, !0, (end - i).min(64));
            });
            return Ok(Some(stage));
        }
        let (_, column) = self.cursor(c, row)?;
        let mut done = first;
        let hint = self.room.reaches.get(c).map_or(0, |reach| reach.chunk);
        for (chunk, local, n) in column.pieces_near(from, end - first, hint) {
            // SAFETY: n rows of the chunk from `local` on, and n of the tile's rows from `done` on.
            unsafe { self.put(cursor, width, chunk, local, n, stage, done) };
            done += n;
        }
        if done < end { Err(too_short(row)) } else { Ok(Some(stage)) }
    }
}
