//! Rows of the tables on their way to grids: places met twice, the order of a walk, kernels of the same shape.

use super::super::gemm::Shape as GemmShape;
use super::super::grid::{Grid, Point};
use super::super::parquet::ParquetFile;
use super::Repeats;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The places of one file, to find one that was measured twice.
pub(super) struct Places<K> {
    first: BTreeMap<(K, String), usize>,
    repeats: Repeats,
}

impl<K: Ord> Places<K> {
    pub(super) const fn new(repeats: Repeats) -> Places<K> {
        Places {
            first: BTreeMap::new(),
            repeats,
        }
    }

    /// Enters a row; one more of the same place and kernel is a problem of the file, unless the first counts.
    pub(super) fn enter(&mut self, file: &mut ParquetFile, row: usize, place: K, kernel: &str) {
        let first = *self.first.entry((place, kernel.to_owned())).or_insert(row);
        if first != row && self.repeats == Repeats::Refuse {
            let found = format!("the place and kernel of row {} again", first + 1);
            let expected = "each place measured once by a kernel (--repeats first takes the first)";
            file.problem(row, "keys", found, expected);
        }
    }
}

/// The columns all attention tables have.
pub(super) struct Attention {
    pub(super) batch: Vec<u32>,
    pub(super) isl: Vec<u32>,
    pub(super) ms: Vec<f64>,
    heads: Vec<u32>,
    kv_heads: Vec<u32>,
    head_dim: Vec<u32>,
    window: Vec<u32>,
}

/// What attention a row is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) heads: u32,
    /// 0 when there are as many as query heads.
    pub(super) kv_heads: u32,
    pub(super) head_dim: u32,
    pub(super) window: u32,
}

impl Attention {
    pub(super) fn read(file: &mut ParquetFile) -> Attention {
        Attention {
            batch: file.whole("batch_size"),
            isl: file.whole("isl"),
            ms: file.latency(),
            heads: file.whole("num_heads"),
            kv_heads: file.whole("num_key_value_heads"),
            head_dim: file.whole("head_dim"),
            window: file.whole_or_zero("window_size"),
        }
    }

    pub(super) fn shape(&self, file: &mut ParquetFile, row: usize) -> Option<Shape> {
        let (heads, kv_heads) = (self.heads[row], self.kv_heads[row]);
        let sizes = [
            heads,
            kv_heads,
            self.head_dim[row],
            self.batch[row],
            self.isl[row],
        ];
        if sizes.contains(&0) {
            file.problem(
                row,
                "sizes",
                "a zero",
                "heads, head size, batch and tokens of at least 1",
            );
            return None;
        }
        let kv_heads = if kv_heads == heads { 0 } else { kv_heads };
        Some(Shape {
            heads,
            kv_heads,
            head_dim: self.head_dim[row],
            window: self.window[row],
        })
    }
}

/// Measurements by key, the first of a place counting.
pub(super) struct Firsts<K, const N: usize> {
    points: BTreeMap<K, BTreeMap<[u32; N], f64>>,
}

impl<K: Ord, const N: usize> Firsts<K, N> {
    pub(super) const fn new() -> Firsts<K, N> {
        Firsts {
            points: BTreeMap::new(),
        }
    }

    /// Enters a measurement; false if its place has one already.
    pub(super) fn enter(&mut self, key: K, at: [u32; N], ms: f64) -> bool {
        let place = self.points.entry(key).or_default().entry(at);
        let is_first = matches!(place, Entry::Vacant(_));
        place.or_insert(ms);
        is_first
    }

    /// The grid of each key.
    pub(super) fn grids(self) -> BTreeMap<K, Grid<N>> {
        let grid = |points: BTreeMap<[u32; N], f64>| {
            let points = points.into_iter().map(|(at, ms)| Point { at, ms });
            Grid::new(points.collect())
        };
        let keyed = self.points.into_iter();
        keyed.map(|(key, points)| (key, grid(points))).collect()
    }
}

/// Matrix products in the order of the file, to find in which order a walk meets their shapes.
#[derive(Default)]
pub(super) struct Walk {
    ms: BTreeMap<(u32, u32, u32), f64>,
    rank_m: BTreeMap<u32, usize>,
    rank_n: BTreeMap<(u32, u32), usize>,
    rank_k: BTreeMap<(u32, u32, u32), usize>,
}

impl Walk {
    /// Enters a measurement; false if its place has one already.
    pub(super) fn enter(&mut self, m: u32, n: u32, k: u32, ms: f64) -> bool {
        if self.ms.contains_key(&(m, n, k)) {
            return false;
        }
        let order = self.ms.len();
        self.ms.insert((m, n, k), ms);
        self.rank_m.entry(m).or_insert(order);
        self.rank_n.entry((m, n)).or_insert(order);
        self.rank_k.entry((m, n, k)).or_insert(order);
        true
    }

    /// Each shape with its curve, in the order of a walk over rows, then columns, then lengths of the sums.
    pub(super) fn shapes(self) -> Vec<GemmShape> {
        let mut shapes: BTreeMap<(u32, u32), ([usize; 3], GemmShape)> = BTreeMap::new();
        for (&(m, n, k), &ms) in &self.ms {
            let met = [
                self.rank_m[&m],
                self.rank_n[&(m, n)],
                self.rank_k[&(m, n, k)],
            ];
            let curve = Vec::new();
            let (first_met, shape) = shapes
                .entry((n, k))
                .or_insert((met, GemmShape { n, k, curve }));
            *first_met = met.min(*first_met);
            shape.curve.push((m, ms));
        }
        let mut shapes: Vec<_> = shapes.into_values().collect();
        shapes.sort_by_key(|(met, _)| *met);
        shapes.into_iter().map(|(_, shape)| shape).collect()
    }
}

/// Source and latency by place.
type Lane = BTreeMap<[u32; 3], (usize, f64)>;

/// Attention measurements by key and kernel, first source first.
pub(super) struct Lanes<K> {
    points: BTreeMap<K, BTreeMap<String, Lane>>,
}

impl<K> Default for Lanes<K> {
    fn default() -> Lanes<K> {
        Lanes {
            points: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy> Lanes<K> {
    pub(super) fn enter(&mut self, key: K, kernel: &str, source: usize, point: Point<3>) {
        let lane = self
            .points
            .entry(key)
            .or_default()
            .entry(kernel.to_owned())
            .or_default();
        lane.entry(point.at).or_insert((source, point.ms));
    }

    /// One kernel's grid per key, and the rows used of each source.
    pub(super) fn grids(
        self,
        default_lane: Option<&str>,
        sources: usize,
    ) -> (BTreeMap<K, Grid<3>>, Vec<usize>) {
        let mut density: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for lanes in self.points.values() {
            for (kernel, points) in lanes {
                let (keys, rows) = density.entry(kernel.clone()).or_default();
                (*keys, *rows) = (*keys + 1, *rows + points.len());
            }
        }
        // The engine's own kernel first, then the one measured most.
        let rank = |kernel: &str| (Some(kernel) == default_lane, density[kernel]);
        let mut used = vec![0; sources];
        let mut grids = BTreeMap::new();
        for (key, lanes) in self.points {
            let best = lanes
                .keys()
                .rev()
                .max_by_key(|kernel| rank(kernel))
                .expect("a key has a lane")
                .clone();
            let points = lanes[&best].iter().map(|(&at, &(source, ms))| {
                used[source] += 1;
                Point { at, ms }
            });
            grids.insert(key, Grid::new(points.collect()));
        }
        (grids, used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_by_rows_then_columns_then_sums_in_order_of_appearance() {
        let mut walk = Walk::default();
        for (m, n, k) in [(8, 2, 1), (4, 3, 1), (8, 1, 9), (4, 7, 7), (8, 2, 5)] {
            assert!(walk.enter(m, n, k, 1.0));
        }
        assert!(!walk.enter(8, 2, 1, 2.0), "the first counts");
        let sizes: Vec<_> = walk
            .shapes()
            .iter()
            .map(|shape| (shape.n, shape.k))
            .collect();
        // All shapes met at m = 8 come before those of m = 4; under it n = 2 (k = 1, then 5) before n = 1.
        assert_eq!(sizes, [(2, 1), (2, 5), (1, 9), (3, 1), (7, 7)]);
    }

    #[test]
    fn the_engines_kernel_counts_then_the_densest() {
        let mut lanes = Lanes::default();
        let point = |x, ms| Point { at: [1, 1, x], ms };
        for (key, kernel, x, ms) in [
            (0, "slow", 1, 9.0),
            (0, "own", 1, 1.0),
            (1, "slow", 1, 9.0),
            (1, "other", 1, 5.0),
            (1, "slow", 2, 9.0),
        ] {
            lanes.enter(key, kernel, 0, point(x, ms));
        }
        let (grids, used) = lanes.grids(Some("own"), 1);
        assert_eq!(grids[&0].points()[0].ms, 1.0);
        assert_eq!(grids[&1].points()[0].ms, 9.0);
        assert_eq!(used, [3]);
    }
}
