//! The name index: open addressing over hashes of names, read without a lock.
//!
//! An entry is one word: the slot plus one, and 32 bits of the name's hash. Readers believe a hit
//! after they have looked at the slot, and a miss only if the index was not being rebuilt
//! meanwhile, which its sequence lock says.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::kill;
use crate::layout::{INDEX_MIN_LOG2, header};
use crate::session::Session;
use crate::word::Word;
use crate::writer::Writer;

const SLOT: u64 = 0xffff_ffff;
/// A deleted entry: searches go on behind it.
const TOMBSTONE: u64 = SLOT;

/// The entry of a slot whose name has this hash.
pub(crate) fn entry(hash: u64, slot: u32) -> u64 {
    (hash & !SLOT) | (u64::from(slot) + 1)
}

/// The slot an entry names, if it names one and could be of this hash.
fn candidate(word: u64, hash: u64) -> Option<u32> {
    if word & SLOT == TOMBSTONE || word ^ (hash & !SLOT) > SLOT {
        return None;
    }
    u32::try_from((word & SLOT).checked_sub(1)?).ok()
}

/// What came of a look into the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look<T> {
    Found(T),
    /// It is not there, for sure.
    Missing,
    /// Something changed meanwhile: to be looked for again.
    Disturbed,
}

/// What came of trying to hold a slot.
pub(crate) enum Tried {
    /// It is held, at this state word.
    Held(u64),
    /// It was replaced or deleted under us.
    Changed,
    /// There is no such slot.
    Nothing,
}

/// The words of a name index, and what is done with them. Writers hold the writer lock.
pub(crate) trait NameIndex {
    /// What its words are.
    type Word: Word;

    /// The sequence lock: odd while the index is rebuilt.
    fn seqlock(&self) -> Result<&Self::Word>;
    /// The logarithm of its size, and what bounds it.
    fn log2_word(&self) -> Result<&Self::Word>;
    fn log2_bounds(&self) -> (u64, u64);
    /// Entries in use, deleted ones included.
    fn occupied(&self) -> Result<&Self::Word>;
    /// Entry `at`.
    fn entry(&self, at: u64) -> Result<&Self::Word>;
    /// Where the index lies, for errors.
    fn position(&self) -> u64;

    /// The logarithm of the number of entries.
    fn log2(&self) -> Result<u64> {
        let (least, most) = self.log2_bounds();
        Ok(self.log2_word()?.load(Ordering::Acquire).clamp(least, most))
    }

    /// Reads the index without a lock. `read` says by its argument that it met something that
    /// changed under it.
    fn look<T>(&self, read: impl FnOnce(&mut bool) -> Result<Option<T>>) -> Result<Look<T>> {
        let before = self.seqlock()?.load(Ordering::Acquire);
        if before % 2 != 0 {
            return Ok(Look::Disturbed);
        }
        let mut raced = false;
        if let Some(found) = read(&mut raced)? {
            return Ok(Look::Found(found));
        }
        // Not before the entries are: they are read with acquire.
        let unchanged = self.seqlock()?.load(Ordering::Relaxed) == before;
        Ok(if unchanged && !raced { Look::Missing } else { Look::Disturbed })
    }

    /// Offers the slots whose names may have this hash, with their entries' places, until `take`
    /// takes one.
    fn probe<T>(
        &self,
        hash: u64,
        mut take: impl FnMut(u64, u32) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mask = (1 << self.log2()?) - 1;
        for step in 0..=mask {
            let at = (hash >> 7).wrapping_add(step) & mask;
            let word = self.entry(at)?.load(Ordering::Acquire);
            if word == 0 {
                break;
            }
            if let Some(slot) = candidate(word, hash)
                && let Some(taken) = take(at, slot)?
            {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Finds and holds the slot that a hash leads to. `hold` tries a slot, `named` says whether a
    /// held one has the name that is looked for, `let_go` gives up one that has not. `raced` is
    /// set when something changed meanwhile.
    fn find_held(
        &self,
        hash: u64,
        raced: &mut bool,
        hold: impl Fn(u32) -> Result<Tried>,
        named: impl Fn(u32) -> Result<bool>,
        let_go: impl Fn(u32),
    ) -> Result<Option<(u32, u64)>> {
        self.probe(hash, |at, slot| {
            let seen = match hold(slot)? {
                Tried::Held(seen) => seen,
                Tried::Changed => {
                    *raced = true;
                    return Ok(None);
                }
                Tried::Nothing => return Ok(None),
            };
            let named = named(slot);
            if matches!(named, Ok(true)) {
                return Ok(Some((slot, seen)));
            }
            // A hash's twin; unless the slot was given to another table since we read the entry,
            // whose new word then names another slot.
            *raced |= !self.index_names(at, hash, slot)?;
            let_go(slot);
            named.map(|_| None)
        })
    }

    /// Whether the entry at `at` names this slot and hash still. A slot that we hold cannot get the
    /// same word again. To be asked after the slot was held, and seen to have another name: the
    /// slot's state word, once read, brings along what became of the entry before.
    fn index_names(&self, at: u64, hash: u64, slot: u32) -> Result<bool> {
        Ok(self.entry(at)?.load(Ordering::Acquire) == entry(hash, slot))
    }

    /// All slots in the index.
    fn index_slots(&self) -> Result<Vec<u32>> {
        let mut slots = Vec::new();
        for at in 0..1 << self.log2()? {
            let word = self.entry(at)?.load(Ordering::Acquire);
            if word != 0 && word & SLOT != TOMBSTONE {
                slots.extend((word & SLOT).checked_sub(1).and_then(|s| u32::try_from(s).ok()));
            }
        }
        Ok(slots)
    }

    /// Points an existing entry at another slot.
    fn index_replace(&self, at: u64, hash: u64, slot: u32) -> Result<()> {
        self.entry(at)?.store(entry(hash, slot), Ordering::Release);
        Ok(())
    }

    /// Removes an entry.
    fn index_remove(&self, at: u64) -> Result<()> {
        self.entry(at)?.store(TOMBSTONE, Ordering::Release);
        Ok(())
    }

    /// Adds an entry for a name that has none.
    fn index_insert(&self, hash: u64, slot: u32) -> Result<()> {
        let mask = (1 << self.log2()?) - 1;
        for step in 0..=mask {
            let at = (hash >> 7).wrapping_add(step) & mask;
            let word = self.entry(at)?;
            let old = word.load(Ordering::Relaxed);
            if old == 0 || old & SLOT == TOMBSTONE {
                word.store(entry(hash, slot), Ordering::Release);
                if old == 0 {
                    let occupied = self.occupied()?;
                    let count = occupied.load(Ordering::Relaxed).saturating_add(1);
                    occupied.store(count, Ordering::Relaxed);
                }
                return Ok(());
            }
        }
        Err(Error::corrupt("the name index is full", self.position()))
    }

    /// Makes the index anew, of that size, with entries for these (hash, slot). `step` stands
    /// between any two stores.
    fn refill(
        &self,
        log2: u64,
        tables: &[(u64, u32)],
        mut step: impl FnMut(&'static str) -> Result<()>,
    ) -> Result<()> {
        let seqlock = self.seqlock()?;
        let odd = seqlock.load(Ordering::Relaxed) | 1;
        seqlock.store(odd, Ordering::Relaxed);
        Self::Word::fence(Ordering::Release);
        step("index: odd")?;
        self.log2_word()?.store(log2, Ordering::Relaxed);
        step("index: resized")?;
        for at in 0..1 << log2 {
            self.entry(at)?.store(0, Ordering::Relaxed);
        }
        self.occupied()?.store(0, Ordering::Relaxed);
        step("index: emptied")?;
        for &(hash, slot) in tables {
            self.index_insert(hash, slot)?;
            step("index: entry made")?;
        }
        seqlock.store(odd.wrapping_add(1), Ordering::Release);
        step("index: even")
    }
}

impl NameIndex for Session {
    type Word = AtomicU64;

    fn seqlock(&self) -> Result<&AtomicU64> {
        self.bytes.word(header::INDEX_SEQLOCK)
    }

    fn log2_word(&self) -> Result<&AtomicU64> {
        self.bytes.word(header::INDEX_LOG2)
    }

    fn log2_bounds(&self) -> (u64, u64) {
        (INDEX_MIN_LOG2, self.layout.index_max_log2)
    }

    fn occupied(&self) -> Result<&AtomicU64> {
        self.bytes.word(header::INDEX_OCCUPIED)
    }

    fn entry(&self, at: u64) -> Result<&AtomicU64> {
        self.bytes.word(self.layout.index + at * 8)
    }

    fn position(&self) -> u64 {
        self.layout.index
    }
}

impl Writer<'_> {
    /// Makes room for one more entry; to be called before anything is published.
    pub(crate) fn index_reserve(&self) -> Result<()> {
        let occupied = self.s.occupied()?.load(Ordering::Relaxed);
        if occupied.saturating_add(1).saturating_mul(4) > 3 << self.s.log2()? {
            self.rebuild_index()?;
        }
        Ok(())
    }

    /// Makes the index again from the slots, larger if it has become crowded.
    pub(crate) fn rebuild_index(&self) -> Result<()> {
        let tables = self.live_tables()?;
        let wanted = (tables.len() as u64 * 2 + 2).next_power_of_two().trailing_zeros();
        let before = self.s.log2()?;
        let mut log2 = u64::from(wanted).max(before).min(self.s.layout.index_max_log2);
        if let Err(e) = self.s.reserve_metadata(self.s.layout.index, 8 << log2) {
            // A full system must not keep the index from being mended, or nothing could be freed.
            if tables.len() as u64 >= 1 << before {
                return Err(e);
            }
            log2 = before;
        }
        let made = self.s.refill(log2, &tables, |at| {
            kill::point(at);
            Ok(())
        });
        self.noting(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_candidates_for_their_hash_only() {
        let hash = 0xdead_beef_0123_4567;
        assert_eq!(candidate(entry(hash, 0), hash), Some(0));
        assert_eq!(candidate(entry(hash, 41), hash), Some(41));
        assert_eq!(candidate(entry(hash, 41), hash ^ 1 << 40), None);
        assert_eq!(candidate(TOMBSTONE, hash), None);
        assert_eq!(candidate(0, 0), None);
    }
}
