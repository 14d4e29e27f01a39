//! Appending to a published table: a new revision that shares the buffers of the old one.
//!
//! Who appends is the table's updater, so that appends from several processes follow one another,
//! each on top of the last. The new rows are ingested as a `put` ingests them, into chunks of their
//! own; small chunks at the table's end are taken in, so that appends of few rows do not leave as
//! many chunks: a chunk takes in those before it while they are smaller than a zone and at most twice
//! what is already there. A row is thus copied a logarithmic number of times, since its chunk grows by
//! half at least; and a logarithmic number of small chunks stands at the end, whatever the sizes, since
//! each is more than twice all behind it.
//!
//! Statistics stand in an extent of their own, since every revision has its own: the zones of chunks
//! that stay are copied from the old buffer, those of the new rows come from their ingest.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Schema};
use insitu_query::ColumnStats;
use insitu_region::{Extent, Part, Patience, Pin, Updater};

use crate::conform::Conform;
use crate::error::{Error, Result};
use crate::export;
use crate::ingest::{self, Cut, Ingested};
use crate::layout::{Chunk, Column, Layout, Place, shape};
use crate::manifest;
use crate::region::{FIRST_CONTENT, Region, Shared};
use crate::statistics::{self, ZONE_ROWS};
use crate::storage::Storage;
use crate::table::Table;
use crate::version::Meta;
use crate::zones;

/// How long an append waits for other updates of the table.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks for the table's last revision, in which another has just been made.
const TRIES: u32 = 1_000;

impl Table {
    /// Appends batches to the table of this name, as a new revision, which is returned. It shares
    /// all buffers of the last one but those of small chunks at its end. This handle, and all
    /// others, stay on the rows that they have; [`Table::latest`] has all.
    ///
    /// # Errors
    /// `SchemaMismatch` for other columns or types (columns are found by name), `InvalidData`,
    /// `InvalidArgument` for a table without a name, `Stale` if the name stands for another table
    /// or none by now, `LeaseHeld` if another update of the table lasts longer than a minute,
    /// `Poisoned`, `RegionFull`, `LimitExceeded` for dictionaries that no longer fit their keys,
    /// `ReadOnly`, `Cancelled`. The table is as it was then.
    pub fn append(
        &self,
        schema: &Schema,
        batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Table> {
        let region = self.region();
        region.shared.check_open()?;
        let Some(name) = self.name() else {
            return Err(Error::InvalidArgument(
                "a result has no name, and nobody else could see what is appended to it; name it \
                 first"
                    .into(),
            ));
        };
        let own = self.schema();
        let conform = Conform::table(&own, schema)?;
        let mut columns: Vec<Vec<ArrayData>> = vec![Vec::new(); own.fields().len()];
        let mut rows = Vec::new();
        for batch in batches {
            if interrupt() {
                return Err(Error::Cancelled);
            }
            let batch = batch
                .map_err(|e| Error::InvalidData(format!("the source of the data failed: {e}")))?;
            let converted = conform.batch(&batch)?;
            if batch.num_rows() > 0 {
                rows.push(batch.num_rows());
                for (column, data) in columns.iter_mut().zip(converted) {
                    column.push(data);
                }
            }
        }
        let patience = Patience { timeout: PATIENCE, interrupt, what: "append" };
        let advice = "a revision would have a part in its memory; append when the block has ended";
        let updater = self.updater_of_last(name, &patience);
        let updater = updater.map_err(|error| self.advise(error, advice))?;
        let pin = updater.pin().clone();
        let base = region.shared.meta(&pin)?;
        if base.arrow.fields() != own.fields() {
            return Err(Error::SchemaMismatch(format!(
                "table {name:?} has other columns by now; get it again by its name"
            )));
        }
        if rows.is_empty() {
            let content = pin.content_version();
            return Ok(Table::new(region.clone(), base, Storage::Named(pin), content));
        }
        let revision = Revision { region, base: &base, pin: &pin };
        revision.make(updater, columns, rows, interrupt)
    }

    /// Becomes the updater of the last revision of this table.
    fn updater_of_last(&self, name: &str, patience: &Patience<'_>) -> Result<Updater> {
        let lost = || {
            Error::Stale(format!(
                "table {name:?} was replaced or deleted; get it again by its name to append to it"
            ))
        };
        for _ in 0..TRIES {
            let last = match self.region().shared.region.lookup(name).map_err(Error::from) {
                Ok(pin) => pin,
                Err(Error::TableNotFound { .. }) => return Err(lost()),
                Err(error) => return Err(error),
            };
            if !self.precedes(&last)? {
                return Err(lost());
            }
            let updater = match last.updater(patience).map_err(Error::from) {
                Ok(updater) => updater,
                // Another made a revision between the look and the taking.
                Err(Error::Stale(_)) => {
                    self.region().shared.check_open()?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if updater.pin().is_current() && self.precedes(updater.pin())? {
                return Ok(updater);
            }
        }
        Err(Error::Timeout(format!("others keep appending to table {name:?}")))
    }

    /// Whether a table is a later revision, or version, of this one.
    pub(crate) fn precedes(&self, last: &Pin) -> Result<bool> {
        let version = self.version()?;
        let Storage::Named(pin) = &version.storage else { return Ok(false) };
        if pin.sequence() == last.sequence() || pin.follow()?.sequence() == last.sequence() {
            return Ok(true);
        }
        let theirs = self.region().shared.meta(last)?;
        Ok(theirs.layout.origin_of(last.sequence())
            == version.meta.layout.origin_of(pin.sequence()))
    }
}

/// A revision in the making.
struct Revision<'a> {
    region: &'a Region,
    base: &'a Arc<Meta>,
    pin: &'a Pin,
}

impl Revision<'_> {
    fn make(
        &self,
        updater: Updater,
        mut columns: Vec<Vec<ArrayData>>,
        mut rows: Vec<usize>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Table> {
        let shared = &*self.region.shared;
        let schema = &self.base.arrow;
        let old = &self.base.layout;
        let added = rows.iter().map(|rows| *rows as u64).sum();
        let kept = kept(&old.chunks, added);
        let dictionaries = schema.fields().iter().any(|f| ingest::has_dictionary(f.data_type()));

        // What is taken in comes first; of a table with dictionaries at least their values, whose
        // keys then stay as they are.
        let from = match old.chunks.len().checked_sub(1) {
            Some(last) if dictionaries && kept > last => last,
            _ => kept,
        };
        let taken = old.chunks.get(from..).unwrap_or_default();
        if !taken.is_empty() {
            let table = Table::new(
                self.region.clone(),
                self.base.clone(),
                Storage::Named(self.pin.clone()),
                self.pin.content_version(),
            );
            let chunks = export::chunks(&table, taken, interrupt)?;
            let mut before = Vec::with_capacity(taken.len());
            for (number, chunk) in taken.iter().enumerate() {
                let whole = from + number >= kept;
                before.push(if whole { super::builder::exact(chunk.rows)? } else { 0 });
            }
            for (index, column) in columns.iter_mut().enumerate() {
                let arrays = chunks
                    .iter()
                    .zip(&before)
                    .filter_map(|(chunk, rows)| Some(chunk.get(index)?.slice(0, *rows)));
                let arrays: Vec<ArrayData> = arrays.collect();
                column.splice(0..0, arrays);
            }
            rows.splice(0..0, before);
        }
        let cut = Cut::Above(i32::MAX as u64);
        let made = ingest::ingest_columns(shared, schema, &columns, &rows, cut, interrupt)?;
        drop(columns);

        let mut chunks: Vec<Arc<Chunk>> = old.chunks.get(..kept).unwrap_or_default().to_vec();
        let mut new = made.layout.chunks.clone();
        if dictionaries {
            unify(schema, &mut chunks, &mut new);
        }
        let (statistics, stats) = self.statistics(shared, kept, &made)?;
        chunks.extend(new);
        let layout = Layout {
            rows: old.rows + added,
            chunks,
            statistics: Place { offset: statistics.offset(), len: statistics.len() },
            origin: old.origin_of(self.pin.sequence()),
        };
        // With many chunks, to write them all again would take longer than all the rest. After an
        // update in place the old message counts nulls that are no more.
        let message = match self.pin.content_version() {
            FIRST_CONTENT => manifest::encode_behind(self.pin.manifest()?, kept, schema, &layout),
            _ => manifest::encode(schema, &layout),
        }?;
        let spans = self.base.spans().get(..kept).unwrap_or_default();
        let shares = match dictionaries {
            true => layout.extents_in(&self.pin.extents()?),
            false => self.shares(kept, spans)?,
        };
        let mut spans = spans.to_vec();
        spans.extend(layout.chunks.iter().skip(kept).map(|chunk| chunk.span()));
        let mut parts = vec![Part::Extents(self.pin, &shares), Part::Owned(&statistics)];
        parts.extend(made.extents.iter().map(Part::Owned));
        let pin = updater.revise(&parts, &message)?;
        let meta = Meta::new(schema.clone(), layout, Some(stats));
        let meta = if dictionaries { meta } else { meta.with_spans(spans) };
        let meta = meta.checked_as(self.base);
        let meta = Arc::new(meta);
        // With one entry for each of many revisions, this process would remember each chunk as often.
        shared.forget(self.pin.sequence());
        shared.remember(pin.sequence(), FIRST_CONTENT, meta.clone());
        Ok(Table::new(self.region.clone(), meta, Storage::Named(pin), FIRST_CONTENT))
    }

    /// Which of the table's extents the first `kept` chunks lie in: all but those of the statistics
    /// and of the other chunks, unless something of the first lies in them as well. That is not
    /// asked of every buffer of every chunk, of which there may be many: `spans` says where the
    /// chunks lie.
    fn shares(&self, kept: usize, spans: &[(u64, u64)]) -> Result<Vec<(u64, u64)>> {
        let mut extents = self.pin.extents()?;
        let old = &self.base.layout;
        let left = Layout {
            chunks: old.chunks.get(kept..).unwrap_or_default().to_vec(),
            statistics: old.statistics,
            ..Layout::default()
        };
        let gone: Vec<(u64, u64)> = left
            .extents_in(&extents)
            .into_iter()
            .filter(|(offset, len)| {
                let end = offset.saturating_add(*len);
                spans.iter().all(|(from, to)| *to <= *offset || end <= *from)
            })
            .collect();
        extents.retain(|extent| !gone.contains(extent));
        Ok(extents)
    }

    /// The statistics of the first `kept` chunks, and of what was made, in an extent of their own;
    /// and what queries are told of them.
    fn statistics(
        &self,
        shared: &Shared,
        kept: usize,
        made: &Ingested,
    ) -> Result<(Extent, Vec<ColumnStats>)> {
        let types: Vec<&DataType> =
            self.base.arrow.fields().iter().map(|f| f.data_type()).collect();
        let rows = |chunks: &[Arc<Chunk>]| -> Vec<usize> {
            chunks.iter().map(|chunk| usize::try_from(chunk.rows).unwrap_or(usize::MAX)).collect()
        };
        let zones = |chunks: &[usize]| statistics::zones(chunks.iter().copied());
        let (old, chunks) = (&self.base.layout, rows(&self.base.layout.chunks));
        let (stay, count) = (chunks.get(..kept).unwrap_or_default(), zones(&chunks));
        let made_of = rows(&made.layout.chunks);
        let size = statistics::size(types.len(), zones(stay).saturating_add(zones(&made_of)));
        let extent = shared.allocate(size as u64)?;

        let place = made.layout.statistics;
        let new = shared.address(place)?;
        // SAFETY: `address` checked the range against the mapping, which the extent keeps.
        let new = unsafe {
            statistics::read_zones(new, place.len as usize, &types, &made_of, FIRST_CONTENT)
        };
        let place = old.statistics;
        let mut from = shared.address(place)?;
        let len = usize::try_from(place.len).unwrap_or(0);
        // SAFETY: `address` checked the ranges, which the pin keeps; the new extent is this
        // function's, and large enough for that many zones.
        let told = unsafe {
            let known = zones::are_true(from, len, self.pin.content_version())
                && zones::are_of(from, len, types.len(), count);
            if !known {
                from = std::ptr::null();
            }
            statistics::write_behind(extent.as_mut_ptr(), from, count, stay, &new)
        };
        Ok((extent, told))
    }
}

/// How many chunks stay as they are when `added` rows come behind them.
fn kept(chunks: &[Arc<Chunk>], added: u64) -> usize {
    let mut sum = added;
    let mut kept = chunks.len();
    while let Some(last) = kept.checked_sub(1).and_then(|at| chunks.get(at)) {
        if last.rows >= ZONE_ROWS as u64 || last.rows > sum.saturating_mul(2) {
            break;
        }
        sum += last.rows;
        kept -= 1;
    }
    kept
}

/// All chunks of a table use the same dictionaries: those that the new chunks came with, if they
/// have values that the old ones lack, else the old ones.
fn unify(schema: &Schema, old: &mut [Arc<Chunk>], new: &mut [Arc<Chunk>]) {
    let (Some(last), Some(first)) = (old.last().cloned(), new.first().cloned()) else { return };
    for (index, field) in schema.fields().iter().enumerate() {
        let (Some(before), Some(after)) = (last.columns.get(index), first.columns.get(index))
        else {
            continue;
        };
        if !ingest::has_dictionary(field.data_type()) {
            continue;
        }
        let grown = grew(field.data_type(), before, after);
        let (chunks, with) = if grown { (&mut *old, after) } else { (&mut *new, before) };
        for chunk in chunks {
            if let Some(column) = Arc::make_mut(chunk).columns.get_mut(index) {
                *column = adopt(field.data_type(), column, with);
            }
        }
    }
}

/// Whether a column has more dictionary values after an append than before, anywhere in it.
fn grew(dtype: &DataType, before: &Column, after: &Column) -> bool {
    let Ok(shape) = shape(dtype) else { return false };
    let mut pairs = before.children.iter().zip(&after.children);
    if shape.dictionary.is_some() {
        return pairs.any(|(before, after)| before.len != after.len);
    }
    let mut fields = shape.children.iter().zip(pairs);
    fields.any(|(field, (before, after))| grew(field.data_type(), before, after))
}

/// A column with the dictionaries of another.
fn adopt(dtype: &DataType, column: &Arc<Column>, with: &Column) -> Arc<Column> {
    let Ok(shape) = shape(dtype) else { return column.clone() };
    let mut adopted = (**column).clone();
    if shape.dictionary.is_some() {
        adopted.children = with.children.clone();
    } else {
        let children = adopted.children.iter_mut().zip(&with.children).zip(&shape.children);
        for ((child, with), field) in children {
            *child = adopt(field.data_type(), child, with);
        }
    }
    Arc::new(adopted)
}

#[cfg(test)]
mod tests;
