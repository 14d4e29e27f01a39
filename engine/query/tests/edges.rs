//! The edges: literals at the limits of their casts, null columns, mixed units, extremes, and
//! failures that must name the first row.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{DataType, Error, Expr, Plan, Scalar, TimeUnit};

fn i64s(name: &'static str, values: &[i64]) -> Col {
    let values: Vec<Option<i64>> = values.iter().map(|v| Some(*v)).collect();
    ints(name, DataType::Int64, &values)
}

#[test]
fn casts_of_literals_fail_like_those_of_columns() {
    let t = [i64s("a", &[1, 2])];
    for (value, to) in [
        (Scalar::Int(300), DataType::Int8),
        (Scalar::Int(-1), DataType::UInt64),
        (Scalar::Float(1e30), DataType::Int64),
        (Scalar::Float(f64::NAN), DataType::Int32),
    ] {
        let strict = select(Plan::Scan, vec![Expr::literal(value.clone()).cast(to.clone(), true)]);
        let got = run(&strict, &t);
        assert!(matches!(got, Err(Error::CastFailed { row: 0, .. })), "{value} {to}: {got:?}");
        let loose = select(Plan::Scan, vec![Expr::literal(value.clone()).cast(to.clone(), false)]);
        assert_eq!(run(&loose, &t).unwrap().columns[0], [Val::Null, Val::Null], "{value} {to}");
    }
    let fits = select(Plan::Scan, vec![Expr::literal(100).cast(DataType::Int8, true)]);
    assert_eq!(run(&fits, &t).unwrap().columns[0], [Val::Int(100), Val::Int(100)]);
}

#[test]
fn checked_floor_division_of_unsigned_numbers_cannot_fail() {
    let t = [
        ints("a", DataType::UInt32, &[Some(7), Some(8), Some(9)]),
        ints("b", DataType::UInt32, &[Some(2), Some(0), None]),
    ];
    let plan =
        select(Plan::Scan, vec![c("a").floordiv(c("b")).alias("q"), (c("a") % c("b")).alias("r")]);
    let got = run_with(&plan, &Table::new(&t, &[]), &t, true).unwrap();
    assert_eq!(got.columns[0], [Val::Int(3), Val::Null, Val::Null]);
    assert_eq!(got.columns[1], [Val::Int(1), Val::Null, Val::Null]);
}

#[test]
fn a_column_of_nulls_counts_nothing() {
    let t = [col("n", DataType::Null, vec![Val::Null; 5]), i64s("k", &[1, 1, 2, 2, 2])];
    let plan = select(Plan::Scan, vec![c("n").count().alias("n"), Expr::len().alias("rows")]);
    let got = run(&plan, &t).unwrap();
    assert_eq!((got.column("n"), got.column("rows")), (&[Val::Int(0)][..], &[Val::Int(5)][..]));
    let plan = aggregate(Plan::Scan, vec![c("k")], vec![c("n").count().alias("n")]);
    assert_eq!(run(&plan, &t).unwrap().column("n"), [Val::Int(0), Val::Int(0)]);
    let plan = sort(Plan::Scan, vec![c("n")], vec![true]);
    assert_eq!(run(&plan, &t).unwrap().column("k"), t[1].values.as_slice());
    let plan = filter(Plan::Scan, vec![c("n").is_null(), c("k").gt(1)]);
    assert_eq!(run(&plan, &t).unwrap().column("n"), [Val::Null, Val::Null, Val::Null]);
}

#[test]
fn a_literal_duration_scales() {
    let hour = Scalar::Duration { value: 3600, unit: TimeUnit::Second };
    let t = [i64s("n", &[0, 2, -3])];
    let hours = |e: Expr| select(Plan::Scan, vec![e.alias("d")]);
    let want = [Val::Int(0), Val::Int(7200), Val::Int(-10800)];
    let got = run(&hours(Expr::literal(hour.clone()) * c("n")), &t).unwrap();
    assert_eq!(
        (got.column("d"), &got.dtypes[0]),
        (&want[..], &DataType::Duration(TimeUnit::Second))
    );
    let got = run(&hours(c("n") * Expr::literal(hour.clone())), &t).unwrap();
    assert_eq!(got.column("d"), want);
    let got = run(&hours(Expr::literal(hour).floordiv(c("n"))), &t).unwrap();
    assert_eq!(got.column("d"), [Val::Null, Val::Int(1800), Val::Int(-1200)]);
}

#[test]
fn text_compares_with_null_to_null() {
    let t = [i64s("n", &[1])];
    for e in [Expr::literal("x").eq(Scalar::Null), Expr::literal(Scalar::Null).lt("x")] {
        let got = run(&select(Plan::Scan, vec![e.alias("b")]), &t).unwrap();
        assert_eq!((got.column("b"), &got.dtypes[0]), (&[Val::Null][..], &DataType::Bool));
    }
}

#[test]
fn a_failure_in_a_large_group_by_names_the_first_row() {
    // Rows that the estimate of the groups looks at fail too, but later ones.
    let n = 300_000;
    let mut values: Vec<i64> = (0..n).collect();
    for v in values.iter_mut().skip(1000) {
        *v = i64::MAX;
    }
    let t = [i64s("k", &(0..n).map(|i| i % 3).collect::<Vec<_>>()), i64s("v", &values)];
    let plan = aggregate(Plan::Scan, vec![c("k")], vec![c("v").cast(DataType::Int32, true).sum()]);
    match run(&plan, &t) {
        Err(Error::CastFailed { row, .. }) => assert_eq!(row, 1000),
        other => panic!("{other:?}"),
    }
}

#[test]
fn slices_of_any_size_stay_in_the_table() {
    let t = [i64s("a", &[1, 2, 3])];
    for (offset, len, want) in [
        (i64::MIN, None, 0..3),
        (i64::MIN, Some(u64::MAX), 0..3),
        (i64::MIN, Some(5), 0..0),
        (-4, Some(2), 0..1),
        (-1, Some(u64::MAX), 2..3),
        (i64::MAX, Some(1), 0..0),
        (1, Some(u64::MAX), 1..3),
    ] {
        let got = run(&slice(Plan::Scan, offset, len), &t).unwrap();
        assert_eq!(got.column("a"), &t[0].values[want], "{offset} {len:?}");
    }
}

#[test]
fn groups_aggregate_as_whole_columns_do() {
    let f = |v: &[f64]| v.iter().map(|v| Val::Float(*v)).collect::<Vec<_>>();
    for (name, dtype, values) in [
        ("nan only", DataType::Float64, f(&[f64::NAN, f64::NAN])),
        ("zeros", DataType::Float64, f(&[-0.0, 0.0, -0.0])),
        ("minus zero", DataType::Float64, f(&[-0.0])),
        ("infinite", DataType::Float32, f(&[f64::INFINITY, f64::NAN, f64::NEG_INFINITY])),
        ("nulls", DataType::Float64, vec![Val::Null, Val::Null]),
        ("mixed", DataType::Float32, vec![Val::Null, Val::Float(1.5), Val::Float(0.1)]),
        ("ends", DataType::Int64, vec![Val::Int(i64::MIN.into()), Val::Int(i64::MAX.into())]),
        (
            "there and back",
            DataType::Int64,
            [i64::MAX, 5, i64::MIN, -5].map(|v| Val::Int(v.into())).to_vec(),
        ),
        ("large", DataType::UInt64, vec![Val::Int(u64::MAX.into()), Val::Null]),
        ("too large", DataType::UInt64, vec![Val::Int(u64::MAX.into()), Val::Int(1)]),
        ("bools", DataType::Bool, vec![Val::Bool(true), Val::Null, Val::Bool(false)]),
        ("no bools", DataType::Bool, vec![Val::Null]),
        ("bytes", DataType::Int8, vec![Val::Int(-128), Val::Int(-128)]),
    ] {
        let k = vec![Val::Int(9); values.len()];
        let t = [col("v", dtype, values), col("k", DataType::Int64, k)];
        let aggs = || {
            vec![
                c("v").sum().alias("sum"),
                c("v").mean().alias("mean"),
                c("v").min().alias("min"),
                c("v").max().alias("max"),
                c("v").count().alias("count"),
                Expr::len().alias("len"),
            ]
        };
        for agg in aggs() {
            let whole = run(&select(Plan::Scan, vec![agg.clone()]), &t);
            let group = run(&aggregate(Plan::Scan, vec![c("k")], vec![agg.clone()]), &t);
            match (whole, group) {
                (Ok(a), Ok(b)) => {
                    assert_eq!(a.columns[0], b.columns[1], "{name}: {agg}");
                    assert_eq!(a.dtypes[0], b.dtypes[1], "{name}: {agg}");
                }
                (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string(), "{name}: {agg}"),
                (a, b) => panic!("{name}: {agg}: {a:?} and {b:?}"),
            }
        }
    }
}

#[test]
fn three_valued_logic_with_columns_and_literals() {
    let all = [Some(false), Some(true), None];
    let val = |v: Option<bool>| v.map_or(Val::Null, Val::Bool);
    let scalar = |v: Option<bool>| v.map_or(Scalar::Null, Scalar::Bool);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for x in all {
        for y in all {
            a.push(x);
            b.push(y);
        }
    }
    let t = [
        col("a", DataType::Bool, a.iter().map(|v| val(*v)).collect()),
        col("b", DataType::Bool, b.iter().map(|v| val(*v)).collect()),
    ];
    let and = |x: Option<bool>, y: Option<bool>| match (x, y) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    let or = |x: Option<bool>, y: Option<bool>| and(x.map(|v| !v), y.map(|v| !v)).map(|v| !v);
    let xor = |x: Option<bool>, y: Option<bool>| Some(x? ^ y?);
    type Truth<'a> = &'a dyn Fn(Option<bool>, Option<bool>) -> Option<bool>;
    type Op = fn(Expr, Expr) -> Expr;
    let ops: [(Op, Truth<'_>); 3] =
        [(|x, y| x & y, &and), (|x, y| x | y, &or), (|x, y| x ^ y, &xor)];
    for (op, truth) in ops {
        let want: Vec<Val> = a.iter().zip(&b).map(|(x, y)| val(truth(*x, *y))).collect();
        let got = run(&select(Plan::Scan, vec![op(c("a"), c("b"))]), &t).unwrap();
        assert_eq!(got.columns[0], want);
        for y in all {
            let want: Vec<Val> = a.iter().map(|x| val(truth(*x, y))).collect();
            let lit = || Expr::literal(scalar(y));
            for e in [op(c("a"), lit()), op(lit(), c("a"))] {
                let got = run(&select(Plan::Scan, vec![e.clone().alias("x")]), &t).unwrap();
                assert_eq!(got.columns[0], want, "{e}");
            }
        }
    }
}

#[test]
fn times_of_several_units_compare_by_what_they_mean() {
    let far = 10_000_000_000; // the year 2286, in seconds: past what nanoseconds can say
    let s = [Some(far), Some(1), None, Some(-far)];
    let n = [Some(5), Some(1_000_000_000), Some(1), Some(5)];
    let t = [
        ints("s", DataType::Timestamp(TimeUnit::Second, None), &s),
        ints("n", DataType::Timestamp(TimeUnit::Nanosecond, None), &n),
        ints("d", DataType::Date32, &s.map(|v: Option<i64>| v.map(|v| v / 86_400))),
    ];
    let bools = |v: [bool; 3]| [Val::Bool(v[0]), Val::Bool(v[1]), Val::Null, Val::Bool(v[2])];
    for (e, want) in [
        (c("s").gt(c("n")), [true, false, false]),
        (c("n").lt(c("s")), [true, false, false]),
        (c("s").le(c("n")), [false, true, true]),
        (c("s").eq(c("n")), [false, true, false]),
        (c("n").ne(c("s")), [true, false, true]),
        (c("d").gt(c("n")), [true, false, false]),
        (c("n").ge(c("d")), [false, true, true]),
    ] {
        let got = run(&select(Plan::Scan, vec![e.clone().alias("x")]), &t).unwrap();
        assert_eq!(got.column("x"), bools(want), "{e}");
    }
}

#[test]
fn checked_dates_do_not_leave_their_type() {
    let day = Scalar::Duration { value: 86_400, unit: TimeUnit::Second };
    let t = [ints("d", DataType::Date32, &[Some(0), None, Some(i64::from(i32::MAX))])];
    let plan = |from| {
        let moved = (c("d") + Expr::literal(day.clone())).alias("d");
        select(slice(Plan::Scan, 0, Some(from)), vec![moved])
    };
    let got = run_with(&plan(2), &Table::new(&t, &[]), &t, true).unwrap();
    assert_eq!(got.column("d"), [Val::Int(1), Val::Null]);
    let got = run_with(&plan(3), &Table::new(&t, &[]), &t, true);
    assert!(matches!(got, Err(Error::Overflow(_))), "{got:?}");
}

#[test]
fn is_in_with_nulls_zeros_and_values_the_type_cannot_hold() {
    let t = [
        ints("i", DataType::Int8, &[Some(-128), Some(44), None, Some(0)]),
        floats("f", &[Some(-0.0), Some(f64::NAN), None, Some(20.0)]),
    ];
    let many = |extra: &[Scalar]| -> Vec<Scalar> {
        (20..40).map(Scalar::Int).chain(extra.iter().cloned()).collect()
    };
    for (e, want) in [
        (
            c("i").is_in(vec![Scalar::Int(300), Scalar::Null]),
            [Some(false), Some(false), None, Some(false)],
        ),
        (
            c("i").is_in(many(&[Scalar::Int(300), Scalar::Float(-128.0), Scalar::Float(0.5)])),
            [Some(true), Some(false), None, Some(false)],
        ),
        (
            c("f").is_in(many(&[Scalar::Float(0.0), Scalar::Float(f64::NAN)])),
            [Some(true), Some(false), None, Some(true)],
        ),
        (
            c("f").is_in(vec![Scalar::Int(0), Scalar::Float(f64::NAN)]),
            [Some(true), Some(false), None, Some(false)],
        ),
        (c("f").is_in(vec![]), [Some(false), Some(false), None, Some(false)]),
    ] {
        let want: Vec<Val> = want.iter().map(|v| v.map_or(Val::Null, Val::Bool)).collect();
        assert_eq!(run(&select(Plan::Scan, vec![e.clone()]), &t).unwrap().columns[0], want, "{e}");
    }
}

#[test]
fn sorts_of_nothing_and_of_ties() {
    let t = [i64s("a", &[]), strs("s", DataType::Utf8, &[])];
    let plan = sort(Plan::Scan, vec![c("a"), c("s")], vec![]);
    assert_eq!(run(&plan, &t).unwrap().columns, [vec![], vec![]]);
    let t = [
        floats(
            "f",
            &[
                Some(1.0),
                None,
                Some(f64::NAN),
                Some(-0.0),
                Some(0.0),
                None,
                Some(f64::INFINITY),
                Some(1.0),
            ],
        ),
        i64s("i", &[0, 1, 2, 3, 4, 5, 6, 7]),
    ];
    let order = |descending: bool| {
        let got = run(&sort(Plan::Scan, vec![c("f")], vec![descending]), &t).unwrap();
        got.column("i")
            .iter()
            .map(|v| if let Val::Int(i) = v { *i } else { -1 })
            .collect::<Vec<_>>()
    };
    assert_eq!(order(false), [3, 4, 0, 7, 6, 2, 1, 5]);
    assert_eq!(order(true), [2, 6, 0, 7, 3, 4, 1, 5]);
}

#[test]
fn a_filter_that_keeps_nothing_leaves_nothing_to_check() {
    let t = [
        i64s("a", &[i64::MAX; 100]),
        strs("s", DataType::Utf8View, &[Some("a string longer than twelve"); 100]),
    ];
    let plan = with_columns(
        filter(Plan::Scan, vec![c("a").lt(0)]),
        vec![(c("a") + 1).alias("b"), c("a").cast(DataType::Int8, true).alias("c")],
    );
    let got = run_with(&plan, &Table::new(&t, &[]), &t, true).unwrap();
    assert!(got.columns.iter().all(Vec::is_empty));
    let plan = aggregate(plan, vec![c("s")], vec![c("b").sum()]);
    let got = run_with(&plan, &Table::new(&t, &[]), &t, true).unwrap();
    assert!(got.columns.iter().all(Vec::is_empty));
}

const INTEGERS: [(DataType, i128, i128); 8] = [
    (DataType::Int8, i8::MIN as i128, i8::MAX as i128),
    (DataType::Int16, i16::MIN as i128, i16::MAX as i128),
    (DataType::Int32, i32::MIN as i128, i32::MAX as i128),
    (DataType::Int64, i64::MIN as i128, i64::MAX as i128),
    (DataType::UInt8, 0, u8::MAX as i128),
    (DataType::UInt16, 0, u16::MAX as i128),
    (DataType::UInt32, 0, u32::MAX as i128),
    (DataType::UInt64, 0, u64::MAX as i128),
];

fn corners(low: i128, high: i128) -> Vec<i128> {
    let all = [low, low + 1, -7, -2, -1, 0, 1, 2, 7, 100, high - 1, high];
    all.into_iter().filter(|v| (low..=high).contains(v)).collect()
}

fn range(t: &DataType) -> Option<(i128, i128)> {
    INTEGERS.iter().find(|(d, ..)| d == t).map(|(_, low, high)| (*low, *high))
}

#[test]
fn integers_of_all_types_compute_wrap_and_fail_as_numbers_do() {
    let floor = |a: i128, b: i128| a.div_euclid(b) - i128::from(b < 0 && a.rem_euclid(b) != 0);
    type Exact<'a> = &'a dyn Fn(i128, i128) -> Option<i128>;
    let ops: [(&str, Exact<'_>); 5] = [
        ("add", &|a, b| Some(a + b)),
        ("sub", &|a, b| Some(a - b)),
        ("mul", &|a, b| Some(a.wrapping_mul(b))),
        ("floor_div", &|a, b| (b != 0).then(|| floor(a, b))),
        ("mod", &|a, b| (b != 0).then(|| a - floor(a, b) * b)),
    ];
    for (ta, low_a, high_a) in INTEGERS {
        for (tb, low_b, high_b) in INTEGERS {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for x in corners(low_a, high_a) {
                for y in corners(low_b, high_b) {
                    a.push(x);
                    b.push(y);
                }
            }
            let vals = |v: &[i128]| v.iter().map(|v| Val::Int(*v)).collect::<Vec<_>>();
            let t = [col("a", ta.clone(), vals(&a)), col("b", tb.clone(), vals(&b))];
            let table = Table::new(&t, &[5, 64]);
            for (name, exact) in ops {
                let e = Expr::call(name, vec![c("a"), c("b")]).unwrap();
                let plan = select(Plan::Scan, vec![e.alias("x")]);
                let got = run_with(&plan, &table, &t, false).unwrap();
                let Some((low, high)) = range(&got.dtypes[0]) else {
                    assert_eq!(got.dtypes[0], DataType::Float64, "{ta} {name} {tb}");
                    continue;
                };
                let mut leaves = false;
                for (i, (x, y)) in a.iter().zip(&b).enumerate() {
                    let want = exact(*x, *y).map_or(Val::Null, |v| {
                        leaves |= !(low..=high).contains(&v);
                        Val::Int((v - low).rem_euclid(high - low + 1) + low)
                    });
                    assert_eq!(got.columns[0][i], want, "{x} {ta} {name} {y} {tb}");
                }
                let checked = run_with(&plan, &table, &t, true);
                match checked {
                    Ok(c) => assert!(!leaves && c == got, "{ta} {name} {tb}"),
                    Err(Error::Overflow(_)) => assert!(leaves, "{ta} {name} {tb}"),
                    Err(e) => panic!("{ta} {name} {tb}: {e}"),
                }
            }
            for (op, holds) in [
                ("lt", (|a, b| a < b) as fn(i128, i128) -> bool),
                ("eq", |a, b| a == b),
                ("ge", |a, b| a >= b),
            ] {
                let e = Expr::call(op, vec![c("a"), c("b")]).unwrap();
                let got =
                    run_with(&select(Plan::Scan, vec![e.alias("x")]), &table, &t, false).unwrap();
                for (i, (x, y)) in a.iter().zip(&b).enumerate() {
                    // Signed ones and UInt64 meet as float64, as in NumPy.
                    let rounded = (ta == DataType::UInt64) != (tb == DataType::UInt64)
                        && (low_a < 0) != (low_b < 0);
                    if !rounded || (*x - *y).abs() > 1 {
                        assert_eq!(got.columns[0][i], Val::Bool(holds(*x, *y)), "{x} {op} {y}");
                    }
                }
            }
            let e = c("a").cast(tb.clone(), false).alias("x");
            let got = run_with(&select(Plan::Scan, vec![e]), &table, &t, false).unwrap();
            for (x, got) in a.iter().zip(&got.columns[0]) {
                let want = if (low_b..=high_b).contains(x) { Val::Int(*x) } else { Val::Null };
                assert_eq!(*got, want, "{x} {ta} to {tb}");
            }
        }
    }
}

#[test]
fn checked_arithmetic_of_mixed_units_does_not_wrap_before_it_starts() {
    let t = [
        ints("s", DataType::Timestamp(TimeUnit::Second, None), &[Some(5), None, Some(1 << 40)]),
        ints("n", DataType::Timestamp(TimeUnit::Nanosecond, None), &[Some(5); 3]),
    ];
    let plan = |n| select(slice(Plan::Scan, 0, Some(n)), vec![(c("s") - c("n")).alias("d")]);
    let got = run_with(&plan(2), &Table::new(&t, &[]), &t, true).unwrap();
    assert_eq!(got.column("d"), [Val::Int(4_999_999_995), Val::Null]);
    let got = run_with(&plan(3), &Table::new(&t, &[]), &t, true);
    assert!(matches!(got, Err(Error::Overflow(_))), "{got:?}");
}

#[test]
fn columns_of_odd_names_are_kept() {
    let t = [i64s("\u{0}0", &[7, 8]), i64s("a", &[1, 2])];
    let plan = with_columns(Plan::Scan, vec![(c("a") + 1).alias("b")]);
    assert_eq!(run(&plan, &t).unwrap().names, ["\u{0}0", "a", "b"]);
    let plan = with_columns(Plan::Scan, vec![(c("a") - c("a").max()).alias("b")]);
    match run(&plan, &t) {
        Ok(got) => assert_eq!(got.names, ["\u{0}0", "a", "b"]),
        Err(e) => assert!(matches!(e, Error::InvalidPlan(_)), "{e}"),
    }
}

#[test]
fn numbers_without_columns_and_columns_without_numbers() {
    let t = [i64s("a", &[1, 2, 3])];
    let got = run(&select(Plan::Scan, vec![]), &t).unwrap();
    assert!(got.columns.is_empty());
    let one = vec![(Expr::len() * 2).alias("n"), Expr::literal(5).alias("five")];
    let got = run(&select(filter(Plan::Scan, vec![c("a").gt(9)]), one), &t).unwrap();
    assert_eq!((got.column("n"), got.column("five")), (&[Val::Int(0)][..], &[Val::Int(5)][..]));
    let got = run(&filter(Plan::Scan, vec![Expr::literal(false)]), &t).unwrap();
    assert!(got.column("a").is_empty());
    let got = run(&filter(Plan::Scan, vec![Expr::literal(Scalar::Null)]), &t).unwrap();
    assert!(got.column("a").is_empty());
    let got = run(&sort(Plan::Scan, vec![Expr::literal(1)], vec![true]), &t).unwrap();
    assert_eq!(got.column("a"), t[0].values.as_slice());
    let plan = aggregate(Plan::Scan, vec![Expr::literal(1).alias("k")], vec![c("a").sum()]);
    assert_eq!(run(&plan, &t).unwrap().columns, [vec![Val::Int(1)], vec![Val::Int(6)]]);
    let plan = aggregate(Plan::Scan, vec![], vec![c("a").sum()]);
    assert_eq!(run(&plan, &t).unwrap().columns, [vec![Val::Int(6)]]);
    let plan = aggregate(Plan::Scan, vec![c("a")], vec![]);
    assert_eq!(run(&plan, &t).unwrap().columns, [t[0].values.clone()]);
    // A null in the condition chooses neither branch but `otherwise`; nulls in branches stay.
    let t = [
        col("p", DataType::Bool, vec![Val::Bool(true), Val::Null, Val::Bool(false)]),
        i64s("a", &[1, 2, 3]),
    ];
    let e = Expr::when(c("p"), Expr::literal(Scalar::Null), c("a")).alias("x");
    let got = run(&select(Plan::Scan, vec![e]), &t).unwrap();
    assert_eq!(got.column("x"), [Val::Null, Val::Int(2), Val::Int(3)]);
    let e = Expr::when(Expr::literal(Scalar::Null), Expr::literal(1), c("a") / 2).alias("x");
    let got = run(&select(Plan::Scan, vec![e]), &t).unwrap();
    assert_eq!(got.column("x"), [Val::Float(0.5), Val::Float(1.0), Val::Float(1.5)]);
}

#[test]
fn tiles_of_a_slice_end_where_chunks_do() {
    let rows = 20_000;
    // Each chunk's values are its own, so that what is read beyond it is seen.
    let value = |i: usize| Some(i as i64).filter(|i| i % 11 != 3);
    let values: Vec<Option<i64>> = (0..rows).map(value).collect();
    let bits = (0..rows).map(|i| if i % 13 == 5 { Val::Null } else { Val::Bool(i % 7 < 3) });
    let t = [ints("a", DataType::Int64, &values), col("p", DataType::Bool, bits.collect())];
    let exprs = vec![(c("a") * 2 + c("a")).alias("x"), (c("p") ^ c("a").lt(9000)).alias("q")];
    let chunkings: [&[usize]; 4] = [&[], &[5000], &[4096, 1024, 8191], &[1, 2047, 6000, 64]];
    for offset in [0, 1, 8, 64, 1000, 1024, 4097] {
        let slice = Plan::Slice { input: Plan::Scan.into(), offset, len: Some(15_000) };
        let kept = filter(slice.clone(), vec![c("p")]);
        for plan in [slice, kept] {
            let plan = select(plan, exprs.clone());
            let of =
                |chunks: &[usize]| run_with(&plan, &Table::new(&t, chunks), &t, false).unwrap();
            let all = of(&[]);
            for chunks in chunkings {
                assert_eq!(of(chunks), all, "from row {offset} on, in chunks of {chunks:?}");
            }
        }
    }
}
