//! How much memory each buffer of a column takes, and where in the table's extent it goes.

use arrow_schema::DataType;

use super::Piece;
use super::bits::is_valid;
use super::dictionary::Dictionaries;
use super::views;
use crate::error::{Error, Result};
use crate::layout::{ChildLen, Kind, Shape, shape};

/// A range of the extent that is being filled; no bytes if there is no buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// Bytes from the start of the extent, a multiple of 64.
    pub offset: usize,
    /// Bytes, without padding.
    pub len: usize,
}

/// Hands out slots, one behind the other.
pub(crate) struct Arranger {
    next: usize,
}

impl Arranger {
    /// Nothing handed out.
    pub fn new() -> Arranger {
        Arranger { next: 0 }
    }

    /// A slot of that many bytes, padded to 64.
    pub fn take(&mut self, len: usize) -> Result<Slot> {
        if len == 0 {
            return Ok(Slot::default());
        }
        let end = len
            .checked_next_multiple_of(64)
            .and_then(|padded| self.next.checked_add(padded))
            .filter(|end| isize::try_from(*end).is_ok())
            .ok_or_else(|| Error::LimitExceeded("more bytes than memory can have".into()))?;
        let slot = Slot { offset: self.next, len };
        self.next = end;
        Ok(slot)
    }

    /// Bytes handed out.
    pub fn total(&self) -> usize {
        self.next
    }
}

/// One column, or a child of one, measured and arranged.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its type.
    pub dtype: DataType,
    /// Rows.
    pub len: usize,
    /// Where the rows come from, in order.
    pub pieces: Vec<Piece>,
    /// The bitmap; no bytes if there are no nulls.
    pub validity: Slot,
    /// The other buffers.
    pub buffers: Vec<Slot>,
    /// How the data of a view type is copied.
    pub views: views::Mode,
    /// The children; not a dictionary's values.
    pub children: Vec<Node>,
}

impl Node {
    /// The first row that is null.
    pub fn first_null(&self) -> Option<usize> {
        let mut before = 0;
        for piece in &self.pieces {
            for row in 0..piece.len {
                if !is_valid(piece.data.nulls(), piece.start + row) {
                    return Some(before + row);
                }
            }
            before += piece.len;
        }
        None
    }
}

/// Measures the rows of `pieces` as one column of that type.
///
/// # Errors
/// `InvalidData` where the source contradicts itself, `LimitExceeded` where sizes overflow.
pub(crate) fn measure(
    dtype: &DataType,
    pieces: Vec<Piece>,
    dictionaries: &mut Dictionaries,
    arranger: &mut Arranger,
) -> Result<Node> {
    let shape = shape(dtype)?;
    let mut len = 0usize;
    let mut nulls = false;
    for piece in &pieces {
        check_rows(piece)?;
        len = len.checked_add(piece.len).ok_or_else(too_long)?;
        nulls |= shape.validity && has_nulls(piece);
    }
    let validity = arranger.take(if nulls { len.div_ceil(8) } else { 0 })?;
    let mut buffers = Vec::with_capacity(shape.buffers.len());
    let mut mode = views::Mode::default();
    for (index, kind) in shape.buffers.iter().enumerate() {
        let bytes = match kind {
            Kind::Bytes => {
                let offsets = shape.buffers.first().copied().unwrap_or(Kind::Offsets32);
                let mut total = 0usize;
                for piece in &pieces {
                    let (first, last) = offset_bounds(piece, offsets)?;
                    if last > source(piece, index)?.len() {
                        return Err(Error::InvalidData(format!(
                            "the last offset is {last}, the data has {} bytes",
                            source(piece, index)?.len()
                        )));
                    }
                    total = total.checked_add(last - first).ok_or_else(too_long)?;
                }
                total
            }
            kind => {
                for piece in &pieces {
                    check_buffer(piece, index, *kind)?;
                }
                let bytes = kind.bytes(len as u64).and_then(|b| usize::try_from(b).ok());
                bytes.ok_or_else(too_long)?
            }
        };
        buffers.push(arranger.take(bytes)?);
    }
    if shape.variadic {
        mode = views::measure(&pieces)?;
        for bytes in mode.buffers() {
            buffers.push(arranger.take(*bytes)?);
        }
    }
    if shape.dictionary.is_some() {
        dictionaries.advance();
    }
    let mut children = Vec::with_capacity(shape.children.len());
    for (index, field) in shape.children.iter().enumerate() {
        let of_child = pieces
            .iter()
            .map(|piece| step_into(&shape, dtype, piece, index))
            .collect::<Result<Vec<Piece>>>()?;
        children.push(measure(field.data_type(), of_child, dictionaries, arranger)?);
    }
    Ok(Node { dtype: dtype.clone(), len, pieces, validity, buffers, views: mode, children })
}

fn too_long() -> Error {
    Error::LimitExceeded("more rows or bytes than memory can have".into())
}

/// The rows of a piece lie within its array.
pub(crate) fn check_rows(piece: &Piece) -> Result<()> {
    let end = piece.start.checked_add(piece.len);
    if end.is_none_or(|end| end > piece.data.len()) || piece.physical().is_none() {
        return Err(Error::InvalidData(format!(
            "rows {} to {} were asked for of an array of {}",
            piece.start,
            piece.start.saturating_add(piece.len),
            piece.data.len()
        )));
    }
    if let Some(nulls) = piece.data.nulls()
        && nulls.len() < piece.data.len()
    {
        return Err(Error::InvalidData("the validity bitmap is too short".into()));
    }
    Ok(())
}

fn has_nulls(piece: &Piece) -> bool {
    match piece.data.nulls() {
        None => false,
        Some(nulls) if nulls.null_count() == 0 => false,
        Some(nulls) if piece.len == nulls.len() => true,
        Some(nulls) => nulls.slice(piece.start, piece.len).null_count() > 0,
    }
}

/// The bytes of a source buffer.
pub(crate) fn source(piece: &Piece, index: usize) -> Result<&[u8]> {
    let buffer = piece.data.buffers().get(index);
    buffer.map(|b| b.as_slice()).ok_or_else(|| Error::InvalidData("a buffer is missing".into()))
}

/// A buffer of the source is as long as its rows need.
pub(crate) fn check_buffer(piece: &Piece, index: usize, kind: Kind) -> Result<()> {
    let bytes = source(piece, index)?.len();
    // An array without rows may come without offsets.
    if piece.len == 0 {
        return Ok(());
    }
    let end = piece.physical().and_then(|p| p.checked_add(piece.len)).ok_or_else(too_long)?;
    let needed = kind.bytes(end as u64);
    if needed.is_none_or(|needed| needed > bytes as u64) {
        return Err(Error::InvalidData(format!(
            "a buffer has {bytes} bytes, {} rows need {}",
            piece.len,
            needed.unwrap_or(u64::MAX)
        )));
    }
    Ok(())
}

/// The first and the last offset of a piece: what its rows span.
pub(crate) fn offset_bounds(piece: &Piece, kind: Kind) -> Result<(usize, usize)> {
    check_rows(piece)?;
    check_buffer(piece, 0, kind)?;
    if piece.len == 0 {
        return Ok((0, 0));
    }
    let bytes = source(piece, 0)?;
    let start = piece.physical().ok_or_else(too_long)?;
    let (first, last) = (offset(bytes, kind, start), offset(bytes, kind, start + piece.len));
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(Error::InvalidData("offsets are negative or decrease".into())),
    }
}

fn offset(bytes: &[u8], kind: Kind, index: usize) -> Option<usize> {
    if kind == Kind::Offsets64 {
        let at = index.checked_mul(8)?;
        let value = bytes.get(at..)?.first_chunk::<8>()?;
        return usize::try_from(i64::from_le_bytes(*value)).ok();
    }
    let at = index.checked_mul(4)?;
    let value = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(i32::from_le_bytes(*value)).ok()
}

/// The rows of a child that belong to the rows of a piece.
pub(crate) fn step_into(
    shape: &Shape,
    dtype: &DataType,
    piece: &Piece,
    index: usize,
) -> Result<Piece> {
    let child = piece.data.child_data().get(index);
    let child = child.ok_or_else(|| Error::InvalidData("a nested column is missing".into()))?;
    let physical = piece.physical().ok_or_else(too_long)?;
    let (start, len) = match shape.child_len {
        ChildLen::Same => (physical, piece.len),
        ChildLen::Times(size) => {
            let size = usize::try_from(size).map_err(|_| too_long())?;
            let start = physical.checked_mul(size).ok_or_else(too_long)?;
            (start, piece.len.checked_mul(size).ok_or_else(too_long)?)
        }
        ChildLen::Free => {
            let kind = match dtype {
                DataType::LargeList(_) => Kind::Offsets64,
                _ => Kind::Offsets32,
            };
            let (first, last) = offset_bounds(piece, kind)?;
            (first, last - first)
        }
    };
    let piece = Piece { data: child.clone(), start, len, batch: piece.batch };
    check_rows(&piece)?;
    Ok(piece)
}
