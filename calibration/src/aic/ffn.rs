//! What follows attention in a layer: a gated FFN, or a router and experts.
//!
//! | kernel | rows | size | table |
//! |---|---|---|---|
//! | gate+up | T | N = 2f/tp, K = h | gemm |
//! | activation | T | 6f/tp bytes | memory |
//! | down | T | N = h, K = f/tp | gemm |
//! | router | T | N = experts, K = h, bfloat16 | gemm |
//! | dispatch, before and after | T | h elements | all-reduce |
//! | experts | T | | moe |
//!
//! Shared experts are one gated FFN of their joint size. In a decode pass they run beside the routed ones and the longer
//! of the two counts; over prompts one after the other.

use super::attention::units;
use super::decoder::{Pass, Phase, Setting};
use super::kernel::{Gemm, Kernel};
use super::roofline::{self, AllReduceFloor, ExpertFloor};
use super::shape::{FfnShape, Shape};
use crate::error::CalibrationError;
use crate::tables::{Collective, Dtype, ExpertKey, NcclKey, Profile, Reach};

#[derive(Debug, Clone)]
pub(crate) enum Ffn<'a> {
    Gated(Box<Gated<'a>>),
    Experts(Box<Experts<'a>>),
}

/// A gated FFN on one GPU.
#[derive(Debug, Clone)]
pub(crate) struct Gated<'a> {
    intermediate: f64,
    names: [&'static str; 3],
    up: Gemm<'a>,
    down: Gemm<'a>,
}

/// A router, its experts, and those that every token goes to.
#[derive(Debug, Clone)]
pub(crate) struct Experts<'a> {
    router: Gemm<'a>,
    routed: Kernel<'a, 1, ExpertFloor>,
    shared: Option<Gated<'a>>,
    /// Of ranks that share the experts: what brings the tokens of all together, and gives each its part of the sum.
    exchange: Option<[Kernel<'a, 1, AllReduceFloor>; 2]>,
}

impl<'a> Ffn<'a> {
    pub(super) fn new(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
    ) -> Result<Ffn<'a>, CalibrationError> {
        match shape.ffn {
            FfnShape::Gated { intermediate } => {
                let names = ["gate_ffn1_gemm", "act_gate", "ffn2_gemm"];
                let gated = Gated::new(profile, shape, setting, intermediate, names)?;
                Ok(Ffn::Gated(Box::new(gated)))
            }
            FfnShape::Experts { .. } => {
                let experts = Experts::new(profile, shape, setting)?;
                Ok(Ffn::Experts(Box::new(experts)))
            }
        }
    }

    /// Runs it in all layers.
    pub(super) fn run(&self, pass: &mut Pass<'_>, phase: Phase) -> Result<(), CalibrationError> {
        match self {
            Ffn::Gated(gated) => gated.run(pass),
            Ffn::Experts(experts) => experts.run(pass, phase),
        }
    }

    /// What ranks compute together in a layer over the tokens of all, milliseconds; nothing without ranks.
    pub(super) fn together(&self, tokens: f64, hidden: f64) -> (f64, Reach) {
        let Ffn::Experts(experts) = self else {
            return (0.0, Reach::Measured);
        };
        let Some(exchange) = &experts.exchange else {
            return (0.0, Reach::Measured);
        };
        let ways = exchange.iter().map(|way| way.read([tokens * hidden]));
        let routed = experts.routed.read([tokens]);
        ways.fold(routed, |(ms, reach), way| (ms + way.0, reach.max(way.1)))
    }

    pub(super) fn gemms(&self) -> Vec<&Gemm<'a>> {
        match self {
            Ffn::Gated(gated) => vec![&gated.up, &gated.down],
            Ffn::Experts(experts) => {
                let shared = experts.shared.iter();
                let mut gemms: Vec<_> = shared.flat_map(|ffn| [&ffn.up, &ffn.down]).collect();
                gemms.push(&experts.router);
                gemms
            }
        }
    }
}

impl<'a> Gated<'a> {
    fn new(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
        intermediate: u32,
        names: [&'static str; 3],
    ) -> Result<Gated<'a>, CalibrationError> {
        let f = intermediate / setting.gpus;
        let gemm = |name, n, k| {
            let dtype = setting.formats.gemm;
            Gemm::new(profile, setting.missing, name, (n, k), dtype)
        };
        Ok(Gated {
            intermediate: f64::from(intermediate) / f64::from(setting.gpus),
            names,
            up: gemm(names[0], 2 * f, shape.hidden)?,
            down: gemm(names[2], shape.hidden, f)?,
        })
    }

    fn run(&self, pass: &mut Pass<'_>) -> Result<(), CalibrationError> {
        pass.gemm(&self.up)?;
        pass.elementwise(self.names[1], pass.tokens * 6.0 * self.intermediate);
        pass.gemm(&self.down)
    }
}

impl<'a> Experts<'a> {
    fn new(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
    ) -> Result<Experts<'a>, CalibrationError> {
        let FfnShape::Experts {
            experts,
            top_k,
            intermediate,
            shared,
            load,
        } = shape.ffn
        else {
            unreachable!("the shape was found to have experts")
        };
        let (missing, dtype) = (setting.missing, setting.experts);
        let all_gpus = setting.gpus * setting.ranks;
        // The roofline of an all-reduce is that of both together.
        let collective = |collective| {
            let key = NcclKey {
                collective,
                gpus: all_gpus,
            };
            Ok(Kernel {
                grid: missing.or(profile.nccl(key))?,
                floor: roofline::all_reduce(&profile.machine, all_gpus),
                square_axis: None,
            })
        };
        let exchange = match setting.ranks {
            1 => None,
            _ => Some([
                collective(Collective::AllGather)?,
                collective(Collective::ReduceScatter)?,
            ]),
        };
        let key = ExpertKey {
            dtype,
            top_k,
            experts,
            hidden: shape.hidden,
            intermediate,
            tensor_parallel: (all_gpus / setting.expert_parallel).max(1),
            expert_parallel: setting.expert_parallel,
            load,
        };
        let router = (experts, shape.hidden);
        let names = ["shared_gate_up_gemm", "shared_act_gate", "shared_ffn2_gemm"];
        let size = shared * intermediate;
        Ok(Experts {
            router: Gemm::new(profile, missing, "router_gemm", router, Dtype::Bfloat16)?,
            routed: Kernel {
                grid: missing.or(profile.experts(key))?,
                floor: units(profile, dtype, roofline::experts(&profile.machine, key))?,
                square_axis: None,
            },
            shared: match size {
                0 => None,
                size => Some(Gated::new(profile, shape, setting, size, names)?),
            },
            exchange,
        })
    }

    fn run(&self, pass: &mut Pass<'_>, phase: Phase) -> Result<(), CalibrationError> {
        let mut shared = pass.beside();
        if let Some(ffn) = &self.shared {
            ffn.run(&mut shared)?;
        }
        let mut routed = pass.beside();
        routed.gemm(&self.router)?;
        if self.exchange.is_some() {
            // The experts are everybody's.
            pass.ops.extend(shared.ops);
            pass.ops.extend(routed.ops);
            return Ok(());
        }
        routed.all_reduce("moe_pre_dispatch");
        routed.run("moe", self.routed.read([pass.tokens]));
        routed.all_reduce("moe_post_dispatch");
        if phase == Phase::Prompts {
            pass.ops.extend(shared.ops);
            pass.ops.extend(routed.ops);
        } else if shared.ms() > routed.ms() {
            pass.ops.extend(shared.ops);
        } else {
            pass.ops.extend(routed.ops);
        }
        Ok(())
    }
}
