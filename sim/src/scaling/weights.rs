//! Weights that workers load from their neighbours.
//!
//! A worker that starts asks, when its image is there, for a *source*: a worker of its pool that serves or is warm, and that it
//! can be reached from. The nearest is taken (the same node, then the same rack, then the same zone); of several the one
//! that sends weights to the fewest others; of these the one with the lowest place. From there the weights flow as one transfer over the same
//! links as KV: each slows the other. When the source is gone before it is done, another one sends what is missing. Without any
//! source, at the beginning or later, the worker loads them from elsewhere (registry, disk), from the beginning, which takes a given time.
//!
//! Source: Dynamo's ModelExpress page (stream from a compatible worker over NIXL, else the file system, else download).

// Model: which of several sources ModelExpress takes is not documented; were it always the first, starts that come together would take
// as many times as long as there are of them. Weights arrive ready to use: tensors are not checked or arranged anew.
// Model: the GPU that sends serves at its full speed: copies take memory bandwidth of below 2 % of an H100's at 50 GB/s.

use super::fleet::Fleet;
use super::lifecycle::State;
use crate::event::{Action, Event, WorkerId};
use crate::links::topology::Domain;
use crate::links::{LinkUse, Network, NewTransfer, Topology};
use engine::{Span, Time};

/// How one worker got its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadRecord {
    /// Number of its life.
    pub life: u32,
    /// Its place.
    pub worker: u32,
    /// When it began to load.
    pub began: Time,
    /// When it had them; `Time::MAX` if it was called off before.
    pub ended: Time,
    /// The place of the last worker that sent; `None` if nobody did.
    pub from: Option<u32>,
    /// How many sent, one after the other.
    pub sources: u32,
    /// Bytes that came from them.
    pub bytes: u64,
    /// Whether it loaded them from elsewhere in the end.
    pub fell_back: bool,
}

/// A worker that is being sent its weights.
#[derive(Debug, Clone, Copy)]
struct Stream {
    to: WorkerId,
    from: WorkerId,
    /// Bytes of this transfer.
    bytes: u64,
    /// Its place in the record.
    record: usize,
}

/// All streams of weights.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    under_way: Vec<Stream>,
    /// GPUs by place.
    gpus: Vec<u32>,
    topology: Option<Topology>,
    /// Where nothing else is sent.
    own: Option<Box<Network>>,
    wake: Time,
    pub records: Vec<LoadRecord>,
}

/// What becomes of a worker that is to load its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loading {
    /// Somebody sends them.
    Streams,
    /// Nobody can.
    FromElsewhere,
}

/// Tags of transfers of weights count down from the last one, those of KV up from 0.
const fn tag(place: WorkerId) -> u32 {
    u32::MAX - place.0
}

/// The place to which a transfer brings weights.
pub(crate) const fn place_of(tag: u32) -> WorkerId {
    WorkerId(u32::MAX - tag)
}

impl Streams {
    /// `gpus` by place; `own` is the network, where nothing else is sent.
    pub fn new(gpus: Vec<u32>, topology: Option<Topology>, own: Option<Network>) -> Streams {
        Streams {
            under_way: Vec::new(),
            gpus,
            topology,
            own: own.map(Box::new),
            wake: Time::MAX,
            records: Vec::new(),
        }
    }

    /// The network where nothing else is sent.
    pub fn own_network(&mut self) -> Option<&mut Network> {
        self.own.as_deref_mut()
    }

    /// A worker begins to load.
    pub fn begin(
        &mut self,
        now: Time,
        to: (WorkerId, u32),
        bytes: u64,
        fleet: &Fleet,
        network: Option<&mut Network>,
    ) -> Loading {
        let (worker, life) = to;
        self.records.push(LoadRecord {
            life,
            worker: worker.0,
            began: now,
            ended: Time::MAX,
            from: None,
            sources: 0,
            bytes: 0,
            fell_back: false,
        });
        let record = self.records.len() - 1;
        self.send(now, worker, (bytes, record), fleet, network)
    }

    fn send(
        &mut self,
        now: Time,
        to: WorkerId,
        (bytes, record): (u64, usize),
        fleet: &Fleet,
        network: Option<&mut Network>,
    ) -> Loading {
        let Some(from) = self.source_for(to, fleet) else {
            self.records[record].fell_back = true;
            return Loading::FromElsewhere;
        };
        self.under_way.push(Stream {
            to,
            from,
            bytes,
            record,
        });
        let entry = &mut self.records[record];
        entry.from = Some(from.0);
        entry.sources += 1;
        let new = NewTransfer {
            tag: tag(to),
            from,
            to,
            bytes,
            delay: Span::ZERO,
            source: None,
        };
        let own = self.own.as_deref_mut();
        let network = own.or(network).expect(HAS_NETWORK);
        network.send(now, new);
        Loading::Streams
    }

    /// Who sends weights to a worker.
    fn source_for(&self, to: WorkerId, fleet: &Fleet) -> Option<WorkerId> {
        let has_weights = |state: &State| matches!(state, State::Ready | State::Spare);
        let there = fleet.in_state(fleet.pool_of(to), has_weights);
        let reaches = |from: &WorkerId| {
            let (from, to) = (from.0 as usize, to.0 as usize);
            let topology = self.topology.as_ref();
            topology.is_none_or(|it| it.barrier(&self.gpus, from, to).is_none())
        };
        let sends = |from: WorkerId| self.under_way.iter().filter(|it| it.from == from).count();
        let sources = there.into_iter().map(|(worker, _)| worker);
        let sources = sources.filter(reaches);
        sources.min_by_key(|&from| (self.distance(from, to), sends(from), from))
    }

    /// How far apart two workers are: in one node, rack, zone, or none of these.
    fn distance(&self, from: WorkerId, to: WorkerId) -> u32 {
        let Some(topology) = &self.topology else {
            return 0;
        };
        let domains = [Domain::Host, Domain::Rack, Domain::Zone];
        let are_together = |domain: &Domain| {
            let [a, b] = [from, to].map(|it| topology.domain_of(it.0 as usize, *domain));
            a == b
        };
        let nearest = domains.iter().position(are_together);
        nearest.unwrap_or(domains.len()) as u32
    }

    /// All weights are there.
    pub fn arrived(&mut self, now: Time, worker: WorkerId) {
        let at = self.under_way.iter().position(|it| it.to == worker);
        let stream = self.under_way.remove(at.expect("what ends was under way"));
        let record = &mut self.records[stream.record];
        record.bytes += stream.bytes;
        record.ended = now;
    }

    /// A worker will have loaded its weights from elsewhere by then.
    pub fn loads_until(&mut self, worker: WorkerId, until: Time) {
        let mut records = self.records.iter_mut().rev();
        let record = records.find(|it| it.worker == worker.0);
        record.expect("who loads is in the record").ended = until;
    }

    /// A worker has left its place: what it was sent is lost, and what it sent others send on. Those to which nobody can.
    pub fn left(
        &mut self,
        now: Time,
        gone: WorkerId,
        fleet: &Fleet,
        mut network: Option<&mut Network>,
    ) -> Vec<WorkerId> {
        let (touched, rest): (Vec<Stream>, Vec<Stream>) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|it| it.to == gone || it.from == gone);
        self.under_way = rest;
        let mut without = Vec::new();
        for stream in touched {
            let own = self.own.as_deref_mut();
            let links = own.or(network.as_deref_mut()).expect(HAS_NETWORK);
            let moved = links.carried(now, tag(stream.to));
            links.cancel(now, tag(stream.to));
            self.records[stream.record].bytes += moved;
            if stream.to != gone {
                let left = (stream.bytes - moved, stream.record);
                let network = network.as_deref_mut();
                if self.send(now, stream.to, left, fleet, network) == Loading::FromElsewhere {
                    without.push(stream.to);
                }
            }
        }
        if let Some(record) = self.records.iter_mut().rev().find(|it| it.worker == gone.0) {
            // Called off while it loaded from elsewhere.
            record.ended = match record.ended {
                ended if ended > now => Time::MAX,
                ended => ended,
            };
        }
        without
    }

    /// Something happens on the network where nothing else is sent. Appends who has its weights.
    pub fn advance(&mut self, now: Time, loaded: &mut Vec<WorkerId>) {
        if self.wake <= now {
            self.wake = Time::MAX;
        }
        if let Some(network) = &mut self.own {
            let mut ended = Vec::new();
            network.advance(now, &mut ended);
            loaded.extend(ended.into_iter().map(place_of));
        }
    }

    /// Asks to be told when something happens there.
    pub fn ask(&mut self, actions: &mut Vec<Action>) {
        let next = self.own.as_ref().and_then(|network| network.next_event());
        if let Some(time) = next.filter(|&time| time < self.wake) {
            self.wake = time;
            let event = Event::Links;
            actions.push(Action::At { time, event });
        }
    }

    /// What each link did where nothing else is sent.
    pub fn links(&self) -> Vec<LinkUse> {
        let own = self.own.as_ref();
        own.map_or_else(Vec::new, |network| network.links())
    }
}

pub(crate) const HAS_NETWORK: &str = "weights are streamed where there is a network";
