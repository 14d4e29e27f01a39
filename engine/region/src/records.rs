//! A session's records: which extents it owns. Every extent has such a record before its first
//! use, so that the memory of a killed process can be found.
//!
//! The first records lie in the session's page, the rest in granules chained behind it.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::kill;
use crate::layout::{GRANULE, session as field};
use crate::writer::Writer;

/// A record as it was read: where it lies, and the extent's offset and bytes.
pub(crate) type Recorded = (u64, u64, u64);

/// The free record places of this process's session.
#[derive(Default)]
pub(crate) struct Records {
    free: Vec<u64>,
    /// Records in use.
    pub(crate) live: u64,
    /// The last chained block, which the next one is linked behind.
    page: u64,
}

impl Records {
    /// Starts over with the places in the session page at `page`.
    pub(crate) fn clear(&mut self, page: u64) {
        self.page = page;
        self.live = 0;
        self.free =
            (0..field::RECORD_COUNT).rev().map(|i| page + field::RECORDS + i * 16).collect();
    }
}

impl Writer<'_> {
    /// Makes sure that the next record has a place.
    pub(crate) fn ensure_record(&mut self) -> Result<()> {
        self.ensure_records(1)
    }

    /// Makes sure that the next `count` records, few, have places.
    pub(crate) fn ensure_records(&mut self, count: usize) -> Result<()> {
        if self.local.free.len() >= count {
            return Ok(());
        }
        let page = self.local.page;
        let granule = self.take_for_records()?;
        let block = self.s.layout.granule_at(granule);
        kill::point("records: granule taken");
        self.s.bytes.zero(block, GRANULE)?;
        // Linked at the head: until then nobody knows the block, and if we die the derived
        // state is rebuilt without it.
        let head = self.s.bytes.word(page + field::CHAIN)?;
        self.s
            .bytes
            .word(block + field::CHAIN_NEXT)?
            .store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        kill::point("records: block made");
        head.store(block, Ordering::Release);
        kill::point("records: block chained");
        self.s.bytes.word(page + field::CHAIN_COUNT)?.fetch_add(1, Ordering::Relaxed);
        // Behind those that are left, so that the session page is used up first.
        self.local.free.splice(
            0..0,
            (0..field::CHAIN_RECORD_COUNT).rev().map(|i| block + field::CHAIN_RECORDS + i * 16),
        );
        Ok(())
    }

    /// Records an extent as this session's; [`Writer::ensure_record`] must have succeeded.
    pub(crate) fn record(&mut self, offset: u64, bytes: u64) -> Result<u64> {
        self.ensure_record()?;
        let Some(place) = self.local.free.pop() else { return Ok(0) };
        self.s.bytes.word(place + 8)?.store(bytes, Ordering::Relaxed);
        kill::point("record: size stored");
        // The offset is what makes a record count.
        self.s.bytes.word(place)?.store(offset, Ordering::Release);
        kill::point("record: made");
        self.local.live += 1;
        Ok(place)
    }

    /// Changes how long a recorded extent is.
    pub(crate) fn rerecord(&self, place: u64, bytes: u64) -> Result<()> {
        if place == 0 {
            return Ok(());
        }
        self.s.bytes.word(place + 8)?.store(bytes, Ordering::Release);
        Ok(())
    }

    /// Forgets a record.
    pub(crate) fn unrecord(&mut self, place: u64) -> Result<()> {
        if place == 0 {
            return Ok(());
        }
        self.s.bytes.word(place)?.store(0, Ordering::Release);
        kill::point("record: cleared");
        self.local.free.push(place);
        self.local.live = self.local.live.saturating_sub(1);
        Ok(())
    }

    /// All records of the session in slot `index`: (place, offset, bytes), and the chained
    /// blocks' offsets. Bounded, whatever the memory says: each block is reserved, and read once.
    pub(crate) fn session_records(&self, index: u32) -> Result<(Vec<Recorded>, Vec<u64>)> {
        let page = self.s.layout.session(index);
        let mut records = Vec::new();
        let mut chain = Vec::new();
        let mut known = HashSet::new();
        self.read_records(page + field::RECORDS, field::RECORD_COUNT, &mut records)?;
        let mut block = self.s.bytes.word(page + field::CHAIN)?.load(Ordering::Acquire);
        while block != 0 {
            let reserved = match self.s.layout.granule_of(block) {
                Some(granule) if block % GRANULE == 0 => {
                    self.s.count_warm(granule, granule + 1)? == 1
                }
                _ => false,
            };
            if !reserved || !known.insert(block) {
                // Damage; what hangs behind it leaks until the region is made anew.
                break;
            }
            chain.push(block);
            self.read_records(
                block + field::CHAIN_RECORDS,
                field::CHAIN_RECORD_COUNT,
                &mut records,
            )?;
            block = self.s.bytes.word(block + field::CHAIN_NEXT)?.load(Ordering::Acquire);
        }
        Ok((records, chain))
    }

    fn read_records(&self, at: u64, count: u64, out: &mut Vec<Recorded>) -> Result<()> {
        for i in 0..count {
            let place = at + i * 16;
            let offset = self.s.bytes.word(place)?.load(Ordering::Acquire);
            if offset != 0 {
                let bytes = self.s.bytes.word(place + 8)?.load(Ordering::Relaxed);
                out.push((place, offset, bytes));
            }
        }
        Ok(())
    }
}
