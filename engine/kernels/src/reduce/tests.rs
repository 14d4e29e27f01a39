//! Reductions: exact where they are exact, the same bits however the rows were split.

use super::*;
use crate::prim::with_prim;
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

/// The float product by the same definition.
fn defined_product(values: &[f64], keep: impl Fn(usize) -> bool) -> f64 {
    let mut blocks: Vec<f64> = (0..values.len().div_ceil(BLOCK))
        .map(|block| {
            let mut lanes = [1.0f64; LANES];
            for row in block * BLOCK..values.len().min((block + 1) * BLOCK) {
                if keep(row) {
                    lanes[row % LANES] *= values[row];
                }
            }
            let mut n = LANES;
            while n > 1 {
                n /= 2;
                for j in 0..n {
                    lanes[j] *= lanes[j + n];
                }
            }
            lanes[0]
        })
        .collect();
    blocks.resize(blocks.len().next_power_of_two(), 1.0);
    while blocks.len() > 1 {
        blocks = blocks.chunks(2).map(|c| c[0] * c[1]).collect();
    }
    blocks[0]
}

/// The variance in two passes over numbers of some 106 bits: hi + lo.
fn exact_variance(values: &[f64], ddof: usize) -> Option<f64> {
    let add = |(h, l): (f64, f64), x: f64| {
        let s = h + x;
        let v = s - h;
        (s, l + ((h - (s - v)) + (x - v)))
    };
    let n = values.len();
    if n <= ddof {
        return None;
    }
    let (h, l) = values.iter().fold((0.0, 0.0), |s, x| add(s, *x));
    let mean = (h + l) / n as f64;
    // What the mean lost to rounding.
    let (h, l) = values.iter().fold((0.0, 0.0), |s, x| add(s, x - mean));
    let rest = (h + l) / n as f64;
    let (h, l) = values.iter().fold((0.0, 0.0), |s, x| {
        let d = (x - mean) - rest;
        add(s, d * d)
    });
    Some((h + l) / (n - ddof) as f64)
}

fn variance(values: &[f64], mask: Option<&[u8]>, first_row: u64, level: Level) -> Moments {
    let mut m = MomentsF64::new(Prim::F64, level).unwrap();
    // SAFETY: as many values and bits as rows.
    unsafe { m.add(first_row, bytes(values), mask.map_or(null(), |m| m.as_ptr()), values.len()) };
    m.finish()
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
    for rows in LENGTHS.into_iter().chain([2000, 5000, 70_000].map(many)) {
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
    let rows = many(300_000);
    let v = mixed(&mut rng, rows);
    let m = bitmap(&mut rng, rows, 240);
    for level in Level::available() {
        for mask in [None, Some(&m)] {
            let expected = sum(&v, mask.map(|m| &m[..]), 0, level);
            for _ in 0..if cfg!(miri) { 2 } else { 20 } {
                // Morsels of any number of blocks, dealt to four threads in any order.
                let mut parts: Vec<SumF64> =
                    (0..4).map(|_| SumF64::new(Prim::F64, level).unwrap()).collect();
                let mut morsels = Vec::new();
                let mut at = 0;
                while at < rows {
                    let n = (BLOCK * (1 + rng.below(many(300)))).min(rows - at);
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
    let v: Vec<f64> = (0..many(1_000_000)).map(|_| rng.unit()).collect();
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
        let f = vec![0.1f32; many(100_000)];
        let mut s = SumF64::new(Prim::F32, level).unwrap();
        // SAFETY: as many values as rows.
        unsafe { s.add(0, bytes(&f), null(), f.len()) };
        let got = s.finish();
        assert!((got - f.len() as f64 * f64::from(0.1f32)).abs() < 1e-9, "{got}");
        assert!(SumF64::new(Prim::I32, level).is_none());
    }
}

#[test]
fn integer_sums_are_exact() {
    fn check<T: Draw + Into<i128>>(p: Prim) {
        let mut rng = Rng(50 + p as u64);
        for rows in LENGTHS.into_iter().chain([many(3000)]) {
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
            for rows in LENGTHS.into_iter().chain([many(5000)]) {
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

#[test]
fn float_products_are_as_defined_at_every_level() {
    let mut rng = Rng(70);
    for rows in LENGTHS.into_iter().chain([2000, 5000]) {
        let v: Vec<f64> = (0..rows).map(|_| 0.5 + rng.unit() * 1.4).collect();
        let m = bitmap(&mut rng, rows, 200);
        let (all, some) = (defined_product(&v, |_| true), defined_product(&v, |i| bit(&m, i)));
        let narrow: Vec<f32> = v.iter().map(|x| *x as f32).collect();
        let wide: Vec<f64> = narrow.iter().map(|x| f64::from(*x)).collect();
        let of_narrow = defined_product(&wide, |i| bit(&m, i));
        for level in Level::available() {
            let run = |p, values, mask| {
                let mut product = ProductF64::new(p, level).unwrap();
                // SAFETY: as many values and bits as rows.
                unsafe { product.add(0, values, mask, rows) };
                product.finish().to_bits()
            };
            assert_eq!(run(Prim::F64, bytes(&v), null()), all.to_bits());
            assert_eq!(run(Prim::F64, bytes(&v), bytes(&m)), some.to_bits());
            assert_eq!(run(Prim::F32, bytes(&narrow), bytes(&m)), of_narrow.to_bits());
        }
    }
}

#[test]
fn integer_products_are_exact_or_too_large() {
    fn check<T: Draw + Into<i128>>(p: Prim) {
        let mut rng = Rng(80 + p as u64);
        for rows in LENGTHS {
            for small in [true, false] {
                let mut a = column::<T>(&mut rng, rows);
                if small {
                    // Mostly ones, so that some products fit.
                    for (i, x) in a.iter_mut().enumerate() {
                        if i % 97 != 5 {
                            *x = T::ONE;
                        }
                    }
                }
                let m = bitmap(&mut rng, rows, 170);
                let product = |keep: &dyn Fn(usize) -> bool| {
                    let kept: Vec<i128> =
                        (0..rows).filter(|i| keep(*i)).map(|i| a[i].into()).collect();
                    if kept.contains(&0) {
                        return Some(0);
                    }
                    let mut all = 1i128;
                    for x in kept {
                        all = all.checked_mul(x).filter(|v| v.unsigned_abs() < 1 << 64)?;
                    }
                    Some(all)
                };
                let f = product_int(p).unwrap();
                // SAFETY: as many values and bits as rows.
                unsafe {
                    let (all, some) = (f(bytes(&a), null(), rows), f(bytes(&a), bytes(&m), rows));
                    assert_eq!(all.value(), product(&|_| true));
                    assert_eq!(some.value(), product(&|i| bit(&m, i)));
                    let half = rows / 2;
                    let right = f(bytes(&a[half..]), null(), rows - half);
                    let left = f(bytes(&a), null(), half);
                    assert_eq!(left.merge(right).value(), all.value());
                    assert_eq!(right.merge(left).value(), all.value());
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
    assert!(product_int(Prim::F32).is_none());
}

#[test]
fn variances_are_those_of_two_passes_and_the_same_at_every_level() {
    let mut rng = Rng(71);
    for rows in LENGTHS.into_iter().chain([2000, 5000, 70_000]) {
        for (scale, offset, step, share) in [
            (1.0, 0.0, 0.0, 200),
            (1.0, 1e9, 0.0, 200),
            (1e-3, -1e12, 0.0, 200),
            (1e150, 0.0, 0.0, 200),
            // What a block begins with is far from the rest of it, and may hardly count.
            (1.0, 1e3, 1e6, 200),
            (1.0, 1e9, 1e3, 20),
        ] {
            let begins = |i: usize| if i % BLOCK < 32 { step } else { 0.0 };
            let v: Vec<f64> =
                (0..rows).map(|i| (rng.unit() - 0.5) * scale + offset + begins(i + 100)).collect();
            let m = bitmap(&mut rng, rows, share);
            let some: Vec<f64> = (0..rows).filter(|i| bit(&m, *i)).map(|i| v[i]).collect();
            for ddof in [0, 1, 2] {
                let wants =
                    [exact_variance(&v, ddof as usize), exact_variance(&some, ddof as usize)];
                let mut bits = Vec::new();
                for level in Level::available() {
                    let gots = [None, Some(&m[..])].map(|m| variance(&v, m, 100, level));
                    for (got, want) in gots.iter().zip(&wants) {
                        let got = got.variance(ddof);
                        let what =
                            format!("{rows} rows, {offset:e} at {level:?}: {got:?} {want:?}");
                        assert_eq!(got.is_some(), want.is_some(), "{what}");
                        if let (Some(got), Some(want)) = (got, *want) {
                            assert!((got - want).abs() <= 8.0 * f64::EPSILON * want, "{what}");
                        }
                        bits.push(got.map(f64::to_bits));
                    }
                }
                assert!(bits.chunks(2).all(|b| b == &bits[..2]), "{rows} rows");
            }
        }
    }
}

#[test]
fn variances_near_the_end_of_the_type_are_finite() {
    // The squares about the mean of the first rows are beyond the type, those about the mean of all
    // are not.
    let v: Vec<f64> = (0..BLOCK).map(|i| if i < 32 { 1.4e153 } else { 0.0 }).collect();
    let want = exact_variance(&v, 0).unwrap();
    for level in Level::available() {
        let got = variance(&v, None, 0, level).variance(0).unwrap();
        assert!((got - want).abs() <= 8.0 * f64::EPSILON * want, "{level:?}: {got:e} {want:e}");
    }
}

#[test]
fn variances_do_not_depend_on_the_split() {
    let mut rng = Rng(72);
    let rows = 100_000;
    let v = mixed(&mut rng, rows);
    let m = bitmap(&mut rng, rows, 240);
    for mask in [None, Some(&m)] {
        let level = Level::best();
        let expected = variance(&v, mask.map(|m| &m[..]), 0, level).variance(1).unwrap();
        for _ in 0..20 {
            let mut parts: Vec<MomentsF64> =
                (0..3).map(|_| MomentsF64::new(Prim::F64, level).unwrap()).collect();
            let mut at = 0;
            while at < rows {
                // Whole blocks, dealt to anyone; in pieces, which start at whole bytes of the mask.
                let end = (at + BLOCK * (1 + rng.below(100))).min(rows);
                let part = &mut parts[rng.below(3)];
                while at < end {
                    let piece = (8 * (1 + rng.below(200))).min(end - at);
                    let bits = mask.map_or(null(), |m| m[at / 8..].as_ptr());
                    // SAFETY: within both.
                    unsafe { part.add(at as u64, bytes(&v[at..]), bits, piece) };
                    at += piece;
                }
            }
            let mut total = parts.swap_remove(rng.below(3));
            for part in parts {
                total.merge(part);
            }
            assert_eq!(total.finish().variance(1).unwrap().to_bits(), expected.to_bits());
        }
    }
}

#[test]
fn special_variances() {
    for level in Level::available() {
        let of = |v: &[f64], ddof| variance(v, None, 0, level).variance(ddof);
        assert_eq!(of(&[], 0), None);
        assert_eq!(of(&[5.0], 1), None);
        assert_eq!(of(&[5.0], 0), Some(0.0));
        assert_eq!(of(&[0.1; 1000], 1), Some(0.0));
        assert_eq!(of(&[1e308, -1e308], 1), Some(f64::INFINITY));
        // The sum is beyond the type, the variance is not.
        assert_eq!(of(&[2f64.powi(1023); 1024], 0), Some(0.0));
        for special in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN] {
            let mut v = vec![1.0; 600];
            v[300] = special;
            assert_eq!(of(&v, 1).unwrap().to_bits(), f64::NAN.to_bits());
            assert_eq!(of(&[special], 0).unwrap().to_bits(), f64::NAN.to_bits());
        }
        // What is masked takes no part, whatever it is.
        let v = [1.0, f64::NAN, 2.0, f64::INFINITY];
        assert_eq!(variance(&v, Some(&[0b0101]), 0, level).variance(1), Some(0.5));
        let f = [0.1f32, 0.7, 0.3, 1e30];
        let mut m = MomentsF64::new(Prim::F32, level).unwrap();
        // SAFETY: four values and bits.
        unsafe { m.add(0, bytes(&f), [0b0111u8].as_ptr(), 4) };
        let want = exact_variance(&[0.1f32, 0.7, 0.3].map(f64::from), 1).unwrap();
        assert!((m.finish().variance(1).unwrap() - want).abs() < 1e-15);
        assert!(MomentsF64::new(Prim::I32, level).is_none());
    }
}

#[test]
fn ordered_numbers_have_the_order_of_the_values() {
    for p in Prim::ALL {
        with_prim!(p, T => {
            let mut rng = Rng(90 + p as u64);
            let a = column::<T>(&mut rng, 2000);
            let float = |v: T| {
                let bits = v.to_bits64();
                if p.is_float() {
                    f64::from_bits(bits)
                } else if p.is_signed() {
                    bits as i64 as f64
                } else {
                    bits as f64
                }
            };
            for pair in a.windows(2) {
                let (x, y) = (pair[0], pair[1]);
                let before = x < y || y.is_nan() && !x.is_nan();
                let equal = x == y || x.is_nan() && y.is_nan();
                assert_eq!(ordered(x) < ordered(y), before, "{x:?} {y:?}");
                assert_eq!(ordered(x) == ordered(y), equal, "{x:?} {y:?}");
                let back = ordered_to_f64(p, ordered(x));
                assert!(back == float(x) || back.is_nan() && x.is_nan(), "{x:?} {back}");
            }
        })
    }
}

#[test]
fn digits_are_those_of_the_rows_that_have_the_prefix() {
    for p in Prim::ALL {
        with_prim!(p, T => {
            let mut rng = Rng(100 + p as u64);
            let rows = 1000;
            let a = column::<T>(&mut rng, rows);
            let m = bitmap(&mut rng, rows, 128);
            let bits = ordered_bits(p);
            let kept: Vec<u64> =
                (0..rows).filter(|i| bit(&m, *i)).map(|i| ordered(a[i])).collect();
            for known in [0, 16, 32, 48].into_iter().filter(|k| *k < bits) {
                let value = if known == 0 { 0 } else { kept[0] >> (bits - known) };
                let prefix = Prefix { value, bits: known };
                let fits = |k: &&u64| known == 0 || **k >> (bits - known) == value;
                let mut counts = Box::new([0u64; 1 << DIGIT_BITS]);
                let mut keys = Vec::new();
                // SAFETY: as many values and bits as rows.
                unsafe {
                    count_digits(p, bytes(&a), bytes(&m), rows, prefix, &mut counts);
                    assert!(gather_ordered(p, bytes(&a), bytes(&m), rows, prefix, &mut keys));
                }
                let want: Vec<u64> = kept.iter().filter(fits).copied().collect();
                assert_eq!(keys, want);
                let digit = |k: u64| {
                    let left = bits - known;
                    (k >> left.saturating_sub(DIGIT_BITS)) & ((1 << left.min(DIGIT_BITS)) - 1)
                };
                for k in &want {
                    counts[digit(*k) as usize] -= 1;
                }
                assert!(counts.iter().all(|c| *c == 0));
            }
        })
    }
}

#[test]
fn ranks_of_quantiles() {
    let ranks = |q, how, n| Quantile::new(q, how).unwrap().ranks(n);
    use Interpolation::*;
    assert_eq!(ranks(0.5, Linear, 0), None);
    assert_eq!(ranks(0.5, Linear, 1), Some((0, 0, 0.0)));
    assert_eq!(ranks(0.25, Linear, 4), Some((0, 1, 0.75)));
    assert_eq!(ranks(0.25, Midpoint, 4), Some((0, 1, 0.5)));
    assert_eq!(ranks(0.25, Lower, 4), Some((0, 0, 0.0)));
    assert_eq!(ranks(0.25, Higher, 4), Some((1, 1, 0.0)));
    assert_eq!(ranks(0.25, Nearest, 4), Some((1, 1, 0.0)));
    assert_eq!(ranks(1.0, Linear, 4), Some((3, 3, 0.0)));
    assert_eq!(ranks(1.0, Higher, u64::MAX).unwrap().1, u64::MAX - 1);
    assert!(Quantile::new(1.1, Linear).is_none() && Quantile::new(f64::NAN, Linear).is_none());
    assert_eq!(Quantile::between(f64::INFINITY, f64::INFINITY, 0.5), f64::INFINITY);
    assert_eq!(Quantile::between(f64::NEG_INFINITY, 1.0, 0.5), f64::NEG_INFINITY);
    assert_eq!(Quantile::between(-1.7e308, 1.7e308, 0.5), 0.0);
    assert!(Quantile::between(f64::NEG_INFINITY, f64::INFINITY, 0.5).is_nan());
}

#[test]
fn rows_are_found() {
    let mut rng = Rng(110);
    for rows in LENGTHS {
        let a: Vec<i16> = (0..rows).map(|_| rng.below(5) as i16).collect();
        let m = bitmap(&mut rng, rows, 60);
        let set: Vec<usize> = (0..rows).filter(|i| bit(&m, *i)).collect();
        // SAFETY: as many values and bits as rows.
        unsafe {
            assert_eq!(first_bit(bytes(&m), rows), set.first().copied());
            assert_eq!(last_bit(bytes(&m), rows), set.last().copied());
            assert_eq!(first_bit(null(), rows), (rows > 0).then_some(0));
            assert_eq!(last_bit(null(), rows), rows.checked_sub(1));
            for value in 0..5 {
                let at = |mask| position(Prim::I16, bytes(&a), mask, rows, value);
                let equal = |i: &usize| a[*i] == value as i16;
                assert_eq!(at(null()), (0..rows).find(equal));
                assert_eq!(at(bytes(&m)), set.iter().copied().find(equal));
            }
            for (i, v) in a.iter().enumerate().take(3) {
                assert_eq!(raw_bits(Prim::I16, bytes(&a), i), u64::from(*v as u16));
            }
        }
    }
}
