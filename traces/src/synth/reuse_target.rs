//! The same workload with more or less in common.
//!
//! Best possible reuse (that of an unlimited cache) grows with the number of turns, and so does the mean prompt. Both
//! are held: turns above one are multiplied by a factor until reuse is as asked for, first user texts by another until
//! the mean prompt is what it was. Each round generates the workload, measures it, and corrects both factors.

use super::SynthSpec;
use crate::contents::Contents;
use crate::error::{Place, Problem, Problems};
use crate::reuse::Reuse;

/// Seed of the measurements; any will do, the factors must not depend on the seed of the workload.
const SEED: u64 = 0;
/// Close enough: a thousandth of all blocks.
const TOLERANCE: f64 = 0.001;
const ROUNDS: usize = 40;

impl SynthSpec {
    /// The same workload with best possible reuse `reuse` (0 to 1) and the same mean prompt.
    ///
    /// # Errors
    /// Parameters that cannot be used, or a reuse that cannot be reached: less than the system prompts alone give, or more
    /// than very long conversations give.
    pub fn with_reuse(&self, reuse: f64) -> Result<SynthSpec, Problems> {
        self.check("synth")?;
        if !(0.0..1.0).contains(&reuse) {
            return Err(unreachable_reuse(reuse, "a share from 0 to 1"));
        }
        let (_, mean_input) = measured(self);
        let (mut turns, mut inputs) = (1.0, 1.0);
        let mut reached = 0.0;
        for _ in 0..ROUNDS {
            let spec = self.scaled(turns, inputs);
            let (now, mean) = measured(&spec);
            reached = now;
            if (now - reuse).abs() <= TOLERANCE && (mean / mean_input - 1.0).abs() <= 0.01 {
                return Ok(spec);
            }
            let odds =
                |share: f64| share.clamp(1e-4, 1.0 - 1e-4) / (1.0 - share.clamp(1e-4, 1.0 - 1e-4));
            turns = (turns * (odds(reuse) / odds(now)).clamp(0.25, 4.0).powf(0.8)).clamp(1e-6, 1e4);
            inputs = (inputs * (mean_input / mean).powf(0.8)).clamp(1e-6, 1e4);
        }
        Err(unreachable_reuse(
            reuse,
            &format!("a share that this workload can have; it came to {reached:.3}"),
        ))
    }

    fn scaled(&self, turns: f64, inputs: f64) -> SynthSpec {
        let mut spec = self.clone();
        for kind in &mut spec.sessions {
            kind.turns = kind.turns.scaled_above_one(turns);
            kind.first_input_tokens = kind.first_input_tokens.scaled(inputs);
        }
        spec
    }
}

/// Best possible reuse and mean prompt of a workload.
fn measured(spec: &SynthSpec) -> (f64, f64) {
    let trace = super::generate::generate(spec, SEED);
    let reuse = Reuse::of(
        &Contents::of(&trace),
        trace.rows.iter().map(|row| row.input_tokens),
    );
    (
        reuse.best(),
        reuse.input_tokens as f64 / trace.rows.len() as f64,
    )
}

fn unreachable_reuse(found: f64, expected: &str) -> Problems {
    let mut problems = Problems::default();
    problems.add(|| Problem {
        place: Place {
            file: "synth".into(),
            line: 0,
        },
        field: "reuse".into(),
        found: found.to_string().into(),
        expected: expected.to_string().into(),
        suggestion: "change the number of turns, the lengths or the system prompts as well".into(),
    });
    problems
}
