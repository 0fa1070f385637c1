//! The indexes of dynosim, by their sources: the crate `sim` wants a newer tokio than the reference allows.

#![expect(dead_code, reason = "only what answers questions is used")]

#[path = "../../../../../sim/src/router/by_rank.rs"]
pub mod by_rank;
#[path = "../../../../../sim/src/router/hash.rs"]
pub mod hash;
#[path = "../../../../../sim/src/router/indexer/mod.rs"]
pub mod indexer;
