//! The ten fixed-width number types that loops are compiled for.

/// A fixed-width number type, as it lies in memory (native byte order).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Prim {
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl Prim {
    /// Every type, in the order of the enum.
    pub const ALL: [Prim; 10] = [
        Prim::I8,
        Prim::I16,
        Prim::I32,
        Prim::I64,
        Prim::U8,
        Prim::U16,
        Prim::U32,
        Prim::U64,
        Prim::F32,
        Prim::F64,
    ];

    /// Bytes per value: 1, 2, 4 or 8.
    pub const fn width(self) -> usize {
        match self {
            Prim::I8 | Prim::U8 => 1,
            Prim::I16 | Prim::U16 => 2,
            Prim::I32 | Prim::U32 | Prim::F32 => 4,
            Prim::I64 | Prim::U64 | Prim::F64 => 8,
        }
    }

    /// F32 or F64.
    pub const fn is_float(self) -> bool {
        matches!(self, Prim::F32 | Prim::F64)
    }

    /// Not a float.
    pub const fn is_integer(self) -> bool {
        !self.is_float()
    }

    /// Can hold a negative number (floats can).
    pub const fn is_signed(self) -> bool {
        !self.is_unsigned()
    }

    /// U8 to U64.
    pub const fn is_unsigned(self) -> bool {
        matches!(self, Prim::U8 | Prim::U16 | Prim::U32 | Prim::U64)
    }

    /// The name Arrow and NumPy give it: `int8` ... `float64` (Arrow prints floats as `float` and
    /// `double`; this is NumPy's spelling).
    pub const fn name(self) -> &'static str {
        match self {
            Prim::I8 => "int8",
            Prim::I16 => "int16",
            Prim::I32 => "int32",
            Prim::I64 => "int64",
            Prim::U8 => "uint8",
            Prim::U16 => "uint16",
            Prim::U32 => "uint32",
            Prim::U64 => "uint64",
            Prim::F32 => "float32",
            Prim::F64 => "float64",
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that is one of the [`Prim`]s. Sealed: any bit pattern of the type is a value of it,
/// which is what lets loops read memory that others wrote.
pub trait Native:
    sealed::Sealed + Copy + Send + Sync + PartialOrd + Default + std::fmt::Debug + 'static
{
    /// Which.
    const PRIM: Prim;
    /// All bits zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The least value: the type's minimum, or minus infinity.
    const LEAST: Self;
    /// The greatest value: the type's maximum, or infinity.
    const GREATEST: Self;
    /// Is it NaN? Constantly false for integers.
    fn is_nan(self) -> bool;
    /// The value as 64 bits, for statistics: signed integers sign-extended, unsigned ones
    /// zero-extended, floats as the bits of an f64 (an f32 widens exactly).
    fn to_bits64(self) -> u64;
    /// Inverse of [`Native::to_bits64`].
    fn from_bits64(bits: u64) -> Self;
}

macro_rules! native {
    ($t:ty, $p:ident, $wide:ty) => {
        impl sealed::Sealed for $t {}
        impl Native for $t {
            const PRIM: Prim = Prim::$p;
            const ZERO: $t = 0;
            const ONE: $t = 1;
            const LEAST: $t = <$t>::MIN;
            const GREATEST: $t = <$t>::MAX;
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn to_bits64(self) -> u64 {
                self as $wide as u64
            }
            #[inline(always)]
            fn from_bits64(bits: u64) -> Self {
                bits as $t
            }
        }
    };
}
native!(i8, I8, i64);
native!(i16, I16, i64);
native!(i32, I32, i64);
native!(i64, I64, i64);
native!(u8, U8, u64);
native!(u16, U16, u64);
native!(u32, U32, u64);
native!(u64, U64, u64);

macro_rules! native_float {
    ($t:ty, $p:ident) => {
        impl sealed::Sealed for $t {}
        impl Native for $t {
            const PRIM: Prim = Prim::$p;
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            const LEAST: $t = <$t>::NEG_INFINITY;
            const GREATEST: $t = <$t>::INFINITY;
            #[inline(always)]
            fn is_nan(self) -> bool {
                self != self
            }
            #[inline(always)]
            fn to_bits64(self) -> u64 {
                f64::from(self).to_bits()
            }
            #[inline(always)]
            fn from_bits64(bits: u64) -> Self {
                f64::from_bits(bits) as $t
            }
        }
    };
}
native_float!(f32, F32);
native_float!(f64, F64);

/// Runs `$body` with the type alias `$t` standing for the Rust type of `$p`.
macro_rules! with_prim {
    ($p:expr, $t:ident => $body:expr) => {
        match $p {
            $crate::prim::Prim::I8 => {
                type $t = i8;
                $body
            }
            $crate::prim::Prim::I16 => {
                type $t = i16;
                $body
            }
            $crate::prim::Prim::I32 => {
                type $t = i32;
                $body
            }
            $crate::prim::Prim::I64 => {
                type $t = i64;
                $body
            }
            $crate::prim::Prim::U8 => {
                type $t = u8;
                $body
            }
            $crate::prim::Prim::U16 => {
                type $t = u16;
                $body
            }
            $crate::prim::Prim::U32 => {
                type $t = u32;
                $body
            }
            $crate::prim::Prim::U64 => {
                type $t = u64;
                $body
            }
            $crate::prim::Prim::F32 => {
                type $t = f32;
                $body
            }
            $crate::prim::Prim::F64 => {
                type $t = f64;
                $body
            }
        }
    };
}
pub(crate) use with_prim;

/// As `with_prim`, for the integer types; `None` for floats, `Some($body)` otherwise.
macro_rules! with_int {
    ($p:expr, $t:ident => $body:expr) => {
        match $p {
            $crate::prim::Prim::I8 => {
                type $t = i8;
                Some($body)
            }
            $crate::prim::Prim::I16 => {
                type $t = i16;
                Some($body)
            }
            $crate::prim::Prim::I32 => {
                type $t = i32;
                Some($body)
            }
            $crate::prim::Prim::I64 => {
                type $t = i64;
                Some($body)
            }
            $crate::prim::Prim::U8 => {
                type $t = u8;
                Some($body)
            }
            $crate::prim::Prim::U16 => {
                type $t = u16;
                Some($body)
            }
            $crate::prim::Prim::U32 => {
                type $t = u32;
                Some($body)
            }
            $crate::prim::Prim::U64 => {
                type $t = u64;
                Some($body)
            }
            $crate::prim::Prim::F32 | $crate::prim::Prim::F64 => None,
        }
    };
}
pub(crate) use with_int;

/// As `with_prim`, for the float types; `None` for integers, `Some($body)` otherwise.
macro_rules! with_float {
    ($p:expr, $t:ident => $body:expr) => {
        match $p {
            $crate::prim::Prim::F32 => {
                type $t = f32;
                Some($body)
            }
            $crate::prim::Prim::F64 => {
                type $t = f64;
                Some($body)
            }
            _ => None,
        }
    };
}
pub(crate) use with_float;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_rust_types() {
        for p in Prim::ALL {
            assert_eq!(p.width(), with_prim!(p, T => size_of::<T>()));
            assert_eq!(p, with_prim!(p, T => T::PRIM));
        }
    }

    #[test]
    fn bits64_round_trip() {
        assert_eq!(i8::from_bits64((-3i8).to_bits64()), -3);
        assert_eq!((-3i8).to_bits64() as i64, -3);
        assert_eq!(u64::from_bits64(u64::MAX.to_bits64()), u64::MAX);
        assert_eq!(f32::from_bits64(0.1f32.to_bits64()), 0.1f32);
        assert_eq!(f64::from_bits64((-0.0f64).to_bits64()).to_bits(), (-0.0f64).to_bits());
    }
}
