//! A table whose number of rows is known: its fixed-width columns are handed out to be filled where
//! they will stay, the others are assigned.

use std::sync::Arc;

use arrow_data::ArrayData;
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use insitu_kernels::copy::zero_padding;
use insitu_query::{Ended, parallel};
use insitu_region::{Extent, Pin};

use super::pack;
use super::sheet::{Canvas, Sheet};
use super::zones::{self, Unfinished};
use super::{Made, exact};
use crate::error::{Error, Result};
use crate::ingest::measure::{check_buffer, source};
use crate::ingest::{self, Cut, Ingested, Piece};
use crate::layout::{Chunk, Column, Kind, Layout, Place, fixed_width, shape};
use crate::region::Shared;
use crate::statistics::{self, ColumnZones};

/// Tables up to this size are filled in private memory and copied at the end: a region's smaller
/// extents share pages, and a window shows whole ones.
const PRIVATE: u64 = 32 << 10;
/// Bytes that a thread zeroes at a time.
const ZEROED: usize = 8 << 20;

/// The columns while they are filled.
pub(crate) struct Fixed {
    rows: usize,
    columns: Vec<FixedColumn>,
    /// The values that are handed out, and where their bits go.
    memory: Memory,
}

struct FixedColumn {
    field: FieldRef,
    part: Part,
    /// Bytes that say which rows are valid, once somebody asked for them.
    valid: Option<Arc<Sheet>>,
}

enum Part {
    /// Values of one width, at a place of the memory.
    Values { width: usize, at: usize },
    /// Booleans: bytes of their own, packed to a place of the memory.
    Bits { bytes: Option<Arc<Sheet>>, at: usize },
    /// What was assigned last; statistics of rows and nulls only.
    Given(Option<Box<Ingested>>),
    /// A column of type null, of which there is nothing.
    Nothing,
}

/// Where the values lie.
struct Memory {
    sheet: Option<Arc<Sheet>>,
    /// None for tables so small that they lie in the sheet's private memory.
    extent: Option<Extent>,
    bytes: usize,
}

impl Memory {
    /// The engine's way to the values, which stays writable.
    fn base(&self) -> *mut u8 {
        match (&self.extent, &self.sheet) {
            (Some(extent), _) => extent.as_mut_ptr(),
            (None, Some(sheet)) => sheet.as_mut_ptr(),
            (None, None) => std::ptr::null_mut(),
        }
    }
}

/// Hands out places, each on a line.
fn take(next: &mut usize, bytes: Option<usize>) -> Result<usize> {
    let at = *next;
    let end = bytes
        .and_then(|bytes| bytes.checked_next_multiple_of(64))
        .and_then(|bytes| at.checked_add(bytes))
        .filter(|end| isize::try_from(*end).is_ok());
    *next = end.ok_or_else(|| Error::LimitExceeded("more rows than memory can have".into()))?;
    Ok(at)
}

impl Fixed {
    /// Memory for that many rows.
    pub fn new(shared: &Shared, schema: &Schema, rows: u64, zero: bool) -> Result<Fixed> {
        let rows = exact(rows)?;
        let words = rows.div_ceil(64).checked_mul(8);
        let mut bytes = 0;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let part = match (field.data_type(), fixed_width(field.data_type())) {
                (DataType::Null, _) => Part::Nothing,
                (DataType::Boolean, _) => Part::Bits { bytes: None, at: take(&mut bytes, words)? },
                (_, Some(width)) if width > 0 => {
                    let width = exact(width)?;
                    Part::Values { width, at: take(&mut bytes, rows.checked_mul(width))? }
                }
                _ => Part::Given(None),
            };
            columns.push(FixedColumn { field: field.clone(), part, valid: None });
        }
        let memory = if bytes == 0 {
            Memory { sheet: None, extent: None, bytes }
        } else if bytes as u64 <= PRIVATE {
            Memory { sheet: Some(Sheet::private(bytes as u64)?), extent: None, bytes }
        } else {
            let extent = shared.allocate(bytes as u64)?;
            if zero {
                clear(extent.as_mut_ptr(), bytes);
            }
            let window = shared.region.window(extent.offset(), bytes as u64)?;
            Memory { sheet: Some(Sheet::new(window)), extent: Some(extent), bytes }
        };
        Ok(Fixed { rows, columns, memory })
    }

    /// Bytes of the region's memory that it has.
    pub fn bytes(&self) -> u64 {
        let given = self.columns.iter().filter_map(|column| match &column.part {
            Part::Given(Some(made)) => Some(&made.extents),
            _ => None,
        });
        given.flatten().chain(&self.memory.extent).map(Extent::len).sum()
    }

    fn column(&mut self, index: usize) -> Result<&mut FixedColumn> {
        self.columns.get_mut(index).ok_or_else(|| Error::InvalidArgument("no such column".into()))
    }

    /// A column's values, to be filled; of booleans a byte each.
    pub fn values(&mut self, index: usize) -> Result<Canvas> {
        let (rows, sheet) = (self.rows, self.memory.sheet.clone());
        let column = self.column(index)?;
        match (&mut column.part, sheet) {
            (Part::Values { width, at }, Some(sheet)) => Ok(Canvas::new(sheet, *at, rows * *width)),
            (Part::Bits { bytes, .. }, _) => Ok(Canvas::new(open(bytes, rows, false)?, 0, rows)),
            (Part::Values { .. }, None) => Ok(Canvas::new(Sheet::private(0)?, 0, 0)),
            (Part::Given(_) | Part::Nothing, _) => {
                let (name, dtype) = (column.field.name(), column.field.data_type());
                Err(Error::TypeMismatch(format!(
                    "column {name:?} is of type {dtype}, whose values have no fixed width to be \
                     viewed; assign all of them: builder[{name:?}] = values"
                )))
            }
        }
    }

    /// Which rows of a column are valid, a byte each; all of them until something else is stored.
    pub fn validity(&mut self, index: usize) -> Result<Canvas> {
        let rows = self.rows;
        let column = self.column(index)?;
        match &column.part {
            Part::Values { .. } | Part::Bits { .. } => {
                Ok(Canvas::new(open(&mut column.valid, rows, true)?, 0, rows))
            }
            Part::Given(_) | Part::Nothing => Err(Error::TypeMismatch(format!(
                "nulls of column {:?} ({}) come with the values that are assigned to it",
                column.field.name(),
                column.field.data_type()
            ))),
        }
    }

    /// Marks all rows of a column valid.
    pub fn all_valid(&mut self, index: usize) -> Result<()> {
        let rows = self.rows;
        if let Some(valid) = &self.column(index)?.valid {
            // SAFETY: the sheet has a byte per row, and is not sealed.
            unsafe { valid.as_mut_ptr().write_bytes(1, rows) };
        }
        Ok(())
    }

    /// Gives a column all its values.
    pub fn assign(
        &mut self,
        shared: &Shared,
        index: usize,
        arrays: Vec<ArrayData>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<()> {
        let rows = self.rows;
        let base = self.memory.base();
        let column = self.column(index)?;
        let name = column.field.name().clone();
        let found: usize = arrays.iter().map(ArrayData::len).fold(0, usize::saturating_add);
        if found != rows {
            return Err(Error::ShapeMismatch(format!(
                "column {name:?} was given {found} values, the table has {rows} rows"
            )));
        }
        match &mut column.part {
            Part::Nothing => Ok(()),
            Part::Given(given) => {
                let schema: SchemaRef = Arc::new(Schema::new(vec![column.field.clone()]));
                let lens: Vec<usize> = arrays.iter().map(ArrayData::len).collect();
                let cut = Cut::Above(i32::MAX as u64);
                let made =
                    ingest::ingest_columns(shared, &schema, &[arrays], &lens, cut, interrupt)?;
                if made.layout.chunks.len() > 1 {
                    return Err(Error::LimitExceeded(format!(
                        "column {name:?} has more than 2 GiB of values, which 32-bit offsets do \
                         not reach; declare it as large_utf8 or large_binary"
                    )));
                }
                *given = Some(Box::new(made));
                Ok(())
            }
            Part::Values { width, at } => {
                let (width, to) = (*width, base.wrapping_add(*at));
                let mut row = 0;
                for data in &arrays {
                    let piece = Piece { data: data.clone(), start: 0, len: data.len(), batch: 0 };
                    check_buffer(&piece, 0, Kind::Fixed(width as u64))?;
                    let from = data.offset() * width;
                    let bytes = source(&piece, 0)?.get(from..from + data.len() * width);
                    let bytes = bytes.unwrap_or_default();
                    // SAFETY: the rows of all arrays are the column's, counted above.
                    unsafe {
                        to.add(row * width).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                    }
                    row += data.len();
                }
                mark_valid(&mut column.valid, rows, &arrays)
            }
            Part::Bits { bytes, .. } => {
                let to = open(bytes, rows, false)?;
                let mut row = 0;
                for data in &arrays {
                    let piece = Piece { data: data.clone(), start: 0, len: data.len(), batch: 0 };
                    check_buffer(&piece, 0, Kind::Bits)?;
                    let from = source(&piece, 0)?.as_ptr();
                    // SAFETY: the buffer was checked; as above for the rows.
                    unsafe {
                        let to = to.as_mut_ptr().add(row);
                        pack::unpack(from, data.offset(), data.len(), to);
                    }
                    row += data.len();
                }
                mark_valid(&mut column.valid, rows, &arrays)
            }
        }
    }

    /// All that was handed out.
    fn sheets(&self) -> impl Iterator<Item = &Arc<Sheet>> {
        let own = self.columns.iter().flat_map(|column| {
            let bytes = match &column.part {
                Part::Bits { bytes, .. } => bytes.as_ref(),
                _ => None,
            };
            bytes.into_iter().chain(&column.valid)
        });
        own.chain(&self.memory.sheet)
    }

    /// Takes back what was handed out.
    pub fn revoke(&self) {
        self.sheets().for_each(|sheet| sheet.revoke());
    }

    /// What was handed out shows this table's bytes.
    pub fn keep(&self, pin: &Pin) {
        self.sheets().for_each(|sheet| sheet.keep(pin));
    }

    /// Makes the table: nobody writes any more, bits are packed, statistics gathered.
    pub fn seal(&mut self, shared: &Shared, interrupt: &dyn Fn() -> bool) -> Result<Made> {
        for sheet in self.sheets() {
            sheet.seal()?;
        }
        let missing = self.columns.iter().find(|column| matches!(column.part, Part::Given(None)));
        if let Some(missing) = missing {
            return Err(Error::ShapeMismatch(format!(
                "column {:?} was never assigned, and the table has {} rows",
                missing.field.name(),
                self.rows
            )));
        }
        let rows = self.rows;
        let words = rows.div_ceil(64) * 8;
        let count = self.columns.len();
        let zones = statistics::zones(std::iter::once(rows));
        // Behind the values, or, of a small table, before a copy of them: bitmaps and statistics.
        let mut next = 0;
        let values =
            take(&mut next, self.memory.extent.is_none().then_some(self.memory.bytes).or(Some(0)))?;
        let mut validity = Vec::with_capacity(count);
        for column in &self.columns {
            let at = column.valid.as_ref().map(|_| take(&mut next, Some(words))).transpose()?;
            validity.push(at);
        }
        let statistics = take(&mut next, Some(statistics::size(count, zones)))?;
        let tail = shared.allocate(next as u64)?;
        let to = tail.as_mut_ptr();
        if self.memory.extent.is_none() && self.memory.bytes > 0 {
            // SAFETY: as many bytes as both have; the sheet is private memory.
            unsafe {
                let from = self.memory.base().cast_const();
                to.add(values).copy_from_nonoverlapping(from, self.memory.bytes);
            }
        }
        let (base, offset) = match &self.memory.extent {
            Some(extent) => (extent.as_mut_ptr(), extent.offset()),
            None => (to.wrapping_add(values), tail.offset() + values as u64),
        };

        let null = std::ptr::null_mut;
        let open: Vec<Unfinished<'_>> = self
            .columns
            .iter()
            .zip(&validity)
            .filter_map(|(column, validity)| {
                let (values, width, bits) = match &column.part {
                    Part::Values { width, at } => (base.wrapping_add(*at), *width, null()),
                    Part::Bits { bytes: Some(bytes), at } => {
                        (bytes.as_mut_ptr(), 1, base.wrapping_add(*at))
                    }
                    Part::Bits { bytes: None, at } => {
                        // Never looked at: all false.
                        // SAFETY: the place has room for all words.
                        unsafe { base.wrapping_add(*at).write_bytes(0, words) };
                        (null(), 0, null())
                    }
                    Part::Given(_) | Part::Nothing => return None,
                };
                Some(Unfinished {
                    dtype: column.field.data_type(),
                    values,
                    width,
                    bits,
                    valid: column.valid.as_ref().map_or(std::ptr::null(), |v| v.as_mut_ptr()),
                    validity: validity.map_or(null(), |at| to.wrapping_add(at)),
                })
            })
            .collect();
        // SAFETY: the places were handed out for `rows` rows; nobody else knows of the tail, and
        // the windows on the rest are sealed.
        let finished = unsafe { zones::finish(&open, rows, interrupt) }?;
        drop(open);

        let mut finished = finished.into_iter();
        let mut all_zones = Vec::with_capacity(count);
        let mut columns = Vec::with_capacity(count);
        let mut extents = vec![tail];
        let tail = extents.first().map_or(0, Extent::offset);
        for (column, validity) in self.columns.iter_mut().zip(validity) {
            let dtype = column.field.data_type();
            let place = |at: usize, len: usize| match len {
                0 => Place::default(),
                len => Place { offset: offset + at as u64, len: len as u64 },
            };
            let buffer = match &mut column.part {
                Part::Values { width, at } => place(*at, rows * *width),
                Part::Bits { at, .. } => place(*at, rows.div_ceil(8)),
                Part::Nothing => {
                    let mut zones = ColumnZones::new(dtype);
                    // SAFETY: no bitmap.
                    unsafe { zones.count_nulls(std::ptr::null(), rows) };
                    all_zones.push(zones);
                    columns.push(Arc::new(Column {
                        len: rows as u64,
                        null_count: Some(rows as u64),
                        validity: Place::default(),
                        buffers: Vec::new(),
                        children: Vec::new(),
                    }));
                    continue;
                }
                Part::Given(given) => {
                    let Some(given) = given.take() else { continue };
                    let made = given.layout.chunks.first();
                    let made = made.and_then(|chunk| chunk.columns.first().cloned());
                    let made =
                        made.ok_or_else(|| Error::corrupt("a column was made of nothing"))?;
                    all_zones.push(super::nulls_of(shared, dtype, &made)?);
                    columns.push(made);
                    extents.extend(given.extents);
                    continue;
                }
            };
            if !buffer.is_absent() {
                let at = (buffer.offset - offset) as usize;
                // SAFETY: places are padded to whole lines.
                unsafe { zero_padding(base.wrapping_add(at), buffer.len as usize) };
            }
            let Some(done) = finished.next() else {
                return Err(Error::corrupt("a column was not finished"));
            };
            let mut bitmap = Place::default();
            if let Some(at) = validity.filter(|_| done.nulls > 0) {
                // SAFETY: as above.
                unsafe { zero_padding(to.wrapping_add(at), rows.div_ceil(8)) };
                bitmap = Place { offset: tail + at as u64, len: rows.div_ceil(8) as u64 };
                if !column.field.is_nullable() {
                    // SAFETY: the bytes are as many as rows.
                    let row = (0..rows).find(|row| unsafe {
                        column.valid.as_ref().is_some_and(|v| v.as_mut_ptr().add(*row).read() == 0)
                    });
                    return Err(Error::InvalidData(format!(
                        "column {:?} is declared without nulls but row {} is null",
                        column.field.name(),
                        row.unwrap_or_default()
                    )));
                }
            }
            all_zones.push(done.zones);
            columns.push(Arc::new(Column {
                len: rows as u64,
                null_count: Some(done.nulls),
                validity: bitmap,
                buffers: vec![buffer],
                children: Vec::new(),
            }));
        }
        let len = statistics::size(count, zones);
        // SAFETY: the place was handed out for as many zones of as many columns.
        unsafe { statistics::write(to.wrapping_add(statistics), &all_zones, zones) };
        extents.extend(self.memory.extent.take());
        let stats = all_zones.iter().map(ColumnZones::hints).collect();
        let statistics = Place { offset: tail + statistics as u64, len: len as u64 };
        let chunks = vec![Arc::new(Chunk { rows: rows as u64, columns })];
        Ok(Made {
            extents,
            layout: Layout { rows: rows as u64, chunks, statistics, origin: 0 },
            stats,
        })
    }
}

/// A sheet of a byte per row, made when it is first asked for.
fn open(sheet: &mut Option<Arc<Sheet>>, rows: usize, valid: bool) -> Result<Arc<Sheet>> {
    if let Some(sheet) = sheet {
        return Ok(sheet.clone());
    }
    let made = Sheet::private(rows as u64)?;
    if valid {
        // SAFETY: the sheet has a byte per row, and nobody else knows of it.
        unsafe { made.as_mut_ptr().write_bytes(1, rows) };
    }
    Ok(sheet.insert(made).clone())
}

/// Stores which rows of the arrays are valid.
fn mark_valid(sheet: &mut Option<Arc<Sheet>>, rows: usize, arrays: &[ArrayData]) -> Result<()> {
    if sheet.is_none() && arrays.iter().all(|data| data.null_count() == 0) {
        return Ok(());
    }
    let to = open(sheet, rows, true)?.as_mut_ptr();
    let mut row = 0;
    for data in arrays {
        // SAFETY: the rows of all arrays are as many as the sheet has bytes.
        unsafe {
            let to = to.add(row);
            match data.nulls() {
                Some(nulls) => {
                    pack::unpack(nulls.validity().as_ptr(), nulls.offset(), data.len(), to);
                }
                None => to.write_bytes(1, data.len()),
            }
        }
        row += data.len();
    }
    Ok(())
}

/// Zeroes memory, on all threads.
fn clear(to: *mut u8, bytes: usize) {
    struct To(*mut u8);
    // SAFETY: an address; each task zeroes its own part.
    unsafe impl Sync for To {}
    let to = To(to);
    let work = |task: usize| {
        let (to, at) = (&to, task * ZEROED);
        // SAFETY: within the bytes that the caller owns.
        unsafe { to.0.add(at).write_bytes(0, ZEROED.min(bytes - at)) };
    };
    let tasks = bytes.div_ceil(ZEROED);
    if parallel(tasks, bytes as f64 / 10.0, &|| false, &work) != Ended::Done {
        (0..tasks).for_each(work);
    }
}

/// # Errors
/// `Unsupported` for the types that a region does not hold.
pub(crate) fn check_types(schema: &Schema) -> Result<()> {
    schema.fields().iter().try_for_each(|field| {
        ingest::check_type(field.data_type()).map_err(|e| ingest::in_column(e, field.name()))?;
        shape(field.data_type()).map(drop)
    })
}
