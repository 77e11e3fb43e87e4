//! Which code lengths an encoder writes for given counts of symbols, and how it writes them.

use crate::header::{DynamicHeader, Operation, DISTANCES};
use crate::tables::CODE_LENGTH_ORDER;

/// How a family of encoders makes and writes its codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Go's compress/flate: optimal lengths by package-merge.
    Go,
    /// klauspost/compress where it keeps codes for all symbols: 286 and 30 lengths are written.
    Open,
    /// zlib, GNU gzip, Java: Huffman's tree in a heap, made shallow afterwards.
    Zlib,
}

/// How often each symbol was used.
#[derive(Clone)]
pub struct Counts {
    pub literals: [u32; 288],
    pub distances: [u32; 32],
}

impl Counts {
    pub fn new() -> Counts {
        Counts { literals: [0; 288], distances: [0; 32] }
    }
}

/// The header that a family writes for a block with these counts.
pub fn predict(style: Style, counts: &Counts) -> DynamicHeader {
    let (lengths, literal_count, distance_count) = lengths(style, counts);
    let operations = operations(style, &lengths, literal_count, distance_count);
    let (code_lengths, code_length_count) = code_length_code(style, &operations);
    DynamicHeader { literal_count, distance_count, code_length_count, code_lengths, operations, lengths }
}

/// The lengths that a family gives, and how many of each kind it writes.
pub fn lengths(style: Style, counts: &Counts) -> ([u8; 320], usize, usize) {
    let mut lengths = [0u8; 320];
    let (mut literal_count, mut distance_count) = (286, 30);
    let mut distances = counts.distances;
    if style == Style::Go {
        while literal_count > 257 && counts.literals[literal_count - 1] == 0 {
            literal_count -= 1;
        }
        while distance_count > 0 && distances[distance_count - 1] == 0 {
            distance_count -= 1;
        }
        if distance_count == 0 {
            distances[0] = 1;
            distance_count = 1;
        }
    }
    let make = if style == Style::Zlib { heap_lengths } else { package_merge };
    make(&counts.literals[..286], 15, &mut lengths[..286]);
    make(&distances[..30], 15, &mut lengths[DISTANCES..DISTANCES + 30]);
    if style == Style::Zlib {
        while literal_count > 257 && lengths[literal_count - 1] == 0 {
            literal_count -= 1;
        }
        while distance_count > 1 && lengths[DISTANCES + distance_count - 1] == 0 {
            distance_count -= 1;
        }
    }
    (lengths, literal_count, distance_count)
}

/// The runs that a family writes the lengths as. zlib's do not go on from literals into distances.
pub fn operations(style: Style, lengths: &[u8; 320], literal_count: usize, distance_count: usize) -> Vec<Operation> {
    let mut operations = Vec::with_capacity(200);
    let literals = &lengths[..literal_count];
    let distances = &lengths[DISTANCES..DISTANCES + distance_count];
    if style == Style::Zlib {
        push_runs(literals, &mut operations);
        push_runs(distances, &mut operations);
    } else {
        push_runs(&[literals, distances].concat(), &mut operations);
    }
    operations
}

fn push_runs(lengths: &[u8], operations: &mut Vec<Operation>) {
    let (mut at, mut before) = (0, u8::MAX);
    while at < lengths.len() {
        let length = lengths[at];
        let run = lengths[at..].iter().take_while(|other| **other == length).count();
        let mut left = run;
        if length == 0 {
            while left >= 11 {
                let part = left.min(138);
                operations.push((18, part as u8 - 11));
                left -= part;
            }
            if left >= 3 {
                operations.push((17, left as u8 - 3));
                left = 0;
            }
        } else {
            if length != before {
                operations.push((length, 0));
                left -= 1;
            }
            while left >= 3 {
                let part = left.min(6);
                operations.push((16, part as u8 - 3));
                left -= part;
            }
        }
        operations.extend(std::iter::repeat((length, 0)).take(left));
        before = length;
        at += run;
    }
}

/// The code-length code that a family writes for these runs, and how many of its lengths.
pub fn code_length_code(style: Style, operations: &[Operation]) -> ([u8; 19], usize) {
    let mut counts = [0u32; 19];
    for (symbol, _) in operations {
        counts[*symbol as usize] += 1;
    }
    let mut lengths = [0u8; 19];
    if style == Style::Zlib {
        heap_lengths(&counts, 7, &mut lengths);
    } else {
        package_merge(&counts, 7, &mut lengths);
    }
    let mut count = 19;
    while count > 4 && lengths[CODE_LENGTH_ORDER[count - 1]] == 0 {
        count -= 1;
    }
    (lengths, count)
}

/// Optimal lengths of at most `limit` bits by package-merge. A leaf goes before a package only if it is lighter; lengths are dealt out
/// in the order of counts, then of symbols. One symbol, or two, get one bit.
fn package_merge(counts: &[u32], limit: usize, lengths: &mut [u8]) {
    lengths.fill(0);
    let mut leaves: Vec<(u32, usize)> =
        counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(symbol, count)| (*count, symbol)).collect();
    if leaves.len() <= 2 {
        for (_, symbol) in leaves {
            lengths[symbol] = 1;
        }
        return;
    }
    leaves.sort_unstable();
    let limit = limit.min(leaves.len() - 1);
    let wanted = 2 * leaves.len() - 2;
    let mut weights: Vec<u32> = leaves.iter().map(|leaf| leaf.0).collect();
    let mut levels: Vec<Vec<bool>> = vec![vec![true; leaves.len()]];
    for _ in 1..limit {
        let (merged, is_leaf) = merge(&leaves, &weights, wanted);
        weights = merged;
        levels.push(is_leaf);
    }
    // From the last level up: how many leaves of each are used. The lightest get the longest codes.
    let mut take = wanted;
    let mut used = Vec::with_capacity(limit);
    for is_leaf in levels.iter().rev() {
        let taken = take.min(is_leaf.len());
        let count = is_leaf[..taken].iter().filter(|leaf| **leaf).count();
        used.push(count);
        take = 2 * (taken - count);
    }
    for (bits, count) in used.iter().enumerate() {
        let longer = used.get(bits + 1).copied().unwrap_or(0);
        for leaf in &leaves[longer.min(*count)..*count] {
            lengths[leaf.1] = bits as u8 + 1;
        }
    }
}

/// Leaves and pairs of the level before, by weight, at most `wanted`.
fn merge(leaves: &[(u32, usize)], before: &[u32], wanted: usize) -> (Vec<u32>, Vec<bool>) {
    let mut weights = Vec::with_capacity(wanted);
    let mut is_leaf = Vec::with_capacity(wanted);
    let mut next = leaves.iter().map(|leaf| leaf.0).peekable();
    let mut pairs = before.chunks_exact(2).map(|pair| pair[0].saturating_add(pair[1])).peekable();
    while weights.len() < wanted {
        let leaf = match (next.peek(), pairs.peek()) {
            (Some(leaf), Some(pair)) => leaf < pair,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        weights.extend(if leaf { next.next() } else { pairs.next() });
        is_leaf.push(leaf);
    }
    (weights, is_leaf)
}

/// Huffman's tree by a heap in which the shallower of two equal nodes is the lighter; codes over `limit` bits are then shortened.
/// The algorithm is the published one of zlib and gzip (deflate's build_tree); at least two symbols get a code.
fn heap_lengths(counts: &[u32], limit: usize, lengths: &mut [u8]) {
    lengths.fill(0);
    let symbols = counts.len();
    let mut tree = Tree::new(counts);
    let mut largest = counts.iter().rposition(|count| *count > 0);
    while tree.heap.len() < 3 {
        let symbol = match largest {
            None => 0,
            Some(largest) if largest < 2 => largest + 1,
            Some(_) => 0,
        };
        if largest.map_or(true, |largest| largest < 2) {
            largest = Some(symbol);
        }
        tree.heap.push(symbol);
        tree.weight[symbol] = 1;
    }
    for at in (1..=(tree.heap.len() - 1) / 2).rev() {
        tree.sift_down(at);
    }
    // Nodes as they leave the heap, the lightest first; the root is the last.
    let mut order = Vec::with_capacity(2 * symbols);
    let mut node = symbols;
    while tree.heap.len() > 2 {
        let a = tree.pop();
        let b = tree.heap[1];
        order.extend([a, b]);
        tree.join(node, a, b);
        tree.heap[1] = node;
        tree.sift_down(1);
        node += 1;
    }
    order.push(tree.heap[1]);
    tree.deal_out(&order, limit, lengths);
}

/// Nodes of Huffman's tree: symbols first, then joined ones.
struct Tree {
    symbols: usize,
    weight: Vec<u32>,
    depth: Vec<u8>,
    parent: Vec<usize>,
    /// From index 1 on: each node is no heavier than those at twice its index.
    heap: Vec<usize>,
}

impl Tree {
    fn new(counts: &[u32]) -> Tree {
        let symbols = counts.len();
        let mut weight = counts.to_vec();
        weight.resize(2 * symbols, 0);
        let used = (0..symbols).filter(|symbol| counts[*symbol] > 0);
        let heap = std::iter::once(0).chain(used).collect();
        Tree { symbols, weight, depth: vec![0; 2 * symbols], parent: vec![0; 2 * symbols], heap }
    }

    fn is_lighter(&self, a: usize, b: usize) -> bool {
        self.weight[a] < self.weight[b] || (self.weight[a] == self.weight[b] && self.depth[a] <= self.depth[b])
    }

    fn sift_down(&mut self, mut at: usize) {
        let node = self.heap[at];
        let last = self.heap.len() - 1;
        loop {
            let mut child = at * 2;
            if child > last {
                break;
            }
            if child < last && self.is_lighter(self.heap[child + 1], self.heap[child]) {
                child += 1;
            }
            if self.is_lighter(node, self.heap[child]) {
                break;
            }
            self.heap[at] = self.heap[child];
            at = child;
        }
        self.heap[at] = node;
    }

    fn pop(&mut self) -> usize {
        let lightest = self.heap[1];
        let last = self.heap.pop().expect("the heap holds more than one");
        self.heap[1] = last;
        self.sift_down(1);
        lightest
    }

    fn join(&mut self, node: usize, a: usize, b: usize) {
        self.weight[node] = self.weight[a].saturating_add(self.weight[b]);
        self.depth[node] = self.depth[a].max(self.depth[b]).saturating_add(1);
        self.parent[a] = node;
        self.parent[b] = node;
    }

    /// Lengths from the root down; those over the limit are cut, and the rest is lengthened until the code fits again.
    fn deal_out(&self, order: &[usize], limit: usize, lengths: &mut [u8]) {
        let mut count = [0i32; 17];
        let mut bits = vec![0usize; 2 * self.symbols];
        let mut over = 0i32;
        for node in order.iter().rev().skip(1) {
            bits[*node] = bits[self.parent[*node]] + 1;
            if bits[*node] > limit {
                bits[*node] = limit;
                over += 1;
            }
            if *node < self.symbols {
                count[bits[*node]] += 1;
            }
        }
        if over > 0 {
            while over > 0 {
                let Some(shorter) = (1..limit).rev().find(|bits| count[*bits] > 0) else { return };
                count[shorter] -= 1;
                count[shorter + 1] += 2;
                count[limit] -= 1;
                over -= 2;
            }
            let mut leaves = order.iter().filter(|node| **node < self.symbols);
            for length in (1..=limit).rev() {
                for node in leaves.by_ref().take(count[length].max(0) as usize) {
                    bits[*node] = length;
                }
            }
        }
        for node in order.iter().filter(|node| **node < self.symbols) {
            lengths[*node] = bits[*node] as u8;
        }
    }
}
