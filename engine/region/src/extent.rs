//! Memory that a session owns: to be filled, and to be shared by tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arena::Raw;
use crate::error::Result;
use crate::region::Region;
use crate::session::{self, Session};

/// The next extent's number: not given twice in a process and those it was forked from.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Memory of this session, for its holder alone until a table that shares it is published.
/// Freed when dropped.
pub struct Extent {
    pub(crate) raw: Raw,
    pub(crate) session: Arc<Session>,
    writable: *mut u8,
    exported: *const u8,
    region: Region,
    id: u64,
    /// The process that took it.
    generation: u64,
    kept: AtomicBool,
}

// SAFETY: the addresses stay mapped while `session` lives, and name memory that no other extent
// of any process has; writing through them is the holder's business, with raw pointers.
unsafe impl Send for Extent {}
// SAFETY: as above; a shared reference gives out addresses only.
unsafe impl Sync for Extent {}

impl std::fmt::Debug for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extent")
            .field("offset", &self.raw.offset)
            .field("len", &self.raw.bytes)
            .finish_non_exhaustive()
    }
}

impl Extent {
    /// For memory that the session has just allocated.
    pub(crate) fn new(region: Region, session: Arc<Session>, raw: Raw) -> Result<Self> {
        let at = |writable| session.address(raw.offset, raw.bytes, writable);
        match (at(true), at(false)) {
            (Ok(writable), Ok(exported)) => Ok(Self {
                raw,
                writable,
                exported: exported.cast_const(),
                region,
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                generation: session.generation(),
                kept: AtomicBool::new(false),
                session,
            }),
            (Err(e), _) | (_, Err(e)) => {
                session.free(raw);
                Err(e)
            }
        }
    }

    /// Where it begins, in bytes from the region's start; a multiple of 64.
    pub fn offset(&self) -> u64 {
        self.raw.offset
    }

    /// Its size in bytes: what was asked for, rounded up to 64.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u64 {
        self.raw.bytes
    }

    /// Its address in the read-write mapping.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.writable
    }

    /// Its address in the read-only mapping: for what is exported.
    pub fn as_ptr(&self) -> *const u8 {
        self.exported
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// From now on a child that this process forks gets a share in it. For what is done and can be
    /// reached by the program; what one thread is still working on would be kept by every child
    /// that another thread happens to fork, and given back by none.
    pub fn keep(&self) {
        if !self.kept.swap(true, Ordering::AcqRel) && self.generation == self.session.generation() {
            self.session.kept.lock().insert(self.id, self.raw);
        }
    }

    /// Refuses what a forked child inherited without a share in it.
    pub(crate) fn check(&self) -> Result<()> {
        self.session.check_fork()?;
        let own = self.generation == self.session.generation();
        if own || self.session.kept.lock().contains_key(&self.id) {
            return Ok(());
        }
        Err(session::forked())
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        if !self.session.is_ours() {
            return;
        }
        // A forked child's share has a record of its own.
        let kept =
            if *self.kept.get_mut() { self.session.kept.lock().remove(&self.id) } else { None };
        match kept {
            Some(raw) => self.session.free(raw),
            None if self.generation == self.session.generation() => self.session.free(self.raw),
            None => {}
        }
    }
}
