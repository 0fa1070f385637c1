//! Parameters that no column holds, found by making the simulations fit.
//!
//! Host times per engine and a recipe per harness and engine, nothing per model. The loss of a row is
//! `min(|ln(TPOT / measured)|, 0.8) + min(|ln(TTFT / measured)|, 1.5) / 2`: absolute, so that half of the rows may be odd,
//! and bounded, so that a few absurd ones cannot pull. It is lowered one parameter at a time over a fixed list of values,
//! again and again until none helps: deterministic, and no finer than the data are.
//!
//! Engines share no parameter, so each is fitted alone. [`leave_out`] fits on all groups of rows but one and predicts that
//! one, for each group: what a prediction is worth for a model, or a GPU, that was not there.

use super::recipe::{Harness, Recipe, Source};
use super::rows::Row;
use super::simulate::{Prediction, Subject};
use calibration::measured::HostTimes;
use calibration::tables::Backend;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

const STEP_US: [f64; 9] = [0.0, 250.0, 500.0, 750.0, 1_000.0, 1_250.0, 1_500.0, 2_000.0, 3_000.0];
const SEQUENCE_US: [f64; 9] = [0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0];
const PREFILL_STEP_US: [f64; 8] = [0.0, 1_000.0, 2_000.0, 4_000.0, 6_000.0, 8_000.0, 12_000.0, 16_000.0];
const REQUEST_US: [f64; 7] = [500.0, 1_000.0, 2_000.0, 3_000.0, 5_000.0, 8_000.0, 12_000.0];
const PROMPT_TOKEN_US: [f64; 7] = [0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0];
const SHORTEST: [f64; 9] = [0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 1.0];
const REQUESTS_PER_CLIENT: [u32; 5] = [2, 3, 5, 10, 20];
/// Recipes as fitted on all public rows.
const BUILT_IN: [(Harness, Backend, f64, u32); 0] = [];
/// Most rounds over all parameters.
const ROUNDS: usize = 4;

/// All that is fitted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    /// By engine.
    pub hosts: BTreeMap<Backend, HostTimes>,
    /// By harness and engine.
    pub recipes: BTreeMap<Source, Recipe>,
}

/// Rows with their simulations, and every prediction made so far.
pub struct Fitted<'a> {
    /// The rows that can be simulated.
    pub rows: Vec<(&'a Row, Subject)>,
    known: Mutex<BTreeMap<Key, Prediction>>,
}

/// A row under its parameters, floats by their bits.
type Key = (usize, [u64; 6], u32);

impl Parameters {
    /// Those that come with the program: fitted on 2026-11-21 on all public rows that could be simulated.
    #[must_use]
    pub fn built_in() -> Parameters {
        Parameters {
            hosts: Backend::ALL.map(|backend| (backend, HostTimes::of(backend))).into(),
            recipes: BUILT_IN
                .map(|(harness, backend, shortest, requests_per_client)| {
                    let recipe = Recipe {
                        shortest,
                        requests_per_client,
                    };
                    (Source { harness, backend }, recipe)
                })
                .into(),
        }
    }

    /// A line for each engine and source.
    #[must_use]
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        for (backend, host) in &self.hosts {
            let fields = host.fields().map(|(name, us)| format!("{name} {us}"));
            text.push_str(&format!("host times of {}: {}\n", backend.name(), fields.join(", ")));
        }
        for (source, recipe) in &self.recipes {
            text.push_str(&format!(
                "recipe of {}: lengths from {} of the given ones, {} requests per client\n",
                source.name(),
                recipe.shortest,
                recipe.requests_per_client
            ));
        }
        text
    }

    /// The same as JSON.
    #[must_use]
    pub fn as_json(&self) -> serde_json::Value {
        let hosts = self.hosts.iter().map(|(backend, host)| (backend.name().to_owned(), serde_json::json!(host)));
        let recipes = self.recipes.iter().map(|(source, recipe)| (source.name(), serde_json::json!(recipe)));
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
        fitted.copied().unwrap_or(source.known())
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
        let key = (index, [a, b, c, d, e, recipe.shortest.to_bits()], recipe.requests_per_client);
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

    /// Fits on the rows with these indices.
    #[must_use]
    pub fn fit(&self, rows: &[usize]) -> Parameters {
        let mut parameters = Parameters::default();
        let backends: BTreeSet<Backend> = rows.iter().map(|&index| self.rows[index].1.source.backend).collect();
        for backend in backends {
            let own: Vec<usize> = rows
                .iter()
                .copied()
                .filter(|&index| self.rows[index].1.source.backend == backend)
                .collect();
            self.fit_engine(backend, &own, &mut parameters);
        }
        parameters
    }

    fn fit_engine(&self, backend: Backend, rows: &[usize], parameters: &mut Parameters) {
        let sources: BTreeSet<Source> = rows.iter().map(|&index| self.rows[index].1.source).collect();
        parameters.hosts.insert(backend, START);
        for &source in &sources {
            parameters.recipes.insert(source, source.known());
        }
        let mut least = self.loss(rows, parameters);
        for _ in 0..ROUNDS {
            let before = least;
            for change in changes(backend, &sources) {
                let mut changed = parameters.clone();
                change.apply(&mut changed);
                let loss = self.loss(rows, &changed);
                if loss < least - 1e-6 {
                    (least, *parameters) = (loss, changed);
                }
            }
            if least == before {
                break;
            }
        }
    }

    fn loss(&self, rows: &[usize], parameters: &Parameters) -> f64 {
        let losses: Vec<f64> = rows
            .par_iter()
            .map(|&index| {
                let (found, real) = (self.predict(index, parameters).pair, self.rows[index].0.measured);
                let tpot = (found.tpot_ms / real.tpot_ms).ln().abs();
                let ttft = (found.ttft_ms / real.ttft_ms).ln().abs();
                tpot.min(0.8) + 0.5 * ttft.min(1.5)
            })
            .collect();
        // Summed in order: the same on any number of threads.
        losses.iter().sum::<f64>() / rows.len() as f64
    }
}

/// Where the search begins.
const START: HostTimes = HostTimes {
    step_us: 500.0,
    sequence_us: 20.0,
    prefill_step_us: 2_000.0,
    request_us: 2_000.0,
    prompt_token_us: 0.5,
};

/// One parameter set to one value.
enum Change {
    Host(Backend, fn(&mut HostTimes) -> &mut f64, f64),
    Shortest(Source, f64),
    Requests(Source, u32),
}

impl Change {
    fn apply(&self, parameters: &mut Parameters) {
        let recipe = |parameters: &mut Parameters, source: &Source| parameters.recipe(*source);
        match self {
            Change::Host(backend, field, us) => {
                let mut host = parameters.host(*backend);
                *field(&mut host) = *us;
                parameters.hosts.insert(*backend, host);
            }
            Change::Shortest(source, shortest) => {
                let changed = Recipe {
                    shortest: *shortest,
                    ..recipe(parameters, source)
                };
                parameters.recipes.insert(*source, changed);
            }
            Change::Requests(source, requests_per_client) => {
                let changed = Recipe {
                    requests_per_client: *requests_per_client,
                    ..recipe(parameters, source)
                };
                parameters.recipes.insert(*source, changed);
            }
        }
    }
}

/// Every value of every parameter, in a fixed order.
fn changes(backend: Backend, sources: &BTreeSet<Source>) -> Vec<Change> {
    let host = |field: fn(&mut HostTimes) -> &mut f64, values: &'static [f64]| {
        values.iter().map(move |&us| Change::Host(backend, field, us))
    };
    let mut changes: Vec<Change> = host(|host| &mut host.sequence_us, &SEQUENCE_US)
        .chain(host(|host| &mut host.step_us, &STEP_US))
        .collect();
    for &source in sources {
        changes.extend(SHORTEST.map(|shortest| Change::Shortest(source, shortest)));
        changes.extend(REQUESTS_PER_CLIENT.map(|requests| Change::Requests(source, requests)));
    }
    changes.extend(host(|host| &mut host.prefill_step_us, &PREFILL_STEP_US));
    changes.extend(host(|host| &mut host.request_us, &REQUEST_US));
    changes.extend(host(|host| &mut host.prompt_token_us, &PROMPT_TOKEN_US));
    changes
}

/// Predictions of each row by parameters fitted on the rows of all groups but its own.
#[must_use]
pub fn leave_out(fitted: &Fitted<'_>, group: impl Fn(&Row) -> String) -> Vec<Prediction> {
    let groups: Vec<String> = fitted.rows.iter().map(|(row, _)| group(row)).collect();
    let names: BTreeSet<&String> = groups.iter().collect();
    let mut predictions: Vec<Option<Prediction>> = vec![None; groups.len()];
    for name in names {
        let (inside, outside): (Vec<usize>, Vec<usize>) = (0..groups.len()).partition(|&index| groups[index] == *name);
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
