//! Qwen-Bailian: JSONL with `chat_id`, `parent_chat_id` (-1 for the first turn), `timestamp` (s), `input_length`,
//! `output_length`, `type`, `turn`, `hash_ids` (blocks of 16 tokens).
//!
//! Every row is a whole request. A later turn is sent at its own time, but not before the answer of its parent is
//! there: the recorded time already contains the user's thinking and the original service time. A parent outside the
//! file is not waited for (one warning). Rows of one chain share a session; where a parent stands *behind* its child in
//! the file, the chain may get two.

use engine::Trigger;
use rustc_hash::FxHashMap;

use super::RowReader;
use super::collect::{BROKEN, Collector, Draft, On, Spot};
use super::fields::Fields;
use super::number::Unit;
use crate::trace::NewContent;

/// Reads Qwen-Bailian.
#[derive(Default)]
pub(super) struct Bailian {
    /// The first turn of the chain a chat belongs to.
    roots: FxHashMap<Box<str>, u64>,
    hashes: Vec<u64>,
}

impl Bailian {
    /// A number for the chain of `chat`.
    fn session(&mut self, sink: &mut Collector, chat: &str, parent: Option<&str>) -> u64 {
        let root = match parent {
            Some(parent) => self
                .roots
                .get(parent)
                .copied()
                .unwrap_or_else(|| sink.session(parent)),
            None => sink.session(chat),
        };
        self.roots.insert(chat.into(), root);
        root
    }
}

impl RowReader for Bailian {
    fn line(&mut self, sink: &mut Collector, bytes: &[u8], line: u32) {
        let Some(mut fields) = Fields::parse(sink, bytes, line) else {
            return;
        };
        let chat = fields.name_needed(&["chat_id"]);
        let parent = fields
            .name(&["parent_chat_id"])
            .filter(|parent| parent != "-1");
        let start_ns = fields.nanoseconds(&["timestamp"], Unit::Seconds);
        let (input_tokens, has_hashes) =
            fields.prompt(&["input_length"], &["hash_ids"], &mut self.hashes);
        let output_tokens = fields.tokens_needed(&["output_length"]);
        fields.pass_over(&["type", "turn"]);
        let is_good = fields.finish();
        let Some(chat) = chat else { return };
        let mut row = BROKEN;
        if let (true, Some(input_tokens), Some(output_tokens)) =
            (is_good, input_tokens, output_tokens)
            && sink.fits(line, u64::from(input_tokens), u64::from(output_tokens))
        {
            if start_ns.is_none() && parent.is_none() {
                sink.has_no_time(line);
            }
            let session = self.session(sink, &chat, parent.as_deref());
            let content = if has_hashes {
                NewContent::Blocks(&self.hashes)
            } else {
                NewContent::Private
            };
            let draft = Draft {
                line,
                start_ns,
                input_tokens,
                output_tokens,
                own_tokens: input_tokens,
                content,
                extends: None,
                priority: 0,
                session: Some(session),
            };
            row = sink.push(&draft).unwrap_or(BROKEN);
            if let (Some(parent), true) = (parent, row != BROKEN) {
                sink.wait(
                    row,
                    line,
                    On::NameIfThere(parent.into()),
                    Trigger::Completion,
                    0,
                );
            }
        }
        sink.name(
            Spot {
                line,
                field: "chat_id",
            },
            &chat,
            row,
        );
    }
}
