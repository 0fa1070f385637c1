//! Whose turn is next? The session that has been due longest, or any.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use engine::Time;
use rand::RngExt;

use super::TurnOrder;
use crate::random::{Purpose, stream};

/// Sessions `S` that have turns left.
#[derive(Debug)]
pub(super) enum Open<S> {
    /// Earliest turn first: (when it is due, index), and the sessions by index; those that were taken are gone.
    ByTime(BinaryHeap<Reverse<(Time, u32)>>, Vec<Option<S>>),
    /// In no order that matters, and how many sessions have not begun yet.
    Any { started: Vec<S>, unstarted: u64 },
}

impl<S> Open<S> {
    pub(super) fn new(order: &TurnOrder) -> Self {
        match order {
            TurnOrder::Shuffled => Open::Any {
                started: Vec::new(),
                unstarted: 0,
            },
            TurnOrder::Timed { .. } | TurnOrder::AfterAnswer { .. } => {
                Open::ByTime(BinaryHeap::new(), Vec::new())
            }
        }
    }

    /// Adds a session whose next turn is due then.
    pub(super) fn add(&mut self, session: S, due: Time) {
        match self {
            Open::ByTime(heap, sessions) => {
                heap.push(Reverse((due, sessions.len() as u32)));
                sessions.push(Some(session));
            }
            Open::Any { started, .. } => started.push(session),
        }
    }

    /// The session to which arrival `index` at `time` goes; `None` for a new one.
    pub(super) fn take(&mut self, seed: u64, index: usize, time: Time) -> Option<S> {
        match self {
            Open::ByTime(heap, sessions) => {
                heap.peek().filter(|next| next.0.0 <= time)?;
                heap.pop()
                    .and_then(|Reverse((_, index))| sessions[index as usize].take())
            }
            Open::Any { started, unstarted } => {
                // Sessions that ended before their time may leave nobody; then a new one begins.
                let all = (started.len() as u64 + *unstarted).max(1);
                let pick =
                    stream(seed, Purpose::Shuffle, index as u64).random_range(0..all) as usize;
                if pick < started.len() {
                    return Some(started.swap_remove(pick));
                }
                *unstarted = unstarted.saturating_sub(1);
                None
            }
        }
    }
}
