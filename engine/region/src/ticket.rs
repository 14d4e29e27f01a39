//! Results without a name on their way to other processes.
//!
//! A ticket is a slot that is retired from its first store: it has no name, and its memory lives
//! as long as somebody holds it. While passes that were issued for it are outstanding it is kept,
//! by the session that issued the last of them, until that session's end.

use std::sync::atomic::Ordering;

use crate::catalog::Held;
use crate::error::{Error, Result};
use crate::kill;
use crate::layout::{session as field, slot};
use crate::pins::Line;
use crate::session::Session;
use crate::state::{self, State};
use crate::writer::Writer;

impl Session {
    /// Keeps a held slot until one more pass is redeemed.
    pub(crate) fn issue(&self, slot: u32) -> Result<()> {
        let _writer = self.write()?;
        self.has_issued.store(true, Ordering::Relaxed);
        let at = self.layout.slot(slot);
        let passes = self.bytes.word(at + slot::TICKETS)?;
        let count = passes.load(Ordering::Relaxed).saturating_add(1);
        passes.store(count, Ordering::Release);
        kill::point("ticket: counted");
        // This is what keeps the slot: without it the count says nothing.
        self.bytes.word(at + slot::TICKET)?.store(self.token(), Ordering::SeqCst);
        kill::point("ticket: issued");
        Ok(())
    }

    /// Pins the slot that a pass names, and uses the pass up.
    pub(crate) fn redeem(&self, slot: u32, sequence: u64) -> Result<Held> {
        self.check_fork()?;
        let gone = || {
            Error::Stale(
                "the result was received before, or its sender has ended, and nobody keeps it; \
                 send it again, or give it a name in the region"
                    .into(),
            )
        };
        loop {
            if slot >= self.slots_high() {
                return Err(gone());
            }
            let seen = self.state_word(slot)?;
            if state::sequence(seen) != sequence
                || matches!(state::state(seen), None | Some(State::Free | State::Building))
            {
                return Err(gone());
            }
            // Who is about to free it either does or leaves it.
            if state::state(seen) != Some(State::Reclaiming)
                && self.hold(slot, Line::Pins, seen, "")?
            {
                break;
            }
            std::thread::yield_now();
        }
        kill::point("ticket: pinned");
        if !self.read_only
            && let Err(e) = self.use_up(slot)
        {
            self.unhold(slot, Line::Pins);
            return Err(e);
        }
        Ok(Held { slot, sequence })
    }

    fn use_up(&self, slot: u32) -> Result<()> {
        let _writer = self.write()?;
        let at = self.layout.slot(slot);
        let passes = self.bytes.word(at + slot::TICKETS)?;
        let left = passes.load(Ordering::Relaxed).saturating_sub(1);
        passes.store(left, Ordering::Release);
        kill::point("ticket: uncounted");
        if left == 0 {
            self.bytes.word(at + slot::TICKET)?.store(0, Ordering::SeqCst);
            kill::point("ticket: redeemed");
        }
        Ok(())
    }

    /// Whether a slot is kept for passes that are outstanding: whoever issued them has not ended.
    pub(crate) fn passes_keep(&self, slot: u32) -> Result<bool> {
        let token = self.ticket_of(slot)?;
        let page = self.layout.session((token & 0x1ff) as u32);
        let incarnation = self.bytes.word(page + field::INCARNATION)?.load(Ordering::Acquire);
        Ok(token != 0 && incarnation == token >> 9)
    }

    /// The session that keeps a slot for passes that are outstanding.
    pub(crate) fn ticket_of(&self, slot: u32) -> Result<u64> {
        Ok(self.bytes.word(self.layout.slot(slot) + slot::TICKET)?.load(Ordering::Acquire))
    }
}

impl Writer<'_> {
    /// Forgets the passes that a dead (or leaving) session issued for a slot; whether there were
    /// any.
    pub(crate) fn drop_tickets_of(&self, slot: u32, token: u64) -> Result<bool> {
        if self.s.ticket_of(slot)? != token || token == 0 {
            return Ok(false);
        }
        let at = self.s.layout.slot(slot);
        self.s.bytes.word(at + slot::TICKETS)?.store(0, Ordering::Release);
        kill::point("sweep: passes forgotten");
        self.s.bytes.word(at + slot::TICKET)?.store(0, Ordering::SeqCst);
        Ok(true)
    }
}
