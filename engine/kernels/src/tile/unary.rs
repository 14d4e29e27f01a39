//! Functions of one column.

use super::compare::{Test, bitmap_fn};
use super::mem::{load, store};
use super::{Kernel, TileFn, tile_fn};
use crate::level::Level;
use crate::prim::{Native, Prim, with_float, with_int, with_prim};
use std::marker::PhantomData;

/// A function of one value. Those from [`Unary::IsNan`] on write a bitmap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unary {
    /// -x; integers wrap (also unsigned ones).
    Neg,
    /// |x|; the minimum of an integer wraps to itself.
    Abs,
    /// -1, 0 or 1 in the type of x; NaN stays NaN, zeros keep their sign.
    Sign,
    /// Square root; floats only.
    Sqrt,
    /// Rounded down; floats only.
    Floor,
    /// Rounded up; floats only.
    Ceil,
    /// Rounded towards zero; floats only.
    Trunc,
    /// Rounded to the nearest integer, halves to even as NumPy does; floats only.
    Round,
    /// Bitwise complement; integers only.
    Invert,
    /// How many bits are set; integers only.
    CountOnes,
    /// How many bits are zero above the highest one set; integers only.
    LeadingZeros,
    /// How many bits are zero below the lowest one set; integers only.
    TrailingZeros,
    /// x is NaN; floats only.
    IsNan,
    /// x is neither NaN nor infinite; floats only.
    IsFinite,
    /// x is infinite; floats only.
    IsInfinite,
    /// -x leaves the integer type's range; signed integers only. (For unsigned ones: x is not 0.)
    NegOverflows,
    /// |x| leaves the integer type's range; signed integers only.
    AbsOverflows,
}

impl Unary {
    /// Every function.
    pub const ALL: [Unary; 17] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Sqrt,
        Unary::Floor,
        Unary::Ceil,
        Unary::Trunc,
        Unary::Round,
        Unary::Invert,
        Unary::CountOnes,
        Unary::LeadingZeros,
        Unary::TrailingZeros,
        Unary::IsNan,
        Unary::IsFinite,
        Unary::IsInfinite,
        Unary::NegOverflows,
        Unary::AbsOverflows,
    ];

    /// Does it write a bitmap instead of values?
    pub const fn is_test(self) -> bool {
        matches!(
            self,
            Unary::IsNan
                | Unary::IsFinite
                | Unary::IsInfinite
                | Unary::NegOverflows
                | Unary::AbsOverflows
        )
    }
}

/// The kernel of a function. `None`: it is not one of the type. (For `Floor` and the like on
/// integers the answer is the operand, `IsNan` is false: the compiler of programs knows.)
pub fn unary(op: Unary, p: Prim, level: Level) -> Option<TileFn> {
    match op {
        Unary::Neg => Some(with_prim!(p, T => tile_fn::<Map<Neg, T>>(level))),
        Unary::Abs => Some(with_prim!(p, T => tile_fn::<Map<Abs, T>>(level))),
        Unary::Sign => Some(with_prim!(p, T => tile_fn::<Map<Sign, T>>(level))),
        Unary::Sqrt => with_float!(p, T => tile_fn::<Map<Sqrt, T>>(level)),
        Unary::Floor => with_float!(p, T => tile_fn::<Map<Floor, T>>(level)),
        Unary::Ceil => with_float!(p, T => tile_fn::<Map<Ceil, T>>(level)),
        Unary::Trunc => with_float!(p, T => tile_fn::<Map<Trunc, T>>(level)),
        Unary::Round => with_float!(p, T => tile_fn::<Map<Round, T>>(level)),
        Unary::Invert => with_int!(p, T => tile_fn::<Map<Invert, T>>(level)),
        Unary::CountOnes => with_int!(p, T => tile_fn::<Map<CountOnes, T>>(level)),
        Unary::LeadingZeros => with_int!(p, T => tile_fn::<Map<LeadingZeros, T>>(level)),
        Unary::TrailingZeros => with_int!(p, T => tile_fn::<Map<TrailingZeros, T>>(level)),
        Unary::IsNan => with_float!(p, T => bitmap_fn::<Is<IsNan, T>>(level)),
        Unary::IsFinite => with_float!(p, T => bitmap_fn::<Is<IsFinite, T>>(level)),
        Unary::IsInfinite => with_float!(p, T => bitmap_fn::<Is<IsInfinite, T>>(level)),
        Unary::NegOverflows => with_int!(p, T => bitmap_fn::<Is<NegOverflows, T>>(level)),
        Unary::AbsOverflows if p.is_signed() => {
            with_int!(p, T => bitmap_fn::<Is<AbsOverflows, T>>(level))
        }
        Unary::AbsOverflows => None,
    }
}

trait Function<T> {
    fn apply(x: T) -> T;
}

trait Question<T> {
    fn ask(x: T) -> bool;
}

struct Map<O, T>(PhantomData<(O, T)>);

impl<O: Function<T>, T: Native> Kernel for Map<O, T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let a = src[0];
        for i in 0..rows {
            // SAFETY: i < rows, and operand and destination have `rows` values.
            unsafe { store::<T>(dst, i, O::apply(load(a, i))) }
        }
    }
}

struct Is<Q, T>(PhantomData<(Q, T)>);

impl<Q: Question<T>, T: Native> Test for Is<Q, T> {
    #[inline(always)]
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool {
        // SAFETY: i < rows.
        Q::ask(unsafe { load(src[0], i) })
    }
}

macro_rules! function {
    ($name:ident for $($t:ty),* : $x:ident => $e:expr) => {$(
        impl Function<$t> for $name {
            #[inline(always)]
            fn apply($x: $t) -> $t { $e }
        }
    )*};
}

macro_rules! question {
    ($name:ident for $($t:ty),* : $x:ident => $e:expr) => {$(
        impl Question<$t> for $name {
            #[inline(always)]
            fn ask($x: $t) -> bool { $e }
        }
    )*};
}

struct Neg;
struct Abs;
struct Sign;
struct Sqrt;
struct Floor;
struct Ceil;
struct Trunc;
struct Round;
struct Invert;
struct CountOnes;
struct LeadingZeros;
struct TrailingZeros;
struct IsNan;
struct IsFinite;
struct IsInfinite;
struct NegOverflows;
struct AbsOverflows;

function!(Neg for i8, i16, i32, i64, u8, u16, u32, u64: x => x.wrapping_neg());
function!(Neg for f32, f64: x => -x);
function!(Abs for i8, i16, i32, i64: x => x.wrapping_abs());
function!(Abs for u8, u16, u32, u64: x => x);
function!(Abs for f32, f64: x => x.abs());
function!(Sign for i8, i16, i32, i64: x => x.signum());
function!(Sign for u8, u16, u32, u64: x => if x == 0 { 0 } else { 1 });
// Zeros and NaN are themselves.
function!(Sign for f32, f64: x => if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x });
function!(Sqrt for f32, f64: x => x.sqrt());
function!(Floor for f32, f64: x => x.floor());
function!(Ceil for f32, f64: x => x.ceil());
function!(Trunc for f32, f64: x => x.trunc());
function!(Round for f32, f64: x => x.round_ties_even());
function!(Invert for i8, i16, i32, i64, u8, u16, u32, u64: x => !x);
function!(CountOnes for i8, i16, i32, i64, u8, u16, u32, u64: x => x.count_ones() as _);
function!(LeadingZeros for i8, i16, i32, i64, u8, u16, u32, u64: x => x.leading_zeros() as _);
function!(TrailingZeros for i8, i16, i32, i64, u8, u16, u32, u64: x => x.trailing_zeros() as _);
question!(IsNan for f32, f64: x => x.is_nan());
question!(IsFinite for f32, f64: x => x.is_finite());
question!(IsInfinite for f32, f64: x => x.is_infinite());
question!(NegOverflows for i8, i16, i32, i64, u8, u16, u32, u64: x => x.overflowing_neg().1);
question!(AbsOverflows for i8, i16, i32, i64: x => x.overflowing_abs().1);
// Never looked up; it keeps the lookup one expression for all integers.
question!(AbsOverflows for u8, u16, u32, u64: _x => false);
