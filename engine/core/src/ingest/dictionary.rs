//! Dictionaries: each batch may bring its own, a table has one per column.
//!
//! A dictionary that equals the first one, or extends it, keeps every key as it is. Others have
//! their values found in, or added to, what is there, and their keys are rewritten as they are
//! copied. Values that cannot be looked up by their bytes (nested ones) are added as they come.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_data::ArrayData;
use arrow_schema::DataType;

use super::Piece;
use super::bits::is_valid;
use super::measure::{Arranger, Node, measure, offset_bounds, source, step_into};
use super::views;
use crate::error::{Error, Result};
use crate::layout::{Column, Kind, fixed_width, shape};

/// The dictionaries of a table's columns, in the order in which a depth-first walk meets them.
pub(crate) struct Dictionaries {
    unified: Vec<Unified>,
    at: usize,
    copied_bytes: u64,
}

/// One column's dictionary.
pub(crate) struct Unified {
    /// The values, to be written; taken by the writer.
    pub node: Option<Node>,
    /// The values, once written.
    pub column: Option<Arc<Column>>,
    /// Per batch: the new key of each old one, if they differ.
    pub remaps: Vec<Option<Arc<[u32]>>>,
}

impl Dictionaries {
    /// No dictionaries: for values, which have none inside.
    fn none() -> Dictionaries {
        Dictionaries { unified: Vec::new(), at: 0, copied_bytes: 0 }
    }

    /// Unifies all dictionaries of all columns; `in_column` says where an error was.
    pub fn unify(
        types: &[&DataType],
        columns: &[Vec<ArrayData>],
        arranger: &mut Arranger,
        in_column: impl Fn(Error, usize) -> Error,
    ) -> Result<Dictionaries> {
        let mut all = Dictionaries::none();
        for (index, (dtype, arrays)) in types.iter().zip(columns).enumerate() {
            let mut fields = Vec::new();
            describe(dtype, &mut fields);
            let mut found: Vec<Vec<ArrayData>> = vec![Vec::new(); fields.len()];
            for (batch, data) in arrays.iter().enumerate() {
                let piece = Piece { data: data.clone(), start: 0, len: data.len(), batch };
                let mut at = 0;
                collect(dtype, &piece, &mut at, &mut found).map_err(|e| in_column(e, index))?;
            }
            for ((keys, values), dictionaries) in fields.iter().zip(found) {
                let unified = unify(keys, values, &dictionaries, &mut all.copied_bytes, arranger)
                    .map_err(|e| in_column(e, index))?;
                all.unified.push(unified);
            }
        }
        Ok(all)
    }

    /// The next walk begins.
    pub fn rewind(&mut self) {
        self.at = 0;
    }

    /// Passes the next dictionary of the walk.
    pub fn advance(&mut self) -> Option<&Unified> {
        self.at += 1;
        self.unified.get(self.at - 1)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Unified> {
        self.unified.iter_mut()
    }

    /// Bytes of tables that rewrite keys; 0 if all keys stay as they are.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }
}

/// The key and value types of all dictionaries in a type, depth first.
fn describe(dtype: &DataType, fields: &mut Vec<(DataType, DataType)>) {
    if let DataType::Dictionary(keys, values) = dtype {
        fields.push((keys.as_ref().clone(), values.as_ref().clone()));
    }
    for child in shape(dtype).iter().flat_map(|shape| &shape.children) {
        describe(child.data_type(), fields);
    }
}

/// The dictionaries of one batch of a column.
fn collect(
    dtype: &DataType,
    piece: &Piece,
    at: &mut usize,
    found: &mut [Vec<ArrayData>],
) -> Result<()> {
    let shape = shape(dtype)?;
    if shape.dictionary.is_some() {
        let values = piece.data.child_data().first();
        let values =
            values.ok_or_else(|| Error::InvalidData("a dictionary has no values".into()))?;
        if let Some(list) = found.get_mut(*at) {
            list.push(values.clone());
        }
        *at += 1;
    }
    for (index, field) in shape.children.iter().enumerate() {
        collect(field.data_type(), &step_into(&shape, dtype, piece, index)?, at, found)?;
    }
    Ok(())
}

fn unify(
    keys: &DataType,
    values: &DataType,
    dictionaries: &[ArrayData],
    copied_bytes: &mut u64,
    arranger: &mut Arranger,
) -> Result<Unified> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut len = 0usize;
    let mut remaps: Vec<Option<Arc<[u32]>>> = Vec::with_capacity(dictionaries.len());
    let mut known: HashMap<Option<Vec<u8>>, u32> = HashMap::new();
    let mut distinct: Vec<(usize, &ArrayData)> = Vec::new();
    for data in dictionaries {
        // Most streams send the same dictionary with every batch.
        if let Some((of, _)) = distinct.iter().find(|(_, seen)| seen.ptr_eq(data)) {
            remaps.push(remaps.get(*of).cloned().flatten());
            continue;
        }
        distinct.push((remaps.len(), data));
        if distinct.len() == 1 {
            pieces.push(Piece { data: data.clone(), start: 0, len: data.len(), batch: 0 });
            len = data.len();
            remaps.push(None);
            continue;
        }
        if let (true, Some((_, first))) = (distinct.len() == 2, distinct.first()) {
            for row in 0..first.len() {
                let Some(value) = value(values, first, row)? else { break };
                known.entry(value).or_insert(key(row)?);
            }
        }
        let mut remap = Vec::with_capacity(data.len());
        for row in 0..data.len() {
            let next = key(len)?;
            let new = match value(values, data, row)? {
                Some(value) => *known.entry(value).or_insert(next),
                None => next,
            };
            if new == next {
                append(&mut pieces, data, row);
                len += 1;
            }
            remap.push(new);
        }
        let identity = remap.iter().enumerate().all(|(old, new)| old == *new as usize);
        if !identity {
            *copied_bytes += 4 * remap.len() as u64;
        }
        remaps.push((!identity).then(|| remap.into()));
    }
    let most = match keys {
        DataType::Int8 => 1 << 7,
        DataType::UInt8 => 1 << 8,
        DataType::Int16 => 1 << 15,
        DataType::UInt16 => 1 << 16,
        DataType::Int32 => 1 << 31,
        _ => u64::from(u32::MAX),
    };
    if distinct.len() > 1 && len as u64 > most {
        return Err(Error::LimitExceeded(format!(
            "the batches' dictionaries have {len} values together, keys of type {keys} tell \
             {most} apart; cast the column to a dictionary with wider keys, or to its values"
        )));
    }
    let node = measure(values, pieces, &mut Dictionaries::none(), arranger)?;
    Ok(Unified { node: Some(node), column: None, remaps })
}

fn key(row: usize) -> Result<u32> {
    u32::try_from(row)
        .map_err(|_| Error::LimitExceeded("a dictionary of more than 2^32 values".into()))
}

/// Adds one row, to the last piece if it follows on it.
fn append(pieces: &mut Vec<Piece>, data: &ArrayData, row: usize) {
    if let Some(last) = pieces.last_mut()
        && last.data.ptr_eq(data)
        && last.start + last.len == row
    {
        last.len += 1;
        return;
    }
    pieces.push(Piece { data: data.clone(), start: row, len: 1, batch: 0 });
}

/// The bytes that tell a value from others (none inside: null); none if its type has no such.
fn value(dtype: &DataType, data: &ArrayData, row: usize) -> Result<Option<Option<Vec<u8>>>> {
    let shape = shape(dtype)?;
    if !shape.children.is_empty() || matches!(dtype, DataType::Boolean | DataType::Null) {
        return Ok(None);
    }
    if !is_valid(data.nulls(), row) {
        return Ok(Some(None));
    }
    let piece = Piece { data: data.clone(), start: row, len: 1, batch: 0 };
    let outside =
        || Error::InvalidData(format!("value {row} of a dictionary lies outside its data"));
    let physical = piece.physical().ok_or_else(outside)?;
    let bytes = match (shape.buffers.as_slice(), shape.variadic) {
        ([Kind::Fixed(_)], true) => {
            let mut found = Err(outside());
            views::for_each(&piece, |_, view| {
                let view = views::parse(view.unwrap_or_default());
                found = match (views::bytes(&piece, row, &view)?, &view) {
                    (Some((from, to)), views::View::Long { buffer, .. }) => {
                        source(&piece, buffer + 1)?.get(from..to).map(<[u8]>::to_vec)
                    }
                    (_, views::View::Inline(view)) => Some(view.to_le_bytes().to_vec()),
                    _ => None,
                }
                .ok_or_else(outside);
                Ok(())
            })?;
            found?
        }
        ([offsets @ (Kind::Offsets32 | Kind::Offsets64), Kind::Bytes], _) => {
            let (from, to) = offset_bounds(&piece, *offsets)?;
            source(&piece, 1)?.get(from..to).ok_or_else(outside)?.to_vec()
        }
        _ => {
            let width = fixed_width(dtype).and_then(|w| usize::try_from(w).ok()).unwrap_or(0);
            let from = physical.checked_mul(width).ok_or_else(outside)?;
            let to = from.checked_add(width).ok_or_else(outside)?;
            source(&piece, 0)?.get(from..to).ok_or_else(outside)?.to_vec()
        }
    };
    Ok(Some(Some(bytes)))
}
