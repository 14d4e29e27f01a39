//! Bad arguments: a status and a message for each, and nothing else happens.

use std::ptr;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_schema::ffi::FFI_ArrowSchema;
use insitu::ErrorCode;

use super::*;

/// A pointer that is aligned to nothing.
fn crooked<T>(to: &mut [u64; 64]) -> *mut T {
    to.as_mut_ptr().cast::<u8>().wrapping_add(1).cast()
}

/// All calls that take a handle, with a number for it, and with places for results that are null.
fn all(id: u64) -> Vec<(&'static str, Answer)> {
    let (region, table, plan) = (InsituRegion { id }, InsituTable { id }, InsituPlan { id });
    let (prepared, task, lease) = (InsituPrepared { id }, InsituTask { id }, InsituLease { id });
    let name = text("name");
    let name = name.as_ptr();
    let (mut t, mut p, mut l) =
        (InsituTable { id: 0 }, InsituPrepared { id: 0 }, InsituLease { id: 0 });
    let (t, p, l) = (&raw mut t, &raw mut p, &raw mut l);
    let (mut n, mut fd, mut value) =
        (0_u64, 0_i32, std::mem::MaybeUninit::<InsituScalar>::uninit());
    let (n, fd, value) = (&raw mut n, &raw mut fd, value.as_mut_ptr());
    let mut schema = FFI_ArrowSchema::empty();
    let mut stats = [0_u64; 16];
    stats[0] = 128;
    let mut sources: Vec<_> = (0..2).map(|_| stream(vec![numbers(0, 3)])).collect();
    let none = ptr::null();
    let array = [0_u64; 4];
    let array = array.as_ptr().cast();
    let mut out = FFI_ArrowArrayStream::empty();
    let o = &raw mut out;
    macro_rules! calls {
        ($($call:ident($($arg:expr),*);)*) => {
            vec![$((
                stringify!($call),
                // SAFETY: as described, but for the handle.
                ask(|error| unsafe { $call($($arg,)* error) }),
            )),*]
        };
    }
    let answers = calls! {
        insitu_region_fd(region, fd);
        insitu_region_tables(region, o);
        insitu_region_stats(region, stats.as_mut_ptr().cast());
        insitu_region_leases(region, o);
        insitu_region_trim(region, n);
        insitu_region_flush(region, none);
        insitu_table_put(region, name, &raw mut sources[0], none, t);
        insitu_table_append(table, &raw mut sources[1], none, t);
        insitu_table_publish(region, name, table, none, t);
        insitu_table_open(region, name, t);
        insitu_table_wait(region, name, InsituTable { id: 0 }, none, t);
        insitu_table_latest(table, t);
        insitu_table_delete(region, name);
        insitu_table_shape(table, n, n);
        insitu_table_schema(table, &raw mut schema);
        insitu_table_export(table, none, o);
        insitu_table_value(table, value);
        insitu_table_repair(table);
        insitu_table_lease(table, none, l);
        insitu_table_update(table, plan, none);
        insitu_query(table, plan, none, t);
        insitu_prepare(table, plan, p);
        insitu_prepared_run(prepared, InsituTable { id: 0 }, none, t);
        insitu_prepared_explain(prepared, ptr::null_mut(), 0, ptr::null_mut());
        insitu_task_cancel(task);
        insitu_task_progress(task, n, n);
        insitu_formula_type(InsituFormula { id }, ptr::null(), 0, n.cast());
        insitu_formula_evaluate(InsituFormula { id }, ptr::null(), 0, 0, array, none);
        insitu_region_release(region);
        insitu_table_release(table);
        insitu_plan_release(plan);
        insitu_prepared_release(prepared);
        insitu_task_release(task);
        insitu_lease_release(lease);
        insitu_formula_release(InsituFormula { id });
    };
    assert!(sources.iter().all(|source| source.release.is_none()), "a stream was not taken");
    answers
}

#[test]
fn a_number_that_is_no_handle_is_told_by_all_calls() {
    for id in [1, 7, 0xDEAD_BEEF, u64::MAX, 1 << 63, 0x1000_0000_0000_0001, 0x2FFF_FFFF_FF00_0000] {
        for (call, answer) in all(id) {
            assert_eq!(answer.status, 22, "{call} of {id:#x}: {}", answer.message);
            assert!(answer.message.contains("handle"), "{call}: {}", answer.message);
        }
    }
}

#[test]
fn no_handle_is_told_by_all_calls_but_release() {
    for (call, answer) in all(0) {
        match call.ends_with("_release") {
            true => answer.is_ok(),
            false => answer.is(ErrorCode::InvalidArgument, "0 stands for none"),
        }
    }
}

#[test]
fn handles_of_another_kind_are_told_and_stay_good() {
    let scene = Scene::new();
    let table = scene.put("numbers", 3);
    let mut task = InsituTask { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_task_create(&raw mut task, error) }).is_ok();
    // A task is nothing that these calls take, and what takes one comes last.
    for (call, answer) in all(task.id) {
        match call {
            "insitu_task_cancel" | "insitu_task_progress" | "insitu_task_release" => answer.is_ok(),
            _ => answer.is(ErrorCode::InvalidArgument, "is one of a task"),
        }
    }
    for (call, answer) in all(task.id) {
        match call {
            "insitu_task_cancel" | "insitu_task_progress" | "insitu_task_release" => {
                answer.is(ErrorCode::Stale, "was released already");
            }
            _ => answer.is(ErrorCode::InvalidArgument, "is one of a task"),
        }
    }
    assert_eq!(export(table), [numbers(0, 3)]);
    release(table);
}

#[test]
fn a_task_that_is_no_task_is_told() {
    let scene = Scene::new();
    let table = scene.put("numbers", 3);
    let mut out = FFI_ArrowArrayStream::empty();
    let wrong = InsituOptions { task: InsituTask { id: table.id }, ..options() };
    // SAFETY: as described, but for the task.
    ask(|error| unsafe { insitu_table_export(table, &raw const wrong, &raw mut out, error) })
        .is(ErrorCode::InvalidArgument, "is one of a table");
    release(table);
}

#[test]
fn pointers_that_are_null_or_not_aligned_are_told() {
    let scene = Scene::new();
    let (table, region) = (scene.put("numbers", 3), scene.region);
    let (plan, name) = (plan("a", None), text("name"));
    let name = name.as_ptr();
    let mut room = [0_u64; 64];
    let mut words = [0_u64; 64];
    let none = ptr::null();
    macro_rules! refused {
        ($($call:ident($($arg:expr),*) says $part:literal;)*) => {$(
            // SAFETY: as described, but for pointers that are refused before they are used.
            ask(|error| unsafe { $call($($arg,)* error) }).is(ErrorCode::InvalidArgument, $part);
        )*};
    }
    refused! {
        insitu_region_create(none, 0, 0, 0, ptr::null_mut()) says "region is NULL";
        insitu_region_create(none, 0, 0, 0, crooked(&mut room)) says "not a multiple of 8";
        insitu_region_open(none, 0, room.as_mut_ptr().cast()) says "location is NULL";
        insitu_region_remove(none) says "location is NULL";
        insitu_region_fd(region, ptr::null_mut()) says "fd is NULL";
        insitu_region_tables(region, ptr::null_mut()) says "names is NULL";
        insitu_region_stats(region, ptr::null_mut()) says "InsituStats is NULL";
        insitu_region_stats(region, crooked(&mut room)) says "not a multiple of 8";
        insitu_region_leases(region, crooked(&mut room)) says "not a multiple of 8";
        insitu_region_trim(region, crooked(&mut room)) says "not a multiple of 8";
        insitu_region_flush(region, crooked(&mut room)) says "not a multiple of 8";
        insitu_table_put(region, name, ptr::null_mut(), ptr::null(), ptr::null_mut())
            says "stream is NULL";
        insitu_table_put(region, name, crooked(&mut room), ptr::null(), ptr::null_mut())
            says "not a multiple of 8";
        insitu_table_append(table, ptr::null_mut(), ptr::null(), ptr::null_mut())
            says "stream is NULL";
        insitu_table_open(region, none, room.as_mut_ptr().cast()) says "name is NULL";
        insitu_table_open(region, name, ptr::null_mut()) says "table is NULL";
        insitu_table_publish(region, none, table, ptr::null(), ptr::null_mut())
            says "name is NULL";
        insitu_table_delete(region, none) says "name is NULL";
        insitu_table_latest(table, ptr::null_mut()) says "latest is NULL";
        insitu_table_shape(table, crooked(&mut room), ptr::null_mut()) says "rows";
        insitu_table_schema(table, ptr::null_mut()) says "schema is NULL";
        insitu_table_export(table, ptr::null(), ptr::null_mut()) says "stream is NULL";
        insitu_table_export(table, crooked(&mut words), room.as_mut_ptr().cast())
            says "InsituOptions";
        insitu_table_value(table, ptr::null_mut()) says "value is NULL";
        insitu_table_lease(table, ptr::null(), ptr::null_mut()) says "lease is NULL";
        insitu_plan_parse(none, none, ptr::null_mut()) says "plan is NULL";
        insitu_plan_decode(ptr::null(), 5, room.as_mut_ptr().cast()) says "message is NULL";
        insitu_query(table, plan, ptr::null(), ptr::null_mut()) says "result is NULL";
        insitu_prepare(table, plan, ptr::null_mut()) says "prepared is NULL";
        insitu_task_create(ptr::null_mut()) says "task is NULL";
    }
    // An empty message is a plan of no steps, wherever it lies.
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_decode(ptr::null(), 0, room.as_mut_ptr().cast(), error) })
        .is_ok();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_release(InsituPlan { id: room[0] }, error) }).is_ok();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_release(plan, error) }).is_ok();
    release(table);
}

#[test]
fn options_that_mean_nothing_are_told() {
    let scene = Scene::new();
    let table = scene.put("numbers", 3);
    let mut out = FFI_ArrowArrayStream::empty();
    let mut ask_with = |options: InsituOptions| {
        // SAFETY: as described.
        ask(|error| unsafe { insitu_table_export(table, &raw const options, &raw mut out, error) })
    };
    for (wrong, part) in [
        (InsituOptions { size: 0, ..options() }, "sizeof(InsituOptions)"),
        (InsituOptions { size: 47, ..options() }, "sizeof(InsituOptions)"),
        (InsituOptions { size: usize::MAX, ..options() }, "sizeof(InsituOptions)"),
        (InsituOptions { flags: INSITU_FLAG_REPLACE, ..options() }, "mean nothing"),
        (InsituOptions { flags: 1 << 31, ..options() }, "mean nothing"),
        (InsituOptions { reserved: 1, ..options() }, "reserved"),
        (InsituOptions { timeout_ms: 5, ..options() }, "timeout_ms"),
        (InsituOptions { n_params: 1, ..options() }, "n_params"),
    ] {
        ask_with(wrong).is(ErrorCode::InvalidArgument, part);
    }
    let newer = [[options(); 1], [InsituOptions { size: 1, ..options() }]];
    let mut newer = newer.map(|[options]| options);
    newer[0].size = 2 * size_of::<InsituOptions>();
    // SAFETY: as described: a struct of two times the size.
    ask(|error| unsafe { insitu_table_export(table, newer.as_ptr(), &raw mut out, error) })
        .is(ErrorCode::Unsupported, "a later version");
    release(table);
}

#[test]
fn texts_that_are_no_utf_8_are_told() {
    let scene = Scene::new();
    let mut table = InsituTable { id: 0 };
    let bytes = c"caf\xE9".as_ptr();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_open(scene.region, bytes, &raw mut table, error) })
        .is(ErrorCode::InvalidArgument, "from byte 3");
    let mut region = InsituRegion { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_open(bytes, 0, &raw mut region, error) })
        .is(ErrorCode::InvalidArgument, "from byte 3");
    // Paths are bytes.
    let path = c"./no-such/caf\xE9".as_ptr();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_open(path, 0, &raw mut region, error) })
        .is(ErrorCode::RegionNotFound, "no-such");
}

#[test]
fn a_stream_that_was_released_or_fails_is_told() {
    let scene = Scene::new();
    let name = text("name");
    let put = |source: &mut FFI_ArrowArrayStream| {
        ask(|error| {
            let (name, at) = (name.as_ptr(), std::ptr::from_mut(source));
            // SAFETY: as described.
            unsafe { insitu_table_put(scene.region, name, at, ptr::null(), ptr::null_mut(), error) }
        })
    };
    put(&mut FFI_ArrowArrayStream::empty()).is(ErrorCode::InvalidData, "released");
    let schema = numbers(0, 1).schema();
    let failing = [
        Ok(numbers(0, 3)),
        Err(arrow_schema::ArrowError::ComputeError("the disk is on fire".into())),
    ];
    let reader = RecordBatchIterator::new(failing, schema);
    put(&mut FFI_ArrowArrayStream::new(Box::new(reader)))
        .is(ErrorCode::InvalidData, "the disk is on fire");
}
