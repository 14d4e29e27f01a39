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
use crate::catalog::{Held, ManifestAt, visible};
use crate::checkpoint::{self, Checkpoint, Kept, is_checkpoint, message_bytes};
use crate::error::{Error, FullCause, Result};
use crate::kill;
use crate::layout::{GRANULE, LOCK_READERS, SESSIONS, header, session as field, slot};
use crate::pins::Line;
use crate::reserve::Failure;
use crate::roots::{self, Place, Root};
use crate::session::Session;
use crate::state::{self, State};
use crate::sync;
use crate::types::{Flushed, Patience, Report};
use crate::writer::Writer;

/// How long to wait for another's flush: it may write all of a large file.
const OTHERS: Duration = Duration::from_secs(600);
/// How long tables are waited for before others are kept from being updated meanwhile.
const COURTESY: Duration = Duration::from_millis(50);
/// How often to look again whether a wait is over.
const SLICE: Duration = Duration::from_millis(2);

/// A table, as it was found in a slot. Name, manifest and extents never change for a sequence.
struct Found {
    manifest: ManifestAt,
    name: Vec<u8>,
    extents: Vec<(u64, u64)>,
}

/// All tables at one instant.
#[derive(Default)]
struct Snapshot {
    tables: Vec<Kept>,
    /// Sorted, without duplicates, manifests included.
    extents: Vec<(u64, u64)>,
    left_out: Vec<String>,
}

impl Snapshot {
    /// What the checkpoint of it needs.
    fn bytes(&self) -> u64 {
        let names = self.tables.iter().map(|table| table.name.len() as u64).sum();
        let extents = self.extents.len() as u64;
        16 * extents + message_bytes(extents, self.tables.len() as u64, names)
    }
}

/// A checkpoint that is published, and has no content yet.
struct Pending {
    place: Place,
    content: Checkpoint,
}

/// What came of an attempt to publish a checkpoint.
enum Attempt {
    /// All is durable as it is.
    Nothing,
    Pending(Pending),
    /// Tables came meanwhile: so many bytes are needed.
    Larger(u64),
    /// A table is being updated in place.
    Busy(u32, u64),
}

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
        let root = match self.write_content(&mut pending, &last, patience.interrupt, &mut flushed) {
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
        let page = self.layout.session(slot.min(SESSIONS - 1));
        let current = || {
            let word = self.bytes.word(page + field::INCARNATION)?;
            Ok::<_, Error>(slot != self.index() && word.load(Ordering::Acquire) == token >> 9)
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
        let damaged = match root {
            Some(root) => self.sum(place.offset, place.bytes(), &|| false)? != Some(root.sum),
            None => false,
        };
        if damaged || last.number != number {
            return Err(Error::corrupt("its checkpoint is damaged", place.offset));
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
                    if let Err(e) = self.await_update(slot, word, deadline, patience.interrupt) {
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

    /// Reads all tables without the lock. Nothing is held meanwhile, so a table may have gone, and
    /// what was read of it be another's: only what has the same state word afterwards counts.
    fn glance(&self, known: &mut HashMap<u64, Found>, last: &Checkpoint) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for slot in slot::HIDDEN..self.slots_high() {
            let word = self.state_word(slot)?;
            if !visible(word) {
                continue;
            }
            let found = self.found_in(slot);
            std::sync::atomic::fence(Ordering::Acquire);
            if self.state_word(slot)? != word {
                continue;
            }
            let Ok(found) = found else { continue };
            snapshot.add(state::sequence(word), 0, &found);
            known.insert(state::sequence(word), found);
        }
        // Poisoned tables may need what was durable before.
        snapshot.extents.extend(&last.extents);
        snapshot.settle();
        Ok(snapshot)
    }

    fn found_in(&self, slot: u32) -> Result<Found> {
        Ok(Found {
            manifest: self.manifest_at(slot)?,
            name: self.slot_name(slot)?,
            extents: self.slot_extents(slot)?,
        })
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
                let holders = self.holders(Held { slot, sequence: state::sequence(word) })?;
                return Err(Error::LeaseHeld { name, holders });
            }
            std::thread::sleep(SLICE);
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

impl Snapshot {
    fn add(&mut self, sequence: u64, content: u64, found: &Found) {
        self.extents.push((found.manifest.offset, found.manifest.bytes()));
        self.extents.extend(&found.extents);
        let (manifest, name) = (found.manifest, found.name.clone());
        self.tables.push(Kept { sequence, content, manifest, name });
    }

    fn settle(&mut self) {
        self.left_out.sort_unstable();
        self.tables.sort_unstable_by_key(|table| table.sequence);
        self.extents.sort_unstable();
        self.extents.dedup();
    }
}

impl Writer<'_> {
    /// All tables as they are now; a slot and its word if one is being updated in place.
    fn snapshot(
        &mut self,
        known: &mut HashMap<u64, Found>,
        last: &Checkpoint,
    ) -> Result<Result<Snapshot, (u32, u64)>> {
        let s = self.s;
        let mut snapshot = Snapshot::default();
        for slot in slot::HIDDEN..s.slots_high() {
            let mut word = s.state_word(slot)?;
            if matches!(state::state(word), Some(State::Leased | State::Writing)) {
                // Its updater may have died; then that ends the update.
                self.end_if_dead(slot)?;
                word = s.state_word(slot)?;
            }
            match state::state(word) {
                Some(State::Published) => {}
                Some(State::Leased | State::Writing) => return Ok(Err((slot, word))),
                Some(State::Poisoned) => {
                    let name = s.slot_name(slot)?;
                    snapshot.left_out.push(String::from_utf8_lossy(&name).into_owned());
                    let Some(kept) = last.tables.iter().find(|table| table.name == name) else {
                        continue;
                    };
                    let found = Found {
                        manifest: kept.manifest,
                        name,
                        extents: s.kept_extents(last, kept)?,
                    };
                    snapshot.add(kept.sequence, kept.content, &found);
                    continue;
                }
                _ => continue,
            }
            let sequence = state::sequence(word);
            let found = match known.entry(sequence) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => entry.insert(s.found_in(slot)?),
            };
            let content = s.bytes.word(s.layout.slot(slot) + slot::CONTENT)?;
            snapshot.add(sequence, content.load(Ordering::Acquire), found);
        }
        snapshot.settle();
        Ok(Ok(snapshot))
    }

    /// Publishes a checkpoint of all tables in a hidden slot.
    fn publish_checkpoint(
        &mut self,
        known: &mut HashMap<u64, Found>,
        last: &Checkpoint,
        memory: Raw,
        flushed: &mut Flushed,
    ) -> Result<Attempt> {
        let snapshot = match self.snapshot(known, last)? {
            Ok(snapshot) => snapshot,
            Err((slot, word)) => return Ok(Attempt::Busy(slot, word)),
        };
        *flushed = Flushed {
            tables: snapshot.tables.len() as u64,
            bytes: 0,
            left_out: snapshot.left_out.clone(),
        };
        let base = match self.s.hidden_slot(header::CHECKPOINT)? {
            Some(slot) => Some(self.s.checkpoint_number(slot)?),
            None => None,
        };
        if snapshot.tables == last.tables && base != Some(1) {
            return Ok(Attempt::Nothing);
        }
        let needed = snapshot.bytes();
        let count = u32::try_from(snapshot.extents.len()).ok().filter(|_| needed <= memory.bytes);
        let Some(count) = count else { return Ok(Attempt::Larger(needed)) };
        let place = Place {
            offset: memory.offset,
            extents: count,
            message: memory.bytes - u64::from(count) * 16,
        };
        let mut array = Vec::with_capacity(snapshot.extents.len() * 16);
        for (offset, bytes) in &snapshot.extents {
            array.extend_from_slice(&offset.to_le_bytes());
            array.extend_from_slice(&bytes.to_le_bytes());
        }
        self.s.bytes.write(place.offset, &array)?;
        let mut content = Checkpoint {
            number: base.unwrap_or(0).saturating_add(1),
            sequence: 0,
            extents: snapshot.extents,
            sums: Vec::new(),
            tables: snapshot.tables,
        };
        self.fill_hidden(place, &mut content)?;
        Ok(Attempt::Pending(Pending { place, content }))
    }

    /// A hidden slot that nothing is in.
    fn take_hidden(&mut self) -> Result<u32> {
        for collected in [false, true] {
            for slot in 0..slot::HIDDEN {
                if state::state(self.s.state_word(slot)?) == Some(State::Free) {
                    return Ok(slot);
                }
            }
            if !collected {
                self.collect_retired()?;
            }
        }
        // Readers without a session keep everything, earlier checkpoints as well.
        let cause = if self.s.lock.try_lock(LOCK_READERS, 1).unwrap_or(false) {
            let _ = self.s.lock.unlock(LOCK_READERS, 1);
            FullCause::Pins
        } else {
            FullCause::ReadOnlyOpener
        };
        Err(self.s.full(Failure::Full(cause), GRANULE))
    }

    fn fill_hidden(&mut self, place: Place, content: &mut Checkpoint) -> Result<()> {
        let s = self.s;
        let slot = self.take_hidden()?;
        let at = s.layout.slot(slot);
        let sequence = s.bytes.word(header::SEQUENCE)?.fetch_add(1, Ordering::AcqRel);
        content.sequence = sequence.saturating_add(1);
        if content.sequence > state::LAST_SEQUENCE {
            return Err(Error::corrupt("the sequence numbers are used up", header::SEQUENCE));
        }
        let word = s.bytes.word(at + slot::STATE)?;
        word.store(state::word(State::Building, content.sequence), Ordering::Release);
        kill::point("flush: slot taken");
        s.describe_checkpoint(slot, place, content.number)?;
        kill::point("flush: slot filled");
        let own = (place.offset, place.bytes());
        let all = || std::iter::once(&own).chain(&content.extents);
        for (counted, &(offset, bytes)) in all().enumerate() {
            if let Err(e) = self.add_owner(offset, bytes) {
                for &(offset, bytes) in all().take(counted) {
                    self.drop_owner(offset, bytes)?;
                }
                self.give_slot(slot, content.sequence)?;
                return Err(e);
            }
        }
        kill::point("flush: owners counted");
        word.store(
            state::word(State::Retired, content.sequence) | state::CHECKPOINT,
            Ordering::SeqCst,
        );
        kill::point("flush: slot hidden");
        s.bytes.word(header::PENDING)?.store(u64::from(slot) + 1, Ordering::SeqCst);
        kill::point("flush: pending");
        Ok(())
    }

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

    /// Whether memory would come free with the next flush: nobody but checkpoints has it.
    pub(crate) fn awaits_flush(&self) -> Result<bool> {
        let s = self.s;
        if !s.backing.is_durable() {
            return Ok(false);
        }
        let mut kept: HashMap<(u64, u64), u64> = HashMap::new();
        for slot in 0..slot::HIDDEN {
            if is_checkpoint(s.state_word(slot)?) {
                for extent in s.slot_extents(slot).unwrap_or_default() {
                    *kept.entry(extent).or_insert(0) += 1;
                }
            }
        }
        for ((offset, bytes), checkpoints) in kept {
            if self.owners(offset, bytes)? <= checkpoints {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Session {
    /// Fills a hidden slot's fields, but for its state.
    pub(crate) fn describe_checkpoint(&self, slot: u32, place: Place, number: u64) -> Result<()> {
        let at = self.layout.slot(slot);
        self.bytes.zero(at + slot::CONTENT, slot::BYTES - slot::CONTENT)?;
        self.bytes.word(at + slot::CONTENT)?.store(number, Ordering::Relaxed);
        self.bytes.word(at + slot::MANIFEST)?.store(place.offset, Ordering::Relaxed);
        self.bytes.word(at + slot::MANIFEST_BYTES)?.store(place.message, Ordering::Relaxed);
        self.bytes.half(at + slot::EXTENTS)?.store(place.extents, Ordering::Relaxed);
        Ok(())
    }

    /// Compares what is durable with its checksums, and the roots with what they should say.
    pub(crate) fn verify_durable(&self, report: &mut Report) -> Result<()> {
        if !self.backing.is_durable() {
            return Ok(());
        }
        let flags = self.bytes.word(header::FLAGS)?.load(Ordering::Acquire);
        if flags & header::FLAG_SYNC_FAILED != 0 {
            report
                .problems
                .push("the system failed to write the file; no flush can succeed".into());
        }
        let Some(slot) = self.hidden_slot(header::CHECKPOINT)? else {
            if self.root(0)?.is_none() {
                report.problems.push("the first durable root is damaged".into());
            }
            return Ok(());
        };
        let word = self.state_word(slot)?;
        // Held, so that a flush that completes meanwhile does not have it recycled.
        if !self.hold(slot, Line::Pins, word, "")? {
            return Ok(());
        }
        let outcome = self.verify_checkpoint(slot, report);
        self.unhold(slot, Line::Pins);
        outcome
    }

    fn verify_checkpoint(&self, slot: u32, report: &mut Report) -> Result<()> {
        let number = self.checkpoint_number(slot)?;
        let place = self.place_of(slot)?;
        let root = self.root((number % 2) as usize)?;
        let Some(root) = root.filter(|root| root.number == number && root.place == place) else {
            // Unless another flush has completed meanwhile, it is the place where it was written.
            if self.hidden_slot(header::CHECKPOINT)? == Some(slot) {
                let at = roots::at(number);
                report.problems.push(format!("the durable root at byte {at} is damaged"));
            }
            return Ok(());
        };
        self.verify_sums(&root, report)
    }

    /// Compares a root's checkpoint, and all that it keeps, with the checksums.
    pub(crate) fn verify_sums(&self, root: &Root, report: &mut Report) -> Result<()> {
        let place = root.place;
        if place.offset == 0 {
            return Ok(());
        }
        let kept = self.read_checkpoint(place)?;
        if self.sum(place.offset, place.bytes(), &|| false)? != Some(root.sum) {
            report
                .problems
                .push(format!("the checkpoint at byte {} is not what was flushed", place.offset));
            return Ok(());
        }
        for (&(offset, bytes), &expected) in kept.extents.iter().zip(&kept.sums) {
            if self.sum(offset, bytes, &|| false)? == Some(expected) {
                continue;
            }
            let of = kept.tables.iter().filter(|table| {
                (table.manifest.offset, table.manifest.bytes()) == (offset, bytes)
                    || self
                        .kept_extents(&kept, table)
                        .is_ok_and(|e| checkpoint::contains(&e, offset, bytes))
            });
            let names: Vec<_> =
                of.map(|table| format!("{:?}", String::from_utf8_lossy(&table.name))).collect();
            report.problems.push(format!(
                "table {}: the {bytes} bytes at byte {offset} are not what was flushed",
                names.join(", ")
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
