//! What weights say about a token: their sum, the expert with the largest, and how evenly they are spread.

use super::Trace;
use super::tile::Tile;
use crate::math::ln;
use crate::tile::{Row, TILE};

impl Tile {
    /// Clears the weights of empty slots and works out what they say; says whether any weight is not accepted.
    #[inline(always)]
    pub(super) fn weigh(&mut self, trace: &Trace<'_>, layer: usize) -> bool {
        if trace.expert_weights.is_none() {
            return false;
        }
        let lowest = if trace.layers[layer].signed_weights { f64::MIN } else { 0.0 };
        let experts = self.experts;
        let mut bad = false;
        let mut sum: Row<f64> = [0.0; TILE];
        let mut largest: Row<f64> = [f64::NEG_INFINITY; TILE];
        // As wide as the weights, so that both are chosen by one comparison.
        let mut first_slot: Row<u64> = [0; TILE];
        self.least = [0.0; TILE];
        for (slot, weights) in self.slots.weights.iter_mut().enumerate() {
            let (raw, ids) = (&self.slots.ids[slot], &self.ids[slot]);
            for t in 0..TILE {
                let weight = weights[t];
                // The other way round, NaN would pass.
                let accepted = (weight >= lowest) & (weight <= f64::MAX);
                bad |= (raw[t] >= 0) & !accepted;
            }
            for t in 0..TILE {
                let filled = ids[t] < experts;
                let weight = if filled { weights[t] } else { 0.0 };
                let candidate = if filled { weights[t] } else { f64::NEG_INFINITY };
                weights[t] = weight;
                sum[t] += weight;
                let larger = candidate > largest[t];
                largest[t] = if larger { candidate } else { largest[t] };
                first_slot[t] = if larger { slot as u64 } else { first_slot[t] };
                self.least[t] = if weight < self.least[t] { weight } else { self.least[t] };
            }
        }
        self.entropy = [0.0; TILE];
        for weights in &self.slots.weights {
            for t in 0..TILE {
                // 0 ln 0 = 0: the logarithm of 0 is finite here.
                self.entropy[t] += weights[t] * ln(weights[t]);
            }
        }
        for t in 0..TILE {
            self.inverse[t] = if sum[t] == 0.0 { 0.0 } else { 1.0 / sum[t] };
            // -Σ ŵ ln ŵ = ln Σw - Σ (w ln w) / Σw, which rounding may put below 0.
            let entropy = ln(sum[t]) - self.entropy[t] * self.inverse[t];
            self.entropy[t] = if entropy > 0.0 { entropy } else { 0.0 };
        }
        for t in 0..self.len {
            self.first[t] = self.ids[first_slot[t] as usize][t];
        }
        bad
    }
}

/// Sums over the tokens of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Confidence {
    /// `H(ŵ) / ln k_t`
    pub(super) entropy: f64,
    /// Tokens in that sum.
    pub(super) tokens: u64,
    /// Tokens with a filled slot whose weights sum to 0.
    pub(super) without_shares: u64,
}

impl Confidence {
    /// Adds tokens of a tile.
    #[inline(always)]
    pub(super) fn add(&mut self, tile: &Tile, tokens: std::ops::Range<usize>, inverse_ln: &[f64]) {
        let mut sums = Self::default();
        for t in tokens {
            let (filled, shared) = (usize::from(tile.filled[t]), tile.inverse[t] != 0.0);
            // The logarithm of a negative share is not defined.
            let counted = (filled >= 2) & shared & (tile.least[t] >= 0.0);
            sums.entropy += if counted { tile.entropy[t] * inverse_ln[filled] } else { 0.0 };
            sums.tokens += u64::from(counted);
            sums.without_shares += u64::from((filled > 0) & !shared);
        }
        self.merge(&sums);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.entropy += other.entropy;
        self.tokens += other.tokens;
        self.without_shares += other.without_shares;
    }
}
