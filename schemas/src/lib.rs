//! insitu-schemas: the Protobuf messages of the catalog and of plans, as Rust types.
//!
//! The messages are defined in `proto/insitu/v1/*.proto`, where each field is documented with its
//! unit; the Rust code under `src/generated/` is made from them by prost and checked in, so that
//! building needs no Protobuf compiler. A test makes it again and compares; after a change of a
//! `.proto` file, `INSITU_REGENERATE=1 cargo test -p insitu-schemas` writes it anew.
//!
//! *Architecture Invariant:* messages describe data and say where it lies; they never contain
//! data. This crate holds no logic: who encodes and decodes is `insitu` (engine/core).

/// The messages of package `insitu.v1`.
pub mod v1 {
    // Generated names and layouts are prost's choice, not ours to lint.
    #![allow(clippy::all)]
    include!("generated/insitu.v1.rs");
}
