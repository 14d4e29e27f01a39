//! Arithmetic of two columns, and the bitmaps of rows for which it has no answer.

use super::compare::{Test, bitmap_fn};
use super::mem::{load, store};
use super::{Kernel, TileFn, tile_fn};
use crate::level::{BASELINE, Level};
use crate::prim::{Native, Prim, with_float, with_int, with_prim};
use std::marker::PhantomData;

/// An arithmetic operator on two operands of one type, with a result of that type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arith {
    /// left + right; integers wrap.
    Add,
    /// left - right; integers wrap.
    Sub,
    /// right - left; integers wrap.
    RSub,
    /// left * right; integers wrap.
    Mul,
    /// left / right, floats only.
    Div,
    /// The quotient rounded down, as in Python and NumPy. Integers: by zero gives 0 (see
    /// [`div_valid`]), the minimum by -1 wraps to itself.
    FloorDiv,
    /// The remainder with the sign of the divisor, as in Python and NumPy. Integers: by zero gives
    /// 0 (see [`div_valid`]), by -1 gives 0.
    Mod,
}

impl Arith {
    /// Every operator.
    pub const ALL: [Arith; 7] =
        [Arith::Add, Arith::Sub, Arith::RSub, Arith::Mul, Arith::Div, Arith::FloorDiv, Arith::Mod];
}

/// The kernel `dst = left op right`. `None`: [`Arith::Div`] on integers.
pub fn arith(op: Arith, p: Prim, level: Level) -> Option<TileFn> {
    fn of<O: Binary<T>, T: Native>(level: Level) -> TileFn {
        tile_fn::<Map<O, T>>(level)
    }
    Some(match op {
        Arith::Add => with_prim!(p, T => of::<Add, T>(level)),
        Arith::Sub => with_prim!(p, T => of::<Sub, T>(level)),
        Arith::RSub => with_prim!(p, T => of::<RSub, T>(level)),
        Arith::Mul => with_prim!(p, T => of::<Mul, T>(level)),
        Arith::Div => return with_float!(p, T => of::<Div, T>(level)),
        Arith::FloorDiv => {
            return with_int!(p, T => of::<FloorDiv, T>(level))
                .or(with_float!(p, T => tile_fn::<Floored<T, false>>(level)));
        }
        Arith::Mod => {
            return with_int!(p, T => of::<Mod, T>(level))
                .or(with_float!(p, T => tile_fn::<Floored<T, true>>(level)));
        }
    })
}

/// The bitmap of rows whose divisor (operand 1) is not zero. `None` for floats: they divide by
/// zero.
pub fn div_valid(p: Prim, level: Level) -> Option<TileFn> {
    with_int!(p, T => bitmap_fn::<NonZero<T>>(level))
}

/// The bitmap of rows for which an operator leaves the range of its integer type: for Add, Sub,
/// RSub and Mul where wrapping differs from the exact result, for FloorDiv the minimum by -1.
/// `None`: it cannot happen (floats, Mod).
pub fn overflows(op: Arith, p: Prim, level: Level) -> Option<TileFn> {
    match op {
        Arith::Add => with_int!(p, T => bitmap_fn::<Overflows<Add, T>>(level)),
        Arith::Sub => with_int!(p, T => bitmap_fn::<Overflows<Sub, T>>(level)),
        Arith::RSub => with_int!(p, T => bitmap_fn::<Overflows<RSub, T>>(level)),
        Arith::Mul => with_int!(p, T => bitmap_fn::<Overflows<Mul, T>>(level)),
        Arith::FloorDiv if p.is_signed() => {
            with_int!(p, T => bitmap_fn::<Overflows<FloorDiv, T>>(level))
        }
        Arith::FloorDiv | Arith::Div | Arith::Mod => None,
    }
}

/// A scalar function of two values.
pub(super) trait Binary<T> {
    fn apply(a: T, b: T) -> T;
}

/// A scalar test whether [`Binary::apply`] would leave the type's range.
trait Checked<T> {
    fn overflows(a: T, b: T) -> bool;
}

/// The kernel of a [`Binary`].
pub(super) struct Map<O, T>(PhantomData<(O, T)>);

impl<O: Binary<T>, T: Native> Kernel for Map<O, T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [a, b, ..] = *src;
        for i in 0..rows {
            // SAFETY: i < rows, and operands and destination have `rows` values.
            unsafe { store::<T>(dst, i, O::apply(load(a, i), load(b, i))) }
        }
    }
}

struct NonZero<T>(PhantomData<T>);

impl<T: Native> Test for NonZero<T> {
    #[inline(always)]
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool {
        // SAFETY: i < rows.
        unsafe { load::<T>(src[1], i) != T::ZERO }
    }
}

struct Overflows<O, T>(PhantomData<(O, T)>);

impl<O: Checked<T>, T: Native> Test for Overflows<O, T> {
    #[inline(always)]
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool {
        // SAFETY: i < rows.
        unsafe { O::overflows(load(src[0], i), load(src[1], i)) }
    }
}

pub(super) struct Add;
pub(super) struct Sub;
pub(super) struct RSub;
pub(super) struct Mul;
struct Div;
pub(super) struct FloorDiv;
struct Mod;

macro_rules! wrapping {
    ($($t:ty),*) => {$(
        impl Binary<$t> for Add {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a.wrapping_add(b) }
        }
        impl Binary<$t> for Sub {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a.wrapping_sub(b) }
        }
        impl Binary<$t> for RSub {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { b.wrapping_sub(a) }
        }
        impl Binary<$t> for Mul {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a.wrapping_mul(b) }
        }
        // By signs and order: LLVM does not vectorise `overflowing_add`.
        impl Checked<$t> for Add {
            #[inline(always)]
            #[allow(unused_comparisons)]
            fn overflows(a: $t, b: $t) -> bool {
                let r = a.wrapping_add(b);
                if <$t>::MIN == 0 { r < a } else { ((a ^ r) & (b ^ r)) < 0 }
            }
        }
        impl Checked<$t> for Sub {
            #[inline(always)]
            #[allow(unused_comparisons)]
            fn overflows(a: $t, b: $t) -> bool {
                let r = a.wrapping_sub(b);
                if <$t>::MIN == 0 { a < b } else { ((a ^ b) & (a ^ r)) < 0 }
            }
        }
        impl Checked<$t> for RSub {
            #[inline(always)]
            fn overflows(a: $t, b: $t) -> bool { <Sub as Checked<$t>>::overflows(b, a) }
        }
        impl Checked<$t> for Mul {
            #[inline(always)]
            fn overflows(a: $t, b: $t) -> bool { a.overflowing_mul(b).1 }
        }
    )*};
}
wrapping!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! signed_division {
    ($($t:ty => $quotient:path),*) => {$(
        impl Binary<$t> for FloorDiv {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                // 0 and -1 take no part in the division, so that nothing can trap or overflow.
                let d = if b == 0 || b == -1 { 1 } else { b };
                let q = $quotient(a, d);
                let r = a.wrapping_sub(q.wrapping_mul(d));
                let floored = if r != 0 && (r ^ d) < 0 { q.wrapping_sub(1) } else { q };
                let by_minus_one = if b == -1 { a.wrapping_neg() } else { floored };
                if b == 0 { 0 } else { by_minus_one }
            }
        }
        impl Binary<$t> for Mod {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                // By 1 as by -1 the remainder is 0, and so it is said to be by 0.
                let d = if b == 0 || b == -1 { 1 } else { b };
                let r = a.wrapping_sub($quotient(a, d).wrapping_mul(d));
                if r != 0 && (r ^ d) < 0 { r.wrapping_add(d) } else { r }
            }
        }
        impl Checked<$t> for FloorDiv {
            #[inline(always)]
            fn overflows(a: $t, b: $t) -> bool { a == <$t>::MIN && b == -1 }
        }
    )*};
}
signed_division!(i8 => narrow::i8, i16 => narrow::i16, i32 => narrow::i32, i64 => i64::wrapping_div);

macro_rules! unsigned_division {
    ($($t:ty => $quotient:path),*) => {$(
        impl Binary<$t> for FloorDiv {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                let q = $quotient(a, if b == 0 { 1 } else { b });
                if b == 0 { 0 } else { q }
            }
        }
        impl Binary<$t> for Mod {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                let d = if b == 0 { 1 } else { b };
                a.wrapping_sub($quotient(a, d).wrapping_mul(d))
            }
        }
        // Never looked up; it keeps the lookup one expression for all integers.
        impl Checked<$t> for FloorDiv {
            #[inline(always)]
            fn overflows(_: $t, _: $t) -> bool { false }
        }
    )*};
}
unsigned_division!(u8 => narrow::u8, u16 => narrow::u16, u32 => narrow::u32, u64 => u64::wrapping_div);

/// Truncating division of integers up to 32 bits by way of floats, which vectorise where integer
/// division does not. Exact: two different quotients a/b of 32-bit integers, or one and an integer
/// between, differ by at least 2^-31 of their size, a thousand times more than an f64 rounds by
/// (and for 16 bits by 2^-15, where an f32 rounds by 2^-24).
mod narrow {
    macro_rules! by_way_of {
        ($($t:ident => $f:ty),*) => {$(
            #[inline(always)]
            pub(super) fn $t(a: $t, d: $t) -> $t {
                let q = a as $f / d as $f;
                // SAFETY: d is neither 0 nor -1 (callers replace them), so |q| <= |a|, and it has
                // the sign that makes it a value of the type.
                unsafe { q.to_int_unchecked::<$t>() }
            }
        )*};
    }
    by_way_of!(i8 => f32, i16 => f32, i32 => f64, u8 => f32, u16 => f32, u32 => f64);
}

macro_rules! float {
    ($($t:ty),*) => {$(
        impl Binary<$t> for Add {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a + b }
        }
        impl Binary<$t> for Sub {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a - b }
        }
        impl Binary<$t> for RSub {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { b - a }
        }
        impl Binary<$t> for Mul {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a * b }
        }
        impl Binary<$t> for Div {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a / b }
        }
        impl Division for $t {
            #[inline(always)]
            fn exact(self, d: $t) -> ($t, $t) {
                let m = self % d;
                let q = (self - m) / d;
                let down = q.floor();
                (if q - down > 0.5 { down + 1.0 } else { down }, m)
            }
            #[inline(always)]
            fn quick(self, d: $t) -> ($t, $t, bool) {
                // The limit leaves the quotient's rounding errors far below one half.
                const LIMIT: $t = (1u64 << (<$t>::MANTISSA_DIGITS - 4)) as $t;
                let near = self / d;
                let easy = near.abs() < LIMIT && d.abs() < <$t>::INFINITY;
                let mut q = near.trunc();
                // One rounding of an exactly representable difference: exact, whichever q is off
                // by one. (So this mul_add changes no bit, and breaks no rule against contraction.)
                let mut m = (-q).mul_add(d, self);
                // The quotient had been rounded up to an integer.
                let over = m != 0.0 && (m < 0.0) != (self < 0.0);
                q = if over { q - (1.0 as $t).copysign(near) } else { q };
                m = if over { m + d.abs().copysign(self) } else { m };
                (q, m, easy)
            }
            #[inline(always)]
            fn floored(self, d: $t, q: $t, m: $t) -> ($t, $t) {
                let down = m != 0.0 && (d < 0.0) != (m < 0.0);
                let q = if down { q - 1.0 } else { q };
                let m = if down { m + d } else { m };
                // Zeros have the sign of a / d and of d.
                let zero = (0.0 as $t).copysign(self) * (1.0 as $t).copysign(d);
                let by_zero = self / d;
                let q = if q == 0.0 { zero } else { q };
                (if d == 0.0 { by_zero } else { q }, if m == 0.0 { (0.0 as $t).copysign(d) } else { m })
            }
        }
    )*};
}
float!(f32, f64);

/// Floor division of floats as Python and NumPy do it: from the exact remainder, not floor(a / b),
/// which is wrong where the quotient rounds up to an integer (1.0 // 0.1 is 9).
trait Division: Native {
    /// Truncated quotient and remainder, by `fmod`: any operands, slow.
    fn exact(self, d: Self) -> (Self, Self);
    /// The same in straight-line code, and whether the operands are ones for which it holds.
    fn quick(self, d: Self) -> (Self, Self, bool);
    /// Floored from truncated quotient and remainder.
    fn floored(self, d: Self, q: Self, m: Self) -> (Self, Self);
}

/// The kernel of floats' FloorDiv (or, with REMAINDER, Mod): a flat loop that vectorises, then the
/// rows that it could not do (huge quotients, infinities, zero divisors) one by one. A row's result
/// depends on that row only.
struct Floored<T, const REMAINDER: bool>(PhantomData<T>);

impl<T: Division, const REMAINDER: bool> Kernel for Floored<T, REMAINDER> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [a, b, ..] = *src;
        let pick = |(q, m): (T, T)| if REMAINDER { m } else { q };
        let mut hard = L == BASELINE;
        if !hard {
            for i in 0..rows {
                // SAFETY: i < rows, and operands and destination have `rows` values.
                unsafe {
                    let (x, d) = (load::<T>(a, i), load::<T>(b, i));
                    let (q, m, easy) = x.quick(d);
                    hard |= !easy;
                    store::<T>(dst, i, pick(x.floored(d, q, m)));
                }
            }
        }
        if hard {
            for i in 0..rows {
                // SAFETY: as above.
                unsafe {
                    let (x, d) = (load::<T>(a, i), load::<T>(b, i));
                    // Without FMA in the instruction set `quick` is a call, and not quick.
                    if L == BASELINE || !x.quick(d).2 {
                        let (q, m) = x.exact(d);
                        store::<T>(dst, i, pick(x.floored(d, q, m)));
                    }
                }
            }
        }
    }
}
