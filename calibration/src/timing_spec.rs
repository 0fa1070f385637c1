//! The choice of a timing source as plain data, and its compilation for one kind of worker.

use crate::error::{CalibrationError, Problem, check};
use crate::fitted::{Fitted, FittedProfile};
use crate::gpu::Gpu;
use crate::linear::Linear;
use crate::measured::{HostTimes, Measured, MeasuredSpec};
use crate::model::{Model, Precision};
use crate::polynomial::{Polynomial, PolynomialSpec};
use crate::roofline::{Deployment, Roofline, RooflineSpec};
use engine::StepTime;
use serde::Serialize;

/// Where step times come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum TimingSpec {
    /// A formula given by the user.
    Linear(Linear),
    /// The reference simulator's default curve.
    Polynomial(PolynomialSpec),
    /// An estimate from model and GPU.
    Roofline(RooflineSpec),
    /// Measured kernel tables.
    Measured(MeasuredSpec),
    /// A formula fitted to logs.
    Fitted(FittedProfile),
}

/// What a worker knows that a timing source may need.
#[derive(Debug, Clone, Copy)]
pub struct WorkerContext<'a> {
    /// KV capacity in tokens: blocks x block size.
    pub capacity_tokens: u64,
    /// The model, if it is known.
    pub model: Option<&'a Model>,
    /// The GPU, if it is known.
    pub gpu: Option<&'a Gpu>,
    /// GPUs a layer is split over.
    pub tensor_parallel: u32,
    /// Groups of GPUs over which whole experts are dealt out; 1 without experts or where each is split over all GPUs.
    pub expert_parallel: u32,
    /// Storage of the KV cache.
    pub kv_cache: Precision,
    /// Ranks that share the experts; then the times are those of one rank, but for [`StepTime::together`]. 1 without.
    pub ranks: u32,
}

impl TimingSpec {
    /// The timing model of a kind of worker.
    ///
    /// # Errors
    /// Coefficients out of range, or a model, GPU or tensor parallelism that is missing or cannot be; all at once.
    pub fn compile(
        &self,
        worker: &WorkerContext<'_>,
    ) -> Result<Box<dyn StepTime>, CalibrationError> {
        Ok(match self {
            TimingSpec::Linear(linear) => Box::new(linear.checked()?),
            TimingSpec::Polynomial(spec) => {
                Box::new(Polynomial::new(*spec, worker.capacity_tokens)?)
            }
            TimingSpec::Roofline(spec) => {
                let deployment = worker.deployment("a roofline needs")?;
                Box::new(Roofline::of_ranks(*spec, deployment, worker.ranks)?)
            }
            TimingSpec::Measured(spec) => {
                let deployment = worker.deployment("measured tables need")?;
                let (ranks, tokens) = (worker.ranks, worker.capacity_tokens);
                Box::new(Measured::of_ranks(spec, deployment, ranks, tokens)?)
            }
            TimingSpec::Fitted(profile) => Box::new(Fitted::new(profile)),
        })
    }

    /// What the engine's front end takes over a request, where the timing says it.
    #[must_use]
    pub const fn front_end(&self) -> HostTimes {
        match self {
            TimingSpec::Measured(spec) => spec.host,
            _ => HostTimes::ZERO,
        }
    }

    /// What a request is on its way, in no step and in nobody's queue, in microseconds: fits to clients' logs know it.
    #[must_use]
    pub const fn latency_us(&self) -> f64 {
        match self {
            TimingSpec::Fitted(profile) => profile.front_end_us,
            _ => 0.0,
        }
    }

    /// The name in scenario files and reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            TimingSpec::Linear(_) => "linear",
            TimingSpec::Polynomial(_) => "polynomial",
            TimingSpec::Roofline(_) => "roofline",
            TimingSpec::Measured(_) => "measured",
            TimingSpec::Fitted(_) => "fitted",
        }
    }
}

impl<'a> WorkerContext<'a> {
    fn deployment(&self, who: &str) -> Result<Deployment<'a>, CalibrationError> {
        let mut problems = Vec::new();
        let mut missing =
            |field: &str, expected: &str| problems.push(Problem::new(field, "nothing", expected));
        if self.model.is_none() {
            missing("model", &format!("a model, which {who}"));
        }
        if self.gpu.is_none() {
            missing("gpu", &format!("a GPU, which {who}"));
        }
        check(problems)?;
        let model = self.model.expect("its absence was reported");
        let gpu = self.gpu.expect("its absence was reported");
        Ok(Deployment {
            model,
            gpu,
            tensor_parallel: self.tensor_parallel,
            expert_parallel: self.expert_parallel,
            kv_cache: self.kv_cache,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::StepShape;

    #[test]
    fn every_source_compiles_and_names_itself() {
        let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
        let worker = WorkerContext {
            capacity_tokens: 100_000,
            model: Some(&model),
            gpu: Some(Gpu::find("h100_sxm").expect("known")),
            tensor_parallel: 1,
            expert_parallel: 1,
            kv_cache: Precision::Bf16,
            ranks: 1,
        };
        for spec in [
            TimingSpec::Linear(Linear::from_ns(1_000, 10, 1)),
            TimingSpec::Polynomial(PolynomialSpec::default()),
            TimingSpec::Roofline(RooflineSpec::default()),
            TimingSpec::Measured(MeasuredSpec::default()),
        ] {
            let timing = spec.compile(&worker).expect("good");
            assert_eq!(timing.source().name, spec.name());
            assert!(
                timing
                    .step(&StepShape {
                        prefill: &[],
                        decode_batch: 1,
                        decode_context: 1
                    })
                    .0
                    > 0
            );
        }
    }

    #[test]
    fn a_roofline_needs_model_and_gpu() {
        let worker = WorkerContext {
            capacity_tokens: 1,
            model: None,
            gpu: None,
            tensor_parallel: 1,
            expert_parallel: 1,
            kv_cache: Precision::Bf16,
            ranks: 1,
        };
        let error = TimingSpec::Roofline(RooflineSpec::default())
            .compile(&worker)
            .err()
            .expect("nothing is known");
        assert_eq!(error.problems().len(), 2);
    }
}
