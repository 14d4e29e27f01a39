//! Reserving memory from the operating system before it is handed out, so that no store can fail.
//!
//! A sparse mapping promises nothing: a store into a full tmpfs is SIGBUS, and one at a control
//! group's limit is SIGKILL. Shared memory is made present in blocks of 2 MiB: one page by
//! `MADV_POPULATE_WRITE`, which fails where a store would fault, then the whole block as a large
//! page by `MADV_COLLAPSE`, which fails where the group is at its limit. Files are allocated.
//!
//! Large pages are made by several threads: one that zeroes them is bound by its processor, not by
//! memory (800 MB in 210 ms by one thread and 157 by two on a loaded machine). Small pages are not:
//! two threads were no quicker (790 and 706 ms), since they wait for each other in the kernel.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use crate::backing::Backing;
use crate::cgroup;
use crate::error::FullCause;
use crate::fork;
use crate::layout::{BLOCK, GRANULE, PAGE};

const MADV_POPULATE_WRITE: libc::c_int = 23;
const MADV_COLLAPSE: libc::c_int = 25;
/// How often a block that is busy for the moment is tried again.
const RETRIES: u32 = 8;
/// From so many blocks on several threads make them.
const PARALLEL: u64 = 8;
/// The most threads that make large pages.
const MOST_THREADS: u64 = 4;
/// What is reserved between two looks at whether to stop.
const STEP: u64 = 64 << 20;

/// Why a range could not be reserved.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no room, for this cause. What was taken on the way has been given back.
    Full(FullCause),
    /// The caller's callback asked to stop. What was taken has been given back.
    Cancelled,
    /// The caller's callback has forked, and this is the child: the memory is its parent's.
    Forked,
    /// The system failed otherwise.
    Io(io::Error),
}

/// What came of trying to make a large page.
enum Large {
    Made,
    /// Not here, or not now: small pages may do.
    Refused,
}

/// What reserving works on: a mapping and the file under it.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// The read-write mapping's base, 2 MiB-aligned.
    pub(crate) base: *mut u8,
    /// The file.
    pub(crate) file: &'a dyn Backing,
    /// Whether the file is on tmpfs, where large pages can be had.
    pub(crate) collapses: bool,
    /// How many processes take from the same memory.
    pub(crate) peers: u64,
}

// SAFETY: the base is an address that is handed to the kernel alone; the caller's range is its own.
unsafe impl Sync for Ground<'_> {}

impl Ground<'_> {
    /// Reserves `len` bytes at `offset`, both multiples of a page and within the mapping, in steps
    /// between which `interrupt` may ask to stop.
    pub(crate) fn reserve(
        &self,
        offset: u64,
        len: u64,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        if len == 0 {
            return Ok(());
        }
        if !self.collapses {
            return self.allocate(offset, len);
        }
        if self.room() < len {
            // Some of it may be there, of somebody who died while reserving it.
            self.punch(offset, len);
            if self.room() < len {
                return Err(Failure::Full(FullCause::Backing));
            }
        }
        let began = fork::generation();
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let next = (at / STEP * STEP + STEP).min(end);
            let stop = at > offset && interrupt();
            if fork::generation() != began {
                return Err(Failure::Forked);
            }
            let done = if stop { Err(Failure::Cancelled) } else { self.populate(at, next) };
            if let Err(e) = done {
                // The kernel leaves behind what it took before it failed.
                self.punch(offset, next - offset);
                return Err(e);
            }
            at = next;
        }
        Ok(())
    }

    /// What the file system under the region has left. Asked first, so that who cannot succeed does
    /// not take the last blocks from others for as long as it takes to fail.
    pub(crate) fn room(&self) -> u64 {
        match self.file.fd().ok().map(rustix::fs::fstatfs) {
            // Without a limit it counts no blocks.
            Some(Ok(stat)) if stat.f_blocks > 0 => {
                stat.f_bavail.saturating_mul(u64::try_from(stat.f_bsize).unwrap_or(1))
            }
            _ => u64::MAX,
        }
    }

    /// Gives pages back to the system; what was there reads as zero afterwards.
    pub(crate) fn punch(&self, offset: u64, len: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Ok(fd) = self.file.fd() {
            let _ = rustix::fs::fallocate(fd, flags, offset, len);
        }
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.file.fd().map_err(|e| Failure::Io(io::Error::other(e)))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), Failure> {
        let done = self.allocate_keep(offset, len);
        if done.is_err() {
            self.punch(offset, len);
        }
        done
    }

    /// Makes `[from, to)` present: whole blocks as large pages, and the rest as small ones.
    fn populate(&self, from: u64, to: u64) -> Result<(), Failure> {
        let low = from.next_multiple_of(BLOCK).min(to);
        let high = (to / BLOCK * BLOCK).max(low);
        let refused = self.large_pages(low, high)?;
        self.small_pages(from, low)?;
        for at in refused {
            self.small_pages(at, at + BLOCK)?;
        }
        self.small_pages(high, to)
    }

    /// Makes the blocks in `[from, to)` large pages; gives those that are none, in order.
    fn large_pages(&self, from: u64, to: u64) -> Result<Vec<u64>, Failure> {
        let blocks = (to - from) / BLOCK;
        let mut threads = 1;
        if blocks >= PARALLEL {
            let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
            threads = cpus.min(MOST_THREADS);
        }
        let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let outcome = Mutex::new((Vec::new(), None));
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let block = next.fetch_add(1, Ordering::Relaxed);
                if block >= blocks {
                    break;
                }
                let at = from + block * BLOCK;
                let made = self.large_page(at, threads);
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                match made {
                    Ok(Large::Made) => {}
                    Ok(Large::Refused) => outcome.0.push(at),
                    Err(e) => {
                        failed.store(true, Ordering::Relaxed);
                        outcome.1 = Some(e);
                    }
                }
            }
        };
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 1..threads {
                    // Without a thread there is this one still.
                    let helper = std::thread::Builder::new().stack_size(256 << 10);
                    let _ = helper.spawn_scoped(scope, work);
                }
                work();
            });
        }
        let (mut refused, failure) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => Err(failure),
            None => {
                refused.sort_unstable();
                Ok(refused)
            }
        }
    }

    /// One large page, if that is possible without coming too near to a control group's limit.
    fn large_page(&self, at: u64, threads: u64) -> Result<Large, Failure> {
        if !cgroup::allows(BLOCK, self.peers * threads) {
            return Ok(Large::Refused);
        }
        match self.pages(at, PAGE) {
            Ok(()) => {}
            Err(Failure::Full(FullCause::Cgroup)) => return Ok(Large::Refused),
            Err(e) => return Err(e),
        }
        for attempt in 0..RETRIES {
            match self.advise(at, BLOCK, MADV_COLLAPSE) {
                Ok(()) => return Ok(Large::Made),
                Err(libc::EAGAIN) => {}
                // The group is at its limit, or memory is in too small pieces. Once more, for what
                // others give back; small pages can do without.
                Err(libc::EBUSY | libc::ENOMEM) if attempt < 2 => {
                    std::thread::sleep(std::time::Duration::from_micros(100 << attempt));
                }
                // Or no such advice (before Linux 6.1), no large pages here, no room for one.
                Err(_) => break,
            }
        }
        Ok(Large::Refused)
    }

    /// Small pages, a few at a time where a control group's limit is near: populating at the limit
    /// would kill us.
    fn small_pages(&self, from: u64, to: u64) -> Result<(), Failure> {
        let mut at = from;
        while at < to {
            let mut next = to.min(at / BLOCK * BLOCK + BLOCK);
            if !cgroup::allows(next - at, self.peers) {
                next = to.min(at / GRANULE * GRANULE + GRANULE);
                if !cgroup::allows(next - at, self.peers) {
                    return Err(Failure::Full(FullCause::Cgroup));
                }
            }
            self.pages(at, next - at)?;
            at = next;
        }
        Ok(())
    }

    fn pages(&self, at: u64, len: u64) -> Result<(), Failure> {
        for _ in 0..RETRIES {
            match self.advise(at, len, MADV_POPULATE_WRITE) {
                Ok(()) => return Ok(()),
                Err(libc::EINTR | libc::EAGAIN) => {}
                Err(libc::EFAULT) => return Err(Failure::Full(FullCause::Backing)),
                Err(libc::ENOMEM) => return Err(Failure::Full(FullCause::Cgroup)),
                // No such advice (before Linux 5.14). What is there stays in any case: of metadata
                // some may be in use, and what is being reserved is punched by who asked for it.
                Err(libc::EINVAL) => return self.allocate_keep(at, len),
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
        if !self.collapses {
            return self.allocate_keep(offset, len);
        }
        if !cgroup::allows_metadata(len, self.peers) {
            return Err(Failure::Full(FullCause::Cgroup));
        }
        self.pages(offset, len)
    }

    /// As `allocate`, but without punching on failure: some of it may be in use.
    fn allocate_keep(&self, offset: u64, len: u64) -> Result<(), Failure> {
        let fd = self.fd()?;
        loop {
            match rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, offset, len) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing;
    use crate::types::Location;

    /// Without `MADV_POPULATE_WRITE` (before Linux 5.14) and without room.
    #[test]
    fn what_is_there_stays_when_there_is_no_room_for_more_of_it() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let span = 1 << 42;
        let location = Location::File(directory.path().join("region"));
        let file = backing::create(&location, span).unwrap();
        let mapping = file.map(BLOCK, true).unwrap();
        // An address that is no page's is answered as an unknown advice is.
        let base = mapping.base().wrapping_add(1);
        let ground = Ground { base, file: file.as_ref(), collapses: true, peers: 1 };
        if ground.room() >= span {
            return eprintln!("not run: shared memory has no limit here");
        }
        ground.reserve_small(0, PAGE).unwrap();
        rustix::io::pwrite(file.fd().unwrap(), b"in use", 0).unwrap();
        let refused = ground.reserve_small(0, span);
        assert!(matches!(refused, Err(Failure::Full(FullCause::Backing))), "{refused:?}");
        assert_eq!(backing::head(file.fd().unwrap(), 6).unwrap(), b"in use");
    }
}
