//! The sums of one layer, and those of all layers as arrays.

use ndarray::{Array2, Array3};

use super::row::{BLOCK, Block, Row};
use super::score::{largest, two_largest};
use super::{Layer, Scoring, Trace};
use crate::Result;
use crate::count::state::zeros;

/// Sums over the tokens of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    tokens: i64,
    without: i64,
    entropy: f64,
    squares: f64,
    selection: f64,
    selection_tokens: i64,
    top1: f64,
}

/// The sums of one layer.
#[derive(Debug)]
pub(super) struct LayerState {
    experts: usize,
    scoring: Option<Scoring>,
    /// `[G]`
    sums: Vec<Sums>,
    /// `[G, blocks]`: Σ p
    probs: Vec<Block>,
}

impl LayerState {
    /// Bytes that the sums take.
    pub(super) fn bytes(layer: &Layer, groups: usize) -> usize {
        groups.saturating_mul(layer.active_experts().div_ceil(BLOCK) * size_of::<Block>() + size_of::<Sums>())
    }

    pub(super) fn new(layer: &Layer, groups: usize) -> Result<Self> {
        let experts = layer.active_experts();
        Ok(Self {
            experts,
            scoring: layer.scoring,
            sums: zeros(groups, Sums::default())?,
            probs: zeros(groups.saturating_mul(experts.div_ceil(BLOCK)), [0.0; BLOCK])?,
        })
    }

    /// Adds a token that has chosen an expert.
    #[inline(always)]
    pub(super) fn add(&mut self, row: &mut Row, scoring: Scoring, group: usize) {
        let sums = &mut self.sums[group];
        let Some(spread) = row.distribute(scoring) else {
            sums.without += 1;
            return;
        };
        sums.tokens += 1;
        sums.entropy += spread.entropy;
        sums.squares += spread.log_sum * spread.log_sum;
        let blocks = self.experts.div_ceil(BLOCK);
        let chosen = std::mem::take(&mut row.chosen);
        let probs = row.parts().scores;
        for (totals, probs) in self.probs[group * blocks..].iter_mut().zip(&*probs) {
            for i in 0..BLOCK {
                totals[i] += probs[i];
            }
        }
        let (first, second) = two_largest(probs);
        // What fills up the row has probability 0, so a single expert seems to be ahead of one.
        sums.top1 += if self.experts > 1 { first - second } else { 0.0 };
        if chosen.len() < self.experts {
            let of = probs.as_flattened_mut();
            let least = chosen.iter().map(|&e| of[e]).fold(f64::INFINITY, f64::min);
            // The rest has no probability below 0, and neither has what fills up the row.
            chosen.iter().for_each(|&e| of[e] = -1.0);
            sums.selection += least - largest(probs);
            sums.selection_tokens += 1;
        }
        row.chosen = chosen;
    }

    /// Adds the sums of tokens that come after.
    fn merge(&mut self, other: &Self) {
        for (to, from) in self.sums.iter_mut().zip(&other.sums) {
            to.tokens += from.tokens;
            to.without += from.without;
            to.entropy += from.entropy;
            to.squares += from.squares;
            to.selection += from.selection;
            to.selection_tokens += from.selection_tokens;
            to.top1 += from.top1;
        }
        let probs = self.probs.as_flattened_mut().iter_mut();
        probs.zip(other.probs.as_flattened()).for_each(|(to, from)| *to += from);
    }
}

/// Sums over the tokens that have a slot on an expert and a distribution over experts, p. G groups (1 without groups),
/// L layers, E experts of the layer that has most, passive ones not counted; layers with fewer have zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitSums {
    /// `[G, L]`: how many tokens those are.
    pub tokens: Array2<i64>,
    /// `[G, L]`: tokens that have a slot on an expert, but no distribution, all of its scores being 0.
    pub without_probs: Array2<i64>,
    /// `[G, L, E]`: Σ p
    pub prob_sums: Array3<f64>,
    /// `[G, L]`: Σ H(p), in nats.
    pub entropy_sums: Array2<f64>,
    /// `[G, L]`: Σ (ln Σ e^x)², x the logits of experts and passive ones.
    pub z_sums: Array2<f64>,
    /// `[G, L]`: tokens in that sum: none where the router gave probabilities.
    pub z_tokens: Array2<i64>,
    /// `[G, L]`: Σ (smallest p of those chosen - largest of the rest).
    pub selection_margin_sums: Array2<f64>,
    /// `[G, L]`: tokens in that sum: those that left an expert unchosen.
    pub selection_margin_tokens: Array2<i64>,
    /// `[G, L]`: Σ (largest p - second largest).
    pub top1_margin_sums: Array2<f64>,
    /// `[G, L]`: tokens in that sum: none where there is one expert.
    pub top1_margin_tokens: Array2<i64>,
}

/// Merges the parts of each layer, in order, and puts the layers side by side.
pub(super) fn collect(trace: &Trace<'_>, pieces: Vec<LayerState>, parts: usize) -> LogitSums {
    let mut pieces = pieces.into_iter();
    let mut layers = Vec::with_capacity(trace.layers.len());
    while let Some(mut layer) = pieces.next() {
        pieces.by_ref().take(parts - 1).for_each(|part| layer.merge(&part));
        layers.push(layer);
    }
    let groups = trace.n_groups();
    let most = layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    let prob = |(group, layer, expert): (usize, usize, usize)| {
        let layer: &LayerState = &layers[layer];
        let row = group * layer.experts.div_ceil(BLOCK);
        if expert < layer.experts { layer.probs[row + expert / BLOCK][expert % BLOCK] } else { 0.0 }
    };
    LogitSums {
        tokens: table(&layers, groups, |_, sums| sums.tokens),
        without_probs: table(&layers, groups, |_, sums| sums.without),
        prob_sums: Array3::from_shape_fn((groups, layers.len(), most), prob),
        entropy_sums: table(&layers, groups, |_, sums| sums.entropy),
        z_sums: table(&layers, groups, |_, sums| sums.squares),
        z_tokens: table(
            &layers,
            groups,
            |layer, sums| {
                if layer.scoring == Some(Scoring::Probabilities) { 0 } else { sums.tokens }
            },
        ),
        selection_margin_sums: table(&layers, groups, |_, sums| sums.selection),
        selection_margin_tokens: table(&layers, groups, |_, sums| sums.selection_tokens),
        top1_margin_sums: table(&layers, groups, |_, sums| sums.top1),
        top1_margin_tokens: table(&layers, groups, |layer, sums| if layer.experts > 1 { sums.tokens } else { 0 }),
    }
}

/// `[G, L]`
fn table<T>(layers: &[LayerState], groups: usize, value: impl Fn(&LayerState, &Sums) -> T) -> Array2<T> {
    Array2::from_shape_fn((groups, layers.len()), |(group, layer)| value(&layers[layer], &layers[layer].sums[group]))
}
