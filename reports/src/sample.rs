//! A small run for tests: two completed requests, a rejected one and one cut off by the end of the run.

use crate::report::{Provenance, Report, Timing};
use engine::{Drafted, RequestId, Span, Time};
use sim::adversity::faults::FaultKind;
use sim::adversity::record::{AdversityRecord, FaultRecord, LinkFaultRecord};
use sim::event::WorkerId;
use sim::kvbm::{FetchRecord, KvbmRecord, TierRecord};
use sim::links::{Impairment, LinkCost, LinkKind, LinkRecord, LinkUse, SiteKind};
use sim::{
    AheadRecord, GapRun, Outcome, Recording, Rejection, RequestRecord, Sla, Summary,
    TransferRecord, WorkerRecord, summarize,
};

pub(crate) fn pools() -> Vec<String> {
    vec!["main".to_owned()]
}

pub(crate) fn recording() -> Recording {
    let ms = Time::from_ms;
    let never = Time::MAX;
    let first = RequestRecord {
        arrival: ms(0.0),
        placed: ms(0.0),
        first_scheduled: ms(10.0),
        first_token: ms(110.0),
        finish: ms(510.0),
        worker: 0,
        input_tokens: 100,
        output_tokens: 5,
        cached_tokens: 0,
        router_overlap_tokens: 0,
        preemptions: 0,
        outcome: Outcome::Completed,
        is_warmup: false,
    };
    let second = RequestRecord {
        arrival: ms(200.0),
        placed: ms(200.0),
        first_scheduled: ms(400.0),
        first_token: ms(500.0),
        finish: ms(900.0),
        worker: 1,
        input_tokens: 64,
        output_tokens: 3,
        cached_tokens: 32,
        router_overlap_tokens: 48,
        preemptions: 1,
        ..first
    };
    let refused = RequestRecord {
        arrival: ms(300.0),
        placed: never,
        first_scheduled: never,
        first_token: never,
        finish: ms(300.0),
        worker: u32::MAX,
        input_tokens: 9000,
        output_tokens: 0,
        outcome: Outcome::Rejected(Rejection::PromptExceedsKvCache),
        ..first
    };
    let cut_off = RequestRecord {
        arrival: ms(800.5),
        placed: ms(800.5),
        first_scheduled: ms(810.5),
        first_token: ms(1000.0),
        finish: never,
        input_tokens: 50,
        output_tokens: 1,
        outcome: Outcome::Unfinished,
        ..first
    };
    let worker = WorkerRecord {
        gpus: 4,
        requests: 2,
        steps: 12,
        busy: Span::from_ms(600.0),
        prefill_tokens: 150,
        decode_tokens: 4,
        drafted: Drafted {
            verifications: 2,
            drafts: 6,
            accepted: 3,
            tokens: 4,
        },
        admitted_tokens: 150,
        kv_blocks: 40,
        block_size: 16,
        peak_blocks: 10,
        held_token_ps: 64_000_000_000_000,
        ..WorkerRecord::default()
    };
    let other = WorkerRecord {
        requests: 1,
        drafted: Drafted::default(),
        preemptions: 1,
        admitted_tokens: 130,
        hit_tokens: 96,
        ..worker
    };
    let gap = |first: f64, steps: u32| GapRun {
        first: Span::from_ms(first),
        slope_ps: 0,
        steps,
        sequences: 1,
    };
    // Sent when the first answer ended; nobody went on.
    let sent_ahead = AheadRecord {
        life: RequestRecord {
            arrival: first.finish,
            placed: first.finish,
            first_scheduled: first.finish,
            first_token: ms(700.0),
            finish: ms(700.0),
            input_tokens: 105,
            output_tokens: 1,
            cached_tokens: 96,
            ..first
        },
        of: RequestId(0),
        next: None,
    };
    let moved = TransferRecord {
        request: RequestId(1),
        from: WorkerId(0),
        to: WorkerId(1),
        prefilled: ms(420.0),
        reserved: ms(430.0),
        began: ms(430.0),
        ended: ms(480.0),
        hit_tokens: 16,
        bytes: 6_291_456_000,
        has_failed: false,
    };
    Recording {
        requests: vec![first, second, refused, cut_off],
        ahead: vec![sent_ahead],
        workers: vec![worker, other],
        gaps: vec![gap(100.0, 4), gap(200.0, 2)],
        transfers: vec![moved],
        links: links(),
        kvbm: Some(tiers()),
        adversity: None,
        scaling: None,
    }
}

/// The first worker crashed with two requests, of which one was saved, and the router missed events of the second.
fn adversity_record() -> AdversityRecord {
    let fault = |kind, worker| FaultRecord {
        kind,
        worker: Some(worker),
        node: None,
        workers: 0,
        began: Time::from_ns(500_000_000),
        ended: Time::from_ns(700_000_000),
        requests: 2,
        migrated: 0,
        lost: 0,
        recomputed_tokens: 0,
        missed_events: 0,
        link: None,
    };
    AdversityRecord {
        retries: 3,
        ttft_timeouts: 1,
        timeouts: 1,
        transfer_timeouts: 4,
        shed: 2,
        wasted_tokens: 17,
        faults: vec![
            FaultRecord {
                migrated: 1,
                lost: 1,
                recomputed_tokens: 1_234,
                ..fault(FaultKind::Crash, 0)
            },
            FaultRecord {
                worker: None,
                node: Some(1),
                workers: 2,
                ..fault(FaultKind::NodeLoss, 0)
            },
            FaultRecord {
                missed_events: 5,
                ..fault(FaultKind::EventLoss, 1)
            },
            FaultRecord {
                worker: None,
                requests: 0,
                link: Some(LinkFaultRecord {
                    site: SiteKind::Nic,
                    number: 3,
                    cost: LinkCost {
                        transfers: 1,
                        bytes: 1_000_000_000,
                        held: Span::from_ms(12_000.0),
                    },
                }),
                ..fault(
                    FaultKind::Link {
                        site: SiteKind::Nic,
                        how: Impairment::Down,
                    },
                    0,
                )
            },
        ],
    }
}

/// A network card that carried the transfer.
fn links() -> Vec<LinkUse> {
    let record = LinkRecord {
        bytes: 6_291_456_000,
        busy: Span::from_ms(50.0),
    };
    vec![LinkUse {
        kind: LinkKind::Nic,
        bytes_per_s: 200_000_000_000,
        record,
    }]
}

/// The second worker has a host tier, from which its request took a block.
fn tiers() -> KvbmRecord {
    let host = TierRecord {
        capacity_blocks: 100,
        peak_blocks: 25,
        offloaded_blocks: 8,
        offloaded_bytes: 8 * 2_097_152,
        onboarded_blocks: 1,
        onboarded_bytes: 2_097_152,
        ..TierRecord::default()
    };
    let fetch = FetchRecord {
        request: RequestId(1),
        worker: WorkerId(1),
        began: Time::from_ns(410_000_000),
        ended: Time::from_ns(412_000_000),
        tokens: [16, 0, 0],
    };
    KvbmRecord {
        tiers: vec![host],
        workers: vec![false, true],
        fetches: vec![fetch],
        is_settled: true,
    }
}

/// What a run says in which that went wrong, and one request failed.
pub(crate) fn adverse() -> Summary {
    let recording = Recording {
        adversity: Some(adversity_record()),
        ..recording()
    };
    let mut summary = summarize(&recording, &pools(), Some(Sla::default()));
    summary.requests.failed_by = [("timeout", 1)].into();
    summary
}

pub(crate) fn report() -> Report {
    let timing = Timing {
        source: "roofline".to_owned(),
        basis: "estimated",
        detail: "llama-3.1-8b on h100-sxm, 60 % of peak".to_owned(),
        guesses: vec!["num_gpu_blocks assumed from 90 % of memory".to_owned()],
    };
    let provenance = Provenance {
        scenario: "examples/sample.yaml".to_owned(),
        workload: "trace.jsonl".to_owned(),
        overrides: [("router.mode".to_owned(), "kv".to_owned())].into(),
        seed: 42,
        digest: "0123456789abcdef0123456789abcdef".to_owned(),
        workload_digest: "fedcba9876543210fedcba9876543210".to_owned(),
        engines: pools()
            .into_iter()
            .map(|pool| (pool, "vllm".to_owned()))
            .collect(),
        timing,
    };
    let sla = Sla {
        ttft_ms: Some(200.0),
        itl_ms: Some(100.0),
    };
    Report::new(provenance, summarize(&recording(), &pools(), Some(sla)))
}
