//! Compiled plans, and what a run of one is given.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use insitu_kernels::level::Level;
use insitu_kernels::strings::LiteralSet;

use crate::compile::graph::Graph;
use crate::compile::planner;
use crate::compile::program;
use crate::compile::stage::{Kind, Options, Stage};
use crate::error::{Error, Result};
use crate::exec::run::{self, Compiled};
use crate::exec::{group, map, reduce, scan};
use crate::memory::{Memory, Output};
use crate::plan::Plan;
use crate::scalar::Scalar;
use crate::schema::{Field, Schema};
use crate::table::{ColumnStats, TableView};
use crate::typing::Class;

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

/// The stages of a plan, compiled for a table with or without nulls and for given parameters.
pub(crate) struct Executable {
    pub(crate) stages: Vec<Compiled>,
    pub(crate) schema: Schema,
}

impl Executable {
    fn new(plan: &Plan, schema: &Schema, options: &Options<'_>) -> Result<Executable> {
        Executable::of_stages(planner::build(plan, schema, options)?)
    }

    pub(crate) fn of_stages(stages: Vec<Stage>) -> Result<Executable> {
        let output = output_schema(&stages);
        let stages: Result<Vec<Compiled>> = stages.into_iter().map(compile).collect();
        Ok(Executable { stages: stages?, schema: output })
    }
}

/// The columns of the last stage.
fn output_schema(stages: &[Stage]) -> Schema {
    let fields: Vec<Field> = stages
        .last()
        .map(|s| s.outputs.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|o| Field::new(o.name.clone(), o.dtype.clone(), o.nullable))
        .collect();
    Schema::new(fields)
}

fn compile(stage: Stage) -> Result<Compiled> {
    let level = Level::best();
    let graph = &stage.graph;
    let mut sharing = None;
    let (main, write) = match &stage.kind {
        Kind::Map if stage.has_filter() => {
            let main = program::compile(graph, &stage.actions, &[], false, level)?;
            let write = program::compile(graph, &[], &map::roots(&stage), false, level)?;
            (main, Some(write))
        }
        Kind::Map => {
            let roots = map::roots(&stage);
            (program::compile(graph, &stage.actions, &roots, true, level)?, None)
        }
        Kind::Scan { .. } => {
            let main = program::compile(graph, &stage.actions, &map::roots(&stage), false, level)?;
            let totals = program::compile(graph, &[], &scan::roots(&stage), false, level)?;
            (main, Some(totals))
        }
        Kind::Reduce { aggs } => {
            let mut roots = Vec::new();
            sharing = Some(reduce::Sharing::new(aggs, &mut roots));
            (program::compile(graph, &stage.actions, &roots, false, level)?, None)
        }
        Kind::Group { keys, aggs } => {
            let (roots, _, _) = group::roots(keys, aggs);
            (program::compile(graph, &stage.actions, &roots, false, level)?, None)
        }
        Kind::Sort { .. } => (program::compile(graph, &[], &[], false, level)?, None),
    };
    let sets = literal_sets(graph);
    Ok(Compiled { stage, main, write, sharing, sets })
}

/// The sets of texts that a graph looks strings up in.
pub(crate) fn literal_sets(graph: &Graph) -> Vec<Arc<LiteralSet>> {
    graph
        .text_sets
        .iter()
        .map(|set| {
            Arc::new(LiteralSet::new(set.iter().filter_map(|s| match s {
                Scalar::Str(s) => Some(s.as_bytes()),
                _ => None,
            })))
        })
        .collect()
}

/// What an executable was compiled for. Statistics are none of it: they only order predicates.
#[derive(Clone, Debug)]
struct Variant {
    nulls: Vec<bool>,
    params: Vec<(String, Scalar)>,
    checked: bool,
}

impl Variant {
    fn fits(&self, has_nulls: impl Fn(usize) -> bool, cx: &Context<'_>) -> bool {
        self.checked == cx.checked
            && self.nulls.iter().enumerate().all(|(i, n)| *n == has_nulls(i))
            && self.params.len() == cx.params.len()
            && self.params.iter().zip(cx.params).all(|((name, own), (other_name, other))| {
                // Numbers are put in when the program runs, all else is compiled in.
                name == other_name
                    && match Class::of(own) {
                        Some(class) => Class::of(other) == Some(class),
                        None => own == other,
                    }
            })
    }
}

/// Variants that a prepared plan keeps.
const VARIANTS: usize = 16;

/// A plan compiled against a schema, to be run on any table of that schema, as often as wanted.
pub struct Prepared {
    plan: Plan,
    source: Schema,
    output: Schema,
    /// What was compiled so far; without a lock, which a fork could leave locked in the child.
    variants: ArcSwap<Vec<(Variant, Arc<Executable>)>>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Checks and compiles.
    ///
    /// # Errors
    /// Those of typing: unknown columns, types that do not go together, invalid plans, limits.
    pub fn compile(plan: &Plan, schema: &Schema) -> Result<Prepared> {
        let output = schema_of(plan, schema)?;
        let prepared = Prepared {
            plan: plan.clone(),
            source: schema.clone(),
            output,
            variants: ArcSwap::default(),
        };
        Ok(prepared)
    }

    /// The columns of the result. With parameters their types are those of null parameters; the
    /// result itself says what they came to.
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
    /// [`Error::ShapeMismatch`] for a table of another schema, [`Error::InvalidArgument`] for a
    /// parameter without a value, or a value without a parameter, [`Error::CastFailed`],
    /// [`Error::Overflow`], [`Error::Cancelled`], those of memory, [`Error::InvalidData`].
    pub fn run(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<Output> {
        self.check_schema(table.schema)?;
        table.check()?;
        let executable = self.executable(table, cx)?;
        run::execute(&executable, &executable.schema, table, cx, None)
    }

    fn check_schema(&self, schema: &Schema) -> Result<()> {
        let (mine, theirs) = (self.source.fields(), schema.fields());
        let same = std::ptr::eq(mine, theirs)
            || mine.len() == theirs.len()
                && mine.iter().zip(theirs).all(|(a, b)| a.name == b.name && a.dtype == b.dtype);
        if same {
            return Ok(());
        }
        let show = |s: &[Field]| {
            s.iter().map(|f| format!("{}: {}", f.name, f.dtype)).collect::<Vec<_>>().join(", ")
        };
        Err(Error::ShapeMismatch(format!(
            "the plan was compiled for the columns ({}), the table has ({})",
            show(mine),
            show(theirs)
        )))
    }

    /// Refuses values of parameters that the plan has not.
    fn check_params(&self, params: &[(&str, Scalar)]) -> Result<()> {
        if params.is_empty() {
            return Ok(());
        }
        let known = self.plan.params();
        let Some((unknown, _)) = params.iter().find(|(name, _)| !known.contains(*name)) else {
            return Ok(());
        };
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        let has = match known.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        Err(Error::InvalidArgument(format!(
            "the query has no parameter {unknown:?}; its parameters: {has}"
        )))
    }

    fn executable(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<Arc<Executable>> {
        let has_nulls =
            |i: usize| table.chunks.iter().any(|c| c.get(i).is_some_and(|v| v.may_have_nulls()));
        if let Some((_, e)) = self.variants.load().iter().find(|(v, _)| v.fits(has_nulls, cx)) {
            return Ok(e.clone());
        }
        self.check_params(cx.params)?;
        let nulls: Vec<bool> = (0..self.source.len()).map(has_nulls).collect();
        let options = Options {
            nulls: &nulls,
            params: cx.params,
            types_only: false,
            checked: cx.checked,
            stats: table.stats.as_deref().unwrap_or_default(),
            rows: table.rows,
        };
        let mut executable = Executable::new(&self.plan, &self.source, &options)?;
        // What may be null is a matter of the types, not of the rows at hand.
        let fields: Vec<Field> = executable
            .schema
            .fields()
            .iter()
            .zip(self.output.fields())
            .map(|(f, g)| Field { nullable: f.nullable || g.nullable, ..f.clone() })
            .collect();
        executable.schema = Schema::new(fields);
        let executable = Arc::new(executable);
        let params = cx.params.iter().map(|(n, s)| ((*n).to_owned(), s.clone())).collect();
        let made = (Variant { nulls, params, checked: cx.checked }, executable.clone());
        self.variants.rcu(|known| {
            let skip = (known.len() + 1).saturating_sub(VARIANTS);
            known.iter().skip(skip).chain([&made]).cloned().collect::<Vec<_>>()
        });
        Ok(executable)
    }

    /// Pipelines, tile programs, kernels, level, tile rows and bytes per row, for people.
    pub fn explain(&self) -> String {
        self.explain_for(None, 0)
    }

    /// The same, with the predicates in the order that the statistics of a table of so many rows
    /// suggest. A run keeps the order of the first table that it was compiled for.
    pub fn explain_for(&self, stats: Option<&[ColumnStats]>, rows: usize) -> String {
        crate::explain::explain(&self.plan, &self.source, stats, rows)
    }

    /// Runs on a table, and says what [`Prepared::explain`] says and beside it, of each stage, the
    /// rows in and out, the time, and the bytes per second.
    ///
    /// # Errors
    /// Those of [`Prepared::run`].
    pub fn analyze(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<String> {
        self.check_schema(table.schema)?;
        table.check()?;
        let executable = self.executable(table, cx)?;
        let mut done = Vec::with_capacity(executable.stages.len());
        run::execute(&executable, &executable.schema, table, cx, Some(&mut done))?;
        Ok(crate::explain::describe(&executable.stages, &done))
    }
}

/// What the stages of a plan would be for a source with nulls where its schema and its statistics
/// allow them.
fn static_stages(
    plan: &Plan,
    source: &Schema,
    stats: &[ColumnStats],
    rows: usize,
) -> Result<Vec<Stage>> {
    let known = |i: usize| stats.get(i).and_then(|s| s.null_count);
    let may = |(i, f): (usize, &Field)| f.nullable && known(i) != Some(0);
    let nulls: Vec<bool> = source.fields().iter().enumerate().map(may).collect();
    let options = Options { nulls: &nulls, types_only: true, stats, rows, ..Options::default() };
    planner::build(plan, source, &options)
}

/// The compiled stages, for people to read.
pub(crate) fn static_compiled(
    plan: &Plan,
    source: &Schema,
    stats: Option<&[ColumnStats]>,
    rows: usize,
) -> Result<Vec<Compiled>> {
    static_stages(plan, source, stats.unwrap_or_default(), rows)?.into_iter().map(compile).collect()
}

/// The columns that a plan gives.
pub(crate) fn schema_of(plan: &Plan, source: &Schema) -> Result<Schema> {
    Ok(output_schema(&static_stages(plan, source, &[], 0)?))
}
