//! Logical plans: a chain of steps over one source table.

use std::sync::Arc;

use crate::error::Result;
use crate::expr::Expr;
use crate::schema::Schema;

/// Plans stack at most this many steps.
pub const MAX_STEPS: usize = 512;

/// A logical plan.
#[derive(Clone, Debug)]
pub enum Plan {
    /// The source table.
    Scan,
    /// Rows for which all predicates hold, in order.
    Filter {
        /// The step before.
        input: Arc<Plan>,
        /// Boolean expressions; null does not select.
        predicates: Vec<Expr>,
    },
    /// New columns instead of the old ones. Reductions give one row.
    Select {
        /// The step before.
        input: Arc<Plan>,
        /// The columns.
        exprs: Vec<Expr>,
    },
    /// New columns beside the old ones; equal names replace.
    WithColumns {
        /// The step before.
        input: Arc<Plan>,
        /// The columns.
        exprs: Vec<Expr>,
    },
    /// One row per distinct combination of keys, in order of first appearance.
    Aggregate {
        /// The step before.
        input: Arc<Plan>,
        /// What groups; null is a group.
        keys: Vec<Expr>,
        /// What is computed per group.
        aggs: Vec<Expr>,
    },
    /// All rows in another order; stable, NaN is the largest value.
    Sort {
        /// The step before.
        input: Arc<Plan>,
        /// What is ordered by, the first key first.
        keys: Vec<Expr>,
        /// Per key, or one for all.
        descending: Vec<bool>,
        /// Whether nulls come last (also when descending); else first.
        nulls_last: bool,
    },
    /// Some consecutive rows.
    Slice {
        /// The step before.
        input: Arc<Plan>,
        /// The first row; negative counts from the end.
        offset: i64,
        /// How many; none for all that follow.
        len: Option<u64>,
    },
}

impl Plan {
    /// The step before; none for [`Plan::Scan`].
    pub fn input(&self) -> Option<&Arc<Plan>> {
        match self {
            Plan::Scan => None,
            Plan::Filter { input, .. }
            | Plan::Select { input, .. }
            | Plan::WithColumns { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::Sort { input, .. }
            | Plan::Slice { input, .. } => Some(input),
        }
    }

    /// The columns that the plan gives over a source of that schema: a full type check.
    ///
    /// # Errors
    /// Those of [`crate::Prepared::compile`].
    pub fn schema(&self, source: &Schema) -> Result<Schema> {
        crate::prepared::schema_of(self, source)
    }
}
