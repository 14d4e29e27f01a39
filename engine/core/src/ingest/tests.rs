//! Tables of several chunks, which 32-bit offsets make from 2 GiB on; here from a few bytes on.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_data::ArrayData;
use insitu_query::Expr;
use insitu_region::{CreateOptions, Location};

use super::*;
use crate::query::CollectOptions;
use crate::region::Region;
use crate::storage::{Anonymous, Storage};
use crate::table::Table;

fn batch(from: i64, len: i64) -> RecordBatch {
    let words = (from..from + len).map(|i| (i % 5 != 0).then(|| "w".repeat((i % 9) as usize)));
    let coded = (from..from + len).map(|i| Some(["x", "y", "z"][(i % 3) as usize]));
    let lists = (from..from + len).map(|i| (i % 4 != 0).then(|| vec![Some(i), None]));
    RecordBatch::try_from_iter([
        (
            "n",
            Arc::new(Int64Array::from_iter((from..from + len).map(|i| (i % 7 != 0).then_some(i))))
                as ArrayRef,
        ),
        ("s", Arc::new(StringArray::from_iter(words)) as ArrayRef),
        ("d", Arc::new(DictionaryArray::<Int8Type>::from_iter(coded)) as ArrayRef),
        ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)) as ArrayRef),
    ])
    .unwrap()
}

/// A table of these batches, cut where strings or lists exceed `limit`.
fn put(region: &Region, batches: &[RecordBatch], limit: u64) -> Table {
    let schema = batches[0].schema();
    let columns: Vec<Vec<ArrayData>> = (0..schema.fields().len())
        .map(|i| batches.iter().map(|b| b.column(i).to_data()).collect())
        .collect();
    let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    let made =
        ingest_columns(&region.shared, &schema, &columns, &rows, Cut::Above(limit), &|| false)
            .unwrap();
    let extents = made.extents.into_iter().map(Arc::new).collect();
    let keep = Anonymous { extents, ..Anonymous::default() };
    region.publish("t", schema, made.layout, Some(made.stats), &keep, true).unwrap()
}

fn region() -> Region {
    let options = CreateOptions { capacity: Some(32 << 20), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

#[test]
fn strings_past_the_limit_start_a_new_chunk_and_lose_nothing() {
    let region = region();
    let batches: Vec<RecordBatch> = (0..6).map(|i| batch(100 * i, 100)).collect();
    let table = put(&region, &batches, 900);
    // A hundred rows have some 320 bytes of text: two batches fit a chunk, three do not.
    assert_eq!(table.num_chunks(), 3);
    let again = region.get("t").unwrap();
    for table in [&table, &again] {
        let found = table.to_batches().unwrap();
        for (chunk, pair) in found.iter().zip(batches.chunks(2)) {
            for column in chunk.columns() {
                column.to_data().validate_full().unwrap();
            }
            assert_eq!(chunk.slice(0, 100), pair[0]);
            assert_eq!(chunk.slice(100, 100), pair[1]);
        }
    }
    // A batch that exceeds the limit alone is a chunk alone.
    assert_eq!(put(&region, &batches, 10).num_chunks(), 6);
    assert_eq!(put(&region, &batches, 1 << 31).num_chunks(), 1);
}

#[test]
fn new_columns_beside_several_chunks_are_cut_alike() {
    let region = region();
    let batches: Vec<RecordBatch> = [100, 37, 64, 200].iter().map(|n| batch(*n, *n)).collect();
    let table = put(&region, &batches, 10);
    assert_eq!(table.num_chunks(), 4);
    let n = Expr::column("n");
    let query = table
        .query()
        .with_columns(vec![(n.clone() * 2).alias("twice"), n.clone().gt(50).alias("large")]);
    for name in [None, Some("named")] {
        let result = query.collect(name, CollectOptions::default()).unwrap();
        let found = result.to_batches().unwrap();
        assert_eq!(found.len(), 4);
        for (found, batch) in found.iter().zip(&batches) {
            for name in ["n", "s", "d", "l"] {
                assert_eq!(found.column_by_name(name), batch.column_by_name(name));
            }
            let n = batch.column(0).as_primitive::<Int64Type>();
            let twice = found.column_by_name("twice").unwrap().as_primitive::<Int64Type>();
            let large = found.column_by_name("large").unwrap().as_boolean();
            for row in 0..batch.num_rows() {
                let value = n.is_valid(row).then(|| n.value(row));
                assert_eq!(twice.is_valid(row).then(|| twice.value(row)), value.map(|v| v * 2));
                assert_eq!(large.is_valid(row).then(|| large.value(row)), value.map(|v| v > 50));
            }
        }
    }
    assert!(region.stats().unwrap().copies >= 2);
}

#[test]
fn statistics_reach_another_handle_through_the_region() {
    let region = region();
    let rows = 3 * 65_536 + 17;
    let values = Int32Array::from_iter((0..rows).map(|i| (i % 10 != 3).then_some(i - 1000)));
    let flags = BooleanArray::from_iter((0..rows).map(|i| (i % 4 != 0).then_some(i % 2 == 0)));
    let floats = Float64Array::from_iter_values((0..rows).map(f64::from));
    let batch = RecordBatch::try_from_iter([
        ("i", Arc::new(values) as ArrayRef),
        ("b", Arc::new(flags) as ArrayRef),
        ("f", Arc::new(floats) as ArrayRef),
    ])
    .unwrap();
    // In pieces that do not meet the zones' ends.
    let batches = (0..)
        .map(|i| i * 50_001)
        .take_while(|at| *at < batch.num_rows())
        .map(|at| Ok(batch.slice(at, 50_001.min(batch.num_rows() - at))));
    let put = region.put("t", batch.schema(), batches.collect::<Vec<_>>(), false).unwrap();
    let own = put.seen().meta.stats.clone().unwrap();
    region.forget_manifests();
    let read = region.get("t").unwrap().seen().meta.stats.clone().unwrap();
    assert_eq!(read, own);
    assert_eq!((own[0].min, own[0].max), (Some(-1000), Some(i64::from(rows) - 1001)));
    assert_eq!(own[0].null_count, Some((0..rows).filter(|i| i % 10 == 3).count() as u64));
    assert_eq!(own[1].null_count, Some((0..rows).filter(|i| i % 4 == 0).count() as u64));
    assert_eq!((own[1].min, own[2].min, own[2].null_count), (None, None, Some(0)));
}

#[test]
fn what_is_put_does_not_depend_on_the_number_of_threads() {
    // Batches that end inside bytes of bitmaps and inside zones.
    let batches: Vec<RecordBatch> = [70_001, 3, 200_000, 64, 131_072]
        .into_iter()
        .scan(0, |from, len| {
            *from += len;
            Some((*from - len, len))
        })
        .map(|(from, len)| {
            let range = from..from + len;
            let floats = range.clone().map(|i| (i % 11 != 0).then_some((i * 7919 % 1000) as f64));
            let words = range.clone().map(|i| (i % 5 != 0).then(|| format!("é{}", i % 977)));
            let fixed = range.clone().map(|i| [i as u8, (i >> 8) as u8, 7]);
            RecordBatch::try_from_iter([
                ("f", Arc::new(Float64Array::from_iter(floats)) as ArrayRef),
                ("n", Arc::new(Int64Array::from_iter_values(range.clone())) as ArrayRef),
                ("s", Arc::new(StringArray::from_iter(words)) as ArrayRef),
                ("b", Arc::new(BooleanArray::from_iter(range.map(|i| Some(i % 3 == 0))))),
                ("x", Arc::new(FixedSizeBinaryArray::try_from_iter(fixed).unwrap())),
            ])
            .unwrap()
        })
        .collect();
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    for threads in [1, 2, 5] {
        insitu_query::set_threads(threads);
        let region = region();
        let table = put(&region, &batches, 1 << 31);
        let Storage::Named(pin) = &table.seen().storage else { panic!("it has a name") };
        let (offset, len) = pin.extents().unwrap()[0];
        let at = pin.slice(offset, len).unwrap();
        // SAFETY: the pin keeps the extent, and nobody writes it.
        bytes.push(unsafe { std::slice::from_raw_parts(at, len as usize) }.to_vec());
        found.push(table.to_batches().unwrap());
    }
    insitu_query::set_threads(0);
    // The whole extent: values, padding and statistics.
    assert!(bytes[0] == bytes[1] && bytes[0] == bytes[2]);
    for found in found {
        let mut row = 0;
        for batch in &batches {
            // Not the schemas: a batch without nulls says so.
            assert_eq!(found[0].slice(row, batch.num_rows()).columns(), batch.columns());
            row += batch.num_rows();
        }
    }
}
