//! The sums of one layer, and those of all layers as arrays.

use ndarray::{Array2, Array3};

use crate::Result;
use crate::chunk::{Counters, add};
use crate::distribution::{BLOCK, Block, Row, largest, two_largest};
use crate::table::{by_expert, by_group};
use crate::trace::{Layer, Scoring, zeros};

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
pub(crate) struct LayerState {
    experts: usize,
    scoring: Option<Scoring>,
    /// `[G]`
    sums: Vec<Sums>,
    /// `[G, blocks]`: Σ p
    probs: Vec<Block>,
}

impl LayerState {
    pub(super) fn new(layer: &Layer, groups: usize) -> Result<Self> {
        let experts = layer.active_experts();
        Ok(Self {
            experts,
            scoring: layer.scoring,
            sums: zeros(groups)?,
            probs: zeros(groups.saturating_mul(experts.div_ceil(BLOCK)))?,
        })
    }

    /// `[E]`
    fn probs(&self, group: usize) -> &[f64] {
        let start = group * self.experts.next_multiple_of(BLOCK);
        &self.probs.as_flattened()[start..][..self.experts]
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
        let probs = row.probs();
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
}

impl Counters for LayerState {
    fn bytes(&self) -> usize {
        size_of_val(&self.sums[..]) + size_of_val(&self.probs[..])
    }

    fn merge(&mut self, later: &Self) {
        for (to, from) in self.sums.iter_mut().zip(&later.sums) {
            to.tokens += from.tokens;
            to.without += from.without;
            to.entropy += from.entropy;
            to.squares += from.squares;
            to.selection += from.selection;
            to.selection_tokens += from.selection_tokens;
            to.top1 += from.top1;
        }
        add(self.probs.as_flattened_mut(), later.probs.as_flattened());
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

/// Puts the layers side by side.
pub(super) fn collect(groups: usize, layers: &[LayerState]) -> LogitSums {
    let experts = layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    let numbers = |of: fn(&Sums) -> f64| by_group(layers, groups, |layer, group| of(&layer.sums[group]));
    let counts = |of: fn(&Sums) -> i64| by_group(layers, groups, |layer, group| of(&layer.sums[group]));
    let tokens_if = |counts: fn(&LayerState) -> bool| {
        by_group(layers, groups, |layer, group| if counts(layer) { layer.sums[group].tokens } else { 0 })
    };
    LogitSums {
        tokens: counts(|sums| sums.tokens),
        without_probs: counts(|sums| sums.without),
        prob_sums: by_expert(layers, (groups, experts), LayerState::probs, |p| p),
        entropy_sums: numbers(|sums| sums.entropy),
        z_sums: numbers(|sums| sums.squares),
        z_tokens: tokens_if(|layer| layer.scoring != Some(Scoring::Probabilities)),
        selection_margin_sums: numbers(|sums| sums.selection),
        selection_margin_tokens: counts(|sums| sums.selection_tokens),
        top1_margin_sums: numbers(|sums| sums.top1),
        top1_margin_tokens: tokens_if(|layer| layer.experts > 1),
    }
}
