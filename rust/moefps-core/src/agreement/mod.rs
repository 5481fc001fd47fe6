//! How much two traces of the same tokens agree: sums over aligned pairs of tokens, in one pass.
//!
//! A pair is a token of one trace and the same token of the other. Pairs are the rows of the pass (`chunk`), in the order
//! given. A piece of work takes a tile of them at a time: both sides are brought into the order of their experts
//! (`choice`), then compared (`pair`). Exchanging the two traces exchanges what is said of each, and changes nothing
//! else, to the last bit.
#![expect(clippy::needless_range_loop, reason = "loops over the pairs of a tile touch several rows at once")]

mod choice;
mod output;
mod pair;
mod state;

use std::ops::Range;

use ndarray::ArrayView3;

use crate::chunk::{self, Extent, Pass, Wrong, rows_of_part};
use crate::sample::Values;
use crate::task::Task;
use crate::tile::TILE;
use crate::trace::{
    self, Groups, Layer, check_chosen, check_groups, check_layers, check_length, check_slots, first_wrong,
};
use crate::{Error, Result};
pub use output::{Agreement, Usage, WeightAgreement};
use pair::Tile;
use state::LayerState;

/// Ranks that count as the top.
pub const TOP: usize = 5;

/// One of the two traces. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// `[T, L, k]`, for both sides or for none.
    pub expert_weights: Option<Values<'a>>,
    /// `[P]`: the row of each pair; without it, pair p is row p.
    pub rows: Option<&'a [i64]>,
}

impl Side<'_> {
    fn row(&self, pair: usize) -> usize {
        // Rows were found to be those of the trace.
        self.rows.map_or(pair, |rows| rows[pair] as usize)
    }

    fn row_bytes(&self, layers: usize) -> usize {
        let weight = self.expert_weights.map_or(0, |weights| weights.element_bytes());
        layers * self.expert_ids.dim().2 * (size_of::<i16>() + weight)
    }

    /// What does not fit together within a side, in the words of the Python arguments.
    fn check(&self, name: char, pairs: usize) -> Result<()> {
        let shape = self.expert_ids.dim();
        let weights = self.expert_weights.map_or(shape, |weights| weights.shape());
        if weights != shape {
            return Err(Error::Argument(format!("weights_{name}: shape {weights:?}; accepted: {shape:?}")));
        }
        let found = self.rows.map_or(shape.0, <[_]>::len);
        if found != pairs {
            let what = if self.rows.is_some() { "rows" } else { "ids" };
            return Err(Error::Argument(format!("{what}_{name}: {found} rows; accepted: {pairs}, as the other side")));
        }
        Ok(())
    }

    fn check_rows(&self, name: char, pairs: Range<usize>) -> Result<()> {
        let (Some(rows), count) = (self.rows, self.expert_ids.dim().0) else { return Ok(()) };
        let is_bad = |&row: &i64| usize::try_from(row).map_or(true, |row| row >= count);
        match rows[pairs.clone()].iter().position(is_bad) {
            None => Ok(()),
            Some(at) => {
                let (pair, last) = (pairs.start + at, count as i64 - 1);
                Err(Error::Data(format!("rows_{name}: entry {pair} is {}; accepted: 0 to {last}", rows[pair])))
            }
        }
    }
}

/// Two traces, and which of their tokens belong together.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The one.
    pub a: Side<'a>,
    /// The other; of as many layers and slots.
    pub b: Side<'a>,
    /// What the routers of both choose from, L of them.
    pub layers: &'a [Layer],
    /// Which layers are compared.
    pub chosen: &'a [usize],
    /// `[P]`; without it, all pairs are of one group.
    pub groups: Option<Groups<'a>>,
    /// Whether pairs without shares are left out of everything.
    pub require_shares: bool,
    /// Whether to count how often each expert is chosen.
    pub usage: bool,
}

impl Comparison<'_> {
    fn n_pairs(&self) -> usize {
        self.a.rows.map_or(self.a.expert_ids.dim().0, <[_]>::len)
    }

    fn n_groups(&self) -> usize {
        trace::n_groups(self.groups)
    }

    fn is_weighted(&self) -> bool {
        self.a.expert_weights.is_some()
    }

    fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Argument(message));
        let (pairs, (_, l, k)) = (self.n_pairs(), self.a.expert_ids.dim());
        let (_, other_l, other_k) = self.b.expert_ids.dim();
        if (l, k) != (other_l, other_k) {
            return wrong(format!("ids_b: {other_l} layers of {other_k} slots; accepted: {l} of {k}, as ids_a"));
        }
        check_slots("rows_a", pairs, k)?;
        check_layers(self.layers, l, k, usize::MAX)?;
        if self.a.expert_weights.is_some() != self.b.expert_weights.is_some() {
            return wrong("weights_b: given for one side; accepted: for both, or for none".into());
        }
        if self.require_shares && !self.is_weighted() {
            return wrong("require_shares: without weights; accepted: false, or with weights".into());
        }
        self.a.check('a', pairs)?;
        self.b.check('b', pairs)?;
        check_length("groups", self.groups.map_or(pairs, |groups| groups.ids.len()), pairs)?;
        check_chosen(self.chosen, l)
    }

    /// The first value of a layer that is not accepted, in pairs that have one.
    fn first_wrong(&self, layer: usize, pairs: Range<usize>) -> Wrong {
        let rules = &self.layers[layer];
        Wrong::first(pairs, layer, |pair| {
            [(&self.a, ["ids_a", "weights_a"]), (&self.b, ["ids_b", "weights_b"])].into_iter().find_map(
                |(side, names)| {
                    let place = [side.row(pair), layer];
                    first_wrong(&side.expert_ids, side.expert_weights.as_ref(), names, rules, place)
                },
            )
        })
    }
}

/// Compares two traces, on the rayon pool that it is called in. The result does not depend on the number of threads.
///
/// # Errors
/// Arguments that do not fit each other, a row, group, id or weight that is not accepted (the first one by pair, side,
/// layer and slot), or [`Error::Cancelled`].
pub fn compare(comparison: &Comparison<'_>, task: &Task) -> Result<Agreement> {
    comparison.check()?;
    Ok(output::collect(comparison, chunk::run(comparison, task)?))
}

impl Pass for Comparison<'_> {
    type Counters = LayerState;
    type Room = Tile;

    fn extent(&self) -> Extent {
        let layers = self.chosen.len();
        let row_bytes = self.a.row_bytes(layers) + self.b.row_bytes(layers);
        Extent { rows: self.n_pairs(), layers, rows_of_part: rows_of_part(row_bytes).next_multiple_of(TILE), units: 1 }
    }

    fn counters(&self, index: usize) -> Result<LayerState> {
        LayerState::new(self, &self.layers[self.chosen[index]])
    }

    fn room(&self) -> Tile {
        Tile::new(self)
    }

    fn check_rows(&self, pairs: Range<usize>) -> Result<()> {
        self.a.check_rows('a', pairs.clone())?;
        self.b.check_rows('b', pairs.clone())?;
        check_groups(self.groups, pairs, "entry")
    }

    #[inline(always)]
    fn add(&self, index: usize, pairs: Range<usize>, tile: &mut Tile, state: &mut LayerState) -> Option<Wrong> {
        let layer = self.chosen[index];
        for start in pairs.clone().step_by(TILE) {
            if !tile.load(self, layer, start..pairs.end) {
                return Some(self.first_wrong(layer, start..pairs.end));
            }
            tile.compare(self.require_shares);
            state.add(tile, self.groups, start..pairs.end.min(start + TILE));
        }
        None
    }
}
