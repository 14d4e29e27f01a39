//! Tables: handles on columns that lie in a region.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use insitu_query::{Plan, Scalar};
use insitu_region::{ForkMutex, Lease, Patience, Pin};

use crate::error::{Error, Result};
use crate::exclusive::Hold;
use crate::export;
use crate::query::Query;
use crate::region::Region;
use crate::storage::Storage;
use crate::value;
use crate::version::{Meta, Version};

/// A table of a region: one that has a name there, or the result of a query. Cheap to clone; a
/// handle keeps the table's memory for as long as it lives.
#[derive(Clone)]
pub struct Table {
    inner: Arc<Inner>,
}

struct Inner {
    region: Region,
    name: Option<String>,
    /// The version seen last.
    seen: ArcSwap<Version>,
    /// The hidden table that a result travels as, and in which process it was made.
    sent: ForkMutex<Option<(u64, Pin)>>,
}

impl Table {
    pub(crate) fn new(region: Region, meta: Arc<Meta>, storage: Storage, content: u64) -> Table {
        let name = match &storage {
            Storage::Named(pin) => Some(pin.name().to_owned()),
            Storage::Anonymous(anonymous) => {
                anonymous.keep();
                None
            }
        };
        let version = Arc::new(Version::new(region.clone(), meta, storage, content));
        let seen = ArcSwap::new(version);
        Table { inner: Arc::new(Inner { region, name, seen, sent: ForkMutex::default() }) }
    }

    /// The version seen last: for what no update changes, as the schema and the number of rows.
    pub(crate) fn seen(&self) -> Arc<Version> {
        self.inner.seen.load_full()
    }

    /// The hidden table that it travels as, once it does, and in which process it was made.
    pub(crate) fn sent(&self) -> &ForkMutex<Option<(u64, Pin)>> {
        &self.inner.sent
    }

    /// What it is now: updates are followed, in place or swapped, by whatever process. Its content
    /// may change as soon as this returns; see [`Table::leased`].
    pub(crate) fn version(&self) -> Result<Arc<Version>> {
        let seen = self.seen();
        match &seen.storage {
            Storage::Named(pin) if seen.is_outdated() => self.renew(&pin.follow()?),
            _ => Ok(seen),
        }
    }

    /// What it is now, and what keeps the content so while someone looks at it: a lease on a table
    /// of the catalog; nothing is needed for a result, which nobody changes. `interrupt` is asked
    /// while somebody who has it exclusively is waited for.
    pub(crate) fn leased(
        &self,
        what: &str,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(Arc<Version>, Option<Lease>)> {
        let patience = Patience { interrupt, ..Patience::reader(what) };
        let advice = "a view could outlive that; compute with a query, or copy the values \
                      (to_numpy with copy=True)";
        self.leased_by(|pin| pin.lease_within(&patience))
            .map_err(|error| self.advise(error, advice))
    }

    /// The same for as long as something runs on this thread, which may have the table exclusively.
    pub(crate) fn leased_while(
        &self,
        what: &str,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(Arc<Version>, Hold)> {
        let patience = Patience { interrupt, ..Patience::reader(what) };
        match self.leased_by(|pin| pin.lease_while_within(&patience)) {
            Ok((version, lease)) => Ok((version, lease.map_or(Hold::Unneeded, Hold::Shared))),
            Err(error @ Error::LeaseHeld { .. }) => match self.borrow()? {
                Some((version, loan)) => Ok((version, Hold::Own(loan))),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn leased_by(
        &self,
        lease: impl FnOnce(&Pin) -> insitu_region::Result<Lease>,
    ) -> Result<(Arc<Version>, Option<Lease>)> {
        self.inner.region.shared.check_open()?;
        let seen = self.seen();
        let Storage::Named(pin) = &seen.storage else { return Ok((seen, None)) };
        let lease = match pin.is_superseded() {
            true => lease(&pin.follow()?)?,
            false => lease(pin)?,
        };
        // Only now: an update in place may have ended while the lease was waited for.
        let pin = lease.pin();
        if pin.content_version() == seen.content && Some(pin.sequence()) == seen.sequence() {
            return Ok((seen, Some(lease)));
        }
        Ok((self.renew(pin)?, Some(lease)))
    }

    /// The version that a pin of the table holds, which is what is seen from now on.
    pub(crate) fn at(&self, pin: &Pin) -> Result<Arc<Version>> {
        let seen = self.seen();
        if seen.sequence() == Some(pin.sequence()) && !seen.is_outdated() {
            return Ok(seen);
        }
        self.renew(pin)
    }

    fn renew(&self, pin: &Pin) -> Result<Arc<Version>> {
        let content = pin.content_version();
        let meta = self.inner.region.shared.meta_at(pin, content)?;
        let storage = Storage::Named(pin.clone());
        let version = Arc::new(Version::new(self.inner.region.clone(), meta, storage, content));
        self.inner.seen.store(version.clone());
        Ok(version)
    }

    /// The pin of its last version; none of a result.
    pub(crate) fn pin(&self) -> Option<Pin> {
        match &self.seen().storage {
            Storage::Named(pin) => Some(pin.follow().unwrap_or_else(|_| pin.clone())),
            Storage::Anonymous(_) => None,
        }
    }

    /// The name it was published or looked up under; none for a result without one.
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// The columns' names, types and metadata.
    pub fn schema(&self) -> SchemaRef {
        self.seen().meta.arrow.clone()
    }

    /// Rows.
    pub fn num_rows(&self) -> u64 {
        self.seen().meta.layout.rows
    }

    /// Columns.
    pub fn num_columns(&self) -> usize {
        self.seen().meta.arrow.fields().len()
    }

    /// Chunks in which the rows lie.
    pub fn num_chunks(&self) -> usize {
        self.seen().meta.layout.chunks.len()
    }

    /// Bytes of all buffers, without padding. Dictionary values count once.
    pub fn nbytes(&self) -> u64 {
        self.version().unwrap_or_else(|_| self.seen()).nbytes()
    }

    /// What names this version of the table in the region for ever; none for a result.
    pub fn sequence(&self) -> Option<u64> {
        self.pin().map(|pin| pin.sequence())
    }

    /// What tells this table from others that have its name one day: the sequence that it was put
    /// with, however often it was updated or appended to since. None for a result.
    ///
    /// # Errors
    /// `RegionCorrupt`, `Stale`.
    pub fn identity(&self) -> Result<Option<u64>> {
        let version = self.version()?;
        Ok(version.sequence().map(|sequence| version.meta.layout.origin_of(sequence)))
    }

    /// How often the content was changed in place.
    pub fn content_version(&self) -> u64 {
        self.pin().map_or(0, |pin| pin.content_version())
    }

    /// Whether its name still means this table; a result is always current.
    pub fn is_current(&self) -> bool {
        self.pin().is_none_or(|pin| pin.is_current())
    }

    /// The region it lies in.
    pub fn region(&self) -> &Region {
        &self.inner.region
    }

    /// What its name means now; a result is its own latest.
    ///
    /// # Errors
    /// `TableNotFound` if the name is gone.
    pub fn latest(&self) -> Result<Table> {
        match self.name() {
            Some(name) if !self.is_current() => self.inner.region.get(name),
            _ => Ok(self.clone()),
        }
    }

    /// The position of a column.
    ///
    /// # Errors
    /// `UnknownColumn` with the nearest name; `InvalidPlan` if several columns have the name.
    pub fn column_index(&self, name: &str) -> Result<usize> {
        Ok(self.seen().meta.query.index_of(name)?)
    }

    /// All rows as Arrow, one batch per chunk and no batch for no chunk, without copying: the
    /// arrays point into the read-only mapping and keep it, and the content, for as long as they
    /// live.
    ///
    /// # Errors
    /// `Stale`, `Poisoned`, `LeaseHeld` while the table is being changed.
    pub fn to_batches(&self) -> Result<Vec<RecordBatch>> {
        self.to_batches_with(&|| false)
    }

    /// The same; `interrupt` is asked now and then while the end of somebody's change of the table
    /// is waited for, and true gives up.
    ///
    /// # Errors
    /// Those of [`Table::to_batches`], and `Cancelled`.
    pub fn to_batches_with(&self, interrupt: &dyn Fn() -> bool) -> Result<Vec<RecordBatch>> {
        export::batches(self, interrupt)
    }

    /// One column as Arrow, one array per chunk, without copying.
    ///
    /// # Errors
    /// Those of [`Table::to_batches`]; `InvalidArgument` for a column that is not there.
    pub fn column(&self, index: usize) -> Result<Vec<ArrayRef>> {
        self.column_with(index, &|| false)
    }

    /// The same; `interrupt` as in [`Table::to_batches_with`].
    ///
    /// # Errors
    /// Those of [`Table::column`], and `Cancelled`.
    pub fn column_with(&self, index: usize, interrupt: &dyn Fn() -> bool) -> Result<Vec<ArrayRef>> {
        export::column(self, index, interrupt)
    }

    /// The value of a result's only column in its only row, where that is a number, a boolean or
    /// null; none of any other table: then its [`Table::column`] has it.
    ///
    /// # Errors
    /// `Stale`.
    pub fn only_value(&self) -> Result<Option<Scalar>> {
        value::only(self)
    }

    /// A query over this table.
    pub fn query(&self) -> Query {
        Query::new(self.clone(), Plan::Scan)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name())
            .field("rows", &self.num_rows())
            .field("columns", &self.num_columns())
            .finish()
    }
}
