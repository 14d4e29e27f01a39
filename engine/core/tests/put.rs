//! What is put comes back as it was, whatever its type, slices and batches; what is not valid
//! Arrow is refused and leaves the region as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::*;
use common::{Random, region, types};
use insitu::{Error, ErrorCode, Region, Table};

fn put(region: &Region, name: &str, batches: &[RecordBatch]) -> insitu::Result<Table> {
    let schema = batches[0].schema();
    region.put(name, schema, batches.iter().cloned().map(Ok), false)
}

/// The batches' rows equal the table's, which are valid Arrow.
fn assert_same(table: &Table, batches: &[RecordBatch]) {
    let found = table.to_batches().unwrap();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(table.num_rows(), rows as u64);
    assert_eq!(found.len(), 1, "a put gives one chunk");
    let found = &found[0];
    assert_eq!(found.schema(), batches[0].schema());
    for column in found.columns() {
        column.to_data().validate_full().unwrap();
    }
    let mut start = 0;
    for batch in batches {
        for (index, column) in batch.columns().iter().enumerate() {
            let slice = found.column(index).slice(start, batch.num_rows());
            assert_eq!(&slice, column, "column {index} from row {start} on");
        }
        start += batch.num_rows();
    }
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[test]
fn every_type_comes_back_from_one_batch() {
    let region = region();
    for (n, dtype) in types().iter().enumerate() {
        for (seed, len) in [(1, 0), (2, 1), (3, 100), (4, 1000), (5, 70_000)] {
            let array = Random::new(seed + 100 * n as u64).array(dtype, len, true);
            let batches = [batch(vec![array])];
            let name = format!("{n}-{seed}");
            assert_same(&put(&region, &name, &batches).unwrap(), &batches);
            assert_same(&region.get(&name).unwrap(), &batches);
        }
    }
    assert!(region.verify().ok(), "{:?}", region.verify().problems);
}

#[test]
fn every_type_comes_back_from_many_sliced_batches() {
    let region = region();
    for (n, dtype) in types().iter().enumerate() {
        for seed in 0..4 {
            let mut random = Random::new(seed + 1000 * n as u64);
            let batches: Vec<RecordBatch> = (0..1 + random.below(6))
                .map(|_| {
                    let len = random.below(300);
                    let start = random.below(20);
                    let whole = random.array(dtype, len + start + 5, true);
                    batch(vec![whole.slice(start, len)])
                })
                .collect();
            if batches.iter().all(|b| b.num_rows() == 0) {
                continue;
            }
            let name = format!("{n}-{seed}");
            assert_same(&put(&region, &name, &batches).unwrap(), &batches);
        }
    }
}

#[test]
fn all_types_beside_each_other_come_back() {
    let region = region();
    let mut random = Random::new(7);
    let batches: Vec<RecordBatch> = [3, 130, 64]
        .iter()
        .map(|len| batch(types().iter().map(|d| random.array(d, *len, true)).collect()))
        .collect();
    assert_same(&put(&region, "all", &batches).unwrap(), &batches);
    assert_same(&region.get("all").unwrap(), &batches);
}

#[test]
fn nan_infinities_and_negative_zero_keep_their_bits() {
    let region = region();
    let odd = f64::from_bits(0x7ff8_0000_dead_beef);
    let values = vec![f64::NAN, odd, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1e-310];
    let array: ArrayRef = Arc::new(Float64Array::from(values.clone()));
    let table = put(&region, "t", &[batch(vec![array])]).unwrap();
    let found = table.column(0).unwrap();
    let found: Vec<u64> =
        found[0].as_primitive::<Float64Type>().values().iter().map(|v| v.to_bits()).collect();
    assert_eq!(found, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
}

#[test]
fn tables_without_rows_or_columns_are_tables() {
    let region = region();
    let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8, true)]));
    let none = region.put("no batches", schema.clone(), Vec::new(), false).unwrap();
    assert_eq!((none.num_rows(), none.schema()), (0, schema));
    assert_eq!(none.to_batches().unwrap()[0].num_rows(), 0);

    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let empty = Arc::new(Schema::empty());
    let batch = RecordBatch::try_new_with_options(empty.clone(), vec![], &options).unwrap();
    region.put("no columns", empty, vec![Ok(batch)], false).unwrap();
    let found = region.get("no columns").unwrap();
    assert_eq!(found.num_rows(), 5);
    assert_eq!(found.to_batches().unwrap()[0].num_rows(), 5);
}

#[test]
fn dictionaries_that_differ_are_unified() {
    let region = region();
    let make = |values: &[&str], keys: &[Option<i8>]| -> ArrayRef {
        let keys = Int8Array::from(keys.to_vec());
        let values = StringArray::from(values.to_vec());
        Arc::new(DictionaryArray::new(keys, Arc::new(values)))
    };
    let batches = [
        batch(vec![make(&["a", "b"], &[Some(0), Some(1), None])]),
        batch(vec![make(&["b", "c", "a"], &[Some(0), Some(1), Some(2)])]),
        batch(vec![make(&["a", "b", "d"], &[Some(2), None, Some(0)])]),
    ];
    let table = put(&region, "t", &batches).unwrap();
    assert_same(&table, &batches);
    let column = table.column(0).unwrap();
    let values = column[0].as_dictionary::<Int8Type>().values().clone();
    assert_eq!(
        values.as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
        ["a", "b", "c", "d"]
    );
    assert!(region.stats().unwrap().copies > 0);
}

#[test]
fn dictionaries_that_outgrow_their_keys_are_refused() {
    let region = region();
    let make = |from: i32| -> RecordBatch {
        let values: Vec<String> = (from..from + 100).map(|i| i.to_string()).collect();
        let keys = Int8Array::from((0..100).collect::<Vec<i8>>());
        batch(vec![Arc::new(DictionaryArray::new(keys, Arc::new(StringArray::from(values))))])
    };
    let error = put(&region, "t", &[make(0), make(100)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LimitExceeded);
    assert!(error.to_string().contains("c0"), "{error}");
}

#[test]
fn types_that_are_not_stored_are_refused_by_name() {
    let region = region();
    let runs = RunArray::<Int32Type>::from_iter([Some("a"), Some("a"), None]);
    let error = put(&region, "t", &[batch(vec![Arc::new(runs)])]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(error.to_string().contains("c0"), "{error}");
    assert!(region.names().unwrap().is_empty());
}

#[test]
fn a_taken_name_is_refused_unless_replaced() {
    let region = region();
    let of = |v: i64| [batch(vec![Arc::new(Int64Array::from(vec![v]))])];
    let old = put(&region, "t", &of(1)).unwrap();
    assert!(matches!(put(&region, "t", &of(2)), Err(Error::TableExists { .. })));
    let [new] = of(2);
    region.put("t", new.schema(), vec![Ok(new.clone())], true).unwrap();
    assert_same(&old, &of(1));
    assert_same(&region.get("t").unwrap(), &of(2));
    assert!(!old.is_current());
    assert_same(&old.latest().unwrap(), &of(2));
}

/// An array that arrow-rs never checked, as one that came through the C interface.
fn unchecked(
    dtype: DataType,
    len: usize,
    buffers: Vec<Buffer>,
    nulls: Option<NullBuffer>,
    children: Vec<ArrayData>,
) -> RecordBatch {
    let mut builder = ArrayData::builder(dtype).len(len).nulls(nulls).child_data(children);
    for buffer in buffers {
        builder = builder.add_buffer(buffer);
    }
    // SAFETY: nothing but the engine's own checks looks at it.
    batch(vec![make_array(unsafe { builder.build_unchecked() })])
}

fn refused(batches: &[RecordBatch], row: Option<u64>) {
    let region = region();
    let good: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let before = put(&region, "good", &[batch(vec![good.clone()])]).unwrap();
    let used = region.stats().unwrap().used;
    let error = put(&region, "bad", batches).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidData, "{error}");
    assert!(error.to_string().contains("\"c0\""), "{error}");
    if let Some(row) = row {
        assert!(error.to_string().contains(&format!("row {row}")), "{error}");
    }
    assert_eq!(region.names().unwrap(), ["good"]);
    assert_eq!(region.stats().unwrap().used, used, "the extent was given back");
    assert_same(&before, &[batch(vec![good])]);
}

#[test]
fn bad_strings_are_refused() {
    let offsets = |v: &[i32]| Buffer::from_slice_ref(v);
    let text = |v: &[u8]| Buffer::from_slice_ref(v);
    let of = |o: &[i32], t: &[u8]| {
        unchecked(DataType::Utf8, o.len() - 1, vec![offsets(o), text(t)], None, vec![])
    };
    refused(&[of(&[0, 1, 2, 3], b"a\xffb")], Some(1));
    refused(&[of(&[0, 1, 3], "aö".as_bytes()), of(&[0, 1, 2], "ö".as_bytes())], Some(2));
    refused(&[of(&[0, 5, 2, 3], b"abc")], Some(1));
    refused(&[of(&[0, 1, 2, 9], b"abc")], None);
    refused(&[of(&[0, -1, 2, 3], b"abc")], Some(0));
    refused(&[of(&[2, 1, 2, 1], b"abc")], None);
    refused(&[of(&[-2, 1, 2, 3], b"abc")], None);
    // A character across the seam of two values.
    refused(&[of(&[0, 1, 2], "ö".as_bytes())], Some(0));
    // Truncated at the very end.
    refused(&[of(&[0, 3], &"流".as_bytes()[..2]), of(&[0, 1], b"x")], None);
    let long = [i64::MAX, 0];
    let large = unchecked(
        DataType::LargeUtf8,
        1,
        vec![Buffer::from_slice_ref(long), text(b"abc")],
        None,
        vec![],
    );
    refused(&[large], None);
}

#[test]
fn bad_keys_views_and_lists_are_refused() {
    let values = StringArray::from(vec!["a", "b"]).to_data();
    let dtype = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let keys = |v: &[i8]| {
        unchecked(
            dtype.clone(),
            v.len(),
            vec![Buffer::from_slice_ref(v)],
            None,
            vec![values.clone()],
        )
    };
    refused(&[keys(&[0, 1, 2])], Some(2));
    refused(&[keys(&[0, -1])], Some(1));

    // A key under a null is nobody's business.
    let nulls = NullBuffer::from(vec![true, false]);
    let fine = unchecked(
        dtype.clone(),
        2,
        vec![Buffer::from_slice_ref([0i8, 99])],
        Some(nulls),
        vec![values],
    );
    put(&region(), "fine", &[fine]).unwrap();

    let view = |v: u128, data: &[u8]| {
        unchecked(
            DataType::Utf8View,
            1,
            vec![Buffer::from_slice_ref([v]), Buffer::from_slice_ref(data)],
            None,
            vec![],
        )
    };
    let long = |len: u128, prefix: &[u8; 4], buffer: u128, offset: u128| {
        len | u128::from(u32::from_le_bytes(*prefix)) << 32 | buffer << 64 | offset << 96
    };
    put(&region(), "fine", &[view(long(13, b"abcd", 0, 1), b"xabcdefghijklm")]).unwrap();
    refused(&[view(long(13, b"abcd", 1, 0), b"abcdefghijklm")], Some(0));
    refused(&[view(long(13, b"abcd", 0, 1), b"abcdefghijklm")], Some(0));
    refused(&[view(long(13, b"xbcd", 0, 0), b"abcdefghijklm")], Some(0));
    refused(&[view(long(13, b"abcd", 0, 0), b"abcdefghijkl\xff")], Some(0));
    refused(&[view(1 | 0xff << 32, b"")], Some(0));

    let child = Int32Array::from(vec![1, 2, 3]);
    let list = |o: Vec<i32>| {
        // SAFETY: as above.
        let offsets = unsafe { OffsetBuffer::new_unchecked(ScalarBuffer::from(o.clone())) };
        let data = ArrayData::builder(DataType::new_list(DataType::Int32, true))
            .len(o.len() - 1)
            .add_buffer(offsets.into_inner().into_inner())
            .add_child_data(child.to_data());
        // SAFETY: as above.
        batch(vec![make_array(unsafe { data.build_unchecked() })])
    };
    refused(&[list(vec![0, 2, 1, 3])], Some(1));
    refused(&[list(vec![0, 2, 4])], None);
}

#[test]
fn a_null_in_a_column_declared_without_is_refused() {
    let region = region();
    let schema = Arc::new(Schema::new(vec![Field::new("c0", DataType::Int64, false)]));
    let good = batch(vec![Arc::new(Int64Array::from(vec![1]))]);
    let bad = batch(vec![Arc::new(Int64Array::from(vec![Some(1), None]))]);
    let error = region.put("t", schema, vec![Ok(good), Ok(bad)], false).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidData);
    assert!(error.to_string().contains("row 2"), "{error}");
}

#[test]
fn batches_of_another_schema_and_failing_sources_are_refused() {
    let region = region();
    let a = batch(vec![Arc::new(Int64Array::from(vec![1]))]);
    let b = batch(vec![Arc::new(Float64Array::from(vec![1.0]))]);
    let error = put(&region, "t", &[a.clone(), b]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::SchemaMismatch);
    let failing = vec![
        Ok(a.clone()),
        Err(arrow_schema::ArrowError::IoError("gone".into(), std::io::Error::other("gone"))),
    ];
    let error = region.put("t", a.schema(), failing, false).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
    assert!(region.names().unwrap().is_empty());
}

#[test]
fn a_full_region_refuses_and_keeps_what_it_has() {
    let region = region();
    let small = [batch(vec![Arc::new(Int64Array::from_iter_values(0..1000))])];
    let kept = put(&region, "small", &small).unwrap();
    let large = batch(vec![Arc::new(Int64Array::from_iter_values(0..20_000_000))]);
    let error = put(&region, "large", &[large]).unwrap_err();
    match error {
        Error::RegionFull { needed, capacity, .. } => {
            assert!(needed >= 160_000_000);
            assert_eq!(capacity, region.capacity());
        }
        other => panic!("{other}"),
    }
    assert_same(&kept, &small);
}

#[test]
fn cancelling_leaves_nothing_behind() {
    let region = region();
    let rows = batch(vec![Arc::new(Int64Array::from_iter_values(0..10))]);
    let options = insitu::PutOptions { interrupt: Some(&|| true), ..Default::default() };
    let error = region.put_with("t", rows.schema(), vec![Ok(rows.clone())], options).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert!(!region.contains("t").unwrap());
}
