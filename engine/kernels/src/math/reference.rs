//! The functions to some 95 bits, for tests: sums of two doubles and plain series, slow and simple.

mod circle;

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::{Math, Math2};

/// An unevaluated sum of two doubles, the second at most half an ulp of the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dd(pub f64, pub f64);

/// `v * 2^e`, so that no result is out of range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub v: Dd,
    pub e: i32,
}

const LN2: Dd = Dd(std::f64::consts::LN_2, 2.3190468138462996e-17);
const LN10: Dd = Dd(std::f64::consts::LN_10, -2.1707562233822494e-16);
const ONE: Dd = Dd(1.0, 0.0);

fn sum(a: f64, b: f64) -> Dd {
    let s = a + b;
    let t = s - a;
    Dd(s, (a - (s - t)) + (b - t))
}

impl From<f64> for Dd {
    fn from(a: f64) -> Dd {
        Dd(a, 0.0)
    }
}

impl Add for Dd {
    type Output = Dd;
    fn add(self, b: Dd) -> Dd {
        let (high, low) = (sum(self.0, b.0), sum(self.1, b.1));
        let t = sum(high.0, high.1 + low.0);
        sum(t.0, t.1 + low.1)
    }
}

impl Neg for Dd {
    type Output = Dd;
    fn neg(self) -> Dd {
        Dd(-self.0, -self.1)
    }
}

impl Sub for Dd {
    type Output = Dd;
    fn sub(self, b: Dd) -> Dd {
        self + -b
    }
}

impl Mul for Dd {
    type Output = Dd;
    fn mul(self, b: Dd) -> Dd {
        let p = self.0 * b.0;
        let low = self.0.mul_add(b.0, -p) + (self.0 * b.1 + self.1 * b.0);
        sum(p, low)
    }
}

impl Div for Dd {
    type Output = Dd;
    fn div(self, b: Dd) -> Dd {
        let q = self.0 / b.0;
        let rest = self - b * Dd(q, 0.0);
        let q2 = rest.0 / b.0;
        let rest = rest - b * Dd(q2, 0.0);
        Dd(q, 0.0) + sum(q2, rest.0 / b.0)
    }
}

impl Dd {
    fn sqrt(self) -> Dd {
        if self.0 == 0.0 {
            return self;
        }
        let r = self.0.sqrt();
        let rest = self - Dd(r, 0.0) * Dd(r, 0.0);
        Dd(r, 0.0) + Dd(rest.0 / (2.0 * r), 0.0)
    }

    /// Times 2^e, of a result that is normal.
    fn times_power(self, e: i32) -> Dd {
        let p = 2f64.powi(e);
        Dd(self.0 * p, self.1 * p)
    }
}

fn value(v: Dd) -> Value {
    Value { v, e: 0 }
}

/// The sum of x^n / n! over n = first, first + step, ...
fn series(x: Dd, first: u32, step: u32) -> Dd {
    let (mut term, mut total, mut n) = (ONE, Dd(0.0, 0.0), 0u32);
    while n <= 40 {
        if n >= first && (n - first).is_multiple_of(step) {
            total = total + term;
        }
        n += 1;
        term = term * x / Dd(f64::from(n), 0.0);
    }
    total
}

/// e^x; x up to 1000.
fn exp(x: Dd) -> Value {
    let k = (x.0 / LN2.0).round();
    Value { v: series(x - LN2 * k.into(), 0, 1), e: k as i32 }
}

/// log(1 + f), f above -0.3 and below 0.5.
fn log_near(f: Dd) -> Dd {
    let s = f / (Dd(2.0, 0.0) + f);
    let z = s * s;
    let mut total = Dd(0.0, 0.0);
    for n in (0..30).rev() {
        total = total * z + ONE / Dd(f64::from(2 * n + 1), 0.0);
    }
    Dd(2.0, 0.0) * s * total
}

/// x as e and what is left of it, between 0.7 and 1.42.
fn split(x: Dd) -> (f64, Dd) {
    let (x, shift) = if x.0 < 1e-290 { (x.times_power(200), 200) } else { (x, 0) };
    let mut e = (x.0.to_bits() >> 52) as i32 - 1023;
    if f64::from_bits(x.0.to_bits() & ((1 << 52) - 1) | 1023 << 52) > std::f64::consts::SQRT_2 {
        e += 1;
    }
    // In two steps: 2^-1024 is subnormal.
    (f64::from(e - shift), x.times_power(-(e / 2)).times_power(-(e - e / 2)))
}

/// log(x), x > 0.
fn log(x: Dd) -> Dd {
    let (e, m) = split(x);
    LN2 * e.into() + log_near(m - ONE)
}

/// log(1 + y).
fn log1p(y: Dd) -> Dd {
    if (-0.29..0.4).contains(&y.0) { log_near(y) } else { log(y + ONE) }
}

/// 2 sinh and 2 cosh of x > 0.3, as v 2^e.
fn twice(x: f64, sign: f64) -> Value {
    let Value { v, e } = exp(x.into());
    let other = if e < 60 { (ONE / v).times_power(-2 * e) } else { Dd(0.0, 0.0) };
    Value { v: v + other * sign.into(), e }
}

/// The value for an argument that has a finite one, other than 0.
pub(super) fn of(op: Math, x: f64) -> Value {
    let t = Dd(x.abs(), 0.0);
    let signed = |r: Value| if x < 0.0 { Value { v: -r.v, e: r.e } } else { r };
    match op {
        // Their series begin with x, and x^2 is nothing beside it.
        Math::Expm1 | Math::Log1p | Math::Sinh | Math::Tanh | Math::Asinh | Math::Atanh
            if t.0 < 1e-50 =>
        {
            let shifted = x * 2f64.powi(600);
            Value { v: shifted.into(), e: -600 }
        }
        Math::Exp => exp(x.into()),
        Math::Exp2 => {
            let k = x.round();
            Value { v: series(LN2 * (x - k).into(), 0, 1), e: k as i32 }
        }
        Math::Expm1 if t.0 < 0.4 => value(series(x.into(), 1, 1)),
        Math::Expm1 => {
            let Value { v, e } = exp(x.into());
            if e > 200 { Value { v, e } } else { value(v.times_power(e) - ONE) }
        }
        Math::Log => value(log(x.into())),
        Math::Log2 => {
            let (e, m) = split(x.into());
            value(Dd(e, 0.0) + log_near(m - ONE) / LN2)
        }
        Math::Log10 => value(log(x.into()) / LN10),
        Math::Log1p => value(log1p(x.into())),
        Math::Sinh if t.0 < 0.4 => value(series(x.into(), 1, 2)),
        Math::Sinh => {
            let Value { v, e } = twice(t.0, -1.0);
            signed(Value { v, e: e - 1 })
        }
        Math::Cosh if t.0 < 0.4 => value(series(x.into(), 0, 2)),
        Math::Cosh => {
            let Value { v, e } = twice(t.0, 1.0);
            Value { v, e: e - 1 }
        }
        Math::Tanh if t.0 < 0.4 => value(series(x.into(), 1, 2) / series(x.into(), 0, 2)),
        Math::Tanh => signed(value(twice(t.0, -1.0).v / twice(t.0, 1.0).v)),
        Math::Asinh if t.0 > 1e100 => signed(value(log(t) + LN2)),
        Math::Asinh => {
            let square = t * t;
            let root = (square + ONE).sqrt();
            signed(value(log1p(t + square / (ONE + root))))
        }
        Math::Acosh if t.0 > 1e100 => value(log(t) + LN2),
        Math::Acosh => {
            let d = Dd(x, 0.0) - ONE;
            value(log1p(d + (d * (d + Dd(2.0, 0.0))).sqrt()))
        }
        Math::Atanh => {
            let y = Dd(2.0, 0.0) * t / (ONE - t);
            signed(value(log1p(y) * Dd(0.5, 0.0)))
        }
        Math::Sin => circle::sin(x),
        Math::Cos => circle::cos(x),
        Math::Tan => circle::tan(x),
        Math::Asin => circle::asin(x),
        Math::Acos => circle::acos(x),
        Math::Atan => circle::atan(x),
        Math::Cbrt => circle::cbrt(x),
        Math::Degrees => circle::degrees(x),
        Math::Radians => circle::radians(x),
    }
}

/// The value for arguments whose result is finite; x is positive, |y log x| at most 1000.
pub(super) fn of2(op: Math2, x: f64, y: f64) -> Value {
    match op {
        Math2::Pow => exp(log(x.into()) * y.into()),
        Math2::Atan2 => circle::atan2(x, y),
        Math2::Hypot => circle::hypot(x, y),
    }
}

/// 2^e by two factors, exact where the result is representable.
fn scaled(x: f64, e: i32) -> f64 {
    x * 2f64.powi(e / 2) * 2f64.powi(e - e / 2)
}

/// By how many units in the last place of the exact value (of the smallest subnormal, where that
/// is larger) `got` is off.
pub(super) fn ulps(got: f64, exact: Value) -> f64 {
    let Value { v, e } = exact;
    if v.0 == 0.0 {
        return if got == 0.0 { 0.0 } else { f64::INFINITY };
    }
    let binade = ((v.0.to_bits() >> 52 & 0x7ff) as i32 - 1023) + e;
    if binade > 1023 {
        return if got == f64::INFINITY.copysign(v.0) { 0.0 } else { f64::INFINITY };
    }
    if !got.is_finite() {
        // Right if the exact value rounds beyond the greatest finite number.
        let last = scaled(v.0.abs(), e - 971);
        return if last >= 9_007_199_254_740_991.5 && got.is_infinite() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    let unit = binade.max(-1022) - 52;
    let difference = scaled(got, -unit) - scaled(v.0, e - unit);
    (difference - scaled(v.1, e - unit)).abs()
}

#[test]
fn the_reference_is_right_at_known_values() {
    // To 200 bits by mpmath, as sums of two doubles.
    #[rustfmt::skip]
    let known: &[(Math, f64, f64, f64)] = &[
        (Math::Exp, 1.0, std::f64::consts::E, 1.4456468917292502e-16),
        (Math::Exp, -0.3, 0.7408182206817179, -1.805530505953e-18),
        (Math::Exp, 300.7, 3.911566412479153e+130, -2.2210200263893878e+114),
        (Math::Exp, -600.1, 2.398177973791773e-261, 1.401323523828551e-277),
        (Math::Exp2, 0.3, 1.2311444133449163, -3.572339831433251e-17),
        (Math::Exp2, -0.75, 0.5946035575013605, 1.991007615732823e-17),
        (Math::Exp2, 500.49, 4.597296665548653e+150, -3.3314909186629708e+134),
        (Math::Exp2, -900.2, 1.0299067470761644e-271, -4.016362911464898e-289),
        (Math::Expm1, 1e-09, 1.0000000005000001e-09, -7.443897403844588e-26),
        (Math::Expm1, -0.3, -0.2591817793182821, -1.805530505953e-18),
        (Math::Expm1, 0.41, 0.5068177851128536, -3.966364052410938e-17),
        (Math::Expm1, 1.7, 4.4739473917272, -3.893534160478951e-16),
        (Math::Expm1, -5.5, -0.995913228561536, 3.509093811735772e-17),
        (Math::Expm1, 40.25, 3.022406653325598e+17, -5.292797156507318),
        (Math::Log, 0.8, -0.2231435513142097, 9.091270597324798e-18),
        (Math::Log, 1.0000001, 9.999999505838704e-08, 1.5249709528441489e-24),
        (Math::Log, 3.3, 1.1939224684724346, -5.282476628744736e-17),
        (Math::Log, 1e+300, 690.7755278982137, 2.3747660028800243e-14),
        (Math::Log, 1e-300, -690.7755278982137, -2.3670096176709832e-14),
        (Math::Log, 1.45, 0.371563556432483, -7.783881496976535e-18),
        (Math::Log2, 0.8, -0.3219280948873623, 2.4946213360529382e-17),
        (Math::Log2, 1.0000001, 1.4426949695965583e-07, 6.897421541207991e-24),
        (Math::Log2, 3.3, 1.722466024471091, 2.813015422403822e-17),
        (Math::Log2, 1e+300, 996.5784284662087, -1.5800929191358255e-14),
        (Math::Log2, 1e-200, -664.3856189774725, 4.845424041026962e-14),
        (Math::Log10, 0.8, -0.09691001300805639, 1.8192144726622092e-18),
        (Math::Log10, 1.0000001, 4.3429446044209946e-08, -1.4176686763728597e-24),
        (Math::Log10, 3.3, 0.5185139398778874, 4.597609981157568e-17),
        (Math::Log10, 1e+300, 300.0, 2.2802527652488452e-17),
        (Math::Log10, 1e-200, -200.0, -7.77375726759451e-18),
        (Math::Log1p, 1e-20, 1e-20, -5e-41),
        (Math::Log1p, -0.28, -0.3285040669720361, 7.733514081347257e-18),
        (Math::Log1p, -0.35, -0.4307829160924542, 3.4431602150145713e-18),
        (Math::Log1p, 0.39, 0.3293037471426004, -1.2730832726748669e-17),
        (Math::Log1p, 0.41, 0.3435897043900769, -1.81427225919764e-17),
        (Math::Log1p, 7.7, 2.1633230256605382, -1.907951026379273e-16),
        (Math::Log1p, 1e+200, 460.51701859880916, -2.2129109272629473e-14),
        (Math::Sinh, 1e-10, 1e-10, 1.6666666666666669e-31),
        (Math::Sinh, 0.39, 0.39996195969223897, -1.3430453688905204e-17),
        (Math::Sinh, 0.41, 0.4215837674882671, -1.2231541855774394e-17),
        (Math::Sinh, -1.5, -2.1292794550948173, -1.8859829935660394e-16),
        (Math::Sinh, 30.0, 5343237290762.231, -0.0003718172657214174),
        (Math::Sinh, 700.0, 5.0711602736750225e+303, 8.333285960367336e+286),
        (Math::Cosh, 0.001, 1.0000005000000416, 7.443797190204747e-17),
        (Math::Cosh, 0.39, 1.0770188341904037, -2.948592119820409e-17),
        (Math::Cosh, 0.41, 1.0852340176245865, -2.7432098668334984e-17),
        (Math::Cosh, -1.5, 2.352409615243247, 1.1621929620875948e-16),
        (Math::Cosh, 30.0, 5343237290762.231, -0.0003718172656278412),
        (Math::Cosh, 700.0, 5.0711602736750225e+303, 8.333285960367336e+286),
        (Math::Tanh, 1e-10, 1e-10, -3.3333333333333338e-31),
        (Math::Tanh, 0.39, 0.3713602278765077, 6.876519780740536e-18),
        (Math::Tanh, 0.41, 0.388472680216061, -2.1044315858074648e-17),
        (Math::Tanh, -1.5, -0.9051482536448664, -4.1992024501810215e-17),
        (Math::Tanh, 15.0, 0.9999999999998128, 3.114257501541364e-17),
        (Math::Asinh, 1e-10, 1e-10, -1.6666666666666669e-31),
        (Math::Asinh, 0.1, 0.09983407889920756, 6.565457464795216e-18),
        (Math::Asinh, -0.7, -0.6526665660823557, -1.3538893500858175e-17),
        (Math::Asinh, 5.0, 2.3124383412727525, 1.2468368687752106e-16),
        (Math::Asinh, 1000000000.0, 21.416413017506358, -1.1530840156679519e-15),
        (Math::Asinh, 1e+150, 346.0809111296668, 9.964224556720654e-15),
        (Math::Acosh, 1.0000001, 0.0004472135919037347, 2.6565376465076346e-20),
        (Math::Acosh, 1.3, 0.7564329108569596, 1.1427849269101678e-17),
        (Math::Acosh, 5.0, 2.2924316695611777, -3.2794636723051895e-17),
        (Math::Acosh, 1000000000.0, 21.416413017506358, -1.153584015667952e-15),
        (Math::Acosh, 1e+150, 346.0809111296668, 9.964224556720654e-15),
        (Math::Atanh, 1e-10, 1e-10, 3.3333333333333338e-31),
        (Math::Atanh, 0.1, 0.10033534773107558, 5.885373156284691e-18),
        (Math::Atanh, -0.3, -0.3095196042031117, -5.4139184190139844e-18),
        (Math::Atanh, 0.5, 0.5493061443340549, -4.535648617500765e-17),
        (Math::Atanh, 0.99999, 6.1030338227611125, -1.3507640961572655e-16),
    ];
    for (op, x, high, low) in known {
        let Value { v, e } = of(*op, *x);
        let off = (v.times_power(e) - Dd(*high, *low)).0 / high;
        assert!(off.abs() < 2f64.powi(-95), "{op:?} {x:e}: off by {off:e}");
    }
    #[rustfmt::skip]
    let known: &[(f64, f64, f64, f64)] = &[
        (1.1, 7000.0, 5.607846372419733e+289, 2.8668908731330123e+273),
        (0.3, -2.5, 20.286020648339488, -3.2722671382730357e-17),
        (1e-300, 0.9, 9.999999999999847e-271, -1.6458000817108552e-287),
        (1.0000000001, 1000000000000.0, 2.6881393700484107e+43, 2.4447477752464845e+26),
        (3.7, 500.25, 1.7494940287346525e+284, -1.5702764047877134e+268),
        (0.999, 100000.0, 3.5385276883431275e-44, 2.2205759482325913e-60),
    ];
    for (x, y, high, low) in known {
        let Value { v, e } = of2(Math2::Pow, *x, *y);
        let off = (v.times_power(e) - Dd(*high, *low)).0 / high;
        assert!(off.abs() < 2f64.powi(-90), "{x:e} ^ {y:e}: off by {off:e}");
    }
}
