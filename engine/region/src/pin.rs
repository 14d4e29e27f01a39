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
use crate::types::{HoldKind, Holder, Pass, Patience};
use crate::update::recycled;
use crate::wait::Waiting;

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

    /// Where this very version is found as long as it is kept: see [`Region::revisit`].
    pub fn place(&self) -> (u32, u64) {
        (self.0.held.slot, self.0.held.sequence)
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

    /// Whether an update has swapped another version in its place; see [`Pin::follow`].
    pub fn is_superseded(&self) -> bool {
        let word = self.0.session.state_word(self.0.held.slot);
        word.is_ok_and(|word| word & state::SUPERSEDED != 0)
    }

    /// The version of the table that this handle sees now: the last that updates have swapped in
    /// its place, itself if there is none. After the table was replaced or deleted that is the
    /// last it had.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::Timeout`].
    pub fn follow(&self) -> Result<Self> {
        self.0.check()?;
        let inner = &self.0;
        if !self.is_superseded() {
            return Ok(self.clone());
        }
        let Some(held) = inner.session.follow(inner.held)? else { return Ok(self.clone()) };
        inner.session.note_on(inner.held.sequence, held.sequence, HoldKind::Pin);
        Ok(Self(Arc::new(PinInner {
            region: inner.region.clone(),
            session: inner.session.clone(),
            name: inner.name.clone(),
            held,
        })))
    }

    /// Whether an updater died as it changed the content in place, and nobody has accepted what it
    /// left.
    pub fn is_poisoned(&self) -> bool {
        let (session, held) = (&self.0.session, self.0.held);
        let ours = session.state_word(held.slot).is_ok_and(|w| state::sequence(w) == held.sequence);
        ours && session.is_broken(held.slot).unwrap_or(false)
    }

    /// The error that says who left the content half written, if anybody did.
    pub fn poison(&self) -> Option<Error> {
        self.is_poisoned().then(|| self.0.session.poisoned(self.0.held.slot, &self.0.name))
    }

    /// Accepts the content of a poisoned table as it is, as a new version of it. A table that is
    /// not poisoned stays as it is.
    ///
    /// # Errors
    /// [`Error::LeaseHeld`] while somebody updates it in place, [`Error::ReadOnly`],
    /// [`Error::Stale`], [`Error::Timeout`].
    pub fn repair(&self) -> Result<()> {
        let last = self.follow()?;
        last.0.session.repair(last.0.held, &last.0.name)
    }

    /// Holds the content as well. Waits up to ten seconds for an update in place to end.
    ///
    /// # Errors
    /// [`Error::LeaseHeld`] if the update lasts longer, or at once if it is this very thread's;
    /// [`Error::Poisoned`]; [`Error::Stale`].
    pub fn lease(&self) -> Result<Lease> {
        self.lease_for("")
    }

    /// The same, saying what for: [`Region::leases`] shows it (its first 48 bytes).
    ///
    /// # Errors
    /// As [`Pin::lease`].
    pub fn lease_for(&self, what: &str) -> Result<Lease> {
        self.lease_within(&Patience::reader(what))
    }

    /// The same for as long as something runs on the calling thread: a child that another thread
    /// forks meanwhile does not inherit it.
    ///
    /// # Errors
    /// As [`Pin::lease`].
    pub fn lease_while(&self, what: &str) -> Result<Lease> {
        self.lease_as(&Patience::reader(what), Line::Running)
    }

    /// As [`Pin::lease_for`], with a patience of the caller's.
    ///
    /// # Errors
    /// As [`Pin::lease`], and [`Error::Cancelled`].
    pub fn lease_within(&self, patience: &Patience<'_>) -> Result<Lease> {
        self.lease_as(patience, Line::Leases)
    }

    /// As [`Pin::lease_while`], with a patience of the caller's.
    ///
    /// # Errors
    /// As [`Pin::lease`], and [`Error::Cancelled`].
    pub fn lease_while_within(&self, patience: &Patience<'_>) -> Result<Lease> {
        self.lease_as(patience, Line::Running)
    }

    fn lease_as(&self, patience: &Patience<'_>, line: Line) -> Result<Lease> {
        self.0.check()?;
        let (session, held) = (&self.0.session, self.0.held);
        if !self.try_lease(line, patience.what)? {
            let mut waiting = Waiting::new(patience);
            loop {
                let rung = session.rung()?;
                if self.try_lease(line, patience.what)? {
                    break;
                }
                if session.updates_here(held.slot) || !waiting.sleep(session, rung)? {
                    // What is nobody's is not waited for, however little patience there is.
                    if !session.updates_here(held.slot) {
                        session.rescue(held.slot)?;
                        if self.try_lease(line, patience.what)? {
                            break;
                        }
                    }
                    let holders = session.holders_here(held)?;
                    let updates =
                        |h: &Holder| matches!(h.kind, HoldKind::Exclusive | HoldKind::Update);
                    let holders = holders.into_iter().filter(updates).collect();
                    return Err(Error::LeaseHeld { name: self.0.name.clone(), holders });
                }
                session.rescue(held.slot)?;
            }
        }
        Ok(Lease::new(self.clone(), line))
    }

    /// Holds the content unless it is being changed.
    pub(crate) fn try_lease(&self, line: Line, what: &str) -> Result<bool> {
        let (session, held) = (&self.0.session, self.0.held);
        for tries in 0..1_000 {
            let seen = session.state_word(held.slot)?;
            if state::sequence(seen) != held.sequence {
                return Err(recycled(&self.0.name));
            }
            match state::state(seen) {
                Some(State::Retired) if seen & state::TORN != 0 => {
                    if session.updater_of(held.slot)? != 0 && !session.sees_orphan(held.slot)? {
                        return Ok(false);
                    }
                    // Unless its updater has just finished it.
                    if session.state_word(held.slot)? == seen {
                        return Err(session.poisoned(held.slot, &self.0.name));
                    }
                }
                Some(State::Published | State::Retired) => {
                    if session.hold(held.slot, line, seen, what)? {
                        return Ok(true);
                    }
                }
                Some(State::Poisoned) => {
                    return Err(session.poisoned(held.slot, &self.0.name));
                }
                Some(State::Leased) if session.sees_orphan(held.slot)? => {
                    // Not written yet, and as long as a reader is there nobody begins anew.
                    if session.hold(held.slot, line, seen, what)? {
                        return Ok(true);
                    }
                }
                Some(State::Writing) if session.sees_orphan(held.slot)? => {
                    if session.state_word(held.slot)? == seen {
                        return Err(session.poisoned(held.slot, &self.0.name));
                    }
                }
                Some(State::Leased | State::Writing) => return Ok(false),
                // Who is about to free it finds it pinned, and leaves it as it was; or has died
                // over that, and the next writer does.
                Some(State::Reclaiming) if tries < 100 || session.read_only => {
                    std::thread::yield_now();
                }
                Some(State::Reclaiming) => drop(session.write()?),
                _ => return Err(recycled(&self.0.name)),
            }
        }
        Err(Error::Timeout { what: format!("table {:?} keeps changing its state", self.0.name) })
    }

    /// A lease while a table is published that shares this one's memory.
    pub(crate) fn share(&self) -> Result<Lease> {
        self.lease_while("sharing its memory")
    }

    /// Whether it is newer than what somebody has seen, and not being changed.
    pub(crate) fn is_newer(&self, than: Option<(u64, u64)>) -> Result<bool> {
        let Some(than) = than else { return Ok(true) };
        let word = self.0.session.state_word(self.0.held.slot)?;
        let still = state::state(word) != Some(State::Writing) && word & state::TORN == 0;
        Ok(still && (self.sequence(), self.content_version()) > than)
    }

    /// Makes a pass for this result, to be redeemed once by another process
    /// ([`Region::redeem`]). It is kept until all its passes were redeemed, or for
    /// [`crate::TICKET_GRACE`] after this process has left the region. `None`: it has had all the passes
    /// it can have, or another process has sent it; a new ticket that shares its memory can be
    /// sent.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Stale`], [`Error::Timeout`].
    pub fn issue(&self) -> Result<Option<Pass>> {
        self.0.check()?;
        let Held { slot, sequence } = self.0.held;
        let Some(number) = self.0.session.issue(slot)? else { return Ok(None) };
        self.0.session.note(sequence, HoldKind::Ticket, "sending");
        Ok(Some(Pass { slot, sequence, number }))
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
    pub(crate) fn check(&self) -> Result<()> {
        self.session.check_fork()?;
        if self.region.is_closed() { Err(self.region.closed()) } else { Ok(()) }
    }
}
