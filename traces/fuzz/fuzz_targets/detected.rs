//! A file as it comes: compression and format are told from its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use traces::{ReadOptions, parse};

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes, "fuzz", &ReadOptions::default()) {
        Ok(loaded) => assert_eq!(
            loaded.trace.workload().requests.len(),
            loaded.trace.rows.len()
        ),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
