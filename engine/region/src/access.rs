//! Bounds-checked access to shared bytes: atomics at offsets, and copies in and out.
//!
//! Another process may write any byte at any time, so nothing here ever makes a `&[u8]` or a
//! `&mut [u8]` of shared memory. What is read is a copy, to be checked after it was copied.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::error::{Error, Result};

#[cfg(not(target_endian = "little"))]
compile_error!("the region's numbers are little-endian, and so must the processor's be");

/// The bytes of a mapped region. Does not own the mapping.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    base: *mut u8,
    span: u64,
}

// SAFETY: a `Bytes` is an address and a length; all access goes through atomics or through raw
// copies whose races are part of the protocol (payload of extents that have one owner).
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Safety
    /// `base` must be the start of a mapping of at least `span` bytes, 8-aligned, that outlives
    /// every use of the result. If the mapping is read-only, only loads may be made through it.
    pub(crate) unsafe fn new(base: *mut u8, span: u64) -> Self {
        Self { base, span }
    }

    /// The address of `len` bytes at `offset`.
    pub(crate) fn range(&self, offset: u64, len: u64) -> Result<*mut u8> {
        match offset.checked_add(len) {
            // SAFETY: `offset + len <= span`, so the result lies in the mapping that `new` was
            // promised (or one past its end, for no bytes).
            Some(end) if end <= self.span => Ok(unsafe { self.base.add(offset as usize) }),
            _ => Err(outside(offset)),
        }
    }

    /// The 64-bit word at `offset`.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> Result<&AtomicU64> {
        if offset & 7 != 0 || self.span < 8 || offset > self.span - 8 {
            return Err(outside(offset));
        }
        // SAFETY: in bounds and aligned by the test above (the base is aligned by `new`'s
        // contract); the memory is only ever accessed through atomics while it is metadata, and
        // stays mapped by `new`'s contract.
        Ok(unsafe { AtomicU64::from_ptr(self.base.add(offset as usize).cast()) })
    }

    /// The 32-bit word at `offset`.
    #[inline]
    pub(crate) fn half(&self, offset: u64) -> Result<&AtomicU32> {
        if offset & 3 != 0 || self.span < 4 || offset > self.span - 4 {
            return Err(outside(offset));
        }
        // SAFETY: as in `word`.
        Ok(unsafe { AtomicU32::from_ptr(self.base.add(offset as usize).cast()) })
    }

    /// Copies `len` bytes at `offset` out. Somebody may be writing them: then the copy is of no one
    /// moment, and whoever wants to believe it looks afterwards whether it still stands.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let from = self.range(offset, len)?;
        let mut out = room(offset, len)?;
        let to: *mut u8 = out.as_mut_ptr();
        // SAFETY: `range` checked the source, and `each` gives places within it; the words are
        // aligned, and the destination has room for as much. All `len` bytes are written.
        unsafe {
            each(
                from,
                len as usize,
                |at| *to.add(at) = AtomicU8::from_ptr(from.add(at)).load(Ordering::Relaxed),
                |at| {
                    let word = AtomicU64::from_ptr(from.add(at).cast()).load(Ordering::Relaxed);
                    to.add(at).cast::<u64>().write_unaligned(word);
                },
            );
            out.set_len(len as usize);
        }
        Ok(out)
    }

    /// Copies `len` bytes at `offset` out, of content that a lease keeps: faster than [`Bytes::read`]
    /// where there is much of it.
    pub(crate) fn read_content(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let from = self.range(offset, len)?;
        let mut out = room(offset, len)?;
        // SAFETY: `range` checked the source; the destination has room for `len` bytes and is
        // fresh, so it cannot overlap. Bytes are copied, and any bytes are valid `u8`s.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), len as usize);
            out.set_len(len as usize);
        }
        Ok(out)
    }

    /// Copies `bytes` in at `offset`. Somebody may be reading what is there.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let to = self.range(offset, bytes.len() as u64)?;
        let from = bytes.as_ptr();
        // SAFETY: `range` checked the destination, and `each` gives places within it and within
        // `bytes`; the words are aligned.
        unsafe {
            each(
                to,
                bytes.len(),
                |at| AtomicU8::from_ptr(to.add(at)).store(*from.add(at), Ordering::Relaxed),
                |at| {
                    let word = from.add(at).cast::<u64>().read_unaligned();
                    AtomicU64::from_ptr(to.add(at).cast()).store(word, Ordering::Relaxed);
                },
            );
        }
        Ok(())
    }

    /// Zeroes `len` bytes at `offset`.
    pub(crate) fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let to = self.range(offset, len)?;
        // SAFETY: `range` checked the destination, and `each` gives places within it; the words are
        // aligned.
        unsafe {
            each(
                to,
                len as usize,
                |at| AtomicU8::from_ptr(to.add(at)).store(0, Ordering::Relaxed),
                |at| AtomicU64::from_ptr(to.add(at).cast()).store(0, Ordering::Relaxed),
            );
        }
        Ok(())
    }
}

/// Room for a copy of `len` bytes at `offset`.
fn room(offset: u64, len: u64) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match out.try_reserve_exact(len as usize) {
        Ok(()) => Ok(out),
        Err(_) => Err(Error::corrupt(format!("{len} bytes are more than can be copied"), offset)),
    }
}

/// Calls `word` with the places of all whole words in `len` bytes of shared memory, and `byte` with
/// those of the bytes before and after them: where threads meet without a lock, every access is
/// atomic.
#[inline(always)]
fn each(shared: *mut u8, len: usize, byte: impl Fn(usize), word: impl Fn(usize)) {
    let first = shared.align_offset(8).min(len);
    let last = first + (len - first) / 8 * 8;
    (0..first).chain(last..len).for_each(byte);
    (first..last).step_by(8).for_each(word);
}

#[cold]
fn outside(offset: u64) -> Error {
    Error::corrupt("a position lies outside the region", offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_span_can_be_reached() {
        let mut memory = [0_u64; 4];
        // SAFETY: the array outlives `bytes`.
        let bytes = unsafe { Bytes::new(memory.as_mut_ptr().cast(), 32) };
        assert!(bytes.word(24).is_ok());
        assert!(bytes.word(25).is_err() && bytes.word(32).is_err() && bytes.word(4).is_err());
        assert!(bytes.word(!7).is_err());
        assert!(bytes.half(28).is_ok() && bytes.half(32).is_err() && bytes.half(2).is_err());
        assert!(bytes.read(30, 3).is_err() && bytes.read(u64::MAX, 2).is_err());
        assert!(bytes.write(31, b"ab").is_err());
        bytes.write(8, b"x").unwrap();
        assert_eq!(bytes.read(8, 2).unwrap(), b"x\0");
    }

    #[test]
    fn pieces_of_any_place_and_length_are_copied() {
        let mut memory = [0_u64; 8];
        // SAFETY: the array outlives `bytes`.
        let bytes = unsafe { Bytes::new(memory.as_mut_ptr().cast(), 64) };
        let mut expected = [0_u8; 64];
        for at in 0..9 {
            for len in 0..25 {
                let piece: Vec<u8> = (0..len).map(|i| (at * 41 + i) as u8).collect();
                expected[at..at + len].copy_from_slice(&piece);
                bytes.write(at as u64, &piece).unwrap();
                assert_eq!(bytes.read(at as u64, len as u64).unwrap(), piece);
                assert_eq!(bytes.read(0, 64).unwrap(), expected);
            }
        }
    }
}
