//! Formulas in numexpr's language over arrays anywhere in this process: no region, no tables. A
//! formula is read once, compiled once for each combination of its operands' types, and then run
//! over the arrays where they lie, into the array that its result is wanted in.
//!
//! Arrays are named by their first byte. They need be aligned to their values, no more: nothing is
//! read or written beyond them.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use insitu_kernels::view::{ColumnView, Layout};
use insitu_query::evaluate::{Formula as Parsed, Lowered};
use insitu_query::{
    Context, DataType, Expr, Field, Heap, Memory, Output, OutputColumn, Owner, Plan, Prepared,
    Scalar, Schema, TableView,
};
use insitu_region::ForkMutex;

use crate::error::{Error, Result};

pub use insitu_query::evaluate::{Kind, Operand, Reduction};

/// Programs of a formula that are kept; the oldest goes first.
const KEPT: usize = 64;

/// The name of the result: none that an operand can have.
const RESULT: &str = "=";
/// The name of the column that stands in where all operands are single values.
const ROW: &str = "#";
/// Its one row.
static ONE_ROW: [u8; 1] = [0];

/// The types of operands, and the program for them.
type Known = (Box<[Operand]>, Arc<Program>);

/// A formula, and its programs for the types of operands that it was run on.
#[derive(Debug)]
pub struct Formula {
    parsed: Parsed,
    programs: ForkMutex<Vec<Known>>,
}

impl Formula {
    /// Reads a formula; `exact` as in [`Parsed::parse`].
    ///
    /// # Errors
    /// [`Error::InvalidPlan`] with the position of what is wrong, [`Error::Unsupported`],
    /// [`Error::LimitExceeded`].
    pub fn parse(text: &str, exact: bool) -> Result<Formula> {
        Ok(Formula { parsed: Parsed::parse(text, exact)?, programs: ForkMutex::default() })
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.parsed.text()
    }

    /// The names of the operands, sorted: the order in which they are given.
    pub fn names(&self) -> &[Arc<str>] {
        self.parsed.names()
    }

    /// What its values are reduced by, along which axis; over all axes without one.
    pub fn reduction(&self) -> Option<(Reduction, Option<u8>)> {
        self.parsed.reduction()
    }

    /// The program for operands of these types.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] for operators and functions that do not take such operands,
    /// [`Error::InvalidArgument`] for a wrong number of them, [`Error::LimitExceeded`].
    pub fn program(&self, operands: &[Operand]) -> Result<Arc<Program>> {
        let is_it = |(known, _): &&Known| **known == *operands;
        if let Some((_, program)) = self.programs.lock().iter().find(is_it) {
            return Ok(program.clone());
        }
        let program = Arc::new(Program::new(&self.parsed, operands)?);
        let mut kept = self.programs.lock();
        let surplus = if kept.len() >= KEPT { Some(kept.remove(0)) } else { None };
        kept.push((operands.into(), program.clone()));
        drop(kept);
        // It may be the last to hold much: not under the lock.
        drop(surplus);
        Ok(program)
    }
}

/// An operand of a run.
#[derive(Clone, Debug)]
pub enum Argument {
    /// An array's first value.
    Array(*const u8),
    /// A value: an integer (of booleans 0 or 1) or a float.
    Value(Scalar),
}

/// A formula compiled for operands of certain types.
#[derive(Debug)]
pub struct Program {
    kind: Kind,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Constant(Scalar),
    Rows(Box<Rows>),
}

#[derive(Debug)]
struct Rows {
    /// The operands that are arrays; without any, the column of one row.
    schema: Schema,
    /// A value for each row.
    mapped: Prepared,
    /// One value for all rows.
    reduced: Option<(Reduction, Prepared)>,
    /// Of all operands, and whether the formula came to read it as a parameter.
    names: Box<[(Arc<str>, bool)]>,
}

impl Program {
    fn new(parsed: &Parsed, operands: &[Operand]) -> Result<Program> {
        let (expr, kind) = match parsed.lower(operands)? {
            Lowered::Constant(value, kind) => {
                return Ok(Program { kind, work: Work::Constant(value) });
            }
            Lowered::Rows(expr, kind) => (expr, kind),
        };
        let mut fields = Vec::with_capacity(operands.len());
        for (name, operand) in parsed.names().iter().zip(operands) {
            if !operand.scalar {
                fields.push(Field::new(name.clone(), operand.dtype.clone(), false));
            }
        }
        if fields.is_empty() {
            fields.push(Field::new(ROW, DataType::UInt8, false));
        }
        let schema = Schema::new(fields);
        let plan = |expr: Expr, with: bool| {
            let (input, exprs) = (Arc::new(Plan::Scan), vec![expr.alias(RESULT)]);
            if with { Plan::WithColumns { input, exprs } } else { Plan::Select { input, exprs } }
        };
        let reduced = match parsed.reduction() {
            None => None,
            Some((reduction, _)) => {
                let expr = match reduction {
                    Reduction::Sum => expr.sum(),
                    Reduction::Prod => expr.product(),
                    Reduction::Min => expr.min(),
                    Reduction::Max => expr.max(),
                };
                Some((reduction, Prepared::compile(&plan(expr, false), &schema)?))
            }
        };
        // Booleans as the bytes that NumPy and C have.
        let expr = if kind == Kind::Bool { expr.cast(DataType::UInt8, true) } else { expr };
        let mapped = Prepared::compile(&plan(expr.clone(), true), &schema)?;
        // What is multiplied out to nothing (to the power of 0) is no parameter of the plan.
        let read = Plan::Select { input: Arc::new(Plan::Scan), exprs: vec![expr] }.params();
        let names = parsed.names().iter().map(|name| (name.clone(), read.contains(name)));
        let rows = Rows { schema, mapped, reduced, names: names.collect() };
        Ok(Program { kind, work: Work::Rows(Box::new(rows)) })
    }

    /// The kind of the result's values.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The result, if it is the same for all operands.
    pub fn constant(&self) -> Option<&Scalar> {
        match &self.work {
            Work::Constant(value) => Some(value),
            Work::Rows(_) => None,
        }
    }

    /// Computes `rows` values of the result's kind, booleans as bytes of 0 and 1, into `out`. If all
    /// operands are values, `rows` is 1. A reduction's values are those that it would reduce.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `interrupt`, asked now and then, says so; [`Error::OutOfMemory`].
    /// What `out` holds then is not known.
    ///
    /// # Safety
    /// The arguments are those that the program was compiled for. Each array is aligned to its values
    /// and readable for `rows` of them; `out` likewise, and writable, and nobody else reads or writes
    /// it meanwhile. `out` may be one of the arrays, or overlap with some.
    pub unsafe fn run(
        &self,
        arguments: &[Argument],
        rows: usize,
        out: *mut u8,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<()> {
        let Work::Rows(work) = &self.work else {
            return Err(Error::InvalidArgument("a constant is not computed row by row".into()));
        };
        let Some(out) = NonNull::new(out).filter(|_| rows > 0) else { return Ok(()) };
        let bytes = rows.saturating_mul(width(self.kind));
        // SAFETY: by contract.
        let views = unsafe { work.views(arguments, rows) }?;
        let address = out.as_ptr() as usize;
        let (mut is_read, mut partly) = (false, false);
        for view in &views {
            let start = view.values as usize;
            if start == address && view.values_len == bytes {
                is_read = true;
            } else if start < address.saturating_add(bytes)
                && address < start.saturating_add(view.values_len)
            {
                partly = true;
            }
        }
        let params = work.params(arguments);
        let table = work.table(views, rows);
        if partly {
            let heap = Heap::new();
            let cx = Context { params: &params, interrupt, ..Context::new(&heap) };
            let output = work.mapped.run(&table, &cx)?;
            let from = result(&output)?.map_or_else(
                |source| table.chunks.first().and_then(|c| c.get(source)).map(|v| v.values),
                |span| span.map(|span| span.ptr.as_ptr().cast_const()),
            );
            let from = from.ok_or_else(lost)?;
            // SAFETY: the result, or the column that it is, has that many bytes, and `out` by
            // contract; they may overlap.
            unsafe { out.as_ptr().copy_from(from, bytes) };
            return Ok(());
        }
        let memory = Into { out, bytes, lent: AtomicBool::new(false), is_read };
        let cx = Context { params: &params, interrupt, ..Context::new(&memory) };
        let output = work.mapped.run(&table, &cx)?;
        if let Err(source) = result(&output)? {
            let view = table.chunks.first().and_then(|c| c.get(source)).ok_or_else(lost)?;
            // SAFETY: the column has the result's type, so as many bytes; as above.
            unsafe { out.as_ptr().copy_from(view.values, bytes) };
        }
        Ok(())
    }

    /// The reduction of `rows` rows. None: the smallest or largest of nothing.
    ///
    /// # Errors
    /// [`Error::Overflow`] for a sum or product of integers that does not fit the result's kind;
    /// else as [`Program::run`].
    ///
    /// # Safety
    /// As for [`Program::run`], but for `out`.
    pub unsafe fn reduce(
        &self,
        arguments: &[Argument],
        rows: usize,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Option<Scalar>> {
        let no_reduction = || Error::InvalidArgument("the formula does not reduce".into());
        let Work::Rows(work) = &self.work else { return Err(no_reduction()) };
        let (reduction, prepared) = work.reduced.as_ref().ok_or_else(no_reduction)?;
        // SAFETY: by contract.
        let views = unsafe { work.views(arguments, rows) }?;
        let params = work.params(arguments);
        let table = work.table(views, rows);
        let heap = Heap::new();
        let cx = Context { params: &params, interrupt, ..Context::new(&heap) };
        let output = prepared.run(&table, &cx)?;
        let Some(OutputColumn::New(column)) = output.columns.first() else { return Err(lost()) };
        if column.null_count > 0 {
            // Only NaN, or nothing at all.
            let nan = rows > 0 && matches!(self.kind, Kind::Float | Kind::Double);
            return Ok(nan.then_some(Scalar::Float(f64::NAN)));
        }
        let at = column.values.ok_or_else(lost)?.ptr;
        let dtype = output.schema.fields().first().map(|f| &f.dtype);
        // SAFETY: one value of that type was written there, aligned to 64 bytes.
        let value = unsafe {
            match dtype {
                Some(DataType::Int32) => Scalar::Int(i64::from(at.cast::<i32>().read())),
                Some(DataType::Int64) => Scalar::Int(at.cast::<i64>().read()),
                Some(DataType::Float32) => Scalar::Float(f64::from(at.cast::<f32>().read())),
                Some(DataType::Float64) => Scalar::Float(at.cast::<f64>().read()),
                _ => return Err(lost()),
            }
        };
        if let (Kind::Int, Scalar::Int(sum)) = (self.kind, &value)
            && i32::try_from(*sum).is_err()
        {
            return Err(Error::Overflow(format!(
                "{} of 32-bit integers is {sum}, which does not fit them; reduce 64-bit ones",
                reduction.name()
            )));
        }
        Ok(Some(value))
    }
}

/// Bytes of a result's value.
fn width(kind: Kind) -> usize {
    match kind {
        Kind::Bool => 1,
        Kind::Int | Kind::Float => 4,
        Kind::Long | Kind::Double => 8,
    }
}

fn lost() -> Error {
    Error::InvalidPlan("a formula's result was lost".into())
}

/// The result's values, or the source column that the result is.
#[allow(clippy::type_complexity)]
fn result(output: &Output) -> Result<std::result::Result<Option<insitu_query::Span>, usize>> {
    let place = output.schema.fields().iter().position(|f| &*f.name == RESULT);
    match place.and_then(|i| output.columns.get(i)) {
        Some(OutputColumn::New(column)) if column.null_count == 0 => Ok(Ok(column.values)),
        Some(OutputColumn::Shared { source }) => Ok(Err(*source)),
        _ => Err(lost()),
    }
}

impl Rows {
    /// The arrays as columns.
    ///
    /// # Safety
    /// As for [`Program::run`].
    unsafe fn views<'a>(&self, arguments: &[Argument], rows: usize) -> Result<Vec<ColumnView<'a>>> {
        let arrays = arguments.iter().filter_map(|argument| match argument {
            Argument::Array(first) => Some(*first),
            Argument::Value(_) => None,
        });
        let row = (self.schema.fields().first().is_some_and(|f| &*f.name == ROW))
            .then_some(ONE_ROW.as_ptr());
        let views: Vec<ColumnView<'a>> = arrays
            .chain(row)
            .zip(self.schema.fields())
            .filter_map(|(first, field)| {
                let prim = field.dtype.prim()?;
                let bytes = rows.checked_mul(prim.width())?;
                // SAFETY: by contract readable for so many rows of that type.
                Some(unsafe { ColumnView::new(Layout::Prim(prim), rows, first, bytes) })
            })
            .collect();
        let fits = views.len() == self.schema.len()
            && arguments.len() == self.names.len()
            && (row.is_none() || rows <= 1);
        if !fits {
            return Err(Error::InvalidArgument(
                "a formula is run with other operands than it was compiled for".into(),
            ));
        }
        Ok(views)
    }

    fn params(&self, arguments: &[Argument]) -> Vec<(&str, Scalar)> {
        let given = self.names.iter().zip(arguments).filter_map(|((name, read), argument)| {
            let Argument::Value(value) = argument else { return None };
            read.then(|| (&**name, value.clone()))
        });
        given.collect()
    }

    fn table<'a>(&'a self, views: Vec<ColumnView<'a>>, rows: usize) -> TableView<'a> {
        TableView { schema: &self.schema, rows, chunks: vec![views], stats: None, zones: None }
    }
}

/// Lends the caller's array, once.
struct Into {
    out: NonNull<u8>,
    bytes: usize,
    lent: AtomicBool,
    is_read: bool,
}

// SAFETY: the array is the run's alone by the contract of `Program::run`, whoever of its threads
// writes it.
unsafe impl Send for Into {}
// SAFETY: as above.
unsafe impl Sync for Into {}

impl Memory for Into {
    fn allocate(&self, bytes: usize) -> insitu_query::Result<NonNull<u8>> {
        if bytes > self.bytes || self.lent.swap(true, Ordering::Relaxed) {
            let lost = "a formula's result is more than one column";
            return Err(insitu_query::Error::InvalidPlan(lost.into()));
        }
        Ok(self.out)
    }

    fn owner(&self) -> Owner {
        Owner::Caller { is_read: self.is_read }
    }
}

#[cfg(test)]
mod tests;
