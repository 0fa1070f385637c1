//! Several opinions about replicas made one.
//!
//! A rejection ends it: nothing changes. Otherwise a final opinion counts alone, the one of smallest priority number if
//! there are several. Otherwise, role by role: the count that is set with the smallest priority number, else the one
//! there is, cut by the smallest "at most" and raised by the largest "at least"; the floor beats the ceiling. Where
//! setting is not allowed (the last, constraining stage), counts that are set are dropped. Source: Dynamo 1.6.1,
//! `planner/plugins/merge`.

use crate::observe::{PerRole, Role};

/// What an opinion says of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many.
    Set,
    /// Not fewer.
    AtLeast,
    /// Not more.
    AtMost,
}

/// A number for a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinion {
    /// Of which workers.
    pub role: Role,
    /// How it is meant.
    pub bound: Bound,
    /// Replicas.
    pub replicas: u32,
}

/// What one proposer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Accept,
    /// That nothing may change.
    Reject,
    /// These numbers.
    Propose {
        /// The numbers.
        opinions: Vec<Opinion>,
        /// Whether they count alone.
        is_final: bool,
    },
}

/// A verdict with its rank: the smallest number wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The rank.
    pub priority: i32,
    /// The verdict.
    pub verdict: Verdict,
}

/// What comes of the proposals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// Counts by role.
    Counts(PerRole<Option<u32>>),
    /// The opinions of the proposer that counts alone, then the counts there are of roles it does not name.
    Final(Vec<Opinion>),
}

impl Merged {
    /// Counts by role; of several final opinions on a role the last one counts.
    #[must_use]
    pub fn counts(&self) -> PerRole<Option<u32>> {
        match self {
            Merged::Counts(counts) => *counts,
            Merged::Final(opinions) => {
                let mut counts = PerRole::default();
                for opinion in opinions {
                    *counts.get_mut(opinion.role) = Some(opinion.replicas);
                }
                counts
            }
        }
    }
}

/// The proposals merged over the counts there are; `None` if a proposer rejected.
#[must_use]
pub fn merge(
    proposals: &[Proposal],
    present: PerRole<Option<u32>>,
    may_set: bool,
) -> Option<Merged> {
    if proposals
        .iter()
        .any(|proposal| proposal.verdict == Verdict::Reject)
    {
        return None;
    }
    let opinions = proposals
        .iter()
        .filter_map(|proposal| match &proposal.verdict {
            Verdict::Propose { opinions, is_final } => {
                Some((proposal.priority, opinions, *is_final))
            }
            _ => None,
        });
    let counts = |opinion: &&Opinion| may_set || opinion.bound != Bound::Set;
    let last_word = opinions
        .clone()
        .filter(|(_, _, is_final)| *is_final)
        .min_by_key(|(priority, ..)| *priority);
    if let Some((_, opinions, _)) = last_word {
        let kept: Vec<Opinion> = opinions.iter().filter(counts).copied().collect();
        return Some(Merged::Final(with_unnamed(kept, present)));
    }
    let mut merged = present;
    for role in Role::BOTH {
        let of_role: Vec<(i32, &Opinion)> = opinions
            .clone()
            .flat_map(|(priority, opinions, _)| opinions.iter().map(move |one| (priority, one)))
            .filter(|(_, opinion)| opinion.role == role)
            .filter(|(_, opinion)| counts(opinion))
            .collect();
        let bounds = |bound: Bound| {
            let of_kind = of_role
                .iter()
                .filter(move |(_, opinion)| opinion.bound == bound);
            of_kind.map(|(priority, opinion)| (*priority, opinion.replicas))
        };
        let floor = bounds(Bound::AtLeast).map(|(_, replicas)| replicas).max();
        let ceiling = bounds(Bound::AtMost).map(|(_, replicas)| replicas).min();
        let set = bounds(Bound::Set).min_by_key(|(priority, _)| *priority);
        if of_role.is_empty() {
            continue;
        }
        let wanted = set.map_or(present.get(role).unwrap_or(0), |(_, replicas)| replicas);
        let cut = ceiling.map_or(wanted, |ceiling| wanted.min(ceiling));
        *merged.get_mut(role) = Some(cut.max(floor.unwrap_or(0)));
    }
    Some(Merged::Counts(merged))
}

fn with_unnamed(mut opinions: Vec<Opinion>, present: PerRole<Option<u32>>) -> Vec<Opinion> {
    for role in Role::BOTH {
        let is_named = opinions.iter().any(|opinion| opinion.role == role);
        if let Some(replicas) = *present.get(role)
            && !is_named
        {
            opinions.push(Opinion {
                role,
                bound: Bound::Set,
                replicas,
            });
        }
    }
    opinions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(priority: i32, bound: Bound, replicas: u32) -> Proposal {
        Proposal {
            priority,
            verdict: Verdict::Propose {
                opinions: vec![Opinion {
                    role: Role::Decode,
                    bound,
                    replicas,
                }],
                is_final: false,
            },
        }
    }

    fn merged(proposals: &[Proposal], may_set: bool) -> Option<u32> {
        let present = PerRole {
            prefill: None,
            decode: Some(5),
        };
        merge(proposals, present, may_set)?.counts().decode
    }

    #[test]
    fn the_smallest_number_sets_and_the_floor_beats_the_ceiling() {
        let both = [decode(20, Bound::Set, 9), decode(10, Bound::Set, 3)];
        assert_eq!(merged(&both, true), Some(3));
        assert_eq!(merged(&both, false), Some(5));
        let cut = [decode(1, Bound::AtMost, 2), decode(2, Bound::AtLeast, 4)];
        assert_eq!(merged(&cut, true), Some(4));
    }

    #[test]
    fn a_final_opinion_counts_alone() {
        let mut last_word = decode(30, Bound::AtLeast, 2);
        if let Verdict::Propose { is_final, .. } = &mut last_word.verdict {
            *is_final = true;
        }
        assert_eq!(
            merged(&[decode(1, Bound::Set, 9), last_word], true),
            Some(2)
        );
    }

    #[test]
    fn a_rejection_ends_it() {
        let rejected = Proposal {
            priority: 9,
            verdict: Verdict::Reject,
        };
        assert_eq!(merged(&[decode(1, Bound::Set, 9), rejected], true), None);
    }
}
