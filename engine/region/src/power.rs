//! Power cuts. A file's pages are watched while tables come, change, go and are flushed; then files
//! are made as a cut could have left them, and opened as after another boot.
//!
//! What a disk holds after a cut: of each page, some version that it had since the last barrier,
//! independently of all other pages; of the header's page, of each sector. Every version counts
//! that was there at an observation, and all kill points are observed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::SeekFrom;

use crate::kill::watching;
use crate::layout::header;
use crate::{CreateOptions, Error, Extent, Location, Part, Patience, Region};

const PAGE: usize = 4096;
const SECTOR: usize = 512;
/// Cuts to be tried, unless the environment asks for more.
const CASES: usize = 600;

/// Names, and all bytes of the tables.
type Tables = BTreeMap<String, Vec<u8>>;

#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&self, n: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(n + 8);
        while out.len() < n {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(n);
        out
    }
}

/// What a file has in its pages; one that is not here is all zeros.
type Pages = BTreeMap<usize, Vec<u8>>;

fn pages(file: &std::fs::File) -> Pages {
    let mut pages = Pages::new();
    let mut at = 0;
    // Holes are skipped: most of a region is one.
    while let Ok(from) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, SeekFrom::Hole(from)).unwrap();
        let mut bytes = vec![0; (at - from) as usize];
        file.read_exact_at(&mut bytes, from).unwrap();
        let found = bytes.chunks(PAGE).enumerate().filter(|(_, page)| **page != [0; PAGE]);
        pages.extend(found.map(|(i, page)| (from as usize / PAGE + i, page.to_vec())));
    }
    pages
}

/// The versions of a file's pages since the last barrier.
struct Disk {
    file: std::fs::File,
    bytes: u64,
    now: Pages,
    /// Of each page that has several: all of them, the oldest first.
    versions: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Disk {
    fn watch(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap();
        let bytes = file.metadata().unwrap().len();
        Self { bytes, now: pages(&file), file, versions: BTreeMap::new() }
    }

    fn observe(&mut self) {
        let after = pages(&self.file);
        let zero = vec![0; PAGE];
        let touched = after.keys().chain(self.now.keys().filter(|page| !after.contains_key(page)));
        for page in touched {
            let (old, new) = (self.now.get(page), after.get(page));
            if old != new {
                let old = || vec![old.unwrap_or(&zero).clone()];
                let versions = self.versions.entry(*page).or_insert_with(old);
                let new = new.unwrap_or(&zero);
                if !versions.contains(new) {
                    versions.push(new.clone());
                }
            }
        }
        self.now = after;
    }

    fn barrier(&mut self) {
        self.observe();
        self.versions.clear();
    }

    /// Writes a file as a power cut now could leave it, with the mark of another boot.
    fn cut(&self, to: &Path, random: &Random) {
        let mut image = self.now.clone();
        // Sometimes nearly all has landed, sometimes nearly nothing.
        let bias = random.below(5);
        let pick = |n: usize| match bias {
            0 if random.below(20) != 0 => 0,
            1 if random.below(20) != 0 => n - 1,
            _ => random.below(n),
        };
        for (page, versions) in &self.versions {
            let mut chosen = versions[pick(versions.len())].clone();
            if *page == 0 {
                for sector in 0..PAGE / SECTOR {
                    let part = sector * SECTOR..(sector + 1) * SECTOR;
                    chosen[part.clone()].copy_from_slice(&versions[pick(versions.len())][part]);
                }
            }
            image.insert(*page, chosen);
        }
        let first = image.get_mut(&0).unwrap();
        first[header::BOOT_ID as usize..][..16].copy_from_slice(&random.bytes(16));
        let file = std::fs::File::create(to).unwrap();
        file.set_len(self.bytes).unwrap();
        for (page, bytes) in image {
            file.write_all_at(&bytes, (page * PAGE) as u64).unwrap();
        }
    }
}

/// All tables of a region, as a reader sees them.
fn read(region: &Region) -> Tables {
    let mut tables = Tables::new();
    for name in region.names().unwrap() {
        let pin = region.lookup(&name).unwrap();
        let mut bytes = pin.manifest().unwrap();
        for (offset, len) in pin.extents().unwrap() {
            bytes.extend(region.for_tests().bytes.read(offset, len).unwrap());
        }
        tables.insert(name, bytes);
    }
    tables
}

fn fill(extent: &Extent, bytes: &[u8]) {
    assert_eq!(extent.len() as usize, bytes.len());
    // SAFETY: the extent is this thread's own, and as long as the bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), extent.as_mut_ptr(), bytes.len()) };
}

fn flush(region: &Region) -> crate::Result<crate::Flushed> {
    let timeout = Duration::from_secs(1);
    region.flush(&Patience { timeout, interrupt: &|| false, what: "" })
}

/// A story, and what it may be found to have been after a cut.
struct Story {
    random: Random,
    disk: Rc<RefCell<Disk>>,
    durable: Rc<RefCell<Vec<Tables>>>,
    cases: Rc<Cell<usize>>,
    /// How often a table was changed where it lies.
    in_place: Rc<Cell<usize>>,
    image: PathBuf,
}

impl Story {
    fn observe(&self, point: &str) {
        let barrier = point.ends_with("on disk");
        if barrier {
            self.disk.borrow_mut().barrier();
        } else {
            self.disk.borrow_mut().observe();
        }
        if self.random.below(4) == 0 {
            self.try_cut();
        }
    }

    /// Cuts the power now, and looks what is there after it.
    fn try_cut(&self) {
        self.cases.set(self.cases.get() + 1);
        let allowed = self.durable.borrow().clone();
        self.disk.borrow().cut(&self.image, &self.random);
        let twice = self.random.below(4) == 0;
        if twice {
            // The power fails once more, while the file is being recovered from the first cut.
            let disk = Rc::new(RefCell::new(Disk::watch(&self.image)));
            let again = self.image.with_extension("again");
            let at = self.random.below(12);
            let passed = Cell::new(0);
            let (watched, random, to) = (disk.clone(), self.random.clone(), again.clone());
            let region = watching::during(
                move |_| {
                    watched.borrow_mut().observe();
                    passed.set(passed.get() + 1);
                    if passed.get() == at {
                        watched.borrow().cut(&to, &random);
                    }
                },
                || Region::open(Location::File(self.image.clone()), false).unwrap(),
            );
            let first = read(&region);
            drop(region);
            if !again.exists() {
                disk.borrow_mut().observe();
                disk.borrow().cut(&again, &self.random);
            }
            let region = Region::open(Location::File(again.clone()), false).unwrap();
            assert_eq!(read(&region), first);
            self.look(&region, &allowed);
            drop(region);
            std::fs::remove_file(&again).unwrap();
        } else {
            let region = watching::during(
                |_| {},
                || Region::open(Location::File(self.image.clone()), false),
            );
            self.look(&region.unwrap(), &allowed);
        }
        std::fs::remove_file(&self.image).unwrap();
    }

    /// What is found must be a state that may be there, and the region must go on from it.
    fn look(&self, region: &Region, allowed: &[Tables]) {
        let mut found = read(region);
        let names = |t: &Tables| t.iter().map(|(n, b)| (n.clone(), b.len())).collect::<Vec<_>>();
        assert!(
            allowed.contains(&found),
            "found {:?}, allowed {:?}",
            names(&found),
            allowed.iter().map(names).collect::<Vec<_>>()
        );
        assert!(region.verify().ok(), "{:?}", region.verify());
        watching::during(
            |_| {},
            || {
                // Memory that is not durable is handed out and written.
                let mut junk = Vec::new();
                while let Ok(extent) = region.allocate(60_000) {
                    fill(&extent, &vec![0xee; extent.len() as usize]);
                    junk.push(extent);
                    if junk.len() > 8 {
                        break;
                    }
                }
                drop(junk);
                assert_eq!(read(region), found);
                let extent = match region.allocate(1_000) {
                    Ok(extent) => extent,
                    Err(Error::RegionFull { .. }) => return,
                    Err(e) => panic!("{e}"),
                };
                fill(&extent, &self.random.bytes(extent.len() as usize));
                region.publish("after", &[Part::Owned(&extent)], b"after", true).unwrap();
                flush(region).unwrap();
                found = read(region);
                assert!(found.contains_key("after"));
                assert!(region.verify().ok(), "{:?}", region.verify());
            },
        );
    }
}

/// Tables come and go, change in place where they may, and are flushed now and then.
fn run(seed: u64, cases: &Rc<Cell<usize>>, in_place: &Rc<Cell<usize>>, directory: &Path) {
    let path = directory.join("region");
    let options =
        CreateOptions { capacity: Some(1 << 20), max_tables: Some(40), ..Default::default() };
    let mut region = Region::create(Location::File(path.clone()), options).unwrap();
    let random = Random(Rc::new(Cell::new(seed)));
    let story = Rc::new(Story {
        random: random.clone(),
        disk: Rc::new(RefCell::new(Disk::watch(&path))),
        durable: Rc::new(RefCell::new(vec![Tables::new()])),
        cases: cases.clone(),
        in_place: in_place.clone(),
        image: directory.join("image"),
    });
    let mut now = Tables::new();
    for _ in 0..40 {
        story.observe("");
        let name = format!("t{}", random.below(5));
        match random.below(16) {
            0..=5 => {
                let parts: Vec<_> = (0..1 + random.below(3))
                    .map_while(|_| {
                        let bytes = [200, 3_000, 40_000, 150_000][random.below(4)];
                        region.allocate(1 + random.below(bytes) as u64).ok()
                    })
                    .collect();
                for extent in &parts {
                    fill(extent, &random.bytes(extent.len() as usize));
                    story.observe("");
                }
                let stamp = random.bytes(20);
                let owned: Vec<_> = parts.iter().map(Part::Owned).collect();
                match region.publish(&name, &owned, &stamp, true) {
                    Ok(_) => {}
                    Err(Error::RegionFull { .. }) => continue,
                    Err(e) => panic!("{e}"),
                }
                now.insert(name.clone(), read(&region).remove(&name).unwrap());
            }
            6 => {
                let from = format!("t{}", random.below(5));
                let Ok(pin) = region.lookup(&from) else { continue };
                if region.publish(&name, &[Part::Of(&pin)], b"shared", true).is_err() {
                    continue;
                }
                now.insert(name.clone(), read(&region).remove(&name).unwrap());
            }
            7..=8 => assert_eq!(region.delete(&name).is_ok(), now.remove(&name).is_some()),
            9..=11 => {
                // In place, where nothing durable is written and nobody shares it; else by a swap.
                let Ok(pin) = region.lookup(&name) else { continue };
                let patience = Patience { timeout: Duration::ZERO, interrupt: &|| false, what: "" };
                let updater = pin.updater(&patience).unwrap();
                let held = updater.exclusive(&patience).map_err(|(_, e)| e).unwrap();
                let extents = held.updater().pin().extents().unwrap();
                match held.updater().obstacle(&extents).unwrap() {
                    None => {
                        held.begin().unwrap();
                        for (offset, len) in extents {
                            for half in [0, len / 2] {
                                let bytes = random.bytes((len / 2) as usize);
                                region.for_tests().bytes.write(offset + half, &bytes).unwrap();
                                story.observe("");
                            }
                        }
                        held.finish().unwrap();
                        story.in_place.set(story.in_place.get() + 1);
                    }
                    Some(_) => {
                        drop(held);
                        let Ok(extent) = region.allocate(5_000) else { continue };
                        fill(&extent, &random.bytes(extent.len() as usize));
                        let updater = pin.updater(&patience).unwrap();
                        match updater.swap(&[Part::Owned(&extent)], b"swapped") {
                            Ok(_) => {}
                            Err(Error::RegionFull { .. }) => continue,
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
                now.insert(name.clone(), read(&region).remove(&name).unwrap());
            }
            12..=13 => {
                story.durable.borrow_mut().push(now.clone());
                let watcher = story.clone();
                let done = watching::during(move |point| watcher.observe(point), || flush(&region));
                match done {
                    Ok(flushed) => {
                        assert_eq!(flushed.tables, now.len() as u64);
                        *story.durable.borrow_mut() = vec![now.clone()];
                    }
                    Err(Error::RegionFull { .. }) => {
                        story.durable.borrow_mut().pop();
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            14 => {
                if random.below(2) == 0 {
                    region.gc().unwrap();
                } else {
                    region.trim().unwrap();
                }
            }
            _ => {
                // Everybody leaves, and comes back in the same boot.
                drop(region);
                region = Region::open(Location::File(path.clone()), false).unwrap();
            }
        }
        assert_eq!(read(&region), now);
        assert!(region.verify().ok(), "{:?}", region.verify());
    }
    drop(region);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn after_a_power_cut_a_file_is_what_a_flush_made_it() {
    let wanted = std::env::var("INSITU_POWER_CASES").ok().and_then(|n| n.parse().ok());
    let wanted = wanted.unwrap_or(CASES);
    let seed = std::env::var("INSITU_POWER_SEED").ok().and_then(|n| n.parse().ok());
    // In memory: what a disk does is played here, and no barrier needs to be waited for.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (cases, in_place) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for seed in seed.unwrap_or(1_u64).. {
        let story = std::panic::AssertUnwindSafe(|| {
            run(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), &cases, &in_place, directory.path());
        });
        if let Err(e) = std::panic::catch_unwind(story) {
            println!("INSITU_POWER_SEED={seed}, case {}", cases.get());
            std::panic::resume_unwind(e);
        }
        if cases.get() >= wanted {
            break;
        }
    }
    assert!(in_place.get() > wanted / 100, "{} updates in place", in_place.get());
}
