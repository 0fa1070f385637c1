//! Names of workers mean nothing: where every request fits one of two pools only, exchanging the pools exchanges the
//! results and changes nothing else, whatever the router. (Round robin is left out: its turn passes through both pools.)

use std::sync::Arc;

use engine::vllm::VllmConfig;
use engine::{
    Dependency, NewRequest, RequestId, Run, Span, Time, Trigger, Workload, WorkloadBuilder,
};
use sim::router::KvRouterSpec;
use sim::{PoolSpec, RouterSpec};

use crate::cases::case;
use crate::fast::Case;
use crate::metamorphic::agree;
use crate::oracle::dice::Dice;
use crate::timing::Zigzag;

/// Two pools that can hold different requests: those of `short` end at 100 tokens, those of `roomy` have blocks for 200.
/// Prompts under 100 tokens with long answers fit only the one, longer prompts only the other.
fn two_pools(dice: &mut Dice, case: &Case) -> [PoolSpec; 2] {
    let engine = VllmConfig {
        block_size: 8,
        num_gpu_blocks: 1 + dice.between(13, 40) as u32,
        max_model_len: 100,
        max_num_batched_tokens: dice.pick(&[128, 256, 1024]),
        max_num_seqs: dice.pick(&[2, 4, 64]),
        ..case.spec.pools[0]
            .engine
            .as_vllm()
            .cloned()
            .unwrap_or_default()
    };
    let roomy = VllmConfig {
        num_gpu_blocks: 1 + 25,
        max_model_len: 1_000,
        max_num_batched_tokens: 1_024,
        async_scheduling: dice.chance(50),
        ..engine.clone()
    };
    let mut pool = |name: &str, engine: VllmConfig| PoolSpec {
        name: name.to_owned(),
        workers: dice.pick(&[1, 2, 3]),
        gpus_per_worker: 1,
        engine: engine.into(),
    };
    [pool("short", engine), pool("roomy", roomy)]
}

/// Requests of which each fits one pool of [`two_pools`] or none, with prompts that share their beginnings.
fn divided_workload(dice: &mut Dice) -> Workload {
    let mut builder = WorkloadBuilder::new();
    let mut arrival = 0;
    for request in 0..60 {
        let (input, output) = match dice.between(0, 9) {
            0 => (dice.between(100, 150), 300),
            1..=5 => (dice.between(10, 60), dice.between(260, 300)),
            _ => (dice.between(100, 150), dice.between(1, 40)),
        };
        let shared = dice.between(0, input - 1) as u32;
        let run = |id, len| Run {
            first: WorkloadBuilder::block_token(id, 0),
            len,
        };
        let prompt = [
            run(dice.between(0, 3) as u32, shared),
            run(100 + request, input as u32 - shared),
        ];
        let another = [Dependency {
            on: RequestId(request.saturating_sub(dice.between(1, 5) as u32)),
            trigger: Trigger::Completion,
            delay: Span::from_ns(dice.between(0, 3_000) as u64),
        }];
        let waits = request > 0 && dice.chance(20);
        arrival += dice.pick(&[0, 0, 1_000, 30_000]);
        builder.push(NewRequest {
            arrival: Time::from_ns(arrival),
            prompt: if shared > 0 { &prompt } else { &prompt[1..] },
            output_tokens: output as u32,
            priority: dice.between(0, 2) as i32,
            session: request,
            dependencies: if waits { &another } else { &[] },
        });
    }
    builder.finish()
}

#[test]
fn renaming_workers_permutes_results() {
    agree(|seed| {
        let mut dice = Dice::new(seed, 0x4e4a);
        let mut case = case(seed);
        let pools = two_pools(&mut dice, &case);
        let workers = pools.each_ref().map(|pool| pool.workers);
        case.spec.pools = pools.to_vec();
        case.spec.router = dice.pick(&[
            RouterSpec::Random,
            RouterSpec::PowerOfTwo,
            RouterSpec::LeastLoaded,
            RouterSpec::Kv(KvRouterSpec::default()),
        ]);
        case.spec.load.concurrency = dice.chance(40).then(|| dice.between(1, 20) as u32);
        case.spec.load.duration = None;
        case.workload = Arc::new(divided_workload(&mut dice));
        let base = Span::from_ns(1_000);
        case.timing = vec![
            Arc::new(Zigzag { seed, base }),
            Arc::new(Zigzag { seed: !seed, base }),
        ];
        let mut recording = case.run();
        for pool in 0..2 {
            let own = recording
                .workers
                .iter()
                .filter(|worker| worker.pool == pool);
            assert!(
                own.map(|worker| worker.requests).sum::<u64>() > 0,
                "both pools are at work"
            );
        }

        case.spec.pools.reverse();
        case.timing.reverse();
        recording.workers.rotate_left(workers[0] as usize);
        for worker in &mut recording.workers {
            worker.pool = 1 - worker.pool;
        }
        for request in &mut recording.requests {
            if request.worker != u32::MAX {
                request.worker = (request.worker + workers[1]) % (workers[0] + workers[1]);
            }
        }
        (recording, case.run())
    });
}
