//! Regions: shared memory with named tables in it.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use insitu_query::ColumnStats;
use insitu_region::{
    CreateOptions, Extent, Flushed, ForkMutex, LeaseRecord, Location, Patience, Pin, RegionRecord,
    Report,
};

use crate::error::{Error, Result};
use crate::exclusive::{Held, Hold};
use crate::ingest;
use crate::layout::{Layout, Place};
use crate::manifest;
use crate::programs::Programs;
use crate::query::CollectOptions;
use crate::slab::Slabs;
use crate::statistics;
use crate::stats::{Counters, Stats};
use crate::storage::{Anonymous, Storage};
use crate::table::Table;
use crate::version::Meta;
use crate::zones;

/// The content version of a table that was never changed in place.
pub(crate) const FIRST_CONTENT: u64 = 1;
/// Decoded manifests kept per region, at most.
const CACHED_MANIFESTS: usize = 1024;
/// How long a flush waits for an update in place to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A region that this process has open. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Region {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles of one open region share.
pub(crate) struct Shared {
    /// The memory.
    pub region: insitu_region::Region,
    /// Memory for small results.
    pub slabs: Arc<Slabs>,
    /// What this process counts.
    pub counters: Counters,
    /// Tables that threads of this process have exclusively, for several updates.
    pub held: Held,
    /// Where it lives.
    place: Home,
    /// Shared by all that this process opens of the region.
    pub known: Arc<Known>,
}

/// What this process has worked out about a region, and would have to work out again.
#[derive(Default)]
pub(crate) struct Known {
    manifests: Manifests,
    pub programs: Programs,
}

/// Decoded manifests by sequence, which names one manifest for ever, with the content version that
/// they were read at.
type Manifests = ForkMutex<HashMap<u64, (u64, Arc<Meta>)>>;

/// Where a region lives, as it was created or opened.
pub(crate) enum Home {
    /// Named shared memory.
    Named(String),
    /// A file.
    File(PathBuf),
    /// Memory behind a descriptor.
    Anonymous,
}

impl Home {
    fn of(location: &Location) -> Home {
        match location {
            Location::Shm(name) => Home::Named(name.clone()),
            Location::File(path) => {
                Home::File(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            }
            Location::Memfd | Location::Fd(_) => Home::Anonymous,
        }
    }

    fn is_file(&self) -> bool {
        matches!(self, Home::File(_))
    }
}

/// How a table is put.
#[derive(Clone, Copy, Default)]
pub struct PutOptions<'a> {
    /// Whether a table of that name is replaced; if not, it is `TableExists`.
    pub replace: bool,
    /// Asked now and then on the calling thread; true cancels.
    pub interrupt: Option<&'a dyn Fn() -> bool>,
}

impl Region {
    pub(crate) fn new(region: insitu_region::Region, place: Home) -> Result<Region> {
        let known = region.beside()?;
        Ok(Region {
            shared: Arc::new(Shared {
                region,
                place,
                slabs: Arc::new(Slabs::new()),
                counters: Counters::default(),
                held: Held::default(),
                known,
            }),
        })
    }

    /// Makes a region.
    ///
    /// # Errors
    /// `RegionExists` for a taken name (see [`CreateOptions::if_exists`]), `InvalidArgument` for
    /// a bad name or capacity, `RegionFull`, `PermissionDenied`, `Io`.
    pub fn create(location: Location, options: CreateOptions) -> Result<Region> {
        let place = Home::of(&location);
        Region::new(insitu_region::Region::create(location, options)?, place)
    }

    /// Opens a region that exists.
    ///
    /// # Errors
    /// `RegionNotFound`, `RegionCorrupt`, `VersionMismatch`, `SessionLimit`, `PermissionDenied`.
    pub fn open(location: Location, read_only: bool) -> Result<Region> {
        let place = Home::of(&location);
        Region::new(insitu_region::Region::open(location, read_only)?, place)
    }

    /// Removes a region's name. Who has it open carries on.
    ///
    /// # Errors
    /// `RegionNotFound`, `PermissionDenied`.
    pub fn remove(location: &Location) -> Result<()> {
        Ok(insitu_region::Region::remove(location)?)
    }

    /// The named regions of this machine.
    ///
    /// # Errors
    /// `Io`.
    pub fn list() -> Result<Vec<RegionRecord>> {
        Ok(insitu_region::Region::list()?)
    }

    /// A location that opens this region again.
    ///
    /// # Errors
    /// `Stale` after closing.
    pub fn location(&self) -> Result<Location> {
        Ok(self.shared.region.location()?)
    }

    /// How a person would name it.
    pub fn description(&self) -> &str {
        self.shared.region.name()
    }

    /// Its name, if it is named shared memory.
    pub fn name(&self) -> Option<&str> {
        match &self.shared.place {
            Home::Named(name) => Some(name),
            Home::File(_) | Home::Anonymous => None,
        }
    }

    /// Its path, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.shared.place {
            Home::File(path) => Some(path),
            Home::Named(_) | Home::Anonymous => None,
        }
    }

    /// Its identity: random, drawn when it was made.
    pub fn id(&self) -> u128 {
        self.shared.region.id()
    }

    /// The most bytes it may hold.
    pub fn capacity(&self) -> u64 {
        self.shared.region.capacity()
    }

    /// The descriptor of an anonymous region, to be inherited or sent; none for named ones.
    pub fn fd(&self) -> Option<RawFd> {
        self.shared.region.raw_fd()
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.shared.region.is_read_only()
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.region.is_closed()
    }

    /// Whether both are handles of the same region.
    pub fn is_same(&self, other: &Region) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) || self.id() == other.id()
    }

    /// Copies Arrow data in, as the table of that name. Batches are written one behind the other
    /// straight to their final place, with statistics gathered in the same pass; what was copied
    /// is then checked against Arrow's rules, and only then published, in one step.
    ///
    /// # Errors
    /// `TableExists`; `RegionFull`; `InvalidData` naming column and row; `SchemaMismatch` for
    /// batches of another schema; `Unsupported` for union, run-end encoded and list view columns;
    /// `InvalidData` with the source's own words if it fails. The region is left as it was.
    pub fn put(
        &self,
        name: &str,
        schema: SchemaRef,
        batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
        replace: bool,
    ) -> Result<Table> {
        self.put_with(name, schema, batches, PutOptions { replace, ..PutOptions::default() })
    }

    /// As [`Region::put`], with all options.
    ///
    /// # Errors
    /// Those of [`Region::put`], and `Cancelled`.
    pub fn put_with(
        &self,
        name: &str,
        schema: SchemaRef,
        batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
        options: PutOptions<'_>,
    ) -> Result<Table> {
        self.refuse_taken(name, options.replace)?;
        let interrupt = options.interrupt.unwrap_or(&|| false);
        let ingested = ingest::ingest(&self.shared, &schema, batches, interrupt)?;
        let keep = Anonymous {
            extents: ingested.extents.into_iter().map(Arc::new).collect(),
            ..Anonymous::default()
        };
        let stats = Some(ingested.stats);
        let table = self.publish(name, schema, ingested.layout, stats, &keep, options.replace)?;
        table.seen().meta.set_checked();
        Ok(table)
    }

    /// Gives a table another name. Its buffers are shared, not copied, but for very small ones of
    /// results, those of tables of another region, and of tables that a handle which only reads has
    /// kept beyond their name's replacement ([`Stats::copies`] counts them all).
    ///
    /// # Errors
    /// `TableExists`, `RegionFull`, `TableLimit`, `Stale`.
    pub fn put_table(&self, name: &str, table: &Table, replace: bool) -> Result<Table> {
        self.put_table_with(name, table, PutOptions { replace, ..PutOptions::default() })
    }

    /// As [`Region::put_table`], with all options.
    ///
    /// # Errors
    /// Those of [`Region::put_table`], and `Cancelled`.
    pub fn put_table_with(
        &self,
        name: &str,
        table: &Table,
        options: PutOptions<'_>,
    ) -> Result<Table> {
        let PutOptions { replace, interrupt } = options;
        self.refuse_taken(name, replace)?;
        let asked = interrupt.unwrap_or(&|| false);
        let (version, hold) = table.leased_while("naming", asked)?;
        if let Hold::Own(loan) = hold {
            // A query copies what cannot be shared now.
            drop(loan);
            let copy =
                table.query().collect(None, CollectOptions { interrupt, ..Default::default() })?;
            return self.put_table_with(name, &copy, options);
        }
        let meta = &version.meta;
        let mut layout = meta.layout.clone();
        let keep = match &version.storage {
            Storage::Named(pin) => match self.own_pin(table.region(), pin)? {
                Some(pin) => {
                    let patience = Patience { interrupt: asked, ..Patience::reader("naming") };
                    let leases = vec![pin.lease_while_within(&patience)?];
                    Some(Anonymous { leases, ..Anonymous::default() })
                }
                None => None,
            },
            Storage::Anonymous(anonymous)
                if anonymous.slabs.is_empty() && self.is_same_session(table.region()) =>
            {
                Some(anonymous.clone())
            }
            // Of one that lies in slabs only in part, that part is copied.
            Storage::Anonymous(anonymous)
                if !(anonymous.extents.is_empty() && anonymous.leases.is_empty())
                    && self.is_same_session(table.region()) =>
            {
                let (keep, moved) = anonymous.out_of_slabs(&self.shared, &layout)?;
                layout = moved;
                Some(keep)
            }
            Storage::Anonymous(_) => None,
        };
        let Some(keep) = keep else {
            // Another session's bytes, or bytes in slabs, which stay the process's own.
            self.count_copy(version.nbytes());
            let batches = table.to_batches_with(asked)?.into_iter().map(Ok);
            return self.put_with(name, meta.arrow.clone(), batches, options);
        };
        let stats = meta.stats.clone();
        if version.content > FIRST_CONTENT {
            // They say at which content version they are true, which is not the new table's.
            layout.statistics = Place::default();
        }
        self.publish(name, meta.arrow.clone(), layout, stats, &keep, replace)
    }

    /// Whether memory of the other handle is memory of this one: all handles of a region that a
    /// process has opened for writing are one session of it, as are all that only read.
    fn is_same_session(&self, other: &Region) -> bool {
        self.is_same(other) && self.is_read_only() == other.is_read_only()
    }

    /// The pin of a table of `region` as a pin of this session; none if it lies elsewhere, or if
    /// it was pinned by a session that only reads and its name stands for another table by now.
    fn own_pin(&self, region: &Region, pin: &Pin) -> Result<Option<Pin>> {
        if self.is_same_session(region) {
            return Ok(Some(pin.clone()));
        }
        if !self.is_same(region) {
            return Ok(None);
        }
        match self.shared.region.lookup(pin.name()).map_err(Error::from) {
            Ok(own) => Ok((own.sequence() == pin.sequence()).then_some(own)),
            Err(Error::TableNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The table of that name, as it is now.
    ///
    /// # Errors
    /// `TableNotFound` with the nearest name; `RegionCorrupt` for a manifest that makes no sense.
    pub fn get(&self, name: &str) -> Result<Table> {
        let pin = self.shared.region.lookup(name)?;
        let content = pin.content_version();
        let meta = self.shared.meta_at(&pin, content)?;
        Ok(Table::new(self.clone(), meta, Storage::Named(pin), content))
    }

    /// The names of all tables, sorted.
    ///
    /// # Errors
    /// `Stale`, `Timeout`.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = self.shared.region.names()?;
        names.sort_unstable();
        Ok(names)
    }

    /// Whether there is a table of that name.
    ///
    /// # Errors
    /// `Stale`, `Timeout`.
    pub fn contains(&self, name: &str) -> Result<bool> {
        Ok(self.shared.region.contains(name)?)
    }

    /// Removes a name. Handles and views of the table carry on; its memory is free when the last
    /// of them is gone.
    ///
    /// # Errors
    /// `TableNotFound`, `ReadOnly`, `Stale`, `Timeout`.
    pub fn delete(&self, name: &str) -> Result<()> {
        Ok(self.shared.region.delete(name)?)
    }

    /// Reclaims what dead processes left. Returns the bytes that became free.
    ///
    /// # Errors
    /// `ReadOnly`, `Stale`, `Timeout`.
    pub fn gc(&self) -> Result<u64> {
        Ok(self.shared.region.gc()?)
    }

    /// Gives free but warm memory back to the operating system. Returns the bytes.
    ///
    /// # Errors
    /// `ReadOnly`, `Stale`, `Timeout`.
    pub fn trim(&self) -> Result<u64> {
        Ok(self.shared.region.trim()?)
    }

    /// Checks the region's records, and that every table's manifest makes sense. Never fails on
    /// damage: it reports.
    pub fn verify(&self) -> Report {
        let mut report = self.shared.region.verify();
        for name in self.shared.region.names().unwrap_or_default() {
            let outcome = self
                .shared
                .region
                .lookup(&name)
                .map_err(Error::from)
                .and_then(|pin| decode(&pin).map(drop));
            match outcome {
                // Deleted in between.
                Ok(()) | Err(Error::TableNotFound { .. }) => {}
                Err(error) => report.problems.push(format!("table {name:?}: {error}")),
            }
        }
        report
    }

    /// Who holds what.
    ///
    /// # Errors
    /// `Stale`, `Timeout`.
    pub fn leases(&self) -> Result<Vec<LeaseRecord>> {
        Ok(self.shared.region.leases()?)
    }

    /// Numbers about the region and this process's use of it.
    ///
    /// # Errors
    /// `Stale`, `Timeout`.
    pub fn stats(&self) -> Result<Stats> {
        Ok(self.shared.counters.with(&self.shared.region.stats()?))
    }

    /// Counts a copy that a user might not expect, made by a face of the engine.
    pub fn count_copy(&self, bytes: u64) {
        self.shared.counters.copy(bytes);
    }

    /// Makes a file durable: after a loss of power it opens as the last flush that returned left
    /// it, or a later one. All tables are as they are at one instant during the call, which waits
    /// up to ten seconds until no table is being updated in place. Elsewhere there is nothing to do.
    ///
    /// `interrupt` is asked now and then on the calling thread; true gives up, and leaves what was
    /// durable before.
    ///
    /// # Errors
    /// `Io` if the system cannot write the file, and whenever it is flushed from then on;
    /// `LeaseHeld`, `Timeout`, `Cancelled`, `RegionFull`, `RegionCorrupt`, `ReadOnly`, `Stale`.
    pub fn flush(&self, interrupt: Option<&dyn Fn() -> bool>) -> Result<Flushed> {
        let interrupt = interrupt.unwrap_or(&|| false);
        let patience = Patience { timeout: PATIENCE, interrupt, what: "flush" };
        Ok(self.shared.region.flush(&patience)?)
    }

    /// Closes the region for this process. The region and its tables are `Stale` afterwards, live
    /// views stay. May be called again.
    pub fn close(&self) {
        self.shared.slabs.close();
        self.shared.region.close();
    }

    /// Forgets the decoded manifests, as a process that has just come knows none.
    #[cfg(test)]
    pub(crate) fn forget_manifests(&self) {
        self.shared.known.manifests.lock().clear();
    }

    /// # Errors
    /// `TableExists` if the name is taken and not to be replaced. Early and cheap; publish asks
    /// again.
    pub(crate) fn refuse_taken(&self, name: &str, replace: bool) -> Result<()> {
        if !replace && self.contains(name)? {
            return Err(Error::TableExists { name: name.to_owned() });
        }
        Ok(())
    }

    /// Publishes a table whose bytes `keep` keeps.
    pub(crate) fn publish(
        &self,
        name: &str,
        schema: SchemaRef,
        layout: Layout,
        stats: Option<Vec<ColumnStats>>,
        keep: &Anonymous,
        replace: bool,
    ) -> Result<Table> {
        // Whatever it is made of, it is a table of its own.
        let layout = Layout { origin: 0, ..layout };
        let message = manifest::encode(&schema, &layout)?;
        let used = keep.used_by(&layout)?;
        let pin = self.shared.region.publish(name, &used.parts(), &message, replace)?;
        let meta = Arc::new(Meta::new(schema, layout, stats));
        self.shared.remember(pin.sequence(), FIRST_CONTENT, meta.clone());
        Ok(Table::new(self.clone(), meta, Storage::Named(pin), FIRST_CONTENT))
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("region", &self.description())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// The schema and the layout that a pinned table's manifest describes.
fn decode(pin: &Pin) -> Result<(Schema, Layout)> {
    manifest::decode(&pin.manifest()?, &pin.extents()?)
}

impl Shared {
    /// Memory from the region, owned by this session.
    pub fn allocate(&self, bytes: u64) -> Result<Extent> {
        Ok(self.region.allocate(bytes)?)
    }

    /// The same; `interrupt` is asked now and then while much of it is made present.
    pub fn allocate_with(&self, bytes: u64, interrupt: &dyn Fn() -> bool) -> Result<Extent> {
        Ok(self.region.allocate_with(bytes, interrupt)?)
    }

    /// The address of a buffer, with its padding, in the read-only mapping; null if absent.
    pub fn address(&self, place: Place) -> Result<*const u8> {
        if place.is_absent() {
            return Ok(std::ptr::null());
        }
        let padded = place.len.checked_next_multiple_of(manifest::ALIGN).unwrap_or(u64::MAX);
        Ok(self.region.slice(place.offset, padded)?)
    }

    /// Whether it is a file: durable, and possibly made by anyone.
    pub fn is_file(&self) -> bool {
        self.place.is_file()
    }

    /// # Errors
    /// `Stale` if the region was closed.
    pub fn check_open(&self) -> Result<()> {
        if self.region.is_closed() {
            return Err(Error::Stale(
                "the region was closed in this process; open it again, and get the table again"
                    .into(),
            ));
        }
        Ok(())
    }

    /// What a pinned table's manifest says, decoded once per process.
    pub fn meta(&self, pin: &Pin) -> Result<Arc<Meta>> {
        self.meta_at(pin, pin.content_version())
    }

    /// The same, as far as it holds at a content version: an update in place leaves the buffers
    /// where they are, but what was counted of their values before is no longer believed.
    pub fn meta_at(&self, pin: &Pin, content: u64) -> Result<Arc<Meta>> {
        let sequence = pin.sequence();
        let known = self.known.manifests.lock().get(&sequence).cloned();
        let (schema, mut layout) = match &known {
            Some((at, meta)) if *at == content => return Ok(meta.clone()),
            Some((_, meta)) => (meta.arrow.clone(), meta.layout.clone()),
            None => {
                let (schema, layout) = decode(pin)?;
                (Arc::new(schema), layout)
            }
        };
        if content > FIRST_CONTENT {
            layout.forget_null_counts();
        }
        let stats = self.statistics(&schema, &layout, content)?;
        let mut meta = Meta::new(schema, layout, stats);
        if let Some((_, before)) = &known {
            // What has rules to be checked is not changed in place.
            meta = meta.checked_as(before);
        }
        let meta = Arc::new(meta);
        self.remember(sequence, content, meta.clone());
        Ok(meta)
    }

    /// What the statistics buffer of a table says at that content version; the pin of the table is
    /// held.
    fn statistics(
        &self,
        schema: &Schema,
        layout: &Layout,
        content: u64,
    ) -> Result<Option<Vec<ColumnStats>>> {
        let place = layout.statistics;
        if place.is_absent() {
            return Ok(None);
        }
        let from = self.region.slice(place.offset, place.len)?;
        let len = usize::try_from(place.len).unwrap_or(0);
        let types: Vec<_> = schema.fields().iter().map(|f| f.data_type()).collect();
        // SAFETY: `slice` checked the range against the mapping, which the pin keeps.
        unsafe {
            if !zones::are_true(from, len, content) {
                return Ok(None);
            }
            statistics::read(from, len, &types)
        }
    }

    /// Forgets what the manifest of a table says that has lost its name.
    pub fn forget(&self, sequence: u64) {
        self.known.manifests.lock().remove(&sequence);
    }

    pub fn remember(&self, sequence: u64, content: u64, meta: Arc<Meta>) {
        let mut manifests = self.known.manifests.lock();
        if manifests.len() >= CACHED_MANIFESTS {
            manifests.clear();
        }
        manifests.insert(sequence, (content, meta));
    }
}

/// A number of bytes, as people write it: `4096`, `"512 MiB"`, `"1.5GB"`. KiB, MiB, GiB and TiB are
/// powers of 1024; KB, MB, GB and TB of 1000; B is a byte.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || {
        Error::InvalidArgument(format!(
            "{text:?} is not a size; write bytes, or a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB"
        ))
    };
    let text_trimmed = text.trim();
    let split = text_trimmed
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(split);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err(wrong());
    }
    let bytes = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(scale));
    let mut bytes = bytes.ok_or_else(wrong)?;
    if !fraction.is_empty() {
        let part: u128 = fraction.parse().map_err(|_| wrong())?;
        let digits = u32::try_from(fraction.len()).map_err(|_| wrong())?;
        let part = part * u128::from(scale) / 10u128.pow(digits);
        bytes =
            u64::try_from(part).ok().and_then(|part| bytes.checked_add(part)).ok_or_else(wrong)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            (" 64 KiB ", 65536),
            ("8GiB", 8 << 30),
            ("1.5MB", 1_500_000),
            ("0.5tib", 1 << 39),
            ("1_000 B", 1000),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GiB", "-1", "1.2.3", "5 bananas", "1e9", "99999999999 TiB"] {
            assert!(matches!(parse_bytes(text), Err(Error::InvalidArgument(_))), "{text}");
        }
    }
}
