//! Sine, cosine and tangent; degrees and radians.
//!
//! The argument is reduced by whole quarter turns to |r| <= pi/4 (Cody and Waite's way, with pi/2
//! in three parts and exact products, so that nothing cancels even next to multiples of pi/2).
//! There sine and cosine are polynomials; which of the two, and its sign, say the lowest two bits
//! of the number of quarter turns. From [`LIMIT`] on that number loses bits: such arguments are
//! rare ones and reduced by `huge`.
//!
//! f32 is computed in f64, where a reduction in two parts is exact enough and shorter polynomials
//! do.

use super::huge;
use super::{fast_two_sum, fma, poly, two_prod, two_sum};

/// Arguments below this are reduced in straight-line code. The number of quarter turns is then
/// below 2^40, off from the nearest by less than 2^-12, and an argument is nowhere nearer to a
/// multiple of pi/2 than 2^-61, against which the reduction's error of 2^-119 is nothing.
const LIMIT: f64 = (1u64 << 40) as f64;

const TWO_OVER_PI: f64 = std::f64::consts::FRAC_2_PI;
/// pi/2 = P1 + P2 + P3 to 161 bits.
const P1: f64 = std::f64::consts::FRAC_PI_2;
const P2: f64 = 6.123233995736766e-17;
const P3: f64 = -1.4973849048591698e-33;

/// Added to a number below 2^51, rounds it to an integer, whose lowest bits are then those of the
/// sum.
const TO_INTEGER: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52

/// (sin(r) / r - 1) / r^2 in r^2, for |r| up to pi/4 and 2^-12 of it more. As all polynomials here:
/// by Remez' exchange in 50 digits for the least relative error of the whole function, which is
/// 2^-56.42 with the coefficients rounded to doubles.
const SIN: [f64; 6] = [
    -0.1666666666666663,
    0.008333333333322084,
    -0.0001984126982955962,
    2.7557313610619913e-6,
    -2.505074602075584e-8,
    1.5896126088322237e-10,
];

/// (cos(r) - 1 + r^2 / 2) / r^4 in r^2, the same way: 2^-59.53.
const COS: [f64; 6] = [
    0.041666666666666595,
    -0.0013888888888873006,
    2.480158728881857e-5,
    -2.7557314169475007e-7,
    2.087569947427055e-9,
    -1.1358464074301014e-11,
];

/// [`SIN`] for f32: 2^-37.49.
const SIN_SHORT: [f64; 4] =
    [-0.1666666664073027, 0.008333329297066937, -0.00019839309756387546, 2.7180975587080523e-6];

/// [`COS`] for f32: 2^-33.01.
const COS_SHORT: [f64; 3] = [0.04166664564168249, -0.0013887314201324837, 2.4432917832756208e-5];

/// An angle as quarter turns and a rest within pi/4 of 0.
#[derive(Clone, Copy)]
pub(super) struct Reduced {
    /// The number of quarter turns; only the lowest two bits mean something.
    pub(super) quarters: u64,
    /// The rest.
    pub(super) r: f64,
    /// What the rest was rounded by.
    pub(super) low: f64,
}

impl Reduced {
    /// Is it an odd number of quarter turns, where sine and cosine change places?
    #[inline(always)]
    fn odd(self) -> bool {
        self.quarters & 1 != 0
    }

    /// The same, a quarter turn on.
    #[inline(always)]
    fn next(self) -> Reduced {
        Reduced { quarters: self.quarters.wrapping_add(1), ..self }
    }

    /// The sign bit of the sine: set in the third and fourth quarter.
    #[inline(always)]
    fn sign(self) -> u64 {
        (self.quarters & 2) << 62
    }
}

/// The value with its sign turned if the bit is set.
#[inline(always)]
fn flip(x: f64, sign: u64) -> f64 {
    f64::from_bits(x.to_bits() ^ sign)
}

/// Its sign bit.
#[inline(always)]
fn sign(x: f64) -> u64 {
    x.to_bits() & (1 << 63)
}

/// The number of quarter turns nearest to an angle: as an integer's low bits, and as a float.
#[inline(always)]
fn quarters<const FMA: bool>(x: f64) -> (u64, f64) {
    let sum = fma::<FMA>(x, TWO_OVER_PI, TO_INTEGER);
    (sum.to_bits(), sum - TO_INTEGER)
}

/// Reduces 0 <= x < LIMIT.
#[inline(always)]
fn reduce<const FMA: bool>(x: f64) -> Reduced {
    let (quarters, n) = quarters::<FMA>(x);
    // Exact: the difference is below 1 and a multiple of 2^-53.
    let r1 = if FMA {
        n.mul_add(-P1, x)
    } else {
        let (p, low) = two_prod::<FMA>(n, P1);
        (x - p) - low
    };
    let (p, p_low) = two_prod::<FMA>(n, P2);
    let (r, low) = two_sum(r1, -p);
    Reduced { quarters, r, low: fma::<FMA>(-n, P3, low - p_low) }
}

/// sin(r + low).
#[inline(always)]
fn sine<const FMA: bool>(Reduced { r, low, .. }: Reduced) -> f64 {
    let z = r * r;
    // low's share is low * cos(r), of which two terms are enough.
    let low = fma::<FMA>(-0.5 * z, low, low);
    r + fma::<FMA>(r * z, poly::<FMA, _>(z, &SIN), low)
}

/// cos(r + low).
#[inline(always)]
fn cosine<const FMA: bool>(Reduced { r, low, .. }: Reduced) -> f64 {
    let z = r * r;
    let half = 0.5 * z;
    let w = 1.0 - half;
    // What w was rounded by, and the terms after it.
    w + (((1.0 - w) - half) + fma::<FMA>(z * z, poly::<FMA, _>(z, &COS), -(r * low)))
}

#[inline(always)]
fn sine_of<const FMA: bool>(angle: Reduced) -> f64 {
    let (s, c) = (sine::<FMA>(angle), cosine::<FMA>(angle));
    flip(if angle.odd() { c } else { s }, angle.sign())
}

#[inline(always)]
pub(super) fn sin<const FMA: bool>(x: f64) -> f64 {
    flip(sine_of::<FMA>(reduce::<FMA>(x.abs())), sign(x))
}

#[inline(always)]
pub(super) fn cos<const FMA: bool>(x: f64) -> f64 {
    sine_of::<FMA>(reduce::<FMA>(x.abs()).next())
}

/// The tangent of the angle: the quotient of sine and cosine, each as a sum of two.
#[inline(always)]
fn tangent_of<const FMA: bool>(angle: Reduced) -> f64 {
    let Reduced { r, low, .. } = angle;
    let (z, z_low) = two_prod::<FMA>(r, r);
    let half = 0.5 * z;
    let s_rest = fma::<FMA>(r * z, poly::<FMA, _>(z, &SIN), fma::<FMA>(-half, low, low));
    let s = fast_two_sum(r, s_rest);
    let w = 1.0 - half;
    let c_rest = fma::<FMA>(z * z, poly::<FMA, _>(z, &COS), -fma::<FMA>(0.5, z_low, r * low));
    let c = fast_two_sum(w, ((1.0 - w) - half) + c_rest);
    // A quarter turn on, the tangent is -cos / sin.
    let odd = angle.odd();
    let (n, n_low) = if odd { c } else { s };
    let (d, d_low) = if odd { s } else { c };
    let inverse = 1.0 / d;
    let q = n * inverse;
    let (p, p_low) = two_prod::<FMA>(q, d);
    let rest = ((n - p) - p_low) + fma::<FMA>(-q, d_low, n_low);
    flip(fma::<FMA>(rest, inverse, q), (angle.quarters & 1) << 63)
}

#[inline(always)]
pub(super) fn tan<const FMA: bool>(x: f64) -> f64 {
    flip(tangent_of::<FMA>(reduce::<FMA>(x.abs())), sign(x))
}

/// Is the argument too large for [`sin`], [`cos`] and [`tan`]?
#[inline(always)]
pub(super) fn is_huge(x: f64) -> bool {
    let x = x.abs();
    (LIMIT..f64::INFINITY).contains(&x)
}

pub(super) fn huge_sin(x: f64) -> f64 {
    flip(sine_of::<false>(huge::reduce(x.abs())), sign(x))
}

pub(super) fn huge_cos(x: f64) -> f64 {
    sine_of::<false>(huge::reduce(x.abs()).next())
}

pub(super) fn huge_tan(x: f64) -> f64 {
    flip(tangent_of::<false>(huge::reduce(x.abs())), sign(x))
}

/// One multiplication, as NumPy's.
#[inline(always)]
pub(super) fn degrees<const FMA: bool>(x: f64) -> f64 {
    x * (180.0 / std::f64::consts::PI)
}

#[inline(always)]
pub(super) fn radians<const FMA: bool>(x: f64) -> f64 {
    x * (std::f64::consts::PI / 180.0)
}

/// Reduces 0 <= x < LIMIT. An f32 is nowhere nearer to a multiple of pi/2 than 2^-30, and
/// the error is below 2^-66.
#[inline(always)]
fn reduce_f32<const FMA: bool>(x: f32) -> Reduced {
    let x = f64::from(x);
    let (quarters, n) = quarters::<FMA>(x);
    let r1 = if FMA {
        n.mul_add(-P1, x)
    } else {
        let (p, low) = two_prod::<FMA>(n, P1);
        (x - p) - low
    };
    Reduced { quarters, r: fma::<FMA>(-n, P2, r1), low: 0.0 }
}

/// Sine and cosine, to 2^-32 of them.
#[inline(always)]
fn both<const FMA: bool>(r: f64) -> (f64, f64) {
    let z = r * r;
    let s = fma::<FMA>(r * z, poly::<FMA, _>(z, &SIN_SHORT), r);
    let c = fma::<FMA>(z * z, poly::<FMA, _>(z, &COS_SHORT), fma::<FMA>(-0.5, z, 1.0));
    (s, c)
}

#[inline(always)]
fn sine_of_f32<const FMA: bool>(angle: Reduced) -> f64 {
    let (s, c) = both::<FMA>(angle.r);
    flip(if angle.odd() { c } else { s }, angle.sign())
}

#[inline(always)]
fn tangent_of_f32<const FMA: bool>(angle: Reduced) -> f64 {
    let (s, c) = both::<FMA>(angle.r);
    let odd = angle.odd();
    flip(if odd { c } else { s } / if odd { s } else { c }, (angle.quarters & 1) << 63)
}

#[inline(always)]
pub(super) fn sin_f32<const FMA: bool>(x: f32) -> f32 {
    flip(sine_of_f32::<FMA>(reduce_f32::<FMA>(x.abs())), sign(f64::from(x))) as f32
}

#[inline(always)]
pub(super) fn cos_f32<const FMA: bool>(x: f32) -> f32 {
    sine_of_f32::<FMA>(reduce_f32::<FMA>(x.abs()).next()) as f32
}

#[inline(always)]
pub(super) fn tan_f32<const FMA: bool>(x: f32) -> f32 {
    flip(tangent_of_f32::<FMA>(reduce_f32::<FMA>(x.abs())), sign(f64::from(x))) as f32
}

/// Is the argument too large for [`sin_f32`], [`cos_f32`] and [`tan_f32`]?
#[inline(always)]
pub(super) fn is_huge_f32(x: f32) -> bool {
    let x = x.abs();
    (LIMIT as f32..f32::INFINITY).contains(&x)
}

pub(super) fn huge_sin_f32(x: f32) -> f32 {
    huge_sin(f64::from(x)) as f32
}

pub(super) fn huge_cos_f32(x: f32) -> f32 {
    huge_cos(f64::from(x)) as f32
}

pub(super) fn huge_tan_f32(x: f32) -> f32 {
    huge_tan(f64::from(x)) as f32
}

#[inline(always)]
pub(super) fn degrees_f32<const FMA: bool>(x: f32) -> f32 {
    degrees::<FMA>(f64::from(x)) as f32
}

#[inline(always)]
pub(super) fn radians_f32<const FMA: bool>(x: f32) -> f32 {
    radians::<FMA>(f64::from(x)) as f32
}
