//! A buffer that grows as it is filled: in private memory while it is small, then in the region,
//! where it stays.
//!
//! A region's memory comes in granules and at places with room to grow, which is too much for a few
//! kilobytes. So a buffer moves there only when it has outgrown [`PRIVATE`]; what never does is
//! copied behind its fellows at the end.

use insitu_region::{Extent, Growable};

use crate::error::{Error, Result};
use crate::region::Shared;

/// Bytes up to which a buffer is private.
const PRIVATE: usize = 1 << 20;

/// A line of the cache, so that private buffers begin at one as all buffers of a region do.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// A buffer that grows.
pub(crate) struct Store {
    place: Home,
    /// Bytes in use.
    pub len: usize,
}

enum Home {
    Private(Vec<Line>),
    Region(Growable),
}

/// A buffer that is complete.
pub(crate) enum Filled {
    /// Still private.
    Private(Vec<Line>),
    /// In the region, in its final place.
    Region(Extent),
}

impl Store {
    /// Nothing in it.
    pub fn new() -> Store {
        Store { place: Home::Private(Vec::new()), len: 0 }
    }

    /// Bytes of the region's memory that it has.
    pub fn bytes(&self) -> u64 {
        match &self.place {
            Home::Private(_) => 0,
            Home::Region(growable) => growable.len(),
        }
    }

    /// Where it begins. Changes when it is reserved.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match &mut self.place {
            Home::Private(lines) => lines.as_mut_ptr().cast(),
            Home::Region(growable) => growable.as_mut_ptr(),
        }
    }

    /// Makes room for `extra` bytes more, and for what completes a line after them. `interrupt` is
    /// asked now and then while much of it is made present.
    ///
    /// # Errors
    /// `RegionFull`, `Cancelled`, and what else allocating meets; the buffer is as it was.
    pub fn reserve(
        &mut self,
        shared: &Shared,
        extra: usize,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<()> {
        let needed = self.len.checked_add(extra).and_then(|n| n.checked_next_multiple_of(64));
        let needed = needed
            .filter(|n| isize::try_from(*n).is_ok())
            .ok_or_else(|| Error::LimitExceeded("more bytes than memory can have".into()))?;
        match &mut self.place {
            Home::Private(lines) if needed <= PRIVATE => {
                if needed > lines.len() * 64 {
                    let wanted = needed.max(lines.len() * 128).min(PRIVATE) / 64;
                    lines.resize(wanted, Line([0; 64]));
                }
            }
            Home::Private(lines) => {
                let wanted = (needed as u64).saturating_add(PRIVATE as u64);
                let growable = shared.region.grow_with(wanted, interrupt)?;
                // SAFETY: as many bytes are in use as both have; they are different memory.
                unsafe {
                    let from = lines.as_ptr().cast::<u8>();
                    growable.as_mut_ptr().copy_from_nonoverlapping(from, self.len);
                }
                self.place = Home::Region(growable);
            }
            Home::Region(growable) => {
                let moved = growable.extend_with(needed as u64, self.len as u64, interrupt)?;
                if moved > 0 {
                    shared.counters.copy(moved);
                }
            }
        }
        Ok(())
    }

    /// Appends bytes that room was reserved for.
    ///
    /// # Safety
    /// Room for them was reserved.
    pub unsafe fn push(&mut self, bytes: &[u8]) {
        let to = self.as_mut_ptr().wrapping_add(self.len);
        // SAFETY: the caller's promise; the source is not this buffer, which is borrowed mutably.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.len += bytes.len();
    }

    /// Ends the filling: what follows the last byte is zero to the end of its line.
    ///
    /// # Errors
    /// `Timeout`, `RegionCorrupt`.
    pub fn finish(mut self) -> Result<Filled> {
        if self.len > 0 {
            let to = self.as_mut_ptr();
            // SAFETY: room is reserved to the end of the last line.
            unsafe { insitu_kernels::copy::zero_padding(to, self.len) };
        }
        Ok(match self.place {
            Home::Private(lines) => Filled::Private(lines),
            Home::Region(growable) => {
                Filled::Region(growable.seal(self.len.next_multiple_of(64) as u64)?)
            }
        })
    }
}

/// The bytes of private lines.
pub(crate) fn bytes(lines: &[Line]) -> *const u8 {
    lines.as_ptr().cast()
}
