//! sinh, cosh, tanh and their inverses.
//!
//! With x = k ln 2 + r, sinh x = sinh(k ln 2) cosh r + cosh(k ln 2) sinh r, and likewise cosh x: the
//! factors of k are (2^k -+ 2^-k) / 2, those of r an even and an odd polynomial. No division, and no
//! cancellation that is not made good.

use super::exp::{Whole, both_f32, clamp, reduce};
use super::log::{log_one_plus, short_one_plus};
use super::{fast_two_sum, fma, poly, two_prod, two_sum};

/// What sinh and cosh of x = k ln 2 + r, x >= 0, are made of.
struct Parts {
    k: Whole,
    /// 4^-k, or what is as small beside 1.
    fourth: f64,
    r: f64,
    /// sinh(r) - r, with what r was rounded by.
    s: f64,
    /// cosh(r) - 1.
    c: f64,
}

#[inline(always)]
fn parts<const FMA: bool>(x: f64) -> Parts {
    // By the Remez algorithm, rounded last of all; off by at most 2^-61.6 of r.
    const S: [f64; 5] = [
        0.16666666666666677,
        0.008333333333321386,
        0.0001984126988681651,
        2.7557243456297095e-06,
        2.510931480577671e-08,
    ];
    // By the Remez algorithm, rounded last of all; off by at most 2^-69.9 of 1.
    const C: [f64; 6] = [
        0.5,
        0.041666666666666685,
        0.0013888888888873283,
        2.48015873492021e-05,
        2.755725181989289e-07,
        2.0921769687190534e-09,
    ];
    let (k, r, low) = reduce::<FMA>(x);
    let z = r * r;
    let s = fma::<FMA>(r * z, poly::<FMA, _>(z, &S), low);
    // What is below 4^-32 beside 1 changes nothing.
    let fourth = k.at_most(32.0).inverse_power(2);
    Parts { k, fourth, r, s, c: z * poly::<FMA, _>(z, &C) }
}

impl Parts {
    /// 2 sinh(x) / 2^k as the sum of two numbers: (1 - 4^-k) cosh r + (1 + 4^-k) sinh r.
    #[inline(always)]
    fn sinh<const FMA: bool>(&self) -> (f64, f64) {
        let (d, g) = (1.0 - self.fourth, 1.0 + self.fourth);
        let (high, rest) = fast_two_sum(d, self.r);
        let rest = rest + ((1.0 - d) - self.fourth);
        let low = fma::<FMA>(self.fourth, self.r, fma::<FMA>(d, self.c, g * self.s));
        (high, rest + low)
    }

    /// 2 cosh(x) / 2^k as the sum of two numbers: (1 + 4^-k) cosh r + (1 - 4^-k) sinh r.
    #[inline(always)]
    fn cosh<const FMA: bool>(&self) -> (f64, f64) {
        let (d, g) = (1.0 - self.fourth, 1.0 + self.fourth);
        let (high, rest) = fast_two_sum(g, self.r);
        let rest = rest + (self.fourth - (g - 1.0));
        let low = fma::<FMA>(-self.fourth, self.r, fma::<FMA>(g, self.c, d * self.s));
        (high, rest + low)
    }
}

/// The hyperbolic sine.
#[inline(always)]
pub(super) fn sinh<const FMA: bool>(x: f64) -> f64 {
    // Beyond 711 it is infinite, and comes out so.
    let p = parts::<FMA>(clamp(x.abs(), 0.0, 711.0));
    let (high, low) = p.sinh::<FMA>();
    p.k.minus_one().scale(high + low).copysign(x)
}

/// The hyperbolic cosine.
#[inline(always)]
pub(super) fn cosh<const FMA: bool>(x: f64) -> f64 {
    let p = parts::<FMA>(clamp(x.abs(), 0.0, 711.0));
    let (high, low) = p.cosh::<FMA>();
    p.k.minus_one().scale(high + low)
}

/// The hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh<const FMA: bool>(x: f64) -> f64 {
    // Beyond 20 it is 1.
    let p = parts::<FMA>(clamp(x.abs(), 0.0, 22.0));
    let (high, low) = p.sinh::<FMA>();
    let (n, n_low) = two_sum(high, low);
    let (high, low) = p.cosh::<FMA>();
    let (d, d_low) = fast_two_sum(high, low);
    let inverse = 1.0 / d;
    let q = n * inverse;
    // What the quotient lacks.
    let (product, error) = two_prod::<FMA>(q, d);
    let rest = ((n - product) - error) + (n_low - q * d_low);
    let value = fma::<FMA>(rest, inverse, q);
    // Never beyond 1, which the quotient of two almost equal numbers could be.
    (if value > 1.0 { 1.0 } else { value }).copysign(x)
}

/// 2^60. The inverse of a larger one is log(2 t), as log(1 + t) + ln 2: one more or less changes
/// nothing there, and t^2 or 2 t could be infinite.
const LARGE: f64 = 1_152_921_504_606_846_976.0;

/// The inverse hyperbolic sine: log1p(t + t^2 / (1 + sqrt(1 + t^2))) with the sign of x.
#[inline(always)]
pub(super) fn asinh<const FMA: bool>(x: f64) -> f64 {
    let t = x.abs();
    let large = t > LARGE;
    // Of large ones any will do.
    let b = if large { 1.0 } else { t };
    let square = b * b;
    let (y, low) = fast_two_sum(b, square / (1.0 + fma::<FMA>(b, b, 1.0).sqrt()));
    let value = log_one_plus::<FMA>(
        if large { t } else { y },
        if large { 0.0 } else { low },
        if large { 1.0 } else { 0.0 },
    );
    (if t < f64::INFINITY { value } else { t }).copysign(x)
}

/// The inverse hyperbolic cosine: log1p(d + sqrt(d^2 + 2 d)) of d = x - 1; NaN below 1.
#[inline(always)]
pub(super) fn acosh<const FMA: bool>(x: f64) -> f64 {
    let large = x > LARGE;
    // Exact up to 2^53.
    let d = if large { 1.0 } else { x - 1.0 };
    let root = fma::<FMA>(d, d, 2.0 * d).sqrt();
    let (y, low) = fast_two_sum(root, d);
    let value = log_one_plus::<FMA>(
        if large { x } else { y },
        if large { 0.0 } else { low },
        if large { 1.0 } else { 0.0 },
    );
    let value = if x < f64::INFINITY { value } else { x };
    if x >= 1.0 { value } else { f64::NAN }
}

/// The inverse hyperbolic tangent: log1p(2 t / (1 - t)) / 2 with the sign of x; infinite at 1, NaN
/// beyond.
#[inline(always)]
pub(super) fn atanh<const FMA: bool>(x: f64) -> f64 {
    let t = x.abs();
    // 1 - t and what it was rounded by.
    let (d, rest) = fast_two_sum(1.0, -t);
    let twice = 2.0 * t;
    let y = twice / d;
    // What the quotient lacks: (2 t - y (1 - t)) / (1 - t).
    let (p, error) = two_prod::<FMA>(y, d);
    let low = (((twice - p) - error) - y * rest) / d;
    let value = 0.5 * log_one_plus::<FMA>(y, low, 0.0);
    let end = if t == 1.0 { f64::INFINITY } else { f64::NAN };
    (if t < 1.0 { value } else { end }).copysign(x)
}

// Of an f32, in f64 throughout: half an ulp of the f32 and some thousandths.

/// The hyperbolic sine.
#[inline(always)]
pub(super) fn sinh_f32<const FMA: bool>(x: f32) -> f32 {
    let (e, m) = both_f32::<FMA>(f64::from(x.abs()));
    ((0.5 * (m + m / e)) as f32).copysign(x)
}

/// The hyperbolic cosine.
#[inline(always)]
pub(super) fn cosh_f32<const FMA: bool>(x: f32) -> f32 {
    let (e, _) = both_f32::<FMA>(f64::from(x.abs()));
    (0.5 * (e + 1.0 / e)) as f32
}

/// The hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh_f32<const FMA: bool>(x: f32) -> f32 {
    let (_, m) = both_f32::<FMA>(2.0 * f64::from(x.abs()));
    ((m / (m + 2.0)) as f32).copysign(x)
}

/// The inverse hyperbolic sine.
#[inline(always)]
pub(super) fn asinh_f32<const FMA: bool>(x: f32) -> f32 {
    let t = f64::from(x.abs());
    let square = t * t;
    let value = short_one_plus::<FMA>(t + square / (1.0 + (1.0 + square).sqrt())) as f32;
    (if x.abs() < f32::INFINITY { value } else { x }).copysign(x)
}

/// The inverse hyperbolic cosine; NaN below 1.
#[inline(always)]
pub(super) fn acosh_f32<const FMA: bool>(x: f32) -> f32 {
    let d = f64::from(x) - 1.0;
    let value = short_one_plus::<FMA>(d + (d * (d + 2.0)).sqrt()) as f32;
    let value = if x < f32::INFINITY { value } else { x };
    if x >= 1.0 { value } else { f32::NAN }
}

/// The inverse hyperbolic tangent; infinite at 1, NaN beyond.
#[inline(always)]
pub(super) fn atanh_f32<const FMA: bool>(x: f32) -> f32 {
    let t = f64::from(x.abs());
    let value = (0.5 * short_one_plus::<FMA>(2.0 * t / (1.0 - t))) as f32;
    let end = if t == 1.0 { f32::INFINITY } else { f32::NAN };
    (if t < 1.0 { value } else { end }).copysign(x)
}
