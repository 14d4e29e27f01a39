//! The handles of an update: who updates a table, and who has it exclusively.

use std::sync::OnceLock;
use std::time::Duration;

use crate::catalog::{Fate, Held};
use crate::error::{Error, Result};
use crate::pin::Pin;
use crate::pins::Line;
use crate::region::Part;
use crate::session::Deferred;
use crate::types::{HoldKind, Patience};
use crate::update::Asked;
use crate::wait::Waiting;
use crate::writer::{MOMENT, PATIENCE};

/// Why a table's memory cannot be written in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Another table, an older version that somebody still holds, or a result shares it.
    Shared,
    /// A process has the region open read-only, and reads without leases.
    ReadOnlyOpener,
    /// The last flush made it durable: until the next one it must stay as it is.
    Durable,
    /// Somebody reads the table.
    Leased,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shared => "another table or result shares its memory",
            Self::ReadOnlyOpener => "a process has the region open read-only",
            Self::Durable => "the last flush made its memory durable",
            Self::Leased => "others read it",
        })
    }
}

/// The right to update a table: one at a time has it, in all processes. Dropped, it goes to the
/// next. Readers are not disturbed by it.
pub struct Updater {
    word: Word,
    pin: Pin,
}

/// The updater's word, held. Given back when dropped, before the pin.
struct Word {
    pin: Pin,
    token: u64,
}

impl Drop for Word {
    fn drop(&mut self) {
        self.pin.0.session.end_update(self.pin.0.held.slot, self.token);
    }
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Updater").field(&self.pin).finish()
    }
}

impl Pin {
    /// Becomes the updater of the table that this handle sees now, waiting for others to end.
    /// What it updates is [`Updater::pin`]: the last version of the table.
    ///
    /// # Errors
    /// [`Error::Stale`] if the table was replaced or deleted, [`Error::Poisoned`],
    /// [`Error::LeaseHeld`] if another update lasts longer than the patience, or at once if it is
    /// this very thread's, [`Error::Cancelled`], [`Error::ReadOnly`].
    pub fn updater(&self, patience: &Patience<'_>) -> Result<Updater> {
        self.0.check()?;
        let session = &self.0.session;
        if session.read_only {
            return Err(Error::ReadOnly);
        }
        let mut waiting = Waiting::new(patience);
        let mut pin = self.clone();
        loop {
            let rung = session.rung()?;
            pin = pin.follow()?;
            let held = pin.0.held;
            let asked = session.ask_update(held, pin.name())?;
            let up = match asked {
                Asked::Taken => {
                    session.note(held.sequence, HoldKind::Update, patience.what);
                    let word = Word { pin: pin.clone(), token: session.token() };
                    return Ok(Updater { word, pin });
                }
                Asked::Superseded if pin.follow()?.0.held.sequence == held.sequence => {
                    return Err(Error::corrupt("a version of a table leads to no newer one", 0));
                }
                Asked::Superseded => continue,
                Asked::Busy => !waiting.sleep(session, rung)?,
                Asked::Mine => true,
            };
            if up {
                let holders = session.holders_here(held)?;
                return Err(Error::LeaseHeld { name: pin.name().into(), holders });
            }
        }
    }
}

impl Updater {
    /// The version of the table that is being updated.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    fn held(&self) -> Held {
        self.pin.0.held
    }

    /// Why these places, (offset, bytes) within the table's extents, cannot be written in place;
    /// `None` if they can. The answer holds for as long as it was asked under an [`Exclusive`];
    /// before, it says whether trying to get one makes sense.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for places outside the table, [`Error::RegionCorrupt`],
    /// [`Error::Stale`].
    pub fn obstacle(&self, places: &[(u64, u64)]) -> Result<Option<Obstacle>> {
        self.pin.0.check()?;
        let session = &self.pin.0.session;
        let extents = self.pin.extents()?;
        if session.leased(self.held().slot)? {
            return Ok(Some(Obstacle::Leased));
        }
        if session.has_readers()? {
            return Ok(Some(Obstacle::ReadOnlyOpener));
        }
        let mut owned = Vec::with_capacity(places.len());
        for &(offset, bytes) in places {
            owned.push(containing(&extents, offset, bytes).ok_or_else(outside)?);
        }
        if session.is_durable(&owned)? {
            return Ok(Some(Obstacle::Durable));
        }
        let writer = session.write()?;
        for (at, len) in owned {
            let owners = writer.owners(at, len);
            if writer.noting(owners)? != 1 {
                return Ok(Some(Obstacle::Shared));
            }
        }
        Ok(None)
    }

    /// Whether anybody else has a handle on this version of the table: another handle of this
    /// process (clones of one are one), or another process. A version that is swapped in has a part in
    /// this one's memory until they have moved on. The answer is about now: anybody may come.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::RegionCorrupt`].
    pub fn has_others(&self) -> Result<bool> {
        self.pin.0.check()?;
        self.pin.0.session.pinned_by_others(self.held().slot)
    }

    /// Takes the table exclusively: nobody else reads it until the result is dropped. Waits for
    /// readers to end; new ones wait meanwhile, a millisecond at a time.
    ///
    /// # Errors
    /// [`Error::LeaseHeld`] if the readers last longer than the patience, or at once if this
    /// process is one of them; [`Error::Stale`] if the table was replaced or deleted;
    /// [`Error::Cancelled`]. The updater comes back with it.
    // The error is large because it gives the updater back, which is the point of it.
    #[allow(clippy::result_large_err)]
    pub fn exclusive(self, patience: &Patience<'_>) -> Result<Exclusive, (Self, Error)> {
        match self.shut(patience) {
            Ok(()) => {
                let (pin, token) = (self.pin.clone(), self.word.token);
                let lease = Shut { pin, token, ended: false };
                Ok(Exclusive { lease, updater: self, extents: OnceLock::new() })
            }
            Err(e) => Err((self, e)),
        }
    }

    fn shut(&self, patience: &Patience<'_>) -> Result<()> {
        self.pin.0.check()?;
        let (session, held) = (&self.pin.0.session, self.held());
        let mut waiting = Waiting::new(patience);
        let mut last = false;
        loop {
            if session.shut(held, self.pin.name())? {
                session.note(held.sequence, HoldKind::Update, patience.what);
                return Ok(());
            }
            session.sweep_lessees(held.slot)?;
            let mut holders = session.holders(held)?;
            holders.retain(|holder| holder.kind != HoldKind::Update);
            let own = session.has_bit(held.slot, Line::Leases, session.index())?;
            if own || !waiting.pause()? {
                // They may have ended while they were looked at.
                if !holders.is_empty() || last {
                    return Err(Error::LeaseHeld { name: self.pin.name().into(), holders });
                }
                last = true;
            }
        }
    }

    /// Publishes the next version of the table and leads all handles of this one to it. Views
    /// keep the bytes they see. What the parts do not name of this version's memory, the next one
    /// has not.
    ///
    /// # Errors
    /// [`Error::Stale`] if the table was replaced or deleted meanwhile; those of
    /// [`crate::Region::publish`].
    pub fn swap(self, parts: &[Part<'_>], manifest: &[u8]) -> Result<Pin> {
        let (session, before) = (self.pin.0.session.clone(), self.held().sequence);
        let pin = self.commit(parts, manifest, Fate::Swap(self.held()))?;
        // The handle that goes on to it is as old as it was.
        session.note_on(before, pin.sequence(), HoldKind::Pin);
        Ok(pin)
    }

    /// Publishes the next revision of the table under its name; handles of this one stay on it.
    ///
    /// # Errors
    /// Those of [`Updater::swap`].
    pub fn revise(self, parts: &[Part<'_>], manifest: &[u8]) -> Result<Pin> {
        self.commit(parts, manifest, Fate::Revise(self.held()))
    }

    fn commit(&self, parts: &[Part<'_>], manifest: &[u8], fate: Fate) -> Result<Pin> {
        self.pin.0.check()?;
        self.pin.region().publish_as(self.pin.name(), parts, manifest, fate)
    }
}

/// A table that nobody else reads or writes. Dropped, it can be read again; if a change was begun
/// and not finished, it is poisoned. Both come a little later if somebody keeps the writer lock.
pub struct Exclusive {
    lease: Shut,
    updater: Updater,
    extents: OnceLock<Vec<(u64, u64)>>,
}

/// The exclusive lease. Given back when dropped, before the updater's word.
struct Shut {
    pin: Pin,
    token: u64,
    ended: bool,
}

impl Shut {
    fn end(&mut self, patience: Duration) {
        let inner = &self.pin.0;
        if std::mem::replace(&mut self.ended, true)
            || !inner.session.is_ours()
            || self.token != inner.session.token()
        {
            return;
        }
        if inner.session.reopen(inner.held, patience).is_err() {
            // The writer lock could not be had: whoever gets it next in this process does it, or who
            // wants the table, and finds that it is nobody's.
            inner.session.defer(Deferred::Reopen(inner.held));
        }
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        self.end(MOMENT);
    }
}

impl std::fmt::Debug for Exclusive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Exclusive").field(self.pin()).finish()
    }
}

impl Exclusive {
    /// The table.
    pub fn pin(&self) -> &Pin {
        &self.updater.pin
    }

    /// The updater that has it exclusively.
    pub fn updater(&self) -> &Updater {
        &self.updater
    }

    /// Says that it is as old as the lease that the same holder had on the version before: for
    /// people who ask who holds what.
    pub fn goes_on_from(&self, before: &Pin) {
        let session = &self.pin().0.session;
        session.note_on(before.sequence(), self.pin().sequence(), HoldKind::Exclusive);
    }

    /// Lets others read again, and stays the updater.
    pub fn into_updater(mut self) -> Updater {
        self.lease.end(PATIENCE);
        self.updater
    }

    /// Begins to change the content, and gives its new version. From here to [`Exclusive::finish`]
    /// a death of this process poisons the table.
    ///
    /// # Errors
    /// [`Error::Stale`] if the table was replaced or deleted, [`Error::InvalidArgument`] if a
    /// change was begun already.
    pub fn begin(&self) -> Result<u64> {
        let pin = self.pin();
        pin.0.check()?;
        pin.0.session.begin(pin.0.held, pin.name())
    }

    /// Says that the change is complete.
    ///
    /// # Errors
    /// [`Error::Stale`] if the table was replaced or deleted meanwhile (handles that still have it
    /// see the change), [`Error::InvalidArgument`] if none was begun.
    pub fn finish(&self) -> Result<()> {
        let pin = self.pin();
        pin.0.session.finish(pin.0.held, pin.name(), PATIENCE)
    }

    /// The same for destructors: waits for a moment only.
    ///
    /// # Errors
    /// Those of [`Exclusive::finish`], and [`Error::Timeout`]: the table is poisoned then when this is
    /// dropped, as if nobody had said so.
    pub fn finish_now(&self) -> Result<()> {
        let pin = self.pin();
        pin.0.session.finish(pin.0.held, pin.name(), MOMENT)
    }

    /// Whether a change was begun and not finished.
    pub fn is_changing(&self) -> bool {
        let pin = self.pin();
        pin.0.session.is_changing(pin.0.held)
    }

    /// The address of some bytes of the table in the read-write mapping; to be written between
    /// [`Exclusive::begin`] and [`Exclusive::finish`], where [`Updater::obstacle`] sees none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for bytes that are not the table's.
    pub fn as_mut_ptr(&self, offset: u64, len: u64) -> Result<*mut u8> {
        let pin = self.pin();
        let extents = match self.extents.get() {
            Some(extents) => extents,
            None => {
                let extents = pin.extents()?;
                self.extents.get_or_init(|| extents)
            }
        };
        if containing(extents, offset, len).is_none() {
            return Err(outside());
        }
        pin.0.session.address(offset, len, true)
    }
}

/// Which of sorted extents has these bytes.
fn containing(extents: &[(u64, u64)], offset: u64, len: u64) -> Option<(u64, u64)> {
    let end = offset.checked_add(len)?;
    let after = extents.partition_point(|(at, _)| *at <= offset);
    let &(at, bytes) = extents.get(after.checked_sub(1)?)?;
    (end <= at.checked_add(bytes)?).then_some((at, bytes))
}

#[cold]
fn outside() -> Error {
    Error::InvalidArgument("these bytes are not the table's".into())
}
