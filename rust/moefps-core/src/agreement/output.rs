//! The counters of all layers, as arrays.

use ndarray::{Array2, Array3};

use super::Comparison;
use super::state::{Counts, LayerState, Sums};
use crate::table::{by_expert, by_group};

/// How much two traces agree. G groups (1 without groups), L of the chosen layers, E experts of the layer that has most,
/// passive ones not counted. Where two arrays stand together, they are of the one side and of the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// `[G, L]`: pairs of tokens that both have a filled slot.
    pub pairs: Array2<i64>,
    /// `[G, L]`: experts that both chose, summed.
    pub common: Array2<i64>,
    /// `[G, L]`: experts that were chosen, summed.
    pub experts: [Array2<i64>; 2],
    /// `[G, L]`: pairs of equal sets of experts.
    pub equal: Array2<i64>,
    /// `[G, L]`: Jaccard index of the two sets of experts, summed.
    pub jaccard_sums: Array2<f64>,
    /// Only with weights.
    pub weights: Option<WeightAgreement>,
    /// Only if asked for.
    pub usage: Option<[Usage; 2]>,
}

/// What needs weights; all `[G, L]`. ŵ is w divided by its sum over the token's filled slots.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightAgreement {
    /// Pairs where ŵ is not defined on both sides: they are in no sum below.
    pub without_shares: Array2<i64>,
    /// Pairs whose slots with the largest weight, the lowest of equals, are of one expert.
    pub same_first: Array2<i64>,
    /// Experts that both have among the first [`super::TOP`] by weight, summed.
    pub common_top: Array2<i64>,
    /// `½ Σ |ŵa - ŵb|`, summed.
    pub tv_sums: Array2<f64>,
    /// Jensen-Shannon divergence of ŵa and ŵb, base 2, summed.
    pub js_sums: Array2<f64>,
    /// `H(ŵ)` in nats, summed.
    pub entropy_sums: [Array2<f64>; 2],
    /// `exp H(ŵ)`, summed.
    pub neff_sums: [Array2<f64>; 2],
    /// The largest ŵ of an expert less the second largest, summed.
    pub margin_sums: [Array2<f64>; 2],
}

/// How often each expert is chosen, on one side of the pairs that count.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// `[G, L, E]`: slots on an expert.
    pub activations: Array3<i64>,
    /// `[G, L, E]`: Σ ŵ; only with weights.
    pub share_sums: Option<Array3<f64>>,
}

/// Puts the layers side by side.
pub(super) fn collect(comparison: &Comparison<'_>, mut layers: Vec<LayerState>) -> Agreement {
    let (groups, weighted) = (comparison.n_groups(), comparison.is_weighted());
    let usage = comparison.usage.then(|| [0, 1].map(|side| usage(&mut layers, groups, side, weighted)));
    let count = |of: fn(&Counts<u64>) -> u64| by_group(&layers, groups, |layer, group| of(&layer.counts[group]) as i64);
    let sum = |of: fn(&Sums<f64>) -> f64| by_group(&layers, groups, |layer, group| of(&layer.sums[group]));
    Agreement {
        pairs: count(|c| c.pairs),
        common: count(|c| c.common),
        experts: [count(|c| c.experts_a), count(|c| c.experts_b)],
        equal: count(|c| c.equal),
        jaccard_sums: sum(|s| s.jaccard),
        weights: weighted.then(|| WeightAgreement {
            without_shares: count(|c| c.without_shares),
            same_first: count(|c| c.same_first),
            common_top: count(|c| c.common_top),
            tv_sums: sum(|s| s.tv),
            js_sums: sum(|s| s.js),
            entropy_sums: [sum(|s| s.entropy_a), sum(|s| s.entropy_b)],
            neff_sums: [sum(|s| s.neff_a), sum(|s| s.neff_b)],
            margin_sums: [sum(|s| s.margin_a), sum(|s| s.margin_b)],
        }),
        usage,
    }
}

/// The histograms of one side; the layers' own are given up on the way.
fn usage(layers: &mut [LayerState], groups: usize, side: usize, weighted: bool) -> Usage {
    let experts = layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    let cells = |layer: &LayerState, group: usize| group * layer.width..group * layer.width + layer.experts;
    let shape = (groups, experts);
    let activations =
        by_expert(layers, shape, |layer, group| &layer.usage[side].activations[cells(layer, group)], i64::from);
    layers.iter_mut().for_each(|layer| layer.usage[side].activations = Vec::new());
    let share_sums = weighted.then(|| {
        by_expert(layers, shape, |layer, group| &layer.usage[side].shares[cells(layer, group)], |share| share)
    });
    layers.iter_mut().for_each(|layer| layer.usage[side].shares = Vec::new());
    Usage { activations, share_sums }
}
