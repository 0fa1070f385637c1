//! Which tokens a request consists of: its prompt as the workload names it, then what the model answered.
//!
//! Contents that a workload knows by name only (blocks of a trace, private parts) become tokens by a hash of the name, so
//! that equal blocks have equal tokens and a prefix hit is a real one. A prompt that quotes an earlier answer gets the
//! tokens that were sampled, on whichever worker: the workers of a run share one [`Tokens`].

use crate::random::Counter;
use engine::executor::Row;
use engine::{Contents, ExecutorError, RequestId, TokenSource};
use std::sync::{Mutex, PoisonError};

/// The tokens of all requests of a run.
#[derive(Debug)]
pub struct Tokens {
    contents: Contents,
    /// By request: tokens of its prompt.
    lengths: Vec<u32>,
    vocab: u32,
    names: Counter,
    answers: Mutex<Vec<Vec<u32>>>,
}

impl Tokens {
    /// Prompts of `contents` in the vocabulary of a model; names become tokens by `seed`.
    #[must_use]
    pub fn new(contents: Contents, vocab: usize, seed: u64) -> Tokens {
        let requests = contents.len() as u32;
        let length = |id: u32| {
            contents
                .prompt(RequestId(id))
                .iter()
                .map(|run| run.len)
                .sum()
        };
        Tokens {
            lengths: (0..requests).map(length).collect(),
            answers: Mutex::new(vec![Vec::new(); contents.len()]),
            contents,
            vocab: vocab as u32,
            names: Counter::new(seed, "tokens of named contents"),
        }
    }

    /// Appends the tokens that a row computes.
    ///
    /// # Errors
    /// The prompt quotes an answer that nobody has given yet.
    pub fn append_inputs(&self, row: &Row, inputs: &mut Vec<u32>) -> Result<(), ExecutorError> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let length = self.lengths[row.request.0 as usize];
        let (from, to) = (row.computed_before, row.computed_before + row.new_tokens);
        let mut at = 0;
        for &run in self.contents.prompt(row.request) {
            if at >= to {
                break;
            }
            let skipped = from.saturating_sub(at).min(run.len);
            let taken = (to - at).min(run.len).saturating_sub(skipped);
            let tokens = Contents::tokens(run).skip(skipped as usize);
            for source in tokens.take(taken as usize) {
                inputs.push(self.token(source, &answers, row.request)?);
            }
            at += run.len;
        }
        let own = &answers[row.request.0 as usize];
        for position in from.max(length)..to {
            let offset = (position - length) as usize;
            let token = own
                .get(offset)
                .expect("a token is computed after it was sampled");
            inputs.push(*token);
        }
        Ok(())
    }

    /// Notes the token that was sampled at the end of a row.
    pub fn note(&self, row: &Row, token: u32) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let index = row.request.0 as usize;
        let sampled = row.computed_before + row.new_tokens - self.lengths[index];
        assert!(
            answers[index].len() == sampled as usize,
            "the tokens of an answer are sampled one after the other"
        );
        answers[index].push(token);
    }

    /// What was answered so far, by request.
    #[must_use]
    pub fn answers(&self) -> Vec<Vec<u32>> {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    // Model: ids beyond the model's vocabulary (another tokenizer made the trace) are taken for names. No effect on time.
    fn token(
        &self,
        source: TokenSource,
        answers: &[Vec<u32>],
        asks: RequestId,
    ) -> Result<u32, ExecutorError> {
        match source {
            TokenSource::Vocabulary(token) if token < self.vocab => Ok(token),
            TokenSource::Vocabulary(token) => Ok(self.named(u64::from(token))),
            TokenSource::Named(id) => Ok(self.named(id)),
            TokenSource::Answer { request, offset } => {
                let answer = answers[request.0 as usize].get(offset as usize);
                answer.copied().ok_or_else(|| {
                    ExecutorError(format!(
                        "request {} quotes token {offset} of the answer to request {}, which is not there yet: turns of a \
                         session must wait for the answers they quote",
                        asks.0, request.0
                    ))
                })
            }
        }
    }

    fn named(&self, id: u64) -> u32 {
        (self.names.bits(id) % u64::from(self.vocab)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Run, WorkloadBuilder};

    fn row(request: u32, computed_before: u32, new_tokens: u32) -> Row {
        Row {
            request: RequestId(request),
            new_tokens,
            computed_before,
            samples: true,
            blocks: Vec::new(),
        }
    }

    fn inputs(tokens: &Tokens, row: &Row) -> Result<Vec<u32>, ExecutorError> {
        let mut inputs = Vec::new();
        tokens.append_inputs(row, &mut inputs).map(|()| inputs)
    }

    #[test]
    fn equal_blocks_have_equal_tokens_and_quotes_are_what_was_said() {
        let run = |first, len| Run { first, len };
        let block = run(WorkloadBuilder::block_token(3, 0), 6);
        let word = run(WorkloadBuilder::vocabulary_token(41), 1);
        let mut contents = Contents::new();
        contents.push(&[block, word]);
        let quote = run(WorkloadBuilder::output_token(0, 0), 2);
        contents.push(&[
            block,
            word,
            quote,
            run(WorkloadBuilder::private_token(1, 0), 3),
        ]);
        let tokens = Tokens::new(contents, 100, 1);

        let first = inputs(&tokens, &row(0, 0, 7)).expect("all there");
        assert_eq!((first.len(), first[6]), (7, 41));
        assert!(first.iter().all(|token| *token < 100));
        assert_eq!(inputs(&tokens, &row(1, 0, 7)), Ok(first.clone()));
        assert_eq!(inputs(&tokens, &row(1, 4, 2)), Ok(first[4..6].to_vec()));
        let error = inputs(&tokens, &row(1, 5, 4)).expect_err("not answered yet");
        assert!(
            error
                .0
                .contains("quotes token 0 of the answer to request 0"),
            "{error}"
        );

        tokens.note(&row(0, 0, 7), 12);
        tokens.note(&row(0, 7, 1), 13);
        assert_eq!(inputs(&tokens, &row(0, 6, 3)), Ok(vec![41, 12, 13]));
        assert_eq!(inputs(&tokens, &row(1, 6, 3)), Ok(vec![41, 12, 13]));
        assert_eq!(tokens.answers(), [vec![12, 13], vec![]]);
    }
}
