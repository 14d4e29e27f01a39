//! Zones of which the statistics say that no row passes a filter are not looked at; answers do not
//! show it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_kernels::copy::ZoneStats;
use insitu_query::{Context, DataType, Expr, Heap, Plan, Prepared, Scalar, ZoneView};

/// Rows of a zone: as many as the longest tile has.
const ZONE: usize = 1024;

/// What is true of the zones of columns that are cut so.
fn records(columns: &[Col], chunks: &[usize]) -> Vec<ZoneStats> {
    let mut all = Vec::new();
    for column in columns {
        let (mut rest, mut lengths) = (&column.values[..], chunks.iter().copied());
        while !rest.is_empty() {
            let len = lengths.next().unwrap_or(rest.len()).min(rest.len());
            let (chunk, after) = rest.split_at(len);
            all.extend(chunk.chunks(ZONE).map(|zone| record(&column.dtype, zone)));
            rest = after;
        }
    }
    all
}

fn record(dtype: &DataType, values: &[Val]) -> ZoneStats {
    let mut record = ZoneStats { rows: values.len() as u64, flags: 0, ..ZoneStats::EMPTY };
    let mut ends: Option<((f64, u64), (f64, u64))> = None;
    for value in values {
        let found = match value {
            Val::Int(i) => (*i as f64, *i as u64),
            Val::Float(f) if f.is_nan() => {
                record.flags |= ZoneStats::HAS_NAN;
                continue;
            }
            Val::Float(f) if *dtype == DataType::Float32 => (*f, f64::from(*f as f32).to_bits()),
            Val::Float(f) => (*f, f.to_bits()),
            _ => {
                record.null_count += 1;
                continue;
            }
        };
        let (low, high) = ends.unwrap_or((found, found));
        ends = Some((
            if found.0 < low.0 { found } else { low },
            if found.0 > high.0 { found } else { high },
        ));
    }
    if let Some((low, high)) = ends {
        record.flags |= ZoneStats::HAS_RANGE;
        (record.min, record.max) = (low.1, high.1);
    }
    record
}

fn run_zoned(
    plan: &Plan,
    columns: &[Col],
    chunks: &[usize],
    records: Option<&[ZoneStats]>,
    params: &[(&str, Scalar)],
) -> Answer {
    let table = Table::new(columns, chunks);
    let mut view = table.view();
    // SAFETY: the records outlive the run, and there are as many as is said.
    view.zones = records.map(|r| unsafe {
        ZoneView::new(r.as_ptr(), columns.len(), r.len() / columns.len(), ZONE)
    });
    let heap = Heap::new();
    let mut cx = Context::new(&heap);
    cx.params = params;
    let out = Prepared::compile(plan, &table.schema).unwrap().run(&view, &cx).unwrap();
    answer(&out, columns)
}

fn sevens(rows: usize) -> Vec<Col> {
    vec![ints("x", DataType::Int64, &vec![Some(7); rows])]
}

/// The record of sevens, and one that says that they are nothing above 1.
fn told() -> [ZoneStats; 3] {
    let truth = ZoneStats {
        min: 7,
        max: 7,
        rows: ZONE as u64,
        flags: ZoneStats::HAS_RANGE,
        ..ZoneStats::EMPTY
    };
    [truth, ZoneStats { min: 0, max: 1, ..truth }, truth]
}

#[test]
fn a_zone_of_which_no_row_passes_is_not_looked_at() {
    let (columns, told) = (sevens(3 * ZONE), told());
    let plan = filter(Plan::Scan, vec![c("x").gt(3)]);
    let run = |plan: &Plan, params: &[(&str, Scalar)]| {
        run_zoned(plan, &columns, &[], Some(&told), params)
    };
    // What is said of the second zone is false: that shows that nobody looked.
    assert_eq!(run(&plan, &[]).column("x").len(), 2 * ZONE);
    let sum = |predicate: Expr| {
        aggregate(filter(Plan::Scan, vec![predicate]), vec![], vec![c("x").sum()])
    };
    assert_eq!(run(&sum(c("x").gt(3)), &[]).column("x"), [Val::Int(14 * ZONE as i128)]);
    let least = sum(c("x").gt(Expr::param("least")));
    for (value, expected) in [(3, 14), (0, 21), (7, 0)] {
        let found = run(&least, &[("least", Scalar::Int(value))]);
        assert_eq!(found.column("x"), [Val::Int(expected * ZONE as i128)], "{value}");
    }
    let groups = aggregate(plan.clone(), vec![c("x")], vec![Expr::len().alias("n")]);
    assert_eq!(run(&groups, &[]).column("n"), [Val::Int(2 * ZONE as i128)]);
    // Nothing is known of an expression.
    assert_eq!(run(&sum((c("x") + 1).gt(3)), &[]).column("x"), [Val::Int(21 * ZONE as i128)]);
    // A slice moves the rows against the tiles.
    let sliced = Plan::Slice { input: std::sync::Arc::new(Plan::Scan), offset: 64, len: None };
    let found = run(&filter(sliced, vec![c("x").gt(3)]), &[]);
    assert!((2 * ZONE - 64..=3 * ZONE - 64).contains(&found.column("x").len()));
}

#[test]
fn records_of_other_chunks_are_not_asked() {
    let columns = sevens(3 * ZONE);
    let plan = filter(Plan::Scan, vec![c("x").gt(3)]);
    for chunks in [vec![100], vec![ZONE, 1]] {
        let found = run_zoned(&plan, &columns, &chunks, Some(&told()), &[]);
        assert_eq!(found.column("x").len(), 3 * ZONE);
    }
}

#[test]
fn records_of_other_rows_are_not_believed() {
    let columns = sevens(3 * ZONE);
    let nothing = [ZoneStats { flags: 0, ..ZoneStats::EMPTY }; 3];
    let shorter = told().map(|record| ZoneStats { rows: record.rows - 1, ..record });
    for records in [nothing, shorter] {
        for predicate in [c("x").gt(3), c("x").is_not_null() & c("x").gt(3)] {
            let plan = filter(Plan::Scan, vec![predicate]);
            let found = run_zoned(&plan, &columns, &[], Some(&records), &[]);
            assert_eq!(found.column("x").len(), 3 * ZONE);
        }
    }
    // Of a column with nulls, a record of no rows does not say that all are null.
    let mut values = vec![Some(7); 3 * ZONE];
    values[5] = None;
    let columns = [ints("x", DataType::Int64, &values)];
    let plan = filter(Plan::Scan, vec![c("x").is_not_null()]);
    let found = run_zoned(&plan, &columns, &[], Some(&nothing), &[]);
    assert_eq!(found.column("x").len(), 3 * ZONE - 1);
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Values that rise from zone to zone, with edges, nulls and NaN among them; some zones have nothing
/// else.
fn column(name: &'static str, dtype: DataType, rows: usize, rng: &mut Rng) -> Col {
    let float = matches!(dtype, DataType::Float32 | DataType::Float64);
    let mut blank = None;
    let values = (0..rows).map(|row| {
        if row % ZONE == 0 {
            blank = (rng.below(6) == 0).then(|| rng.below(2));
        }
        let near = (row / ZONE) as i128 + rng.below(3) as i128;
        match (blank, rng.below(40)) {
            (Some(0), _) | (None, 0) => Val::Null,
            (Some(_), _) | (None, 1) if float => Val::Float(f64::NAN),
            (_, 2) if float && rng.below(50) == 0 => Val::Float(f64::NEG_INFINITY),
            (_, 3) if float => Val::Float(-0.0),
            _ if float => Val::Float(near as f64 * 0.5),
            (_, 4) if dtype == DataType::UInt64 && rng.below(50) == 0 => Val::Int(u64::MAX.into()),
            (_, 4) if dtype == DataType::Int64 && rng.below(50) == 0 => Val::Int(i64::MIN.into()),
            _ => Val::Int(near),
        }
    });
    let values = values.collect();
    col(name, dtype, values)
}

fn predicate(rng: &mut Rng, depth: u32) -> Expr {
    if depth > 0 && rng.below(2) == 0 {
        let (a, b) = (predicate(rng, depth - 1), predicate(rng, depth - 1));
        return match rng.below(8) {
            0 | 1 => a.or_(b),
            2 => !a,
            3 => a.fill_null(rng.below(2) == 0),
            _ => a.and_(b),
        };
    }
    let name = ["i", "u", "s", "d", "f"][rng.below(5) as usize];
    let value = match rng.below(4) {
        0 => Expr::param("p"),
        1 => Expr::literal(rng.below(12) as f64 * 0.5),
        2 => Expr::literal([f64::NAN, 0.0, f64::INFINITY][rng.below(3) as usize]),
        _ => Expr::literal(rng.below(10) as i64 - 1),
    };
    let to = [
        DataType::Float32,
        DataType::Float64,
        DataType::Int64,
        DataType::Int32,
        DataType::UInt8,
        DataType::UInt64,
    ];
    let to = to[rng.below(6) as usize].clone();
    let column = match rng.below(8) {
        0 | 1 => c(name).cast(to, false),
        2 => c(name).fill_null(3),
        _ => c(name),
    };
    let (a, b) = if rng.below(2) == 0 { (column, value) } else { (value, column) };
    match rng.below(10) {
        7 => c(name).is_not_null(),
        8 => c(name).is_between(1, rng.below(5) as i64),
        9 => a.lt(c("d")),
        0 => a.lt(b),
        1 => a.le(b),
        2 => a.gt(b),
        3 => a.ge(b),
        4 => a.eq(b),
        5 => a.ne(b),
        _ => c(name).is_null(),
    }
}

#[test]
fn answers_are_those_without_statistics() {
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let rows = 7 * ZONE + 300;
    let columns = [
        column("i", DataType::Int64, rows, &mut rng),
        column("u", DataType::UInt64, rows, &mut rng),
        column("s", DataType::Int8, rows, &mut rng),
        column("d", DataType::Float64, rows, &mut rng),
        column("f", DataType::Float32, rows, &mut rng),
    ];
    let layouts = [vec![], vec![3 * ZONE], vec![100, 0, 2 * ZONE + 5, 1]];
    let known = layouts.clone().map(|chunks| records(&columns, &chunks));
    for round in 0..150 {
        let predicates = (0..1 + rng.below(2)).map(|_| predicate(&mut rng, 2)).collect();
        let kept = filter(Plan::Scan, predicates);
        let plan = match round % 3 {
            0 => select(kept, vec![c("i"), (c("d") * 2.0).alias("e")]),
            1 => {
                let aggs = vec![Expr::len().alias("n"), c("s").sum(), c("d").sum(), c("f").min()];
                aggregate(kept, vec![], aggs)
            }
            _ => aggregate(kept, vec![c("s")], vec![Expr::len().alias("n"), c("d").max()]),
        };
        let params = [("p", Scalar::Int(rng.below(9) as i64))];
        let used = plan.params();
        let params = if used.is_empty() { &params[..0] } else { &params[..] };
        let plain = run_zoned(&plan, &columns, &[], None, params);
        for (chunks, records) in layouts.iter().zip(&known) {
            let zoned = run_zoned(&plan, &columns, chunks, Some(records), params);
            assert_eq!(zoned, plain, "{plan:?} {chunks:?}");
        }
    }
}
