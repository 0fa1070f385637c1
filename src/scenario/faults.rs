//! `faults`: what breaks, by script and at random, and what becomes of requests whose worker is lost.

use super::link_faults::{self, Sites};
use super::section::Section;
use super::tree::{Node, Value};
use ::engine::vllm::Eviction;
use ::engine::{EngineConfig, Span, Time};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec, RandomFault};
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
    let timeline = items(section, "timeline", |item| scripted(item, deployment));
    let random = items(section, "random", |item| at_random(item, deployment));
    let spec = FaultSpec {
        timeline,
        random,
        migration_limit: migrations.unwrap_or(0),
        drain_limit: deployment.and_then(|it| it.planner?.drain_limit),
    };
    let crashes = |kind: FaultKind| kind == FaultKind::Crash;
    let some_crash = spec.timeline.iter().any(|fault| crashes(fault.kind))
        || spec.random.iter().any(|rule| crashes(rule.kind))
        || spec.drain_limit.is_some();
    if migrations.is_some_and(|limit| limit > 0) && !some_crash && !section.log().has_problems() {
        section.conflict(
            "migration_limit",
            "a limit on moves that nothing brings about",
            "a fault of kind crash beside it, or lifecycle.drain_limit_s",
            "remove it, or add a crash to timeline or random",
        );
    }
    section.finish();
    spec
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

fn scripted(section: &Section<'_>, deployment: Option<&Deployment<'_>>) -> Option<Fault> {
    let at = needed(section, "at_s", 0.0, "for example `at_s: 60`");
    let kind = kind(section, deployment);
    let worker = worker(section, kind, deployment);
    let link = number(section, kind, deployment, true);
    let lasts = lasts(section, kind, deployment);
    check_link(section, kind, lasts, deployment);
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
        worker: worker.or(link).unwrap_or(0),
        lasts: lasts?,
    })
}

fn at_random(section: &Section<'_>, deployment: Option<&Deployment<'_>>) -> Option<RandomFault> {
    let mtbf = needed(section, "mtbf_s", MIN_MTBF_S, "for example `mtbf_s: 3600`");
    let kind = kind(section, deployment);
    let worker = worker(section, kind, deployment);
    let link = number(section, kind, deployment, false);
    let lasts = lasts(section, kind, deployment);
    check_link(section, kind, lasts, deployment);
    Some(RandomFault {
        mtbf: mtbf?,
        kind: kind?,
        worker: worker.or(link),
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

fn kind(section: &Section<'_>, deployment: Option<&Deployment<'_>>) -> Option<FaultKind> {
    if !section.has("kind") {
        section.mistake(
            "kind",
            "nothing",
            "what breaks",
            "one of crash, hang, straggler, event_loss, router_restart, planner_restart, link_slow, link_down",
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
    if kind == FaultKind::Crash && has_tiers {
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
    let name = ["faults", "clients", "admission", "lifecycle"]
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
