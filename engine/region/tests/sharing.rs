//! Two processes and one table: leases against updates, waiting, results that travel, and deaths
//! on the way.

// The lints' exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod peers;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use insitu_region::{Error, Exclusive, HoldKind, Location, Part, Pass, Patience, Pin, Region};
use peers::{Peer, Place, REGION, ROLE, say, wait};

const LONG: Duration = Duration::from_secs(60);

fn patience(timeout: Duration) -> Patience<'static> {
    Patience { timeout, interrupt: &|| false, what: "the test" }
}

fn exclusive(pin: &Pin, timeout: Duration, what: &str) -> Result<Exclusive, Error> {
    let patience = Patience { what, ..patience(timeout) };
    pin.updater(&patience)?.exclusive(&patience).map_err(|(_, e)| e)
}

/// A region with a table "t" of one word, 0.
fn begin(what: &str) -> (Place, Region, Pin) {
    let place = Place::new(&format!("sharing-{what}"));
    let region = place.create(8 << 20);
    let extent = region.allocate(8).unwrap();
    // SAFETY: our own extent.
    unsafe { extent.as_mut_ptr().cast::<u64>().write_volatile(0) };
    let pin = region.publish("t", &[Part::Owned(&extent)], b"0", false).unwrap();
    (place, region, pin)
}

fn end(region: Region, pins: Vec<Pin>) {
    assert!(region.verify().ok(), "{:?}", region.verify());
    drop(pins);
    for name in region.names().unwrap() {
        region.delete(&name).unwrap();
    }
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.tables, stats.retired), (0, 0, 0), "{stats:?}");
    assert!(region.verify().ok(), "{:?}", region.verify());
}

/// The word of a table under an exclusive lease.
fn word(held: &Exclusive) -> &AtomicU64 {
    let (offset, len) = held.pin().extents().unwrap()[0];
    // SAFETY: an aligned word of the table, mapped while it is leased.
    unsafe { AtomicU64::from_ptr(held.as_mut_ptr(offset, len).unwrap().cast()) }
}

/// The word of a table that is leased.
fn read(pin: &Pin) -> Result<u64, Error> {
    let lease = pin.lease()?;
    let (offset, len) = pin.extents().unwrap()[0];
    // SAFETY: an aligned word of the table, which is leased.
    let value = unsafe { pin.slice(offset, len).unwrap().cast::<u64>().read_volatile() };
    drop(lease);
    Ok(value)
}

/// Not a test of its own: what the peers run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let region = Region::open(Location::Shm(std::env::var(REGION).unwrap()), false).unwrap();
    let pin = region.lookup("t").unwrap();
    match role.as_str() {
        "lease" => {
            let lease = pin.lease_for("reading over there").unwrap();
            say("ready");
            wait();
            drop(lease);
            say("ended");
            wait();
        }
        "update" => {
            let updater = pin.updater(&Patience { what: "a long update", ..patience(LONG) });
            say("ready");
            wait();
            drop(updater.unwrap());
        }
        "exclusive" => {
            let held = exclusive(&pin, LONG, "writing over there").unwrap();
            say("ready");
            wait();
            drop(held);
            say("ended");
            wait();
        }
        "write" => {
            let held = exclusive(&pin, LONG, "writing over there").unwrap();
            held.begin().unwrap();
            word(&held).store(1, Ordering::Relaxed);
            say("ready");
            wait();
            word(&held).store(2, Ordering::Relaxed);
            let finished = held.finish().map_err(|e| e.to_string());
            say(&format!("finished {finished:?}"));
            drop(held);
            wait();
        }
        "count in place" => {
            say("ready");
            loop {
                let held = match exclusive(&pin, LONG, "counting") {
                    Ok(held) => held,
                    Err(Error::Poisoned { .. }) => {
                        pin.repair().unwrap();
                        continue;
                    }
                    Err(e) => panic!("{e}"),
                };
                held.begin().unwrap();
                let value = word(&held).load(Ordering::Relaxed);
                // Long enough to be killed in between.
                std::thread::sleep(Duration::from_micros(50));
                word(&held).store(value + 1, Ordering::Relaxed);
                held.finish().unwrap();
            }
        }
        "count by swaps" => {
            for _ in 0..300 {
                let updater = pin.updater(&patience(LONG)).unwrap();
                let value: u64 = text(updater.pin()).parse().unwrap();
                updater.swap(&[], (value + 1).to_string().as_bytes()).unwrap();
            }
            say("ended");
            wait();
        }
        "publish later" => {
            say("ready");
            wait();
            region.publish("later", &[], b"m", false).unwrap();
            wait();
        }
        "send" => {
            let extent = region.allocate(100_000).unwrap();
            let ticket = region.ticket(&[Part::Owned(&extent)], b"a result").unwrap();
            let Pass { slot, sequence, number, .. } = ticket.issue().unwrap().unwrap();
            drop((extent, ticket));
            say(&format!("sent {slot} {sequence} {number}"));
            wait();
        }
        other => panic!("no role {other}"),
    }
}

fn text(pin: &Pin) -> String {
    String::from_utf8(pin.manifest().unwrap()).unwrap()
}

fn start(place: &Place, role: &str) -> Peer {
    let mut peer = place.start(role);
    peer.expect("ready");
    peer
}

#[test]
fn an_exclusive_lease_waits_for_readers_and_names_them() {
    let (place, region, pin) = begin("readers");
    let mut reader = start(&place, "lease");
    match exclusive(&pin, Duration::from_millis(30), "") {
        Err(Error::LeaseHeld { name, holders }) => {
            assert_eq!((name.as_str(), holders.len()), ("t", 1));
            assert_eq!((holders[0].pid, holders[0].kind), (reader.child.id(), HoldKind::Lease));
            assert_eq!(holders[0].what, "reading over there");
        }
        other => panic!("{other:?}"),
    }
    // New readers are not shut out by one who waits.
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| exclusive(&pin, LONG, "").map(drop));
        let since = Instant::now();
        for _ in 0..50 {
            // From a handle of another session's point of view.
            region.lookup("t").unwrap();
        }
        assert!(since.elapsed() < Duration::from_secs(5));
        reader.go_on();
        reader.expect("ended");
        writer.join().unwrap().unwrap();
    });
    reader.finish();
    end(region, vec![pin]);
}

#[test]
fn a_dead_reader_stands_in_nobodys_way() {
    let (place, region, pin) = begin("dead-reader");
    let reader = start(&place, "lease");
    reader.kill();
    let since = Instant::now();
    exclusive(&pin, LONG, "").unwrap();
    assert!(since.elapsed() < Duration::from_secs(5));
    end(region, vec![pin]);
}

#[test]
fn a_reader_waits_for_an_exclusive_lease_and_names_its_holder() {
    let (place, region, pin) = begin("writer");
    let mut writer = start(&place, "exclusive");
    match pin.lease_within(&patience(Duration::from_millis(30))) {
        Err(Error::LeaseHeld { holders, .. }) => {
            assert_eq!((holders[0].pid, holders[0].kind), (writer.child.id(), HoldKind::Exclusive));
            assert_eq!(holders[0].what, "writing over there");
            let text = Error::LeaseHeld { name: "t".into(), holders }.to_string();
            assert!(text.contains(&writer.child.id().to_string()), "{text}");
            assert!(text.contains("writing over there"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let leases = region.leases().unwrap();
    assert!(
        leases.iter().any(|l| l.kind == HoldKind::Exclusive && l.pid == writer.child.id()),
        "{leases:?}"
    );
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| pin.lease().map(drop));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!reader.is_finished());
        writer.go_on();
        writer.expect("ended");
        reader.join().unwrap().unwrap();
    });
    writer.finish();
    end(region, vec![pin]);
}

#[test]
fn a_stopped_writer_is_waited_for_and_a_killed_one_is_not() {
    let (place, region, pin) = begin("stopped");
    let writer = start(&place, "exclusive");
    let pid = writer.child.id();
    // SAFETY: stops the peer that this test started.
    unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
    match pin.lease_within(&patience(Duration::from_millis(200))) {
        Err(Error::LeaseHeld { holders, .. }) => assert_eq!(holders[0].pid, pid),
        other => panic!("{other:?}"),
    }
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            pin.lease().unwrap();
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(50));
        let since = Instant::now();
        writer.kill();
        // It had not begun: the table is as it was.
        assert!(reader.join().unwrap() - since < Duration::from_secs(1));
    });
    assert_eq!(read(&pin).unwrap(), 0);
    end(region, vec![pin]);
}

#[test]
fn a_writers_death_poisons_what_it_was_writing() {
    for in_time in [true, false] {
        let (place, region, pin) = begin(&format!("poison-{in_time}"));
        let mut writer = start(&place, "write");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (read(&pin), Instant::now()));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!reader.is_finished());
            let since = Instant::now();
            if in_time {
                writer.go_on();
                writer.expect("finished Ok(())");
                assert_eq!(reader.join().unwrap().0.unwrap(), 2);
                writer.finish();
            } else {
                let pid = writer.child.id();
                writer.kill();
                let (read, when) = reader.join().unwrap();
                assert_eq!(breaker(&read), (pid, true), "{read:?}");
                assert_eq!(breaker(&pin.lease()), (pid, true));
                let report = region.verify();
                assert!(report.ok() && report.poisoned.len() == 1, "{report:?}");
                assert!(report.poisoned[0].contains(&pid.to_string()), "{report:?}");
                assert!(when - since < Duration::from_secs(1));
                assert!(pin.is_poisoned() && region.lookup("t").unwrap().is_poisoned());
                pin.repair().unwrap();
                assert_eq!((read_now(&pin), pin.content_version()), (1, 3));
            }
        });
        end(region, vec![pin]);
    }
}

/// Which process left a table half written, and whether it is known since when it was writing.
fn breaker<T>(read: &Result<T, Error>) -> (u32, bool) {
    match read {
        Err(Error::Poisoned { by: Some(by), .. }) => (by.pid, by.since.is_some()),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was read"),
    }
}

fn read_now(pin: &Pin) -> u64 {
    read(pin).unwrap()
}

#[test]
fn a_name_moves_on_while_another_process_writes() {
    for death in [true, false] {
        let (place, region, pin) = begin(&format!("moves-{death}"));
        let mut writer = start(&place, "write");
        region.publish("t", &[], b"new", true).unwrap();
        assert_eq!(region.lookup("t").unwrap().manifest().unwrap(), b"new");
        assert!(region.verify().ok(), "{:?}", region.verify());
        if death {
            let pid = writer.child.id();
            writer.kill();
            assert_eq!(breaker(&pin.lease()), (pid, true));
        } else {
            writer.go_on();
            assert!(writer.hear("finished Err(").contains("replaced or deleted"));
            assert_eq!(read_now(&pin), 2);
            writer.finish();
        }
        region.lookup("t").unwrap().lease().unwrap();
        end(region, vec![pin]);
    }
}

#[test]
fn a_dead_updater_hands_on_its_turn() {
    let (place, region, pin) = begin("turn");
    let updater = start(&place, "update");
    // It does not keep readers away.
    assert_eq!(read_now(&pin), 0);
    match pin.updater(&patience(Duration::from_millis(30))) {
        Err(Error::LeaseHeld { holders, .. }) => {
            assert_eq!((holders[0].pid, holders[0].kind), (updater.child.id(), HoldKind::Update));
            assert_eq!(holders[0].what, "a long update");
        }
        other => panic!("{other:?}"),
    }
    updater.kill();
    let since = Instant::now();
    drop(pin.updater(&patience(LONG)).unwrap());
    assert!(since.elapsed() < Duration::from_secs(5));
    let next = start(&place, "update");
    next.finish();
    end(region, vec![pin]);
}

#[test]
fn processes_that_count_in_place_and_are_killed_lose_what_they_had_not_written() {
    let (place, region, pin) = begin("count");
    let mut last = 0;
    for round in 0..20_u64 {
        let peers = [start(&place, "count in place"), start(&place, "count in place")];
        // Not a time that matters: any moment will do.
        std::thread::sleep(Duration::from_micros(500 + round * 977 % 10_000));
        for peer in peers {
            peer.kill();
        }
        let since = Instant::now();
        let seen = match read(&pin) {
            Err(Error::Poisoned { .. }) => {
                pin.repair().unwrap();
                read_now(&pin)
            }
            seen => seen.unwrap(),
        };
        assert!(since.elapsed() < Duration::from_secs(1));
        assert!(seen >= last, "round {round}: {seen} after {last}");
        last = seen;
        assert!(region.verify().ok(), "round {round}: {:?}", region.verify());
    }
    assert!(last > 0 && pin.content_version() > last);
    end(region, vec![pin]);
}

#[test]
fn processes_that_count_by_swaps_lose_no_step() {
    let (place, region, pin) = begin("swaps");
    let mut peers = [0, 1].map(|_| place.start("count by swaps"));
    let mut last = 0;
    while last < 600 {
        let seen: u64 = text(&pin.follow().unwrap()).parse().unwrap();
        assert!(seen >= last);
        last = seen;
        std::thread::yield_now();
    }
    for peer in &mut peers {
        peer.expect("ended");
    }
    assert_eq!(text(&region.lookup("t").unwrap()), "600");
    // Each process holds the version that it began with.
    region.gc().unwrap();
    assert!(region.stats().unwrap().retired <= 3);
    for peer in peers {
        peer.finish();
    }
    end(region, vec![pin]);
}

#[test]
fn who_waits_hears_of_other_processes_tables_and_updates() {
    let (place, region, pin) = begin("wait");
    let mut publisher = start(&place, "publish later");
    let seen = Some((pin.sequence(), pin.content_version()));
    let mut writer = start(&place, "write");
    // Being written, it is newer, but not to be read yet.
    let early = region.wait("t", seen, &patience(Duration::from_millis(30)));
    assert!(matches!(early, Err(Error::Timeout { .. })), "{early:?}");
    std::thread::scope(|scope| {
        let name = scope.spawn(|| (region.wait("later", None, &patience(LONG)), Instant::now()));
        let content = scope.spawn(|| region.wait("t", seen, &patience(LONG)));
        std::thread::sleep(Duration::from_millis(50));
        let since = Instant::now();
        publisher.go_on();
        let (found, when) = name.join().unwrap();
        assert_eq!(found.unwrap().name(), "later");
        assert!(when - since < Duration::from_secs(5));
        writer.go_on();
        assert_eq!(content.join().unwrap().unwrap().content_version(), 2);
    });
    writer.finish();
    publisher.finish();
    end(region, vec![pin]);
}

#[test]
fn a_result_travels_and_outlives_its_sender() {
    let (place, region, pin) = begin("ticket");
    let send = || {
        let mut sender = place.start("send");
        let sent = sender.hear("sent ");
        let numbers: Vec<u64> = sent.split(' ').map(|n| n.parse().unwrap()).collect();
        (sender, Pass::new(numbers[0] as u32, numbers[1], numbers[2] as u32))
    };
    let (sender, pass) = send();
    region.gc().unwrap();
    let leases = region.leases().unwrap();
    let pid = sender.child.id();
    assert!(leases.iter().any(|l| l.kind == HoldKind::Ticket && l.pid == pid), "{leases:?}");
    let result = region.redeem(pass).unwrap();
    assert_eq!(result.manifest().unwrap(), b"a result");
    // What was received does not need its sender.
    sender.kill();
    region.gc().unwrap();
    assert_eq!(result.manifest().unwrap(), b"a result");
    drop(result);
    assert!(matches!(region.redeem(pass), Err(Error::Stale(_))));
    assert_eq!(region.stats().unwrap().retired, 0);
    for killed in [true, false] {
        let (sender, pass) = send();
        let pid = sender.child.id();
        if killed {
            sender.kill();
        } else {
            sender.finish();
        }
        region.gc().unwrap();
        assert_eq!(region.stats().unwrap().sessions, 1);
        // The next session takes the slot of the one that has sent, and not what that has sent.
        let (next, other) = send();
        let leases = region.leases().unwrap();
        let sent = leases.iter().find(|l| l.kind == HoldKind::Ticket && l.pid == pid).unwrap();
        assert!(sent.what.contains("ended") && sent.since.is_some(), "{sent:?}");
        for pass in [pass, other] {
            assert_eq!(region.redeem(pass).unwrap().manifest().unwrap(), b"a result");
            assert!(matches!(region.redeem(pass), Err(Error::Stale(_))));
        }
        next.kill();
        region.gc().unwrap();
        assert_eq!(region.stats().unwrap().retired, 0);
    }
    end(region, vec![pin]);
}
