//! What routing metrics are made of: histograms and sums over the tokens of a trace, in one pass (`chunk`).
//!
//! A piece of work takes a tile of tokens at a time (`tile`), through checks, weights (`confidence`), histograms
//! (`load`), pairs of experts (`coactivation`) and pairs of neighbouring tokens (`neighbour`).
#![expect(clippy::needless_range_loop, reason = "loops over the tokens of a tile touch several rows at once")]

mod coactivation;
mod confidence;
mod load;
mod neighbour;
mod output;
mod state;
mod tile;

use std::ops::Range;

use ndarray::ArrayView3;

use crate::chunk::{self, Extent, Pass, Wrong, rows_of_part};
use crate::sample::Values;
use crate::task::Task;
use crate::tile::TILE;
use crate::trace::{self, Groups, Layer, NAMES, check_groups, check_layers, check_length, check_slots};
use crate::{Error, Result};
pub use output::{Counts, NeighbourCounts, NeighbourWeights, WeightCounts};
use state::LayerState;
use tile::Tile;

/// Counters of pairs that each token of a chunk makes worth fetching: with many experts, they do not all stay there.
const PAIRS_PER_ROW: usize = 16;

/// Which pairs of experts are chosen together, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coactivation {
    /// Not counted.
    None,
    /// Over all tokens.
    Whole,
    /// For each group.
    ByGroup,
}

/// A trace, and what goes with its tokens. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// `[T, L, k]`; without them, what needs weights is not counted.
    pub expert_weights: Option<Values<'a>>,
    /// L of them.
    pub layers: &'a [Layer],
    /// `[T]`: whether a row is the next token of the sequence of the row before; without it, neighbours are not counted.
    pub follows: Option<&'a [bool]>,
    /// Without it, all tokens are of one group.
    pub groups: Option<Groups<'a>>,
    /// Pairs of experts.
    pub coactivation: Coactivation,
}

impl Trace<'_> {
    /// What does not fit together, in the words of the Python arguments.
    fn check(&self) -> Result<()> {
        let (t, l, k) = self.expert_ids.dim();
        check_slots("expert_ids", t, k)?;
        check_layers(self.layers, l, k, usize::MAX)?;
        if let Some(weights) = self.expert_weights
            && weights.shape() != (t, l, k)
        {
            let (found, accepted) = (weights.shape(), (t, l, k));
            return Err(Error::Argument(format!("expert_weights: shape {found:?}; accepted: {accepted:?}")));
        }
        check_length("follows", self.follows.map_or(t, <[_]>::len), t)?;
        check_length("groups", self.groups.map_or(t, |groups| groups.ids.len()), t)
    }

    fn n_groups(&self) -> usize {
        trace::n_groups(self.groups)
    }

    /// The first value of a layer that is not accepted, in rows that have one.
    fn first_wrong(&self, layer: usize, rows: Range<usize>) -> Wrong {
        let (weights, rules) = (self.expert_weights.as_ref(), &self.layers[layer]);
        Wrong::first(rows, layer, |row| trace::first_wrong(&self.expert_ids, weights, NAMES, rules, [row, layer]))
    }
}

/// Counts a trace, on the rayon pool that it is called in. The result does not depend on the number of threads.
///
/// # Errors
/// Arguments that do not fit each other, an id or weight that is not accepted (the first one by token, layer and slot),
/// or [`Error::Cancelled`].
pub fn count(trace: &Trace<'_>, task: &Task) -> Result<Counts> {
    trace.check()?;
    Ok(output::collect(trace, chunk::run(trace, task)?))
}

impl Pass for Trace<'_> {
    type Counters = LayerState;
    type Room = Tile;

    fn extent(&self) -> Extent {
        let (rows, layers, k) = self.expert_ids.dim();
        let row_bytes = layers * k * (size_of::<i16>() + self.expert_weights.map_or(0, |w| w.element_bytes()));
        let widest = self.layers.iter().map(Layer::active_experts).max().unwrap_or(0);
        let for_pairs = if self.coactivation == Coactivation::None { 0 } else { widest * widest / PAIRS_PER_ROW };
        Extent { rows, layers, rows_of_part: rows_of_part(row_bytes).max(for_pairs).next_multiple_of(TILE), units: k }
    }

    fn counters(&self, layer: usize) -> Result<LayerState> {
        LayerState::new(self, &self.layers[layer])
    }

    fn room(&self) -> Tile {
        Tile::new(self.expert_ids.dim().2)
    }

    fn check_rows(&self, rows: Range<usize>) -> Result<()> {
        check_groups(self.groups, rows, "token row")
    }

    #[inline(always)]
    fn add(&self, layer: usize, rows: Range<usize>, tile: &mut Tile, state: &mut LayerState) -> Option<Wrong> {
        if rows.is_empty() {
            return None;
        }
        if self.follows.is_some_and(|follows| follows[rows.start]) && rows.start > 0 {
            // The neighbour of the first row is counted with other rows; here it is only looked at.
            tile.load(self, layer, rows.start - 1..rows.start);
            tile.weigh(self, layer);
            tile.find_repeats();
            tile.merge_repeats(state, false);
            neighbour::look_at(tile, self, layer, state);
        } else {
            state.forget_neighbour();
        }
        for start in rows.clone().step_by(TILE) {
            tile.load(self, layer, start..rows.end.min(start + TILE));
            if tile.weigh(self, layer) | !tile.slots.ids_are_good(&self.layers[layer]) {
                return Some(self.first_wrong(layer, start..rows.end));
            }
            load::count(tile, self, layer, state);
            if tile.find_repeats() {
                tile.merge_repeats(state, true);
            }
            coactivation::count(tile, self, state);
            neighbour::count(tile, self, layer, state);
        }
        None
    }
}
