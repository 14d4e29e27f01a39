//! Random expression trees over random columns, against a scalar evaluator that knows nothing of
//! tiles: it works on one value at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{DataType, Expr, Plan};
use proptest::prelude::*;

/// An expression, with what it is over the columns: i and j int64, x and y float64, p and q bool.
#[derive(Clone, Debug)]
enum Int {
    Col(&'static str),
    Lit(i64),
    Bin(&'static str, Box<Int>, Box<Int>),
    Neg(Box<Int>),
    When(Box<Bool>, Box<Int>, Box<Int>),
    Fill(Box<Int>, Box<Int>),
    Not(Box<Int>),
    Sign(Box<Int>),
    Round(Box<Int>, u32),
    Many(&'static str, Vec<Int>),
}

#[derive(Clone, Debug)]
enum Float {
    Col(&'static str),
    Lit(f64),
    Bin(&'static str, Box<Float>, Box<Float>),
    OfInt(Box<Int>),
    Ratio(Box<Int>, Box<Int>),
    Sqrt(Box<Float>),
    When(Box<Bool>, Box<Float>, Box<Float>),
    Trunc(Box<Float>),
    Round(Box<Float>, i64),
    FillNan(Box<Float>, Box<Float>),
    Many(&'static str, Vec<Float>),
}

#[derive(Clone, Debug)]
enum Bool {
    Col(&'static str),
    Ints(&'static str, Box<Int>, Box<Int>),
    Floats(&'static str, Box<Float>, Box<Float>),
    Bin(&'static str, Box<Bool>, Box<Bool>),
    Not(Box<Bool>),
    IntIsNull(Box<Int>),
    IsNan(Box<Float>),
    IsInfinite(Box<Float>),
    IsIn(Box<Int>, Vec<i64>),
    Same(bool, Box<Float>, Box<Float>),
    Many(&'static str, Vec<Bool>),
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::call(name, args).unwrap()
}

impl Int {
    fn expr(&self) -> Expr {
        match self {
            Int::Col(n) => c(n),
            Int::Lit(v) => Expr::literal(*v).cast(DataType::Int64, true),
            Int::Bin(op, a, b) => call(op, vec![a.expr(), b.expr()]),
            Int::Neg(a) => -a.expr(),
            Int::When(p, a, b) => Expr::when(p.expr(), a.expr(), b.expr()),
            Int::Fill(a, b) => a.expr().fill_null(b.expr()),
            Int::Not(a) => !a.expr(),
            Int::Sign(a) => a.expr().sign(),
            Int::Round(a, digits) => a.expr().round(-i64::from(*digits)),
            Int::Many(name, all) => call(name, all.iter().map(Int::expr).collect()),
        }
    }

    fn eval(&self, row: &Row) -> Option<i64> {
        match self {
            Int::Col(n) => {
                if *n == "i" {
                    row.i
                } else {
                    row.j
                }
            }
            Int::Lit(v) => Some(*v),
            Int::Bin(op, a, b) => {
                let (a, b) = (a.eval(row)?, b.eval(row)?);
                match *op {
                    "add" => Some(a.wrapping_add(b)),
                    "sub" => Some(a.wrapping_sub(b)),
                    "mul" => Some(a.wrapping_mul(b)),
                    "and" => Some(a & b),
                    "or" => Some(a | b),
                    "xor" => Some(a ^ b),
                    "shift_left" => Some(if (0..64).contains(&b) { a << b } else { 0 }),
                    "shift_right" => Some(if (0..64).contains(&b) { a >> b } else { a >> 63 }),
                    _ if b == 0 => None,
                    "floor_div" => {
                        let q = a.wrapping_div(b);
                        Some(if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { q - 1 } else { q })
                    }
                    _ => {
                        let r = a.wrapping_rem(b);
                        Some(if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
                    }
                }
            }
            Int::Neg(a) => Some(a.eval(row)?.wrapping_neg()),
            Int::When(p, a, b) => {
                if p.eval(row) == Some(true) {
                    a.eval(row)
                } else {
                    b.eval(row)
                }
            }
            Int::Fill(a, b) => a.eval(row).or_else(|| b.eval(row)),
            Int::Not(a) => a.eval(row).map(|v| !v),
            Int::Sign(a) => a.eval(row).map(i64::signum),
            Int::Round(a, digits) => {
                let (v, step) = (i128::from(a.eval(row)?), 10i128.pow(*digits));
                let (below, twice) = (v.div_euclid(step), 2 * v.rem_euclid(step));
                let up = twice > step || twice == step && below % 2 != 0;
                Some(((below + i128::from(up)) * step) as i64)
            }
            Int::Many(name, all) => {
                let mut known = all.iter().filter_map(|a| a.eval(row));
                match *name {
                    "coalesce" => known.next(),
                    "min_horizontal" => known.min(),
                    "max_horizontal" => known.max(),
                    _ => Some(known.fold(0, i64::wrapping_add)),
                }
            }
        }
    }
}

impl Float {
    fn expr(&self) -> Expr {
        match self {
            Float::Col(n) => c(n),
            Float::Lit(v) => Expr::literal(*v),
            Float::Bin(op, a, b) => call(op, vec![a.expr(), b.expr()]),
            Float::OfInt(a) => a.expr().cast(DataType::Float64, true),
            Float::Ratio(a, b) => a.expr() / b.expr(),
            Float::Sqrt(a) => a.expr().sqrt(),
            Float::When(p, a, b) => Expr::when(p.expr(), a.expr(), b.expr()),
            Float::Trunc(a) => a.expr().trunc(),
            Float::Round(a, decimals) => a.expr().round(*decimals),
            Float::FillNan(a, b) => a.expr().fill_nan(b.expr()),
            Float::Many(name, all) => call(name, all.iter().map(Float::expr).collect()),
        }
    }

    fn eval(&self, row: &Row) -> Option<f64> {
        match self {
            Float::Col(n) => {
                if *n == "x" {
                    row.x
                } else {
                    row.y
                }
            }
            Float::Lit(v) => Some(*v),
            Float::Bin(op, a, b) => {
                let (a, b) = (a.eval(row)?, b.eval(row)?);
                Some(match *op {
                    "add" => a + b,
                    "sub" => a - b,
                    "mul" => a * b,
                    _ => a / b,
                })
            }
            Float::OfInt(a) => Some(a.eval(row)? as f64),
            Float::Ratio(a, b) => Some(a.eval(row)? as f64 / b.eval(row)? as f64),
            Float::Sqrt(a) => Some(a.eval(row)?.sqrt()),
            Float::When(p, a, b) => {
                if p.eval(row) == Some(true) {
                    a.eval(row)
                } else {
                    b.eval(row)
                }
            }
            Float::Trunc(a) => Some(a.eval(row)?.trunc()),
            Float::Round(a, decimals) => {
                let (v, power) = (a.eval(row)?, 10f64.powi(decimals.unsigned_abs() as i32));
                let near = match decimals {
                    0 => return Some(v.round_ties_even()),
                    1.. => (v * power).round_ties_even() / power,
                    _ => (v / power).round_ties_even() * power,
                };
                Some(if near.is_finite() { near } else { v })
            }
            Float::FillNan(a, b) => match a.eval(row)? {
                v if v.is_nan() => b.eval(row),
                v => Some(v),
            },
            Float::Many(name, all) => {
                let mut known = all.iter().filter_map(|a| a.eval(row));
                let count = all.iter().filter(|a| a.eval(row).is_some()).count();
                // Of two equal zeros, and of nothing but NaN, the first.
                let best = |known: &mut dyn Iterator<Item = f64>, better: fn(f64, f64) -> bool| {
                    known.reduce(|a, b| if better(b, a) || a.is_nan() { b } else { a })
                };
                match *name {
                    "coalesce" => known.next(),
                    "min_horizontal" => best(&mut known, |b, a| b < a),
                    "max_horizontal" => best(&mut known, |b, a| b > a),
                    _ => {
                        let sum = all
                            .iter()
                            .map(|a| a.eval(row).unwrap_or(0.0))
                            .reduce(|a, b| a + b)
                            .unwrap_or(0.0);
                        match *name {
                            "sum_horizontal" => Some(sum),
                            _ => (count > 0).then(|| sum / count as f64),
                        }
                    }
                }
            }
        }
    }
}

fn ordered<T: PartialOrd>(op: &str, a: T, b: T) -> bool {
    match op {
        "eq" => a == b,
        "ne" => a != b,
        "lt" => a < b,
        "le" => a <= b,
        "gt" => a > b,
        _ => a >= b,
    }
}

impl Bool {
    fn expr(&self) -> Expr {
        match self {
            Bool::Col(n) => c(n),
            Bool::Ints(op, a, b) => call(op, vec![a.expr(), b.expr()]),
            Bool::Floats(op, a, b) => call(op, vec![a.expr(), b.expr()]),
            Bool::Bin(op, a, b) => call(op, vec![a.expr(), b.expr()]),
            Bool::Not(a) => !a.expr(),
            Bool::IntIsNull(a) => a.expr().is_null(),
            Bool::IsNan(a) => a.expr().is_nan(),
            Bool::IsInfinite(a) => a.expr().is_infinite(),
            Bool::IsIn(a, set) => a.expr().is_in(set.iter().map(|v| (*v).into()).collect()),
            Bool::Same(true, a, b) => a.expr().eq_missing(b.expr()),
            Bool::Same(false, a, b) => a.expr().ne_missing(b.expr()),
            Bool::Many(name, all) => call(name, all.iter().map(Bool::expr).collect()),
        }
    }

    fn eval(&self, row: &Row) -> Option<bool> {
        match self {
            Bool::Col(n) => {
                if *n == "p" {
                    row.p
                } else {
                    row.q
                }
            }
            Bool::Ints(op, a, b) => Some(ordered(op, a.eval(row)?, b.eval(row)?)),
            Bool::Floats(op, a, b) => Some(ordered(op, a.eval(row)?, b.eval(row)?)),
            Bool::Bin(op, a, b) => match (*op, a.eval(row), b.eval(row)) {
                ("and", Some(false), _) | ("and", _, Some(false)) => Some(false),
                ("or", Some(true), _) | ("or", _, Some(true)) => Some(true),
                (op, Some(a), Some(b)) => Some(match op {
                    "and" => a && b,
                    "or" => a || b,
                    "xor" => a ^ b,
                    op => ordered(op, a, b),
                }),
                _ => None,
            },
            Bool::Not(a) => Some(!a.eval(row)?),
            Bool::IntIsNull(a) => Some(a.eval(row).is_none()),
            Bool::IsNan(a) => Some(a.eval(row)?.is_nan()),
            Bool::IsInfinite(a) => Some(a.eval(row)?.is_infinite()),
            Bool::IsIn(a, set) => Some(set.contains(&a.eval(row)?)),
            Bool::Same(yes, a, b) => Some((a.eval(row) == b.eval(row)) == *yes),
            Bool::Many(name, all) => {
                let decides = *name == "any_horizontal";
                let values: Vec<Option<bool>> = all.iter().map(|a| a.eval(row)).collect();
                if values.contains(&Some(decides)) {
                    return Some(decides);
                }
                (!values.contains(&None)).then_some(!decides)
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Row {
    i: Option<i64>,
    j: Option<i64>,
    x: Option<f64>,
    y: Option<f64>,
    p: Option<bool>,
    q: Option<bool>,
}

fn maybe<T: Clone + std::fmt::Debug + 'static>(
    s: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    prop_oneof![1 => Just(None), 4 => s.prop_map(Some)].boxed()
}

fn any_int() -> BoxedStrategy<i64> {
    prop_oneof![4 => -5i64..6, 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)].boxed()
}

fn any_float() -> BoxedStrategy<f64> {
    const SPECIAL: [f64; 7] =
        [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, 5e-324];
    prop_oneof![4 => -4.0..4.0f64, 2 => proptest::sample::select(&SPECIAL[..])].boxed()
}

fn rows() -> BoxedStrategy<Vec<Row>> {
    let row = (
        maybe(any_int()),
        maybe(any_int()),
        maybe(any_float()),
        maybe(any_float()),
        maybe(any::<bool>()),
        maybe(any::<bool>()),
    );
    let row = row.prop_map(|(i, j, x, y, p, q)| Row { i, j, x, y, p, q });
    proptest::collection::vec(row, 0..700).boxed()
}

fn int(depth: u32) -> BoxedStrategy<Int> {
    let leaf = prop_oneof![Just(Int::Col("i")), Just(Int::Col("j")), any_int().prop_map(Int::Lit)];
    if depth == 0 {
        return leaf.boxed();
    }
    let op = proptest::sample::select(
        &["add", "sub", "mul", "floor_div", "mod", "and", "or", "xor", "shift_left", "shift_right"]
            [..],
    );
    let many = proptest::sample::select(
        &["coalesce", "min_horizontal", "max_horizontal", "sum_horizontal"][..],
    );
    let below = move || int(depth - 1).prop_map(Box::new);
    prop_oneof![
        1 => leaf,
        4 => (op, below(), below()).prop_map(|(op, a, b)| Int::Bin(op, a, b)),
        1 => below().prop_map(Int::Neg),
        1 => (boolean(depth - 1), below(), below())
            .prop_map(|(p, a, b)| Int::When(Box::new(p), a, b)),
        1 => (below(), below()).prop_map(|(a, b)| Int::Fill(a, b)),
        1 => below().prop_map(Int::Not),
        1 => below().prop_map(Int::Sign),
        1 => (below(), 1..19u32).prop_map(|(a, digits)| Int::Round(a, digits)),
        2 => (many, proptest::collection::vec(int(depth - 1), 1..4))
            .prop_map(|(name, all)| Int::Many(name, all)),
    ]
    .boxed()
}

fn float(depth: u32) -> BoxedStrategy<Float> {
    let leaf =
        prop_oneof![Just(Float::Col("x")), Just(Float::Col("y")), any_float().prop_map(Float::Lit)];
    if depth == 0 {
        return leaf.boxed();
    }
    let op = proptest::sample::select(&["add", "sub", "mul", "div"][..]);
    let many = proptest::sample::select(
        &["coalesce", "min_horizontal", "max_horizontal", "sum_horizontal", "mean_horizontal"][..],
    );
    let below = move || float(depth - 1).prop_map(Box::new);
    let ints = move || int(depth - 1).prop_map(Box::new);
    prop_oneof![
        1 => leaf,
        5 => (op, below(), below()).prop_map(|(op, a, b)| Float::Bin(op, a, b)),
        1 => ints().prop_map(Float::OfInt),
        1 => (ints(), ints()).prop_map(|(a, b)| Float::Ratio(a, b)),
        1 => below().prop_map(Float::Sqrt),
        1 => (boolean(depth - 1), below(), below())
            .prop_map(|(p, a, b)| Float::When(Box::new(p), a, b)),
        1 => below().prop_map(Float::Trunc),
        1 => (below(), -3..4i64).prop_map(|(a, decimals)| Float::Round(a, decimals)),
        1 => (below(), below()).prop_map(|(a, b)| Float::FillNan(a, b)),
        2 => (many, proptest::collection::vec(float(depth - 1), 1..4))
            .prop_map(|(name, all)| Float::Many(name, all)),
    ]
    .boxed()
}

fn boolean(depth: u32) -> BoxedStrategy<Bool> {
    let leaf = prop_oneof![Just(Bool::Col("p")), Just(Bool::Col("q"))];
    if depth == 0 {
        return leaf.boxed();
    }
    let compare = || proptest::sample::select(&["eq", "ne", "lt", "le", "gt", "ge"][..]);
    let logic =
        proptest::sample::select(&["and", "or", "xor", "eq", "ne", "lt", "le", "gt", "ge"][..]);
    let ints = move || int(depth - 1).prop_map(Box::new);
    let floats = move || float(depth - 1).prop_map(Box::new);
    let below = move || boolean(depth - 1).prop_map(Box::new);
    prop_oneof![
        1 => leaf,
        2 => (compare(), ints(), ints()).prop_map(|(op, a, b)| Bool::Ints(op, a, b)),
        2 => (compare(), floats(), floats()).prop_map(|(op, a, b)| Bool::Floats(op, a, b)),
        3 => (logic, below(), below()).prop_map(|(op, a, b)| Bool::Bin(op, a, b)),
        1 => below().prop_map(Bool::Not),
        1 => ints().prop_map(Bool::IntIsNull),
        1 => floats().prop_map(Bool::IsNan),
        1 => floats().prop_map(Bool::IsInfinite),
        1 => (any::<bool>(), floats(), floats()).prop_map(|(y, a, b)| Bool::Same(y, a, b)),
        1 => (
            proptest::sample::select(&["all_horizontal", "any_horizontal"][..]),
            proptest::collection::vec(boolean(depth - 1), 1..4),
        )
            .prop_map(|(name, all)| Bool::Many(name, all)),
        1 => (ints(), proptest::collection::vec(any_int(), 0..20))
            .prop_map(|(a, set)| Bool::IsIn(a, set)),
    ]
    .boxed()
}

fn table(rows: &[Row]) -> Vec<Col> {
    let int = |f: fn(&Row) -> Option<i64>| rows.iter().map(f).collect::<Vec<_>>();
    let float = |f: fn(&Row) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
    let boolean = |f: fn(&Row) -> Option<bool>| {
        rows.iter().map(|r| f(r).map_or(Val::Null, Val::Bool)).collect::<Vec<_>>()
    };
    vec![
        ints("i", DataType::Int64, &int(|r| r.i)),
        ints("j", DataType::Int64, &int(|r| r.j)),
        floats("x", &float(|r| r.x)),
        floats("y", &float(|r| r.y)),
        col("p", DataType::Bool, boolean(|r| r.p)),
        col("q", DataType::Bool, boolean(|r| r.q)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 120 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn expressions_agree_with_the_scalar_evaluator(
        rows in rows(), a in int(4), b in float(4), p in boolean(4), f in boolean(3),
    ) {
        let t = table(&rows);
        let exprs = vec![a.expr().alias("a"), b.expr().alias("b"), p.expr().alias("p")];
        let plain = run(&select(Plan::Scan, exprs.clone()), &t).unwrap();
        let kept = run(&select(filter(Plan::Scan, vec![f.expr()]), exprs), &t).unwrap();
        for (got, filtered) in [(plain, false), (kept, true)] {
            let rows: Vec<&Row> =
                rows.iter().filter(|r| !filtered || f.eval(r) == Some(true)).collect();
            let want: Vec<Val> = rows
                .iter()
                .map(|r| a.eval(r).map_or(Val::Null, |v| Val::Int(i128::from(v))))
                .collect();
            prop_assert_eq!(got.column("a"), &want[..]);
            let want: Vec<Val> =
                rows.iter().map(|r| b.eval(r).map_or(Val::Null, Val::Float)).collect();
            prop_assert_eq!(got.column("b"), &want[..]);
            let want: Vec<Val> =
                rows.iter().map(|r| p.eval(r).map_or(Val::Null, Val::Bool)).collect();
            prop_assert_eq!(got.column("p"), &want[..]);
        }
    }
}
