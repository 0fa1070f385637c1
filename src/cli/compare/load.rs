//! Results from the files that `replay` and `sweep` write.

use serde_json::Value as Json;
use std::fs;
use std::path::{Path, PathBuf};
use sweeps::compare::{Replicate, RequestLatencies};
use sweeps::records;
use sweeps::row::{Row, Value};
use sweeps::space::{Override, describe};

/// One of the two results.
pub struct Side {
    /// What it is, for people.
    pub name: String,
    /// Its runs.
    pub replicates: Vec<Replicate>,
}

/// Reads the result that a user named: a folder or a report, and a point behind `#`.
///
/// # Errors
/// What is wrong, with the file and the field.
pub fn side(text: &str) -> Result<Side, String> {
    // A file may have a `#` in its name.
    let (path, point) = match text.rsplit_once('#') {
        Some((path, point)) if !Path::new(text).exists() => {
            let index = point.parse::<usize>();
            (
                path,
                Some(index.map_err(|_| {
                    format!("{text}: found `{point}` behind `#`, expected the number of a point")
                })?),
            )
        }
        _ => (text, None),
    };
    let path = PathBuf::from(path);
    let path = if path.is_dir() {
        path.join("report.json")
    } else {
        path
    };
    let place = path.display().to_string();
    let bytes = fs::read(&path).map_err(|error| format!("{place}: {error}"))?;
    let report: Json =
        serde_json::from_slice(&bytes).map_err(|error| format!("{place}: not JSON: {error}"))?;
    let report = Report {
        place,
        json: &report,
    };
    match report.json.get("kind").and_then(Json::as_str) {
        Some("sweep") => report.point(point),
        _ if point.is_some() => Err(format!(
            "{}: found a single run, expected a sweep: it has no points",
            report.place
        )),
        _ => report.replay(&path),
    }
}

struct Report<'a> {
    place: String,
    json: &'a Json,
}

impl Report<'_> {
    fn replay(&self, path: &Path) -> Result<Side, String> {
        let scenario = self
            .json
            .get("scenario")
            .and_then(Json::as_str)
            .unwrap_or("a run");
        let mut row = Row::default();
        for group in [
            "requests",
            "latency",
            "throughput",
            "goodput",
            "prefix",
            "kv",
        ] {
            if let Some(part) = self.json.get(group) {
                flatten(group, part, &mut row);
            }
        }
        if row.cells().is_empty() {
            return Err(format!(
                "{}: found no metrics, expected the report of a run or a sweep",
                self.place
            ));
        }
        let records = path.with_file_name("requests.csv");
        let requests: Vec<Option<RequestLatencies>> = match records.is_file() {
            true => records::read(&records).map_err(|error| error.to_string())?,
            false => Vec::new(),
        };
        let replicate = self.replicate(self.json, "", row, requests)?;
        Ok(Side {
            name: format!("{} ({scenario}, seed {})", self.place, replicate.seed),
            replicates: vec![replicate],
        })
    }

    fn point(&self, index: Option<usize>) -> Result<Side, String> {
        let points = self
            .json
            .get("points")
            .and_then(Json::as_array)
            .map_or(&[] as &[Json], Vec::as_slice);
        let winner = || {
            self.json
                .get("winner")
                .and_then(Json::as_u64)
                .map(|winner| winner as usize)
        };
        let only = || (points.len() == 1).then_some(0);
        let hint = format!("name one of its {} points, as in DIR#0", points.len());
        let index = index.or_else(only).or_else(winner);
        let index = index
            .ok_or_else(|| format!("{}: found a sweep without a winner: {hint}", self.place))?;
        let point = points
            .get(index)
            .ok_or_else(|| format!("{}: found no point {index}: {hint}", self.place))?;
        let field = format!("points[{index}]");
        let runs = point
            .get("runs")
            .and_then(Json::as_array)
            .map_or(&[] as &[Json], Vec::as_slice);
        if runs.is_empty() {
            let reason = point
                .get("reason")
                .and_then(Json::as_str)
                .unwrap_or("no run");
            return Err(format!(
                "{}: point {index} was not simulated: {reason}",
                self.place
            ));
        }
        let replicate = |(number, run): (usize, &Json)| {
            let place = format!("{field}.runs[{number}].");
            let metrics = run.get("metrics").or_else(|| point.get("metrics"));
            let row =
                metrics.and_then(|metrics| serde_json::from_value::<Row>(metrics.clone()).ok());
            let row = row.ok_or_else(|| {
                format!(
                    "{}: {place}metrics: found none, expected numbers",
                    self.place
                )
            })?;
            self.replicate(run, &place, row, Vec::new())
        };
        let replicates = runs
            .iter()
            .enumerate()
            .map(replicate)
            .collect::<Result<_, String>>()?;
        let set = point.get("overrides").and_then(Json::as_object);
        let set = set.into_iter().flatten().map(|(field, value)| Override {
            field: field.clone(),
            value: value.as_str().unwrap_or_default().to_owned(),
        });
        let set: Vec<Override> = set.collect();
        Ok(Side {
            name: format!("{} point {index} ({})", self.place, describe(&set)),
            replicates,
        })
    }

    fn replicate(
        &self,
        run: &Json,
        place: &str,
        row: Row,
        requests: Vec<Option<RequestLatencies>>,
    ) -> Result<Replicate, String> {
        let missing = |field: &str, expected: &str| {
            format!("{}: {place}{field}: expected {expected}", self.place)
        };
        let seed = run
            .get("seed")
            .and_then(Json::as_u64)
            .ok_or_else(|| missing("seed", "a whole number"))?;
        let digest = run
            .get("workload_digest")
            .and_then(Json::as_str)
            .and_then(|text| text.parse().ok());
        let workload =
            digest.ok_or_else(|| missing("workload_digest", "the digest of a workload"))?;
        Ok(Replicate {
            seed,
            workload,
            row,
            requests,
        })
    }
}

/// Adds the numbers of a JSON object under their dotted names.
fn flatten(name: &str, json: &Json, row: &mut Row) {
    match json {
        Json::Object(parts) => parts
            .iter()
            .for_each(|(part, json)| flatten(&format!("{name}.{part}"), json, row)),
        Json::Number(number) => {
            let value = number.as_u64().map_or_else(
                || Value::from(number.as_f64().unwrap_or(f64::NAN)),
                Value::Count,
            );
            row.push(name.to_owned(), value);
        }
        _ => {}
    }
}
