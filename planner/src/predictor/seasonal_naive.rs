//! The value one season ago; the last value while there is no such season yet.

/// Keeps one season.
#[derive(Debug, Clone)]
pub struct SeasonalNaive {
    season: usize,
    values: Vec<f64>,
}

impl SeasonalNaive {
    pub(super) fn new(season: usize) -> Self {
        SeasonalNaive {
            season: season.max(1),
            values: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        self.values.push(value);
        if self.values.len() > self.season {
            self.values.remove(0);
        }
    }

    pub(super) fn forecast(&self) -> f64 {
        if self.values.len() < self.season {
            return self.values.last().copied().unwrap_or(0.0);
        }
        self.values[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_comes_back() {
        let mut predictor = SeasonalNaive::new(3);
        for value in [1.0, 5.0] {
            predictor.observe(value);
        }
        assert_eq!(predictor.forecast(), 5.0);
        for value in [9.0, 2.0] {
            predictor.observe(value);
        }
        assert_eq!(predictor.forecast(), 5.0); // after 5, 9, 2 of season 3
    }
}
