//! Updates: new values for columns of a table, computed from its old ones, for all rows or for
//! those that a condition chooses.
//!
//! An update is checked against a schema once ([`Update::new`]) and bound to a table as it lies
//! ([`Update::bind`]). Bound, it either gives the new table ([`Bound::compute`]: fresh columns, the
//! rest shared) or writes over the old values ([`Bound::ready`], [`Ready::lists`], then
//! [`Writing::write`]). Both ways are one program and give the same bits; every right-hand side
//! reads old values, of all columns and all rows.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use insitu_kernels::copy::ZoneStats;
use insitu_kernels::level::Level;
use insitu_kernels::strings::LiteralSet;

use crate::compile::assign::{self, Assigned, Assignments};
use crate::compile::graph::Graph;
use crate::compile::program::{self, Action, Program};
use crate::compile::stage::Options;
use crate::error::{Error, Result};
use crate::exec::assign::{self as exec, Over, Reading, Written};
use crate::exec::given::Tiles;
use crate::exec::output::Rows;
use crate::exec::run::{self, Run};
use crate::exec::source::Source;
use crate::exec::walk::{Span, Walk};
use crate::expr::Expr;
use crate::memory::{Heap, Memory, Output};
use crate::prepared::{Context, Executable, literal_sets};
use crate::schema::Schema;
use crate::table::TableView;

/// New values for columns, and the rows that get them, checked against a schema.
pub struct Update {
    sets: Vec<(Arc<str>, Expr)>,
    condition: Option<Expr>,
    schema: Schema,
    columns: Vec<usize>,
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update")
            .field("sets", &self.sets)
            .field("condition", &self.condition)
            .finish_non_exhaustive()
    }
}

/// Where one chunk of a column can be written.
#[derive(Clone, Copy, Debug)]
pub struct Writable {
    /// Its values: numbers or bits.
    pub values: *mut u8,
    /// Its validity bitmap; null if it has none.
    pub validity: *mut u8,
}

// SAFETY: addresses; whoever writes through them answers for that.
unsafe impl Send for Writable {}
// SAFETY: as above.
unsafe impl Sync for Writable {}

/// Who is told of the statistics of what was written.
pub struct ZoneSink<'a> {
    /// Whether zones without a written row are told of, too.
    pub every: bool,
    /// Told the number of the written column (in the order of [`Update::columns`]), the number of
    /// the zone (zones are 65,536 rows of a chunk, in order), and its statistics. On any thread.
    pub tell: &'a (dyn Fn(usize, usize, &ZoneStats) + Sync),
}

impl Update {
    /// Checks names and types.
    ///
    /// # Errors
    /// `UnknownColumn`; `TypeMismatch` for values of another type than the column's;
    /// `InvalidArgument` for a column given twice; `Unsupported` for rows of nested columns and the
    /// like.
    pub fn new(
        sets: Vec<(Arc<str>, Expr)>,
        condition: Option<Expr>,
        schema: &Schema,
    ) -> Result<Update> {
        let nulls: Vec<bool> = schema.fields().iter().map(|f| f.nullable).collect();
        let options = Options { nulls: &nulls, ..Options::default() };
        let made = assign::build(&sets, condition.as_ref(), schema, &options, true)?;
        let columns = made.assigned.iter().map(|a| a.column).collect();
        Ok(Update { sets, condition, schema: schema.clone(), columns })
    }

    /// The positions of the columns that get new values.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The update of a table as it lies: aggregates are computed, so that its content must not
    /// change any more.
    ///
    /// # Errors
    /// Those of [`Update::new`]; `ShapeMismatch` for a table of another schema; those of computing
    /// the aggregates; `Cancelled`.
    pub fn bind(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<Bound> {
        if table.schema.len() != self.schema.len() {
            return Err(Error::ShapeMismatch("the table has another schema".into()));
        }
        table.check()?;
        let nulls: Vec<bool> = (0..self.schema.len())
            .map(|i| table.chunks.iter().any(|c| c.get(i).is_some_and(|v| v.may_have_nulls())))
            .collect();
        let options = Options { nulls: &nulls, checked: cx.checked, ..Options::default() };
        let build = |aggregates_null| {
            let condition = self.condition.as_ref();
            assign::build(&self.sets, condition, &self.schema, &options, aggregates_null)
        };
        let mut made = build(true)?;
        if !made.is_direct {
            return Bound::beside(made);
        }
        let heap = Heap::new();
        let run = Run::new(cx, &heap);
        let mut results = Vec::new();
        let before = made.stages.len().saturating_sub(1);
        if before > 0 {
            let aggregates = Executable::of_stages(made.stages)?;
            results = run::stages(&aggregates, before, table, &run, None)?;
            // Known now: where none is null, the new values need no bitmap for their sake.
            made = build(results.iter().any(Rows::has_nulls))?;
        }
        let stage = made.stages.last().ok_or_else(run::lost)?;
        let (graph, level) = (&stage.graph, Level::best());

        let mut roots = Vec::new();
        let mut written = Vec::new();
        for a in &made.assigned {
            let Some((value, valid)) = a.nodes else { continue };
            roots.push(value);
            let at = roots.len() - 1;
            let valid = valid.map(|v| {
                roots.push(v);
                roots.len() - 1
            });
            let repr = graph.node(value).repr;
            written.push(Written { column: a.column, repr, value: at, valid });
        }
        let keep = made.chosen.map(Action::Keep);
        let writing: Vec<Action> = keep.iter().cloned().collect();
        let write = program::compile(graph, &writing, &roots, false, level)?;
        // Strings are looked into, and may turn out not to be any: then all is computed once.
        let strings = !write.strings.is_empty();
        let check = if stage.actions.is_empty() && !strings {
            None
        } else {
            let (before, after) = stage.actions.split_at(made.before.min(stage.actions.len()));
            let actions: Vec<Action> = before.iter().chain(&keep).chain(after).cloned().collect();
            let roots = if strings { roots.as_slice() } else { &[] };
            Some(program::compile(graph, &actions, roots, false, level)?)
        };
        let sets = literal_sets(graph);
        let from = stage.given.and_then(|s| results.get(s));
        let programs: Vec<&Program> =
            [Some(&write), check.as_ref()].into_iter().flatten().collect();
        let given = Tiles::new(programs.iter().copied(), from, &graph.params, &[])?;
        let executable = Executable::of_stages(made.stages)?;
        let (walk, beside) = match Walk::of(&write, &self.columns) {
            Ok(walk) => (walk, None),
            Err(why) => (None, Some(format!("{why}, {OVER}"))),
        };
        let assigned = made.assigned;
        Ok(Bound { executable, assigned, written, write, check, sets, given, walk, beside })
    }
}

/// An update, compiled for a table as it lies.
pub struct Bound {
    executable: Executable,
    assigned: Vec<Assigned>,
    written: Vec<Written>,
    write: Program,
    check: Option<Program>,
    sets: Vec<Arc<LiteralSet>>,
    given: Tiles,
    /// The order in which rows have to be written, if it matters.
    walk: Option<Walk>,
    /// Why there is only [`Bound::compute`], if so.
    beside: Option<String>,
}

/// What is the matter with values of other rows.
const OVER: &str = "which would be written over by then";

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("assigned", &self.assigned).finish_non_exhaustive()
    }
}

impl Bound {
    /// One that gives fresh columns only.
    fn beside(made: Assignments) -> Result<Bound> {
        let window = made.window.unwrap_or_default();
        let write = program::compile(&Graph::default(), &[], &[], false, Level::best())?;
        Ok(Bound {
            executable: Executable::of_stages(made.stages)?,
            assigned: made.assigned,
            written: Vec::new(),
            write,
            check: None,
            sets: Vec::new(),
            given: Tiles::default(),
            walk: None,
            beside: Some(format!("{window} reads other rows than its own, {OVER}")),
        })
    }

    /// Why the new values cannot be written over the old ones, whoever else holds the table; none
    /// if they can, once there are the bitmaps that [`Bound::bare`] asks for.
    pub fn obstacle(&self, table: &TableView<'_>) -> Option<String> {
        if self.beside.is_some() {
            return self.beside.clone();
        }
        for a in &self.assigned {
            let field = table.schema.fields().get(a.column)?;
            if a.nodes.is_none() {
                return Some(format!(
                    "the column {:?} is {}, whose values have no width of their own",
                    field.name, field.dtype
                ));
            }
        }
        None
    }

    /// The columns whose new values may be null and that have chunks without a bitmap: these need
    /// one before they can be written over.
    pub fn bare(&self, table: &TableView<'_>) -> Vec<usize> {
        let bare = |v: &insitu_kernels::view::ColumnView<'_>| v.len > 0 && !v.may_have_nulls();
        let is_bare = |column: usize| table.chunks.iter().filter_map(|c| c.get(column)).any(bare);
        let nullable = self.assigned.iter().filter(|a| a.nullable).map(|a| a.column);
        nullable.filter(|column| is_bare(*column)).collect()
    }

    /// Describes how new values are written over the old ones, for people.
    pub fn explain(&self) -> String {
        let order = match &self.walk {
            Some(walk) => walk.to_string(),
            None => "any, since no row reads others that change".to_owned(),
        };
        let before = self.executable.stages.split_last().map_or(&[][..], |(_, before)| before);
        let mut out = crate::explain::describe(before, &[]);
        let _ = writeln!(out, "rows are written in this order: {order}");
        if let Some(check) = &self.check {
            out.push_str("first a pass over all rows that writes nothing, for those that fail:\n");
            out.push_str(&check.describe());
            out.push_str("then the writing pass:\n");
        }
        out.push_str(&self.write.describe());
        out
    }

    /// Describes how new columns are written beside the old ones, for people.
    pub fn explain_beside(&self) -> String {
        crate::explain::describe(&self.executable.stages, &[])
    }

    /// The table with its new columns; those that get no new values are shared.
    ///
    /// # Errors
    /// `CastFailed`, `Overflow`, `InvalidData`, for the first row that fails; `Cancelled`; those of
    /// the memory.
    pub fn compute(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<Output> {
        let computed = run::execute(&self.executable, &self.executable.schema, table, cx, None);
        match computed {
            Err(
                error @ (Error::CastFailed { .. } | Error::Overflow(_) | Error::InvalidData(_)),
            ) if self.check.is_some() => {
                // Of several checks, the first row that fails speaks.
                self.check(table, cx)?;
                Err(error)
            }
            other => other,
        }
    }

    /// Looks for rows that fail, and keeps copies of those that are read after they are written:
    /// of so many per thread as a shift is far. Writes nothing; may be interrupted.
    ///
    /// # Errors
    /// As [`Bound::compute`].
    pub fn ready(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<Ready<'_>> {
        self.check(table, cx)?;
        let spans = match &self.walk {
            Some(walk) => exec::spans(walk, &Source::of_table(table)?, table, &self.write)?,
            None => Vec::new(),
        };
        Ok(Ready { bound: self, spans })
    }

    /// Looks for rows that fail. Writes nothing; may be interrupted.
    ///
    /// # Errors
    /// As [`Bound::compute`].
    pub fn check(&self, table: &TableView<'_>, cx: &Context<'_>) -> Result<()> {
        let Some(check) = &self.check else { return Ok(()) };
        let heap = Heap::new();
        let source = Source::of_table(table)?;
        exec::check(&Run::new(cx, &heap), &self.reading(&source)?, check)
    }

    fn reading<'a>(&'a self, source: &'a Source<'a>) -> Result<Reading<'a>> {
        let last = self.executable.stages.last().ok_or_else(run::lost)?;
        Ok(Reading { stage: &last.stage, source, sets: &self.sets, given: &self.given })
    }
}

/// An update that will not fail on any row.
#[derive(Debug)]
pub struct Ready<'b> {
    bound: &'b Bound,
    /// Of a walk.
    spans: Vec<Span>,
}

impl Ready<'_> {
    /// Lists where the columns of the table lie, for each thread that walks it.
    ///
    /// # Errors
    /// `OutOfMemory`; `ShapeMismatch` for another table.
    pub fn lists<'r>(&'r self, table: &'r TableView<'r>) -> Result<Writing<'r>> {
        let source = Source::of_table(table)?;
        let spans = self.spans.iter();
        let spans = spans.map(|s| Ok((s, s.source(&source, &self.bound.write)?)));
        Ok(Writing { bound: self.bound, table, spans: spans.collect::<Result<_>>()?, source })
    }
}

/// An update that has all the memory it needs whose amount depends on the table.
pub struct Writing<'r> {
    bound: &'r Bound,
    table: &'r TableView<'r>,
    source: Source<'r>,
    /// Of a walk, and what each sees.
    spans: Vec<(&'r Span, Source<'r>)>,
}

impl fmt::Debug for Writing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Writing<'_> {
    /// Writes the new values over the old ones, in parallel if it is worth it. Takes memory for
    /// some tiles per thread. Cannot be interrupted: the rows would be of two ages.
    ///
    /// `places[c][i]` is where chunk `c` of column [`Update::columns`]`[i]` can be written.
    ///
    /// # Errors
    /// Only what no check can foresee: no memory for a tile of scratch, or strings that a peer has
    /// changed since. Some rows are then new and some old.
    ///
    /// # Safety
    /// The table is as it was when the [`Ready`] was made. Every place names the memory that the
    /// table's view shows, is writable for the rows of its chunk up to the next multiple of 64 bytes, and
    /// no one else reads or writes it meanwhile; no two of them overlap, nor any other column. The
    /// obstacle of the update ([`Bound::obstacle`]) was none, and no column bare
    /// ([`Bound::bare`]).
    pub unsafe fn write(
        &self,
        places: &[Vec<Writable>],
        zones: Option<&ZoneSink<'_>>,
    ) -> Result<()> {
        let (bound, table) = (self.bound, self.table);
        let shape = (table.chunks.len(), bound.written.len());
        if places.len() != shape.0 || places.iter().any(|p| p.len() != shape.1) {
            return Err(Error::ShapeMismatch("places for another table".into()));
        }
        let heap = Heap::new();
        let cx = Context::new(&heap as &dyn Memory);
        let run = Run::new(&cx, &heap);
        let reading = bound.reading(&self.source)?;
        let over = Over { table, written: &bound.written, places, zones };
        let walk = bound.walk.as_ref().map(|walk| (walk, self.spans.as_slice()));
        // SAFETY: by contract.
        unsafe { exec::write(&run, &reading, &bound.write, &over, walk) }
    }
}
