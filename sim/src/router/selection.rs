//! The choice among ranks by cost.
//!
//! At temperature 0 the cheapest, of several exactly equal ones each with the same probability. Above, rank i with
//! probability proportional to `exp(-(cost[i] - least) / ((most - least) * temperature))`, and all alike if all costs are
//! equal. A pinned request goes where it is pinned, whatever it costs. Overloaded workers and workers without a taint that
//! the request requires are no candidates. Source: dynamo-kv-router 1.6; recorded in `tests/golden/router/sel_*.json`.

/// Why no rank was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectionError {
    /// There is no rank, or not the one asked for.
    NoEndpoints,
    /// All ranks that may be chosen are overloaded.
    AllEligibleWorkersOverloaded,
    /// The rank asked for is overloaded.
    PinnedWorkerOverloaded,
    /// The rank asked for may not be chosen.
    PinnedWorkerNotAllowed,
}

/// A rank as the question whether it may be chosen sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eligibility {
    /// It has all taints that the request requires and is among the workers it allows.
    pub is_allowed: bool,
    /// Its worker takes no more.
    pub is_overloaded: bool,
    /// It is the one the request is pinned to; `None` if the request is not pinned.
    pub is_pin: Option<bool>,
}

/// Leaves the candidates in `ranks`, of which `eligibility` speaks by position.
pub fn eligible(eligibility: &[Eligibility]) -> Result<Vec<usize>, SelectionError> {
    let pinned = eligibility.iter().any(|rank| rank.is_pin.is_some());
    if pinned {
        let pin = eligibility
            .iter()
            .position(|rank| rank.is_pin == Some(true));
        let pin = pin.ok_or(SelectionError::NoEndpoints)?;
        return match eligibility[pin] {
            Eligibility {
                is_allowed: false, ..
            } => Err(SelectionError::PinnedWorkerNotAllowed),
            Eligibility {
                is_overloaded: true,
                ..
            } => Err(SelectionError::PinnedWorkerOverloaded),
            _ => Ok(vec![pin]),
        };
    }
    let allowed = (0..eligibility.len()).filter(|&rank| eligibility[rank].is_allowed);
    let allowed: Vec<usize> = allowed.collect();
    if allowed.is_empty() {
        return Err(SelectionError::NoEndpoints);
    }
    let free: Vec<usize> = allowed
        .into_iter()
        .filter(|&rank| !eligibility[rank].is_overloaded)
        .collect();
    if free.is_empty() {
        Err(SelectionError::AllEligibleWorkersOverloaded)
    } else {
        Ok(free)
    }
}

/// The probability of each candidate, given their costs (at least one).
pub fn probabilities(costs: &[f64], temperature: f64, out: &mut Vec<f64>) {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    out.clear();
    out.extend(costs.iter().map(|&cost| {
        if temperature == 0.0 {
            f64::from(u8::from(cost == least))
        } else if most == least {
            1.0
        } else {
            (-(cost - least) / ((most - least) * temperature)).exp()
        }
    }));
    let total: f64 = out.iter().sum();
    out.iter_mut().for_each(|weight| *weight /= total);
}

/// The candidate that `at`, in 0..1, falls upon when their probabilities are laid end to end.
#[must_use]
pub fn pick(probabilities: &[f64], at: f64) -> usize {
    let mut reached = 0.0;
    for (candidate, probability) in probabilities.iter().enumerate() {
        reached += probability;
        if at < reached {
            return candidate;
        }
    }
    // Rounding may leave the sum below 1.
    probabilities
        .iter()
        .rposition(|&probability| probability > 0.0)
        .expect("a probability is above zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_temperature_takes_the_cheapest_and_others_prefer_it() {
        let mut p = Vec::new();
        probabilities(&[3.0, 1.0, 1.0], 0.0, &mut p);
        assert_eq!(p, [0.0, 0.5, 0.5]);
        probabilities(&[2.0, 2.0], 0.7, &mut p);
        assert_eq!(p, [0.5, 0.5]);
        // Weights 1 and exp(-1 / 0.5).
        probabilities(&[10.0, 14.0], 0.5, &mut p);
        assert!((p[0] - 1.0 / (1.0 + (-2.0f64).exp())).abs() < 1e-15);
    }

    #[test]
    fn a_draw_falls_where_the_probability_is() {
        let p = [0.25, 0.0, 0.75];
        assert_eq!(
            [0.0, 0.2499, 0.25, 0.999_999].map(|at| pick(&p, at)),
            [0, 0, 2, 2]
        );
        assert_eq!(pick(&[0.5, 0.499_999_999, 0.0], 0.999_999_999_9), 1);
    }

    #[test]
    fn who_may_be_chosen() {
        let rank = |is_allowed, is_overloaded, is_pin| Eligibility {
            is_allowed,
            is_overloaded,
            is_pin,
        };
        assert_eq!(eligible(&[]), Err(SelectionError::NoEndpoints));
        assert_eq!(
            eligible(&[rank(false, false, None)]),
            Err(SelectionError::NoEndpoints)
        );
        let overloaded = [rank(true, true, None), rank(false, false, None)];
        assert_eq!(
            eligible(&overloaded),
            Err(SelectionError::AllEligibleWorkersOverloaded)
        );
        assert_eq!(
            eligible(&[rank(true, true, None), rank(true, false, None)]),
            Ok(vec![1])
        );
        assert_eq!(
            eligible(&[rank(true, false, Some(false))]),
            Err(SelectionError::NoEndpoints)
        );
        assert_eq!(
            eligible(&[rank(true, true, Some(true))]),
            Err(SelectionError::PinnedWorkerOverloaded)
        );
        assert_eq!(
            eligible(&[rank(false, true, Some(true))]),
            Err(SelectionError::PinnedWorkerNotAllowed)
        );
        let pinned = [
            rank(true, false, Some(false)),
            rank(true, false, Some(true)),
        ];
        assert_eq!(eligible(&pinned), Ok(vec![1]));
    }
}
