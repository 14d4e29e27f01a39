//! What can go wrong in a region, one variant per thing a caller would treat differently.

use std::path::PathBuf;

use crate::types::{
    HoldKind, Holder, LeaseRecord, Nearness, age_and_purpose, begun_and_purpose, size,
};

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

impl FullCause {
    /// What is the case, and what to do.
    fn advice(self) -> &'static str {
        match self {
            Self::Capacity => {
                "tables, results and what is being built have the rest. Delete tables, drop \
                 results, or create the region with more capacity"
            }
            Self::Backing => {
                "the file system has no room for more. Make room there, or give back what no \
                 table needs with trim()"
            }
            Self::SharedMemory => {
                "/dev/shm, which all named regions share, has no room for more. Remove regions \
                 (`insitu ls` lists them), give back what no table needs with trim(), or make \
                 /dev/shm larger"
            }
            Self::Cgroup => {
                "the control group (the container) of this process is at its memory limit. Raise \
                 the limit, or give back what no table needs with trim()"
            }
            Self::Pins => {
                "handles or views keep the memory of replaced or deleted tables. Drop them; \
                 region.leases() and `insitu leases` list them all"
            }
            Self::ReadOnlyOpener => {
                "as long as a process has the region open read-only, memory of replaced or deleted \
                 tables is not used again. Close it there, or try again: who only looks is soon gone"
            }
            Self::Flush => {
                "the last flush() made the memory of replaced or deleted tables durable, and it is \
                 kept until the next one has ended. Call flush()"
            }
            Self::Span => {
                "what is free lies in pieces too small for it. Delete tables, or put them anew, or \
                 create the region with more capacity"
            }
        }
    }
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
        /// If it is [`FullCause::Pins`]: who keeps most.
        keepers: Vec<LeaseRecord>,
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
        /// Who was updating it, since when and from where, as far as it is known.
        by: Option<Holder>,
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
            Self::RegionFull { needed, free, capacity, cause, keepers } => {
                let (needed, free, capacity) = (size(*needed), size(*free), size(*capacity));
                write!(
                    f,
                    "the region is full ({cause}): {needed} were asked for, {free} of {capacity} \
                     are free; {}",
                    cause.advice()
                )?;
                for (i, keeper) in keepers.iter().enumerate() {
                    write!(f, "{} {keeper}", if i == 0 { ":" } else { ";" })?;
                }
                Ok(())
            }
            Self::RegionNotFound { region } => {
                write!(f, "there is no region {region}; create it first")
            }
            Self::RegionExists { region } => {
                write!(
                    f,
                    "the region {region} exists already; open it, or create it with \
                     if_exists=\"open\" or if_exists=\"replace\", or choose another name"
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
                "the region was created for {limit} tables and has as many, with those that were \
                 replaced or deleted and are still held; to replace or append to a table takes one \
                 more for a moment. Delete some, drop handles on old ones, or create the region \
                 with a larger max_tables"
            ),
            Self::TableNotFound { name, nearest: Some(near) } => {
                write!(f, "there is no table {name:?}; did you mean {near:?}?")
            }
            Self::TableNotFound { name, nearest: None } => {
                write!(f, "there is no table {name:?}")
            }
            Self::TableExists { name } => {
                write!(
                    f,
                    "the table {name:?} exists already; pass replace=True, or choose another name"
                )
            }
            Self::LeaseHeld { name, holders } => {
                if let Some(own) = holders.iter().find(|h| h.nearness == Nearness::Thread) {
                    return write!(
                        f,
                        "this thread has the table {name:?} open to change it already{}; end that \
                         block first, or work with what it gave",
                        age_and_purpose(own.since, &own.what)
                    );
                }
                write!(f, "the table {name:?} is in use")?;
                for (i, holder) in holders.iter().enumerate() {
                    write!(f, "{} {holder}", if i == 0 { ":" } else { ";" })?;
                }
                let own = |h: &Holder| (h.nearness, h.kind) == (Nearness::Process, HoldKind::Lease);
                match holders.iter().any(own) {
                    true => f.write_str("; drop that first, a process does not wait for itself"),
                    false => f.write_str("; end what holds it, or wait longer"),
                }
            }
            Self::Cancelled => f.write_str("the operation was interrupted"),
            Self::Timeout { what } => write!(f, "timed out: {what}"),
            Self::Poisoned { name, by } => {
                write!(f, "the table {name:?} is poisoned: ")?;
                match by {
                    Some(by) => {
                        write!(
                            f,
                            "process {} died, or gave up, as it changed it in place",
                            by.pid
                        )?;
                        f.write_str(&begun_and_purpose(by.since, &by.what))?;
                    }
                    None => f.write_str("a process died as it changed it in place")?,
                }
                f.write_str(
                    "; each row has its old or its new values. Accept it as it is with repair(), \
                     or put it anew (replace=True), or delete it",
                )
            }
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
