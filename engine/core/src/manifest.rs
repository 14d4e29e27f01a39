//! The `insitu.v1.Table` message of a table: encoded at publish, decoded, and checked, at lookup.
//!
//! What stands in a region is another process's word. Every length is checked against the schema,
//! and every buffer against the table's own extents (which its pin keeps), with arithmetic that
//! cannot overflow, before an address is made of it. Nothing here panics on any bytes, and nothing
//! allocates out of proportion to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_schema::{DataType, Schema};
use insitu_schemas::v1;
use prost::Message;

use crate::error::{Error, Result};
use crate::ipc_schema;
use crate::layout::{ChildLen, Chunk, Column, Layout, Place, Shape, shape};

/// Buffers start at multiples of this, and are padded to them.
pub(crate) const ALIGN: u64 = 64;

/// The message for a table of that schema and layout.
///
/// # Errors
/// `Unsupported` and `LimitExceeded` for types that cannot be written down.
pub(crate) fn encode(schema: &Schema, layout: &Layout) -> Result<Vec<u8>> {
    encode_from(0, schema, layout)
}

/// The same message, of a layout whose first `kept` chunks are those of the table that `old` is the
/// message of: they are taken over as they stand there.
///
/// # Errors
/// Those of [`encode`].
pub(crate) fn encode_behind(
    old: Vec<u8>,
    kept: usize,
    schema: &Schema,
    layout: &Layout,
) -> Result<Vec<u8>> {
    let Some(mut message) = first_chunks(old, kept) else { return encode(schema, layout) };
    if kept >= layout.chunks.len() {
        // The dictionaries are found in the chunks that are encoded.
        return encode(schema, layout);
    }
    // Fields may come in any order, and repeated ones add up in theirs.
    message.extend(encode_from(kept, schema, layout)?);
    Ok(message)
}

/// The first chunks of a message, encoded as they are; none if it has not as many. They mostly stand
/// at its beginning, one behind the other: then nothing is moved.
fn first_chunks(mut message: Vec<u8>, count: usize) -> Option<Vec<u8>> {
    /// Field 3, with a length.
    const CHUNKS: u64 = 3 << 3 | 2;
    let (mut at, mut end, mut found) = (0, 0, 0);
    while found < count {
        let left = message.get(at..)?;
        let mut rest = left;
        let key = prost::encoding::decode_varint(&mut rest).ok()?;
        match key & 7 {
            0 => {
                prost::encoding::decode_varint(&mut rest).ok()?;
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let len = prost::encoding::decode_varint(&mut rest).ok()?;
                rest = rest.get(usize::try_from(len).ok()?..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
        let next = at + (left.len() - rest.len());
        if key == CHUNKS {
            if at != end {
                message.copy_within(at..next, end);
            }
            end += next - at;
            found += 1;
        }
        at = next;
    }
    message.truncate(end);
    Some(message)
}

/// The message, without its first chunks.
fn encode_from(first: usize, schema: &Schema, layout: &Layout) -> Result<Vec<u8>> {
    let message = ipc_schema::encode(schema)?;
    let ids = ipc_schema::decode(&message)?.dictionary_ids;
    let mut dictionaries = Vec::new();
    let mut chunks = Vec::with_capacity(layout.chunks.len().saturating_sub(first));
    for (number, chunk) in layout.chunks.iter().enumerate().skip(first) {
        let mut writer = Writer { ids: &ids, next: 0, found: Vec::new() };
        let mut out = v1::Chunk { rows: chunk.rows, ..v1::Chunk::default() };
        for (field, column) in schema.fields().iter().zip(&chunk.columns) {
            writer.column(field.data_type(), column, &mut out)?;
        }
        // Every chunk uses the same values, so the first says it all.
        if number == first {
            dictionaries = writer.found;
        }
        chunks.push(out);
    }
    let statistics = (!layout.statistics.is_absent()).then(|| extent(layout.statistics));
    let (rows, origin) = (layout.rows, layout.origin);
    let table = v1::Table { schema: message, rows, chunks, dictionaries, statistics, origin };
    Ok(table.encode_to_vec())
}

struct Writer<'a> {
    ids: &'a [i64],
    next: usize,
    found: Vec<v1::Dictionary>,
}

impl Writer<'_> {
    fn column(&mut self, dtype: &DataType, column: &Column, out: &mut v1::Chunk) -> Result<()> {
        let shape = shape(dtype)?;
        let null_count = column.null_count.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
        out.nodes.push(v1::Node { length: column.len, null_count });
        if shape.validity {
            out.buffers.push(extent(column.validity));
        }
        out.buffers.extend(column.buffers.iter().map(|b| extent(*b)));
        if shape.variadic {
            let count = column.buffers.len().saturating_sub(shape.buffers.len());
            out.variadic_counts.push(i64::try_from(count).unwrap_or(i64::MAX));
        }
        if let (Some(dtype), Some(values)) = (&shape.dictionary, column.children.first()) {
            let id = self.ids.get(self.next).copied().unwrap_or_default();
            self.next += 1;
            let place = self.found.len();
            let mut chunk = v1::Chunk { rows: values.len, ..v1::Chunk::default() };
            self.found.push(v1::Dictionary { id, values: None });
            self.column(dtype, values, &mut chunk)?;
            if let Some(dictionary) = self.found.get_mut(place) {
                dictionary.values = Some(chunk);
            }
        }
        for (field, child) in shape.children.iter().zip(&column.children) {
            self.column(field.data_type(), child, out)?;
        }
        Ok(())
    }
}

fn extent(place: Place) -> v1::Extent {
    v1::Extent { offset: place.offset, length: place.len }
}

/// The schema and the layout that a message describes. `extents` are the ranges (offset, length)
/// of the region that the table owns: no buffer may lie outside.
///
/// # Errors
/// `RegionCorrupt` if it contradicts itself, the schema, or the extents.
pub(crate) fn decode(bytes: &[u8], extents: &[(u64, u64)]) -> Result<(Schema, Layout)> {
    let table = v1::Table::decode(bytes)
        .map_err(|e| Error::corrupt(format!("a table's manifest cannot be decoded: {e}")))?;
    let ipc_schema::Decoded { schema, dictionary_ids } = ipc_schema::decode(&table.schema)?;

    // Two fields of one id could differ in type, and one's values be taken for the other's.
    if dictionary_ids.iter().collect::<HashSet<_>>().len() != dictionary_ids.len() {
        return Err(bad("has two dictionary columns of one id"));
    }
    let mut bounds = Bounds::new(extents)?;
    let statistics = match table.statistics {
        Some(extent) => bounds.place(extent)?,
        None => Place::default(),
    };
    let dictionaries: HashMap<i64, &v1::Dictionary> =
        table.dictionaries.iter().map(|d| (d.id, d)).collect();
    if dictionaries.len() != table.dictionaries.len() {
        return Err(Error::corrupt("a table's manifest has two dictionaries of one id"));
    }
    let mut reader =
        Reader { bounds, ids: &dictionary_ids, next: 0, dictionaries, made: HashMap::new() };

    let mut rows = 0u64;
    let mut chunks = Vec::with_capacity(table.chunks.len());
    for chunk in &table.chunks {
        rows = rows.checked_add(chunk.rows).ok_or_else(|| bad("has too many rows"))?;
        reader.next = 0;
        let mut cursor = Cursor::new(chunk);
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let column = reader.column(field.data_type(), &mut cursor)?;
            if column.len != chunk.rows {
                return Err(bad("has columns of different lengths"));
            }
            columns.push(column);
        }
        cursor.finish()?;
        chunks.push(Arc::new(Chunk { rows: chunk.rows, columns }));
    }
    if rows != table.rows {
        return Err(bad("has chunks that do not add up to its rows"));
    }
    // Arrow counts rows in isize at most.
    if isize::try_from(rows).is_err() {
        return Err(bad("has too many rows"));
    }
    Ok((schema, Layout { rows, chunks, statistics, origin: table.origin }))
}

fn bad(what: &str) -> Error {
    Error::corrupt(format!("a table's manifest {what}"))
}

/// The ranges in which buffers may lie, sorted, with neighbours joined.
struct Bounds {
    ranges: Vec<(u64, u64)>,
}

impl Bounds {
    fn new(extents: &[(u64, u64)]) -> Result<Bounds> {
        let mut ranges = Vec::with_capacity(extents.len());
        for &(offset, len) in extents {
            let end = offset.checked_add(len).ok_or_else(|| bad("has an extent out of range"))?;
            ranges.push((offset, end));
        }
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let joined = next.0 <= last.1;
            if joined {
                last.1 = last.1.max(next.1);
            }
            joined
        });
        Ok(Bounds { ranges })
    }

    /// Checks that a buffer, with its padding, lies within the table's extents.
    fn place(&mut self, extent: v1::Extent) -> Result<Place> {
        let v1::Extent { offset, length: len } = extent;
        if (offset, len) == (0, 0) {
            return Ok(Place::default());
        }
        let outside = || Error::RegionCorrupt {
            what: "a table's manifest has a buffer outside the table's memory".into(),
            offset,
        };
        let end = len
            .checked_next_multiple_of(ALIGN)
            .and_then(|padded| offset.checked_add(padded))
            .ok_or_else(outside)?;
        if offset % ALIGN != 0 {
            return Err(Error::RegionCorrupt {
                what: "a table's manifest has a buffer that is not aligned".into(),
                offset,
            });
        }
        let after = self.ranges.partition_point(|range| range.0 <= offset);
        match after.checked_sub(1).and_then(|at| self.ranges.get(at)) {
            Some(range) if end <= range.1 => Ok(Place { offset, len }),
            _ => Err(outside()),
        }
    }
}

/// Hands out the nodes, buffers and counts of a chunk, in order.
struct Cursor<'a> {
    nodes: std::slice::Iter<'a, v1::Node>,
    buffers: std::slice::Iter<'a, v1::Extent>,
    counts: std::slice::Iter<'a, i64>,
}

impl<'a> Cursor<'a> {
    fn new(chunk: &'a v1::Chunk) -> Cursor<'a> {
        Cursor {
            nodes: chunk.nodes.iter(),
            buffers: chunk.buffers.iter(),
            counts: chunk.variadic_counts.iter(),
        }
    }

    fn finish(self) -> Result<()> {
        if self.nodes.len() + self.buffers.len() + self.counts.len() != 0 {
            return Err(bad("describes more columns than the schema"));
        }
        Ok(())
    }
}

struct Reader<'a> {
    bounds: Bounds,
    ids: &'a [i64],
    next: usize,
    dictionaries: HashMap<i64, &'a v1::Dictionary>,
    made: HashMap<i64, Arc<Column>>,
}

impl Reader<'_> {
    fn column(&mut self, dtype: &DataType, cursor: &mut Cursor<'_>) -> Result<Arc<Column>> {
        let shape = shape(dtype)?;
        let node = cursor.nodes.next().ok_or_else(|| bad("describes too few columns"))?;
        let len = node.length;
        let null_count = u64::try_from(node.null_count).ok();
        if null_count.is_some_and(|n| n > len) {
            return Err(bad("has more nulls than rows"));
        }
        let mut next = || cursor.buffers.next().copied().ok_or_else(|| bad("has too few buffers"));

        let mut validity = Place::default();
        if shape.validity {
            validity = self.bounds.place(next()?)?;
            let needed = len.div_ceil(8);
            if validity.is_absent() {
                if null_count.is_some_and(|n| n != 0) {
                    return Err(bad("has nulls without a bitmap"));
                }
            } else if validity.len < needed {
                return Err(bad("has a bitmap that is too short"));
            }
        }
        let mut buffers = Vec::with_capacity(shape.buffers.len());
        for kind in &shape.buffers {
            let place = self.bounds.place(next()?)?;
            if let Some(needed) = kind.bytes(len) {
                if place.len < needed {
                    return Err(bad("has a buffer that is too short for its rows"));
                }
            } else if kind != &crate::layout::Kind::Bytes {
                return Err(bad("has too many rows"));
            }
            buffers.push(place);
        }
        if shape.variadic {
            let count = cursor.counts.next().ok_or_else(|| bad("lacks a count of buffers"))?;
            let count = usize::try_from(*count)
                .ok()
                .filter(|count| *count <= cursor.buffers.len())
                .ok_or_else(|| bad("has too few buffers"))?;
            for _ in 0..count {
                let extent = cursor.buffers.next().ok_or_else(|| bad("has too few buffers"))?;
                buffers.push(self.bounds.place(*extent)?);
            }
        }
        let children = self.children(&shape, len, cursor)?;
        Ok(Arc::new(Column { len, null_count, validity, buffers, children }))
    }

    fn children(
        &mut self,
        shape: &Shape,
        len: u64,
        cursor: &mut Cursor<'_>,
    ) -> Result<Vec<Arc<Column>>> {
        if let Some(dtype) = &shape.dictionary {
            return Ok(vec![self.dictionary(dtype)?]);
        }
        let mut children = Vec::with_capacity(shape.children.len());
        for field in &shape.children {
            let child = self.column(field.data_type(), cursor)?;
            let fits = match shape.child_len {
                ChildLen::Same => child.len == len,
                ChildLen::Times(n) => len.checked_mul(n) == Some(child.len),
                ChildLen::Free => true,
            };
            if !fits {
                return Err(bad("has a nested column of the wrong length"));
            }
            children.push(child);
        }
        Ok(children)
    }

    fn dictionary(&mut self, dtype: &DataType) -> Result<Arc<Column>> {
        let id = self.ids.get(self.next).copied().ok_or_else(|| bad("lacks a dictionary"))?;
        self.next += 1;
        if let Some(made) = self.made.get(&id) {
            self.next += dictionaries_in(dtype);
            return Ok(made.clone());
        }
        let dictionary =
            self.dictionaries.get(&id).copied().ok_or_else(|| bad("lacks a dictionary"))?;
        let values = dictionary.values.as_ref().ok_or_else(|| bad("lacks a dictionary"))?;
        let mut cursor = Cursor::new(values);
        let column = self.column(dtype, &mut cursor)?;
        cursor.finish()?;
        if column.len != values.rows {
            return Err(bad("has a dictionary of another length than it says"));
        }
        self.made.insert(id, column.clone());
        Ok(column)
    }
}

/// How many dictionary fields lie within a type, itself not counted.
fn dictionaries_in(dtype: &DataType) -> usize {
    let Ok(shape) = shape(dtype) else { return 0 };
    let own = shape.dictionary.iter().map(dictionaries_in).sum::<usize>();
    shape.children.iter().fold(own, |sum, field| {
        let itself = usize::from(matches!(field.data_type(), DataType::Dictionary(..)));
        sum + itself + dictionaries_in(field.data_type())
    })
}

#[cfg(test)]
mod tests;
