//! `cuda-check`: is the CUDA executor right, and how far is it from what the GPU could do? For `executor/gpu/check.sh`.
//!
//! ```text
//! cuda-check probe             the GPU as one JSON object
//! cuda-check compare           logits and tokens against the CPU executor; exit code 1 if they are apart
//! cuda-check time CONFIG.json  times of steps and kernels beside their floors, as CSV
//! ```
//!
//! Floors are those of an H200: 989 TFLOP/s in bf16 and 4.8 TB/s (datasheet). A time below its floor is a mistake of the
//! measurement, and an error.

use engine::executor::Row;
use engine::{Batch, Chunk, Executor, RequestId};
use executor::cuda::{CudaExecutor, CudaSettings, probe};
use executor::sweep::{Limits, Point};
use executor::{CpuExecutor, CpuSettings, Model, ModelConfig, Tokens, WeightSource};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

const BLOCK_SIZE: u32 = 16;
const PEAK_FLOPS: f64 = 989e12;
const PEAK_BYTES: f64 = 4.8e12;

/// Small models of each family, and two layers of real shape.
const MODELS: [(&str, &str); 4] = [
    (
        "small qwen3",
        r#"{"model_type": "qwen3", "num_hidden_layers": 3, "hidden_size": 256, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 384, "vocab_size": 1024}"#,
    ),
    (
        "small qwen2",
        r#"{"model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 256, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 512, "vocab_size": 1000, "tie_word_embeddings": true}"#,
    ),
    (
        "two layers of Llama-3.1-8B",
        r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 4096, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 8192, "rope_theta": 500000.0}"#,
    ),
    (
        "two layers of Qwen3-32B",
        r#"{"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 5120, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 25600, "vocab_size": 8192}"#,
    ),
];

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (done, code) = match words[..] {
        ["probe"] => (show_device(), 2),
        ["compare"] => (compare(), 1),
        ["time", config] => (time(Path::new(config)), 1),
        _ => (
            Err("expected probe, compare or time CONFIG.json".to_owned()),
            2,
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cuda-check: {error}");
            ExitCode::from(code)
        }
    }
}

fn show_device() -> Outcome {
    let device = probe(0).map_err(|failure| failure.to_string())?;
    let (major, minor) = device.capability;
    println!(
        "{}",
        serde_json::json!({
            "name": device.name,
            "capability": format!("{major}.{minor}"),
            "memory_bytes": device.memory,
            "driver_cuda": device.driver,
            "devices": device.count,
        })
    );
    Ok(())
}

/// Two hundred tokens in two chunks beside a short prompt that shares its first block, then decodes.
fn steps() -> Vec<Batch> {
    let blocks = |from: u32| (from..from + 20).map(|at| at * 7 % 61 + 1).collect();
    let row = |request, computed_before, new_tokens, samples, blocks| Row {
        request: RequestId(request),
        new_tokens,
        computed_before,
        samples,
        blocks,
    };
    let (long, short): (Vec<u32>, Vec<u32>) = (blocks(0), blocks(30));
    let mut steps = vec![
        vec![
            row(0, 0, 150, false, long.clone()),
            row(1, 0, 37, true, short.clone()),
        ],
        vec![
            row(1, 37, 1, true, short.clone()),
            row(0, 150, 50, true, long.clone()),
        ],
    ];
    for step in 0..6 {
        let one = row(0, 200 + step, 1, true, long.clone());
        steps.push(vec![one, row(1, 38 + step, 1, true, short.clone())]);
    }
    steps.into_iter().map(|rows| Batch { rows }).collect()
}

fn contents() -> engine::Contents {
    let private = |owner, len| engine::Run {
        first: engine::WorkloadBuilder::private_token(owner, 0),
        len,
    };
    let mut contents = engine::Contents::new();
    contents.push(&[private(0, 200)]);
    contents.push(&[private(1, 37)]);
    contents
}

/// The CPU leads: its tokens are what both go on with. The GPU's logits must be near the CPU's, and the token it would
/// take must be one that is nearly the CPU's best.
fn compare() -> Outcome {
    let mut apart = Vec::new();
    for (name, text) in MODELS {
        let config = ModelConfig::parse(name, text).map_err(|error| error.to_string())?;
        let source = WeightSource::Generated(11);
        let tokens = Arc::new(Tokens::new(contents(), config.vocab, 3));
        let settings = settings(64, 256, 8, 512);
        let mut gpu = CudaExecutor::new(&config, &source, tokens.clone(), settings)
            .map_err(|error| error.to_string())?;
        let model = Model::new(config, &source).map_err(|error| error.to_string())?;
        let settings = CpuSettings {
            num_gpu_blocks: 64,
            block_size: BLOCK_SIZE,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let mut cpu = CpuExecutor::new(Arc::new(model), tokens, settings)
            .map_err(|error| error.to_string())?;
        let (mut worst, mut same, mut all) = (0.0_f32, 0, 0);
        for batch in steps() {
            // Twice, so that decode batches run as graphs, too.
            gpu.logits(&batch).map_err(|error| error.to_string())?;
            let found = gpu.logits(&batch).map_err(|error| error.to_string())?;
            let expected = cpu.logits(&batch).map_err(|error| error.to_string())?;
            cpu.run(&batch).map_err(|error| error.to_string())?;
            for (found, expected) in found.iter().zip(&expected) {
                worst = worst.max(distance(found, expected));
                same += usize::from(greatest(found) == greatest(expected));
                all += 1;
            }
        }
        println!(
            "{name}: logits within {:.2} % of their spread, {same} of {all} tokens the same",
            100.0 * worst
        );
        // As far as bf16 goes over two or three layers; NaN is apart, too.
        if worst.is_nan() || worst > 0.1 {
            apart.push(name);
        }
    }
    match apart.is_empty() {
        true => Ok(()),
        false => Err(format!("apart from the CPU executor: {}", apart.join(", "))),
    }
}

/// Greatest difference over the standard deviation of the expected.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let count = expected.len() as f32;
    let mean = expected.iter().sum::<f32>() / count;
    let variance = expected.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count;
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(
        0.0,
        |worst: f32, x| if x.is_nan() { x } else { worst.max(x) },
    );
    worst / variance.sqrt()
}

fn greatest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
}

fn settings(
    num_gpu_blocks: u32,
    max_step_tokens: u32,
    max_rows: u32,
    max_positions: u32,
) -> CudaSettings {
    CudaSettings {
        device: 0,
        num_gpu_blocks,
        block_size: BLOCK_SIZE,
        max_step_tokens,
        max_rows,
        max_positions,
        has_graphs: true,
    }
}

/// What a step must do at least: floating-point operations and bytes, by kind of work.
struct Least {
    name: &'static str,
    flops: f64,
    bytes: f64,
}

fn least(model: &ModelConfig, point: &Point) -> Vec<Least> {
    let new: u64 = point
        .prefill
        .iter()
        .map(|chunk| u64::from(chunk.new_tokens))
        .sum();
    let (rows, decodes) = (
        new as f64 + point.decode.len() as f64,
        point.decode.len() as f64,
    );
    let layers = model.layers as f64;
    let q = (model.heads * model.head_dim) as f64;
    let head = (model.vocab * model.hidden) as f64;
    let all = model.parameters() as f64;
    let linear = all - head * if model.is_tied { 1.0 } else { 2.0 };
    let kv = 2.0 * model.kv_width() as f64 * 2.0 * layers;
    let pairs = |chunk: &Chunk| {
        let (new, before) = (f64::from(chunk.new_tokens), f64::from(chunk.cached_tokens));
        new * before + new * (new + 1.0) / 2.0
    };
    let seen: f64 = point.prefill.iter().map(pairs).sum();
    let prefixes: f64 = point
        .prefill
        .iter()
        .map(|chunk| f64::from(chunk.new_tokens + chunk.cached_tokens))
        .sum();
    let context = point.decode_context() as f64;
    let samples = decodes + point.prefill.len() as f64;
    vec![
        Least {
            name: "products",
            flops: 2.0 * rows * linear,
            bytes: 2.0 * linear,
        },
        Least {
            name: "head",
            flops: 2.0 * samples * head,
            bytes: 2.0 * head,
        },
        Least {
            name: "decode attention",
            flops: 4.0 * context * q * layers,
            bytes: context * kv,
        },
        Least {
            name: "prefill attention",
            flops: 4.0 * seen * q * layers,
            bytes: prefixes * kv,
        },
    ]
}

fn points() -> Vec<Point> {
    let decode = |batch: usize, context| Point {
        kind: "decode",
        prefill: Vec::new(),
        decode: vec![context; batch],
    };
    let prefill = |new_tokens, cached_tokens| Point {
        kind: "prefill",
        prefill: vec![Chunk {
            new_tokens,
            cached_tokens,
        }],
        decode: Vec::new(),
    };
    let mut points: Vec<Point> = [1, 8, 32, 64, 128, 256]
        .map(|batch| decode(batch, 1024))
        .into();
    points
        .extend([(1, 8192), (32, 2048), (64, 4096)].map(|(batch, context)| decode(batch, context)));
    points.extend(
        [(512, 0), (2048, 0), (8192, 0), (2048, 8192)].map(|(new, before)| prefill(new, before)),
    );
    points
}

fn time(path: &Path) -> Outcome {
    let config = ModelConfig::read(path).map_err(|error| error.to_string())?;
    let device = probe(0).map_err(|failure| failure.to_string())?;
    let block_bytes = config.kv_bytes_per_token() / 2 * u64::from(BLOCK_SIZE);
    let left = (device.memory * 9 / 10).saturating_sub(2 * config.parameters() + (6 << 30));
    let blocks = u32::try_from(left / block_bytes)
        .unwrap_or(u32::MAX)
        .min(20_000);
    let limits = Limits {
        step_tokens: 8192,
        sequences: 256,
        longest: 12_288,
        blocks: blocks.saturating_sub(1),
        block_size: BLOCK_SIZE,
    };
    let tokens = Arc::new(Tokens::new(limits.contents(), config.vocab, 1));
    let settings = settings(blocks, limits.step_tokens, limits.sequences, limits.longest);
    let mut gpu = CudaExecutor::new(&config, &WeightSource::Generated(1), tokens, settings)
        .map_err(|error| error.to_string())?;
    gpu.fill_kv().map_err(|error| error.to_string())?;
    println!("kind,sequences,new_tokens,context,work,ms,floor_ms,ratio,tflops,tb_per_s");
    let mut too_fast = Vec::new();
    for point in points() {
        let needed = point
            .decode
            .iter()
            .map(|context| context.div_ceil(BLOCK_SIZE))
            .sum::<u32>();
        if needed > limits.blocks {
            continue;
        }
        let batch = point.batch(&limits, &limits.scattered_blocks(1));
        let mut rows = ops(&mut gpu, &config, &point, &batch)?;
        let least = least(&config, &point);
        let floors = least
            .iter()
            .map(|one| floor_ms(one.flops, one.bytes))
            .sum::<f64>();
        for (name, has_graphs) in [("step", true), ("step without graphs", false)] {
            gpu.use_graphs(has_graphs);
            rows.push((
                name.to_owned(),
                step_ms(&mut gpu, &batch)?,
                floors,
                0.0,
                0.0,
            ));
        }
        gpu.use_graphs(true);
        for (work, ms, floor, flops, bytes) in rows {
            let sequences = batch.rows.len();
            let new: u32 = batch.rows.iter().map(|row| row.new_tokens).sum();
            let context: u64 = batch
                .rows
                .iter()
                .map(|row| u64::from(row.computed_before + row.new_tokens))
                .sum();
            let (rate, stream) = (flops / ms / 1e9, bytes / ms / 1e9);
            let ratio = ms / floor.max(1e-9);
            let kind = point.kind;
            println!(
                "{kind},{sequences},{new},{context},{work},{ms:.4},{floor:.4},{ratio:.2},{rate:.1},{stream:.3}"
            );
            if ms < floor {
                too_fast.push(format!("{kind} of {sequences}, {work}"));
            }
        }
    }
    copies(&mut gpu, blocks, block_bytes)?;
    match too_fast.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "faster than an H200 can be: {}",
            too_fast.join("; ")
        )),
    }
}

/// Work, milliseconds, floor, operations, bytes.
type Timed = (String, f64, f64, f64, f64);

fn ops(
    gpu: &mut CudaExecutor,
    config: &ModelConfig,
    point: &Point,
    batch: &Batch,
) -> Result<Vec<Timed>, String> {
    let least = least(config, point);
    let times = gpu.op_times(batch, 5).map_err(|error| error.to_string())?;
    let rows = times.into_iter().map(|time| {
        let known = least.iter().find(|one| one.name == time.op.name());
        let (flops, bytes) = known.map_or((0.0, 0.0), |one| (one.flops, one.bytes));
        (
            time.op.name().to_owned(),
            time.ms,
            floor_ms(flops, bytes),
            flops,
            bytes,
        )
    });
    Ok(rows.collect())
}

fn floor_ms(flops: f64, bytes: f64) -> f64 {
    1e3 * (flops / PEAK_FLOPS).max(bytes / PEAK_BYTES)
}

/// Median of ten steps after three, from the batch in the host's memory to the tokens there.
fn step_ms(gpu: &mut CudaExecutor, batch: &Batch) -> Result<f64, String> {
    let mut times = Vec::new();
    for _ in 0..13 {
        let start = Instant::now();
        gpu.pass(batch).map_err(|error| error.to_string())?;
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    let mut counted = times.split_off(3);
    counted.sort_by(f64::total_cmp);
    Ok(counted[counted.len() / 2])
}

/// Copies of KV blocks within the pool: read and written once.
fn copies(gpu: &mut CudaExecutor, blocks: u32, block_bytes: u64) -> Outcome {
    for count in [1, 16, 256, 4096] {
        let pairs: Vec<(u32, u32)> = (0..count).map(|at| (at, blocks / 2 + at)).collect();
        if count > blocks / 2 {
            continue;
        }
        let mut least = f64::INFINITY;
        for _ in 0..5 {
            let ms = gpu.copy_blocks(&pairs).map_err(|error| error.to_string())?;
            least = least.min(f64::from(ms));
        }
        let bytes = 2.0 * f64::from(count) * block_bytes as f64;
        let floor = floor_ms(0.0, bytes);
        let stream = bytes / least / 1e9;
        println!(
            "copy,{count},0,0,KV blocks,{least:.4},{floor:.4},{:.2},0,{stream:.3}",
            least / floor
        );
    }
    Ok(())
}
