//! All tables of a file at one instant, and the checkpoint of them in a hidden slot.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::arena::Raw;
use crate::catalog::{ManifestAt, visible};
use crate::checkpoint::{Checkpoint, Kept, message_bytes};
use crate::error::{Error, FullCause, Result};
use crate::kill;
use crate::layout::{GRANULE, LOCK_READERS, header, slot};
use crate::reserve::Failure;
use crate::roots::Place;
use crate::session::Session;
use crate::state::{self, State};
use crate::types::Flushed;
use crate::writer::Writer;

/// A table, as it was found in a slot. Name, manifest and extents never change for a sequence.
pub(super) struct Found {
    manifest: ManifestAt,
    name: Vec<u8>,
    extents: Vec<(u64, u64)>,
}

/// All tables at one instant.
#[derive(Default)]
pub(super) struct Snapshot {
    tables: Vec<Kept>,
    /// Sorted, without duplicates, manifests included.
    extents: Vec<(u64, u64)>,
    left_out: Vec<String>,
}

impl Snapshot {
    /// What the checkpoint of it needs.
    pub(super) fn bytes(&self) -> u64 {
        let names = self.tables.iter().map(|table| table.name.len() as u64).sum();
        let extents = self.extents.len() as u64;
        16 * extents + message_bytes(extents, self.tables.len() as u64, names)
    }
}

/// A checkpoint that is published, and has no content yet.
pub(super) struct Pending {
    pub(super) place: Place,
    pub(super) content: Checkpoint,
}

/// What came of an attempt to publish a checkpoint.
pub(super) enum Attempt {
    /// All is durable as it is.
    Nothing,
    Pending(Pending),
    /// Tables came meanwhile: so many bytes are needed.
    Larger(u64),
    /// A table is being updated in place.
    Busy(u32, u64),
}

impl Session {
    /// Reads all tables without the lock. Nothing is held meanwhile, so a table may have gone, and
    /// what was read of it be another's: only what has the same state word afterwards counts.
    pub(super) fn glance(
        &self,
        known: &mut HashMap<u64, Found>,
        last: &Checkpoint,
    ) -> Result<Snapshot> {
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
    pub(super) fn publish_checkpoint(
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
}
