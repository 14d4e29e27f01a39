//! Typing of aggregates, and their settings.

use insitu_kernels::group::Aggregate;
use insitu_kernels::reduce::{Interpolation, Quantile};

use crate::compile::builder::Builder;
use crate::compile::planner::Planner;
use crate::compile::stage::Agg;
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::expr::{Expr, ExprKind};
use crate::functions::{Function, FunctionId, TypeRule};
use crate::scalar::Scalar;
use crate::typing::{product_type, sum_type};

impl Planner<'_> {
    /// The aggregate `call` of function `f`.
    pub(super) fn agg(
        &self,
        b: &mut Builder,
        call: &Expr,
        f: &Function,
        args: &[Expr],
    ) -> Result<Agg> {
        use FunctionId as F;
        let mut arg = match args.first() {
            Some(a) => Some(self.lower(b, a)?),
            None => None,
        };
        if let Some(a) = arg.as_mut().filter(|a| a.dtype == DataType::Null) {
            // A column of nulls has no bitmap that says so.
            a.valid = Some(b.graph.boolean(false));
        }
        let t = arg.as_ref().map_or(DataType::Int64, |a| a.dtype.clone());
        let wrong = || {
            let needs = match f.rule {
                TypeRule::AllBool => "booleans; compare it with something",
                TypeRule::Mean | TypeRule::Product => "numbers",
                _ => "numbers or times",
            };
            Error::TypeMismatch(format!(
                "{call}: {} is {t}, which has no {}; it needs {needs}",
                args.first().map(Expr::to_string).unwrap_or_default(),
                f.name,
            ))
        };
        let ordered = || match t {
            DataType::Bool => Ok(()),
            _ if t.is_numeric() || t.is_temporal() => Ok(()),
            _ if t.is_string() => Err(Error::Unsupported(format!(
                "{call}: {} of strings is not implemented yet",
                f.name
            ))),
            _ => Err(wrong()),
        };
        let dtype = match f.rule {
            TypeRule::Sum => sum_type(&t).ok_or_else(wrong)?,
            TypeRule::Product => product_type(&t).ok_or_else(wrong)?,
            TypeRule::Mean if t == DataType::Bool || t.is_numeric() => DataType::Float64,
            TypeRule::Mean => return Err(wrong()),
            TypeRule::Ordered => {
                ordered()?;
                t.clone()
            }
            TypeRule::AllBool if t == DataType::Bool => t.clone(),
            TypeRule::AllBool => return Err(wrong()),
            TypeRule::Same => t.clone(),
            _ => DataType::Int64,
        };
        let passed_through = match f.id {
            F::First | F::Last => !t.is_movable() || t == DataType::Null,
            // By their bits two zeros would be two, and NaN many.
            F::NUnique => !t.is_key() || t == DataType::Null,
            _ => false,
        };
        if passed_through {
            return Err(Error::Unsupported(format!(
                "{call}: {} is {t}, which insitu stores but does not compute on",
                args.first().map(Expr::to_string).unwrap_or_default(),
            )));
        }
        let aggregate = match f.id {
            F::Sum => Aggregate::Sum,
            F::Mean => Aggregate::Mean,
            F::Min => Aggregate::Min,
            F::Max => Aggregate::Max,
            F::Count => Aggregate::Count,
            F::Len => Aggregate::Len,
            F::Product => Aggregate::Product,
            F::Var => Aggregate::Var { ddof: ddof(call, args)? },
            F::Std => Aggregate::Std { ddof: ddof(call, args)? },
            F::Any => Aggregate::Any,
            F::All => Aggregate::All,
            F::First => Aggregate::First,
            F::Last => Aggregate::Last,
            F::ArgMin | F::ArgMax => {
                ordered()?;
                if f.id == F::ArgMin { Aggregate::ArgMin } else { Aggregate::ArgMax }
            }
            F::NUnique => Aggregate::NUnique,
            F::Median => Aggregate::Quantile(Quantile::MEDIAN),
            F::Quantile => Aggregate::Quantile(quantile(call, args)?),
            _ => return Err(Error::InvalidPlan(format!("{call} is no aggregate"))),
        };
        // Variances are those of floats.
        if let (Aggregate::Var { .. } | Aggregate::Std { .. }, Some(e)) = (aggregate, args.first())
            && !t.is_float()
        {
            arg = Some(self.lower(b, &e.cast(DataType::Float64, false))?);
        }
        Ok(Agg { function: f.id, aggregate, arg, dtype, text: call.to_string() })
    }
}

/// A setting of an aggregate. Not a parameter: programs are compiled for the settings.
fn setting<'e>(call: &Expr, arg: Option<&'e Expr>) -> Result<&'e Scalar> {
    match arg.map(Expr::kind) {
        Some(ExprKind::Literal(s)) => Ok(s),
        _ => Err(Error::InvalidArgument(format!(
            "{call}: the settings of an aggregate are literals, neither columns nor parameters"
        ))),
    }
}

fn ddof(call: &Expr, args: &[Expr]) -> Result<u64> {
    let ddof = match setting(call, args.get(1))? {
        Scalar::Int(v) => u64::try_from(*v).ok(),
        Scalar::UInt(v) => Some(*v),
        _ => None,
    };
    ddof.ok_or_else(|| Error::InvalidArgument(format!("{call}: ddof is a whole number from 0 on")))
}

fn quantile(call: &Expr, args: &[Expr]) -> Result<Quantile> {
    let how = match setting(call, args.get(2))? {
        Scalar::Str(s) => Interpolation::by_name(s),
        _ => None,
    };
    let how = how.ok_or_else(|| {
        Error::InvalidArgument(format!(
            "{call}: interpolation is one of linear, nearest, lower, higher, midpoint"
        ))
    })?;
    let quantile = match setting(call, args.get(1))? {
        Scalar::Float(q) => Quantile::new(*q, how),
        Scalar::Int(q) => Quantile::new(*q as f64, how),
        _ => None,
    };
    quantile.ok_or_else(|| {
        Error::InvalidArgument(format!("{call}: the share q is a number from 0 to 1"))
    })
}
