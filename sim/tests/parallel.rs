//! Drafts, stages and ranks by hand: a step takes 1,000 ns and 10 ns for every token computed in it.

use engine::sglang::{SglangConfig, SglangDrafts};
use engine::trtllm::TrtllmConfig;
use engine::vllm::VllmConfig;
use engine::{
    AcceptanceMode, DraftMethod, EngineConfig, NewRequest, Run, Speculation, StepTime, Time,
    Workload, WorkloadBuilder,
};
use sim::{
    Cluster, ClusterSpec, LoadSpec, PoolSpec, Recording, RouterSpec, summarize, virtual_clock,
};
use std::sync::Arc;

/// Arrival (ns), prompt tokens, output tokens. No two prompts have anything in common.
type Arrival = (u64, u32, u32);

fn workload(arrivals: &[Arrival]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, &(arrival, len, output_tokens)) in arrivals.iter().enumerate() {
        let first = WorkloadBuilder::block_token(index as u32, 0);
        builder.push(NewRequest {
            arrival: Time::from_ns(arrival),
            prompt: &[Run { first, len }],
            output_tokens,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn vllm() -> VllmConfig {
    VllmConfig {
        block_size: 16,
        num_gpu_blocks: 101,
        async_scheduling: false,
        ..VllmConfig::default()
    }
}

fn run(engine: &VllmConfig, arrivals: &[Arrival]) -> Recording {
    run_engine(engine.clone().into(), arrivals)
}

fn run_engine(engine: EngineConfig, arrivals: &[Arrival]) -> Recording {
    let both = [true, false].map(|coasting| {
        let spec = ClusterSpec {
            pools: vec![PoolSpec {
                name: "all".to_owned(),
                workers: 1,
                gpus_per_worker: engine.ranks() * engine.stages(),
                engine: engine.clone(),
            }],
            router: RouterSpec::RoundRobin,
            load: LoadSpec::default(),
            frontend: sim::FrontendSpec::default(),
            seed: 7,
            coasting,
            disaggregation: None,
            track_block_ids: false,
        };
        let linear: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(1_000, 10, 0));
        virtual_clock::run(Cluster::new(&spec, workload(arrivals)), &[linear])
    });
    let [coasted, stepped] = both;
    assert_eq!(coasted.requests, stepped.requests);
    assert_eq!(coasted.workers, stepped.workers);
    coasted
}

/// Of each request: first token and last, in ns.
fn ends(recording: &Recording) -> Vec<(u64, u64)> {
    let ns = |time: Time| time.0 / 1_000;
    let requests = recording.requests.iter();
    requests
        .map(|request| (ns(request.first_token), ns(request.finish)))
        .collect()
}

fn drafting(acceptance_rates: &[f64]) -> VllmConfig {
    VllmConfig {
        speculation: Some(Speculation {
            method: DraftMethod::Mtp,
            num_speculative_tokens: acceptance_rates.len() as u32,
            acceptance_rates: acceptance_rates.to_vec(),
            mode: AcceptanceMode::Expected,
        }),
        ..vllm()
    }
}

#[test]
fn every_step_brings_the_token_and_the_accepted_drafts() {
    // The prompt takes 1,000 + 80 ns and brings the first of 6 tokens. Steps of 3 tokens take 1,030 ns and bring 2: 1, 3, 5 and
    // 7, of which the last is beyond the end.
    let recording = run(&drafting(&[1.0, 0.0]), &[(0, 8, 6)]);
    assert_eq!(ends(&recording), [(1_080, 1_080 + 3 * 1_030)]);
    let summary = summarize(&recording, &["all".to_owned()], None);
    let speculation = summary.speculation.expect("there were drafts");
    assert_eq!(
        (speculation.draft_tokens, speculation.accepted_tokens),
        (6, 3)
    );
    assert_eq!(
        (speculation.acceptance_rate, speculation.acceptance_length),
        (0.5, 2.0)
    );
    assert_eq!(summary.workers[0].decode_tokens, 5);
    // One gap for each step; per token 3,090 / 5.
    let (itl, tpot) = (summary.latency.itl_ms, summary.latency.tpot_ms);
    assert_eq!((itl.count, itl.mean), (3, 0.001_03));
    assert_eq!((tpot.count, tpot.mean), (1, 0.000_618));
}

#[test]
fn parts_of_a_token_are_kept_for_the_next_step() {
    // 1.5 tokens a step: 1, 2, 1, 2, 1 after the first are 8 in 5 steps of 2 tokens.
    let recording = run(&drafting(&[0.5]), &[(0, 8, 8)]);
    assert_eq!(ends(&recording), [(1_080, 1_080 + 5 * 1_020)]);
}

#[test]
fn drafts_and_the_slots_behind_them_take_blocks() {
    // Two drafts and as many slots behind them: at the last step of a prompt of 28 and 2 outputs 29 + 2 + 2 = 33 tokens have
    // slots, three blocks of 16. With one draft they are 31, two blocks.
    let peak = |rates: &[f64]| run(&drafting(rates), &[(0, 28, 2)]).workers[0].peak_blocks;
    assert_eq!(peak(&[0.5, 0.5]), 3);
    assert_eq!(peak(&[0.5]), 2);
}

#[test]
fn stages_work_on_different_batches() {
    // A stage takes 1,000 + 10 ns a token; a step of 8 tokens holds one prompt. The first passes both in 0-1,080-2,160, the
    // second in 1,080-2,160-3,240. The first's decode enters at 2,160, is through the first stage at 3,170 and waits for
    // the second prompt to leave the second, until 3,240: 4,250. The second's enters at 3,240, and ends at 5,260.
    let engine = VllmConfig {
        pipeline_parallel_size: 2,
        max_num_batched_tokens: 8,
        max_num_seqs: 8,
        ..vllm()
    };
    let recording = run(&engine, &[(0, 8, 2), (0, 8, 2)]);
    assert_eq!(ends(&recording), [(2_160, 4_250), (3_240, 5_260)]);
    // Four steps: the GPUs of a worker are busy for half of 2,160, 2,160, 2,090 and 2,020 ns on the mean.
    assert_eq!(recording.workers[0].busy.0, 4_215_000);
    assert_eq!(recording.workers[0].gpus, 2);
}

#[test]
fn a_pipeline_of_one_batch_is_no_faster_than_its_stages_together() {
    let engine = VllmConfig {
        pipeline_parallel_size: 4,
        ..vllm()
    };
    // All stages one after the other: 4 · 1,080, then 4 · 1,010 for each further token.
    assert_eq!(ends(&run(&engine, &[(0, 8, 3)])), [(4_320, 4_320 + 8_080)]);
}

#[test]
fn ranks_wait_for_the_slowest() {
    let engine = VllmConfig {
        data_parallel_size: 2,
        ..vllm()
    };
    // Prompts of 8 and 100 tokens on two ranks: the step takes 2,000 ns for both, and steps of a decode each 1,010. The third
    // request comes to the first rank at 500 ns and waits for the end of the step; its prompt of 50 takes 1,000 + 10 · 51
    // beside a decode, and the second rank waits for that.
    let recording = run(&engine, &[(0, 8, 3), (0, 100, 4), (500, 50, 1)]);
    assert_eq!(
        ends(&recording),
        [(2_000, 4_520), (2_000, 5_530), (3_510, 3_510)]
    );
    let workers: Vec<u32> = recording.requests.iter().map(|it| it.worker).collect();
    assert_eq!(workers, [0, 1, 0], "each rank is a worker to the router");
    let steps: Vec<u64> = recording.workers.iter().map(|it| it.steps).collect();
    assert_eq!(steps, [3, 4]);
    assert_eq!(recording.workers[0].gpus, 1);
}

#[test]
fn a_rank_that_is_alone_at_work_steps_alone() {
    let ranks = VllmConfig {
        data_parallel_size: 3,
        ..vllm()
    };
    let requests = [(0, 40, 200)];
    assert_eq!(
        ends(&run(&ranks, &requests)),
        ends(&run(&vllm(), &requests))
    );
}

fn chain(acceptance_rates: &[f64]) -> Speculation {
    drafting(acceptance_rates).speculation.expect("it drafts")
}

#[test]
fn other_engines_verify_drafts_too() {
    let sglang = |topk, num_draft_tokens| SglangConfig {
        speculation: Some(SglangDrafts {
            topk,
            num_draft_tokens,
            ..SglangDrafts::chain(chain(&[1.0, 0.0]))
        }),
        ..SglangConfig::default()
    };
    let trtllm = TrtllmConfig {
        speculation: Some(chain(&[1.0, 0.0])),
        ..TrtllmConfig::default()
    };
    // As vLLM: a prompt of 8 brings the first of 6 tokens, three steps of 3 tokens the others. A tree of 5 tokens takes 1,050.
    let requests = [(0, 8, 6)];
    let of = |engine: EngineConfig| run_engine(engine, &requests);
    let chained = of(sglang(1, 3).into());
    assert_eq!(ends(&chained), [(1_080, 1_080 + 3 * 1_030)]);
    assert_eq!(ends(&of(sglang(2, 5).into())), [(1_080, 1_080 + 3 * 1_050)]);
    assert_eq!(ends(&of(trtllm.into())), [(1_080, 1_080 + 3 * 1_030)]);
    // Tokens held: 12 before the last step, and 3 set aside for it.
    assert_eq!(chained.workers[0].peak_blocks, 15);
    assert_eq!(chained.workers[0].drafted.accepted, 3);
}

#[test]
fn stages_of_other_engines_work_on_different_batches() {
    // The batches of vLLM's example: a step holds one prompt of 8.
    let sglang = SglangConfig {
        pp_size: 2,
        chunked_prefill_size: Some(8),
        max_running_requests: 8,
        ..SglangConfig::default()
    };
    let trtllm = TrtllmConfig {
        pipeline_parallel_size: 2,
        max_num_tokens: 8,
        ..TrtllmConfig::default()
    };
    for engine in [EngineConfig::from(sglang), EngineConfig::from(trtllm)] {
        let recording = run_engine(engine, &[(0, 8, 2), (0, 8, 2)]);
        assert_eq!(ends(&recording), [(2_160, 4_250), (3_240, 5_260)]);
        assert_eq!(recording.workers[0].busy.0, 4_215_000);
    }
}

/// With three stages or more a lone request once waited for ever: the turns of empty batches came to nothing, and nobody asked for
/// the next.
#[test]
fn a_lone_request_has_its_turns() {
    let sglang = SglangConfig {
        pp_size: 4,
        ..SglangConfig::default()
    };
    // Each step passes four stages: a prompt of 8 in 1,080 ns each, a decode in 1,010.
    let recording = run_engine(sglang.into(), &[(0, 8, 3)]);
    assert_eq!(ends(&recording), [(4 * 1_080, 4 * (1_080 + 2 * 1_010))]);
}

#[test]
fn chunks_of_one_prompt_follow_each_other_through_the_stages() {
    // 24 tokens in chunks of 8, 1,080 ns each in a stage. SGLang plans a chunk in every turn: they enter at 0, 1,080, and, when
    // the first has left, 2,160, and the last leaves at 2,160 + 2 · 1,080. TensorRT-LLM waits for each chunk to come out.
    let sglang = SglangConfig {
        pp_size: 2,
        chunked_prefill_size: Some(8),
        ..SglangConfig::default()
    };
    let trtllm = TrtllmConfig {
        pipeline_parallel_size: 2,
        max_num_tokens: 8,
        tokens_per_block: 8,
        enable_chunked_prefill: true,
        ..TrtllmConfig::default()
    };
    let requests = [(0, 24, 1)];
    assert_eq!(
        ends(&run_engine(sglang.into(), &requests)),
        [(4_320, 4_320)]
    );
    assert_eq!(
        ends(&run_engine(trtllm.into(), &requests)),
        [(6_480, 6_480)]
    );
}

#[test]
fn ranks_of_other_engines_wait_for_the_slowest() {
    let requests = [(0, 8, 3), (0, 100, 4), (500, 50, 1)];
    let trtllm = TrtllmConfig {
        attention_dp_size: 2,
        ..TrtllmConfig::default()
    };
    // As vLLM: the third prompt shares a step with a decode.
    assert_eq!(
        ends(&run_engine(trtllm.into(), &requests)),
        [(2_000, 4_520), (2_000, 5_530), (3_510, 3_510)]
    );
    // SGLang's first rank prefills alone for 1,500 ns, in which the second decodes; then both decode twice.
    let sglang = SglangConfig {
        dp_size: 2,
        ..SglangConfig::default()
    };
    assert_eq!(
        ends(&run_engine(sglang.into(), &requests)),
        [(2_000, 5_520), (2_000, 5_520), (3_500, 3_500)]
    );
}
