//! Dynamo's policy file: families, buckets of uncached prompt tokens, classes.

use saphyr::{LoadableYamlNode, Yaml};
use sim::router::policy_class::{PolicyClass, PolicyProfile, QueueLimits, QueuePolicy};

/// The profile in a policy file, or everything that is wrong with it.
pub fn profile(text: &str) -> Result<PolicyProfile, Vec<String>> {
    let documents = Yaml::load_from_str(text).map_err(|error| vec![error.to_string()])?;
    let file = documents
        .first()
        .ok_or_else(|| vec!["the policy file is empty".to_owned()])?;
    let mut errors = Vec::new();
    let mut reader = Reader {
        errors: &mut errors,
    };
    let default_family = reader.text(file, "default_policy_family");
    let buckets = reader.list(file, "uncached_isl_buckets");
    let buckets = buckets.iter().map(|bucket| {
        (
            reader.required_count(bucket, "min_tokens"),
            reader.text(bucket, "bucket"),
        )
    });
    let buckets: Vec<(u64, String)> = buckets.collect();
    let classes = reader.list(file, "policy_classes");
    let classes: Vec<PolicyClass> = classes.iter().map(|class| reader.class(class)).collect();
    match PolicyProfile::new(default_family, buckets, classes) {
        Ok(profile) if errors.is_empty() => Ok(profile),
        Ok(_) => Err(errors),
        Err(more) => Err(errors.into_iter().chain(more).collect()),
    }
}

pub fn queue_policy(name: &str) -> Result<QueuePolicy, String> {
    match name {
        "fcfs" => Ok(QueuePolicy::Fcfs),
        "lcfs" => Ok(QueuePolicy::Lcfs),
        "wspt" => Ok(QueuePolicy::Wspt),
        _ => Err(format!("queue policy {name}: expected fcfs, lcfs or wspt")),
    }
}

struct Reader<'e> {
    errors: &'e mut Vec<String>,
}

impl Reader<'_> {
    fn class(&mut self, class: &Yaml<'_>) -> PolicyClass {
        let family = class.as_mapping_get("policy_family").and_then(Yaml::as_str);
        let bucket = class.as_mapping_get("cache_bucket").and_then(Yaml::as_str);
        if family.is_some() != bucket.is_some() {
            self.errors.push(
                "policy_classes: expected both policy_family and cache_bucket, or neither"
                    .to_owned(),
            );
        }
        let policy = class.as_mapping_get("queue_policy").and_then(Yaml::as_str);
        let policy = policy.map_or(Ok(QueuePolicy::default()), queue_policy);
        PolicyClass {
            name: self.text(class, "name"),
            binding: family
                .zip(bucket)
                .map(|(family, bucket)| (family.to_owned(), bucket.to_owned())),
            queue_policy: policy.unwrap_or_else(|error| {
                self.errors.push(error);
                QueuePolicy::default()
            }),
            quantum: self.required_count(class, "quantum"),
            prefill_busy_threshold: self.count(class, "prefill_busy_threshold"),
            prefill_busy_threshold_frac: self.number(class, "prefill_busy_threshold_frac"),
            limits: QueueLimits {
                requests: self.count(class, "request_queue_limit_per_worker"),
                raw_isl_tokens: self.count(class, "raw_isl_token_queue_limit_per_worker"),
                cached_tokens: self.count(class, "cached_token_queue_limit_per_worker"),
            },
        }
    }

    fn list<'y>(&mut self, map: &'y Yaml<'y>, field: &str) -> &'y [Yaml<'y>] {
        match map.as_mapping_get(field).and_then(Yaml::as_sequence) {
            Some(list) => list,
            None => {
                self.errors.push(format!("{field}: expected a list"));
                &[]
            }
        }
    }

    fn text(&mut self, map: &Yaml<'_>, field: &str) -> String {
        match map.as_mapping_get(field).and_then(Yaml::as_str) {
            Some(text) => text.to_owned(),
            None => {
                self.errors.push(format!("{field}: expected a name"));
                String::new()
            }
        }
    }

    fn required_count(&mut self, map: &Yaml<'_>, field: &str) -> u64 {
        let count = self.count(map, field);
        if count.is_none() && map.as_mapping_get(field).is_none() {
            self.errors
                .push(format!("{field}: missing, expected a whole number"));
        }
        count.unwrap_or(0)
    }

    fn count(&mut self, map: &Yaml<'_>, field: &str) -> Option<u64> {
        let value = map.as_mapping_get(field)?;
        let count = value
            .as_integer()
            .and_then(|count| u64::try_from(count).ok());
        if count.is_none() {
            self.errors
                .push(format!("{field}: expected a whole number, not below 0"));
        }
        count
    }

    fn number(&mut self, map: &Yaml<'_>, field: &str) -> Option<f64> {
        let value = map.as_mapping_get(field)?;
        let number = value
            .as_floating_point()
            .or_else(|| value.as_integer().map(|whole| whole as f64));
        if number.is_none() {
            self.errors.push(format!("{field}: expected a number"));
        }
        number
    }
}
