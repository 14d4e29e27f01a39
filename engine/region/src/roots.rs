//! The two durable roots of a file: which checkpoint holds, said in one sector each.
//!
//! Flushes write them in turn, so that one always stands while the other is being written. A root
//! counts if its checksum is right; of two, the one with the higher number. Number 0 is written
//! when the file is made, and says that nothing was flushed.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use crate::layout::{Layout, VERSION, header, u32_at, u64_at};
use crate::session::Session;

const MAGIC: u64 = u64::from_le_bytes(*b"insituRT");
const BYTES: usize = header::ROOT_BYTES as usize;
const NUMBER: u64 = 16;
const ID: u64 = 24;
const CAPACITY: u64 = 40;
const MAX_TABLES: u64 = 48;
const OFFSET: u64 = 56;
const EXTENTS: u64 = 64;
const MESSAGE: u64 = 72;
const SUM: u64 = 80;
const CHECKSUM: u64 = header::ROOT_BYTES - 8;

/// Where a checkpoint lies: an array of extents, and behind it a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// 0: there is no checkpoint.
    pub(crate) offset: u64,
    pub(crate) extents: u32,
    pub(crate) message: u64,
}

impl Place {
    /// The size of the extent that holds it. Saturates: who uses it checks it.
    pub(crate) fn bytes(&self) -> u64 {
        (u64::from(self.extents) * 16).saturating_add(self.message)
    }
}

/// One durable root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    /// Counts the flushes; even ones lie in the first place.
    pub(crate) number: u64,
    pub(crate) place: Place,
    /// The checksum of the checkpoint's extent.
    pub(crate) sum: u64,
}

/// The place of the root with this number.
pub(crate) fn at(number: u64) -> u64 {
    header::ROOTS[(number % 2) as usize]
}

impl Root {
    pub(crate) fn encode(&self, layout: &Layout, id: u128) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        let mut put = |at: u64, value: &[u8]| {
            let at = at as usize;
            if let Some(to) = out.get_mut(at..at + value.len()) {
                to.copy_from_slice(value);
            }
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &VERSION.to_le_bytes());
        put(12, &(header::ROOT_BYTES as u32).to_le_bytes());
        put(NUMBER, &self.number.to_le_bytes());
        put(ID, &id.to_le_bytes());
        put(CAPACITY, &layout.capacity.to_le_bytes());
        put(MAX_TABLES, &layout.max_tables.to_le_bytes());
        put(OFFSET, &self.place.offset.to_le_bytes());
        put(EXTENTS, &u64::from(self.place.extents).to_le_bytes());
        put(MESSAGE, &self.place.message.to_le_bytes());
        put(SUM, &self.sum.to_le_bytes());
        let sum = xxh3_64(out.get(..CHECKSUM as usize).unwrap_or_default());
        if let Some(to) = out.get_mut(CHECKSUM as usize..) {
            to.copy_from_slice(&sum.to_le_bytes());
        }
        out
    }

    /// The root in these bytes, if it is one of this region. Where its checkpoint lies is checked
    /// by who goes there.
    pub(crate) fn decode(bytes: &[u8], layout: &Layout, id: u128) -> Option<Self> {
        let root = Self {
            number: u64_at(bytes, NUMBER)?,
            place: Place {
                offset: u64_at(bytes, OFFSET)?,
                extents: u32::try_from(u64_at(bytes, EXTENTS)?).ok()?,
                message: u64_at(bytes, MESSAGE)?,
            },
            sum: u64_at(bytes, SUM)?,
        };
        // All that a root has was encoded from what was just read, or is the same in all roots.
        let same = bytes.get(..BYTES)? == root.encode(layout, id);
        (same && u32_at(bytes, 8)? == VERSION).then_some(root)
    }
}

impl Session {
    /// The root in place 0 or 1, if there is a whole one.
    pub(crate) fn root(&self, place: usize) -> Result<Option<Root>> {
        let at = header::ROOTS[place % 2];
        let bytes = self.bytes.read(at, header::ROOT_BYTES)?;
        let root = Root::decode(&bytes, &self.layout, self.id);
        Ok(root.filter(|root| self::at(root.number) == at))
    }

    pub(crate) fn write_root(&self, root: &Root) -> Result<()> {
        let bytes = root.encode(&self.layout, self.id);
        let (first, second) = bytes.split_at(BYTES / 2);
        self.bytes.write(at(root.number), first)?;
        crate::kill::point("flush: root half written");
        self.bytes.write(at(root.number) + first.len() as u64, second)
    }

    /// Whether nothing was ever written where a root could be.
    pub(crate) fn root_is_blank(&self, place: usize) -> Result<bool> {
        let bytes = self.bytes.read(header::ROOTS[place % 2], header::ROOT_BYTES)?;
        Ok(bytes.iter().all(|&b| b == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_round_trips_and_any_flipped_bit_undoes_it() {
        let layout = Layout::new(1 << 20, None).unwrap();
        let place = Place { offset: layout.arena, extents: 7, message: 65_536 - 112 };
        let root = Root { number: 5, place, sum: 0x1234_5678_9abc_def0 };
        let bytes = root.encode(&layout, 9);
        assert_eq!(Root::decode(&bytes, &layout, 9), Some(root));
        assert_eq!(Root::decode(&bytes, &layout, 10), None);
        assert_eq!(Root::decode(&[0; BYTES], &layout, 9), None);
        for bit in 0..BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Root::decode(&bad, &layout, 9), None, "bit {bit}");
        }
        for cut in 0..BYTES {
            assert_eq!(Root::decode(&bytes[..cut], &layout, 9), None);
        }
    }
}
