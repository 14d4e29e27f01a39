//! String views and binary views: 16 bytes a row, short values inside, long ones in data buffers.

use super::Piece;
use super::bits::is_valid;
use super::measure::source;
use crate::error::{Error, Result};

/// The longest value that lies in the view itself.
pub(crate) const INLINE: usize = 12;
/// Data buffers are filled up to this: offsets in them have 31 bits.
const FULL: usize = 1 << 30;

/// How the data of the views is copied.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mode {
    /// Not a view type.
    #[default]
    None,
    /// Value by value, leaving out what no view refers to; the sizes of the new data buffers.
    Gather(Vec<usize>),
    /// Buffer by buffer, because the views refer to the same bytes many times over.
    Whole(Vec<usize>),
}

impl Mode {
    /// Bytes of each data buffer to be written.
    pub fn buffers(&self) -> &[usize] {
        match self {
            Mode::None => &[],
            Mode::Gather(sizes) | Mode::Whole(sizes) => sizes,
        }
    }
}

/// A view, taken apart.
pub(crate) enum View {
    /// The value is in the view: the view with unused bytes zeroed.
    Inline(u128),
    /// The value is in a data buffer.
    Long {
        /// Its length in bytes.
        len: usize,
        /// Its first four bytes, as the view says.
        prefix: u32,
        /// Which data buffer.
        buffer: usize,
        /// Where in it.
        offset: usize,
    },
}

/// Takes a view apart; it is not checked against any buffer.
pub(crate) fn parse(view: u128) -> View {
    let len = (view & 0xffff_ffff) as u32 as usize;
    if len <= INLINE {
        let used = 32 + 8 * len as u32;
        let mask = if used >= 128 { u128::MAX } else { (1 << used) - 1 };
        return View::Inline(view & mask);
    }
    View::Long {
        len,
        prefix: (view >> 32) as u32,
        buffer: (view >> 64) as u32 as usize,
        offset: (view >> 96) as u32 as usize,
    }
}

/// Puts a long view together.
pub(crate) fn long(len: usize, prefix: u32, buffer: usize, offset: usize) -> u128 {
    len as u32 as u128
        | u128::from(prefix) << 32
        | (buffer as u32 as u128) << 64
        | (offset as u32 as u128) << 96
}

/// Calls `each` with every row: its view, or none if it is null.
pub(crate) fn for_each(
    piece: &Piece,
    mut each: impl FnMut(usize, Option<u128>) -> Result<()>,
) -> Result<()> {
    let bytes = source(piece, 0)?;
    let first = piece.physical().unwrap_or(usize::MAX);
    for row in 0..piece.len {
        if !is_valid(piece.data.nulls(), piece.start + row) {
            each(row, None)?;
            continue;
        }
        let view = first
            .checked_add(row)
            .and_then(|at| at.checked_mul(16))
            .and_then(|at| bytes.get(at..)?.first_chunk::<16>());
        let view = view.ok_or_else(|| Error::InvalidData("the views are too short".into()))?;
        each(row, Some(u128::from_le_bytes(*view)))?;
    }
    Ok(())
}

/// The bytes of a long view.
pub(crate) fn bytes(piece: &Piece, row: usize, view: &View) -> Result<Option<(usize, usize)>> {
    let View::Long { len, buffer, offset, .. } = view else { return Ok(None) };
    let data = piece.data.buffers().get(buffer.saturating_add(1));
    let end = offset.checked_add(*len);
    match (data, end) {
        (Some(data), Some(end)) if end <= data.len() => Ok(Some((*offset, end))),
        _ => Err(Error::InvalidData(format!(
            "row {row} is a view outside its data (buffer {buffer}, offset {offset}, {len} bytes)"
        ))),
    }
}

/// Decides how to copy the data of these pieces.
pub(crate) fn measure(pieces: &[Piece]) -> Result<Mode> {
    let mut available = 0usize;
    let mut referred = 0usize;
    let mut sizes = Vec::new();
    let mut filled = 0usize;
    for piece in pieces {
        for buffer in piece.data.buffers().iter().skip(1) {
            available = available.saturating_add(buffer.len());
        }
        for_each(piece, |row, view| {
            let Some(view) = view else { return Ok(()) };
            let view = parse(view);
            if let (Some(_), View::Long { len, .. }) = (bytes(piece, row, &view)?, &view) {
                referred = referred.saturating_add(*len);
                if filled > 0 && filled.saturating_add(*len) > FULL {
                    sizes.push(filled);
                    filled = 0;
                }
                filled = filled.saturating_add(*len);
            }
            Ok(())
        })?;
    }
    if filled > 0 {
        sizes.push(filled);
    }
    if referred <= available {
        return Ok(Mode::Gather(sizes));
    }
    let all = pieces.iter().flat_map(|p| p.data.buffers().iter().skip(1).map(|b| b.len()));
    Ok(Mode::Whole(all.collect()))
}
