//! Writing into a published table by hand: the values of its fixed-width columns as memory to store
//! into, over the old ones where nobody else has a part in them, else in copies that are swapped in.
//!
//! Over the old values, the table is exclusively leased from beginning to end, as for an update in
//! place, and poisoned if the process dies after the first column was asked for. Beside them, only
//! the columns that are asked for are copied, and nobody sees them before the end. In both ways what
//! was handed out is read-only afterwards.
//!
//! Booleans are handed out as bytes, and columns of several chunks as one run of values: both lie in
//! private memory, and are brought to their places at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, SchemaRef};
use insitu_kernels::copy::zero_padding;
use insitu_region::{
    Exclusive as Lease, Extent, ForkMutex, Obstacle, Part, Pin, Updater, fork_generation,
};

use crate::builder::sheet::{Canvas, Sheet};
use crate::builder::{exact, pack};
use crate::error::{Error, Result};
use crate::exclusive::Loan;
use crate::layout::{Layout, Place, fixed_width};
use crate::manifest;
use crate::storage::Storage;
use crate::table::Table;
use crate::update::{TURN, Targets, UpdateOptions};
use crate::version::{Meta, Version};

/// Bytes of a column's values up to which they are looked at again for the statistics: some hundred
/// microseconds.
const LOOKED_AT: u64 = 4 << 20;
/// Less would be a block that shares its pages with others'.
const OWN_PAGES: u64 = (32 << 10) + 64;

/// A table that is being written by hand. Dropped without [`Writing::finish`], it is given up.
pub struct Writing {
    table: Table,
    meta: Arc<Meta>,
    state: ForkMutex<Option<Open>>,
    /// The process that began it.
    process: u64,
}

struct Open {
    /// What is written to, or beside.
    shown: Arc<Version>,
    way: Way,
    columns: BTreeMap<usize, Written>,
}

/// Where the values go.
enum Way {
    /// Over the old ones; the content version of the change, once it was begun.
    Over(Grip, Option<u64>),
    /// Beside them.
    Beside(Updater),
    /// Beside them, while the thread has the table exclusively.
    BesideOwn(Loan),
}

/// An exclusive lease for the writing, or that of the block around it.
enum Grip {
    New(Lease),
    Own(Loan),
}

impl Grip {
    fn lease(&self) -> Result<&Lease> {
        match self {
            Grip::New(lease) => Ok(lease),
            Grip::Own(loan) => loan.lease(),
        }
    }
}

/// A column that was handed out.
struct Written {
    sheet: Arc<Sheet>,
    canvas: Canvas,
    /// What the sheet shows, if it is not the table's own memory and not private.
    extent: Option<Extent>,
    /// Whether the values have yet to be brought to their places.
    detached: bool,
}

impl Table {
    /// Begins to write values by hand. Nobody else reads or changes the table until the end, unless
    /// it must be done beside the old values: because another table or result shares them, the
    /// last flush made them durable, or a process has the region open read-only.
    ///
    /// # Errors
    /// `LeaseHeld` if others read or update it longer than the timeout (none: not at all, and ten
    /// seconds for an update), or this process does; `Stale` if it was replaced or deleted;
    /// `Poisoned`, `ReadOnly`, `Cancelled`; `Unsupported` for a result without a name.
    pub fn writable(&self, options: UpdateOptions<'_>) -> Result<Writing> {
        self.region().shared.check_open()?;
        let seen = self.version()?;
        let Storage::Named(pin) = &seen.storage else {
            return Err(Error::Unsupported(
                "a result without a name cannot be written by hand: give it one with put".into(),
            ));
        };
        if let Some(mut loan) = self.own_lease(&pin.follow()?) {
            loan.regain(&options)?;
            let lease = loan.lease()?;
            let shown = self.at(lease.pin())?;
            let targets = writable(&shown);
            let over = targets.overlap(&shown).is_none()
                && lease.updater().obstacle(targets.places())?.is_none();
            let way = match over {
                true => Way::Over(Grip::Own(loan), None),
                false => Way::BesideOwn(loan),
            };
            return Ok(self.writing(shown, way));
        }
        let updater = pin.updater(&options.patience(TURN)).map_err(|e| self.behind(e))?;
        drop(seen);
        let shown = self.at(updater.pin())?;
        let targets = writable(&shown);
        let over = |updater: &Updater| {
            let obstacle = updater.obstacle(targets.places())?;
            Ok::<_, Error>(matches!(obstacle, None | Some(Obstacle::Leased)))
        };
        let way = if targets.overlap(&shown).is_some() || !over(&updater)? {
            Way::Beside(updater)
        } else {
            let lease = updater.exclusive(&options.patience(Duration::ZERO)).map_err(|(_, e)| e)?;
            match over(lease.updater())? {
                true => Way::Over(Grip::New(lease), None),
                false => Way::Beside(lease.into_updater()),
            }
        };
        Ok(self.writing(shown, way))
    }

    fn writing(&self, shown: Arc<Version>, way: Way) -> Writing {
        let meta = shown.meta.clone();
        let open = Open { shown, way, columns: BTreeMap::new() };
        let (table, state) = (self.clone(), ForkMutex::new(Some(open)));
        Writing { table, meta, state, process: fork_generation() }
    }
}

impl Writing {
    /// The schema of the table.
    pub fn schema(&self) -> &SchemaRef {
        &self.meta.arrow
    }

    /// The number of its rows.
    pub fn num_rows(&self) -> u64 {
        self.meta.layout.rows
    }

    /// Whether it was neither finished nor given up.
    pub fn is_open(&self) -> bool {
        self.state.lock().is_some()
    }

    /// The position of a column.
    ///
    /// # Errors
    /// `UnknownColumn` with the nearest name.
    pub fn column_index(&self, name: &str) -> Result<usize> {
        Ok(self.meta.query.index_of(name)?)
    }

    /// Refuses a forked child: the table is still its parent's to write.
    fn check_process(&self) -> Result<()> {
        if self.process == fork_generation() {
            return Ok(());
        }
        Err(Error::Stale(
            "the block was begun by the parent process, which goes on with it; begin another in \
             the child"
                .into(),
        ))
    }

    /// A column's values, to be stored into; of booleans a byte each. Which rows are null does not
    /// change.
    ///
    /// # Errors
    /// `TypeMismatch` for columns whose values have no fixed width; `RegionFull` where they have to
    /// be copied; `InvalidArgument` if it was finished or given up; `Stale` in a forked child.
    pub fn values(&self, index: usize) -> Result<Canvas> {
        self.check_process()?;
        let mut state = self.state.lock();
        let open = state.as_mut().ok_or_else(|| {
            Error::InvalidArgument("the block has ended; begin another with writable()".into())
        })?;
        if let Some(written) = open.columns.get(&index) {
            return Ok(written.canvas.clone());
        }
        let written = self.open(&open.shown, &mut open.way, index)?;
        let canvas = written.canvas.clone();
        open.columns.insert(index, written);
        Ok(canvas)
    }

    fn open(&self, shown: &Version, way: &mut Way, index: usize) -> Result<Written> {
        let shared = &self.table.region().shared;
        let Some(field) = self.meta.arrow.fields().get(index) else {
            return Err(Error::InvalidArgument(format!("there is no column {index}")));
        };
        let Some(width) = width(field.data_type()) else {
            return Err(Error::TypeMismatch(format!(
                "column {:?} is of type {}, whose values have no fixed width to be stored one by \
                 one; make a new column of them, and put the table again",
                field.name(),
                field.data_type()
            )));
        };
        if let Way::Over(grip, begun @ None) = way {
            // From here on a death leaves what nobody can tell from a half of it.
            *begun = Some(grip.lease()?.begin()?);
        }
        let boolean = *field.data_type() == DataType::Boolean;
        let chunks = &self.meta.layout.chunks;
        let bytes = exact(self.num_rows().saturating_mul(width))?;
        let width = exact(width)?;
        let places = self.places(index);
        if let ([place], false) = (places.as_slice(), boolean)
            && !place.is_absent()
        {
            let mut offset = place.offset;
            let mut extent = None;
            if let Way::Beside(_) | Way::BesideOwn(_) = way {
                let copy = shared.allocate(place.len.max(OWN_PAGES))?;
                let from = shown.address(*place)?;
                // SAFETY: the version keeps the source, the extent is ours, and as long.
                unsafe { copy.as_mut_ptr().copy_from_nonoverlapping(from, bytes) };
                shared.counters.copy(place.len);
                offset = copy.offset();
                extent = Some(copy);
            }
            let sheet = Sheet::new(shared.region.window(offset, place.len)?);
            let canvas = Canvas::new(sheet.clone(), 0, bytes);
            return Ok(Written { sheet, canvas, extent, detached: false });
        }
        let sheet = Sheet::private(bytes as u64)?;
        let mut to = sheet.as_mut_ptr();
        for (chunk, place) in chunks.iter().zip(&places) {
            let rows = exact(chunk.rows)?;
            let from = shown.address(*place)?;
            if from.is_null() {
                continue;
            }
            // SAFETY: a chunk's buffer has its rows, and the sheet has those of all chunks.
            unsafe {
                match boolean {
                    true => pack::unpack(from, 0, rows, to),
                    false => to.copy_from_nonoverlapping(from, rows * width),
                }
            }
            to = to.wrapping_add(rows * width);
        }
        shared.counters.copy(bytes as u64);
        let canvas = Canvas::new(sheet.clone(), 0, bytes);
        Ok(Written { sheet, canvas, extent: None, detached: true })
    }

    /// Where the values of a column lie, chunk by chunk.
    fn places(&self, index: usize) -> Vec<Place> {
        let chunks = self.meta.layout.chunks.iter();
        let column = chunks.map(|chunk| chunk.columns.get(index));
        column.map(|c| c.and_then(|c| c.buffers.first()).copied().unwrap_or_default()).collect()
    }

    /// Ends the writing: all see the new values. What was handed out is read-only from now on.
    ///
    /// # Errors
    /// `Stale` if the table was replaced or deleted meanwhile, `RegionFull` where values were
    /// written beside the old ones; `InvalidArgument` if it was finished or given up before;
    /// `Stale` in a forked child.
    pub fn finish(&self) -> Result<()> {
        self.check_process()?;
        let open = self.state.lock().take();
        let open = open.ok_or_else(|| Error::InvalidArgument("the block has ended".into()))?;
        let Open { shown, way, columns } = open;
        for written in columns.values() {
            written.sheet.seal()?;
        }
        let pin = match way {
            Way::Over(_, None) => return Ok(()),
            Way::Over(grip, Some(content)) => {
                let lease = grip.lease()?;
                // Also if the table has lost its name: what was handed out shows its memory.
                columns.values().for_each(|written| written.sheet.keep(lease.pin()));
                for (index, written) in columns.iter().filter(|(_, written)| written.detached) {
                    self.bring(*index, written, &|_, place| {
                        Ok(lease.as_mut_ptr(place.offset, padded(place))?)
                    })?;
                }
                let changed: Vec<usize> = columns.keys().copied().collect();
                // Statistics are hints: without them the values are no less what they are.
                let _ = self.renew(lease, &shown, &changed, content);
                lease.finish()?;
                self.table.region().shared.counters.updated_in_place();
                lease.pin().clone()
            }
            Way::Beside(_) | Way::BesideOwn(_) if columns.is_empty() => return Ok(()),
            Way::Beside(updater) => self.swap(updater, &shown, &columns)?,
            Way::BesideOwn(mut loan) => {
                // What was written is there by then, and nobody could interrupt a wait.
                let timeout = Some(Duration::ZERO);
                let options =
                    UpdateOptions { timeout, what: "writable", ..UpdateOptions::default() };
                loan.swap(&options, |updater| self.swap(updater, &shown, &columns))?
            }
        };
        columns.values().for_each(|written| written.sheet.keep(&pin));
        self.table.at(&pin)?;
        Ok(())
    }

    /// Ends the writing because something went wrong. What was stored over old values stays; what
    /// was stored in copies is forgotten, and shown as zeros from now on.
    ///
    /// # Errors
    /// `Stale` if the table was replaced or deleted meanwhile, and values were stored over it.
    pub fn abandon(&self) -> Result<()> {
        self.give_up(Lease::finish)
    }

    fn give_up(&self, finish: fn(&Lease) -> insitu_region::Result<()>) -> Result<()> {
        let open = self.state.lock().take();
        let Some(Open { shown: _shown, way, columns }) = open else { return Ok(()) };
        match way {
            Way::Over(grip, begun) => {
                let lease = grip.lease()?;
                for written in columns.values() {
                    match written.detached {
                        true => written.sheet.revoke(),
                        false => {
                            written.sheet.seal()?;
                            written.sheet.keep(lease.pin());
                        }
                    }
                }
                if begun.is_some() { Ok(finish(lease)?) } else { Ok(()) }
            }
            Way::Beside(_) | Way::BesideOwn(_) => {
                columns.values().for_each(|written| written.sheet.revoke());
                Ok(())
            }
        }
    }

    /// Brings a column's values from private memory to their places.
    fn bring(
        &self,
        index: usize,
        written: &Written,
        address: &dyn Fn(usize, Place) -> Result<*mut u8>,
    ) -> Result<()> {
        let dtype = self.meta.arrow.fields().get(index).map(|field| field.data_type());
        let boolean = dtype == Some(&DataType::Boolean);
        let width = exact(dtype.and_then(width).unwrap_or(1))?;
        let mut from = written.sheet.as_mut_ptr().cast_const();
        let chunks = self.meta.layout.chunks.iter().zip(self.places(index));
        for (number, (chunk, place)) in chunks.enumerate() {
            let rows = exact(chunk.rows)?;
            if !place.is_absent() {
                let to = address(number, place)?;
                // SAFETY: the address has the place's bytes to the end of their last line, and is
                // nobody else's; the sheet has the rows of all chunks.
                unsafe {
                    match boolean {
                        true => {
                            pack::pack(from, rows, to);
                        }
                        false => to.copy_from_nonoverlapping(from, rows * width),
                    }
                }
            }
            from = from.wrapping_add(rows * width);
        }
        Ok(())
    }

    /// Keeps the statistics true of values that were written over the old ones: those of the other
    /// columns stay, and small ones that were written are looked at. To look at all of a large one,
    /// of which perhaps a few rows were written, would take longer than the writing.
    fn renew(&self, lease: &Lease, shown: &Version, changed: &[usize], content: u64) -> Result<()> {
        let Some(zones) = self.table.zones(lease, shown, changed, shown.content)? else {
            return Ok(());
        };
        let chunks = &shown.view()?.chunks;
        for (at, index) in changed.iter().enumerate() {
            if self.places(*index).iter().map(|place| place.len).sum::<u64>() <= LOOKED_AT {
                // SAFETY: the views show the table's columns.
                unsafe { zones.look(at, chunks) };
            } else {
                zones.forget(at);
            }
        }
        zones.finish(content);
        Ok(())
    }

    /// Publishes a version with the written columns in place of the old, or takes their memory back.
    fn swap(
        &self,
        updater: Updater,
        shown: &Version,
        columns: &BTreeMap<usize, Written>,
    ) -> Result<Pin> {
        let swapped = self.publish(updater, shown, columns);
        if swapped.is_err() {
            columns.values().for_each(|written| written.sheet.revoke());
        }
        swapped
    }

    fn publish(
        &self,
        updater: Updater,
        shown: &Version,
        columns: &BTreeMap<usize, Written>,
    ) -> Result<Pin> {
        let shared = &self.table.region().shared;
        let old = updater.pin().clone();
        let mut layout: Layout = self.meta.layout.clone();
        let mut extents = Vec::new();
        for (index, written) in columns {
            let mut places = self.places(*index);
            match &written.extent {
                Some(extent) => {
                    for place in &mut places {
                        place.offset = extent.offset();
                        // SAFETY: the extent is padded to whole lines, and sealed to others.
                        unsafe { zero_padding(extent.as_mut_ptr(), exact(place.len)?) };
                    }
                }
                None => {
                    let bytes = places.iter().map(|place| padded(*place)).sum::<u64>();
                    let extent = shared.allocate(bytes)?;
                    let mut next = 0;
                    let mut starts = Vec::with_capacity(places.len());
                    for place in &mut places {
                        let start = extent.as_mut_ptr().wrapping_add(next as usize);
                        starts.push(start);
                        let len = padded(*place);
                        if !place.is_absent() {
                            // SAFETY: within the extent.
                            unsafe { zero_padding(start, exact(place.len)?) };
                            place.offset = extent.offset() + next;
                        }
                        next += len;
                    }
                    self.bring(*index, written, &|number, _| {
                        let start = starts.get(number).copied();
                        start.ok_or_else(|| Error::corrupt("a buffer was lost on the way"))
                    })?;
                    extents.push(extent);
                }
            }
            for (chunk, place) in layout.chunks.iter_mut().zip(places) {
                if let Some(column) = Arc::make_mut(chunk).columns.get_mut(*index)
                    && let Some(values) = Arc::make_mut(column).buffers.first_mut()
                {
                    *values = place;
                }
            }
        }
        let changed: Vec<usize> = columns.keys().copied().collect();
        layout.statistics = Place::default();
        extents.extend(self.table.count_zones(shown, &changed, &mut layout)?);
        layout.origin = self.meta.layout.origin_of(old.sequence());
        let kept = layout.extents_in(&old.extents()?);
        let message = manifest::encode(&self.meta.arrow, &layout)?;
        let mut parts = vec![Part::Extents(&old, &kept)];
        let own = columns.values().filter_map(|written| written.extent.as_ref());
        parts.extend(own.chain(&extents).map(Part::Owned));
        let pin = updater.swap(&parts, &message)?;
        shared.counters.updated_swapped();
        Ok(pin)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = self.give_up(Lease::finish_now);
    }
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Writing").field(&self.table).finish()
    }
}

/// The values of all columns that can be written by hand.
fn writable(version: &Version) -> Targets {
    let fields = version.meta.arrow.fields().iter().enumerate();
    let fixed = fields.filter(|(_, field)| width(field.data_type()).is_some());
    Targets::of(version, &fixed.map(|(index, _)| index).collect::<Vec<_>>())
}

/// Bytes per value as they are handed out; of booleans one.
fn width(dtype: &DataType) -> Option<u64> {
    match dtype {
        DataType::Boolean => Some(1),
        other => fixed_width(other).filter(|width| *width > 0),
    }
}

/// The bytes of a place to the end of its last line.
fn padded(place: Place) -> u64 {
    place.len.checked_next_multiple_of(manifest::ALIGN).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
