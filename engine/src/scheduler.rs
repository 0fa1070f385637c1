//! One scheduler per engine kind behind one face: what a worker asks of it, whichever engine it runs.
//!
//! A scheduler takes requests in (`submit`), decides steps (`plan`), and is told how many of them ran (`finish`). A plan
//! may go on unasked for as many steps as it says (`coast_on`), unless it is forbidden to (`stop_coasting`). The set of
//! engines is closed, so the choice is an enum and each call one `match`.

use crate::connector::Connector;
use crate::host_pool::{HostPool, HostUse};
use crate::kv_cache::{KvEvent, Stretch};
use crate::plan::{Scheduled, StepPlan};
use crate::sglang::{self, SglangConfig};
use crate::speculation::{AcceptanceMode, Drafted, Speculation};
use crate::time::Time;
use crate::trtllm::{self, TrtllmConfig};
use crate::vllm::{self, VllmConfig};
use crate::workload::{Request, RequestId, Workload};
use std::sync::Arc;

/// What a scheduler keeps besides what its decisions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracking {
    /// Ids of physical blocks, for executors. SGLang's scheduler has none.
    pub block_ids: bool,
    /// KV events, for routers.
    pub events: bool,
}

/// What of a request a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// All.
    #[default]
    Whole,
    /// The prompt and one token; then its blocks are kept until they are [released](Scheduler::release).
    Prefill,
    /// All tokens, once the KV of the prompt, for which blocks are reserved, is [received](Scheduler::receive).
    Decode,
}

impl Part {
    /// Tokens to generate.
    #[must_use]
    pub fn output_tokens(self, request: &Request) -> u32 {
        match self {
            Part::Prefill => request.output_tokens.min(1),
            Part::Whole | Part::Decode => request.output_tokens,
        }
    }
}

/// Settings of a worker: its engine and that engine's own.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineConfig {
    /// vLLM's V1 engine.
    Vllm(VllmConfig),
    /// SGLang.
    Sglang(SglangConfig),
    /// TensorRT-LLM.
    Trtllm(TrtllmConfig),
}

impl From<VllmConfig> for EngineConfig {
    fn from(config: VllmConfig) -> Self {
        EngineConfig::Vllm(config)
    }
}

impl From<SglangConfig> for EngineConfig {
    fn from(config: SglangConfig) -> Self {
        EngineConfig::Sglang(config)
    }
}

impl From<TrtllmConfig> for EngineConfig {
    fn from(config: TrtllmConfig) -> Self {
        EngineConfig::Trtllm(config)
    }
}

impl EngineConfig {
    /// The settings if the engine is vLLM.
    #[must_use]
    pub fn as_vllm(&self) -> Option<&VllmConfig> {
        match self {
            EngineConfig::Vllm(config) => Some(config),
            EngineConfig::Sglang(_) | EngineConfig::Trtllm(_) => None,
        }
    }

    /// The engine's name, as scenario files and reports have it.
    #[must_use]
    pub const fn backend(&self) -> &'static str {
        match self {
            EngineConfig::Vllm(_) => "vllm",
            EngineConfig::Sglang(_) => "sglang",
            EngineConfig::Trtllm(_) => "trtllm",
        }
    }

    /// The settings if the engine is SGLang.
    #[must_use]
    pub fn as_sglang(&self) -> Option<&SglangConfig> {
        match self {
            EngineConfig::Sglang(config) => Some(config),
            EngineConfig::Vllm(_) | EngineConfig::Trtllm(_) => None,
        }
    }

    /// Tokens per KV block (SGLang: page).
    #[must_use]
    pub fn block_size(&self) -> u32 {
        match self {
            EngineConfig::Vllm(config) => config.block_size,
            EngineConfig::Sglang(config) => config.page_size,
            EngineConfig::Trtllm(config) => config.tokens_per_block,
        }
    }

    /// Prompt tokens that fit into a step, as the worker tells its router (SGLang: `max_prefill_tokens`).
    #[must_use]
    pub fn max_num_batched_tokens(&self) -> u32 {
        match self {
            EngineConfig::Vllm(config) => config.max_num_batched_tokens,
            EngineConfig::Sglang(config) => config.max_prefill_tokens,
            EngineConfig::Trtllm(config) => config.max_num_tokens,
        }
    }

    /// KV blocks that sequences can use.
    #[must_use]
    pub fn usable_blocks(&self) -> u32 {
        match self {
            EngineConfig::Vllm(config) => config.usable_blocks(),
            EngineConfig::Sglang(config) => config.usable_tokens() / config.page_size,
            EngineConfig::Trtllm(config) => config.num_blocks,
        }
    }

    /// Tokens of KV that sequences can use.
    #[must_use]
    pub fn usable_tokens(&self) -> u64 {
        u64::from(self.usable_blocks()) * u64::from(self.block_size())
    }

    /// Longest sequence, prompt and output together, where the engine has a limit.
    #[must_use]
    pub fn longest_sequence(&self) -> Option<u32> {
        let (length, unlimited) = match self {
            EngineConfig::Vllm(config) => (config.max_model_len, VllmConfig::UNLIMITED),
            EngineConfig::Sglang(config) => (config.context_length, SglangConfig::UNLIMITED),
            EngineConfig::Trtllm(config) => (config.max_seq_len, TrtllmConfig::UNLIMITED),
        };
        (length < unlimited).then_some(length)
    }

    /// Plans that may be in flight at once.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        match self {
            EngineConfig::Vllm(config) => config.depth(),
            EngineConfig::Sglang(config) => config.pp_size,
            EngineConfig::Trtllm(config) => config.pipeline_parallel_size,
        }
    }

    /// Groups of GPUs that each hold a part of the layers.
    #[must_use]
    pub const fn stages(&self) -> u32 {
        match self {
            EngineConfig::Vllm(config) => config.pipeline_parallel_size,
            EngineConfig::Sglang(config) => config.pp_size,
            EngineConfig::Trtllm(config) => config.pipeline_parallel_size,
        }
    }

    /// Schedulers with KV blocks of their own that step together.
    #[must_use]
    pub const fn ranks(&self) -> u32 {
        match self {
            EngineConfig::Vllm(config) => config.data_parallel_size,
            EngineConfig::Sglang(config) => config.dp_size,
            EngineConfig::Trtllm(config) => config.attention_dp_size,
        }
    }

    /// Whether its scheduler takes [parts](Part) of requests with these settings.
    #[must_use]
    pub const fn does_parts(&self) -> bool {
        matches!(self, EngineConfig::Vllm(_))
            && self.stages() == 1
            && self.ranks() == 1
            && self.speculation().is_none()
    }

    /// Whether it can be one of two workers that do a request together.
    #[must_use]
    pub const fn hands_over(&self) -> bool {
        let is_sglang = matches!(self, EngineConfig::Sglang(_));
        let is_plain = self.stages() == 1 && self.ranks() == 1 && self.speculation().is_none();
        self.does_parts() || (is_sglang && is_plain)
    }

    /// The same settings for a worker that decodes for others, or for one that does not.
    #[must_use]
    pub fn as_decoder(mut self, is_decoder: bool) -> Self {
        if let EngineConfig::Sglang(config) = &mut self {
            let reserve = &mut config.num_reserved_decode_tokens;
            let given = reserve.unwrap_or(SglangConfig::RESERVED_DECODE_TOKENS);
            *reserve = is_decoder.then_some(given);
        }
        self
    }

    /// The same settings, acceptance drawn from `seed` where it is drawn.
    #[must_use]
    pub fn with_draws(mut self, seed: u64) -> Self {
        let speculation = match &mut self {
            EngineConfig::Vllm(config) => config.speculation.as_mut(),
            EngineConfig::Sglang(config) => config
                .speculation
                .as_mut()
                .map(|drafts| &mut drafts.speculation),
            EngineConfig::Trtllm(config) => config.speculation.as_mut(),
        };
        if let Some(speculation) = speculation
            && let AcceptanceMode::Sampled { seed: own } = &mut speculation.mode
        {
            *own = seed;
        }
        self
    }

    /// Drafts that are verified in every decode step.
    #[must_use]
    pub const fn speculation(&self) -> Option<&Speculation> {
        match self {
            EngineConfig::Vllm(config) => config.speculation.as_ref(),
            EngineConfig::Sglang(config) => match &config.speculation {
                Some(drafts) => Some(&drafts.speculation),
                None => None,
            },
            EngineConfig::Trtllm(config) => config.speculation.as_ref(),
        }
    }

    /// Tokens that a request generates which asks for `output_tokens`: what the engine's limits leave it.
    #[must_use]
    pub fn output_goal(&self, input_tokens: u32, output_tokens: u32) -> u32 {
        match self {
            EngineConfig::Vllm(config) => config.output_goal(input_tokens, output_tokens),
            EngineConfig::Sglang(config) => config.output_goal(input_tokens, output_tokens),
            EngineConfig::Trtllm(config) => config.output_goal(input_tokens, output_tokens),
        }
    }
}

/// Why parts reach only vLLM's scheduler.
const NO_PARTS: &str = "a deployment that hands KV over runs vLLM's scheduler";

/// Scheduler and KV cache of one worker.
#[derive(Debug, Clone)]
pub enum Scheduler {
    /// vLLM's.
    Vllm(Box<vllm::Scheduler>),
    /// SGLang's.
    Sglang(Box<sglang::Scheduler>),
    /// TensorRT-LLM's.
    Trtllm(Box<trtllm::Scheduler>),
}

/// The same call on whichever scheduler it is.
macro_rules! any {
    ($self:ident, $scheduler:ident => $call:expr) => {
        match $self {
            Scheduler::Vllm($scheduler) => $call,
            Scheduler::Sglang($scheduler) => $call,
            Scheduler::Trtllm($scheduler) => $call,
        }
    };
}

impl Scheduler {
    /// An idle worker that will serve requests of `workload`.
    #[must_use]
    pub fn new(config: EngineConfig, workload: Arc<Workload>, tracking: Tracking) -> Self {
        match config {
            EngineConfig::Vllm(config) => {
                Scheduler::Vllm(Box::new(vllm::Scheduler::new(config, workload, tracking)))
            }
            EngineConfig::Sglang(config) => {
                Scheduler::Sglang(Box::new(sglang::Scheduler::new(config, workload, tracking)))
            }
            EngineConfig::Trtllm(config) => {
                Scheduler::Trtllm(Box::new(trtllm::Scheduler::new(config, workload, tracking)))
            }
        }
    }

    /// Gives the engine a pool of its own in host memory, before the first request.
    pub fn attach_host_pool(&mut self, host: HostPool) {
        match self {
            Scheduler::Sglang(scheduler) => scheduler.attach_host_pool(host),
            Scheduler::Trtllm(scheduler) => scheduler.attach_host_pool(host),
            Scheduler::Vllm(_) => {
                unreachable!("vLLM has no host memory of its own")
            }
        }
    }

    /// What its own host memory holds and did, if it has some.
    #[must_use]
    pub fn host_use(&self) -> Option<HostUse> {
        match self {
            Scheduler::Sglang(scheduler) => scheduler.pool().host_use(),
            Scheduler::Trtllm(scheduler) => scheduler.host_use(),
            Scheduler::Vllm(_) => None,
        }
    }

    /// The scheduler if the engine is SGLang.
    #[must_use]
    pub fn as_sglang(&self) -> Option<&sglang::Scheduler> {
        match self {
            Scheduler::Sglang(scheduler) => Some(scheduler),
            Scheduler::Vllm(_) | Scheduler::Trtllm(_) => None,
        }
    }

    /// The scheduler, which the caller knows to be SGLang's.
    pub fn as_sglang_mut(&mut self) -> &mut sglang::Scheduler {
        match self {
            Scheduler::Sglang(scheduler) => scheduler,
            Scheduler::Vllm(_) | Scheduler::Trtllm(_) => {
                unreachable!("host memory of the engine's own is SGLang's")
            }
        }
    }

    /// The scheduler if the engine is vLLM.
    #[must_use]
    pub fn as_vllm(&self) -> Option<&vllm::Scheduler> {
        match self {
            Scheduler::Vllm(scheduler) => Some(scheduler),
            Scheduler::Sglang(_) | Scheduler::Trtllm(_) => None,
        }
    }

    /// Takes a request in; it waits until a plan admits it. The front end has refused what can never be served.
    pub fn submit(&mut self, id: RequestId, arrival: Time) {
        match self {
            Scheduler::Vllm(scheduler) => scheduler.submit(id, arrival),
            Scheduler::Sglang(scheduler) => scheduler.submit(id),
            Scheduler::Trtllm(scheduler) => scheduler.submit(id),
        }
    }

    /// The same for a part of the request. TensorRT-LLM's scheduler takes none.
    pub fn submit_part(&mut self, id: RequestId, arrival: Time, part: Part) {
        self.submit_from(id, arrival, part, 0);
    }

    /// The same for a request of which another worker generated so many tokens, that are part of its prompt here.
    pub fn submit_from(&mut self, id: RequestId, arrival: Time, part: Part, generated: u32) {
        match (self, part) {
            (Scheduler::Vllm(scheduler), part) => {
                scheduler.submit_from(id, arrival, part, generated);
            }
            (Scheduler::Sglang(scheduler), part) => scheduler.submit_part(id, part, generated),
            (Scheduler::Trtllm(scheduler), Part::Whole) => scheduler.submit_from(id, generated),
            (Scheduler::Trtllm(_), _) => unreachable!("{NO_PARTS}"),
        }
    }

    /// Drops a request that nobody wants any more, when the next step is planned; steps that are not scheduled yet have to be
    /// [forbidden](Scheduler::stop_coasting) until then. All its blocks are given back. One that is not here, or not any
    /// more, is none that could be dropped. SGLang reports it as ended nevertheless.
    pub fn abort(&mut self, id: RequestId) {
        any!(self, scheduler => scheduler.abort(id));
    }

    /// True if some part of a plan in flight may belong to a request that was aborted.
    #[must_use]
    pub fn has_leaving(&self) -> bool {
        any!(self, scheduler => scheduler.has_leaving())
    }

    /// True if this part of a plan in flight belongs to a request that was aborted: its output reaches nobody.
    #[must_use]
    pub fn is_leaving(&self, part: &Scheduled) -> bool {
        any!(self, scheduler => scheduler.is_leaving(part))
    }

    /// Tokens of a request that this worker has delivered; `None` if it is not here.
    #[must_use]
    pub fn outputs_of(&self, id: RequestId) -> Option<u32> {
        any!(self, scheduler => scheduler.outputs_of(id))
    }

    /// Tokens of a sequence of the newest plan that come with plans in flight before it.
    #[must_use]
    pub fn outputs_before(&self, part: &Scheduled) -> u32 {
        match self {
            Scheduler::Vllm(scheduler) => scheduler.outputs_before(part),
            Scheduler::Sglang(_) | Scheduler::Trtllm(_) => 0,
        }
    }

    /// The requests that are here, in no order that means anything. Those that were aborted may be among them.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestId> {
        any!(self, scheduler => scheduler.requests())
    }

    /// Tokens of a sequence in flight that this worker has delivered.
    #[must_use]
    pub fn outputs_of_part(&self, part: &Scheduled) -> u32 {
        any!(self, scheduler => scheduler.outputs_of_part(part))
    }

    /// True if prompts that were computed here wait to be read.
    #[must_use]
    pub fn awaits_readers(&self) -> bool {
        match self {
            Scheduler::Vllm(scheduler) => scheduler.awaits_readers(),
            Scheduler::Sglang(scheduler) => scheduler.awaits_readers(),
            Scheduler::Trtllm(_) => false,
        }
    }

    /// Gives back the blocks of a request whose prefill was done here; nobody reads them any more.
    pub fn release(&mut self, id: RequestId) {
        match self {
            Scheduler::Sglang(scheduler) => scheduler.hear(id),
            Scheduler::Vllm(_) | Scheduler::Trtllm(_) => self.with_parts().release(id),
        }
    }

    /// The KV for which blocks were reserved is there: the request may decode.
    pub fn receive(&mut self, id: RequestId) {
        match self {
            Scheduler::Sglang(scheduler) => scheduler.hear(id),
            Scheduler::Vllm(_) | Scheduler::Trtllm(_) => self.with_parts().receive(id),
        }
    }

    /// The KV for which blocks were reserved will not come: they are given back, and the request is computed here from
    /// its prompt on, ahead of all that wait.
    pub fn compute_after_all(&mut self, id: RequestId) {
        self.with_parts().compute_after_all(id);
    }

    fn with_parts(&mut self) -> &mut vllm::Scheduler {
        match self {
            Scheduler::Vllm(scheduler) => scheduler,
            Scheduler::Sglang(_) | Scheduler::Trtllm(_) => unreachable!("{NO_PARTS}"),
        }
    }

    /// Decides the next step, or `None` if there is nothing to run. A plan without scheduled sequences comes back only
    /// when planning preempted somebody or reserved blocks: it takes no time, is not in flight and needs no `finish`.
    pub fn plan(&mut self) -> Option<&StepPlan> {
        any!(self, scheduler => scheduler.plan())
    }

    /// The same for a worker that can fetch KV. Only vLLM's scheduler asks.
    pub fn plan_with(&mut self, connector: &dyn Connector) -> Option<&StepPlan> {
        match self {
            Scheduler::Vllm(scheduler) => scheduler.plan_with(Some(connector)),
            Scheduler::Sglang(_) | Scheduler::Trtllm(_) => {
                unreachable!("a deployment with tiers below the GPU's runs vLLM's scheduler")
            }
        }
    }

    /// Accounts for `steps` steps of the oldest plan in flight, whose outputs have arrived. Requests that ended are
    /// appended to `ended` in batch order; only the last allowed step of a plan can end one.
    pub fn finish(&mut self, steps: u32, ended: &mut Vec<RequestId>) {
        any!(self, scheduler => scheduler.finish(steps, ended));
    }

    /// Schedules the next step of the newest plan if it may take one more; a plan that may not is due.
    #[inline]
    pub fn coast_on(&mut self) -> bool {
        any!(self, scheduler => scheduler.coast_on())
    }

    /// Forbids all steps that are not scheduled yet.
    pub fn stop_coasting(&mut self) {
        any!(self, scheduler => scheduler.stop_coasting());
    }

    /// Plans that may be in flight at once.
    #[must_use]
    #[inline]
    pub fn depth(&self) -> u32 {
        match self {
            Scheduler::Vllm(scheduler) => scheduler.config().depth(),
            Scheduler::Sglang(scheduler) => scheduler.config().pp_size,
            Scheduler::Trtllm(scheduler) => scheduler.config().pipeline_parallel_size,
        }
    }

    /// Steps in flight.
    #[must_use]
    #[inline]
    pub fn steps_in_flight(&self) -> u32 {
        any!(self, scheduler => scheduler.steps_in_flight())
    }

    /// The newest plan in flight.
    #[must_use]
    #[inline]
    pub fn newest(&self) -> Option<&StepPlan> {
        any!(self, scheduler => scheduler.newest())
    }

    /// The oldest plan in flight.
    #[must_use]
    #[inline]
    pub fn oldest(&self) -> Option<&StepPlan> {
        any!(self, scheduler => scheduler.oldest())
    }

    /// Steps of the oldest plan whose outputs have arrived.
    #[must_use]
    #[inline]
    pub fn delivered_steps(&self) -> u32 {
        any!(self, scheduler => scheduler.delivered_steps())
    }

    /// True if nothing is in flight, so that an arrival is reason enough to plan.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        any!(self, scheduler => scheduler.is_idle())
    }

    /// Sequences admitted and not finished.
    #[must_use]
    pub fn running(&self) -> usize {
        any!(self, scheduler => scheduler.running())
    }

    /// Sequences in the queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        any!(self, scheduler => scheduler.waiting())
    }

    /// What speculation did since the start.
    #[must_use]
    pub fn drafted(&self) -> Drafted {
        any!(self, scheduler => scheduler.drafted())
    }

    /// Moves the KV events since the last call to the end of `events`.
    pub fn drain_events(&mut self, events: &mut Vec<KvEvent>) {
        any!(self, scheduler => scheduler.drain_events(events));
    }

    /// Steps of the oldest plan whose outputs are sure to arrive without a KV event; there may be more.
    #[must_use]
    pub fn quiet_steps(&self) -> u32 {
        any!(self, scheduler => scheduler.quiet_steps())
    }

    /// How many blocks of a content its cache has from the first on, at most `limit`. Only vLLM's scheduler is asked.
    pub fn cached_blocks(&mut self, path: &[Stretch], limit: u32) -> u32 {
        self.with_parts().cached_blocks(path, limit)
    }

    /// Blocks that sequences hold.
    #[must_use]
    pub fn held_blocks(&self) -> u32 {
        match self {
            Scheduler::Vllm(scheduler) => {
                let cache = scheduler.cache();
                cache.usable_blocks() - cache.free_blocks()
            }
            Scheduler::Trtllm(scheduler) => {
                let cache = scheduler.cache();
                cache.usable_blocks() - cache.free_blocks()
            }
            Scheduler::Sglang(scheduler) => {
                let pool = scheduler.pool();
                let held = pool.usable_tokens() - pool.available_tokens();
                held / scheduler.config().page_size
            }
        }
    }

    /// Most blocks that sequences held at once.
    #[must_use]
    pub fn peak_blocks(&self) -> u32 {
        match self {
            Scheduler::Vllm(scheduler) => scheduler.peak_blocks(),
            Scheduler::Sglang(scheduler) => scheduler.peak_tokens() / scheduler.config().page_size,
            Scheduler::Trtllm(scheduler) => scheduler.peak_blocks(),
        }
    }
}
