//! Several processes, and their deaths: the test binary starts itself again in a role.

// The lints' exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod peers;

use std::io::Write;
use std::process::{Command, Stdio};

use insitu_region::{CreateOptions, Error, FullCause, HoldKind, Location, Part, Region};
use peers::{Place, REGION, ROLE, say, wait};

/// Not a test of its own: what the peers run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let name = std::env::var(REGION).unwrap();
    let region = if role == "small tmpfs" {
        let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
        Region::create(Location::Shm(name.clone()), options).unwrap()
    } else if role == "join a full one" {
        match Region::open(Location::Shm(name), false) {
            Err(Error::RegionFull { cause: FullCause::SharedMemory, .. }) => say("refused"),
            other => panic!("{other:?}"),
        }
        return;
    } else if role == "another user" {
        // SAFETY: this process's own identity.
        assert_eq!(unsafe { libc::setuid(65_534) }, 0);
        for read_only in [false, true] {
            match Region::open(Location::Shm(name.clone()), read_only) {
                Err(Error::PermissionDenied { what }) => {
                    assert!(what.contains("another user"), "{what}");
                }
                other => panic!("{other:?}"),
            }
        }
        say("ready");
        return;
    } else {
        Region::open(Location::Shm(name.clone()), false).unwrap()
    };
    match role.as_str() {
        "hold" => {
            let extents: Vec<_> =
                [100, 5_000, 300_000, 4 << 20].map(|n| region.allocate(n).unwrap()).into();
            let many: Vec<_> = (0..500).map(|_| region.allocate(64).unwrap()).collect();
            let pin = region.lookup("t").unwrap();
            let lease = pin.lease_for("holding on").unwrap();
            say("ready");
            wait();
            drop((extents, many, pin, lease));
        }
        "publish" => {
            let extent = region.allocate(1 << 20).unwrap();
            // SAFETY: our own extent.
            unsafe { extent.as_mut_ptr().write_bytes(42, 1 << 20) };
            region.publish("theirs", &[Part::Owned(&extent)], b"from a peer", false).unwrap();
            say("ready");
            wait();
        }
        "churn" => {
            say("ready");
            let mut kept = Vec::new();
            for i in 0_u64.. {
                let table = format!("t{}", i % 7);
                let extent = region.allocate(1 << (i % 18)).unwrap();
                let pin = region
                    .publish(&table, &[Part::Owned(&extent)], table.as_bytes(), true)
                    .unwrap();
                if i % 3 == 0 {
                    let both = [Part::Of(&pin), Part::Owned(&extent)];
                    kept.push(region.publish(&format!("s{}", i % 5), &both, b"s", true).unwrap());
                }
                if i % 5 == 0 {
                    let _ = region.delete(&table);
                }
                if kept.len() > 4 {
                    kept.remove(0);
                }
            }
        }
        "forked parent" => {
            // A child that outlives us must not keep our session alive.
            let extent = region.allocate(1 << 20).unwrap();
            // SAFETY: the child only sleeps and leaves by `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // Another thread may have held the lock of `println` at the fork.
                let line = format!("\nchild {}\n", std::process::id());
                // SAFETY: writes a live buffer to standard output.
                unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
                std::thread::sleep(std::time::Duration::from_secs(20));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) };
            }
            wait();
            drop(extent);
        }
        "small tmpfs" => {
            let mut rest = std::fs::File::create("/dev/shm/rest").unwrap();
            while rest.write_all(&[1; 4096]).is_ok() {}
            // Not even the allocator's own rows fit: nothing may stay recorded.
            match region.allocate(3 << 20) {
                Err(Error::RegionFull { cause: FullCause::SharedMemory, .. }) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(region.stats().unwrap().extents, 0);
            assert!(region.verify().ok(), "{:?}", region.verify());
            std::fs::remove_file("/dev/shm/rest").unwrap();
            drop(rest);
            let extent = region.allocate(3 << 20).unwrap();
            // SAFETY: our own extent.
            unsafe { extent.as_mut_ptr().write_bytes(1, 3 << 20) };
            let pin = region.publish("kept", &[Part::Owned(&extent)], b"m", false).unwrap();
            // The capacity would allow it, the file system does not.
            match region.allocate(16 << 20) {
                Err(Error::RegionFull { cause: FullCause::SharedMemory, .. }) => {}
                other => panic!("{other:?}"),
            }
            // What the attempt took went back: there is room for more, to nearly the last block.
            let mut more = Vec::new();
            while let Ok(extent) = region.allocate(64 << 10) {
                // SAFETY: our own extent. A page that was not reserved would be SIGBUS here.
                unsafe { extent.as_mut_ptr().write_bytes(2, 64 << 10) };
                more.push(extent);
            }
            assert!(more.len() > 60, "{}", more.len());
            // To the last page; who joins now gets an error, and not a fault when it leaves.
            let mut rest = std::fs::File::create("/dev/shm/rest").unwrap();
            while rest.write_all(&[1; 4096]).is_ok() {}
            let joins = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "role", "--nocapture"])
                .env(ROLE, "join a full one")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&joins.stdout).into_owned();
            assert!(joins.status.success() && said.contains("refused"), "{joins:?}");
            std::fs::remove_file("/dev/shm/rest").unwrap();
            drop(rest);
            assert!(region.verify().ok(), "{:?}", region.verify());
            assert_eq!(pin.manifest().unwrap(), b"m");
            drop(more);
            assert!(region.trim().unwrap() >= 4 << 20);
            assert!(region.allocate(4 << 20).is_ok());
            say("ready");
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_name_is_visible_at_once_in_another_process() {
    let place = Place::new("visible");
    let region = place.create(16 << 20);
    let mut peer = place.start("publish");
    peer.expect("ready");
    let pin = region.lookup("theirs").unwrap();
    assert_eq!(pin.manifest().unwrap(), b"from a peer");
    let (offset, len) = pin.extents().unwrap()[0];
    let at = region.slice(offset, len).unwrap();
    peer.go_on();
    peer.finish();
    // SAFETY: the pin keeps the extent.
    assert_eq!(unsafe { at.add(len as usize - 1).read_volatile() }, 42);
    assert_eq!(region.stats().unwrap().sessions, 1);
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn what_a_killed_process_held_is_reclaimed() {
    let place = Place::new("killed");
    let region = place.create(16 << 20);
    region.publish("t", &[], b"m", false).unwrap();
    let used = region.stats().unwrap().used;
    let mut peer = place.start("hold");
    peer.expect("ready");
    let pid = peer.child.id();
    let holds = region.leases().unwrap();
    assert!(holds.iter().any(|h| h.pid == pid && h.kind == HoldKind::Pin && h.table == "t"));
    assert!(holds.iter().any(|h| h.pid == pid && h.what == "holding on"));
    assert!(region.stats().unwrap().used > used + (4 << 20));
    assert!(region.verify().ok(), "{:?}", region.verify());
    region.delete("t").unwrap();
    // A living process's things stay.
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().retired, 1);
    peer.kill();
    assert!(region.gc().unwrap() > 4 << 20);
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.retired, stats.sessions), (0, 0, 1), "{stats:?}");
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn who_runs_out_of_space_takes_over_from_the_dead() {
    let place = Place::new("space");
    let region = place.create(8 << 20);
    region.publish("t", &[], b"m", false).unwrap();
    let mut peer = place.start("hold");
    peer.expect("ready");
    assert!(matches!(region.allocate(6 << 20), Err(Error::RegionFull { .. })));
    peer.kill();
    assert!(region.allocate(6 << 20).is_ok());
}

#[test]
fn processes_killed_at_any_moment_lose_and_leak_nothing() {
    let place = Place::new("churn");
    let region = place.create(64 << 20);
    region.publish("kept", &[], b"kept", false).unwrap();
    let baseline = region.stats().unwrap().used;
    for round in 0..40_u64 {
        let mut peers = [place.start("churn"), place.start("churn")];
        for peer in &mut peers {
            peer.expect("ready");
        }
        // Not a time that matters: any moment will do.
        std::thread::sleep(std::time::Duration::from_micros(round * 977 % 15_000));
        for peer in peers {
            peer.kill();
        }
        for name in region.names().unwrap() {
            let manifest = region.lookup(&name).unwrap().manifest().unwrap();
            let expected = if name.starts_with('s') { "s" } else { name.as_str() };
            assert_eq!(manifest, expected.as_bytes());
        }
        assert!(region.verify().ok(), "round {round}: {:?}", region.verify());
    }
    for name in region.names().unwrap() {
        if name != "kept" {
            region.delete(&name).unwrap();
        }
    }
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.tables, stats.sessions), (baseline, 1, 1), "{stats:?}");
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn a_forked_child_does_not_keep_its_dead_parent_alive() {
    let place = Place::new("orphan");
    let region = place.create(4 << 20);
    let mut peer = place.start("forked parent");
    let orphan: i32 = peer.hear("child ").parse().unwrap();
    assert!(region.stats().unwrap().used >= 1 << 20);
    peer.kill();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
    // SAFETY: ends the grandchild that this test started.
    unsafe { libc::kill(orphan, libc::SIGKILL) };
}

#[test]
fn what_another_user_offers_as_a_region_is_not_opened() {
    // SAFETY: asks who we are.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("not run: only the superuser can be two users");
    }
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("offered");
    drop(place.create(1 << 20));
    let path = format!("/dev/shm/insitu.{}", place.0);
    std::os::unix::fs::chown(&path, Some(1_234), Some(1_234)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut peer = place.start("another user");
    peer.expect("ready");
    peer.finish();
}

#[test]
fn a_full_shared_memory_file_system_is_an_error_and_not_a_fault() {
    let place = Place::new("small");
    let program = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=8m tmpfs /dev/shm && exec \"$0\" --exact role --nocapture";
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(program)
        .env(ROLE, "small tmpfs")
        .env(REGION, &place.0)
        .output();
    let Ok(run) = run else { return eprintln!("not run: there is no unshare(1)") };
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if !out.contains("running 1 test") {
        return eprintln!("not run: no mount namespace of our own: {err}");
    }
    assert!(run.status.success() && out.contains("ready"), "{:?}\n{out}\n{err}", run.status);
}

#[test]
fn a_region_outlives_its_processes_and_is_recovered_by_the_next() {
    let place = Place::new("alone");
    let region = place.create(16 << 20);
    region.publish("t", &[], b"m", false).unwrap();
    let mut peer = place.start("hold");
    peer.expect("ready");
    drop(region);
    peer.kill();
    let region = Region::open(Location::Shm(place.0.clone()), false).unwrap();
    assert_eq!(region.lookup("t").unwrap().manifest().unwrap(), b"m");
    let stats = region.stats().unwrap();
    assert_eq!((stats.sessions, stats.retired), (1, 0));
    assert_eq!(stats.used, 64 << 10);
    assert!(region.verify().ok(), "{:?}", region.verify());
}
