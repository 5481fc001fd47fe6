//! The sample with the smallest sum of distances to all others, without all sums.
//!
//! L1 distance separates into features, so the sum is a sum over features of `G(x) = Σ_j |x - x_j|`, a convex function
//! of the sample's own value `x`. The largest of a few tangents of `G` is a close bound from below, and it takes one
//! vectorised pass over the features to find the tangents and another to bound every sample. Exact sums are then
//! needed only for the samples whose bound does not lie above the smallest exact sum found.

use rayon::prelude::*;

use crate::Result;
use crate::aligned::AlignedMatrix;
use crate::ground::FixedFeatures;
use crate::l1::lanes::Lanes;
use crate::l1::tile::fixed_distance;
use crate::l1::{Simd, for_each_simd, prefetch};
use crate::start::{Start, extreme};
use crate::sum::fixed_sums;
use crate::task::Task;

/// Features of a block: a cache line of them.
const BLOCK: usize = 16;
/// Tangents to each feature's function: as many as fit into registers.
const KNOTS: usize = 8;
/// Rows whose quantiles say where the tangents touch.
const SAMPLED_ROWS: usize = 32;
/// Lowest bits of a feature left away, so that …
const DROPPED_BITS: u32 = 11;
/// … the sum over this many rows fits into 32 bits.
const ROWS_AT_ONCE: usize = 1 << 12;
/// Walking down a column, the processor does not see where it goes, so rows are asked for this far ahead.
const ROWS_AHEAD: usize = 16;
/// Samples whose exact sums are computed before the bounds are looked at again.
const CANDIDATES_AT_ONCE: usize = 4;
/// Samples that may be left to look at before sorting all features, which gives all sums, is the quicker way. With
/// (nearly) equal samples no bound tells them apart.
const MOST_CANDIDATES: usize = 64;

/// A value for each feature of a block.
type Line<T> = [T; BLOCK];

/// Work units that bounding one feature of one sample costs.
const UNITS_PER_FEATURE: u64 = 25;

/// Work units of [`medoid`], as far as they are known beforehand.
pub(crate) fn units(samples: usize, features: usize) -> u64 {
    samples as u64 * features as u64 * UNITS_PER_FEATURE
}

/// Returns the index of the sample with the smallest sum, the lowest one of equals.
pub(crate) fn medoid(simd: Simd, features: &FixedFeatures, task: &Task) -> Result<usize> {
    let rows = &features.features;
    let bounds = lower_bounds(simd, rows, task)?;
    let mut order: Vec<usize> = (0..rows.rows()).collect();
    order.sort_unstable_by(|&a, &b| bounds[a].total_cmp(&bounds[b]));
    let mut best = (u128::MAX, 0);
    let mut done = 0;
    while let Some(&first) = order.get(done)
        && bounds[first] <= best.0 as f64
    {
        task.check()?;
        // More than often the first has the smallest sum, and shows so.
        let open = order[done..].partition_point(|&i| bounds[i] <= best.0 as f64);
        if done > 0 && open > MOST_CANDIDATES {
            return Ok(extreme(&fixed_sums(features, task)?, &Start::Medoid));
        }
        let candidates = &order[done..done + if done == 0 { 1 } else { open.min(CANDIDATES_AT_ONCE) }];
        let sums = (0..rows.rows()).into_par_iter().with_min_len(256).fold(
            || [0u128; CANDIDATES_AT_ONCE],
            |mut sums, i| {
                add_distances(simd, rows, i, candidates, &mut sums);
                sums
            },
        );
        let sums = sums.reduce(|| [0; CANDIDATES_AT_ONCE], |a, b| std::array::from_fn(|c| a[c] + b[c]));
        for (&candidate, sum) in candidates.iter().zip(sums) {
            best = best.min((sum, candidate));
        }
        done += candidates.len();
    }
    Ok(best.1)
}

for_each_simd! {
    /// Adds the distance from row `i` to each candidate to its sum.
    fn add_distances(rows: &AlignedMatrix<u32>, i: usize, candidates: &[usize], sums: &mut [u128]) = add_distances_with;
}

#[inline(always)]
unsafe fn add_distances_with<L: Lanes>(
    _: L,
    rows: &AlignedMatrix<u32>,
    i: usize,
    candidates: &[usize],
    sums: &mut [u128],
) {
    for (sum, &candidate) in sums.iter_mut().zip(candidates) {
        // SAFETY: the caller vouches for the instruction set.
        *sum += u128::from(unsafe { fixed_distance::<L>(rows.row(i), rows.row(candidate)) });
    }
}

/// For each sample a number that its sum cannot be below, in units of the features.
fn lower_bounds(simd: Simd, features: &AlignedMatrix<u32>, task: &Task) -> Result<Vec<f64>> {
    let n = features.rows();
    let blocks = features.width().div_ceil(BLOCK);
    let zeros = || vec![[0.0f32; BLOCK]; n];
    let lines = (0..blocks)
        .into_par_iter()
        .try_fold(zeros, |mut lines, block| {
            task.check()?;
            let tangents = Tangents::new(simd, features, block);
            add_bounds(simd, features, block, &tangents, &mut lines);
            let width = BLOCK.min(features.width() - block * BLOCK);
            task.advance(units(n, width));
            Ok(lines)
        })
        .try_reduce_with(|mut a, b| {
            a.iter_mut().flatten().zip(b.iter().flatten()).for_each(|(a, b)| *a += b);
            Ok(a)
        })
        .unwrap_or_else(|| Ok(zeros()))?;
    // What single precision may have added: three roundings in each tangent, which is no larger than all rows at the
    // largest value, and one for each block that was added.
    let epsilon = f64::from(f32::EPSILON);
    let cells = n as f64 * features.width() as f64;
    let largest = f64::from(u32::MAX >> 1 >> DROPPED_BITS);
    let bound = |line: &Line<f32>| {
        let sum: f64 = line.iter().map(|&v| f64::from(v)).sum();
        let rounding = sum * blocks as f64 * epsilon + 4.0 * epsilon * cells * largest;
        // Each difference may have lost a unit to the bits that were dropped.
        (sum - rounding - cells) * f64::from(1 << DROPPED_BITS)
    };
    Ok(lines.iter().map(bound).collect())
}

/// Tangents `intercept + slope * x` to the functions of a block of features.
struct Tangents {
    intercepts: [Line<f32>; KNOTS],
    slopes: [Line<f32>; KNOTS],
}

impl Tangents {
    fn new(simd: Simd, features: &AlignedMatrix<u32>, block: usize) -> Self {
        let knots = quantiles(features, block);
        let mut tangents = Self { intercepts: [[0.0; BLOCK]; KNOTS], slopes: [[0.0; BLOCK]; KNOTS] };
        let mut totals = KnotTotals::default();
        for first in (0..features.rows()).step_by(ROWS_AT_ONCE) {
            let count = ROWS_AT_ONCE.min(features.rows() - first);
            add_knot_totals(simd, features, block, first..first + count, &knots, &mut totals);
        }
        for (k, knot) in knots.iter().enumerate() {
            for (lane, &t) in knot.iter().enumerate() {
                let (n, t) = (features.rows() as f64, f64::from(t));
                // Σ |t - x| = 2 Σ max(t, x) - n t - Σ x, and it rises with as many x as lie below or at t, less
                // the others.
                let value = 2.0 * totals.maxima[k][lane] as f64 - n * t - totals.values[lane] as f64;
                let slope = 2.0 * f64::from(totals.not_above[k][lane]) - n;
                tangents.intercepts[k][lane] = (value - slope * t) as f32;
                tangents.slopes[k][lane] = slope as f32;
            }
        }
        tangents
    }
}

/// Values of each feature of the block at evenly spaced ranks, of a sample of rows.
fn quantiles(features: &AlignedMatrix<u32>, block: usize) -> [Line<u32>; KNOTS] {
    let rows = (0..features.rows()).step_by(features.rows().div_ceil(SAMPLED_ROWS));
    let mut knots = [[0; BLOCK]; KNOTS];
    for lane in 0..BLOCK {
        let mut values: Vec<u32> = rows.clone().map(|i| line(features, i, block)[lane] >> DROPPED_BITS).collect();
        values.sort_unstable();
        for (k, knot) in knots.iter_mut().enumerate() {
            knot[lane] = values[(2 * k + 1) * values.len() / (2 * KNOTS)];
        }
    }
    knots
}

fn line(features: &AlignedMatrix<u32>, i: usize, block: usize) -> &Line<u32> {
    let (lines, _) = features.row(i).as_chunks::<BLOCK>();
    &lines[block]
}

/// Sums over rows, for a block of features.
#[derive(Default)]
struct KnotTotals {
    values: Line<u64>,
    /// `Σ max(knot, x)`
    maxima: [Line<u64>; KNOTS],
    /// How many `x ≤ knot`.
    not_above: [Line<u32>; KNOTS],
}

for_each_simd! {
    /// Adds up to [`ROWS_AT_ONCE`] rows to the totals.
    fn add_knot_totals(features: &AlignedMatrix<u32>, block: usize, rows: std::ops::Range<usize>, knots: &[Line<u32>; KNOTS], totals: &mut KnotTotals) = add_knot_totals_with;
}

#[inline(always)]
unsafe fn add_knot_totals_with<L: Lanes>(
    _: L,
    features: &AlignedMatrix<u32>,
    block: usize,
    rows: std::ops::Range<usize>,
    knots: &[Line<u32>; KNOTS],
    totals: &mut KnotTotals,
) {
    let last = features.rows() - 1;
    let mut values = [0; BLOCK];
    let mut maxima = [[0; BLOCK]; KNOTS];
    let mut not_above = [[0; BLOCK]; KNOTS];
    for lane in (0..BLOCK).step_by(L::LANES) {
        // SAFETY: `BLOCK` is a multiple of every vector length; the caller vouches for the instruction set.
        unsafe {
            let knots: [L::Ints; KNOTS] = std::array::from_fn(|k| L::load(knots[k][lane..].as_ptr()));
            let mut sum = L::splat(0);
            let mut max_sums = [L::splat(0); KNOTS];
            let mut counts = [L::splat(0); KNOTS];
            for i in rows.clone() {
                prefetch(line(features, (i + ROWS_AHEAD).min(last), block));
                let x = L::shift_right::<DROPPED_BITS>(L::load(line(features, i, block)[lane..].as_ptr()));
                sum = L::add(sum, x);
                for k in 0..KNOTS {
                    let max = L::max(x, knots[k]);
                    max_sums[k] = L::add(max_sums[k], max);
                    counts[k] = L::count_equal(counts[k], max, knots[k]);
                }
            }
            L::store(values[lane..].as_mut_ptr(), sum);
            for k in 0..KNOTS {
                L::store(maxima[k][lane..].as_mut_ptr(), max_sums[k]);
                L::store(not_above[k][lane..].as_mut_ptr(), counts[k]);
            }
        }
    }
    for lane in 0..BLOCK {
        totals.values[lane] += u64::from(values[lane]);
        for k in 0..KNOTS {
            totals.maxima[k][lane] += u64::from(maxima[k][lane]);
            totals.not_above[k][lane] += not_above[k][lane];
        }
    }
}

for_each_simd! {
    /// Adds the largest tangent of each feature of the block to the lines of all rows.
    fn add_bounds(features: &AlignedMatrix<u32>, block: usize, tangents: &Tangents, lines: &mut [Line<f32>]) = add_bounds_with;
}

#[inline(always)]
unsafe fn add_bounds_with<L: Lanes>(
    _: L,
    features: &AlignedMatrix<u32>,
    block: usize,
    tangents: &Tangents,
    lines: &mut [Line<f32>],
) {
    let last = features.rows() - 1;
    for (i, out) in lines.iter_mut().enumerate() {
        prefetch(line(features, (i + ROWS_AHEAD).min(last), block));
        let x = line(features, i, block).map(|x| (x >> DROPPED_BITS) as f32);
        // A sum of distances is not below 0 either.
        let mut largest = [0.0f32; BLOCK];
        for (intercepts, slopes) in tangents.intercepts.iter().zip(&tangents.slopes) {
            for lane in 0..BLOCK {
                let tangent = intercepts[lane] + slopes[lane] * x[lane];
                largest[lane] = if tangent > largest[lane] { tangent } else { largest[lane] };
            }
        }
        for lane in 0..BLOCK {
            out[lane] += largest[lane];
        }
    }
}
