//! Selection by rank: values as numbers of their order, and digits of those counted.
//!
//! The value of a rank is found from its most significant digit down (Knuth, The Art of Computer
//! Programming 3, 5.2.5 has the sort that this is half of): count a digit's values among the rows
//! that have the digits found so far, choose the one that the rank falls into, and so on, until few
//! enough rows are left to be gathered. So no copy of a column is made.

use crate::prim::{Native, Prim, with_prim};
use crate::tile::mem::{load, load_bits};

/// Bits of a digit.
pub const DIGIT_BITS: u32 = 16;

/// A value as an unsigned number of the same order, in as many bits as the type has: NaN is the
/// largest, −0.0 is 0.0.
#[inline(always)]
pub(crate) fn ordered<T: Native>(v: T) -> u64 {
    let bits = 8 * size_of::<T>() as u32;
    let sign = 1u64 << (bits - 1);
    let all = u64::MAX >> (64 - bits);
    if !T::PRIM.is_float() {
        let flip = if T::PRIM.is_signed() { sign } else { 0 };
        return v.to_bits64() & all ^ flip;
    }
    if v.is_nan() {
        return all;
    }
    let v = if v == T::ZERO { T::ZERO } else { v };
    let word = match T::PRIM {
        Prim::F32 => u64::from((f64::from_bits(v.to_bits64()) as f32).to_bits()),
        _ => v.to_bits64(),
    };
    if word & sign != 0 { !word & all } else { word | sign }
}

/// The number of bits of ordered numbers of a type.
pub const fn ordered_bits(p: Prim) -> u32 {
    8 * p.width() as u32
}

/// The value of an ordered number, as f64 (64-bit integers are rounded).
pub fn ordered_to_f64(p: Prim, key: u64) -> f64 {
    let bits = ordered_bits(p);
    let (sign, all) = (1u64 << (bits - 1), u64::MAX >> (64 - bits));
    if !p.is_float() {
        if p.is_unsigned() {
            return key as f64;
        }
        // Sign-extended from the type's width.
        return (((key ^ sign) << (64 - bits)) as i64 >> (64 - bits)) as f64;
    }
    if key == all {
        return f64::NAN;
    }
    let word = if key & sign != 0 { key ^ sign } else { !key & all };
    if p == Prim::F32 { f64::from(f32::from_bits(word as u32)) } else { f64::from_bits(word) }
}

/// The rows whose number begins with these digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Prefix {
    /// The leading bits.
    pub value: u64,
    /// How many they are; 0: every row.
    pub bits: u32,
}

/// Calls `f` with the number of each row that counts and begins with the prefix.
///
/// # Safety
/// `values` is readable for `rows` values, `mask` is null or readable for `ceil(rows / 8)` bytes.
#[inline(always)]
unsafe fn each<T: Native>(
    values: *const u8,
    mask: *const u8,
    rows: usize,
    prefix: Prefix,
    mut f: impl FnMut(u64),
) {
    let bits = 8 * size_of::<T>() as u32;
    let mut look = |row: usize| {
        // SAFETY: callers pass rows below `rows`.
        let key = ordered::<T>(unsafe { load(values, row) });
        if prefix.bits == 0 || key >> (bits - prefix.bits.min(bits)) == prefix.value {
            f(key);
        }
    };
    if mask.is_null() {
        (0..rows).for_each(look);
        return;
    }
    for w in 0..rows.div_ceil(64) {
        // SAFETY: 64 * w < rows.
        let mut word = unsafe { load_bits(mask, w, rows) };
        while word != 0 {
            look(64 * w + word.trailing_zeros() as usize);
            word &= word - 1;
        }
    }
}

/// Counts the next digit of the rows that count and begin with the prefix: its value is the index
/// into `counts`, which holds 2^[`DIGIT_BITS`]; of fewer bits, if the type has no more.
///
/// # Safety
/// `values` is readable for `rows` values of type `p`, `mask` is null or readable for
/// `ceil(rows / 8)` bytes.
pub unsafe fn count_digits(
    p: Prim,
    values: *const u8,
    mask: *const u8,
    rows: usize,
    prefix: Prefix,
    counts: &mut [u64; 1 << DIGIT_BITS],
) {
    let left = ordered_bits(p).saturating_sub(prefix.bits);
    let shift = left.saturating_sub(DIGIT_BITS);
    with_prim!(p, T => {
        // SAFETY: by contract.
        unsafe {
            each::<T>(values, mask, rows, prefix, |key| {
                counts[(key >> shift) as usize & ((1 << left.min(DIGIT_BITS)) - 1)] += 1;
            });
        }
    })
}

/// Appends the numbers of the rows that count and begin with the prefix. False: no memory.
///
/// # Safety
/// As [`count_digits`].
pub unsafe fn gather_ordered(
    p: Prim,
    values: *const u8,
    mask: *const u8,
    rows: usize,
    prefix: Prefix,
    keys: &mut Vec<u64>,
) -> bool {
    if keys.try_reserve(rows).is_err() {
        return false;
    }
    with_prim!(p, T => {
        // SAFETY: by contract.
        unsafe { each::<T>(values, mask, rows, prefix, |key| keys.push(key)) };
    });
    true
}

/// Between two neighbouring ranks, which value a quantile takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interpolation {
    /// Between both, in proportion.
    Linear,
    /// That of the nearer rank; of the higher one in the middle.
    Nearest,
    /// The lower.
    Lower,
    /// The higher.
    Higher,
    /// Their mean.
    Midpoint,
}

impl Interpolation {
    /// By name.
    pub fn by_name(name: &str) -> Option<Interpolation> {
        Some(match name {
            "linear" => Interpolation::Linear,
            "nearest" => Interpolation::Nearest,
            "lower" => Interpolation::Lower,
            "higher" => Interpolation::Higher,
            "midpoint" => Interpolation::Midpoint,
            _ => return None,
        })
    }
}

/// A quantile to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quantile {
    /// The bits of a number from 0 to 1.
    q: u64,
    interpolation: Interpolation,
}

impl Quantile {
    /// The median: the mean of the two middle values, or the middle one.
    pub const MEDIAN: Quantile =
        Quantile { q: 0.5f64.to_bits(), interpolation: Interpolation::Linear };

    /// `None` if `q` is not from 0 to 1.
    pub fn new(q: f64, interpolation: Interpolation) -> Option<Quantile> {
        (0.0..=1.0).contains(&q).then(|| Quantile { q: q.to_bits(), interpolation })
    }

    /// The ranks (from 0) of the two values that it lies between among `n`, and how far it is from
    /// the first to the second: none, if `n` is 0. The ranks are equal if one decides.
    pub fn ranks(self, n: u64) -> Option<(u64, u64, f64)> {
        let last = n.checked_sub(1)?;
        let at = f64::from_bits(self.q) * last as f64;
        // Beyond 2^53 the product may be rounded up.
        let low = (at.floor() as u64).min(last);
        let part = at - low as f64;
        let high = if part > 0.0 { (low + 1).min(last) } else { low };
        Some(match self.interpolation {
            Interpolation::Linear => (low, high, part),
            Interpolation::Midpoint => (low, high, if high > low { 0.5 } else { 0.0 }),
            Interpolation::Lower => (low, low, 0.0),
            Interpolation::Higher => (high, high, 0.0),
            Interpolation::Nearest => {
                let near = (at.round() as u64).min(last);
                (near, near, 0.0)
            }
        })
    }

    /// What lies `part` of the way from `low` to `high`.
    pub fn between(low: f64, high: f64, part: f64) -> f64 {
        // Equal ones may be infinite, which have no distance; that of others may be too large.
        let distance = high - low;
        if part == 0.0 || low == high {
            low
        } else if distance.is_finite() {
            low + distance * part
        } else {
            low * (1.0 - part) + high * part
        }
    }
}
