//! Taking over from the dead: sweeping their sessions, rebuilding what is derived.
//!
//! Everything here is idempotent: a recoverer may die at any step, and the next begins again.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::kill;
use crate::layout::{GRANULE, LOCK_BASE, header, session as field, slot};
use crate::protocol;
use crate::session::Session;
use crate::state::{self, State};
use crate::writer::Writer;

impl Session {
    /// What the first session after all others are gone does. All lock bytes are ours.
    pub(crate) fn recover_alone(&self) -> Result<()> {
        let bytes = &self.bytes;
        if !self.same_boot()? {
            self.roll_back()?;
        }
        let left: Vec<u32> = (0..self.sessions_high())
            .filter(|&index| self.incarnation_in(index).is_ok_and(|found| found != 0))
            .collect();
        // Nobody lives who could hold the writer lock.
        let held = bytes.word(header::WRITER)?.swap(0, Ordering::AcqRel) != 0;
        kill::point("recover: writer lock cleared");
        if held || !left.is_empty() {
            bytes.word(header::EPOCH)?.fetch_add(1, Ordering::AcqRel);
        }
        let mut writer = self.write()?;
        kill::point("recover: epoch raised");
        for index in left {
            writer.sweep_session(index)?;
        }
        // Looking at every slot would cost a page fault per eight tables.
        if bytes.word(header::RETIRED)?.load(Ordering::Relaxed) != 0 {
            writer.collect_retired()?;
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Takes over from every session whose process is gone.
    pub(crate) fn sweep_dead(&mut self) -> Result<()> {
        for index in 0..self.s.sessions_high() {
            self.take_over(index)?;
        }
        Ok(())
    }

    /// Takes over from another session if its process is gone.
    pub(crate) fn take_over(&mut self, index: u32) -> Result<()> {
        if index == self.s.index() || index >= self.s.sessions_high() {
            return Ok(());
        }
        let s = self.s;
        let byte = LOCK_BASE + u64::from(index);
        protocol::take_over(
            s.bytes.word(s.layout.session(index) + field::INCARNATION)?,
            || s.lock.try_lock(byte, 1).unwrap_or(false),
            || drop(s.lock.unlock(byte, 1)),
            || self.sweep_session(index),
        )
    }

    /// Gives up what session `index` held: bits, updates, extents, and at last its slot. Its lock
    /// byte must be ours.
    pub(crate) fn sweep_session(&mut self, index: u32) -> Result<()> {
        let swept = self.sweep(index, true);
        if swept.is_err() {
            self.broken.set(true);
        }
        swept
    }

    /// Gives up what our own session still holds, in an orderly way: its pins are gone by then,
    /// so that (unless it has sent results away) no slot need be looked at, and leaving costs the same whatever the region's size.
    pub(crate) fn leave_session(&mut self) -> Result<()> {
        let at = self.s.layout.session(self.s.index()) + field::INCARNATION;
        let ours = self.s.bytes.word(at)?.load(Ordering::Acquire) == self.s.token() >> 9;
        // A session that failed while it was being opened may leave the corpse it found.
        let held =
            !ours || self.s.has_issued.load(Ordering::Relaxed) || !self.s.holds.lock().is_empty();
        let left = self.sweep(self.s.index(), held);
        if left.is_err() {
            self.broken.set(true);
        }
        left
    }

    fn sweep(&mut self, index: u32, slots: bool) -> Result<()> {
        let s = self.s;
        let incarnation = s.bytes.word(s.layout.session(index) + field::INCARNATION)?;
        let token = incarnation.load(Ordering::Acquire) << 9 | u64::from(index);
        let (mut bits, mut ended) = (false, false);
        let mut broken = Vec::new();
        for slot in 0..if slots { s.slots_high() } else { 0 } {
            bits |= s.clear_bits(slot, index)?;
            ended |= self.end_update_of(slot, token)?;
            self.orphan_ticket_of(slot, token)?;
            if s.was_broken_by(slot, index)? {
                broken.push(state::sequence(s.state_word(slot)?));
            }
        }
        if ended {
            s.ring()?;
        }
        kill::point("sweep: slots swept");
        let (records, chain) = self.session_records(index)?;
        for (place, offset, bytes) in records {
            // Half-reserved memory is not known to be warm; its pages go back, unless another owner
            // is reserving it. A record that the counts contradict says nothing about pages.
            let counted = self.owners(offset, bytes).is_ok_and(|n| n == 1);
            if let Some(from) = s.layout.granule_of(offset).filter(|_| counted) {
                let to = from + if bytes > GRANULE / 2 { crate::arena::granules(bytes) } else { 1 };
                for (lo, hi) in s.runs(from, to.min(s.layout.granule_count), false)? {
                    s.ground().punch(s.layout.granule_at(lo), (hi - lo) * GRANULE);
                }
            }
            let dropped = self.drop_owner(offset, bytes);
            kill::point("sweep: owner dropped");
            s.bytes.word(place)?.store(0, Ordering::Release);
            kill::point("sweep: record cleared");
            if dropped.is_err() {
                // The counts contradict the records; the next writer counts anew.
                self.broken.set(true);
            }
        }
        s.bytes.word(s.layout.session(index) + field::CHAIN)?.store(0, Ordering::Release);
        s.bytes.word(s.layout.session(index) + field::CHAIN_COUNT)?.store(0, Ordering::Relaxed);
        kill::point("sweep: chain cut");
        for block in chain {
            if self.drop_owner(block, GRANULE).is_err() {
                self.broken.set(true);
            }
        }
        s.forget_notes(index, &broken)?;
        s.forget_builds(index)?;
        if index != s.index() {
            s.bytes.word(header::RECOVERIES)?.fetch_add(1, Ordering::Relaxed);
        }
        kill::point("sweep: ready");
        self.end_flush(token)?;
        incarnation.store(0, Ordering::Release);
        kill::point("sweep: done");
        if bits {
            self.collect_retired()?;
        }
        Ok(())
    }

    /// Frees all retired slots that nobody holds.
    pub(crate) fn collect_retired(&mut self) -> Result<()> {
        for slot in 0..self.s.slots_high() {
            if state::state(self.s.state_word(slot)?) == Some(State::Retired) {
                self.reclaim(slot)?;
            }
        }
        Ok(())
    }

    /// Makes all derived state again: owner counts and free space, lists, totals, the name index.
    pub(crate) fn rebuild(&mut self) -> Result<()> {
        let s = self.s;
        self.clear_arena()?;
        kill::point("rebuild: arena cleared");
        for slot in 0..s.slots_high() {
            let word = s.bytes.word(s.layout.slot(slot) + slot::STATE)?;
            let seen = word.load(Ordering::Acquire);
            match state::state(seen) {
                // Its builder died inside the critical section.
                Some(State::Building) | None => {
                    word.store(state::word(State::Free, state::sequence(seen)), Ordering::Release);
                }
                Some(State::Free) => {}
                Some(State::Reclaiming) => {
                    // Somebody may have pinned it before it was shut.
                    word.store(state::not_reclaimed(seen), Ordering::SeqCst);
                    kill::point("rebuild: not freed");
                    self.count_slot(slot)?;
                }
                Some(_) => self.count_slot(slot)?,
            }
        }
        kill::point("rebuild: tables counted");
        for index in 0..s.sessions_high() {
            if s.incarnation_in(index)? == 0 {
                continue;
            }
            let (records, chain) = self.session_records(index)?;
            for (_, offset, bytes) in records {
                self.count_owner(offset, bytes)?;
            }
            for block in chain {
                self.count_owner(block, GRANULE)?;
            }
        }
        kill::point("rebuild: records counted");
        self.finish_arena()?;
        kill::point("rebuild: arena made");
        self.retire_losers()?;
        self.rebuild_links()?;
        self.rebuild_index()?;
        kill::point("rebuild: index made");
        self.count_slots()?;
        self.shed()
    }

    /// A damaged manifest owns what can be read of it.
    fn count_slot(&self, slot: u32) -> Result<()> {
        let Ok(manifest) = self.s.manifest_at(slot) else { return Ok(()) };
        self.count_owner(manifest.offset, manifest.bytes())?;
        for (offset, bytes) in self.s.slot_extents(slot).unwrap_or_default() {
            self.count_owner(offset, bytes)?;
        }
        Ok(())
    }

    /// Of two tables of one name, the one with the higher sequence is the later.
    fn retire_losers(&self) -> Result<()> {
        let mut best: HashMap<Vec<u8>, (u64, u32)> = HashMap::new();
        for slot in 0..self.s.slots_high() {
            let word = self.s.state_word(slot)?;
            if !crate::catalog::visible(word) {
                continue;
            }
            let sequence = state::sequence(word);
            let mine = (sequence, slot);
            let entry = best.entry(self.s.slot_name(slot)?).or_insert(mine);
            if entry.1 == slot {
                continue;
            }
            let (winner, loser) = if *entry > mine { (*entry, mine) } else { (mine, *entry) };
            *entry = winner;
            if self.s.predecessor(winner.1)? == u64::from(loser.1) + 1 {
                // Its updater died as it swapped.
                self.supersede(loser.1, winner.1, winner.0)?;
                continue;
            }
            let word = self.s.bytes.word(self.s.layout.slot(loser.1) + slot::STATE)?;
            protocol::retire(word, 0);
            kill::point("rebuild: loser retired");
        }
        Ok(())
    }

    /// The (hash, slot) of every table that is found by its name.
    pub(crate) fn live_tables(&self) -> Result<Vec<(u64, u32)>> {
        let mut tables = Vec::new();
        for slot in 0..self.s.slots_high() {
            if crate::catalog::visible(self.s.state_word(slot)?) {
                let at = self.s.layout.slot(slot) + slot::NAME_HASH;
                tables.push((self.s.bytes.word(at)?.load(Ordering::Relaxed), slot));
            }
        }
        Ok(tables)
    }

    /// Counts tables and retired slots, and lists the free ones.
    fn count_slots(&self) -> Result<()> {
        let (mut tables, mut retired) = (0, 0);
        self.s.bytes.word(header::FREE_SLOT)?.store(0, Ordering::Relaxed);
        for slot in (0..self.s.slots_high()).rev() {
            match state::state(self.s.state_word(slot)?) {
                Some(State::Free) if slot < slot::HIDDEN => {}
                Some(State::Free) => self.list_free(slot)?,
                Some(State::Retired) if self.s.is_kept(slot, self.s.state_word(slot)?)? => {}
                Some(State::Retired | State::Reclaiming) => retired += 1,
                _ => tables += 1,
            }
        }
        self.s.bytes.word(header::TABLES)?.store(tables, Ordering::Relaxed);
        self.s.bytes.word(header::RETIRED)?.store(retired, Ordering::Relaxed);
        Ok(())
    }
}
