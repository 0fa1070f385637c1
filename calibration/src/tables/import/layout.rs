//! Where the database keeps what: versions, donors, default kernels.

use super::super::Backend;
use crate::error::{CalibrationError, Problem};
use saphyr::{LoadableYamlNode, Yaml};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

/// A GPU, engine and version that the database has tables of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// GPU, for example `h200_sxm`.
    pub gpu: String,
    /// The engine.
    pub backend: Backend,
    /// Its version.
    pub version: String,
}

/// The folder `systems` in an unpacked wheel: `dir` itself or below it.
///
/// # Errors
/// There is none.
pub fn find_root(dir: &Path) -> Result<PathBuf, CalibrationError> {
    let candidates = ["", "systems", "aiconfigurator_core/systems"].map(|below| dir.join(below));
    candidates
        .into_iter()
        .find(|root| root.join("query_versions.yaml").is_file())
        .ok_or_else(|| {
            let problem = Problem::new(
                &dir.display().to_string(),
                "no query_versions.yaml",
                "an unpacked aiconfigurator-core wheel",
            );
            let how = "pip download --no-deps aiconfigurator-core==0.12.0 and unzip the wheel";
            CalibrationError::Invalid(vec![problem.suggest(how)])
        })
}

/// The current version of every GPU and engine, by name.
///
/// # Errors
/// Folders or `query_versions.yaml` that cannot be read.
pub fn list(root: &Path) -> Result<Vec<Found>, CalibrationError> {
    let versions = root.join("query_versions.yaml");
    let text = read(&versions)?;
    let yaml = parse(&versions, &text)?;
    let mut found = Vec::new();
    for gpu in folders(&root.join("data"))? {
        for backend in Backend::ALL {
            let current = |table: &Yaml<'_>| {
                table
                    .as_mapping_get(backend.name())?
                    .as_mapping_get("current")?
                    .as_str()
                    .map(str::to_owned)
            };
            let overridden = yaml
                .as_mapping_get("overrides")
                .and_then(|table| table.as_mapping_get(&gpu))
                .and_then(current);
            let Some(version) =
                overridden.or_else(|| yaml.as_mapping_get("defaults").and_then(current))
            else {
                continue;
            };
            let table = format!(
                "data/{gpu}/gemm/{}/{version}/gemm_perf.parquet",
                backend.name()
            );
            if root.join(table).is_file() {
                found.push(Found {
                    gpu: gpu.clone(),
                    backend,
                    version,
                });
            }
        }
    }
    Ok(found)
}

/// The files of a table, first the version's own, then its donors; paths below `root`.
///
/// # Errors
/// There is none.
pub(super) fn sources(
    root: &Path,
    found: &Found,
    family: &str,
    table: &str,
) -> Result<Vec<String>, CalibrationError> {
    let present = some_sources(root, found, family, table)?;
    if present.is_empty() {
        let Found {
            gpu,
            backend,
            version,
        } = found;
        let wanted = format!(
            "data/{gpu}/{family}/{}/{version}/{table}.parquet",
            backend.name()
        );
        let problem = Problem::new(&wanted, "no such file", "a table");
        return Err(CalibrationError::Invalid(vec![problem]));
    }
    Ok(present)
}

/// The NCCL table of this version, if there is one; it has no donors.
pub(super) fn nccl_source(root: &Path, found: &Found, version: &str) -> Vec<String> {
    let path = format!("data/{}/comm/nccl/{version}/nccl_perf.parquet", found.gpu);
    let mut paths = vec![path];
    paths.retain(|path| root.join(path).is_file());
    paths
}

/// The files of a table, of which there may be none.
pub(super) fn some_sources(
    root: &Path,
    found: &Found,
    family: &str,
    table: &str,
) -> Result<Vec<String>, CalibrationError> {
    let folder = format!("data/{}/{family}/{}", found.gpu, found.backend.name());
    if !root.join(&folder).is_dir() {
        return Ok(Vec::new());
    }
    let mut versions = vec![found.version.clone()];
    let reuse = root.join(&folder).join(&found.version).join("reuse.yaml");
    if reuse.is_file() {
        let text = read(&reuse)?;
        let yaml = parse(&reuse, &text)?;
        for entry in yaml
            .as_mapping_get("reuse")
            .and_then(Yaml::as_sequence)
            .into_iter()
            .flatten()
        {
            let field = |name| entry.as_mapping_get(name).and_then(|value| value.as_str());
            if let (Some(name), Some(version)) = (field("table"), field("from_version"))
                && name == table
            {
                versions.push(version.to_owned());
            }
        }
    }
    let mut older = folders(&root.join(&folder))?;
    older.retain(|version| {
        compare(version, &found.version) == Ordering::Less && !versions.contains(version)
    });
    older.sort_by(|a, b| compare(b, a));
    versions.extend(older);
    let paths = versions
        .into_iter()
        .map(|version| format!("{folder}/{version}/{table}.parquet"));
    Ok(paths.filter(|path| root.join(path).is_file()).collect())
}

/// The attention kernel that the engine uses by default on GPUs of this compute capability, if the database says.
pub(super) fn default_lane(
    root: &Path,
    found: &Found,
    sm_version: u32,
) -> Result<Option<String>, CalibrationError> {
    let path = root.join("attention_lane_defaults.yaml");
    if !path.is_file() {
        return Ok(None);
    }
    let text = read(&path)?;
    let yaml = parse(&path, &text)?;
    let table = yaml
        .as_mapping_get(found.backend.name())
        .and_then(|table| table.as_mapping_get(&found.version));
    let lanes = table.and_then(Yaml::as_mapping).into_iter().flatten();
    let mut named = lanes.filter(|(sm, _)| sm.as_integer() == Some(i64::from(sm_version)));
    let lane = named.next().and_then(|(_, lane)| lane.as_str());
    Ok(lane.filter(|lane| *lane != "default").map(str::to_owned))
}

fn folders(path: &Path) -> Result<Vec<String>, CalibrationError> {
    let unreadable = |source| CalibrationError::Read {
        path: path.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<String, CalibrationError> {
    std::fs::read_to_string(path).map_err(|source| CalibrationError::Read {
        path: path.to_owned(),
        source,
    })
}

fn parse<'a>(path: &Path, text: &'a str) -> Result<Yaml<'a>, CalibrationError> {
    let bad = |found: String| {
        CalibrationError::Invalid(vec![Problem::new(
            &path.display().to_string(),
            found,
            "YAML",
        )])
    };
    let documents = Yaml::load_from_str(text).map_err(|error| bad(error.to_string()))?;
    documents
        .into_iter()
        .next()
        .ok_or_else(|| bad("nothing".to_owned()))
}

/// Compares versions by their numbers, text in between by itself: `0.5.6.post2` < `0.5.9` < `0.5.14`.
fn compare(a: &str, b: &str) -> Ordering {
    parts(a).cmp(&parts(b))
}

fn parts(version: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = rest[..digits].parse().unwrap_or(0);
        rest = &rest[digits..];
        let text = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        parts.push((number, rest[..text].to_owned()));
        rest = &rest[text..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        for pair in [
            ["0.5.6.post2", "0.5.9"],
            ["0.5.9", "0.5.14"],
            ["1.2.0rc5", "1.3.0rc10"],
            ["1.3.0rc10", "1.3.0rc20"],
            ["0.14.0", "0.24.0"],
        ] {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }
}
