//! The library itself: its versions, and the threads that it uses.

use std::ffi::c_char;

use crate::status::{InsituError, InsituStatus, enter};

/// The interface that this header describes. It grows by new functions, and by new fields at the end
/// of structs that begin with their size; whatever else changes raises this number, and that in the
/// shared library's name (`libinsitu.so.1`).
pub const INSITU_ABI_VERSION: u32 = 1;

/// The interface that the library has which the program runs with. If it is another than
/// `INSITU_ABI_VERSION`, use nothing else of it.
#[unsafe(no_mangle)]
pub extern "C" fn insitu_abi_version() -> u32 {
    INSITU_ABI_VERSION
}

/// The version of the library which the program runs with, as text: `"0.1.0"`.
#[unsafe(no_mangle)]
pub extern "C" fn insitu_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Sets how many threads work on a call, the caller's included, from the next one on; 0 goes back to
/// what `INSITU_THREADS` in the environment says, or the number of CPUs.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_set_threads(
    threads: usize,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        insitu::set_threads(threads);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn versions_are_told() {
        // SAFETY: a static text that ends with a zero.
        let version = unsafe { CStr::from_ptr(insitu_version()) };
        assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
        assert_eq!(insitu_abi_version(), INSITU_ABI_VERSION);
    }
}
