//! Taking aggregate calls out of expressions: what is inside is computed over the rows, what is
//! around them over the results.

use std::collections::HashMap;
use std::sync::Arc;

use crate::compile::planner::hidden;
use crate::expr::{Expr, ExprKind};
use crate::functions::FunctionKind;

/// Takes the aggregate calls out of expressions and puts hidden columns in their place.
pub(super) struct Split {
    pub(super) calls: Vec<(Expr, Arc<str>)>,
    /// The number of the first hidden name.
    first: usize,
    /// Places of calls by their fingerprint. (Text would not tell all apart.)
    known: HashMap<u64, Vec<usize>>,
}

impl Split {
    /// Gives hidden names from the one of that number on.
    pub(super) fn from(first: usize) -> Split {
        Split { calls: Vec::new(), first, known: HashMap::new() }
    }

    pub(super) fn expr(&mut self, e: &Expr) -> Expr {
        let name = e.output_name();
        let out = self.rewritten(e);
        // The hidden name must not become the column's.
        if out.output_name() == name { out } else { out.alias(name) }
    }

    fn rewritten(&mut self, e: &Expr) -> Expr {
        if !e.has_aggregate() {
            return e.clone();
        }
        match e.kind() {
            ExprKind::Call(f, _) if f.kind == FunctionKind::Aggregate => {
                let alike = self.known.entry(e.fingerprint()).or_default();
                let mut known = alike.iter().filter_map(|at| self.calls.get(*at));
                let name = match known.find(|(call, _)| call.is_same(e)) {
                    Some((_, name)) => name.clone(),
                    None => {
                        let name = hidden(self.first + self.calls.len());
                        alike.push(self.calls.len());
                        self.calls.push((e.clone(), name.clone()));
                        name
                    }
                };
                Expr::column(name)
            }
            other => rebuilt(e, other.children().iter().map(|c| self.rewritten(c)).collect()),
        }
    }
}

/// The expression with other children, given in order: itself if they are its own.
pub(super) fn rebuilt(e: &Expr, children: Vec<Expr>) -> Expr {
    let own = e.kind().children();
    if own.iter().zip(&children).all(|(a, b)| Arc::ptr_eq(&a.0, &b.0)) {
        return e.clone();
    }
    match (e.kind(), children.as_slice()) {
        (ExprKind::Call(f, _), _) => Expr::of(f.id, children),
        (ExprKind::Cast { dtype, strict, .. }, [x]) => x.cast(dtype.clone(), *strict),
        (ExprKind::Alias { name, .. }, [x]) => x.alias(name.clone()),
        (ExprKind::IsIn { values, .. }, [x]) => x.is_in(values.to_vec()),
        (ExprKind::When { .. }, [condition, then, otherwise]) => {
            Expr::when(condition.clone(), then.clone(), otherwise.clone())
        }
        _ => e.clone(),
    }
}

/// The columns named outside of aggregates.
pub(super) fn free_columns(e: &Expr) -> Vec<Arc<str>> {
    let mut out = Vec::new();
    let mut stack = vec![e];
    while let Some(e) = stack.pop() {
        match e.kind() {
            ExprKind::Column(n) => out.push(n.clone()),
            ExprKind::Call(f, _) if f.kind == FunctionKind::Aggregate => {}
            other => stack.extend(other.children()),
        }
    }
    out
}

/// Whether an expression has an aggregate and a bare column too.
pub(super) fn mixes(e: &Expr) -> bool {
    !free_columns(e).is_empty()
}

pub(super) fn is_literal(e: &Expr) -> bool {
    !e.has_aggregate() && free_columns(e).is_empty()
}
