//! The end of reading: names become rows, and every row gets the earliest time at which it can be sent.
//!
//! A row that waits for nothing arrives at its own time. A row that waits arrives at the latest of its own time, if it
//! has one, and of *arrival + delay* of each row it waits for, as if requests took no time; that is a lower bound, so it
//! never holds back a row that its dependencies have released, and it is the order in which rows are shown and sorted.
//! Rows are worked off in topological order (Kahn); what is left over is a cycle.
//!
//! Times count from zero of the file. Where they come from a clock, or where even the earliest lies more than
//! [`LONGEST_NS`] after zero (an epoch, most likely), they count from the earliest row instead.

use engine::{Dependency, RequestId, Span, Time};

use super::check::excerpt;
use super::collect::{BROKEN, Collector, NO_START, On, Spot};
use crate::error::{Problems, Warning, WarningKind};
use crate::trace::Trace;

/// The longest trace: 200 days, which leaves 13 of the 213 days of simulated time for the last requests.
const LONGEST_NS: u64 = 200 * 86_400 * 1_000_000_000;

impl Collector {
    /// The trace, or all that is wrong with it.
    pub(crate) fn finish(mut self) -> Result<(Trace, Vec<Warning>), Problems> {
        self.check_times_are_there();
        let waits = self.resolve_waits();
        let origin = self.origin();
        let order = self.topological_order(&waits);
        let arrivals = self.arrivals(origin, &order, &waits);
        if self.starts.is_empty() && self.problems.is_empty() {
            let spot = Spot { line: 0, field: "" };
            self.problem(
                spot,
                "no request",
                "at least one",
                "check that this is the right file",
            );
        }
        if self.is_strict {
            self.warnings_become_problems();
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        self.builder
            .schedule(|row| Time::from_ns(arrivals[row]), &waits);
        Ok((self.builder.finish(), self.warnings))
    }

    fn check_times_are_there(&mut self) {
        let lines = std::mem::take(&mut self.lines_without_time);
        if lines.is_empty() {
            return;
        }
        if self.starts.iter().any(|&start| start != NO_START) {
            for line in lines {
                let spot = Spot {
                    line,
                    field: "timestamp",
                };
                let expected = "a time in every row that waits for no other";
                self.problem(spot, "nothing", expected, "add the time or remove the row");
            }
        } else {
            for line in lines {
                self.warn(WarningKind::NoTimestamps, line);
            }
        }
    }

    /// What rows wait for, by index, grouped by the row that waits.
    fn resolve_waits(&mut self) -> Vec<(u32, Dependency)> {
        let mut waits = std::mem::take(&mut self.waits);
        waits.sort_by_key(|wait| wait.row);
        let mut resolved: Vec<(u32, Dependency)> = Vec::with_capacity(waits.len());
        for wait in waits {
            let (on, is_needed) = match &wait.on {
                On::Row(row) => (Some(*row), true),
                On::Name(name) => (self.names.get(name).copied(), true),
                On::NameIfThere(name) => (self.names.get(name).copied(), false),
            };
            match on {
                Some(BROKEN) => {}
                Some(on) => {
                    let delay = Span::from_ns(wait.delay_ns.min(LONGEST_NS));
                    resolved.push((
                        wait.row,
                        Dependency {
                            on: RequestId(on),
                            trigger: wait.trigger,
                            delay,
                        },
                    ));
                }
                None if is_needed => self.unknown_name(wait.line, &wait.on),
                None => self.warn(WarningKind::MissingParents, wait.line),
            }
            if wait.delay_ns > LONGEST_NS {
                self.too_late(wait.line, "delay", wait.delay_ns);
            }
        }
        for group in resolved.chunk_by(|a, b| a.0 == b.0) {
            if group.len() > usize::from(u16::MAX) {
                let spot = Spot {
                    line: self.builder.line(group[0].0),
                    field: "dependencies",
                };
                let found = format!("{} dependencies", group.len());
                self.problem(
                    spot,
                    found,
                    "at most 65535 for one request",
                    "remove redundant ones",
                );
            }
        }
        resolved
    }

    fn unknown_name(&mut self, line: u32, on: &On) {
        if let On::Name(name) = on {
            let spot = Spot {
                line,
                field: "dependencies",
            };
            let found = excerpt(name.as_bytes());
            self.problem(
                spot,
                found,
                "the name of a request of this file",
                "add the request or remove the dependency",
            );
        }
    }

    /// The time of the file that is time zero of the trace.
    fn origin(&self) -> u64 {
        let earliest = self
            .starts
            .iter()
            .copied()
            .filter(|&start| start != NO_START)
            .min()
            .unwrap_or(0);
        if self.is_wall_clock || earliest > LONGEST_NS {
            earliest
        } else {
            0
        }
    }

    /// Rows such that each comes after those it waits for; empty when no row waits.
    fn topological_order(&mut self, waits: &[(u32, Dependency)]) -> Vec<u32> {
        if waits.is_empty() {
            return Vec::new();
        }
        let rows = self.starts.len();
        let mut open = vec![0u32; rows];
        let mut followers = vec![Vec::new(); rows];
        for &(row, dependency) in waits {
            open[row as usize] += 1;
            followers[dependency.on.0 as usize].push(row);
        }
        let mut order: Vec<u32> = (0..rows as u32)
            .filter(|&row| open[row as usize] == 0)
            .collect();
        let mut next = 0;
        while let Some(&row) = order.get(next) {
            next += 1;
            for &follower in &followers[row as usize] {
                open[follower as usize] -= 1;
                if open[follower as usize] == 0 {
                    order.push(follower);
                }
            }
        }
        if order.len() < rows {
            self.report_cycle(&open, waits);
        }
        order
    }

    /// Names one cycle: from any row that is left over, some row it waits for is left over too.
    fn report_cycle(&mut self, open: &[u32], waits: &[(u32, Dependency)]) {
        let before = |row: u32| {
            let from = waits.partition_point(|wait| wait.0 < row);
            let mut on = waits[from..]
                .iter()
                .take_while(|wait| wait.0 == row)
                .map(|wait| wait.1.on.0);
            on.find(|&on| open[on as usize] > 0)
                .expect("a row that is left over waits for one that is left over")
        };
        let left = open.iter().filter(|&&open| open > 0).count();
        let mut row = open
            .iter()
            .position(|&open| open > 0)
            .expect("rows are left over") as u32;
        for _ in 0..left {
            row = before(row);
        }
        let (first, mut lines) = (row, vec![self.builder.line(row)]);
        loop {
            row = before(row);
            lines.push(self.builder.line(row));
            if row == first {
                break;
            }
        }
        const SHOWN: usize = 10;
        let chain: Vec<String> = lines
            .iter()
            .take(SHOWN)
            .map(|line| format!("line {line}"))
            .collect();
        let dots = if lines.len() > SHOWN { " -> ..." } else { "" };
        let spot = Spot {
            line: lines[0],
            field: "dependencies",
        };
        let found = format!(
            "a cycle ({}{dots}; {left} rows can never be sent)",
            chain.join(" -> ")
        );
        self.problem(
            spot,
            found,
            "requests that wait only for earlier ones",
            "remove one of the dependencies",
        );
    }

    /// For every row its arrival in nanoseconds.
    fn arrivals(&mut self, origin: u64, order: &[u32], waits: &[(u32, Dependency)]) -> Vec<u64> {
        let own = |start: u64| if start == NO_START { 0 } else { start - origin };
        let mut arrivals: Vec<u64> = self.starts.iter().map(|&start| own(start)).collect();
        for &row in order {
            let from = waits.partition_point(|wait| wait.0 < row);
            for (_, dependency) in waits[from..].iter().take_while(|wait| wait.0 == row) {
                let release =
                    arrivals[dependency.on.0 as usize].saturating_add(dependency.delay.0 / 1000);
                arrivals[row as usize] = arrivals[row as usize].max(release);
            }
        }
        for (row, arrival) in arrivals.iter_mut().enumerate() {
            if *arrival > LONGEST_NS {
                self.too_late(self.builder.line(row as u32), "timestamp", *arrival);
                *arrival = LONGEST_NS;
            }
        }
        arrivals
    }

    fn too_late(&mut self, line: u32, field: &'static str, ns: u64) {
        let found = format!("{:.0} days", ns as f64 / 86_400e9);
        self.problem(
            Spot { line, field },
            found,
            "at most 200 days",
            "check the unit of the times",
        );
    }

    fn warnings_become_problems(&mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            let spot = Spot {
                line: warning.first.line,
                field: "",
            };
            self.problem(
                spot,
                warning.found(),
                warning.expected(),
                "repair the file or read it without strict checks",
            );
        }
    }
}
