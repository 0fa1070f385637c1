//! The tables that dense models do not need: experts, latent attention, NCCL.

use super::*;
use crate::tables::{AbsorbKey, Collective, ExpertKey, LatentKey, Load, NcclKey};

const MOE: &str = "data/test_gpu/moe/vllm/0.24.0/moe_perf.parquet";
const BLOCK: &str = "data/test_gpu/mla/vllm/0.24.0/mla_context_module_perf.parquet";
const KERNEL: &str = "data/test_gpu/mla/vllm/0.24.0/generation_mla_perf.parquet";
const ABSORB: &str = "data/test_gpu/mla_bmm/vllm/0.24.0/mla_bmm_perf.parquet";
const NCCL: &str = "data/test_gpu/comm/nccl/2.27.3/nccl_perf.parquet";

/// Two rows that count, one of experts without a gate, one of an unknown format.
fn moe_columns(ms: [f64; 4]) -> Vec<Column> {
    let kernels = ["triton", "triton", "flow_nongated", "triton"];
    vec![
        text("moe_dtype", &["bfloat16", "bfloat16", "bfloat16", "w2a2"]),
        text("distribution", &["power_law_1.2"; 4]),
        text("kernel_source", &kernels),
        whole("num_tokens", &[1, 4, 1, 1]),
        whole("topk", &[8; 4]),
        whole("num_experts", &[128; 4]),
        whole("hidden_size", &[2_048; 4]),
        whole("inter_size", &[768; 4]),
        whole("moe_tp_size", &[2; 4]),
        whole("moe_ep_size", &[4; 4]),
        latency(&ms),
    ]
}

fn latent_columns(ms: [f64; 2], step: i64) -> Vec<Column> {
    vec![
        text("mla_dtype", &["bfloat16"; 2]),
        text("kv_cache_dtype", &["fp8"; 2]),
        text("kernel_source", &["mla"; 2]),
        whole("num_heads", &[16; 2]),
        whole("batch_size", &[1, 2]),
        whole("isl", &[1; 2]),
        whole("step", &[step; 2]),
        latency(&ms),
    ]
}

fn absorb_columns(ms: [f64; 2]) -> Vec<Column> {
    vec![
        text("op_name", &["mla_gen_pre", "mla_gen_post"]),
        text("bmm_dtype", &["fp8"; 2]),
        whole("num_heads", &[16; 2]),
        whole("num_tokens", &[1; 2]),
        latency(&ms),
    ]
}

fn nccl_columns(ms: [f64; 2]) -> Vec<Column> {
    vec![
        text("op_name", &["all_gather"; 2]),
        text("nccl_dtype", &["half", "int8"]),
        whole("num_gpus", &[4; 2]),
        whole("message_size", &[512; 2]),
        latency(&ms),
    ]
}

fn database() -> Database {
    let database = Database::new();
    database.table(MOE, moe_columns([0.1, 0.2, 0.3, 0.4]));
    let mut block = latent_columns([0.1, 0.2], 0);
    block.push(text("gemm_type", &["fp8_block"; 2]));
    database.table(BLOCK, block);
    database.table(KERNEL, latent_columns([0.3, 0.4], 15));
    database.table(ABSORB, absorb_columns([0.01, 0.02]));
    database.table(NCCL, nccl_columns([0.05, 0.06]));
    database
}

#[test]
fn experts_latent_attention_and_nccl_are_read() {
    let profile = database().import().expect("good");
    let key = ExpertKey {
        dtype: Dtype::Bfloat16,
        top_k: 8,
        experts: 128,
        hidden: 2_048,
        intermediate: 768,
        tensor_parallel: 2,
        expert_parallel: 4,
        load: Load::PowerLaw(120),
    };
    let point = |at, ms| Point { at: [at], ms };
    let curve = profile.experts(key).expect("measured");
    assert_eq!(curve.points(), [point(1, 0.1), point(4, 0.2)]);
    let latent = |block| LatentKey {
        attention: Dtype::Bfloat16,
        kv_cache: Dtype::Fp8,
        block,
    };
    let block = profile.latent_context(latent(Some(Dtype::Fp8Block)));
    assert_eq!(block.expect("measured").points()[1].at, [16, 1, 2]);
    let kernel = profile.latent_generation(latent(None)).expect("measured");
    assert_eq!(
        kernel.points()[0].at,
        [16, 1, 16],
        "a decode at step 15 has 16 tokens"
    );
    let after = AbsorbKey {
        dtype: Dtype::Fp8,
        is_after: true,
        heads: 16,
    };
    assert_eq!(
        profile.absorb(after).expect("measured").points()[0].ms,
        0.02
    );
    let gather = NcclKey {
        collective: Collective::AllGather,
        gpus: 4,
    };
    assert_eq!(
        profile.nccl(gather).expect("measured").points(),
        [point(512, 0.05)]
    );
    let left_out = profile.provenance.files.iter().map(|file| file.left_out);
    assert_eq!(left_out.collect::<Vec<_>>(), [1, 0, 0, 1, 2, 0, 0, 0, 1]);

    let bytes = file::encode(&profile);
    let back = file::decode("test", &bytes).expect("its own");
    assert_eq!(back.experts.keys().copied().collect::<Vec<_>>(), [key]);
    assert_eq!(file::encode(&back), bytes);
}

#[test]
fn what_was_not_measured_is_named_with_the_nearest() {
    let profile = database().import().expect("good");
    let key = *profile.experts.keys().next().expect("one");
    let other = ExpertKey {
        expert_parallel: 8,
        ..key
    };
    let message = profile.experts(other).expect_err("absent").to_string();
    for part in [
        "experts of test_gpu vllm 0.24.0",
        "tp 2, ep 8",
        "tp 2, ep 4",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let dense = Database::new().import().expect("good");
    assert!(dense.experts(key).is_err() && dense.latent_context.is_empty());
}

#[test]
fn latencies_and_sizes_that_cannot_be_are_errors_with_file_and_row() {
    for bad in [f64::NAN, 0.0, -1.0] {
        let mut block = latent_columns([0.1, bad], 0);
        block.push(text("gemm_type", &["fp8_block"; 2]));
        for (path, columns) in [
            (MOE, moe_columns([0.1, bad, 0.3, 0.4])),
            (BLOCK, block),
            (KERNEL, latent_columns([0.3, bad], 15)),
            (ABSORB, absorb_columns([0.1, bad])),
            (NCCL, nccl_columns([0.1, bad])),
        ] {
            let database = database();
            database.table(path, columns);
            let message = database.refused();
            let expected = format!("{path}: row 2: latency: found {bad}");
            assert!(message.contains(&expected), "{message}");
        }
    }
    for (column, values) in [
        ("num_tokens", [1, 0, 1, 1]),
        ("topk", [8, 129, 8, 8]),
        ("moe_ep_size", [4, 256, 4, 4]),
        ("hidden_size", [2_048, 0, 2_048, 2_048]),
    ] {
        let database = database();
        let mut columns = moe_columns([0.1; 4]);
        let replaced = columns
            .iter_mut()
            .find(|other| other.name().as_str() == column)
            .expect("a column of the table");
        *replaced = whole(column, &values);
        database.table(MOE, columns);
        let message = database.refused();
        let expected = format!("{MOE}: row 2: sizes: found");
        assert!(message.contains(&expected), "{column}: {message}");
    }
}

#[test]
fn repeats_missing_columns_and_broken_files_are_errors() {
    let mut repeated = database();
    let mut columns = moe_columns([0.1, 0.2, 0.3, 0.4]);
    columns[3] = whole("num_tokens", &[1, 1, 1, 1]);
    repeated.table(MOE, columns);
    let message = repeated.refused();
    let expected = format!("{MOE}: row 2: keys: found the place and kernel of row 1 again");
    assert!(message.contains(&expected), "{message}");
    repeated.repeats = Repeats::First;
    let profile = repeated.import().expect("the first counts");
    let curve = profile.experts.values().next().expect("one");
    assert_eq!(curve.points()[0].ms, 0.1);

    for (path, columns) in [
        (MOE, moe_columns([0.1; 4])),
        (KERNEL, latent_columns([0.1; 2], 15)),
        (ABSORB, absorb_columns([0.1; 2])),
        (NCCL, nccl_columns([0.1; 2])),
    ] {
        let database = database();
        let name = columns[0].name().to_string();
        database.table(path, columns[1..].to_vec());
        let message = database.refused();
        assert!(message.contains(path), "{message}");
        let expected = format!("found no column `{name}`");
        assert!(message.contains(&expected), "{message}");
        database.put(path, b"PAR1 and nothing more");
        let message = database.refused();
        assert!(message.contains("expected a Parquet file"), "{message}");
    }
}
