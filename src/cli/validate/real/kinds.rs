//! Real steps by kind, and what the timing model makes of each: where a profile is wrong.

use super::passed::Priced;
use serde_json::{Value, json};
use sim::live::RealStep;
use std::fmt::Write as _;

/// Sums over the steps of a kind.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    steps: usize,
    measured_s: f64,
    priced_s: f64,
}

/// By kind, in the order of [`NAMES`].
pub struct Kinds([Sums; NAMES.len()]);

const NAMES: [&str; 7] = [
    "1 decode",
    "2 to 4 decodes",
    "5 to 8 decodes",
    "9 decodes or more",
    "prompts, up to 32 tokens",
    "prompts, more tokens",
    "prompts beside decodes",
];

fn kind(step: &RealStep) -> usize {
    let tokens: u32 = step.prefill.iter().map(|chunk| chunk.new_tokens).sum();
    match (tokens, step.decode_batch) {
        (0, ..=1) => 0,
        (0, 2..=4) => 1,
        (0, 5..=8) => 2,
        (0, _) => 3,
        (..=32, 0) => 4,
        (_, 0) => 5,
        _ => 6,
    }
}

impl Kinds {
    /// Of real steps and their prices.
    pub fn of(steps: &[(&RealStep, Priced)]) -> Kinds {
        let mut kinds = [Sums::default(); NAMES.len()];
        for (step, price_s) in steps {
            let sums = &mut kinds[kind(step)];
            sums.steps += 1;
            sums.measured_s += step.wall_time().as_s();
            sums.priced_s += price_s;
        }
        Kinds(kinds)
    }

    fn there(&self) -> impl Iterator<Item = (&'static str, &Sums)> {
        let named = NAMES.into_iter().zip(&self.0);
        named.filter(|(_, sums)| sums.steps > 0)
    }

    /// For reports.
    pub fn as_json(&self) -> Value {
        let kind = |(name, sums): (&str, &Sums)| {
            let each_us = |seconds: f64| 1e6 * seconds / sums.steps as f64;
            json!({
                "kind": name,
                "steps": sums.steps,
                "real_us_mean": each_us(sums.measured_s),
                "priced_us_mean": each_us(sums.priced_s),
                "error": sums.priced_s / sums.measured_s - 1.0,
            })
        };
        self.there().map(kind).collect()
    }

    /// A table.
    pub fn in_words(&self) -> String {
        let mut text = format!(
            "\n{:<26} {:>11} {:>11} {:>11} {:>8}\n",
            "real steps", "steps", "real, ms", "priced, ms", "error"
        );
        for (name, sums) in self.there() {
            let each_ms = |seconds: f64| 1e3 * seconds / sums.steps as f64;
            let _ = writeln!(
                text,
                "{name:<26} {:>11} {:>11.3} {:>11.3} {:>+6.1} %",
                sums.steps,
                each_ms(sums.measured_s),
                each_ms(sums.priced_s),
                100.0 * (sums.priced_s / sums.measured_s - 1.0)
            );
        }
        text + "\n"
    }
}
