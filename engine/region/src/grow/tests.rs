//! Growing extents: that they stay where they are, that they give back, what a death leaves.

use std::sync::atomic::Ordering;

use crate::layout::{GRANULE, header};
use crate::{CreateOptions, Error, Growable, Location, Part, Region};

fn region(capacity: u64) -> Region {
    let options = CreateOptions { capacity: Some(capacity), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

fn healthy(region: &Region) {
    assert!(region.verify().ok(), "{:?}", region.verify());
}

fn fill(growable: &Growable, from: u64, to: u64, byte: u8) {
    // SAFETY: the bytes lie in the extent, which is the test's.
    unsafe { growable.as_mut_ptr().add(from as usize).write_bytes(byte, (to - from) as usize) };
}

fn byte(growable: &Growable, at: u64) -> u8 {
    // SAFETY: as above.
    unsafe { growable.as_mut_ptr().add(at as usize).read() }
}

#[test]
fn several_grow_side_by_side_without_moving() {
    let region = region(64 << 20);
    let mut growing: Vec<Growable> = (0..4).map(|_| region.grow(100_000).unwrap()).collect();
    let places: Vec<u64> = growing.iter().map(Growable::offset).collect();
    let mut filled = 0;
    for to in (1..=14).map(|mib| mib << 20) {
        // What does not grow is put elsewhere.
        let other = region.allocate(300_000).unwrap();
        for (i, growable) in growing.iter_mut().enumerate() {
            assert_eq!(growable.extend(to, filled).unwrap(), 0, "extent {i} moved at {to}");
            fill(growable, filled, to, i as u8 + 1);
        }
        drop(other);
        filled = to;
    }
    assert_eq!(growing.iter().map(Growable::offset).collect::<Vec<_>>(), places);
    healthy(&region);
    for (i, growable) in growing.iter().enumerate() {
        assert!((0..filled).step_by(4099).all(|at| byte(growable, at) == i as u8 + 1));
    }
    let before = region.stats().unwrap().used;
    let extents: Vec<_> = growing.into_iter().map(|g| g.seal(5 << 20).unwrap()).collect();
    assert!(region.stats().unwrap().used <= before - 4 * (9 << 20) + 4 * GRANULE);
    healthy(&region);
    let parts: Vec<Part<'_>> = extents.iter().map(Part::Owned).collect();
    region.publish("t", &parts, b"m", false).unwrap();
    drop(extents);
    healthy(&region);
    assert_eq!(region.stats().unwrap().used, 4 * (5 << 20) + GRANULE);
    region.delete("t").unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn what_meets_another_moves_and_keeps_its_bytes() {
    let region = region(32 << 20);
    let mut growable = region.grow(1 << 20).unwrap();
    fill(&growable, 0, 1 << 20, 7);
    let session = region.for_tests();
    // Something else begins right behind it.
    let end = session.layout.granule_of(growable.offset()).unwrap() + growable.len() / GRANULE;
    let wall = {
        let mut writer = session.write().unwrap();
        writer.ensure_record().unwrap();
        writer.take_recorded(end + 4, 1, GRANULE).unwrap()
    };
    let from = growable.offset();
    assert_eq!(growable.extend(growable.len() + 4 * GRANULE, 1 << 20).unwrap(), 0);
    assert_eq!(growable.offset(), from);
    assert_eq!(growable.extend(4 << 20, 1 << 20).unwrap(), 1 << 20);
    assert_ne!(growable.offset(), from);
    assert_eq!((byte(&growable, 0), byte(&growable, (1 << 20) - 1)), (7, 7));
    session.write().unwrap().release(wall.record, wall.offset, wall.bytes).unwrap();
    healthy(&region);
    drop(growable);
    healthy(&region);
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn a_small_region_grows_to_its_last_granule_and_says_when_it_is_full() {
    let region = region(8 << 20);
    let mut growable = region.grow(1).unwrap();
    let mut len = growable.len();
    loop {
        match growable.extend(len + GRANULE, len) {
            Ok(_) => len = growable.len(),
            Err(Error::RegionFull { capacity, .. }) => {
                assert_eq!(capacity, 8 << 20);
                break;
            }
            Err(e) => panic!("{e}"),
        }
    }
    // A granule may be a block of records.
    assert!(len >= (8 << 20) - GRANULE, "{len}");
    healthy(&region);
    let extent = growable.seal(10).unwrap();
    healthy(&region);
    // What is left over is warm, and can be used by others.
    assert_eq!(region.stats().unwrap().used, GRANULE);
    let other = region.allocate(7 << 20).unwrap();
    drop((extent, other));
    healthy(&region);
    assert!(matches!(region.grow(9 << 20), Err(Error::RegionFull { .. })));
    assert!(matches!(region.grow(u64::MAX), Err(Error::RegionFull { .. })));
}

#[test]
fn growing_again_takes_the_pages_that_are_warm() {
    let region = region(64 << 20);
    let mut growable = region.grow(1 << 20).unwrap();
    growable.extend(20 << 20, 0).unwrap();
    let place = growable.offset();
    drop(growable);
    let reserved = region.stats().unwrap().reserved;
    let mut again = region.grow(1 << 20).unwrap();
    assert_eq!(again.offset(), place);
    again.extend(20 << 20, 0).unwrap();
    assert_eq!(region.stats().unwrap().reserved, reserved);
}

#[test]
fn one_far_out_costs_little_metadata() {
    let region = region(4 << 30);
    let blocks = |region: &Region| {
        rustix::fs::fstat(region.for_tests().backing.fd().unwrap()).unwrap().st_blocks as u64 * 512
    };
    let before = blocks(&region);
    let growable = region.grow(2 << 20).unwrap();
    let grown = blocks(&region) - before - growable.len();
    assert!(grown <= 256 << 10, "{grown} bytes");
}

/// Makes the derived state again, as the next writer does after a death.
fn rebuild(region: &Region) {
    region.for_tests().bytes.word(header::DIRTY).unwrap().store(1, Ordering::Release);
    drop(region.for_tests().write().unwrap());
}

#[test]
fn a_death_between_record_and_bits_leaves_what_the_record_says() {
    let region = region(64 << 20);
    let session = region.for_tests();
    let growable = region.grow(2 << 20).unwrap();
    let raw = growable.extent.raw;
    for bytes in [4 << 20, 1 << 20, 2 << 20] {
        session.write().unwrap().rerecord(raw.record, bytes).unwrap();
        rebuild(&region);
        healthy(&region);
        assert_eq!(region.stats().unwrap().used, bytes);
    }
    drop(growable);
    assert_eq!(region.stats().unwrap().used, 0);
    healthy(&region);
}
