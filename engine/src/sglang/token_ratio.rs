//! The new-token ratio: which share of the output that running requests may still generate is reserved (S5).
//!
//! It starts high, falls a little with every decode step that found room, jumps up when requests had to be retracted,
//! and starts anew when nothing runs. The ratio is iterated in floating point; a coast does the same operations.

/// Decode steps that a retraction makes room for (S6).
pub(super) const RETRACT_DECODE_STEPS: u32 = 20;

const INITIAL: f64 = 0.7;
const SMALLEST_SHARE: f64 = 0.14;
const DECAY_STEPS: f64 = 600.0;

/// The ratio and its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TokenRatio {
    initial: f64,
    smallest: f64,
    decay: f64,
    pub current: f64,
}

impl TokenRatio {
    pub fn new(schedule_conservativeness: f64) -> Self {
        let initial = (INITIAL * schedule_conservativeness).min(1.0);
        let smallest = (initial * SMALLEST_SHARE).min(1.0);
        TokenRatio {
            initial,
            smallest,
            decay: (initial - smallest) / DECAY_STEPS,
            current: initial,
        }
    }

    /// Enters `steps` decode steps without a retraction.
    pub fn decay(&mut self, steps: u32) {
        for _ in 0..steps {
            let next = (self.current - self.decay).max(self.smallest);
            if next == self.current {
                return;
            }
            self.current = next;
        }
    }

    /// Enters a retraction that kept `kept` requests, which have generated `outputs` of `asked` tokens.
    pub fn retracted(&mut self, kept: u32, outputs: u64, asked: u64) {
        let expected = outputs + u64::from(RETRACT_DECODE_STEPS) * u64::from(kept);
        self.current = (expected as f64 / (asked + 1) as f64).min(1.0);
    }

    /// Enters that nothing runs.
    pub fn reset(&mut self) {
        self.current = self.initial;
    }
}
