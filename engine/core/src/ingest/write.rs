//! Writes measured columns into their extent: each value once, and every buffer zero from its end
//! to the next multiple of 64.
//!
//! Bitmaps, keys that change and views are written on the way; what only has to be copied is left
//! to `copies`, which makes all of it together.

use std::sync::Arc;

use insitu_kernels::copy::{CopyBitsFn, CopyStatsFn, copy_bits, copy_with_stats, zero_padding};
use insitu_kernels::level::Level;

use super::Piece;
use super::bits::{self, is_valid};
use super::copies::{Bits, Copies, What};
use super::dictionary::Dictionaries;
use super::measure::{Node, Slot, offset_bounds, source};
use super::views::{self, View};
use crate::error::{Error, Result};
use crate::layout::{Column, Kind, Place, shape};
use crate::statistics::{ColumnZones, ZONE_ROWS, physical_type};

/// Buffers from this size on are written past the cache.
const STREAM_FROM: usize = 4 << 20;
/// Bytes that are not worth to be left to `copies`.
const SMALL: usize = 4 << 10;
/// Bytes between two looks at whether to stop.
const STEP: usize = 32 << 20;

/// Writes into one extent.
pub(crate) struct Writer<'a> {
    base: *mut u8,
    offset: u64,
    interrupt: &'a dyn Fn() -> bool,
    since: usize,
    bits: CopyBitsFn,
    level: Level,
}

impl<'a> Writer<'a> {
    /// Writes to `base`, which lies `offset` bytes into the region.
    ///
    /// # Safety
    /// All slots that will be written lie in memory at `base` that is writable, and the writer's
    /// alone.
    pub unsafe fn new(base: *mut u8, offset: u64, interrupt: &'a dyn Fn() -> bool) -> Writer<'a> {
        let level = Level::best();
        Writer { base, offset, interrupt, since: 0, bits: copy_bits(level), level }
    }

    /// Writes the values of all dictionaries.
    pub fn write_dictionaries(&mut self, dictionaries: &mut Dictionaries) -> Result<()> {
        // Values have no dictionaries inside, so an empty walk serves them.
        let types: [&arrow_schema::DataType; 0] = [];
        let mut none =
            Dictionaries::unify(&types, &[], &mut super::measure::Arranger::new(), |error, _| {
                error
            })?;
        for unified in dictionaries.iter_mut() {
            if let Some(node) = unified.node.take() {
                let mut copies = Copies::new();
                let column = self.write(&node, None, &mut none, &mut copies)?;
                self.make(copies, &mut [])?;
                unified.column = Some(Arc::new(column));
            }
        }
        Ok(())
    }

    /// Makes the copies that writing has left.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn make(&self, copies: Copies<'_>, columns: &mut [ColumnZones]) -> Result<()> {
        copies.make(self.level, self.interrupt, columns)
    }

    /// Writes a column and its children, but for what it leaves to `copies`. Of a table's column,
    /// `zones` says which it is, and gets its statistics.
    ///
    /// # Errors
    /// `InvalidData` where the source turns out not to be what was measured; `Cancelled`.
    pub fn write<'n>(
        &mut self,
        node: &'n Node,
        mut zones: Option<(usize, &mut ColumnZones)>,
        dictionaries: &mut Dictionaries,
        copies: &mut Copies<'n>,
    ) -> Result<Column> {
        let shape = shape(&node.dtype)?;
        if let Some((_, zones)) = &mut zones {
            zones.begin_chunk();
        }
        let null_count = self.validity(node)?;
        let unified = if shape.dictionary.is_some() { dictionaries.advance() } else { None };
        let mut children = Vec::with_capacity(shape.children.len());
        let mut counted = false;

        match (shape.buffers.as_slice(), &unified) {
            ([Kind::Fixed(width)], Some(unified)) => {
                let keys = match &node.dtype {
                    arrow_schema::DataType::Dictionary(keys, _) => keys.as_ref(),
                    other => other,
                };
                let values = unified.column.as_ref().map_or(0, |c| c.len);
                let width = *width as usize;
                if unified.remaps.iter().all(Option::is_none) {
                    if let Some(prim) = physical_type(keys) {
                        let copy = copy_with_stats(prim, self.level);
                        self.numbers(node, copy, width, None, copies)?;
                    }
                } else {
                    self.keys(node, width, &unified.remaps, values)?;
                }
                children.extend(unified.column.clone());
            }
            ([Kind::Bits], _) => self.bitmap(node)?,
            ([Kind::Fixed(_)], _) if shape.variadic => self.views(node, copies)?,
            ([Kind::Fixed(width)], _) => {
                let width = *width as usize;
                match physical_type(&node.dtype) {
                    Some(prim) => {
                        counted = zones.is_some();
                        let copy = copy_with_stats(prim, self.level);
                        let column = zones.as_ref().map(|(column, _)| *column);
                        self.numbers(node, copy, width, column, copies)?;
                    }
                    None => self.fixed(node, width, copies)?,
                }
            }
            ([offsets @ (Kind::Offsets32 | Kind::Offsets64), rest @ ..], _) => {
                let bounds = self.offsets(node, *offsets, copies)?;
                if !rest.is_empty() {
                    self.bytes(node, &bounds, copies)?;
                }
            }
            _ => {}
        }
        if let Some((_, zones)) = zones
            && !counted
        {
            // SAFETY: the bitmap was written just now, with a bit for each row.
            unsafe { zones.count_nulls(self.validity_at(node), node.len) };
        }
        let place = |slot: Slot| match slot.len {
            0 => Place::default(),
            len => Place { offset: self.offset + slot.offset as u64, len: len as u64 },
        };
        let (validity, len) = (place(node.validity), node.len as u64);
        let buffers = node.buffers.iter().map(|slot| place(*slot)).collect();
        for child in &node.children {
            children.push(Arc::new(self.write(child, None, dictionaries, copies)?));
        }
        Ok(Column { len, null_count: Some(null_count), validity, buffers, children })
    }

    fn at(&self, slot: Slot) -> *mut u8 {
        self.base.wrapping_add(slot.offset)
    }

    fn validity_at(&self, node: &Node) -> *const u8 {
        if node.validity.len == 0 { std::ptr::null() } else { self.at(node.validity) }
    }

    /// Zeroes what lies between the end of a buffer and the next multiple of 64.
    fn pad(&self, slot: Slot) {
        if slot.len > 0 {
            // SAFETY: slots are handed out padded to 64.
            unsafe { zero_padding(self.at(slot), slot.len) };
        }
    }

    /// # Errors
    /// `Cancelled`, asked every so many bytes.
    fn pace(&mut self, bytes: usize) -> Result<()> {
        self.since = self.since.saturating_add(bytes);
        if self.since >= STEP {
            self.since = 0;
            if (self.interrupt)() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Writes the bitmap. Returns how many rows are null, by the bits that were written.
    fn validity(&mut self, node: &Node) -> Result<u64> {
        if node.validity.len == 0 {
            // Types without a bitmap have no nulls either, but for the type that is all nulls.
            let all = matches!(node.dtype, arrow_schema::DataType::Null);
            return Ok(if all { node.len as u64 } else { 0 });
        }
        let parts = node.pieces.iter().map(|piece| bits::Part {
            from: piece.data.nulls().map(|nulls| nulls.validity()),
            start: piece.data.nulls().map_or(0, |nulls| nulls.offset() + piece.start),
            len: piece.len,
        });
        // SAFETY: the slot has a bit for every row, and is padded to 64 bytes.
        let ones = unsafe {
            bits::write(
                self.at(node.validity),
                &parts.collect::<Vec<_>>(),
                self.bits,
                self.interrupt,
            )
        }?;
        self.pad(node.validity);
        Ok((node.len - ones.min(node.len)) as u64)
    }

    fn bitmap(&mut self, node: &Node) -> Result<()> {
        let Some(slot) = node.buffers.first().copied().filter(|slot| slot.len > 0) else {
            return Ok(());
        };
        let part = |piece| -> Result<bits::Part<'_>> {
            let start = Piece::physical(piece).unwrap_or_default();
            Ok(bits::Part { from: Some(source(piece, 0)?), start, len: piece.len })
        };
        let parts = node.pieces.iter().map(part).collect::<Result<Vec<_>>>()?;
        // SAFETY: as for the validity bitmap.
        unsafe { bits::write(self.at(slot), &parts, self.bits, self.interrupt) }?;
        // The last word is written whole already, zeros past the last row.
        self.pad(slot);
        Ok(())
    }

    /// Numbers, with statistics; null rows are written as zero.
    fn numbers<'n>(
        &mut self,
        node: &'n Node,
        copy: CopyStatsFn,
        width: usize,
        column: Option<usize>,
        copies: &mut Copies<'n>,
    ) -> Result<()> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(()) };
        let streaming = slot.len >= STREAM_FROM;
        let bitmap = self.validity_at(node);
        let mut row = 0;
        for piece in &node.pieces {
            let mut bytes = rows(piece, 0, width)?;
            let mut left = piece.len;
            while left > 0 {
                let rows = left.min(ZONE_ROWS - row % ZONE_ROWS);
                let (run, rest) = bytes.split_at_checked(rows * width).ok_or_else(changed)?;
                let valid = Bits { bitmap, first: row };
                let to = self.at(slot).wrapping_add(row * width);
                // SAFETY: the slot has room for all rows of the node, and each goes there once;
                // the bitmap, written already, covers them.
                unsafe {
                    copies.add(to, run, streaming, What::Numbers { copy, rows, valid, column })
                };
                bytes = rest;
                left -= rows;
                row += rows;
            }
        }
        self.pad(slot);
        Ok(())
    }

    /// Values of one width that are no numbers to the engine.
    fn fixed<'n>(&mut self, node: &'n Node, width: usize, copies: &mut Copies<'n>) -> Result<()> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(()) };
        let mut at = 0;
        for piece in &node.pieces {
            let bytes = rows(piece, 0, width)?;
            at += self.copy(slot, at, bytes, copies)?;
        }
        self.pad(slot);
        Ok(())
    }

    /// Copies bytes into a slot, from byte `at` of it on, or leaves it to `copies`. Returns how
    /// many.
    fn copy<'n>(
        &mut self,
        slot: Slot,
        at: usize,
        bytes: &'n [u8],
        copies: &mut Copies<'n>,
    ) -> Result<usize> {
        if at.checked_add(bytes.len()).is_none_or(|end| end > slot.len) {
            return Err(changed());
        }
        let to = self.at(slot).wrapping_add(at);
        if bytes.len() <= SMALL {
            // SAFETY: the range was checked against the slot; source and extent do not overlap,
            // since nobody else knows of the extent yet.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        } else {
            // SAFETY: as above; a slot's ranges do not overlap, and are read only afterwards.
            unsafe { copies.add(to, bytes, slot.len >= STREAM_FROM, What::Bytes) };
        }
        Ok(bytes.len())
    }

    /// Offsets, rebased to begin at zero. Returns what each piece spans of its data.
    fn offsets<'n>(
        &mut self,
        node: &'n Node,
        kind: Kind,
        copies: &mut Copies<'n>,
    ) -> Result<Vec<(usize, usize)>> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(Vec::new()) };
        let width = if kind == Kind::Offsets64 { 8 } else { 4 };
        let mut bounds = Vec::with_capacity(node.pieces.len());
        let mut row = 0;
        let mut base = 0usize;
        // SAFETY: the slot has an offset more than the node has rows; the first is zero.
        unsafe { self.at(slot).write_bytes(0, width) };
        for piece in &node.pieces {
            let (first, last) = offset_bounds(piece, kind)?;
            bounds.push((first, last));
            // Each is read once: what is written is what `validate` will look at.
            let delta = (base as i64).wrapping_sub(first as i64);
            let what = match kind {
                Kind::Offsets64 => What::Offsets64(delta),
                _ => What::Offsets32(delta as i32),
            };
            if piece.len > 0 {
                let start = piece.physical().and_then(|p| p.checked_add(1)).ok_or_else(changed)?;
                let end = start.checked_add(piece.len).ok_or_else(changed)?;
                let range = start.checked_mul(width).zip(end.checked_mul(width));
                let bytes = range.and_then(|(start, end)| source(piece, 0).ok()?.get(start..end));
                let mut to = self.at(slot).wrapping_add((row + 1) * width);
                for run in bytes.ok_or_else(changed)?.chunks(ZONE_ROWS * width) {
                    // SAFETY: the slot has an offset more than the node has rows, and each of
                    // them is written once.
                    unsafe { copies.add(to, run, false, what) };
                    to = to.wrapping_add(run.len());
                }
            }
            base += last - first;
            row += piece.len;
        }
        self.pad(slot);
        Ok(bounds)
    }

    fn bytes<'n>(
        &mut self,
        node: &'n Node,
        bounds: &[(usize, usize)],
        copies: &mut Copies<'n>,
    ) -> Result<()> {
        let Some(slot) = node.buffers.get(1).copied() else { return Ok(()) };
        let mut at = 0;
        for (piece, (first, last)) in node.pieces.iter().zip(bounds) {
            let bytes = source(piece, 1)?.get(*first..*last).ok_or_else(changed)?;
            at += self.copy(slot, at, bytes, copies)?;
        }
        if at != slot.len {
            return Err(changed());
        }
        self.pad(slot);
        Ok(())
    }

    /// Dictionary keys that mean another dictionary now.
    fn keys(
        &mut self,
        node: &Node,
        width: usize,
        remaps: &[Option<Arc<[u32]>>],
        values: u64,
    ) -> Result<()> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(()) };
        let mut row = 0;
        for piece in &node.pieces {
            let bytes = rows(piece, 0, width)?;
            let remap = remaps.get(piece.batch).and_then(Option::as_deref);
            for (index, key) in bytes.chunks_exact(width).enumerate() {
                let mut wide = [0u8; 8];
                for (to, from) in wide.iter_mut().zip(key) {
                    *to = *from;
                }
                let old = u64::from_le_bytes(wide);
                let valid = is_valid(piece.data.nulls(), piece.start + index);
                let new = match remap {
                    _ if !valid => Some(0),
                    None => Some(old).filter(|key| *key < values),
                    Some(remap) => usize::try_from(old)
                        .ok()
                        .and_then(|old| remap.get(old))
                        .map(|key| u64::from(*key)),
                };
                let new = new.ok_or_else(|| {
                    Error::InvalidData(format!(
                        "row {}: key {old} is not in the dictionary",
                        row + index
                    ))
                })?;
                let to = self.at(slot).wrapping_add((row + index) * width);
                // SAFETY: the slot has `width` bytes for every row.
                unsafe { to.copy_from_nonoverlapping(new.to_le_bytes().as_ptr(), width) };
            }
            row += piece.len;
            self.pace(bytes.len())?;
        }
        self.pad(slot);
        Ok(())
    }

    fn views<'n>(&mut self, node: &'n Node, copies: &mut Copies<'n>) -> Result<()> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(()) };
        let data = node.buffers.get(1..).unwrap_or_default();
        let whole = matches!(node.views, views::Mode::Whole(_));
        // The buffer that is being filled, and how far; or the first buffer of the piece.
        let (mut buffer, mut filled) = (0usize, 0usize);
        let mut row = 0;
        for piece in &node.pieces {
            let bound = data.len();
            views::for_each(piece, |index, view| {
                let view = view.map_or(View::Inline(0), views::parse);
                let new = match (&view, views::bytes(piece, index, &view)?) {
                    (View::Inline(view), _) => *view,
                    (View::Long { len, prefix, buffer: from, offset }, _) if whole => {
                        let to = buffer.checked_add(*from).filter(|to| *to < bound);
                        views::long(*len, *prefix, to.ok_or_else(changed)?, *offset)
                    }
                    (View::Long { len, prefix, buffer: from, .. }, Some((start, end))) => {
                        let bytes = source(piece, from + 1)?.get(start..end).ok_or_else(changed)?;
                        if data.get(buffer).is_none_or(|slot| filled + len > slot.len) {
                            buffer += 1;
                            filled = 0;
                        }
                        let slot = data.get(buffer).copied().ok_or_else(changed)?;
                        self.copy(slot, filled, bytes, copies)?;
                        let new = views::long(*len, *prefix, buffer, filled);
                        filled += len;
                        new
                    }
                    (View::Long { .. }, None) => return Err(changed()),
                };
                let to = self.at(slot).wrapping_add((row + index) * 16);
                // SAFETY: the slot has 16 bytes for every row.
                unsafe { to.copy_from_nonoverlapping(new.to_le_bytes().as_ptr(), 16) };
                Ok(())
            })?;
            if whole {
                for from in piece.data.buffers().iter().skip(1) {
                    let slot = data.get(buffer).copied().ok_or_else(changed)?;
                    self.copy(slot, 0, from.as_slice(), copies)?;
                    buffer += 1;
                }
            }
            row += piece.len;
            self.pace(piece.len * 16)?;
        }
        self.pad(slot);
        for slot in data {
            self.pad(*slot);
        }
        Ok(())
    }
}

/// The bytes of a piece's rows.
fn rows(piece: &Piece, index: usize, width: usize) -> Result<&[u8]> {
    let start = piece.physical().and_then(|p| p.checked_mul(width)).ok_or_else(changed)?;
    let end = piece.len.checked_mul(width).and_then(|len| start.checked_add(len));
    if piece.len == 0 {
        return Ok(&[]);
    }
    source(piece, index)?.get(start..end.ok_or_else(changed)?).ok_or_else(changed)
}

fn changed() -> Error {
    Error::InvalidData("the source changed while it was being copied".into())
}
