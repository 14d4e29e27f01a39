//! Prepared queries: checked and compiled once, run as often as wanted.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use insitu_query::{Context, Plan, Progress, Scalar};

use crate::error::{Error, Result};
use crate::memory::ResultMemory;
use crate::programs::Program;
use crate::run::{self, Made, Name};
use crate::table::Table;
use crate::types;
use crate::version::Meta;

/// A compiled query. Cheap to clone; may be run from several threads at once. It keeps its table's
/// memory; the content it reads is what is there when it runs.
#[derive(Clone)]
pub struct Prepared {
    inner: Arc<Inner>,
}

struct Inner {
    table: Table,
    program: Arc<Program>,
}

/// How a prepared query is run.
#[derive(Clone, Copy, Default)]
pub struct RunOptions<'a> {
    /// Whether integer arithmetic that leaves its type is `Overflow`; else it wraps.
    pub checked: bool,
    /// Asked now and then on the calling thread; true cancels.
    pub interrupt: Option<&'a dyn Fn() -> bool>,
    /// Told how many rows are done.
    pub progress: Option<&'a Progress>,
}

impl Prepared {
    pub(crate) fn new(table: Table, plan: &Plan) -> Result<Prepared> {
        let program = table.region().shared.known.programs.get(plan, &table.seen().meta.query)?;
        Ok(Prepared { inner: Arc::new(Inner { table, program }) })
    }

    /// The table it was prepared on.
    pub fn table(&self) -> &Table {
        &self.inner.table
    }

    /// The columns of the result.
    ///
    /// # Errors
    /// `Unsupported` for columns that a query cannot produce.
    pub fn schema(&self) -> Result<SchemaRef> {
        let source = self.inner.table.schema();
        types::schema_to_arrow(self.inner.program.compiled.schema(), &source, |_| None)
    }

    /// How it is run, for people.
    pub fn explain(&self) -> String {
        let meta = &self.inner.table.seen().meta;
        let rows = usize::try_from(meta.layout.rows).unwrap_or(usize::MAX);
        self.inner.program.compiled.explain_for(meta.stats.as_deref(), rows)
    }

    /// Runs it once on its table, drops the result, and says how it was run: what
    /// [`Prepared::explain`] says, and of each stage the rows in and out, the time, and the bytes
    /// per second.
    ///
    /// # Errors
    /// Those of [`Prepared::run`].
    pub fn analyze(&self, params: &[(String, Scalar)], options: RunOptions<'_>) -> Result<String> {
        let params: Vec<(&str, Scalar)> =
            params.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let table = &self.inner.table;
        let interrupt = options.interrupt.unwrap_or(&|| false);
        let (version, _hold) = table.leased_while("query", interrupt)?;
        let memory = ResultMemory::new(&table.region().shared, false);
        let context = Context {
            memory: &memory,
            params: &params,
            checked: options.checked,
            interrupt,
            progress: options.progress,
        };
        Ok(self.inner.program.compiled.analyze(version.view()?, &context)?)
    }

    /// Runs it, on its table or on another of the same schema and region, with values for its
    /// parameters. The result has no name.
    ///
    /// # Errors
    /// `SchemaMismatch` for a table of another schema; `InvalidArgument` for a parameter without
    /// a value, or a value without a parameter; `RegionFull`, `CastFailed`, `Overflow`, `Cancelled`,
    /// `Stale`.
    pub fn run(
        &self,
        table: Option<&Table>,
        params: &[(String, Scalar)],
        options: RunOptions<'_>,
    ) -> Result<Table> {
        if params.is_empty() {
            return self.execute(table, &[], options, None);
        }
        let params: Vec<(&str, Scalar)> =
            params.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        self.execute(table, &params, options, None)
    }

    /// The same with names that are borrowed, as other languages hand them in.
    ///
    /// # Errors
    /// Those of [`Prepared::run`].
    pub fn run_with(
        &self,
        table: Option<&Table>,
        params: &[(&str, Scalar)],
        options: RunOptions<'_>,
    ) -> Result<Table> {
        self.execute(table, params, options, None)
    }

    pub(crate) fn execute(
        &self,
        table: Option<&Table>,
        params: &[(&str, Scalar)],
        options: RunOptions<'_>,
        name: Option<Name<'_>>,
    ) -> Result<Table> {
        let table = match table {
            Some(other) => {
                self.check_schema(other)?;
                other
            }
            None => &self.inner.table,
        };
        let shared = &table.region().shared;
        let interrupt = options.interrupt.unwrap_or(&|| false);
        // Held to the end of the run: nobody changes what is being read.
        let (version, hold) = table.leased_while("query", interrupt)?;
        let memory = ResultMemory::new(shared, name.is_some());
        let context = Context {
            memory: &memory,
            params,
            checked: options.checked,
            interrupt,
            progress: options.progress,
        };
        let output = self.inner.program.compiled.run(version.view()?, &context)?;
        let origins = run::origins(&output);
        let (schema, query) =
            self.inner.program.result_schema(&version.meta, &output.schema, origins)?;
        let Made { layout, keep, stats } =
            run::assemble(&version, hold, memory, output, interrupt)?;
        match name {
            Some(name) => {
                table.region().publish(name.name, schema, layout, stats, &keep, name.replace)
            }
            None => {
                let meta = Meta::of_query(schema, query, layout, stats);
                Ok(run::nameless(table.region(), meta, keep))
            }
        }
    }

    fn check_schema(&self, table: &Table) -> Result<()> {
        let (own, other) = (&self.inner.table.seen().meta, &table.seen().meta);
        if Arc::ptr_eq(own, other) || own.query == other.query {
            return Ok(());
        }
        let (own, other) = (own.query.fields(), other.query.fields());
        let difference = own.iter().zip(other).find(|(a, b)| a != b);
        let what = match difference {
            Some((a, b)) => format!(
                "the query was prepared for column {:?} of type {}, the table has {:?} of type {}",
                &*a.name, a.dtype, &*b.name, b.dtype
            ),
            None => format!(
                "the query was prepared for {} columns, the table has {}",
                own.len(),
                other.len()
            ),
        };
        Err(Error::SchemaMismatch(format!("{what}; prepare it for that table")))
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("table", &self.inner.table).finish()
    }
}
