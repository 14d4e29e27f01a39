//! Writable mappings of their own, for memory that is handed out to be filled: read-only for good
//! from the moment it is sealed, whoever still holds an address in it.
//!
//! A window maps some bytes of a region a third time, beside the two mappings of the session. While
//! it is open, its holder writes through it. Sealed, a late store through an address that someone
//! kept faults, and nothing that others read is corrupted. Revoked, it shows zeros: its memory was
//! given back and may be another's by now. In either case the addresses stay mapped for as long as
//! the window lives, whatever becomes of region and session.
//!
//! An open window is its process's alone: a child that is forked meanwhile has the bytes, as it has
//! its copy of all other memory, and what it stores there stays with it.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::descriptor::Identity;
use crate::error::{Error, Result};
use crate::layout::BLOCK;
use crate::mapping::page_size;
use crate::mutex::{ForkGuard, ForkMutex};
use crate::region::Region;
use crate::session::Session;

/// The open windows on regions, by address. Entered when they are mapped, before anybody knows the
/// address; removed when nobody can store through it any more.
static OPEN: ForkMutex<BTreeMap<usize, Source>> = ForkMutex::new(BTreeMap::new());

/// What an open window shows.
struct Source {
    bytes: usize,
    fd: RawFd,
    file: Identity,
    offset: libc::off_t,
}

/// A writable mapping of some bytes of a region, or of private ones.
pub struct Window {
    /// The mapping, whole pages.
    base: *mut u8,
    bytes: usize,
    /// Where in it the bytes begin that were asked for, and how many they are.
    start: usize,
    len: usize,
}

// SAFETY: a window is an address range of its own, unmapped only when it is dropped; storing
// through its addresses is the holder's business, with raw pointers.
unsafe impl Send for Window {}
// SAFETY: as above; a shared reference changes protections only, which the kernel serialises.
unsafe impl Sync for Window {}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Window {
    /// Private memory, zeroed, with the ways of a window.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no address space left.
    pub fn zeroed(len: u64) -> Result<Window> {
        let len = length(len)?;
        let bytes = len.max(1).checked_next_multiple_of(page_size()).ok_or_else(no_space)?;
        let (flags, fd) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1);
        // SAFETY: a fresh private mapping at an address of the kernel's choice.
        let base = unsafe { map(std::ptr::null_mut(), bytes, flags, fd, 0) }?;
        if bytes as u64 >= BLOCK {
            // SAFETY: advice over the mapping just made.
            unsafe { libc::madvise(base.cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Window { base, bytes, start: 0, len })
    }

    /// Where its bytes begin. Storing there is allowed until the window is sealed or revoked, to
    /// whoever was given them.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        // SAFETY: `start` lies within the mapping.
        unsafe { self.base.add(self.start) }
    }

    /// How many bytes it shows.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether it shows none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the window read-only for good: a store through it faults from now on.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses.
    pub fn seal(&self) -> Result<()> {
        let mut open = OPEN.lock();
        // SAFETY: the range is this value's own mapping.
        let done = unsafe { libc::mprotect(self.base.cast(), self.bytes, libc::PROT_READ) };
        if done != 0 {
            return Err(Error::io("making a window read-only", io::Error::last_os_error()));
        }
        open.remove(&self.base.addr());
        Ok(())
    }

    /// Takes the memory out of the window: it shows zeros from now on, read-only.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses; the window then is as it was.
    pub fn revoke(&self) -> Result<()> {
        // No fork in between, or the child would map again what is another's by then.
        let mut open = OPEN.lock();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: replaces this value's own mapping, at once, so that no address in it is ever
        // unmapped; nobody has a Rust reference to its bytes.
        let made =
            unsafe { libc::mmap(self.base.cast(), self.bytes, libc::PROT_READ, flags, -1, 0) };
        if made == libc::MAP_FAILED {
            return Err(Error::io("revoking a window", io::Error::last_os_error()));
        }
        // SAFETY: advice over the mapping just made.
        unsafe { libc::madvise(self.base.cast(), self.bytes, libc::MADV_DONTDUMP) };
        open.remove(&self.base.addr());
        Ok(())
    }

    /// No longer among those that a forked child must not share.
    fn close(&self) {
        OPEN.lock().remove(&self.base.addr());
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.close();
        // SAFETY: the range is this value's own; whoever hands out addresses in it keeps the
        // value alive.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

impl Session {
    fn window(&self, offset: u64, len: u64) -> Result<Window> {
        self.check_fork()?;
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if !self.layout.in_arena(offset, len) {
            return Err(Error::corrupt("a window lies outside the arena", offset));
        }
        let page = page_size() as u64;
        let from = offset / page * page;
        let bytes = length((offset + len.max(1)).next_multiple_of(page) - from)?;
        let backing = self.backing.fd()?;
        let file = Identity::of(backing).map_err(|e| Error::io("mapping a window", e))?;
        let fd = backing.as_raw_fd();
        let at = libc::off_t::try_from(from).map_err(|_| no_space())?;
        let open = |base: *mut u8| {
            OPEN.lock().insert(base.expose_provenance(), Source { bytes, fd, file, offset: at });
        };
        let start = (offset - from) as usize;
        let len = length(len)?;
        let block = BLOCK as usize;
        if bytes < block {
            // SAFETY: a fresh shared mapping at an address of the kernel's choice.
            let base = unsafe { map(std::ptr::null_mut(), bytes, libc::MAP_SHARED, fd, from) }?;
            open(base);
            return Ok(Window { base, bytes, start, len });
        }
        // Large pages need an address that is to 2 MiB what the position in the file is.
        let reach = bytes.checked_add(block).ok_or_else(no_space)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh private reservation at an address of the kernel's choice.
        let reserved = unsafe { map(std::ptr::null_mut(), reach, flags, -1, 0) }?;
        let lead = ((from as usize) % block).wrapping_sub(reserved as usize) % block;
        // SAFETY: lead is below a block, so the target lies in the reservation just made, which
        // nobody else knows; what is left of it on both sides is given back.
        unsafe {
            let target = reserved.add(lead);
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            let mapped = map(target, bytes, flags, fd, from);
            if mapped.is_err() {
                libc::munmap(reserved.cast(), reach);
            }
            let base = mapped?;
            if lead > 0 {
                libc::munmap(reserved.cast(), lead);
            }
            if reach - lead > bytes {
                libc::munmap(base.add(bytes).cast(), reach - lead - bytes);
            }
            open(base);
            Ok(Window { base, bytes, start, len })
        }
    }
}

impl Region {
    /// A writable mapping of `len` bytes at `offset`, apart from the session's own. The memory must
    /// be the caller's: an extent, or part of a table that it has exclusively. Whole pages are
    /// mapped, so that stray stores next to the bytes reach what shares a page with them.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Stale`], [`Error::RegionCorrupt`] for what does not lie in the
    /// arena, [`Error::Io`] if there is no address space left.
    pub fn window(&self, offset: u64, len: u64) -> Result<Window> {
        self.session()?.window(offset, len)
    }
}

/// Keeps the open windows as they are over a fork; whether that was possible within a time.
pub(crate) fn keep_for(patience: Duration) -> bool {
    OPEN.try_lock_for(patience).map(ForkGuard::keep).is_some()
}

/// After the fork, in the parent.
///
/// # Safety
/// [`keep_for`] has kept them, in this thread.
pub(crate) unsafe fn let_go() {
    // SAFETY: the caller's promise.
    unsafe { OPEN.unlock_kept() };
}

/// After the fork, in the child: what it stores through an open window of its parent goes to pages
/// of its own. Where they cannot be made, it can store there no more.
///
/// # Safety
/// [`keep_for`] has kept them, in the thread whose copy this is; no other thread exists yet.
pub(crate) unsafe fn make_private() {
    // SAFETY: the caller's promise.
    let open = unsafe { OPEN.kept() };
    for (base, source) in &*open {
        let base = std::ptr::with_exposed_provenance_mut::<c_void>(*base);
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // The parent's program may have closed the descriptor. Then the child has zeros.
        let (flags, fd, offset) = match source.file.is_at(source.fd) {
            true => (flags, source.fd, source.offset),
            false => (flags | libc::MAP_ANONYMOUS, -1, 0),
        };
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: replaces the child's mapping of a window, at once, so that no address in it is
        // ever unmapped; nobody has a Rust reference to its bytes.
        unsafe {
            if libc::mmap(base, source.bytes, rights, flags, fd, offset) == libc::MAP_FAILED {
                libc::mprotect(base, source.bytes, libc::PROT_READ);
            }
            libc::madvise(base, source.bytes, libc::MADV_DONTDUMP);
        }
    }
    open.clear();
    // SAFETY: as above.
    unsafe { OPEN.unlock_kept() };
}

fn length(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).ok().filter(|&b| isize::try_from(b).is_ok()).ok_or_else(no_space)
}

fn no_space() -> Error {
    Error::io("mapping a window", io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Maps readable and writable pages, left out of core dumps.
///
/// # Safety
/// As for `mmap`: with `MAP_FIXED`, the range at `at` is the caller's to replace.
unsafe fn map(
    at: *mut u8,
    bytes: usize,
    flags: libc::c_int,
    fd: libc::c_int,
    offset: u64,
) -> Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let offset = libc::off_t::try_from(offset).map_err(|_| no_space())?;
    // SAFETY: passed on.
    let base = unsafe { libc::mmap(at.cast::<c_void>(), bytes, protection, flags, fd, offset) };
    if base == libc::MAP_FAILED {
        return Err(Error::io("mapping a window", io::Error::last_os_error()));
    }
    // SAFETY: advice over the mapping just made; failing to say so is no reason to fail.
    unsafe { libc::madvise(base, bytes, libc::MADV_DONTDUMP) };
    Ok(base.cast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateOptions, Location};

    fn region() -> Region {
        let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
        Region::create(Location::Memfd, options).unwrap()
    }

    #[test]
    fn what_is_stored_through_a_window_is_in_the_region() {
        let region = region();
        for bytes in [100, 70_000, 5 << 20] {
            let extent = region.allocate(bytes).unwrap();
            let window = region.window(extent.offset() + 64, bytes - 64).unwrap();
            assert_eq!(window.len(), bytes - 64);
            if bytes >= BLOCK {
                assert_eq!(window.as_mut_ptr() as u64 % BLOCK, (extent.offset() + 64) % BLOCK);
            }
            // SAFETY: the window shows memory of the extent, which is this test's.
            unsafe {
                window.as_mut_ptr().add(window.len() as usize - 1).write(7);
                assert_eq!(extent.as_ptr().add(bytes as usize - 1).read(), 7);
            }
            window.seal().unwrap();
            // SAFETY: sealed windows can be read.
            assert_eq!(unsafe { window.as_mut_ptr().add(window.len() as usize - 1).read() }, 7);
        }
    }

    #[test]
    fn a_window_outlives_its_region_and_revoked_shows_zeros() {
        let region = region();
        let extent = region.allocate(100_000).unwrap();
        let window = region.window(extent.offset(), 100_000).unwrap();
        // SAFETY: the window shows the extent.
        unsafe { window.as_mut_ptr().write_bytes(9, 100_000) };
        drop(extent);
        region.close();
        drop(region);
        // SAFETY: the window is mapped for as long as it lives.
        assert_eq!(unsafe { window.as_mut_ptr().add(99_999).read() }, 9);
        window.revoke().unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { window.as_mut_ptr().add(99_999).read() }, 0);
    }

    #[test]
    fn a_window_is_not_closed_while_a_fork_looks_at_those_that_are_open() {
        let region = region();
        let extent = region.allocate(100_000).unwrap();
        let window = region.window(extent.offset(), 100_000).unwrap();
        // SAFETY: the window shows the extent.
        unsafe { window.as_mut_ptr().write_bytes(9, 100_000) };
        let fork = OPEN.lock();
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| window.revoke());
            std::thread::sleep(Duration::from_millis(50));
            // SAFETY: mapped for as long as the window lives.
            assert_eq!(unsafe { window.as_mut_ptr().add(99_999).read() }, 9);
            assert!(fork.contains_key(&window.base.addr()));
            drop(fork);
            closing.join().unwrap().unwrap();
        });
        // SAFETY: as above.
        assert_eq!(unsafe { window.as_mut_ptr().add(99_999).read() }, 0);
        assert!(!OPEN.lock().contains_key(&window.base.addr()));
    }

    #[test]
    fn windows_lie_in_the_arena_and_private_ones_anywhere() {
        let region = region();
        assert!(matches!(region.window(0, 10), Err(Error::RegionCorrupt { .. })));
        assert!(matches!(region.window(1 << 40, 10), Err(Error::RegionCorrupt { .. })));
        let window = Window::zeroed(10_000).unwrap();
        // SAFETY: within the window.
        unsafe {
            window.as_mut_ptr().add(9_999).write(1);
            assert_eq!(window.as_mut_ptr().read(), 0);
        }
        window.seal().unwrap();
        assert!(Window::zeroed(0).unwrap().is_empty());
        assert!(Window::zeroed(u64::MAX).is_err());
    }
}
