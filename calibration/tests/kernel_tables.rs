//! The roofline against values that AIConfigurator 0.12 computed from its measured kernel tables.
//!
//! The file is not part of the repository: it is looked for in the sibling folder `shared`, and the test says so and
//! passes when it is absent.

use calibration::{Deployment, Gpu, Model, Precision, Roofline, RooflineSpec};
use engine::{Chunk, StepShape};
use std::path::Path;

struct Row {
    model: String,
    is_dense: bool,
    is_prefill: bool,
    predicted_ms: f64,
    table_ms: f64,
}

/// Median and 90th percentile of the absolute relative error, and the mean signed one.
fn errors(rows: &[&Row]) -> (f64, f64, f64) {
    let signed: Vec<f64> = rows
        .iter()
        .map(|row| row.predicted_ms / row.table_ms - 1.0)
        .collect();
    let mut absolute: Vec<f64> = signed.iter().map(|error| error.abs()).collect();
    absolute.sort_by(f64::total_cmp);
    let at = |share: f64| absolute[((absolute.len() - 1) as f64 * share) as usize];
    (
        at(0.5),
        at(0.9),
        signed.iter().sum::<f64>() / signed.len() as f64,
    )
}

fn row(header: &[&str], line: &str) -> Option<Row> {
    let values: Vec<&str> = line.split(',').collect();
    let text = |name: &str| {
        values[header
            .iter()
            .position(|column| *column == name)
            .expect("a column of the file")]
    };
    let number = |name: &str| text(name).parse::<f64>().unwrap_or(0.0);
    let model = Model::find(text("model")).ok()?;
    // The vLLM fp8 lane of that version holds launch floors of the measuring loop (55.8 us for a GEMM of one row).
    if text("backend") == "vllm" && model.weights == Precision::Fp8 {
        return None;
    }
    let kv_cache = if text("kvcache") == "fp8" {
        Precision::Fp8
    } else {
        Precision::Bf16
    };
    let gpu = Gpu::find(text("system")).expect("H100 or H200");
    let deployment = Deployment {
        model: &model,
        gpu,
        tensor_parallel: number("tp") as u32,
        expert_parallel: (number("moe_ep") as u32).max(1),
        kv_cache,
    };
    let spec = RooflineSpec {
        step_overhead_us: 0.0,
        multi_gpu_overhead_us: 0.0,
        ..RooflineSpec::default()
    };
    let roofline = Roofline::new(spec, deployment).expect("legal");

    let (batch, prefix) = (number("batch") as u32, number("prefix") as u32);
    let is_prefill = text("phase") == "context";
    let chunk = Chunk {
        new_tokens: number("isl") as u32 - prefix,
        cached_tokens: prefix,
    };
    let chunks = vec![chunk; batch as usize];
    let shape = if is_prefill {
        StepShape {
            prefill: &chunks,
            decode_batch: 0,
            decode_context: 0,
        }
    } else {
        let context = u64::from(batch) * number("kv_len") as u64;
        StepShape {
            prefill: &[],
            decode_batch: batch,
            decode_context: context,
        }
    };
    let predicted_ms = roofline.seconds(&shape) * 1e3;
    Some(Row {
        model: model.id.clone(),
        is_dense: model.beyond_dense().is_none(),
        is_prefill,
        predicted_ms,
        table_ms: number("latency_ms"),
    })
}

#[test]
fn kernel_tables_are_met_on_hopper() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/measured/aic_reference_public.csv");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: {} is absent", file.display());
        return;
    };
    let header: Vec<&str> = text.lines().next().expect("a header").split(',').collect();
    let rows: Vec<Row> = text
        .lines()
        .skip(1)
        .filter_map(|line| row(&header, line))
        .collect();
    assert!(rows.len() > 400, "{} rows", rows.len());
    let mut models: Vec<&str> = rows.iter().map(|row| row.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    for (is_dense, is_prefill, bound) in [
        (true, true, 0.08),
        (true, false, 0.05),
        (false, true, 0.20),
        (false, false, 0.10),
    ] {
        let kind = if is_dense { "dense" } else { "mixtures" };
        let phase = if is_prefill { "prefill" } else { "decode" };
        let chosen: Vec<&Row> = rows
            .iter()
            .filter(|row| row.is_prefill == is_prefill && row.is_dense == is_dense)
            .collect();
        for model in &models {
            let group: Vec<&Row> = chosen
                .iter()
                .filter(|row| row.model == *model)
                .copied()
                .collect();
            if !group.is_empty() {
                let (median, p90, bias) = errors(&group);
                println!(
                    "{model} {phase}, {} rows: median {median:.3}, p90 {p90:.3}, bias {bias:+.3}",
                    group.len()
                );
            }
        }
        let (median, p90, bias) = errors(&chosen);
        println!(
            "{kind} {phase}, {} rows: median {median:.3}, p90 {p90:.3}, bias {bias:+.3}",
            chosen.len()
        );
        assert!(median < bound, "{kind} {phase}: median error {median}");
    }
}
