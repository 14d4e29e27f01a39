//! The tree over typed operands: numexpr's kinds and casts, written out as an expression.

use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::evaluate::constant::{self, Constant};
use crate::evaluate::functions::{Function, Rule};
use crate::evaluate::lexer::shown;
use crate::evaluate::parser::{Binary, Node, Unary};
use crate::evaluate::{Formula, Kind, Lowered, Operand};
use crate::expr::Expr;
use crate::scalar::Scalar;

/// Powers up to this, whole and half ones, are products, as in numexpr.
const MAX_PRODUCT: f64 = 50.0;

/// What a node came to.
#[derive(Clone)]
enum Value {
    Constant(Constant),
    Rows(Expr, Kind),
}

impl Value {
    fn kind(&self) -> Kind {
        match self {
            Value::Constant(c) => c.kind(),
            Value::Rows(_, kind) => *kind,
        }
    }
}

pub(super) fn lower(formula: &Formula, operands: &[Operand]) -> Result<Lowered> {
    let mut done: Vec<Value> = Vec::with_capacity(formula.nodes.len());
    let lost = || Error::InvalidPlan("a part of the formula was lost".into());
    let lower = Lower { formula };
    for node in &formula.nodes {
        let of = |id: &usize| done.get(*id).cloned().ok_or_else(lost);
        let value = match node {
            Node::Constant(c) => Value::Constant(*c),
            Node::Variable(index) => {
                let (Some(name), Some(operand)) = (formula.names.get(*index), operands.get(*index))
                else {
                    return Err(lost());
                };
                variable(name, operand)?
            }
            Node::Unary(op, a) => lower.unary(*op, &of(a)?)?,
            Node::Binary(op, a, b) => lower.binary(*op, &of(a)?, &of(b)?)?,
            Node::Call(function, args) => {
                let args = args.iter().map(of).collect::<Result<Vec<_>>>()?;
                lower.call(function, &args)?
            }
            Node::Query(_) => return Err(lost()),
        };
        if let Value::Rows(expr, _) = &value {
            expr.check_limits()?;
        }
        done.push(value);
    }
    match done.pop().ok_or_else(lost)? {
        Value::Constant(c) => Ok(Lowered::Constant(c.scalar(c.kind())?, c.kind())),
        Value::Rows(_, kind @ Kind::Bool) if formula.reduction.is_some() => {
            let name = formula.reduction.map_or("", |(r, _)| r.name());
            Err(lower.mismatch(name, &[kind]))
        }
        Value::Rows(expr, kind) => Ok(Lowered::Rows(expr, kind)),
    }
}

fn variable(name: &std::sync::Arc<str>, operand: &Operand) -> Result<Value> {
    let kind = operand.kind().ok_or_else(|| {
        Error::Unsupported(format!(
            "the operand {name:?} is {}, on which formulas do not compute",
            operand.dtype
        ))
    })?;
    let given = match operand.scalar {
        true => Expr::param(name.clone()),
        false => Expr::column(name.clone()),
    };
    let expr = match kind {
        Kind::Bool if operand.scalar => given.ne(Scalar::Int(0)),
        Kind::Bool => given.cast(DataType::Bool, true),
        // A parameter is given as a 64-bit number.
        _ if operand.scalar || kind.data_type() != operand.dtype => {
            given.cast(kind.data_type(), true)
        }
        _ => given,
    };
    Ok(Value::Rows(expr, kind))
}

/// A constant beside what has that kind already, whose type it takes.
fn literal(c: Constant, kind: Kind) -> Result<Expr> {
    c.scalar(kind).map(Expr::literal)
}

/// The value in a kind that is at least its own.
fn cast(value: &Value, kind: Kind) -> Result<Expr> {
    Ok(match value {
        Value::Constant(c) => literal(*c, kind)?.cast(kind.data_type(), true),
        Value::Rows(expr, own) if *own == kind => expr.clone(),
        Value::Rows(expr, _) => expr.cast(kind.data_type(), true),
    })
}

/// Two values in one kind.
fn both(a: &Value, b: &Value, kind: Kind) -> Result<(Expr, Expr)> {
    Ok(match (a, b) {
        (Value::Rows(..), Value::Constant(c)) => (cast(a, kind)?, literal(*c, kind)?),
        (Value::Constant(c), Value::Rows(..)) => (literal(*c, kind)?, cast(b, kind)?),
        _ => (cast(a, kind)?, cast(b, kind)?),
    })
}

struct Lower<'f> {
    formula: &'f Formula,
}

impl Lower<'_> {
    fn mismatch(&self, what: &str, kinds: &[Kind]) -> Error {
        let kinds: Vec<&str> = kinds.iter().map(|k| k.name()).collect();
        Error::TypeMismatch(format!(
            "{what} does not take {} (in {})",
            kinds.join(" and "),
            shown(&self.formula.text)
        ))
    }

    fn unary(&self, op: Unary, a: &Value) -> Result<Value> {
        let (expr, kind) = match a {
            Value::Constant(c) => return constant::unary(op, *c).map(Value::Constant),
            Value::Rows(expr, kind) => (expr, *kind),
        };
        match op {
            Unary::Neg if kind != Kind::Bool => Ok(Value::Rows(expr.neg(), kind)),
            Unary::Not if !kind.is_float() => Ok(Value::Rows(expr.not_(), kind)),
            Unary::Neg => Err(self.mismatch("-", &[kind])),
            Unary::Not => Err(self.mismatch("~", &[kind])),
        }
    }

    fn binary(&self, op: Binary, a: &Value, b: &Value) -> Result<Value> {
        use Binary::*;
        if let (Value::Constant(x), Value::Constant(y)) = (a, b) {
            return constant::binary(op, *x, *y).map(Value::Constant);
        }
        let kind = a.kind().max(b.kind());
        let wrong = || self.mismatch(op.symbol(), &[a.kind(), b.kind()]);
        if op == Pow {
            return self.power(a, b);
        }
        if op == Div {
            let kind = kind.max(Kind::Float);
            let kind = if a.kind().max(b.kind()).is_float() { kind } else { Kind::Double };
            return self.divide(a, b, kind);
        }
        let fits = match op {
            Sub | FloorDiv | Mod => kind != Kind::Bool,
            ShiftLeft | ShiftRight => kind.is_integer(),
            And | Or | Xor => !kind.is_float(),
            _ => true,
        };
        if !fits {
            return Err(wrong());
        }
        let (x, y) = both(a, b, kind)?;
        Ok(match op {
            Add if kind == Kind::Bool => Value::Rows(x.or_(y), kind),
            Mul if kind == Kind::Bool => Value::Rows(x.and_(y), kind),
            Add => Value::Rows(x.add(y), kind),
            Sub => Value::Rows(x.sub(y), kind),
            Mul => Value::Rows(x.mul(y), kind),
            // By zero it is 0.
            FloorDiv if kind.is_integer() => {
                Value::Rows(x.floordiv(y).fill_null(Scalar::Int(0)), kind)
            }
            Mod if kind.is_integer() => Value::Rows(x.rem(y).fill_null(Scalar::Int(0)), kind),
            FloorDiv => Value::Rows(x.truediv(y).floor(), kind),
            Mod => Value::Rows(x.sub(x.truediv(y.clone()).floor().mul(y)), kind),
            ShiftLeft => Value::Rows(x.lshift(y), kind),
            ShiftRight => Value::Rows(x.rshift(y), kind),
            And => Value::Rows(x.and_(y), kind),
            Or => Value::Rows(x.or_(y), kind),
            Xor => Value::Rows(x.xor(y), kind),
            Lt => Value::Rows(x.lt(y), Kind::Bool),
            Le => Value::Rows(x.le(y), Kind::Bool),
            Eq => Value::Rows(x.eq(y), Kind::Bool),
            Ne => Value::Rows(x.ne(y), Kind::Bool),
            Ge => Value::Rows(x.ge(y), Kind::Bool),
            Gt => Value::Rows(x.gt(y), Kind::Bool),
            Div | Pow => return Err(wrong()),
        })
    }

    fn divide(&self, a: &Value, b: &Value, kind: Kind) -> Result<Value> {
        if let Value::Constant(c @ Constant::Float(divisor)) = b
            && !self.formula.exact
            && a.kind() == c.kind()
            && divisor.recip().is_finite()
        {
            let factor = literal(Constant::Float(divisor.recip()), kind)?;
            return Ok(Value::Rows(cast(a, kind)?.mul(factor), kind));
        }
        let (x, y) = both(a, b, kind)?;
        Ok(Value::Rows(x.truediv(y), kind))
    }

    fn power(&self, a: &Value, b: &Value) -> Result<Value> {
        let kind = a.kind().max(b.kind());
        if let (Value::Rows(..), Value::Constant(c)) = (a, b) {
            if a.kind().is_integer() && c.integer().is_some_and(|v| v < 0) {
                return Err(Error::InvalidArgument(format!(
                    "an integer to a negative power is no integer; cast it to float first (in {})",
                    shown(&self.formula.text)
                )));
            }
            let exponent = c.float();
            if !self.formula.exact
                && exponent.abs() <= MAX_PRODUCT
                && (2.0 * exponent).fract() == 0.0
            {
                return self.product(a, exponent);
            }
        }
        match kind {
            Kind::Bool => Err(self.mismatch("**", &[a.kind(), b.kind()])),
            Kind::Int | Kind::Long => Ok(Value::Rows(integer_power(a, b, kind)?, kind)),
            _ => {
                let (x, y) = both(a, b, kind)?;
                Ok(Value::Rows(x.pow(y), kind))
            }
        }
    }

    /// A whole or half power by products of squares.
    fn product(&self, a: &Value, exponent: f64) -> Result<Value> {
        let whole = exponent.abs().trunc() as u32;
        let mut result: Option<Value> = None;
        let mut square = a.clone();
        let mut left = whole;
        while left > 0 {
            if left & 1 == 1 {
                result = Some(match result {
                    Some(r) => self.binary(Binary::Mul, &r, &square)?,
                    None => square.clone(),
                });
            }
            left >>= 1;
            if left > 0 {
                square = self.binary(Binary::Mul, &square, &square)?;
            }
        }
        if exponent.fract() != 0.0 {
            if a.kind() == Kind::Bool {
                return Err(self.mismatch("**", &[a.kind(), Kind::Double]));
            }
            let kind = if a.kind().is_float() { a.kind() } else { Kind::Double };
            let root = Value::Rows(cast(a, kind)?.sqrt(), kind);
            result = Some(match result {
                Some(r) => self.binary(Binary::Mul, &r, &root)?,
                None => root,
            });
        }
        let result = match result {
            Some(result) => result,
            None if a.kind() == Kind::Bool => return Err(self.mismatch("**", &[a.kind()])),
            None => Value::Rows(cast(&Value::Constant(Constant::Int(1)), a.kind())?, a.kind()),
        };
        if exponent < 0.0 {
            return self.binary(Binary::Div, &Value::Constant(Constant::Int(1)), &result);
        }
        Ok(result)
    }

    fn call(&self, function: &Function, args: &[Value]) -> Result<Value> {
        let constants: Option<Vec<Constant>> =
            args.iter().map(|a| if let Value::Constant(c) = a { Some(*c) } else { None }).collect();
        if let Some(value) = constants.and_then(|c| constant::call(function.name, &c)) {
            return Ok(Value::Constant(value));
        }
        let (Some(a), b) = (args.first(), args.get(1)) else {
            return Err(self.mismatch(function.name, &[]));
        };
        if function.rule == Rule::Where {
            return self.choice(args);
        }
        let common = args.iter().map(Value::kind).max().unwrap_or(Kind::Double);
        let kind = match function.rule {
            Rule::Same => common,
            Rule::IntegerOrDouble if common.is_integer() => common,
            Rule::IntegerOrDouble | Rule::Double => Kind::Double,
            _ if common.is_integer() => Kind::Double,
            _ => common.max(Kind::Float),
        };
        let x = cast(a, kind)?;
        let y = b.map(|b| cast(b, kind)).transpose()?;
        let expr = match (function.name, y) {
            ("copy", _) => x,
            ("ones_like", _) if kind == Kind::Bool => {
                return Err(self.mismatch("ones_like", &[kind]));
            }
            ("ones_like", _) => cast(&Value::Constant(Constant::Int(1)), kind)?,
            ("real", _) => x,
            ("imag", _) => cast(&Value::Constant(Constant::Float(0.0)), kind)?,
            ("abs", _) => x.abs(),
            ("round", _) => x.round(0),
            // Of both zeros the positive one.
            ("sign", _) if kind == Kind::Double => x.sign().add(Scalar::Float(0.0)),
            ("isnan", _) => x.is_nan(),
            ("isinf", _) => x.is_infinite(),
            ("isfinite", _) => x.is_finite(),
            // Also the sign of a zero or a NaN.
            ("signbit", _) => Expr::literal(Scalar::Float(1.0)).copysign(x).lt(Scalar::Float(0.0)),
            ("fmod", Some(y)) => x.abs().rem(y.abs()).copysign(x),
            ("maximum", Some(y)) => Expr::when(x.gt(y.clone()).or_(x.is_nan()), x, y),
            ("minimum", Some(y)) => Expr::when(x.lt(y.clone()).or_(x.is_nan()), x, y),
            (name, Some(y)) => Expr::call(name, vec![x, y])?,
            (name, None) if kind.is_integer() && name == "round" => x,
            (name, None) => Expr::call(name, vec![x])?,
        };
        Ok(Value::Rows(expr, if function.rule == Rule::Test { Kind::Bool } else { kind }))
    }

    fn choice(&self, args: &[Value]) -> Result<Value> {
        let [condition, a, b] = args else { return Err(self.mismatch("where", &[])) };
        let mask = match condition {
            Value::Constant(c) => return Ok(if c.float() != 0.0 { a } else { b }.clone()),
            Value::Rows(mask, Kind::Bool) => mask.clone(),
            Value::Rows(_, kind) => {
                return Err(self.mismatch("where: the condition", &[*kind]));
            }
        };
        let kind = a.kind().max(b.kind());
        Ok(Value::Rows(Expr::when(mask, cast(a, kind)?, cast(b, kind)?), kind))
    }
}

/// A power of integers, exact where it fits, the smallest integer where it does not. To a negative
/// power only 1 and -1 are no fractions; the others give 0.
fn integer_power(a: &Value, b: &Value, kind: Kind) -> Result<Expr> {
    let (x, y) = (cast(a, kind)?, cast(b, kind)?);
    let (least, limit) = match kind {
        Kind::Int => (i64::from(i32::MIN), 2f64.powi(31)),
        _ => (i64::MIN, 2f64.powi(63)),
    };
    let of = |v: i64| cast(&Value::Constant(Constant::Int(i128::from(v))), kind);
    let (zero, one) = (of(0)?, of(1)?);
    // Beyond 63 only 0, 1 and -1 have powers that fit, for which the exponent's last bit does.
    let mut power = one.clone();
    let mut square = x.clone();
    for bit in 0..6 {
        let set = y.and_(of(1 << bit)?).ne(zero.clone());
        power = Expr::when(set, power.mul(square.clone()), power);
        square = square.mul(square.clone());
    }
    let power = Expr::when(x.eq(zero.clone()).and_(y.gt(zero.clone())), zero.clone(), power);
    let size = x.cast(DataType::Float64, true).pow(y.cast(DataType::Float64, true)).abs();
    let power = Expr::when(size.lt(Scalar::Float(limit)), power, of(least)?);
    let inverse = Expr::when(x.abs().eq(one), x, zero.clone());
    Ok(Expr::when(y.lt(zero), inverse, power))
}
