//! Expressions: plain immutable trees, cheap to clone, checked for depth and size as they are
//! built, so that nothing that walks them can overflow the stack.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;

use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::functions::{Function, FunctionId, FunctionKind};
use crate::scalar::Scalar;

/// Expressions nest at most this deep.
pub const MAX_DEPTH: u32 = 512;
/// Expressions have at most this many nodes, shared ones counted as often as they are used.
pub const MAX_SIZE: u32 = 1 << 16;

/// An expression over the columns of a table.
#[derive(Clone)]
pub struct Expr(pub(crate) Arc<Node>);

pub(crate) struct Node {
    pub(crate) kind: ExprKind,
    depth: u32,
    size: u32,
    has_aggregate: bool,
    has_window: bool,
    has_cumulative: bool,
    /// Of all that is below too.
    hash: u64,
}

/// What an expression is made of.
#[non_exhaustive]
pub enum ExprKind {
    /// The column of that name.
    Column(Arc<str>),
    /// A value.
    Literal(Scalar),
    /// A value given when the query runs.
    Param(Arc<str>),
    /// A function of the one table.
    Call(&'static Function, Vec<Expr>),
    /// A change of type.
    Cast {
        /// What is cast.
        input: Expr,
        /// To which type.
        dtype: DataType,
        /// Whether a value that does not fit is an error; else it turns null.
        strict: bool,
    },
    /// A new name.
    Alias {
        /// What is named.
        input: Expr,
        /// The name.
        name: Arc<str>,
    },
    /// Whether the value is one of a set.
    IsIn {
        /// What is looked for.
        input: Expr,
        /// The set.
        values: Arc<[Scalar]>,
    },
    /// A choice row by row; a null condition does not choose `then`.
    When {
        /// The condition.
        condition: Expr,
        /// The value where it holds.
        then: Expr,
        /// The value elsewhere.
        otherwise: Expr,
    },
    /// Stands for an expression that passed a limit; any use of it is `LimitExceeded`.
    TooLarge,
}

impl ExprKind {
    /// The expressions directly below, in order.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            ExprKind::Column(_)
            | ExprKind::Literal(_)
            | ExprKind::Param(_)
            | ExprKind::TooLarge => Vec::new(),
            ExprKind::Call(_, args) => args.iter().collect(),
            ExprKind::Cast { input, .. }
            | ExprKind::Alias { input, .. }
            | ExprKind::IsIn { input, .. } => vec![input],
            ExprKind::When { condition, then, otherwise } => vec![condition, then, otherwise],
        }
    }
}

impl ExprKind {
    fn hash(&self) -> u64 {
        let mut state = FxHasher::default();
        std::mem::discriminant(self).hash(&mut state);
        match self {
            ExprKind::Column(name) | ExprKind::Param(name) => name.hash(&mut state),
            ExprKind::Literal(value) => value.hash(&mut state),
            ExprKind::Call(f, _) => f.id.hash(&mut state),
            ExprKind::Cast { dtype, strict, .. } => (dtype, strict).hash(&mut state),
            ExprKind::Alias { name, .. } => name.hash(&mut state),
            ExprKind::IsIn { values, .. } => values.hash(&mut state),
            ExprKind::When { .. } | ExprKind::TooLarge => {}
        }
        for child in self.children() {
            state.write_u64(child.0.hash);
        }
        state.finish()
    }

    /// Whether both are the same, but for what is below.
    fn is_like(&self, other: &ExprKind) -> bool {
        use ExprKind::*;
        match (self, other) {
            (Column(a), Column(b)) | (Param(a), Param(b)) => a == b,
            (Literal(a), Literal(b)) => a == b,
            (Call(f, a), Call(g, b)) => f.id == g.id && a.len() == b.len(),
            (Cast { dtype: t, strict: s, .. }, Cast { dtype: u, strict: r, .. }) => {
                t == u && s == r
            }
            (Alias { name: a, .. }, Alias { name: b, .. }) => a == b,
            (IsIn { values: a, .. }, IsIn { values: b, .. }) => a == b,
            (When { .. }, When { .. }) => true,
            // What was too large can have been anything.
            _ => false,
        }
    }
}

impl Expr {
    /// A hash of the whole expression; equal for what [`Expr::is_same`].
    pub(crate) fn fingerprint(&self) -> u64 {
        self.0.hash
    }

    /// Whether both are the same tree of the same parts.
    pub(crate) fn is_same(&self, other: &Expr) -> bool {
        let mut stack = vec![(self, other)];
        while let Some((a, b)) = stack.pop() {
            if Arc::ptr_eq(&a.0, &b.0) {
                continue;
            }
            if a.0.hash != b.0.hash || a.0.size != b.0.size || !a.kind().is_like(b.kind()) {
                return false;
            }
            stack.extend(a.kind().children().into_iter().zip(b.kind().children()));
        }
        true
    }

    fn new(kind: ExprKind) -> Expr {
        let (mut depth, mut size) = (1u32, 1u32);
        let (mut has_aggregate, mut has_window, mut has_cumulative) = (false, false, false);
        for child in kind.children() {
            depth = depth.max(child.0.depth.saturating_add(1));
            size = size.saturating_add(child.0.size);
            has_aggregate |= child.0.has_aggregate;
            has_window |= child.0.has_window;
            has_cumulative |= child.0.has_cumulative;
        }
        if let ExprKind::Call(f, _) = &kind {
            has_aggregate |= f.kind == FunctionKind::Aggregate;
            has_cumulative |= f.kind == FunctionKind::Cumulative;
            has_window |= f.kind == FunctionKind::Window || has_cumulative;
        }
        let hash = kind.hash();
        if depth > MAX_DEPTH || size > MAX_SIZE {
            return Expr(Arc::new(Node {
                kind: ExprKind::TooLarge,
                depth: MAX_DEPTH,
                size: MAX_SIZE,
                has_aggregate: false,
                has_window: false,
                has_cumulative: false,
                hash,
            }));
        }
        let node = Node { kind, depth, size, has_aggregate, has_window, has_cumulative, hash };
        Expr(Arc::new(node))
    }

    /// The column of that name.
    pub fn column(name: impl Into<Arc<str>>) -> Expr {
        Expr::new(ExprKind::Column(name.into()))
    }

    /// A value.
    pub fn literal(value: impl Into<Scalar>) -> Expr {
        Expr::new(ExprKind::Literal(value.into()))
    }

    /// A value given when the query runs.
    pub fn param(name: impl Into<Arc<str>>) -> Expr {
        Expr::new(ExprKind::Param(name.into()))
    }

    /// The number of rows.
    pub fn len() -> Expr {
        Expr::of(FunctionId::Len, Vec::new())
    }

    /// A call of the function of that name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name or a wrong number of arguments,
    /// [`Error::LimitExceeded`] if the expression gets too deep or too large.
    pub fn call(function: &str, args: Vec<Expr>) -> Result<Expr> {
        let f = Function::by_name(function)
            .ok_or_else(|| Error::InvalidArgument(format!("no function named {function:?}")))?;
        if !f.takes(args.len()) {
            let least = if f.kind == FunctionKind::Horizontal { "at least " } else { "" };
            return Err(Error::InvalidArgument(format!(
                "{f} takes {least}{} arguments, {} were given",
                f.arity(),
                args.len()
            )));
        }
        let call = Expr::of(f.id, args);
        call.check_limits()?;
        Ok(call)
    }

    /// A call whose arity is known to fit.
    pub(crate) fn of(id: FunctionId, args: Vec<Expr>) -> Expr {
        Expr::new(ExprKind::Call(id.function(), args))
    }

    /// The value in another type. Strict: a value that does not fit is `CastFailed` when the
    /// query runs; else it turns null.
    pub fn cast(&self, dtype: DataType, strict: bool) -> Expr {
        Expr::new(ExprKind::Cast { input: self.clone(), dtype, strict })
    }

    /// The same under another name.
    pub fn alias(&self, name: impl Into<Arc<str>>) -> Expr {
        Expr::new(ExprKind::Alias { input: self.clone(), name: name.into() })
    }

    /// Whether the value is one of these. A null value gives null; nulls in the set match
    /// nothing.
    pub fn is_in(&self, values: Vec<Scalar>) -> Expr {
        Expr::new(ExprKind::IsIn { input: self.clone(), values: values.into() })
    }

    /// `then` where the condition holds, `otherwise` where it is false or null.
    pub fn when(condition: Expr, then: Expr, otherwise: Expr) -> Expr {
        Expr::new(ExprKind::When { condition, then, otherwise })
    }

    /// What the expression is made of.
    pub fn kind(&self) -> &ExprKind {
        &self.0.kind
    }

    /// Whether an aggregate is called anywhere in it.
    pub fn has_aggregate(&self) -> bool {
        self.0.has_aggregate
    }

    /// Whether a row's value depends on other rows, too.
    pub fn has_window(&self) -> bool {
        self.0.has_window
    }

    /// Whether a row's value depends on all rows before it, or after it.
    pub(crate) fn has_cumulative(&self) -> bool {
        self.0.has_cumulative
    }

    /// The name of the column it makes: the alias, else the name of the leftmost column, else
    /// `len` for the row count and `literal` for values.
    pub fn output_name(&self) -> Arc<str> {
        let mut e = self;
        loop {
            match e.kind() {
                ExprKind::Column(n) | ExprKind::Param(n) => return n.clone(),
                ExprKind::Alias { name, .. } => return name.clone(),
                ExprKind::Literal(_) | ExprKind::TooLarge => return "literal".into(),
                ExprKind::Call(f, args) => match args.iter().find(|a| !a.is_valueless()) {
                    Some(first) => e = first,
                    None if f.id == FunctionId::Len => return "len".into(),
                    None => return "literal".into(),
                },
                ExprKind::Cast { input, .. } | ExprKind::IsIn { input, .. } => e = input,
                ExprKind::When { then, .. } => e = then,
            }
        }
    }

    /// Literals lend no name to what is made of them.
    fn is_valueless(&self) -> bool {
        matches!(self.kind(), ExprKind::Literal(_) | ExprKind::TooLarge)
    }

    /// # Errors
    /// [`Error::LimitExceeded`] if a limit was passed while the expression was built.
    pub(crate) fn check_limits(&self) -> Result<()> {
        // A child that is too large has the largest depth itself, so its parents are, too.
        if matches!(self.kind(), ExprKind::TooLarge) {
            return Err(Error::LimitExceeded(format!(
                "the expression nests deeper than {MAX_DEPTH} or has more than {MAX_SIZE} nodes; compute parts of it with with_columns first"
            )));
        }
        Ok(())
    }
}

/// An option that is a word.
type Text<'a> = &'a str;

macro_rules! methods {
    ($($id:ident $method:ident $name:literal $args:tt $kind:ident $rule:ident $nulls:ident $failure:ident $doc:literal;)*) => {
        /// One method per function of the table.
        #[allow(clippy::should_implement_trait)]
        impl Expr {
            $(method! { $kind $id $method $args $doc })*
        }
    };
}

macro_rules! method {
    ($kind:ident $id:ident $method:ident () $doc:literal) => {};
    (Horizontal $id:ident $method:ident ($args:ident) $doc:literal) => {
        #[doc = $doc]
        pub fn $method($args: Vec<Expr>) -> Expr {
            Expr::of(FunctionId::$id, $args)
        }
    };
    ($kind:ident $id:ident $method:ident (
        $receiver:ident $(, $arg:ident)* $(; $($option:ident : $t:ident = $default:tt),+)?
    ) $doc:literal) => {
        #[doc = $doc]
        pub fn $method(
            &self $(, $arg: impl Into<Expr>)* $($(, $option: $t)+)?
        ) -> Expr {
            Expr::of(
                FunctionId::$id,
                vec![self.clone() $(, $arg.into())* $($(, $option.into())+)?],
            )
        }
    };
}

crate::function_table!(methods);

impl From<&Expr> for Expr {
    fn from(e: &Expr) -> Expr {
        e.clone()
    }
}

macro_rules! literals {
    ($($t:ty),*) => {$(
        impl From<$t> for Expr {
            fn from(v: $t) -> Expr {
                Expr::literal(Scalar::from(v))
            }
        }
    )*};
}

literals!(bool, i32, i64, u64, f64, &str, String);

impl From<Scalar> for Expr {
    fn from(v: Scalar) -> Expr {
        Expr::literal(v)
    }
}

macro_rules! operators {
    ($($tr:ident $method:ident $id:ident),*) => {$(
        impl<R: Into<Expr>> std::ops::$tr<R> for Expr {
            type Output = Expr;
            fn $method(self, right: R) -> Expr {
                Expr::of(FunctionId::$id, vec![self, right.into()])
            }
        }
    )*};
}

operators!(
    Add add Add, Sub sub Sub, Mul mul Mul, Div div Div, Rem rem Mod,
    BitAnd bitand And, BitOr bitor Or, BitXor bitxor Xor,
    Shl shl ShiftLeft, Shr shr ShiftRight
);

impl std::ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        Expr::of(FunctionId::Neg, vec![self])
    }
}

impl std::ops::Not for Expr {
    type Output = Expr;
    fn not(self) -> Expr {
        Expr::of(FunctionId::Not, vec![self])
    }
}

fn list(f: &mut fmt::Formatter<'_>, exprs: &[Expr]) -> fmt::Result {
    for (i, e) in exprs.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{e}")?;
    }
    Ok(())
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ExprKind::Column(n) => write!(f, "col({n:?})"),
            ExprKind::Literal(v) => write!(f, "{v}"),
            ExprKind::Param(n) => write!(f, "param({n:?})"),
            ExprKind::Call(function, args) => match (function.symbol(), args.as_slice()) {
                (Some(s), [a]) => write!(f, "{s}{a}"),
                (Some(s), [a, b]) if function.id == FunctionId::Pow => {
                    write!(f, "({} {s} {b})", Tight(a))
                }
                (Some(s), [a, b]) => write!(f, "({a} {s} {b})"),
                (_, []) => write!(f, "{}()", function.name),
                (_, args) if function.kind == FunctionKind::Horizontal => {
                    write!(f, "{}(", function.name)?;
                    list(f, args)?;
                    f.write_str(")")
                }
                (_, [first, fill, n]) if function.id == FunctionId::Shift => {
                    // As its Python method takes them.
                    write!(f, "{}.shift({n}", Tight(first))?;
                    match fill.kind() {
                        ExprKind::Literal(Scalar::Null) => {}
                        _ => write!(f, ", fill_value={fill}")?,
                    }
                    f.write_str(")")
                }
                (_, [first, reverse]) if function.kind == FunctionKind::Cumulative => {
                    write!(f, "{}.{}(", Tight(first), function.name)?;
                    match reverse.kind() {
                        ExprKind::Literal(Scalar::Bool(false)) => {}
                        _ => write!(f, "reverse={reverse}")?,
                    }
                    f.write_str(")")
                }
                (_, [first, rest @ ..]) => {
                    write!(f, "{}.{}(", Tight(first), function.name)?;
                    list(f, rest)?;
                    f.write_str(")")
                }
            },
            ExprKind::Cast { input, dtype, strict: true } => {
                write!(f, "{}.cast(\"{dtype}\")", Tight(input))
            }
            ExprKind::Cast { input, dtype, strict: false } => {
                write!(f, "{}.cast(\"{dtype}\", strict=False)", Tight(input))
            }
            ExprKind::Alias { input, name } => write!(f, "{}.alias({name:?})", Tight(input)),
            ExprKind::IsIn { input, values } => {
                write!(f, "{}.is_in([", Tight(input))?;
                for (i, v) in values.iter().enumerate().take(8) {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{v}")?;
                }
                f.write_str(if values.len() > 8 { ", ...])" } else { "])" })
            }
            ExprKind::When { condition, then, otherwise } => {
                write!(f, "when({condition}).then({then}).otherwise({otherwise})")
            }
            ExprKind::TooLarge => f.write_str("..."),
        }
    }
}

/// In brackets if it begins with a sign, which binds looser than a method's dot and a power.
struct Tight<'a>(&'a Expr);

impl fmt::Display for Tight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            ExprKind::Call(function, args) if args.len() == 1 && function.symbol().is_some() => {
                write!(f, "({})", self.0)
            }
            _ => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_it_would_be_written() {
        let e = (Expr::column("a") * 2 + Expr::column("b")).lt(3.5).alias("x");
        assert_eq!(
            e.to_string(),
            r#"((col("a") * 2) + col("b")) < 3.5).alias("x")"#.replacen("((", "(((", 1)
        );
        assert_eq!(&*e.output_name(), "x");
        assert_eq!(&*(Expr::literal(1) + Expr::column("a")).output_name(), "a");
        assert_eq!(&*Expr::len().output_name(), "len");
        let a = Expr::column("a");
        let null = Expr::literal(Scalar::Null);
        assert_eq!(a.shift(null, 2).to_string(), r#"col("a").shift(2)"#);
        assert_eq!(a.shift(0, -1).to_string(), r#"col("a").shift(-1, fill_value=0)"#);
        assert_eq!(a.cum_sum(false).to_string(), r#"col("a").cum_sum()"#);
        assert_eq!(a.cum_max(true).to_string(), r#"col("a").cum_max(reverse=True)"#);
        assert_eq!(a.neg().abs().to_string(), r#"(-col("a")).abs()"#);
        assert_eq!(a.abs().neg().to_string(), r#"-col("a").abs()"#);
        assert_eq!(a.neg().pow(2).to_string(), r#"((-col("a")) ** 2)"#);
        assert_eq!(a.pow(2).neg().to_string(), r#"-(col("a") ** 2)"#);
    }

    #[test]
    fn too_deep_expressions_are_refused_and_do_not_overflow_the_stack() {
        let mut e = Expr::column("a");
        for _ in 0..100_000 {
            e = e + 1;
        }
        assert!(matches!(e.check_limits(), Err(Error::LimitExceeded(_))));
        assert!(matches!(Expr::call("neg", vec![e]), Err(Error::LimitExceeded(_))));
    }

    #[test]
    fn shared_nodes_count_as_often_as_they_are_used() {
        let mut e = Expr::column("a");
        for _ in 0..40 {
            e = e.clone() + e;
        }
        assert!(matches!(e.check_limits(), Err(Error::LimitExceeded(_))));
    }

    #[test]
    fn calls_check_name_and_arity() {
        assert!(matches!(Expr::call("nope", vec![]), Err(Error::InvalidArgument(_))));
        assert!(matches!(Expr::call("add", vec![Expr::len()]), Err(Error::InvalidArgument(_))));
    }
}
