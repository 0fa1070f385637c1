use super::*;
use crate::gpu::Gpu;
use crate::model::Model;
use engine::Chunk;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

fn measured(model: &str, gpu: &str, tensor_parallel: u32, tables: Backend) -> Measured {
    let model = Model::find(model).expect("embedded");
    let kv_cache = model.weights;
    let deployment = Deployment {
        model: &model,
        gpu: Gpu::find(gpu).expect("known"),
        tensor_parallel,
        expert_parallel: 1,
        kv_cache,
    };
    let spec = MeasuredSpec {
        tables,
        host: HostTimes::ZERO,
        ..MeasuredSpec::default()
    };
    Measured::new(&spec, deployment, 4_000_000).expect("measured")
}

fn decode(batch: u32, context: u64) -> StepShape<'static> {
    StepShape {
        prefill: &[],
        decode_batch: batch,
        decode_context: context,
    }
}

fn prefill(chunks: &[Chunk]) -> StepShape<'_> {
    StepShape {
        prefill: chunks,
        decode_batch: 0,
        decode_context: 0,
    }
}

fn chunk(new_tokens: u32, cached_tokens: u32) -> Chunk {
    Chunk {
        new_tokens,
        cached_tokens,
    }
}

#[test]
fn pieces_stay_within_a_thousandth_of_the_tables() {
    let mut random = Pcg64Mcg::seed_from_u64(3);
    for (model, gpu, tp, tables) in [
        ("meta-llama/Llama-3.1-8B", "h100_sxm", 1, Backend::Vllm),
        ("meta-llama/Llama-3.1-70B", "h200_sxm", 4, Backend::Sglang),
        ("Qwen/Qwen3-32B", "h100_sxm", 2, Backend::Sglang),
        ("Qwen/Qwen3-32B-FP8", "h200_sxm", 8, Backend::Vllm),
    ] {
        let timing = measured(model, gpu, tp, tables);
        let (mut worst, mut sum) = (0.0f64, 0.0);
        let points = 1_000;
        for _ in 0..points {
            let batch = 2f64.powf(random.random_range(0.0..10.0)) as u32;
            let length = 2f64.powf(random.random_range(0.0..17.0));
            let context = ((f64::from(batch) * length) as u64).clamp(u64::from(batch), 4_000_000);
            let exact = timing.seconds(&decode(batch, context));
            let error = (timing.step(&decode(batch, context)).as_s() / exact - 1.0).abs();
            assert!(
                error < 1e-3,
                "{model} on {gpu} x {tp}, batch {batch}, context {context}: {error:.1e}"
            );
            worst = worst.max(error);
            sum += error;
        }
        for _ in 0..points {
            let batch = random.random_range(0..200);
            let chunks: Vec<Chunk> = (0..random.random_range(1..6))
                .map(|_| {
                    let length = |random: &mut Pcg64Mcg, most| {
                        2f64.powf(random.random_range(0.0..most)) as u32
                    };
                    chunk(length(&mut random, 13.0), length(&mut random, 18.0))
                })
                .collect();
            let shape = StepShape {
                prefill: &chunks,
                decode_batch: batch,
                decode_context: u64::from(batch) * 2_000,
            };
            let error = (timing.step(&shape).as_s() / timing.seconds(&shape) - 1.0).abs();
            assert!(error < 1e-3, "{model}: {chunks:?}: {error:.1e}");
            worst = worst.max(error);
            sum += error;
        }
        let points = 2 * points;
        let mean = sum / f64::from(points);
        println!(
            "{model} on {tp} x {gpu}: chords off by {worst:.1e} at most, {mean:.1e} on average of {points} places"
        );
    }
}

#[test]
fn stepping_and_pieces_give_the_same_integers() {
    let timing = measured("meta-llama/Llama-3.1-8B", "h100_sxm", 1, Backend::Vllm);
    for batch in [1u32, 7, 64, 300, 3_000] {
        let grow = u64::from(batch);
        let (mut context, mut left, mut total) = (grow * 900, 2_000u64, 0i64);
        let stepped: Span = (0..left)
            .map(|i| timing.step(&decode(batch, context + i * grow)))
            .sum();
        while left > 0 {
            let piece = timing.decode(batch, context);
            let steps = left.min((piece.until - context).div_ceil(grow));
            total += piece.time(context).0 as i64 * steps as i64
                + piece.slope_ps * (grow * (steps * (steps - 1) / 2)) as i64;
            context += steps * grow;
            left -= steps;
        }
        assert_eq!(stepped, Span(total as u64), "batch {batch}");
    }
}

#[test]
fn a_decode_step_is_the_composition_less_its_smoothing() {
    // AIConfigurator 0.12: Llama-3.1-8B on H200, vLLM, TP 1, 8 decodes at 4,097 tokens: 6.065563 ms, of which 1.581344
    // are attention, the mean of five readings around 4,097.
    let at = measured("meta-llama/Llama-3.1-8B", "h200_sxm", 1, Backend::Vllm)
        .seconds(&decode(8, 8 * 4_097))
        * 1e3;
    assert!((at / 6.065_563 - 1.0).abs() < 0.01, "{at} ms");
}

#[test]
fn chunks_of_a_prompt_cost_what_they_attend_to() {
    let timing = measured("Qwen/Qwen3-32B", "h200_sxm", 2, Backend::Vllm);
    let time = |chunks: &[Chunk]| timing.seconds(&prefill(chunks));
    assert!(
        time(&[chunk(2_048, 0)]) < time(&[chunk(2_048, 14_336)]),
        "a later chunk costs more"
    );
    let whole = time(&[chunk(8_192, 0)]);
    let parts: f64 = (0..4).map(|i| time(&[chunk(2_048, 2_048 * i)])).sum();
    assert!(
        (0.9..1.3).contains(&(parts / whole)),
        "{parts} s in parts, {whole} s as a whole"
    );
    assert!(time(&[chunk(1_024, 0)]) < time(&[chunk(1_024, 0), chunk(1_024, 0)]));
    let beside = StepShape {
        prefill: &[chunk(512, 0)],
        decode_batch: 32,
        decode_context: 64_000,
    };
    assert!(timing.mixed(&beside) > timing.mixed(&prefill(&[chunk(512, 0)])));
}

#[test]
fn guesses_and_missing_tables_are_said() {
    let source = measured("Qwen/Qwen3-32B-FP8", "h100_sxm", 1, Backend::Vllm).source();
    let guesses = source.guesses.join("\n");
    for part in [
        "the host takes 0 us per step",
        "launch time of the measuring loop",
        "LM head",
    ] {
        assert!(guesses.contains(part), "{guesses}");
    }
    assert!(
        source.detail.contains("h100_sxm vllm 0.24.0"),
        "{}",
        source.detail
    );
    let refused = |model: &str, gpu: &str, tp: u32| {
        let model = Model::find(model).expect("embedded");
        let deployment = Deployment {
            model: &model,
            gpu: Gpu::find(gpu).expect("known"),
            tensor_parallel: tp,
            expert_parallel: 1,
            kv_cache: Precision::Bf16,
        };
        Measured::new(&MeasuredSpec::default(), deployment, 1_000)
            .err()
            .expect("not measured")
            .to_string()
    };
    let message = refused("meta-llama/Llama-3.1-8B", "a100_sxm", 1);
    assert!(
        message.contains("no a100_sxm vllm; nearest: h100_sxm"),
        "{message}"
    );
    // Heads of 64 are not in the embedded slice.
    let message = refused("meta-llama/Llama-3.2-1B", "h100_sxm", 1);
    assert!(
        message.contains("context attention of h100_sxm vllm 0.24.0 holds no"),
        "{message}"
    );
    assert!(message.contains("nearest: bfloat16"), "{message}");
}

#[test]
fn a_roofline_stands_for_what_was_not_measured_when_asked_for() {
    // Heads of 64 are not in the embedded slice; the projections are.
    let model = Model::find("meta-llama/Llama-3.2-1B").expect("embedded");
    let deployment = Deployment {
        model: &model,
        gpu: Gpu::find("h100_sxm").expect("known"),
        tensor_parallel: 1,
        expert_parallel: 1,
        kv_cache: Precision::Bf16,
    };
    let spec = MeasuredSpec {
        missing: Missing::Estimate,
        ..MeasuredSpec::default()
    };
    let timing = Measured::new(&spec, deployment, 1_000_000).expect("estimated");
    let guesses = timing.source().guesses.join("\n");
    assert!(
        guesses.contains("roofline: prompt attention, decode attention"),
        "{guesses}"
    );
    for shape in [decode(8, 8_000), prefill(&[chunk(512, 0)])] {
        assert!(timing.is_extrapolated(&shape), "{shape:?}");
        let error = timing.step(&shape).as_s() / timing.seconds(&shape) - 1.0;
        assert!(error.abs() < 1e-3, "{shape:?}: {error}");
    }
}

#[test]
fn what_no_table_holds_is_refused() {
    let model = Model::find("openai/gpt-oss-20b").expect("embedded");
    let deployment = Deployment {
        model: &model,
        gpu: Gpu::find("h100_sxm").expect("known"),
        tensor_parallel: 1,
        expert_parallel: 1,
        kv_cache: Precision::Bf16,
    };
    let error = Measured::new(&MeasuredSpec::default(), deployment, 100_000)
        .err()
        .expect("windows");
    let message = error.to_string();
    assert!(
        message.contains("sliding-window attention; experts of 4 bits"),
        "{message}"
    );
}
