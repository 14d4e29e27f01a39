//! Plans, prepared queries and updates.

use std::ffi::c_char;
use std::sync::Arc;

use insitu::{Error, Expr, Plan, Query, Result, RunOptions, UpdateOptions, text, wire};

use crate::args::{self, Out};
use crate::handles::{self, InsituPlan, InsituPrepared, InsituTable};
use crate::options::{
    Heeds, INSITU_FLAG_ATOMIC, INSITU_FLAG_CHECKED, INSITU_FLAG_IN_PLACE, InsituOptions, Options,
};
use crate::status::{InsituError, InsituStatus, enter};
use crate::table::hand;

/// Reads a plan from text: what to compute, and of which rows, as SELECT and WHERE of SQL.
///
/// `select` is a list of expressions, `"carrier, air_time / 60 AS hours"`, which are the columns of
/// the result; or `"*"` for all columns, possibly with expressions after it, which are added or
/// replace columns by name; NULL is `"*"`. `filter` is a condition, `"distance > $least and
/// carrier == 'AA'"`; NULL chooses all rows.
///
/// Expressions are written as in Python, with its operators and precedence: `and`, `or` and `not` are
/// `&`, `|` and `~`, but bind looser than comparisons. A name is a column, in backquotes if it is no
/// plain word; `$name` is a parameter; strings stand in single or double quotes; functions are those
/// of the engine, and `where(condition, a, b)` and `is_in(x, 1, 2)`. With aggregates only, as in
/// `"sum(price), len()"`, the result has one row. What cannot be said so (groups, an order) can be as
/// a message.
///
/// Errors: `INSITU_INVALID_PLAN`, with the position of what is wrong; `INSITU_LIMIT_EXCEEDED`.
/// Whether a table has the columns is checked when the plan meets it.
///
/// # Safety
/// `select`, `filter`, `plan` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_plan_parse(
    select: *const c_char,
    filter: *const c_char,
    plan: *mut InsituPlan,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(plan, "plan")?;
        // SAFETY: the caller's promise.
        let select = unsafe { args::text_if(select, "select") }?;
        // SAFETY: the caller's promise.
        let filter = unsafe { args::text_if(filter, "filter") }?;
        let plan = text::plan(select, filter)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(plan)?) };
        Ok(())
    })
}

/// Reads a plan from an `insitu.v1.Plan` message of Protocol Buffers, of `size` bytes.
///
/// Errors: `INSITU_INVALID_PLAN` for bytes that are none, `INSITU_LIMIT_EXCEEDED` for one that is too
/// large or too deep, `INSITU_INVALID_ARGUMENT` for functions that do not exist.
///
/// # Safety
/// `message` may be read for `size` bytes; `plan` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_plan_decode(
    message: *const u8,
    size: usize,
    plan: *mut InsituPlan,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(plan, "plan")?;
        // SAFETY: the caller's promise.
        let plan = wire::decode(unsafe { args::array(message, size, "message") }?)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(plan)?) };
        Ok(())
    })
}

/// Releases a plan. Queries that were prepared of it stay good.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_plan_release(
    plan: InsituPlan,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::release(plan))
}

fn query(table: InsituTable, plan: InsituPlan) -> Result<Query> {
    let (table, plan) = (handles::get(table)?, handles::get(plan)?);
    Ok(Query::new(table.clone(), plan.clone()))
}

/// Runs a plan over a table, once. The result lies in the region, as this process's own, until
/// `insitu_table_publish` gives it a name. Heeds `INSITU_FLAG_CHECKED`, the options' parameters and
/// task.
///
/// Errors: those of `insitu_prepare` and `insitu_prepared_run`.
///
/// # Safety
/// `options`, `result` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_query(
    table: InsituTable,
    plan: InsituPlan,
    options: *const InsituOptions,
    result: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(result, "result")?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, INSITU_FLAG_CHECKED, Heeds::Params) }?;
        let made = run(&query(table, plan)?.prepare()?, None, &options)?;
        // SAFETY: the caller's promise.
        unsafe { hand(Some(out), made) }
    })
}

/// Checks a plan against a table's columns and compiles it, to be run more than once. The prepared
/// query keeps the table's memory as a handle of the table does.
///
/// Errors: `INSITU_UNKNOWN_COLUMN` with the nearest name, `INSITU_TYPE_MISMATCH`,
/// `INSITU_INVALID_PLAN`, `INSITU_LIMIT_EXCEEDED`, `INSITU_UNSUPPORTED`.
///
/// # Safety
/// `prepared` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_prepare(
    table: InsituTable,
    plan: InsituPlan,
    prepared: *mut InsituPrepared,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(prepared, "prepared")?;
        let made = query(table, plan)?.prepare()?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(made)?) };
        Ok(())
    })
}

/// Runs a prepared query over what its table holds now, or over another table of the same columns
/// and region, if `table` is a handle (`(InsituTable){0}` if not). Several threads may run it at
/// once. Heeds `INSITU_FLAG_CHECKED`, the options' parameters and task.
///
/// The result lies in the region, as this process's own. Release it: its memory is warm then, and
/// the next result's.
///
/// Errors: `INSITU_SCHEMA_MISMATCH` for a table of other columns; `INSITU_INVALID_ARGUMENT` for a
/// parameter without a value, or a value without a parameter; `INSITU_REGION_FULL`;
/// `INSITU_CAST_FAILED` and `INSITU_OVERFLOW`, which name the row; `INSITU_LEASE_HELD`,
/// `INSITU_POISONED`, `INSITU_CANCELLED`.
///
/// # Safety
/// `options`, `result` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_prepared_run(
    prepared: InsituPrepared,
    table: InsituTable,
    options: *const InsituOptions,
    result: *mut InsituTable,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(result, "result")?;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, INSITU_FLAG_CHECKED, Heeds::Params) }?;
        let prepared = handles::get(prepared)?;
        let other = handles::get_if(table)?;
        let made = run(&prepared, other.as_deref(), &options)?;
        // SAFETY: the caller's promise.
        unsafe { hand(Some(out), made) }
    })
}

fn run(
    prepared: &insitu::Prepared,
    table: Option<&insitu::Table>,
    options: &Options<'_>,
) -> Result<insitu::Table> {
    let interrupt = || options.is_cancelled();
    let how = RunOptions {
        checked: options.has(INSITU_FLAG_CHECKED),
        interrupt: Some(&interrupt),
        progress: options.progress(),
    };
    prepared.run_with(table, &options.params, how)
}

/// How a prepared query is run, in words for people: writes at most `capacity` bytes to `buffer`,
/// the zero at the end included, and to `needed` how many there are. `buffer` may be NULL if
/// `capacity` is 0; `needed` may be NULL.
///
/// # Safety
/// `buffer` may be written to for `capacity` bytes; `needed` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_prepared_explain(
    prepared: InsituPrepared,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let text = handles::get(prepared)?.explain();
        // SAFETY: the caller's promise.
        unsafe { args::give_text(&text, buffer, capacity, needed) }
    })
}

/// Releases a prepared query. Runs that are under way go on.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_prepared_release(
    prepared: InsituPrepared,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::release(prepared))
}

/// Gives columns of a table new values: those of the plan's columns, by name, in the rows that its
/// filters choose (`insitu_plan_parse("price * 2 AS price", "size > 20", ...)`). Every expression
/// reads the old values, of all columns and all rows, also an aggregate in it. No column changes its
/// type, and none is added.
///
/// The values are written over the old ones where nobody else reads the table and nothing else
/// shares its memory; else the new columns are written beside the old and swapped in. Handles, in
/// all processes, see the new values at their next use; streams show what they showed.
/// `INSITU_FLAG_IN_PLACE` refuses to swap, `INSITU_FLAG_ATOMIC` always swaps. Heeds
/// `INSITU_FLAG_CHECKED` too, and the options' timeout (how long to wait for another update, 0: ten
/// seconds; with `INSITU_FLAG_IN_PLACE` also for readers, 0: not at all) and task, until the first
/// value is written over.
///
/// Errors: `INSITU_UNKNOWN_COLUMN`, `INSITU_TYPE_MISMATCH`; `INSITU_CAST_FAILED`, `INSITU_OVERFLOW`,
/// `INSITU_INVALID_DATA` for the first chosen row that fails, before any is changed; `INSITU_STALE`
/// for a table that was replaced or deleted; `INSITU_LEASE_HELD` and `INSITU_UNSUPPORTED` where it
/// has to be in place and cannot; `INSITU_INVALID_ARGUMENT` for a plan that is no filters and then
/// one list of columns, and for parameters in it; `INSITU_POISONED`, `INSITU_REGION_FULL`,
/// `INSITU_READ_ONLY`, `INSITU_CANCELLED`.
///
/// # Safety
/// `options` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_table_update(
    table: InsituTable,
    plan: InsituPlan,
    options: *const InsituOptions,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let flags = INSITU_FLAG_IN_PLACE | INSITU_FLAG_ATOMIC | INSITU_FLAG_CHECKED;
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, flags, Heeds::Timeout) }?;
        let (table, plan) = (handles::get(table)?, handles::get(plan)?);
        let (sets, condition) = assignments(&plan)?;
        let interrupt = || options.is_cancelled();
        let how = UpdateOptions {
            in_place: options.has(INSITU_FLAG_IN_PLACE),
            atomic: options.has(INSITU_FLAG_ATOMIC),
            checked: options.has(INSITU_FLAG_CHECKED),
            timeout: options.timeout(),
            interrupt: Some(&interrupt),
            what: "",
        };
        table.update(sets, condition, how)
    })
}

/// Columns with the expressions of their new values.
type Sets = Vec<(Arc<str>, Expr)>;

/// What a plan says to be an update.
fn assignments(plan: &Plan) -> Result<(Sets, Option<Expr>)> {
    let wrong = || {
        Error::InvalidArgument(
            "an update is a plan of filters and then one list of columns with their new values"
                .into(),
        )
    };
    let (Plan::Select { input, exprs } | Plan::WithColumns { input, exprs }) = plan else {
        return Err(wrong());
    };
    let sets = exprs.iter().map(|expr| (expr.output_name(), expr.clone()));
    let mut condition: Option<Expr> = None;
    let mut step: &Plan = input;
    while let Plan::Filter { input, predicates } = step {
        // The last filter first, each one's own in their order.
        for predicate in predicates.iter().rev() {
            condition = Some(match condition {
                Some(later) => predicate.and_(later),
                None => predicate.clone(),
            });
        }
        step = input;
    }
    match step {
        Plan::Scan => Ok((sets.collect(), condition)),
        _ => Err(wrong()),
    }
}
