//! Where results go: what is not a regular file stays what it is, and a failed write says why in words.

use crate::program::{Folder, assert_contains};

const SYNTH: [&str; 7] = [
    "trace",
    "synth",
    "--preset",
    "quick",
    "--requests",
    "20",
    "--out",
];

fn synth(folder: &Folder, out: &str) -> String {
    folder.good(&[SYNTH.as_slice(), &[out]].concat())
}

#[cfg(unix)]
#[test]
fn links_stay_and_the_files_behind_them_are_written() {
    use std::os::unix::fs::symlink;
    let folder = Folder::with_scenario_and_trace();
    std::fs::create_dir(folder.path("store")).unwrap();
    let links = ["made.jsonl", "picture.png", "spec.json"];
    for name in links {
        symlink(format!("store/{name}"), folder.path(name)).unwrap();
    }
    synth(&folder, "made.jsonl");
    folder.good(&["trace", "describe", "trace.jsonl", "--plot", "picture.png"]);
    folder.good(&[
        "trace",
        "synth",
        "--preset",
        "quick",
        "--save-spec",
        "spec.json",
    ]);
    // A folder of results whose report lies elsewhere.
    std::fs::create_dir(folder.path("results")).unwrap();
    symlink("../store/report.json", folder.path("results/report.json")).unwrap();
    folder.good(&[
        "replay",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--out",
        "results",
    ]);
    for name in links.into_iter().chain(["results/report.json"]) {
        let found = std::fs::symlink_metadata(folder.path(name)).unwrap();
        assert!(found.is_symlink(), "{name}");
        assert!(!folder.read(name).is_empty(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_device_a_pipe_and_standard_output_are_written_to() {
    use std::os::unix::fs::FileTypeExt;
    let folder = Folder::new();
    // By a link: a program that is wrong replaces the link and not the device.
    std::os::unix::fs::symlink("/dev/null", folder.path("null.jsonl")).unwrap();
    synth(&folder, "null.jsonl");
    let found = std::fs::metadata(folder.path("null.jsonl")).unwrap();
    assert!(found.file_type().is_char_device());
    let (trace, stdout) = (synth(&folder, "t.jsonl"), synth(&folder, "/dev/stdout"));
    assert_contains(&trace, &["t.jsonl: 20 requests"]);
    assert_eq!(
        stdout,
        folder.text("t.jsonl") + &trace.replace("t.jsonl", "/dev/stdout")
    );
    // Standard output that is a file is shared as well, not replaced or written over.
    let file = std::fs::File::create(folder.path("both")).unwrap();
    let args = [SYNTH.as_slice(), &["/dev/stdout"]].concat();
    let status = folder.command(&args).stdout(file).status().unwrap();
    assert!(status.success());
    assert_eq!(folder.text("both"), stdout);
}

#[test]
fn a_missing_folder_is_told_in_words() {
    let folder = Folder::with_scenario_and_trace();
    let plot = ["trace", "describe", "trace.jsonl", "--plot", "no/such.png"];
    let out = [SYNTH.as_slice(), &["no/such.jsonl"]].concat();
    for (args, name) in [(plot.as_slice(), "no/such.png"), (&out, "no/such.jsonl")] {
        let said = folder.refused(args);
        let expected =
            format!("{name}: cannot write: found no folder no, expected one: make it first\n");
        assert_eq!(said, expected);
    }
    folder.write("taken", "");
    let replay = [
        "replay",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--out",
        "taken",
    ];
    let said = folder.refused(&replay);
    assert_contains(&said, &["--out taken: ", "it is a file"]);
}
