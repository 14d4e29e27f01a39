//! Table slots: taken, given back, retired, and freed when nobody holds them any more.
//!
//! All of it happens under the writer lock. A retired slot is freed by whoever lets go of it last,
//! or by who needs the space.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::kill;
use crate::layout::{LOCK_READERS, PAGE, header, slot};
use crate::protocol;
use crate::state::{self, State};
use crate::writer::Writer;

impl Writer<'_> {
    pub(crate) fn count_tables(&self, by: i64) -> Result<()> {
        let tables = self.s.bytes.word(header::TABLES)?;
        let value = tables.load(Ordering::Relaxed).saturating_add_signed(by);
        tables.store(value, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn count_retired(&self, by: i64) -> Result<()> {
        let retired = self.s.bytes.word(header::RETIRED)?;
        let value = retired.load(Ordering::Relaxed).saturating_add_signed(by);
        retired.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// A free slot.
    pub(crate) fn take_slot(&self) -> Result<u32> {
        let s = self.s;
        let head = s.bytes.word(header::FREE_SLOT)?;
        if let Some(slot) = head.load(Ordering::Relaxed).checked_sub(1) {
            let slot = u32::try_from(slot)
                .ok()
                .filter(|&slot| slot < s.slots_high() && slot >= slot::HIDDEN);
            let Some(slot) = slot else {
                return Err(Error::corrupt(
                    "the list of free slots leads astray",
                    header::FREE_SLOT,
                ));
            };
            if state::state(s.state_word(slot)?) != Some(State::Free) {
                return Err(Error::corrupt("a slot in use is listed as free", s.layout.slot(slot)));
            }
            let next = s.bytes.word(s.layout.slot(slot) + slot::NEXT_FREE)?;
            head.store(next.load(Ordering::Relaxed), Ordering::Relaxed);
            kill::point("slot: taken from the list");
            return Ok(slot);
        }
        let high = s.slots_high();
        if high >= s.layout.slot_count() {
            return Err(Error::TableLimit { limit: s.layout.max_tables });
        }
        if s.layout.slot(high).is_multiple_of(PAGE) {
            s.reserve_metadata(s.layout.slot(high), PAGE)?;
        }
        s.bytes.zero(s.layout.slot(high), slot::BYTES)?;
        kill::point("slot: zeroed");
        s.bytes.word(header::SLOTS_HIGH)?.store(u64::from(high) + 1, Ordering::Release);
        Ok(high)
    }

    pub(crate) fn give_slot(&self, slot: u32, sequence: u64) -> Result<()> {
        let at = self.s.layout.slot(slot);
        self.s
            .bytes
            .word(at + slot::STATE)?
            .store(state::word(State::Free, sequence), Ordering::Release);
        kill::point("reclaim: slot freed");
        // Hidden slots are looked for where they are.
        if slot < slot::HIDDEN { Ok(()) } else { self.list_free(slot) }
    }

    /// Puts a free slot on the list.
    pub(crate) fn list_free(&self, slot: u32) -> Result<()> {
        let head = self.s.bytes.word(header::FREE_SLOT)?;
        let next = self.s.bytes.word(self.s.layout.slot(slot) + slot::NEXT_FREE)?;
        next.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        kill::point("slot: half listed");
        head.store(u64::from(slot) + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Marks a table retired, whatever becomes of the marker: that store decides.
    pub(crate) fn mark_retired(&self, slot: u32) -> Result<()> {
        protocol::retire(self.s.bytes.word(self.s.layout.slot(slot) + slot::STATE)?, 0);
        kill::point("retire: retired");
        self.count_retired(1)
    }

    /// Retires a table, and frees it if nobody holds it.
    pub(crate) fn retire(&mut self, slot: u32) -> Result<()> {
        self.mark_retired(slot)?;
        self.reclaim(slot).map(|_| ())
    }

    /// Frees a retired slot if nobody holds it; whether it did. Then frees what only it kept: the
    /// last version of a table that has lost its name, which older ones lead to.
    pub(crate) fn reclaim(&mut self, slot: u32) -> Result<bool> {
        let mut after = self.successor(slot)?;
        if !self.reclaim_one(slot)? {
            return Ok(false);
        }
        while let Some(next) = after {
            after = self.successor(next)?;
            if !self.reclaim_one(next)? {
                break;
            }
        }
        Ok(true)
    }

    fn reclaim_one(&mut self, slot: u32) -> Result<bool> {
        let Some(seen) = self.s.unheld_retired(slot)? else { return Ok(false) };
        if self.kept(slot, seen)? || self.s.is_kept(slot, seen)? {
            return Ok(false);
        }
        // Readers without a session say by this lock that they read.
        if !self.s.lock.try_lock(LOCK_READERS, 1).unwrap_or(false) {
            return Ok(false);
        }
        let freed = self.free_unheld(slot, seen);
        let _ = self.s.lock.unlock(LOCK_READERS, 1);
        self.noting(freed)
    }

    fn free_unheld(&mut self, slot: u32, seen: u64) -> Result<bool> {
        let Some(owned) = self.owned_by(slot) else { return Ok(false) };
        if !self.s.shut_out(slot, seen)? {
            return Ok(false);
        }
        kill::point("reclaim: shut out");
        self.free_retired(slot, state::sequence(seen), &owned)?;
        Ok(true)
    }

    /// Whether a retired slot that no process holds is kept for what leads to it: an older version
    /// of the table, or a pass on its way to another process.
    pub(crate) fn kept(&self, slot: u32, seen: u64) -> Result<bool> {
        let last = seen & state::SUPERSEDED == 0;
        Ok((last && self.s.predecessor(slot)? != 0) || self.s.passes_keep(slot)?)
    }

    /// What a slot owns, its manifest included; `None` if it is damaged. Then it stays as it is:
    /// it leaks rather than that something live is recycled, and stands in nobody's way.
    fn owned_by(&self, slot: u32) -> Option<Vec<(u64, u64)>> {
        let mut owned = self.s.slot_extents(slot).ok()?;
        let manifest = self.s.manifest_at(slot).ok()?;
        owned.push((manifest.offset, manifest.bytes()));
        // Asking about contradictory counts is no reason to count again.
        let broken = self.broken.get();
        let counted =
            owned.iter().all(|&(offset, bytes)| self.owners(offset, bytes).is_ok_and(|n| n > 0));
        self.broken.set(broken);
        counted.then_some(owned)
    }

    fn free_retired(&mut self, slot: u32, sequence: u64, owned: &[(u64, u64)]) -> Result<()> {
        self.unlink_version(slot)?;
        for &(offset, bytes) in owned {
            self.drop_owner(offset, bytes)?;
            kill::point("reclaim: owner dropped");
        }
        self.count_retired(-1)?;
        self.give_slot(slot, sequence)?;
        // A checkpoint took memory on top of the capacity, and that ends with it.
        if slot < slot::HIDDEN { self.shed() } else { Ok(()) }
    }

    /// Frees what nobody holds: retired tables, and all that dead sessions left behind.
    pub(crate) fn collect(&mut self) -> Result<()> {
        self.sweep_dead()?;
        if self.s.bytes.word(header::RETIRED)?.load(Ordering::Relaxed) != 0 {
            for slot in 0..self.s.slots_high() {
                if state::state(self.s.state_word(slot)?) == Some(State::Retired) {
                    self.reclaim(slot)?;
                }
            }
        }
        Ok(())
    }
}
