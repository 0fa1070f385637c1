//! What is cached where, without events from the workers: what was sent somewhere is taken to stay there for a while.
//!
//! The blocks of a placed request count as stored on its worker. Each key lives for `ttl` from its last insertion, rounded
//! up to the next 100 ms since the start. Source: dynamo-kv-router 1.6, pruning; recorded in
//! `tests/golden/router/approx_ttl_basic.json`.

use engine::{Span, Time};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::hash::Hash;

/// Keys expire together if they expire within the same stretch of this length.
const BUCKET: u64 = 100_000_000_000;

/// Keys and when they expire.
#[derive(Debug, Clone)]
pub struct TimeToLive<K> {
    ttl: Span,
    expiry: FxHashMap<K, u64>,
    /// By bucket, in order of insertion; a key that was refreshed stands in later ones too.
    buckets: BTreeMap<u64, Vec<K>>,
}

impl<K: Copy + Eq + Hash> TimeToLive<K> {
    /// Nothing yet; the clock starts at 0.
    #[must_use]
    pub fn new(ttl: Span) -> Self {
        TimeToLive {
            ttl,
            expiry: FxHashMap::default(),
            buckets: BTreeMap::new(),
        }
    }

    /// Keys that live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expiry.len()
    }

    /// True if no key lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expiry.is_empty()
    }

    /// Lets a key live from now on.
    pub fn insert(&mut self, now: Time, key: K) {
        let bucket = (now + self.ttl).0.div_ceil(BUCKET);
        if self.expiry.insert(key, bucket) != Some(bucket) {
            self.buckets.entry(bucket).or_default().push(key);
        }
    }

    /// Ends a key's life. False if it did not live.
    pub fn remove(&mut self, key: K) -> bool {
        self.expiry.remove(&key).is_some()
    }

    /// Takes out the keys that expire first, and says in which stretch of time they do.
    pub fn take_first(&mut self) -> Option<(u64, Vec<K>)> {
        while let Some((bucket, keys)) = self.buckets.pop_first() {
            let mut taken = Vec::new();
            for key in keys {
                if self.expiry.get(&key) == Some(&bucket) {
                    self.expiry.remove(&key);
                    taken.push(key);
                }
            }
            if !taken.is_empty() {
                return Some((bucket, taken));
            }
        }
        None
    }

    /// Lets a key live until a stretch of time that [`TimeToLive::take_first`] said.
    pub fn put_back(&mut self, bucket: u64, key: K) {
        self.expiry.insert(key, bucket);
        self.buckets.entry(bucket).or_default().push(key);
    }

    /// Takes the keys that have expired by now, in order of expiry.
    pub fn pop_expired(&mut self, now: Time, mut expired: impl FnMut(K)) {
        while let Some(bucket) = self.buckets.first_entry() {
            if *bucket.key() * BUCKET > now.0 {
                return;
            }
            let (time, keys) = bucket.remove_entry();
            for key in keys {
                if self.expiry.get(&key) == Some(&time) {
                    self.expiry.remove(&key);
                    expired(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_taken_out_and_inserted_again_expires_once() {
        let mut keys = TimeToLive::new(Span(BUCKET));
        keys.insert(Time(0), 'a');
        assert!(keys.remove('a'));
        keys.insert(Time(0), 'a');
        let mut expired = Vec::new();
        keys.pop_expired(Time(BUCKET - 1), |key| expired.push(key));
        assert!(expired.is_empty() && keys.len() == 1);
        keys.pop_expired(Time(BUCKET), |key| expired.push(key));
        assert_eq!((expired, keys.is_empty()), (vec!['a'], true));
    }
}
