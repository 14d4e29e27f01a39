//! Plans as `insitu.v1.Plan` messages, and back. Nothing else in the engine names the messages of
//! plans.
//!
//! A message is another process's word: its nodes refer only backwards, its size and depth are
//! bounded, and whatever it holds, decoding gives a plan or a typed error.

use std::collections::HashMap;
use std::sync::Arc;

use insitu_query::{DataType, Expr, ExprKind, Plan, Scalar, TimeUnit};
use insitu_schemas::v1;
use prost::Message;

use crate::error::{Error, Result};

/// A message has at most this many bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// A plan has at most this many steps.
pub const MAX_STEPS: usize = 512;
/// A plan has at most this many expression nodes, shared ones counted once.
pub const MAX_NODES: usize = 1 << 16;

/// The message of a plan.
///
/// # Errors
/// `LimitExceeded` for a plan larger than [`decode`] would take, `Unsupported` for types that have
/// no counterpart in a message.
pub fn encode(plan: &Plan) -> Result<Vec<u8>> {
    let mut writer = Writer::default();
    let mut steps = Vec::new();
    let mut at = plan;
    loop {
        let kind = match at {
            Plan::Scan => break,
            Plan::Filter { predicates, .. } => {
                v1::step::Kind::Filter(v1::Filter { predicates: writer.all(predicates)? })
            }
            Plan::Select { exprs, .. } => {
                v1::step::Kind::Select(v1::Select { exprs: writer.all(exprs)? })
            }
            Plan::WithColumns { exprs, .. } => {
                v1::step::Kind::WithColumns(v1::WithColumns { exprs: writer.all(exprs)? })
            }
            Plan::Aggregate { keys, aggs, .. } => v1::step::Kind::Aggregate(v1::Aggregate {
                keys: writer.all(keys)?,
                aggregates: writer.all(aggs)?,
            }),
            Plan::Sort { keys, descending, nulls_last, .. } => v1::step::Kind::Sort(v1::Sort {
                keys: writer.all(keys)?,
                descending: descending.clone(),
                nulls_first: !nulls_last,
            }),
            Plan::Slice { offset, len, .. } => {
                v1::step::Kind::Slice(v1::Slice { offset: *offset, length: *len })
            }
        };
        steps.push(v1::Step { kind: Some(kind) });
        if steps.len() > MAX_STEPS {
            return Err(too_many_steps());
        }
        match at.input() {
            Some(input) => at = input,
            None => break,
        }
    }
    steps.reverse();
    let bytes = v1::Plan { exprs: writer.nodes, steps }.encode_to_vec();
    if bytes.len() > MAX_BYTES {
        return Err(too_large(bytes.len()));
    }
    Ok(bytes)
}

fn too_many_steps() -> Error {
    Error::LimitExceeded(format!(
        "the plan has more than {MAX_STEPS} steps; collect a part of it first"
    ))
}

fn too_large(bytes: usize) -> Error {
    Error::LimitExceeded(format!(
        "the plan's message has {bytes} bytes, at most {MAX_BYTES} are taken"
    ))
}

#[derive(Default)]
struct Writer {
    nodes: Vec<v1::Expr>,
    /// Where a node already stands, by its address: shared nodes travel once.
    known: HashMap<*const ExprKind, u32>,
}

impl Writer {
    fn all(&mut self, exprs: &[Expr]) -> Result<Vec<u32>> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    /// Appends an expression, what it is made of first. Without recursion: an expression may nest
    /// deeper than a small stack allows.
    fn expr(&mut self, root: &Expr) -> Result<u32> {
        let mut pending = vec![(root, false)];
        while let Some((expr, children_done)) = pending.pop() {
            if self.known.contains_key(&std::ptr::from_ref(expr.kind())) {
                continue;
            }
            if children_done {
                self.append(expr)?;
            } else {
                pending.push((expr, true));
                pending.extend(expr.kind().children().into_iter().rev().map(|c| (c, false)));
            }
        }
        self.at(root)
    }

    /// Where an expression stands that was appended.
    fn at(&self, expr: &Expr) -> Result<u32> {
        let at = self.known.get(&std::ptr::from_ref(expr.kind())).copied();
        at.ok_or_else(|| Error::InvalidPlan(format!("{expr} was left out")))
    }

    /// Appends a node whose children stand already.
    fn append(&mut self, expr: &Expr) -> Result<()> {
        let kind = match expr.kind() {
            ExprKind::Column(name) => v1::expr::Kind::Column(name.to_string()),
            ExprKind::Literal(value) => v1::expr::Kind::Literal(scalar_to_wire(value)),
            ExprKind::Param(name) => v1::expr::Kind::Param(name.to_string()),
            ExprKind::Call(function, args) => v1::expr::Kind::Call(v1::Call {
                name: function.name.to_owned(),
                args: args.iter().map(|arg| self.at(arg)).collect::<Result<_>>()?,
            }),
            ExprKind::Cast { input, dtype, strict } => v1::expr::Kind::Cast(v1::Cast {
                input: self.at(input)?,
                r#type: Some(type_to_wire(dtype)?),
                strict: *strict,
            }),
            ExprKind::Alias { input, name } => {
                v1::expr::Kind::Alias(v1::Alias { input: self.at(input)?, name: name.to_string() })
            }
            ExprKind::IsIn { input, values } => v1::expr::Kind::IsIn(v1::IsIn {
                input: self.at(input)?,
                values: values.iter().map(scalar_to_wire).collect(),
            }),
            ExprKind::When { condition, then, otherwise } => v1::expr::Kind::When(v1::When {
                condition: self.at(condition)?,
                then: self.at(then)?,
                otherwise: self.at(otherwise)?,
            }),
            ExprKind::TooLarge => {
                return Err(Error::LimitExceeded(
                    "an expression is too deep or too large; compute parts of it first".into(),
                ));
            }
            _ => {
                return Err(Error::Unsupported(format!("{expr} has no counterpart in a message")));
            }
        };
        if self.nodes.len() >= MAX_NODES {
            return Err(too_many_nodes());
        }
        let at = u32::try_from(self.nodes.len()).map_err(|_| too_many_nodes())?;
        self.nodes.push(v1::Expr { kind: Some(kind) });
        self.known.insert(std::ptr::from_ref(expr.kind()), at);
        Ok(())
    }
}

fn too_many_nodes() -> Error {
    Error::LimitExceeded(format!("the plan has more than {MAX_NODES} expression nodes"))
}

/// The plan of a message. It is not checked against any table yet.
///
/// # Errors
/// `InvalidPlan` for what is no plan, `LimitExceeded`, `InvalidArgument` for functions that do not
/// exist.
pub fn decode(message: &[u8]) -> Result<Plan> {
    if message.len() > MAX_BYTES {
        return Err(too_large(message.len()));
    }
    let message = v1::Plan::decode(message)
        .map_err(|e| Error::InvalidPlan(format!("the bytes are no plan message: {e}")))?;
    if message.steps.len() > MAX_STEPS {
        return Err(too_many_steps());
    }
    if message.exprs.len() > MAX_NODES {
        return Err(too_many_nodes());
    }
    let mut exprs = Exprs(Vec::with_capacity(message.exprs.len()));
    for node in message.exprs {
        let expr = exprs.decode(node)?;
        if matches!(expr.kind(), ExprKind::TooLarge) {
            return Err(Error::LimitExceeded(format!(
                "an expression nests deeper than {} or has more than {} nodes",
                insitu_query::MAX_DEPTH,
                insitu_query::MAX_SIZE
            )));
        }
        exprs.0.push(expr);
    }
    let mut plan = Plan::Scan;
    for step in message.steps {
        let input = Arc::new(plan);
        plan = match step.kind.ok_or_else(|| invalid("a step is of no kind known here"))? {
            v1::step::Kind::Filter(step) => {
                Plan::Filter { input, predicates: exprs.all(&step.predicates)? }
            }
            v1::step::Kind::Select(step) => Plan::Select { input, exprs: exprs.all(&step.exprs)? },
            v1::step::Kind::WithColumns(step) => {
                Plan::WithColumns { input, exprs: exprs.all(&step.exprs)? }
            }
            v1::step::Kind::Aggregate(step) => Plan::Aggregate {
                input,
                keys: exprs.all(&step.keys)?,
                aggs: exprs.all(&step.aggregates)?,
            },
            v1::step::Kind::Sort(step) => Plan::Sort {
                input,
                keys: exprs.all(&step.keys)?,
                descending: step.descending,
                nulls_last: !step.nulls_first,
            },
            v1::step::Kind::Slice(step) => {
                Plan::Slice { input, offset: step.offset, len: step.length }
            }
        };
    }
    Ok(plan)
}

fn invalid(what: &str) -> Error {
    Error::InvalidPlan(format!("{what}; the message may come from a newer version"))
}

/// The expressions decoded so far.
struct Exprs(Vec<Expr>);

impl Exprs {
    fn get(&self, at: u32) -> Result<Expr> {
        let expr = usize::try_from(at).ok().and_then(|at| self.0.get(at));
        expr.cloned().ok_or_else(|| {
            Error::InvalidPlan(format!(
                "a reference to expression {at}, which does not come before it"
            ))
        })
    }

    fn all(&self, list: &[u32]) -> Result<Vec<Expr>> {
        list.iter().map(|at| self.get(*at)).collect()
    }

    fn decode(&self, node: v1::Expr) -> Result<Expr> {
        let kind = node.kind.ok_or_else(|| invalid("an expression is of no kind known here"))?;
        Ok(match kind {
            v1::expr::Kind::Column(name) => Expr::column(name),
            v1::expr::Kind::Literal(value) => Expr::literal(scalar_from_wire(value)?),
            v1::expr::Kind::Param(name) => Expr::param(name),
            v1::expr::Kind::Call(call) => Expr::call(&call.name, self.all(&call.args)?)?,
            v1::expr::Kind::Cast(cast) => {
                let dtype = cast.r#type.ok_or_else(|| invalid("a cast to no type"))?;
                self.get(cast.input)?.cast(type_from_wire(&dtype)?, cast.strict)
            }
            v1::expr::Kind::When(when) => Expr::when(
                self.get(when.condition)?,
                self.get(when.then)?,
                self.get(when.otherwise)?,
            ),
            v1::expr::Kind::IsIn(is_in) => {
                let values = is_in.values.into_iter().map(scalar_from_wire);
                self.get(is_in.input)?.is_in(values.collect::<Result<_>>()?)
            }
            v1::expr::Kind::Alias(alias) => self.get(alias.input)?.alias(alias.name),
        })
    }
}

fn scalar_to_wire(value: &Scalar) -> v1::Scalar {
    use v1::scalar::Value;
    let value = match value {
        Scalar::Null => None,
        Scalar::Bool(v) => Some(Value::Boolean(*v)),
        Scalar::Int(v) => Some(Value::Integer(*v)),
        Scalar::UInt(v) => Some(Value::Unsigned(*v)),
        Scalar::Float(v) => Some(Value::Float(*v)),
        Scalar::Str(v) => Some(Value::Text(v.to_string())),
        Scalar::Date32(v) => Some(Value::Date(*v)),
        Scalar::Timestamp { value, unit, tz } => Some(Value::Timestamp(v1::TimestampValue {
            value: *value,
            unit: unit_to_wire(*unit).into(),
            timezone: tz.as_deref().map(str::to_owned),
        })),
        Scalar::Duration { value, unit } => Some(Value::Duration(v1::DurationValue {
            value: *value,
            unit: unit_to_wire(*unit).into(),
        })),
    };
    v1::Scalar { value }
}

fn scalar_from_wire(value: v1::Scalar) -> Result<Scalar> {
    use v1::scalar::Value;
    Ok(match value.value {
        None => Scalar::Null,
        Some(Value::Boolean(v)) => Scalar::Bool(v),
        Some(Value::Integer(v)) => Scalar::Int(v),
        Some(Value::Unsigned(v)) => Scalar::UInt(v),
        Some(Value::Float(v)) => Scalar::Float(v),
        Some(Value::Text(v)) => Scalar::Str(v.into()),
        Some(Value::Date(v)) => Scalar::Date32(v),
        Some(Value::Timestamp(v)) => Scalar::Timestamp {
            value: v.value,
            unit: unit_from_wire(v.unit)?,
            tz: v.timezone.map(Arc::from),
        },
        Some(Value::Duration(v)) => {
            Scalar::Duration { value: v.value, unit: unit_from_wire(v.unit)? }
        }
    })
}

fn unit_to_wire(unit: TimeUnit) -> v1::TimeUnit {
    match unit {
        TimeUnit::Second => v1::TimeUnit::Second,
        TimeUnit::Millisecond => v1::TimeUnit::Millisecond,
        TimeUnit::Microsecond => v1::TimeUnit::Microsecond,
        TimeUnit::Nanosecond => v1::TimeUnit::Nanosecond,
    }
}

fn unit_from_wire(unit: i32) -> Result<TimeUnit> {
    match v1::TimeUnit::try_from(unit) {
        Ok(v1::TimeUnit::Second) => Ok(TimeUnit::Second),
        Ok(v1::TimeUnit::Millisecond) => Ok(TimeUnit::Millisecond),
        Ok(v1::TimeUnit::Microsecond) => Ok(TimeUnit::Microsecond),
        Ok(v1::TimeUnit::Nanosecond) => Ok(TimeUnit::Nanosecond),
        Ok(v1::TimeUnit::Unspecified) | Err(_) => Err(invalid("a unit of time is not known here")),
    }
}

fn type_to_wire(dtype: &DataType) -> Result<v1::DataType> {
    use v1::data_type::Kind;
    let (mut unit, mut timezone) = (v1::TimeUnit::Unspecified, None);
    let kind = match dtype {
        DataType::Null => Kind::Null,
        DataType::Bool => Kind::Bool,
        DataType::Int8 => Kind::Int8,
        DataType::Int16 => Kind::Int16,
        DataType::Int32 => Kind::Int32,
        DataType::Int64 => Kind::Int64,
        DataType::UInt8 => Kind::Uint8,
        DataType::UInt16 => Kind::Uint16,
        DataType::UInt32 => Kind::Uint32,
        DataType::UInt64 => Kind::Uint64,
        DataType::Float16 => Kind::Float16,
        DataType::Float32 => Kind::Float32,
        DataType::Float64 => Kind::Float64,
        DataType::Date32 => Kind::Date32,
        DataType::Date64 => Kind::Date64,
        DataType::Time32(u) => {
            unit = unit_to_wire(*u);
            Kind::Time32
        }
        DataType::Time64(u) => {
            unit = unit_to_wire(*u);
            Kind::Time64
        }
        DataType::Timestamp(u, tz) => {
            unit = unit_to_wire(*u);
            timezone = tz.as_deref().map(str::to_owned);
            Kind::Timestamp
        }
        DataType::Duration(u) => {
            unit = unit_to_wire(*u);
            Kind::Duration
        }
        DataType::Utf8 => Kind::Utf8,
        DataType::LargeUtf8 => Kind::LargeUtf8,
        DataType::Utf8View => Kind::Utf8View,
        DataType::Opaque(name) => {
            return Err(Error::Unsupported(format!("a cast to {name} cannot be sent")));
        }
    };
    Ok(v1::DataType { kind: kind.into(), unit: unit.into(), timezone })
}

fn type_from_wire(dtype: &v1::DataType) -> Result<DataType> {
    use v1::data_type::Kind;
    let unit = || unit_from_wire(dtype.unit);
    Ok(match Kind::try_from(dtype.kind) {
        Ok(Kind::Null) => DataType::Null,
        Ok(Kind::Bool) => DataType::Bool,
        Ok(Kind::Int8) => DataType::Int8,
        Ok(Kind::Int16) => DataType::Int16,
        Ok(Kind::Int32) => DataType::Int32,
        Ok(Kind::Int64) => DataType::Int64,
        Ok(Kind::Uint8) => DataType::UInt8,
        Ok(Kind::Uint16) => DataType::UInt16,
        Ok(Kind::Uint32) => DataType::UInt32,
        Ok(Kind::Uint64) => DataType::UInt64,
        Ok(Kind::Float16) => DataType::Float16,
        Ok(Kind::Float32) => DataType::Float32,
        Ok(Kind::Float64) => DataType::Float64,
        Ok(Kind::Date32) => DataType::Date32,
        Ok(Kind::Date64) => DataType::Date64,
        Ok(Kind::Time32) => DataType::Time32(unit()?),
        Ok(Kind::Time64) => DataType::Time64(unit()?),
        Ok(Kind::Timestamp) => {
            DataType::Timestamp(unit()?, dtype.timezone.as_deref().map(Arc::from))
        }
        Ok(Kind::Duration) => DataType::Duration(unit()?),
        Ok(Kind::Utf8) => DataType::Utf8,
        Ok(Kind::LargeUtf8) => DataType::LargeUtf8,
        Ok(Kind::Utf8View) => DataType::Utf8View,
        Ok(Kind::Unspecified) | Err(_) => return Err(invalid("a type is not known here")),
    })
}

#[cfg(test)]
mod tests;
