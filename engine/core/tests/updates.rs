//! Updates end to end: in place and swapped give the same table; handles follow, views stay.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_data::transform::MutableArrayData;
use common::region;
use insitu::{
    CollectOptions, ErrorCode, Expr, PutOptions, Region, RunOptions, Table, UpdateOptions,
};

fn col(name: &str) -> Expr {
    Expr::column(name)
}

const ROWS: usize = 150_000;

fn batch(rows: usize) -> RecordBatch {
    let a = Int64Array::from_iter((0..rows).map(|i| (i % 7 != 3).then_some(i as i64 % 1000)));
    let b = Int64Array::from_iter_values((0..rows).map(|i| i as i64));
    let x = Float64Array::from_iter_values((0..rows).map(|i| i as f64 * 0.5));
    let s = StringArray::from_iter_values((0..rows).map(|i| ["u", "vv", "www"][i % 3]));
    RecordBatch::try_from_iter_with_nullable([
        ("a", Arc::new(a) as ArrayRef, true),
        ("b", Arc::new(b) as ArrayRef, true),
        ("x", Arc::new(x) as ArrayRef, true),
        ("s", Arc::new(s) as ArrayRef, true),
    ])
    .unwrap()
}

fn put(region: &Region, name: &str) -> Table {
    let batch = batch(ROWS);
    region.put(name, batch.schema(), vec![Ok(batch)], false).unwrap()
}

fn sets(sets: &[(&str, Expr)]) -> Vec<(Arc<str>, Expr)> {
    sets.iter().map(|(n, e)| (Arc::from(*n), e.clone())).collect()
}

const PLAIN: UpdateOptions<'static> = UpdateOptions {
    in_place: false,
    atomic: false,
    checked: false,
    timeout: None,
    interrupt: None,
    what: "",
};
const IN_PLACE: UpdateOptions<'static> = UpdateOptions { in_place: true, ..PLAIN };
const ATOMIC: UpdateOptions<'static> = UpdateOptions { atomic: true, ..PLAIN };

fn rows(table: &Table) -> Vec<RecordBatch> {
    table.to_batches().unwrap()
}

fn counts(region: &Region) -> (u64, u64) {
    let stats = region.stats().unwrap();
    (stats.updates_in_place, stats.updates_swapped)
}

/// The smallest and the largest value that are known of a column, and its nulls.
fn known(table: &Table, column: usize) -> Option<(i64, i64, Option<u64>)> {
    let summaries = table.summaries().unwrap()?;
    let of = &summaries[column];
    let range = of.range.as_ref()?.as_primitive::<Int64Type>().clone();
    Some((range.value(0), range.value(1), of.nulls))
}

#[test]
fn in_place_and_swapped_give_the_same() {
    let region = region();
    let (over, beside) = (put(&region, "over"), put(&region, "beside"));
    for (set, condition) in [
        (sets(&[("a", col("a") * 2 + col("b"))]), None),
        (sets(&[("x", col("x") - col("x").mean())]), Some(col("s").eq("vv"))),
        (sets(&[("a", col("b")), ("b", col("b") + 1)]), Some(col("a").gt(500))),
    ] {
        over.update(set.clone(), condition.clone(), IN_PLACE).unwrap();
        beside.update(set, condition, ATOMIC).unwrap();
        assert_eq!(rows(&over), rows(&beside));
        for column in 0..2 {
            assert!(known(&over, column).is_some());
            assert_eq!(known(&over, column), known(&beside, column));
        }
    }
    assert_eq!(counts(&region), (3, 3));
    assert!(region.verify().ok(), "{:?}", region.verify().problems);
    let (over, beside) = (over.content_version(), beside.content_version());
    assert_eq!((over, beside), (4, 1));
}

#[test]
fn views_keep_their_bytes_and_handles_follow() {
    let region = region();
    let table = put(&region, "t");
    let other = region.get("t").unwrap();
    let sum = col("b").sum();
    let prepared = other.query().select(vec![sum.clone()]).prepare().unwrap();
    let total = |table: &Table| rows(table)[0].column(0).as_primitive::<Int64Type>().value(0);
    let run = || total(&prepared.run(None, &[], RunOptions::default()).unwrap());
    let before = run();
    let view = rows(&table);

    table.update(sets(&[("b", col("b") + 1)]), None, PLAIN).unwrap();
    assert_eq!(counts(&region), (0, 1), "a view is held");
    assert_eq!(run(), before + ROWS as i64);
    assert_eq!(view[0].column(1).as_primitive::<Int64Type>().value(7), 7);
    let view_of = |table: &Table| rows(table)[0].column(1).as_primitive::<Int64Type>().value(7);
    assert_eq!((view_of(&table), view_of(&other)), (8, 8));
    assert_eq!(view_of(&region.get("t").unwrap()), 8);
    assert_eq!(table.sequence(), other.sequence());
    drop(view);

    table.update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    assert_eq!(counts(&region), (1, 1));
    assert_eq!(run(), before + 2 * ROWS as i64);
    assert_eq!((view_of(&table), view_of(&other)), (9, 9));
    assert_eq!(other.content_version(), 2);
}

#[test]
fn what_stands_in_the_way_of_an_update_in_place_is_named() {
    let region = region();
    let table = put(&region, "t");
    let set = || sets(&[("b", col("b") + 1)]);
    let view = rows(&table);
    let error = table.update(set(), None, IN_PLACE).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LeaseHeld);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(view);
    let refused = |table: &Table, set, cause: &str| {
        let error = table.update(set, None, IN_PLACE).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unsupported, "{error}");
        assert!(error.to_string().contains(cause), "{error}");
        table.update(set_again(&error, cause), None, PLAIN).unwrap();
    };
    // The same update without `in_place` goes through.
    fn set_again(_: &insitu::Error, cause: &str) -> Vec<(Arc<str>, Expr)> {
        match cause {
            c if c.contains("width") => sets(&[("s", col("s"))]),
            _ => sets(&[("b", col("b") + 1)]),
        }
    }
    let shared = region.put_table("shared", &table, false).unwrap();
    refused(&table, set(), "shares its memory");
    drop(shared);
    region.delete("shared").unwrap();
    refused(&table, sets(&[("s", col("s"))]), "no width");
    let twins = table.query().select(vec![col("a"), col("a").alias("twin")]);
    let twins = twins.collect(Some("twins"), CollectOptions::default()).unwrap();
    region.delete("t").unwrap();
    drop(table);
    let error = twins.update(sets(&[("a", col("a") + 1)]), None, IN_PLACE).unwrap_err();
    assert!(error.to_string().contains("shares its memory"), "{error}");
    twins.update(sets(&[("a", col("a") + 1)]), None, PLAIN).unwrap();
    let both = rows(&twins);
    let value = |i: usize| both[0].column(i).as_primitive::<Int64Type>().value(0);
    assert_eq!((value(0), value(1)), (1 + value(1), value(1)));

    let both_ways = UpdateOptions { in_place: true, atomic: true, ..PLAIN };
    let error = twins.update(sets(&[("a", col("a"))]), None, both_ways).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

#[test]
fn the_first_nulls_of_a_column_are_written_in_place() {
    let region = region();
    let more = batch(70_001);
    let append = |table: Table| table.append(&more.schema(), vec![Ok(more.clone())], &|| false);
    let over = append(put(&region, "over")).unwrap();
    let beside = append(put(&region, "beside")).unwrap();
    let address = |table: &Table, chunk: usize, column: usize| {
        rows(table)[chunk].column(column).to_data().buffers()[0].as_ptr()
    };
    let places = |table: &Table| [address(table, 0, 1), address(table, 1, 1), address(table, 1, 2)];
    let before = places(&over);
    let used = || region.stats().unwrap().used;
    // Two columns that have none so far; of one some rows.
    let set = || sets(&[("b", col("a")), ("x", col("x") + col("a"))]);
    for condition in [Some(col("b").gt(50_000)), None] {
        let then = used();
        over.update(set(), condition.clone(), IN_PLACE).unwrap();
        // Bitmaps, and what else there is to say of the table; each column has 1.7 MB.
        assert!(used() - then < 512 << 10, "{}", used() - then);
        beside.update(set(), condition, ATOMIC).unwrap();
        assert_eq!(rows(&over), rows(&beside));
        assert!(rows(&over)[1].column(1).null_count() > 0);
        assert_eq!(places(&over), before);
        assert_eq!(known(&over, 1), known(&beside, 1));
    }
    assert_eq!(counts(&region), (2, 2));
    assert_eq!(region.stats().unwrap().retired, 0);
    assert!(region.verify().ok(), "{:?}", region.verify().problems);

    // Whose rows fail is told before; what others read or hold is swapped.
    let table = put(&region, "t");
    let failing = col("x").cast(insitu::DataType::Int8, true).cast(insitu::DataType::Int64, true);
    let set = sets(&[("b", failing + col("a"))]);
    let content = (table.content_version(), known(&table, 1));
    let error = table.update(set, None, IN_PLACE).unwrap_err();
    assert_eq!(error.code(), ErrorCode::CastFailed);
    assert_eq!((table.content_version(), known(&table, 1)), content);
    assert_eq!(rows(&table)[0].column(1).null_count(), 0);
    let view = rows(&table);
    let error = table.update(sets(&[("b", col("a"))]), None, IN_PLACE).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LeaseHeld);
    table.update(sets(&[("b", col("a"))]), None, PLAIN).unwrap();
    assert_eq!(counts(&region), (2, 3));
    assert_eq!(view[0].column(1).null_count(), 0);
    drop(view);
    let other = region.get("t").unwrap();
    table.update(sets(&[("x", col("x") + col("a"))]), None, PLAIN).unwrap();
    for table in [&table, &other] {
        assert_eq!(rows(table)[0].column(2).null_count(), rows(table)[0].column(0).null_count());
    }
    assert!(region.verify().ok(), "{:?}", region.verify().problems);
}

#[test]
fn memory_of_swapped_columns_is_given_back() {
    let region = region();
    let table = put(&region, "t");
    table.update(sets(&[("b", col("b") + 1)]), None, ATOMIC).unwrap();
    let used = region.stats().unwrap().used;
    for _ in 0..20 {
        table.update(sets(&[("b", col("b") + 1)]), None, ATOMIC).unwrap();
    }
    assert_eq!(region.stats().unwrap().used, used);
    assert_eq!(region.stats().unwrap().retired, 0);
    drop(table);
    region.delete("t").unwrap();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn several_updates_share_one_exclusive_lease() {
    let region = region();
    let table = put(&region, "t");
    let view = rows(&table);
    let refused = table.exclusive(PLAIN).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::LeaseHeld);
    drop(view);
    let alone = table.exclusive(PLAIN).unwrap();
    for _ in 0..3 {
        alone.table().update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    }
    // By any handle of this thread; a view could outlive the lease.
    region.get("t").unwrap().update(sets(&[("b", col("b") + 1)]), None, PLAIN).unwrap();
    assert_eq!(table.to_batches().unwrap_err().code(), ErrorCode::LeaseHeld);
    let elsewhere = table.clone();
    let other = std::thread::spawn(move || {
        let soon = UpdateOptions { timeout: Some(Duration::from_millis(20)), ..PLAIN };
        elsewhere.update(sets(&[("b", col("b") + 100)]), None, soon).unwrap_err().code()
    });
    assert_eq!(other.join().unwrap(), ErrorCode::LeaseHeld);
    assert_eq!(counts(&region), (4, 0));
    // What cannot be in place is swapped, and the lease goes on.
    table.update(sets(&[("b", col("a"))]), None, PLAIN).unwrap();
    table.update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    assert_eq!(counts(&region), (5, 1));
    let failing = sets(&[("b", col("x").cast(insitu::DataType::Int8, true))]);
    let failed = table.update(failing, None, PLAIN);
    assert_eq!(failed.unwrap_err().code(), ErrorCode::CastFailed);
    drop(alone);
    let after = rows(&table);
    assert_eq!(after[0].column(1).as_primitive::<Int64Type>().value(1), 2);
    assert!(region.verify().ok());
}

#[test]
fn an_update_that_fails_beside_the_values_does_not_end_the_exclusive_lease() {
    let region = region();
    let table = put(&region, "t");
    let alone = table.exclusive(PLAIN).unwrap();
    let failing = sets(&[("b", col("b") * i64::MAX)]);
    let checked = UpdateOptions { checked: true, ..ATOMIC };
    let failed = table.update(failing, None, checked);
    assert_eq!(failed.unwrap_err().code(), ErrorCode::Overflow);
    let elsewhere = table.clone();
    let other = std::thread::spawn(move || {
        let soon = UpdateOptions { timeout: Some(Duration::from_millis(20)), ..PLAIN };
        elsewhere.update(sets(&[("b", col("b") + 100)]), None, soon).map_err(|e| e.code())
    });
    assert_eq!(other.join().unwrap(), Err(ErrorCode::LeaseHeld));
    table.update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    drop(alone);
    table.update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    assert_eq!(counts(&region), (2, 0));
}

#[test]
fn who_has_a_table_exclusively_reads_it_and_shares_nothing() {
    let region = region();
    let more = batch(70_000);
    let table = put(&region, "t").append(&more.schema(), vec![Ok(more)], &|| false).unwrap();
    assert_eq!(table.num_chunks(), 2);
    let sum = |table: &Table| {
        let query = table.query().select(vec![col("b").sum()]);
        let result = query.collect(None, CollectOptions::default()).unwrap();
        rows(&result)[0].column(0).as_primitive::<Int64Type>().value(0)
    };
    let total = sum(&table);
    let before = vec![batch(ROWS), batch(70_000)];
    let count = table.num_rows() as i64;
    let prepared = table.query().select(vec![col("b").sum()]).prepare().unwrap();
    let alone = table.exclusive(PLAIN).unwrap();
    for i in 1..4 {
        // What is read decides what is written.
        let now = sum(&table);
        assert_eq!(now, total + (i - 1) * count);
        table
            .update(sets(&[("b", col("b") + (now - total) / count - i + 2)]), None, IN_PLACE)
            .unwrap();
        prepared.run(None, &[], RunOptions::default()).unwrap();
    }
    let copies = region.stats().unwrap().copies;
    let plain = table.query().collect(None, CollectOptions::default()).unwrap();
    let mixed = table.query().with_columns(vec![(col("b") * 2).alias("c")]);
    let mixed = mixed.collect(Some("mixed"), CollectOptions::default()).unwrap();
    let named = region.put_table("named", &table, false).unwrap();
    assert_eq!(region.stats().unwrap().copies, copies + 4, "chunks of a new column, and three");
    let first = table.query().slice(1, Some(3)).collect(None, CollectOptions::default()).unwrap();
    assert_eq!(rows(&first)[0].column(1).as_primitive::<Int64Type>().values(), &[4, 5, 6]);
    let own = table.own_copy(3, &|| false).unwrap().unwrap();
    for refused in [
        table.to_batches().unwrap_err(),
        table.column(0).unwrap_err(),
        table.append(&before[0].schema(), vec![Ok(before[0].clone())], &|| false).unwrap_err(),
    ] {
        assert_eq!(refused.code(), ErrorCode::LeaseHeld);
        let text = refused.to_string();
        assert!(text.starts_with("this thread has the table \"t\" exclusively: "), "{text}");
    }
    // They keep what they were made of.
    table.update(sets(&[("b", col("b") - col("b"))]), None, IN_PLACE).unwrap();
    assert_eq!(sum(&table), 0);
    for copy in [&plain, &mixed, &named] {
        assert_eq!(sum(copy), total + 3 * count);
        assert_eq!(copy.num_chunks(), 2);
        for (copy, before) in rows(copy).iter().zip(&before) {
            assert_eq!(copy.column(3), before.column(3));
            assert_eq!(copy.column(0), before.column(0));
        }
    }
    assert_eq!(rows(&own)[0].column(0), before[0].column(3));
    let elsewhere = table.clone();
    let reader = std::thread::spawn(move || sum(&elsewhere));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!reader.is_finished());
    table.update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    drop(alone);
    assert_eq!(reader.join().unwrap(), count);
    assert!(table.own_copy(3, &|| false).unwrap().is_none());
    assert_eq!(rows(&table).len(), 2);
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn nothing_runs_within_what_runs_under_an_exclusive_lease() {
    let region = region();
    let table = put(&region, "t");
    let alone = table.exclusive(PLAIN).unwrap();
    let refused = std::cell::Cell::new(0);
    // As a signal handler of this thread would.
    let interrupt = || {
        let update = table.update(sets(&[("b", col("b") + 1)]), None, PLAIN).unwrap_err();
        let query = table.query().collect(None, CollectOptions::default()).unwrap_err();
        assert_eq!((update.code(), query.code()), (ErrorCode::LeaseHeld, ErrorCode::LeaseHeld));
        refused.set(refused.get() + 1);
        false
    };
    let query = table.query().select(vec![(col("b") * 2).sum()]);
    let options = CollectOptions { interrupt: Some(&interrupt), ..CollectOptions::default() };
    query.collect(None, options).unwrap();
    let options = UpdateOptions { interrupt: Some(&interrupt), ..IN_PLACE };
    table.update(sets(&[("b", col("b") + 1)]), None, options).unwrap();
    assert!(refused.get() > 0);
    table.update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    drop(alone);
}

#[test]
fn a_replaced_or_deleted_table_is_stale() {
    let region = region();
    let old = put(&region, "t");
    let batch = batch(10);
    let options = PutOptions { replace: true, ..PutOptions::default() };
    region.put_with("t", batch.schema(), vec![Ok(batch)], options).unwrap();
    let set = || sets(&[("b", col("b") + 1)]);
    for options in [PLAIN, ATOMIC, IN_PLACE] {
        assert_eq!(old.update(set(), None, options).unwrap_err().code(), ErrorCode::Stale);
    }
    assert_eq!(old.num_rows(), ROWS as u64);
    let new = region.get("t").unwrap();
    new.update(set(), None, PLAIN).unwrap();
    region.delete("t").unwrap();
    assert_eq!(new.update(set(), None, PLAIN).unwrap_err().code(), ErrorCode::Stale);
    assert_eq!(rows(&new)[0].column(1).as_primitive::<Int64Type>().value(0), 1);
    // A result without a name is not shared with anyone who could see an update.
    let result = new.query().collect(None, CollectOptions::default()).unwrap();
    assert_eq!(result.update(set(), None, PLAIN).unwrap_err().code(), ErrorCode::Unsupported);
}

#[test]
fn a_failing_or_cancelled_update_changes_nothing() {
    let region = region();
    let table = put(&region, "t");
    let before: Vec<RecordBatch> = rows(&table).iter().map(copied).collect();
    let failing = sets(&[("b", col("b") * i64::MAX)]);
    for options in [PLAIN, ATOMIC, IN_PLACE] {
        let checked = UpdateOptions { checked: true, ..options };
        let error = table.update(failing.clone(), None, checked).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Overflow);
        assert!(error.to_string().contains("at row 2,"), "{error}");
        let stop = UpdateOptions { interrupt: Some(&|| true), ..options };
        let error = table.update(failing.clone(), None, stop).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled);
        assert_eq!(rows(&table), before);
    }
    assert_eq!((table.content_version(), counts(&region)), (1, (0, 0)));
}

/// The same rows in memory of this process, which holds no lease.
fn copied(batch: &RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(|c| {
        let data = c.to_data();
        let mut copy = MutableArrayData::new(vec![&data], false, c.len());
        copy.try_extend(0, 0, c.len()).unwrap();
        make_array(copy.freeze())
    });
    RecordBatch::try_new(batch.schema(), columns.collect()).unwrap()
}

#[test]
fn statistics_of_before_are_not_believed() {
    let region = region();
    let table = put(&region, "t");
    assert_eq!(known(&table, 1), Some((0, ROWS as i64 - 1, Some(0))));
    assert_eq!(known(&table, 0).unwrap().2, Some(21_429));
    table.update(sets(&[("b", -col("b")), ("a", 5.into())]), None, IN_PLACE).unwrap();
    assert_eq!(known(&table, 1), Some((1 - ROWS as i64, 0, Some(0))));
    assert_eq!(known(&table, 0), Some((5, 5, Some(0))));
    let counts = table.query().select(vec![col("a").count(), col("b").min()]);
    let counts = rows(&counts.collect(None, CollectOptions::default()).unwrap());
    assert_eq!(counts[0].column(0).as_primitive::<Int64Type>().value(0), ROWS as i64);
    // Of a table that shares them nothing is known: they are of another content version.
    let named = region.put_table("named", &table, false).unwrap();
    assert_eq!(known(&named, 1), None);
    assert_eq!(rows(&named), rows(&table));
    // A swap knows again what it writes.
    named.update(sets(&[("b", col("b") * 2)]), None, PLAIN).unwrap();
    assert_eq!(known(&named, 1), Some((2 - 2 * ROWS as i64, 0, Some(0))));
    assert_eq!(known(&named, 0), None);
}

#[test]
fn of_a_column_that_is_known_in_part_nothing_is_said() {
    let region = region();
    let table = put(&region, "t");
    table.update(sets(&[("b", col("b") + 1)]), None, IN_PLACE).unwrap();
    let named = region.put_table("named", &table, false).unwrap();
    region.delete("t").unwrap();
    drop(table);
    // Of the first column nothing is known, and then of its first zone only.
    named.update(sets(&[("b", col("b") * 2)]), None, ATOMIC).unwrap();
    assert_eq!(known(&named, 0), None);
    named.update(sets(&[("a", 7.into())]), Some(col("b").lt(10)), IN_PLACE).unwrap();
    assert_eq!(known(&named, 0), None);
    assert_eq!(known(&named, 1), Some((2, 2 * ROWS as i64, Some(0))));
    named.update(sets(&[("a", 7.into())]), None, IN_PLACE).unwrap();
    assert_eq!(known(&named, 0), Some((7, 7, Some(0))));
}

#[test]
fn a_table_that_is_swapped_as_a_whole_has_statistics_of_its_new_chunks() {
    let region = region();
    let numbers = |from: i64, n: i64| {
        let values = Int64Array::from_iter_values(from..from + n);
        RecordBatch::try_from_iter([("n", Arc::new(values) as ArrayRef)]).unwrap()
    };
    let append = |table: &Table, batch: RecordBatch| {
        table.append(&batch.schema(), [Ok(batch)], &|| false).unwrap()
    };
    let first = numbers(0, 70_000);
    let mut table = region.put("t", first.schema(), [Ok(first)], false).unwrap();
    table = append(&table, numbers(70_000, 10));
    assert_eq!(table.num_chunks(), 2);
    table.update(sets(&[("n", col("n") * 2)]), None, ATOMIC).unwrap();
    assert_eq!((table.num_chunks(), known(&table, 0)), (1, Some((0, 140_018, Some(0)))));
    // Who takes it over knows the zones, too.
    table = append(&table, numbers(0, 70_000));
    assert_eq!(known(&table, 0), Some((0, 140_018, Some(0))));
}

#[test]
fn many_threads_update_one_table() {
    let region = region();
    let table = put(&region, "t");
    let threads: Vec<_> = (0..4)
        .map(|i| {
            let table = table.clone();
            std::thread::spawn(move || {
                for k in 0..10 {
                    let options = [PLAIN, ATOMIC][(i + k) % 2];
                    table.update(sets(&[("b", col("b") + 1)]), None, options).unwrap();
                    let values = rows(&table);
                    let b = values[0].column(1).as_primitive::<Int64Type>();
                    // One update or another, but never half of one.
                    let first = b.value(0);
                    assert!(b.iter().enumerate().all(|(i, v)| v == Some(first + i as i64)));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let values = rows(&table);
    assert_eq!(values[0].column(1).as_primitive::<Int64Type>().value(0), 40);
}

#[test]
fn first_nulls_are_no_version_of_their_own_for_who_else_has_the_table() {
    let region = region();
    let table = put(&region, "t");
    let other = region.get("t").unwrap();
    let first = || sets(&[("b", col("a"))]);
    let (version, add) = (table.sequence(), || sets(&[("x", col("x") + 1.0)]));
    // What is refused has published nothing, and is in nobody's way.
    let error = table.update(first(), None, IN_PLACE).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(error.to_string().contains("other handles"), "{error}");
    assert_eq!(table.sequence(), version);
    table.update(add(), None, IN_PLACE).unwrap();
    assert_eq!(table.sequence(), version);

    // Who waits for the next version gets the one that has the new values.
    let said = table.explain_update(first(), None, PLAIN).unwrap();
    assert!(said.contains("beside the old values"), "{said}");
    table.update(first(), None, PLAIN).unwrap();
    let next = region.wait("t", Some(&other), None, &|| false).unwrap();
    assert_eq!(next.sequence(), version.map(|v| v + 1));
    assert!(rows(&next)[0].column(1).null_count() > 0);
    assert_eq!(counts(&region), (1, 1));

    // Clones, and queries, of the one handle are no others.
    drop((other, next));
    let prepared = table.query().select(vec![col("x").count()]).prepare().unwrap();
    let clone = table.clone();
    table.update(sets(&[("x", col("x") + col("a"))]), None, IN_PLACE).unwrap();
    assert_eq!(counts(&region), (2, 1));
    assert!(prepared.run(None, &[], RunOptions::default()).unwrap().num_rows() == 1);
    assert_eq!(rows(&clone)[0].column(2).null_count(), rows(&table)[0].column(0).null_count());
}
