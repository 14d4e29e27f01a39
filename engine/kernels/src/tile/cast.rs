//! Conversions between number types, and between numbers and booleans.

use super::compare::{Test, bitmap_fn};
use super::mem::{load, load_bits, store};
use super::{Kernel, TileFn, tile_fn};
use crate::level::Level;
use crate::prim::{Native, Prim, with_prim};
use std::marker::PhantomData;

/// The kernel `dst = operand as to`, with Rust's `as`: integers wrap, floats to integers truncate
/// towards zero and saturate (NaN gives 0), to floats round to nearest even. `from == to` copies.
pub fn cast(from: Prim, to: Prim, level: Level) -> TileFn {
    with_prim!(from, F => with_prim!(to, T => tile_fn::<Cast<F, T>>(level)))
}

/// The bitmap of rows whose value a strict cast accepts. `None`: it accepts all.
///
/// Strict means what it means in Polars: an integer must be in the range of the target; a float
/// must be finite and in range *after* truncation (2.9 to an integer is 2, and fits; NaN and
/// infinities do not); to floats everything fits (64-bit integers round, large f64 become
/// infinite f32).
pub fn cast_fits(from: Prim, to: Prim, level: Level) -> Option<TileFn> {
    if to.is_float() || from == to || widens(from, to) {
        return None;
    }
    macro_rules! fits {
        ($to:ident) => {
            with_prim!(from, F => Some(bitmap_fn::<Fits<F, $to>>(level)))
        };
    }
    match to {
        Prim::I8 => fits!(i8),
        Prim::I16 => fits!(i16),
        Prim::I32 => fits!(i32),
        Prim::I64 => fits!(i64),
        Prim::U8 => fits!(u8),
        Prim::U16 => fits!(u16),
        Prim::U32 => fits!(u32),
        Prim::U64 => fits!(u64),
        Prim::F32 | Prim::F64 => None,
    }
}

/// Does every value of integer type `from` fit in integer type `to`?
const fn widens(from: Prim, to: Prim) -> bool {
    from.is_integer()
        && to.is_integer()
        && (from.is_unsigned() || to.is_signed())
        && (from.width() < to.width()
            || (from.width() == to.width() && from.is_unsigned() == to.is_unsigned()))
}

/// The kernel that turns a bitmap into numbers 0 and 1.
pub fn bool_to_prim(p: Prim, level: Level) -> TileFn {
    with_prim!(p, T => tile_fn::<FromBits<T>>(level))
}

/// The kernel that writes the bitmap of values other than zero (NaN is other than zero).
pub fn prim_to_bool(p: Prim, level: Level) -> TileFn {
    with_prim!(p, T => bitmap_fn::<IsNonZero<T>>(level))
}

struct Cast<F, T>(PhantomData<(F, T)>);

impl<F: As<T>, T: Native> Kernel for Cast<F, T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let a = src[0];
        for i in 0..rows {
            // SAFETY: i < rows, and operand and destination have `rows` values.
            unsafe { store::<T>(dst, i, load::<F>(a, i).to()) }
        }
    }
}

struct FromBits<T>(PhantomData<T>);

impl<T: Native> Kernel for FromBits<T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let a = src[0];
        for w in 0..rows.div_ceil(64) {
            // SAFETY: 64 * w < rows.
            let word = unsafe { load_bits(a, w, rows) };
            if rows - 64 * w >= 64 {
                for j in 0..64 {
                    let v = if word >> j & 1 != 0 { T::ONE } else { T::ZERO };
                    // SAFETY: 64 * w + j < rows.
                    unsafe { store::<T>(dst, 64 * w + j, v) }
                }
            } else {
                for j in 0..rows - 64 * w {
                    let v = if word >> j & 1 != 0 { T::ONE } else { T::ZERO };
                    // SAFETY: 64 * w + j < rows.
                    unsafe { store::<T>(dst, 64 * w + j, v) }
                }
            }
        }
    }
}

struct IsNonZero<T>(PhantomData<T>);

impl<T: Native> Test for IsNonZero<T> {
    #[inline(always)]
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool {
        // SAFETY: i < rows.
        unsafe { load::<T>(src[0], i) != T::ZERO }
    }
}

struct Fits<F, T>(PhantomData<(F, T)>);

impl<F: FitsIn<T>, T> Test for Fits<F, T> {
    #[inline(always)]
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool {
        // SAFETY: i < rows.
        unsafe { load::<F>(src[0], i) }.fits()
    }
}

/// Conversion with `as`.
trait As<T>: Native {
    fn to(self) -> T;
}

macro_rules! as_all {
    ($($f:ident),* => $to:tt) => { $(as_all!(@ $f => $to);)* };
    (@ $f:ident => ($($t:ident),*)) => {$(
        impl As<$t> for $f {
            #[inline(always)]
            #[allow(clippy::unnecessary_cast)]
            fn to(self) -> $t { self as $t }
        }
    )*};
}
as_all!(i8, i16, i32, i64, u8, u16, u32, u64 => (i8, i16, i32, i64, u8, u16, u32, u64, f32, f64));
as_all!(f32, f64 => (f32, f64));

macro_rules! truncate_all {
    ($($f:ident),* => $to:tt) => { $(truncate_all!(@ $f => $to);)* };
    (@ $f:ident => ($($t:ident),*)) => {$(
        impl As<$t> for $f {
            /// The same as `self as $t`, which LLVM does not vectorise, in selects, which it does.
            #[inline(always)]
            fn to(self) -> $t {
                const MIN: $f = <$t>::MIN as $f;
                const PAST_MAX: $f = (<$t>::MAX / 2 + 1) as $f * 2.0;
                let inside = (MIN..PAST_MAX).contains(&self);
                let safe = if inside { self } else { 0.0 };
                // SAFETY: 0, or not below the least and below one past the greatest value.
                let truncated = unsafe { safe.to_int_unchecked::<$t>() };
                let high = if self >= PAST_MAX { <$t>::MAX } else { truncated };
                if self < MIN { <$t>::MIN } else { high }
            }
        }
    )*};
}
truncate_all!(f32, f64 => (i8, i16, i32, i64, u8, u16, u32, u64));

/// Is the value, truncated, one of the integer type `T`?
trait FitsIn<T>: Native {
    fn fits(self) -> bool;
}

macro_rules! integers_fit {
    ($($f:ident),*) => { $(integers_fit!(@ $f => i8, i16, i32, i64, u8, u16, u32, u64);)* };
    (@ $f:ident => $($t:ident),*) => {$(
        impl FitsIn<$t> for $f {
            #[inline(always)]
            #[allow(clippy::unnecessary_cast, unused_comparisons)]
            fn fits(self) -> bool {
                let there = self as $t;
                there as $f == self && (there < 0) == (self < 0)
            }
        }
    )*};
}
integers_fit!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! floats_fit {
    ($($f:ident),*) => { $(floats_fit!(@ $f => i8, i16, i32, i64, u8, u16, u32, u64);)* };
    (@ $f:ident => $($t:ident),*) => {$(
        impl FitsIn<$t> for $f {
            #[inline(always)]
            fn fits(self) -> bool {
                // Both ends are powers of two (or 0), exact in either float type.
                const MIN: $f = <$t>::MIN as $f;
                const PAST_MAX: $f = (<$t>::MAX / 2 + 1) as $f * 2.0;
                // MIN - 0.9 truncates to MIN; where MIN - 1 rounds to MIN nothing lies between.
                const BELOW_MIN: $f = MIN - 1.0;
                (if BELOW_MIN < MIN { self > BELOW_MIN } else { self >= MIN }) && self < PAST_MAX
            }
        }
    )*};
}
floats_fit!(f32, f64);
