//! The counters of one layer, and those of all layers as arrays.

use ndarray::{Array2, Array3, s};

use super::Request;
use crate::count::Layer;
use crate::{Error, Result};

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
pub(super) struct LayerState {
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
    /// Bytes that the counters take.
    pub(super) fn bytes(request: &Request<'_>, layer: &Layer) -> usize {
        let (cells, bins) = sizes(request, layer);
        cells.saturating_mul(size_of::<Cell>()).saturating_add(bins.saturating_mul(4))
    }

    pub(super) fn new(request: &Request<'_>, layer: &Layer) -> Result<Self> {
        let (cells, bins) = sizes(request, layer);
        Ok(Self {
            experts: layer.active_experts(),
            threshold: request.threshold,
            n_bins: request.bins.count as u32,
            highest: request.bins.highest,
            scale: request.bins.count as f64 / request.bins.highest,
            cells: zeros(cells)?,
            tokens: zeros(request.n_groups())?,
            histogram: zeros(bins)?,
        })
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

    /// Adds the counters of tokens that come after.
    fn merge(&mut self, other: &Self) {
        for (to, from) in self.cells.iter_mut().zip(&other.cells) {
            to.total += from.total;
            to.largest = to.largest.max(from.largest);
            to.counted += from.counted;
            to.all += from.all;
        }
        let tokens = self.tokens.as_flattened_mut().iter_mut().zip(other.tokens.as_flattened());
        tokens.for_each(|(to, &from)| *to += from);
        self.histogram.iter_mut().zip(&other.histogram).for_each(|(to, &from)| *to += from);
    }
}

/// Cells and bins of a layer.
fn sizes(request: &Request<'_>, layer: &Layer) -> (usize, usize) {
    let experts = layer.active_experts();
    (request.n_groups().saturating_mul(experts), experts.saturating_mul(request.bins.count.saturating_add(2)))
}

/// Memory for counters, or an error that says how much there would have to be.
fn zeros<T: Clone + Default>(n: usize) -> Result<Vec<T>> {
    let mut counters = Vec::new();
    let bytes = n.saturating_mul(size_of::<T>());
    counters.try_reserve_exact(n).map_err(|_| Error::Memory { what: "sums of activations", bytes })?;
    counters.resize(n, T::default());
    Ok(counters)
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

/// Merges the parts of each layer, in order, and puts the layers side by side.
pub(super) fn collect(request: &Request<'_>, pieces: Vec<LayerState>, parts: usize) -> Sums {
    let mut pieces = pieces.into_iter();
    let mut layers = Vec::with_capacity(request.layers.len());
    while let Some(mut layer) = pieces.next() {
        pieces.by_ref().take(parts - 1).for_each(|part| layer.merge(&part));
        layers.push(layer);
    }
    let (groups, n_layers, bins) = (request.n_groups(), layers.len(), request.bins.count);
    let experts = layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
    let binned = |layer: usize, expert: usize, bin: usize| -> i64 {
        let state: &LayerState = &layers[layer];
        if expert < state.experts { state.histogram[expert * (bins + 2) + bin].into() } else { 0 }
    };
    let seen = |which: usize| Array2::from_shape_fn((groups, n_layers), |(g, l)| layers[l].tokens[g][which] as i64);
    let shape = (groups, n_layers, experts);
    Sums {
        tokens: seen(0),
        left_out: seen(1),
        activations: table(&layers, shape, |cell| i64::from(cell.all)),
        counts: table(&layers, shape, |cell| i64::from(cell.counted)),
        totals: table(&layers, shape, |cell| cell.total),
        maxima: table(&layers, shape, |cell| cell.largest),
        histogram: Array3::from_shape_fn((n_layers, experts, bins), |(l, e, bin)| binned(l, e, bin + 1)),
        below: Array2::from_shape_fn((n_layers, experts), |(l, e)| binned(l, e, 0)),
        above: Array2::from_shape_fn((n_layers, experts), |(l, e)| binned(l, e, bins + 1)),
    }
}

/// `[G, L, E]`
fn table<T: Clone + Default>(
    layers: &[LayerState],
    shape: (usize, usize, usize),
    value: impl Fn(&Cell) -> T,
) -> Array3<T> {
    let mut values = Array3::default(shape);
    for (index, layer) in layers.iter().enumerate() {
        for (group, cells) in layer.cells.chunks_exact(layer.experts).enumerate() {
            let mut row = values.slice_mut(s![group, index, ..layer.experts]);
            row.iter_mut().zip(cells).for_each(|(to, cell)| *to = value(cell));
        }
    }
    values
}
