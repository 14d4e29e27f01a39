//! Keys that are strings. Those of at most 15 bytes are packed with their length into 16 bytes and
//! compared as such; longer ones are compared by hash and bytes. The table keeps a copy of each
//! key's first occurrence, so that nothing of a column is borrowed between tiles.

use super::words::{GROW_FOUR, MIN_PLACES, roomy};
use super::{BLOCK, GroupError, MAX_GROUPS, UNKNOWN, bits_or_ones, filled, reserve};
use crate::bytes;
use crate::hash::{hash_bytes, hash_words, prefetch};
use crate::level::{Level, leveled};
use crate::strings::{PACKED_MAX, Rows, Str, damaged, pack_short, with_strings};
use crate::view::ColumnView;

/// Tables above this size are prefetched: the second-level cache may not hold them.
const PREFETCH_BYTES: usize = 512 << 10;

/// A place for a short string: the packed string (never zero) and its group; zero and [`UNKNOWN`]
/// where it is empty.
#[derive(Clone, Copy, Debug)]
struct Short {
    lo: u64,
    hi: u64,
    id: u32,
}

/// A place for a long string: its hash, and its group plus one.
#[derive(Clone, Copy, Debug)]
struct Long {
    hash: u64,
    id: u32,
}

/// A key, by group number.
#[derive(Clone, Copy, Debug)]
enum Key {
    Null,
    /// Packed, as [`pack_short`] does.
    Short(u128),
    /// In the arena.
    Long {
        offset: usize,
        len: usize,
        hash: u64,
    },
}

/// A table of strings.
#[derive(Debug)]
pub(super) struct StrKeys {
    short: Vec<Short>,
    short_count: usize,
    long: Vec<Long>,
    long_count: usize,
    keys: Vec<Key>,
    /// Short keys again, as their bytes: what [`StrKeys::bytes`] hands out.
    arena: Vec<u8>,
    spans: Vec<(usize, usize)>,
    first_rows: Vec<u64>,
    null: Option<u32>,
    /// The tile's strings, packed; zero where that is not possible.
    packed: Vec<u128>,
    /// Where the search for them starts.
    places: Vec<u32>,
}

const EMPTY: Short = Short { lo: 0, hi: 0, id: UNKNOWN };

impl StrKeys {
    pub(super) fn new() -> StrKeys {
        StrKeys {
            short: vec![EMPTY; MIN_PLACES],
            short_count: 0,
            long: Vec::new(),
            long_count: 0,
            keys: Vec::new(),
            arena: Vec::new(),
            spans: Vec::new(),
            first_rows: Vec::new(),
            null: None,
            packed: Vec::new(),
            places: Vec::new(),
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn first_rows(&self) -> &[u64] {
        &self.first_rows
    }

    pub(super) fn null(&self) -> Option<u32> {
        self.null
    }

    /// The bytes of a group's key; empty for the null group and for none.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.spans
            .get(id as usize)
            .and_then(|&(from, len)| self.arena.get(from..)?.get(..len))
            .unwrap_or(&[])
    }

    /// A new group, whose key's bytes are those of `s`.
    fn push(
        &mut self,
        s: Str,
        first_row: u64,
        key: impl FnOnce(usize) -> Key,
    ) -> Result<u32, GroupError> {
        let id = self.keys.len();
        if id >= MAX_GROUPS {
            return Err(GroupError::TooManyGroups);
        }
        reserve(&mut self.keys, 1)?;
        reserve(&mut self.spans, 1)?;
        reserve(&mut self.first_rows, 1)?;
        reserve(&mut self.arena, s.len)?;
        let at = self.arena.len();
        // SAFETY: there is room for s.len more bytes, which are then written; the arena, private to
        // this table, does not overlap the string.
        unsafe {
            bytes::copy(self.arena.as_mut_ptr().add(at), s.ptr, s.len);
            self.arena.set_len(at + s.len);
        }
        self.keys.push(key(at));
        self.spans.push((at, s.len));
        self.first_rows.push(first_row);
        Ok(id as u32)
    }

    fn null_id(&mut self, first_row: u64) -> Result<u32, GroupError> {
        if let Some(id) = self.null {
            return Ok(id);
        }
        let id = self.push(Str::EMPTY, first_row, |_| Key::Null)?;
        self.null = Some(id);
        Ok(id)
    }

    /// The group of a string, new if it must be.
    ///
    /// # Safety
    /// `s` is readable for its room.
    unsafe fn find_or_insert(&mut self, s: Str, first_row: u64) -> Result<u32, GroupError> {
        if s.len <= PACKED_MAX {
            // SAFETY: by contract.
            let packed = unsafe { pack_short(s.ptr, s.len, s.room) };
            return self.short_id(packed, first_row);
        }
        // SAFETY: by contract.
        let hash = unsafe { hash_bytes(s.ptr, s.len) };
        // SAFETY: by contract.
        unsafe { self.long_id(s, hash, first_row) }
    }

    fn short_id(&mut self, packed: u128, first_row: u64) -> Result<u32, GroupError> {
        let (lo, hi) = (packed as u64, (packed >> 64) as u64);
        let mask = self.short.len() - 1;
        let shift = 64 - self.short.len().trailing_zeros();
        let mut at = (hash_words(lo, hi) >> shift) as usize;
        while let Some(slot) = self.short.get(at & mask) {
            if slot.lo == lo && slot.hi == hi {
                return Ok(slot.id);
            }
            if slot.hi == 0 {
                break;
            }
            at += 1;
        }
        // The key's bytes are taken from the packed number, not from memory that may change.
        let bytes = packed.to_le_bytes();
        let len = usize::from(bytes[PACKED_MAX]).saturating_sub(1).min(PACKED_MAX);
        let s = Str { ptr: bytes.as_ptr(), len, room: bytes.len() };
        let id = self.push(s, first_row, |_| Key::Short(packed))?;
        if let Some(slot) = self.short.get_mut(at & mask) {
            *slot = Short { lo, hi, id };
        }
        self.short_count += 1;
        if !roomy(self.short.len(), self.short_count) {
            self.grow_short()?;
        }
        Ok(id)
    }

    #[cold]
    fn grow_short(&mut self) -> Result<(), GroupError> {
        let places = self.short.len() * if self.short.len() >= GROW_FOUR { 4 } else { 2 };
        let mut slots = filled(EMPTY, places)?;
        let (mask, shift) = (places - 1, 64 - places.trailing_zeros());
        for slot in self.short.iter().filter(|s| s.hi != 0) {
            let mut at = (hash_words(slot.lo, slot.hi) >> shift) as usize;
            while let Some(place) = slots.get_mut(at & mask) {
                if place.hi == 0 {
                    *place = *slot;
                    break;
                }
                at += 1;
            }
        }
        self.short = slots;
        Ok(())
    }

    /// # Safety
    /// `s` is readable for its length.
    unsafe fn long_id(&mut self, s: Str, hash: u64, first_row: u64) -> Result<u32, GroupError> {
        if !roomy(self.long.len(), self.long_count + 1) {
            self.grow_long()?;
        }
        let mask = self.long.len() - 1;
        let shift = 64 - self.long.len().trailing_zeros();
        let mut at = (hash >> shift) as usize;
        while let Some(slot) = self.long.get(at & mask) {
            if slot.id == 0 {
                break;
            }
            if slot.hash == hash {
                let key = self.bytes(slot.id - 1);
                // SAFETY: the string is readable for its length, which is the key's.
                if key.len() == s.len && unsafe { bytes::equal(key.as_ptr(), s.ptr, s.len) } {
                    return Ok(slot.id - 1);
                }
            }
            at += 1;
        }
        let id = self.push(s, first_row, |offset| Key::Long { offset, len: s.len, hash })?;
        if let Some(slot) = self.long.get_mut(at & mask) {
            *slot = Long { hash, id: id + 1 };
        }
        self.long_count += 1;
        Ok(id)
    }

    #[cold]
    fn grow_long(&mut self) -> Result<(), GroupError> {
        let factor = if self.long.len() >= GROW_FOUR { 4 } else { 2 };
        let places = (self.long.len() * factor).max(MIN_PLACES);
        let mut slots = filled(Long { hash: 0, id: 0 }, places)?;
        let (mask, shift) = (places - 1, 64 - places.trailing_zeros());
        for slot in self.long.iter().filter(|s| s.id != 0) {
            let mut at = (slot.hash >> shift) as usize;
            while let Some(place) = slots.get_mut(at & mask) {
                if place.id == 0 {
                    *place = *slot;
                    break;
                }
                at += 1;
            }
        }
        self.long = slots;
        Ok(())
    }

    /// Numbers the groups of rows `start .. start + rows` of a column.
    ///
    /// # Safety
    /// As [`super::Keys::assign`].
    #[expect(clippy::too_many_arguments, reason = "a column's rows, two bitmaps, a destination")]
    pub(super) unsafe fn assign(
        &mut self,
        column: &ColumnView<'_>,
        start: usize,
        validity: *const u8,
        mask: *const u8,
        rows: usize,
        first_row: u64,
        ids: *mut u32,
    ) -> Result<(), GroupError> {
        self.packed.resize(BLOCK, 0);
        self.places.resize(BLOCK, 0);
        let (packed, places) = (self.packed.as_mut_ptr(), self.places.as_mut_ptr());
        let shift = 64 - self.short.len().trailing_zeros();
        let level = Level::best();
        let done = with_strings!(column, strings => {
            // SAFETY: the contract is passed on; the lookups return code that this CPU runs.
            let missed = unsafe {
                pack_rows(level)(&strings, start, rows, shift, packed, places);
                probe(&self.short, packed, places, rows, ids)
            };
            if missed || !validity.is_null() {
                // SAFETY: the contract is passed on.
                unsafe {
                    self.resolve(strings, column, start, validity, mask, rows, first_row, ids)?;
                }
            }
        });
        done.ok_or(GroupError::Mismatch)
    }

    /// Goes over the rows of a tile: nulls, rows not found, rows not selected.
    ///
    /// # Safety
    /// As [`StrKeys::assign`]; `ids` is initialised.
    #[expect(clippy::too_many_arguments, reason = "a column's rows, two bitmaps, a destination")]
    unsafe fn resolve<R: Rows>(
        &mut self,
        strings: R,
        column: &ColumnView<'_>,
        start: usize,
        validity: *const u8,
        mask: *const u8,
        rows: usize,
        first_row: u64,
        ids: *mut u32,
    ) -> Result<(), GroupError> {
        for w in 0..rows.div_ceil(64) {
            // SAFETY: 64 * w < rows.
            let (valid, chosen) =
                unsafe { (bits_or_ones(validity, w, rows), bits_or_ones(mask, w, rows)) };
            for k in 0..(rows - 64 * w).min(64) {
                let i = 64 * w + k;
                // SAFETY: i < rows.
                let id = unsafe { &mut *ids.add(i) };
                let row = first_row.wrapping_add(i as u64);
                if chosen >> k & 1 == 0 {
                    *id = 0;
                } else if valid >> k & 1 == 0 {
                    *id = self.null_id(row)?;
                } else if *id == UNKNOWN {
                    // SAFETY: start + i is below the column's length; strings are readable.
                    *id = unsafe {
                        let s = match strings.at(start + i) {
                            Some(s) => s,
                            None => damaged(column, start + i)?,
                        };
                        self.find_or_insert(s, row)?
                    };
                }
            }
        }
        Ok(())
    }

    /// Adds the groups of another table.
    pub(super) fn merge(&mut self, other: &StrKeys) -> Result<Vec<u32>, GroupError> {
        let mut mapping = filled(0u32, other.groups())?;
        let rows = other.keys.iter().zip(&other.first_rows);
        for (to, (key, first)) in mapping.iter_mut().zip(rows) {
            *to = match *key {
                Key::Null => self.null_id(*first)?,
                Key::Short(packed) => self.short_id(packed, *first)?,
                Key::Long { offset, len, hash } => {
                    let bytes = other.arena.get(offset..).and_then(|a| a.get(..len));
                    let bytes = bytes.ok_or(GroupError::Mismatch)?;
                    let s = Str { ptr: bytes.as_ptr(), len, room: len };
                    // SAFETY: the slice is readable for its length.
                    unsafe { self.long_id(s, hash, *first)? }
                }
            };
        }
        Ok(mapping)
    }
}

leveled! {
    fn pack_rows<R: Rows>(
        strings: &R, start: usize, rows: usize, shift: u32, packed: *mut u128, places: *mut u32
    ) = pack_body
}

/// Packs the short strings of a tile, and finds the places where they would stand; others, and
/// damaged ones, become zero.
///
/// # Safety
/// `start + rows` is at most the length of the column; `packed` and `places` are writable for
/// `rows` numbers.
#[inline(always)]
unsafe fn pack_body<R: Rows, const L: u8>(
    strings: &R,
    start: usize,
    rows: usize,
    shift: u32,
    packed: *mut u128,
    places: *mut u32,
) {
    for i in 0..rows {
        // SAFETY: start + i is below the length; what `at` returns is readable for its room.
        unsafe {
            let v = match strings.at(start + i) {
                Some(s) if s.len <= PACKED_MAX => pack_short(s.ptr, s.len, s.room),
                _ => 0,
            };
            packed.add(i).write(v);
            places.add(i).write((hash_words(v as u64, (v >> 64) as u64) >> shift) as u32);
        }
    }
}

/// Looks a tile of packed strings up; rows that are not in the table get [`UNKNOWN`]. Was there one?
///
/// # Safety
/// `packed` and `places` are readable, `ids` is writable for `rows` entries; `slots` is a power of
/// two of places, not all full.
unsafe fn probe(
    slots: &[Short],
    packed: *const u128,
    places: *const u32,
    rows: usize,
    ids: *mut u32,
) -> bool {
    let mask = slots.len() - 1;
    let base = slots.as_ptr();
    if size_of_val(slots) > PREFETCH_BYTES {
        for i in 0..rows {
            // SAFETY: i < rows.
            let at = unsafe { places.add(i).read() } as usize;
            prefetch(base.wrapping_add(at & mask));
        }
    }
    let mut missed = false;
    for i in 0..rows {
        // SAFETY: i < rows.
        let (v, at) = unsafe { (packed.add(i).read(), places.add(i).read()) };
        let (lo, hi) = (v as u64, (v >> 64) as u64);
        let mut at = at as usize & mask;
        let id = loop {
            // SAFETY: `at` is at most mask, the last place.
            let slot = unsafe { &*base.add(at) };
            // (An empty place equals the zero of a string that is not packed: its id says so.)
            if ((slot.lo ^ lo) | (slot.hi ^ hi)) == 0 || slot.hi == 0 {
                break slot.id;
            }
            at = (at + 1) & mask;
        };
        missed |= id == UNKNOWN;
        // SAFETY: i < rows.
        unsafe { ids.add(i).write(id) };
    }
    missed
}
