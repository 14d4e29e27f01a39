//! What callers hand in: pointers, texts and structs of theirs, looked at before they are believed.
//! What a pointer names cannot be checked; that it is there, and aligned, can.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use insitu::{Error, Result};

/// Arrays of structs have at most this many items: a plan has no more nodes.
const MOST_ITEMS: usize = 1 << 16;
/// No struct of this interface will ever be as large.
const LARGEST: usize = 4096;

/// # Errors
/// `InvalidArgument` for a pointer that is null or not aligned.
pub(crate) fn check<T>(pointer: *const T, what: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::InvalidArgument(format!("{what} is NULL")));
    }
    if !pointer.is_aligned() {
        return Err(Error::InvalidArgument(format!(
            "{what} is {pointer:p}, which is not a multiple of {}",
            align_of::<T>()
        )));
    }
    Ok(())
}

/// A place of the caller's for a result.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Errors
    /// As [`check`].
    pub(crate) fn new(pointer: *mut T, what: &str) -> Result<Out<T>> {
        check(pointer, what)?;
        Ok(Out(pointer))
    }

    /// The same of a result that need not be wanted.
    ///
    /// # Errors
    /// As [`check`], but for null.
    pub(crate) fn maybe(pointer: *mut T, what: &str) -> Result<Option<Out<T>>> {
        if pointer.is_null() { Ok(None) } else { Out::new(pointer, what).map(Some) }
    }

    /// Stores the result; what lay there before is not looked at.
    ///
    /// # Safety
    /// The pointer that it was made of may be written to.
    pub(crate) unsafe fn set(&self, value: T) {
        // SAFETY: not null and aligned, as checked; the caller's promise.
        unsafe { self.0.write(value) };
    }
}

/// A text of the caller's.
///
/// # Errors
/// `InvalidArgument` for null, and for what is not UTF-8.
///
/// # Safety
/// The pointer is null, or names bytes that end with a zero and stay as they are for `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    check(pointer, what)?;
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|error| {
        Error::InvalidArgument(format!(
            "{what} is not UTF-8, from byte {} on; convert it first",
            error.valid_up_to()
        ))
    })
}

/// The same of a text that may be missing.
///
/// # Errors
/// As [`text`], but for null.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn text_if<'a>(pointer: *const c_char, what: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { text(pointer, what) }.map(Some)
}

/// An array of the caller's.
///
/// # Errors
/// `InvalidArgument` for a pointer that is null or not aligned, unless there is nothing in it;
/// `LimitExceeded` for more items than memory can hold.
///
/// # Safety
/// The pointer names so many items, which stay as they are for `'a`.
pub(crate) unsafe fn array<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check(pointer, what)?;
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Error::LimitExceeded(format!("{what} would have {len} items")));
    }
    // SAFETY: not null, aligned, of a size that memory can have; the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// An array of structs of the caller's, of which there cannot be many.
///
/// # Errors
/// As [`array`].
///
/// # Safety
/// As [`array`].
pub(crate) unsafe fn structs<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len > MOST_ITEMS {
        return Err(Error::LimitExceeded(format!(
            "{what} would have {len} items, at most {MOST_ITEMS} are taken"
        )));
    }
    // SAFETY: the caller's promise.
    unsafe { array(pointer, len, what) }
}

/// A struct that begins with its size, a `size_t`, and may grow in later versions of the library.
///
/// # Safety
/// Filled with any bytes, the type is valid.
pub(crate) unsafe trait Versioned: Copy {
    /// The size that the struct had in the first version.
    const FIRST: usize;
    /// Its name.
    const NAME: &'static str;
}

/// A struct of the caller's, of whatever version: what an older caller does not know is zero, what a
/// newer one knows more has to be.
///
/// # Errors
/// `InvalidArgument` for null, a pointer that is not aligned, and a size that no version has had;
/// `Unsupported` for what only a later version knows.
///
/// # Safety
/// The pointer is null, or names a struct of as many bytes as it says.
pub(crate) unsafe fn versioned<T: Versioned>(pointer: *const T) -> Result<T> {
    check(pointer, T::NAME)?;
    // SAFETY: the caller's promise: at least the size is there.
    let size = unsafe { pointer.cast::<usize>().read() };
    let known = size_of::<T>();
    if size == known {
        // SAFETY: aligned, and so large; the caller's promise.
        return Ok(unsafe { pointer.read() });
    }
    check_size::<T>(size)?;
    for at in known..size {
        // SAFETY: the struct has `size` bytes.
        if unsafe { pointer.cast::<u8>().add(at).read() } != 0 {
            return Err(Error::Unsupported(format!(
                "a {} asks for what a later version of insitu does: it has {size} bytes, {known} \
                 are known here, and byte {at} is not 0",
                T::NAME
            )));
        }
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: both have as many bytes; the caller's struct is not the copy.
    unsafe {
        let to = copy.as_mut_ptr().cast::<u8>();
        pointer.cast::<u8>().copy_to_nonoverlapping(to, size.min(known));
    }
    // SAFETY: filled with bytes, of which any are valid.
    Ok(unsafe { copy.assume_init() })
}

/// Fills a struct of the caller's, of whatever version: as much of it as it says it has.
///
/// # Errors
/// `InvalidArgument` for null, a pointer that is not aligned, and a size that no version has had.
///
/// # Safety
/// The pointer is null, or names a struct of as many bytes as it says, which may be written to.
pub(crate) unsafe fn fill<T: Versioned>(pointer: *mut T, mut value: T) -> Result<()> {
    check(pointer, T::NAME)?;
    // SAFETY: the caller's promise: at least the size is there.
    let size = unsafe { pointer.cast::<usize>().read() };
    check_size::<T>(size)?;
    let from = (&raw mut value).cast::<u8>();
    // SAFETY: both have as many bytes; the size, which comes first, stays the caller's.
    unsafe {
        from.cast::<usize>().write(size);
        pointer.cast::<u8>().copy_from_nonoverlapping(from, size.min(size_of::<T>()));
    }
    for at in size_of::<T>()..size {
        // SAFETY: the struct has `size` bytes.
        unsafe { pointer.cast::<u8>().add(at).write(0) };
    }
    Ok(())
}

fn check_size<T: Versioned>(size: usize) -> Result<()> {
    if size < T::FIRST || size > LARGEST {
        return Err(Error::InvalidArgument(format!(
            "the size of a {0} is given as {size}; set it to sizeof({0})",
            T::NAME
        )));
    }
    Ok(())
}

/// Stores a text where the caller has room for it, cut if it has not, and how much room it wants:
/// its bytes and a zero.
///
/// # Errors
/// `InvalidArgument` if `needed` is not aligned.
///
/// # Safety
/// `buffer` is null or may be written to for `capacity` bytes, `needed` is null or may be written to.
pub(crate) unsafe fn give_text(
    text: &str,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> Result<()> {
    let needed = Out::maybe(needed, "needed")?;
    if let Some(last) = capacity.checked_sub(1)
        && !buffer.is_null()
    {
        let mut len = text.len().min(last);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        // SAFETY: `len` is less than `capacity`, the caller's promise.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), len);
            buffer.cast::<u8>().add(len).write(0);
        }
    }
    if let Some(needed) = needed {
        // SAFETY: the caller's promise.
        unsafe { needed.set(text.len() + 1) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Grown {
        size: usize,
        old: u64,
        new: u64,
    }

    // SAFETY: of numbers only.
    unsafe impl Versioned for Grown {
        const FIRST: usize = 16;
        const NAME: &'static str = "Grown";
    }

    fn read(words: &[u64]) -> Result<Grown> {
        // SAFETY: the words are there, however many the first one says, or the size is refused.
        unsafe { versioned(words.as_ptr().cast()) }
    }

    #[test]
    fn structs_of_older_and_newer_callers_are_read() {
        assert_eq!(read(&[16, 5, 99]).unwrap(), Grown { size: 16, old: 5, new: 0 });
        assert_eq!(read(&[24, 5, 6]).unwrap(), Grown { size: 24, old: 5, new: 6 });
        assert_eq!(read(&[32, 5, 6, 0]).unwrap(), Grown { size: 32, old: 5, new: 6 });
        let unknown = read(&[32, 5, 6, 1 << 40]).unwrap_err();
        assert!(matches!(unknown, Error::Unsupported(_)), "{unknown}");
        for size in [0, 8, 15, 4097, u64::MAX] {
            assert!(matches!(read(&[size, 0, 0]), Err(Error::InvalidArgument(_))), "{size}");
        }
        let bytes = [0_u64; 4];
        // SAFETY: not aligned, so it is not read.
        let crooked = unsafe { versioned::<Grown>(bytes.as_ptr().wrapping_byte_add(1).cast()) };
        assert!(crooked.unwrap_err().to_string().contains("not a multiple of 8"));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let (mut buffer, mut needed) = ([7_u8; 8], 0);
        // SAFETY: room for 3 of 8 bytes.
        unsafe { give_text("aé", buffer.as_mut_ptr().cast(), 3, &raw mut needed) }.unwrap();
        assert_eq!((&buffer[..4], needed), (&[b'a', 0, 7, 7][..], 4));
        // SAFETY: room for 8 bytes.
        unsafe { give_text("aé", buffer.as_mut_ptr().cast(), 8, std::ptr::null_mut()) }.unwrap();
        assert_eq!(&buffer[..5], "aé\0\x07".as_bytes());
        // SAFETY: nothing is written.
        unsafe { give_text("aé", std::ptr::null_mut(), 0, std::ptr::null_mut()) }.unwrap();
    }

    #[test]
    fn arrays_that_memory_cannot_hold_are_refused() {
        let one = [1_u64];
        // SAFETY: refused before it is read.
        let huge = unsafe { array(one.as_ptr(), usize::MAX / 4, "an array") };
        assert!(matches!(huge, Err(Error::LimitExceeded(_))));
        // SAFETY: nothing is read.
        assert!(unsafe { array::<u64>(std::ptr::null(), 0, "an array") }.unwrap().is_empty());
        // SAFETY: null is refused.
        assert!(unsafe { array::<u64>(std::ptr::null(), 1, "an array") }.is_err());
    }
}
