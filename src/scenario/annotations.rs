//! `workload.annotations`: what the requests of a share of the sessions say about themselves, under the names of Dynamo's
//! request extensions; and `pools[].taints` and `topology_domains`, the labels of workers that requests ask for.

use super::section::{Field, Section};
use super::tree::{Node, Value};
use engine::{Annotations, Ephemeral, NamedWorkers, Span};
use sim::RouterSpec;
use sweeps::scenario::{Pool, Role};
use traces::{SessionClass, WorkerNames};

/// Most classes of a scenario.
const MAX_CLASSES: usize = 1_000;
/// Longest label.
const MAX_BYTES: usize = 256;
/// Dynamo's label of workers in a domain.
const TOPOLOGY: &str = "dynamo.topology/";

const EPHEMERAL: [(&str, Ephemeral); 2] = [
    (Ephemeral::Answer.name(), Ephemeral::Answer),
    (Ephemeral::Request.name(), Ephemeral::Request),
];

const A_LABEL: &str = "a label of up to 256 bytes, for example `tier=gold`";

/// Reads `workload.annotations`. `None` after a problem.
pub fn classes(workload: &Section<'_>) -> Option<Vec<SessionClass>> {
    let Some((items, field)) = workload.list("annotations") else {
        return (!workload.has("annotations")).then(Vec::new);
    };
    if items.len() > MAX_CLASSES {
        let found = format!("{} classes", items.len());
        workload.conflict("annotations", found, format!("at most {MAX_CLASSES}"), "");
        return None;
    }
    let class =
        |(index, item): (usize, &Node)| class(workload, item, &format!("{}[{index}]", field.path));
    let classes: Vec<Option<SessionClass>> = items.iter().enumerate().map(class).collect();
    let classes: Vec<SessionClass> = classes.into_iter().collect::<Option<_>>()?;
    let shares: f64 = classes.iter().map(|class| class.share).sum();
    if shares > 1.0 + 1e-9 {
        let expected = "at most 1: a session belongs to one class at most";
        workload.conflict(
            "annotations",
            format!("shares of {shares} together"),
            expected,
            "",
        );
        return None;
    }
    Some(classes)
}

fn class(workload: &Section<'_>, item: &Node, path: &str) -> Option<SessionClass> {
    let log = workload.log();
    if !matches!(item.value, Value::Map(_)) {
        let expected = "a class, for example `{share: 0.5, required_taints: [gold]}`";
        log.add(Some(&item.place), path, item.found(), expected);
        return None;
    }
    let section = Section::new(log, path, Some(item));
    let share = match section.has("share") {
        true => section.number("share", f64::MIN_POSITIVE..=1.0),
        false => Some(1.0),
    };
    let worker = |name| section.whole32(name, 0..=u32::MAX - 1);
    let priority = section.signed("priority");
    let annotations = Annotations {
        workers: NamedWorkers {
            whole: worker("backend_instance_id"),
            prefill: worker("prefill_worker_id"),
            decode: worker("decode_worker_id"),
        },
        required_taints: labels(&section, "required_taints").unwrap_or_default(),
        preferred_taints: weights(&section, "preferred_taints").unwrap_or_default(),
        strict_priority: section
            .whole32("strict_priority", 0..=u32::MAX)
            .unwrap_or(0),
        policy_class: section.text("policy_class").map(|(name, _)| name),
        pin: section
            .number("cache_control_ttl_s", 1.0..=2_592_000.0)
            .map(|seconds| Span::from_s(seconds.round())),
        speculative_prefill: section.flag("speculative_prefill").unwrap_or(false),
        ephemeral_blocks: section.choice("ephemeral_blocks", &EPHEMERAL),
        expected_output_tokens: section.whole32("osl", 1..=u32::MAX >> 1),
    };
    section.finish();
    if annotations == Annotations::default() && !section.has("priority") {
        let expected = "something that its requests say";
        log.add(
            Some(&item.place),
            path,
            "a class that says nothing",
            expected,
        );
    }
    Some(SessionClass {
        share: share?,
        annotations,
        // Dynamo's, where larger is more important.
        priority: priority.unwrap_or(0).saturating_neg(),
    })
}

/// A list of labels, in order, each once.
fn labels(section: &Section<'_>, name: &'static str) -> Option<Vec<String>> {
    let (items, field) = section.list(name)?;
    let labels = items.iter().map(|item| label(section, item, &field));
    let mut labels: Vec<String> = labels.collect::<Option<_>>()?;
    labels.sort_unstable();
    labels.dedup();
    Some(labels)
}

fn label(section: &Section<'_>, item: &Node, field: &Field<'_>) -> Option<String> {
    let text = match &item.value {
        Value::Text(text) => text.clone(),
        Value::Number(_) => item.raw.clone(),
        _ => String::new(),
    };
    if (1..=MAX_BYTES).contains(&text.len()) {
        return Some(text);
    }
    section
        .log()
        .add(Some(&item.place), &field.path, item.found(), A_LABEL);
    None
}

/// Labels and their weights.
fn weights(section: &Section<'_>, name: &'static str) -> Option<Vec<(String, f64)>> {
    let field = section.field(name)?;
    let Value::Map(entries) = &field.node.value else {
        let expected = "labels and their weights, for example `{tier=gold: 0.5}`";
        section.log().add(
            Some(&field.node.place),
            &field.path,
            field.node.found(),
            expected,
        );
        return None;
    };
    let mut weights = Vec::new();
    for entry in entries {
        let path = format!("{}.{}", field.path, entry.name);
        let place = Some(&entry.node.place);
        match entry.node.value {
            Value::Number(weight) if weight.is_finite() => {
                weights.push((entry.name.clone(), weight))
            }
            _ => section
                .log()
                .add(place, &path, entry.node.found(), "a weight"),
        }
    }
    weights.sort_by(|(a, _), (b, _)| a.cmp(b));
    Some(weights)
}

/// Labels of the workers of a pool: `taints`, and one for each of `topology_domains`.
pub fn taints(pool: &Section<'_>) -> Vec<String> {
    let mut taints = labels(pool, "taints").unwrap_or_default();
    if let Some(field) = pool.field("topology_domains") {
        if let Value::Map(entries) = &field.node.value {
            for entry in entries {
                let path = format!("{}.{}", field.path, entry.name);
                let field = Field {
                    node: &entry.node,
                    path,
                };
                if let Some(value) = label(pool, &entry.node, &field) {
                    taints.push(format!("{TOPOLOGY}{}={value}", entry.name));
                }
            }
        } else {
            let expected = "domains and where the workers are, for example `{zone: a, rack: r1}`";
            pool.log().add(
                Some(&field.node.place),
                &field.path,
                field.node.found(),
                expected,
            );
        }
    }
    taints.sort_unstable();
    taints.dedup();
    taints
}

/// The workers that requests may name, if the router reads names.
pub fn worker_names(pools: &[Pool], router: &RouterSpec) -> Option<WorkerNames> {
    if !router.reads_names() {
        return None;
    }
    let mut names = WorkerNames {
        is_required: *router == RouterSpec::Direct,
        ..WorkerNames::default()
    };
    let mut first = 0;
    for pool in pools {
        let workers = first..first + pool.spec().schedulers();
        first = workers.end;
        match pool.role {
            Role::Aggregated => names.whole.push(workers),
            Role::Prefill => names.prefill.push(workers),
            Role::Decode => names.decode.push(workers),
        }
    }
    Some(names)
}
