//! Whole plans, end to end: filters, selections, reductions, groups, sorts, slices, and errors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use insitu_query::{
    Context, DataType, Error, Expr, Field, Heap, OutputColumn, Plan, Prepared, Scalar, Schema,
    TimeUnit, set_threads,
};

fn flights() -> Vec<Col> {
    let n = 5000;
    let carriers = ["AA", "UA", "a carrier with a long name", "B6"];
    let null = |i: usize, k: usize, v: Val| if i % k == 3 { Val::Null } else { v };
    vec![
        col("id", DataType::Int64, (0..n).map(|i| Val::Int(i as i128)).collect()),
        col(
            "delay",
            DataType::Int32,
            (0..n).map(|i| null(i, 7, Val::Int((i * 37 % 211) as i128 - 100))).collect(),
        ),
        col(
            "distance",
            DataType::Float64,
            (0..n).map(|i| null(i, 11, Val::Float((i * 13 % 997) as f64 / 8.0))).collect(),
        ),
        col(
            "carrier",
            DataType::Utf8,
            (0..n).map(|i| null(i, 13, Val::Str(carriers[i * i % 4].into()))).collect(),
        ),
        col("late", DataType::Bool, (0..n).map(|i| null(i, 5, Val::Bool(i % 3 == 0))).collect()),
        col(
            "view",
            DataType::Utf8View,
            (0..n).map(|i| Val::Str(format!("row {} of the table", i % 50))).collect(),
        ),
    ]
}

fn int(v: &Val) -> Option<i128> {
    match v {
        Val::Int(v) => Some(*v),
        _ => None,
    }
}

fn float(v: &Val) -> Option<f64> {
    match v {
        Val::Float(v) => Some(*v),
        _ => None,
    }
}

#[test]
fn filter_keeps_the_rows_where_all_predicates_hold() {
    let t = flights();
    let plan =
        filter(Plan::Scan, vec![c("delay").gt(0), c("distance").lt(100.5), c("carrier").ne("AA")]);
    let got = run(&plan, &t).unwrap();
    let keep: Vec<usize> = (0..5000)
        .filter(|i| {
            int(&t[1].values[*i]).is_some_and(|v| v > 0)
                && float(&t[2].values[*i]).is_some_and(|v| v < 100.5)
                && matches!(&t[3].values[*i], Val::Str(s) if s != "AA")
        })
        .collect();
    assert!(keep.len() > 500);
    for (k, column) in t.iter().enumerate() {
        let want: Vec<Val> = keep.iter().map(|i| column.values[*i].clone()).collect();
        assert_eq!(got.columns[k], want, "{}", column.name);
    }
}

#[test]
fn filter_then_select_then_reduce() {
    let t = flights();
    let plan = select(
        with_columns(
            filter(Plan::Scan, vec![c("distance").ge(10.0)]),
            vec![(c("distance") * 2.0 + c("delay")).alias("x")],
        ),
        vec![
            c("x").sum().alias("s"),
            c("x").mean().alias("m"),
            c("x").min().alias("lo"),
            c("x").max().alias("hi"),
            c("x").count().alias("n"),
            Expr::len().alias("rows"),
            (c("delay").sum() / Expr::len()).alias("ratio"),
            c("late").sum().alias("late"),
            c("late").max().alias("any"),
        ],
    );
    let got = run(&plan, &t).unwrap();
    let rows: Vec<usize> =
        (0..5000).filter(|i| float(&t[2].values[*i]).is_some_and(|v| v >= 10.0)).collect();
    let xs: Vec<f64> = rows
        .iter()
        .filter_map(|i| Some(float(&t[2].values[*i])? * 2.0 + int(&t[1].values[*i])? as f64))
        .collect();
    let sum: f64 = xs.iter().sum();
    // Multiples of 1/4: exact in any order.
    assert_eq!(got.column("s"), [Val::Float(sum)]);
    assert_eq!(got.column("m"), [Val::Float(sum / xs.len() as f64)]);
    assert_eq!(got.column("lo"), [Val::Float(xs.iter().copied().fold(f64::MAX, f64::min))]);
    assert_eq!(got.column("hi"), [Val::Float(xs.iter().copied().fold(f64::MIN, f64::max))]);
    assert_eq!(got.column("n"), [Val::Int(xs.len() as i128)]);
    assert_eq!(got.column("rows"), [Val::Int(rows.len() as i128)]);
    let delay: i128 = rows.iter().filter_map(|i| int(&t[1].values[*i])).sum();
    assert_eq!(got.column("ratio"), [Val::Float(delay as f64 / rows.len() as f64)]);
    let late = rows.iter().filter(|i| t[4].values[**i] == Val::Bool(true)).count();
    assert_eq!(got.column("late"), [Val::Int(late as i128)]);
    assert_eq!(got.column("any"), [Val::Bool(true)]);
}

#[test]
fn groups_come_in_order_of_first_appearance_with_null_as_a_group() {
    let t = flights();
    for key in ["carrier", "view", "late", "delay"] {
        let plan = aggregate(
            filter(Plan::Scan, vec![c("id").gt(100)]),
            vec![c(key)],
            vec![
                c("distance").sum().alias("s"),
                c("delay").max().alias("hi"),
                c("late").min().alias("all"),
                (c("distance").sum() / c("distance").count()).alias("m"),
                c("distance").mean().alias("mean"),
                Expr::len(),
            ],
        );
        let got = run(&plan, &t).unwrap();
        let k = t.iter().position(|x| x.name == key).unwrap();
        let mut keys: Vec<Val> = Vec::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in 101..5000 {
            let v = &t[k].values[i];
            match keys.iter().position(|x| x == v) {
                Some(g) => groups[g].push(i),
                None => {
                    keys.push(v.clone());
                    groups.push(vec![i]);
                }
            }
        }
        assert_eq!(got.column(key), keys);
        for (g, rows) in groups.iter().enumerate() {
            let d: Vec<f64> = rows.iter().filter_map(|i| float(&t[2].values[*i])).collect();
            let sum: f64 = d.iter().sum();
            assert_eq!(got.column("s")[g], Val::Float(sum));
            assert_eq!(got.column("m")[g], Val::Float(sum / d.len() as f64));
            assert_eq!(got.column("mean")[g], Val::Float(sum / d.len() as f64));
            let hi = rows.iter().filter_map(|i| int(&t[1].values[*i])).max();
            assert_eq!(got.column("hi")[g], hi.map_or(Val::Null, Val::Int));
            let bools: Vec<&Val> =
                rows.iter().map(|i| &t[4].values[*i]).filter(|v| **v != Val::Null).collect();
            let all = bools.iter().all(|v| **v == Val::Bool(true));
            let want = if bools.is_empty() { Val::Null } else { Val::Bool(all) };
            assert_eq!(got.column("all")[g], want);
            assert_eq!(got.column("len")[g], Val::Int(rows.len() as i128));
        }
    }
}

#[test]
fn several_keys_group_by_their_combinations() {
    let t = flights();
    let plan = aggregate(
        Plan::Scan,
        vec![c("carrier"), c("late"), (c("id") % 3).alias("m")],
        vec![Expr::len(), c("id").min().alias("first")],
    );
    let got = run(&plan, &t).unwrap();
    let mut seen: Vec<(Val, Val, i128)> = Vec::new();
    let mut first = Vec::new();
    for i in 0..5000 {
        let k = (t[3].values[i].clone(), t[4].values[i].clone(), i as i128 % 3);
        if !seen.contains(&k) {
            seen.push(k);
            first.push(Val::Int(i as i128));
        }
    }
    assert_eq!(got.column("first"), first);
    assert_eq!(got.column("carrier"), seen.iter().map(|k| k.0.clone()).collect::<Vec<_>>());
    assert_eq!(got.column("late"), seen.iter().map(|k| k.1.clone()).collect::<Vec<_>>());
}

#[test]
fn sort_is_stable_with_nulls_last_and_slices_follow() {
    let t = flights();
    let plan = slice(
        sort(
            select(Plan::Scan, vec![c("carrier"), c("delay"), c("id"), c("view")]),
            vec![c("carrier"), -c("delay")],
            vec![true, false],
        ),
        10,
        Some(3000),
    );
    let got = run(&plan, &t).unwrap();
    let mut order: Vec<usize> = (0..5000).collect();
    let text = |i: usize| match &t[3].values[i] {
        Val::Str(s) => Some(s.clone()),
        _ => None,
    };
    order.sort_by(|a, b| {
        let s = match (text(*a), text(*b)) {
            (Some(x), Some(y)) => y.cmp(&x),
            (x, y) => x.is_none().cmp(&y.is_none()),
        };
        let d = match (int(&t[1].values[*a]), int(&t[1].values[*b])) {
            (Some(x), Some(y)) => y.cmp(&x),
            (x, y) => x.is_none().cmp(&y.is_none()),
        };
        s.then(d)
    });
    let want: Vec<Val> = order[10..3010].iter().map(|i| Val::Int(*i as i128)).collect();
    assert_eq!(got.column("id"), want);
    let want: Vec<Val> = order[10..3010].iter().map(|i| t[5].values[*i].clone()).collect();
    assert_eq!(got.column("view"), want);
    assert_eq!(got.names, ["carrier", "delay", "id", "view"]);
}

#[test]
fn slices_take_any_rows() {
    let t = flights();
    for (offset, len) in [
        (0, Some(0)),
        (3, Some(100)),
        (-5, None),
        (-5, Some(2)),
        (4990, Some(100)),
        (70, None),
        (9999, None),
        (-9999, Some(5000)),
    ] {
        let got = run(&slice(Plan::Scan, offset, len), &t).unwrap();
        let start = if offset < 0 { 5000 + offset } else { offset }.min(5000);
        let end = len.map_or(5000, |n| (start + n as i64).min(5000)).max(0);
        let start = start.clamp(0, end);
        for (k, column) in t.iter().enumerate() {
            assert_eq!(
                got.columns[k],
                column.values[start as usize..end as usize],
                "{offset} {len:?} {}",
                column.name
            );
        }
    }
    // A slice of a filter, filtered again, and a slice before a reduction.
    let plan = select(
        filter(
            slice(filter(Plan::Scan, vec![(c("id") % 2).eq(0)]), 100, Some(1000)),
            vec![c("id").lt(1000)],
        ),
        vec![c("id").sum(), Expr::len()],
    );
    let got = run(&plan, &t).unwrap();
    let want: Vec<i128> =
        (0..5000).filter(|i| i % 2 == 0).skip(100).take(1000).filter(|i| *i < 1000).collect();
    assert_eq!(got.column("id"), [Val::Int(want.iter().sum())]);
    assert_eq!(got.column("len"), [Val::Int(want.len() as i128)]);
}

#[test]
fn aggregates_beside_rows_are_broadcast() {
    let t = flights();
    let plan = with_columns(
        filter(Plan::Scan, vec![c("id").lt(1000)]),
        vec![(c("id") - c("id").mean()).alias("d"), c("delay").max().alias("hi")],
    );
    let got = run(&plan, &t).unwrap();
    assert_eq!(got.column("d")[3], Val::Float(3.0 - 499.5));
    assert!(got.column("hi").iter().all(|v| *v == got.column("hi")[0]));
    assert_eq!(got.names.len(), 8);
    // The filter's program and the one that writes both read the mean.
    let plan = filter(
        with_columns(Plan::Scan, vec![c("id").mean().alias("m")]),
        vec![c("id").gt(c("m")), c("delay").gt(0)],
    );
    let got = run(&plan, &t).unwrap();
    assert!(got.column("id").iter().all(|v| int(v).unwrap() >= 2500));
    assert!(got.column("m").iter().all(|v| *v == Val::Float(2499.5)));
    let plan = select(Plan::Scan, vec![c("id"), (c("id") + c("id").max()).alias("x")]);
    let got = run(&plan, &t).unwrap();
    assert_eq!(got.column("x")[1], Val::Int(5000));
}

#[test]
fn aggregates_of_nothing() {
    let t = flights();
    for plan in [filter(Plan::Scan, vec![c("id").lt(0)]), slice(Plan::Scan, 0, Some(0))] {
        let got = run(
            &select(
                plan.clone(),
                vec![
                    c("delay").sum().alias("a"),
                    c("distance").sum().alias("b"),
                    c("distance").mean().alias("c"),
                    c("delay").min().alias("d"),
                    c("delay").count().alias("e"),
                    Expr::len().alias("f"),
                    c("late").max().alias("g"),
                ],
            ),
            &t,
        )
        .unwrap();
        let flat: Vec<Val> = got.columns.iter().map(|c| c[0].clone()).collect();
        let zero = Val::Int(0);
        assert_eq!(
            flat,
            [zero.clone(), Val::Float(0.0), Val::Null, Val::Null, zero.clone(), zero, Val::Null]
        );
        let got = run(&aggregate(plan.clone(), vec![c("carrier")], vec![Expr::len()]), &t).unwrap();
        assert_eq!(got.columns, [Vec::<Val>::new(), Vec::new()]);
        let got = run(&sort(plan, vec![c("carrier")], vec![]), &t).unwrap();
        assert!(got.columns.iter().all(Vec::is_empty));
    }
}

#[test]
fn tables_without_rows_or_chunks_work() {
    let columns: Vec<Col> =
        flights().into_iter().map(|x| Col { values: Vec::new(), ..x }).collect();
    let t = Table::new(&columns, &[]);
    for plan in [
        Plan::Scan,
        filter(Plan::Scan, vec![c("delay").gt(1)]),
        select(Plan::Scan, vec![(c("delay") + 1).alias("x")]),
        sort(Plan::Scan, vec![c("carrier"), c("delay")], vec![]),
        slice(Plan::Scan, -3, Some(2)),
        aggregate(Plan::Scan, vec![c("carrier"), c("late")], vec![Expr::len()]),
    ] {
        let got = run_with(&plan, &t, &columns, false).unwrap();
        assert!(got.columns.iter().all(Vec::is_empty), "{plan:?}");
    }
    let got = run_with(&select(Plan::Scan, vec![c("delay").sum()]), &t, &columns, false).unwrap();
    assert_eq!(got.columns, [[Val::Int(0)]]);
}

#[test]
fn opaque_columns_pass_through_but_do_not_move() {
    let opaque = DataType::Opaque("dictionary<int32, utf8>".into());
    let t = vec![
        ints("a", DataType::Int64, &[Some(1), Some(2), None]),
        col("d", opaque, vec![Val::Null; 3]),
    ];
    let t: Vec<Col> = t;
    let table = Table::new(&t, &[]);
    let heap = Heap::new();
    let plan = with_columns(Plan::Scan, vec![(c("a") + 1).alias("b")]);
    let p = Prepared::compile(&plan, &table.schema).unwrap();
    let out = p.run(&table.view(), &Context::new(&heap)).unwrap();
    assert!(matches!(out.columns[1], OutputColumn::Shared { source: 1 }));
    let err = Prepared::compile(&filter(Plan::Scan, vec![c("a").gt(1)]), &table.schema);
    assert!(
        matches!(&err, Err(Error::Unsupported(m)) if m.contains("\"d\"") && m.contains("dictionary")),
        "{err:?}"
    );
    let plan = select(filter(Plan::Scan, vec![c("a").gt(1)]), vec![c("a")]);
    assert_eq!(run(&plan, &t).unwrap().columns, [[Val::Int(2)]]);
    let err = Prepared::compile(&select(Plan::Scan, vec![c("d") + 1]), &table.schema);
    assert!(matches!(err, Err(Error::TypeMismatch(_))), "{err:?}");
}

#[test]
fn the_same_bits_at_any_number_of_threads_and_any_chunks() {
    let n = 300_000;
    let mut x = 1u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 11) as f64 / 1e7
    };
    let t = vec![
        col(
            "x",
            DataType::Float64,
            (0..n).map(|i| if i % 97 == 0 { Val::Null } else { Val::Float(next()) }).collect(),
        ),
        col("k", DataType::Int32, (0..n).map(|i| Val::Int(i128::from(i) * 7919 % 1000)).collect()),
    ];
    let plans = [
        select(
            filter(Plan::Scan, vec![c("k").ne(5)]),
            vec![c("x").sum(), c("x").mean().alias("m")],
        ),
        select(Plan::Scan, vec![(c("x") * c("x")).sum()]),
        aggregate(Plan::Scan, vec![c("k")], vec![c("x").sum(), c("x").mean().alias("m")]),
        select(filter(Plan::Scan, vec![c("x").gt(1e8)]), vec![(c("x") * 3.0).alias("y"), c("k")]),
    ];
    for plan in &plans {
        let mut first: Option<Answer> = None;
        for threads in [1, 2, 7] {
            set_threads(threads);
            for chunks in [vec![], vec![100_001, 3, 99_000]] {
                let got = run_with(plan, &Table::new(&t, &chunks), &t, false).unwrap();
                match &first {
                    None => first = Some(got),
                    Some(f) => assert_eq!(&got, f, "{threads} threads, chunks {chunks:?}"),
                }
            }
        }
    }
    set_threads(0);
}

#[test]
fn sums_are_exact_or_an_error() {
    let t = vec![
        ints("a", DataType::Int64, &[Some(i64::MAX), Some(1), Some(-5)]),
        ints("b", DataType::Int64, &[Some(i64::MAX), Some(1), None]),
        ints("g", DataType::Int8, &[Some(1), Some(1), Some(1)]),
    ];
    let got = run(&select(Plan::Scan, vec![c("a").sum()]), &t).unwrap();
    assert_eq!(got.columns, [[Val::Int(i128::from(i64::MAX) - 4)]]);
    let sum = select(Plan::Scan, vec![c("b").sum()]);
    assert!(matches!(run(&sum, &t), Err(Error::Overflow(m)) if m.contains("9223372036854775808")));
    let sum = aggregate(Plan::Scan, vec![c("g")], vec![c("b").sum()]);
    assert!(matches!(run(&sum, &t), Err(Error::Overflow(_))));
}

#[test]
fn checked_arithmetic_names_row_and_values() {
    let t = vec![
        ints("a", DataType::Int8, &[Some(1), None, Some(100), Some(120)]),
        ints("b", DataType::Int8, &[Some(1), Some(120), Some(27), Some(120)]),
    ];
    let plan = select(Plan::Scan, vec![c("a") + c("b")]);
    let table = Table::new(&t, &[2]);
    let got = run_with(&plan, &table, &t, false).unwrap();
    assert_eq!(got.columns[0], [Val::Int(2), Val::Null, Val::Int(127), Val::Int(-16)]);
    match run_with(&plan, &table, &t, true) {
        Err(Error::Overflow(m)) => {
            assert!(m.contains("row 3") && m.contains("120 and 120") && m.contains("int8"), "{m}");
        }
        other => panic!("{other:?}"),
    }
    // A filter before takes the row out.
    let plan = select(filter(Plan::Scan, vec![c("a").lt(110)]), vec![c("a") + c("b")]);
    assert_eq!(run_with(&plan, &table, &t, true).unwrap().columns, [[Val::Int(2), Val::Int(127)]]);
}

#[test]
fn strict_casts_name_row_and_value() {
    let t = vec![floats("x", &[Some(1.5), None, Some(300.0), Some(f64::NAN)])];
    let strict = select(Plan::Scan, vec![c("x").cast(DataType::UInt8, true)]);
    match run(&strict, &t) {
        Err(Error::CastFailed { column, row, value, to }) => {
            assert_eq!(
                (column.as_str(), row, value.as_str(), to.as_str()),
                ("col(\"x\")", 2, "300.0", "uint8")
            );
        }
        other => panic!("{other:?}"),
    }
    let lax = select(Plan::Scan, vec![c("x").cast(DataType::UInt8, false)]);
    assert_eq!(run(&lax, &t).unwrap().columns, [[Val::Int(1), Val::Null, Val::Null, Val::Null]]);
}

#[test]
fn times_compare_subtract_and_move() {
    let us = TimeUnit::Microsecond;
    let t = vec![
        ints("d", DataType::Date32, &[Some(0), Some(10), None]),
        ints(
            "t",
            DataType::Timestamp(TimeUnit::Millisecond, None),
            &[Some(86_400_000), Some(5), Some(7)],
        ),
        ints(
            "z",
            DataType::Timestamp(us, Some("Europe/Berlin".into())),
            &[Some(1), Some(2), Some(3)],
        ),
    ];
    let day = Scalar::Duration { value: 86_400_000_000, unit: us };
    let plan = select(
        Plan::Scan,
        vec![
            c("d").lt(Scalar::Date32(5)).alias("a"),
            c("d").lt(Scalar::Timestamp { value: 1, unit: us, tz: None }).alias("b"),
            (c("t") - c("d")).alias("c"),
            (c("d") + day.clone()).alias("e"),
            (c("t") - Expr::literal(day)).alias("f"),
            (c("d") - Expr::literal(Scalar::Date32(3))).alias("g"),
            c("z").max().alias("h"),
        ],
    );
    let got = run(&plan, &t).unwrap();
    assert_eq!(got.column("a"), [Val::Bool(true), Val::Bool(false), Val::Null]);
    assert_eq!(got.column("b"), [Val::Bool(true), Val::Bool(false), Val::Null]);
    assert_eq!(got.column("c"), [Val::Int(86_400_000), Val::Int(5 - 864_000_000), Val::Null]);
    assert_eq!(got.column("e"), [Val::Int(1), Val::Int(11), Val::Null]);
    assert_eq!(got.column("f")[0], Val::Int(0));
    assert_eq!(got.column("g")[0], Val::Int(-3 * 86_400));
    assert_eq!(got.dtypes[3], DataType::Date32);
    assert_eq!(got.dtypes[4], DataType::Timestamp(us, None));
    assert_eq!(got.dtypes[6], DataType::Timestamp(us, Some("Europe/Berlin".into())));
    let mixed = select(Plan::Scan, vec![c("z").gt(c("t"))]);
    assert!(matches!(run(&mixed, &t), Err(Error::TypeMismatch(m)) if m.contains("time zone")));
    let text = select(Plan::Scan, vec![c("d").gt("2020-01-01")]);
    assert!(matches!(run(&text, &t), Err(Error::TypeMismatch(m)) if m.contains("datetime.date")));
}

#[test]
fn strings_compare_and_are_found_in_sets() {
    for dtype in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
        let t = vec![
            strs(
                "s",
                dtype.clone(),
                &[Some("b"), None, Some(""), Some("a string longer than a view")],
            ),
            strs(
                "r",
                dtype,
                &[Some("a"), Some("x"), Some(""), Some("a string longer than a VIEW")],
            ),
        ];
        let set =
            vec![Scalar::from("b"), Scalar::Null, Scalar::from("a string longer than a view")];
        let plan = select(
            Plan::Scan,
            vec![
                c("s").eq("b").alias("eq"),
                c("s").gt(c("r")).alias("gt"),
                c("s").is_in(set).alias("in"),
                c("s").is_null().alias("null"),
                Expr::literal("b").lt(c("s")).alias("lt"),
            ],
        );
        let got = run(&plan, &t).unwrap();
        let (y, n, null) = (Val::Bool(true), Val::Bool(false), Val::Null);
        assert_eq!(got.column("eq"), [y.clone(), null.clone(), n.clone(), n.clone()]);
        assert_eq!(got.column("gt"), [y.clone(), null.clone(), n.clone(), y.clone()]);
        assert_eq!(got.column("in"), [y.clone(), null.clone(), n.clone(), y.clone()]);
        assert_eq!(got.column("null"), [n.clone(), y.clone(), n.clone(), n.clone()]);
        assert_eq!(got.column("lt"), [n.clone(), null, n.clone(), n]);
    }
}

#[test]
fn errors_name_columns_types_and_what_to_do() {
    let t = flights();
    let schema = Table::new(&t, &[]).schema;
    let fails = |plan: Plan| Prepared::compile(&plan, &schema).expect_err("an error");
    match fails(select(Plan::Scan, vec![c("carier")])) {
        Error::UnknownColumn { name, nearest } => {
            assert_eq!((name.as_str(), nearest.as_deref()), ("carier", Some("carrier")));
        }
        other => panic!("{other:?}"),
    }
    let m = fails(select(Plan::Scan, vec![c("carrier") + 1])).to_string();
    assert!(m.contains("carrier") && m.contains("utf8") && m.contains("int64"), "{m}");
    let m = fails(filter(Plan::Scan, vec![c("delay") + 1])).to_string();
    assert!(m.contains("delay") && m.contains("int32") && m.contains("boolean"), "{m}");
    assert!(matches!(fails(filter(Plan::Scan, vec![c("id").sum().gt(1)])), Error::InvalidPlan(_)));
    assert!(matches!(fails(select(Plan::Scan, vec![c("id").sum().sum()])), Error::InvalidPlan(_)));
    assert!(matches!(fails(select(Plan::Scan, vec![c("id"), c("id")])), Error::InvalidPlan(_)));
    let free = aggregate(Plan::Scan, vec![c("carrier")], vec![c("id") + c("id").sum()]);
    assert!(matches!(fails(free), Error::InvalidPlan(m) if m.contains("\"id\"")));
    assert!(matches!(fails(select(Plan::Scan, vec![c("view").max()])), Error::Unsupported(_)));
    let mut deep = c("id");
    for _ in 0..1000 {
        deep = deep + 1;
    }
    assert!(matches!(fails(select(Plan::Scan, vec![deep])), Error::LimitExceeded(_)));
    let mut long = Plan::Scan;
    for _ in 0..1000 {
        long = filter(long, vec![c("late")]);
    }
    assert!(matches!(fails(long), Error::LimitExceeded(_)));
}

#[test]
fn the_deepest_allowed_expression_runs() {
    let t = vec![ints("a", DataType::Int64, &[Some(1), None])];
    let mut e = c("a");
    for _ in 0..511 {
        e = e + 1;
    }
    assert_eq!(
        run(&select(Plan::Scan, vec![e]), &t).unwrap().columns,
        [[Val::Int(512), Val::Null]]
    );
}

#[test]
fn parameters_take_their_values_at_each_run() {
    let t = flights();
    let table = Table::new(&t, &[]);
    let plan = select(filter(Plan::Scan, vec![c("id").lt(Expr::param("x"))]), vec![Expr::len()]);
    let p = Prepared::compile(&plan, &table.schema).unwrap();
    for (value, want) in [(Scalar::Int(5), 5), (Scalar::Float(7.5), 8), (Scalar::Int(5), 5)] {
        let heap = Heap::new();
        let params = [("x", value)];
        let cx = Context { params: &params, ..Context::new(&heap) };
        let out = p.run(&table.view(), &cx).unwrap();
        let OutputColumn::New(n) = &out.columns[0] else { panic!() };
        // SAFETY: one int64.
        assert_eq!(unsafe { n.values.unwrap().ptr.cast::<i64>().read() }, want);
    }
    let heap = Heap::new();
    let missing = p.run(&table.view(), &Context::new(&heap));
    assert!(matches!(missing, Err(Error::InvalidArgument(m)) if m.contains("\"x\"")));
    let params = [("x", Scalar::Int(1)), ("y", Scalar::Int(1))];
    let unknown = p.run(&table.view(), &Context { params: &params, ..Context::new(&heap) });
    let says = |m: &str| m.ends_with("no parameter \"y\"; its parameters: \"x\"");
    assert!(matches!(unknown, Err(Error::InvalidArgument(m)) if says(&m)));
}

#[test]
fn a_run_can_be_cancelled() {
    let rows = 3_000_000;
    let t = vec![col("a", DataType::Int8, vec![Val::Int(1); rows])];
    let table = Table::new(&t, &[]);
    let mut e = c("a").cast(DataType::Float64, true);
    for i in 0..150 {
        e = (e + f64::from(i)).sqrt();
    }
    let p = Prepared::compile(&select(Plan::Scan, vec![e.sum()]), &table.schema).unwrap();
    let heap = Heap::new();
    let cx = Context { interrupt: &|| true, ..Context::new(&heap) };
    assert!(matches!(p.run(&table.view(), &cx), Err(Error::Cancelled)));
}

#[test]
fn tables_of_another_schema_are_refused() {
    let t = flights();
    let other = Schema::new(vec![Field::new("id", DataType::Int32, true)]);
    let p = Prepared::compile(&Plan::Scan, &other).unwrap();
    let heap = Heap::new();
    let table = Table::new(&t, &[]);
    assert!(matches!(p.run(&table.view(), &Context::new(&heap)), Err(Error::ShapeMismatch(_))));
}

#[test]
fn explain_shows_stages_kernels_and_tiles() {
    let plan = select(
        filter(Plan::Scan, vec![c("x").gt(1.0)]),
        vec![(c("x") * c("y") + 2.0 - c("x")).alias("z")],
    );
    let schema = Schema::new(vec![
        Field::new("x", DataType::Float64, false),
        Field::new("y", DataType::Float64, false),
    ]);
    let text = Prepared::compile(&Arc::new(plan), &schema).unwrap().explain();
    assert!(text.contains("chain3.mul.add.sub.float64"), "{text}");
    assert!(text.contains("rows per tile") && text.contains("level"), "{text}");
}

#[test]
fn columns_too_large_for_the_cache_are_written_whole() {
    // Over 16 MiB of output, which goes past the cache, with an odd tail, nulls and bits.
    let n = (2 << 20) + 4133;
    let value = |i: usize| if i % 1009 == 7 { Val::Null } else { Val::Float(i as f64 / 8.0) };
    let t = vec![
        col("x", DataType::Float64, (0..n).map(value).collect()),
        col("y", DataType::Float64, (0..n).map(|i| Val::Float((i % 97) as f64)).collect()),
    ];
    let plan = select(
        Plan::Scan,
        vec![(c("x") * c("y") - c("y") * 0.5).alias("z"), c("x").lt(c("y")).alias("less")],
    );
    let got = run_with(&plan, &Table::new(&t, &[]), &t, false).unwrap();
    for i in 0..n {
        let y = (i % 97) as f64;
        let (z, less) = match value(i) {
            Val::Float(x) => (Val::Float(x * y - y * 0.5), Val::Bool(x < y)),
            _ => (Val::Null, Val::Null),
        };
        assert_eq!((&got.columns[0][i], &got.columns[1][i]), (&z, &less), "row {i}");
    }
}
