//! Where to cut a table into chunks: only where 32-bit offsets would overflow.

use std::ops::Range;

use arrow_data::ArrayData;
use arrow_schema::DataType;

use super::measure::{offset_bounds, step_into};
use super::{Cut, Piece};
use crate::error::Result;
use crate::layout::{Kind, shape};

/// The ranges of batches that become one chunk each. A batch has 32-bit offsets itself, so it
/// always fits a chunk. No batches give one empty chunk, so that every table has its buffers.
pub(crate) fn cut(
    types: &[&DataType],
    columns: &[Vec<ArrayData>],
    rows: &[usize],
    cut: Cut,
) -> Result<Vec<Range<usize>>> {
    let batches = rows.len();
    let mut chunks = Vec::new();
    let limit = match cut {
        Cut::Above(limit) => limit,
        Cut::EveryBatch => return Ok((0..batches).map(|batch| batch..batch + 1).collect()),
    };
    if !types.iter().any(|dtype| has_offsets32(dtype)) || batches < 2 {
        chunks.push(0..batches);
        return Ok(chunks);
    }
    let mut start = 0;
    let mut filled: Vec<u64> = Vec::new();
    for batch in 0..batches {
        let mut lengths = Vec::new();
        for (dtype, arrays) in types.iter().zip(columns) {
            if let Some(data) = arrays.get(batch) {
                let piece = Piece { data: data.clone(), start: 0, len: data.len(), batch };
                measure(dtype, &piece, &mut lengths)?;
            }
        }
        filled.resize(lengths.len(), 0);
        let fits = filled.iter().zip(&lengths).all(|(a, b)| a.saturating_add(*b) <= limit);
        if !fits && batch > start {
            chunks.push(start..batch);
            start = batch;
            filled.fill(0);
        }
        for (sum, length) in filled.iter_mut().zip(lengths) {
            *sum = sum.saturating_add(length);
        }
    }
    chunks.push(start..batches);
    Ok(chunks)
}

fn has_offsets32(dtype: &DataType) -> bool {
    shape(dtype).is_ok_and(|shape| {
        shape.buffers.contains(&Kind::Offsets32)
            || shape.children.iter().any(|child| has_offsets32(child.data_type()))
    })
}

/// What each 32-bit offset buffer, depth first, would have to span.
fn measure(dtype: &DataType, piece: &Piece, lengths: &mut Vec<u64>) -> Result<()> {
    let shape = shape(dtype)?;
    if shape.buffers.contains(&Kind::Offsets32) {
        let (first, last) = offset_bounds(piece, Kind::Offsets32)?;
        lengths.push((last - first) as u64);
    }
    for (index, field) in shape.children.iter().enumerate() {
        let child = step_into(&shape, dtype, piece, index)?;
        measure(field.data_type(), &child, lengths)?;
    }
    Ok(())
}
