//! The Python face: the native module `insitu._native`.
//!
//! *Architecture Invariant:* the only crate that names pyo3, numpy or pyo3-arrow, and it holds no
//! logic that another face would need: it turns Python values into calls of the engine, and
//! Arrow memory into Python views.
//!
//! *Architecture Invariant:* every class is frozen and safe without a GIL, and the GIL is
//! released around everything that may take longer than a few microseconds.

mod arrow_in;
mod arrow_out;
mod builder;
mod column;
mod display;
mod errors;
mod evaluate;
mod expr;
mod filled;
mod functions;
mod given;
mod handle;
mod interrupt;
mod literal;
mod look;
mod module;
mod numpy_out;
mod pickle;
mod prepared;
mod query;
mod region;
mod shutdown;
mod site;
mod table;
mod types;
mod ufunc;
mod update;
mod writable;
