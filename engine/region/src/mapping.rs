//! The two mappings of a region: read-write for the engine, read-only for what is exported.
//!
//! The backings map with their own crates, which take whatever address the kernel gives. Large
//! pages need both bases on 2 MiB, so each mapping is aliased onto an aligned address: `mremap`
//! with an old size of zero makes a second mapping of the same shared pages (`man 2 mremap`).

use std::ffi::c_void;
use std::io;

use crate::layout::BLOCK;

/// One mapping of a whole region at a 2 MiB-aligned address; unmapped when dropped.
pub(crate) struct Mapping {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: a mapping is an address range owned by this value; it is only unmapped in `drop`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Aliases the shared mapping at `source` at an aligned address, with the same protection.
    ///
    /// # Safety
    /// `source` must be the start of a live shared file mapping of at least `bytes` bytes.
    pub(crate) unsafe fn alias(source: *mut u8, bytes: usize) -> io::Result<Self> {
        let block = BLOCK as usize;
        let reach =
            bytes.checked_add(block).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: a fresh private reservation at an address of the kernel's choice.
        let reserved = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reach,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = reserved as usize;
        let base = start.next_multiple_of(block);
        // SAFETY: the target range lies inside the reservation made above, which nobody else
        // knows; an old size of zero leaves the source mapping, which the caller vouches for.
        let alias = unsafe {
            libc::mremap(
                source.cast(),
                0,
                bytes,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                base as *mut c_void,
            )
        };
        if alias == libc::MAP_FAILED {
            let err = io::Error::last_os_error();
            // SAFETY: gives back the reservation made above.
            unsafe { libc::munmap(reserved, reach) };
            return Err(err);
        }
        let page = page_size();
        let end = base + bytes.next_multiple_of(page);
        // SAFETY: the unused head and tail of the reservation, outside the alias.
        unsafe {
            if base > start {
                libc::munmap(reserved, base - start);
            }
            if start + reach > end {
                libc::munmap(end as *mut c_void, start + reach - end);
            }
        }
        let mapping = Self { base: base as *mut u8, bytes };
        // SAFETY: advice over the mapping just made. A core dump with every region in it helps
        // nobody; failing to say so is no reason to fail.
        unsafe { libc::madvise(mapping.base.cast(), bytes, libc::MADV_DONTDUMP) };
        Ok(mapping)
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own; whoever hands out addresses in it keeps the
        // value alive.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// The size of a page of this machine in bytes.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}
