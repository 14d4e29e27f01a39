//! Open-file-description locks on single bytes: the kernel drops them when their holder dies.
//!
//! The description that carries locks is never mapped where a child inherits it, and the mapped one
//! is never locked: a child's inherited mapping would keep the description, and with it the lock,
//! alive. One page of a session's lock description is mapped all the same, without access, and
//! kept from children (`MADV_DONTFORK`): the lock then outlives the closing of every descriptor,
//! and still goes with the process.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::backing::Backing;
use crate::descriptor::{Descriptor, reopen};
use crate::fork;

/// An open file description of its own, to hold locks on.
pub(crate) struct LockFile {
    descriptor: Descriptor,
    /// The generation of the process that may use it.
    generation: AtomicU64,
    /// The page that keeps the description when its descriptor is closed by others; or null.
    anchor: AtomicPtr<c_void>,
    /// Whether the descriptor is of another description than the anchor: ours was closed.
    moved: AtomicBool,
    /// How to open the file again.
    backing: Option<Arc<dyn Backing>>,
    writable: bool,
}

impl std::fmt::Debug for LockFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockFile").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

impl LockFile {
    /// Opens the file behind `fd` once more.
    pub(crate) fn reopen(fd: BorrowedFd<'_>, writable: bool) -> io::Result<Self> {
        Self::new(reopen(fd, writable)?, writable)
    }

    /// Opens a region's file once more, for a session: its locks stay also if others close our
    /// descriptors.
    pub(crate) fn of(backing: Arc<dyn Backing>, writable: bool) -> io::Result<Self> {
        let fd = reopen(backing.fd().map_err(io::Error::other)?, writable)?;
        let mut lock = Self::new(fd, writable)?;
        lock.anchor = AtomicPtr::new(map_page(lock.fd()?)?);
        lock.backing = Some(backing);
        Ok(lock)
    }

    fn new(fd: OwnedFd, writable: bool) -> io::Result<Self> {
        fork::remember(fd.as_fd());
        Ok(Self {
            descriptor: Descriptor::new(fd)?,
            generation: AtomicU64::new(fork::generation()),
            anchor: AtomicPtr::new(std::ptr::null_mut()),
            moved: AtomicBool::new(false),
            backing: None,
            writable,
        })
    }

    /// Takes over a description that was opened for this process before it was forked.
    pub(crate) fn adopt(&self, fd: OwnedFd) {
        // The parent's page was not inherited. Without one of our own the lock is as good, as long
        // as nobody closes the descriptor.
        let anchor = map_page(fd.as_fd()).unwrap_or(std::ptr::null_mut());
        self.anchor.store(anchor, Ordering::Relaxed);
        self.moved.store(false, Ordering::Relaxed);
        fork::remember(fd.as_fd());
        self.descriptor.adopt(fd);
        self.generation.store(fork::generation(), Ordering::Release);
    }

    /// Takes a write lock on `len` bytes at `start`, or says that another holds them.
    pub(crate) fn try_lock(&self, start: u64, len: u64) -> io::Result<bool> {
        try_lock(self.fd()?, start, len)
    }

    /// Takes a read lock on the byte at `start`, or says that another holds it for writing.
    pub(crate) fn try_lock_shared(&self, start: u64) -> io::Result<bool> {
        try_lock_shared(self.fd()?, start)
    }

    /// Gives up the locks on `len` bytes at `start`. Zero bytes are nothing (to the system call
    /// they would mean "to the end").
    pub(crate) fn unlock(&self, start: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        set(self.fd()?, libc::F_UNLCK, start, len).map(|_| ())
    }

    /// Gives up the lock on the byte at `start` that was taken before anything else, also when its
    /// descriptor was closed by others since.
    pub(crate) fn give_up(&self, start: u64) -> io::Result<()> {
        let fd = self.fd()?;
        if self.moved.load(Ordering::Acquire) {
            self.unmap();
        }
        set(fd, libc::F_UNLCK, start, 1).map(|_| ())
    }

    /// Whether one description holds several of `len` bytes at `start`, as who takes all does. Only
    /// a reason to wait: it may be over by the time it is said.
    pub(crate) fn held_by_one(&self, start: u64, len: u64) -> io::Result<bool> {
        let lock = self.ask(start, len)?;
        Ok(i32::from(lock.l_type) == libc::F_UNLCK || lock.l_len as u64 >= len)
    }

    /// The kind of lock that another description holds on the byte at `start`, `None` if none does.
    /// It may be over by the time it is said.
    pub(crate) fn other_lock(&self, start: u64) -> io::Result<Option<libc::c_int>> {
        let lock = self.ask(start, 1)?;
        let kind = i32::from(lock.l_type);
        Ok((kind != libc::F_UNLCK).then_some(kind))
    }

    /// The first lock of another description that a write lock on `len` bytes would meet.
    fn ask(&self, start: u64, len: u64) -> io::Result<libc::flock> {
        let fd = self.fd()?;
        let mut lock = request(libc::F_WRLCK, start, len);
        // SAFETY: `fd` is open, `lock` outlives the call.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(lock)
    }

    /// Whether it can be used: the descriptor is there, or the file could be opened again.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.fd().map(|_| ())
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        if self.generation.load(Ordering::Acquire) != fork::generation() {
            // In a forked child the number may name anything, and unlocking would drop the
            // parent's lock.
            return Err(io::Error::other("the lock belongs to the parent process"));
        }
        match self.descriptor.get() {
            Some(fd) => Ok(fd),
            None => self.mend(),
        }
    }

    /// Opens the file again, whose descriptor others have closed.
    #[cold]
    fn mend(&self) -> io::Result<BorrowedFd<'_>> {
        let gone = || io::Error::other("the descriptor of a lock was closed by others");
        let backing = self.backing.as_ref().ok_or_else(gone)?;
        let number = self.descriptor.number();
        let again = reopen(backing.fd().map_err(io::Error::other)?, self.writable)?;
        fork::forget(number);
        self.moved.store(true, Ordering::Release);
        let fd = self.descriptor.mend(again).ok_or_else(gone)?;
        fork::forget(fd.as_raw_fd());
        fork::remember(fd);
        Ok(fd)
    }

    fn unmap(&self) {
        let anchor = self.anchor.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if !anchor.is_null() {
            // SAFETY: the page that `map_page` mapped in this process, known to nobody else.
            unsafe { libc::munmap(anchor, crate::mapping::page_size()) };
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.generation.load(Ordering::Acquire) == fork::generation() {
            fork::forget(self.descriptor.number());
            self.unmap();
        } else {
            // In a forked child `fork` has closed the descriptor already, its number may have been
            // given to another file since, and the page was not inherited.
            self.descriptor.abandon();
        }
    }
}

/// Maps a page of a description's file, without access and for this process alone.
fn map_page(fd: BorrowedFd<'_>) -> io::Result<*mut c_void> {
    let bytes = crate::mapping::page_size();
    // SAFETY: a fresh mapping at an address of the kernel's choice, which nobody reads or writes.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            fd.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: advice over the page just mapped.
    if unsafe { libc::madvise(page, bytes, libc::MADV_DONTFORK) } != 0 {
        let err = io::Error::last_os_error();
        // SAFETY: as above; a child that inherited it would keep a dead parent's lock.
        unsafe { libc::munmap(page, bytes) };
        return Err(err);
    }
    Ok(page)
}

fn request(kind: libc::c_int, start: u64, len: u64) -> libc::flock {
    // SAFETY: `flock` is plain data, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start as libc::off_t;
    lock.l_len = len as libc::off_t;
    lock
}

fn set(fd: BorrowedFd<'_>, kind: libc::c_int, start: u64, len: u64) -> io::Result<bool> {
    let mut lock = request(kind, start, len);
    // SAFETY: `fd` is open, `lock` outlives the call.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0 {
        return Ok(true);
    }
    let err = io::Error::last_os_error();
    match err.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(err),
    }
}

/// Takes a write lock on a description's bytes, or says that another holds them.
pub(crate) fn try_lock(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<bool> {
    set(fd, libc::F_WRLCK, start, len)
}

/// Takes a read lock on a description's byte, or says that another holds it for writing.
pub(crate) fn try_lock_shared(fd: BorrowedFd<'_>, start: u64) -> io::Result<bool> {
    set(fd, libc::F_RDLCK, start, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_descriptions_exclude_each_other_byte_by_byte() {
        let file = tempfile::tempfile().unwrap();
        let a = LockFile::reopen(file.as_fd(), true).unwrap();
        let b = LockFile::reopen(file.as_fd(), true).unwrap();
        assert!(a.try_lock(5, 1).unwrap());
        assert!(!b.try_lock(5, 1).unwrap());
        assert!(!b.try_lock(0, 10).unwrap());
        assert!(b.try_lock(6, 1).unwrap());
        assert_eq!(b.other_lock(5).unwrap(), Some(libc::F_WRLCK));
        assert_eq!(a.other_lock(5).unwrap(), None);
        assert!(a.try_lock_shared(7).unwrap());
        assert_eq!(b.other_lock(7).unwrap(), Some(libc::F_RDLCK));
        drop(a);
        assert!(b.try_lock(5, 1).unwrap());
    }
}
