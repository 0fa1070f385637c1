//! Speculative decoding: how many tokens a verified draft brings.
//!
//! In words: a decode step computes the last token and `d` drafted ones behind it. Drafts are accepted from the left until
//! the first that the model would not have said; its own token takes that place. So a step brings 1 to `d + 1` tokens. The
//! draft at position i is accepted, those before it being so, with the conditional rate r_i, and on the mean a step brings
//! 1 + r_1 + r_1 r_2 + … tokens: the *acceptance length*.
//!
//! *Sampled*: every acceptance is drawn. The draw belongs to the place of the token in the answer, which is drafted and
//! judged at most once, so it depends on (seed, request, place) and on nothing that happens to other requests.
//!
//! *Expected*: every step brings the mean. It is kept in parts of a token ([`PARTS`] to one); a sequence gets its whole
//! tokens and keeps the rest for the next step. So all sequences advance alike, and k steps are a closed form.

// Model: acceptance depends on the position in the draft alone, not on text, temperature or batch; real rates differ among
// requests by a factor of two and more, and so do the lengths of their answers' steps.

/// Parts of a token in which expected acceptance is counted: an acceptance length of 2.5 is off by 0.1 % at most.
pub const PARTS: u32 = 256;

/// Who drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftMethod {
    /// The model's own heads for tokens further on.
    Mtp,
    /// A layer trained on the model's hidden states: EAGLE, EAGLE-3.
    Eagle,
    /// A small model.
    DraftModel,
    /// The prompt, looked up.
    Ngram,
}

impl DraftMethod {
    /// Whether drafts are computed from hidden states, so that the KV of the last cached block has to be computed again.
    #[must_use]
    pub const fn reads_hidden_states(self) -> bool {
        matches!(self, DraftMethod::Mtp | DraftMethod::Eagle)
    }

    /// Whether drafts have KV of their own, for which slots are set aside.
    #[must_use]
    pub const fn has_kv(self) -> bool {
        !matches!(self, DraftMethod::Ngram)
    }
}

/// How acceptance is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptanceMode {
    /// Draft by draft, at random.
    Sampled {
        /// Seed of all draws.
        seed: u64,
    },
    /// The mean in every step.
    Expected,
}

/// Settings of speculative decoding.
#[derive(Debug, Clone, PartialEq)]
pub struct Speculation {
    /// Who drafts.
    pub method: DraftMethod,
    /// Drafts per step, at least 1.
    pub num_speculative_tokens: u32,
    /// By position: how often a draft is accepted if those before it were, from 0 to 1; one for each.
    pub acceptance_rates: Vec<f64>,
    /// How acceptance is decided.
    pub mode: AcceptanceMode,
}

impl Speculation {
    /// What makes no sense in these settings, in words.
    ///
    /// # Errors
    /// No draft, or rates that are not one per draft and from 0 to 1.
    pub fn check(&self) -> Result<(), String> {
        if self.num_speculative_tokens == 0 {
            return Err("there is no draft".to_owned());
        }
        if self.acceptance_rates.len() != self.num_speculative_tokens as usize {
            return Err("there is not one acceptance rate per draft".to_owned());
        }
        let is_share = |rate: &f64| (0.0..=1.0).contains(rate);
        if !self.acceptance_rates.iter().all(is_share) {
            return Err("an acceptance rate is not from 0 to 1".to_owned());
        }
        Ok(())
    }

    /// Mean tokens per step.
    #[must_use]
    pub fn acceptance_length(&self) -> f64 {
        let mut reach = 1.0;
        let reached = self.acceptance_rates.iter().map(|rate| {
            reach *= rate;
            reach
        });
        1.0 + reached.sum::<f64>()
    }

    /// Slots set aside behind the drafts of a running sequence (`num_lookahead_tokens`).
    #[must_use]
    pub const fn lookahead(&self) -> u32 {
        if self.method.has_kv() {
            self.num_speculative_tokens
        } else {
            0
        }
    }
}

/// What speculation did on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drafted {
    /// Steps of single sequences that verified drafts or could have.
    pub verifications: u64,
    /// Drafts verified.
    pub drafts: u64,
    /// Drafts accepted, those beyond the end of an answer included.
    pub accepted: u64,
    /// Tokens that came out of these steps.
    pub tokens: u64,
}

impl std::ops::Add for Drafted {
    type Output = Drafted;

    fn add(self, other: Drafted) -> Drafted {
        Drafted {
            verifications: self.verifications + other.verifications,
            drafts: self.drafts + other.drafts,
            accepted: self.accepted + other.accepted,
            tokens: self.tokens + other.tokens,
        }
    }
}

/// Steps of one answer with drafts. More than one only with expected acceptance and all drafts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verified {
    pub request: u32,
    /// Tokens the answer has, and those it lacks.
    pub outputs: u32,
    pub missing: u32,
    pub steps: u32,
    /// Drafts one behind the other, of which each may be accepted.
    pub drafts: u32,
    /// Drafted tokens that are verified: more than that where drafts are a tree.
    pub tokens: u32,
}

/// Speculation made ready for deciding.
#[derive(Debug, Clone)]
pub(crate) struct Acceptance {
    mode: AcceptanceMode,
    /// By drafts: tokens of a step on the mean, in parts.
    paces: Vec<u32>,
    /// By position: acceptance as a share of 2^53.
    thresholds: Vec<u64>,
}

impl Acceptance {
    pub fn new(speculation: &Speculation) -> Self {
        if let Err(what) = speculation.check() {
            panic!("settings are checked before a worker is made: {what}");
        }
        let rates = &speculation.acceptance_rates;
        let pace = |drafts: usize| {
            let up_to = Speculation {
                acceptance_rates: rates[..drafts].to_vec(),
                ..speculation.clone()
            };
            (up_to.acceptance_length() * f64::from(PARTS)).round() as u32
        };
        let threshold = |rate: &f64| (rate * (1u64 << 53) as f64) as u64;
        Acceptance {
            mode: speculation.mode,
            paces: (0..=rates.len()).map(pace).collect(),
            thresholds: rates.iter().map(threshold).collect(),
        }
    }

    pub fn is_expected(&self) -> bool {
        self.mode == AcceptanceMode::Expected
    }

    /// Parts of a token per step with all drafts; 0 where steps are drawn.
    pub fn pace(&self) -> u32 {
        match self.mode {
            AcceptanceMode::Sampled { .. } => 0,
            AcceptanceMode::Expected => *self.paces.last().expect("a pace for no draft at least"),
        }
    }

    /// Tokens of one step with so many drafts, for a request that has `outputs`. `fraction` is what it has of the next.
    pub fn step(&self, request: u32, outputs: u32, drafts: u32, fraction: &mut u32) -> u32 {
        match self.mode {
            AcceptanceMode::Sampled { seed } => {
                let is_accepted = |&place: &u32| {
                    let bits =
                        mix(mix(mix(seed) ^ u64::from(request)) ^ u64::from(outputs + place));
                    bits >> 11 < self.thresholds[place as usize]
                };
                1 + (0..drafts).take_while(is_accepted).count() as u32
            }
            AcceptanceMode::Expected => {
                let parts = *fraction + self.paces[drafts as usize];
                *fraction = parts % PARTS;
                parts / PARTS
            }
        }
    }

    /// Enters what steps brought an answer, and says how many of these tokens it takes. `fraction` is as for
    /// [`step`](Acceptance::step).
    pub fn verify(&self, verified: Verified, fraction: &mut u32, drafted: &mut Drafted) -> u32 {
        let Verified {
            request,
            outputs,
            missing,
            steps,
            drafts,
            tokens,
        } = verified;
        let gained = if steps == 1 {
            self.step(request, outputs, drafts, fraction)
        } else {
            let (gained, rest) = self.tokens_in(*fraction, steps);
            *fraction = rest;
            gained
        };
        let wanted = gained.min(missing);
        drafted.verifications += u64::from(steps);
        drafted.drafts += u64::from(steps) * u64::from(tokens);
        drafted.accepted += u64::from(gained - steps);
        drafted.tokens += u64::from(wanted);
        wanted
    }

    /// Tokens of so many steps with all drafts, and what is left over then. Expected acceptance.
    pub fn tokens_in(&self, fraction: u32, steps: u32) -> (u32, u32) {
        let parts = u64::from(fraction) + u64::from(steps) * u64::from(self.pace());
        let (tokens, rest) = (parts / u64::from(PARTS), parts % u64::from(PARTS));
        let tokens = u32::try_from(tokens).expect("answers are shorter than that");
        (tokens, rest as u32)
    }

    /// Steps with all drafts until `tokens` or more have come. Expected acceptance.
    pub fn steps_to(&self, fraction: u32, tokens: u32) -> u32 {
        let parts = u64::from(tokens) * u64::from(PARTS);
        let lacking = parts.saturating_sub(u64::from(fraction));
        let steps = lacking.div_ceil(u64::from(self.pace()));
        u32::try_from(steps).expect("a step brings a token at least")
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014) over its increment.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speculation(rates: &[f64], mode: AcceptanceMode) -> Speculation {
        Speculation {
            method: DraftMethod::Mtp,
            num_speculative_tokens: rates.len() as u32,
            acceptance_rates: rates.to_vec(),
            mode,
        }
    }

    #[test]
    fn the_mean_is_the_sum_of_reaches() {
        let rates = [0.8, 0.8, 0.8, 0.8, 0.8];
        let speculation = speculation(&rates, AcceptanceMode::Expected);
        // (1 − 0.8^6) / (1 − 0.8)
        assert!((speculation.acceptance_length() - 3.689_28).abs() < 1e-9);
        let acceptance = Acceptance::new(&speculation);
        assert_eq!(acceptance.pace(), 944, "3.68928 · 256 = 944.46");
    }

    #[test]
    fn expected_steps_add_up_to_their_closed_form() {
        let acceptance = Acceptance::new(&speculation(&[0.85, 0.3], AcceptanceMode::Expected));
        // 1 + 0.85 + 0.255 = 2.105 tokens, 538.88 parts.
        assert_eq!(acceptance.pace(), 539);
        let (mut fraction, mut tokens) = (7, 0);
        for steps in 1..=1_000 {
            tokens += acceptance.step(3, tokens, 2, &mut fraction);
            assert_eq!(acceptance.tokens_in(7, steps), (tokens, fraction));
            assert_eq!(acceptance.steps_to(7, tokens), steps);
            assert_eq!(acceptance.steps_to(7, tokens + 1), steps + 1);
        }
        assert_eq!(tokens, 2_105, "(7 + 1000 · 539) / 256");
    }

    #[test]
    fn sampled_steps_have_the_mean_and_are_repeated() {
        let speculation = speculation(&[0.85, 0.3], AcceptanceMode::Sampled { seed: 5 });
        let acceptance = Acceptance::new(&speculation);
        let (mut outputs, mut counts) = (0, [0u32; 4]);
        for _ in 0..100_000 {
            let tokens = acceptance.step(9, outputs, 2, &mut 0);
            assert_eq!(tokens, acceptance.step(9, outputs, 2, &mut 0));
            counts[tokens as usize] += 1;
            outputs += tokens;
        }
        // 15,000 steps bring 1 token, 59,500 bring 2 and 25,500 all 3; five standard deviations are below 800.
        let expected = [0, 15_000, 59_500, 25_500];
        for (count, expected) in counts.iter().zip(expected) {
            assert!(count.abs_diff(expected) < 800, "{counts:?}");
        }
    }
}
