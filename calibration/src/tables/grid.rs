//! A measured grid: latency at points of N axes, some corners never measured.
//!
//! A reading goes axis by axis, outermost first. A value that was measured on an axis selects its points; one in between
//! is read at both neighbours and blended linearly (in square-root space on the axis where time grows with the square).
//! Where only one neighbour has data, its reading is scaled by the ratio of the rooflines. Beyond the measured points the
//! efficiency (roofline / latency) is held: that of the last point on one axis, on more axes that of the four points
//! nearest in log2 space with weights ((R − d)/(R·d))², R being the distance of the fifth, so that a point enters and
//! leaves without a jump. These are the rules of AIConfigurator 0.12 (`aic-timing` §3.3), restated.

use super::Reach;
use std::sync::OnceLock;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<const N: usize> {
    /// Where, outermost axis first.
    pub at: [u32; N],
    /// Latency in milliseconds, positive.
    pub ms: f64,
}

/// Measurements of one kernel, sorted by place.
#[derive(Debug, Clone)]
pub struct Grid<const N: usize> {
    points: Vec<Point<N>>,
    /// log2 of their places, made when a reading first lies beyond them.
    logs: OnceLock<Vec<[f64; N]>>,
}

impl<const N: usize> PartialEq for Grid<N> {
    fn eq(&self, other: &Grid<N>) -> bool {
        self.points == other.points
    }
}

/// How a grid is read.
pub struct Reading<'a, const N: usize> {
    /// The axis along which time grows with the square.
    pub square_axis: Option<usize>,
    /// The least time the hardware allows at a place, in milliseconds.
    pub roofline: &'a dyn Fn([f64; N]) -> f64,
}

/// Points from which an efficiency is carried on beyond the grid.
const ANCHORS: usize = 4;

impl<const N: usize> Grid<N> {
    /// A grid of these points; the first one of a place counts.
    #[must_use]
    pub fn new(mut points: Vec<Point<N>>) -> Grid<N> {
        if !points.is_sorted_by(|a, b| a.at < b.at) {
            points.sort_by_key(|point| point.at);
            points.dedup_by_key(|point| point.at);
        }
        Grid {
            points,
            logs: OnceLock::new(),
        }
    }

    /// All points, sorted.
    #[must_use]
    pub fn points(&self) -> &[Point<N>] {
        &self.points
    }

    /// The latency at a place, in milliseconds; none if the grid is empty.
    #[must_use]
    pub fn read(&self, at: [f64; N], how: &Reading<'_, N>) -> Option<(f64, Reach)> {
        if let Some(found) = inside(&self.points, &at, 0, how) {
            return Some(found);
        }
        let ms = if N == 1 {
            self.hold_last(at, how)
        } else {
            self.hold_nearest(at, how)
        };
        ms.map(|ms| (ms, Reach::Extrapolated))
    }

    fn hold_last(&self, at: [f64; N], how: &Reading<'_, N>) -> Option<f64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let anchor = if at[0] > f64::from(last.at[0]) {
            last
        } else {
            first
        };
        let efficiency = (how.roofline)(place(anchor)) / anchor.ms;
        Some((how.roofline)(at) / efficiency).filter(|ms| ms.is_finite())
    }

    fn hold_nearest(&self, at: [f64; N], how: &Reading<'_, N>) -> Option<f64> {
        let wanted = at.map(|value| value.max(1e-12).log2());
        let distance = |log: &[f64; N]| {
            let squares = (0..N).map(|axis| (log[axis] - wanted[axis]).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let mut nearest: Vec<(f64, &Point<N>)> = Vec::with_capacity(ANCHORS + 2);
        let logs = self.logs.get_or_init(|| {
            let points = self.points.iter();
            points.map(|point| point.at.map(log2)).collect()
        });
        for (point, log) in self.points.iter().zip(logs) {
            let d = distance(log);
            let full = nearest.len() > ANCHORS;
            if full && d >= nearest[ANCHORS].0 {
                continue;
            }
            let rank = nearest.partition_point(|(other, _)| *other <= d);
            nearest.insert(rank, (d, point));
            nearest.truncate(ANCHORS + 1);
        }
        let radius = nearest.get(ANCHORS).map_or(f64::INFINITY, |(d, _)| *d);
        let (mut weights, mut efficiency) = (0.0, 0.0);
        for (d, point) in nearest.iter().take(ANCHORS) {
            let weight = taper(*d, radius);
            weights += weight;
            efficiency += weight * (how.roofline)(place(point)) / point.ms;
        }
        if weights <= 0.0 {
            // All five are equally far: their plain mean.
            let count = nearest.len().min(ANCHORS) as f64;
            let sum: f64 = nearest
                .iter()
                .take(ANCHORS)
                .map(|(_, point)| (how.roofline)(place(point)) / point.ms)
                .sum();
            (weights, efficiency) = (count, sum);
        }
        Some((how.roofline)(at) / (efficiency / weights)).filter(|ms| ms.is_finite())
    }
}

fn log2(value: u32) -> f64 {
    f64::from(value).max(1e-12).log2()
}

fn taper(d: f64, radius: f64) -> f64 {
    let d = d.max(1e-9);
    if radius.is_infinite() {
        1.0 / (d * d)
    } else {
        (((radius - d).max(0.0)) / (radius * d)).powi(2)
    }
}

fn place<const N: usize>(point: &Point<N>) -> [f64; N] {
    point.at.map(f64::from)
}

/// The reading among `points`, which agree on the axes before `axis`; none where they do not reach.
fn inside<const N: usize>(
    points: &[Point<N>],
    at: &[f64; N],
    axis: usize,
    how: &Reading<'_, N>,
) -> Option<(f64, Reach)> {
    if axis == N {
        return points.first().map(|point| (point.ms, Reach::Measured));
    }
    let value = at[axis];
    let key = |point: &Point<N>| f64::from(point.at[axis]);
    let from = points.partition_point(|point| key(point) < value);
    if from == points.len() {
        return None;
    }
    let upper = key(&points[from]);
    let until = from + points[from..].partition_point(|point| key(point) <= upper);
    if upper == value {
        return inside(&points[from..until], at, axis + 1, how);
    }
    if from == 0 {
        return None;
    }
    let lower = key(&points[from - 1]);
    let start = points[..from].partition_point(|point| key(point) < lower);
    let below = inside(&points[start..from], at, axis + 1, how);
    let above = inside(&points[from..until], at, axis + 1, how);
    let scaled = |(ms, _): (f64, Reach), to: f64| {
        let mut snapped = *at;
        snapped[axis] = to;
        let (wanted, found) = ((how.roofline)(*at), (how.roofline)(snapped));
        let ratio = if wanted > 0.0 && found > 0.0 {
            wanted / found
        } else {
            1.0
        };
        (ms * ratio, Reach::Extrapolated)
    };
    match (below, above) {
        (Some((a, reach_a)), Some((b, reach_b))) => {
            let share = (value - lower) / (upper - lower);
            let ms = if how.square_axis == Some(axis) {
                let root = a.sqrt() + (b.sqrt() - a.sqrt()) * share;
                root * root
            } else {
                a + (b - a) * share
            };
            Some((ms, reach_a.max(reach_b).max(Reach::Interpolated)))
        }
        (Some(below), None) => Some(scaled(below, lower)),
        (None, Some(above)) => Some(scaled(above, upper)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(grid: &Grid<N>, at: [f64; N]) -> (f64, Reach) {
        let roofline = |at: [f64; N]| at.iter().product::<f64>() / 100.0;
        grid.read(
            at,
            &Reading {
                square_axis: None,
                roofline: &roofline,
            },
        )
        .expect("it has points")
    }

    fn curve() -> Grid<1> {
        Grid::new(
            [(4, 8.0), (1, 2.0), (2, 3.0)]
                .map(|(at, ms)| Point { at: [at], ms })
                .to_vec(),
        )
    }

    #[test]
    fn measured_points_are_returned_and_gaps_blended() {
        assert_eq!(read(&curve(), [2.0]), (3.0, Reach::Measured));
        assert_eq!(read(&curve(), [3.0]), (5.5, Reach::Interpolated));
    }

    #[test]
    fn beyond_the_end_the_efficiency_of_the_last_point_holds() {
        // 0.04 / 8 at 4, so 0.08 / 0.005 at 8.
        let (ms, reach) = read(&curve(), [8.0]);
        assert!((ms - 16.0).abs() < 1e-12, "{ms}");
        assert_eq!(reach, Reach::Extrapolated);
        assert!((read(&curve(), [0.5]).0 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn square_root_space_is_exact_for_squares() {
        let grid = Grid::new(
            [2u32, 4]
                .map(|at| Point {
                    at: [at],
                    ms: f64::from(at * at),
                })
                .to_vec(),
        );
        let how = Reading {
            square_axis: Some(0),
            roofline: &|_| 1.0,
        };
        assert_eq!(grid.read([3.0], &how), Some((9.0, Reach::Interpolated)));
    }

    #[test]
    fn a_missing_corner_is_scaled_by_the_roofline() {
        // Outer axis 1 has inner 1 and 4, outer axis 3 only inner 1: (2, 4) stands on (1, 4) alone.
        let points = [([1, 1], 1.0), ([1, 4], 5.0), ([3, 1], 3.0)].map(|(at, ms)| Point { at, ms });
        let grid = Grid::new(points.to_vec());
        assert_eq!(read(&grid, [2.0, 4.0]), (10.0, Reach::Extrapolated));
        assert_eq!(read(&grid, [2.0, 1.0]), (2.0, Reach::Interpolated));
    }

    #[test]
    fn nothing_jumps_where_the_nearest_points_change() {
        let mut points = Vec::new();
        for (i, a) in [1u32, 2, 4, 8].into_iter().enumerate() {
            for (j, b) in [1u32, 2, 4, 8].into_iter().enumerate() {
                points.push(Point {
                    at: [a, b],
                    ms: f64::from(a * b) / 100.0 / (0.2 + 0.1 * i as f64 + 0.05 * j as f64),
                });
            }
        }
        let grid = Grid::new(points);
        let mut last = read(&grid, [16.0, 1.0]).0;
        for i in 1..=7_000 {
            let next = read(&grid, [16.0, 1.0 + f64::from(i) / 1_000.0]).0;
            assert!(
                (next / last - 1.0).abs() < 0.01,
                "at {i}: {last} then {next}"
            );
            last = next;
        }
    }

    #[test]
    fn an_empty_grid_reads_nothing() {
        let grid: Grid<2> = Grid::new(Vec::new());
        assert!(
            grid.read(
                [1.0, 1.0],
                &Reading {
                    square_axis: None,
                    roofline: &|_| 1.0
                }
            )
            .is_none()
        );
    }
}
