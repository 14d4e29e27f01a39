//! The memory of insitu: regions that several processes map, allocate from, and publish tables in.
//!
//! A region is shared memory (named, in a file, or behind a descriptor) with an allocator and a
//! catalog in it. A table is a name, a list of extents and a manifest of opaque bytes. Processes
//! may be killed at any instruction; who needs what they held takes it over.
//!
//! *Architecture Invariant:* this crate moves opaque buffers. It knows nothing of Arrow, columns,
//! expressions or Python, and must never depend on a crate that does.
//!
//! *Architecture Invariant:* no number read from a region is used before it was copied out and
//! checked, and no reference to plain bytes of a region is ever made: atomics and raw copies only.
//!
//! *Architecture Invariant:* no memory is touched before the operating system has reserved it.
//!
//! *Architecture Invariant:* whether another process lives is the kernel's word (its lock byte),
//! never a time-out's and never a process number's.
//!
//! The layout is described byte by byte in `docs/region-format.md`.

mod access;
mod arena;
mod backing;
mod bits;
mod blame;
mod breakers;
mod builds;
mod catalog;
mod cgroup;
mod checkpoint;
mod descriptor;
mod error;
mod extent;
mod flush;
mod fork;
mod grow;
mod handover;
mod index;
mod kill;
mod layout;
mod lease;
mod links;
mod listing;
mod lock;
mod mapping;
mod memory;
#[cfg(all(loom, test))]
mod models;
mod mutex;
mod nearest;
mod notes;
mod pin;
mod pins;
#[cfg(test)]
mod power;
mod protocol;
mod records;
mod recover;
mod region;
mod registry;
mod report;
mod reserve;
mod restore;
mod roots;
mod session;
mod site;
mod slots;
mod state;
mod sync;
#[cfg(test)]
mod tests;
mod ticket;
mod types;
mod update;
mod updater;
mod wait;
mod window;
mod word;
mod writer;

pub use builds::Building;
pub use error::{Error, FullCause, Result};
pub use extent::Extent;
pub use fork::{epoch as fork_epoch, generation as fork_generation};
pub use grow::Growable;
#[cfg(feature = "kill-points")]
pub use kill::POINTS as KILL_POINTS;
pub use lease::Lease;
pub use mutex::{ForkGuard, ForkMutex};
pub use pin::Pin;
pub use region::{Part, Region};
pub use site::{CallSite, set_call_site};
pub use ticket::GRACE as TICKET_GRACE;
pub use types::{
    CreateOptions, Flushed, HoldKind, Holder, IfExists, LeaseRecord, Location, Nearness, Pass,
    Patience, RegionRecord, Report, Stats,
};
pub use updater::{Exclusive, Obstacle, Updater};
pub use window::Window;
