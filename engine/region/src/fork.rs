//! Knowing that this process is a forked child.
//!
//! A child inherits handles whose session, locks and pins are the parent's. It must use none of
//! them and release none. Every session carries the generation it was made in; a child has
//! another. The check is one load from a page that the kernel empties in a child
//! (`MADV_WIPEONFORK`), so that it also sees forks that skip the `pthread_atfork` handlers.

use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// How many lock descriptors a child can close for the parent.
const REMEMBERED: usize = 1024;

static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
static START: Once = Once::new();
/// The last generation given out; inherited by a child, which then counts on.
static LAST: AtomicU64 = AtomicU64::new(1);
/// Lock descriptors of this process, stored as the number plus one.
static LOCKS: [AtomicI32; REMEMBERED] = [const { AtomicI32::new(0) }; REMEMBERED];

/// The generation of this process: differs between a parent and its forked child.
#[inline]
pub(crate) fn generation() -> u64 {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        return start();
    }
    // SAFETY: once set, the pointer names a page that is never unmapped.
    match unsafe { (*page).load(Ordering::Relaxed) } {
        0 => enter_child(),
        generation => generation,
    }
}

#[cold]
fn start() -> u64 {
    START.call_once(|| {
        let bytes = crate::mapping::page_size();
        // SAFETY: a fresh private page at an address of the kernel's choice.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        static FALLBACK: AtomicU64 = AtomicU64::new(0);
        let word: *mut AtomicU64 = if page == libc::MAP_FAILED {
            // Without the page, the handler below still tells a child.
            (&raw const FALLBACK).cast_mut()
        } else {
            // SAFETY: advice over the page just made.
            unsafe { libc::madvise(page, bytes, libc::MADV_WIPEONFORK) };
            page.cast()
        };
        // SAFETY: `word` names either the fresh page (zeroed, aligned) or a static.
        unsafe { (*word).store(LAST.load(Ordering::Relaxed), Ordering::Relaxed) };
        PAGE.store(word, Ordering::Release);
        // SAFETY: the handler is async-signal-safe: atomics and `close` only.
        unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
    });
    LAST.load(Ordering::Relaxed)
}

extern "C" fn after_fork() {
    enter_child();
}

/// Runs once in a child, from the handler or from the first check. No other thread exists yet or
/// they race harmlessly: both store a generation that the parent does not have.
#[cold]
fn enter_child() -> u64 {
    let generation = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    for lock in &LOCKS {
        let fd = lock.swap(0, Ordering::Relaxed);
        if fd > 0 {
            // SAFETY: the child's copy of a descriptor that only `LockFile` uses, which checks
            // the generation before every use. Closing it leaves the parent's lock alone: the
            // description lives on in the parent.
            unsafe { libc::close(fd - 1) };
        }
    }
    crate::registry::abandon();
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        // SAFETY: as in `generation`.
        unsafe { (*page).store(generation, Ordering::Relaxed) };
    }
    generation
}

/// Has a child close `fd`.
pub(crate) fn remember(fd: i32) {
    generation();
    for lock in &LOCKS {
        if lock.compare_exchange(0, fd + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// Undoes [`remember`].
pub(crate) fn forget(fd: i32) {
    for lock in &LOCKS {
        if lock.compare_exchange(fd + 1, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}
