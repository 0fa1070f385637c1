//! Measurements on either side of a real run, and the run simulated with them, at the pace that its workers had.
//!
//! In words: steps are measured before and after the run, as a calibration measures them. The time of each is divided by the
//! pace around it ([`pace`], a mean over five probes), and a profile is fitted: what steps take while nobody disturbs the
//! machine. Steps need not slow down just as the probe does: the power of the pace that explains the measurements best is
//! taken ([`power`]). Of the run the
//! simulation is told the pace of each worker by windows of a tenth of a second, in which it is a straggler by so much. How
//! long the run's own steps were it is not told. The same measurements as they are give a second profile, of one pace: what
//! a calibration beside the run would have forecast.

use super::passed::{Priced, price};
use super::{Run, with_profile};
use crate::cli::Failure;
use crate::cli::calibrate::collect::{Effort, limits, measure, workers};
use crate::cli::real::pace::{Course, fastest, pace};
use crate::cli::real::{Device, Machine};
use calibration::FittedProfile;
use calibration::fit_steps::fit;
use calibration::fitted::{Term, step_us};
use calibration::log_file::LogFile;
use calibration::step_log::StepLog;
use engine::{Span, Time};
use serde::Deserialize;
use serde_json::{Value, json};
use sim::adversity::faults::{Fault, FaultKind};
use sim::live::RealStep;
use std::collections::BTreeMap;
use sweeps::scenario::Scenario;
use sweeps::simulate::{Simulation, Steps};
use sweeps::workloads::Loaded;

/// How long the last stretch of a run lasts, should its simulation take longer.
const DAY: Span = Span::from_ns(86_400_000_000_000);

/// What was measured on one side of a run.
pub struct Side {
    log: StepLog,
    /// By observation of the log.
    probes: Vec<Probed>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Probed {
    worker_id: String,
    probe_s: f64,
}

/// Least and greatest power that is believed: where the pace changes little, what single probes are off by makes it look smaller.
const POWERS: (f64, f64) = (0.7, 1.25);
/// Standard deviation of the logarithm of the pace below which no power is told.
const LEAST_SPREAD: f64 = 0.05;
/// Probes before a step's own, and as many after it, that tell its pace with it: a single one is off by as much as a step.
const NEIGHBOURS: usize = 2;

/// The pace around each of the steps of one worker, in their order.
fn around(probes: &[f64], fastest_s: f64) -> Vec<f64> {
    // Steps between two probes have the same.
    let mut numbers = Vec::new();
    let mut paces: Vec<f64> = Vec::new();
    for (index, probe_s) in probes.iter().enumerate() {
        if index == 0 || *probe_s != probes[index - 1] {
            paces.push(pace(*probe_s, fastest_s));
        }
        numbers.push(paces.len() - 1);
    }
    let mean = |number: usize| {
        let last = (number + NEIGHBOURS).min(paces.len() - 1);
        let near = &paces[number.saturating_sub(NEIGHBOURS)..=last];
        near.iter().sum::<f64>() / near.len() as f64
    };
    numbers.into_iter().map(mean).collect()
}

impl Side {
    /// Measures for so many seconds.
    ///
    /// # Errors
    /// A worker that gives up, or fewer steps than a log needs.
    pub fn measure(
        machine: &Machine,
        scenario: &Scenario,
        device: Device,
        budget_s: f64,
    ) -> Result<Side, Failure> {
        let limits = limits(scenario)?;
        let workers = workers(machine, scenario, &limits)?;
        let mut rows = Vec::new();
        let effort = Effort {
            device,
            budget_s,
            per_op: false,
        };
        measure(machine, scenario, &limits, workers, effort, &mut rows)?;
        Side::of_rows(&String::from_utf8(rows).expect("JSON is UTF-8"))
    }

    fn of_rows(text: &str) -> Result<Side, Failure> {
        let log = StepLog::parse(&LogFile::from_text("steps measured beside a run", text));
        let log = log.map_err(|error| Failure::run(error.to_string()))?;
        let lines: Vec<&str> = text.lines().collect();
        let probe = |line: usize| {
            let row = serde_json::from_str::<Probed>(lines[line - 1]);
            row.expect("every row that is measured has its probe")
        };
        let probes = log.observations.iter().map(|one| probe(one.line));
        let probes = probes.collect();
        Ok(Side { log, probes })
    }

    /// By observation, how much longer everything took.
    fn paces(&self, fastest_s: f64) -> Vec<f64> {
        let mut by_worker: BTreeMap<&str, (Vec<usize>, Vec<f64>)> = BTreeMap::new();
        for (index, probed) in self.probes.iter().enumerate() {
            let (indices, probes) = by_worker.entry(&probed.worker_id).or_default();
            indices.push(index);
            probes.push(probed.probe_s);
        }
        let mut paces = vec![1.0; self.probes.len()];
        for (indices, probes) in by_worker.into_values() {
            for (index, pace) in indices.into_iter().zip(around(&probes, fastest_s)) {
                paces[index] = pace;
            }
        }
        paces
    }

    /// What would have been measured, had nobody disturbed the machine.
    fn undisturbed(&self, fastest_s: f64, power: f64) -> StepLog {
        let mut log = self.log.clone();
        for (observation, pace) in log.observations.iter_mut().zip(self.paces(fastest_s)) {
            let pace = pace.powf(power);
            // A straggler's step is slower as a whole, the host's part too.
            observation.seconds /= pace;
            observation.host_seconds = observation.host_seconds.map(|host| host / pace);
        }
        log
    }
}

/// The power of the pace by which steps slow down: the slope of log(measured over priced) over log(pace), where the prices are
/// of a profile for the undisturbed machine. 1 where the pace hardly changes.
fn power(sides: &[Side], profile: &FittedProfile, fastest_s: f64) -> f64 {
    let formula = profile.formula();
    let is_computed = |term: &Term| !matches!(term, Term::HostStep | Term::HostSequence);
    let formula: Vec<(Term, f64)> = formula
        .into_iter()
        .filter(|(term, _)| is_computed(term))
        .collect();
    let of_side = |side: &Side| {
        let observations = side.log.observations.iter();
        let logs = observations.zip(side.paces(fastest_s)).map(|(one, pace)| {
            let priced_s = 1e-6 * step_us(&formula, &one.work);
            (pace.ln(), (one.seconds / priced_s).ln())
        });
        logs.collect::<Vec<(f64, f64)>>()
    };
    let points: Vec<(f64, f64)> = sides.iter().flat_map(of_side).collect();
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let square: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let product: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    if (square / count).sqrt() < LEAST_SPREAD {
        return 1.0;
    }
    (product / square).clamp(POWERS.0, POWERS.1)
}

/// A run simulated with what was measured around it.
pub struct Around {
    /// At the pace that its workers had.
    pub paced: Run,
    /// At one pace.
    pub even: Run,
    /// Of its workers.
    pub paces: Paces,
    simulation: Simulation,
    courses: Vec<Course>,
}

impl Around {
    /// The run between two sides.
    ///
    /// # Errors
    /// Measurements that are too few for a fit.
    pub fn of(
        sides: &[Side],
        run: &Run,
        scenario: &Scenario,
        loaded: &Loaded,
    ) -> Result<Around, Failure> {
        let probed = run.paces.iter().flatten();
        let probed = probed
            .filter(|one| one.spent_s > 0.0)
            .map(|one| one.probe_s);
        let beside = sides.iter().flat_map(|side| &side.probes);
        let fastest_s = fastest(beside.map(|one| one.probe_s).chain(probed).collect());
        let logs: Vec<StepLog> = sides.iter().map(|side| side.log.clone()).collect();
        let undisturbed = |power: f64| {
            let logs = sides.iter().map(|side| side.undisturbed(fastest_s, power));
            fitted(&logs.collect::<Vec<StepLog>>())
        };
        let power = power(sides, &undisturbed(1.0)?, fastest_s);
        let profile = undisturbed(power)?;
        let courses: Vec<Course> = (0..run.paces.len())
            .map(|worker| {
                let steps = run.steps.iter();
                let steps = steps.filter(|step| step.worker.0 as usize == worker);
                Course::of(steps.zip(&run.paces[worker]), fastest_s, power)
            })
            .collect();
        let simulation = |profile: &FittedProfile, courses: &[Course]| {
            let mut scenario = with_profile(scenario, profile);
            scenario.adversity.faults.timeline = stragglers(courses);
            Simulation::new(&scenario, loaded, Steps::Coasting)
                .map_err(|error| Failure::run(error.to_string()))
        };
        let beside = sides.iter().flat_map(|side| side.paces(fastest_s));
        let beside: Vec<f64> = beside.map(|pace| pace.powf(power)).collect();
        let even = simulation(&fitted(&logs)?, &[])?;
        let paced = simulation(&profile, &courses)?;
        Ok(Around {
            even: Run::of(even.run(), &even),
            paced: Run::of(paced.run(), &paced),
            simulation: paced,
            paces: Paces::of(&courses, &beside, power),
            courses,
        })
    }

    /// What the simulation takes the very same steps to last, in seconds.
    pub fn price(&self, steps: &[RealStep]) -> Vec<Priced> {
        let prices = price(steps, self.simulation.timing()[0].as_ref());
        let at = |step: &RealStep| self.courses[step.worker.0 as usize].at(step.began.as_s());
        prices
            .iter()
            .zip(steps)
            .map(|(price, step)| price * at(step))
            .collect()
    }
}

fn fitted(logs: &[StepLog]) -> Result<FittedProfile, Failure> {
    let fitted = fit(logs).map_err(|error| {
        Failure::run(format!(
            "{error}; a larger --calibrate-s measures more steps"
        ))
    });
    Ok(fitted?.profile)
}

/// The courses of all workers as a script.
fn stragglers(courses: &[Course]) -> Vec<Fault> {
    let time = |seconds: f64| Time(Span::from_s(seconds).0);
    let of_worker = |(worker, course): (u32, &Course)| {
        let stretches = course.stretches().into_iter();
        let faults = stretches.filter_map(move |(begins, ends, factor)| {
            let percent = (100.0 * factor).round() as u32;
            (percent > 100).then(|| Fault {
                at: time(begins),
                kind: FaultKind::Straggler { percent },
                worker,
                lasts: ends.map_or(DAY, |ends| time(ends).since(time(begins))),
            })
        });
        faults.collect::<Vec<Fault>>()
    };
    (0..).zip(courses).flat_map(of_worker).collect()
}

/// How fast the machine was during a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paces {
    /// Of the steps measured on either side, in the mean: how much longer they took than on the undisturbed machine.
    beside: f64,
    /// The same of the run, over its windows: mean, tenth and ninetieth percentile.
    run: [f64; 3],
    /// Of the probe's slow-down that steps have.
    power: f64,
}

impl Paces {
    fn of(courses: &[Course], beside: &[f64], power: f64) -> Paces {
        let mut all: Vec<f64> = courses
            .iter()
            .flat_map(|course| course.factors().to_vec())
            .collect();
        all.sort_by(f64::total_cmp);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let at = |share: f64| {
            let index = (all.len() as f64 * share) as usize;
            all.get(index).copied().unwrap_or(1.0)
        };
        Paces {
            beside: mean(beside),
            run: [mean(&all), at(0.1), at(0.9)],
            power,
        }
    }

    /// For reports.
    pub fn as_json(&self) -> Value {
        let [mean, p10, p90] = self.run;
        json!({
            "measurements_mean": self.beside, "run_mean": mean, "run_p10": p10, "run_p90": p90, "power": self.power,
        })
    }

    /// A line.
    pub fn in_words(&self) -> String {
        let [mean, p10, p90] = self.run;
        format!(
            "steps took {mean:.2} times as long as on the undisturbed machine ({p10:.2} at the tenth, {p90:.2} at the ninetieth \
             percentile), {:.2} times during the measurements, by probes to the power of {:.2}",
            self.beside, self.power
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::real::pace::Beside;
    use crate::cli::real::steps::{Held, line};
    use calibration::Fitted;
    use sim::event::WorkerId;

    const PROBE_S: f64 = 5e-5;
    const POWER: f64 = 0.8;

    /// A machine on which a step takes 100 us and 10 us for each sequence, at a pace that changes, less than the probe.
    fn seconds(batch: u32, pace: f64) -> f64 {
        (1e-4 + 1e-5 * f64::from(batch)) * pace.powf(POWER)
    }

    /// 800 steps, a quarter of them at twice the time.
    fn side() -> Side {
        let row = |index: u64| {
            let pace = if index / 100 % 4 == 3 { 2.0 } else { 1.0 };
            let batch = 1 + (index * 7 % 16) as u32;
            let held = Held {
                prefill: &[],
                decode_batch: batch,
                decode_context: u64::from(batch) * 100,
            };
            let mut row = line(0, index + 1, seconds(batch, pace), held);
            // Probes that are measured differ, if by little.
            row["probe_s"] = json!(PROBE_S * pace * (1.0 + 1e-9 * index as f64));
            format!("{row}\n")
        };
        Side::of_rows(&(0..800).map(row).collect::<String>()).expect("rows")
    }

    /// A run of one second, the second half of it at a pace of 1.5; every fourth step is probed, which takes 0.9 % of the time.
    fn run() -> Vec<(RealStep, Beside)> {
        let (mut at, mut steps) = (0.0, Vec::new());
        while at < 1.0 {
            let pace = if at < 0.5 { 1.0 } else { 1.5 };
            let batch = 1 + (steps.len() % 8) as u32;
            let computed = seconds(batch, pace);
            let spent_s = if steps.len() % 4 == 0 {
                0.04 * computed
            } else {
                0.0
            };
            let time = |seconds: f64| Time(Span::from_s(seconds).0);
            let step = RealStep {
                worker: WorkerId(0),
                handed_over: time(at),
                ready: time(at),
                began: time(at),
                end: time(at + computed + spent_s),
                prefill: Vec::new(),
                decode_batch: batch,
                decode_context: u64::from(batch) * 100,
                samples: batch as usize,
            };
            let probe_s = PROBE_S * pace;
            steps.push((step, Beside { probe_s, spent_s }));
            at += computed + spent_s;
        }
        steps
    }

    #[test]
    fn a_pace_that_is_told_explains_what_one_pace_cannot() {
        let (side, run) = (side(), run());
        let probes = side.probes.iter().map(|one| one.probe_s);
        let fastest_s = fastest(
            probes
                .chain(run.iter().map(|(_, beside)| beside.probe_s))
                .collect(),
        );
        assert!((fastest_s / PROBE_S - 1.0).abs() < 1e-6);
        let profile = fitted(&[side.undisturbed(fastest_s, 1.0)]);
        let profile = profile.unwrap_or_else(|_| panic!("a fit"));
        let power = power(std::slice::from_ref(&side), &profile, fastest_s);
        // Steps beside a change of pace have a mean of both.
        assert!((power - POWER).abs() < 0.02, "{power}");
        let observed = run.iter().map(|(step, beside)| (step, beside));
        let course = Course::of(observed, fastest_s, power);
        let steps: Vec<RealStep> = run.iter().map(|(step, _)| step.clone()).collect();
        let measured: f64 = steps.iter().map(|step| step.wall_time().as_s()).sum();
        let profile = fitted(&[side.undisturbed(fastest_s, power)]);
        let profile = profile.unwrap_or_else(|_| panic!("a fit"));
        let prices = price(&steps, &Fitted::new(&profile));
        let paced = prices.iter().zip(&steps);
        let paced: f64 = paced
            .map(|(price, step)| price * course.at(step.began.as_s()))
            .sum();
        assert!((paced / measured - 1.0).abs() < 0.01, "{paced} {measured}");
        // The fit to what was measured is robust: it says little of the quarter that was slow.
        let profile = fitted(std::slice::from_ref(&side.log)).unwrap_or_else(|_| panic!("a fit"));
        let even: f64 = price(&steps, &Fitted::new(&profile)).iter().sum();
        assert!((even / measured - 1.0).abs() > 0.05, "{even} {measured}");
    }

    #[test]
    fn the_pace_around_a_step_is_that_of_five_probes() {
        // Three steps beside the first probe, one beside each of the others.
        let probes = [1.0, 1.0, 1.0, 2.0, 1.5, 9.0, 1.0];
        let found = around(&probes, 1.0);
        let first = 4.5 / 3.0;
        // The fourth was interrupted and counts as three times the fastest.
        let expected = [
            first,
            first,
            first,
            7.5 / 4.0,
            8.5 / 5.0,
            7.5 / 4.0,
            5.5 / 3.0,
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        assert_eq!(around(&[], 1.0), Vec::<f64>::new());
    }

    #[test]
    fn a_course_is_a_script_of_stragglers() {
        let run = run();
        let observed = run.iter().map(|(step, beside)| (step, beside));
        let course = Course::of(observed, PROBE_S, POWER);
        let script = stragglers(&[course.clone(), course]);
        // Ten windows of each worker, 0.9 % for probing; the last has no end.
        assert_eq!(script.len(), 20);
        let percents: Vec<FaultKind> = script[..10].iter().map(|fault| fault.kind).collect();
        let expected = [[101; 5], [140; 5]].concat();
        let expected = expected
            .into_iter()
            .map(|percent| FaultKind::Straggler { percent });
        assert_eq!(percents, expected.collect::<Vec<_>>());
        assert_eq!(script[3].at, Time(Span::from_s(0.3).0));
        assert_eq!((script[9].lasts, script[10].worker), (DAY, 1));
    }
}
