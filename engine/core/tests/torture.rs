//! Torture: many processes work on one region while members are killed, again and again.
//!
//! Workers (this test's binary, in a role) put, build, append, replace, read, query, update and
//! delete tables of the same few names. The driver kills one after the other: at a random moment,
//! while it is stopped, or, by its own hand, at a point of a protocol. What a table must hold is a
//! function of numbers in it, so that everybody can tell a torn one from a whole one. After each
//! death the views of the survivors must be as they were, new work must proceed within a second,
//! and, once the others have let go, `gc` must leave exactly what the tables need.
//!
//! `KILLS` says how many; `make torture` runs 10,000.
#![cfg(feature = "kill-points")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use common::Random;
use insitu::{
    BuildOptions, CollectOptions, CreateOptions, Error, ErrorCode, Expr, Location, Region, Scalar,
    Table, UpdateOptions,
};

const ROLE: &str = "INSITU_TEST_ROLE";
const SEED: &str = "INSITU_TEST_SEED";
const WORKERS: usize = 8;
/// The names that workers fight over.
const NAMES: usize = 10;
/// Rows of an append, and the number of the first of them.
const APPENDED: usize = 100;
const FIRST_APPENDED: i64 = 1_000_000;
/// More chunks than this are replaced rather than appended to.
const MANY_ROWS: u64 = 60_000;

// --- What a table holds ----------------------------------------------------------------------

fn schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, false);
    let (v, text) = (Field::new("v", DataType::Int64, true), Field::new("s", DataType::Utf8, true));
    Arc::new(Schema::new(vec![number("base"), number("seed"), number("row"), v, text]))
}

/// How many rows a table begins with.
fn rows(base: i64) -> usize {
    if base % 10 == 0 { 20_000 } else { 1 + base.unsigned_abs() as usize % 1_500 }
}

/// `v` is three times `row` plus `seed`, and with odd seeds null in each fifth row; `s` is the row's
/// number; `base` says how many rows there are.
fn batch(base: i64, seed: i64, from: i64, count: usize) -> RecordBatch {
    let row: Vec<i64> = (0..count as i64).map(|i| from + i).collect();
    let v: Int64Array = row.iter().map(|row| value(*row, seed)).collect();
    let s: StringArray = row.iter().map(|&row| text(row)).collect();
    let same = |value| Arc::new(Int64Array::from(vec![value; count]));
    let columns: Vec<Arc<dyn Array>> =
        vec![same(base), same(seed), Arc::new(Int64Array::from(row)), Arc::new(v), Arc::new(s)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn value(row: i64, seed: i64) -> Option<i64> {
    (seed % 2 == 0 || row % 5 != 1).then_some(row * 3 + seed)
}

fn text(row: i64) -> Option<String> {
    (row % 7 != 0).then(|| format!("row {row}"))
}

/// Says what is wrong with a table's content; else gives a number that stands for its bytes.
fn digest(batches: &[RecordBatch]) -> Result<u64, String> {
    let mut at = 0_usize;
    let mut first: Option<(i64, usize)> = None;
    let mut seed = 0;
    let mut sum = 0_u64;
    for batch in batches {
        let numbers = |i: usize| batch.column(i).as_primitive::<Int64Type>();
        let (base, seeds, row, v) = (numbers(0), numbers(1), numbers(2), numbers(3));
        let s = batch.column(4).as_string::<i32>();
        for i in 0..batch.num_rows() {
            let (start, length) = *first.get_or_insert((base.value(i), rows(base.value(i))));
            let appended = at.checked_sub(length);
            let number = match appended {
                None => at as i64,
                Some(n) => FIRST_APPENDED + (n % APPENDED) as i64,
            };
            if at == 0 || appended.is_some_and(|n| n % APPENDED == 0) {
                seed = seeds.value(i);
            }
            let s = s.is_valid(i).then(|| s.value(i));
            let v = v.is_valid(i).then(|| v.value(i));
            let good = base.value(i) == start
                && seeds.value(i) == seed
                && row.value(i) == number
                && v == value(number, seed)
                && s == text(number).as_deref();
            if !good {
                return Err(format!(
                    "row {at} is torn: base {} of {start}, seed {} of {seed}, row {} of {number}, \
                     v {v:?}, s {s:?}",
                    base.value(i),
                    seeds.value(i),
                    row.value(i)
                ));
            }
            sum = sum.rotate_left(5) ^ v.map_or(1, |v| v as u64);
            at += 1;
        }
    }
    let Some((_, length)) = first else { return Err("it is empty".into()) };
    if at < length || !(at - length).is_multiple_of(APPENDED) {
        return Err(format!("{at} rows are not {length} and hundreds more"));
    }
    Ok(sum)
}

// --- Workers ---------------------------------------------------------------------------------

/// A view that is held on to, and what it held at first.
struct View {
    batches: Vec<RecordBatch>,
    digest: u64,
}

impl View {
    fn check(&self) {
        assert_eq!(digest(&self.batches), Ok(self.digest), "a view has changed");
    }
}

fn view(table: &Table) -> insitu::Result<View> {
    let batches = table.to_batches()?;
    let found = digest(&batches);
    let digest = found.unwrap_or_else(|e| panic!("table {:?}: {e}", table.name()));
    Ok(View { batches, digest })
}

/// What may be the answer where others replace, delete, update and fill up.
fn expected(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::TableExists
            | ErrorCode::TableNotFound
            | ErrorCode::Stale
            | ErrorCode::LeaseHeld
            | ErrorCode::Poisoned
            | ErrorCode::Unsupported
            | ErrorCode::RegionFull
    )
}

struct Worker {
    region: Region,
    random: Random,
    views: Vec<View>,
    tables: Vec<Table>,
}

impl Worker {
    fn name(&mut self) -> String {
        format!("n{}", self.random.below(NAMES))
    }

    fn number(&mut self) -> i64 {
        (self.random.next() >> 20) as i64
    }

    fn work(&mut self) -> insitu::Result<()> {
        let name = self.name();
        let never = || false;
        match self.random.below(20) {
            0..=2 => {
                let (base, replace) = (self.number(), self.random.below(3) > 0);
                let batch = batch(base, base, 0, rows(base));
                self.region.put(&name, schema(), [Ok(batch)], replace)?;
            }
            3 => {
                let base = self.number();
                let options = BuildOptions { replace: true, ..BuildOptions::default() };
                let builder = self.region.build(&name, schema(), options)?;
                let (mut from, count) = (0, rows(base));
                while from < count {
                    let some = (1 + self.random.below(4_000)).min(count - from);
                    let batch = batch(base, base, from as i64, some);
                    builder.append(&schema(), [Ok(batch)], &never)?;
                    from += some;
                }
                if self.random.below(4) > 0 {
                    builder.seal(&never)?;
                }
            }
            4 => {
                let base = self.number();
                let rows = rows(base);
                let options = BuildOptions { rows: Some(rows as u64), replace: true, zero: false };
                let builder = self.region.build(&name, schema(), options)?;
                let batch = batch(base, base, 0, rows);
                for (i, column) in batch.columns().iter().enumerate() {
                    builder.assign(i, vec![column.to_data()], &never)?;
                }
                builder.seal(&never)?;
            }
            5 | 6 => {
                let table = self.region.get(&name)?;
                if table.num_rows() < MANY_ROWS {
                    let first = view(&table)?;
                    let base = first.batches[0].column(0).as_primitive::<Int64Type>().value(0);
                    let more = batch(base, self.number(), FIRST_APPENDED, APPENDED);
                    match table.append(&schema(), [Ok(more)], &never) {
                        // Replaced by one of another base meanwhile, it would be torn; that is
                        // `Stale`.
                        Ok(_) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
            7 => {
                let other = self.name();
                let table = self.region.get(&other)?;
                self.region.put_table(&name, &table, true)?;
            }
            8 | 9 => self.region.delete(&name)?,
            10..=12 => {
                let seed = self.number();
                let options = UpdateOptions {
                    atomic: self.random.below(3) == 0,
                    what: "torture",
                    ..UpdateOptions::default()
                };
                let table = self.region.get(&name)?;
                if self.random.below(4) == 0 {
                    let block = table.exclusive(options)?;
                    update(block.table(), seed, UpdateOptions::default())?;
                    update(block.table(), seed + 1, UpdateOptions::default())?;
                } else {
                    update(&table, seed, options)?;
                }
            }
            13 | 14 => {
                let table = self.region.get(&name)?;
                let few = Expr::column("row").lt(Expr::literal(10_i64));
                let result =
                    table.query().filter(vec![few]).collect(None, CollectOptions::default())?;
                let found: usize = result.to_batches()?.iter().map(RecordBatch::num_rows).sum();
                assert!((1..=10).contains(&found), "{found} rows below 10");
            }
            15 => {
                let table = self.region.get(&name)?;
                self.tables.push(table);
                if self.tables.len() > 5 {
                    let table = self.tables.remove(0);
                    drop(view(&table)?);
                }
            }
            16 if self.random.below(4) == 0 => drop(self.region.gc()?),
            16 if self.random.below(4) == 0 => drop(self.region.trim()?),
            _ => {
                let table = self.region.get(&name)?;
                self.views.push(view(&table)?);
                if self.views.len() > 6 {
                    let at = self.random.below(self.views.len());
                    self.views.swap_remove(at).check();
                }
            }
        }
        Ok(())
    }
}

fn update(table: &Table, seed: i64, options: UpdateOptions<'_>) -> insitu::Result<()> {
    let row = || Expr::column("row");
    let mut v = row() * Expr::literal(3_i64) + Expr::literal(seed);
    if seed % 2 != 0 {
        let null = row().rem(Expr::literal(5_i64)).eq(Expr::literal(1_i64));
        v = Expr::when(null, Expr::literal(Scalar::Null), v);
    }
    let sets: Vec<(Arc<str>, Expr)> = vec![("seed".into(), Expr::literal(seed)), ("v".into(), v)];
    table.update(sets, None, options)
}

/// Not a test of its own: what the workers run.
#[test]
fn role() {
    let Ok(name) = std::env::var(ROLE) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let open = || Region::open(Location::Shm(name.clone()), false).unwrap();
    // How often the driver has asked to pause, and to go on.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(|| {
        while std::io::stdin().read(&mut [0]).is_ok_and(|n| n == 1) {
            ASKED.fetch_add(1, Ordering::AcqRel);
        }
        std::process::exit(0);
    });
    insitu::set_threads(2);
    let mut worker =
        Worker { region: open(), random: Random::new(seed), views: vec![], tables: vec![] };
    let mut done = 0_u64;
    println!("\nworking");
    loop {
        for _ in 0..8 {
            match worker.work() {
                Ok(()) => done += 1,
                Err(e) if expected(&e) => {}
                Err(e) => panic!("{e}"),
            }
        }
        worker.views.iter().for_each(View::check);
        let asked = ASKED.load(Ordering::Acquire);
        if asked % 2 == 1 {
            worker.views.clear();
            worker.tables.clear();
            worker.region.close();
            println!("\npaused {done}");
            done = 0;
            while ASKED.load(Ordering::Acquire) == asked {
                std::thread::sleep(Duration::from_micros(200));
            }
            worker.region = open();
        }
    }
}

// --- The driver ------------------------------------------------------------------------------

/// How a worker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// When the driver says so.
    AnyMoment,
    /// The same, and stopped before.
    Stopped,
    /// By its own hand, at a point.
    Point(&'static str),
}

struct Peer {
    child: Child,
    out: BufReader<ChildStdout>,
    fate: Fate,
}

impl Peer {
    fn start(name: &str, seed: u64, fate: Fate, pass: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "role", "--nocapture"])
            .env(ROLE, name)
            .env(SEED, seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Fate::Point(point) = fate {
            command.env("INSITU_KILL_AT", point).env("INSITU_KILL_PASS", pass.to_string());
        }
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, fate }
    }

    /// Asks it to pause, or to go on.
    fn ask(&mut self) {
        // It may be dead by now.
        let _ = self.child.stdin.as_mut().unwrap().write_all(b".");
    }

    /// Waits until it is paused; how many operations it has done. `None`: it is dead.
    fn paused(&mut self) -> Option<u64> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.out.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(done) = line.trim_end().strip_prefix("paused ") {
                return Some(done.parse().unwrap());
            }
        }
    }

    /// Whether it has died by its own hand. Any other end is a failure.
    fn has_died(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        let Fate::Point(_) = self.fate else { panic!("a worker ended: {status:?}") };
        assert_eq!(status.signal(), Some(libc_kill()), "a worker ended: {status:?}");
        true
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc_kill()), "a worker had ended: {status:?}");
    }
}

/// The number of SIGKILL.
fn libc_kill() -> i32 {
    9
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Default)]
struct Counts {
    kills: BTreeMap<Fate, u64>,
    operations: u64,
    settled: u64,
    poisoned: u64,
    slowest: Duration,
}

/// A sleeper, and how late it was woken at worst.
struct Pulse(Arc<AtomicU64>);

impl Pulse {
    fn new() -> Self {
        let late = Arc::new(AtomicU64::new(0));
        let weak = Arc::downgrade(&late);
        std::thread::spawn(move || {
            let nap = Duration::from_millis(1);
            let mut since = Instant::now();
            while let Some(late) = weak.upgrade() {
                std::thread::sleep(nap);
                let over = since.elapsed().saturating_sub(nap);
                late.fetch_max(over.as_micros() as u64, Ordering::AcqRel);
                since = Instant::now();
            }
        });
        Self(late)
    }

    /// Since it was last asked.
    fn late(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::AcqRel))
    }
}

struct Driver {
    name: String,
    region: Region,
    peers: Vec<Peer>,
    kept: Vec<View>,
    used: u64,
    random: Random,
    pulse: Pulse,
    counts: Counts,
}

impl Driver {
    fn new(seed: u64) -> Self {
        let name = format!("test-torture-{}", std::process::id());
        let options = CreateOptions { capacity: Some(192 << 20), ..CreateOptions::default() };
        let region = Region::create(Location::Shm(name.clone()), options).unwrap();
        let mut kept = Vec::new();
        for base in [3, 10, 1_499] {
            let batch = batch(base, base, 0, rows(base));
            let table = region.put(&format!("kept {base}"), schema(), [Ok(batch)], false).unwrap();
            kept.push(view(&table).unwrap());
        }
        let used = region.stats().unwrap().used;
        let mut driver = Self {
            name,
            region,
            peers: Vec::new(),
            kept,
            used,
            random: Random::new(seed),
            pulse: Pulse::new(),
            counts: Counts::default(),
        };
        for _ in 0..WORKERS {
            let peer = driver.worker();
            driver.peers.push(peer);
        }
        driver
    }

    fn worker(&mut self) -> Peer {
        let fate = match self.random.below(4) {
            0 => Fate::AnyMoment,
            1 => Fate::Stopped,
            _ => {
                let points = insitu_region::KILL_POINTS;
                Fate::Point(points[self.random.below(points.len())])
            }
        };
        let pass = 1 + self.random.below(8) as u64;
        Peer::start(&self.name, self.random.next(), fate, pass)
    }

    /// Ends one of the workers; which one it was.
    fn kill_one(&mut self) -> usize {
        // Half of the time those who are to die by their own hand have time for it.
        let most = if self.random.below(2) == 0 { 20_000 } else { 300_000 };
        let until = Instant::now() + Duration::from_micros(self.random.below(most) as u64);
        loop {
            if let Some(dead) = self.peers.iter_mut().position(Peer::has_died) {
                return dead;
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        let chosen = self.random.below(self.peers.len());
        let stopped = self.random.below(4) == 0;
        let peer = &mut self.peers[chosen];
        if peer.has_died() {
            return chosen;
        }
        peer.fate = if stopped { Fate::Stopped } else { Fate::AnyMoment };
        if stopped {
            let pid = rustix_pid(&peer.child);
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.kill();
        chosen
    }

    /// New work proceeds, and what is looked at is as it was.
    fn carry_on(&mut self) {
        self.pulse.late();
        let since = Instant::now();
        let table =
            self.region.put("probe", schema(), [Ok(batch(5, 5, 0, rows(5)))], true).unwrap();
        view(&table).unwrap().check();
        self.region.delete("probe").unwrap();
        let took = since.elapsed();
        // A machine too busy to wake a sleeper in time says nothing about us.
        let busy = self.pulse.late();
        assert!(took < Duration::from_secs(1) + 20 * busy, "new work took {took:?} ({busy:?})");
        self.counts.slowest = self.counts.slowest.max(took);
        self.kept.iter().for_each(View::check);
    }

    /// All others let go: then the tables are all that there is.
    fn settle(&mut self) {
        self.peers.iter_mut().for_each(Peer::ask);
        for i in 0..self.peers.len() {
            match self.peers[i].paused() {
                Some(done) => self.counts.operations += done,
                None => {
                    let status = self.peers[i].child.wait().unwrap();
                    assert_eq!(status.signal(), Some(libc_kill()), "a worker ended: {status:?}");
                    self.count(i);
                    // Starts when the others go on.
                    let fresh = self.worker();
                    self.peers[i] = fresh;
                    self.peers[i].ask();
                    if self.peers[i].paused().is_none() {
                        self.count(i);
                    }
                }
            }
        }
        self.region.gc().unwrap();
        let wipe = self.counts.settled % 20 == 19;
        for name in self.region.names().unwrap() {
            match self.region.get(&name).and_then(|table| view(&table)) {
                Ok(view) => drop(view),
                Err(Error::Poisoned { .. }) => self.counts.poisoned += 1,
                Err(e) => panic!("{name}: {e}"),
            }
            if wipe && !name.starts_with("kept") {
                self.region.delete(&name).unwrap();
            }
        }
        let report = self.region.verify();
        assert!(report.ok(), "{:?}", report.problems);
        let stats = self.region.stats().unwrap();
        assert_eq!((stats.sessions, stats.retired, stats.extents), (1, 0, 0), "{stats:?}");
        if wipe {
            assert_eq!(stats.used, self.used, "{stats:?}");
        }
        self.counts.settled += 1;
        self.peers.iter_mut().for_each(Peer::ask);
    }

    fn count(&mut self, dead: usize) {
        *self.counts.kills.entry(self.peers[dead].fate).or_default() += 1;
    }

    fn kills(&self) -> u64 {
        self.counts.kills.values().sum()
    }
}

fn rustix_pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_child(child)
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.peers.clear();
        let _ = Region::remove(&Location::Shm(self.name.clone()));
    }
}

#[test]
fn processes_are_killed_and_the_others_carry_on() {
    if std::env::var(ROLE).is_ok() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (kills, seed) = (number("KILLS").unwrap_or(120), number("SEED").unwrap_or(1));
    let mut driver = Driver::new(seed);
    let since = Instant::now();
    while driver.kills() < kills {
        let dead = driver.kill_one();
        driver.count(dead);
        driver.carry_on();
        let fresh = driver.worker();
        driver.peers[dead] = fresh;
        // A quarter of the deaths meet sessions that go on undisturbed.
        if driver.random.below(4) > 0 {
            driver.settle();
        }
    }
    driver.settle();
    let counts = &driver.counts;
    let by_point: u64 =
        counts.kills.iter().filter(|(f, _)| matches!(f, Fate::Point(_))).map(|(_, n)| n).sum();
    println!(
        "{} kills in {:.0?}: {} at a moment, {} while stopped, {by_point} at {} points; \
         {} operations by {WORKERS} workers; {} times all let go; {} poisoned tables met; \
         slowest new work {:.1?}",
        driver.kills(),
        since.elapsed(),
        counts.kills.get(&Fate::AnyMoment).unwrap_or(&0),
        counts.kills.get(&Fate::Stopped).unwrap_or(&0),
        counts.kills.keys().filter(|f| matches!(f, Fate::Point(_))).count(),
        counts.operations,
        counts.settled,
        counts.poisoned,
        counts.slowest,
    );
    if kills > 1_000 {
        for (fate, n) in &counts.kills {
            println!("{n:6} {fate:?}");
        }
    }
}
