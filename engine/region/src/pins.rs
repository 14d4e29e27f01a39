//! Pins and leases: one bit per session in two lines of each table slot.
//!
//! A pin keeps a table's memory from being recycled, a lease its content from being changed. The
//! holder sets its bit, fences, and looks again whether the slot still is what it wanted; who
//! retires changes the state, fences, and looks at the bits. With both fences sequentially
//! consistent, at least one of the two sees the other. How often this process holds a slot is
//! counted here; only the first and the last touch the region.

use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::kill;
use crate::layout::slot;
use crate::protocol;
use crate::session::{Deferred, Session};
use crate::state;
use crate::types::HoldKind;

/// How often this process holds one slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    pins: u32,
    leases: u32,
    /// Leases for as long as something runs on the thread that took them.
    running: u32,
}

impl Hold {
    fn count(&mut self, line: Line) -> &mut u32 {
        match line {
            Line::Pins => &mut self.pins,
            Line::Leases => &mut self.leases,
            Line::Running => &mut self.running,
        }
    }

    /// How many handles pin the slot.
    pub(crate) fn pins(&self) -> u32 {
        self.pins
    }

    /// Whether the bit of a line stands for something.
    fn needs(&self, line: Line) -> bool {
        match line {
            Line::Pins => self.pins != 0,
            Line::Leases | Line::Running => self.leases != 0 || self.running != 0,
        }
    }

    /// Whether one more hold in a line is what is to be noted: the first that nothing longer than
    /// it was noted for.
    fn is_news(&self, line: Line) -> bool {
        match line {
            Line::Pins | Line::Running => !self.needs(line),
            Line::Leases => self.leases == 0,
        }
    }

    fn is_none(&self) -> bool {
        !self.needs(Line::Pins) && !self.needs(Line::Leases)
    }

    /// The lines in which a forked child holds the slot as well. What runs does not run there.
    pub(crate) fn passed_on(&self) -> impl Iterator<Item = Line> {
        let pins = (self.pins != 0).then_some(Line::Pins);
        pins.into_iter().chain((self.leases != 0).then_some(Line::Leases))
    }

    /// Becomes what a forked child holds; whether that is anything.
    pub(crate) fn pass_on(&mut self) -> bool {
        self.running = 0;
        !self.is_none()
    }
}

/// What is counted, and in which of the two lines it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Pins,
    Leases,
    /// In the line of leases: for as long as something runs. A forked child does not inherit it.
    Running,
}

impl Line {
    pub(crate) fn offset(self) -> u64 {
        match self {
            Self::Pins => slot::PINS,
            Self::Leases | Self::Running => slot::LEASES,
        }
    }

    fn kind(self) -> HoldKind {
        match self {
            Self::Pins => HoldKind::Pin,
            Self::Leases | Self::Running => HoldKind::Lease,
        }
    }
}

impl Session {
    /// Our word and bit in a slot's line.
    fn bit(&self, slot: u32, line: Line, index: u32) -> (u64, u64) {
        let word = self.layout.slot(slot) + line.offset() + u64::from(index / 64) * 8;
        (word, 1 << (index % 64))
    }

    /// Holds a slot whose state word is `seen`, and notes what for; `false` if it no longer is.
    pub(crate) fn hold(&self, slot: u32, line: Line, seen: u64, what: &str) -> Result<bool> {
        let state_word = self.bytes.word(self.layout.slot(slot) + slot::STATE)?;
        if self.read_only {
            // The readers' lock keeps everything from being recycled.
            return Ok(state_word.load(Ordering::Acquire) == seen);
        }
        let (word, bit) = self.bit(slot, line, self.index());
        let word = self.bytes.word(word)?;
        let mut holds = self.holds.lock();
        let hold = holds.entry(slot).or_default();
        let first = !hold.needs(line);
        if protocol::hold(word, bit, !first, state_word, seen) {
            let news = hold.is_news(line);
            let count = hold.count(line);
            *count = count.saturating_add(1);
            drop(holds);
            kill::point("hold: held");
            if news {
                self.note(state::sequence(seen), line.kind(), what);
            }
            return Ok(true);
        }
        if first {
            kill::point("hold: too late");
            protocol::let_go(word, bit);
        }
        if hold.is_none() {
            holds.remove(&slot);
        }
        drop(holds);
        if first {
            self.after_release(slot);
        }
        Ok(false)
    }

    /// Gives up one hold. Takes no lock of the region: it runs in destructors.
    pub(crate) fn unhold(&self, slot: u32, line: Line) {
        if self.read_only || !self.is_ours() {
            return;
        }
        let mut holds = self.holds.lock();
        let Some(hold) = holds.get_mut(&slot) else { return };
        let count = hold.count(line);
        if *count == 0 {
            // It ran in the parent when this process was forked.
            return;
        }
        *count -= 1;
        if hold.needs(line) {
            return;
        }
        let (word, bit) = self.bit(slot, line, self.index());
        if let Ok(word) = self.bytes.word(word) {
            protocol::let_go(word, bit);
            kill::point("hold: let go");
        }
        if hold.is_none() {
            holds.remove(&slot);
        }
        drop(holds);
        self.after_release(slot);
    }

    /// Frees a retired slot that we may have been the last to hold.
    fn after_release(&self, slot: u32) {
        let Ok(word) = self.bytes.word(self.layout.slot(slot) + slot::STATE) else { return };
        if !protocol::is_left_over(word) {
            return;
        }
        match self.try_write() {
            Some(mut writer) => {
                kill::point("hold: left over");
                let _ = writer.reclaim(slot);
            }
            None => self.defer(Deferred::Slot(slot)),
        }
    }

    /// Sets the bit of session `index` in a slot that our own session holds.
    pub(crate) fn set_bit(&self, slot: u32, line: Line, index: u32) -> Result<()> {
        let (word, bit) = self.bit(slot, line, index);
        self.bytes.word(word)?.fetch_or(bit, Ordering::SeqCst);
        Ok(())
    }

    /// The state word of a slot if it is retired and no session holds it; under the writer lock.
    pub(crate) fn unheld_retired(&self, slot: u32) -> Result<Option<u64>> {
        let at = self.layout.slot(slot);
        // The line of leases follows that of pins.
        let word = |i| self.bytes.word(at + slot::PINS + i * 8);
        protocol::reclaimable(self.bytes.word(at + slot::STATE)?, 16, word)
    }

    /// Keeps a retired slot from being pinned by who comes to it by a link or with a pass, unless
    /// somebody has come before.
    pub(crate) fn shut_out(&self, slot: u32, seen: u64) -> Result<bool> {
        let at = self.layout.slot(slot);
        let word = |i| self.bytes.word(at + slot::PINS + i * 8);
        protocol::shut_out(self.bytes.word(at + slot::STATE)?, seen, 16, word)
    }

    /// Clears a dead (or leaving) session's bits in a slot; whether there were any.
    pub(crate) fn clear_bits(&self, slot: u32, index: u32) -> Result<bool> {
        let mut any = false;
        for line in [Line::Pins, Line::Leases] {
            let (word, bit) = self.bit(slot, line, index);
            any |= protocol::clear_bit(self.bytes.word(word)?, bit);
        }
        Ok(any)
    }

    /// Whether session `index` has its bit in a slot's line.
    pub(crate) fn has_bit(&self, slot: u32, line: Line, index: u32) -> Result<bool> {
        let (word, bit) = self.bit(slot, line, index);
        Ok(self.bytes.word(word)?.load(Ordering::Acquire) & bit != 0)
    }
}
