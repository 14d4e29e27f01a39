//! Fused left-deep chains of two and three operators from {+, -, reverse -, *}.
//!
//! They save the scratch traffic of single operators: a program of fused chains stays ahead of the
//! memory, one of single operators does not.

use super::arith::{Add, Binary, Mul, RSub, Sub};
use super::mem::{load, store};
use super::{Kernel, TileFn, tile_fn};
use crate::level::Level;
use crate::prim::{Native, Prim};
use std::marker::PhantomData;

/// An operator of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Chain {
    /// left + right
    Add,
    /// left - right
    Sub,
    /// right - left
    RSub,
    /// left * right
    Mul,
}

impl Chain {
    /// Every operator.
    pub const ALL: [Chain; 4] = [Chain::Add, Chain::Sub, Chain::RSub, Chain::Mul];
}

macro_rules! with_op {
    ($op:expr, $o:ident => $body:expr) => {
        match $op {
            Chain::Add => {
                type $o = Add;
                $body
            }
            Chain::Sub => {
                type $o = Sub;
                $body
            }
            Chain::RSub => {
                type $o = RSub;
                $body
            }
            Chain::Mul => {
                type $o = Mul;
                $body
            }
        }
    };
}

macro_rules! for_types {
    ($p:expr, $of:ident($($arg:expr),*)) => {
        match $p {
            Prim::F64 => Some($of::<f64>($($arg),*)),
            Prim::F32 => Some($of::<f32>($($arg),*)),
            Prim::I64 => Some($of::<i64>($($arg),*)),
            Prim::I32 => Some($of::<i32>($($arg),*)),
            _ => None,
        }
    };
}

/// The kernel `dst = (x a y) b z` with operands `[x, y, z]`. `None`: not one of the types that
/// chains are compiled for (F64, F32, I64, I32).
pub fn chain2(a: Chain, b: Chain, p: Prim, level: Level) -> Option<TileFn> {
    fn of<T: Linear>(a: Chain, b: Chain, level: Level) -> TileFn
    where
        Add: Binary<T>,
        Sub: Binary<T>,
        RSub: Binary<T>,
        Mul: Binary<T>,
    {
        with_op!(a, A => with_op!(b, B => tile_fn::<Two<A, B, T>>(level)))
    }
    for_types!(p, of(a, b, level))
}

/// The kernel `dst = ((x a y) b z) c w` with operands `[x, y, z, w]`. `None` as for [`chain2`].
pub fn chain3(a: Chain, b: Chain, c: Chain, p: Prim, level: Level) -> Option<TileFn> {
    fn of<T: Linear>(a: Chain, b: Chain, c: Chain, level: Level) -> TileFn
    where
        Add: Binary<T>,
        Sub: Binary<T>,
        RSub: Binary<T>,
        Mul: Binary<T>,
    {
        with_op!(a, A => with_op!(b, B => with_op!(c, C => tile_fn::<Three<A, B, C, T>>(level))))
    }
    for_types!(p, of(a, b, c, level))
}

/// The types that chains are compiled for.
trait Linear: Native {}
impl Linear for f64 {}
impl Linear for f32 {}
impl Linear for i64 {}
impl Linear for i32 {}

struct Two<A, B, T>(PhantomData<(A, B, T)>);

impl<A: Binary<T>, B: Binary<T>, T: Native> Kernel for Two<A, B, T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [x, y, z, _] = *src;
        for i in 0..rows {
            // SAFETY: i < rows, and operands and destination have `rows` values.
            unsafe {
                let v = A::apply(load::<T>(x, i), load(y, i));
                store::<T>(dst, i, B::apply(v, load(z, i)));
            }
        }
    }
}

struct Three<A, B, C, T>(PhantomData<(A, B, C, T)>);

impl<A: Binary<T>, B: Binary<T>, C: Binary<T>, T: Native> Kernel for Three<A, B, C, T> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let [x, y, z, w] = *src;
        for i in 0..rows {
            // SAFETY: i < rows, and operands and destination have `rows` values.
            unsafe {
                let v = A::apply(load::<T>(x, i), load(y, i));
                let v = B::apply(v, load(z, i));
                store::<T>(dst, i, C::apply(v, load(w, i)));
            }
        }
    }
}
