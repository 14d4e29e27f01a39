//! insitu-query: expressions, the one function table, typing, logical plans, the compiler to tile
//! programs, the operators that run them, and the thread pool.
//!
//! It may know borrowed column views ([`TableView`]) and a trait that lends it memory for results
//! ([`Memory`]); it must never know regions, names, processes, Arrow objects or Protobuf.
//!
//! *Architecture Invariant:* no choice that can change a bit of a result depends on the number of
//! threads, on timing, on cache sizes or on how a column is chunked.
//!
//! *Architecture Invariant:* column memory may be written by another process at any moment. It is
//! reached through raw pointers only; no reference (`&T`, `&[T]`) to it is ever made.
//!
//! A plan takes this way: [`Expr`] and [`Plan`] (plain trees) are checked against a [`Schema`]
//! (`typing`), cut into pipelines and lowered to a graph of kernel calls (`compile`), scheduled
//! into flat tile programs, and run over morsels of rows by the operators (`exec`) on the pool.

mod compile;
mod dtype;
mod error;
pub mod evaluate;
mod exec;
mod explain;
mod expr;
pub mod functions;
mod memory;
mod plan;
mod pool;
mod prepared;
mod scalar;
mod schema;
mod table;
pub mod text;
mod typing;
mod update;

pub use dtype::{DataType, TimeUnit};
pub use error::{Error, Result};
pub use expr::{Expr, ExprKind, MAX_DEPTH, MAX_SIZE};
pub use functions::{Failure, Function, FunctionId, FunctionKind, NullRule, TypeRule, functions};
pub use memory::{Heap, Memory, NewColumn, Output, OutputColumn, Owner, Span};
pub use plan::Plan;
pub use pool::{Ended, parallel, set_threads, threads};
pub use prepared::{Context, Prepared, Progress};
pub use scalar::Scalar;
pub use schema::{Field, Schema};
pub use table::{ColumnStats, TableView, ZoneView};
pub use update::{Bound, Ready, Update, Writable, Writing, ZoneSink};
