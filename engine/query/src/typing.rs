//! The rules of types, in one place.
//!
//! **Numbers promote as in NumPy.** Of two integers of one sign the wider; of mixed sign the
//! narrowest signed type that holds both (int8 with uint8: int16, int32 with uint32: int64), and
//! for int64 with uint64 float64. An integer of up to 16 bits with float32 gives float32, a wider
//! one float64. A boolean takes the other side's type; with another boolean it counts as int64.
//!
//! **Literals are weak.** An integer takes the other side's number type if it fits there; else the
//! two promote from the narrowest type that holds it. A float keeps float32 at float32 and turns
//! integers into float64. Literals among themselves are int64 and float64. Parameters are literals
//! whose value comes later.
//!
//! **Division.** `/` of integers is float64. `//` and `%` keep the common type and floor.
//!
//! **Powers.** An integer to a literal that is a whole number of at least 0 keeps the common type
//! and wraps. Any other power of integers is float64, to a parameter too, since exponents may be
//! negative; with a float it has the common type.
//!
//! **Transcendental functions** keep float32 and take integers as float64; those of two values have
//! the common type if that is a float, else float64.
//!
//! **Time.** The finer of two units holds. A date meets a timestamp at midnight. Two points in time
//! subtract to a duration (dates: in seconds), a duration moves a point (a date by whole days),
//! durations add, scale by numbers and divide to float64. With and without a time zone do not mix;
//! two zones do, since both are UTC inside; the left one's name is kept.

use crate::dtype::{DataType, TimeUnit};
use crate::scalar::Scalar;

/// The common type of two number or boolean types.
pub(crate) fn promote(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a == b {
        return (a.is_numeric() || *a == Bool).then(|| a.clone());
    }
    if *a == Bool {
        return b.is_numeric().then(|| b.clone());
    }
    if *b == Bool {
        return a.is_numeric().then(|| a.clone());
    }
    if !a.is_numeric() || !b.is_numeric() {
        return None;
    }
    let (wa, wb) = (a.prim()?.width(), b.prim()?.width());
    Some(match (a.is_float(), b.is_float()) {
        (true, true) => Float64,
        (true, false) => {
            if wa == 4 && wb <= 2 {
                Float32
            } else {
                Float64
            }
        }
        (false, true) => {
            if wb == 4 && wa <= 2 {
                Float32
            } else {
                Float64
            }
        }
        (false, false) => {
            if a.is_signed() == b.is_signed() {
                if wa >= wb { a.clone() } else { b.clone() }
            } else {
                let (signed, ws, wu) = if a.is_signed() { (a, wa, wb) } else { (b, wb, wa) };
                if ws > wu {
                    signed.clone()
                } else {
                    match wu {
                        1 => Int16,
                        2 => Int32,
                        4 => Int64,
                        _ => Float64,
                    }
                }
            }
        }
    })
}

/// The range of an integer type.
pub(crate) fn integer_range(t: &DataType) -> Option<(i128, i128)> {
    let bits = t.prim().filter(|_| t.is_integer())?.width() as u32 * 8;
    Some(if t.is_signed() {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    })
}

/// The type of a literal that stands alone.
pub(crate) fn natural(s: &Scalar) -> DataType {
    match s {
        Scalar::Null => DataType::Null,
        Scalar::Bool(_) => DataType::Bool,
        Scalar::Int(_) => DataType::Int64,
        Scalar::UInt(_) => DataType::UInt64,
        Scalar::Float(_) => DataType::Float64,
        Scalar::Str(_) => DataType::Utf8,
        Scalar::Date32(_) => DataType::Date32,
        Scalar::Timestamp { unit, tz, .. } => DataType::Timestamp(*unit, tz.clone()),
        Scalar::Duration { unit, .. } => DataType::Duration(*unit),
    }
}

/// What of a number decides how the expressions around it are typed: whether it is a float, and
/// which integer types hold it. Numbers of one class can stand for one another in a compiled
/// program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// An integer, given as a signed or an unsigned one.
    Integer {
        /// Given as an unsigned one.
        unsigned: bool,
        /// Bit i: held by integer type i.
        held_by: u8,
    },
    /// A float.
    Float,
}

impl Class {
    /// The class of a number; none for other values.
    pub(crate) fn of(s: &Scalar) -> Option<Class> {
        use DataType::*;
        let (value, unsigned) = match s {
            Scalar::Int(v) => (i128::from(*v), false),
            Scalar::UInt(v) => (i128::from(*v), true),
            Scalar::Float(_) => return Some(Class::Float),
            _ => return None,
        };
        let types = [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64];
        let held_by = types.iter().fold(0, |bits, t| {
            let holds = integer_range(t).is_some_and(|(low, high)| (low..=high).contains(&value));
            bits << 1 | u8::from(holds)
        });
        Some(Class::Integer { unsigned, held_by })
    }
}

/// The type a number literal takes beside a column of `other`.
pub(crate) fn beside(s: &Scalar, other: &DataType) -> DataType {
    let value = match s {
        Scalar::Int(v) => i128::from(*v),
        Scalar::UInt(v) => i128::from(*v),
        Scalar::Float(_) if *other == DataType::Float32 => return DataType::Float32,
        _ => return natural(s),
    };
    if other.is_float() {
        return other.clone();
    }
    if let Some((low, high)) = integer_range(other)
        && (low..=high).contains(&value)
    {
        return other.clone();
    }
    if !other.is_integer() {
        return natural(s);
    }
    [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64]
        .into_iter()
        .find(|t| integer_range(t).is_some_and(|(low, high)| (low..=high).contains(&value)))
        .unwrap_or(DataType::UInt64)
}

/// The type of a sum.
pub(crate) fn sum_type(t: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match t {
        Bool | Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Int64 => Int64,
        UInt64 => UInt64,
        Float32 => Float32,
        Float64 => Float64,
        Duration(u) => Duration(*u),
        _ => return None,
    })
}

/// The type of a product.
pub(crate) fn product_type(t: &DataType) -> Option<DataType> {
    if matches!(t, DataType::Duration(_)) { None } else { sum_type(t) }
}

/// The finer of two units.
pub(crate) fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    a.max(b)
}

/// Units per day.
pub(crate) fn per_day(u: TimeUnit) -> i64 {
    86_400 * u.per_second()
}

/// The scalar's bits as a number of that type, if it is exactly representable there (integers and
/// times) or rounds to it (floats).
pub(crate) fn scalar_bits(s: &Scalar, t: &DataType) -> Option<u64> {
    use DataType::*;
    let integer = |v: i128| -> Option<u64> {
        match t {
            Float32 => Some(u64::from((v as f32).to_bits())),
            Float64 => Some((v as f64).to_bits()),
            _ => {
                let (low, high) = integer_range(t)?;
                (low..=high).contains(&v).then(|| truncated(v as u64, t))
            }
        }
    };
    match (s, t) {
        (Scalar::Bool(v), Bool) => Some(u64::from(*v)),
        (Scalar::Bool(v), _) => integer(i128::from(*v)),
        (Scalar::Int(v), _) => integer(i128::from(*v)),
        (Scalar::UInt(v), _) => integer(i128::from(*v)),
        (Scalar::Float(v), Float32) => Some(u64::from((*v as f32).to_bits())),
        (Scalar::Float(v), Float64) => Some(v.to_bits()),
        // For membership: 2.0 is the integer 2, 2.5 is none.
        (Scalar::Float(v), _) if v.trunc() == *v && v.abs() < 1e30 => integer(*v as i128),
        (Scalar::Date32(v), Date32) => Some(u64::from(*v as u32)),
        (Scalar::Date32(v), Date64) => Some((i64::from(*v) * 86_400_000) as u64),
        (Scalar::Date32(v), Timestamp(u, None)) => {
            i64::from(*v).checked_mul(per_day(*u)).map(|v| v as u64)
        }
        (Scalar::Timestamp { value, unit, tz: None }, Date32) => {
            let day = per_day(*unit);
            if value % day != 0 {
                return None;
            }
            i32::try_from(value / day).ok().map(|v| u64::from(v as u32))
        }
        (Scalar::Timestamp { value, unit, tz }, Timestamp(u, zone)) => {
            if tz.is_some() != zone.is_some() {
                return None;
            }
            rescale(*value, *unit, *u).map(|v| v as u64)
        }
        (Scalar::Timestamp { value, unit, tz: None }, Date64) => {
            rescale(*value, *unit, TimeUnit::Millisecond).map(|v| v as u64)
        }
        (Scalar::Duration { value, unit }, Duration(u)) => {
            rescale(*value, *unit, *u).map(|v| v as u64)
        }
        _ => None,
    }
}

fn truncated(v: u64, t: &DataType) -> u64 {
    match t.prim().map_or(8, |p| p.width()) {
        1 => v & 0xff,
        2 => v & 0xffff,
        4 => v & 0xffff_ffff,
        _ => v,
    }
}

/// The value in another unit, if it is whole there.
pub(crate) fn rescale(value: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let (f, t) = (from.per_second(), to.per_second());
    if t >= f { value.checked_mul(t / f) } else { (value % (f / t) == 0).then(|| value / (f / t)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn numbers_promote_as_in_numpy() {
        for (a, b, to) in [
            (Int8, Int32, Int32),
            (UInt8, UInt16, UInt16),
            (Int8, UInt8, Int16),
            (Int16, UInt8, Int16),
            (Int32, UInt32, Int64),
            (Int64, UInt32, Int64),
            (Int64, UInt64, Float64),
            (Int16, Float32, Float32),
            (Int32, Float32, Float64),
            (Float32, Float64, Float64),
            (Bool, Int8, Int8),
        ] {
            assert_eq!(promote(&a, &b), Some(to.clone()), "{a} {b}");
            assert_eq!(promote(&b, &a), Some(to), "{b} {a}");
        }
        assert_eq!(promote(&Utf8, &Int8), None);
    }

    #[test]
    fn literals_take_the_columns_type_if_they_fit() {
        assert_eq!(beside(&Scalar::Int(5), &UInt8), UInt8);
        assert_eq!(beside(&Scalar::Int(300), &UInt8), Int16);
        assert_eq!(beside(&Scalar::Int(-1), &UInt64), Int8);
        assert_eq!(beside(&Scalar::Int(5), &Float32), Float32);
        assert_eq!(beside(&Scalar::Float(0.5), &Float32), Float32);
        assert_eq!(beside(&Scalar::Float(0.5), &Int8), Float64);
        assert_eq!(beside(&Scalar::UInt(u64::MAX), &Int64), UInt64);
    }

    #[test]
    fn numbers_of_a_class_are_typed_alike() {
        let int = |v: i64| Class::of(&Scalar::Int(v));
        assert_eq!(int(0), int(127));
        assert_ne!(int(127), int(128));
        assert_ne!(int(1), int(-1));
        assert_eq!(int(-1), int(-128));
        assert_eq!(int(1 << 40), int(1 << 50));
        assert_ne!(int(1), Class::of(&Scalar::UInt(1)));
        assert_eq!(Class::of(&Scalar::Float(0.5)), Class::of(&Scalar::Float(f64::NAN)));
        assert_eq!(Class::of(&Scalar::Null), None);
        let ints = [0, 1, -1, 127, 128, 255, 256, 40_000, 1 << 31, 1 << 32, i64::MIN, i64::MAX];
        let floats = [0.0, -0.5, 1.0, 300.0, 1e300, f64::NAN, f64::INFINITY];
        let mut values: Vec<Scalar> = ints.into_iter().map(Scalar::Int).collect();
        values.extend([0, 1, 200, 1 << 63, u64::MAX].map(Scalar::UInt));
        values.extend(floats.map(Scalar::Float));
        for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (a, b))) {
            if Class::of(a) != Class::of(b) {
                continue;
            }
            assert_eq!(natural(a), natural(b), "{a} {b}");
            for t in [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float32, Float64] {
                let beside_it = beside(a, &t);
                assert_eq!(beside_it, beside(b, &t), "{a} {b} beside {t}");
                // What it is put in as when the program runs.
                let can_be = |s: &Scalar| scalar_bits(s, &beside_it).is_some();
                assert_eq!(can_be(a), can_be(b), "{a} {b} as {beside_it}");
            }
        }
    }

    #[test]
    fn units_change_only_exactly() {
        use TimeUnit::*;
        assert_eq!(rescale(1_500, Millisecond, Second), None);
        assert_eq!(rescale(-2_000, Millisecond, Second), Some(-2));
        assert_eq!(rescale(i64::MAX, Second, Nanosecond), None);
    }
}
