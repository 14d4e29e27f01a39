//! The writer lock: one word in the region, which names its holder's session.
//!
//! It can be stolen, but only by who has acquired the dead holder's lock byte from the kernel.
//! Critical sections touch reserved metadata only, so the lock is never held for long by a
//! living process. A flag stays set while it is held: who finds it set rebuilds what is derived.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use crate::error::{Error, Result};
use crate::kill;
use crate::layout::{LOCK_BASE, SESSIONS, header, session as field};
use crate::mutex::ForkGuard;
use crate::protocol;
use crate::records::Records;
use crate::session::{Deferred, Session};

/// How long to wait for a living holder.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a destructor may wait: longer than critical sections take, and not to be noticed. What it
/// then leaves undone, others do.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);
/// How long to sleep before looking whether the holder still lives.
const SLICE: Duration = Duration::from_millis(2);
const SPINS: u32 = 200;
/// Set in the word while somebody sleeps on it.
const WAITERS: u64 = 1;

/// The writer lock, held. All changes of shared structures go through it.
pub(crate) struct Writer<'a> {
    pub(crate) s: &'a Session,
    pub(crate) local: ForkGuard<'a, Records>,
    /// Set when something contradictory was found: the next writer then rebuilds.
    pub(crate) broken: Cell<bool>,
}

impl Session {
    /// Takes the writer lock, waiting up to ten seconds, and does what destructors left to do.
    pub(crate) fn write(&self) -> Result<Writer<'_>> {
        self.write_within(PATIENCE)
    }

    /// The same with another patience.
    pub(crate) fn write_within(&self, patience: Duration) -> Result<Writer<'_>> {
        self.check_fork()?;
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if self.backing.handed_on().is_some() {
            // Without its descriptor nobody could ask whether the others live.
            self.lock.check().map_err(|e| Error::io("writing to a region", e))?;
        }
        let Some(local) = self.local.try_lock_for(patience) else {
            return Err(Error::Timeout {
                what: format!(
                    "another thread of this process has been writing for {} seconds",
                    patience.as_secs_f32()
                ),
            });
        };
        let stolen = self.acquire(patience)?;
        let mut writer = Writer { s: self, local, broken: Cell::new(false) };
        writer.enter(stolen)?;
        Ok(writer)
    }

    /// Takes the writer lock if it is free now.
    pub(crate) fn try_write(&self) -> Option<Writer<'_>> {
        if self.read_only || !self.is_ours() {
            return None;
        }
        let local = self.local.try_lock()?;
        let word = self.bytes.word(header::WRITER).ok()?;
        if !protocol::try_take(word, self.token() << 1) {
            return None;
        }
        let mut writer = Writer { s: self, local, broken: Cell::new(false) };
        writer.enter(None).ok()?;
        Some(writer)
    }

    /// Takes the word; gives the slot of the dead session it was stolen from, whose lock byte is
    /// then ours.
    fn acquire(&self, patience: Duration) -> Result<Option<u32>> {
        let word = self.bytes.word(header::WRITER)?;
        let mine = self.token() << 1;
        for _ in 0..SPINS {
            if protocol::try_take(word, mine) {
                return Ok(None);
            }
            std::hint::spin_loop();
        }
        let deadline = Instant::now() + patience;
        loop {
            let seen = word.load(Ordering::Relaxed);
            if seen == 0 {
                // Others may be asleep still; keep their bit, so that our release wakes them.
                if protocol::try_take(word, mine | WAITERS) {
                    return Ok(None);
                }
                continue;
            }
            if let Some(slot) = self.steal(word, seen)? {
                return Ok(slot);
            }
            if Instant::now() >= deadline {
                return Err(self.give_up(seen, patience));
            }
            let marked = seen | WAITERS;
            if seen == marked
                || word.compare_exchange(seen, marked, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                let wait = futex::Timespec { tv_sec: 0, tv_nsec: i64::from(SLICE.subsec_nanos()) };
                // A wake-up, a time-out or a changed word: all mean "look again".
                let _ = futex::wait(low(word), futex::Flags::empty(), marked as u32, Some(&wait));
            }
        }
    }

    /// Takes the word from a dead holder. `None`: the holder lives.
    fn steal(&self, word: &AtomicU64, seen: u64) -> Result<Option<Option<u32>>> {
        let token = seen >> 1;
        let slot = (token & 0x1ff) as u32;
        let mine = self.token() << 1 | WAITERS;
        if slot == self.index() {
            // The slot is ours, and this process's threads exclude each other: whoever held the
            // word under it is gone.
            let taken = protocol::steal(word, seen, mine, || Ok::<_, Error>(true), || Ok(()))?;
            return Ok(taken.then_some(None));
        }
        let byte = LOCK_BASE + u64::from(slot.min(SESSIONS - 1));
        let io = |e| Error::io("asking whether the holder of the writer lock lives", e);
        let taken = protocol::steal(
            word,
            seen,
            mine,
            || self.lock.try_lock(byte, 1).map_err(io),
            || self.lock.unlock(byte, 1).map_err(io),
        )?;
        Ok(taken.then_some(Some(slot)))
    }

    #[cold]
    fn give_up(&self, seen: u64, patience: Duration) -> Error {
        let slot = (seen >> 1 & 0x1ff) as u32;
        let pid = self
            .bytes
            .half(self.layout.session(slot) + field::PID)
            .map_or(0, |pid| pid.load(Ordering::Relaxed));
        Error::Timeout {
            what: format!(
                "process {pid} has held the region's writer lock for {} seconds; it may be \
                 stopped: continue or end it",
                patience.as_secs_f32()
            ),
        }
    }

    /// Leaves work to whoever takes the writer lock next in this process.
    pub(crate) fn defer(&self, work: Deferred) {
        self.deferred.lock().push(work);
        self.has_deferred.store(true, Ordering::Release);
    }
}

impl Writer<'_> {
    fn enter(&mut self, stolen: Option<u32>) -> Result<()> {
        let dirty = self.s.bytes.word(header::DIRTY)?;
        kill::point("writer: taken");
        let was_dirty = protocol::enter(dirty);
        kill::point("writer: dirty");
        let mut ready = Ok(());
        if was_dirty {
            self.broken.set(true);
            ready = self.rebuild();
            self.broken.set(ready.is_err());
            kill::point("writer: rebuilt");
        }
        if let Some(slot) = stolen {
            // A slot that none was ever in is what a damaged word names.
            if ready.is_ok() && slot < self.s.sessions_high() {
                ready = self.sweep_session(slot);
            }
            // In any case: kept, the dead session would look alive to all others.
            let _ = self.s.lock.unlock(LOCK_BASE + u64::from(slot), 1);
        }
        ready?;
        if self.s.has_deferred.load(Ordering::Acquire) {
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let work = {
            let mut deferred = self.s.deferred.lock();
            self.s.has_deferred.store(false, Ordering::Release);
            std::mem::take(&mut *deferred)
        };
        // All of it, whatever becomes of one: nobody does the rest later.
        let mut done = Ok(());
        for item in work {
            let outcome = match item {
                Deferred::Extent(raw) => self.release(raw.record, raw.offset, raw.bytes),
                Deferred::Shorter { mut raw, bytes } => self.make_shorter(&mut raw, bytes),
                Deferred::Slot(slot) => self.reclaim(slot).map(drop),
                Deferred::Reopen(held) => self.reopen(held),
            };
            done = done.and(self.noting(outcome));
        }
        done
    }

    /// Passes a result on; a contradiction in shared memory has the next writer rebuild.
    pub(crate) fn noting<T>(&self, result: Result<T>) -> Result<T> {
        if matches!(result, Err(Error::RegionCorrupt { .. })) {
            self.broken.set(true);
        }
        result
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if !self.broken.get()
            && let Ok(dirty) = self.s.bytes.word(header::DIRTY)
        {
            protocol::leave(dirty);
            kill::point("writer: clean");
        }
        if let Ok(word) = self.s.bytes.word(header::WRITER)
            && protocol::release(word) & WAITERS != 0
        {
            kill::point("writer: released over sleepers");
            let _ = futex::wake(low(word), futex::Flags::empty(), 1);
        }
    }
}

/// The half of the word that sleepers watch: the waiters' bit, the slot, the low incarnation.
fn low(word: &AtomicU64) -> &AtomicU32 {
    // SAFETY: the low half of a live, aligned 64-bit word; little-endian by `access`. It is only
    // handed to the kernel, which reads it as 32 bits.
    unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::{Duration, Instant};

    use crate::arena::Raw;
    use crate::layout::header;
    use crate::session::Deferred;
    use crate::state::{self, State};
    use crate::{CreateOptions, Error, Location, Part, Patience, Region};

    const ROLE: &str = "INSITU_TEST_LOCK_HOLDER";
    const GC_ROLE: &str = "INSITU_TEST_LOCK_HOLDER_COLLECTS";

    /// Not a test of its own: what the holder process of the test below runs.
    #[test]
    fn holder() {
        let Ok(name) = std::env::var(ROLE) else { return };
        let region = Region::open(Location::Shm(name), false).unwrap();
        let session = region.for_tests();
        let writer = session.write().unwrap();
        // Half a publish: an owner count that no record explains, and a wrecked index.
        session.set_used(0, 7, true).unwrap();
        session.bytes.word(header::INDEX_SEQLOCK).unwrap().fetch_or(1, super::Ordering::AcqRel);
        for at in 0..512 {
            session
                .bytes
                .word(session.layout.index + at * 8)
                .unwrap()
                .store(0, super::Ordering::Relaxed);
        }
        println!("\nholding");
        let _ = std::io::stdin().read(&mut [0]);
        drop(writer);
    }

    /// Another: holds the writer lock until it is told, then collects, and stays.
    #[test]
    fn collecting_holder() {
        let Ok(name) = std::env::var(GC_ROLE) else { return };
        let region = Region::open(Location::Shm(name), false).unwrap();
        let session = region.for_tests();
        let writer = session.write().unwrap();
        println!("\nholding");
        let _ = std::io::stdin().read(&mut [0]);
        drop(writer);
        region.gc().unwrap();
        println!("\ncollected");
        let _ = std::io::stdin().read(&mut [0]);
    }

    /// Starts the above, which ends with the test.
    struct Holder(Child, BufReader<ChildStdout>);

    impl Holder {
        fn start(name: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "writer::tests::collecting_holder", "--nocapture"])
                .env(GC_ROLE, name)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            let mut holder = Self(child, out);
            holder.expect("holding");
            holder
        }

        fn expect(&mut self, said: &str) {
            assert!((&mut self.1).lines().any(|line| line.unwrap() == said));
        }

        fn collect(&mut self) {
            self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            self.expect("collected");
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Drops something while another process keeps the writer lock.
    fn drop_at_once<T>(thing: T) {
        let since = Instant::now();
        drop(thing);
        assert!(since.elapsed() < super::PATIENCE / 2, "{:?}", since.elapsed());
    }

    #[test]
    fn who_leaves_does_not_wait_for_the_writer_lock() {
        let name = format!("test-leaving-{}", std::process::id());
        let place = || Location::Shm(name.clone());
        let options = CreateOptions { capacity: Some(8 << 20), ..CreateOptions::default() };
        let region = Region::create(place(), options).unwrap();
        let extent = region.allocate(100_000).unwrap();
        let pin = region.publish("t", &[Part::Owned(&extent)], b"m", false).unwrap();
        drop(extent);
        let used = region.stats().unwrap().used;
        let kept = region.allocate(500_000).unwrap();
        let mut holder = Holder::start(&name);
        drop_at_once((kept, pin));
        drop_at_once(region);
        holder.collect();
        let region = Region::open(place(), false).unwrap();
        let stats = region.stats().unwrap();
        assert_eq!((stats.used, stats.sessions, stats.tables), (used, 2, 1), "{stats:?}");
        assert!(region.verify().ok(), "{:?}", region.verify());
        Region::remove(&place()).unwrap();
    }

    #[test]
    fn an_exclusive_lease_that_cannot_be_given_back_at_once_is_nobodys() {
        for begun in [false, true] {
            let name = format!("test-nobodys-{begun}-{}", std::process::id());
            let place = || Location::Shm(name.clone());
            let options = CreateOptions { capacity: Some(8 << 20), ..CreateOptions::default() };
            let region = Region::create(place(), options).unwrap();
            let pin = region.publish("t", &[], b"m", false).unwrap();
            let at_once = Patience { timeout: Duration::ZERO, ..Patience::reader("") };
            let exclusive = pin.updater(&at_once).unwrap().exclusive(&at_once).unwrap();
            if begun {
                exclusive.begin().unwrap();
            }
            assert_eq!(exclusive.is_changing(), begun);
            let mut holder = Holder::start(&name);
            drop_at_once(exclusive);
            // Who cannot take over sees what will be.
            let reader = Region::open(place(), true).unwrap();
            let seen = reader.lookup("t").unwrap().lease_within(&at_once);
            assert_eq!(seen.is_ok(), !begun);
            assert_eq!(matches!(seen, Err(Error::Poisoned { .. })), begun);
            drop((seen, reader));
            // The other's `gc` has ended it.
            holder.collect();
            let word = region.for_tests().state_word(pin.place().0).unwrap();
            let after = if begun { State::Poisoned } else { State::Published };
            assert_eq!(state::state(word), Some(after));
            assert!(region.verify().ok(), "{:?}", region.verify());
            pin.repair().unwrap();
            drop(pin.lease().unwrap());
            drop(pin.updater(&at_once).unwrap().exclusive(&at_once).unwrap());
            Region::remove(&place()).unwrap();
        }
    }

    #[test]
    fn a_killed_holders_lock_is_stolen_and_its_half_work_undone() {
        let name = format!("test-writer-{}", std::process::id());
        let options = CreateOptions { capacity: Some(8 << 20), ..CreateOptions::default() };
        let region = Region::create(Location::Shm(name.clone()), options).unwrap();
        let extent = region.allocate(100_000).unwrap();
        region.publish("t", &[Part::Owned(&extent)], b"m", false).unwrap();
        let used = region.stats().unwrap().used;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer::tests::holder", "--nocapture"])
            .env(ROLE, &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "holding"));
        // The holder lives: the lock is not taken from it.
        assert!(region.for_tests().try_write().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        // A reader that believed the wrecked index would miss the table.
        assert_eq!(region.lookup("t").unwrap().manifest().unwrap(), b"m");
        let pin = region.publish("u", &[Part::Owned(&extent)], b"n", false).unwrap();
        assert!(region.verify().ok(), "{:?}", region.verify());
        drop(pin);
        region.delete("u").unwrap();
        assert_eq!(region.stats().unwrap().used, used);
        assert_eq!(region.stats().unwrap().sessions, 1);
        Region::remove(&Location::Shm(name)).unwrap();
    }

    #[test]
    fn what_was_left_to_do_is_done_although_a_part_of_it_fails() {
        let options = CreateOptions { capacity: Some(1 << 20), ..CreateOptions::default() };
        let region = Region::create(Location::Memfd, options).unwrap();
        let session = region.for_tests();
        let good = session.allocate(100_000).unwrap();
        let bad = Raw { record: 0, offset: 1, bytes: 64 };
        session.defer(Deferred::Extent(bad));
        session.defer(Deferred::Extent(good));
        assert!(matches!(session.write().map(drop), Err(Error::RegionCorrupt { .. })));
        assert!(region.verify().ok(), "{:?}", region.verify());
        let stats = region.stats().unwrap();
        assert_eq!((stats.used, stats.extents), (0, 0));
    }

    #[test]
    fn damage_found_by_a_writer_is_an_error_and_mended_by_the_next() {
        let options = CreateOptions { capacity: Some(1 << 20), ..CreateOptions::default() };
        let region = Region::create(Location::Memfd, options).unwrap();
        region.publish("t", &[], b"m", false).unwrap();
        let session = region.for_tests();
        // The list of slabs with room leads out of the region.
        session.bytes.word(header::CLASS_HINTS).unwrap().store(1 << 40, super::Ordering::Relaxed);
        assert!(matches!(region.allocate(64), Err(Error::RegionCorrupt { .. })));
        assert!(region.allocate(64).is_ok());
        assert!(region.verify().ok(), "{:?}", region.verify());
        assert_eq!(region.lookup("t").unwrap().manifest().unwrap(), b"m");
    }
}
