//! What is believed of the values of tables in files.

use arrow_array::RecordBatch;
use arrow_array::types::Int8Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int8Array, StringArray};
use arrow_schema::ArrowError;
use insitu_query::Expr;
use insitu_region::{CreateOptions, Location};

use super::*;
use crate::table::Table;
use crate::update::UpdateOptions;

fn region(directory: &tempfile::TempDir) -> Region {
    let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
    Region::create(Location::File(directory.path().join("region")), options).unwrap()
}

/// A key under a null that no value has.
fn coded() -> RecordBatch {
    let keys = Int8Array::new(vec![0, 99, 1].into(), Some(vec![true, false, true].into()));
    let values: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    // SAFETY: keys under nulls mean nothing.
    let coded = unsafe { DictionaryArray::<Int8Type>::new_unchecked(keys, values) };
    RecordBatch::try_from_iter([("d", Arc::new(coded) as ArrayRef)]).unwrap()
}

fn put(region: &Region, batch: RecordBatch) -> Table {
    region.put("t", batch.schema(), [Ok::<_, ArrowError>(batch)], true).unwrap()
}

#[test]
fn who_says_that_there_are_no_nulls_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let region = region(&directory);
    let table = put(&region, coded());
    let seen = table.seen();
    let mut layout = seen.meta.layout.clone();
    // Keys as they may lie in a file that somebody else has made.
    let at = region.shared.address(layout.chunks[0].columns[0].buffers[0]).unwrap();
    // SAFETY: the keys of three rows.
    assert_eq!(unsafe { at.cast::<[u8; 3]>().read() }, [0, 0, 1]);
    let Storage::Named(pin) = &seen.storage else { panic!("it has a name") };
    let (offset, len) = pin.extents().unwrap()[0];
    let extent = region.shared.allocate(len).unwrap();
    // SAFETY: as many bytes as both have.
    unsafe {
        let from = pin.slice(offset, len).unwrap();
        extent.as_mut_ptr().copy_from_nonoverlapping(from, len as usize);
        let keys = layout.chunks[0].columns[0].buffers[0].offset - offset;
        extent.as_mut_ptr().add(keys as usize + 1).write(99);
    }
    let moved = |place: &mut Place| {
        if !place.is_absent() {
            place.offset = place.offset - offset + extent.offset();
        }
    };
    let column = Arc::make_mut(&mut Arc::make_mut(&mut layout.chunks[0]).columns[0]);
    column.buffers.iter_mut().for_each(moved);
    moved(&mut column.validity);
    let values = Arc::make_mut(&mut column.children[0]);
    values.buffers.iter_mut().for_each(moved);
    moved(&mut layout.statistics);
    let keep = crate::storage::Anonymous { extents: vec![Arc::new(extent)], ..Default::default() };
    for (nulls, whole) in [(Some(1), true), (None, true), (Some(0), false)] {
        let chunk = Arc::make_mut(&mut layout.chunks[0]);
        Arc::make_mut(&mut chunk.columns[0]).null_count = nulls;
        let schema = seen.meta.arrow.clone();
        region.publish("u", schema, layout.clone(), None, &keep, true).unwrap();
        region.forget_manifests();
        let found = region.get("u").unwrap().column(0);
        match found {
            Ok(arrays) => assert!(whole && arrays[0].null_count() == 1),
            Err(e) => assert!(!whole && matches!(e, Error::RegionCorrupt { .. }), "{e}"),
        }
    }
}

#[test]
fn values_are_checked_once_however_often_a_table_changes() {
    let directory = tempfile::tempdir().unwrap();
    let region = region(&directory);
    let checked = |table: &Table| table.version().unwrap().meta.trusted.load(Ordering::Relaxed);
    let numbered = |n: i64| {
        let numbers: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![n; 3]));
        let mut columns = vec![("n", numbers)];
        columns.push(("d", coded().column(0).clone()));
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let append = |table: &Table| {
        let batch = numbered(2);
        table.append(&batch.schema(), [Ok(batch)], &|| false).unwrap()
    };
    let mut table = put(&region, numbered(1));
    assert!(checked(&table), "on their way in");
    table = append(&table);
    assert!(checked(&table));
    let add = || vec![("n".into(), Expr::column("n") + 1)];
    let options = UpdateOptions { in_place: true, ..UpdateOptions::default() };
    table.update(add(), None, options).unwrap();
    assert!(checked(&table));
    // Another process's word, until it is looked at.
    region.forget_manifests();
    table = region.get("t").unwrap();
    assert!(!checked(&table));
    table.to_batches().unwrap();
    assert!(checked(&table));
    table = append(&table);
    assert!(checked(&table));
}
