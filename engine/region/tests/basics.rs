//! One process, all backings: what a region does as its users see it.

// The lints' exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use insitu_region::{CreateOptions, Error, FullCause, HoldKind, IfExists, Location, Part, Region};

/// A region's place that is cleaned up, also when the test fails.
enum Place {
    Shm(String),
    File(tempfile::TempDir),
    Memfd,
}

impl Place {
    fn shm() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::Shm(format!("test-basics-{}-{n}", std::process::id()))
    }

    fn all() -> [Self; 3] {
        [Self::shm(), Self::File(tempfile::tempdir().unwrap()), Self::Memfd]
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Shm(name) => format!("/dev/shm/insitu.{name}").into(),
            Self::File(dir) => dir.path().join("region"),
            Self::Memfd => panic!("no path"),
        }
    }

    fn location(&self) -> Location {
        match self {
            Self::Shm(name) => Location::Shm(name.clone()),
            Self::File(_) => Location::File(self.path()),
            Self::Memfd => Location::Memfd,
        }
    }

    fn create(&self, capacity: u64) -> Region {
        let options = CreateOptions { capacity: Some(capacity), ..CreateOptions::default() };
        Region::create(self.location(), options).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Shm(name) = self {
            let _ = std::fs::remove_file(format!("/dev/shm/insitu.{name}"));
        }
    }
}

fn fill(extent: &insitu_region::Extent, byte: u8) {
    // SAFETY: within an extent or a table that this test holds.
    unsafe { std::ptr::write_bytes(extent.as_mut_ptr(), byte, extent.len() as usize) };
}

#[test]
fn a_table_is_published_found_replaced_and_deleted() {
    for place in Place::all() {
        let region = place.create(64 << 20);
        let extent = region.allocate(5 << 20).unwrap();
        assert_eq!(extent.offset() % 64, 0);
        assert_eq!(extent.as_ptr() as usize % 64, 0);
        fill(&extent, 7);
        let pin = region.publish("t", &[Part::Owned(&extent)], b"manifest", false).unwrap();
        assert_eq!(pin.manifest().unwrap(), b"manifest");
        assert_eq!(pin.extents().unwrap(), [(extent.offset(), extent.len())]);
        drop(extent);
        let found = region.lookup("t").unwrap();
        assert_eq!(found.sequence(), pin.sequence());
        let at = region.slice(found.extents().unwrap()[0].0, 5 << 20).unwrap();
        // SAFETY: within an extent or a table that this test holds.
        assert_eq!(unsafe { at.add((5 << 20) - 1).read_volatile() }, 7);
        assert!(matches!(
            region.publish("t", &[], b"", false),
            Err(Error::TableExists { name }) if name == "t"
        ));
        let newer = region.publish("t", &[Part::Of(&found)], b"two", true).unwrap();
        assert!(newer.sequence() > pin.sequence() && !pin.is_current() && newer.is_current());
        assert_eq!(pin.manifest().unwrap(), b"manifest");
        assert_eq!(region.names().unwrap(), ["t"]);
        assert!(region.verify().ok(), "{:?}", region.verify());
        region.delete("t").unwrap();
        assert!(matches!(region.lookup("t"), Err(Error::TableNotFound { .. })));
        // SAFETY: within an extent or a table that this test holds.
        assert_eq!(unsafe { at.read_volatile() }, 7);
        assert_eq!(newer.manifest().unwrap(), b"two");
        drop((pin, found, newer));
        let stats = region.stats().unwrap();
        assert_eq!((stats.used, stats.tables, stats.retired), (0, 0, 0), "{stats:?}");
        assert!(region.verify().ok(), "{:?}", region.verify());
    }
}

#[test]
fn exports_are_read_only_at_the_page_level() {
    let region = Place::Memfd.create(1 << 20);
    let extent = region.allocate(64).unwrap();
    let address = extent.as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let number = |s| usize::from_str_radix(s, 16).unwrap();
            (number(from)..number(to)).contains(&address)
        })
        .unwrap();
    assert!(line.contains(" r--s "), "{line}");
    assert_eq!(address as u64 % (2 << 20), extent.offset() % (2 << 20));
}

#[test]
fn dropped_memory_is_reused_warm_and_last_freed_first() {
    let region = Place::Memfd.create(400 << 20);
    let first = region.allocate(80 << 20).unwrap();
    let offset = first.offset();
    drop(first);
    let reserved = region.stats().unwrap().reserved;
    for _ in 0..100 {
        let again = region.allocate(80 << 20).unwrap();
        assert_eq!(again.offset(), offset);
    }
    assert_eq!(region.stats().unwrap().reserved, reserved);
    assert!(region.trim().unwrap() >= 80 << 20);
    assert_eq!(region.stats().unwrap().reserved, 0);
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn a_full_region_says_so_and_loses_nothing() {
    for place in Place::all() {
        let region = place.create(4 << 20);
        let kept = region.allocate(1 << 20).unwrap();
        fill(&kept, 3);
        let pin = region.publish("kept", &[Part::Owned(&kept)], b"m", false).unwrap();
        match region.allocate(4 << 20) {
            Err(Error::RegionFull { needed, free, capacity, cause, .. }) => {
                assert_eq!((needed, capacity, cause), (4 << 20, 4 << 20, FullCause::Capacity));
                assert!(free < 3 << 20);
            }
            other => panic!("{other:?}"),
        }
        // To the last granule: one went to the small manifest.
        let mut rest = Vec::new();
        while let Ok(extent) = region.allocate(64 << 10) {
            rest.push(extent);
        }
        assert_eq!(rest.len(), 64 - 16 - 1);
        assert_eq!(region.stats().unwrap().free, 0);
        let at = region.slice(pin.extents().unwrap()[0].0, 1).unwrap();
        // SAFETY: within an extent or a table that this test holds.
        assert_eq!(unsafe { at.read_volatile() }, 3);
        assert!(region.verify().ok(), "{:?}", region.verify());
        drop(rest);
        // Idle warm memory in pieces does not stand in the way of one large extent.
        assert!(region.allocate(2 << 20).is_ok());
        region.delete("kept").unwrap();
        drop(kept);
        match region.allocate(4 << 20) {
            Err(Error::RegionFull { cause: FullCause::Pins, .. }) => {}
            other => panic!("{other:?}"),
        }
        drop(pin);
        assert!(region.allocate(4 << 20).is_ok());
    }
}

#[test]
fn many_small_tables_share_granules() {
    let region = Place::Memfd.create(64 << 20);
    for i in 0..3000 {
        let extent = region.allocate(900).unwrap();
        region.publish(&format!("t{i}"), &[Part::Owned(&extent)], b"m", true).unwrap();
        if i >= 1000 {
            region.delete(&format!("t{}", i - 1000)).unwrap();
        }
    }
    let stats = region.stats().unwrap();
    assert_eq!(stats.tables, 1000);
    assert!(stats.used < 4 << 20, "{stats:?}");
    assert_eq!(region.names().unwrap().len(), 1000);
    assert!(region.lookup("t2999").is_ok() && region.lookup("t1999").is_err());
    assert!(region.verify().ok(), "{:?}", region.verify());
    region.gc().unwrap();
    assert!(region.verify().ok(), "{:?}", region.verify());
    for i in 2000..3000 {
        region.delete(&format!("t{i}")).unwrap();
    }
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn what_is_not_a_region_is_refused_by_kind() {
    let place = Place::File(tempfile::tempdir().unwrap());
    let open = || Region::open(place.location(), false);
    assert!(matches!(open(), Err(Error::RegionNotFound { .. })));
    std::fs::write(place.path(), b"").unwrap();
    assert!(matches!(open(), Err(Error::RegionCorrupt { .. })));
    std::fs::write(place.path(), vec![b'x'; 10_000]).unwrap();
    assert!(matches!(open(), Err(Error::RegionCorrupt { .. })));
    assert!(matches!(Region::remove(&place.location()), Err(Error::RegionCorrupt { .. })));
    std::fs::remove_file(place.path()).unwrap();

    let region = place.create(1 << 20);
    region.publish("t", &[], b"kept", false).unwrap();
    drop(region);
    let whole = std::fs::read(place.path()).unwrap();
    for cut in [1, 100, 5_000, whole.len() - 1] {
        std::fs::write(place.path(), &whole[..cut]).unwrap();
        assert!(matches!(open(), Err(Error::RegionCorrupt { .. })), "cut at {cut}");
    }
    let mut other = whole.clone();
    other[8] = 99;
    std::fs::write(place.path(), &other).unwrap();
    assert!(matches!(open(), Err(Error::VersionMismatch { found: 99, expected: 4 })));
    let mut damaged = whole.clone();
    damaged[32] ^= 1;
    std::fs::write(place.path(), &damaged).unwrap();
    assert!(matches!(open(), Err(Error::RegionCorrupt { .. })));
    std::fs::write(place.path(), &whole).unwrap();
    assert_eq!(open().unwrap().lookup("t").unwrap().manifest().unwrap(), b"kept");

    let shm = Place::shm();
    assert!(matches!(Region::open(shm.location(), false), Err(Error::RegionNotFound { .. })));
    std::fs::write(shm.path(), b"").unwrap();
    assert!(matches!(Region::open(shm.location(), false), Err(Error::RegionCorrupt { .. })));
    Region::remove(&shm.location()).unwrap();
    assert!(matches!(
        Region::open(Location::Shm("../etc".into()), false),
        Err(Error::InvalidArgument(_))
    ));
}

#[test]
fn taken_names_follow_if_exists() {
    let place = Place::shm();
    let first = place.create(1 << 20);
    first.publish("t", &[], b"first", false).unwrap();
    let with = |if_exists| {
        let capacity = Some(2 << 20);
        let options = CreateOptions { capacity, if_exists, ..CreateOptions::default() };
        Region::create(place.location(), options)
    };
    assert!(matches!(with(IfExists::Error), Err(Error::RegionExists { .. })));
    assert_eq!(with(IfExists::Open).unwrap().id(), first.id());
    let second = with(IfExists::Replace).unwrap();
    assert_ne!(second.id(), first.id());
    assert_eq!(second.names().unwrap(), [""; 0]);
    assert_eq!(first.lookup("t").unwrap().manifest().unwrap(), b"first");
    assert!(Region::list().unwrap().iter().any(|r| Location::Shm(r.name.clone()).eq_name(&place)));
    Region::remove(&place.location()).unwrap();
    assert!(matches!(Region::remove(&place.location()), Err(Error::RegionNotFound { .. })));
    assert!(with(IfExists::Open).is_ok());
}

trait EqName {
    fn eq_name(&self, place: &Place) -> bool;
}

impl EqName for Location {
    fn eq_name(&self, place: &Place) -> bool {
        matches!((self, place), (Location::Shm(a), Place::Shm(b)) if a == b)
    }
}

#[test]
fn one_region_twice_in_a_process_is_one_session() {
    let place = Place::shm();
    let a = place.create(1 << 20);
    let b = Region::open(place.location(), false).unwrap();
    assert_eq!(b.stats().unwrap().sessions, 1);
    a.close();
    a.close();
    assert!(matches!(a.names(), Err(Error::Stale(_))));
    assert_eq!(b.names().unwrap(), [""; 0]);
}

#[test]
fn views_outlive_closing() {
    let region = Place::Memfd.create(1 << 20);
    let extent = region.allocate(100).unwrap();
    fill(&extent, 9);
    let pin = region.publish("t", &[Part::Owned(&extent)], b"m", false).unwrap();
    let lease = pin.lease_for("a test").unwrap();
    let at = region.slice(extent.offset(), 100).unwrap();
    let leases = region.leases().unwrap();
    assert!(leases.iter().any(|l| l.what == "a test" && l.pid == std::process::id()));
    drop((extent, pin));
    region.close();
    // SAFETY: within an extent or a table that this test holds.
    assert_eq!(unsafe { at.add(99).read_volatile() }, 9);
    assert!(matches!(lease.pin().manifest(), Err(Error::Stale(_))));
    drop(region);
    // SAFETY: within an extent or a table that this test holds.
    assert_eq!(unsafe { at.read_volatile() }, 9);
}

#[test]
fn read_only_openers_read_and_keep_memory() {
    let place = Place::shm();
    let region = place.create(1 << 20);
    region.publish("t", &[], b"m", false).unwrap();
    let reader = Region::open(place.location(), true).unwrap();
    let pin = reader.lookup("t").unwrap();
    assert!(matches!(reader.allocate(1), Err(Error::ReadOnly)));
    assert!(matches!(reader.publish("u", &[], b"", false), Err(Error::ReadOnly)));
    assert!(matches!(reader.delete("t"), Err(Error::ReadOnly)));
    region.delete("t").unwrap();
    assert_eq!(pin.manifest().unwrap(), b"m");
    assert_eq!(region.stats().unwrap().retired, 1);
    drop((pin, reader));
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().retired, 0);
}

#[test]
fn who_looks_for_a_moment_makes_nobody_run_out_of_memory() {
    let place = Place::shm();
    let region = place.create(1 << 20);
    let replaced = || {
        let extent = region.allocate(600 << 10)?;
        region.publish("t", &[Part::Owned(&extent)], b"", true).map(|_| ())
    };
    replaced().unwrap();
    let reader = Region::open(place.location(), true).unwrap();
    region.delete("t").unwrap();
    assert!(matches!(replaced(), Err(Error::RegionFull { cause: FullCause::ReadOnlyOpener, .. })));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            reader.close();
        });
        replaced().unwrap();
    });
}

#[test]
fn ephemeral_regions_go_with_their_last_session() {
    let place = Place::shm();
    let options = CreateOptions { capacity: Some(1 << 20), ephemeral: true, ..Default::default() };
    let region = Region::create(place.location(), options).unwrap();
    assert!(place.path().exists());
    drop(region);
    assert!(!place.path().exists());
}

#[test]
fn an_empty_region_with_default_limits_is_small() {
    for place in [Place::shm(), Place::File(tempfile::tempdir().unwrap())] {
        let region = Region::create(place.location(), CreateOptions::default()).unwrap();
        let meta = std::fs::metadata(place.path()).unwrap();
        let bytes = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
        assert!(bytes < 1 << 20, "{bytes}");
        let mode = std::os::unix::fs::MetadataExt::mode(&meta) & 0o777;
        assert_eq!(mode, 0o600);
        drop(region);
    }
}

#[test]
fn limits_that_make_no_region_are_refused() {
    for (capacity, max_tables) in
        [(0, None), (65_535, None), (1 << 45, None), (1 << 20, Some(0)), (1 << 20, Some(1 << 25))]
    {
        let options =
            CreateOptions { capacity: Some(capacity), max_tables, ..CreateOptions::default() };
        let refused = Region::create(Location::Memfd, options);
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{capacity} {max_tables:?}");
    }
    let options = CreateOptions { capacity: Some(65_536), ..CreateOptions::default() };
    assert_eq!(Region::create(Location::Memfd, options).unwrap().capacity(), 65_536);
}

#[test]
fn what_is_being_built_is_listed_as_long_as_it_is() {
    let place = Place::shm();
    let region = place.create(4 << 20);
    let building: Vec<_> = (0..10).map(|i| region.building(&format!("t{i}")).unwrap()).collect();
    building[2].set_bytes(70_000);
    let listed = region.leases().unwrap();
    assert_eq!(listed.len(), 8, "there is room for the first few");
    assert!(listed.iter().all(|l| l.kind == HoldKind::Build && l.pid == std::process::id()));
    assert_eq!((listed[2].table.as_str(), listed[2].bytes), ("t2", 70_000));
    drop(building);
    assert!(region.leases().unwrap().is_empty());
    let kept = region.building("kept").unwrap();
    // It keeps no region open.
    region.close();
    let again = Region::open(place.location(), false).unwrap();
    assert!(again.leases().unwrap().is_empty());
    kept.set_bytes(1);
    drop(kept);
    let long = again.building(&"é".repeat(100)).unwrap();
    let name = &again.leases().unwrap()[0].table;
    assert!(name.len() > 20 && "é".repeat(100).starts_with(name.as_str()), "{name}");
    drop(long);
}

#[test]
fn more_tables_than_room_is_an_error() {
    let options =
        CreateOptions { capacity: Some(1 << 20), max_tables: Some(3), ..Default::default() };
    let region = Region::create(Location::Memfd, options).unwrap();
    for name in ["a", "b", "c"] {
        region.publish(name, &[], b"", false).unwrap();
    }
    assert!(matches!(region.publish("d", &[], b"", false), Err(Error::TableLimit { limit: 3 })));
    region.publish("a", &[], b"", true).unwrap_err();
    region.delete("b").unwrap();
    region.publish("a", &[], b"2", true).unwrap();
    assert_eq!(region.lookup("a").unwrap().manifest().unwrap(), b"2");
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn misspelt_names_are_answered_with_the_nearest() {
    let region = Place::Memfd.create(1 << 20);
    region.publish("flights", &[], b"", false).unwrap();
    match region.lookup("flihgts") {
        Err(Error::TableNotFound { nearest, .. }) => {
            assert_eq!(nearest.as_deref(), Some("flights"));
        }
        other => panic!("{other:?}"),
    }
    assert!(region.publish("", &[], b"", false).is_err());
    assert!(region.publish(&"x".repeat(256), &[], b"", false).is_err());
}

#[test]
fn an_ephemeral_region_does_not_take_its_successor_along() {
    for place in [Place::shm(), Place::File(tempfile::tempdir().unwrap())] {
        let options =
            CreateOptions { capacity: Some(1 << 20), ephemeral: true, ..Default::default() };
        let first = Region::create(place.location(), options).unwrap();
        Region::remove(&place.location()).unwrap();
        let second = place.create(1 << 20);
        drop(first);
        assert!(place.path().exists());
        drop(second);
        assert!(place.path().exists());
    }
}

#[test]
fn what_is_no_file_among_shared_memory_stops_nobody() {
    let place = Place::shm();
    let path = std::ffi::CString::new(place.path().into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: a valid string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let (sender, receiver) = std::sync::mpsc::channel();
    let location = place.location();
    std::thread::spawn(move || {
        let _ = Region::list();
        sender.send(Region::open(location, true).is_err()).unwrap();
    });
    let refused = receiver.recv_timeout(std::time::Duration::from_secs(5));
    drop(place);
    assert_eq!(refused, Ok(true));
}
