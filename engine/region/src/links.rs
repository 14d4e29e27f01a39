//! The versions of a table that swapping updates leave behind, as a list through their slots.
//!
//! A superseded slot names the one that took its place, by number and by sequence; that one names
//! its predecessor. Each has at most one, so that the versions of a table form a list, oldest
//! first, whose last is the table (or, after it lost its name, what it last was). A version that
//! nobody holds is spliced out before it is freed, so that links never lead to a free slot.
//!
//! What counts is the successor's *sequence*; number and predecessor are found again from it.
//! Sequences only rise along the list, so that it has no circles whatever the memory says.

use std::collections::HashMap;
use std::sync::atomic::{Ordering, fence};

use crate::catalog::Held;
use crate::error::Result;
use crate::kill;
use crate::layout::slot;
use crate::pins::Line;
use crate::protocol;
use crate::session::Session;
use crate::state::{self, State};
use crate::types::Report;
use crate::writer::Writer;

/// How often a reader looks at a link that is being changed before it takes the writer lock.
const TRIES: u32 = 100;

/// A step along the list.
enum Step {
    /// Pinned.
    To(Held),
    /// The link changed meanwhile.
    Again,
    /// There is no successor.
    End,
}

impl Session {
    /// What a superseded slot says of its successor: number and sequence, which may not fit each
    /// other while they are being changed.
    fn link(&self, slot: u32) -> Result<(u64, u64)> {
        let at = self.layout.slot(slot);
        let by = self.bytes.word(at + slot::SUPERSEDED_BY)?.load(Ordering::Acquire);
        let sequence = self.bytes.word(at + slot::SUPERSEDED_SEQUENCE)?.load(Ordering::Acquire);
        Ok((by, sequence))
    }

    /// The slot that a link leads to, and its state word, if it leads anywhere.
    fn linked(&self, from: u64, (by, sequence): (u64, u64)) -> Result<Option<(u32, u64)>> {
        let to = by.checked_sub(1).and_then(|to| u32::try_from(to).ok());
        let Some(to) = to.filter(|&to| to < self.slots_high()) else { return Ok(None) };
        let seen = self.state_word(to)?;
        let fits = state::sequence(seen) == sequence
            && sequence > from
            && !matches!(state::state(seen), None | Some(State::Free | State::Building));
        Ok(fits.then_some((to, seen)))
    }

    fn step(&self, from: Held) -> Result<Step> {
        let seen = self.state_word(from.slot)?;
        if state::sequence(seen) != from.sequence || seen & state::SUPERSEDED == 0 {
            return Ok(Step::End);
        }
        let link = self.link(from.slot)?;
        let Some((to, word)) = self.linked(from.sequence, link)? else { return Ok(Step::Again) };
        if state::state(word) == Some(State::Reclaiming) {
            return Ok(Step::Again);
        }
        if self.hold(to, Line::Pins, word, "")? {
            return Ok(Step::To(Held { slot: to, sequence: link.1 }));
        }
        Ok(Step::Again)
    }

    /// The last version of the table in a slot that the caller holds, pinned; `None` if the slot
    /// has it.
    pub(crate) fn follow(&self, from: Held) -> Result<Option<Held>> {
        let mut reached: Option<Held> = None;
        let mut tries = 0;
        loop {
            let here = reached.unwrap_or(from);
            let step = if tries < TRIES || self.read_only {
                self.step(here)
            } else {
                // Versions come faster than we follow, or a writer died as it changed the link:
                // under the lock it is still, and mended.
                self.write().and_then(|writer| {
                    let step = self.step(here);
                    if matches!(step, Ok(Step::Again)) {
                        // Damage, which the next writer looks into.
                        writer.broken.set(true);
                    }
                    step
                })
            };
            let step = match step {
                Ok(step) => step,
                Err(e) => {
                    self.let_go(reached);
                    return Err(e);
                }
            };
            match step {
                Step::To(next) => {
                    self.let_go(reached);
                    reached = Some(next);
                    tries = 0;
                }
                Step::End => return Ok(reached),
                Step::Again if tries < TRIES || (self.read_only && tries < 100 * TRIES) => {
                    tries += 1;
                    std::thread::yield_now();
                }
                // Damage: the version we reached is the last that can be found.
                Step::Again => return Ok(reached),
            }
        }
    }

    fn let_go(&self, held: Option<Held>) {
        if let Some(held) = held {
            self.unhold(held.slot, Line::Pins);
        }
    }

    /// Compares the links with each other.
    pub(crate) fn verify_links(&self, report: &mut Report) -> Result<()> {
        for slot in 0..self.slots_high() {
            let word = self.state_word(slot)?;
            if matches!(state::state(word), None | Some(State::Free | State::Building)) {
                continue;
            }
            let (sequence, at) = (state::sequence(word), self.layout.slot(slot));
            if word & state::SUPERSEDED != 0 {
                match self.linked(sequence, self.link(slot)?)? {
                    Some((to, _)) if self.predecessor(to)? == u64::from(slot) + 1 => {}
                    Some((to, _)) => report.problems.push(format!(
                        "slot {slot} is superseded by slot {to}, which does not know it"
                    )),
                    None => report.problems.push(format!("slot {slot} is superseded by nothing")),
                }
            }
            if let Some(before) = self.predecessor(slot)?.checked_sub(1) {
                let before = u32::try_from(before).ok().filter(|&b| b < self.slots_high());
                let knows = match before {
                    Some(before) => {
                        self.state_word(before)? & state::SUPERSEDED != 0
                            && self.link(before)? == (u64::from(slot) + 1, sequence)
                    }
                    None => false,
                };
                if !knows {
                    report.problems.push(format!(
                        "slot {slot} names a predecessor that it did not supersede (at byte {})",
                        at + slot::PREDECESSOR
                    ));
                }
            }
        }
        Ok(())
    }

    /// The slot before this one in its list, plus one; 0: none.
    pub(crate) fn predecessor(&self, slot: u32) -> Result<u64> {
        let at = self.layout.slot(slot) + slot::PREDECESSOR;
        Ok(self.bytes.word(at)?.load(Ordering::Acquire))
    }
}

impl Writer<'_> {
    fn set_predecessor(&self, slot: u32, to: u64) -> Result<()> {
        let at = self.s.layout.slot(slot) + slot::PREDECESSOR;
        self.s.bytes.word(at)?.store(to, Ordering::Release);
        Ok(())
    }

    /// Makes `to` the successor of a slot. The number first: what is found again from the sequence
    /// may be wrong for a moment, what it is found from may not.
    fn set_link(&self, slot: u32, to: u32, sequence: u64) -> Result<()> {
        let at = self.s.layout.slot(slot);
        let by = self.s.bytes.word(at + slot::SUPERSEDED_BY)?;
        by.store(u64::from(to) + 1, Ordering::Release);
        kill::point("link: number stored");
        let word = self.s.bytes.word(at + slot::SUPERSEDED_SEQUENCE)?;
        word.store(sequence, Ordering::Release);
        kill::point("link: sequence stored");
        Ok(())
    }

    /// Retires a table in favour of a newer version of it, whose slot names it as predecessor.
    pub(crate) fn supersede(&self, old: u32, new: u32, sequence: u64) -> Result<()> {
        self.set_link(old, new, sequence)?;
        let word = self.s.bytes.word(self.s.layout.slot(old) + slot::STATE)?;
        protocol::retire(word, state::SUPERSEDED);
        kill::point("swap: superseded");
        Ok(())
    }

    /// The slot after this one in its list, if it has been superseded.
    pub(crate) fn successor(&self, slot: u32) -> Result<Option<u32>> {
        let seen = self.s.state_word(slot)?;
        if seen & state::SUPERSEDED == 0 {
            return Ok(None);
        }
        let linked = self.s.linked(state::sequence(seen), self.s.link(slot)?)?;
        Ok(linked.map(|(to, _)| to))
    }

    /// Takes a slot that is about to be freed out of its list.
    pub(crate) fn unlink_version(&self, slot: u32) -> Result<()> {
        let me = u64::from(slot) + 1;
        let before = self.s.predecessor(slot)?;
        let after = self.successor(slot)?;
        if let Some(after) = after
            && self.s.predecessor(after)? == me
        {
            self.set_predecessor(after, before)?;
            kill::point("splice: successor changed");
        }
        let before = before.checked_sub(1).and_then(|b| u32::try_from(b).ok());
        if let Some(before) = before.filter(|&b| b < self.s.slots_high())
            && let Some(after) = after
            && self.successor(before)? == Some(slot)
        {
            let sequence = state::sequence(self.s.state_word(after)?);
            self.set_link(before, after, sequence)?;
        }
        // Whoever reached this slot by the old link looks at its state after pinning it.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Makes numbers and predecessors again from the successors' sequences. Where two versions
    /// name one successor, since a splice was interrupted, the older is put before the younger.
    /// What names no successor that there is, is superseded by nothing.
    pub(crate) fn rebuild_links(&self) -> Result<()> {
        let mut slots = Vec::new();
        for slot in 0..self.s.slots_high() {
            let word = self.s.state_word(slot)?;
            if !matches!(state::state(word), None | Some(State::Free | State::Building)) {
                slots.push((state::sequence(word), slot, word & state::SUPERSEDED != 0));
                if self.s.predecessor(slot)? != 0 {
                    self.set_predecessor(slot, 0)?;
                }
            }
        }
        if !slots.iter().any(|(.., superseded)| *superseded) {
            return Ok(());
        }
        slots.sort_unstable();
        let by_sequence: HashMap<u64, u32> = slots.iter().map(|&(q, slot, _)| (q, slot)).collect();
        // From a slot to an older one of its list; where many name one successor, the last.
        let mut older: HashMap<u32, u32> = HashMap::new();
        for &(sequence, slot, superseded) in slots.iter().rev() {
            if !superseded {
                continue;
            }
            let (_, wanted) = self.s.link(slot)?;
            let found = by_sequence.get(&wanted).filter(|_| wanted > sequence);
            let Some(&found) = found else {
                let word = self.s.bytes.word(self.s.layout.slot(slot) + slot::STATE)?;
                word.fetch_and(!state::SUPERSEDED, Ordering::SeqCst);
                continue;
            };
            let to = oldest(&older, found);
            older.insert(to, slot);
            older.insert(found, slot);
            self.set_link(slot, to, state::sequence(self.s.state_word(to)?))?;
            self.set_predecessor(to, u64::from(slot) + 1)?;
            kill::point("rebuild: link made");
        }
        Ok(())
    }
}

/// The oldest version known so far of the list that `slot` is in.
fn oldest(older: &HashMap<u32, u32>, slot: u32) -> u32 {
    let mut end = slot;
    while let Some(&next) = older.get(&end) {
        end = next;
    }
    end
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use crate::layout::slot;
    use crate::{CreateOptions, Location, Patience, Pin, Region};

    /// Three versions of a table, all pinned.
    fn versions() -> (Region, [Pin; 3]) {
        let options = CreateOptions { capacity: Some(1 << 20), ..CreateOptions::default() };
        let region = Region::create(Location::Memfd, options).unwrap();
        let patience = Patience { timeout: Duration::ZERO, ..Patience::reader("") };
        let first = region.publish("t", &[], b"1", false).unwrap();
        let second = first.updater(&patience).unwrap().swap(&[], b"2").unwrap();
        let third = second.updater(&patience).unwrap().swap(&[], b"3").unwrap();
        (region, [first, second, third])
    }

    fn ends(region: &Region, versions: [Pin; 3], seen: [&[u8]; 3]) {
        region.gc().unwrap();
        assert!(region.verify().ok(), "{:?}", region.verify());
        for (version, seen) in versions.iter().zip(seen) {
            assert_eq!(version.follow().unwrap().manifest().unwrap(), seen);
        }
        drop(versions);
        region.delete("t").unwrap();
        region.gc().unwrap();
        let stats = region.stats().unwrap();
        assert_eq!((stats.used, stats.retired), (0, 0), "{stats:?}");
        assert!(region.verify().ok(), "{:?}", region.verify());
    }

    #[test]
    fn a_splice_that_was_interrupted_is_undone_where_the_middle_is_still_held() {
        let (region, versions) = versions();
        let session = region.for_tests();
        let [first, _, third] = versions.each_ref().map(|pin| pin.0.held);
        // The first names the last, which the middle one names as well.
        session.write().unwrap().set_link(first.slot, third.slot, third.sequence).unwrap();
        assert!(!region.verify().ok());
        ends(&region, versions, [b"3", b"3", b"3"]);
    }

    #[test]
    fn a_splice_that_was_interrupted_is_completed_where_the_middle_is_not_held() {
        let (region, [first, second, third]) = versions();
        let session = region.for_tests();
        let (a, c) = (first.0.held, third.0.held);
        session.write().unwrap().set_link(a.slot, c.slot, c.sequence).unwrap();
        drop(second);
        let again = first.clone();
        ends(&region, [first, again, third], [b"3", b"3", b"3"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_or_back_is_the_end() {
        for back in [true, false] {
            let (region, versions) = versions();
            let session = region.for_tests();
            let [first, second, _] = versions.each_ref().map(|pin| pin.0.held);
            let at = session.layout.slot(second.slot);
            let by = session.bytes.word(at + slot::SUPERSEDED_BY).unwrap();
            let sequence = session.bytes.word(at + slot::SUPERSEDED_SEQUENCE).unwrap();
            if back {
                by.store(u64::from(first.slot) + 1, Ordering::Relaxed);
                sequence.store(first.sequence, Ordering::Relaxed);
            } else {
                by.store(u64::MAX, Ordering::Relaxed);
                sequence.store(u64::MAX >> 9, Ordering::Relaxed);
            }
            assert!(!region.verify().ok());
            assert_eq!(versions[0].follow().unwrap().manifest().unwrap(), b"2");
            ends(&region, versions, [b"2", b"2", b"3"]);
        }
    }

    #[test]
    fn versions_that_all_name_one_successor_are_put_in_a_row() {
        let (region, [first, ..]) = versions();
        let patience = Patience { timeout: Duration::ZERO, ..Patience::reader("") };
        let mut pins = vec![first.clone()];
        for i in 0..200_u32 {
            let updater = first.updater(&patience).unwrap();
            pins.push(updater.swap(&[], &i.to_le_bytes()).unwrap());
        }
        let session = region.for_tests();
        let last = pins.last().unwrap().0.held;
        let writer = session.write().unwrap();
        for pin in &pins[..200] {
            writer.set_link(pin.0.held.slot, last.slot, last.sequence).unwrap();
        }
        drop(writer);
        region.gc().unwrap();
        assert!(region.verify().ok(), "{:?}", region.verify());
        for pin in &pins {
            assert_eq!(pin.follow().unwrap().sequence(), last.sequence);
        }
        drop((pins, first));
        assert_eq!(region.stats().unwrap().retired, 0);
    }
}
