//! `clients` and `admission`: how long clients wait, and when requests are turned away.

use super::section::Section;
use engine::Span;
use sim::adversity::clients::{CancelSpec, CancelWhen, ClientSpec};
use sim::adversity::shedding::Shedding;

/// Longest wait, 200 days.
const MAX_S: f64 = 200.0 * 86_400.0;
const MAX_RETRIES: u32 = 10;
const DEFAULT_BACKOFF_S: f64 = 1.0;

/// The section `clients`.
pub fn read(section: &Section<'_>) -> ClientSpec {
    let seconds = |name| {
        let seconds = section.number(name, f64::MIN_POSITIVE..=MAX_S);
        seconds.map(Span::from_s)
    };
    let spec = ClientSpec {
        cancel: cancel(section),
        ttft_timeout: seconds("ttft_timeout_s"),
        timeout: seconds("timeout_s"),
        retries: section.whole32("retries", 0..=MAX_RETRIES).unwrap_or(0),
        backoff: seconds("retry_backoff_s").unwrap_or(Span::from_s(DEFAULT_BACKOFF_S)),
    };
    if let (Some(first), Some(last)) = (spec.ttft_timeout, spec.timeout)
        && first >= last
    {
        section.conflict(
            "ttft_timeout_s",
            first.as_s().to_string(),
            format!("less than timeout_s, {}", last.as_s()),
            "remove the one that never comes first",
        );
    }
    if section.has("retry_backoff_s") && spec.retries == 0 {
        section.conflict(
            "retry_backoff_s",
            "a wait before retries that are not made",
            "retries above 0 beside it",
            "for example `retries: 2`",
        );
    }
    section.finish();
    // A backoff without retries says nothing.
    match spec.retries {
        0 => ClientSpec {
            backoff: Span::ZERO,
            ..spec
        },
        _ => spec,
    }
}

fn cancel(section: &Section<'_>) -> Option<CancelSpec> {
    let share = section.number("cancel_share", 0.0..=1.0);
    let after = section.number("cancel_after_s", f64::MIN_POSITIVE..=MAX_S);
    let tokens = section.whole32("cancel_after_tokens", 1..=u32::MAX >> 1);
    let (has_time, has_tokens) = (
        section.has("cancel_after_s"),
        section.has("cancel_after_tokens"),
    );
    let when = match (section.has("cancel_share"), has_time, has_tokens) {
        (false, false, false) => return None,
        (_, true, true) => {
            section.conflict(
                "cancel_after_tokens",
                "a number of tokens beside a time",
                "one of cancel_after_s and cancel_after_tokens",
                "remove one",
            );
            return None;
        }
        (true, false, false) => {
            section.mistake(
                "cancel_after_s",
                "nothing",
                "when they are cancelled",
                "for example `cancel_after_s: 20` or `cancel_after_tokens: 100`",
            );
            return None;
        }
        (false, ..) => {
            section.mistake(
                "cancel_share",
                "nothing",
                "which share is cancelled",
                "for example `cancel_share: 0.05`",
            );
            return None;
        }
        (true, true, false) => CancelWhen::After(Span::from_s(after?)),
        (true, false, true) => CancelWhen::AfterTokens(tokens?),
    };
    let share = share?;
    (share > 0.0).then_some(CancelSpec { share, when })
}

/// The section `admission`: Dynamo's thresholds.
pub fn admission(section: &Section<'_>) -> Shedding {
    let shedding = Shedding {
        active_decode_blocks: section.number("active_decode_blocks_threshold", 0.0..=1.0),
        active_prefill_tokens: section.whole("active_prefill_tokens_threshold", 0..=1 << 40),
        active_prefill_tokens_frac: section
            .number("active_prefill_tokens_threshold_frac", 0.0..=1e6),
    };
    section.finish();
    shedding
}
