//! Tests of the whole system. One program, so that it is linked once.
//!
//! * [`oracle`]: a naive simulator, obviously right; [`recorded`]: it replays the schedules of the real scheduler
//! * [`agreement`]: the fast simulator agrees with it on random scenarios, per request and to the integer
//! * [`differential`]: the fast simulator agrees with itself, however it is run, on random [`cases`] beyond the oracle
//! * [`fast`], [`timing`], [`seeds`]: the fast simulator on the oracle's scenarios; step times; many seeds

mod agreement;
mod cases;
mod differential;
mod fast;
mod oracle;
mod recorded;
mod seeds;
mod timing;
