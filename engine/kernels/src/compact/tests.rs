//! Compaction against a naive filter, with exactly the room that is needed.

use super::*;
use crate::prim::{Prim, with_prim};
use crate::testing::*;

#[test]
fn selected_rows_are_written_and_nothing_after_the_room() {
    for p in Prim::ALL {
        with_prim!(p, T => {
            let mut rng = Rng(20 + p as u64);
            for rows in LENGTHS {
                let a = column::<T>(&mut rng, rows);
                for density in [0, 3, 128, 250, 256] {
                    let m = bitmap(&mut rng, rows, density);
                    let expected: Vec<T> = (0..rows).filter(|i| bit(&m, *i)).map(|i| a[i]).collect();
                    for level in Level::available() {
                        for room in [expected.len(), expected.len() / 2, expected.len() + 100] {
                            let mut out = vec![T::ONE; room + 1];
                            let f = compact(size_of::<T>(), level).unwrap();
                            // SAFETY: room as said.
                            let n = unsafe {
                                f(out.as_mut_ptr().cast(), room, bytes(&a), bytes(&m), rows)
                            };
                            assert_eq!(n, expected.len().min(room));
                            assert!(out[room].same(T::ONE), "wrote past the room");
                            assert!((0..n).all(|i| out[i].same(expected[i])), "{p:?} {level:?}");
                        }
                    }
                }
            }
        })
    }
    assert!(compact(16, Level::Baseline).is_none());
}

#[test]
fn bits_are_appended_at_any_bit() {
    let mut rng = Rng(30);
    for level in Level::available() {
        for rows in LENGTHS {
            for density in [0, 5, 128, 256] {
                // Two tiles after one another, from an odd place on, between bits of others.
                let at = rng.below(130);
                let mut out = vec![0u64; (at + 2 * rows).div_ceil(64) + 1];
                let before = rng.next() | 1;
                for i in 0..at {
                    out[i / 64] |= (before >> (i % 64) & 1) << (i % 64);
                }
                let mut expected = out.clone();
                let mut end = at;
                for _ in 0..2 {
                    let (b, m) = (bitmap(&mut rng, rows, 128), bitmap(&mut rng, rows, density));
                    // SAFETY: the result has room for all rows of both.
                    let n = unsafe {
                        compact_bits(level)(out.as_mut_ptr(), end, bytes(&b), bytes(&m), rows)
                    };
                    let begin = end;
                    for i in (0..rows).filter(|i| bit(&m, *i)) {
                        expected[end / 64] |= u64::from(bit(&b, i)) << (end % 64);
                        end += 1;
                    }
                    assert_eq!(n, end - begin);
                }
                assert_eq!(out, expected, "{level:?} {rows} rows at {at}");
            }
        }
    }
}
