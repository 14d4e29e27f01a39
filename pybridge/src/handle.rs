//! What a handle stands for, or why it stands for nothing in this process.
//!
//! Unpickling never raises for what has become of a table or a region meanwhile: it happens in the
//! midst of pools and executors, which lose the task, or hang, if it does. The handle says it when it
//! is used.

use pyo3::prelude::*;

use crate::errors;
use crate::pickle::Sent;

/// What a handle stands for.
pub enum Handle<T> {
    /// It is there.
    Here(T),
    /// It was sent here, and cannot be had.
    Lost(Box<Lost>),
}

/// What was sent, and what its users are told.
pub struct Lost {
    pub sent: Sent,
    pub error: insitu::Error,
}

impl<T> Handle<T> {
    /// What it stands for; raises why there is nothing.
    #[inline]
    pub fn here(&self, py: Python<'_>) -> PyResult<&T> {
        match self {
            Handle::Here(thing) => Ok(thing),
            Handle::Lost(lost) => Err(errors::raised(py, &lost.error)),
        }
    }

    /// What was received, as a handle.
    pub fn received(sent: Sent, found: Result<T, insitu::Error>) -> Self {
        match found {
            Ok(thing) => Handle::Here(thing),
            Err(error) => Handle::Lost(Box::new(Lost { sent, error })),
        }
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, which cannot be used: {}", self.sent, self.error)
    }
}
