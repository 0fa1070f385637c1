//! The smallest variant of a failing scenario that still fails: tries one simplification after the other, keeps each one
//! that leaves the failure in place, and starts again until none does.

use super::scenario::{Policy, Router, Scenario, Segment};

/// Beyond all numbers of sessions in random scenarios.
const OWN_SESSION: usize = 1_000;

/// `fails` is asked about many variants; it must be true for `scenario`.
pub fn smallest(scenario: &Scenario, fails: impl Fn(&Scenario) -> bool) -> Scenario {
    let mut best = scenario.clone();
    loop {
        let is_smaller = |variant: &Scenario| *variant != best && fails(variant);
        match variants(&best).into_iter().find(is_smaller) {
            Some(variant) => best = variant,
            None => return best,
        }
    }
}

/// Simplifications, the most effective first. Each of them, applied again and again, comes to an end.
fn variants(scenario: &Scenario) -> Vec<Scenario> {
    let mut variants: Vec<Scenario> = (0..scenario.requests.len())
        .rev()
        .map(|request| without(scenario, request))
        .collect();
    let mut variant = |change: &dyn Fn(&mut Scenario)| {
        let mut simpler = scenario.clone();
        change(&mut simpler);
        variants.push(simpler);
    };
    variant(&|s| s.workers = 1);
    variant(&|s| s.router = Router::RoundRobin);
    variant(&|s| s.concurrency = None);
    variant(&|s| s.duration_ns = None);
    variant(&|s| s.warmup_requests = 0);
    variant(&|s| s.engine.async_scheduling = false);
    variant(&|s| s.engine.stages = s.engine.stages.min(2));
    variant(&|s| s.engine.ranks = 1);
    variant(&|s| s.engine.speculation = None);
    variant(&|s| s.engine.watermark = 0.0);
    variant(&|s| s.engine.long_prefill_token_threshold = 0);
    variant(&|s| s.engine.max_num_active_seqs = None);
    variant(&|s| s.engine.enable_chunked_prefill = true);
    variant(&|s| s.engine.scheduler_reserve_full_isl = true);
    variant(&|s| s.engine.policy = Policy::Fcfs);
    variant(&|s| s.engine.enable_prefix_caching = false);
    for request in 0..scenario.requests.len() {
        variant(&|s| s.requests[request].after.clear());
        variant(&|s| s.requests[request].session = OWN_SESSION + request);
        variant(&|s| s.requests[request].priority = 0);
        variant(&|s| s.requests[request].output_len = s.requests[request].output_len.div_ceil(2));
        variant(&|s| s.requests[request].output_len = (s.requests[request].output_len - 1).max(1));
        variant(&|s| {
            s.requests[..=request]
                .iter_mut()
                .for_each(|earlier| earlier.arrival_ns = 0)
        });
        variant(&|s| {
            s.requests[request].prompt.truncate(1);
        });
    }
    variants
}

/// Without one request; who waited for it no longer does, who quoted it has a text of its own instead.
fn without(scenario: &Scenario, gone: usize) -> Scenario {
    let mut smaller = scenario.clone();
    smaller.requests.remove(gone);
    for request in &mut smaller.requests {
        request.after.retain(|dependency| dependency.on != gone);
        for dependency in &mut request.after {
            dependency.on -= usize::from(dependency.on > gone);
        }
        for segment in &mut request.prompt {
            if let Segment::Output { request, len } = segment {
                if *request == gone {
                    *segment = Segment::Content {
                        id: 1000 + gone as u64,
                        len: *len,
                    };
                } else {
                    *request -= usize::from(*request > gone);
                }
            }
        }
    }
    smaller
}
