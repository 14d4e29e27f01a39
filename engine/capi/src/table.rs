//! Tables: putting and opening them, their shape and their content.

use std::ffi::c_char;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_schema::ffi::FFI_ArrowSchema;
use insitu::{Error, PutOptions, Result, Table};

use crate::args::{self, Out};
use crate::arrow::{self, Source};
use crate::handles::{self, InsituRegion, InsituTable};
use crate::options::{Heeds, INSITU_FLAG_REPLACE, InsituOptions, InsituScalar, Options};
use crate::status::{InsituError, InsituStatus, enter};

/// Stores a handle of a table where it is wanted.
///
/// # Safety
/// What `out` was made of may be written to.
pub(crate) unsafe fn hand(out: Option<Out<InsituTable>>, table: Table) -> Result<()> {
    if let Some(out) = out {
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(table)?) };
    }
    Ok(())
}

/// Copies a stream of Arrow data into the region, as the table of that name: the one copy there is.
/// Statistics are gathered and the data is checked on the way; other processes see the table when it
/// is complete, or not at all.
///
/// The stream is the library's from then on: it is released, and its struct marked so, whether the
/// call succeeds or not. Heeds `INSITU_FLAG_REPLACE` and the options' task. `table` may be NULL.
///
/// Errors: `INSITU_TABLE_EXISTS`; `INSITU_REGION_FULL`; `INSITU_INVALID_DATA`, with column and row,
/// or with the words of a stream that fails; `INSITU_UNSUPPORTED` for union, run-end encoded and list
/// view columns; `INSITU_CANCELLED`. The region is as it was then.
///
/// # Safety
/// `stream` names a stream of the Arrow C stream interface; `name`, `options`, `table` and `error`
/// as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_put(
    region: InsituRegion,
    name: *const c_char,
    stream: *mut FFI_ArrowArrayStream,
    options: *const InsituOptions,
    table: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        // First of all: whatever is wrong with the rest, the stream is taken.
        // SAFETY: the caller's promise.
        let source = unsafe { Source::take(stream) }?;
        let out = Out::maybe(table, "table")?;
        // SAFETY: the caller's promise.
        let name = unsafe { args::text(name, "name") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, INSITU_FLAG_REPLACE, Heeds::Nothing) }?;
        let region = handles::get(region)?;
        let (schema, batches) = source.open()?;
        let interrupt = || options.is_cancelled();
        let how =
            PutOptions { replace: options.has(INSITU_FLAG_REPLACE), interrupt: Some(&interrupt) };
        let made = region.put_with(name, schema, batches, how)?;
        // SAFETY: the caller's promise.
        unsafe { hand(out, made) }
    })
}

/// Appends the rows of a stream to a table that has a name, as a new revision, which `appended`
/// becomes a handle of (it may be NULL). The old rows are shared; `table` and all other handles
/// stay on them. The stream is taken as by `insitu_table_put`. Heeds the options' task.
///
/// Errors: `INSITU_SCHEMA_MISMATCH`; `INSITU_STALE` for a table that has lost its name;
/// `INSITU_INVALID_ARGUMENT` for one without; those of `insitu_table_put`.
///
/// # Safety
/// As of `insitu_table_put`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_append(
    table: InsituTable,
    stream: *mut FFI_ArrowArrayStream,
    options: *const InsituOptions,
    appended: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        // SAFETY: the caller's promise.
        let source = unsafe { Source::take(stream) }?;
        let out = Out::maybe(appended, "appended")?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, 0, Heeds::Nothing) }?;
        let table = handles::get(table)?;
        let (schema, batches) = source.open()?;
        let made = table.append(&schema, batches, &|| options.is_cancelled())?;
        // SAFETY: the caller's promise.
        unsafe { hand(out, made) }
    })
}

/// Gives a table a name in a region: the result of a query its first, or another one. Its memory is
/// shared, not copied, if it lies in that region, but for very small results. Heeds
/// `INSITU_FLAG_REPLACE` and the options' task. `named` may be NULL.
///
/// Errors: `INSITU_TABLE_EXISTS`, `INSITU_REGION_FULL`, `INSITU_TABLE_LIMIT`, `INSITU_CANCELLED`.
///
/// # Safety
/// `name`, `options`, `named` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_publish(
    region: InsituRegion,
    name: *const c_char,
    table: InsituTable,
    options: *const InsituOptions,
    named: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::maybe(named, "named")?;
        // SAFETY: the caller's promise.
        let name = unsafe { args::text(name, "name") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, INSITU_FLAG_REPLACE, Heeds::Nothing) }?;
        let (region, table) = (handles::get(region)?, handles::get(table)?);
        let interrupt = || options.is_cancelled();
        let how =
            PutOptions { replace: options.has(INSITU_FLAG_REPLACE), interrupt: Some(&interrupt) };
        let made = region.put_table_with(name, &table, how)?;
        // SAFETY: the caller's promise.
        unsafe { hand(out, made) }
    })
}

/// Opens the table of that name, as it is now.
///
/// Errors: `INSITU_TABLE_NOT_FOUND`, with the nearest name.
///
/// # Safety
/// `name`, `table` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_open(
    region: InsituRegion,
    name: *const c_char,
    table: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(table, "table")?;
        // SAFETY: the caller's promise.
        let name = unsafe { args::text(name, "name") }?;
        let found = handles::get(region)?.get(name)?;
        // SAFETY: the caller's promise.
        unsafe { hand(Some(out), found) }
    })
}

/// Waits until there is a table of that name, and, if `newer_than` is a handle, until it is newer
/// than that one: put, appended to or updated since. Opens it. Heeds the options' timeout (0: for
/// ever) and task.
///
/// Errors: `INSITU_TIMEOUT`, `INSITU_CANCELLED`.
///
/// # Safety
/// `name`, `options`, `table` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_wait(
    region: InsituRegion,
    name: *const c_char,
    newer_than: InsituTable,
    options: *const InsituOptions,
    table: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(table, "table")?;
        // SAFETY: the caller's promise.
        let name = unsafe { args::text(name, "name") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, 0, Heeds::Timeout) }?;
        let (region, than) = (handles::get(region)?, handles::get_if(newer_than)?);
        let interrupt = || options.is_cancelled();
        let found = region.wait(name, than.as_deref(), options.timeout(), &interrupt)?;
        // SAFETY: the caller's promise.
        unsafe { hand(Some(out), found) }
    })
}

/// Opens what the table's name stands for now. A result without a name is its own latest.
///
/// Errors: `INSITU_TABLE_NOT_FOUND` if the name is gone.
///
/// # Safety
/// `latest` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_latest(
    table: InsituTable,
    latest: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(latest, "latest")?;
        let found = handles::get(table)?.latest()?;
        // SAFETY: the caller's promise.
        unsafe { hand(Some(out), found) }
    })
}

/// Deletes the name of a table. Handles and streams of it stay good, and its memory is free when the
/// last of them, in all processes, is released.
///
/// Errors: `INSITU_TABLE_NOT_FOUND`.
///
/// # Safety
/// `name` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_delete(
    region: InsituRegion,
    name: *const c_char,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        // SAFETY: the caller's promise.
        let name = unsafe { args::text(name, "name") }?;
        handles::get(region)?.delete(name)
    })
}

/// How many rows and columns a table has. `rows` or `columns` may be NULL.
///
/// # Safety
/// `rows`, `columns` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_shape(
    table: InsituTable,
    rows: *mut u64,
    columns: *mut u64,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let (rows, columns) = (Out::maybe(rows, "rows")?, Out::maybe(columns, "columns")?);
        let table = handles::get(table)?;
        if let Some(rows) = rows {
            // SAFETY: the caller's promise.
            unsafe { rows.set(table.num_rows()) };
        }
        if let Some(columns) = columns {
            // SAFETY: the caller's promise.
            unsafe { columns.set(table.num_columns() as u64) };
        }
        Ok(())
    })
}

/// The names and types of a table's columns: a struct type with one field for each. Release it by
/// its own `release`.
///
/// # Safety
/// `schema` and `error` as in all functions; what `schema` held is overwritten.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_schema(
    table: InsituTable,
    schema: *mut FFI_ArrowSchema,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(schema, "schema")?;
        let schema = handles::get(table)?.schema();
        // SAFETY: the caller's promise.
        unsafe { arrow::give_schema(&out, &schema) }
    })
}

/// Hands a table out as a stream of Arrow arrays, without a copy: they point into the region, to
/// memory that cannot be written through them, aligned to 64 bytes. One array of structs for each
/// chunk of the table.
///
/// Until the stream and all arrays of it are released, by their own `release`, they hold a shared
/// lease: nobody changes what they show, whatever becomes of the table, its handles and the region.
/// Heeds the options' task, while somebody changes the table just now.
///
/// Errors: `INSITU_LEASE_HELD` if somebody has the table exclusively for long; `INSITU_POISONED`;
/// `INSITU_CANCELLED`.
///
/// # Safety
/// `options`, `stream` and `error` as in all functions; what `stream` held is overwritten.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_export(
    table: InsituTable,
    options: *const InsituOptions,
    stream: *mut FFI_ArrowArrayStream,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(stream, "stream")?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, 0, Heeds::Nothing) }?;
        let table = handles::get(table)?;
        let batches = table.to_batches_with(&|| options.is_cancelled())?;
        // SAFETY: the caller's promise.
        unsafe { arrow::give(&out, table.schema(), batches) };
        Ok(())
    })
}

/// The value of a query's result that has one row and one column: a number, a boolean or null.
///
/// Errors: `INSITU_SHAPE_MISMATCH` for a table of another shape; `INSITU_UNSUPPORTED` for a value of
/// another type, and for a table that has a name, whose content may change: export these.
///
/// # Safety
/// `value` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_value(
    table: InsituTable,
    value: *mut InsituScalar,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(value, "value")?;
        let table = handles::get(table)?;
        let (rows, columns) = (table.num_rows(), table.num_columns());
        if (rows, columns) != (1, 1) {
            return Err(Error::ShapeMismatch(format!(
                "a value is of one row and one column, the table has {rows} rows and {columns} \
                 columns; export it"
            )));
        }
        let value = table.only_value()?.as_ref().and_then(InsituScalar::of).ok_or_else(|| {
            Error::Unsupported(
                "a value is a number, a boolean or null of a result without a name; export the \
                 table"
                    .into(),
            )
        })?;
        // SAFETY: the caller's promise.
        unsafe { out.set(value) };
        Ok(())
    })
}

/// Accepts the content of a poisoned table as it is: each row is old or new. (A table is poisoned if
/// a process died while it changed it in place.) Of another table nothing changes.
///
/// Errors: `INSITU_LEASE_HELD`, `INSITU_READ_ONLY`.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_repair(
    table: InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::get(table)?.repair())
}

/// Releases a handle of a table. The table itself stays if it has a name; a result without one is
/// gone with its last handle and stream.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_release(
    table: InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::release(table))
}
