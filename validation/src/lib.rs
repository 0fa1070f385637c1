//! Simulations against real runs.
