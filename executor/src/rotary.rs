//! Rotary position embedding: pairs `(i, i + d/2)` of a head are turned by an angle that grows with the position.

use crate::config::{Rope, Stretch};
use std::f64::consts::TAU;

/// Angles per position of the pairs of a head.
#[derive(Debug, Clone)]
pub struct Rotary {
    frequencies: Vec<f64>,
}

impl Rotary {
    pub fn new(rope: &Rope, head_dim: usize) -> Rotary {
        let frequency = |pair: usize| {
            let plain = rope.theta.powf(-2.0 * pair as f64 / head_dim as f64);
            rope.stretch
                .map_or(plain, |stretch| stretched(plain, stretch))
        };
        Rotary {
            frequencies: (0..head_dim / 2).map(frequency).collect(),
        }
    }

    /// Cosines, then sines, of the angles at a position.
    pub fn at(&self, position: u32, turn: &mut Vec<f32>) {
        let angle = |frequency: &f64| f64::from(position) * frequency;
        turn.clear();
        turn.extend(self.frequencies.iter().map(|f| angle(f).cos() as f32));
        turn.extend(self.frequencies.iter().map(|f| angle(f).sin() as f32));
    }
}

/// Turns a head by what [`Rotary::at`] said.
pub fn turn(head: &mut [f32], turn: &[f32]) {
    let half = head.len() / 2;
    let (cosines, sines) = turn.split_at(half);
    let (first, second) = head.split_at_mut(half);
    let angles = cosines.iter().zip(sines);
    for ((a, b), (cosine, sine)) in first.iter_mut().zip(second).zip(angles) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}

/// Llama 3.1's rule.
fn stretched(frequency: f64, stretch: Stretch) -> f64 {
    let wave = TAU / frequency;
    let Stretch {
        factor,
        low,
        high,
        original,
    } = stretch;
    if wave < original / high {
        frequency
    } else if wave > original / low {
        frequency / factor
    } else {
        let share = (original / wave - low) / (high - low);
        (1.0 - share) * frequency / factor + share * frequency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waves_are_stretched_and_short_ones_are_not() {
        let stretch = Stretch {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        assert_eq!(stretched(1.0, stretch), 1.0);
        assert_eq!(stretched(1e-5, stretch), 1e-5 / 8.0);
        let wave = |length: f64| stretched(TAU / length, stretch) * length / TAU;
        // Half-way between low and high: 8192 / 2.5. Half of the stretch and half without.
        assert!((wave(8192.0 / 2.5) - (0.5 / 8.0 + 0.5)).abs() < 1e-12);
    }

    #[test]
    fn turning_keeps_lengths_and_adds_up() {
        let rotary = Rotary::new(
            &Rope {
                theta: 1e4,
                stretch: None,
            },
            4,
        );
        let mut angles = Vec::new();
        let turned = |positions: &[u32], angles: &mut Vec<f32>| {
            let mut head = [1.0, 2.0, -0.5, 0.25];
            for position in positions {
                rotary.at(*position, angles);
                turn(&mut head, angles);
            }
            head
        };
        let (at_once, in_two) = (turned(&[5], &mut angles), turned(&[2, 3], &mut angles));
        for (a, b) in at_once.iter().zip(&in_two) {
            assert!((a - b).abs() < 1e-5, "{at_once:?} {in_two:?}");
        }
        assert_ne!(at_once, turned(&[6], &mut angles));
    }
}
