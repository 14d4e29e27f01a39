//! Notes in a session's page on what it holds: since when, where in the program it was taken, and
//! what for. Best effort, for people: a note lasts until another one needs its place.

use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::layout::session as field;
use crate::session::Session;
use crate::site;
use crate::types::{HoldKind, now_millis};

/// What tells notes apart: a table, and the kind of hold.
fn key(sequence: u64, kind: HoldKind) -> u64 {
    let kind = match kind {
        HoldKind::Pin | HoldKind::Reader | HoldKind::Build => 0,
        HoldKind::Lease => 1,
        // One becomes the other.
        HoldKind::Update | HoldKind::Exclusive => 2,
        HoldKind::Ticket => 3,
    };
    sequence << 2 | kind
}

impl Session {
    /// The place of the note on a key in a session's page. Different tables are kept apart while
    /// they are few, and what one session holds of a table in several ways is.
    fn note_at(&self, index: u32, key: u64) -> u64 {
        let entry = ((key >> 2).wrapping_mul(3) + (key & 3).min(2)) % field::LOG_ENTRIES;
        self.layout.session(index) + field::LOG + entry * field::LOG_BYTES
    }

    /// Notes what a hold is for, and which line of the program takes it.
    pub(crate) fn note(&self, sequence: u64, kind: HoldKind, what: &str) {
        if self.read_only {
            return;
        }
        let text = site::described::<{ field::LOG_WHAT_BYTES as usize }>(what);
        self.note_as(key(sequence, kind), now_millis(), &text);
    }

    /// The same, of a hold that goes on from another version of the table: it is as old as that one.
    pub(crate) fn note_on(&self, from: u64, to: u64, kind: HoldKind) {
        if !self.read_only
            && let Ok(Some((since, what))) = self.noted(self.index(), from, kind)
        {
            let mut text = [0; field::LOG_WHAT_BYTES as usize];
            text.iter_mut().zip(what.bytes()).for_each(|(to, from)| *to = from);
            self.note_as(key(to, kind), since, &text);
        }
    }

    fn note_as(&self, key: u64, at: u64, text: &[u8]) {
        let entry = self.note_at(self.index(), key);
        if let (Ok(word), Ok(since)) = (self.bytes.word(entry), self.bytes.word(entry + 8)) {
            word.store(0, Ordering::Relaxed);
            since.store(at, Ordering::Relaxed);
            let _ = self.bytes.write(entry + field::LOG_WHAT, text);
            word.store(key, Ordering::Release);
        }
    }

    /// Forgets what session `index` noted, but for its update of the tables of these sequences:
    /// until somebody needs the place, it says how they came to be as they are.
    pub(crate) fn forget_notes(&self, index: u32, but: &[u64]) -> Result<()> {
        let kept: Vec<u64> = but.iter().map(|s| key(*s, HoldKind::Update)).collect();
        let first = self.layout.session(index) + field::LOG;
        for entry in (0..field::LOG_ENTRIES).map(|i| first + i * field::LOG_BYTES) {
            let noted = self.bytes.word(entry)?.load(Ordering::Relaxed);
            if noted != 0 && !kept.contains(&noted) {
                self.bytes.zero(entry, field::LOG_BYTES)?;
            }
        }
        Ok(())
    }

    /// What session `index` noted about its hold on a table: since when, and for what.
    pub(crate) fn noted(
        &self,
        index: u32,
        sequence: u64,
        kind: HoldKind,
    ) -> Result<Option<(u64, String)>> {
        let key = key(sequence, kind);
        let entry = self.note_at(index, key);
        if self.bytes.word(entry)?.load(Ordering::Acquire) != key {
            return Ok(None);
        }
        let since = self.bytes.word(entry + 8)?.load(Ordering::Relaxed);
        let text = self.bytes.read(entry + field::LOG_WHAT, field::LOG_WHAT_BYTES)?;
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        let what = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
        Ok(Some((since, what)))
    }
}
