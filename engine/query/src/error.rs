//! What can go wrong in a query, as one narrow enum. Every message says what was asked, what is
//! the case, and what to do.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed query. The variants match the project's one table of error codes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A name that is no column of the table.
    UnknownColumn {
        /// The name that was asked for.
        name: String,
        /// The column whose name is closest, if one is close.
        nearest: Option<String>,
    },
    /// Types that do not go together; the text names the columns and the types.
    TypeMismatch(String),
    /// A plan that makes no sense whatever the types: duplicate names, nested aggregates, ...
    InvalidPlan(String),
    /// An argument out of its range, an unknown function, a parameter without a value.
    InvalidArgument(String),
    /// Lengths that must agree and do not.
    ShapeMismatch(String),
    /// A limit of depth, size or count was passed.
    LimitExceeded(String),
    /// A strict cast met a value that the target type cannot hold.
    CastFailed {
        /// The column, or the expression, that was cast.
        column: String,
        /// The first failing row, counted from 0 in the input of the step that casts.
        row: u64,
        /// The value found there.
        value: String,
        /// The target type.
        to: String,
    },
    /// Integer arithmetic left its type (with `checked`), or an integer sum does not fit.
    Overflow(String),
    /// The process could not get memory for an intermediate result.
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// [`crate::Memory::allocate`] failed; its own error is passed through.
    Memory(Box<dyn std::error::Error + Send + Sync>),
    /// Not there (yet); the text says what to do instead.
    Unsupported(String),
    /// The interrupt function asked to stop.
    Cancelled,
    /// Column data that breaks Arrow's rules, such as string offsets out of bounds.
    InvalidData(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownColumn { name, nearest: Some(n) } => {
                write!(f, "no column named {name:?}; did you mean {n:?}?")
            }
            Error::UnknownColumn { name, nearest: None } => write!(f, "no column named {name:?}"),
            Error::TypeMismatch(s)
            | Error::InvalidPlan(s)
            | Error::InvalidArgument(s)
            | Error::ShapeMismatch(s)
            | Error::LimitExceeded(s)
            | Error::Overflow(s)
            | Error::Unsupported(s)
            | Error::InvalidData(s) => f.write_str(s),
            Error::CastFailed { column, row, value, to } => write!(
                f,
                "cannot cast {column} to {to}: row {row} is {value}; with strict=False it is null"
            ),
            Error::OutOfMemory { bytes } => {
                write!(f, "cannot allocate {bytes} bytes for an intermediate result")
            }
            Error::Memory(e) => write!(f, "{e}"),
            Error::Cancelled => f.write_str("the query was cancelled"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Memory(e) => Some(e.as_ref()),
            _ => None,
        }
    }
}
