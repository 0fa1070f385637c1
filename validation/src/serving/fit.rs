//! Parameters that no column holds, found by making the simulations fit.
//!
//! Host times per engine and recipes of AIPerf's sweeps; nothing per model. The loss of a row is
//! `min(|ln(TPOT / measured)|, 0.8) + min(|ln(TTFT / measured)|, 1.5) / 2`: absolute, so that half of the rows may be odd,
//! and bounded, so that a few absurd ones cannot pull. It is lowered one parameter at a time: the next smaller or larger
//! of a fixed list of values, for as long as that helps, again and again until nothing does. Of the ends of three such
//! descents the best one counts: one alone ends where it began to go wrong. Deterministic, and no finer than the data are.
//!
//! [`leave_out`] fits on all groups of rows but one and predicts that one, for each group: what a prediction is worth for
//! a model, or a GPU, that was not there.

use super::recipe::{Harness, Recipe, Source};
use super::rows::Row;
use super::simulate::{Prediction, Subject};
use calibration::measured::HostTimes;
use calibration::tables::Backend;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

const STEP_US: &[f64] = &[
    0.0, 250.0, 500.0, 750.0, 1_000.0, 1_250.0, 1_500.0, 2_000.0, 2_500.0, 3_000.0,
];
const SEQUENCE_US: &[f64] = &[
    0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 60.0,
];
const PREFILL_STEP_US: &[f64] = &[0.0, 1_000.0, 2_000.0, 4_000.0, 6_000.0, 8_000.0];
const REQUEST_US: &[f64] = &[250.0, 500.0, 1_000.0, 2_000.0, 3_000.0, 5_000.0];
const PROMPT_TOKEN_US: &[f64] = &[0.0, 0.25, 0.5, 1.0, 2.0];
const ENTRY_US: &[f64] = &[0.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 30_000.0];
const DISTINCT_PROMPTS: &[f64] = &[0.0, 100.0];
/// The last is the engine's default.
const PROMPTS_PER_STEP: &[f64] = &[1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 0.0];
/// What a step must lower the loss by: less is noise of these rows, and no better for others.
const LEAST_GAIN: f64 = 1e-4;
/// Most rounds over all parameters.
const ROUNDS: usize = 8;

/// Recipes as fitted on all public rows: engine, whether lengths are round, entry, distinct prompts, prompts per step; those of
/// InferenceX are known.
const BUILT_IN: [(Backend, bool, f64, u32, f64); 6] = [
    (Backend::Vllm, false, 0.0, 0, 1.25),
    (Backend::Vllm, true, 0.0, 100, 1.25),
    (Backend::Sglang, false, 5_000.0, 0, 0.0),
    (Backend::Sglang, true, 5_000.0, 100, 0.0),
    (Backend::Trtllm, false, 5_000.0, 0, 2.0),
    (Backend::Trtllm, true, 5_000.0, 100, 2.0),
];

/// All that is fitted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    /// By engine.
    pub hosts: BTreeMap<Backend, HostTimes>,
    /// By source.
    pub recipes: BTreeMap<Source, Recipe>,
}

/// Rows with their simulations, and every prediction made so far.
pub struct Fitted<'a> {
    /// The rows that can be simulated.
    pub rows: Vec<(&'a Row, Subject)>,
    known: Mutex<BTreeMap<Key, Prediction>>,
}

/// A row under its parameters, floats by their bits.
type Key = (usize, [u64; 7], u32);

impl Parameters {
    /// Those that come with the program: fitted on 2026-11-21 on all public rows that could be simulated.
    #[must_use]
    pub fn built_in() -> Parameters {
        Parameters {
            hosts: Backend::ALL
                .map(|backend| (backend, HostTimes::of(backend)))
                .into(),
            recipes: BUILT_IN
                .map(
                    |(backend, has_round_lengths, entry_us, distinct_prompts, prompts_per_step)| {
                        let source = Source {
                            harness: Harness::Aiperf,
                            backend,
                            has_round_lengths,
                        };
                        let recipe = Recipe {
                            entry_us,
                            distinct_prompts,
                            prompts_per_step,
                            ..Harness::Aiperf.known()
                        };
                        (source, recipe)
                    },
                )
                .into(),
        }
    }

    /// The built-in recipes on kernels alone.
    #[must_use]
    pub fn without_host() -> Parameters {
        Parameters {
            hosts: Backend::ALL
                .map(|backend| (backend, HostTimes::ZERO))
                .into(),
            ..Parameters::built_in()
        }
    }

    /// A line for each engine and source.
    #[must_use]
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        for (backend, host) in &self.hosts {
            let fields = host.fields().map(|(name, us)| format!("{name} {us}"));
            text.push_str(&format!(
                "host times of {}: {}\n",
                backend.name(),
                fields.join(", ")
            ));
        }
        for (source, recipe) in &self.recipes {
            let prompts = match recipe.distinct_prompts {
                0 => "a prompt for each".to_owned(),
                count => format!("{count} prompts in turn"),
            };
            let steps = if recipe.prompts_per_step > 0.0 {
                format!("{} prompts a step", recipe.prompts_per_step)
            } else {
                "8192 tokens a step".to_owned()
            };
            text.push_str(&format!(
                "recipe of {source}: lengths from {} of the given ones, {} us between requests, {prompts}, {steps}\n",
                recipe.shortest, recipe.entry_us
            ));
        }
        text
    }

    /// The same as JSON.
    #[must_use]
    pub fn as_json(&self) -> serde_json::Value {
        let hosts = self
            .hosts
            .iter()
            .map(|(backend, host)| (backend.name().to_owned(), serde_json::json!(host)));
        let recipes = self
            .recipes
            .iter()
            .map(|(source, recipe)| (source.to_string(), serde_json::json!(recipe)));
        serde_json::json!({
            "host_times": hosts.collect::<serde_json::Map<_, _>>(),
            "recipes": recipes.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// Host times of an engine.
    #[must_use]
    pub fn host(&self, backend: Backend) -> HostTimes {
        let fitted = self.hosts.get(&backend);
        fitted.copied().unwrap_or(HostTimes::of(backend))
    }

    /// How a source runs benchmarks; what is known of it where nothing was fitted.
    #[must_use]
    pub fn recipe(&self, source: Source) -> Recipe {
        let fitted = self.recipes.get(&source);
        fitted.copied().unwrap_or_else(|| source.harness.known())
    }
}

impl<'a> Fitted<'a> {
    /// Rows to be predicted.
    #[must_use]
    pub fn new(rows: Vec<(&'a Row, Subject)>) -> Fitted<'a> {
        Fitted {
            rows,
            known: Mutex::default(),
        }
    }

    /// The prediction of a row, by its index.
    #[must_use]
    pub fn predict(&self, index: usize, parameters: &Parameters) -> Prediction {
        let (row, subject) = &self.rows[index];
        let source = subject.source;
        let (host, recipe) = (parameters.host(source.backend), parameters.recipe(source));
        let [a, b, c, d, e] = host.fields().map(|(_, us)| us.to_bits());
        let key = (
            index,
            [
                [a, b, c, d, e].as_slice(),
                &[recipe.prompts_per_step.to_bits(), recipe.entry_us.to_bits()],
            ]
            .concat()
            .try_into()
            .expect("seven of them"),
            recipe.distinct_prompts,
        );
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(&key) {
            return *found;
        }
        let found = subject.run(row, host, recipe);
        known().insert(key, found);
        found
    }

    /// The predictions of all rows.
    #[must_use]
    pub fn predict_all(&self, parameters: &Parameters) -> Vec<Prediction> {
        (0..self.rows.len())
            .into_par_iter()
            .map(|index| self.predict(index, parameters))
            .collect()
    }

    /// Fits on the rows with these indices: the best of the descents from all starts.
    #[must_use]
    pub fn fit(&self, rows: &[usize]) -> Parameters {
        let descents = STARTS.map(|start| self.descend(rows, start));
        let [first, rest @ ..] = descents;
        // The first of the best.
        rest.into_iter()
            .fold(
                first,
                |best, other| if other.0 < best.0 { other } else { best },
            )
            .1
    }

    /// The loss that cannot be lowered by turning one parameter, and where that is.
    fn descend(&self, rows: &[usize], (host, recipe): (HostTimes, Recipe)) -> (f64, Parameters) {
        // Also those that none of these rows is from: they share parameters with others.
        let sources: BTreeSet<Source> = self.rows.iter().map(|(_, one)| one.source).collect();
        let mut parameters = Parameters::default();
        for backend in Backend::ALL {
            parameters.hosts.insert(backend, host);
        }
        for &source in &sources {
            let start = match source.harness {
                Harness::Inferencex => source.harness.known(),
                Harness::Aiperf => recipe,
            };
            parameters.recipes.insert(source, start);
        }
        let mut least = self.loss(rows, &parameters);
        for _ in 0..ROUNDS {
            let before = least;
            for knob in knobs(&sources) {
                for step in [1, -1] {
                    while let Some(turned) = knob.turned(&parameters, step) {
                        let loss = self.loss(rows, &turned);
                        if loss > least - LEAST_GAIN {
                            break;
                        }
                        (least, parameters) = (loss, turned);
                    }
                }
            }
            if least == before {
                break;
            }
        }
        (least, parameters)
    }

    fn loss(&self, rows: &[usize], parameters: &Parameters) -> f64 {
        let losses: Vec<f64> = rows
            .par_iter()
            .map(|&index| {
                let (found, real) = (
                    self.predict(index, parameters).pair,
                    self.rows[index].0.measured,
                );
                let tpot = (found.tpot_ms / real.tpot_ms).ln().abs();
                let ttft = (found.ttft_ms / real.ttft_ms).ln().abs();
                tpot.min(0.8) + 0.5 * ttft.min(1.5)
            })
            .collect();
        // Summed in order: the same on any number of threads.
        losses.iter().sum::<f64>() / rows.len() as f64
    }
}

/// Where searches begin: a host that is busy with steps, one busy with sequences, one that hardly matters.
const STARTS: [(HostTimes, Recipe); 3] = [
    start([1_000.0, 25.0, 4_000.0, 2_000.0, 0.25], 100, 2.0),
    start([500.0, 40.0, 8_000.0, 1_000.0, 0.5], 0, 1.25),
    start([250.0, 5.0, 8_000.0, 3_000.0, 0.25], 100, 0.0),
];

const fn start(
    host: [f64; 5],
    distinct_prompts: u32,
    prompts_per_step: f64,
) -> (HostTimes, Recipe) {
    let [
        step_us,
        sequence_us,
        prefill_step_us,
        request_us,
        prompt_token_us,
    ] = host;
    (
        HostTimes {
            step_us,
            sequence_us,
            prefill_step_us,
            request_us,
            prompt_token_us,
        },
        Recipe {
            shortest: 1.0,
            entry_us: 0.0,
            distinct_prompts,
            prompts_per_step,
        },
    )
}

/// A parameter and the values it may take.
struct Knob {
    what: What,
    values: &'static [f64],
}

/// A host time among those of an engine.
type HostField = fn(&mut HostTimes) -> &mut f64;

enum What {
    Host(Backend, HostField),
    /// Of these sources, which agree on it.
    Recipe(Vec<Source>, fn(&Recipe) -> f64, fn(&mut Recipe, f64)),
}

impl Knob {
    /// The parameters with this one set to the next value up or down; none at the end of its list.
    fn turned(&self, parameters: &Parameters, step: isize) -> Option<Parameters> {
        let now = match &self.what {
            What::Host(backend, field) => *field(&mut parameters.host(*backend)),
            What::Recipe(sources, get, _) => get(&parameters.recipe(sources[0])),
        };
        let place = self.values.iter().position(|&value| value == now)?;
        let value = *self.values.get(place.checked_add_signed(step)?)?;
        let mut turned = parameters.clone();
        match &self.what {
            What::Host(backend, field) => {
                let mut host = parameters.host(*backend);
                *field(&mut host) = value;
                turned.hosts.insert(*backend, host);
            }
            What::Recipe(sources, _, set) => {
                for source in sources {
                    let recipe = turned.recipes.entry(*source).or_insert(STARTS[0].1);
                    set(recipe, value);
                }
            }
        }
        Some(turned)
    }
}

/// All parameters, in a fixed order. What InferenceX does is known.
fn knobs(sources: &BTreeSet<Source>) -> Vec<Knob> {
    let aiperf = || {
        sources
            .iter()
            .filter(|source| source.harness == Harness::Aiperf)
    };
    let of_sweep = |has_round_lengths| -> Vec<Source> {
        let of_it = |source: &&Source| source.has_round_lengths == has_round_lengths;
        aiperf().filter(of_it).copied().collect()
    };
    let backends: BTreeSet<Backend> = sources.iter().map(|source| source.backend).collect();
    let mut knobs = Vec::new();
    let mut recipe = |sources: Vec<Source>, get, set, values| {
        if !sources.is_empty() {
            let what = What::Recipe(sources, get, set);
            knobs.push(Knob { what, values });
        }
    };
    for has_round_lengths in [false, true] {
        recipe(
            of_sweep(has_round_lengths),
            |recipe| f64::from(recipe.distinct_prompts),
            |recipe, value| recipe.distinct_prompts = value as u32,
            DISTINCT_PROMPTS,
        );
    }
    for &backend in &backends {
        let of_engine = || -> Vec<Source> {
            aiperf()
                .filter(|source| source.backend == backend)
                .copied()
                .collect()
        };
        recipe(
            of_engine(),
            |recipe| recipe.prompts_per_step,
            |recipe, value| recipe.prompts_per_step = value,
            PROMPTS_PER_STEP,
        );
        recipe(
            of_engine(),
            |recipe| recipe.entry_us,
            |recipe, value| recipe.entry_us = value,
            ENTRY_US,
        );
    }
    for backend in backends {
        let fields: [(HostField, &'static [f64]); 5] = [
            (|host| &mut host.sequence_us, SEQUENCE_US),
            (|host| &mut host.step_us, STEP_US),
            (|host| &mut host.prefill_step_us, PREFILL_STEP_US),
            (|host| &mut host.request_us, REQUEST_US),
            (|host| &mut host.prompt_token_us, PROMPT_TOKEN_US),
        ];
        knobs.extend(fields.map(|(field, values)| Knob {
            what: What::Host(backend, field),
            values,
        }));
    }
    knobs
}

/// Predictions of each row by parameters fitted on the rows of all groups but its own.
#[must_use]
pub fn leave_out(fitted: &Fitted<'_>, group: impl Fn(&Row) -> String) -> Vec<Prediction> {
    let groups: Vec<String> = fitted.rows.iter().map(|(row, _)| group(row)).collect();
    let names: BTreeSet<&String> = groups.iter().collect();
    let mut predictions: Vec<Option<Prediction>> = vec![None; groups.len()];
    for name in names {
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..groups.len()).partition(|&index| groups[index] == *name);
        let parameters = fitted.fit(&outside);
        for index in inside {
            predictions[index] = Some(fitted.predict(index, &parameters));
        }
    }
    predictions
        .into_iter()
        .map(|prediction| prediction.expect("every row is in a group"))
        .collect()
}
