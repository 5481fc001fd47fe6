//! Sums over the full distributions of a trace's tokens, in one pass (`chunk`): what entropies, margins,
//! mean probabilities and the z-loss are made of.
//!
//! A token's logits become a distribution (`distribution`), which is added to the sums of its
//! layer (`state`).

mod state;

use ndarray::ArrayView3;

use crate::chunk::{Pass, Wrong, rows_of_part};
use crate::distribution::Row;
use crate::l1::{Simd, for_each_simd, lanes::Lanes};
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
}

/// Adds up the distributions of a trace, on the rayon pool that it is called in. The result does not depend on the
/// number of threads.
///
/// # Errors
/// Arguments that do not fit each other, an id, group or logit that is not accepted (the first one by token and layer),
/// or [`Error::Cancelled`].
pub fn sum(trace: &Trace<'_>, task: &Task) -> Result<LogitSums> {
    trace.check()?;
    let simd = Simd::choose()?;
    let (rows, layers, columns) = trace.router_logits.shape();
    let row_bytes =
        layers * (trace.expert_ids.dim().2 * size_of::<i16>() + columns * trace.router_logits.element_bytes());
    let groups = n_groups(trace.groups);
    let pass = Pass { rows, layers, rows_of_part: rows_of_part(row_bytes), units: columns };
    let summed = pass.run(
        task,
        |layer| LayerState::new(&trace.layers[layer], groups),
        |rows| check_groups(trace.groups, rows, "token row"),
        || Row::new(columns),
        |layer, rows, row, state| add_rows(simd, trace, layer, rows, row, state),
    )?;
    Ok(state::collect(groups, &summed))
}

for_each_simd! {
    /// Adds some rows of a layer; returns the first value that is not accepted.
    fn add_rows(trace: &Trace<'_>, layer: usize, rows: std::ops::Range<usize>, row: &mut Row, state: &mut LayerState) -> Option<Wrong> = add_rows_with;
}

#[inline(always)]
unsafe fn add_rows_with<L: Lanes>(
    _: L,
    trace: &Trace<'_>,
    layer: usize,
    rows: std::ops::Range<usize>,
    row: &mut Row,
    state: &mut LayerState,
) -> Option<Wrong> {
    let rules = &trace.layers[layer];
    let scoring = rules.scoring?;
    for token in rows {
        if let Err(error) = add_token(trace, scoring, rules, [token, layer], row, state) {
            return Some(Wrong { row: token, layer, error });
        }
    }
    None
}

#[inline(always)]
fn add_token(
    trace: &Trace<'_>,
    scoring: Scoring,
    rules: &Layer,
    place: [usize; 2],
    row: &mut Row,
    state: &mut LayerState,
) -> Result<()> {
    if !row.choose(&trace.expert_ids, rules, place)? {
        return Ok(());
    }
    row.read(&trace.router_logits, rules.n_experts, rules.passive_experts, place);
    row.check(scoring, &trace.router_logits, place)?;
    if !row.chosen.is_empty() {
        state.add(row, scoring, trace.groups.map_or(0, |groups| groups.ids[place[0]] as usize));
    }
    Ok(())
}
