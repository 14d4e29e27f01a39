//! What was noted of a table's columns when it was written, for people: unlike the hints that
//! queries get, with the ranges of floats, and as values of the columns' own types.

use arrow_array::{ArrayRef, make_array};
use arrow_buffer::Buffer;
use arrow_schema::DataType;
use insitu_kernels::copy::ZoneStats;
use insitu_kernels::prim::Prim;

use crate::error::{Error, Result};
use crate::region::FIRST_CONTENT;
use crate::statistics;
use crate::table::Table;

/// What was noted of a column's values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The least and the greatest value but NaN and null: an array of these two.
    pub range: Option<ArrayRef>,
    /// How many values are null.
    pub nulls: Option<u64>,
    /// Whether there is a NaN.
    pub nan: bool,
    /// Whether no value is null or NaN or less than the one before it.
    pub ascending: bool,
    /// Whether no value is null or NaN or greater than the one before it.
    pub descending: bool,
}

impl Table {
    /// What was noted of each column when the table was written; none where nothing was, and where
    /// the content was changed in place since. Hints: nothing keeps a peer from writing there.
    ///
    /// # Errors
    /// `RegionCorrupt` if what lies in their place are no statistics; `Stale`.
    pub fn summaries(&self) -> Result<Option<Vec<Summary>>> {
        let now = self.version()?;
        let (meta, region) = (&now.meta, &now.region.shared.region);
        let place = meta.layout.statistics;
        if place.is_absent() {
            return Ok(None);
        }
        let from = region.slice(place.offset, place.len)?;
        let len = usize::try_from(place.len).unwrap_or(0);
        let fields = meta.arrow.fields();
        // SAFETY: `slice` checked the range against the mapping, which this version keeps.
        let read = unsafe { statistics::read_columns(from, len, fields.len()) }?;
        let Some((version, records)) = read else { return Ok(None) };
        // As published is the first version.
        if now.sequence().is_some() && version.max(FIRST_CONTENT) != now.content {
            return Ok(None);
        }
        let columns = records.iter().zip(fields.iter());
        columns
            .map(|(stats, field)| summary(stats, field.data_type()))
            .collect::<Result<_>>()
            .map(Some)
    }
}

fn summary(stats: &ZoneStats, dtype: &DataType) -> Result<Summary> {
    let prim = statistics::physical_type(dtype);
    let known = prim.filter(|_| stats.has(ZoneStats::HAS_RANGE));
    let says = |flag| prim.is_some() && stats.rows > 0 && stats.has(flag);
    Ok(Summary {
        range: known.map(|prim| values(&[stats.min, stats.max], prim, dtype)).transpose()?,
        nulls: (stats.null_count != ZoneStats::UNKNOWN).then_some(stats.null_count),
        nan: says(ZoneStats::HAS_NAN),
        ascending: says(ZoneStats::ASCENDING),
        descending: says(ZoneStats::DESCENDING),
    })
}

/// Values as statistics keep them, as an array of the column's type.
fn values(bits: &[u64], prim: Prim, dtype: &DataType) -> Result<ArrayRef> {
    let mut bytes = Vec::with_capacity(bits.len() * 8);
    for &bits in bits {
        match prim {
            Prim::F32 => bytes.extend((f64::from_bits(bits) as f32).to_le_bytes()),
            Prim::I8 | Prim::U8 => bytes.extend((bits as u8).to_le_bytes()),
            Prim::I16 | Prim::U16 => bytes.extend((bits as u16).to_le_bytes()),
            Prim::I32 | Prim::U32 => bytes.extend((bits as u32).to_le_bytes()),
            Prim::I64 | Prim::U64 | Prim::F64 => bytes.extend(bits.to_le_bytes()),
        }
    }
    arrow_data::ArrayData::builder(dtype.clone())
        .len(bits.len())
        .add_buffer(Buffer::from_vec(bytes))
        .align_buffers(true)
        .build()
        .map(make_array)
        .map_err(|error| Error::corrupt(format!("a column's statistics: {error}")))
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::{Float32Array, Int8Array};
    use arrow_schema::TimeUnit;

    use super::*;

    #[test]
    fn values_come_back_in_the_columns_type() {
        let signed = values(&[-5_i64 as u64, 7], Prim::I8, &DataType::Int8).unwrap();
        assert_eq!(signed.as_primitive(), &Int8Array::from(vec![-5, 7]));
        let floats = [f64::from(0.1_f32).to_bits(), f64::INFINITY.to_bits()];
        let floats = values(&floats, Prim::F32, &DataType::Float32).unwrap();
        assert_eq!(floats.as_primitive(), &Float32Array::from(vec![0.1, f32::INFINITY]));
        let dtype = DataType::Timestamp(TimeUnit::Nanosecond, None);
        assert_eq!(values(&[1, 2], Prim::I64, &dtype).unwrap().data_type(), &dtype);
    }
}
