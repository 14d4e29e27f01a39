//! A process's presence in a region: its slot, its lock byte, its mappings.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::access::Bytes;
use crate::arena::Raw;
use crate::backing::{self, Backing};
use crate::catalog::Held;
use crate::checkpoint::Durable;
use crate::descriptor::Identity;
use crate::error::{Error, FullCause, Result};
use crate::fork;
use crate::kill;
use crate::layout::{
    LOCK_BASE, LOCK_READERS, Layout, MAGIC, PAGE, SESSIONS, header, session as field, slot,
};
use crate::lock::LockFile;
use crate::mapping::Mapping;
use crate::mutex::ForkMutex;
use crate::pins::Hold;
use crate::records::Records;
use crate::registry::Key;
use crate::reserve::{Failure, Ground};
use crate::roots::Root;
use crate::types::Location;
use crate::writer::MOMENT;

/// How long to wait for who holds all lock bytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest incarnation that the writer lock's word has room for, beside slot and waiters' bit.
const LAST_INCARNATION: u64 = u64::MAX >> 10;

/// Work that a destructor could not do at once, because the writer lock was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deferred {
    /// Free an extent.
    Extent(Raw),
    /// Give up what an extent has beyond so many bytes.
    Shorter { raw: Raw, bytes: u64 },
    /// Free a retired slot if nobody holds it.
    Slot(u32),
    /// End an exclusive lease.
    Reopen(Held),
}

/// One process's session in one region. Dropped with its last handle, extent and pin. In a forked
/// child the same object becomes the child's session, if the fork passed one on (see `handover`).
pub(crate) struct Session {
    /// The bytes for reading metadata, and for writing when `read_only` is false.
    pub(crate) bytes: Bytes,
    pub(crate) layout: Layout,
    pub(crate) id: u128,
    pub(crate) read_only: bool,
    pub(crate) key: Key,
    index: AtomicU32,
    token: AtomicU64,
    /// The process that it belongs to.
    generation: AtomicU64,
    pub(crate) lock: LockFile,
    pub(crate) backing: Arc<dyn Backing>,
    /// Excludes this process's threads from each other; guards what only writers use.
    pub(crate) local: ForkMutex<Records>,
    /// By slot. Every pin and lease goes through it, and slots are small numbers that nobody could
    /// choose to make it slow: a quick hash will do.
    pub(crate) holds: ForkMutex<FxHashMap<u32, Hold>>,
    /// The extents that a fork passes on, by their objects' numbers, and their records.
    pub(crate) kept: ForkMutex<HashMap<u64, Raw>>,
    /// Which thread of this process updates the table in a slot.
    pub(crate) updates: ForkMutex<HashMap<u32, ThreadId>>,
    /// Whether passes were issued that may be outstanding.
    pub(crate) has_issued: AtomicBool,
    pub(crate) deferred: ForkMutex<Vec<Deferred>>,
    pub(crate) has_deferred: AtomicBool,
    /// The generation whose thread flushes, or 0: one left by the parent of a fork counts as none.
    pub(crate) flushing: AtomicU64,
    pub(crate) durable: ForkMutex<Durable>,
    /// What the layer above keeps for as long as the session lasts.
    pub(crate) beside: ForkMutex<Option<Arc<dyn Any + Send + Sync>>>,
    exported: Arc<Mapping>,
    writable: Option<Arc<Mapping>>,
}

/// What tells the region behind a backing apart.
pub(crate) fn key(backing: &dyn Backing, read_only: bool) -> Result<Key> {
    let file = Identity::of(backing.fd()?)
        .map_err(|e| Error::io(format!("opening region {}", backing.describe()), e))?;
    Ok(Key { file, read_only })
}

/// Reads and checks the header of what a backing holds, without mapping it.
pub(crate) fn read_header(backing: &dyn Backing) -> Result<(Layout, u128)> {
    let bytes = backing::file_bytes(backing.fd()?)?;
    if bytes == 0 {
        return Err(Error::corrupt(format!("{} is empty", backing.describe()), 0));
    }
    Layout::decode(&backing::head(backing.fd()?, 160)?, bytes).map_err(|e| match e {
        // Another file altogether: which, is what its user asks.
        Error::RegionCorrupt { what, offset: header::MAGIC } => {
            Error::corrupt(format!("{}: {what}", backing.describe()), header::MAGIC)
        }
        e => e,
    })
}

/// This boot's identity.
pub(crate) fn boot_id() -> u128 {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
        .unwrap_or(0)
}

impl Session {
    /// Whether what the region says of sessions and tables was written since the system started.
    /// Shared memory cannot have been written before; and there the identity may not be readable.
    pub(crate) fn same_boot(&self) -> Result<bool> {
        if self.backing.collapses() {
            return Ok(true);
        }
        let low = self.bytes.word(header::BOOT_ID)?.load(Ordering::Acquire);
        let high = self.bytes.word(header::BOOT_ID + 8)?.load(Ordering::Acquire);
        Ok(u128::from(high) << 64 | u128::from(low) == boot_id())
    }
}

/// When this process started, in clock ticks since boot.
pub(crate) fn start_time() -> u64 {
    // The command's name, in parentheses, may hold anything; fields are counted after it.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

impl Session {
    /// Initialises a created region and opens the first session in it. Nobody else can see it.
    pub(crate) fn found(
        backing: Arc<dyn Backing>,
        layout: Layout,
        id: u128,
        ephemeral: bool,
    ) -> Result<Self> {
        let session = Self::map(backing, layout, id, false)?;
        // Before it is there nothing of it may be read, not even to know how many share it.
        let header = session.ground_for(1).reserve_small(0, header::BYTES);
        header.map_err(|e| session.refusal(e, header::BYTES, 0))?;
        let bytes = &session.bytes;
        kill::point("create: header reserved");
        bytes.write(8, layout.encode(id).get(8..).unwrap_or_default())?;
        bytes.write(header::BOOT_ID, &boot_id().to_le_bytes())?;
        let flags = if ephemeral { header::FLAG_EPHEMERAL } else { 0 };
        bytes.word(header::FLAGS)?.store(flags, Ordering::Relaxed);
        bytes.word(header::EPOCH)?.store(1, Ordering::Relaxed);
        bytes.word(header::INDEX_LOG2)?.store(crate::layout::INDEX_MIN_LOG2, Ordering::Relaxed);
        session.reserve_metadata(layout.index, 8 << crate::layout::INDEX_MIN_LOG2)?;
        let known = crate::layout::known_bytes(layout.granule_count);
        session.reserve_metadata(layout.known_bits, known)?;
        session.reserve_metadata(layout.slots, u64::from(slot::HIDDEN) * slot::BYTES)?;
        bytes.word(header::SLOTS_HIGH)?.store(u64::from(slot::HIDDEN), Ordering::Relaxed);
        if session.backing.is_durable() {
            session.write_root(&Root::default())?;
        }
        kill::point("create: header written");
        bytes.word(header::MAGIC)?.store(MAGIC, Ordering::Release);
        kill::point("create: complete");
        session.join()
    }

    /// Opens a session in an existing region.
    pub(crate) fn open(backing: Arc<dyn Backing>, read_only: bool) -> Result<Self> {
        let (layout, id) = read_header(backing.as_ref())?;
        let session = Self::map(backing, layout, id, read_only)?;
        let session = if read_only { session.join_read_only()? } else { session.join()? };
        let flags = session.bytes.word(header::FLAGS)?.load(Ordering::Acquire);
        if flags & header::FLAG_REMOVED != 0 && session.backing.handed_on().is_none() {
            return Err(Error::RegionNotFound { region: session.backing.describe() });
        }
        Ok(session)
    }

    /// A session of this process in the region of one that is not: a forked child's, whose parent
    /// passed nothing on. The mappings are inherited.
    pub(crate) fn again(old: &Self) -> Result<Self> {
        let session = Self::with(
            old.backing.clone(),
            old.layout,
            old.id,
            old.exported.clone(),
            old.writable.clone(),
        )?;
        if old.read_only { session.join_read_only() } else { session.join() }
    }

    fn map(backing: Arc<dyn Backing>, layout: Layout, id: u128, read_only: bool) -> Result<Self> {
        let exported = Arc::new(backing.map(layout.span, false)?);
        let writable =
            if read_only { None } else { Some(Arc::new(backing.map(layout.span, true)?)) };
        Self::with(backing, layout, id, exported, writable)
    }

    fn with(
        backing: Arc<dyn Backing>,
        layout: Layout,
        id: u128,
        exported: Arc<Mapping>,
        writable: Option<Arc<Mapping>>,
    ) -> Result<Self> {
        let read_only = writable.is_none();
        let base = writable.as_ref().map_or(exported.base(), |mapping| mapping.base());
        // SAFETY: the mapping spans `layout.span` bytes, is page-aligned and lives as long as
        // the session; with `read_only` nothing stores through it (`write` refuses).
        let bytes = unsafe { Bytes::new(base, layout.span) };
        let lock = LockFile::of(backing.clone(), !read_only)
            .map_err(|e| Error::io(format!("locking region {}", backing.describe()), e))?;
        Ok(Self {
            key: key(backing.as_ref(), read_only)?,
            bytes,
            layout,
            id,
            read_only,
            index: AtomicU32::new(0),
            token: AtomicU64::new(0),
            generation: AtomicU64::new(fork::generation()),
            lock,
            backing,
            local: ForkMutex::default(),
            holds: ForkMutex::default(),
            kept: ForkMutex::default(),
            updates: ForkMutex::default(),
            has_issued: AtomicBool::new(false),
            deferred: ForkMutex::default(),
            has_deferred: AtomicBool::new(false),
            flushing: AtomicU64::new(0),
            durable: ForkMutex::default(),
            beside: ForkMutex::default(),
            exported,
            writable,
        })
    }

    fn locking(&self, err: std::io::Error) -> Error {
        Error::io(format!("locking region {}", self.backing.describe()), err)
    }

    fn join_read_only(self) -> Result<Self> {
        // Writers hold the byte only while they recycle.
        for _ in 0..10_000 {
            if self.lock.try_lock_shared(LOCK_READERS).map_err(|e| self.locking(e))? {
                return if self.same_boot()? {
                    Ok(self)
                } else {
                    Err(Error::Unsupported(format!(
                        "region {} was last used before the system started, and its tables are \
                         not to be believed; open it for writing, which recovers it",
                        self.backing.describe()
                    )))
                };
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err(Error::Timeout { what: "a writer has been recycling memory for 10 seconds".into() })
    }

    fn join(self) -> Result<Self> {
        let all = u64::from(SESSIONS);
        let deadline = Instant::now() + PATIENCE;
        let first = loop {
            if self.lock.try_lock(LOCK_BASE, all).map_err(|e| self.locking(e))? {
                break true;
            }
            // Who recovers or removes a region holds all lock bytes for a moment. If it dies over
            // that, or cannot, a byte comes free of a region that nobody has recovered: then it
            // takes all of them to join.
            let recovered = self.same_boot()?;
            if recovered && let Some(index) = self.free_slot()? {
                self.index.store(index, Ordering::Relaxed);
                break false;
            }
            let one = self.lock.held_by_one(LOCK_BASE, all).map_err(|e| self.locking(e))?;
            if recovered && !one {
                return Err(Error::SessionLimit { limit: SESSIONS });
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    what: format!(
                        "another process has been recovering or removing region {} for {} seconds",
                        self.backing.describe(),
                        PATIENCE.as_secs()
                    ),
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        kill::point("join: locked");
        self.self_test()?;
        let index = self.index();
        let page = self.layout.session(index);
        let incarnation = self.incarnate(index)?;
        // From here on leaving touches the page.
        self.token.store(token(incarnation, index), Ordering::Relaxed);
        self.bytes.word(header::SESSIONS_HIGH)?.fetch_max(u64::from(index) + 1, Ordering::AcqRel);
        kill::point("join: page counted");
        if first {
            if let Err(e) = self.recover_alone() {
                // Left as it was found: leaving would believe what is there, and change it.
                self.token.store(0, Ordering::Relaxed);
                return Err(e);
            }
            // Keep our own byte only.
            let _ = self.lock.unlock(LOCK_BASE + 1, all - 1);
        } else if self.bytes.word(page + field::INCARNATION)?.load(Ordering::Acquire) != 0
            || self.corpse_writes()?
        {
            // The slot is a corpse's, and its byte is ours now: nobody else can take from it what
            // it held, the writer lock included.
            let mut writer = self.write()?;
            writer.sweep_session(index)?;
        }
        kill::point("join: slot clean");
        self.local.lock().clear(page);
        self.bytes.half(page + field::PID)?.store(std::process::id(), Ordering::Relaxed);
        self.bytes.word(page + field::START)?.store(start_time(), Ordering::Relaxed);
        kill::point("join: described");
        self.bytes.word(page + field::INCARNATION)?.store(incarnation, Ordering::Release);
        kill::point("join: joined");
        Ok(self)
    }

    /// Reserves the page of session slot `index`, and draws an incarnation for its next session.
    pub(crate) fn incarnate(&self, index: u32) -> Result<u64> {
        // All pages below the mark must be there, also those of slower joiners.
        let from = self.layout.session(self.sessions_high().min(index));
        self.reserve_metadata(from, self.layout.session(index) + field::BYTES - from)?;
        kill::point("join: page reserved");
        let drawn = self.bytes.word(header::INCARNATION)?.fetch_add(1, Ordering::AcqRel);
        kill::point("join: numbered");
        let incarnation = drawn.saturating_add(1);
        if incarnation > LAST_INCARNATION {
            return Err(Error::corrupt("the incarnations are used up", header::INCARNATION));
        }
        Ok(incarnation)
    }

    /// Becomes the session of this process, a forked child, that was opened for it.
    pub(crate) fn become_childs(&self, index: u32, token: u64) {
        self.index.store(index, Ordering::Relaxed);
        self.token.store(token, Ordering::Relaxed);
        self.generation.store(fork::generation(), Ordering::Release);
    }

    /// The session slot.
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    /// What the writer lock holds while it is ours: incarnation and slot.
    #[inline]
    pub(crate) fn token(&self) -> u64 {
        self.token.load(Ordering::Relaxed)
    }

    /// Whether the writer lock was left behind under our slot. We have not taken it yet.
    fn corpse_writes(&self) -> Result<bool> {
        let word = self.bytes.word(header::WRITER)?.load(Ordering::Acquire);
        Ok(word != 0 && word >> 1 & 0x1ff == u64::from(self.index()))
    }

    fn free_slot(&self) -> Result<Option<u32>> {
        for index in 0..SESSIONS {
            let byte = LOCK_BASE + u64::from(index);
            if self.lock.try_lock(byte, 1).map_err(|e| self.locking(e))? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Some file systems accept locks and exclude nobody.
    fn self_test(&self) -> Result<()> {
        let other = LockFile::reopen(self.backing.fd()?, true).map_err(|e| self.locking(e))?;
        let byte = LOCK_BASE + u64::from(self.index());
        if other.try_lock(byte, 1).map_err(|e| self.locking(e))? {
            return Err(Error::Unsupported(format!(
                "locks on {} exclude nobody; use a local file system",
                self.backing.describe()
            )));
        }
        Ok(())
    }

    /// Refuses what a forked child inherited without a session of its own.
    #[inline]
    pub(crate) fn check_fork(&self) -> Result<()> {
        if self.is_ours() { Ok(()) } else { Err(forked()) }
    }

    /// Whether the session is this process's.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        fork::generation() == self.generation()
    }

    /// The process that it belongs to, as forks count them.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The bounds-checked address of `len` bytes at `offset` of the arena: read-only, or for
    /// writing.
    pub(crate) fn address(&self, offset: u64, len: u64, writable: bool) -> Result<*mut u8> {
        if !self.layout.in_arena(offset, len) {
            return Err(Error::corrupt("a buffer lies outside the arena", offset));
        }
        let mapping = match (&self.writable, writable) {
            (Some(mapping), true) => mapping,
            (None, true) => return Err(Error::ReadOnly),
            (_, false) => &self.exported,
        };
        debug_assert!(mapping.bytes() as u64 >= self.layout.span);
        // SAFETY: the arena lies within the span, which the mapping covers.
        Ok(unsafe { mapping.base().add(offset as usize) })
    }

    /// What the reserving code works on.
    pub(crate) fn ground(&self) -> Ground<'_> {
        self.ground_for(self.living())
    }

    fn ground_for(&self, peers: u64) -> Ground<'_> {
        Ground {
            base: self.writable.as_ref().map_or(std::ptr::null_mut(), |mapping| mapping.base()),
            file: self.backing.as_ref(),
            collapses: self.backing.collapses(),
            peers,
        }
    }

    /// How many sessions there are, as far as their pages say.
    fn living(&self) -> u64 {
        let lives = |index: &u32| self.incarnation_in(*index).is_ok_and(|found| found != 0);
        (0..self.sessions_high()).filter(lives).count() as u64
    }

    /// Reserves the pages of some metadata before its first use.
    pub(crate) fn reserve_metadata(&self, offset: u64, len: u64) -> Result<()> {
        let start = offset / PAGE * PAGE;
        let end = (offset + len).next_multiple_of(PAGE);
        self.ground().reserve_small(start, end - start).map_err(|e| self.full(e, len))
    }

    /// The public error for a failed reservation of `needed` bytes.
    pub(crate) fn full(&self, failure: Failure, needed: u64) -> Error {
        let used = self.bytes.word(header::USED).map_or(0, |w| w.load(Ordering::Relaxed));
        self.refusal(failure, needed, used)
    }

    fn refusal(&self, failure: Failure, needed: u64, used: u64) -> Error {
        match failure {
            Failure::Io(e) => Error::io("reserving memory", e),
            Failure::Cancelled => Error::Cancelled,
            Failure::Forked => begun_by_parent(),
            Failure::Full(cause) => {
                let shm = self.backing.collapses() && self.backing.handed_on().is_none();
                let cause = match cause {
                    FullCause::Backing if shm => FullCause::SharedMemory,
                    cause => cause,
                };
                let capacity = self.layout.capacity;
                let free = capacity.saturating_sub(used.saturating_mul(crate::layout::GRANULE));
                Error::RegionFull { needed, free, capacity, cause, keepers: Vec::new() }
            }
        }
    }

    /// The number of session slots that were ever used.
    pub(crate) fn sessions_high(&self) -> u32 {
        let high = self.bytes.word(header::SESSIONS_HIGH).map_or(0, |w| w.load(Ordering::Acquire));
        u32::try_from(high).unwrap_or(SESSIONS).min(SESSIONS)
    }

    /// The incarnation in session slot `index`; 0 where none was ever, and no page may be touched:
    /// the number may be from a word that is damaged.
    pub(crate) fn incarnation_in(&self, index: u32) -> Result<u64> {
        if index >= self.sessions_high() {
            return Ok(0);
        }
        let word = self.bytes.word(self.layout.session(index) + field::INCARNATION)?;
        Ok(word.load(Ordering::Acquire))
    }

    /// A location that opens the same region again.
    pub(crate) fn location(&self) -> Result<Location> {
        self.backing.location()
    }

    /// Leaves the region: gives back what is still ours, then the slot. Runs in a destructor.
    fn leave(&mut self) -> Result<()> {
        // Who comes too late for that may still be the last, who removes an ephemeral region.
        let swept = self.write_within(MOMENT).and_then(|mut writer| writer.leave_session());
        kill::point("leave: swept");
        let flags = self.bytes.word(header::FLAGS)?.load(Ordering::Acquire);
        if flags & header::FLAG_EPHEMERAL == 0 || flags & header::FLAG_REMOVED != 0 {
            return swept;
        }
        // Our own byte first: of two that leave at once, one must find itself the last.
        let _ = self.lock.give_up(LOCK_BASE + u64::from(self.index()));
        if self.lock.try_lock(LOCK_BASE, u64::from(SESSIONS) + 1).unwrap_or(false) {
            kill::point("leave: alone");
            self.bytes.word(header::FLAGS)?.fetch_or(header::FLAG_REMOVED, Ordering::AcqRel);
            kill::point("leave: marked removed");
            self.backing.unlink()?;
        }
        swept
    }
}

/// What the writer lock holds for a session.
pub(crate) fn token(incarnation: u64, index: u32) -> u64 {
    incarnation << 9 | u64::from(index)
}

/// What a forked child is told that has no share in what it inherited.
#[cold]
pub(crate) fn forked() -> Error {
    Error::Stale(
        "this handle was inherited through a fork that could pass no hold on to the child: the \
         region had no room for it, or a stopped process kept it locked; get the table again from \
         the region"
            .into(),
    )
}

/// What a child is told that the callback of an operation has forked: the operation is its parent's.
#[cold]
pub(crate) fn begun_by_parent() -> Error {
    Error::Stale(
        "this operation was begun by the parent process, and goes on there; begin it anew".into(),
    )
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.token() != 0 && !self.read_only && self.is_ours() {
            // What cannot be given back now is swept by the next who needs it: the lock byte is
            // released in any case.
            let _ = self.leave();
        }
    }
}
