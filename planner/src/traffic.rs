//! Traffic windows: how much was asked for in a stretch of time, and how windows are put together.
//!
//! Requests count where they arrive; lengths where they complete; the prefix hit rate where the router admits them; the
//! accepted tokens per step where decode steps run. Each mean is therefore merged by its own count. A planner that looks at
//! traffic less often than it ticks adds the windows up in between. Source: Dynamo 1.6.1, replay adapter of the planner.

/// Traffic between two ticks, or between several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrafficWindow {
    /// Its length in seconds.
    pub duration_s: f64,
    /// Requests that arrived.
    pub requests: f64,
    /// Requests that completed and were not rejected.
    pub completed: f64,
    /// Mean prompt of those, in tokens.
    pub isl: f64,
    /// Mean output of those, in tokens.
    pub osl: f64,
    /// Requests with a first token.
    pub ttft_count: f64,
    /// Their mean TTFT in milliseconds.
    pub ttft_ms: f64,
    /// Requests with a second token.
    pub itl_count: f64,
    /// Their mean ITL in milliseconds.
    pub itl_ms: f64,
    /// Requests that the router admitted with at least one block of prompt.
    pub admitted: f64,
    /// Their mean share of blocks that were cached; `None` where no router says.
    pub kv_hit_rate: Option<f64>,
    /// Decode steps, counted per request.
    pub decode_steps: f64,
    /// Mean tokens that a decode step gave; `None` without speculative decoding.
    pub accept_length: Option<f64>,
}

impl TrafficWindow {
    /// This window and the one after it as one.
    #[must_use]
    pub fn merged(&self, later: &TrafficWindow) -> TrafficWindow {
        let hit_rate = |window: &TrafficWindow| window.kv_hit_rate.unwrap_or(0.0);
        let hit_rates = weighted(
            (hit_rate(self), self.admitted),
            (hit_rate(later), later.admitted),
        );
        TrafficWindow {
            duration_s: self.duration_s + later.duration_s,
            requests: self.requests + later.requests,
            completed: self.completed + later.completed,
            isl: weighted((self.isl, self.completed), (later.isl, later.completed)),
            osl: weighted((self.osl, self.completed), (later.osl, later.completed)),
            ttft_count: self.ttft_count + later.ttft_count,
            ttft_ms: weighted(
                (self.ttft_ms, self.ttft_count),
                (later.ttft_ms, later.ttft_count),
            ),
            itl_count: self.itl_count + later.itl_count,
            itl_ms: weighted(
                (self.itl_ms, self.itl_count),
                (later.itl_ms, later.itl_count),
            ),
            admitted: self.admitted + later.admitted,
            kv_hit_rate: self.kv_hit_rate.or(later.kv_hit_rate).map(|_| hit_rates),
            decode_steps: self.decode_steps + later.decode_steps,
            accept_length: self.accepted_with(later),
        }
    }

    /// A window that knows no accept length leaves the other's as it is, however many steps it had.
    fn accepted_with(&self, later: &TrafficWindow) -> Option<f64> {
        let steps = self.decode_steps + later.decode_steps;
        match (self.accept_length, later.accept_length) {
            (Some(a), Some(b)) if steps > 0.0 => {
                Some((a * self.decode_steps + b * later.decode_steps) / steps)
            }
            (Some(_), Some(_)) => None,
            (known, None) | (None, known) => known,
        }
    }
}

/// The mean of two means, each with its count; zero if nothing was counted.
fn weighted((a, count_a): (f64, f64), (b, count_b): (f64, f64)) -> f64 {
    let count = count_a + count_b;
    if count <= 0.0 {
        return 0.0;
    }
    (a * count_a + b * count_b) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mean_has_its_own_count() {
        let first = TrafficWindow {
            duration_s: 5.0,
            requests: 10.0,
            completed: 1.0,
            isl: 100.0,
            admitted: 3.0,
            kv_hit_rate: Some(0.5),
            ..TrafficWindow::default()
        };
        let second = TrafficWindow {
            duration_s: 5.0,
            requests: 2.0,
            completed: 3.0,
            isl: 300.0,
            admitted: 1.0,
            kv_hit_rate: Some(0.1),
            ..TrafficWindow::default()
        };
        let both = first.merged(&second);
        assert_eq!((both.duration_s, both.requests), (10.0, 12.0));
        assert_eq!(both.isl, 250.0); // (1 x 100 + 3 x 300) / 4
        assert!((both.kv_hit_rate.unwrap() - 0.4).abs() < 1e-15); // (3 x 0.5 + 1 x 0.1) / 4
        assert_eq!(both.accept_length, None);
    }

    #[test]
    fn an_unknown_accept_length_leaves_the_other() {
        let known = TrafficWindow {
            decode_steps: 10.0,
            accept_length: Some(2.0),
            ..TrafficWindow::default()
        };
        let unknown = TrafficWindow {
            decode_steps: 90.0,
            ..TrafficWindow::default()
        };
        assert_eq!(known.merged(&unknown).accept_length, Some(2.0));
        assert_eq!(unknown.merged(&known).accept_length, Some(2.0));
    }
}
