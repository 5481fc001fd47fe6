//! How strongly experts are active, on the tokens of each group: counts, largest values and sums of the activations
//! above a threshold, and a histogram of all of them, in one pass over a trace.
//!
//! An activation is a number for a token and an expert that it chose: the gate weight, that weight divided by the
//! token's sum, or a number of the router's full distribution, which every expert has. Weights are read many tokens at
//! a time (`slot`), what every expert has a token at a time (`row`), and both are added to the counters of their layer
//! (`state`) in one pass (`chunk`).

mod row;
mod slot;
mod state;

use std::ops::Range;

use ndarray::ArrayView3;

use crate::chunk::{self, Extent, Pass, Wrong, rows_of_part};
use crate::distribution::Row;
use crate::sample::Values;
use crate::task::Task;
use crate::trace::{self, Groups, Layer, check_chosen, check_groups, check_layers, check_length, check_slots};
use crate::{Error, Result};
use slot::Tile;
use state::LayerState;
pub use state::Sums;

/// Where activations come from. Arrays have L layers.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Gate weights of the chosen experts.
    Slots {
        /// `[T, L, k]`, -1 where a slot is empty.
        expert_ids: ArrayView3<'a, i16>,
        /// `[T, L, k]`
        expert_weights: Values<'a>,
        /// Whether they are divided by their sum over the token's filled slots.
        renormalized: bool,
    },
    /// The router's full distribution, for tokens with a filled slot.
    Router {
        /// `[T, L, k]`
        expert_ids: ArrayView3<'a, i16>,
        /// `[T, L, E]`
        router_logits: Values<'a>,
    },
    /// `[T, L, E]`: activations as they are; a zero is none, and a row of zeros is no token.
    Dense(Values<'a>),
}

/// Bins of equal width from 0 to `highest`. A bin owns its lower edge, the last one its upper edge, too.
#[derive(Clone, Copy, Debug)]
pub struct Bins {
    /// How many there are.
    pub count: usize,
    /// Where the last one ends.
    pub highest: f64,
}

/// What to sum up. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The activations.
    pub source: Source<'a>,
    /// What the routers choose from, L of them.
    pub layers: &'a [Layer],
    /// Which layers are looked at, in the order in which they are wanted.
    pub chosen: &'a [usize],
    /// Without it, all tokens are of one group.
    pub groups: Option<Groups<'a>>,
    /// Activations count if they are larger.
    pub threshold: f64,
    /// The histogram of all activations.
    pub bins: Bins,
}

impl<'a> Source<'a> {
    fn numbers(&self) -> Values<'a> {
        match *self {
            Self::Slots { expert_weights: numbers, .. } | Self::Router { router_logits: numbers, .. } => numbers,
            Self::Dense(numbers) => numbers,
        }
    }

    fn expert_ids(&self) -> Option<ArrayView3<'a, i16>> {
        match *self {
            Self::Slots { expert_ids, .. } | Self::Router { expert_ids, .. } => Some(expert_ids),
            Self::Dense(_) => None,
        }
    }

    fn slots(&self) -> usize {
        self.expert_ids().map_or(0, |ids| ids.dim().2)
    }
}

impl Request<'_> {
    /// What does not fit together, in the words of the Python arguments.
    fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Argument(message));
        let shape = self.source.numbers().shape();
        let (tokens, layers, columns) = shape;
        let (mut slots, mut most) = (0, columns);
        if let Some(ids) = self.source.expert_ids() {
            slots = ids.dim().2;
            check_slots("expert_ids", tokens, slots)?;
            let is_slots = matches!(self.source, Source::Slots { .. });
            let (name, width) = if is_slots { ("expert_weights", slots) } else { ("router_logits", columns) };
            if shape != (ids.dim().0, ids.dim().1, width) {
                return wrong(format!("{name}: shape {shape:?} beside expert_ids of {:?}", ids.dim()));
            }
            most = if is_slots { usize::MAX } else { columns };
        } else {
            check_slots("activations", tokens, 1)?;
        }
        check_layers(self.layers, layers, slots, most)?;
        check_length("groups", self.groups.map_or(tokens, |groups| groups.ids.len()), tokens)?;
        check_chosen(self.chosen, layers)?;
        if !(1..1 << 20).contains(&self.bins.count) || self.bins.highest.is_nan() || self.bins.highest <= 0.0 {
            return wrong(format!("bins: {:?}; accepted: at least 1, that end above 0", self.bins));
        }
        Ok(())
    }

    fn n_groups(&self) -> usize {
        trace::n_groups(self.groups)
    }
}

/// Sums activations up, on the rayon pool that it is called in. The result does not depend on the number of threads.
/// In layers without a scoring, no token has a distribution.
///
/// # Errors
/// Arguments that do not fit each other, an id or a number that is not accepted (the first one by token, layer and
/// column), or [`Error::Cancelled`].
pub fn sum(request: &Request<'_>, task: &Task) -> Result<Sums> {
    request.check()?;
    Ok(state::collect(request, &chunk::run(request, task)?))
}

impl Pass for Request<'_> {
    type Counters = LayerState;
    type Room = (Tile, Row);

    fn extent(&self) -> Extent {
        let numbers = self.source.numbers();
        let (rows, layers, columns) = numbers.shape();
        let row_bytes = layers * (columns * numbers.element_bytes() + self.source.slots() * size_of::<i16>());
        Extent { rows, layers: self.chosen.len(), rows_of_part: rows_of_part(row_bytes), units: columns }
    }

    fn counters(&self, index: usize) -> Result<LayerState> {
        LayerState::new(self, &self.layers[self.chosen[index]])
    }

    fn room(&self) -> (Tile, Row) {
        (Tile::new(self.source.slots()), Row::new(self.source.numbers().shape().2))
    }

    fn check_rows(&self, rows: Range<usize>) -> Result<()> {
        check_groups(self.groups, rows, "token row")
    }

    #[inline(always)]
    fn add(
        &self,
        index: usize,
        rows: Range<usize>,
        (tile, row): &mut (Tile, Row),
        state: &mut LayerState,
    ) -> Option<Wrong> {
        let layer = self.chosen[index];
        match self.source {
            Source::Slots { .. } => slot::add_rows(self, layer, rows, tile, state),
            _ => row::add_rows(self, layer, rows, row, state),
        }
    }
}
