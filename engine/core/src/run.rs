//! Makes a table of what a query returned: which columns it wrote, which it shares with its
//! source, and who keeps the bytes of either.

use std::sync::Arc;

use arrow_array::Array;
use arrow_schema::{Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use insitu_query::{ColumnStats, DataType, NewColumn, Output, OutputColumn};

use crate::error::{Error, Result};
use crate::exclusive::Hold;
use crate::export;
use crate::ingest::{self, Cut};
use crate::layout::{Chunk, Column, Layout, Place};
use crate::memory::ResultMemory;
use crate::region::Region;
use crate::storage::{Anonymous, Storage};
use crate::table::Table;
use crate::types;
use crate::version::{Meta, Version};

/// The name that a result gets.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    /// The name.
    pub name: &'a str,
    /// Whether a table of that name is replaced.
    pub replace: bool,
}

/// A result, ready to become a table.
pub(crate) struct Made {
    /// Where its buffers lie.
    pub layout: Layout,
    /// What keeps them there.
    pub keep: Anonymous,
    /// What is known of its columns.
    pub stats: Option<Vec<ColumnStats>>,
}

/// For each column of a result, the column of the source that it is, untouched.
pub(crate) fn origins(output: &Output) -> Vec<Option<usize>> {
    output
        .columns
        .iter()
        .map(|column| match column {
            OutputColumn::Shared { source } => Some(*source),
            OutputColumn::New(_) => None,
        })
        .collect()
}

/// Puts together the layout of a result over `table`; `hold` is what the run had on it.
pub(crate) fn assemble(
    table: &Arc<Version>,
    hold: Hold,
    memory: ResultMemory<'_>,
    output: Output,
    interrupt: &dyn Fn() -> bool,
) -> Result<Made> {
    let source = &table.meta;
    let rows = output.rows as u64;
    let shares = output.columns.iter().any(|c| matches!(c, OutputColumn::Shared { .. }));
    let mixed = shares && output.columns.iter().any(|c| matches!(c, OutputColumn::New(_)));

    let mut made: Vec<Option<Arc<Column>>> = Vec::with_capacity(output.columns.len());
    for (field, column) in output.schema.fields().iter().zip(&output.columns) {
        made.push(match column {
            OutputColumn::Shared { .. } => None,
            OutputColumn::New(new) => Some(Arc::new(new_column(&memory, &field.dtype, new, rows)?)),
        });
    }
    if shares && rows != source.layout.rows {
        return Err(Error::ShapeMismatch(
            "a result shares columns of its source but not its rows".into(),
        ));
    }
    let mut keep = memory.finish();
    // The new columns chunk by chunk, where the source has several.
    let mut cut = Vec::new();
    if mixed && source.layout.chunks.len() != 1 {
        let fields = output.schema.fields().iter().zip(&made).filter(|(_, made)| made.is_some());
        let fields = fields.map(|(field, _)| field).collect::<Vec<_>>();
        let columns = made.iter().flatten().cloned().collect();
        (cut, keep) = cut_like(table, &fields, Chunk { rows, columns }, keep, interrupt)?;
    }
    let mut copied = None;
    if shares && matches!(hold, Hold::Own(_)) {
        copied = Some(copy_shared(table, &origins(&output), &mut keep, interrupt)?);
    }
    let chunks = if !shares {
        vec![Arc::new(Chunk { rows, columns: made.into_iter().flatten().collect() })]
    } else {
        let mut chunks = Vec::with_capacity(source.layout.chunks.len());
        for (number, chunk) in source.layout.chunks.iter().enumerate() {
            let mut new = cut.get(number).map(|chunk: &Arc<Chunk>| chunk.columns.iter());
            let mut columns = Vec::with_capacity(made.len());
            for (made, column) in made.iter().zip(&output.columns) {
                columns.push(match (made, column) {
                    (Some(made), _) => {
                        new.as_mut().and_then(Iterator::next).unwrap_or(made).clone()
                    }
                    (None, OutputColumn::Shared { source }) => {
                        let column = match &copied {
                            Some(copied) => copied.column(number, *source),
                            None => chunk.columns.get(*source).cloned(),
                        };
                        column.ok_or_else(|| {
                            Error::ShapeMismatch(
                                "a result shares a column that is not there".into(),
                            )
                        })?
                    }
                    (None, OutputColumn::New(_)) => continue,
                });
            }
            chunks.push(Arc::new(Chunk { rows: chunk.rows, columns }));
        }
        chunks
    };
    let mut stats = None;
    if shares {
        match (&table.storage, &hold) {
            (Storage::Named(_), Hold::Shared(lease)) => keep.share_lease(&lease.kept()?),
            (Storage::Named(_), _) => {}
            (Storage::Anonymous(anonymous), _) => keep.share(anonymous),
        }
        stats = source.stats.as_ref().map(|known| {
            origins(&output)
                .into_iter()
                .map(|origin| origin.and_then(|i| known.get(i)).copied().unwrap_or_default())
                .collect()
        });
    }
    Ok(Made { layout: Layout { rows, chunks, ..Layout::default() }, keep, stats })
}

/// Columns of a table that were copied for a result, chunk by chunk.
struct Copied {
    /// Which columns of the table, ascending.
    sources: Vec<usize>,
    chunks: Vec<Arc<Chunk>>,
}

impl Copied {
    fn column(&self, chunk: usize, source: usize) -> Option<Arc<Column>> {
        let at = self.sources.binary_search(&source).ok()?;
        self.chunks.get(chunk)?.columns.get(at).cloned()
    }
}

/// Copies the columns that a result would share with a table in whose memory nobody may have a part.
fn copy_shared(
    table: &Arc<Version>,
    origins: &[Option<usize>],
    keep: &mut Anonymous,
    interrupt: &dyn Fn() -> bool,
) -> Result<Copied> {
    let mut sources: Vec<usize> = origins.iter().flatten().copied().collect();
    sources.sort_unstable();
    sources.dedup();
    let shared = &table.region.shared;
    let (arrow, chunks) = (&table.meta.arrow, &table.meta.layout.chunks);
    let fields: Vec<_> = sources.iter().filter_map(|i| arrow.fields().get(*i)).cloned().collect();
    let schema = Arc::new(ArrowSchema::new(fields));
    let rows: Vec<usize> = chunks.iter().map(|chunk| size(chunk.rows)).collect::<Result<_>>()?;
    let columns = export::to_copy(table, &sources)?;
    let made =
        ingest::ingest_columns(shared, &schema, &columns, &rows, Cut::EveryBatch, interrupt)?;
    shared.counters.copy(made.extents.iter().map(|extent| extent.len()).sum());
    keep.extents.extend(made.extents.into_iter().map(Arc::new));
    Ok(Copied { sources, chunks: made.layout.chunks })
}

fn size(rows: u64) -> Result<usize> {
    let too_long = |_| Error::corrupt("a table has more rows than memory has bytes");
    usize::try_from(rows).map_err(too_long)
}

/// Copies new columns so that they have the chunks of `table`: a chunk's buffers begin at aligned
/// addresses, which rows in the middle of a result do not.
fn cut_like(
    table: &Version,
    fields: &[&insitu_query::Field],
    whole: Chunk,
    keep: Anonymous,
    interrupt: &dyn Fn() -> bool,
) -> Result<(Vec<Arc<Chunk>>, Anonymous)> {
    let mut arrow = Vec::with_capacity(fields.len());
    for field in fields {
        let dtype = types::to_arrow(&field.dtype).ok_or_else(|| {
            Error::Unsupported(format!("a query cannot produce a column of type {}", field.dtype))
        })?;
        arrow.push(ArrowField::new(&*field.name, dtype, field.nullable));
    }
    let schema = Arc::new(ArrowSchema::new(arrow));
    let layout = Layout { rows: whole.rows, chunks: vec![Arc::new(whole)], ..Layout::default() };
    let result = anonymous(&table.region, schema.clone(), layout, keep, None);
    let shared = &table.region.shared;
    shared.counters.copy(result.nbytes());

    let chunks = &table.meta.layout.chunks;
    let rows = chunks.iter().map(|chunk| size(chunk.rows));
    let rows = rows.collect::<Result<Vec<usize>>>()?;
    let mut columns = Vec::with_capacity(fields.len());
    for index in 0..fields.len() {
        let mut start = 0;
        let mut slices = Vec::with_capacity(rows.len());
        for array in result.column(index)? {
            for rows in &rows {
                slices.push(array.slice(start, *rows).to_data());
                start += rows;
            }
        }
        columns.push(slices);
    }
    let made =
        ingest::ingest_columns(shared, &schema, &columns, &rows, Cut::EveryBatch, interrupt)?;
    let extents = made.extents.into_iter().map(Arc::new).collect();
    Ok((made.layout.chunks, Anonymous { extents, ..Anonymous::default() }))
}

/// The layout of a column that the query wrote.
fn new_column(
    memory: &ResultMemory<'_>,
    dtype: &DataType,
    new: &NewColumn,
    rows: u64,
) -> Result<Column> {
    let place = |span: Option<insitu_query::Span>| match span {
        Some(span) if span.len > 0 => memory.place(span),
        _ => Ok(Place::default()),
    };
    let mut buffers = Vec::with_capacity(2);
    match dtype {
        DataType::Null => {}
        DataType::Utf8 | DataType::LargeUtf8 => {
            buffers.push(place(new.offsets)?);
            buffers.push(place(new.values)?);
        }
        _ => {
            buffers.push(place(new.values)?);
            for span in &new.variadic {
                buffers.push(place(Some(*span))?);
            }
        }
    }
    Ok(Column {
        len: rows,
        null_count: Some(new.null_count as u64),
        validity: place(new.validity)?,
        buffers,
        children: Vec::new(),
    })
}

/// A table without a name.
pub(crate) fn anonymous(
    region: &Region,
    schema: SchemaRef,
    layout: Layout,
    keep: Anonymous,
    stats: Option<Vec<ColumnStats>>,
) -> Table {
    nameless(region, Meta::new(schema, layout, stats), keep)
}

/// The same, of what is known of it.
pub(crate) fn nameless(region: &Region, meta: Meta, keep: Anonymous) -> Table {
    Table::new(region.clone(), Arc::new(meta), Storage::Anonymous(keep), 0)
}
