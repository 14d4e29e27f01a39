//! Appending: what a revision holds, shares and knows.

use std::sync::Arc;

use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, ListArray, StringArray, StructArray,
};
use arrow_schema::{Field, SchemaRef};
use arrow_select::concat::concat_batches;
use insitu_region::{CreateOptions, Location};

use super::*;
use crate::builder::BuildOptions;

fn region() -> Region {
    let options = CreateOptions { capacity: Some(256 << 20), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

fn never() -> bool {
    false
}

fn numbers(start: usize, n: usize) -> RecordBatch {
    let ints = Int64Array::from_iter((start..start + n).map(|i| (i % 7 != 0).then_some(i as i64)));
    let text =
        StringArray::from_iter((start..start + n).map(|i| (i % 5 != 0).then(|| i.to_string())));
    let floats = Float64Array::from_iter_values((start..start + n).map(|i| i as f64));
    let columns: Vec<(&str, ArrayRef)> =
        vec![("i", Arc::new(ints)), ("s", Arc::new(text)), ("f", Arc::new(floats))];
    batch_of(columns)
}

fn batch_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn put(region: &Region, name: &str, batch: &RecordBatch) -> Table {
    region.put(name, batch.schema(), [Ok(batch.clone())], false).unwrap()
}

fn append(table: &Table, batch: &RecordBatch) -> Result<Table> {
    table.append(&batch.schema(), [Ok(batch.clone())], &never)
}

fn all(table: &Table) -> RecordBatch {
    concat_batches(&table.schema(), &table.to_batches().unwrap()).unwrap()
}

fn chunk_rows(table: &Table) -> Vec<u64> {
    table.seen().meta.layout.chunks.iter().map(|chunk| chunk.rows).collect()
}

/// Whether a table has no memory but what something of it lies in.
fn is_tight(table: &Table) -> bool {
    let seen = table.seen();
    let Storage::Named(pin) = &seen.storage else { panic!("it has a name") };
    let extents = pin.extents().unwrap();
    seen.meta.layout.extents_in(&extents) == extents
}

#[test]
fn old_handles_keep_their_rows_and_latest_has_all() {
    let region = region();
    let first = put(&region, "t", &numbers(0, 10));
    let second = append(&first, &numbers(10, 5)).unwrap();
    assert_eq!((first.num_rows(), second.num_rows()), (10, 15));
    assert!(!first.is_current() && second.is_current());
    assert_eq!(all(&first), numbers(0, 10));
    assert_eq!(all(&second), numbers(0, 15));
    assert_eq!(first.latest().unwrap().sequence(), second.sequence());
    // Through an old handle it goes on top of the last revision.
    let third = append(&first, &numbers(15, 1)).unwrap();
    assert_eq!(all(&third), numbers(0, 16));
    region.forget_manifests();
    assert_eq!(all(&region.get("t").unwrap()), numbers(0, 16));
    assert!(region.verify().ok(), "{:?}", region.verify());
    // Nothing appended is no revision.
    let same = append(&first, &numbers(0, 0)).unwrap();
    assert_eq!(same.sequence(), third.sequence());
}

#[test]
fn large_chunks_are_shared_and_small_ones_taken_in() {
    let region = region();
    let zone = ZONE_ROWS;
    let mut table = put(&region, "t", &numbers(0, 3 * zone));
    let place = table.seen().meta.layout.chunks[0].columns[0].buffers[0];
    let mut row = 3 * zone;
    for n in [1, 1, 1, 1, 2, 5] {
        table = append(&table, &numbers(row, n)).unwrap();
        row += n;
        assert_eq!(table.seen().meta.layout.chunks[0].columns[0].buffers[0], place);
        assert!(is_tight(&table));
    }
    // 1; 1+1; 2+1; 3, 1; 3+1+2; then 5 takes in all.
    assert_eq!(chunk_rows(&table), [3 * zone as u64, 11]);
    table = append(&table, &numbers(row, 2 * zone)).unwrap();
    row += 2 * zone;
    table = append(&table, &numbers(row, 3)).unwrap();
    row += 3;
    assert_eq!(chunk_rows(&table), [3 * zone as u64, 2 * zone as u64 + 11, 3]);
    assert_eq!(all(&table), numbers(0, row));
    assert!(is_tight(&table));
    // As one who has not made it sees it.
    region.forget_manifests();
    table = append(&region.get("t").unwrap(), &numbers(row, 1)).unwrap();
    assert!(is_tight(&table));
    assert_eq!(all(&table), numbers(0, row + 1));
    assert!(region.verify().ok(), "{:?}", region.verify());
}

#[test]
fn many_small_appends_leave_few_chunks_and_no_old_memory() {
    let region = region();
    let mut table = put(&region, "t", &numbers(0, 0));
    let mut row = 0;
    for _ in 0..1_500 {
        table = append(&table, &numbers(row, 64)).unwrap();
        row += 64;
    }
    assert_eq!(all(&table), numbers(0, row));
    let chunks = chunk_rows(&table);
    assert!(chunks.len() <= 14, "{chunks:?}");
    region.gc().unwrap();
    let used = region.stats().unwrap().used;
    assert!(used < 2 * table.nbytes() + (1 << 20), "{used} used, {} bytes", table.nbytes());
    assert!(region.verify().ok());
    drop(table);
    region.delete("t").unwrap();
    region.gc().unwrap();
    assert_eq!(region.stats().unwrap().used, 0);
}

#[test]
fn statistics_are_those_of_all_rows() {
    let region = region();
    let mut table = put(&region, "t", &numbers(0, 70_000));
    for (start, n) in [(70_000, 1), (70_001, 200_000), (270_001, 30)] {
        table = append(&table, &numbers(start, n)).unwrap();
    }
    let put = put(&region, "u", &numbers(0, 270_031));
    assert_eq!(table.seen().meta.stats, put.seen().meta.stats);
    region.forget_manifests();
    assert_eq!(region.get("t").unwrap().seen().meta.stats, put.seen().meta.stats);
}

#[test]
fn dictionaries_grow_and_old_keys_stay() {
    let region = region();
    let coded = |values: &[Option<&str>]| {
        let flat: DictionaryArray<Int32Type> = values.iter().copied().collect();
        let list = ListArray::new(
            Arc::new(Field::new("item", flat.data_type().clone(), true)),
            arrow_buffer::OffsetBuffer::from_lengths(vec![1; flat.len()]),
            Arc::new(flat.clone()),
            None,
        );
        let inner = Arc::new(Field::new("d", flat.data_type().clone(), true));
        let of: StructArray = vec![(inner, Arc::new(flat.clone()) as ArrayRef)].into();
        batch_of(vec![("d", Arc::new(flat)), ("l", Arc::new(list)), ("s", Arc::new(of))])
    };
    let texts = |table: &Table| -> Vec<String> {
        let batches = table.to_batches().unwrap();
        let mut out = Vec::new();
        for batch in &batches {
            for column in batch.columns() {
                let shown =
                    arrow_cast::display::ArrayFormatter::try_new(column, &Default::default());
                let shown = shown.unwrap();
                out.extend((0..batch.num_rows()).map(|row| shown.value(row).to_string()));
            }
        }
        out
    };
    let big: Vec<Option<&str>> = (0..ZONE_ROWS).map(|i| Some(["x", "y"][i % 2])).collect();
    let mut table = put(&region, "t", &coded(&big));
    let sum = texts(&table);
    let appended: [&[_]; 3] = [&[Some("y"), None], &[Some("z"), Some("x")], &[Some("z")]];
    for values in appended {
        let before = chunk_rows(&table).len();
        table = append(&table, &coded(values)).unwrap();
        assert!(before <= chunk_rows(&table).len());
    }
    // The large chunk reads as before, although the dictionary grew behind it.
    let found = texts(&table);
    assert_eq!(found.len(), sum.len() + 15);
    assert_eq!(found[..sum.len()], sum[..]);
    // Chunks of four rows and of one, column by column.
    assert_eq!(found[sum.len()..][..4], ["y", "", "z", "x"]);
    assert_eq!(found[sum.len() + 4..][..4], ["[y]", "[]", "[z]", "[x]"]);
    assert_eq!(found[found.len() - 3..], ["z", "[z]", "{d: z}"]);
    region.forget_manifests();
    assert_eq!(texts(&region.get("t").unwrap()), found);
    assert!(region.verify().ok());

    // Keys that do not reach over all values.
    let narrow = |from: usize, n: usize| {
        let texts: Vec<String> = (from..from + n).map(|i| i.to_string()).collect();
        let flat: DictionaryArray<Int8Type> = texts.iter().map(String::as_str).collect();
        batch_of(vec![("d", Arc::new(flat) as ArrayRef)])
    };
    let small = put(&region, "n", &narrow(0, 100));
    assert!(matches!(append(&small, &narrow(100, 100)), Err(Error::LimitExceeded(_))));
    assert_eq!(append(&small, &narrow(100, 20)).unwrap().num_rows(), 120);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let region = region();
    let table = put(&region, "t", &numbers(0, 10));
    let other = batch_of(vec![("i", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    assert!(matches!(append(&table, &other), Err(Error::SchemaMismatch(_))));
    let strict: SchemaRef = Arc::new(Schema::new(vec![Field::new("i", DataType::Int64, false)]));
    let built =
        region.build("strict", strict, BuildOptions { rows: Some(1), ..Default::default() });
    let strict = built.unwrap().seal(&never).unwrap();
    let null = batch_of(vec![("i", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef)]);
    assert!(matches!(append(&strict, &null), Err(Error::InvalidData(_))));
    assert_eq!(region.get("strict").unwrap().num_rows(), 1);
    let result = table.query().slice(0, Some(3)).collect(None, Default::default()).unwrap();
    assert!(matches!(append(&result, &numbers(0, 1)), Err(Error::InvalidArgument(_))));
    // A table of the same columns that is no revision of ours.
    region.put("t", table.schema(), [Ok(numbers(5, 5))], true).unwrap();
    assert!(matches!(append(&table, &numbers(0, 1)), Err(Error::Stale(_))));
    // Nor is one that got the name, though made of a revision of ours.
    let first = put(&region, "v", &numbers(0, 10));
    let second = append(&first, &numbers(10, 1)).unwrap();
    region.put_table("v", &second, true).unwrap();
    assert!(matches!(append(&first, &numbers(0, 1)), Err(Error::Stale(_))));
    region.delete("t").unwrap();
    assert!(matches!(append(&table, &numbers(0, 1)), Err(Error::Stale(_))));
    assert!(region.verify().ok());
}

#[test]
fn appends_from_several_threads_all_land() {
    let region = region();
    let first = put(&region, "t", &numbers(0, 0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let first = &first;
            scope.spawn(move || {
                for n in 0..50 {
                    append(first, &numbers(1_000_000 * (thread + 1) + n * 10, 10)).unwrap();
                }
            });
        }
    });
    let found = all(&region.get("t").unwrap());
    assert_eq!(found.num_rows(), 2_000);
    let floats = found.column(2).as_any().downcast_ref::<Float64Array>().unwrap();
    let mut seen: Vec<u64> = floats.values().iter().map(|v| *v as u64).collect();
    // Each thread's rows are in the order in which it appended them.
    for thread in 1..=4 {
        let own: Vec<u64> = seen.iter().copied().filter(|v| v / 1_000_000 == thread).collect();
        assert!(own.len() == 500 && own.is_sorted());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 2_000);
    assert!(region.verify().ok());
}

#[test]
fn chunks_are_taken_in_as_carries_run() {
    let chunk = |rows| Arc::new(Chunk { rows, columns: Vec::new() });
    let of = |rows: &[u64], added| {
        kept(&rows.iter().map(|rows| chunk(*rows)).collect::<Vec<_>>(), added)
    };
    assert_eq!(of(&[], 5), 0);
    assert_eq!(of(&[100, 10, 5], 2), 3);
    assert_eq!(of(&[100, 10, 5], 3), 1);
    assert_eq!(of(&[20, 10, 5], 3), 0);
    assert_eq!(of(&[70_000, 1], 1 << 20), 1);
    assert_eq!(of(&[0, 70_000], 1), 2);
}

#[test]
fn appends_of_whatever_sizes_leave_few_small_chunks() {
    let zone = ZONE_ROWS as u64;
    let shrinking: Vec<u64> = (1..zone).rev().step_by(7).collect();
    let growing: Vec<u64> = (1..zone).step_by(7).collect();
    let mixed: Vec<u64> = (1..10_000u64).map(|n| (n * 48_271 % (2 * zone)) >> (n % 17)).collect();
    for sizes in [shrinking, growing, mixed, vec![1; 10_000]] {
        let mut chunks: Vec<Arc<Chunk>> = Vec::new();
        let (mut rows, mut written) = (0, 0);
        for &added in &sizes {
            let stay = kept(&chunks, added);
            let taken: u64 = chunks.drain(stay..).map(|chunk| chunk.rows).sum();
            chunks.push(Arc::new(Chunk { rows: taken + added, columns: Vec::new() }));
            (rows, written) = (rows + added, written + taken + added);
            let small = chunks.iter().filter(|chunk| chunk.rows < zone).count();
            // Each is more than twice all behind it: 1, 3, 9, ..., 59,049.
            assert!(small <= 11, "{small} small chunks");
        }
        assert_eq!(chunks.iter().map(|chunk| chunk.rows).sum::<u64>(), rows);
        // A chunk grows by half at least whenever its rows are copied: 28 times up to a zone.
        assert!(written <= 29 * rows, "{written} written for {rows}");
    }
}

#[test]
fn chunks_taken_over_from_the_old_message_are_as_if_written_again() {
    let region = region();
    let coded = |text: &str| -> ArrayRef {
        Arc::new([Some(text), None].into_iter().collect::<DictionaryArray<Int32Type>>())
    };
    let mut table = put(&region, "t", &batch_of(vec![("d", coded("a"))]));
    for n in 0..5 {
        // Of two rows each, and then of more: all in one chunk, or behind it.
        let many: Vec<Option<String>> = (0..4 << n).map(|i| Some(format!("{n} {i}"))).collect();
        let many = many.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>();
        table = append(&table, &batch_of(vec![("d", Arc::new(many))])).unwrap();
        table = append(&table, &batch_of(vec![("d", coded("a"))])).unwrap();
        let seen = table.seen();
        let Storage::Named(pin) = &seen.storage else { panic!("it has a name") };
        let written = pin.manifest().unwrap();
        let again = manifest::encode(&seen.meta.arrow, &seen.meta.layout).unwrap();
        let extents = pin.extents().unwrap();
        let (_, found) = manifest::decode(&written, &extents).unwrap();
        assert_eq!(found, seen.meta.layout);
        assert_eq!(found, manifest::decode(&again, &extents).unwrap().1);
        for kept in 0..=found.chunks.len() + 1 {
            let spliced =
                manifest::encode_behind(again.clone(), kept, &seen.meta.arrow, &found).unwrap();
            assert_eq!(manifest::decode(&spliced, &extents).unwrap().1, found, "{kept} kept");
        }
        for cut in 0..again.len() {
            let _ = manifest::encode_behind(again[..cut].to_vec(), 1, &seen.meta.arrow, &found)
                .unwrap();
        }
    }
}
