//! The event journal: what happened when, and what the cluster asked for in answer.
//!
//! A journal taken live can be played back into a fresh cluster: the same events at the same times must lead to the
//! same actions. That is the proof that the live driver and the virtual one run the same decisions.

use crate::cluster::Cluster;
use crate::event::{Action, Event};
use engine::Time;

/// Version of the journal's meaning; changes whenever the same events could lead to other actions.
pub const JOURNAL_VERSION: u32 = 1;

/// One event and its consequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was handled.
    pub time: Time,
    /// What happened.
    pub event: Event,
    /// What the cluster asked for.
    pub actions: Vec<Action>,
}

/// All events of a run in the order in which they were handled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Journal {
    /// What the cluster asked for before the first event.
    pub opening: Vec<Action>,
    /// The events.
    pub entries: Vec<Entry>,
}

/// The first place where a cluster did not do what a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Index of the entry; `None` for the opening.
    pub entry: Option<usize>,
    /// What the journal says.
    pub expected: Vec<Action>,
    /// What the cluster did.
    pub found: Vec<Action>,
}

impl Journal {
    /// Plays the events into a fresh `cluster`, with the journal in place of a clock and a timing model.
    ///
    /// # Errors
    /// The first departure.
    pub fn play(&self, cluster: &mut Cluster) -> Result<(), Departure> {
        let mut found = Vec::new();
        cluster.start(&mut found);
        if found != self.opening {
            return Err(Departure {
                entry: None,
                expected: self.opening.clone(),
                found,
            });
        }
        for (index, entry) in self.entries.iter().enumerate() {
            found.clear();
            cluster.handle(entry.time, entry.event, &mut found);
            if found != entry.actions {
                return Err(Departure {
                    entry: Some(index),
                    expected: entry.actions.clone(),
                    found,
                });
            }
        }
        Ok(())
    }
}
