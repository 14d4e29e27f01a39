//! The tree over the blocks of a reproducible reduction.
//!
//! It is binary and aligned by block index: a node of level k covers 2^k blocks from a multiple of
//! 2^k on, and is left joined with right. So the order in which blocks are joined is a function of
//! their indices alone, whatever the morsels, the threads or the chunks.

/// What a block comes to, and how two neighbours are joined.
pub(super) trait Joined: Copy {
    /// The value of blocks that are not there: neutral on either side.
    const ABSENT: Self;
    /// Left joined with right.
    fn join(self, right: Self) -> Self;
}

/// The blocks so far, joined as far as they are neighbours.
#[derive(Clone, Debug)]
pub(super) struct Tree<V> {
    /// Complete nodes in ascending order of their blocks; no two are siblings.
    nodes: Vec<Node<V>>,
}

#[derive(Clone, Copy, Debug)]
struct Node<V> {
    /// First block.
    start: u64,
    /// Covers 2^level blocks.
    level: u32,
    value: V,
}

impl<V: Joined> Tree<V> {
    /// No blocks yet.
    pub(super) const fn new() -> Self {
        Tree { nodes: Vec::new() }
    }

    /// Adds a block.
    pub(super) fn add(&mut self, block: u64, value: V) {
        self.push(Node { start: block, level: 0, value });
    }

    /// Adds the blocks of another tree.
    pub(super) fn merge(&mut self, mut other: Tree<V>) {
        let later = match (self.nodes.last(), other.nodes.first()) {
            (Some(last), Some(first)) => last.start < first.start,
            _ => true,
        };
        if later {
            for node in other.nodes {
                self.push(node);
            }
        } else {
            let mut all = std::mem::take(&mut self.nodes);
            all.append(&mut other.nodes);
            self.rebuild(all);
        }
    }

    /// All blocks joined.
    pub(super) fn value(&self) -> V {
        value_of(&self.nodes, u64::BITS)
    }

    fn push(&mut self, mut node: Node<V>) {
        if self.nodes.last().is_some_and(|last| node.start <= last.start) {
            let mut all = std::mem::take(&mut self.nodes);
            all.push(node);
            return self.rebuild(all);
        }
        while let Some(last) = self.nodes.last() {
            let sibling = last.level == node.level && (last.start ^ node.start) == 1 << node.level;
            if !sibling {
                break;
            }
            // Ascending: the one there already is the left one.
            let value = last.value.join(node.value);
            node = Node { start: last.start, level: node.level + 1, value };
            self.nodes.pop();
        }
        self.nodes.push(node);
    }

    fn rebuild(&mut self, mut all: Vec<Node<V>>) {
        all.sort_by_key(|n| n.start);
        // A block added twice breaks the contract; keeping both nodes keeps it from looping.
        for node in all {
            if self.nodes.last().is_some_and(|last| node.start <= last.start) {
                self.nodes.push(node);
            } else {
                self.push(node);
            }
        }
    }
}

/// The value of the tree node of `level` that covers all of `nodes`: an absent half is neutral.
fn value_of<V: Joined>(nodes: &[Node<V>], level: u32) -> V {
    match nodes {
        [] => V::ABSENT,
        [one] => one.value,
        [first, ..] if level > 0 => {
            let below = level - 1;
            let middle = (first.start >> below | 1) << below;
            // All on one side: `first` is already past the middle.
            let split =
                if first.start >= middle { 0 } else { nodes.partition_point(|n| n.start < middle) };
            let (left, right) = nodes.split_at(split);
            value_of(left, below).join(value_of(right, below))
        }
        // The same block twice.
        many => many.iter().fold(V::ABSENT, |sum, n| sum.join(n.value)),
    }
}
