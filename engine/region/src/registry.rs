//! The sessions of this process: the same region opened twice is one session.
//!
//! Keyed by device and inode, since a copied file has the same random id.

use std::collections::HashMap;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::session::Session;

/// What tells regions apart within this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) read_only: bool,
}

type Sessions = HashMap<Key, Weak<Session>>;

static SESSIONS: AtomicPtr<Mutex<Sessions>> = AtomicPtr::new(std::ptr::null_mut());

/// The registry, locked. Held while a session is opened, so that two threads open one.
pub(crate) fn lock() -> MutexGuard<'static, Sessions> {
    let mut current = SESSIONS.load(Ordering::Acquire);
    if current.is_null() {
        let fresh = Box::into_raw(Box::new(Mutex::new(Sessions::new())));
        match SESSIONS.compare_exchange(
            std::ptr::null_mut(),
            fresh,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => current = fresh,
            Err(other) => {
                // SAFETY: `fresh` was made above and nobody has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                current = other;
            }
        }
    }
    // SAFETY: a registry is never freed once it is in `SESSIONS`.
    unsafe { &*current }.lock()
}

/// The living session of a region, if this process has one.
pub(crate) fn find(sessions: &Sessions, key: Key) -> Option<Arc<Session>> {
    sessions.get(&key).and_then(Weak::upgrade)
}

/// Leaves the parent's registry behind: another thread may have held its lock at the fork, and
/// its sessions are not ours.
pub(crate) fn abandon() {
    SESSIONS.store(std::ptr::null_mut(), Ordering::Release);
}
