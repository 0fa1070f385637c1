//! Settings of Dynamo's planner, under Dynamo's names and with its defaults.

use super::super::section::Section;
use planner::budget::GpuBudget;
use planner::dynamo::{LoadThresholds, Mode, PlannerConfig, Target};
use planner::predictor::{KalmanConfig, PredictorSpec};
use sim::Sla;
use sweeps::planner::{PerfModel, Policy};
use sweeps::scenario::{Pool, Role};

const TARGETS: [(&str, Target); 4] = [
    ("throughput", Target::Throughput),
    ("latency", Target::Latency),
    ("load", Target::Load),
    ("sla", Target::Sla),
];

const MODES: [(&str, Mode); 2] = [("agg", Mode::Aggregated), ("disagg", Mode::Disaggregated)];

const MODELS: [(&str, PerfModel); 2] = [
    ("timing", PerfModel::Timing),
    ("fpm_regression", PerfModel::FpmRegression),
];

#[derive(Clone, Copy, PartialEq)]
enum Predictor {
    Constant,
    Kalman,
    Autoregressive,
    TrendSeasonal,
    SeasonalNaive,
}

const PREDICTORS: [(&str, Predictor); 5] = [
    ("constant", Predictor::Constant),
    ("kalman", Predictor::Kalman),
    ("autoregressive", Predictor::Autoregressive),
    ("trend-seasonal", Predictor::TrendSeasonal),
    ("seasonal-naive", Predictor::SeasonalNaive),
];

const SECONDS: std::ops::RangeInclusive<u32> = 0..=86_400;
const COUNT: std::ops::RangeInclusive<u32> = 0..=1 << 20;

/// Latencies that the section does not state are those of the scenario's `sla`.
pub fn read(section: &Section<'_>, pools: &[Pool], sla: Option<Sla>) -> Option<Policy> {
    let default = PlannerConfig::default();
    let sla = sla.unwrap_or_default();
    let ms = |name: &'static str, of_scenario: Option<f64>, default: f64| {
        let own = section.number(name, 0.0..=1e9);
        own.or(of_scenario).unwrap_or(default)
    };
    let rate = |name: &'static str| section.number(name, 0.0..=1e12);
    let is_aggregated = pools.iter().all(|pool| pool.role == Role::Aggregated);
    let mode = if is_aggregated {
        Mode::Aggregated
    } else {
        Mode::Disaggregated
    };
    if section
        .choice("mode", &MODES)
        .is_some_and(|asked| asked != mode)
        && !pools.is_empty()
    {
        let expected = "the mode that the roles of the pools make, or nothing";
        section.conflict("mode", "another", expected, "remove it");
    }
    let whole = |name: &'static str, default: u32| section.whole32(name, COUNT).unwrap_or(default);
    let seconds =
        |name: &'static str, default: u32| section.whole32(name, SECONDS).unwrap_or(default);
    let throughput_interval = seconds(
        "throughput_adjustment_interval_seconds",
        default.throughput_adjustment_interval_seconds,
    );
    let config = PlannerConfig {
        mode,
        optimization_target: section
            .choice("optimization_target", &TARGETS)
            .unwrap_or(default.optimization_target),
        ttft_ms: ms("ttft_ms", sla.ttft_ms, default.ttft_ms),
        itl_ms: ms("itl_ms", sla.itl_ms, default.itl_ms),
        throughput_adjustment_interval_seconds: throughput_interval,
        load_adjustment_interval_seconds: seconds(
            "load_adjustment_interval_seconds",
            default.load_adjustment_interval_seconds,
        ),
        scale_interval_seconds: section.number("scale_interval_seconds", 0.0..=86_400.0),
        enable_throughput_scaling: section
            .flag("enable_throughput_scaling")
            .unwrap_or(default.enable_throughput_scaling),
        enable_load_scaling: section
            .flag("enable_load_scaling")
            .unwrap_or(default.enable_load_scaling),
        max_throughput_scaling_replicas: whole(
            "max_throughput_scaling_replicas",
            default.max_throughput_scaling_replicas,
        ),
        load_predictor: predictor(section, throughput_interval),
        max_num_fpm_samples: whole("max_num_fpm_samples", 64) as usize,
        fpm_sample_bucket_size: whole("fpm_sample_bucket_size", 16) as usize,
        load_scaling_down_sensitivity: section
            .number("load_scaling_down_sensitivity", 0.0..=100.0)
            .unwrap_or(default.load_scaling_down_sensitivity),
        load_min_observations: whole("load_min_observations", 5) as usize,
        thresholds: LoadThresholds {
            prefill_scale_up_queue_tokens: rate("prefill_scale_up_queue_tokens"),
            prefill_scale_down_queue_tokens: rate("prefill_scale_down_queue_tokens"),
            decode_scale_up_kv_rate: rate("decode_scale_up_kv_rate"),
            decode_scale_down_kv_rate: rate("decode_scale_down_kv_rate"),
        },
        gpu_budget: GpuBudget {
            min: budget(section, "min_gpu_budget", default.gpu_budget.min),
            max: budget(section, "max_gpu_budget", default.gpu_budget.max),
        },
        min_endpoint: whole("min_endpoint", default.min_endpoint),
        prefill_min_endpoint: section.whole32("prefill_min_endpoint", COUNT),
        decode_min_endpoint: section.whole32("decode_min_endpoint", COUNT),
        ..default
    };
    let perf_model = section.choice("perf_model", &MODELS);
    if config.is_sla() {
        check_unused_thresholds(section, "optimization_target: load");
    } else {
        for name in ["enable_throughput_scaling", "enable_load_scaling"] {
            if section.has(name) {
                let expected = "optimization_target: sla, the only one for which it can be chosen";
                section.conflict(
                    name,
                    "a switch that nothing looks at",
                    expected,
                    "remove it",
                );
            }
        }
    }
    if matches!(
        config.optimization_target,
        Target::Throughput | Target::Latency
    ) {
        check_unused_thresholds(section, "optimization_target: load");
    }
    Some(Policy::Dynamo {
        config,
        perf_model: perf_model.unwrap_or(PerfModel::Timing),
    })
}

fn check_unused_thresholds(section: &Section<'_>, expected: &str) {
    for name in [
        "prefill_scale_up_queue_tokens",
        "prefill_scale_down_queue_tokens",
        "decode_scale_up_kv_rate",
        "decode_scale_down_kv_rate",
    ] {
        if section.has(name) {
            section.conflict(
                name,
                "a threshold that nothing looks at",
                expected,
                "remove it",
            );
        }
    }
}

/// A bound on GPUs; a negative one is none, as in Dynamo.
fn budget(section: &Section<'_>, name: &'static str, default: Option<u32>) -> Option<u32> {
    if !section.has(name) {
        return default;
    }
    let gpus = section.number(name, -1.0..=f64::from(1u32 << 24))?;
    (gpus >= 0.0).then_some(gpus as u32)
}

fn predictor(section: &Section<'_>, interval_s: u32) -> PredictorSpec {
    for (theirs, ours) in [("arima", "autoregressive"), ("prophet", "trend-seasonal")] {
        if section
            .text("load_predictor")
            .is_some_and(|(name, _)| name == theirs)
        {
            let expected =
                format!("{ours}, which takes its place: the real one's fits are not reproducible");
            let suggestion = "docs/planner.md says how far they differ";
            section.mistake("load_predictor", theirs, expected, suggestion);
            return PredictorSpec::Constant;
        }
    }
    let kind = section.choice("load_predictor", &PREDICTORS);
    let kind = kind.unwrap_or(Predictor::Autoregressive);
    let log1p = section.flag("load_predictor_log1p").unwrap_or(false);
    let usize_of = |name: &'static str, default: u32| {
        section.whole32(name, 1..=1 << 20).unwrap_or(default) as usize
    };
    let default = KalmanConfig::default();
    let variance =
        |name: &'static str, default: f64| section.number(name, 0.0..=1e12).unwrap_or(default);
    let kalman = KalmanConfig {
        q_level: variance("kalman_q_level", default.q_level),
        q_trend: variance("kalman_q_trend", default.q_trend),
        r: variance("kalman_r", default.r),
        min_points: usize_of("kalman_min_points", default.min_points as u32),
        log1p,
    };
    let window = usize_of("prophet_window_size", 50);
    let season = usize_of("season_intervals", 24);
    let belongs = |names: &[&'static str], of: Predictor, word: &str| {
        for &name in names {
            if section.has(name) && kind != of {
                let expected = format!("load_predictor: {word}");
                section.conflict(
                    name,
                    "a setting of another predictor",
                    expected,
                    "remove it",
                );
            }
        }
    };
    let of_kalman = [
        "kalman_q_level",
        "kalman_q_trend",
        "kalman_r",
        "kalman_min_points",
    ];
    belongs(&of_kalman, Predictor::Kalman, "kalman");
    belongs(
        &["prophet_window_size"],
        Predictor::TrendSeasonal,
        "trend-seasonal",
    );
    belongs(
        &["season_intervals"],
        Predictor::SeasonalNaive,
        "seasonal-naive",
    );
    match kind {
        Predictor::Constant => PredictorSpec::Constant,
        Predictor::Kalman => PredictorSpec::Kalman(kalman),
        Predictor::Autoregressive => PredictorSpec::Autoregressive { log1p },
        Predictor::TrendSeasonal => PredictorSpec::TrendSeasonal {
            log1p,
            window,
            interval_s: f64::from(interval_s),
        },
        Predictor::SeasonalNaive => PredictorSpec::SeasonalNaive { season },
    }
}
