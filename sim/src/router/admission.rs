//! From a request to its rank: wait, choose, book.
//!
//! A request waits while all ranks are busy: more prompt tokens in prefill than the threshold of its class. What it would
//! add itself is no part of that, so the request that crosses the threshold is taken, and one rank that is not busy lets
//! everything through until it is. Once a request goes, the cost chooses its rank, which may be a busy one. The queue is
//! looked at again when a prefill or a request ends.
//!
//! The real router lets every request join the queue and serves its heads at once, so that an urgent newcomer can overtake;
//! whether a rank that may take the request is busy decides. Its replay queues an arrival only if its class has a backlog or
//! all ranks are busy, whichever of them may take it, and serves nothing at that moment. Source: dynamo-kv-router and
//! dynamo-mocker 1.6; recorded in `tests/golden/router/sq_*.json`.

use super::active_blocks::ActiveBlocks;
use super::active_sequences::{ActiveSequences, Booking, PromptBlocks};
use super::by_rank::BlocksByRank;
use super::cost::{CostWeights, Demand, Overlap, RankLoad, cost};
use super::indexer::Rank;
use super::load_order::LoadOrder;
use super::policy_class::{PolicyClass, PolicyProfile};
use super::prefill_times::PrefillTimes;
use super::queue::{PolicyQueue, QueueFull, QueueTicket};
use super::selection::{pick, probabilities};
use crate::random::{Purpose, draw, unit};
use engine::{RequestId, Span, Time};

/// A worker that does not say how many tokens it batches counts as having this many.
pub const DEFAULT_MAX_NUM_BATCHED_TOKENS: u64 = 10_000_000;

/// How arrivals meet the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueStyle {
    /// As in the real router.
    Live,
    /// As in its replay.
    Replay,
}

/// Settings.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionSpec {
    /// Of the cost.
    pub weights: CostWeights,
    /// Of the choice; 0 takes the cheapest.
    pub temperature: f64,
    /// Tokens per block.
    pub block_size: u32,
    /// Classes of the queue.
    pub profile: PolicyProfile,
    /// How arrivals meet it.
    pub style: QueueStyle,
    /// Whether requests that nobody frees are dropped.
    pub expires: bool,
    /// Of ties and draws.
    pub seed: u64,
}

/// Requests on their way to ranks, and those that are there.
#[derive(Debug, Clone)]
pub struct Admission<B: ActiveBlocks> {
    spec: AdmissionSpec,
    /// By rank.
    max_num_batched_tokens: Vec<u64>,
    /// By rank: whether it must not be chosen.
    is_away: Vec<bool>,
    away: usize,
    sequences: ActiveSequences<B>,
    queue: PolicyQueue<Incoming<B::Prompt>>,
    /// Where the cheapest rank can be found without a look at all.
    order: Option<LoadOrder>,
    /// How long prefills take, if there is a model.
    prefill_times: Option<PrefillTimes>,
    gains: Gains,
    loads: Vec<RankLoad>,
    overlaps: Vec<Overlap>,
    costs: Vec<f64>,
    probabilities: Vec<f64>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Incoming<P> {
    /// Which.
    pub request: RequestId,
    /// Its blocks.
    pub prompt: PromptBlocks<P>,
    /// What is cached where, each rank once; nothing on others.
    pub overlap: Vec<(Rank, Overlap)>,
    /// Ranks that may take it, in order; `None` for all.
    pub allowed: Option<Vec<Rank>>,
    /// By rank: what preferred taints multiply the cost by; `None` for 1.
    pub cost_factors: Option<Vec<f64>>,
    /// Class or family that it names.
    pub policy_class: Option<String>,
}

impl<P> Incoming<P> {
    fn overlap_on(&self, rank: Rank) -> Overlap {
        let found = self.overlap.iter().find(|(of, _)| *of == rank);
        found.map_or_else(Overlap::default, |&(_, overlap)| overlap)
    }
}

/// A request that is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Which.
    pub request: RequestId,
    /// Where.
    pub rank: Rank,
    /// Prompt tokens taken to be cached there.
    pub cached_tokens: u64,
    /// Prompt tokens booked as prefill.
    pub prefill_tokens: u64,
    /// How long that should take, if there is a model.
    pub prefill_duration: Option<Span>,
}

impl<B: ActiveBlocks> Admission<B> {
    /// Idle ranks that batch so many tokens each.
    #[must_use]
    pub fn new(spec: AdmissionSpec, max_num_batched_tokens: Vec<u64>) -> Self {
        let ranks = max_num_batched_tokens.len();
        Admission {
            sequences: ActiveSequences::new(ranks, spec.expires),
            order: LoadOrder::new(spec.weights, spec.temperature, spec.block_size, ranks),
            prefill_times: None,
            gains: Gains::default(),
            overlaps: Vec::new(),
            queue: PolicyQueue::new(spec.profile.clone()),
            is_away: vec![false; ranks],
            away: 0,
            max_num_batched_tokens,
            loads: Vec::new(),
            costs: Vec::new(),
            probabilities: Vec::new(),
            spec,
        }
    }

    /// So long prefills take: from now on those booked fade. Costs then depend on the moment, so that no order of ranks is kept.
    pub fn time_prefills(&mut self, times: PrefillTimes) {
        self.order = None;
        self.prefill_times = Some(times);
    }

    /// Whether it was told so.
    #[must_use]
    pub fn times_prefills(&self) -> bool {
        self.prefill_times.is_some()
    }

    /// What waits.
    #[must_use]
    pub fn queue(&self) -> &PolicyQueue<Incoming<B::Prompt>> {
        &self.queue
    }

    /// True if requests may have to wait.
    #[must_use]
    pub fn may_queue(&self) -> bool {
        self.spec.profile.classes().iter().any(PolicyClass::queues)
    }

    /// What is placed.
    #[must_use]
    pub fn sequences(&self) -> &ActiveSequences<B> {
        &self.sequences
    }

    /// A rank must not be chosen any more.
    pub fn leave(&mut self, rank: Rank) {
        self.is_away[rank as usize] = true;
        self.away += 1;
        if let Some(order) = &mut self.order {
            order.leave(rank);
        }
    }

    /// A rank may be chosen again; whoever waits for that goes with the next [`drain`](Admission::drain).
    pub fn join(&mut self, now: Time, rank: Rank) {
        self.is_away[rank as usize] = false;
        self.away -= 1;
        self.note_load(now, Some(rank));
    }

    /// A request comes. Appends whoever goes to a rank now.
    pub fn submit(
        &mut self,
        now: Time,
        ticket: QueueTicket,
        incoming: Incoming<B::Prompt>,
        admitted: &mut Vec<Admitted>,
    ) -> Result<(), QueueFull> {
        let named = incoming.policy_class.as_deref();
        let class = self.spec.profile.class_of(named, ticket.uncached_tokens());
        let settings = &self.spec.profile.classes()[class];
        let busy = BusyRanks {
            now,
            limits: &self.max_num_batched_tokens,
            is_away: &self.is_away,
            sequences: &self.sequences,
        };
        let waits = settings.queues()
            && (self.spec.style == QueueStyle::Live
                || self.queue.has_backlog(class)
                || busy.are_all(settings, None));
        if !waits {
            admitted.push(self.admit(now, &ticket, incoming));
            return Ok(());
        }
        let workers = (self.max_num_batched_tokens.len() - self.away) as u64;
        self.queue.push(class, workers, ticket, incoming)?;
        if self.spec.style == QueueStyle::Live {
            self.drain(now, admitted);
        }
        Ok(())
    }

    /// The first token of a request arrived. Appends whoever goes to a rank now.
    pub fn prefill_done(&mut self, now: Time, request: RequestId, admitted: &mut Vec<Admitted>) {
        let rank = self.sequences.rank_of(request);
        self.sequences.prefill_done(now, request);
        self.note_load(now, rank);
        self.drain(now, admitted);
    }

    /// A request has begun so many blocks of its answer.
    pub fn output_blocks(&mut self, now: Time, request: RequestId, begun: u32, left: Option<f64>) {
        if self.sequences.output_blocks_of(request) < Some(begun) {
            self.sequences.output_block(request, left);
            self.note_load(now, self.sequences.rank_of(request));
        }
    }

    /// A request ended. Appends whoever goes to a rank now.
    pub fn free(&mut self, now: Time, request: RequestId, admitted: &mut Vec<Admitted>) {
        let rank = self.sequences.rank_of(request);
        self.sequences.free(now, request);
        self.note_load(now, rank);
        self.drain(now, admitted);
    }

    /// Another router placed a request.
    pub fn hear_booked(&mut self, now: Time, booking: Booking<B::Prompt>) {
        let rank = booking.rank;
        self.sequences
            .add(now, booking)
            .expect("a request is placed by one router");
        self.note_load(now, Some(rank));
    }

    fn note_load(&mut self, now: Time, rank: Option<Rank>) {
        if let (Some(order), Some(rank)) = (&mut self.order, rank)
            && !self.is_away[rank as usize]
        {
            order.note(rank, &self.sequences.load(now, rank));
        }
    }

    /// Lets those go whose turn it is.
    pub fn drain(&mut self, now: Time, admitted: &mut Vec<Admitted>) {
        loop {
            let busy = BusyRanks {
                now,
                limits: &self.max_num_batched_tokens,
                is_away: &self.is_away,
                sequences: &self.sequences,
            };
            let next = self.queue.pop(|class, ticket, incoming| {
                let pin = ticket.pinned.as_ref().map(std::slice::from_ref);
                !busy.are_all(class, pin.or(incoming.allowed.as_deref()))
            });
            let Some((ticket, incoming)) = next else {
                return;
            };
            admitted.push(self.admit(now, &ticket, incoming));
        }
    }

    /// Chooses a rank and books the request there.
    fn admit(
        &mut self,
        now: Time,
        ticket: &QueueTicket,
        incoming: Incoming<B::Prompt>,
    ) -> Admitted {
        let rank = match ticket.pinned {
            Some(rank) => rank,
            None => self.choose(now, ticket, &incoming),
        };
        let overlap = incoming.overlap_on(rank);
        let cached_tokens = overlap.cached_tokens(&self.spec.weights, self.spec.block_size);
        let prefill_tokens = if self.spec.weights.track_prefill_tokens {
            ticket.isl_tokens.saturating_sub(cached_tokens)
        } else {
            0
        };
        let times = self.prefill_times.as_ref().filter(|_| prefill_tokens > 0);
        let prefill_duration = times.map(|times| times.of(rank, prefill_tokens, cached_tokens));
        let booking = Booking {
            request: incoming.request,
            rank,
            prompt: incoming.prompt,
            prefill_tokens,
            prefill_duration,
        };
        self.sequences
            .add(now, booking)
            .expect("a request comes once");
        self.note_load(now, Some(rank));
        Admitted {
            request: incoming.request,
            rank,
            cached_tokens,
            prefill_tokens,
            prefill_duration,
        }
    }

    /// The ranks that may take a request now.
    fn allowed(&self, incoming: &Incoming<B::Prompt>) -> Option<Vec<Rank>> {
        if self.away == 0 {
            return incoming.allowed.clone();
        }
        let all = || (0..self.is_away.len() as Rank).collect();
        let mut allowed = incoming.allowed.clone().unwrap_or_else(all);
        allowed.retain(|&rank| !self.is_away[rank as usize]);
        Some(allowed)
    }

    fn choose(&mut self, now: Time, ticket: &QueueTicket, incoming: &Incoming<B::Prompt>) -> Rank {
        let demand = Demand {
            prompt_tokens: ticket.isl_tokens,
            block_size: self.spec.block_size,
        };
        let blocks = self.sequences.share(&incoming.prompt);
        if incoming.allowed.is_none()
            && incoming.cost_factors.is_none()
            && let Some(order) = &mut self.order
            && self.gains.find(order, &demand, incoming, &self.sequences)
        {
            let entity = u64::from(incoming.request.0);
            let tie = |ties| draw(self.spec.seed, Purpose::RouteTie, entity, ties);
            return order.cheapest(&self.gains.by_rank, tie);
        }
        let load = |rank| self.sequences.load_with(now, rank, blocks);
        let ranks = 0..self.max_num_batched_tokens.len() as Rank;
        self.loads.clear();
        self.loads.extend(ranks.map(load));
        let allowed = self.allowed(incoming);
        self.scan(&demand, incoming, allowed.as_deref())
    }

    /// The choice by the cost of each rank that may be chosen.
    fn scan(
        &mut self,
        demand: &Demand,
        incoming: &Incoming<B::Prompt>,
        allowed: Option<&[Rank]>,
    ) -> Rank {
        let AdmissionSpec {
            weights,
            temperature,
            seed,
            ..
        } = &self.spec;
        let all = self.loads.len() as Rank;
        let count = allowed.map_or(all as usize, <[Rank]>::len);
        let nth = |at: usize| allowed.map_or(at as Rank, |ranks| ranks[at]);
        self.overlaps.clear();
        self.overlaps.resize(self.loads.len(), Overlap::default());
        for &(rank, overlap) in &incoming.overlap {
            self.overlaps[rank as usize] = overlap;
        }
        let prefill = |at: usize| self.loads[nth(at) as usize].active_prefill_tokens;
        let least = (0..count)
            .map(prefill)
            .min()
            .expect("there is a rank that may be chosen");
        self.costs.clear();
        self.costs.extend((0..count).map(|at| {
            let rank = nth(at) as usize;
            let (overlap, load) = (&self.overlaps[rank], &self.loads[rank]);
            let factor = |factors: &Vec<f64>| factors[rank];
            cost(weights, demand, overlap, Some(load), least)
                * incoming.cost_factors.as_ref().map_or(1.0, factor)
        }));
        let entity = u64::from(incoming.request.0);
        if *temperature == 0.0 {
            let least = self.costs.iter().copied().fold(f64::INFINITY, f64::min);
            let cheapest = || (0..count).filter(|&at| self.costs[at] == least);
            let tie = draw(*seed, Purpose::RouteTie, entity, cheapest().count());
            return nth(cheapest().nth(tie).expect("a draw is below the count"));
        }
        probabilities(&self.costs, *temperature, &mut self.probabilities);
        nth(pick(
            &self.probabilities,
            unit(*seed, Purpose::Route, entity),
        ))
    }
}

/// The ranks on which a request is cheaper for what they hold of it, cached or in active requests.
#[derive(Debug, Clone, Default)]
struct Gains {
    /// Each rank once.
    by_rank: Vec<(Rank, f64)>,
    /// 1 for ranks that have some of it cached.
    is_cached: BlocksByRank,
}

impl Gains {
    /// Finds them for the prompt that `sequences` were last asked about. False if it cannot be said without loads.
    fn find<B: ActiveBlocks>(
        &mut self,
        order: &LoadOrder,
        demand: &Demand,
        incoming: &Incoming<B::Prompt>,
        sequences: &ActiveSequences<B>,
    ) -> bool {
        let shared = sequences.shared();
        self.by_rank.clear();
        self.is_cached.clear();
        for (rank, overlap) in &incoming.overlap {
            let Some(gain) = order.gain(demand, overlap, shared.get(*rank)) else {
                return false;
            };
            self.by_rank.push((*rank, gain));
            self.is_cached.raise(*rank, 1);
        }
        let active = shared.ranks().iter().copied();
        let others = active.filter(|&rank| self.is_cached.get(rank) == 0);
        self.by_rank
            .extend(others.map(|rank| (rank, f64::from(shared.get(rank)))));
        true
    }
}

/// Which ranks have more to prefill than a class wants.
struct BusyRanks<'a, B: ActiveBlocks> {
    now: Time,
    /// `max_num_batched_tokens` by rank.
    limits: &'a [u64],
    is_away: &'a [bool],
    sequences: &'a ActiveSequences<B>,
}

impl<B: ActiveBlocks> BusyRanks<'_, B> {
    /// True if each of the ranks is busy; of all, if none are named.
    fn are_all(&self, class: &PolicyClass, ranks: Option<&[Rank]>) -> bool {
        // One that must not be chosen is as good as busy.
        let is_busy = |rank: Rank| {
            if self.is_away[rank as usize] {
                return true;
            }
            let tokens = self.sequences.prefill_tokens(self.now, rank);
            class.is_busy(tokens, self.limits[rank as usize])
        };
        match ranks {
            Some(ranks) => ranks.iter().copied().all(is_busy),
            None => (0..self.limits.len() as Rank).all(is_busy),
        }
    }
}
