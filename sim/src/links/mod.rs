//! Links as resources: how fast concurrent transfers advance that share them.
//!
//! A *flow* carries bytes over a *path* of links. At every moment the rates of all flows are max-min fair: no flow can get
//! more without one getting less that has no more than it. [Progressive filling](fair_share) finds them. Rates change only
//! when a flow begins or ends, and then only those of flows that share a link with it, directly or through others; all
//! other flows keep rate and end. A flow first waits for its latency and set-up, in which it occupies nothing. A flow whose
//! bytes come into being while it moves may have a source of so many bytes per second, as if that were a link of its own.
//!
//! What a link carries may change while flows cross it: less when something is wrong with it, nothing when it is down. Flows
//! over a link that is down stand still and go on when it is back. [What that costs](impaired) is counted against the rates that
//! the same flows would have if all links were sound.
//!
//! Everything is an integer: rates are whole bytes per second, and what is left of a flow is counted in 10^-12 bytes, so
//! that a rate times picoseconds is exact and a flow may be looked at any number of times without changing its end.
//!
//! Rules: Bertsekas and Gallager, Data Networks (1992), section 6.5.2.

// Model: flows are fluids. Packets, congestion windows and head-of-line blocking are left out; RDMA networks with credit
// or rate control come within some 5 % of the fair rates for transfers of a millisecond and more (expected, not measured).
// Model: a fair share is rounded down to whole bytes per second: below 10^-6 of the rate of any link above 1 MB/s.

mod fair_share;
pub mod impaired;
mod network;
pub mod placement;
mod preset;
pub mod topology;

pub use impaired::{Impairment, LinkCost, SiteKind};
pub use network::{Network, NetworkSpec, NewTransfer};
pub use preset::{Transport, TransportPreset};
pub use topology::Topology;

use engine::{Span, Time};
use fair_share::{FairShare, Health};
use std::collections::BTreeSet;

/// Index of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// Index of a flow under way; free for another once the flow has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u32);

/// What kind of link it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// All that a worker sends, or all that it receives.
    Worker,
    /// NVLink of a worker's GPUs.
    NvLink,
    /// A network card.
    Nic,
    /// Between a rack's leaf switch and the spine.
    Leaf,
    /// Between a zone's spine and the others.
    Spine,
    /// What all share.
    Core,
}

impl LinkKind {
    /// All of them.
    pub const ALL: [LinkKind; 6] = [
        LinkKind::Worker,
        LinkKind::NvLink,
        LinkKind::Nic,
        LinkKind::Leaf,
        LinkKind::Spine,
        LinkKind::Core,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LinkKind::Worker => "worker",
            LinkKind::NvLink => "nvlink",
            LinkKind::Nic => "nic",
            LinkKind::Leaf => "leaf",
            LinkKind::Spine => "spine",
            LinkKind::Core => "core",
        }
    }
}

/// One direction of a link.
#[derive(Debug, Clone)]
struct Link {
    kind: LinkKind,
    /// What it carries at most now; 0 when it is down.
    bytes_per_s: u64,
    /// What it carries when it is sound.
    sound_bytes_per_s: u64,
    /// Moving flows that cross it.
    flows: Vec<FlowId>,
    busy_since: Time,
    record: LinkRecord,
}

/// What a link did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkRecord {
    /// Bytes of the flows that ended.
    pub bytes: u64,
    /// Time in which some flow moved over it.
    pub busy: Span,
}

/// A link, one way, and what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkUse {
    /// What it is.
    pub kind: LinkKind,
    /// What it carries at most.
    pub bytes_per_s: u64,
    /// What it did.
    pub record: LinkRecord,
}

/// What a flow is to do.
#[derive(Debug, Clone, Copy)]
pub struct NewFlow<'a> {
    /// The caller's name for it, returned when it ends.
    pub tag: u32,
    /// The links it crosses, each once. Without any it ends when its delay is over.
    pub path: &'a [LinkId],
    /// What it carries.
    pub bytes: u64,
    /// Time before the first byte moves.
    pub delay: Span,
}

/// A flow under way.
#[derive(Debug, Clone)]
struct Flow {
    tag: u32,
    path: Vec<LinkId>,
    bytes: u64,
    is_moving: bool,
    /// In 10^-12 bytes, at `since`.
    left: u128,
    since: Time,
    bytes_per_s: u64,
    /// Bytes per second that there are to be carried at most.
    source: Option<u64>,
    /// When its delay is over or, moving, when it ends at this rate; `Time::MAX` while it stands still.
    due: Time,
    /// Its rate if all links were sound; 0 while all are.
    sound_bytes_per_s: u64,
    /// Since when that and its rate have been what they are.
    held_since: Time,
    /// For how long it has been held up by links that are not sound, since somebody asked.
    held: Span,
}

impl Flow {
    /// Counts the time up to now in which it moved more slowly than it could.
    fn count_held(&mut self, now: Time) {
        let (rate, sound) = (self.bytes_per_s, self.sound_bytes_per_s);
        if sound > rate {
            let elapsed = u128::from(now.since(self.held_since).0);
            let held = elapsed * u128::from(sound - rate) / u128::from(sound);
            self.held += Span(held as u64);
        }
        self.held_since = now;
    }
}

const UNITS_PER_BYTE: u128 = 1_000_000_000_000;

/// Whose rates are to be found: of all flows that something connects.
#[derive(Debug, Clone, Copy)]
enum Around {
    /// A flow's path.
    Flow(FlowId),
    /// A link.
    Link(LinkId),
}

/// Links and the flows over them.
#[derive(Debug, Clone, Default)]
pub struct Fabric {
    links: Vec<Link>,
    flows: Vec<Flow>,
    vacant: Vec<FlowId>,
    /// Flows that a source limits.
    sources: u32,
    /// Links that carry less than they could.
    impaired: u32,
    /// Of all flows, what happens next to them.
    agenda: BTreeSet<(Time, FlowId)>,
    share: FairShare,
}

impl Fabric {
    /// Adds a link, one way.
    pub fn add_link(&mut self, bytes_per_s: u64) -> LinkId {
        self.add_link_of(LinkKind::Worker, bytes_per_s)
    }

    /// Adds a link of this kind, one way.
    pub fn add_link_of(&mut self, kind: LinkKind, bytes_per_s: u64) -> LinkId {
        assert!(bytes_per_s > 0, "a link carries something");
        self.links.push(Link {
            kind,
            bytes_per_s,
            sound_bytes_per_s: bytes_per_s,
            flows: Vec::new(),
            busy_since: Time::ZERO,
            record: LinkRecord::default(),
        });
        LinkId((self.links.len() - 1) as u32)
    }

    /// What a link did, up to when it was last idle.
    #[must_use]
    pub fn record(&self, link: LinkId) -> LinkRecord {
        self.links[link.0 as usize].record
    }

    /// What each link did, up to when it was last idle.
    pub fn uses(&self) -> impl Iterator<Item = LinkUse> {
        self.links.iter().map(|link| LinkUse {
            kind: link.kind,
            bytes_per_s: link.sound_bytes_per_s,
            record: link.record,
        })
    }

    /// Flows that wait or move.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.agenda.len()
    }

    /// Bytes per second at which a flow moves now; 0 while it waits.
    #[must_use]
    pub fn rate(&self, flow: FlowId) -> u64 {
        self.flows[flow.0 as usize].bytes_per_s
    }

    /// Bytes that a flow under way has carried by `now`; everything due by then has been [advanced](Fabric::advance) over.
    #[must_use]
    pub fn carried(&self, now: Time, flow: FlowId) -> u64 {
        self.flows[flow.0 as usize].bytes - self.left(now, flow)
    }

    /// Bytes that a flow under way has still to carry at `now`; everything due by then has been advanced over.
    #[must_use]
    pub fn left(&self, now: Time, flow: FlowId) -> u64 {
        let flow = &self.flows[flow.0 as usize];
        let moved = match flow.is_moving {
            true => u128::from(flow.bytes_per_s) * u128::from(now.since(flow.since).0),
            false => 0,
        };
        let left = flow.left.saturating_sub(moved).div_ceil(UNITS_PER_BYTE);
        u64::try_from(left).expect("no more is left than there was")
    }

    /// The links that a flow crosses.
    #[must_use]
    fn path(&self, flow: FlowId) -> &[LinkId] {
        &self.flows[flow.0 as usize].path
    }

    /// When something happens next, if nothing is started before.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        let next = self.agenda.first().map(|&(time, _)| time);
        next.filter(|&time| time != Time::MAX)
    }

    /// What a link carries when it is sound.
    #[must_use]
    pub fn sound_capacity(&self, link: LinkId) -> u64 {
        self.links[link.0 as usize].sound_bytes_per_s
    }

    /// From now on a link carries so much, at most what it carries when it is sound; 0 and it is down. Everything due by `now`
    /// has been [advanced](Fabric::advance) over.
    pub fn set_capacity(&mut self, now: Time, link: LinkId, bytes_per_s: u64) {
        let it = &mut self.links[link.0 as usize];
        assert!(
            bytes_per_s <= it.sound_bytes_per_s,
            "nothing makes a link faster than it is"
        );
        let was_impaired = it.bytes_per_s < it.sound_bytes_per_s;
        let is_impaired = bytes_per_s < it.sound_bytes_per_s;
        if std::mem::replace(&mut it.bytes_per_s, bytes_per_s) == bytes_per_s {
            return;
        }
        let has_flows = !it.flows.is_empty();
        self.impaired = self.impaired + u32::from(is_impaired) - u32::from(was_impaired);
        if has_flows {
            self.share_over(now, Around::Link(link));
        }
    }

    /// For how long a flow has been held up since this was asked before: each second counts by the part of the rate that it lacks
    /// of what it would have if all links were sound. A flow that has ended may be asked for until another is started.
    pub fn take_held(&mut self, now: Time, flow: FlowId) -> Span {
        let flow = &mut self.flows[flow.0 as usize];
        if flow.is_moving {
            flow.count_held(now);
        }
        std::mem::take(&mut flow.held)
    }

    /// Starts a flow; everything due by `now` has been [advanced](Fabric::advance) over.
    pub fn start(&mut self, now: Time, new: NewFlow<'_>) -> FlowId {
        self.start_from(now, new, None)
    }

    /// The same for a flow whose source gives it so many bytes per second at most, until it is [unbound](Fabric::unbind).
    pub fn start_from(&mut self, now: Time, new: NewFlow<'_>, source: Option<u64>) -> FlowId {
        assert!(source != Some(0), "a source gives something");
        self.sources += u32::from(source.is_some());
        let flow = Flow {
            source,
            tag: new.tag,
            path: new.path.to_vec(),
            bytes: new.bytes,
            is_moving: false,
            left: u128::from(new.bytes) * UNITS_PER_BYTE,
            since: now,
            bytes_per_s: 0,
            due: now + new.delay,
            sound_bytes_per_s: 0,
            held_since: now,
            held: Span::ZERO,
        };
        let due = flow.due;
        let id = match self.vacant.pop() {
            Some(id) => {
                self.flows[id.0 as usize] = flow;
                id
            }
            None => {
                self.flows.push(flow);
                FlowId((self.flows.len() - 1) as u32)
            }
        };
        self.agenda.insert((due, id));
        id
    }

    /// Ends a flow before its time; what it has carried is lost.
    pub fn cancel(&mut self, now: Time, id: FlowId) {
        let due = self.flows[id.0 as usize].due;
        let was_under_way = self.agenda.remove(&(due, id));
        assert!(was_under_way, "only a flow under way is cancelled");
        self.flows[id.0 as usize].bytes = 0;
        self.end(now, id);
    }

    /// Takes the limit off a flow under way that its source set.
    pub fn unbind(&mut self, now: Time, id: FlowId) {
        let flow = &mut self.flows[id.0 as usize];
        if flow.source.take().is_some() {
            self.sources -= 1;
            if self.flows[id.0 as usize].is_moving {
                self.share_around(now, id);
            }
        }
    }

    /// Lets flows begin and end that are due by `now`, in the order of their times. Appends the tags of those that ended,
    /// of one instant in the order of tags.
    pub fn advance(&mut self, now: Time, ended: &mut Vec<u32>) {
        let mut flows = Vec::new();
        self.advance_flows(now, &mut flows);
        ended.extend(flows.iter().map(|&(tag, _)| tag));
    }

    /// The same; each tag with its flow.
    pub fn advance_flows(&mut self, now: Time, ended: &mut Vec<(u32, FlowId)>) {
        while let Some(time) = self.next_event().filter(|&time| time <= now) {
            let from = ended.len();
            while let Some(&(due, id)) = self.agenda.first()
                && due == time
            {
                self.agenda.pop_first();
                let flow = &self.flows[id.0 as usize];
                if !flow.is_moving && flow.left > 0 && !flow.path.is_empty() {
                    self.begin(time, id);
                } else {
                    ended.push((flow.tag, id));
                    self.end(time, id);
                }
            }
            ended[from..].sort_unstable();
        }
    }

    /// The delay of a flow is over.
    fn begin(&mut self, now: Time, id: FlowId) {
        let flow = &mut self.flows[id.0 as usize];
        flow.is_moving = true;
        flow.since = now;
        flow.held_since = now;
        flow.due = Time::MAX;
        self.agenda.insert((Time::MAX, id));
        for index in 0..self.flows[id.0 as usize].path.len() {
            let link = &mut self.links[self.flows[id.0 as usize].path[index].0 as usize];
            if link.flows.is_empty() {
                link.busy_since = now;
            }
            link.flows.push(id);
        }
        self.share_around(now, id);
    }

    /// A flow leaves.
    fn end(&mut self, now: Time, id: FlowId) {
        let flow = &mut self.flows[id.0 as usize];
        let was_moving = std::mem::replace(&mut flow.is_moving, false);
        flow.count_held(now);
        flow.sound_bytes_per_s = 0;
        self.sources -= u32::from(flow.source.take().is_some());
        flow.bytes_per_s = 0;
        let bytes = flow.bytes;
        self.vacant.push(id);
        if !was_moving {
            return;
        }
        for index in 0..self.flows[id.0 as usize].path.len() {
            let link = &mut self.links[self.flows[id.0 as usize].path[index].0 as usize];
            let at = link.flows.iter().position(|&other| other == id);
            link.flows
                .swap_remove(at.expect("a moving flow is on its links"));
            link.record.bytes += bytes;
            if link.flows.is_empty() {
                link.record.busy += now.since(link.busy_since);
            }
        }
        self.share_around(now, id);
    }

    /// Shares anew among all flows that the path of `id` connects.
    fn share_around(&mut self, now: Time, id: FlowId) {
        let flow = &self.flows[id.0 as usize];
        let mut links = flow.path.iter().map(|link| &self.links[link.0 as usize]);
        if links
            .clone()
            .all(|link| link.flows.iter().all(|&other| other == id))
        {
            // Nobody else is concerned.
            let rates = links.clone().map(|link| link.bytes_per_s);
            let rate = rates.chain(flow.source).min();
            let sound = links.clone().map(|link| link.sound_bytes_per_s);
            let sound = sound.chain(flow.source).min();
            if let Some(rate) = rate.filter(|_| links.any(|link| !link.flows.is_empty())) {
                self.set_rate(now, id, rate);
                self.set_sound_rate(id, sound.unwrap_or(rate));
            }
            return;
        }
        self.share_over(now, Around::Flow(id));
    }

    /// Shares anew among all flows that the links of a path connect.
    fn share_over(&mut self, now: Time, around: Around) {
        let mut share = std::mem::take(&mut self.share);
        let has_sources = self.sources > 0;
        let solve = |share: &mut FairShare, links: &[Link], flows: &[Flow], health| {
            let path = match &around {
                Around::Flow(id) => &flows[id.0 as usize].path,
                Around::Link(link) => std::slice::from_ref(link),
            };
            share.solve(links, flows, path, has_sources, health);
        };
        solve(&mut share, &self.links, &self.flows, Health::AsIs);
        for &(flow, rate) in share.rates() {
            self.set_rate(now, flow, rate);
        }
        if self.impaired > 0 {
            solve(&mut share, &self.links, &self.flows, Health::Sound);
        }
        for &(flow, rate) in share.rates() {
            self.set_sound_rate(flow, rate);
        }
        self.share = share;
    }

    /// What a flow would get if all links were sound, after its rate was set.
    fn set_sound_rate(&mut self, id: FlowId, bytes_per_s: u64) {
        let counts = self.impaired > 0;
        self.flows[id.0 as usize].sound_bytes_per_s = if counts { bytes_per_s } else { 0 };
    }

    fn set_rate(&mut self, now: Time, id: FlowId, bytes_per_s: u64) {
        let flow = &mut self.flows[id.0 as usize];
        flow.count_held(now);
        if flow.bytes_per_s == bytes_per_s {
            return;
        }
        let moved = u128::from(flow.bytes_per_s) * u128::from(now.since(flow.since).0);
        flow.left = flow.left.saturating_sub(moved);
        flow.since = now;
        flow.bytes_per_s = bytes_per_s;
        let due = match bytes_per_s {
            0 => Time::MAX,
            _ => {
                let lasts = u64::try_from(flow.left.div_ceil(u128::from(bytes_per_s)));
                now + Span(lasts.expect("a transfer is over within 213 days"))
            }
        };
        let was = self.agenda.remove(&(flow.due, id));
        debug_assert!(was, "a moving flow is on the agenda");
        flow.due = due;
        self.agenda.insert((due, id));
    }
}
