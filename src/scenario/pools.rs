//! `model`, `gpu`, `engine`, `timing` and `pools`: groups of workers, each over the scenario's common settings.

use super::annotations;
use super::beside;
use super::engine::{self, EngineFields};
use super::problem::Kind;
use super::section::{Field, Section};
use super::timing::{self, Timing};
use super::tree::{Node, Value, quoted};
use super::{hicache, host_cache, kvbm};
use ::engine::EngineConfig;
use calibration::tables::Backend;
use calibration::{Gpu, Model, TimingSpec, Widths};
use sim::RouterSpec;
use std::path::Path;
use sweeps::scenario::{KvBlocks, Parallel, Pool, Role};
use sweeps::sglang_server;

/// Where pools stand.
pub const SECTION: &str = "pools";

/// Most pools of a scenario and most workers of all pools together.
const MAX_POOLS: usize = 1_000;
const MAX_WORKERS: u32 = 100_000;

/// What all pools share unless they say otherwise.
struct Common<'a> {
    section: &'a Section<'a>,
    model: Option<Model>,
    gpu: Option<Gpu>,
    engine: Section<'a>,
    timing: Section<'a>,
    /// Files named in the scenario are looked for here.
    folder: &'a Path,
    /// The router counts in KV blocks, of one size for all workers.
    counts_blocks: bool,
}

/// Reads all pools. `None` after a problem.
pub fn read<'a>(
    section: &'a Section<'a>,
    folder: &'a Path,
    router: Option<&RouterSpec>,
) -> Option<Vec<Pool>> {
    let common = Common {
        section,
        model: model(section, folder),
        gpu: gpu(section),
        engine: section.section("engine"),
        timing: section.section("timing"),
        folder,
        counts_blocks: matches!(router, Some(RouterSpec::Kv(_))),
    };
    // What is wrong in itself is reported even if no pool uses it; what does not go together, with each pool.
    engine::read_common(&common.engine);
    timing::read(&common.timing, folder, Backend::Vllm, true);
    let pools = match section.list("pools") {
        Some((items, field)) => list(&common, items, &field),
        None if section.has("pools") => None,
        None => {
            section.mistake(
                "pools",
                "nothing",
                "a list of pools",
                "for example `pools: [{name: agg, workers: 1}]`",
            );
            None
        }
    };
    common.engine.finish();
    common.timing.finish();
    pools
}

fn list(common: &Common<'_>, items: &[Node], field: &Field<'_>) -> Option<Vec<Pool>> {
    let complain =
        |found: String, expected: &str| common.section.conflict("pools", found, expected, "");
    if items.is_empty() || items.len() > MAX_POOLS {
        complain(
            format!("{} pools", items.len()),
            &format!("1 to {MAX_POOLS}"),
        );
        return None;
    }
    let pools: Vec<Option<Pool>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| pool(common, item, &format!("{}[{index}]", field.path)))
        .collect();
    let pools: Vec<Pool> = pools.into_iter().collect::<Option<_>>()?;
    let workers: u64 = pools.iter().map(|pool| u64::from(pool.workers)).sum();
    if workers > u64::from(MAX_WORKERS) {
        complain(
            format!("{workers} workers"),
            &format!("at most {MAX_WORKERS} in all pools together"),
        );
    }
    for (index, (pool, item)) in pools.iter().zip(items).enumerate() {
        let complain = |found: String, expected: &str| {
            common.section.log().add_kind(
                Kind::Conflict,
                Some(&item.place),
                &format!("pools.{}", pool.name),
                found,
                expected,
                None,
            );
        };
        if pools[..index].iter().any(|other| other.name == pool.name) {
            complain(
                "a name that another pool has".to_owned(),
                "a name of its own",
            );
        }
        let (first, own) = (pools[0].engine.block_size(), pool.engine.block_size());
        if own != first && common.counts_blocks {
            complain(
                format!("block sizes {first} and {own}"),
                "one for all pools, in which a KV router counts",
            );
        }
    }
    Some(pools)
}

/// The sections of one pool.
struct PoolSections<'a> {
    own: Section<'a>,
    parallel: Section<'a>,
    /// Over the scenario's.
    engine: Section<'a>,
    timing: Section<'a>,
    kvbm: Section<'a>,
    hicache: Section<'a>,
    host_cache: Section<'a>,
}

/// What a pool runs on, as far as it is known.
struct Hardware {
    model: Option<Model>,
    gpu: Option<Gpu>,
    /// False when a name was written and not understood.
    is_resolved: bool,
}

fn pool(common: &Common<'_>, item: &Node, place: &str) -> Option<Pool> {
    let log = common.section.log();
    if !matches!(item.value, Value::Map(_)) {
        log.add(
            Some(&item.place),
            place,
            item.found(),
            "a pool, for example `{name: agg, workers: 1}`",
        );
        return None;
    }
    let path = match item.get("name").map(|name| (&name.value, &name.raw)) {
        Some((Value::Text(name), _) | (Value::Number(_), name)) => format!("pools.{name}"),
        _ => place.to_owned(),
    };
    let own = Section::new(log, &path, Some(item));
    let sections = PoolSections {
        parallel: own.section("parallel"),
        engine: own.section_over("engine", &common.engine),
        timing: own.section("timing"),
        kvbm: own.section(kvbm::SECTION),
        hicache: own.section(hicache::SECTION),
        host_cache: own.section(host_cache::SECTION),
        own,
    };
    let pool = read_pool(common, &sections);
    let kvbm = kvbm::read(&sections.kvbm, pool.as_ref());
    let host = hicache::read(&sections.hicache, pool.as_ref());
    let host = host_cache::read(&sections.host_cache, pool.as_ref()).or(host);
    let pool = pool.map(|pool| Pool { kvbm, host, ..pool });
    for section in [
        &sections.parallel,
        &sections.engine,
        &sections.timing,
        &sections.kvbm,
        &sections.hicache,
        &sections.host_cache,
        &sections.own,
    ] {
        section.finish();
    }
    pool
}

fn read_pool(common: &Common<'_>, sections: &PoolSections<'_>) -> Option<Pool> {
    let PoolSections {
        own,
        parallel: parallel_section,
        engine: engine_section,
        timing: own_timing,
        ..
    } = sections;
    own.not_modelled(&["model"]);
    let role = role(own);
    let name = name(own);
    let taints = annotations::taints(own);
    let workers = if own.has("workers") {
        own.whole32("workers", 1..=MAX_WORKERS)
    } else {
        Some(1)
    };
    let parallel = parallel(parallel_section);
    let model_len = common
        .model
        .as_ref()
        .map(|model| model.max_position_embeddings);
    let mut engine = engine::read(engine_section, model_len);
    if let Some(parallel) = parallel {
        engine.spread(parallel, engine_section, parallel_section);
    }
    let hardware = hardware(common, own, &engine);
    check_memory_share(&hardware, &engine, engine_section);
    let draft_share = engine.draft_share(hardware.model.as_ref(), engine_section);
    let timing_section = if own.has("timing") {
        own_timing
    } else {
        &common.timing
    };
    let timing = timing::read(
        timing_section,
        common.folder,
        engine.backend(),
        hardware.model.is_some() && hardware.gpu.is_some(),
    );
    let is_split = parallel.is_some_and(|parallel| splits(parallel, &hardware, parallel_section));
    let is_whole = is_split && hardware.is_resolved;
    let (config, kv_blocks) = match parallel {
        Some(parallel) if is_whole => settle_engine(&engine, &hardware, parallel, own),
        _ => engine.without_hardware(),
    };
    engine::conflicts(engine_section, &config);
    let reserve = "num_reserved_decode_tokens";
    if role == Some(Role::Aggregated) && engine_section.has(reserve) {
        let found = "memory kept for a decode server's outputs";
        engine_section.conflict(reserve, found, "a pool of role decode", "");
    }
    let config = config.as_decoder(role == Some(Role::Decode));

    let mut pool = Pool {
        name: name?,
        role: role?,
        workers: workers?,
        parallel: parallel?,
        model: hardware.model,
        gpu: hardware.gpu,
        kv_blocks,
        kv_cache: engine.kv_cache,
        timing: match timing.clone()? {
            Timing::Chosen(spec) => spec,
            Timing::Open { measured, .. } => TimingSpec::Measured(measured),
        },
        draft_share,
        unmeasured: None,
        kvbm: None,
        taints,
        host: None,
        engine: config,
    };
    let may_be_priced = is_whole && shares_experts(&pool, &timing, &engine, sections);
    if may_be_priced && pool.engine.usable_tokens() > 0 {
        settle_timing(&mut pool, timing?, timing_section);
    }
    Some(pool)
}

/// Measured tables if they have this deployment and nothing else is asked for, else the roofline, with the reason.
fn settle_timing(pool: &mut Pool, timing: Timing, section: &Section<'_>) {
    let compiled = pool.timing.compile(&pool.context()).map(|_| ());
    let compiled = match (timing, compiled) {
        (Timing::Open { roofline, .. }, Err(why)) => {
            pool.timing = TimingSpec::Roofline(roofline);
            pool.unmeasured = Some(why.to_string());
            pool.timing.compile(&pool.context()).map(|_| ())
        }
        (_, compiled) => compiled,
    };
    if let Err(error) = compiled {
        section.refused(Kind::Conflict, "source", &error);
    }
}

fn hardware(common: &Common<'_>, section: &Section<'_>, engine: &EngineFields) -> Hardware {
    let gpu = if section.has("gpu") {
        gpu(section)
    } else {
        common.gpu
    };
    let model = common.model.clone().map(|model| Model {
        weights: engine.weights.unwrap_or(model.weights),
        ..model
    });
    let names_gpu = section.has("gpu") || common.section.has("gpu");
    let is_resolved = names_gpu == gpu.is_some() && common.section.has("model") == model.is_some();
    Hardware {
        model,
        gpu,
        is_resolved,
    }
}

/// A share of the memory says nothing where the memory is not known.
fn check_memory_share(hardware: &Hardware, engine: &EngineFields, section: &Section<'_>) {
    let (share, size) = engine.memory_fields();
    let is_known = hardware.model.is_some() && hardware.gpu.is_some();
    if hardware.is_resolved && !is_known && !section.has(size) && section.has(share) {
        let expected = "model and gpu beside it, from which KV blocks follow";
        let hint = format!("or give {size}");
        section.conflict(share, "a share of unknown memory", expected, &hint);
    }
}

/// A name that fits a dotted path and a file name.
fn name(section: &Section<'_>) -> Option<String> {
    let expected = "a name of up to 64 letters, digits, `-` or `_`";
    let Some((name, _)) = section.text("name") else {
        if !section.has("name") {
            section.mistake("name", "nothing", expected, "for example `name: agg`");
        }
        return None;
    };
    let is_fine = (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && name.parse::<u64>().is_err();
    if !is_fine {
        section.mistake(
            "name",
            quoted(&name),
            format!("{expected}, not a number"),
            "",
        );
    }
    is_fine.then_some(name)
}

/// Aggregated unless the scenario says otherwise.
fn role(section: &Section<'_>) -> Option<Role> {
    const ROLES: [(&str, Role); 4] = [
        ("aggregated", Role::Aggregated),
        ("agg", Role::Aggregated),
        ("prefill", Role::Prefill),
        ("decode", Role::Decode),
    ];
    if !section.has("role") {
        return Some(Role::Aggregated);
    }
    section.choice("role", &ROLES)
}

/// Whether ranks of a worker have what they share, and a price; without ranks always.
fn shares_experts(
    pool: &Pool,
    timing: &Option<Timing>,
    engine: &EngineFields,
    sections: &PoolSections<'_>,
) -> bool {
    let Parallel { data, expert, .. } = pool.parallel;
    if data == 1 {
        return true;
    }
    let conflict = |name: &'static str, found: String, expected: &str, hint: &str| {
        sections.parallel.conflict(name, found, expected, hint);
        false
    };
    let ranks = || format!("{data} ranks");
    if pool
        .model
        .as_ref()
        .is_some_and(|model| model.experts.is_none())
    {
        let expected = "1: ranks share experts, and the model has none";
        return conflict("dp", ranks(), expected, "use more workers");
    }
    if pool.model.is_some() && pool.gpu.is_some() && !engine.has_blocks() {
        let expected = "num_gpu_blocks of a rank beside it: what experts leave of its memory is not computed yet";
        return conflict(
            "dp",
            ranks(),
            expected,
            "an engine prints it when it starts",
        );
    }
    let is_given = matches!(
        timing,
        None | Some(Timing::Chosen(
            TimingSpec::Linear(_) | TimingSpec::Polynomial(_) | TimingSpec::Fitted(_),
        ))
    );
    if expert > 1 && is_given {
        let expected = "1 beside dp: times and blocks are given there, so that ep says nothing";
        return conflict("ep", expert.to_string(), expected, "remove it");
    }
    let gpus = pool.gpus_per_worker();
    if let Some(gpu) = pool.gpu.filter(|gpu| !is_given && gpus > gpu.gpus_per_node) {
        let found = format!("{data} ranks on {gpus} GPUs");
        let expected = format!(
            "at most the {} GPUs of a {} node: what ranks exchange between nodes is not modelled yet",
            gpu.gpus_per_node, gpu.name
        );
        let hint = "or give step times: linear, polynomial or fitted";
        return conflict("dp", found, &expected, hint);
    }
    true
}

/// `parallel`: `tp`, `pp`, `dp` and, for experts, `ep`.
fn parallel(section: &Section<'_>) -> Option<Parallel> {
    let [tensor, expert, pipeline, data] = ["tp", "ep", "pp", "dp"].map(|name| {
        if section.has(name) {
            section.whole32(name, 1..=1_024)
        } else {
            Some(1)
        }
    });
    Some(Parallel {
        tensor: tensor?,
        expert: expert?,
        pipeline: pipeline?,
        data: data?,
    })
}

fn model(section: &Section<'_>, folder: &Path) -> Option<Model> {
    let (name, field) = section.text("model")?;
    let beside = beside(folder, &name, &field.node.place);
    let is_path = name.ends_with(".json") || beside.join("config.json").is_file();
    let wanted = if is_path {
        beside.display().to_string()
    } else {
        name
    };
    Model::find(&wanted)
        .map_err(|error| section.refused(Kind::Mistake, "model", &error))
        .ok()
}

fn gpu(section: &Section<'_>) -> Option<Gpu> {
    let (name, _) = section.text("gpu")?;
    Gpu::find(&name)
        .copied()
        .map_err(|error| section.refused(Kind::Mistake, "gpu", &error))
        .ok()
}

/// Whether the model can be split as asked, within a node; reports it if not.
fn splits(parallel: Parallel, hardware: &Hardware, section: &Section<'_>) -> bool {
    let tensor = parallel.tensor;
    let mut is_split = true;
    let mut refuse = |name: &'static str, width: u32, expected: String, hint: &str| {
        section.conflict(name, width.to_string(), expected, hint);
        is_split = false;
    };
    if let Some(gpu) = hardware.gpu.filter(|gpu| tensor > gpu.gpus_per_node) {
        let expected = format!(
            "at most the {} GPUs of a {} node",
            gpu.gpus_per_node, gpu.name
        );
        refuse("tp", tensor, expected, "use more workers instead");
    }
    let stages = parallel.pipeline;
    if let Some(gpu) = hardware.gpu.filter(|gpu| tensor <= gpu.gpus_per_node)
        && u64::from(tensor) * u64::from(stages) > u64::from(gpu.gpus_per_node)
    {
        let most = gpu.gpus_per_node / tensor;
        let expected = format!(
            "at most {most} with tp {tensor}: stages on other nodes than one of {} {}s are not modelled yet",
            gpu.gpus_per_node, gpu.name
        );
        refuse("pp", stages, expected, "use more workers instead");
    }
    if let Some(model) = hardware
        .model
        .as_ref()
        .filter(|model| stages > model.layers)
    {
        let expected = format!("at most the {} layers of {}", model.layers, model.id);
        refuse("pp", stages, expected, "");
    }
    if let Some(model) = &hardware.model
        && let Err(why) = model.check_tensor_parallel(tensor)
    {
        let legal: Vec<String> = model
            .legal_tensor_parallel(8)
            .map(|width| width.to_string())
            .collect();
        let hint = format!("{} can be split over {} GPUs", model.id, legal.join(", "));
        refuse("tp", tensor, format!("a width that {why}"), &hint);
    } else if hardware.is_resolved
        && let Err((expected, hint)) = deals_out_experts(parallel, hardware.model.as_ref())
    {
        refuse("ep", parallel.expert, expected, &hint);
    }
    is_split
}

/// Whether experts can be dealt out as asked; if not, what is expected and what to do.
fn deals_out_experts(parallel: Parallel, model: Option<&Model>) -> Result<(), (String, String)> {
    let Parallel { expert, data, .. } = parallel;
    // Ranks share the experts over the GPUs of all of them.
    let tensor = parallel.tensor * data;
    let widths = Widths { tensor, expert };
    let Some(model) = model else {
        return match expert {
            1 => Ok(()),
            _ => Err((
                "1 where no model is given".to_owned(),
                "name a mixture of experts as model, or remove ep".to_owned(),
            )),
        };
    };
    if let Err(why) = model.check_expert_parallel(widths) {
        let legal: Vec<String> = model
            .legal_expert_parallel(tensor)
            .filter(|&expert| expert == 1 || expert == tensor)
            .map(|width| width.to_string())
            .collect();
        let hint = match legal.as_slice() {
            [] => "choose another tp".to_owned(),
            legal => format!("with tp {tensor} it can be {}", legal.join(" or ")),
        };
        return Err((format!("a width that {why}"), hint));
    }
    if expert != 1 && expert != tensor {
        let all = if data > 1 { "tp · dp" } else { "tp" };
        let expected =
            format!("1 or {all}, {tensor}: vLLM splits every expert or deals out whole ones");
        let hint = format!("ep {tensor} is --enable-expert-parallel");
        return Err((expected, hint));
    }
    Ok(())
}

/// The settings with what follows from the hardware, KV blocks first.
fn settle_engine(
    engine: &EngineFields,
    hardware: &Hardware,
    parallel: Parallel,
    section: &Section<'_>,
) -> (EngineConfig, KvBlocks) {
    let (Some(model), Some(gpu), 1) = (&hardware.model, &hardware.gpu, parallel.data) else {
        return engine.without_hardware();
    };
    let stage;
    let model = if parallel.pipeline > 1 {
        stage = model.stage(parallel.pipeline);
        &stage
    } else {
        model
    };
    let hardware = sglang_server::Hardware {
        model,
        gpu,
        tensor_parallel: parallel.tensor,
        expert_parallel: parallel.expert,
        kv_cache: engine.kv_cache,
    };
    engine.on(&hardware).unwrap_or_else(|error| {
        section.refused(Kind::Conflict, "parallel", &error);
        engine.without_hardware()
    })
}
