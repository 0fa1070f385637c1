//! What kinds of work a pass is made of, and how long each takes.
//!
//! Products stream the weights, attention streams the KV cache, the rest is small: told apart, the times of one model say
//! what another of the same kind would take.

use std::time::Instant;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Embedding, norms, rotary, gate, choosing tokens.
    Rest,
    /// Products of layers.
    Products,
    /// The product of the head.
    Head,
    /// Attention, where all rows are computed together.
    Attention,
    /// Attention of rows of one token, where they are computed apart.
    Decode,
    /// Attention of other rows.
    Prefill,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 6] = [
        Op::Rest,
        Op::Products,
        Op::Head,
        Op::Attention,
        Op::Decode,
        Op::Prefill,
    ];

    /// In tables and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Op::Rest => "rest",
            Op::Products => "products",
            Op::Head => "head",
            Op::Attention => "attention",
            Op::Decode => "decode attention",
            Op::Prefill => "prefill attention",
        }
    }
}

/// What a kind of work took in a pass, all layers together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpTime {
    /// Which.
    pub op: Op,
    /// Milliseconds.
    pub ms: f64,
}

/// Adds up where the time of a pass goes, from one lap to the next.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    last: Instant,
    seconds: [f64; Op::ALL.len()],
}

impl Stopwatch {
    /// From now on.
    #[must_use]
    pub fn start() -> Stopwatch {
        Stopwatch {
            last: Instant::now(),
            seconds: [0.0; Op::ALL.len()],
        }
    }

    /// What passed since the last lap was this.
    pub fn lap(&mut self, op: Op) {
        let now = Instant::now();
        self.seconds[op as usize] += (now - self.last).as_secs_f64();
        self.last = now;
    }

    /// The kinds of work that took any time.
    #[must_use]
    pub fn times(&self) -> Vec<OpTime> {
        let pairs = Op::ALL.into_iter().zip(self.seconds);
        pairs
            .filter(|(_, seconds)| *seconds > 0.0)
            .map(|(op, seconds)| OpTime {
                op,
                ms: 1e3 * seconds,
            })
            .collect()
    }
}

/// Of several passes of one batch, the least time of each kind: what disturbs a pass does not disturb the same part of all.
#[must_use]
pub fn least(passes: &[Vec<OpTime>]) -> Vec<OpTime> {
    let least = |op: Op| {
        let times = passes.iter().flatten().filter(|time| time.op == op);
        let ms = times.map(|time| time.ms).reduce(f64::min)?;
        Some(OpTime { op, ms })
    };
    Op::ALL.into_iter().filter_map(least).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_go_to_their_kind_and_the_least_counts() {
        let mut watch = Stopwatch::start();
        std::thread::sleep(std::time::Duration::from_millis(2));
        watch.lap(Op::Products);
        watch.lap(Op::Head);
        let times = watch.times();
        let of = |op| times.iter().find(|time| time.op == op).map(|time| time.ms);
        assert!(of(Op::Products).is_some_and(|ms| ms >= 2.0), "{times:?}");
        assert!(of(Op::Head).is_none_or(|ms| ms < 2.0), "{times:?}");
        assert_eq!(of(Op::Attention), None);
        let time = |op, ms| OpTime { op, ms };
        let passes = [
            vec![time(Op::Rest, 2.0), time(Op::Head, 1.0)],
            vec![time(Op::Rest, 1.5), time(Op::Head, 3.0)],
        ];
        assert_eq!(least(&passes), [time(Op::Rest, 1.5), time(Op::Head, 1.0)]);
    }
}
