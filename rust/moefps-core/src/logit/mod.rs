//! Sums over the full distributions of a trace's tokens, in one pass (`chunk`): what entropies, margins, mean
//! probabilities and the z-loss are made of.
//!
//! A token's logits become a distribution (`distribution`), which is added to the sums of its layer (`state`).

mod state;

use std::ops::Range;

use ndarray::ArrayView3;

use crate::chunk::{self, Extent, Pass, Wrong, rows_of_part};
use crate::distribution::Row;
use crate::sample::Values;
use crate::task::Task;
use crate::trace::{Groups, Layer, Scoring, check_groups, check_layers, check_length, n_groups};
use crate::{Error, Result};
use state::LayerState;
pub use state::LogitSums;

/// A trace with logits. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// `[T, L, E]`, E at least the experts of the layer that has most.
    pub router_logits: Values<'a>,
    /// L of them; those without a scoring are not read.
    pub layers: &'a [Layer],
    /// Without it, all tokens are of one group.
    pub groups: Option<Groups<'a>>,
}

impl Trace<'_> {
    /// What does not fit together, in the words of the Python arguments.
    fn check(&self) -> Result<()> {
        let (t, l, k) = self.expert_ids.dim();
        let (rows, layers, columns) = self.router_logits.shape();
        if (rows, layers) != (t, l) {
            let found = format!("shape [{rows}, {layers}, {columns}]");
            return Err(Error::Argument(format!("router_logits: {found}; accepted: [{t}, {l}, E]")));
        }
        check_layers(self.layers, l, k, columns)?;
        check_length("groups", self.groups.map_or(t, |groups| groups.ids.len()), t)
    }

    #[inline(always)]
    fn add_token(&self, scoring: Scoring, place: [usize; 2], row: &mut Row, state: &mut LayerState) -> Result<()> {
        let [token, layer] = place;
        let rules = &self.layers[layer];
        if !row.choose(&self.expert_ids, rules, place)? {
            return Ok(());
        }
        row.read(&self.router_logits, rules.n_experts, rules.passive_experts, place);
        row.check(scoring, &self.router_logits, place)?;
        if !row.chosen.is_empty() {
            state.add(row, scoring, self.groups.map_or(0, |groups| groups.ids[token] as usize));
        }
        Ok(())
    }
}

/// Adds up the distributions of a trace, on the rayon pool that it is called in. The result does not depend on the
/// number of threads.
///
/// # Errors
/// Arguments that do not fit each other, an id, group or logit that is not accepted (the first one by token and layer),
/// or [`Error::Cancelled`].
pub fn sum(trace: &Trace<'_>, task: &Task) -> Result<LogitSums> {
    trace.check()?;
    Ok(state::collect(n_groups(trace.groups), &chunk::run(trace, task)?))
}

impl Pass for Trace<'_> {
    type Counters = LayerState;
    type Room = Row;

    fn extent(&self) -> Extent {
        let (rows, layers, columns) = self.router_logits.shape();
        let slot_bytes = self.expert_ids.dim().2 * size_of::<i16>();
        let row_bytes = layers * (slot_bytes + columns * self.router_logits.element_bytes());
        Extent { rows, layers, rows_of_part: rows_of_part(row_bytes), units: columns }
    }

    fn counters(&self, layer: usize) -> Result<LayerState> {
        LayerState::new(&self.layers[layer], n_groups(self.groups))
    }

    fn room(&self) -> Row {
        Row::new(self.router_logits.shape().2)
    }

    fn check_rows(&self, rows: Range<usize>) -> Result<()> {
        check_groups(self.groups, rows, "token row")
    }

    #[inline(always)]
    fn add(&self, layer: usize, rows: Range<usize>, row: &mut Row, state: &mut LayerState) -> Option<Wrong> {
        let scoring = self.layers[layer].scoring?;
        for token in rows {
            if let Err(error) = self.add_token(scoring, [token, layer], row, state) {
                return Some(Wrong { row: token, layer, error });
            }
        }
        None
    }
}
