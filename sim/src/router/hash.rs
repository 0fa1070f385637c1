//! Names of blocks as Dynamo's router computes them, so that routers, workers and indexes agree without talking.
//!
//! ```text
//! local[i]    = XXH3-64(tokens of block i as little-endian u32, seed)
//! sequence[0] = local[0]
//! sequence[i] = XXH3-64(sequence[i-1] ‖ local[i] as little-endian u64, seed 1337)
//! seed        = 1337 + XXH3-64(LoRA name, seed 0) + XXH3-64(cache namespace, seed 1)    (wrapping; empty adds nothing)
//! ```
//!
//! Only whole blocks have names. With Eagle speculation a block of `block_size` tokens is hashed together with the token
//! behind it, so that its draft cache is valid wherever the name is equal. Source: dynamo-tokens and dynamo-kv-hashing 1.6.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The seed of names without adapter and namespace.
const SEED: u64 = 1337;

/// What else must be equal for two blocks to be interchangeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashScope<'a> {
    /// Name of the LoRA adapter; empty for none.
    pub lora_name: &'a str,
    /// Whose cache it is; empty for everyone's.
    pub cache_namespace: &'a str,
    /// Whether the token behind a block is part of its name.
    pub is_eagle: bool,
}

impl HashScope<'_> {
    fn seed(&self) -> u64 {
        let part = |name: &str, seed| {
            if name.is_empty() {
                0
            } else {
                xxh3_64_with_seed(name.as_bytes(), seed)
            }
        };
        SEED.wrapping_add(part(self.lora_name, 0))
            .wrapping_add(part(self.cache_namespace, 1))
    }
}

/// One name per whole block, each of the block's own tokens alone.
#[must_use]
pub fn local_hashes(tokens: &[u32], block_size: u32, scope: &HashScope<'_>) -> Vec<u64> {
    let (stride, seed) = (block_size as usize, scope.seed());
    let width = stride + usize::from(scope.is_eagle);
    let mut bytes = Vec::with_capacity(width * 4);
    let mut hash = |block: &[u32]| {
        bytes.clear();
        bytes.extend(block.iter().flat_map(|token| token.to_le_bytes()));
        xxh3_64_with_seed(&bytes, seed)
    };
    tokens
        .windows(width)
        .step_by(stride)
        .map(&mut hash)
        .collect()
}

/// One name per block that stands for its whole prefix.
#[must_use]
pub fn sequence_hashes(local: &[u64]) -> Vec<u64> {
    let mut before = None;
    let chain = |&block: &u64| {
        let name = before.map_or(block, |before| next_sequence_hash(before, block));
        before = Some(name);
        name
    };
    local.iter().map(chain).collect()
}

/// The name of the block `local` behind the block that is named `parent`.
#[must_use]
pub fn next_sequence_hash(parent: u64, local: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&parent.to_le_bytes());
    bytes[8..].copy_from_slice(&local.to_le_bytes());
    xxh3_64_with_seed(&bytes, SEED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_count_and_eagle_needs_one_token_more() {
        let tokens: Vec<u32> = (0..9).collect();
        let plain = HashScope::default();
        let eagle = HashScope {
            is_eagle: true,
            ..plain
        };
        assert_eq!(local_hashes(&tokens, 4, &plain).len(), 2);
        assert_eq!(local_hashes(&tokens, 4, &eagle).len(), 2);
        assert_eq!(local_hashes(&tokens[..8], 4, &eagle).len(), 1);
        assert_eq!(local_hashes(&tokens[..3], 4, &plain), [] as [u64; 0]);
        // The second Eagle block begins where the second plain one does.
        assert_ne!(
            local_hashes(&tokens, 4, &plain)[1],
            local_hashes(&tokens, 4, &eagle)[1]
        );
    }

    #[test]
    fn equal_names_need_equal_prefixes_and_scopes() {
        let (a, b) = (sequence_hashes(&[1, 2, 3]), sequence_hashes(&[9, 2, 3]));
        assert_eq!(a[0], 1);
        assert!(a.iter().zip(&b).all(|(a, b)| a != b));
        let tokens = [5; 8];
        let scope = |lora_name, cache_namespace| HashScope {
            lora_name,
            cache_namespace,
            is_eagle: false,
        };
        let names: std::collections::BTreeSet<Vec<u64>> = [
            scope("", ""),
            scope("x", ""),
            scope("", "x"),
            scope("x", "x"),
        ]
        .map(|scope| local_hashes(&tokens, 4, &scope))
        .into();
        assert_eq!(names.len(), 4);
    }
}
