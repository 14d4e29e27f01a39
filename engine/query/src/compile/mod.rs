//! The compiler: a plan becomes stages, their expressions a graph of kernel calls, the graph a
//! flat tile program.

pub(crate) mod graph;
pub(crate) mod lower;
pub(crate) mod program;
pub(crate) mod stage;
