//! Exported arrays are views of the region's read-only mapping, and outlive every handle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::*;
use common::region;
use insitu::{Region, Table};

fn numbers(from: i64, len: i64) -> RecordBatch {
    let words: Vec<String> = (from..from + len).map(|i| format!("word {i}")).collect();
    RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from_iter_values(from..from + len)) as ArrayRef),
        ("s", Arc::new(StringArray::from(words)) as ArrayRef),
    ])
    .unwrap()
}

fn addresses(table: &Table) -> Vec<*const u8> {
    let batches = table.to_batches().unwrap();
    let columns = batches.iter().flat_map(|b| b.columns().to_vec());
    columns
        .flat_map(|c| c.to_data().buffers().iter().map(|b| b.as_ptr()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn views_point_into_the_region_and_nobody_copies() {
    let region = region();
    let batch = numbers(0, 1000);
    let table = region.put("t", batch.schema(), vec![Ok(batch)], false).unwrap();
    let first = addresses(&table);
    assert_eq!(first, addresses(&table), "twice the same");
    assert_eq!(first, addresses(&region.get("t").unwrap()), "and by name");
    for address in first {
        assert_eq!(address.addr() % 64, 0);
        assert!(is_mapped_read_only(address), "exports are read-only at the page level");
    }
}

/// What the kernel says about the page at an address.
fn is_mapped_read_only(address: *const u8) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let parse = |hex| usize::from_str_radix(hex, 16).unwrap();
        (parse(from)..parse(to)).contains(&address.addr())
    });
    let line = line.expect("mapped");
    line.split_whitespace().nth(1) == Some("r--s")
}

#[test]
fn views_outlive_delete_replace_close_and_all_handles() {
    let region = region();
    let batch = numbers(5, 300);
    let table = region.put("t", batch.schema(), vec![Ok(batch.clone())], false).unwrap();
    let views = table.to_batches().unwrap();
    let other = numbers(-7, 300);
    region.put("t", other.schema(), vec![Ok(other)], true).unwrap();
    region.delete("t").unwrap();
    drop(table);
    // Whoever recycled the memory would write over it.
    for i in 0..8 {
        let noise = numbers(1000 * i, 300);
        region.put(&format!("noise {i}"), noise.schema(), vec![Ok(noise)], false).unwrap();
    }
    region.close();
    drop(region);
    assert_eq!(views, [batch]);
}

#[test]
fn a_closed_region_and_its_tables_are_stale() {
    let region = region();
    let batch = numbers(0, 10);
    let table = region.put("t", batch.schema(), vec![Ok(batch)], false).unwrap();
    region.close();
    region.close();
    assert!(region.is_closed());
    for code in [
        region.names().unwrap_err().code(),
        region.get("t").unwrap_err().code(),
        table.to_batches().unwrap_err().code(),
        table.query().collect(None, Default::default()).unwrap_err().code(),
    ] {
        assert_eq!(code, insitu::ErrorCode::Stale);
    }
}

#[test]
fn threads_put_get_and_delete_at_once() {
    let region = region();
    std::thread::scope(|scope| {
        for thread in 0..4i64 {
            let region = region.clone();
            scope.spawn(move || {
                for round in 0..50 {
                    let own = format!("own {thread}");
                    let batch = numbers(1000 * thread + round, 100);
                    region.put(&own, batch.schema(), vec![Ok(batch.clone())], true).unwrap();
                    assert_eq!(region.get(&own).unwrap().to_batches().unwrap()[0], batch);
                    region.put("shared", batch.schema(), vec![Ok(batch)], true).unwrap();
                    // Whoever wrote it, it is whole.
                    let found = region.get("shared").unwrap().to_batches().unwrap();
                    let first = found[0].column(0).as_primitive::<arrow_array::types::Int64Type>();
                    let first = first.value(0);
                    assert_eq!(found, [numbers(first, 100)]);
                }
                region.delete(&format!("own {thread}")).unwrap();
            });
        }
    });
    assert_eq!(region.names().unwrap(), ["shared"]);
    assert!(region.verify().ok(), "{:?}", region.verify().problems);
}

#[test]
fn a_table_under_a_second_name_shares_its_bytes() {
    let region = region();
    let batch = numbers(0, 100);
    let table = region.put("a", batch.schema(), vec![Ok(batch.clone())], false).unwrap();
    let again = region.put_table("b", &table, false).unwrap();
    assert_eq!(addresses(&table), addresses(&again));
    region.delete("a").unwrap();
    drop(table);
    region.gc().unwrap();
    assert_eq!(region.get("b").unwrap().to_batches().unwrap(), [batch]);
    assert_eq!(region.stats().unwrap().copies, 0);
}

#[test]
fn a_table_shares_its_bytes_whichever_handle_of_its_region_it_came_from() {
    let region = region();
    let batch = numbers(0, 10_000);
    let table = region.put("a", batch.schema(), vec![Ok(batch.clone())], false).unwrap();
    let writer = Region::open(region.location().unwrap(), false).unwrap();
    let again = writer.put_table("b", &table, false).unwrap();
    assert_eq!(addresses(&table), addresses(&again));
    // A result that has no name, but memory of its own.
    let result = writer.get("a").unwrap().query().filter(vec![]).collect(None, Default::default());
    let named = region.put_table("result", &result.unwrap(), false).unwrap();
    assert_eq!(named.to_batches().unwrap(), std::slice::from_ref(&batch));

    // A handle that only reads has a session, and so a mapping, of its own.
    let reader = Region::open(region.location().unwrap(), true).unwrap();
    let read = reader.get("a").unwrap();
    let third = region.put_table("c", &read, false).unwrap();
    assert_eq!(addresses(&table), addresses(&third));
    assert_eq!(region.stats().unwrap().copies + writer.stats().unwrap().copies, 0);

    // The name stands for another table: what the reader still has is copied.
    let other = numbers(5, 10);
    region.put("a", other.schema(), vec![Ok(other)], true).unwrap();
    let fourth = region.put_table("d", &read, false).unwrap();
    assert_eq!(fourth.to_batches().unwrap(), [batch]);
    assert_eq!(region.stats().unwrap().copies, 1);
}
