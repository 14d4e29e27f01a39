//! Single values: literals and parameters.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::dtype::TimeUnit;

/// A literal or the value of a parameter. Numbers are *weak*: they take the type of the column
/// they meet (see `typing`). Equality is by bits, so that NaN equals itself.
#[derive(Clone, Debug)]
pub enum Scalar {
    /// No value.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A float.
    Float(f64),
    /// A string.
    Str(Arc<str>),
    /// Days since 1970-01-01.
    Date32(i32),
    /// A point in time.
    Timestamp {
        /// Units since 1970-01-01 (UTC if there is a zone).
        value: i64,
        /// The unit.
        unit: TimeUnit,
        /// The time zone; none for local time.
        tz: Option<Arc<str>>,
    },
    /// A span of time.
    Duration {
        /// Units.
        value: i64,
        /// The unit.
        unit: TimeUnit,
    },
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        use Scalar::*;
        match (self, other) {
            (Null, Null) => true,
            (Bool(a), Bool(b)) => a == b,
            (Int(a), Int(b)) => a == b,
            (UInt(a), UInt(b)) => a == b,
            (Float(a), Float(b)) => a.to_bits() == b.to_bits(),
            (Str(a), Str(b)) => a == b,
            (Date32(a), Date32(b)) => a == b,
            (Timestamp { value: a, unit: u, tz: z }, Timestamp { value: b, unit: v, tz: y }) => {
                a == b && u == v && z == y
            }
            (Duration { value: a, unit: u }, Duration { value: b, unit: v }) => a == b && u == v,
            _ => false,
        }
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, h: &mut H) {
        std::mem::discriminant(self).hash(h);
        match self {
            Scalar::Null => {}
            Scalar::Bool(v) => v.hash(h),
            Scalar::Int(v) => v.hash(h),
            Scalar::UInt(v) => v.hash(h),
            Scalar::Float(v) => v.to_bits().hash(h),
            Scalar::Str(v) => v.hash(h),
            Scalar::Date32(v) => v.hash(h),
            Scalar::Timestamp { value, unit, tz } => (value, unit, tz).hash(h),
            Scalar::Duration { value, unit } => (value, unit).hash(h),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Null => f.write_str("None"),
            Scalar::Bool(v) => f.write_str(if *v { "True" } else { "False" }),
            Scalar::Int(v) => write!(f, "{v}"),
            Scalar::UInt(v) => write!(f, "{v}"),
            Scalar::Float(v) => write!(f, "{v:?}"),
            Scalar::Str(v) => write!(f, "{v:?}"),
            Scalar::Date32(v) => write!(f, "date({v})"),
            Scalar::Timestamp { value, unit, tz: None } => {
                write!(f, "timestamp({value} {})", unit.symbol())
            }
            Scalar::Timestamp { value, unit, tz: Some(tz) } => {
                write!(f, "timestamp({value} {}, {tz})", unit.symbol())
            }
            Scalar::Duration { value, unit } => write!(f, "duration({value} {})", unit.symbol()),
        }
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident as $to:ty),* $(,)?) => {$(
        impl From<$t> for Scalar {
            fn from(v: $t) -> Scalar {
                Scalar::$variant(<$to>::from(v))
            }
        }
    )*};
}

from! {
    bool => Bool as bool, i32 => Int as i64, i64 => Int as i64, f64 => Float as f64,
    &str => Str as Arc<str>, String => Str as Arc<str>,
}

impl From<u64> for Scalar {
    fn from(v: u64) -> Scalar {
        i64::try_from(v).map_or(Scalar::UInt(v), Scalar::Int)
    }
}
