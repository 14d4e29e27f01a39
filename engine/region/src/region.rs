//! The handle on a region: creating, opening, and what can be asked of it.

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::backing::{self, Backing};
use crate::catalog::{Fate, Held};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::kill;
use crate::layout::{GRANULE, Layout};
use crate::pin::{Pin, PinInner};
use crate::registry;
use crate::session::{self, Session};
use crate::state;
use crate::types::{
    CreateOptions, Flushed, IfExists, LeaseRecord, Location, Pass, Patience, RegionRecord, Report,
    Stats,
};
use crate::wait::Waiting;

/// The smallest default capacity, for machines whose shared memory is tiny.
const LEAST_CAPACITY: u64 = 1 << 20;
/// The most tables that a region can be created for.
const MOST_TABLES: u32 = 1 << 24;

/// An open region. Clones are the same handle: closing one closes all.
#[derive(Clone)]
pub struct Region(Arc<Handle>);

struct Handle {
    /// Without a lock, which a fork could leave locked.
    session: ArcSwapOption<Session>,
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
            session: ArcSwapOption::new(Some(session)),
        }))
    }

    pub(crate) fn session(&self) -> Result<Arc<Session>> {
        let session = self.0.session.load_full().ok_or_else(|| self.closed())?;
        if session.is_ours() { Ok(session) } else { self.rejoin(session) }
    }

    /// Opens the session of a forked child, whose parent passed none on: it held nothing.
    #[cold]
    fn rejoin(&self, parents: Arc<Session>) -> Result<Arc<Session>> {
        let mut sessions = registry::lock();
        let own = match registry::find(&sessions, parents.key) {
            Some(own) => own,
            None => {
                let own = Arc::new(Session::again(&parents)?);
                registry::add(&mut sessions, &own);
                own
            }
        };
        drop(sessions);
        // Unless the handle was closed meanwhile.
        self.0.session.compare_and_swap(&parents, Some(own.clone()));
        Ok(own)
    }

    /// The session, for tests that look inside.
    #[cfg(test)]
    pub(crate) fn for_tests(&self) -> Arc<Session> {
        self.session().unwrap()
    }

    #[cold]
    pub(crate) fn closed(&self) -> Error {
        Error::Stale(format!("region {} was closed; open it again", self.0.name))
    }

    /// Creates a region.
    ///
    /// # Errors
    /// [`Error::RegionExists`] for a taken name (see [`IfExists`]), [`Error::InvalidArgument`] for
    /// a bad name, a capacity below 64 KiB or above 16 TiB, and no or more than 16,777,216 tables,
    /// [`Error::PermissionDenied`], [`Error::Unsupported`] for file systems whose locks cannot be
    /// relied on, [`Error::RegionFull`] when not even the header fits, [`Error::Io`].
    pub fn create(location: Location, options: CreateOptions) -> Result<Self> {
        let _ = crate::listing::sweep_leftovers();
        let capacity = match options.capacity {
            Some(capacity) => capacity,
            None => (backing::room(&location)? / 2).clamp(LEAST_CAPACITY, 1 << 44),
        };
        if capacity < GRANULE {
            return Err(Error::InvalidArgument(format!(
                "a capacity of {capacity} bytes is less than a region's smallest, 64 KiB; was a \
                 unit forgotten, as in \"10GiB\"?"
            )));
        }
        if let Some(tables) = options.max_tables
            && !(1..=MOST_TABLES).contains(&tables)
        {
            return Err(Error::InvalidArgument(format!(
                "max_tables is {tables}; a region has room for 1 to {MOST_TABLES} tables"
            )));
        }
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
        let session = Arc::new(Session::open(made.into(), read_only)?);
        registry::add(&mut sessions, &session);
        Ok(Self::wrap(session))
    }

    /// A region that this process, or the one that it was forked from, has open, by its identity.
    /// A copied file has the identity of its original.
    pub fn find(id: u128, read_only: bool) -> Option<Self> {
        registry::with_id(&registry::lock(), id, read_only).map(Self::wrap)
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

    /// What the layer above keeps beside this process's session, for all its handles: made at the
    /// first call, gone with the session. Of one type.
    ///
    /// # Errors
    /// [`Error::Stale`] after closing.
    pub fn beside<T: Any + Send + Sync + Default>(&self) -> Result<Arc<T>> {
        let session = self.session()?;
        let kept = session.beside.lock().get_or_insert_with(|| Arc::<T>::default()).clone();
        Ok(kept.downcast().unwrap_or_default())
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
        self.0.session.load().as_ref().and_then(|session| session.backing.handed_on())
    }

    /// Whether the region was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.0.read_only
    }

    /// Whether this handle was closed.
    pub fn is_closed(&self) -> bool {
        self.0.session.load().is_none()
    }

    /// Closes the handle and its clones. Extents, pins and leases stay good; asking the handle
    /// for anything is [`Error::Stale`] from now on. Closing again does nothing.
    pub fn close(&self) {
        // It may be the last.
        drop(self.0.session.swap(None));
    }

    /// Memory for `bytes` bytes: reserved, on 64 bytes, warm pages first, arbitrary content. It
    /// is freed when the extent is dropped, unless a published table shares it by then.
    ///
    /// # Errors
    /// [`Error::RegionFull`], [`Error::ReadOnly`], [`Error::Stale`], [`Error::Timeout`] if a
    /// stopped process holds the writer lock.
    pub fn allocate(&self, bytes: u64) -> Result<Extent> {
        self.allocate_with(bytes, &|| false)
    }

    /// The same; `interrupt` is asked now and then while much memory is reserved.
    ///
    /// # Errors
    /// As for [`Region::allocate`], and [`Error::Cancelled`] if it said so.
    pub fn allocate_with(&self, bytes: u64, interrupt: &dyn Fn() -> bool) -> Result<Extent> {
        let session = self.session()?;
        let raw = session.allocate_with(bytes, interrupt)?;
        Extent::new(self.clone(), session, raw)
    }

    /// Publishes a table under a name, by one store: others see all of it or nothing. It owns the
    /// memory of its parts; the bytes of `manifest` are kept as they are.
    ///
    /// # Errors
    /// [`Error::TableExists`] for a taken name unless `replace`, [`Error::TableLimit`],
    /// [`Error::RegionFull`], [`Error::InvalidArgument`] for parts of another region and for
    /// names that are empty or longer than 255 bytes, [`Error::ReadOnly`], [`Error::Stale`],
    /// [`Error::Timeout`]; [`Error::LeaseHeld`] and [`Error::Poisoned`] for parts of a table that
    /// somebody is changing, or has left half changed.
    pub fn publish(
        &self,
        name: &str,
        parts: &[Part<'_>],
        manifest: &[u8],
        replace: bool,
    ) -> Result<Pin> {
        let fate = if replace { Fate::Replace } else { Fate::New };
        self.publish_as(name, parts, manifest, fate)
    }

    /// Publishes what is not found by a name: a result on its way to other processes, which
    /// [`Pin::issue`] makes passes for. It lives while somebody holds it, or a pass is outstanding.
    ///
    /// # Errors
    /// Those of [`Region::publish`], but those for names.
    pub fn ticket(&self, parts: &[Part<'_>], manifest: &[u8]) -> Result<Pin> {
        self.publish_as("", parts, manifest, Fate::Hidden(state::TICKET))
    }

    /// Takes what a pass of [`Pin::issue`] names. The pass is used up: of several who come with
    /// it the first has the result.
    ///
    /// # Errors
    /// [`Error::Stale`] if the pass was used before, or the result is not kept any more;
    /// [`Error::Timeout`].
    pub fn redeem(&self, pass: Pass) -> Result<Pin> {
        let session = self.session()?;
        let held = session.redeem(pass)?;
        Ok(self.pin_unnamed(session, held))
    }

    /// The version of a table that [`Pin::place`] told, if somebody keeps it or its name still
    /// means it. The name may mean another one by now.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn revisit(&self, slot: u32, sequence: u64) -> Result<Option<Pin>> {
        let session = self.session()?;
        let held = session.revisit(slot, sequence)?;
        Ok(held.map(|held| self.pin_unnamed(session, held)))
    }

    fn pin_unnamed(&self, session: Arc<Session>, held: Held) -> Pin {
        let name = session.slot_name(held.slot).unwrap_or_default();
        self.pin(session, String::from_utf8_lossy(&name).into(), held)
    }

    pub(crate) fn publish_as(
        &self,
        name: &str,
        parts: &[Part<'_>],
        manifest: &[u8],
        fate: Fate,
    ) -> Result<Pin> {
        let session = self.session()?;
        let mut extents = Vec::with_capacity(parts.len());
        // Nobody may share what somebody writes in place, or has left half written.
        let mut leases = Vec::new();
        for part in parts {
            let theirs = match part {
                Part::Owned(extent) => {
                    extent.check()?;
                    extents.push((extent.raw.offset, extent.raw.bytes));
                    &extent.session
                }
                Part::Of(pin) | Part::Extents(pin, _) => {
                    pin.0.session.check_fork()?;
                    &pin.0.session
                }
            };
            if !Arc::ptr_eq(theirs, &session) {
                return Err(Error::InvalidArgument(
                    "a table can only be made of memory of its own region".into(),
                ));
            }
            if let Part::Of(pin) | Part::Extents(pin, _) = part {
                leases.push(pin.share()?);
                let mut all = session.slot_extents(pin.0.held.slot)?;
                match part {
                    Part::Extents(_, chosen) => {
                        // Sorted already, but that is another process's word; and many.
                        all.sort_unstable();
                        if chosen.iter().any(|extent| all.binary_search(extent).is_err()) {
                            return Err(Error::InvalidArgument(
                                "a table can only share extents of another that has them".into(),
                            ));
                        }
                        extents.extend_from_slice(chosen);
                    }
                    _ => extents.extend(all),
                }
            }
        }
        // A table owns each extent once, however many of its parts have it.
        extents.sort_unstable();
        extents.dedup();
        let held = session.publish(name, &extents, manifest, fate)?;
        drop(leases);
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

    /// Waits until there is a table of that name, or (`newer_than`: sequence and content version of
    /// the table last seen) a newer one. The end of an update makes it newer, in place or not.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Cancelled`], [`Error::Stale`].
    pub fn wait(
        &self,
        name: &str,
        newer_than: Option<(u64, u64)>,
        patience: &Patience<'_>,
    ) -> Result<Pin> {
        let mut waiting = Waiting::new(patience);
        loop {
            // Each time anew: the region may be closed meanwhile.
            let session = self.session()?;
            let rung = session.rung()?;
            if let Some(held) = session.seek(name)? {
                let pin = self.pin(session.clone(), name.into(), held);
                if pin.is_newer(newer_than)? {
                    return Ok(pin);
                }
                session.rescue(held.slot)?;
            }
            if !waiting.sleep(&session, rung)? {
                let newer = if newer_than.is_some() { "a newer version of it" } else { "it" };
                return Err(Error::Timeout {
                    what: format!("table {name:?}: nobody has published {newer} in time"),
                });
            }
        }
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
        let session = self.session()?;
        let Some(held) = session.seek(name)? else { return Ok(false) };
        session.unhold(held.slot, crate::pins::Line::Pins);
        Ok(true)
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
            let rebuilt = writer
                .rebuild()
                .and_then(|()| writer.end_left_over())
                .and_then(|()| writer.collect());
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

    /// Makes a file durable: all tables as they are at one instant during the call. It waits until
    /// no table is being updated in place, as long as `patience` says, and for another's flush.
    /// After a loss of power, or any other end of the system, the file opens as the last flush that
    /// returned left it, or a later one. Elsewhere it does nothing. Interrupted, it leaves what was
    /// durable before.
    ///
    /// # Errors
    /// [`Error::Io`] if the system cannot write the file, and from then on whenever it is flushed;
    /// [`Error::LeaseHeld`] if an update lasts longer than the patience, or is this very thread's;
    /// [`Error::RegionFull`] if the disk has no room for the checkpoint, [`Error::Timeout`],
    /// [`Error::Cancelled`], [`Error::ReadOnly`], [`Error::RegionCorrupt`], [`Error::Stale`].
    pub fn flush(&self, patience: &Patience<'_>) -> Result<Flushed> {
        self.session()?.flush(patience)
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
}

/// What a table is made of.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// An extent.
    Owned(&'a Extent),
    /// All extents of another table, which then share them.
    Of(&'a Pin),
    /// Some extents of another table, as [`Pin::extents`] gives them.
    Extents(&'a Pin, &'a [(u64, u64)]),
}

/// Initialises a created backing and gives it its name. `None`: the name is taken.
fn found(
    made: Box<dyn Backing>,
    layout: Layout,
    id: u128,
    ephemeral: bool,
) -> Result<Option<Region>> {
    let guard = Unpublished::new(made.as_ref())?;
    let session = Session::found(made.into(), layout, id, ephemeral)?;
    // Locked before the name appears: another thread that opens it finds this session.
    let mut sessions = registry::lock();
    kill::point("create: joined");
    if !session.backing.publish()? {
        drop(sessions);
        return Ok(None);
    }
    guard.disarm();
    kill::point("create: named");
    let session = Arc::new(session);
    registry::add(&mut sessions, &session);
    drop(sessions);
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
