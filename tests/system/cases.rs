//! Random cases beyond what the oracle knows: two pools of different engines, step times made of many pieces, longer
//! answers. Workloads, engines and routers are those of the oracle's random scenarios.

use std::sync::Arc;

use calibration::{Polynomial, PolynomialSpec};
use engine::vllm::VllmConfig;
use engine::{Span, StepTime};
use sim::PoolSpec;

use crate::fast::{Case, config};
use crate::oracle::dice::Dice;
use crate::oracle::random::scenario;
use crate::oracle::scenario::{Engine, Scenario};
use crate::timing::Zigzag;

/// The polynomial's steps take about this long.
const POLYNOMIAL_STEP_NS: u64 = 10_000_000;
/// Seeds of second engines lie beyond those of scenarios.
const SECOND_ENGINE: u64 = 1 << 40;

/// The case of a seed.
pub fn case(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0xca5e);
    let mut scenario = scenario(seed);
    if dice.chance(25) {
        let factor = dice.pick(&[3, 10]);
        lengthen(&mut scenario, factor);
    }
    let kinds = [TimingKind::draw(&mut dice), TimingKind::draw(&mut dice)];
    let mut engines = vec![scenario.engine.clone()];
    if dice.chance(35) {
        engines.push(second_engine(seed, &scenario));
    }
    if kinds[..engines.len()].contains(&TimingKind::Polynomial) {
        slow_down(&mut scenario, POLYNOMIAL_STEP_NS);
    }
    let mut case = Case::of(&scenario);
    let linear = case.timing[0].clone();
    let pool = |(index, engine): (usize, &Engine)| PoolSpec {
        name: format!("pool {index}"),
        workers: dice.pick(&[1, 1, 2, 3]),
        gpus_per_worker: 1,
        engine: config(engine).into(),
    };
    case.spec.pools = engines.iter().enumerate().map(pool).collect();
    let timing = |(kind, engine): (&TimingKind, &Engine)| match kind {
        TimingKind::Linear => linear.clone(),
        TimingKind::Zigzag => Arc::new(Zigzag {
            seed,
            base: Span::from_ns(tick_ns(&scenario)),
        }),
        TimingKind::Polynomial => polynomial(&config(engine)),
    };
    case.timing = kinds.iter().zip(&engines).map(timing).collect();
    case
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimingKind {
    Linear,
    Zigzag,
    Polynomial,
}

impl TimingKind {
    fn draw(dice: &mut Dice) -> TimingKind {
        let (linear, zigzag) = (TimingKind::Linear, TimingKind::Zigzag);
        dice.pick(&[linear, zigzag, zigzag, TimingKind::Polynomial])
    }
}

/// The reference simulator's curve for the capacity of a worker.
pub fn polynomial(config: &VllmConfig) -> Arc<dyn StepTime> {
    let tokens = u64::from(config.usable_blocks()) * u64::from(config.block_size);
    let polynomial = Polynomial::new(PolynomialSpec::default(), tokens);
    Arc::new(polynomial.expect("a worker has a block, and not too many"))
}

/// An engine with other settings; block sizes are equal, because a KV router counts in one.
fn second_engine(seed: u64, first: &Scenario) -> Engine {
    Engine {
        block_size: first.engine.block_size,
        ..scenario(seed + SECOND_ENGINE).engine
    }
}

/// Longer answers, and room for them.
fn lengthen(scenario: &mut Scenario, factor: usize) {
    for request in &mut scenario.requests {
        request.output_len *= factor;
    }
    let engine = &mut scenario.engine;
    engine.num_gpu_blocks *= factor;
    engine.max_model_len *= factor;
    if !engine.enable_chunked_prefill {
        engine.max_num_batched_tokens = engine.max_num_batched_tokens.max(engine.max_model_len);
    }
}

/// A typical step.
fn tick_ns(scenario: &Scenario) -> u64 {
    let cost = scenario.cost;
    cost.a + 20 * cost.b + 40 * cost.c
}

/// Stretches all waiting so that it means something to steps that take `step_ns`.
fn slow_down(scenario: &mut Scenario, step_ns: u64) {
    let factor = (step_ns / tick_ns(scenario)).max(1);
    for request in &mut scenario.requests {
        request.arrival_ns *= factor;
        for dependency in &mut request.after {
            dependency.delay_ns *= factor;
        }
    }
    if let Some(duration_ns) = &mut scenario.duration_ns {
        *duration_ns *= factor;
    }
}
