//! Speculative prefill: what the front end sends itself when an answer ends, so that the next turn finds it in the cache.
//!
//! A request that asks for it (`agent_hints.speculative_prefill` of Dynamo's extensions) is followed, when its answer ends, by
//! one of the front end's own: the prompt and the answer as the next turn's prompt, and one token of output. Whether there is
//! a next turn, and how it goes on, nobody knows then; what was sent for nothing has cost its prefill.
//!
//! The front end writes the conversation down as the client will, so what it sends is the beginning of the next prompt as far
//! as that is a continuation: a prompt that begins with all whole blocks of the one before. Of such a prompt it sends as
//! many tokens as prompt and answer have. After any other prompt, or the last, it sends a text that nobody asks for again.
//! Source: Dynamo's reference of `nvext`, agent hints.

// Model: rendered anew, prompt and answer have as many tokens as before; templates add a few. Where a client drops part of an
// answer (thinking), the next prompt is shorter than both; what is sent ends with it, so that no user's text is guessed but up to
// as many tokens as were dropped are computed ahead that nobody could know: an overestimate by the new text of such turns.

use crate::trace::Trace;
use engine::{Run, Trigger, WorkloadBuilder};

/// An answer after which something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The row.
    pub of: u32,
    /// The row of the next turn, if there is one.
    pub next: Option<u32>,
}

/// Scratch space.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub turns: Vec<u32>,
    next: Vec<Run>,
}

impl Trace {
    /// After which answers something is sent ahead, in order.
    pub(crate) fn sent_ahead(&self) -> Vec<Sent> {
        let asks = |row: usize| {
            let said = self.annotations_of(row);
            said.is_some_and(|said| said.speculative_prefill)
        };
        let asking: Vec<usize> = match self.annotations.is_empty() {
            true => Vec::new(),
            false => (0..self.rows.len()).filter(|&row| asks(row)).collect(),
        };
        if asking.is_empty() {
            return Vec::new();
        }
        let next = self.next_turns();
        let sent = asking.into_iter().map(|row| Sent {
            of: row as u32,
            next: next[row],
        });
        sent.collect()
    }

    /// By row, the first later one of its session that waits for its answer or extends it.
    fn next_turns(&self) -> Vec<Option<u32>> {
        let mut next = vec![None; self.rows.len()];
        for (index, row) in (0..).zip(&self.rows) {
            let waits = self.dependencies_of(row).iter();
            let answers = waits.filter(|dependency| dependency.trigger == Trigger::Completion);
            let before = answers.map(|dependency| dependency.on.0).chain(row.extends);
            for before in before {
                let turn = &self.rows[before as usize];
                if turn.session == row.session {
                    next[before as usize].get_or_insert(index);
                }
            }
        }
        next
    }

    /// Replaces `runs` by what is sent.
    pub(crate) fn ahead_into(&self, sent: Sent, scratch: &mut Scratch, runs: &mut Vec<Run>) {
        let row = self.rows[sent.of as usize];
        self.prompt_into(sent.of, &mut scratch.turns, runs);
        if let Some(next) = sent.next {
            self.prompt_into(next, &mut scratch.turns, &mut scratch.next);
            let whole = row.input_tokens - row.input_tokens % self.block_size;
            if common_tokens(runs, &scratch.next) >= whole {
                std::mem::swap(runs, &mut scratch.next);
                return shorten(runs, row.input_tokens + row.output_tokens);
            }
        }
        runs.push(Run {
            first: WorkloadBuilder::output_token(sent.of, 0),
            len: row.output_tokens,
        });
    }
}

/// With how many equal tokens both begin.
fn common_tokens(a: &[Run], b: &[Run]) -> u32 {
    let tokens = |runs: &[Run]| runs.iter().map(|run| run.len).sum::<u32>();
    let (mut common, least) = (0, tokens(a).min(tokens(b)));
    // Tokens of the runs in front that are behind us.
    let (mut a, mut b, mut of_a, mut of_b) = (a.iter(), b.iter(), 0, 0);
    let (mut left, mut right) = (a.next(), b.next());
    while let (Some(one), Some(other)) = (left, right)
        && one.first + u64::from(of_a) == other.first + u64::from(of_b)
    {
        let len = (one.len - of_a).min(other.len - of_b);
        common += len;
        (of_a, of_b) = (of_a + len, of_b + len);
        if of_a == one.len {
            (left, of_a) = (a.next(), 0);
        }
        if of_b == other.len {
            (right, of_b) = (b.next(), 0);
        }
    }
    debug_assert!(common <= least, "no more than there is");
    common
}

/// Leaves the first `most` tokens.
fn shorten(runs: &mut Vec<Run>, most: u32) {
    let mut left = most;
    for run in runs.iter_mut() {
        run.len = run.len.min(left);
        left -= run.len;
    }
    runs.retain(|run| run.len > 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{NewContent, NewRow, TraceBuilder};
    use engine::{Annotations, Dependency, RequestId, Span, Time};

    /// Turns of one session, each with prompt tokens and blocks of 16; answers of 20 tokens.
    fn trace(turns: &[(u32, &[u64])]) -> Trace {
        let mut builder = TraceBuilder::new(16);
        for (index, &(input, blocks)) in (0u32..).zip(turns) {
            let before = index.checked_sub(1).map(|before| Dependency {
                on: RequestId(before),
                trigger: Trigger::Completion,
                delay: Span::from_ns(5),
            });
            let content = NewContent::Blocks(blocks);
            builder.push(NewRow {
                session: Some(7),
                dependencies: before.as_slice(),
                ..NewRow::alone(Time::from_ns(u64::from(index)), input, 20, content)
            });
            builder.annotate(&Annotations {
                speculative_prefill: true,
                ..Annotations::default()
            });
        }
        builder.finish()
    }

    fn block(number: u32, len: u32) -> Run {
        Run {
            first: WorkloadBuilder::block_token(number, 0),
            len,
        }
    }

    #[test]
    fn what_is_known_of_the_next_prompt_is_sent() {
        // 40 tokens and an answer of 20; then 70, of which the first two blocks are the same; then a text without them.
        let trace = trace(&[(40, &[1, 2, 3]), (70, &[1, 2, 4, 5, 6]), (33, &[1, 8, 9])]);
        let sent = trace.sent_ahead();
        let next: Vec<_> = sent.iter().map(|sent| (sent.of, sent.next)).collect();
        assert_eq!(next, [(0, Some(1)), (1, Some(2)), (2, None)]);
        let (mut scratch, mut runs) = (Scratch::default(), Vec::new());
        // Blocks have the numbers of their first appearance: 1 2 3 4 5 6 8 9.
        trace.ahead_into(sent[0], &mut scratch, &mut runs);
        assert_eq!(
            runs,
            [block(0, 16), block(1, 16), block(3, 16), block(4, 12)]
        );
        let answer = |row| Run {
            first: WorkloadBuilder::output_token(row, 0),
            len: 20,
        };
        trace.ahead_into(sent[1], &mut scratch, &mut runs);
        assert_eq!((runs.len(), runs[4], runs[5]), (6, block(5, 6), answer(1)));
        trace.ahead_into(sent[2], &mut scratch, &mut runs);
        assert_eq!(runs, [block(0, 16), block(6, 16), block(7, 1), answer(2)]);
        // A client that drops thinking: no more than the next prompt has.
        let shorter = self::trace(&[(40, &[1, 2, 3]), (50, &[1, 2, 3, 4])]);
        shorter.ahead_into(shorter.sent_ahead()[0], &mut scratch, &mut runs);
        assert_eq!(runs.iter().map(|run| run.len).sum::<u32>(), 50);
    }

    #[test]
    fn they_stand_behind_the_requests_of_clients() {
        let trace = trace(&[(40, &[1, 2, 3]), (70, &[1, 2, 4, 5, 6])]);
        let workload = trace.workload();
        assert_eq!((workload.of_clients(), workload.requests.len()), (2, 4));
        let [first, second] = [2, 3].map(RequestId);
        assert_eq!(workload.ahead_of(RequestId(1)), None);
        let ahead = workload.ahead_of(first).unwrap();
        assert_eq!((ahead.of, ahead.next), (RequestId(0), Some(RequestId(1))));
        assert_eq!(workload.ahead_of(second).unwrap().next, None);
        let request = workload.requests[2];
        assert_eq!((request.input_tokens, request.output_tokens), (60, 1));
        let [waits] = workload.dependencies_of(&request) else {
            panic!("it waits for the answer alone")
        };
        assert_eq!((waits.on, waits.delay), (RequestId(0), Span::ZERO));
        assert_eq!(workload.annotations_of(first), None);
        assert_eq!(workload.without_ahead().requests.len(), 2);
        assert_eq!(trace.contents().len(), 4);
    }
}
