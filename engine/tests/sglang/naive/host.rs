//! Host memory below the naive tree: flags on nodes, and every question answered by looking at all of them.

use super::Oracle;
use engine::{HostPool, WritePolicy};

/// Host memory and what it did, in tokens.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    pub pool: HostPool,
    pub loaded: usize,
    pub written_back: usize,
    pub written: usize,
}

impl Oracle {
    pub fn with_host(mut self, pool: HostPool) -> Self {
        self.host = Some(Host {
            pool,
            loaded: 0,
            written_back: 0,
            written: 0,
        });
        self
    }

    /// Tokens with a copy in host memory.
    pub fn host_tokens(&self) -> usize {
        let there = self
            .nodes
            .iter()
            .filter(|node| !node.is_dead && node.on_host);
        there.map(|node| node.tokens.len()).sum()
    }

    /// Where the device part of a match ends, and how long it is.
    pub(super) fn device_part(&self, mut node: usize, mut tokens: usize) -> (usize, usize) {
        while !self.nodes[node].on_device {
            tokens -= self.nodes[node].tokens.len();
            node = self.nodes[node].parent;
        }
        (node, tokens)
    }

    /// An insert passes a node of the device, or adds it.
    pub(super) fn hit(&mut self, node: usize) {
        let Some(host) = self.host else { return };
        let enough = match host.pool.write_policy {
            WritePolicy::WriteThrough => 1,
            WritePolicy::WriteThroughSelective => 2,
            WritePolicy::WriteBack => return,
        };
        self.nodes[node].hits += 1;
        if self.nodes[node].hits >= enough && !self.nodes[node].on_host {
            self.copy_down(node);
        }
    }

    fn copy_down(&mut self, node: usize) -> bool {
        let len = self.nodes[node].tokens.len();
        let size = self.host.expect("there is host memory").pool.tokens as usize;
        if self.host_tokens() + len > size {
            let mut gone = 0;
            while gone < len {
                let alone = |id: &usize| {
                    let node = &self.nodes[*id];
                    !node.is_dead
                        && !node.on_device
                        && node.children.is_empty()
                        && self.held_copy != Some(*id)
                };
                let leaves = (0..self.nodes.len()).filter(alone);
                let Some(oldest) = leaves.min_by_key(|&id| self.nodes[id].time) else {
                    break;
                };
                gone += self.nodes[oldest].tokens.len();
                self.bury(oldest);
            }
        }
        let fits = self.host_tokens() + len <= size;
        if fits {
            self.nodes[node].on_host = true;
            self.host.as_mut().expect("there is host memory").written += len;
        }
        fits
    }

    fn bury(&mut self, node: usize) {
        self.nodes[node].is_dead = true;
        let parent = self.nodes[node].parent;
        self.nodes[parent].children.retain(|&child| child != node);
    }

    /// Takes the least recently used leaf off the device; `None` if there is none.
    pub(super) fn evict_one(&mut self) -> Option<usize> {
        let is_leaf = |id: &usize| {
            let node = &self.nodes[*id];
            let below = |&child: &usize| self.nodes[child].on_device;
            !node.is_dead && node.on_device && node.locks == 0 && !node.children.iter().any(below)
        };
        let leaves = (0..self.nodes.len()).filter(is_leaf);
        let oldest = leaves.min_by_key(|&id| self.nodes[id].time)?;
        let len = self.nodes[oldest].tokens.len();
        self.free += len;
        if !self.nodes[oldest].on_host {
            let policy = self.host.map(|host| host.pool.write_policy);
            if policy == Some(WritePolicy::WriteBack) && self.copy_down(oldest) {
                self.host
                    .as_mut()
                    .expect("there is host memory")
                    .written_back += len;
            } else {
                self.bury(oldest);
                return Some(len);
            }
        }
        self.nodes[oldest].on_device = false;
        Some(len)
    }

    /// Brings up what follows a match of `tokens` on the device; false if nothing is brought.
    pub(super) fn load_back(&mut self, device: usize, deepest: usize, tokens: usize) -> bool {
        if tokens < 10 {
            return false;
        }
        self.lock(device);
        self.held_copy = Some(deepest);
        if self.free < tokens {
            let mut freed = 0;
            while freed < tokens {
                let Some(len) = self.evict_one() else { break };
                freed += len;
            }
        }
        self.held_copy = None;
        self.unlock(device);
        if self.free < tokens {
            return false;
        }
        self.free -= tokens;
        let mut node = deepest;
        while node != device {
            self.nodes[node].on_device = true;
            node = self.nodes[node].parent;
        }
        self.host.as_mut().expect("there is host memory").loaded += tokens;
        true
    }
}
