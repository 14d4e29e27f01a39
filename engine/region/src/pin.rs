//! Handles on tables: they keep memory from being recycled.

use std::sync::Arc;

use crate::catalog::Held;
use crate::error::{Error, Result};
use crate::layout::slot;
use crate::lease::Lease;
use crate::pins::Line;
use crate::region::Region;
use crate::session::Session;
use crate::state::{self, State};

/// A hold on a table's memory: it is not recycled while the pin lives, whatever becomes of the
/// name. Its content may be changed by who may change it; see [`Lease`].
#[derive(Clone)]
pub struct Pin(pub(crate) Arc<PinInner>);

pub(crate) struct PinInner {
    pub(crate) region: Region,
    pub(crate) session: Arc<Session>,
    pub(crate) name: String,
    pub(crate) held: Held,
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin")
            .field("name", &self.0.name)
            .field("sequence", &self.0.held.sequence)
            .finish_non_exhaustive()
    }
}

impl Drop for PinInner {
    fn drop(&mut self) {
        self.session.unhold(self.held.slot, Line::Pins);
    }
}

impl Pin {
    /// The table's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What tells this table from every other the region ever had.
    pub fn sequence(&self) -> u64 {
        self.0.held.sequence
    }

    /// How often its content was changed in place, from 1.
    pub fn content_version(&self) -> u64 {
        let at = self.0.session.layout.slot(self.0.held.slot) + slot::CONTENT;
        let word = self.0.session.bytes.word(at);
        word.map_or(0, |word| word.load(std::sync::atomic::Ordering::Acquire))
    }

    /// The manifest's bytes, copied out.
    ///
    /// # Errors
    /// [`Error::RegionCorrupt`] if it lies outside the arena; [`Error::Stale`].
    pub fn manifest(&self) -> Result<Vec<u8>> {
        self.0.check()?;
        self.0.session.slot_message(self.0.held.slot)
    }

    /// The extents of the table: (offset, bytes), within the arena.
    ///
    /// # Errors
    /// [`Error::RegionCorrupt`] if one lies outside the arena; [`Error::Stale`].
    pub fn extents(&self) -> Result<Vec<(u64, u64)>> {
        self.0.check()?;
        self.0.session.slot_extents(self.0.held.slot)
    }

    /// Whether its name still finds it.
    pub fn is_current(&self) -> bool {
        self.0.session.state_word(self.0.held.slot).is_ok_and(|word| {
            state::sequence(word) == self.0.held.sequence && crate::catalog::visible(word)
        })
    }

    /// Holds the content as well.
    ///
    /// # Errors
    /// [`Error::LeaseHeld`] while another updates the table, [`Error::Poisoned`],
    /// [`Error::Stale`].
    pub fn lease(&self) -> Result<Lease> {
        self.lease_for("")
    }

    /// The same, saying what for: [`Region::leases`] shows it (its first 48 bytes).
    ///
    /// # Errors
    /// As [`Pin::lease`].
    pub fn lease_for(&self, what: &str) -> Result<Lease> {
        let (session, held) = (&self.0.session, self.0.held);
        self.0.check()?;
        for _ in 0..1_000 {
            let seen = session.state_word(held.slot)?;
            if state::sequence(seen) != held.sequence {
                return Err(Error::Stale(format!("table {:?} was recycled", self.0.name)));
            }
            match state::state(seen) {
                Some(State::Published | State::Retired) => {
                    if session.hold(held.slot, Line::Leases, seen)? {
                        session.note(held.sequence, what);
                        return Ok(Lease::new(self.clone()));
                    }
                }
                Some(State::Poisoned) => {
                    return Err(Error::Poisoned { name: self.0.name.clone() });
                }
                Some(State::Leased | State::Writing) => {
                    return Err(Error::LeaseHeld {
                        name: self.0.name.clone(),
                        holder: "a process that is updating it".into(),
                    });
                }
                _ => {
                    return Err(Error::Stale(format!("table {:?} was recycled", self.0.name)));
                }
            }
        }
        Err(Error::Timeout { what: format!("table {:?} keeps changing its state", self.0.name) })
    }

    /// The region, as it was opened for this pin.
    pub fn region(&self) -> &Region {
        &self.0.region
    }

    /// The bounds-checked address of `len` bytes at `offset` in the read-only mapping, also after
    /// the region's handle was closed. Good while the pin lives.
    ///
    /// # Errors
    /// [`Error::RegionCorrupt`] for what does not lie in the arena.
    pub fn slice(&self, offset: u64, len: u64) -> Result<*const u8> {
        Ok(self.0.session.address(offset, len, false)?.cast_const())
    }
}

impl PinInner {
    fn check(&self) -> Result<()> {
        self.session.check_fork()?;
        if self.region.is_closed() { Err(self.region.closed()) } else { Ok(()) }
    }
}
