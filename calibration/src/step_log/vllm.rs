//! The log of a vLLM scheduler that writes down what it did.
//!
//! In words: `init` holds the settings, `add` a request that came in, `step` a batch in vLLM's own order with the moments
//! t0 (scheduling begins), t1 (ends), t2 (the model's output is back), t3 (it is processed), all in ns of one monotonic
//! clock. How far each request was computed *before* a step follows from the order of the lines; the log's own figure is
//! taken where it is one (it is negative for a request that ended with the step, since it was noted afterwards).

use super::{Observation, StepLog};
use crate::error::CalibrationError;
use crate::log_file::{Findings, LogFile};
use crate::work::Work;
use serde::Deserialize;
use std::collections::HashMap;

/// More tokens or blocks than this are none.
const MOST: u32 = 1 << 30;

/// A log, line by line.
#[derive(Debug, Clone, PartialEq)]
pub struct VllmLog {
    /// The file, as the caller named it.
    pub file: String,
    /// BLAKE3 of its bytes.
    pub digest: String,
    /// The engine.
    pub settings: Settings,
    /// Requests in the order in which the scheduler got them.
    pub adds: Vec<Add>,
    /// Steps in the order of time.
    pub steps: Vec<Step>,
    /// Both, as they followed each other.
    pub entries: Vec<Entry>,
}

/// The settings of the engine that wrote the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are vLLM's own")]
pub struct Settings {
    pub num_gpu_blocks: u32,
    pub block_size: u32,
    pub max_num_seqs: u32,
    pub max_num_batched_tokens: u32,
    pub async_scheduling: bool,
    pub prefix_caching: bool,
}

/// A request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Line, from 1.
    pub line: usize,
    /// When, ns.
    pub at_ns: u64,
    /// Its id.
    pub id: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens to generate.
    pub max_tokens: u32,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Line, from 1.
    pub line: usize,
    /// Scheduling begins, ns.
    pub start_ns: u64,
    /// The output is processed, ns.
    pub end_ns: u64,
    /// The batch, in vLLM's order.
    pub parts: Vec<Part>,
    /// Free KV blocks afterwards.
    pub free_blocks: u32,
}

/// A request's part in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Index in [`VllmLog::adds`].
    pub request: usize,
    /// Tokens computed.
    pub new_tokens: u32,
    /// Tokens computed before, as far as the log has it right.
    pub logged_before: Option<u32>,
    /// Tokens computed or found in the cache before.
    pub computed_before: u32,
    /// Whether it generates: a token is computed that was sampled before.
    pub is_decode: bool,
}

/// What follows what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Index in [`VllmLog::adds`].
    Add(usize),
    /// Index in [`VllmLog::steps`].
    Step(usize),
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Init(Settings),
    Add {
        t: u64,
        id: String,
        n: u32,
        max_tokens: u32,
    },
    Step {
        t0: u64,
        t1: u64,
        t2: u64,
        t3: u64,
        sched: Vec<(String, u32, i64)>,
        free: u32,
    },
}

/// How far a request has come while the log is read.
#[derive(Debug, Clone, Copy)]
struct Progress {
    computed: u32,
    outputs: u32,
    /// Tokens to be computed before it generates (again).
    goal: u32,
    is_started: bool,
}

struct Reader<'a> {
    findings: Findings<'a>,
    settings: Option<Settings>,
    index: HashMap<String, usize>,
    progress: Vec<Progress>,
    adds: Vec<Add>,
    steps: Vec<Step>,
    entries: Vec<Entry>,
    /// The latest moment so far.
    now_ns: u64,
}

impl VllmLog {
    /// Reads a log.
    ///
    /// # Errors
    /// Everything that is wrong with its lines.
    pub fn parse(file: &LogFile) -> Result<VllmLog, CalibrationError> {
        let mut reader = Reader {
            findings: Findings::new(&file.name),
            settings: None,
            index: HashMap::new(),
            progress: Vec::new(),
            adds: Vec::new(),
            steps: Vec::new(),
            entries: Vec::new(),
            now_ns: 0,
        };
        for (line, text) in file.lines() {
            reader.line(line, text);
        }
        if reader.findings.is_empty() && reader.settings.is_none() {
            let hint = "the logging scheduler writes it first";
            reader
                .findings
                .add(0, "", "no line of kind init", "one, at the top", hint);
        }
        if reader.findings.is_empty() && reader.steps.is_empty() {
            let found = "no line of kind step";
            reader.findings.add(0, "", found, "at least one", "");
        }
        let Reader {
            findings,
            settings,
            adds,
            steps,
            entries,
            ..
        } = reader;
        findings.finish()?;
        Ok(VllmLog {
            file: file.name.clone(),
            digest: file.digest.clone(),
            settings: settings.expect("its absence was reported"),
            adds,
            steps,
            entries,
        })
    }

    /// The steps as a fit sees them: from the beginning of scheduling to the end of processing, and the usual time
    /// between steps.
    // Model: with asynchronous scheduling t0 to t3 of neighbouring steps overlap, so the time of a step is what passes
    // from one t3 to the next there.
    #[must_use]
    pub fn observations(&self) -> StepLog {
        let is_async = self.settings.async_scheduling;
        let between_steps = if is_async { 0.0 } else { self.between_steps() };
        let mut last_end = 0;
        let observe = |step: &Step| {
            let mut work = Work::default();
            for part in &step.parts {
                if part.is_decode {
                    work.add_decode(part.computed_before + part.new_tokens);
                } else {
                    work.add_chunk(part.new_tokens, part.computed_before);
                }
            }
            let start = if is_async {
                step.start_ns.max(last_end)
            } else {
                step.start_ns
            };
            last_end = step.end_ns;
            Observation {
                line: step.line,
                work,
                seconds: (step.end_ns - start) as f64 * 1e-9 + between_steps,
                host_seconds: None,
            }
        };
        StepLog {
            file: self.file.clone(),
            digest: self.digest.clone(),
            form: "vllm",
            observations: self.steps.iter().map(observe).collect(),
            between_steps,
            idle: 0,
        }
    }

    /// Median of the time from one step to the next, over those steps that left unfinished requests behind.
    fn between_steps(&self) -> f64 {
        let mut gaps = Vec::new();
        let mut left: HashMap<usize, u32> = HashMap::new();
        for pair in self.steps.windows(2) {
            for part in &pair[0].parts {
                left.insert(part.request, part.computed_before + part.new_tokens);
            }
            let goes_on = pair[1]
                .parts
                .iter()
                .any(|part| left.contains_key(&part.request));
            if goes_on {
                gaps.push(pair[1].start_ns - pair[0].end_ns);
            }
        }
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).map_or(0.0, |&ns| ns as f64 * 1e-9)
    }
}

impl Reader<'_> {
    fn line(&mut self, line: usize, text: &str) {
        match serde_json::from_str(text) {
            Err(error) => {
                let hint = "docs/fits.md has the fields";
                let expected = "a line of kind init, add or step";
                self.findings.add(line, "", error, expected, hint);
            }
            Ok(Line::Init(settings)) => self.init(line, settings),
            Ok(Line::Add {
                t,
                id,
                n,
                max_tokens,
            }) => self.add(Add {
                line,
                at_ns: t,
                id,
                prompt_tokens: n,
                max_tokens,
            }),
            Ok(Line::Step {
                t0,
                t1,
                t2,
                t3,
                sched,
                free,
            }) => self.step(line, [t0, t1, t2, t3], sched, free),
        }
    }

    fn init(&mut self, line: usize, settings: Settings) {
        if self.settings.is_some() || !self.entries.is_empty() {
            let hint = "cut the file where another engine begins";
            let expected = "one, before everything else";
            self.findings
                .add(line, "kind", "another init", expected, hint);
        }
        for (field, value, least) in [
            ("num_gpu_blocks", settings.num_gpu_blocks, 2),
            ("block_size", settings.block_size, 1),
            ("max_num_seqs", settings.max_num_seqs, 1),
            ("max_num_batched_tokens", settings.max_num_batched_tokens, 1),
        ] {
            if !(least..=MOST).contains(&value) {
                let expected = format!("a number from {least} to {MOST}");
                self.findings.add(line, field, value, expected, "");
            }
        }
        self.settings = Some(settings);
    }

    fn moves_on(&mut self, line: usize, field: &str, ns: u64) {
        if ns < self.now_ns {
            let expected = format!("at least {}, the moment before", self.now_ns);
            let hint = "the clock ran backwards, or lines are out of order";
            self.findings.add(line, field, ns, expected, hint);
        }
        self.now_ns = self.now_ns.max(ns);
    }

    fn add(&mut self, add: Add) {
        // The moment at which the request came is noted when the scheduler takes it, between two steps.
        self.moves_on(add.line, "t", add.at_ns);
        for (field, value) in [("n", add.prompt_tokens), ("max_tokens", add.max_tokens)] {
            if !(1..=MOST).contains(&value) {
                let expected = format!("a number from 1 to {MOST}");
                self.findings.add(add.line, field, value, expected, "");
            }
        }
        let index = self.adds.len();
        if let Some(first) = self.index.insert(add.id.clone(), index) {
            let expected = format!("an id that line {} has not", self.adds[first].line);
            self.findings.add(add.line, "id", &add.id, expected, "");
        }
        self.progress.push(Progress {
            computed: 0,
            outputs: 0,
            goal: add.prompt_tokens,
            is_started: false,
        });
        self.entries.push(Entry::Add(index));
        self.adds.push(add);
    }

    fn step(&mut self, line: usize, times: [u64; 4], sched: Vec<(String, u32, i64)>, free: u32) {
        let is_async = self
            .settings
            .is_some_and(|settings| settings.async_scheduling);
        if !is_async {
            self.moves_on(line, "t0", times[0]);
        }
        let names = ["t0", "t1", "t2", "t3"];
        for at in 1..4 {
            if times[at] < times[at - 1] {
                let expected = format!("at least {} ({})", times[at - 1], names[at - 1]);
                let hint = "the clock ran backwards";
                self.findings
                    .add(line, names[at], times[at], expected, hint);
            }
        }
        if times[3] == times[0] {
            self.findings
                .add(line, "t3", "a step of 0 ns", "a step that takes time", "");
        }
        self.moves_on(line, "t3", times[3]);
        if sched.is_empty() {
            let expected = "at least one request";
            self.findings.add(line, "sched", "none", expected, "");
        }
        let blocks = self
            .settings
            .map_or(u32::MAX, |settings| settings.num_gpu_blocks);
        if free >= blocks {
            let expected = format!("less than num_gpu_blocks, {blocks}");
            self.findings.add(line, "free", free, expected, "");
        }
        let mut parts: Vec<Part> = Vec::with_capacity(sched.len());
        for (id, new_tokens, before) in sched {
            let Some(part) = self.part(line, &id, new_tokens, before) else {
                continue;
            };
            if parts.iter().any(|other| other.request == part.request) {
                self.findings.add(
                    line,
                    "sched",
                    format!("{id} twice"),
                    "each request once",
                    "",
                );
            }
            parts.push(part);
        }
        self.entries.push(Entry::Step(self.steps.len()));
        self.steps.push(Step {
            line,
            start_ns: times[0],
            end_ns: times[3],
            parts,
            free_blocks: free,
        });
    }

    fn part(&mut self, line: usize, id: &str, new_tokens: u32, before: i64) -> Option<Part> {
        let Some(&request) = self.index.get(id) else {
            let hint = "is the beginning of the log missing?";
            let expected = "a request that was added before";
            self.findings.add(line, "sched", id, expected, hint);
            return None;
        };
        let add = &self.adds[request];
        let progress = &mut self.progress[request];
        let known = add.prompt_tokens + progress.outputs;
        let logged_before = u32::try_from(before).ok();
        let computed_before = match logged_before {
            Some(before) => before,
            None if progress.is_started => progress.computed,
            // It began and ended with this step.
            None => known.saturating_sub(new_tokens),
        };
        let reaches = u64::from(computed_before) + u64::from(new_tokens);
        let is_over = progress.outputs >= add.max_tokens;
        if new_tokens == 0 || reaches > u64::from(known) || is_over {
            let found = format!("{new_tokens} tokens after {computed_before} of {id}");
            let expected = match is_over {
                true => format!("nothing: it has its {} tokens", add.max_tokens),
                false => format!("at least 1, up to {known} in all"),
            };
            self.findings.add(line, "sched", found, expected, "");
            return None;
        }
        if !progress.is_started || computed_before < progress.computed {
            // It starts, or starts again after it lost its blocks: then what it generated is prefilled too.
            progress.goal = known;
        } else if computed_before > progress.computed {
            let found = format!("{id} at {computed_before}");
            let expected = format!("{}, where it was", progress.computed);
            let hint = "a line is missing before this one";
            self.findings.add(line, "sched", found, expected, hint);
        }
        progress.is_started = true;
        progress.computed = computed_before + new_tokens;
        progress.outputs += u32::from(progress.computed == known);
        Some(Part {
            request,
            new_tokens,
            logged_before,
            computed_before,
            is_decode: computed_before >= progress.goal,
        })
    }
}

#[cfg(test)]
mod tests;
