//! A trace taken apart into sessions and turns.
//!
//! Public traces seldom say which requests belong together, but their contents do. A *system prompt* is a stretch of
//! prompt at which many requests part: a node of the tree of prompts with at least [`FANOUT`] branches, reached through
//! system prompts only. A request that shares at least a block more than that follows the request that used the
//! deepest shared node last. Where a trace says what a request waits for, that is the request it follows.

use engine::{NodeId, PrefixTree};

use crate::contents::Contents;
use crate::trace::Trace;

/// Branches that make a node part of a system prompt.
const FANOUT: u32 = 16;
/// The same as a share of the requests, for large traces.
const FANOUT_SHARE: f64 = 0.001;

/// Sessions and turns of a trace.
#[derive(Debug, Clone)]
pub(super) struct Anatomy {
    /// One per row.
    pub(super) turns: Vec<Turn>,
    /// Number of turns of each session.
    pub(super) session_turns: Vec<u32>,
    /// For every system prompt its tokens and its sessions.
    pub(super) system_prompts: Vec<(u32, u32)>,
}

/// A row's place in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) session: u32,
    /// The row it follows; none for the first turn.
    pub(super) follows: Option<u32>,
    /// Tokens of the system prompt.
    pub(super) system_tokens: u32,
    /// Whole blocks of the prompt that earlier prompts had.
    pub(super) shared_blocks: u32,
    /// The prompt is that of the row it follows.
    pub(super) is_repeat: bool,
}

impl Anatomy {
    pub(super) fn of(trace: &Trace) -> Anatomy {
        let contents = Contents::of(trace);
        let system = SystemNodes::of(&contents);
        let mut last_user = vec![None; contents.tree().len()];
        let mut anatomy = Anatomy {
            turns: Vec::new(),
            session_turns: Vec::new(),
            system_prompts: Vec::new(),
        };
        let mut prompt_of_node = vec![None; contents.tree().len()];
        let mut path = Vec::new();
        for (index, row) in trace.rows.iter().enumerate() {
            path.clear();
            contents.tree().path_into(contents.leaf(index), &mut path);
            let shared = path
                .iter()
                .take_while(|node| last_user[node.0 as usize].is_some())
                .count();
            let deepest = path[..shared].last().copied();
            let system_node = path.iter().rev().copied().find(|&node| system.has(node));
            let end = |node: Option<NodeId>| node.map_or(0, |node| contents.tree().end(node));
            let shared_blocks = contents.blocks_by(end(deepest));
            let shares_more = shared_blocks > contents.blocks_by(end(system_node));
            let told = trace
                .dependencies_of(row)
                .first()
                .map(|dependency| dependency.on.0);
            let follows = told.or_else(|| {
                deepest
                    .filter(|_| shares_more)
                    .and_then(|node| last_user[node.0 as usize])
            });
            let before = follows.map(|row: u32| &trace.rows[row as usize]);
            let is_repeat = before.is_some_and(|before| before.input_tokens == row.input_tokens)
                && deepest == path.last().copied();
            let turn = Turn {
                session: 0,
                follows,
                system_tokens: contents.tokens_by(end(system_node), row.input_tokens),
                shared_blocks: shared_blocks.min(row.input_tokens / trace.block_size),
                is_repeat,
            };
            if follows.is_none()
                && let Some(node) = system_node
            {
                anatomy
                    .count_system_prompt(&mut prompt_of_node[node.0 as usize], turn.system_tokens);
            }
            anatomy.add(turn);
            for node in &path {
                last_user[node.0 as usize] = Some(index as u32);
            }
        }
        anatomy
    }

    /// Adds a turn to the session of the row it follows, or to a new one.
    fn add(&mut self, mut turn: Turn) {
        turn.session = match turn.follows {
            Some(before) => self.turns[before as usize].session,
            None => self.session_turns.len() as u32,
        };
        match self.session_turns.get_mut(turn.session as usize) {
            Some(turns) => *turns += 1,
            None => self.session_turns.push(1),
        }
        self.turns.push(turn);
    }

    fn count_system_prompt(&mut self, prompt: &mut Option<usize>, tokens: u32) {
        let prompt = *prompt.get_or_insert_with(|| {
            self.system_prompts.push((tokens, 0));
            self.system_prompts.len() - 1
        });
        self.system_prompts[prompt].1 += 1;
    }

    /// Follow-ups over sessions of more than one turn; 0 where there are none.
    pub(super) fn follow_ups_per_conversation(&self) -> f64 {
        let conversations = self
            .session_turns
            .iter()
            .filter(|&&turns| turns > 1)
            .count();
        let follow_ups = self.turns.len() - self.session_turns.len();
        if conversations == 0 {
            0.0
        } else {
            follow_ups as f64 / conversations as f64
        }
    }

    /// Share of the sessions that have more than one turn.
    pub(super) fn conversation_share(&self) -> f64 {
        let conversations = self
            .session_turns
            .iter()
            .filter(|&&turns| turns > 1)
            .count();
        conversations as f64 / self.session_turns.len() as f64
    }
}

/// Which nodes belong to a system prompt.
struct SystemNodes {
    is_system: Vec<bool>,
}

impl SystemNodes {
    fn of(contents: &Contents) -> SystemNodes {
        let tree = contents.tree();
        let mut branches = vec![0u32; tree.len()];
        for node in (1..tree.len() as u32).map(NodeId) {
            branches[tree.parent(node).0 as usize] += 1;
        }
        let enough = FANOUT.max((FANOUT_SHARE * contents.len() as f64) as u32);
        let parts = |node: NodeId| branches[node.0 as usize] >= enough;
        // A split gives the upper half the higher number, so parents are not always numbered before their children.
        let is_system = (0..tree.len() as u32).map(NodeId).map(|leaf| {
            let mut node = leaf;
            while node != PrefixTree::ROOT && parts(node) {
                node = tree.parent(node);
            }
            leaf != PrefixTree::ROOT && node == PrefixTree::ROOT
        });
        SystemNodes {
            is_system: is_system.collect(),
        }
    }

    fn has(&self, node: NodeId) -> bool {
        self.is_system[node.0 as usize]
    }
}
