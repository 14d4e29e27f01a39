//! Writing by hand: over the old values, beside them, and given up.

use std::sync::Arc;
use std::time::Instant;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow_schema::{Field, Schema};
use arrow_select::concat::concat_batches;
use insitu_region::{CreateOptions, Location};

use super::*;
use crate::region::Region;

fn region() -> Region {
    let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

fn batch(n: i64) -> RecordBatch {
    let nulls = |i: i64| (i % 5 != 0).then_some(i);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from_iter((0..n).map(nulls)))),
        ("f", Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64)))),
        ("b", Arc::new(BooleanArray::from_iter((0..n).map(|i| nulls(i).map(|i| i % 2 == 0))))),
        ("s", Arc::new(StringArray::from_iter_values((0..n).map(|i| i.to_string())))),
    ];
    let field =
        |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn put(region: &Region, n: i64) -> Table {
    let batch = batch(n);
    region.put("t", batch.schema(), [Ok(batch)], true).unwrap()
}

fn all(table: &Table) -> RecordBatch {
    concat_batches(&table.schema(), &table.to_batches().unwrap()).unwrap()
}

fn options() -> UpdateOptions<'static> {
    UpdateOptions::default()
}

fn store<T: Copy>(canvas: &Canvas, row: usize, value: T) {
    assert!((row + 1) * size_of::<T>() <= canvas.len());
    // SAFETY: within the canvas, just asserted.
    unsafe { canvas.as_mut_ptr().cast::<T>().add(row).write(value) };
}

/// Stores into every column, and says what comes of it.
fn change(writing: &Writing, n: i64) -> RecordBatch {
    let (i, f, b) =
        (writing.values(0).unwrap(), writing.values(1).unwrap(), writing.values(2).unwrap());
    for row in 0..n {
        store(&i, row as usize, -row);
        store(&f, row as usize, 0.5);
        store(&b, row as usize, row % 3 == 0);
    }
    let old = batch(n);
    let valid = |row: i64| row % 5 != 0;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter((0..n).map(|row| valid(row).then_some(-row)))),
        Arc::new(Float64Array::from_iter_values((0..n).map(|_| 0.5))),
        Arc::new(BooleanArray::from_iter((0..n).map(|row| valid(row).then_some(row % 3 == 0)))),
        old.column(3).clone(),
    ];
    RecordBatch::try_new(old.schema(), columns).unwrap()
}

#[test]
fn values_are_written_over_the_old_ones_where_nobody_else_has_them() {
    for n in [1, 100, 100_000] {
        let region = region();
        let table = put(&region, n);
        let other = region.get("t").unwrap();
        let place = table.seen().meta.layout.chunks[0].columns[1].buffers[0];
        let writing = table.writable(options()).unwrap();
        let expected = change(&writing, n);
        // Nobody reads it meanwhile; this thread is told at once.
        assert!(matches!(other.to_batches(), Err(Error::LeaseHeld { .. })));
        assert!(matches!(writing.values(3), Err(Error::TypeMismatch(_))));
        let canvas = writing.values(1).unwrap();
        writing.finish().unwrap();
        assert_eq!(all(&other), expected);
        assert_eq!(all(&table), expected);
        assert_eq!(other.seen().meta.layout.chunks[0].columns[1].buffers[0], place);
        assert_eq!((other.content_version(), region.stats().unwrap().updates_in_place), (2, 1));
        // SAFETY: canvases stay mapped.
        assert_eq!(unsafe { canvas.as_mut_ptr().cast::<f64>().read() }, 0.5);
        assert!(matches!(writing.values(1), Err(Error::InvalidArgument(_))));
        assert!(matches!(writing.finish(), Err(Error::InvalidArgument(_))));
        assert!(region.verify().ok(), "{:?}", region.verify());
    }
}

#[test]
fn shared_memory_is_copied_and_swapped() {
    for n in [1, 100_000] {
        let region = region();
        let table = put(&region, n);
        let twin = region.put_table("twin", &table, false).unwrap();
        let writing = table.writable(options()).unwrap();
        let expected = change(&writing, n);
        assert_eq!(all(&table), batch(n), "nobody sees it yet");
        writing.finish().unwrap();
        assert_eq!(all(&table), expected);
        assert_eq!(all(&region.get("t").unwrap()), expected);
        assert_eq!(all(&twin), batch(n));
        assert_eq!(region.stats().unwrap().updates_swapped, 1);
        drop(writing);
        drop(twin);
        region.delete("twin").unwrap();
        // The next time it is alone.
        let writing = table.writable(options()).unwrap();
        assert_eq!(change(&writing, n), expected);
        writing.finish().unwrap();
        assert_eq!(all(&table), expected);
        assert!(region.verify().ok(), "{:?}", region.verify());
        drop((table, writing));
        region.delete("t").unwrap();
        region.gc().unwrap();
        assert_eq!(region.stats().unwrap().used, 0);
    }
}

#[test]
fn several_chunks_are_one_run_of_values() {
    for shared in [false, true] {
        let region = region();
        let n = 70_000;
        put(&region, n);
        let more = batch(10);
        let table = region.get("t").unwrap().append(&more.schema(), [Ok(more)], &|| false).unwrap();
        assert_eq!(table.num_chunks(), 2);
        let twin = shared.then(|| region.put_table("twin", &table, false).unwrap());
        let writing = table.writable(options()).unwrap();
        let (f, b) = (writing.values(1).unwrap(), writing.values(2).unwrap());
        store(&f, n as usize - 1, 1.25);
        store(&f, n as usize, 2.25);
        store(&f, n as usize + 9, 3.25);
        store(&b, n as usize + 9, true);
        writing.finish().unwrap();
        let found = all(&table);
        let floats = found.column(1).as_any().downcast_ref::<Float64Array>().unwrap();
        let tail: Vec<f64> = (n - 2..n + 2).map(|row| floats.value(row as usize)).collect();
        assert_eq!(tail, [69_998.0, 1.25, 2.25, 1.0]);
        assert_eq!(floats.value(n as usize + 9), 3.25);
        let bools = found.column(2).as_any().downcast_ref::<BooleanArray>().unwrap();
        assert!(bools.value(n as usize + 9) && bools.null_count() == 14_002);
        if let Some(twin) = twin {
            assert_ne!(all(&twin), found);
        }
        assert!(region.verify().ok(), "{:?}", region.verify());
    }
}

#[test]
fn what_is_given_up_stays_as_it_was_stored_or_is_forgotten() {
    let region = region();
    let table = put(&region, 1_000);
    let writing = table.writable(options()).unwrap();
    let (f, b) = (writing.values(1).unwrap(), writing.values(2).unwrap());
    store(&f, 0, 9.0);
    store(&b, 1, true);
    drop(writing);
    // Stored over the old value; the booleans lay elsewhere still.
    let found = all(&table);
    assert_eq!(found.column(1).as_any().downcast_ref::<Float64Array>().unwrap().value(0), 9.0);
    assert_eq!(found.column(2).as_ref(), batch(1_000).column(2).as_ref());
    assert!(!table.is_poisoned());
    drop(found);

    let _twin = region.put_table("twin", &table, false).unwrap();
    let writing = table.writable(options()).unwrap();
    let f = writing.values(1).unwrap();
    store(&f, 0, 11.0);
    writing.abandon().unwrap();
    let first = all(&table).column(1).as_any().downcast_ref::<Float64Array>().unwrap().value(0);
    assert_eq!(first, 9.0);
    // SAFETY: canvases stay mapped.
    assert_eq!(unsafe { f.as_mut_ptr().cast::<f64>().read() }, 0.0);
    // One that nothing was asked of is no change.
    let (sequence, content) = (table.sequence(), table.content_version());
    table.writable(options()).unwrap().finish().unwrap();
    assert_eq!((table.sequence(), table.content_version()), (sequence, content));
    assert!(region.verify().ok());
}

#[test]
fn readers_are_in_the_way_and_statistics_are_those_of_the_new_values() {
    let region = region();
    let table = put(&region, 100);
    let view = table.column(0).unwrap();
    assert!(matches!(table.writable(options()), Err(Error::LeaseHeld { .. })));
    drop(view);
    let writing = table.writable(options()).unwrap();
    store(&writing.values(0).unwrap(), 1, 1_000_000_i64);
    writing.finish().unwrap();
    let max = region.get("t").unwrap().seen().meta.stats.as_ref().and_then(|stats| stats[0].max);
    assert_eq!(max, Some(1_000_000));
    let result = table.query().slice(0, Some(3)).collect(None, Default::default()).unwrap();
    assert!(matches!(result.writable(options()), Err(Error::Unsupported(_))));
    region.delete("t").unwrap();
    assert!(matches!(table.writable(options()), Err(Error::Stale(_))));
}

/// What is noted of a column: its range as text, and its nulls.
fn noted(table: &Table, column: usize) -> (Option<String>, Option<u64>) {
    let of = table.summaries().unwrap().unwrap().swap_remove(column);
    (of.range.map(|range| format!("{range:?}")), of.nulls)
}

#[test]
fn statistics_of_other_columns_stay_and_those_of_large_ones_go() {
    for (n, shared) in [(100_000, false), (100_000, true), (600_000, false)] {
        let region = region();
        let table = put(&region, n);
        let before = noted(&table, 0);
        let twin = shared.then(|| region.put_table("twin", &table, false).unwrap());
        let writing = table.writable(options()).unwrap();
        let (f, b) = (writing.values(1).unwrap(), writing.values(2).unwrap());
        store(&f, 0, -3.5);
        store(&b, 1, true);
        writing.finish().unwrap();
        assert_eq!(noted(&table, 0), before);
        assert_eq!(noted(&table, 2), (None, Some((n as u64).div_ceil(5))));
        let (range, nulls) = noted(&table, 1);
        if n == 600_000 {
            assert_eq!((range, nulls), (None, None));
        } else {
            let range = range.unwrap();
            assert!(range.contains("-3.5") && range.contains("99999.0"), "{range}");
            assert_eq!(nulls, Some(0));
        }
        drop(twin);
        // What comes behind them knows no more than they do.
        let more = batch(10);
        let table = table.append(&more.schema(), [Ok(more)], &|| false).unwrap();
        assert_eq!(noted(&table, 1).0.is_some(), n != 600_000);
        assert_eq!(noted(&table, 0).0, before.0);
    }
}

#[test]
fn what_was_handed_out_of_a_table_that_is_gone_keeps_its_memory() {
    let region = region();
    let n = 100_000;
    let table = put(&region, n);
    let writing = table.writable(options()).unwrap();
    let f = writing.values(1).unwrap();
    store(&f, 7, 0.25);
    region.delete("t").unwrap();
    assert!(matches!(writing.finish(), Err(Error::Stale(_))));
    drop((writing, table));
    for i in 0..8 {
        let noise = batch(n);
        region.put(&format!("noise {i}"), noise.schema(), [Ok(noise)], false).unwrap();
    }
    // SAFETY: canvases stay mapped.
    let found = unsafe { f.as_mut_ptr().cast::<[f64; 8]>().read() };
    assert_eq!(found, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.25]);
    drop(f);
    region.gc().unwrap();
    for i in 0..8 {
        region.delete(&format!("noise {i}")).unwrap();
    }
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn the_end_waits_for_nobody_to_let_go_of_what_was_written() {
    let region = region();
    let n = 100;
    let table = put(&region, n);
    let patient = UpdateOptions { timeout: Some(Duration::from_secs(60)), ..options() };
    let block = table.exclusive(patient).unwrap();
    // Until it is gone nobody has a table exclusively.
    let reader = Region::open(region.location().unwrap(), true).unwrap();
    let writing = table.writable(options()).unwrap();
    let expected = change(&writing, n);
    let begun = Instant::now();
    writing.finish().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    drop(writing);
    assert_eq!(all(&reader.get("t").unwrap()), expected);
    // The next one in the block asks again, for as long as it is told.
    let impatient = UpdateOptions { timeout: Some(Duration::ZERO), ..options() };
    assert!(matches!(table.writable(impatient), Err(Error::LeaseHeld { .. })));
    drop(reader);
    let writing = table.writable(options()).unwrap();
    assert_eq!(change(&writing, n), expected);
    writing.finish().unwrap();
    drop((writing, block));
    assert_eq!(all(&table), expected);
    let stats = region.stats().unwrap();
    assert_eq!((stats.updates_swapped, stats.updates_in_place), (1, 1));
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn what_fails_half_way_in_a_block_is_poisoned_before_the_block_ends() {
    let region = region();
    let table = put(&region, 1_000);
    let other = Region::open(region.location().unwrap(), false).unwrap();
    let again = other.get("t").unwrap();
    let block = table.exclusive(options()).unwrap();
    let writing = table.writable(options()).unwrap();
    store(&writing.values(0).unwrap(), 3, 7_i64);
    // Booleans are brought to their places at the end.
    store(&writing.values(2).unwrap(), 3, true);
    region.close();
    assert!(matches!(writing.finish(), Err(Error::Stale(_))));
    for _ in 0..2 {
        assert!(again.is_poisoned());
        assert!(matches!(again.to_batches(), Err(Error::Poisoned { .. })));
        assert!(matches!(again.exclusive(options()), Err(Error::Poisoned { .. })));
    }
    again.repair().unwrap();
    assert_eq!(all(&again).num_rows(), 1_000);
    // The block has nothing any more, and takes nothing away.
    let view = again.to_batches().unwrap();
    drop(block);
    assert!(!again.is_poisoned());
    drop(view);
    again.exclusive(options()).unwrap();
    assert!(other.verify().ok(), "{:?}", other.verify());
}
