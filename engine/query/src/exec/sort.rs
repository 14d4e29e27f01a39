//! Sorting: the rows' order by the keys, then every column gathered in that order.

use std::sync::OnceLock;

use insitu_kernels::sort::{SortError, SortKey, argsort};
use insitu_kernels::take::{Index, TakeDst, TakeError, take, take_sizes};

use crate::compile::stage::{Stage, What};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::output::{Buffer, Column, Rows};
use crate::exec::run::{Job, columns, lost};
use crate::exec::source::SourceColumn;
use crate::exec::tile::Failed;
use crate::memory::{Memory, NewColumn};

pub(crate) fn run<'a>(
    job: &Job<'_, 'a>,
    keys: &[usize],
    descending: &[bool],
    nulls_last: bool,
) -> Result<Rows<'a>> {
    if u32::try_from(job.source.rows).is_ok_and(|n| n < u32::MAX) {
        run_with::<u32>(job, keys, descending, nulls_last)
    } else {
        run_with::<u64>(job, keys, descending, nulls_last)
    }
}

fn run_with<'a, I: Index>(
    job: &Job<'_, 'a>,
    keys: &[usize],
    descending: &[bool],
    nulls_last: bool,
) -> Result<Rows<'a>> {
    let stage = &job.compiled.stage;
    let rows = job.source.rows;
    let mut sort_keys = Vec::with_capacity(keys.len());
    for (key, descending) in keys.iter().zip(descending) {
        // A column of nulls orders nothing.
        if stage.schema.fields().get(*key).is_some_and(|f| f.dtype == DataType::Null) {
            continue;
        }
        let chunks = job.source.column(*key)?.chunks.as_slice();
        sort_keys.push(SortKey { chunks, descending: *descending, nulls_last });
    }
    let order: Vec<I> = argsort(&sort_keys, rows).map_err(|e| sort_error(stage, e))?;
    if let Some(p) = job.run.cx.progress {
        p.advance(rows as u64);
    }
    let made: Vec<OnceLock<NewColumn>> = stage.outputs.iter().map(|_| OnceLock::new()).collect();
    let (source, memory) = (job.source, job.memory);
    job.run.items(made.len(), 5.0 * rows as f64 * made.len() as f64, &|i| {
        let (Some(o), Some(slot)) = (stage.outputs.get(i), made.get(i)) else { return Ok(()) };
        if stage.needed.get(i) != Some(&true) {
            return Ok(());
        }
        let What::Input(c) = o.what else { return Err(Failed::at(0, lost())) };
        let column = source.column(c).map_err(|e| Failed::at(0, e))?;
        let taken = gather(memory, column, &order, &o.dtype, &o.name);
        let _ = slot.set(taken.map_err(|e| Failed::at(0, e))?);
        Ok(())
    })?;
    let mut made = made.into_iter().map(OnceLock::into_inner);
    let columns = columns(stage, |i, _| {
        let _ = i;
        Ok(Column::Skipped)
    })?;
    let columns: Result<Vec<Column<'a>>> = columns
        .into_iter()
        .zip(&stage.needed)
        .map(|(c, needed)| match (made.next().flatten(), needed) {
            (Some(column), true) => Ok(Column::New(column)),
            (None, true) => Err(lost()),
            _ => Ok(c),
        })
        .collect();
    Ok(Rows { rows, columns: columns? })
}

/// The rows of a column in that order.
pub(crate) fn gather<I: Index>(
    memory: &dyn Memory,
    column: &SourceColumn<'_>,
    order: &[I],
    dtype: &DataType,
    name: &str,
) -> Result<NewColumn> {
    if *dtype == DataType::Null {
        return Ok(NewColumn { null_count: order.len(), ..NewColumn::default() });
    }
    let fail = |e: TakeError| take_error(name, e);
    let sizes = take_sizes(&column.chunks, order, false).map_err(fail)?;
    let buffer = |bytes: usize| Buffer::new(memory, bytes);
    let values = buffer(sizes.values)?;
    let some = |bytes: usize| if bytes > 0 { buffer(bytes).map(Some) } else { Ok(None) };
    let (mut offsets, data) = (some(sizes.offsets)?, some(sizes.data)?);
    let validity = some(sizes.validity)?;
    let at = |b: &Option<Buffer>| b.map_or(std::ptr::null_mut(), |b| b.ptr.as_ptr());
    let dst = TakeDst {
        values: values.ptr.as_ptr(),
        offsets: at(&offsets),
        data: at(&data),
        validity: at(&validity),
        base: 0,
    };
    // SAFETY: the sizes are those of the same rows, and the buffers were just made for them.
    unsafe { take(&column.chunks, order, false, &sizes, &dst) }.map_err(fail)?;
    if offsets.is_none() && matches!(dtype, DataType::Utf8 | DataType::LargeUtf8) {
        let width = if *dtype == DataType::Utf8 { 4 } else { 8 };
        offsets = Some(buffer(width)?.zeroed());
    }
    let bits = |b: Buffer| Buffer { len: order.len().div_ceil(8), ..b };
    let values = if *dtype == DataType::Bool { bits(values) } else { values };
    Ok(NewColumn {
        null_count: sizes.nulls,
        validity: validity.map(|v| bits(v).finish()),
        values: Some(values.finish()),
        offsets: offsets.map(Buffer::finish),
        variadic: data.map(Buffer::finish).into_iter().collect(),
    })
}

pub(crate) fn take_error(name: &str, e: TakeError) -> Error {
    match e {
        TakeError::Corrupt(c) => Error::InvalidData(format!("column {name:?}: {c}")),
        TakeError::OffsetOverflow { bytes } => Error::LimitExceeded(format!(
            "column {name:?}: {bytes} bytes of strings do not fit 32-bit offsets; store it as large_utf8"
        )),
        other => Error::InvalidData(format!("column {name:?}: {other}")),
    }
}

fn sort_error(stage: &Stage, e: SortError) -> Error {
    let _ = stage;
    match e {
        SortError::OutOfMemory { bytes } => Error::OutOfMemory { bytes },
        SortError::Unsupported => Error::Unsupported(format!("sort: {e}")),
        SortError::TooManyRows => Error::LimitExceeded(format!("sort: {e}")),
        other => Error::InvalidData(format!("sort: {other}")),
    }
}
