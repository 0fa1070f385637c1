//! What a request says about itself besides prompt and length: where it wants to go, and how it wants to be treated.
//!
//! Most requests say nothing, and many say the same. So annotations stand beside the requests in a table of their own,
//! each kind once; a workload without any has an empty one. Names are those of Dynamo's request extensions (`nvext`).

use crate::scheduler::Part;
use crate::time::Span;
use rustc_hash::FxHashMap;

/// What a request says. The default is nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Annotations {
    /// Workers it is to go to.
    pub workers: NamedWorkers,
    /// Labels that its worker must have; in order, each once.
    pub required_taints: Vec<String>,
    /// Labels that make a worker cheaper or, below 0, dearer, with finite weights; in order, each once.
    pub preferred_taints: Vec<(String, f64)>,
    /// Goes before all that have less, in a router's queue.
    pub strict_priority: u32,
    /// Class or family of a router's policy file.
    pub policy_class: Option<String>,
    /// Tokens that its client expects as answer (`osl` of Dynamo's hints), at least 1.
    pub expected_output_tokens: Option<u32>,
    /// Which of its KV blocks nobody will ask for again.
    pub ephemeral_blocks: Option<Ephemeral>,
    /// How long its prompt is pinned once it is computed (`cache_control`).
    pub pin: Option<Span>,
    /// When its answer ends, prompt and answer are sent ahead of the next turn.
    pub speculative_prefill: bool,
}

/// Blocks that nobody will ask for again once their request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ephemeral {
    /// Those with its answer: thinking that no later turn sends back.
    Answer,
    /// All that it did not find in the cache: a sub-agent that ends.
    Request,
}

impl Ephemeral {
    /// Its name in traces and scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Ephemeral::Answer => "answer",
            Ephemeral::Request => "request",
        }
    }
}

// Weights are finite, so that everything equals itself.
impl Eq for Annotations {}

/// Workers that a request names, as reports number them: each rank is a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamedWorkers {
    /// Where workers do whole requests (`backend_instance_id`).
    pub whole: Option<u32>,
    /// For its prefill (`prefill_worker_id`).
    pub prefill: Option<u32>,
    /// For its decode (`decode_worker_id`).
    pub decode: Option<u32>,
}

impl NamedWorkers {
    /// The one named for what its workers do of a request.
    #[must_use]
    pub fn of(&self, part: Part) -> Option<u32> {
        match part {
            Part::Whole => self.whole,
            Part::Prefill => self.prefill,
            Part::Decode => self.decode,
        }
    }
}

impl Annotations {
    /// What it says, and what `other` says about everything else.
    #[must_use]
    pub fn or(self, other: &Annotations) -> Annotations {
        let NamedWorkers {
            whole,
            prefill,
            decode,
        } = other.workers;
        let or_list = |own: Vec<String>, other: &[String]| match own.is_empty() {
            true => other.to_vec(),
            false => own,
        };
        Annotations {
            workers: NamedWorkers {
                whole: self.workers.whole.or(whole),
                prefill: self.workers.prefill.or(prefill),
                decode: self.workers.decode.or(decode),
            },
            required_taints: or_list(self.required_taints, &other.required_taints),
            preferred_taints: match self.preferred_taints.is_empty() {
                true => other.preferred_taints.clone(),
                false => self.preferred_taints,
            },
            strict_priority: match self.strict_priority {
                0 => other.strict_priority,
                own => own,
            },
            policy_class: self.policy_class.or_else(|| other.policy_class.clone()),
            expected_output_tokens: self.expected_output_tokens.or(other.expected_output_tokens),
            ephemeral_blocks: self.ephemeral_blocks.or(other.ephemeral_blocks),
            pin: self.pin.or(other.pin),
            speculative_prefill: self.speculative_prefill || other.speculative_prefill,
        }
    }

    /// What is said of the request that is sent ahead of its next turn: where it goes, and how soon. Its blocks are to stay.
    #[must_use]
    pub fn sent_ahead(&self) -> Annotations {
        Annotations {
            expected_output_tokens: self.expected_output_tokens.map(|_| 1),
            ephemeral_blocks: None,
            speculative_prefill: false,
            ..self.clone()
        }
    }

    /// True if a worker with these labels may have the request.
    #[must_use]
    pub fn allows(&self, taints: &[String]) -> bool {
        let mut required = self.required_taints.iter();
        required.all(|taint| taints.contains(taint))
    }

    /// Summed weight of the preferred labels that a worker has.
    #[must_use]
    pub fn preference(&self, taints: &[String]) -> f64 {
        let weight = |taint: &String| {
            let mut preferred = self.preferred_taints.iter();
            preferred.find_map(|(name, weight)| (name == taint).then_some(*weight))
        };
        taints.iter().filter_map(weight).sum()
    }
}

/// Who says what: rows of a trace, or requests of a workload.
#[derive(Debug, Clone, Default)]
pub struct AnnotationTable {
    kinds: Vec<Annotations>,
    /// By row: 0 for nothing, else the number of its kind and one. Rows behind the end say nothing.
    rows: Vec<u32>,
    /// Kinds by their text.
    numbers: FxHashMap<String, u32>,
}

impl AnnotationTable {
    /// True if nobody says anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What a row says, if anything.
    #[must_use]
    pub fn of(&self, row: usize) -> Option<&Annotations> {
        let kind = self.rows.get(row)?.checked_sub(1)?;
        Some(&self.kinds[kind as usize])
    }

    /// What rows say, each kind once, with how many rows say it, in order of appearance.
    #[must_use]
    pub fn kinds(&self) -> Vec<(&Annotations, u64)> {
        let mut kinds: Vec<_> = self.kinds.iter().map(|kind| (kind, 0)).collect();
        for kind in self.rows.iter().filter_map(|kind| kind.checked_sub(1)) {
            kinds[kind as usize].1 += 1;
        }
        kinds.retain(|(_, rows)| *rows > 0);
        kinds
    }

    /// A row says this and nothing else.
    pub fn set(&mut self, row: usize, annotations: &Annotations) {
        let is_nothing = *annotations == Annotations::default();
        if self.rows.len() <= row {
            if is_nothing {
                return;
            }
            self.rows.resize(row + 1, 0);
        }
        self.rows[row] = if is_nothing {
            0
        } else {
            self.number(annotations) + 1
        };
    }

    fn number(&mut self, annotations: &Annotations) -> u32 {
        let kinds = &mut self.kinds;
        *self
            .numbers
            .entry(format!("{annotations:?}"))
            .or_insert_with(|| {
                kinds.push(annotations.clone());
                u32::try_from(kinds.len() - 1).expect("there are fewer kinds than rows")
            })
    }

    /// The same for so many copies of `rows` rows, one behind the other.
    #[must_use]
    pub fn repeated(&self, rows: usize, copies: u32) -> AnnotationTable {
        let mut repeated = self.clone();
        if !self.is_empty() {
            repeated.rows.resize(rows, 0);
            repeated.rows = repeated.rows.repeat(copies as usize);
        }
        repeated
    }

    /// Rows stand in another order: what was row `order[i]` is row `i`.
    pub fn reorder(&mut self, order: &[u32]) {
        if self.is_empty() {
            return;
        }
        let old = |&row: &u32| self.rows.get(row as usize).copied().unwrap_or(0);
        self.rows = order.iter().map(old).collect();
    }
}

impl PartialEq for AnnotationTable {
    fn eq(&self, other: &Self) -> bool {
        let rows = self.rows.len().max(other.rows.len());
        (0..rows).all(|row| self.of(row) == other.of(row))
    }
}

impl Eq for AnnotationTable {}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(whole: u32) -> Annotations {
        Annotations {
            workers: NamedWorkers {
                whole: Some(whole),
                ..NamedWorkers::default()
            },
            ..Annotations::default()
        }
    }

    #[test]
    fn tables_are_equal_when_rows_say_the_same() {
        let (mut a, mut b) = (AnnotationTable::default(), AnnotationTable::default());
        assert!(a.is_empty());
        a.set(5, &Annotations::default());
        assert!(a.is_empty());
        for row in [1, 3] {
            a.set(row, &named(row as u32));
        }
        for row in [3, 1, 0] {
            b.set(row, &named(row as u32));
        }
        assert_ne!(a, b);
        b.set(0, &Annotations::default());
        assert_eq!(a, b);
        a.reorder(&[3, 2, 1, 0]);
        assert_eq!(a.of(0), Some(&named(3)));
        assert_eq!((a.of(1), a.of(9)), (None, None));
        assert_eq!(a.kinds(), [(&named(1), 1), (&named(3), 1)]);
    }

    #[test]
    fn what_a_row_says_itself_stands() {
        let class = Annotations {
            required_taints: vec!["gold".to_owned()],
            strict_priority: 3,
            ..named(7)
        };
        let own = Annotations {
            strict_priority: 5,
            ..named(2)
        };
        let both = own.or(&class);
        assert_eq!((both.workers.whole, both.strict_priority), (Some(2), 5));
        assert_eq!(both.required_taints, ["gold"]);
    }

    #[test]
    fn labels_are_required_or_preferred() {
        let request = Annotations {
            required_taints: vec!["a".to_owned(), "b".to_owned()],
            preferred_taints: vec![("b".to_owned(), 0.5), ("c".to_owned(), -2.0)],
            ..Annotations::default()
        };
        let taints = |names: &str| -> Vec<String> { names.chars().map(String::from).collect() };
        assert!(request.allows(&taints("abc")) && !request.allows(&taints("ac")));
        assert_eq!(request.preference(&taints("abc")), -1.5);
        assert_eq!(request.preference(&taints("ad")), 0.0);
    }
}
