//! Publishing and replacing: who looks a name up gets the old table or the new, whole, or in a
//! replacement never nothing; after a death there is one of them, and nothing is lost.

use std::sync::atomic::Ordering;

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::index::{Index, died};
use super::{Fate, Life, RECYCLED, Slot, explore};
use crate::error::{Error, Result};
use crate::index::{Look, NameIndex, Tried, entry};
use crate::protocol;
use crate::state::{self, State};

const HASH: u64 = 1 << 40;
/// What the new table holds; the old one holds [`super::CONTENT`].
const NEW: u64 = 43;

struct Region {
    slots: [Slot; 2],
    index: Index,
    /// The writer lock.
    writer: Mutex<()>,
}

impl Region {
    /// What a reader finds under the name: the memory's content. It lets go again.
    fn lookup(&self) -> Look<u64> {
        let slot = |slot: u32| &self.slots[slot as usize];
        let hold = |index| {
            let slot = slot(index);
            let seen = slot.seen();
            let held = crate::catalog::visible(seen)
                && protocol::hold(&slot.pins, 1, false, &slot.state, seen);
            if !held {
                self.let_go(index);
            }
            Ok(if held { Tried::Held(seen) } else { Tried::Changed })
        };
        let look = self.index.look(|raced| {
            self.index.find_held(HASH, raced, hold, |_| Ok(true), |slot| self.let_go(slot))
        });
        match look.unwrap() {
            Look::Found((found, _)) => {
                let content = slot(found).read();
                self.let_go(found);
                Look::Found(content)
            }
            Look::Missing => Look::Missing,
            Look::Disturbed => Look::Disturbed,
        }
    }

    fn let_go(&self, slot: u32) {
        let slot = &self.slots[slot as usize];
        protocol::let_go(&slot.pins, 1);
        // What is left over here is collected at the end of the model.
        protocol::is_left_over(&slot.state);
    }

    /// Publishes a table in slot 1, over that in slot 0 if there is one.
    fn publish(&self, life: &Life) -> Result<()> {
        let _writer = self.writer.lock().unwrap();
        let step = || life.step().map_err(died);
        let [old, new] = &self.slots;
        let replaces = state::state(old.seen()) == Some(State::Published);
        new.state.store(state::word(State::Building, 2), Ordering::Release);
        step()?;
        new.write(NEW);
        step()?;
        protocol::commit(
            &mut (),
            &new.state,
            state::word(State::Published, 2),
            |_| step(),
            |_| {
                if replaces {
                    self.index.index_replace(0, HASH, 1)?;
                } else {
                    self.index.index_insert(HASH, 1)?;
                }
                step()
            },
            |_| {
                if replaces {
                    protocol::retire(&old.state, 0);
                    step()?;
                    old.reclaim(1);
                }
                step()
            },
        )
    }

    /// What the next writer does after a death: of two tables of a name the later wins.
    fn recover(&self) {
        let _writer = self.writer.lock().unwrap();
        let [old, new] = &self.slots;
        if state::state(new.seen()) == Some(State::Building) {
            new.state.store(state::word(State::Free, 2), Ordering::Release);
            new.write(RECYCLED);
        }
        let visible = |slot: &Slot| crate::catalog::visible(slot.seen());
        if visible(new) && visible(old) {
            protocol::retire(&old.state, 0);
        }
        let tables: Vec<_> =
            [0, 1].into_iter().filter(|&i| visible(&self.slots[i as usize])).collect();
        let tables: Vec<_> = tables.into_iter().map(|slot| (HASH, slot)).collect();
        self.index.refill(0, &tables, |_| Ok::<_, Error>(())).unwrap();
    }
}

fn run(fate: Fate, replaces: bool) {
    let first = if replaces { entry(HASH, 0) } else { 0 };
    let region = Arc::new(Region {
        slots: [
            Slot::new(if replaces { State::Published } else { State::Free }, 1),
            Slot::new(State::Free, 0),
        ],
        index: Index::new(0, [first, 0]),
        writer: Mutex::new(()),
    });
    let reader = {
        let region = region.clone();
        thread::spawn(move || region.lookup())
    };
    let published = region.publish(&Life::new(fate));
    if published.is_err() {
        region.recover();
    }
    match reader.join().unwrap() {
        Look::Found(content) => assert!(content == NEW || (replaces && content == super::CONTENT)),
        Look::Missing => assert!(!replaces, "a table that was replaced was not found"),
        Look::Disturbed => {}
    }
    let [old, new] = &region.slots;
    let left = region.lookup();
    if state::state(new.seen()) == Some(State::Published) {
        assert_eq!(left, Look::Found(NEW));
        // Nobody holds it any more.
        old.reclaim(1);
        assert_eq!(state::state(old.seen()), Some(State::Free));
    } else {
        assert!(published.is_err());
        let before = if replaces { Look::Found(super::CONTENT) } else { Look::Missing };
        assert_eq!(left, before);
        assert_eq!(state::state(new.seen()), Some(State::Free));
    }
}

#[test]
fn loom_a_table_is_found_whole_or_not_at_all() {
    explore(5, |fate| run(fate, false));
}

#[test]
fn loom_a_replaced_table_is_found_old_or_new() {
    explore(6, |fate| run(fate, true));
}
