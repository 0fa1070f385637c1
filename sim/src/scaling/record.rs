//! What a planner's part in a run leaves behind.

use super::lifecycle::{Count, Life};
use super::update::UpdateRecord;
use super::weights::LoadRecord;
use engine::{Span, Time};
use planner::{Decision, PerRole, Reason};
use std::collections::BTreeMap;

/// Decisions of a planner and the lives of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalingRecord {
    /// The planner's name.
    pub policy: &'static str,
    /// How often it was asked.
    pub ticks: u64,
    /// How often it gave each reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Those of its decisions that wanted something else than there was, in order.
    pub decisions: Vec<DecisionRecord>,
    /// All workers, in the order in which they were asked for.
    pub lives: Vec<Life>,
    /// By pool: its update, if there was one.
    pub updates: Vec<UpdateRecord>,
    /// Starts whose weights neighbours were asked for, in the order in which they asked.
    pub loads: Vec<LoadRecord>,
}

/// A decision that changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionRecord {
    /// When.
    pub time: Time,
    /// Why.
    pub reason: Option<Reason>,
    /// The workers there were.
    pub before: PerRole<Count>,
    /// Workers that should serve or start.
    pub target: PerRole<Option<u32>>,
    /// Longest TTFT that was expected, if the policy estimates it.
    pub estimated_ttft: Option<Span>,
    /// Longest ITL.
    pub estimated_itl: Option<Span>,
    /// Thousandths of requests expected in the next window.
    pub predicted_requests_milli: Option<u64>,
}

impl ScalingRecord {
    pub(crate) fn new(policy: &'static str) -> Self {
        ScalingRecord {
            policy,
            ticks: 0,
            reasons: BTreeMap::new(),
            decisions: Vec::new(),
            lives: Vec::new(),
            updates: Vec::new(),
            loads: Vec::new(),
        }
    }

    /// Takes note of a decision.
    pub(crate) fn note(&mut self, now: Time, decision: &Decision, before: PerRole<Count>) {
        self.ticks += 1;
        if let Some(reason) = decision.reason {
            *self.reasons.entry(reason.as_str()).or_default() += 1;
        }
        let differs = |target: Option<u32>, count: Count| {
            target.is_some_and(|target| target != count.staying())
        };
        let targets = &decision.targets;
        if !differs(targets.prefill, before.prefill) && !differs(targets.decode, before.decode) {
            return;
        }
        let diagnostics = &decision.diagnostics;
        let span = |ms: Option<f64>| ms.filter(|ms| ms.is_finite()).map(Span::from_ms);
        self.decisions.push(DecisionRecord {
            time: now,
            reason: decision.reason,
            before,
            target: *targets,
            estimated_ttft: span(diagnostics.estimated_ttft_ms),
            estimated_itl: span(diagnostics.estimated_itl_ms),
            predicted_requests_milli: diagnostics
                .predicted_requests
                .map(|requests| (requests * 1000.0).round() as u64),
        });
    }
}
