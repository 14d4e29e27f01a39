//! Getting memory, and giving it back to the system.
//!
//! Claiming happens under the writer lock, reserving outside it: making 800 MB present takes from
//! 50 ms to seconds, and nobody else should wait for that. While it is being reserved the memory
//! belongs to this session, by a record, so that nothing is lost if we die.

use std::time::{Duration, Instant};

use crate::arena::{Claim, Raw, granules, rounded};
use crate::error::{Error, FullCause, Result};
use crate::kill;
use crate::layout::{GRANULE, class_of};
use crate::reserve::Failure;
use crate::session::{Deferred, Session};
use crate::writer::Writer;

/// How long a passing reader may stand in the way of memory: who only looks at a region opens it
/// read-only for some milliseconds, and need not fail the work of others.
const PASSING: Duration = Duration::from_millis(200);

/// Whether it is a reader that stands in the way, who may be passing still.
pub(crate) fn passes(cause: FullCause, since: &mut Option<Instant>) -> bool {
    cause == FullCause::ReadOnlyOpener && since.get_or_insert_with(Instant::now).elapsed() < PASSING
}

/// Waits a moment for such a reader.
pub(crate) fn wait_for_reader() {
    std::thread::sleep(Duration::from_millis(2));
}

impl Session {
    /// Memory for `bytes` bytes, reserved, on 64 bytes; the result counts a multiple of 64.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Raw> {
        self.allocate_with(bytes, &|| false)
    }

    /// The same; `interrupt` is asked now and then while much is reserved.
    pub(crate) fn allocate_with(&self, bytes: u64, interrupt: &dyn Fn() -> bool) -> Result<Raw> {
        let Some(size) = rounded(bytes).filter(|&b| b <= self.layout.capacity) else {
            self.check_fork()?;
            if self.read_only {
                return Err(Error::ReadOnly);
            }
            return Err(self.full(Failure::Full(FullCause::Capacity), bytes));
        };
        let Some(class) = class_of(size) else {
            return self.allocate_granules(size, interrupt);
        };
        for _ in 0..4 {
            let mut writer = self.write()?;
            let taken = writer.take_small(class, size);
            if let Some(raw) = writer.noting(taken)? {
                return Ok(raw);
            }
            drop(writer);
            let slab = self.allocate_granules(GRANULE, interrupt)?;
            let mut writer = self.write_or_free(slab)?;
            let made = writer.make_slab(slab, class);
            if let Err(e) = writer.noting(made) {
                let released = writer.release(slab.record, slab.offset, slab.bytes);
                writer.noting(released)?;
                return Err(e);
            }
            let taken = writer.take_small(class, size);
            if let Some(raw) = writer.noting(taken)? {
                return Ok(raw);
            }
        }
        Err(Error::corrupt("slabs vanish as they are made", self.layout.arena))
    }

    /// Memory for a checkpoint: whole granules, which come on top of the capacity.
    pub(crate) fn allocate_checkpoint(&self, bytes: u64) -> Result<Raw> {
        self.obtain(bytes, &|| false, |writer, pad| writer.claim(bytes, pad, true))
    }

    fn allocate_granules(&self, bytes: u64, interrupt: &dyn Fn() -> bool) -> Result<Raw> {
        self.obtain(bytes, interrupt, |writer, pad| writer.claim(bytes, pad, false))
    }

    /// Claims granules and reserves them; tries to make room where there is none. `claim` is told
    /// whether it may take more than it must.
    pub(crate) fn obtain(
        &self,
        bytes: u64,
        interrupt: &dyn Fn() -> bool,
        claim: impl Fn(&mut Writer<'_>, bool) -> Result<Claim>,
    ) -> Result<Raw> {
        let mut pad = true;
        let mut swept = false;
        let mut trims = 0;
        let mut tries = 0;
        let mut obstructed = None;
        loop {
            let mut writer = self.write()?;
            let claim = claim(&mut writer, pad);
            match writer.noting(claim)? {
                Claim::Warm(raw) => return Ok(raw),
                Claim::Cold { raw, padding } => {
                    drop(writer);
                    match self.reserve_claim(raw, &padding, interrupt) {
                        Ok(()) => return Ok(raw),
                        // Perhaps only the padding did not fit.
                        Err(Failure::Full(_)) if pad => pad = false,
                        Err(Failure::Full(_)) if !swept => {
                            swept = true;
                            self.write()?.collect()?;
                        }
                        // Idle memory in other places takes the system's room.
                        Err(Failure::Full(_)) if trims < 3 && self.trim(granules(bytes))? > 0 => {
                            trims += 1;
                        }
                        // Another process may have taken the last of it for a moment, to find that
                        // it does not suffice.
                        Err(Failure::Full(_)) if tries < 3 => {
                            tries += 1;
                            std::thread::sleep(Duration::from_millis(1 << tries));
                        }
                        Err(failure) => return Err(self.full(failure, bytes)),
                    }
                }
                // Dead sessions' and retired tables' memory first: it may be warm.
                Claim::Short(_) if !swept => {
                    swept = true;
                    writer.collect()?;
                }
                Claim::Short(cause) => {
                    // Idle warm memory elsewhere counts against the capacity: give it back.
                    drop(writer);
                    trims += 1;
                    if trims <= 3 && cause == FullCause::Capacity && self.fits(bytes)? {
                        self.trim(granules(bytes))?;
                        continue;
                    }
                    let writer = self.write()?;
                    let cause = writer.blame(cause, bytes)?;
                    if passes(cause, &mut obstructed) {
                        drop(writer);
                        wait_for_reader();
                        swept = false;
                        continue;
                    }
                    return Err(writer.short(bytes, cause));
                }
            }
        }
    }

    /// Tries to make room for `bytes` more after a `failure`, each time in another way; `false`
    /// when all have been tried.
    pub(crate) fn relieve(&self, tried: &mut u32, failure: &Failure, bytes: u64) -> Result<bool> {
        *tried += 1;
        match (*tried, failure) {
            (_, Failure::Io(_) | Failure::Cancelled | Failure::Forked) => Ok(false),
            (1, _) => {
                self.write()?.collect()?;
                Ok(true)
            }
            (2..=4, Failure::Full(FullCause::Capacity)) => {
                let fits = self.fits(bytes)?;
                if fits {
                    self.trim(granules(bytes))?;
                }
                Ok(fits)
            }
            // Idle memory in other places takes the system's room.
            (2..=4, Failure::Full(_)) => Ok(self.trim(granules(bytes))? > 0),
            _ => Ok(false),
        }
    }

    /// Whether the capacity allows `bytes` more, were all idle memory given back.
    fn fits(&self, bytes: u64) -> Result<bool> {
        use std::sync::atomic::Ordering::Relaxed;
        let used = self.bytes.word(crate::layout::header::USED)?.load(Relaxed);
        Ok(used.saturating_add(granules(bytes)) <= self.limit()?)
    }

    /// Reserves what a claim left cold. On failure the claim is given up.
    fn reserve_claim(
        &self,
        raw: Raw,
        padding: &[Raw],
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let io = |e: Error| Failure::Io(std::io::Error::other(e));
        let first = |raw: &Raw| self.layout.granule_of(raw.offset).unwrap_or(0);
        let lo = padding.iter().map(first).fold(first(&raw), u64::min);
        let hi = padding
            .iter()
            .map(|p| first(p) + granules(p.bytes))
            .fold(first(&raw) + granules(raw.bytes), u64::max);
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
            kill::point("reserve: run reserved");
        }
        let mut writer = match self.write() {
            Ok(writer) => writer,
            Err(e) => {
                self.leave_undone(
                    &reserved,
                    padding.iter().chain([&raw]).copied().map(Deferred::Extent),
                );
                return Err(io(e));
            }
        };
        let done = (|| {
            for (from, to) in reserved {
                writer.warmed(from, to)?;
                kill::point("reserve: marked warm");
            }
            for pad in padding {
                writer.release(pad.record, pad.offset, pad.bytes)?;
                kill::point("reserve: padding released");
            }
            if outcome.is_err() {
                writer.release(raw.record, raw.offset, raw.bytes)?;
            }
            Ok(())
        })();
        writer.noting(done).map_err(io)?;
        outcome
    }

    /// Takes the writer lock. If it cannot be had, who has it next in this process frees an extent
    /// that nobody else knows of.
    fn write_or_free(&self, raw: Raw) -> Result<Writer<'_>> {
        self.write().inspect_err(|_| self.defer(Deferred::Extent(raw)))
    }

    /// Gives up what was reserved without the writer lock, which cannot be had now: its pages at
    /// once, since nobody would know of them, and what owns it with the lock.
    pub(crate) fn leave_undone(
        &self,
        reserved: &[(u64, u64)],
        work: impl Iterator<Item = Deferred>,
    ) {
        for &(from, to) in reserved {
            self.ground().punch(self.layout.granule_at(from), (to - from) * GRANULE);
        }
        work.for_each(|item| self.defer(item));
    }

    /// Gives idle memory back to the system until `granules` are given back; gives bytes.
    pub(crate) fn trim(&self, granules: u64) -> Result<u64> {
        let mut given = 0;
        while given < granules {
            // Claimed while it is being punched, so that nobody reserves it at the same time; and
            // marked cold before, so that nobody believes in it after a crash.
            let mut writer = self.write()?;
            writer.ensure_record()?;
            let Some(&(from, to)) = self.idle_runs()?.iter().max_by_key(|(from, to)| to - from)
            else {
                break;
            };
            let raw = writer.claim_idle(from, to)?;
            drop(writer);
            kill::point("trim: marked cold");
            self.ground().punch(raw.offset, raw.bytes);
            kill::point("trim: punched");
            let mut writer = self.write_or_free(raw)?;
            let released = writer.release(raw.record, raw.offset, raw.bytes);
            writer.noting(released)?;
            given += to - from;
        }
        Ok(given * GRANULE)
    }

    /// Frees an extent from a destructor: at once if the lock is free, else a little later.
    pub(crate) fn free(&self, raw: Raw) {
        if !self.is_ours() {
            return;
        }
        match self.try_write() {
            Some(mut writer) => {
                let _ = writer.release(raw.record, raw.offset, raw.bytes);
            }
            None => self.defer(Deferred::Extent(raw)),
        }
    }
}
