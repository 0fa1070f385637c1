//! The CUDA kernels on a CPU: each against a few obvious lines, and all of them, in the executor's order and with its
//! arrays, against the CPU executor. Needs a C++ compiler (`c++`), and says so where there is none.
#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use engine::executor::Row;
use engine::{Batch, Contents, Executor, RequestId, Run, WorkloadBuilder};
use executor::cuda::layout::Layout;
use executor::{CpuExecutor, CpuSettings, Model, ModelConfig, Tokens, WeightSource};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

const SEED: u64 = 11;
/// Queries and keys normed; three heads share keys.
const QWEN3: &str = r#"{"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "vocab_size": 211, "rope_theta": 1000.0}"#;
/// Biases, tied embeddings.
const QWEN2: &str = r#"{"model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2,
    "num_key_value_heads": 2, "intermediate_size": 72, "vocab_size": 97, "tie_word_embeddings": true}"#;

/// A program of `kernels/host`, compiled for a shape; `None` without a compiler.
fn program(folder: &Path, name: &str, shape: [usize; 3]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("kernels/host/{name}.cc"));
    let program = folder.join(name);
    let [head_dim, block_size, group] = shape;
    let output = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w"])
        .arg(format!("-DHEAD_DIM={head_dim}"))
        .arg(format!("-DBLOCK_SIZE={block_size}"))
        .arg(format!("-DGROUP={group}"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: no C++ compiler to run the CUDA kernels on the CPU (c++: {error})");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(program)
}

#[test]
fn every_kernel_agrees_with_a_few_obvious_lines() {
    // Blocks of one token; a head that does not fill a warp; more than eight heads that share keys.
    for shape in [[16, 1, 3], [32, 16, 10]] {
        let folder = tempfile::tempdir().unwrap();
        let Some(program) = program(folder.path(), "check", shape) else {
            return;
        };
        let output = Command::new(program).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }
}

fn row(request: u32, span: (u32, u32), samples: bool, blocks: &[u32]) -> Row {
    Row {
        request: RequestId(request),
        new_tokens: span.1,
        computed_before: span.0,
        samples,
        blocks: blocks.to_vec(),
    }
}

/// Chunks, a hit on blocks of the same pass and of an earlier one, decodes beside prefills, decodes alone.
fn batches() -> Vec<Batch> {
    let [first, second]: [&[u32]; 2] = [&[7, 2, 19, 4, 30, 11, 1, 25, 14, 9], &[3, 28, 5]];
    // Request 2 begins with the first 32 tokens of request 0; request 3 with 16.
    let (third, fourth) = ([7, 2, 21, 8], [7, 17]);
    let steps = [
        vec![
            row(0, (0, 100), false, first),
            row(1, (0, 20), true, second),
            row(2, (32, 9), true, &third),
        ],
        vec![
            row(1, (20, 1), true, second),
            row(0, (100, 40), true, first),
            row(2, (41, 1), true, &third),
        ],
        vec![
            row(3, (16, 1), true, &fourth),
            row(1, (21, 1), true, second),
        ],
        vec![
            row(0, (140, 1), true, first),
            row(1, (22, 1), true, second),
            row(2, (42, 1), true, &third),
        ],
    ];
    steps.map(|rows| Batch { rows }).into()
}

fn prompts() -> Contents {
    let run = |first, len| Run { first, len };
    let shared = WorkloadBuilder::block_token(5, 0);
    let mut contents = Contents::new();
    contents.push(&[
        run(shared, 32),
        run(WorkloadBuilder::private_token(0, 0), 108),
    ]);
    contents.push(&[run(WorkloadBuilder::private_token(1, 0), 20)]);
    contents.push(&[
        run(shared, 32),
        run(WorkloadBuilder::private_token(2, 0), 9),
    ]);
    contents.push(&[
        run(shared, 16),
        run(WorkloadBuilder::private_token(3, 0), 1),
    ]);
    contents
}

/// What `forward.cc` reads of a model.
fn description(config: &ModelConfig, blocks: u32, positions: u32) -> String {
    let mut text = format!(
        "{} {} {} {} {} {} {} {} {} {SEED} {blocks} {positions}\n",
        config.layers,
        config.hidden,
        config.kv_heads,
        config.intermediate,
        config.vocab,
        u8::from(config.is_tied),
        u8::from(config.has_qkv_bias),
        u8::from(config.has_qk_norm),
        config.norm_epsilon,
    );
    let half = config.head_dim / 2;
    for position in 0..positions {
        for at in 0..config.head_dim {
            let power = -((at % half) as f64) / half as f64;
            let angle = f64::from(position) * config.rope.theta.powf(power);
            let turn = if at < half { angle.cos() } else { angle.sin() };
            write!(text, "{turn:.9e} ").unwrap();
        }
    }
    text
}

fn spread(numbers: &[f32]) -> f32 {
    let mean = numbers.iter().sum::<f32>() / numbers.len() as f32;
    let squares = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>();
    (squares / numbers.len() as f32).sqrt()
}

#[test]
fn the_forward_pass_agrees_with_the_cpu_executor() {
    for (text, splits) in [(QWEN3, 3), (QWEN2, 1)] {
        let config = ModelConfig::parse("config.json", text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let group = config.heads / config.kv_heads;
        let Some(program) = program(folder.path(), "forward", [config.head_dim, 16, group]) else {
            return;
        };
        let model = Arc::new(Model::new(config.clone(), &WeightSource::Generated(SEED)).unwrap());
        let tokens = Arc::new(Tokens::new(prompts(), config.vocab, 3));
        let settings = CpuSettings {
            num_gpu_blocks: 32,
            block_size: 16,
            threads: 1,
        };
        let mut cpu = CpuExecutor::new(model, tokens.clone(), settings).unwrap();
        let mut input = description(&config, 32, 160);
        let mut expected = Vec::new();
        for batch in batches() {
            let mut inputs = Vec::new();
            for row in &batch.rows {
                tokens.append_inputs(row, &mut inputs).unwrap();
            }
            let exact = Layout::of(&batch, 16);
            let layout = exact.padded().unwrap_or(exact);
            let mut words = vec![0; layout.words()];
            layout.write(&batch, &inputs, 16, &mut words);
            let Layout {
                tokens,
                rows,
                decodes,
                tiles,
                samples,
                max_blocks,
            } = layout;
            writeln!(
                input,
                "\n{tokens} {rows} {decodes} {tiles} {samples} {max_blocks} {splits}"
            )
            .unwrap();
            words
                .iter()
                .for_each(|word| write!(input, "{word} ").unwrap());
            let mut logits = cpu.logits(&batch).unwrap();
            // Padding samples, too; what, does not matter.
            logits.resize(samples as usize, Vec::new());
            expected.extend(logits);
            cpu.run(&batch).unwrap();
        }
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.into_iter().zip(&expected).enumerate() {
            let found: Vec<f32> = found
                .split_whitespace()
                .map(|word| word.parse().unwrap())
                .collect();
            if expected.is_empty() {
                continue;
            }
            let (token, found) = found.split_last().unwrap();
            let differences: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
            let worst = differences
                .iter()
                .fold(0.0_f32, |worst, x| worst.max(x.abs()));
            // bf16 has 8 bits: rounding at some twenty places adds up to a percent or two.
            assert!(
                worst < 0.1 * spread(expected),
                "row {at}: {worst} of {}",
                spread(expected)
            );
            let best = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let chosen = expected[*token as usize];
            assert!(
                best - chosen <= 2.0 * worst,
                "row {at}: token {token} has {chosen} of {best}"
            );
        }
    }
}
