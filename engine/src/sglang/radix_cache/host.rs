//! HiCache: prefixes that stay in host memory when the GPU's pool evicts them.
//!
//! In words: the tree is one for both places; a node is on the device, in host memory, or in both. An insert counts one more
//! *hit* for every node on the device that it passes, and a node with enough hits is copied to host memory. The eviction of a
//! node that has a copy takes it off the device and leaves it in the tree; one without a copy leaves the tree, or, with
//! write-back, is copied first. What lies below a node in host memory alone does so as well: the device part of the tree
//! is closed upwards. A match reaches on through such nodes, and what it finds there is *loaded back*, all or nothing, if it
//! is long enough. An insert that passes them gives them the KV that was computed again.
//!
//! Host memory evicts on demand as well: leaves of the tree that are not on the device, whole, the least recently used first.
//!
//! Source: SGLang 0.5.6, `mem_cache/hiradix_cache.py` (`insert`, `evict`, `evict_host`, `load_back`), and `schedule_policy.py`
//! of 0.5.23 (`add_one_req`).

// Model: a copy to host memory is there at once; the real one locks its node until the copy is over, tens of milliseconds for a
// long prompt, in which the least recently used of all is seldom what was just stored.

use super::{Match, RadixCache, RadixId};
use crate::host_pool::{Copied, HostPool, HostUse, WritePolicy};
use crate::sglang::place::Place;
use std::collections::BTreeSet;

/// Host memory below the tree.
#[derive(Debug, Clone)]
pub(super) struct HostTier {
    pool: HostPool,
    /// Leaves that are there alone, least recently used first.
    pub leaves: BTreeSet<(u64, RadixId)>,
    /// What is about to be loaded back, which is no leaf to be evicted even when all below it is.
    held: Option<RadixId>,
    used: HostUse,
    /// Tokens written since somebody asked, for which the step has to wait.
    unpaid: u32,
    /// What was copied down since somebody asked, where a storage lies behind.
    copied: Vec<Copied>,
}

impl RadixCache {
    /// Gives the tree host memory; it is empty yet.
    pub fn attach_host(&mut self, pool: HostPool) {
        assert!(self.tokens == 0, "host memory is there from the start");
        self.host = Some(Box::new(HostTier {
            pool,
            leaves: BTreeSet::new(),
            held: None,
            used: HostUse::default(),
            unpaid: 0,
            copied: Vec::new(),
        }));
    }

    /// What host memory holds and did.
    pub fn host_use(&self) -> Option<HostUse> {
        self.host.as_ref().map(|host| host.used)
    }

    /// Tokens that fit; 0 without host memory.
    pub fn host_tokens(&self) -> u32 {
        self.host.as_ref().map_or(0, |host| host.pool.tokens)
    }

    /// Whether evictions wait for copies.
    pub fn writes_back(&self) -> bool {
        let host = self.host.as_ref();
        host.is_some_and(|host| host.pool.write_policy == WritePolicy::WriteBack)
    }

    /// Tokens written back since the last call.
    pub fn take_written(&mut self) -> u32 {
        let unpaid = self.host.as_mut().map(|host| &mut host.unpaid);
        unpaid.map_or(0, std::mem::take)
    }

    /// Parts a match into what is on the device and what follows in host memory.
    pub(super) fn part(&self, found: Match) -> Match {
        let mut parted = found;
        while !self.nodes[parted.node.0 as usize].is_on_device {
            let node = &self.nodes[parted.node.0 as usize];
            parted.tokens -= node.len();
            parted.host_tokens += node.len();
            parted.node = node.parent;
        }
        parted
    }

    /// An insert passes a node. Returns how many tokens it brings that were not on the device.
    pub(super) fn pass(&mut self, id: RadixId, path: &[Place], counts: bool) -> u32 {
        if !self.nodes[id.0 as usize].is_on_device {
            self.enter_device(id, path);
            return self.nodes[id.0 as usize].len();
        }
        if counts {
            self.hit(id);
        }
        0
    }

    /// A node on the device was stored once more: it is copied if that is often enough.
    pub(super) fn hit(&mut self, id: RadixId) {
        let Some(host) = &self.host else { return };
        let Some(threshold) = host.pool.write_policy.threshold() else {
            return;
        };
        let node = &mut self.nodes[id.0 as usize];
        node.hits += 1;
        if !node.is_on_host && node.hits >= threshold {
            self.copy_down(id);
        }
    }

    /// Copies a node to host memory, if room can be made.
    fn copy_down(&mut self, id: RadixId) -> bool {
        let tokens = self.nodes[id.0 as usize].len();
        let has_room = self.make_host_room(tokens);
        let host = self.host.as_mut().expect("only host memory is written to");
        if !has_room {
            host.used.dropped += u64::from(tokens);
            return false;
        }
        host.used.held += tokens;
        host.used.peak = host.used.peak.max(host.used.held);
        host.used.written += u64::from(tokens);
        self.nodes[id.0 as usize].is_on_host = true;
        if host.pool.has_storage {
            let mut copied = std::mem::take(&mut host.copied);
            let first = copied.len();
            self.each_place(id, |node, lo, hi| copied.push(Copied { node, lo, hi }));
            copied[first..].reverse();
            self.host.as_mut().expect("there is host memory").copied = copied;
        }
        true
    }

    /// Moves what was copied down since the last call to the end of `copied`, prefix by prefix.
    pub fn take_copied(&mut self, copied: &mut Vec<Copied>) {
        if let Some(host) = &mut self.host {
            copied.append(&mut host.copied);
        }
    }

    /// Keeps room in host memory for what is to come from a storage; false if there is none.
    pub fn reserve_host(&mut self, tokens: u32) -> bool {
        let has_room = self.make_host_room(tokens);
        if has_room {
            let host = self.host.as_mut().expect("there is host memory");
            host.used.held += tokens;
            host.used.peak = host.used.peak.max(host.used.held);
        }
        has_room
    }

    /// The first `end` tokens of a content are in host memory now, those from `start` on in the room of `reserved` tokens kept for
    /// them. What is not needed of that is free again.
    pub fn insert_in_host(&mut self, path: &[Place], (start, end): (u32, u32), reserved: u32) {
        let mut taken = 0;
        if start < end {
            let found = self.descend(path, end, |cache, id| {
                let stamp = cache.tick();
                cache.set_stamp(id, stamp);
            });
            // Without what goes before it, it cannot be reached.
            if (start..end).contains(&found.tokens) {
                self.add_in_host(found, path, end);
                taken = end - found.tokens;
            }
        }
        let host = self.host.as_mut().expect("there is host memory");
        host.used.held -= reserved - taken;
    }

    /// Hangs what a storage gave below a match.
    fn add_in_host(&mut self, above: Match, path: &[Place], end: u32) {
        let parent = above.deepest;
        let leaf = self.hang(parent, path, above.tokens, end);
        let node = &mut self.nodes[leaf.0 as usize];
        (node.is_on_device, node.is_on_host) = (false, true);
        node.is_from_storage = true;
        let stamp = node.stamp;
        let above = &mut self.nodes[parent.0 as usize];
        above.host_children += 1;
        let before = (above.stamp, parent);
        let host = self.host.as_mut().expect("there is host memory");
        host.leaves.remove(&before);
        host.leaves.insert((stamp, leaf));
    }

    /// Evicts whole leaves from host memory until so many tokens fit, if they can.
    fn make_host_room(&mut self, tokens: u32) -> bool {
        let lacks = |cache: &RadixCache| {
            let host = cache.host.as_ref().expect("there is host memory");
            host.used.held + tokens > host.pool.tokens
        };
        if !lacks(self) {
            return true;
        }
        // As the real one does: not what lacks, but as much as is to come.
        let mut gone = 0;
        while gone < tokens {
            let host = self.host.as_mut().expect("there is host memory");
            let Some((_, id)) = host.leaves.pop_first() else {
                break;
            };
            gone += self.nodes[id.0 as usize].len();
            self.leave_host(id);
        }
        !lacks(self)
    }

    /// A leaf that is in host memory alone leaves the tree.
    fn leave_host(&mut self, id: RadixId) {
        let node = &self.nodes[id.0 as usize];
        let (parent, key, len) = (node.parent, node.key, node.len());
        let host = self.host.as_mut().expect("it was in host memory");
        host.used.held -= len;
        host.used.evicted += u64::from(len);
        self.children.remove(&(parent, key));
        self.vacant.push(id);
        let above = &mut self.nodes[parent.0 as usize];
        above.host_children -= 1;
        if above.is_host_leaf() && host.held != Some(parent) {
            host.leaves.insert((above.stamp, parent));
        }
    }

    /// A leaf of the device part gives its memory there back; returns its tokens.
    pub(super) fn leave_device(&mut self, id: RadixId) -> u32 {
        let node = &self.nodes[id.0 as usize];
        let len = node.len();
        if !node.is_on_host {
            if !(self.writes_back() && self.copy_down(id)) {
                self.drop_below(id);
                return self.remove_leaf(id);
            }
            self.host.as_mut().expect("it writes back").unpaid += len;
        }
        if self.tracks_events {
            self.note_removed(id);
        }
        let node = &mut self.nodes[id.0 as usize];
        node.is_on_device = false;
        let (parent, stamp, is_leaf) = (node.parent, node.stamp, node.is_host_leaf());
        if is_leaf {
            let host = self.host.as_mut().expect("it has a copy there");
            host.leaves.insert((stamp, id));
        }
        let above = &mut self.nodes[parent.0 as usize];
        above.children -= 1;
        above.host_children += 1;
        if above.is_idle_leaf() {
            self.idle_leaves.insert((above.stamp, parent));
        }
        len
    }

    /// What lies below a node that leaves the tree cannot be reached any more. Seldom: its copy found no room, theirs did.
    fn drop_below(&mut self, id: RadixId) {
        while self.nodes[id.0 as usize].host_children > 0 {
            let host = self.host.as_ref().expect("copies are in host memory");
            let is_below = |&(_, leaf): &(u64, RadixId)| {
                let mut at = leaf;
                while at != RadixCache::ROOT && at != id {
                    at = self.nodes[at.0 as usize].parent;
                }
                at == id
            };
            let leaf = host.leaves.iter().copied().find(is_below);
            let (stamp, leaf) = leaf.expect("below a node in host memory there is a leaf");
            let host = self.host.as_mut().expect("copies are in host memory");
            host.leaves.remove(&(stamp, leaf));
            self.leave_host(leaf);
        }
    }

    /// Holds what a match found in host memory while room is made for it on the device.
    pub fn hold_copy(&mut self, found: Match) {
        let node = &self.nodes[found.deepest.0 as usize];
        let host = self.host.as_mut().expect("a copy is in host memory");
        host.leaves.remove(&(node.stamp, found.deepest));
        host.held = Some(found.deepest);
    }

    /// The opposite.
    pub fn release_copy(&mut self, found: Match) {
        let node = &self.nodes[found.deepest.0 as usize];
        let host = self.host.as_mut().expect("a copy is in host memory");
        host.held = None;
        if node.is_host_leaf() {
            host.leaves.insert((node.stamp, found.deepest));
        }
    }

    /// Puts on the device what a match found in host memory. Returns how many of its tokens a storage gave.
    pub fn load(&mut self, found: Match, path: &[Place]) -> u32 {
        let mut stored = 0;
        let mut missing = Vec::new();
        let mut id = found.deepest;
        while id != found.node {
            missing.push(id);
            id = self.nodes[id.0 as usize].parent;
        }
        for id in missing.into_iter().rev() {
            let node = &mut self.nodes[id.0 as usize];
            if std::mem::take(&mut node.is_from_storage) {
                stored += node.len();
            }
            self.enter_device(id, path);
        }
        let host = self.host.as_mut().expect("a copy is in host memory");
        host.used.loaded += u64::from(found.host_tokens);
        stored
    }

    /// A node that was in host memory alone has device memory again; its parent has some.
    fn enter_device(&mut self, id: RadixId, path: &[Place]) {
        let node = &mut self.nodes[id.0 as usize];
        node.is_on_device = true;
        let (parent, stamp, start, end) = (node.parent, node.stamp, node.start, node.end);
        let host = self.host.as_mut().expect("it was in host memory");
        host.leaves.remove(&(stamp, id));
        let above = &mut self.nodes[parent.0 as usize];
        if above.is_idle_leaf() {
            self.idle_leaves.remove(&(above.stamp, parent));
        }
        above.children += 1;
        above.host_children -= 1;
        self.tokens += end - start;
        self.evictable += end - start;
        self.idle_leaves.insert((stamp, id));
        if self.tracks_events {
            self.note_stored(path, start, end);
        }
    }

    /// How many tokens of a content's first `limit` are on the device, and how many follow in host memory. Changes nothing.
    pub fn peek(&self, path: &[Place], limit: u32) -> (u32, u32) {
        let (mut id, mut at, mut device, mut depth) = (RadixCache::ROOT, 0, 0, 0);
        while depth + self.page_size <= limit {
            while at < path.len() && path[at].end < depth + self.page_size {
                at += 1;
            }
            let Some(place) = path.get(at) else { break };
            let Some(&child) = self.children.get(&(id, place.node)) else {
                break;
            };
            let common = self.agreement(child, path, at).min(limit);
            depth = common - common % self.page_size;
            let node = &self.nodes[child.0 as usize];
            if node.is_on_device {
                device = depth;
            }
            if depth < node.end {
                break;
            }
            id = child;
        }
        (device, depth - device)
    }
}
