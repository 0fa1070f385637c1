//! `--real cuda` where there is no GPU to be had.

use crate::program::{Folder, assert_contains, repository};

#[test]
fn a_gpu_that_cannot_be_had_is_told_and_nothing_is_run() {
    let folder = Folder::new();
    let scenario = repository("examples/real-cpu.yaml");
    let scenario = scenario.to_str().unwrap();
    let answer = folder.run(&["replay", scenario, "--real", "cuda", "--out", "out"]);
    if answer.code == Some(0) {
        println!("skipped: there is a GPU here, and it was used");
        return;
    }
    assert_eq!(answer.code, Some(2), "{answer:?}");
    assert_contains(&answer.stderr, &["--real cuda: found "]);
    assert!(!answer.stderr.contains("panicked"), "{answer:?}");
    assert!(answer.stdout.is_empty() && folder.names().is_empty());
}

/// The script for machines with a GPU, with programs that only pretend: what fails is told, the rest goes on, and the summary
/// is whole. Without a GPU nothing else is run.
#[cfg(unix)]
#[test]
fn the_gpu_script_goes_on_after_a_failure_and_leaves_a_summary() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let provide = |name: &str, text: &str| {
        folder.write(name, format!("#!/bin/sh\n{text}\n"));
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(name), executable).unwrap();
    };
    provide("dynosim", "echo 0.1.0");
    provide("nvidia-smi", "echo name; echo 'NVIDIA \"H200\"'");
    let run = || {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut script = std::process::Command::new("bash");
        script.arg(repository("executor/gpu/check.sh"));
        script.arg(folder.path("out")).env("BIN", folder.path(""));
        script.env("PATH", format!("{}:{path}", folder.path("").display()));
        let ended = script.output().unwrap();
        let summary: serde_json::Value =
            serde_json::from_slice(&folder.read("out/summary.json")).unwrap();
        let steps = summary["steps"].as_array().unwrap();
        let outcomes = steps
            .iter()
            .map(|step| step["outcome"].as_str().unwrap().to_owned());
        (
            ended.status.code(),
            outcomes.collect::<Vec<String>>(),
            summary,
        )
    };
    provide(
        "cuda-check",
        "[ $1 = compare ] && exit 1; echo '{\"name\": \"H200\"}'",
    );
    let (code, outcomes, summary) = run();
    assert_eq!(code, Some(1));
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| *outcome == "failed")
            .count(),
        1
    );
    assert_eq!((outcomes.len(), &*outcomes[1]), (8, "failed"));
    assert_eq!(summary["device"]["name"], "H200");
    assert_eq!(summary["state_before"], "name; NVIDIA H200");
    provide("cuda-check", "exit 2");
    let (code, outcomes, summary) = run();
    assert_eq!((code, outcomes), (Some(2), vec!["failed".to_owned()]));
    assert!(summary["device"].is_null());
}
