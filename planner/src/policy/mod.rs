//! Planners other than Dynamo's, one file each; every one opens with its rule and where it is from.

mod fixed;

pub use fixed::Fixed;
