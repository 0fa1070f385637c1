//! While workers are verified to be starting: decisions may only cancel them, and only if they mean it.
//!
//! A target at or below the workers that serve cancels what is starting; anything more changes nothing, for more is
//! already on its way. Starting workers count in the budget as long as they are not cancelled. A cancellation is carried
//! out only if the same targets came from the same proposers for the same inventory over a whole load interval; anything
//! else starts the wait anew.

use super::merge::{Bound, Proposal, Verdict};
use super::state::{Inventory, ScalingState, Targets};
use crate::budget::fit_directional;
use crate::decision::Reason;
use crate::observe::{PerRole, Role};
use engine::Time;

/// Who proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Load scaling.
    Load,
    /// Throughput scaling.
    Throughput,
}

impl Source {
    const BOTH: [Source; 2] = [Source::Load, Source::Throughput];

    /// Load scaling is heard first.
    pub(super) fn priority(self) -> i32 {
        match self {
            Source::Load => 10,
            Source::Throughput => 20,
        }
    }
}

/// What the two said at a tick.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// Whether load scaling was asked, and its targets.
    pub load: Option<Option<Targets>>,
    /// The same for throughput scaling.
    pub throughput: Option<Option<Targets>>,
}

impl Heard {
    fn of(&self, source: Source) -> Option<Option<Targets>> {
        match source {
            Source::Load => self.load,
            Source::Throughput => self.throughput,
        }
    }

    fn targets(&self) -> impl Iterator<Item = (Source, Targets)> + '_ {
        Source::BOTH
            .into_iter()
            .filter_map(|source| Some((source, self.of(source)??)))
    }

    /// Whether anybody named a role.
    pub(super) fn names(&self, role: Role) -> bool {
        self.targets()
            .any(|(_, targets)| targets.get(role).is_some())
    }

    /// As proposals to be merged.
    pub(super) fn proposals(&self) -> Vec<Proposal> {
        let proposal = |(source, targets): (Source, Targets)| Proposal {
            priority: source.priority(),
            verdict: Verdict::Propose {
                opinions: Role::BOTH
                    .into_iter()
                    .filter_map(|role| {
                        Some(super::merge::Opinion {
                            role,
                            bound: Bound::Set,
                            replicas: (*targets.get(role))?,
                        })
                    })
                    .collect(),
                is_final: false,
            },
        };
        self.targets().map(proposal).collect()
    }
}

/// A cancellation that waits to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    targets: Targets,
    inventory: (PerRole<Option<u32>>, PerRole<u32>),
    sources: [bool; 2],
    since: Time,
}

impl ScalingState {
    /// A target as a cancellation, or nothing: only below what serves and starts, and not above what serves.
    pub(super) fn reduction(&self, role: Role, target: Option<u32>) -> Option<u32> {
        let (ready, pending) = (self.ready(role), self.pending(role));
        target.filter(|&target| target <= ready && target < ready + pending)
    }

    /// Cancellations of both roles within the lower bound of the budget: a role that is not reduced keeps what serves and
    /// starts, a reduced one what the bound still needs.
    pub(super) fn cancel_starting(&mut self, wanted: Targets, source: Source) -> Option<Targets> {
        let reduce = |state: &Self, targets: Targets| PerRole {
            prefill: state.reduction(Role::Prefill, targets.prefill),
            decode: state.reduction(Role::Decode, targets.decode),
        };
        let mut targets = reduce(self, wanted);
        if targets == Targets::default() {
            return None;
        }
        if let Some(mut budget) = self.config.pair_budget(&self.capabilities) {
            budget.gpus.max = None;
            let kept = |role: Role| match targets.get(role) {
                None => self.ready(role) + self.pending(role),
                Some(_) => self.ready(role),
            };
            let current = PerRole {
                prefill: kept(Role::Prefill),
                decode: kept(Role::Decode),
            };
            let proposed = PerRole {
                prefill: targets.prefill.unwrap_or(current.prefill),
                decode: targets.decode.unwrap_or(current.decode),
            };
            let fitted = fit_directional(&budget, current, proposed);
            targets = reduce(
                self,
                PerRole {
                    prefill: targets.prefill.map(|_| fitted.prefill),
                    decode: targets.decode.map(|_| fitted.decode),
                },
            );
        }
        if targets == Targets::default() {
            return None;
        }
        match source {
            Source::Load => self.diagnostics.load.overall = Some(Reason::ScaleDown),
            Source::Throughput => self.diagnostics.throughput.overall = Some(Reason::Scale),
        }
        Some(targets)
    }

    /// What is carried out of the merged counts while workers are starting.
    pub(super) fn confirmed_cancellation(
        &self,
        candidate: &mut Option<Candidate>,
        merged: Targets,
        heard: &Heard,
        now: Time,
    ) -> Option<Targets> {
        let inventory = &self.inventory;
        let Some(asked) = self.asked_cancellation(inventory, merged, heard) else {
            *candidate = None;
            return None;
        };
        let signature = (inventory.ready, inventory.pending);
        if asked.targets == Targets::default() {
            let is_stale = candidate.is_some_and(|known| {
                let was_asked = Source::BOTH
                    .iter()
                    .zip(known.sources)
                    .any(|(&source, is_source)| is_source && heard.of(source).is_some());
                was_asked || self.contradicts(heard, &known) || known.inventory != signature
            });
            if is_stale {
                *candidate = None;
            }
            return None;
        }
        if !self.is_within_budget(asked.gpus) {
            *candidate = None;
            return None;
        }
        match candidate {
            Some(known)
                if known.targets == asked.targets
                    && known.inventory == signature
                    && known.sources == asked.sources =>
            {
                let interval =
                    engine::Span::from_s(f64::from(self.config.load_adjustment_interval_seconds));
                (now.since(known.since) >= interval).then_some(known.targets)
            }
            _ => {
                *candidate = Some(Candidate {
                    targets: asked.targets,
                    inventory: signature,
                    sources: asked.sources,
                    since: now,
                });
                None
            }
        }
    }

    /// The cancellations in the merged counts, who asked for them, and the GPUs left in use; `None` if that cannot be known.
    fn asked_cancellation(
        &self,
        inventory: &Inventory,
        merged: Targets,
        heard: &Heard,
    ) -> Option<Asked> {
        let mut asked = Asked {
            targets: Targets::default(),
            sources: [false; 2],
            gpus: 0,
        };
        for &role in self.config.mode.roles() {
            let ready = (*inventory.ready.get(role))?;
            let desired = ready + self.pending(role);
            let sources = self.reducing_sources(role, ready, merged, heard);
            let target = merged
                .get(role)
                .filter(|_| sources.contains(&true))
                .map(|target| target.max(self.floor(role)))
                .filter(|&target| target <= ready && target < desired);
            if target.is_some() {
                *asked.targets.get_mut(role) = target;
                for (known, is_source) in asked.sources.iter_mut().zip(sources) {
                    *known |= is_source;
                }
            }
            let gpus = self.config.gpu_budget;
            let cost = match self.capabilities.get(role).num_gpu {
                None if gpus.min.is_some() || gpus.max.is_some() => return None,
                cost => cost.unwrap_or(0),
            };
            asked.gpus += u64::from(target.unwrap_or(desired)) * u64::from(cost);
        }
        Some(asked)
    }

    /// Which proposers want a role at or below what serves.
    fn reducing_sources(
        &self,
        role: Role,
        ready: u32,
        merged: Targets,
        heard: &Heard,
    ) -> [bool; 2] {
        if merged.get(role).is_none_or(|target| target > ready) {
            return [false; 2];
        }
        Source::BOTH.map(|source| {
            let targets = heard.of(source).flatten();
            targets
                .and_then(|targets| *targets.get(role))
                .is_some_and(|target| target <= ready)
        })
    }

    /// Whether somebody now wants more than the candidate does.
    fn contradicts(&self, heard: &Heard, known: &Candidate) -> bool {
        heard.targets().any(|(_, targets)| {
            Role::BOTH.into_iter().any(|role| {
                let (new, old) = (targets.get(role), known.targets.get(role));
                matches!((new, old), (Some(new), Some(old)) if new > old)
            })
        })
    }

    fn is_within_budget(&self, gpus: u64) -> bool {
        let budget = self.config.gpu_budget;
        budget.min.is_none_or(|min| gpus >= u64::from(min))
            && budget.max.is_none_or(|max| gpus <= u64::from(max))
    }
}

struct Asked {
    targets: Targets,
    sources: [bool; 2],
    gpus: u64,
}
