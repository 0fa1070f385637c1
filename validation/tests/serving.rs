//! Twelve public benchmarks, simulated with the embedded tables; the whole file where it lies beside the repository.

use std::path::{Path, PathBuf};
use validation::serving::{Benchmarks, Fitted, Pair, Parameters, Row, Subject, errors, fit};

fn read(path: &Path) -> Benchmarks {
    Benchmarks::read(path).expect("a file of benchmarks")
}

fn sample() -> Benchmarks {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/benchmarks.csv"))
}

fn simulated(benchmarks: &Benchmarks) -> Fitted<'_> {
    let subject = |row| Some((row, Subject::of(row, None).ok()?));
    Fitted::new(benchmarks.rows.iter().filter_map(subject).collect())
}

/// Mean absolute relative error of one number.
fn mean_error(fitted: &Fitted<'_>, parameters: &Parameters, value: fn(&Pair) -> f64) -> f64 {
    let found = fitted.predict_all(parameters);
    let pairs: Vec<(f64, f64)> = fitted
        .rows
        .iter()
        .zip(found)
        .map(|((row, _), found)| (value(&found.pair), value(&row.measured)))
        .collect();
    errors(&pairs).expect("there are rows").mean
}

#[test]
fn the_sample_is_predicted_and_host_times_matter() {
    let benchmarks = sample();
    let fitted = simulated(&benchmarks);
    assert_eq!(
        fitted.rows.len(),
        12,
        "the embedded tables cover all of them"
    );
    let tpot = |parameters: &Parameters| mean_error(&fitted, parameters, |pair| pair.tpot_ms);
    let (with, without) = (
        tpot(&Parameters::built_in()),
        tpot(&Parameters::without_host()),
    );
    println!("TPOT off by {with:.3} with host times, {without:.3} without");
    assert!(with < 0.2, "{with}");
    assert!(with < without, "{with} with host times, {without} without");
}

#[test]
fn the_same_rows_give_the_same_numbers() {
    let benchmarks = sample();
    let [first, second] =
        [(); 2].map(|()| simulated(&benchmarks).predict_all(&Parameters::built_in()));
    assert_eq!(first, second);
}

#[test]
fn a_fit_lowers_the_error_and_a_group_left_out_does_not_shape_its_own_prediction() {
    let mut benchmarks = sample();
    benchmarks
        .rows
        .retain(|row| row.backend == "vllm" && row.concurrency <= 64);
    let fitted = simulated(&benchmarks);
    let all: Vec<usize> = (0..fitted.rows.len()).collect();
    let tpot = |parameters: &Parameters| mean_error(&fitted, parameters, |pair| pair.tpot_ms);
    let own = fitted.fit(&all);
    assert!(tpot(&own) < tpot(&Parameters::without_host()));

    // The measurements of a family may change: its predictions, made by a fit on the others, must not.
    let family = |row: &Row| row.family.clone();
    let before = fit::leave_out(&fitted, family);
    let mut changed = benchmarks.clone();
    let left_out = changed.rows[0].family.clone();
    for row in changed.rows.iter_mut().filter(|row| row.family == left_out) {
        row.measured.tpot_ms *= 3.0;
    }
    let after = fit::leave_out(&simulated(&changed), family);
    for (index, row) in changed.rows.iter().enumerate() {
        if row.family == left_out {
            assert_eq!(before[index], after[index], "line {}", row.line);
        }
    }
}

#[test]
fn the_whole_file_is_predicted_where_it_is_at_hand() {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/measured/silicon_h100_h200_agg_public.csv");
    if !path.is_file() {
        println!("skipped: {} is not here", path.display());
        return;
    }
    let benchmarks = read(&path);
    let fitted = simulated(&benchmarks);
    assert!(
        fitted.rows.len() >= 199,
        "{} rows simulated",
        fitted.rows.len()
    );
    let tpot = mean_error(&fitted, &Parameters::built_in(), |pair| pair.tpot_ms);
    println!(
        "{} rows with embedded tables: TPOT off by {tpot:.3}",
        fitted.rows.len()
    );
    // AIConfigurator's own mean error on the vLLM and SGLang rows is 0.22 and more.
    assert!(tpot < 0.22, "{tpot}");
}
