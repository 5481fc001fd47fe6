//! The counters of one layer.

use super::confidence::Confidence;
use super::neighbour::{Neighbours, Trail};
use super::{Coactivation, Layer, Trace};
use crate::{Error, Result};

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
    /// Bytes that the counters take.
    pub(super) fn bytes(trace: &Trace<'_>, layer: &Layer) -> usize {
        let sizes = Sizes::new(trace, layer);
        let weighted = if trace.expert_weights.is_some() { 20 } else { 0 };
        sizes.histograms.saturating_mul(4 + weighted).saturating_add(sizes.pairs.saturating_mul(4))
    }

    pub(super) fn new(trace: &Trace<'_>, layer: &Layer) -> Result<Self> {
        let sizes = Sizes::new(trace, layer);
        let (groups, k) = (trace.n_groups(), trace.expert_ids.dim().2);
        let weighted = |n: usize| if trace.expert_weights.is_some() { n } else { 0 };
        let neighbours = if trace.follows.is_some() { groups } else { 0 };
        let inverse_ln = (0..=k).map(|k| if k < 2 { 0.0 } else { 1.0 / (k as f64).ln() });
        Ok(Self {
            experts: layer.active_experts(),
            width: sizes.width,
            filled: zeros(groups.saturating_mul(k + 1), 0)?,
            passive: zeros(groups, 0)?,
            activations: zeros(sizes.histograms, 0)?,
            repeats: Vec::new(),
            first: zeros(weighted(sizes.histograms), 0)?,
            sums: zeros(weighted(sizes.histograms), [0.0; 2])?,
            confidence: zeros(weighted(groups), Confidence::default())?,
            neighbours: zeros(neighbours, Neighbours::default())?,
            trail: (neighbours > 0).then(|| Trail::new(sizes.width)),
            pairs: zeros(sizes.pairs, 0)?,
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

    /// Adds the counters of tokens that come after.
    pub(super) fn merge(&mut self, other: &Self) {
        fn add<T: Copy + std::ops::AddAssign>(to: &mut [T], from: &[T]) {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
        }
        add(&mut self.filled, &other.filled);
        add(&mut self.passive, &other.passive);
        add(&mut self.activations, &other.activations);
        if !other.repeats.is_empty() {
            self.repeats.resize(self.activations.len(), 0);
            add(&mut self.repeats, &other.repeats);
        }
        add(&mut self.first, &other.first);
        add(self.sums.as_flattened_mut(), other.sums.as_flattened());
        add(&mut self.pairs, &other.pairs);
        self.confidence.iter_mut().zip(&other.confidence).for_each(|(to, from)| to.merge(from));
        self.neighbours.iter_mut().zip(&other.neighbours).for_each(|(to, from)| to.merge(from));
    }
}

/// Elements of the larger counters.
struct Sizes {
    width: usize,
    histograms: usize,
    pairs: usize,
}

impl Sizes {
    fn new(trace: &Trace<'_>, layer: &Layer) -> Self {
        let (groups, width) = (trace.n_groups(), layer.active_experts() + 1);
        let pairs = match trace.coactivation {
            Coactivation::None => 0,
            Coactivation::Whole => width * width,
            Coactivation::ByGroup => groups.saturating_mul(width * width),
        };
        Self { width, histograms: groups.saturating_mul(width), pairs }
    }
}

/// Memory for counters, or an error that says how much there would have to be.
pub(crate) fn zeros<T: Clone>(n: usize, zero: T) -> Result<Vec<T>> {
    let mut counters = Vec::new();
    let bytes = n.saturating_mul(size_of::<T>());
    counters.try_reserve_exact(n).map_err(|_| Error::Memory { what: "counters of a trace", bytes })?;
    counters.resize(n, zero);
    Ok(counters)
}
