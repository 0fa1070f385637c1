//! Pinned for a time: what was used within the time to live stays, and a tier full of such blocks takes nothing new. What
//! is older goes least recently used first.
//!
//! It is what `cache_control: {type: ephemeral, ttl: 1h}` on every request of a deployment comes to.

use super::Life;
use engine::{Span, Time};

pub fn holds(life: &Life, ttl: Span, now: Time) -> bool {
    now < life.last_used + ttl
}
