//! Where the buffers of a table lie in a region: what a manifest says, as plain numbers, and which
//! buffers each Arrow type has. What stands here has been checked against the schema and against
//! the table's extents; what has not lives in `manifest`.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef, IntervalUnit};

use crate::error::{Error, Result};

/// A range of bytes of the region; (0, 0) if absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Bytes from the base of the region.
    pub offset: u64,
    /// Bytes, without padding.
    pub len: u64,
}

impl Place {
    /// Whether there is no buffer.
    pub fn is_absent(self) -> bool {
        self == Place::default()
    }
}

/// One chunk of one column, or of a child of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Rows of its own.
    pub len: u64,
    /// How many are null, if that is known. A hint: it chooses plans.
    pub null_count: Option<u64>,
    /// The validity bitmap; absent if there are no nulls, and for types without.
    pub validity: Place,
    /// The other buffers, in Arrow's order; a view type's data buffers follow its views.
    pub buffers: Vec<Place>,
    /// The children in the order of the type's fields; for a dictionary its values.
    pub children: Vec<Arc<Column>>,
}

/// Some consecutive rows of all columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Rows.
    pub rows: u64,
    /// The columns, in the schema's order.
    pub columns: Vec<Arc<Column>>,
}

impl Chunk {
    /// The range of the region that all buffers lie in: where the first begins, and where the last
    /// ends; empty if there are none.
    pub fn span(&self) -> (u64, u64) {
        let mut span = (u64::MAX, 0);
        for (number, c) in self.columns.iter().enumerate() {
            each_place_of(number, c, &mut |_, place| {
                span.0 = span.0.min(place.offset);
                span.1 = span.1.max(place.offset.saturating_add(place.len));
            });
        }
        span
    }
}

/// Calls `f` with every buffer of a column.
fn each_place_of(number: usize, c: &Column, f: &mut impl FnMut(usize, Place)) {
    std::iter::once(&c.validity)
        .chain(&c.buffers)
        .filter(|place| !place.is_absent())
        .for_each(|place| f(number, *place));
    c.children.iter().for_each(|child| each_place_of(number, child, f));
}

/// A column some of whose buffers were copied elsewhere: `to` says where, if they were.
fn relocated(c: &Arc<Column>, to: &impl Fn(Place) -> Option<Place>) -> Arc<Column> {
    let mut any = false;
    each_place_of(0, c, &mut |_, place| any |= to(place).is_some());
    if !any {
        return c.clone();
    }
    let there = |place: &Place| to(*place).unwrap_or(*place);
    Arc::new(Column {
        validity: there(&c.validity),
        buffers: c.buffers.iter().map(there).collect(),
        children: c.children.iter().map(|child| relocated(child, to)).collect(),
        ..**c
    })
}

/// All rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Rows over all chunks.
    pub rows: u64,
    /// The rows, in order. Revisions of a table share them.
    pub chunks: Vec<Arc<Chunk>>,
    /// The statistics buffer, if there is one.
    pub statistics: Place,
    /// The sequence of the table that appending and swapping updates began with to make this one;
    /// 0 if it is as it was put.
    pub origin: u64,
}

impl Layout {
    /// Which of some extents, sorted, something of this layout lies in.
    pub fn extents_in(&self, extents: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut used = vec![false; extents.len()];
        // Neighbouring buffers mostly lie in one extent.
        let mut last = 0;
        let mut mark = |place: Place| {
            let within = |at: usize| {
                extents.get(at).is_some_and(|(offset, bytes)| {
                    *offset <= place.offset && place.offset - offset < *bytes
                })
            };
            if !within(last) {
                let after = extents.partition_point(|(offset, _)| *offset <= place.offset);
                match after.checked_sub(1).filter(|at| within(*at)) {
                    Some(at) => last = at,
                    None => return,
                }
            }
            // A damaged manifest may have a buffer in several that lie side by side.
            let end = place.offset.saturating_add(place.len);
            let reached = extents.iter().zip(&mut used).skip(last);
            for (at, (extent, used)) in reached.enumerate() {
                if at > 0 && extent.0 >= end {
                    break;
                }
                *used = true;
            }
        };
        if !self.statistics.is_absent() {
            mark(self.statistics);
        }
        self.each_place(&mut |_, place| mark(place));
        extents.iter().zip(used).filter(|(_, used)| *used).map(|(extent, _)| *extent).collect()
    }

    /// Calls `f` with every buffer, and with the number of the column that it belongs to.
    pub fn each_place(&self, f: &mut impl FnMut(usize, Place)) {
        for chunk in &self.chunks {
            chunk.columns.iter().enumerate().for_each(|(number, c)| each_place_of(number, c, f));
        }
    }

    /// The same rows, some of whose buffers were copied elsewhere: `to` says where, if they were.
    pub fn relocated(&self, to: &impl Fn(Place) -> Option<Place>) -> Layout {
        let chunk = |chunk: &Arc<Chunk>| {
            let columns = chunk.columns.iter().map(|c| relocated(c, to)).collect();
            Arc::new(Chunk { rows: chunk.rows, columns })
        };
        Layout { chunks: self.chunks.iter().map(chunk).collect(), ..*self }
    }

    /// The sequence of the table that appending and updating began with; `sequence`, its own, if
    /// this one is as it was put.
    pub fn origin_of(&self, sequence: u64) -> u64 {
        if self.origin == 0 { sequence } else { self.origin }
    }
}

impl Layout {
    /// Forgets how many values of the columns are null.
    pub fn forget_null_counts(&mut self) {
        let known = |c: &Arc<Column>| c.null_count.is_some() && !c.validity.is_absent();
        for chunk in &mut self.chunks {
            if chunk.columns.iter().any(known) {
                for column in Arc::make_mut(chunk).columns.iter_mut().filter(|c| known(c)) {
                    Arc::make_mut(column).null_count = None;
                }
            }
        }
    }
}

/// What one buffer of a type holds, which says how long it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One bit per row.
    Bits,
    /// That many bytes per row.
    Fixed(u64),
    /// One more 32-bit offset than rows.
    Offsets32,
    /// One more 64-bit offset than rows.
    Offsets64,
    /// Whatever the offsets say.
    Bytes,
}

impl Kind {
    /// The bytes that `len` rows take; none for what the data decides, or if it overflows.
    pub fn bytes(self, len: u64) -> Option<u64> {
        match self {
            Kind::Bits => Some(len.div_ceil(8)),
            Kind::Fixed(width) => len.checked_mul(width),
            Kind::Offsets32 => len.checked_add(1)?.checked_mul(4),
            Kind::Offsets64 => len.checked_add(1)?.checked_mul(8),
            Kind::Bytes => None,
        }
    }
}

/// How a child's length follows from its parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildLen {
    /// As long as the parent.
    Same,
    /// That many times as long.
    Times(u64),
    /// Whatever the parent's offsets, or keys, say.
    Free,
}

/// The buffers and children of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether it has a validity bitmap.
    pub validity: bool,
    /// The buffers after the validity bitmap.
    pub buffers: Vec<Kind>,
    /// Whether any number of data buffers follow.
    pub variadic: bool,
    /// The children, a dictionary's values not among them.
    pub children: Vec<FieldRef>,
    /// How long each child is.
    pub child_len: ChildLen,
    /// A dictionary's value type.
    pub dictionary: Option<DataType>,
}

/// The shape of a type.
///
/// # Errors
/// `Unsupported` for the types that a region does not hold.
pub(crate) fn shape(dtype: &DataType) -> Result<Shape> {
    let flat = |buffers: &[Kind]| Shape {
        validity: true,
        buffers: buffers.to_vec(),
        variadic: false,
        children: Vec::new(),
        child_len: ChildLen::Free,
        dictionary: None,
    };
    Ok(match dtype {
        DataType::Null => Shape { validity: false, ..flat(&[]) },
        DataType::Boolean => flat(&[Kind::Bits]),
        DataType::Utf8 | DataType::Binary => flat(&[Kind::Offsets32, Kind::Bytes]),
        DataType::LargeUtf8 | DataType::LargeBinary => flat(&[Kind::Offsets64, Kind::Bytes]),
        DataType::Utf8View | DataType::BinaryView => {
            Shape { variadic: true, ..flat(&[Kind::Fixed(16)]) }
        }
        DataType::List(child) | DataType::Map(child, _) => {
            Shape { children: vec![child.clone()], ..flat(&[Kind::Offsets32]) }
        }
        DataType::LargeList(child) => {
            Shape { children: vec![child.clone()], ..flat(&[Kind::Offsets64]) }
        }
        DataType::FixedSizeList(child, size) => Shape {
            children: vec![child.clone()],
            child_len: ChildLen::Times(u64::try_from(*size).unwrap_or(0)),
            ..flat(&[])
        },
        DataType::Struct(fields) => Shape {
            children: fields.iter().cloned().collect(),
            child_len: ChildLen::Same,
            ..flat(&[])
        },
        DataType::Dictionary(keys, values) => Shape {
            dictionary: Some(values.as_ref().clone()),
            ..flat(&[Kind::Fixed(fixed_width(keys).unwrap_or(4))])
        },
        other => match fixed_width(other) {
            Some(width) => flat(&[Kind::Fixed(width)]),
            None => {
                return Err(Error::Unsupported(format!(
                    "a column of type {other} cannot be stored; cast it first (run-end encoded \
                     columns to their values, list views to lists, unions to structs)"
                )));
            }
        },
    })
}

/// Bytes per value of the types whose values have one fixed width.
pub(crate) fn fixed_width(dtype: &DataType) -> Option<u64> {
    Some(match dtype {
        DataType::Int8 | DataType::UInt8 => 1,
        DataType::Int16 | DataType::UInt16 | DataType::Float16 => 2,
        DataType::Int32
        | DataType::UInt32
        | DataType::Float32
        | DataType::Date32
        | DataType::Time32(_)
        | DataType::Decimal32(..)
        | DataType::Interval(IntervalUnit::YearMonth) => 4,
        DataType::Int64
        | DataType::UInt64
        | DataType::Float64
        | DataType::Date64
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Decimal64(..)
        | DataType::Interval(IntervalUnit::DayTime) => 8,
        DataType::Decimal128(..) | DataType::Interval(IntervalUnit::MonthDayNano) => 16,
        DataType::Decimal256(..) => 32,
        DataType::FixedSizeBinary(width) => u64::try_from(*width).ok()?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_across_extents_is_in_all_of_them() {
        let extents = [(0, 64), (64, 64), (128, 64), (192, 64), (1024, 64)];
        let of = |offset, len| {
            let column = Column {
                len: 1,
                null_count: None,
                validity: Place::default(),
                buffers: vec![Place { offset, len }],
                children: Vec::new(),
            };
            let chunks = vec![Arc::new(Chunk { rows: 1, columns: vec![Arc::new(column)] })];
            Layout { rows: 1, chunks, ..Layout::default() }.extents_in(&extents)
        };
        assert_eq!(of(64, 64), extents[1..2]);
        assert_eq!(of(70, 120), extents[1..3]);
        assert_eq!(of(64, 129), extents[1..4]);
        assert_eq!(of(1024, 3), extents[4..]);
        assert!(of(512, 8).is_empty());
    }
}
