//! The loops of insitu: one flat loop per operation, type and instruction level.
//!
//! Knows number types, borrowed column views and bitmaps. *Architecture invariant:* knows no plans,
//! no threads, no regions, no Arrow, no Protobuf; allocates only in accumulators and group tables.
//!
//! Memory that another process may write is read through raw pointers only, and no value read from
//! it becomes an address without a bounds check.

pub(crate) mod bytes;
pub mod compact;
pub mod copy;
pub mod group;
pub mod hash;
pub mod level;
#[cfg(test)]
mod machine;
pub(crate) mod math;
pub mod prefetch;
pub mod prim;
pub mod reduce;
pub mod scan;
pub mod sort;
pub mod strings;
pub mod take;
#[cfg(test)]
pub(crate) mod testing;
pub mod tile;
pub mod view;

pub use level::Level;
pub use prim::{Native, Prim};
pub use tile::{TILE_MAX, TileFn};
pub use view::{ColumnView, Layout};
