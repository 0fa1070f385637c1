//! A scheduler written to be obviously right: blocks one by one, contents as lists of tokens, every step from scratch.

use crate::acceptance::tokens_of_a_step;
use engine::trtllm::{CapacityPolicy, TrtllmConfig};
use std::collections::VecDeque;

/// A request: what it is and how far it has come.
#[derive(Debug, Clone)]
pub struct Naive {
    /// Prompt and answer.
    tokens: Vec<u64>,
    input: usize,
    goal: usize,
    outputs: usize,
    /// Tokens that are prefilled: the prompt, after a pause with the outputs so far.
    prompt: usize,
    computed: usize,
    /// Its blocks once it has started.
    blocks: Option<Vec<usize>>,
    /// 256ths of its next token.
    fraction: usize,
}

impl Naive {
    pub fn new(tokens: Vec<u64>, input: usize, goal: usize) -> Naive {
        Naive {
            tokens,
            input,
            goal,
            outputs: 0,
            prompt: input,
            computed: 0,
            blocks: None,
            fraction: 0,
        }
    }

    fn has_started(&self) -> bool {
        self.blocks.is_some()
    }

    fn decodes(&self) -> bool {
        self.has_started() && self.computed >= self.prompt
    }
}

#[derive(Debug, Clone, Default)]
struct Block {
    /// All tokens up to its end, if it can be found.
    content: Option<Vec<u64>>,
    holders: usize,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Line {
    /// (request, new tokens, tokens before), prompts first.
    pub rows: Vec<(usize, usize, usize)>,
    pub prefills: usize,
    /// (request, tokens found).
    pub started: Vec<(usize, usize)>,
    pub paused: Vec<usize>,
    pub free_after_plan: usize,
    pub finished: Vec<usize>,
    pub free_after: usize,
    /// Blocks loaded from host memory and written there before the step.
    pub copies: [usize; 2],
}

/// The worker.
pub struct Oracle {
    config: TrtllmConfig,
    pub requests: Vec<Naive>,
    queue: VecDeque<usize>,
    active: Vec<usize>,
    pool: Vec<Block>,
    /// Free blocks, next to be taken first.
    free: VecDeque<usize>,
    /// Blocks with content in the order in which they got it.
    findable: Vec<usize>,
    /// Contents in host memory in the order in which they came, and how many fit.
    pub host: VecDeque<Vec<u64>>,
    host_blocks: usize,
    copies: [usize; 2],
    in_flight: Vec<usize>,
}

impl Oracle {
    pub fn new(config: &TrtllmConfig, host_blocks: usize) -> Oracle {
        let blocks = config.num_blocks as usize;
        Oracle {
            config: config.clone(),
            requests: Vec::new(),
            queue: VecDeque::new(),
            active: Vec::new(),
            pool: vec![Block::default(); blocks],
            free: (0..blocks).collect(),
            findable: Vec::new(),
            host: VecDeque::new(),
            host_blocks,
            copies: [0; 2],
            in_flight: Vec::new(),
        }
    }

    pub fn submit(&mut self, request: usize) {
        self.queue.push_back(request);
    }

    fn drafts(&self) -> usize {
        let drafts = self.config.speculation.as_ref();
        drafts.map_or(0, |drafts| drafts.acceptance_rates.len())
    }

    /// Slots behind a prompt for the layers that draft.
    fn extra(&self) -> usize {
        self.drafts().saturating_sub(1)
    }

    fn size(&self) -> usize {
        self.config.tokens_per_block as usize
    }

    /// Blocks that hold the first whole blocks of the tokens, as far as they are there.
    fn find(&self, tokens: &[u64], whole: usize) -> Vec<usize> {
        let mut found = Vec::new();
        if !self.config.enable_block_reuse {
            return found;
        }
        for index in 0..whole {
            let wanted = &tokens[..(index + 1) * self.size()];
            let has = |&&block: &&usize| self.pool[block].content.as_deref() == Some(wanted);
            match self.findable.iter().find(has) {
                Some(&block) => found.push(block),
                None => break,
            }
        }
        found
    }

    /// The first whole block of its prompt that is not there, by its content.
    fn first_missing(&self, request: usize) -> Option<Vec<u64>> {
        let Naive { tokens, prompt, .. } = &self.requests[request];
        let whole = prompt / self.size();
        let mut found = self.find(tokens, whole).len();
        while found < whole
            && self
                .host
                .contains(&tokens[..(found + 1) * self.size()].to_vec())
        {
            found += 1;
        }
        (found < whole).then(|| tokens[..(found + 1) * self.size()].to_vec())
    }

    fn take_block(&mut self) -> usize {
        let block = self.free.pop_front().expect("a block is free");
        if let Some(content) = self.pool[block].content.take() {
            self.findable.retain(|&other| other != block);
            let mut others = self.findable.iter();
            if !others.any(|&other| self.pool[other].content.as_ref() == Some(&content)) {
                self.offload(content);
            }
        }
        self.pool[block].holders = 1;
        block
    }

    fn offload(&mut self, content: Vec<u64>) {
        if self.host_blocks == 0 {
            return;
        }
        if self.host.contains(&content) {
            self.host.retain(|other| *other != content);
        } else {
            self.copies[1] += 1;
            if self.host.len() == self.host_blocks {
                self.host.pop_front();
            }
        }
        self.host.push_back(content);
    }

    fn publish(&mut self, request: usize) {
        if !self.config.enable_block_reuse {
            return;
        }
        let size = self.size();
        let Naive {
            tokens,
            computed,
            blocks,
            ..
        } = &self.requests[request];
        let blocks = blocks.clone().expect("it has started");
        for (index, block) in blocks.into_iter().enumerate().take(computed / size) {
            if self.pool[block].content.is_none() {
                self.pool[block].content = Some(tokens[..(index + 1) * size].to_vec());
                self.findable.push(block);
            }
        }
    }

    fn give_back(&mut self, request: usize) {
        self.publish(request);
        let blocks = self.requests[request].blocks.take();
        for block in blocks.expect("it has started").into_iter().rev() {
            self.pool[block].holders -= 1;
            if self.pool[block].holders > 0 {
                continue;
            }
            match self.pool[block].content {
                Some(_) => self.free.push_back(block),
                None => self.free.push_front(block),
            }
        }
    }

    fn lacking(&self, request: usize, tokens: usize) -> usize {
        let has = self.requests[request].blocks.as_ref().map_or(0, Vec::len);
        tokens.div_ceil(self.size()).saturating_sub(has)
    }

    /// Runs a step from its plan to its results; none if there is nothing to do.
    pub fn step(&mut self) -> Option<Line> {
        self.plan().map(|line| self.results(line))
    }

    /// Plans a step; none if there is nothing to do.
    pub fn plan(&mut self) -> Option<Line> {
        let mut line = Line::default();
        let seats = self.config.max_batch_size * self.config.pipeline_parallel_size;
        while self.active.len() < seats as usize {
            let Some(request) = self.queue.pop_front() else {
                break;
            };
            self.active.push(request);
        }
        let fitting = self.fitting(&mut line);
        let (mut prefills, mut decodes) = self.by_tokens(&fitting);
        while prefills.is_empty() && decodes.is_empty() {
            let paused = line.paused.len();
            let fitting = self.fitting(&mut line);
            (prefills, decodes) = self.by_tokens(&fitting);
            if line.paused.len() == paused {
                break;
            }
        }
        for &(request, budget) in &prefills {
            self.prefill(request, budget, &mut line);
        }
        line.prefills = prefills.len();
        for &request in &decodes {
            let before = self.requests[request].computed;
            let new = 1 + self.drafts();
            line.rows.push((request, new, before));
            while self.lacking(request, before + new + self.extra()) > 0 {
                let block = self.take_block();
                self.requests[request]
                    .blocks
                    .as_mut()
                    .expect("it has started")
                    .push(block);
            }
            if self.config.speculation.is_none() {
                self.requests[request].computed += 1;
            }
        }
        if line.rows.is_empty() {
            return None;
        }
        line.free_after_plan = self.free.len();
        line.copies = std::mem::take(&mut self.copies);
        for row in &line.rows {
            self.in_flight.push(row.0);
        }
        Some(line)
    }

    /// The results of a planned step.
    pub fn results(&mut self, mut line: Line) -> Line {
        for row in &line.rows {
            self.in_flight.retain(|&request| request != row.0);
        }
        for (index, &(request, ..)) in line.rows.iter().enumerate() {
            if !self.requests[request].decodes() {
                continue;
            }
            match &self.config.speculation {
                Some(speculation) if index >= line.prefills => {
                    let naive = &mut self.requests[request];
                    let (outputs, missing) = (naive.outputs, naive.goal - naive.outputs);
                    let fraction = &mut naive.fraction;
                    let tokens = tokens_of_a_step(speculation, request, outputs, fraction);
                    naive.outputs += tokens.min(missing);
                    naive.computed += tokens.min(missing);
                }
                _ => self.requests[request].outputs += 1,
            }
            if self.requests[request].outputs == self.requests[request].goal {
                self.give_back(request);
                line.finished.push(request);
                self.active.retain(|&other| other != request);
            } else if index < line.prefills {
                self.publish(request);
            }
        }
        line.free_after = self.free.len();
        line
    }

    fn fitting(&mut self, line: &mut Line) -> Vec<usize> {
        let active = self.active.clone();
        let mut computing: Vec<Vec<u64>> = Vec::new();
        if self.config.enable_block_reuse {
            for &request in &active {
                let naive = &self.requests[request];
                if naive.has_started() && !naive.decodes() {
                    computing.extend(self.first_missing(request));
                }
            }
        }
        let mut steps_aside = |oracle: &Oracle, request: usize| {
            if oracle.requests[request].has_started() || !oracle.config.enable_block_reuse {
                return false;
            }
            match oracle.first_missing(request) {
                Some(missing) if computing.contains(&missing) => true,
                Some(missing) => {
                    computing.push(missing);
                    false
                }
                None => false,
            }
        };
        let mut fitting = Vec::new();
        if self.config.capacity_scheduler_policy == CapacityPolicy::GuaranteedNoEvict {
            let to_the_end = |oracle: &Oracle, request: usize| {
                let naive = &oracle.requests[request];
                let drafts = oracle.drafts();
                // The last step verifies all drafts for the last but one token.
                let behind = (2 * drafts).saturating_sub(2);
                oracle.lacking(request, naive.input + naive.goal + behind) as i64
            };
            let mut left = self.free.len() as i64;
            for &request in &active {
                if self.requests[request].has_started() {
                    left -= to_the_end(self, request);
                    fitting.push(request);
                }
            }
            assert!(left >= 0, "what was promised is there");
            for &request in &active {
                if self.requests[request].has_started() || steps_aside(self, request) {
                    continue;
                }
                if to_the_end(self, request) > left {
                    break;
                }
                left -= to_the_end(self, request);
                fitting.push(request);
            }
            return fitting;
        }
        let mut open: VecDeque<usize> = active.into();
        let mut taken = 0;
        while let Some(&request) = open.front() {
            if steps_aside(self, request) {
                open.pop_front();
                continue;
            }
            let naive = &self.requests[request];
            let tokens = if naive.decodes() {
                naive.computed + 1 + self.drafts() + self.extra()
            } else {
                naive.prompt + self.extra()
            };
            if taken + self.lacking(request, tokens) <= self.free.len() {
                taken += self.lacking(request, tokens);
                fitting.push(request);
                open.pop_front();
                continue;
            }
            while open
                .back()
                .is_some_and(|&last| !self.requests[last].has_started())
            {
                open.pop_back();
            }
            let Some(victim) = open.pop_back() else {
                break;
            };
            self.give_back(victim);
            let naive = &mut self.requests[victim];
            naive.prompt = naive.input + naive.outputs;
            naive.computed = 0;
            line.paused.push(victim);
        }
        fitting
    }

    /// Prompts with their tokens, and decodes.
    fn by_tokens(&self, fitting: &[usize]) -> (Vec<(usize, usize)>, Vec<usize>) {
        let budget = self.config.max_num_tokens as usize;
        let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
        let mut used = 0;
        for &request in fitting {
            if self.in_flight.contains(&request) {
                continue;
            }
            if prefills.len() + decodes.len() == self.config.max_batch_size as usize {
                break;
            }
            let naive = &self.requests[request];
            let missing = naive.prompt.saturating_sub(naive.computed);
            let decode = 1 + self.drafts();
            let tokens = if naive.decodes() { decode } else { missing };
            let is_counted = naive.decodes() || !self.config.enable_chunked_prefill;
            if is_counted && used + tokens > budget {
                break;
            }
            if is_counted {
                used += tokens;
            }
            if naive.decodes() {
                decodes.push(request);
            } else {
                prefills.push((request, missing));
            }
        }
        let all: usize = prefills.iter().map(|&(_, tokens)| tokens).sum();
        if !self.config.enable_chunked_prefill || all <= budget - used {
            return (prefills, decodes);
        }
        let mut left = budget - used;
        let (mut middle, mut last) = (Vec::new(), Vec::new());
        for (request, missing) in prefills {
            if missing <= left {
                left -= missing;
                last.push((request, missing));
                continue;
            }
            let tokens = left / self.size() * self.size();
            left -= tokens;
            if tokens > 0 {
                middle.push((request, tokens));
            }
        }
        middle.extend(last);
        (middle, decodes)
    }

    fn prefill(&mut self, request: usize, budget: usize, line: &mut Line) {
        if !self.requests[request].has_started() {
            let prompt = self.requests[request].prompt;
            let whole = (prompt - 1) / self.size();
            let mut blocks = self.find(&self.requests[request].tokens, whole);
            let found = blocks.len() * self.size();
            for &block in &blocks {
                self.pool[block].holders += 1;
                self.free.retain(|&other| other != block);
            }
            let tokens = self.requests[request].tokens.clone();
            let mut loaded = 0;
            while blocks.len() + loaded < whole {
                let wanted = &tokens[..(blocks.len() + loaded + 1) * self.size()];
                let Some(at) = self.host.iter().position(|other| other == wanted) else {
                    break;
                };
                self.host.remove(at);
                loaded += 1;
            }
            self.copies[0] += loaded;
            let first = blocks.len();
            while blocks.len() < (prompt + self.extra()).div_ceil(self.size()) {
                blocks.push(self.take_block());
            }
            for index in first..first + loaded {
                self.pool[blocks[index]].content =
                    Some(tokens[..(index + 1) * self.size()].to_vec());
                self.findable.push(blocks[index]);
            }
            self.requests[request].blocks = Some(blocks);
            self.requests[request].computed = found + loaded * self.size();
            line.started.push((request, found));
        }
        let naive = &mut self.requests[request];
        let new = budget.min(naive.prompt - naive.computed);
        line.rows.push((request, new, naive.computed));
        naive.computed += new;
    }
}
