//! The result of a sweep for the terminal: counts, a plot, the frontier as a table, one paragraph of explanation.

use super::Results;
use reports::plot::Chart;
use reports::terminal::{Size, draw};
use std::collections::BTreeMap;
use sweeps::criteria::Miss;
use sweeps::curves::Over;
use sweeps::find::{Answer, Found};
use sweeps::frontier::Standing;
use sweeps::metric::{label, percent, short};

use sweeps::replicates::Replicated;
use sweeps::rows::SLA_SHARE;
use sweeps::space::short_names;

const WIDTH: usize = 100;
/// Longer tables are cut; the files have all.
const MOST_LINES: usize = 24;

/// A sweep.
pub fn frontier(results: &Results) -> String {
    let what = if results.ranking.is_feasible {
        "Pareto frontier"
    } else {
        "Pareto frontier of what misses constraints"
    };
    let sections = [
        header(results),
        draw(&results.chart, Size::default()),
        format!("{what}\n{}", table(results, &results.ranking.frontier)),
        left_out(results),
        wrapped(&results.report.explanation),
        timing(results),
        guesses(results),
    ];
    joined(&sections)
}

/// Metrics over a field: the one that is drawn, the other one that was asked for, the usual ones.
pub fn curves(over: &Over<'_>, drawn: &str, other: Option<&str>) -> String {
    const USUAL: [&str; 5] = [
        "latency.ttft_ms.mean",
        "latency.tpot_ms.mean",
        "throughput.output_tokens_per_s_per_gpu",
        "throughput.requests_per_s",
        "prefix.first_admission_share",
    ];
    let asked: Vec<&str> = std::iter::once(drawn).chain(other).collect();
    let usual = USUAL.iter().filter(|metric| !asked.contains(metric));
    let metrics = asked.iter().chain(usual);
    let tables = metrics.map(|metric| format!("\n{}", aligned(&over.table(metric))));
    tables.collect()
}

/// Searches; `answers` says in words what each found, in `order`, best first.
pub fn search(results: &Results, order: &[usize], answers: &[String], curves: &Chart) -> String {
    let is_single = answers.len() == 1;
    let places: Vec<usize> = if is_single {
        (0..results.points.len()).collect()
    } else {
        let answer = |&index: &usize| results.report.searches[index].answer_point;
        order.iter().map(answer).collect()
    };
    let what = if is_single {
        "All values tried"
    } else {
        "At each answer, best first"
    };
    let told = answers
        .iter()
        .take(MOST_LINES)
        .map(|answer| wrapped(answer))
        .collect::<String>();
    let more = match answers.len().saturating_sub(MOST_LINES) {
        0 => String::new(),
        more => format!("... and {more} more, none of them better, in report.json\n"),
    };
    let sections = [
        header(results),
        told + &more,
        draw(curves, Size::default()),
        format!("{what}\n{}", table(results, &places)),
        wrapped(&results.report.explanation),
        timing(results),
        guesses(results),
    ];
    joined(&sections)
}

/// The point that a search ended with, if its value meets all constraints.
pub fn answer_value(found: &Found<Replicated>) -> Option<&Replicated> {
    let (Answer::At(value) | Answer::PassesAtLimit(value)) = found.answer else {
        return None;
    };
    found
        .curve
        .iter()
        .find(|(at, _)| *at == value)
        .map(|(_, evaluation)| &evaluation.result)
}

fn joined(sections: &[String]) -> String {
    let parts: Vec<&str> = sections
        .iter()
        .map(String::as_str)
        .filter(|section| !section.is_empty())
        .collect();
    parts.join("\n")
}

fn header(results: &Results) -> String {
    let plan = results.bench.plan;
    let feasible = results.ranking.ranked.len();
    let replicates = if plan.replicates > 1 {
        format!(", {} seeds each", plan.replicates)
    } else {
        String::new()
    };
    let resumed = results
        .points
        .iter()
        .filter(|point| point.mean.is_resumed)
        .count();
    let resumed = if resumed > 0 {
        format!(", {resumed} from the journal")
    } else {
        String::new()
    };
    let workload = results.bench.workload_name();
    let points = match results.points.len() {
        1 => "1 point".to_owned(),
        more => format!("{more} points"),
    };
    let met = match feasible {
        1 => "1 meets".to_owned(),
        more => format!("{more} meet"),
    };
    format!(
        "{} · {workload} · {points}{replicates}{resumed}, {met} all constraints:\n{}",
        plan.name,
        wrapped(&plan.criteria.rule())
    )
}

/// The named points with what they set and how good they are.
fn table(results: &Results, places: &[usize]) -> String {
    let criteria = &results.bench.plan.criteria;
    let mut metrics = vec![
        criteria.y.metric.clone(),
        criteria.x.metric.clone(),
        "throughput.gpus".to_owned(),
    ];
    if criteria.has_sla() {
        metrics.push(SLA_SHARE.to_owned());
    }
    let percentile = criteria.percentile();
    metrics.extend(["ttft", "tpot"].map(|name| format!("latency.{name}_ms.{percentile}")));
    let mut seen = Vec::new();
    metrics.retain(|metric| {
        !seen.contains(metric) && {
            seen.push(metric.clone());
            true
        }
    });
    let has_misses = places
        .iter()
        .any(|&place| matches!(results.ranking.standings[place], Standing::Infeasible(_)));

    let mut head = vec!["point".to_owned()];
    head.extend(short_names(&results.fields));
    head.extend(metrics.iter().map(|metric| {
        if metric == SLA_SHARE {
            "SLA met".to_owned()
        } else {
            label(metric)
        }
    }));
    if has_misses {
        head.push("misses".to_owned());
    }
    let mut rows = vec![head];
    for &place in places.iter().take(MOST_LINES) {
        let point = &results.points[place];
        let mut row = vec![mark(results, place)];
        row.extend(results.fields.iter().map(|field| field_text(point, field)));
        row.extend(metrics.iter().map(|metric| metric_text(point, metric)));
        if has_misses {
            let standing = &results.ranking.standings[place];
            row.push(
                if matches!(standing, Standing::Infeasible(_)) {
                    standing.name()
                } else {
                    ""
                }
                .to_owned(),
            );
        }
        rows.push(row);
    }
    let more = places.len().saturating_sub(MOST_LINES);
    let more = if more > 0 {
        format!("... and {more} more in sweep.csv\n")
    } else {
        String::new()
    };
    aligned(&rows) + &more + &signs(results, places)
}

/// What the signs behind the numbers of a table's points mean.
fn signs(results: &Results, places: &[usize]) -> String {
    let shown = &places[..places.len().min(MOST_LINES)];
    let is_shown = |place: Option<usize>| place.is_some_and(|place| shown.contains(&place));
    let winner = is_shown(results.ranking.winner()).then_some("* winner");
    let second = is_shown(results.ranking.runner_up).then_some("+ runner-up");
    let signs: Vec<&str> = winner.into_iter().chain(second).collect();
    if signs.is_empty() {
        String::new()
    } else {
        format!("{}\n", signs.join("   "))
    }
}

/// The index, with `*` for the winner and `+` for the runner-up.
fn mark(results: &Results, place: usize) -> String {
    let sign = match Some(place) {
        place if place == results.ranking.winner() => "*",
        place if place == results.ranking.runner_up => "+",
        _ => " ",
    };
    format!("{place}{sign}")
}

fn field_text(point: &Replicated, field: &str) -> String {
    let set = point
        .mean
        .point
        .overrides
        .iter()
        .find(|set| set.field == field);
    set.map_or(String::new(), |set| {
        set.value.parse().map_or(set.value.clone(), short_or_whole)
    })
}

fn short_or_whole(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        short(value)
    }
}

fn metric_text(point: &Replicated, metric: &str) -> String {
    let Some(value) = point.mean.outcome.row().and_then(|row| row.number(metric)) else {
        return "-".to_owned();
    };
    if metric.ends_with("share") {
        return percent(value);
    }
    let interval = point
        .estimates
        .iter()
        .find(|(name, _)| name == metric)
        .and_then(|(_, own)| own.half_width);
    match interval.filter(|half| *half > 0.0) {
        Some(half) => format!("{} ± {}", short(value), short(half)),
        None => short(value),
    }
}

/// Rows of cells to the right, each column as wide as its widest cell.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| -> String {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// How many points do not count, and why; what makes a point impossible is told in full, once.
fn left_out(results: &Results) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for standing in &results.ranking.standings {
        let Standing::Infeasible(_) = standing else {
            continue;
        };
        *kinds.entry(standing.name()).or_default() += 1;
        if matches!(standing.name(), "impossible" | "failed") {
            *reasons.entry(standing.reason()).or_default() += 1;
        }
    }
    if kinds.is_empty() {
        return String::new();
    }
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} {}", Miss::kind_in_words(kind)))
        .collect();
    let mut text = format!(
        "Left out: {} (`standing` and `reason` in sweep.csv)\n",
        kinds.join(", ")
    );
    for (reason, count) in reasons.iter().take(5) {
        text += &wrapped(&format!("  {count} × {reason}"));
    }
    text
}

/// Where step times come from: one source for all, or each with its points.
fn timing(results: &Results) -> String {
    let sources = &results.report.timing;
    let told: Vec<String> = match sources.len() {
        1 => sources.keys().cloned().collect(),
        _ => sources
            .iter()
            .map(|(source, points)| format!("{source} at {points} points"))
            .collect(),
    };
    match told.len() {
        0 => String::new(),
        1 => format!("Step times: {}\n", told[0]),
        _ => wrapped(&format!(
            "Step times: {}; the two are not equally far off, compare points within one of them",
            told.join(", ")
        )),
    }
}

fn guesses(results: &Results) -> String {
    let lines: Vec<String> = alike(&results.report.guesses)
        .iter()
        .map(|guess| wrapped(&format!("  {guess}")))
        .collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("Results stand on guesses:\n{}", lines.concat())
    }
}

/// Guesses, those that differ in numbers only told once.
fn alike(guesses: &BTreeMap<String, usize>) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for guess in guesses.keys() {
        let words = guess
            .split(|letter: char| letter.is_ascii_digit())
            .filter(|part| !part.is_empty());
        kinds
            .entry(words.collect::<Vec<_>>().join("#"))
            .or_default()
            .push(guess);
    }
    let told = |alike: &Vec<&String>| match alike.len() {
        1 => alike[0].clone(),
        more => format!("{} (and {} more with other numbers)", alike[0], more - 1),
    };
    kinds.values().map(told).collect()
}

/// A paragraph in lines of at most [`WIDTH`] characters, unless a word is longer.
fn wrapped(paragraph: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    let indent = paragraph.len() - paragraph.trim_start().len();
    // A per cent sign stays with its number.
    let words = paragraph.trim().replace(" %", "\u{a0}%");
    for word in words.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if column == 0 {
            text += &" ".repeat(indent);
            column = indent;
        } else if column + 1 + length > WIDTH {
            text.push('\n');
            text += &" ".repeat(indent);
            column = indent;
        } else {
            text.push(' ');
            column += 1;
        }
        text += word;
        column += length;
    }
    text.replace('\u{a0}', " ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_wrap_at_words() {
        let text = wrapped(&"word ".repeat(50));
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= WIDTH && !line.ends_with(' ')),
            "{text}"
        );
        assert_eq!(text.split_whitespace().count(), 50);
        assert_eq!(wrapped("  a b"), "  a b\n");
    }

    #[test]
    fn guesses_that_differ_in_numbers_are_told_once() {
        let guesses = [
            ("pool a: 100 blocks of 16 tokens", 3),
            ("pool a: 2000 blocks of 16 tokens", 4),
            ("roofline", 7),
        ];
        let guesses = guesses.map(|(text, count)| (text.to_owned(), count)).into();
        let expected = [
            "pool a: 100 blocks of 16 tokens (and 1 more with other numbers)",
            "roofline",
        ];
        assert_eq!(alike(&guesses), expected);
    }
}
