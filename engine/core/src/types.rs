//! Column types: Arrow's and the engine's, and how one becomes the other. Nothing else converts.

use std::sync::Arc;

use arrow_schema::{
    DataType as Arrow, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit as ArrowUnit,
};
use insitu_query::{DataType, Field, Schema, TimeUnit};

/// The engine's type for Arrow's; what it does not compute on is [`DataType::Opaque`].
pub fn from_arrow(dtype: &Arrow) -> DataType {
    match dtype {
        Arrow::Null => DataType::Null,
        Arrow::Boolean => DataType::Bool,
        Arrow::Int8 => DataType::Int8,
        Arrow::Int16 => DataType::Int16,
        Arrow::Int32 => DataType::Int32,
        Arrow::Int64 => DataType::Int64,
        Arrow::UInt8 => DataType::UInt8,
        Arrow::UInt16 => DataType::UInt16,
        Arrow::UInt32 => DataType::UInt32,
        Arrow::UInt64 => DataType::UInt64,
        Arrow::Float16 => DataType::Float16,
        Arrow::Float32 => DataType::Float32,
        Arrow::Float64 => DataType::Float64,
        Arrow::Date32 => DataType::Date32,
        Arrow::Date64 => DataType::Date64,
        Arrow::Time32(unit) => DataType::Time32(unit_from_arrow(*unit)),
        Arrow::Time64(unit) => DataType::Time64(unit_from_arrow(*unit)),
        Arrow::Timestamp(unit, tz) => DataType::Timestamp(unit_from_arrow(*unit), tz.clone()),
        Arrow::Duration(unit) => DataType::Duration(unit_from_arrow(*unit)),
        Arrow::Utf8 => DataType::Utf8,
        Arrow::LargeUtf8 => DataType::LargeUtf8,
        Arrow::Utf8View => DataType::Utf8View,
        other => DataType::Opaque(other.to_string().into()),
    }
}

/// Arrow's type for the engine's; none for [`DataType::Opaque`], which only its column knows.
pub(crate) fn to_arrow(dtype: &DataType) -> Option<Arrow> {
    Some(match dtype {
        DataType::Null => Arrow::Null,
        DataType::Bool => Arrow::Boolean,
        DataType::Int8 => Arrow::Int8,
        DataType::Int16 => Arrow::Int16,
        DataType::Int32 => Arrow::Int32,
        DataType::Int64 => Arrow::Int64,
        DataType::UInt8 => Arrow::UInt8,
        DataType::UInt16 => Arrow::UInt16,
        DataType::UInt32 => Arrow::UInt32,
        DataType::UInt64 => Arrow::UInt64,
        DataType::Float16 => Arrow::Float16,
        DataType::Float32 => Arrow::Float32,
        DataType::Float64 => Arrow::Float64,
        DataType::Date32 => Arrow::Date32,
        DataType::Date64 => Arrow::Date64,
        DataType::Time32(unit) => Arrow::Time32(unit_to_arrow(*unit)),
        DataType::Time64(unit) => Arrow::Time64(unit_to_arrow(*unit)),
        DataType::Timestamp(unit, tz) => Arrow::Timestamp(unit_to_arrow(*unit), tz.clone()),
        DataType::Duration(unit) => Arrow::Duration(unit_to_arrow(*unit)),
        DataType::Utf8 => Arrow::Utf8,
        DataType::LargeUtf8 => Arrow::LargeUtf8,
        DataType::Utf8View => Arrow::Utf8View,
        DataType::Opaque(_) => return None,
    })
}

/// The engine's schema for Arrow's.
pub(crate) fn schema_from_arrow(schema: &ArrowSchema) -> Schema {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| Field::new(f.name().as_str(), from_arrow(f.data_type()), f.is_nullable()))
        .collect();
    Schema::new(fields)
}

/// Arrow's schema for the result of a query over a table of schema `source`. `origin` says, for a
/// column of the result, which column of the source it is, untouched; such a column keeps its
/// Arrow type and its metadata.
pub(crate) fn schema_to_arrow(
    schema: &Schema,
    source: &ArrowSchema,
    origin: impl Fn(usize) -> Option<usize>,
) -> crate::Result<SchemaRef> {
    let mut fields = Vec::with_capacity(schema.len());
    for (index, field) in schema.fields().iter().enumerate() {
        let original = origin(index).and_then(|i| source.fields().get(i));
        let made = match (original, to_arrow(&field.dtype)) {
            (Some(original), _) => original.as_ref().clone().with_name(&*field.name),
            (None, Some(dtype)) => ArrowField::new(&*field.name, dtype, field.nullable),
            (None, None) => {
                // The engine moves such columns only as they are; find the one it was.
                let printed = field.dtype.to_string();
                match source.fields().iter().find(|f| f.data_type().to_string() == printed) {
                    Some(f) => ArrowField::new(&*field.name, f.data_type().clone(), field.nullable),
                    None => {
                        return Err(crate::Error::Unsupported(format!(
                            "column {:?} has type {printed}, which a query cannot produce",
                            &*field.name
                        )));
                    }
                }
            }
        };
        fields.push(made);
    }
    Ok(Arc::new(ArrowSchema::new(fields)))
}

fn unit_from_arrow(unit: ArrowUnit) -> TimeUnit {
    match unit {
        ArrowUnit::Second => TimeUnit::Second,
        ArrowUnit::Millisecond => TimeUnit::Millisecond,
        ArrowUnit::Microsecond => TimeUnit::Microsecond,
        ArrowUnit::Nanosecond => TimeUnit::Nanosecond,
    }
}

fn unit_to_arrow(unit: TimeUnit) -> ArrowUnit {
    match unit {
        TimeUnit::Second => ArrowUnit::Second,
        TimeUnit::Millisecond => ArrowUnit::Millisecond,
        TimeUnit::Microsecond => ArrowUnit::Microsecond,
        TimeUnit::Nanosecond => ArrowUnit::Nanosecond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_the_engine_knows_comes_back_as_it_was() {
        let utc: Option<Arc<str>> = Some("UTC".into());
        for dtype in [
            Arrow::Null,
            Arrow::Boolean,
            Arrow::Int8,
            Arrow::UInt64,
            Arrow::Float16,
            Arrow::Float64,
            Arrow::Date32,
            Arrow::Date64,
            Arrow::Time32(ArrowUnit::Second),
            Arrow::Time64(ArrowUnit::Nanosecond),
            Arrow::Timestamp(ArrowUnit::Millisecond, utc),
            Arrow::Timestamp(ArrowUnit::Microsecond, None),
            Arrow::Duration(ArrowUnit::Nanosecond),
            Arrow::Utf8,
            Arrow::LargeUtf8,
            Arrow::Utf8View,
        ] {
            assert_eq!(to_arrow(&from_arrow(&dtype)), Some(dtype));
        }
    }

    #[test]
    fn a_type_without_counterpart_is_opaque_and_keeps_its_name() {
        let dtype = Arrow::Decimal128(10, 2);
        assert_eq!(from_arrow(&dtype), DataType::Opaque(dtype.to_string().into()));
        assert_eq!(to_arrow(&from_arrow(&dtype)), None);
    }
}
