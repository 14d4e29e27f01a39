//! Regions and tables: made, found, read where they lie, and gone.

use std::ptr;

use arrow_array::cast::AsArray;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_schema::Schema;
use arrow_schema::ffi::FFI_ArrowSchema;
use insitu::ErrorCode;

use super::*;

fn open(region: InsituRegion, name: &str) -> Result<InsituTable, Answer> {
    let mut table = InsituTable { id: 0 };
    let name = text(name);
    // SAFETY: as described.
    let answer =
        ask(|error| unsafe { insitu_table_open(region, name.as_ptr(), &raw mut table, error) });
    if answer.status == 0 { Ok(table) } else { Err(answer) }
}

fn stats(region: InsituRegion) -> InsituStats {
    // SAFETY: of numbers only.
    let mut stats: InsituStats = unsafe { std::mem::zeroed() };
    stats.size = size_of::<InsituStats>();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_stats(region, &raw mut stats, error) }).is_ok();
    stats
}

#[test]
fn a_table_is_put_found_and_read_without_a_copy() {
    let scene = Scene::new();
    let table = scene.put("numbers", 1_000);
    let again = open(scene.region, "numbers").unwrap();
    let (mut rows, mut columns) = (0, 0);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_shape(again, &raw mut rows, &raw mut columns, error) })
        .is_ok();
    assert_eq!((rows, columns), (1_000, 3));

    let (first, second) = (export(table), export(again));
    assert_eq!(first, [numbers(0, 1_000)]);
    let address =
        |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().as_ptr();
    assert_eq!(address(&first[0]), address(&second[0]));
    assert_eq!(address(&first[0]) as usize % 64, 0);

    let mut schema = FFI_ArrowSchema::empty();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_schema(table, &raw mut schema, error) }).is_ok();
    assert_eq!(Schema::try_from(&schema).unwrap(), *first[0].schema());

    let mut names = FFI_ArrowArrayStream::empty();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_tables(scene.region, &raw mut names, error) }).is_ok();
    let names = batches(names);
    assert_eq!(names[0].column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("numbers")]);
    release(table);
    release(again);
}

#[test]
fn what_is_exported_outlives_all_handles() {
    let shown = {
        let scene = Scene::new();
        let table = scene.put("numbers", 5);
        let shown = export(table);
        release(table);
        let name = text("numbers");
        // SAFETY: as described.
        ask(|error| unsafe { insitu_table_delete(scene.region, name.as_ptr(), error) }).is_ok();
        open(scene.region, "numbers").unwrap_err().is(ErrorCode::TableNotFound, "\"numbers\"");
        shown
    };
    assert_eq!(shown, [numbers(0, 5)]);
}

#[test]
fn a_taken_name_is_told_and_replaced_if_wanted() {
    let scene = Scene::new();
    let old = scene.put("numbers", 5);
    let (name, mut source) = (text("numbers"), stream(vec![numbers(5, 9)]));
    ask(|error| {
        let (at, none) = (&raw mut source, ptr::null_mut());
        // SAFETY: as described.
        unsafe { insitu_table_put(scene.region, name.as_ptr(), at, ptr::null(), none, error) }
    })
    .is(ErrorCode::TableExists, "pass INSITU_FLAG_REPLACE");
    assert!(source.release.is_none(), "the stream is taken also by a call that fails");

    let mut source = stream(vec![numbers(5, 9)]);
    let replace = InsituOptions { flags: INSITU_FLAG_REPLACE, ..options() };
    ask(|error| {
        let (at, none) = (&raw mut source, ptr::null_mut());
        // SAFETY: as described.
        unsafe {
            insitu_table_put(scene.region, name.as_ptr(), at, &raw const replace, none, error)
        }
    })
    .is_ok();
    assert_eq!(export(old), [numbers(0, 5)]);
    let mut new = InsituTable { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_latest(old, &raw mut new, error) }).is_ok();
    assert_eq!(export(new), [numbers(5, 9)]);
    release(old);
    release(new);
}

#[test]
fn rows_are_appended_and_waited_for() {
    let scene = Scene::new();
    let (old, name) = (scene.put("numbers", 5), text("numbers"));
    let mut found = InsituTable { id: 0 };
    let at_once = InsituOptions { timeout_ms: -1, ..options() };
    let mut wait = |than: InsituTable| {
        ask(|error| {
            let (name, out) = (name.as_ptr(), &raw mut found);
            // SAFETY: as described.
            unsafe { insitu_table_wait(scene.region, name, than, &raw const at_once, out, error) }
        })
    };
    wait(old).is(ErrorCode::Timeout, "numbers");
    wait(InsituTable { id: 0 }).is_ok();
    let mut source = stream(vec![numbers(5, 9)]);
    let mut more = InsituTable { id: 0 };
    ask(|error| {
        // SAFETY: as described.
        unsafe { insitu_table_append(old, &raw mut source, ptr::null(), &raw mut more, error) }
    })
    .is_ok();
    let earlier = found;
    let mut wait = |than: InsituTable| {
        ask(|error| {
            let (name, out) = (name.as_ptr(), &raw mut found);
            // SAFETY: as described.
            unsafe { insitu_table_wait(scene.region, name, than, &raw const at_once, out, error) }
        })
    };
    wait(old).is_ok();
    assert_eq!(export(old).iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    assert_eq!(export(found).iter().map(RecordBatch::num_rows).sum::<usize>(), 9);
    for table in [old, more, earlier, found] {
        release(table);
    }
}

#[test]
fn a_named_region_is_one_to_all_its_handles_until_it_is_removed() {
    let name = text(&unique());
    let (mut one, mut two) = (InsituRegion { id: 0 }, InsituRegion { id: 0 });
    let create = |flags, out: &mut InsituRegion| {
        ask(|error| {
            let out = std::ptr::from_mut(out);
            // SAFETY: as described.
            unsafe { insitu_region_create(name.as_ptr(), 1 << 20, 16, flags, out, error) }
        })
    };
    create(0, &mut one).is_ok();
    create(0, &mut two).is(ErrorCode::RegionExists, name.to_str().unwrap());
    create(INSITU_FLAG_REPLACE | INSITU_FLAG_OPEN_EXISTING, &mut two)
        .is(ErrorCode::InvalidArgument, "replaced or opened");
    create(INSITU_FLAG_EXCLUSIVE, &mut two).is(ErrorCode::InvalidArgument, "128");
    let scene = Scene { region: one };
    let table = scene.put("numbers", 10);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_open(name.as_ptr(), 0, &raw mut two, error) }).is_ok();
    assert_ne!(one.id, two.id);
    assert_eq!(stats(two).sessions, 1);
    let read_only = INSITU_FLAG_READ_ONLY;
    let mut three = InsituRegion { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_open(name.as_ptr(), read_only, &raw mut three, error) })
        .is_ok();
    let seen = open(three, "numbers").unwrap();
    assert_eq!(export(seen), [numbers(0, 10)]);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_remove(name.as_ptr(), error) }).is_ok();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_remove(name.as_ptr(), error) })
        .is(ErrorCode::RegionNotFound, name.to_str().unwrap());
    release(seen);
    release(table);
    for region in [two, three] {
        // SAFETY: as described.
        ask(|error| unsafe { insitu_region_release(region, error) }).is_ok();
    }
}

#[test]
fn a_file_is_durable_and_memory_without_a_name_has_a_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let path = text(folder.path().join("market").to_str().unwrap());
    let mut region = InsituRegion { id: 0 };
    ask(|error| {
        // SAFETY: as described.
        unsafe { insitu_region_create(path.as_ptr(), 1 << 20, 0, 0, &raw mut region, error) }
    })
    .is_ok();
    let file = Scene { region };
    release(file.put("numbers", 10));
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_flush(region, ptr::null(), error) }).is_ok();
    let mut fd = -1;
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_fd(region, &raw mut fd, error) })
        .is(ErrorCode::Unsupported, "open it by that");

    let scene = Scene::new();
    release(scene.put("numbers", 10));
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_fd(scene.region, &raw mut fd, error) }).is_ok();
    let mut again = InsituRegion { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_open_fd(fd, 0, &raw mut again, error) }).is_ok();
    release(open(again, "numbers").unwrap());
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_release(again, error) }).is_ok();
    for fd in [-1, 1 << 20] {
        // SAFETY: as described.
        let answer = ask(|error| unsafe { insitu_region_open_fd(fd, 0, &raw mut again, error) });
        assert_ne!(answer.status, 0);
    }
}

#[test]
fn numbers_about_a_region_go_as_far_as_the_caller_knows_them() {
    let scene = Scene::new();
    let table = scene.put("numbers", 10_000);
    let now = stats(scene.region);
    assert_eq!((now.capacity, now.tables, now.sessions), (64 << 20, 1, 1));
    assert_eq!(now.used + now.free, now.capacity);
    let mut words = [u64::MAX; 20];
    for (size, unknown) in [(128, 16), (144, 18)] {
        words.fill(u64::MAX);
        words[0] = size;
        // SAFETY: a struct of so many bytes.
        ask(|error| unsafe { insitu_region_stats(scene.region, words.as_mut_ptr().cast(), error) })
            .is_ok();
        assert_eq!((words[0], words[1]), (size, 64 << 20));
        assert_eq!(words[unknown], u64::MAX, "what is beyond the struct's end is the caller's");
        assert!(words[16..unknown].iter().all(|word| *word == 0));
    }
    words[0] = 64;
    // SAFETY: a struct of so many bytes.
    ask(|error| unsafe { insitu_region_stats(scene.region, words.as_mut_ptr().cast(), error) })
        .is(ErrorCode::InvalidArgument, "sizeof(InsituStats)");
    let mut freed = 0;
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_trim(scene.region, &raw mut freed, error) }).is_ok();
    release(table);
}

#[test]
fn leases_keep_a_table_and_are_listed() {
    let scene = Scene::new();
    let table = scene.put("numbers", 100);
    let mut lease = InsituLease { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_lease(table, ptr::null(), &raw mut lease, error) }).is_ok();
    let mut list = FFI_ArrowArrayStream::empty();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_region_leases(scene.region, &raw mut list, error) }).is_ok();
    let list = batches(list);
    let kinds: Vec<_> = list[0].column_by_name("kind").unwrap().as_string::<i32>().iter().collect();
    assert!(kinds.contains(&Some("lease")), "{kinds:?}");
    let pids = list[0].column_by_name("pid").unwrap().as_primitive::<UInt32Type>().values().clone();
    assert!(pids.iter().all(|pid| *pid == std::process::id()));

    // While it is kept, nothing is written over.
    let (twice, in_place) = (plan("a * 2 AS a", None), options());
    let in_place = InsituOptions { flags: INSITU_FLAG_IN_PLACE, ..in_place };
    let update = || {
        // SAFETY: as described.
        ask(|error| unsafe { insitu_table_update(table, twice, &raw const in_place, error) })
    };
    update().is(ErrorCode::LeaseHeld, "numbers");
    // SAFETY: as described.
    ask(|error| unsafe { insitu_lease_release(lease, error) }).is_ok();
    update().is_ok();

    let soon = InsituOptions { timeout_ms: 5, ..options() };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_lease(table, &raw const soon, &raw mut lease, error) })
        .is(ErrorCode::InvalidArgument, "exclusive lease");
    let alone = InsituOptions { flags: INSITU_FLAG_EXCLUSIVE, ..options() };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_lease(table, &raw const alone, &raw mut lease, error) })
        .is_ok();
    update().is_ok();
    let mut shown = FFI_ArrowArrayStream::empty();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_export(table, ptr::null(), &raw mut shown, error) })
        .is(ErrorCode::LeaseHeld, "exclusively");
    // SAFETY: as described.
    ask(|error| unsafe { insitu_lease_release(lease, error) }).is_ok();
    assert_eq!(export(table)[0].column(0).as_primitive::<Int64Type>().value(3), 12);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_lease_release(lease, error) }).is(ErrorCode::Stale, "lease");
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_release(twice, error) }).is_ok();
    release(table);
}
