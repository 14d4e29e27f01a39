//! Cube root and hypotenuse.

use super::{fma, poly, two_prod};

/// x^(-1/3) for x from 1 to 2, to 2^-11.95 of it, by Remez' exchange.
const INVERSE_ROOT: [f64; 4] =
    [1.5418869426697674, -0.8099601364657829, 0.3177569776132359, -0.04993686567648234];

/// 2^(-1/3) and 2^(-2/3).
const ROOTS: [f64; 2] = [0.7937005259840998, 0.6299605249474366];

/// A positive number as a cube 2^(3 k) times a rest from 1 to below 8: 2^k, the rest, and the
/// inverse of its cube root to 2^-10. For 0, infinities and NaN something.
#[inline(always)]
fn parts<const FMA: bool>(x: f64) -> (f64, f64, f64) {
    // Subnormals are normal after multiplication with a cube.
    let subnormal = x < f64::MIN_POSITIVE;
    let bits = if subnormal { x * 18_014_398_509_481_984.0 } else { x }.to_bits(); // 2^54
    let exponent = bits >> 52;
    // A third, rounded down: exact for numbers below 2^15. The exponents' bias is a multiple of 3.
    let third = exponent.wrapping_mul(21_846) >> 16;
    let more = exponent.wrapping_sub(third.wrapping_mul(3));
    let mantissa = bits << 12 >> 12;
    let rest = f64::from_bits(mantissa | more.wrapping_add(1023) << 52);
    let bias = if subnormal { 1023 - 1023 / 3 - 54 / 3 } else { 1023 - 1023 / 3 };
    let outside = f64::from_bits(third.wrapping_add(bias) << 52);
    let factor = if more == 0 {
        1.0
    } else if more == 1 {
        ROOTS[0]
    } else {
        ROOTS[1]
    };
    let near = poly::<FMA, _>(f64::from_bits(mantissa | 1023 << 52), &INVERSE_ROOT) * factor;
    (outside, rest, near)
}

/// A better inverse cube root of x from one that is off by e: off by less than 16 e^4.
#[inline(always)]
fn better<const FMA: bool>(x: f64, near: f64) -> f64 {
    let h = fma::<FMA>(-(x * near), near * near, 1.0);
    // (1 - h)^(-1/3)
    let series = poly::<FMA, _>(h, &[1.0 / 3.0, 2.0 / 9.0, 14.0 / 81.0]);
    fma::<FMA>(near * h, series, near)
}

#[inline(always)]
pub(super) fn cbrt<const FMA: bool>(x: f64) -> f64 {
    let ax = x.abs();
    let (outside, rest, near) = parts::<FMA>(ax);
    let inverse = better::<FMA>(rest, near);
    let inverse_square = inverse * inverse;
    let root = rest * inverse_square;
    // One step of Newton's with the error root^3 - rest computed to twice the precision.
    let (square, square_low) = two_prod::<FMA>(root, root);
    let (cube, cube_low) = two_prod::<FMA>(square, root);
    let error = fma::<FMA>(square_low, root, (cube - rest) + cube_low);
    let root = fma::<FMA>(error * inverse_square, -1.0 / 3.0, root);
    // Zeros, infinities and NaN are themselves.
    if ax > 0.0 && ax < f64::INFINITY { (root * outside).copysign(x) } else { x }
}

/// The power of two that takes a positive number to between 1 and 4 (a subnormal one to below 1),
/// and its inverse.
#[inline(always)]
pub(super) fn scales(x: f64) -> (f64, f64) {
    const LARGEST: f64 = f64::from_bits(2045 << 52); // 2^1022
    let x = if x > LARGEST { LARGEST } else { x };
    let x = if x < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { x };
    let power = x.to_bits() & 2047 << 52;
    (f64::from_bits((2046u64 << 52).wrapping_sub(power)), f64::from_bits(power))
}

#[inline(always)]
pub(super) fn hypot<const FMA: bool>(x: f64, y: f64) -> f64 {
    let (ax, ay) = (x.abs(), y.abs());
    let larger = ay > ax;
    let (a, b) = if larger { (ay, ax) } else { (ax, ay) };
    let (scale, back) = scales(a);
    let (a, b) = (a * scale, b * scale);
    let length = fma::<FMA>(a, a, b * b).sqrt() * back;
    // Also beside a NaN.
    if ax == f64::INFINITY || ay == f64::INFINITY { f64::INFINITY } else { length }
}

#[inline(always)]
pub(super) fn cbrt_f32<const FMA: bool>(x: f32) -> f32 {
    let x = f64::from(x);
    let ax = x.abs();
    let (outside, rest, near) = parts::<FMA>(ax);
    let inverse = better::<FMA>(rest, near);
    let root = rest * (inverse * inverse) * outside;
    (if ax > 0.0 && ax < f64::INFINITY { root.copysign(x) } else { x }) as f32
}

/// Squares of f32 neither overflow nor lose a bit in f64.
#[inline(always)]
pub(super) fn hypot_f32<const FMA: bool>(x: f32, y: f32) -> f32 {
    let (x, y) = (f64::from(x), f64::from(y));
    let length = fma::<FMA>(x, x, y * y).sqrt();
    let infinite = x.abs() == f64::INFINITY || y.abs() == f64::INFINITY;
    (if infinite { f64::INFINITY } else { length }) as f32
}
