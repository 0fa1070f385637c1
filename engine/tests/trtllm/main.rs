//! TensorRT-LLM's scheduler against a naive one written from the rules T1–T9.

#[path = "../naive/acceptance.rs"]
mod acceptance;
mod naive;
mod oracle;
