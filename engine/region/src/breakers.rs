//! Who left a table half written: for messages, noted in the slot when the table is poisoned.
//!
//! The slot has no room for the line of the program. That stays in the page of the session that is
//! gone, until a later session there needs the place; the time tells whether it is still there.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::layout::{session as field, slot};
use crate::session::Session;
use crate::state::{self, State};
use crate::types::{HoldKind, Holder, Nearness};
use crate::writer::Writer;

impl Session {
    /// Whether a table is, or will be found to be, half written: its writer is gone.
    pub(crate) fn is_broken(&self, slot: u32) -> Result<bool> {
        let word = self.state_word(slot)?;
        match state::state(word) {
            Some(State::Poisoned) => Ok(true),
            // Unless its updater has just finished it.
            Some(State::Writing) => Ok(self.is_abandoned(slot)? && self.state_word(slot)? == word),
            Some(State::Retired) if word & state::TORN != 0 => {
                Ok(self.is_abandoned(slot)? && self.state_word(slot)? == word)
            }
            _ => Ok(false),
        }
    }

    /// Whether a session, which is gone or ours, has poisoned a table.
    pub(crate) fn was_broken_by(&self, slot: u32, index: u32) -> Result<bool> {
        if state::state(self.state_word(slot)?) != Some(State::Poisoned) {
            return Ok(false);
        }
        let at = self.layout.slot(slot);
        let known = self.bytes.half(at + slot::BREAKER_PID)?.load(Ordering::Relaxed) != 0;
        let by = self.bytes.word(at + slot::BREAKER_SESSION)?.load(Ordering::Relaxed);
        Ok(known && by == u64::from(index))
    }

    /// Who left a table half written, as far as it is known.
    pub(crate) fn breaker(&self, slot: u32) -> Result<Option<Holder>> {
        let word = self.state_word(slot)?;
        let sequence = state::sequence(word);
        let token = self.updater_of(slot)?;
        if token != 0 {
            // Nobody has taken over from it yet.
            return self.holder((token & 0x1ff) as u32, sequence, HoldKind::Exclusive).map(Some);
        }
        let at = self.layout.slot(slot);
        let pid = self.bytes.half(at + slot::BREAKER_PID)?.load(Ordering::Relaxed);
        if pid == 0 {
            return Ok(None);
        }
        let since = self.bytes.word(at + slot::BREAKER_SINCE)?.load(Ordering::Relaxed);
        let session = self.bytes.word(at + slot::BREAKER_SESSION)?.load(Ordering::Relaxed);
        let noted = match u32::try_from(session) {
            Ok(index) if index < self.sessions_high() => {
                self.noted(index, sequence, HoldKind::Exclusive)?
            }
            _ => None,
        };
        let what = noted.filter(|(noted, _)| *noted == since).map(|(_, what)| what);
        Ok(Some(Holder {
            pid,
            since: (since != 0).then_some(since),
            what: what.unwrap_or_default(),
            kind: HoldKind::Exclusive,
            nearness: Nearness::Other,
        }))
    }

    /// The error of who wants to read or change a table that is half written.
    #[cold]
    pub(crate) fn poisoned(&self, slot: u32, name: &str) -> Error {
        // A message that says less is better than another error.
        Error::Poisoned { name: name.into(), by: self.breaker(slot).unwrap_or_default() }
    }
}

impl Writer<'_> {
    /// Notes that nobody knows who leaves a table half written.
    pub(crate) fn forget_breaker(&self, slot: u32) -> Result<()> {
        let at = self.s.layout.slot(slot);
        self.s.bytes.half(at + slot::BREAKER_PID)?.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Notes who leaves a table half written: the session `index`.
    pub(crate) fn note_breaker(&self, slot: u32, index: u32) -> Result<()> {
        let s = self.s;
        if index >= s.sessions_high() {
            return Ok(());
        }
        let at = s.layout.slot(slot);
        let sequence = state::sequence(s.state_word(slot)?);
        let pid = s.bytes.half(s.layout.session(index) + field::PID)?.load(Ordering::Relaxed);
        let noted = s.noted(index, sequence, HoldKind::Exclusive)?;
        let since = noted.map_or(0, |(since, _)| since);
        s.bytes.word(at + slot::BREAKER_SINCE)?.store(since, Ordering::Relaxed);
        s.bytes.word(at + slot::BREAKER_SESSION)?.store(u64::from(index), Ordering::Relaxed);
        s.bytes.half(at + slot::BREAKER_PID)?.store(pid, Ordering::Relaxed);
        Ok(())
    }
}
