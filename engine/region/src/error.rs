//! What can go wrong in a region, one variant per thing a caller would treat differently.

use std::path::PathBuf;

use crate::types::Holder;

/// The result of a region operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stood in the way of more memory. [`Error::RegionFull`] carries it, because the cure differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullCause {
    /// The region's own capacity is in use by live tables and unpublished memory.
    Capacity,
    /// The file system under the region has no blocks left.
    Backing,
    /// The file system of named shared memory, `/dev/shm`, has no blocks left.
    SharedMemory,
    /// The memory control group of this process is at its limit.
    Cgroup,
    /// Memory of deleted or replaced tables is still pinned by handles or views.
    Pins,
    /// A reader that opened the region read-only keeps everything from being recycled.
    ReadOnlyOpener,
    /// Memory of deleted or replaced tables is part of what the last flush made durable, and is
    /// kept until the next flush has completed.
    Flush,
    /// The region's address span is too fragmented for one contiguous extent of this size.
    Span,
}

impl std::fmt::Display for FullCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Capacity => "capacity",
            Self::Backing => "the file system under the region",
            Self::SharedMemory => "/dev/shm",
            Self::Cgroup => "cgroup",
            Self::Pins => "pins",
            Self::ReadOnlyOpener => "a read-only opener",
            Self::Flush => "frees that await a flush",
            Self::Span => "fragmentation of the address span",
        })
    }
}

/// An error of the region.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No memory could be had; nothing was lost. Sizes are in bytes.
    RegionFull {
        /// What was asked for.
        needed: u64,
        /// What the capacity still allows.
        free: u64,
        /// The region's capacity.
        capacity: u64,
        /// What stood in the way.
        cause: FullCause,
    },
    /// There is no region of that name or at that path.
    RegionNotFound {
        /// The name or path asked for.
        region: String,
    },
    /// The name or path is taken.
    RegionExists {
        /// The name or path asked for.
        region: String,
    },
    /// The bytes are not those of a healthy region.
    RegionCorrupt {
        /// What is wrong.
        what: String,
        /// Where, in bytes from the region's start.
        offset: u64,
    },
    /// The region has another format version than this library writes.
    VersionMismatch {
        /// The version in the region.
        found: u32,
        /// The version this library reads and writes.
        expected: u32,
    },
    /// The operating system refused access.
    PermissionDenied {
        /// What was attempted.
        what: String,
    },
    /// The region was opened read-only.
    ReadOnly,
    /// All session slots of the region are taken by living sessions.
    SessionLimit {
        /// How many sessions a region has room for.
        limit: u32,
    },
    /// All table slots of the region are taken.
    TableLimit {
        /// How many tables the region was created for.
        limit: u32,
    },
    /// No table of that name.
    TableNotFound {
        /// The name asked for.
        name: String,
        /// The existing name nearest to it, if one is near.
        nearest: Option<String>,
    },
    /// The table name is taken.
    TableExists {
        /// The name asked for.
        name: String,
    },
    /// Others hold leases on the table.
    LeaseHeld {
        /// The table's name.
        name: String,
        /// Who holds it, as far as is known.
        holders: Vec<Holder>,
    },
    /// Waiting took longer than allowed.
    Timeout {
        /// What was waited for, and who held it.
        what: String,
    },
    /// The caller's own callback stopped the operation; nothing was changed.
    Cancelled,
    /// An update of the table was interrupted by its process's death.
    Poisoned {
        /// The table's name.
        name: String,
    },
    /// The handle outlived what it names; the text says what happened.
    Stale(String),
    /// An argument makes no sense; the text says why.
    InvalidArgument(String),
    /// Not available here; the text says what to do instead.
    Unsupported(String),
    /// The operating system failed.
    Io {
        /// What was attempted.
        context: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    /// An [`Error::Io`], or [`Error::PermissionDenied`] when that is what the system said.
    pub(crate) fn io(context: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        let context = context.into();
        // An error of ours on its way through the system's type.
        let source = match source.into().downcast::<Self>() {
            Ok(own) => return own,
            Err(source) => source,
        };
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            return Self::PermissionDenied { what: context };
        }
        Self::Io { context, source }
    }

    pub(crate) fn corrupt(what: impl Into<String>, offset: u64) -> Self {
        Self::RegionCorrupt { what: what.into(), offset }
    }

    pub(crate) fn path(path: &std::path::Path) -> String {
        PathBuf::from(path).display().to_string()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RegionFull { needed, free, capacity, cause } => write!(
                f,
                "the region is full: {needed} bytes needed, {free} of {capacity} free; held back by {cause}. \
                 Delete tables, drop handles and call gc(), or create the region with more capacity"
            ),
            Self::RegionNotFound { region } => {
                write!(f, "there is no region {region}; create it first")
            }
            Self::RegionExists { region } => {
                write!(
                    f,
                    "the region {region} exists already; open it, replace it, or choose another name"
                )
            }
            Self::RegionCorrupt { what, offset } => {
                write!(f, "not a healthy region: {what} (at byte {offset})")
            }
            Self::VersionMismatch { found, expected } => write!(
                f,
                "the region has format version {found}, and this library reads version {expected}; \
                 open it with a matching version or write it anew"
            ),
            Self::PermissionDenied { what } => write!(f, "permission denied: {what}"),
            Self::ReadOnly => {
                f.write_str("the region was opened read-only; open it for writing to change it")
            }
            Self::SessionLimit { limit } => write!(
                f,
                "all {limit} sessions of the region are in use by living processes; close one first"
            ),
            Self::TableLimit { limit } => write!(
                f,
                "the region was created for {limit} tables and has as many; delete some, or create it with a larger max_tables"
            ),
            Self::TableNotFound { name, nearest: Some(near) } => {
                write!(f, "there is no table {name:?}; did you mean {near:?}?")
            }
            Self::TableNotFound { name, nearest: None } => {
                write!(f, "there is no table {name:?}")
            }
            Self::TableExists { name } => {
                write!(f, "the table {name:?} exists already; replace it or choose another name")
            }
            Self::LeaseHeld { name, holders } => {
                write!(f, "the table {name:?} is in use")?;
                for (i, holder) in holders.iter().enumerate() {
                    write!(f, "{} {holder}", if i == 0 { ":" } else { ";" })?;
                }
                f.write_str("; end what holds it, or wait longer")
            }
            Self::Cancelled => f.write_str("the operation was interrupted"),
            Self::Timeout { what } => write!(f, "timed out: {what}"),
            Self::Poisoned { name } => write!(
                f,
                "the table {name:?} was being updated when the updating process died; drop it, or accept it with repair()"
            ),
            Self::Stale(what) => write!(f, "stale handle: {what}"),
            Self::InvalidArgument(what) => write!(f, "invalid argument: {what}"),
            Self::Unsupported(what) => write!(f, "unsupported: {what}"),
            Self::Io { context, source } => write!(f, "{context}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
