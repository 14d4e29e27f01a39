//! Reserving memory from the operating system before it is handed out, so that no store can fail.
//!
//! A sparse mapping promises nothing: a store into a full tmpfs is SIGBUS, and one at a control
//! group's limit is SIGKILL. Shared memory is made present in blocks of 2 MiB: one page by
//! `MADV_POPULATE_WRITE`, which fails where a store would fault, then the whole block as a large
//! page by `MADV_COLLAPSE`, which fails where the group is at its limit. Files are allocated.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FallocateFlags;

use crate::error::FullCause;
use crate::layout::{BLOCK, PAGE};

const MADV_POPULATE_WRITE: libc::c_int = 23;
const MADV_COLLAPSE: libc::c_int = 25;
/// How often a block that is busy for the moment is tried again.
const RETRIES: u32 = 8;

/// Why a range could not be reserved.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no room, for this cause. What was taken on the way has been given back.
    Full(FullCause),
    /// The system failed otherwise.
    Io(io::Error),
}

/// What reserving works on: a mapping and the file under it.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// The read-write mapping's base, 2 MiB-aligned.
    pub(crate) base: *mut u8,
    /// The file.
    pub(crate) fd: BorrowedFd<'a>,
    /// Whether the file is on tmpfs, where large pages can be had.
    pub(crate) collapses: bool,
}

impl Ground<'_> {
    /// Reserves `len` bytes at `offset`, both multiples of a page and within the mapping.
    pub(crate) fn reserve(&self, offset: u64, len: u64) -> Result<(), Failure> {
        if len == 0 {
            return Ok(());
        }
        if !self.collapses {
            return self.allocate(offset, len);
        }
        self.populate(offset, len)
    }

    /// Gives pages back to the system; what was there reads as zero afterwards.
    pub(crate) fn punch(&self, offset: u64, len: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(self.fd, flags, offset, len);
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), Failure> {
        loop {
            match rustix::fs::fallocate(self.fd, FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    self.punch(offset, len);
                    return Err(Failure::Full(FullCause::Backing));
                }
                Err(e) => return Err(Failure::Io(e.into())),
            }
        }
    }

    fn populate(&self, offset: u64, len: u64) -> Result<(), Failure> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let next = (at / BLOCK * BLOCK + BLOCK).min(end);
            let done = if at.is_multiple_of(BLOCK) && next - at == BLOCK {
                self.block(at)
            } else if crate::cgroup::room() < 2 * BLOCK {
                // Populating at the control group's limit would kill us.
                Err(Failure::Full(FullCause::Cgroup))
            } else {
                self.pages(at, next - at)
            };
            if let Err(e) = done {
                // The kernel leaves behind what it took before it failed.
                self.punch(offset, next - offset);
                return Err(e);
            }
            at = next;
        }
        Ok(())
    }

    /// One large page, or its 512 small ones.
    fn block(&self, at: u64) -> Result<(), Failure> {
        self.pages(at, PAGE)?;
        for attempt in 0..RETRIES {
            match self.advise(at, BLOCK, MADV_COLLAPSE) {
                Ok(()) => return Ok(()),
                Err(libc::EAGAIN) => {}
                Err(libc::EBUSY | libc::ENOMEM) => {
                    if attempt > 0 {
                        std::thread::sleep(std::time::Duration::from_micros(50 << attempt));
                    }
                    if attempt >= 2 && crate::cgroup::room() > 2 * BLOCK {
                        break;
                    }
                }
                // No such advice (before Linux 6.1), or no large pages here.
                Err(libc::EINVAL) => break,
                Err(_) => break,
            }
        }
        // Small pages then, if the control group would not kill us for them.
        if crate::cgroup::room() < 2 * BLOCK {
            return Err(Failure::Full(FullCause::Cgroup));
        }
        self.pages(at, BLOCK)
    }

    fn pages(&self, at: u64, len: u64) -> Result<(), Failure> {
        for _ in 0..RETRIES {
            match self.advise(at, len, MADV_POPULATE_WRITE) {
                Ok(()) => return Ok(()),
                Err(libc::EINTR | libc::EAGAIN) => {}
                Err(libc::EFAULT) => return Err(Failure::Full(FullCause::Backing)),
                Err(libc::ENOMEM) => return Err(Failure::Full(FullCause::Cgroup)),
                // No such advice (before Linux 5.14).
                Err(libc::EINVAL) => return self.allocate(at, len),
                Err(code) => return Err(Failure::Io(io::Error::from_raw_os_error(code))),
            }
        }
        Err(Failure::Io(io::Error::from_raw_os_error(libc::EAGAIN)))
    }

    fn advise(&self, at: u64, len: u64, advice: libc::c_int) -> Result<(), i32> {
        // SAFETY: the caller's range lies in the mapping; both advices only make pages present.
        let done =
            unsafe { libc::madvise(self.base.add(at as usize).cast(), len as usize, advice) };
        if done == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

impl Ground<'_> {
    /// Reserves a little metadata: page by page, and what is there already stays.
    pub(crate) fn reserve_small(&self, offset: u64, len: u64) -> Result<(), Failure> {
        if self.collapses { self.pages(offset, len) } else { self.allocate_keep(offset, len) }
    }

    /// As `allocate`, but without punching on failure: some of it may be in use.
    fn allocate_keep(&self, offset: u64, len: u64) -> Result<(), Failure> {
        loop {
            match rustix::fs::fallocate(self.fd, FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    return Err(Failure::Full(FullCause::Backing));
                }
                Err(e) => return Err(Failure::Io(e.into())),
            }
        }
    }
}
