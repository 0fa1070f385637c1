//! Weights that workers send each other over the network: `lifecycle.stream_weights`.

use super::lifecycle::Stream;
use super::network;
use super::section::Section;
use calibration::Widths;
use sweeps::planner::WeightsSpec;
use sweeps::scenario::{Pool, Role};

/// How much goes over which links; `places` are the pools with all workers that there may be. `None` after a problem.
pub fn read(
    root: &Section<'_>,
    stream: Stream,
    pools: &[Pool],
    places: &[Pool],
) -> Option<WeightsSpec> {
    let lifecycle = root.section("lifecycle");
    let bytes = pools.iter().map(|pool| match (stream.bytes, &pool.model) {
        (Some(bytes), _) => Some(bytes),
        (None, Some(model)) => {
            let widths = Widths {
                tensor: pool.parallel.tensor,
                expert: pool.parallel.expert,
            };
            let gpus = u64::from(pool.gpus_per_worker());
            Some(model.weight_bytes_per_gpu(widths) * gpus)
        }
        (None, None) => None,
    });
    let Some(bytes) = bytes.collect::<Option<Vec<u64>>>() else {
        let expected = "how much a worker loads, or a model";
        lifecycle.mistake(
            "weights_gb",
            "nothing",
            expected,
            "for example `weights_gb: 16`",
        );
        return None;
    };
    if !root.has("network") {
        let expected = "a section network: how fast workers send to each other";
        let hint = "load_from_neighbour_s is a time that no link has a part in";
        lifecycle.conflict(
            "stream_weights",
            "weights over links that nobody describes",
            expected,
            hint,
        );
        return None;
    }
    if pools.iter().any(|pool| pool.role != Role::Aggregated) {
        return Some(WeightsSpec {
            bytes,
            network: None,
        });
    }
    let links = root.section("network");
    let network = network::read(root, &links, pools, places, None);
    links.finish();
    Some(WeightsSpec {
        bytes,
        network: Some(network?),
    })
}
