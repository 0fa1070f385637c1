//! A given trace and one made up like it, side by side.

use super::text::{grouped, percent, real, row, table};
use traces::like::{Closeness, LengthCloseness, Pair};

/// The comparison as a table.
pub fn compared(closeness: &Closeness) -> String {
    let points = |pair: &Pair| format!("{:+.2} points", 100.0 * (pair.synth - pair.given));
    let relative = |pair: &Pair| {
        format!(
            "{:+.1} %",
            100.0 * (pair.synth - pair.given) / pair.given.abs().max(1e-9)
        )
    };
    let line = |name: &str, pair: &Pair, show: fn(f64) -> String, difference: String| {
        vec![
            name.to_owned(),
            show(pair.given),
            show(pair.synth),
            difference,
        ]
    };
    let two_places = |number: f64| format!("{number:.2}");
    let mut rows = vec![row(["", "given", "made up", "difference"])];
    rows.push(line(
        "requests",
        &closeness.requests,
        |count| grouped(count as u64),
        String::new(),
    ));
    rows.push(line(
        "rate (requests/s)",
        &closeness.rate_per_s,
        two_places,
        relative(&closeness.rate_per_s),
    ));
    let mut lengths = |name: &str, lengths: &LengthCloseness| {
        rows.push(line(
            &format!("{name}, mean"),
            &lengths.mean,
            real,
            relative(&lengths.mean),
        ));
        for quantile in &lengths.quantiles {
            let name = format!("{name}, p{}", (100.0 * quantile.p).round());
            rows.push(line(
                &name,
                &quantile.tokens,
                |tokens| grouped(tokens as u64),
                relative(&quantile.tokens),
            ));
        }
        let ks = percent(lengths.ks_distance);
        rows.push(row([
            &format!("{name}, requests out of place (KS)"),
            "",
            "",
            &ks,
        ]));
    };
    lengths("input tokens", &closeness.input_tokens);
    lengths("output tokens", &closeness.output_tokens);
    rows.push(line(
        "variation of gaps (CV)",
        &closeness.gap_cv,
        two_places,
        relative(&closeness.gap_cv),
    ));
    let share = &closeness.distinct_times_share;
    rows.push(line(
        "distinct arrival times per request",
        share,
        two_places,
        relative(share),
    ));
    for window in &closeness.dispersion {
        let name = format!("variance/mean in windows of {} s", window.window_s);
        rows.push(line(
            &name,
            &window.pair,
            two_places,
            relative(&window.pair),
        ));
    }
    if let Some(reuse) = &closeness.best_reuse {
        rows.push(line("best possible reuse", reuse, percent, points(reuse)));
        let mut last = f64::NAN;
        for size in &closeness.lru {
            if percent(size.hit_rate.given) != percent(last) {
                let name = format!("hit rate of an LRU cache, {} blocks", grouped(size.blocks));
                rows.push(line(&name, &size.hit_rate, percent, points(&size.hit_rate)));
            }
            last = size.hit_rate.given;
        }
        let worst = format!("{:.2} points", 100.0 * closeness.lru_distance);
        rows.push(row([
            "hit rate of an LRU cache, largest difference",
            "",
            "",
            &worst,
        ]));
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use traces::SynthSpec;

    #[test]
    fn the_comparison_shows_both_sides() {
        let trace = SynthSpec {
            requests: 50,
            ..SynthSpec::quick()
        }
        .generate(1)
        .expect("good parameters");
        let text = compared(&Closeness::of(&trace, &trace));
        assert!(
            text.contains("best possible reuse") && text.contains("+0.00 points"),
            "{text}"
        );
    }
}
