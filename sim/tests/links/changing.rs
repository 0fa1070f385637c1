//! Links that are slow or down for a time: sums by hand, random cases against the naive fluid simulation, and what holds
//! whatever the case.

use crate::fluid::{Change, Fluid, naive};
use crate::{GB, S, ends, start};
use engine::{Span, Time};
use proptest::prelude::*;
use sim::event::WorkerId;
use sim::links::{
    Fabric, Impairment, LinkId, Network, NetworkSpec, NewFlow, NewTransfer, SiteKind,
};

#[test]
fn a_flow_stands_still_while_its_link_is_down() {
    let mut fabric = Fabric::default();
    let link = fabric.add_link(GB);
    let flow = start(&mut fabric, Time::ZERO, 0, &[link], 2 * GB);
    fabric.advance(Time::ZERO, &mut Vec::new());
    // 0.5 GB moved, 3 s of nothing, 1.5 GB left.
    fabric.set_capacity(Time(S / 2), link, 0);
    assert_eq!((fabric.rate(flow), fabric.next_event()), (0, None));
    // Who comes meanwhile waits too.
    start(&mut fabric, Time(S), 1, &[link], GB);
    fabric.advance(Time(S), &mut Vec::new());
    assert_eq!(fabric.carried(Time(3 * S), flow), GB / 2);
    fabric.set_capacity(Time(7 * S / 2), link, GB);
    // From 3.5 s on both have half: the second has its gigabyte at 5.5 s, when the first has 0.5 GB to go.
    assert_eq!(ends(&mut fabric), [(1, 11 * S / 2), (0, 6 * S)]);
    assert_eq!(fabric.take_held(Time(6 * S), flow), Span(3 * S));
}

#[test]
fn of_a_slow_link_others_keep_what_they_can_have() {
    // A over both links, B over the second alone, 1 GB/s each. The first at a quarter: A has 0.25, B 0.75 GB/s. A lacks half of
    // the 0.5 GB/s that it had: 4 s hold it up for 2 s. B has more than it had, and nothing holds it up.
    let mut fabric = Fabric::default();
    let [first, second] = [(); 2].map(|()| fabric.add_link(GB));
    let a = start(&mut fabric, Time::ZERO, 0, &[first, second], 10 * GB);
    let b = start(&mut fabric, Time::ZERO, 1, &[second], 10 * GB);
    fabric.advance(Time::ZERO, &mut Vec::new());
    fabric.set_capacity(Time(S), first, GB / 4);
    assert_eq!([a, b].map(|flow| fabric.rate(flow)), [GB / 4, 3 * GB / 4]);
    fabric.set_capacity(Time(5 * S), first, GB);
    assert_eq!([a, b].map(|flow| fabric.rate(flow)), [GB / 2, GB / 2]);
    let held = [a, b].map(|flow| fabric.take_held(Time(9 * S), flow));
    assert_eq!(held, [Span(2 * S), Span::ZERO]);
}

fn network(workers: usize) -> Network {
    let spec = NetworkSpec {
        bytes_per_s: GB,
        per_gpu: false,
        core_bytes_per_s: None,
        latency: Span::ZERO,
        setup: Span::ZERO,
    };
    Network::new(spec, None, &vec![1; workers])
}

fn send(network: &mut Network, now: Time, tag: u32, from: u32, to: u32) {
    let new = NewTransfer {
        tag,
        from: WorkerId(from),
        to: WorkerId(to),
        bytes: GB,
        delay: Span::ZERO,
        source: None,
    };
    network.send(now, new);
}

#[test]
fn the_worst_of_two_faults_counts_and_both_are_charged() {
    let mut network = network(2);
    send(&mut network, Time::ZERO, 0, 0, 1);
    network.advance(Time::ZERO, &mut Vec::new());
    let slow = Impairment::Slow { percent: 400 };
    network.impair(Time::ZERO, 7, (SiteKind::Worker, 0), slow);
    network.impair(Time(S), 8, (SiteKind::Worker, 0), Impairment::Down);
    // 1 s at a quarter, 1 s of nothing, 1 s at a quarter again, then 0.5 GB are left.
    assert_eq!(network.carried(Time(2 * S), 0), GB / 4);
    let down = network.repair(Time(2 * S), 8);
    assert_eq!((down.transfers, down.bytes, down.held), (1, GB, Span(S)));
    let slow = network.repair(Time(3 * S), 7);
    assert_eq!((slow.transfers, slow.bytes), (1, GB));
    assert_eq!(slow.held, Span(S + 2 * (3 * S / 4)));
    assert_eq!(network.next_event(), Some(Time(3 * S + S / 2)));
}

/// A network where workers send to each other; the time each transfer took, and what the faults cost.
fn run(
    asked: &[(u64, u32, u32)],
    faults: &[(u64, u64, u32, Impairment)],
) -> (Vec<u64>, Vec<sim::links::LinkCost>) {
    let mut network = network(4);
    let mut moments: Vec<(u64, usize, usize)> = Vec::new();
    for (index, &(at, lasts, ..)) in faults.iter().enumerate() {
        moments.extend([(at, 0, index), (at + lasts, 1, index)]);
    }
    for (index, &(at, ..)) in asked.iter().enumerate() {
        moments.push((at, 2, index));
    }
    moments.sort_unstable();
    let mut took = vec![0; asked.len()];
    let mut costs = vec![Default::default(); faults.len()];
    let mut ended = Vec::new();
    let mut next = moments.iter().peekable();
    loop {
        let now = match (network.next_event(), next.peek().map(|it| Time(it.0))) {
            (None, None) => return (took, costs),
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).expect("one of them"),
        };
        network.advance(now, &mut ended);
        for tag in ended.drain(..) {
            took[tag as usize] = now.0 - asked[tag as usize].0;
        }
        while let Some(&&(at, what, index)) = next.peek()
            && at == now.0
        {
            next.next();
            match what {
                0 => {
                    let (_, _, worker, how) = faults[index];
                    network.impair(now, index as u32, (SiteKind::Worker, worker), how);
                }
                1 => costs[index] = network.repair(now, index as u32),
                _ => {
                    let (_, from, to) = asked[index];
                    send(&mut network, now, index as u32, from, to);
                }
            }
        }
    }
}

fn transfers() -> impl Strategy<Value = Vec<(u64, u32, u32)>> {
    let one = (0u64..6_000, 0u32..4, 1u32..4);
    let one = one.prop_map(|(ms, from, step)| (ms * S / 1000, from, (from + step) % 4));
    prop::collection::vec(one, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flows_over_links_that_change_end_when_the_naive_fluid_simulation_says(
        capacity in prop::collection::vec(1u64..100, 1..6),
        asked in prop::collection::vec((0u64..2_000, prop::collection::btree_set(0usize..6, 1..5), 1u64..500), 1..16),
        faults in prop::collection::vec((0u64..3_000, 1u64..2_000, 0u64..4), 1..6),
    ) {
        // Capacities in 0.1 GB/s, times in ms, sizes in MB. What is left of a link in quarters; fault n is of link n.
        let mut fabric = Fabric::default();
        let links: Vec<LinkId> = capacity.iter().map(|tenths| fabric.add_link(tenths * GB / 10)).collect();
        let sound: Vec<f64> = capacity.iter().map(|tenths| *tenths as f64 * 1e8).collect();
        let mut changes = Vec::new();
        for (link, (at, lasts, quarters)) in faults.iter().enumerate().take(capacity.len()) {
            changes.push((*at, link, capacity[link] * GB / 10 * quarters / 4));
            changes.push((at + lasts, link, capacity[link] * GB / 10));
        }
        changes.sort_unstable();
        let mut fluids = Vec::new();
        let mut news = Vec::new();
        for (tag, (at, path, megabytes)) in asked.iter().enumerate() {
            let mut path: Vec<usize> = path.iter().map(|link| link % capacity.len()).collect();
            path.sort_unstable();
            path.dedup();
            news.push((*at, tag as u32, path.iter().map(|&link| links[link]).collect::<Vec<_>>(), megabytes * 1_000_000));
            fluids.push(Fluid { starts_s: *at as f64 / 1e3, path, left: *megabytes as f64 * 1e6, ended_s: None, held_s: 0.0 });
        }
        news.sort();
        let naive_changes: Vec<Change> = changes.iter().map(|&(at, link, rate)| Change {
            at_s: at as f64 / 1e3, link, capacity: rate as f64,
        }).collect();
        naive(&sound, &naive_changes, &mut fluids);
        let mut found = vec![None; asked.len()];
        let mut flows = vec![None; asked.len()];
        let mut held = vec![0.0; asked.len()];
        let (mut pending, mut changes) = (news.iter().peekable(), changes.iter().peekable());
        let mut ended = Vec::new();
        loop {
            let times = [pending.peek().map(|it| Time(it.0 * S / 1000)), changes.peek().map(|it| Time(it.0 * S / 1000)), fabric.next_event()];
            let Some(now) = times.into_iter().flatten().min() else { break };
            fabric.advance_flows(now, &mut ended);
            for (tag, flow) in ended.drain(..) {
                found[tag as usize] = Some(now);
                held[tag as usize] += fabric.take_held(now, flow).as_s();
                flows[tag as usize] = None;
            }
            while let Some(&&(_, link, rate)) = changes.peek().filter(|it| it.0 * S / 1000 == now.0) {
                fabric.set_capacity(now, links[link], rate);
                changes.next();
            }
            while let Some((_, tag, path, bytes)) = pending.peek().filter(|it| it.0 * S / 1000 == now.0) {
                let new = NewFlow { tag: *tag, path, bytes: *bytes, delay: Span::ZERO };
                flows[*tag as usize] = Some(fabric.start(now, new));
                pending.next();
            }
        }
        for ((fluid, found), held) in fluids.iter().zip(&found).zip(&held) {
            let found = found.expect("every flow ends").as_s();
            let expected = fluid.ended_s.expect("every flow ends");
            prop_assert!((found - expected).abs() < 1e-5, "{} and {}: {:?}", found, expected, fluid);
            prop_assert!((held - fluid.held_s).abs() < 1e-5, "{} and {}: {:?}", held, fluid.held_s, fluid);
        }
    }

    #[test]
    fn a_fault_of_factor_one_changes_nothing(
        asked in transfers(),
        faults in prop::collection::vec((0u64..6_000, 1u64..4_000, 0u32..4), 1..5),
    ) {
        let (sound, _) = run(&asked, &[]);
        let (same, costs) = run(&asked, &of(&faults, Impairment::Slow { percent: 100 }));
        prop_assert_eq!(&sound, &same);
        prop_assert!(costs.iter().all(|cost| *cost == Default::default()));
    }

    #[test]
    fn where_all_go_the_same_way_a_slower_link_makes_none_faster(
        starts in prop::collection::vec(0u64..6_000, 1..10),
        faults in prop::collection::vec((0u64..6_000, 1u64..4_000, 0u32..2), 1..5),
        percent in 101u32..2_000,
    ) {
        let asked: Vec<_> = starts.iter().map(|ms| (ms * S / 1000, 0, 1)).collect();
        let runs = [
            run(&asked, &[]),
            run(&asked, &of(&faults, Impairment::Slow { percent })),
            run(&asked, &of(&faults, Impairment::Slow { percent: 2 * percent })),
            run(&asked, &of(&faults, Impairment::Down)),
        ];
        for pair in runs.windows(2) {
            for (before, after) in pair[0].0.iter().zip(&pair[1].0) {
                // Shares are rounded to whole bytes per second.
                prop_assert!(*before <= after + S / 1_000_000, "{:?}", runs);
            }
        }
        for (_, costs) in &runs {
            prop_assert!(costs.iter().all(|cost| (cost.transfers > 0) == (cost.held > Span::ZERO)));
        }
    }
}

fn of(faults: &[(u64, u64, u32)], how: Impairment) -> Vec<(u64, u64, u32, Impairment)> {
    let fault =
        |&(at, lasts, worker): &(u64, u64, u32)| (at * S / 1000, lasts * S / 1000, worker, how);
    faults.iter().map(fault).collect()
}

/// No more than that holds: who waits leaves room to others. Two transfers of 1 GB to one worker share its way in and take 2 s
/// each. If one of them cannot begin for a second, the other has it alone and takes 1 s, and the first 2 s all the same.
#[test]
fn a_link_that_is_down_may_even_make_the_sum_smaller() {
    let asked = [(0, 0, 2), (0, 1, 2)];
    assert_eq!(run(&asked, &[]).0, [2 * S, 2 * S]);
    let (took, costs) = run(&asked, &[(0, S, 0, Impairment::Down)]);
    assert_eq!(took, [2 * S, S]);
    assert_eq!((costs[0].transfers, costs[0].held), (1, Span(S)));
}
