//! Arrays as other producers make them, from arrow-rs's own with what they do differently.

use std::ffi::c_void;
use std::ptr::NonNull;

use arrow_array::RecordBatchIterator;
use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, ListArray, NullArray, StringArray,
    new_null_array,
};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_schema::Field;

use super::*;

/// Columns of type null at several depths, among others.
fn batch(owner: &Arc<[i64; 4]>) -> RecordBatch {
    let nulls = || Arc::new(NullArray::new(4)) as ArrayRef;
    let address = NonNull::from(owner.as_ref()).cast();
    // SAFETY: the owner has as many bytes, and lives as long as the buffer.
    let values = unsafe { Buffer::from_custom_allocation(address, 32, owner.clone()) };
    let numbers = Int64Array::new(values.into(), None);
    let innermost =
        StructArray::from(vec![(Arc::new(Field::new("t", DataType::Utf8, true)), text())]);
    let inner = StructArray::from(vec![
        (Arc::new(Field::new("n", DataType::Null, true)), nulls()),
        (Arc::new(Field::new("t", DataType::Utf8, true)), text()),
        (
            Arc::new(Field::new("i", innermost.data_type().clone(), true)),
            Arc::new(innermost) as ArrayRef,
        ),
    ]);
    let item = Arc::new(Field::new("item", DataType::Null, true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 0, 2, 1]), nulls(), None);
    let coded: DictionaryArray<Int8Type> = ["x", "y", "x", "x"].into_iter().collect();
    RecordBatch::try_from_iter_with_nullable([
        ("n", nulls(), true),
        ("a", Arc::new(numbers), false),
        ("s", Arc::new(inner), true),
        ("l", Arc::new(list), true),
        ("d", Arc::new(coded), true),
    ])
    .unwrap()
}

#[test]
fn types_that_nest_too_deep_are_refused() {
    let stream = |depth| {
        let list = |inner, _| DataType::List(Arc::new(Field::new("item", inner, true)));
        let dtype = (1..depth).fold(DataType::Int8, list);
        let schema = Arc::new(Schema::new(vec![Field::new("a", dtype, true)]));
        let batches = RecordBatchIterator::new(std::iter::empty(), schema);
        ForeignStream::new(FFI_ArrowArrayStream::new(Box::new(batches)))
    };
    assert!(stream(MAX_DEPTH).is_ok());
    for depth in [MAX_DEPTH + 2, 200] {
        let error = stream(depth).err().unwrap().to_string();
        assert!(error.contains("deeper than"), "{error}");
    }
}

fn text() -> ArrayRef {
    Arc::new(StringArray::from(vec![Some("a"), None, Some("c"), Some("d")]))
}

/// A list of buffers with one that is absent.
static ABSENT: Absent = Absent([std::ptr::null()]);

struct Absent([*const c_void; 1]);

// SAFETY: a null pointer, which nobody stores to.
unsafe impl Sync for Absent {}

/// Gives every part of type null an absent buffer, as some producers do.
fn add_buffers(array: &mut FFI_ArrowArray, dtype: &DataType) {
    if *dtype == DataType::Null {
        array.n_buffers = 1;
        array.buffers = ABSENT.0.as_ptr().cast_mut();
    }
    for (index, part) in parts(dtype).into_iter().enumerate() {
        if matches!(dtype, DataType::Dictionary(..)) {
            continue;
        }
        // SAFETY: arrow-rs's own array, of that type, which only this test has.
        add_buffers(unsafe { &mut **array.children.add(index) }, part);
    }
}

fn exported(batch: &RecordBatch) -> FFI_ArrowArray {
    let structs = StructArray::from(batch.clone());
    let mut array = FFI_ArrowArray::new(&structs.to_data());
    add_buffers(&mut array, structs.data_type());
    array
}

#[test]
fn columns_of_type_null_may_come_with_an_absent_buffer() {
    let owner = Arc::new([1, 2, 3, 4]);
    let batch = batch(&owner);
    let array = exported(&batch);
    let schema = batch.schema();
    // SAFETY: an array of that schema.
    let found = unsafe { record_batch(array, &schema) }.unwrap();
    assert_eq!(found, batch);
    // Nothing was copied, and what is kept is released with the last array.
    let address = |batch: &RecordBatch| batch["a"].to_data().buffers()[0].as_ptr();
    assert_eq!(address(&found), address(&batch));
    drop(batch);
    let kept = found["a"].clone();
    drop(found);
    assert_eq!(Arc::strong_count(&owner), 2);
    drop(kept);
    assert_eq!(Arc::strong_count(&owner), 1);
}

#[test]
fn a_slice_of_such_an_array_has_its_rows() {
    let batch = batch(&Arc::new([1, 2, 3, 4]));
    let mut array = exported(&batch);
    (array.offset, array.length) = (1, 2);
    // SAFETY: an array of that schema.
    let found = unsafe { record_batch(array, &batch.schema()) }.unwrap();
    assert_eq!(found, batch.slice(1, 2));
}

#[test]
fn a_stream_gives_all_its_batches_and_its_own_errors() {
    let owner = Arc::new([1, 2, 3, 4]);
    let batch = batch(&owner);
    let schema = batch.schema();
    let failing = Err(ArrowError::ComputeError("out of luck".into()));
    let items = vec![Ok(batch.clone()), Ok(batch.slice(2, 2)), failing];
    let stream = FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new(items, schema)));
    let mut stream = ForeignStream::new(stream).unwrap();
    assert_eq!(stream.schema(), batch.schema());
    assert_eq!(stream.next().unwrap().unwrap(), batch);
    assert_eq!(stream.next().unwrap().unwrap(), batch.slice(2, 2));
    assert!(stream.next().unwrap().unwrap_err().to_string().contains("out of luck"));
    assert!(stream.next().is_none());
    assert!(ForeignStream::new(FFI_ArrowArrayStream::empty()).is_err());
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let batch = batch(&Arc::new([1, 2, 3, 4]));
    let schema = batch.schema();
    for wrong in [0, 4, 6, -1] {
        let mut array = exported(&batch);
        array.n_children = wrong;
        // SAFETY: it claims less than it has, or more, at which nobody may look.
        assert!(unsafe { record_batch(array, &schema) }.is_err(), "{wrong} children");
    }
    let mut array = exported(&batch);
    array.children = std::ptr::null_mut();
    // SAFETY: children that are not there are not looked at.
    assert!(unsafe { record_batch(array, &schema) }.is_err());
    let fields =
        vec![Field::new("a", DataType::Int32, true), Field::new("n", DataType::Null, true)];
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from(vec![1, 2])), new_null_array(&DataType::Null, 2)];
    let nulls = Some(vec![true, false].into());
    let structs = StructArray::new(fields.clone().into(), columns, nulls);
    let array = FFI_ArrowArray::new(&structs.to_data());
    // SAFETY: an array of that schema.
    let found = unsafe { record_batch(array, &Arc::new(Schema::new(fields))) };
    assert!(found.unwrap_err().to_string().contains("rows are null"));
}
