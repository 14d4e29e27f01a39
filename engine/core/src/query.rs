//! Queries: a table and what is to be computed from it. Nothing runs before `collect`.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use insitu_query::{Expr, Plan, Progress, Scalar};

use crate::error::Result;
use crate::prepared::{Prepared, RunOptions};
use crate::run::Name;
use crate::table::Table;
use crate::{types, wire};

/// A query over one table. Cheap to clone; every step gives a new query. Steps are not checked as
/// they are added: [`Query::schema`], [`Query::prepare`] and [`Query::collect`] check them all.
#[derive(Clone, Debug)]
pub struct Query {
    table: Table,
    plan: Arc<Plan>,
}

/// How a query is collected.
#[derive(Clone, Copy, Default)]
pub struct CollectOptions<'a> {
    /// Whether a table of the result's name is replaced; if not, it is `TableExists`.
    pub replace: bool,
    /// Whether integer arithmetic that leaves its type is `Overflow`; else it wraps.
    pub checked: bool,
    /// Asked now and then on the calling thread; true cancels.
    pub interrupt: Option<&'a dyn Fn() -> bool>,
    /// Told how many rows are done.
    pub progress: Option<&'a Progress>,
}

impl Query {
    /// A plan over a table.
    pub fn new(table: Table, plan: Plan) -> Query {
        Query { table, plan: Arc::new(plan) }
    }

    /// A plan that came as an `insitu.v1.Plan` message.
    ///
    /// # Errors
    /// `InvalidPlan`, `LimitExceeded`, `InvalidArgument`.
    pub fn from_wire(table: Table, message: &[u8]) -> Result<Query> {
        Ok(Query::new(table, wire::decode(message)?))
    }

    /// The plan as an `insitu.v1.Plan` message.
    ///
    /// # Errors
    /// `LimitExceeded`, `Unsupported`.
    pub fn to_wire(&self) -> Result<Vec<u8>> {
        wire::encode(&self.plan)
    }

    /// The source table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn then(&self, step: impl FnOnce(Arc<Plan>) -> Plan) -> Query {
        Query { table: self.table.clone(), plan: Arc::new(step(self.plan.clone())) }
    }

    /// Keeps the rows for which all predicates hold.
    pub fn filter(&self, predicates: Vec<Expr>) -> Query {
        self.then(|input| Plan::Filter { input, predicates })
    }

    /// New columns instead of the old ones.
    pub fn select(&self, exprs: Vec<Expr>) -> Query {
        self.then(|input| Plan::Select { input, exprs })
    }

    /// New columns beside the old ones.
    pub fn with_columns(&self, exprs: Vec<Expr>) -> Query {
        self.then(|input| Plan::WithColumns { input, exprs })
    }

    /// One row per distinct combination of the keys, with the aggregates.
    pub fn group_by(&self, keys: Vec<Expr>, aggs: Vec<Expr>) -> Query {
        self.then(|input| Plan::Aggregate { input, keys, aggs })
    }

    /// Another order: per key, or one for all, whether the largest come first.
    pub fn sort(&self, keys: Vec<Expr>, descending: Vec<bool>, nulls_last: bool) -> Query {
        self.then(|input| Plan::Sort { input, keys, descending, nulls_last })
    }

    /// Some consecutive rows; a negative offset counts from the end, no length takes the rest.
    pub fn slice(&self, offset: i64, len: Option<u64>) -> Query {
        self.then(|input| Plan::Slice { input, offset, len })
    }

    /// The columns of the result.
    ///
    /// # Errors
    /// Those of typing: `UnknownColumn`, `TypeMismatch`, `InvalidPlan`, `LimitExceeded`.
    pub fn schema(&self) -> Result<SchemaRef> {
        let meta = &self.table.seen().meta;
        let schema = self.plan.schema(&meta.query)?;
        types::schema_to_arrow(&schema, &meta.arrow, |_| None)
    }

    /// Checks and compiles, to run more than once.
    ///
    /// # Errors
    /// Those of [`Query::schema`].
    pub fn prepare(&self) -> Result<Prepared> {
        self.table.region().shared.check_open()?;
        Prepared::new(self.table.clone(), &self.plan)
    }

    /// Runs the query. The result lies in the region: under a name for all, or as this process's
    /// own.
    ///
    /// # Errors
    /// Those of [`Query::schema`]; `TableExists`, `RegionFull`, `CastFailed`, `Overflow`,
    /// `Cancelled`.
    pub fn collect(&self, name: Option<&str>, options: CollectOptions<'_>) -> Result<Table> {
        if let Some(name) = name {
            self.table.region().refuse_taken(name, options.replace)?;
        }
        let run = RunOptions {
            checked: options.checked,
            interrupt: options.interrupt,
            progress: options.progress,
        };
        let name = name.map(|name| Name { name, replace: options.replace });
        self.prepare()?.execute(None, &[] as &[(&str, Scalar)], run, name)
    }

    /// How it would be run, for people.
    ///
    /// # Errors
    /// Those of [`Query::schema`].
    pub fn explain(&self) -> Result<String> {
        Ok(self.prepare()?.explain())
    }

    /// Runs it once and says how it was run; see [`Prepared::analyze`].
    ///
    /// # Errors
    /// Those of [`Query::collect`].
    pub fn analyze(&self, options: RunOptions<'_>) -> Result<String> {
        self.prepare()?.analyze(&[], options)
    }
}
