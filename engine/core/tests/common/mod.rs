//! Regions and random Arrow data for the tests.
#![allow(dead_code, missing_docs)]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::*;
use insitu::{CreateOptions, Location, Region};

/// An anonymous region of 64 MiB.
pub fn region() -> Region {
    let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
    Region::create(Location::Memfd, options).unwrap()
}

/// xorshift: the same data for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 11) % n.max(1) as u64) as usize
    }

    fn text(&mut self) -> String {
        let pool = ["", "a", "Österreich", "twelve bytes", "thirteen byte", "流れ", "x\u{10FFFF}y"];
        let word = pool[self.below(pool.len())];
        match self.below(4) {
            0 => format!("{word}-{}-{}", self.below(1000), "long enough to leave the view"),
            _ => word.to_owned(),
        }
    }

    fn nulls(&mut self, len: usize) -> Option<NullBuffer> {
        match self.below(3) {
            0 => None,
            _ => {
                let rate = 1 + self.below(10);
                // A bitmap that does not begin at a byte, as slices have.
                let skip = self.below(13);
                let bits: Vec<bool> = (0..len + skip).map(|_| self.below(rate) != 0).collect();
                Some(NullBuffer::new(BooleanBuffer::from(bits).slice(skip, len)))
            }
        }
    }

    fn offsets(&mut self, len: usize) -> Vec<usize> {
        let mut offsets = vec![self.below(3)];
        for i in 0..len {
            offsets.push(offsets[i] + [0, 0, 1, 2, 5][self.below(5)]);
        }
        offsets
    }

    /// An array of that type and length; `nullable`: with nulls now and then.
    pub fn array(&mut self, dtype: &DataType, len: usize, nullable: bool) -> ArrayRef {
        let nulls = if nullable { self.nulls(len) } else { None };
        match dtype {
            DataType::Null => Arc::new(NullArray::new(len)),
            DataType::Boolean => {
                let bits: Vec<bool> = (0..len + 3).map(|_| self.below(2) == 1).collect();
                Arc::new(BooleanArray::new(BooleanBuffer::from(bits).slice(3, len), nulls))
            }
            DataType::Utf8 => {
                let v: Vec<String> = (0..len).map(|_| self.text()).collect();
                let (offsets, values, _) = StringArray::from(v).into_parts();
                Arc::new(StringArray::new(offsets, values, nulls))
            }
            DataType::LargeUtf8 => {
                let v: Vec<String> = (0..len).map(|_| self.text()).collect();
                let (offsets, values, _) = LargeStringArray::from(v).into_parts();
                Arc::new(LargeStringArray::new(offsets, values, nulls))
            }
            DataType::Binary => {
                let v: Vec<String> = (0..len).map(|_| self.text()).collect();
                let v: Vec<&[u8]> = v.iter().map(|s| s.as_bytes()).collect();
                let (offsets, values, _) = BinaryArray::from(v).into_parts();
                Arc::new(BinaryArray::new(offsets, values, nulls))
            }
            DataType::LargeBinary => {
                let v: Vec<String> = (0..len).map(|_| self.text()).collect();
                let v: Vec<&[u8]> = v.iter().map(|s| s.as_bytes()).collect();
                let (offsets, values, _) = LargeBinaryArray::from(v).into_parts();
                Arc::new(LargeBinaryArray::new(offsets, values, nulls))
            }
            DataType::Utf8View => {
                let v: Vec<String> = (0..len).map(|_| self.text()).collect();
                let (views, buffers, _) = StringViewArray::from_iter_values(v).into_parts();
                Arc::new(StringViewArray::new(views, buffers, nulls))
            }
            DataType::BinaryView => {
                let v: Vec<String> = (0..len).map(|_| self.text()).collect();
                let (views, buffers, _) = BinaryViewArray::from_iter_values(v).into_parts();
                Arc::new(BinaryViewArray::new(views, buffers, nulls))
            }
            DataType::List(field) | DataType::Map(field, _) => {
                let offsets = self.offsets(len);
                let child = self.array(field.data_type(), offsets[len] + 2, field.is_nullable());
                let offsets: Vec<i32> = offsets.iter().map(|o| *o as i32).collect();
                let offsets = OffsetBuffer::new(offsets.into());
                match dtype {
                    DataType::List(_) => {
                        Arc::new(ListArray::new(field.clone(), offsets, child, nulls))
                    }
                    _ => {
                        let entries = child.as_struct().clone();
                        Arc::new(MapArray::new(field.clone(), offsets, entries, nulls, false))
                    }
                }
            }
            DataType::LargeList(field) => {
                let offsets = self.offsets(len);
                let child = self.array(field.data_type(), offsets[len] + 2, true);
                let offsets: Vec<i64> = offsets.iter().map(|o| *o as i64).collect();
                let offsets = OffsetBuffer::new(offsets.into());
                Arc::new(LargeListArray::new(field.clone(), offsets, child, nulls))
            }
            DataType::FixedSizeList(field, size) => {
                let child = self.array(field.data_type(), len * *size as usize, true);
                Arc::new(FixedSizeListArray::new(field.clone(), *size, child, nulls))
            }
            DataType::Struct(fields) => {
                let children: Vec<ArrayRef> = fields
                    .iter()
                    .map(|f| self.array(f.data_type(), len, f.is_nullable()))
                    .collect();
                Arc::new(StructArray::new(fields.clone(), children, nulls))
            }
            DataType::Dictionary(_, values) => {
                let size = 1 + self.below(7);
                let values = self.array(values, size, true);
                let keys: Vec<i8> = (0..len).map(|_| self.below(size) as i8).collect();
                let keys = Int8Array::new(ScalarBuffer::from(keys), nulls);
                Arc::new(DictionaryArray::<Int8Type>::new(keys, values))
            }
            other => {
                // Any bytes are good values of a fixed-width type.
                let width = match other {
                    DataType::FixedSizeBinary(n) => *n as usize,
                    other => arrow_data::layout(other).buffers.first().map_or(1, |b| match b {
                        arrow_data::BufferSpec::FixedWidth { byte_width, .. } => *byte_width,
                        _ => panic!("no generator for {other}"),
                    }),
                };
                let mut bytes: Vec<u8> = (0..len * width).map(|_| self.next() as u8).collect();
                if let DataType::Decimal128(..) | DataType::Decimal256(..) = other {
                    // Small enough for any precision.
                    for value in bytes.chunks_mut(width) {
                        value[1..].fill(0);
                    }
                }
                if matches!(other, DataType::Float32 | DataType::Float64 | DataType::Float16) {
                    for value in bytes.chunks_mut(width) {
                        // No NaN, so that equality can be asked; NaN has a test of its own.
                        value[width - 1] &= 0x3f;
                    }
                }
                let data = ArrayData::builder(other.clone())
                    .len(len)
                    .nulls(nulls)
                    .add_buffer(bytes.into())
                    .align_buffers(true)
                    .build()
                    .unwrap();
                make_array(data)
            }
        }
    }
}

fn item(dtype: DataType) -> FieldRef {
    Arc::new(Field::new("item", dtype, true))
}

fn coded(values: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int8), Box::new(values))
}

/// Every type that a region holds.
pub fn types() -> Vec<DataType> {
    let pair = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Int64, true),
    ]);
    let parts = Fields::from(vec![
        Field::new("a", DataType::Int16, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("c", DataType::List(item(DataType::Utf8View)), true),
    ]);
    vec![
        DataType::Null,
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Date32,
        DataType::Date64,
        DataType::Time32(TimeUnit::Second),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        DataType::Duration(TimeUnit::Millisecond),
        DataType::Interval(IntervalUnit::YearMonth),
        DataType::Interval(IntervalUnit::DayTime),
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Decimal32(9, 2),
        DataType::Decimal64(18, 2),
        DataType::Decimal128(38, 2),
        DataType::Decimal256(76, 2),
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        DataType::FixedSizeBinary(5),
        DataType::List(item(DataType::Int32)),
        DataType::List(item(DataType::List(item(DataType::Utf8)))),
        DataType::LargeList(item(DataType::Boolean)),
        DataType::FixedSizeList(item(DataType::Float32), 3),
        DataType::Struct(parts),
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false),
        coded(DataType::Utf8),
        coded(DataType::LargeUtf8),
        coded(DataType::Utf8View),
        coded(DataType::Int64),
        coded(DataType::FixedSizeBinary(3)),
        coded(DataType::List(item(DataType::Int8))),
        DataType::List(item(coded(DataType::Utf8))),
    ]
}
