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
use crate::sample::Samples;
use crate::task::Task;
use crate::{Error, Result};

/// Work units that turning one number into a feature costs, against one element of the L1 kernel.
const UNITS_PER_FEATURE: u64 = 40;

/// Samples that one worker turns into features between two looks at the task.
const CHUNK: usize = 16;

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
    /// Positions or weights of the wrong length, not finite, or (weights) negative or all zero.
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
        if !unit.is_finite() {
            return Err(Error::Data("ground: a gap between positions is too large for float64".into()));
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
        let relative: Vec<f64> =
            self.scale.iter().map(|s| if self.unit > 0.0 { s / self.unit } else { 0.0 } * FIXED_ONE).collect();
        let features = self.compute(samples, task, |layer, row, total, out: &mut [u32]| {
            // In [0, 2^31 - 1] by construction: a partial sum is never above the total. Rounded half up.
            let scale = &relative[layer * out.len()..(layer + 1) * out.len()];
            let inverse = 1.0 / total;
            for ((out, f), s) in out.iter_mut().zip(row).zip(scale) {
                *out = (f * inverse * s + 0.5) as i32 as u32;
            }
        })?;
        Ok(FixedFeatures { features, unit: self.fixed_unit() })
    }

    /// The distance that one unit of a sum of fixed-point differences stands for.
    pub(crate) fn fixed_unit(&self) -> f64 {
        self.unit / FIXED_ONE
    }

    /// Features as float64.
    ///
    /// # Errors
    /// The first row that is no distribution; [`Error::Cancelled`]; no memory.
    pub fn float(&self, samples: &Samples<'_>, task: &Task) -> Result<FloatFeatures> {
        let features = self.compute(samples, task, |layer, row, total, out: &mut [f64]| {
            let scale = &self.scale[layer * out.len()..(layer + 1) * out.len()];
            for ((out, f), s) in out.iter_mut().zip(row).zip(scale) {
                *out = f / total * s;
            }
        })?;
        Ok(FloatFeatures { features })
    }

    /// Work units that [`Ground::fixed`] or [`Ground::float`] will report for `samples` samples.
    #[must_use]
    pub fn units(&self, samples: usize) -> u64 {
        samples as u64 * self.features() as u64 * UNITS_PER_FEATURE
    }

    /// Runs `store(layer, unscaled features, row sum, out)` for every row of every sample.
    fn compute<T: bytemuck::Pod + Send + Sync>(
        &self,
        samples: &Samples<'_>,
        task: &Task,
        store: impl Fn(usize, &[f64], f64, &mut [T]) + Sync,
    ) -> Result<AlignedMatrix<T>> {
        let (n, layers, experts) = samples.shape();
        assert_eq!((layers, experts), (self.layers, self.experts), "the ground was made for another shape");
        let per_layer = self.features_per_layer();
        let mut features = AlignedMatrix::<T>::zeroed(n, self.features(), "the features")?;
        let stride = features.stride();
        let failures: Vec<Error> = features
            .as_mut_slice()
            .par_chunks_mut(stride * CHUNK)
            .enumerate()
            .filter_map(|(chunk, out)| {
                let mut scratch = vec![0.0; 2 * experts];
                let (row, partial) = scratch.split_at_mut(experts);
                let mut work = || -> Result<()> {
                    task.check()?;
                    for (i, out) in out.chunks_exact_mut(stride).enumerate() {
                        let sample = chunk * CHUNK + i;
                        for layer in 0..layers {
                            samples.read(sample, layer, row);
                            let total = self.unscaled(layer, row, partial);
                            // NaN fails this comparison too.
                            let plain = total > 0.0 && total.is_finite() && row.iter().all(|p| *p >= 0.0);
                            if !plain || !samples.normalize {
                                let (tolerance, _) = samples.tolerance();
                                if !plain || (total - 1.0).abs() > tolerance {
                                    samples.check(sample, layer, row, total)?;
                                }
                            }
                            store(layer, partial, total, &mut out[layer * per_layer..(layer + 1) * per_layer]);
                        }
                        task.advance(self.units(1));
                    }
                    Ok(())
                };
                work().err()
            })
            .collect();
        // In the order of the samples, so the first one is the first for any number of threads.
        match failures.into_iter().reduce(|first, next| if matches!(first, Error::Cancelled) { next } else { first }) {
            Some(error) => Err(error),
            None => Ok(features),
        }
    }

    /// Fills `out` with the features before division by the row's sum, and returns that sum.
    fn unscaled(&self, layer: usize, row: &[f64], out: &mut [f64]) -> f64 {
        let mut total = 0.0;
        match &self.metric {
            Metric::Index => {
                for (out, p) in out.iter_mut().zip(row) {
                    total += p;
                    *out = total;
                }
            }
            Metric::Positions(_) => {
                let order = &self.order[layer * self.experts..(layer + 1) * self.experts];
                for (out, &expert) in out.iter_mut().zip(order) {
                    total += row[expert as usize];
                    *out = total;
                }
            }
            Metric::Discrete => {
                out.copy_from_slice(row);
                total = row.iter().sum();
            }
            Metric::Values => {
                out.copy_from_slice(row);
                out.sort_unstable_by(f64::total_cmp);
                total = row.iter().sum();
            }
        }
        total
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

impl FixedFeatures {
    /// The sum of the features of each sample.
    pub(crate) fn row_sums(&self) -> Vec<u64> {
        let rows = self.features.as_slice().par_chunks(self.features.stride());
        rows.map(|row| row.iter().map(|&v| u64::from(v)).sum()).collect()
    }
}

/// Features in float64.
pub struct FloatFeatures {
    pub(crate) features: AlignedMatrix<f64>,
}
