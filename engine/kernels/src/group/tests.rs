//! Grouping against naive maps on random data.

use super::*;
use crate::prim::Native;
use crate::reduce::{Interpolation, Quantile};
use crate::strings::tests::{LAYOUTS, Owned, Random};
use crate::testing::many;
use crate::view::Layout;
use std::collections::HashMap;

/// A key column of a test.
enum Data {
    I64(Vec<Option<i64>>),
    F64(Vec<Option<f64>>),
    Bool(Vec<Option<bool>>),
    Str(Layout, Vec<Option<Vec<u8>>>),
}

fn bits(rows: impl Iterator<Item = bool>) -> Vec<u8> {
    let rows: Vec<bool> = rows.collect();
    rows.chunks(8)
        .map(|c| c.iter().enumerate().fold(0, |b, (k, v)| b | u8::from(*v) << k))
        .collect()
}

impl Data {
    fn kind(&self, range: Option<(i128, i128)>) -> KeyKind {
        match self {
            Data::I64(_) => KeyKind::Prim { prim: Prim::I64, range },
            Data::F64(_) => KeyKind::Prim { prim: Prim::F64, range: None },
            Data::Bool(_) => KeyKind::Bool,
            Data::Str(..) => KeyKind::Str,
        }
    }

    /// A value that is equal where keys are.
    fn naive(&self, i: usize) -> Option<Vec<u8>> {
        match self {
            Data::I64(v) => v[i].map(|v| v.to_le_bytes().to_vec()),
            Data::F64(v) => v[i].map(|v| {
                let v = if v.is_nan() { f64::NAN } else { v + 0.0 };
                v.to_bits().to_le_bytes().to_vec()
            }),
            Data::Bool(v) => v[i].map(|v| vec![u8::from(v)]),
            Data::Str(_, v) => v[i].clone(),
        }
    }

    fn valid(&self, i: usize) -> bool {
        self.naive(i).is_some()
    }
}

/// Numbers rows `range` of the columns, tile by tile of odd sizes.
fn number(
    keys: &mut Keys,
    columns: &[Data],
    owned: &[Option<Owned>],
    mask: Option<&[bool]>,
    range: std::ops::Range<usize>,
    ids: &mut [u32],
    r: &mut Random,
) {
    let views: Vec<Option<ColumnView<'_>>> =
        owned.iter().map(|o| o.as_ref().map(Owned::view)).collect();
    let mut start = range.start;
    while start < range.end {
        let rows = (1 + r.below(TILE_MAX as u64) as usize).min(range.end - start);
        let tile = start..start + rows;
        let validity: Vec<Vec<u8>> =
            columns.iter().map(|c| bits(tile.clone().map(|i| c.valid(i)))).collect();
        let values: Vec<Vec<u8>> = columns
            .iter()
            .map(|c| match c {
                Data::I64(v) => {
                    v[tile.clone()].iter().flat_map(|v| v.unwrap_or(77).to_le_bytes()).collect()
                }
                Data::F64(v) => {
                    v[tile.clone()].iter().flat_map(|v| v.unwrap_or(1.5).to_le_bytes()).collect()
                }
                Data::Bool(v) => bits(v[tile.clone()].iter().map(|v| v.unwrap_or(true))),
                Data::Str(..) => Vec::new(),
            })
            .collect();
        let inputs: Vec<KeyInput<'_>> = (0..columns.len())
            .map(|c| {
                let all = tile.clone().all(|i| columns[c].valid(i));
                let validity = if all { std::ptr::null() } else { validity[c].as_ptr() };
                match (&columns[c], &views[c]) {
                    (Data::Str(..), Some(column)) => KeyInput::Str { column, start, validity },
                    (Data::Bool(_), _) => KeyInput::Bool { bits: values[c].as_ptr(), validity },
                    _ => KeyInput::Prim { values: values[c].as_ptr(), validity },
                }
            })
            .collect();
        let mask = mask.map(|m| bits(m[tile.clone()].iter().copied()));
        let mask = mask.as_ref().map_or(std::ptr::null(), |m| m.as_ptr());
        // SAFETY: all buffers are made for `rows` rows of these columns.
        unsafe { keys.assign(&inputs, mask, rows, start as u64, ids[start..].as_mut_ptr()) }
            .unwrap();
        start += rows;
    }
}

fn owned(columns: &[Data]) -> Vec<Option<Owned>> {
    columns
        .iter()
        .map(|c| match c {
            Data::Str(layout, v) => Some(Owned::new(*layout, v)),
            _ => None,
        })
        .collect()
}

/// Numbers, first rows, merging of ranges and emission against a map.
fn check(columns: &[Data], hints: &[Option<(i128, i128)>], mask: Option<&[bool]>, rows: usize) {
    let mut r = Random(rows as u64);
    let kinds: Vec<KeyKind> = columns.iter().zip(hints).map(|(c, h)| c.kind(*h)).collect();
    let owned = owned(columns);

    let mut map: HashMap<Vec<Option<Vec<u8>>>, u32> = HashMap::new();
    let mut firsts = Vec::new();
    let mut want = vec![0u32; rows];
    for (i, id) in want.iter_mut().enumerate() {
        if mask.is_none_or(|m| m[i]) {
            let key = columns.iter().map(|c| c.naive(i)).collect();
            let next = map.len() as u32;
            *id = *map.entry(key).or_insert_with(|| {
                firsts.push(i as u64);
                next
            });
        }
    }

    let mut keys = Keys::new(&kinds, rows as u64);
    let mut ids = vec![9u32; rows];
    number(&mut keys, columns, &owned, mask, 0..rows, &mut ids, &mut r);
    assert_eq!(keys.groups(), firsts.len());
    assert_eq!(keys.first_rows(), firsts);
    for i in 0..rows {
        if mask.is_none_or(|m| m[i]) {
            assert_eq!(ids[i], want[i], "row {i}");
        } else {
            assert!((ids[i] as usize) < keys.groups().max(1));
        }
    }

    // The same in three ranges, merged.
    let mut merged = Keys::new(&kinds, rows as u64);
    for part in [0..rows / 5, rows / 5..rows / 2, rows / 2..rows] {
        let mut partial = Keys::new(&kinds, part.len() as u64);
        number(&mut partial, columns, &owned, mask, part.clone(), &mut ids, &mut r);
        let mapping = merged.merge(&partial).unwrap();
        for i in part {
            if mask.is_none_or(|m| m[i]) {
                assert_eq!(mapping[ids[i] as usize], want[i], "row {i} by ranges");
            }
        }
    }
    assert_eq!(merged.first_rows(), firsts);

    for (c, column) in columns.iter().enumerate() {
        emitted(&merged, c, column, &firsts);
    }
}

/// The keys that a table writes are those of its first rows.
fn emitted(keys: &Keys, c: usize, column: &Data, firsts: &[u64]) {
    let n = firsts.len();
    let words = n.div_ceil(64);
    let size = match column {
        Data::Bool(_) => 8 * words,
        Data::Str(..) => keys.key_bytes(c),
        _ => 8 * n,
    };
    let mut values = vec![0u8; size];
    let mut offsets = vec![0i64; n + 1];
    let mut validity = vec![0u64; words];
    let dst = KeyDst {
        values: values.as_mut_ptr(),
        offsets: offsets.as_mut_ptr().cast(),
        large: true,
        validity: validity.as_mut_ptr().cast(),
    };
    // SAFETY: the buffers have the sizes asked for.
    let nulls = unsafe { keys.write_key(c, &dst) }.unwrap();
    let mut want_nulls = 0;
    for (g, first) in firsts.iter().enumerate() {
        let want = column.naive(*first as usize);
        let valid = validity[g / 64] >> (g % 64) & 1 == 1;
        assert_eq!(valid, want.is_some());
        want_nulls += usize::from(!valid);
        if let Some(want) = want {
            let got = match column {
                Data::Bool(_) => vec![values[g / 8] >> (g % 8) & 1],
                Data::Str(..) => values[offsets[g] as usize..offsets[g + 1] as usize].to_vec(),
                _ => values[8 * g..8 * g + 8].to_vec(),
            };
            assert_eq!(got, want);
        }
    }
    assert_eq!(nulls, want_nulls);
}

fn ints(r: &mut Random, rows: usize, distinct: u64, step: i64, nulls: u64) -> Data {
    let v = (0..rows).map(|_| {
        (nulls == 0 || r.below(nulls) != 0).then(|| (r.below(distinct) as i64 - 50) * step)
    });
    Data::I64(v.collect())
}

#[test]
fn integers_are_numbered_whatever_the_hint_says() {
    let mut r = Random(31);
    for (rows, distinct, step, nulls) in [
        (0, 1, 1, 0),
        (many(5000), 100, 1, 0),
        (many(20_000), 9000, 1 << 40, 7),
        (many(3000), 100, 1, 3),
    ] {
        let data = ints(&mut r, rows, distinct, step, nulls);
        let exact = (-50i128, i128::from(distinct) - 51);
        let lies = [Some((0, 3)), Some((-60, 0)), Some((5, 4)), Some((i128::MIN, i128::MAX))];
        for hint in [None, Some(exact)].into_iter().chain(lies) {
            check(std::slice::from_ref(&data), &[hint], None, rows);
        }
    }
}

#[test]
fn the_ends_of_the_integers_are_keys_like_others() {
    for p in Prim::ALL.into_iter().filter(|p| p.is_integer()) {
        crate::prim::with_prim!(p, T => {
            let two = T::from_bits64(2);
            let values = [T::LEAST, T::GREATEST, two, T::GREATEST, T::LEAST, T::ONE];
            let bounds = |v: T| {
                if p.is_signed() { i128::from(v.to_bits64() as i64) } else { v.to_bits64().into() }
            };
            let all = Some((bounds(T::LEAST), bounds(T::GREATEST)));
            let top = Some((bounds(T::GREATEST) - 1, bounds(T::GREATEST)));
            for range in [None, all, top] {
                let mut keys = Keys::new(&[KeyKind::Prim { prim: p, range }], 1 << 40);
                let mut ids = [9u32; 6];
                let null = std::ptr::null();
                let input = KeyInput::Prim { values: values.as_ptr().cast(), validity: null };
                // SAFETY: six values, six numbers.
                unsafe { keys.assign(&[input], null, 6, 0, ids.as_mut_ptr()) }.unwrap();
                assert_eq!(ids, [0, 1, 2, 1, 0, 3], "{p:?} {range:?}");
                let mut out = [T::ONE; 4];
                let mut valid = [0u64];
                let dst = KeyDst {
                    values: out.as_mut_ptr().cast(),
                    offsets: std::ptr::null_mut(),
                    large: false,
                    validity: valid.as_mut_ptr().cast(),
                };
                // SAFETY: four values, one word.
                assert_eq!(unsafe { keys.write_key(0, &dst) }, Ok(0));
                assert_eq!(out, [T::LEAST, T::GREATEST, two, T::ONE]);
            }
        });
    }
}

#[test]
fn nan_is_one_group_and_minus_zero_is_zero() {
    let mut r = Random(32);
    let some = [f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001), 0.0, -0.0, 1.5, -1.5];
    let v: Vec<Option<f64>> =
        (0..many(3000)).map(|_| some.get(r.below(8) as usize).copied()).collect();
    check(&[Data::F64(v)], &[None], None, many(3000));
}

#[test]
fn strings_short_long_and_in_between_are_numbered() {
    let mut r = Random(33);
    for layout in LAYOUTS {
        for (rows, max, nulls) in [(0, 1, 0), (4000, 3, 5), (6000, 17, 9), (3000, 60, 0)] {
            let rows = many(rows);
            let v = r.strings(rows, max, nulls);
            check(&[Data::Str(layout, v)], &[None], None, rows);
        }
        // More than the first table holds, of both kinds.
        let v = (0..many(20_000))
            .map(|_| {
                let n = r.below(12_000);
                Some(if n.is_multiple_of(2) {
                    format!("{n}")
                } else {
                    format!("a long string {n}")
                })
            })
            .map(|s| s.map(String::into_bytes))
            .collect();
        check(&[Data::Str(layout, v)], &[None], None, many(20_000));
    }
}

#[test]
fn several_columns_are_numbered_by_their_combinations() {
    let mut r = Random(34);
    let rows = many(9000);
    let bools = |r: &mut Random| {
        Data::Bool(
            (0..rows).map(|_| [None, Some(true), Some(false)][r.below(3) as usize]).collect(),
        )
    };
    for (distinct, step) in [(3, 1), (60, 1), (700, 1), (8000, 3)] {
        let columns = [
            ints(&mut r, rows, distinct, step, 11),
            bools(&mut r),
            Data::Str(Layout::Utf8, r.strings(rows, 3, 9)),
            ints(&mut r, rows, 4, 1, 0),
        ];
        let mask: Vec<bool> = (0..rows).map(|_| r.below(3) != 0).collect();
        check(&columns, &[None; 4], None, rows);
        check(&columns, &[Some((0, 1000)), None, None, None], Some(&mask), rows);
        check(&columns[..2], &[None; 2], Some(&mask), rows);
    }
}

#[test]
fn rows_left_out_make_no_groups() {
    let mut r = Random(35);
    for rows in [10, many(3000)] {
        let columns =
            [ints(&mut r, rows, 500, 7, 4), Data::Str(Layout::Utf8View, r.strings(rows, 20, 4))];
        for odds in [1u64, 2, 50] {
            let mask: Vec<bool> = (0..rows).map(|_| r.below(odds) == 0).collect();
            check(&columns[..1], &[None], Some(&mask), rows);
            check(&columns[1..], &[None], Some(&mask), rows);
            check(&columns, &[None, None], Some(&mask), rows);
        }
        check(&columns, &[None, None], Some(&vec![false; rows]), rows);
    }
}

#[test]
fn damaged_offsets_are_an_error_where_the_row_counts() {
    let rows = [Some("one"), Some("two"), None, Some("three")];
    for layout in [Layout::Utf8, Layout::LargeUtf8] {
        let mut owned = Owned::new(layout, &rows);
        owned.set_offset(2, -9); // the end of "two", and the start of a null
        let view = owned.view();
        let run = |mask: u8| {
            let mut keys = Keys::new(&[KeyKind::Str], 4);
            let mut ids = [0u32; 4];
            let validity = view.validity;
            let input = KeyInput::Str { column: &view, start: 0, validity };
            // SAFETY: four rows, four bits, four numbers.
            unsafe { keys.assign(&[input], &mask, 4, 0, ids.as_mut_ptr()) }.map(|()| keys.groups())
        };
        assert_eq!(run(0b1111), Err(GroupError::Corrupt(CorruptString { row: 1 })));
        assert_eq!(run(0b1101), Ok(3));
    }
}

#[test]
fn other_kinds_are_a_mismatch() {
    let mut keys = Keys::new(&[KeyKind::Bool], 1);
    let other = Keys::new(&[KeyKind::Str], 1);
    assert_eq!(keys.merge(&other), Err(GroupError::Mismatch));
    let null = std::ptr::null();
    let input = KeyInput::Prim { values: null, validity: null };
    let mut id = 0u32;
    // SAFETY: nothing is read before the kinds are compared.
    let got = unsafe { keys.assign(&[input], null, 1, 0, &mut id) };
    assert_eq!(got, Err(GroupError::Mismatch));
    // SAFETY: as above.
    let got = unsafe { Keys::new(&[], 1).assign(&[], null, 1, 0, &mut id) };
    assert_eq!(got, Err(GroupError::Mismatch));
}

/// What an accumulator says: value bits (see [`Native::to_bits64`]) or null, per group.
fn finish(a: &Accumulator, groups: usize) -> Result<Vec<Option<u64>>, SumOverflow> {
    let mut values = vec![0u64; groups];
    let mut validity = vec![0u64; groups.div_ceil(64)];
    let p = values.as_mut_ptr().cast::<u8>();
    // SAFETY: room for any type, and whole words.
    let nulls = unsafe { a.finish(groups, p, validity.as_mut_ptr().cast()) };
    let nulls = nulls.map_err(|e| match e {
        GroupError::Overflow(e) => e,
        e => panic!("{e}"),
    })?;
    let all: Vec<Option<u64>> = (0..groups)
        .map(|g| {
            // SAFETY: g < groups, and values were written as that type.
            let bits = with_prim!(a.output(), T => unsafe {
                crate::tile::mem::load::<T>(p, g).to_bits64()
            });
            (validity[g / 64] >> (g % 64) & 1 == 1).then_some(bits)
        })
        .collect();
    assert_eq!(nulls, all.iter().filter(|v| v.is_none()).count());
    Ok(all)
}

/// A column to aggregate, with its groups.
struct Values<T> {
    ids: Vec<u32>,
    values: Vec<T>,
    valid: Vec<bool>,
    mask: Vec<bool>,
}

impl<T: Native> Values<T> {
    fn run(
        &self,
        agg: Aggregate,
        lanes: Lanes,
        rows: std::ops::Range<usize>,
        step: usize,
    ) -> Accumulator {
        let mut a = Accumulator::new(agg, Layout::Prim(T::PRIM), lanes).unwrap();
        let groups = self.ids.iter().max().map_or(0, |m| *m as usize + 1);
        a.resize(groups).unwrap();
        let mut start = rows.start;
        while start < rows.end {
            let n = step.min(rows.end - start);
            let tile = start..start + n;
            let (valid, mask) = (&self.valid[tile.clone()], &self.mask[tile]);
            let null = std::ptr::null();
            let (v, m) = (bits(valid.iter().copied()), bits(mask.iter().copied()));
            // SAFETY: all buffers hold n rows.
            unsafe {
                a.update(
                    self.ids[start..].as_ptr(),
                    self.values[start..].as_ptr().cast(),
                    if valid.iter().all(|v| *v) { null } else { v.as_ptr() },
                    if mask.iter().all(|v| *v) { null } else { m.as_ptr() },
                    n,
                    start as u64,
                );
            }
            start += n;
        }
        a
    }

    fn check(&self, groups: usize) {
        let quantile = |q, how| Aggregate::Quantile(Quantile::new(q, how).unwrap());
        let mut all = vec![
            Aggregate::Len,
            Aggregate::Count,
            Aggregate::Sum,
            Aggregate::Min,
            Aggregate::Max,
            Aggregate::Mean,
            Aggregate::First,
            Aggregate::Last,
            Aggregate::ArgMin,
            Aggregate::ArgMax,
            quantile(0.3, Interpolation::Lower),
            quantile(0.7, Interpolation::Higher),
        ];
        if T::PRIM.is_float() {
            all.extend([0, 1, 3].map(|ddof| Aggregate::Var { ddof }));
            all.push(Aggregate::Std { ddof: 1 });
        }
        let rows = self.ids.len();
        for agg in all {
            for lanes in [Lanes::One, Lanes::Four] {
                let whole = finish(&self.run(agg, lanes, 0..rows, TILE_MAX), groups);
                let odd = finish(&self.run(agg, lanes, 0..rows, 77), groups);
                assert_eq!(whole, odd, "bits do not depend on the tiles: {agg:?} {:?}", T::PRIM);
                // In ranges, the second of which numbers its groups backwards.
                let mut merged = self.run(agg, lanes, 0..rows / 3, 1000);
                let backwards = Values {
                    ids: self.ids.iter().map(|g| groups as u32 - 1 - g).collect(),
                    values: self.values.clone(),
                    valid: self.valid.clone(),
                    mask: self.mask.clone(),
                };
                let mapping: Vec<u32> = (0..groups as u32).rev().collect();
                let part = backwards.run(agg, lanes, rows / 3..rows, 1000);
                merged.resize(groups).unwrap();
                merged.merge(&part, &mapping).unwrap();
                let merged = finish(&merged, groups);
                for g in 0..groups {
                    let want = self.naive(agg, g);
                    let results = [&whole, &merged].map(|r| r.as_ref().map(|v| v[g]));
                    for got in results {
                        self.compare(agg, got, want);
                    }
                }
            }
        }
    }

    /// The result as an i128 or f64, exactly or nearly.
    fn naive(&self, agg: Aggregate, g: usize) -> Option<Naive> {
        let in_group =
            || (0..self.ids.len()).filter(|i| self.ids[*i] as usize == g && self.mask[*i]);
        let values = || in_group().filter(|i| self.valid[*i]).map(|i| self.values[i]);
        let exact = |v: T| {
            let bits = v.to_bits64();
            if T::PRIM.is_signed() { i128::from(bits as i64) } else { i128::from(bits) }
        };
        let float = |v: T| f64::from_bits(v.to_bits64());
        let n = values().count();
        match agg {
            Aggregate::Len => Some(Naive::Exact(in_group().count() as i128)),
            Aggregate::Count => Some(Naive::Exact(n as i128)),
            Aggregate::Sum if T::PRIM.is_float() => Some(Naive::Near(values().map(float).sum())),
            Aggregate::Sum => Some(Naive::Exact(values().map(exact).sum())),
            Aggregate::Mean if n == 0 => None,
            Aggregate::Mean if T::PRIM.is_float() => {
                Some(Naive::Near(values().map(float).sum::<f64>() / n as f64))
            }
            Aggregate::Mean => {
                Some(Naive::Near(values().map(exact).sum::<i128>() as f64 / n as f64))
            }
            Aggregate::Min | Aggregate::Max => {
                let less = agg == Aggregate::Min;
                values()
                    .filter(|v| !v.is_nan())
                    .reduce(|a, b| if (b < a) == less && b != a { b } else { a })
                    .map(|v| Naive::Bits(v.to_bits64()))
            }
            Aggregate::First | Aggregate::Last => {
                let mut rows = in_group();
                let row = if agg == Aggregate::First { rows.next() } else { rows.next_back() };
                row.filter(|i| self.valid[*i]).map(|i| Naive::Bits(self.values[i].to_bits64()))
            }
            Aggregate::ArgMin | Aggregate::ArgMax => {
                let less = agg == Aggregate::ArgMin;
                in_group()
                    .enumerate()
                    .filter(|(_, i)| self.valid[*i])
                    .map(|(at, i)| (at, self.values[i]))
                    .filter(|(_, v)| !v.is_nan())
                    .reduce(|a, b| if (b.1 < a.1) == less && b.1 != a.1 { b } else { a })
                    .map(|(at, _)| Naive::Exact(at as i128))
            }
            Aggregate::Var { ddof } | Aggregate::Std { ddof } => {
                let mean = values().map(float).sum::<f64>() / n as f64;
                let squares: f64 = values().map(|v| (float(v) - mean).powi(2)).sum();
                let variance = squares / (n as f64 - ddof as f64);
                let root = matches!(agg, Aggregate::Std { .. });
                let result = if root { variance.sqrt() } else { variance };
                (n as u64 > ddof).then_some(Naive::Near(result))
            }
            Aggregate::Quantile(q) => {
                let mut sorted: Vec<f64> = values()
                    .map(|v| if T::PRIM.is_float() { float(v) } else { exact(v) as f64 })
                    .collect();
                sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(a.is_nan().cmp(&b.is_nan())));
                let (rank, _, _) = q.ranks(n as u64)?;
                Some(Naive::Near(sorted[rank as usize]))
            }
            Aggregate::Product | Aggregate::Any | Aggregate::All | Aggregate::NUnique => None,
        }
    }

    fn compare(&self, agg: Aggregate, got: Result<Option<u64>, &SumOverflow>, want: Option<Naive>) {
        let what = format!("{agg:?} of {:?}: {got:?}, {want:?}", T::PRIM);
        let got = match (got, want) {
            (Err(_), _) => return, // checked by the test of overflow
            (Ok(None), None) => return,
            (Ok(Some(got)), Some(want)) => (got, want),
            _ => panic!("{what}"),
        };
        match got {
            (got, Naive::Exact(want)) => {
                assert_eq!(got, want as u64, "{what}");
            }
            (got, Naive::Near(want)) => {
                let (got, tolerance) =
                    (f64::from_bits(got), if T::PRIM == Prim::F32 { 1e-5 } else { 1e-9 });
                let close = (got - want).abs() <= tolerance * want.abs().max(1.0);
                assert!(
                    close || got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                    "{what}"
                );
            }
            (got, Naive::Bits(want)) => {
                let zero =
                    T::PRIM.is_float() && f64::from_bits(got) == 0.0 && f64::from_bits(want) == 0.0;
                assert!(got == want || zero, "{what}");
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Naive {
    Exact(i128),
    Near(f64),
    Bits(u64),
}

#[test]
fn aggregates_are_those_of_plain_loops() {
    let mut r = Random(36);
    for p in Prim::ALL {
        with_prim!(p, T => {
            for (rows, groups, masked) in [(many(5000), 7u64, false), (many(4000), many(900) as u64, true), (1, 1, false)] {
                let value = |r: &mut Random| {
                    if !T::PRIM.is_float() {
                        // Small enough for sums of 64-bit values to fit.
                        return T::from_bits64(((r.next() as i64) >> 16) as u64 & if T::PRIM.is_signed() { !0 } else { u64::MAX >> 16 });
                    }
                    let v = match r.below(20) {
                        0 => f64::NAN,
                        1 => -0.0,
                        2 => 0.0,
                        _ => (r.below(2_000_001) as f64 - 1e6) / 1024.0,
                    };
                    T::from_bits64(v.to_bits())
                };
                let column = Values::<T> {
                    ids: (0..rows).map(|i| if i as u64 <= groups { (groups - 1).min(i as u64) as u32 } else { r.below(groups) as u32 }).collect(),
                    values: (0..rows).map(|_| value(&mut r)).collect(),
                    valid: (0..rows).map(|_| !masked || r.below(4) != 0).collect(),
                    mask: (0..rows).map(|_| !masked || r.below(3) == 0).collect(),
                };
                column.check(column.ids.iter().max().map_or(0, |m| *m as usize + 1));
            }
        });
    }
}

#[test]
fn integer_sums_are_exact_on_the_way_and_checked_at_the_end() {
    // Far past 64 bits in between, back within them at the end; then one that stays outside.
    let up = vec![i64::MAX; 3000];
    let down = vec![i64::MIN; 3000];
    let mut values: Vec<i64> = up.into_iter().chain(down).collect();
    values.extend([1 << 40, -1, 7]);
    let rows = values.len();
    let column =
        Values { ids: vec![0; rows], valid: vec![true; rows], mask: vec![true; rows], values };
    for lanes in [Lanes::One, Lanes::Four] {
        let a = column.run(Aggregate::Sum, lanes, 0..rows, 1000);
        assert_eq!(finish(&a, 1), Ok(vec![Some(((1i64 << 40) + 6 - 3000) as u64)]));
        let a = column.run(Aggregate::Sum, lanes, 0..3, 1000);
        assert_eq!(
            finish(&a, 1),
            Err(SumOverflow { group: 0, sum: Some(3 * i128::from(i64::MAX)) })
        );
    }
    let column = Values {
        ids: vec![0, 1, 0, 1],
        values: vec![u64::MAX, 1 << 63, 0, 1 << 63],
        valid: vec![true; 4],
        mask: vec![true; 4],
    };
    let a = column.run(Aggregate::Sum, Lanes::One, 0..4, 4);
    assert_eq!(finish(&a, 1), Ok(vec![Some(u64::MAX)]));
    assert_eq!(finish(&a, 2), Err(SumOverflow { group: 1, sum: Some(1 << 64) }));
}

#[test]
fn medium_values_pass_from_narrow_to_wide_sums() {
    // 2^50 × 8192 rows reach 2^63: the 64-bit sums must be emptied several times.
    let rows = if cfg!(miri) { 10_000 } else { 100_000 };
    let mut r = Random(37);
    let values: Vec<i64> = (0..rows).map(|_| (r.below(1 << 50) as i64) + (1 << 50)).collect();
    let want: i128 = values.iter().map(|v| i128::from(*v)).sum();
    let column =
        Values { ids: vec![0; rows], values, valid: vec![true; rows], mask: vec![true; rows] };
    let a = column.run(Aggregate::Sum, Lanes::Four, 0..rows, 1024);
    assert_eq!(finish(&a, 1), Err(SumOverflow { group: 0, sum: Some(want) }));
    let a = column.run(Aggregate::Mean, Lanes::Four, 0..rows, 1024);
    assert_eq!(finish(&a, 1), Ok(vec![Some((want as f64 / rows as f64).to_bits())]));
}

#[test]
fn booleans_are_counted_and_compared() {
    let flags = [0b0110_1101u8];
    let ids = [0u32, 0, 1, 1, 2, 2, 3, 3];
    let valid = [0b0011_1111u8];
    let run = |agg| {
        let mut a = Accumulator::new(agg, Layout::Bool, Lanes::Four).unwrap();
        a.resize(4).unwrap();
        let null = std::ptr::null();
        // SAFETY: eight rows everywhere.
        unsafe { a.update(ids.as_ptr(), flags.as_ptr(), valid.as_ptr(), null, 8, 3) };
        finish(&a, 4).unwrap()
    };
    assert_eq!(run(Aggregate::Sum), [Some(1), Some(2), Some(1), Some(0)]);
    assert_eq!(run(Aggregate::Count), [Some(2), Some(2), Some(2), Some(0)]);
    assert_eq!(run(Aggregate::Len), [Some(2); 4]);
    assert_eq!(run(Aggregate::Min), [Some(0), Some(1), Some(0), None]);
    assert_eq!(run(Aggregate::Max), [Some(1), Some(1), Some(1), None]);
    assert_eq!(run(Aggregate::Any), [Some(1), Some(1), Some(1), Some(0)]);
    assert_eq!(run(Aggregate::All), [Some(0), Some(1), Some(0), Some(1)]);
    assert_eq!(run(Aggregate::Product), [Some(0), Some(1), Some(0), Some(1)]);
    assert_eq!(run(Aggregate::First), [Some(1), Some(1), Some(0), None]);
    assert_eq!(run(Aggregate::Last), [Some(0), Some(1), Some(1), None]);
    assert_eq!(run(Aggregate::ArgMin), [Some(1), Some(0), Some(0), None]);
    assert_eq!(run(Aggregate::ArgMax), [Some(0), Some(0), Some(1), None]);
    let mean = |v: f64| Some(v.to_bits());
    assert_eq!(run(Aggregate::Quantile(Quantile::MEDIAN)), [mean(0.5), mean(1.0), mean(0.5), None]);
    assert_eq!(run(Aggregate::Mean), [mean(0.5), mean(1.0), mean(0.5), None]);
}

#[test]
fn products_are_exact_or_say_so() {
    let product = |values: &[i64], lanes| {
        let n = values.len();
        let column = Values {
            ids: vec![0; n],
            values: values.to_vec(),
            valid: vec![true; n],
            mask: vec![true; n],
        };
        finish(&column.run(Aggregate::Product, lanes, 0..n, 1000), 1)
    };
    for lanes in [Lanes::One, Lanes::Four] {
        assert_eq!(product(&[-3, 5, 7, -2, 2, -1], lanes), Ok(vec![Some(-420i64 as u64)]));
        assert_eq!(product(&[i64::MIN, 1], lanes), Ok(vec![Some(i64::MIN as u64)]));
        let over = SumOverflow { group: 0, sum: Some(1 << 63) };
        assert_eq!(product(&[i64::MIN, -1], lanes), Err(over));
        let over = SumOverflow { group: 0, sum: None };
        assert_eq!(product(&[i64::MAX; 7], lanes), Err(over));
        assert_eq!(product(&[i64::MAX, i64::MAX, i64::MIN, 3, 0], lanes), Ok(vec![Some(0)]));
    }
    let column = Values {
        ids: vec![0, 1, 0, 1],
        values: vec![0.5f64, f64::INFINITY, 3.0, 0.0],
        valid: vec![true; 4],
        mask: vec![true; 4],
    };
    let a = column.run(Aggregate::Product, Lanes::Four, 0..4, 4);
    assert_eq!(finish(&a, 2), Ok(vec![Some(1.5f64.to_bits()), Some(f64::NAN.to_bits())]));
}

#[test]
fn variances_far_from_zero_keep_their_digits() {
    // About 1e9 with deviations of 1/8: NumPy's two passes give some 15 digits.
    let rows = 100_000usize;
    let mut r = Random(38);
    let values: Vec<f64> = (0..rows).map(|_| 1e9 + r.below(1 << 20) as f64 / 4096.0).collect();
    let mean = values.iter().map(|v| v - 1e9).sum::<f64>() / rows as f64;
    let want = values.iter().map(|v| (v - 1e9 - mean).powi(2)).sum::<f64>() / (rows - 1) as f64;
    let column =
        Values { ids: vec![0; rows], values, valid: vec![true; rows], mask: vec![true; rows] };
    for lanes in [Lanes::One, Lanes::Four] {
        let a = column.run(Aggregate::Var { ddof: 1 }, lanes, 0..rows, 1000);
        let got = f64::from_bits(finish(&a, 1).unwrap()[0].unwrap());
        assert!((got - want).abs() < 1e-12 * want, "{got} {want}");
    }
}

#[test]
fn of_strings_rows_are_counted_and_picked() {
    let a = Accumulator::new(Aggregate::First, Layout::Utf8, Lanes::One).unwrap();
    assert_eq!(a.output(), Prim::U64);
    assert!(Accumulator::new(Aggregate::ArgMin, Layout::Utf8, Lanes::One).is_none());
    assert!(Accumulator::new(Aggregate::Sum, Layout::Utf8, Lanes::One).is_none());
    assert!(Accumulator::new(Aggregate::Count, Layout::Utf8, Lanes::One).is_some());
}
