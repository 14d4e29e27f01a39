//! log, log2, log10 and log1p.
//!
//! x = 2^e m with m between the square roots of 1/2 and 2, f = m - 1, s = f / (2 + f): then
//! log m = 2 atanh s, an odd polynomial. As in Sun's fdlibm it is put together as
//! f - f^2/2 + s (f^2/2 + R(s^2)), whose first term is exact and outweighs the errors of the others.

use super::exp::{LN2_HIGH, LN2_LOW};
use super::{fast_two_sum, fma, poly, two_sum};

/// The bits of the greatest double below the square root of 1/2.
const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcc;
const MANTISSA: u64 = (1 << 52) - 1;
/// 2^52 as bits: with a small integer or'ed in it is 2^52 plus that integer.
const TWO_52: u64 = 0x4330_0000_0000_0000;

/// e and m of a positive, finite, normal x. (Of others: some numbers.)
#[inline(always)]
pub(super) fn split(x: f64) -> (f64, f64) {
    split_by(x, 0.0)
}

/// e and m of a positive, finite x.
#[inline(always)]
pub(super) fn split_any(x: f64) -> (f64, f64) {
    const SHIFT: f64 = 18_014_398_509_481_984.0; // 2^54
    let small = x < f64::MIN_POSITIVE;
    split_by(if small { x * SHIFT } else { x }, if small { 54.0 } else { 0.0 })
}

#[inline(always)]
fn split_by(x: f64, shift: f64) -> (f64, f64) {
    let t = x.to_bits().wrapping_sub(ROOT_HALF).wrapping_add(1024 << 52);
    let e = f64::from_bits(TWO_52 | t >> 52) - (f64::from_bits(TWO_52) + 1024.0);
    (e - shift, f64::from_bits((t & MANTISSA).wrapping_add(ROOT_HALF)))
}

/// What log(1 + f) is made of: f^2/2, and s (f^2/2 + R).
#[inline(always)]
fn parts<const FMA: bool>(f: f64) -> (f64, f64) {
    // By the Remez algorithm, rounded last of all; off by at most 2^-59.4 of the logarithm.
    const C: [f64; 7] = [
        0.6666666666666735,
        0.3999999999940939,
        0.2857142874367213,
        0.22222198430868567,
        0.18183572238543347,
        0.1531383566096288,
        0.14798216025759744,
    ];
    let s = f / (2.0 + f);
    let z = s * s;
    let half_square = 0.5 * f * f;
    (half_square, s * fma::<FMA>(z, poly::<FMA, _>(z, &C), half_square))
}

/// e ln 2 + log(1 + f) + small, where small is far below the rest; f up to 0.4143 in size.
#[inline(always)]
fn assemble<const FMA: bool>(e: f64, f: f64, small: f64) -> f64 {
    let (half_square, rest) = parts::<FMA>(f);
    let low = fma::<FMA>(e, LN2_LOW, rest + small);
    fma::<FMA>(e, LN2_HIGH, f - (half_square - low))
}

/// The logarithm's value at what is not positive and finite: -infinity at zeros, NaN below, and
/// what it is given where it is infinite or NaN.
#[inline(always)]
fn special(x: f64, value: f64) -> f64 {
    let value = if x < f64::INFINITY { value } else { x };
    let bad = if x == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    if x > 0.0 { value } else { bad }
}

/// The natural logarithm.
///
/// Error: 1/2 ulp of the last sum, up to 1/4 of the one before, and less than 1/8 of R.
#[inline(always)]
pub(super) fn log<const FMA: bool>(x: f64) -> f64 {
    let (e, m) = split_any(x);
    special(x, assemble::<FMA>(e, m - 1.0, 0.0))
}

/// log(m) as a number of at most 21 bits and the rest: m between the square roots of 1/2 and 2.
#[inline(always)]
fn in_two<const FMA: bool>(m: f64) -> (f64, f64) {
    let f = m - 1.0;
    let (half_square, rest) = parts::<FMA>(f);
    let high = f64::from_bits((f - half_square).to_bits() & !0xffff_ffff);
    (high, ((f - high) - half_square) + rest)
}

/// The logarithm to base 2; exact for powers of 2.
#[inline(always)]
pub(super) fn log2<const FMA: bool>(x: f64) -> f64 {
    // 1 / ln 2 to 32 bits, so that products with 21 bits are exact, and the rest.
    const HIGH: f64 = 1.4426950407214463;
    const LOW: f64 = 1.6751713164886512e-10;
    let (e, m) = split_any(x);
    let (high, low) = in_two::<FMA>(m);
    let rest = fma::<FMA>(low, HIGH, (low + high) * LOW);
    let (sum, error) = fast_two_sum(e, high * HIGH);
    special(x, sum + (error + rest))
}

/// The logarithm to base 10; exact for powers of 10.
#[inline(always)]
pub(super) fn log10<const FMA: bool>(x: f64) -> f64 {
    // 1 / ln 10 to 32 bits and the rest; log10(2) to 40 bits and the rest.
    const HIGH: f64 = 0.4342944818781689;
    const LOW: f64 = 2.5082946711645275e-11;
    const TWO_HIGH: f64 = 0.3010299956640665;
    const TWO_LOW: f64 = -8.532344317057107e-14;
    let (e, m) = split_any(x);
    let (high, low) = in_two::<FMA>(m);
    let rest = fma::<FMA>(low, HIGH, fma::<FMA>(low + high, LOW, e * TWO_LOW));
    let (sum, error) = fast_two_sum(e * TWO_HIGH, high * HIGH);
    special(x, sum + (error + rest))
}

/// log(1 + y + low) + `twos` ln 2, where y >= -1 and `low` is at most what y was rounded by.
#[inline(always)]
pub(super) fn log_one_plus<const FMA: bool>(y: f64, low: f64, twos: f64) -> f64 {
    let (u, error) = two_sum(1.0, y);
    let (e, m) = split(u);
    // Where u needs no scaling, y is more exact than m - 1.
    let near = e == 0.0;
    let f = if near { y } else { m - 1.0 };
    let error = if near { low } else { error + low };
    // log(u + error) = log(u) + error / u, and 1/m is 2.06 - m within 6 %.
    let by_power = f64::from_bits(1023u64.wrapping_sub(exponent(u)) << 52);
    let small = error * by_power * (2.0607 - m);
    // Of a large u it is nothing, and the power is out of range in the end.
    let small = if e > 60.0 { 0.0 } else { small };
    assemble::<FMA>(e + twos, f, small)
}

/// The e of [`split`] as an integer in two's complement.
#[inline(always)]
fn exponent(x: f64) -> u64 {
    (x.to_bits().wrapping_sub(ROOT_HALF).wrapping_add(1024 << 52) >> 52).wrapping_sub(1024)
}

/// log(1 + x), accurately also near 0.
#[inline(always)]
pub(super) fn log1p<const FMA: bool>(x: f64) -> f64 {
    let value = log_one_plus::<FMA>(x, 0.0, 0.0);
    let value = if x < f64::INFINITY { value } else { x };
    let bad = if x == -1.0 { f64::NEG_INFINITY } else { f64::NAN };
    // The sign is that of x; it is said for -0.
    (if x > -1.0 { value } else { bad }).copysign(x)
}

// Of an f32, in f64 throughout: half an ulp of the f32 and some thousandths.

/// log(1 + f), accurate enough for an f32 also near 0; f up to 0.4143 in size.
#[inline(always)]
fn short<const FMA: bool>(f: f64) -> f64 {
    // By the Remez algorithm, rounded last of all; off by at most 2^-44.9 of the logarithm.
    const C: [f64; 6] = [
        2.0,
        0.6666666667582261,
        0.39999995613758166,
        0.2857211008714511,
        0.22176146978939262,
        0.1958479327361066,
    ];
    let s = f / (2.0 + f);
    s * poly::<FMA, _>(s * s, &C)
}

/// e and log(m) of an f32; subnormal ones are normal in f64.
#[inline(always)]
pub(super) fn short_split<const FMA: bool>(x: f64) -> (f64, f64) {
    let (e, m) = split(x);
    (e, short::<FMA>(m - 1.0))
}

/// The natural logarithm.
#[inline(always)]
pub(super) fn log_f32<const FMA: bool>(x: f32) -> f32 {
    let (e, part) = short_split::<FMA>(f64::from(x));
    special(f64::from(x), fma::<FMA>(e, std::f64::consts::LN_2, part)) as f32
}

/// The logarithm to base 2; exact for powers of 2.
#[inline(always)]
pub(super) fn log2_f32<const FMA: bool>(x: f32) -> f32 {
    let (e, part) = short_split::<FMA>(f64::from(x));
    special(f64::from(x), fma::<FMA>(part, std::f64::consts::LOG2_E, e)) as f32
}

/// The logarithm to base 10; exact for powers of 10.
#[inline(always)]
pub(super) fn log10_f32<const FMA: bool>(x: f32) -> f32 {
    let (e, part) = short_split::<FMA>(f64::from(x));
    let value = fma::<FMA>(e, std::f64::consts::LOG10_2, part * std::f64::consts::LOG10_E);
    special(f64::from(x), value) as f32
}

/// log(1 + x) in f64, accurate enough for an f32 also near 0; x > -1.
#[inline(always)]
pub(super) fn short_one_plus<const FMA: bool>(x: f64) -> f64 {
    let (e, m) = split(1.0 + x);
    let f = if e == 0.0 { x } else { m - 1.0 };
    fma::<FMA>(e, std::f64::consts::LN_2, short::<FMA>(f))
}

/// log(1 + x), accurately also near 0.
#[inline(always)]
pub(super) fn log1p_f32<const FMA: bool>(x: f32) -> f32 {
    let value = short_one_plus::<FMA>(f64::from(x)) as f32;
    let value = if x < f32::INFINITY { value } else { x };
    let bad = if x == -1.0 { f32::NEG_INFINITY } else { f32::NAN };
    (if x > -1.0 { value } else { bad }).copysign(x)
}
