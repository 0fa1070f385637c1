//! One rule for each role, asked at even intervals: the loop that the autoscalers share.

use crate::decision::{Decision, Reason};
use crate::observe::{Observations, PerRole, Role};
use engine::{Span, Time};

/// What one role is to do at a tick, and why.
pub(super) trait Scaler {
    /// The workers it wants, if others than there are.
    fn decide(&mut self, now: Time, role: Role, seen: &Observations) -> (Option<u32>, Reason);
}

/// The decision of all roles that have a rule; the next is due after `interval`. Of two roles the one that moves says why.
pub(super) fn decide_each<S: Scaler>(
    roles: &mut PerRole<Option<S>>,
    now: Time,
    interval: Span,
    seen: &Observations,
) -> Decision {
    let mut decision = Decision {
        next_tick: Some(now + interval),
        ..Decision::default()
    };
    for role in Role::BOTH {
        if let Some(scaler) = roles.get_mut(role) {
            let (target, reason) = scaler.decide(now, role, seen);
            *decision.targets.get_mut(role) = target;
            if decision.reason.is_none() || target.is_some() {
                decision.reason = Some(reason);
            }
        }
    }
    decision
}
