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
use super::keys::BlockKey;
use super::{Machine, Profile, Provenance};
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
    LatentContext,
    LatentGeneration,
    Absorb,
    Experts,
    Nccl,
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
    let mut writer = Writer::default();
    for (dtype, table) in &profile.gemm {
        writer.add(Table::Gemm, dtype, &walked(table));
    }
    writer.add_grids(Table::Context, &profile.context);
    writer.add_grids(Table::Generation, &profile.generation);
    writer.add_grids(Table::AllReduce, &profile.all_reduce);
    writer.add_grids(Table::LatentContext, &profile.latent_context);
    writer.add_grids(Table::LatentGeneration, &profile.latent_generation);
    writer.add_grids(Table::Absorb, &profile.absorb);
    writer.add_grids(Table::Experts, &profile.experts);
    writer.add_grids(Table::Nccl, &profile.nccl);
    let Writer { blocks, columns } = writer;
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

/// Blocks on their way to a file.
#[derive(Default)]
struct Writer {
    blocks: Vec<Block>,
    columns: Columns,
}

impl Writer {
    fn add<const N: usize>(&mut self, table: Table, key: &impl BlockKey, points: &[Point<N>]) {
        self.blocks.push(Block {
            table,
            key: key.code(),
            axes: N,
            points: points.len(),
        });
        let numbers = &mut self.columns.numbers;
        for axis in 0..N {
            numbers.extend(points.iter().map(|point| point.at[axis]));
        }
        numbers.extend(points.iter().map(|point| (point.ms as f32).to_bits()));
    }

    fn add_grids<const N: usize>(
        &mut self,
        table: Table,
        grids: &BTreeMap<impl BlockKey, Grid<N>>,
    ) {
        for (key, grid) in grids {
            self.add(table, key, grid.points());
        }
    }
}

/// The points of matrix products in the order of the walk: n, k, m.
fn walked(table: &GemmTable) -> Vec<Point<3>> {
    let of_shape = |shape: &Shape| {
        let (n, k) = (shape.n, shape.k);
        let points = shape.curve.iter();
        points
            .map(|&(m, ms)| Point { at: [n, k, m], ms })
            .collect::<Vec<_>>()
    };
    table.shapes().iter().flat_map(of_shape).collect()
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
        latent_context: BTreeMap::new(),
        latent_generation: BTreeMap::new(),
        absorb: BTreeMap::new(),
        experts: BTreeMap::new(),
        nccl: BTreeMap::new(),
    };
    for block in &head.blocks {
        enter(&mut profile, block, &mut columns)
            .ok_or_else(|| bad(format!("a block {block:?} that cannot be")))?;
    }
    Ok(profile)
}

/// Enters a block; none where its key, axes or numbers cannot be.
fn enter(profile: &mut Profile, block: &Block, columns: &mut Columns) -> Option<()> {
    let key = &block.key;
    match block.table {
        Table::Gemm => {
            let table = gemm(&points(block, columns)?)?;
            profile.gemm.insert(BlockKey::decode(key)?, table);
        }
        Table::Context => insert(&mut profile.context, block, columns)?,
        Table::Generation => insert(&mut profile.generation, block, columns)?,
        Table::AllReduce => insert(&mut profile.all_reduce, block, columns)?,
        Table::LatentContext => insert(&mut profile.latent_context, block, columns)?,
        Table::LatentGeneration => insert(&mut profile.latent_generation, block, columns)?,
        Table::Absorb => insert(&mut profile.absorb, block, columns)?,
        Table::Experts => insert(&mut profile.experts, block, columns)?,
        Table::Nccl => insert(&mut profile.nccl, block, columns)?,
    }
    Some(())
}

fn insert<K: BlockKey + Ord, const N: usize>(
    grids: &mut BTreeMap<K, Grid<N>>,
    block: &Block,
    columns: &mut Columns,
) -> Option<()> {
    let grid = Grid::new(points(block, columns)?);
    grids.insert(K::decode(&block.key)?, grid);
    Some(())
}

fn points<const N: usize>(block: &Block, columns: &mut Columns) -> Option<Vec<Point<N>>> {
    if block.axes != N {
        return None;
    }
    let at: [&[u32]; N] = {
        let from = columns.taken;
        columns.taken += (N + 1) * block.points;
        std::array::from_fn(|axis| &columns.numbers[from + axis * block.points..][..block.points])
    };
    let latencies = &columns.numbers[columns.taken - block.points..columns.taken];
    let mut points = Vec::with_capacity(block.points);
    for (row, &bits) in latencies.iter().enumerate() {
        let ms = f64::from(f32::from_bits(bits));
        if !(ms.is_finite() && ms > 0.0) {
            return None;
        }
        points.push(Point {
            at: std::array::from_fn(|axis| at[axis][row]),
            ms,
        });
    }
    Some(points)
}

fn gemm(points: &[Point<3>]) -> Option<GemmTable> {
    let mut shapes: Vec<Shape> = Vec::new();
    for &Point { at: [n, k, m], ms } in points {
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
        let (low, high) = raw.split_at(2 * count);
        let (low, high) = (low.split_at(count), high.split_at(count));
        let bytes = low.0.iter().zip(low.1).zip(high.0.iter().zip(high.1));
        let number = |((a, b), (c, d)): ((&u8, &u8), (&u8, &u8))| [*a, *b, *c, *d];
        Columns {
            numbers: bytes
                .map(|planes| u32::from_le_bytes(number(planes)))
                .collect(),
            taken: 0,
        }
    }
}
