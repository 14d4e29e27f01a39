//! Building, sealing, discarding.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray,
    Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, StringArray, UInt8Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_select::concat::concat_batches;
use insitu_region::{CreateOptions, Location};

use super::growing::Growing;
use super::*;

fn region() -> Region {
    let options = CreateOptions { capacity: Some(128 << 20), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

fn never() -> bool {
    false
}

fn schema(fields: Vec<(&str, DataType)>) -> SchemaRef {
    let fields = fields.into_iter().map(|(name, dtype)| Field::new(name, dtype, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn rows(rows: u64) -> BuildOptions {
    BuildOptions { rows: Some(rows), ..BuildOptions::default() }
}

/// Stores values of a fixed width.
fn store<T: Copy>(canvas: &Canvas, values: impl IntoIterator<Item = T>) {
    for (row, value) in values.into_iter().enumerate() {
        assert!((row + 1) * size_of::<T>() <= canvas.len());
        // SAFETY: within the canvas, just asserted.
        unsafe { canvas.as_mut_ptr().cast::<T>().add(row).write(value) };
    }
}

fn batch(table: &Table) -> RecordBatch {
    concat_batches(&table.schema(), &table.to_batches().unwrap()).unwrap()
}

#[test]
fn filled_columns_are_what_is_published() {
    // In private memory, in one zone of the region, and in several.
    for n in [0, 1, 7, 100, 5_000, 150_001] {
        let region = region();
        let of = schema(vec![
            ("f", DataType::Float64),
            ("b", DataType::Boolean),
            ("i", DataType::Int32),
            ("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            ("s", DataType::Utf8),
            ("w", DataType::FixedSizeBinary(3)),
            ("nothing", DataType::Null),
            ("d", DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into())),
        ]);
        let builder = region.build("t", of.clone(), rows(n as u64)).unwrap();
        assert!(!region.contains("t").unwrap());
        let float = |i: usize| i as f64 * 0.5 - 3.0;
        store(&builder.values(0).unwrap(), (0..n).map(float));
        store(&builder.values(1).unwrap(), (0..n).map(|i| i % 3 == 0));
        store(&builder.values(2).unwrap(), (0..n).map(|i| i as i32 - 50));
        store(&builder.validity(2).unwrap(), (0..n).map(|i| i % 5 != 0));
        store(&builder.validity(1).unwrap(), (0..n).map(|i| i % 7 != 0));
        store(&builder.values(3).unwrap(), (0..n).map(|i| i as i64));
        // Asked for and left alone: all valid.
        assert_eq!(builder.validity(3).unwrap().len(), n);
        let strings = |k: usize| -> ArrayRef {
            let text = |i: usize| (i % 4 != 1).then(|| format!("ä{}", i * k));
            Arc::new(StringArray::from_iter((0..n).map(text)))
        };
        builder.assign(4, vec![strings(1).to_data()], &never).unwrap();
        builder.assign(4, vec![strings(2).to_data()], &never).unwrap();
        let wide = |i: usize| [i as u8, 1, 2];
        let bytes = FixedSizeBinaryArray::try_from_sparse_iter_with_size(
            (0..n).map(|i| (i % 2 == 0).then(|| wide(i))),
            3,
        );
        let bytes = bytes.unwrap();
        builder.assign(5, vec![bytes.to_data()], &never).unwrap();
        let keys = Int32Array::from_iter((0..n).map(|i| Some((i % 2) as i32)));
        let values = Arc::new(StringArray::from(vec!["x", "y"]));
        let coded = DictionaryArray::<Int32Type>::try_new(keys, values).unwrap();
        builder.assign(7, vec![coded.to_data()], &never).unwrap();
        let table = builder.seal(&never).unwrap();
        assert_eq!((table.num_rows(), table.num_chunks()), (n as u64, 1));
        let found = batch(&table);
        let valid = |i: usize, k: usize| !i.is_multiple_of(k);
        let expected: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from_iter((0..n).map(|i| Some(float(i))))),
            Arc::new(BooleanArray::from_iter((0..n).map(|i| valid(i, 7).then_some(i % 3 == 0)))),
            Arc::new(Int32Array::from_iter((0..n).map(|i| valid(i, 5).then_some(i as i32 - 50)))),
        ];
        for (expected, column) in expected.iter().zip(found.columns()) {
            assert_eq!(expected.as_ref(), column.as_ref(), "{n} rows");
        }
        assert_eq!(found.column(3).null_count(), 0);
        assert_eq!(found.column(4).as_ref(), strings(2).as_ref());
        assert_eq!(found.column(5).as_ref(), &bytes);
        assert_eq!(found.column(6).len(), n);
        assert_eq!(found.column(7).as_ref(), &coded);
        let stats = table.seen().meta.stats.clone().unwrap();
        assert_eq!(stats[2].null_count, Some(n.div_ceil(5) as u64));
        if n > 1 {
            assert_eq!((stats[2].min, stats[2].max.unwrap() > 0), (Some(-49), n >= 100));
            assert_eq!(stats[4].null_count, Some((0..n).filter(|i| i % 4 == 1).count() as u64));
        }
        region.forget_manifests();
        assert_eq!(batch(&region.get("t").unwrap()), found);
        assert!(region.verify().ok(), "{:?}", region.verify());
        assert_eq!(builder.table().unwrap().num_rows(), n as u64);
        assert!(matches!(builder.values(0), Err(Error::InvalidArgument(_))));
        assert!(matches!(builder.seal(&never), Err(Error::InvalidArgument(_))));
    }
}

#[test]
fn the_canvas_is_the_published_memory_and_keeps_it() {
    let region = region();
    let n = 100_000;
    let builder = region.build("t", schema(vec![("f", DataType::Float64)]), rows(n)).unwrap();
    let canvas = builder.values(0).unwrap();
    store(&canvas, (0..n).map(|i| i as f64));
    let table = builder.seal(&never).unwrap();
    let column = table.column(0).unwrap().remove(0);
    assert_eq!(column.as_any().downcast_ref::<Float64Array>().unwrap().value(99_999), 99_999.0);
    // One copy of the values, and little else.
    assert!(region.stats().unwrap().used <= n * 8 + (3 << 16));
    assert_eq!(region.stats().unwrap().copies, 0);
    drop((table, column, builder));
    region.delete("t").unwrap();
    assert!(region.stats().unwrap().used >= n * 8, "the canvas keeps what it shows");
    drop(canvas);
    // Unpinning may leave the freeing to the next writer.
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn what_is_discarded_is_free_at_once_and_shows_zeros() {
    let region = region();
    for n in [10, 100_000] {
        let builder = region.build("t", schema(vec![("i", DataType::Int64)]), rows(n)).unwrap();
        let canvas = builder.values(0).unwrap();
        store(&canvas, std::iter::repeat_n(7_i64, n as usize));
        builder.discard().unwrap();
        assert_eq!(region.stats().unwrap().used, 0);
        // SAFETY: canvases stay mapped.
        assert_eq!(unsafe { canvas.as_mut_ptr().read() }, 0);
        assert!(matches!(builder.values(0), Err(Error::Stale(_))));
        assert!(matches!(builder.seal(&never), Err(Error::Stale(_))));
        assert!(builder.table().is_none() && !builder.is_open());
        let appending =
            region.build("t", schema(vec![("i", DataType::Int64)]), BuildOptions::default());
        append(appending.as_ref().unwrap(), vec![Arc::new(Int64Array::from_iter(0..300_000))])
            .unwrap();
        assert!(region.stats().unwrap().used > 0);
        drop(appending);
        assert_eq!(region.stats().unwrap().used, 0);
        assert!(!region.contains("t").unwrap());
    }
}

#[test]
fn unwritten_rows_can_be_zero() {
    let region = region();
    let junk = region.shared.allocate(1 << 20).unwrap();
    // SAFETY: the extent has a mebibyte.
    unsafe { junk.as_mut_ptr().write_bytes(0xEE, 1 << 20) };
    drop(junk);
    for n in [100, 100_000] {
        let options = BuildOptions { zero: true, ..rows(n) };
        let of = schema(vec![("i", DataType::Int64), ("b", DataType::Boolean)]);
        let builder = region.build("t", of, options).unwrap();
        let found = batch(&builder.seal(&never).unwrap());
        assert_eq!(found.column(0).as_ref(), &Int64Array::from(vec![0; n as usize]));
        assert_eq!(found.column(1).as_ref(), &BooleanArray::from(vec![false; n as usize]));
        region.delete("t").unwrap();
    }
}

#[test]
fn nulls_leave_no_stale_bytes_and_are_refused_where_none_may_be() {
    let region = region();
    let field = |nullable| Arc::new(Schema::new(vec![Field::new("i", DataType::Int64, nullable)]));
    let builder = region.build("t", field(true), rows(3)).unwrap();
    store(&builder.values(0).unwrap(), [1_i64, 2, 3]);
    store(&builder.validity(0).unwrap(), [true, false, true]);
    let column = builder.seal(&never).unwrap().column(0).unwrap().remove(0);
    assert_eq!(column.as_any().downcast_ref::<Int64Array>().unwrap().values()[1], 0);
    let builder = region.build("u", field(false), rows(3)).unwrap();
    store(&builder.validity(0).unwrap(), [true, true, false]);
    let refused = builder.seal(&never).unwrap_err();
    assert!(refused.to_string().contains("row 2"), "{refused}");
    assert!(!region.contains("u").unwrap());
}

#[test]
fn taken_names_and_wrong_shapes_are_refused() {
    let region = region();
    let of = || schema(vec![("i", DataType::Int64), ("s", DataType::Utf8)]);
    let first = region.build("t", of(), BuildOptions::default()).unwrap();
    let second = region.build("t", of(), BuildOptions::default()).unwrap();
    first.seal(&never).unwrap();
    assert!(matches!(second.seal(&never), Err(Error::TableExists { .. })));
    assert!(matches!(region.build("t", of(), rows(1)), Err(Error::TableExists { .. })));
    let replacing = BuildOptions { replace: true, ..rows(2) };
    let builder = region.build("t", of(), replacing).unwrap();
    let strings = StringArray::from(vec!["a", "b", "c"]);
    let short = builder.assign(1, vec![strings.to_data()], &never);
    assert!(matches!(short, Err(Error::ShapeMismatch(_))));
    let wrong = builder.assign(0, vec![strings.slice(0, 2).to_data()], &never);
    assert!(matches!(wrong, Err(Error::TypeMismatch(_))));
    assert!(matches!(builder.values(1), Err(Error::TypeMismatch(_))));
    assert!(matches!(builder.column_index("ii"), Err(Error::UnknownColumn { .. })));
    assert!(matches!(append(&builder, vec![]), Err(Error::InvalidArgument(_))));
    // A column of strings was never assigned.
    assert!(matches!(builder.seal(&never), Err(Error::ShapeMismatch(_))));
    assert_eq!(region.get("t").unwrap().num_rows(), 0);
    let twice = schema(vec![("i", DataType::Int64), ("i", DataType::Int64)]);
    assert!(matches!(region.build("v", twice, rows(1)), Err(Error::InvalidArgument(_))));
}

fn append(builder: &Builder, columns: Vec<ArrayRef>) -> Result<()> {
    let schema = builder.schema().clone();
    if columns.is_empty() {
        return builder.append(&schema, [], &never);
    }
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    builder.append(&schema, [Ok(batch)], &never)
}

/// One column of each kind, `n` rows from row `start` on.
fn all_kinds(start: usize, n: usize) -> Vec<ArrayRef> {
    let rows = start..start + n;
    let some = |i: usize, k: usize| !i.is_multiple_of(k);
    vec![
        Arc::new(Float64Array::from_iter(rows.clone().map(|i| some(i, 9).then_some(i as f64)))),
        Arc::new(UInt8Array::from_iter(rows.clone().map(|i| Some(i as u8)))),
        Arc::new(BooleanArray::from_iter(rows.clone().map(|i| some(i, 4).then_some(i % 3 == 0)))),
        Arc::new(StringArray::from_iter(
            rows.clone().map(|i| some(i, 6).then(|| "é".repeat(i % 5) + &i.to_string())),
        )),
        Arc::new(LargeStringArray::from_iter(rows.clone().map(|i| Some("z".repeat(i % 11))))),
        Arc::new(BinaryArray::from_iter(rows.clone().map(|i| Some(vec![i as u8; i % 3])))),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
            rows.clone().map(|i| some(i, 8).then(|| vec![Some(i as i32); i % 4])),
        )),
        Arc::new(
            rows.clone()
                .map(|i| some(i, 10).then(|| ["a", "b", "c", "d"][(i + start) % 4]))
                .collect::<DictionaryArray<Int32Type>>(),
        ),
    ]
}

#[test]
fn appended_batches_become_one_chunk() {
    let region = region();
    let of = Arc::new(Schema::new(
        all_kinds(0, 1)
            .iter()
            .enumerate()
            .map(|(i, column)| Field::new(format!("c{i}"), column.data_type().clone(), true))
            .collect::<Vec<_>>(),
    ));
    let builder = region.build("t", of.clone(), BuildOptions::default()).unwrap();
    let mut batches = Vec::new();
    let mut row = 0;
    for n in [3, 61, 1, 70_000, 64, 200_003, 5] {
        // Slices, too: nothing says that an array begins at its buffers' start.
        let columns = all_kinds(row, n + 2).iter().map(|c| c.slice(1, n)).collect::<Vec<_>>();
        batches.push(RecordBatch::try_new(of.clone(), columns.clone()).unwrap());
        append(&builder, columns).unwrap();
        row += n;
        assert_eq!(builder.num_rows(), row as u64);
    }
    let table = builder.seal(&never).unwrap();
    assert_eq!((table.num_rows(), table.num_chunks()), (row as u64, 1));
    let expected = concat_batches(&of, &batches).unwrap();
    let found = batch(&table);
    for (i, (found, expected)) in found.columns().iter().zip(expected.columns()).enumerate() {
        assert_eq!(found.to_data(), expected.to_data(), "column {i}");
    }
    assert!(region.verify().ok(), "{:?}", region.verify());
    region.forget_manifests();
    let again = region.get("t").unwrap();
    let stats = again.seen().meta.stats.clone().unwrap();
    assert_eq!((stats[1].min, stats[1].max), (Some(0), Some(255)));
    for (stats, column) in stats.iter().zip(expected.columns()) {
        assert_eq!(stats.null_count, Some(column.null_count() as u64));
    }
    // The same data put in has the same statistics.
    let put = region.put("u", of, batches.into_iter().map(Ok), false).unwrap();
    assert_eq!(put.seen().meta.stats, again.seen().meta.stats);
    drop((table, again, put, found, builder));
    region.delete("t").unwrap();
    region.delete("u").unwrap();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn nothing_appended_is_an_empty_table() {
    let region = region();
    let of = schema(vec![("s", DataType::Utf8), ("i", DataType::Int64), ("n", DataType::Null)]);
    let builder = region.build("t", of.clone(), BuildOptions::default()).unwrap();
    append(&builder, vec![]).unwrap();
    let table = builder.seal(&never).unwrap();
    assert_eq!((table.num_rows(), batch(&table).num_rows()), (0, 0));
    region.forget_manifests();
    assert_eq!(region.get("t").unwrap().num_rows(), 0);
}

#[test]
fn a_batch_that_fails_leaves_those_before_it() {
    let region = region();
    let fields =
        vec![Field::new("s", DataType::Utf8, true), Field::new("i", DataType::Int64, false)];
    let of = Arc::new(Schema::new(fields));
    let builder = region.build("t", of.clone(), BuildOptions::default()).unwrap();
    let text =
        |n: usize| Arc::new(StringArray::from_iter((0..n).map(|i| (i % 2 == 0).then_some("x"))));
    append(&builder, vec![text(3), Arc::new(Int64Array::from(vec![1, 2, 3]))]).unwrap();
    // The declared schema has no nulls, the batch has one: known only when it is looked at.
    let loose = Arc::new(Schema::new(vec![
        Field::new("s", DataType::Utf8, true),
        Field::new("i", DataType::Int64, true),
    ]));
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let bad = RecordBatch::try_new(loose.clone(), vec![text(2), nulls]).unwrap();
    let refused = builder.append(&loose, [Ok(bad)], &never).unwrap_err();
    assert!(matches!(&refused, Error::InvalidData(text) if text.contains("row 1")), "{refused}");
    append(&builder, vec![text(2), Arc::new(Int64Array::from(vec![4, 5]))]).unwrap();
    let table = builder.seal(&never).unwrap();
    assert_eq!(table.column(0).unwrap()[0].null_count(), 2, "as it is counted in the manifest");
    let found = batch(&table);
    assert_eq!(found.column(1).as_ref(), &Int64Array::from(vec![1, 2, 3, 4, 5]));
    let strings = StringArray::from(vec![Some("x"), None, Some("x"), Some("x"), None]);
    assert_eq!(found.column(0).as_ref(), &strings);
}

#[test]
fn offsets_that_would_overflow_begin_another_chunk() {
    let region = region();
    let of = schema(vec![("s", DataType::Utf8), ("i", DataType::Int64)]);
    let mut growing = Growing::new(&region.shared, &of).unwrap().with_limit(10);
    for n in [4, 5, 3, 10, 1] {
        let text = StringArray::from(vec!["x"; n]);
        let numbers = Int64Array::from_iter(0..n as i64);
        growing.append(&region, &[text.to_data(), numbers.to_data()], n, &never).unwrap();
    }
    let made = growing.seal(&region, &never).unwrap();
    let rows: Vec<u64> = made.layout.chunks.iter().map(|chunk| chunk.rows).collect();
    assert_eq!(rows, [9, 3, 10, 1]);
    let builder = region.build("t", of, BuildOptions::default()).unwrap();
    let found = batch(&builder.publish(made).unwrap());
    assert_eq!(
        found.column(1).as_ref(),
        &Int64Array::from_iter((0..4).chain(0..5).chain(0..3).chain(0..10).chain(0..1))
    );
}

#[test]
fn a_full_region_says_so_and_the_builder_can_go_on() {
    let options = CreateOptions { capacity: Some(16 << 20), ..CreateOptions::default() };
    let region = Region::create(Location::Memfd, options).unwrap();
    let of = schema(vec![("i", DataType::Int64), ("s", DataType::Utf8)]);
    let columns = |n: usize| -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from_iter(0..n as i64)),
            Arc::new(StringArray::from_iter_values((0..n).map(|i| i.to_string()))),
        ]
    };
    let builder = region.build("t", of, BuildOptions::default()).unwrap();
    append(&builder, columns(200_000)).unwrap();
    assert!(matches!(append(&builder, columns(2_000_000)), Err(Error::RegionFull { .. })));
    append(&builder, columns(1_000)).unwrap();
    let table = builder.seal(&never).unwrap();
    assert_eq!(table.num_rows(), 201_000);
    let found = batch(&table);
    let strings = found.column(1).as_any().downcast_ref::<StringArray>().unwrap();
    assert_eq!((strings.value(199_999), strings.value(200_000)), ("199999", "0"));
    assert!(matches!(
        region.build("u", schema(vec![("i", DataType::Int64)]), rows(1 << 40)),
        Err(Error::RegionFull { .. })
    ));
    assert!(region.build("u", schema(vec![("i", DataType::Int64)]), rows(u64::MAX)).is_err());
}
