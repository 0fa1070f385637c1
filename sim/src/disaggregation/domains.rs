//! Topology domains: prefill and decode worker of a request in one zone, rack or host.
//!
//! The worker that is chosen second, the decode worker after a prefill, the prefill worker where the decode worker comes first,
//! is looked for near the first.
//!
//! * *Required*: only workers of the first one's domain may get the request. If no such worker can hold it, the request is
//!   refused when the first worker is chosen, before its prompt is computed (it fails closed: it goes nowhere else, however
//!   idle other domains are).
//! * *Preferred*: all may get it, and those of the domain cost less: their cost is multiplied by `exp(-tanh(weight))`. Only a
//!   router with costs can do that.
//!
//! Source: Dynamo 1.6, `kvTransferPolicy` (`domain`, `enforcement`, `preferredWeight`), which reach the router as required or
//! preferred taints `dynamo.topology/<domain>=<value>`; the multiplier is that of its selector.

use super::Role;
use crate::event::WorkerId;
use crate::links::Topology;
use crate::links::topology::Domain;
use std::sync::Arc;

/// Where the second worker of a request is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DomainPolicy {
    /// Near means in one of these.
    pub domain: Domain,
    /// How strictly.
    pub enforcement: Enforcement,
}

/// How strictly a domain is kept to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Enforcement {
    /// Nowhere else.
    Required,
    /// Rather there, by this weight, 0 to 1.
    Preferred(f64),
}

/// Workers that a request should rather go to, by place in their group, in order.
#[derive(Debug, Clone)]
pub(crate) struct Near {
    pub places: Arc<[WorkerId]>,
    /// How much rather; `None` if no others may get it.
    pub weight: Option<f64>,
}

/// Who is near whom.
#[derive(Debug, Clone)]
pub(crate) struct Domains {
    weight: Option<f64>,
    /// By worker.
    domain_of: Vec<u32>,
    /// By domain: places of the prefill and of the decode workers in it.
    places: Vec<[Arc<[WorkerId]>; 2]>,
}

impl Domains {
    /// By the roles of all workers, in order.
    pub fn new(policy: DomainPolicy, topology: &Topology, roles: &[Role]) -> Domains {
        let domain = |worker| topology.domain_of(worker, policy.domain);
        let domain_of: Vec<u32> = (0..roles.len()).map(domain).collect();
        let domains = domain_of.iter().max().map_or(0, |last| last + 1) as usize;
        let mut places = vec![[Vec::new(), Vec::new()]; domains];
        let mut next = [0, 0];
        for (role, domain) in roles.iter().zip(&domain_of) {
            let place = &mut next[*role as usize];
            places[*domain as usize][*role as usize].push(WorkerId(*place));
            *place += 1;
        }
        Domains {
            weight: match policy.enforcement {
                Enforcement::Required => None,
                Enforcement::Preferred(weight) => Some(weight),
            },
            domain_of,
            places: places.into_iter().map(|both| both.map(Arc::from)).collect(),
        }
    }

    /// Workers of a role near a worker.
    pub fn near(&self, worker: WorkerId, role: Role) -> Near {
        let domain = self.domain_of[worker.0 as usize] as usize;
        Near {
            places: self.places[domain][role as usize].clone(),
            weight: self.weight,
        }
    }
}
