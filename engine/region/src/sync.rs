//! The barrier of durable files: what was written before it is on the disk after it.

use std::io;
use std::os::fd::BorrowedFd;

/// Waits until all that was written to the file so far, through any mapping of any process, is on
/// the disk.
pub(crate) fn barrier(fd: BorrowedFd<'_>, what: &'static str) -> io::Result<()> {
    #[cfg(test)]
    testing::refuse(what)?;
    loop {
        match rustix::fs::fdatasync(fd) {
            Ok(()) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    crate::kill::point(what);
    Ok(())
}

/// Has the system begin to write a range, and waits for nothing. It is only a head start.
pub(crate) fn begin(fd: BorrowedFd<'_>, offset: u64, bytes: u64) {
    use std::os::fd::AsRawFd;
    // SAFETY: a system call on an open descriptor, without memory of ours.
    let _ = unsafe {
        libc::sync_file_range(
            fd.as_raw_fd(),
            offset as libc::off64_t,
            bytes as libc::off64_t,
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
}

/// Disks that fail on demand.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static REFUSED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Has this thread's next barrier of that name fail.
    pub(crate) fn fail_once(what: &'static str) {
        REFUSED.set(Some(what));
    }

    pub(super) fn refuse(what: &str) -> io::Result<()> {
        if REFUSED.get() == Some(what) {
            REFUSED.set(None);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}
