//! Queries as text: expressions over columns, for faces whose languages cannot build them.
//!
//! They are written as in Python, `price * size > $least and carrier == 'AA'`, with its operators and
//! their precedence; `and`, `or` and `not` are `&`, `|` and `~`, but bind looser than comparisons. A
//! name is a column, in backquotes if it is no plain word; `$name` is a parameter;
//! strings stand in single or double quotes; functions are those of the one table, by their wire
//! names, `is_null(x)`, `sum(x)`, `len()`, options at the end left out or given in order, and
//! `where(condition, a, b)` and `is_in(x, 1, 2)`. Types are those of plans, not numexpr's.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::evaluate::constant::Constant;
use crate::evaluate::parser::{Binary, Expressions, Node, QueryNode, Unary, parse_list, parse_one};
use crate::expr::{Expr, ExprKind};
use crate::functions::FunctionId;
use crate::plan::Plan;
use crate::scalar::Scalar;

/// One expression.
///
/// # Errors
/// [`Error::InvalidPlan`] for text that is no expression, with the position of what is wrong;
/// [`Error::LimitExceeded`]; [`Error::InvalidArgument`].
pub fn expression(text: &str) -> Result<Expr> {
    let (_, mut exprs) = lower(parse_one(text)?)?;
    exprs.pop().ok_or_else(lost)
}

/// The plan of a projection and a filter, as of SQL's SELECT and WHERE: first the filter, then the
/// expressions between commas, `a, b * 2 AS twice`. `*` stands for all columns, which the
/// expressions after it, as in `*, b * 2 AS b`, are added to, or replace by name.
///
/// # Errors
/// Those of [`expression`].
pub fn plan(select: Option<&str>, filter: Option<&str>) -> Result<Plan> {
    let mut plan = Plan::Scan;
    if let Some(filter) = filter {
        plan = Plan::Filter { input: Arc::new(plan), predicates: vec![expression(filter)?] };
    }
    if let Some(select) = select {
        let (all, exprs) = lower(parse_list(select)?)?;
        let input = Arc::new(plan);
        plan = match all {
            false => Plan::Select { input, exprs },
            true if exprs.is_empty() => return Ok(Arc::unwrap_or_clone(input)),
            true => Plan::WithColumns { input, exprs },
        };
    }
    Ok(plan)
}

fn lost() -> Error {
    Error::InvalidPlan("a part of the expression was lost".into())
}

/// The expressions that were read, and whether all columns come before them.
fn lower(read: Expressions) -> Result<(bool, Vec<Expr>)> {
    let Expressions { nodes, names, all, roots } = read;
    let mut done: Vec<Expr> = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let expr = one(node, &names, &done)?;
        expr.check_limits()?;
        done.push(expr);
    }
    let roots = roots.into_iter().map(|(root, name)| {
        let expr = done.get(root).ok_or_else(lost)?;
        Ok(name.map_or_else(|| expr.clone(), |name| expr.alias(name)))
    });
    Ok((all, roots.collect::<Result<_>>()?))
}

fn one(node: &Node, names: &[Arc<str>], done: &[Expr]) -> Result<Expr> {
    let of = |id: &usize| done.get(*id).cloned().ok_or_else(lost);
    let all = |ids: &[usize]| ids.iter().map(of).collect::<Result<Vec<Expr>>>();
    Ok(match node {
        Node::Constant(constant) => Expr::literal(scalar(*constant)?),
        Node::Variable(index) => Expr::column(names.get(*index).ok_or_else(lost)?.clone()),
        Node::Unary(Unary::Not, a) => !of(a)?,
        Node::Unary(Unary::Neg, a) => {
            let a = of(a)?;
            match a.kind() {
                // A number with a sign is a number: an option may want one.
                ExprKind::Literal(Scalar::Int(v)) if *v != i64::MIN => Expr::literal(-v),
                ExprKind::Literal(Scalar::UInt(v)) if *v == i64::MIN.unsigned_abs() => {
                    Expr::literal(i64::MIN)
                }
                ExprKind::Literal(Scalar::Float(v)) => Expr::literal(-v),
                _ => -a,
            }
        }
        Node::Binary(op, a, b) => Expr::of(operator(*op), vec![of(a)?, of(b)?]),
        Node::Query(QueryNode::Null) => Expr::literal(Scalar::Null),
        Node::Query(QueryNode::Text(text)) => Expr::literal(Scalar::Str(text.clone())),
        Node::Query(QueryNode::Param(name)) => Expr::param(name.clone()),
        Node::Query(QueryNode::Call(function, args)) => Expr::of(function.id, all(args)?),
        Node::Query(QueryNode::Where(condition, a, b)) => {
            Expr::when(of(condition)?, of(a)?, of(b)?)
        }
        Node::Query(QueryNode::IsIn(value, set)) => {
            let values = all(set)?.into_iter().map(|expr| match expr.kind() {
                ExprKind::Literal(value) => Ok(value.clone()),
                _ => Err(Error::InvalidPlan(format!(
                    "is_in looks for values, {expr} is none; compare with == and |"
                ))),
            });
            of(value)?.is_in(values.collect::<Result<_>>()?)
        }
        Node::Call(..) => return Err(lost()),
    })
}

fn operator(op: Binary) -> FunctionId {
    match op {
        Binary::Add => FunctionId::Add,
        Binary::Sub => FunctionId::Sub,
        Binary::Mul => FunctionId::Mul,
        Binary::Div => FunctionId::Div,
        Binary::FloorDiv => FunctionId::FloorDiv,
        Binary::Mod => FunctionId::Mod,
        Binary::Pow => FunctionId::Pow,
        Binary::ShiftLeft => FunctionId::ShiftLeft,
        Binary::ShiftRight => FunctionId::ShiftRight,
        Binary::And => FunctionId::And,
        Binary::Xor => FunctionId::Xor,
        Binary::Or => FunctionId::Or,
        Binary::Lt => FunctionId::Lt,
        Binary::Le => FunctionId::Le,
        Binary::Eq => FunctionId::Eq,
        Binary::Ne => FunctionId::Ne,
        Binary::Ge => FunctionId::Ge,
        Binary::Gt => FunctionId::Gt,
    }
}

fn scalar(constant: Constant) -> Result<Scalar> {
    Ok(match constant {
        Constant::Bool(v) => Scalar::Bool(v),
        Constant::Float(v) => Scalar::Float(v),
        Constant::Int(v) | Constant::Long(v) => match (i64::try_from(v), u64::try_from(v)) {
            (Ok(v), _) => Scalar::Int(v),
            (_, Ok(v)) => Scalar::UInt(v),
            _ => {
                return Err(Error::LimitExceeded(format!("the number {v} does not fit 64 bits")));
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        match expression(text) {
            Ok(expr) => expr.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn col(name: &str) -> Expr {
        Expr::column(name)
    }

    #[test]
    fn expressions_are_those_that_methods_build() {
        let date = col("dep delay");
        for (text, expected) in [
            ("a", col("a")),
            ("a + b * 2", col("a") + col("b") * 2),
            ("-a ** 2", -col("a").pow(2)),
            ("(a > 3) & ~(b <= 2.5)", col("a").gt(3).and_(!col("b").le(2.5))),
            ("a > 3 and not b <= 2.5", col("a").gt(3).and_(!col("b").le(2.5))),
            ("a OR b AND c", col("a").or_(col("b").and_(col("c")))),
            ("not (not a or b) and c", (!(!col("a")).or_(col("b"))).and_(col("c"))),
            ("a > 1 & b", col("a").gt(Expr::literal(1).and_(col("b")))),
            ("a // 2 % 3 / 4", (col("a").floordiv(2) % 3) / 4),
            ("a << 1 | b >> 2 ^ c", (col("a") << 1) | ((col("b") >> 2) ^ col("c"))),
            ("`dep delay` != -1", date.ne(-1)),
            ("a == 'it`s \"so\"'", col("a").eq("it`s \"so\"")),
            ("a == \"\"", col("a").eq("")),
            ("a < $least", col("a").lt(Expr::param("least"))),
            ("is_null(a)", col("a").is_null()),
            ("fill_null(a, 0)", col("a").fill_null(0)),
            ("a == null", col("a").eq(Scalar::Null)),
            ("where(a > 0, a, -a)", Expr::when(col("a").gt(0), col("a"), -col("a"))),
            ("is_in(a, 1, -2)", col("a").is_in(vec![Scalar::Int(1), Scalar::Int(-2)])),
            ("is_in(a)", col("a").is_in(vec![])),
            ("round(a)", col("a").round(0)),
            ("round(a, -2)", col("a").round(-2)),
            ("quantile(a, 0.5)", col("a").quantile(0.5, "linear")),
            ("quantile(a, 0.5, 'lower')", col("a").quantile(0.5, "lower")),
            ("cum_sum(a)", col("a").cum_sum(false)),
            ("coalesce(a, b, 0)", Expr::coalesce(vec![col("a"), col("b"), 0.into()])),
            ("sum(a) / len()", col("a").sum() / Expr::len()),
            ("min + max", col("min") + col("max")),
            ("0xFF + 1_000", Expr::literal(255) + 1000),
            ("18446744073709551615", Expr::literal(u64::MAX)),
            ("-9223372036854775808", Expr::literal(i64::MIN)),
            ("True", Expr::literal(true)),
        ] {
            let read = expression(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(read.is_same(&expected), "{text}: {read}, not {expected}");
        }
    }

    #[test]
    fn what_is_no_expression_is_told_with_its_place() {
        for (text, part) in [
            ("", "the expression is empty, at position 0"),
            ("a +", "the expression ends too early"),
            ("a b", "the name \"b\" is not expected here, at position 2"),
            ("a > 1 & b < 2", "comparisons in a row"),
            ("a and", "the expression ends too early"),
            ("and a", "the name \"and\" is not expected here"),
            ("a if b else c", "where(condition, a, b)"),
            ("a = 1", "compare with \"==\""),
            ("summ(a)", "queries have no function \"summ\"; did you mean \"sum\"?"),
            ("sum()", "sum(value) takes 1 arguments, 0 are given"),
            ("sum(a, b)", "sum(value) takes 1 arguments, 2 are given"),
            ("coalesce()", "at least 1"),
            ("where(a, b)", "where(condition, a, b)"),
            ("is_in(a, b)", "is_in looks for values"),
            ("a == 'x", "this quote is never closed, at position 5"),
            ("a == 'x\\n'", "give the text as a parameter"),
            ("a < $", "a parameter is written $name"),
            ("a ? b", "'?' has no meaning in an expression"),
            ("a.real", "\".\" is not expected here"),
            ("a[0]", "has no meaning here"),
            ("340282366920938463463374607431768211455", "does not fit 64 bits"),
            ("18446744073709551616", "does not fit 64 bits"),
            ("a, b", "\",\" is not expected here"),
            ("a as b", "the name \"as\" is not expected here"),
        ] {
            assert!(shown(text).contains(part), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn deep_and_long_texts_are_refused() {
        let deep = format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(matches!(expression(&deep), Err(Error::LimitExceeded(_))));
        let deep = format!("{}a{}", "not (".repeat(5_000), ")".repeat(5_000));
        assert!(matches!(expression(&deep), Err(Error::LimitExceeded(_))));
        assert!(expression(&format!("{}a", "not ".repeat(5_001))).unwrap().is_same(&!col("a")));
        let long = vec!["a"; 5_000].join("+");
        assert!(matches!(expression(&long), Err(Error::LimitExceeded(_))));
        let longer = vec!["a"; 100_000].join("+");
        assert!(matches!(expression(&longer), Err(Error::LimitExceeded(_))));
    }

    #[test]
    fn a_projection_and_a_filter_are_a_plan() {
        let filter = Plan::Filter {
            input: Arc::new(Plan::Scan),
            predicates: vec![col("a").gt(Expr::param("x"))],
        };
        let twice = (col("b") * 2).alias("twice");
        for (select, condition, expected) in [
            (None, None, Plan::Scan),
            (Some("*"), None, Plan::Scan),
            (None, Some("a > $x"), filter.clone()),
            (Some(" * "), Some("a > $x"), filter.clone()),
            (
                Some("a, b * 2 AS twice"),
                Some("a > $x"),
                Plan::Select {
                    input: Arc::new(filter.clone()),
                    exprs: vec![col("a"), twice.clone()],
                },
            ),
            (
                Some("*, b*2 as `twice`"),
                None,
                Plan::WithColumns { input: Arc::new(Plan::Scan), exprs: vec![twice] },
            ),
        ] {
            let read = plan(select, condition).unwrap();
            assert!(read.is_same(&expected), "{select:?}, {condition:?}: {read:?}");
        }
        for select in ["", "a,", ",", "a as", "a as 3", "a as b c", "* a", "*,", "*, *"] {
            assert!(matches!(plan(Some(select), None), Err(Error::InvalidPlan(_))), "{select}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = plan(Some(&text), Some(&text));
        }

        #[test]
        fn no_sequence_of_pieces_makes_it_panic(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "a", "`b c`", "$x", "'text'", "\"", "'", "`", "$", "1", "2.5", "-", "+", "**", "<<",
                "&", "~", "<=", "==", "(", ")", ",", "*", " and ", " or ", "not ", " AS ", "null",
                "where(", "is_in(", "sum(", "round(", "coalesce(", "len()", "quantile(", ".", " ",
                "\u{e4}", "18446744073709551616", "1e400", "True", "\\", "#", "\n",
            ]), 0..14)
        ) {
            let text = pieces.concat();
            if let Ok(plan) = plan(Some(&text), None) {
                prop_assert!(plan.is_same(&plan.clone()));
                let _ = format!("{plan:?}");
            }
        }
    }
}
