//! Activations that every expert may have on a token, a token at a time.

use ndarray::{ArrayView3, s};

use super::check::{Wrong, check_logits, expert_in};
use super::probability::distribute;
use super::state::LayerState;
use super::{Chosen, Request, Source};
use crate::l1::{for_each_simd, lanes::Lanes};
use crate::sample::Samples;

for_each_simd! {
    /// Adds some rows of a layer; returns the first value that is not accepted. `numbers` has room for one row.
    pub(super) fn add_rows(request: &Request<'_>, chosen: &Chosen, rows: std::ops::Range<usize>, numbers: &mut [f64], state: &mut LayerState) -> Option<Wrong> = add_rows_with;
}

#[inline(always)]
unsafe fn add_rows_with<L: Lanes>(
    _: L,
    request: &Request<'_>,
    chosen: &Chosen,
    rows: std::ops::Range<usize>,
    numbers: &mut [f64],
    state: &mut LayerState,
) -> Option<Wrong> {
    let source = request.source.numbers();
    for (tokens, group) in request.runs(rows.clone()) {
        for row in tokens.map(|t| rows.start + t) {
            let wrong = match request.source {
                Source::Slots { .. } => None,
                Source::Router { expert_ids, .. } => {
                    add_router(&expert_ids, &source, chosen, row, numbers, state, group)
                }
                Source::Dense(_) => add_dense(&source, chosen, row, numbers, state, group),
            };
            if wrong.is_some() {
                return wrong;
            }
        }
    }
    None
}

#[inline(always)]
fn add_router(
    expert_ids: &ArrayView3<'_, i16>,
    logits: &Samples<'_>,
    chosen: &Chosen,
    row: usize,
    numbers: &mut [f64],
    state: &mut LayerState,
    group: usize,
) -> Option<Wrong> {
    let active = chosen.layer.active_experts();
    let mut is_token = false;
    for (slot, &id) in expert_ids.slice(s![row, chosen.index, ..]).iter().enumerate() {
        match expert_in(slot, id, chosen) {
            Ok(expert) => is_token |= expert.is_some_and(|expert| expert < active),
            Err(()) => return Some(Wrong::id(row, chosen, slot, id)),
        }
    }
    if !is_token {
        return None;
    }
    logits.read(row, chosen.index, numbers);
    let numbers = &mut numbers[..chosen.layer.n_experts];
    let wrong = check_logits(row, chosen, &logits.values, numbers);
    if wrong.is_some() {
        return wrong;
    }
    let exists = distribute(chosen.scoring, numbers);
    state.see(group, exists);
    if exists {
        state.add_all(group, &numbers[..active]);
    }
    None
}

#[inline(always)]
fn add_dense(
    activations: &Samples<'_>,
    chosen: &Chosen,
    row: usize,
    numbers: &mut [f64],
    state: &mut LayerState,
    group: usize,
) -> Option<Wrong> {
    activations.read(row, chosen.index, numbers);
    if let Some(column) = numbers.iter().position(|&x| !(0.0..f64::INFINITY).contains(&x)) {
        return Some(Wrong::number(row, chosen, column, numbers[column]));
    }
    if numbers.iter().all(|&x| x == 0.0) {
        return None;
    }
    state.see(group, true);
    let active = numbers.iter().enumerate().filter(|(_, x)| **x > 0.0);
    active.for_each(|(expert, &activation)| state.add(group, expert, activation));
    None
}
