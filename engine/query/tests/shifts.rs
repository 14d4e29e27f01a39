//! Functions that read other rows than their own, against the same on plain vectors: all chunk
//! layouts, before and after filters and slices, on tables longer than a tile and a morsel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{DataType, Error, Expr, Plan, Scalar};

const SHIFTS: [i64; 14] =
    [0, 1, -1, 2, -3, 63, 64, -65, 255, 300, -1000, 70_000, i64::MAX, i64::MIN];

fn shifted(values: &[Val], n: i64, fill: &Val) -> Vec<Val> {
    let at = |i: usize| usize::try_from(i as i128 - i128::from(n)).ok();
    (0..values.len())
        .map(|i| at(i).and_then(|j| values.get(j)).cloned().unwrap_or_else(|| fill.clone()))
        .collect()
}

fn table(rows: usize) -> Vec<Col> {
    let number = |i: usize| (i as i64).wrapping_mul(6_364_136_223_846_793_005) >> 40;
    let some = |i: usize, v: Val| if i % 7 == 3 { Val::Null } else { v };
    let column = |f: &dyn Fn(usize) -> Val| (0..rows).map(f).collect::<Vec<_>>();
    let int = |i: usize| Val::Int(i128::from(number(i)));
    vec![
        col("i", DataType::Int64, column(&int)),
        col("n", DataType::Int64, column(&|i| some(i, int(i)))),
        col("s", DataType::Int8, column(&|i| some(i, Val::Int(i128::from(number(i) as i8))))),
        col("x", DataType::Float64, column(&|i| some(i + 1, Val::Float(number(i) as f64 / 8.0)))),
        col("b", DataType::Bool, column(&|i| some(i, Val::Bool(number(i) % 3 == 0)))),
        col("c", DataType::Bool, column(&|i| Val::Bool(number(i) % 5 < 3))),
    ]
}

fn null() -> Expr {
    Expr::literal(Scalar::Null)
}

#[test]
fn values_come_from_so_many_rows_before() {
    for rows in [0, 1, 2, 64, 700, 3000] {
        let t = table(rows);
        for n in SHIFTS {
            let exprs = t.iter().map(|c| Expr::column(c.name).shift(null(), n)).collect();
            let got = run(&select(Plan::Scan, exprs), &t).unwrap();
            for c in &t {
                assert_eq!(got.column(c.name), shifted(&c.values, n, &Val::Null), "{} {n}", c.name);
            }
        }
    }
}

#[test]
fn tables_longer_than_a_morsel_are_read_across_its_ends() {
    let t = table(140_000);
    for n in [1, -1, 65_536, -70_001] {
        let exprs = t.iter().map(|c| Expr::column(c.name).shift(null(), n)).collect();
        let whole = Table::new(&t, &[]);
        let parts = Table::new(&t, &[1, 65_535, 3, 70_000]);
        let plan = select(Plan::Scan, exprs);
        for source in [whole, parts] {
            let got = run_with(&plan, &source, &t, false).unwrap();
            for c in &t {
                assert_eq!(got.column(c.name), shifted(&c.values, n, &Val::Null), "{} {n}", c.name);
            }
        }
    }
}

#[test]
fn fill_values_stand_where_there_is_no_row_and_nowhere_else() {
    let t = table(500);
    for n in [1, -2, 499, 500, -600] {
        let exprs =
            vec![c("n").shift(-1, n), c("b").shift(true, n), c("x").shift(c("x"), n).alias("y")];
        let got = run(&select(Plan::Scan, exprs), &t).unwrap();
        assert_eq!(got.column("n"), shifted(&t[1].values, n, &Val::Int(-1)));
        assert_eq!(got.column("b"), shifted(&t[4].values, n, &Val::Bool(true)));
        let own = shifted(&t[3].values, n, &Val::Str("own".into()));
        let want: Vec<Val> = own
            .into_iter()
            .zip(&t[3].values)
            .map(|(v, own)| if matches!(v, Val::Str(_)) { own.clone() } else { v })
            .collect();
        assert_eq!(got.column("y"), want);
    }
}

#[test]
fn what_is_computed_is_shifted_as_a_whole() {
    let t = table(700);
    let sum = (c("n") + c("i")) * 2;
    let twice = with_columns(Plan::Scan, vec![sum.alias("sum")]);
    let exprs = vec![
        c("sum").shift(null(), 3).alias("a"),
        c("sum").shift(null(), 5).shift(null(), -7).alias("b"),
        (c("i") - c("i").shift(null(), 2)).alias("c"),
        c("i").diff(2).alias("d"),
        Expr::when(c("c"), c("i"), c("n")).shift(null(), -1).alias("e"),
    ];
    let got = run(&select(twice, exprs), &t).unwrap();
    let sums: Vec<Val> = t[0]
        .values
        .iter()
        .zip(&t[1].values)
        .map(|(i, n)| match (i, n) {
            (Val::Int(i), Val::Int(n)) => Val::Int((i + n) * 2),
            _ => Val::Null,
        })
        .collect();
    assert_eq!(got.column("a"), shifted(&sums, 3, &Val::Null));
    assert_eq!(got.column("b"), shifted(&shifted(&sums, 5, &Val::Null), -7, &Val::Null));
    let before = shifted(&t[0].values, 2, &Val::Null);
    let differences: Vec<Val> = t[0]
        .values
        .iter()
        .zip(&before)
        .map(|pair| match pair {
            (Val::Int(a), Val::Int(b)) => Val::Int(a - b),
            _ => Val::Null,
        })
        .collect();
    assert_eq!(got.column("c"), differences);
    assert_eq!(got.column("d"), differences);
    let chosen: Vec<Val> = (0..700)
        .map(|i| t[if t[5].values[i] == Val::Bool(true) { 0 } else { 1 }].values[i].clone())
        .collect();
    assert_eq!(got.column("e"), shifted(&chosen, -1, &Val::Null));
}

#[test]
fn rows_are_counted_where_the_step_stands() {
    let t = table(2000);
    let kept = |values: &[Val]| -> Vec<Val> {
        let chosen = values.iter().zip(&t[5].values).filter(|(_, k)| **k == Val::Bool(true));
        chosen.map(|(v, _)| v.clone()).collect()
    };
    let keep = vec![c("c")];
    let shift = vec![c("n").shift(null(), 2).alias("r")];
    // After a filter its rows are counted, before it those of the table.
    let after = select(filter(Plan::Scan, keep.clone()), shift.clone());
    assert_eq!(run(&after, &t).unwrap().column("r"), shifted(&kept(&t[1].values), 2, &Val::Null));
    let before = select(filter(with_columns(Plan::Scan, shift.clone()), keep), vec![c("r")]);
    let whole = shifted(&t[1].values, 2, &Val::Null);
    assert_eq!(run(&before, &t).unwrap().column("r"), kept(&whole));
    // The same of slices.
    for (offset, len) in [(5, Some(100u64)), (-7, None), (1999, Some(9)), (0, Some(0))] {
        let from = if offset < 0 { 2000 + offset } else { offset } as usize;
        let to = len.map_or(2000, |n| (from + n as usize).min(2000));
        let after = select(slice(Plan::Scan, offset, len), shift.clone());
        assert_eq!(
            run(&after, &t).unwrap().column("r"),
            shifted(&t[1].values[from..to], 2, &Val::Null)
        );
        let before = slice(select(Plan::Scan, shift.clone()), offset, len);
        assert_eq!(run(&before, &t).unwrap().column("r"), &whole[from..to]);
    }
    // Filters and aggregates may read other rows themselves.
    let rising = filter(Plan::Scan, vec![c("i").gt(c("i").shift(null(), 1))]);
    let count = aggregate(rising, vec![], vec![Expr::len().alias("r")]);
    let want = t[0].values.windows(2).filter(|w| match w {
        [Val::Int(a), Val::Int(b)] => b > a,
        _ => false,
    });
    assert_eq!(run(&count, &t).unwrap().column("r"), [Val::Int(want.count() as i128)]);
    let total = aggregate(Plan::Scan, vec![], vec![c("i").diff(1).sum().alias("r")]);
    let (Val::Int(first), Val::Int(last)) = (&t[0].values[0], &t[0].values[1999]) else { panic!() };
    assert_eq!(run(&total, &t).unwrap().column("r"), [Val::Int(last - first)]);
    let sorted = select(sort(Plan::Scan, vec![c("i")], vec![true]), vec![c("i").diff(1)]);
    let differences = run(&sorted, &t).unwrap();
    assert!(differences.column("i")[1..].iter().all(|v| matches!(v, Val::Int(d) if *d <= 0)));
}

#[test]
fn strings_are_shifted_and_what_is_computed_of_them() {
    for dtype in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
        for rows in [0, 1, 2, 64, 700, 70_000] {
            if rows > 700 && dtype == DataType::LargeUtf8 {
                continue;
            }
            let text = |i: usize| match i % 5 {
                0 => Val::Null,
                1 => Val::Str(String::new()),
                2 => Val::Str(format!("{i}, longer than a view holds")),
                _ => Val::Str(format!("{}", i % 7)),
            };
            let values: Vec<Val> = (0..rows).map(text).collect();
            let whole = values.iter().map(|v| match v {
                Val::Null => Val::Str("none".into()),
                v => v.clone(),
            });
            let t = [
                col("t", dtype.clone(), values.clone()),
                col("w", dtype.clone(), whole.clone().collect()),
            ];
            let w = &t[1].values;
            for n in [0, 1, -2, 63, 300, -65_537, i64::MAX, i64::MIN] {
                let exprs = vec![
                    c("t").shift(null(), n),
                    c("w").shift("", n),
                    c("w").shift(null(), n).alias("n"),
                    c("w").eq(c("w").shift(null(), n)).alias("same"),
                    c("w").eq("3").shift(false, n).alias("three"),
                ];
                let got = run(&select(Plan::Scan, exprs), &t).unwrap();
                assert_eq!(got.column("t"), shifted(&t[0].values, n, &Val::Null), "{dtype} {n}");
                assert_eq!(got.column("w"), shifted(w, n, &Val::Str(String::new())));
                assert_eq!(got.column("n"), shifted(w, n, &Val::Null));
                let same = w.iter().zip(shifted(w, n, &Val::Null)).map(|(a, b)| match b {
                    Val::Null => Val::Null,
                    b => Val::Bool(*a == b),
                });
                assert_eq!(got.column("same"), same.collect::<Vec<_>>());
                let three = w.iter().map(|v| Val::Bool(*v == Val::Str("3".into())));
                let three: Vec<Val> = three.collect();
                assert_eq!(got.column("three"), shifted(&three, n, &Val::Bool(false)));
            }
        }
    }
}

#[test]
fn what_cannot_be_shifted_is_refused() {
    let mut t = table(10);
    t.push(strs("t", DataType::Utf8, &[Some("x"); 10]));
    let refused = run(&select(Plan::Scan, vec![c("t").shift(c("t"), 1)]), &t);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    let refused = run(&select(Plan::Scan, vec![c("t").diff(1)]), &t);
    assert!(matches!(refused, Err(Error::TypeMismatch(_) | Error::Unsupported(_))), "{refused:?}");
    let grouped = aggregate(Plan::Scan, vec![c("c")], vec![c("i").shift(null(), 1).sum()]);
    assert!(matches!(run(&grouped, &t), Err(Error::Unsupported(_))));
    // One value has no row before it beside a column.
    for e in [c("i") - c("i").sum().shift(null(), 1), c("i") + c("i").max().cum_sum(false)] {
        for plan in [select(Plan::Scan, vec![e.clone()]), with_columns(Plan::Scan, vec![e])] {
            let refused = run(&plan, &t);
            assert!(matches!(refused, Err(Error::InvalidPlan(_))), "{refused:?}");
        }
    }
    // Alone it is a column of one row.
    let one = run(&select(Plan::Scan, vec![c("i").sum().shift(null(), 1)]), &t).unwrap();
    assert_eq!(one.columns, [[Val::Null]]);
}

#[test]
fn shifts_of_shifts_do_not_grow_without_end() {
    let t = table(10);
    for shifted in [|e: Expr, n: i64| e.diff(n), |e: Expr, n: i64| e.clone() + e.shift(null(), n)] {
        let e = (0..40).fold(c("n"), |e, k| shifted(e, 1 << k));
        let refused = run(&select(Plan::Scan, vec![e.clone()]), &t);
        assert!(matches!(refused, Err(Error::LimitExceeded(_))), "{refused:?}");
        // Nor by steps.
        let steps = (0..40).fold(Plan::Scan, |plan, k| {
            with_columns(plan, vec![shifted(c("n"), 1 << k).alias("n")])
        });
        assert!(matches!(run(&steps, &t), Err(Error::LimitExceeded(_))));
    }
    let few = (0..8).fold(c("n"), |e, k| e.diff(1 << k));
    assert!(run(&select(Plan::Scan, vec![few]), &t).is_ok());
}
