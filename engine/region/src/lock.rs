//! Open-file-description locks on single bytes: the kernel drops them when their holder dies.
//!
//! The description that carries locks is never mapped, and the mapped one is never locked: a
//! child's inherited mapping would keep a mapped description, and with it the lock, alive.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::fork;

/// An open file description of its own, to hold locks on.
#[derive(Debug)]
pub(crate) struct LockFile {
    fd: RawFd,
    generation: u64,
}

impl LockFile {
    /// Opens the file behind `fd` once more.
    pub(crate) fn reopen(fd: BorrowedFd<'_>, writable: bool) -> io::Result<Self> {
        let file = reopen(fd, writable)?;
        let raw = std::os::fd::IntoRawFd::into_raw_fd(file);
        fork::remember(raw);
        Ok(Self { fd: raw, generation: fork::generation() })
    }

    /// Takes a write lock on `len` bytes at `start`, or says that another holds them.
    pub(crate) fn try_lock(&self, start: u64, len: u64) -> io::Result<bool> {
        self.set(libc::F_WRLCK, start, len)
    }

    /// Takes a read lock on the byte at `start`, or says that another holds it for writing.
    pub(crate) fn try_lock_shared(&self, start: u64) -> io::Result<bool> {
        self.set(libc::F_RDLCK, start, 1)
    }

    /// Gives up the locks on `len` bytes at `start`. Zero bytes are nothing (to the system call
    /// they would mean "to the end").
    pub(crate) fn unlock(&self, start: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.set(libc::F_UNLCK, start, len).map(|_| ())
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
        self.check()?;
        // SAFETY: `flock` is plain data, for which zero is a value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = start as libc::off_t;
        lock.l_len = len as libc::off_t;
        // SAFETY: `fd` is open (see `check`), `lock` outlives the call.
        if unsafe { libc::fcntl(self.fd, libc::F_OFD_GETLK, &raw mut lock) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(lock)
    }

    fn check(&self) -> io::Result<()> {
        if self.generation == fork::generation() {
            return Ok(());
        }
        // In a forked child the number may name anything, and unlocking would drop the parent's
        // lock.
        Err(io::Error::other("the lock belongs to the parent process"))
    }

    fn set(&self, kind: libc::c_int, start: u64, len: u64) -> io::Result<bool> {
        self.check()?;
        // SAFETY: `flock` is plain data, for which zero is a value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = start as libc::off_t;
        lock.l_len = len as libc::off_t;
        // SAFETY: `fd` is open (see `check`), `lock` outlives the call.
        if unsafe { libc::fcntl(self.fd, libc::F_OFD_SETLK, &raw mut lock) } == 0 {
            return Ok(true);
        }
        let err = io::Error::last_os_error();
        match err.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            _ => Err(err),
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // In a forked child `fork` has closed the descriptor already, and its number may have
        // been given to another file since.
        if self.generation == fork::generation() {
            fork::forget(self.fd);
            // SAFETY: the descriptor is open and this value's own.
            unsafe { libc::close(self.fd) };
        }
    }
}

/// A new description of the file behind `fd`, whatever has become of its name.
pub(crate) fn reopen(fd: BorrowedFd<'_>, writable: bool) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

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
