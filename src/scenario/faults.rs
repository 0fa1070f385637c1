//! `faults`: what breaks, by script and at random, and what becomes of requests whose worker is lost.

use super::link_faults::{self, Sites};
use super::section::Section;
use super::tree::{Node, Value};
use ::engine::vllm::Eviction;
use ::engine::{EngineConfig, Span, Time};
use sim::adversity::faults::SpotRule;
use sim::adversity::faults::{Fault, FaultKind, FaultSpec, RandomFault};
use sim::links::Topology;
use sim::links::placement::{Nodes, Placement};
use sim::router::Retention;
use sim::{AdversitySpec, RouterSpec};
use sweeps::planner::{PlannerSpec, Policy};
use sweeps::scenario::Pool;

/// Latest beginning and longest duration, 200 days.
const MAX_S: f64 = 200.0 * 86_400.0;
/// Most migrations of a request.
const MAX_MIGRATIONS: u32 = 10;
/// A fault of a worker every so often at the least: what is more frequent leaves no time to serve.
const MIN_MTBF_S: f64 = 1.0;
const MAX_FACTOR: f64 = 1_000.0;

/// The deployment that breaks.
pub struct Deployment<'a> {
    pub pools: &'a [Pool],
    pub router: Option<&'a RouterSpec>,
    /// Where workers are, if the network says it.
    pub topology: Option<&'a Topology>,
    /// Workers that a provider takes back.
    pub spot: Vec<SpotRule>,
    pub has_planner: bool,
    pub planner: Option<&'a PlannerSpec>,
    /// Workers, or places for them.
    pub workers: u32,
    /// Links between them; `None` where nothing is sent.
    pub sites: Option<Sites>,
}

/// The section `faults`.
pub fn read(section: &Section<'_>, deployment: Option<&Deployment<'_>>) -> FaultSpec {
    let migrations = section.whole32("migration_limit", 0..=MAX_MIGRATIONS);
    let nodes = nodes(section, deployment);
    let count = nodes.as_ref().map(Vec::len);
    let timeline = items(section, "timeline", |item| {
        scripted(item, deployment, count)
    });
    let random = items(section, "random", |item| at_random(item, deployment, count));
    let spot = deployment.map(|it| it.spot.clone()).unwrap_or_default();
    let spec = FaultSpec {
        timeline,
        random,
        migration_limit: migrations.unwrap_or(0),
        drain_limit: deployment.and_then(|it| it.planner?.drain_limit),
        spot,
        nodes: Vec::new(),
    };
    let crashes = |kind: FaultKind| matches!(kind, FaultKind::Crash | FaultKind::NodeLoss);
    let some_crash = spec.timeline.iter().any(|fault| crashes(fault.kind))
        || spec.random.iter().any(|rule| crashes(rule.kind))
        || spec.drain_limit.is_some()
        || !spec.spot.is_empty();
    if migrations.is_some_and(|limit| limit > 0) && !some_crash && !section.log().has_problems() {
        section.conflict(
            "migration_limit",
            "a limit on moves that nothing brings about",
            "a fault of kind crash or node_loss beside it, a spot price, or lifecycle.drain_limit_s",
            "remove it, or add a crash to timeline or random",
        );
    }
    section.finish();
    let loses_nodes = |kind: FaultKind| kind == FaultKind::NodeLoss;
    let some_loss = spec.timeline.iter().any(|fault| loses_nodes(fault.kind))
        || spec.random.iter().any(|rule| loses_nodes(rule.kind));
    FaultSpec {
        nodes: nodes.filter(|_| some_loss).unwrap_or_default(),
        ..spec
    }
}

/// By node, the workers with GPUs there; without workers beside a planner. `None` where nobody says what a node is.
fn nodes(section: &Section<'_>, deployment: Option<&Deployment<'_>>) -> Option<Vec<Vec<u32>>> {
    let per_node = section.whole32("gpus_per_node", 1..=1 << 16);
    let deployment = deployment?;
    let elsewhere = match (deployment.has_planner, deployment.topology) {
        (true, _) => Some("lifecycle.gpus_per_node: beside a planner workers come and go"),
        (false, Some(_)) => Some("network.topology alone, which says it already"),
        (false, None) => None,
    };
    if let (Some(place), true) = (elsewhere, section.has("gpus_per_node")) {
        section.conflict("gpus_per_node", "GPUs of a node", place, "remove it");
        return None;
    }
    if deployment.has_planner {
        let planner = deployment.planner?;
        let nodes = planner.gpus? / planner.lifecycle.gpus_per_node?;
        return Some(vec![Vec::new(); nodes as usize]);
    }
    let gpus: Vec<u32> = (deployment.pools.iter())
        .flat_map(|pool| std::iter::repeat_n(pool.gpus_per_worker(), pool.workers as usize))
        .collect();
    let (per_node, first) = match deployment.topology {
        Some(topology) => (topology.gpus_per_node, topology.placement.clone()),
        None => {
            let gpus_per_node = per_node?;
            let room = Nodes {
                gpus: gpus_per_node,
                count: None,
            };
            let placed = Placement::Packed.place(&gpus, room);
            (gpus_per_node, placed.expect("there are nodes enough"))
        }
    };
    let mut nodes: Vec<Vec<u32>> = Vec::new();
    for (worker, (&first, &gpus)) in (0..).zip(first.iter().zip(&gpus)) {
        let last = first + gpus.max(1) - 1;
        nodes.resize(nodes.len().max((last / per_node) as usize + 1), Vec::new());
        for node in first / per_node..=last / per_node {
            nodes[node as usize].push(worker);
        }
    }
    Some(nodes)
}

fn items<T>(
    section: &Section<'_>,
    name: &'static str,
    read: impl Fn(&Section<'_>) -> Option<T>,
) -> Vec<T> {
    let Some((nodes, field)) = section.list(name) else {
        return Vec::new();
    };
    let item = |(index, node): (usize, &Node)| {
        let path = format!("{}[{index}]", field.path);
        if !matches!(node.value, Value::Map(_)) {
            section.log().add(
                Some(&node.place),
                &path,
                node.found(),
                "a fault, for example `{kind: crash, worker: 0, for_s: 60}`",
            );
            return None;
        }
        let own = Section::new(section.log(), &path, Some(node));
        let fault = read(&own);
        own.finish();
        fault
    };
    nodes.iter().enumerate().filter_map(item).collect()
}

fn scripted(
    section: &Section<'_>,
    deployment: Option<&Deployment<'_>>,
    nodes: Option<usize>,
) -> Option<Fault> {
    let at = needed(section, "at_s", 0.0, "for example `at_s: 60`");
    let kind = kind(section, deployment);
    let worker = worker(section, kind, deployment);
    let link = number(section, kind, deployment, true);
    let node = node(section, kind, nodes);
    let lasts = lasts(section, kind, deployment);
    check_link(section, kind, lasts, deployment);
    if kind == Some(FaultKind::NodeLoss) && !section.has("node") {
        section.mistake(
            "node",
            "nothing",
            "the number of a node, from 0",
            "for example `node: 0`",
        );
    }
    if let Some(kind) = kind
        && kind.is_of_a_worker()
        && !section.has("worker")
    {
        section.mistake(
            "worker",
            "nothing",
            "the number of a worker, from 0",
            "for example `worker: 0`",
        );
    }
    Some(Fault {
        at: Time::ZERO + at?,
        kind: kind?,
        worker: worker.or(link).or(node).unwrap_or(0),
        lasts: lasts?,
    })
}

fn at_random(
    section: &Section<'_>,
    deployment: Option<&Deployment<'_>>,
    nodes: Option<usize>,
) -> Option<RandomFault> {
    let mtbf = needed(section, "mtbf_s", MIN_MTBF_S, "for example `mtbf_s: 3600`");
    let kind = kind(section, deployment);
    let worker = worker(section, kind, deployment);
    let link = number(section, kind, deployment, false);
    let node = node(section, kind, nodes);
    let lasts = lasts(section, kind, deployment);
    check_link(section, kind, lasts, deployment);
    Some(RandomFault {
        mtbf: mtbf?,
        kind: kind?,
        worker: worker.or(link).or(node),
        lasts: lasts?,
    })
}

fn needed(section: &Section<'_>, name: &'static str, least: f64, hint: &str) -> Option<Span> {
    if !section.has(name) {
        section.mistake(name, "nothing", "a time in seconds", hint);
    }
    section.number(name, least..=MAX_S).map(Span::from_s)
}

/// Kinds by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Crash,
    Hang,
    Straggler,
    EventLoss,
    RouterRestart,
    PlannerRestart,
    NodeLoss,
    LinkSlow,
    LinkDown,
}

/// Which link it is, if it is one that breaks.
fn number(
    section: &Section<'_>,
    kind: Option<FaultKind>,
    deployment: Option<&Deployment<'_>>,
    is_scripted: bool,
) -> Option<u32> {
    let sites = deployment.and_then(|it| it.sites.as_ref());
    link_faults::number(section, kind, sites, is_scripted)
}

fn check_link(
    section: &Section<'_>,
    kind: Option<FaultKind>,
    lasts: Option<Span>,
    deployment: Option<&Deployment<'_>>,
) {
    if let (Some(kind), Some(deployment)) = (kind, deployment) {
        let is_sglang = (deployment.pools.iter()).any(|it| it.engine.as_sglang().is_some());
        link_faults::check(section, kind, lasts, deployment.sites.is_some(), is_sglang);
    }
}

/// The node that is lost; said of nothing else.
fn node(section: &Section<'_>, kind: Option<FaultKind>, nodes: Option<usize>) -> Option<u32> {
    let is_lost = kind == Some(FaultKind::NodeLoss);
    if section.has("node") && kind.is_some() && !is_lost {
        section.conflict(
            "node",
            "a node",
            "none: only node_loss has one",
            "remove it",
        );
    }
    if is_lost && nodes.is_none() && !section.log().has_problems() {
        section.conflict(
            "kind",
            "a loss of a node, where nobody says what a node is",
            "faults.gpus_per_node; beside a planner lifecycle.gpus and lifecycle.gpus_per_node",
            "",
        );
    }
    let most = nodes.map_or(u32::MAX >> 1, |nodes| (nodes as u32).saturating_sub(1));
    section.whole32("node", 0..=most).filter(|_| is_lost)
}

fn kind(section: &Section<'_>, deployment: Option<&Deployment<'_>>) -> Option<FaultKind> {
    if !section.has("kind") {
        section.mistake(
            "kind",
            "nothing",
            "what breaks",
            "one of crash, node_loss, hang, straggler, event_loss, router_restart, planner_restart, link_slow, link_down",
        );
    }
    let name = section.choice(
        "kind",
        &[
            ("crash", Name::Crash),
            ("hang", Name::Hang),
            ("straggler", Name::Straggler),
            ("event_loss", Name::EventLoss),
            ("router_restart", Name::RouterRestart),
            ("planner_restart", Name::PlannerRestart),
            ("link_slow", Name::LinkSlow),
            ("link_down", Name::LinkDown),
            ("node_loss", Name::NodeLoss),
        ],
    );
    let percent = factor(section, name);
    let reads_caches = index(section, name);
    let is_slow = name == Some(Name::LinkSlow);
    let is_of_links = is_slow || name == Some(Name::LinkDown);
    let site = link_faults::site(section, is_of_links);
    let kind = match name? {
        Name::Crash => FaultKind::Crash,
        Name::Hang => FaultKind::Hang,
        Name::Straggler => FaultKind::Straggler { percent: percent? },
        Name::EventLoss => FaultKind::EventLoss,
        Name::RouterRestart => FaultKind::RouterRestart { reads_caches },
        Name::PlannerRestart => FaultKind::PlannerRestart,
        Name::LinkSlow | Name::LinkDown => FaultKind::Link {
            site: site?,
            how: link_faults::how(is_slow, percent)?,
        },
        Name::NodeLoss => FaultKind::NodeLoss,
    };
    if let Some(deployment) = deployment {
        check_deployment(section, kind, deployment);
    }
    Some(kind)
}

/// How many times slower, in per cent.
fn factor(section: &Section<'_>, name: Option<Name>) -> Option<u32> {
    let factor = section.number("factor", 1.01..=MAX_FACTOR);
    match name {
        Some(Name::Straggler | Name::LinkSlow) if !section.has("factor") => section.mistake(
            "factor",
            "nothing",
            "how many times as long steps take, or transfers",
            "for example `factor: 2`",
        ),
        Some(Name::Straggler | Name::LinkSlow) | None => {}
        Some(_) if section.has("factor") => section.conflict(
            "factor",
            "a factor",
            "none: only a straggler and a slow link have one",
            "remove it",
        ),
        Some(_) => {}
    }
    factor.map(|factor| (factor * 100.0).round() as u32)
}

/// Whether a restarted router reads the workers' caches.
fn index(section: &Section<'_>, name: Option<Name>) -> bool {
    let reads = section.choice("index", &[("events", false), ("caches", true)]);
    if section.has("index") && name.is_some_and(|name| name != Name::RouterRestart) {
        section.conflict(
            "index",
            "where an index comes from",
            "nothing: only a restarted router has to get one",
            "remove it",
        );
    }
    reads.unwrap_or(false)
}

fn lasts(
    section: &Section<'_>,
    kind: Option<FaultKind>,
    deployment: Option<&Deployment<'_>>,
) -> Option<Span> {
    let has_planner = deployment.is_some_and(|it| it.has_planner);
    match kind {
        Some(FaultKind::Crash) if has_planner => {
            if section.has("for_s") {
                section.conflict(
                    "for_s",
                    "a duration",
                    "none beside a planner: a lost worker is replaced, which takes what lifecycle says",
                    "remove it",
                );
            }
            Some(Span::ZERO)
        }
        Some(FaultKind::RouterRestart { .. }) => {
            if section.has("for_s") {
                section.conflict(
                    "for_s",
                    "a duration",
                    "none: a restarted router is back at once",
                    "remove it",
                );
            }
            Some(Span::ZERO)
        }
        _ => needed(
            section,
            "for_s",
            f64::MIN_POSITIVE,
            "for example `for_s: 60`",
        ),
    }
}

fn worker(
    section: &Section<'_>,
    kind: Option<FaultKind>,
    deployment: Option<&Deployment<'_>>,
) -> Option<u32> {
    if section.has("worker") && kind.is_some_and(|kind| !kind.is_of_a_worker()) {
        section.conflict(
            "worker",
            "a worker",
            "none: it is no worker that breaks; a link has a number",
            "remove it",
        );
    }
    match deployment.map_or(0, |it| it.workers) {
        0 => section.whole32("worker", 0..=u32::MAX >> 1),
        workers => section.whole32("worker", 0..=workers - 1),
    }
}

/// What a kind of fault needs of the deployment.
fn check_deployment(section: &Section<'_>, kind: FaultKind, deployment: &Deployment<'_>) {
    if kind == FaultKind::PlannerRestart {
        let policy = deployment.planner.map(|planner| &planner.policy);
        let is_calendar = matches!(policy, Some(Policy::Schedule(_) | Policy::Oracle(_)));
        if !deployment.has_planner || is_calendar {
            section.conflict(
                "kind",
                "a planner that restarts, where there is none or it is a calendar",
                "a planner that looks at the deployment",
                "remove the fault, or choose planner.policy",
            );
        }
    }
    let hears_events = match deployment.router {
        Some(RouterSpec::Kv(spec)) => spec.use_kv_events,
        Some(_) => false,
        None => true,
    };
    if kind == FaultKind::EventLoss && !hears_events {
        section.conflict(
            "kind",
            "lost KV events under a router that listens to none",
            "a router of mode kv with KV events",
            "remove the fault, or choose `router: {mode: kv}`",
        );
    }
    let has_tiers = deployment.pools.iter().any(|pool| pool.kvbm.is_some());
    if matches!(kind, FaultKind::Crash | FaultKind::NodeLoss) && has_tiers {
        section.conflict(
            "kind",
            "a crash of a worker with tiers below its KV cache",
            "pools without kvbm: what is left of tiers is not modelled yet",
            "remove the fault, or kvbm",
        );
    }
}

/// What no deployment can be that has adversities of any kind.
pub fn check_together(root: &Section<'_>, adversity: &AdversitySpec, deployment: &Deployment<'_>) {
    if adversity.is_nothing() {
        return;
    }
    let name = ["faults", "clients", "admission", "lifecycle", "costs"]
        .into_iter()
        .find(|name| root.has(name))
        .unwrap_or("faults");
    let refuse = |found: String, expected: &str| root.conflict(name, found, expected, "");
    if deployment.router == Some(&RouterSpec::Clairvoyant) {
        refuse(
            "an oracle that routes".to_owned(),
            "a router that does not know the future",
        );
    }
    if let Some(RouterSpec::Kv(spec)) = deployment.router
        && !spec.use_kv_events
        && matches!(spec.retention, Retention::Lru { .. })
    {
        refuse(
            "a router that imagines the workers' caches".to_owned(),
            "one that hears events or forgets after a time: what it imagines of lost answers is not modelled yet",
        );
    }
    if !adversity.faults.spot.is_empty() && deployment.pools.iter().any(|it| it.kvbm.is_some()) {
        refuse(
            "a spot price of workers with tiers below their KV caches".to_owned(),
            "pools without kvbm: what is left of tiers is not modelled yet",
        );
    }
    for pool in deployment.pools {
        let engine = &pool.engine;
        if engine.ranks() > 1 {
            refuse(
                format!("ranks that step together in pool {}", pool.name),
                "workers that step alone: the rest is not modelled yet",
            );
        }
        if engine.stages() > 1 && adversity.faults.slows_steps() {
            refuse(
                format!("hangs or stragglers beside stages in pool {}", pool.name),
                "crashes, or pools without stages: a slow stage is not modelled yet",
            );
        }
        if engine.speculation().is_some() && adversity.clients.counts_tokens() {
            refuse(
                format!(
                    "clients that count tokens beside drafts in pool {}",
                    pool.name
                ),
                "cancel_after_s: which step brings a token is not known before",
            );
        }
        if pool.host.is_some() {
            refuse(
                format!("host memory of the engine in pool {}", pool.name),
                "a pool without: what becomes of it is not modelled yet",
            );
        }
        if let EngineConfig::Vllm(config) = engine
            && config.eviction == Eviction::Belady
        {
            refuse(
                format!("an oracle that evicts in pool {}", pool.name),
                "eviction that does not know the future",
            );
        }
    }
}
