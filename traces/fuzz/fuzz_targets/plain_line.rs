//! The fast path for plain Mooncake lines against the general one, which a null field brings about.
#![no_main]

use libfuzzer_sys::fuzz_target;
use traces::{Format, ReadOptions, parse};

fuzz_target!(|line: &str| {
    let Some(inside) = line.trim_ascii().strip_suffix('}') else {
        return;
    };
    if inside.contains(['\n', '}']) || inside.trim_ascii_end().ends_with('{') {
        return;
    }
    let options = ReadOptions {
        format: Some(Format::Mooncake),
        ..ReadOptions::default()
    };
    let fast = parse(line.as_bytes(), "fuzz", &options);
    let general = parse(
        format!("{inside},\"priority\":null}}").as_bytes(),
        "fuzz",
        &options,
    );
    match (fast, general) {
        (Ok(fast), Ok(general)) => assert_eq!(fast.trace, general.trace),
        (fast, general) => assert_eq!(fast.is_ok(), general.is_ok()),
    }
});
