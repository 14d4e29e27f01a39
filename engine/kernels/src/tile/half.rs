//! Conversion of half-precision floats, which lie as 16 bits and are not computed on: IEEE 754
//! binary16 to f32, where every one is exact, and f64 to binary16, rounded once.

use super::mem::{load, store};
use super::{Kernel, TileFn, tile_fn};
use crate::level::Level;

/// The kernel `dst = operand`, from binary16 to f32. NaN stays NaN.
pub fn half_to_f32(level: Level) -> TileFn {
    tile_fn::<FromHalf>(level)
}

/// The kernel `dst = operand`, from f64 to binary16: to the nearest, halves to even; infinite from
/// 65520 on. NaN stays NaN.
pub fn f64_to_half(level: Level) -> TileFn {
    tile_fn::<ToHalf>(level)
}

/// The sign of a binary16.
const SIGN: u16 = 0x8000;
/// Its infinity; what is above, without the sign, is NaN.
const INFINITE: u16 = 0x7c00;
/// Its quiet NaN.
const NAN: u16 = 0x7e00;

#[inline(always)]
fn widened(half: u16) -> f32 {
    let magnitude = u32::from(half & !SIGN);
    // Subnormal ones count steps of 2^-24; others have 112 less of exponent bias and 13 bits less.
    let subnormal = (magnitude as f32 * (1.0 / 16_777_216.0)).to_bits();
    let special = 0x7f80_0000 | magnitude << 13;
    let normal = (magnitude << 13).wrapping_add(112 << 23);
    let bits = if magnitude >= u32::from(INFINITE) {
        special
    } else if magnitude < 0x400 {
        subnormal
    } else {
        normal
    };
    f32::from_bits(bits | u32::from(half & SIGN) << 16)
}

#[inline(always)]
fn narrowed(value: f64) -> u16 {
    let sign = (value.to_bits() >> 48) as u16 & SIGN;
    let size = value.abs();
    let bits = size.to_bits();
    // In steps of 2^-24, which are the last bits beside 2^28: the sum is rounded to them.
    let subnormal = (size + 268_435_456.0).to_bits().wrapping_sub(268_435_456f64.to_bits());
    // 42 bits less, rounded to even by what they carry, and 1008 less of exponent bias.
    let carried = bits.wrapping_add((1 << 41) - 1).wrapping_add(bits >> 42 & 1) >> 42;
    let normal = carried.wrapping_sub(1008 << 10);
    let finite = if size < 1.0 / 16_384.0 { subnormal } else { normal } as u16;
    let limited = if size >= 65_520.0 { INFINITE } else { finite };
    sign | if value.is_nan() { NAN } else { limited }
}

struct FromHalf;

impl Kernel for FromHalf {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let a = src[0];
        for i in 0..rows {
            // SAFETY: i < rows, and operand and destination have `rows` values.
            unsafe { store::<f32>(dst, i, widened(load::<u16>(a, i))) }
        }
    }
}

struct ToHalf;

impl Kernel for ToHalf {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let a = src[0];
        for i in 0..rows {
            // SAFETY: i < rows, and operand and destination have `rows` values.
            unsafe { store::<u16>(dst, i, narrowed(load::<f64>(a, i))) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the format.
    fn value(half: u16) -> f64 {
        let fraction = f64::from(half & 0x3ff);
        let exponent = i32::from(half >> 10 & 0x1f);
        let size = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            e => (1024.0 + fraction) * 2f64.powi(e - 25),
        };
        if half & SIGN == 0 { size } else { -size }
    }

    #[test]
    fn every_half_widens_exactly_and_comes_back() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for level in Level::available() {
            for tile in all.chunks(super::super::TILE_MAX) {
                let (mut wide, mut back) = (vec![0f32; tile.len()], vec![0u16; tile.len()]);
                let src = [tile.as_ptr().cast(); 4];
                // SAFETY: operand and result have a tile's values.
                unsafe { half_to_f32(level)(wide.as_mut_ptr().cast(), &src, tile.len()) };
                let double: Vec<f64> = wide.iter().map(|v| f64::from(*v)).collect();
                let src = [double.as_ptr().cast(); 4];
                // SAFETY: as above.
                unsafe { f64_to_half(level)(back.as_mut_ptr().cast(), &src, tile.len()) };
                for ((half, wide), back) in tile.iter().zip(&double).zip(&back) {
                    let exact = value(*half);
                    assert!(*wide == exact || wide.is_nan() && exact.is_nan(), "{half:#x}: {wide}");
                    assert_eq!(wide.is_sign_negative(), *half & SIGN != 0);
                    if exact.is_nan() {
                        assert_eq!(back & !SIGN, NAN);
                    } else {
                        assert_eq!(back, half);
                    }
                }
            }
        }
    }

    #[test]
    fn what_lies_between_goes_to_the_nearest_and_halves_to_even() {
        for half in 0..INFINITE - 1 {
            let (low, high) = (value(half), value(half + 1));
            let middle = (low + high) / 2.0;
            let even = if half % 2 == 0 { half } else { half + 1 };
            for sign in [1.0, -1.0] {
                let bits = if sign > 0.0 { 0 } else { SIGN };
                assert_eq!(narrowed(sign * middle), even | bits);
                assert_eq!(narrowed(sign * middle.next_down()), half | bits);
                assert_eq!(narrowed(sign * middle.next_up()), (half + 1) | bits);
            }
        }
        assert_eq!(narrowed(65_519.999), INFINITE - 1);
        assert_eq!(narrowed(65_520.0), INFINITE);
        assert_eq!(narrowed(f64::MIN), INFINITE | SIGN);
        assert_eq!(narrowed(5e-324), 0);
        assert_eq!(narrowed(f64::NAN) & !SIGN, NAN);
    }
}
