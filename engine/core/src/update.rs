//! Updates of a table: over its old values, under an exclusive lease, where nobody else has them;
//! else beside them, in fresh buffers, and one step swaps the new version in. From outside both look
//! the same: handles see the new content at their next use, views keep the bytes they saw.
//!
//! One update of a table runs at a time, in all processes, so that what it reads is current when it
//! commits. What decides between the two ways is asked again under the exclusive lease, where the
//! answer cannot change any more.

use std::sync::Arc;
use std::time::Duration;

use insitu_query::{Bound, Context, Expr, Heap, Update, Writable, ZoneSink};
use insitu_region::{Exclusive as Lease, Extent, Obstacle, Part, Patience, Pin, Updater};

use crate::error::{Error, Result};
use crate::exclusive::{Hold, Loan};
use crate::layout::{Layout, Place};
use crate::manifest::{self, ALIGN};
use crate::memory::ResultMemory;
use crate::run::{self, Made};
use crate::statistics;
use crate::storage::{Anonymous, Storage};
use crate::table::Table;
use crate::version::{Meta, Version};
use crate::zones::{self, Zones};

mod bitmaps;

/// How long an update waits for another one of the same table, unless it is told.
pub(crate) const TURN: Duration = Duration::from_secs(10);

/// How a table is updated.
#[derive(Clone, Copy, Default)]
pub struct UpdateOptions<'a> {
    /// Over the old values or not at all.
    pub in_place: bool,
    /// Beside the old values in any case: it can be interrupted to the end, and a death leaves the
    /// table as it was.
    pub atomic: bool,
    /// Whether integer arithmetic that leaves its type is `Overflow`; else it wraps.
    pub checked: bool,
    /// How long to wait for another update of the table to end (none: ten seconds), and with
    /// `in_place` also for those who read it (none: not at all).
    pub timeout: Option<Duration>,
    /// Asked now and then on the calling thread, until the first value is written over; true
    /// cancels.
    pub interrupt: Option<&'a dyn Fn() -> bool>,
    /// What for, as [`crate::Region::leases`] shows it to others.
    pub what: &'a str,
}

impl UpdateOptions<'_> {
    fn interrupt(&self) -> &dyn Fn() -> bool {
        self.interrupt.unwrap_or(&|| false)
    }

    /// How long to wait, unless it was told.
    pub(crate) fn patience(&self, default: Duration) -> Patience<'_> {
        let timeout = self.timeout.unwrap_or(default);
        let what = if self.what.is_empty() { "update" } else { self.what };
        Patience { timeout, interrupt: self.interrupt(), what }
    }
}

/// What came of an attempt to write over the old values.
enum Outcome {
    Done,
    /// Not possible, and why.
    Refused(Error),
}

impl Table {
    /// Gives columns new values, in all rows or in those that the condition chooses (null does not
    /// choose). Every right-hand side reads the old values, of all columns and all rows. No column
    /// changes its type, and none is added.
    ///
    /// Where nobody else reads the table, and nothing else has a part in its memory, the values are
    /// written over the old ones; if this process dies on the way, the table is poisoned (see
    /// [`Table::repair`]). Else the new columns are written beside the old, and swapped in. For the
    /// first nulls of a column the table is published once more before, with a bitmap that has none
    /// yet; within an exclusive block such a column is swapped, and where there are other handles on
    /// the table, which would keep the version without.
    ///
    /// # Errors
    /// `UnknownColumn`, `TypeMismatch`, `InvalidArgument`; `CastFailed`, `Overflow`, `InvalidData`
    /// for the first chosen row that fails, before any is changed; `Stale` for a table that was
    /// replaced or deleted; `Poisoned`; `LeaseHeld`, and `Unsupported` with the cause, where it has
    /// to be in place and cannot; `RegionFull`; `ReadOnly`; `Cancelled`.
    pub fn update(
        &self,
        sets: Vec<(Arc<str>, Expr)>,
        condition: Option<Expr>,
        options: UpdateOptions<'_>,
    ) -> Result<()> {
        if options.in_place && options.atomic {
            return Err(Error::InvalidArgument(
                "an update in place is not atomic: ask for one of the two".into(),
            ));
        }
        let (pin, update) = self.updated(sets, condition)?;
        if let Some(loan) = self.own_lease(&pin.follow()?) {
            return self.update_within(loan, &update, options);
        }
        let mut updater = pin.updater(&options.patience(TURN)).map_err(|e| self.behind(e))?;
        drop(pin);
        if options.atomic {
            return self.swap(updater, &update, options).map(drop);
        }
        loop {
            let shown = self.at(updater.pin())?;
            let bound = bind(&update, &shown, options)?;
            let targets = Targets::of(&shown, update.columns());
            // With `in_place`, readers are waited for.
            let cause = obstacle(&updater, &bound, &shown, &targets, !options.in_place)?;
            if let Some(cause) = cause {
                return match options.in_place {
                    true => Err(not_in_place(updater.pin().name(), &cause)),
                    false => self.swap_bound(updater, &shown, &update, &bound, options).map(drop),
                };
            }
            let at_once = Duration::ZERO;
            let mut patience = options.patience(at_once);
            if !options.in_place {
                patience.timeout = at_once;
            }
            let lease = match updater.exclusive(&patience) {
                Ok(lease) => lease,
                Err((updater, insitu_region::Error::LeaseHeld { .. })) if !options.in_place => {
                    return self.swap_bound(updater, &shown, &update, &bound, options).map(drop);
                }
                Err((_, error)) => return Err(error.into()),
            };
            let bare = bound.bare(shown.view()?);
            if bare.is_empty() {
                return match self.write(&lease, &shown, &update, &bound, options)? {
                    Outcome::Done => Ok(()),
                    Outcome::Refused(error) if options.in_place => Err(error),
                    Outcome::Refused(_) => self
                        .swap_bound(lease.into_updater(), &shown, &update, &bound, options)
                        .map(drop),
                };
            }
            if let Some(cause) = bitmap_in_vain(lease.updater(), &bound, &shown)? {
                return match options.in_place {
                    true => Err(not_in_place(lease.pin().name(), &cause)),
                    false => self
                        .swap_bound(lease.into_updater(), &shown, &update, &bound, options)
                        .map(drop),
                };
            }
            // Their first nulls: the same table with bitmaps, then as if they had always been there.
            self.check(&shown, &bound, options)?;
            let next = self.add_bitmaps(lease.into_updater(), &shown, &bare)?;
            drop(shown);
            updater = next.updater(&options.patience(TURN)).map_err(|e| self.behind(e))?;
        }
    }

    /// The error of a row that fails, before anything is done.
    fn check(&self, shown: &Version, bound: &Bound, options: UpdateOptions<'_>) -> Result<()> {
        let heap = Heap::new();
        let mut cx = Context::new(&heap);
        cx.checked = options.checked;
        cx.interrupt = options.interrupt();
        Ok(bound.check(shown.view()?, &cx)?)
    }

    /// What [`Table::update`] would do if it were called now, for people: whether the new values
    /// are written over the old ones, or beside them and swapped in, and why; the order of the rows;
    /// the programs. Computes the aggregates of the new values, and changes nothing.
    ///
    /// # Errors
    /// As [`Table::update`], but for those of rows.
    pub fn explain_update(
        &self,
        sets: Vec<(Arc<str>, Expr)>,
        condition: Option<Expr>,
        options: UpdateOptions<'_>,
    ) -> Result<String> {
        let (pin, update) = self.updated(sets, condition)?;
        let explain = |updater: &Updater, own: bool| {
            let shown = self.at(updater.pin())?;
            let bound = bind(&update, &shown, options)?;
            let targets = Targets::of(&shown, update.columns());
            let cause = obstacle(updater, &bound, &shown, &targets, true)?;
            let fields = shown.meta.arrow.fields();
            let names = update.columns().iter().filter_map(|i| fields.get(*i));
            let names = names.map(|f| format!("{:?}", f.name())).collect::<Vec<_>>().join(", ");
            let of = format!("update of {names} in {:?}", pin.name());
            let why = bitmap_needed(&bound, &shown)?;
            // Within an exclusive block nothing is published but what an update makes.
            let cause = match cause {
                None if own => why.clone(),
                None => bitmap_in_vain(updater, &bound, &shown)?,
                cause => cause,
            };
            let bitmaps =
                why.map_or(String::new(), |why| format!("once there is a bitmap, since {why}\n"));
            Ok(match cause {
                None => format!("{of}: over the old values\n{bitmaps}{}", bound.explain()),
                Some(cause) => format!(
                    "{of}: beside the old values, and swapped in, since {cause}\n{}",
                    bound.explain_beside()
                ),
            })
        };
        if let Some(mut loan) = self.own_lease(&pin.follow()?) {
            loan.regain(&options)?;
            return explain(loan.lease()?.updater(), true);
        }
        explain(&pin.updater(&options.patience(TURN)).map_err(|e| self.behind(e))?, false)
    }

    /// What is to be updated, and the update.
    fn updated(
        &self,
        sets: Vec<(Arc<str>, Expr)>,
        condition: Option<Expr>,
    ) -> Result<(Pin, Update)> {
        if sets.is_empty() {
            return Err(Error::InvalidArgument("an update needs a column to give values".into()));
        }
        self.region().shared.check_open()?;
        let seen = self.version()?;
        let update = Update::new(sets, condition, &seen.meta.query)?;
        match &seen.storage {
            Storage::Named(pin) => Ok((pin.clone(), update)),
            Storage::Anonymous(_) => Err(Error::Unsupported(
                "a result without a name cannot be updated: give it one with put, or make another \
                 with with_columns"
                    .into(),
            )),
        }
    }

    /// The error of becoming its updater, which for a handle that is behind an append says so.
    pub(crate) fn behind(&self, error: insitu_region::Error) -> Error {
        if let (insitu_region::Error::Stale(_), Some(name)) = (&error, self.name())
            && let Ok(last) = self.region().shared.region.lookup(name)
            && self.precedes(&last).unwrap_or(false)
        {
            return Error::Stale(format!(
                "rows were appended to the table {name:?} since this handle was made, which stays \
                 with the rows of before; only the last revision can be changed: take latest()"
            ));
        }
        error.into()
    }

    /// Accepts the content of a poisoned table as it is: each row is old or new. Of another table
    /// nothing changes.
    ///
    /// # Errors
    /// `LeaseHeld` while somebody updates it in place; `ReadOnly`, `Stale`.
    pub fn repair(&self) -> Result<()> {
        self.region().shared.check_open()?;
        match &self.version()?.storage {
            Storage::Named(pin) => Ok(pin.repair()?),
            Storage::Anonymous(_) => Ok(()),
        }
    }

    /// Whether an update died on the way, and nobody has accepted what it left.
    pub fn is_poisoned(&self) -> bool {
        self.pin().is_some_and(|pin| pin.is_poisoned())
    }

    /// If so, the `Poisoned` that says who was changing the table.
    pub fn poison(&self) -> Option<Error> {
        self.pin().and_then(|pin| pin.poison()).map(Error::from)
    }

    /// An update under an exclusive lease that this thread has.
    fn update_within(
        &self,
        mut loan: Loan,
        update: &Update,
        options: UpdateOptions<'_>,
    ) -> Result<()> {
        loan.regain(&options)?;
        let lease = loan.lease()?;
        let shown = self.at(lease.pin())?;
        let bound = bind(update, &shown, options)?;
        if !options.atomic {
            match self.write(lease, &shown, update, &bound, options)? {
                Outcome::Done => return Ok(()),
                Outcome::Refused(error) if options.in_place => return Err(error),
                Outcome::Refused(_) => {}
            }
        }
        let swap = |updater| self.swap_bound(updater, &shown, update, &bound, options);
        loan.swap(&options, swap).map(drop)
    }

    /// Writes over the old values, unless something stands in the way.
    fn write(
        &self,
        lease: &Lease,
        shown: &Version,
        update: &Update,
        bound: &Bound,
        options: UpdateOptions<'_>,
    ) -> Result<Outcome> {
        let view = shown.view()?;
        let targets = Targets::of(shown, update.columns());
        let cause = match obstacle(lease.updater(), bound, shown, &targets, true)? {
            None => bitmap_needed(bound, shown)?,
            cause => cause,
        };
        if let Some(cause) = cause {
            return Ok(Outcome::Refused(not_in_place(lease.pin().name(), &cause)));
        }
        let heap = Heap::new();
        let mut cx = Context::new(&heap);
        cx.checked = options.checked;
        let interrupt = options.interrupt();
        cx.interrupt = interrupt;
        let ready = bound.ready(view, &cx)?;
        if interrupt() {
            return Err(Error::Cancelled);
        }
        let places = targets.writable(lease)?;
        let writing = ready.lists(view)?;
        // Of the statistics, as long as nobody else has a part in them.
        let was_true = lease.pin().content_version();
        let mut zones = self.zones(lease, shown, update.columns(), was_true)?;
        let content = lease.begin()?;
        let written = {
            let tell = |column: usize, zone: usize, stats: &insitu_kernels::copy::ZoneStats| {
                if let Some(zones) = &zones {
                    zones.tell(column, zone, stats);
                }
            };
            let every = zones.as_ref().is_some_and(Zones::wants_every_zone);
            let sink = ZoneSink { every, tell: &tell };
            // SAFETY: the exclusive lease keeps all others from reading and writing; the places
            // are those of the view's own buffers, padded, by no one else referred to and without
            // overlap, as was asked under the lease; no update could come between.
            unsafe { writing.write(&places, zones.as_ref().map(|_| &sink)) }
        };
        // Unfinished, the lease poisons the table when it is dropped.
        written?;
        if let Some(zones) = zones.take() {
            zones.finish(content);
        }
        lease.finish()?;
        self.region().shared.counters.updated_in_place();
        self.at(lease.pin())?;
        Ok(Outcome::Done)
    }

    /// The statistics of a table under an exclusive lease, to be kept true while some columns
    /// change; `content` is the content version before.
    pub(crate) fn zones(
        &self,
        lease: &Lease,
        shown: &Version,
        changed: &[usize],
        content: u64,
    ) -> Result<Option<Zones>> {
        let place = shown.meta.layout.statistics;
        if place.is_absent() || lease.updater().obstacle(&[padded(place)])?.is_some() {
            return Ok(None);
        }
        let (offset, len) = padded(place);
        let base = lease.as_mut_ptr(offset, len)?;
        let len = usize::try_from(place.len).unwrap_or(0);
        let types = types_of(&shown.meta);
        let chunks = chunks_of(&shown.meta.layout);
        // SAFETY: the range was checked by `as_mut_ptr`; nobody else writes there, and who reads it
        // believes it only at the content version that comes last.
        Ok(unsafe {
            let rest = zones::are_true(base, len, content);
            Zones::of(base, len, &types, chunks, changed, rest)
        })
    }

    fn swap(&self, updater: Updater, update: &Update, options: UpdateOptions<'_>) -> Result<Pin> {
        let shown = self.at(updater.pin())?;
        let bound = bind(update, &shown, options)?;
        self.swap_bound(updater, &shown, update, &bound, options)
    }

    /// Writes the new columns beside the old, and swaps the new version in.
    fn swap_bound(
        &self,
        updater: Updater,
        shown: &Arc<Version>,
        update: &Update,
        bound: &Bound,
        options: UpdateOptions<'_>,
    ) -> Result<Pin> {
        let shared = &self.region().shared;
        let interrupt = options.interrupt();
        let lease = updater.pin().lease_while("update")?;
        let memory = ResultMemory::new(shared, true);
        let mut cx = Context::new(&memory);
        cx.checked = options.checked;
        cx.interrupt = interrupt;
        let output = bound.compute(shown.view()?, &cx)?;
        let Made { mut layout, mut keep, .. } =
            run::assemble(shown, Hold::Shared(lease.clone()), memory, output, interrupt)?;
        let zones = self.count_zones(shown, update.columns(), &mut layout)?;
        keep.extents.extend(zones.map(Arc::new));
        if interrupt() {
            return Err(Error::Cancelled);
        }
        let old = updater.pin().clone();
        let kept = layout.extents_in(&old.extents()?);
        let mut parts: Vec<Part<'_>> = keep.extents.iter().map(|e| Part::Owned(e)).collect();
        parts.push(Part::Extents(&old, &kept));
        layout.origin = shown.meta.layout.origin_of(old.sequence());
        let message = manifest::encode(&shown.meta.arrow, &layout)?;
        let pin = updater.swap(&parts, &message)?;
        drop(parts);
        shared.counters.updated_swapped();
        self.at(&pin)?;
        Ok(pin)
    }

    /// Gives a version that is about to be swapped in, with some columns changed, a statistics
    /// buffer of its own. The caller has what its layout says of new memory.
    pub(crate) fn count_zones(
        &self,
        shown: &Version,
        changed: &[usize],
        layout: &mut Layout,
    ) -> Result<Option<Extent>> {
        let (types, chunks) = (types_of(&shown.meta), chunks_of(layout));
        let zones = statistics::zones(chunks.iter().copied());
        let bytes = statistics::size(types.len(), zones);
        if zones == 0 {
            return Ok(None);
        }
        let old = shown.meta.layout.statistics;
        let mut from = shown.address(old)?;
        let len = usize::try_from(old.len).unwrap_or(0);
        // SAFETY: `address` checked the range.
        unsafe {
            if !zones::are_true(from, len, shown.content)
                || !zones::are_of(from, len, types.len(), zones)
            {
                from = std::ptr::null();
            }
        }
        let extent = self.region().shared.allocate(bytes as u64)?;
        // SAFETY: the extent is ours alone, and has room for that many columns and zones, as the
        // old buffer has.
        let made = unsafe { Zones::make(extent.as_mut_ptr(), from, &types, chunks, changed) };
        layout.statistics = Place { offset: extent.offset(), len: bytes as u64 };
        // A version of its own, whose views show what is about to be published.
        let meta = Arc::new(Meta::new(shown.meta.arrow.clone(), layout.clone(), None));
        let storage = Storage::Anonymous(Anonymous::default());
        let next = Version::new(self.region().clone(), meta, storage, 0);
        let view = next.view()?;
        for index in 0..changed.len() {
            // SAFETY: the views are of this table's columns; the caller keeps what they show.
            unsafe { made.look(index, &view.chunks) };
        }
        made.finish(0);
        Ok(Some(extent))
    }
}

/// The update, for the version that is to be updated. Who calls is its updater, so that nobody
/// changes it in place meanwhile.
fn bind(update: &Update, shown: &Version, options: UpdateOptions<'_>) -> Result<Bound> {
    let heap = Heap::new();
    let mut cx = Context::new(&heap);
    cx.checked = options.checked;
    cx.interrupt = options.interrupt();
    Ok(update.bind(shown.view()?, &cx)?)
}

/// Why the update cannot write over the old values; `readers`: whether they are a reason.
fn obstacle(
    updater: &Updater,
    bound: &Bound,
    shown: &Version,
    targets: &Targets,
    readers: bool,
) -> Result<Option<String>> {
    if let Some(cause) = bound.obstacle(shown.view()?).or_else(|| targets.overlap(shown)) {
        return Ok(Some(cause));
    }
    let obstacle = updater.obstacle(&targets.places)?;
    Ok(obstacle.filter(|o| readers || !matches!(o, Obstacle::Leased)).map(|o| o.to_string()))
}

/// Which column needs a bitmap before it can be written over, if one does.
fn bitmap_needed(bound: &Bound, shown: &Version) -> Result<Option<String>> {
    let bare = bound.bare(shown.view()?);
    let field = bare.first().and_then(|i| shown.meta.arrow.fields().get(*i));
    Ok(field.map(|field| {
        format!(
            "the column {:?} has no nulls so far, and its new values may have some: it needs a bitmap",
            field.name()
        )
    }))
}

/// Why a bitmap that is needed cannot be had in a version of its own: who else has a handle on the
/// table keeps the version before, which shares the values, and is woken by one that is not changed
/// yet.
fn bitmap_in_vain(updater: &Updater, bound: &Bound, shown: &Version) -> Result<Option<String>> {
    match bitmap_needed(bound, shown)? {
        Some(why) if updater.has_others()? => {
            Ok(Some(format!("{why}, and there are other handles on the table")))
        }
        _ => Ok(None),
    }
}

fn not_in_place(name: &str, cause: &str) -> Error {
    Error::Unsupported(format!(
        "the table {name:?} cannot be updated in place: {cause}. Without in_place, the update writes \
         fresh columns and swaps them in"
    ))
}

/// A buffer with its padding, as the region counts.
fn padded(place: Place) -> (u64, u64) {
    (place.offset, place.len.checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX))
}

fn types_of(meta: &Meta) -> Vec<&arrow_schema::DataType> {
    meta.arrow.fields().iter().map(|f| f.data_type()).collect()
}

/// The rows of each chunk.
fn chunks_of(layout: &Layout) -> Vec<usize> {
    layout.chunks.iter().map(|c| usize::try_from(c.rows).unwrap_or(usize::MAX)).collect()
}

/// The buffers that an update writes to.
pub(crate) struct Targets {
    /// Per chunk, per column of the update: values and validity.
    buffers: Vec<Vec<(Place, Place)>>,
    /// All of them, with their padding.
    places: Vec<(u64, u64)>,
}

impl Targets {
    /// Values and validity of some columns.
    pub fn of(version: &Version, columns: &[usize]) -> Targets {
        let mut places = Vec::new();
        let buffers = version.meta.layout.chunks.iter().map(|chunk| {
            let columns = columns.iter().map(|i| {
                let column = chunk.columns.get(*i);
                let values = column.and_then(|c| c.buffers.first()).copied().unwrap_or_default();
                let validity = column.map_or(Place::default(), |c| c.validity);
                let there = [values, validity].into_iter().filter(|place| !place.is_absent());
                places.extend(there.map(padded));
                (values, validity)
            });
            columns.collect()
        });
        let buffers = buffers.collect();
        Targets { buffers, places }
    }

    /// All of them, (offset, bytes) with padding, as the region counts.
    pub fn places(&self) -> &[(u64, u64)] {
        &self.places
    }

    /// Whether another buffer of the table lies where the update would write: two columns may be
    /// one, and nothing in a manifest keeps buffers apart.
    pub fn overlap(&self, version: &Version) -> Option<String> {
        let mut all: Vec<(u64, u64, usize)> = Vec::new();
        version.meta.layout.each_place(&mut |column, place| {
            let (offset, len) = padded(place);
            all.push((offset, offset.saturating_add(len), column));
        });
        let (offset, len) = padded(version.meta.layout.statistics);
        all.push((offset, offset.saturating_add(len), usize::MAX));
        all.sort_unstable();
        let mut targets = self.places.clone();
        targets.sort_unstable();
        let mut end = (0, 0);
        for (from, to, column) in all {
            if from < end.0 {
                let hit = |(offset, len): &(u64, u64)| {
                    *offset < to.min(end.0) && offset.saturating_add(*len) > from
                };
                if targets.iter().any(hit) {
                    let number = if column == usize::MAX { end.1 } else { column };
                    let name = version.meta.arrow.fields().get(number).map(|f| f.name().clone());
                    let name = name.unwrap_or_default();
                    return Some(format!("the column {name:?} shares its memory with another"));
                }
            }
            if to > end.0 {
                end = (to, column);
            }
        }
        None
    }

    fn writable(&self, lease: &Lease) -> Result<Vec<Vec<Writable>>> {
        let address = |place: Place| match place.is_absent() {
            true => Ok(std::ptr::null_mut()),
            false => lease.as_mut_ptr(padded(place).0, padded(place).1),
        };
        let mut out = Vec::with_capacity(self.buffers.len());
        for chunk in &self.buffers {
            let columns = chunk.iter().map(|(values, validity)| {
                Ok(Writable { values: address(*values)?, validity: address(*validity)? })
            });
            out.push(columns.collect::<Result<Vec<Writable>>>()?);
        }
        Ok(out)
    }
}
