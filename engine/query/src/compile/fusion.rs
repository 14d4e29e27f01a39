//! Fusion by rule: for every node the cheapest way to cut the tree of + - * below it into chains of
//! up to three operators, found bottom-up.

use insitu_kernels::level::Level;
use insitu_kernels::tile::{Arith, Chain, TileFn, chain2, chain3};

use crate::compile::graph::{Graph, Id, Node, Op};
use crate::compile::program::Action;

/// How each arithmetic node is cut into chains.
pub(super) struct Fusion {
    /// Per node: which operand the chain goes on through, at the node and at the next.
    path: Vec<[Option<u8>; 2]>,
}

fn chain_op(node: &Node) -> Option<Chain> {
    match node.op {
        Op::Arith(Arith::Add) => Some(Chain::Add),
        Op::Arith(Arith::Sub) => Some(Chain::Sub),
        Op::Arith(Arith::Mul) => Some(Chain::Mul),
        _ => None,
    }
}

/// The operator when the chain's value is the right operand.
fn reversed(op: Chain) -> Chain {
    match op {
        Chain::Sub => Chain::RSub,
        Chain::RSub => Chain::Sub,
        other => other,
    }
}

impl Fusion {
    pub(super) fn plan(graph: &Graph, actions: &[Action], roots: &[Id]) -> Fusion {
        let n = graph.len();
        let mut uses = vec![0u32; n];
        let mut needed = vec![false; n];
        let mut stack: Vec<Id> = roots.to_vec();
        for a in actions {
            match a {
                Action::Keep(id) => stack.push(*id),
                Action::Check(_, id, values) => {
                    stack.push(*id);
                    stack.extend(values);
                }
            }
        }
        // What a root or an action names has to stand in a slot of its own.
        for id in &stack {
            if let Some(u) = uses.get_mut(*id as usize) {
                *u += 2;
            }
        }
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut needed[id as usize], true) {
                continue;
            }
            for a in graph.node(id).args() {
                uses[*a as usize] += 1;
                stack.push(*a);
            }
        }
        let mut cost = vec![0u32; n];
        let mut path = vec![[None; 2]; n];
        for id in 0..n as Id {
            if !needed[id as usize] {
                continue;
            }
            let node = graph.node(id);
            if node.args().is_empty() {
                continue;
            }
            let own = |id: Id| if uses[id as usize] > 1 { 0 } else { cost[id as usize] };
            let sum = |ids: &[Id]| ids.iter().map(|i| own(*i)).sum::<u32>();
            let mut best = (1 + sum(node.args()), [None; 2]);
            let fusible = |id: Id| {
                let child = graph.node(id);
                (uses[id as usize] == 1 && chain_op(&child).is_some() && child.prim == node.prim)
                    .then_some(child)
            };
            if chain_op(&node).is_some()
                && chain2(Chain::Add, Chain::Add, node.prim, Level::Baseline).is_some()
                && let [l, r] = node.args()
            {
                for (side, next, other) in [(0u8, *l, *r), (1, *r, *l)] {
                    let Some(child) = fusible(next) else { continue };
                    let here = 1 + own(other) + sum(child.args());
                    if here < best.0 {
                        best = (here, [Some(side), None]);
                    }
                    let [l2, r2] = child.args() else { continue };
                    for (side2, next2, other2) in [(0u8, *l2, *r2), (1, *r2, *l2)] {
                        let Some(grandchild) = fusible(next2) else { continue };
                        let here = 1 + own(other) + own(other2) + sum(grandchild.args());
                        if here < best.0 {
                            best = (here, [Some(side), Some(side2)]);
                        }
                    }
                }
            }
            cost[id as usize] = best.0;
            path[id as usize] = best.1;
        }
        Fusion { path }
    }

    /// The kernel for a node with what is fused into it, and its operands.
    pub(super) fn fused(&self, graph: &Graph, id: Id, level: Level) -> Fused {
        let node = graph.node(id);
        let path = self.path.get(id as usize).copied().unwrap_or_default();
        let plain = || Fused {
            kernel: node.kernel(level),
            operands: node.args().to_vec(),
            name: node.name(),
        };
        let (Some(side), Some(last)) = (path[0], chain_op(&node)) else { return plain() };
        let Some((next, other)) = step(&node, side) else { return plain() };
        let child = graph.node(next);
        let Some(middle) = chain_op(&child) else { return plain() };
        let last = if side == 1 { reversed(last) } else { last };
        let p = node.prim;
        match path[1] {
            None => Fused {
                kernel: chain2(middle, last, p, level),
                operands: [child.args(), &[other]].concat(),
                name: format!("chain2.{middle:?}.{last:?}.{}", p.name()).to_lowercase(),
            },
            Some(side2) => {
                let Some((next2, other2)) = step(&child, side2) else { return plain() };
                let grandchild = graph.node(next2);
                let Some(first) = chain_op(&grandchild) else { return plain() };
                let middle = if side2 == 1 { reversed(middle) } else { middle };
                Fused {
                    kernel: chain3(first, middle, last, p, level),
                    operands: [grandchild.args(), &[other2, other]].concat(),
                    name: format!("chain3.{first:?}.{middle:?}.{last:?}.{}", p.name())
                        .to_lowercase(),
                }
            }
        }
    }
}

/// An instruction before slots are known: a kernel and the nodes it reads.
pub(super) struct Fused {
    pub(super) kernel: Option<TileFn>,
    pub(super) operands: Vec<Id>,
    pub(super) name: String,
}

/// The operand on that side, and the other one.
fn step(node: &Node, side: u8) -> Option<(Id, Id)> {
    match (node.args(), side) {
        ([l, r], 0) => Some((*l, *r)),
        ([l, r], _) => Some((*r, *l)),
        _ => None,
    }
}
