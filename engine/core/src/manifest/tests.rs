//! Manifests survive; damaged ones never panic, and never name memory outside the table's own.

use arrow_schema::Field;
use proptest::prelude::*;

use super::*;
use crate::layout::Kind;

/// A schema with every shape of type in it.
fn schema() -> Schema {
    let item = |d| Arc::new(Field::new("item", d, true));
    let coded = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let pair = vec![Field::new("a", DataType::Int64, true), Field::new("b", coded.clone(), true)];
    let types = [
        DataType::Null,
        DataType::Boolean,
        DataType::Int32,
        DataType::Utf8,
        DataType::LargeBinary,
        DataType::Utf8View,
        DataType::List(item(DataType::Utf8)),
        DataType::FixedSizeList(item(DataType::Int16), 3),
        DataType::Struct(pair.into()),
        coded,
    ];
    let fields = types.into_iter().enumerate().map(|(i, d)| Field::new(format!("c{i}"), d, true));
    Schema::new(fields.collect::<Vec<_>>())
}

/// A column of `len` rows whose buffers stand one behind the other from `next` on.
fn column(dtype: &DataType, len: u64, next: &mut u64) -> Arc<Column> {
    let shape = shape(dtype).unwrap();
    let mut place = |len: u64| {
        let at = *next;
        *next += len.next_multiple_of(ALIGN).max(ALIGN);
        if len == 0 { Place::default() } else { Place { offset: at, len } }
    };
    let validity = if shape.validity { place(len.div_ceil(8)) } else { Place::default() };
    let mut buffers: Vec<Place> =
        shape.buffers.iter().map(|kind| place(kind.bytes(len).unwrap_or(77))).collect();
    if shape.variadic {
        buffers.extend([place(100), place(1)]);
    }
    let child_len = match shape.child_len {
        ChildLen::Same => len,
        ChildLen::Times(n) => len * n,
        ChildLen::Free => len + 3,
    };
    let mut children = Vec::new();
    if let Some(values) = &shape.dictionary {
        children.push(column(values, 5, next));
    }
    for field in &shape.children {
        children.push(column(field.data_type(), child_len, next));
    }
    let null_count = if shape.validity { 1 } else { len };
    Arc::new(Column { len, null_count: Some(null_count.min(len)), validity, buffers, children })
}

/// A layout of one chunk, and the extents that hold it.
fn layout(schema: &Schema, rows: u64) -> (Layout, Vec<(u64, u64)>) {
    let mut next = 1 << 20;
    let columns = schema.fields().iter().map(|f| column(f.data_type(), rows, &mut next)).collect();
    let statistics = Place { offset: next, len: 640 };
    let extents = vec![(1 << 20, 1024), ((1 << 20) + 1024, next + 640 - (1 << 20) - 1024)];
    (
        Layout { rows, chunks: vec![Arc::new(Chunk { rows, columns })], statistics, origin: rows },
        extents,
    )
}

#[test]
fn a_manifest_comes_back_as_it_went() {
    let schema = schema();
    for rows in [1, 9, 1000] {
        let (layout, extents) = layout(&schema, rows);
        let bytes = encode(&schema, &layout).unwrap();
        let (found_schema, found) = decode(&bytes, &extents).unwrap();
        assert_eq!((&found_schema, &found), (&schema, &layout));
    }
}

#[test]
fn chunks_share_their_dictionaries() {
    let schema = schema();
    let (mut layout, extents) = layout(&schema, 10);
    let chunk = layout.chunks[0].clone();
    layout.chunks.push(chunk);
    layout.rows = 20;
    let (_, found) = decode(&encode(&schema, &layout).unwrap(), &extents).unwrap();
    assert_eq!(found, layout);
    let of = |chunk: usize| &found.chunks[chunk].columns[9].children[0];
    assert!(Arc::ptr_eq(of(0), of(1)));
}

#[test]
fn buffers_outside_the_tables_extents_are_refused() {
    let schema = schema();
    let (layout, extents) = layout(&schema, 100);
    let bytes = encode(&schema, &layout).unwrap();
    for wrong in [
        vec![],
        vec![(0, 1 << 20)],
        // A hole of one alignment unit.
        vec![(1 << 20, 1024), ((1 << 20) + 1088, 1 << 20)],
        // One byte short: even padding must lie inside.
        vec![(extents[0].0, extents[1].0 + extents[1].1 - extents[0].0 - 1)],
        vec![(u64::MAX - 5, 10)],
    ] {
        let error = decode(&bytes, &wrong).unwrap_err();
        assert!(matches!(error, Error::RegionCorrupt { .. }), "{error}");
    }
}

#[test]
fn two_dictionary_columns_of_one_id_are_refused() {
    // Its values could be taken for those of another type.
    let coded = |values| DataType::Dictionary(Box::new(DataType::Int8), Box::new(values));
    let two = Schema::new(vec![
        Field::new("a", coded(DataType::Utf8), true),
        Field::new("b", coded(DataType::Int64), true),
    ]);
    let (layout, extents) = layout(&two, 10);
    let bytes = encode(&two, &layout).unwrap();
    let table = v1::Table::decode(&*bytes).unwrap();
    // Both ids are in the schema message as 64-bit numbers; make every 1 a 0 and see.
    let mut refused = 0;
    for at in 0..table.schema.len() {
        if table.schema[at] == 1 {
            let mut table = table.clone();
            table.schema[at] = 0;
            if let Err(e) = decode(&table.encode_to_vec(), &extents) {
                refused += usize::from(e.to_string().contains("two dictionary columns"));
            }
        }
    }
    assert_eq!(refused, 1);
}

/// Every place of a column and its children.
fn places(column: &Column, found: &mut Vec<Place>) {
    found.push(column.validity);
    found.extend(&column.buffers);
    column.children.iter().for_each(|child| places(child, found));
}

/// What was decoded from damaged bytes may be wrong, but must be safe to look at.
fn check(bytes: &[u8], extents: &[(u64, u64)]) {
    let Ok((schema, layout)) = decode(bytes, extents) else { return };
    for chunk in &layout.chunks {
        for (field, column) in schema.fields().iter().zip(&chunk.columns) {
            let mut found = Vec::new();
            places(column, &mut found);
            for place in found.into_iter().filter(|p| !p.is_absent()) {
                let inside = extents.iter().fold(0, |sum, (offset, len)| {
                    let from = place.offset.max(*offset);
                    let to = (place.offset + place.len).min(offset + len);
                    sum + to.saturating_sub(from)
                });
                assert_eq!(inside, place.len);
            }
            let shape = shape(field.data_type()).unwrap();
            assert_eq!(column.len, chunk.rows);
            for (kind, place) in shape.buffers.iter().zip(&column.buffers) {
                if *kind != Kind::Bytes {
                    assert!(place.len >= kind.bytes(column.len).unwrap());
                }
            }
        }
    }
}

#[test]
fn every_single_damaged_byte_is_survived() {
    let schema = schema();
    let (layout, extents) = layout(&schema, 100);
    let bytes = encode(&schema, &layout).unwrap();
    for at in 0..bytes.len() {
        for flip in [1, 2, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            check(&damaged, &extents);
        }
        check(&bytes[..at], &extents);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damage_anywhere_is_survived(
        rows in 0u64..2000,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let schema = schema();
        let (layout, extents) = layout(&schema, rows);
        let mut bytes = encode(&schema, &layout).unwrap();
        for (at, to) in damage {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        check(&bytes, &extents);
        check(&bytes[..cut.index(bytes.len())], &extents);
    }
}
