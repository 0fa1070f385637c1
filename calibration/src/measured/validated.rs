//! How far measured step times were off against real serving runs, where the runs come nearest to a deployment.
//!
//! `data/serving_errors.csv` holds the errors of `dynosim validate serving … --leave-out family --errors FILE`: each model
//! family predicted by host times and recipes fitted on all others, in groups of one GPU, engine, model and width. The
//! nearest group is one of the same engine and GPU if there is any, else of the same engine; then of the same kind of
//! model (with or without experts), and last the one nearest in parameters and width, in octaves. Fewer than five runs
//! speak for nothing but their own deployment.

use crate::model::Model;
use crate::tables::Backend;
use std::sync::LazyLock;

/// Absolute relative errors of a group of real runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// GPU of the runs.
    pub gpu: String,
    /// Their engine.
    pub backend: Backend,
    /// Their model.
    pub model: String,
    /// GPUs of a worker.
    pub gpus: u32,
    /// Number of runs.
    pub rows: u32,
    /// Median error of the mean TPOT.
    pub tpot_median: f64,
    /// Median error of the mean TTFT.
    pub ttft_median: f64,
}

/// Runs in a group that may speak for other deployments.
const FEWEST_ROWS: u32 = 5;

static GROUPS: LazyLock<Vec<Group>> = LazyLock::new(|| {
    let text = include_str!("../../data/serving_errors.csv");
    let group = |line: &str| {
        let mut cells = line.split(',');
        let mut next = || cells.next();
        Some(Group {
            gpu: next()?.to_owned(),
            backend: Backend::find(next()?).ok()?,
            model: next()?.to_owned(),
            gpus: next()?.parse().ok()?,
            rows: next()?.parse().ok()?,
            tpot_median: next()?.parse().ok()?,
            ttft_median: next()?.parse().ok()?,
        })
    };
    let lines = text.lines().skip(1);
    lines
        .map(|line| group(line).expect("the embedded file was made by this program"))
        .collect()
});

/// The validated group nearest to a deployment; none if no run of its engine was ever compared.
#[must_use]
pub fn nearest(gpu: &str, backend: Backend, model: &Model, gpus: u32) -> Option<&'static Group> {
    let octaves = |a: f64, b: f64| (a / b).log2().abs();
    let size = |model: &Model| model.parameters() as f64;
    let distance = |group: &Group| {
        let (is_other_kind, far) = match Model::find(&group.model) {
            Ok(other) => (
                other.beyond_dense().is_some() != model.beyond_dense().is_some(),
                octaves(size(&other), size(model)),
            ),
            Err(_) => (true, f64::INFINITY),
        };
        let width = octaves(f64::from(group.gpus), f64::from(gpus));
        (group.gpu != gpu, is_other_kind, far + width)
    };
    let speaks = |group: &&Group| {
        group.backend == backend && (group.rows >= FEWEST_ROWS || is_same(group, gpu, model, gpus))
    };
    GROUPS.iter().filter(speaks).min_by(|a, b| {
        let (a, b) = (distance(a), distance(b));
        (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2))
    })
}

fn is_same(group: &Group, gpu: &str, model: &Model, gpus: u32) -> bool {
    group.gpu == gpu && group.gpus == gpus && group.model.eq_ignore_ascii_case(&model.id)
}

/// The same as a sentence for reports.
#[must_use]
pub fn in_words(gpu: &str, backend: Backend, model: &Model, gpus: u32) -> String {
    let Some(group) = nearest(gpu, backend, model, gpus) else {
        return format!(
            "no public benchmark of {} was compared with",
            backend.name()
        );
    };
    let Group {
        rows,
        tpot_median,
        ttft_median,
        ..
    } = group;
    format!(
        "against {} ({rows} of {} on {} x {} with {}): TPOT off by {:.0} %, TTFT by {:.0} % in the median",
        if is_same(group, gpu, model, gpus) {
            "public benchmarks of this deployment"
        } else {
            "the nearest public benchmarks"
        },
        group.model,
        group.gpus,
        group.gpu,
        backend.name(),
        tpot_median * 100.0,
        ttft_median * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_group_has_the_engine_then_the_gpu_then_the_size() {
        let find = |gpu: &str, backend, model: &str, gpus| {
            let model = Model::find(model).expect("embedded");
            nearest(gpu, backend, &model, gpus).expect("compared")
        };
        let own = find("h100_sxm", Backend::Vllm, "Qwen/Qwen3-32B", 4);
        assert_eq!((own.model.as_str(), own.gpus), ("Qwen/Qwen3-32B", 4));
        let other = find("b200_sxm", Backend::Vllm, "meta-llama/Llama-3.1-70B", 8);
        assert_eq!(other.model, "meta-llama/Llama-3.1-70B");
        // One run of another model is less than ten of a larger one.
        let small = find("h100_sxm", Backend::Vllm, "meta-llama/Llama-3.1-8B", 1);
        assert!(
            small.rows >= FEWEST_ROWS && small.gpu == "h100_sxm",
            "{small:?}"
        );
        let mixture = find("h200_sxm", Backend::Sglang, "deepseek-ai/DeepSeek-V3", 8);
        assert_eq!(mixture.model, "deepseek-ai/DeepSeek-R1");
    }

    #[test]
    fn what_is_known_is_said() {
        let model = Model::find("Qwen/Qwen3-32B").expect("embedded");
        let words = in_words("h100_sxm", Backend::Vllm, &model, 4);
        assert!(
            words.contains("public benchmarks of this deployment"),
            "{words}"
        );
        let words = in_words("h100_sxm", Backend::Vllm, &model, 1);
        assert!(
            words.contains("4 x") || words.contains("x h100_sxm"),
            "{words}"
        );
    }
}
