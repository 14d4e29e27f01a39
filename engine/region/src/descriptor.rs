//! Descriptors that the rest of the program may close behind our back.
//!
//! `os.closerange`, `closefrom(3)` and daemonising libraries close every number they do not know,
//! and the next file that is opened gets the number. So each use looks first whether the number
//! still names our file, and nothing is ever closed that does not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::fork;

/// A file's identity on this machine: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Whether the number names this file.
    pub(crate) fn is_at(self, fd: RawFd) -> bool {
        if fd < 0 {
            return false;
        }
        // SAFETY: plain data, for which zero is a value.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: any number may be asked about; `stat` outlives the call.
        let open = unsafe { libc::fstat(fd, &raw mut stat) } == 0;
        open && (stat.st_dev, stat.st_ino) == (self.device, self.inode)
    }
}

/// An open descriptor of a file, as long as nobody else closes it.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: AtomicI32,
    file: Identity,
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = Identity::of(fd.as_fd())?;
        Ok(Self { fd: AtomicI32::new(fd.into_raw_fd()), file })
    }

    /// The file it was made of.
    #[cfg(test)]
    pub(crate) fn file(&self) -> Identity {
        self.file
    }

    /// The number, whatever it names by now.
    pub(crate) fn number(&self) -> RawFd {
        self.fd.load(Ordering::Acquire)
    }

    /// The descriptor; `None` if it was closed, or names another file.
    pub(crate) fn get(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.number();
        // SAFETY: it is open, or was until this moment; whoever closes descriptors of others while
        // they are being used gets errors from the system, as after any close.
        self.file.is_at(fd).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Goes on with a descriptor of the same file, and leaves the number it had: in a forked child,
    /// where that was the parent's.
    pub(crate) fn adopt(&self, fd: OwnedFd) {
        self.fd.store(fd.into_raw_fd(), Ordering::Release);
    }

    /// Leaves the number: it is somebody else's to close.
    pub(crate) fn abandon(&self) {
        self.fd.store(-1, Ordering::Release);
    }

    /// Goes on with another descriptor of the same file, ours having been closed by others. `None`: it is of another file.
    pub(crate) fn mend(&self, again: OwnedFd) -> Option<BorrowedFd<'_>> {
        if Identity::of(again.as_fd()).ok()? != self.file {
            return None;
        }
        let gone = self.number();
        if let Some(mended) = self.get() {
            return Some(mended);
        }
        let again = again.into_raw_fd();
        let swapped = self.fd.compare_exchange(gone, again, Ordering::AcqRel, Ordering::Acquire);
        if swapped.is_err() {
            // Another thread was faster.
            // SAFETY: opened by the caller just now, and given to us.
            unsafe { libc::close(again) };
        }
        self.get()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let fd = self.number();
        if self.file.is_at(fd) {
            // SAFETY: it names our file, and the number is this value's own.
            unsafe { libc::close(fd) };
        }
    }
}

/// A new description of the file behind `fd`, whatever has become of its name; under a number that
/// no lock of ours had, so that a number tells our descriptions apart also after they were closed.
pub(crate) fn reopen(fd: BorrowedFd<'_>, writable: bool) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    distinct(rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())?)
}

/// The same description under a number that no lock of ours has.
pub(crate) fn distinct(mut fd: OwnedFd) -> io::Result<OwnedFd> {
    while fork::is_remembered(fd.as_raw_fd()) {
        fd = rustix::io::fcntl_dupfd_cloexec(&fd, fd.as_raw_fd() + 1)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_names_another_file_is_neither_used_nor_closed() {
        let (ours, theirs) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let again = ours.try_clone().unwrap();
        let descriptor = Descriptor::new(ours.into()).unwrap();
        assert!(descriptor.get().is_some());
        // SAFETY: what a careless program does: the number then names another file.
        unsafe { libc::dup2(theirs.as_raw_fd(), descriptor.number()) };
        assert!(descriptor.get().is_none());
        assert!(descriptor.mend(theirs.try_clone().unwrap().into()).is_none());
        let number = descriptor.number();
        drop(descriptor);
        assert!(Identity::of(theirs.as_fd()).unwrap().is_at(number));

        let descriptor = Descriptor::new(again.try_clone().unwrap().into()).unwrap();
        // SAFETY: as above.
        unsafe { libc::close(descriptor.number()) };
        assert!(descriptor.get().is_none());
        assert!(descriptor.mend(again.into()).is_some());
        let (number, file) = (descriptor.number(), descriptor.file());
        drop(descriptor);
        assert!(!file.is_at(number));
    }
}
