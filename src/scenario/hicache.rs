//! `pools[].hicache`: host memory below SGLang's radix cache, under the names of the server's own arguments.

use super::kvbm::{MAX_GB_PER_S, bytes, bytes_per_token, pcie};
use super::section::Section;
use engine::{HostPool, Span, WritePolicy};
use sim::host::{PrefetchPolicy, StorageSpec};
use sim::kvbm::Speed;
use sim::{HostSpec, RouterSpec};
use sweeps::scenario::{Pool, Role};

/// Name of the section.
pub const SECTION: &str = "hicache";

const MAX_GB: f64 = 1e9;
/// SGLang's own.
const RATIO: f64 = 2.0;

const WRITE_POLICIES: [(&str, WritePolicy); 3] = [
    ("write_through", WritePolicy::WriteThrough),
    (
        "write_through_selective",
        WritePolicy::WriteThroughSelective,
    ),
    ("write_back", WritePolicy::WriteBack),
];

/// Before the first byte where the scenario does not say: a distributed store over a fast network.
const STORAGE_LATENCY_US: f64 = 1_000.0;
/// SGLang's own.
const THRESHOLD_TOKENS: u32 = 256;
const TIMEOUT_BASE_S: f64 = 1.0;
const TIMEOUT_PER_KI_TOKEN_S: f64 = 0.25;

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Plain(PrefetchPolicy),
    Timeout,
}

const PREFETCH_POLICIES: [(&str, Policy); 3] = [
    ("best_effort", Policy::Plain(PrefetchPolicy::BestEffort)),
    ("wait_complete", Policy::Plain(PrefetchPolicy::WaitComplete)),
    ("timeout", Policy::Timeout),
];

/// Fields of a storage beside its size.
const OF_STORAGE: [&str; 7] = [
    "storage_read_gb_per_s",
    "storage_write_gb_per_s",
    "storage_latency_us",
    "hicache_storage_prefetch_policy",
    "prefetch_threshold",
    "prefetch_timeout_base",
    "prefetch_timeout_per_ki_token",
];

/// What HiCache knows and this simulator does not.
const NOT_MODELLED: [&str; 4] = [
    "hicache_io_backend",
    "hicache_mem_layout",
    "hicache_storage_backend",
    "hicache_storage_backend_extra_config",
];

/// The host memory of a pool; `None` where it has none, and after a problem.
pub fn read(section: &Section<'_>, pool: Option<&Pool>) -> Option<HostSpec> {
    section.not_modelled(&NOT_MODELLED);
    let is_on = section.flag("enable_hierarchical_cache");
    let is_on = section.is_written() && is_on != Some(false);
    let ratio = section.number("hicache_ratio", 0.0..=1e6);
    let gb = section.number("hicache_size", 0.0..=MAX_GB);
    let policy = section.choice("hicache_write_policy", &WRITE_POLICIES);
    let bytes_per_token = bytes_per_token(section, pool, is_on);
    let pcie = pcie(section, pool);
    let layers = layers(section, pool, is_on);
    let storage = storage(section, pool, bytes_per_token);
    let has_problem = (section.has("hicache_ratio") && ratio.is_none())
        || (section.has("hicache_size") && gb.is_none())
        || (section.has("hicache_write_policy") && policy.is_none());
    let pool = pool.filter(|_| is_on && !has_problem)?;
    if !fits_pool(section, pool) {
        return None;
    }
    let bytes_per_token = bytes_per_token?;
    let below = u64::from(pool.engine.usable_blocks()) * u64::from(pool.engine.block_size());
    let tokens = match gb.filter(|&gb| gb > 0.0) {
        // Of each rank, which holds its share of the KV.
        Some(gb) => gb * 1e9 * f64::from(pool.gpus_per_worker()) / bytes_per_token as f64,
        None => below as f64 * ratio.unwrap_or(RATIO),
    };
    let page = pool.engine.block_size();
    let tokens = tokens.min(f64::from(u32::MAX)) as u32;
    let tokens = tokens - tokens % page;
    if u64::from(tokens) <= below {
        let name = match gb.is_some_and(|gb| gb > 0.0) {
            true => "hicache_size",
            false => "hicache_ratio",
        };
        section.conflict(
            name,
            format!("host memory for {tokens} tokens"),
            format!("more than the GPU's pool of {below}, as SGLang demands"),
            "",
        );
        return None;
    }
    Some(HostSpec {
        pool: HostPool {
            tokens,
            write_policy: policy.unwrap_or_default(),
            has_storage: false,
        },
        pcie: pcie?,
        kv_bytes_per_token: bytes_per_token,
        layers: layers?,
        storage: storage?,
    })
}

/// What lies behind host memory; nothing after a problem.
fn storage(
    section: &Section<'_>,
    pool: Option<&Pool>,
    bytes_per_token: Option<u64>,
) -> Option<Option<StorageSpec>> {
    let gb = section.number("storage_gb", 0.0..=MAX_GB);
    let rate = |name| section.number(name, f64::MIN_POSITIVE..=MAX_GB_PER_S);
    let (read, write) = (
        rate("storage_read_gb_per_s"),
        rate("storage_write_gb_per_s"),
    );
    let latency = section.number("storage_latency_us", 0.0..=1e9);
    let policy = section.choice("hicache_storage_prefetch_policy", &PREFETCH_POLICIES);
    let threshold = section.whole32("prefetch_threshold", 0..=u32::MAX);
    let base = section.number("prefetch_timeout_base", 0.0..=1e6);
    let per_ki_token = section.number("prefetch_timeout_per_ki_token", 0.0..=1e6);
    if gb.is_none_or(|gb| gb == 0.0) {
        for name in OF_STORAGE {
            if !section.has("storage_gb") && section.has(name) {
                let found = "a setting of a storage that is not there";
                section.conflict(name, found, "storage_gb beside it", "");
            }
        }
        let is_fine = !section.has("storage_gb") || gb.is_some();
        return is_fine.then_some(None);
    }
    for name in ["storage_read_gb_per_s", "storage_write_gb_per_s"] {
        if !section.has(name) {
            let example = format!("for example `{name}: 20`");
            section.mistake(name, "nothing", "10^9 bytes per second", &example);
        }
    }
    for name in ["prefetch_timeout_base", "prefetch_timeout_per_ki_token"] {
        if section.has(name) && policy.is_some_and(|policy| policy != Policy::Timeout) {
            let expected = "hicache_storage_prefetch_policy: timeout";
            section.conflict(name, "a time that nothing uses", expected, "");
        }
    }
    let has_problem = OF_STORAGE.iter().any(|name| match *name {
        "hicache_storage_prefetch_policy" => section.has(name) && policy.is_none(),
        "prefetch_threshold" => section.has(name) && threshold.is_none(),
        "prefetch_timeout_base" => section.has(name) && base.is_none(),
        "prefetch_timeout_per_ki_token" => section.has(name) && per_ki_token.is_none(),
        "storage_latency_us" => section.has(name) && latency.is_none(),
        _ => false,
    });
    let span = |us: f64| Span((us * 1e6).round() as u64);
    let latency = span(latency.unwrap_or(STORAGE_LATENCY_US));
    let page_bytes = bytes_per_token? * u64::from(pool?.engine.block_size());
    let pages = (gb? * 1e9 / page_bytes as f64) as u64;
    if pages == 0 {
        let expected = format!("room for a page of {page_bytes} bytes, or 0 for no storage");
        section.conflict("storage_gb", "less than one page", expected, "");
        return None;
    }
    let speed = Speed {
        read_bytes_per_s: bytes(read?),
        write_bytes_per_s: bytes(write?),
        read_latency: latency,
        write_latency: latency,
    };
    let seconds = |s: Option<f64>, default: f64| span(s.unwrap_or(default) * 1e6);
    (!has_problem).then_some(Some(StorageSpec {
        pages,
        speed,
        policy: match policy {
            None => PrefetchPolicy::default(),
            Some(Policy::Plain(policy)) => policy,
            Some(Policy::Timeout) => PrefetchPolicy::Timeout {
                base: seconds(base, TIMEOUT_BASE_S),
                per_ki_token: seconds(per_ki_token, TIMEOUT_PER_KI_TOKEN_S),
            },
        },
        threshold_tokens: threshold.unwrap_or(THRESHOLD_TOKENS),
    }))
}

/// As written, or the model's.
fn layers(section: &Section<'_>, pool: Option<&Pool>, is_needed: bool) -> Option<u32> {
    if section.has("num_layers") {
        return section.whole32("num_layers", 1..=10_000);
    }
    let layers = pool?.model.as_ref().map(|model| model.layers);
    if layers.is_none() && is_needed {
        section.mistake(
            "num_layers",
            "nothing",
            "the model's layers, or a model from which they follow",
            "for example 32, those of Llama-3.1-8B",
        );
    }
    layers
}

/// Whether the pool is of a kind that can have host memory of its own.
fn fits_pool(section: &Section<'_>, pool: &Pool) -> bool {
    let complain = |found: &str, expected: &str| {
        section.conflict("enable_hierarchical_cache", found, expected, "");
        false
    };
    let Some(config) = pool.engine.as_sglang() else {
        return complain(
            "HiCache in an engine other than sglang",
            "engine.backend sglang; vllm has tiers as kvbm, trtllm host memory as kv_cache_config",
        );
    };
    if config.disable_radix_cache {
        return complain(
            "HiCache without a radix cache",
            "disable_radix_cache false: HiCache keeps what the radix cache evicts",
        );
    }
    let is_spread = pool.engine.stages() > 1 || pool.engine.ranks() > 1;
    if is_spread || config.speculation.is_some() {
        return complain(
            "HiCache beside drafts, stages or ranks",
            "either: how copies share their steps is not modelled yet",
        );
    }
    if pool.role != Role::Aggregated {
        return complain(
            "HiCache where prefill and decode are apart",
            "pools of role aggregated: handing KV over beside HiCache is not modelled yet",
        );
    }
    true
}

/// What pools have to have in common, there being one storage; and what a router cannot know of it.
pub fn check_together(
    root: &Section<'_>,
    router: &Section<'_>,
    asked: Option<&RouterSpec>,
    pools: &[Pool],
) {
    let storage = |pool: &Pool| {
        let spec = pool.host.as_ref()?;
        Some((
            spec.storage?,
            pool.engine.block_size(),
            spec.kv_bytes_per_token,
        ))
    };
    let storages: Vec<_> = pools.iter().filter_map(storage).collect();
    if storages.windows(2).any(|pair| pair[0] != pair[1]) {
        root.conflict(
            super::pools::SECTION,
            "storages of different settings, page sizes or KV",
            "the same hicache.storage_* in all pools: there is one storage",
            "",
        );
    }
    let has_any = pools.iter().any(|pool| pool.host.is_some());
    if has_any && matches!(asked, Some(RouterSpec::Clairvoyant)) {
        router.conflict(
            "mode",
            "a clairvoyant router over workers with host memory of their own",
            "another mode: what it would see of copies is not modelled",
            "",
        );
    }
}
