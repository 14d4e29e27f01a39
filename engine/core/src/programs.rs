//! The compiled queries that this process has lately run on a region. Whoever builds the same query
//! again, as programs do in a loop, gets the program that is there.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use insitu_query::{Plan, Schema};
use insitu_region::ForkMutex;

use crate::error::Result;
use crate::types;
use crate::version::Meta;

/// Programs that are kept; the one that was not wanted for longest goes first.
const KEPT: usize = 64;

/// Programs, the one that was wanted last in front.
#[derive(Default)]
pub(crate) struct Programs(ForkMutex<Vec<(u64, Arc<Program>)>>);

/// A compiled query, whatever table of its schema it runs on.
pub(crate) struct Program {
    plan: Plan,
    pub(crate) compiled: insitu_query::Prepared,
    /// The Arrow schema of the last result.
    schema: ForkMutex<Option<LastSchema>>,
}

/// The Arrow schema of a result, and what it depends on: parameters of another type give columns of
/// another type.
struct LastSchema {
    columns: Schema,
    origins: Vec<Option<usize>>,
    source: Arc<Meta>,
    schema: SchemaRef,
    query: Schema,
}

impl Programs {
    /// The program of a plan over tables of a schema: a known one, or one that is compiled now.
    ///
    /// # Errors
    /// Those of [`insitu_query::Prepared::compile`].
    pub(crate) fn get(&self, plan: &Plan, source: &Schema) -> Result<Arc<Program>> {
        let fingerprint = plan.fingerprint();
        if let Some(known) = self.find(fingerprint, plan, source) {
            return Ok(known);
        }
        let compiled = insitu_query::Prepared::compile(plan, source)?;
        let made = Program { plan: plan.clone(), compiled, schema: ForkMutex::default() };
        let made = Arc::new(made);
        let mut kept = self.0.lock();
        let surplus = if kept.len() >= KEPT { kept.pop() } else { None };
        kept.insert(0, (fingerprint, made.clone()));
        drop(kept);
        // It may be the last to hold much: not under the lock.
        drop(surplus);
        Ok(made)
    }

    fn find(&self, fingerprint: u64, plan: &Plan, source: &Schema) -> Option<Arc<Program>> {
        let mut kept = self.0.lock();
        let is_it = |(known, program): &(u64, Arc<Program>)| {
            *known == fingerprint
                && program.compiled.source() == source
                && program.plan.is_same(plan)
        };
        let at = kept.iter().position(is_it)?;
        if let Some(upto) = kept.get_mut(..=at) {
            upto.rotate_right(1);
        }
        kept.first().map(|(_, program)| program.clone())
    }
}

impl Program {
    /// A result's Arrow schema, and what the engine makes of it; the last ones, if nothing they
    /// depend on has changed. `origins` says which columns are the source's own.
    ///
    /// # Errors
    /// `Unsupported` for columns that a query cannot produce.
    pub(crate) fn result_schema(
        &self,
        source: &Arc<Meta>,
        columns: &Schema,
        origins: Vec<Option<usize>>,
    ) -> Result<(SchemaRef, Schema)> {
        let mut last = self.schema.lock();
        if let Some(last) = &*last
            && last.origins == origins
            && last.columns == *columns
            && Arc::ptr_eq(&last.source, source)
        {
            return Ok((last.schema.clone(), last.query.clone()));
        }
        let schema = types::schema_to_arrow(columns, &source.arrow, |index| {
            origins.get(index).copied().flatten()
        })?;
        let (columns, source) = (columns.clone(), source.clone());
        let query = types::schema_from_arrow(&schema);
        let made = (schema.clone(), query.clone());
        *last = Some(LastSchema { columns, origins, source, schema, query });
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insitu_query::{DataType, Expr, Field};

    fn plan(limit: i64) -> Plan {
        let predicates = vec![Expr::column("a").gt(limit)];
        Plan::Filter { input: Arc::new(Plan::Scan), predicates }
    }

    fn schema(dtype: DataType) -> Schema {
        Schema::new(vec![Field::new("a", dtype, true)])
    }

    #[test]
    fn an_equal_query_finds_the_program_of_the_first() {
        let programs = Programs::default();
        let of = |limit, dtype| programs.get(&plan(limit), &schema(dtype)).unwrap();
        let first = of(1, DataType::Int8);
        assert!(Arc::ptr_eq(&first, &of(1, DataType::Int8)));
        assert!(!Arc::ptr_eq(&first, &of(2, DataType::Int8)));
        assert!(!Arc::ptr_eq(&first, &of(1, DataType::Int16)));
        assert!(Arc::ptr_eq(&first, &of(1, DataType::Int8)));
        assert!(programs.get(&plan(1), &schema(DataType::Utf8)).is_err());
    }

    #[test]
    fn what_was_not_wanted_for_longest_goes_first() {
        let programs = Programs::default();
        let of = |limit| programs.get(&plan(limit), &schema(DataType::Int8)).unwrap();
        let (wanted, forgotten) = (of(-1), of(-2));
        for limit in 0..200 {
            of(limit);
            assert!(Arc::ptr_eq(&wanted, &of(-1)));
        }
        assert!(!Arc::ptr_eq(&forgotten, &of(-2)));
        assert_eq!(programs.0.lock().len(), KEPT);
    }
}
