//! The choice by load order against the plain scan of all ranks, on random streams: the same rank every time, ties included.
//!
//! A request that names the ranks that may take it is scanned; naming all of them is the same question.

use engine::{RequestId, Time};
use proptest::prelude::*;
use sim::router::active_blocks::HashedBlocks;
use sim::router::active_sequences::PromptBlocks;
use sim::router::admission::{Admission, AdmissionSpec, Admitted, Incoming, QueueStyle};
use sim::router::cost::{CostWeights, Overlap};
use sim::router::load_order::LoadOrder;
use sim::router::policy_class::{PolicyProfile, QueuePolicy};
use sim::router::queue::QueueTicket;

const BLOCK_SIZE: u32 = 16;

#[derive(Debug, Clone)]
enum Op {
    /// Prompt: family, whole blocks, further tokens. Cached: rank, blocks and tier.
    Submit {
        family: u64,
        blocks: u32,
        rest: u64,
        cached: Vec<(u32, u32, u8)>,
        everywhere: u32,
    },
    PrefillDone(usize),
    Free(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let cached = prop::collection::vec((0u32..64, 1u32..12, 0u8..4), 0..5);
    let submit = (0u64..3, 0u32..12, 0u64..16, cached, 0u32..6).prop_map(
        |(family, blocks, rest, cached, everywhere)| Op::Submit {
            family,
            blocks,
            rest,
            cached,
            everywhere: everywhere.saturating_sub(3),
        },
    );
    prop_oneof![
        4 => submit,
        2 => (0usize..100).prop_map(Op::PrefillDone),
        2 => (0usize..100).prop_map(Op::Free),
    ]
}

fn weights() -> impl Strategy<Value = CostWeights> {
    let sixteenths = || prop::sample::select(vec![0.0, 0.0625, 0.5, 1.0, 2.0]);
    (
        sixteenths(),
        sixteenths(),
        sixteenths(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(credit, scale, request, track_prefill_tokens, is_decode_router)| CostWeights {
                overlap_score_credit: credit,
                prefill_load_scale: scale,
                decode_active_request_weight: request,
                shared_cache_multiplier: 0.5,
                track_prefill_tokens,
                is_decode_router,
                ..CostWeights::default()
            },
        )
}

/// One router; `names_all` makes it scan.
struct Side {
    admission: Admission<HashedBlocks>,
    names_all: bool,
    ranks: u32,
}

impl Side {
    fn new(weights: CostWeights, threshold: Option<f64>, ranks: u32, names_all: bool) -> Side {
        let spec = AdmissionSpec {
            weights,
            temperature: 0.0,
            block_size: BLOCK_SIZE,
            profile: PolicyProfile::sole(QueuePolicy::Fcfs, threshold),
            style: QueueStyle::Replay,
            expires: false,
            seed: 5,
        };
        Side {
            admission: Admission::new(spec, vec![256; ranks as usize]),
            names_all,
            ranks,
        }
    }

    fn take(&mut self, now: Time, number: u32, op: &Op, admitted: &mut Vec<Admitted>) {
        match op {
            Op::Submit {
                family,
                blocks,
                rest,
                cached,
                everywhere,
            } => {
                let overlap = |rank: u32| {
                    let mut overlap = Overlap {
                        device: (*everywhere).min(*blocks),
                        ..Overlap::default()
                    };
                    for &(_, blocks, tier) in
                        cached.iter().filter(|(of, ..)| of % self.ranks == rank)
                    {
                        match tier {
                            0 | 1 => overlap.device = overlap.device.max(blocks),
                            2 => overlap.host = blocks,
                            _ => overlap.shared = blocks,
                        }
                    }
                    overlap
                };
                let overlap = (0..self.ranks).map(|rank| (rank, overlap(rank)));
                let incoming = Incoming {
                    request: RequestId(number),
                    prompt: PromptBlocks::Shared(
                        (0..u64::from(*blocks))
                            .map(|at| family * 100 + at)
                            .collect(),
                    ),
                    overlap: overlap
                        .filter(|(_, overlap)| *overlap != Overlap::default())
                        .collect(),
                    allowed: self.names_all.then(|| (0..self.ranks).collect()),
                    cost_factors: None,
                    policy_class: None,
                };
                let ticket = QueueTicket {
                    arrival: now,
                    isl_tokens: u64::from(*blocks) * u64::from(BLOCK_SIZE) + rest,
                    cached_tokens: 0,
                    priority_jump: 0.0,
                    strict_priority: 0,
                    due: None,
                    pinned: None,
                };
                self.admission
                    .submit(now, ticket, incoming, admitted)
                    .expect("the only class has no limit");
            }
            Op::PrefillDone(at) => {
                let request = RequestId(*at as u32 % number.max(1));
                self.admission.prefill_done(now, request, admitted);
            }
            Op::Free(at) => {
                let request = RequestId(*at as u32 % number.max(1));
                self.admission.free(now, request, admitted);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn load_order_and_scan_choose_alike(
        weights in weights(),
        threshold in prop::option::of(0.0f64..2.0),
        ranks in prop::sample::select(vec![1u32, 2, 5, 16, 33, 64]),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        prop_assert!(LoadOrder::new(weights, 0.0, BLOCK_SIZE, ranks as usize).is_some());
        let mut sides = [false, true].map(|names_all| Side::new(weights, threshold, ranks, names_all));
        let mut number = 0;
        for (at, op) in ops.iter().enumerate() {
            let mut admitted = [Vec::new(), Vec::new()];
            for (side, admitted) in sides.iter_mut().zip(&mut admitted) {
                side.take(Time(at as u64), number, op, admitted);
            }
            prop_assert_eq!(&admitted[0], &admitted[1], "{:?}", op);
            number += u32::from(matches!(op, Op::Submit { .. }));
        }
    }
}
