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
        HoldKind::Pin | HoldKind::Reader => 0,
        HoldKind::Lease => 1,
        // One becomes the other.
        HoldKind::Update | HoldKind::Exclusive => 2,
        HoldKind::Ticket => 3,
    };
    sequence << 2 | kind
}

impl Session {
    /// The place of the note on a key in a session's page. Different tables are kept apart while
    /// they are few, and leases, which others wait for, from pins and updates.
    fn note_at(&self, index: u32, key: u64) -> u64 {
        let entry = ((key >> 2 << 1) + (key & 1)) % field::LOG_ENTRIES;
        self.layout.session(index) + field::LOG + entry * field::LOG_BYTES
    }

    /// Notes what a hold is for, and which line of the program takes it.
    pub(crate) fn note(&self, sequence: u64, kind: HoldKind, what: &str) {
        if self.read_only {
            return;
        }
        let key = key(sequence, kind);
        let entry = self.note_at(self.index(), key);
        let text = site::described::<{ field::LOG_WHAT_BYTES as usize }>(what);
        if let (Ok(word), Ok(since)) = (self.bytes.word(entry), self.bytes.word(entry + 8)) {
            word.store(0, Ordering::Relaxed);
            since.store(now_millis(), Ordering::Relaxed);
            let _ = self.bytes.write(entry + field::LOG_WHAT, &text);
            word.store(key, Ordering::Release);
        }
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
