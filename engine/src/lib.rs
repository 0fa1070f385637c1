//! One worker: what it serves, how its scheduler decides, what a step is.
//!
//! Everything here is a pure state machine: it is given the time and returns what it wants done. No I/O, no clock, no
//! thread, no global state.

pub mod annotations;
pub mod connector;
pub mod contents;
pub mod executor;
mod flight;
pub mod host_pool;
pub mod kv_cache;
pub mod plan;
pub mod prefix_tree;
pub mod scheduler;
pub mod sglang;
pub mod speculation;
pub mod time;
pub mod timing;
pub mod trtllm;
pub mod vllm;
pub mod workload;

pub use annotations::{AnnotationTable, Annotations, Ephemeral, NamedWorkers};
pub use connector::Connector;
pub use contents::{Contents, TokenSource};
pub use executor::{Batch, Executor, ExecutorError};
pub use host_pool::{HostPool, HostUse, WritePolicy};
pub use kv_cache::KvEvent;
pub use plan::{Drafts, HostCopies, Reserved, Scheduled, StepPlan};
pub use prefix_tree::{NodeId, PrefixTree, PrefixTreeBuilder, Run};
pub use scheduler::{EngineConfig, Part, Scheduler, Tracking};
pub use speculation::{AcceptanceMode, DraftMethod, Drafted, Speculation};
pub use time::{Span, Time};
pub use timing::{Basis, Chunk, Piece, StepShape, StepTime, TimingSource};
pub use workload::{
    Ahead, Dependency, NewAhead, NewRequest, Request, RequestId, Trigger, Workload, WorkloadBuilder,
};
