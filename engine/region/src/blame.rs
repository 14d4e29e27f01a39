//! Why the capacity does not suffice, and so what would help: [`Error::RegionFull`] names one cause.
//!
//! What is held back is memory that no table has any more: of retired tables that handles and views
//! keep, and of what the last flush made durable, which is kept until the next one. Where both are,
//! the one is named that makes enough room.
//!
//! [`Error::RegionFull`]: crate::Error::RegionFull

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::arena::granules;
use crate::checkpoint::{footprint, is_checkpoint};
use crate::error::{FullCause, Result};
use crate::layout::{GRANULE, LOCK_READERS, class_of, header, slot};
use crate::state::{self, State};
use crate::types::{HoldKind, LeaseRecord};
use crate::writer::Writer;

/// How many who keep memory are named: those who keep most.
const NAMED: usize = 3;

/// How many bytes would come free.
#[derive(Debug, Default)]
struct HeldBack {
    /// With the next flush.
    flush: u64,
    /// With the handles on retired tables.
    pins: u64,
    /// With both only.
    both: u64,
    /// Now, or when a reader without a session goes: nobody else holds it.
    idle: u64,
}

/// Owners of an extent that hold it back.
#[derive(Default)]
struct Keepers {
    checkpoints: u64,
    pinned: u64,
    idle: u64,
}

impl HeldBack {
    /// Counts an extent of so many owners, if there are no others than those that hold it back.
    fn add(&mut self, owners: u64, by: &Keepers, bytes: u64) {
        let Keepers { checkpoints, pinned, idle } = *by;
        let of = if owners <= idle {
            &mut self.idle
        } else if owners <= checkpoints + idle {
            &mut self.flush
        } else if owners <= pinned + idle {
            &mut self.pins
        } else if owners <= checkpoints + pinned + idle {
            &mut self.both
        } else {
            return;
        };
        *of = of.saturating_add(bytes);
    }

    /// What to name where so many bytes are missing; `None`: all that is held back is not enough.
    fn cause(&self, missing: u64) -> Option<FullCause> {
        let Self { flush, pins, both, idle } = *self;
        let all = [flush, pins, both].into_iter().fold(idle, u64::saturating_add);
        if all == 0 || all < missing {
            return None;
        }
        // Who looks again may find it free: the reader has gone, or soon will.
        if idle > 0 {
            return Some(FullCause::ReadOnlyOpener);
        }
        // A flush is sooner done than handles are found. Where it takes both, the larger first.
        let by_flush = flush > 0 && (flush >= missing || pins < missing && flush > pins);
        Some(if by_flush { FullCause::Flush } else { FullCause::Pins })
    }
}

impl Writer<'_> {
    /// Says more precisely why the capacity does not suffice for `needed` bytes.
    pub(crate) fn blame(&self, cause: FullCause, needed: u64) -> Result<FullCause> {
        if cause != FullCause::Capacity {
            return Ok(cause);
        }
        // Asking about contradictory counts is no reason to count again.
        let broken = self.broken.get();
        let held = self.held_back();
        self.broken.set(broken);
        let used = self.s.bytes.word(header::USED)?.load(Ordering::Relaxed);
        let free = self.s.limit()?.saturating_sub(used);
        let missing = granules(needed).saturating_sub(free).saturating_mul(GRANULE);
        let Some(named) = held?.cause(missing) else { return Ok(cause) };
        // Readers without a session keep everything, whatever else lets go of it.
        if self.s.lock.try_lock(LOCK_READERS, 1).unwrap_or(false) {
            let _ = self.s.lock.unlock(LOCK_READERS, 1);
            Ok(named)
        } else {
            Ok(FullCause::ReadOnlyOpener)
        }
    }

    /// Who keeps the memory of replaced or deleted tables, the largest first.
    pub(crate) fn keepers(&self) -> Result<Vec<LeaseRecord>> {
        let mut keepers = self.s.leases()?;
        keepers.retain(|keeper| !keeper.current && keeper.kind != HoldKind::Build);
        // A lease implies a pin: one of the two says enough.
        keepers.sort_by_key(|keeper| {
            let lease = keeper.kind != HoldKind::Lease;
            (std::cmp::Reverse(keeper.bytes), keeper.sequence, keeper.pid, lease)
        });
        keepers.dedup_by_key(|keeper| (keeper.sequence, keeper.pid));
        keepers.truncate(NAMED);
        Ok(keepers)
    }

    fn held_back(&self) -> Result<HeldBack> {
        let s = self.s;
        let retired = s.bytes.word(header::RETIRED)?.load(Ordering::Relaxed) != 0;
        let mut kept: HashMap<(u64, u64), Keepers> = HashMap::new();
        for slot in 0..if retired { s.slots_high() } else { slot::HIDDEN } {
            let word = s.state_word(slot)?;
            if state::state(word) != Some(State::Retired) {
                continue;
            }
            let mut owned = s.slot_extents(slot).unwrap_or_default();
            // What a checkpoint takes itself is not the tables'.
            if !is_checkpoint(word)
                && let Ok(manifest) = s.manifest_at(slot)
            {
                owned.push((manifest.offset, manifest.bytes()));
            }
            let stands = s.is_kept(slot, word)?;
            let idle = s.unheld_retired(slot)?.is_some() && !self.kept(slot, word)?;
            for extent in owned {
                let Keepers { checkpoints, pinned, idle: unheld } = kept.entry(extent).or_default();
                *if stands {
                    checkpoints
                } else if idle {
                    unheld
                } else {
                    pinned
                } += 1;
            }
        }
        let mut held = HeldBack::default();
        // Small extents by the slab that they are in: it comes free with the last of them.
        let mut slabs: HashMap<u64, HeldBack> = HashMap::new();
        for ((offset, bytes), keepers) in kept {
            let Ok(owners) = self.owners(offset, bytes) else { continue };
            match (class_of(bytes), s.layout.granule_of(offset)) {
                (Some(_), Some(slab)) => {
                    slabs.entry(slab).or_default().add(owners, &keepers, footprint(bytes));
                }
                _ => held.add(owners, &keepers, footprint(bytes)),
            }
        }
        for (slab, of) in slabs {
            let all = self.slab_bytes_in_use(slab)?;
            let HeldBack { flush, pins, both, idle } = of;
            held.idle += if idle == all { GRANULE } else { idle };
            held.flush += if idle < all && flush + idle == all { GRANULE } else { flush };
            held.pins += if idle < all && pins + idle == all { GRANULE } else { pins };
            let together =
                flush + idle < all && pins + idle < all && flush + pins + both + idle == all;
            held.both += if together { GRANULE } else { both };
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{CreateOptions, Error, Location, Part, Patience, Region};

    #[test]
    fn what_makes_enough_room_is_named() {
        let cause =
            |flush, pins, both, missing| HeldBack { flush, pins, both, idle: 0 }.cause(missing);
        assert_eq!(cause(0, 0, 0, 5), None);
        assert_eq!(cause(9, 0, 0, 5), Some(FullCause::Flush));
        assert_eq!(cause(0, 9, 0, 5), Some(FullCause::Pins));
        assert_eq!(cause(9, 9, 0, 5), Some(FullCause::Flush));
        assert_eq!(cause(9, 1, 0, 5), Some(FullCause::Flush));
        assert_eq!(cause(1, 9, 0, 5), Some(FullCause::Pins));
        // Neither is enough: the larger first. And what is not enough in all is not to blame.
        assert_eq!(cause(3, 2, 0, 5), Some(FullCause::Flush));
        assert_eq!(cause(2, 3, 0, 5), Some(FullCause::Pins));
        assert_eq!(cause(2, 1, 2, 5), Some(FullCause::Flush));
        assert_eq!(cause(2, 3, 0, 9), None);
        assert_eq!(cause(0, 0, 9, 5), Some(FullCause::Pins));
        assert_eq!(cause(0, 3, 0, 0), Some(FullCause::Pins));
        let idle = HeldBack { flush: 9, pins: 9, both: 0, idle: 1 };
        assert_eq!(idle.cause(5), Some(FullCause::ReadOnlyOpener));
    }

    fn put(region: &Region, name: &str, bytes: u64) -> crate::Pin {
        let extent = region.allocate(bytes).unwrap();
        region.publish(name, &[Part::Owned(&extent)], b"", true).unwrap()
    }

    fn cause(region: &Region, bytes: u64) -> FullCause {
        match region.allocate(bytes) {
            Err(Error::RegionFull { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_handles_and_a_flush_the_one_is_named_that_helps() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let options = CreateOptions { capacity: Some(4 << 20), ..CreateOptions::default() };
        let location = Location::File(directory.path().join("region"));
        let region = Region::create(location, options).unwrap();
        let flush = || {
            let timeout = Duration::from_secs(1);
            region.flush(&Patience { timeout, interrupt: &|| false, what: "" }).unwrap();
        };
        drop(put(&region, "durable", 2 << 20));
        flush();
        let small = put(&region, "small", 100);
        region.delete("small").unwrap();
        region.delete("durable").unwrap();
        assert_eq!(cause(&region, 3 << 20), FullCause::Flush);
        flush();
        drop(put(&region, "durable", 100));
        flush();
        let large = put(&region, "large", 2 << 20);
        region.delete("durable").unwrap();
        region.delete("large").unwrap();
        assert_eq!(cause(&region, 3 << 20), FullCause::Pins);
        drop((small, large));
        // With the handles gone it fits.
        drop(region.allocate(3 << 20).unwrap());
        // Deleted while a handle has it, what is durable takes both.
        let both = put(&region, "both", 2 << 20);
        flush();
        region.delete("both").unwrap();
        assert_eq!(cause(&region, 3 << 20), FullCause::Pins);
        drop(both);
        assert_eq!(cause(&region, 3 << 20), FullCause::Flush);
        flush();
        drop(region.allocate(3 << 20).unwrap());
    }

    #[test]
    fn handles_on_memory_that_a_table_has_still_are_not_to_blame() {
        let options = CreateOptions { capacity: Some(4 << 20), ..CreateOptions::default() };
        let region = Region::create(Location::Memfd, options).unwrap();
        let old = put(&region, "t", 3 << 20);
        let patience = Patience { timeout: Duration::ZERO, interrupt: &|| false, what: "" };
        let new = old.updater(&patience).unwrap().swap(&[Part::Of(&old)], b"").unwrap();
        assert_eq!(cause(&region, 2 << 20), FullCause::Capacity);
        region.delete("t").unwrap();
        assert_eq!(cause(&region, 2 << 20), FullCause::Pins);
        drop((old, new));
        assert!(region.allocate(2 << 20).is_ok());
    }
}
