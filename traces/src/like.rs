//! Parameters of a made-up workload that resembles a given trace.
//!
//! 1. Take the trace apart into sessions and turns (`anatomy`).
//! 2. Read the parameters off (`fit`): arrival times become a rate in windows, a variation around it, and ticks where
//!    there are any; sessions of one turn and conversations become two kinds, each with the quantile functions of its
//!    lengths; follow-ups become appending, revising and repeating ones.
//! 3. Make the workload, compare, correct, a few times over (`calibrate`). This is needed because a trace is a window:
//!    conversations are cut off at its end, and lengths of later turns follow from those before. Turns may come at
//!    their own time or shuffled; the order that comes closer is taken.
//!
//! The result is a list of a few hundred numbers, not the trace. The fit draws on fixed seeds of its own, so that it is
//! the same every time and does not depend on the seed with which the result is used.

mod anatomy;
mod arrivals;
mod calibrate;
mod closeness;
mod fit;

pub use closeness::{Closeness, LengthCloseness, Pair, QuantilePair, SizePair, WindowPair};

use crate::synth::SynthSpec;
use crate::trace::Trace;

/// A distance at which another order of turns is not tried: half of what is asked for.
const GOOD: f64 = 0.5;

impl SynthSpec {
    /// The parameters that come closest to `trace`, which has at least one row.
    #[must_use]
    pub fn like(trace: &Trace) -> SynthSpec {
        assert!(!trace.rows.is_empty(), "a trace has at least one row");
        let anatomy = anatomy::Anatomy::of(trace);
        let mut best: Option<calibrate::Calibrated> = None;
        for spec in fit::starting_points(trace, &anatomy) {
            let calibrated = calibrate::calibrated(spec, trace);
            let is_good = calibrated.distance <= GOOD;
            if best
                .as_ref()
                .is_none_or(|best| calibrated.distance < best.distance)
            {
                best = Some(calibrated);
            }
            if is_good {
                break;
            }
        }
        best.expect("there is at least one starting point").spec
    }
}
