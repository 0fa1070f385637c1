//! SGLang's two servers of a disaggregated deployment, by hand: who gets memory, who is retracted, what is kept.

use engine::sglang::{Scheduler, SglangConfig};
use engine::{NewRequest, Part, RequestId, Run, Time, Tracking, Workload, WorkloadBuilder};
use std::sync::Arc;

/// Requests of (content, prompt tokens, output tokens).
fn workload(requests: &[(u32, u32, u32)]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for &(content, input, output_tokens) in requests {
        let prompt = [Run {
            first: WorkloadBuilder::block_token(content, 0),
            len: input,
        }];
        builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt: &prompt,
            output_tokens,
            priority: 0,
            session: content,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn server(tokens: u32, reserve: Option<u32>, requests: &[(u32, u32, u32)]) -> Scheduler {
    let config = SglangConfig {
        max_total_tokens: tokens,
        max_running_requests: 4,
        num_reserved_decode_tokens: reserve,
        ..SglangConfig::default()
    };
    Scheduler::new(config, workload(requests), Tracking::default())
}

fn submit(server: &mut Scheduler, part: Part, count: u32) {
    for id in 0..count {
        server.submit_part(RequestId(id), part, 0);
    }
}

/// Those that get memory in the next plan.
fn reserved(server: &mut Scheduler) -> Vec<u32> {
    let plan = server.plan();
    plan.map_or(Vec::new(), |plan| {
        plan.reserved.iter().map(|it| it.request.0).collect()
    })
}

/// Runs the plan in flight for one step; who ended.
fn step(server: &mut Scheduler) -> Vec<u32> {
    server.stop_coasting();
    let mut ended = Vec::new();
    server.finish(1, &mut ended);
    ended.iter().map(|id| id.0).collect()
}

#[test]
fn prompts_stay_until_they_are_read_and_their_prefix_after() {
    // 100 tokens hold two prompts of 40 and not three; the third waits for the first to be read.
    let mut server = server(100, None, &[(1, 40, 5), (2, 40, 5), (3, 40, 5)]);
    submit(&mut server, Part::Prefill, 3);
    let plan = server.plan().expect("two fit");
    assert_eq!(plan.scheduled.len(), 2);
    assert_eq!(step(&mut server), [0, 1]);
    assert!(server.plan().is_none(), "the third has no room");
    assert_eq!(server.pool().available_tokens(), 20);
    server.hear(RequestId(0));
    let plan = server.plan().expect("the first was read");
    assert_eq!(plan.scheduled[0].request, RequestId(2));
    assert_eq!(step(&mut server), [2]);
    server.hear(RequestId(1));
    server.hear(RequestId(2));
    assert!(server.plan().is_none());
    assert_eq!(server.pool().available_tokens(), 100);
    assert_eq!(server.running(), 0);
}

#[test]
fn memory_is_given_while_prompt_and_reserve_are_allocatable() {
    // Reserve 20 of 200 tokens. First: 50 + 20 of 200. Second: free 150 less 20 for the first is 130, of which it takes 70.
    // Third: 100 - 2 x 20 = 60, and it needs 70.
    let mut server = server(200, Some(20), &[(1, 50, 10); 3]);
    submit(&mut server, Part::Decode, 3);
    assert_eq!(reserved(&mut server), [0, 1]);
    assert_eq!(server.pool().free_tokens(), 100);
    // The first token comes with the KV; the step that follows gives the second.
    server.hear(RequestId(0));
    let plan = server.plan().expect("the first begins");
    assert_eq!(plan.begun, [RequestId(0)]);
    assert_eq!((plan.decode_batch, plan.decode_context), (1, 51));
    assert_eq!(plan.up_to, 1, "the third asks for memory at every step");
    for _ in 0..8 {
        assert!(step(&mut server).is_empty());
        assert!(reserved(&mut server).is_empty());
    }
    // Nine steps after the token that came: all ten. Its 59 tokens are free when the next plan is made; it counts as running
    // until then, in reserve and as what could be retracted: 150 - 2 x 20 = 110 are more than the 70.
    assert_eq!(step(&mut server), [0]);
    assert_eq!(reserved(&mut server), [2]);
}

#[test]
fn an_answer_of_one_token_takes_no_step() {
    let mut server = server(200, Some(20), &[(1, 50, 1)]);
    submit(&mut server, Part::Decode, 1);
    assert_eq!(reserved(&mut server), [0]);
    server.hear(RequestId(0));
    let plan = server.plan().expect("there is news");
    assert_eq!(plan.begun, [RequestId(0)]);
    assert!(plan.scheduled.is_empty());
    assert_eq!(server.pool().free_tokens(), 200);
    assert!(server.is_idle());
}

#[test]
fn who_is_retracted_comes_back_before_anybody_new() {
    // 60 tokens, no reserve; prompts of 20 and answers of 25: together they need more than there is. Both run; at 30 tokens each
    // memory is out, and the one that came last in the order of retraction gives way, keeping its answer.
    let mut server = server(60, Some(0), &[(1, 20, 25), (2, 20, 25), (3, 20, 25)]);
    submit(&mut server, Part::Decode, 2);
    let mut order = Vec::new();
    let mut preempted = 0;
    order.extend(reserved(&mut server));
    assert_eq!(
        order,
        [0],
        "the second has to think of the first's whole answer"
    );
    server.hear(RequestId(0));
    server.submit_part(RequestId(2), Part::Decode, 0);
    let mut ended = Vec::new();
    for _ in 0..200 {
        let Some(plan) = server.plan() else { break };
        let fresh: Vec<RequestId> = plan.reserved.iter().map(|it| it.request).collect();
        preempted += plan.preempted.len();
        let runs = !plan.scheduled.is_empty();
        for request in fresh {
            order.push(request.0);
            server.hear(request);
        }
        if runs {
            ended.extend(step(&mut server));
        }
    }
    assert_eq!(order, [0, 1, 2]);
    assert_eq!(ended.len(), 3, "{preempted} retracted");
    assert_eq!(server.pool().free_tokens(), 60);
}
