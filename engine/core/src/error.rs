//! The one table of errors: a number, a name and a sentence for each, and the Rust type that
//! carries them. Every face of the engine (Rust, Python, C, later Protobuf) makes its own
//! errors from this table, so that one failure has one name everywhere.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Hands the table of errors to a macro: `error_table!(callback)` expands to
/// `callback! { number Name "sentence"; ... }`. Numbers never change and are never used again.
#[macro_export]
macro_rules! error_table {
    ($($callback:tt)+) => {
        $($callback)+! {
            1 RegionFull "The region, or what backs it, has no room for what was asked.";
            2 RegionNotFound "There is no region of that name, path or descriptor.";
            3 RegionExists "A region of that name or path exists already.";
            4 RegionCorrupt "The file or segment is not a region, is truncated, or contradicts itself.";
            5 VersionMismatch "The region was made by another version of the format.";
            6 PermissionDenied "The operating system refuses access to the region.";
            7 ReadOnly "The region was opened for reading only.";
            8 SessionLimit "As many processes as the region has room for are attached to it.";
            9 TableLimit "The region holds as many tables as it was created for.";
            10 TableNotFound "The region has no table of that name.";
            11 TableExists "The region has a table of that name already.";
            12 LeaseHeld "Others read the table and keep its content from being changed.";
            13 Timeout "What was waited for did not happen in time.";
            14 Poisoned "A process died while it changed the table in place.";
            15 Stale "The region is closed, or the table is gone.";
            16 InvalidData "Data breaks the rules of the Arrow format.";
            17 SchemaMismatch "Columns or types differ from those expected.";
            18 ShapeMismatch "Lengths or counts differ from those expected.";
            19 TypeMismatch "An operation does not take values of that type.";
            20 UnknownColumn "The table has no column of that name.";
            21 InvalidPlan "The query makes no sense, whatever the data.";
            22 InvalidArgument "An argument has a value it must not have.";
            23 LimitExceeded "Something is larger or deeper than the engine allows.";
            24 CastFailed "A value does not fit the type it was cast to.";
            25 Overflow "The result of an integer operation does not fit its type.";
            26 NotZeroCopy "The data cannot be handed out without a copy.";
            27 OutOfMemory "The process has no memory for an intermediate result.";
            28 Unsupported "The engine does not do this.";
            29 Cancelled "The operation was interrupted.";
            30 Io "The operating system reported an error.";
        }
    };
}

macro_rules! codes {
    ($($number:literal $name:ident $sentence:literal;)*) => {
        /// Which error: a row of the one table of errors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum ErrorCode {
            $(#[doc = $sentence] $name = $number,)*
        }

        impl ErrorCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The number that stands for it on the wire and in C. Never 0.
            pub fn number(self) -> u32 {
                self as u32
            }

            /// Its name: that of the Rust variant and of the Python exception.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => stringify!($name),)*
                }
            }

            /// What it means, in a sentence.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $sentence,)*
                }
            }
        }
    };
}

error_table!(codes);

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What went wrong. The message says what was asked, what is the case, and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// [`ErrorCode::RegionFull`].
    RegionFull {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The region's capacity, in bytes.
        capacity: u64,
        /// What is exhausted: capacity, /dev/shm, a cgroup, pins, ...
        cause: String,
        /// The sentence that says so, and what to do.
        text: String,
    },
    /// [`ErrorCode::RegionNotFound`].
    RegionNotFound(String),
    /// [`ErrorCode::RegionExists`].
    RegionExists(String),
    /// [`ErrorCode::RegionCorrupt`].
    RegionCorrupt {
        /// What contradicts what.
        what: String,
        /// Where in the region, in bytes from its base; 0 if that is not known.
        offset: u64,
    },
    /// [`ErrorCode::VersionMismatch`].
    VersionMismatch {
        /// The format version of the region.
        found: u32,
        /// The format version that this build reads and writes.
        expected: u32,
    },
    /// [`ErrorCode::PermissionDenied`].
    PermissionDenied(String),
    /// [`ErrorCode::ReadOnly`].
    ReadOnly(String),
    /// [`ErrorCode::SessionLimit`].
    SessionLimit(String),
    /// [`ErrorCode::TableLimit`].
    TableLimit(String),
    /// [`ErrorCode::TableNotFound`].
    TableNotFound {
        /// The name that was asked for.
        name: String,
        /// The table whose name is closest, if one is close.
        nearest: Option<String>,
    },
    /// [`ErrorCode::TableExists`].
    TableExists {
        /// The name that is taken.
        name: String,
    },
    /// [`ErrorCode::LeaseHeld`].
    LeaseHeld {
        /// The table's name.
        name: String,
        /// Who holds it, as far as is known.
        holders: Vec<insitu_region::Holder>,
        /// The sentence that names them all.
        text: String,
    },
    /// [`ErrorCode::Timeout`].
    Timeout(String),
    /// [`ErrorCode::Poisoned`].
    Poisoned {
        /// The table's name.
        name: String,
        /// Who was changing it, since when and from where, as far as it is known.
        by: Option<insitu_region::Holder>,
        /// The sentence that says so, and the ways out.
        text: String,
    },
    /// [`ErrorCode::Stale`].
    Stale(String),
    /// [`ErrorCode::InvalidData`]; the text names the column, and the row if it is known.
    InvalidData(String),
    /// [`ErrorCode::SchemaMismatch`].
    SchemaMismatch(String),
    /// [`ErrorCode::ShapeMismatch`].
    ShapeMismatch(String),
    /// [`ErrorCode::TypeMismatch`].
    TypeMismatch(String),
    /// [`ErrorCode::UnknownColumn`].
    UnknownColumn {
        /// The name that was asked for.
        name: String,
        /// The column whose name is closest, if one is close.
        nearest: Option<String>,
    },
    /// [`ErrorCode::InvalidPlan`].
    InvalidPlan(String),
    /// [`ErrorCode::InvalidArgument`].
    InvalidArgument(String),
    /// [`ErrorCode::LimitExceeded`].
    LimitExceeded(String),
    /// [`ErrorCode::CastFailed`].
    CastFailed {
        /// The column, or the expression, that was cast.
        column: String,
        /// The first row that does not fit, from 0 in the input of the step that casts.
        row: u64,
        /// The value found there.
        value: String,
        /// The type it was cast to.
        to: String,
    },
    /// [`ErrorCode::Overflow`].
    Overflow(String),
    /// [`ErrorCode::NotZeroCopy`].
    NotZeroCopy(String),
    /// [`ErrorCode::OutOfMemory`].
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// [`ErrorCode::Unsupported`].
    Unsupported(String),
    /// [`ErrorCode::Cancelled`].
    Cancelled,
    /// [`ErrorCode::Io`].
    Io {
        /// What was being done.
        context: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Its row of the one table of errors.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::RegionFull { .. } => ErrorCode::RegionFull,
            Error::RegionNotFound(_) => ErrorCode::RegionNotFound,
            Error::RegionExists(_) => ErrorCode::RegionExists,
            Error::RegionCorrupt { .. } => ErrorCode::RegionCorrupt,
            Error::VersionMismatch { .. } => ErrorCode::VersionMismatch,
            Error::PermissionDenied(_) => ErrorCode::PermissionDenied,
            Error::ReadOnly(_) => ErrorCode::ReadOnly,
            Error::SessionLimit(_) => ErrorCode::SessionLimit,
            Error::TableLimit(_) => ErrorCode::TableLimit,
            Error::TableNotFound { .. } => ErrorCode::TableNotFound,
            Error::TableExists { .. } => ErrorCode::TableExists,
            Error::LeaseHeld { .. } => ErrorCode::LeaseHeld,
            Error::Timeout(_) => ErrorCode::Timeout,
            Error::Poisoned { .. } => ErrorCode::Poisoned,
            Error::Stale(_) => ErrorCode::Stale,
            Error::InvalidData(_) => ErrorCode::InvalidData,
            Error::SchemaMismatch(_) => ErrorCode::SchemaMismatch,
            Error::ShapeMismatch(_) => ErrorCode::ShapeMismatch,
            Error::TypeMismatch(_) => ErrorCode::TypeMismatch,
            Error::UnknownColumn { .. } => ErrorCode::UnknownColumn,
            Error::InvalidPlan(_) => ErrorCode::InvalidPlan,
            Error::InvalidArgument(_) => ErrorCode::InvalidArgument,
            Error::LimitExceeded(_) => ErrorCode::LimitExceeded,
            Error::CastFailed { .. } => ErrorCode::CastFailed,
            Error::Overflow(_) => ErrorCode::Overflow,
            Error::NotZeroCopy(_) => ErrorCode::NotZeroCopy,
            Error::OutOfMemory { .. } => ErrorCode::OutOfMemory,
            Error::Unsupported(_) => ErrorCode::Unsupported,
            Error::Cancelled => ErrorCode::Cancelled,
            Error::Io { .. } => ErrorCode::Io,
        }
    }

    /// Damage found in what a region says.
    pub(crate) fn corrupt(what: impl Into<String>) -> Error {
        Error::RegionCorrupt { what: what.into(), offset: 0 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::RegionCorrupt { what, offset: 0 } => write!(f, "not a healthy region: {what}"),
            Error::RegionCorrupt { what, offset } => {
                write!(f, "the region is damaged at byte {offset}: {what}")
            }
            Error::VersionMismatch { found, expected } => write!(
                f,
                "the region has format version {found}, this build reads version {expected}; \
                 open it with the version of insitu that made it"
            ),
            Error::TableNotFound { name, nearest: Some(nearest) } => {
                write!(f, "no table named {name:?}; did you mean {nearest:?}?")
            }
            Error::TableNotFound { name, nearest: None } => write!(f, "no table named {name:?}"),
            Error::TableExists { name } => write!(
                f,
                "a table named {name:?} exists already; pass replace=True, or choose another name"
            ),
            Error::UnknownColumn { name, nearest: Some(nearest) } => {
                write!(f, "no column named {name:?}; did you mean {nearest:?}?")
            }
            Error::UnknownColumn { name, nearest: None } => write!(f, "no column named {name:?}"),
            Error::CastFailed { column, row, value, to } => write!(
                f,
                "cannot cast {column} to {to}: row {row} is {value}; with strict=False it is null"
            ),
            Error::OutOfMemory { bytes } => {
                write!(f, "cannot allocate {bytes} bytes for an intermediate result")
            }
            Error::Cancelled => f.write_str("the operation was interrupted"),
            Error::Io { context, source } => write!(f, "{context}: {source}"),
            Error::RegionNotFound(text)
            | Error::RegionExists(text)
            | Error::PermissionDenied(text)
            | Error::ReadOnly(text)
            | Error::SessionLimit(text)
            | Error::TableLimit(text)
            | Error::RegionFull { text, .. }
            | Error::LeaseHeld { text, .. }
            | Error::Timeout(text)
            | Error::Poisoned { text, .. }
            | Error::Stale(text)
            | Error::InvalidData(text)
            | Error::SchemaMismatch(text)
            | Error::ShapeMismatch(text)
            | Error::TypeMismatch(text)
            | Error::InvalidPlan(text)
            | Error::InvalidArgument(text)
            | Error::LimitExceeded(text)
            | Error::Overflow(text)
            | Error::NotZeroCopy(text)
            | Error::Unsupported(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<insitu_query::Error> for Error {
    fn from(error: insitu_query::Error) -> Error {
        use insitu_query::Error as Query;
        match error {
            Query::UnknownColumn { name, nearest } => Error::UnknownColumn { name, nearest },
            Query::TypeMismatch(text) => Error::TypeMismatch(text),
            Query::InvalidPlan(text) => Error::InvalidPlan(text),
            Query::InvalidArgument(text) => Error::InvalidArgument(text),
            Query::ShapeMismatch(text) => Error::ShapeMismatch(text),
            Query::LimitExceeded(text) => Error::LimitExceeded(text),
            Query::CastFailed { column, row, value, to } => {
                Error::CastFailed { column, row, value, to }
            }
            Query::Overflow(text) => Error::Overflow(text),
            Query::OutOfMemory { bytes } => Error::OutOfMemory { bytes },
            // What core's own memory said passes through unchanged.
            Query::Memory(error) => match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(error) => Error::Io {
                    context: "allocating memory for a result".into(),
                    source: std::io::Error::other(error),
                },
            },
            Query::Unsupported(text) => Error::Unsupported(text),
            Query::Cancelled => Error::Cancelled,
            Query::InvalidData(text) => Error::InvalidData(text),
            other => Error::Unsupported(other.to_string()),
        }
    }
}

impl From<insitu_region::Error> for Error {
    fn from(error: insitu_region::Error) -> Error {
        use insitu_region::Error as Region;
        let text = error.to_string();
        match error {
            Region::RegionFull { needed, free, capacity, cause, .. } => {
                Error::RegionFull { needed, free, capacity, cause: cause.to_string(), text }
            }
            Region::RegionNotFound { .. } => Error::RegionNotFound(text),
            Region::RegionExists { .. } => Error::RegionExists(text),
            Region::RegionCorrupt { what, offset } => Error::RegionCorrupt { what, offset },
            Region::VersionMismatch { found, expected } => {
                Error::VersionMismatch { found, expected }
            }
            Region::PermissionDenied { .. } => Error::PermissionDenied(text),
            Region::ReadOnly => Error::ReadOnly(text),
            Region::SessionLimit { .. } => Error::SessionLimit(text),
            Region::TableLimit { .. } => Error::TableLimit(text),
            Region::TableNotFound { name, nearest } => Error::TableNotFound { name, nearest },
            Region::TableExists { name } => Error::TableExists { name },
            Region::LeaseHeld { name, holders } => Error::LeaseHeld { name, holders, text },
            Region::Cancelled => Error::Cancelled,
            Region::Timeout { .. } => Error::Timeout(text),
            Region::Poisoned { name, by } => Error::Poisoned { name, by, text },
            Region::Stale(_) => Error::Stale(text),
            Region::InvalidArgument(_) => Error::InvalidArgument(text),
            Region::Unsupported(_) => Error::Unsupported(text),
            Region::Io { context, source } => Error::Io { context, source },
            _ => Error::Unsupported(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        let numbers: HashSet<u32> = ErrorCode::ALL.iter().map(|c| c.number()).collect();
        let names: HashSet<&str> = ErrorCode::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(!numbers.contains(&0));
    }

    #[test]
    fn an_error_of_our_own_comes_back_through_a_query() {
        let (cause, text) = ("capacity".into(), String::new());
        let full = Error::RegionFull { needed: 3, free: 2, capacity: 1, cause, text };
        let error = Error::from(insitu_query::Error::Memory(Box::new(full)));
        assert!(matches!(error, Error::RegionFull { needed: 3, free: 2, capacity: 1, .. }));
    }
}
