//! The compact file of a profile.
//!
//! ```text
//! "dynosim tables 1\n"   what it is
//! {…}\n                  one line of JSON: provenance, machine, and of each block its table, key, axes and points
//! zstd(columns)          of all blocks together: coordinates axis by axis, then latencies
//! ```
//!
//! Coordinates are little-endian `u32`, latencies `f32` milliseconds (6e-8 relative); the four bytes of a number are kept
//! in four planes, which compresses better. The bytes depend on the profile alone. A file is read as a whole: cut short,
//! with bytes changed or numbers that cannot be it is refused.

use super::gemm::{GemmTable, Shape};
use super::grid::{Grid, Point};
use super::{ContextKey, Dtype, GenerationKey, Machine, Profile, Provenance};
use crate::error::{CalibrationError, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MAGIC: &[u8] = b"dynosim tables 1\n";
const LEVEL: i32 = 19;
/// Most points of a file; the largest database has two million rows.
const MOST_POINTS: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Table {
    Gemm,
    Context,
    Generation,
    AllReduce,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    provenance: Provenance,
    machine: Machine,
    blocks: Vec<Block>,
    /// BLAKE3 of the columns.
    blake3: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Block {
    table: Table,
    key: Vec<u32>,
    axes: usize,
    points: usize,
}

/// The bytes of a profile's file.
#[must_use]
pub fn encode(profile: &Profile) -> Vec<u8> {
    let mut blocks = Vec::new();
    let mut columns = Columns::default();
    let mut add = |table, key: Vec<u32>, axes, points: Vec<(Vec<u32>, f64)>| {
        blocks.push(Block {
            table,
            key,
            axes,
            points: points.len(),
        });
        for axis in 0..axes {
            columns
                .numbers
                .extend(points.iter().map(|(at, _)| at[axis]));
        }
        columns
            .numbers
            .extend(points.iter().map(|(_, ms)| (*ms as f32).to_bits()));
    };
    for (dtype, table) in &profile.gemm {
        let of_shape = |shape: &Shape| {
            let (n, k) = (shape.n, shape.k);
            shape
                .curve
                .iter()
                .map(move |&(m, ms)| (vec![n, k, m], ms))
                .collect::<Vec<_>>()
        };
        add(
            Table::Gemm,
            vec![code(*dtype)],
            3,
            table.shapes().iter().flat_map(of_shape).collect(),
        );
    }
    for (key, grid) in &profile.context {
        let ContextKey {
            attention,
            kv_cache,
            kv_heads,
            head_dim,
            window,
        } = *key;
        add(
            Table::Context,
            vec![code(attention), code(kv_cache), kv_heads, head_dim, window],
            3,
            listed(grid),
        );
    }
    for (key, grid) in &profile.generation {
        let GenerationKey {
            kv_cache,
            kv_heads,
            head_dim,
            window,
        } = *key;
        add(
            Table::Generation,
            vec![code(kv_cache), kv_heads, head_dim, window],
            3,
            listed(grid),
        );
    }
    for (&gpus, curve) in &profile.all_reduce {
        add(Table::AllReduce, vec![gpus], 1, listed(curve));
    }
    let raw = columns.planes();
    let head = Head {
        provenance: profile.provenance.clone(),
        machine: profile.machine.clone(),
        blocks,
        blake3: blake3::hash(&raw).to_hex().to_string(),
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(serde_json::to_vec(&head).expect("a head is plain data"));
    bytes.push(b'\n');
    bytes.extend(zstd::bulk::compress(&raw, LEVEL).expect("memory can be compressed into memory"));
    bytes
}

/// The profile of these bytes; `name` is what messages call the file.
///
/// # Errors
/// It is not such a file, was cut short or changed.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Profile, CalibrationError> {
    let bad = |found: String| {
        let problem = Problem::new(name, found, "a file made by `dynosim calibrate import-aic`");
        CalibrationError::Invalid(vec![problem])
    };
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| bad("another beginning".to_owned()))?;
    let end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| bad("no end of its head".to_owned()))?;
    let head: Head = serde_json::from_slice(&rest[..end])
        .map_err(|error| bad(format!("a head that is broken: {error}")))?;
    let numbers = head
        .blocks
        .iter()
        .map(|block| (block.axes + 1).saturating_mul(block.points))
        .fold(0usize, usize::saturating_add);
    if numbers > MOST_POINTS || head.blocks.iter().any(|block| block.points == 0) {
        return Err(bad(format!("{numbers} numbers")));
    }
    let raw = zstd::bulk::decompress(&rest[end + 1..], 4 * numbers)
        .map_err(|error| bad(format!("columns that are broken: {error}")))?;
    if raw.len() != 4 * numbers || blake3::hash(&raw).to_hex().as_str() != head.blake3 {
        return Err(bad("columns that were changed".to_owned()));
    }
    let mut columns = Columns::from_planes(&raw);
    let mut profile = Profile {
        provenance: head.provenance,
        machine: head.machine,
        gemm: BTreeMap::new(),
        context: BTreeMap::new(),
        generation: BTreeMap::new(),
        all_reduce: BTreeMap::new(),
    };
    for block in &head.blocks {
        enter(&mut profile, block, &mut columns)
            .ok_or_else(|| bad(format!("a block {block:?} that cannot be")))?;
    }
    Ok(profile)
}

fn enter(profile: &mut Profile, block: &Block, columns: &mut Columns) -> Option<()> {
    let at: Vec<Vec<u32>> = (0..block.axes)
        .map(|_| columns.take(block.points))
        .collect();
    let ms: Vec<f64> = columns
        .take(block.points)
        .into_iter()
        .map(|bits| f64::from(f32::from_bits(bits)))
        .collect();
    if ms.iter().any(|ms| !(ms.is_finite() && *ms > 0.0)) {
        return None;
    }
    match (block.table, &block.key[..]) {
        (Table::Gemm, &[dtype]) if block.axes == 3 => {
            profile.gemm.insert(dtype_of(dtype)?, gemm(&at, &ms)?);
        }
        (Table::Context, &[attention, kv_cache, kv_heads, head_dim, window]) if block.axes == 3 => {
            let (attention, kv_cache) = (dtype_of(attention)?, dtype_of(kv_cache)?);
            let key = ContextKey {
                attention,
                kv_cache,
                kv_heads,
                head_dim,
                window,
            };
            profile.context.insert(key, grid(&at, &ms));
        }
        (Table::Generation, &[kv_cache, kv_heads, head_dim, window]) if block.axes == 3 => {
            let key = GenerationKey {
                kv_cache: dtype_of(kv_cache)?,
                kv_heads,
                head_dim,
                window,
            };
            profile.generation.insert(key, grid(&at, &ms));
        }
        (Table::AllReduce, &[gpus]) if block.axes == 1 => {
            profile.all_reduce.insert(gpus, grid(&at, &ms));
        }
        _ => return None,
    }
    Some(())
}

fn gemm(at: &[Vec<u32>], ms: &[f64]) -> Option<GemmTable> {
    let mut shapes: Vec<Shape> = Vec::new();
    for (row, &ms) in ms.iter().enumerate() {
        let [n, k, m] = [at[0][row], at[1][row], at[2][row]];
        match shapes.last_mut() {
            Some(shape) if (shape.n, shape.k) == (n, k) => {
                let ascends = shape.curve.last().is_some_and(|&(last, _)| last < m);
                ascends.then(|| shape.curve.push((m, ms)))?;
            }
            _ => shapes.push(Shape {
                n,
                k,
                curve: vec![(m, ms)],
            }),
        }
    }
    Some(GemmTable::new(shapes))
}

fn grid<const N: usize>(at: &[Vec<u32>], ms: &[f64]) -> Grid<N> {
    let point = |(row, &ms): (usize, &f64)| Point {
        at: std::array::from_fn(|axis| at[axis][row]),
        ms,
    };
    Grid::new(ms.iter().enumerate().map(point).collect())
}

fn listed<const N: usize>(grid: &Grid<N>) -> Vec<(Vec<u32>, f64)> {
    grid.points()
        .iter()
        .map(|point| (point.at.to_vec(), point.ms))
        .collect()
}

fn code(dtype: Dtype) -> u32 {
    Dtype::ALL
        .iter()
        .position(|other| *other == dtype)
        .expect("all formats are listed") as u32
}

fn dtype_of(code: u32) -> Option<Dtype> {
    Dtype::ALL.get(code as usize).copied()
}

/// Numbers on their way to or from a file.
#[derive(Default)]
struct Columns {
    numbers: Vec<u32>,
    taken: usize,
}

impl Columns {
    fn planes(&self) -> Vec<u8> {
        let plane = |byte: usize| {
            self.numbers
                .iter()
                .map(move |number| number.to_le_bytes()[byte])
        };
        (0..4).flat_map(plane).collect()
    }

    fn from_planes(raw: &[u8]) -> Columns {
        let count = raw.len() / 4;
        let number =
            |i: usize| u32::from_le_bytes(std::array::from_fn(|byte| raw[byte * count + i]));
        Columns {
            numbers: (0..count).map(number).collect(),
            taken: 0,
        }
    }

    fn take(&mut self, count: usize) -> Vec<u32> {
        self.taken += count;
        self.numbers[self.taken - count..self.taken].to_vec()
    }
}
