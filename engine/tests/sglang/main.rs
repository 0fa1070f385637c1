//! SGLang's scheduler against the real one and against a naive one.

mod golden;
mod naive;
mod oracle;
