//! The counters of one layer.

use super::confidence::Confidence;
use super::neighbour::{Neighbours, Trail};
use super::{Coactivation, Layer, Trace};
use crate::Result;
use crate::chunk::{Counters, add};
use crate::trace::zeros;

/// Histograms have a column more than there are experts, for empty slots.
#[derive(Debug)]
pub(crate) struct LayerState {
    pub(super) experts: usize,
    /// Columns of a histogram.
    pub(super) width: usize,
    /// `[G, k + 1]`: tokens with so many filled slots.
    pub(super) filled: Vec<u32>,
    /// `[G]`: slots on passive experts.
    pub(super) passive: Vec<u64>,
    /// `[G, width]`
    pub(super) activations: Vec<u32>,
    /// `[G, width]`: choices of an expert that the token had chosen already; empty as long as there is none.
    pub(super) repeats: Vec<u32>,
    /// `[G, width]`: tokens whose largest weight it has. Empty without weights, as are all below that need them.
    pub(super) first: Vec<u32>,
    /// `[G, width]`: Σ w and Σ ŵ.
    pub(super) sums: Vec<[f64; 2]>,
    /// `[G]`
    pub(super) confidence: Vec<Confidence>,
    /// `[G]`, or empty.
    pub(super) neighbours: Vec<Neighbours>,
    pub(super) trail: Option<Trail>,
    /// `[1 or G, width, width]`: only the upper triangles; or empty.
    pub(super) pairs: Vec<u32>,
    /// `[k + 1]`: 1 / ln k from 2 on.
    pub(super) inverse_ln: Vec<f64>,
}

impl LayerState {
    pub(super) fn new(trace: &Trace<'_>, layer: &Layer) -> Result<Self> {
        let (groups, k) = (trace.n_groups(), trace.expert_ids.dim().2);
        let width = layer.active_experts() + 1;
        let histograms = groups.saturating_mul(width);
        let pairs = match trace.coactivation {
            Coactivation::None => 0,
            Coactivation::Whole => width * width,
            Coactivation::ByGroup => histograms.saturating_mul(width),
        };
        let weighted = |n: usize| if trace.expert_weights.is_some() { n } else { 0 };
        let neighbours = if trace.follows.is_some() { groups } else { 0 };
        let inverse_ln = (0..=k).map(|k| if k < 2 { 0.0 } else { 1.0 / (k as f64).ln() });
        Ok(Self {
            experts: layer.active_experts(),
            width,
            filled: zeros(groups.saturating_mul(k + 1))?,
            passive: zeros(groups)?,
            activations: zeros(histograms)?,
            repeats: Vec::new(),
            first: zeros(weighted(histograms))?,
            sums: zeros(weighted(histograms))?,
            confidence: zeros(weighted(groups))?,
            neighbours: zeros(neighbours)?,
            trail: (neighbours > 0).then(|| Trail::new(width)),
            pairs: zeros(pairs)?,
            inverse_ln: inverse_ln.collect(),
        })
    }

    pub(super) fn forget_neighbour(&mut self) {
        if let Some(trail) = &mut self.trail {
            trail.forget();
        }
    }

    pub(super) fn add_repeat(&mut self, group: usize, expert: usize) {
        self.repeats.resize(self.activations.len(), 0);
        self.repeats[group * self.width + expert] += 1;
    }
}

impl Counters for LayerState {
    fn bytes(&self) -> usize {
        let histograms = size_of_val(&self.activations[..]) + size_of_val(&self.first[..]);
        histograms + size_of_val(&self.sums[..]) + size_of_val(&self.pairs[..])
    }

    fn merge(&mut self, later: &Self) {
        add(&mut self.filled, &later.filled);
        add(&mut self.passive, &later.passive);
        add(&mut self.activations, &later.activations);
        if !later.repeats.is_empty() {
            self.repeats.resize(self.activations.len(), 0);
            add(&mut self.repeats, &later.repeats);
        }
        add(&mut self.first, &later.first);
        add(self.sums.as_flattened_mut(), later.sums.as_flattened());
        add(&mut self.pairs, &later.pairs);
        self.confidence.iter_mut().zip(&later.confidence).for_each(|(to, from)| to.merge(from));
        self.neighbours.iter_mut().zip(&later.neighbours).for_each(|(to, from)| to.merge(from));
    }
}
