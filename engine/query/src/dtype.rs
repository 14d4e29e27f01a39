//! Logical column types, and the physical type that the loops see for each.

use std::fmt;
use std::sync::Arc;

use insitu_kernels::prim::Prim;

/// The unit of a time, timestamp or duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimeUnit {
    /// Seconds.
    Second,
    /// Milliseconds.
    Millisecond,
    /// Microseconds.
    Microsecond,
    /// Nanoseconds.
    Nanosecond,
}

impl TimeUnit {
    /// How many of this unit make a second.
    pub fn per_second(self) -> i64 {
        match self {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        }
    }

    /// The short name: s, ms, us, ns.
    pub fn symbol(self) -> &'static str {
        match self {
            TimeUnit::Second => "s",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Microsecond => "us",
            TimeUnit::Nanosecond => "ns",
        }
    }
}

/// The type of a column: Arrow's types that the engine computes on, and [`DataType::Opaque`] for
/// those that it only passes through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Only nulls.
    Null,
    /// Booleans, one bit each.
    Bool,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Unsigned, 8 bits.
    UInt8,
    /// Unsigned, 16 bits.
    UInt16,
    /// Unsigned, 32 bits.
    UInt32,
    /// Unsigned, 64 bits.
    UInt64,
    /// IEEE half precision; stored, moved and cast, not computed on.
    Float16,
    /// IEEE single precision.
    Float32,
    /// IEEE double precision.
    Float64,
    /// Days since 1970-01-01, 32 bits.
    Date32,
    /// Milliseconds since 1970-01-01, 64 bits.
    Date64,
    /// Time of day, 32 bits.
    Time32(TimeUnit),
    /// Time of day, 64 bits.
    Time64(TimeUnit),
    /// Time since 1970-01-01; with a zone the values are UTC.
    Timestamp(TimeUnit, Option<Arc<str>>),
    /// A span of time, 64 bits.
    Duration(TimeUnit),
    /// Strings with 32-bit offsets.
    Utf8,
    /// Strings with 64-bit offsets.
    LargeUtf8,
    /// Strings as 16-byte views.
    Utf8View,
    /// Any other type, as Arrow prints it: stored, passed through, not computed on.
    Opaque(Arc<str>),
}

impl DataType {
    /// The fixed-width type that loops see, if the values are fixed-width numbers. Half precision
    /// is seen as its 16 bits.
    pub fn prim(&self) -> Option<Prim> {
        Some(match self {
            DataType::Int8 => Prim::I8,
            DataType::Int16 => Prim::I16,
            DataType::Int32 | DataType::Date32 | DataType::Time32(_) => Prim::I32,
            DataType::Int64
            | DataType::Date64
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Duration(_) => Prim::I64,
            DataType::UInt8 => Prim::U8,
            DataType::UInt16 | DataType::Float16 => Prim::U16,
            DataType::UInt32 => Prim::U32,
            DataType::UInt64 => Prim::U64,
            DataType::Float32 => Prim::F32,
            DataType::Float64 => Prim::F64,
            _ => return None,
        })
    }

    /// The plain number type of these bits: Int64 for I64 and so on.
    pub fn of_prim(prim: Prim) -> DataType {
        match prim {
            Prim::I8 => DataType::Int8,
            Prim::I16 => DataType::Int16,
            Prim::I32 => DataType::Int32,
            Prim::I64 => DataType::Int64,
            Prim::U8 => DataType::UInt8,
            Prim::U16 => DataType::UInt16,
            Prim::U32 => DataType::UInt32,
            Prim::U64 => DataType::UInt64,
            Prim::F32 => DataType::Float32,
            Prim::F64 => DataType::Float64,
        }
    }

    /// Signed or unsigned integers.
    pub fn is_integer(&self) -> bool {
        self.is_signed() || self.is_unsigned()
    }

    /// Int8 to Int64.
    pub fn is_signed(&self) -> bool {
        matches!(self, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
    }

    /// UInt8 to UInt64.
    pub fn is_unsigned(&self) -> bool {
        matches!(self, DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64)
    }

    /// Float32 or Float64 (Float16 is not computed on).
    pub fn is_float(&self) -> bool {
        matches!(self, DataType::Float32 | DataType::Float64)
    }

    /// Integers and floats.
    pub fn is_numeric(&self) -> bool {
        self.is_integer() || self.is_float()
    }

    /// Any of the three string types.
    pub fn is_string(&self) -> bool {
        matches!(self, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }

    /// Dates, times, timestamps and durations.
    pub fn is_temporal(&self) -> bool {
        matches!(
            self,
            DataType::Date32
                | DataType::Date64
                | DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Timestamp(..)
                | DataType::Duration(_)
        )
    }

    /// Whether operators may move rows of it (filter, sort, slice).
    pub fn is_movable(&self) -> bool {
        !matches!(self, DataType::Opaque(_))
    }

    /// Whether rows can be compared by it, to group or to sort them.
    pub fn is_key(&self) -> bool {
        self.is_movable() && !matches!(self, DataType::Float16)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Null => f.write_str("null"),
            DataType::Bool => f.write_str("bool"),
            DataType::Int8 => f.write_str("int8"),
            DataType::Int16 => f.write_str("int16"),
            DataType::Int32 => f.write_str("int32"),
            DataType::Int64 => f.write_str("int64"),
            DataType::UInt8 => f.write_str("uint8"),
            DataType::UInt16 => f.write_str("uint16"),
            DataType::UInt32 => f.write_str("uint32"),
            DataType::UInt64 => f.write_str("uint64"),
            DataType::Float16 => f.write_str("float16"),
            DataType::Float32 => f.write_str("float32"),
            DataType::Float64 => f.write_str("float64"),
            DataType::Date32 => f.write_str("date32"),
            DataType::Date64 => f.write_str("date64"),
            DataType::Time32(u) => write!(f, "time32[{}]", u.symbol()),
            DataType::Time64(u) => write!(f, "time64[{}]", u.symbol()),
            DataType::Timestamp(u, None) => write!(f, "timestamp[{}]", u.symbol()),
            DataType::Timestamp(u, Some(tz)) => write!(f, "timestamp[{}, {tz}]", u.symbol()),
            DataType::Duration(u) => write!(f, "duration[{}]", u.symbol()),
            DataType::Utf8 => f.write_str("utf8"),
            DataType::LargeUtf8 => f.write_str("large_utf8"),
            DataType::Utf8View => f.write_str("utf8_view"),
            DataType::Opaque(s) => f.write_str(s),
        }
    }
}
