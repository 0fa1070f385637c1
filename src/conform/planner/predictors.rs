//! Cases of kind `predictor`, and the table that compares predictors (`evaluate_preset`).

use super::config::PredictorFields;
use super::{Comparison, Pair, read};
use planner::predictor::{KalmanConfig, Predictor, PredictorSpec, mean_loss};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    predictor: PredictorFields,
    step_seconds: f64,
    tolerance: Value,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    series: String,
    values: Vec<Option<f64>>,
    #[serde(rename = "predictions_before_each_value_and_at_end")]
    forecasts: Vec<Option<f64>>,
}

/// A tolerance in words says that a library's fit decided.
pub fn compare(case: Value) -> Result<Comparison, String> {
    let case: Case = read("case", case)?;
    let spec = case.predictor.spec(case.step_seconds)?;
    if case.tolerance.is_string() {
        return Ok(distance(&case, spec));
    }
    let pairs = case.rows.iter().map(|row| Pair {
        what: format!("series {}", row.series),
        recorded: json!(row.forecasts),
        ours: json!(forecasts(spec, row)),
    });
    Ok(Comparison::Exact(pairs.collect()))
}

/// What was expected before each value, and after the last.
fn forecasts(spec: PredictorSpec, row: &Row) -> Vec<f64> {
    let mut predictor = Predictor::new(spec);
    let mut forecasts = Vec::with_capacity(row.values.len() + 1);
    for value in &row.values {
        forecasts.push(predictor.forecast());
        predictor.observe(value.unwrap_or(f64::NAN));
    }
    forecasts.push(predictor.forecast());
    forecasts
}

/// How far the two predictors are from each other and from what came.
fn distance(case: &Case, spec: PredictorSpec) -> Comparison {
    let ours_by_row = case.rows.iter().map(|row| (row, forecasts(spec, row)));
    let (mut compared, mut sums) = (0u64, [0.0; 4]);
    for (row, ours) in ours_by_row {
        let triples = row.values.iter().zip(&row.forecasts).zip(&ours);
        for ((value, recorded), ours) in triples {
            let (Some(value), Some(recorded)) = (value, recorded) else {
                continue;
            };
            let parts = [value - recorded, value - ours, recorded - ours, *value];
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum += part.abs();
            }
            compared += 1;
        }
    }
    let [theirs, ours, apart, mean] = sums.map(|sum| sum / compared.max(1) as f64);
    let (name, own_name) = match spec {
        PredictorSpec::TrendSeasonal { .. } => ("prophet", "trend and seasons"),
        _ => ("arima", "autoregression"),
    };
    Comparison::Loose {
        compared,
        words: format!(
            "mean error of {compared} forecasts: {name} {theirs:.1}, {own_name} {ours:.1}; the two are {apart:.1} apart (mean value {mean:.1})"
        ),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresweepArgs {
    windows: Vec<[f64; 3]>,
    warmup: usize,
    presets: Vec<String>,
}

pub fn presweep(args: Value) -> Result<Value, String> {
    let args: PresweepArgs = read("args", args)?;
    let mut losses = Map::new();
    for name in args.presets {
        let loss = mean_loss(preset(&name)?, &args.windows, args.warmup);
        losses.insert(name, json!(loss));
    }
    Ok(Value::Object(losses))
}

fn preset(name: &str) -> Result<PredictorSpec, String> {
    let reactive = KalmanConfig {
        q_level: 10.0,
        q_trend: 1.0,
        r: 5.0,
        min_points: 3,
        log1p: false,
    };
    let kalman =
        |config: KalmanConfig, log1p| PredictorSpec::Kalman(KalmanConfig { log1p, ..config });
    Ok(match name {
        "constant_last" => PredictorSpec::Constant,
        "kalman_default_raw" => kalman(KalmanConfig::default(), false),
        "kalman_default_log1p" => kalman(KalmanConfig::default(), true),
        "kalman_reactive_raw" => kalman(reactive, false),
        "kalman_reactive_log1p" => kalman(reactive, true),
        _ => {
            return Err(format!(
                "preset {name}: expected constant_last or one of kalman's"
            ));
        }
    })
}
