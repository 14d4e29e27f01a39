//! Queries end to end: Arrow in, computed in the region, Arrow out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use common::region;
use insitu::{
    CollectOptions, ErrorCode, Expr, PutOptions, Query, Region, RunOptions, Scalar, Table,
    UpdateOptions,
};

fn col(name: &str) -> Expr {
    Expr::column(name)
}

/// Trips: a string key, an integer key, a float with nulls, a time.
fn trips(rows: usize) -> RecordBatch {
    let names = ["AA", "B6", "UA", "a carrier with a long name"];
    let carrier = StringArray::from_iter_values((0..rows).map(|i| names[i * 7 % names.len()]));
    let origin = Int32Array::from_iter_values((0..rows).map(|i| (i % 5) as i32));
    let delay =
        Float64Array::from_iter((0..rows).map(|i| (i % 11 != 0).then_some(i as f64 * 0.25 - 3.0)));
    let at = TimestampMicrosecondArray::from_iter_values((0..rows).map(|i| i as i64 * 1000))
        .with_timezone("UTC");
    let tag = DictionaryArray::<Int8Type>::from_iter((0..rows).map(|i| Some(names[i % 3])));
    RecordBatch::try_from_iter([
        ("carrier", Arc::new(carrier) as ArrayRef),
        ("origin", Arc::new(origin) as ArrayRef),
        ("delay", Arc::new(delay) as ArrayRef),
        ("at", Arc::new(at) as ArrayRef),
        ("tag", Arc::new(tag) as ArrayRef),
    ])
    .unwrap()
}

fn put(region: &Region, rows: usize) -> Table {
    let batch = trips(rows);
    region.put("trips", batch.schema(), vec![Ok(batch)], false).unwrap()
}

fn collect(query: &Query) -> RecordBatch {
    let table = query.collect(None, CollectOptions::default()).unwrap();
    let mut batches = table.to_batches().unwrap();
    assert_eq!(batches.len(), 1, "results are contiguous");
    assert_eq!(batches[0].schema(), query.schema().unwrap());
    for column in batches[0].columns() {
        column.to_data().validate_full().unwrap();
    }
    batches.remove(0)
}

fn f64s(batch: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().iter().collect()
}

/// Not that the waiting were short: who waits is asked whether to go on.
#[test]
fn readers_that_wait_can_be_interrupted() {
    let region = region();
    let elsewhere = common::region();
    let table = put(&region, 100);
    let query = table.query().select(vec![col("origin")]).filter(vec![col("origin").gt(2)]);
    let prepared = query.prepare().unwrap();
    let block = table.exclusive(UpdateOptions::default()).unwrap();
    let stop: &dyn Fn() -> bool = &|| true;
    let outcomes = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let stop: &dyn Fn() -> bool = &|| true;
            let collected = CollectOptions { interrupt: Some(stop), ..Default::default() };
            let run = RunOptions { interrupt: Some(stop), ..Default::default() };
            let put = PutOptions { interrupt: Some(stop), ..Default::default() };
            [
                table.to_batches_with(stop).map(drop),
                table.column_with(0, stop).map(drop),
                query.collect(None, collected).map(drop),
                prepared.run(None, &[], run).map(drop),
                prepared.run(Some(&table), &[], run).map(drop),
                region.put_table_with("u", &table, put).map(drop),
                elsewhere.put_table_with("u", &table, put).map(drop),
            ]
        });
        waiting.join().unwrap()
    });
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap_err().code(), ErrorCode::Cancelled, "{number}");
    }
    // The thread that has it need not wait.
    assert!(table.own_copy(1, &|| false).unwrap().is_some());
    assert_eq!(table.to_batches_with(stop).unwrap_err().code(), ErrorCode::LeaseHeld);
    drop(block);
    table.to_batches_with(stop).unwrap();
    assert_eq!(region.names().unwrap(), ["trips"]);
}

#[test]
fn rows_are_filtered_and_columns_computed() {
    for rows in [0, 1, 10, 3000, 200_000] {
        let region = region();
        let table = put(&region, rows);
        let query =
            table.query().filter(vec![col("delay").gt(100.0), col("carrier").eq("B6")]).select(
                vec![(col("delay") * 60.0 + col("origin")).alias("x"), col("carrier"), col("at")],
            );
        let found = collect(&query);
        let source = trips(rows);
        let delay = source.column(2).as_primitive::<Float64Type>();
        let carrier = source.column(0).as_string::<i32>();
        let expected: Vec<(Option<f64>, i64)> = (0..rows)
            .filter(|&i| delay.is_valid(i) && delay.value(i) > 100.0 && carrier.value(i) == "B6")
            .map(|i| (Some(delay.value(i) * 60.0 + (i % 5) as f64), i as i64 * 1000))
            .collect();
        assert_eq!(f64s(&found, "x"), expected.iter().map(|e| e.0).collect::<Vec<_>>());
        let at = found.column(2).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(at.values(), &expected.iter().map(|e| e.1).collect::<Vec<_>>()[..]);
        assert_eq!(at.timezone(), Some("UTC"));
        assert!(found.column(1).as_string::<i32>().iter().all(|c| c == Some("B6")));
    }
}

#[test]
fn groups_come_in_order_of_first_appearance() {
    let region = region();
    let table = put(&region, 100_000);
    let query = table.query().group_by(
        vec![col("carrier")],
        vec![
            col("delay").mean().alias("mean"),
            col("delay").count().alias("n"),
            Expr::len().alias("len"),
        ],
    );
    let found = collect(&query);
    let keys: Vec<_> =
        found.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect();
    assert_eq!(keys, ["AA", "a carrier with a long name", "UA", "B6"]);
    let source = trips(100_000);
    let delay = source.column(2).as_primitive::<Float64Type>();
    for (group, key) in keys.iter().enumerate() {
        let mine: Vec<usize> =
            (0..100_000).filter(|i| source.column(0).as_string::<i32>().value(*i) == key).collect();
        let valid: Vec<f64> =
            mine.iter().filter(|i| delay.is_valid(**i)).map(|i| delay.value(*i)).collect();
        let mean = valid.iter().sum::<f64>() / valid.len() as f64;
        assert!((f64s(&found, "mean")[group].unwrap() - mean).abs() < 1e-9 * mean.abs());
        assert_eq!(
            found.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(group),
            valid.len() as i64
        );
        assert_eq!(
            found.column_by_name("len").unwrap().as_primitive::<Int64Type>().value(group),
            mine.len() as i64
        );
    }
}

#[test]
fn a_projection_shares_its_sources_bytes_and_keeps_them() {
    let region = region();
    let table = put(&region, 5000);
    let source = trips(5000);
    let before = region.stats().unwrap();
    let picked = table
        .query()
        .select(vec![col("tag").alias("label"), col("delay")])
        .collect(None, CollectOptions::default())
        .unwrap();
    assert_eq!(region.stats().unwrap().used, before.used, "nothing was allocated");
    let same = |a: &Table, i: usize, b: &Table, j: usize| {
        let at = |t: &Table, c: usize| t.column(c).unwrap()[0].to_data().buffers()[0].as_ptr();
        at(a, i) == at(b, j)
    };
    assert!(same(&picked, 0, &table, 4) && same(&picked, 1, &table, 2));
    // Through a name, too, and after everything else is gone.
    let named = region.put_table("picked", &picked, false).unwrap();
    assert!(same(&named, 0, &table, 4));
    drop((picked, named, table));
    region.delete("trips").unwrap();
    region.gc().unwrap();
    let found = region.get("picked").unwrap().to_batches().unwrap().remove(0);
    assert_eq!(found.column(0), source.column(4));
    assert_eq!(found.column(1), source.column(2));
}

#[test]
fn new_columns_stand_beside_shared_ones() {
    let region = region();
    let table = put(&region, 70_000);
    let query = table.query().with_columns(vec![
        (col("delay") + 1.0).alias("later"),
        (col("origin") * 2).alias("origin"),
    ]);
    let named = query.collect(Some("wider"), CollectOptions::default()).unwrap();
    let found = region.get("wider").unwrap().to_batches().unwrap().remove(0);
    let source = trips(70_000);
    for name in ["carrier", "delay", "at", "tag"] {
        assert_eq!(found.column_by_name(name), source.column_by_name(name), "{name}");
    }
    assert_eq!(f64s(&found, "later")[5], Some(5.0 * 0.25 - 2.0));
    assert_eq!(found.column_by_name("origin").unwrap().as_primitive::<Int32Type>().value(4), 8);
    assert_eq!(named.name(), Some("wider"));
}

#[test]
fn a_result_gets_a_name_and_keeps_its_rows() {
    let region = region();
    let table = put(&region, 1000);
    let query = table.query().select(vec![col("delay").sum().alias("s")]);
    let small = query.collect(None, CollectOptions::default()).unwrap();
    assert_eq!(small.name(), None);
    region.put_table("sum", &small, false).unwrap();
    assert_eq!(region.get("sum").unwrap().to_batches().unwrap(), small.to_batches().unwrap());
    assert_eq!(region.stats().unwrap().copies, 1, "a result in a slab had to be copied");

    let large = table
        .query()
        .select(vec![(col("delay") * 2.0).alias("d"); 1])
        .slice(0, None)
        .collect(None, CollectOptions::default())
        .unwrap();
    region.put_table("large", &large, false).unwrap();
    let error = query.collect(Some("sum"), CollectOptions::default()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TableExists);
    let replace = CollectOptions { replace: true, ..CollectOptions::default() };
    query.collect(Some("sum"), replace).unwrap();
    assert_eq!(region.names().unwrap(), ["large", "sum", "trips"]);
}

#[test]
fn a_prepared_query_runs_again_and_on_other_tables() {
    let region = region();
    let table = put(&region, 1000);
    let prepared = table
        .query()
        .filter(vec![col("origin").eq(3)])
        .select(vec![col("delay").max().alias("m"), Expr::len().alias("n")])
        .prepare()
        .unwrap();
    let n = |t: &Table| t.column(1).unwrap()[0].as_primitive::<Int64Type>().value(0);
    let used = {
        assert_eq!(n(&prepared.run(None, &[], RunOptions::default()).unwrap()), 200);
        region.stats().unwrap().used
    };
    for _ in 0..100 {
        assert_eq!(n(&prepared.run(None, &[], RunOptions::default()).unwrap()), 200);
    }
    assert_eq!(region.stats().unwrap().used, used, "dropped results are used again");

    let other = trips(50);
    let other = region.put("other", other.schema(), vec![Ok(other)], false).unwrap();
    assert_eq!(n(&prepared.run(Some(&other), &[], RunOptions::default()).unwrap()), 10);
    let wrong = RecordBatch::try_from_iter([("x", Arc::new(Int8Array::from(vec![1])) as ArrayRef)])
        .unwrap();
    let wrong = region.put("wrong", wrong.schema(), vec![Ok(wrong)], false).unwrap();
    let error = prepared.run(Some(&wrong), &[], RunOptions::default()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::SchemaMismatch);
}

#[test]
fn a_handle_to_a_replaced_table_queries_the_old_rows() {
    let region = region();
    let old = put(&region, 100);
    let new = trips(7);
    region.put("trips", new.schema(), vec![Ok(new)], true).unwrap();
    let count = |t: &Table| {
        let found = collect(&t.query().select(vec![Expr::len()]));
        found.column(0).as_primitive::<Int64Type>().value(0)
    };
    assert_eq!(count(&old), 100);
    assert_eq!(count(&old.latest().unwrap()), 7);
    region.delete("trips").unwrap();
    assert_eq!(count(&old), 100);
}

#[test]
fn errors_name_what_is_wrong() {
    let region = region();
    let table = put(&region, 10);
    let error = table.query().select(vec![col("dely")]).schema().unwrap_err();
    match error {
        insitu::Error::UnknownColumn { name, nearest } => {
            assert_eq!((name.as_str(), nearest.as_deref()), ("dely", Some("delay")));
        }
        other => panic!("{other}"),
    }
    let error = table.query().select(vec![col("carrier") * 2]).prepare().unwrap_err();
    assert_eq!(error.code(), ErrorCode::TypeMismatch);
    assert!(error.to_string().contains("utf8"), "{error}");
    let error = region.get("trip").unwrap_err();
    assert!(error.to_string().contains("trips"), "{error}");
}

#[test]
fn a_query_runs_from_its_message() {
    let region = region();
    let table = put(&region, 500);
    let query = table
        .query()
        .filter(vec![col("delay").gt(10.0)])
        .select(vec![col("delay").sum().alias("s")]);
    let sent = Query::from_wire(table.clone(), &query.to_wire().unwrap()).unwrap();
    assert_eq!(collect(&sent), collect(&query));
}

#[test]
fn a_cancelled_query_leaves_no_table() {
    let region = region();
    let table = put(&region, 200_000);
    let options = CollectOptions { interrupt: Some(&|| true), ..CollectOptions::default() };
    // Whether a short query notices is its own affair; that nothing is left behind is not.
    match table.query().select(vec![(col("delay") * 2.0).alias("d")]).collect(Some("t"), options) {
        Ok(_) => assert!(region.contains("t").unwrap()),
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::Cancelled);
            assert!(!region.contains("t").unwrap());
        }
    }
}

#[test]
fn parameters_are_given_when_it_runs() {
    let region = region();
    let table = put(&region, 1000);
    let query =
        table.query().filter(vec![col("origin").lt(Expr::param("x"))]).select(vec![Expr::len()]);
    let prepared = match query.prepare() {
        Ok(prepared) => prepared,
        // Not there yet is said as such.
        Err(error) => return assert_eq!(error.code(), ErrorCode::Unsupported),
    };
    for (x, expected) in [(0, 0), (2, 400), (5, 1000)] {
        let params = [("x".to_owned(), Scalar::Int(x))];
        let found = prepared.run(None, &params, RunOptions::default()).unwrap();
        assert_eq!(found.column(0).unwrap()[0].as_primitive::<Int64Type>().value(0), expected);
    }
}

#[test]
fn parameters_of_another_type_give_columns_of_another_type() {
    let region = region();
    let table = put(&region, 10);
    let query = table.query().select(vec![(col("origin") * Expr::param("x")).alias("y")]);
    let prepared = query.prepare().unwrap();
    let run = |x: Scalar| prepared.run(None, &[("x".to_owned(), x)], RunOptions::default());
    for _ in 0..2 {
        let whole = run(Scalar::Int(3)).unwrap().column(0).unwrap().remove(0);
        assert_eq!(whole.as_primitive::<Int32Type>().value(4), 12);
        let part = run(Scalar::Float(0.5)).unwrap().column(0).unwrap().remove(0);
        assert_eq!(part.as_primitive::<Float64Type>().value(4), 2.0);
    }
}

#[test]
fn a_named_projection_keeps_the_columns_that_it_has_and_no_others() {
    let region = region();
    let rows = 500_000;
    let numbers = Int64Array::from_iter_values(0..rows);
    let batch = RecordBatch::try_from_iter([("a", Arc::new(numbers) as ArrayRef)]).unwrap();
    let table = region.put("t", batch.schema(), vec![Ok(batch)], false).unwrap();
    let named = |name| (Some(name), CollectOptions::default());
    let (name, options) = named("wide");
    let twice = (Expr::column("a") * 2).alias("twice");
    let wide = table.query().with_columns(vec![twice]).collect(name, options).unwrap();
    for (name, column) in [("x", "a"), ("y", "twice")] {
        let (name, options) = named(name);
        wide.query().select(vec![Expr::column(column)]).collect(name, options).unwrap();
    }
    drop((table, wide));
    region.delete("t").unwrap();
    region.delete("wide").unwrap();
    region.gc().unwrap();
    let used = region.stats().unwrap().used;
    assert!(used > 2 * 8 * rows as u64, "{used}");
    region.delete("y").unwrap();
    region.gc().unwrap();
    let used = region.stats().unwrap().used;
    assert!(used < 8 * rows as u64 + (1 << 20), "{used}");
    assert_eq!(region.get("x").unwrap().to_batches().unwrap()[0].num_rows(), rows as usize);
    assert!(region.verify().ok(), "{:?}", region.verify().problems);
}
