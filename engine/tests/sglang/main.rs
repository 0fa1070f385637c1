//! SGLang's scheduler against the real one and against a naive one.

#[path = "../naive/acceptance.rs"]
mod acceptance;
mod golden;
mod handoff;
mod naive;
mod oracle;
