//! Matrix products: a curve over the rows m for every measured shape (n, k) of the weights.
//!
//! A measured shape is read on its own curve: linear between points, and beyond its ends with the median efficiency
//! (roofline / latency) of the last three points. Any other shape takes its efficiency from the four measured shapes
//! nearest in log2 space whose curves cover m, weighted by 1/d², none farther than two octaves. One case may be farther:
//! a shape larger than all of them in exactly one of n and k (an LM head), if the other lies within two octaves.
//!
//! Shapes at equal distance are ranked by the order in which a walk over the file meets them (m first, then n, then k,
//! each in order of first appearance); the table keeps its shapes in that order (`aic-timing` §3.4).

use super::Reach;
use std::collections::BTreeMap;

/// Octaves beyond which a shape says nothing about another.
const GATE: f64 = 2.0;
const NEIGHBOURS: usize = 4;
const TAIL: usize = 3;

/// One shape of the weights and its measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Columns of the product.
    pub n: u32,
    /// Length of the sums.
    pub k: u32,
    /// Rows and latency in milliseconds, ascending in rows, at least one.
    pub curve: Vec<(u32, f64)>,
}

/// All shapes of one precision.
#[derive(Debug, Clone, PartialEq)]
pub struct GemmTable {
    shapes: Vec<Shape>,
    by_size: BTreeMap<(u32, u32), usize>,
}

/// The least time of an (m, n, k) product on the hardware, in milliseconds.
pub type GemmRoofline<'a> = &'a dyn Fn(f64, f64, f64) -> f64;

/// A shape to be read, with its measured neighbours ranked.
#[derive(Debug, Clone)]
pub struct Anchors {
    n: u32,
    k: u32,
    /// The shape itself, if it was measured.
    own: Option<usize>,
    /// Larger or smaller than every measured shape in n or k.
    is_outside: bool,
    /// All shapes by distance, then by their order in the table.
    ranked: Vec<(f64, usize)>,
}

impl GemmTable {
    /// A table of these shapes, in the order of the walk.
    #[must_use]
    pub fn new(shapes: Vec<Shape>) -> GemmTable {
        let by_size = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| ((shape.n, shape.k), i))
            .collect();
        GemmTable { shapes, by_size }
    }

    /// The shapes, in the order of the walk.
    #[must_use]
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// Numbers of rows between which the shapes that cover them stay the same: each end of a curve, and beside it.
    #[must_use]
    pub fn turns(&self) -> Vec<f64> {
        let ends = |shape: &Shape| [shape.curve[0].0, shape.curve[shape.curve.len() - 1].0];
        let mut ends: Vec<u32> = self.shapes.iter().flat_map(ends).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.into_iter()
            .flat_map(|rows| [-0.5, 0.0, 0.5].map(|beside| f64::from(rows) + beside))
            .collect()
    }

    /// Prepares the reading of products with an (n, k) weight.
    #[must_use]
    pub fn anchors(&self, n: u32, k: u32) -> Anchors {
        let own = self.by_size.get(&(n, k)).copied();
        let mut ranked = Vec::new();
        if own.is_none() {
            let log = |value: u32| f64::from(value).log2();
            let (x, y) = (log(n), log(k));
            ranked.extend(self.shapes.iter().enumerate().map(|(i, shape)| {
                let (dx, dy) = (log(shape.n) - x, log(shape.k) - y);
                ((dx * dx + dy * dy).sqrt(), i)
            }));
            ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        }
        let within = |value: u32, of: fn(&Shape) -> u32| {
            let sizes = || self.shapes.iter().map(of);
            sizes().min() <= Some(value) && Some(value) <= sizes().max()
        };
        let is_outside = !within(n, |shape| shape.n) || !within(k, |shape| shape.k);
        Anchors {
            n,
            k,
            own,
            is_outside,
            ranked,
        }
    }

    /// The latency of a product with `m` rows in milliseconds; none if no measured shape is near enough.
    #[must_use]
    pub fn read(
        &self,
        anchors: &Anchors,
        m: f64,
        roofline: GemmRoofline<'_>,
    ) -> Option<(f64, Reach)> {
        if let Some(own) = anchors.own {
            return along(&self.shapes[own], m, roofline);
        }
        let neighbours = self.neighbours(anchors, m)?;
        let (mut weights, mut efficiency) = (0.0, 0.0);
        let mut beyond = anchors.is_outside;
        for (d, i) in neighbours {
            let shape = &self.shapes[i];
            let Some((ms, reach)) = along(shape, m, roofline) else {
                continue;
            };
            beyond |= reach == Reach::Extrapolated;
            let weight = 1.0 / (d * d + 1e-12);
            weights += weight;
            efficiency += weight * roofline(m, f64::from(shape.n), f64::from(shape.k)) / ms;
        }
        let ms = roofline(m, f64::from(anchors.n), f64::from(anchors.k)) / (efficiency / weights);
        let reach = if beyond {
            Reach::Extrapolated
        } else {
            Reach::Interpolated
        };
        ms.is_finite().then_some((ms, reach))
    }

    /// The shapes to read from and their distances.
    fn neighbours(&self, anchors: &Anchors, m: f64) -> Option<Vec<(f64, usize)>> {
        let covers = |i: usize| {
            let curve = &self.shapes[i].curve;
            f64::from(curve[0].0) <= m && m <= f64::from(curve[curve.len() - 1].0)
        };
        let all_cover_nothing = !anchors.ranked.iter().any(|&(_, i)| covers(i));
        let candidates = || {
            anchors
                .ranked
                .iter()
                .copied()
                .filter(|&(_, i)| all_cover_nothing || covers(i))
        };
        let near: Vec<_> = candidates()
            .take_while(|(d, _)| *d <= GATE)
            .take(NEIGHBOURS)
            .collect();
        if !near.is_empty() {
            return Some(near);
        }
        // Farther than the gate: only a shape that grew beyond the table in one direction.
        let sizes = || candidates().map(|(_, i)| (self.shapes[i].n, self.shapes[i].k));
        let (least_n, most_n) = (sizes().map(|s| s.0).min()?, sizes().map(|s| s.0).max()?);
        let (least_k, most_k) = (sizes().map(|s| s.1).min()?, sizes().map(|s| s.1).max()?);
        if anchors.n < least_n
            || anchors.k < least_k
            || (anchors.n > most_n) == (anchors.k > most_k)
        {
            return None;
        }
        let octaves = |a: u32, b: u32| (f64::from(a).log2() - f64::from(b).log2()).abs();
        let is_beside = |&(_, i): &(f64, usize)| {
            let shape = &self.shapes[i];
            let other = if anchors.n > most_n {
                octaves(shape.k, anchors.k)
            } else {
                octaves(shape.n, anchors.n)
            };
            other <= GATE
        };
        let beside: Vec<_> = candidates().filter(is_beside).take(NEIGHBOURS).collect();
        (!beside.is_empty()).then_some(beside)
    }
}

/// The curve of one shape at `m` rows.
fn along(shape: &Shape, m: f64, roofline: GemmRoofline<'_>) -> Option<(f64, Reach)> {
    let curve = &shape.curve;
    let at = curve.partition_point(|&(rows, _)| f64::from(rows) < m);
    if let Some(&(rows, ms)) = curve.get(at)
        && f64::from(rows) == m
    {
        return Some((ms, Reach::Measured));
    }
    if at > 0 && at < curve.len() {
        let ((low, a), (high, b)) = (curve[at - 1], curve[at]);
        let share = (m - f64::from(low)) / f64::from(high - low);
        return Some((a + (b - a) * share, Reach::Interpolated));
    }
    let tail = if at == 0 {
        &curve[..TAIL.min(curve.len())]
    } else {
        &curve[curve.len().saturating_sub(TAIL)..]
    };
    let (n, k) = (f64::from(shape.n), f64::from(shape.k));
    let mut efficiencies: Vec<f64> = tail
        .iter()
        .map(|&(rows, ms)| roofline(f64::from(rows), n, k) / ms)
        .collect();
    efficiencies.sort_by(f64::total_cmp);
    let middle = efficiencies.len() / 2;
    let median = if efficiencies.len() % 2 == 1 {
        efficiencies[middle]
    } else {
        (efficiencies[middle - 1] + efficiencies[middle]) / 2.0
    };
    Some((roofline(m, n, k) / median, Reach::Extrapolated)).filter(|(ms, _)| ms.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roofline(m: f64, n: f64, k: f64) -> f64 {
        m * n * k / 1e6
    }

    fn table(shapes: &[(u32, u32, f64)]) -> GemmTable {
        // Efficiency `e` at every m of 1, 2, 4.
        let shape = |&(n, k, e): &(u32, u32, f64)| Shape {
            n,
            k,
            curve: [1u32, 2, 4]
                .map(|m| (m, roofline(f64::from(m), f64::from(n), f64::from(k)) / e))
                .to_vec(),
        };
        GemmTable::new(shapes.iter().map(shape).collect())
    }

    fn read(table: &GemmTable, m: f64, n: u32, k: u32) -> Option<(f64, Reach)> {
        table.read(&table.anchors(n, k), m, &roofline)
    }

    #[test]
    fn a_measured_shape_is_read_on_its_curve() {
        let table = table(&[(64, 64, 0.5)]);
        let point = roofline(2.0, 64.0, 64.0) / 0.5;
        assert_eq!(read(&table, 2.0, 64, 64), Some((point, Reach::Measured)));
        let (ms, reach) = read(&table, 3.0, 64, 64).expect("measured");
        assert!((ms / (1.5 * point) - 1.0).abs() < 1e-12);
        assert_eq!(reach, Reach::Interpolated);
        let (ms, reach) = read(&table, 8.0, 64, 64).expect("held");
        assert!((ms / (4.0 * point) - 1.0).abs() < 1e-12);
        assert_eq!(reach, Reach::Extrapolated);
    }

    #[test]
    fn another_shape_takes_the_efficiency_of_its_neighbours() {
        // (128, 64) is one octave from both: the mean of 0.4 and 0.8.
        let table = table(&[(64, 64, 0.4), (256, 64, 0.8)]);
        let (ms, reach) = read(&table, 2.0, 128, 64).expect("near");
        assert!(
            (ms / (roofline(2.0, 128.0, 64.0) / 0.6) - 1.0).abs() < 1e-9,
            "{ms}"
        );
        assert_eq!(reach, Reach::Interpolated);
    }

    #[test]
    fn far_shapes_are_refused_but_for_growth_in_one_direction() {
        let table = table(&[(64, 64, 0.5), (128, 64, 0.5)]);
        assert_eq!(read(&table, 2.0, 8, 64), None, "smaller");
        assert_eq!(read(&table, 2.0, 4_096, 4_096), None, "larger in both");
        assert_eq!(
            read(&table, 2.0, 4_096, 1_024),
            None,
            "the other direction is four octaves off"
        );
        let (ms, reach) = read(&table, 2.0, 4_096, 64).expect("an LM head");
        assert!((ms / (roofline(2.0, 4_096.0, 64.0) / 0.5) - 1.0).abs() < 1e-9);
        assert_eq!(reach, Reach::Extrapolated);
    }

    #[test]
    fn ties_at_the_cut_go_to_the_first_of_the_table() {
        // Three shapes are nearer; of the two one octave away only the first of the table is read.
        let near = [(128, 96, 0.5), (96, 128, 0.5), (128, 160, 0.5)];
        let with = |far: [(u32, u32, f64); 2]| {
            let table = table(&[&near[..], &far[..]].concat());
            read(&table, 2.0, 128, 128).expect("near").0
        };
        let (slow, fast) = ((64, 128, 0.5), (256, 128, 0.9));
        assert!((with([slow, fast]) / (roofline(2.0, 128.0, 128.0) / 0.5) - 1.0).abs() < 1e-9);
        assert!(with([fast, slow]) < with([slow, fast]));
    }
}
