//! The sum of distances from every sample to all others, without the distances.
//!
//! L1 distance separates into features, and in one dimension sorting gives all sums at once: for sorted values
//! `x_0 ≤ … ≤ x_{n-1}` with total `t` and prefix sums `p_i`, `Σ_j |x_i - x_j| = x_i (2i + 1 - n) + t - p_i - p_{i+1}`.
//! That is O(N log N · L·E) instead of O(N² · L·E), and exact in fixed point.

use rayon::prelude::*;

use crate::Result;
use crate::aligned::AlignedMatrix;
use crate::ground::{FixedFeatures, FloatFeatures, Ground};
use crate::sample::Samples;
use crate::task::Task;

/// Features taken at a time: those of one cache line of fixed-point features.
const COLUMNS: usize = 16;

/// Groups of float features that are summed one after another. Fixed, since it decides the order of the additions.
const FLOAT_GROUPS: usize = 16;

/// Work units that sorting one feature of one sample costs.
const UNITS_PER_FEATURE: u64 = 250;

/// The two kinds of arithmetic; see [`crate::matrix::Arithmetic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Fixed point.
    Float32,
    /// Floats.
    Float64,
}

/// Mean distance from every sample to the others, `[N]`; 0 for a single sample.
///
/// # Errors
/// Samples that are no distributions, or [`crate::Error::Cancelled`].
pub fn mean_distances(samples: &Samples<'_>, ground: &Ground, precision: Precision, task: &Task) -> Result<Vec<f64>> {
    let n = samples.shape().0;
    task.announce(ground.units(n) + units(n, ground.features()));
    let others = n.saturating_sub(1).max(1) as f64;
    Ok(match precision {
        Precision::Float32 => {
            let features = ground.fixed(samples, task)?;
            let unit = features.unit;
            fixed_sums(&features, task)?.into_iter().map(|s| s as f64 * unit / others).collect()
        }
        Precision::Float64 => {
            float_sums(&ground.float(samples, task)?, task)?.into_iter().map(|s| s / others).collect()
        }
    })
}

/// Work units of [`fixed_sums`] or [`float_sums`].
pub(crate) fn units(samples: usize, features: usize) -> u64 {
    samples as u64 * features as u64 * UNITS_PER_FEATURE
}

/// Sums in units of the features, exact.
pub(crate) fn fixed_sums(features: &FixedFeatures, task: &Task) -> Result<Vec<u128>> {
    let features = &features.features;
    let n = features.rows();
    (0..features.width().div_ceil(COLUMNS))
        .into_par_iter()
        .try_fold(
            || (vec![0u128; n], Vec::new()),
            |(mut sums, mut scratch), chunk| {
                for column in chunk * COLUMNS..features.width().min((chunk + 1) * COLUMNS) {
                    task.check()?;
                    fixed_column(features, column, &mut scratch, &mut sums);
                    task.advance(n as u64 * UNITS_PER_FEATURE);
                }
                Ok((sums, scratch))
            },
        )
        .try_reduce(
            || (Vec::new(), Vec::new()),
            |(a, _), (b, _)| {
                let (mut to, from) = if a.is_empty() { (b, a) } else { (a, b) };
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                Ok((to, Vec::new()))
            },
        )
        .map(|(sums, _)| sums)
}

fn fixed_column(features: &AlignedMatrix<u32>, column: usize, scratch: &mut Vec<u64>, sums: &mut [u128]) {
    let n = features.rows();
    let values = features.as_slice().iter().skip(column).step_by(features.stride());
    // Value and row in one number, so that sorting moves both at once.
    scratch.clear();
    scratch.extend(values.zip(0u64..).map(|(&v, i)| u64::from(v) << 32 | i));
    // By value alone: the order among equals changes no sum.
    radsort::sort_by_key(scratch, |&pair| (pair >> 32) as u32);
    let total: u64 = scratch.iter().map(|v| v >> 32).sum();
    let mut before = 0u64;
    for (i, &pair) in scratch.iter().enumerate() {
        let (value, row) = (pair >> 32, (pair & 0xffff_ffff) as usize);
        let after = before + value;
        // Terms may be negative and wrap; the sum is neither, being at most n * 2^31.
        let ahead = (2 * i as u64 + 1).wrapping_sub(n as u64);
        let sum = value.wrapping_mul(ahead).wrapping_add(total).wrapping_sub(before).wrapping_sub(after);
        sums[row] += u128::from(sum);
        before = after;
    }
}

/// Sums of float features, added up in one fixed order.
pub(crate) fn float_sums(features: &FloatFeatures, task: &Task) -> Result<Vec<f64>> {
    let features = &features.features;
    let (n, width) = (features.rows(), features.width());
    let groups: Vec<Vec<f64>> = (0..FLOAT_GROUPS)
        .into_par_iter()
        .map(|group| {
            let mut sums = vec![0.0; n];
            let mut scratch = Vec::new();
            for column in group * width / FLOAT_GROUPS..(group + 1) * width / FLOAT_GROUPS {
                task.check()?;
                float_column(features, column, &mut scratch, &mut sums);
                task.advance(n as u64 * UNITS_PER_FEATURE);
            }
            Ok(sums)
        })
        .collect::<Result<_>>()?;
    let mut sums = vec![0.0; n];
    for group in groups {
        sums.iter_mut().zip(group).for_each(|(a, b)| *a += b);
    }
    Ok(sums)
}

fn float_column(features: &AlignedMatrix<f64>, column: usize, scratch: &mut Vec<(f64, usize)>, sums: &mut [f64]) {
    let n = features.rows() as f64;
    let values = features.as_slice().iter().skip(column).step_by(features.stride());
    scratch.clear();
    scratch.extend(values.copied().zip(0..));
    radsort::sort_by_key(scratch, |v| v.0);
    let total: f64 = scratch.iter().map(|v| v.0).sum();
    let mut before = 0.0;
    let mut start = 0;
    while start < scratch.len() {
        let value = scratch[start].0;
        let equals = scratch[start..].iter().take_while(|v| v.0 == value).count();
        // Equal values get equal sums, so they are computed once.
        let (below, until) = (start as f64, (start + equals) as f64);
        let through = before + value * equals as f64;
        let sum = (value * below - before) + ((total - through) - value * (n - until));
        for &(_, row) in &scratch[start..start + equals] {
            sums[row] += sum;
        }
        before = through;
        start += equals;
    }
}
