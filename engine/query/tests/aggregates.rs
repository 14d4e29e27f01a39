//! Every aggregate of every type against plain loops: whole columns and groups, nulls, NaN, zeros of
//! both signs, filters, slices, chunks; and the same bits whoever computed them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{DataType, Error, Expr, Plan, set_threads};

const NUMBERS: [DataType; 10] = [
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
    DataType::Float32,
    DataType::Float64,
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Of few values, so that there are equal ones; one in `nulls` is null (0: none).
fn values(dtype: &DataType, rows: usize, nulls: u64, seed: u64) -> Vec<Val> {
    let mut r = Random(seed | 1);
    (0..rows)
        .map(|_| {
            if nulls > 0 && r.below(nulls) == 0 {
                return Val::Null;
            }
            match dtype {
                DataType::Bool => Val::Bool(r.below(2) == 0),
                t if t.is_string() => {
                    let words = ["", "a", "a word of more than twelve bytes", "zz", "b"];
                    Val::Str(words[r.below(5) as usize].into())
                }
                t if t.is_float() => Val::Float(match r.below(20) {
                    0 => f64::NAN,
                    1 => -0.0,
                    2 => 0.0,
                    3 => f64::INFINITY,
                    _ => r.below(2000) as f64 / 16.0 - 60.0,
                }),
                t if t.is_unsigned() => Val::Int(i128::from(r.below(100))),
                _ => Val::Int(i128::from(r.below(100)) - 50),
            }
        })
        .collect()
}

fn number(v: &Val) -> f64 {
    match v {
        Val::Int(v) => *v as f64,
        Val::Float(v) => *v,
        Val::Bool(v) => f64::from(u8::from(*v)),
        _ => panic!("{v:?}"),
    }
}

fn variance(some: &[&Val], ddof: usize) -> Val {
    let n = some.len();
    if n <= ddof {
        return Val::Null;
    }
    let mean = some.iter().map(|v| number(v)).sum::<f64>() / n as f64;
    let squares: f64 = some.iter().map(|v| (number(v) - mean).powi(2)).sum();
    Val::Float(squares / (n - ddof) as f64)
}

fn root(v: Val) -> Val {
    if let Val::Float(v) = v { Val::Float(v.sqrt()) } else { v }
}

/// The first of the best, as Rust's own order of numbers has it; NaN left out.
fn best_row(all: &[&Val], max: bool) -> Val {
    let mut best: Option<(usize, f64)> = None;
    for (i, v) in all.iter().enumerate().filter(|(_, v)| ***v != Val::Null) {
        let x = number(v);
        let better = |b: f64| if max { x > b } else { x < b };
        if !x.is_nan() && best.is_none_or(|(_, b)| better(b)) {
            best = Some((i, x));
        }
    }
    best.map_or(Val::Null, |(i, _)| Val::Int(i as i128))
}

fn quantile(some: &[&Val], q: f64, how: &str) -> Val {
    let mut sorted: Vec<f64> = some.iter().map(|v| number(v) + 0.0).collect();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(a.is_nan().cmp(&b.is_nan())));
    let Some(last) = sorted.len().checked_sub(1) else { return Val::Null };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Val::Float(match how {
        "lower" => low,
        "higher" => high,
        "nearest" => sorted[at.round() as usize],
        "midpoint" if low != high && at.fract() > 0.0 => low + (high - low) * 0.5,
        _ if low == high || at.fract() == 0.0 => low,
        _ => low + (high - low) * at.fract(),
    })
}

fn different(all: &[&Val]) -> Val {
    let mut seen: Vec<Val> = Vec::new();
    for v in all {
        let v = if let Val::Float(x) = v { Val::Float(x + 0.0) } else { (*v).clone() };
        if !seen.contains(&v) {
            seen.push(v);
        }
    }
    Val::Int(seen.len() as i128)
}

fn product(dtype: &DataType, some: &[&Val]) -> Option<Val> {
    if dtype.is_float() {
        return Some(Val::Float(some.iter().map(|v| number(v)).product()));
    }
    if some.iter().any(|v| number(v) == 0.0) {
        return Some(Val::Int(0));
    }
    let mut all = 1i128;
    for v in some {
        all = all.checked_mul(number(v) as i128)?;
    }
    i64::try_from(all).is_ok().then_some(Val::Int(all))
}

/// Rows, and which of the table's they are.
type Input = (Plan, fn(usize) -> bool);

type Reference = Box<dyn Fn(&[&Val]) -> Val>;

/// Aggregates of the column "a" of a type, each with what it must give for all rows of a group.
fn aggregates(dtype: &DataType) -> Vec<(Expr, Reference)> {
    let a = || c("a");
    fn some<'v>(all: &[&'v Val]) -> Vec<&'v Val> {
        all.iter().copied().filter(|v| **v != Val::Null).collect()
    }
    let mut out: Vec<(Expr, Reference)> = vec![
        (a().first(), Box::new(|all| all.first().map_or(Val::Null, |v| (*v).clone()))),
        (a().last(), Box::new(|all| all.last().map_or(Val::Null, |v| (*v).clone()))),
        (a().n_unique(), Box::new(different)),
        (a().count(), Box::new(|all| Val::Int(some(all).len() as i128))),
    ];
    if dtype.is_string() {
        return out;
    }
    out.push((a().arg_min(), Box::new(|all| best_row(all, false))));
    out.push((a().arg_max(), Box::new(|all| best_row(all, true))));
    if *dtype == DataType::Bool {
        out.push((a().any(), Box::new(|all| Val::Bool(all.contains(&&Val::Bool(true))))));
        out.push((a().all(), Box::new(|all| Val::Bool(!all.contains(&&Val::Bool(false))))));
    }
    for ddof in [0, 1, 3] {
        out.push((a().var(ddof), Box::new(move |all| variance(&some(all), ddof as usize))));
        out.push((a().std(ddof), Box::new(move |all| root(variance(&some(all), ddof as usize)))));
    }
    out.push((a().median(), Box::new(|all| quantile(&some(all), 0.5, "linear"))));
    for how in ["linear", "nearest", "lower", "higher", "midpoint"] {
        for q in [0.0, 0.3, 0.77, 1.0] {
            out.push((a().quantile(q, how), Box::new(move |all| quantile(&some(all), q, how))));
        }
    }
    out
}

fn close(got: &Val, want: &Val) -> bool {
    match (got, want) {
        (Val::Float(a), Val::Float(b)) => {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-12 * b.abs()
        }
        (a, b) => a == b,
    }
}

fn types() -> Vec<DataType> {
    let more = [DataType::Bool, DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];
    NUMBERS.into_iter().chain(more).collect()
}

#[test]
fn of_whole_columns() {
    for dtype in types() {
        for (rows, nulls) in [(0, 0), (1, 0), (1, 1), (70, 3), (1000, 0), (2000, 4), (300, 1)] {
            let t = vec![
                col("a", dtype.clone(), values(&dtype, rows, nulls, 77 + rows as u64)),
                col("k", DataType::Int32, (0..rows).map(|i| Val::Int(i as i128 % 7)).collect()),
            ];
            let aggs = aggregates(&dtype);
            let exprs: Vec<Expr> =
                aggs.iter().enumerate().map(|(i, (e, _))| e.alias(format!("x{i}"))).collect();
            let kept = filter(Plan::Scan, vec![c("k").ne(3)]);
            let sliced = slice(Plan::Scan, 65, Some(500));
            let inputs: [Input; 3] = [
                (Plan::Scan, |_| true),
                (kept, |i| i % 7 != 3),
                (sliced, |i| (65..565).contains(&i)),
            ];
            for (input, keep) in inputs {
                let got = run(&select(input, exprs.clone()), &t).unwrap();
                let all: Vec<&Val> =
                    (0..rows).filter(|i| keep(*i)).map(|i| &t[0].values[i]).collect();
                for ((column, (e, reference)), got_type) in
                    got.columns.iter().zip(&aggs).zip(&got.dtypes)
                {
                    let want = reference(&all);
                    let what = format!("{e} of {rows} {dtype}, nulls {nulls}: {column:?} {want:?}");
                    assert_eq!(column.len(), 1);
                    assert!(close(&column[0], &want), "{what} {got_type}");
                }
            }
        }
    }
}

#[test]
fn of_groups() {
    for dtype in types() {
        for (rows, nulls, groups) in [(0, 0, 1), (1, 1, 1), (1500, 3, 9), (1200, 0, 400)] {
            let mut r = Random(99);
            let keys: Vec<u64> = (0..rows).map(|_| r.below(groups)).collect();
            let t = vec![
                col("a", dtype.clone(), values(&dtype, rows, nulls, 7 + rows as u64)),
                col("k", DataType::Int32, keys.iter().map(|k| Val::Int(i128::from(*k))).collect()),
            ];
            let aggs = aggregates(&dtype);
            let exprs: Vec<Expr> =
                aggs.iter().enumerate().map(|(i, (e, _))| e.alias(format!("x{i}"))).collect();
            for filtered in [false, true] {
                let input = if filtered {
                    filter(slice(Plan::Scan, 10, None), vec![c("k").ne(3)])
                } else {
                    Plan::Scan
                };
                let got = run(&aggregate(input, vec![c("k")], exprs.clone()), &t).unwrap();
                for (g, key) in got.column("k").iter().enumerate() {
                    let Val::Int(key) = key else { panic!("{key:?}") };
                    let members = (0..rows).filter(|i| !filtered || *i >= 10);
                    let all: Vec<&Val> = members
                        .filter(|i| i128::from(keys[*i]) == *key)
                        .map(|i| &t[0].values[i])
                        .collect();
                    for (column, (e, reference)) in got.columns[1..].iter().zip(&aggs) {
                        let want = reference(&all);
                        assert!(
                            close(&column[g], &want),
                            "{e} of {dtype}, group {key}: {:?} {want:?}",
                            column[g]
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn products_fit_or_overflow() {
    for dtype in NUMBERS {
        for (rows, nulls) in [(0, 0), (3, 0), (9, 2), (40, 0), (1000, 5)] {
            for seed in 1..8 {
                let t = vec![
                    col("a", dtype.clone(), values(&dtype, rows, nulls, seed)),
                    col("k", DataType::Int8, vec![Val::Int(1); rows]),
                ];
                let some: Vec<&Val> = t[0].values.iter().filter(|v| **v != Val::Null).collect();
                let want = product(&dtype, &some);
                let whole = run(&select(Plan::Scan, vec![c("a").product()]), &t);
                let grouped = run(&aggregate(Plan::Scan, vec![c("k")], vec![c("a").product()]), &t);
                for got in [whole, grouped] {
                    match (got, &want) {
                        (Err(Error::Overflow(m)), None) => assert!(m.contains("float64"), "{m}"),
                        (Ok(got), Some(want)) => {
                            let Some(got) = got.column("a").first() else { continue };
                            let tolerant = |v: &Val| match (v, &dtype) {
                                (Val::Float(v), DataType::Float32) => {
                                    Val::Float(f64::from(*v as f32))
                                }
                                (v, _) => v.clone(),
                            };
                            let want = tolerant(want);
                            assert!(close(got, &want), "{dtype} {some:?}: {got:?} {want:?}");
                        }
                        // Sixty-four bits without a sign hold more.
                        (Ok(_), None) if dtype == DataType::UInt64 => {}
                        (got, want) => panic!("{dtype}: {got:?} {want:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn times_are_picked_and_found() {
    let unit = insitu_query::TimeUnit::Microsecond;
    for dtype in [DataType::Date32, DataType::Timestamp(unit, None), DataType::Duration(unit)] {
        let t = vec![ints("a", dtype.clone(), &[None, Some(5), Some(-3), Some(-3), Some(9)])];
        let exprs = vec![
            c("a").first(),
            c("a").last().alias("l"),
            c("a").arg_min().alias("min"),
            c("a").arg_max().alias("max"),
            c("a").n_unique().alias("n"),
        ];
        let got = run(&select(Plan::Scan, exprs), &t).unwrap();
        assert_eq!(got.dtypes[..2], [dtype.clone(), dtype.clone()]);
        let flat: Vec<Val> = got.columns.iter().map(|c| c[0].clone()).collect();
        assert_eq!(flat, [Val::Null, Val::Int(9), Val::Int(2), Val::Int(4), Val::Int(4)]);
        for wrong in [c("a").var(1), c("a").median(), c("a").product(), c("a").any()] {
            let got = run(&select(Plan::Scan, vec![wrong]), &t);
            assert!(matches!(got, Err(Error::TypeMismatch(_))), "{got:?}");
        }
    }
}

#[test]
fn the_same_bits_whoever_computed_them() {
    let rows = 400_000usize;
    let mut r = Random(5);
    let x = |r: &mut Random| Val::Float((r.below(1 << 40) as f64 - 5e11) / 1e7 + 1e4);
    let t = vec![
        col(
            "x",
            DataType::Float64,
            (0..rows).map(|i| if i % 97 == 0 { Val::Null } else { x(&mut r) }).collect(),
        ),
        col(
            "y",
            DataType::Float64,
            (0..rows).map(|_| Val::Float(0.9 + r.below(1000) as f64 / 5000.0)).collect(),
        ),
        col(
            "i",
            DataType::Int64,
            (0..rows).map(|_| Val::Int(i128::from(r.below(1 << 45)))).collect(),
        ),
        col("k", DataType::Int32, (0..rows).map(|i| Val::Int(i as i128 * 7919 % 1000)).collect()),
    ];
    let exprs = || {
        vec![
            c("x").var(1).alias("a"),
            c("x").std(0).alias("b"),
            c("y").product().alias("c"),
            c("x").first().alias("d"),
            c("x").last().alias("e"),
            c("x").arg_max().alias("f"),
            c("i").n_unique().alias("g"),
            c("x").median().alias("h"),
            c("i").quantile(0.123, "linear").alias("j"),
            (c("x") * c("x")).quantile(0.9, "higher").alias("l"),
        ]
    };
    let plans = [
        select(Plan::Scan, exprs()),
        select(filter(Plan::Scan, vec![c("k").ne(5)]), exprs()),
        aggregate(Plan::Scan, vec![c("k")], exprs()),
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
        // More rows than are gathered at once: ranks come from digits.
        if let (Plan::Select { input, .. }, Some(first)) = (plan, &first)
            && matches!(**input, Plan::Scan)
        {
            let mut i: Vec<i128> = t[2]
                .values
                .iter()
                .map(|v| if let Val::Int(v) = v { *v } else { panic!("{v:?}") })
                .collect();
            i.sort_unstable();
            let at = 0.123 * (rows - 1) as f64;
            let (low, high) = (i[at.floor() as usize] as f64, i[at.ceil() as usize] as f64);
            assert_eq!(first.column("j"), [Val::Float(low + (high - low) * at.fract())]);
            i.dedup();
            assert_eq!(first.column("g"), [Val::Int(i.len() as i128)]);
        }
    }
    set_threads(0);
}

#[test]
fn settings_are_literals() {
    let t = vec![floats("a", &[Some(1.0), Some(2.0), Some(4.0), None])];
    for wrong in [
        c("a").quantile(1.5, "linear"),
        c("a").quantile(f64::NAN, "linear"),
        c("a").quantile("x", "linear"),
        c("a").quantile(c("a"), "linear"),
        c("a").quantile(Expr::param("q"), "linear"),
        c("a").quantile(0.5, "both"),
        c("a").var(-1),
    ] {
        let got = run(&select(Plan::Scan, vec![wrong.clone()]), &t);
        assert!(matches!(got, Err(Error::InvalidArgument(_))), "{wrong}: {got:?}");
    }
    // Beside rows, and in expressions.
    let plan =
        select(Plan::Scan, vec![(c("a") - c("a").median()).alias("d"), c("a").first().alias("f")]);
    let got = run(&plan, &t).unwrap();
    let float = Val::Float;
    assert_eq!(got.column("d"), [float(-1.0), float(0.0), float(2.0), Val::Null]);
    assert_eq!(got.column("f"), vec![float(1.0); 4]);
    let words = vec![strs("s", DataType::Utf8, &[Some("a"), None])];
    for wrong in [c("s").arg_min(), c("s").var(1), c("s").all(), c("s").quantile(0.5, "linear")] {
        assert!(run(&select(Plan::Scan, vec![wrong]), &words).is_err());
    }
}

#[test]
fn signs_inside_and_around_are_told_apart() {
    let t = [ints("i", DataType::Int64, &[Some(-1), Some(2), Some(-3)])];
    let exprs =
        vec![c("i").neg().abs().sum().alias("inside"), c("i").abs().neg().sum().alias("around")];
    let got = run(&select(Plan::Scan, exprs), &t).unwrap();
    assert_eq!(got.column("inside"), [Val::Int(6)]);
    assert_eq!(got.column("around"), [Val::Int(-6)]);
}
