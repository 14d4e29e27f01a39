//! Grouping: keys to dense group numbers, tile by tile, in order of first appearance.
//!
//! [`Keys`] numbers the groups of one or several key columns, [`Accumulator`]s are indexed by those
//! numbers. Both are made per fixed range of rows and merged in the order of the ranges, so that
//! neither the numbers nor the last bit of a float depend on who computed which range.
//!
//! Statistics choose the kind of table and nothing else: every address is bounded in the loop, and
//! a key outside the promised span moves the table to hashing.

mod accumulate;
mod strs;
mod words;

use crate::prim::{Prim, with_prim};
use crate::strings::CorruptString;
use crate::tile::TILE_MAX;
use crate::tile::mem::{load_bits, low_bits, store_word};
use crate::view::ColumnView;
use std::fmt;
use strs::StrKeys;
use words::WordKeys;

pub use accumulate::{Accumulator, Aggregate, Lanes, SumOverflow};

/// Why grouping stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GroupError {
    /// More than 2^32 - 2 groups.
    TooManyGroups,
    /// A selected, valid key has damaged offsets.
    Corrupt(CorruptString),
    /// The table could not grow.
    OutOfMemory {
        /// What it asked for.
        bytes: usize,
    },
    /// An aggregate of integers does not fit its type.
    Overflow(SumOverflow),
    /// The inputs are not of the kinds that the table or accumulator was made for, or no key
    /// columns were given: a mistake of the caller, not of the data.
    Mismatch,
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupError::TooManyGroups => write!(f, "more than 4294967294 groups"),
            GroupError::Corrupt(e) => e.fmt(f),
            GroupError::OutOfMemory { bytes } => {
                write!(f, "no memory for {bytes} bytes of a group table")
            }
            GroupError::Overflow(e) => e.fmt(f),
            GroupError::Mismatch => write!(f, "keys or aggregates of different kinds"),
        }
    }
}

impl std::error::Error for GroupError {}

impl From<CorruptString> for GroupError {
    fn from(e: CorruptString) -> Self {
        GroupError::Corrupt(e)
    }
}

/// Makes room in a vector, or says that there is none.
fn reserve<T>(v: &mut Vec<T>, more: usize) -> Result<(), GroupError> {
    v.try_reserve(more)
        .map_err(|_| GroupError::OutOfMemory { bytes: more.saturating_mul(size_of::<T>()) })
}

/// A vector of `len` equal values, or the error that there is no memory for it.
fn filled<T: Copy>(value: T, len: usize) -> Result<Vec<T>, GroupError> {
    let mut v = Vec::new();
    v.try_reserve_exact(len)
        .map_err(|_| GroupError::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) })?;
    v.resize(len, value);
    Ok(v)
}

/// Word `w` of a tile's bitmap of `rows` bits; a null pointer is all ones. Bits past `rows` zero.
///
/// # Safety
/// `p` is null or readable for `ceil(rows / 8)` bytes; `64 * w < rows`.
#[inline(always)]
unsafe fn bits_or_ones(p: *const u8, w: usize, rows: usize) -> u64 {
    if p.is_null() {
        low_bits(rows - 64 * w)
    } else {
        // SAFETY: by contract.
        unsafe { load_bits(p, w, rows) }
    }
}

/// The number that stands for "not looked up yet" while a tile is worked on.
const UNKNOWN: u32 = u32::MAX;
/// Tiles are worked on in blocks of so many rows: words, places and numbers of a whole one would
/// push the table out of the first-level cache (1.05 ns a row against 1.85, 100 groups).
const BLOCK: usize = 256;
/// Group numbers are below this.
const MAX_GROUPS: usize = u32::MAX as usize - 1;

/// What a key column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// Numbers (also dates and timestamps, as the integers they are). Floats: NaN is one group,
    /// −0.0 is 0.0.
    Prim {
        /// Their type.
        prim: Prim,
        /// Least and greatest value, if statistics know them. A hint: a key outside of it is slow,
        /// not wrong.
        range: Option<(i128, i128)>,
    },
    /// Booleans.
    Bool,
    /// Strings of any layout.
    Str,
}

/// One tile of a key column.
#[derive(Clone, Copy)]
pub enum KeyInput<'a> {
    /// Numbers of the type the table was made for.
    Prim {
        /// The tile's values.
        values: *const u8,
        /// The tile's validity; null: all valid.
        validity: *const u8,
    },
    /// Booleans.
    Bool {
        /// The tile's values, a bitmap.
        bits: *const u8,
        /// The tile's validity; null: all valid.
        validity: *const u8,
    },
    /// Strings.
    Str {
        /// The chunk.
        column: &'a ColumnView<'a>,
        /// The chunk's row that is the tile's first.
        start: usize,
        /// The tile's validity (bit 0 is row `start`); null: all valid.
        validity: *const u8,
    },
}

/// Numbers the groups of the rows of one or several key columns, from 0 on, in order of first
/// appearance. A null is a key like another. The table owns its keys (strings are copied once per
/// group), so nothing of the columns is borrowed between calls.
#[derive(Debug)]
pub struct Keys {
    columns: Vec<Column>,
    /// `pairs[k]` numbers the pairs of (numbers of the columns before column k + 1, numbers of
    /// column k + 1).
    pairs: Vec<WordKeys>,
    /// Numbers of the tile's rows: of the columns so far, and of the next one.
    scratch: [Vec<u32>; 2],
}

#[derive(Debug)]
enum Column {
    Prim(Prim, WordKeys),
    Bool(WordKeys),
    Str(StrKeys),
}

impl Column {
    fn groups(&self) -> usize {
        match self {
            Column::Prim(_, t) | Column::Bool(t) => t.groups(),
            Column::Str(t) => t.groups(),
        }
    }

    fn first_rows(&self) -> &[u64] {
        match self {
            Column::Prim(_, t) | Column::Bool(t) => t.first_rows(),
            Column::Str(t) => t.first_rows(),
        }
    }

    /// Numbers rows `skip .. skip + rows` of the tile.
    ///
    /// # Safety
    /// As [`Keys::assign`]; `skip` is a multiple of 64, and mask and numbers are those of its row.
    unsafe fn assign(
        &mut self,
        input: &KeyInput<'_>,
        skip: usize,
        mask: *const u8,
        rows: usize,
        first_row: u64,
        ids: *mut u32,
    ) -> Result<(), GroupError> {
        // SAFETY: the contract is passed on; the type is the one the values have by contract.
        unsafe {
            match (self, *input) {
                (Column::Prim(p, table), KeyInput::Prim { values, validity }) => {
                    let validity = offset(validity, skip / 8);
                    let values = offset(values, skip * p.width());
                    with_prim!(*p, T => {
                        table.assign::<T>(values, validity, mask, rows, first_row, ids)
                    })
                }
                (Column::Bool(table), KeyInput::Bool { bits, validity }) => {
                    let validity = offset(validity, skip / 8);
                    let mut bytes = [0u8; TILE_MAX];
                    unpack(offset(bits, skip / 8), rows, &mut bytes);
                    table.assign::<u8>(bytes.as_ptr(), validity, mask, rows, first_row, ids)
                }
                (Column::Str(table), KeyInput::Str { column, start, validity }) => {
                    let validity = offset(validity, skip / 8);
                    table.assign(column, start + skip, validity, mask, rows, first_row, ids)
                }
                _ => Err(GroupError::Mismatch),
            }
        }
    }
}

/// The pointer some bytes on; null stays null.
///
/// # Safety
/// `p` is null or readable for `bytes` bytes.
unsafe fn offset(p: *const u8, bytes: usize) -> *const u8 {
    // SAFETY: by contract.
    if p.is_null() { p } else { unsafe { p.add(bytes) } }
}

/// The bits of a tile as bytes 0 and 1.
///
/// # Safety
/// `bits` is readable for `ceil(rows / 8)` bytes.
unsafe fn unpack(bits: *const u8, rows: usize, bytes: &mut [u8; TILE_MAX]) {
    for (i, b) in bytes.iter_mut().enumerate().take(rows) {
        // SAFETY: i < rows.
        *b = unsafe { bits.add(i / 8).read() } >> (i % 8) & 1;
    }
}

impl Keys {
    /// A table for keys of these kinds over about `rows` rows (which bounds what a hint may make
    /// it allocate).
    pub fn new(kinds: &[KeyKind], rows: u64) -> Keys {
        let columns: Vec<Column> = kinds
            .iter()
            .map(|kind| match *kind {
                KeyKind::Prim { prim, range } => {
                    Column::Prim(prim, WordKeys::for_prim(prim, range, rows))
                }
                KeyKind::Bool => Column::Bool(WordKeys::for_prim(Prim::U8, Some((0, 1)), rows)),
                KeyKind::Str => Column::Str(StrKeys::new()),
            })
            .collect();
        let pairs = (1..columns.len()).map(|_| WordKeys::for_pairs()).collect();
        Keys { columns, pairs, scratch: [Vec::new(), Vec::new()] }
    }

    /// Finds the group numbers of a tile. Rows that `mask` (null: all) leaves out get a number that
    /// means nothing, but is below the number of groups, or 0.
    ///
    /// # Errors
    /// [`GroupError`]; the table is then good for nothing but being dropped.
    ///
    /// # Safety
    /// `rows <= TILE_MAX`; values are readable for `rows` values of the column's type, bitmaps for
    /// `ceil(rows / 8)` bytes, `start + rows` is at most the length of a string column; `ids` is
    /// writable for `rows` numbers and aligned.
    pub unsafe fn assign(
        &mut self,
        keys: &[KeyInput<'_>],
        mask: *const u8,
        rows: usize,
        first_row: u64,
        ids: *mut u32,
    ) -> Result<(), GroupError> {
        if keys.len() != self.columns.len() || rows > TILE_MAX {
            return Err(GroupError::Mismatch);
        }
        let mut start = 0;
        while start < rows {
            let n = (rows - start).min(BLOCK);
            let first = first_row.wrapping_add(start as u64);
            // SAFETY: rows start to start + n are some of those the contract is about, and start is
            // a multiple of 64, so of 8 bits.
            unsafe {
                let mask = offset(mask, start / 8);
                self.assign_block(keys, start, mask, n, first, ids.add(start))?;
            }
            start += n;
        }
        Ok(())
    }

    /// [`Keys::assign`] for rows `start .. start + rows` of the tile; mask and numbers are those of
    /// the first of them.
    ///
    /// # Safety
    /// As there; `start` is a multiple of 64.
    unsafe fn assign_block(
        &mut self,
        keys: &[KeyInput<'_>],
        start: usize,
        mask: *const u8,
        rows: usize,
        first_row: u64,
        ids: *mut u32,
    ) -> Result<(), GroupError> {
        let (Some(first), Some(input)) = (self.columns.first_mut(), keys.first()) else {
            return Err(GroupError::Mismatch);
        };
        if self.pairs.is_empty() {
            // SAFETY: the contract is passed on.
            return unsafe { first.assign(input, start, mask, rows, first_row, ids) };
        }
        let [left, right] = &mut self.scratch;
        left.resize(BLOCK, 0);
        right.resize(BLOCK, 0);
        // SAFETY: the contract is passed on; `left` holds BLOCK >= rows numbers.
        unsafe { first.assign(input, start, mask, rows, first_row, left.as_mut_ptr())? };
        let mut left_groups = first.groups();
        let last = self.pairs.len() - 1;
        let rest = self.columns.iter_mut().skip(1).zip(keys.iter().skip(1));
        for (k, ((column, input), pair)) in rest.zip(&mut self.pairs).enumerate() {
            // SAFETY: as above; `ids` is writable for rows numbers.
            unsafe {
                column.assign(input, start, mask, rows, first_row, right.as_mut_ptr())?;
                let (l, r) = (left.as_mut_ptr(), right.as_ptr());
                let to = if k == last { ids } else { l };
                let sizes = (left_groups, column.groups());
                pair.assign_pairs(l, r, sizes, mask, rows, first_row, to)?;
            }
            left_groups = pair.groups();
        }
        Ok(())
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.pairs
            .last()
            .map_or_else(|| self.columns.last().map_or(0, Column::groups), WordKeys::groups)
    }

    /// For each group the global number of the row where it appeared first: ascending, if rows
    /// came in order.
    pub fn first_rows(&self) -> &[u64] {
        match (self.pairs.last(), self.columns.last()) {
            (Some(pair), _) => pair.first_rows(),
            (None, Some(column)) => column.first_rows(),
            (None, None) => &[],
        }
    }

    /// Adds the groups of a table of the same kinds, made from rows after this one's. Returns, for
    /// each group of `other`, its number here.
    ///
    /// # Errors
    /// [`GroupError::Mismatch`] for a table of other kinds, else as [`Keys::assign`].
    pub fn merge(&mut self, other: &Keys) -> Result<Vec<u32>, GroupError> {
        if self.columns.len() != other.columns.len() {
            return Err(GroupError::Mismatch);
        }
        let mut mapping: Option<(Vec<u32>, usize)> = None;
        let mut pairs = self.pairs.iter_mut().zip(&other.pairs);
        for (mine, theirs) in self.columns.iter_mut().zip(&other.columns) {
            let right = match (&mut *mine, theirs) {
                (Column::Prim(p, a), Column::Prim(q, b)) if p == q => a.merge(b)?,
                (Column::Bool(a), Column::Bool(b)) => a.merge(b)?,
                (Column::Str(a), Column::Str(b)) => a.merge(b)?,
                _ => return Err(GroupError::Mismatch),
            };
            mapping = Some(match mapping {
                None => (right, mine.groups()),
                Some((left, left_groups)) => {
                    let (a, b) = pairs.next().ok_or(GroupError::Mismatch)?;
                    let both = a.merge_pairs(b, &left, &right, (left_groups, mine.groups()))?;
                    (both, a.groups())
                }
            });
        }
        mapping.map(|(m, _)| m).ok_or(GroupError::Mismatch)
    }

    /// For each group, its number in the table of one column.
    fn column_ids(&self, column: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..self.groups() as u32).collect();
        // Down from the last pair: its left part numbers the columns before.
        for k in (column.saturating_sub(1)..self.pairs.len()).rev() {
            let Some(pair) = self.pairs.get(k) else { break };
            let right = k + 1 == column;
            for id in &mut ids {
                let key = pair.key(*id);
                *id = if right { key as u32 } else { (key >> 32) as u32 };
            }
            if right {
                break;
            }
        }
        ids
    }

    /// Bytes of the strings of a key column over all groups, which [`Keys::write_key`] will write;
    /// 0 for other columns, or if there is no such column.
    pub fn key_bytes(&self, column: usize) -> usize {
        match self.columns.get(column) {
            Some(Column::Str(table)) => {
                self.column_ids(column).iter().map(|id| table.bytes(*id).len()).sum()
            }
            _ => 0,
        }
    }

    /// Writes a key column's value of each group; returns the number of nulls (at most 1 with a
    /// single key column). Where keys of different bits are equal (NaN, −0.0), the value is the
    /// canonical NaN and 0.0.
    ///
    /// # Errors
    /// [`GroupError::Mismatch`] if there is no such column, or 32-bit offsets do not reach.
    ///
    /// # Safety
    /// With `n` groups: `values` is writable for `n` numbers of the column's type, for
    /// `ceil(n / 64)` words (booleans), or for [`Keys::key_bytes`] bytes (strings); `offsets` for
    /// `n + 1` offsets (strings only); `validity` for `ceil(n / 64)` words.
    pub unsafe fn write_key(&self, column: usize, dst: &KeyDst) -> Result<usize, GroupError> {
        let ids = self.column_ids(column);
        let mut nulls = 0usize;
        let is_null = |id: u32| match self.columns.get(column) {
            Some(Column::Prim(_, t) | Column::Bool(t)) => t.null() == Some(id),
            Some(Column::Str(t)) => t.null() == Some(id),
            None => true,
        };
        for (w, chunk) in ids.chunks(64).enumerate() {
            let mut word = 0u64;
            for (k, id) in chunk.iter().enumerate() {
                word |= u64::from(!is_null(*id)) << k;
            }
            nulls += chunk.len() - word.count_ones() as usize;
            // SAFETY: w < ceil(n / 64).
            unsafe { store_word(dst.validity, w, word) };
        }
        match self.columns.get(column).ok_or(GroupError::Mismatch)? {
            Column::Prim(p, table) => with_prim!(*p, T => {
                for (g, id) in ids.iter().enumerate() {
                    let v = <T as crate::prim::Native>::from_bits64(table.key(*id));
                    // SAFETY: g < n.
                    unsafe { crate::tile::mem::store::<T>(dst.values, g, v) };
                }
            }),
            Column::Bool(table) => {
                for (w, chunk) in ids.chunks(64).enumerate() {
                    let mut word = 0u64;
                    for (k, id) in chunk.iter().enumerate() {
                        word |= (table.key(*id) & 1) << k;
                    }
                    // SAFETY: w < ceil(n / 64).
                    unsafe { store_word(dst.values, w, word) };
                }
            }
            Column::Str(table) => {
                let mut at = 0usize;
                for (g, id) in ids.iter().enumerate() {
                    // SAFETY: g < n.
                    unsafe { dst.put_offset(g, at)? };
                    let s = table.bytes(*id);
                    // SAFETY: the strings' lengths sum to key_bytes, for which there is room.
                    unsafe { crate::bytes::copy(dst.values.add(at), s.as_ptr(), s.len()) };
                    at += s.len();
                }
                // SAFETY: there are n + 1 offsets.
                unsafe { dst.put_offset(ids.len(), at)? };
            }
        }
        Ok(nulls)
    }
}

/// Where [`Keys::write_key`] writes.
#[derive(Clone, Copy, Debug)]
pub struct KeyDst {
    /// Numbers, bits, or the bytes of strings.
    pub values: *mut u8,
    /// Offsets of strings; else ignored.
    pub offsets: *mut u8,
    /// Offsets of 64 bits (LargeUtf8) instead of 32 (Utf8).
    pub large: bool,
    /// Validity, in whole words.
    pub validity: *mut u8,
}

impl KeyDst {
    /// # Safety
    /// Offset `i` is writable.
    unsafe fn put_offset(&self, i: usize, at: usize) -> Result<(), GroupError> {
        // SAFETY: by contract.
        unsafe {
            if self.large {
                let v = i64::try_from(at).map_err(|_| GroupError::Mismatch)?;
                self.offsets.cast::<i64>().add(i).write_unaligned(v);
            } else {
                let v = i32::try_from(at).map_err(|_| GroupError::Mismatch)?;
                self.offsets.cast::<i32>().add(i).write_unaligned(v);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
