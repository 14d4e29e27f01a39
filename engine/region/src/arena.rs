//! The allocator: whole granules for large extents, blocks of slab granules for small ones.
//!
//! Everything it knows lies in the region, is changed under the writer lock only, and is derived:
//! [`Writer::rebuild`] makes it again from the owners' records. Numbers read back are checked, and
//! a contradiction has the next writer rebuild rather than this one guess.

use std::sync::atomic::Ordering;

use crate::error::{Error, FullCause, Result};
use crate::kill;
use crate::layout::{
    ALIGN, CLASSES, GRANULE, GRANULES_PER_BLOCK, class_bytes, class_of, granule, header,
};
use crate::writer::Writer;

/// An extent of this session: where, how much of it is asked for, and its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) record: u64,
    pub(crate) offset: u64,
    /// A multiple of 64; what the extent is called by, everywhere.
    pub(crate) bytes: u64,
}

/// What came of asking for granules.
pub(crate) enum Claim {
    /// Warm memory, to be used at once.
    Warm(Raw),
    /// Claimed, but not reserved yet. The padding completes its 2 MiB blocks.
    Cold { raw: Raw, padding: Vec<Raw> },
    /// No room.
    Short(FullCause),
}

/// How many granules an extent of `bytes` takes.
pub(crate) fn granules(bytes: u64) -> u64 {
    bytes.div_ceil(GRANULE).max(1)
}

/// A request's size as extents count it.
pub(crate) fn rounded(bytes: u64) -> Option<u64> {
    Some(bytes.max(1).checked_add(ALIGN - 1)? / ALIGN * ALIGN)
}

impl Writer<'_> {
    fn get(&self, field: u64) -> Result<u64> {
        Ok(self.s.bytes.word(field)?.load(Ordering::Relaxed))
    }

    fn put(&self, field: u64, value: u64) -> Result<()> {
        self.s.bytes.word(field)?.store(value, Ordering::Relaxed);
        Ok(())
    }

    fn row(&self, index: u64, field: u64) -> Result<u32> {
        Ok(self.s.bytes.half(self.s.layout.granule_row(index) + field)?.load(Ordering::Relaxed))
    }

    fn set_row(&self, index: u64, field: u64, value: u32) -> Result<()> {
        let at = self.s.layout.granule_row(index) + field;
        self.s.bytes.half(at)?.store(value, Ordering::Relaxed);
        Ok(())
    }

    fn damaged(&self, what: &str, index: u64) -> Error {
        self.broken.set(true);
        Error::corrupt(what, self.s.layout.granule_row(index))
    }

    /// Marks `[from, from + n)` used and makes its first row the head of an extent.
    fn take(&self, from: u64, n: u64) -> Result<()> {
        self.s.make_known(from, from + n)?;
        let warm = self.s.count_warm(from, from + n)?;
        let taken = self.s.set_used(from, from + n, true)?;
        kill::point("claim: marked used");
        self.put(header::USED, self.get(header::USED)?.saturating_add(taken))?;
        let committed = self.get(header::COMMITTED)?.saturating_add(n - warm);
        self.put(header::COMMITTED, committed)?;
        kill::point("claim: counted");
        self.set_row(from, granule::KIND, granule::KIND_HEAD)?;
        self.set_row(from, granule::REFS, 1)?;
        self.set_row(from, granule::LEN, n as u32)
    }

    /// Marks `[from, from + n)` free.
    fn give(&self, from: u64, n: u64) -> Result<()> {
        let warm = self.s.count_warm(from, from + n)?;
        let given = self.s.set_used(from, from + n, false)?;
        kill::point("free: marked free");
        self.put(header::USED, self.get(header::USED)?.saturating_sub(given))?;
        let committed = self.get(header::COMMITTED)?;
        self.put(header::COMMITTED, committed.saturating_sub(n - warm))?;
        kill::point("free: counted");
        self.set_row(from, granule::KIND, granule::KIND_NONE)?;
        kill::point("free: row cleared");
        if warm == n {
            self.push_warm(from, n)?;
        }
        Ok(())
    }

    /// Makes the extent at `first` longer: `new` granules instead of `old`, the further ones free.
    pub(crate) fn take_more(&self, first: u64, old: u64, new: u64) -> Result<()> {
        let (from, to) = (first + old, first + new);
        let warm = self.s.count_warm(from, to)?;
        let taken = self.s.set_used(from, to, true)?;
        self.put(header::USED, self.get(header::USED)?.saturating_add(taken))?;
        let committed = self.get(header::COMMITTED)?.saturating_add(to - from - warm);
        self.put(header::COMMITTED, committed)?;
        self.set_row(first, granule::LEN, new as u32)
    }

    /// Makes the extent at `first` shorter: `new` granules instead of `old`.
    pub(crate) fn give_end(&self, first: u64, old: u64, new: u64) -> Result<()> {
        self.set_row(first, granule::LEN, new as u32)?;
        if new < old { self.give(first + new, old - new) } else { Ok(()) }
    }

    /// Whether the capacity allows `cold` granules more to be reserved.
    pub(crate) fn has_room(&self, cold: u64) -> Result<bool> {
        let committed = self.get(header::COMMITTED)?.saturating_add(cold);
        Ok(committed <= self.s.limit()?)
    }

    /// Remembers a freed warm run: the next request of its size takes it, the last freed first.
    fn push_warm(&self, from: u64, n: u64) -> Result<()> {
        for i in (1..header::WARM_STACK_ENTRIES).rev() {
            let above = self.get(header::WARM_STACK + (i - 1) * 8)?;
            self.put(header::WARM_STACK + i * 8, above)?;
        }
        self.put(header::WARM_STACK, from << 32 | n)
    }

    /// The last freed warm run of at least `n` granules that is free still.
    fn pop_warm(&self, n: u64) -> Result<Option<u64>> {
        for exact in [true, false] {
            for i in 0..header::WARM_STACK_ENTRIES {
                let at = header::WARM_STACK + i * 8;
                let entry = self.get(at)?;
                let (from, len) = (entry >> 32, entry & 0xffff_ffff);
                if entry == 0 || len < n || exact != (len == n) {
                    continue;
                }
                let fits = from + n <= self.s.high();
                if fits
                    && self.s.count_used(from, from + n)? == 0
                    && self.s.count_warm(from, from + n)? == n
                {
                    let rest = if len > n { (from + n) << 32 | (len - n) } else { 0 };
                    self.put(at, rest)?;
                    return Ok(Some(from));
                }
                self.put(at, 0)?;
            }
        }
        Ok(None)
    }

    /// Claims whole granules for an extent of `bytes`, warm ones if there are; for a checkpoint
    /// beyond what tables may take.
    pub(crate) fn claim(&mut self, bytes: u64, pad: bool, checkpoint: bool) -> Result<Claim> {
        let n = granules(bytes);
        let capacity = self.s.limit()? + if checkpoint { n } else { 0 };
        if n > capacity {
            return Ok(Claim::Short(FullCause::Capacity));
        }
        // For the extent and two paddings: a block of records taken between choosing a run and
        // claiming it could lie in that run.
        self.ensure_records(3)?;
        let warm = match self.pop_warm(n)? {
            Some(from) => Some(from),
            None => self.s.find_run(n, true)?,
        };
        if let Some(from) = warm {
            return Ok(Claim::Warm(self.take_recorded(from, n, bytes)?));
        }
        let Some(from) = self.s.find_run(n, false)? else {
            return Ok(Claim::Short(FullCause::Span));
        };
        let cold = n - self.s.count_warm(from, from + n)?;
        if self.get(header::COMMITTED)?.saturating_add(cold) > capacity {
            return Ok(Claim::Short(FullCause::Capacity));
        }
        let raw = self.take_recorded(from, n, bytes)?;
        let mut padding = Vec::new();
        if pad && self.s.backing.collapses() {
            for (lo, hi) in self.paddings(from, from + n)? {
                if self.get(header::COMMITTED)?.saturating_add(hi - lo) <= capacity {
                    padding.push(self.take_recorded(lo, hi - lo, (hi - lo) * GRANULE)?);
                }
            }
        }
        Ok(Claim::Cold { raw, padding })
    }

    pub(crate) fn take_recorded(&mut self, from: u64, n: u64, bytes: u64) -> Result<Raw> {
        let offset = self.s.layout.granule_at(from);
        // Before the record: one that stayed behind would free what the next owner has.
        self.s.make_known(from, from + n)?;
        let record = self.record(offset, bytes)?;
        if let Err(e) = self.take(from, n) {
            self.unrecord(record)?;
            return Err(e);
        }
        Ok(Raw { record, offset, bytes })
    }

    /// What is missing left and right of `[from, to)` for whole 2 MiB blocks, if all of it is
    /// free and cold.
    fn paddings(&self, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
        let left = (from / GRANULES_PER_BLOCK * GRANULES_PER_BLOCK, from);
        let right = (to, to.next_multiple_of(GRANULES_PER_BLOCK).min(self.s.layout.granule_count));
        let mut out = Vec::new();
        for (lo, hi) in [left, right] {
            if lo < hi && self.s.count_used(lo, hi)? == 0 && self.s.count_warm(lo, hi)? == 0 {
                out.push((lo, hi));
            }
        }
        Ok(out)
    }

    /// A granule for records: reserved at once, without a record of its own, since the chain it
    /// joins is one.
    pub(crate) fn take_for_records(&mut self) -> Result<u64> {
        let from = match self.s.find_run(1, true)? {
            Some(from) => from,
            None => {
                let Some(from) = self.s.find_run(1, false)? else {
                    return Err(self.short(GRANULE, FullCause::Span));
                };
                let cold = 1 - self.s.count_warm(from, from + 1)?;
                let committed = self.get(header::COMMITTED)?.saturating_add(cold);
                if committed > self.s.limit()? {
                    return Err(self.short(GRANULE, FullCause::Capacity));
                }
                self.s.make_known(from, from + 1)?;
                let at = self.s.layout.granule_at(from);
                self.s
                    .ground()
                    .reserve(at, GRANULE, &|| false)
                    .map_err(|e| self.s.full(e, GRANULE))?;
                kill::point("records: reserved");
                let changed = self.s.set_warm(from, from + 1, true)?;
                kill::point("records: warm");
                let committed = self.get(header::COMMITTED)?.saturating_add(changed);
                self.put(header::COMMITTED, committed)?;
                from
            }
        };
        self.take(from, 1)?;
        Ok(from)
    }

    /// Marks granules warm that have just been reserved; they must be used.
    pub(crate) fn warmed(&self, from: u64, to: u64) -> Result<()> {
        self.s.set_warm(from, to, true).map(|_| ())
    }

    /// Claims a free warm run and marks it cold, to be given back to the system.
    pub(crate) fn claim_idle(&mut self, from: u64, to: u64) -> Result<Raw> {
        self.ensure_record()?;
        if self.s.count_used(from, to)? != 0 {
            // The records' own granule came from it.
            return Err(Error::corrupt("idle memory is in use", self.s.layout.granule_at(from)));
        }
        let raw = self.take_recorded(from, to - from, (to - from) * GRANULE)?;
        kill::point("trim: claimed");
        self.s.set_warm(from, to, false)?;
        Ok(raw)
    }

    /// Gives idle memory of a file back that is reserved beyond what may be: a checkpoint that is
    /// gone has left it. Under the lock, since until then it could be handed out; there is little.
    pub(crate) fn shed(&self) -> Result<()> {
        if !self.s.backing.is_durable() {
            return Ok(());
        }
        let (mut committed, limit) = (self.get(header::COMMITTED)?, self.s.limit()?);
        if committed <= limit {
            return Ok(());
        }
        for (from, to) in self.s.idle_runs()? {
            let n = (to - from).min(committed.saturating_sub(limit));
            committed -= self.s.set_warm(from, from + n, false)?;
            self.put(header::COMMITTED, committed)?;
            self.s.ground().punch(self.s.layout.granule_at(from), n * GRANULE);
        }
        Ok(())
    }

    /// A small extent from a slab of its class, if one has room.
    pub(crate) fn take_small(&mut self, class: u32, bytes: u64) -> Result<Option<Raw>> {
        let hint = header::CLASS_HINTS + u64::from(class.min(CLASSES - 1)) * 8;
        let head = self.get(hint)?;
        let Some(slab) = head.checked_sub(1) else { return Ok(None) };
        if !self.s.is_known(slab)
            || self.row(slab, granule::KIND)? != granule::KIND_SLAB
            || self.row(slab, granule::CLASS)? != class
        {
            return Err(self.damaged("a list of slabs leads astray", slab));
        }
        self.ensure_record()?;
        let at = self.s.layout.granule_row(slab) + granule::OCCUPANCY;
        let occupancy = self.get(at)?;
        let all = slab_mask(class);
        let free = !occupancy & all;
        if free == 0 {
            return Err(self.damaged("a full slab is listed as having room", slab));
        }
        let block = u64::from(free.trailing_zeros());
        let offset = self.s.layout.granule_at(slab) + block * class_bytes(class);
        let record = self.record(offset, bytes)?;
        self.put(at, occupancy | 1 << block)?;
        kill::point("claim: block marked used");
        let refs = self.s.layout.block_row(slab) + block * 4;
        self.s.bytes.half(refs)?.store(1, Ordering::Relaxed);
        kill::point("claim: block counted");
        if occupancy | 1 << block == all {
            self.unlink(class, slab)?;
        }
        Ok(Some(Raw { record, offset, bytes }))
    }

    /// Turns a granule that `raw` has claimed and reserved into a slab of a class.
    pub(crate) fn make_slab(&mut self, raw: Raw, class: u32) -> Result<()> {
        let Some(slab) = self.s.layout.granule_of(raw.offset) else {
            return Err(Error::corrupt("a slab lies outside the arena", raw.offset));
        };
        self.init_slab(slab, class, 0)?;
        kill::point("slab: made");
        self.link(class, slab)?;
        kill::point("slab: listed");
        self.unrecord(raw.record)
    }

    /// Writes a slab's row, without a list.
    fn init_slab(&self, slab: u64, class: u32, occupancy: u64) -> Result<()> {
        let refs = self.s.layout.block_row(slab);
        self.s.reserve_metadata(refs, granule::BLOCK_ROW_BYTES)?;
        self.s.bytes.zero(refs, granule::BLOCK_ROW_BYTES)?;
        self.set_row(slab, granule::KIND, granule::KIND_SLAB)?;
        self.set_row(slab, granule::CLASS, class)?;
        self.put(self.s.layout.granule_row(slab) + granule::OCCUPANCY, occupancy)
    }

    fn link(&self, class: u32, slab: u64) -> Result<()> {
        let hint = header::CLASS_HINTS + u64::from(class.min(CLASSES - 1)) * 8;
        let next = self.get(hint)?;
        if next.checked_sub(1).is_some_and(|next| !self.s.is_known(next)) {
            return Err(self.damaged("a list of slabs leads astray", slab));
        }
        self.set_row(slab, granule::NEXT, next as u32)?;
        self.set_row(slab, granule::PREV, 0)?;
        if let Some(next) = next.checked_sub(1) {
            self.set_row(next, granule::PREV, slab as u32 + 1)?;
        }
        kill::point("slab: half listed");
        self.put(hint, slab + 1)
    }

    fn unlink(&self, class: u32, slab: u64) -> Result<()> {
        let next = self.row(slab, granule::NEXT)?;
        let prev = self.row(slab, granule::PREV)?;
        let astray = |index: u32| {
            index.checked_sub(1).is_some_and(|index| !self.s.is_known(u64::from(index)))
        };
        if astray(next) || astray(prev) {
            return Err(self.damaged("a list of slabs leads astray", slab));
        }
        match prev.checked_sub(1) {
            Some(prev) => self.set_row(u64::from(prev), granule::NEXT, next)?,
            None => {
                let hint = header::CLASS_HINTS + u64::from(class.min(CLASSES - 1)) * 8;
                self.put(hint, u64::from(next))?;
            }
        }
        if let Some(next) = next.checked_sub(1) {
            kill::point("slab: half unlisted");
            self.set_row(u64::from(next), granule::PREV, prev)?;
        }
        Ok(())
    }

    /// Where an extent's owner count lies: the granule, and the block if it is small.
    fn place(&self, offset: u64, bytes: u64) -> Result<(u64, Option<(u32, u64)>)> {
        let bad = || Error::corrupt("an extent lies where none can", offset);
        let index = self.s.layout.granule_of(offset).ok_or_else(bad)?;
        let within = offset - self.s.layout.granule_at(index);
        match class_of(bytes) {
            Some(class) if within.is_multiple_of(class_bytes(class)) => {
                Ok((index, Some((class, within / class_bytes(class)))))
            }
            None if within == 0 && self.s.layout.in_arena(offset, bytes) => Ok((index, None)),
            _ => Err(bad()),
        }
    }

    /// One owner more of an extent that has one.
    pub(crate) fn add_owner(&self, offset: u64, bytes: u64) -> Result<()> {
        let (index, block) = self.place(offset, bytes)?;
        let counter = self.counter(index, block, bytes)?;
        let refs = self.s.bytes.half(counter)?;
        let count = refs.load(Ordering::Relaxed);
        if count == 0 {
            return Err(self.damaged("an extent without an owner is in use", index));
        }
        refs.store(count.saturating_add(1), Ordering::Relaxed);
        Ok(())
    }

    fn counter(&self, index: u64, block: Option<(u32, u64)>, bytes: u64) -> Result<u64> {
        let kind = if self.s.is_known(index) { self.row(index, granule::KIND)? } else { 0 };
        match block {
            Some((class, block))
                if kind == granule::KIND_SLAB && self.row(index, granule::CLASS)? == class =>
            {
                Ok(self.s.layout.block_row(index) + block * 4)
            }
            None if kind == granule::KIND_HEAD
                && u64::from(self.row(index, granule::LEN)?) == granules(bytes) =>
            {
                Ok(self.s.layout.granule_row(index) + granule::REFS)
            }
            _ => Err(self.damaged("an extent's granule is of another kind", index)),
        }
    }

    /// How many owners an extent is counted to have.
    pub(crate) fn owners(&self, offset: u64, bytes: u64) -> Result<u64> {
        let (index, block) = self.place(offset, bytes)?;
        let counter = self.counter(index, block, bytes)?;
        Ok(u64::from(self.s.bytes.half(counter)?.load(Ordering::Relaxed)))
    }

    /// One owner less; without owners the extent is free.
    pub(crate) fn drop_owner(&self, offset: u64, bytes: u64) -> Result<()> {
        let (index, block) = self.place(offset, bytes)?;
        let counter = self.counter(index, block, bytes)?;
        let refs = self.s.bytes.half(counter)?;
        match refs.load(Ordering::Relaxed) {
            0 => Err(self.damaged("an extent without an owner is given up", index)),
            1 => {
                refs.store(0, Ordering::Relaxed);
                kill::point("free: without owner");
                match block {
                    Some((class, block)) => self.give_small(index, class, block),
                    None => self.give(index, granules(bytes)),
                }
            }
            // A count that ever reached the top stays there until a rebuild counts again.
            u32::MAX => Ok(()),
            count => {
                refs.store(count - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// How many bytes of a slab are in blocks that somebody has.
    pub(crate) fn slab_bytes_in_use(&self, slab: u64) -> Result<u64> {
        let occupancy = self.get(self.s.layout.granule_row(slab) + granule::OCCUPANCY)?;
        let blocks =
            u64::from((occupancy & slab_mask(self.row(slab, granule::CLASS)?)).count_ones());
        Ok(blocks * class_bytes(self.row(slab, granule::CLASS)?))
    }

    fn give_small(&self, slab: u64, class: u32, block: u64) -> Result<()> {
        let at = self.s.layout.granule_row(slab) + granule::OCCUPANCY;
        let all = slab_mask(class);
        let before = self.get(at)?;
        let after = before & !(1 << block);
        self.put(at, after)?;
        kill::point("free: block marked free");
        if before == all {
            self.link(class, slab)?;
        }
        if after == 0 {
            self.unlink(class, slab)?;
            self.give(slab, 1)?;
        }
        Ok(())
    }

    /// Frees an extent of this session.
    pub(crate) fn release(&mut self, record: u64, offset: u64, bytes: u64) -> Result<()> {
        // The owner count first: if we die in between, the record is counted again.
        let dropped = self.drop_owner(offset, bytes);
        kill::point("free: owner dropped");
        self.unrecord(record)?;
        self.noting(dropped)
    }

    /// The error for a request that found no room.
    pub(crate) fn short(&self, needed: u64, cause: FullCause) -> Error {
        let mut full = self.s.full(crate::reserve::Failure::Full(cause), needed);
        if let (FullCause::Pins, Error::RegionFull { keepers, .. }) = (cause, &mut full) {
            // A message that names nobody is better than another error.
            *keepers = self.keepers().unwrap_or_default();
        }
        full
    }

    // --- Rebuilding -----------------------------------------------------------------------

    /// Forgets all derived state of the arena; warm granules stay warm.
    pub(crate) fn clear_arena(&self) -> Result<()> {
        self.s.clear_maps()?;
        for i in 0..u64::from(CLASSES) {
            self.put(header::CLASS_HINTS + i * 8, 0)?;
        }
        for i in 0..header::WARM_STACK_ENTRIES {
            self.put(header::WARM_STACK + i * 8, 0)?;
        }
        Ok(())
    }

    /// Counts one owner of an extent while rebuilding. An extent that contradicts another is
    /// left as used: it leaks until the contradiction goes, and nothing live is recycled.
    pub(crate) fn count_owner(&self, offset: u64, bytes: u64) -> Result<bool> {
        let Ok((index, block)) = self.place(offset, bytes) else { return Ok(false) };
        let n = if block.is_some() { 1 } else { granules(bytes) };
        self.s.make_known(index, index + n)?;
        let kind = self.row(index, granule::KIND)?;
        if kind == granule::KIND_NONE {
            if self.s.count_used(index, index + n)? != 0 {
                self.s.set_used(index, index + n, true)?;
                return Ok(false);
            }
            self.s.set_used(index, index + n, true)?;
            match block {
                Some((class, _)) => self.init_slab(index, class, 0)?,
                None => {
                    self.set_row(index, granule::KIND, granule::KIND_HEAD)?;
                    self.set_row(index, granule::LEN, n as u32)?;
                }
            }
        }
        let broken = self.broken.get();
        let Ok(counter) = self.counter(index, block, bytes) else {
            self.broken.set(broken);
            self.s.set_used(index, index + n, true)?;
            return Ok(false);
        };
        let refs = self.s.bytes.half(counter)?;
        refs.store(refs.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        if let Some((_, block)) = block {
            let at = self.s.layout.granule_row(index) + granule::OCCUPANCY;
            self.put(at, self.get(at)? | 1 << block)?;
        }
        Ok(true)
    }

    /// Completes a rebuild: lists of slabs with room, and the totals.
    pub(crate) fn finish_arena(&self) -> Result<()> {
        let used = self.s.used_runs()?;
        for index in used.into_iter().rev().flat_map(|(from, to)| (from..to).rev()) {
            if self.row(index, granule::KIND)? == granule::KIND_SLAB {
                let class = self.row(index, granule::CLASS)?;
                let occupancy = self.get(self.s.layout.granule_row(index) + granule::OCCUPANCY)?;
                if occupancy != slab_mask(class) {
                    self.link(class, index)?;
                }
            }
        }
        self.put(header::USED, self.s.count_used(0, self.s.high())?)?;
        self.put(header::COMMITTED, self.s.count_committed()?)
    }
}

/// The occupancy of a full slab.
pub(crate) fn slab_mask(class: u32) -> u64 {
    match GRANULE / class_bytes(class) {
        64 => u64::MAX,
        n => (1 << n) - 1,
    }
}
