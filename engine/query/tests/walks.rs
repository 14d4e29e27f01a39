//! Random updates in place whose new values are made of other rows' old ones, against a model that
//! computes row by row: chunks of all sizes, bitmaps in some of them only, both directions, several
//! threads.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{Context, DataType, Expr, Heap, Plan, Scalar, Update};

/// Numbers that only look random (xorshift*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn percent(&mut self, p: usize) -> bool {
        self.below(100) < p
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// Which chunks of a column have nulls, and so a bitmap.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Nulls {
    None,
    InSome,
    InAll,
}

/// The columns; `y` is read only, by what makes a row take long enough for several threads.
const COLUMNS: [(&str, DataType, Nulls); 8] = [
    ("a", DataType::Int64, Nulls::None),
    ("b", DataType::Int64, Nulls::InSome),
    ("c", DataType::Int64, Nulls::InAll),
    ("i", DataType::Int8, Nulls::InSome),
    ("j", DataType::Int8, Nulls::InAll),
    ("t", DataType::Bool, Nulls::InSome),
    ("u", DataType::Bool, Nulls::InAll),
    ("y", DataType::Float64, Nulls::None),
];

/// A value per row: an integer, or a boolean as 0 or 1; none is null.
type Values = Vec<Option<i64>>;

/// An expression, and what it comes to.
#[derive(Clone)]
struct Both {
    expr: Expr,
    values: Values,
}

const DISTANCES: &[i64] = &[1, 2, 7, 8, 63, 64, 65, 100, 700, 1500, 4096, 9000];

struct Case {
    random: Random,
    columns: Vec<Values>,
    /// Which way all shifts go, and how far they may.
    sign: i64,
    distances: &'static [i64],
}

impl Case {
    /// The column of that number, or another of its type.
    fn column(&mut self, like: usize) -> Both {
        let alike: Vec<usize> =
            (0..COLUMNS.len()).filter(|i| COLUMNS[*i].1 == COLUMNS[like].1).collect();
        let i = self.random.of(&alike);
        Both { expr: c(COLUMNS[i].0), values: self.columns[i].clone() }
    }

    fn literal(&mut self, like: usize) -> (Expr, i64) {
        let value = self.random.below(2) as i64;
        match COLUMNS[like].1 {
            DataType::Bool => (Expr::literal(value == 1), value),
            _ => (Expr::literal(value), value),
        }
    }

    fn shifted(&mut self, of: Both, like: usize) -> Both {
        let by = self.random.of(self.distances);
        let (fill, value): (Expr, Values) = match self.random.below(3) {
            0 => (Expr::literal(Scalar::Null), vec![None; of.values.len()]),
            1 => {
                let (expr, value) = self.literal(like);
                (expr, vec![Some(value); of.values.len()])
            }
            _ => {
                let own = self.column(like);
                (own.expr, own.values)
            }
        };
        let source = |row: usize| row.checked_add_signed(-(by * self.sign) as isize);
        let at = |row: usize| source(row).and_then(|from| of.values.get(from).copied());
        let values = value.iter().enumerate().map(|(row, v)| at(row).unwrap_or(*v)).collect();
        Both { expr: of.expr.shift(fill, by * self.sign), values }
    }

    /// Values of the type of a column, of other rows most of them.
    fn value(&mut self, like: usize) -> Both {
        let first = self.column(like);
        let mut value = self.shifted(first, like);
        if self.random.percent(25) {
            value = self.shifted(value, like);
        }
        if self.random.percent(60) {
            let other = self.column(like);
            let other = if self.random.percent(60) { self.shifted(other, like) } else { other };
            let pairs = value.values.iter().zip(&other.values);
            let is_bool = COLUMNS[like].1 == DataType::Bool;
            let both = |a: i64, b: i64| if is_bool { a ^ b } else { a - b };
            let values = pairs.map(|(a, b)| Some(both((*a)?, (*b)?))).collect();
            let expr = if is_bool { value.expr.xor(other.expr) } else { value.expr - other.expr };
            value = Both { expr, values };
        }
        if COLUMNS[like].2 != Nulls::InAll {
            let (expr, filling) = self.literal(like);
            let values = value.values.iter().map(|v| Some(v.unwrap_or(filling))).collect();
            value = Both { expr: value.expr.fill_null(expr), values };
        }
        value
    }
}

/// Chunks of a table of so many rows.
fn chunks_of(random: &mut Random, rows: usize) -> Vec<usize> {
    let sizes: &[usize] = match random.below(5) {
        0 => return vec![rows],
        1 => &[0, 1, 37, 63, 64, 65, 100, 1000],
        2 => &[0, 300, 20_000, 9001, 1, 128],
        // All cut at whole words of bits.
        _ => &[64, 128, 4096, 0],
    };
    let mut chunks = Vec::new();
    let mut left = rows;
    while left > 0 {
        chunks.push(random.of(sizes).min(left));
        left -= chunks[chunks.len() - 1];
    }
    chunks
}

fn column_of(random: &mut Random, nulls: Nulls, chunks: &[usize], bits: bool) -> Values {
    let mut values = Vec::new();
    for rows in chunks {
        let percent = match nulls {
            Nulls::None => 0,
            Nulls::InSome => random.of(&[0, 0, 30]),
            Nulls::InAll => 30,
        };
        let start = values.len();
        for _ in 0..*rows {
            let value = random.below(if bits { 2 } else { 9 }) as i64;
            values.push((!random.percent(percent)).then_some(value));
        }
        if nulls == Nulls::InAll && *rows > 0 {
            values[start + random.below(*rows)] = None;
        }
    }
    values
}

fn table_of(columns: &[Values]) -> Vec<Col> {
    let one = |dtype: &DataType, v: Option<i64>| match (dtype, v) {
        (_, None) => Val::Null,
        (DataType::Bool, Some(v)) => Val::Bool(v == 1),
        (DataType::Float64, Some(v)) => Val::Float(v as f64),
        (_, Some(v)) => Val::Int(i128::from(v)),
    };
    let columns = COLUMNS.iter().zip(columns);
    let columns = columns.map(|((name, dtype, _), values)| {
        col(name, dtype.clone(), values.iter().map(|v| one(dtype, *v)).collect())
    });
    columns.collect()
}

#[test]
fn random_walks_give_what_the_old_rows_say() {
    let mut on_threads = 0;
    for seed in 1..=150_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let rows = random.of(&[0, 1, 65, 1000, 30_000, 30_000, 30_000, 60_000]);
        let chunks = chunks_of(&mut random, rows);
        let columns: Vec<Values> = COLUMNS
            .iter()
            .map(|(_, dtype, nulls)| {
                column_of(&mut random, *nulls, &chunks, *dtype == DataType::Bool)
            })
            .collect();
        let sign = random.of(&[1, -1]);
        let distances = &DISTANCES[..random.of(&[1, 3, 7, DISTANCES.len()])];
        let mut case = Case { random, columns, sign, distances };

        let mut targets: Vec<usize> = (0..7).collect();
        let mut sets = Vec::new();
        for _ in 0..1 + case.random.below(3) {
            let target = targets.remove(case.random.below(targets.len()));
            sets.push((target, case.value(target)));
        }
        let mut condition = None;
        if case.random.percent(75) {
            // As true as the second: only it takes long.
            let some = case.value(6);
            let slow = (0..8).fold(c("y"), |e, _| e.tan()).is_finite();
            condition = Some(Both { expr: some.expr & slow, values: some.values });
        }
        let chosen = |row: usize| condition.as_ref().is_none_or(|w| w.values[row] == Some(1));
        let mut wanted = case.columns.clone();
        for (target, value) in &sets {
            for row in (0..rows).filter(|row| chosen(*row)) {
                wanted[*target][row] = value.values[row];
            }
        }

        let old = table_of(&case.columns);
        let mut table = Table::new(&old, &chunks);
        let named =
            sets.iter().map(|(i, value)| (COLUMNS[*i].0.into(), value.expr.clone())).collect();
        let update = Update::new(named, condition.as_ref().map(|w| w.expr.clone()), &table.schema);
        let update = update.unwrap();
        let heap = Heap::new();
        let threads = case.random.of(&[1, 2, 3, 7]);
        insitu_query::set_threads(threads);
        let cx = Context::new(&heap);
        let what = || {
            let sets: Vec<String> =
                sets.iter().map(|(i, v)| format!("{} = {}", COLUMNS[*i].0, v.expr)).collect();
            let condition = condition.as_ref().map(|w| w.expr.to_string());
            format!("seed {seed}: {sets:?} where {condition:?}, {rows} rows in {chunks:?}")
        };
        let bound = update.bind(&table.view(), &cx).unwrap();
        assert_eq!(bound.obstacle(&table.view()), None, "{}", what());
        assert!(bound.bare(&table.view()).is_empty(), "{}", what());
        let ready = bound.ready(&table.view(), &cx).unwrap();
        let places = table.places(update.columns());
        {
            let view = table.view();
            // SAFETY: nobody else has the table, and its buffers have room for whole words.
            unsafe { ready.lists(&view).unwrap().write(&places, None).unwrap() };
        }
        let all = Plan::Slice { input: Plan::Scan.into(), offset: 0, len: None };
        let got = run_with(&all, &table, &old, false).unwrap();
        for ((name, ..), values) in COLUMNS.iter().zip(table_of(&wanted)) {
            let (got, values) = (got.column(name), values.values);
            if let Some(row) = (0..rows).find(|row| got[*row] != values[*row]) {
                let (got, wanted) = (&got[row], &values[row]);
                panic!("{name} in row {row}: {got:?}, not {wanted:?}; {}", what());
            }
        }
        on_threads +=
            usize::from(threads > 1 && condition.is_some() && chunks.len() > 1 && rows > 5000);
    }
    insitu_query::set_threads(0);
    assert!(on_threads > 10, "{on_threads} on several threads");
}
