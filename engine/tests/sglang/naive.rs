//! SGLang's scheduler once more, as naive as possible: rules S1–S12 on lists of single tokens. No coasting, no places, no
//! ordered sets; every question is answered by looking at everything.

mod host;

use crate::acceptance::tokens_of_a_step;
use engine::sglang::{SglangConfig, SglangPolicy};
use host::Host;

/// A request as the oracle sees it.
#[derive(Debug, Clone)]
pub struct Naive {
    /// Prompt, then all outputs it will ever have.
    pub tokens: Vec<u64>,
    pub prompt: usize,
    pub goal: usize,
    outputs: usize,
    /// Tokens whose KV it holds, and how many of these belong to the tree.
    held: usize,
    shared: usize,
    node: usize,
    /// 256ths of its next token.
    fraction: usize,
    /// Admitted and neither done nor retracted.
    has_seat: bool,
}

impl Naive {
    pub fn new(tokens: Vec<u64>, prompt: usize, goal: usize) -> Self {
        Naive {
            tokens,
            prompt,
            goal,
            outputs: 0,
            held: 0,
            shared: 0,
            node: 0,
            fraction: 0,
            has_seat: false,
        }
    }

    fn known(&self) -> usize {
        self.prompt + self.outputs
    }

    fn is_done(&self) -> bool {
        self.outputs == self.goal
    }
}

/// A node of the tree; a dead one has no parent but itself.
#[derive(Debug, Clone)]
struct Node {
    tokens: Vec<u64>,
    parent: usize,
    children: Vec<usize>,
    time: u64,
    locks: usize,
    is_dead: bool,
    /// Where its KV is, and how often it was stored.
    on_device: bool,
    on_host: bool,
    hits: u32,
}

/// What one step looks like after it was planned and after its results.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Line {
    /// (request, new tokens, tokens before).
    pub rows: Vec<(usize, usize, usize)>,
    pub prefills: usize,
    pub cut: Option<usize>,
    pub retracted: Vec<usize>,
    pub waiting: Vec<usize>,
    pub ratio: f64,
    /// Free, evictable and cached tokens after planning.
    pub planned: [usize; 3],
    pub finished: Vec<usize>,
    /// The same after the results.
    pub after: [usize; 3],
    /// Tokens that the step waits for: loaded, written back.
    pub copies: [usize; 2],
}

pub struct Oracle {
    config: SglangConfig,
    pub requests: Vec<Naive>,
    nodes: Vec<Node>,
    time: u64,
    free: usize,
    waiting: Vec<usize>,
    running: Vec<usize>,
    is_full: bool,
    last: Vec<usize>,
    cut: Option<usize>,
    ratio: f64,
    passes: u32,
    line: Line,
    host: Option<Host>,
    /// A leaf in host memory that is about to be loaded.
    held_copy: Option<usize>,
    batches: Vec<MicroBatch>,
    turn: usize,
    last_cut: Option<usize>,
    in_flight: usize,
}

/// Who runs, the last batch if that held prompts, whether it is full, whose prompt that batch cut.
type MicroBatch = (Vec<usize>, Vec<usize>, bool, Option<usize>);

const CLIP: usize = 4096;

impl Oracle {
    pub fn new(config: &SglangConfig) -> Self {
        let root = Node {
            tokens: Vec::new(),
            parent: 0,
            children: Vec::new(),
            time: 0,
            locks: 1,
            is_dead: false,
            on_device: true,
            on_host: false,
            hits: 0,
        };
        Oracle {
            free: config.usable_tokens() as usize,
            ratio: first_ratio(config),
            config: config.clone(),
            requests: Vec::new(),
            nodes: vec![root],
            time: 0,
            waiting: Vec::new(),
            running: Vec::new(),
            is_full: false,
            last: Vec::new(),
            cut: None,
            passes: 0,
            line: Line::default(),
            host: None,
            held_copy: None,
            batches: vec![Default::default(); config.pp_size as usize],
            turn: 0,
            last_cut: None,
            in_flight: 0,
        }
    }

    /// Requests that hold memory or are in a batch.
    fn taken_seats(&self) -> usize {
        let has_seat = |request: &&Naive| request.has_seat;
        self.requests.iter().filter(has_seat).count()
    }

    pub fn submit(&mut self, request: usize) {
        self.waiting.push(request);
    }

    /// Plans a step and takes its results; `None` if there is nothing to run.
    pub fn step(&mut self) -> Option<Line> {
        self.plan().map(|line| self.results_of(line))
    }

    /// Plans a step of the micro-batch whose turn it is; `None` if there is nothing to run.
    pub fn plan(&mut self) -> Option<Line> {
        let turns = self.batches.len();
        self.turn = (self.turn + 1) % turns;
        let batch = std::mem::take(&mut self.batches[self.turn]);
        (self.running, self.last, self.is_full, self.last_cut) = batch;
        let line = self.plan_turn();
        let batch = (
            std::mem::take(&mut self.running),
            std::mem::take(&mut self.last),
            self.is_full,
            self.last_cut,
        );
        self.batches[self.turn] = batch;
        line
    }

    fn plan_turn(&mut self) -> Option<Line> {
        self.line = Line::default();
        self.join();
        if !self.prefill() {
            self.decode_step();
        }
        if self.line.rows.is_empty() {
            if self.in_flight == 0 {
                self.ratio = first_ratio(&self.config);
            }
            return None;
        }
        self.in_flight += 1;
        if self.line.prefills > 0 {
            self.last_cut = self.cut;
        }
        self.line.cut = self.cut;
        self.line.waiting = self.waiting.clone();
        self.line.ratio = self.ratio;
        self.line.planned = self.memory();
        if let Some(host) = &mut self.host {
            let copies = [&mut host.loaded, &mut host.written_back];
            self.line.copies = copies.map(std::mem::take);
        }
        Some(self.line.clone())
    }

    /// The results of a planned step.
    pub fn results_of(&mut self, line: Line) -> Line {
        self.line = line;
        self.in_flight -= 1;
        self.results();
        self.line.ratio = self.ratio;
        self.line.after = self.memory();
        self.line.clone()
    }

    fn memory(&self) -> [usize; 3] {
        let cached =
            |nodes: &mut dyn Iterator<Item = &Node>| nodes.map(|node| node.tokens.len()).sum();
        let is_there = |node: &&Node| !node.is_dead && node.on_device;
        let mut alive = self.nodes.iter().filter(is_there);
        let mut idle = self
            .nodes
            .iter()
            .filter(|node| !node.is_dead && node.on_device && node.locks == 0);
        [self.free, cached(&mut idle), cached(&mut alive)]
    }

    fn available(&self) -> usize {
        let [free, evictable, _] = self.memory();
        free + evictable
    }

    fn page(&self) -> usize {
        self.config.page_size as usize
    }

    fn floor(&self, tokens: usize) -> usize {
        tokens / self.page() * self.page()
    }

    fn ceil(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page()) * self.page()
    }

    /// S8, S11: the chunk enters the tree, the last prefill batch joins, who is done leaves.
    fn join(&mut self) {
        if let Some(request) = self.cut {
            self.checkpoint(request);
        }
        let last = std::mem::take(&mut self.last);
        let count = self.running.len() + last.len();
        self.running.retain(|&id| !self.requests[id].is_done());
        let last_cut = self.last_cut.take();
        let stays = |&id: &usize| !self.requests[id].is_done() && last_cut != Some(id);
        let last: Vec<usize> = last.into_iter().filter(stays).collect();
        if self.running.len() + last.len() < count {
            self.is_full = false;
        }
        if self.running.is_empty() && !last.is_empty() {
            self.is_full = false;
        }
        self.running.extend(last);
    }

    /// S1–S4.
    fn prefill(&mut self) -> bool {
        let config = &self.config;
        let (all, stages) = (
            config.max_running_requests as usize,
            config.pp_size as usize,
        );
        let own = config
            .pp_max_micro_batch_size
            .map_or((all / stages).max(1), |own| own as usize);
        // All that may be in the batch and run, as far as the others leave seats.
        let seats = match stages {
            1 => own,
            _ => own.min((all + self.running.len()).saturating_sub(self.taken_seats())),
        };
        if self.cut.is_none() {
            if self.is_full || self.waiting.is_empty() {
                return false;
            }
            if self.running.len() >= seats {
                self.is_full = true;
                return false;
            }
        }
        self.order();
        let ratio = if self.config.ignore_eos {
            1.0
        } else {
            self.ratio
        };
        let mixed = if self.config.mixed_chunk {
            self.running.len()
        } else {
            0
        };
        let mut reserved = mixed as f64;
        let mut promised = 0.0;
        for &id in &self.running {
            let request = &self.requests[id];
            promised += (request.goal - request.outputs).min(CLIP) as f64 * ratio;
        }
        reserved += promised;
        let mut taken = mixed as i64;
        let mut input_left = i64::from(self.config.max_prefill_tokens) - mixed as i64;
        let mut chunk_left = self
            .config
            .chunked_prefill_size
            .map(|size| i64::from(size) - mixed as i64);
        // (request, new tokens)
        let mut batch: Vec<(usize, usize)> = Vec::new();
        let mut releases: Vec<(f64, usize)> = Vec::new();
        let page = self.page();
        if stages > 1 && self.cut.is_some() && self.floor(self.available()) == 0 {
            return false;
        }
        if let Some(id) = self.cut.take() {
            let missing = self.requests[id].known() - self.requests[id].held;
            let chunk = chunk_left.expect("chunks are on");
            let room = chunk.min((self.available() as f64 - reserved) as i64);
            let limit = if room > 0 { room } else { chunk.max(1) } as usize;
            let limit = match stages {
                1 => limit,
                _ => limit.min(self.floor(self.available())),
            };
            let new = missing.min(limit);
            let output = if new < missing {
                0
            } else {
                self.requests[id].goal.min(CLIP)
            };
            if new < missing {
                self.cut = Some(id);
            }
            reserved += (self.ceil(new) + page + output) as f64;
            taken += (self.ceil(new) + page) as i64;
            input_left -= self.ceil(new) as i64;
            chunk_left = Some(chunk - self.ceil(new) as i64);
            batch.push((id, new));
        }
        let mut admitted = 0;
        for id in self.waiting.clone() {
            if batch.len() + self.running.len() >= seats {
                self.is_full = true;
            }
            if self.is_full {
                break;
            }
            let known = self.requests[id].known();
            let (deepest, all) = self.find(id, known - 1);
            let (mut node, device) = self.device_part(deepest, all);
            let mut matched = all;
            let mut input = known - matched;
            let goal = self.requests[id].goal;
            let missing = goal - self.requests[id].outputs;
            let mut new = input;
            if self.config.disable_radix_cache && self.config.ignore_eos {
                let paged = (self.ceil(input) + page) as i64;
                let now = self.available() as i64 - taken;
                if paged > now || paged as f64 > self.available() as f64 - reserved {
                    self.is_full = true;
                    break;
                }
                let mut all = vec![id];
                if releases.is_empty() {
                    all.extend(&self.running);
                    all.extend(batch.iter().map(|row| row.0));
                    for other in all {
                        let other = &self.requests[other];
                        if other.goal > other.outputs {
                            releases.push(((other.goal - other.outputs) as f64, other.known()));
                        }
                    }
                    releases.sort_by(|a, b| a.0.partial_cmp(&b.0).expect("numbers"));
                } else {
                    let mut at = releases.len() - 1;
                    for (index, other) in releases.iter().enumerate() {
                        if missing as f64 <= other.0 {
                            at = index;
                            break;
                        }
                    }
                    releases.insert(at, (missing as f64, known));
                }
                let mut freed = 0;
                let mut fits = true;
                for index in 0..releases.len() {
                    let others = (releases.len() - index) as i64;
                    let left = now - paged + freed - releases[index].0 as i64 * others;
                    fits &= left > others;
                    freed += releases[index].1 as i64;
                }
                if !fits {
                    self.is_full = true;
                    break;
                }
                if let Some(chunk) = chunk_left.filter(|&chunk| input as i64 > chunk) {
                    if chunk <= 0 {
                        break;
                    }
                    new = chunk as usize;
                }
            } else {
                self.lock(node);
                let room = self.available() as f64 - reserved;
                self.unlock(node);
                if (known - device + missing.min(CLIP) + page) as f64 >= room {
                    // With host memory nobody is marked full where nobody runs.
                    let runs = !batch.is_empty() || !self.running.is_empty();
                    self.is_full = self.host.is_none() || runs;
                    break;
                }
                let cut = |oracle: &Oracle, matched: usize| {
                    let input = known - matched;
                    match chunk_left {
                        None if !batch.is_empty() && oracle.ceil(input) as i64 >= input_left => 0,
                        Some(chunk) if oracle.ceil(input) as i64 > chunk => {
                            let end = oracle.floor(matched + oracle.floor(chunk.max(0) as usize));
                            end.max(matched) - matched
                        }
                        _ => input,
                    }
                };
                if cut(self, matched) == 0 {
                    break;
                }
                if device < all {
                    if self.load_back(node, deepest, all - device) {
                        node = deepest;
                    } else {
                        matched = device;
                        self.lock(node);
                        let room = self.available() as f64 - reserved;
                        self.unlock(node);
                        if (known - device + missing.min(CLIP) + page) as f64 >= room {
                            let runs = !batch.is_empty() || !self.running.is_empty();
                            self.is_full = runs;
                            break;
                        }
                    }
                }
                new = cut(self, matched);
                if new == 0 {
                    break;
                }
                input = known - matched;
            }
            self.lock(node);
            let request = &mut self.requests[id];
            request.has_seat = true;
            request.node = node;
            request.shared = matched;
            request.held = matched;
            let output = if new < input { 0 } else { goal.min(CLIP) };
            if new < input {
                assert!(self.cut.is_none());
                self.cut = Some(id);
            }
            batch.push((id, new));
            admitted += 1;
            reserved += (self.ceil(new) + page + output) as f64;
            taken += (self.ceil(new) + page) as i64;
            input_left -= self.ceil(new) as i64;
            chunk_left = chunk_left.map(|chunk| chunk - self.ceil(new) as i64);
            if self.available() as f64 - reserved <= 0.0 || self.available() as i64 - taken <= 0 {
                self.is_full = true;
                break;
            }
            if input_left <= 0 || chunk_left.is_some_and(|chunk| chunk <= 0) {
                break;
            }
        }
        if batch.is_empty() {
            return false;
        }
        self.waiting.drain(..admitted);
        let new: usize = batch.iter().map(|row| row.1).sum();
        let spare = if page > 1 { batch.len() * page } else { 0 };
        self.evict_for(new + spare);
        let grown = |row: &(usize, usize)| {
            let held = self.requests[row.0].held;
            self.ceil(held + row.1) - self.ceil(held)
        };
        let pages: usize = batch.iter().map(grown).sum();
        while self.free < pages && !self.running.is_empty() {
            self.sort_by_outputs();
            let id = self.running.pop().expect("somebody runs");
            self.release(id, false);
            self.line.retracted.push(id);
            self.waiting.push(id);
            self.evict_for(new + spare);
        }
        for (id, new) in batch {
            self.line.rows.push((id, new, self.requests[id].held));
            self.grow(id, new);
            self.last.push(id);
        }
        self.line.prefills = self.line.rows.len();
        if self.config.mixed_chunk && !self.running.is_empty() && self.fits_a_token() {
            self.decode();
            self.last.append(&mut self.running);
        }
        true
    }

    /// S5, S6.
    fn decode_step(&mut self) {
        if self.running.is_empty() {
            self.is_full = false;
            return;
        }
        if self.fits_a_token() {
            let first = first_ratio(&self.config);
            let least = (first * 0.14f64).min(1.0);
            self.ratio = (self.ratio - (first - least) / 600.0).max(least);
        } else {
            self.sort_by_outputs();
            let mut gone = Vec::new();
            loop {
                if self.running.len() == 1 {
                    break;
                }
                let id = self.running.pop().expect("there are several");
                self.release(id, false);
                self.evict_for(20 * self.running.len());
                gone.push(id);
                if self.fits_a_token() {
                    break;
                }
            }
            if self.config.pp_size > 1 && !self.fits_a_token() {
                let id = self.running.pop().expect("one is left");
                self.release(id, false);
                gone.push(id);
            }
            assert!(self.running.is_empty() || self.fits_a_token());
            let outputs: usize = self
                .running
                .iter()
                .map(|&id| self.requests[id].outputs)
                .sum();
            let asked: usize = self.running.iter().map(|&id| self.requests[id].goal).sum();
            self.ratio = ((outputs + 20 * self.running.len()) as f64 / (asked + 1) as f64).min(1.0);
            self.waiting.extend(&gone);
            self.line.retracted.extend(gone);
            self.is_full = false;
        }
        self.decode();
    }

    fn sort_by_outputs(&mut self) {
        if self.config.speculation.is_some() {
            return;
        }
        let requests = &self.requests;
        self.running.sort_by(|&a, &b| {
            let (a, b) = (&requests[a], &requests[b]);
            b.outputs.cmp(&a.outputs).then(a.prompt.cmp(&b.prompt))
        });
    }

    fn fits_a_token(&mut self) -> bool {
        let full = |id: &&usize| self.requests[**id].held.is_multiple_of(self.page());
        let tokens = match &self.config.speculation {
            None => self.running.iter().filter(full).count() * self.page(),
            Some(drafts) => {
                let (steps, topk) = (
                    drafts.speculation.num_speculative_tokens as usize,
                    drafts.topk as usize,
                );
                let branch = match (self.page(), topk) {
                    (1, _) => steps,
                    (_, 1) => self.ceil(steps),
                    (page, _) => self.ceil(steps + page),
                };
                let each = (branch * topk).max(self.ceil(drafts.num_draft_tokens as usize));
                each * self.running.len()
            }
        };
        self.evict_for(tokens);
        self.free >= tokens
    }

    fn decode(&mut self) {
        if let Some(drafts) = &self.config.speculation {
            let verified = drafts.num_draft_tokens as usize;
            for &id in &self.running {
                self.line.rows.push((id, verified, self.requests[id].held));
            }
            return;
        }
        self.evict_for(self.running.len() * self.page());
        for id in self.running.clone() {
            self.line.rows.push((id, 1, self.requests[id].held));
            self.grow(id, 1);
        }
    }

    fn grow(&mut self, id: usize, tokens: usize) {
        let held = self.requests[id].held;
        self.free -= self.ceil(held + tokens) - self.ceil(held);
        self.requests[id].held += tokens;
    }

    /// S8: what was computed enters the tree.
    fn results(&mut self) {
        for (index, (id, _, _)) in self.line.rows.clone().into_iter().enumerate() {
            if self.line.cut == Some(id) {
                continue;
            }
            match &self.config.speculation {
                Some(drafts) if index >= self.line.prefills => {
                    let request = &mut self.requests[id];
                    let (outputs, missing) = (request.outputs, request.goal - request.outputs);
                    let fraction = &mut request.fraction;
                    let tokens = tokens_of_a_step(&drafts.speculation, id, outputs, fraction);
                    let tokens = tokens.min(missing);
                    request.outputs += tokens;
                    self.grow(id, tokens);
                }
                _ => self.requests[id].outputs += 1,
            }
            if self.requests[id].is_done() {
                self.release(id, true);
                self.line.finished.push(id);
            } else if index < self.line.prefills {
                self.checkpoint(id);
            }
        }
    }

    fn checkpoint(&mut self, id: usize) {
        if self.config.disable_radix_cache {
            return;
        }
        let tokens = self.cacheable(id);
        let counts = self.cut != Some(id);
        self.free += self.insert(id, tokens, counts) - self.requests[id].shared;
        let (node, found) = self.find_all(id, tokens);
        assert_eq!(found, tokens);
        self.unlock(self.requests[id].node);
        self.lock(node);
        self.requests[id].node = node;
        self.requests[id].shared = tokens;
    }

    fn release(&mut self, id: usize, keeps: bool) {
        let (held, shared) = (self.requests[id].held, self.requests[id].shared);
        if keeps && !self.config.disable_radix_cache {
            let tokens = self.cacheable(id);
            self.free += self.insert(id, tokens, true) - shared;
            self.free += self.ceil(held) - tokens;
        } else {
            self.free += self.ceil(held) - shared;
        }
        self.unlock(self.requests[id].node);
        let request = &mut self.requests[id];
        (request.node, request.held, request.shared) = (0, 0, 0);
        request.has_seat = false;
    }

    // The tree (S7, S9, S12).

    fn now(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    /// Whole pages of what it has computed, with drafts without the last token.
    fn cacheable(&self, id: usize) -> usize {
        let last = usize::from(self.config.speculation.is_some());
        self.floor(self.requests[id].held.saturating_sub(last))
    }

    /// What a request of `limit` tokens finds; with drafts it looks for one less.
    fn find(&mut self, id: usize, limit: usize) -> (usize, usize) {
        let last = usize::from(self.config.speculation.is_some());
        self.find_all(id, limit.saturating_sub(last))
    }

    /// The longest cached prefix of the first `limit` tokens; stamps its path.
    fn find_all(&mut self, id: usize, limit: usize) -> (usize, usize) {
        if self.config.disable_radix_cache {
            return (0, 0);
        }
        let (node, tokens, _) = self.walk(id, limit, None);
        let mut path = vec![node];
        while path[path.len() - 1] != 0 {
            path.push(self.nodes[path[path.len() - 1]].parent);
        }
        for node in path.into_iter().rev() {
            self.nodes[node].time = self.now();
        }
        (node, tokens)
    }

    fn insert(&mut self, id: usize, tokens: usize, counts: bool) -> usize {
        let (node, found, again) = self.walk(id, tokens, Some(counts));
        if found < tokens {
            let time = self.now();
            self.nodes.push(Node {
                tokens: self.requests[id].tokens[found..tokens].to_vec(),
                parent: node,
                children: Vec::new(),
                time,
                locks: 0,
                is_dead: false,
                on_device: true,
                on_host: false,
                hits: 0,
            });
            let leaf = self.nodes.len() - 1;
            self.nodes[node].children.push(leaf);
            if counts {
                self.hit(leaf);
            }
        }
        found - again
    }

    /// As an insert if it says whether it counts as a hit. The last number: tokens that were not on the device.
    fn walk(&mut self, id: usize, limit: usize, insert: Option<bool>) -> (usize, usize, usize) {
        let key = self.requests[id].tokens[..limit].to_vec();
        let (mut node, mut depth, mut again) = (0, 0, 0);
        loop {
            let common = |child: usize| {
                let pairs = self.nodes[child].tokens.iter().zip(&key[depth..]);
                self.floor(pairs.take_while(|(a, b)| a == b).count())
            };
            let next = self.nodes[node]
                .children
                .iter()
                .copied()
                .find(|&child| common(child) > 0);
            let Some(child) = next else {
                return (node, depth, again);
            };
            let tokens = common(child);
            let is_whole = tokens == self.nodes[child].tokens.len();
            node = if is_whole {
                child
            } else {
                self.cut_node(child, tokens)
            };
            if let Some(counts) = insert {
                self.nodes[node].time = self.now();
                if !self.nodes[node].on_device {
                    self.nodes[node].on_device = true;
                    again += tokens;
                } else if counts {
                    self.hit(node);
                }
            }
            depth += tokens;
            if !is_whole {
                return (node, depth, again);
            }
        }
    }

    fn cut_node(&mut self, lower: usize, tokens: usize) -> usize {
        let parent = self.nodes[lower].parent;
        let time = self.now();
        let upper = self.nodes.len();
        self.nodes.push(Node {
            tokens: self.nodes[lower].tokens[..tokens].to_vec(),
            parent,
            children: vec![lower],
            time,
            locks: self.nodes[lower].locks,
            is_dead: false,
            on_device: self.nodes[lower].on_device,
            on_host: self.nodes[lower].on_host,
            hits: self.nodes[lower].hits,
        });
        for child in &mut self.nodes[parent].children {
            if *child == lower {
                *child = upper;
            }
        }
        let time = self.now();
        let node = &mut self.nodes[lower];
        node.tokens.drain(..tokens);
        node.parent = upper;
        node.time = time;
        upper
    }

    fn lock(&mut self, mut node: usize) {
        while node != 0 {
            self.nodes[node].locks += 1;
            node = self.nodes[node].parent;
        }
    }

    fn unlock(&mut self, mut node: usize) {
        while node != 0 {
            self.nodes[node].locks -= 1;
            node = self.nodes[node].parent;
        }
    }

    fn evict_for(&mut self, tokens: usize) {
        while self.free < tokens {
            if self.evict_one().is_none() {
                return;
            }
        }
    }

    // The order of the queue (S7, S10).

    fn order(&mut self) {
        let waiting = self.waiting.clone();
        let policy = match self.config.schedule_policy {
            _ if self.config.disable_radix_cache => SglangPolicy::Fcfs,
            SglangPolicy::Lpm if waiting.len() > 128 => SglangPolicy::Fcfs,
            policy => policy,
        };
        if policy == SglangPolicy::Fcfs {
            self.passes += 1;
            if self.passes.is_multiple_of(32) {
                for &id in waiting.iter().take(128).rev() {
                    self.find(id, self.requests[id].known());
                }
            }
            return;
        }
        let found: Vec<(usize, usize)> = waiting
            .iter()
            .map(|&id| self.find(id, self.requests[id].known()))
            .collect();
        if policy == SglangPolicy::Lpm {
            let mut first: Vec<&[u64]> = Vec::new();
            let mut ranked = Vec::new();
            for (&id, &(_, matched)) in waiting.iter().zip(&found) {
                let known = &self.requests[id].tokens[..self.requests[id].known()];
                let mut rank = matched.min(known.len() - 1) as i64;
                if matched <= 32 {
                    let shared = |other: &&[u64]| {
                        other.iter().zip(known).take_while(|(a, b)| a == b).count()
                    };
                    if first.iter().map(shared).max().unwrap_or(0) >= 32 {
                        rank = -1;
                    } else {
                        first.push(known);
                    }
                }
                ranked.push((-rank, id));
            }
            ranked.sort_by_key(|&(rank, _)| rank);
            self.waiting = ranked.into_iter().map(|(_, id)| id).collect();
        } else {
            let end = |&(node, tokens): &(usize, usize)| self.device_part(node, tokens).0;
            let ends: Vec<usize> = found.iter().map(end).collect();
            let mut order = Vec::new();
            self.depth_first(0, &ends, &mut order);
            self.waiting = order.into_iter().map(|index| waiting[index]).collect();
        }
    }

    fn weight(&self, node: usize, ends: &[usize]) -> usize {
        let below: usize = self.nodes[node]
            .children
            .iter()
            .map(|&child| self.weight(child, ends))
            .sum();
        below + ends.iter().filter(|&&end| end == node).count()
    }

    fn depth_first(&self, node: usize, ends: &[usize], order: &mut Vec<usize>) {
        let mut children = self.nodes[node].children.clone();
        children.sort_by_key(|&child| usize::MAX - self.weight(child, ends));
        for child in children {
            self.depth_first(child, ends, order);
        }
        order.extend((0..ends.len()).filter(|&index| ends[index] == node));
    }
}

fn first_ratio(config: &SglangConfig) -> f64 {
    (0.7 * config.schedule_conservativeness).min(1.0)
}
