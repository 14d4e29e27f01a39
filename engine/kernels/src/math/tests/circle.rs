//! Angles next to multiples of pi/2 and huge ones; the functions of two values.

use std::f64::consts::FRAC_PI_2;

use super::*;

const TURNING: [Math; 3] = [Math::Sin, Math::Cos, Math::Tan];

fn worst_of(op: Math, x: &[f64]) {
    let exact: Vec<Value> = x.iter().map(|x| reference::of(op, *x)).collect();
    for level in Level::available() {
        let got = run(math(op, Prim::F64, level).unwrap(), x);
        let (mut worst, mut at) = (0.0, 0.0);
        for ((x, got), exact) in x.iter().zip(&got).zip(&exact) {
            let off = ulps(*got, *exact);
            if off > worst {
                (worst, at) = (off, *x);
            }
        }
        println!("{op:?} {level:?}: {worst:.3} at {at:e}");
        assert!(worst <= most_ulps(op), "{op:?} {level:?}: {worst} ulp at {at:e}");
    }
}

/// The double nearest to a whole number of quarter turns, and its neighbours: there all bits of the
/// argument cancel.
#[test]
fn angles_next_to_quarter_turns() {
    let mut rng = Rng(31);
    let mut x: Vec<f64> = (0..points() / 4)
        .map(|_| {
            let quarters = ((1.0 + rng.unit()) * 2f64.powi(rng.below(70) as i32)).floor();
            let near = (quarters * FRAC_PI_2).to_bits() + rng.below(5) as u64 - 2;
            f64::from_bits(near | rng.next() & 1 << 63)
        })
        .collect();
    // Of all doubles those nearest to quarter turns, by continued fractions.
    for (m, e) in NEAREST {
        x.push(m as f64 * 2f64.powi(e));
    }
    for op in TURNING {
        worst_of(op, &x);
    }
}

#[rustfmt::skip]
const NEAREST: [(u64, i32); 24] = [
    (6381956970095103, 797), // 2^-60.9
    (6411027962775774, -47), // 2^-60.5
    (6381956970095103, 798), // 2^-59.9
    (6411027962775774, -46), // 2^-59.5
    (7763785107565477, -29), // 2^-59.0
    (5916243447979695, 79), // 2^-58.9
    (6381956970095103, 799), // 2^-58.9
    (8444920710073313, 939), // 2^-58.8
    (6411027962775774, -45), // 2^-58.5
    (5850965514341686, 525), // 2^-58.5
    (8160885118204141, 808), // 2^-58.1
    (8360820580228475, 628), // 2^-58.1
    (8583082635084172, 145), // 2^-58.1
    (7763785107565477, -28), // 2^-58.0
    (7958046405119485, 243), // 2^-58.0
    (5916243447979695, 80), // 2^-57.9
    (6808218460873451, 562), // 2^-57.9
    (7636753411044619, 201), // 2^-57.9
    (6381956970095103, 800), // 2^-57.9
    (8444920710073313, 940), // 2^-57.8
    (6366906923947931, 194), // 2^-57.5
    (6411027962775774, -44), // 2^-57.5
    (5850965514341686, 526), // 2^-57.5
    (6617649673795284, 15), // 2^-57.4
];

#[test]
fn angles_next_to_quarter_turns_in_f32() {
    let mut rng = Rng(32);
    let mut x: Vec<f32> = (0..points())
        .map(|_| {
            let quarters = ((1.0 + rng.unit()) * 2f64.powi(rng.below(120) as i32)).floor();
            let near = ((quarters * FRAC_PI_2) as f32).to_bits() + rng.below(3) as u32 - 1;
            f32::from_bits(near | rng.next() as u32 & 1 << 31)
        })
        .collect();
    for (m, e) in NEAREST_F32 {
        x.push(m as f32 * 2f32.powi(e));
    }
    for op in TURNING {
        let exact: Vec<Value> = x.iter().map(|x| reference::of(op, f64::from(*x))).collect();
        for level in Level::available() {
            let got = run(math(op, Prim::F32, level).unwrap(), &x);
            for ((x, got), exact) in x.iter().zip(&got).zip(&exact) {
                let off = ulps_f32(*got, exact.v.0);
                assert!(off <= 0.6, "{op:?} {level:?} f32: {off} ulp at {x:e}");
            }
        }
    }
}

#[rustfmt::skip]
const NEAREST_F32: [(u32, i32); 12] = [
    (16367173, 72), // 2^-29.2
    (10741887, 11), // 2^-28.9
    (16367173, 73), // 2^-28.2
    (10741887, 12), // 2^-27.9
    (16573937, -16), // 2^-27.8
    (16367173, 74), // 2^-27.2
    (10057457, 62), // 2^-27.2
    (11617958, 17), // 2^-27.1
    (9012376, 53), // 2^-27.0
    (10741887, 13), // 2^-26.9
    (16573937, -15), // 2^-26.8
    (14173733, 88), // 2^-26.5
];

/// Pairs of all sizes and ratios.
fn pairs(n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut rng = Rng(78);
    let (mut y, mut x) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let first = match rng.below(3) {
            0 => f64::from_bits(rng.next()),
            1 => f64::from_bits(rng.next() % (1 << 54)),
            _ => (rng.unit() - 0.5) * 2f64.powi(rng.below(40) as i32 - 20),
        };
        let ratio = match rng.below(6) {
            0 => 1.0 + (rng.unit() - 0.5) * 2f64.powi(-(rng.below(52) as i32)),
            // tan(pi/8), where the reduction changes.
            1 => {
                0.41421356237309503
                    * (1.0 + (rng.unit() - 0.5) * 2f64.powi(-(rng.below(52) as i32)))
            }
            2 => 2f64.powf((rng.unit() - 0.5) * 200.0),
            3 => 2f64.powf((rng.unit() - 0.5) * 2000.0),
            _ => 2f64.powf((rng.unit() - 0.5) * 8.0),
        };
        let second = if rng.below(8) == 0 { f64::from_bits(rng.next()) } else { first * ratio };
        let second = if rng.below(2) == 0 { -second } else { second };
        if rng.below(2) == 0 {
            y.push(first);
            x.push(second);
        } else {
            y.push(second);
            x.push(first);
        }
    }
    (y, x)
}

#[test]
fn functions_of_two_values_are_within_two_ulps() {
    let (y, x) = pairs(points());
    for (op, most) in [(Math2::Atan2, 1.5), (Math2::Hypot, 1.5)] {
        let plain = |v: f64| v.is_finite() && v != 0.0;
        let exact: Vec<Option<Value>> = y
            .iter()
            .zip(&x)
            .map(|(y, x)| (plain(*y) && plain(*x)).then(|| reference::of2(op, *y, *x)))
            .collect();
        for level in Level::available() {
            let got = run2(math2(op, Prim::F64, level).unwrap(), &y, &x);
            let mut worst = (0.0, 0.0, 0.0);
            for i in 0..x.len() {
                let Some(exact) = exact[i] else { continue };
                let off = ulps(got[i], exact);
                if off > worst.0 {
                    worst = (off, y[i], x[i]);
                }
            }
            println!("{op:?} {level:?}: {worst:?}");
            assert!(worst.0 <= most, "{op:?} {level:?}: {worst:?}");
        }
    }
}

#[test]
fn functions_of_two_f32_are_within_one_ulp() {
    let (y, x) = pairs(points());
    let (y, x): (Vec<f32>, Vec<f32>) =
        y.iter().zip(&x).map(|(y, x)| (*y as f32, *x as f32)).unzip();
    for (op, exact) in
        [(Math2::Atan2, f64::atan2 as fn(f64, f64) -> f64), (Math2::Hypot, f64::hypot)]
    {
        for level in Level::available() {
            let got = run2(math2(op, Prim::F32, level).unwrap(), &y, &x);
            for i in 0..x.len() {
                let exact = exact(f64::from(y[i]), f64::from(x[i]));
                let off = if exact.abs() > f64::from(f32::MAX) {
                    // Beyond the greatest f32 by half a unit at least is infinity.
                    f64::from(u8::from(got[i] != exact as f32))
                } else {
                    ulps_f32(got[i], exact)
                };
                assert!(off <= 0.6, "{op:?} {level:?} f32: {off} ulp at {:e} {:e}", y[i], x[i]);
            }
        }
    }
}

/// C99's sixteen cases of atan2, and those of hypot: infinite beside a NaN too.
#[test]
fn special_pairs_are_those_of_c99() {
    const INF: f64 = f64::INFINITY;
    let values =
        [0.0, -0.0, 1.0, -1.0, INF, -INF, f64::NAN, 5e-324, -5e-324, f64::MAX, -f64::MAX, 1e-40];
    let (mut y, mut x) = (Vec::new(), Vec::new());
    for a in values {
        for b in values {
            y.push(a);
            x.push(b);
        }
    }
    for (op, expected) in
        [(Math2::Atan2, f64::atan2 as fn(f64, f64) -> f64), (Math2::Hypot, f64::hypot)]
    {
        for level in Level::available() {
            let got = run2(math2(op, Prim::F64, level).unwrap(), &y, &x);
            for i in 0..x.len() {
                let expected = expected(y[i], x[i]);
                let near = (got[i] - expected).abs() <= 3e-16 * expected.abs() && expected != 0.0;
                if !near {
                    let what = format!("{op:?}({:e}, {:e}) {level:?}", y[i], x[i]);
                    assert_same(got[i], expected, &what);
                }
            }
        }
    }
}

#[test]
fn ends_of_ranges_are_rounded_quarter_turns() {
    const INF: f64 = f64::INFINITY;
    for level in Level::available() {
        let of = |op, x: [f64; 2]| run(math(op, Prim::F64, level).unwrap(), &x);
        assert_eq!(of(Math::Atan, [INF, -INF]), [FRAC_PI_2, -FRAC_PI_2], "{level:?}");
        assert_eq!(of(Math::Asin, [1.0, -1.0]), [FRAC_PI_2, -FRAC_PI_2], "{level:?}");
        assert_eq!(of(Math::Acos, [0.0, -1.0]), [FRAC_PI_2, std::f64::consts::PI], "{level:?}");
    }
}

/// Huge angles are done apart: their neighbours must not notice.
#[test]
fn a_huge_angle_changes_no_neighbour() {
    let calm: Vec<f64> = (0..1000).map(|i| f64::from(i) * 0.37 - 150.0).collect();
    let mut mixed = calm.clone();
    for (i, v) in [(0, 1e300), (7, -1e22), (8, f64::INFINITY), (500, f64::NAN), (999, f64::MAX)] {
        mixed[i] = v;
    }
    for op in TURNING {
        for level in Level::available() {
            let f = math(op, Prim::F64, level).unwrap();
            let (calm_out, mixed_out) = (run(f, &calm), run(f, &mixed));
            for i in 0..calm.len() {
                if calm[i] == mixed[i] {
                    assert_eq!(calm_out[i].to_bits(), mixed_out[i].to_bits(), "{op:?} {level:?}");
                }
            }
        }
    }
}
