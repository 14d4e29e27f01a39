//! Waiting for what other processes do, on one futex in the header: its number rises with every
//! publish and delete, and with every end of an update.
//!
//! Nobody relies on being woken: who waits looks again after a while, asks whether it is still
//! wanted, and whether who it waits for still lives.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::thread::futex;

use crate::error::{Error, Result};
use crate::layout::header;
use crate::session::Session;
use crate::types::Patience;

/// The first sleep, and the longest: what a death or an interruption takes to be noticed.
const FIRST_SLICE: Duration = Duration::from_millis(1);
const LAST_SLICE: Duration = Duration::from_millis(20);

/// A wait under way.
pub(crate) struct Waiting<'a> {
    patience: &'a Patience<'a>,
    /// `None`: further away than time is counted.
    deadline: Option<Instant>,
    slice: Duration,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(patience: &'a Patience<'a>) -> Self {
        let deadline = Instant::now().checked_add(patience.timeout);
        Self { patience, deadline, slice: FIRST_SLICE }
    }

    /// How long the next sleep may be; `None` when the time is up.
    fn next(&mut self) -> Result<Option<Duration>> {
        if (self.patience.interrupt)() {
            return Err(Error::Cancelled);
        }
        let mut slice = self.slice;
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            slice = slice.min(left);
        }
        self.slice = (self.slice * 2).min(LAST_SLICE);
        Ok(Some(slice))
    }

    /// Sleeps until the futex's number is no longer `seen`, or for a while; `false` when the time
    /// is up.
    pub(crate) fn sleep(&mut self, session: &Session, seen: u32) -> Result<bool> {
        let Some(slice) = self.next()? else { return Ok(false) };
        let word = session.bytes.half(header::PUBLISHES)?;
        let span = futex::Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
        // A wake-up, a time-out or a changed number: all mean "look again".
        let _ = futex::wait(word, futex::Flags::empty(), seen, Some(&span));
        Ok(true)
    }

    /// Sleeps for a while, whatever others do; `false` when the time is up.
    pub(crate) fn pause(&mut self) -> Result<bool> {
        let Some(slice) = self.next()? else { return Ok(false) };
        std::thread::sleep(slice);
        Ok(true)
    }
}

impl Session {
    /// The futex's number, to be read before what is waited for is looked at.
    pub(crate) fn rung(&self) -> Result<u32> {
        Ok(self.bytes.half(header::PUBLISHES)?.load(Ordering::SeqCst))
    }

    /// Wakes who waits for a table, or for the end of an update.
    pub(crate) fn ring(&self) -> Result<()> {
        let word = self.bytes.half(header::PUBLISHES)?;
        word.fetch_add(1, Ordering::SeqCst);
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
        Ok(())
    }
}
