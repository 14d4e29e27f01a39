//! A mutex that a fork cannot leave locked for ever.
//!
//! A fork copies the memory but only the thread that forks: a lock that another thread held stays
//! locked in the child, and what it guarded may be half changed. The lock's word therefore carries
//! the generation of the process that locked it. Who finds it locked by an ancestor takes it, and
//! starts over with an empty value; the old one is leaked, since nobody knows what state it is in.
//! A lock that is free, or that the forking thread itself kept over the fork, is passed on whole.
//!
//! Who has waited for a millisecond is next: the lock is then kept for it when it comes free, so that
//! threads which lock again and again cannot starve a fork.
//!
//! There is no state but the word itself, unlike with locks whose queues lie in a table that all of
//! a process's locks share: a fork could copy that table locked.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use crate::fork;

const LOCKED: u32 = 1;
/// Set while somebody may sleep on the word.
const WAITERS: u32 = 2;
/// Set while somebody has waited for long: only such a one may take it.
const URGENT: u32 = 4;
/// Above these bits: the generation of who locked it.
const GENERATION: u32 = 3;
const SPINS: u32 = 100;
/// What is long.
const LONG: Duration = Duration::from_millis(1);

/// A mutex around a value that a forked child can begin anew.
#[derive(Debug, Default)]
pub struct ForkMutex<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only by who has the lock, one at a time.
unsafe impl<T: Send> Send for ForkMutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for ForkMutex<T> {}

/// The locked mutex; unlocked when dropped.
#[derive(Debug)]
pub struct ForkGuard<'a, T> {
    mutex: &'a ForkMutex<T>,
    /// What it gives out, and so what may be done with it from other threads: a mutex can be shared
    /// also where its value cannot.
    value: PhantomData<&'a mut T>,
}

impl<T> ForkMutex<T> {
    /// An unlocked mutex.
    pub const fn new(value: T) -> Self {
        Self { word: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Unlocks what [`ForkGuard::keep`] left locked, in the parent or in the forked child.
    ///
    /// # Safety
    /// The mutex was left locked by `keep`, and the value has been let alone by everybody else
    /// since: the caller must be who kept it, or that thread's copy in a forked child.
    pub(crate) unsafe fn unlock_kept(&self) {
        self.unlock();
    }

    /// The value, for who has kept the lock.
    ///
    /// # Safety
    /// As [`ForkMutex::unlock_kept`]; the result must not outlive the unlocking.
    #[allow(clippy::mut_from_ref)] // as a guard gives it
    pub(crate) unsafe fn kept(&self) -> &mut T {
        // SAFETY: the caller has the lock.
        unsafe { &mut *self.value.get() }
    }

    /// Puts a fresh value in place, whoever has the lock; the old value is leaked.
    ///
    /// # Safety
    /// No other thread may exist that uses the mutex: for a forked child that has just begun.
    pub(crate) unsafe fn begin_anew(&self, value: T) {
        // SAFETY: nobody else is there; the old value is not dropped, as it may be half changed.
        unsafe { self.value.get().write(value) };
        self.word.store(0, Ordering::Release);
    }

    fn unlock(&self) {
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let free = if seen & URGENT == 0 { 0 } else { seen & !(LOCKED | WAITERS) };
            match self.word.compare_exchange_weak(seen, free, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(other) => seen = other,
            }
        }
        if seen & URGENT != 0 {
            let _ = futex::wake(&self.word, futex::Flags::PRIVATE, u32::MAX >> 1);
        } else if seen & WAITERS != 0 {
            let _ = futex::wake(&self.word, futex::Flags::PRIVATE, 1);
        }
    }
}

impl<T: Default> ForkMutex<T> {
    /// Locks, waiting for as long as it takes.
    #[inline]
    pub fn lock(&self) -> ForkGuard<'_, T> {
        if !self.try_acquire() {
            self.acquire(None);
        }
        self.guard()
    }

    /// Locks if that can be done at once.
    #[inline]
    pub fn try_lock(&self) -> Option<ForkGuard<'_, T>> {
        (self.try_acquire() || self.inherit()).then(|| self.guard())
    }

    /// Locks if that can be done within a time.
    pub fn try_lock_for(&self, patience: Duration) -> Option<ForkGuard<'_, T>> {
        // Without a deadline where it is further away than time is counted.
        (self.try_acquire() || self.acquire(Instant::now().checked_add(patience)))
            .then(|| self.guard())
    }

    /// For who has just got the lock.
    #[inline]
    fn guard(&self) -> ForkGuard<'_, T> {
        ForkGuard { mutex: self, value: PhantomData }
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        self.word.compare_exchange(0, mine(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock if it is free after all, or from a thread that did not survive a fork.
    #[cold]
    fn inherit(&self) -> bool {
        let (seen, mine) = (self.word.load(Ordering::Relaxed), mine());
        if seen & (LOCKED | URGENT) == 0 {
            return self.take(seen);
        }
        if seen >> GENERATION == mine >> GENERATION || !self.take(seen) {
            return false;
        }
        if seen & LOCKED != 0 {
            // SAFETY: the lock is ours. The old value may be half changed, so it is not dropped.
            unsafe { self.value.get().write(T::default()) };
        }
        true
    }

    /// Locks from a state that was seen; others may be asleep, and one is woken when we unlock.
    fn take(&self, seen: u32) -> bool {
        let mine = mine() | WAITERS;
        self.word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn acquire(&self, deadline: Option<Instant>) -> bool {
        for _ in 0..SPINS {
            if self.try_acquire() {
                return true;
            }
            std::hint::spin_loop();
        }
        let long = Instant::now() + LONG;
        loop {
            let now = Instant::now();
            let urgent = now >= long;
            let seen = self.word.load(Ordering::Relaxed);
            if seen & LOCKED == 0 && (urgent || seen & URGENT == 0) {
                if self.take(seen) {
                    return true;
                }
                continue;
            }
            if self.inherit() {
                return true;
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                if urgent {
                    // Nobody may be left who is. Who is asks again.
                    self.word.fetch_and(!URGENT, Ordering::Relaxed);
                    let _ = futex::wake(&self.word, futex::Flags::PRIVATE, u32::MAX >> 1);
                }
                return false;
            }
            let mut until = deadline;
            if !urgent {
                until = Some(until.map_or(long, |until| until.min(long)));
            }
            let left = until
                .map(|until| until.saturating_duration_since(now))
                .and_then(|left| futex::Timespec::try_from(left).ok());
            let marked = seen | WAITERS | if urgent { URGENT } else { 0 };
            if seen == marked
                || self
                    .word
                    .compare_exchange(seen, marked, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                // A wake-up, a time-out or a changed word: all mean "look again".
                let _ = futex::wait(&self.word, futex::Flags::PRIVATE, marked, left.as_ref());
            }
        }
    }
}

/// What the word holds while this process has the lock.
#[inline]
fn mine() -> u32 {
    (fork::generation() as u32) << GENERATION | LOCKED
}

impl<T> ForkGuard<'_, T> {
    /// Leaves the mutex locked, over a fork.
    pub(crate) fn keep(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl<T> Deref for ForkGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard has the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for ForkGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed alone.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for ForkGuard<'_, T> {
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let count = ForkMutex::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        *count.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*count.lock(), 200_000);
    }

    #[test]
    fn who_locks_again_and_again_starves_nobody() {
        let (mutex, done) = (ForkMutex::new(()), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let _held = mutex.lock();
                        std::thread::sleep(Duration::from_micros(200));
                    }
                });
            }
            let got = (0..20).all(|_| mutex.try_lock_for(Duration::from_secs(5)).is_some());
            // And who gives up while it is next leaves the lock to the others.
            for _ in 0..5 {
                let _ = mutex.try_lock_for(LONG + Duration::from_micros(100));
            }
            done.store(true, Ordering::Relaxed);
            assert!(got);
        });
        assert!(mutex.try_lock().is_some());
    }

    /// Whether a type can be shared by threads: what is said of all types gives way to what is said
    /// of those that can.
    struct Shared<T>(PhantomData<T>);

    trait Not {
        const SYNC: bool = false;
    }

    impl<T> Not for Shared<T> {}

    impl<T: Sync> Shared<T> {
        const SYNC: bool = true;
    }

    #[test]
    fn a_guard_can_be_shared_only_where_its_value_can() {
        let shared = [
            Shared::<ForkMutex<std::cell::Cell<u8>>>::SYNC,
            Shared::<ForkGuard<'_, std::cell::Cell<u8>>>::SYNC,
            Shared::<ForkGuard<'_, u8>>::SYNC,
        ];
        assert_eq!(shared, [true, false, true]);
    }

    #[test]
    fn who_waits_long_enough_gives_up() {
        let mutex = ForkMutex::new(());
        let held = mutex.lock();
        assert!(mutex.try_lock().is_none());
        assert!(mutex.try_lock().is_none());
        let since = Instant::now();
        assert!(mutex.try_lock_for(Duration::from_millis(20)).is_none());
        assert!(since.elapsed() >= Duration::from_millis(20));
        drop(held);
        assert!(mutex.try_lock_for(Duration::from_millis(20)).is_some());
        let held = mutex.lock();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| mutex.try_lock_for(Duration::MAX).is_some());
            drop(held);
            assert!(waiting.join().unwrap());
        });
    }

    const FORKS: &str = "INSITU_TEST_MUTEX_FORKS";

    /// In a process of its own: a fork passes on the regions of all other tests, too.
    #[test]
    fn what_a_vanished_thread_had_locked_begins_anew_in_the_child() {
        if std::env::var_os(FORKS).is_none() {
            let test = "mutex::tests::what_a_vanished_thread_had_locked_begins_anew_in_the_child";
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(FORKS, "1")
                .status();
            return assert!(status.unwrap().success());
        }
        let (torn, whole) = (ForkMutex::new(vec![1]), ForkMutex::new(vec![2]));
        let (locked, done) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let guard = torn.lock();
                locked.wait();
                done.wait();
                drop(guard);
            });
            locked.wait();
            // SAFETY: the child only looks at the locks, and leaves by `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let good = torn.try_lock().is_some_and(|v| v.is_empty())
                    && torn.lock().is_empty()
                    && *whole.lock() == [2];
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!good)) };
            }
            let mut status = 0;
            // SAFETY: waits for the child made above.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(status, 0);
            done.wait();
        });
        assert_eq!(*torn.lock(), [1]);
    }
}
