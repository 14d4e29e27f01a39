//! How a call ends: a status, and a message in the caller's error struct. Every entry of the library
//! goes through [`enter`], which lets no panic across the border.

use std::any::Any;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use insitu::{Error, Result};

/// How a call ended: `INSITU_OK`, or what went wrong.
pub type InsituStatus = i32;

/// All is well.
pub(crate) const OK: InsituStatus = 0;
/// A defect of the library, which it has caught.
pub(crate) const INTERNAL: InsituStatus = -1;

/// What went wrong, in words. The struct is the caller's; what it points to is the library's, until
/// `release` is called.
///
/// Fill it with zeros before its first use (`InsituError error = {0};`). A call that succeeds leaves
/// it alone; a call that fails releases what a failed call left in it before, and fills it. When it
/// is no longer wanted, call `error.release(&error)` if `release` is not NULL; that leaves it filled
/// with zeros. Wherever a function takes one, NULL will do for who wants no message.
///
/// One struct is for one call at a time.
#[repr(C)]
pub struct InsituError {
    /// The status that the call returned.
    pub code: InsituStatus,
    /// Zero.
    pub reserved: u32,
    /// A sentence in UTF-8 for people: what was asked, what is the case, what to do. Ends with a
    /// zero byte; NULL if there is none.
    pub message: *const c_char,
    /// Frees the message; NULL if there is nothing to free.
    pub release: Option<unsafe extern "C" fn(error: *mut InsituError)>,
    /// The library's own.
    pub private_data: *mut c_void,
}

impl InsituError {
    pub(crate) const NONE: InsituError = InsituError {
        code: OK,
        reserved: 0,
        message: ptr::null(),
        release: None,
        private_data: ptr::null_mut(),
    };
}

/// Runs what a function of the library does.
pub(crate) fn enter(error: *mut InsituError, body: impl FnOnce() -> Result<()>) -> InsituStatus {
    // What a panic leaves half done is guarded by locks that recover, or belongs to this call.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => OK,
        Ok(Err(what)) => refuse(error, &what),
        Err(panic) => caught(error, panic),
    }
}

#[cold]
fn refuse(error: *mut InsituError, what: &Error) -> InsituStatus {
    let code = i32::try_from(what.code().number()).unwrap_or(INTERNAL);
    fail(error, code, text(what));
    code
}

#[cold]
fn caught(error: *mut InsituError, panic: Box<dyn Any + Send>) -> InsituStatus {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    fail(error, INTERNAL, format!("a defect of insitu, please report it: {said}"));
    // It is anybody's value, whose own end may panic.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    INTERNAL
}

/// The engine's sentence, where it names something of another face in this one's words.
fn text(error: &Error) -> String {
    match error {
        Error::TableExists { name } => format!(
            "a table named {name:?} exists already; pass INSITU_FLAG_REPLACE, or choose another name"
        ),
        Error::CastFailed { column, row, value, to } => {
            format!("cannot cast {column} to {to}: row {row} is {value}")
        }
        other => other.to_string(),
    }
}

fn fail(error: *mut InsituError, code: InsituStatus, text: String) {
    if error.is_null() {
        return;
    }
    // SAFETY: by the contract of every function, the pointer is null or names a struct of the
    // caller's that is filled with zeros or with what a call left in it.
    let before = unsafe { error.read_unaligned() };
    if before.release.is_some_and(|release| ptr::fn_addr_eq(release, OUR_RELEASE)) {
        // SAFETY: only `fail` stores this function, with what it takes.
        unsafe { insitu_error_release(error) };
    }
    let bytes: Vec<u8> = text.into_bytes().into_iter().filter(|byte| *byte != 0).collect();
    let message = CString::new(bytes).unwrap_or_default().into_raw();
    let after = InsituError {
        code,
        message,
        release: Some(OUR_RELEASE),
        private_data: message.cast(),
        ..InsituError::NONE
    };
    // SAFETY: as above.
    unsafe { error.write_unaligned(after) };
}

const OUR_RELEASE: unsafe extern "C" fn(*mut InsituError) = insitu_error_release;

/// Frees the message of an error and fills the struct with zeros: what its `release` does. Does
/// nothing for NULL, and for a struct that is filled with zeros.
///
/// # Safety
/// The pointer is NULL, or names a struct that is filled with zeros or with what a call left in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_error_release(error: *mut InsituError) {
    if error.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let before = unsafe { error.read_unaligned() };
    // SAFETY: as above.
    unsafe { error.write_unaligned(InsituError::NONE) };
    if !before.private_data.is_null() {
        // SAFETY: `CString::into_raw` gave it in `fail`, and it is taken out of the struct here, once.
        drop(unsafe { CString::from_raw(before.private_data.cast()) });
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message(error: &InsituError) -> &str {
        // SAFETY: filled by a call, and not released yet.
        unsafe { CStr::from_ptr(error.message) }.to_str().unwrap()
    }

    #[test]
    fn a_panic_is_a_status_and_a_message() {
        let mut error = InsituError::NONE;
        let status = enter(&raw mut error, || panic!("a test of {}", "panics"));
        assert_eq!((status, error.code), (INTERNAL, INTERNAL));
        assert!(message(&error).ends_with("a test of panics"), "{}", message(&error));
        // SAFETY: filled by a call.
        unsafe { insitu_error_release(&raw mut error) };
        assert!(error.message.is_null() && error.release.is_none());
    }

    #[test]
    fn an_error_is_replaced_by_the_next_and_kept_by_a_success() {
        let mut error = InsituError::NONE;
        let at = &raw mut error;
        assert_eq!(enter(at, || Err(Error::Stale("one".into()))), 15);
        assert_eq!(enter(at, || Err(Error::Unsupported("t\0wo".into()))), 28);
        assert_eq!(enter(at, || Ok(())), OK);
        assert_eq!((error.code, message(&error)), (28, "two"));
        // SAFETY: as its own function.
        unsafe { error.release.unwrap()(&raw mut error) };
        assert_eq!(error.code, OK);
        // SAFETY: filled with zeros.
        unsafe { insitu_error_release(&raw mut error) };
    }

    #[test]
    fn nobody_need_want_a_message() {
        assert_eq!(enter(ptr::null_mut(), || Err(Error::Cancelled)), 29);
    }

    #[test]
    fn what_somebody_else_left_is_not_called() {
        unsafe extern "C" fn never(_: *mut InsituError) {
            std::process::abort();
        }
        let mut error = InsituError { release: Some(never), ..InsituError::NONE };
        assert_eq!(enter(&raw mut error, || Err(Error::Cancelled)), 29);
        // SAFETY: filled by a call.
        unsafe { insitu_error_release(&raw mut error) };
    }
}
