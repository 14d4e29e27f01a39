//! exp, exp2 and expm1.
//!
//! x = k ln 2 + r with |r| <= ln 2 / 2, then e^x = 2^k (1 + r + r^2 q(r)): Cody and Waite's
//! reduction and one polynomial, no table.

use super::{fast_two_sum, fma, poly};

/// 1.5 * 2^52: added to a number of up to 51 bits it leaves the nearest integer in the low bits of
/// the sum.
const MAGIC: f64 = 6_755_399_441_055_744.0;
const LOG2_E: f64 = std::f64::consts::LOG2_E;
/// ln 2 to 40 bits, so that its product with an exponent is exact, and the rest.
pub(super) const LN2_HIGH: f64 = 0.6931471805601177;
pub(super) const LN2_LOW: f64 = -1.7239444525614835e-13;

/// An integer as `MAGIC + k`.
#[derive(Clone, Copy)]
pub(super) struct Whole(f64);

impl Whole {
    /// The integer nearest to `a * b`, below 2^51.
    #[inline(always)]
    pub(super) fn nearest_product<const FMA: bool>(a: f64, b: f64) -> Whole {
        Whole(fma::<FMA>(a, b, MAGIC))
    }

    #[inline(always)]
    pub(super) fn get(self) -> f64 {
        self.0 - MAGIC
    }

    #[inline(always)]
    pub(super) fn minus_one(self) -> Whole {
        Whole(self.0 - 1.0)
    }

    /// The integer, but at most `most`.
    #[inline(always)]
    pub(super) fn at_most(self, most: f64) -> Whole {
        let most = MAGIC + most;
        Whole(if self.0 < most { self.0 } else { most })
    }

    /// The integer plus `bias`, in two's complement.
    #[inline(always)]
    pub(super) fn biased(self, bias: u64) -> u64 {
        self.0.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(bias)
    }

    /// 2^-(times k), for results that are normal.
    #[inline(always)]
    pub(super) fn inverse_power(self, times: u64) -> f64 {
        f64::from_bits(1023u64.wrapping_sub(self.biased(0).wrapping_mul(times)) << 52)
    }

    /// v * 2^k, for |k| up to 2000: by two factors, so that a subnormal result is rounded once and
    /// an overflow is an infinity.
    #[inline(always)]
    pub(super) fn scale(self, v: f64) -> f64 {
        let n = self.biased(2048);
        let half = n >> 1;
        let rest = n.wrapping_sub(half);
        let power = |n: u64| f64::from_bits(n.wrapping_sub(1) << 52);
        v * power(half) * power(rest)
    }
}

/// `x`, but at least `low` and at most `high`; NaN stays NaN.
#[inline(always)]
pub(super) fn clamp(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// k, and x - k ln 2 as a number and what it was rounded by. |x| up to 1000.
#[inline(always)]
pub(super) fn reduce<const FMA: bool>(x: f64) -> (Whole, f64, f64) {
    let whole = Whole::nearest_product::<FMA>(x, LOG2_E);
    let k = whole.get();
    // Exact: the product by the choice of LN2_HIGH, the difference by Sterbenz's lemma or k = 0.
    let t = fma::<FMA>(-k, LN2_HIGH, x);
    let w = k * LN2_LOW;
    let r = t - w;
    (whole, r, (t - r) - w)
}

/// (e^r - 1 - r) / r^2 for |r| <= 0.3467.
#[inline(always)]
pub(super) fn tail<const FMA: bool>(r: f64) -> f64 {
    // By the Remez algorithm, rounded last of all; off by at most 2^-60.8 of e^r.
    const C: [f64; 11] = [
        0.5,
        0.16666666666666682,
        0.04166666666666671,
        0.00833333333331805,
        0.0013888888888861097,
        0.00019841269894362872,
        2.4801587369952632e-05,
        2.7557236542403818e-06,
        2.7557235875766584e-07,
        2.511153691936988e-08,
        2.092631015233472e-09,
    ];
    poly::<FMA, _>(r, &C)
}

/// e^x.
///
/// Error: 1/2 ulp of the last sum, up to 1/4 of the one before, and a little of the polynomial.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f64) -> f64 {
    // Beyond these the result is 0 or infinite, and comes out so.
    let (whole, r, low) = reduce::<FMA>(clamp(x, -746.0, 710.0));
    whole.scale(1.0 + (r + fma::<FMA>(r * r, tail::<FMA>(r), low)))
}

/// 2^x; exact for integers.
#[inline(always)]
pub(super) fn exp2<const FMA: bool>(x: f64) -> f64 {
    // (2^r - 1 - r ln 2) / r^2 for |r| <= 1/2.
    // By the Remez algorithm, rounded last of all; off by at most 2^-56.7 of 2^r.
    const C: [f64; 10] = [
        0.24022650695910117,
        0.05550410866482167,
        0.009618129107599124,
        0.001333355814639054,
        0.00015403530451775884,
        1.5252733859121379e-05,
        1.3215437605813074e-06,
        1.0178049288561159e-07,
        7.0734268112161525e-09,
        4.4570309041927524e-10,
    ];
    const LN2: f64 = std::f64::consts::LN_2;
    /// What LN2 was rounded by.
    const LN2_REST: f64 = 2.3190468138462996e-17;
    let x = clamp(x, -1076.0, 1025.0);
    let whole = Whole::nearest_product::<FMA>(x, 1.0);
    // Exact.
    let r = x - whole.get();
    let low = r * fma::<FMA>(r, poly::<FMA, _>(r, &C), LN2_REST);
    whole.scale(1.0 + fma::<FMA>(r, LN2, low))
}

/// e^x - 1, accurately also near 0.
///
/// As 2^k ((1 - 2^-k) + r + s): the first sum keeps what it is rounded by.
#[inline(always)]
pub(super) fn expm1<const FMA: bool>(x: f64) -> f64 {
    // Below -40 it is -1.
    let (whole, r, low) = reduce::<FMA>(clamp(x, -40.0, 710.0));
    let s = fma::<FMA>(r * r, tail::<FMA>(r), low);
    let one_less = 1.0 - whole.at_most(64.0).inverse_power(1);
    let (high, rest) = fast_two_sum(one_less, r);
    // The sign is that of x; it is said for -0.
    whole.scale(high + (rest + s)).copysign(x)
}

// Of an f32, in f64 throughout: half an ulp of the f32 and some thousandths.

/// 2^k and 2^r - 1, where y = k + r and |y| is below 1000.
#[inline(always)]
pub(super) fn short_power<const FMA: bool>(y: f64) -> (f64, f64) {
    // By the Remez algorithm, rounded last of all; off by at most 2^-31.7 of 2^r - 1.
    const C: [f64; 7] = [
        0.693147180553742,
        0.24022650922386912,
        0.055504109286305725,
        0.009618056662905765,
        0.001333345469542244,
        0.00015461450053871713,
        1.531004060676318e-05,
    ];
    let whole = Whole::nearest_product::<FMA>(y, 1.0);
    let r = y - whole.get();
    (f64::from_bits(whole.biased(1023) << 52), r * poly::<FMA, _>(r, &C))
}

/// 2^y as an f32 rounds it, and 2^y - 1.
#[inline(always)]
fn short_exp<const FMA: bool>(y: f64) -> (f64, f64) {
    let y = clamp(y, -160.0, 160.0);
    let (power, part) = short_power::<FMA>(y);
    (fma::<FMA>(power, part, power), fma::<FMA>(power, part, power - 1.0))
}

/// e^x.
#[inline(always)]
pub(super) fn exp_f32<const FMA: bool>(x: f32) -> f32 {
    short_exp::<FMA>(f64::from(x) * LOG2_E).0 as f32
}

/// 2^x; exact for integers.
#[inline(always)]
pub(super) fn exp2_f32<const FMA: bool>(x: f32) -> f32 {
    short_exp::<FMA>(f64::from(x)).0 as f32
}

/// e^x and e^x - 1 in f64, accurate enough for an f32, also near 0; |x| is taken as at most 110.
#[inline(always)]
pub(super) fn both_f32<const FMA: bool>(x: f64) -> (f64, f64) {
    short_exp::<FMA>(x * LOG2_E)
}

/// e^x - 1, accurately also near 0.
#[inline(always)]
pub(super) fn expm1_f32<const FMA: bool>(x: f32) -> f32 {
    (both_f32::<FMA>(f64::from(x)).1 as f32).copysign(x)
}
