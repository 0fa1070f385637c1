//! The built binary, run in a folder of its own.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A small deployment with an SLA; the workload comes from elsewhere.
pub const SCENARIO: &str = "schema_version: 1
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
engine: {block_size: 64}
pools: [{name: agg, workers: 2}]
router: {mode: kv}
sla: {ttft_ms: 2000, itl_ms: 30}
";

/// A folder in which the program runs; gone at the end of the test.
pub struct Folder(TempDir);

/// What the program said.
#[derive(Debug)]
pub struct Answer {
    /// The command, for messages of failed tests.
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A replay of the folder's scenario and trace with these fields.
pub fn replay<'a>(fields: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["replay", "scenario.yaml", "--trace", "trace.jsonl"];
    for field in fields {
        args.extend(["--set", field]);
    }
    args
}

/// Its report.
pub fn json(folder: &Folder, fields: &[&str]) -> Value {
    let mut args = replay(fields);
    args.push("--json");
    folder.json(&args)
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// A folder with `scenario.yaml` ([`SCENARIO`]) and `trace.jsonl` (40 generated requests in 60 s).
    pub fn with_scenario_and_trace() -> Folder {
        let folder = Folder::new();
        folder.write("scenario.yaml", SCENARIO);
        folder.good(&[
            "trace",
            "synth",
            "--preset",
            "quick",
            "--requests",
            "40",
            "--duration",
            "60",
            "--out",
            "trace.jsonl",
        ]);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Names of everything in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// The program with these arguments, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dynosim"));
        command
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Answer {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(args).output().unwrap();
        let answer = Answer {
            command: format!("dynosim {}", args.join(" ")),
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        };
        assert!(!answer.stderr.contains("panicked"), "{answer}");
        answer
    }

    /// Runs what must end well; gives stdout.
    pub fn good(&self, args: &[&str]) -> String {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(0), "{answer}");
        answer.stdout
    }

    /// Runs what must be refused as wrong usage or input, with nothing on stdout; gives stderr.
    pub fn refused(&self, args: &[&str]) -> String {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(2), "{answer}");
        assert_eq!(answer.stdout, "", "{answer}");
        assert!(!answer.stderr.is_empty(), "{answer}");
        answer.stderr
    }

    /// Runs what must print one JSON object and end well.
    pub fn json(&self, args: &[&str]) -> Value {
        let stdout = self.good(args);
        let value: Value = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"));
        assert!(value.is_object(), "{args:?}: {stdout}");
        value
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Answer {
            command,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{command}\nexit code {code:?}\nstdout: {stdout}\nstderr: {stderr}"
        )
    }
}

/// A file or folder of the repository.
pub fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of the folder with real traces and recordings that lies beside the repository on some machines; says on stderr
/// that a test skips when it is absent.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = repository("../shared").join(name);
    if !path.exists() {
        eprintln!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

/// All parts occur in the text.
pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}
