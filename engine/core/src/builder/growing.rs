//! A table whose number of rows is not known: batches are appended, each value copied once, behind
//! those before, with statistics on the way. What comes of it is one chunk, as of a `put`; only
//! where 32-bit offsets would overflow another begins.
//!
//! Columns of values, booleans, strings and binary values grow where they lie. The others (nested
//! types, dictionaries, views) are kept as the batches brought them, copied so that the caller's
//! memory is free again, and joined at the end, which is a second copy and counted as one.

use std::sync::Arc;

use arrow_data::ArrayData;
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use insitu_kernels::copy::{CopyBitsFn, ZoneStats, copy_bits, copy_with_stats};
use insitu_kernels::level::Level;
use insitu_kernels::prim::Prim;
use insitu_region::Extent;

use super::pack::append_bits;
use super::store::{self, Filled, Line, Store};
use super::{Made, exact};
use crate::error::{Error, Result};
use crate::ingest::bits::is_valid;
use crate::ingest::measure::{check_buffer, check_rows, offset_bounds, source};
use crate::ingest::{self, Cut, Piece, in_column};
use crate::layout::{Chunk, Column, Kind, Layout, Place, shape};
use crate::region::{Region, Shared};
use crate::run;
use crate::statistics::{self, ColumnZones, ZONE_ROWS, physical_type};
use crate::storage::Anonymous;
use crate::table::Table;
use crate::validate;

/// The columns while batches are appended.
pub(crate) struct Growing {
    fields: Vec<FieldRef>,
    /// The last chunk is the one that is appended to.
    chunks: Vec<Rows>,
    /// Statistics of the number columns, over all chunks.
    zones: Vec<ColumnZones>,
    bits: CopyBitsFn,
    /// Validity of a run that begins inside a byte.
    shifted: Vec<u64>,
    /// What 32-bit offsets may reach.
    limit: u64,
}

/// One chunk's columns.
struct Rows {
    rows: usize,
    columns: Vec<Growth>,
}

enum Growth {
    /// Buffers of its own.
    Flat(Box<Flat>),
    /// What the batches brought.
    Kept(Vec<Table>),
    /// A column of type null.
    Nothing,
}

/// A column whose buffers grow.
struct Flat {
    kind: Kind,
    prim: Option<Prim>,
    /// Once there is a null.
    validity: Option<Store>,
    nulls: u64,
    /// Values, bits or offsets.
    first: Store,
    /// What offsets reach into.
    data: Option<Store>,
}

impl Growing {
    /// No rows.
    pub fn new(shared: &Shared, schema: &Schema) -> Result<Growing> {
        let fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        let zones = fields.iter().map(|field| ColumnZones::new(field.data_type())).collect();
        let mut growing = Growing {
            fields,
            chunks: Vec::new(),
            zones,
            bits: copy_bits(Level::best()),
            shifted: Vec::new(),
            limit: i32::MAX as u64,
        };
        growing.begin_chunk(shared)?;
        Ok(growing)
    }

    /// As if 32-bit offsets reached no further than that.
    #[cfg(test)]
    pub fn with_limit(mut self, limit: u64) -> Growing {
        self.limit = limit;
        self
    }

    fn begin_chunk(&mut self, shared: &Shared) -> Result<()> {
        let mut columns = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let shape = shape(field.data_type())?;
            columns.push(match shape.buffers.as_slice() {
                [] if *field.data_type() == DataType::Null => Growth::Nothing,
                [kind @ (Kind::Bits | Kind::Fixed(_))]
                    if !shape.variadic && shape.dictionary.is_none() =>
                {
                    Growth::Flat(Box::new(Flat::new(*kind, physical_type(field.data_type()))))
                }
                [kind, Kind::Bytes] => {
                    let mut flat = Flat::new(*kind, None);
                    let zero = [0; 8];
                    let zero = zero.get(..flat.width()).unwrap_or_default();
                    flat.first.reserve(shared, zero.len(), &|| false)?;
                    // SAFETY: room was reserved just now.
                    unsafe { flat.first.push(zero) };
                    flat.data = Some(Store::new());
                    Growth::Flat(Box::new(flat))
                }
                _ => Growth::Kept(Vec::new()),
            });
        }
        self.zones.iter_mut().for_each(ColumnZones::begin_chunk);
        self.chunks.push(Rows { rows: 0, columns });
        Ok(())
    }

    /// Bytes of the region's memory that it has.
    pub fn bytes(&self) -> u64 {
        let columns = self.chunks.iter().flat_map(|chunk| &chunk.columns);
        columns
            .map(|growth| match growth {
                Growth::Flat(flat) => {
                    let stores = flat.validity.iter().chain([&flat.first]).chain(&flat.data);
                    stores.map(Store::bytes).sum()
                }
                Growth::Kept(kept) => kept.iter().map(Table::nbytes).sum(),
                Growth::Nothing => 0,
            })
            .sum()
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.rows as u64).sum()
    }

    /// Appends one batch: all of it or, on an error, nothing. `columns` are of the schema's types.
    pub fn append(
        &mut self,
        region: &Region,
        columns: &[ArrayData],
        rows: usize,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        if !self.fits(columns, rows)? {
            let kept = |growth: &Growth| matches!(growth, Growth::Kept(_));
            let last = self.chunks.last().map(|chunk| chunk.columns.iter().position(kept));
            if let Some(Some(index)) = last {
                return Err(Error::LimitExceeded(format!(
                    "strings of more than 2 GiB beside column {:?}, which cannot be cut there; \
                     declare the strings as large_utf8 or large_binary",
                    self.fields.get(index).map_or("", |f| f.name().as_str())
                )));
            }
            self.begin_chunk(&region.shared)?;
        }
        let mut stats: Vec<Vec<ZoneStats>> = vec![Vec::new(); columns.len()];
        let Some(chunk) = self.chunks.last_mut() else { return Ok(()) };
        let before = chunk.rows;
        let mut outcome = Ok(());
        for (index, (growth, data)) in chunk.columns.iter_mut().zip(columns).enumerate() {
            let Some(field) = self.fields.get(index) else { break };
            let piece = Piece { data: data.clone(), start: 0, len: rows, batch: 0 };
            let done = check_nulls(field, &piece).and_then(|()| match growth {
                Growth::Flat(flat) => {
                    let mut found = |run: ZoneStats| {
                        if let Some(stats) = stats.get_mut(index) {
                            stats.push(run);
                        }
                    };
                    let tools = (self.bits, &mut self.shifted);
                    let room = (&*region.shared, interrupt);
                    flat.append(room, &piece, before, tools, &mut found)
                }
                Growth::Kept(kept) => {
                    kept.push(keep(region, field, data, interrupt)?);
                    Ok(())
                }
                Growth::Nothing => Ok(()),
            });
            if let Err(e) = done {
                outcome = Err(in_column(e, field.name()));
                break;
            }
        }
        if outcome.is_err() {
            chunk.columns.iter_mut().for_each(|growth| growth.truncate(before));
            return outcome;
        }
        chunk.rows += rows;
        for (zones, runs) in self.zones.iter_mut().zip(stats) {
            runs.iter().for_each(|run| zones.add(run));
        }
        Ok(())
    }

    /// Whether 32-bit offsets of the last chunk reach over a batch; always if it has no rows yet.
    fn fits(&self, columns: &[ArrayData], rows: usize) -> Result<bool> {
        let Some(chunk) = self.chunks.last().filter(|chunk| chunk.rows > 0) else {
            return Ok(true);
        };
        for (growth, data) in chunk.columns.iter().zip(columns) {
            if let Growth::Flat(flat) = growth
                && let (Kind::Offsets32, Some(filled)) = (flat.kind, &flat.data)
            {
                let piece = Piece { data: data.clone(), start: 0, len: rows, batch: 0 };
                let (first, last) = offset_bounds(&piece, flat.kind)?;
                if filled.len as u64 + (last - first) as u64 > self.limit {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Makes the table.
    pub fn seal(mut self, region: &Region, interrupt: &dyn Fn() -> bool) -> Result<Made> {
        let shared = &*region.shared;
        let count = self.fields.len();
        let mut tail = Tail::default();
        let mut extents = Vec::new();
        let mut chunks = Vec::new();
        let single = self.chunks.len() == 1;
        for chunk in std::mem::take(&mut self.chunks) {
            let mut columns = Vec::with_capacity(count);
            for (field, growth) in self.fields.iter().zip(chunk.columns) {
                columns.push(match growth {
                    Growth::Flat(flat) => flat.finish(chunk.rows, &mut tail, &mut extents)?,
                    Growth::Nothing => Column {
                        len: chunk.rows as u64,
                        null_count: Some(chunk.rows as u64),
                        validity: Place::default(),
                        buffers: Vec::new(),
                        children: Vec::new(),
                    },
                    Growth::Kept(kept) => {
                        if !single {
                            return Err(Error::corrupt("a kept column was cut"));
                        }
                        join(shared, field, kept, &mut extents, interrupt)?
                    }
                });
            }
            chunks.push((chunk.rows, columns));
        }
        let zones = statistics::zones(chunks.iter().map(|(rows, _)| *rows));
        let len = statistics::size(count, zones);
        let statistics = tail.take(len)?;

        // What was small goes into one extent, with the statistics.
        let extent = shared.allocate(tail.next as u64)?;
        let (to, offset) = (extent.as_mut_ptr(), extent.offset());
        tail.write(to);
        extents.push(extent);
        let place = |mut place: Place| {
            if tail.holds(place) {
                place.offset = place.offset - Tail::MARK + offset;
            }
            place
        };
        let mut made = Vec::with_capacity(chunks.len());
        for (rows, columns) in chunks {
            let columns = columns.into_iter().map(|mut column| {
                column.validity = place(column.validity);
                column.buffers.iter_mut().for_each(|buffer| *buffer = place(*buffer));
                Arc::new(column)
            });
            made.push(Arc::new(Chunk { rows: rows as u64, columns: columns.collect() }));
        }
        let total = made.iter().map(|chunk| chunk.rows).sum();
        self.check(shared, &made)?;
        self.count_nulls(shared, &made)?;
        // SAFETY: the place was handed out for as many zones of as many columns.
        unsafe { statistics::write(to.wrapping_add(statistics), &self.zones, zones) };
        let stats = self.zones.iter().map(ColumnZones::hints).collect();
        let statistics = Place { offset: offset + statistics as u64, len: len as u64 };
        Ok(Made {
            extents,
            layout: Layout { rows: total, chunks: made, statistics, origin: 0 },
            stats,
        })
    }

    /// Checks what was written, as `put` does.
    fn check(&self, shared: &Shared, chunks: &[Arc<Chunk>]) -> Result<()> {
        let mut first_row = 0;
        for chunk in chunks {
            for (field, column) in self.fields.iter().zip(&chunk.columns) {
                // SAFETY: the buffers are as long as the column's rows take, and padded; `address`
                // checks them against the mapping.
                unsafe {
                    validate::column(field.data_type(), column, &|place| shared.address(place))
                }
                .map_err(|fault| {
                    let row =
                        fault.row.map_or(String::new(), |r| format!(", row {}", first_row + r));
                    Error::InvalidData(format!("column {:?}{row}: {}", field.name(), fault.what))
                })?;
            }
            first_row += chunk.rows;
        }
        Ok(())
    }

    /// The statistics of columns that are no numbers: rows and nulls.
    fn count_nulls(&mut self, shared: &Shared, chunks: &[Arc<Chunk>]) -> Result<()> {
        for (index, (field, zones)) in self.fields.iter().zip(&mut self.zones).enumerate() {
            if physical_type(field.data_type()).is_some() {
                continue;
            }
            for column in chunks.iter().filter_map(|chunk| chunk.columns.get(index)) {
                let validity = shared.address(column.validity)?;
                zones.begin_chunk();
                // SAFETY: the bitmap has a bit per row and is padded to 64 bytes.
                unsafe { zones.count_nulls(validity, exact(column.len)?) };
            }
        }
        Ok(())
    }
}

/// # Errors
/// `InvalidData` for a null where none may be.
fn check_nulls(field: &FieldRef, piece: &Piece) -> Result<()> {
    check_rows(piece)?;
    if field.is_nullable() || *field.data_type() == DataType::Null {
        return Ok(());
    }
    match (0..piece.len).find(|row| !is_valid(piece.data.nulls(), *row)) {
        Some(row) if piece.data.null_count() > 0 => Err(Error::InvalidData(format!(
            "it is declared without nulls but row {row} of the batch is null"
        ))),
        _ => Ok(()),
    }
}

impl Growth {
    /// Forgets the rows behind the first `rows`.
    fn truncate(&mut self, rows: usize) {
        match self {
            Growth::Flat(flat) => flat.truncate(rows),
            Growth::Kept(kept) => {
                let mut left = rows as u64;
                kept.retain(|table| {
                    let fits = table.num_rows() <= left;
                    left = left.saturating_sub(table.num_rows());
                    fits
                });
            }
            Growth::Nothing => {}
        }
    }
}

impl Flat {
    fn new(kind: Kind, prim: Option<Prim>) -> Flat {
        Flat { kind, prim, validity: None, nulls: 0, first: Store::new(), data: None }
    }

    /// Bytes of a value or of an offset; of bits none.
    fn width(&self) -> usize {
        match self.kind {
            Kind::Fixed(width) => width as usize,
            Kind::Offsets32 => 4,
            Kind::Offsets64 => 8,
            Kind::Bits | Kind::Bytes => 0,
        }
    }

    fn truncate(&mut self, rows: usize) {
        let bits = rows.div_ceil(8);
        if let Some(validity) = &mut self.validity {
            // Also where rows fell away from within the last byte.
            validity.len = validity.len.min(bits);
            let valid = (0..rows).filter(|row| {
                // SAFETY: the bitmap has a bit for each of the rows.
                let byte = unsafe { validity.as_mut_ptr().add(row / 8).read() };
                byte >> (row % 8) & 1 == 1
            });
            self.nulls = (rows - valid.count()) as u64;
        }
        let width = self.width();
        self.first.len = self.first.len.min(match self.kind {
            Kind::Bits => bits,
            Kind::Offsets32 | Kind::Offsets64 => (rows + 1) * width,
            Kind::Fixed(_) | Kind::Bytes => rows * width,
        });
        if let Some(data) = &mut self.data {
            // SAFETY: an offset more than rows was written.
            let end = unsafe { last_offset(self.first.as_mut_ptr(), width, rows) };
            data.len = data.len.min(end);
        }
    }

    /// Appends a piece's rows behind the first `row`.
    fn append(
        &mut self,
        (shared, interrupt): (&Shared, &dyn Fn() -> bool),
        piece: &Piece,
        row: usize,
        (bits, shifted): (CopyBitsFn, &mut Vec<u64>),
        found: &mut dyn FnMut(ZoneStats),
    ) -> Result<()> {
        check_buffer(piece, 0, self.kind)?;
        let width = self.width();
        let bounds = match &mut self.data {
            Some(data) => {
                let (first, last) = offset_bounds(piece, self.kind)?;
                let bytes = source(piece, 1)?.get(first..last).ok_or_else(|| {
                    Error::InvalidData(format!("the last offset is {last}, past the data's end"))
                })?;
                let at = data.len;
                let reach = if self.kind == Kind::Offsets32 {
                    i32::MAX as usize
                } else {
                    isize::MAX as usize
                };
                if at.checked_add(bytes.len()).is_none_or(|end| end > reach) {
                    return Err(Error::LimitExceeded(
                        "more bytes than its offsets reach; declare it as large_utf8 or \
                         large_binary"
                            .into(),
                    ));
                }
                data.reserve(shared, bytes.len(), interrupt)?;
                // SAFETY: room was reserved just now.
                unsafe { data.push(bytes) };
                (first, at)
            }
            None => (0, 0),
        };
        self.append_validity((shared, interrupt), piece, row)?;
        match self.kind {
            Kind::Bits => {
                let grown = (row + piece.len).div_ceil(8);
                self.first.reserve(shared, grown - self.first.len, interrupt)?;
                let start = piece.physical().unwrap_or_default();
                // SAFETY: `row` bits are there, and room for all to a whole line.
                unsafe {
                    let to = self.first.as_mut_ptr();
                    append_bits(to, row, piece.len, Some((source(piece, 0)?, start)));
                }
                self.first.len = grown;
            }
            Kind::Fixed(_) => {
                let start = piece.physical().unwrap_or_default() * width;
                let bytes = source(piece, 0)?.get(start..).unwrap_or_default();
                let bytes = bytes.get(..piece.len * width).ok_or_else(|| {
                    Error::InvalidData("the source changed while it was being copied".into())
                })?;
                self.first.reserve(shared, bytes.len(), interrupt)?;
                let Some(prim) = self.prim else {
                    // SAFETY: room was reserved just now.
                    unsafe { self.first.push(bytes) };
                    return Ok(());
                };
                let copy = copy_with_stats(prim, Level::best());
                let mut done = 0;
                while done < piece.len {
                    let at = row + done;
                    let count = (piece.len - done).min(ZONE_ROWS - at % ZONE_ROWS);
                    let bitmap = self.validity.as_mut().map(Store::as_mut_ptr);
                    let validity = match bitmap {
                        None => std::ptr::null(),
                        Some(bitmap) if at.is_multiple_of(8) => {
                            bitmap.wrapping_add(at / 8).cast_const()
                        }
                        Some(bitmap) => {
                            shifted.resize(count.div_ceil(64), 0);
                            // SAFETY: the bitmap covers the run; the words hold `count` bits.
                            unsafe { bits(shifted.as_mut_ptr().cast(), bitmap, at, count) };
                            shifted.as_ptr().cast()
                        }
                    };
                    let from = bytes.as_ptr().wrapping_add(done * width);
                    let to = self.first.as_mut_ptr().wrapping_add(at * width);
                    // SAFETY: the run lies within the piece's bytes and the reserved room; the
                    // bitmap covers it.
                    found(unsafe { copy(to, from, validity, count, false) });
                    done += count;
                }
                self.first.len += bytes.len();
            }
            Kind::Offsets32 | Kind::Offsets64 => {
                let (first, base) = bounds;
                let start = piece.physical().unwrap_or_default() + 1;
                let bytes = source(piece, 0)?.get(start * width..).unwrap_or_default();
                let delta = (base as i64).wrapping_sub(first as i64);
                self.first.reserve(shared, piece.len * width, interrupt)?;
                let to = self.first.as_mut_ptr().wrapping_add((row + 1) * width);
                for (index, value) in bytes.chunks_exact(width).take(piece.len).enumerate() {
                    let to = to.wrapping_add(index * width);
                    // SAFETY: room was reserved for an offset per row. Each is read once: what is
                    // written is what `validate` will look at.
                    unsafe {
                        match (value.first_chunk::<8>(), value.first_chunk::<4>()) {
                            (Some(wide), _) => {
                                to.cast::<i64>()
                                    .write(i64::from_le_bytes(*wide).wrapping_add(delta));
                            }
                            (None, Some(narrow)) => {
                                let value = i64::from(i32::from_le_bytes(*narrow));
                                to.cast::<i32>().write(value.wrapping_add(delta) as i32);
                            }
                            (None, None) => {}
                        }
                    }
                }
                self.first.len += piece.len * width;
            }
            Kind::Bytes => {}
        }
        Ok(())
    }

    fn append_validity(
        &mut self,
        (shared, interrupt): (&Shared, &dyn Fn() -> bool),
        piece: &Piece,
        row: usize,
    ) -> Result<()> {
        let nulls = piece.data.nulls().filter(|nulls| nulls.null_count() > 0);
        if nulls.is_none() && self.validity.is_none() {
            return Ok(());
        }
        let fresh = self.validity.is_none();
        let validity = self.validity.get_or_insert_with(Store::new);
        let grown = (row + piece.len).div_ceil(8);
        if let Err(e) = validity.reserve(shared, grown - validity.len, interrupt) {
            if fresh {
                self.validity = None;
            }
            return Err(e);
        }
        let to = validity.as_mut_ptr();
        // SAFETY: there is room for a bit per row, to a whole line; `row` bits are there, or are
        // written first.
        let ones = unsafe {
            if fresh {
                append_bits(to, 0, row, None);
            }
            let from = nulls.map(|nulls| (nulls.validity(), nulls.offset() + piece.start));
            append_bits(to, row, piece.len, from)
        };
        validity.len = grown;
        self.nulls += (piece.len - ones) as u64;
        Ok(())
    }

    /// Where its buffers lie: in extents of their own, or in the tail.
    fn finish(self, rows: usize, tail: &mut Tail, extents: &mut Vec<Extent>) -> Result<Column> {
        let mut settle = |store: Store| -> Result<Place> {
            let len = store.len;
            if len == 0 {
                return Ok(Place::default());
            }
            Ok(match store.finish()? {
                Filled::Region(extent) => {
                    let offset = extent.offset();
                    extents.push(extent);
                    Place { offset, len: len as u64 }
                }
                Filled::Private(lines) => tail.put(lines, len)?,
            })
        };
        let validity = self.validity.filter(|_| self.nulls > 0).map(&mut settle).transpose()?;
        let mut buffers = vec![settle(self.first)?];
        if let Some(data) = self.data {
            buffers.push(settle(data)?);
        }
        Ok(Column {
            len: rows as u64,
            null_count: Some(self.nulls),
            validity: validity.unwrap_or_default(),
            buffers,
            children: Vec::new(),
        })
    }
}

/// # Safety
/// `offsets` is readable for `index + 1` offsets.
unsafe fn last_offset(offsets: *const u8, width: usize, index: usize) -> usize {
    // SAFETY: passed on.
    unsafe {
        match width {
            8 => offsets.cast::<i64>().add(index).read() as usize,
            _ => offsets.cast::<i32>().add(index).read() as usize,
        }
    }
}

/// The small buffers, which share an extent. Until there is one, their places count from a mark
/// that no region reaches.
#[derive(Default)]
struct Tail {
    buffers: Vec<(Vec<Line>, usize)>,
    next: usize,
}

impl Tail {
    const MARK: u64 = 1 << 63;

    fn take(&mut self, len: usize) -> Result<usize> {
        let at = self.next;
        let end = len.checked_next_multiple_of(64).and_then(|len| at.checked_add(len));
        self.next =
            end.ok_or_else(|| Error::LimitExceeded("more bytes than memory can have".into()))?;
        Ok(at)
    }

    fn put(&mut self, lines: Vec<Line>, len: usize) -> Result<Place> {
        let at = self.take(len)?;
        self.buffers.push((lines, at));
        Ok(Place { offset: Tail::MARK + at as u64, len: len as u64 })
    }

    fn holds(&self, place: Place) -> bool {
        place.offset >= Tail::MARK
    }

    /// Writes the buffers, whole lines, to the extent that begins at `to`.
    fn write(&mut self, to: *mut u8) {
        let ends = self.buffers.iter().skip(1).map(|(_, at)| *at);
        let ends: Vec<usize> = ends.chain([self.next]).collect();
        for ((lines, at), end) in self.buffers.drain(..).zip(ends) {
            let bytes = (lines.len() * 64).min(end - at);
            // SAFETY: the extent has as many bytes as were handed out.
            unsafe { to.add(at).copy_from_nonoverlapping(store::bytes(&lines), bytes) };
        }
    }
}

/// Copies one batch of one column, so that the caller's memory is free again.
fn keep(
    region: &Region,
    field: &FieldRef,
    data: &ArrayData,
    interrupt: &dyn Fn() -> bool,
) -> Result<Table> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![field.clone()]));
    let columns = [vec![data.clone()]];
    let made = ingest::ingest_columns(
        &region.shared,
        &schema,
        &columns,
        &[data.len()],
        Cut::EveryBatch,
        interrupt,
    )?;
    let extents = made.extents.into_iter().map(Arc::new).collect();
    let keep = Anonymous { extents, ..Anonymous::default() };
    Ok(run::anonymous(region, schema, made.layout, keep, None))
}

/// Joins what was kept of a column: its second copy.
fn join(
    shared: &Shared,
    field: &FieldRef,
    kept: Vec<Table>,
    extents: &mut Vec<Extent>,
    interrupt: &dyn Fn() -> bool,
) -> Result<Column> {
    shared.counters.copy(kept.iter().map(Table::nbytes).sum());
    let schema: SchemaRef = Arc::new(Schema::new(vec![field.clone()]));
    let mut arrays = Vec::with_capacity(kept.len());
    for table in &kept {
        arrays.extend(table.column(0)?.iter().map(|array| array.to_data()));
    }
    let lens: Vec<usize> = arrays.iter().map(ArrayData::len).collect();
    let cut = Cut::Above(i32::MAX as u64);
    let made = ingest::ingest_columns(shared, &schema, &[arrays], &lens, cut, interrupt)?;
    let mut chunks = made.layout.chunks.into_iter();
    let (Some(chunk), None) = (chunks.next(), chunks.next()) else {
        return Err(Error::LimitExceeded(format!(
            "column {:?} has more than 2 GiB of values, which 32-bit offsets do not reach; \
             declare it as a large type",
            field.name()
        )));
    };
    extents.extend(made.extents);
    let column = chunk.columns.first();
    column
        .map(|column| (**column).clone())
        .ok_or_else(|| Error::corrupt("a column was made of nothing"))
}
