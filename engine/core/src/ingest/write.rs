//! Writes measured columns into their extent: each value once, with statistics on the way, and
//! every buffer zero from its end to the next multiple of 64.

use std::sync::Arc;

use insitu_kernels::copy::{CopyBitsFn, CopyStatsFn, StreamCopyFn};
use insitu_kernels::copy::{copy_bits, copy_with_stats, stream_copy, zero_padding};
use insitu_kernels::level::Level;

use super::Piece;
use super::bits::{BitWriter, is_valid};
use super::dictionary::Dictionaries;
use super::measure::{Node, Slot, offset_bounds, source};
use super::views::{self, View};
use crate::error::{Error, Result};
use crate::layout::{Column, Kind, Place, shape};
use crate::statistics::{ColumnZones, ZONE_ROWS, physical_type};

/// Buffers from this size on are written past the cache.
const STREAM_FROM: usize = 4 << 20;
/// Bytes between two looks at whether to stop.
const STEP: usize = 32 << 20;

/// Writes into one extent.
pub(crate) struct Writer<'a> {
    base: *mut u8,
    offset: u64,
    interrupt: &'a dyn Fn() -> bool,
    since: usize,
    stream: StreamCopyFn,
    bits: CopyBitsFn,
    level: Level,
    /// Validity of a run that begins inside a byte.
    shifted: Vec<u64>,
}

impl<'a> Writer<'a> {
    /// Writes to `base`, which lies `offset` bytes into the region.
    ///
    /// # Safety
    /// All slots that will be written lie in memory at `base` that is writable, and the writer's
    /// alone.
    pub unsafe fn new(base: *mut u8, offset: u64, interrupt: &'a dyn Fn() -> bool) -> Writer<'a> {
        let level = Level::best();
        Writer {
            base,
            offset,
            interrupt,
            since: 0,
            stream: stream_copy(level),
            bits: copy_bits(level),
            level,
            shifted: Vec::new(),
        }
    }

    /// Writes the values of all dictionaries.
    pub fn write_dictionaries(&mut self, dictionaries: &mut Dictionaries) -> Result<()> {
        // Values have no dictionaries inside, so an empty walk serves them.
        let types: [&arrow::datatypes::DataType; 0] = [];
        let mut none =
            Dictionaries::unify(&types, &[], &mut super::measure::Arranger::new(), |error, _| {
                error
            })?;
        for unified in dictionaries.iter_mut() {
            if let Some(node) = unified.node.take() {
                unified.column = Some(Arc::new(self.write(node, None, &mut none)?));
            }
        }
        Ok(())
    }

    /// Writes a column and its children.
    ///
    /// # Errors
    /// `InvalidData` where the source turns out not to be what was measured; `Cancelled`.
    pub fn write(
        &mut self,
        node: Node,
        mut zones: Option<&mut ColumnZones>,
        dictionaries: &mut Dictionaries,
    ) -> Result<Column> {
        let shape = shape(&node.dtype)?;
        if let Some(zones) = zones.as_deref_mut() {
            zones.begin_chunk();
        }
        let null_count = self.validity(&node);
        let unified = if shape.dictionary.is_some() { dictionaries.advance() } else { None };
        let mut children = Vec::with_capacity(shape.children.len());
        let mut counted = false;

        match (shape.buffers.as_slice(), &unified) {
            ([Kind::Fixed(width)], Some(unified)) => {
                let keys = match &node.dtype {
                    arrow::datatypes::DataType::Dictionary(keys, _) => keys.as_ref(),
                    other => other,
                };
                let values = unified.column.as_ref().map_or(0, |c| c.len);
                let width = *width as usize;
                if unified.remaps.iter().all(Option::is_none) {
                    if let Some(prim) = physical_type(keys) {
                        self.numbers(&node, copy_with_stats(prim, self.level), width, None)?;
                    }
                } else {
                    self.keys(&node, width, &unified.remaps, values)?;
                }
                children.extend(unified.column.clone());
            }
            ([Kind::Bits], _) => self.bitmap(&node)?,
            ([Kind::Fixed(_)], _) if shape.variadic => self.views(&node)?,
            ([Kind::Fixed(width)], _) => {
                let width = *width as usize;
                match physical_type(&node.dtype) {
                    Some(prim) => {
                        counted = zones.is_some();
                        let copy = copy_with_stats(prim, self.level);
                        self.numbers(&node, copy, width, zones.as_deref_mut())?;
                    }
                    None => self.fixed(&node, width)?,
                }
            }
            ([offsets @ (Kind::Offsets32 | Kind::Offsets64), rest @ ..], _) => {
                let bounds = self.offsets(&node, *offsets)?;
                if !rest.is_empty() {
                    self.bytes(&node, &bounds)?;
                }
            }
            _ => {}
        }
        if let Some(zones) = zones
            && !counted
        {
            // SAFETY: the bitmap was written just now, with a bit for each row.
            unsafe { zones.count_nulls(self.validity_at(&node), node.len) };
        }
        let place = |slot: Slot| match slot.len {
            0 => Place::default(),
            len => Place { offset: self.offset + slot.offset as u64, len: len as u64 },
        };
        let (validity, len) = (place(node.validity), node.len as u64);
        let buffers = node.buffers.iter().map(|slot| place(*slot)).collect();
        for child in node.children {
            children.push(Arc::new(self.write(child, None, dictionaries)?));
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
    fn validity(&mut self, node: &Node) -> u64 {
        if node.validity.len == 0 {
            // Types without a bitmap have no nulls either, but for the type that is all nulls.
            let all = matches!(node.dtype, arrow::datatypes::DataType::Null);
            return if all { node.len as u64 } else { 0 };
        }
        // SAFETY: the slot has a bit for every row, and is padded to 64 bytes.
        let mut writer = unsafe { BitWriter::new(self.at(node.validity)) };
        for piece in &node.pieces {
            match piece.data.nulls() {
                None => writer.ones(piece.len),
                Some(nulls) => {
                    writer.copy(nulls.validity(), nulls.offset() + piece.start, piece.len);
                }
            }
        }
        let (ones, _) = writer.finish();
        self.pad_words(node.validity);
        (node.len - ones.min(node.len)) as u64
    }

    /// As `pad`, for bitmaps: their last word is written whole already, zeros past the last row.
    fn pad_words(&self, slot: Slot) {
        self.pad(Slot { offset: slot.offset, len: slot.len });
    }

    fn bitmap(&mut self, node: &Node) -> Result<()> {
        let Some(slot) = node.buffers.first().copied().filter(|slot| slot.len > 0) else {
            return Ok(());
        };
        // SAFETY: as for the validity bitmap.
        let mut writer = unsafe { BitWriter::new(self.at(slot)) };
        for piece in &node.pieces {
            let start = piece.physical().unwrap_or_default();
            writer.copy(source(piece, 0)?, start, piece.len);
            self.pace(piece.len / 8)?;
        }
        writer.finish();
        self.pad_words(slot);
        Ok(())
    }

    /// Numbers, with statistics; null rows are written as zero.
    fn numbers(
        &mut self,
        node: &Node,
        copy: CopyStatsFn,
        width: usize,
        mut zones: Option<&mut ColumnZones>,
    ) -> Result<()> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(()) };
        let streaming = slot.len >= STREAM_FROM;
        let mut row = 0;
        for piece in &node.pieces {
            let bytes = rows(piece, 0, width)?;
            let mut done = 0;
            while done < piece.len {
                let count = (piece.len - done).min(ZONE_ROWS - row % ZONE_ROWS);
                let validity = self.validity_of(node, row, count);
                let from = bytes.as_ptr().wrapping_add(done * width);
                let to = self.at(slot).wrapping_add(row * width);
                // SAFETY: `rows` gave piece.len × width bytes, of which this run is part; the
                // slot has room for all rows of the node; the bitmap covers the run.
                let stats = unsafe { copy(to, from, validity, count, streaming && count > 1024) };
                if let Some(zones) = zones.as_deref_mut() {
                    zones.add(&stats);
                }
                self.pace(count * width)?;
                done += count;
                row += count;
            }
        }
        self.pad(slot);
        Ok(())
    }

    /// The validity of a run of rows, as a bitmap that begins with its first row.
    fn validity_of(&mut self, node: &Node, row: usize, count: usize) -> *const u8 {
        let bitmap = self.validity_at(node);
        if bitmap.is_null() || row.is_multiple_of(8) {
            return if bitmap.is_null() { bitmap } else { bitmap.wrapping_add(row / 8) };
        }
        self.shifted.resize(count.div_ceil(64), 0);
        // SAFETY: the bitmap covers rows to `row + count`; the words hold `count` bits.
        unsafe { (self.bits)(self.shifted.as_mut_ptr().cast(), bitmap, row, count) };
        self.shifted.as_ptr().cast()
    }

    /// Values of one width that are no numbers to the engine.
    fn fixed(&mut self, node: &Node, width: usize) -> Result<()> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(()) };
        let mut at = 0;
        for piece in &node.pieces {
            let bytes = rows(piece, 0, width)?;
            at += self.copy(slot, at, bytes)?;
        }
        self.pad(slot);
        Ok(())
    }

    /// Copies bytes into a slot, from byte `at` of it on. Returns how many.
    fn copy(&mut self, slot: Slot, at: usize, bytes: &[u8]) -> Result<usize> {
        if at.checked_add(bytes.len()).is_none_or(|end| end > slot.len) {
            return Err(changed());
        }
        let streaming = slot.len >= STREAM_FROM;
        let mut to = at;
        for step in bytes.chunks(STEP) {
            let to_ptr = self.at(slot).wrapping_add(to);
            // SAFETY: the range was checked against the slot; source and extent do not overlap,
            // since nobody else knows of the extent yet.
            unsafe {
                if streaming {
                    (self.stream)(to_ptr, step.as_ptr(), step.len());
                } else {
                    to_ptr.copy_from_nonoverlapping(step.as_ptr(), step.len());
                }
            }
            to += step.len();
            self.pace(step.len())?;
        }
        Ok(bytes.len())
    }

    /// Offsets, rebased to begin at zero. Returns what each piece spans of its data.
    fn offsets(&mut self, node: &Node, kind: Kind) -> Result<Vec<(usize, usize)>> {
        let Some(slot) = node.buffers.first().copied() else { return Ok(Vec::new()) };
        let width = if kind == Kind::Offsets64 { 8 } else { 4 };
        let mut bounds = Vec::with_capacity(node.pieces.len());
        let mut row = 0;
        let mut base = 0usize;
        self.store_offset(slot, width, 0, 0);
        for piece in &node.pieces {
            let (first, last) = offset_bounds(piece, kind)?;
            bounds.push((first, last));
            if piece.len > 0 {
                // Each is read once: what is written is what `validate` will look at.
                let delta = (base as i64).wrapping_sub(first as i64);
                let start = piece.physical().and_then(|p| p.checked_add(1)).ok_or_else(changed)?;
                let from = start.checked_mul(width).ok_or_else(changed)?;
                let bytes = source(piece, 0)?.get(from..).ok_or_else(changed)?;
                if bytes.len() / width < piece.len {
                    return Err(changed());
                }
                let values = bytes.chunks_exact(width).take(piece.len);
                for (index, value) in values.enumerate() {
                    let value = match (value.first_chunk::<8>(), value.first_chunk::<4>()) {
                        (Some(wide), _) => i64::from_le_bytes(*wide),
                        (None, Some(narrow)) => i64::from(i32::from_le_bytes(*narrow)),
                        (None, None) => 0,
                    };
                    self.store_offset(slot, width, row + index + 1, value.wrapping_add(delta));
                }
            }
            base += last - first;
            row += piece.len;
            self.pace(piece.len * width)?;
        }
        self.pad(slot);
        Ok(bounds)
    }

    #[inline(always)]
    fn store_offset(&self, slot: Slot, width: usize, index: usize, value: i64) {
        let to = self.at(slot).wrapping_add(index * width);
        // SAFETY: the slot has an offset more than the node has rows.
        unsafe {
            if width == 8 {
                to.cast::<i64>().write(value);
            } else {
                to.cast::<i32>().write(value as i32);
            }
        }
    }

    fn bytes(&mut self, node: &Node, bounds: &[(usize, usize)]) -> Result<()> {
        let Some(slot) = node.buffers.get(1).copied() else { return Ok(()) };
        let mut at = 0;
        for (piece, (first, last)) in node.pieces.iter().zip(bounds) {
            let bytes = source(piece, 1)?.get(*first..*last).ok_or_else(changed)?;
            at += self.copy(slot, at, bytes)?;
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

    fn views(&mut self, node: &Node) -> Result<()> {
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
                        self.copy(slot, filled, bytes)?;
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
                    self.copy(slot, 0, from.as_slice())?;
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
