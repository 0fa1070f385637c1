//! The same workload with more or less in common.
//!
//! Best possible reuse (that of an unlimited cache) grows with the number of turns, and so does the mean prompt. Both
//! are held: turns above one are multiplied by a factor until reuse is as asked for, first user texts by another until
//! the mean prompt is what it was. Each round generates the workload, measures it, and corrects both factors.

use super::SynthSpec;
use crate::contents::Contents;
use crate::error::{Place, Problem, Problems};
use crate::reuse::Reuse;

/// Seeds of the measurements; any will do, the factors must not depend on the seed of the workload.
const SEEDS: [u64; 3] = [1001, 1002, 1003];
/// Close enough: half a point of reuse, and two per cent of the mean prompt.
const REUSE_TOLERANCE: f64 = 0.005;
const MEAN_TOLERANCE: f64 = 0.02;
/// Still good, in these units, where a short workload scatters too much to come closer.
const GOOD_ENOUGH: f64 = 3.0;
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
        let (_, mean_input) = measured(self)?;
        let (mut turns, mut inputs) = (1.0, 1.0);
        let mut nearest: Option<(f64, SynthSpec, String)> = None;
        for _ in 0..ROUNDS {
            let spec = self.scaled(turns, inputs);
            let (now, mean) = measured(&spec)?;
            let distance = ((now - reuse).abs() / REUSE_TOLERANCE)
                .max((mean / mean_input - 1.0).abs() / MEAN_TOLERANCE);
            if nearest.as_ref().is_none_or(|nearest| distance < nearest.0) {
                let means =
                    format!("a mean prompt of {mean:.0} tokens (it is to stay {mean_input:.0})");
                nearest = Some((distance, spec, format!("{now:.3} with {means}")));
            }
            if distance <= 1.0 {
                break;
            }
            turns = (turns * (odds(reuse) / odds(now)).clamp(0.25, 4.0).powf(0.8)).clamp(1e-6, 1e4);
            inputs = (inputs * (mean_input / mean).powf(0.8)).clamp(1e-6, 1e4);
        }
        match nearest {
            Some((distance, spec, _)) if distance <= GOOD_ENOUGH => Ok(spec),
            Some((_, _, reached)) => {
                let expected = format!("a share that this workload can have; it came to {reached}");
                Err(unreachable_reuse(reuse, &expected))
            }
            None => unreachable!("there is at least one round"),
        }
    }

    fn scaled(&self, turns: f64, inputs: f64) -> SynthSpec {
        let mut spec = self.clone();
        for kind in &mut spec.sessions {
            if !kind.follow_ups.is_empty() {
                kind.turns = kind.turns.scaled_above_one(turns);
            }
            kind.first_input_tokens = kind.first_input_tokens.scaled(inputs);
        }
        spec
    }
}

fn odds(share: f64) -> f64 {
    let share = share.clamp(1e-4, 1.0 - 1e-4);
    share / (1.0 - share)
}

/// Best possible reuse and mean prompt of a workload, over a few seeds.
fn measured(spec: &SynthSpec) -> Result<(f64, f64), Problems> {
    let (mut best, mut mean) = (0.0, 0.0);
    for seed in SEEDS {
        let trace = super::generate::generate(spec, seed)?;
        let reuse = Reuse::of(
            &Contents::of(&trace),
            trace.rows.iter().map(|row| row.input_tokens),
        );
        best += reuse.best() / SEEDS.len() as f64;
        mean += reuse.input_tokens as f64 / trace.rows.len() as f64 / SEEDS.len() as f64;
    }
    Ok((best, mean))
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
