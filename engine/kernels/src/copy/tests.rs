//! Copies against the bytes they copy, and statistics against a naive pass.

use super::*;
use crate::level::Level;
use crate::prim::{Native, Prim, with_prim};
use crate::testing::*;
use std::ptr::{null, null_mut};

#[test]
fn streaming_copies_every_byte_and_no_other() {
    let mut rng = Rng(70);
    let src: Vec<u8> = (0..5000).map(|_| rng.next() as u8).collect();
    for level in Level::available() {
        for _ in 0..many(300) {
            let (from, to, n) = (rng.below(200), rng.below(200), rng.below(4500));
            let mut dst = vec![7u8; 5000];
            // SAFETY: 200 + 4500 < 5000.
            unsafe { stream_copy(level)(dst.as_mut_ptr().add(to), src.as_ptr().add(from), n) };
            assert_eq!(dst[to..to + n], src[from..from + n]);
            assert!(dst[..to].iter().chain(&dst[to + n..]).all(|b| *b == 7));
        }
    }
}

#[test]
fn padding_is_zeroed_to_the_line() {
    for len in [0, 1, 63, 64, 65, 127] {
        let mut v = [9u8; 192];
        // SAFETY: 192 bytes hold the line after 127.
        unsafe { zero_padding(v.as_mut_ptr(), len) };
        let end = len.next_multiple_of(64);
        assert!(v[len..end].iter().all(|b| *b == 0));
        assert!(v[..len].iter().chain(&v[end..]).all(|b| *b == 9));
    }
}

#[test]
fn bitmaps_move_to_bit_zero() {
    let mut rng = Rng(71);
    for level in Level::available() {
        for rows in LENGTHS {
            for offset in [0, 1, 3, 7, 8, 13, 64, 65, 127] {
                // No byte more than needed: a read past it would be seen by a checker.
                let src = bitmap(&mut rng, offset + rows, 128);
                let mut dst = vec![!0u64; rows.div_ceil(64)];
                // SAFETY: as many bits.
                let n =
                    unsafe { copy_bits(level)(dst.as_mut_ptr().cast(), bytes(&src), offset, rows) };
                assert_eq!(dst, words(rows, |i| bit(&src, offset + i)), "{rows} at {offset}");
                assert_eq!(n, (0..rows).filter(|i| bit(&src, offset + i)).count());
            }
        }
    }
}

#[test]
fn offsets_are_rebased() {
    for rows in [0usize, 1, 5, 511, 512, 513, 2000] {
        let src: Vec<i32> = (0..=rows as i32).map(|i| 10 + 3 * i).collect();
        let mut dst = vec![-1i32; rows + 1];
        let end = 10 + 3 * rows;
        // SAFETY: rows + 1 offsets each.
        let got = unsafe { rebase_offsets::<i32>(dst.as_mut_ptr().cast(), bytes(&src), rows, end) };
        assert_eq!(got, Ok((10, end)));
        assert_eq!(dst, (0..=rows as i32).map(|i| 3 * i).collect::<Vec<_>>());
    }
}

#[test]
fn offsets_at_fault_are_named() {
    let run = |src: &[i64], data: usize| {
        let mut dst = vec![0i64; src.len()];
        // SAFETY: as many offsets each.
        unsafe { rebase_offsets::<i64>(dst.as_mut_ptr().cast(), bytes(src), src.len() - 1, data) }
    };
    let fault = |index, offset| Err(OffsetError { index, offset });
    assert_eq!(run(&[0, 5, 4, 9], 9), fault(2, 4));
    assert_eq!(run(&[-1, 5], 9), fault(0, -1));
    assert_eq!(run(&[0, 5, 10], 9), fault(2, 10));
    assert_eq!(run(&[10, 10], 9), fault(0, 10));
    assert_eq!(run(&[0, i64::MAX, i64::MIN], 9), fault(1, i64::MAX));
    let mut long: Vec<i64> = (0..2000).collect();
    long[1500] = 3;
    assert_eq!(run(&long, 5000), fault(1500, 3));
    long[1500] = 4000;
    assert_eq!(run(&long, 5000), fault(1501, 1501));
}

/// Statistics the slow way, from what Option says.
fn naive<T: Draw>(v: &[Option<T>]) -> ZoneStats {
    let mut s = ZoneStats { rows: v.len() as u64, ..ZoneStats::EMPTY };
    let seen: Vec<T> = v.iter().flatten().copied().collect();
    let numbers: Vec<T> = seen.iter().copied().filter(|x| !x.is_nan()).collect();
    let zero = |x: T| if x == T::ZERO { T::ZERO } else { x };
    s.flags = 0;
    if let Some(first) = numbers.first() {
        let least = numbers.iter().fold(*first, |l, x| if *x < l { *x } else { l });
        let greatest = numbers.iter().fold(*first, |g, x| if *x > g { *x } else { g });
        (s.min, s.max) = (zero(least).to_bits64(), zero(greatest).to_bits64());
        s.flags |= ZoneStats::HAS_RANGE;
    }
    if numbers.len() < seen.len() {
        s.flags |= ZoneStats::HAS_NAN;
    }
    s.null_count = (v.len() - seen.len()) as u64;
    if numbers.len() == v.len() {
        if numbers.windows(2).all(|w| w[0] <= w[1]) {
            s.flags |= ZoneStats::ASCENDING;
        }
        if numbers.windows(2).all(|w| w[0] >= w[1]) {
            s.flags |= ZoneStats::DESCENDING;
        }
    }
    let value = |x: Option<&Option<T>>| x.copied().flatten().unwrap_or(T::ZERO).to_bits64();
    (s.first, s.last) = (value(v.first()), value(v.last()));
    s
}

fn same(a: &ZoneStats, b: &ZoneStats, p: Prim) -> bool {
    // The bits of a first or last NaN are left open.
    let nan = |x: u64| with_prim!(p, T => T::from_bits64(x).is_nan());
    let ends = |x: u64, y: u64| x == y || nan(x) && nan(y);
    let blank = |s: &ZoneStats| ZoneStats { first: 0, last: 0, ..*s };
    blank(a) == blank(b) && ends(a.first, b.first) && ends(a.last, b.last)
}

#[test]
fn a_copy_with_statistics_copies_and_leaks_nothing_under_nulls() {
    for p in Prim::ALL {
        with_prim!(p, T => {
            let mut rng = Rng(80 + p as u64);
            for rows in LENGTHS.into_iter().chain([2048, 2049, 6000].map(many)) {
                for shape in 0..5 {
                    let mut a = column::<T>(&mut rng, rows);
                    if shape > 0 {
                        a.iter_mut().for_each(|x| if x.is_nan() { *x = T::ONE });
                    }
                    match shape {
                        1 => a.sort_by(|x, y| x.partial_cmp(y).unwrap()),
                        2 => a.sort_by(|x, y| y.partial_cmp(x).unwrap()),
                        3 => a.fill(T::ONE),
                        _ => {}
                    }
                    for density in [256, 250, 20, 0] {
                        let bits = bitmap(&mut rng, rows, density);
                        let logical: Vec<Option<T>> =
                            (0..rows).map(|i| bit(&bits, i).then_some(a[i])).collect();
                        let expected = naive(&logical);
                        let validity = if density == 256 { null() } else { bytes(&bits) };
                        for level in Level::available() {
                            for streaming in [false, true] {
                                let mut dst = vec![T::GREATEST; rows + 1];
                                let f = copy_with_stats(p, level);
                                // SAFETY: as many values and bits as rows.
                                let (stats, looked) = unsafe { (
                                    f(dst.as_mut_ptr().cast(), bytes(&a), validity, rows, streaming),
                                    f(null_mut(), bytes(&a), validity, rows, false),
                                ) };
                                if rows > 0 {
                                    assert!(
                                        same(&stats, &expected, p),
                                        "{p:?} {rows} {shape} {level:?}: {stats:?}, not {expected:?}"
                                    );
                                    assert_eq!(looked, stats);
                                } else {
                                    assert_eq!(stats, ZoneStats::EMPTY);
                                }
                                for i in 0..rows {
                                    assert!(dst[i].same(logical[i].unwrap_or(T::ZERO)));
                                }
                                assert!(dst[rows].same(T::GREATEST), "wrote past the rows");
                            }
                        }
                    }
                }
            }
        })
    }
}

#[test]
fn statistics_of_neighbours_merge_to_those_of_both() {
    let mut rng = Rng(90);
    let f = copy_with_stats(Prim::F64, Level::best());
    for round in 0..many(200) {
        let rows = 1 + rng.below(300);
        let mut a = column::<f64>(&mut rng, rows);
        if round % 2 == 0 {
            a.retain(|x| !x.is_nan());
            a.sort_by(f64::total_cmp);
        }
        let cut = rng.below(a.len() + 1);
        // SAFETY: as many values as rows.
        let (both, left, right) = unsafe {
            (
                f(null_mut(), bytes(&a), null(), a.len(), false),
                f(null_mut(), bytes(&a), null(), cut, false),
                f(null_mut(), bytes(&a[cut..]), null(), a.len() - cut, false),
            )
        };
        assert!(same(&left.merge(&right, Prim::F64), &both, Prim::F64));
    }
}

#[test]
fn beside_rows_of_which_nothing_is_known_no_range_is_known() {
    let values = [3i64, 5];
    // SAFETY: as many values as rows.
    let known = unsafe {
        copy_with_stats(Prim::I64, Level::best())(null_mut(), bytes(&values), null(), 2, false)
    };
    let unknown =
        ZoneStats { rows: 7, null_count: ZoneStats::UNKNOWN, flags: 0, ..ZoneStats::EMPTY };
    for (a, b) in [(known, unknown), (unknown, known)] {
        let both = a.merge(&b, Prim::I64);
        assert_eq!((both.rows, both.null_count, both.flags), (9, ZoneStats::UNKNOWN, 0));
        // Nor does it become known again.
        let more = both.merge(&known, Prim::I64);
        assert!(!more.has(ZoneStats::HAS_RANGE) && more.null_count == ZoneStats::UNKNOWN);
    }
}
