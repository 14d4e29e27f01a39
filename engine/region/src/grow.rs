//! Extents that grow at their end without moving: for builders that do not know how much will come.
//!
//! The arena's span is four times the capacity, and rows and bits exist only where something lies,
//! so that memory to be grown is given a place far from all others, in the upper half of the span,
//! and takes granule after granule behind its end. Only when it meets another extent there does it
//! move, which costs a copy. What is reserved counts against the capacity, what lies between does
//! not. Sealed, it is an extent like any other, and gives its unused end back.
//!
//! As everywhere, memory has an owner before it is used: to grow, the session's record is made
//! longer first, to shrink, shorter first; who rebuilds after a death in between goes by the record.

use crate::arena::{Claim, Raw, granules, rounded};
use crate::error::{Error, FullCause, Result};
use crate::extent::Extent;
use crate::kill;
use crate::layout::{GRANULE, GRANULES_PER_BLOCK};
use crate::memory::{passes, wait_for_reader};
use crate::region::Region;
use crate::reserve::Failure;
use crate::session::{Deferred, Session};
use crate::writer::Writer;

/// The least that an extent grows by, if the capacity allows: a large page.
const STEP: u64 = 2 << 20;
/// The most that it grows by beyond what is asked for.
const MOST: u64 = 64 << 20;
/// The least that a sealed extent is called: less would make it a block of a slab.
const LEAST: u64 = GRANULE / 2 + 64;

/// Memory of this session that can grow at its end. Freed when dropped.
pub struct Growable {
    extent: Extent,
}

impl std::fmt::Debug for Growable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Growable")
            .field("offset", &self.offset())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// What came of claiming more granules behind an extent.
enum Longer {
    /// Claimed, not reserved yet.
    Done(Raw),
    /// Something else begins there.
    Met,
    /// No room.
    Short,
}

impl Region {
    /// Memory for at least `bytes` bytes that can grow at its end.
    ///
    /// # Errors
    /// As for [`Region::allocate`].
    pub fn grow(&self, bytes: u64) -> Result<Growable> {
        self.grow_with(bytes, &|| false)
    }

    /// The same; `interrupt` is asked now and then while much memory is reserved.
    ///
    /// # Errors
    /// As for [`Region::allocate_with`].
    pub fn grow_with(&self, bytes: u64, interrupt: &dyn Fn() -> bool) -> Result<Growable> {
        let session = self.session()?;
        let raw = session.begin_growing(bytes, interrupt)?;
        Ok(Growable { extent: Extent::new(self.clone(), session, raw)? })
    }
}

impl Growable {
    /// Where it begins, in bytes from the region's start; changes when it moves.
    pub fn offset(&self) -> u64 {
        self.extent.raw.offset
    }

    /// How many bytes are reserved.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u64 {
        self.extent.raw.bytes
    }

    /// Its address in the read-write mapping; changes when it moves.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.extent.as_mut_ptr()
    }

    /// Makes room for `bytes` bytes in all, of which the first `filled` are to be kept. Gives the
    /// bytes that had to be copied because it moved: none, nearly always.
    ///
    /// # Errors
    /// As for [`Region::allocate`]; the extent is as it was.
    pub fn extend(&mut self, bytes: u64, filled: u64) -> Result<u64> {
        self.extend_with(bytes, filled, &|| false)
    }

    /// The same; `interrupt` is asked now and then while much memory is reserved.
    ///
    /// # Errors
    /// As for [`Region::allocate_with`]; the extent is as it was.
    pub fn extend_with(
        &mut self,
        bytes: u64,
        filled: u64,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<u64> {
        let len = self.len();
        if bytes <= len {
            return Ok(0);
        }
        self.extent.check()?;
        let session = self.extent.session.clone();
        let generous = bytes.max(len.saturating_add((len / 4).clamp(STEP, MOST)));
        let generous = generous.checked_next_multiple_of(STEP).unwrap_or(bytes);
        if session.lengthen(&mut self.extent.raw, bytes, generous, interrupt)? {
            return Ok(0);
        }
        // Twice as much room, or it would meet the next one soon.
        let wanted = bytes.max(len.saturating_mul(2));
        let region = self.extent.region().clone();
        let raw = match session.begin_growing(wanted, interrupt) {
            Err(Error::RegionFull { .. }) if wanted > bytes => {
                session.begin_growing(bytes, interrupt)?
            }
            begun => begun?,
        };
        let moved = Growable { extent: Extent::new(region, session, raw)? };
        let filled = filled.min(len);
        // SAFETY: both extents are this value's own, different ones, and long enough.
        unsafe {
            let from = self.as_mut_ptr().cast_const();
            moved.as_mut_ptr().copy_from_nonoverlapping(from, filled as usize);
        }
        *self = moved;
        Ok(filled)
    }

    /// Ends the growing: the first `bytes` bytes stay, the rest is given back.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::RegionCorrupt`]; the memory is freed then.
    pub fn seal(mut self, bytes: u64) -> Result<Extent> {
        self.extent.check()?;
        let session = self.extent.session.clone();
        session.shorten(&mut self.extent.raw, bytes)?;
        Ok(self.extent)
    }
}

impl Session {
    /// A new extent with room to grow.
    fn begin_growing(&self, bytes: u64, interrupt: &dyn Fn() -> bool) -> Result<Raw> {
        let size = bytes.max(1).checked_next_multiple_of(GRANULE);
        let Some(size) = size.filter(|&size| size <= self.layout.capacity) else {
            return Err(self.full(Failure::Full(FullCause::Capacity), bytes));
        };
        self.obtain(size, interrupt, |writer, pad| writer.claim_growing(size, pad))
    }

    /// Makes an extent longer where it lies: to `generous` bytes if there is room, to `bytes` at
    /// least. `false`: something else begins before that. Unless it is `true`, the extent is as it
    /// was.
    fn lengthen(
        &self,
        raw: &mut Raw,
        bytes: u64,
        generous: u64,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let mut wanted = generous;
        let mut relief = 0;
        let mut obstructed = None;
        let missing = bytes - raw.bytes;
        loop {
            let mut writer = self.write()?;
            let longer = writer.claim_longer(*raw, wanted);
            let longer = writer.noting(longer);
            drop(writer);
            let failure = match longer? {
                Longer::Done(longer) => match self.reserve_longer(*raw, longer, interrupt) {
                    Ok(()) => {
                        *raw = longer;
                        return Ok(true);
                    }
                    Err(failure @ Failure::Full(_)) => failure,
                    Err(failure) => return Err(self.full(failure, missing)),
                },
                Longer::Met if wanted == bytes => return Ok(false),
                Longer::Met => {
                    wanted = bytes;
                    continue;
                }
                Longer::Short => Failure::Full(FullCause::Capacity),
            };
            if wanted > bytes {
                wanted = bytes;
            } else if !self.relieve(&mut relief, &failure, missing)? {
                let Failure::Full(cause) = failure else {
                    return Err(self.full(failure, missing));
                };
                let writer = self.write()?;
                let cause = writer.blame(cause, missing)?;
                if !passes(cause, &mut obstructed) {
                    return Err(writer.short(missing, cause));
                }
                drop(writer);
                wait_for_reader();
                relief = 0;
            }
        }
    }

    /// Reserves what made an extent longer; on failure it is as it was before.
    fn reserve_longer(
        &self,
        before: Raw,
        mut longer: Raw,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let io = |e: Error| Failure::Io(std::io::Error::other(e));
        let first = self.layout.granule_of(longer.offset).unwrap_or(0);
        let (lo, hi) = (first + granules(before.bytes), first + granules(longer.bytes));
        let mut reserved = Vec::new();
        let mut outcome = Ok(());
        for (from, to) in self.runs(lo, hi, false).map_err(io)? {
            let at = self.layout.granule_at(from);
            outcome = self.ground().reserve(at, (to - from) * GRANULE, interrupt);
            match outcome {
                Ok(()) => reserved.push((from, to)),
                // Neither memory nor records are ours.
                Err(Failure::Forked) => return outcome,
                Err(_) => break,
            }
            kill::point("grow: run reserved");
        }
        let mut writer = match self.write() {
            Ok(writer) => writer,
            Err(e) => {
                let shorter = Deferred::Shorter { raw: longer, bytes: before.bytes };
                self.leave_undone(&reserved, std::iter::once(shorter));
                return Err(io(e));
            }
        };
        let done = (|| {
            for (from, to) in reserved {
                writer.warmed(from, to)?;
                kill::point("grow: marked warm");
            }
            if outcome.is_err() {
                writer.make_shorter(&mut longer, before.bytes)?;
            }
            Ok(())
        })();
        writer.noting(done).map_err(io)?;
        outcome
    }

    /// Gives an extent's end back.
    fn shorten(&self, raw: &mut Raw, bytes: u64) -> Result<()> {
        let bytes = rounded(bytes.max(LEAST)).unwrap_or(u64::MAX).min(raw.bytes);
        let mut writer = self.write()?;
        let done = writer.make_shorter(raw, bytes);
        writer.noting(done)
    }
}

impl Writer<'_> {
    /// Claims granules for an extent that is to grow.
    fn claim_growing(&mut self, bytes: u64, pad: bool) -> Result<Claim> {
        let n = granules(bytes);
        // Before the place is chosen: a block of records could be taken there.
        self.ensure_records(1)?;
        let Some((from, warm)) = self.place_to_grow(n)? else {
            return Ok(Claim::Short(FullCause::Span));
        };
        // Warm memory at its end is idle: some more of it costs nothing. And large pages are made
        // of whole blocks.
        let share = (self.s.layout.capacity / GRANULE / 64).min(16 * GRANULES_PER_BLOCK);
        let whole = n.max(warm.min(share)).next_multiple_of(GRANULES_PER_BLOCK);
        let mut sizes = [whole, n].into_iter().filter(|size| pad || *size == n);
        let (n, cold) = loop {
            let Some(n) = sizes.next() else { return Ok(Claim::Short(FullCause::Capacity)) };
            let end = from + n;
            if end > self.s.layout.granule_count || self.s.count_used(from, end)? != 0 {
                continue;
            }
            let cold = n - self.s.count_warm(from, end)?;
            if self.has_room(cold)? {
                break (n, cold);
            }
        };
        let raw = self.take_recorded(from, n, n * GRANULE)?;
        kill::point("grow: begun");
        Ok(if cold == 0 { Claim::Warm(raw) } else { Claim::Cold { raw, padding: Vec::new() } })
    }

    /// Where an extent of `n` granules, that is to grow, has most room: the first granule, and how
    /// many warm ones lie there.
    ///
    /// Several that grow at once keep apart by taking the middle of what is free. The lower half
    /// of the span is left to extents that do not grow, while there is room in the upper.
    fn place_to_grow(&self, n: u64) -> Result<Option<(u64, u64)>> {
        let count = self.s.layout.granule_count;
        let align = |granule: u64| granule.next_multiple_of(GRANULES_PER_BLOCK);
        let half = align(count / 2);
        for low in [half, 0] {
            let free = self.s.free_runs(low, count)?;
            let room = |(from, to): (u64, u64)| to.saturating_sub(align(from));
            let Some(&widest) = free.iter().max_by_key(|&&run| room(run)) else { continue };
            // Warm memory with cold around it: an extent that grew there before.
            let idle = self.s.idle_runs_in(low, count)?;
            let warm = idle.into_iter().filter_map(|(from, to)| {
                let at = free.partition_point(|run| run.1 <= from);
                let &(start, end) = free.get(at)?;
                let from = align(from);
                let apart = start < from || start == low;
                (to > from && apart && end - from >= n.max(room(widest) / 4))
                    .then_some((from, to - from))
            });
            if let Some(warm) = warm.max_by_key(|(_, len)| *len) {
                return Ok(Some(warm));
            }
            let (start, end) = widest;
            let middle = align(start + (end - start) / 2);
            let from =
                if start == low || end.saturating_sub(middle) < n { align(start) } else { middle };
            if end.saturating_sub(from) >= n {
                return Ok(Some((from, 0)));
            }
        }
        // A small region, or one that is full of others.
        Ok(self.s.find_run(n, false)?.map(|from| (from, 0)))
    }

    /// Claims what is missing to `bytes` behind an extent's end.
    fn claim_longer(&mut self, raw: Raw, bytes: u64) -> Result<Longer> {
        let Some(first) = self.s.layout.granule_of(raw.offset) else {
            return Err(Error::corrupt("an extent lies outside the arena", raw.offset));
        };
        let (old, new) = (granules(raw.bytes), granules(bytes));
        let (from, to) = (first + old, first.saturating_add(new));
        if to > self.s.layout.granule_count || self.s.count_used(from, to)? != 0 {
            return Ok(Longer::Met);
        }
        if !self.has_room(new - old - self.s.count_warm(from, to)?)? {
            return Ok(Longer::Short);
        }
        self.s.make_known(from, to)?;
        self.rerecord(raw.record, new * GRANULE)?;
        kill::point("grow: recorded");
        self.take_more(first, old, new)?;
        kill::point("grow: taken");
        Ok(Longer::Done(Raw { bytes: new * GRANULE, ..raw }))
    }

    /// Gives up what an extent has beyond `bytes`.
    pub(crate) fn make_shorter(&mut self, raw: &mut Raw, bytes: u64) -> Result<()> {
        let Some(first) = self.s.layout.granule_of(raw.offset) else {
            return Err(Error::corrupt("an extent lies outside the arena", raw.offset));
        };
        let old = granules(raw.bytes);
        self.rerecord(raw.record, bytes)?;
        kill::point("shrink: recorded");
        raw.bytes = bytes;
        self.give_end(first, old, granules(bytes))
    }
}

#[cfg(test)]
mod tests;
