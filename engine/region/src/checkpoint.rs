//! Checkpoints: the tables of a file as a flush made them durable, written down so that they can
//! be found again from a root alone.
//!
//! A checkpoint is laid out as a table's manifest is: first the extents that it keeps, then a
//! message. So a hidden slot can own it and all that it lists, and nothing of it is recycled
//! while the slot stands. The message has fixed-width records: whoever recovers a region needs to
//! decode nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use xxhash_rust::xxh3::Xxh3Default;

use crate::arena::granules;
use crate::catalog::ManifestAt;
use crate::error::{Error, Result};
use crate::layout::{GRANULE, class_bytes, class_of, header, slot, u32_at, u64_at};
use crate::roots::Place;
use crate::session::Session;
use crate::state::{self, State};

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"insituCP");
/// Fields of a message's first record.
pub(crate) const HEADER_BYTES: u64 = 64;
const NUMBER: u64 = 8;
const EXTENTS: u64 = 16;
const TABLES: u64 = 24;
const SEQUENCE: u64 = 32;
const NAMES: u64 = 40;
/// Fields of a table's record.
pub(crate) const TABLE_BYTES: u64 = 64;
const TABLE_CONTENT: u64 = 8;
const TABLE_MANIFEST: u64 = 16;
const TABLE_MESSAGE: u64 = 24;
const TABLE_EXTENTS: u64 = 32;
const TABLE_NAME_BYTES: u64 = 36;
const TABLE_NAME: u64 = 40;

/// How much is copied out at a time to be summed: it stays in the cache.
const STRIDE: u64 = 128 << 10;
/// How much is summed between two looks whether to go on.
const LOOK: u64 = 32 << 20;

/// A table as a checkpoint knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) sequence: u64,
    pub(crate) content: u64,
    pub(crate) manifest: ManifestAt,
    pub(crate) name: Vec<u8>,
}

/// A checkpoint, read and checked.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) number: u64,
    /// The last sequence that was given out when it was made.
    pub(crate) sequence: u64,
    /// Sorted by offset; they do not overlap.
    pub(crate) extents: Vec<(u64, u64)>,
    /// The extents' checksums.
    pub(crate) sums: Vec<u64>,
    pub(crate) tables: Vec<Kept>,
}

/// The bytes that a message needs for so many extents and tables.
pub(crate) fn message_bytes(extents: u64, tables: u64, names: u64) -> u64 {
    HEADER_BYTES + 8 * extents + TABLE_BYTES * tables + names
}

impl Checkpoint {
    /// The message, without the zeros behind it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let names: usize = self.tables.iter().map(|table| table.name.len()).sum();
        let counts = (self.extents.len() as u64, self.tables.len() as u64, names as u64);
        let mut out = Vec::with_capacity(message_bytes(counts.0, counts.1, counts.2) as usize);
        for value in [MAGIC, self.number, counts.0, counts.1, self.sequence, counts.2, 0, 0] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for sum in &self.sums {
            out.extend_from_slice(&sum.to_le_bytes());
        }
        let mut name_at = 0;
        for table in &self.tables {
            for value in
                [table.sequence, table.content, table.manifest.offset, table.manifest.message]
            {
                out.extend_from_slice(&value.to_le_bytes());
            }
            out.extend_from_slice(&table.manifest.extents.to_le_bytes());
            out.extend_from_slice(&(table.name.len() as u32).to_le_bytes());
            for value in [name_at, 0, 0] {
                out.extend_from_slice(&u64::to_le_bytes(value));
            }
            name_at += table.name.len() as u64;
        }
        for table in &self.tables {
            out.extend_from_slice(&table.name);
        }
        out
    }

    /// Reads a message; `None` if it contradicts itself.
    pub(crate) fn decode(extents: Vec<(u64, u64)>, message: &[u8]) -> Option<Self> {
        let (count, tables) = (u64_at(message, EXTENTS)?, u64_at(message, TABLES)?);
        let names = u64_at(message, NAMES)?;
        let room = message.len() as u64;
        if u64_at(message, 0)? != MAGIC
            || count != extents.len() as u64
            || tables > room / TABLE_BYTES
            || names > room
            || message_bytes(count, tables, names) > room
        {
            return None;
        }
        let records = HEADER_BYTES + 8 * count;
        let names_at = records + TABLE_BYTES * tables;
        let sums: Option<_> = (0..count).map(|i| u64_at(message, HEADER_BYTES + 8 * i)).collect();
        let table = |i: u64| {
            let at = records + TABLE_BYTES * i;
            let len = u64::from(u32_at(message, at + TABLE_NAME_BYTES)?);
            let name = u64_at(message, at + TABLE_NAME)?;
            if len == 0 || len > slot::NAME_MAX as u64 || name.checked_add(len)? > names {
                return None;
            }
            let from = (names_at + name) as usize;
            Some(Kept {
                sequence: u64_at(message, at)?,
                content: u64_at(message, at + TABLE_CONTENT)?,
                manifest: ManifestAt {
                    offset: u64_at(message, at + TABLE_MANIFEST)?,
                    message: u64_at(message, at + TABLE_MESSAGE)?,
                    extents: u32_at(message, at + TABLE_EXTENTS)?,
                },
                name: message.get(from..from + len as usize)?.to_vec(),
            })
        };
        let tables: Option<Vec<_>> = (0..tables).map(table).collect();
        Some(Self {
            number: u64_at(message, NUMBER)?,
            sequence: u64_at(message, SEQUENCE)?,
            extents,
            sums: sums?,
            tables: tables?,
        })
    }

    /// Whether an extent is among those that it keeps.
    pub(crate) fn keeps(&self, offset: u64, bytes: u64) -> bool {
        contains(&self.extents, offset, bytes)
    }
}

/// Whether a list of extents that is sorted has this one.
pub(crate) fn contains(sorted: &[(u64, u64)], offset: u64, bytes: u64) -> bool {
    sorted.binary_search(&(offset, bytes)).is_ok()
}

/// Whether a state word is a checkpoint's.
pub(crate) fn is_checkpoint(word: u64) -> bool {
    state::state(word) == Some(State::Retired) && word & state::CHECKPOINT != 0
}

/// The bytes an extent really takes.
pub(crate) fn footprint(bytes: u64) -> u64 {
    class_of(bytes).map_or_else(|| granules(bytes).saturating_mul(GRANULE), class_bytes)
}

/// What the checkpoints that are kept now keep, for who asks often.
#[derive(Default)]
pub(crate) struct Durable {
    known: [Known; 2],
}

/// The extents of the checkpoint that a slot holds at this state word, sorted.
#[derive(Default)]
struct Known {
    word: u64,
    extents: Arc<Vec<(u64, u64)>>,
}

impl Session {
    /// The checksum of some bytes of the arena. `None`: interrupted.
    pub(crate) fn sum(
        &self,
        offset: u64,
        bytes: u64,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Option<u64>> {
        if !self.layout.in_arena(offset, bytes) {
            return Err(Error::corrupt("an extent lies outside the arena", offset));
        }
        let mut hash = Xxh3Default::new();
        let mut done = 0;
        while done < bytes {
            if done % LOOK == 0 && interrupt() {
                return Ok(None);
            }
            let step = (bytes - done).min(STRIDE);
            // Copied first: nobody makes a slice of memory that others may write.
            hash.update(&self.bytes.read_content(offset + done, step)?);
            done += step;
        }
        Ok(Some(hash.digest()))
    }

    /// Reads a checkpoint. Every number of it is checked, so that it can be acted on.
    pub(crate) fn read_checkpoint(&self, place: Place) -> Result<Checkpoint> {
        let corrupt = |what: &str| Error::corrupt(what, place.offset);
        if !self.layout.in_arena(place.offset, place.bytes()) {
            return Err(corrupt("a checkpoint lies outside the arena"));
        }
        let array = self.bytes.read(place.offset, u64::from(place.extents) * 16)?;
        let mut extents = Vec::with_capacity(place.extents as usize);
        let mut end = self.layout.arena;
        for pair in array.chunks_exact(16) {
            let (Some(offset), Some(bytes)) = (u64_at(pair, 0), u64_at(pair, 8)) else { continue };
            if offset < end || !self.layout.in_arena(offset, bytes) || bytes % 64 != 0 {
                return Err(corrupt("a checkpoint's extents overlap or lie outside the arena"));
            }
            end = offset.saturating_add(footprint(bytes));
            extents.push((offset, bytes));
        }
        let message_at = place.offset + array.len() as u64;
        let message = self.bytes.read(message_at, place.message)?;
        let Some(found) = Checkpoint::decode(extents, &message) else {
            return Err(corrupt("a checkpoint contradicts itself"));
        };
        let own = (place.offset, place.bytes());
        let after = found.extents.partition_point(|extent| *extent < own);
        let overlaps = [after.checked_sub(1), Some(after)].into_iter().flatten().any(|i| {
            found.extents.get(i).is_some_and(|&(offset, bytes)| {
                offset < own.0.saturating_add(footprint(own.1))
                    && own.0 < offset.saturating_add(footprint(bytes))
            })
        });
        let whole = found.tables.iter().all(|table| {
            found.keeps(table.manifest.offset, table.manifest.bytes())
                && table.sequence <= found.sequence
        });
        if overlaps || !whole || found.sequence > state::LAST_SEQUENCE {
            return Err(corrupt("a checkpoint's tables contradict its extents"));
        }
        Ok(found)
    }

    /// The extents of a table that a checkpoint keeps.
    pub(crate) fn kept_extents(&self, of: &Checkpoint, table: &Kept) -> Result<Vec<(u64, u64)>> {
        let at = table.manifest.offset;
        let array = self.bytes.read(at, u64::from(table.manifest.extents) * 16)?;
        let mut out = Vec::with_capacity(table.manifest.extents as usize);
        for pair in array.chunks_exact(16) {
            let (Some(offset), Some(bytes)) = (u64_at(pair, 0), u64_at(pair, 8)) else { continue };
            if !of.keeps(offset, bytes) {
                return Err(Error::corrupt("a durable table has an extent that is not", at));
            }
            out.push((offset, bytes));
        }
        Ok(out)
    }

    /// The slot that a header field names, if it names one for checkpoints.
    pub(crate) fn hidden_slot(&self, field: u64) -> Result<Option<u32>> {
        let named = self.bytes.word(field)?.load(Ordering::SeqCst);
        Ok(named.checked_sub(1).and_then(|s| u32::try_from(s).ok()).filter(|s| *s < slot::HIDDEN))
    }

    /// Where the checkpoint in a hidden slot lies.
    pub(crate) fn place_of(&self, slot: u32) -> Result<Place> {
        let at = self.layout.slot(slot);
        Ok(Place {
            offset: self.bytes.word(at + slot::MANIFEST)?.load(Ordering::Relaxed),
            extents: self.bytes.half(at + slot::EXTENTS)?.load(Ordering::Relaxed),
            message: self.bytes.word(at + slot::MANIFEST_BYTES)?.load(Ordering::Relaxed),
        })
    }

    /// Whether a retired slot is a checkpoint that stands: the last one, or the one that is being
    /// made durable.
    pub(crate) fn is_kept(&self, slot: u32, word: u64) -> Result<bool> {
        Ok(is_checkpoint(word)
            && (self.hidden_slot(header::PENDING)? == Some(slot)
                || self.hidden_slot(header::CHECKPOINT)? == Some(slot)))
    }

    /// Whether the last flush, or one that is under way, keeps any of these extents as it is. For
    /// a table that nobody else can flush or update meanwhile, `false` stays true.
    pub(crate) fn is_durable(&self, extents: &[(u64, u64)]) -> Result<bool> {
        if !self.backing.is_durable() {
            return Ok(false);
        }
        // What is pending first: it becomes the last one, and is not to be missed in between.
        for (i, field) in [header::PENDING, header::CHECKPOINT].into_iter().enumerate() {
            let kept = self.durable_extents(i, field)?;
            if extents.iter().any(|&(offset, bytes)| contains(&kept, offset, bytes)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The extents of the checkpoint that a header field names, remembered as long as it does.
    fn durable_extents(&self, i: usize, field: u64) -> Result<Arc<Vec<(u64, u64)>>> {
        for _ in 0..1_000 {
            let Some(slot) = self.hidden_slot(field)? else { return Ok(Arc::default()) };
            let word = self.state_word(slot)?;
            if let Some(known) = self.durable.lock().known.get(i)
                && known.word == word
            {
                return Ok(known.extents.clone());
            }
            // A sequence never comes back: the same word means that nothing was recycled.
            let extents = is_checkpoint(word).then(|| self.slot_extents(slot));
            if self.hidden_slot(field)? != Some(slot) || self.state_word(slot)? != word {
                continue;
            }
            let Some(extents) = extents else {
                return Err(Error::corrupt("the header names a checkpoint that is none", field));
            };
            let extents = Arc::new(extents?);
            if let Some(known) = self.durable.lock().known.get_mut(i) {
                *known = Known { word, extents: extents.clone() };
            }
            return Ok(extents);
        }
        Err(Error::Timeout { what: "checkpoints keep changing".into() })
    }

    /// How many granules may be reserved: the capacity, and on top of it what checkpoints take,
    /// since without a flush a full file could never free what it deletes.
    pub(crate) fn limit(&self) -> Result<u64> {
        let mut limit = self.layout.capacity / GRANULE;
        if self.backing.is_durable() {
            for slot in 0..slot::HIDDEN {
                if is_checkpoint(self.state_word(slot)?) {
                    let own = granules(self.place_of(slot)?.bytes());
                    limit = limit.saturating_add(own.min(self.layout.granule_count));
                }
            }
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let manifest = |offset| ManifestAt { offset, message: 17, extents: 3 };
        Checkpoint {
            number: 3,
            sequence: 99,
            extents: vec![(64, 64), (1 << 20, 128)],
            sums: vec![5, 6],
            tables: vec![
                Kept { sequence: 7, content: 2, manifest: manifest(64), name: b"t".to_vec() },
                Kept { sequence: 9, content: 1, manifest: manifest(128), name: vec![b'n'; 255] },
            ],
        }
    }

    #[test]
    fn messages_round_trip_and_cut_ones_are_refused() {
        let made = sample();
        let mut message = made.encode();
        assert_eq!(message.len() as u64, message_bytes(2, 2, 256));
        let read = Checkpoint::decode(made.extents.clone(), &message).unwrap();
        assert_eq!((read.number, read.sequence), (3, 99));
        assert_eq!((read.sums, read.tables), (made.sums.clone(), made.tables.clone()));
        for cut in 0..message.len() {
            assert!(Checkpoint::decode(made.extents.clone(), &message[..cut]).is_none());
        }
        assert!(Checkpoint::decode(vec![], &message).is_none());
        // Zeros behind it are its padding.
        message.resize(message.len() + 4096, 0);
        assert!(Checkpoint::decode(made.extents.clone(), &message).is_some());
        for at in (EXTENTS..EXTENTS + 8).chain(TABLES..TABLES + 8).chain(NAMES + 2..NAMES + 8) {
            let mut bad = message.clone();
            bad[at as usize] ^= 0xff;
            assert!(Checkpoint::decode(made.extents.clone(), &bad).is_none(), "byte {at}");
        }
    }
}
