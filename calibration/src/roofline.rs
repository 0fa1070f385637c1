//! Step times from a model's shape and a GPU's specification: each kernel takes the longer of its arithmetic and its
//! memory traffic, and kernels run one after the other.
//!
//! With T tokens in the step, R sequences that get a token, and everything divided over the `tp` GPUs of a worker:
//!
//! ```text
//! GEMMs        per layer qkv, out, gate+up, down over T rows; once the LM head over R rows
//!              max(2·m·N·K / FLOP/s, (weights N·K + activations m·(N+K)) / bytes/s)
//! attention    a chunk of `new` after `cached`: max(4·n·d·new·(cached + (new+1)/2) FLOPs, KV and Q bytes)
//!              decode: max(4·n·d·context FLOPs, KV bytes of the context + Q bytes), linear in the summed context
//!              latent: one vector per token for all heads in decode, keys and values out of it in prefill
//!              with a window: as if the context were no longer than that
//! experts      the weights of those that a token goes to, plus the arithmetic of all rows (`roofline/experts.rs`)
//! elementwise  norms, RoPE, KV write, activation: bytes of T tokens
//! collectives  2·layers + 1 times T·hidden over a ring, and the logits gathered
//! fixed        so many microseconds per kernel, per collective and per step
//! ```
//!
//! Peak rates are scaled by the efficiencies of [`RooflineSpec`]. For a fixed decode batch everything but attention is a
//! constant and attention is the longer of two lines, each with a knee where windows are full, so decode time is one to
//! three pieces and needs no chords; only the rounding of their coefficients to whole picoseconds remains (below 1e-3
//! relative, held by a test).
//!
//! Nothing here was measured on the deployment in question, so the basis is *estimated*. Against AIConfigurator 0.12's
//! kernel tables (H100 and H200, TP 1 to 8, host time left out; `tests/kernel_tables.rs`):
//!
//! | Passes | prefill: median, 90th percentile | decode |
//! |---|---|---|
//! | 469 of Llama-3.1 and Qwen3, dense | 6 %, 20 % | 3 %, 12 % |
//! | 235 of Qwen3-30B-A3B | 16 %, 35 % | 6 %, 14 % |
//! | 38 of DeepSeek-V3 | 12 %, 22 % | 27 %, 67 % |
//!
//! The last number is SGLang's table of latent attention: at 256 sequences of 4,096 tokens it is eight times slower than
//! TensorRT-LLM's, which is met within 15 %.
// Model: every kernel of a kind has one efficiency whatever its shape, kernels do not overlap, host time does not grow
// with the batch. On other GPUs than H100 and H200 the efficiencies are assumed; expect 10 to 30 %.

mod attention;
mod experts;
mod gemm;
mod kernels;
mod spec;
mod together;

pub use spec::RooflineSpec;

use crate::error::{CalibrationError, Problem, check};
use crate::gpu::{Fabric, Gpu};
use crate::memory::check_deployment;
use crate::model::{Model, Precision, Widths};
use attention::{Attention, Stretch};
use engine::{Basis, Piece, Span, StepShape, StepTime, TimingSource};
use kernels::{Body, kernels};
use together::Together;

/// Batches whose decode time is computed when the model is compiled; for larger ones it is computed when asked for.
const COMPILED_BATCHES: u32 = 1_024;
const PS_PER_S: f64 = 1e12;

/// What is priced: a model on GPUs.
#[derive(Debug, Clone, Copy)]
pub struct Deployment<'a> {
    /// The model served.
    pub model: &'a Model,
    /// The GPU it runs on.
    pub gpu: &'a Gpu,
    /// GPUs a layer is split over.
    pub tensor_parallel: u32,
    /// Groups of GPUs over which whole experts are dealt out; 1 without experts or where each is split over all GPUs.
    pub expert_parallel: u32,
    /// Storage of the KV cache.
    pub kv_cache: Precision,
}

impl Deployment<'_> {
    /// The GPUs of so many ranks, and how experts are split over them.
    #[must_use]
    pub const fn widths_of(&self, ranks: u32) -> Widths {
        Widths {
            tensor: self.tensor_parallel * ranks,
            expert: self.expert_parallel,
        }
    }

    /// As a rank alone sees it: experts dealt out over several ranks are not its own.
    #[must_use]
    pub(crate) const fn without_experts_dealt_out(self, ranks: u32) -> Self {
        match ranks {
            1 => self,
            _ => Deployment {
                expert_parallel: 1,
                ..self
            },
        }
    }

    /// How the model is split.
    #[must_use]
    pub const fn widths(&self) -> Widths {
        Widths {
            tensor: self.tensor_parallel,
            expert: self.expert_parallel,
        }
    }
}

/// The roofline of one deployment.
#[derive(Debug, Clone)]
pub struct Roofline {
    body: Body,
    attention: Attention,
    /// What ranks compute together; none without ranks.
    together: Option<Together>,
    /// Decode time at context 0: by batch - 1, picoseconds.
    decode_at: Vec<u64>,
    source: TimingSource,
}

impl Roofline {
    /// Prices `deployment`.
    ///
    /// # Errors
    /// An efficiency that is not from 0.01 to 1, an overhead that is not from 0 to 1 s, or a tensor parallelism that
    /// cannot be; all at once.
    pub fn new(
        spec: RooflineSpec,
        deployment: Deployment<'_>,
    ) -> Result<Roofline, CalibrationError> {
        Roofline::of_ranks(spec, deployment, 1)
    }

    /// The same for one of `ranks` of `deployment` that share the experts of a mixture, over the GPUs of all of them. A step takes
    /// what the slowest of them takes, and what they take [together](StepTime::together).
    ///
    /// # Errors
    /// As [`Roofline::new`], and ranks of a model without experts.
    pub fn of_ranks(
        spec: RooflineSpec,
        deployment: Deployment<'_>,
        ranks: u32,
    ) -> Result<Roofline, CalibrationError> {
        let mut problems = spec.problems();
        problems.extend(check_ranks(&deployment, ranks));
        check(problems)?;
        let (mut body, attention) = kernels(&spec, &deployment.without_experts_dealt_out(ranks));
        let mut source = source(&spec, &deployment);
        let mut together = None;
        if ranks > 1 {
            body = body.without_experts();
            together = Together::new(&spec, &deployment, deployment.widths_of(ranks));
            source.detail = format!("{}, {ranks} ranks that share experts", source.detail);
            source.guesses.push(RANKS_GUESS.to_owned());
        }
        let mut roofline = Roofline {
            body,
            attention,
            together,
            decode_at: Vec::new(),
            source,
        };
        roofline.decode_at = (1..=COMPILED_BATCHES)
            .map(|batch| roofline.decode_at_ps(batch))
            .collect();
        Ok(roofline)
    }

    /// The time of a step in seconds, before rounding.
    #[must_use]
    pub fn seconds(&self, shape: &StepShape<'_>) -> f64 {
        let batch = f64::from(shape.decode_batch);
        let new_tokens: u64 = shape
            .prefill
            .iter()
            .map(|chunk| u64::from(chunk.new_tokens))
            .sum();
        // Model: every chunk gets a token, also one that does not end its prompt: a row of the LM head too many, which
        // costs nothing while that is bound by memory.
        let rows = batch + shape.prefill.len() as f64;
        self.body.seconds(batch + new_tokens as f64, rows) + self.attention.seconds(shape)
    }

    fn decode_at_ps(&self, batch: u32) -> u64 {
        let batch = f64::from(batch);
        let seconds = self.body.seconds(batch, batch) + self.attention.decode_at(batch);
        (seconds * PS_PER_S).round() as u64
    }
}

impl StepTime for Roofline {
    #[inline]
    fn decode(&self, batch: u32, context: u64) -> Piece {
        let mut at = match self.decode_at.get(batch as usize - 1) {
            Some(&at) => at,
            None => self.decode_at_ps(batch),
        };
        let mut from = 0;
        // Each piece starts where the one before it ends.
        for Stretch { until, slope } in self.attention.stretches(batch) {
            let slope_ps = (slope * PS_PER_S).round() as i64;
            if context < until {
                return Piece {
                    from,
                    until,
                    at: Span(at),
                    slope_ps,
                };
            }
            at += slope_ps as u64 * (until - from);
            from = until;
        }
        unreachable!("the last stretch holds for ever")
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        Span::from_s(self.seconds(shape))
    }

    fn together(&self, tokens: u64) -> Span {
        let together = self.together.as_ref();
        together.map_or(Span::ZERO, |it| Span::from_s(it.seconds(tokens as f64)))
    }

    fn source(&self) -> TimingSource {
        self.source.clone()
    }
}

/// What stands behind times of ranks.
pub(crate) const RANKS_GUESS: &str =
    "ranks that share experts: no serving run with them was compared with";

/// What is wrong with ranks of a deployment that share its experts; without ranks, with the deployment.
pub(crate) fn check_ranks(deployment: &Deployment<'_>, ranks: u32) -> Vec<Problem> {
    let Deployment { model, gpu, .. } = *deployment;
    if ranks == 1 {
        return check_deployment(model, gpu, deployment.widths());
    }
    let alone = Widths {
        tensor: deployment.tensor_parallel,
        expert: 1,
    };
    let mut problems = check_deployment(model, gpu, alone);
    if model.experts.is_none() {
        let expected = "1: the model has no experts to share";
        problems.push(Problem::new("ranks", ranks, expected));
    } else if let Err(why) = model.check_expert_parallel(deployment.widths_of(ranks)) {
        let expected = format!("a width that {why}, the GPUs of all ranks");
        let groups = deployment.expert_parallel;
        problems.push(Problem::new("expert_parallel", groups, expected));
    }
    problems
}

fn source(spec: &RooflineSpec, deployment: &Deployment<'_>) -> TimingSource {
    let Deployment {
        model,
        gpu,
        tensor_parallel,
        kv_cache,
        ..
    } = *deployment;
    let host_us = spec.step_overhead_us
        + if tensor_parallel > 1 {
            spec.multi_gpu_overhead_us
        } else {
            0.0
        };
    let mut guesses = vec![
        "kernels are roofline estimates, not measurements of this model on this GPU".to_owned(),
        format!("a step has {host_us} us of host overhead"),
    ];
    if !gpu.name.starts_with("h100_sxm") && !gpu.name.starts_with("h200_sxm") {
        guesses.push(format!(
            "kernel efficiencies are those of H100 and H200 SXM, assumed for {}",
            gpu.name
        ));
    }
    if tensor_parallel > 1 && gpu.fabric != Fabric::NvLink {
        guesses.push(format!(
            "collectives over {} reach the efficiency and latency of NVLink",
            gpu.fabric.name()
        ));
    }
    if model.weights == Precision::Fp8 && gpu.fp8_flops.is_none() {
        guesses.push(format!(
            "{} has no fp8 units: fp8 weights compute at the bf16 rate",
            gpu.name
        ));
    }
    if model.experts.is_some() {
        guesses.push(
            "experts have the efficiency of Qwen3-30B-A3B's and DeepSeek-V3's on H100 and H200, and no favourites"
                .to_owned(),
        );
    }
    guesses.extend(gpu.guesses());
    guesses.push("no real serving run was compared with roofline times".to_owned());
    TimingSource {
        name: "roofline".to_owned(),
        basis: Basis::Estimated,
        detail: format!(
            "{} ({}, {} KV cache) on {tensor_parallel} x {}",
            model.id,
            model.storage(),
            kv_cache.name(),
            gpu.name
        ),
        guesses,
    }
}

#[cfg(test)]
mod tests;
