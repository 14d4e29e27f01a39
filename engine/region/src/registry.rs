//! The sessions of this process: the same region opened twice is one session.
//!
//! Keyed by device and inode, since a copied file has the same random id.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::descriptor::Identity;
use crate::mutex::{ForkGuard, ForkMutex};
use crate::session::Session;

/// What tells regions apart within this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) file: Identity,
    pub(crate) read_only: bool,
}

/// The sessions by region; a process has few.
pub(crate) type Sessions = Vec<(Key, Weak<Session>)>;

static SESSIONS: ForkMutex<Sessions> = ForkMutex::new(Vec::new());

/// The registry, locked. Held while a session is opened, so that two threads open one.
pub(crate) fn lock() -> ForkGuard<'static, Sessions> {
    SESSIONS.lock()
}

/// The registry, if it can be locked within a time.
pub(crate) fn try_lock_for(patience: Duration) -> Option<ForkGuard<'static, Sessions>> {
    SESSIONS.try_lock_for(patience)
}

/// Unlocks the registry that was kept locked over a fork.
///
/// # Safety
/// As [`ForkMutex::unlock_kept`].
pub(crate) unsafe fn unlock_kept() {
    // SAFETY: the caller's promise.
    unsafe { SESSIONS.unlock_kept() };
}

/// The living session of a region, if this process has one. A parent's session is not ours.
pub(crate) fn find(sessions: &Sessions, key: Key) -> Option<Arc<Session>> {
    let found = sessions.iter().find(|(k, _)| *k == key);
    found.and_then(|(_, session)| session.upgrade()).filter(|session| session.is_ours())
}

/// The session of a region of that identity, ours if there is one, or else one that was inherited.
pub(crate) fn with_id(sessions: &Sessions, id: u128, read_only: bool) -> Option<Arc<Session>> {
    let alike = sessions.iter().filter(|(key, _)| key.read_only == read_only);
    let alike: Vec<_> = alike
        .filter_map(|(_, session)| session.upgrade())
        .filter(|session| session.id == id)
        .collect();
    let ours = alike.iter().find(|session| session.is_ours());
    ours.or(alike.first()).cloned()
}

/// Adds a session, and forgets what is gone.
pub(crate) fn add(sessions: &mut Sessions, session: &Arc<Session>) {
    sessions.retain(|(key, known)| *key != session.key && known.strong_count() != 0);
    sessions.push((session.key, Arc::downgrade(session)));
}
