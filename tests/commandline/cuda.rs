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
