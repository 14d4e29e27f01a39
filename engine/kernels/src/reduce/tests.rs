//! Reductions: exact where they are exact, the same bits however the rows were split.

use super::*;
use crate::testing::*;
use std::ptr::null;

/// The definition of the float sum, without any of its machinery: lanes, fold, aligned tree.
fn defined(values: &[f64], keep: impl Fn(usize) -> bool, first_row: usize) -> f64 {
    let end = first_row + values.len();
    let mut blocks: Vec<f64> = Vec::new();
    for block in 0..end.div_ceil(BLOCK) {
        let mut lanes = [-0.0f64; LANES];
        for row in block * BLOCK..(block + 1) * BLOCK {
            if row >= first_row && row < end && keep(row - first_row) {
                lanes[row % LANES] += values[row - first_row];
            }
        }
        let mut n = LANES;
        while n > 1 {
            n /= 2;
            for j in 0..n {
                lanes[j] += lanes[j + n];
            }
        }
        blocks.push(lanes[0]);
    }
    blocks.resize(blocks.len().next_power_of_two(), -0.0);
    while blocks.len() > 1 {
        blocks = blocks.chunks(2).map(|c| c[0] + c[1]).collect();
    }
    let sum = blocks[0];
    if sum.is_nan() { f64::NAN } else { sum + 0.0 }
}

fn mixed(rng: &mut Rng, rows: usize) -> Vec<f64> {
    // Of very different sizes and signs, so that every change of order shows.
    (0..rows).map(|_| (rng.unit() - 0.5) * 10f64.powi(rng.below(24) as i32 - 12)).collect()
}

fn sum(values: &[f64], mask: Option<&[u8]>, first_row: u64, level: Level) -> f64 {
    let mut s = SumF64::new(Prim::F64, level).unwrap();
    // SAFETY: as many values and bits as rows.
    unsafe { s.add(first_row, bytes(values), mask.map_or(null(), |m| m.as_ptr()), values.len()) };
    s.finish()
}

#[test]
fn float_sums_are_as_defined_at_every_level() {
    let mut rng = Rng(40);
    for rows in LENGTHS.into_iter().chain([2000, 5000, 70_000]) {
        for first_row in [0, 1, 100, 255, 256, 1000] {
            let v = mixed(&mut rng, rows);
            let m = bitmap(&mut rng, rows, 200);
            let (all, some) =
                (defined(&v, |_| true, first_row), defined(&v, |i| bit(&m, i), first_row));
            for level in Level::available() {
                let what = format!("{rows} rows from {first_row} at {level:?}");
                let got = sum(&v, None, first_row as u64, level);
                assert_eq!(got.to_bits(), all.to_bits(), "{what}");
                let got = sum(&v, Some(&m), first_row as u64, level);
                assert_eq!(got.to_bits(), some.to_bits(), "masked, {what}");
            }
        }
    }
}

#[test]
fn masked_rows_are_skipped_whatever_they_hold() {
    let mut rng = Rng(41);
    let v = mixed(&mut rng, 3000);
    let m = bitmap(&mut rng, 3000, 100);
    let poisoned: Vec<f64> = (0..3000)
        .map(|i| if bit(&m, i) { v[i] } else { [f64::NAN, f64::INFINITY][i % 2] })
        .collect();
    for level in Level::available() {
        let (a, b) = (sum(&v, Some(&m), 7, level), sum(&poisoned, Some(&m), 7, level));
        assert_eq!(a.to_bits(), b.to_bits());
    }
}

#[test]
fn float_sums_do_not_depend_on_the_split() {
    let mut rng = Rng(42);
    let rows = 300_000;
    let v = mixed(&mut rng, rows);
    let m = bitmap(&mut rng, rows, 240);
    for level in Level::available() {
        for mask in [None, Some(&m)] {
            let expected = sum(&v, mask.map(|m| &m[..]), 0, level);
            for _ in 0..20 {
                // Morsels of any number of blocks, dealt to four threads in any order.
                let mut parts: Vec<SumF64> =
                    (0..4).map(|_| SumF64::new(Prim::F64, level).unwrap()).collect();
                let mut morsels = Vec::new();
                let mut at = 0;
                while at < rows {
                    let n = (BLOCK * (1 + rng.below(300))).min(rows - at);
                    morsels.push((at, n));
                    at += n;
                }
                for i in (1..morsels.len()).rev() {
                    morsels.swap(i, rng.below(i + 1));
                }
                for (at, n) in morsels {
                    let t = rng.below(4);
                    // In tiles, which may be whole numbers of blocks or parts of one in order.
                    let mut done = 0;
                    while done < n {
                        let tile = if rng.below(2) == 0 { 64 } else { 256 };
                        let tile = tile.min(n - done);
                        let from = at + done;
                        let bits = mask.map_or(null(), |m| m[from / 8..].as_ptr());
                        // SAFETY: within both.
                        unsafe { parts[t].add(from as u64, bytes(&v[from..]), bits, tile) };
                        done += tile;
                    }
                }
                let mut total = parts.swap_remove(rng.below(4));
                for part in parts {
                    total.merge(part);
                }
                assert_eq!(total.finish().to_bits(), expected.to_bits(), "{level:?}");
            }
        }
    }
}

#[test]
fn float_sums_do_not_depend_on_chunks() {
    let mut rng = Rng(43);
    let v = mixed(&mut rng, 10_000);
    let expected = sum(&v, None, 0, Level::best());
    let mut s = SumF64::new(Prim::F64, Level::best()).unwrap();
    let mut at = 0;
    while at < v.len() {
        let n = (1 + rng.below(700)).min(v.len() - at);
        // SAFETY: within the values.
        unsafe { s.add(at as u64, bytes(&v[at..]), null(), n) };
        at += n;
    }
    assert_eq!(s.finish().to_bits(), expected.to_bits());
}

#[test]
fn float_sums_are_as_accurate_as_pairwise_ones() {
    let mut rng = Rng(44);
    let v: Vec<f64> = (0..1_000_000).map(|_| rng.unit()).collect();
    // Neumaier's compensated sum.
    let (mut s, mut c) = (0.0f64, 0.0f64);
    for x in &v {
        let t = s + x;
        c += if s.abs() >= x.abs() { (s - t) + x } else { (x - t) + s };
        s = t;
    }
    let exact = s + c;
    let error = (sum(&v, None, 0, Level::best()) - exact).abs() / exact;
    assert!(error < 4.0 * f64::EPSILON, "relative error {error:e}");
}

#[test]
fn special_sums() {
    for level in Level::available() {
        assert_eq!(sum(&[], None, 0, level).to_bits(), 0);
        assert_eq!(sum(&[-0.0; 300], None, 0, level).to_bits(), 0);
        let ends = [f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(sum(&ends, None, 0, level).to_bits(), f64::NAN.to_bits());
        let mut v = vec![1.0; 1000];
        v[700] = f64::INFINITY;
        assert_eq!(sum(&v, None, 0, level), f64::INFINITY);
        v[3] = -f64::NAN;
        assert_eq!(sum(&v, None, 0, level).to_bits(), f64::NAN.to_bits());
        // f32 accumulates in f64.
        let f = vec![0.1f32; 100_000];
        let mut s = SumF64::new(Prim::F32, level).unwrap();
        // SAFETY: as many values as rows.
        unsafe { s.add(0, bytes(&f), null(), f.len()) };
        let got = s.finish();
        assert!((got - 100_000.0 * f64::from(0.1f32)).abs() < 1e-9, "{got}");
        assert!(SumF64::new(Prim::I32, level).is_none());
    }
}

#[test]
fn integer_sums_are_exact() {
    fn check<T: Draw + Into<i128>>(p: Prim) {
        let mut rng = Rng(50 + p as u64);
        for rows in LENGTHS.into_iter().chain([3000]) {
            let a = column::<T>(&mut rng, rows);
            let m = bitmap(&mut rng, rows, 170);
            let all: i128 = a.iter().map(|v| (*v).into()).sum();
            let some: i128 = (0..rows).filter(|i| bit(&m, *i)).map(|i| a[i].into()).sum();
            for level in Level::available() {
                let f = sum_int(p, level).unwrap();
                // SAFETY: as many values and bits as rows.
                unsafe {
                    assert_eq!(f(bytes(&a), null(), rows), all);
                    assert_eq!(f(bytes(&a), bytes(&m), rows), some);
                }
            }
        }
    }
    check::<i8>(Prim::I8);
    check::<i16>(Prim::I16);
    check::<i32>(Prim::I32);
    check::<i64>(Prim::I64);
    check::<u8>(Prim::U8);
    check::<u16>(Prim::U16);
    check::<u32>(Prim::U32);
    check::<u64>(Prim::U64);
    assert!(sum_int(Prim::F64, Level::Baseline).is_none());
}

#[test]
fn extremes_skip_nan_and_masked_rows_and_merge_in_any_order() {
    for p in Prim::ALL {
        with_prim!(p, T => {
            let mut rng = Rng(60 + p as u64);
            for rows in LENGTHS.into_iter().chain([5000]) {
                let a = column::<T>(&mut rng, rows);
                let m = bitmap(&mut rng, rows, 40);
                let naive = |keep: &dyn Fn(usize) -> bool| {
                    let kept: Vec<T> =
                        (0..rows).filter(|i| keep(*i)).map(|i| a[i]).filter(|x| !x.is_nan()).collect();
                    let mut least: Option<T> = None;
                    let mut greatest: Option<T> = None;
                    for x in kept {
                        least = Some(least.map_or(x, |l| if x < l { x } else { l }));
                        greatest = Some(greatest.map_or(x, |g| if x > g { x } else { g }));
                    }
                    // The kernel's zero is positive.
                    let zero = |x: T| if x == T::ZERO { T::ZERO } else { x };
                    least.zip(greatest).map(|(l, g)| (zero(l).to_bits64(), zero(g).to_bits64()))
                };
                for level in Level::available() {
                    let f = extremes(p, level);
                    let given = |e: Extremes| e.some.then_some((e.min, e.max));
                    // SAFETY: as many values and bits as rows.
                    unsafe {
                        let all = f(bytes(&a), null(), rows);
                        assert_eq!(given(all), naive(&|_| true), "{p:?} {rows} {level:?}");
                        let some = f(bytes(&a), bytes(&m), rows);
                        assert_eq!(given(some), naive(&|i| bit(&m, i)), "{p:?} {rows} {level:?}");
                        let half = rows / 2;
                        let (l, r) = (
                            f(bytes(&a), null(), half),
                            f(bytes(&a[half..]), null(), rows - half),
                        );
                        assert_eq!(given(l.merge(r, p)), given(all));
                        assert_eq!(given(r.merge(l, p)), given(all));
                    }
                }
            }
        })
    }
}
