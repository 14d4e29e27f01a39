//! Arrow schemas as encapsulated Arrow IPC messages, and back.
//!
//! Encoding is arrow-ipc's. Decoding is our own walk over the (verified) Flatbuffers message,
//! because what stands in a region is another process's word and arrow-ipc's conversion panics on
//! a schema that is valid Flatbuffers but no valid schema.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_ipc as ipc;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, write_message};
use arrow_schema::{
    DataType, Field, FieldRef, Fields, IntervalUnit, Schema, TimeUnit, UnionFields, UnionMode,
};

use crate::error::{Error, Result};

/// Types nest at most this deep.
pub(crate) const MAX_DEPTH: usize = 24;

/// Columns and their children, at most.
pub(crate) const MAX_FIELDS: usize = 1 << 20;

const CONTINUATION: [u8; 4] = [0xff; 4];

/// A decoded schema message.
pub(crate) struct Decoded {
    /// The schema.
    pub schema: Schema,
    /// The dictionary ids, in the order in which a depth-first walk meets dictionary fields, a
    /// field before those of its values.
    pub dictionary_ids: Vec<i64>,
}

/// `schema` as an encapsulated message.
///
/// # Errors
/// `LimitExceeded` for types that nest deeper than [`MAX_DEPTH`].
pub(crate) fn encode(schema: &Schema) -> Result<Vec<u8>> {
    for field in schema.fields() {
        check_depth(field, MAX_DEPTH)?;
    }
    let options = IpcWriteOptions::default();
    let mut tracker = DictionaryTracker::new(false);
    let message = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &options,
    );
    let mut bytes = Vec::new();
    write_message(&mut bytes, message, &options)
        .map_err(|e| Error::Unsupported(format!("the schema cannot be stored: {e}")))?;
    Ok(bytes)
}

/// # Errors
/// `LimitExceeded` if the type nests deeper than `left`.
fn check_depth(field: &Field, left: usize) -> Result<()> {
    let Some(left) = left.checked_sub(1) else {
        return Err(Error::LimitExceeded(format!(
            "a column's type nests deeper than {MAX_DEPTH} levels (at field {:?})",
            field.name()
        )));
    };
    let mut dtype = field.data_type();
    if let DataType::Dictionary(_, values) = dtype {
        dtype = values;
    }
    match dtype {
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::ListView(child)
        | DataType::LargeListView(child)
        | DataType::FixedSizeList(child, _)
        | DataType::Map(child, _) => check_depth(child, left),
        DataType::Struct(children) => children.iter().try_for_each(|c| check_depth(c, left)),
        DataType::Union(children, _) => children.iter().try_for_each(|(_, c)| check_depth(c, left)),
        DataType::RunEndEncoded(ends, values) => {
            check_depth(ends, left)?;
            check_depth(values, left)
        }
        // A dictionary of dictionaries cannot be written down: IPC fields have one dictionary.
        DataType::Dictionary(..) => Err(Error::Unsupported(format!(
            "field {:?} is a dictionary of dictionaries; decode the inner one first",
            field.name()
        ))),
        _ => Ok(()),
    }
}

/// The schema of an encapsulated message.
///
/// # Errors
/// `RegionCorrupt` whatever is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Decoded> {
    let rest = bytes.strip_prefix(&CONTINUATION).ok_or_else(|| bad("has no marker"))?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("is truncated"))?;
    let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| bad("is truncated"))?;
    let metadata = rest.get(..length).ok_or_else(|| bad("is truncated"))?;

    // Flatbuffers verifies alignment by address, so the bytes must lie as a writer laid them.
    let mut words = vec![0u64; length.div_ceil(8)];
    for (word, chunk) in words.iter_mut().zip(metadata.chunks(8)) {
        let mut full = [0u8; 8];
        for (to, from) in full.iter_mut().zip(chunk) {
            *to = *from;
        }
        *word = u64::from_ne_bytes(full);
    }
    // SAFETY: the words are initialised, live as long as the slice, and hold at least `length`
    // bytes; bytes have no alignment and no invalid values.
    let aligned = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), length) };

    let message = ipc::root_as_message(aligned).map_err(|_| bad("is not valid Flatbuffers"))?;
    let schema = message.header_as_schema().ok_or_else(|| bad("is not a schema"))?;
    if schema.endianness() != ipc::Endianness::Little {
        return Err(bad("is of a big-endian machine"));
    }
    let mut walk = Walk { ids: Vec::new(), fields: 0 };
    let mut fields = Vec::new();
    for field in schema.fields().into_iter().flatten() {
        fields.push(walk.field(field, MAX_DEPTH)?);
    }
    let metadata = metadata_of(schema.custom_metadata());
    Ok(Decoded { schema: Schema::new_with_metadata(fields, metadata), dictionary_ids: walk.ids })
}

fn bad(what: &str) -> Error {
    Error::corrupt(format!("a table's schema message {what}"))
}

fn metadata_of<'a>(
    pairs: Option<impl IntoIterator<Item = ipc::KeyValue<'a>>>,
) -> HashMap<String, String> {
    pairs
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair.key()?.to_owned(), pair.value()?.to_owned())))
        .collect()
}

/// What a walk over the fields gathers.
struct Walk {
    ids: Vec<i64>,
    fields: usize,
}

impl Walk {
    fn field(&mut self, field: ipc::Field<'_>, left: usize) -> Result<FieldRef> {
        let left = left.checked_sub(1).ok_or_else(|| bad("nests too deep"))?;
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(bad("has too many fields"));
        }
        let name = field.name().unwrap_or_default();
        let made = match field.dictionary() {
            None => Field::new(name, self.data_type(&field, left)?, field.nullable()),
            Some(dictionary) => {
                self.ids.push(dictionary.id());
                let keys = match dictionary.indexType() {
                    Some(int) => integer(int)?,
                    // The format's default.
                    None => DataType::Int32,
                };
                let values = self.data_type(&field, left)?;
                let dtype = DataType::Dictionary(Box::new(keys), Box::new(values));
                Field::new(name, dtype, field.nullable())
                    .with_dict_is_ordered(dictionary.isOrdered())
            }
        };
        Ok(Arc::new(made.with_metadata(metadata_of(field.custom_metadata()))))
    }

    fn children(&mut self, field: &ipc::Field<'_>, left: usize) -> Result<Vec<FieldRef>> {
        field.children().into_iter().flatten().map(|child| self.field(child, left)).collect()
    }

    fn only_child(&mut self, field: &ipc::Field<'_>, left: usize) -> Result<FieldRef> {
        let mut children = self.children(field, left)?;
        match (children.pop(), children.is_empty()) {
            (Some(child), true) => Ok(child),
            _ => Err(bad("has a list without exactly one child")),
        }
    }

    fn data_type(&mut self, field: &ipc::Field<'_>, left: usize) -> Result<DataType> {
        let missing = || bad("lacks the details of a type");
        Ok(match field.type_type() {
            ipc::Type::Null => DataType::Null,
            ipc::Type::Bool => DataType::Boolean,
            ipc::Type::Int => integer(field.type_as_int().ok_or_else(missing)?)?,
            ipc::Type::FloatingPoint => {
                match field.type_as_floating_point().ok_or_else(missing)?.precision() {
                    ipc::Precision::HALF => DataType::Float16,
                    ipc::Precision::SINGLE => DataType::Float32,
                    ipc::Precision::DOUBLE => DataType::Float64,
                    _ => return Err(bad("has a float of unknown precision")),
                }
            }
            ipc::Type::Binary => DataType::Binary,
            ipc::Type::LargeBinary => DataType::LargeBinary,
            ipc::Type::BinaryView => DataType::BinaryView,
            ipc::Type::Utf8 => DataType::Utf8,
            ipc::Type::LargeUtf8 => DataType::LargeUtf8,
            ipc::Type::Utf8View => DataType::Utf8View,
            ipc::Type::FixedSizeBinary => {
                let width = field.type_as_fixed_size_binary().ok_or_else(missing)?.byteWidth();
                DataType::FixedSizeBinary(non_negative(width)?)
            }
            ipc::Type::Date => match field.type_as_date().ok_or_else(missing)?.unit() {
                ipc::DateUnit::DAY => DataType::Date32,
                ipc::DateUnit::MILLISECOND => DataType::Date64,
                _ => return Err(bad("has a date of unknown unit")),
            },
            ipc::Type::Time => {
                let time = field.type_as_time().ok_or_else(missing)?;
                match (time.bitWidth(), unit(time.unit())?) {
                    (32, u @ (TimeUnit::Second | TimeUnit::Millisecond)) => DataType::Time32(u),
                    (64, u @ (TimeUnit::Microsecond | TimeUnit::Nanosecond)) => DataType::Time64(u),
                    _ => return Err(bad("has a time of unknown width")),
                }
            }
            ipc::Type::Timestamp => {
                let timestamp = field.type_as_timestamp().ok_or_else(missing)?;
                let zone = timestamp.timezone().filter(|zone| !zone.is_empty()).map(Arc::from);
                DataType::Timestamp(unit(timestamp.unit())?, zone)
            }
            ipc::Type::Duration => {
                DataType::Duration(unit(field.type_as_duration().ok_or_else(missing)?.unit())?)
            }
            ipc::Type::Interval => match field.type_as_interval().ok_or_else(missing)?.unit() {
                ipc::IntervalUnit::YEAR_MONTH => DataType::Interval(IntervalUnit::YearMonth),
                ipc::IntervalUnit::DAY_TIME => DataType::Interval(IntervalUnit::DayTime),
                ipc::IntervalUnit::MONTH_DAY_NANO => DataType::Interval(IntervalUnit::MonthDayNano),
                _ => return Err(bad("has an interval of unknown unit")),
            },
            ipc::Type::Decimal => {
                let decimal = field.type_as_decimal().ok_or_else(missing)?;
                decimal_type(decimal.bitWidth(), decimal.precision(), decimal.scale())?
            }
            ipc::Type::List => DataType::List(self.only_child(field, left)?),
            ipc::Type::LargeList => DataType::LargeList(self.only_child(field, left)?),
            ipc::Type::ListView => DataType::ListView(self.only_child(field, left)?),
            ipc::Type::LargeListView => DataType::LargeListView(self.only_child(field, left)?),
            ipc::Type::FixedSizeList => {
                let size = field.type_as_fixed_size_list().ok_or_else(missing)?.listSize();
                DataType::FixedSizeList(self.only_child(field, left)?, non_negative(size)?)
            }
            ipc::Type::Struct_ => DataType::Struct(Fields::from(self.children(field, left)?)),
            ipc::Type::Map => {
                let sorted = field.type_as_map().ok_or_else(missing)?.keysSorted();
                let entries = self.only_child(field, left)?;
                match entries.data_type() {
                    DataType::Struct(fields) if fields.len() == 2 => {}
                    _ => return Err(bad("has a map whose entries are not pairs")),
                }
                DataType::Map(entries, sorted)
            }
            ipc::Type::RunEndEncoded => {
                let children = self.children(field, left)?;
                let [ends, values] = children.as_slice() else {
                    return Err(bad("has a run-end encoding without exactly two children"));
                };
                DataType::RunEndEncoded(ends.clone(), values.clone())
            }
            ipc::Type::Union => {
                let union = field.type_as_union().ok_or_else(missing)?;
                let mode = match union.mode() {
                    ipc::UnionMode::Sparse => UnionMode::Sparse,
                    ipc::UnionMode::Dense => UnionMode::Dense,
                    _ => return Err(bad("has a union of unknown mode")),
                };
                let children = self.children(field, left)?;
                let ids: Vec<i32> = match union.typeIds() {
                    Some(ids) => ids.iter().collect(),
                    None => (0i32..).take(children.len()).collect(),
                };
                let ids: Vec<i8> = ids
                    .into_iter()
                    .map(|id| i8::try_from(id).map_err(|_| bad("has a union of unknown type id")))
                    .collect::<Result<_>>()?;
                let fields = UnionFields::try_new(ids, children)
                    .map_err(|_| bad("has a union that contradicts itself"))?;
                DataType::Union(fields, mode)
            }
            _ => return Err(bad("has a type this build does not know")),
        })
    }
}

fn integer(int: ipc::Int<'_>) -> Result<DataType> {
    Ok(match (int.bitWidth(), int.is_signed()) {
        (8, true) => DataType::Int8,
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (64, true) => DataType::Int64,
        (8, false) => DataType::UInt8,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (64, false) => DataType::UInt64,
        _ => return Err(bad("has an integer of unknown width")),
    })
}

fn decimal_type(bits: i32, precision: i32, scale: i32) -> Result<DataType> {
    let details = || bad("has a decimal out of range");
    let p = u8::try_from(precision).map_err(|_| details())?;
    let s = i8::try_from(scale).map_err(|_| details())?;
    let (dtype, most) = match bits {
        32 => (DataType::Decimal32(p, s), 9),
        64 => (DataType::Decimal64(p, s), 18),
        128 => (DataType::Decimal128(p, s), 38),
        256 => (DataType::Decimal256(p, s), 76),
        _ => return Err(details()),
    };
    if p == 0 || p > most || s.unsigned_abs() > most {
        return Err(details());
    }
    Ok(dtype)
}

fn unit(unit: ipc::TimeUnit) -> Result<TimeUnit> {
    Ok(match unit {
        ipc::TimeUnit::SECOND => TimeUnit::Second,
        ipc::TimeUnit::MILLISECOND => TimeUnit::Millisecond,
        ipc::TimeUnit::MICROSECOND => TimeUnit::Microsecond,
        ipc::TimeUnit::NANOSECOND => TimeUnit::Nanosecond,
        _ => return Err(bad("has an unknown unit of time")),
    })
}

fn non_negative(value: i32) -> Result<i32> {
    if value < 0 { Err(bad("has a negative width")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Schema {
        let item = |d| Arc::new(Field::new("item", d, true));
        let pair = Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Int64, true),
        ]);
        let entries = Arc::new(Field::new("entries", DataType::Struct(pair), false));
        let coded = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let types = [
            DataType::Null,
            DataType::Boolean,
            DataType::Int8,
            DataType::UInt64,
            DataType::Float16,
            DataType::Float64,
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::Binary,
            DataType::LargeBinary,
            DataType::BinaryView,
            DataType::FixedSizeBinary(7),
            DataType::Date32,
            DataType::Date64,
            DataType::Time32(TimeUnit::Millisecond),
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Second, Some("Europe/Vienna".into())),
            DataType::Duration(TimeUnit::Second),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Decimal32(9, 2),
            DataType::Decimal64(18, -2),
            DataType::Decimal128(38, 10),
            DataType::Decimal256(76, 0),
            DataType::List(item(DataType::Int32)),
            DataType::LargeList(item(coded.clone())),
            DataType::ListView(item(DataType::Int32)),
            DataType::FixedSizeList(item(DataType::Float32), 3),
            DataType::Map(entries, false),
            coded,
            DataType::RunEndEncoded(
                Arc::new(Field::new("run_ends", DataType::Int32, false)),
                item(DataType::Utf8),
            ),
        ];
        let fields: Vec<Field> = types
            .into_iter()
            .enumerate()
            .map(|(i, d)| {
                let extra = HashMap::from([("k".to_owned(), i.to_string())]);
                Field::new(format!("c{i}"), d, i % 2 == 0).with_metadata(extra)
            })
            .collect();
        Schema::new_with_metadata(fields, HashMap::from([("a".into(), "b".into())]))
    }

    #[test]
    fn every_type_survives() {
        let schema = everything();
        let decoded = decode(&encode(&schema).unwrap()).unwrap();
        assert_eq!(decoded.schema, schema);
        assert_eq!(decoded.dictionary_ids.len(), 2);
    }

    #[test]
    fn our_walk_agrees_with_arrows() {
        let schema = everything();
        let bytes = encode(&schema).unwrap();
        let theirs = ipc::convert::try_schema_from_ipc_buffer(&bytes).unwrap();
        assert_eq!(decode(&bytes).unwrap().schema, theirs);
    }

    #[test]
    fn damage_never_panics() {
        let bytes = encode(&everything()).unwrap();
        for cut in 0..bytes.len() {
            let _ = decode(&bytes[..cut]);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = decode(&damaged);
            }
        }
    }

    #[test]
    fn the_deepest_allowed_type_survives_and_a_deeper_one_is_refused() {
        let nest = |levels: usize| {
            let mut dtype = DataType::Int32;
            for _ in 1..levels {
                dtype = DataType::List(Arc::new(Field::new("item", dtype, true)));
            }
            Schema::new(vec![Field::new("c", dtype, true)])
        };
        let deepest = nest(MAX_DEPTH);
        assert_eq!(decode(&encode(&deepest).unwrap()).unwrap().schema, deepest);
        assert!(matches!(encode(&nest(MAX_DEPTH + 1)), Err(Error::LimitExceeded(_))));
    }
}
