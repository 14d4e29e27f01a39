//! The name index: open addressing over hashes of names, read without a lock.
//!
//! An entry is one word: the slot plus one, and 32 bits of the name's hash. Readers believe a hit
//! after they have looked at the slot, and a miss only if the index was not being rebuilt
//! meanwhile, which its sequence lock says.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::error::{Error, Result};
use crate::layout::{INDEX_MIN_LOG2, header};
use crate::session::Session;
use crate::writer::Writer;

const SLOT: u64 = 0xffff_ffff;
/// A deleted entry: searches go on behind it.
const TOMBSTONE: u64 = SLOT;

fn entry(hash: u64, slot: u32) -> u64 {
    (hash & !SLOT) | (u64::from(slot) + 1)
}

/// The slot an entry names, if it names one and could be of this hash.
fn candidate(word: u64, hash: u64) -> Option<u32> {
    if word & SLOT == TOMBSTONE || word ^ (hash & !SLOT) > SLOT {
        return None;
    }
    u32::try_from((word & SLOT).checked_sub(1)?).ok()
}

impl Session {
    fn index_log2(&self) -> Result<u64> {
        let log2 = self.bytes.word(header::INDEX_LOG2)?.load(Ordering::Acquire);
        Ok(log2.clamp(INDEX_MIN_LOG2, self.layout.index_max_log2))
    }

    fn index_entry(&self, at: u64) -> Result<&AtomicU64> {
        self.bytes.word(self.layout.index + at * 8)
    }

    /// The index's sequence lock, if it is not being rebuilt.
    pub(crate) fn index_stable(&self) -> Result<Option<u64>> {
        let seen = self.bytes.word(header::INDEX_SEQLOCK)?.load(Ordering::Acquire);
        Ok((seen % 2 == 0).then_some(seen))
    }

    /// Whether the index was not rebuilt since [`Session::index_stable`] said `seen`.
    pub(crate) fn index_unchanged(&self, seen: u64) -> Result<bool> {
        fence(Ordering::Acquire);
        Ok(self.bytes.word(header::INDEX_SEQLOCK)?.load(Ordering::Relaxed) == seen)
    }

    /// Offers the slots whose names may have this hash, with their entries' places, until `take`
    /// takes one.
    pub(crate) fn probe<T>(
        &self,
        hash: u64,
        mut take: impl FnMut(u64, u32) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mask = (1 << self.index_log2()?) - 1;
        for step in 0..=mask {
            let at = (hash >> 7).wrapping_add(step) & mask;
            let word = self.index_entry(at)?.load(Ordering::Acquire);
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

    /// Whether the entry at `at` names this slot and hash still. A slot that we hold cannot get the
    /// same word again.
    pub(crate) fn index_names(&self, at: u64, hash: u64, slot: u32) -> Result<bool> {
        Ok(self.index_entry(at)?.load(Ordering::SeqCst) == entry(hash, slot))
    }

    /// All slots in the index.
    pub(crate) fn index_slots(&self) -> Result<Vec<u32>> {
        let mut slots = Vec::new();
        for at in 0..1 << self.index_log2()? {
            let word = self.index_entry(at)?.load(Ordering::Acquire);
            if word != 0 && word & SLOT != TOMBSTONE {
                slots.extend((word & SLOT).checked_sub(1).and_then(|s| u32::try_from(s).ok()));
            }
        }
        Ok(slots)
    }
}

impl Writer<'_> {
    /// Points an existing entry at another slot.
    pub(crate) fn index_replace(&self, at: u64, hash: u64, slot: u32) -> Result<()> {
        self.s.index_entry(at)?.store(entry(hash, slot), Ordering::Release);
        Ok(())
    }

    /// Removes an entry.
    pub(crate) fn index_remove(&self, at: u64) -> Result<()> {
        self.s.index_entry(at)?.store(TOMBSTONE, Ordering::Release);
        Ok(())
    }

    /// Makes room for one more entry; to be called before anything is published.
    pub(crate) fn index_reserve(&self) -> Result<()> {
        let occupied = self.s.bytes.word(header::INDEX_OCCUPIED)?.load(Ordering::Relaxed);
        if occupied.saturating_add(1).saturating_mul(4) > 3 << self.s.index_log2()? {
            self.rebuild_index()?;
        }
        Ok(())
    }

    /// Adds an entry for a name that has none.
    pub(crate) fn index_insert(&self, hash: u64, slot: u32) -> Result<()> {
        let mask = (1 << self.s.index_log2()?) - 1;
        for step in 0..=mask {
            let at = (hash >> 7).wrapping_add(step) & mask;
            let word = self.s.index_entry(at)?;
            let old = word.load(Ordering::Relaxed);
            if old == 0 || old & SLOT == TOMBSTONE {
                word.store(entry(hash, slot), Ordering::Release);
                if old == 0 {
                    let occupied = self.s.bytes.word(header::INDEX_OCCUPIED)?;
                    let count = occupied.load(Ordering::Relaxed).saturating_add(1);
                    occupied.store(count, Ordering::Relaxed);
                }
                return Ok(());
            }
        }
        self.broken.set(true);
        Err(Error::corrupt("the name index is full", self.s.layout.index))
    }

    /// Makes the index again from the slots, larger if it has become crowded. For one name the
    /// highest sequence wins; losers are retired.
    pub(crate) fn rebuild_index(&self) -> Result<()> {
        let tables = self.live_tables()?;
        let wanted = (tables.len() as u64 * 2 + 2).next_power_of_two().trailing_zeros();
        let before = self.s.index_log2()?;
        let mut log2 = u64::from(wanted).max(before).min(self.s.layout.index_max_log2);
        if let Err(e) = self.s.reserve_metadata(self.s.layout.index, 8 << log2) {
            // A full system must not keep the index from being mended, or nothing could be freed.
            if tables.len() as u64 >= 1 << before {
                return Err(e);
            }
            log2 = before;
        }

        let seqlock = self.s.bytes.word(header::INDEX_SEQLOCK)?;
        let odd = seqlock.load(Ordering::Relaxed) | 1;
        seqlock.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        self.s.bytes.word(header::INDEX_LOG2)?.store(log2, Ordering::Relaxed);
        for at in 0..1 << log2 {
            self.s.index_entry(at)?.store(0, Ordering::Relaxed);
        }
        self.s.bytes.word(header::INDEX_OCCUPIED)?.store(0, Ordering::Relaxed);
        for (hash, slot) in tables {
            self.index_insert(hash, slot)?;
        }
        seqlock.store(odd.wrapping_add(1), Ordering::Release);
        Ok(())
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
