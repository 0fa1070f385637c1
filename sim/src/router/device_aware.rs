//! Device-aware weighted: workers without GPUs get their share, the rest goes to those with.
//!
//! With both kinds present, the workers without GPUs take a request if the requests they have are fewer than
//! `floor(requests on GPU workers * number without / (ratio * number with))`: a GPU worker counts as `ratio` of the others.
//! Within the kind the one with the fewest requests placed and not ended is taken, of several one drawn by (seed, request).
//! With one kind present that is all there is to it. Source: dynamo-runtime 1.6; the ratio there is
//! `DYN_ENCODER_CUDA_TO_CPU_RATIO`, 8 by default.

use super::{Candidate, least_loaded};
use crate::event::WorkerId;

pub fn place(seed: u64, ratio: u32, has_gpu: &[bool], candidate: &Candidate<'_>) -> WorkerId {
    let of_kind = |gpu: bool| -> Vec<WorkerId> {
        let workers = candidate.workers.iter().copied();
        workers
            .filter(|worker| has_gpu[worker.0 as usize] == gpu)
            .collect()
    };
    let (with, without) = (of_kind(true), of_kind(false));
    let load = |workers: &[WorkerId]| -> u64 {
        let active = workers
            .iter()
            .map(|worker| candidate.active.get(worker.0 as usize));
        active.map(u64::from).sum()
    };
    let takes_cpu = if with.is_empty() || without.is_empty() {
        with.is_empty()
    } else {
        let budget = load(&with) * without.len() as u64 / (u64::from(ratio) * with.len() as u64);
        load(&without) < budget
    };
    let workers = if takes_cpu { &without } else { &with };
    least_loaded::place(
        seed,
        &Candidate {
            workers,
            ..*candidate
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::min_tree::MinTree;
    use super::*;
    use engine::{RequestId, Workload};

    fn chosen(ratio: u32, has_gpu: &[bool], active: &[u32]) -> u32 {
        let workers: Vec<WorkerId> = (0..active.len() as u32).map(WorkerId).collect();
        let workload = Workload::default();
        let candidate = Candidate {
            request: RequestId(0),
            workload: &workload,
            workers: &workers,
            active: &MinTree::of(active),
            tiers: None,
            pinned: None,
            cost_factors: None,
        };
        place(1, ratio, has_gpu, &candidate).0
    }

    #[test]
    fn the_share_of_the_slow_kind_follows_the_ratio() {
        let kinds = [false, true];
        // One of each: the slow one takes a request if it has fewer than an eighth of the other's.
        assert_eq!(chosen(8, &kinds, &[0, 7]), 1);
        assert_eq!(chosen(8, &kinds, &[0, 8]), 0);
        assert_eq!(chosen(8, &kinds, &[1, 8]), 1);
        assert_eq!(chosen(8, &kinds, &[1, 16]), 0);
        // Two slow and one fast: 12 * 2 / (8 * 1) = 3.
        assert_eq!(chosen(8, &[false, true, false], &[2, 12, 0]), 2);
        assert_eq!(chosen(8, &[false, true, false], &[2, 12, 1]), 1);
        // One kind alone.
        assert_eq!(chosen(8, &[false, false], &[3, 2]), 1);
        assert_eq!(chosen(8, &[true, true], &[1, 2]), 0);
    }
}
