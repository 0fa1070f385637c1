//! Rows of a run as tables: one per request, one per window of time.

use crate::table::{Cell, Table};
use engine::Time;
use sim::scaling::DecisionSummary;
use sim::{Outcome, Recording, RequestRecord, Series};

/// What one request went through, in the order of the workload. Times are milliseconds since the start of the run;
/// what did not happen is empty.
#[must_use]
pub fn requests(recording: &Recording, pool_names: &[String]) -> Table {
    let columns = [
        "request",
        "outcome",
        "rejection",
        "is_warmup",
        "worker",
        "pool",
        "arrival_ms",
        "placed_ms",
        "first_scheduled_ms",
        "first_token_ms",
        "finish_ms",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "router_overlap_tokens",
        "preemptions",
        "queue_ms",
        "ttft_ms",
        "tpot_ms",
        "e2e_ms",
    ];
    let mut table = Table::new(columns.map(str::to_owned).to_vec());
    for (index, request) in recording.sent() {
        let worker = Some(request.worker).filter(|&worker| worker != u32::MAX);
        let pool = worker
            .map(|worker| pool_names[recording.workers[worker as usize].pool as usize].as_str());
        let (outcome, rejection) = outcome(request.outcome);
        table.push(vec![
            (index as u64).into(),
            outcome.into(),
            rejection.into(),
            request.is_warmup.into(),
            worker.into(),
            pool.into(),
            moment(request.arrival),
            moment(request.placed),
            moment(request.first_scheduled),
            moment(request.first_token),
            moment(request.finish),
            request.input_tokens.into(),
            request.output_tokens.into(),
            request.cached_tokens.into(),
            request.router_overlap_tokens.into(),
            request.preemptions.into(),
            duration(request.arrival, request.first_scheduled).into(),
            duration(request.arrival, request.first_token).into(),
            tpot_ms(request).into(),
            e2e_ms(request).into(),
        ]);
    }
    table
}

/// The stable name of an outcome and, for a rejected or failed request, of the reason.
pub(crate) fn outcome(outcome: Outcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::Completed => ("completed", None),
        Outcome::Unfinished => ("unfinished", None),
        Outcome::Rejected(reason) => ("rejected", Some(reason.name())),
        Outcome::Cancelled => ("cancelled", None),
        Outcome::Failed(reason) => ("failed", Some(reason.name())),
    }
}

fn moment(time: Time) -> Cell {
    if time == Time::MAX {
        Cell::Empty
    } else {
        time.as_ms().into()
    }
}

/// Milliseconds between two moments that both came to pass.
pub(crate) fn duration(from: Time, until: Time) -> Option<f64> {
    (from != Time::MAX && until != Time::MAX).then(|| until.since(from).as_ms())
}

/// E2E of a completed request.
pub(crate) fn e2e_ms(request: &RequestRecord) -> Option<f64> {
    duration(request.arrival, request.finish).filter(|_| request.outcome == Outcome::Completed)
}

/// TPOT of a completed request with two tokens or more.
pub(crate) fn tpot_ms(request: &RequestRecord) -> Option<f64> {
    let is_defined = request.outcome == Outcome::Completed && request.output_tokens > 1;
    let decode = duration(request.first_token, request.finish).filter(|_| is_defined)?;
    Some(decode / f64::from(request.output_tokens - 1))
}

/// The decisions of a planner that changed something, in order: when, why, workers before and after by role, and what it expected.
#[must_use]
pub fn decisions(decisions: &[DecisionSummary]) -> Table {
    let columns = [
        "time_s",
        "reason",
        "prefill_from",
        "prefill_ready",
        "prefill_to",
        "decode_from",
        "decode_ready",
        "decode_to",
        "estimated_ttft_ms",
        "estimated_itl_ms",
        "predicted_requests",
    ];
    let mut table = Table::new(columns.map(str::to_owned).to_vec());
    for decision in decisions {
        let mut row: Vec<Cell> = vec![decision.time_s.into(), decision.reason.into()];
        for change in [decision.prefill, decision.decode] {
            row.extend([
                change.map(|change| change.from).into(),
                change.map(|change| change.ready).into(),
                change.map(|change| change.to).into(),
            ]);
        }
        row.extend([
            decision.estimated_ttft_ms.into(),
            decision.estimated_itl_ms.into(),
            decision.predicted_requests.into(),
        ]);
        table.push(row);
    }
    table
}

/// A time series, one row per window; the columns are the fields of [`sim::Window`], with a planner those of
/// [`sim::scaling::Replicas`] as well.
#[must_use]
pub fn windows(series: &Series) -> Table {
    let columns = [
        "start_s",
        "arrivals",
        "completions",
        "rejections",
        "given_up",
        "queued",
        "running",
        "ttft_mean_ms",
        "ttft_p90_ms",
        "tpot_mean_ms",
        "tpot_p90_ms",
        "output_tokens_per_s",
    ];
    let mut columns = columns.map(str::to_owned).to_vec();
    if !series.replicas.is_empty() {
        let states = [
            "workers_starting",
            "workers_spare",
            "workers_ready",
            "workers_draining",
        ];
        columns.extend(states.map(str::to_owned));
    }
    let mut table = Table::new(columns);
    for (index, window) in series.windows.iter().enumerate() {
        let mut row: Vec<Cell> = vec![
            window.start_s.into(),
            window.arrivals.into(),
            window.completions.into(),
            window.rejections.into(),
            window.given_up.into(),
            window.queued.into(),
            window.running.into(),
            window.ttft_mean_ms.into(),
            window.ttft_p90_ms.into(),
            window.tpot_mean_ms.into(),
            window.tpot_p90_ms.into(),
            window.output_tokens_per_s.into(),
        ];
        if let Some(workers) = series.replicas.get(index) {
            let states = [
                workers.starting,
                workers.spare,
                workers.ready,
                workers.draining,
            ];
            row.extend(states.map(Cell::from));
        }
        table.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use engine::Span;
    use sim::scaling::ChangeSummary;

    #[test]
    fn requests_as_csv_by_the_letter() {
        let mut out = Vec::new();
        requests(&sample::recording(), &sample::pools())
            .csv(&mut out)
            .unwrap();
        let expected = "\
request,outcome,rejection,is_warmup,worker,pool,arrival_ms,placed_ms,first_scheduled_ms,first_token_ms,finish_ms,\
input_tokens,output_tokens,cached_tokens,router_overlap_tokens,preemptions,queue_ms,ttft_ms,tpot_ms,e2e_ms
0,completed,,false,0,main,0,0,10,110,510,100,5,0,0,0,10,110,100,510
1,completed,,false,1,main,200,200,400,500,900,64,3,32,48,1,200,300,200,700
2,rejected,prompt_exceeds_kv_cache,false,,,300,,,,300,9000,0,0,0,0,,,,
3,unfinished,,false,0,main,800.5,800.5,810.5,1000,,50,1,0,0,0,10,199.5,,
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn decisions_as_csv_by_the_letter() {
        let change = |from, ready, to| Some(ChangeSummary { from, ready, to });
        let decision = DecisionSummary {
            time_s: 10.0,
            reason: "scale_up",
            prefill: None,
            decode: change(3, 2, 4),
            estimated_ttft_ms: Some(812.5),
            estimated_itl_ms: None,
            predicted_requests: None,
        };
        let mut out = Vec::new();
        decisions(&[decision]).csv(&mut out).unwrap();
        let expected = "\
time_s,reason,prefill_from,prefill_ready,prefill_to,decode_from,decode_ready,decode_to,estimated_ttft_ms,estimated_itl_ms,\
predicted_requests
10,scale_up,,,,3,2,4,812.5,,
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn windows_as_csv_by_the_letter() {
        let mut out = Vec::new();
        windows(&sim::series(&sample::recording(), Span::from_ms(500.0)))
            .csv(&mut out)
            .unwrap();
        // Windows of 0.5 s; the run ends at 1 s, which opens a third. Queued: 10 + 200 ms, then 10 ms. Running in the
        // first: 490 + 100 ms, in the second 10 + 400 + 189.5 ms. Tokens: 1 at 110 and 4 more by 510, of which
        // 390 * 4 / 400 = 3 by 500; request 1 has its first at 500 and two more by 900; request 3 its only one at 1000.
        let expected = "\
start_s,arrivals,completions,rejections,given_up,queued,running,ttft_mean_ms,ttft_p90_ms,tpot_mean_ms,tpot_p90_ms,output_tokens_per_s
0,3,0,1,0,0.42,1.18,205,300,150,200,8
0.5,1,2,0,0,0.02,1.199,199.5,199.5,0,0,8
1,0,0,0,0,0,0,0,0,0,0,2
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
