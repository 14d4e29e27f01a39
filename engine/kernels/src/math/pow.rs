//! Powers.
//!
//! x^y = e^(y log x), with the logarithm as a sum of two numbers that is right to 2^-66 of itself:
//! times y, at most 745 without overflow, that leaves the result's relative error at 2^-56.

use super::exp::{LN2_HIGH, LN2_LOW, clamp, reduce, short_power, tail};
use super::log::{short_split, split_any};
use super::{fast_two_sum, fma, poly, two_prod};

/// log(x) of a positive, finite x as the sum of two numbers.
#[inline(always)]
fn log_in_two<const FMA: bool>(x: f64) -> (f64, f64) {
    // log m = 2 s + s^3 (2/3 + s^2 P(s^2)), s = f / (2 + f). The coefficient 2/3 is this and a rest.
    const THIRDS: f64 = 2.0 / 3.0;
    const THIRDS_LOW: f64 = 3.700743415417188e-17;
    // By the Remez algorithm, rounded last of all; off by at most 2^-66.2 of the logarithm.
    const P: [f64; 7] = [
        0.4000000000000226,
        0.2857142857009668,
        0.2222222252047979,
        0.18181784315376773,
        0.1538675983840908,
        0.13256756736789518,
        0.13196917681327058,
    ];
    let (e, m) = split_any(x);
    let f = m - 1.0;
    let d = m + 1.0;
    // Exact: d - 1 is, and it differs from m by what d was rounded by.
    let d_low = m - (d - 1.0);
    let inverse = 1.0 / d;
    let s = f * inverse;
    let (p, error) = two_prod::<FMA>(s, d);
    let s_low = (((f - p) - error) - s * d_low) * inverse;
    let (z, error) = two_prod::<FMA>(s, s);
    let z_low = fma::<FMA>(2.0 * s, s_low, error);
    let (q, rest) = fast_two_sum(THIRDS, z * poly::<FMA, _>(z, &P));
    let q_low = rest + THIRDS_LOW;
    let (w, error) = two_prod::<FMA>(z, q);
    let w_low = error + fma::<FMA>(z, q_low, z_low * q);
    let (v, error) = two_prod::<FMA>(s, w);
    let v_low = error + fma::<FMA>(s, w_low, s_low * w);
    let (part, rest) = fast_two_sum(2.0 * s, v);
    let part_low = rest + fma::<FMA>(2.0, s_low, v_low);
    // e times the high part is exact.
    let (high, rest) = fast_two_sum(e * LN2_HIGH, part);
    fast_two_sum(high, rest + fma::<FMA>(e, LN2_LOW, part_low))
}

/// What y is as an exponent: whether it is an odd integer, and whether an integer at all.
/// (Infinities are even.)
#[inline(always)]
fn parity(y: f64) -> (bool, bool) {
    const TWO_52: f64 = 4_503_599_627_370_496.0;
    let y = y.abs();
    // Its last bit is that of the integer nearest to y.
    let sum = y + TWO_52;
    let small = y < TWO_52;
    let whole = !small | (sum - TWO_52 == y);
    let last = if small { sum.to_bits() } else { y.to_bits() } & 1 == 1;
    (whole & last & (y < 2.0 * TWO_52), whole)
}

/// The power from that of |x|.
#[inline(always)]
fn signed(x: f64, y: f64, of_size: f64) -> f64 {
    let (odd, whole) = parity(y);
    let value = if odd & x.is_sign_negative() { -of_size } else { of_size };
    let none = (x < 0.0) & (x > f64::NEG_INFINITY) & !whole;
    // NaN in, NaN out, but for 1^y and x^0.
    let value = if none | x.is_nan() | y.is_nan() { f64::NAN } else { value };
    if (y == 0.0) | (x == 1.0) { 1.0 } else { value }
}

/// Squares are rounded correctly, so that a program may multiply instead where it knows the exponent.
#[inline(always)]
fn squared(x: f64, y: f64, power: f64) -> f64 {
    if y == 2.0 { x * x } else { power }
}

/// log |x|, infinite where x is 0 or infinite.
#[inline(always)]
fn ended(size: f64, log: f64) -> f64 {
    let log = if size == 0.0 { f64::NEG_INFINITY } else { log };
    if size == f64::INFINITY { f64::INFINITY } else { log }
}

/// 2^66. Whatever is not 1 has a logarithm of at least 2^-53, so larger exponents change nothing.
const MOST: f64 = 73_786_976_294_838_206_464.0;

/// x^y.
#[inline(always)]
pub(super) fn pow<const FMA: bool>(x: f64, y: f64) -> f64 {
    let size = x.abs();
    let (high, low) = log_in_two::<FMA>(size);
    let high = ended(size, high);
    let exponent = clamp(y, -MOST, MOST);
    let (product, error) = two_prod::<FMA>(exponent, high);
    let small = fma::<FMA>(exponent, low, error);
    let inside = product.abs() < 750.0;
    let (k, r, rest) = reduce::<FMA>(clamp(product, -750.0, 750.0));
    // The rest may be hundreds of ulps of the result; not so when it is taken into r.
    let (r, rest) = fast_two_sum(r, rest + if inside { small } else { 0.0 });
    let s = fma::<FMA>(r * r, tail::<FMA>(r), fma::<FMA>(r, rest, rest));
    squared(x, y, signed(x, y, k.scale(1.0 + (r + s))))
}

/// x^y of f32, in f64: half an ulp of the f32 and some hundredths.
#[inline(always)]
pub(super) fn pow_f32<const FMA: bool>(x: f32, y: f32) -> f32 {
    let (x, y) = (f64::from(x), f64::from(y));
    let size = x.abs();
    let (e, part) = short_split::<FMA>(size);
    let log = ended(size, fma::<FMA>(part, std::f64::consts::LOG2_E, e));
    let (power, part) = short_power::<FMA>(clamp(clamp(y, -MOST, MOST) * log, -160.0, 160.0));
    squared(x, y, signed(x, y, fma::<FMA>(power, part, power))) as f32
}
