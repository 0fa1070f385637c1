//! Tables of the budget functions. Negative bounds are no bounds.

use super::config::or_null;
use super::read;
use planner::budget::{
    GpuBudget, PairBudget, PowerBudget, SingleBudget, fit_directional, fit_power, guard_pair,
    guard_single,
};
use planner::{PerRole, Reason};
use serde::Deserialize;
use serde_json::{Value, json};

/// Arguments of all functions over two roles; each names those it has.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PairArgs {
    num_p: u32,
    num_d: u32,
    current_p: u32,
    current_d: u32,
    proposed_p: u32,
    proposed_d: u32,
    p_gpu: u32,
    d_gpu: u32,
    min_gpus: i64,
    max_gpus: i64,
    prefill_min_endpoint: u32,
    decode_min_endpoint: Option<u32>,
}

impl PairArgs {
    fn budget(&self) -> PairBudget {
        PairBudget {
            gpus: band(self.min_gpus, self.max_gpus),
            cost: PerRole {
                prefill: self.p_gpu,
                decode: self.d_gpu,
            },
            floor: PerRole {
                prefill: self.prefill_min_endpoint,
                decode: self
                    .decode_min_endpoint
                    .unwrap_or(self.prefill_min_endpoint),
            },
        }
    }

    fn current(&self) -> PerRole<u32> {
        PerRole {
            prefill: self.current_p,
            decode: self.current_d,
        }
    }

    fn proposed(&self) -> PerRole<u32> {
        PerRole {
            prefill: self.proposed_p,
            decode: self.proposed_d,
        }
    }
}

/// The same over one.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SingleArgs {
    desired: u32,
    current: u32,
    proposed: u32,
    #[serde(alias = "engine_gpu")]
    gpu_cost: u32,
    min_gpus: i64,
    max_gpus: i64,
    min_endpoint: u32,
}

impl SingleArgs {
    fn budget(&self) -> SingleBudget {
        SingleBudget {
            gpus: band(self.min_gpus, self.max_gpus),
            cost: self.gpu_cost,
            floor: self.min_endpoint,
        }
    }
}

fn band(min: i64, max: i64) -> GpuBudget {
    GpuBudget {
        min: u32::try_from(min).ok(),
        max: u32::try_from(max).ok(),
    }
}

fn word(reason: Option<Reason>) -> Value {
    or_null(reason.map(Reason::as_str))
}

pub fn clamp_pair(args: Value) -> Result<Value, String> {
    let args: PairArgs = read("args", args)?;
    let counts = PerRole {
        prefill: args.num_p,
        decode: args.num_d,
    };
    let clamped = args.budget().clamp(counts);
    Ok(json!([clamped.prefill, clamped.decode]))
}

pub fn clamp_single(args: Value) -> Result<Value, String> {
    let args: SingleArgs = read("args", args)?;
    Ok(json!(args.budget().clamp(args.desired)))
}

pub fn fit(args: Value) -> Result<Value, String> {
    let args: PairArgs = read("args", args)?;
    let fitted = fit_directional(&args.budget(), args.current(), args.proposed());
    Ok(json!([fitted.prefill, fitted.decode]))
}

pub fn guard_one(args: Value) -> Result<Value, String> {
    let args: SingleArgs = read("args", args)?;
    let (count, reason) = guard_single(&args.budget(), args.current, args.proposed);
    Ok(json!([count, word(reason)]))
}

pub fn guard_two(args: Value) -> Result<Value, String> {
    let args: PairArgs = read("args", args)?;
    let (counts, reason) = guard_pair(&args.budget(), args.current(), args.proposed());
    Ok(json!([counts.prefill, counts.decode, word(reason)]))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PowerArgs {
    proposed_p: Option<u32>,
    proposed_d: Option<u32>,
    current_p: Option<u32>,
    current_d: Option<u32>,
    p_watts: Option<u32>,
    d_watts: Option<u32>,
    total_budget: u32,
    prefill_min_endpoint: u32,
    decode_min_endpoint: Option<u32>,
}

pub fn power(args: Value) -> Result<Value, String> {
    let args: PowerArgs = read("args", args)?;
    let budget = PowerBudget {
        watts: PerRole {
            prefill: args.p_watts,
            decode: args.d_watts,
        },
        limit: args.total_budget,
        floor: PerRole {
            prefill: args.prefill_min_endpoint,
            decode: args
                .decode_min_endpoint
                .unwrap_or(args.prefill_min_endpoint),
        },
    };
    let current = PerRole {
        prefill: args.current_p,
        decode: args.current_d,
    };
    let proposed = PerRole {
        prefill: args.proposed_p,
        decode: args.proposed_d,
    };
    Ok(match fit_power(&budget, current, proposed) {
        None => json!("error:infeasible"),
        Some((counts, reason)) => json!([
            counts.prefill,
            counts.decode,
            or_null(reason.map(|reason| reason.to_string()))
        ]),
    })
}
