//! Planners in a small deployment of their own: requests arrive, workers take them at a fixed rate, new workers take their time.
//!
//! The deployment is a fluid: no request is followed, queue and context are sums. It is there to close the loop, not to be right.
#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use engine::{Span, Time};
use planner::budget::GpuBudget;
use planner::dynamo::{Capabilities, DynamoPlanner, Mode, PlannerConfig, Target};
use planner::model::{Analytic, ForwardPassModel};
use planner::policy::{Fixed, Hpa, HpaSpec, Metric, MetricTarget};
use planner::predictor::PredictorSpec;
use planner::{
    Decision, ForwardPass, Observations, PerRole, Planner, Pool, TrafficWindow, TrailingLatency,
    Work, WorkerId,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const MAX_KV: u64 = 400_000;
const STARTUP_S: f64 = 30.0;

/// Aggregated workers and what waits.
struct Deployment {
    ready: Vec<WorkerId>,
    starting: Vec<(f64, WorkerId)>,
    next_id: u32,
    queued: f64,
    last_s: f64,
}

impl Deployment {
    fn of(workers: u32) -> Self {
        Deployment {
            ready: (0..workers).map(WorkerId).collect(),
            starting: Vec::new(),
            next_id: workers,
            queued: 0.0,
            last_s: 0.0,
        }
    }

    /// What is seen at a time when so many requests per second arrived since the last.
    fn observe(&mut self, now_s: f64, rate: f64) -> Observations {
        let span_s = now_s - self.last_s;
        self.last_s = now_s;
        let (done, still): (Vec<_>, Vec<_>) =
            self.starting.drain(..).partition(|(at, _)| *at <= now_s);
        self.starting = still;
        self.ready
            .extend(done.into_iter().map(|(_, worker)| worker));
        let workers = self.ready.len().max(1) as f64;
        // Ten requests per second and worker; what is above waits.
        let served = (rate * span_s + self.queued).min(10.0 * workers * span_s);
        self.queued = (rate * span_s + self.queued - served).max(0.0);
        let load = served / (10.0 * workers * span_s);
        let waiting = (self.queued / workers) as u64;
        let pass = |&worker: &WorkerId| ForwardPass {
            worker,
            rank: 0,
            wall_time_s: 0.006 + 0.03 * load,
            scheduled: Work {
                prefill_requests: 1,
                prefill_tokens: (600.0 * load) as u64,
                prefill_kv_tokens: 0,
                decode_requests: (60.0 * load) as u64,
                decode_kv_tokens: (130_000.0 * load) as u64,
            },
            queued: Work {
                prefill_requests: waiting,
                prefill_tokens: waiting * 2000,
                ..Work::default()
            },
        };
        Observations {
            pools: PerRole {
                prefill: Pool::default(),
                decode: Pool {
                    ready: self.ready.clone(),
                    starting: self.starting.len() as u32,
                    draining: 0,
                    passes: self.ready.iter().map(pass).collect(),
                },
            },
            traffic: TrafficWindow {
                duration_s: span_s,
                requests: rate * span_s,
                completed: served,
                isl: 2000.0,
                osl: 200.0,
                ..TrafficWindow::default()
            },
            latency: TrailingLatency::default(),
            waiting_in_front: 0,
        }
    }

    fn carry_out(&mut self, now_s: f64, decision: &Decision) {
        let Some(target) = decision.targets.decode else {
            return;
        };
        let staying = (self.ready.len() + self.starting.len()) as u32;
        for _ in staying..target {
            self.starting
                .push((now_s + STARTUP_S, WorkerId(self.next_id)));
            self.next_id += 1;
        }
        for _ in target..staying {
            if self.starting.pop().is_none() {
                self.ready.pop();
            }
        }
    }
}

/// Workers over time under a planner, and everything it decided.
fn run(
    mut planner: Box<dyn Planner>,
    workers: u32,
    end_s: f64,
    rate: impl Fn(f64) -> f64,
) -> Vec<(f64, usize, Decision)> {
    let mut deployment = Deployment::of(workers);
    let mut history = Vec::new();
    let mut next = planner.first_tick();
    while let Some(now) = next.filter(|at| at.as_s() <= end_s) {
        let seen = deployment.observe(now.as_s(), rate(now.as_s()));
        // A copy decides the same.
        let mut copy = planner.clone();
        let decision = planner.tick(now, &seen);
        assert_eq!(copy.tick(now, &seen), decision);
        deployment.carry_out(now.as_s(), &decision);
        next = decision.next_tick;
        history.push((now.as_s(), deployment.ready.len(), decision));
    }
    history
}

fn config() -> PlannerConfig {
    PlannerConfig {
        mode: Mode::Aggregated,
        optimization_target: Target::Sla,
        ttft_ms: 800.0,
        itl_ms: 30.0,
        enable_throughput_scaling: true,
        enable_load_scaling: true,
        throughput_adjustment_interval_seconds: 60,
        load_adjustment_interval_seconds: 10,
        load_predictor: PredictorSpec::Constant,
        gpu_budget: GpuBudget {
            min: None,
            max: Some(16),
        },
        ..PlannerConfig::default()
    }
}

fn dynamo(config: PlannerConfig) -> Box<dyn Planner> {
    let workers = Capabilities {
        num_gpu: Some(1),
        max_num_batched_tokens: Some(8192),
        max_num_seqs: Some(256),
        context_length: Some(32_768),
        max_kv_tokens: Some(MAX_KV),
        speculative_nextn: None,
    };
    let passes: Box<dyn ForwardPassModel> = Box::new(Analytic {
        base_ms: 6.0,
        per_prefill_token_ms: 0.045,
        per_decode_request_ms: 0.02,
        per_kv_token_ms: 6e-5,
    });
    let capabilities = PerRole {
        prefill: None,
        decode: Some(workers),
    };
    let models = PerRole {
        prefill: None,
        decode: Some(passes),
    };
    Box::new(DynamoPlanner::new(config, capabilities, models, &[]).unwrap())
}

#[test]
fn dynamo_follows_a_day_up_and_down() {
    let day = |s: f64| 40.0 - 35.0 * (s / 3600.0 * std::f64::consts::TAU).cos();
    let history = run(dynamo(config()), 2, 3600.0, day);
    let workers_around = |minute: f64| {
        let of_minute = history
            .iter()
            .filter(|(at, ..)| (at - minute * 60.0).abs() < 120.0);
        of_minute.map(|(_, workers, _)| *workers).max().unwrap()
    };
    let (night, noon, evening) = (
        workers_around(2.0),
        workers_around(30.0),
        workers_around(59.0),
    );
    assert!(
        (9..=16).contains(&noon),
        "75 requests per second take 9 to 16 workers, not {noon}"
    );
    assert!(
        night <= 3 && evening <= noon / 2,
        "{night} at night, {evening} in the evening"
    );
}

#[test]
fn the_autoscaler_of_kubernetes_does_too() {
    let metric = Metric::KvUse {
        max_kv_tokens: MAX_KV,
    };
    let roles = PerRole {
        prefill: None,
        decode: Some(HpaSpec::new(metric, MetricTarget::Value(0.2), 1..=16)),
    };
    let hpa = Hpa::new(Span::from_s(15.0), roles).unwrap();
    let history = run(Box::new(hpa), 2, 1200.0, |_| 60.0);
    // 32.5 % of the cache at full load: 60 requests per second at 20 % take 60 / 10 x 0.325 / 0.2 = 10 workers.
    let (_, workers, _) = history.last().unwrap();
    assert!((9..=11).contains(workers), "{workers}");
}

#[test]
fn the_static_planner_is_never_asked() {
    assert_eq!(run(Box::new(Fixed), 4, 3600.0, |_| 40.0), []);
    assert_eq!(
        Fixed.tick(Time::ZERO, &Observations::default()),
        Decision::default()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever comes, targets stay between floor and budget.
    #[test]
    fn targets_stay_between_floor_and_budget(seed: u64, most in 2u32..20, least in 1u32..3, is_hybrid: bool) {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let rates: Vec<f64> = (0..121).map(|_| random.random_range(0.0..150.0)).collect();
        let config = PlannerConfig {
            gpu_budget: GpuBudget { min: None, max: Some(most) },
            min_endpoint: least.min(most),
            enable_load_scaling: is_hybrid,
            ..config()
        };
        for (_, _, decision) in run(dynamo(config), least, 1200.0, |s| rates[(s / 10.0) as usize]) {
            if let Some(target) = decision.targets.decode {
                prop_assert!(target >= least.min(most) && target <= most, "{}", target);
            }
        }
    }
}
