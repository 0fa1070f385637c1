//! Which GPU was had at which price for how long: one pass over the moments at which workers take, leave or use their GPUs
//! otherwise.

use super::{CostSpec, away_of};
use crate::record::Recording;
use engine::Time;
use std::collections::BTreeMap;

/// States in the order in which their GPUs take the places of a price.
pub const READY: usize = 0;
/// See [`READY`].
pub const DRAINING: usize = 1;
/// See [`READY`].
pub const STARTING: usize = 2;
/// See [`READY`].
pub const SPARE: usize = 3;
const STATES: usize = 4;

/// GPU time in picoseconds.
pub struct Usage {
    pools: usize,
    /// By price, state and pool.
    taken: Vec<u128>,
    /// By price, of reserved GPUs that nobody had.
    unused: Vec<u128>,
}

impl Usage {
    /// Over `0..end`.
    pub fn of(recording: &Recording, end: Time, spec: &CostSpec, pools: usize) -> Usage {
        let mut usage = Usage {
            pools,
            taken: vec![0; spec.prices.len() * STATES * pools],
            unused: vec![0; spec.prices.len()],
        };
        let changes = changes(recording, end, pools);
        let mut gpus = vec![0i64; STATES * pools];
        let mut moments = changes.into_iter().peekable();
        while let Some((from, steps)) = moments.next() {
            for (slot, step) in steps {
                gpus[slot] += step;
            }
            let until = moments.peek().map_or(end, |(until, _)| *until);
            usage.add(&gpus, u128::from(until.since(from).0), spec);
        }
        usage
    }

    /// A time during which nothing changes.
    fn add(&mut self, gpus: &[i64], ps: u128, spec: &CostSpec) {
        let most = |gpus: Option<u32>| gpus.map_or(u64::MAX, u64::from);
        let mut free: Vec<u64> = spec.prices.iter().map(|price| most(price.gpus)).collect();
        for (slot, &gpus) in gpus.iter().enumerate() {
            let pool = (slot % self.pools) as u32;
            let mut left = u64::try_from(gpus).expect("nobody leaves who did not come");
            let prices = spec.prices.iter().enumerate();
            for (index, _) in prices.filter(|(_, price)| price.pools.contains(&pool)) {
                let here = left.min(free[index]);
                self.taken[(index * STATES) * self.pools + slot] += u128::from(here) * ps;
                free[index] -= here;
                left -= here;
            }
            assert!(left == 0, "every pool has a price without an end");
        }
        for (index, price) in spec.prices.iter().enumerate() {
            if price.is_reserved {
                self.unused[index] += u128::from(free[index]) * ps;
            }
        }
    }

    /// At a price, in a state, of a pool.
    pub fn taken(&self, price: usize, state: usize, pool: usize) -> u128 {
        self.taken[(price * STATES + state) * self.pools + pool]
    }

    /// At a price.
    pub fn of_price(&self, price: usize) -> u128 {
        let width = STATES * self.pools;
        self.taken[price * width..][..width].iter().sum()
    }

    /// Of reserved GPUs that nobody had.
    pub fn unused(&self, price: usize) -> u128 {
        self.unused[price]
    }
}

/// By moment, from 0 to before `end`: which GPUs came to a state and pool, or left it.
fn changes(recording: &Recording, end: Time, pools: usize) -> BTreeMap<Time, Vec<(usize, i64)>> {
    let mut changes = BTreeMap::from([(Time::ZERO, Vec::new())]);
    let mut stays = |state: usize, pool: u32, gpus: i64, (from, until): (Time, Time)| {
        if from >= until {
            return;
        }
        let slot = state * pools + pool as usize;
        let mut step = |time, step| changes.entry(time).or_default().push((slot, step));
        step(from, gpus);
        if until < end {
            step(until, -gpus);
        }
    };
    match &recording.scaling {
        None => {
            for worker in &recording.workers {
                stays(
                    READY,
                    worker.pool,
                    i64::from(worker.gpus),
                    (Time::ZERO, end),
                );
            }
            for (worker, from, until) in away_of(recording, end) {
                let worker = &recording.workers[worker as usize];
                stays(READY, worker.pool, -i64::from(worker.gpus), (from, until));
            }
        }
        Some(scaling) => {
            let placed = scaling.lives.iter().filter(|life| life.worker != u32::MAX);
            for life in placed {
                let gpus = i64::from(recording.workers[life.worker as usize].gpus);
                let stay = life.stay(end);
                stays(READY, life.pool, gpus, stay.ready);
                stays(DRAINING, life.pool, gpus, stay.draining);
                stays(STARTING, life.pool, gpus, stay.starting);
                stays(STARTING, life.pool, gpus, stay.activating);
                stays(SPARE, life.pool, gpus, stay.spare);
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::{Price, costs};
    use super::*;
    use crate::record::{Outcome, RequestRecord, WorkerRecord};
    use crate::scaling::{Life, ScalingRecord};

    const S: u64 = 1_000_000_000_000;

    fn price(name: &str, usd_per_gpu_hour: f64, gpus: Option<u32>, is_reserved: bool) -> Price {
        Price {
            name: name.to_owned(),
            usd_per_gpu_hour,
            gpus,
            is_reserved,
            pools: vec![0],
            spot: None,
            source: None,
        }
    }

    /// A run of an hour with one request of 600,000 prompt and 400,000 generated tokens.
    fn recording(lives: &[[u64; 4]]) -> Recording {
        let at = |s: u64| {
            if s == u64::MAX {
                Time::MAX
            } else {
                Time(s * S)
            }
        };
        let life = |(worker, moments): (u32, &[u64; 4])| {
            let [placed, ready, drained, gone] = moments.map(at);
            Life {
                worker,
                placed,
                ready,
                drained,
                gone,
                ..Life::of(0, placed)
            }
        };
        let worker = WorkerRecord {
            gpus: 2,
            ..WorkerRecord::default()
        };
        Recording {
            requests: vec![RequestRecord {
                arrival: Time::ZERO,
                placed: Time::ZERO,
                first_scheduled: Time::ZERO,
                first_token: at(1),
                finish: at(3600),
                worker: 0,
                input_tokens: 600_000,
                output_tokens: 400_000,
                cached_tokens: 0,
                router_overlap_tokens: 0,
                preemptions: 0,
                outcome: Outcome::Completed,
                is_warmup: false,
            }],
            workers: vec![worker; lives.len()],
            scaling: Some(ScalingRecord {
                lives: (0..).zip(lives).map(life).collect(),
                ..ScalingRecord::new("test")
            }),
            ..Recording::default()
        }
    }

    #[test]
    fn what_is_more_than_reserved_is_paid_by_the_hour() {
        const NEVER: u64 = u64::MAX;
        // Two GPUs serve all the time; two start for 600 s, serve 1,200 s and drain 600 s, then nobody has them.
        let run = recording(&[[0, 0, NEVER, NEVER], [0, 600, 1800, 2400]]);
        let spec = CostSpec {
            prices: vec![
                price("reserved", 2.0, Some(3), true),
                price("on demand", 6.0, None, false),
            ],
        };
        let told = costs(&run, &spec, &["agg".to_owned()], Some(1));
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        };
        // Reserved: three GPUs for an hour, of which one is nobody's for the last 1,200 s. Above them one GPU for 2,400 s.
        near(told.prices[0].gpu_hours, 2.0 + 2.0 / 3.0);
        near(told.prices[0].unused_gpu_hours, 1.0 / 3.0);
        near(told.prices[0].usd, 6.0);
        near(told.prices[1].gpu_hours, 2.0 / 3.0);
        near(told.prices[1].usd, 4.0);
        near(told.usd, 10.0);
        near(told.unused_usd, 2.0 / 3.0);
        // Starting: one GPU at each price for 600 s. Draining likewise. Serving: three and one for 1,200 s, else two.
        let pool = &told.pools[0];
        near(pool.starting_usd, (2.0 + 6.0) / 6.0);
        near(pool.draining_usd, (2.0 + 6.0) / 6.0);
        near(pool.ready_usd, 2.0 * 2.0 + (2.0 + 6.0) / 3.0);
        let states = pool.starting_usd + pool.ready_usd + pool.draining_usd;
        near(states + told.unused_usd, told.usd);
        near(told.usd_per_hour, 10.0);
        near(told.usd_per_million_tokens, 10.0);
        near(told.usd_per_million_output_tokens, 25.0);
        near(told.usd_per_thousand_good_requests.unwrap(), 10_000.0);
    }

    #[test]
    fn spares_are_paid_while_they_are_warm() {
        let mut run = recording(&[[0, 0, u64::MAX, u64::MAX], [0, 2100, u64::MAX, u64::MAX]]);
        let scaling = run.scaling.as_mut().expect("it has one");
        // Starts for 600 s, is a spare for 1,200 s, is called in for 300 s, serves for 1,500 s.
        (scaling.lives[1].warm, scaling.lives[1].called) = (Time(600 * S), Time(1800 * S));
        let spec = CostSpec {
            prices: vec![price("all", 3.0, None, false)],
        };
        let told = costs(&run, &spec, &["agg".to_owned()], None);
        let pool = &told.pools[0];
        // Two GPUs at $3 an hour each.
        for (found, expected) in [
            (pool.starting_usd, 6.0 * 900.0 / 3600.0),
            (pool.spare_usd, 6.0 * 1200.0 / 3600.0),
            (pool.ready_usd, 6.0 + 6.0 * 1500.0 / 3600.0),
            (told.usd, 12.0),
        ] {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        }
    }

    #[test]
    fn workers_that_stay_cost_what_gpu_hours_say() {
        let run = Recording {
            scaling: None,
            ..recording(&[[0, 0, 0, 0], [0, 0, 0, 0]])
        };
        let spec = CostSpec {
            prices: vec![price("all", 3.0, None, false)],
        };
        let told = costs(&run, &spec, &["agg".to_owned()], None);
        // Four GPUs for an hour.
        assert_eq!(told.usd, 12.0);
        assert_eq!(told.pools[0].ready_usd, 12.0);
        assert_eq!(told.usd_per_thousand_good_requests, None);
    }
}
