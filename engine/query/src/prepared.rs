//! Compiled plans, and what a run of one is given.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::memory::{Memory, Output};
use crate::plan::Plan;
use crate::scalar::Scalar;
use crate::schema::Schema;
use crate::table::TableView;

/// How far a run has come, for progress bars. Rows count once per pass over them.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Nothing done of nothing.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Rows done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Rows to do, as far as is known: later passes add to it.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn expect(&self, rows: u64) {
        self.total.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, rows: u64) {
        self.done.fetch_add(rows, Ordering::Relaxed);
    }
}

/// What one run is given.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Lends memory for the result.
    pub memory: &'a dyn Memory,
    /// Values of the parameters.
    pub params: &'a [(&'a str, Scalar)],
    /// Whether integer arithmetic that leaves its type is `Overflow`; else it wraps.
    pub checked: bool,
    /// Asked on the caller's thread, at most every 50 ms; true cancels.
    pub interrupt: &'a dyn Fn() -> bool,
    /// Told how many rows are done.
    pub progress: Option<&'a Progress>,
}

impl<'a> Context<'a> {
    /// No parameters, unchecked, never interrupted.
    pub fn new(memory: &'a dyn Memory) -> Context<'a> {
        Context { memory, params: &[], checked: false, interrupt: &|| false, progress: None }
    }
}

/// A plan compiled against a schema, to be run on any table of that schema, as often as wanted.
#[derive(Debug)]
pub struct Prepared {
    source: Schema,
    output: Schema,
}

impl Prepared {
    /// Checks and compiles.
    ///
    /// # Errors
    /// Those of typing: unknown columns, types that do not go together, invalid plans, limits.
    pub fn compile(plan: &Plan, schema: &Schema) -> Result<Prepared> {
        Ok(Prepared { source: schema.clone(), output: plan.schema(schema)? })
    }

    /// The columns of the result.
    pub fn schema(&self) -> &Schema {
        &self.output
    }

    /// The columns of the source.
    pub fn source(&self) -> &Schema {
        &self.source
    }

    /// Runs on a table.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for a table of another schema, [`Error::CastFailed`],
    /// [`Error::Overflow`], [`Error::Cancelled`], those of memory, [`Error::InvalidData`].
    pub fn run(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<Output> {
        let _ = (table, cx);
        Err(Error::Unsupported("being written".into()))
    }

    /// Pipelines, tile programs, kernels, level and tile rows, for people.
    pub fn explain(&self) -> String {
        String::new()
    }
}
