//! Tile kernels: the uniform instruction of a tile program.
//!
//! Every kernel here is one flat loop of type [`TileFn`], looked up once per program by operation,
//! type and [`Level`](crate::level::Level).
//!
//! The contract of all of them:
//! - `rows` is at most [`TILE_MAX`]; 0 is allowed.
//! - `dst` never overlaps an operand. (If it did, results would still be defined where `dst` equals
//!   an operand, but the scalar path would run.) Operands may be the same pointer.
//! - No pointer needs to be aligned; 64-byte alignment is fastest.
//! - Exactly `rows` values of an operand are read and of a destination written.
//! - Bitmaps are least significant bit first. Of an operand exactly `ceil(rows / 8)` bytes are
//!   read; a destination gets `ceil(rows / 64)` whole words of 64 bits, bits past `rows` zero.
//! - A constant operand is a broadcast tile of equal values (see [`fill`]).
//! - Integer arithmetic wraps. Floats are IEEE: no contraction, so all levels agree bit for bit
//!   (but for the payload and sign of NaN). [`Math`] and [`Math2`] are rounded otherwise; how well,
//!   and where they agree, their module says.

mod arith;
mod bits;
mod cast;
mod chain;
mod compare;
mod half;
pub(crate) mod mem;
mod pair;
pub(crate) mod select;
mod unary;

use crate::level::leveled;

pub use crate::math::{Math, Math2, math, math2};
pub use arith::{Arith, arith, div_valid, overflows};
pub use bits::{BitOp, any_bit, bits, count_bits, store_bits};
pub use cast::{bool_to_prim, cast, cast_fits, prim_to_bool};
pub use chain::{Chain, chain2, chain3};
pub use compare::{Compare, compare};
pub use half::{f64_to_half, half_to_f32};
pub use pair::{Pair, pair, round_overflows};
pub use select::{fill, fill_bits, select, select_bits};
pub use unary::{Unary, unary};

/// The most rows a tile can have.
pub const TILE_MAX: usize = 1024;

/// A tile kernel: `(dst, operands, rows)`. Operands the kernel does not have are ignored and may be
/// null.
pub type TileFn = unsafe fn(dst: *mut u8, src: &[*const u8; 4], rows: usize);

/// A loop body, instantiated per level by [`tile_fn`].
pub(crate) trait Kernel {
    /// # Safety
    /// The contract of the module; `L` is a level the CPU has.
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize);
}

#[inline(always)]
unsafe fn run_kernel<K: Kernel, const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
    // SAFETY: passed on as it is.
    unsafe { K::run::<L>(dst, src, rows) }
}

leveled! {
    /// The version of kernel `K` for a level.
    pub(crate) fn tile_fn<K: Kernel>(dst: *mut u8, src: &[*const u8; 4], rows: usize) = run_kernel
}

#[cfg(test)]
mod tests;
