//! Tests of the whole system. One program, so that it is linked once.
//!
//! * [`oracle`]: a naive simulator, obviously right; [`recorded`]: it replays the schedules of the real scheduler
//! * [`agreement`]: the fast simulator agrees with it on random scenarios, per request and to the integer
//! * [`fast`]: the fast simulator on the oracle's scenarios

mod agreement;
mod fast;
mod oracle;
mod recorded;
