//! Accuracy, special values, exact cases, agreement of levels and lanes, and machine code of the
//! transcendental functions. `POINTS=10000000` tests at so many arguments each.

mod circle;

use std::ptr::null;

use super::reference::{self, Value, ulps};
use super::*;
use crate::testing::{Rng, bytes};
use crate::tile::TILE_MAX;

/// Arguments per function, unless the environment asks for more.
fn points() -> usize {
    std::env::var("POINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

fn run<T: Native>(f: TileFn, x: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len()];
    for (from, to) in x.chunks(TILE_MAX).zip(out.chunks_mut(TILE_MAX)) {
        // SAFETY: operand and destination have as many values as the tile has rows.
        unsafe { f(to.as_mut_ptr().cast(), &[bytes(from), null(), null(), null()], from.len()) };
    }
    out
}

fn run2<T: Native>(f: TileFn, x: &[T], y: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len()];
    let operands = x.chunks(TILE_MAX).zip(y.chunks(TILE_MAX));
    for ((x, y), to) in operands.zip(out.chunks_mut(TILE_MAX)) {
        // SAFETY: as above.
        unsafe { f(to.as_mut_ptr().cast(), &[bytes(x), bytes(y), null(), null()], x.len()) };
    }
    out
}

/// Around which arguments something changes, and the span of those worth a closer look.
fn interesting(op: Math) -> (&'static [f64], f64) {
    const TINY: f64 = f64::MIN_POSITIVE;
    match op {
        Math::Exp => (&[709.782712893384, -708.396418532264, -745.133219101941, 0.0], 745.0),
        Math::Exp2 => (&[1024.0, -1022.0, -1074.0, -1075.0, 0.5, 0.0], 1075.0),
        Math::Expm1 => (&[709.782712893384, -37.4, 0.3466, -0.3466, 1.04, 0.0], 45.0),
        Math::Log | Math::Log2 | Math::Log10 => {
            (&[1.0, std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::SQRT_2, TINY, 10.0], 4.0)
        }
        Math::Log1p => {
            (&[0.0, -1.0, 0.4142135623730951, -0.2928932188134524, 9007199254740992.0], 4.0)
        }
        Math::Sinh | Math::Cosh => (&[710.4758600739439, 0.3466, 1.04, 22.0, 0.0], 25.0),
        Math::Tanh => (&[0.3466, 1.04, 19.06, 22.0, 0.0], 20.0),
        Math::Asinh => (&[0.0, 0.35, 0.7, 1.0, 1152921504606846976.0], 4.0),
        Math::Acosh => (&[1.0, 1.0606, 2.0, 1152921504606846976.0], 8.0),
        Math::Atanh => (&[0.0, 0.171, 0.5, 1.0, -1.0], 1.0),
        Math::Sin | Math::Cos | Math::Tan => {
            (&[std::f64::consts::FRAC_PI_2, std::f64::consts::FRAC_PI_4, 1099511627776.0, 0.0], 1e6)
        }
        Math::Asin | Math::Acos => (&[0.0, 0.5, -0.5, 1.0, -1.0], 1.0),
        Math::Atan => (&[0.0, 0.41421356237309503, 1.0, 2.414213562373095, -1e30], 10.0),
        Math::Cbrt => (&[1.0, 2.0, 8.0, TINY, 0.0], 1e6),
        Math::Degrees | Math::Radians => (&[0.0, TINY, f64::MAX], 1e6),
    }
}

/// Arguments of all sizes that are in the function's domain.
fn arguments(op: Math, n: usize) -> Vec<f64> {
    let mut rng = Rng(op as u64 + 1);
    let (places, span) = interesting(op);
    let mut x = Vec::with_capacity(n);
    while x.len() < n {
        let v = match rng.below(8) {
            0 => f64::from_bits(rng.next()),
            1 => places[rng.below(places.len())] * (1.0 + (rng.unit() - 0.5) * 1e-3),
            2 => {
                let place = places[rng.below(places.len())];
                f64::from_bits(place.to_bits().wrapping_add(rng.next() % 2001).wrapping_sub(1000))
            }
            3 => {
                places[rng.below(places.len())]
                    + (rng.unit() - 0.5) * 2f64.powi(-(rng.below(60) as i32))
            }
            4 => (rng.unit() - 0.5) * 2f64.powi(-(rng.below(60) as i32)),
            5 => (rng.unit() - 0.5) * 2.0,
            _ => (rng.unit() - 0.5) * 2.0 * span,
        };
        x.push(v);
    }
    x
}

/// Whether the function has a finite value other than 0 there, so that the reference knows it.
fn is_plain(op: Math, x: f64) -> bool {
    if !x.is_finite() || x == 0.0 {
        return false;
    }
    match op {
        Math::Exp => x.abs() < 990.0,
        Math::Exp2 => x.abs() < 1400.0,
        Math::Expm1 | Math::Sinh | Math::Cosh => x.abs() < 990.0,
        Math::Log | Math::Log2 | Math::Log10 => x > 0.0 && x != 1.0,
        Math::Log1p => x > -1.0,
        Math::Tanh => x.abs() < 400.0,
        Math::Asinh => true,
        Math::Acosh => x > 1.0,
        Math::Atanh => x.abs() < 1.0,
        Math::Asin | Math::Acos => x.abs() <= 1.0,
        Math::Sin | Math::Cos | Math::Tan | Math::Atan | Math::Cbrt => true,
        Math::Degrees | Math::Radians => true,
    }
}

#[test]
fn f64_is_within_two_ulps() {
    let mut failures = Vec::new();
    for op in Math::ALL {
        let x = arguments(*op, points());
        let exact: Vec<Option<Value>> =
            x.iter().map(|x| is_plain(*op, *x).then(|| reference::of(*op, *x))).collect();
        for level in Level::available() {
            let got = run(math(*op, Prim::F64, level).unwrap(), &x);
            let (mut worst, mut at) = (0.0, 0.0);
            for ((x, got), exact) in x.iter().zip(&got).zip(&exact) {
                let Some(exact) = exact else { continue };
                let off = ulps(*got, *exact);
                if off > worst {
                    (worst, at) = (off, *x);
                }
            }
            println!("{op:?} {level:?}: {worst:.3} at {at:e}");
            if worst > most_ulps(*op) {
                failures.push(format!("{op:?} {level:?}: {worst} ulp at {at:e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// What is promised is 2; what was found is less, and to be kept.
fn most_ulps(op: Math) -> f64 {
    match op {
        Math::Exp => 1.0,
        Math::Exp2 => 1.1,
        Math::Log | Math::Log2 | Math::Log10 => 1.0,
        Math::Sin | Math::Cos | Math::Tan | Math::Atan | Math::Cbrt => 1.0,
        Math::Asin | Math::Acos | Math::Degrees | Math::Radians => 1.5,
        _ => 2.0,
    }
}

/// A function of f64, to be rounded to f32.
type Exact = fn(f64) -> f64;

#[test]
fn f32_is_within_two_ulps() {
    // All of them are 4,294,967,296 / 2; a prime stride meets every exponent.
    let n = points() as u64;
    let stride = ((1 << 32) / (4 * n)).max(1) | 1;
    let x: Vec<f32> = (0..=u64::from(u32::MAX))
        .step_by(stride as usize)
        .map(|bits| f32::from_bits(bits as u32))
        .collect();
    let std: &[(Math, Exact)] = &[
        (Math::Exp, f64::exp),
        (Math::Exp2, f64::exp2),
        (Math::Expm1, f64::exp_m1),
        (Math::Log, f64::ln),
        (Math::Log2, f64::log2),
        (Math::Log10, f64::log10),
        (Math::Log1p, f64::ln_1p),
        (Math::Sinh, f64::sinh),
        (Math::Cosh, f64::cosh),
        (Math::Tanh, f64::tanh),
        // Those of std lose digits near 0.
        (Math::Asinh, |x| (x.abs() + x * x / (1.0 + x.hypot(1.0))).ln_1p().copysign(x)),
        (Math::Acosh, |x| if x < 1.0 { f64::NAN } else { x.acosh() }),
        (Math::Atanh, |x| 0.5 * (2.0 * x.abs() / (1.0 - x.abs())).ln_1p().copysign(x)),
        (Math::Sin, f64::sin),
        (Math::Cos, f64::cos),
        (Math::Tan, f64::tan),
        (Math::Asin, f64::asin),
        (Math::Acos, f64::acos),
        (Math::Atan, f64::atan),
        (Math::Cbrt, f64::cbrt),
        (Math::Degrees, f64::to_degrees),
        (Math::Radians, f64::to_radians),
    ];
    for (op, exact) in std {
        for level in Level::available() {
            let got = run(math(*op, Prim::F32, level).unwrap(), &x);
            let (mut worst, mut at) = (0.0, 0.0);
            for (x, got) in x.iter().zip(&got) {
                let exact = exact(f64::from(*x));
                let off = ulps_f32(*got, exact);
                if off > worst {
                    (worst, at) = (off, *x);
                }
            }
            println!("{op:?} {level:?} f32: {worst:.3} at {at:e}");
            assert!(worst <= 0.6, "{op:?} {level:?} f32: {worst} ulp at {at:e}");
        }
    }
}

/// By how many units in the last place of an f32 `got` is off.
fn ulps_f32(got: f32, exact: f64) -> f64 {
    if got.is_nan() || exact.is_nan() {
        return if got.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got.is_infinite() || exact.is_infinite() {
        return if exact as f32 == got { 0.0 } else { f64::INFINITY };
    }
    let binade = (exact.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    if binade > 127 {
        return f64::INFINITY;
    }
    (f64::from(got) - exact).abs() / 2f64.powi(binade.max(-126) - 23)
}

/// Bases and exponents, most with a power in range.
fn powers(n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut rng = Rng(77);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let base = match rng.below(6) {
            0 => f64::from_bits(rng.next() >> 1),
            1 => 1.0 + (rng.unit() - 0.5) * 2f64.powi(-(rng.below(52) as i32)),
            2 => (1 + rng.below(100)) as f64,
            3 => f64::from_bits(rng.next() % (1 << 52)),
            _ => rng.unit() * 4.0,
        };
        let log = base.ln();
        let exponent = match rng.below(6) {
            0 => f64::from_bits(rng.next()),
            1 => rng.below(64) as f64 - 32.0,
            // To the ends of the range.
            2 => {
                (if rng.below(2) == 0 { 709.78 } else { -745.1 }) / log
                    * (1.0 + (rng.unit() - 0.5) * 1e-3)
            }
            3 => (rng.unit() - 0.5) * 1490.0 / log,
            _ => (rng.unit() - 0.5) * 100.0,
        };
        x.push(base);
        y.push(exponent);
    }
    (x, y)
}

#[test]
fn powers_are_within_one_ulp() {
    let (x, y) = powers(points());
    let plain =
        |x: f64, y: f64| x.is_finite() && x > 0.0 && y.is_finite() && (x.ln() * y).abs() < 990.0;
    let exact: Vec<Option<Value>> = x
        .iter()
        .zip(&y)
        .map(|(x, y)| plain(*x, *y).then(|| reference::of2(Math2::Pow, *x, *y)))
        .collect();
    for level in Level::available() {
        let got = run2(math2(Math2::Pow, Prim::F64, level).unwrap(), &x, &y);
        let mut worst = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            let Some(exact) = exact[i] else { continue };
            let off = ulps(got[i], exact);
            if off > worst.0 {
                worst = (off, x[i], y[i]);
            }
        }
        println!("Pow {level:?}: {worst:?}");
        assert!(worst.0 <= 1.0, "{level:?}: {worst:?}");
    }
}

#[test]
fn powers_of_f32_are_within_one_ulp() {
    let (x, y) = powers(points());
    let (x, y): (Vec<f32>, Vec<f32>) =
        (x.iter().map(|x| *x as f32).collect(), y.iter().map(|y| (y / 7.0) as f32).collect());
    for level in Level::available() {
        let got = run2(math2(Math2::Pow, Prim::F32, level).unwrap(), &x, &y);
        let mut worst = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            let off = ulps_f32(got[i], f64::from(x[i]).powf(f64::from(y[i])));
            if off > worst.0 {
                worst = (off, x[i], y[i]);
            }
        }
        println!("Pow {level:?} f32: {worst:?}");
        assert!(worst.0 <= 0.6, "{level:?}: {worst:?}");
    }
}

/// Special arguments and what IEEE 754 and C99 say of them.
#[test]
fn special_values_are_those_of_ieee_754() {
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    let all: &[(Math, &[(f64, f64)])] = &[
        (
            Math::Exp,
            &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e300, INF), (-1e300, 0.0)],
        ),
        (
            Math::Exp2,
            &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e300, INF), (-1e300, 0.0)],
        ),
        (
            Math::Expm1,
            &[(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (1e300, INF), (-1e300, -1.0)],
        ),
        (
            Math::Log,
            &[
                (0.0, -INF),
                (-0.0, -INF),
                (1.0, 0.0),
                (INF, INF),
                (-INF, NAN),
                (-1.0, NAN),
                (-1e-300, NAN),
            ],
        ),
        (
            Math::Log2,
            &[(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN)],
        ),
        (
            Math::Log10,
            &[(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN)],
        ),
        (
            Math::Log1p,
            &[(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-INF, NAN), (-1.5, NAN)],
        ),
        (
            Math::Sinh,
            &[(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (1e30, INF), (-1e30, -INF)],
        ),
        (
            Math::Cosh,
            &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF), (1e30, INF), (-1e30, INF)],
        ),
        (
            Math::Tanh,
            &[(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e30, 1.0), (-1e30, -1.0)],
        ),
        (Math::Asinh, &[(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)]),
        (Math::Acosh, &[(1.0, 0.0), (0.5, NAN), (-2.0, NAN), (-INF, NAN), (INF, INF), (0.0, NAN)]),
        (
            Math::Atanh,
            &[
                (0.0, 0.0),
                (-0.0, -0.0),
                (1.0, INF),
                (-1.0, -INF),
                (1.5, NAN),
                (INF, NAN),
                (-INF, NAN),
            ],
        ),
        (Math::Sin, &[(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)]),
        (Math::Cos, &[(0.0, 1.0), (-0.0, 1.0), (1e-300, 1.0), (INF, NAN), (-INF, NAN)]),
        (Math::Tan, &[(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)]),
        (Math::Asin, &[(0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-1.5, NAN), (INF, NAN), (-INF, NAN)]),
        (Math::Acos, &[(1.0, 0.0), (1.5, NAN), (-1.5, NAN), (INF, NAN), (-INF, NAN)]),
        (Math::Atan, &[(0.0, 0.0), (-0.0, -0.0)]),
        (Math::Cbrt, &[(0.0, 0.0), (-0.0, -0.0), (-27.0, -3.0), (INF, INF), (-INF, -INF)]),
        (Math::Degrees, &[(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)]),
        (Math::Radians, &[(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)]),
    ];
    assert_eq!(all.len(), Math::ALL.len());
    for (op, cases) in all {
        for level in Level::available() {
            let x: Vec<f64> = cases.iter().map(|c| c.0).chain([NAN, -NAN]).collect();
            let wide = run(math(*op, Prim::F64, level).unwrap(), &x);
            let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
            let narrow = run(math(*op, Prim::F32, level).unwrap(), &narrow);
            for (i, expected) in cases.iter().map(|c| c.1).chain([NAN, NAN]).enumerate() {
                assert_same(wide[i], expected, &format!("{op:?}({:e}) {level:?}", x[i]));
                // The tiny negative argument is a zero as an f32.
                if x[i] as f32 != 0.0 || x[i] == 0.0 {
                    let what = format!("{op:?}({:e}) {level:?} f32", x[i]);
                    assert_same(f64::from(narrow[i]), expected, &what);
                }
            }
        }
    }
}

fn assert_same(got: f64, expected: f64, what: &str) {
    let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
    assert!(same, "{what} is {got:e}, not {expected:e}");
}

#[test]
fn special_powers_are_those_of_c99() {
    const INF: f64 = f64::INFINITY;
    let bases = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        2.0,
        -2.0,
        INF,
        -INF,
        f64::NAN,
        5e-324,
        -1e308,
        1.0000000000000002,
    ];
    let exponents = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.5,
        -0.5,
        2.5,
        INF,
        -INF,
        f64::NAN,
        1e300,
        -1e300,
        4503599627370497.0,
        4503599627370496.0,
        9007199254740991.0,
        -9007199254740991.0,
        9007199254740992.0,
        9007199254740994.0,
        4503599627370495.5,
        1e-300,
        5e-324,
    ];
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for b in bases {
        for e in exponents {
            x.push(b);
            y.push(e);
        }
    }
    for level in Level::available() {
        let got = run2(math2(Math2::Pow, Prim::F64, level).unwrap(), &x, &y);
        for i in 0..x.len() {
            // The operating system's is C's, and exact in all of these but for the last digits.
            let expected = x[i].powf(y[i]);
            let near = (got[i] - expected).abs() <= 1e-15 * expected.abs() && expected != 0.0;
            if !near {
                assert_same(got[i], expected, &format!("{:e} ^ {:e} {level:?}", x[i], y[i]));
            }
        }
        let (x, y): (Vec<f32>, Vec<f32>) =
            x.iter().zip(&y).map(|(x, y)| (*x as f32, *y as f32)).unzip();
        let got = run2(math2(Math2::Pow, Prim::F32, level).unwrap(), &x, &y);
        for i in 0..x.len() {
            let expected = x[i].powf(y[i]);
            let near = (got[i] - expected).abs() <= 1e-6 * expected.abs() && expected != 0.0;
            if !near {
                let what = format!("{:e} ^ {:e} {level:?} f32", x[i], y[i]);
                assert_same(f64::from(got[i]), f64::from(expected), &what);
            }
        }
    }
}

#[test]
fn exact_results_are_exact() {
    for level in Level::available() {
        let whole: Vec<f64> = (-1074..1024).map(f64::from).collect();
        let power: Vec<f64> = whole.iter().map(|e| power_of_two(*e as i32)).collect();
        let of = |op, x: &[f64]| run(math(op, Prim::F64, level).unwrap(), x);
        assert_eq!(of(Math::Exp2, &whole), power, "{level:?}");
        assert_eq!(of(Math::Log2, &power), whole, "{level:?}");
        let tens: Vec<f64> = (-307..309).map(f64::from).collect();
        let powers: Vec<f64> = tens.iter().map(|e| format!("1e{e}").parse().unwrap()).collect();
        assert_eq!(of(Math::Log10, &powers), tens, "{level:?}");

        let of = |op, x: &[f32]| run(math(op, Prim::F32, level).unwrap(), x);
        let whole: Vec<f32> = (-149i16..128).map(f32::from).collect();
        let power: Vec<f32> = whole.iter().map(|e| power_of_two(*e as i32) as f32).collect();
        assert_eq!(of(Math::Exp2, &whole), power, "{level:?}");
        assert_eq!(of(Math::Log2, &power), whole, "{level:?}");
        let tens: Vec<f32> = (-37i16..39).map(f32::from).collect();
        let powers: Vec<f32> = tens.iter().map(|e| format!("1e{e}").parse().unwrap()).collect();
        assert_eq!(of(Math::Log10, &powers), tens, "{level:?}");

        // Powers of integers that a double holds, and squares.
        let (mut x, mut y, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for base in -40i64..=40 {
            for exponent in 0..35u32 {
                if let Some(power) = base.checked_pow(exponent)
                    && power.unsigned_abs() < 1 << 53
                {
                    x.push(base as f64);
                    y.push(f64::from(exponent));
                    expected.push(power as f64);
                }
            }
        }
        let mut rng = Rng(5);
        for _ in 0..1000 {
            let v = (rng.unit() - 0.5) * 1e6;
            x.push(v);
            y.push(1.0);
            expected.push(v);
            let v = f64::from_bits(rng.next());
            x.push(v);
            y.push(2.0);
            expected.push(v * v);
            let v = rng.below(1 << 26) as f64 / 64.0;
            x.push(v);
            y.push(2.0);
            expected.push(v * v);
            x.push(v * v);
            y.push(0.5);
            expected.push(v);
        }
        let got = run2(math2(Math2::Pow, Prim::F64, level).unwrap(), &x, &y);
        for i in 0..x.len() {
            assert_same(got[i], expected[i], &format!("{} ^ {} {level:?}", x[i], y[i]));
        }
    }
}

fn power_of_two(e: i32) -> f64 {
    if e < -1022 { f64::from_bits(1 << (e + 1074)) } else { 2f64.powi(e) }
}

/// A value comes out the same alone, in any lane, beside any neighbours, and at v3 as at v4.
#[test]
fn bits_depend_on_the_argument_alone() {
    fn same<T: Native>(a: &[T], b: &[T]) -> bool {
        a.iter().zip(b).all(|(a, b)| a.to_bits64() == b.to_bits64() || a.is_nan() && b.is_nan())
    }
    for op in Math::ALL {
        let x = arguments(*op, 1000);
        let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        for level in Level::available() {
            let f = math(*op, Prim::F64, level).unwrap();
            let whole = run(f, &x);
            let alone: Vec<f64> = x.iter().flat_map(|x| run(f, &[*x])).collect();
            assert!(same(&whole, &alone), "{op:?} {level:?}");
            let f = math(*op, Prim::F32, level).unwrap();
            let whole = run(f, &narrow);
            let alone: Vec<f32> = narrow.iter().flat_map(|x| run(f, &[*x])).collect();
            assert!(same(&whole, &alone), "{op:?} {level:?} f32");
        }
        let at = |level| run(math(*op, Prim::F64, level).unwrap(), &x);
        assert!(same(&at(Level::V3), &at(Level::V4)), "{op:?}");
    }
    let (x, y) = powers(1000);
    for level in Level::available() {
        let f = math2(Math2::Pow, Prim::F64, level).unwrap();
        let alone: Vec<f64> = x.iter().zip(&y).flat_map(|(x, y)| run2(f, &[*x], &[*y])).collect();
        assert!(same(&run2(f, &x, &y), &alone), "{level:?}");
    }
}

#[test]
fn only_floats_have_them() {
    for p in Prim::ALL {
        for op in Math::ALL {
            assert_eq!(math(*op, p, Level::Baseline).is_some(), p.is_float());
        }
        for op in Math2::ALL {
            assert_eq!(math2(*op, p, Level::Baseline).is_some(), p.is_float());
        }
    }
}
