//! A request's tokens are the same however it is served: alone, or among others with prefix hits, chunks, preemptions,
//! any batch, any number of threads, plans ahead or not.

use crate::common::{LLAMA, QWEN2, QWEN3, Requests, SEED, config, model, serve};
use engine::vllm::VllmConfig;
use engine::{Contents, RequestId, Run, Workload, WorkloadBuilder};
use executor::{Model, ModelConfig, Tokens, WeightSource};
use std::sync::Arc;

const REQUESTS: u32 = 12;

/// Prompts of 9 to 64 tokens: instructions that many share, an own part, for some a quote of an earlier answer.
fn workload() -> (Arc<Workload>, Contents) {
    let mut requests = Requests::default();
    for id in 0..REQUESTS {
        let instructions = Run {
            first: WorkloadBuilder::block_token(id % 2, 0),
            len: if id % 3 == 2 { 21 } else { 32 },
        };
        let own = Run {
            first: WorkloadBuilder::private_token(id, 0),
            len: 1 + 13 * (id % 4),
        };
        requests.push(&[instructions, own], 6 + 5 * (id % 5));
    }
    requests.finish()
}

/// Too few blocks for all, steps too short for a prompt.
fn tight(async_scheduling: bool) -> VllmConfig {
    VllmConfig {
        block_size: 4,
        num_gpu_blocks: 48,
        max_num_seqs: 8,
        max_num_batched_tokens: 29,
        scheduler_reserve_full_isl: false,
        async_scheduling,
        ..VllmConfig::default()
    }
}

fn tokens(contents: &Contents, model: &Model) -> Tokens {
    Tokens::new(contents.clone(), model.config().vocab, SEED)
}

/// Each request alone on a worker that has room for anything and caches nothing.
fn alone(model: &Arc<Model>) -> Vec<Vec<u32>> {
    let (workload, contents) = workload();
    let config = VllmConfig {
        enable_prefix_caching: false,
        async_scheduling: false,
        num_gpu_blocks: 64,
        ..VllmConfig::default()
    };
    let answer = |id: u32| {
        let tokens = tokens(&contents, model);
        let (mut answers, seen) = serve(model, &config, &workload, tokens, &[(0, id)], 1);
        assert_eq!(
            (seen.largest_batch, seen.hit_tokens, seen.chunks),
            (1, 0, 0)
        );
        answers.swap_remove(id as usize)
    };
    (0..REQUESTS).map(answer).collect()
}

#[test]
fn tokens_do_not_depend_on_how_a_request_is_served() {
    for text in [QWEN3, QWEN2, LLAMA] {
        let model = model(text);
        let right = alone(&model);
        let (workload, contents) = workload();
        for (id, answer) in right.iter().enumerate() {
            let asked = workload.requests[id].output_tokens;
            assert_eq!(answer.len(), asked as usize);
        }
        assert!(
            right[0] != right[5],
            "answers differ, or the test shows nothing"
        );
        let at_once: Vec<(usize, u32)> = (0..REQUESTS).map(|id| (0, id)).collect();
        let one_by_one: Vec<(usize, u32)> = (0..REQUESTS)
            .map(|id| (3 * id as usize, REQUESTS - 1 - id))
            .collect();
        for (submissions, is_async, threads) in [
            (&at_once, false, 1),
            (&at_once, true, 2),
            (&one_by_one, true, 1),
            (&one_by_one, false, 3),
        ] {
            let tokens = tokens(&contents, &model);
            let config = tight(is_async);
            let (answers, seen) = serve(&model, &config, &workload, tokens, submissions, threads);
            assert_eq!(answers, right, "async {is_async}, {seen:?}, {text}");
            assert!(seen.hit_tokens > 60 && seen.chunks > 5, "{seen:?}");
            assert!(seen.largest_batch > 3 && seen.preemptions > 0, "{seen:?}");
        }
    }
}

/// A second turn that quotes the first answer hits its blocks; its tokens are as if everything were computed.
#[test]
fn quoted_answers_are_what_was_said() {
    let model = model(QWEN3);
    let answers = |enable_prefix_caching: bool| {
        let (question, more) = (
            Run {
                first: WorkloadBuilder::block_token(0, 0),
                len: 18,
            },
            Run {
                first: WorkloadBuilder::private_token(1, 0),
                len: 5,
            },
        );
        let quote = Run {
            first: WorkloadBuilder::output_token(0, 0),
            len: 14,
        };
        let mut requests = Requests::default();
        requests.push(&[question], 14);
        requests.push(&[question, quote, more], 9);
        let (workload, contents) = requests.finish();
        let config = VllmConfig {
            enable_prefix_caching,
            ..tight(true)
        };
        let tokens = tokens(&contents, &model);
        serve(&model, &config, &workload, tokens, &[(0, 0), (40, 1)], 1)
    };
    let (cached, seen) = answers(true);
    // 18 prompt tokens and 13 answers computed: seven full blocks of four.
    assert_eq!(seen.hit_tokens, 28);
    let (computed, seen) = answers(false);
    assert_eq!(seen.hit_tokens, 0);
    assert_eq!(cached, computed);
}

/// Generated weights written as Hugging Face does and read again give the same answers.
#[test]
fn weights_from_files_are_the_same_model() {
    use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
    let config = config(QWEN2);
    let shapes = |config: &ModelConfig| {
        let (h, q, kv, ffn) = (
            config.hidden,
            config.hidden,
            config.kv_width(),
            config.intermediate,
        );
        let mut shapes = vec![
            (
                "model.embed_tokens.weight".to_owned(),
                vec![config.vocab, h],
            ),
            ("model.norm.weight".to_owned(), vec![h]),
        ];
        for layer in 0..config.layers {
            for (part, shape) in [
                ("input_layernorm.weight", vec![h]),
                ("post_attention_layernorm.weight", vec![h]),
                ("self_attn.q_proj.weight", vec![q, h]),
                ("self_attn.k_proj.weight", vec![kv, h]),
                ("self_attn.v_proj.weight", vec![kv, h]),
                ("self_attn.q_proj.bias", vec![q]),
                ("self_attn.k_proj.bias", vec![kv]),
                ("self_attn.v_proj.bias", vec![kv]),
                ("self_attn.o_proj.weight", vec![h, q]),
                ("mlp.gate_proj.weight", vec![ffn, h]),
                ("mlp.up_proj.weight", vec![ffn, h]),
                ("mlp.down_proj.weight", vec![h, ffn]),
            ] {
                shapes.push((format!("model.layers.{layer}.{part}"), shape));
            }
        }
        shapes
    };
    let generated = WeightSource::Generated(SEED);
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes(&config)
        .into_iter()
        .map(|(name, shape)| {
            let numbers = generated.tensor(&name, &shape).unwrap();
            let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    // Two files, as large models have.
    for (index, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let views = part.iter().map(|(name, shape, bytes)| {
            (
                name,
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        let path = folder.path().join(format!("model-{index}.safetensors"));
        serialize_to_file(views, None, &path).unwrap();
    }
    let source = WeightSource::open(folder.path()).unwrap();
    let read = Arc::new(Model::new(config.clone(), &source).unwrap());
    let (workload, contents) = workload();
    let answer = |model: &Arc<Model>| {
        let tokens = tokens(&contents, model);
        serve(model, &tight(false), &workload, tokens, &[(0, 3)], 1).0
    };
    assert_eq!(answer(&read), answer(&model(QWEN2)));

    std::fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
    let larger = ModelConfig {
        intermediate: 57,
        ..config
    };
    let error = Model::new(larger, &WeightSource::open(folder.path()).unwrap()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("found no such tensor"), "{text}");
    assert!(
        text.contains("mlp.gate_proj.weight: found the shape [56, 32], expected [57, 32]"),
        "{text}"
    );
    assert!(WeightSource::open(&folder.path().join("none")).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert!(WeightSource::open(empty.path()).is_err());
    std::fs::write(empty.path().join("x.safetensors"), "not one").unwrap();
    assert!(
        WeightSource::open(empty.path())
            .unwrap_err()
            .to_string()
            .contains("no safetensors")
    );
}

#[test]
fn a_prompt_that_quotes_what_was_not_said_is_an_error() {
    use engine::{Batch, Executor, executor::Row};
    let model = model(LLAMA);
    let mut requests = Requests::default();
    requests.push(
        &[Run {
            first: WorkloadBuilder::output_token(0, 0),
            len: 3,
        }],
        2,
    );
    let (_, contents) = requests.finish();
    let settings = executor::CpuSettings {
        num_gpu_blocks: 4,
        block_size: 4,
        threads: 1,
    };
    let tokens = Arc::new(tokens(&contents, &model));
    let mut worker = executor::CpuExecutor::new(model, tokens, settings).unwrap();
    let row = Row {
        request: RequestId(0),
        new_tokens: 3,
        computed_before: 0,
        samples: true,
        blocks: vec![1],
    };
    let error = worker.run(&Batch { rows: vec![row] }).unwrap_err();
    assert!(error.0.contains("which is not there yet"), "{error}");
}
