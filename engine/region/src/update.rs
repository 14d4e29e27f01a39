//! Updates of one table, one after the other: the updater's word, and the exclusive lease that a
//! change in place needs.
//!
//! The updater's word in a slot names the session that updates the table; threads of one process
//! exclude each other in the process. With the word, the state goes from PUBLISHED to LEASED (new
//! leases wait), and if then nobody holds a lease, to WRITING. All changes of the state are made
//! under the writer lock; new leases are taken without it, so after LEASED is stored a fence comes
//! before the leases are looked at, as a fence comes between a lease and its second look at the
//! state (see `pins`).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::catalog::Held;
use crate::error::{Error, Result};
use crate::kill;
use crate::layout::{LOCK_BASE, LOCK_READERS, session as field, slot};
use crate::pins::Line;
use crate::protocol;
use crate::session::{Deferred, Session};
use crate::state::{self, State};
use crate::types::{HoldKind, Holder, Nearness};
use crate::writer::{PATIENCE, Writer};

/// How long new leases are shut out while others are waited for to end.
const SHUT: Duration = Duration::from_millis(1);

/// What came of asking for the updater's word.
pub(crate) enum Asked {
    /// It is ours.
    Taken,
    /// The table was superseded meanwhile: to be followed.
    Superseded,
    /// Another updates the table.
    Busy,
    /// This very thread does.
    Mine,
}

impl Session {
    pub(crate) fn updater_of(&self, slot: u32) -> Result<u64> {
        Ok(self.bytes.word(self.layout.slot(slot) + slot::UPDATER)?.load(Ordering::Acquire))
    }

    /// Whether this very thread updates the table in a slot.
    pub(crate) fn updates_here(&self, slot: u32) -> bool {
        self.updates.lock().get(&slot) == Some(&std::thread::current().id())
    }

    /// Whether the session that a token names lives, as far as a look can tell. Who is told that it
    /// does not takes over, which asks again.
    fn lives(&self, token: u64, slot: u32) -> Result<bool> {
        if token == self.token() {
            return Ok(self.updates.lock().contains_key(&slot));
        }
        let index = (token & 0x1ff) as u32;
        if token == 0 || self.incarnation_in(index)? != token >> 9 {
            return Ok(false);
        }
        self.session_locked(index)
    }

    /// Whether somebody else's lock is on a session's byte.
    fn session_locked(&self, index: u32) -> Result<bool> {
        let locked = self.lock.other_lock(LOCK_BASE + u64::from(index));
        let locked = locked.map_err(|e| Error::io("asking whether a process lives", e))?;
        Ok(locked.is_some())
    }

    /// Whether a process has the region open read-only.
    pub(crate) fn has_readers(&self) -> Result<bool> {
        let lock = self.lock.other_lock(LOCK_READERS);
        let lock = lock.map_err(|e| Error::io("asking for read-only openers", e))?;
        // Locked for writing, it is by one who recycles; no reader can have it then.
        Ok(lock == Some(libc::F_RDLCK))
    }

    /// Ends the update of a slot if its updater is dead.
    pub(crate) fn rescue(&self, slot: u32) -> Result<()> {
        let token = self.updater_of(slot)?;
        if self.read_only || self.lives(token, slot)? {
            return Ok(());
        }
        let mut writer = self.write()?;
        writer.end_if_dead(slot)
    }

    /// Whether a read-only opener finds the updater of a slot dead, or gone: it cannot take over, and
    /// sees what is as whoever takes over will leave it.
    pub(crate) fn sees_orphan(&self, slot: u32) -> Result<bool> {
        Ok(self.read_only && self.is_abandoned(slot)?)
    }

    /// Whether the updater of a slot is dead, and nobody has taken over from it yet.
    pub(crate) fn is_abandoned(&self, slot: u32) -> Result<bool> {
        let token = self.updater_of(slot)?;
        Ok(!self.lives(token, slot)?)
    }

    /// Takes the updater's word, if nobody has it and the table still has its name.
    pub(crate) fn ask_update(&self, held: Held, name: &str) -> Result<Asked> {
        if self.updates_here(held.slot) {
            return Ok(Asked::Mine);
        }
        let token = self.updater_of(held.slot)?;
        if token != 0 && self.lives(token, held.slot)? {
            return Ok(Asked::Busy);
        }
        let mut writer = self.write()?;
        writer.end_if_dead(held.slot)?;
        let seen = self.state_word(held.slot)?;
        if state::sequence(seen) != held.sequence {
            return Err(recycled(name));
        }
        match state::state(seen) {
            Some(State::Retired) if seen & state::SUPERSEDED != 0 => return Ok(Asked::Superseded),
            Some(State::Retired) => return Err(lost_name(name)),
            Some(State::Poisoned) => return Err(self.poisoned(held.slot, name)),
            Some(State::Published) if self.updater_of(held.slot)? == 0 => {}
            Some(State::Published | State::Leased | State::Writing) => return Ok(Asked::Busy),
            _ => return Err(recycled(name)),
        }
        {
            let mut updates = self.updates.lock();
            if updates.contains_key(&held.slot) {
                // Another thread is about to give it back.
                return Ok(Asked::Busy);
            }
            updates.insert(held.slot, std::thread::current().id());
        }
        let word = self.bytes.word(self.layout.slot(held.slot) + slot::UPDATER)?;
        word.store(self.token(), Ordering::SeqCst);
        kill::point("update: begun");
        Ok(Asked::Taken)
    }

    /// Gives the updater's word back.
    pub(crate) fn end_update(&self, slot: u32, token: u64) {
        if !self.is_ours() || token != self.token() {
            // A forked child: the update is its parent's.
            return;
        }
        if let Ok(word) = self.bytes.word(self.layout.slot(slot) + slot::UPDATER) {
            let _ = word.compare_exchange(token, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
        kill::point("update: ended");
        // Last: a thread that finds the word ours, and no thread of ours with it, takes it over.
        self.updates.lock().remove(&slot);
        let _ = self.ring();
    }

    /// One attempt at the exclusive lease: shuts new leases out, and waits a moment for others to
    /// end. Without success the table is as it was.
    pub(crate) fn shut(&self, held: Held, name: &str) -> Result<bool> {
        {
            let writer = self.write()?;
            writer.expect(held, name, State::Published)?;
            let word = self.bytes.word(self.layout.slot(held.slot) + slot::STATE)?;
            protocol::shut(word, state::word(State::Leased, held.sequence));
            kill::point("exclusive: shut");
        }
        let until = Instant::now() + SHUT;
        let mut spins = 0_u32;
        let free = loop {
            match self.leased(held.slot) {
                Ok(true) => {}
                other => break other.map(|leased| !leased),
            }
            if Instant::now() >= until {
                break Ok(false);
            }
            spins += 1;
            if spins < 100 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        };
        // After the leases: who opens the region read-only from now on finds the state.
        let free = free.and_then(|free| Ok(free && !self.has_readers()?));
        if matches!(free, Ok(true)) {
            return free;
        }
        if let Err(e) = self.reopen(held, PATIENCE) {
            // The writer lock could not be had: whoever gets it next in this process does it.
            self.defer(Deferred::Reopen(held));
            return Err(e);
        }
        free
    }

    /// Ends an exclusive lease, if the writer lock can be had in time. What was begun and not
    /// finished is poisoned.
    pub(crate) fn reopen(&self, held: Held, patience: Duration) -> Result<()> {
        self.write_within(patience)?.reopen(held)?;
        self.ring()
    }

    /// Whether any session holds a lease on a slot.
    pub(crate) fn leased(&self, slot: u32) -> Result<bool> {
        let at = self.layout.slot(slot) + Line::Leases.offset();
        Ok(!protocol::is_unheld(8, |i| self.bytes.word(at + i * 8))?)
    }

    /// Takes over from dead sessions that still hold leases on a slot.
    pub(crate) fn sweep_lessees(&self, slot: u32) -> Result<()> {
        for index in 0..self.sessions_high() {
            if index != self.index()
                && self.has_bit(slot, Line::Leases, index)?
                && !self.session_locked(index)?
            {
                let mut writer = self.write()?;
                writer.take_over(index)?;
            }
        }
        Ok(())
    }

    /// Whether a slot is pinned by more than one handle of this process, or by another process.
    /// Sessions of dead processes are ended.
    pub(crate) fn pinned_by_others(&self, slot: u32) -> Result<bool> {
        if self.holds.lock().get(&slot).is_some_and(|hold| hold.pins() > 1) {
            return Ok(true);
        }
        for index in 0..self.sessions_high() {
            if index == self.index() || !self.has_bit(slot, Line::Pins, index)? {
                continue;
            }
            if self.session_locked(index)? {
                return Ok(true);
            }
            self.write()?.take_over(index)?;
        }
        Ok(false)
    }

    /// Begins to change the content; its new version. From here on a death poisons the table.
    pub(crate) fn begin(&self, held: Held, name: &str) -> Result<u64> {
        let writer = self.write()?;
        writer.expect(held, name, State::Leased)?;
        let version = writer.raise_content(held.slot)?;
        writer.set_state(held, State::Writing)?;
        kill::point("exclusive: writing");
        Ok(version)
    }

    /// Whether a change of the content was begun and not finished.
    pub(crate) fn is_changing(&self, held: Held) -> bool {
        self.state_word(held.slot).is_ok_and(|word| {
            state::sequence(word) == held.sequence
                && (state::state(word) == Some(State::Writing) || word & state::TORN != 0)
        })
    }

    /// Says that the content is whole again, if the writer lock can be had in time.
    pub(crate) fn finish(&self, held: Held, name: &str, patience: Duration) -> Result<()> {
        let writer = self.write_within(patience)?;
        let seen = self.state_word(held.slot)?;
        if state::sequence(seen) == held.sequence
            && self.updater_of(held.slot)? == self.token()
            && seen & state::TORN != 0
        {
            // It lost its name meanwhile; those who have it still may read it.
            let word = self.bytes.word(self.layout.slot(held.slot) + slot::STATE)?;
            word.store(seen & !state::TORN, Ordering::SeqCst);
            kill::point("exclusive: finished without a name");
            return Err(lost_name(name));
        }
        writer.expect(held, name, State::Writing)?;
        writer.set_state(held, State::Leased)?;
        kill::point("exclusive: finished");
        Ok(())
    }

    /// Accepts what a dead updater left.
    pub(crate) fn repair(&self, held: Held, name: &str) -> Result<()> {
        self.rescue(held.slot)?;
        {
            let writer = self.write()?;
            let seen = self.state_word(held.slot)?;
            if state::sequence(seen) != held.sequence {
                return Err(recycled(name));
            }
            let after = match state::state(seen) {
                Some(State::Poisoned) => state::word(State::Published, held.sequence),
                Some(State::Retired)
                    if seen & state::TORN != 0 && self.updater_of(held.slot)? == 0 =>
                {
                    seen & !state::TORN
                }
                Some(State::Published | State::Retired) => return Ok(()),
                _ => {
                    let holders = self.holders_here(held)?;
                    return Err(Error::LeaseHeld { name: name.into(), holders });
                }
            };
            writer.raise_content(held.slot)?;
            let word = self.bytes.word(self.layout.slot(held.slot) + slot::STATE)?;
            word.store(after, Ordering::SeqCst);
            kill::point("repair: repaired");
        }
        self.ring()
    }

    /// Who stands in the way of a lease on a table: its updater, those who read it, and read-only
    /// openers.
    pub(crate) fn holders(&self, held: Held) -> Result<Vec<Holder>> {
        let mut holders = Vec::new();
        let token = self.updater_of(held.slot)?;
        if token != 0 {
            let exclusive = matches!(
                state::state(self.state_word(held.slot)?),
                Some(State::Leased | State::Writing)
            );
            let kind = if exclusive { HoldKind::Exclusive } else { HoldKind::Update };
            holders.push(self.holder((token & 0x1ff) as u32, held.sequence, kind)?);
        }
        for index in 0..self.sessions_high() {
            if self.has_bit(held.slot, Line::Leases, index)? {
                holders.push(self.holder(index, held.sequence, HoldKind::Lease)?);
            }
        }
        if !self.read_only && self.has_readers()? {
            let what = String::new();
            let (kind, nearness) = (HoldKind::Reader, Nearness::Other);
            holders.push(Holder { pid: 0, since: None, what, kind, nearness });
        }
        Ok(holders)
    }

    /// The same, for an error: what this very thread does is its.
    pub(crate) fn holders_here(&self, held: Held) -> Result<Vec<Holder>> {
        let mut holders = self.holders(held)?;
        if self.updates_here(held.slot) {
            let own = |h: &&mut Holder| matches!(h.kind, HoldKind::Update | HoldKind::Exclusive);
            holders.iter_mut().filter(own).for_each(|h| h.nearness = Nearness::Thread);
        }
        Ok(holders)
    }

    /// What is known of session `index` as a holder of a table.
    pub(crate) fn holder(&self, index: u32, sequence: u64, kind: HoldKind) -> Result<Holder> {
        if index >= self.sessions_high() {
            let (what, nearness) = (String::new(), Nearness::Other);
            return Ok(Holder { pid: 0, since: None, what, kind, nearness });
        }
        let page = self.layout.session(index);
        let noted = self.noted(index, sequence, kind)?;
        Ok(Holder {
            pid: self.bytes.half(page + field::PID)?.load(Ordering::Relaxed),
            since: noted.as_ref().map(|(since, _)| *since),
            what: noted.map(|(_, what)| what).unwrap_or_default(),
            kind,
            nearness: match index == self.index() && !self.read_only {
                true => Nearness::Process,
                false => Nearness::Other,
            },
        })
    }
}

impl Writer<'_> {
    /// Ends the update of a slot if its updater is dead, or gone without a trace.
    pub(crate) fn end_if_dead(&mut self, slot: u32) -> Result<()> {
        let token = self.s.updater_of(slot)?;
        if self.s.lives(token, slot)? {
            return Ok(());
        }
        let index = (token & 0x1ff) as u32;
        if token != 0 && index != self.s.index() {
            self.take_over(index)?;
        }
        // A token that no session has ends no session with it.
        let again = self.s.updater_of(slot)?;
        if again == token && !self.s.lives(again, slot)? && self.end_update_of(slot, token)? {
            self.s.ring()?;
        }
        Ok(())
    }

    /// Ends what the session with this token, which is dead, was doing to a table: an exclusive
    /// lease is released, a half-written table marked. Whether anything changed.
    pub(crate) fn end_update_of(&self, slot: u32, token: u64) -> Result<bool> {
        let at = self.s.layout.slot(slot);
        let updater = self.s.bytes.word(at + slot::UPDATER)?;
        if updater.load(Ordering::Acquire) != token {
            return Ok(false);
        }
        let word = self.s.bytes.word(at + slot::STATE)?;
        let mut ended = token != 0;
        // The state first: without the word nobody would know whose it was.
        let seen = word.load(Ordering::Acquire);
        let index = (token & 0x1ff) as u32;
        let half_written = state::state(seen) == Some(State::Writing) || seen & state::TORN != 0;
        if half_written && token != 0 && self.s.incarnation_in(index)? == token >> 9 {
            self.note_breaker(slot, index)?;
        } else if half_written {
            self.forget_breaker(slot)?;
        }
        if let Some(after) = state::orphaned(seen) {
            word.store(after, Ordering::SeqCst);
            kill::point("sweep: update ended");
            ended = true;
        }
        updater.store(0, Ordering::SeqCst);
        Ok(ended)
    }

    /// Ends an exclusive lease of this session, if it is one still.
    pub(crate) fn reopen(&self, held: Held) -> Result<()> {
        let seen = self.s.state_word(held.slot)?;
        let updater = self.s.updater_of(held.slot)?;
        // Nobody's, where the lock could not be had when it ended.
        if state::sequence(seen) == held.sequence
            && (updater == self.s.token() || updater == 0)
            && let Some(after) = state::orphaned(seen)
        {
            if state::state(after) == Some(State::Poisoned) {
                self.note_breaker(held.slot, self.s.index())?;
            }
            let word = self.s.bytes.word(self.s.layout.slot(held.slot) + slot::STATE)?;
            word.store(after, Ordering::SeqCst);
            kill::point("exclusive: reopened");
        }
        Ok(())
    }

    /// Ends exclusive leases that are nobody's: who had them could not get the writer lock when they
    /// ended.
    pub(crate) fn end_left_over(&mut self) -> Result<()> {
        for slot in slot::HIDDEN..self.s.slots_high() {
            let word = self.s.state_word(slot)?;
            if state::orphaned(word).is_some() && self.s.updater_of(slot)? == 0 {
                self.end_if_dead(slot)?;
            }
        }
        Ok(())
    }

    /// Makes sure that a table is in this state, and that we are its updater.
    pub(crate) fn expect(&self, held: Held, name: &str, wanted: State) -> Result<()> {
        let seen = self.s.state_word(held.slot)?;
        if state::sequence(seen) != held.sequence {
            return Err(recycled(name));
        }
        match state::state(seen) {
            Some(found) if found == wanted => {}
            Some(State::Poisoned) => return Err(self.s.poisoned(held.slot, name)),
            Some(State::Retired) => return Err(lost_name(name)),
            _ => {
                return Err(Error::InvalidArgument(format!(
                    "this step of an update of table {name:?} is out of order"
                )));
            }
        }
        if self.s.updater_of(held.slot)? != self.s.token() {
            return Err(Error::Stale(format!("the update of table {name:?} was ended by others")));
        }
        Ok(())
    }

    fn set_state(&self, held: Held, to: State) -> Result<()> {
        let word = self.s.bytes.word(self.s.layout.slot(held.slot) + slot::STATE)?;
        word.store(state::word(to, held.sequence), Ordering::SeqCst);
        Ok(())
    }

    /// The content's next version.
    fn raise_content(&self, slot: u32) -> Result<u64> {
        let content = self.s.bytes.word(self.s.layout.slot(slot) + slot::CONTENT)?;
        let version = content.load(Ordering::Relaxed).saturating_add(1);
        content.store(version, Ordering::SeqCst);
        kill::point("update: content version raised");
        Ok(version)
    }
}

#[cold]
pub(crate) fn recycled(name: &str) -> Error {
    Error::Stale(format!("table {name:?} was recycled"))
}

#[cold]
pub(crate) fn lost_name(name: &str) -> Error {
    Error::Stale(format!(
        "table {name:?} was replaced or deleted; get it again by its name to update it"
    ))
}
