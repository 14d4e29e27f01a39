//! Dying on purpose: named points in the protocols at which a test can have its process killed.
//!
//! With the feature `kill-points`, and `INSITU_KILL_AT` set to a point's name (or `*`: any), the
//! process sends itself SIGKILL there, at the pass that `INSITU_KILL_PASS` numbers (from 1; default
//! 1). Without the feature a point is nothing at all. A point stands between two stores that others can see.

/// All points, so that a harness can show that it died at each.
#[cfg(any(test, feature = "kill-points"))]
pub const POINTS: &[&str] = &[
    "claim: block counted",
    "claim: block marked used",
    "claim: counted",
    "claim: marked used",
    "create: complete",
    "create: header reserved",
    "create: header written",
    "create: joined",
    "create: named",
    "delete: index entry removed",
    "delete: unlocked",
    "exclusive: finished",
    "exclusive: finished without a name",
    "exclusive: reopened",
    "exclusive: shut",
    "exclusive: writing",
    "flush: abandoned",
    "flush: content written",
    "flush: data on disk",
    "flush: done",
    "flush: memory taken",
    "flush: owners counted",
    "flush: pending",
    "flush: root half written",
    "flush: root on disk",
    "flush: root written",
    "flush: slot filled",
    "flush: slot hidden",
    "flush: slot taken",
    "flush: switched",
    "flush: turn taken",
    "fork: all ready",
    "fork: bit set",
    "fork: extent recorded",
    "fork: in the child",
    "fork: owner counted",
    "fork: session taken",
    "fork: slot locked",
    "fork: slot taken",
    "free: block marked free",
    "free: counted",
    "free: marked free",
    "free: owner dropped",
    "free: row cleared",
    "free: without owner",
    "grow: begun",
    "grow: marked warm",
    "grow: recorded",
    "grow: run reserved",
    "grow: taken",
    "hold: held",
    "hold: left over",
    "hold: let go",
    "hold: too late",
    "index: emptied",
    "index: entry made",
    "index: even",
    "index: odd",
    "index: resized",
    "join: described",
    "join: joined",
    "join: locked",
    "join: numbered",
    "join: page counted",
    "join: page reserved",
    "join: slot clean",
    "leave: alone",
    "leave: marked removed",
    "leave: swept",
    "link: number stored",
    "link: sequence stored",
    "publish: index entry made",
    "publish: index entry replaced",
    "publish: manifest released",
    "publish: manifest written",
    "publish: owner counted",
    "publish: published",
    "publish: slot filled",
    "publish: slot taken",
    "publish: unlocked",
    "rebuild: arena cleared",
    "rebuild: arena made",
    "rebuild: index made",
    "rebuild: link made",
    "rebuild: loser retired",
    "rebuild: not freed",
    "rebuild: records counted",
    "rebuild: tables counted",
    "reclaim: owner dropped",
    "reclaim: shut out",
    "reclaim: slot freed",
    "record: cleared",
    "record: made",
    "record: size stored",
    "records: block chained",
    "records: block made",
    "records: granule taken",
    "records: reserved",
    "records: warm",
    "recover: epoch raised",
    "recover: writer lock cleared",
    "repair: repaired",
    "reserve: marked warm",
    "reserve: padding released",
    "reserve: run reserved",
    "restore: emptied",
    "restore: epoch raised",
    "restore: forgotten",
    "restore: marks set",
    "restore: rebuilt",
    "restore: slot restored",
    "restore: slots restored",
    "retire: retired",
    "shrink: recorded",
    "slab: half listed",
    "slab: half unlisted",
    "slab: listed",
    "slab: made",
    "slot: half listed",
    "slot: taken from the list",
    "slot: zeroed",
    "splice: successor changed",
    "swap: superseded",
    "sweep: chain cut",
    "sweep: done",
    "sweep: owner dropped",
    "sweep: passes given time",
    "sweep: ready",
    "sweep: record cleared",
    "sweep: slots swept",
    "sweep: update ended",
    "ticket: issued",
    "ticket: numbered",
    "ticket: pinned",
    "ticket: signed",
    "ticket: used",
    "trim: claimed",
    "trim: marked cold",
    "trim: punched",
    "update: begun",
    "update: content version raised",
    "update: ended",
    "writer: clean",
    "writer: dirty",
    "writer: rebuilt",
    "writer: released over sleepers",
    "writer: taken",
];

/// A point of a protocol.
#[cfg(not(any(test, feature = "kill-points")))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// A point of a protocol: dies here if it was asked to.
///
/// # Panics
/// For a name that is not in [`POINTS`]: a harness would never die there.
#[cfg(any(test, feature = "kill-points"))]
pub(crate) fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSES: AtomicU64 = AtomicU64::new(0);
    assert!(POINTS.contains(&name), "the point {name:?} is not in the list");
    #[cfg(test)]
    watching::tell(name);
    let wanted = WANTED.get_or_init(|| {
        let at = std::env::var("INSITU_KILL_AT").ok()?;
        let pass = std::env::var("INSITU_KILL_PASS").ok().and_then(|n| n.parse().ok());
        Some((at, pass.unwrap_or(1)))
    });
    if let Some((at, pass)) = wanted
        && (at == name || at == "*")
        && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *pass
    {
        // SAFETY: ends this process at once, as the caller of the test asked for.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Looking at what a protocol has stored so far, at each of its points.
#[cfg(test)]
pub(crate) mod watching {
    use std::cell::RefCell;

    type Watcher = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Has `watcher`, and nobody else, told of every point that this thread passes during `work`.
    pub(crate) fn during<T>(
        watcher: impl FnMut(&'static str) + 'static,
        work: impl FnOnce() -> T,
    ) -> T {
        let outer = WATCHER.with_borrow_mut(|w| w.replace(Box::new(watcher)));
        let out = work();
        WATCHER.with_borrow_mut(|w| *w = outer);
        out
    }

    pub(super) fn tell(name: &'static str) {
        // Taken out meanwhile: a watcher may have work done that is watched by another, or by none.
        let Some(mut watcher) = WATCHER.with_borrow_mut(Option::take) else { return };
        watcher(name);
        WATCHER.with_borrow_mut(|w| *w = Some(watcher));
    }
}
