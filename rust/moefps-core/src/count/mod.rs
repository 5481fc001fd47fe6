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

use ndarray::ArrayView3;

use crate::chunk::{Pass, Wrong, rows_of_part};
use crate::l1::{Simd, for_each_simd, lanes::Lanes};
use crate::sample::Values;
use crate::task::Task;
use crate::tile::TILE;
use crate::trace::{self, Groups, Layer, check_groups, check_layers, check_length, check_slots};
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

    fn row_bytes(&self) -> usize {
        let (_, l, k) = self.expert_ids.dim();
        l * k * (size_of::<i16>() + self.expert_weights.map_or(0, |weights| weights.element_bytes()))
    }

    /// Tokens that one piece of work takes at a time.
    fn rows_of_part(&self) -> usize {
        let widest = self.layers.iter().map(Layer::active_experts).max().unwrap_or(0);
        let for_pairs = if self.coactivation == Coactivation::None { 0 } else { widest * widest / PAIRS_PER_ROW };
        rows_of_part(self.row_bytes()).max(for_pairs).next_multiple_of(TILE)
    }

    /// The first value of a layer that is not accepted, in rows that have one.
    fn first_wrong(&self, layer: usize, rows: std::ops::Range<usize>) -> Wrong {
        let (weights, names) = (self.expert_weights.as_ref(), ["expert_ids", "expert_weights"]);
        let rules = &self.layers[layer];
        Wrong::first(rows, layer, |row| trace::first_wrong(&self.expert_ids, weights, names, rules, [row, layer]))
    }
}

/// Counts a trace, on the rayon pool that it is called in. The result does not depend on the number of threads.
///
/// # Errors
/// Arguments that do not fit each other, an id or weight that is not accepted (the first one by token, layer and slot),
/// or [`Error::Cancelled`].
pub fn count(trace: &Trace<'_>, task: &Task) -> Result<Counts> {
    trace.check()?;
    let simd = Simd::choose()?;
    let (rows, layers, k) = trace.expert_ids.dim();
    let pass = Pass { rows, layers, rows_of_part: trace.rows_of_part(), units: k };
    let counted = pass.run(
        task,
        |layer| LayerState::new(trace, &trace.layers[layer]),
        |rows| check_groups(trace.groups, rows, "token row"),
        || Tile::new(k),
        |layer, rows, tile, state| count_rows(simd, trace, layer, rows, tile, state),
    )?;
    Ok(output::collect(trace, counted))
}

for_each_simd! {
    /// Counts some rows of a layer; returns the first value that is not accepted.
    fn count_rows(trace: &Trace<'_>, layer: usize, rows: std::ops::Range<usize>, tile: &mut Tile, state: &mut LayerState) -> Option<Wrong> = count_rows_with;
}

#[inline(always)]
unsafe fn count_rows_with<L: Lanes>(
    _: L,
    trace: &Trace<'_>,
    layer: usize,
    rows: std::ops::Range<usize>,
    tile: &mut Tile,
    state: &mut LayerState,
) -> Option<Wrong> {
    if rows.is_empty() {
        return None;
    }
    if trace.follows.is_some_and(|follows| follows[rows.start]) && rows.start > 0 {
        // The neighbour of the first row is counted with other rows; here it is only looked at.
        tile.load(trace, layer, rows.start - 1..rows.start);
        tile.weigh(trace, layer);
        tile.find_repeats();
        tile.merge_repeats(state, false);
        neighbour::look_at(tile, trace, layer, state);
    } else {
        state.forget_neighbour();
    }
    for start in rows.clone().step_by(TILE) {
        tile.load(trace, layer, start..rows.end.min(start + TILE));
        if tile.weigh(trace, layer) | !tile.slots.ids_are_good(&trace.layers[layer]) {
            return Some(trace.first_wrong(layer, start..rows.end));
        }
        load::count(tile, trace, layer, state);
        if tile.find_repeats() {
            tile.merge_repeats(state, true);
        }
        coactivation::count(tile, trace, state);
        neighbour::count(tile, trace, layer, state);
    }
    None
}
