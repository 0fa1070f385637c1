//! The KV cache of one worker: blocks, the free queue, and which block holds which content.
//!
//! The queue hands out blocks from its front. A released block without content goes to the front (it is reused at
//! once), one with content to the back (least recently used first); both lists keep the order of release, which is the
//! table's tail first (R11). A block loses its content when it is handed out again and only then (R7). The same content
//! may sit in several blocks; the one that got it first is found (R8).

/// Index of a block. Block 0 exists and is never used (R6).
pub type BlockId = usize;

/// Names the whole token prefix that ends with a block: equal prefixes, equal names.
pub type Content = usize;

/// What happened to the cached contents, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvEvent {
    /// These contents entered, following on `parent`.
    Stored {
        parent: Option<Content>,
        contents: Vec<Content>,
    },
    /// One copy of this content was evicted.
    Removed(Content),
}

#[derive(Debug, Clone, Default)]
struct Block {
    /// How many tables hold it.
    tables: usize,
    content: Option<Content>,
}

/// Blocks and their queue.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Next to be handed out first.
    pub free: Vec<BlockId>,
    blocks: Vec<Block>,
    /// Which block holds which content, in order of insertion.
    cached: Vec<(Content, BlockId)>,
    /// Number of different contents in `cached`.
    pub distinct_contents: usize,
    /// Since the caller last took them.
    pub events: Vec<KvEvent>,
}

impl Pool {
    /// All blocks free, in ascending order.
    pub fn new(num_gpu_blocks: usize) -> Pool {
        Pool {
            free: (1..num_gpu_blocks).collect(),
            blocks: vec![Block::default(); num_gpu_blocks],
            cached: Vec::new(),
            distinct_contents: 0,
            events: Vec::new(),
        }
    }

    /// The block that holds `content`: of several, the one that got it first.
    pub fn find(&self, content: Content) -> Option<BlockId> {
        self.cached
            .iter()
            .find(|entry| entry.0 == content)
            .map(|entry| entry.1)
    }

    /// True when no table holds the block: it is in the free queue.
    pub fn is_free(&self, block: BlockId) -> bool {
        self.blocks[block].tables == 0
    }

    /// One more table holds the block; a free one leaves the queue.
    pub fn touch(&mut self, block: BlockId) {
        if self.is_free(block) {
            let place = self
                .free
                .iter()
                .position(|&b| b == block)
                .expect("a block without table is in the queue");
            self.free.remove(place);
        }
        self.blocks[block].tables += 1;
    }

    /// Hands out the first free block, evicting what it holds.
    pub fn allocate(&mut self) -> BlockId {
        let block = self.free.remove(0);
        if let Some(content) = self.blocks[block].content.take() {
            self.cached.retain(|entry| entry.1 != block);
            if self.find(content).is_none() {
                self.distinct_contents -= 1;
            }
            self.events.push(KvEvent::Removed(content));
        }
        self.blocks[block].tables = 1;
        block
    }

    /// The blocks of a table, from one on, now hold these contents.
    pub fn store(&mut self, parent: Option<Content>, contents: &[Content], blocks: &[BlockId]) {
        if contents.is_empty() {
            return;
        }
        for (&content, &block) in contents.iter().zip(blocks) {
            assert!(
                self.blocks[block].content.is_none(),
                "a block gets content once between two hand-outs"
            );
            self.blocks[block].content = Some(content);
            if self.find(content).is_none() {
                self.distinct_contents += 1;
            }
            self.cached.push((content, block));
        }
        self.events.push(KvEvent::Stored {
            parent,
            contents: contents.to_vec(),
        });
    }

    /// A table gives its blocks back.
    pub fn release(&mut self, table: &[BlockId]) {
        let mut without_content = Vec::new();
        for &block in table.iter().rev() {
            self.blocks[block].tables -= 1;
            if self.is_free(block) {
                if self.blocks[block].content.is_some() {
                    self.free.push(block);
                } else {
                    without_content.push(block);
                }
            }
        }
        self.free.splice(0..0, without_content);
    }
}
