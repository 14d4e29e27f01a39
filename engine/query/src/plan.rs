//! Logical plans: a chain of steps over one source table.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;

use crate::error::Result;
use crate::expr::{Expr, ExprKind};
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

    /// A hash of the whole plan; equal for what [`Plan::is_same`]. Not the same in other processes'
    /// versions of the engine: it is for caches, not for keeping.
    pub fn fingerprint(&self) -> u64 {
        let mut state = FxHasher::default();
        for step in self.steps() {
            std::mem::discriminant(step).hash(&mut state);
            for list in step.exprs() {
                list.len().hash(&mut state);
                list.iter().for_each(|e| state.write_u64(e.fingerprint()));
            }
            match step {
                Plan::Sort { descending, nulls_last, .. } => {
                    (descending, nulls_last).hash(&mut state);
                }
                Plan::Slice { offset, len, .. } => (offset, len).hash(&mut state),
                _ => {}
            }
        }
        state.finish()
    }

    /// Whether both plans have the same steps of the same expressions.
    pub fn is_same(&self, other: &Plan) -> bool {
        let (mut a, mut b) = (self.steps(), other.steps());
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a.is_like(b) => {}
                _ => return false,
            }
        }
    }

    /// The steps, the last one first.
    fn steps(&self) -> impl Iterator<Item = &Plan> {
        std::iter::successors(Some(self), |step| step.input().map(|input| &**input))
    }

    fn exprs(&self) -> [&[Expr]; 2] {
        match self {
            Plan::Scan | Plan::Slice { .. } => [&[], &[]],
            Plan::Filter { predicates: exprs, .. }
            | Plan::Select { exprs, .. }
            | Plan::WithColumns { exprs, .. }
            | Plan::Sort { keys: exprs, .. } => [exprs, &[]],
            Plan::Aggregate { keys, aggs, .. } => [keys, aggs],
        }
    }

    /// Whether both are the same step, whatever is before.
    fn is_like(&self, other: &Plan) -> bool {
        let same = |a: &[Expr], b: &[Expr]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
        };
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.exprs().iter().zip(other.exprs()).all(|(a, b)| same(a, b))
            && match (self, other) {
                (
                    Plan::Sort { descending: a, nulls_last: m, .. },
                    Plan::Sort { descending: b, nulls_last: n, .. },
                ) => a == b && m == n,
                (Plan::Slice { offset: a, len: m, .. }, Plan::Slice { offset: b, len: n, .. }) => {
                    a == b && m == n
                }
                _ => true,
            }
    }

    /// The names of its parameters, sorted.
    pub fn params(&self) -> BTreeSet<Arc<str>> {
        let mut names = BTreeSet::new();
        let mut left: Vec<&Expr> = self.steps().flat_map(Plan::exprs).flatten().collect();
        while let Some(expr) = left.pop() {
            if let ExprKind::Param(name) = expr.kind() {
                names.insert(name.clone());
            }
            left.extend(expr.kind().children());
        }
        names
    }

    /// The columns that the plan gives over a source of that schema: a full type check.
    ///
    /// # Errors
    /// Those of [`crate::Prepared::compile`].
    pub fn schema(&self, source: &Schema) -> Result<Schema> {
        crate::prepared::schema_of(self, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataType;

    fn plans() -> Vec<Plan> {
        let scan = || Arc::new(Plan::Scan);
        let (a, b) = (|| Expr::column("a"), || Expr::column("b"));
        let filter = |e: Expr| Plan::Filter { input: scan(), predicates: vec![e] };
        let sort = |descending: Vec<bool>, nulls_last| {
            let keys = vec![a()];
            Plan::Sort { input: scan(), keys, descending, nulls_last }
        };
        let slice = |offset, len| Plan::Slice { input: scan(), offset, len };
        let aggregate =
            |keys: Vec<Expr>, aggs: Vec<Expr>| Plan::Aggregate { input: scan(), keys, aggs };
        vec![
            Plan::Scan,
            filter(a().gt(1)),
            filter(a().gt(2)),
            filter(a().gt(1.0)),
            filter(a().gt(0.0)),
            filter(a().gt(-0.0)),
            filter(a().ge(1)),
            filter(b().gt(1)),
            filter(a().gt(Expr::param("x"))),
            filter(a().gt(Expr::param("y"))),
            filter(a().is_in(vec![1.into()])),
            filter(a().is_in(vec![2.into()])),
            filter(a().cast(DataType::Int8, true).gt(1)),
            filter(a().cast(DataType::Int8, false).gt(1)),
            filter(a().cast(DataType::Int16, true).gt(1)),
            filter(Expr::when(a().gt(1), a(), b()).gt(1)),
            filter(Expr::when(a().gt(1), b(), a()).gt(1)),
            Plan::Filter { input: scan(), predicates: vec![a().gt(1), b().gt(1)] },
            Plan::Filter { input: Arc::new(filter(a().gt(1))), predicates: vec![b().gt(1)] },
            Plan::Select { input: scan(), exprs: vec![a()] },
            Plan::Select { input: scan(), exprs: vec![a().alias("b")] },
            Plan::Select { input: scan(), exprs: vec![a(), b()] },
            Plan::Select { input: scan(), exprs: vec![b(), a()] },
            Plan::WithColumns { input: scan(), exprs: vec![a()] },
            aggregate(vec![a()], vec![b().sum()]),
            aggregate(vec![a()], vec![b().min()]),
            aggregate(vec![a(), b().sum()], vec![]),
            sort(vec![false], true),
            sort(vec![true], true),
            sort(vec![false], false),
            slice(0, None),
            slice(1, None),
            slice(0, Some(0)),
        ]
    }

    #[test]
    fn plans_are_the_same_only_if_all_is() {
        for (i, a) in plans().iter().enumerate() {
            for (j, b) in plans().iter().enumerate() {
                assert_eq!(a.is_same(b), i == j, "{a:?} and {b:?}");
                assert_eq!(a.fingerprint() == b.fingerprint(), i == j, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn what_was_too_large_is_nothing_else() {
        let deep = |name: &str| (0..600).fold(Expr::column(name), |e, _| e.abs());
        let plan = |e| Plan::Select { input: Arc::new(Plan::Scan), exprs: vec![e] };
        assert!(!plan(deep("a")).is_same(&plan(deep("a"))));
    }
}
