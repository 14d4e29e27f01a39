//! Giving a forked child sessions of its own, with a share in all that the parent's hold.
//!
//! A child that has views must keep their memory whatever the parent does, from its first moment
//! on. So the parent, before it forks, opens a session for the child in each region that it holds
//! something of: a description of its own with its own lock byte, and in the region the same bits
//! and records as the parent's session has. The fork copies the descriptor; the parent then closes
//! its copy, and the lock is the child's alone. In the child the same `Session` object becomes that
//! session, so that every handle on it goes on working, and gives back the child's share when it is
//! dropped. What only a running operation of another thread holds is not passed on: that thread does
//! not exist in the child.
//!
//! A fork never fails for this, nor waits long: a session that cannot be opened in time (all slots
//! taken, no room, a stopped process in the writer lock) is not passed on, and the child's handles
//! on it are `Stale`. Nor is one opened where nothing is held: the child joins on first use.
//!
//! Nor are open windows passed on: what the child stores there is its own (see `window`).
//!
//! A parent killed half-way leaves what every killed process leaves: a session slot whose lock is
//! free, with bits and records, to be swept. So its incarnation is stored first.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::arena::Raw;
use crate::descriptor::reopen;
use crate::error::{Error, Result};
use crate::layout::{LOCK_BASE, LOCK_READERS, SESSIONS, header, session as field};
use crate::lock;
use crate::pins::Hold;
use crate::records::Records;
use crate::session::{self, Session};
use crate::writer::Writer;
use crate::{fork, kill, registry, window};

/// How long a fork may be held up, in all.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a fork passes on; made before it, in the thread that forks.
pub(crate) struct Handover {
    /// The registry and what is kept of each session stay locked until after the fork.
    registry: bool,
    /// So do the open windows.
    windows: bool,
    sessions: Vec<Opened>,
}

/// A session opened for the child.
struct Opened {
    session: Arc<Session>,
    description: OwnedFd,
    /// `None` for sessions that only read: their lock is all they have.
    seat: Option<Seat>,
}

/// A session slot filled for the child.
struct Seat {
    index: u32,
    token: u64,
    records: Records,
    kept: HashMap<u64, Raw>,
}

impl Handover {
    /// Opens the child's sessions.
    pub(crate) fn prepare() -> Self {
        let deadline = Instant::now() + PATIENCE;
        let mut ready = Self { registry: false, windows: false, sessions: Vec::new() };
        let Some(known) = registry::try_lock_for(PATIENCE) else {
            ready.windows = window::keep_for(PATIENCE);
            return ready;
        };
        let ours = known.iter().filter_map(|(_, session)| session.upgrade());
        let ours: Vec<_> = ours.filter(|session| session.is_ours()).collect();
        for session in ours {
            match open(&session, deadline) {
                Ok(Some((description, seat))) => {
                    fork::remember(description.as_fd());
                    ready.sessions.push(Opened { session, description, seat });
                }
                Ok(None) => {}
                // The child is told when it asks.
                Err(_) => {}
            }
        }
        known.keep();
        ready.registry = true;
        ready.windows = window::keep_for(PATIENCE);
        kill::point("fork: all ready");
        ready
    }

    /// The descriptors that become the child's.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.sessions.iter().map(|opened| opened.description.as_raw_fd())
    }

    /// After the fork, or after its failure: then the sessions are corpses, to be swept.
    pub(crate) fn end_in_parent(self) {
        for opened in &self.sessions {
            fork::forget(opened.description.as_raw_fd());
            if opened.seat.is_some() {
                // SAFETY: kept by `open`, in this thread.
                unsafe {
                    opened.session.kept.unlock_kept();
                    opened.session.holds.unlock_kept();
                }
            }
        }
        if self.registry {
            // SAFETY: kept by `prepare`, in this thread.
            unsafe { registry::unlock_kept() };
        }
        if self.windows {
            // SAFETY: kept by `prepare`, in this thread.
            unsafe { window::let_go() };
        }
        // Dropped here: the parent's copies of the descriptions, never unlocked.
    }

    /// Takes possession. No other thread exists yet.
    pub(crate) fn begin_in_child(self) {
        kill::point("fork: in the child");
        if self.windows {
            // SAFETY: kept by `prepare`, in the thread whose copy this is.
            unsafe { window::make_private() };
        }
        let mut sessions = Vec::with_capacity(self.sessions.len());
        for Opened { session, description, seat } in self.sessions {
            session.lock.adopt(description);
            match seat {
                Some(seat) => take_seat(&session, seat),
                None => session.become_childs(0, 0),
            }
            kill::point("fork: session taken");
            sessions.push(session);
        }
        if self.registry {
            // SAFETY: kept by `prepare`, in the thread whose copy this is.
            unsafe { registry::unlock_kept() };
        }
        // Dropped only now: one may be the last handle, and leave its region.
        drop(sessions);
    }
}

/// Opens the child's session in one region. `None`: nothing is held there.
fn open(session: &Session, deadline: Instant) -> Result<Option<(OwnedFd, Option<Seat>)>> {
    let io = |e| Error::io("opening a session for a forked child", e);
    let left = || deadline.saturating_duration_since(Instant::now());
    let late = || Error::Timeout { what: "a fork does not wait longer".into() };
    if session.read_only {
        let description = reopen(session.backing.fd()?, false).map_err(io)?;
        // Writers hold the byte only while they recycle.
        while !lock::try_lock_shared(description.as_fd(), LOCK_READERS).map_err(io)? {
            if left().is_zero() {
                return Err(late());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        return Ok(Some((description, None)));
    }
    let holds_nothing = || {
        let holds = session.holds.try_lock_for(left())?;
        let kept = session.kept.try_lock_for(left())?;
        Some(holds.is_empty() && kept.is_empty())
    };
    if holds_nothing().ok_or_else(late)? {
        return Ok(None);
    }
    let description = reopen(session.backing.fd()?, true).map_err(io)?;
    let mut writer = session.write_within(left())?;
    let holds = session.holds.try_lock_for(left()).ok_or_else(late)?;
    let kept = session.kept.try_lock_for(left()).ok_or_else(late)?;
    let seated = writer.seat(description.as_fd(), &holds, &kept);
    let seat = writer.noting(seated)?;
    // What is passed on must be what is there at the fork.
    kept.keep();
    holds.keep();
    Ok(Some((description, Some(seat))))
}

impl Writer<'_> {
    /// Fills a session slot for the child, whose description is `fd`.
    fn seat(
        &mut self,
        fd: BorrowedFd<'_>,
        holds: &FxHashMap<u32, Hold>,
        kept: &HashMap<u64, Raw>,
    ) -> Result<Seat> {
        let index = self.vacancy(fd)?;
        kill::point("fork: slot locked");
        let seat = self.fill(index, holds, kept);
        // Without a page, for which there was no room, there is nothing to sweep, nor to touch.
        if seat.is_err() && index < self.s.sessions_high() {
            self.sweep_session(index)?;
        }
        seat
    }

    /// Locks the byte of a session slot that nobody has; of a corpse's only if there is no other.
    fn vacancy(&mut self, fd: BorrowedFd<'_>) -> Result<u32> {
        let s = self.s;
        let io = |e| Error::io("locking a session for a forked child", e);
        for corpses in [false, true] {
            for index in 0..if corpses { s.sessions_high() } else { SESSIONS } {
                let incarnation = s.bytes.word(s.layout.session(index) + field::INCARNATION)?;
                // Pages above the mark were never touched, and must not be.
                let taken =
                    |index| index < s.sessions_high() && incarnation.load(Ordering::Acquire) != 0;
                if taken(index) != corpses
                    || !lock::try_lock(fd, LOCK_BASE + u64::from(index), 1).map_err(io)?
                {
                    continue;
                }
                if taken(index) {
                    self.sweep_session(index)?;
                }
                return Ok(index);
            }
        }
        Err(Error::SessionLimit { limit: SESSIONS })
    }

    fn fill(
        &mut self,
        index: u32,
        holds: &FxHashMap<u32, Hold>,
        kept: &HashMap<u64, Raw>,
    ) -> Result<Seat> {
        let s = self.s;
        let (own, page) = (s.layout.session(s.index()), s.layout.session(index));
        let incarnation = s.incarnate(index)?;
        s.bytes.word(header::SESSIONS_HIGH)?.fetch_max(u64::from(index) + 1, Ordering::AcqRel);
        // The parent's, until the child writes its own.
        for at in [field::PID, field::PID + 4, field::START, field::START + 4] {
            let value = s.bytes.half(own + at)?.load(Ordering::Relaxed);
            s.bytes.half(page + at)?.store(value, Ordering::Relaxed);
        }
        let notes = s.bytes.read(own + field::LOG, field::LOG_ENTRIES * field::LOG_BYTES)?;
        s.bytes.write(page + field::LOG, &notes)?;
        // First of all: if we die, this is what shows that there is something to sweep.
        s.bytes.word(page + field::INCARNATION)?.store(incarnation, Ordering::Release);
        kill::point("fork: slot taken");
        for (&slot, hold) in holds {
            // Our own bits are set, and stay so: the state need not be looked at again.
            for line in hold.passed_on() {
                s.set_bit(slot, line, index)?;
                kill::point("fork: bit set");
            }
        }
        fence(Ordering::SeqCst);
        let mut records = Records::default();
        records.clear(page);
        std::mem::swap(&mut *self.local, &mut records);
        let recorded = self.record_again(kept);
        std::mem::swap(&mut *self.local, &mut records);
        Ok(Seat { index, token: session::token(incarnation, index), records, kept: recorded? })
    }

    /// Records the extents once more, in the records that are in place now.
    fn record_again(&mut self, kept: &HashMap<u64, Raw>) -> Result<HashMap<u64, Raw>> {
        let mut again = HashMap::with_capacity(kept.len());
        for (&id, &raw) in kept {
            self.ensure_record()?;
            self.add_owner(raw.offset, raw.bytes)?;
            kill::point("fork: owner counted");
            let record = self.record(raw.offset, raw.bytes)?;
            kill::point("fork: extent recorded");
            again.insert(id, Raw { record, ..raw });
        }
        Ok(again)
    }
}

/// Makes the session the child's own.
fn take_seat(session: &Session, seat: Seat) {
    let page = session.layout.session(seat.index);
    // SAFETY: no other thread exists, and what is replaced is the parent's: records that another
    // thread may have been changing, and updates and other work that are the parent's to do.
    unsafe {
        session.local.begin_anew(seat.records);
        session.updates.begin_anew(HashMap::new());
        session.deferred.begin_anew(Vec::new());
    }
    session.has_deferred.store(false, Ordering::Relaxed);
    session.has_issued.store(false, Ordering::Relaxed);
    session.become_childs(seat.index, seat.token);
    // SAFETY: kept by `open`, in the thread whose copy this is.
    unsafe {
        session.holds.kept().retain(|_, hold| hold.pass_on());
        *session.kept.kept() = seat.kept;
        session.kept.unlock_kept();
        session.holds.unlock_kept();
    }
    if let (Ok(pid), Ok(start)) =
        (session.bytes.half(page + field::PID), session.bytes.word(page + field::START))
    {
        pid.store(std::process::id(), Ordering::Relaxed);
        start.store(session::start_time(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
