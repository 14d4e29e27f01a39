//! Arc sine, arc cosine and arc tangent, of one argument and of two.
//!
//! Arc sine and arc cosine: to 1/2 a polynomial; beyond, by asin(x) = pi/2 - 2 asin(sqrt((1-x)/2)),
//! the same polynomial. Arc tangent: of a quotient b/a within [0, 1], as pi/4 - atan((a-b)/(a+b))
//! where b/a is above tan(pi/8); both kinds are one division, whose rounding error is carried on.
//! The octant then adds its multiple of pi/4. f32 is computed in f64 with shorter polynomials.

use super::roots::scales;
use super::{fast_two_sum, fma, poly, two_prod};

/// pi/2 as a sum of two.
const HALF_PI: f64 = std::f64::consts::FRAC_PI_2;
const HALF_PI_LOW: f64 = 6.123233995736766e-17;

/// pi/4 as a sum of two. The first has 50 bits, so that its multiples up to 4 are exact.
const QUARTER_PI: f64 = std::f64::consts::FRAC_PI_4;
const QUARTER_PI_LOW: f64 = 3.061616997868383e-17;

const TAN_PI_8: f64 = 0.41421356237309503;

/// (asin(a) / a - 1) / a^2 in a^2, for |a| up to 1/2. As all polynomials here: by Remez' exchange
/// in 50 digits for the least relative error of the whole function, which is 2^-55.81 with the
/// coefficients rounded to doubles.
const ASIN: [f64; 12] = [
    0.16666666666665408,
    0.07500000000337002,
    0.04464285682833418,
    0.030381959136869117,
    0.022371758050548172,
    0.017359704781536273,
    0.01388523518353658,
    0.01216921378653948,
    0.0065279655776300325,
    0.01952829187240433,
    -0.016224294329134678,
    0.03191229800658158,
];

/// [`ASIN`] for f32: 2^-31.76.
const ASIN_SHORT: [f64; 6] = [
    0.16666659991407867,
    0.07500504179661058,
    0.04451695560127619,
    0.031807718638459666,
    0.014438592093355013,
    0.03751648199649329,
];

/// (atan(q) / q - 1) / q^2 in q^2, for |q| up to tan(pi/8), the same way: 2^-57.54.
const ATAN: [f64; 11] = [
    -0.333333333333332,
    0.1999999999995325,
    -0.14285714280166606,
    0.11111110782155259,
    -0.09090897725238183,
    0.07692059717087446,
    -0.06663099200001643,
    0.058478592507890656,
    -0.050391903535748336,
    0.03806213885132979,
    -0.017905039211125073,
];

/// [`ATAN`] for f32: 2^-30.47.
const ATAN_SHORT: [f64; 5] = [
    -0.3333331518887871,
    0.1999847153397715,
    -0.1424353369363676,
    0.10593816262698667,
    -0.06078227657264611,
];

/// What asin and acos have in common: is |x| above 1/2; the argument or, then, the root; and its
/// arc sine less itself.
#[inline(always)]
fn arc<const FMA: bool, const N: usize>(x: f64, c: &[f64; N]) -> (bool, f64, f64) {
    let ax = x.abs();
    let big = ax > 0.5;
    // Exact for a big x; negative, and so its root NaN, beyond 1.
    let half = 0.5 - 0.5 * ax;
    let z = if big { half } else { x * x };
    let root = half.sqrt();
    let a = if big { root } else { x };
    (big, a, a * z * poly::<FMA, N>(z, c))
}

#[inline(always)]
pub(super) fn asin<const FMA: bool>(x: f64) -> f64 {
    let (big, a, more) = arc::<FMA, _>(x, &ASIN);
    let (s, s_low) = fast_two_sum(HALF_PI, -2.0 * a);
    let far = s - (2.0 * more - (HALF_PI_LOW + s_low));
    if big { far.copysign(x) } else { a + more }
}

#[inline(always)]
pub(super) fn acos<const FMA: bool>(x: f64) -> f64 {
    let (big, a, more) = arc::<FMA, _>(x, &ASIN);
    // pi/2 less the arc sine; doubled, acos of an x below -1/2.
    let less = HALF_PI - (a + (more - HALF_PI_LOW));
    let near_one = 2.0 * (a + more);
    let far = if x > 0.0 { near_one } else { 2.0 * less };
    if big { far } else { less }
}

/// The arc tangent of b / a, for 0 <= b <= a, 2^-1022 <= a < 2^1000, taken on to the angle's
/// octant: `swapped` says that b / a is the cotangent, `back` that the angle is beyond pi/2.
#[inline(always)]
fn octant<const FMA: bool>(b: f64, a: f64, swapped: bool, back: bool) -> f64 {
    let middle = b > TAN_PI_8 * a;
    let (sum, sum_low) = fast_two_sum(a, b);
    let (difference, difference_low) = fast_two_sum(a, -b);
    let n = if middle { -difference } else { b };
    let n_low = if middle { -difference_low } else { 0.0 };
    let d = if middle { sum } else { a };
    let d_low = if middle { sum_low } else { 0.0 };
    let inverse = 1.0 / d;
    let q = n * inverse;
    let (p, p_low) = two_prod::<FMA>(q, d);
    let q_low = (((n - p) - p_low) + fma::<FMA>(-q, d_low, n_low)) * inverse;
    let z = q * q;
    // The arc tangent of q + q_low, less q.
    let more = fma::<FMA>(q * z, poly::<FMA, _>(z, &ATAN), fma::<FMA>(-z, q_low, q_low));
    let (eighths, turned) = place(middle, swapped, back);
    let (q, more) = if turned { (-q, -more) } else { (q, more) };
    let (s, s_low) = fast_two_sum(eighths * QUARTER_PI, q);
    s + (fma::<FMA>(eighths, QUARTER_PI_LOW, s_low) + more)
}

/// The multiple of pi/4 that an octant adds, and whether it subtracts the angle from it.
#[inline(always)]
fn place(middle: bool, swapped: bool, back: bool) -> (f64, bool) {
    let ends = if swapped {
        2.0
    } else if back {
        4.0
    } else {
        0.0
    };
    let between = if back { 3.0 } else { 1.0 };
    (if middle { between } else { ends }, swapped != back)
}

/// The smaller of two numbers, the larger, and whether the first is the larger. With a NaN neither.
#[inline(always)]
fn ordered(y: f64, x: f64) -> (f64, f64, bool) {
    if y > x { (x, y, true) } else { (y, x, false) }
}

#[inline(always)]
pub(super) fn atan<const FMA: bool>(x: f64) -> f64 {
    let ax = x.abs();
    // Beyond, the result is pi/2 already.
    let ax = if ax > 1e30 { 1e30 } else { ax };
    let (b, a, swapped) = ordered(ax, 1.0);
    octant::<FMA>(b, a, swapped, false).copysign(x)
}

#[inline(always)]
pub(super) fn atan2<const FMA: bool>(y: f64, x: f64) -> f64 {
    let (b, a, swapped) = ordered(y.abs(), x.abs());
    let (b, a) = bounded(b, a);
    // To a size where neither a + b nor 1 / a leaves the normal numbers. A b so much smaller than
    // a that it becomes subnormal gives a subnormal result too, or one that b does not change.
    let (scale, _) = scales(a);
    let (b, a) = (b * scale, a * scale);
    // 0 / 0 counts as 0.
    let a = if a == 0.0 { 1.0 } else { a };
    let angle = octant::<FMA>(b, a, swapped, x.is_sign_negative()).copysign(y);
    if x.is_nan() || y.is_nan() { f64::NAN } else { angle }
}

/// A pair b <= a with the same quotient, but for infinities: of two of them it counts as 1.
#[inline(always)]
fn bounded(b: f64, a: f64) -> (f64, f64) {
    let infinite = a == f64::INFINITY;
    let part = if b == f64::INFINITY { 1.0 } else { 0.0 };
    (if infinite { part } else { b }, if infinite { 1.0 } else { a })
}

#[inline(always)]
pub(super) fn asin_f32<const FMA: bool>(x: f32) -> f32 {
    let x = f64::from(x);
    let (big, a, more) = arc::<FMA, _>(x, &ASIN_SHORT);
    let near = a + more;
    let far = HALF_PI - 2.0 * near;
    (if big { far.copysign(x) } else { near }) as f32
}

#[inline(always)]
pub(super) fn acos_f32<const FMA: bool>(x: f32) -> f32 {
    let x = f64::from(x);
    let (big, a, more) = arc::<FMA, _>(x, &ASIN_SHORT);
    let near = a + more;
    let less = HALF_PI - near;
    let far = 2.0 * if x > 0.0 { near } else { less };
    (if big { far } else { less }) as f32
}

/// As the `octant` of f64, for numbers in the range of f32.
#[inline(always)]
fn octant_f32<const FMA: bool>(b: f64, a: f64, swapped: bool, back: bool) -> f64 {
    let middle = b > TAN_PI_8 * a;
    let n = if middle { b - a } else { b };
    let d = if middle { a + b } else { a };
    let q = n / d;
    let z = q * q;
    let angle = fma::<FMA>(q * z, poly::<FMA, _>(z, &ATAN_SHORT), q);
    let (eighths, turned) = place(middle, swapped, back);
    fma::<FMA>(eighths, std::f64::consts::FRAC_PI_4, if turned { -angle } else { angle })
}

#[inline(always)]
pub(super) fn atan_f32<const FMA: bool>(x: f32) -> f32 {
    let x = f64::from(x);
    let ax = x.abs();
    let ax = if ax > 1e30 { 1e30 } else { ax };
    let (b, a, swapped) = ordered(ax, 1.0);
    octant_f32::<FMA>(b, a, swapped, false).copysign(x) as f32
}

#[inline(always)]
pub(super) fn atan2_f32<const FMA: bool>(y: f32, x: f32) -> f32 {
    let (y, x) = (f64::from(y), f64::from(x));
    let (b, a, swapped) = ordered(y.abs(), x.abs());
    let (b, a) = bounded(b, a);
    let a = if a == 0.0 { 1.0 } else { a };
    let angle = octant_f32::<FMA>(b, a, swapped, x.is_sign_negative()).copysign(y);
    (if x.is_nan() || y.is_nan() { f64::NAN } else { angle }) as f32
}
