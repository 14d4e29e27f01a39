//! Numbers that stand in a formula, and what is computed of them alone: as Python would, before
//! any array is looked at.

use crate::error::{Error, Result};
use crate::evaluate::Kind;
use crate::evaluate::parser::{Binary, Unary};
use crate::scalar::Scalar;

/// A constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Constant {
    Bool(bool),
    /// An int of Python.
    Int(i128),
    /// A 64-bit integer, as functions give it.
    Long(i128),
    Float(f64),
}

impl Constant {
    pub(super) fn kind(self) -> Kind {
        match self {
            Constant::Bool(_) => Kind::Bool,
            Constant::Int(v) if i32::try_from(v).is_ok() => Kind::Int,
            Constant::Int(_) | Constant::Long(_) => Kind::Long,
            Constant::Float(_) => Kind::Double,
        }
    }

    /// The constant as a value of a kind; integers must fit 64 bits.
    pub(super) fn scalar(self, kind: Kind) -> Result<Scalar> {
        Ok(match kind {
            Kind::Bool => Scalar::Bool(self.float() != 0.0),
            Kind::Int | Kind::Long => {
                let value = self.integer().unwrap_or_default();
                Scalar::Int(i64::try_from(value).map_err(|_| too_large(value))?)
            }
            Kind::Float => match self.integer() {
                Some(value) => Scalar::Float(f64::from(value as f32)),
                None => Scalar::Float(f64::from(self.float() as f32)),
            },
            Kind::Double => Scalar::Float(self.float()),
        })
    }

    pub(super) fn integer(self) -> Option<i128> {
        match self {
            Constant::Bool(v) => Some(i128::from(v)),
            Constant::Int(v) | Constant::Long(v) => Some(v),
            Constant::Float(_) => None,
        }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Constant::Float(v) => v,
            other => other.integer().unwrap_or_default() as f64,
        }
    }
}

fn too_large(value: i128) -> Error {
    Error::LimitExceeded(format!("the number {value} does not fit 64 bits"))
}

pub(super) fn unary(op: Unary, a: Constant) -> Result<Constant> {
    let whole =
        |v: Option<i128>| v.ok_or_else(|| Error::LimitExceeded("a constant overflows".into()));
    Ok(match (op, a) {
        (Unary::Neg, Constant::Float(v)) => Constant::Float(-v),
        (Unary::Neg, Constant::Long(v)) => Constant::Long(whole(v.checked_neg())?),
        (Unary::Neg, other) => Constant::Int(whole(other.integer().and_then(i128::checked_neg))?),
        (Unary::Not, Constant::Float(_)) => {
            return Err(Error::TypeMismatch(
                "~ does not apply to the constant: it is a float".into(),
            ));
        }
        (Unary::Not, Constant::Long(v)) => Constant::Long(!v),
        (Unary::Not, other) => Constant::Int(!other.integer().unwrap_or_default()),
    })
}

pub(super) fn binary(op: Binary, a: Constant, b: Constant) -> Result<Constant> {
    use Binary::*;
    let overflow =
        || Error::LimitExceeded(format!("{} of constants does not fit 64 bits", op.symbol()));
    let by_zero = || Error::InvalidArgument("the formula divides a constant by zero".into());
    if let (Constant::Bool(x), Constant::Bool(y)) = (a, b) {
        match op {
            And => return Ok(Constant::Bool(x & y)),
            Or => return Ok(Constant::Bool(x | y)),
            Xor => return Ok(Constant::Bool(x ^ y)),
            _ => {}
        }
    }
    if let (Some(x), Some(y)) = (a.integer(), b.integer()) {
        let long = matches!(a, Constant::Long(_)) || matches!(b, Constant::Long(_));
        let of = |v: Option<i128>| {
            let v = v.ok_or_else(overflow)?;
            Ok(if long { Constant::Long(v) } else { Constant::Int(v) })
        };
        let floor = |x: i128, y: i128| {
            let q = x.checked_div(y)?;
            Some(if x % y != 0 && (x < 0) != (y < 0) { q - 1 } else { q })
        };
        return match op {
            Add => of(x.checked_add(y)),
            Sub => of(x.checked_sub(y)),
            Mul => of(x.checked_mul(y)),
            Div | FloorDiv | Mod if y == 0 => Err(by_zero()),
            Div => Ok(Constant::Float(x as f64 / y as f64)),
            FloorDiv => of(floor(x, y)),
            Mod => of(floor(x, y).and_then(|q| q.checked_mul(y)).and_then(|p| x.checked_sub(p))),
            Pow if y < 0 && x == 0 => Err(by_zero()),
            Pow if y < 0 => Ok(Constant::Float((x as f64).powf(y as f64))),
            Pow => of(u32::try_from(y).ok().and_then(|y| x.checked_pow(y))),
            ShiftLeft => {
                of(u32::try_from(y).ok().filter(|y| *y < 100).and_then(|y| x.checked_mul(1 << y)))
            }
            ShiftRight => of(u32::try_from(y).ok().map(|y| x >> y.min(127))),
            And => of(Some(x & y)),
            Or => of(Some(x | y)),
            Xor => of(Some(x ^ y)),
            Lt => Ok(Constant::Bool(x < y)),
            Le => Ok(Constant::Bool(x <= y)),
            Eq => Ok(Constant::Bool(x == y)),
            Ne => Ok(Constant::Bool(x != y)),
            Ge => Ok(Constant::Bool(x >= y)),
            Gt => Ok(Constant::Bool(x > y)),
        };
    }
    let (x, y) = (a.float(), b.float());
    Ok(match op {
        Add => Constant::Float(x + y),
        Sub => Constant::Float(x - y),
        Mul => Constant::Float(x * y),
        Div | FloorDiv | Mod if y == 0.0 => return Err(by_zero()),
        Div => Constant::Float(x / y),
        FloorDiv => Constant::Float((x / y).floor()),
        Mod => {
            let r = x % y;
            Constant::Float(if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r })
        }
        Pow => Constant::Float(x.powf(y)),
        Lt => Constant::Bool(x < y),
        Le => Constant::Bool(x <= y),
        Eq => Constant::Bool(x == y),
        Ne => Constant::Bool(x != y),
        Ge => Constant::Bool(x >= y),
        Gt => Constant::Bool(x > y),
        ShiftLeft | ShiftRight | And | Or | Xor => {
            return Err(Error::TypeMismatch(format!(
                "{} does not apply to constants that are floats",
                op.symbol()
            )));
        }
    })
}

/// A function of constants; none for those that are no functions of numbers.
pub(super) fn call(name: &str, args: &[Constant]) -> Option<Constant> {
    let a = args.first().copied()?;
    let b = args.get(1).copied();
    if let Some(v) = a.integer() {
        match (name, b.map(Constant::integer)) {
            // What saturates fits no 64 bits either, and is the same in floats.
            ("abs", _) => return Some(Constant::Long(v.saturating_abs())),
            ("sign", _) => return Some(Constant::Long(v.signum())),
            ("round" | "floor" | "ceil" | "trunc", _) => return Some(Constant::Long(v)),
            ("maximum", Some(Some(w))) => return Some(Constant::Long(v.max(w))),
            ("minimum", Some(Some(w))) => return Some(Constant::Long(v.min(w))),
            ("copy", _) => return Some(a),
            ("ones_like", _) => return Some(Constant::Int(1)),
            _ => {}
        }
    }
    let x = a.float();
    let y = b.map_or(0.0, Constant::float);
    let nan = x.is_nan() || y.is_nan();
    Some(Constant::Float(match name {
        "isnan" => return Some(Constant::Bool(x.is_nan())),
        "isinf" => return Some(Constant::Bool(x.is_infinite())),
        "isfinite" => return Some(Constant::Bool(x.is_finite())),
        "signbit" => return Some(Constant::Bool(x.is_sign_negative())),
        "abs" => x.abs(),
        "arccos" => x.acos(),
        "arccosh" => x.acosh(),
        "arcsin" => x.asin(),
        "arcsinh" => x.asinh(),
        "arctan" => x.atan(),
        "arctan2" => x.atan2(y),
        "arctanh" => x.atanh(),
        "ceil" => x.ceil(),
        "copy" | "real" => x,
        "copysign" => x.copysign(y),
        "cos" => x.cos(),
        "cosh" => x.cosh(),
        "exp" => x.exp(),
        "expm1" => x.exp_m1(),
        "floor" => x.floor(),
        "fmod" => x % y,
        "hypot" => x.hypot(y),
        "imag" => 0.0,
        "log" => x.ln(),
        "log10" => x.log10(),
        "log1p" => x.ln_1p(),
        "log2" => x.log2(),
        "maximum" | "minimum" if nan => f64::NAN,
        "maximum" => x.max(y),
        "minimum" => x.min(y),
        "nextafter" if nan => f64::NAN,
        "nextafter" if x < y => x.next_up(),
        "nextafter" if x > y => x.next_down(),
        "nextafter" => y,
        "ones_like" => 1.0,
        "round" => x.round_ties_even(),
        "sign" if x.is_nan() || x == 0.0 => x + 0.0,
        "sign" => x.signum(),
        "sin" => x.sin(),
        "sinh" => x.sinh(),
        "sqrt" => x.sqrt(),
        "tan" => x.tan(),
        "tanh" => x.tanh(),
        "trunc" => x.trunc(),
        _ => return None,
    }))
}
