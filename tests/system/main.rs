//! Tests of the whole system. One program, so that it is linked once.
//!
//! * [`oracle`]: a naive simulator, obviously right; [`recorded`]: it replays the schedules of the real scheduler
//! * [`agreement`]: the fast simulator agrees with it on random scenarios, per request and to the integer
//! * [`differential`]: the fast simulator agrees with itself, however it is run, on random [`cases`] beyond the oracle
//! * [`adverse`]: the same where clients leave and parts break, and nobody gets lost
//! * [`link_faults`]: the same where links between workers are slow or down
//! * [`scaled`]: the same with planners, where workers come and go
//! * [`properties`]: what holds for every run; [`metamorphic`], [`renaming`]: changes whose effect is known
//! * [`analytic`]: textbook queues; [`complexity`]: what a run costs in events
//! * [`live`]: the live driver; [`real`]: with a transformer that computes the steps; [`conversation`]: the public conversation trace against the reference simulator
//! * [`fast`], [`timing`], [`seeds`]: the fast simulator on the oracle's scenarios; step times; many seeds

mod adverse;
mod agreement;
mod analytic;
mod annotated;
mod cases;
mod complexity;
mod conversation;
mod differential;
mod fast;
mod link_faults;
mod live;
mod metamorphic;
mod oracle;
mod properties;
mod real;
mod recorded;
mod renaming;
mod scaled;
mod seeds;
mod timing;
