//! insitu: columns in shared memory, computed where they lie.
//!
//! This crate is the engine's public interface in Rust, and what every other face is made of. It
//! joins two layers that know nothing of each other: the memory (`insitu-region`) and the
//! computing (`insitu-query`). It may know both, and Arrow, and the Protobuf messages; it must
//! never know a language binding.
//!
//! *Architecture Invariant:* Arrow objects exist at the border only ([`Region::put`],
//! [`Table::to_batches`]). Between the two there are column views.
//!
//! *Architecture Invariant:* an exported buffer owns a lease, and a lease keeps the mapping: there
//! is no order of closing, deleting or exiting in which a view dangles.
//!
//! *Architecture Invariant:* nothing that a region says is believed before it is checked, and
//! nothing that a caller hands in is published before the *copy* of it has been checked.

mod append;
mod builder;
mod conform;
pub mod error;
pub mod evaluate;
mod exclusive;
mod export;
pub mod foreign;
mod ingest;
mod ipc_schema;
mod layout;
mod manifest;
mod memory;
mod pass;
mod prepared;
mod programs;
mod query;
mod region;
mod run;
mod slab;
mod statistics;
mod stats;
mod storage;
mod summary;
mod table;
mod types;
mod update;
mod validate;
mod value;
mod version;
pub mod wire;
mod writable;
mod zones;

pub use builder::{BuildOptions, Builder, Canvas};
pub use error::{Error, ErrorCode, Result};
pub use exclusive::Exclusive;
pub use pass::{Way, WeakRegion};
pub use prepared::{Prepared, RunOptions};
pub use query::{CollectOptions, Query};
pub use region::{PutOptions, Region, parse_bytes};
pub use stats::Stats;
pub use summary::Summary;
pub use table::Table;
pub use types::from_arrow as data_type;
pub use update::UpdateOptions;
pub use writable::Writing;

pub use insitu_query::{
    DataType, Expr, Function, FunctionKind, Plan, Progress, Scalar, TimeUnit, functions,
    set_threads, text, threads,
};
pub use insitu_region::{
    CallSite, CreateOptions, Flushed, HoldKind, Holder, IfExists, LeaseRecord, Location, Nearness,
    Pass, Patience, RegionRecord, Report, TICKET_GRACE, set_call_site,
};
