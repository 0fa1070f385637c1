//! The serving system on a clock: cluster, routers, drivers, metrics.

pub mod adversity;
pub mod ahead;
pub mod cluster;
pub mod costs;
pub mod disaggregation;
pub mod event;
pub mod frontend;
mod group;
pub mod host;
pub mod journal;
pub mod kvbm;
pub mod links;
pub mod live;
pub mod load;
pub mod metrics;
mod pipeline;
mod pricing;
pub mod quantile;
mod random;
pub mod record;
pub mod regret;
pub mod router;
pub mod scaling;
pub mod series;
pub mod stuck;
pub mod summary;
pub mod virtual_clock;
pub mod worker;

pub use adversity::AdversitySpec;
pub use cluster::{Cluster, ClusterSpec, PoolSpec};
pub use disaggregation::{DisaggregationSpec, HandoffOrder, Role, TransferRecord};
pub use frontend::FrontendSpec;
pub use host::HostSpec;
pub use kvbm::KvbmSpec;
pub use load::LoadSpec;
pub use metrics::summarize;
pub use record::{
    AheadRecord, Failure, GapRun, Outcome, Recording, Rejection, RequestRecord, WorkerRecord,
};
pub use regret::Regret;
pub use router::RouterSpec;
pub use scaling::{PoolScaling, ScalingRecord, ScalingSpec, ScalingSummary, Startup};
pub use series::{Series, Window, series};
pub use summary::{Distribution, Goodput, Sla, Summary};
