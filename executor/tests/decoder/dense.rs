//! The forward pass against a naive one: dense, in f64, no cache, no blocks, everything computed anew for every token.

use crate::common::{LLAMA, QWEN2, QWEN3, Requests, SEED, config, model};
use engine::executor::Row;
use engine::{Batch, Executor, RequestId, Run, WorkloadBuilder};
use executor::{CpuExecutor, CpuSettings, ModelConfig, Tokens, WeightSource};
use std::sync::Arc;

/// `rows × inputs` times the transpose of `outputs × inputs`.
fn linear(x: &[Vec<f64>], name: &str, outputs: usize) -> Vec<Vec<f64>> {
    let inputs = x[0].len();
    let weights = tensor(name, &[outputs, inputs]);
    let product = |x: &Vec<f64>, output: usize| -> f64 {
        (0..inputs)
            .map(|at| x[at] * weights[output * inputs + at])
            .sum()
    };
    x.iter()
        .map(|x| (0..outputs).map(|output| product(x, output)).collect())
        .collect()
}

fn tensor(name: &str, shape: &[usize]) -> Vec<f64> {
    let numbers = WeightSource::Generated(SEED).tensor(name, shape).unwrap();
    numbers.into_iter().map(f64::from).collect()
}

fn norm(x: &[f64], epsilon: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().map(|x| x / (mean + epsilon).sqrt()).collect()
}

fn rotated(head: &[f64], position: usize, config: &ModelConfig) -> Vec<f64> {
    let half = head.len() / 2;
    let angle = |pair: usize| {
        let wave = std::f64::consts::TAU * config.rope.theta.powf(pair as f64 / half as f64);
        let plain = position as f64 * std::f64::consts::TAU / wave;
        let Some(stretch) = config.rope.stretch else {
            return plain;
        };
        // 1 for short waves, 0 for long ones.
        let share = (stretch.original / wave - stretch.low) / (stretch.high - stretch.low);
        let share = share.clamp(0.0, 1.0);
        share * plain + (1.0 - share) * plain / stretch.factor
    };
    let turn = |at: usize| {
        let (pair, other) = (at % half, head[(at + half) % head.len()]);
        let sign = if at < half { -1.0 } else { 1.0 };
        head[at] * angle(pair).cos() + sign * other * angle(pair).sin()
    };
    (0..head.len()).map(turn).collect()
}

/// Logits after the last of `tokens`.
fn naive(config: &ModelConfig, tokens: &[u32]) -> Vec<f64> {
    let epsilon = f64::from(config.norm_epsilon);
    let embedding = tensor("model.embed_tokens.weight", &[config.vocab, config.hidden]);
    let row = |token: &u32| embedding[*token as usize * config.hidden..][..config.hidden].to_vec();
    let mut x: Vec<Vec<f64>> = tokens.iter().map(row).collect();
    let d = config.head_dim;
    for layer in 0..config.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed: Vec<Vec<f64>> = x.iter().map(|x| norm(x, epsilon)).collect();
        let heads = |part: &str, count: usize| -> Vec<Vec<Vec<f64>>> {
            let projection = name(&format!("self_attn.{part}_proj.weight"));
            let mut all = linear(&normed, &projection, count * d);
            if config.has_qkv_bias {
                let bias = tensor(&name(&format!("self_attn.{part}_proj.bias")), &[count * d]);
                for token in &mut all {
                    token.iter_mut().zip(&bias).for_each(|(x, bias)| *x += bias);
                }
            }
            let split = |(position, token): (usize, &Vec<f64>)| {
                let turn = |head: &[f64]| match part {
                    "v" => head.to_vec(),
                    _ if config.has_qk_norm => rotated(&norm(head, epsilon), position, config),
                    _ => rotated(head, position, config),
                };
                token.chunks(d).map(turn).collect()
            };
            all.iter().enumerate().map(split).collect()
        };
        let (q, k, v) = (
            heads("q", config.heads),
            heads("k", config.kv_heads),
            heads("v", config.kv_heads),
        );
        let mut attended = Vec::new();
        for (position, q) in q.iter().enumerate() {
            let mut token = Vec::new();
            for (head, q) in q.iter().enumerate() {
                let of = head * config.kv_heads / config.heads;
                let score = |other: usize| {
                    let dot: f64 = q.iter().zip(&k[other][of]).map(|(q, k)| q * k).sum();
                    (dot / (d as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = (0..=position).map(score).collect();
                let sum: f64 = scores.iter().sum();
                token.extend((0..d).map(|at| {
                    let terms = scores.iter().enumerate();
                    terms
                        .map(|(other, score)| score / sum * v[other][of][at])
                        .sum::<f64>()
                }));
            }
            attended.push(token);
        }
        let out = linear(&attended, &name("self_attn.o_proj.weight"), config.hidden);
        add(&mut x, &out);
        let normed: Vec<Vec<f64>> = x.iter().map(|x| norm(x, epsilon)).collect();
        let gate = linear(&normed, &name("mlp.gate_proj.weight"), config.intermediate);
        let up = linear(&normed, &name("mlp.up_proj.weight"), config.intermediate);
        let gated: Vec<Vec<f64>> = gate
            .iter()
            .zip(&up)
            .map(|(g, u)| {
                g.iter()
                    .zip(u)
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect()
            })
            .collect();
        add(
            &mut x,
            &linear(&gated, &name("mlp.down_proj.weight"), config.hidden),
        );
    }
    let last = vec![norm(x.last().unwrap(), epsilon)];
    let head = if config.is_tied {
        "model.embed_tokens.weight"
    } else {
        "lm_head.weight"
    };
    linear(&last, head, config.vocab).remove(0)
}

fn add(x: &mut [Vec<f64>], more: &[Vec<f64>]) {
    for (x, more) in x.iter_mut().zip(more) {
        x.iter_mut().zip(more).for_each(|(x, more)| *x += more);
    }
}

/// Greatest difference of two lists of logits, over the spread of the right one.
fn difference(found: &[f32], right: &[f64]) -> f64 {
    let spread = right.iter().map(|x| x * x).sum::<f64>() / right.len() as f64;
    let worst = found
        .iter()
        .zip(right)
        .map(|(a, b)| (f64::from(*a) - b).abs());
    worst.fold(0.0, f64::max) / spread.sqrt()
}

const LENGTH: u32 = 41;
const BLOCK_SIZE: u32 = 4;

fn words() -> Vec<u32> {
    (0..LENGTH).map(|at| (at * 37 + 5) % 97).collect()
}

fn worker(text: &str) -> CpuExecutor {
    let prompt: Vec<Run> = words()
        .iter()
        .map(|&word| Run {
            first: WorkloadBuilder::vocabulary_token(word),
            len: 1,
        })
        .collect();
    let mut requests = Requests::default();
    requests.push(&prompt, 5);
    let (_, contents) = requests.finish();
    let tokens = Arc::new(Tokens::new(contents, config(text).vocab, 1));
    let settings = CpuSettings {
        num_gpu_blocks: 40,
        block_size: BLOCK_SIZE,
        threads: 1,
    };
    CpuExecutor::new(model(text), tokens, settings).unwrap()
}

fn chunk(computed_before: u32, new_tokens: u32, samples: bool) -> Batch {
    // Blocks in no order at all.
    let blocks = (0..20).map(|at| 39 - at * 7 % 39).collect();
    let row = Row {
        request: RequestId(0),
        new_tokens,
        computed_before,
        samples,
        blocks,
    };
    Batch { rows: vec![row] }
}

#[test]
fn logits_are_those_of_a_naive_dense_decoder() {
    for text in [QWEN3, QWEN2, LLAMA] {
        let right = naive(&config(text), &words());
        let mut whole = worker(text);
        let found = whole.logits(&chunk(0, LENGTH, true)).unwrap();
        let error = difference(&found[0], &right);
        assert!(error < 1e-4, "{error} in {text}");

        // The same, to the bit, in chunks that end inside blocks.
        let mut in_chunks = worker(text);
        for (from, tokens) in [(0, 7), (7, 1), (8, 19), (27, 13)] {
            assert!(
                in_chunks
                    .logits(&chunk(from, tokens, false))
                    .unwrap()
                    .is_empty()
            );
        }
        assert_eq!(in_chunks.logits(&chunk(40, 1, true)).unwrap(), found);

        // A decode step on top.
        let token = whole.run(&chunk(40, 1, true)).unwrap()[0];
        let right = naive(&config(text), &[words(), vec![token]].concat());
        let found = whole.logits(&chunk(LENGTH, 1, true)).unwrap();
        let error = difference(&found[0], &right);
        assert!(error < 1e-4, "{error} in {text}");
    }
}

#[test]
fn logits_depend_on_every_part_of_the_context() {
    let right = naive(&config(QWEN3), &words());
    for changed in [0, 13, 40] {
        let mut other = words();
        other[changed] = (other[changed] + 1) % 97;
        let other: Vec<f32> = naive(&config(QWEN3), &other)
            .iter()
            .map(|x| *x as f32)
            .collect();
        assert!(difference(&other, &right) > 1e-3, "token {changed} matters");
    }
}
