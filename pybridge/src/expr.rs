//! Expressions: `col("a") * 2 + 1 > col("b")`. Nothing is computed here; an expression is a tree
//! of the engine's, and the functions it may call are the engine's one table.

use insitu_query::{Expr as Tree, Scalar};
use pyo3::basic::CompareOp;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::{errors, given, literal, shutdown, types, ufunc};

/// An expression over the columns of a table.
#[pyclass(frozen, module = "insitu", name = "Expr")]
pub struct Expr(pub Tree);

/// What `when(...)` returns: it waits for its `.then(...)`.
#[pyclass(frozen, module = "insitu", name = "When")]
pub struct When {
    /// Branches that are complete: condition, value.
    branches: Vec<(Tree, Tree)>,
    condition: Tree,
}

/// What `.then(...)` returns: `.when(...)` adds a branch, `.otherwise(...)` ends the chain; used
/// as an expression, rows that meet no condition are null.
#[pyclass(frozen, module = "insitu", name = "Then")]
pub struct Then {
    branches: Vec<(Tree, Tree)>,
}

/// `value` as an expression: an expression itself, or a literal.
pub fn operand(value: &Bound<'_, PyAny>) -> PyResult<Tree> {
    if let Ok(expr) = value.cast::<Expr>() {
        return Ok(expr.get().0.clone());
    }
    if let Ok(then) = value.cast::<Then>() {
        return Ok(then.get().tree(Tree::literal(Scalar::Null)));
    }
    if value.cast::<When>().is_ok() {
        return Err(errors::new(
            value.py(),
            "InvalidPlan",
            "`when(...)` needs a `.then(...)` before it is an expression",
        ));
    }
    if let Ok(column) = value.cast::<crate::column::Column>() {
        let name = column.get().name();
        return Err(errors::new(
            value.py(),
            "TypeMismatch",
            format!("a column of a table is not an expression; use col({name:?}) instead"),
        ));
    }
    Ok(Tree::literal(literal::scalar(value)?))
}

/// `value` where a column is expected: a string is a column's name.
pub fn column(value: &Bound<'_, PyAny>) -> PyResult<Tree> {
    match value.is_instance_of::<PyString>() {
        true => Ok(Tree::column(given::name(value)?)),
        false => operand(value),
    }
}

/// The arguments of `select` and its kin: columns or expressions, lists of them, and names with
/// their expressions.
pub fn columns(
    positional: &Bound<'_, PyTuple>,
    named: Option<&Bound<'_, PyDict>>,
) -> PyResult<Vec<Tree>> {
    let _inside = shutdown::enter();
    let mut trees = Vec::with_capacity(positional.len());
    for item in positional {
        flatten(&item, &mut trees)?;
    }
    if let Some(named) = named {
        for (name, value) in named {
            trees.push(column(&value)?.alias(given::name(&name)?));
        }
    }
    Ok(trees)
}

fn flatten(item: &Bound<'_, PyAny>, trees: &mut Vec<Tree>) -> PyResult<()> {
    let is_sequence = item.is_instance_of::<pyo3::types::PyList>()
        || item.is_instance_of::<PyTuple>()
        || item.hasattr(intern!(item.py(), "gi_frame"))?;
    if is_sequence {
        for inner in item.try_iter()? {
            trees.push(column(&inner?)?);
        }
    } else {
        trees.push(column(item)?);
    }
    Ok(())
}

/// A method's argument: an expression or a literal.
pub struct Operand(pub Tree);

impl<'py> FromPyObject<'_, 'py> for Operand {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        operand(&value).map(Operand)
    }
}

/// A call of one of the table's functions.
pub fn call(py: Python<'_>, function: &str, arguments: Vec<Tree>) -> PyResult<Expr> {
    Tree::call(function, arguments).map(Expr).map_err(|error| errors::raise(py, error.into()))
}

#[pymethods]
impl Expr {
    /// `numpy.sqrt(col("x"))` and its like give expressions.
    #[pyo3(signature = (ufunc, method, *inputs, **options))]
    fn __array_ufunc__(
        &self,
        ufunc: &Bound<'_, PyAny>,
        method: &str,
        inputs: &Bound<'_, PyTuple>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Expr> {
        ufunc::apply(ufunc, method, inputs, options)
    }

    fn __neg__(&self, py: Python<'_>) -> PyResult<Expr> {
        call(py, "neg", vec![self.0.clone()])
    }

    fn __invert__(&self, py: Python<'_>) -> PyResult<Expr> {
        call(py, "not", vec![self.0.clone()])
    }

    fn __abs__(&self, py: Python<'_>) -> PyResult<Expr> {
        call(py, "abs", vec![self.0.clone()])
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Expr> {
        let function = match op {
            CompareOp::Eq => "eq",
            CompareOp::Ne => "ne",
            CompareOp::Lt => "lt",
            CompareOp::Le => "le",
            CompareOp::Gt => "gt",
            CompareOp::Ge => "ge",
        };
        call(other.py(), function, vec![self.0.clone(), operand(other)?])
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        Err(errors::new(
            py,
            "TypeMismatch",
            "an expression is neither true nor false before it runs; combine conditions with \
             & | ~ (each in parentheses) instead of `and`, `or`, `not`, and write \
             is_between() instead of a < x < b, is_in() instead of `in`",
        ))
    }

    /// The same values under another name.
    fn alias(&self, #[pyo3(from_py_with = given::name)] name: &str) -> Expr {
        Expr(self.0.alias(name))
    }

    /// The values in another type: a pyarrow type, a NumPy dtype, or a name such as "int32".
    ///
    /// A value that does not fit raises `CastFailed`, which has the row and the value; with
    /// `strict=False` it turns null.
    #[pyo3(signature = (dtype, *, strict=true))]
    fn cast(
        &self,
        dtype: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = given::flag)] strict: bool,
    ) -> PyResult<Expr> {
        Ok(Expr(self.0.cast(types::data_type(dtype)?, strict)))
    }

    /// Whether the value is one of these literals; null if the value is null.
    fn is_in(&self, values: &Bound<'_, PyAny>) -> PyResult<Expr> {
        let py = values.py();
        let _inside = shutdown::enter();
        let advice = "is_in() takes a list, set or array of literals";
        if values.is_instance_of::<PyString>() || values.cast::<Expr>().is_ok() {
            return Err(errors::new(py, "TypeMismatch", advice));
        }
        let items = values.try_iter().map_err(|_| errors::new(py, "TypeMismatch", advice))?;
        let set = items.map(|item| literal::scalar(&item?)).collect::<PyResult<Vec<_>>>()?;
        Ok(Expr(self.0.is_in(set)))
    }

    /// The value `n` rows before, after if `n` is negative; `fill_value` where there is no such row.
    ///
    /// Rows are counted where the step stands: after a filter those that it left. In `agg` of a
    /// group this is `Unsupported`; whether an `update` with it is in place, `Table.update` says.
    #[pyo3(signature = (n=1, *, fill_value=None))]
    fn shift(&self, py: Python<'_>, n: i64, fill_value: Option<Operand>) -> PyResult<Expr> {
        let fill = fill_value.map_or(Tree::literal(Scalar::Null), |fill| fill.0);
        call(py, "shift", vec![self.0.clone(), fill, Tree::literal(n)])
    }

    /// The value minus that `n` rows before; null where there is no such row.
    ///
    /// As in NumPy the type stays, so that differences of unsigned integers wrap; two points in time
    /// give a duration. Rows are counted as in `shift`.
    #[pyo3(signature = (n=1))]
    fn diff(&self, py: Python<'_>, n: i64) -> PyResult<Expr> {
        call(py, "diff", vec![self.0.clone(), Tree::literal(n)])
    }

    /// The value divided by that `n` rows before, less 1; null where there is no such row.
    ///
    /// The change as a share of the value before, always a float: 0.5 from 2 to 3, infinite from
    /// 0. Rows are counted as in `shift`.
    #[pyo3(signature = (n=1))]
    fn pct_change(&self, py: Python<'_>, n: i64) -> PyResult<Expr> {
        call(py, "pct_change", vec![self.0.clone(), Tree::literal(n)])
    }

    fn __repr__(&self) -> String {
        self.0.to_string()
    }
}

#[pymethods]
impl When {
    /// The value where the condition holds.
    fn then(&self, value: Operand) -> Then {
        let mut branches = self.branches.clone();
        branches.push((self.condition.clone(), value.0));
        Then { branches }
    }

    fn __repr__(&self) -> String {
        format!("when({})", self.condition)
    }
}

#[pymethods]
impl Then {
    /// A further condition, for rows that met none so far.
    #[pyo3(signature = (condition))]
    fn when(&self, condition: Operand) -> When {
        When { branches: self.branches.clone(), condition: condition.0 }
    }

    /// The value where no condition holds.
    fn otherwise(&self, value: Operand) -> Expr {
        Expr(self.tree(value.0))
    }

    /// The same values under another name; null where no condition holds.
    fn alias(&self, #[pyo3(from_py_with = given::name)] name: &str) -> Expr {
        Expr(self.tree(Tree::literal(Scalar::Null)).alias(name))
    }

    fn __repr__(&self) -> String {
        self.tree(Tree::literal(Scalar::Null)).to_string()
    }
}

impl Then {
    fn tree(&self, otherwise: Tree) -> Tree {
        self.branches.iter().rev().fold(otherwise, |rest, (condition, value)| {
            Tree::when(condition.clone(), value.clone(), rest)
        })
    }
}

/// A column by its name.
#[pyfunction]
pub fn col(#[pyo3(from_py_with = given::name)] name: &str) -> Expr {
    Expr(Tree::column(name))
}

/// A literal value: int, float, bool, str, None, a date, datetime or timedelta, a NumPy scalar.
///
/// Numbers take the type of the column they meet.
#[pyfunction]
pub fn lit(value: Operand) -> Expr {
    Expr(value.0)
}

/// A value that is given when a prepared query runs: `prepared.run(name=value)`.
///
/// Raises `InvalidArgument` for the names of the run's own arguments, "table" and "checked".
#[pyfunction]
pub fn param(py: Python<'_>, #[pyo3(from_py_with = given::name)] name: &str) -> PyResult<Expr> {
    if ["table", "checked"].contains(&name) {
        let message = format!(
            "a parameter cannot be called {name:?}: run({name}=...) means something else; choose \
             another name"
        );
        return Err(errors::new(py, "InvalidArgument", message));
    }
    Ok(Expr(Tree::param(name)))
}

/// A choice row by row: `when(condition).then(x).otherwise(y)`.
///
/// A null condition does not choose.
#[pyfunction]
pub fn when(condition: Operand) -> When {
    When { branches: Vec::new(), condition: condition.0 }
}

/// The number of rows, of a table or of each group.
#[pyfunction]
pub fn len(py: Python<'_>) -> PyResult<Expr> {
    call(py, "len", Vec::new())
}
