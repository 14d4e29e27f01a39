//! Updates against what a query of the same meaning gives, and both ways of running one against
//! each other.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::cell::RefCell;
use std::sync::Mutex;

use common::*;
use insitu_query::{
    Context, DataType, Error, Expr, Field, Heap, Plan, Scalar, Schema, Update, ZoneSink,
};

type Sets<'a> = &'a [(&'a str, Expr)];

fn update(sets: Sets<'_>, condition: Option<&Expr>, schema: &Schema) -> Result<Update, Error> {
    let sets = sets.iter().map(|(n, e)| ((*n).into(), e.clone())).collect();
    Update::new(sets, condition.cloned(), schema)
}

/// All rows of a table, copied.
fn rows_of(table: &Table, columns: &[Col]) -> Answer {
    let all = Plan::Slice { input: Plan::Scan.into(), offset: 0, len: None };
    run_with(&all, table, columns, false).unwrap()
}

fn swapped(
    sets: Sets<'_>,
    condition: Option<&Expr>,
    columns: &[Col],
    chunks: &[usize],
    checked: bool,
) -> Result<Answer, Error> {
    let table = Table::new(columns, chunks);
    let heap = Heap::new();
    let cx = Context { checked, ..Context::new(&heap) };
    let bound = update(sets, condition, &table.schema)?.bind(&table.view(), &cx)?;
    let out = bound.compute(&table.view(), &cx)?;
    Ok(answer(&out, columns))
}

/// The rows after an update in place; the obstacle if it cannot be.
fn in_place(
    sets: Sets<'_>,
    condition: Option<&Expr>,
    columns: &[Col],
    chunks: &[usize],
    checked: bool,
) -> Result<Result<Answer, String>, Error> {
    let mut table = Table::with_bitmaps(columns, chunks);
    let heap = Heap::new();
    let update = update(sets, condition, &table.schema)?;
    let cx = Context { checked, ..Context::new(&heap) };
    let bound = update.bind(&table.view(), &cx)?;
    if let Some(obstacle) = bound.obstacle(&table.view()) {
        return Ok(Err(obstacle));
    }
    let bare = bound.bare(&table.view());
    if !bare.is_empty() {
        return Ok(Err(format!("no bitmap: {bare:?}")));
    }
    let before = rows_of(&table, columns);
    let ready = bound.ready(&table.view(), &cx);
    if ready.is_err() {
        assert_eq!(before, rows_of(&table, columns), "a failed update wrote something");
    }
    let ready = ready?;
    let places = table.places(update.columns());
    let view = table.view();
    // SAFETY: nobody else has the table, and its buffers have room for whole words.
    unsafe { ready.lists(&view)?.write(&places, None)? };
    Ok(Ok(rows_of(&table, columns)))
}

const CHUNKS: &[&[usize]] = &[&[], &[1, 0, 63, 2, 700, 7], &[128, 129]];

/// Both ways, in several chunkings, and the query that says the same.
fn both(sets: Sets<'_>, condition: Option<&Expr>, columns: &[Col]) -> Answer {
    let exprs = sets
        .iter()
        .map(|(n, e)| match condition {
            Some(w) => Expr::when(w.clone(), e.clone(), c(n)).alias(*n),
            None => e.alias(*n),
        })
        .collect();
    let plan = with_columns(Plan::Scan, exprs);
    let wanted = run_with(&plan, &Table::new(columns, &[]), columns, false).unwrap();
    for chunks in CHUNKS {
        let fresh = swapped(sets, condition, columns, chunks, false).unwrap();
        assert_eq!(wanted, fresh, "{chunks:?}");
        let over = in_place(sets, condition, columns, chunks, false).unwrap();
        assert_eq!(wanted, over.unwrap(), "{chunks:?}");
    }
    wanted
}

fn numbers(n: usize) -> Vec<Col> {
    let int = |i: usize| (i % 7 != 3).then_some((i * 37 % 1000) as i64 - 500);
    let float = |i: usize| (i % 11 != 5).then_some(i as f64 / 3.0 - 100.0);
    let bools = |i: usize| match i % 5 {
        0 => Val::Null,
        k => Val::Bool(k % 2 == 0),
    };
    vec![
        ints("a", DataType::Int64, &(0..n).map(int).collect::<Vec<_>>()),
        ints("b", DataType::Int64, &(0..n).map(|i| int(i + 9)).collect::<Vec<_>>()),
        floats("x", &(0..n).map(float).collect::<Vec<_>>()),
        floats("y", &(0..n).map(|i| Some(i as f64 * 0.5)).collect::<Vec<_>>()),
        col("t", DataType::Bool, (0..n).map(bools).collect()),
        strs(
            "s",
            DataType::Utf8,
            &(0..n).map(|i| Some(["u", "vv", "w"][i % 3])).collect::<Vec<_>>(),
        ),
    ]
}

#[test]
fn every_right_hand_side_reads_old_values() {
    let columns = numbers(1500);
    let out = both(&[("a", c("b")), ("b", c("a"))], None, &columns);
    assert_eq!(out.column("a"), &columns[1].values[..]);
    assert_eq!(out.column("b"), &columns[0].values[..]);
    both(&[("a", c("a") + c("b")), ("b", c("a") - c("b"))], Some(&c("t")), &columns);
    let sets = [("x", c("x") - c("x").mean()), ("a", c("a").max()), ("y", c("x").sum() + c("y"))];
    both(&sets, None, &columns);
    both(&sets, Some(&c("x").gt(c("x").mean())), &columns);
    // `y` has no nulls: it stays in place as long as the aggregate has a value.
    both(&[("y", c("y") - c("y").mean())], None, &columns);
    let none = [floats("y", &[Some(1.0); 300]), floats("z", &[None; 300])];
    let refused = in_place(&[("y", c("z").mean())], None, &none, &[], false).unwrap();
    assert!(refused.unwrap_err().contains("bitmap"));
    let out = swapped(&[("y", c("z").mean())], None, &none, &[], false).unwrap();
    assert!(out.column("y").iter().all(|v| *v == Val::Null));
}

#[test]
fn a_null_condition_does_not_choose() {
    let columns = numbers(1000);
    let out = both(&[("a", Expr::literal(7))], Some(&c("t")), &columns);
    for (i, v) in out.column("a").iter().enumerate() {
        let chosen = columns[4].values[i] == Val::Bool(true);
        assert_eq!(*v, if chosen { Val::Int(7) } else { columns[0].values[i].clone() });
    }
    both(&[("t", c("a").gt(3))], Some(&c("b").lt(0)), &columns);
    both(&[("a", Expr::literal(Scalar::Null))], Some(&c("s").eq("vv")), &columns);
    both(&[("x", Expr::literal(1))], Some(&c("x").is_null()), &columns);
    both(&[("x", c("x").fill_null(0.5))], None, &columns);
    both(&[("a", Expr::literal(1))], Some(&Expr::literal(Scalar::Null)), &columns);
    both(&[("a", Expr::literal(1))], Some(&Expr::literal(true)), &columns);
}

#[test]
fn empty_tables_are_updated_to_nothing() {
    let columns = numbers(0);
    let out = swapped(&[("a", c("b") + 1)], None, &columns, &[], false).unwrap();
    assert!(out.column("a").is_empty());
    let out = in_place(&[("a", c("b") + 1)], None, &columns, &[], false).unwrap().unwrap();
    assert!(out.column("a").is_empty());
}

#[test]
fn random_numbers_of_all_types_agree() {
    use DataType::*;
    let mut seed = 7u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed >> 33
    };
    for dtype in [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float32, Float64] {
        let n = 900 + (random() % 300) as usize;
        let mut column = |name, nulls: bool| {
            let value = |r: u64| match (&dtype, nulls && r.is_multiple_of(4)) {
                (_, true) => Val::Null,
                (Float32 | Float64, _) => Val::Float(f64::from((r % 1000) as u32) / 8.0),
                _ => Val::Int(i128::from(r % 127)),
            };
            col(name, dtype.clone(), (0..n).map(|_| value(random())).collect())
        };
        let columns = vec![column("a", true), column("b", true), column("c", false)];
        both(&[("a", c("a") * c("c") + c("b"))], Some(&(c("b").gt(40) | c("c").lt(9))), &columns);
        both(&[("a", c("c")), ("b", c("a") + c("c"))], None, &columns);
        both(&[("c", c("c") + 1)], Some(&c("a").is_null()), &columns);
    }
}

#[test]
fn a_columns_type_never_changes() {
    let table = Table::new(&numbers(10), &[]);
    let fails = |name: &str, e: Expr| update(&[(name, e)], None, &table.schema).unwrap_err();
    let message = fails("a", c("a") * 1.5).to_string();
    assert!(message.contains("int64") && message.contains(r#".cast("int64")"#), "{message}");
    for (name, e) in [
        ("a", Expr::literal(1.0)),
        ("a", Expr::literal(true)),
        ("a", c("x")),
        ("t", c("a")),
        ("t", Expr::literal(1)),
        ("s", Expr::literal(1)),
        ("a", c("s")),
    ] {
        assert!(matches!(fails(name, e), Error::TypeMismatch(_)), "{name}");
    }
    assert!(matches!(fails("z", c("a")), Error::UnknownColumn { .. }));
    assert!(matches!(fails("a", c("z")), Error::UnknownColumn { .. }));
    let twice = update(&[("a", c("b")), ("a", c("b"))], None, &table.schema);
    assert!(matches!(twice, Err(Error::InvalidArgument(_))));
    let narrow = Schema::new(vec![Field::new("n", DataType::Int8, true)]);
    let large = update(&[("n", Expr::literal(300))], None, &narrow);
    assert!(matches!(large, Err(Error::TypeMismatch(_))));
    // Numbers may widen, and literals are weak.
    let wide = swapped(&[("x", c("a"))], None, &numbers(300), &[], false).unwrap();
    let cast = c("a").cast(DataType::Float64, true);
    assert_eq!(wide, swapped(&[("x", cast)], None, &numbers(300), &[], false).unwrap());
    both(&[("x", Expr::literal(2))], Some(&c("a").gt(0)), &numbers(300));
}

#[test]
fn a_failing_row_counts_only_if_it_is_chosen_and_valid() {
    let values = [Some(1), None, Some(i64::MAX), Some(5), Some(i64::MAX)];
    let values: Vec<Option<i64>> = values.iter().copied().cycle().take(1000).collect();
    let columns = [ints("a", DataType::Int64, &values), floats("x", &[Some(0.5); 1000])];
    let set = [("a", c("a") + 1)];
    for chunks in CHUNKS {
        for way in 0..2 {
            let run = |w: Option<&Expr>| match way {
                0 => swapped(&set, w, &columns, chunks, true),
                _ => in_place(&set, w, &columns, chunks, true).map(Result::unwrap),
            };
            let error = run(None).unwrap_err().to_string();
            assert!(error.contains("row 2,"), "{error}");
            let small = run(Some(&c("a").lt(100))).unwrap();
            assert_eq!(
                small.column("a")[..5],
                [2, 0, i64::MAX, 6, i64::MAX].map(|v| match v {
                    0 => Val::Null,
                    v => Val::Int(i128::from(v)),
                })
            );
        }
    }
    // Of several checks, the first row speaks, not the first check.
    let mut big = [Some(1.0); 300];
    big[200] = Some(1e300);
    let mut late = [Some(0); 300];
    late[250] = Some(i64::MAX);
    let columns = [ints("a", DataType::Int64, &late), floats("x", &big)];
    let sets = [("a", c("a") + 1 + c("x").cast(DataType::Int64, true))];
    for error in [
        swapped(&sets, None, &columns, &[], true).unwrap_err(),
        in_place(&sets, None, &columns, &[], true).unwrap_err(),
    ] {
        assert!(matches!(error, Error::CastFailed { row: 200, .. }), "{error}");
    }
}

#[test]
fn a_column_without_nulls_takes_none() {
    let columns = numbers(400);
    let mut table = Table::new(&columns[..3], &[100]);
    let mut fields = table.schema.fields().to_vec();
    fields.push(Field::new("n", DataType::Int64, false));
    let with = [
        columns[0].clone(),
        columns[1].clone(),
        columns[2].clone(),
        ints("n", DataType::Int64, &[Some(4); 400]),
    ];
    table = Table::new(&with, &[100]);
    table.schema = Schema::new(fields);
    let heap = Heap::new();
    let set = update(&[("n", c("a"))], None, &table.schema).unwrap();
    let bound = set.bind(&table.view(), &Context::new(&heap)).unwrap();
    for error in [
        bound.compute(&table.view(), &Context::new(&heap)).unwrap_err(),
        bound.ready(&table.view(), &Context::new(&heap)).err().unwrap(),
    ] {
        assert!(error.to_string().contains("row 3 would be null"), "{error}");
    }
    let set = update(&[("n", c("a"))], Some(&c("a").is_not_null()), &table.schema).unwrap();
    let bound = set.bind(&table.view(), &Context::new(&heap)).unwrap();
    assert_eq!(bound.obstacle(&table.view()), None);
    assert!(bound.ready(&table.view(), &Context::new(&heap)).is_ok());
}

#[test]
fn what_cannot_be_in_place_says_why() {
    let columns = numbers(300);
    let first_null = in_place(&[("y", c("x"))], None, &columns, &[], false).unwrap();
    assert!(first_null.unwrap_err().contains("no bitmap: [3]"));
    let out = swapped(&[("y", c("x"))], None, &columns, &[], false).unwrap();
    assert_eq!(out.column("y"), &columns[2].values[..]);
    let mut columns = columns;
    columns.push(Col { name: "r", ..columns[5].clone() });
    let strings = in_place(&[("s", c("r"))], None, &columns, &[], false).unwrap();
    assert!(strings.unwrap_err().contains("\"s\" is utf8"));
    swapped(&[("s", c("r"))], None, &columns, &[], false).unwrap();
    let some = in_place(&[("s", c("r"))], Some(&c("t")), &columns, &[], false).unwrap();
    assert!(some.unwrap_err().contains("\"s\" is utf8"));
}

#[test]
fn rows_of_strings_are_set_to_texts_to_nulls_and_to_those_of_other_columns() {
    let n = 1500;
    let long = "a text that no view holds by itself";
    let words = [Some("u"), Some(""), None, Some("ä string of some length"), Some("twelve bytes")];
    let flag = |i: usize| [Val::Null, Val::Bool(true), Val::Bool(false)][i * 7 % 3].clone();
    let flags = col("t", DataType::Bool, (0..n).map(flag).collect());
    for dtype in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
        let texts = |name, step: usize, nulls: bool| {
            let word = |i: usize| words[i * step % 5].or((!nulls).then_some("w"));
            strs(name, dtype.clone(), &(0..n).map(word).collect::<Vec<_>>())
        };
        for nulls in [false, true] {
            let columns = [texts("s", 1, nulls), texts("r", 2, true), flags.clone()];
            let (s, r, t) = (&columns[0].values, &columns[1].values, &columns[2].values);
            let literal = |text: &str| (Expr::literal(text), vec![Val::Str(text.into()); n]);
            let sources = [
                literal("v"),
                literal(""),
                literal("twelve bytes"),
                literal(long),
                (Expr::literal(Scalar::Null), vec![Val::Null; n]),
                (c("r"), r.clone()),
                (c("s"), s.clone()),
            ];
            let conditions = [
                (None, vec![true; n]),
                (Some(false.into()), vec![false; n]),
                (Some(c("t")), t.iter().map(|t| *t == Val::Bool(true)).collect()),
                (Some(c("s").eq("u")), s.iter().map(|s| *s == Val::Str("u".into())).collect()),
            ];
            for (to, new) in &sources {
                for (condition, chosen) in &conditions {
                    let value = |i: usize| if chosen[i] { &new[i] } else { &s[i] };
                    let wanted: Vec<Val> = (0..n).map(|i| value(i).clone()).collect();
                    // Beside a column of numbers that changes as well.
                    let sets = [("s", to.clone()), ("t", c("t").is_null())];
                    for chunks in CHUNKS {
                        let out = swapped(&sets, condition.as_ref(), &columns, chunks, false);
                        let out = out.unwrap();
                        assert_eq!(out.column("s"), wanted, "{to} where {condition:?}, {chunks:?}");
                        assert_eq!(out.column("r"), r);
                    }
                }
            }
        }
        let other = if dtype == DataType::Utf8 { DataType::LargeUtf8 } else { DataType::Utf8 };
        let columns = [texts("s", 1, true), Col { dtype: other, ..texts("r", 2, true) }];
        let error = swapped(&[("s", c("r"))], Some(&c("s").eq("u")), &columns, &[], false);
        assert!(matches!(error, Err(Error::TypeMismatch(_))));
        let error = swapped(&[("s", 7.into())], Some(&c("s").eq("u")), &columns, &[], false);
        assert!(matches!(error, Err(Error::TypeMismatch(_))));

        // A column that is declared without nulls, and of which no row is "x".
        let columns = [texts("s", 1, false)];
        let mut table = Table::new(&columns, &[]);
        table.schema = Schema::new(vec![Field::new("s", dtype.clone(), false)]);
        let heap = Heap::new();
        let cx = Context::new(&heap);
        for (text, fails) in [("x", false), ("u", true)] {
            let condition = c("s").eq(text);
            let set = [("s", Expr::literal(Scalar::Null))];
            let set = update(&set, Some(&condition), &table.schema).unwrap();
            let done = set.bind(&table.view(), &cx).unwrap().compute(&table.view(), &cx);
            match done {
                Ok(out) => assert_eq!(
                    (fails, answer(&out, &columns).column("s")),
                    (false, &*columns[0].values)
                ),
                Err(e) => assert!(fails && e.to_string().contains("row 0 would be null"), "{e}"),
            }
        }
    }
}

#[test]
fn zones_are_told_of_as_they_are_written() {
    let n = 200_000;
    let columns = [ints("a", DataType::Int64, &(0..n).map(|i| Some(i as i64)).collect::<Vec<_>>())];
    let mut table = Table::new(&columns, &[70_000]);
    let heap = Heap::new();
    for (every, zones) in [(false, vec![0, 3]), (true, vec![0, 1, 2, 3])] {
        // Row 5, and one of the second chunk's second zone.
        let chosen = c("a").is_in(vec![5.into(), 140_000.into()]);
        let update = update(&[("a", c("a") * 1)], Some(&chosen), &table.schema).unwrap();
        let bound = update.bind(&table.view(), &Context::new(&heap)).unwrap();
        let ready = bound.ready(&table.view(), &Context::new(&heap)).unwrap();
        let places = table.places(update.columns());
        let told = Mutex::new(RefCell::new(Vec::new()));
        let tell = |column: usize, zone: usize, stats: &insitu_kernels::copy::ZoneStats| {
            told.lock().unwrap().borrow_mut().push((column, zone, *stats));
        };
        let sink = ZoneSink { every, tell: &tell };
        let view = table.view();
        // SAFETY: nobody else has the table, and its buffers have room for whole words.
        unsafe { ready.lists(&view).unwrap().write(&places, Some(&sink)).unwrap() };
        let mut told = told.into_inner().unwrap().into_inner();
        told.sort_by_key(|t| t.1);
        assert_eq!(told.iter().map(|t| t.1).collect::<Vec<_>>(), zones);
        let last = told.last().unwrap().2;
        assert_eq!((last.min, last.max, last.rows), (135_536, 199_999, 64_464));
    }
}

#[test]
fn shifts_are_written_over_what_they_read() {
    // Of several threads, each with morsels of its own; and where chunks end in the midst of a
    // word, are shorter than the shift, or empty.
    insitu_query::set_threads(3);
    let null = || Expr::literal(Scalar::Null);
    let t = &numbers(135_000)[..5];
    let many: Vec<usize> = std::iter::repeat_n([1000, 0, 37, 64], 100).flatten().collect();
    let chunkings: [&[usize]; 4] = [&[], &[65_536], &[65_700, 70, 1, 4], &many];
    let mut turn = 0;
    for by in [1_i64, -1, 64, -700, 65_536, -65_536] {
        let near = by.signum() * (by.abs() / 2 + 1).min(by.abs());
        let sets: [&[(&str, Expr)]; 5] = [
            &[("a", c("a").shift(null(), by))],
            &[("x", c("x") - c("x").shift(0.5, by)), ("y", c("y") + c("y").shift(1.5, near))],
            &[("t", c("t").shift(true, by)), ("a", c("a").diff(by) + c("b"))],
            // Each reads the other.
            &[("a", c("b").shift(7, by)), ("b", c("a").shift(c("b"), near) - c("b").min())],
            // Nothing is read that is written.
            &[("a", c("b").shift(7, by) + c("b").shift(8, -by))],
        ];
        for set in sets {
            let some = c("x").gt(0) | c("t").shift(null(), by);
            let condition = (turn % 3 == 0).then_some(&some);
            let exprs = set.iter().map(|(n, e)| match condition {
                Some(w) => Expr::when(w.clone(), e.clone(), c(n)).alias(*n),
                None => e.alias(*n),
            });
            let plan = with_columns(Plan::Scan, exprs.collect());
            let wanted = run_with(&plan, &Table::new(t, &[]), t, false).unwrap();
            let chunks = chunkings[turn % 4];
            let over = in_place(set, condition, t, chunks, false).unwrap().unwrap();
            assert!(wanted == over, "{set:?} where {condition:?}, by {by}, in turn {turn}");
            turn += 1;
        }
    }
    insitu_query::set_threads(0);
    for (e, why) in [
        (c("a").shift(null(), 65_537), "too far"),
        (c("a").shift(null(), -100_000), "too far"),
        (c("a").shift(null(), 1) + c("a").shift(null(), -1), "on both sides"),
    ] {
        let obstacle = in_place(&[("a", e.clone())], None, t, &[], false).unwrap().unwrap_err();
        assert!(obstacle.contains(why), "{obstacle}");
        assert!(swapped(&[("a", e)], None, t, &[], false).is_ok());
    }
}

#[test]
fn a_shift_that_fails_writes_nothing() {
    let mut values: Vec<Option<i64>> = (0..70_000).map(Some).collect();
    values[66_000] = Some(i64::MAX);
    let columns = [ints("a", DataType::Int64, &values)];
    for by in [1, -1] {
        let set = [("a", c("a").shift(0, by) + 1)];
        let error = in_place(&set, None, &columns, &[], true).unwrap_err().to_string();
        assert!(error.contains(&format!("row {},", 66_000 + by)), "{error}");
    }
}

#[test]
fn what_reads_other_rows_is_written_beside_the_old_values() {
    let t = numbers(70_000);
    let null = || Expr::literal(Scalar::Null);
    let sets = [
        ("a", c("a").cum_sum(false)),
        ("b", c("a").shift(c("b"), 3)),
        ("x", c("x") - c("x").mean() + c("y").cum_max(true)),
        ("s", c("s").shift("first", 1)),
    ];
    let some = c("a").diff(1).gt(0);
    for condition in [None, Some(&some)] {
        let sets = if condition.is_some() { &sets[..3] } else { &sets };
        let exprs = sets
            .iter()
            .map(|(n, e)| match condition {
                Some(w) => Expr::when(w.clone(), e.clone(), c(n)).alias(*n),
                None => e.alias(*n),
            })
            .collect();
        let plan = with_columns(Plan::Scan, exprs);
        let wanted = run_with(&plan, &Table::new(&t, &[]), &t, false).unwrap();
        for chunks in CHUNKS {
            assert_eq!(wanted, swapped(sets, condition, &t, chunks, false).unwrap());
            let obstacle = in_place(sets, condition, &t, chunks, false).unwrap().unwrap_err();
            assert!(obstacle.contains("reads other rows than its own"), "{obstacle}");
        }
    }
    // Where nothing is left to do beside the running value.
    for set in [("a", c("a").cum_sum(false)), ("s", c("s").shift("first", 1))] {
        let obstacle = in_place(&[set], None, &t, &[], false).unwrap().unwrap_err();
        assert!(obstacle.contains("reads other rows than its own"), "{obstacle}");
    }
    let schema = Table::new(&t, &[]).schema;
    let refused = update(&[("a", c("x").cum_sum(false))], None, &schema);
    assert!(matches!(refused, Err(Error::TypeMismatch(_))));
    let refused = update(&[("a", c("a") - c("a").sum().shift(null(), 1))], None, &schema);
    assert!(matches!(refused, Err(Error::InvalidPlan(_))));
}

#[test]
fn strings_choose_the_rows_of_a_walk() {
    let mut columns = numbers(2500);
    // Without nulls nothing but the comparison reads them.
    let text = |i: usize| Some(["x", "yy", "a longer text than a view"][i * i % 7 % 3]);
    let texts: Vec<Option<&str>> = (0..2500).map(text).collect();
    let moved = |by: i64| [("a", c("a").shift(c("b"), by)), ("b", c("a").shift(0, by))];
    for dtype in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
        columns.retain(|c| c.name != "t" && c.name != "u");
        columns.push(strs("t", dtype.clone(), &texts));
        columns.push(strs("u", dtype, &texts.iter().rev().copied().collect::<Vec<_>>()));
        let within = c("t").is_in(vec![Scalar::from("x"), Scalar::from("yy")]);
        for condition in [c("t").eq("yy"), within, c("t").lt(c("u"))] {
            both(&moved(1), Some(&condition), &columns);
            both(&moved(-70), Some(&condition), &columns);
        }
    }
}
