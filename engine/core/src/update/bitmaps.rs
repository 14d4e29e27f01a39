//! Bitmaps for columns that get their first nulls in place: the table is published anew, with the
//! same values and rows, and bitmaps that say that none is null. A reader sees the one version or
//! the other, which are equal, and a death leaves one of the two.

use std::sync::Arc;

use insitu_region::{Part, Pin, Updater};

use crate::error::{Error, Result};
use crate::layout::{Chunk, Place};
use crate::manifest::{self, ALIGN};
use crate::table::Table;
use crate::version::Version;

/// Bytes of the bitmap of so many rows, with its padding.
fn padded(rows: u64) -> u64 {
    rows.div_ceil(8).next_multiple_of(ALIGN)
}

/// Whether a column of a chunk needs a bitmap.
fn is_bare(chunk: &Chunk, column: usize) -> bool {
    chunk.rows > 0 && chunk.columns.get(column).is_some_and(|c| c.validity.is_absent())
}

/// Writes a bitmap of ones, its padding zeroed.
///
/// # Safety
/// There is room for the rows and the padding, which nobody else uses.
unsafe fn fill(bitmap: *mut u8, rows: u64) -> Result<()> {
    let size = |n: u64| usize::try_from(n).map_err(|_| Error::corrupt("a chunk has too many rows"));
    let (whole, padded, rest) = (size(rows / 8)?, size(padded(rows))?, rows % 8);
    // SAFETY: `whole` bytes, and one more if there is a rest, are within the padding, which is
    // there by contract.
    unsafe {
        bitmap.write_bytes(0xff, whole);
        bitmap.add(whole).write_bytes(0, padded - whole);
        if rest > 0 {
            bitmap.add(whole).write((1 << rest) - 1);
        }
    }
    Ok(())
}

impl Table {
    /// Publishes the table anew, in which every chunk of some columns has a bitmap.
    pub(super) fn add_bitmaps(
        &self,
        updater: Updater,
        shown: &Version,
        columns: &[usize],
    ) -> Result<Pin> {
        let mut layout = shown.meta.layout.clone();
        let bare = |chunk: &Chunk| columns.iter().filter(|c| is_bare(chunk, **c)).count() as u64;
        let bytes = layout.chunks.iter().map(|chunk| bare(chunk) * padded(chunk.rows)).sum();
        let extent = self.region().shared.allocate(bytes)?;
        let mut used = 0;
        for chunk in layout.chunks.iter_mut().filter(|chunk| bare(chunk) > 0) {
            let chunk = Arc::make_mut(chunk);
            for index in columns.iter().copied() {
                if !is_bare(chunk, index) {
                    continue;
                }
                let Some(column) = chunk.columns.get_mut(index) else { continue };
                let column = Arc::make_mut(column);
                column.validity =
                    Place { offset: extent.offset() + used, len: chunk.rows.div_ceil(8) };
                column.null_count = None;
                // SAFETY: the extent is ours alone, and has room for all that is counted.
                unsafe { fill(extent.as_mut_ptr().wrapping_add(used as usize), chunk.rows)? };
                used += padded(chunk.rows);
            }
        }
        let zones = self.count_zones(shown, &[], &mut layout)?;
        let old = updater.pin().clone();
        let kept = layout.extents_in(&old.extents()?);
        let mut parts: Vec<Part<'_>> = vec![Part::Owned(&extent)];
        parts.extend(zones.as_ref().map(Part::Owned));
        parts.push(Part::Extents(&old, &kept));
        layout.origin = shown.meta.layout.origin_of(old.sequence());
        let message = manifest::encode(&shown.meta.arrow, &layout)?;
        let pin = updater.swap(&parts, &message)?;
        self.at(&pin)?;
        Ok(pin)
    }
}
