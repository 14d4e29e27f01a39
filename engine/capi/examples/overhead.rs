//! What the C face adds to a call of the engine, by hand:
//! `cargo run --release --package insitu-capi --example overhead`.
#![allow(clippy::unwrap_used)]

use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use insitu::{CreateOptions, Expr, Location, Plan, Query, Region, RunOptions, Scalar};
use insitu_capi::*;

/// Calls of each kind at a stretch: enough for the clock not to be felt, and so few that both kinds
/// find the machine in the same mood.
const CALLS: u32 = 200;
/// Stretches of both kinds in turn.
const ROUNDS: usize = 4_001;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// Nanoseconds a call of the one and of the other take, and what the other takes longer at a time:
/// medians.
fn compare(mut one: impl FnMut(), mut two: impl FnMut()) -> (f64, f64, f64) {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| run());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    let times: Vec<_> = (0..ROUNDS).map(|_| (time(&mut one), time(&mut two))).collect();
    (
        median(times.iter().map(|(one, _)| *one).collect()),
        median(times.iter().map(|(_, two)| *two).collect()),
        median(times.iter().map(|(one, two)| two - one).collect()),
    )
}

fn check(status: InsituStatus) {
    assert_eq!(status, 0);
}

fn main() {
    let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
    let region = Region::create(Location::Memfd, options).unwrap();
    let fd = region.fd().unwrap();
    let (mut c_region, mut c_table) = (InsituRegion { id: 0 }, InsituTable { id: 0 });
    let none = InsituTable { id: 0 };
    // SAFETY: in this program all pointers are of live values of their types, or null where they may
    // be.
    unsafe { check(insitu_region_open_fd(fd, 0, &raw mut c_region, ptr::null_mut())) };
    println!("{:<34} {:>9} {:>9} {:>9}", "ns a call", "Rust", "C", "added");
    for rows in [0, 1_000] {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("a", values)]).unwrap();
        let table = region.put("t", batch.schema(), [Ok(batch)], true).unwrap();
        // SAFETY: as above.
        unsafe {
            check(insitu_table_open(c_region, c"t".as_ptr(), &raw mut c_table, ptr::null_mut()))
        };
        for with_param in [false, true] {
            let filter = with_param.then(|| Expr::column("a").gt(Expr::param("x")));
            let mut plan = Plan::Scan;
            if let Some(filter) = filter {
                plan = Plan::Filter { input: Arc::new(plan), predicates: vec![filter] };
            }
            let plan = Plan::Select { input: Arc::new(plan), exprs: vec![Expr::column("a").sum()] };
            let message = insitu::wire::encode(&plan).unwrap();
            let prepared = Query::new(table.clone(), plan).prepare().unwrap();
            let params = match with_param {
                false => vec![],
                true => vec![("x".to_owned(), Scalar::Int(5))],
            };
            let (mut c_plan, mut c_prepared) = (InsituPlan { id: 0 }, InsituPrepared { id: 0 });
            // SAFETY: as above.
            unsafe {
                let (at, len, out) = (message.as_ptr(), message.len(), &raw mut c_plan);
                check(insitu_plan_decode(at, len, out, ptr::null_mut()));
                check(insitu_prepare(c_table, c_plan, &raw mut c_prepared, ptr::null_mut()));
            }
            let number = InsituNumber { i64: 5 };
            let (r#type, text) = (INSITU_TYPE_INT64, ptr::null());
            let value = InsituScalar { r#type, per_second: 0, number, text };
            let c_params = [InsituParam { name: c"x".as_ptr(), value }];
            let c_options = InsituOptions {
                size: size_of::<InsituOptions>(),
                flags: 0,
                reserved: 0,
                timeout_ms: 0,
                task: InsituTask { id: 0 },
                params: c_params.as_ptr(),
                n_params: params.len(),
            };
            let c_options = if with_param { &raw const c_options } else { ptr::null() };
            let mut error = InsituError {
                code: 0,
                reserved: 0,
                message: ptr::null(),
                release: None,
                private_data: ptr::null_mut(),
            };
            let mut result = none;
            let (rust, c, added) = compare(
                || drop(prepared.run(None, &params, RunOptions::default()).unwrap()),
                || {
                    let error = &raw mut error;
                    // SAFETY: as above.
                    unsafe {
                        let out = &raw mut result;
                        check(insitu_prepared_run(c_prepared, none, c_options, out, error));
                        check(insitu_table_release(result, error));
                    }
                },
            );
            let what = match with_param {
                false => format!("sum of {rows} rows, run and release"),
                true => "the same, with a parameter".to_owned(),
            };
            println!("{what:<34} {rust:>9.0} {c:>9.0} {added:>9.0}");
        }
    }
    let mut rows = 0;
    let table = region.get("t").unwrap();
    let (rust, c, added) = compare(
        || assert_eq!(std::hint::black_box(&table).num_rows(), 1_000),
        // SAFETY: as above.
        || unsafe {
            let out = &raw mut rows;
            check(insitu_table_shape(c_table, out, ptr::null_mut(), ptr::null_mut()));
        },
    );
    println!("{:<34} {rust:>9.0} {c:>9.0} {added:>9.0}", "rows of a table");
}
