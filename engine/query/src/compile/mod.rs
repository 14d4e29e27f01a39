//! The compiler: a plan becomes stages, their expressions a graph of kernel calls, the graph a
//! flat tile program.

mod aggs;
pub(crate) mod assign;
mod bitwise;
mod builder;
mod cast;
mod convert;
mod fusion;
pub(crate) mod graph;
mod horizontal;
pub(crate) mod lower;
mod math;
mod operators;
mod order;
pub(crate) mod planner;
pub(crate) mod program;
mod round;
mod shift;
mod split;
pub(crate) mod stage;
pub(crate) mod windows;
