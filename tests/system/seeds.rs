//! Many seeds: which ones, and what is found out about each, on all cores.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// `0..usual`; as many as `{name}_SCENARIOS` says, or the one that `{name}_SEED` names.
pub fn seeds(name: &str, usual: u64) -> Range<u64> {
    match number(&format!("{name}_SEED")) {
        Some(seed) => seed..seed + 1,
        None => 0..number(&format!("{name}_SCENARIOS")).unwrap_or(usual),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{variable}=`{text}` is not a whole number")))
}

/// Of every seed what `of` says about it.
pub fn in_parallel<T: Send>(seeds: Range<u64>, of: impl Fn(u64) -> T + Sync) -> BTreeMap<u64, T> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let share = |thread: usize| {
            let seeds = seeds.clone().skip(thread).step_by(threads);
            let of = &of;
            scope.spawn(move || seeds.map(|seed| (seed, of(seed))).collect::<Vec<_>>())
        };
        let shares: Vec<_> = (0..threads).map(share).collect();
        shares
            .into_iter()
            .flat_map(|share| share.join().expect("panics are caught where they happen"))
            .collect()
    })
}

/// What `run` returns, or what it panicked with.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let message = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panic: {}", text.unwrap_or("without a message"))
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(message)
}
