//! Which links a copy crosses.
//!
//! ```text
//! GPU ⇄ host     the worker's PCIe
//! GPU ⇄ disk     PCIe and the node's disks
//! GPU ⇄ object   PCIe and the object store
//! host → disk    the node's disks             disk → object    the disks and the object store
//! ```

use super::spec::{KvbmSpec, Medium, Speed};
use crate::links::{Fabric, LinkId};
use engine::Span;

/// How a tier is reached.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    /// From it to the GPU.
    pub up: Way,
    /// To it from the tier above, or the GPU.
    pub down: Way,
    /// From it to host memory.
    pub raise: Way,
}

/// Links and the time before the first byte.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub path: Vec<LinkId>,
    pub delay: Span,
}

/// Both directions of one thing.
#[derive(Debug, Clone, Copy)]
struct Links {
    read: LinkId,
    write: LinkId,
    speed: Speed,
}

/// Adds links worker by worker.
pub(super) struct Builder<'a> {
    fabric: &'a mut Fabric,
    /// The disks of the node that is being filled.
    disks: Option<Links>,
    object: Option<Links>,
}

impl<'a> Builder<'a> {
    pub fn new(fabric: &'a mut Fabric) -> Builder<'a> {
        Builder {
            fabric,
            disks: None,
            object: None,
        }
    }

    fn add(&mut self, speed: Speed) -> Links {
        Links {
            read: self.fabric.add_link(speed.read_bytes_per_s),
            write: self.fabric.add_link(speed.write_bytes_per_s),
            speed,
        }
    }

    /// The channels of the tiers of a pool's `index`-th worker.
    pub fn of_worker(&mut self, spec: &KvbmSpec, index: u32) -> Vec<Channels> {
        let pcie = self.add(spec.pcie);
        if index.is_multiple_of(spec.workers_per_node) {
            self.disks = None;
        }
        // What the tier above is read from; the GPU at first.
        let mut above: Option<Links> = None;
        let mut from_gpu = true;
        let mut channels = Vec::new();
        for tier in &spec.tiers {
            let own = match tier.medium {
                Medium::Host => None,
                Medium::Disk(speed) => {
                    let disks = self.disks.unwrap_or_else(|| self.add(speed));
                    self.disks = Some(disks);
                    Some(disks)
                }
                Medium::Object(speed) => {
                    let object = self.object.unwrap_or_else(|| self.add(speed));
                    self.object = Some(object);
                    Some(object)
                }
            };
            let reads = own.map(|own| (own.read, own.speed.read_latency));
            let writes = own.map(|own| (own.write, own.speed.write_latency));
            let leaves = match (from_gpu, above) {
                (true, _) => Some((pcie.write, pcie.speed.write_latency)),
                (false, above) => above.map(|above| (above.read, above.speed.read_latency)),
            };
            channels.push(Channels {
                raise: way([reads, None]),
                up: way([reads, Some((pcie.read, pcie.speed.read_latency))]),
                down: way([leaves, writes]),
            });
            above = own;
            from_gpu = false;
        }
        channels
    }
}

fn way(parts: [Option<(LinkId, Span)>; 2]) -> Way {
    let parts = parts.into_iter().flatten();
    let mut way = Way {
        path: Vec::new(),
        delay: Span::ZERO,
    };
    for (link, latency) in parts {
        way.path.push(link);
        way.delay += latency;
    }
    way
}
