//! Traffic for the part of a calibration that is served: what the host takes between steps is measured where it passes.
//!
//! In words: requests come in waves. The size of a wave is log-uniform up to what the workers can batch, prompts and
//! answers are log-uniform too, nothing is shared. Each request waits for one of the wave before it and 5 ms more, so that
//! waves run into each other as traffic does: batches of all sizes, prompts beside decodes, workers that run dry. The
//! traffic has no end worth waiting for; whoever serves it stops when the time is up.

use crate::random::Counter;
use crate::sweep::Limits;
use engine::{
    Contents, Dependency, NewRequest, RequestId, Run, Span, Time, Trigger, Workload,
    WorkloadBuilder,
};

/// More requests are never begun.
const MOST_REQUESTS: usize = 20_000;
const WAVES: u64 = 1000;
/// Longest answer.
const LONGEST_ANSWER: u32 = 48;
const PAUSE_MS: f64 = 5.0;

/// The traffic for so many workers, with the contents of its prompts.
#[must_use]
pub fn waves(limits: &Limits, workers: u32, seed: u64) -> (Workload, Contents) {
    let numbers = Counter::new(seed, "waves");
    let mut drawn = 0;
    let mut log_uniform = |least: u32, most: u32| {
        let share = (numbers.bits(drawn) >> 11) as f64 / (1_u64 << 53) as f64;
        drawn += 1;
        let (low, high) = (f64::from(least), f64::from(most.max(least)));
        (low * (high / low).powf(share)).round() as u32
    };
    let (mut builder, mut contents) = (WorkloadBuilder::new(), Contents::new());
    let mut before = 0..0;
    for _ in 0..WAVES {
        let first = builder.len();
        for index in 0..log_uniform(1, limits.sequences * workers) as usize {
            // Both fit into a sequence, with room to spare for an empty prompt of one token.
            let output_tokens = log_uniform(1, LONGEST_ANSWER.min(limits.longest / 2));
            let prompt = [Run {
                first: WorkloadBuilder::private_token(builder.len() as u32, 0),
                len: log_uniform(1, limits.longest - output_tokens),
            }];
            let waits = (!before.is_empty()).then(|| Dependency {
                on: RequestId((before.start + index % before.len()) as u32),
                trigger: Trigger::Completion,
                delay: Span::from_ms(PAUSE_MS),
            });
            builder.push(NewRequest {
                arrival: Time::ZERO,
                prompt: &prompt,
                output_tokens,
                priority: 0,
                session: builder.len() as u32,
                dependencies: waits.as_slice(),
            });
            contents.push(&prompt);
            if builder.len() == MOST_REQUESTS {
                return (builder.finish(), contents);
            }
        }
        before = first..builder.len();
    }
    (builder.finish(), contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_of_all_sizes_and_every_request_fits() {
        let limits = Limits {
            step_tokens: 64,
            sequences: 16,
            longest: 300,
            blocks: 100,
            block_size: 16,
        };
        let (workload, contents) = waves(&limits, 2, 1);
        assert_eq!(workload.requests.len(), contents.len());
        let mut waiting = vec![0_u32; workload.requests.len()];
        for request in &workload.requests {
            assert!(request.input_tokens >= 1 && request.output_tokens >= 1);
            assert!(request.input_tokens + request.output_tokens <= limits.longest);
            for dependency in workload.dependencies_of(request) {
                waiting[dependency.on.0 as usize] += 1;
            }
        }
        let first = workload.requests.iter();
        let unasked = first.filter(|request| request.dependency_count == 0);
        assert!((1..=32).contains(&unasked.count()), "the first wave");
        assert!(waiting.iter().any(|count| *count > 4), "waves that grow");
        let (again, _) = waves(&limits, 2, 1);
        assert_eq!(again.requests, workload.requests);
        let one = Limits {
            longest: 2,
            sequences: 1,
            ..limits
        };
        let (least, _) = waves(&one, 1, 1);
        assert!(
            least
                .requests
                .iter()
                .all(|request| request.input_tokens == 1)
        );
    }
}
