use super::*;
use crate::testing::{Rng, many};

const SCANS: [Scan; 4] = [Scan::Sum, Scan::Product, Scan::Min, Scan::Max];

/// Values as bytes, and a bitmap in whole words; null: all count.
struct Column {
    values: Vec<u8>,
    valid: Option<Vec<u64>>,
    rows: usize,
}

impl Column {
    fn of<T: Native>(values: &[T], valid: Option<&[bool]>) -> Column {
        // SAFETY: numbers as their bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        let valid = valid.map(|bits| {
            let mut words = vec![0u64; bits.len().div_ceil(64)];
            bits.iter().enumerate().for_each(|(i, b)| words[i / 64] |= u64::from(*b) << (i % 64));
            words
        });
        Column { values: bytes.to_vec(), valid, rows: values.len() }
    }

    fn valid(&self, row: usize) -> *const u8 {
        self.valid.as_ref().map_or(std::ptr::null(), |v| v[row / 64..].as_ptr().cast())
    }
}

/// The running values as an engine makes them, in parts of `part` rows and tiles of `tile` rows
/// (both whole blocks); `apart`: totals first. Err: the row that does not fit.
fn scanned<T: Native>(
    scanner: &Scanner,
    column: &Column,
    part: usize,
    tile: usize,
    apart: bool,
) -> Result<Vec<T>, usize> {
    let (rows, width, reverse) = (column.rows, size_of::<T>(), scanner.reverse);
    let mut out = vec![T::ZERO; rows];
    let in_order = |n: usize| -> Vec<usize> {
        if reverse { (0..n).rev().collect() } else { (0..n).collect() }
    };
    let tiles = |start: usize, n: usize| -> Vec<(usize, usize)> {
        let tiles = in_order(n.div_ceil(tile)).into_iter();
        tiles.map(|t| (start + t * tile, tile.min(n - t * tile))).collect()
    };
    let parts: Vec<(usize, usize)> = in_order(rows.div_ceil(part))
        .into_iter()
        .map(|p| (p * part, part.min(rows - p * part)))
        .collect();
    let mut before = Vec::new();
    let mut total = scanner.nothing();
    if apart {
        for (start, n) in &parts {
            before.push(total);
            let mut own = scanner.nothing();
            for (at, n) in tiles(*start, *n) {
                // SAFETY: rows of the column.
                unsafe {
                    let src = column.values.as_ptr().add(at * width);
                    scanner.add(&mut own, src, column.valid(at), n);
                }
            }
            total = scanner.join(total, own);
        }
    }
    for (p, (start, n)) in parts.iter().enumerate() {
        let from = if apart { before[p] } else { total };
        let mut running = scanner.begin(from).ok_or(*start)?;
        for (at, n) in tiles(*start, *n) {
            // SAFETY: rows of the column and of the result.
            let done = unsafe {
                let src = column.values.as_ptr().add(at * width);
                let dst = out.as_mut_ptr().add(at).cast::<u8>();
                scanner.write(&mut running, dst, src, column.valid(at), n)
            };
            if done < n {
                return Err(if reverse { at + n - 1 - done } else { at + done });
            }
        }
        if !apart {
            total = scanner.end(&running);
        }
    }
    Ok(out)
}

fn bits<T: Native>(values: &[T]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits64()).collect()
}

/// Floats by the rule, word by word; everything else in order.
fn expected<T: Native>(
    scan: Scan,
    values: &[T],
    valid: Option<&[bool]>,
    part: usize,
    reverse: bool,
) -> Result<Vec<T>, usize> {
    let rows = values.len();
    let order: Vec<usize> = if reverse { (0..rows).rev().collect() } else { (0..rows).collect() };
    let mut out = vec![T::ZERO; rows];
    let float = T::PRIM.is_float();
    let one = |v: f64| {
        if v.is_nan() { T::from_bits64(f64::NAN.to_bits()) } else { T::from_bits64(v.to_bits()) }
    };
    let wide = |v: T| match T::PRIM.is_unsigned() {
        true => i128::from(v.to_bits64()),
        false => i128::from(v.to_bits64() as i64),
    };
    let (mut m, mut q, mut s) = (0.0, 0.0, 0.0);
    let (mut exact, mut product) = (i128::from(scan == Scan::Product), 1.0);
    let mut best: Option<T> = None;
    for (k, i) in order.iter().copied().enumerate() {
        let v = Some(values[i]).filter(|_| valid.is_none_or(|b| b[i]));
        let float_v = |v: Option<T>, none: f64| v.map_or(none, |v| f64::from_bits(v.to_bits64()));
        out[i] = match scan {
            Scan::Sum if float => {
                let starts =
                    |n: usize| if reverse { k == 0 || (i + 1) % n == 0 } else { i % n == 0 };
                if starts(BLOCK) {
                    (q, s) = (q + s, 0.0);
                }
                if starts(part) {
                    (m, q) = (m + q, 0.0);
                }
                s += float_v(v, 0.0);
                one(m + (q + s))
            }
            Scan::Product if float => {
                product *= float_v(v, 1.0);
                one(product)
            }
            Scan::Sum | Scan::Product => {
                match (scan, v) {
                    (_, None) => {}
                    (Scan::Sum, Some(v)) => exact += wide(v),
                    (_, Some(v)) => exact = exact.saturating_mul(wide(v)),
                }
                let fits = match T::PRIM.is_unsigned() {
                    true => u64::try_from(exact).is_ok(),
                    false => i64::try_from(exact).is_ok(),
                };
                if !fits {
                    return Err(i);
                }
                T::from_bits64(exact as u64)
            }
            Scan::Min | Scan::Max => {
                if let Some(v) = v.filter(|v| !v.is_nan()) {
                    let better = best.is_none_or(|b| if scan == Scan::Min { v < b } else { v > b });
                    if better {
                        best = Some(if v == T::ZERO { T::ZERO } else { v });
                    }
                }
                let none = if scan == Scan::Min { T::GREATEST } else { T::LEAST };
                best.unwrap_or(if float { one(f64::NAN) } else { none })
            }
        };
    }
    Ok(out)
}

fn check<T: Native>(values: &[T], valid: Option<&[bool]>) {
    let column = Column::of(values, valid);
    for (scan, reverse) in SCANS.iter().flat_map(|s| [(*s, false), (*s, true)]) {
        for level in Level::available() {
            let Some(scanner) = Scanner::new(scan, T::PRIM, reverse, level) else { continue };
            for part in [BLOCK, 5 * BLOCK] {
                let want = expected(scan, values, valid, part, reverse).map(|v| bits(&v));
                for tile in [BLOCK, 2 * BLOCK, 5 * BLOCK] {
                    for apart in [false, true] {
                        if part % tile != 0 || apart && !scanner.splits() {
                            continue;
                        }
                        let got = scanned::<T>(&scanner, &column, part, tile, apart);
                        assert_eq!(
                            got.map(|v| bits(&v)),
                            want,
                            "{scan:?} {:?} reverse {reverse} part {part} tile {tile} {apart} {level:?}",
                            T::PRIM
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn running_values_are_those_of_the_rule() {
    let mut rng = Rng(3);
    for rows in [0, 1, 2, 63, 64, 255, 256, 257, 1023, 1024, 1025, 1280, 2600] {
        if cfg!(miri) && rows > 300 {
            continue;
        }
        for nulls in [0, 2, 10] {
            let valid: Vec<bool> = (0..rows).map(|_| nulls == 0 || rng.below(nulls) > 0).collect();
            let valid = (nulls > 0).then_some(valid.as_slice());
            macro_rules! numbers {
                ($($t:ty),*) => {$({
                    let small: Vec<$t> = (0..rows).map(|_| rng.below(7) as $t).collect();
                    check(&small, valid);
                    let any: Vec<$t> = (0..rows).map(|_| rng.next() as $t).collect();
                    check(&any, valid);
                })*};
            }
            numbers!(i8, i16, i32, i64, u8, u16, u32, u64);
            let normal: Vec<f64> = (0..rows).map(|_| rng.unit() * 2.0 - 1.0).collect();
            check(&normal, valid);
            check(&normal.iter().map(|v| *v as f32).collect::<Vec<f32>>(), valid);
            let edges =
                [0.0, -0.0, 1.0, -1.5, 1e300, -1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
            for few in [3, 6, 8, 9] {
                let any: Vec<f64> = (0..rows).map(|_| edges[rng.below(few)]).collect();
                check(&any, valid);
                check(&any.iter().map(|v| *v as f32).collect::<Vec<f32>>(), valid);
            }
        }
    }
}

#[test]
fn sums_of_what_is_not_negative_never_fall() {
    let mut rng = Rng(9);
    let values: Vec<f64> =
        (0..many(20_000)).map(|_| rng.unit() * 10f64.powi(rng.below(20) as i32)).collect();
    let column = Column::of(&values, None);
    for reverse in [false, true] {
        let scanner = Scanner::new(Scan::Sum, Prim::F64, reverse, Level::Baseline).unwrap();
        let mut got = scanned::<f64>(&scanner, &column, 5 * BLOCK, BLOCK, true).unwrap();
        if reverse {
            got.reverse();
        }
        assert!(got.windows(2).all(|w| w[0] <= w[1]));
    }
}

#[test]
fn the_first_row_that_does_not_fit_is_told() {
    let mut values = vec![1i64; 1000];
    values[300] = i64::MAX - 300;
    for (reverse, row) in [(false, 301), (true, 300)] {
        let scanner = Scanner::new(Scan::Sum, Prim::I64, reverse, Level::Baseline).unwrap();
        let column = Column::of(&values, None);
        let got = scanned::<i64>(&scanner, &column, BLOCK, BLOCK, false);
        assert_eq!(got.unwrap_err(), row);
    }
    let values = [3u64, u64::MAX / 2, 0];
    let scanner = Scanner::new(Scan::Product, Prim::U64, false, Level::Baseline).unwrap();
    assert_eq!(scanned::<u64>(&scanner, &Column::of(&values, None), BLOCK, BLOCK, false), Err(1));
}

#[test]
fn what_has_no_running_sum_is_none() {
    for p in Prim::ALL {
        let wide = matches!(p, Prim::I64 | Prim::U64 | Prim::F32 | Prim::F64);
        for scan in SCANS {
            let there = Scanner::new(scan, p, false, Level::Baseline).is_some();
            assert_eq!(there, wide || matches!(scan, Scan::Min | Scan::Max));
        }
    }
}
