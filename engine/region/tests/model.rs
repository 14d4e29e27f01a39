//! Random operations against a simple model: names, contents, and memory that adds up.

// The lints' exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use insitu_region::{CreateOptions, Error, Extent, Location, Part, Pin, Region};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Put { name: u8, bytes: u32, replace: bool },
    Share { name: u8, from: u8 },
    Delete(u8),
    Pin(u8),
    Unpin(usize),
    Allocate(u32),
    Drop(usize),
    Gc,
    Trim,
}

fn ops() -> impl Strategy<Value = Op> {
    let name = 0_u8..6;
    let bytes = prop_oneof![0_u32..5_000, 0_u32..600_000];
    prop_oneof![
        6 => (name.clone(), bytes.clone(), any::<bool>())
            .prop_map(|(name, bytes, replace)| Op::Put { name, bytes, replace }),
        2 => (name.clone(), name.clone()).prop_map(|(name, from)| Op::Share { name, from }),
        3 => name.clone().prop_map(Op::Delete),
        3 => name.prop_map(Op::Pin),
        2 => any::<usize>().prop_map(Op::Unpin),
        3 => bytes.prop_map(Op::Allocate),
        2 => any::<usize>().prop_map(Op::Drop),
        1 => Just(Op::Gc),
        1 => Just(Op::Trim),
    ]
}

/// Fills an extent so that another's write into it would show.
fn stamp(extent: &Extent, with: u64) {
    for i in 0..extent.len() as usize / 8 {
        // SAFETY: within our own extent, which is 64-aligned.
        unsafe { extent.as_mut_ptr().cast::<u64>().add(i).write_volatile(with) };
    }
}

fn stamped(region: &Region, offset: u64, len: u64, with: u64) -> bool {
    let at = region.slice(offset, len).unwrap().cast::<u64>();
    // SAFETY: within the arena by `slice`, and kept by a pin or an extent of the caller.
    (0..len as usize / 8).all(|i| unsafe { at.add(i).read_volatile() } == with)
}

fn check(region: &Region, pin: &Pin) {
    let stamp = u64::from_le_bytes(pin.manifest().unwrap()[..8].try_into().unwrap());
    for (offset, len) in pin.extents().unwrap() {
        assert!(stamped(region, offset, len, stamp));
    }
}

fn run(region: &Region, script: Vec<Op>) {
    let mut tables: BTreeMap<String, u64> = BTreeMap::new();
    let mut pins: Vec<Pin> = Vec::new();
    let mut extents: Vec<(Extent, u64)> = Vec::new();
    let mut next = 1_u64;
    for op in script {
        next += 1;
        match op {
            Op::Put { name, bytes, replace } => {
                let name = format!("n{name}");
                let Ok(extent) = region.allocate(bytes.into()) else { continue };
                stamp(&extent, next);
                let parts = [Part::Owned(&extent)];
                match region.publish(&name, &parts, &next.to_le_bytes(), replace) {
                    Ok(_) => {
                        assert!(replace || !tables.contains_key(&name));
                        tables.insert(name, next);
                    }
                    Err(Error::TableExists { .. }) => {
                        assert!(!replace && tables.contains_key(&name));
                    }
                    Err(Error::RegionFull { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            Op::Share { name, from } => {
                let (name, from) = (format!("n{name}"), format!("n{from}"));
                let Ok(pin) = region.lookup(&from) else { continue };
                let stamp = tables[&from];
                match region.publish(&name, &[Part::Of(&pin)], &stamp.to_le_bytes(), true) {
                    Ok(_) => drop(tables.insert(name, stamp)),
                    Err(Error::RegionFull { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            Op::Delete(name) => {
                let name = format!("n{name}");
                assert_eq!(region.delete(&name).is_ok(), tables.remove(&name).is_some());
            }
            Op::Pin(name) => {
                let name = format!("n{name}");
                let found = region.lookup(&name);
                assert_eq!(found.is_ok(), tables.contains_key(&name));
                pins.extend(found);
            }
            Op::Unpin(i) if !pins.is_empty() => drop(pins.swap_remove(i % pins.len())),
            Op::Allocate(bytes) => {
                if let Ok(extent) = region.allocate(bytes.into()) {
                    stamp(&extent, next);
                    extents.push((extent, next));
                }
            }
            Op::Drop(i) if !extents.is_empty() => {
                let (extent, stamp) = extents.swap_remove(i % extents.len());
                assert!(stamped(region, extent.offset(), extent.len(), stamp));
            }
            Op::Gc => drop(region.gc().unwrap()),
            Op::Trim => drop(region.trim().unwrap()),
            Op::Unpin(_) | Op::Drop(_) => {}
        }
        let report = region.verify();
        assert!(report.ok(), "{:?}", report.problems);
        let names: Vec<String> = tables.keys().cloned().collect();
        assert_eq!(region.names().unwrap(), names);
        assert_eq!(region.stats().unwrap().tables, tables.len() as u64);
    }
    for (name, stamp) in &tables {
        let pin = region.lookup(name).unwrap();
        assert_eq!(pin.manifest().unwrap(), stamp.to_le_bytes());
        check(region, &pin);
        region.delete(name).unwrap();
    }
    for pin in &pins {
        check(region, pin);
    }
    drop((pins, extents));
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.retired, stats.extents), (0, 0, 0), "{stats:?}");
    assert!(region.verify().ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_operations_agree_with_a_model(script in prop::collection::vec(ops(), 1..60)) {
        let options = CreateOptions { capacity: Some(2 << 20), max_tables: Some(40), ..Default::default() };
        let region = Region::create(Location::Memfd, options).unwrap();
        run(&region, script);
    }
}

#[test]
fn threads_that_publish_pin_and_drop_at_once_leave_a_healthy_region() {
    let options = CreateOptions { capacity: Some(32 << 20), ..Default::default() };
    let region = Region::create(Location::Memfd, options).unwrap();
    std::thread::scope(|scope| {
        for t in 0..4_u64 {
            let region = region.clone();
            scope.spawn(move || {
                for i in 0..1_500_u64 {
                    let with = t << 32 | i | 1 << 60;
                    let name = format!("n{}", (i + t) % 3);
                    let extent = region.allocate(8 << (i % 12)).unwrap();
                    stamp(&extent, with);
                    let parts = [Part::Owned(&extent)];
                    let pin = region.publish(&name, &parts, &with.to_le_bytes(), true).unwrap();
                    drop(extent);
                    check(&region, &pin);
                    if let Ok(other) = region.lookup(&format!("n{}", i % 3)) {
                        check(&region, &other);
                    }
                    if i % 7 == 0 {
                        let _ = region.delete(&name);
                    }
                }
            });
        }
    });
    for name in region.names().unwrap() {
        region.delete(&name).unwrap();
    }
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.retired), (0, 0), "{stats:?}");
    assert!(region.verify().ok(), "{:?}", region.verify());
}
