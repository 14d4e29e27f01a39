//! Several threads at the same handles, cancellation, progress, and forks.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use insitu::ErrorCode;

use super::*;

#[test]
fn a_handle_is_released_while_others_use_it() {
    let scene = Scene::new();
    let table = scene.put("numbers", 1_000);
    let count = plan("sum(a)", None);
    let mut prepared = InsituPrepared { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_prepare(table, count, &raw mut prepared, error) }).is_ok();
    let (ran, gone) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let mut result = InsituTable { id: 0 };
                    let none = InsituTable { id: 0 };
                    let answer = ask(|error| {
                        let out = &raw mut result;
                        // SAFETY: as described.
                        unsafe { insitu_prepared_run(prepared, none, ptr::null(), out, error) }
                    });
                    if answer.status != 0 {
                        answer.is(ErrorCode::Stale, "was released already");
                        break;
                    }
                    assert_eq!(
                        export(result)[0].column(0).as_primitive::<Int64Type>().value(0),
                        499_500
                    );
                    release(result);
                    ran.fetch_add(1, Ordering::Relaxed);
                }
                gone.fetch_add(1, Ordering::Relaxed);
            });
        }
        while ran.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        // SAFETY: as described.
        ask(|error| unsafe { insitu_prepared_release(prepared, error) }).is_ok();
        release(table);
    });
    assert_eq!(gone.load(Ordering::Relaxed), 4);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_release(count, error) }).is_ok();
}

#[test]
fn of_several_threads_one_releases_a_handle() {
    let scene = Scene::new();
    let table = scene.put("numbers", 10);
    let released = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // SAFETY: as described.
                let answer = ask(|error| unsafe { insitu_table_release(table, error) });
                match answer.status {
                    0 => drop(released.fetch_add(1, Ordering::Relaxed)),
                    _ => answer.is(ErrorCode::Stale, "was released already"),
                }
            });
        }
    });
    assert_eq!(released.load(Ordering::Relaxed), 1);
}

#[test]
fn a_task_cancels_what_it_is_given_to_and_says_how_far_it_is() {
    let scene = Scene::new();
    let table = scene.put("numbers", 200_000);
    let (mut task, sums) = (InsituTask { id: 0 }, plan("sum(a * 2 + b)", None));
    // SAFETY: as described.
    ask(|error| unsafe { insitu_task_create(&raw mut task, error) }).is_ok();
    let watched = InsituOptions { task, ..options() };
    let (mut done, mut total) = (1, 1);
    let progress = |done: &mut u64, total: &mut u64| {
        let (done, total) = (std::ptr::from_mut(done), std::ptr::from_mut(total));
        // SAFETY: as described.
        ask(|error| unsafe { insitu_task_progress(task, done, total, error) }).is_ok();
    };
    progress(&mut done, &mut total);
    assert_eq!((done, total), (0, 0));
    let mut result = InsituTable { id: 0 };
    let mut query = || {
        let out = &raw mut result;
        // SAFETY: as described.
        ask(|error| unsafe { insitu_query(table, sums, &raw const watched, out, error) })
    };
    query().is_ok();
    progress(&mut done, &mut total);
    assert!(done == total && done >= 200_000, "{done} of {total}");
    // SAFETY: as described.
    ask(|error| unsafe { insitu_task_cancel(task, error) }).is_ok();
    query().is(ErrorCode::Cancelled, "interrupted");
    let (mut source, name) = (stream(vec![numbers(0, 300_000)]), text("more"));
    ask(|error| {
        let (name, at) = (name.as_ptr(), &raw mut source);
        let (watched, none) = (&raw const watched, ptr::null_mut());
        // SAFETY: as described.
        unsafe { insitu_table_put(scene.region, name, at, watched, none, error) }
    })
    .is(ErrorCode::Cancelled, "interrupted");
    // SAFETY: as described.
    ask(|error| unsafe { insitu_task_release(task, error) }).is_ok();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_release(sums, error) }).is_ok();
    release(result);
    release(table);
}

#[test]
fn a_wait_is_cancelled_from_another_thread() {
    let scene = Scene::new();
    let mut task = InsituTask { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_task_create(&raw mut task, error) }).is_ok();
    let waiting = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let watched = InsituOptions { task, ..options() };
            let (name, mut found) = (text("never"), InsituTable { id: 0 });
            waiting.store(true, Ordering::Relaxed);
            ask(|error| {
                let (name, than, out) = (name.as_ptr(), InsituTable { id: 0 }, &raw mut found);
                // SAFETY: as described.
                unsafe {
                    insitu_table_wait(scene.region, name, than, &raw const watched, out, error)
                }
            })
            .is(ErrorCode::Cancelled, "interrupted");
        });
        while !waiting.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // SAFETY: as described.
        ask(|error| unsafe { insitu_task_cancel(task, error) }).is_ok();
    });
    // SAFETY: as described.
    ask(|error| unsafe { insitu_task_release(task, error) }).is_ok();
}
