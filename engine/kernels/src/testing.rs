//! Data for the tests of kernels: every kind of value that a loop could get wrong, at every length
//! around the word and vector sizes.

use crate::prim::Native;

/// A small generator (splitmix64): the same data on every machine.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Lengths around whole words and vectors.
#[cfg(not(miri))]
pub(crate) const LENGTHS: [usize; 22] =
    [0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 200, 255, 256, 257, 512, 1000, 1023, 1024];
/// Those of them that differ in what they read.
#[cfg(miri)]
pub(crate) const LENGTHS: [usize; 8] = [0, 1, 7, 9, 64, 65, 200, 257];

/// So many rows or rounds, of which Miri, a thousand times slower, does a few.
pub(crate) const fn many(n: usize) -> usize {
    if cfg!(miri) { n / 40 } else { n }
}

/// A value that tests can draw.
pub(crate) trait Draw: Native {
    fn draw(rng: &mut Rng) -> Self;
    fn same(self, other: Self) -> bool;
}

macro_rules! draw_int {
    ($($t:ty),*) => {$(
        impl Draw for $t {
            fn draw(rng: &mut Rng) -> $t {
                const EDGES: [$t; 8] =
                    [<$t>::MIN, <$t>::MAX, 0, 1, <$t>::MAX - 1, <$t>::MIN + 1, (0 as $t).wrapping_sub(1), 7];
                match rng.below(4) {
                    0 => EDGES[rng.below(8)],
                    1 => (rng.below(21) as $t).wrapping_sub(10),
                    _ => rng.next() as $t,
                }
            }
            fn same(self, other: $t) -> bool { self == other }
        }
    )*};
}
draw_int!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! draw_float {
    ($t:ident, $bits:ty) => {
        impl Draw for $t {
            fn draw(rng: &mut Rng) -> $t {
                const EDGES: [$t; 16] = [
                    0.0,
                    -0.0,
                    $t::NAN,
                    $t::INFINITY,
                    $t::NEG_INFINITY,
                    $t::MAX,
                    $t::MIN,
                    $t::MIN_POSITIVE,
                    1.0,
                    -1.0,
                    2147483648.0,
                    -2147483648.5,
                    -128.5,
                    18446744073709551616.0,
                    9223372036854775808.0,
                    0.1,
                ];
                match rng.below(8) {
                    0 | 1 => EDGES[rng.below(16)],
                    2 => $t::from_bits(rng.next() as $bits),
                    3 => (rng.below(41) as $t - 20.0) / 2.0,
                    _ => ((rng.unit() - 0.5) * 1000.0) as $t,
                }
            }
            // The payload and sign of NaN are left open.
            fn same(self, other: $t) -> bool {
                self.to_bits() == other.to_bits() || self != self && other != other
            }
        }
    };
}
draw_float!(f32, u32);
draw_float!(f64, u64);

pub(crate) fn column<T: Draw>(rng: &mut Rng, rows: usize) -> Vec<T> {
    (0..rows).map(|_| T::draw(rng)).collect()
}

/// Exactly `ceil(rows / 8)` bytes, with garbage past the rows; `density` of 256 bits are set.
pub(crate) fn bitmap(rng: &mut Rng, rows: usize, density: usize) -> Vec<u8> {
    let mut bits = vec![0u8; rows.div_ceil(8)];
    for i in 0..8 * bits.len() {
        bits[i / 8] |= u8::from(rng.below(256) < density) << (i % 8);
    }
    bits
}

pub(crate) fn bit(bits: &[u8], i: usize) -> bool {
    bits[i / 8] >> (i % 8) & 1 != 0
}

/// The bitmap a kernel should write: whole words, zero past the rows.
pub(crate) fn words(rows: usize, f: impl Fn(usize) -> bool) -> Vec<u64> {
    let mut words = vec![0u64; rows.div_ceil(64)];
    for i in 0..rows {
        words[i / 64] |= u64::from(f(i)) << (i % 64);
    }
    words
}

pub(crate) fn bytes<T>(v: &[T]) -> *const u8 {
    v.as_ptr().cast()
}
