//! The name index: a lookup against rebuilding, a table that is always there is never missed.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::{Died, Fate, Life, explore};
use crate::error::{Error, Result};
use crate::index::{Look, NameIndex, entry};

/// An index of one or two entries.
pub(super) struct Index {
    pub(super) seqlock: AtomicU64,
    log2: AtomicU64,
    occupied: AtomicU64,
    entries: [AtomicU64; 2],
}

impl Index {
    pub(super) fn new(log2: u64, entries: [u64; 2]) -> Self {
        Self {
            seqlock: AtomicU64::new(0),
            log2: AtomicU64::new(log2),
            occupied: AtomicU64::new(1),
            entries: entries.map(AtomicU64::new),
        }
    }
}

impl NameIndex for Index {
    type Word = AtomicU64;

    fn seqlock(&self) -> Result<&AtomicU64> {
        Ok(&self.seqlock)
    }

    fn log2_word(&self) -> Result<&AtomicU64> {
        Ok(&self.log2)
    }

    fn log2_bounds(&self) -> (u64, u64) {
        (0, 1)
    }

    fn occupied(&self) -> Result<&AtomicU64> {
        Ok(&self.occupied)
    }

    fn entry(&self, at: u64) -> Result<&AtomicU64> {
        Ok(&self.entries[at as usize])
    }

    fn position(&self) -> u64 {
        0
    }
}

/// The error by which a modelled process dies where errors of regions are returned.
pub(super) fn died(_: Died) -> Error {
    Error::ReadOnly
}

/// Hashes whose entries begin at the second place and the first.
const SECOND: u64 = 1 << 40 | 1 << 7;
const FIRST: u64 = 2 << 40;

fn run(fate: Fate, log2: u64, to: u64) {
    let index = Arc::new(Index::new(log2, [entry(FIRST, 3), 0]));
    let reader = {
        let index = index.clone();
        thread::spawn(move || index.look(|_| index.probe(FIRST, |_, slot| Ok(Some(slot)))).unwrap())
    };
    let life = Life::new(fate);
    let tables = [(SECOND, 5), (FIRST, 3)];
    let tables = if to == 0 { &tables[1..] } else { &tables[..] };
    let died = index.refill(to, tables, |_| life.step().map_err(died)).is_err();
    match reader.join().unwrap() {
        Look::Found(slot) => assert_eq!(slot, 3),
        Look::Disturbed => {}
        Look::Missing => panic!("a table that was there all the time was not found"),
    }
    // Later lookups find it, or know that they cannot say so.
    let look = index.look(|_| index.probe(FIRST, |_, slot| Ok(Some(slot)))).unwrap();
    match look {
        Look::Found(3) => {}
        Look::Disturbed => assert!(died && index.seqlock.load(Ordering::Relaxed) % 2 == 1),
        other => panic!("{other:?}"),
    }
    if died {
        // The next writer begins again.
        index.refill(to, tables, |_| Ok(())).unwrap();
        let look = index.look(|_| index.probe(FIRST, |_, slot| Ok(Some(slot)))).unwrap();
        assert_eq!(look, Look::Found(3));
    }
}

#[test]
fn loom_a_table_is_not_missed_while_the_index_is_rebuilt() {
    explore(5, |fate| run(fate, 0, 0));
}

#[test]
fn loom_a_table_is_not_missed_while_the_index_grows() {
    explore(6, |fate| run(fate, 0, 1));
}
