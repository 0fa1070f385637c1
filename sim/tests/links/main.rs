//! Links: hand-computed cases of max-min fair sharing, and random ones against a fluid simulation that knows no
//! shortcuts and counts in floats.

mod changing;
mod fluid;

use engine::{Span, Time};
use fluid::{Fluid, naive};
use proptest::prelude::*;
use sim::links::{Fabric, FlowId, LinkId, NewFlow, Transport};

pub(crate) const GB: u64 = 1_000_000_000;
pub(crate) const S: u64 = 1_000_000_000_000;

pub(crate) fn start(
    fabric: &mut Fabric,
    now: Time,
    tag: u32,
    path: &[LinkId],
    bytes: u64,
) -> FlowId {
    fabric.start(
        now,
        NewFlow {
            tag,
            path,
            bytes,
            delay: Span::ZERO,
        },
    )
}

/// Runs to the end: who ended when, in order.
pub(crate) fn ends(fabric: &mut Fabric) -> Vec<(u32, u64)> {
    let mut all = Vec::new();
    let mut ended = Vec::new();
    while let Some(now) = fabric.next_event() {
        fabric.advance(now, &mut ended);
        all.extend(ended.drain(..).map(|tag| (tag, now.0)));
    }
    all
}

#[test]
fn one_flow_takes_its_delay_and_bytes_over_rate() {
    let mut fabric = Fabric::default();
    let link = fabric.add_link(2 * GB);
    let new = NewFlow {
        tag: 7,
        path: &[link],
        bytes: 3 * GB,
        delay: Span::from_ms(1.0),
    };
    fabric.start(Time(5), new);
    // 1 ms and 3 GB / 2 GB/s = 1.5 s.
    assert_eq!(ends(&mut fabric), [(7, 5 + S / 1000 + 3 * S / 2)]);
    let record = fabric.record(link);
    assert_eq!((record.bytes, record.busy), (3 * GB, Span(3 * S / 2)));
}

#[test]
fn flows_that_come_and_go_share_a_link() {
    let mut fabric = Fabric::default();
    let link = fabric.add_link(GB);
    let mut ended = Vec::new();
    let a = start(&mut fabric, Time::ZERO, 0, &[link], GB);
    fabric.advance(Time::ZERO, &mut ended);
    assert_eq!(fabric.rate(a), GB);
    // After 0.5 s half of it is left; a second flow of 0.25 GB halves the rate.
    start(&mut fabric, Time(S / 2), 1, &[link], GB / 4);
    fabric.advance(Time(S / 2), &mut ended);
    assert_eq!(fabric.rate(a), GB / 2);
    // The second needs 0.5 s at half the rate, in which the first moves 0.25 GB; 0.25 GB at full rate are left.
    assert_eq!(ends(&mut fabric), [(1, S), (0, S + S / 4)]);
}

#[test]
fn max_min_fairness_in_the_textbook_case() {
    // Three flows: A over both links, B over the first (1 GB/s), C over the second (2 GB/s). The first link is full at
    // 0.5 GB/s each; C takes what A leaves of the second: 1.5 GB/s.
    let mut fabric = Fabric::default();
    let (first, second) = (fabric.add_link(GB), fabric.add_link(2 * GB));
    let a = start(&mut fabric, Time::ZERO, 0, &[first, second], GB);
    let b = start(&mut fabric, Time::ZERO, 1, &[first], GB);
    let c = start(&mut fabric, Time::ZERO, 2, &[second], 3 * GB);
    fabric.advance(Time::ZERO, &mut Vec::new());
    assert_eq!(
        [a, b, c].map(|flow| fabric.rate(flow)),
        [GB / 2, GB / 2, 3 * GB / 2]
    );
    // All of them end after 2 s.
    assert_eq!(ends(&mut fabric), [(0, 2 * S), (1, 2 * S), (2, 2 * S)]);
}

#[test]
fn a_cancelled_flow_leaves_its_share_to_the_others() {
    let mut fabric = Fabric::default();
    let link = fabric.add_link(GB);
    let a = start(&mut fabric, Time::ZERO, 0, &[link], GB);
    start(&mut fabric, Time::ZERO, 1, &[link], GB);
    fabric.advance(Time::ZERO, &mut Vec::new());
    // Each has half of its gigabyte after 1 s; the one left over has 0.5 GB to go at full rate.
    fabric.cancel(Time(S), a);
    assert_eq!(ends(&mut fabric), [(1, S + S / 2)]);
    assert_eq!(fabric.record(link).bytes, GB);
    assert_eq!(fabric.under_way(), 0);
}

#[test]
fn flows_that_share_nothing_do_not_touch_each_other() {
    let mut fabric = Fabric::default();
    let (one, two) = (fabric.add_link(GB), fabric.add_link(GB));
    let a = start(&mut fabric, Time::ZERO, 0, &[one], GB);
    for tag in 1..4 {
        start(&mut fabric, Time::ZERO, tag, &[two], GB);
    }
    fabric.advance(Time::ZERO, &mut Vec::new());
    assert_eq!(fabric.rate(a), GB);
    assert_eq!(
        ends(&mut fabric),
        [
            (0, S),
            (1, 3 * S + 3_001),
            (2, 3 * S + 3_001),
            (3, 3 * S + 3_001)
        ],
        "a third of a gigabyte per second is rounded down to 333,333,333 bytes, so 3 s take 3 ns more"
    );
}

#[test]
fn presets_are_ordered_as_their_sources_say() {
    let rate = |transport: Transport| transport.preset().bytes_per_s;
    let ranked = [
        Transport::NvLink,
        Transport::Pcie,
        Transport::InfinibandNdr,
        Transport::InfinibandHdr,
        Transport::Roce,
        Transport::Efa,
        Transport::Tcp,
        Transport::TcpFallback,
    ];
    assert!(ranked.windows(2).all(|pair| rate(pair[0]) > rate(pair[1])));
    // 400 Gb/s, not 400 GB/s.
    assert_eq!(rate(Transport::InfinibandNdr), 400 * GB / 8);
    let names: std::collections::BTreeSet<_> = Transport::ALL.map(|it| it.preset().name).into();
    assert_eq!(names.len(), Transport::ALL.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flows_end_when_the_naive_fluid_simulation_says(
        capacity in prop::collection::vec(1u64..100, 1..6),
        asked in prop::collection::vec((0u64..2_000, prop::collection::btree_set(0usize..6, 1..5), 1u64..500), 1..24),
    ) {
        // Capacities in 0.1 GB/s, starts in ms, sizes in MB.
        let mut fabric = Fabric::default();
        let links: Vec<LinkId> = capacity.iter().map(|tenths| fabric.add_link(tenths * GB / 10)).collect();
        let mut fluids = Vec::new();
        let mut news = Vec::new();
        for (tag, (start_ms, path, megabytes)) in asked.iter().enumerate() {
            let mut path: Vec<usize> = path.iter().map(|link| link % capacity.len()).collect();
            path.sort_unstable();
            path.dedup();
            news.push((*start_ms, tag as u32, path.iter().map(|&link| links[link]).collect::<Vec<_>>(), megabytes * 1_000_000));
            fluids.push(Fluid { starts_s: *start_ms as f64 / 1e3, path, left: *megabytes as f64 * 1e6, ended_s: None, held_s: 0.0 });
        }
        naive(&capacity.iter().map(|tenths| *tenths as f64 * 1e8).collect::<Vec<_>>(), &[], &mut fluids);
        // Half of them are started in time, half ahead of it with a delay: both must end alike.
        news.sort();
        let mut found = vec![None; asked.len()];
        let mut ended = Vec::new();
        let mut pending = news.iter().peekable();
        loop {
            let next_start = pending.peek().map(|new| Time(new.0 * S / 1000));
            let next = fabric.next_event();
            let now = match (next_start, next) {
                (None, None) => break,
                (Some(a), Some(b)) => a.min(b),
                (Some(a), None) | (None, Some(a)) => a,
            };
            fabric.advance(now, &mut ended);
            for tag in ended.drain(..) {
                prop_assert!(found[tag as usize].is_none());
                found[tag as usize] = Some(now);
            }
            while let Some((start_ms, tag, path, bytes)) = pending.peek() {
                let due = Time(start_ms * S / 1000);
                // Every other one waits for its turn as a delay of at most 3 ms.
                let early = if tag % 2 == 0 { Span(3 * S / 1000).min(Span(due.0)) } else { Span::ZERO };
                if due.0 - early.0 > now.0 {
                    break;
                }
                let delay = due.since(now);
                fabric.start(now, NewFlow { tag: *tag, path, bytes: *bytes, delay });
                pending.next();
            }
        }
        for (fluid, found) in fluids.iter().zip(&found) {
            let found = found.expect("every flow ends").as_s();
            let expected = fluid.ended_s.expect("every flow ends");
            prop_assert!((found - expected).abs() < 1e-5, "{} and {}: {:?}", found, expected, fluid);
        }
    }
}

#[test]
fn a_source_is_a_link_of_ones_own() {
    // Three flows over a link of 90 bytes/s; the first has a source of 10: the others get 40 each. With a link of 10 of its own
    // it is the same. When the source is taken away all have 30.
    let mut fabric = Fabric::default();
    let [shared, own] = [90, 10].map(|rate| fabric.add_link(rate));
    let start = |fabric: &mut Fabric, path: &[LinkId], source| {
        let flow = NewFlow {
            tag: 0,
            path,
            bytes: 1_000_000,
            delay: Span::ZERO,
        };
        fabric.start_from(Time::ZERO, flow, source)
    };
    let first = start(&mut fabric, &[shared], Some(10));
    let others = [(); 2].map(|()| start(&mut fabric, &[shared], None));
    fabric.advance(Time::ZERO, &mut Vec::new());
    let rates = |fabric: &Fabric| [first, others[0], others[1]].map(|flow| fabric.rate(flow));
    assert_eq!(rates(&fabric), [10, 40, 40]);
    fabric.unbind(Time::from_ns(1), first);
    assert_eq!(rates(&fabric), [30, 30, 30]);
    fabric.cancel(Time::from_ns(2), first);
    let linked = start(&mut fabric, &[own, shared], None);
    fabric.advance(Time::from_ns(2), &mut Vec::new());
    assert_eq!(fabric.rate(linked), 10);
    assert_eq!(fabric.rate(others[0]), 40);
}
