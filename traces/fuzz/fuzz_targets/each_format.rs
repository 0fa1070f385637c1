//! The first byte chooses format, block size and strictness, the rest is the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use traces::{Format, ReadOptions, parse};

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, file)) = bytes.split_first() else {
        return;
    };
    let format = Format::ALL[usize::from(choice) % Format::ALL.len()];
    let options = ReadOptions {
        format: Some(format),
        block_size: (choice & 0x40 != 0).then_some(16),
        is_strict: choice & 0x80 != 0,
    };
    if let Ok(loaded) = parse(file, "fuzz", &options) {
        let trace = &loaded.trace;
        assert!(trace.rows.is_sorted_by_key(|row| row.arrival));
        assert!(
            trace
                .block_list
                .iter()
                .all(|&block| block < trace.unique_blocks)
        );
        assert_eq!(trace.workload().requests.len(), trace.rows.len());
    }
});
