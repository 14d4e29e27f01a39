//! The value of a result of one row and one column, read where it lies: Arrow's objects around it
//! would cost as much as a small query.

use insitu_kernels::reduce::raw_bits;
use insitu_query::{DataType, Scalar};

use crate::error::Result;
use crate::storage::Storage;
use crate::table::Table;

/// The value of a result's only column in its only row, where that is a number, a boolean or null.
/// None of any other table: content that has a name may change while it is looked at.
pub(crate) fn only(table: &Table) -> Result<Option<Scalar>> {
    let version = table.seen();
    let meta = &*version.meta;
    let ([field], [chunk]) = (meta.query.fields(), meta.layout.chunks.as_slice()) else {
        return Ok(None);
    };
    let (Storage::Anonymous(_), 1, [column]) =
        (&version.storage, meta.layout.rows, chunk.columns.as_slice())
    else {
        return Ok(None);
    };
    if field.dtype != DataType::Bool && !field.dtype.is_numeric() {
        return Ok(None);
    }
    version.region.shared.check_open()?;
    version.trust_values()?;
    if !column.validity.is_absent() {
        let bits = version.address(column.validity)?;
        // SAFETY: `address` checked the place, which is not empty, against the mapping; the version
        // keeps the memory, and nobody changes a result.
        if unsafe { bits.read() } & 1 == 0 {
            return Ok(Some(Scalar::Null));
        }
    }
    let Some(place) = column.buffers.first().filter(|place| !place.is_absent()) else {
        return Ok(None);
    };
    let values = version.address(*place)?;
    let Some(prim) = field.dtype.prim() else {
        // SAFETY: as above.
        return Ok(Some(Scalar::Bool(unsafe { values.read() } & 1 != 0)));
    };
    // SAFETY: as above; the layout was made for one value of the type, or checked to hold one.
    let bits = unsafe { raw_bits(prim, values, 0) };
    let narrow = 64 - 8 * prim.width() as u32;
    Ok(Some(match field.dtype {
        DataType::Float32 => Scalar::Float(f64::from(f32::from_bits(bits as u32))),
        DataType::Float64 => Scalar::Float(f64::from_bits(bits)),
        _ if prim.is_signed() => Scalar::Int((bits << narrow) as i64 >> narrow),
        _ => Scalar::from(bits),
    }))
}
