//! Leases: holds on a table's content for longer than one call.

use arrow_array::RecordBatch;
use insitu::{Error, Exclusive, UpdateOptions};

use crate::args::Out;
use crate::handles::{self, InsituLease, InsituTable};
use crate::options::{Heeds, INSITU_FLAG_EXCLUSIVE, InsituOptions, Options};
use crate::status::{InsituError, InsituStatus, enter};

/// What is held.
pub(crate) enum Lease {
    /// The content, beside others: as views of all of it, which own a lease.
    Shared { _views: Vec<RecordBatch> },
    /// The table, alone.
    Exclusive { _held: Exclusive },
}

/// Takes a lease on a table, which lasts until it is released.
///
/// A shared one keeps what the table holds now from being changed where it lies: updates write
/// beside it meanwhile, and swap, so that handles see the new content, and streams the old; those
/// that insist on writing in place are refused.
///
/// An exclusive one, with `INSITU_FLAG_EXCLUSIVE`, is the calling thread's: its queries and updates
/// of the table run, everybody else's wait, for ten seconds, and fail with `INSITU_LEASE_HELD`.
/// Keep those short. Streams cannot be exported under it: they could outlive it.
///
/// Heeds the options' timeout (how long to wait for others; 0: not at all for readers, ten seconds
/// for another update) of an exclusive one, and the task.
///
/// Errors: `INSITU_LEASE_HELD`, which names who; `INSITU_STALE` for a table that was replaced or
/// deleted; `INSITU_POISONED`, `INSITU_READ_ONLY`, `INSITU_CANCELLED`; `INSITU_UNSUPPORTED` for an
/// exclusive lease on a result without a name, which is this process's alone already.
///
/// # Safety
/// `options`, `lease` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_lease(
    table: InsituTable,
    options: *const InsituOptions,
    lease: *mut InsituLease,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(lease, "lease")?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, INSITU_FLAG_EXCLUSIVE, Heeds::Timeout) }?;
        if !options.has(INSITU_FLAG_EXCLUSIVE) && options.timeout().is_some() {
            return Err(Error::InvalidArgument(
                "the timeout is that of an exclusive lease; of a shared one, cancel by a task"
                    .into(),
            ));
        }
        let table = handles::get(table)?;
        let interrupt = || options.is_cancelled();
        let held = match options.has(INSITU_FLAG_EXCLUSIVE) {
            false => Lease::Shared { _views: table.to_batches_with(&interrupt)? },
            true => Lease::Exclusive {
                _held: table.exclusive(UpdateOptions {
                    timeout: options.timeout(),
                    interrupt: Some(&interrupt),
                    ..UpdateOptions::default()
                })?,
            },
        };
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(held)?) };
        Ok(())
    })
}

/// Releases a lease, from whatever thread.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_lease_release(
    lease: InsituLease,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::release(lease))
}
