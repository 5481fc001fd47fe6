//! The counters of one layer, and those of all layers as arrays.

use ndarray::{Array2, Array3};

use super::Request;
use crate::Result;
use crate::chunk::{Counters, add};
use crate::table::{by_expert, by_group};
use crate::trace::{Layer, zeros};

/// Activations that are summed up for a group and an expert.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Sum of those above the threshold.
    total: f64,
    /// The largest of them; 0 where there is none.
    largest: f64,
    /// How many they are.
    counted: u32,
    /// How many activations there are.
    all: u32,
}

impl Cell {
    #[inline(always)]
    fn add(&mut self, counted: f64) {
        self.all += 1;
        self.counted += u32::from(counted > 0.0);
        self.total += counted;
        self.largest = if counted > self.largest { counted } else { self.largest };
    }
}

/// The counters of one layer.
#[derive(Debug)]
pub(crate) struct LayerState {
    experts: usize,
    threshold: f64,
    n_bins: u32,
    highest: f64,
    /// Bins in a unit of activation.
    scale: f64,
    /// `[G, E]`
    cells: Vec<Cell>,
    /// `[G]`: tokens, and those of them that have no activation to look at.
    tokens: Vec<[u64; 2]>,
    /// `[E, 1 + bins + 1]`: below 0, the bins, above the last one.
    histogram: Vec<u32>,
}

impl LayerState {
    pub(super) fn new(request: &Request<'_>, layer: &Layer) -> Result<Self> {
        let (groups, experts) = (request.n_groups(), layer.active_experts());
        Ok(Self {
            experts,
            threshold: request.threshold,
            n_bins: request.bins.count as u32,
            highest: request.bins.highest,
            scale: request.bins.count as f64 / request.bins.highest,
            cells: zeros(groups.saturating_mul(experts))?,
            tokens: zeros(groups)?,
            histogram: zeros(experts.saturating_mul(request.bins.count + 2))?,
        })
    }

    /// `[E]`
    fn cells(&self, group: usize) -> &[Cell] {
        &self.cells[group * self.experts..][..self.experts]
    }

    /// Counts a token, which may have nothing that can be summed.
    #[inline(always)]
    pub(super) fn see(&mut self, group: usize, is_summed: bool) {
        let [tokens, left_out] = &mut self.tokens[group];
        *tokens += 1;
        *left_out += u64::from(!is_summed);
    }

    /// The activation if it counts, else 0: thresholds are not negative, so what counts is not 0.
    #[inline(always)]
    fn counted(&self, activation: f64) -> f64 {
        if activation > self.threshold { activation } else { 0.0 }
    }

    /// Where in the histogram an activation is: first what is below 0, last what is above all bins.
    #[inline(always)]
    fn bin(&self, activation: f64) -> u32 {
        // The last bin owns its upper edge.
        let bin = 1 + ((activation * self.scale) as u32).min(self.n_bins - 1);
        let bin = if activation > self.highest { self.n_bins + 1 } else { bin };
        if activation < 0.0 { 0 } else { bin }
    }

    /// Tells of many activations in which bins they are, and replaces those that do not count by 0.
    #[inline(always)]
    pub(super) fn classify<const N: usize>(&self, activations: &mut [f64; N], bins: &mut [u32; N]) {
        for t in 0..N {
            bins[t] = self.bin(activations[t]);
            activations[t] = self.counted(activations[t]);
        }
    }

    /// Adds activations on tokens of one group, as [`Self::classify`] leaves them, each of an expert; where that is
    /// none, nothing.
    #[inline(always)]
    pub(super) fn add_many(&mut self, group: usize, experts: &[u16], counted: &[f64], bins: &[u32]) {
        let width = self.n_bins as usize + 2;
        let cells = &mut self.cells[group * self.experts..][..self.experts];
        for ((&expert, &counted), &bin) in experts.iter().zip(counted).zip(bins) {
            let expert = usize::from(expert);
            if let Some(cell) = cells.get_mut(expert) {
                cell.add(counted);
                self.histogram[expert * width + bin as usize] += 1;
            }
        }
    }

    /// Adds the activations of the first experts on a token.
    #[inline(always)]
    pub(super) fn add_all(&mut self, group: usize, activations: &[f64]) {
        for (expert, &activation) in activations.iter().enumerate() {
            self.add(group, expert, activation);
        }
    }

    /// Adds the activation of an expert on a token.
    #[inline(always)]
    pub(super) fn add(&mut self, group: usize, expert: usize, activation: f64) {
        let (counted, bin) = (self.counted(activation), self.bin(activation));
        self.cells[group * self.experts + expert].add(counted);
        self.histogram[expert * (self.n_bins as usize + 2) + bin as usize] += 1;
    }
}

impl Counters for LayerState {
    fn bytes(&self) -> usize {
        size_of_val(&self.cells[..]) + size_of_val(&self.histogram[..])
    }

    fn merge(&mut self, later: &Self) {
        for (to, from) in self.cells.iter_mut().zip(&later.cells) {
            to.total += from.total;
            to.largest = to.largest.max(from.largest);
            to.counted += from.counted;
            to.all += from.all;
        }
        add(self.tokens.as_flattened_mut(), later.tokens.as_flattened());
        add(&mut self.histogram, &later.histogram);
    }
}

/// What the activations of a trace were summed up to. G groups (1 without groups), the L layers that were asked for, E
/// experts of the layer that has most, passive ones not counted; layers with fewer have zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// `[G, L]`: tokens with a filled slot.
    pub tokens: Array2<i64>,
    /// `[G, L]`: of those, tokens whose weights sum to 0, or that have no distribution.
    pub left_out: Array2<i64>,
    /// `[G, L, E]`: activations.
    pub activations: Array3<i64>,
    /// `[G, L, E]`: activations above the threshold.
    pub counts: Array3<i64>,
    /// `[G, L, E]`: their sum.
    pub totals: Array3<f64>,
    /// `[G, L, E]`: the largest of them, 0 where there is none.
    pub maxima: Array3<f64>,
    /// `[L, E, bins]`: all activations by value.
    pub histogram: Array3<i64>,
    /// `[L, E]`: activations below 0, which are in no bin.
    pub below: Array2<i64>,
    /// `[L, E]`: activations above the last bin.
    pub above: Array2<i64>,
}

/// Puts the layers side by side.
pub(super) fn collect(request: &Request<'_>, layers: &[LayerState]) -> Sums {
    let (groups, bins) = (request.n_groups(), request.bins.count);
    let experts = layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    let binned = |layer: usize, expert: usize, bin: usize| -> i64 {
        let state: &LayerState = &layers[layer];
        if expert < state.experts { state.histogram[expert * (bins + 2) + bin].into() } else { 0 }
    };
    let seen = |which: usize| by_group(layers, groups, |layer, group| layer.tokens[group][which] as i64);
    let shape = (groups, experts);
    Sums {
        tokens: seen(0),
        left_out: seen(1),
        activations: by_expert(layers, shape, LayerState::cells, |cell| i64::from(cell.all)),
        counts: by_expert(layers, shape, LayerState::cells, |cell| i64::from(cell.counted)),
        totals: by_expert(layers, shape, LayerState::cells, |cell| cell.total),
        maxima: by_expert(layers, shape, LayerState::cells, |cell| cell.largest),
        histogram: Array3::from_shape_fn((layers.len(), experts, bins), |(l, e, bin)| binned(l, e, bin + 1)),
        below: Array2::from_shape_fn((layers.len(), experts), |(l, e)| binned(l, e, 0)),
        above: Array2::from_shape_fn((layers.len(), experts), |(l, e)| binned(l, e, bins + 1)),
    }
}
