//! Formulas as numexpr reads them: text to an expression over typed operands.
//!
//! A second front end over the same kernels. The text is read here, never run; types follow
//! numexpr's rules (its kinds: bool, int, long, float, double), and every change of type is written
//! into the [`Expr`], so that the rules of plans add nothing of their own.
//!
//! *Architecture Invariant:* nothing here knows where operands come from, their shapes or their
//! addresses.

pub(crate) mod constant;
mod functions;
mod lexer;
mod lower;
pub(crate) mod parser;
mod prune;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::scalar::Scalar;
use parser::Node;

/// numexpr's types of values, in the order in which they promote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Booleans.
    Bool,
    /// Integers of 32 bits.
    Int,
    /// Integers of 64 bits.
    Long,
    /// Floats of 32 bits.
    Float,
    /// Floats of 64 bits.
    Double,
}

impl Kind {
    /// Its name, as numexpr has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
        }
    }

    /// The type of its values.
    pub fn data_type(self) -> DataType {
        match self {
            Kind::Bool => DataType::Bool,
            Kind::Int => DataType::Int32,
            Kind::Long => DataType::Int64,
            Kind::Float => DataType::Float32,
            Kind::Double => DataType::Float64,
        }
    }

    /// The kind that values of a type are of; none for types that formulas do not compute on.
    pub fn of(dtype: &DataType) -> Option<Kind> {
        Some(match dtype {
            DataType::Bool => Kind::Bool,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt8
            | DataType::UInt16 => Kind::Int,
            DataType::UInt32 | DataType::Int64 | DataType::UInt64 => Kind::Long,
            DataType::Float32 => Kind::Float,
            DataType::Float64 => Kind::Double,
            _ => return None,
        })
    }

    fn is_integer(self) -> bool {
        matches!(self, Kind::Int | Kind::Long)
    }

    fn is_float(self) -> bool {
        matches!(self, Kind::Float | Kind::Double)
    }
}

/// How many values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their product.
    Prod,
    /// The smallest, NaN left out.
    Min,
    /// The largest, NaN left out.
    Max,
}

impl Reduction {
    /// Its name in formulas.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::Sum => "sum",
            Reduction::Prod => "prod",
            Reduction::Min => "min",
            Reduction::Max => "max",
        }
    }
}

/// What an operand is, for the types of a formula.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// The type of its values. Booleans are given as UInt8, 0 for false.
    pub dtype: DataType,
    /// Whether those are booleans.
    pub boolean: bool,
    /// Whether it is one value, given when the formula runs, as a parameter of its name.
    pub scalar: bool,
}

impl Operand {
    fn kind(&self) -> Option<Kind> {
        if self.boolean { Some(Kind::Bool) } else { Kind::of(&self.dtype) }
    }
}

/// A formula over typed operands.
#[derive(Clone, Debug)]
pub enum Lowered {
    /// The same value whatever the operands: of a formula of constants only.
    Constant(Scalar, Kind),
    /// A value for each row. A boolean is Bool.
    Rows(Expr, Kind),
}

/// A formula that was read.
#[derive(Debug)]
pub struct Formula {
    text: Arc<str>,
    nodes: Vec<Node>,
    names: Vec<Arc<str>>,
    reduction: Option<(Reduction, Option<u8>)>,
    exact: bool,
}

impl Formula {
    /// Reads a formula. `exact`: divides by constants and raises to constant powers as written;
    /// else, as numexpr does by default, multiplies by their inverse, and multiplies for whole and
    /// half powers of up to 50.
    ///
    /// # Errors
    /// [`Error::InvalidPlan`] for text that is no formula, with the position of what is wrong;
    /// [`Error::Unsupported`] for complex numbers and strings; [`Error::LimitExceeded`].
    pub fn parse(text: &str, exact: bool) -> Result<Formula> {
        let mut parsed = parser::parse(text)?;
        prune::prune(&mut parsed);
        let parser::Parsed { nodes, names, reduction } = parsed;
        Ok(Formula { text: text.into(), nodes, names, reduction, exact })
    }

    /// The text.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The names of the operands, sorted; not those of branches that a constant never takes.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// What its values are reduced by, along which axis; over all axes without one.
    pub fn reduction(&self) -> Option<(Reduction, Option<u8>)> {
        self.reduction
    }

    /// The formula over operands, in the order of its names: what it reduces, if it reduces.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] for operators and functions that do not take operands of that kind,
    /// [`Error::InvalidArgument`] for as many operands as there are no names,
    /// [`Error::LimitExceeded`].
    pub fn lower(&self, operands: &[Operand]) -> Result<Lowered> {
        if operands.len() != self.names.len() {
            return Err(Error::InvalidArgument(format!(
                "the formula has {} operands, {} were given",
                self.names.len(),
                operands.len()
            )));
        }
        lower::lower(self, operands)
    }
}
