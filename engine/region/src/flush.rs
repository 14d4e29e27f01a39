//! Making a file durable: all tables, as they are at one instant.
//!
//! A checkpoint is published in a hidden slot first. From that store on nobody writes in place,
//! recycles or punches what it lists, so that the rest can take its time without the lock: sums,
//! the checkpoint's own bytes, a barrier, the root, another barrier. Only then does the last
//! checkpoint give up what it kept: until then the disk may hold either root, and what either
//! names must be whole.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::arena::Raw;
use crate::catalog::Held;
use crate::checkpoint::{Checkpoint, is_checkpoint};
use crate::error::{Error, Result};
use crate::fork;
use crate::kill;
use crate::layout::{GRANULE, header, session as field, slot};
use crate::pins::Line;
use crate::roots::Root;
use crate::session::{Session, begun_by_parent};
use crate::state::{self, State};
use crate::sync;
use crate::types::{Flushed, Patience};
use crate::writer::Writer;

use snapshot::{Attempt, Pending};

/// How long to wait for another's flush: it may write all of a large file.
const OTHERS: Duration = Duration::from_secs(600);
/// How long tables are waited for before others are kept from being updated meanwhile.
const COURTESY: Duration = Duration::from_millis(50);
/// How often to look again whether a wait is over.
const SLICE: Duration = Duration::from_millis(2);

/// The right to flush: one process, one thread of it. Given back when dropped.
struct Turn<'a>(&'a Session);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let s = self.0;
        if let Ok(word) = s.bytes.word(header::FLUSHER) {
            let _ = word.compare_exchange(s.token(), 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        s.flushing.store(0, Ordering::Release);
    }
}

/// Leases on all tables that are not being updated now: where some table always is, they see to it
/// that the others stay as they are while its end is waited for.
struct Leases<'a> {
    s: &'a Session,
    slots: Vec<u32>,
}

impl Leases<'_> {
    fn take_more(&mut self, what: &str) -> Result<()> {
        for slot in slot::HIDDEN..self.s.slots_high() {
            let word = self.s.state_word(slot)?;
            if state::state(word) == Some(State::Published)
                && !self.slots.contains(&slot)
                && self.s.hold(slot, Line::Leases, word, what)?
            {
                self.slots.push(slot);
            }
        }
        Ok(())
    }
}

impl Drop for Leases<'_> {
    fn drop(&mut self) {
        for slot in &self.slots {
            self.s.unhold(*slot, Line::Leases);
        }
    }
}

impl Session {
    /// Makes all tables durable as they are now; see [`crate::Region::flush`].
    pub(crate) fn flush(&self, patience: &Patience<'_>) -> Result<Flushed> {
        self.check_fork()?;
        if !self.backing.is_durable() {
            return Ok(Flushed::default());
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        // In a child that the callback forks, the flush is its parent's: it does nothing more.
        let began = fork::generation();
        let interrupt = || (patience.interrupt)() || fork::generation() != began;
        let patience = &Patience { interrupt: &interrupt, ..*patience };
        let _turn = self.take_turn(patience.interrupt)?;
        kill::point("flush: turn taken");
        if self.bytes.word(header::FLAGS)?.load(Ordering::Acquire) & header::FLAG_SYNC_FAILED != 0 {
            return Err(self.sync_failed(std::io::Error::other(
                "an earlier write of it failed, and what reached the disk is not known",
            )));
        }
        let mut bytes = 0;
        loop {
            let (number, mut flushed) = self.flush_once(patience)?;
            bytes += flushed.bytes;
            flushed.bytes = bytes;
            // Beside the first checkpoint's root stands the one that says that nothing was flushed.
            // It must not be what a damaged root falls back to.
            if number != 1 {
                return Ok(flushed);
            }
        }
    }

    /// One flush; gives the number of the checkpoint that holds then.
    fn flush_once(&self, patience: &Patience<'_>) -> Result<(u64, Flushed)> {
        self.settle()?;
        let last = self.last_checkpoint()?;
        let mut flushed = Flushed::default();
        let Some(mut pending) = self.publish_snapshot(&last, patience, &mut flushed)? else {
            return Ok((last.number, flushed));
        };
        let began = fork::generation();
        let written = self.write_content(&mut pending, &last, patience.interrupt, &mut flushed);
        if fork::generation() != began {
            return Err(begun_by_parent());
        }
        let root = match written {
            Ok(root) => root,
            Err(e) => {
                // Nothing has happened yet that cannot be taken back.
                let _ = self.write().and_then(|mut writer| writer.abandon_pending());
                return Err(e);
            }
        };
        self.write_root(&root)?;
        kill::point("flush: root written");
        self.settle()?;
        kill::point("flush: done");
        Ok((root.number, flushed))
    }

    fn take_turn(&self, interrupt: &dyn Fn() -> bool) -> Result<Turn<'_>> {
        let deadline = Instant::now() + OTHERS;
        let wait = |who: &str| {
            if interrupt() {
                return Err(Error::Cancelled);
            }
            if Instant::now() >= deadline {
                let what = format!("{who} has been flushing the file for {} s", OTHERS.as_secs());
                return Err(Error::Timeout { what });
            }
            std::thread::sleep(SLICE);
            Ok(())
        };
        loop {
            let seen = self.flushing.load(Ordering::Acquire);
            let free = seen != self.generation();
            if free
                && self
                    .flushing
                    .compare_exchange(seen, self.generation(), Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                break;
            }
            wait("another thread of this process")?;
        }
        // From here on given back in any case.
        let turn = Turn(self);
        let word = self.bytes.word(header::FLUSHER)?;
        loop {
            let seen = word.load(Ordering::Acquire);
            if (seen == 0 || seen == self.token() || !self.session_lives(seen)?)
                && word
                    .compare_exchange(seen, self.token(), Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                return Ok(turn);
            }
            let page = self.layout.session((seen & 0x1ff) as u32);
            let pid = self.bytes.half(page + field::PID)?.load(Ordering::Relaxed);
            wait(&format!("process {pid}"))?;
        }
    }

    /// Whether the session of a token lives. A dead one is swept.
    fn session_lives(&self, token: u64) -> Result<bool> {
        let slot = (token & 0x1ff) as u32;
        let current = || {
            let lives = slot != self.index() && self.incarnation_in(slot)? == token >> 9;
            Ok::<_, Error>(lives)
        };
        if current()? {
            self.write()?.sweep_dead()?;
        }
        current()
    }

    /// The last flush's checkpoint, empty if there was none. Only who flushes may ask.
    fn last_checkpoint(&self) -> Result<Checkpoint> {
        let Some(slot) = self.hidden_slot(header::CHECKPOINT)? else {
            return Ok(Checkpoint::default());
        };
        let (place, number) = (self.place_of(slot)?, self.checkpoint_number(slot)?);
        let last = self.read_checkpoint(place)?;
        // Its sums are taken over; damage must not be.
        let root = self.root((number % 2) as usize)?.filter(|root| root.place == place);
        let sum = self.sum(place.offset, place.bytes(), &|| false)?.unwrap_or_default();
        if last.number != number || root.is_some_and(|root| root.sum != sum) {
            return Err(Error::corrupt("its checkpoint is damaged", place.offset));
        }
        if root.is_none_or(|root| root.number != number) {
            // Somebody has damaged it since. It is what all that is not flushed again relies on.
            self.write_root(&Root { number, place, sum })?;
            self.barrier("flush: root on disk")?;
        }
        Ok(last)
    }

    /// Publishes a checkpoint of all tables; `None` if all are durable as they are.
    fn publish_snapshot(
        &self,
        last: &Checkpoint,
        patience: &Patience<'_>,
        flushed: &mut Flushed,
    ) -> Result<Option<Pending>> {
        let deadline = Instant::now().checked_add(patience.timeout);
        let began = fork::generation();
        // Read without the lock; what changes until it is taken is read again.
        let mut known = HashMap::new();
        let needed = self.glance(&mut known, last)?.bytes();
        let mut memory = self.checkpoint_memory(needed)?;
        kill::point("flush: memory taken");
        let since = Instant::now();
        let mut leases = Leases { s: self, slots: Vec::new() };
        loop {
            let outcome = self.write().and_then(|mut writer| {
                let outcome = writer.publish_checkpoint(&mut known, last, memory, flushed);
                // The slot owns it now; or it is still needed, or nobody does.
                let done = matches!(outcome, Ok(Attempt::Pending(_)));
                if done {
                    writer.release(memory.record, memory.offset, memory.bytes)?;
                }
                writer.noting(outcome)
            });
            match outcome {
                Ok(Attempt::Pending(pending)) => return Ok(Some(pending)),
                Ok(Attempt::Nothing) => {
                    self.give_back(memory);
                    return Ok(None);
                }
                Ok(Attempt::Larger(needed)) => {
                    self.give_back(memory);
                    memory = self.checkpoint_memory(needed)?;
                }
                Ok(Attempt::Busy(slot, word)) => {
                    if since.elapsed() > COURTESY {
                        leases.take_more(patience.what)?;
                    }
                    let done = self.await_update(slot, word, deadline, patience.interrupt);
                    if fork::generation() != began {
                        return Err(begun_by_parent());
                    }
                    if let Err(e) = done {
                        self.give_back(memory);
                        return Err(e);
                    }
                }
                Err(e) => {
                    self.give_back(memory);
                    return Err(e);
                }
            }
        }
    }

    /// Memory for a checkpoint of so many bytes, and a few tables more; all zero.
    fn checkpoint_memory(&self, needed: u64) -> Result<Raw> {
        let bytes = (needed + needed / 8).next_multiple_of(GRANULE);
        let raw = self.allocate_checkpoint(bytes)?;
        if let Err(e) = self.bytes.zero(raw.offset, raw.bytes) {
            self.free(raw);
            return Err(e);
        }
        Ok(raw)
    }

    /// Frees memory that did not become a checkpoint's: it may lie beyond the capacity.
    fn give_back(&self, memory: Raw) {
        self.free(memory);
        let _ = self.write().and_then(|writer| writer.shed());
    }

    /// Waits until a table that is being updated in place no longer is.
    fn await_update(
        &self,
        slot: u32,
        word: u64,
        deadline: Option<Instant>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<()> {
        loop {
            if self.state_word(slot)? != word {
                return Ok(());
            }
            if interrupt() {
                return Err(Error::Cancelled);
            }
            // Our own update would wait for the flush, and the flush for it.
            if deadline.is_some_and(|at| Instant::now() >= at) || self.updates_here(slot) {
                let name = String::from_utf8_lossy(&self.slot_name(slot)?).into_owned();
                let holders = self.holders_here(Held { slot, sequence: state::sequence(word) })?;
                return Err(Error::LeaseHeld { name, holders });
            }
            std::thread::sleep(SLICE);
            // Who updates it may have died meanwhile.
            self.rescue(slot)?;
        }
    }

    /// Sums what is new, writes the checkpoint's message, and waits until all of it is on the disk.
    fn write_content(
        &self,
        pending: &mut Pending,
        last: &Checkpoint,
        interrupt: &dyn Fn() -> bool,
        flushed: &mut Flushed,
    ) -> Result<Root> {
        let content = &mut pending.content;
        let known: HashMap<_, _> = last.extents.iter().zip(&last.sums).collect();
        // The disk works while we sum.
        for &(offset, bytes) in content.extents.iter().filter(|e| !known.contains_key(e)) {
            sync::begin(self.backing.fd()?, offset, bytes);
            flushed.bytes = flushed.bytes.saturating_add(bytes);
        }
        for extent in &content.extents {
            // What is durable already cannot have changed, and its sum tells if it did.
            let sum = match known.get(extent) {
                Some(sum) => Some(**sum),
                None => self.sum(extent.0, extent.1, interrupt)?,
            };
            content.sums.push(sum.ok_or(Error::Cancelled)?);
        }
        let place = pending.place;
        self.bytes.write(place.offset + u64::from(place.extents) * 16, &content.encode())?;
        let sum = self.sum(place.offset, place.bytes(), &|| false)?.unwrap_or_default();
        kill::point("flush: content written");
        if interrupt() {
            return Err(Error::Cancelled);
        }
        self.barrier("flush: data on disk")?;
        Ok(Root { number: content.number, place, sum })
    }

    /// Waits until what was written is on the disk. A failure is final: the system forgets which
    /// pages it could not write, and would call the next attempt a success.
    fn barrier(&self, what: &'static str) -> Result<()> {
        sync::barrier(self.backing.fd()?, what).map_err(|e| {
            if let Ok(flags) = self.bytes.word(header::FLAGS) {
                flags.fetch_or(header::FLAG_SYNC_FAILED, Ordering::AcqRel);
            }
            self.sync_failed(e)
        })
    }

    fn sync_failed(&self, source: std::io::Error) -> Error {
        Error::io(
            format!(
                "making {} durable (no flush of it can succeed any more; what the last one made \
                 durable still is: copy the tables to a new region)",
                self.backing.describe()
            ),
            source,
        )
    }

    /// Brings what a flush has begun to its end: ours, or that of one who died. If its root was
    /// written, it is on the disk after a barrier; else nothing names the checkpoint.
    fn settle(&self) -> Result<()> {
        let Some(slot) = self.hidden_slot(header::PENDING)? else { return Ok(()) };
        if self.pending_root(slot)? {
            self.barrier("flush: root on disk")?;
            self.write()?.switch_checkpoint(slot)
        } else {
            self.write()?.abandon_pending()
        }
    }

    /// Whether the root of the checkpoint in a slot is written.
    fn pending_root(&self, slot: u32) -> Result<bool> {
        let number = self.checkpoint_number(slot)?;
        let root = self.root((number % 2) as usize)?;
        let place = self.place_of(slot)?;
        Ok(root.is_some_and(|root| root.number == number && root.place == place))
    }

    /// The number of the checkpoint in a slot: it stands where tables have their content version.
    pub(crate) fn checkpoint_number(&self, slot: u32) -> Result<u64> {
        let at = self.layout.slot(slot) + slot::CONTENT;
        Ok(self.bytes.word(at)?.load(Ordering::Relaxed))
    }
}

impl Writer<'_> {
    /// Lets the checkpoint in a slot, whose root is on the disk, take the last one's place.
    fn switch_checkpoint(&mut self, slot: u32) -> Result<()> {
        let old = self.s.hidden_slot(header::CHECKPOINT)?;
        self.s.bytes.word(header::CHECKPOINT)?.store(u64::from(slot) + 1, Ordering::SeqCst);
        kill::point("flush: switched");
        self.s.bytes.word(header::PENDING)?.store(0, Ordering::SeqCst);
        match old {
            Some(old) if old != slot => self.release_checkpoint(old),
            _ => Ok(()),
        }
    }

    /// Gives up a checkpoint that no root names, nor ever will.
    fn abandon_pending(&mut self) -> Result<()> {
        let pending = self.s.hidden_slot(header::PENDING)?;
        self.s.bytes.word(header::PENDING)?.store(0, Ordering::SeqCst);
        kill::point("flush: abandoned");
        match pending {
            Some(slot) => self.release_checkpoint(slot),
            None => Ok(()),
        }
    }

    /// From now on the slot is a retired one like any other; freed at once if nobody reads it.
    fn release_checkpoint(&mut self, slot: u32) -> Result<()> {
        let word = self.s.state_word(slot)?;
        if !is_checkpoint(word) || self.s.is_kept(slot, word)? {
            return Ok(());
        }
        self.count_retired(1)?;
        let reclaimed = self.reclaim(slot);
        self.noting(reclaimed).map(|_| ())
    }

    /// Ends a dead session's flush. If its root was written, the next flush completes it: only a
    /// barrier tells that it is on the disk.
    pub(crate) fn end_flush(&mut self, token: u64) -> Result<()> {
        let flusher = self.s.bytes.word(header::FLUSHER)?;
        if token >> 9 == 0 || flusher.load(Ordering::Acquire) != token {
            return Ok(());
        }
        if let Some(slot) = self.s.hidden_slot(header::PENDING)?
            && !self.s.pending_root(slot)?
        {
            self.abandon_pending()?;
        }
        let _ = flusher.compare_exchange(token, 0, Ordering::AcqRel, Ordering::Relaxed);
        self.shed()
    }
}

mod snapshot;
#[cfg(test)]
mod tests;
mod verify;
