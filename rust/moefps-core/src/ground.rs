//! Ground metrics: how a fingerprint becomes features between which the Wasserstein distance is an L1 distance.
//!
//! | ground    | features of a row `p`                                  | layer distance                                |
//! |-----------|--------------------------------------------------------|-----------------------------------------------|
//! | index     | CDF of `p` over expert numbers                         | `wasserstein_distance(arange(E), arange(E), p, q)` |
//! | values    | `p` sorted, divided by E                               | `wasserstein_distance(p, q)`                  |
//! | discrete  | `p` / 2                                                | total variation                               |
//! | positions | CDF in the order of the positions, times each gap      | `wasserstein_distance(x, x, p, q)`            |
//!
//! The CDF is added up in float64 in the order of the positions and divided by the row's sum, as SciPy does.

use rayon::prelude::*;

use crate::aligned::AlignedMatrix;
use crate::l1::lanes::Lanes;
use crate::l1::{Simd, for_each_simd};
use crate::sample::Samples;
use crate::task::Task;
use crate::{Error, Result};

/// Work units that turning one number into a feature costs, against one element of the L1 kernel.
const UNITS_PER_FEATURE: u64 = 40;

/// Samples that one worker turns into features between two looks at the task.
const CHUNK: usize = 16;

/// So large a distance that sums of very many of them are still finite.
const LARGEST_DISTANCE: f64 = 1e290;

/// Rows whose running sums are added up side by side.
const ROWS: usize = 4;

/// The distance between experts over which mass moves.
#[derive(Clone, Debug)]
pub enum Metric {
    /// Experts stand at their numbers 0..E-1 on a line.
    Index,
    /// Compares the sorted values of two rows, blind to which expert holds them.
    Values,
    /// All experts equally far from one another: total variation.
    Discrete,
    /// Experts stand at these positions, `[L * E]`, on a line of their layer.
    Positions(Vec<f64>),
}

/// How the distances of the layers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum, each times its layer's weight.
    Sum,
    /// Their mean, weighted by the layers' weights.
    Mean,
}

/// A ground metric made ready for arrays of one shape.
#[derive(Clone, Debug)]
pub struct Ground {
    metric: Metric,
    layers: usize,
    experts: usize,
    /// For positions: the experts of each layer from left to right, `[L * E]`.
    order: Vec<u32>,
    /// What each feature is multiplied by, `[L * features_per_layer]`.
    scale: Vec<f64>,
    /// The largest of `scale`.
    unit: f64,
}

impl Ground {
    /// Prepares `metric` for fingerprints `[.., layers, experts]`; `weights` are one per layer, 1 where `None`.
    ///
    /// # Errors
    /// Positions or weights of the wrong length, not finite, too large, or (weights) negative or all zero.
    pub fn new(metric: Metric, reduce: Reduce, weights: Option<&[f64]>, layers: usize, experts: usize) -> Result<Self> {
        let factor = layer_factors(reduce, weights, layers)?;
        let (mut order, mut scale) = (Vec::new(), Vec::new());
        for (layer, &factor) in factor.iter().enumerate() {
            match &metric {
                Metric::Index => scale.extend((1..experts).map(|_| factor)),
                Metric::Values => scale.extend((0..experts).map(|_| factor / experts as f64)),
                Metric::Discrete => scale.extend((0..experts).map(|_| factor * 0.5)),
                Metric::Positions(positions) => {
                    let expected = layers * experts;
                    if positions.len() != expected {
                        return Err(Error::Argument(format!(
                            "ground: {} positions; accepted: one for each of {layers} layers x {experts} experts",
                            positions.len()
                        )));
                    }
                    let at = &positions[layer * experts..(layer + 1) * experts];
                    if let Some(expert) = at.iter().position(|x| !x.is_finite()) {
                        return Err(Error::Data(format!(
                            "ground: the position of layer {layer}, expert {expert} is {}; accepted: finite numbers",
                            at[expert]
                        )));
                    }
                    let mut sorted: Vec<u32> = (0..experts as u32).collect();
                    sorted.sort_by(|&a, &b| at[a as usize].total_cmp(&at[b as usize]));
                    scale.extend(sorted.windows(2).map(|w| factor * (at[w[1] as usize] - at[w[0] as usize])));
                    order.extend(sorted);
                }
            }
        }
        let unit = scale.iter().copied().fold(0.0, f64::max);
        let largest: f64 = scale.iter().sum();
        if largest.is_nan() || largest > LARGEST_DISTANCE {
            return Err(Error::Data(format!(
                "ground, layer_weights: distances as large as {largest:e}; accepted: up to {LARGEST_DISTANCE:e}"
            )));
        }
        Ok(Self { metric, layers, experts, order, scale, unit })
    }

    /// Features of one sample.
    #[must_use]
    pub fn features(&self) -> usize {
        self.scale.len()
    }

    /// Features of one layer of one sample.
    #[must_use]
    pub fn features_per_layer(&self) -> usize {
        self.scale.len() / self.layers
    }

    /// Features as 31-bit fixed point, for the default precision.
    ///
    /// # Errors
    /// The first row that is no distribution; [`Error::Cancelled`]; no memory.
    pub fn fixed(&self, samples: &Samples<'_>, task: &Task) -> Result<FixedFeatures> {
        let largest: f64 = self.scale.iter().sum();
        if largest > f64::from(f32::MAX) {
            return Err(Error::Data(format!(
                "ground, layer_weights: distances as large as {largest:e}; accepted: up to {:e} in float32, more in float64",
                f32::MAX
            )));
        }
        let relative = |s: &f64| if self.unit > 0.0 { s / self.unit * FIXED_ONE } else { 0.0 };
        let scale: Vec<f64> = self.scale.iter().map(relative).collect();
        Ok(FixedFeatures { features: self.compute(samples, &scale, task)?, unit: self.fixed_unit() })
    }

    /// Features as float64.
    ///
    /// # Errors
    /// The first row that is no distribution; [`Error::Cancelled`]; no memory.
    pub fn float(&self, samples: &Samples<'_>, task: &Task) -> Result<FloatFeatures> {
        Ok(FloatFeatures { features: self.compute(samples, &self.scale, task)? })
    }

    /// The distance that one unit of a sum of fixed-point differences stands for.
    pub(crate) fn fixed_unit(&self) -> f64 {
        self.unit / FIXED_ONE
    }

    /// Work units that [`Ground::fixed`] or [`Ground::float`] will report for `samples` samples.
    #[must_use]
    pub fn units(&self, samples: usize) -> u64 {
        samples as u64 * self.features() as u64 * UNITS_PER_FEATURE
    }

    fn compute<T: Feature>(&self, samples: &Samples<'_>, scale: &[f64], task: &Task) -> Result<AlignedMatrix<T>> {
        let simd = Simd::choose()?;
        let (n, layers, experts) = samples.shape();
        assert_eq!((layers, experts), (self.layers, self.experts), "the ground was made for another shape");
        let mut features = AlignedMatrix::<T>::zeroed(n, self.features(), "the features")?;
        let stride = features.stride();
        let chunks = features.as_mut_slice().par_chunks_mut(stride * CHUNK).enumerate();
        let failures: Vec<Error> = chunks
            .filter_map(|(chunk, out)| {
                let rows = out.len() / stride;
                let result =
                    task.check().and_then(|()| convert(simd, self, samples, scale, chunk * CHUNK, stride, out));
                task.advance(self.units(rows));
                result.err()
            })
            .collect();
        // In the order of the samples, so the first one is the first for any number of threads.
        match failures.into_iter().reduce(|first, next| if matches!(first, Error::Cancelled) { next } else { first }) {
            Some(error) => Err(error),
            None => Ok(features),
        }
    }

    /// Turns `rows` of `layer ..` into features before scaling, in place, and returns the sum of each row.
    ///
    /// Several rows at a time, since each addition of a running sum waits for the one before.
    #[inline(always)]
    fn unscaled(&self, layer: usize, rows: &mut [f64], scratch: &mut [f64]) -> [f64; ROWS] {
        let experts = self.experts;
        match &self.metric {
            Metric::Index => {}
            Metric::Positions(_) => {
                let order = self.order[layer * experts..].chunks_exact(experts);
                for (row, order) in rows.chunks_exact_mut(experts).zip(order) {
                    scratch.copy_from_slice(row);
                    for (to, &expert) in row.iter_mut().zip(order) {
                        *to = scratch[expert as usize];
                    }
                }
            }
            Metric::Discrete | Metric::Values => {
                let mut totals = [0.0; ROWS];
                for (total, row) in totals.iter_mut().zip(rows.chunks_exact_mut(experts)) {
                    *total = row.iter().sum();
                    if matches!(self.metric, Metric::Values) {
                        row.sort_unstable_by(f64::total_cmp);
                    }
                }
                return totals;
            }
        }
        running_sums(rows, experts)
    }
}

/// Replaces each row by its running sums and returns the last of each.
#[inline(always)]
fn running_sums(rows: &mut [f64], length: usize) -> [f64; ROWS] {
    let mut totals = [0.0; ROWS];
    if let Some((a, rest)) = rows.split_at_mut_checked(length)
        && let Some((b, rest)) = rest.split_at_mut_checked(length)
        && let Some((c, d)) = rest.split_at_mut_checked(length)
        && d.len() == length
    {
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            for (total, v) in totals.iter_mut().zip([a, b, c, d]) {
                *total += *v;
                *v = *total;
            }
        }
    } else {
        for (total, row) in totals.iter_mut().zip(rows.chunks_exact_mut(length)) {
            for v in row {
                *total += *v;
                *v = *total;
            }
        }
    }
    totals
}

for_each_simd! {
    /// Fills `out`, rows of `stride` features, with the features of the samples `first ..`.
    fn convert<T: Feature>(ground: &Ground, samples: &Samples<'_>, scale: &[f64], first: usize, stride: usize, out: &mut [T]) -> Result<()> = convert_with;
}

/// Compiled for each instruction set, though plain Rust: the loops are simple enough for the compiler. Every operation
/// is rounded by itself, so the bits are the same.
#[inline(always)]
unsafe fn convert_with<L: Lanes, T: Feature>(
    _: L,
    ground: &Ground,
    samples: &Samples<'_>,
    scale: &[f64],
    first: usize,
    stride: usize,
    out: &mut [T],
) -> Result<()> {
    let (experts, per_layer) = (ground.experts, ground.features_per_layer());
    let (tolerance, _) = samples.tolerance();
    let mut buffer = vec![0.0; (ROWS + 1) * experts];
    let (buffer, scratch) = buffer.split_at_mut(ROWS * experts);
    for (sample, out) in (first..).zip(out.chunks_exact_mut(stride)) {
        let out = &mut out[..scale.len()];
        for (layer, (out, scale)) in
            out.chunks_mut(ROWS * per_layer).zip(scale.chunks(ROWS * per_layer)).enumerate().map(|(i, o)| (i * ROWS, o))
        {
            let layers = out.len() / per_layer;
            let rows = &mut buffer[..layers * experts];
            samples.read(sample, layer, rows);
            let plain = rows.iter().fold(true, |plain, &p| plain & (p >= 0.0));
            let totals = ground.unscaled(layer, rows, scratch);
            for (l, &total) in (layer..layer + layers).zip(&totals) {
                // Sums that are NaN or infinite fail this, too.
                let sound = plain && total > 0.0 && total < f64::INFINITY;
                if !sound || !(samples.normalize || (total - 1.0).abs() <= tolerance) {
                    samples.read(sample, l, scratch);
                    samples.check(sample, l, scratch, total)?;
                }
            }
            let features = out.chunks_exact_mut(per_layer).zip(scale.chunks_exact(per_layer));
            for (((out, scale), row), total) in features.zip(rows.chunks_exact(experts)).zip(totals) {
                T::store(row, total, scale, out);
            }
        }
    }
    Ok(())
}

/// 2^52: the floats from here on are the integers.
const ROUNDER: f64 = 4_503_599_627_370_496.0;

/// A number that features are kept in.
pub(crate) trait Feature: bytemuck::Pod + Send + Sync {
    /// `row / total * scale`, for as many as there are of `scale`.
    fn store(row: &[f64], total: f64, scale: &[f64], out: &mut [Self]);
}

impl Feature for u32 {
    #[inline(always)]
    fn store(row: &[f64], total: f64, scale: &[f64], out: &mut [Self]) {
        let inverse = 1.0 / total;
        if !inverse.is_finite() {
            // Sums below 1e-308 have no inverse, but they divide.
            for ((out, f), s) in out.iter_mut().zip(row).zip(scale) {
                *out = (f / total * s + ROUNDER).to_bits() as u32;
            }
            return;
        }
        for ((out, f), s) in out.iter_mut().zip(row).zip(scale) {
            // No partial sum is above the total, so this is at most 2^31 - 1. Adding 2^52 rounds it to an integer and
            // leaves that in the lowest bits, which vectorises where a cast does not.
            *out = (f * inverse * s + ROUNDER).to_bits() as u32;
        }
    }
}

impl Feature for f64 {
    #[inline(always)]
    fn store(row: &[f64], total: f64, scale: &[f64], out: &mut [Self]) {
        for ((out, f), s) in out.iter_mut().zip(row).zip(scale) {
            *out = f / total * s;
        }
    }
}

fn layer_factors(reduce: Reduce, weights: Option<&[f64]>, layers: usize) -> Result<Vec<f64>> {
    let mut factor = match weights {
        None => vec![1.0; layers],
        Some(weights) if weights.len() != layers => {
            return Err(Error::Argument(format!(
                "layer_weights: {} weights; accepted: one for each of {layers} layers",
                weights.len()
            )));
        }
        Some(weights) => weights.to_vec(),
    };
    if let Some(layer) = factor.iter().position(|w| !w.is_finite() || *w < 0.0) {
        return Err(Error::Data(format!(
            "layer_weights: the weight of layer {layer} is {}; accepted: finite numbers >= 0",
            factor[layer]
        )));
    }
    let total: f64 = factor.iter().sum();
    if total == 0.0 || !total.is_finite() {
        return Err(Error::Data(format!("layer_weights: the weights sum to {total}; accepted: a positive sum")));
    }
    if reduce == Reduce::Mean {
        for w in &mut factor {
            *w /= total;
        }
    }
    Ok(factor)
}

/// The fixed-point number that stands for the largest feature. One below 2^31, so that two of them still fit into 32
/// bits.
pub const FIXED_ONE: f64 = 2_147_483_647.0;

/// Features in 31-bit fixed point.
pub struct FixedFeatures {
    pub(crate) features: AlignedMatrix<u32>,
    /// The distance that one unit of a sum stands for.
    pub(crate) unit: f64,
}

/// Features in float64.
pub struct FloatFeatures {
    pub(crate) features: AlignedMatrix<f64>,
}
