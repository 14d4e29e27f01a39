//! Dying on purpose: named points in the protocols at which a test can have its process killed.
//!
//! With the feature `kill-points`, and `INSITU_KILL_AT` set to a point's name, the process sends
//! itself SIGKILL there, at the pass that `INSITU_KILL_PASS` numbers (from 1; default 1). Without
//! the feature a point is nothing at all. A point stands between two stores that others can see.

/// All points, so that a harness can show that it died at each.
#[cfg(feature = "kill-points")]
pub const POINTS: &[&str] = &[
    "grow: begun",
    "grow: recorded",
    "grow: taken",
    "shrink: recorded",
    "publish: manifest released",
    "publish: unlocked",
    "delete: index entry removed",
    "delete: unlocked",
    "publish: slot taken",
    "publish: slot filled",
    "publish: owner counted",
    "publish: published",
    "publish: index entry replaced",
    "publish: index entry made",
    "reclaim: slot freed",
    "retire: retired",
    "reclaim: owner dropped",
    "update: begun",
    "update: ended",
    "exclusive: shut",
    "exclusive: writing",
    "exclusive: finished without a name",
    "exclusive: finished",
    "repair: repaired",
    "sweep: update ended",
    "exclusive: reopened",
    "update: content version raised",
    "link: number stored",
    "link: sequence stored",
    "swap: superseded",
    "splice: successor changed",
    "rebuild: link made",
    "ticket: counted",
    "ticket: issued",
    "ticket: pinned",
    "ticket: uncounted",
    "ticket: redeemed",
    "sweep: passes forgotten",
    "sweep: slots swept",
    "sweep: owner dropped",
    "sweep: record cleared",
    "sweep: chain cut",
    "sweep: ready",
    "sweep: done",
    "rebuild: loser retired",
];

/// A point of a protocol.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// A point of a protocol: dies here if it was asked to.
///
/// # Panics
/// For a name that is not in [`POINTS`]: a harness would never die there.
#[cfg(feature = "kill-points")]
pub(crate) fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSES: AtomicU64 = AtomicU64::new(0);
    assert!(POINTS.contains(&name), "the point {name:?} is not in the list");
    let wanted = WANTED.get_or_init(|| {
        let at = std::env::var("INSITU_KILL_AT").ok()?;
        let pass = std::env::var("INSITU_KILL_PASS").ok().and_then(|n| n.parse().ok());
        Some((at, pass.unwrap_or(1)))
    });
    if let Some((at, pass)) = wanted
        && at == name
        && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *pass
    {
        // SAFETY: ends this process at once, as the caller of the test asked for.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}
