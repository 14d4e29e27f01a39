//! How long the region's operations take, by hand: `cargo run --release --example speed`.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use insitu_region::{CreateOptions, Location, Part, Patience, Region};

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

fn time(what: &str, times: usize, mut run: impl FnMut()) {
    let all = (0..times)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    println!("{what:<44} {:>12.2} us", median(all));
}

fn main() {
    let name = format!("speed-{}", std::process::id());
    let options = CreateOptions {
        capacity: Some(4 << 30),
        max_tables: Some(200_000),
        ..CreateOptions::default()
    };
    let region = Region::create(Location::Shm(name.clone()), options).unwrap();
    let big = 800_u64 << 20;
    time("allocate 800 MB, cold", 3, || {
        drop(region.allocate(big).unwrap());
        region.trim().unwrap();
    });
    let start = Instant::now();
    let extent = region.allocate(big).unwrap();
    println!("allocate 800 MB after trim: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    // SAFETY: our own extent.
    unsafe { extent.as_mut_ptr().write_bytes(1, big as usize) };
    drop(extent);
    for line in smaps.lines().filter(|l| l.starts_with("ShmemPmdMapped") && !l.ends_with(" 0 kB")) {
        println!("{line}");
    }
    time("allocate + drop 80 MB, warm", 1_001, || drop(region.allocate(80 << 20).unwrap()));
    time("allocate + drop 8 KB, warm", 1_001, || drop(region.allocate(8 << 10).unwrap()));
    let extent = region.allocate(1 << 20).unwrap();
    time("publish (replace)", 1_001, || {
        drop(region.publish("t", &[Part::Owned(&extent)], b"manifest", true).unwrap());
    });
    time("lookup + manifest", 1_001, || drop(region.lookup("t").unwrap().manifest().unwrap()));
    let (slot, sequence) = region.lookup("t").unwrap().place();
    // Below the clock's own cost: many at once. Nobody else holds it, so that each one goes to the
    // shared word and back.
    time("1,000 x pin + unpin", 101, || {
        for _ in 0..1_000 {
            drop(region.revisit(slot, sequence).unwrap().unwrap());
        }
    });
    let pin = region.lookup("t").unwrap();
    time("lease + drop", 1_001, || drop(pin.lease().unwrap()));
    time("1,000 x lease + drop, another lease held", 101, || {
        let held = pin.lease().unwrap();
        for _ in 0..1_000 {
            drop(pin.lease().unwrap());
        }
        drop(held);
    });
    let patience = Patience::reader("speed");
    time("updater + drop", 1_001, || drop(pin.updater(&patience).unwrap()));
    let in_place = || {
        let updater = pin.updater(&patience).unwrap();
        let exclusive = updater.exclusive(&patience).unwrap();
        assert!(exclusive.updater().obstacle(&[]).unwrap().is_none());
        exclusive.begin().unwrap();
        exclusive.finish().unwrap();
    };
    time("change in place, all but the writing", 1_001, in_place);
    let mut last = pin.clone();
    time("swap + follow", 1_001, || {
        last.updater(&patience).unwrap().swap(&[Part::Owned(&extent)], b"manifest").unwrap();
        last = pin.follow().unwrap();
    });
    drop((pin, last));
    for i in 0..100_000 {
        region.publish(&format!("s{i}"), &[], b"m", false).unwrap();
    }
    println!("used by 100,000 tables: {} MB", region.stats().unwrap().used >> 20);
    time("lookup among 100,000", 1_001, || drop(region.lookup("s77777").unwrap()));
    time("gc over 100,000", 5, || {
        region.gc().unwrap();
    });
    drop((extent, region));
    time("open + close (alone)", 101, || {
        drop(Region::open(Location::Shm(name.clone()), false).unwrap());
    });
    Region::remove(&Location::Shm(name)).unwrap();
}
