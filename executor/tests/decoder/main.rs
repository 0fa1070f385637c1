//! The decoder: its logits against a naive one ([`dense`]), and its answers however requests are served ([`serving`]).
#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;
mod dense;
mod serving;
