//! The public Mooncake conversation trace (12,031 requests) against the values that the reference simulator
//! (dynamo-mocker 1.6.1) gives for it. Skipped where the trace is not beside the repository.

use std::path::Path;
use std::sync::Arc;

use engine::Workload;
use engine::vllm::VllmConfig;
use sim::{
    ClusterSpec, LoadSpec, Outcome, PoolSpec, Recording, Rejection, RouterSpec, Summary, summarize,
};
use traces::ReadOptions;

use crate::cases::polynomial;
use crate::fast::Case;

const TRACE: &str = "../shared/data/traces/mooncake_conversation_trace.jsonl";

fn workload() -> Option<Arc<Workload>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TRACE);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    let loaded = traces::read(&path, &ReadOptions::default()).expect("the public trace is fine");
    Some(Arc::new(loaded.trace.workload()))
}

/// Eight workers, round robin.
fn run(workload: Arc<Workload>, block_size: u32, num_gpu_blocks: u32) -> (Recording, Summary) {
    let engine = VllmConfig {
        block_size,
        num_gpu_blocks,
        async_scheduling: false,
        ..VllmConfig::default()
    };
    let case = Case {
        kvbm: Vec::new(),
        taints: Vec::new(),
        hosts: Vec::new(),
        adversity: sim::AdversitySpec::default(),
        scaling: None,
        workload,
        timing: vec![polynomial(&engine.clone().into())],
        spec: ClusterSpec {
            pools: vec![PoolSpec {
                name: "all".to_owned(),
                workers: 8,
                gpus_per_worker: 1,
                engine: engine.into(),
            }],
            router: RouterSpec::RoundRobin,
            load: LoadSpec::default(),
            frontend: sim::FrontendSpec::default(),
            seed: 1,
            coasting: true,
            disaggregation: None,
            track_block_ids: false,
        },
    };
    let recording = case.run();
    let summary = summarize(&recording, &["all".to_owned()], None);
    (recording, summary)
}

#[test]
fn latencies_and_reuse_are_those_of_the_reference() {
    let Some(workload) = workload() else { return };
    let (_, summary) = run(workload, 512, 2048);
    let (ttft, itl) = (summary.latency.ttft_ms.mean, summary.latency.itl_ms.mean);
    let reuse = summary.prefix.first_admission_share;
    println!("TTFT {ttft:.2} ms, ITL {itl:.4} ms, reuse {reuse:.4}");
    assert_eq!(summary.requests.completed, 12_031);
    assert!((ttft / 321.0 - 1.0).abs() < 0.01, "TTFT {ttft} ms");
    assert!((itl / 7.59 - 1.0).abs() < 0.01, "ITL {itl} ms");
    assert!((reuse - 0.082).abs() < 0.002, "reuse {reuse}");
}

#[test]
fn what_never_fits_is_refused_and_nothing_else() {
    let Some(workload) = workload() else { return };
    // 1,024 blocks of 64 tokens: 254 prompts are longer than 65,536 tokens, 3 become so with their answers.
    let (recording, summary) = run(workload, 64, 1_025);
    let refused = |reason| {
        let requests = recording.requests.iter();
        let refused = requests.filter(|life| life.outcome == Outcome::Rejected(reason));
        refused.count()
    };
    assert_eq!(refused(Rejection::PromptExceedsKvCache), 254);
    assert_eq!(refused(Rejection::OutputExceedsKvCache), 3);
    assert_eq!(
        (summary.requests.rejected, summary.requests.unfinished),
        (257, 0)
    );
}
