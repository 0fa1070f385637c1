//! One simulation: a scenario and its workload in, the books of the run out.

use crate::annotations::unread;
use crate::digest::{Digest, PointIdentity};
use crate::scenario::{Pool, Scenario};
use crate::workloads::Loaded;
use calibration::{CalibrationError, Drafting, Staged};
use engine::{Basis, Executor, Span, StepTime, TimingSource, Workload};
use sim::costs::{CostSpec, EnergySpec, SpotSummary};
use sim::live::{self, LiveRun, StopSignal};
use sim::virtual_clock::Sample;
use sim::{
    AdversitySpec, Cluster, ClusterSpec, FrontendSpec, HostSpec, KvbmSpec, PoolSpec, Recording,
    Regret, ScalingSpec, Sla, Summary, summarize, virtual_clock,
};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A simulation ready to run, as often as wanted.
pub struct Simulation {
    cluster: ClusterSpec,
    kvbm: Vec<Option<KvbmSpec>>,
    /// Labels of workers, by pool.
    taints: Vec<Vec<String>>,
    hosts: Vec<Option<HostSpec>>,
    adversity: AdversitySpec,
    scaling: Option<ScalingSpec>,
    sla: Option<Sla>,
    costs: Option<CostSpec>,
    energy: Option<EnergySpec>,
    /// One model per pool.
    timing: Vec<Arc<dyn StepTime>>,
    workload: Arc<Workload>,
    digest: Digest,
    workload_digest: Digest,
    source: TimingSource,
}

/// How decode steps are taken; changes no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steps {
    /// Runs of equal steps in one go.
    #[default]
    Coasting,
    /// One by one, the plain reference.
    Stepping,
}

/// Timing models compiled so far. Measured ones cut their pieces when a batch is first asked for, so that pools that are
/// priced alike save more than the compilation by sharing one; a price is the same whoever asked first.
#[derive(Default)]
pub struct TimingModels {
    compiled: Mutex<HashMap<String, Arc<dyn StepTime>>>,
}

impl TimingModels {
    /// The model of a pool.
    ///
    /// # Errors
    /// It cannot be had for this pool.
    fn get(&self, pool: &Pool) -> Result<Arc<dyn StepTime>, CalibrationError> {
        let lock = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let key = timing_identity(pool);
        if let Some(known) = lock().get(&key) {
            return Ok(known.clone());
        }
        let model: Arc<dyn StepTime> = Arc::from(pool.timing.compile(&pool.context())?);
        let model = with_drafts_and_stages(model, pool);
        Ok(lock().entry(key).or_insert(model).clone())
    }
}

impl Simulation {
    /// Compiles the timing models of a scenario.
    ///
    /// # Errors
    /// A timing model that cannot be had for its pool.
    pub fn new(
        scenario: &Scenario,
        loaded: &Loaded,
        steps: Steps,
    ) -> Result<Self, CalibrationError> {
        Simulation::sharing(&TimingModels::default(), scenario, loaded, steps)
    }

    /// The same with the models of other simulations where they are alike.
    ///
    /// # Errors
    /// A timing model that cannot be had for its pool.
    pub fn sharing(
        models: &TimingModels,
        scenario: &Scenario,
        loaded: &Loaded,
        steps: Steps,
    ) -> Result<Self, CalibrationError> {
        let timing = scenario.pools.iter().map(|pool| models.get(pool));
        let timing: Vec<Arc<dyn StepTime>> = timing.collect::<Result<_, _>>()?;
        let mut source = merged(timing.iter().map(|model| model.source()));
        source.guesses.extend(scenario.guesses());
        source
            .guesses
            .extend(unread(scenario, &loaded.workload.annotations));
        let cluster = ClusterSpec {
            pools: places_of(scenario),
            router: scenario.router.clone(),
            load: scenario.workload.load.spec(),
            frontend: front_end(scenario),
            seed: scenario.seed,
            disaggregation: scenario.disaggregation.clone(),
            coasting: steps == Steps::Coasting,
            track_block_ids: false,
        };
        // Coasting changes no result.
        let simulated = ClusterSpec {
            coasting: true,
            ..cluster.clone()
        };
        // What was simulated, not where it was read: the same workload from another file is the same point.
        let mut asked = format!("{simulated:?} {:?}", scenario.sla);
        let kvbm: Vec<_> = scenario
            .pools
            .iter()
            .map(|pool| pool.kvbm.clone())
            .collect();
        if kvbm.iter().any(Option::is_some) {
            asked.push_str(&format!(" {kvbm:?}"));
        }
        let taints = scenario.pools.iter().map(|pool| pool.taints.clone());
        let taints: Vec<Vec<String>> = taints.collect();
        if taints.iter().any(|taints| !taints.is_empty()) {
            asked.push_str(&format!(" {taints:?}"));
        }
        let hosts = scenario.pools.iter().map(|pool| pool.host.clone());
        let hosts: Vec<_> = hosts.collect();
        if hosts.iter().any(Option::is_some) {
            asked.push_str(&format!(" {hosts:?}"));
        }
        if !scenario.adversity.is_nothing() {
            asked.push_str(&format!(" {:?}", scenario.adversity));
        }
        if let Some(planner) = &scenario.planner {
            asked.push_str(&format!(" {planner:?}"));
        }
        // What the results say, like the SLA.
        if scenario.costs.is_some() || scenario.energy.is_some() {
            asked.push_str(&format!(" {:?} {:?}", scenario.costs, scenario.energy));
        }
        let identity = PointIdentity {
            scenario: &without_defaults(&asked),
            workload: loaded.digest,
            timing: &format!(
                "{:?}",
                scenario
                    .pools
                    .iter()
                    .map(timing_identity)
                    .collect::<Vec<_>>()
            ),
            version: env!("CARGO_PKG_VERSION"),
        };
        let digest = identity.digest();
        // Oracles know what clients will send, and nothing of what follows from answers; attempts of clients are theirs
        // alone: unread, as the guesses say.
        let sends_ahead = !scenario.has_oracle() && scenario.adversity.is_nothing();
        let workload = match loaded.workload.ahead.is_empty() || sends_ahead {
            true => loaded.workload.clone(),
            false => Arc::new(loaded.workload.without_ahead()),
        };
        let scaling = scenario.planner.as_ref().map(|planner| {
            let scaling = planner.scaling(&scenario.pools, &timing, &workload);
            scaling.expect("planners are checked when scenarios are read")
        });
        Ok(Simulation {
            kvbm,
            taints,
            hosts,
            adversity: scenario.adversity.clone(),
            scaling,
            sla: scenario.sla,
            costs: scenario.costs.clone(),
            energy: scenario.energy.clone(),
            cluster,
            timing,
            workload,
            digest,
            workload_digest: loaded.digest,
            source,
        })
    }

    /// Runs it on the virtual clock.
    #[must_use]
    pub fn run(&self) -> Recording {
        virtual_clock::run(self.fresh_cluster(), &self.timing)
    }

    /// The same, and what the second choices of so many routing decisions would have given. Each worker serves requests whole.
    #[must_use]
    pub fn run_with_regret(&self, decisions: usize, horizon: Span) -> (Recording, Regret) {
        let sample = Sample {
            decisions: decisions.min(self.workload.of_clients()),
            seed: self.cluster.seed,
            horizon,
        };
        let (recording, decisions) =
            virtual_clock::run_with_regret(self.fresh_cluster(), &self.timing, sample);
        (recording, Regret::new(sample, &decisions))
    }

    /// Runs it on the real clock, `speedup` times faster, each step a sleep of the modelled time.
    ///
    /// # Errors
    /// If the system refuses timers.
    pub fn run_live(&self, speedup: f64) -> io::Result<LiveRun> {
        live::run(self.fresh_cluster(), &self.timing, speedup)
    }

    /// Runs it for real: one executor per worker, in the order of pools, and a front end that takes no time of its own.
    ///
    /// # Errors
    /// If the system refuses timers or threads.
    pub fn run_real(
        &self,
        executors: Vec<Box<dyn Executor>>,
        signal: StopSignal,
    ) -> io::Result<LiveRun> {
        live::run_executors(self.fresh_real_cluster(), executors, signal)
    }

    /// The deployment before the first request, as it is run for real.
    #[must_use]
    pub fn fresh_real_cluster(&self) -> Cluster {
        let real = ClusterSpec {
            coasting: false,
            track_block_ids: true,
            frontend: FrontendSpec::default(),
            ..self.cluster.clone()
        };
        Cluster::with_kvbm(&real, &self.kvbm, self.workload.clone())
            .tainted(&self.taints)
            .timed(&self.timing)
    }

    /// The deployment before the first request.
    #[must_use]
    pub fn fresh_cluster(&self) -> Cluster {
        self.cluster_with(&self.adversity)
    }

    /// The same where other things go wrong.
    fn cluster_with(&self, adversity: &AdversitySpec) -> Cluster {
        let workload = self.workload.clone();
        let cluster = if adversity.is_nothing() {
            Cluster::with_tiers(&self.cluster, &self.kvbm, &self.hosts, workload)
        } else {
            Cluster::with_adversity(&self.cluster, &self.kvbm, adversity, workload)
        };
        let cluster = cluster.tainted(&self.taints).timed(&self.timing);
        match &self.scaling {
            Some(scaling) => cluster.scaled(scaling.clone(), &self.cluster.router),
            None => cluster,
        }
    }

    /// The numbers of a run, judged and priced as the scenario says.
    #[must_use]
    pub fn summary(&self, recording: &Recording) -> Summary {
        let names = self.pool_names();
        let mut summary = summarize(recording, &names, self.sla);
        let good = summary.goodput.as_ref().map(|it| it.requests);
        let costs = self.costs.as_ref();
        summary.costs = costs.map(|spec| sim::costs::costs(recording, spec, &names, good));
        self.compare_with_on_demand(recording, &mut summary);
        let energy = self.energy.as_ref();
        summary.energy = energy.map(|spec| sim::costs::energy(recording, spec));
        summary
    }

    /// Says what spot GPUs saved: runs the same deployment on demand.
    fn compare_with_on_demand(&self, recording: &Recording, summary: &mut Summary) {
        let (Some(spec), Some(costs)) = (&self.costs, &mut summary.costs) else {
            return;
        };
        if !spec.has_spot() {
            return;
        }
        let mut adversity = self.adversity.clone();
        adversity.faults.spot.clear();
        let recording_on_demand = virtual_clock::run(self.cluster_with(&adversity), &self.timing);
        let names = self.pool_names();
        let judged = summarize(&recording_on_demand, &names, self.sla).goodput;
        let good = judged.as_ref().map(|it| it.requests);
        let on_demand = sim::costs::costs(&recording_on_demand, &spec.on_demand(), &names, good);
        let share = judged.map(|it| it.share);
        costs.spot = Some(SpotSummary::of(recording, spec, costs, &on_demand, share));
    }

    /// Timing models by pool.
    #[must_use]
    pub fn timing(&self) -> &[Arc<dyn StepTime>] {
        &self.timing
    }

    /// Names of the pools.
    #[must_use]
    pub fn pool_names(&self) -> Vec<String> {
        self.cluster
            .pools
            .iter()
            .map(|pool| pool.name.clone())
            .collect()
    }

    /// Where step times come from, and all that was guessed.
    #[must_use]
    pub fn timing_source(&self) -> &TimingSource {
        &self.source
    }

    /// Over everything that the result depends on.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Over the requests alone.
    #[must_use]
    pub fn workload_digest(&self) -> Digest {
        self.workload_digest
    }
}

/// The pools as the cluster wants them: with a planner their workers are places.
fn places_of(scenario: &Scenario) -> Vec<PoolSpec> {
    let pools = scenario.pools.iter();
    let mut specs: Vec<PoolSpec> = pools
        .map(|pool| pool.spec_with_draws(scenario.seed))
        .collect();
    if let Some(planner) = &scenario.planner {
        let places = planner.places(&scenario.pools);
        let places = places.expect("planners without a bound are refused when scenarios are read");
        for (spec, places) in specs.iter_mut().zip(places) {
            spec.workers = places;
        }
    }
    specs
}

/// The front end of the slowest engine.
fn front_end(scenario: &Scenario) -> FrontendSpec {
    let of_pool = |pool: &Pool| {
        let host = pool.timing.front_end();
        let us = |us: f64| Span((us * 1e6).round() as u64);
        FrontendSpec {
            per_request: us(host.request_us),
            per_input_token: us(host.prompt_token_us),
            latency: us(pool.timing.latency_us()),
        }
    };
    let specs = scenario.pools.iter().map(of_pool);
    specs
        .max_by_key(|spec| (spec.per_request, spec.per_input_token, spec.latency))
        .unwrap_or_default()
}

/// Settings that came later and say nothing do not change the digests of points that were there before.
fn without_defaults(identity: &str) -> String {
    const LATER: [&str; 15] = [
        // First, for what it stands in: of starts and of planners.
        ", weights: None",
        ", shadow: None",
        ", eviction: Lru",
        ", prefetch: false",
        ", pp_size: 1, pp_max_micro_batch_size: None, dp_size: 1",
        ", speculation: None, pipeline_parallel_size: 1, attention_dp_size: 1",
        ", retention: Ttl",
        ", track_output_blocks: false",
        ", prefill_load_model: None",
        ", pipeline_parallel_size: 1, data_parallel_size: 1, speculation: None",
        ", lifecycle: LifecycleSpec { spares: Spares { count: 0, activate: Span(0) }, switch: None, update: None, gpus_per_node: None }, drain_limit: None",
        ", drain_limit: None",
        ", spot: [], nodes: []",
        ", spot: None",
        // SGLang's and TensorRT-LLM's.
        ", speculation: None",
    ];
    let without = |text: String, later: &&str| text.replace(later, "");
    LATER.iter().fold(identity.to_owned(), without)
}

/// The times of a worker that makes drafts, or of its stages, from those of a worker that does neither.
fn with_drafts_and_stages(model: Arc<dyn StepTime>, pool: &Pool) -> Arc<dyn StepTime> {
    let stages = pool.parallel.pipeline;
    match pool.engine.speculation() {
        Some(speculation) => {
            let drafts = speculation.num_speculative_tokens;
            Arc::new(Drafting::new(model, drafts, pool.draft_share))
        }
        None if stages > 1 => Arc::new(Staged::new(model, stages, pool.hop())),
        None => model,
    }
}

/// What a pool's step times depend on.
fn timing_identity(pool: &Pool) -> String {
    let identity = format!("{:?} {:?}", pool.timing, pool.context());
    // Said later, and only of ranks.
    let mut identity = identity.replace(", ranks: 1 }", " }");
    if let Some(speculation) = pool.engine.speculation() {
        let drafts = speculation.num_speculative_tokens;
        identity.push_str(&format!(" drafts {drafts} {:?}", pool.draft_share));
    }
    if pool.parallel.pipeline > 1 {
        let stages = pool.parallel.pipeline;
        identity.push_str(&format!(" stages {stages} {:?}", pool.hop()));
    }
    identity
}

/// One description for all pools: the name and details of each that differs, the weakest basis.
fn merged(sources: impl Iterator<Item = TimingSource>) -> TimingSource {
    let mut all = TimingSource {
        name: String::new(),
        basis: Basis::Given,
        detail: String::new(),
        guesses: Vec::new(),
    };
    for source in sources {
        all.basis = all.basis.max(source.basis);
        for (text, more) in [
            (&mut all.name, source.name),
            (&mut all.detail, source.detail),
        ] {
            if !text.split("; ").any(|part| part == more) {
                if !text.is_empty() {
                    text.push_str("; ");
                }
                text.push_str(&more);
            }
        }
        for guess in source.guesses {
            if !all.guesses.contains(&guess) {
                all.guesses.push(guess);
            }
        }
    }
    all
}
