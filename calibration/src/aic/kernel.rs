//! One kernel of a pass, ready to be read: its table, or its roofline where nothing was measured and that was asked for.

use super::roofline::{self, Floor};
use crate::error::CalibrationError;
use crate::tables::gemm::{Anchors, GemmTable};
use crate::tables::grid::{Grid, Reading};
use crate::tables::{Dtype, Profile, Reach};
use serde::Serialize;

/// What to do about a kernel that was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It is an error that names the nearest one that was.
    #[default]
    Refuse,
    /// Its roofline stands for it, marked [`Reach::Estimated`].
    // Model: kernels reach 30 to 80 % of their roofline, so that the estimate is 1.3 to 3 times too short.
    Estimate,
}

impl Missing {
    /// The table, nothing where a roofline is to stand for it, or the error.
    pub(super) fn or<T>(
        self,
        found: Result<T, CalibrationError>,
    ) -> Result<Option<T>, CalibrationError> {
        match (found, self) {
            (Ok(table), _) => Ok(Some(table)),
            (Err(CalibrationError::NotMeasured { .. }), Missing::Estimate) => Ok(None),
            (Err(error), _) => Err(error),
        }
    }
}

/// A kernel measured on a grid of N axes.
#[derive(Debug, Clone)]
pub(crate) struct Kernel<'a, const N: usize, F> {
    /// None where its roofline stands for it.
    pub(super) grid: Option<&'a Grid<N>>,
    pub(super) floor: F,
    /// The axis along which time grows with the square.
    pub(super) square_axis: Option<usize>,
}

impl<const N: usize, F: Floor<N>> Kernel<'_, N, F> {
    /// Milliseconds of one run.
    pub(super) fn read(&self, at: [f64; N]) -> (f64, Reach) {
        let Some(grid) = self.grid else {
            return (self.floor.ms(at), Reach::Estimated);
        };
        let how = Reading {
            square_axis: self.square_axis,
            roofline: &|at| self.floor.ms(at),
        };
        grid.read(at, &how)
            .expect("a grid with points can be read anywhere")
    }

    /// The measured values of one axis, ascending; none without a grid.
    pub(super) fn values(&self, axis: usize) -> Vec<u32> {
        let points = self.grid.map_or(&[][..], Grid::points);
        let mut values: Vec<u32> = points.iter().map(|point| point.at[axis]).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

/// A matrix product with a weight of (n, k).
#[derive(Debug, Clone)]
pub(crate) struct Gemm<'a> {
    pub(super) name: &'static str,
    size: (u32, u32),
    table: Option<(&'a GemmTable, Anchors)>,
    floor: roofline::GemmFloor,
    dtype: Dtype,
    missing: Missing,
}

impl<'a> Gemm<'a> {
    pub(super) fn new(
        profile: &'a Profile,
        missing: Missing,
        name: &'static str,
        (n, k): (u32, u32),
        dtype: Dtype,
    ) -> Result<Gemm<'a>, CalibrationError> {
        let table = missing.or(profile.gemm(dtype))?;
        let floor = roofline::gemm(&profile.machine, dtype)
            .ok_or_else(|| profile.missing("peak rates", dtype.name(), std::iter::empty()))?;
        Ok(Gemm {
            name,
            size: (n, k),
            table: table.map(|table| (table, table.anchors(n, k))),
            floor,
            dtype,
            missing,
        })
    }

    /// Milliseconds of one run over `rows`.
    pub(super) fn read(
        &self,
        profile: &Profile,
        rows: f64,
    ) -> Result<(f64, Reach), CalibrationError> {
        let read = self.table.as_ref().and_then(|(table, anchors)| {
            table.read(anchors, rows, &|m, n, k| self.floor.ms(m, n, k))
        });
        match read {
            Some(read) => Ok(read),
            None if self.missing == Missing::Estimate => {
                let (n, k) = (f64::from(self.size.0), f64::from(self.size.1));
                Ok((self.floor.ms(rows, n, k), Reach::Estimated))
            }
            None => Err(self.too_far(profile, rows)),
        }
    }

    /// Whether every number of rows can be read.
    pub(super) fn check_all_rows(&self, profile: &Profile) -> Result<(), CalibrationError> {
        let turns = self.table.iter().flat_map(|(table, _)| table.turns());
        for rows in turns {
            self.read(profile, rows)?;
        }
        Ok(())
    }

    fn too_far(&self, profile: &Profile, rows: f64) -> CalibrationError {
        let (n, k) = self.size;
        let wanted = format!("{} {rows} x {n} x {k}", self.dtype.name());
        let shapes = self
            .table
            .iter()
            .flat_map(|(table, _)| table.shapes().iter());
        let known = shapes.map(|shape| (shape.n, shape.k));
        let octaves = |a: u32, b: u32| (f64::from(a).log2() - f64::from(b).log2()).abs();
        let nearest = known.min_by(|a, b| {
            let far = |size: &(u32, u32)| octaves(size.0, n).hypot(octaves(size.1, k));
            far(a).total_cmp(&far(b))
        });
        let nearest = nearest.map(|(n, k)| format!("n = {n}, k = {k}"));
        profile.missing("gemm", &wanted, nearest.into_iter())
    }
}
