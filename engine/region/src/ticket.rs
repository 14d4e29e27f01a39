//! Results without a name on their way to other processes.
//!
//! A ticket is a slot that is retired from its first store: it has no name, and its memory lives
//! as long as somebody holds it. Passes are issued for it, one for each time it is sent; each can
//! be redeemed once. While one is outstanding the ticket is kept by the session that issued it, and
//! for [`GRACE`] after the end of that session, however it ended: a worker may leave, or be killed,
//! before what it has sent was received.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::catalog::Held;
use crate::error::{Error, Result};
use crate::kill;
use crate::layout::slot;
use crate::pins::Line;
use crate::protocol;
use crate::session::Session;
use crate::state::{self, State};
use crate::types::{HoldKind, Holder, Nearness, Pass, now_millis};
use crate::writer::Writer;

/// How long a result that was sent is kept for its receivers after its sender's session has ended.
/// Later its memory may be taken, by who needs it and by `gc`.
pub const GRACE: Duration = Duration::from_secs(60);
/// How many passes a ticket can have, used ones included: a bit each.
const MOST_PASSES: u32 = u64::BITS;

/// Milliseconds of a clock that all processes share and nobody sets. It stands still while the
/// system sleeps, and so do the receivers.
fn ticks() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let millis = now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

impl Session {
    /// Keeps a held slot until one more pass is redeemed, and gives that one's number. `None`: it
    /// has had all it can have, or another session's are outstanding.
    pub(crate) fn issue(&self, slot: u32) -> Result<Option<u32>> {
        let _writer = self.write()?;
        let at = self.layout.slot(slot);
        let ticket = self.bytes.word(at + slot::TICKET)?;
        let issued = self.bytes.half(at + slot::TICKETS_ISSUED)?;
        let number = issued.load(Ordering::Relaxed);
        let before = ticket.load(Ordering::Acquire);
        if number >= MOST_PASSES || (before != 0 && before != self.token()) {
            return Ok(None);
        }
        self.has_issued.store(true, Ordering::Relaxed);
        // A number is never given out again: who comes twice with one must not use up another's.
        issued.store(number + 1, Ordering::Release);
        kill::point("ticket: numbered");
        self.bytes.half(at + slot::TICKET_PID)?.store(std::process::id(), Ordering::Relaxed);
        self.bytes.word(at + slot::TICKET_SINCE)?.store(now_millis(), Ordering::Relaxed);
        ticket.store(self.token(), Ordering::SeqCst);
        kill::point("ticket: signed");
        // This is what keeps the slot.
        self.bytes.word(at + slot::TICKETS)?.fetch_or(1 << number, Ordering::SeqCst);
        kill::point("ticket: issued");
        Ok(Some(number))
    }

    /// Pins the slot that a pass names, and uses the pass up.
    pub(crate) fn redeem(&self, pass: Pass) -> Result<Held> {
        let Some(held) = self.revisit(pass.slot, pass.sequence)? else {
            return Err(Error::Stale(format!(
                "the result that was sent is gone: it was received before, or its sender had left \
                 the region for more than {} seconds; send it again, or give it a name in the \
                 region",
                GRACE.as_secs()
            )));
        };
        kill::point("ticket: pinned");
        match self.use_up(pass) {
            Ok(true) => Ok(held),
            unused => {
                self.unhold(pass.slot, Line::Pins);
                unused?;
                Err(Error::Stale(
                    "the result was received before: each time it is sent it can be received once; \
                     send it once to each receiver, or give it a name in the region"
                        .into(),
                ))
            }
        }
    }

    /// Pins what is in a slot, if it still is what had that sequence.
    pub(crate) fn revisit(&self, slot: u32, sequence: u64) -> Result<Option<Held>> {
        self.check_fork()?;
        loop {
            if slot >= self.slots_high() {
                return Ok(None);
            }
            let seen = self.state_word(slot)?;
            if state::sequence(seen) != sequence
                || matches!(state::state(seen), None | Some(State::Free | State::Building))
            {
                return Ok(None);
            }
            if state::state(seen) == Some(State::Reclaiming) {
                if !self.await_reclaim(slot, seen)? {
                    return Ok(None);
                }
            } else if self.hold(slot, Line::Pins, seen, "")? {
                return Ok(Some(Held { slot, sequence }));
            }
        }
    }

    /// Waits until who is about to free a slot has either done it or left it; whether it may have
    /// been left.
    #[cold]
    fn await_reclaim(&self, slot: u32, seen: u64) -> Result<bool> {
        if self.read_only {
            // It holds the readers' lock: what is about to be freed now was, before we came.
            return Ok(false);
        }
        // It holds the writer lock, or is dead: then the lock's next holder puts the slot back.
        let writer = self.write()?;
        if self.state_word(slot)? == seen {
            let at = self.layout.slot(slot);
            return writer.noting(Err(Error::corrupt("a slot was left half freed", at)));
        }
        Ok(true)
    }

    /// Uses a pass up; whether it was outstanding. The slot is pinned. A session that only reads
    /// leaves it as it is.
    fn use_up(&self, pass: Pass) -> Result<bool> {
        if pass.number >= MOST_PASSES {
            return Ok(false);
        }
        let passes = self.bytes.word(self.layout.slot(pass.slot) + slot::TICKETS)?;
        let bit = 1 << pass.number;
        if self.read_only {
            return Ok(passes.load(Ordering::Acquire) & bit != 0);
        }
        let used = protocol::use_pass(passes, bit);
        kill::point("ticket: used");
        Ok(used)
    }

    /// Whether a slot is kept for passes that are outstanding: who issued them has not ended, or
    /// not long ago. Under the writer lock.
    pub(crate) fn passes_keep(&self, slot: u32) -> Result<bool> {
        let at = self.layout.slot(slot);
        let token = self.ticket_of(slot)?;
        if token == 0 || !protocol::has_passes(self.bytes.word(at + slot::TICKETS)?) {
            return Ok(false);
        }
        let until = self.bytes.word(at + slot::TICKET_UNTIL)?.load(Ordering::Acquire);
        let left = until.saturating_sub(ticks());
        // A time further away was not made by this clock, and must not keep anything for good.
        Ok(self.is_open(token)? || (left > 0 && u128::from(left) <= GRACE.as_millis()))
    }

    /// The session that issued a slot's passes, whether or not some are outstanding.
    pub(crate) fn ticket_of(&self, slot: u32) -> Result<u64> {
        Ok(self.bytes.word(self.layout.slot(slot) + slot::TICKET)?.load(Ordering::Acquire))
    }

    /// Who has sent a slot that was not received yet, if somebody has.
    pub(crate) fn sender_of(&self, slot: u32, sequence: u64) -> Result<Option<Holder>> {
        let at = self.layout.slot(slot);
        let token = self.ticket_of(slot)?;
        if token == 0 || !protocol::has_passes(self.bytes.word(at + slot::TICKETS)?) {
            return Ok(None);
        }
        if self.is_open(token)? {
            let index = (token & 0x1ff) as u32;
            return self.holder(index, sequence, HoldKind::Ticket).map(Some);
        }
        Ok(Some(Holder {
            pid: self.bytes.half(at + slot::TICKET_PID)?.load(Ordering::Relaxed),
            since: Some(self.bytes.word(at + slot::TICKET_SINCE)?.load(Ordering::Relaxed)),
            what: "sent, its sender has ended".into(),
            kind: HoldKind::Ticket,
            nearness: Nearness::Other,
        }))
    }

    /// Whether passes are outstanding of a session that is not there, and that nobody has given a
    /// time: they would be nobody's.
    pub(crate) fn is_orphaned(&self, slot: u32) -> Result<bool> {
        let at = self.layout.slot(slot);
        let token = self.ticket_of(slot)?;
        let until = self.bytes.word(at + slot::TICKET_UNTIL)?.load(Ordering::Acquire);
        Ok(token != 0
            && until == 0
            && protocol::has_passes(self.bytes.word(at + slot::TICKETS)?)
            && !self.is_open(token)?)
    }

    /// Whether a session is open, or died and was not swept yet.
    fn is_open(&self, token: u64) -> Result<bool> {
        Ok(self.incarnation_in((token & 0x1ff) as u32)? == token >> 9)
    }
}

impl Writer<'_> {
    /// Gives the passes that a dead (or leaving) session issued for a slot, and that are
    /// outstanding, a time of grace.
    pub(crate) fn orphan_ticket_of(&self, slot: u32, token: u64) -> Result<()> {
        let at = self.s.layout.slot(slot);
        if token == 0
            || self.s.ticket_of(slot)? != token
            || !protocol::has_passes(self.s.bytes.word(at + slot::TICKETS)?)
        {
            return Ok(());
        }
        let grace = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
        let until = self.s.bytes.word(at + slot::TICKET_UNTIL)?;
        until.store(ticks().saturating_add(grace), Ordering::Release);
        kill::point("sweep: passes given time");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
