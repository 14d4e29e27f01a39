//! The functions of angles and the roots to some 95 bits, for tests. Angles are reduced by long
//! division with 1280 bits of pi/2; inverse functions are one step of Newton's from the standard
//! library's.

use super::super::{Math, Math2};
use super::{Dd, Value, value};

const HALF_PI: Dd = Dd(std::f64::consts::FRAC_PI_2, 6.123233995736766e-17);
const DEGREES: Dd = Dd(57.29577951308232, -1.9878495670576283e-15);
const RADIANS: Dd = Dd(0.017453292519943295, 2.9486522708701687e-19);
const ONE: Dd = Dd(1.0, 0.0);

/// pi/2 as an integer times 2^-1279, the most significant word first.
const HALF_PI_WORDS: [u64; 20] = [
    0xc90f_daa2_2168_c234,
    0xc4c6_628b_80dc_1cd1,
    0x2902_4e08_8a67_cc74,
    0x020b_bea6_3b13_9b22,
    0x514a_0879_8e34_04dd,
    0xef95_19b3_cd3a_431b,
    0x302b_0a6d_f25f_1437,
    0x4fe1_356d_6d51_c245,
    0xe485_b576_625e_7ec6,
    0xf44c_42e9_a637_ed6b,
    0x0bff_5cb6_f406_b7ed,
    0xee38_6bfb_5a89_9fa5,
    0xae9f_2411_7c4b_1fe6,
    0x4928_6651_ece4_5b3d,
    0xc200_7cb8_a163_bf05,
    0x98da_4836_1c55_d39a,
    0x6916_3fa8_fd24_cf5f,
    0x8365_5d23_dca3_ad96,
    0x1c62_f356_2085_52bb,
    0x9ed5_2907_7096_966d,
];

/// An integer below 2^1344, the most significant word first: one more than pi/2 has.
type Big = [u64; 21];

fn less_pi(a: &Big) -> Option<Big> {
    let mut out = *a;
    let mut borrow = false;
    for i in (0..21).rev() {
        let p = if i == 0 { 0 } else { HALF_PI_WORDS[i - 1] };
        let (d, b1) = a[i].overflowing_sub(p);
        let (d, b2) = d.overflowing_sub(u64::from(borrow));
        out[i] = d;
        borrow = b1 || b2;
    }
    (!borrow).then_some(out)
}

/// A positive number as quarter turns (their lowest two bits) and a rest within pi/4 of 0.
fn reduce(x: f64) -> (u64, Dd) {
    if x < 0.75 {
        return (0, x.into());
    }
    let (m, e) = (x.to_bits() << 12 >> 12 | 1 << 52, (x.to_bits() >> 52) as i32 - 1075);
    // m as it is, then doubled e + 1279 times, pi/2 taken out whenever it fits.
    let mut rest: Big = [0; 21];
    rest[20] = m;
    let mut quarters = 0u64;
    for _ in 0..e + 1279 {
        for i in 0..21 {
            rest[i] = rest[i] << 1 | if i < 20 { rest[i + 1] >> 63 } else { 0 };
        }
        quarters <<= 1;
        if let Some(less) = less_pi(&rest) {
            rest = less;
            quarters |= 1;
        }
    }
    let positive = to_dd(&rest);
    if positive.0 < std::f64::consts::FRAC_PI_4 {
        return (quarters & 3, positive);
    }
    // pi/2 less the rest, in integers: rest - pi/2, negated.
    let mut more: Big = [0; 21];
    more[1..].copy_from_slice(&HALF_PI_WORDS);
    let mut borrow = false;
    for i in (0..21).rev() {
        let (d, b1) = more[i].overflowing_sub(rest[i]);
        let (d, b2) = d.overflowing_sub(u64::from(borrow));
        more[i] = d;
        borrow = b1 || b2;
    }
    ((quarters + 1) & 3, -to_dd(&more))
}

/// The integer times 2^-1279, to 120 bits.
fn to_dd(a: &Big) -> Dd {
    let first = a.iter().position(|w| *w != 0).unwrap_or(18).min(18);
    let mut total = Dd(0.0, 0.0);
    for (i, word) in a.iter().enumerate().skip(first).take(3) {
        let weight = 2f64.powi(64 * (20 - i as i32) - 1279);
        let (high, low) = (word >> 32, word & 0xffff_ffff);
        total = total + Dd(high as f64 * 2f64.powi(32) * weight, 0.0);
        total = total + Dd(low as f64 * weight, 0.0);
    }
    total
}

/// The sine and cosine of |x| < 0.8.
fn sin_cos(x: Dd) -> (Dd, Dd) {
    let z = -(x * x);
    let (mut s, mut c) = (ONE, ONE);
    for n in (1..16).rev() {
        let n = f64::from(2 * n);
        c = ONE + z * c / Dd((n - 1.0) * n, 0.0);
        s = ONE + z * s / Dd(n * (n + 1.0), 0.0);
    }
    (s * x, c)
}

/// The sine of an angle that is a number of quarter turns more.
fn sine(x: f64, turn: u64) -> Dd {
    let (quarters, r) = reduce(x.abs());
    let (s, c) = sin_cos(r);
    match (quarters + turn) & 3 {
        0 => s,
        1 => c,
        2 => -s,
        _ => -c,
    }
}

/// The arc sine of 0 <= x <= 1.
fn arc_sine(x: Dd) -> Dd {
    if x.0 > 0.5 {
        let half = (ONE - x) * Dd(0.5, 0.0);
        return HALF_PI - arc_sine(half.sqrt()) * Dd(2.0, 0.0);
    }
    let near = x.0.asin();
    let (s, c) = sin_cos(near.into());
    Dd(near, 0.0) + (x - s) / c
}

/// The arc tangent of 0 <= x.
fn arc_tangent(x: Dd) -> Dd {
    if x.0 > 1.0 {
        return HALF_PI - arc_tangent(ONE / x);
    }
    let near = x.0.atan();
    let (s, c) = sin_cos(near.into());
    let t = s / c;
    Dd(near, 0.0) + (x - t) / (ONE + x * t)
}

/// A positive number between 1 and 2 and the exponent of the power of two it is to be multiplied
/// with.
fn normal(x: f64) -> (f64, i32) {
    let (x, shift) = if x < f64::MIN_POSITIVE { (x * 2f64.powi(64), 64) } else { (x, 0) };
    let e = (x.to_bits() >> 52) as i32 - 1023;
    (f64::from_bits(x.to_bits() << 12 >> 12 | 1023 << 52), e - shift)
}

fn signed(r: Value, x: f64) -> Value {
    if x < 0.0 { Value { v: -r.v, e: r.e } } else { r }
}

/// x * v
fn scaled(x: f64, v: Dd) -> Value {
    let (m, e) = normal(x.abs());
    signed(Value { v: Dd(m, 0.0) * v, e }, x)
}

pub(super) fn sin(x: f64) -> Value {
    if x.abs() < 1e-50 { scaled(x, ONE) } else { signed(value(sine(x, 0)), x) }
}

pub(super) fn cos(x: f64) -> Value {
    value(sine(x, 1))
}

pub(super) fn tan(x: f64) -> Value {
    if x.abs() < 1e-50 { scaled(x, ONE) } else { signed(value(sine(x, 0) / sine(x, 1)), x) }
}

pub(super) fn asin(x: f64) -> Value {
    if x.abs() < 1e-50 { scaled(x, ONE) } else { signed(value(arc_sine(x.abs().into())), x) }
}

pub(super) fn acos(x: f64) -> Value {
    value(if x > 0.5 {
        arc_sine(((ONE - x.into()) * Dd(0.5, 0.0)).sqrt()) * Dd(2.0, 0.0)
    } else if x < 0.0 {
        HALF_PI + arc_sine((-x).into())
    } else {
        HALF_PI - arc_sine(x.into())
    })
}

pub(super) fn atan(x: f64) -> Value {
    if x.abs() < 1e-50 { scaled(x, ONE) } else { signed(value(arc_tangent(x.abs().into())), x) }
}

/// Of two numbers other than 0.
pub(super) fn atan2(y: f64, x: f64) -> Value {
    let ((my, ey), (mx, ex)) = (normal(y.abs()), normal(x.abs()));
    let quotient = Dd(my, 0.0) / Dd(mx, 0.0);
    let e = ey - ex;
    let angle = if e < -200 {
        Value { v: quotient, e }
    } else if e > 200 {
        value(HALF_PI)
    } else {
        value(arc_tangent(quotient.times_power(e)))
    };
    let angle = if x > 0.0 {
        angle
    } else if e < -200 {
        value(HALF_PI * Dd(2.0, 0.0))
    } else {
        value(HALF_PI * Dd(2.0, 0.0) - angle.v)
    };
    signed(angle, y)
}

pub(super) fn hypot(x: f64, y: f64) -> Value {
    let (a, b) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
    if b == 0.0 {
        return if a == 0.0 { value(Dd(0.0, 0.0)) } else { scaled(a, ONE) };
    }
    let ((ma, ea), (mb, eb)) = (normal(a), normal(b));
    if ea - eb > 200 {
        return scaled(a, ONE);
    }
    let b = Dd(mb, 0.0).times_power(eb - ea);
    Value { v: (Dd(ma, 0.0) * Dd(ma, 0.0) + b * b).sqrt(), e: ea }
}

pub(super) fn cbrt(x: f64) -> Value {
    let (m, e) = normal(x.abs());
    let third = e.div_euclid(3);
    let m = m * 2f64.powi(e - 3 * third);
    let near = Dd(m.cbrt(), 0.0);
    let square = near * near;
    let v = near - (square * near - m.into()) / (square * Dd(3.0, 0.0));
    signed(Value { v, e: third }, x)
}

pub(super) fn degrees(x: f64) -> Value {
    scaled(x, DEGREES)
}

pub(super) fn radians(x: f64) -> Value {
    scaled(x, RADIANS)
}

#[test]
#[allow(clippy::approx_constant)]
fn the_reference_is_right_at_known_values() {
    // To 200 bits by mpmath, as sums of two doubles.
    #[rustfmt::skip]
    let known: &[(Math, f64, f64, f64)] = &[
        (Math::Sin, 0.5, 0.479425538604203, -5.103969860556013e-18),
        (Math::Sin, -2.0, -0.9092974268256817, 1.4020906557816256e-17),
        (Math::Sin, 1.0e22, -0.8522008497671888, -6.7806825896773284e-18),
        (Math::Sin, 5.319372648326541e255, 1.0, -1.098476220074687e-37),
        (Math::Sin, 3.1415, 9.265358966049026e-05, -5.651364751068654e-21),
        (Math::Sin, 1.0e-30, 1.0e-30, -1.666666666666667e-91),
        (Math::Cos, 0.5, 0.8775825618903728, -4.2623149864279997e-17),
        (Math::Cos, 2.0, -0.4161468365471424, 1.990596398957495e-17),
        (Math::Cos, 1.0e22, 0.523214785395139, -4.7143201076575164e-17),
        (Math::Cos, 5.319372648326541e255, -4.687165924254628e-19, 4.3720557429382733e-36),
        (Math::Cos, 1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
        (Math::Cos, -1.0e300, -0.5753861119575491, 2.6770761918787068e-17),
        (Math::Tan, 0.5, 0.5463024898437905, 2.9096576216837176e-17),
        (Math::Tan, 2.0, -2.185039863261519, -1.0289483692188619e-16),
        (Math::Tan, 1.0e22, -1.6287782256068988, -1.0114934254126034e-16),
        (Math::Tan, 5.319372648326541e255, -2.133485385753704e18, 92.32514733665552),
        (Math::Tan, -100000.0, 0.035771662952898776, -3.043915576917267e-18),
        (Math::Tan, 1.5707963267948966, 1.633123935319537e16, -0.24403226295847108),
        (Math::Asin, 0.25, 0.25268025514207865, 6.584019697419058e-18),
        (Math::Asin, -0.75, -0.848062078981481, -3.5058948874954465e-18),
        (Math::Asin, 1.0, 1.5707963267948966, 6.123233995736766e-17),
        (Math::Asin, 0.9999999999999999, 1.5707963118937354, 6.123233981950422e-17),
        (Math::Acos, 0.25, 1.318116071652818, -8.628309713092261e-19),
        (Math::Acos, -0.75, 2.4188584057763776, 6.473823484486311e-17),
        (Math::Acos, -1.0, 3.141592653589793, 1.2246467991473532e-16),
        (Math::Acos, 0.9999999999999999, 1.4901161193847656e-08, 1.378634354255046e-25),
        (Math::Acos, 1.0e-20, 1.5707963267948966, 6.122233995736766e-17),
        (Math::Atan, 0.25, 0.24497866312686414, 1.0698755618734451e-17),
        (Math::Atan, -1.0, -0.7853981633974483, -3.061616997868383e-17),
        (Math::Atan, 3.0, 1.2490457723982544, -2.196203799612311e-18),
        (Math::Atan, 10000000000.0, 1.5707963266948965, 6.950637705727703e-17),
        (Math::Atan, 1.0e300, 1.5707963267948966, 6.123233995736766e-17),
        (Math::Cbrt, 2.0, 1.2599210498948732, -2.589933375300507e-17),
        (Math::Cbrt, -0.1, -0.4641588833612779, 2.074809740501457e-17),
        (Math::Cbrt, 1.0e300, 1.0e100, 1.5986956419748883e82),
        (Math::Cbrt, 1.0e-300, 1.0e-100, -1.1638869190866631e-117),
        (Math::Degrees, 1.0, 57.29577951308232, -1.9878495670576283e-15),
        (Math::Degrees, -0.3, -17.188733853924695, -1.8861966511020849e-16),
        (Math::Radians, 1.0, 0.017453292519943295, 2.9486522708701687e-19),
        (Math::Radians, -0.3, -0.005235987755982988, -4.151061388075565e-19),
    ];
    for (op, x, high, low) in known {
        let off = off(super::of(*op, *x), Dd(*high, *low));
        assert!(off.abs() < 2f64.powi(-95), "{op:?} {x:e}: off by {off:e}");
    }
    #[rustfmt::skip]
    let known: &[(Math2, f64, f64, f64, f64)] = &[
        (Math2::Atan2, 1.0, 2.0, 0.4636476090008061, 2.2698777452961687e-17),
        (Math2::Atan2, -3.0, 0.5, -1.4056476493802699, 8.922630138234492e-17),
        (Math2::Atan2, 1.0, -10000000000.0, 3.141592653489793, 1.307387170146447e-16),
        (Math2::Atan2, 1.0e-05, -2.0, 3.1415876535897933, -2.5157647240983266e-17),
        (Math2::Atan2, -1.0e200, -1.0e200, -2.356194490192345, -9.184850993605148e-17),
        (Math2::Hypot, 1.0, 2.0, 2.23606797749979, -1.0864230407365012e-16),
        (Math2::Hypot, 1.0e200, -3.0e200, 3.1622776601683794e200, -1.5075257847173458e184),
        (Math2::Hypot, 0.1, 1.0e-20, 0.1, 4.999999999999999e-40),
    ];
    for (op, x, y, high, low) in known {
        let off = off(super::of2(*op, *x, *y), Dd(*high, *low));
        assert!(off.abs() < 2f64.powi(-95), "{op:?} {x:e} {y:e}: off by {off:e}");
    }
}

/// The difference, relative to the second.
fn off(Value { v, e }: Value, exact: Dd) -> f64 {
    (v.times_power(e) - exact).0 / exact.0
}
