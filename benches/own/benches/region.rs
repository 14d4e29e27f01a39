//! Putting a table into a region, opening a region, and looking a table up, through the public
//! interface. A failing call is an error of the bench, never a fast result.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use criterion::{Bencher, Criterion, Throughput};
use insitu::{CreateOptions, IfExists, Location, Region};

type Outcome = Result<(), Box<dyn Error>>;

/// Times `call`; the first failure is kept in `failed`.
fn timed<T, E: Error + 'static>(
    bench: &mut Bencher<'_>,
    failed: &mut Option<Box<dyn Error>>,
    mut call: impl FnMut() -> Result<T, E>,
) {
    bench.iter(|| {
        call().map_err(|error| failed.get_or_insert_with(|| error.into()).to_string()).ok()
    });
}

fn batch(rows: usize) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let key = Int64Array::from_iter_values((0..rows as i64).map(|row| row % 100));
    let value = Float64Array::from_iter_values((0..rows).map(|row| row as f64));
    let name = StringArray::from_iter_values((0..rows).map(|row| format!("id{:03}", row % 100)));
    RecordBatch::try_from_iter([
        ("key", Arc::new(key) as ArrayRef),
        ("value", Arc::new(value) as ArrayRef),
        ("name", Arc::new(name) as ArrayRef),
    ])
}

fn main() -> Outcome {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    let mut failed = None;

    let options = CreateOptions {
        capacity: Some(1 << 30),
        max_tables: None,
        if_exists: IfExists::Replace,
        ephemeral: true,
    };
    let location = || Location::Shm(format!("benches-own-{}", std::process::id()));
    let region = Region::create(location(), options)?;

    let mut group = c.benchmark_group("put, replacing, into warm pages");
    for rows in [1_000, 1_000_000] {
        let batch = batch(rows)?;
        group.throughput(Throughput::Bytes(batch.get_array_memory_size() as u64));
        group.bench_function(format!("{rows} rows: int64, float64, utf8"), |bench| {
            timed(bench, &mut failed, || {
                region.put("put", batch.schema(), [Ok(batch.clone())], true)
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("open");
    group
        .bench_function("look a table up", |bench| timed(bench, &mut failed, || region.get("put")));
    group.bench_function("look a table up and view it", |bench| {
        timed(bench, &mut failed, || region.get("put").and_then(|table| table.to_batches()));
    });
    group.bench_function("open the region again, look up, view, close", |bench| {
        timed(bench, &mut failed, || {
            let again = Region::open(location(), false)?;
            let batches = again.get("put")?.to_batches()?;
            again.close();
            Ok::<_, insitu::Error>(batches)
        });
    });
    group.finish();

    c.final_summary();
    region.close();
    // The last one out has taken an ephemeral region along; if not, it is removed here.
    let _ = Region::remove(&location());
    failed.map_or(Ok(()), Err)
}
