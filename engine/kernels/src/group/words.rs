//! Keys that fit 64 bits: numbers, and pairs of group numbers.
//!
//! Three kinds of table, from the fastest: direct address (a span known beforehand), grid (pairs of
//! small numbers), open addressing. A tile is looked up in a flat loop that inserts nothing; only
//! if a row was not found, or rows may be null, a second loop goes over the rows one by one.

use super::{BLOCK, GroupError, MAX_GROUPS, UNKNOWN, bits_or_ones, filled, reserve};
use crate::hash::{hash_word, prefetch};
use crate::level::{Level, leveled};
use crate::prim::{Native, Prim};
use crate::tile::mem::load;

/// The most entries a directly addressed table has, whatever the rows.
const DIRECT_MAX: u64 = 1 << 22;
/// A grid has at most 2 to the power of this many entries.
const GRID_BITS: u32 = 16;
/// Tables above this size are prefetched: the second-level cache may not hold them.
const PREFETCH_BYTES: usize = 512 << 10;

/// Equal keys have equal words: NaN is one word, and −0.0 is 0.0.
#[inline(always)]
fn canonical<T: Native>(v: T) -> u64 {
    if !T::PRIM.is_float() {
        v.to_bits64()
    } else if v.is_nan() {
        f64::NAN.to_bits()
    } else if v == T::ZERO {
        0
    } else {
        v.to_bits64()
    }
}

/// One place of open addressing.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u64,
    /// Group number plus one; zero: empty.
    id: u32,
}

#[derive(Debug)]
enum Mode {
    /// Entry `key - min` holds the group number plus one, or zero. The entry after the last is
    /// zero always: addresses are bounded to it.
    Direct { min: u64, table: Vec<u32> },
    /// As `Direct`, with address `left << bits | right`.
    Grid { left_bits: u32, bits: u32, table: Vec<u32> },
    /// Open addressing from the hash's top bits on.
    Hash { slots: Vec<Slot>, shift: u32 },
}

/// A table of keys of 64 bits.
#[derive(Debug)]
pub(super) struct WordKeys {
    mode: Mode,
    /// By group number; zero for the null group.
    keys: Vec<u64>,
    first_rows: Vec<u64>,
    null: Option<u32>,
    /// Words of the tile's keys (hashing), or of its pairs.
    words: Vec<u64>,
    /// Where the search for them starts.
    places: Vec<u32>,
}

impl WordKeys {
    /// A table for numbers, directly addressed if the type or the hint allows it.
    pub(super) fn for_prim(prim: Prim, range: Option<(i128, i128)>, rows: u64) -> WordKeys {
        let by_type = match prim {
            Prim::I8 => Some((i128::from(i8::MIN), i128::from(i8::MAX))),
            Prim::U8 => Some((0, i128::from(u8::MAX))),
            _ => None,
        };
        let range = if prim.is_float() { None } else { by_type.or(range) };
        let limit = rows.saturating_mul(2).clamp(4096, DIRECT_MAX);
        let mode = range.and_then(|(min, max)| {
            let span = max.checked_sub(min)?.checked_add(1)?;
            let span = u64::try_from(span).ok().filter(|s| *s <= limit)?;
            let table = filled(0u32, span as usize + 1).ok()?;
            // The low 64 bits: words are sign-extended, and differences wrap.
            Some(Mode::Direct { min: min as u64, table })
        });
        WordKeys::with(mode.unwrap_or_else(empty_hash))
    }

    /// A table for pairs of group numbers.
    pub(super) fn for_pairs() -> WordKeys {
        WordKeys::with(Mode::Grid { left_bits: 0, bits: 0, table: vec![0; 1] })
    }

    fn with(mode: Mode) -> WordKeys {
        WordKeys {
            mode,
            keys: Vec::new(),
            first_rows: Vec::new(),
            null: None,
            words: Vec::new(),
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

    /// The key of a group; 0 for the null group and for none.
    pub(super) fn key(&self, id: u32) -> u64 {
        self.keys.get(id as usize).copied().unwrap_or(0)
    }

    /// A new group.
    fn push(&mut self, key: u64, first_row: u64) -> Result<u32, GroupError> {
        let id = self.keys.len();
        if id >= MAX_GROUPS {
            return Err(GroupError::TooManyGroups);
        }
        reserve(&mut self.keys, 1)?;
        reserve(&mut self.first_rows, 1)?;
        self.keys.push(key);
        self.first_rows.push(first_row);
        Ok(id as u32)
    }

    fn null_id(&mut self, first_row: u64) -> Result<u32, GroupError> {
        if let Some(id) = self.null {
            return Ok(id);
        }
        let id = self.push(0, first_row)?;
        self.null = Some(id);
        Ok(id)
    }

    /// The group of a key, new if it must be.
    fn find_or_insert(&mut self, key: u64, first_row: u64) -> Result<u32, GroupError> {
        let next = self.keys.len() as u32 + 1;
        let found = match &mut self.mode {
            Mode::Direct { min, table } => {
                let at = key.wrapping_sub(*min);
                // (The last entry stands for what is outside.)
                if at < table.len() as u64 - 1 { table.get_mut(at as usize) } else { None }
            }
            Mode::Grid { left_bits, bits, table } => {
                let (left, right) = (key >> 32, key & 0xffff_ffff);
                if left >> *left_bits == 0 && right >> *bits == 0 {
                    table.get_mut((left << *bits | right) as usize)
                } else {
                    None
                }
            }
            Mode::Hash { slots, shift } => {
                let mask = slots.len() - 1;
                let mut at = (hash_word(key) >> *shift) as usize;
                // At least half of the places are empty, so this ends.
                while let Some(slot) = slots.get(at & mask) {
                    if slot.id == 0 || slot.key == key {
                        break;
                    }
                    at += 1;
                }
                slots.get_mut(at & mask).map(|slot| {
                    slot.key = key;
                    &mut slot.id
                })
            }
        };
        match found {
            Some(place) if *place != 0 => Ok(*place - 1),
            Some(place) => {
                *place = next;
                let id = self.push(key, first_row)?;
                self.grow()?;
                Ok(id)
            }
            None => {
                self.spill()?;
                self.find_or_insert(key, first_row)
            }
        }
    }

    /// Leaves direct addressing for hashing, for good.
    #[cold]
    fn spill(&mut self) -> Result<(), GroupError> {
        self.mode = empty_hash();
        self.rehash()
    }

    /// Keeps a hash table at most half full (a small one emptier: fewer collisions for nothing).
    #[inline]
    fn grow(&mut self) -> Result<(), GroupError> {
        match &self.mode {
            Mode::Hash { slots, .. } if !roomy(slots.len(), self.keys.len()) => self.rehash(),
            _ => Ok(()),
        }
    }

    /// Builds the hash table anew, for the keys there are and more.
    #[cold]
    fn rehash(&mut self) -> Result<(), GroupError> {
        let mut places = MIN_PLACES;
        while !roomy(places, self.keys.len().saturating_add(1)) {
            places *= 2;
        }
        if places >= GROW_FOUR {
            places *= 2;
        }
        let mut slots = filled(Slot { key: 0, id: 0 }, places)?;
        let shift = 64 - places.trailing_zeros();
        let mask = places - 1;
        for (id, key) in self.keys.iter().enumerate() {
            if self.null == Some(id as u32) {
                continue;
            }
            let mut at = (hash_word(*key) >> shift) as usize;
            while let Some(slot) = slots.get_mut(at & mask) {
                if slot.id == 0 {
                    *slot = Slot { key: *key, id: id as u32 + 1 };
                    break;
                }
                at += 1;
            }
        }
        self.mode = Mode::Hash { slots, shift };
        Ok(())
    }

    /// Numbers the groups of a tile of numbers.
    ///
    /// # Safety
    /// As [`super::Keys::assign`], with values of type `T`.
    pub(super) unsafe fn assign<T: Native>(
        &mut self,
        values: *const u8,
        validity: *const u8,
        mask: *const u8,
        rows: usize,
        first_row: u64,
        ids: *mut u32,
    ) -> Result<(), GroupError> {
        let mut missed = false;
        match &self.mode {
            Mode::Direct { min, table } => {
                let (min, last) = (*min, table.len() as u64 - 1);
                let table = table.as_ptr();
                for i in 0..rows {
                    // SAFETY: i < rows; the address is at most that of the table's last entry.
                    unsafe {
                        let key = load::<T>(values, i).to_bits64();
                        let at = key.wrapping_sub(min).min(last);
                        let id = table.add(at as usize).read();
                        missed |= id == 0;
                        ids.add(i).write(id.wrapping_sub(1));
                    }
                }
            }
            Mode::Hash { slots, shift } => {
                self.words.resize(BLOCK, 0);
                self.places.resize(BLOCK, 0);
                let (words, places) = (self.words.as_mut_ptr(), self.places.as_mut_ptr());
                // SAFETY: there is room for BLOCK >= rows words and places; the lookup returns
                // code that this CPU runs; ids is writable for rows numbers.
                unsafe {
                    locate::<T>(Level::best())(values, rows, *shift, words, places);
                    missed = probe(slots, words, places, rows, ids);
                }
            }
            // Made for pairs only.
            Mode::Grid { .. } => return Err(GroupError::Mismatch),
        }
        if !missed && validity.is_null() {
            return Ok(());
        }
        let key = |i: usize| {
            // SAFETY: resolve asks for i < rows.
            canonical(unsafe { load::<T>(values, i) })
        };
        // SAFETY: the contract is passed on.
        unsafe { self.resolve(key, validity, mask, rows, first_row, ids) }
    }

    /// Numbers the groups of a tile of pairs of numbers below `sizes`. `ids` may be `left`.
    ///
    /// # Safety
    /// `left` and `right` are readable, `ids` writable for `rows <= BLOCK` numbers; `mask` is
    /// null or readable for as many bits.
    #[expect(clippy::too_many_arguments, reason = "two columns, a mask and where they are")]
    pub(super) unsafe fn assign_pairs(
        &mut self,
        left: *const u32,
        right: *const u32,
        sizes: (usize, usize),
        mask: *const u8,
        rows: usize,
        first_row: u64,
        ids: *mut u32,
    ) -> Result<(), GroupError> {
        self.fit_grid(sizes)?;
        self.words.resize(BLOCK, 0);
        for (i, word) in self.words.iter_mut().enumerate().take(rows) {
            // SAFETY: i < rows.
            *word = unsafe { u64::from(left.add(i).read()) << 32 | u64::from(right.add(i).read()) };
        }
        let mut missed = false;
        match &self.mode {
            Mode::Grid { bits, table, .. } => {
                let last = table.len() as u64 - 1;
                let bits = *bits;
                for (i, word) in self.words.iter().enumerate().take(rows) {
                    // Numbers are below `sizes`, for which the grid has room; bounded all the same.
                    let at = ((word >> 32) << bits | word & 0xffff_ffff).min(last);
                    // SAFETY: at most the last entry; i < rows.
                    unsafe {
                        let id = table.as_ptr().add(at as usize).read();
                        missed |= id == 0;
                        ids.add(i).write(id.wrapping_sub(1));
                    }
                }
            }
            Mode::Hash { slots, shift } => {
                self.places.resize(BLOCK, 0);
                let (words, places) = (self.words.as_mut_ptr(), self.places.as_mut_ptr());
                // SAFETY: there is room for BLOCK >= rows words and places, the words are
                // those just made; the lookup returns code that this CPU runs; ids is writable
                // for rows numbers.
                unsafe {
                    locate::<u64>(Level::best())(words.cast(), rows, *shift, words, places);
                    missed = probe(slots, words, places, rows, ids);
                }
            }
            Mode::Direct { .. } => return Err(GroupError::Mismatch),
        }
        if !missed {
            return Ok(());
        }
        let words = std::mem::take(&mut self.words);
        let key = |i: usize| words.get(i).copied().unwrap_or(0);
        // SAFETY: the contract is passed on.
        let done = unsafe { self.resolve(key, std::ptr::null(), mask, rows, first_row, ids) };
        self.words = words;
        done
    }

    /// Makes the grid wide enough for numbers below `sizes`, or leaves it for hashing.
    fn fit_grid(&mut self, sizes: (usize, usize)) -> Result<(), GroupError> {
        let Mode::Grid { left_bits, bits, .. } = &self.mode else { return Ok(()) };
        let need = |n: usize| usize::BITS - n.saturating_sub(1).leading_zeros();
        let (a, b) = (need(sizes.0), need(sizes.1));
        if a <= *left_bits && b <= *bits {
            return Ok(());
        }
        // One bit in reserve, so that a growing number of groups seldom moves the grid.
        let (a, b) = ((*left_bits).max(a + 1), (*bits).max(b + 1));
        if a + b > GRID_BITS {
            return self.spill();
        }
        let mut table = filled(0u32, 1 << (a + b))?;
        for (id, key) in self.keys.iter().enumerate() {
            let at = (key >> 32) << b | key & 0xffff_ffff;
            if let Some(place) = table.get_mut(at as usize) {
                *place = id as u32 + 1;
            }
        }
        self.mode = Mode::Grid { left_bits: a, bits: b, table };
        Ok(())
    }

    /// Goes over the rows of a tile: nulls, rows not found, rows not selected.
    ///
    /// # Safety
    /// Bitmaps are null or readable for `rows` bits, `ids` is initialised and writable for `rows`
    /// numbers.
    unsafe fn resolve(
        &mut self,
        key: impl Fn(usize) -> u64,
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
                if chosen >> k & 1 == 0 {
                    *id = 0;
                } else if valid >> k & 1 == 0 {
                    *id = self.null_id(first_row.wrapping_add(i as u64))?;
                } else if *id == UNKNOWN {
                    *id = self.find_or_insert(key(i), first_row.wrapping_add(i as u64))?;
                }
            }
        }
        Ok(())
    }

    /// Adds the groups of another table of numbers.
    pub(super) fn merge(&mut self, other: &WordKeys) -> Result<Vec<u32>, GroupError> {
        let mut mapping = filled(0u32, other.groups())?;
        let rows = other.keys.iter().zip(&other.first_rows);
        for (id, (to, (key, first))) in mapping.iter_mut().zip(rows).enumerate() {
            *to = if other.null == Some(id as u32) {
                self.null_id(*first)?
            } else {
                self.find_or_insert(*key, *first)?
            };
        }
        Ok(mapping)
    }

    /// Adds the pairs of another table, whose parts are renumbered by `left` and `right` to numbers
    /// below `sizes`.
    pub(super) fn merge_pairs(
        &mut self,
        other: &WordKeys,
        left: &[u32],
        right: &[u32],
        sizes: (usize, usize),
    ) -> Result<Vec<u32>, GroupError> {
        self.fit_grid(sizes)?;
        let mut mapping = filled(0u32, other.groups())?;
        let rows = other.keys.iter().zip(&other.first_rows);
        for (to, (key, first)) in mapping.iter_mut().zip(rows) {
            let a = left.get((key >> 32) as usize).ok_or(GroupError::Mismatch)?;
            let b = right.get((key & 0xffff_ffff) as usize).ok_or(GroupError::Mismatch)?;
            *to = self.find_or_insert(u64::from(*a) << 32 | u64::from(*b), *first)?;
        }
        Ok(mapping)
    }
}

/// The least number of places of a hash table.
pub(super) const MIN_PLACES: usize = 1024;
/// From this many places on, a table grows fourfold: rebuilding it costs a miss per key.
pub(super) const GROW_FOUR: usize = 1 << 14;

/// Is there room for `keys` in a table of `places`? A quarter may be used of a small one, half of
/// a large one.
pub(super) fn roomy(places: usize, keys: usize) -> bool {
    keys.saturating_mul(if places <= GROW_FOUR { 4 } else { 2 }) <= places
}

fn empty_hash() -> Mode {
    Mode::Hash {
        slots: vec![Slot { key: 0, id: 0 }; MIN_PLACES],
        shift: 64 - MIN_PLACES.trailing_zeros(),
    }
}

leveled! {
    fn locate<T: Native>(values: *const u8, rows: usize, shift: u32, words: *mut u64, places: *mut u32)
        = locate_body
}

/// The words of a tile's keys, and the places where they would stand in a hash table. `values` may
/// be `words`.
///
/// # Safety
/// `values` is readable for `rows` values of `T`, `words` and `places` are writable for as many.
#[inline(always)]
unsafe fn locate_body<T: Native, const L: u8>(
    values: *const u8,
    rows: usize,
    shift: u32,
    words: *mut u64,
    places: *mut u32,
) {
    for i in 0..rows {
        // SAFETY: i < rows.
        unsafe {
            let word = canonical(load::<T>(values, i));
            words.add(i).write(word);
            places.add(i).write((hash_word(word) >> shift) as u32);
        }
    }
}

/// Looks a tile up in a hash table; rows that are not in it get [`UNKNOWN`]. Was there one?
///
/// # Safety
/// `words` and `places` are readable, `ids` is writable for `rows` entries; `slots` is a power of
/// two of places, not all full.
unsafe fn probe(
    slots: &[Slot],
    words: *const u64,
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
        let (word, at) = unsafe { (words.add(i).read(), places.add(i).read()) };
        let mut at = at as usize & mask;
        let id = loop {
            // SAFETY: `at` is at most mask, the last place.
            let slot = unsafe { &*base.add(at) };
            if slot.key == word || slot.id == 0 {
                break slot.id;
            }
            at = (at + 1) & mask;
        };
        missed |= id == 0;
        // SAFETY: i < rows.
        unsafe { ids.add(i).write(id.wrapping_sub(1)) };
    }
    missed
}
