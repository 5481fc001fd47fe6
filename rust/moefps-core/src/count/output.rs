//! The counters of all layers, as arrays.

use ndarray::{Array2, Array3, Array4, s};

use super::state::LayerState;
use super::{Coactivation, Trace};
use crate::table::{by_expert, by_group};

/// What a trace was reduced to. G groups (1 without groups), L layers, k slots, E experts of the layer that has most,
/// passive ones not counted; layers with fewer have zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    /// `[G, L, k + 1]`: rows with so many filled slots.
    pub filled_slots: Array3<i64>,
    /// `[G, L]`: slots on passive experts.
    pub passive_slots: Array2<i64>,
    /// `[G, L, E]`: slots on an expert.
    pub activations: Array3<i64>,
    /// `[G, L, E]`: tokens that chose an expert, once or more often.
    pub tokens: Array3<i64>,
    /// `[1 or G, L, E, E]`: tokens that chose both; on the diagonal, those that chose the one.
    pub coactivation: Option<Array4<i64>>,
    /// Only with weights.
    pub weights: Option<WeightCounts>,
    /// Only where it is known which rows are neighbours.
    pub neighbours: Option<NeighbourCounts>,
}

/// What needs weights. ŵ is w divided by its sum over the token's filled slots.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightCounts {
    /// `[G, L, E]`: tokens whose slot with the largest weight, the lowest of equals, is on an expert.
    pub first_choices: Array3<i64>,
    /// `[G, L, E]`: Σ w
    pub weight_sums: Array3<f64>,
    /// `[G, L, E]`: Σ ŵ
    pub share_sums: Array3<f64>,
    /// `[G, L]`: tokens with a filled slot whose weights sum to 0, so that they have no ŵ.
    pub without_shares: Array2<i64>,
    /// `[G, L]`: Σ `H(ŵ) / ln k_t`
    pub entropy_sums: Array2<f64>,
    /// `[G, L]`: tokens in that sum: of two or more filled slots, with ŵ, and none of it negative.
    pub entropy_tokens: Array2<i64>,
}

/// Pairs of a token and the next one of its sequence, both with a filled slot and of one group; all `[G, L]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NeighbourCounts {
    /// How many there are.
    pub pairs: Array2<i64>,
    /// Pairs with an expert in common.
    pub any_common: Array2<i64>,
    /// Experts in common, summed.
    pub common: Array2<i64>,
    /// Jaccard index of the two sets of experts, summed.
    pub jaccard_sums: Array2<f64>,
    /// Only with weights.
    pub weights: Option<NeighbourWeights>,
}

/// What of pairs of neighbours needs weights; all `[G, L]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NeighbourWeights {
    /// Pairs with the same first choice.
    pub same_first: Array2<i64>,
    /// `1 - TV(ŵ, ŵ')`, summed.
    pub locality_sums: Array2<f64>,
    /// Pairs that are not in that sum, since the weights of a token sum to 0.
    pub without_shares: Array2<i64>,
}

/// Puts the layers side by side.
pub(super) fn collect(trace: &Trace<'_>, mut layers: Vec<LayerState>) -> Counts {
    let experts = layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    let table = Table { layers: &mut layers, groups: trace.n_groups(), experts };
    table.counts(trace)
}

struct Table<'a> {
    layers: &'a mut [LayerState],
    groups: usize,
    experts: usize,
}

impl Table<'_> {
    fn counts(mut self, trace: &Trace<'_>) -> Counts {
        let coactivation = match trace.coactivation {
            Coactivation::None => None,
            Coactivation::Whole => Some(self.pairs(1)),
            Coactivation::ByGroup => Some(self.pairs(self.groups)),
        };
        let activations = self.histogram(|layer| &layer.activations, i64::from);
        let tokens = self.without_repeats(activations.clone());
        let bars = trace.expert_ids.dim().2 + 1;
        let mut counts = Counts {
            filled_slots: by_expert(
                self.layers,
                (self.groups, bars),
                |layer, group| &layer.filled[group * bars..][..bars],
                i64::from,
            ),
            passive_slots: self.number(|layer, group| layer.passive[group] as i64),
            activations,
            tokens,
            coactivation,
            weights: trace.expert_weights.is_some().then(|| self.weights()),
            neighbours: trace.follows.is_some().then(|| self.neighbours(trace.expert_weights.is_some())),
        };
        if let Some(pairs) = &mut counts.coactivation {
            fill_diagonals(pairs, &counts.tokens);
        }
        counts
    }

    /// Each expert of a token once.
    fn without_repeats(&self, mut activations: Array3<i64>) -> Array3<i64> {
        for (index, layer) in self.layers.iter().enumerate().filter(|(_, layer)| !layer.repeats.is_empty()) {
            for (group, repeats) in layer.repeats.chunks_exact(layer.width).enumerate() {
                let mut row = activations.slice_mut(s![group, index, ..layer.experts]);
                row.iter_mut().zip(repeats).for_each(|(count, &repeats)| *count -= i64::from(repeats));
            }
        }
        activations
    }

    fn weights(&mut self) -> WeightCounts {
        for layer in self.layers.iter_mut() {
            layer.activations = Vec::new();
        }
        let first_choices = self.histogram(|layer| &layer.first, i64::from);
        for layer in self.layers.iter_mut() {
            layer.first = Vec::new();
        }
        WeightCounts {
            first_choices,
            weight_sums: self.histogram(|layer| &layer.sums, |[weights, _]| weights),
            share_sums: self.histogram(|layer| &layer.sums, |[_, shares]| shares),
            without_shares: self.number(|layer, group| layer.confidence[group].without_shares as i64),
            entropy_sums: self.number(|layer, group| layer.confidence[group].entropy),
            entropy_tokens: self.number(|layer, group| layer.confidence[group].tokens as i64),
        }
    }

    fn neighbours(&self, weighted: bool) -> NeighbourCounts {
        NeighbourCounts {
            pairs: self.number(|layer, group| layer.neighbours[group].pairs as i64),
            any_common: self.number(|layer, group| layer.neighbours[group].any_common as i64),
            common: self.number(|layer, group| layer.neighbours[group].common as i64),
            jaccard_sums: self.number(|layer, group| layer.neighbours[group].jaccard),
            weights: weighted.then(|| NeighbourWeights {
                same_first: self.number(|layer, group| layer.neighbours[group].same_first as i64),
                locality_sums: self.number(|layer, group| layer.neighbours[group].locality),
                without_shares: self.number(|layer, group| layer.neighbours[group].without_shares as i64),
            }),
        }
    }

    /// `[G, L]`
    fn number<T>(&self, of: impl Fn(&LayerState, usize) -> T) -> Array2<T> {
        by_group(self.layers, self.groups, of)
    }

    /// `[G, L, E]`, of a histogram of each layer.
    fn histogram<S: Copy, T: Clone + Default>(
        &self,
        of: impl Fn(&LayerState) -> &[S],
        convert: impl Fn(S) -> T,
    ) -> Array3<T> {
        by_expert(
            self.layers,
            (self.groups, self.experts),
            |layer, group| &of(layer)[group * layer.width..][..layer.experts],
            convert,
        )
    }

    /// `[G, L, E, E]` but for the diagonals; the layers' own counters are given up on the way.
    fn pairs(&mut self, groups: usize) -> Array4<i64> {
        let mut pairs = Array4::zeros((groups, self.layers.len(), self.experts, self.experts));
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let counted = std::mem::take(&mut layer.pairs);
            for (group, counted) in counted.chunks_exact(layer.width * layer.width).enumerate() {
                let mut square = pairs.slice_mut(s![group, index, .., ..]);
                for (low, counted) in counted.chunks_exact(layer.width).enumerate().take(layer.experts) {
                    for high in low + 1..layer.experts {
                        square[[low, high]] = i64::from(counted[high]);
                        square[[high, low]] = i64::from(counted[high]);
                    }
                }
            }
        }
        pairs
    }
}

/// Tokens that chose an expert, over all groups where the pairs are.
fn fill_diagonals(pairs: &mut Array4<i64>, tokens: &Array3<i64>) {
    let whole = pairs.dim().0 != tokens.dim().0;
    for ((group, layer, expert), &count) in tokens.indexed_iter() {
        pairs[[if whole { 0 } else { group }, layer, expert, expert]] += count;
    }
}
