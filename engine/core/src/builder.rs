//! Building tables in place: the memory comes first, then the values.
//!
//! With a known number of rows, fixed-width columns are handed out as writable memory of the region
//! (`fixed`), to be filled where they will stay; without, batches are appended to buffers that grow
//! where they lie (`growing`). In both ways nobody sees the table before it is sealed: checked, its
//! statistics gathered, and published in one step. Whatever was handed out is read-only from then
//! on. A builder that is dropped, or whose process dies, leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;

use arrow_array::RecordBatch;
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use insitu_query::ColumnStats;
use insitu_region::{Building, Extent, ForkGuard, ForkMutex, fork_generation};

use crate::conform::Conform;
use crate::error::{Error, Result};
use crate::layout::{Column, Layout};
use crate::region::{Region, Shared};
use crate::statistics::ColumnZones;
use crate::storage::{Anonymous, Storage};
use crate::table::Table;
use fixed::Fixed;
use growing::Growing;

mod fixed;
mod growing;
pub(crate) mod pack;
pub(crate) mod sheet;
mod store;
#[cfg(test)]
mod tests;
mod zones;

pub use sheet::Canvas;

/// How a table is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// The number of rows; `None` if it is not known.
    pub rows: Option<u64>,
    /// Whether a table of that name is replaced; if not, it is `TableExists`.
    pub replace: bool,
    /// Whether values that are not stored are zero; if not, they are what memory holds.
    pub zero: bool,
}

/// A table that is being built. All methods may be called from any thread.
pub struct Builder {
    region: Region,
    name: String,
    schema: SchemaRef,
    options: BuildOptions,
    /// Locked for as long as something works on it, which may ask others for batches. Whoever only
    /// looks finds what it came to last in the three that follow.
    state: ForkMutex<State>,
    open: AtomicBool,
    rows: AtomicU64,
    table: ForkMutex<Option<Table>>,
    /// The thread that has the state locked.
    worker: ForkMutex<Option<ThreadId>>,
    /// The process that began it.
    process: u64,
    /// What others see of it, as long as it is open.
    note: ForkMutex<Option<Building>>,
}

/// The state of a builder, for one thread to work on.
struct Turn<'a> {
    builder: &'a Builder,
    state: ForkGuard<'a, State>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let builder = self.builder;
        let known = builder.options.rows.unwrap_or(0);
        let rows = match &*self.state {
            State::Growing(growing) => growing.rows(),
            State::Sealed(table) => {
                *builder.table.lock() = Some(table.clone());
                table.num_rows()
            }
            State::Fixed(_) | State::Discarded => known,
        };
        builder.rows.store(rows, Ordering::Relaxed);
        let taken = match &*self.state {
            State::Fixed(fixed) => Some(fixed.bytes()),
            State::Growing(growing) => Some(growing.bytes()),
            State::Sealed(_) | State::Discarded => None,
        };
        let mut note = builder.note.lock();
        match (taken, &*note) {
            (Some(taken), Some(note)) => note.set_bytes(taken),
            _ => *note = None,
        }
        drop(note);
        builder.open.store(taken.is_some(), Ordering::Release);
        *builder.worker.lock() = None;
    }
}

#[derive(Default)]
enum State {
    Fixed(Fixed),
    Growing(Growing),
    Sealed(Table),
    #[default]
    Discarded,
}

/// What a builder made: memory, and what lies in it.
pub(crate) struct Made {
    /// The memory.
    pub extents: Vec<Extent>,
    /// Where the buffers lie.
    pub layout: Layout,
    /// What is known of the columns.
    pub stats: Vec<ColumnStats>,
}

impl Region {
    /// Begins a table of that name and schema.
    ///
    /// # Errors
    /// `TableExists`, here and once more when it is sealed; `InvalidArgument` for a schema with two
    /// columns of one name; `Unsupported` for types that a region does not hold; `RegionFull`;
    /// `ReadOnly`; `Stale`.
    pub fn build(&self, name: &str, schema: SchemaRef, options: BuildOptions) -> Result<Builder> {
        self.shared.check_open()?;
        if self.is_read_only() {
            return Err(insitu_region::Error::ReadOnly.into());
        }
        self.refuse_taken(name, options.replace)?;
        fixed::check_types(&schema)?;
        for (index, field) in schema.fields().iter().enumerate() {
            if schema.fields().iter().skip(index + 1).any(|other| other.name() == field.name()) {
                return Err(Error::InvalidArgument(format!(
                    "two columns are called {:?}; a builder finds them by name",
                    field.name()
                )));
            }
        }
        let note = self.shared.region.building(name)?;
        let state = match options.rows {
            Some(rows) => State::Fixed(Fixed::new(&self.shared, &schema, rows, options.zero)?),
            None => State::Growing(Growing::new(&self.shared, &schema)?),
        };
        let builder = Builder {
            region: self.clone(),
            name: name.to_owned(),
            schema,
            options,
            state: ForkMutex::new(state),
            open: AtomicBool::new(true),
            rows: AtomicU64::new(options.rows.unwrap_or(0)),
            table: ForkMutex::default(),
            worker: ForkMutex::default(),
            process: fork_generation(),
            note: ForkMutex::new(Some(note)),
        };
        // Says how much memory it has taken.
        drop(builder.turn()?);
        Ok(builder)
    }
}

impl Builder {
    /// The name that the table will have.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The schema that it will have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The number of rows that it will have, or, if that is not known, has so far.
    pub fn num_rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// The table, once it is sealed.
    pub fn table(&self) -> Option<Table> {
        self.table.lock().clone()
    }

    /// Whether it was neither sealed nor discarded.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Waits for other threads that work on it.
    fn turn(&self) -> Result<Turn<'_>> {
        let me = Some(std::thread::current().id());
        if *self.worker.lock() == me {
            return Err(Error::InvalidArgument(
                "the builder is at work for this thread: where its data comes from, it can be \
                 looked at, but not used"
                    .into(),
            ));
        }
        let state = self.state.lock();
        *self.worker.lock() = me;
        Ok(Turn { builder: self, state })
    }

    /// The position of a column.
    ///
    /// # Errors
    /// `UnknownColumn` with the nearest name.
    pub fn column_index(&self, name: &str) -> Result<usize> {
        Ok(crate::types::schema_from_arrow(&self.schema).index_of(name)?)
    }

    fn dtype(&self, index: usize) -> Result<&DataType> {
        let field = self.schema.fields().get(index);
        field
            .map(|field| field.data_type())
            .ok_or_else(|| Error::InvalidArgument(format!("there is no column {index}")))
    }

    /// Refuses a forked child: the memory is still its parent's to fill.
    fn check_process(&self) -> Result<()> {
        if self.process == fork_generation() {
            return Ok(());
        }
        Err(Error::Stale(
            "the builder was begun by the parent process, which goes on with it; begin another in \
             the child"
                .into(),
        ))
    }

    fn with_fixed<T>(&self, work: impl FnOnce(&mut Fixed) -> Result<T>) -> Result<T> {
        self.check_process()?;
        match &mut *self.turn()?.state {
            State::Fixed(fixed) => {
                self.region.shared.check_open()?;
                work(fixed)
            }
            State::Growing(_) => Err(Error::InvalidArgument(
                "the number of rows is not known, so that columns cannot be filled by hand; append \
                 batches, or build with rows="
                    .into(),
            )),
            done => Err(done.done()),
        }
    }

    /// A column's values, to be filled where they will stay; of booleans a byte each, packed when
    /// the table is sealed.
    ///
    /// # Errors
    /// `TypeMismatch` for columns whose values have no fixed width; `InvalidArgument` if the number
    /// of rows is not known, or the table was sealed; `Stale` if it was discarded.
    pub fn values(&self, index: usize) -> Result<Canvas> {
        self.dtype(index)?;
        self.with_fixed(|fixed| fixed.values(index))
    }

    /// Which rows of a column are valid, a byte each. All are, until something else is stored.
    ///
    /// # Errors
    /// Those of [`Builder::values`].
    pub fn validity(&self, index: usize) -> Result<Canvas> {
        self.dtype(index)?;
        self.with_fixed(|fixed| fixed.validity(index))
    }

    /// Says that no row of a column is null.
    ///
    /// # Errors
    /// Those of [`Builder::values`].
    pub fn all_valid(&self, index: usize) -> Result<()> {
        self.dtype(index)?;
        self.with_fixed(|fixed| fixed.all_valid(index))
    }

    /// Gives a column all its values, whatever it had before. The arrays are copied.
    ///
    /// # Errors
    /// `ShapeMismatch` for another number of rows, `TypeMismatch` for another type,
    /// `InvalidData`, `RegionFull`, `Cancelled`, and those of [`Builder::values`].
    pub fn assign(
        &self,
        index: usize,
        arrays: Vec<ArrayData>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<()> {
        let field = self.schema.fields().get(index).cloned();
        let field =
            field.ok_or_else(|| Error::InvalidArgument(format!("there is no column {index}")))?;
        let conform = Conform::column(&field);
        let arrays = arrays.into_iter().map(|data| conform.data(0, data));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        self.with_fixed(|fixed| {
            fixed
                .assign(&self.region.shared, index, arrays, interrupt)
                .map_err(|e| crate::ingest::in_column(e, field.name()))
        })
    }

    /// Appends batches, which are copied. Columns are found by name. Of the batch at which it
    /// fails, nothing is appended; what came before it stays.
    ///
    /// # Errors
    /// `SchemaMismatch`, `InvalidData`, `RegionFull`, `LimitExceeded`, `Cancelled`;
    /// `InvalidArgument` if the number of rows is known, or the table was sealed; `Stale` if it was
    /// discarded.
    pub fn append(
        &self,
        schema: &Schema,
        batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.check_process()?;
        let mut turn = self.turn()?;
        let growing = match &mut *turn.state {
            State::Growing(growing) => growing,
            State::Fixed(_) => {
                return Err(Error::InvalidArgument(
                    "the number of rows is known; fill or assign the columns, or build without \
                     rows= to append"
                        .into(),
                ));
            }
            done => return Err(done.done()),
        };
        self.region.shared.check_open()?;
        let conform = Conform::table(&self.schema, schema)?;
        for batch in batches {
            if interrupt() {
                return Err(Error::Cancelled);
            }
            let batch = batch
                .map_err(|e| Error::InvalidData(format!("the source of the data failed: {e}")))?;
            let columns = conform.batch(&batch)?;
            growing.append(&self.region, &columns, batch.num_rows(), interrupt)?;
        }
        Ok(())
    }

    /// Publishes the table. What was handed out is read-only from now on.
    ///
    /// # Errors
    /// `TableExists` if the name was taken meanwhile; `InvalidData` naming column and row;
    /// `ShapeMismatch` for columns that were never assigned; `RegionFull`, `TableLimit`,
    /// `Cancelled`, `Stale`. The builder is discarded then.
    pub fn seal(&self, interrupt: &dyn Fn() -> bool) -> Result<Table> {
        self.check_process()?;
        let mut turn = self.turn()?;
        let state = &mut turn.state;
        let shared = &self.region.shared;
        // Until it is published, a failure leaves a discarded builder.
        match std::mem::replace(&mut **state, State::Discarded) {
            State::Fixed(mut fixed) => {
                let sealed = shared
                    .check_open()
                    .and_then(|()| fixed.seal(shared, interrupt))
                    .and_then(|made| self.publish(made));
                match sealed {
                    Ok(table) => {
                        if let Storage::Named(pin) = &table.seen().storage {
                            fixed.keep(pin);
                        }
                        **state = State::Sealed(table.clone());
                        Ok(table)
                    }
                    Err(e) => {
                        fixed.revoke();
                        Err(e)
                    }
                }
            }
            State::Growing(growing) => {
                shared.check_open()?;
                let table = self.publish(growing.seal(&self.region, interrupt)?)?;
                **state = State::Sealed(table.clone());
                Ok(table)
            }
            done => {
                let error = done.done();
                **state = done;
                Err(error)
            }
        }
    }

    fn publish(&self, made: Made) -> Result<Table> {
        let extents = made.extents.into_iter().map(Arc::new).collect();
        let keep = Anonymous { extents, ..Anonymous::default() };
        let (layout, stats) = (made.layout, Some(made.stats));
        let (schema, replace) = (self.schema.clone(), self.options.replace);
        let table = self.region.publish(&self.name, schema, layout, stats, &keep, replace)?;
        table.seen().meta.set_checked();
        Ok(table)
    }

    /// Gives the memory back. What was handed out shows zeros, read-only, from now on. A sealed
    /// table stays.
    ///
    /// # Errors
    /// `InvalidArgument` in the midst of an append or an assignment by this thread.
    pub fn discard(&self) -> Result<()> {
        let mut turn = self.turn()?;
        if let State::Fixed(_) | State::Growing(_) = &*turn.state {
            let before = std::mem::replace(&mut *turn.state, State::Discarded);
            if let State::Fixed(fixed) = &before {
                // First: the memory may be another's at once.
                fixed.revoke();
            }
        }
        Ok(())
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        let _ = self.discard();
    }
}

impl State {
    /// What asking a builder that is done is told.
    fn done(&self) -> Error {
        match self {
            State::Sealed(_) => Error::InvalidArgument(
                "the table was sealed, and cannot be built on; append to the table itself".into(),
            ),
            _ => Error::Stale("the builder was discarded; begin another".into()),
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("rows", &self.num_rows())
            .finish_non_exhaustive()
    }
}

/// A number of rows or bytes that this process can address.
pub(crate) fn exact(value: u64) -> Result<usize> {
    usize::try_from(value)
        .ok()
        .filter(|n| isize::try_from(*n).is_ok())
        .ok_or_else(|| Error::LimitExceeded(format!("{value} rows are more than memory can have")))
}

/// Statistics of a column that is no numbers: rows and nulls.
fn nulls_of(shared: &Shared, dtype: &DataType, column: &Column) -> Result<ColumnZones> {
    let mut zones = ColumnZones::new(dtype);
    let validity = shared.address(column.validity)?;
    // SAFETY: the bitmap has a bit per row and is padded to 64 bytes.
    unsafe { zones.count_nulls(validity, exact(column.len)?) };
    Ok(zones)
}
