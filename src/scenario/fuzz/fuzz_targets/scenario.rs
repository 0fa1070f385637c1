//! A scenario file and an override as they come: the first line is the override, the rest the file.
#![no_main]

#[expect(dead_code, unused_imports, reason = "the program uses more of it")]
#[path = "../../mod.rs"]
mod scenario;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (line, file) = text.split_once('\n').unwrap_or(("", text));
    let overrides: Vec<scenario::Set> = line
        .split_once('=')
        .map(|(field, value)| scenario::Set::by_option(field, value))
        .into_iter()
        .collect();
    if let Err(problems) = scenario::load(None, file, &overrides) {
        assert!(!problems.to_string().is_empty());
    }
    let _ = scenario::sweep(None, file);
});
