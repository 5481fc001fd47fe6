//! Activations that every expert may have on a token, a token at a time.

use std::ops::Range;

use ndarray::ArrayView3;

use super::state::LayerState;
use super::{Request, Source};
use crate::chunk::Wrong;
use crate::distribution::Row;
use crate::sample::Values;
use crate::trace::{Layer, Scoring, runs};
use crate::{Error, Result};

/// Adds some rows of a layer; returns the first value that is not accepted.
#[inline(always)]
pub(super) fn add_rows(
    request: &Request<'_>,
    layer: usize,
    rows: Range<usize>,
    row: &mut Row,
    state: &mut LayerState,
) -> Option<Wrong> {
    let rules = &request.layers[layer];
    for (tokens, group) in runs(request.groups, rows.clone()) {
        for token in tokens.map(|t| rows.start + t) {
            let place = [token, layer];
            let added = match &request.source {
                Source::Slots { .. } => Ok(()),
                Source::Router { expert_ids, router_logits } => {
                    add_router(expert_ids, router_logits, rules, place, row, state, group)
                }
                Source::Dense(activations) => add_dense(activations, rules, place, row, state, group),
            };
            if let Err(error) = added {
                return Some(Wrong { row: token, layer, error });
            }
        }
    }
    None
}

#[inline(always)]
fn add_router(
    expert_ids: &ArrayView3<'_, i16>,
    logits: &Values<'_>,
    rules: &Layer,
    place: [usize; 2],
    row: &mut Row,
    state: &mut LayerState,
    group: usize,
) -> Result<()> {
    row.choose(expert_ids, rules, place)?;
    if row.chosen.is_empty() {
        return Ok(());
    }
    let Some(scoring) = rules.scoring else {
        state.see(group, false);
        return Ok(());
    };
    // Passive experts have a part in what the router computed, and no activation.
    row.read(logits, rules.n_experts, 0, place);
    row.check(scoring, logits, place)?;
    let exists = match scoring {
        Scoring::Probabilities => row.numbers().any(|p| p != 0.0),
        _ => row.distribute(scoring).is_some(),
    };
    state.see(group, exists);
    if exists {
        let probs = if scoring == Scoring::Probabilities { row.logits() } else { row.probs() };
        state.add_all(group, &probs.as_flattened()[..rules.active_experts()]);
    }
    Ok(())
}

#[inline(always)]
fn add_dense(
    activations: &Values<'_>,
    rules: &Layer,
    place: [usize; 2],
    row: &mut Row,
    state: &mut LayerState,
    group: usize,
) -> Result<()> {
    row.read(activations, rules.n_experts, 0, place);
    if let Some((expert, found)) = row.numbers().enumerate().find(|(_, x)| !(0.0..f64::INFINITY).contains(x)) {
        let place = format!("token row {}, expert {expert}", place[0]);
        return Err(Error::Data(format!("activations: {place} is {found}; accepted: finite numbers >= 0")));
    }
    let mut active = row.numbers().enumerate().filter(|&(_, x)| x > 0.0).peekable();
    if active.peek().is_some() {
        state.see(group, true);
    }
    active.for_each(|(expert, activation)| state.add(group, expert, activation));
    Ok(())
}
