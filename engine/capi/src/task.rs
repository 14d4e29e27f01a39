//! Tasks: how far a call is, and the word to stop, from another thread than the one that waits for
//! it.

use std::sync::atomic::{AtomicBool, Ordering};

use insitu::Progress;

use crate::args::Out;
use crate::handles::{self, InsituTask};
use crate::status::{InsituError, InsituStatus, enter};

/// What a task is made of.
#[derive(Debug, Default)]
pub(crate) struct Task {
    cancelled: AtomicBool,
    progress: Progress,
}

impl Task {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }
}

/// Makes a task, to be given to calls in their options.
///
/// # Safety
/// `task` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_task_create(
    task: *mut InsituTask,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(task, "task")?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(Task::default())?) };
        Ok(())
    })
}

/// Cancels the calls that were given the task, now and later: they end with `INSITU_CANCELLED` within
/// some 50 ms, unless they are done before. An update that has begun to write over the old values is
/// carried through.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_task_cancel(
    task: InsituTask,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        handles::get(task)?.cancelled.store(true, Ordering::Relaxed);
        Ok(())
    })
}

/// How far the calls are that were given the task: rows done, and rows to do as far as is known. A
/// later pass over the rows adds to both. `done` or `total` may be NULL.
///
/// # Safety
/// `done`, `total` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_task_progress(
    task: InsituTask,
    done: *mut u64,
    total: *mut u64,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let (done, total) = (Out::maybe(done, "done")?, Out::maybe(total, "total")?);
        let task = handles::get(task)?;
        if let Some(done) = done {
            // SAFETY: the caller's promise.
            unsafe { done.set(task.progress.done()) };
        }
        if let Some(total) = total {
            // SAFETY: the caller's promise.
            unsafe { total.set(task.progress.total()) };
        }
        Ok(())
    })
}

/// Releases a task. Calls that it was given to go on, and can no longer be cancelled.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_task_release(
    task: InsituTask,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::release(task))
}
