//! The plain records of the public interface: where a region lives, how it is made, what it reports.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where a region lives.
#[derive(Debug)]
pub enum Location {
    /// Named POSIX shared memory, `/dev/shm/insitu.<name>`.
    Shm(String),
    /// A file.
    File(PathBuf),
    /// Anonymous memory behind a descriptor; to create one.
    Memfd,
    /// An inherited or received descriptor of anonymous memory; to open one.
    Fd(OwnedFd),
}

/// What to do when the name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// Fail with [`crate::Error::RegionExists`].
    #[default]
    Error,
    /// Open the existing region; capacity and limits are the existing one's.
    Open,
    /// Remove the existing region and create a new one; its open users carry on with the old.
    Replace,
}

/// How a region is created.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// The most bytes of tables the region may hold; `None`: half of what the backing can hold.
    pub capacity: Option<u64>,
    /// The most tables; `None`: one per 64 KiB of capacity, from 1,024 to a million.
    pub max_tables: Option<u32>,
    /// What to do when the name is taken.
    pub if_exists: IfExists,
    /// Whether the region goes with its last session.
    pub ephemeral: bool,
}

/// One region of this machine, as [`crate::Region::list`] reports it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegionRecord {
    /// The name, without the `insitu.` prefix.
    pub name: String,
    /// The capacity in bytes; `None` when the header cannot be read.
    pub capacity: Option<u64>,
    /// The bytes the operating system has given it.
    pub resident: u64,
    /// Whether it goes with its last session.
    pub ephemeral: bool,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
}

/// What a region holds. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The most bytes the region may hold.
    pub capacity: u64,
    /// The extents of tables, manifests and unpublished memory, in granules of 64 KiB.
    pub used: u64,
    /// `capacity` less `used`.
    pub free: u64,
    /// What the operating system has set aside for extents: used, or warm for the next use.
    pub reserved: u64,
    /// Tables that can be looked up.
    pub tables: u64,
    /// Replaced or deleted tables that handles still keep.
    pub retired: u64,
    /// Living sessions (this process's included) as far as the session table says.
    pub sessions: u64,
    /// Extents that belong to this session and are not part of a table.
    pub extents: u64,
    /// The largest number of tables the region has room for.
    pub max_tables: u64,
    /// How often a dead process's work was taken over since this region was created.
    pub recoveries: u64,
}

/// What [`crate::Region::verify`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One sentence per problem; empty when all is well.
    pub problems: Vec<String>,
    /// How many tables were checked.
    pub tables: u64,
    /// How many extents were checked.
    pub extents: u64,
}

impl Report {
    /// Whether nothing wrong was found.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What holds on to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// A pin: the memory stays.
    Pin,
    /// A lease: the content stays.
    Lease,
}

/// One session's hold on one table, as [`crate::Region::leases`] reports it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseRecord {
    /// The holding process.
    pub pid: u32,
    /// The table's name.
    pub table: String,
    /// The table's sequence.
    pub sequence: u64,
    /// Whether the table is still the one of its name.
    pub current: bool,
    /// Pin or lease.
    pub kind: HoldKind,
    /// When it was taken, in milliseconds since the Unix epoch, as far as it was recorded.
    pub since: Option<u64>,
    /// What it is for, as far as it was recorded.
    pub what: String,
}
