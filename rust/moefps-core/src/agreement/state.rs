//! The counters of one layer.

use super::Comparison;
use super::choice::Choices;
use super::pair::Tile;
use crate::Result;
use crate::chunk::{Counters, add};
use crate::tile::{Row, TILE};
use crate::trace::{Groups, Layer, runs, zeros};

/// Makes a struct of values of one kind, with their names in order.
macro_rules! measures {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub(super) struct $name<T> { $($(#[$field_doc])* pub(super) $field: T),+ }

        impl<T> $name<T> {
            /// One made for each.
            pub(super) fn each(make: impl Fn(&str) -> T) -> Self {
                Self { $($field: make(stringify!($field))),+ }
            }

            /// Does something with each and its like in `other`.
            #[inline(always)]
            pub(super) fn with<U>(&mut self, other: &$name<U>, mut act: impl FnMut(&mut T, &U)) {
                $(act(&mut self.$field, &other.$field);)+
            }
        }
    };
}

measures! {
    /// What is counted of pairs.
    Counts {
        /// Pairs of tokens that both have a filled slot.
        pairs,
        /// Of these, the ones where ŵ is not defined on both sides.
        without_shares,
        /// Experts that both chose.
        common,
        experts_a,
        experts_b,
        /// Pairs of equal sets of experts.
        equal,
        /// Pairs whose largest weights are of one expert.
        same_first,
        /// Experts that both rank among the first.
        common_top,
    }
}

measures! {
    /// What is added up over pairs.
    Sums { jaccard, tv, js, entropy_a, entropy_b, neff_a, neff_b, margin_a, margin_b }
}

/// How often each expert is chosen, on one side; a column more than there are experts takes what does not count.
#[derive(Debug)]
pub(super) struct Histograms {
    /// `[G, width]`
    pub(super) activations: Vec<u32>,
    /// `[G, width]`: Σ ŵ; empty without weights.
    pub(super) shares: Vec<f64>,
}

#[derive(Debug)]
pub(crate) struct LayerState {
    pub(super) experts: usize,
    /// Columns of a histogram.
    pub(super) width: usize,
    /// `[G]`
    pub(super) counts: Vec<Counts<u64>>,
    /// `[G]`
    pub(super) sums: Vec<Sums<f64>>,
    /// Of each side, or empty.
    pub(super) usage: Vec<Histograms>,
}

impl LayerState {
    pub(super) fn new(comparison: &Comparison<'_>, layer: &Layer) -> Result<Self> {
        let (groups, width) = (comparison.n_groups(), layer.active_experts() + 1);
        let cells = groups.saturating_mul(width);
        let weighted = if comparison.is_weighted() { cells } else { 0 };
        let histograms = |_| Ok(Histograms { activations: zeros(cells)?, shares: zeros(weighted)? });
        Ok(Self {
            experts: layer.active_experts(),
            width,
            counts: zeros(groups)?,
            sums: zeros(groups)?,
            usage: (0..if comparison.usage { 2 } else { 0 }).map(histograms).collect::<Result<_>>()?,
        })
    }

    /// Adds a tile, which holds some pairs.
    #[inline(always)]
    pub(super) fn add(&mut self, tile: &Tile, groups: Option<Groups<'_>>, pairs: std::ops::Range<usize>) {
        if groups.is_none() {
            // What is past the pairs counts for nothing.
            return self.add_run(tile, 0..TILE, 0);
        }
        for (run, group) in runs(groups, pairs) {
            self.add_run(tile, run, group);
        }
    }

    /// Adds pairs of one group.
    #[inline(always)]
    fn add_run(&mut self, tile: &Tile, run: std::ops::Range<usize>, group: usize) {
        self.counts[group].with(&tile.counts, |to, row| *to += row[run.clone()].iter().sum::<u64>());
        self.sums[group].with(&tile.sums, |to, row| *to += sum(&row[run.clone()]));
        let cells = group * self.width..(group + 1) * self.width;
        for (histograms, choices) in self.usage.iter_mut().zip([&tile.a, &tile.b]) {
            add_activations(tile, choices, run.clone(), &mut histograms.activations[cells.clone()]);
            if !histograms.shares.is_empty() {
                add_shares(tile, choices, run.clone(), &mut histograms.shares[cells.clone()]);
            }
        }
    }
}

impl Counters for LayerState {
    fn bytes(&self) -> usize {
        let usage = |h: &Histograms| size_of_val(&h.activations[..]) + size_of_val(&h.shares[..]);
        let usage = self.usage.iter().map(usage).sum::<usize>();
        size_of_val(&self.counts[..]) + size_of_val(&self.sums[..]) + usage
    }

    fn merge(&mut self, later: &Self) {
        for (to, from) in self.counts.iter_mut().zip(&later.counts) {
            to.with(from, |to, from| *to += from);
        }
        for (to, from) in self.sums.iter_mut().zip(&later.sums) {
            to.with(from, |to, from| *to += from);
        }
        for (to, from) in self.usage.iter_mut().zip(&later.usage) {
            add(&mut to.activations, &from.activations);
            add(&mut to.shares, &from.shares);
        }
    }
}

/// Adds up numbers; more than a few in eight sums that need not wait for each other.
#[inline(always)]
fn sum(values: &[f64]) -> f64 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, value) in sums.iter_mut().zip(eight) {
            *sum += value;
        }
    }
    let rest = rest.iter().fold(0.0, |sum, value| sum + value);
    if eights.is_empty() {
        return rest;
    }
    (((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))) + rest
}

#[inline(always)]
fn add_activations(tile: &Tile, choices: &Choices, run: std::ops::Range<usize>, histogram: &mut [u32]) {
    let nobody = histogram.len() as u64 - 1;
    for ids in &choices.ids {
        for t in run.clone() {
            histogram[column(ids, &tile.counted, nobody, t)] += 1;
        }
    }
    for &(t, id) in choices.repeats.iter().filter(|(t, _)| run.contains(t)) {
        histogram[if tile.counted[t] { id } else { nobody } as usize] += 1;
    }
}

#[inline(always)]
fn add_shares(tile: &Tile, choices: &Choices, run: std::ops::Range<usize>, histogram: &mut [f64]) {
    let nobody = histogram.len() as u64 - 1;
    for (ids, shares) in choices.ids.iter().zip(&choices.shares) {
        for t in run.clone() {
            histogram[column(ids, &tile.shared, nobody, t)] += shares[t];
        }
    }
}

/// Where a slot is counted; the last column where it is empty or its pair does not count.
#[inline(always)]
fn column(ids: &Row<u64>, counted: &Row<bool>, nobody: u64, t: usize) -> usize {
    (if counted[t] { ids[t].min(nobody) } else { nobody }) as usize
}
