//! The reduction of huge angles by whole quarter turns, after Payne and Hanek: of the product of
//! the argument and 2/pi only the bits between the quarter turns' lowest two and the rest's last
//! that matters are computed, in integers.

use super::trig::Reduced;
use super::{fast_two_sum, fma, two_prod};

/// 64 zero bits, then 2/pi to 1216 bits, the first of them worth one half.
const TWO_OVER_PI: [u64; 20] = [
    0,
    0xa2f9_836e_4e44_1529,
    0xfc27_57d1_f534_ddc0,
    0xdb62_9599_3c43_9041,
    0xfe51_63ab_debb_c561,
    0xb724_6e3a_424d_d2e0,
    0x0649_2eea_09d1_921c,
    0xfe1d_eb1c_b129_a73e,
    0xe882_35f5_2ebb_4484,
    0xe99c_7026_b45f_7e41,
    0x3991_d639_8353_39f4,
    0x9c84_5f8b_bdf9_283b,
    0x1ff8_97ff_de05_980f,
    0xef2f_118b_5a0a_6d1f,
    0x6d36_7ecf_27cb_09b7,
    0x4f46_3f66_9e5f_ea2d,
    0x7527_bac7_ebe5_f17b,
    0x3d07_39f7_8a52_92ea,
    0x6bfb_5fb1_1f8d_5d08,
    0x5603_3046_fc7b_6bab,
];

/// pi/2 as a sum of two.
const P1: f64 = std::f64::consts::FRAC_PI_2;
const P2: f64 = 6.123233995736766e-17;

/// Reduces x, finite and at least 2^-10.
pub(super) fn reduce(x: f64) -> Reduced {
    // x = m * 2^e
    let m = u128::from(x.to_bits() << 12 >> 12 | 1 << 52);
    let e = (x.to_bits() >> 52) as i64 - 1075;
    // Bits of 2/pi worth 2^(2 - e) and more give whole turns. Of those after them 192 matter: no
    // argument is nearer to a quarter turn than 2^-62 of one, and with m below 2^53 what is left
    // out is below 2^-137 of one.
    let from = (e - 2 + 64) as usize;
    let (word, shift) = (from / 64, from % 64);
    let bits = |i: usize| {
        let pair = u128::from(TWO_OVER_PI[word + i]) << 64 | u128::from(TWO_OVER_PI[word + i + 1]);
        pair << shift >> 64
    };
    // The product in turns, modulo 1, as three words.
    let low = m * bits(2);
    let middle = m * bits(1) + (low >> 64);
    let high = (m * bits(0) + (middle >> 64)) as u64;
    let (middle, low) = (middle as u64, low as u64);
    let quarters = high >> 62;
    // The rest in quarter turns, as a fraction of 190 bits; of its upper half downwards.
    let fraction = u128::from(high << 2 | middle >> 62) << 64 | u128::from(middle << 2 | low >> 62);
    let last = low << 2;
    let over = fraction >> 127 != 0;
    let (fraction, last) = if over {
        let (last, carry) = (!last).overflowing_add(1);
        ((!fraction).wrapping_add(u128::from(carry)), last)
    } else {
        (fraction, last)
    };
    // Normalised: 128 bits from the highest one that is set.
    let zeros = fraction.leading_zeros().min(63);
    let fraction = fraction << zeros | u128::from(last) >> (64 - zeros).min(127);
    // Its upper 53 bits and the 53 after them, both exact.
    let unit = f64::from_bits(u64::from(1023 - 53 - zeros) << 52);
    let f = (fraction >> 75) as f64 * unit;
    let f_low = (fraction << 53 >> 75) as f64 * unit * f64::EPSILON * 0.5;
    let (p, p_low) = two_prod::<false>(f, P1);
    let (r, low) = fast_two_sum(p, p_low + fma::<false>(f, P2, f_low * P1));
    let sign = if over { -1.0 } else { 1.0 };
    Reduced { quarters: quarters + u64::from(over), r: sign * r, low: sign * low }
}
