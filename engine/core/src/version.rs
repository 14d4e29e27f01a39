//! What a handle sees of a table: one version of it, with the places of its buffers and the views
//! that the engine reads.
//!
//! A version is a slot's occupant at one content version. Updates make new ones: in place (the same
//! slot, another content version) or by a swap (another slot). A handle moves on to the new one at
//! its next use; what still reads an old one keeps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_schema::SchemaRef;
use insitu_kernels::view::{ColumnView, Layout as ViewLayout};
use insitu_query::{ColumnStats, DataType, Schema, TableView, ZoneView};
use once_cell::race::OnceBox;

use crate::error::{Error, Result};
use crate::layout::{Column, Layout, Place};
use crate::region::Region;
use crate::storage::Storage;
use crate::{statistics, types, validate, zones};

/// One version of a table.
pub(crate) struct Version {
    pub region: Region,
    pub meta: Arc<Meta>,
    pub storage: Storage,
    /// The content version that `meta` was read at; 0 of a result.
    pub content: u64,
    /// Made once, by whoever needs it first; not waited for, as a fork could leave it half made.
    view: OnceBox<View>,
}

/// What is known of a table without its bytes; shared by all handles on it.
pub(crate) struct Meta {
    /// Arrow's schema.
    pub arrow: SchemaRef,
    /// The engine's schema.
    pub query: Schema,
    /// Where the buffers lie.
    pub layout: Layout,
    /// What is known of the columns' values: hints.
    pub stats: Option<Vec<ColumnStats>>,
    /// Where the buffers of each chunk lie, once that was asked: revisions of a table with many
    /// chunks take it over.
    spans: OnceBox<Vec<(u64, u64)>>,
    /// Set once the values were checked by this process, which counts for tables of files.
    trusted: AtomicBool,
}

impl Meta {
    /// From a schema and a layout that fit each other.
    pub fn new(arrow: SchemaRef, layout: Layout, stats: Option<Vec<ColumnStats>>) -> Meta {
        let query = types::schema_from_arrow(&arrow);
        Meta::of_query(arrow, query, layout, stats)
    }

    /// The same, of a schema that was translated before.
    pub fn of_query(
        arrow: SchemaRef,
        query: Schema,
        layout: Layout,
        stats: Option<Vec<ColumnStats>>,
    ) -> Meta {
        let (spans, trusted) = (OnceBox::new(), AtomicBool::new(false));
        Meta { arrow, query, layout, stats, spans, trusted }
    }

    /// Per chunk the range that its buffers lie in; see [`crate::layout::Chunk::span`].
    pub fn spans(&self) -> &[(u64, u64)] {
        let all = || self.layout.chunks.iter().map(|chunk| chunk.span()).collect();
        self.spans.get_or_init(|| Box::new(all()))
    }

    /// The same, with these ranges.
    pub fn with_spans(self, spans: Vec<(u64, u64)>) -> Meta {
        let known = OnceBox::new();
        let _ = known.set(Box::new(spans));
        Meta { spans: known, ..self }
    }

    /// The same, of values that are those of `other`, or were checked on their way in.
    pub fn checked_as(self, other: &Meta) -> Meta {
        Meta { trusted: AtomicBool::new(other.trusted.load(Ordering::Relaxed)), ..self }
    }

    /// Says that this process has checked the values, on their way in or since.
    pub fn set_checked(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }
}

/// The column views of a table, with what they borrow.
struct View {
    /// Borrows `variadics` and the schema of the table's `Meta`; both stay where they are, and as
    /// they are, for as long as the `Inner` that owns this.
    table: TableView<'static>,
    _variadics: Vec<Box<[(*const u8, usize)]>>,
}

// SAFETY: the raw pointers in the variadic lists are read only through the views, which are Send
// and Sync themselves.
unsafe impl Send for View {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for View {}

impl Version {
    /// A version of which nothing was read yet.
    pub fn new(region: Region, meta: Arc<Meta>, storage: Storage, content: u64) -> Version {
        Version { region, meta, storage, content, view: OnceBox::new() }
    }

    /// Its slot's sequence; none of a result.
    pub fn sequence(&self) -> Option<u64> {
        match &self.storage {
            Storage::Named(pin) => Some(pin.sequence()),
            Storage::Anonymous(_) => None,
        }
    }

    /// Whether an update has made a newer one. One or two loads.
    pub fn is_outdated(&self) -> bool {
        match &self.storage {
            Storage::Named(pin) => pin.is_superseded() || pin.content_version() != self.content,
            Storage::Anonymous(_) => false,
        }
    }

    /// Bytes of all buffers, without padding. Dictionary values count once.
    pub fn nbytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let chunks = &self.meta.layout.chunks;
        chunks.iter().flat_map(|c| &c.columns).fold(0, |sum, c| sum + distinct_bytes(c, &mut seen))
    }

    /// Checks, once per process, the values of a table in a file that this process has not
    /// written: a file may be damaged, or made by anyone. In memory, what was checked when it was
    /// put is believed, since only processes of the same user can write there.
    pub fn trust_values(&self) -> Result<()> {
        let (shared, meta) = (&self.region.shared, &*self.meta);
        if !shared.is_file() || meta.trusted.load(Ordering::Relaxed) {
            return Ok(());
        }
        for chunk in &meta.layout.chunks {
            for (field, column) in meta.arrow.fields().iter().zip(&chunk.columns) {
                // SAFETY: places were checked against the type when the manifest was decoded, and
                // `address` checks them, padded, against the mapping, which this version keeps.
                unsafe {
                    validate::column(field.data_type(), column, &|place| self.address(place))
                }
                .map_err(|fault| {
                    let row = fault.row.map_or(String::new(), |r| format!(", row {r}"));
                    let name = field.name();
                    Error::corrupt(format!("column {name:?}{row}: {}", fault.what))
                })?;
            }
        }
        meta.set_checked();
        Ok(())
    }

    /// The table as the engine sees it, made once. The bytes stay mapped as long as
    /// `self`; for content that stays, too, hold a lease.
    pub fn view(&self) -> Result<&TableView<'_>> {
        Ok(&self.view.get_or_try_init(|| self.make_view().map(Box::new))?.table)
    }

    fn make_view(&self) -> Result<View> {
        let meta = &*self.meta;
        let mut variadics = Vec::new();
        let mut chunks = Vec::with_capacity(meta.layout.chunks.len());
        for chunk in &meta.layout.chunks {
            let mut views = Vec::with_capacity(chunk.columns.len());
            for (field, column) in meta.query.fields().iter().zip(&chunk.columns) {
                views.push(self.column_view(&field.dtype, column, &mut variadics)?);
            }
            chunks.push(views);
        }
        let rows = usize::try_from(meta.layout.rows)
            .map_err(|_| Error::corrupt("a table has more rows than memory has bytes"))?;
        // SAFETY: the schema lies in the Arc'd Meta that this version owns, in a field that
        // nobody moves or changes; the view is dropped with the version and never leaves it with a
        // longer life than a borrow of it.
        let schema: &'static Schema = unsafe { &*std::ptr::from_ref(&meta.query) };
        let zones = self.zones()?;
        let table = TableView { schema, rows, chunks, stats: meta.stats.clone(), zones };
        Ok(View { table, _variadics: variadics })
    }

    /// What is known of each zone, if that is true of this content.
    fn zones(&self) -> Result<Option<ZoneView<'static>>> {
        let (meta, place) = (&*self.meta, self.meta.layout.statistics);
        let (from, len) = (self.address(place)?, usize::try_from(place.len).unwrap_or(0));
        let columns = meta.query.len();
        let rows = meta.layout.chunks.iter().map(|c| usize::try_from(c.rows).unwrap_or(usize::MAX));
        let zones = statistics::zones(rows);
        // SAFETY: `address` checked the place against the mapping, which this version keeps; a view
        // of the zones never leaves it with a longer life.
        Ok(unsafe {
            (zones::are_of(from, len, columns, zones) && zones::are_true(from, len, self.content))
                .then(|| statistics::view(from, columns, zones))
        })
    }

    fn column_view(
        &self,
        dtype: &DataType,
        column: &Column,
        variadics: &mut Vec<Box<[(*const u8, usize)]>>,
    ) -> Result<ColumnView<'static>> {
        let layout = match dtype {
            DataType::Bool => ViewLayout::Bool,
            DataType::Utf8 => ViewLayout::Utf8,
            DataType::LargeUtf8 => ViewLayout::LargeUtf8,
            DataType::Utf8View => ViewLayout::Utf8View,
            other => other.prim().map_or(ViewLayout::Opaque, ViewLayout::Prim),
        };
        let size = |n: u64| usize::try_from(n).map_err(|_| Error::corrupt("a buffer is too long"));
        let len = size(column.len)?;
        let nulls = column.null_count.and_then(|n| usize::try_from(n).ok());
        let validity = self.address(column.validity)?;
        let has_offsets = matches!(layout, ViewLayout::Utf8 | ViewLayout::LargeUtf8);
        let (offsets, values) = match (has_offsets, column.buffers.as_slice()) {
            (true, [offsets, values]) => (*offsets, *values),
            (true, _) => return Err(Error::corrupt("a string column lacks buffers")),
            (false, buffers) => (Place::default(), buffers.first().copied().unwrap_or_default()),
        };
        if has_offsets && len > 0 && offsets.is_absent() {
            return Err(Error::corrupt("a string column lacks its offsets"));
        }
        let opaque = matches!(layout, ViewLayout::Opaque);
        let values_at = if opaque { std::ptr::null() } else { self.address(values)? };
        let values_len = if opaque { 0 } else { size(values.len)? };
        // SAFETY: the layout was checked against the type when it was decoded or made, so that
        // the buffers cover `len` rows; the addresses were checked against the mapping, which
        // this table's pin or extents keep for as long as the view.
        let mut view = unsafe {
            ColumnView::new(layout, len, values_at, values_len).with_validity(validity, nulls)
        };
        if has_offsets {
            // SAFETY: checked to hold `len + 1` offsets, or there are no rows.
            view = unsafe { view.with_offsets(self.address(offsets)?) };
        }
        if layout == ViewLayout::Utf8View && column.buffers.len() > 1 {
            let mut list = Vec::with_capacity(column.buffers.len() - 1);
            for place in column.buffers.iter().skip(1) {
                list.push((self.address(*place)?, size(place.len)?));
            }
            let list: Box<[(*const u8, usize)]> = list.into();
            // SAFETY: the boxed list is kept beside the view, and a box's content does not move
            // with it.
            let borrowed: &'static [(*const u8, usize)] =
                unsafe { std::slice::from_raw_parts(list.as_ptr(), list.len()) };
            variadics.push(list);
            // SAFETY: each pointer was checked for its length just now.
            view = unsafe { view.with_variadic(borrowed) };
        }
        // SAFETY: every buffer of a region starts at a multiple of 64 and is zero up to the next
        // one after its end, and `address` checked that far.
        Ok(unsafe { view.with_padding() })
    }

    /// The address of a buffer, with its padding, in the read-only mapping; null if absent.
    pub fn address(&self, place: Place) -> Result<*const u8> {
        self.region.shared.address(place)
    }
}

fn distinct_bytes(column: &Arc<Column>, seen: &mut std::collections::HashSet<Place>) -> u64 {
    let own = std::iter::once(&column.validity).chain(&column.buffers);
    let own: u64 = own.filter(|p| seen.insert(**p)).map(|p| p.len).sum();
    column.children.iter().fold(own, |sum, child| sum + distinct_bytes(child, seen))
}

#[cfg(test)]
mod tests;
