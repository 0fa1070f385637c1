//! A timing model that notes which steps it prices.

use calibration::Fitted;
use calibration::fitted::Domain;
use calibration::work::Work;
use engine::{Piece, Span, StepShape, StepTime, TimingSource};
use std::sync::Mutex;

/// Notes the steps of one simulation.
// Model: of a coast the first step of each segment is noted; its context grows by less than one answer until the next.
pub(super) struct Observed {
    timing: Fitted,
    seen: Mutex<Vec<Work>>,
}

impl Observed {
    pub(super) fn new(timing: Fitted) -> Observed {
        Observed {
            timing,
            seen: Mutex::default(),
        }
    }

    fn note(&self, work: Work) {
        let mut seen = self.seen.lock().expect("nobody panics with the lock");
        seen.push(work);
    }

    /// The box around all steps.
    pub(super) fn domain(&self) -> Domain {
        let seen = self.seen.lock().expect("nobody panics with the lock");
        Domain::around(seen.iter())
    }
}

impl StepTime for Observed {
    fn decode(&self, batch: u32, context: u64) -> Piece {
        self.note(Work {
            decode_batch: batch,
            decode_context: context,
            ..Work::default()
        });
        self.timing.decode(batch, context)
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        self.note(Work::of(shape));
        self.timing.mixed(shape)
    }

    fn source(&self) -> TimingSource {
        self.timing.source()
    }
}
