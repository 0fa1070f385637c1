//! What came of weights that neighbours were asked for.

use super::record::ScalingRecord;
use crate::metrics::spans_in_ms;
use crate::summary::Distribution;
use engine::Time;
use serde::Serialize;

/// Starts whose weights neighbours were asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightsSummary {
    /// How many.
    pub starts: u64,
    /// Of these, those that neighbours sent everything.
    pub streamed: u64,
    /// Of these, those that loaded from elsewhere in the end.
    pub fell_back: u64,
    /// Times that a source was gone before it was done and another one went on.
    pub went_on: u64,
    /// Bytes that neighbours sent.
    pub bytes: u64,
    /// From asking to the last byte, where neighbours sent everything.
    pub stream_ms: Distribution,
    /// Each of them.
    pub loads: Vec<LoadSummary>,
}

/// One start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LoadSummary {
    /// The place of the worker.
    pub worker: u32,
    /// The place of the last one that sent; absent if nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// When it asked.
    pub began_s: f64,
    /// When it had its weights; absent if it was called off before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_s: Option<f64>,
    /// Bytes that neighbours sent.
    pub bytes: u64,
    /// Whether it loaded from elsewhere in the end.
    pub fell_back: bool,
}

impl ScalingRecord {
    /// `None` if no neighbours were asked.
    pub(super) fn weights(&self) -> Option<WeightsSummary> {
        let loads = &self.loads;
        let is_over = |time: Time| time != Time::MAX;
        let streamed = || loads.iter().filter(|it| is_over(it.ended) && !it.fell_back);
        let count = |all: usize| all as u64;
        (!loads.is_empty()).then(|| WeightsSummary {
            starts: count(loads.len()),
            streamed: count(streamed().count()),
            fell_back: count(loads.iter().filter(|it| it.fell_back).count()),
            went_on: (loads.iter())
                .map(|it| u64::from(it.sources.saturating_sub(1)))
                .sum(),
            bytes: loads.iter().map(|it| it.bytes).sum(),
            stream_ms: spans_in_ms(streamed().map(|it| it.ended.since(it.began))),
            loads: (loads.iter())
                .map(|it| LoadSummary {
                    worker: it.worker,
                    from: it.from,
                    began_s: it.began.as_s(),
                    ended_s: is_over(it.ended).then(|| it.ended.as_s()),
                    bytes: it.bytes,
                    fell_back: it.fell_back,
                })
                .collect(),
        })
    }
}
