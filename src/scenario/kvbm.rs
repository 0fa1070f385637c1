//! `pools[].kvbm`: tiers below the GPU's KV cache, under the names of KVBM's own settings where it has them
//! (`DYN_KVBM_CPU_CACHE_GB` is `cpu_cache_gb`).

use super::section::Section;
use engine::Span;
use sim::RouterSpec;
use sim::kvbm::prefetch::can_prefetch;
use sim::kvbm::spec::{Medium, OffloadPolicy, Speed, TierSpec};
use sim::kvbm::{Eviction, FilterSpec, KvbmSpec};
use sim::links::Transport;
use sweeps::scenario::{Pool, Role};

/// Name of the section.
pub const SECTION: &str = "kvbm";

const MAX_GB: f64 = 1e9;
pub const MAX_GB_PER_S: f64 = 1e6;
/// Before the first byte where the scenario does not say: an NVMe disk, and an object store over HTTP.
const DISK_LATENCY_US: f64 = 100.0;
const OBJECT_LATENCY_US: f64 = 20_000.0;

/// Policies, before the time of `ttl`.
#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Plain(Eviction),
    Ttl,
}

const POLICIES: [(&str, Policy); 4] = [
    ("lru", Policy::Plain(Eviction::Lru)),
    ("frequency", Policy::Plain(Eviction::Frequency)),
    ("priority", Policy::Plain(Eviction::Priority)),
    ("ttl", Policy::Ttl),
];

const OFFLOAD: [(&str, OffloadPolicy); 2] = [
    ("write-through", OffloadPolicy::WriteThrough),
    ("on-evict", OffloadPolicy::OnEvict),
];

/// What KVBM and agents know and this simulator does not.
const NOT_MODELLED: [&str; 8] = [
    "block_size",
    "cache_control",
    "speculative_prefill",
    "agent_hints",
    "ephemeral",
    "nccl_mla_mode",
    "max_concurrent_transfers",
    "leader_worker_init_timeout_s",
];

/// Names of the fields of one tier.
struct Names {
    size: &'static str,
    blocks: &'static str,
    eviction: &'static str,
    ttl: &'static str,
    /// Of its speed; the host's is PCIe's.
    speed: Option<SpeedNames>,
}

#[derive(Clone, Copy)]
struct SpeedNames {
    read: &'static str,
    write: &'static str,
    latency: &'static str,
    default_latency_us: f64,
}

const CPU: Names = Names {
    size: "cpu_cache_gb",
    blocks: "cpu_cache_override_num_blocks",
    eviction: "cpu_eviction",
    ttl: "cpu_ttl_s",
    speed: None,
};

const DISK: Names = Names {
    size: "disk_cache_gb",
    blocks: "disk_cache_override_num_blocks",
    eviction: "disk_eviction",
    ttl: "disk_ttl_s",
    speed: Some(SpeedNames {
        read: "disk_read_gb_per_s",
        write: "disk_write_gb_per_s",
        latency: "disk_latency_us",
        default_latency_us: DISK_LATENCY_US,
    }),
};

const OBJECT: Names = Names {
    size: "object_cache_gb",
    blocks: "object_cache_override_num_blocks",
    eviction: "object_eviction",
    ttl: "object_ttl_s",
    speed: Some(SpeedNames {
        read: "object_read_gb_per_s",
        write: "object_write_gb_per_s",
        latency: "object_latency_us",
        default_latency_us: OBJECT_LATENCY_US,
    }),
};

/// The tiers of a pool; `None` where it has none, and after a problem.
pub fn read(section: &Section<'_>, pool: Option<&Pool>) -> Option<KvbmSpec> {
    section.not_modelled(&NOT_MODELLED);
    let sizes = [CPU, DISK, OBJECT];
    let wants_tier = |names: &Names| section.has(names.size) || section.has(names.blocks);
    let bytes_per_token = bytes_per_token(section, pool, sizes.iter().any(wants_tier));
    let block_bytes = match (pool, bytes_per_token) {
        (Some(pool), Some(bytes)) => Some(bytes * u64::from(pool.engine.block_size())),
        _ => None,
    };
    let host = tier(section, &CPU, block_bytes).map(|tier| TierSpec {
        medium: Medium::Host,
        ..tier
    });
    let disk = tier(section, &DISK, block_bytes);
    let object = tier(section, &OBJECT, block_bytes);
    let is_unfiltered = section.flag("disable_disk_offload_filter");
    let pcie = pcie(section, pool);
    let offload = section.choice("offload", &OFFLOAD).unwrap_or_default();
    let per_node = section.whole32("workers_per_node", 1..=1_024);
    if disk.is_none() {
        let size = "disk_cache_gb";
        unused(section, "disable_disk_offload_filter", size);
        unused(section, "workers_per_node", size);
    }
    let disk = disk.map(|tier| TierSpec {
        filter: (is_unfiltered != Some(true)).then(FilterSpec::default),
        ..tier
    });
    let tiers: Vec<TierSpec> = [host, disk, object].into_iter().flatten().collect();
    let prefetch = section.flag("prefetch");
    let media: Vec<Medium> = tiers.iter().map(|tier| tier.medium).collect();
    if prefetch == Some(true) && !tiers.is_empty() && !can_prefetch(&media) {
        section.conflict(
            "prefetch",
            "a prefetch that has nowhere to read from or to",
            "cpu_cache_gb, and disk_cache_gb or object_cache_gb",
            "",
        );
        return None;
    }
    let pool = pool.filter(|_| !tiers.is_empty())?;
    if !fits_pool(section, pool, &media) {
        return None;
    }
    let node = pool.gpu.map_or(8, |gpu| gpu.gpus_per_node);
    Some(KvbmSpec {
        tiers,
        pcie: pcie?,
        offload,
        prefetch: prefetch == Some(true),
        workers_per_node: per_node.unwrap_or((node / pool.gpus_per_worker()).max(1)),
        kv_bytes_per_token: bytes_per_token?,
    })
}

/// Whether the pool is of a kind that can have tiers.
fn fits_pool(section: &Section<'_>, pool: &Pool, media: &[Medium]) -> bool {
    let size = [CPU.size, CPU.blocks, DISK.size, DISK.blocks, OBJECT.size];
    let name = size.into_iter().find(|name| section.has(name));
    let name = name.unwrap_or(OBJECT.blocks);
    let complain = |found: &str, expected: &str| {
        section.conflict(name, found, expected, "");
        false
    };
    if pool.engine.as_vllm().is_none() {
        return complain(
            "tiers below an engine other than vllm",
            "engine.backend vllm; sglang has hicache, trtllm kv_cache_config",
        );
    }
    let is_shared = |medium: &Medium| matches!(medium, Medium::Object(_));
    if pool.role == Role::Decode && !media.iter().all(is_shared) {
        return complain(
            "tiers of a worker's own in a pool of role decode, which nobody would read",
            "them in the prefill pools, where Dynamo has KVBM; here object_cache_gb alone",
        );
    }
    if !pool.engine.does_parts() {
        return complain(
            "tiers beside pp, dp or speculative_config",
            "either: how a fetch and these go together is not modelled yet",
        );
    }
    true
}

/// One tier, its medium still a host for one without a speed; `None` where there is none.
fn tier(section: &Section<'_>, names: &Names, block_bytes: Option<u64>) -> Option<TierSpec> {
    let gb = section.number(names.size, 0.0..=MAX_GB);
    let blocks = section.whole(names.blocks, 1..=1 << 40);
    if section.has(names.size) && section.has(names.blocks) {
        section.conflict(
            names.blocks,
            "a size beside another",
            format!("{} or this", names.size),
            "",
        );
    }
    let policy = section.choice(names.eviction, &POLICIES);
    let ttl = section.number(names.ttl, 1e-3..=1e9);
    let speed = names.speed.map(|speed| read_speed(section, speed));
    let is_there = blocks.is_some() || gb.is_some_and(|gb| gb > 0.0);
    if !is_there {
        let written = section.has(names.size) || section.has(names.blocks);
        let rest = [names.eviction, names.ttl];
        let speed = names.speed.map(|it| [it.read, it.write, it.latency]);
        if !written {
            for name in rest.into_iter().chain(speed.into_iter().flatten()) {
                unused(section, name, names.size);
            }
        }
        return None;
    }
    let eviction = match (policy, ttl) {
        (None, _) if section.has(names.eviction) => return None,
        (Some(Policy::Ttl), None) => {
            if !section.has(names.ttl) {
                let example = format!("for example `{}: 3600`", names.ttl);
                section.mistake(names.ttl, "nothing", "how long blocks stay", &example);
            }
            return None;
        }
        (Some(Policy::Ttl), Some(seconds)) => Eviction::Ttl(Span((seconds * 1e12).round() as u64)),
        (other, ttl) => {
            if ttl.is_some() {
                let expected = format!("{}: ttl", names.eviction);
                section.conflict(names.ttl, "a time that nothing uses", expected, "");
            }
            match other {
                Some(Policy::Plain(eviction)) => eviction,
                _ => Eviction::default(),
            }
        }
    };
    let blocks = match (blocks, gb) {
        (Some(blocks), _) => blocks,
        (None, gb) => (gb? * 1e9 / block_bytes? as f64) as u64,
    };
    if blocks == 0 {
        let block = block_bytes.unwrap_or(0);
        section.conflict(
            names.size,
            "less than one block",
            format!("room for a block of {block} bytes, or 0 for no such tier"),
            "",
        );
        return None;
    }
    let medium = match (speed, names.size == DISK.size) {
        (None, _) => Medium::Host,
        (Some(speed), true) => Medium::Disk(speed?),
        (Some(speed), false) => Medium::Object(speed?),
    };
    Some(TierSpec {
        medium,
        blocks,
        eviction,
        filter: None,
    })
}

fn read_speed(section: &Section<'_>, names: SpeedNames) -> Option<Speed> {
    let rate = |name| section.number(name, f64::MIN_POSITIVE..=MAX_GB_PER_S);
    let (read, write) = (rate(names.read), rate(names.write));
    let latency = section.number(names.latency, 0.0..=1e9);
    let latency = latency.unwrap_or(names.default_latency_us);
    let is_disk = names.read == "disk_read_gb_per_s";
    let sizes = if is_disk { &DISK } else { &OBJECT };
    let is_needed = section.has(sizes.size) || section.has(sizes.blocks);
    for name in [names.read, names.write] {
        if is_needed && !section.has(name) {
            let example = format!("for example `{name}: 6`");
            section.mistake(name, "nothing", "10^9 bytes per second", &example);
        }
    }
    let latency = Span((latency * 1e6).round() as u64);
    Some(Speed {
        read_bytes_per_s: bytes(read?),
        write_bytes_per_s: bytes(write?),
        read_latency: latency,
        write_latency: latency,
    })
}

/// Of all GPUs of a worker together, each with a link of its own.
pub fn pcie(section: &Section<'_>, pool: Option<&Pool>) -> Option<Speed> {
    let preset = Transport::Pcie.preset();
    let rate = section.number("pcie_gb_per_s", f64::MIN_POSITIVE..=MAX_GB_PER_S);
    let latency = section.number("pcie_latency_us", 0.0..=1e9);
    if section.has("pcie_gb_per_s") && rate.is_none() {
        return None;
    }
    let gpus = u64::from(pool?.gpus_per_worker());
    let each_way = rate.map_or(preset.bytes_per_s, bytes) * gpus;
    let latency = latency.map_or(preset.latency, |us| Span((us * 1e6).round() as u64));
    Some(Speed {
        read_bytes_per_s: each_way,
        write_bytes_per_s: each_way,
        read_latency: latency,
        write_latency: latency,
    })
}

pub fn bytes(gb: f64) -> u64 {
    (gb * 1e9).round().max(1.0) as u64
}

/// As written, or the model's.
pub fn bytes_per_token(section: &Section<'_>, pool: Option<&Pool>, is_needed: bool) -> Option<u64> {
    if section.has("kv_bytes_per_token") {
        return section.whole("kv_bytes_per_token", 1..=1 << 40);
    }
    let pool = pool?;
    let model = pool.model.as_ref();
    let bytes = model.map(|model| model.kv_bytes_per_token(pool.kv_cache));
    if bytes.is_none() && is_needed {
        section.mistake(
            "kv_bytes_per_token",
            "nothing",
            "the size of a token's KV, or a model from which it follows",
            "for example 131072, that of Llama-3.1-8B in 16 bits",
        );
    }
    bytes
}

fn unused(section: &Section<'_>, name: &'static str, size: &str) {
    if section.has(name) {
        let expected = format!("{size} beside it");
        section.conflict(name, "a setting of a tier that is not there", expected, "");
    }
}

/// What pools have to have in common: there is one object store. And weights of tiers are for pools that have some.
pub fn check_together(
    root: &Section<'_>,
    router: &Section<'_>,
    asked: Option<&RouterSpec>,
    pools: &[Pool],
) {
    let has_tiers = root.list("pools").is_some_and(|(items, _)| {
        let has = |name| items.iter().any(|item| item.get(name).is_some());
        has(SECTION) || has(super::hicache::SECTION) || has(super::host_cache::SECTION)
    });
    for name in [
        "host_cache_hit_weight",
        "disk_cache_hit_weight",
        "shared_cache_multiplier",
    ] {
        if !has_tiers && router.has(name) {
            let expected = "kvbm, hicache or kv_cache_config in a pool, or no such weight";
            router.conflict(name, "a weight of tiers that no pool has", expected, "");
        }
    }
    if pools.iter().any(|pool| pool.kvbm.is_some())
        && matches!(asked, Some(RouterSpec::Clairvoyant))
    {
        router.conflict(
            "mode",
            "a clairvoyant router over workers with kvbm",
            "another mode: what it would see of fetches is not modelled",
            "",
        );
    }
    let object = |pool: &Pool| {
        let spec = pool.kvbm.as_ref()?;
        let tier = spec
            .tiers
            .iter()
            .find(|tier| matches!(tier.medium, Medium::Object(_)))?;
        Some((*tier, pool.engine.block_size(), spec.kv_bytes_per_token))
    };
    let stores: Vec<_> = pools.iter().filter_map(object).collect();
    if stores.windows(2).any(|pair| pair[0] != pair[1]) {
        root.conflict(
            super::pools::SECTION,
            "object stores of different settings, block sizes or KV",
            "the same kvbm.object_* in all pools: there is one store",
            "",
        );
    }
}
