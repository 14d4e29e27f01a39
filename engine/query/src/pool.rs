//! The thread pool: one parked helper per allowed CPU beside the caller's, pinned. The caller
//! works too; a helper joins a job if it arrives before the job's last morsel is handed out, and
//! the caller waits only for helpers that joined. Nobody spins. A forked child makes its own pool.
//!
//! Nothing here can panic: a job is a function of a morsel's number that keeps its errors itself.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
// The standard library's locks, not parking_lot's: those share a table in static memory, which a
// fork could copy while another thread holds a lock in it.
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the caller may be asked whether to stop.
const INTERRUPT_EVERY: Duration = Duration::from_millis(50);
/// Estimated nanoseconds of work above which threads are worth waking.
pub(crate) const PARALLEL_NS: f64 = 100_000.0;
/// The most threads that can be set.
const MAX_THREADS: usize = 1024;

/// Set by [`set_threads`]; 0: not set.
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// The pool of this process. Leaked when replaced after a fork: its threads are gone, and its locks
/// may be held by them for ever.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// Uses `n` threads (the caller's included) from the next query on; 0 goes back to the default.
/// More threads than CPUs are allowed, up to 1024.
pub fn set_threads(n: usize) {
    THREADS.store(n.min(MAX_THREADS), Ordering::Relaxed);
}

/// The number of threads in use: what was set, else the environment's `INSITU_THREADS`, else the
/// number of CPUs this process may run on.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => default_threads(),
        n => n,
    }
}

fn default_threads() -> usize {
    // No `OnceLock`: a fork could copy it while another thread is inside.
    static DEFAULT: AtomicUsize = AtomicUsize::new(0);
    match DEFAULT.load(Ordering::Relaxed) {
        0 => {
            let n = std::env::var("INSITU_THREADS")
                .ok()
                .and_then(|v| v.trim().parse::<usize>().ok())
                .filter(|n| *n > 0)
                .map_or_else(|| allowed_cpus().len().max(1), |n| n.min(MAX_THREADS));
            DEFAULT.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// The CPUs this process may run on.
#[cfg(target_os = "linux")]
fn allowed_cpus() -> Vec<usize> {
    // SAFETY: the set is plain data, valid when zeroed; the kernel writes at most its size.
    let (set, ok) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        // The process's mask, not this thread's, which may itself be pinned.
        let ok = libc::sched_getaffinity(libc::getpid(), size_of::<libc::cpu_set_t>(), &mut set);
        (set, ok == 0)
    };
    if !ok {
        return (0..std::thread::available_parallelism().map_or(1, |n| n.get())).collect();
    }
    // SAFETY: the numbers are below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|c| unsafe { libc::CPU_ISSET(*c, &set) }).collect()
}

#[cfg(not(target_os = "linux"))]
fn allowed_cpus() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, |n| n.get())).collect()
}

#[cfg(all(target_os = "linux", not(miri)))]
fn current_cpu() -> Option<usize> {
    // SAFETY: no arguments, no memory.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

#[cfg(any(not(target_os = "linux"), miri))]
fn current_cpu() -> Option<usize> {
    None
}

#[cfg(target_os = "linux")]
fn pin(cpu: usize) {
    if cpu < libc::CPU_SETSIZE as usize {
        // SAFETY: the set is plain data, the CPU's number is below its size; 0 is this thread.
        // Failing to pin costs speed only.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn pin(_cpu: usize) {}

/// Locks; a poisoned lock guards nothing that a panic could have left half-done here.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job in flight, on the stack of its caller.
struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    morsels: usize,
    cursor: AtomicUsize,
    cancelled: &'a AtomicBool,
}

impl Job<'_> {
    fn take(&self) -> Option<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let m = self.cursor.fetch_add(1, Ordering::Relaxed);
        (m < self.morsels).then_some(m)
    }
}

/// Where a job lies. (A pointer, whose permission to reach the job a number would lose.)
#[derive(Clone, Copy, PartialEq, Eq)]
struct Address(*const Job<'static>);

// SAFETY: only an address; jobs themselves are shared between threads (`Job` is `Sync`), and who
// follows the address says why the job still lives.
unsafe impl Send for Address {}

/// A helper's mailbox: the address of a job, present from posting until joined or withdrawn.
struct Helper {
    cpu: Option<usize>,
    slot: Mutex<Option<Address>>,
    wake: Condvar,
}

struct Pool {
    pid: u32,
    helpers: Mutex<Vec<Arc<Helper>>>,
    cpus: Vec<usize>,
    /// Helpers inside a job, per job: the caller holds `running`, so there is one job at a time.
    inside: AtomicU32,
    idle: Mutex<()>,
    left: Condvar,
    running: Mutex<()>,
}

fn pool() -> &'static Pool {
    let pid = std::process::id();
    loop {
        let p = POOL.load(Ordering::Acquire);
        // SAFETY: pools are never freed once published.
        if let Some(pool) = unsafe { p.as_ref() }
            && pool.pid == pid
        {
            return pool;
        }
        let fresh = Box::into_raw(Box::new(Pool {
            pid,
            helpers: Mutex::new(Vec::new()),
            cpus: allowed_cpus(),
            inside: AtomicU32::new(0),
            idle: Mutex::new(()),
            left: Condvar::new(),
            running: Mutex::new(()),
        }));
        if POOL.compare_exchange(p, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: not published; this thread alone knows it.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

impl Pool {
    /// `n` helpers, or as many as the system gives threads for. There is one per CPU, the caller's
    /// own included: whoever calls gets those of the other CPUs first. More than that are not
    /// pinned.
    fn helpers(&'static self, n: usize) -> Vec<Arc<Helper>> {
        let mut helpers = lock(&self.helpers);
        while helpers.len() < n + 1 {
            let cpu = self.cpus.get(helpers.len()).copied();
            let helper = Arc::new(Helper { cpu, slot: Mutex::new(None), wake: Condvar::new() });
            let mine = helper.clone();
            let spawned = std::thread::Builder::new()
                .name("insitu".into())
                .stack_size(1 << 20)
                .spawn(move || help(self, &mine));
            if spawned.is_err() {
                break;
            }
            helpers.push(helper);
        }
        let here = current_cpu();
        let elsewhere = helpers.iter().filter(|h| h.cpu.is_none() || h.cpu != here);
        let mut chosen: Vec<_> = elsewhere.take(n).cloned().collect();
        if chosen.len() < n {
            let same = helpers.iter().filter(|h| h.cpu.is_some() && h.cpu == here);
            chosen.extend(same.take(n - chosen.len()).cloned());
        }
        chosen
    }
}

/// A helper's life: wait for a job, join it, work, leave.
fn help(pool: &'static Pool, me: &Helper) {
    if let Some(cpu) = me.cpu {
        pin(cpu);
    }
    block_signals();
    IN_POOL.set(true);
    loop {
        let job = {
            let mut slot = lock(&me.slot);
            loop {
                if let Some(job) = slot.take() {
                    // Joining under the slot's lock: the caller withdraws the job under the same
                    // lock, so it either sees us inside or we never see the job.
                    pool.inside.fetch_add(1, Ordering::AcqRel);
                    break job;
                }
                slot = me.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
            }
        };
        // SAFETY: the address was posted by `run`, whose frame outlives this: it waits until
        // `inside` is zero, and we are inside.
        let job: &Job<'_> = unsafe { &*job.0 };
        let _leave = Leave(pool);
        let worked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            while let Some(m) = job.take() {
                (job.work)(m);
            }
        }));
        if worked.is_err() {
            // A morsel is missing: better no result than a wrong one.
            job.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

/// Leaves the job, however the work ends.
struct Leave(&'static Pool);

impl Drop for Leave {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The lock orders this with the caller's check before it waits.
            let _idle = lock(&self.0.idle);
            self.0.left.notify_all();
        }
    }
}

/// Withdraws a posted job and waits for the helpers inside it, however the caller's share ends:
/// the job lies on the caller's stack.
struct Posted<'a> {
    pool: &'static Pool,
    helpers: &'a [Arc<Helper>],
    address: Address,
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        IN_POOL.set(false);
        if self.pool.pid != std::process::id() {
            // Forked in the middle, by the interrupt: there are no helpers here.
            return;
        }
        for helper in self.helpers {
            let mut slot = lock(&helper.slot);
            if *slot == Some(self.address) {
                *slot = None;
            }
        }
        // Every helper has now either joined or will never see the job.
        let mut idle = lock(&self.pool.idle);
        while self.pool.inside.load(Ordering::Acquire) > 0 {
            idle = self.pool.left.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Signals (Ctrl-C) belong to the program's own threads.
fn block_signals() {
    // (Miri knows no signals.)
    #[cfg(all(unix, not(miri)))]
    // SAFETY: the set is plain data, filled before use; only this thread's mask changes.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

thread_local! {
    /// Whether this thread is working on a job: jobs do not nest.
    static IN_POOL: Cell<bool> = const { Cell::new(false) };
}

/// How a job of [`parallel`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of it is done.
    Done,
    /// The interrupt asked to stop; some of it is not done.
    Interrupted,
    /// A helper panicked; some of it is not done.
    Failed,
}

/// Calls `work(0)` to `work(tasks - 1)`, each once, on the pool's threads and this one if `ns`, the
/// estimated time of all of them together, is worth waking anybody. `interrupt` is asked on this
/// thread, at most every 50 ms; true starts no further task. All that were started are done when
/// this returns.
pub fn parallel(
    tasks: usize,
    ns: f64,
    interrupt: &dyn Fn() -> bool,
    work: &(dyn Fn(usize) + Sync),
) -> Ended {
    let cancelled = AtomicBool::new(false);
    let watch = Watch { interrupt, cancelled: &cancelled };
    if run(tasks, tasks > 1 && ns > PARALLEL_NS, &watch, work) {
        Ended::Interrupted
    } else if cancelled.load(Ordering::Relaxed) {
        Ended::Failed
    } else {
        Ended::Done
    }
}

/// How a run is watched.
pub(crate) struct Watch<'a> {
    /// Asked on the caller's thread, at most every 50 ms; true cancels.
    pub(crate) interrupt: &'a dyn Fn() -> bool,
    /// Set by the interrupt, or by work that failed: no further morsel starts.
    pub(crate) cancelled: &'a AtomicBool,
}

/// Calls `work(0)` to `work(morsels - 1)`, on several threads if `parallel`, each number once, in
/// order of starting. Returns when all that were started are done. Fewer are started if the run
/// is cancelled; returns whether the interrupt asked for that.
pub(crate) fn run(
    morsels: usize,
    parallel: bool,
    watch: &Watch<'_>,
    work: &(dyn Fn(usize) + Sync),
) -> bool {
    let job = Job { work, morsels, cursor: AtomicUsize::new(0), cancelled: watch.cancelled };
    let wanted = if parallel { threads().min(morsels) } else { 1 };
    if wanted <= 1 || IN_POOL.get() {
        return drive(&job, watch);
    }
    let pool = pool();
    // One parallel job at a time; a second caller works alone rather than wait.
    let Ok(_running) = pool.running.try_lock() else {
        return drive(&job, watch);
    };
    let helpers = pool.helpers(wanted - 1);
    let address = Address(std::ptr::from_ref(&job).cast());
    let _posted = Posted { pool, helpers: &helpers, address };
    IN_POOL.set(true);
    for helper in &helpers {
        *lock(&helper.slot) = Some(address);
        helper.wake.notify_one();
    }
    let interrupted = drive(&job, watch);
    if pool.pid != std::process::id() {
        // What the helpers had begun is missing in this process.
        watch.cancelled.store(true, Ordering::Relaxed);
        return true;
    }
    interrupted
}

/// The caller's share of the work.
fn drive(job: &Job<'_>, watch: &Watch<'_>) -> bool {
    let mut asked: Option<Instant> = None;
    while let Some(m) = job.take() {
        (job.work)(m);
        // Time is looked at only where there is more than one morsel.
        if m + 1 < job.morsels {
            match asked {
                None => asked = Some(Instant::now()),
                Some(t) if t.elapsed() >= INTERRUPT_EVERY => {
                    if (watch.interrupt)() {
                        watch.cancelled.store(true, Ordering::Relaxed);
                        return true;
                    }
                    asked = Some(Instant::now());
                }
                Some(_) => {}
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    fn never() -> bool {
        false
    }

    #[test]
    fn every_morsel_is_worked_on_once_with_more_threads_than_cpus() {
        set_threads(7);
        for round in 0..if cfg!(miri) { 20 } else { 200usize } {
            let n = round % 50;
            let seen: Vec<AtomicU64> = (0..n).map(|_| AtomicU64::new(0)).collect();
            let cancelled = AtomicBool::new(false);
            let watch = Watch { interrupt: &never, cancelled: &cancelled };
            let interrupted = run(n, true, &watch, &|m| {
                seen[m].fetch_add(1, Ordering::Relaxed);
            });
            assert!(!interrupted);
            assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn two_callers_do_not_wait_for_each_other() {
        set_threads(4);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..if cfg!(miri) { 3 } else { 100 } {
                        let sum = AtomicU64::new(0);
                        let cancelled = AtomicBool::new(false);
                        let watch = Watch { interrupt: &never, cancelled: &cancelled };
                        run(100, true, &watch, &|m| {
                            sum.fetch_add(m as u64, Ordering::Relaxed);
                        });
                        assert_eq!(sum.load(Ordering::Relaxed), 4950);
                    }
                });
            }
        });
    }

    #[test]
    fn a_job_says_whether_all_of_it_was_done() {
        let count = AtomicU64::new(0);
        let work = |_| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(parallel(40, 1e9, &never, &work), Ended::Done);
        assert_eq!(count.load(Ordering::Relaxed), 40);
        let slow = |_| std::thread::sleep(Duration::from_millis(60));
        assert_eq!(parallel(100, 0.0, &|| true, &slow), Ended::Interrupted);
        assert_eq!(parallel(0, 1e9, &never, &work), Ended::Done);
    }

    #[test]
    fn a_cancelled_run_starts_no_further_morsel() {
        let cancelled = AtomicBool::new(false);
        let watch = Watch { interrupt: &never, cancelled: &cancelled };
        let count = AtomicU64::new(0);
        run(1000, false, &watch, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
            cancelled.store(true, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    #[allow(clippy::panic)]
    fn a_helper_that_panics_cancels_the_run_and_lives_on() {
        set_threads(4);
        let me = std::thread::current().id();
        // Other tests may have the helpers: again until one came, twice over.
        let mut panics = 0;
        for _ in 0..2000 {
            let (cancelled, panicked) = (AtomicBool::new(false), AtomicBool::new(false));
            let watch = Watch { interrupt: &never, cancelled: &cancelled };
            run(20, true, &watch, &|_| {
                if std::thread::current().id() == me {
                    std::thread::sleep(Duration::from_millis(1));
                } else {
                    panicked.store(true, Ordering::Relaxed);
                    panic!("as the test wants");
                }
            });
            assert_eq!(cancelled.load(Ordering::Relaxed), panicked.load(Ordering::Relaxed));
            panics += usize::from(panicked.load(Ordering::Relaxed));
            if panics > 8 {
                return;
            }
        }
        panic!("no helper came");
    }

    #[test]
    fn the_interrupt_is_asked_on_the_callers_thread_and_cancels() {
        let me = std::thread::current().id();
        let cancelled = AtomicBool::new(false);
        let interrupt = || {
            assert_eq!(std::thread::current().id(), me);
            true
        };
        let watch = Watch { interrupt: &interrupt, cancelled: &cancelled };
        let interrupted =
            run(1_000_000, false, &watch, &|_| std::thread::sleep(Duration::from_millis(5)));
        assert!(interrupted);
    }
}
