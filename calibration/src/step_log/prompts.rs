//! What the prompts of a step log held: a log alone does not say which of them begin alike.
//!
//! `NAME.requests.json` (or `.json.gz`) beside `NAME.steplog.jsonl` is a list of objects with `id` and
//! `prompt: [[block, tokens], ...]`; equal blocks hold equal tokens, and a shorter block the first tokens of a longer one.
//! An id is that of the log without the suffix of eight digits that vLLM appends; a number stands for `r` and the number.
//! Requests that are not listed share nothing with anybody.

use super::VllmLog;
use crate::error::CalibrationError;
use crate::log_file::{Findings, LogFile};
use engine::{NewRequest, Run, Time, Workload, WorkloadBuilder};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Contents by request id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    blocks: BTreeMap<String, Vec<(u32, u32)>>,
}

#[derive(Deserialize)]
struct Entry {
    id: serde_json::Value,
    prompt: Vec<(u32, u32)>,
}

impl Prompts {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, is no such list, or names a request twice.
    pub fn read(path: &Path) -> Result<Prompts, CalibrationError> {
        let file = LogFile::read(path)?;
        let entries: Vec<Entry> =
            serde_json::from_str(file.text()).map_err(|source| CalibrationError::Json {
                path: path.to_owned(),
                source,
            })?;
        let mut findings = Findings::new(&file.name);
        let mut blocks = BTreeMap::new();
        for (at, entry) in entries.into_iter().enumerate() {
            let place = format!("entry {at}");
            if entry
                .prompt
                .iter()
                .any(|&(id, len)| id >> 31 > 0 || len == 0 || len >> 31 > 0)
            {
                let expected = "blocks below 2^31 of 1 to 2^31 tokens";
                findings.add(0, &place, "a block beyond that", expected, "");
            }
            let id = match &entry.id {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if blocks.insert(id.clone(), entry.prompt).is_some() {
                findings.add(0, &place, format!("id {id} again"), "each id once", "");
            }
        }
        findings.finish()?;
        Ok(Prompts { blocks })
    }

    /// The file that belongs to a step log by its name, if it is there.
    #[must_use]
    pub fn beside(log: &Path) -> Option<PathBuf> {
        let name = log.file_name()?.to_str()?;
        let stem = name.split(".steplog").next().filter(|stem| *stem != name)?;
        let candidates = [".requests.json.gz", ".requests.json"];
        let mut paths = candidates
            .map(|end| log.with_file_name(format!("{stem}{end}")))
            .into_iter();
        paths.find(|path| path.is_file())
    }

    fn of(&self, id: &str) -> Option<&[(u32, u32)]> {
        let known = |id: &str| self.blocks.get(id).map(Vec::as_slice);
        let bare = match id.rsplit_once('-') {
            Some((bare, suffix)) if suffix.len() == 8 => bare,
            _ => id,
        };
        let number = || bare.strip_prefix('r')?.parse::<u64>().ok();
        known(id)
            .or_else(|| known(bare))
            .or_else(|| known(&number()?.to_string()))
    }
}

impl VllmLog {
    /// The logged requests as a workload, in the order of the log; arrivals count from the first.
    ///
    /// # Errors
    /// Prompts of another length than the log says.
    pub fn workload(&self, prompts: &Prompts) -> Result<Workload, CalibrationError> {
        let mut findings = Findings::new(&self.file);
        let mut builder = WorkloadBuilder::new();
        let start = self.adds.first().map_or(0, |add| add.at_ns);
        for (index, add) in self.adds.iter().enumerate() {
            let alone = [Run {
                first: WorkloadBuilder::private_token(index as u32, 0),
                len: add.prompt_tokens,
            }];
            let listed: Option<Vec<Run>> = prompts.of(&add.id).map(|blocks| {
                let run = |&(id, len): &(u32, u32)| Run {
                    first: WorkloadBuilder::block_token(id, 0),
                    len,
                };
                blocks.iter().map(run).collect()
            });
            let prompt = listed.as_deref().unwrap_or(&alone);
            let tokens: u64 = prompt.iter().map(|run| u64::from(run.len)).sum();
            if tokens != u64::from(add.prompt_tokens) {
                let expected = format!("{tokens}, as its prompt is listed with");
                findings.add(add.line, "n", add.prompt_tokens, expected, "");
                continue;
            }
            builder.push(NewRequest {
                arrival: Time::from_ns(add.at_ns - start),
                prompt,
                output_tokens: add.max_tokens,
                priority: 0,
                session: index as u32,
                dependencies: &[],
            });
        }
        findings.finish()?;
        Ok(builder.finish())
    }
}
