//! The handles: regions, extents, pins, leases.

use std::os::fd::RawFd;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::arena::Raw;
use crate::backing::{self, Backing};
use crate::catalog::Held;
use crate::error::{Error, Result};
use crate::layout::{Layout, header, slot};
use crate::pins::Line;
use crate::registry;
use crate::session::{self, Session};
use crate::state::{self, State};
use crate::types::{CreateOptions, IfExists, LeaseRecord, Location, RegionRecord, Report, Stats};

/// The smallest default capacity, for machines whose shared memory is tiny.
const LEAST_CAPACITY: u64 = 1 << 20;

/// An open region. Clones are the same handle: closing one closes all.
#[derive(Clone)]
pub struct Region(Arc<Handle>);

struct Handle {
    session: Mutex<Option<Arc<Session>>>,
    /// Kept here, since they are asked for after closing as well.
    name: String,
    id: u128,
    capacity: u64,
    read_only: bool,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Region {
    fn wrap(session: Arc<Session>) -> Self {
        Self(Arc::new(Handle {
            name: session.backing.describe(),
            id: session.id,
            capacity: session.layout.capacity,
            read_only: session.read_only,
            session: Mutex::new(Some(session)),
        }))
    }

    fn session(&self) -> Result<Arc<Session>> {
        let session = self.0.session.lock().clone();
        let session = session.ok_or_else(|| self.closed())?;
        session.check_fork()?;
        Ok(session)
    }

    /// The session, for tests that look inside.
    #[cfg(test)]
    pub(crate) fn for_tests(&self) -> Arc<Session> {
        self.session().unwrap()
    }

    #[cold]
    fn closed(&self) -> Error {
        Error::Stale(format!("region {} was closed; open it again", self.0.name))
    }

    /// Creates a region.
    ///
    /// # Errors
    /// [`Error::RegionExists`] for a taken name (see [`IfExists`]), [`Error::InvalidArgument`],
    /// [`Error::PermissionDenied`], [`Error::Unsupported`] for file systems whose locks cannot be
    /// relied on, [`Error::RegionFull`] when not even the header fits, [`Error::Io`].
    pub fn create(location: Location, options: CreateOptions) -> Result<Self> {
        let _ = crate::listing::sweep_leftovers();
        let capacity = match options.capacity {
            Some(capacity) => capacity,
            None => (backing::room(&location)? / 2).clamp(LEAST_CAPACITY, 1 << 44),
        };
        let layout = Layout::new(capacity, options.max_tables)?;
        // A racing creator or remover may win a few times.
        for _ in 0..100 {
            if options.if_exists == IfExists::Open
                && let Some(again) = same_place(&location)
            {
                match Self::open(again, false) {
                    Err(Error::RegionNotFound { .. }) => {}
                    opened => return opened,
                }
            }
            let id = u128::from(backing::random_u64()?) << 64 | u128::from(backing::random_u64()?);
            let made = backing::create(&location, layout.span)?;
            let session = found(made, layout, id, options.ephemeral)?;
            if let Some(region) = session {
                return Ok(region);
            }
            match options.if_exists {
                IfExists::Error => {
                    return Err(Error::RegionExists { region: described(&location) });
                }
                IfExists::Open => {}
                IfExists::Replace => match Self::remove(&location) {
                    Ok(()) | Err(Error::RegionNotFound { .. }) => {}
                    Err(e) => return Err(e),
                },
            }
        }
        Err(Error::Timeout {
            what: format!("others keep creating and removing region {}", described(&location)),
        })
    }

    /// Opens an existing region. In one process the same region is one session, counted.
    ///
    /// # Errors
    /// [`Error::RegionNotFound`]; [`Error::RegionCorrupt`] for what is truncated, damaged or not
    /// a region; [`Error::VersionMismatch`]; [`Error::PermissionDenied`];
    /// [`Error::SessionLimit`]; [`Error::Io`].
    pub fn open(location: Location, read_only: bool) -> Result<Self> {
        let made = backing::open(location, !read_only)?;
        session::read_header(made.as_ref())?;
        let key = session::key(made.as_ref(), read_only)?;
        let mut sessions = registry::lock();
        if let Some(session) = registry::find(&sessions, key) {
            return Ok(Self::wrap(session));
        }
        let session = Arc::new(Session::open(made, read_only)?);
        sessions.retain(|_, session| session.strong_count() != 0);
        sessions.insert(key, Arc::downgrade(&session));
        Ok(Self::wrap(session))
    }

    /// Removes a region's name. Who has it open carries on.
    ///
    /// # Errors
    /// [`Error::RegionNotFound`]; for files that are not regions [`Error::RegionCorrupt`]: they
    /// are left alone.
    pub fn remove(location: &Location) -> Result<()> {
        crate::listing::remove(location)
    }

    /// The named regions in this machine's shared memory.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read.
    pub fn list() -> Result<Vec<RegionRecord>> {
        crate::listing::list()
    }

    /// A location that opens this region again.
    ///
    /// # Errors
    /// [`Error::Stale`] after closing.
    pub fn location(&self) -> Result<Location> {
        self.session()?.location()
    }

    /// How a person would name the region.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The region's random identity, given at its creation.
    pub fn id(&self) -> u128 {
        self.0.id
    }

    /// The capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// The descriptor to hand on, for anonymous regions.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.0.session.lock().as_ref().and_then(|session| session.backing.handed_on())
    }

    /// Whether the region was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.0.read_only
    }

    /// Whether this handle was closed.
    pub fn is_closed(&self) -> bool {
        self.0.session.lock().is_none()
    }

    /// Closes the handle and its clones. Extents, pins and leases stay good; asking the handle
    /// for anything is [`Error::Stale`] from now on. Closing again does nothing.
    pub fn close(&self) {
        let session = self.0.session.lock().take();
        // Dropped outside the lock: it may be the last.
        drop(session);
    }

    /// Memory for `bytes` bytes: reserved, on 64 bytes, warm pages first, arbitrary content. It
    /// is freed when the extent is dropped, unless a published table shares it by then.
    ///
    /// # Errors
    /// [`Error::RegionFull`], [`Error::ReadOnly`], [`Error::Stale`], [`Error::Timeout`] if a
    /// stopped process holds the writer lock.
    pub fn allocate(&self, bytes: u64) -> Result<Extent> {
        let session = self.session()?;
        let raw = session.allocate(bytes)?;
        let extent = |writable| session.address(raw.offset, raw.bytes, writable);
        match (extent(true), extent(false)) {
            (Ok(writable), Ok(exported)) => Ok(Extent {
                raw,
                writable,
                exported: exported.cast_const(),
                session,
                region: self.clone(),
            }),
            (Err(e), _) | (_, Err(e)) => {
                session.free(raw);
                Err(e)
            }
        }
    }

    /// Publishes a table under a name, by one store: others see all of it or nothing. It owns the
    /// memory of its parts; the bytes of `manifest` are kept as they are.
    ///
    /// # Errors
    /// [`Error::TableExists`] for a taken name unless `replace`, [`Error::TableLimit`],
    /// [`Error::RegionFull`], [`Error::InvalidArgument`] for parts of another region and for
    /// names that are empty or longer than 255 bytes, [`Error::ReadOnly`], [`Error::Stale`],
    /// [`Error::Timeout`].
    pub fn publish(
        &self,
        name: &str,
        parts: &[Part<'_>],
        manifest: &[u8],
        replace: bool,
    ) -> Result<Pin> {
        let session = self.session()?;
        let mut extents = Vec::with_capacity(parts.len());
        for part in parts {
            let theirs = match part {
                Part::Owned(extent) => {
                    extents.push((extent.raw.offset, extent.raw.bytes));
                    &extent.session
                }
                Part::Of(pin) => {
                    extents.extend(pin.0.session.slot_extents(pin.0.held.slot)?);
                    &pin.0.session
                }
            };
            if !Arc::ptr_eq(theirs, &session) {
                return Err(Error::InvalidArgument(
                    "a table can only be made of memory of its own region".into(),
                ));
            }
        }
        // A table owns each extent once, however many of its parts have it.
        extents.sort_unstable();
        extents.dedup();
        let held = session.publish(name, &extents, manifest, replace)?;
        Ok(self.pin(session, name.into(), held))
    }

    fn pin(&self, session: Arc<Session>, name: String, held: Held) -> Pin {
        Pin(Arc::new(PinInner { region: self.clone(), session, name, held }))
    }

    /// Finds a table by name.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], [`Error::Stale`].
    pub fn lookup(&self, name: &str) -> Result<Pin> {
        let session = self.session()?;
        let held = session.lookup(name)?;
        Ok(self.pin(session, name.into(), held))
    }

    /// The tables' names, sorted.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn names(&self) -> Result<Vec<String>> {
        self.session()?.names()
    }

    /// Whether there is a table of that name.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn contains(&self, name: &str) -> Result<bool> {
        match self.lookup(name) {
            Ok(_) => Ok(true),
            Err(Error::TableNotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Deletes a table; handles and views of it stay good.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], [`Error::ReadOnly`], [`Error::Stale`], [`Error::Timeout`].
    pub fn delete(&self, name: &str) -> Result<()> {
        self.session()?.delete(name)
    }

    /// Recounts everything, takes over from dead processes and frees what nobody holds; gives
    /// the bytes that came free.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Stale`], [`Error::Timeout`].
    pub fn gc(&self) -> Result<u64> {
        let session = self.session()?;
        let before = session.stats()?.used;
        {
            let mut writer = session.write()?;
            let rebuilt = writer.rebuild().and_then(|()| writer.collect());
            writer.noting(rebuilt)?;
        }
        Ok(before.saturating_sub(session.stats()?.used))
    }

    /// Gives idle warm memory back to the system; gives the bytes.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Stale`], [`Error::Timeout`].
    pub fn trim(&self) -> Result<u64> {
        self.session()?.trim(u64::MAX)
    }

    /// What the region holds.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn stats(&self) -> Result<Stats> {
        self.session()?.stats()
    }

    /// Checks what can be checked. Damage is reported, never raised.
    pub fn verify(&self) -> Report {
        match self.session() {
            Ok(session) => session.verify(),
            Err(e) => Report { problems: vec![e.to_string()], ..Report::default() },
        }
    }

    /// Who holds which table.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn leases(&self) -> Result<Vec<LeaseRecord>> {
        self.session()?.leases()
    }

    /// The bounds-checked address of `len` bytes at `offset` in the read-only mapping. It is good
    /// while a pin, a lease or an extent of this region lives.
    ///
    /// # Errors
    /// [`Error::RegionCorrupt`] for what does not lie in the arena, [`Error::Stale`].
    pub fn slice(&self, offset: u64, len: u64) -> Result<*const u8> {
        Ok(self.session()?.address(offset, len, false)?.cast_const())
    }

    /// The same in the read-write mapping, for memory that the caller alone owns: an [`Extent`]
    /// that is not published.
    ///
    /// # Errors
    /// As [`Region::slice`]; [`Error::ReadOnly`].
    pub fn slice_mut(&self, offset: u64, len: u64) -> Result<*mut u8> {
        self.session()?.address(offset, len, true)
    }
}

/// Initialises a created backing and gives it its name. `None`: the name is taken.
fn found(
    made: Box<dyn Backing>,
    layout: Layout,
    id: u128,
    ephemeral: bool,
) -> Result<Option<Region>> {
    let guard = Unpublished::new(made.as_ref())?;
    let mut session = Session::found(made, layout, id, ephemeral)?;
    if !session.backing.publish()? {
        return Ok(None);
    }
    guard.disarm();
    let session = Arc::new(session);
    let key = session::key(session.backing.as_ref(), false)?;
    registry::lock().insert(key, Arc::downgrade(&session));
    Ok(Some(Region::wrap(session)))
}

/// Removes the temporary name of a region that did not come to be.
struct Unpublished(Option<crate::listing::Temporary>);

impl Unpublished {
    fn new(made: &dyn Backing) -> Result<Self> {
        Ok(Self(made.temporary().map(crate::listing::Temporary)))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if let Some(temporary) = &self.0 {
            temporary.unlink();
        }
    }
}

fn same_place(location: &Location) -> Option<Location> {
    match location {
        Location::Shm(name) => Some(Location::Shm(name.clone())),
        Location::File(path) => Some(Location::File(path.clone())),
        Location::Memfd | Location::Fd(_) => None,
    }
}

pub(crate) fn described(location: &Location) -> String {
    match location {
        Location::Shm(name) => format!("{name:?}"),
        Location::File(path) => path.display().to_string(),
        Location::Memfd | Location::Fd(_) => "in anonymous memory".into(),
    }
}

/// Memory of this session, for its holder alone until a table that shares it is published.
/// Freed when dropped.
pub struct Extent {
    raw: Raw,
    writable: *mut u8,
    exported: *const u8,
    session: Arc<Session>,
    region: Region,
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
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.session.free(self.raw);
    }
}

/// What a table is made of.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// An extent.
    Owned(&'a Extent),
    /// All extents of another table, which then share them.
    Of(&'a Pin),
}

/// A hold on a table's memory: it is not recycled while the pin lives, whatever becomes of the
/// name. Its content may be changed by who may change it; see [`Lease`].
#[derive(Clone)]
pub struct Pin(Arc<PinInner>);

struct PinInner {
    region: Region,
    session: Arc<Session>,
    name: String,
    held: Held,
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
                        return Ok(Lease(Arc::new(LeaseInner(self.clone()))));
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

/// A hold on a table's content: nobody changes it in place while the lease lives. Implies a pin.
#[derive(Clone)]
pub struct Lease(Arc<LeaseInner>);

struct LeaseInner(Pin);

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lease").field(self.pin()).finish()
    }
}

impl Drop for LeaseInner {
    fn drop(&mut self) {
        let pin = &self.0.0;
        pin.session.unhold(pin.held.slot, Line::Leases);
    }
}

impl Lease {
    /// The pin it implies.
    pub fn pin(&self) -> &Pin {
        &self.0.0
    }
}

/// The header's flags word, for who changes it without mapping.
pub(crate) const FLAGS_AT: u64 = header::FLAGS;
