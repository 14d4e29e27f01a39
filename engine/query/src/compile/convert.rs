//! Types meet: literals take a column's type, two sides their common one, values change type without
//! a check. The rules are those of `typing`.

use insitu_kernels::prim::Prim;
use insitu_kernels::tile::Arith;

use crate::compile::graph::{Id, Op, Repr};
use crate::compile::lower::*;
use crate::dtype::{DataType, TimeUnit};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::FunctionId;
use crate::scalar::Scalar;
use crate::typing::{beside, finer, natural, per_day, promote, scalar_bits};

impl Lower<'_> {
    /// The node of a settled number or boolean.
    pub(super) fn node_of(&self, t: &Typed) -> Result<Id> {
        match t.value {
            Value::Node(id) => Ok(id),
            _ => Err(Error::Unsupported(format!("values of type {} are not computed on", t.dtype))),
        }
    }

    pub(super) fn null_of(&mut self, dtype: &DataType) -> Result<Typed> {
        let no = self.graph.boolean(false);
        let value = match dtype.prim() {
            Some(p) => self.graph.number(p, 0),
            None if *dtype == DataType::Bool => no,
            None => {
                return Err(Error::Unsupported(format!(
                    "a null literal of type {dtype}; leave the column out, or use a number"
                )));
            }
        };
        Ok(node(dtype.clone(), value, Some(no)))
    }

    /// The literal, or what stands for one, as a constant of exactly that type.
    pub(super) fn literal(&mut self, value: &Value, dtype: &DataType, what: &str) -> Result<Typed> {
        let Some(s) = value.weak() else {
            return Err(Error::InvalidPlan(format!("{what} is no literal")));
        };
        if matches!(s, Scalar::Null) {
            if *dtype == DataType::Null {
                let no = self.graph.boolean(false);
                return Ok(node(DataType::Null, no, Some(no)));
            }
            return self.null_of(dtype);
        }
        if matches!(s, Scalar::Str(_)) && dtype.is_string() {
            return Err(Error::Unsupported(format!(
                "{what}: a column of the literal {s}; strings can be compared, not made yet"
            )));
        }
        let bits = scalar_bits(s, dtype).ok_or_else(|| {
            Error::TypeMismatch(format!("{what}: {s} cannot be written as {dtype}"))
        })?;
        let value = match (value, dtype.prim()) {
            (Value::Param(name, _), Some(p)) => self.graph.param(name, dtype, p),
            (_, Some(p)) => self.graph.number(p, bits),
            (_, None) if *dtype == DataType::Bool => self.graph.boolean(bits != 0),
            (_, None) => {
                return Err(Error::Unsupported(format!(
                    "{what}: a column of type {dtype} cannot be made of {s}"
                )));
            }
        };
        Ok(node(dtype.clone(), value, None))
    }

    /// An implicit change of type, along the rules of `typing`.
    pub(super) fn coerce(&mut self, t: Typed, to: &DataType, arg: &Expr) -> Result<Typed> {
        if t.value.weak().is_some() {
            return self.literal(&t.value, to, &arg.to_string());
        }
        if t.dtype == *to {
            return Ok(t);
        }
        if t.dtype == DataType::Null {
            return self.null_of(to);
        }
        self.convert(t, to)
    }

    /// Changes the type without any check: numbers as Rust's `as`, times by their unit.
    pub(super) fn convert(&mut self, t: Typed, to: &DataType) -> Result<Typed> {
        use DataType::*;
        let v = self.node_of(&t)?;
        let value = match (&t.dtype, to) {
            (a, b) if a == b => v,
            (Bool, _) => {
                let p = prim(to)?;
                self.graph.add(Op::BoolToNum, p, Repr::Num(p), &[v])
            }
            (a, Bool) => {
                let p = prim(a)?;
                self.graph.add(Op::NumToBool, p, Repr::Bits, &[v])
            }
            (Date32, Date64) => {
                let wide = self.graph.cast(Prim::I32, Prim::I64, v);
                self.scale(wide, 86_400_000)
            }
            (Date32, Timestamp(u, _)) => {
                let wide = self.graph.cast(Prim::I32, Prim::I64, v);
                self.scale(wide, per_day(*u))
            }
            (Timestamp(u, _), Date32) => {
                let days = self.scale_down(v, per_day(*u));
                self.graph.cast(Prim::I64, Prim::I32, days)
            }
            (Date64, Date32) => {
                let days = self.scale_down(v, 86_400_000);
                self.graph.cast(Prim::I64, Prim::I32, days)
            }
            (Date64, Timestamp(u, _)) => self.rescaled(v, TimeUnit::Millisecond, *u),
            (Timestamp(u, _), Date64) => {
                let days = self.scale_down(v, per_day(*u));
                self.scale(days, 86_400_000)
            }
            (Timestamp(a, _), Timestamp(b, _)) | (Duration(a), Duration(b)) => {
                self.rescaled(v, *a, *b)
            }
            (a @ (Time32(u) | Time64(u)), b @ (Time32(w) | Time64(w))) => {
                let wide = self.graph.cast(prim(a)?, Prim::I64, v);
                let there = self.rescaled(wide, *u, *w);
                self.graph.cast(Prim::I64, prim(b)?, there)
            }
            (a, b) => self.graph.cast(prim(a)?, prim(b)?, v),
        };
        Ok(node(to.clone(), value, t.valid))
    }

    pub(super) fn scale(&mut self, v: Id, by: i64) -> Id {
        let c = self.graph.number(Prim::I64, by as u64);
        self.graph.arith(Arith::Mul, Prim::I64, v, c)
    }

    pub(super) fn scale_down(&mut self, v: Id, by: i64) -> Id {
        let c = self.graph.number(Prim::I64, by as u64);
        self.graph.arith(Arith::FloorDiv, Prim::I64, v, c)
    }

    pub(super) fn rescaled(&mut self, v: Id, from: TimeUnit, to: TimeUnit) -> Id {
        let (f, t) = (from.per_second(), to.per_second());
        match t.cmp(&f) {
            std::cmp::Ordering::Equal => v,
            std::cmp::Ordering::Greater => self.scale(v, t / f),
            std::cmp::Ordering::Less => self.scale_down(v, f / t),
        }
    }

    /// The type of a side that may be a literal, beside the other.
    pub(super) fn side_type(&self, t: &Typed, other: &Typed) -> DataType {
        match (t.value.weak(), other.value.weak()) {
            (Some(s), Some(_)) => natural(s),
            (Some(s), None) => self.literal_type(s, &other.dtype),
            _ => t.dtype.clone(),
        }
    }

    pub(super) fn literal_type(&self, s: &Scalar, other: &DataType) -> DataType {
        match (s, other) {
            // A time literal takes the column's type if it is exact there.
            (Scalar::Date32(_) | Scalar::Timestamp { .. } | Scalar::Duration { .. }, _)
                if scalar_bits(s, other).is_some() =>
            {
                other.clone()
            }
            (Scalar::Bool(_), _) => DataType::Bool,
            _ => beside(s, other),
        }
    }

    /// Both sides in their common type.
    pub(super) fn unify(
        &mut self,
        a: Typed,
        b: Typed,
        args: [&Expr; 2],
        e: &Expr,
    ) -> Result<(Typed, Typed)> {
        let (ta, tb) = (self.side_type(&a, &b), self.side_type(&b, &a));
        let common = common_type(&ta, &tb).ok_or_else(|| {
            Error::TypeMismatch(format!(
                "{e}: {} is {ta} and {} is {tb}, which have no common type; {}",
                args[0],
                args[1],
                advice(&ta, &tb)
            ))
        })?;
        Ok((self.coerce(a, &common, args[0])?, self.coerce(b, &common, args[1])?))
    }

    /// [`Lower::unify`] for what chooses between its sides, and so makes a new column of them.
    pub(super) fn unify_choice(
        &mut self,
        a: Typed,
        b: Typed,
        args: [&Expr; 2],
        e: &Expr,
    ) -> Result<(Typed, Typed)> {
        // Before literals take the type, which they cannot if it is none that can be made.
        if let Some(t) = common_type(&self.side_type(&a, &b), &self.side_type(&b, &a)) {
            no_strings(&t, e)?;
        }
        self.unify(a, b, args, e)
    }

    pub(super) fn as_bool(&mut self, t: Typed, arg: &Expr) -> Result<Typed> {
        let t = self.settled(t)?;
        match t.dtype {
            DataType::Bool => Ok(t),
            DataType::Null => self.null_of(&DataType::Bool),
            _ => Err(Error::TypeMismatch(format!(
                "{arg} is {}, a boolean is needed here; compare it with something, or cast it to bool",
                t.dtype
            ))),
        }
    }
}

pub(super) fn weak(s: Scalar) -> Typed {
    Typed { dtype: natural(&s), value: Value::Weak(s), valid: None }
}

pub(super) fn node(dtype: DataType, value: Id, valid: Option<Id>) -> Typed {
    Typed { dtype, value: Value::Node(value), valid }
}

pub(super) fn prim(t: &DataType) -> Result<Prim> {
    t.prim().ok_or_else(|| Error::Unsupported(format!("values of type {t} are not computed on")))
}

/// Strings can be compared, not yet chosen between.
pub(super) fn no_strings(t: &DataType, e: &Expr) -> Result<()> {
    if t.prim().is_some() || matches!(t, DataType::Bool | DataType::Null) {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "{e}: choosing between values of type {t} is not supported yet, only between numbers, \
         booleans and times; choose between numbers that stand for them"
    )))
}

/// Numbers as the time's own integers, when a time is cast to or from numbers.
pub(super) fn physical(t: &DataType, other: &DataType) -> DataType {
    if t.is_temporal() && (other.is_numeric() || *other == DataType::Bool) {
        t.prim().map_or(DataType::Int64, DataType::of_prim)
    } else {
        t.clone()
    }
}

pub(super) fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (Null, t) | (t, Null) => Some(t.clone()),
        (Timestamp(u, x), Timestamp(v, y)) if x.is_some() == y.is_some() => {
            Some(Timestamp(finer(*u, *v), x.clone()))
        }
        (Date32, Timestamp(u, None)) | (Timestamp(u, None), Date32) => Some(Timestamp(*u, None)),
        (Date64, Timestamp(u, None)) | (Timestamp(u, None), Date64) => {
            Some(Timestamp(finer(*u, TimeUnit::Millisecond), None))
        }
        (Date32, Date64) | (Date64, Date32) => Some(Date64),
        (Duration(u), Duration(v)) => Some(Duration(finer(*u, *v))),
        _ => promote(a, b),
    }
}

/// What to do about two types that do not go together.
pub(super) fn advice(a: &DataType, b: &DataType) -> &'static str {
    use DataType::*;
    match (a, b) {
        (Timestamp(..), Timestamp(..)) => {
            "one has a time zone and the other has none: give both one, or neither"
        }
        (s, t) | (t, s) if s.is_string() && t.is_temporal() => {
            "write dates and times as datetime.date and datetime.datetime, not as strings"
        }
        (s, t) | (t, s) if s.is_string() && t.is_numeric() => {
            "compare strings with strings and numbers with numbers"
        }
        (Float16, _) | (_, Float16) => {
            "insitu does not compute on float16: cast it to float32, and back if need be"
        }
        (Opaque(_), _) | (_, Opaque(_)) => "insitu stores that type but does not compute on it",
        _ => "cast one side",
    }
}

pub(super) fn mismatch(e: &Expr, arg: &Expr, t: &DataType, want: &str) -> Error {
    Error::TypeMismatch(format!("{e}: {arg} is {t}, not {want}"))
}

pub(super) fn symbol(id: FunctionId) -> &'static str {
    id.function().symbol().unwrap_or(id.function().name)
}

/// Whether the bits are the scalar itself, and not a float that it rounds to.
pub(super) fn exact(s: &Scalar, bits: u64, t: &DataType) -> bool {
    let back = match t {
        DataType::Float32 => f64::from(f32::from_bits(bits as u32)),
        DataType::Float64 => f64::from_bits(bits),
        _ => return true,
    };
    match s {
        Scalar::Int(v) => back as i128 == i128::from(*v),
        Scalar::UInt(v) => back as i128 == i128::from(*v),
        // A literal beside a float32 column is a float32.
        Scalar::Float(v) => !v.is_nan(),
        _ => true,
    }
}
