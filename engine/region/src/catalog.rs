//! Tables by name: publishing, looking up, replacing, deleting.
//!
//! A table becomes visible by one store. Order: the new slot's state (this decides what survives
//! a crash), then the index word (this is what readers see), then the old slot's retirement.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::arena::Raw;
use crate::error::{Error, Result};
use crate::index::{Look, NameIndex, Tried};
use crate::kill;
use crate::layout::{GRANULE, checksum, header, slot};
use crate::pins::Line;
use crate::protocol;
use crate::session::Session;
use crate::state::{self, State};
use crate::writer::Writer;

/// With more tables than this, the error for a missing name suggests none.
const MOST_SUGGESTED: u64 = 4_096;
/// How often a reader looks again before it asks for the lock.
const READER_TRIES: u32 = 100;
/// How long it does if it cannot have the lock.
const READER_PATIENCE: Duration = Duration::from_secs(10);

/// A held slot: which, and the word it was held at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
}

/// What becomes of a slot that is published.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// A table of a name that is not taken.
    New,
    /// A table of a name, whoever has it.
    Replace,
    /// The next version of a table that this session updates: handles follow.
    Swap(Held),
    /// The next revision of a table that this session updates: handles stay on the old.
    Revise(Held),
    /// Retired from the start, with these flags: never found by a name.
    Hidden(u64),
}

/// The fixed part of a manifest: what the allocator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ManifestAt {
    pub(crate) offset: u64,
    pub(crate) message: u64,
    pub(crate) extents: u32,
}

impl ManifestAt {
    /// The manifest extent's size as extents count it.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = (u64::from(self.extents) * 16).saturating_add(self.message);
        crate::arena::rounded(bytes).unwrap_or(u64::MAX)
    }
}

/// Refuses names that cannot be stored.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > slot::NAME_MAX {
        return Err(Error::InvalidArgument(format!(
            "a table's name has 1 to {} bytes; this one has {}",
            slot::NAME_MAX,
            name.len()
        )));
    }
    Ok(())
}

impl Session {
    pub(crate) fn state_word(&self, slot: u32) -> Result<u64> {
        Ok(self.bytes.word(self.layout.slot(slot) + slot::STATE)?.load(Ordering::Acquire))
    }

    /// How many slots were ever used.
    pub(crate) fn slots_high(&self) -> u32 {
        let high = self.bytes.word(header::SLOTS_HIGH).map_or(0, |w| w.load(Ordering::Acquire));
        u32::try_from(high).unwrap_or(u32::MAX).min(self.layout.slot_count())
    }

    /// A slot's name, as bytes, copied; stable only while the slot is held.
    pub(crate) fn slot_name(&self, slot: u32) -> Result<Vec<u8>> {
        let at = self.layout.slot(slot);
        let len = self.bytes.half(at + slot::NAME_BYTES)?.load(Ordering::Relaxed);
        self.bytes.read(at + slot::NAME, u64::from(len).min(slot::NAME_MAX as u64))
    }

    fn slot_named(&self, slot: u32, name: &str) -> Result<bool> {
        Ok(self.slot_name(slot)? == name.as_bytes())
    }

    /// Where a slot's manifest lies, checked to be within the arena.
    pub(crate) fn manifest_at(&self, slot: u32) -> Result<ManifestAt> {
        let at = self.layout.slot(slot);
        let found = ManifestAt {
            offset: self.bytes.word(at + slot::MANIFEST)?.load(Ordering::Relaxed),
            message: self.bytes.word(at + slot::MANIFEST_BYTES)?.load(Ordering::Relaxed),
            extents: self.bytes.half(at + slot::EXTENTS)?.load(Ordering::Relaxed),
        };
        if found.message > self.layout.span || !self.layout.in_arena(found.offset, found.bytes()) {
            return Err(Error::corrupt("a manifest lies outside the arena", at + slot::MANIFEST));
        }
        // Reading memory that was never reserved would reserve it, or kill us where it cannot.
        let from = self.layout.granule_of(found.offset).unwrap_or(0);
        let to = (found.offset - self.layout.arena + found.bytes()).div_ceil(GRANULE);
        if self.count_warm(from, to)? != to - from {
            return Err(Error::corrupt("a manifest was never reserved", at + slot::MANIFEST));
        }
        Ok(found)
    }

    /// A slot's extents, (offset, bytes) each, checked to be within the arena.
    pub(crate) fn slot_extents(&self, slot: u32) -> Result<Vec<(u64, u64)>> {
        let manifest = self.manifest_at(slot)?;
        let bytes = self.bytes.read(manifest.offset, u64::from(manifest.extents) * 16)?;
        let mut out = Vec::with_capacity(manifest.extents as usize);
        for pair in bytes.chunks_exact(16) {
            let (offset, len) = pair.split_at(8);
            let number = |b: &[u8]| b.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
            let (offset, len) = (number(offset), number(len));
            if !self.layout.in_arena(offset, len) {
                return Err(Error::corrupt("an extent lies outside the arena", manifest.offset));
            }
            out.push((offset, len));
        }
        Ok(out)
    }

    /// A slot's manifest message, copied.
    pub(crate) fn slot_message(&self, slot: u32) -> Result<Vec<u8>> {
        let manifest = self.manifest_at(slot)?;
        self.bytes.read(manifest.offset + u64::from(manifest.extents) * 16, manifest.message)
    }

    /// Finds a table by name and pins it.
    pub(crate) fn lookup(&self, name: &str) -> Result<Held> {
        self.seek(name)?.ok_or_else(|| self.not_found(name))
    }

    /// As [`Session::lookup`], where it is no error if there is none: names are not looked through
    /// for a similar one then.
    pub(crate) fn seek(&self, name: &str) -> Result<Option<Held>> {
        self.check_fork()?;
        if name.is_empty() || name.len() > slot::NAME_MAX {
            return Ok(None);
        }
        let hash = checksum(name.as_bytes());
        let deadline = Instant::now() + READER_PATIENCE;
        let mut tries = 0;
        loop {
            match self.look(|raced| self.find(name, hash, raced))? {
                Look::Found(held) => return Ok(Some(held)),
                Look::Missing => return Ok(None),
                Look::Disturbed => {}
            }
            tries += 1;
            if tries < READER_TRIES {
                std::hint::spin_loop();
            } else if !self.read_only {
                // A rebuilder may have died with the index half made: the lock mends it.
                let _writer = self.write()?;
                return self.find(name, hash, &mut false);
            } else if Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            } else {
                return Err(being_rebuilt());
            }
        }
    }

    /// Probes the index for a name and pins what it finds. `raced`: something changed meanwhile.
    fn find(&self, name: &str, hash: u64, raced: &mut bool) -> Result<Option<Held>> {
        let hold = |slot| {
            if slot >= self.slots_high() {
                return Ok(Tried::Nothing);
            }
            let seen = self.state_word(slot)?;
            let held = visible(seen) && self.hold(slot, Line::Pins, seen, "")?;
            Ok(if held { Tried::Held(seen) } else { Tried::Changed })
        };
        let named = |slot| self.slot_named(slot, name);
        let found =
            self.find_held(hash, raced, hold, named, |slot| self.unhold(slot, Line::Pins))?;
        Ok(found.map(|(slot, seen)| Held { slot, sequence: state::sequence(seen) }))
    }

    /// The error for a name that is not there, with the nearest that is. With many tables nobody
    /// looks through all names for a better message.
    pub(crate) fn not_found(&self, name: &str) -> Error {
        let tables = self.bytes.word(header::TABLES).map_or(0, |w| w.load(Ordering::Relaxed));
        let names = match tables {
            0..=MOST_SUGGESTED => self.names().unwrap_or_default(),
            _ => Vec::new(),
        };
        Error::TableNotFound { name: name.into(), nearest: crate::nearest::nearest(name, &names) }
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        self.check_fork()?;
        let deadline = Instant::now() + READER_PATIENCE;
        let mut tries = 0;
        while tries < READER_TRIES || self.read_only && Instant::now() < deadline {
            tries += 1;
            let mut names = Vec::new();
            let look = self.look(|_| {
                names = self.read_names()?;
                Ok(None::<()>)
            })?;
            if look == Look::Missing {
                return Ok(names);
            }
            if tries < READER_TRIES {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.read_only {
            return Err(being_rebuilt());
        }
        let _writer = self.write()?;
        self.read_names()
    }

    fn read_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for slot in self.index_slots()? {
            if slot >= self.slots_high() {
                continue;
            }
            let seen = self.state_word(slot)?;
            if !visible(seen) {
                continue;
            }
            let name = self.slot_name(slot)?;
            fence(Ordering::Acquire);
            // A sequence never comes back: the same word means that the name was not written.
            if self.state_word(slot)? == seen {
                names.push(String::from_utf8_lossy(&name).into_owned());
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Publishes a table; see [`crate::Region::publish`]. The result is pinned.
    pub(crate) fn publish(
        &self,
        name: &str,
        extents: &[(u64, u64)],
        message: &[u8],
        fate: Fate,
    ) -> Result<Held> {
        if !matches!(fate, Fate::Hidden(_)) {
            check_name(name)?;
        }
        let count = u32::try_from(extents.len())
            .ok()
            .filter(|&n| n <= 1 << 24)
            .ok_or_else(|| Error::InvalidArgument("a table has too many extents".into()))?;
        let raw = self.allocate(u64::from(count) * 16 + message.len() as u64)?;
        let written = self.write_manifest(raw, extents, message);
        kill::point("publish: manifest written");
        let mut writer = match written.and_then(|()| self.write()) {
            Ok(writer) => writer,
            Err(e) => {
                self.free(raw);
                return Err(e);
            }
        };
        let at = ManifestAt { offset: raw.offset, message: message.len() as u64, extents: count };
        let published = writer.publish(name, extents, &at, fate);
        // The slot owns the manifest now; or nobody does. A contradiction found here is noted, and
        // does not undo what is published.
        let _ = writer.release(raw.record, raw.offset, raw.bytes);
        kill::point("publish: manifest released");
        let held = writer.noting(published)?;
        drop(writer);
        kill::point("publish: unlocked");
        self.ring()?;
        Ok(held)
    }

    fn write_manifest(&self, raw: Raw, extents: &[(u64, u64)], message: &[u8]) -> Result<()> {
        let mut array = Vec::with_capacity(extents.len() * 16);
        for (offset, len) in extents {
            array.extend_from_slice(&offset.to_le_bytes());
            array.extend_from_slice(&len.to_le_bytes());
        }
        self.bytes.write(raw.offset, &array)?;
        self.bytes.write(raw.offset + array.len() as u64, message)
    }

    /// Deletes a table; handles and views of it stay good.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let mut writer = self.write()?;
        let hash = checksum(name.as_bytes());
        let found = writer.find_entry(name, hash);
        let Some((entry, slot)) = writer.noting(found)? else {
            drop(writer);
            return Err(self.not_found(name));
        };
        // The state first: it decides, and a writer who dies after the index alone was changed
        // would have the table come back.
        let done = (|| {
            writer.mark_retired(slot)?;
            self.index_remove(entry)?;
            kill::point("delete: index entry removed");
            writer.count_tables(-1)?;
            writer.reclaim(slot).map(|_| ())
        })();
        writer.noting(done)?;
        drop(writer);
        kill::point("delete: unlocked");
        self.ring()
    }
}

#[cold]
fn being_rebuilt() -> Error {
    Error::Timeout {
        what: "the name index is being rebuilt; a writer may have died, and a read-only opener \
               cannot mend it: open the region for writing"
            .into(),
    }
}

/// Whether a slot in this state is found by its name.
pub(crate) fn visible(word: u64) -> bool {
    matches!(
        state::state(word),
        Some(State::Published | State::Leased | State::Writing | State::Poisoned)
    )
}

impl Writer<'_> {
    /// The entry and slot of a name.
    fn find_entry(&self, name: &str, hash: u64) -> Result<Option<(u64, u32)>> {
        self.s.probe(hash, |at, slot| {
            let fits = slot < self.s.slots_high()
                && visible(self.s.state_word(slot)?)
                && self.s.slot_named(slot, name)?;
            Ok(fits.then_some((at, slot)))
        })
    }

    fn publish(
        &mut self,
        name: &str,
        extents: &[(u64, u64)],
        manifest: &ManifestAt,
        fate: Fate,
    ) -> Result<Held> {
        let s = self.s;
        let hash = checksum(name.as_bytes());
        let old = match fate {
            Fate::Hidden(_) => None,
            Fate::New if self.find_entry(name, hash)?.is_some() => {
                return Err(Error::TableExists { name: name.into() });
            }
            Fate::New | Fate::Replace => {
                self.index_reserve()?;
                // Making room may have moved the entry.
                self.find_entry(name, hash)?
            }
            Fate::Swap(held) | Fate::Revise(held) => {
                self.expect(held, name, State::Published)?;
                let old = self.find_entry(name, hash)?.filter(|(_, slot)| *slot == held.slot);
                // In the index, or an earlier writer failed; the next one mends it.
                let Some(old) = old else {
                    return Err(Error::corrupt("a table is not found by its name", s.layout.index));
                };
                Some(old)
            }
        };
        let slot = match self.take_slot() {
            Err(Error::TableLimit { .. }) => {
                self.collect()?;
                self.take_slot()?
            }
            taken => taken?,
        };
        let at = s.layout.slot(slot);
        let sequence = s.bytes.word(header::SEQUENCE)?.fetch_add(1, Ordering::AcqRel);
        let sequence = sequence.saturating_add(1);
        if sequence > state::LAST_SEQUENCE {
            self.give_slot(slot, 0)?;
            return Err(Error::corrupt("the sequence numbers are used up", header::SEQUENCE));
        }
        let word = s.bytes.word(at + slot::STATE)?;
        word.store(state::word(State::Building, sequence), Ordering::Release);
        kill::point("publish: slot taken");
        s.bytes.word(at + slot::CONTENT)?.store(1, Ordering::Relaxed);
        s.bytes.word(at + slot::MANIFEST)?.store(manifest.offset, Ordering::Relaxed);
        s.bytes.word(at + slot::MANIFEST_BYTES)?.store(manifest.message, Ordering::Relaxed);
        s.bytes.half(at + slot::EXTENTS)?.store(manifest.extents, Ordering::Relaxed);
        s.bytes.half(at + slot::NAME_BYTES)?.store(name.len() as u32, Ordering::Relaxed);
        s.bytes.word(at + slot::NAME_HASH)?.store(hash, Ordering::Relaxed);
        for field in [
            slot::UPDATER,
            slot::SUPERSEDED_BY,
            slot::SUPERSEDED_SEQUENCE,
            slot::TICKET,
            slot::TICKETS,
            slot::TICKET_UNTIL,
            slot::TICKET_SINCE,
        ] {
            s.bytes.word(at + field)?.store(0, Ordering::Relaxed);
        }
        for field in [slot::TICKET_PID, slot::TICKETS_ISSUED] {
            s.bytes.half(at + field)?.store(0, Ordering::Relaxed);
        }
        let predecessor = match fate {
            Fate::Swap(held) => u64::from(held.slot) + 1,
            _ => 0,
        };
        s.bytes.word(at + slot::PREDECESSOR)?.store(predecessor, Ordering::Relaxed);
        s.bytes.write(at + slot::NAME, name.as_bytes())?;
        kill::point("publish: slot filled");

        let mut counted = 0;
        let owned = (manifest.offset, manifest.bytes());
        let all = || std::iter::once(&owned).chain(extents);
        let mut failed = None;
        for &(offset, bytes) in all() {
            if let Err(e) = self.add_owner(offset, bytes) {
                failed = Some(e);
                break;
            }
            counted += 1;
            kill::point("publish: owner counted");
        }
        if let Some(e) = failed {
            for &(offset, bytes) in all().take(counted) {
                self.drop_owner(offset, bytes)?;
            }
            self.give_slot(slot, sequence)?;
            return Err(e);
        }

        let published = match fate {
            Fate::Hidden(flags) => state::word(State::Retired, sequence) | flags,
            _ => state::word(State::Published, sequence),
        };
        let found = protocol::commit(
            self,
            word,
            published,
            |_| {
                kill::point("publish: published");
                let held = s.hold(slot, Line::Pins, published, "")?;
                let changed = || Error::corrupt("a slot changed under the writer lock", at);
                if held { Ok(()) } else { Err(changed()) }
            },
            |writer| match (old, fate) {
                (_, Fate::Hidden(_)) => writer.count_retired(1),
                (Some((entry, _)), _) => {
                    s.index_replace(entry, hash, slot)?;
                    kill::point("publish: index entry replaced");
                    Ok(())
                }
                (None, _) => {
                    s.index_insert(hash, slot)?;
                    kill::point("publish: index entry made");
                    writer.count_tables(1)
                }
            },
            |writer| match (old, fate) {
                (None, _) | (_, Fate::Hidden(_)) => Ok(()),
                (Some((_, old)), Fate::Swap(_)) => {
                    writer.supersede(old, slot, sequence)?;
                    writer.count_retired(1)?;
                    writer.reclaim(old).map(|_| ())
                }
                (Some((_, old)), _) => writer.retire(old),
            },
        );
        if let Err(e) = found {
            // It is published all the same; the next writer mends the index.
            s.unhold(slot, Line::Pins);
            return Err(e);
        }
        Ok(Held { slot, sequence })
    }
}
