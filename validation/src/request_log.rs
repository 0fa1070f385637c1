//! Logs of requests: when each came, how long it was, when its first and its last token were there.
//!
//! | Form | Known by | TTFT counts from |
//! |---|---|---|
//! | `llmservingsim` | `input_toks` and `first_token_ts` | `queued_ts`: the engine has it |
//! | `aiperf` | `metadata` and `metrics`, AIPerf's `profile_export.jsonl` | `request_start_ns`: the client sends it |
//!
//! Fields are in `docs/fits.md`. What a prompt held is in neither; a trace of the same requests may say it.

mod aiperf;
mod llmservingsim;

use crate::outcome::Outcome;
use calibration::CalibrationError;
use calibration::log_file::{Findings, LogFile};
use engine::{NewRequest, Run, Time, Workload, WorkloadBuilder};
use std::collections::HashMap;
use std::path::Path;
use traces::Trace;

/// The requests of a log, in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestLog {
    /// The file, as the caller named it.
    pub file: String,
    /// BLAKE3 of its bytes.
    pub digest: String,
    /// `llmservingsim` or `aiperf`.
    pub form: &'static str,
    /// Completed requests; arrivals count from the first.
    pub requests: Vec<LoggedRequest>,
    /// Requests left out because they failed or were cancelled; their load is missing from a simulation.
    pub failed: usize,
    /// When the first request came (UTC seconds since 1970), where the log says so.
    pub recorded_unix_s: Option<f64>,
}

/// A completed request.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedRequest {
    /// Line, from 1.
    pub line: usize,
    /// Its id.
    pub id: String,
    /// When the client sent it.
    pub arrival: Time,
    /// From when its times count; a little later than the arrival where the engine says when it had it.
    pub counted_from: Time,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// A request as a form's reader hands it over; times in ns of one clock.
struct Raw {
    line: usize,
    id: String,
    arrival_ns: u64,
    counted_from_ns: u64,
    first_token_ns: u64,
    last_token_ns: u64,
    input_tokens: u64,
    output_tokens: u64,
}

/// What a form's reader finds.
#[derive(Default)]
struct Found {
    requests: Vec<Raw>,
    failed: usize,
    recorded_unix_s: Option<f64>,
}

impl RequestLog {
    /// Reads a log of either form.
    ///
    /// # Errors
    /// A file that cannot be read, or everything that is wrong with its lines.
    pub fn read(path: &Path) -> Result<RequestLog, CalibrationError> {
        RequestLog::parse(&LogFile::read(path)?)
    }

    /// The same from text.
    ///
    /// # Errors
    /// Everything that is wrong with its lines.
    pub fn parse(file: &LogFile) -> Result<RequestLog, CalibrationError> {
        let mut findings = Findings::new(&file.name);
        let first = file.lines().next().map(|(_, line)| line);
        let value = first.map(serde_json::from_str::<serde_json::Value>);
        let has = |name: &str| matches!(&value, Some(Ok(value)) if value.get(name).is_some());
        let (form, found) = if has("input_toks") {
            ("llmservingsim", llmservingsim::read(file, &mut findings))
        } else if has("metadata") {
            ("aiperf", aiperf::read(file, &mut findings))
        } else {
            let found = match &value {
                None => "an empty file".to_owned(),
                Some(Ok(_)) => "an object with neither".to_owned(),
                Some(Err(error)) => format!("no JSON ({error})"),
            };
            let expected = "a first line with `input_toks` (LLMServingSim) or `metadata` (AIPerf)";
            let hint = "docs/fits.md has the fields of both forms";
            findings.add(0, "", found, expected, hint);
            ("", Found::default())
        };
        if findings.is_empty() && found.requests.is_empty() {
            let what = format!("no completed request ({} failed)", found.failed);
            findings.add(0, "", what, "at least one", "");
        }
        check_ids(&found.requests, &mut findings);
        let start = found.requests.iter().map(|raw| raw.arrival_ns).min();
        let start = start.unwrap_or(0);
        let requests = found.requests.iter();
        let mut requests: Vec<LoggedRequest> = requests
            .filter_map(|raw| logged(raw, start, &mut findings))
            .collect();
        findings.finish()?;
        requests.sort_by_key(|request| request.arrival);
        Ok(RequestLog {
            file: file.name.clone(),
            digest: file.digest.clone(),
            form,
            requests,
            failed: found.failed,
            recorded_unix_s: found.recorded_unix_s,
        })
    }

    /// The requests as a workload. With a trace of the same requests in the same order their prompts hold what it says;
    /// without, no prompt shares anything.
    ///
    /// # Errors
    /// A trace of other requests.
    pub fn workload(&self, prompts: Option<&Trace>) -> Result<Workload, CalibrationError> {
        let mut findings = Findings::new(&self.file);
        if let Some(trace) = prompts.filter(|trace| trace.rows.len() != self.requests.len()) {
            let found = format!("{} requests", self.requests.len());
            let expected = format!("{}, as in the trace of their prompts", trace.rows.len());
            findings.add(0, "", found, expected, "");
        }
        let mut builder = WorkloadBuilder::new();
        let (mut turns, mut runs) = (Vec::new(), Vec::new());
        for (index, request) in self.requests.iter().enumerate() {
            runs.clear();
            if let Some((trace, row)) = prompts.and_then(|t| t.rows.get(index).map(|row| (t, row)))
            {
                if row.input_tokens == request.input_tokens {
                    trace.prompt_into(index as u32, &mut turns, &mut runs);
                } else {
                    let expected = format!("{}, as in row {index} of the trace", row.input_tokens);
                    let hint = "is it the trace of these requests?";
                    findings.add(
                        request.line,
                        "input tokens",
                        request.input_tokens,
                        expected,
                        hint,
                    );
                }
            }
            if runs.is_empty() {
                runs.push(Run {
                    first: WorkloadBuilder::private_token(index as u32, 0),
                    len: request.input_tokens,
                });
            }
            builder.push(NewRequest {
                arrival: request.arrival,
                prompt: &runs,
                output_tokens: request.outcome.output_tokens,
                priority: 0,
                session: index as u32,
                dependencies: &[],
            });
        }
        findings.finish()?;
        Ok(builder.finish())
    }

    /// The day and minute of the first request, `2026-04-25T18:47Z`, where the log says so.
    #[must_use]
    pub fn recorded(&self) -> Option<String> {
        let minutes = (self.recorded_unix_s? / 60.0) as i64;
        let (days, minute) = (minutes.div_euclid(1_440), minutes.rem_euclid(1_440));
        let (year, month, day) = civil(days);
        Some(format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}Z",
            minute / 60,
            minute % 60
        ))
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar: whole 400-year cycles, then years
/// that begin in March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let since_march = days + 719_468;
    let (cycle, day) = (
        since_march.div_euclid(146_097),
        since_march.rem_euclid(146_097),
    );
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    let new_year = i64::from(calendar_month <= 2);
    (cycle * 400 + year + new_year, calendar_month, of_month)
}

fn check_ids(requests: &[Raw], findings: &mut Findings<'_>) {
    let mut lines = HashMap::new();
    for raw in requests {
        if let Some(first) = lines.insert(raw.id.as_str(), raw.line) {
            let expected = format!("an id that line {first} has not");
            findings.add(raw.line, "id", &raw.id, expected, "");
        }
    }
}

/// Longest time accepted: 100 days.
const MOST_NS: u64 = 100 * 86_400 * 1_000_000_000;
const MOST_TOKENS: u64 = 1 << 30;

fn logged(raw: &Raw, start_ns: u64, findings: &mut Findings<'_>) -> Option<LoggedRequest> {
    let mut is_good = true;
    let mut problem = |field: &str, found: String, expected: &str| {
        findings.add(raw.line, field, found, expected, "");
        is_good = false;
    };
    for (field, tokens) in [
        ("input tokens", raw.input_tokens),
        ("output tokens", raw.output_tokens),
    ] {
        if !(1..=MOST_TOKENS).contains(&tokens) {
            problem(field, tokens.to_string(), "a number from 1 to 2^30");
        }
    }
    if raw.first_token_ns <= raw.counted_from_ns {
        let late = raw.counted_from_ns - raw.first_token_ns;
        let found = format!("{late} ns before or at the arrival");
        problem("first token", found, "a moment after the arrival");
    }
    if raw.last_token_ns < raw.first_token_ns {
        let found = format!(
            "{} ns before the first",
            raw.first_token_ns - raw.last_token_ns
        );
        problem("last token", found, "the first token or later");
    }
    if raw.output_tokens > 1 && raw.last_token_ns == raw.first_token_ns {
        let found = format!("all {} tokens at one instant", raw.output_tokens);
        problem("last token", found, "a later moment than the first token's");
    }
    if raw.last_token_ns.saturating_sub(start_ns) > MOST_NS {
        problem(
            "last token",
            "more than 100 days after the start".to_owned(),
            "one run",
        );
    }
    let span = |ns: u64| engine::Span::from_ns(ns);
    is_good.then(|| LoggedRequest {
        line: raw.line,
        id: raw.id.clone(),
        arrival: Time::from_ns(raw.arrival_ns - start_ns),
        counted_from: Time::from_ns(raw.counted_from_ns - start_ns),
        input_tokens: raw.input_tokens as u32,
        outcome: Outcome {
            ttft: span(raw.first_token_ns - raw.counted_from_ns),
            e2e: span(raw.last_token_ns - raw.counted_from_ns),
            output_tokens: raw.output_tokens as u32,
        },
    })
}

#[cfg(test)]
mod tests;
