//! The C face: `include/insitu.h`, and what is behind it.
//!
//! Every function checks what can be checked of its arguments, calls the engine and turns what
//! comes of it into a status and a message. It may know the engine's public interface and Arrow's C
//! structs; it must hold no logic that another face would need.
//!
//! *Architecture Invariant:* callers hold numbers, never addresses of ours. A number that is wrong,
//! taken back or of another kind is a status; so is a null or misaligned pointer, and a panic.
//!
//! *Architecture Invariant:* nothing here is a lock that a fork could leave locked.
//!
//! In all functions: pointers to results may be written to, texts end with a zero byte, options and
//! the structs that they point to are as they are described, and `error` is NULL or names a struct
//! that is filled with zeros or with what a call left in it.

mod args;
mod arrow;
mod formula;
mod handles;
mod lease;
mod library;
mod options;
mod plan;
mod region;
mod slab;
mod status;
mod table;
mod task;
#[cfg(test)]
mod tests;

pub use formula::*;
pub use handles::*;
pub use lease::*;
pub use library::*;
pub use options::*;
pub use plan::*;
pub use region::*;
pub use status::*;
pub use table::*;
pub use task::*;
