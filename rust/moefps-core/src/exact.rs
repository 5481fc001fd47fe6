//! Exact distances between two samples, in the arithmetic that was asked for, and how they compare with fixed-point ones.

use crate::ground::{FixedFeatures, FloatFeatures};
use crate::l1::lanes::Lanes;
use crate::l1::tile::{fixed_distance, float_distance};

/// Distances in the arithmetic that was asked for.
pub(crate) trait ExactDistance: Sync {
    /// Features of a sample.
    fn features(&self) -> usize;

    /// The distance between samples `i` and `j`, and the fixed-point distance from which on another one cannot be
    /// smaller.
    ///
    /// # Safety
    /// The instruction set of `L`.
    unsafe fn distance<L: Lanes>(&self, i: usize, j: usize) -> (f64, u64);

    /// What a distance cannot be below whose fixed-point distance is not below `units`.
    fn at_least(&self, units: u64) -> f64;

    /// What a distance cannot be above whose fixed-point distance is not above `units`, and the fixed-point distance
    /// from which on another one cannot be smaller.
    fn at_most(&self, units: u64) -> (f64, u64);
}

impl ExactDistance for FixedFeatures {
    fn features(&self) -> usize {
        self.features.width()
    }

    #[inline(always)]
    unsafe fn distance<L: Lanes>(&self, i: usize, j: usize) -> (f64, u64) {
        // SAFETY: the caller vouches for the instruction set.
        self.at_most(unsafe { fixed_distance::<L>(self.features.row(i), self.features.row(j)) })
    }

    #[inline(always)]
    fn at_least(&self, units: u64) -> f64 {
        // Rounded as the matrix is, so that both have the same ties.
        f64::from((units as f64 * self.unit) as f32)
    }

    #[inline(always)]
    fn at_most(&self, units: u64) -> (f64, u64) {
        (self.at_least(units), units)
    }
}

/// Float features, and what a unit of the fixed-point ones beside them stands for.
pub(crate) struct Float<'a> {
    pub(crate) features: &'a FloatFeatures,
    pub(crate) unit: f64,
}

/// More than floats round in the sum of a distance.
const ROUNDING: f64 = 1e-9;

impl Float<'_> {
    /// Each feature's fixed-point difference is off by a unit at most, and floats round a little themselves.
    fn slack(&self) -> u64 {
        self.features() as u64 + 2
    }

    fn threshold(&self, distance: f64) -> u64 {
        (distance * (1.0 + ROUNDING) / self.unit).ceil() as u64 + self.slack()
    }
}

impl ExactDistance for Float<'_> {
    fn features(&self) -> usize {
        self.features.features.width()
    }

    #[inline(always)]
    unsafe fn distance<L: Lanes>(&self, i: usize, j: usize) -> (f64, u64) {
        let rows = &self.features.features;
        // SAFETY: the caller vouches for the instruction set.
        let distance = unsafe { float_distance::<L>(rows.row(i), rows.row(j)) };
        (distance, self.threshold(distance))
    }

    #[inline(always)]
    fn at_least(&self, units: u64) -> f64 {
        units.saturating_sub(self.slack()) as f64 * self.unit * (1.0 - ROUNDING)
    }

    #[inline(always)]
    fn at_most(&self, units: u64) -> (f64, u64) {
        let distance = units.saturating_add(self.slack()) as f64 * self.unit * (1.0 + ROUNDING);
        (distance, self.threshold(distance))
    }
}
