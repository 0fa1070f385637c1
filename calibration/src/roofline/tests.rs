//! The formulas by hand, and pieces against the evaluator.

use super::*;
use engine::Chunk;
use proptest::prelude::*;

fn roofline(model: &str, gpu: &str, tensor_parallel: u32) -> Roofline {
    let model = Model::find(model).expect("embedded");
    let gpu = Gpu::find(gpu).expect("known");
    let deployment = Deployment {
        model: &model,
        gpu,
        tensor_parallel,
        expert_parallel: 1,
        kv_cache: Precision::Bf16,
    };
    Roofline::new(RooflineSpec::default(), deployment).expect("a legal deployment")
}

/// All efficiencies 1 and no overheads: the bare formulas.
fn ideal() -> RooflineSpec {
    RooflineSpec {
        gemm_bf16_efficiency: 1.0,
        gemm_fp8_efficiency: 1.0,
        gemm_memory_efficiency: 1.0,
        prefill_attention_efficiency: 1.0,
        decode_attention_efficiency: 1.0,
        elementwise_efficiency: 1.0,
        link_efficiency: 1.0,
        kernel_us: 0.0,
        prefill_attention_us: 0.0,
        decode_attention_us: 0.0,
        collective_us: 0.0,
        collective_per_gpu_us: 0.0,
        step_overhead_us: 0.0,
        multi_gpu_overhead_us: 0.0,
    }
}

#[test]
fn decode_is_bound_by_reading_the_weights() {
    // Llama-3.1-8B on H100 at batch 1: 16.06 GB less the embedding (1.05 GB, of which one row is read) through
    // 3.35 TB/s are 4.48 ms; with it, the often quoted floor of 16.06 / 3.35 = 4.79 ms.
    let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
    let gpu = Gpu::find("h100_sxm").expect("known");
    let deployment = Deployment {
        model: &model,
        gpu,
        tensor_parallel: 1,
        expert_parallel: 1,
        kv_cache: Precision::Bf16,
    };
    let ideal = Roofline::new(ideal(), deployment).expect("legal");
    let at = ideal.decode(1, 1).time(1).as_ms();
    let weights_ms = (16.060_522 - 1.050_673) / 3.35;
    assert!(
        (at / weights_ms - 1.0).abs() < 0.005,
        "{at} ms against {weights_ms} ms"
    );
    // A token of context: 131,072 bytes / 3.35 TB/s = 39,126 ps.
    assert_eq!(ideal.decode(1, 1).slope_ps, 39_126);
    // 8,192 new tokens: 2 FLOPs x 6.979 G projection weights (32 x 218,103,808) = 114.35 TFLOP; attention
    // 4 x 32 layers x 4096 x 8192 x 4096.5 = 17.59 TFLOP; (114.35 + 17.59) / 989 TFLOP/s = 133.4 ms. The LM head
    // row reads 1.05 GB: 0.31 ms. Elementwise: 32 x (16 x 4096 + 4 x 5120 + 8 x 1024 + 6 x 14336) x 8192 bytes
    // = 47.2 GB: 14.1 ms.
    let chunk = [Chunk {
        new_tokens: 8_192,
        cached_tokens: 0,
    }];
    let prefill = ideal
        .mixed(&StepShape {
            prefill: &chunk,
            decode_batch: 0,
            decode_context: 0,
        })
        .as_ms();
    assert!(
        (prefill / (133.4 + 0.31 + 14.1) - 1.0).abs() < 0.002,
        "{prefill} ms"
    );
}

#[test]
fn defaults_are_plausible_on_known_hardware() {
    // vLLM serves Llama-3.1-8B in bf16 on one H100 at about 7 ms per token with one request in flight.
    let at = roofline("meta-llama/Llama-3.1-8B", "h100_sxm", 1)
        .decode(1, 1_000)
        .time(1_000)
        .as_ms();
    assert!((6.0..8.5).contains(&at), "{at} ms");
}

#[test]
fn more_of_anything_takes_longer_and_better_hardware_less() {
    let h100 = roofline("Qwen/Qwen3-32B", "h100_sxm", 2);
    let step = |chunks: &[Chunk], batch, context| {
        h100.step(&StepShape {
            prefill: chunks,
            decode_batch: batch,
            decode_context: context,
        })
    };
    let mut last = Span::ZERO;
    for batch in [1, 2, 8, 64, 256, 1_024, 1_025, 4_096] {
        let time = step(&[], batch, 1_000 * u64::from(batch));
        assert!(time > last, "batch {batch}");
        last = time;
    }
    let chunk = |new_tokens, cached_tokens| {
        [Chunk {
            new_tokens,
            cached_tokens,
        }]
    };
    assert!(step(&chunk(512, 0), 0, 0) < step(&chunk(1_024, 0), 0, 0));
    assert!(step(&chunk(1_024, 0), 0, 0) < step(&chunk(1_024, 30_000), 0, 0));
    assert!(step(&chunk(1_024, 0), 0, 0) < step(&chunk(1_024, 0), 8, 8_000));
    let h200 = roofline("Qwen/Qwen3-32B", "h200_sxm", 2);
    assert!(h200.decode(8, 8_000).time(8_000) < h100.decode(8, 8_000).time(8_000));
    let wider = roofline("Qwen/Qwen3-32B", "h100_sxm", 4);
    assert!(wider.decode(8, 8_000).time(8_000) < h100.decode(8, 8_000).time(8_000));
    let fp8 = roofline("Qwen/Qwen3-32B-FP8", "h100_sxm", 2);
    assert!(fp8.decode(8, 8_000).time(8_000) < h100.decode(8, 8_000).time(8_000));
}

#[test]
fn guesses_are_listed() {
    let source = roofline("Qwen/Qwen3-8B-FP8", "a100_pcie", 2).source();
    assert_eq!(source.basis, Basis::Estimated);
    let guesses = source.guesses.join("\n");
    for part in [
        "roofline estimates",
        "host overhead",
        "assumed for a100_pcie",
        "over PCIe",
        "no fp8 units",
    ] {
        assert!(guesses.contains(part), "{guesses}");
    }
}

#[test]
fn bad_input_is_reported_at_once() {
    let model = Model::find("Qwen/Qwen2.5-7B").expect("embedded");
    let gpu = Gpu::find("h100_sxm").expect("known");
    let spec = RooflineSpec {
        gemm_bf16_efficiency: f64::NAN,
        link_efficiency: 0.0,
        kernel_us: -1.0,
        step_overhead_us: f64::INFINITY,
        ..RooflineSpec::default()
    };
    let deployment = Deployment {
        model: &model,
        gpu,
        tensor_parallel: 16,
        expert_parallel: 1,
        kv_cache: Precision::Fp8,
    };
    let error = Roofline::new(spec, deployment).expect_err("six mistakes");
    assert_eq!(error.problems().len(), 6, "{error}");
    assert!(
        error
            .to_string()
            .contains("must divide the 28 attention heads"),
        "{error}"
    );
}

/// A model whose decode attention turns compute-bound: many query heads per KV head, few bytes per KV number.
fn arithmetic_bound() -> Roofline {
    let model = Model {
        kv_heads: 1,
        ..Model::find("Qwen/Qwen3-32B").expect("embedded")
    };
    // A tenth of the arithmetic of an H20 at the same bandwidth.
    let mut gpu = *Gpu::find("h20_sxm").expect("known");
    gpu.bf16_flops.value /= 10.0;
    let deployment = Deployment {
        model: &model,
        gpu: &gpu,
        tensor_parallel: 1,
        expert_parallel: 1,
        kv_cache: Precision::Fp8,
    };
    Roofline::new(RooflineSpec::default(), deployment).expect("legal")
}

#[test]
fn latent_attention_reads_one_vector_per_token() {
    // DeepSeek-V3 on 8 x H100: 61 layers x 576 numbers x 2 bytes / 3.35 TB/s = 20,977 ps a token, on every GPU alike.
    let model = Model::find("deepseek-ai/DeepSeek-V3").expect("embedded");
    let deployment = Deployment {
        model: &model,
        gpu: Gpu::find("h100_sxm").expect("known"),
        tensor_parallel: 8,
        expert_parallel: 8,
        kv_cache: Precision::Bf16,
    };
    let ideal = Roofline::new(ideal(), deployment).expect("legal");
    assert_eq!(ideal.decode(1, 1).slope_ps, 20_977);
    // A prompt chunk expands its context: the second half of 8,192 tokens costs more than the first one.
    let chunk = |new_tokens, cached_tokens| {
        let chunk = [Chunk {
            new_tokens,
            cached_tokens,
        }];
        ideal.seconds(&StepShape {
            prefill: &chunk,
            decode_batch: 0,
            decode_context: 0,
        })
    };
    assert!(chunk(4_096, 4_096) > chunk(4_096, 0));
    assert!(chunk(4_096, 4_096) + chunk(4_096, 0) > chunk(8_192, 0));
}

#[test]
fn windows_flatten_decode_and_shorten_prefill() {
    let model = Model::find("openai/gpt-oss-120b").expect("embedded");
    let all_layers = Model {
        window: None,
        ..model.clone()
    };
    let priced = |model: &Model| {
        let deployment = Deployment {
            model,
            gpu: Gpu::find("h200_sxm").expect("known"),
            tensor_parallel: 1,
            expert_parallel: 1,
            kv_cache: Precision::Bf16,
        };
        Roofline::new(ideal(), deployment).expect("legal")
    };
    let (windowed, full) = (priced(&model), priced(&all_layers));
    // Four sequences of 128 tokens each fill their windows; from there on half of the layers read no more.
    let first = windowed.decode(4, 511);
    assert_eq!(first, full.decode(4, 511).until_at(512));
    let second = windowed.decode(4, 512);
    assert_eq!((second.from, second.slope_ps), (512, first.slope_ps / 2));
    assert_eq!(second.at.0, first.at.0 + 512 * first.slope_ps as u64);

    let chunk = |timing: &Roofline, new_tokens, cached_tokens| {
        let chunk = [Chunk {
            new_tokens,
            cached_tokens,
        }];
        let shape = StepShape {
            prefill: &chunk,
            decode_batch: 0,
            decode_context: 0,
        };
        timing.seconds(&shape)
    };
    assert!((chunk(&windowed, 128, 0) / chunk(&full, 128, 0) - 1.0).abs() < 1e-12);
    assert!(chunk(&windowed, 8_192, 0) < chunk(&full, 8_192, 0));
    // The windowed half of the layers costs the same whatever lies before.
    let grows = |timing: &Roofline| chunk(timing, 2_048, 60_000) - chunk(timing, 2_048, 30_000);
    assert!((grows(&windowed) / grows(&full) - 0.5).abs() < 1e-9);
}

/// The same piece cut at a context.
trait Cut {
    fn until_at(self, until: u64) -> Self;
}

impl Cut for engine::Piece {
    fn until_at(self, until: u64) -> Self {
        engine::Piece { until, ..self }
    }
}

#[test]
fn four_bit_experts_decode_faster_than_sixteen_bit_ones() {
    let model = Model::find("openai/gpt-oss-20b").expect("embedded");
    let mut wide = model.clone();
    if let Some(experts) = &mut wide.experts {
        experts.storage = crate::model::ExpertStorage::AsProjections;
    }
    let at = |model: &Model| {
        let deployment = Deployment {
            model,
            gpu: Gpu::find("h100_sxm").expect("known"),
            tensor_parallel: 1,
            expert_parallel: 1,
            kv_cache: Precision::Bf16,
        };
        let roofline = Roofline::new(RooflineSpec::default(), deployment).expect("legal");
        roofline.decode(64, 64_000).time(64_000).as_ms()
    };
    let source = roofline("openai/gpt-oss-20b", "h100_sxm", 2).source();
    let storage = "(bf16 weights with mxfp4 experts, bf16 KV cache)";
    assert!(source.detail.contains(storage), "{}", source.detail);
    assert!(
        at(&model) < 0.6 * at(&wide),
        "{} and {}",
        at(&model),
        at(&wide)
    );
}

proptest! {
    #[test]
    fn pieces_agree_with_the_evaluator_and_sum_in_closed_form(
        pick in 0usize..8, batch in 1u32..2_000, per in 1u64..100_000, k in 1u64..1_000,
    ) {
        let timing = match pick {
            0 => roofline("meta-llama/Llama-3.1-8B", "h100_sxm", 1),
            1 => roofline("meta-llama/Llama-3.1-70B", "b300_sxm", 8),
            2 => roofline("Qwen/Qwen2.5-0.5B-Instruct", "b300_sxm", 2),
            3 => roofline("Qwen/Qwen3-8B-FP8", "a100_pcie", 4),
            4 => roofline("deepseek-ai/DeepSeek-V3", "h20_sxm", 8),
            5 => roofline("openai/gpt-oss-120b", "h100_sxm", 2),
            6 => roofline("Qwen/Qwen3-235B-A22B-FP8", "h200_sxm", 4),
            _ => arithmetic_bound(),
        };
        let shape = |context| StepShape { prefill: &[], decode_batch: batch, decode_context: context };
        let grow = u64::from(batch);
        let first = per * grow;
        let exact = timing.seconds(&shape(first));
        let found = timing.decode(batch, first).time(first).as_s();
        prop_assert!((found / exact - 1.0).abs() < 1e-3, "{found} s, evaluator {exact} s");

        let stepped: Span = (0..k).map(|i| timing.step(&shape(first + i * grow))).sum();
        let (mut context, mut left, mut total) = (first, k, 0i64);
        while left > 0 {
            let piece = timing.decode(batch, context);
            let steps = left.min((piece.until - context).div_ceil(grow));
            total += piece.time(context).0 as i64 * steps as i64
                + piece.slope_ps * (grow * (steps * (steps - 1) / 2)) as i64;
            context += steps * grow;
            left -= steps;
        }
        prop_assert_eq!(stepped, Span(total as u64));
    }
}

#[test]
fn ranks_share_experts_over_the_tokens_of_all() {
    let model = Model::find("Qwen/Qwen3-235B-A22B").expect("embedded");
    let deployment = |tensor_parallel, expert_parallel| Deployment {
        model: &model,
        gpu: Gpu::find("h200_sxm").expect("known"),
        tensor_parallel,
        expert_parallel,
        kv_cache: Precision::Bf16,
    };
    let spec = RooflineSpec::default();
    let rank = Roofline::of_ranks(spec, deployment(2, 8), 4).expect("four ranks of two");
    let alone = Roofline::new(spec, deployment(2, 1)).expect("a worker of two");
    let decode = StepShape {
        prefill: &[],
        decode_batch: 16,
        decode_context: 16_000,
    };
    // A rank's own part lacks the experts; those of all are more than its share, and grow with the tokens of all.
    let (own, whole) = (rank.step(&decode), alone.step(&decode));
    assert!(own < whole, "{own:?} of {whole:?}");
    let [few, many, lots] = [64, 640, 6_400].map(|tokens| rank.together(tokens).0);
    assert!(few > 0 && few < many && many < lots);
    assert!(lots < 100 * few, "weights of experts are read once");
    assert_eq!(alone.together(64), Span::ZERO);
    // Wider exchange, same experts in all: two ranks of four take the tokens of all as long as four of two.
    let wide = Roofline::of_ranks(spec, deployment(4, 8), 2).expect("two ranks of four");
    assert_eq!(wide.together(640), rank.together(640));
    let dense = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
    let dense = Deployment {
        model: &dense,
        ..deployment(1, 1)
    };
    let error = Roofline::of_ranks(spec, dense, 2).expect_err("no experts");
    assert!(error.to_string().contains("no experts to share"), "{error}");
}
