//! What is to be served: requests in order of arrival, their contents, and what each of them waits for.
//!
//! A workload is plain data, independent of any deployment, and shared read-only by all simulations of a sweep.

use crate::annotations::{AnnotationTable, Annotations};
use crate::prefix_tree::{NodeId, PrefixTree, PrefixTreeBuilder, Run};
use crate::time::{Span, Time};

/// Index of a request in [`Workload::requests`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// When it may be sent at the earliest. With dependencies it is sent when all of them and this time are past.
    pub arrival: Time,
    /// Prompt tokens, at least 1.
    pub input_tokens: u32,
    /// Tokens to generate, at least 1.
    pub output_tokens: u32,
    /// The content: prompt, then output. Its node ends at depth `input_tokens + output_tokens`.
    pub leaf: NodeId,
    /// vLLM's priority: smaller values are served first. 0 where a trace has none.
    pub priority: i32,
    /// Conversation it belongs to; requests without one have a number of their own.
    pub session: u32,
    /// First entry in [`Workload::dependencies`].
    pub first_dependency: u32,
    /// Number of entries there.
    pub dependency_count: u16,
}

impl Request {
    /// What is left to do when so many of its output tokens are there already: they are part of the prompt then.
    #[must_use]
    pub fn after(self, generated: u32) -> Request {
        assert!(
            generated < self.output_tokens || generated == 0,
            "something is left to generate"
        );
        Request {
            input_tokens: self.input_tokens + generated,
            output_tokens: self.output_tokens - generated,
            ..self
        }
    }
}

/// One thing a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    /// The request waited for.
    pub on: RequestId,
    /// Which moment of its life.
    pub trigger: Trigger,
    /// How long after that moment.
    pub delay: Span,
}

/// The moment of a request's life that releases another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// When it was sent.
    Dispatch,
    /// When its last token arrived (or it was refused).
    Completion,
}

/// The requests of one run. Requests are sorted by arrival, ties in the order of the source; behind them stand those that no
/// client sends.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// In order of `arrival`.
    pub requests: Vec<Request>,
    /// Their contents.
    pub tree: PrefixTree,
    /// Grouped by the request that waits.
    pub dependencies: Vec<Dependency>,
    /// What requests say about themselves.
    pub annotations: AnnotationTable,
    /// What the last requests are, which no client sends: one each, in order. They stand behind all others whatever their
    /// arrival is, and wait for an answer.
    pub ahead: Vec<Ahead>,
}

/// A request that the front end sends itself when an answer ends, so that the next turn finds it in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Whose answer.
    pub of: RequestId,
    /// The next turn, if there is one.
    pub next: Option<RequestId>,
}

impl Workload {
    /// How many requests clients send: the first ones.
    #[must_use]
    pub fn of_clients(&self) -> usize {
        self.requests.len() - self.ahead.len()
    }

    /// The same without the requests that no client sends.
    #[must_use]
    pub fn without_ahead(&self) -> Workload {
        let mut without = self.clone();
        without.requests.truncate(self.of_clients());
        without.ahead.clear();
        without
    }

    /// What a request is sent ahead of, if no client sends it.
    #[must_use]
    pub fn ahead_of(&self, request: RequestId) -> Option<&Ahead> {
        let at = (request.0 as usize).checked_sub(self.of_clients())?;
        self.ahead.get(at)
    }

    /// What `request` waits for besides its arrival time.
    #[must_use]
    pub fn dependencies_of(&self, request: &Request) -> &[Dependency] {
        let from = request.first_dependency as usize;
        &self.dependencies[from..from + usize::from(request.dependency_count)]
    }

    /// What `request` says about itself, if anything.
    #[must_use]
    pub fn annotations_of(&self, request: RequestId) -> Option<&Annotations> {
        self.annotations.of(request.0 as usize)
    }

    /// Bytes held on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.requests.capacity() * size_of::<Request>()
            + self.dependencies.capacity() * size_of::<Dependency>()
            + self.tree.len() * 8
    }
}

/// A request as a reader hands it over; contents are token runs.
#[derive(Debug, Clone, Copy)]
pub struct NewRequest<'a> {
    /// See [`Request::arrival`].
    pub arrival: Time,
    /// The prompt; the sum of the lengths is the number of input tokens, at least 1 and below 2^31.
    pub prompt: &'a [Run],
    /// Tokens to generate, at least 1 and below 2^31.
    pub output_tokens: u32,
    /// See [`Request::priority`].
    pub priority: i32,
    /// See [`Request::session`].
    pub session: u32,
    /// What it waits for; `on` counts requests in the order of [`WorkloadBuilder::push`].
    pub dependencies: &'a [Dependency],
}

/// A request to be sent ahead of the next turn; both by the order of [`WorkloadBuilder::push`].
#[derive(Debug, Clone, Copy)]
pub struct NewAhead<'a> {
    /// Whose answer it follows.
    pub of: u32,
    /// The next turn, if there is one.
    pub next: Option<u32>,
    /// What is known of its prompt.
    pub prompt: &'a [Run],
}

/// Collects requests into a [`Workload`].
#[derive(Debug, Clone, Default)]
pub struct WorkloadBuilder {
    ahead: Vec<(Ahead, Request)>,
    tree: PrefixTreeBuilder,
    requests: Vec<Request>,
    dependencies: Vec<Dependency>,
    content: Vec<Run>,
    annotations: AnnotationTable,
}

impl WorkloadBuilder {
    /// An empty workload.
    #[must_use]
    pub fn new() -> Self {
        WorkloadBuilder::default()
    }

    /// The id of token `offset` of the content block `id` of a trace (`id` below 2^31, `offset` below 2^31).
    #[must_use]
    pub const fn block_token(id: u32, offset: u32) -> u64 {
        ((id as u64) << 31) | offset as u64
    }

    /// The id of a real token of a model's vocabulary.
    #[must_use]
    pub const fn vocabulary_token(token: u32) -> u64 {
        (1 << 62) | token as u64
    }

    /// The id of token `offset` of a content that no other request shares (`owner` below 2^31).
    #[must_use]
    pub const fn private_token(owner: u32, offset: u32) -> u64 {
        (2 << 62) | ((owner as u64) << 31) | offset as u64
    }

    /// The id of generated token `offset` of the `request`-th pushed request: a later turn that quotes an earlier
    /// answer names the answer's tokens by these.
    #[must_use]
    pub const fn output_token(request: u32, offset: u32) -> u64 {
        (3 << 62) | ((request as u64) << 31) | offset as u64
    }

    /// Number of requests pushed so far, which is the index of the next one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// True before the first push.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Adds a request. Its generated tokens are those of [`WorkloadBuilder::output_token`].
    pub fn push(&mut self, request: NewRequest<'_>) {
        let index = self.requests.len() as u32;
        let input_tokens: u32 = request.prompt.iter().map(|run| run.len).sum();
        assert!(
            input_tokens > 0 && request.output_tokens > 0,
            "a request has at least one token each way"
        );
        self.content.clear();
        self.content.extend_from_slice(request.prompt);
        self.content.push(Run {
            first: Self::output_token(index, 0),
            len: request.output_tokens,
        });
        let leaf = self.tree.insert(&self.content);
        self.requests.push(Request {
            arrival: request.arrival,
            input_tokens,
            output_tokens: request.output_tokens,
            leaf,
            priority: request.priority,
            session: request.session,
            first_dependency: self.dependencies.len() as u32,
            dependency_count: u16::try_from(request.dependencies.len())
                .expect("a request waits for < 65,536 others"),
        });
        self.dependencies.extend_from_slice(request.dependencies);
    }

    /// Adds a request that the front end sends itself, with one token of answer: of the session and priority of the request
    /// whose answer it follows. What that one says about where it goes, it says too.
    pub fn push_ahead(&mut self, new: NewAhead<'_>) {
        let request = self.requests[new.of as usize];
        // Contents of its own, from the last number down.
        let owner = (u32::MAX >> 1) - self.ahead.len() as u32;
        self.content.clear();
        self.content.extend_from_slice(new.prompt);
        self.content.push(Run {
            first: Self::output_token(owner, 0),
            len: 1,
        });
        let ahead = Ahead {
            of: RequestId(new.of),
            next: new.next.map(RequestId),
        };
        let request = Request {
            input_tokens: new.prompt.iter().map(|run| run.len).sum(),
            output_tokens: 1,
            leaf: self.tree.insert(&self.content),
            dependency_count: 1,
            ..request
        };
        assert!(request.input_tokens > 0, "a prompt has a token");
        self.ahead.push((ahead, request));
    }

    /// The request pushed last says this about itself.
    pub fn annotate(&mut self, annotations: &Annotations) {
        let last = self.requests.len().checked_sub(1);
        self.annotations
            .set(last.expect("a request was pushed"), annotations);
    }

    /// The workload, stably sorted by arrival; dependencies follow the requests they name.
    #[must_use]
    pub fn finish(self) -> Workload {
        let WorkloadBuilder {
            tree,
            mut requests,
            mut dependencies,
            mut annotations,
            ahead: mut sent_ahead,
            ..
        } = self;
        if !requests.is_sorted_by_key(|request| request.arrival) {
            let mut order: Vec<u32> = (0..requests.len() as u32).collect();
            order.sort_by_key(|&index| requests[index as usize].arrival);
            let mut place = vec![0; order.len()];
            for (new, &old) in order.iter().enumerate() {
                place[old as usize] = new as u32;
            }
            annotations.reorder(&order);
            requests = order.iter().map(|&old| requests[old as usize]).collect();
            for dependency in &mut dependencies {
                dependency.on = RequestId(place[dependency.on.0 as usize]);
            }
            for (ahead, _) in &mut sent_ahead {
                for request in std::iter::once(&mut ahead.of).chain(&mut ahead.next) {
                    request.0 = place[request.0 as usize];
                }
            }
        }
        let mut ahead = Vec::with_capacity(sent_ahead.len());
        for (of, mut request) in sent_ahead {
            request.first_dependency = dependencies.len() as u32;
            dependencies.push(Dependency {
                on: of.of,
                trigger: Trigger::Completion,
                delay: Span::ZERO,
            });
            if let Some(said) = annotations.of(of.of.0 as usize) {
                let said = said.sent_ahead();
                annotations.set(requests.len(), &said);
            }
            requests.push(request);
            ahead.push(of);
        }
        requests.shrink_to_fit();
        Workload {
            ahead,
            requests,
            tree: tree.finish(),
            dependencies,
            annotations,
        }
    }
}
