//! Every tile kernel against a naive loop, at every level this CPU has.

use super::*;
use crate::level::Level;
use crate::prim::{Native, Prim, with_prim};
use crate::testing::*;
use std::ptr::null;

/// Runs a kernel whose result is values, between guards that must survive.
fn values<R: Draw>(f: TileFn, src: [*const u8; 4], rows: usize) -> Vec<R> {
    let guard = R::GREATEST;
    let mut out = vec![guard; rows + 2];
    // SAFETY: tests give operands of `rows` values; the result has room for them.
    unsafe { f(out.as_mut_ptr().add(1).cast(), &src, rows) };
    assert!(out[0].same(guard) && out[rows + 1].same(guard), "wrote outside");
    out[1..=rows].to_vec()
}

/// Runs a kernel whose result is a bitmap, between guards that must survive.
fn answer(f: TileFn, src: [*const u8; 4], rows: usize) -> Vec<u64> {
    let n = rows.div_ceil(64);
    let mut out = vec![0xdead_beef_dead_beef; n + 2];
    // SAFETY: as above.
    unsafe { f(out.as_mut_ptr().add(1).cast(), &src, rows) };
    assert_eq!((out[0], out[n + 1]), (0xdead_beef_dead_beef, 0xdead_beef_dead_beef));
    out[1..=n].to_vec()
}

fn assert_same<R: Draw>(got: &[R], expected: impl Fn(usize) -> R, what: &str) {
    for (i, g) in got.iter().enumerate() {
        let e = expected(i);
        assert!(g.same(e), "{what}, row {i} of {}: {g:?}, expected {e:?}", got.len());
    }
}

/// For every type, level and length: two columns of random values.
macro_rules! for_columns {
    (|$t:ident, $level:ident, $rows:ident, $a:ident, $b:ident| $body:block) => {
        for p in Prim::ALL {
            with_prim!(p, $t => {
                let mut rng = Rng(p as u64);
                for $rows in LENGTHS {
                    let ($a, $b) = (column::<$t>(&mut rng, $rows), column::<$t>(&mut rng, $rows));
                    for $level in Level::available() {
                        $body
                    }
                }
            })
        }
    };
}

trait Naive: Draw {
    fn arith(op: Arith, a: Self, b: Self) -> Self;
    fn overflows(op: Arith, a: Self, b: Self) -> bool;
    fn unary(op: Unary, a: Self) -> Option<Self>;
    fn ask(op: Unary, a: Self) -> Option<bool>;
    fn pair(op: Pair, a: Self, b: Self) -> Option<Self>;
}

macro_rules! naive_int {
    ($($t:ty),*) => {$(
        impl Naive for $t {
            fn arith(op: Arith, a: $t, b: $t) -> $t {
                let (x, y) = (a as i128, b as i128);
                let floor = |x: i128, y: i128| {
                    x.div_euclid(y) - i128::from(y < 0 && x.rem_euclid(y) != 0)
                };
                match op {
                    Arith::Add => (x + y) as $t,
                    Arith::Sub => (x - y) as $t,
                    Arith::RSub => (y - x) as $t,
                    Arith::Mul => x.wrapping_mul(y) as $t,
                    Arith::FloorDiv if b == 0 => 0,
                    Arith::FloorDiv => floor(x, y) as $t,
                    Arith::Mod if b == 0 => 0,
                    Arith::Mod => (x - floor(x, y) * y) as $t,
                    Arith::Div => unreachable!(),
                }
            }
            fn overflows(op: Arith, a: $t, b: $t) -> bool {
                let (x, y) = (a as i128, b as i128);
                let exact = match op {
                    Arith::Add => x + y,
                    Arith::Sub => x - y,
                    Arith::RSub => y - x,
                    // Of u64 values it could leave i128.
                    Arith::Mul => match x.checked_mul(y) {
                        Some(z) => z,
                        None => return true,
                    },
                    Arith::FloorDiv => if b == 0 { 0 } else { x / y },
                    _ => 0,
                };
                exact < <$t>::MIN as i128 || exact > <$t>::MAX as i128
            }
            #[allow(unused_comparisons)]
            fn unary(op: Unary, a: $t) -> Option<$t> {
                Some(match op {
                    Unary::Neg => (0 as $t).wrapping_sub(a),
                    Unary::Abs => if a < 0 { (0 as $t).wrapping_sub(a) } else { a },
                    Unary::Sign => if a == 0 { 0 } else if a < 0 { (0 as $t).wrapping_sub(1) } else { 1 },
                    Unary::Invert => a ^ (0 as $t).wrapping_sub(1),
                    Unary::CountOnes => (0..<$t>::BITS).filter(|i| a >> i & 1 == 1).count() as $t,
                    Unary::LeadingZeros => {
                        (0..<$t>::BITS).rev().take_while(|i| a >> i & 1 == 0).count() as $t
                    }
                    Unary::TrailingZeros => {
                        (0..<$t>::BITS).take_while(|i| a >> i & 1 == 0).count() as $t
                    }
                    _ => return None,
                })
            }
            fn ask(op: Unary, a: $t) -> Option<bool> {
                let fits = |x: i128| x >= <$t>::MIN as i128 && x <= <$t>::MAX as i128;
                match op {
                    Unary::NegOverflows => Some(!fits(-(a as i128))),
                    Unary::AbsOverflows if <$t>::MIN != 0 => Some(!fits((a as i128).abs())),
                    _ => None,
                }
            }
            #[allow(unused_comparisons)]
            fn pair(op: Pair, a: $t, b: $t) -> Option<$t> {
                let within = b >= 0 && b < <$t>::BITS as $t;
                Some(match op {
                    Pair::Min => if b < a { b } else { a },
                    Pair::Max => if b > a { b } else { a },
                    Pair::BitAnd => !(!a | !b),
                    Pair::BitOr => !(!a & !b),
                    Pair::BitXor => (a | b) & !(a & b),
                    Pair::ShiftLeft => if within { ((a as i128) << b) as $t } else { 0 },
                    Pair::ShiftRight => ((a as i128) >> if within { b as u32 } else { 100 }) as $t,
                    Pair::RoundToMultiple => nearest(a as i128, b as i128) as $t,
                    Pair::RoundToFraction | Pair::CopySign | Pair::NextAfter => return None,
                })
            }
        }
    )*};
}
naive_int!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! naive_float {
    ($($t:ty),*) => {$(
        impl Naive for $t {
            fn arith(op: Arith, a: $t, b: $t) -> $t {
                // NumPy's divmod, written the long way round.
                let divmod = || {
                    let mut m = a % b;
                    let mut d = (a - m) / b;
                    if m != 0.0 {
                        if (b < 0.0) != (m < 0.0) {
                            m += b;
                            d -= 1.0;
                        }
                    } else {
                        m = if b.is_sign_negative() { -0.0 } else { 0.0 };
                    }
                    if d != 0.0 {
                        let f = d.floor();
                        d = if d - f > 0.5 { f + 1.0 } else { f };
                    } else {
                        d = if (a / b).is_sign_negative() { -0.0 } else { 0.0 };
                    }
                    (d, m)
                };
                match op {
                    Arith::Add => a + b,
                    Arith::Sub => a - b,
                    Arith::RSub => b - a,
                    Arith::Mul => a * b,
                    Arith::Div => a / b,
                    Arith::FloorDiv => if b == 0.0 { a / b } else { divmod().0 },
                    Arith::Mod => if b == 0.0 { <$t>::NAN } else { divmod().1 },
                }
            }
            fn overflows(_: Arith, _: $t, _: $t) -> bool { false }
            fn unary(op: Unary, a: $t) -> Option<$t> {
                Some(match op {
                    Unary::Neg => -a,
                    Unary::Abs => if a.is_sign_negative() { -a } else { a },
                    Unary::Sign => if a == 0.0 || a != a { a } else { a.signum() },
                    Unary::Sqrt => a.sqrt(),
                    Unary::Floor => a.floor(),
                    Unary::Ceil => a.ceil(),
                    Unary::Trunc => a.trunc(),
                    Unary::Round => a.round_ties_even(),
                    _ => return None,
                })
            }
            fn ask(op: Unary, a: $t) -> Option<bool> {
                match op {
                    Unary::IsNan => Some(a != a),
                    Unary::IsFinite => Some(a - a == 0.0),
                    Unary::IsInfinite => Some(a == <$t>::INFINITY || a == <$t>::NEG_INFINITY),
                    _ => None,
                }
            }
            fn pair(op: Pair, a: $t, b: $t) -> Option<$t> {
                let finite = |near: $t| if near - near == 0.0 { near } else { a };
                Some(match op {
                    Pair::Min => if a != a || b < a { b } else { a },
                    Pair::Max => if a != a || b > a { b } else { a },
                    Pair::RoundToFraction => finite((a * b).round_ties_even() / b),
                    Pair::RoundToMultiple => finite((a / b).round_ties_even() * b),
                    Pair::CopySign => if a.is_sign_negative() == b.is_sign_negative() { a } else { -a },
                    Pair::NextAfter => {
                        if b > a { a.next_up() } else if b < a { a.next_down() } else { if a != a { a } else { b } }
                    }
                    _ => return None,
                })
            }
        }
    )*};
}
naive_float!(f32, f64);

/// The nearest multiple of a step, of two the even one.
fn nearest(a: i128, step: i128) -> i128 {
    let below = a.div_euclid(step);
    let twice = 2 * a.rem_euclid(step);
    (below + i128::from(twice > step || twice == step && below % 2 != 0)) * step
}

#[test]
fn arithmetic_is_that_of_single_values() {
    for_columns!(|T, level, rows, a, b| {
        for op in Arith::ALL {
            let Some(f) = arith(op, T::PRIM, level) else {
                assert!(op == Arith::Div && T::PRIM.is_integer());
                continue;
            };
            let got = values::<T>(f, [bytes(&a), bytes(&b), null(), null()], rows);
            assert_same(&got, |i| T::arith(op, a[i], b[i]), &format!("{op:?} {:?}", T::PRIM));
        }
    });
}

#[test]
fn floor_division_is_that_of_python() {
    let (a, b) = ([7i64, -7, 7, -7, 6, i64::MIN, 5], [2i64, 2, -2, -2, 3, -1, 0]);
    let (x, y) = ([1.0f64, -7.5, 7.5, 0.0, 1.0, 6.0], [0.1f64, 2.0, -2.0, -1.0, 0.0, -0.75]);
    for level in Level::available() {
        let run = |op| {
            values::<i64>(
                arith(op, Prim::I64, level).unwrap(),
                [bytes(&a), bytes(&b), null(), null()],
                7,
            )
        };
        assert_eq!(run(Arith::FloorDiv), [3, -4, -4, 3, 2, i64::MIN, 0]);
        assert_eq!(run(Arith::Mod), [1, 1, -1, -1, 0, 0, 0]);
        let run = |op| {
            values::<f64>(
                arith(op, Prim::F64, level).unwrap(),
                [bytes(&x), bytes(&y), null(), null()],
                6,
            )
        };
        assert_eq!(run(Arith::FloorDiv), [9.0, -4.0, -4.0, -0.0, f64::INFINITY, -8.0]);
        assert_same(
            &run(Arith::Mod),
            |i| [1.0 - 9.0 * 0.1 - 2.7755575615628914e-17, 0.5, -0.5, -0.0, f64::NAN, -0.0][i],
            "Mod",
        );
    }
}

#[test]
fn narrow_division_is_exact_for_every_pair_of_bytes() {
    let step = if cfg!(miri) { 17 } else { 1 };
    let bytes_of = || (i8::MIN..=i8::MAX).step_by(step);
    let pairs: Vec<(i8, i8)> = bytes_of().flat_map(|a| bytes_of().map(move |b| (a, b))).collect();
    for level in Level::available() {
        let f = arith(Arith::FloorDiv, Prim::I8, level).unwrap();
        for tile in pairs.chunks(TILE_MAX) {
            let a: Vec<i8> = tile.iter().map(|p| p.0).collect();
            let b: Vec<i8> = tile.iter().map(|p| p.1).collect();
            let got = values::<i8>(f, [bytes(&a), bytes(&b), null(), null()], a.len());
            assert_same(&got, |i| i8::arith(Arith::FloorDiv, a[i], b[i]), "bytes");
        }
    }
}

#[test]
fn overflow_and_zero_divisors_are_told() {
    for_columns!(|T, level, rows, a, b| {
        let src = [bytes(&a), bytes(&b), null(), null()];
        for op in Arith::ALL {
            if let Some(f) = overflows(op, T::PRIM, level) {
                assert_eq!(answer(f, src, rows), words(rows, |i| T::overflows(op, a[i], b[i])));
            } else {
                assert!((0..rows).all(|i| !T::overflows(op, a[i], b[i])));
            }
        }
        match div_valid(T::PRIM, level) {
            Some(f) => assert_eq!(answer(f, src, rows), words(rows, |i| b[i] != T::ZERO)),
            None => assert!(T::PRIM.is_float()),
        }
    });
}

#[test]
fn unary_functions_are_those_of_single_values() {
    for_columns!(|T, level, rows, a, _b| {
        let src = [bytes(&a), null(), null(), null()];
        for op in Unary::ALL {
            let f = unary(op, T::PRIM, level);
            let exists = T::unary(op, T::ONE).is_some() || T::ask(op, T::ONE).is_some();
            assert!(!exists || f.is_some(), "{op:?} of {:?} is missing", T::PRIM);
            let Some(f) = f else { continue };
            assert!(exists);
            if op.is_test() {
                assert_eq!(answer(f, src, rows), words(rows, |i| T::ask(op, a[i]).unwrap()));
            } else {
                let got = values::<T>(f, src, rows);
                assert_same(&got, |i| T::unary(op, a[i]).unwrap(), &format!("{op:?}"));
            }
        }
    });
}

#[test]
fn functions_of_pairs_are_those_of_single_values() {
    for_columns!(|T, level, rows, a, b| {
        for op in Pair::ALL {
            // Counts around the width, steps of powers of ten; else anything.
            let b: Vec<T> = match op {
                Pair::ShiftLeft | Pair::ShiftRight => {
                    b.iter().enumerate().map(|(i, v)| if i % 3 == 0 { *v } else { small(i % 67) })
                }
                .collect(),
                Pair::RoundToFraction | Pair::RoundToMultiple => {
                    (0..rows).map(|i| if i % 2 == 0 { small(10) } else { small(100) }).collect()
                }
                _ => b.clone(),
            };
            let src = [bytes(&a), bytes(&b), null(), null()];
            let Some(f) = pair(op, T::PRIM, level) else {
                assert!(
                    T::pair(op, T::ONE, T::ONE).is_none(),
                    "{op:?} of {:?} is missing",
                    T::PRIM
                );
                continue;
            };
            let got = values::<T>(f, src, rows);
            assert_same(
                &got,
                |i| T::pair(op, a[i], b[i]).unwrap(),
                &format!("{op:?} {:?}", T::PRIM),
            );
            let overflows = round_overflows(T::PRIM, level).filter(|_| op == Pair::RoundToMultiple);
            if let (Some(f), Number::Int(_)) = (overflows, Number::of(T::ONE)) {
                let fits = |i: usize| {
                    let exact = |v: T| Number::of(v).exact().unwrap();
                    nearest(exact(a[i]), exact(b[i])) == exact(got[i])
                };
                assert_eq!(answer(f, src, rows), words(rows, |i| !fits(i)));
            }
        }
    });
}

/// A small number in any type.
fn small<T: Native>(v: usize) -> T {
    match T::PRIM.is_float() {
        true => T::from_bits64((v as f64).to_bits()),
        false => T::from_bits64(v as u64),
    }
}

#[test]
fn chains_are_their_operators_one_after_the_other() {
    fn step<T: Naive>(op: Chain, a: T, b: T) -> T {
        let op = match op {
            Chain::Add => Arith::Add,
            Chain::Sub => Arith::Sub,
            Chain::RSub => Arith::RSub,
            Chain::Mul => Arith::Mul,
        };
        T::arith(op, a, b)
    }
    for p in Prim::ALL {
        with_prim!(p, T => {
            let mut rng = Rng(99);
            for rows in [0, 1, 15, 64, 67, 256, many(1024)] {
                let c: Vec<Vec<T>> = (0..4).map(|_| column(&mut rng, rows)).collect();
                let src = [bytes(&c[0]), bytes(&c[1]), bytes(&c[2]), bytes(&c[3])];
                for level in Level::available() {
                    for a in Chain::ALL { for b in Chain::ALL {
                        let two = |i: usize| step(b, step(a, c[0][i], c[1][i]), c[2][i]);
                        let Some(f) = chain2(a, b, p, level) else {
                            assert!(!matches!(p, Prim::F64 | Prim::F32 | Prim::I64 | Prim::I32));
                            continue;
                        };
                        assert_same(&values::<T>(f, src, rows), two, "chain of two");
                        for c3 in Chain::ALL {
                            let f = chain3(a, b, c3, p, level).unwrap();
                            let three = |i: usize| step(c3, two(i), c[3][i]);
                            assert_same(&values::<T>(f, src, rows), three, "chain of three");
                        }
                    }}
                }
            }
        })
    }
}

#[test]
fn comparisons_write_whole_zero_padded_words() {
    for_columns!(|T, level, rows, a, b| {
        // Half of the rows equal.
        let b: Vec<T> = (0..rows).map(|i| if i % 2 == 0 { a[i] } else { b[i] }).collect();
        let src = [bytes(&a), bytes(&b), null(), null()];
        for op in Compare::ALL {
            let holds = |a: T, b: T| match op {
                Compare::Eq => a == b,
                Compare::Ne => a != b,
                Compare::Lt => a < b,
                Compare::Le => a <= b,
                Compare::Gt => a > b,
                Compare::Ge => a >= b,
            };
            let got = answer(compare(op, T::PRIM, level), src, rows);
            assert_eq!(got, words(rows, |i| holds(a[i], b[i])), "{op:?} {:?} {level:?}", T::PRIM);
            let swapped = [bytes(&b), bytes(&a), null(), null()];
            assert_eq!(answer(compare(op.flip(), T::PRIM, level), swapped, rows), got);
        }
    });
}

/// Is the number, truncated, a value of `to`? By way of exact 128-bit integers.
fn fits(to: Prim, v: Number) -> bool {
    if to.is_float() {
        return true;
    }
    let (min, max) = with_prim!(to, T => (
        Number::of(T::LEAST).exact().unwrap_or(0),
        Number::of(T::GREATEST).exact().unwrap_or(0)
    ));
    v.exact().is_some_and(|x| x >= min && x <= max)
}

#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of<T: Native>(v: T) -> Number {
        match T::PRIM {
            p if p.is_float() => Number::Float(f64::from_bits(v.to_bits64())),
            p if p.is_signed() => Number::Int(i128::from(v.to_bits64() as i64)),
            _ => Number::Int(i128::from(v.to_bits64())),
        }
    }
    /// Truncated; `None` for what has no integer near enough to i128.
    fn exact(self) -> Option<i128> {
        match self {
            Number::Int(x) => Some(x),
            Number::Float(x) if x.abs() < 1e30 => Some(x.trunc() as i128),
            Number::Float(_) => None,
        }
    }
}

#[test]
fn casts_are_those_of_as_and_tell_what_does_not_fit() {
    macro_rules! to_each {
        ($a:ident, $f:ident, $rows:ident, $level:ident => $($t:ident)*) => {$({
            let to = <$t as Native>::PRIM;
            let src = [bytes(&$a), null(), null(), null()];
            let got = values::<$t>(cast($f::PRIM, to, $level), src, $rows);
            #[allow(clippy::unnecessary_cast)]
            assert_same(&got, |i| $a[i] as $t, &format!("{:?} as {to:?} {:?}", $f::PRIM, $level));
            let expected = words($rows, |i| fits(to, Number::of($a[i])));
            match cast_fits($f::PRIM, to, $level) {
                Some(f) => assert_eq!(answer(f, src, $rows), expected, "{:?} in {to:?}", $f::PRIM),
                None => assert_eq!(expected, words($rows, |_| true), "{:?} in {to:?}", $f::PRIM),
            }
        })*};
    }
    for_columns!(|T, level, rows, a, _b| {
        to_each!(a, T, rows, level => i8 i16 i32 i64 u8 u16 u32 u64 f32 f64);
    });
}

#[test]
fn booleans_and_numbers_convert() {
    let mut rng = Rng(3);
    for_columns!(|T, level, rows, a, _b| {
        let bits = bitmap(&mut rng, rows, 128);
        let got =
            values::<T>(bool_to_prim(T::PRIM, level), [bytes(&bits), null(), null(), null()], rows);
        assert_same(&got, |i| if bit(&bits, i) { T::ONE } else { T::ZERO }, "bool");
        let got = answer(prim_to_bool(T::PRIM, level), [bytes(&a), null(), null(), null()], rows);
        assert_eq!(got, words(rows, |i| a[i] != T::ZERO));
    });
}

#[test]
fn select_takes_then_where_the_bit_is_set() {
    let mut rng = Rng(4);
    for_columns!(|T, level, rows, a, b| {
        for density in [0, 128, 256] {
            let m = bitmap(&mut rng, rows, density);
            let f = select(size_of::<T>(), level).unwrap();
            let got = values::<T>(f, [bytes(&m), bytes(&a), bytes(&b), null()], rows);
            assert_same(&got, |i| if bit(&m, i) { a[i] } else { b[i] }, "select");
        }
        if rows > 0 {
            let f = fill(size_of::<T>(), level).unwrap();
            assert_same(
                &values::<T>(f, [bytes(&a), null(), null(), null()], rows),
                |_| a[0],
                "fill",
            );
        }
    });
    assert!(select(3, Level::Baseline).is_none() && fill(16, Level::Baseline).is_none());
}

#[test]
fn bitmap_logic_reads_no_byte_past_the_rows_and_pads_with_zero() {
    let mut rng = Rng(5);
    for level in Level::available() {
        for rows in LENGTHS {
            let m: Vec<Vec<u8>> = (0..4).map(|_| bitmap(&mut rng, rows, 128)).collect();
            let src = [bytes(&m[0]), bytes(&m[1]), bytes(&m[2]), bytes(&m[3])];
            for op in BitOp::ALL {
                let expected = words(rows, |i| {
                    let [a, b, c, d] = [0, 1, 2, 3].map(|k| bit(&m[k], i));
                    let null = |v: bool, valid: bool| valid.then_some(v);
                    match op {
                        BitOp::And => a && b,
                        BitOp::Or => a || b,
                        BitOp::Xor => a != b,
                        BitOp::AndNot => a && !b,
                        BitOp::OrNot => a || !b,
                        BitOp::Not => !a,
                        BitOp::Copy => a,
                        BitOp::And3 => a && b && c,
                        BitOp::KleeneAnd => match (null(a, b), null(c, d)) {
                            (Some(false), _) | (_, Some(false)) => true,
                            (x, y) => x.is_some() && y.is_some(),
                        },
                        BitOp::KleeneOr => match (null(a, b), null(c, d)) {
                            (Some(true), _) | (_, Some(true)) => true,
                            (x, y) => x.is_some() && y.is_some(),
                        },
                    }
                });
                assert_eq!(answer(bits(op, level), src, rows), expected, "{op:?}");
            }
            let got = answer(select_bits(level), src, rows);
            let expected =
                words(rows, |i| if bit(&m[0], i) { bit(&m[1], i) } else { bit(&m[2], i) });
            assert_eq!(got, expected);
            let n = (0..rows).filter(|i| bit(&m[0], *i)).count();
            // SAFETY: the bitmap has `rows` bits.
            unsafe {
                assert_eq!(count_bits(level)(bytes(&m[0]), rows), n);
                assert_eq!(any_bit(bytes(&m[0]), rows), n > 0);
            }
        }
    }
}

#[test]
fn runs_of_bits_are_stored_between_others() {
    let mut rng = Rng(6);
    for _ in 0..many(2000) {
        let (at, rows, word) = (rng.below(70), 1 + rng.below(64), rng.next());
        let before = bitmap(&mut rng, 160, 128);
        let mut after = before.clone();
        // SAFETY: 70 + 64 < 160 bits.
        unsafe { store_bits(after.as_mut_ptr(), at, word, rows) };
        for i in 0..160 {
            let inside = i >= at && i < at + rows;
            let expected = if inside { word >> (i - at) & 1 != 0 } else { bit(&before, i) };
            assert_eq!(bit(&after, i), expected);
        }
    }
}
