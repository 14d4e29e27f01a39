//! Damaged regions: whatever a region holds, opening, reading, checking and writing it gives
//! answers or typed errors, and no crash, no hang, and no allocation out of proportion.
//!
//! Images of regions (shared memory, a flushed file, a file of another boot, a region whose process
//! was killed) are damaged by a seeded mutator: bits flipped, numbers replaced by awkward ones,
//! pieces of other places spliced in, pages emptied, the end cut off; before the region is opened,
//! after, or all the while. Everything happens in processes with limits on memory and time, of
//! which the driver only looks how they end.
//!
//! `corpus/` holds what once did harm, as seeds; each is tried first. `IMAGES` says how many more
//! (`make fuzz`: many), `SEED` from which on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_array::types::Int32Type;
use arrow_array::*;
use arrow_schema::{DataType, Field, Schema};
use common::Random;
use insitu::{
    BuildOptions, CollectOptions, CreateOptions, Expr, Location, Region, Table, UpdateOptions,
};

const ROLE: &str = "INSITU_TEST_ROLE";
/// Images that one process tries.
const BATCH: u64 = 50;
/// How long one image may take: some waits last ten seconds.
const SECONDS: u64 = 120;
/// The most that is allocated at once where regions have 4 MiB.
const LARGEST: usize = 64 << 20;
const CAPACITY: u64 = 4 << 20;
/// Where in the header the positions of the parts begin, and its checksum.
const POSITIONS: u64 = 64;
const CHECKSUM: usize = 152;
const BOOT_ID: u64 = 256;
/// The durable roots, and where in them the checkpoint's place and the sums are.
const ROOTS: [u64; 2] = [1024, 1536];
const ROOT_BYTES: usize = 512;
const PAGE: usize = 4096;

/// Refuses what is out of proportion: then who asked for it ends the process.
struct Limited;

static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

// SAFETY: passes on what it is asked for, or refuses it.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        if memory.size() > LIMIT.load(Ordering::Relaxed) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, memory) };
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

// --- Images ----------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shm,
    Flushed,
    AnotherBoot,
    Corpse,
}

const KINDS: [Kind; 4] = [Kind::Shm, Kind::Flushed, Kind::AnotherBoot, Kind::Corpse];

impl Kind {
    fn is_file(self) -> bool {
        matches!(self, Self::Flushed | Self::AnotherBoot)
    }
}

/// Where an image is put to be opened.
struct Place {
    location: PathBuf,
    name: String,
}

impl Place {
    fn new(directory: &Path, kind: Kind, what: &str) -> Self {
        let name = format!("test-fuzz-{}-{what}", std::process::id());
        let location = match kind.is_file() {
            true => directory.join(&name),
            false => Path::new("/dev/shm").join(format!("insitu.{name}")),
        };
        Self { location, name }
    }

    fn location(&self, kind: Kind) -> Location {
        match kind.is_file() {
            true => Location::File(self.location.clone()),
            false => Location::Shm(self.name.clone()),
        }
    }

    fn file(&self) -> std::fs::File {
        std::fs::OpenOptions::new().read(true).write(true).open(&self.location).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.location);
    }
}

/// A region's bytes: its size, and the pages that are not empty.
#[derive(Clone)]
struct Image {
    bytes: u64,
    pages: Vec<(u64, Vec<u8>)>,
}

impl Image {
    fn read(file: &std::fs::File) -> Self {
        let bytes = file.metadata().unwrap().len();
        let mut pages = Vec::new();
        let mut page = vec![0; PAGE];
        let mut at = 0;
        // Holes are stepped over: where data lies, the file says.
        while let Some(data) = seek(file, at, libc_seek::DATA) {
            let hole = seek(file, data, libc_seek::HOLE).unwrap_or(bytes);
            at = data / PAGE as u64 * PAGE as u64;
            while at < hole {
                file.read_exact_at(&mut page, at).unwrap();
                if page.iter().any(|&b| b != 0) {
                    pages.push((at, page.clone()));
                }
                at += PAGE as u64;
            }
        }
        Self { bytes, pages }
    }

    fn write(&self, place: &Place) {
        let _ = std::fs::remove_file(&place.location);
        let file = std::fs::OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&place.location)
            .unwrap();
        file.set_len(self.bytes).unwrap();
        for (at, page) in &self.pages {
            file.write_all_at(page, *at).unwrap();
        }
    }

    fn number(&self, at: u64) -> u64 {
        let (from, page) = &self.pages[0];
        assert_eq!(*from, 0);
        u64::from_le_bytes(page[at as usize..at as usize + 8].try_into().unwrap())
    }

    /// The pages of one of the parts that have any, which are chosen evenly: tables' data has
    /// many, the header one.
    fn choose(&self, random: &mut Random) -> usize {
        let mut bounds: Vec<u64> = (0..11).map(|i| self.number(POSITIONS + i * 8)).collect();
        bounds.retain(|&at| at > 64 && at < self.bytes);
        bounds.push(0);
        bounds.sort_unstable();
        let part = |at: u64| bounds.partition_point(|&bound| bound <= at);
        let parts: std::collections::BTreeSet<usize> =
            self.pages.iter().map(|(at, _)| part(*at)).collect();
        let parts: Vec<_> = parts.into_iter().collect();
        let chosen = parts[random.below(parts.len())];
        let of: Vec<usize> =
            (0..self.pages.len()).filter(|&i| part(self.pages[i].0) == chosen).collect();
        of[random.below(of.len())]
    }
}

mod libc_seek {
    pub const DATA: bool = true;
    pub const HOLE: bool = false;
}

fn seek(file: &std::fs::File, from: u64, data: bool) -> Option<u64> {
    use rustix::fs::SeekFrom;
    let to = if data { SeekFrom::Data(from) } else { SeekFrom::Hole(from) };
    rustix::fs::seek(file, to).ok()
}

/// A change of some bytes.
#[derive(Clone)]
struct Patch {
    at: u64,
    bytes: Vec<u8>,
}

/// A random change of an image.
fn patch(image: &Image, random: &mut Random) -> Patch {
    let (start, page) = &image.pages[image.choose(random)];
    // Where something stands, or next to it.
    let some: Vec<usize> =
        (0..PAGE / 8).filter(|i| page[i * 8..i * 8 + 8].iter().any(|&b| b != 0)).collect();
    let word = some.get(random.below(some.len())).copied().unwrap_or(random.below(PAGE / 8));
    let word = word + usize::from(random.below(8) == 0);
    let at = (word * 8).min(PAGE - 8);
    let old = u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    let value = match random.below(14) {
        0 => 0,
        1 => u64::MAX,
        2 => old ^ 1 << random.below(64),
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        5 => old.wrapping_mul(2),
        6 => random.next() % 1_000,
        7 => image.bytes - random.next() % 5_000,
        8 => 1 << random.below(64),
        9 => u64::MAX << random.below(64),
        10 => random.next(),
        11 => old ^ (random.next() & 0xff) << (8 * random.below(8)),
        12 => {
            // A piece of another place.
            let (_, from) = &image.pages[image.choose(random)];
            let length = 8 << random.below(6);
            let from = &from[random.below((PAGE - length) / 8) * 8..][..length];
            let at = at.min(PAGE - length);
            return Patch { at: start + at as u64, bytes: from.to_vec() };
        }
        _ => {
            let length = 1 << random.below(13);
            let at = at.min(PAGE - length);
            return Patch { at: start + at as u64, bytes: vec![0; length] };
        }
    };
    let length = [8, 8, 4, 1][random.below(4)];
    Patch { at: start + at as u64, bytes: value.to_le_bytes()[..length].to_vec() }
}

/// Makes the sums right that guard header and roots, so that what they guard is looked at.
fn seal(image: &mut Image) {
    let header = &mut image.pages[0].1;
    let sum = header[..CHECKSUM].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    header[CHECKSUM..CHECKSUM + 8].copy_from_slice(&sum.to_le_bytes());
    for root in ROOTS.map(|at| at as usize) {
        let header = &image.pages[0].1;
        let number = |at: usize| u64::from_le_bytes(header[root + at..][..8].try_into().unwrap());
        let (offset, extents, message) = (number(56), number(64), number(72));
        let bytes = extents.saturating_mul(16).saturating_add(message);
        if offset != 0 && bytes < 1 << 20 {
            let mut content = vec![0; bytes as usize];
            for (at, page) in image.pages.iter().skip(1).map(|(at, page)| (*at, page.clone())) {
                for (i, byte) in page.into_iter().enumerate() {
                    let to = (at + i as u64).checked_sub(offset);
                    if let Some(to) = to.filter(|&to| to < bytes) {
                        content[to as usize] = byte;
                    }
                }
            }
            let sum = xxhash_rust::xxh3::xxh3_64(&content);
            image.pages[0].1[root + 80..root + 88].copy_from_slice(&sum.to_le_bytes());
        }
        let header = &mut image.pages[0].1;
        let sum = xxhash_rust::xxh3::xxh3_64(&header[root..root + ROOT_BYTES - 8]);
        header[root + ROOT_BYTES - 8..root + ROOT_BYTES].copy_from_slice(&sum.to_le_bytes());
    }
}

fn damage(image: &mut Image, random: &mut Random) {
    for _ in 0..1 + random.below(6) {
        let Patch { at, bytes } = patch(image, random);
        let page = at / PAGE as u64 * PAGE as u64;
        let (_, page) = image.pages.iter_mut().find(|(start, _)| *start == page).unwrap();
        let from = (at % PAGE as u64) as usize;
        let length = bytes.len().min(PAGE - from);
        page[from..from + length].copy_from_slice(&bytes[..length]);
    }
    if random.below(2) == 0 {
        seal(image);
    }
    if random.below(16) == 0 {
        let at = match random.below(3) {
            0 => image.bytes - 1 - random.next() % 5_000,
            1 => random.next() % image.bytes,
            _ => random.next() % 200,
        };
        image.bytes = at;
        image.pages.retain(|(start, _)| start + PAGE as u64 <= at);
    }
}

// --- What is done with them ------------------------------------------------------------------

fn quick() -> UpdateOptions<'static> {
    UpdateOptions { timeout: Some(Duration::from_millis(1)), ..UpdateOptions::default() }
}

fn schema() -> Arc<Schema> {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("v", DataType::Utf8View, true),
        Field::new("d", dictionary, true),
        Field::new("l", DataType::List(item), true),
        Field::new("b", DataType::Boolean, true),
    ]))
}

fn batch(rows: usize) -> RecordBatch {
    let some = |i: usize| !i.is_multiple_of(5);
    let text: Vec<Option<String>> =
        (0..rows).map(|i| some(i).then(|| format!("text number {}", i % 40))).collect();
    let lists =
        (0..rows).map(|i| some(i).then(|| (0..i % 4).map(|k| Some(k as i64)).collect::<Vec<_>>()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..rows as i64)),
        Arc::new(Float64Array::from_iter((0..rows).map(|i| some(i).then_some(i as f64)))),
        Arc::new(StringArray::from(text.clone())),
        Arc::new(StringViewArray::from_iter(text.iter().map(Option::as_deref))),
        Arc::new(DictionaryArray::<Int32Type>::from_iter(text.iter().map(Option::as_deref))),
        Arc::new(ListArray::from_iter_primitive::<arrow_array::types::Int64Type, _, _>(lists)),
        Arc::new(BooleanArray::from_iter((0..rows).map(|i| some(i).then_some(i % 3 == 0)))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn put(region: &Region, name: &str, rows: usize) -> insitu::Result<Table> {
    region.put(name, schema(), [Ok(batch(rows))], true)
}

/// A region with something of everything.
fn fill(region: &Region) -> insitu::Result<Vec<Table>> {
    let mut held = vec![put(region, "one", 900)?, put(region, "two", 70)?];
    let appended = held[1].append(&schema(), [Ok(batch(30))], &|| false)?;
    held.push(region.put_table("shared", &held[0], true)?);
    let sets = vec![("n".into(), Expr::column("n") + Expr::literal(1_i64))];
    appended.update(sets, None, UpdateOptions { atomic: true, ..quick() })?;
    held.push(appended);
    for i in 0..8 {
        put(region, &format!("small {i}"), 3)?;
    }
    region.delete("small 3")?;
    put(region, "two", 10)?;
    Ok(held)
}

fn image(directory: &Path, kind: Kind) -> Image {
    let place = Place::new(directory, kind, "base");
    let options = CreateOptions {
        capacity: Some(CAPACITY),
        max_tables: Some(64),
        ..CreateOptions::default()
    };
    let region = Region::create(place.location(kind), options).unwrap();
    let held = fill(&region).unwrap();
    if kind.is_file() {
        region.flush(None).unwrap();
        put(&region, "later", 5).unwrap();
    }
    if kind == Kind::Corpse {
        let image = Image::read(&place.file());
        drop(held);
        return image;
    }
    drop(held);
    region.close();
    drop(region);
    let file = place.file();
    if kind == Kind::AnotherBoot {
        file.write_all_at(&[7; 16], BOOT_ID).unwrap();
    }
    Image::read(&file)
}

/// Reads all that a table has, as far as it may be believed: what consumers do not check is
/// checked in files, and trusted in shared memory.
fn read(table: &Table, trusted: bool) {
    let _ = (table.schema(), table.num_rows(), table.nbytes(), table.is_current());
    let _ = table.summaries();
    let Ok(batches) = table.to_batches() else { return };
    for batch in batches {
        for column in batch.columns() {
            let fixed = matches!(column.data_type(), DataType::Int64 | DataType::Float64);
            if trusted || fixed {
                let data = column.to_data();
                let _ = data.validate_full();
                if trusted {
                    let formatter = arrow_cast::display::FormatOptions::default();
                    let formatter =
                        arrow_cast::display::ArrayFormatter::try_new(column, &formatter);
                    if let Ok(formatter) = formatter {
                        for i in 0..column.len().min(2_000) {
                            let _ = formatter.value(i).to_string();
                        }
                    }
                }
            }
        }
    }
}

fn query(table: &Table) {
    let column = Expr::column;
    let collect = |query: insitu::Query| {
        let _ = query.collect(None, CollectOptions::default());
    };
    collect(table.query().filter(vec![column("n").lt(Expr::literal(30_i64))]));
    collect(table.query().filter(vec![column("s").eq(Expr::literal("text number 7"))]));
    collect(table.query().filter(vec![column("v").eq(Expr::literal("text number 7"))]));
    collect(table.query().filter(vec![column("d").eq(Expr::literal("text number 7"))]));
    collect(table.query().group_by(vec![column("s")], vec![column("f").sum(), Expr::len()]));
    collect(table.query().group_by(vec![column("d")], vec![column("n").max()]));
    collect(table.query().sort(vec![column("v"), column("n")], vec![true, false], true));
    collect(table.query().select(vec![column("f").sum(), column("s").max()]));
    collect(table.query().slice(3, Some(5)));
}

fn write(region: &Region) {
    let _ = put(region, "new", 500);
    let _ = put(region, "one", 20);
    let sets = || vec![("n".into(), Expr::column("n") * Expr::literal(2_i64))];
    for name in region.names().unwrap_or_default().into_iter().take(12) {
        let Ok(table) = region.get(&name) else { continue };
        let _ = table.update(sets(), None, quick());
        let _ = table.update(sets(), None, UpdateOptions { atomic: true, ..quick() });
        let _ = table.append(&schema(), [Ok(batch(7))], &|| false);
        let _ = region.put_table("named again", &table, true);
        let _ = table.latest();
        let _ = table.repair();
    }
    let options = BuildOptions { replace: true, ..BuildOptions::default() };
    if let Ok(builder) = region.build("built", schema(), options) {
        let _ = builder.append(&schema(), [Ok(batch(200))], &|| false);
        let _ = builder.seal(&|| false);
    }
    for name in ["two", "shared", "small 1"] {
        let _ = region.delete(name);
    }
}

/// Everything that can be done with a region.
fn exercise(location: impl Fn() -> Location, trusted: bool, midway: impl Fn()) {
    if let Ok(region) = Region::open(location(), true) {
        let _ = region.verify();
        for name in region.names().unwrap_or_default() {
            if let Ok(table) = region.get(&name) {
                read(&table, trusted);
            }
        }
    }
    let Ok(region) = Region::open(location(), false) else { return };
    let held: Vec<Table> = region
        .names()
        .unwrap_or_default()
        .into_iter()
        .take(30)
        .filter_map(|name| region.get(&name).ok())
        .collect();
    midway();
    for round in 0..2 {
        let _ = region.verify();
        for table in &held {
            // What was checked once is written over where damage has it belong to another, too.
            read(table, trusted && round == 0);
            query(table);
        }
        let _ = (region.stats(), region.leases());
        write(&region);
        let _ = (region.gc(), region.trim());
        let _ = region.flush(None);
    }
    drop(held);
    let _ = region.gc();
    region.close();
    drop(region);
    if let Ok(region) = Region::open(location(), false) {
        let _ = (region.verify(), region.names(), region.gc());
    }
}

/// Damages an image as this seed says, and does everything with it.
fn try_seed(images: &[Image], directory: &Path, seed: u64) {
    let mut random = Random::new(seed);
    let which = random.below(KINDS.len());
    let (kind, mut image) = (KINDS[which], images[which].clone());
    let place = Place::new(directory, kind, "image");
    let when = random.below(4);
    if when < 2 {
        damage(&mut image, &mut random);
    }
    image.write(&place);
    let location = || place.location(kind);
    match when {
        0 | 1 => exercise(location, kind.is_file(), || {}),
        2 => {
            let patches: Vec<Patch> = (0..4).map(|_| patch(&image, &mut random)).collect();
            exercise(location, false, || {
                let file = place.file();
                for patch in &patches {
                    let _ = file.write_all_at(&patch.bytes, patch.at);
                }
            });
        }
        _ => {
            let patches: Vec<Patch> = (0..64).map(|_| patch(&image, &mut random)).collect();
            let file = place.file();
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for patch in patches.iter().cycle().take(2_000) {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        let _ = file.write_all_at(&patch.bytes, patch.at);
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
                exercise(location, false, || {});
                done.store(true, Ordering::Relaxed);
            });
        }
    }
}

/// Not a test of its own: what the processes run that may crash.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (from, to) = role.split_once(' ').unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    insitu::set_threads(2);
    let directory = tempfile::tempdir().unwrap();
    let images = KINDS.map(|kind| image(directory.path(), kind));
    LIMIT.store(LARGEST, Ordering::Relaxed);
    for seed in from..to {
        println!("seed {seed}");
        std::io::stdout().flush().unwrap();
        try_seed(&images, directory.path(), seed);
    }
    println!("seed none");
}

/// The seed at which a process that tries these ends badly, and how.
fn first_harm(from: u64, to: u64) -> Option<(u64, String)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "role", "--nocapture"])
        .env(ROLE, format!("{from} {to}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(|| {
            use rustix::process::{Resource, Rlimit, setrlimit};
            let limit = |n| Rlimit { current: Some(n), maximum: Some(n) };
            setrlimit(Resource::As, limit(2 << 30))?;
            setrlimit(Resource::Core, limit(0))?;
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    let (out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = err.read_to_end(&mut text);
        String::from_utf8_lossy(&text).lines().take(40).collect::<Vec<_>>().join("\n")
    });
    let (said, progress) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some(seed) = line.split("seed ").nth(1) {
                let _ = said.send(seed.trim().to_owned());
            }
        }
    });
    let (mut last, mut late) = (from.to_string(), false);
    loop {
        match progress.recv_timeout(Duration::from_secs(SECONDS)) {
            Ok(seed) => last = seed,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                late = true;
                child.kill().unwrap();
                break;
            }
        }
    }
    let status = child.wait().unwrap();
    let complaints = complaints.join().unwrap();
    if status.success() && last == "none" {
        return None;
    }
    let how = if late { "it does not end".into() } else { format!("{status:?}") };
    Some((last.parse().unwrap_or(to), format!("{how}\n{complaints}")))
}

#[test]
fn damaged_regions_do_no_harm() {
    if std::env::var(ROLE).is_ok() {
        return;
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/regions.txt");
    let corpus = std::fs::read_to_string(corpus).unwrap();
    let mut harm = Vec::new();
    for line in corpus.lines().filter(|line| !line.starts_with('#')) {
        let seed: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        harm.extend(first_harm(seed, seed + 1));
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (images, first) = (number("IMAGES").unwrap_or(250), number("SEED").unwrap_or(1));
    let since = Instant::now();
    let mut from = first;
    while from < first + images {
        let to = (from + BATCH).min(first + images);
        match first_harm(from, to) {
            None => from = to,
            Some((seed, how)) => {
                eprintln!("seed {seed}: {how}");
                from = seed + 1;
                harm.push((seed, how));
            }
        }
        if harm.len() > 20 {
            break;
        }
    }
    for (seed, how) in &harm {
        eprintln!("seed {seed}: {}", how.lines().next().unwrap_or_default());
    }
    assert!(harm.is_empty(), "{} of {images} damaged regions did harm", harm.len());
    println!("{images} damaged regions in {:.0?}", since.elapsed());
}
