//! The order in which predicates are tried: it shows in `explain`, and nowhere else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{
    ColumnStats, Context, DataType, Error, Expr, Field, Heap, Plan, Prepared, Schema,
};
use proptest::prelude::*;

fn schema(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), false)).collect::<Vec<_>>())
}

fn numbers() -> Schema {
    schema(&[("a", DataType::Int64), ("b", DataType::Int64), ("f", DataType::Float64)])
}

/// What the predicates are tried on, by the first column that each reads.
fn order(text: &str) -> Vec<String> {
    let (mut out, mut last) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with("keep ") {
            out.push(std::mem::take(&mut last));
        } else if last.is_empty()
            && line.contains(" <- ")
            && let Some(column) = line.split(' ').find(|w| w.starts_with("col"))
        {
            last = column.to_owned();
        }
    }
    out
}

fn explained(plan: &Plan, schema: &Schema, stats: &[ColumnStats]) -> String {
    Prepared::compile(plan, schema).unwrap().explain_for(Some(stats), 1000)
}

fn range(min: i64, max: i64) -> ColumnStats {
    ColumnStats { min: Some(min), max: Some(max), null_count: Some(0), ..ColumnStats::default() }
}

#[test]
fn the_predicate_that_drops_most_comes_first() {
    let plan = filter(Plan::Scan, vec![c("a").lt(90), c("b").lt(90)]);
    let known = |a, b| [a, b, ColumnStats::default()];
    let stats = known(range(0, 99), range(0, 99_999));
    let text = explained(&plan, &numbers(), &stats);
    assert_eq!(order(&text), ["col1", "col0"], "{text}");
    assert!(text.contains("predicates pass about 0.1 %, 90 % of the rows"), "{text}");
    let stats = known(range(0, 99_999), range(0, 99));
    assert_eq!(order(&explained(&plan, &numbers(), &stats)), ["col0", "col1"]);
    // Of equals, the order is the user's.
    let stats = known(range(0, 99), range(0, 99));
    assert_eq!(order(&explained(&plan, &numbers(), &stats)), ["col0", "col1"]);
    assert_eq!(order(&explained(&plan, &numbers(), &[])), ["col0", "col1"]);
}

#[test]
fn ranges_of_floats_count_too() {
    let plan = filter(Plan::Scan, vec![c("a").lt(90), c("f").gt(0.5)]);
    let f = ColumnStats { range: Some((0.0, 0.501)), ..ColumnStats::default() };
    let stats = [range(0, 99), range(0, 99), f];
    assert_eq!(order(&explained(&plan, &numbers(), &stats)), ["col2", "col0"]);
    // Nonsense, as a peer might write, changes nothing but the order.
    let f = ColumnStats { range: Some((f64::NAN, f64::INFINITY)), ..ColumnStats::default() };
    let stats = [range(5, -5), range(i64::MIN, i64::MAX), f];
    assert_eq!(order(&explained(&plan, &numbers(), &stats)).len(), 2);
}

#[test]
fn what_costs_much_comes_last() {
    let plan = filter(Plan::Scan, vec![c("f").exp().log().gt(0.0), c("a").gt(0)]);
    assert_eq!(order(&explained(&plan, &numbers(), &[])), ["col0", "col2"]);
}

#[test]
fn conjunctions_and_consecutive_filters_are_one_list() {
    let stats = [range(0, 9), range(0, 99), ColumnStats::default()];
    let plan = filter(
        filter(Plan::Scan, vec![c("f").lt(0.5) & c("a").lt(5)]),
        vec![c("b").eq(7) & c("b").lt(99)],
    );
    let text = explained(&plan, &numbers(), &stats);
    assert_eq!(order(&text), ["col1", "col2", "col0", "col1"], "{text}");
    assert!(!text.contains("bits.and"), "{text}");
}

#[test]
fn texts_do_not_move_ahead() {
    let schema = schema(&[("a", DataType::Int64), ("t", DataType::Utf8), ("u", DataType::Utf8)]);
    // The second text drops more than the number, and has to wait for it; the number, which costs
    // little, goes first.
    let plan = filter(Plan::Scan, vec![c("t").ne("x"), c("a").lt(90), c("u").eq("x")]);
    let stats = [range(0, 99), ColumnStats::default(), ColumnStats::default()];
    let text = explained(&plan, &schema, &stats);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(at("lt.int64") < at("ne.str") && at("ne.str") < at("eq.str"), "{text}");
}

#[test]
fn a_predicate_that_can_fail_stays_where_it_is() {
    let narrow = |e: Expr| e.cast(DataType::Int8, true).gt(0);
    let stats = [range(0, 9_999), range(0, 9_999), ColumnStats::default()];
    let cheap = || c("b").eq(5);
    let before = filter(Plan::Scan, vec![narrow(c("a")), cheap()]);
    let text = explained(&before, &numbers(), &stats);
    let at = |text: &str, what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(at(&text, "check ") < at(&text, "keep "), "{text}");
    let after = filter(Plan::Scan, vec![cheap(), narrow(c("a"))]);
    let text = explained(&after, &numbers(), &stats);
    assert!(at(&text, "keep ") < at(&text, "check "), "{text}");

    // Row 1 fails, and only a predicate before can drop it.
    let t = [
        ints("a", DataType::Int64, &[Some(1), Some(1000), Some(3)]),
        ints("b", DataType::Int64, &[Some(5), Some(6), Some(5)]),
    ];
    let fails = |plan: &Plan| matches!(run(plan, &t), Err(Error::CastFailed { row: 1, .. }));
    assert!(fails(&before));
    assert_eq!(run(&after, &t).unwrap().column("a"), [Val::Int(1), Val::Int(3)]);
    // Arithmetic that is checked can fail, too: where statistics send a predicate ahead, it is not
    // ahead of that.
    let mut table = Table::new(&t, &[]);
    table.stats = Some(stats.to_vec());
    let large = || (c("a") * i64::MAX).gt(0);
    let checked = |plan: &Plan| run_with(plan, &table, &t, true);
    let before = filter(Plan::Scan, vec![large(), cheap()]);
    assert!(matches!(checked(&before), Err(Error::Overflow(_))));
    let late = filter(Plan::Scan, vec![c("b").eq(7), large(), cheap()]);
    assert!(checked(&late).unwrap().column("a").is_empty());
    assert!(run_with(&before, &table, &t, false).is_ok());
    // Both sides of one conjunction are computed for all rows.
    assert!(fails(&filter(Plan::Scan, vec![cheap() & narrow(c("a"))])));
    assert!(fails(&filter(Plan::Scan, vec![narrow(c("a")) & cheap()])));
}

#[test]
fn a_run_says_what_it_did() {
    let rows = 100_000i64;
    let values: Vec<Option<i64>> = (0..rows).map(|i| (i % 10 != 3).then_some(i % 100)).collect();
    let t = vec![ints("a", DataType::Int64, &values), ints("b", DataType::Int64, &values)];
    let table = Table::new(&t, &[30_000]);
    let heap = Heap::new();
    let analyzed = |plan: &Plan| {
        let prepared = Prepared::compile(plan, &table.schema).unwrap();
        prepared.analyze(&table.view(), &Context::new(&heap)).unwrap()
    };
    let plan = aggregate(
        filter(Plan::Scan, vec![c("a").ge(50)]),
        vec![c("a")],
        vec![c("b").sum().alias("s")],
    );
    let text = analyzed(&sort(plan, vec![c("s")], vec![false]));
    let read = 2 * (rows * 8 + rows / 8);
    assert!(text.contains(&format!("ran: {rows} rows in, 45 out, ")), "{text}");
    assert!(text.contains("ran: 45 rows in, 45 out, "), "{text}");
    assert!(text.contains(&format!("({read} bytes read, ")), "{text}");
    assert!(text.contains("reads 16.25 bytes a row"), "{text}");
    assert_eq!(text.matches(" GB/s ").count(), text.matches("ran: ").count(), "{text}");
    // What is only handed on is neither read nor written.
    let text = analyzed(&with_columns(Plan::Scan, vec![(c("a") * 2).alias("c")]));
    assert!(text.contains(&format!("({} bytes read, ", rows * 8 + rows / 8)), "{text}");
    // Of a slice, a copy is made.
    let text = analyzed(&slice(Plan::Scan, 10, Some(640)));
    assert!(text.contains("reads 16.25 bytes a row, writes 16.25 bytes a row"), "{text}");
    assert!(text.contains("(10400 bytes read, 10400 written)"), "{text}");
    assert!(!text.contains("shared"), "{text}");
    let unknown = Prepared::compile(&Plan::Scan, &schema(&[("z", DataType::Int64)])).unwrap();
    let other = unknown.analyze(&table.view(), &Context::new(&heap));
    assert!(matches!(other, Err(Error::ShapeMismatch(_))));
}

/// Predicates over a, b (int64), f (float64), t (utf8), s (bool), all with nulls; any that fits.
fn predicate() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (-5i64..6).prop_map(|k| c("a").lt(k)),
        (-5i64..6).prop_map(|k| c("b").ne(k)),
        (-5i64..6).prop_map(|k| c("f").ge(k as f64)),
        Just(c("a").is_null()),
        Just(c("f").is_not_null()),
        Just(c("t").eq("x")),
        Just(c("s")),
        Just(c("a").lt(c("b"))),
        Just((c("a") * c("b")).gt(3)),
        (-5i64..6, 0i64..4).prop_map(|(k, n)| c("b").is_between(k, k + n)),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| a | b),
            1 => inner.prop_map(|a| !a),
        ]
    })
}

fn stats() -> impl Strategy<Value = Vec<ColumnStats>> {
    let one = (any::<Option<i8>>(), any::<Option<i8>>(), any::<Option<(f64, f64)>>(), 0u64..900)
        .prop_map(|(min, max, range, nulls)| ColumnStats {
            min: min.map(i64::from),
            max: max.map(i64::from),
            range,
            null_count: Some(nulls),
            distinct: None,
        });
    proptest::collection::vec(one, 5)
}

fn column(name: &'static str, dtype: DataType, rows: usize, salt: usize) -> Col {
    let value = |i: usize| {
        let k = (i * 7919 + salt * 104_729) % 1009;
        match (k % 9, &dtype) {
            (0, _) => Val::Null,
            (_, DataType::Bool) => Val::Bool(k.is_multiple_of(2)),
            (_, DataType::Float64) => Val::Float((k % 13) as f64 - 6.0),
            (_, DataType::Utf8) => Val::Str(["x", "y", ""][k % 3].into()),
            _ => Val::Int((k % 11) as i128 - 5),
        }
    };
    col(name, dtype.clone(), (0..rows).map(value).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 150 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// The predicates' values as columns say which rows have to pass.
    #[test]
    fn no_order_changes_what_passes(
        predicates in proptest::collection::vec(predicate(), 1..5), stats in stats(),
    ) {
        let rows = 700;
        let t = vec![
            column("a", DataType::Int64, rows, 1),
            column("b", DataType::Int64, rows, 2),
            column("f", DataType::Float64, rows, 3),
            column("t", DataType::Utf8, rows, 4),
            column("s", DataType::Bool, rows, 5),
        ];
        let whole = filter(Plan::Scan, predicates.clone());
        let mut table = Table::new(&t, &[300]);
        table.stats = Some(stats);
        let got = run_with(&whole, &table, &t, false).unwrap();
        let named = |(i, p): (usize, &Expr)| p.clone().alias(format!("p{i}"));
        let values = select(Plan::Scan, predicates.iter().enumerate().map(named).collect());
        let values = run_with(&values, &table, &t, false).unwrap();
        let passes = |i: &usize| values.columns.iter().all(|v| v[*i] == Val::Bool(true));
        for (got, all) in got.columns.iter().zip(&t) {
            let want: Vec<Val> = (0..rows).filter(passes).map(|i| all.values[i].clone()).collect();
            prop_assert_eq!(got, &want, "{}", all.name);
        }
    }
}
