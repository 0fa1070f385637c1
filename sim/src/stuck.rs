//! What is left when nothing more can happen: where each request that did not end was last seen.

use crate::disaggregation::TransferRecord;
use crate::record::{Outcome, Recording, RequestRecord};
use engine::{RequestId, Time};
use std::collections::BTreeMap;
use std::fmt;

/// Where a request stands that does not go on. Numbers are those of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No router gave it to a worker.
    InRouter,
    /// It is in a worker's queue.
    InQueue(u32),
    /// A decode worker has to have blocks for it before a prefill worker begins.
    BlocksFirst {
        /// The prefill worker.
        from: u32,
        /// The decode worker.
        to: u32,
    },
    /// Its prompt is computed and kept, and no decode worker was given it.
    WithoutDecodeWorker(u32),
    /// Its prompt is computed and kept by one worker, and another has no blocks for it.
    WithoutBlocks {
        /// The prefill worker.
        from: u32,
        /// The decode worker.
        to: u32,
    },
    /// Its KV is on the way.
    InTransfer {
        /// The prefill worker.
        from: u32,
        /// The decode worker.
        to: u32,
    },
    /// It was computing its prompt.
    InPrefill(u32),
    /// It was computing its answer.
    InDecode(u32),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::InRouter => write!(f, "waits in a router"),
            Standing::InQueue(worker) => write!(f, "waits in the queue of worker {worker}"),
            Standing::BlocksFirst { from, to } => write!(
                f,
                "waits for blocks on worker {to} before worker {from} computes its prompt"
            ),
            Standing::WithoutDecodeWorker(from) => write!(
                f,
                "has its prompt on worker {from} and waits for a decode worker"
            ),
            Standing::WithoutBlocks { from, to } => write!(
                f,
                "has its prompt on worker {from} and waits for blocks on worker {to}"
            ),
            Standing::InTransfer { from, to } => {
                write!(f, "is on its way from worker {from} to worker {to}")
            }
            Standing::InPrefill(worker) => {
                write!(f, "was computing its prompt on worker {worker}")
            }
            Standing::InDecode(worker) => write!(f, "was computing its answer on worker {worker}"),
        }
    }
}

/// The requests that were sent and did not end, by where they stand.
#[must_use]
pub fn stuck(recording: &Recording) -> BTreeMap<Standing, Vec<RequestId>> {
    let mut found: BTreeMap<Standing, Vec<RequestId>> = BTreeMap::new();
    for (index, record) in recording.sent() {
        if record.outcome == Outcome::Unfinished {
            let id = RequestId(index as u32);
            let transfer = (recording.transfers).binary_search_by_key(&id, |it| it.request);
            let transfer = transfer.ok().map(|at| &recording.transfers[at]);
            found
                .entry(standing(record, transfer))
                .or_default()
                .push(id);
        }
    }
    found
}

fn standing(record: &RequestRecord, transfer: Option<&TransferRecord>) -> Standing {
    let happened = |time: Time| time != Time::MAX;
    if !happened(record.placed) {
        return Standing::InRouter;
    }
    if let Some(it) = transfer.filter(|it| !happened(it.ended)) {
        let (from, to) = (it.from.0, it.to.0);
        return match it {
            _ if happened(it.began) => Standing::InTransfer { from, to },
            _ if happened(it.prefilled) && to == u32::MAX => Standing::WithoutDecodeWorker(from),
            _ if happened(it.prefilled) => Standing::WithoutBlocks { from, to },
            _ if happened(record.first_scheduled) => Standing::InPrefill(from),
            _ if to != u32::MAX && !happened(it.reserved) => Standing::BlocksFirst { from, to },
            _ => Standing::InQueue(from),
        };
    }
    if happened(record.first_token) {
        Standing::InDecode(record.worker)
    } else if happened(record.first_scheduled) && transfer.is_none() {
        Standing::InPrefill(record.worker)
    } else {
        Standing::InQueue(record.worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::WorkerId;

    const NEVER: Time = Time::MAX;
    const THEN: Time = Time::ZERO;

    fn record(placed: Time, scheduled: Time, first_token: Time) -> RequestRecord {
        RequestRecord {
            arrival: THEN,
            placed,
            first_scheduled: scheduled,
            first_token,
            finish: NEVER,
            worker: 7,
            input_tokens: 10,
            output_tokens: 0,
            cached_tokens: 0,
            router_overlap_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Unfinished,
            is_warmup: false,
        }
    }

    fn transfer(request: u32, to: u32, times: [Time; 3]) -> TransferRecord {
        let [prefilled, reserved, began] = times;
        TransferRecord {
            request: RequestId(request),
            from: WorkerId(1),
            to: WorkerId(to),
            prefilled,
            reserved,
            began,
            ended: NEVER,
            hit_tokens: 0,
            bytes: 0,
            has_failed: false,
        }
    }

    #[test]
    fn each_is_found_where_it_stands() {
        let scheduled = record(THEN, THEN, NEVER);
        let recording = Recording {
            requests: vec![
                record(NEVER, NEVER, NEVER),
                record(THEN, NEVER, NEVER),
                scheduled,
                record(THEN, THEN, THEN),
                scheduled,
                scheduled,
                scheduled,
                record(THEN, NEVER, NEVER),
                RequestRecord {
                    outcome: Outcome::Completed,
                    ..scheduled
                },
            ],
            transfers: vec![
                transfer(4, 2, [THEN, NEVER, NEVER]),
                transfer(5, u32::MAX, [THEN, NEVER, NEVER]),
                transfer(6, 2, [THEN, THEN, THEN]),
                transfer(7, 2, [NEVER, NEVER, NEVER]),
            ],
            ..Recording::default()
        };
        let (from, to) = (1, 2);
        let expected = [
            (Standing::InRouter, 0),
            (Standing::InQueue(7), 1),
            (Standing::BlocksFirst { from, to }, 7),
            (Standing::WithoutDecodeWorker(1), 5),
            (Standing::WithoutBlocks { from, to }, 4),
            (Standing::InTransfer { from, to }, 6),
            (Standing::InPrefill(7), 2),
            (Standing::InDecode(7), 3),
        ];
        let expected = expected.map(|(standing, id)| (standing, vec![RequestId(id)]));
        assert_eq!(stuck(&recording), BTreeMap::from(expected));
    }
}
