//! Running the stages of a compiled plan, one after another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use insitu_kernels::strings::LiteralSet;

use crate::compile::program::Program;
use crate::compile::stage::{Input, Kind, Stage, What};
use crate::error::{Error, Result};
use crate::exec::done::Done;
use crate::exec::given::Tiles;
use crate::exec::output::{Column, Rows, as_source};
use crate::exec::reduce::Sharing;
use crate::exec::source::{Source, SourceColumn};
use crate::exec::tile::Failed;
use crate::exec::zones::Skips;
use crate::exec::{group, map, reduce, scan, sort};
use crate::memory::{Heap, Memory, Output, OutputColumn};
use crate::pool::{self, PARALLEL_NS, Watch};
use crate::prepared::{Context, Executable};
use crate::schema::Schema;
use crate::table::TableView;

/// Rows of a morsel, the unit of scheduling, cancellation and progress.
pub(crate) const MORSEL: usize = 65_536;

/// What a run shares between its stages.
pub(crate) struct Run<'a> {
    pub(crate) cx: &'a Context<'a>,
    pub(crate) heap: &'a Heap,
    cancelled: AtomicBool,
    failed: Mutex<Option<Failed>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(cx: &'a Context<'a>, heap: &'a Heap) -> Run<'a> {
        Run { cx, heap, cancelled: AtomicBool::new(false), failed: Mutex::new(None) }
    }

    /// Calls `work` for every morsel of `rows` rows, in parallel if it is worth it. Of several
    /// failures the first row's counts, however many threads there are: morsels start in order,
    /// and those that started are finished.
    pub(crate) fn morsels(
        &self,
        rows: usize,
        ns_per_row: f64,
        work: &(dyn Fn(usize, usize, usize) -> Result<(), Failed> + Sync),
    ) -> Result<()> {
        let count = rows.div_ceil(MORSEL);
        let progress = self.cx.progress;
        self.items(count, rows as f64 * ns_per_row, &|m| {
            let start = m * MORSEL;
            let n = MORSEL.min(rows - start);
            work(m, start, n)?;
            if let Some(p) = progress {
                p.advance(n as u64);
            }
            Ok(())
        })
    }

    /// Calls `work` for 0 to `count - 1`.
    pub(crate) fn items(
        &self,
        count: usize,
        ns: f64,
        work: &(dyn Fn(usize) -> Result<(), Failed> + Sync),
    ) -> Result<()> {
        let watch = Watch { interrupt: self.cx.interrupt, cancelled: &self.cancelled };
        let parallel = count > 1 && ns > PARALLEL_NS;
        // The interrupt is the caller's alone: what workers share is named here.
        let (failure, cancelled) = (&self.failed, &self.cancelled);
        let interrupted = pool::run(count, parallel, &watch, &|i| {
            if let Err(e) = work(i) {
                let mut failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|f| e.row < f.row) {
                    *failed = Some(e);
                }
                cancelled.store(true, Ordering::Relaxed);
            }
        });
        if let Some(f) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(f.error);
        }
        if interrupted || self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

/// A stage with its programs.
pub(crate) struct Compiled {
    pub(crate) stage: Stage,
    /// Predicates and checks; with outputs too where rows are not counted first.
    pub(crate) main: Program,
    /// The outputs of rows that were counted first; of running values what they are of.
    pub(crate) write: Option<Program>,
    /// Of the aggregates of whole columns.
    pub(crate) sharing: Option<Sharing>,
    pub(crate) sets: Vec<Arc<LiteralSet>>,
}

/// What a stage's operator gets.
pub(crate) struct Job<'j, 'a> {
    pub(crate) run: &'j Run<'j>,
    pub(crate) compiled: &'j Compiled,
    pub(crate) source: &'j Source<'a>,
    pub(crate) memory: &'j dyn Memory,
    pub(crate) given: &'j Tiles,
    /// Whether the result leaves the run: then it may not share intermediates.
    pub(crate) last: bool,
}

/// Runs a plan on a table; `done` is told what each stage did.
pub(crate) fn execute(
    plan: &Executable,
    output: &Schema,
    table: &TableView<'_>,
    cx: &Context<'_>,
    done: Option<&mut Vec<Done>>,
) -> Result<Output> {
    let heap = Heap::new();
    let run = Run::new(cx, &heap);
    let mut results = stages(plan, plan.stages.len(), table, &run, done)?;
    let last = results.pop().ok_or_else(lost)?;
    let columns: Result<Vec<OutputColumn>> = last
        .columns
        .into_iter()
        .map(|c| match c {
            Column::New(c) => Ok(OutputColumn::New(c)),
            Column::Shared(SourceColumn { origin: Some(source), .. }) => {
                Ok(OutputColumn::Shared { source })
            }
            _ => Err(lost()),
        })
        .collect();
    Ok(Output { schema: output.clone(), rows: last.rows, columns: columns? })
}

/// Runs the first `count` stages of a plan, each on the table or on the result of one before it.
pub(crate) fn stages<'a>(
    plan: &Executable,
    count: usize,
    table: &TableView<'a>,
    run: &Run<'a>,
    mut done: Option<&mut Vec<Done>>,
) -> Result<Vec<Rows<'a>>> {
    let (cx, heap) = (run.cx, run.heap);
    let mut results: Vec<Rows<'a>> = Vec::with_capacity(count);
    for (i, compiled) in plan.stages.iter().enumerate().take(count) {
        let stage = &compiled.stage;
        let start = done.is_some().then(Instant::now);
        let mut source = match stage.input {
            Input::Source => Source::of_table(table)?,
            Input::Stage(s) => {
                let from = results.get(s).ok_or_else(lost)?;
                let mut columns = Vec::with_capacity(from.columns.len());
                for (c, f) in from.columns.iter().zip(stage.schema.fields()) {
                    columns.push(match c {
                        Column::Shared(c) => c.clone(),
                        // SAFETY: the heap, and the lender's memory, outlive the run.
                        Column::New(c) => unsafe { as_source(&f.dtype, from.rows, c, heap)? },
                        Column::Skipped => SourceColumn::default(),
                    });
                }
                Source { columns, offset: 0, rows: from.rows, zones: None }
            }
        };
        for (offset, len) in &stage.slices {
            source.slice(*offset, *len);
        }
        let programs = [Some(&compiled.main), compiled.write.as_ref()];
        let from = stage.given.and_then(|s| results.get(s));
        let given =
            Tiles::new(programs.into_iter().flatten(), from, &stage.graph.params, cx.params)?;
        if let Some(p) = cx.progress {
            p.expect(source.rows as u64 * if compiled.write.is_some() { 2 } else { 1 });
        }
        let last = i + 1 == plan.stages.len();
        let memory: &dyn Memory = if last { cx.memory } else { heap };
        let job = Job { run, compiled, source: &source, memory, given: &given, last };
        let rows = match &stage.kind {
            Kind::Map => map::run(&job)?,
            Kind::Scan { reverse } => scan::run(&job, *reverse)?,
            Kind::Reduce { aggs } => reduce::run(&job, aggs)?,
            Kind::Group { keys, aggs } => group::run(&job, keys, aggs)?,
            Kind::Sort { keys, descending, nulls_last } => {
                sort::run(&job, keys, descending, *nulls_last)?
            }
        };
        if let (Some(done), Some(start)) = (&mut done, start) {
            let time = start.elapsed();
            let skips = compiled.main.mask.and_then(|_| Skips::new(stage, &source, &given));
            done.push(Done::of(stage, &source, skips.as_ref(), &rows, time));
        }
        results.push(rows);
    }
    Ok(results)
}

pub(crate) fn lost() -> Error {
    Error::InvalidPlan("a stage lost its input".into())
}

/// The stage's columns, of which `make` makes those that are wanted.
pub(crate) fn columns<'a>(
    stage: &Stage,
    mut make: impl FnMut(usize, &What) -> Result<Column<'a>>,
) -> Result<Vec<Column<'a>>> {
    stage
        .outputs
        .iter()
        .zip(&stage.needed)
        .enumerate()
        .map(|(i, (o, needed))| if *needed { make(i, &o.what) } else { Ok(Column::Skipped) })
        .collect()
}
