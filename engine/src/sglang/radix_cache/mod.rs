//! SGLang's radix cache, exactly: which prefixes are kept, who holds them, and what goes first.
//!
//! In words: a tree whose edges carry tokens. A *match* walks down as far as the tokens agree and cuts a node that agrees
//! only in part, so that what was matched ends at a node. An *insert* walks the same way and hangs what is left below as
//! one new leaf. A lock on a node holds its whole path. When memory lacks, leaves that nobody holds are evicted whole,
//! the least recently used first; a parent becomes a candidate when its last child goes (S9).
//!
//! "Recently" is a counter, not a clock (S12): a match stamps its path from the top down, as newer than everything
//! before; a cut makes the upper and then the lower part newer first; an insert stamps every node it passes and then the
//! leaf.
//!
//! Two contents are compared by their places in the workload's [prefix tree](crate::prefix_tree), so a node costs as
//! much as the places where requests part, not its tokens: a node knows the place of its last token, and a child is
//! found by the place of the last token of its first page. Locks are counted where they are set; a node passes one pin
//! on to its parent while it has any, so that locking below a locked node is done in one step.

mod events;
mod host;
mod weight;

use super::place::{Place, place_of};
use crate::kv_cache::KvEvent;
use crate::prefix_tree::{NodeId, PrefixTree};
use crate::workload::Workload;
use host::HostTier;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A node of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sglang) struct RadixId(u32);

/// Tokens `start..end` of the contents that run through `tip`.
#[derive(Debug, Clone)]
struct Node {
    parent: RadixId,
    start: u32,
    end: u32,
    /// Place of the last token.
    tip: NodeId,
    /// Place of the last token of the first page: the name under which the parent finds it.
    key: NodeId,
    /// When it was last used.
    stamp: u64,
    /// When its parent got it, or what it was cut from; the order among siblings.
    born: u64,
    /// Locks on it, and children that have pins.
    pins: u32,
    /// Those on the device; all of them without host memory.
    children: u32,
    /// Those in host memory alone.
    host_children: u32,
    /// Where its KV is: one of them at least.
    is_on_device: bool,
    is_on_host: bool,
    /// Whether a storage gave it and it was not on the device since.
    is_from_storage: bool,
    /// Times it was stored, as far as host memory wants to know.
    hits: u32,
}

impl Node {
    fn len(&self) -> u32 {
        self.end - self.start
    }

    fn is_idle_leaf(&self) -> bool {
        self.pins == 0 && self.children == 0 && self.is_on_device
    }

    fn is_host_leaf(&self) -> bool {
        !self.is_on_device && self.host_children == 0
    }
}

/// A match: the node at which it ends on the device and its length there in tokens; and what follows in host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sglang) struct Match {
    pub node: RadixId,
    pub tokens: u32,
    /// Where all of it ends.
    pub deepest: RadixId,
    pub host_tokens: u32,
}

impl Match {
    /// Nothing was found.
    pub const NONE: Match = Match {
        node: RadixCache::ROOT,
        tokens: 0,
        deepest: RadixCache::ROOT,
        host_tokens: 0,
    };
}

/// The tree of cached prefixes.
#[derive(Debug, Clone)]
pub(in crate::sglang) struct RadixCache {
    workload: Arc<Workload>,
    page_size: u32,
    nodes: Vec<Node>,
    vacant: Vec<RadixId>,
    /// (parent, key) → child.
    children: FxHashMap<(RadixId, NodeId), RadixId>,
    /// What can be evicted at once, least recently used first.
    idle_leaves: BTreeSet<(u64, RadixId)>,
    /// The latest stamp given.
    clock: u64,
    tokens: u32,
    evictable: u32,
    tracks_events: bool,
    events: Vec<KvEvent>,
    host: Option<Box<HostTier>>,
}

impl RadixCache {
    /// Where every match begins; always locked.
    pub const ROOT: RadixId = RadixId(0);

    pub fn new(workload: Arc<Workload>, page_size: u32, tracks_events: bool) -> Self {
        let root = Node {
            parent: RadixCache::ROOT,
            start: 0,
            end: 0,
            tip: PrefixTree::ROOT,
            key: PrefixTree::ROOT,
            stamp: 0,
            born: 0,
            pins: 1,
            children: 0,
            host_children: 0,
            is_on_device: true,
            is_on_host: false,
            is_from_storage: false,
            hits: 0,
        };
        RadixCache {
            workload,
            page_size,
            nodes: vec![root],
            vacant: Vec::new(),
            children: FxHashMap::default(),
            idle_leaves: BTreeSet::new(),
            clock: 0,
            tokens: 0,
            evictable: 0,
            tracks_events,
            events: Vec::new(),
            host: None,
        }
    }

    /// Tokens in the tree.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Tokens that nobody holds.
    pub fn evictable(&self) -> u32 {
        self.evictable
    }

    /// The longest cached prefix of the first `limit` tokens of a content, in whole pages; stamps its path.
    pub fn match_prefix(&mut self, path: &[Place], limit: u32) -> Match {
        let found = self.descend(path, limit, |_, _| {});
        self.stamp_path(found.node);
        self.part(found)
    }

    /// Keeps the first `tokens` tokens (whole pages) of a content and says how many of them were on the device already.
    /// Whether that `counts` as a hit is for host memory alone.
    pub fn insert(&mut self, path: &[Place], tokens: u32, counts: bool) -> u32 {
        let mut computed_again = 0;
        let found = self.descend(path, tokens, |cache, id| {
            let stamp = cache.tick();
            cache.set_stamp(id, stamp);
            if cache.host.is_some() {
                computed_again += cache.pass(id, path, counts);
            }
        });
        if found.tokens < tokens {
            let leaf = self.add_leaf(found, path, tokens);
            if counts {
                self.hit(leaf);
            }
        }
        found.tokens - computed_again
    }

    /// Holds the path to `id`.
    pub fn lock(&mut self, mut id: RadixId) {
        while id != RadixCache::ROOT {
            let node = &mut self.nodes[id.0 as usize];
            node.pins += 1;
            if node.pins > 1 {
                return;
            }
            self.evictable -= node.len();
            if node.children == 0 {
                self.idle_leaves.remove(&(node.stamp, id));
            }
            id = node.parent;
        }
    }

    /// Takes one lock off the path to `id`.
    pub fn unlock(&mut self, mut id: RadixId) {
        while id != RadixCache::ROOT {
            let node = &mut self.nodes[id.0 as usize];
            assert!(node.pins > 0, "only what was locked is unlocked");
            node.pins -= 1;
            if node.pins > 0 {
                return;
            }
            self.evictable += node.len();
            if node.children == 0 {
                self.idle_leaves.insert((node.stamp, id));
            }
            id = node.parent;
        }
    }

    /// Evicts whole leaves until `tokens` tokens are free or none is left; returns the tokens freed (S9).
    pub fn evict(&mut self, tokens: u32) -> u32 {
        let mut freed = 0;
        while freed < tokens {
            let Some((_, id)) = self.idle_leaves.pop_first() else {
                break;
            };
            freed += match self.host {
                None => self.remove_leaf(id),
                Some(_) => self.leave_device(id),
            };
        }
        self.evictable -= freed;
        self.tokens -= freed;
        freed
    }

    /// True if there are events that nobody took yet.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Moves the events since the last call to the end of `events`, in order.
    pub fn drain_events(&mut self, events: &mut Vec<KvEvent>) {
        events.append(&mut self.events);
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Walks down as far as the content agrees, cutting a node that agrees only in part; `pass` sees every node.
    fn descend(
        &mut self,
        path: &[Place],
        limit: u32,
        mut pass: impl FnMut(&mut RadixCache, RadixId),
    ) -> Match {
        let (mut id, mut depth, mut at) = (RadixCache::ROOT, 0, 0);
        while depth + self.page_size <= limit {
            while path[at].end < depth + self.page_size {
                at += 1;
            }
            let Some(&child) = self.children.get(&(id, path[at].node)) else {
                break;
            };
            let common = self.agreement(child, path, at).min(limit);
            let common = common - common % self.page_size;
            let is_partial = common < self.nodes[child.0 as usize].end;
            id = if is_partial {
                self.split(child, common)
            } else {
                child
            };
            pass(self, id);
            depth = common;
            if is_partial {
                break;
            }
        }
        Match {
            node: id,
            tokens: depth,
            deepest: id,
            host_tokens: 0,
        }
    }

    /// The depth up to which a node and a content agree; they agree at `path[at]`.
    fn agreement(&self, id: RadixId, path: &[Place], at: usize) -> u32 {
        let node = &self.nodes[id.0 as usize];
        let tree = &self.workload.tree;
        let total = path.last().expect("a content has tokens").end;
        let mut tip = node.tip;
        loop {
            let start = tree.start(tip);
            if start < total {
                let from = at + path[at..].partition_point(|place| place.end <= start);
                if path[from].node == tip {
                    return tree.end(tip).min(node.end);
                }
            }
            tip = tree.parent(tip);
        }
    }

    /// The place of the token at `depth` of a node.
    fn place_in(&self, id: RadixId, depth: u32) -> NodeId {
        let mut tip = self.nodes[id.0 as usize].tip;
        while self.workload.tree.start(tip) > depth {
            tip = self.workload.tree.parent(tip);
        }
        tip
    }

    /// Cuts a node behind the token before `depth`. The lower part keeps the id, so that locks on it stay; returns the
    /// upper part.
    fn split(&mut self, lower: RadixId, depth: u32) -> RadixId {
        let (upper_stamp, lower_stamp) = (self.tick(), self.tick());
        let tip = self.place_in(lower, depth - 1);
        let lower_key = self.place_in(lower, depth + self.page_size - 1);
        let node = &self.nodes[lower.0 as usize];
        let upper_node = Node {
            parent: node.parent,
            start: node.start,
            end: depth,
            tip,
            key: node.key,
            stamp: upper_stamp,
            born: node.born,
            pins: u32::from(node.pins > 0),
            children: u32::from(node.is_on_device),
            host_children: u32::from(!node.is_on_device),
            is_on_device: node.is_on_device,
            is_on_host: node.is_on_host,
            is_from_storage: node.is_from_storage,
            hits: node.hits,
        };
        let upper = self.allocate(upper_node);
        let node = &mut self.nodes[lower.0 as usize];
        let (parent, key) = (node.parent, node.key);
        node.parent = upper;
        node.start = depth;
        node.key = lower_key;
        self.children.insert((parent, key), upper);
        self.children.insert((upper, lower_key), lower);
        self.set_stamp(lower, lower_stamp);
        upper
    }

    fn add_leaf(&mut self, above: Match, path: &[Place], end: u32) -> RadixId {
        let start = above.tokens;
        let leaf = self.hang(above.node, path, start, end);
        let stamp = self.nodes[leaf.0 as usize].stamp;
        let parent = &mut self.nodes[above.node.0 as usize];
        if parent.is_idle_leaf() {
            self.idle_leaves.remove(&(parent.stamp, above.node));
        }
        parent.children += 1;
        self.idle_leaves.insert((stamp, leaf));
        self.tokens += end - start;
        self.evictable += end - start;
        if self.tracks_events {
            self.note_stored(path, start, end);
        }
        leaf
    }

    fn remove_leaf(&mut self, id: RadixId) -> u32 {
        let node = &self.nodes[id.0 as usize];
        let (parent, key, len) = (node.parent, node.key, node.len());
        if self.tracks_events {
            self.note_removed(id);
        }
        self.children.remove(&(parent, key));
        self.vacant.push(id);
        let above = &mut self.nodes[parent.0 as usize];
        above.children -= 1;
        if above.is_idle_leaf() {
            self.idle_leaves.insert((above.stamp, parent));
        }
        len
    }

    /// A new leaf on the device, which its parent finds but has not counted yet.
    fn hang(&mut self, parent: RadixId, path: &[Place], start: u32, end: u32) -> RadixId {
        let key = place_of(path, start + self.page_size - 1);
        let stamp = self.tick();
        let leaf = self.allocate(Node {
            parent,
            start,
            end,
            tip: place_of(path, end - 1),
            key,
            stamp,
            born: stamp,
            pins: 0,
            children: 0,
            host_children: 0,
            is_on_device: true,
            is_on_host: false,
            is_from_storage: false,
            hits: 0,
        });
        self.children.insert((parent, key), leaf);
        leaf
    }

    fn allocate(&mut self, node: Node) -> RadixId {
        if let Some(id) = self.vacant.pop() {
            self.nodes[id.0 as usize] = node;
            return id;
        }
        self.nodes.push(node);
        RadixId(self.nodes.len() as u32 - 1)
    }

    fn set_stamp(&mut self, id: RadixId, stamp: u64) {
        let node = &mut self.nodes[id.0 as usize];
        let before = std::mem::replace(&mut node.stamp, stamp);
        if node.is_idle_leaf() {
            self.idle_leaves.remove(&(before, id));
            self.idle_leaves.insert((stamp, id));
        } else if let Some(host) = &mut self.host
            && host.leaves.remove(&(before, id))
        {
            host.leaves.insert((stamp, id));
        }
    }

    /// Makes the path to `id` newer than all else, each node newer than its parent.
    fn stamp_path(&mut self, id: RadixId) {
        let mut length = 0;
        let mut node = id;
        while node != RadixCache::ROOT {
            length += 1;
            node = self.nodes[node.0 as usize].parent;
        }
        self.clock += length;
        let mut stamp = self.clock;
        self.set_stamp(id, stamp);
        let mut node = id;
        while node != RadixCache::ROOT {
            if self.host.is_some() {
                // It may be a leaf of the device part.
                self.set_stamp(node, stamp);
            } else {
                self.nodes[node.0 as usize].stamp = stamp;
            }
            stamp -= 1;
            node = self.nodes[node.0 as usize].parent;
        }
    }
}
