//! What a constant condition never chooses is left out, and with it the operands that stand nowhere
//! else: numexpr does not ask for them.

use std::sync::Arc;

use crate::evaluate::constant::{self, Constant};
use crate::evaluate::functions::Rule;
use crate::evaluate::parser::{Id, Node, Parsed};

/// The branch that a choice by a constant takes.
fn taken(node: &Node, folded: &[Option<Constant>]) -> Option<Id> {
    let Node::Call(function, args) = node else { return None };
    let (Rule::Where, [condition, a, b]) = (function.rule, args.as_slice()) else { return None };
    let condition = folded.get(*condition).copied().flatten()?;
    Some(if condition.float() != 0.0 { *a } else { *b })
}

fn fold(node: &Node, folded: &[Option<Constant>]) -> Option<Constant> {
    let of = |id: &Id| folded.get(*id).copied().flatten();
    match node {
        Node::Constant(c) => Some(*c),
        Node::Variable(_) | Node::Query(_) => None,
        Node::Unary(op, a) => constant::unary(*op, of(a)?).ok(),
        Node::Binary(op, a, b) => constant::binary(*op, of(a)?, of(b)?).ok(),
        Node::Call(..) if taken(node, folded).is_some() => of(&taken(node, folded)?),
        Node::Call(function, args) => {
            let args = args.iter().map(of).collect::<Option<Vec<_>>>()?;
            constant::call(function.name, &args)
        }
    }
}

pub(super) fn prune(parsed: &mut Parsed) {
    let nodes = &mut parsed.nodes;
    let mut folded = Vec::with_capacity(nodes.len());
    for node in nodes.iter() {
        folded.push(fold(node, &folded));
    }
    let mut live = vec![false; nodes.len()];
    if let Some(root) = live.last_mut() {
        *root = true;
    }
    let mut named = vec![false; parsed.names.len()];
    for (id, node) in nodes.iter_mut().enumerate().rev() {
        if !live.get(id).copied().unwrap_or_default() {
            *node = Node::Constant(Constant::Int(0));
            continue;
        }
        let mut mark = |child: &Id| {
            if let Some(there) = live.get_mut(*child) {
                *there = true;
            }
        };
        let branch = taken(node, &folded);
        match node {
            Node::Constant(_) | Node::Query(_) => {}
            Node::Variable(index) => {
                if let Some(there) = named.get_mut(*index) {
                    *there = true;
                }
            }
            Node::Unary(_, a) => mark(a),
            Node::Binary(_, a, b) => {
                mark(a);
                mark(b);
            }
            Node::Call(_, args) => match branch {
                Some(branch) => {
                    // The condition stays, as it is, a constant; the other branch is the same.
                    args.iter().take(1).for_each(&mut mark);
                    mark(&branch);
                    args.iter_mut().skip(1).for_each(|arg| *arg = branch);
                }
                None => args.iter().for_each(mark),
            },
        }
    }
    let mut place = 0;
    let places: Vec<usize> = named
        .iter()
        .map(|there| {
            place += usize::from(*there);
            place.saturating_sub(1)
        })
        .collect();
    for node in nodes.iter_mut() {
        if let Node::Variable(index) = node {
            *index = places.get(*index).copied().unwrap_or_default();
        }
    }
    let names = parsed.names.iter().zip(&named).filter(|(_, there)| **there);
    parsed.names = names.map(|(name, _)| Arc::clone(name)).collect();
}
