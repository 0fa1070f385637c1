//! Tiers below the GPU's cache: their contents against a naive oracle, lives computed by hand, random runs.

mod contents;
mod disaggregated;
mod lives;
mod random;
