//! Are the parameters of a made-up workload any good? All faults at once, each with its field.

use super::{FollowUp, SessionKind, SynthSpec, SystemPrompts, TurnOrder};
use crate::error::Problems;
use crate::fault::{Fault, Faults};
use crate::lengths::Lengths;

/// Most requests of one workload.
const MOST_REQUESTS: u32 = 1 << 28;
/// Longest workload: 200 days.
const LONGEST_S: f64 = 200.0 * 86_400.0;

impl SynthSpec {
    /// Judges all parameters; `name` says where they come from.
    ///
    /// # Errors
    /// All that cannot be used, each with its field.
    pub fn check(&self, name: &str) -> Result<(), Problems> {
        let mut faults = Faults::new(name);
        let count = || self.requests.to_string();
        faults.add(
            "requests".into(),
            Fault::unless(
                (1..=MOST_REQUESTS).contains(&self.requests),
                count,
                "1 to 2^28",
            ),
        );
        if let Some(duration_s) = self.duration_s {
            let is_fine = (0.0..=LONGEST_S).contains(&duration_s);
            faults.add(
                "duration_s".into(),
                Fault::unless(is_fine, || duration_s.to_string(), "0 s to 200 days"),
            );
        }
        self.arrivals.check("arrivals", &mut faults);
        if self.duration_s.is_none() && self.arrivals.rate.fault().is_none() {
            let end_s = self.arrivals.rate.when_expected(f64::from(self.requests));
            let found = || {
                format!(
                    "a rate at which {} requests take {end_s:.0} s",
                    self.requests
                )
            };
            let is_fine = end_s <= LONGEST_S;
            faults.add(
                "arrivals.rate".into(),
                Fault::unless(is_fine, found, "at most 200 days"),
            );
        }
        let is_fine = (1..=1 << 20).contains(&self.block_size);
        faults.add(
            "block_size".into(),
            Fault::unless(is_fine, || self.block_size.to_string(), "1 to 2^20 tokens"),
        );
        let is_fine = (1..=1 << 24).contains(&self.max_input_tokens);
        let found = || self.max_input_tokens.to_string();
        faults.add(
            "max_input_tokens".into(),
            Fault::unless(is_fine, found, "1 to 2^24 tokens"),
        );
        for (index, group) in self.system_prompts.iter().enumerate() {
            group.check(&format!("system_prompts[{index}]"), &mut faults);
        }
        let share = self
            .system_prompts
            .iter()
            .map(|group| group.share)
            .sum::<f64>();
        let found = || format!("shares that add up to {share}");
        faults.add(
            "system_prompts".into(),
            Fault::unless(
                share <= 1.0 + 1e-6,
                found,
                "shares that add up to at most 1",
            ),
        );
        let weight = self.sessions.iter().map(|kind| kind.weight).sum::<f64>();
        let found = || format!("{} kinds, sum of weights {weight}", self.sessions.len());
        faults.add(
            "sessions".into(),
            Fault::unless(
                weight > 0.0,
                found,
                "at least one kind with a weight above 0",
            ),
        );
        for (index, kind) in self.sessions.iter().enumerate() {
            kind.check(&format!("sessions[{index}]"), &mut faults);
        }
        self.turn_order.check(&mut faults);
        faults.finish()
    }
}

/// Longest answer: prompt and answer together stay below 2^31 tokens.
const LONGEST_ANSWER: u32 = 1 << 30;

fn share_fault(share: f64) -> Option<Fault> {
    Fault::unless(
        (0.0..=1.0).contains(&share),
        || share.to_string(),
        "a share from 0 to 1",
    )
}

fn weight_fault(weight: f64) -> Option<Fault> {
    Fault::unless(
        weight >= 0.0 && weight.is_finite(),
        || weight.to_string(),
        "a weight of at least 0",
    )
}

impl SystemPrompts {
    fn check(&self, field: &str, faults: &mut Faults<'_>) {
        let field = |name: &str| format!("{field}.{name}");
        let is_fine = (1..=1 << 20).contains(&self.count);
        faults.add(
            field("count"),
            Fault::unless(is_fine, || self.count.to_string(), "1 to 2^20"),
        );
        let is_fine = (0.0..=10.0).contains(&self.zipf_exponent);
        let found = || self.zipf_exponent.to_string();
        faults.add(
            field("zipf_exponent"),
            Fault::unless(is_fine, found, "an exponent from 0 to 10"),
        );
        faults.add(field("share"), share_fault(self.share));
        faults.add(field("tokens"), self.tokens.fault());
    }
}

impl SessionKind {
    fn check(&self, field: &str, faults: &mut Faults<'_>) {
        faults.add(format!("{field}.weight"), weight_fault(self.weight));
        faults.add(
            format!("{field}.first_input_tokens"),
            self.first_input_tokens.fault(),
        );
        let is_fine = self.output_tokens.longest() <= LONGEST_ANSWER;
        let found = || format!("up to {}", self.output_tokens.longest());
        let too_long = || Fault::unless(is_fine, found, "answers of at most 2^30 tokens");
        faults.add(
            format!("{field}.output_tokens"),
            self.output_tokens.fault().or_else(too_long),
        );
        faults.add(format!("{field}.turns"), self.turns.fault());
        let weight = self.follow_ups.iter().map(FollowUp::weight).sum::<f64>();
        let is_fine = weight > 0.0 || self.turns == Lengths::Fixed(1);
        let found = || format!("{} ways, sum of weights {weight}", self.follow_ups.len());
        let expected = "a way with a weight above 0, as sessions of this kind have several turns";
        faults.add(
            format!("{field}.follow_ups"),
            Fault::unless(is_fine, found, expected),
        );
        for (index, follow_up) in self.follow_ups.iter().enumerate() {
            let field = format!("{field}.follow_ups[{index}]");
            faults.add(format!("{field}.weight"), weight_fault(follow_up.weight()));
            match follow_up {
                FollowUp::Append { user_tokens, .. } => {
                    faults.add(format!("{field}.user_tokens"), user_tokens.fault());
                }
                FollowUp::Revise {
                    kept_share,
                    user_tokens,
                    ..
                } => {
                    faults.add(format!("{field}.user_tokens"), user_tokens.fault());
                    let fault = kept_share
                        .fault()
                        .or_else(|| share_fault(kept_share.at(1.0)));
                    faults.add(format!("{field}.kept_share"), fault);
                }
                FollowUp::Repeat { .. } => {}
            }
        }
    }
}

impl TurnOrder {
    fn check(&self, faults: &mut Faults<'_>) {
        match self {
            TurnOrder::Timed {
                think_ms,
                answer_ms_per_token,
            }
            | TurnOrder::AfterAnswer {
                think_ms,
                answer_ms_per_token,
            } => {
                faults.add("turn_order.think_ms".into(), think_ms.fault());
                let is_fine = (0.0..=1e6).contains(answer_ms_per_token);
                let found = || answer_ms_per_token.to_string();
                let field = "turn_order.answer_ms_per_token".into();
                faults.add(field, Fault::unless(is_fine, found, "0 to 1,000,000 ms"));
            }
            TurnOrder::Shuffled => {}
        }
    }
}
