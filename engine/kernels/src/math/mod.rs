//! Transcendental functions of f64 and f32, as tile kernels.
//!
//! Accuracy: every result is within 2 units in the last place of the exact one, powers within 4,
//! over the whole range of arguments, at every level; results that are subnormal are within as
//! many of the smallest subnormal. Signs of zeros, infinities and NaN are those of IEEE 754 and
//! C99, as in NumPy.
//!
//! Same bits: a lane's result depends on that lane's argument only, never on its neighbours. v3 and
//! v4 agree bit for bit: both evaluate the same operations in the same order, with FMA. A baseline
//! without FMA evaluates the same formulas with two roundings in the place of one, and may differ
//! in the last bits. These functions, with [`fma`] and [`two_prod`] below, are the only place where
//! multiplications and additions are contracted; no exact operation is.
//!
//! Each function is straight-line code on one value, which LLVM vectorises in the flat loop of
//! [`Map`]: choices are selects between values that are computed anyway, integers are 64 bits wide
//! and only shifted logically, and nothing is looked up in memory. A function that has arguments it
//! cannot do that way marks them rare; those lanes are done one by one in a second pass.

mod exp;
mod huge;
mod hyperbolic;
mod inverse;
mod log;
mod pow;
#[cfg(test)]
mod reference;
mod roots;
#[cfg(test)]
mod tests;
mod trig;

use std::marker::PhantomData;

use crate::level::{Level, V3};
use crate::prim::{Native, Prim, with_float};
use crate::tile::mem::{load, store};
use crate::tile::{Kernel, TileFn, tile_fn};

/// A function of one float.
pub(crate) trait Function<T> {
    /// The value, in straight-line code. `FMA`: the level has fused multiply-add.
    fn value<const FMA: bool>(x: T) -> T;
    /// Is the argument one that [`Function::value`] is not right for?
    #[inline(always)]
    fn is_rare(_: T) -> bool {
        false
    }
    /// The value of a rare argument, by whatever code it takes.
    #[inline(always)]
    fn rare(x: T) -> T {
        x
    }
}

/// A function of two floats.
pub(crate) trait Function2<T> {
    /// The value, in straight-line code. `FMA`: the level has fused multiply-add.
    fn value<const FMA: bool>(x: T, y: T) -> T;
}

/// Do loops at level `level` have fused multiply-add in their instruction set?
const fn fused(level: u8) -> bool {
    level >= V3 || cfg!(any(target_feature = "fma", target_arch = "aarch64"))
}

/// The kernel of a [`Function`].
struct Map<F, T>(PhantomData<(F, T)>);

impl<F: Function<T>, T: Native> Kernel for Map<F, T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let a = src[0];
        let mut rare = false;
        for i in 0..rows {
            // SAFETY: i < rows, and operand and destination have `rows` values.
            unsafe {
                let x = load::<T>(a, i);
                rare |= F::is_rare(x);
                let v = if fused(L) { F::value::<true>(x) } else { F::value::<false>(x) };
                store::<T>(dst, i, v);
            }
        }
        if rare {
            for i in 0..rows {
                // SAFETY: as above.
                unsafe {
                    let x = load::<T>(a, i);
                    if F::is_rare(x) {
                        store::<T>(dst, i, F::rare(x));
                    }
                }
            }
        }
    }
}

/// The kernel of a [`Function2`].
struct Map2<F, T>(PhantomData<(F, T)>);

impl<F: Function2<T>, T: Native> Kernel for Map2<F, T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [a, b, ..] = *src;
        for i in 0..rows {
            // SAFETY: i < rows, and operands and destination have `rows` values.
            unsafe {
                let (x, y) = (load::<T>(a, i), load::<T>(b, i));
                let v = if fused(L) { F::value::<true>(x, y) } else { F::value::<false>(x, y) };
                store::<T>(dst, i, v);
            }
        }
    }
}

/// Implements [`Function`] of one type: `function!(Name f64 = family::name)`, with the rare
/// arguments and what does them after it if there are any: `[is_rare => rare]`.
macro_rules! function {
    ($name:ident $t:ident = $family:ident :: $f:ident $([$is:path => $rare:path])?) => {
        impl Function<$t> for $name {
            #[inline(always)]
            fn value<const FMA: bool>(x: $t) -> $t {
                $family::$f::<FMA>(x)
            }
            $(
                #[inline(always)]
                fn is_rare(x: $t) -> bool {
                    $is(x)
                }
                #[inline(always)]
                fn rare(x: $t) -> $t {
                    $rare(x)
                }
            )?
        }
    };
}

/// Declares the functions of one value: the enum, its `ALL`, the lookup of their kernels. A row is
/// `Name (f64's function) (f32's function);`, each as [`function`] takes it.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident ($($f64:tt)*) ($($f32:tt)*);)*) => {
        /// A transcendental function of one float. Within 2 units in the last place.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Math {
            $($(#[$doc])* $name,)*
        }

        impl Math {
            /// Every function.
            pub const ALL: &[Math] = &[$(Math::$name),*];
        }

        /// The kernel of a function. `None`: the type is not a float.
        pub fn math(op: Math, p: Prim, level: Level) -> Option<TileFn> {
            $(
                struct $name;
                function!($name f64 = $($f64)*);
                function!($name f32 = $($f32)*);
            )*
            match op {
                $(Math::$name => with_float!(p, T => tile_fn::<Map<$name, T>>(level)),)*
            }
        }
    };
}

/// As `functions`, of two values.
macro_rules! functions2 {
    ($($(#[$doc:meta])* $name:ident ($m64:ident :: $f64:ident) ($m32:ident :: $f32:ident);)*) => {
        /// A transcendental function of two floats. Within 2 units in the last place; powers 4.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Math2 {
            $($(#[$doc])* $name,)*
        }

        impl Math2 {
            /// Every function.
            pub const ALL: &[Math2] = &[$(Math2::$name),*];
        }

        /// The kernel of a function of two values. `None`: the type is not a float.
        pub fn math2(op: Math2, p: Prim, level: Level) -> Option<TileFn> {
            $(
                struct $name;
                impl Function2<f64> for $name {
                    #[inline(always)]
                    fn value<const FMA: bool>(x: f64, y: f64) -> f64 {
                        $m64::$f64::<FMA>(x, y)
                    }
                }
                impl Function2<f32> for $name {
                    #[inline(always)]
                    fn value<const FMA: bool>(x: f32, y: f32) -> f32 {
                        $m32::$f32::<FMA>(x, y)
                    }
                }
            )*
            match op {
                $(Math2::$name => with_float!(p, T => tile_fn::<Map2<$name, T>>(level)),)*
            }
        }
    };
}

functions! {
    /// e^x.
    Exp (exp::exp) (exp::exp_f32);
    /// 2^x.
    Exp2 (exp::exp2) (exp::exp2_f32);
    /// e^x - 1.
    Expm1 (exp::expm1) (exp::expm1_f32);
    /// The natural logarithm.
    Log (log::log) (log::log_f32);
    /// The logarithm to base 2.
    Log2 (log::log2) (log::log2_f32);
    /// The logarithm to base 10.
    Log10 (log::log10) (log::log10_f32);
    /// log(1 + x).
    Log1p (log::log1p) (log::log1p_f32);
    /// The hyperbolic sine.
    Sinh (hyperbolic::sinh) (hyperbolic::sinh_f32);
    /// The hyperbolic cosine.
    Cosh (hyperbolic::cosh) (hyperbolic::cosh_f32);
    /// The hyperbolic tangent.
    Tanh (hyperbolic::tanh) (hyperbolic::tanh_f32);
    /// The inverse hyperbolic sine.
    Asinh (hyperbolic::asinh) (hyperbolic::asinh_f32);
    /// The inverse hyperbolic cosine.
    Acosh (hyperbolic::acosh) (hyperbolic::acosh_f32);
    /// The inverse hyperbolic tangent.
    Atanh (hyperbolic::atanh) (hyperbolic::atanh_f32);
    /// The sine of an angle in radians.
    Sin (trig::sin [trig::is_huge => trig::huge_sin])
        (trig::sin_f32 [trig::is_huge_f32 => trig::huge_sin_f32]);
    /// The cosine.
    Cos (trig::cos [trig::is_huge => trig::huge_cos])
        (trig::cos_f32 [trig::is_huge_f32 => trig::huge_cos_f32]);
    /// The tangent.
    Tan (trig::tan [trig::is_huge => trig::huge_tan])
        (trig::tan_f32 [trig::is_huge_f32 => trig::huge_tan_f32]);
    /// The angle from -pi/2 to pi/2 with that sine.
    Asin (inverse::asin) (inverse::asin_f32);
    /// The angle from 0 to pi with that cosine.
    Acos (inverse::acos) (inverse::acos_f32);
    /// The angle from -pi/2 to pi/2 with that tangent.
    Atan (inverse::atan) (inverse::atan_f32);
    /// The cube root.
    Cbrt (roots::cbrt) (roots::cbrt_f32);
    /// Radians to degrees.
    Degrees (trig::degrees) (trig::degrees_f32);
    /// Degrees to radians.
    Radians (trig::radians) (trig::radians_f32);
}

functions2! {
    /// x^y.
    Pow (pow::pow) (pow::pow_f32);
    /// The angle from -pi to pi of the point (x, y), whose ordinate comes first: atan2(y, x).
    Atan2 (inverse::atan2) (inverse::atan2_f32);
    /// The hypotenuse.
    Hypot (roots::hypot) (roots::hypot_f32);
}

/// `a * b + c`: rounded once where there is FMA, twice where there is not.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The product, and what it was rounded by. Exact for operands below 2^990 whose product is not
/// nearly subnormal.
#[inline(always)]
pub(crate) fn two_prod<const FMA: bool>(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    if FMA {
        (p, a.mul_add(b, -p))
    } else {
        // Dekker's: halves of 26 bits have exact products.
        let ((ah, al), (bh, bl)) = (halves(a), halves(b));
        (p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)
    }
}

/// The value as the sum of two of at most 26 bits (Veltkamp).
#[inline(always)]
fn halves(a: f64) -> (f64, f64) {
    let c = a * 134_217_729.0; // 2^27 + 1
    let high = c - (c - a);
    (high, a - high)
}

/// The sum, and what it was rounded by, if |a| >= |b| or a is 0 (Dekker).
#[inline(always)]
pub(crate) fn fast_two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    (s, b - (s - a))
}

/// The sum, and what it was rounded by (Knuth).
#[inline(always)]
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

/// The polynomial `c[0] + c[1] x + ...`, by Horner's rule on even and odd powers apart: half the
/// latency for one multiplication more.
#[inline(always)]
pub(crate) fn poly<const FMA: bool, const N: usize>(x: f64, c: &[f64; N]) -> f64 {
    let y = x * x;
    let (mut even, mut odd) = (0.0, 0.0);
    let mut i = N;
    while i > 0 {
        i -= 1;
        let sum = if i.is_multiple_of(2) { &mut even } else { &mut odd };
        *sum = if i + 2 < N { fma::<FMA>(*sum, y, c[i]) } else { c[i] };
    }
    if N > 1 { fma::<FMA>(odd, x, even) } else { even }
}
