//! A fluid simulation that knows no shortcuts and counts in floats.

/// A flow of the naive simulation.
#[derive(Debug, Clone)]
pub(crate) struct Fluid {
    pub starts_s: f64,
    pub path: Vec<usize>,
    pub left: f64,
    pub ended_s: Option<f64>,
    /// How long links that are not sound held it up, whether or not it crosses them.
    pub held_s: f64,
}

/// From a moment on a link carries so much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub at_s: f64,
    pub link: usize,
    pub capacity: f64,
}

/// Every flow's rate by raising all together in the smallest step that fills a link; from scratch.
fn naive_rates(capacity: &[f64], paths: &[&[usize]]) -> Vec<f64> {
    let mut rates = vec![0.0; paths.len()];
    let mut grows = vec![true; paths.len()];
    while grows.contains(&true) {
        let crosses = |flow: usize, link: usize| paths[flow].contains(&link);
        let room = |link: usize| {
            let used: f64 = (0..paths.len())
                .filter(|&flow| crosses(flow, link))
                .map(|flow| rates[flow])
                .sum();
            let growing = (0..paths.len()).filter(|&flow| crosses(flow, link) && grows[flow]);
            let growing = growing.count() as f64;
            (growing > 0.0).then(|| (capacity[link] - used) / growing)
        };
        let step = (0..capacity.len())
            .filter_map(room)
            .fold(f64::INFINITY, f64::min);
        let full: Vec<usize> = (0..capacity.len())
            .filter(|&link| room(link).is_some_and(|room| room <= step * (1.0 + 1e-9)))
            .collect();
        for (flow, grows) in grows.iter_mut().enumerate() {
            if *grows {
                rates[flow] += step;
            }
            *grows &= !full.iter().any(|&link| paths[flow].contains(&link));
        }
    }
    rates
}

/// Moves all flows to their ends, from change to change of anything.
pub(crate) fn naive(sound: &[f64], changes: &[Change], flows: &mut [Fluid]) {
    let mut capacity = sound.to_vec();
    let mut now = 0.0;
    loop {
        for change in changes.iter().filter(|change| change.at_s == now) {
            capacity[change.link] = change.capacity;
        }
        let moving: Vec<usize> = (0..flows.len())
            .filter(|&flow| flows[flow].ended_s.is_none() && flows[flow].starts_s <= now)
            .collect();
        let paths: Vec<&[usize]> = moving.iter().map(|&flow| &*flows[flow].path).collect();
        let rates = naive_rates(&capacity, &paths);
        let sound_rates = naive_rates(sound, &paths);
        let ends = moving
            .iter()
            .zip(&rates)
            .map(|(&flow, rate)| now + flows[flow].left / rate);
        let starts = flows.iter().map(|flow| flow.starts_s);
        let changed = changes.iter().map(|change| change.at_s);
        let all = ends.chain(starts).chain(changed);
        let next = all.filter(|&at| at > now).fold(f64::INFINITY, f64::min);
        if next.is_infinite() {
            return;
        }
        for ((&flow, rate), sound_rate) in moving.iter().zip(&rates).zip(&sound_rates) {
            let flow = &mut flows[flow];
            flow.left -= rate * (next - now);
            flow.held_s += (next - now) * (1.0 - rate / sound_rate).max(0.0);
            if flow.left <= 1e-6 * rate {
                flow.ended_s = Some(next);
            }
        }
        now = next;
    }
}
