//! Who is believed to hold what: the compressed tree of the real KV router, with its habits.
//!
//! A node is a chain of contents without branches; a worker holds the first so many of them. New contents are stored behind
//! a parent that the worker holds, else they are lost. They follow what is there as far as it agrees, a node is cut where
//! they part from it, and a leaf that the worker holds to its end grows. A removed content takes the later ones of its node
//! with it, but not those of the nodes behind, which count again once the gap is closed. A node that nobody holds to its end
//! loses the nodes behind it; a node that nobody holds is lost itself. Lost contents can still be parents.

use super::pool::Content;
use std::collections::BTreeMap;

#[derive(Default)]
struct Node {
    chain: Vec<Content>,
    /// Contents of the chain that a worker holds, if any.
    held: BTreeMap<usize, usize>,
    children: Vec<usize>,
    /// It had children once; then it does not grow.
    is_internal: bool,
}

/// The tree. Node 0 is the root, and lost nodes stay in the list.
pub struct KvIndex {
    nodes: Vec<Node>,
    /// The node in which a worker holds a content.
    places: BTreeMap<(usize, Content), usize>,
}

impl KvIndex {
    pub fn new() -> KvIndex {
        let root = Node {
            is_internal: true,
            ..Node::default()
        };
        KvIndex {
            nodes: vec![root],
            places: BTreeMap::new(),
        }
    }

    /// How many of the contents a worker holds, from the first on.
    pub fn overlap(&self, worker: usize, contents: &[Content]) -> usize {
        let (mut at, mut depth) = (0, 0);
        while depth < contents.len() {
            let Some(child) = self.child(at, contents[depth]) else {
                break;
            };
            let node = &self.nodes[child];
            let common = common(&node.chain, &contents[depth..]);
            let held = node.held.get(&worker).copied().unwrap_or(0);
            if held < node.chain.len() || common < node.chain.len() {
                return depth + held.min(common);
            }
            depth += common;
            at = child;
        }
        depth
    }

    pub fn store(&mut self, worker: usize, parent: Option<Content>, contents: &[Content]) {
        let mut at = 0;
        let mut rest = contents;
        if let Some(parent) = parent {
            let Some(&node) = self.places.get(&(worker, parent)) else {
                return;
            };
            at = node;
            let chain = &self.nodes[node].chain;
            let behind = 1 + chain
                .iter()
                .position(|&content| content == parent)
                .expect("it is there");
            let left = chain.len() - behind;
            let agreed = common(&chain[behind..], contents);
            if agreed == contents.len() {
                self.hold(worker, node, behind + agreed);
                return;
            }
            if agreed == left && !self.nodes[node].is_internal {
                self.nodes[node]
                    .chain
                    .extend_from_slice(&contents[agreed..]);
                self.hold(worker, node, behind + contents.len());
                return;
            }
            if left > 0 {
                self.cut(node, behind);
            }
        }
        while !rest.is_empty() {
            let Some(child) = self.child(at, rest[0]) else {
                let held = self.nodes[at].held.get(&worker).copied();
                let grows = !self.nodes[at].is_internal && held == Some(self.nodes[at].chain.len());
                if !grows {
                    self.nodes.push(Node::default());
                    let child = self.nodes.len() - 1;
                    self.nodes[at].children.push(child);
                    self.nodes[at].is_internal = true;
                    at = child;
                }
                self.nodes[at].chain.extend_from_slice(rest);
                self.hold(worker, at, self.nodes[at].chain.len());
                return;
            };
            let agreed = common(&self.nodes[child].chain, rest);
            if agreed < rest.len() && agreed < self.nodes[child].chain.len() {
                self.cut(child, agreed);
            }
            self.hold(worker, child, agreed);
            rest = &rest[agreed..];
            at = child;
        }
    }

    pub fn remove(&mut self, worker: usize, content: Content) {
        let Some(&node) = self.places.get(&(worker, content)) else {
            return;
        };
        let chain = self.nodes[node].chain.clone();
        let at = chain
            .iter()
            .position(|&other| other == content)
            .expect("it is there");
        let held = self.nodes[node].held.remove(&worker).expect("it is held");
        if at > 0 {
            self.nodes[node].held.insert(worker, at);
        }
        for &forgotten in &chain[at..held] {
            self.places.remove(&(worker, forgotten));
        }
        self.lose(node);
    }

    fn child(&self, node: usize, first: Content) -> Option<usize> {
        let children = self.nodes[node].children.iter().copied();
        children
            .into_iter()
            .find(|&child| self.nodes[child].chain[0] == first)
    }

    /// A worker holds the first `count` contents of a node, or already more.
    fn hold(&mut self, worker: usize, node: usize, count: usize) {
        let Node { chain, held, .. } = &mut self.nodes[node];
        let held = held.entry(worker).or_default();
        *held = count.max(*held);
        for &content in &chain[..*held] {
            self.places.insert((worker, content), node);
        }
    }

    /// The contents from `at` on become a node of their own.
    fn cut(&mut self, node: usize, at: usize) {
        let front = &mut self.nodes[node];
        let mut rear = Node {
            chain: front.chain.split_off(at),
            children: std::mem::take(&mut front.children),
            is_internal: std::mem::replace(&mut front.is_internal, true),
            ..Node::default()
        };
        for (&worker, held) in &mut front.held {
            if *held > at {
                rear.held.insert(worker, *held - at);
                *held = at;
            }
        }
        self.nodes.push(rear);
        let rear = self.nodes.len() - 1;
        self.nodes[node].children.push(rear);
        for (worker, held) in self.nodes[rear].held.clone() {
            self.hold(worker, rear, held);
        }
        self.lose(rear);
    }

    /// Drops what nobody can reach any more through a node.
    fn lose(&mut self, node: usize) {
        let length = self.nodes[node].chain.len();
        if self.nodes[node].held.values().all(|&held| held < length) {
            self.nodes[node].children.clear();
        }
        if self.nodes[node].held.is_empty() {
            for other in &mut self.nodes {
                other.children.retain(|&child| child != node);
            }
        }
    }
}

/// How many contents two chains have in common from the start.
fn common(a: &[Content], b: &[Content]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
