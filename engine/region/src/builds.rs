//! Notes in a session's page on tables that are being built: a name, since when, how many bytes they
//! have taken, and the line of the program. Best effort, for people: the first few are noted.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::layout::session as field;
use crate::region::Region;
use crate::session::Session;
use crate::site;
use crate::types::{HoldKind, LeaseRecord, now_millis};

/// What is left of the text for the name, beside the line.
const NAME_ROOM: usize = field::BUILD_TEXT_BYTES as usize - 2;

/// While it lives, all processes see that a table is being built: [`Region::leases`] lists it.
pub struct Building {
    session: Weak<Session>,
    /// The session that it was begun in: a forked child's is another.
    token: u64,
    /// Where it is noted, if there was room.
    entry: Option<u64>,
}

impl std::fmt::Debug for Building {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Building").finish_non_exhaustive()
    }
}

impl Region {
    /// Says that a table of that name is being built.
    ///
    /// # Errors
    /// [`crate::Error::Stale`].
    pub fn building(&self, name: &str) -> Result<Building> {
        let session = self.session()?;
        let entry = if session.read_only { None } else { session.note_build(name)? };
        let token = session.token();
        Ok(Building { session: std::sync::Arc::downgrade(&session), token, entry })
    }
}

impl Building {
    /// Says how many bytes it has taken by now.
    pub fn set_bytes(&self, bytes: u64) {
        self.store(bytes.saturating_add(1));
    }

    fn store(&self, value: u64) {
        if let (Some(entry), Some(session)) = (self.entry, self.session.upgrade())
            && session.is_ours()
            && session.token() == self.token
            && let Ok(word) = session.bytes.word(entry)
        {
            word.store(value, Ordering::Release);
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.store(0);
    }
}

impl Session {
    fn builds(&self, index: u32) -> impl Iterator<Item = u64> {
        let first = self.layout.session(index) + field::BUILDS;
        (0..field::BUILD_ENTRIES).map(move |i| first + i * field::BUILD_BYTES)
    }

    /// The entry that it is noted in, if one was free.
    fn note_build(&self, name: &str) -> Result<Option<u64>> {
        for entry in self.builds(self.index()) {
            let taken = self.bytes.word(entry)?;
            if taken.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            // The line is shorter than that, and matters more than the end of a long name.
            let line = site::described::<{ NAME_ROOM }>("");
            let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let end = name.floor_char_boundary(NAME_ROOM.saturating_sub(line.len()));
            let name = name.as_bytes().get(..end).unwrap_or_default();
            let mut text = [0; field::BUILD_TEXT_BYTES as usize];
            let bytes = name.iter().chain(&[0]).chain(line);
            text.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            self.bytes.write(entry + field::BUILD_TEXT, &text)?;
            self.bytes.word(entry + 8)?.store(now_millis(), Ordering::Release);
            return Ok(Some(entry));
        }
        Ok(None)
    }

    /// What session `index` is building.
    pub(crate) fn noted_builds(&self, index: u32, out: &mut Vec<LeaseRecord>) -> Result<()> {
        for entry in self.builds(index) {
            let taken = self.bytes.word(entry)?.load(Ordering::Acquire);
            let since = self.bytes.word(entry + 8)?.load(Ordering::Acquire);
            let text = self.bytes.read(entry + field::BUILD_TEXT, field::BUILD_TEXT_BYTES)?;
            if taken == 0 {
                continue;
            }
            let mut parts = text.split(|byte| *byte == 0);
            let mut next =
                || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            let (table, what) = (next(), next());
            let pid = self.bytes.half(self.layout.session(index) + field::PID)?;
            out.push(LeaseRecord {
                pid: pid.load(Ordering::Relaxed),
                table,
                sequence: 0,
                current: false,
                kind: HoldKind::Build,
                since: (since != 0).then_some(since),
                what,
                bytes: taken - 1,
            });
        }
        Ok(())
    }

    /// Nobody builds what session `index` was building.
    pub(crate) fn forget_builds(&self, index: u32) -> Result<()> {
        let first = self.layout.session(index) + field::BUILDS;
        self.bytes.zero(first, field::BUILD_ENTRIES * field::BUILD_BYTES)
    }
}
