//! `dynosim conform planner`: what Dynamo's planner did, case by case, and what ours does.
//!
//! Each file holds one case: `id`, `kind`, `title` and what its kind needs. The kinds are described in
//! `tests/golden/planner/README.md`; each has its own file here. Everything recorded is compared: counts, words and flags
//! exactly, other numbers to 1e-9 of their size. What a case leaves out, or has as null, must be absent here too.
//!
//! Forecasts that stand on a library's fit (pmdarima, Prophet) are not reproducible even there. Those cases print how far our
//! own predictors are from them and from the series, and do not count.

mod budgets;
mod config;
mod engines;
mod predictors;
mod replays;
mod traffic;

use super::router::{files, read};
use flate2::read::MultiGzDecoder;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What came of one case.
#[derive(Debug, Serialize)]
pub struct PlannerVerdict {
    /// The case.
    pub name: String,
    /// What it is about.
    pub kind: String,
    /// Results compared.
    pub compared: u64,
    /// Whether it must be identical; not where a library's fit was recorded.
    pub counts: bool,
    /// The first difference in words; `None` if there is none. Where the case does not count, how far apart the two are.
    pub difference: Option<String>,
}

/// What was recorded and what ours is, as JSON.
struct Pair {
    what: String,
    recorded: Value,
    ours: Value,
}

/// Either pairs that must be equal, or words on two that need not be.
enum Comparison {
    Exact(Vec<Pair>),
    Loose { compared: u64, words: String },
}

/// Compares all cases below `path` (a folder, or one `.json` or `.json.gz`).
pub fn conform_planner(path: &Path) -> Result<Vec<PlannerVerdict>, Vec<String>> {
    let mut verdicts = Vec::new();
    let mut errors = Vec::new();
    for file in files(path, &[".json", ".json.gz"]).map_err(|error| vec![error])? {
        match judge(&file) {
            Ok(verdict) => verdicts.push(verdict),
            Err(error) => errors.push(format!("{}: {error}", file.display())),
        }
    }
    if errors.is_empty() {
        Ok(verdicts)
    } else {
        Err(errors)
    }
}

/// A case as it is in its file, which may be packed.
fn read_case(file: &Path) -> std::io::Result<Map<String, Value>> {
    let mut text = Vec::new();
    let mut packed = File::open(file)?;
    if file.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(packed).read_to_end(&mut text)?;
    } else {
        packed.read_to_end(&mut text)?;
    }
    Ok(serde_json::from_slice(&text)?)
}

fn judge(file: &Path) -> Result<PlannerVerdict, String> {
    let mut case = read_case(file).map_err(|error| error.to_string())?;
    let mut word = |key: &str| match case.remove(key) {
        Some(Value::String(word)) => Ok(word),
        _ => Err(format!("{key}: expected a text")),
    };
    let (name, kind) = (word("id")?, word("kind")?);
    word("title")?;
    let case = Value::Object(case);
    let comparison = match &*kind {
        "replay" => Comparison::Exact(replays::closed_loop(case)?),
        "ticks" => Comparison::Exact(replays::ticks(case)?),
        "table" => Comparison::Exact(table(case)?),
        "predictor" => predictors::compare(case)?,
        _ => {
            return Err(format!(
                "kind {kind}: expected replay, ticks, table or predictor"
            ));
        }
    };
    Ok(match comparison {
        Comparison::Exact(pairs) => {
            let mut compared = 0;
            let difference = pairs
                .iter()
                .find_map(|pair| first_difference(pair, &mut compared));
            PlannerVerdict {
                name,
                kind,
                compared,
                counts: true,
                difference,
            }
        }
        Comparison::Loose { compared, words } => PlannerVerdict {
            name,
            kind,
            compared,
            counts: false,
            difference: Some(words),
        },
    })
}

/// Cases of kind `table`: one function, or several, and rows of arguments and results.
fn table(case: Value) -> Result<Vec<Pair>, String> {
    let (Some(function), Some(rows)) = (case.get("function"), case.get("rows")) else {
        return Err("expected function and rows".to_owned());
    };
    let functions: Vec<(String, Vec<Value>)> = if function.is_string() {
        vec![(
            read("function", function.clone())?,
            read("rows", rows.clone())?,
        )]
    } else {
        let names: Vec<String> = read("function", function.clone())?;
        let rows: Vec<Vec<Value>> = read("rows", rows.clone())?;
        names.into_iter().zip(rows).collect()
    };
    let mut pairs = Vec::new();
    for (function, rows) in functions {
        for (at, row) in rows.into_iter().enumerate() {
            let place = format!("{function}, row {at}");
            let (Some(args), Some(out)) = (row.get("args"), row.get("out")) else {
                return Err(format!("{place}: expected args and out"));
            };
            let ours =
                answer(&function, args.clone()).map_err(|error| format!("{place}: {error}"))?;
            pairs.push(Pair {
                what: place,
                recorded: out.clone(),
                ours,
            });
        }
    }
    Ok(pairs)
}

fn answer(function: &str, args: Value) -> Result<Value, String> {
    match function {
        "proportional_clamp_pair" => budgets::clamp_pair(args),
        "proportional_clamp_single" => budgets::clamp_single(args),
        "fit_directional_budget_pair" => budgets::fit(args),
        "guard_single_scaling_budget" => budgets::guard_one(args),
        "guard_disagg_scaling_budget" => budgets::guard_two(args),
        "apply_power_budget" => budgets::power(args),
        "find_engine_capacity_rps" => engines::capacity(args),
        "ForwardPassPerfModel[fpm_regression]" => engines::regression(args),
        "type_aware_merge" => traffic::merge_opinions(args),
        "_merge_traffic" => traffic::merge_windows(args),
        "evaluate_preset" => predictors::presweep(args),
        _ => Err("not a function of the planner that is known here".to_owned()),
    }
}

/// The first leaf that differs; counts the leaves.
fn first_difference(pair: &Pair, compared: &mut u64) -> Option<String> {
    let (what, recorded, ours) = unequal(&pair.what, &pair.recorded, &pair.ours, compared)?;
    Some(format!(
        "{what}\n    recorded  {recorded}\n    dynosim   {ours}"
    ))
}

fn unequal(
    what: &str,
    recorded: &Value,
    ours: &Value,
    compared: &mut u64,
) -> Option<(String, Value, Value)> {
    match (recorded, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let value = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                unequal(&format!("{what}: {key}"), &value(a), &value(b), compared)
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (a, b))| unequal(&format!("{what}[{at}]"), a, b, compared))
        }
        _ => {
            *compared += 1;
            (!is_equal(recorded, ours)).then(|| (what.to_owned(), recorded.clone(), ours.clone()))
        }
    }
}

/// Whole numbers are equal if they are; others to 1e-9 of their size.
fn is_equal(recorded: &Value, ours: &Value) -> bool {
    match (recorded.as_f64(), ours.as_f64()) {
        (Some(a), Some(b)) => {
            let are_whole = recorded.is_i64() && ours.is_i64();
            a == b || (!are_whole && (a - b).abs() <= 1e-9 * a.abs().max(b.abs()))
        }
        _ => recorded == ours,
    }
}
