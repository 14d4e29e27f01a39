//! Knowing of forks: in the process that forks, before and after, and in the child.
//!
//! A child inherits handles whose session, locks and pins are the parent's. It must release none of
//! them, and works with them only once it has a session of its own: `handover` gives it one at the
//! fork. Every session carries the generation of the process that it belongs to; a child has
//! another. The check is one load from a page that the kernel empties in a child
//! (`MADV_WIPEONFORK`), so that it also sees forks that skip the `pthread_atfork` handlers.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

use crate::descriptor::Identity;
use crate::handover::Handover;

/// How many lock descriptors a child can close for the parent.
const REMEMBERED: usize = 1024;

static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
/// Whether the kernel empties the page in a child.
static WIPED: AtomicBool = AtomicBool::new(false);
/// The last generation given out; inherited by a child, which then counts on.
static LAST: AtomicU64 = AtomicU64::new(1);
/// How often this process has begun or ended a fork.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Lock descriptors of this process.
static LOCKS: [Remembered; REMEMBERED] = [const { Remembered::new() }; REMEMBERED];

thread_local! {
    /// What this thread, which is forking, has made ready for the child.
    static READY: Cell<*mut Handover> = const { Cell::new(std::ptr::null_mut()) };
}

/// Takes what this thread has made ready.
fn take_ready() -> Option<Box<Handover>> {
    let ready = READY.replace(std::ptr::null_mut());
    // SAFETY: only `before` stores there, what a box gave; it is taken out once.
    (!ready.is_null()).then(|| unsafe { Box::from_raw(ready) })
}

/// A lock descriptor that a child has to close.
struct Remembered {
    /// The number plus one; 0: none; -1: being written.
    fd: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

impl Remembered {
    const fn new() -> Self {
        Self { fd: AtomicI32::new(0), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }
}

/// The generation of this process: differs between a parent and its forked child.
#[inline]
pub fn generation() -> u64 {
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

/// A number that is another after each fork, in the parent as in the child: what was alive at the
/// fork is shared with a process that may still read it.
#[inline]
pub fn epoch() -> u64 {
    generation() << 32 | FORKS.load(Ordering::Relaxed)
}

#[cold]
fn start() -> u64 {
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
    let (word, wiped): (*mut AtomicU64, bool) = if page == libc::MAP_FAILED {
        // Without the page, the handler below still tells a child.
        ((&raw const FALLBACK).cast_mut(), false)
    } else {
        // SAFETY: advice over the page just made.
        let wiped = unsafe { libc::madvise(page, bytes, libc::MADV_WIPEONFORK) == 0 };
        (page.cast(), wiped)
    };
    // SAFETY: `word` names either the fresh page (zeroed, aligned) or a static.
    unsafe { (*word).store(LAST.load(Ordering::Relaxed), Ordering::Relaxed) };
    // No `Once`: a fork could copy it while another thread is inside.
    let null = std::ptr::null_mut();
    WIPED.store(wiped, Ordering::Relaxed);
    match PAGE.compare_exchange(null, word, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // SAFETY: the handlers are functions without conditions. They lock and allocate, which
            // the C library allows: it takes its own locks after the first handler, and has given
            // them back before the others.
            unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) };
        }
        Err(_) if page != libc::MAP_FAILED => {
            // SAFETY: the page made above, which nobody else has seen.
            unsafe { libc::munmap(page, bytes) };
        }
        Err(_) => {}
    }
    LAST.load(Ordering::Relaxed)
}

extern "C" fn before() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    let ready = Box::new(Handover::prepare());
    READY.set(Box::into_raw(ready));
}

extern "C" fn after() {
    // Again: what was made since `before` may have got into the child as well.
    FORKS.fetch_add(1, Ordering::Relaxed);
    if let Some(ready) = take_ready() {
        ready.end_in_parent();
    }
}

extern "C" fn in_child() {
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: as in `generation`.
    let entered = WIPED.load(Ordering::Relaxed) && unsafe { (*page).load(Ordering::Relaxed) } != 0;
    if !entered {
        enter_child();
    }
}

/// Runs in a child, from the handler or from the first check. From the handler no other thread
/// exists; else several may come here at once, and one of them decides.
#[cold]
fn enter_child() -> u64 {
    let page = PAGE.load(Ordering::Acquire);
    let generation = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    if WIPED.load(Ordering::Relaxed) {
        // SAFETY: as in `generation`.
        let word = unsafe { &*page };
        if let Err(other) =
            word.compare_exchange(0, generation, Ordering::AcqRel, Ordering::Acquire)
        {
            return other;
        }
    } else {
        // SAFETY: as above.
        unsafe { (*page).store(generation, Ordering::Relaxed) };
    }
    let ready = take_ready();
    if let Some(ready) = &ready {
        // Not these: they are the child's own.
        ready.descriptors().for_each(forget);
    }
    for lock in &LOCKS {
        let fd = lock.fd.swap(0, Ordering::Acquire);
        let (device, inode) = (&lock.device, &lock.inode);
        let file = Identity {
            device: device.load(Ordering::Relaxed),
            inode: inode.load(Ordering::Relaxed),
        };
        if fd > 0 && file.is_at(fd - 1) {
            // SAFETY: the child's copy of a descriptor that only `LockFile` uses, which checks
            // the generation before every use; the number still names the file. Closing it leaves
            // the parent's lock alone: the description lives on in the parent.
            unsafe { libc::close(fd - 1) };
        }
    }
    if let Some(ready) = ready {
        ready.begin_in_child();
    }
    generation
}

/// Has a child close `fd`.
pub(crate) fn remember(fd: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    generation();
    let Ok(file) = Identity::of(fd.as_fd()) else { return };
    for lock in &LOCKS {
        if lock.fd.compare_exchange(0, -1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            lock.device.store(file.device, Ordering::Relaxed);
            lock.inode.store(file.inode, Ordering::Relaxed);
            lock.fd.store(fd.as_raw_fd() + 1, Ordering::Release);
            return;
        }
    }
}

/// Undoes [`remember`].
pub(crate) fn forget(fd: i32) {
    for lock in &LOCKS {
        if lock.fd.compare_exchange(fd + 1, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// Whether a lock of ours has or had that number.
pub(crate) fn is_remembered(fd: i32) -> bool {
    LOCKS.iter().any(|lock| lock.fd.load(Ordering::Relaxed) == fd + 1)
}
