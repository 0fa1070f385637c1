//! TensorRT-LLM's scheduler against a naive one written from the rules T1–T9.

mod naive;
mod oracle;
