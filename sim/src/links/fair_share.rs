//! Progressive filling: the max-min fair rates of flows over links.
//!
//! All rates grow together from nothing. The first link to be full is the one with the smallest capacity per flow; its
//! flows have what they get and leave, taking it off their other links. Then the rest grows on, until nobody is left. A flow
//! with a source leaves when it has what the source gives.
//!
//! Only the flows that the path of one flow connects are looked at: flows on its links, the links of these, and so on.

use super::{Flow, FlowId, Link, LinkId};

/// A set of flows that share links, and scratch to find its rates.
#[derive(Debug, Clone, Default)]
pub(super) struct FairShare {
    /// By link: number of the last search that reached it.
    link_seen: Vec<u32>,
    /// By flow: the same.
    flow_seen: Vec<u32>,
    search: u32,
    /// Links reached, with what is left of them and the flows that still grow.
    links: Vec<Growing>,
    /// By link: its place in `links`, if reached.
    place: Vec<u32>,
    rates: Vec<(FlowId, u64)>,
    is_settled: Vec<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Growing {
    link: LinkId,
    bytes_per_s: u64,
    flows: u64,
    is_down: bool,
}

/// Which capacities count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Those that links have now.
    AsIs,
    /// Those of links that are sound.
    Sound,
}

impl FairShare {
    /// The flows found and their rates.
    pub fn rates(&self) -> &[(FlowId, u64)] {
        &self.rates
    }

    /// Finds the flows connected with the links of `path`, and their rates.
    pub fn solve(
        &mut self,
        links: &[Link],
        flows: &[Flow],
        path: &[LinkId],
        has_sources: bool,
        health: Health,
    ) {
        self.reach(links, flows, path, health);
        self.is_settled.clear();
        self.is_settled.resize(self.rates.len(), false);
        // By flow: its place in `rates`, in the cells that the search has marked.
        for (at, (flow, _)) in self.rates.iter().enumerate() {
            self.flow_seen[flow.0 as usize] = at as u32;
        }
        while let Some(full) = self.fullest() {
            let Growing {
                link,
                bytes_per_s,
                flows: sharers,
                is_down,
            } = self.links[full];
            let rate = (bytes_per_s / sharers).max(u64::from(!is_down));
            if has_sources && let Some((at, source)) = self.first_spent(flows, rate) {
                self.settle(flows, at, source);
                continue;
            }
            for &flow in &links[link.0 as usize].flows {
                let at = self.flow_seen[flow.0 as usize] as usize;
                if !self.is_settled[at] {
                    self.settle(flows, at, rate);
                }
            }
        }
        for (flow, _) in &self.rates {
            self.flow_seen[flow.0 as usize] = 0;
        }
    }

    /// Of the flows that still grow, the one whose source gives least, if that is no more than `rate`.
    fn first_spent(&self, flows: &[Flow], rate: u64) -> Option<(usize, u64)> {
        let growing = self.rates.iter().enumerate();
        let growing = growing.filter(|&(at, _)| !self.is_settled[at]);
        let sources = growing.filter_map(|(at, (flow, _))| {
            let source = flows[flow.0 as usize].source?;
            (source <= rate).then_some((at, source))
        });
        sources.min_by_key(|&(_, source)| source)
    }

    /// A flow has what it gets, and takes it off its links.
    fn settle(&mut self, flows: &[Flow], at: usize, rate: u64) {
        self.is_settled[at] = true;
        self.rates[at].1 = rate;
        let flow = self.rates[at].0;
        for other in &flows[flow.0 as usize].path {
            let other = &mut self.links[self.place[other.0 as usize] as usize];
            other.bytes_per_s = other.bytes_per_s.saturating_sub(rate);
            other.flows -= 1;
        }
    }

    /// The link that is full first; one that is down always is.
    fn fullest(&self) -> Option<usize> {
        let growing = self.links.iter().enumerate();
        growing
            .filter(|(_, link)| link.flows > 0)
            .min_by_key(|(_, link)| (!link.is_down, link.bytes_per_s / link.flows))
            .map(|(at, _)| at)
    }

    /// Collects links and moving flows from the links of a path on.
    fn reach(&mut self, links: &[Link], flows: &[Flow], path: &[LinkId], health: Health) {
        self.search = self.search.wrapping_add(1).max(1);
        self.link_seen.resize(links.len(), 0);
        self.place.resize(links.len(), 0);
        self.flow_seen
            .resize(flows.len().max(self.flow_seen.len()), 0);
        self.links.clear();
        self.rates.clear();
        self.reach_path(links, path, health);
        let mut next = 0;
        while let Some(&Growing { link, .. }) = self.links.get(next) {
            for &flow in &links[link.0 as usize].flows {
                let seen = &mut self.flow_seen[flow.0 as usize];
                if *seen != self.search {
                    *seen = self.search;
                    self.rates.push((flow, 0));
                    self.reach_path(links, &flows[flow.0 as usize].path, health);
                }
            }
            next += 1;
        }
    }

    fn reach_path(&mut self, links: &[Link], path: &[LinkId], health: Health) {
        for &link in path {
            let seen = &mut self.link_seen[link.0 as usize];
            if *seen != self.search {
                *seen = self.search;
                self.place[link.0 as usize] = self.links.len() as u32;
                let it = &links[link.0 as usize];
                let bytes_per_s = match health {
                    Health::AsIs => it.bytes_per_s,
                    Health::Sound => it.sound_bytes_per_s,
                };
                self.links.push(Growing {
                    link,
                    bytes_per_s,
                    flows: it.flows.len() as u64,
                    is_down: bytes_per_s == 0,
                });
            }
        }
    }
}
