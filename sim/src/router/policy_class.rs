//! Policy classes: which requests wait together, in what order, and how much each class may take.
//!
//! A request names a class, or a family (else the default family is meant), and the number of its prompt tokens that no
//! worker has cached picks the class of that family. Field names and checks are those of Dynamo's policy file.

/// In what order requests of a class wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueuePolicy {
    /// First come, first served: `priority_jump - arrival`.
    #[default]
    Fcfs,
    /// Last come, first served: `priority_jump + arrival`.
    Lcfs,
    /// Weighted shortest prefill first: `(1 + priority_jump) / uncached tokens`.
    Wspt,
}

impl QueuePolicy {
    /// What a request scores, the highest first. `arrival` in seconds.
    #[must_use]
    pub fn score(self, arrival: f64, priority_jump: f64, uncached_tokens: u64) -> f64 {
        let jump = priority_jump.max(0.0);
        match self {
            QueuePolicy::Fcfs => jump - arrival,
            QueuePolicy::Lcfs => jump + arrival,
            QueuePolicy::Wspt => (1.0 + jump) / uncached_tokens.max(1) as f64,
        }
    }
}

/// A class of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyClass {
    /// Its name.
    pub name: String,
    /// Its family and the name of its bucket; without, it is meant only by name.
    pub binding: Option<(String, String)>,
    /// Order within the class.
    pub queue_policy: QueuePolicy,
    /// Tokens it may take per round, at least 1.
    pub quantum: u64,
    /// A rank is busy above so many prompt tokens in prefill.
    pub prefill_busy_threshold: Option<u64>,
    /// A rank is busy above this many times `max_num_batched_tokens`.
    pub prefill_busy_threshold_frac: Option<f64>,
    /// Limits of what may wait.
    pub limits: QueueLimits,
}

/// Most that may wait, per worker; what crosses a limit is still taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueLimits {
    /// Requests.
    pub requests: Option<u64>,
    /// Prompt tokens.
    pub raw_isl_tokens: Option<u64>,
    /// Cached prompt tokens.
    pub cached_tokens: Option<u64>,
}

impl PolicyClass {
    /// The only class there is without a policy file.
    #[must_use]
    pub fn sole(queue_policy: QueuePolicy, threshold: Option<f64>) -> Self {
        PolicyClass {
            name: "default".to_owned(),
            binding: None,
            queue_policy,
            quantum: 1,
            prefill_busy_threshold: None,
            prefill_busy_threshold_frac: threshold,
            limits: QueueLimits::default(),
        }
    }

    /// True if its requests may have to wait.
    #[must_use]
    pub fn queues(&self) -> bool {
        let limits = [
            self.limits.requests,
            self.limits.raw_isl_tokens,
            self.limits.cached_tokens,
        ];
        let has_threshold =
            self.prefill_busy_threshold.is_some() || self.prefill_busy_threshold_frac.is_some();
        has_threshold && !limits.contains(&Some(0))
    }

    /// True if a rank with so many prompt tokens in prefill is busy.
    #[must_use]
    pub fn is_busy(&self, prefill_tokens: u64, max_num_batched_tokens: u64) -> bool {
        let above = |threshold| prefill_tokens > threshold;
        let far_above =
            |threshold| prefill_tokens as f64 > threshold * max_num_batched_tokens as f64;
        self.prefill_busy_threshold.is_some_and(above)
            || self.prefill_busy_threshold_frac.is_some_and(far_above)
    }
}

/// All classes, and how a request finds its own.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyProfile {
    classes: Vec<PolicyClass>,
    default_family: String,
    /// Least uncached tokens and name of each bucket; the first begins at 0.
    buckets: Vec<(u64, String)>,
}

impl PolicyProfile {
    /// One class for all.
    #[must_use]
    pub fn sole(queue_policy: QueuePolicy, threshold: Option<f64>) -> Self {
        let mut class = PolicyClass::sole(queue_policy, threshold);
        class.binding = Some(("default".to_owned(), "all".to_owned()));
        PolicyProfile {
            classes: vec![class],
            default_family: "default".to_owned(),
            buckets: vec![(0, "all".to_owned())],
        }
    }

    /// The profile of a policy file, or everything that is wrong with it.
    pub fn new(
        default_family: String,
        buckets: Vec<(u64, String)>,
        classes: Vec<PolicyClass>,
    ) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        if buckets.first().is_none_or(|&(least, _)| least != 0) {
            errors.push("uncached_isl_buckets: the first must have min_tokens 0".to_owned());
        }
        if !buckets.is_sorted_by(|(a, _), (b, _)| a < b) {
            errors.push("uncached_isl_buckets: min_tokens must increase".to_owned());
        }
        for (index, class) in classes.iter().enumerate() {
            let PolicyClass { name, .. } = class;
            if class.quantum == 0 {
                errors.push(format!(
                    "policy_classes: quantum of {name} is 0, expected at least 1"
                ));
            }
            if class.queue_policy == QueuePolicy::Lcfs {
                errors.push(format!(
                    "policy_classes: queue_policy of {name} is lcfs, expected fcfs or wspt"
                ));
            }
            if class
                .prefill_busy_threshold_frac
                .is_some_and(|frac| !frac.is_finite() || frac < 0.0)
            {
                errors.push(format!(
                    "policy_classes: prefill_busy_threshold_frac of {name} must not be negative"
                ));
            }
            if classes[..index].iter().any(|other| other.name == *name) {
                errors.push(format!("policy_classes: two are named {name}"));
            }
            if let Some((_, bucket)) = &class.binding
                && !buckets.iter().any(|(_, other)| other == bucket)
            {
                errors.push(format!(
                    "policy_classes: {name} has the unknown cache_bucket {bucket}"
                ));
            }
            let is_same =
                |other: &PolicyClass| other.binding.is_some() && other.binding == class.binding;
            if classes[..index].iter().any(is_same) {
                errors.push(format!(
                    "policy_classes: {name} has family and bucket of another"
                ));
            }
        }
        let families = classes.iter().filter_map(|class| class.binding.as_ref());
        let mut families: Vec<&str> = families.map(|(family, _)| family.as_str()).collect();
        families.sort_unstable();
        families.dedup();
        if !families.contains(&default_family.as_str()) {
            errors.push(format!(
                "default_policy_family: no class has the family {default_family}"
            ));
        }
        for family in families {
            for (_, bucket) in &buckets {
                let binding = Some((family.to_owned(), bucket.clone()));
                if !classes.iter().any(|class| class.binding == binding) {
                    errors.push(format!(
                        "policy_classes: no class for family {family} and bucket {bucket}"
                    ));
                }
            }
        }
        if errors.is_empty() {
            Ok(PolicyProfile {
                classes,
                default_family,
                buckets,
            })
        } else {
            Err(errors)
        }
    }

    /// The classes.
    #[must_use]
    pub fn classes(&self) -> &[PolicyClass] {
        &self.classes
    }

    /// The class of a request that named a class, a family or nothing.
    #[must_use]
    pub fn class_of(&self, named: Option<&str>, uncached_tokens: u64) -> usize {
        let is_named =
            |class: &PolicyClass| class.binding.is_none() && Some(class.name.as_str()) == named;
        if let Some(class) = self.classes.iter().position(is_named) {
            return class;
        }
        let has_family = |class: &PolicyClass, family: &str| {
            class.binding.as_ref().is_some_and(|(of, _)| of == family)
        };
        let family =
            named.filter(|family| self.classes.iter().any(|class| has_family(class, family)));
        let family = family.unwrap_or(&self.default_family);
        let bucket = self
            .buckets
            .partition_point(|&(least, _)| least <= uncached_tokens)
            - 1;
        let is_own = |class: &PolicyClass| {
            class
                .binding
                .as_ref()
                .is_some_and(|(f, b)| f == family && *b == self.buckets[bucket].1)
        };
        self.classes
            .iter()
            .position(is_own)
            .expect("each family has a class for each bucket")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, binding: Option<(&str, &str)>) -> PolicyClass {
        let binding = binding.map(|(family, bucket)| (family.to_owned(), bucket.to_owned()));
        PolicyClass {
            name: name.to_owned(),
            binding,
            ..PolicyClass::sole(QueuePolicy::Fcfs, None)
        }
    }

    fn buckets() -> Vec<(u64, String)> {
        vec![(0, "short".to_owned()), (1000, "long".to_owned())]
    }

    #[test]
    fn classes_are_found_by_name_family_and_length() {
        let classes = vec![
            class("a", Some(("x", "short"))),
            class("b", Some(("x", "long"))),
            class("c", Some(("y", "short"))),
            class("d", Some(("y", "long"))),
            class("vip", None),
        ];
        let profile = PolicyProfile::new("x".to_owned(), buckets(), classes).unwrap();
        let name = |named, tokens| &*profile.classes()[profile.class_of(named, tokens)].name;
        assert_eq!(
            [name(None, 999), name(None, 1000), name(Some("?"), 0)],
            ["a", "b", "a"]
        );
        assert_eq!(
            [
                name(Some("y"), 5),
                name(Some("y"), 5000),
                name(Some("vip"), 5000)
            ],
            ["c", "d", "vip"]
        );
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let mut lcfs = class("a", Some(("x", "short")));
        lcfs.queue_policy = QueuePolicy::Lcfs;
        lcfs.quantum = 0;
        let errors = PolicyProfile::new(
            "z".to_owned(),
            buckets(),
            vec![lcfs, class("a", Some(("x", "huge")))],
        );
        let errors = errors.unwrap_err().join("\n");
        for part in [
            "quantum of a",
            "lcfs",
            "two are named a",
            "unknown cache_bucket huge",
            "no class has the family z",
            "family x and bucket long",
        ] {
            assert!(errors.contains(part), "{part}: {errors}");
        }
    }
}
