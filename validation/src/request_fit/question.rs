//! What a fit asks: which requests of which engine are to be explained by which terms; and how far a guess is off.

use crate::outcome::Outcome;
use crate::request_log::{LoggedRequest, RequestLog};
use calibration::CalibrationError;
use calibration::fitted::{Domain, Fitted, Term};
use calibration::log_file::Findings;
use engine::vllm::VllmConfig;
use engine::{Span, StepTime, Time, Workload};
use sim::{
    Cluster, ClusterSpec, FrontendSpec, LoadSpec, PoolSpec, Recording, RequestRecord, RouterSpec,
    virtual_clock,
};
use std::sync::Arc;

/// What is fitted to.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The log.
    pub log: &'a RequestLog,
    /// Its requests, in the same order.
    pub workload: Arc<Workload>,
    /// The engine's settings.
    pub engine: VllmConfig,
    /// The share of the requests, by arrival, that the loss looks at; the others are held out.
    pub share: f64,
    /// The terms of the formula.
    pub terms: Vec<Term>,
}

/// Least number of requests on either side.
pub const LEAST_REQUESTS: usize = 20;
/// Error of a measured time that counts as one, as a share of it.
const UNIT: f64 = 0.05;
/// Added to a TTFT before that share is taken, as a share of the mean TTFT: an error of a fast request among slow ones
/// matters less than its ratio.
const SOFTENING: f64 = 0.1;

impl Question<'_> {
    /// How many requests are fitted to.
    #[must_use]
    pub fn fitted_count(&self) -> usize {
        (self.log.requests.len() as f64 * self.share).round() as usize
    }

    /// Whether times of the log include what the client and the front end take.
    #[must_use]
    pub fn has_front_end(&self) -> bool {
        self.log.form == "aiperf"
    }

    /// Everything that stands in the way of an answer.
    ///
    /// # Errors
    /// Too few requests on either side, or requests that the engine would refuse.
    pub fn check(&self) -> Result<(), CalibrationError> {
        let mut findings = Findings::new(&self.log.file);
        let fitted = self.fitted_count();
        let held_out = self.log.requests.len().saturating_sub(fitted);
        if fitted < LEAST_REQUESTS || held_out < LEAST_REQUESTS {
            let found = format!("{fitted} requests to fit to and {held_out} to hold out");
            let expected = format!("at least {LEAST_REQUESTS} each");
            findings.add(0, "", found, expected, "");
        }
        let engine = self.engine.clone().into();
        for (request, logged) in self.workload.requests.iter().zip(&self.log.requests) {
            if let Some(reason) = sim::frontend::refusal(request, &engine) {
                let expected = "a request that the engine can serve, as the real one did";
                let hint = "is num_gpu_blocks or max_model_len of the scenario too small?";
                findings.add(logged.line, "", reason.name(), expected, hint);
            }
        }
        findings.finish()
    }

    /// All requests of the log through the engine.
    #[must_use]
    pub fn simulate(&self, timing: Arc<dyn StepTime>) -> Recording {
        let spec = ClusterSpec {
            pools: vec![PoolSpec {
                name: "engine".to_owned(),
                workers: 1,
                gpus_per_worker: 1,
                engine: self.engine.clone().into(),
            }],
            router: RouterSpec::RoundRobin,
            load: LoadSpec::default(),
            frontend: FrontendSpec::default(),
            seed: 0,
            coasting: true,
            disaggregation: None,
            track_block_ids: false,
        };
        virtual_clock::run(Cluster::new(&spec, self.workload.clone()), &[timing])
    }

    /// What a simulation says about each request, counted as the log counts.
    ///
    /// # Panics
    /// If a request did not complete; [`Question::check`] finds those that cannot.
    #[must_use]
    pub fn outcomes(&self, recording: &Recording, front_end: Span) -> Vec<Outcome> {
        let outcome = |(record, logged): (&RequestRecord, &LoggedRequest)| {
            let outcome = Outcome::of(record).expect("refused requests were reported before");
            let since = |moment: Time| Span(moment.0.saturating_sub(logged.counted_from.0));
            Outcome {
                ttft: since(record.first_token) + front_end,
                e2e: since(record.finish) + front_end,
                ..outcome
            }
        };
        let records = recording.requests.iter().zip(&self.log.requests);
        records.map(outcome).collect()
    }

    /// The timing model of a vector of microseconds, one per term.
    #[must_use]
    pub fn timing(&self, us: &[f64]) -> Fitted {
        let terms = self.terms.iter().copied();
        let formula: Vec<(Term, f64)> = terms.zip(us.iter().copied()).collect();
        Fitted::of_formula(&formula, Domain::ALL)
    }

    /// The front end's part of the vector: behind the terms, where there is one.
    #[must_use]
    pub fn front_end(&self, us: &[f64]) -> Span {
        let us = us.get(self.terms.len()).copied().unwrap_or(0.0);
        Span((us * 1e6).round() as u64)
    }

    /// Errors of TTFT and TPOT of the requests that are fitted to, in units of 5 %.
    #[must_use]
    pub fn residuals(&self, us: &[f64]) -> Vec<f64> {
        let recording = self.simulate(Arc::new(self.timing(us)));
        let predicted = self.outcomes(&recording, self.front_end(us));
        let measured = &self.log.requests[..self.fitted_count()];
        let sum: f64 = measured.iter().map(|one| one.outcome.ttft.as_ms()).sum();
        let soft = SOFTENING * sum / measured.len() as f64;
        let mut residuals = Vec::with_capacity(2 * measured.len());
        for (predicted, logged) in predicted.iter().zip(measured) {
            let ttft = logged.outcome.ttft.as_ms();
            residuals.push((predicted.ttft.as_ms() - ttft) / (UNIT * (ttft + soft)));
            // A request of one token has no TPOT; its residual stays, so that there are always as many.
            let tpots = predicted.tpot_ms().zip(logged.outcome.tpot_ms());
            residuals.push(tpots.map_or(0.0, |(predicted, measured)| {
                (predicted - measured) / (UNIT * measured)
            }));
        }
        residuals
    }
}
