//! Running values against the same on plain vectors: all chunk layouts, one thread and several,
//! before and after filters and slices, on tables longer than a tile and a morsel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{DataType, Error, Expr, Plan, Scalar, set_threads};

fn ordered(values: &[Val], reverse: bool, step: impl FnMut(&Val) -> Val) -> Vec<Val> {
    let mut out: Vec<Val> = if reverse {
        values.iter().rev().map(step).collect()
    } else {
        values.iter().map(step).collect()
    };
    if reverse {
        out.reverse();
    }
    out
}

fn sums(values: &[Val], reverse: bool) -> Vec<Val> {
    let mut sum = 0i128;
    ordered(values, reverse, |v| match v {
        Val::Int(v) => {
            sum += v;
            Val::Int(sum)
        }
        Val::Bool(v) => {
            sum += i128::from(*v);
            Val::Int(sum)
        }
        _ => Val::Null,
    })
}

fn counts(values: &[Val], reverse: bool) -> Vec<Val> {
    let mut n = 0;
    ordered(values, reverse, |v| {
        n += i128::from(*v != Val::Null);
        Val::Int(n)
    })
}

fn best(values: &[Val], reverse: bool, max: bool) -> Vec<Val> {
    let number = |v: &Val| match v {
        Val::Int(v) => *v as f64,
        Val::Float(v) => *v,
        Val::Bool(v) => f64::from(*v),
        _ => f64::NAN,
    };
    let mut best: Option<Val> = None;
    ordered(values, reverse, |v| {
        if *v == Val::Null {
            return Val::Null;
        }
        let (x, b) = (number(v), best.as_ref().map_or(f64::NAN, number));
        if b.is_nan() || x < b && !max || x > b && max {
            best = Some(v.clone());
        }
        best.clone().unwrap()
    })
}

fn table(rows: usize) -> Vec<Col> {
    let number = |i: usize| (i as i64).wrapping_mul(6_364_136_223_846_793_005) >> 40;
    let some = |i: usize, v: Val| if i % 7 == 3 { Val::Null } else { v };
    let column = |f: &dyn Fn(usize) -> Val| (0..rows).map(f).collect::<Vec<_>>();
    let int = |i: usize| Val::Int(i128::from(number(i)));
    let float = |i: usize| match i % 50 {
        _ if i < 3 => Val::Float(f64::NAN),
        7 => Val::Float(f64::NAN),
        _ => Val::Float(number(i) as f64 / 8.0 + 0.1),
    };
    vec![
        col("i", DataType::Int64, column(&int)),
        col("n", DataType::Int32, column(&|i| some(i, Val::Int(i128::from(number(i) as i32))))),
        col("s", DataType::Int8, column(&|i| some(i, Val::Int(i128::from(number(i) as i8))))),
        col(
            "u",
            DataType::UInt64,
            column(&|i| some(i + 2, Val::Int(number(i).unsigned_abs().into()))),
        ),
        col("x", DataType::Float64, column(&|i| some(i + 1, float(i)))),
        col("b", DataType::Bool, column(&|i| some(i, Val::Bool(number(i) % 3 == 0)))),
        col("k", DataType::Bool, column(&|i| Val::Bool(number(i) % 5 < 3))),
        col("d", DataType::Date32, column(&|i| some(i, Val::Int(i128::from(number(i) as i16))))),
    ]
}

/// Runs on whole and cut tables, with one thread and with several: all must agree.
fn answers(plan: &Plan, t: &[Col]) -> Result<Answer, Error> {
    set_threads(1);
    let one = run(plan, t);
    for threads in [2, 7] {
        set_threads(threads);
        match (&one, &run(plan, t)) {
            (Ok(a), Ok(b)) => assert_eq!(a, b),
            (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
            (a, b) => panic!("{a:?} and {b:?}"),
        }
    }
    set_threads(0);
    one
}

#[test]
fn running_values_are_of_all_rows_up_to_each() {
    for rows in [0, 1, 2, 700, 140_000] {
        let t = table(rows);
        for reverse in [false, true] {
            let mut exprs = Vec::new();
            for name in ["i", "n", "s", "u", "b"] {
                exprs.push(c(name).cum_sum(reverse).alias(format!("sum {name}")));
            }
            for name in ["i", "n", "s", "u", "x", "b", "d"] {
                exprs.push(c(name).cum_min(reverse).alias(format!("min {name}")));
                exprs.push(c(name).cum_max(reverse).alias(format!("max {name}")));
                exprs.push(c(name).cum_count(reverse).alias(format!("count {name}")));
            }
            let got = answers(&with_columns(Plan::Scan, exprs), &t).unwrap();
            for c in &t {
                let column = |what: &str| got.column(&format!("{what} {}", c.name)).to_vec();
                if c.name == "k" {
                    continue;
                }
                assert_eq!(column("count"), counts(&c.values, reverse), "{} {rows}", c.name);
                assert_eq!(column("min"), best(&c.values, reverse, false), "{} {rows}", c.name);
                assert_eq!(column("max"), best(&c.values, reverse, true), "{} {rows}", c.name);
                if !matches!(c.name, "x" | "d") {
                    assert_eq!(column("sum"), sums(&c.values, reverse), "{} {rows}", c.name);
                }
            }
        }
    }
}

#[test]
fn float_sums_are_near_the_exact_ones_and_products_in_order() {
    let t = table(140_000);
    for reverse in [false, true] {
        let x = c("x").fill_nan(0.25);
        let exprs = vec![
            x.cum_sum(reverse).alias("sum"),
            (x.clone() / 1e5 + 1.0).cum_prod(reverse).alias("product"),
            c("x").cum_sum(reverse).alias("nan"),
        ];
        let got = answers(&select(Plan::Scan, exprs), &t).unwrap();
        // Multiples of 1/8, but for 0.1.
        let (mut exact, mut product, mut size) = (0.0f64, 1.0f64, 0.0f64);
        let values: Vec<Val> = t[4].values.clone();
        let value = |v: &Val| match v {
            Val::Float(v) if v.is_nan() => Some(0.25),
            Val::Float(v) => Some(*v),
            _ => None,
        };
        let sums = ordered(&values, reverse, |v| match value(v) {
            Some(v) => {
                exact += v;
                size += v.abs();
                Val::Float(exact)
            }
            None => Val::Null,
        });
        for (a, b) in got.column("sum").iter().zip(&sums) {
            match (a, b) {
                (Val::Float(a), Val::Float(b)) => assert!((a - b).abs() <= 1e-12 * size),
                (a, b) => assert_eq!(a, b),
            }
        }
        let products = ordered(&values, reverse, |v| match value(v) {
            Some(v) => {
                product *= v / 1e5 + 1.0;
                Val::Float(product)
            }
            None => Val::Null,
        });
        assert_eq!(got.column("product"), products);
        let last = if reverse { 2 } else { 139_990 };
        assert!(got.column("nan")[..last].iter().skip(3).all(|v| match v {
            Val::Float(v) => v.is_nan() || reverse,
            _ => true,
        }));
    }
}

#[test]
fn they_stand_in_expressions_and_in_each_other() {
    let t = table(70_000);
    let null = || Expr::literal(Scalar::Null);
    let exprs = vec![
        (c("s").cum_sum(false) * 2).alias("twice"),
        (c("s") + c("n")).cum_sum(false).alias("of"),
        c("s").cum_sum(false).shift(null(), 1).alias("before"),
        c("s").shift(null(), 1).cum_sum(false).alias("shifted"),
        c("s").cum_sum(false).cum_max(true).alias("nested"),
        (c("i") - c("i").min()).cum_min(false).alias("mean"),
        (c("i").cum_max(false) - c("i").cum_max(true).max()).alias("most"),
    ];
    let got = answers(&with_columns(Plan::Scan, exprs), &t).unwrap();
    assert_eq!(got.names.len(), t.len() + 7);
    let s = sums(&t[2].values, false);
    let twice = s.iter().map(|v| match v {
        Val::Int(v) => Val::Int(v * 2),
        v => v.clone(),
    });
    assert_eq!(got.column("twice"), twice.collect::<Vec<_>>());
    let before: Vec<Val> = [Val::Null].into_iter().chain(s[..s.len() - 1].to_vec()).collect();
    assert_eq!(got.column("before"), before);
    let moved: Vec<Val> =
        [Val::Null].into_iter().chain(t[2].values[..t[2].values.len() - 1].to_vec()).collect();
    assert_eq!(got.column("shifted"), sums(&moved, false));
    assert_eq!(got.column("nested"), best(&s, true, true));
    let int = |v: &Val| if let Val::Int(v) = v { *v } else { panic!() };
    let least = t[0].values.iter().map(int).min().unwrap();
    let less: Vec<Val> = t[0].values.iter().map(|v| Val::Int(int(v) - least)).collect();
    assert_eq!(got.column("mean"), best(&less, false, false));
    let most = t[0].values.iter().map(int).max().unwrap();
    let above = best(&t[0].values, false, true);
    let above: Vec<Val> = above.iter().map(|v| Val::Int(int(v) - most)).collect();
    assert_eq!(got.column("most"), above);
}

#[test]
fn rows_are_counted_where_the_step_stands() {
    let t = table(80_000);
    let kept: Vec<Val> = t[1]
        .values
        .iter()
        .zip(&t[6].values)
        .filter(|(_, k)| **k == Val::Bool(true))
        .map(|(v, _)| v.clone())
        .collect();
    let sum = || vec![c("n").cum_sum(false).alias("r")];
    let after = select(filter(Plan::Scan, vec![c("k")]), sum());
    assert_eq!(answers(&after, &t).unwrap().column("r"), sums(&kept, false));
    let before = select(filter(with_columns(Plan::Scan, sum()), vec![c("k")]), vec![c("r")]);
    let whole = sums(&t[1].values, false);
    let chosen = whole.iter().zip(&t[6].values).filter(|(_, k)| **k == Val::Bool(true));
    let chosen: Vec<Val> = chosen.map(|(v, _)| v.clone()).collect();
    assert_eq!(answers(&before, &t).unwrap().column("r"), chosen);
    let sliced = select(slice(Plan::Scan, 5, Some(70_000)), sum());
    assert_eq!(answers(&sliced, &t).unwrap().column("r"), sums(&t[1].values[5..70_005], false));
    let sliced = slice(select(Plan::Scan, sum()), 5, Some(70_000));
    assert_eq!(answers(&sliced, &t).unwrap().column("r"), &whole[5..70_005]);
    let total = aggregate(Plan::Scan, vec![], vec![c("s").cum_sum(true).max().alias("r")]);
    let most = sums(&t[2].values, true).into_iter().filter_map(|v| match v {
        Val::Int(v) => Some(v),
        _ => None,
    });
    assert_eq!(answers(&total, &t).unwrap().column("r"), [Val::Int(most.max().unwrap())]);
    // As conditions, keys of a group and of a sort.
    let few = filter(Plan::Scan, vec![c("k").cum_sum(false).le(10)]);
    let few = answers(&select(few, vec![c("k")]), &t).unwrap();
    assert_eq!(few.names, ["k"]);
    assert_eq!(few.column("k").iter().filter(|v| **v == Val::Bool(true)).count(), 10);
    let key = vec![c("k").cum_sum(false).alias("key")];
    let grouped = aggregate(Plan::Scan, key, vec![Expr::len()]);
    let runs = t[6].values.iter().filter(|v| **v == Val::Bool(true)).count();
    let keys = answers(&grouped, &t).unwrap().column("key").len();
    assert!(keys == runs || keys == runs + 1);
    let sorted = sort(Plan::Scan, vec![c("k").cum_count(true)], vec![false]);
    let sorted = answers(&sorted, &t).unwrap();
    assert_eq!(sorted.names.len(), t.len());
    let mut reversed = t[0].values.clone();
    reversed.reverse();
    assert_eq!(sorted.column("i"), reversed);
}

#[test]
fn the_first_row_that_does_not_fit_is_told() {
    let rows = 300_000usize;
    let mut values = vec![Val::Int(1); rows];
    values[200_000] = Val::Int(i128::from(i64::MAX) - 200_100);
    values[250_000] = Val::Int(i128::from(i64::MAX));
    let t = [col("i", DataType::Int64, values)];
    for (reverse, row) in [(false, 200_101), (true, 249_999)] {
        let row = if reverse { 250_000 } else { row };
        let failed = answers(&select(Plan::Scan, vec![c("i").cum_sum(reverse)]), &t);
        let Err(Error::Overflow(text)) = failed else { panic!("{failed:?}") };
        assert!(text.contains(&format!("at row {row}")), "{text}");
    }
    let t = [ints("i", DataType::Int64, &[Some(1 << 62), None, Some(2), Some(0)])];
    let failed = answers(&select(Plan::Scan, vec![c("i").cum_prod(false)]), &t);
    assert!(matches!(failed, Err(Error::Overflow(_))));
    assert!(answers(&select(Plan::Scan, vec![c("i").cum_prod(true)]), &t).is_ok());
}

#[test]
fn what_has_no_running_value_is_refused() {
    let mut t = table(10);
    t.push(strs("t", DataType::Utf8, &[Some("x"); 10]));
    for e in [c("t").cum_sum(false), c("d").cum_sum(false), c("d").cum_prod(true)] {
        let refused = run(&select(Plan::Scan, vec![e]), &t);
        assert!(matches!(refused, Err(Error::TypeMismatch(_))), "{refused:?}");
    }
    let inside = c("i").cum_sum(false).sum();
    for plan in [
        select(Plan::Scan, vec![c("t").cum_min(false)]),
        aggregate(Plan::Scan, vec![c("k")], vec![inside]),
    ] {
        let refused = run(&plan, &t);
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    }
    // Aggregates do not stand inside others, running values between them or not.
    let twice = select(Plan::Scan, vec![(c("i") - c("i").mean()).cum_sum(false).max()]);
    assert!(matches!(run(&twice, &t), Err(Error::InvalidPlan(_))));
    let count = run(&select(Plan::Scan, vec![c("t").cum_count(true)]), &t).unwrap();
    assert_eq!(count.column("t")[0], Val::Int(10));
}

#[test]
fn signs_inside_and_around_are_told_apart() {
    let t = [ints("i", DataType::Int64, &[Some(-1), Some(2), Some(-3)])];
    let exprs = vec![
        c("i").neg().abs().cum_sum(false).alias("inside"),
        c("i").abs().neg().cum_sum(false).alias("around"),
    ];
    let got = answers(&select(Plan::Scan, exprs), &t).unwrap();
    assert_eq!(got.column("inside"), [Val::Int(1), Val::Int(3), Val::Int(6)]);
    assert_eq!(got.column("around"), [Val::Int(-1), Val::Int(-3), Val::Int(-6)]);
}
