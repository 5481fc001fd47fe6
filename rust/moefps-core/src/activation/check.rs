//! The first value of a trace that is not accepted.

use super::{Chosen, Request, Scoring, Source};
use crate::sample::Values;

/// Where a wrong value is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrong {
    row: usize,
    layer: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// The id in a slot.
    Id { slot: usize, found: i16, n_experts: usize, top_k: usize },
    /// The weight in a slot, or the number of an expert.
    Number { column: usize, found: f64, scoring: Scoring, signed: bool },
    /// All numbers together.
    Sum(f64),
}

impl Wrong {
    /// Sorts by token and layer.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.row, self.layer)
    }

    pub(super) fn id(row: usize, chosen: &Chosen, slot: usize, found: i16) -> Self {
        let what = What::Id { slot, found, n_experts: chosen.layer.n_experts, top_k: chosen.layer.top_k };
        Self { row, layer: chosen.index, what }
    }

    pub(super) fn number(row: usize, chosen: &Chosen, column: usize, found: f64) -> Self {
        let signed = chosen.layer.signed_weights;
        Self { row, layer: chosen.index, what: What::Number { column, found, scoring: chosen.scoring, signed } }
    }

    /// Says what was found and what is accepted.
    pub(super) fn error(&self, request: &Request<'_>) -> crate::Error {
        let Self { row, layer, what } = *self;
        let name = request.source.numbers().name;
        crate::Error::Data(match (what, request.source) {
            (What::Id { slot, found, n_experts, top_k }, _) => {
                let accepted = match slot < top_k {
                    true => format!("0 to {}, or -1 for an empty slot", n_experts - 1),
                    false => format!("-1, since the layer has {top_k} slots"),
                };
                format!("expert_ids: token row {row}, layer {layer}, slot {slot} is {found}; accepted: {accepted}")
            }
            (What::Number { column, found, signed, .. }, Source::Slots { .. }) => {
                let accepted = if signed { "finite numbers" } else { "finite numbers >= 0" };
                format!("{name}: token row {row}, layer {layer}, slot {column} is {found}; accepted: {accepted}")
            }
            (What::Number { column, found, scoring, .. }, Source::Router { .. }) => {
                let accepted = match scoring {
                    Scoring::Probabilities => "probabilities, as the layer's scoring says",
                    _ => "numbers, or minus infinity for a masked expert",
                };
                format!("{name}: token row {row}, layer {layer}, expert {column} is {found}; accepted: {accepted}")
            }
            (What::Number { column, found, .. }, Source::Dense(_)) => {
                format!("{name}: token row {row}, expert {column} is {found}; accepted: finite numbers >= 0")
            }
            (What::Sum(total), _) => format!(
                "{name}: token row {row}, layer {layer} sums to {total:.6}; accepted: probabilities that sum to 1, as \
                 the layer's scoring says"
            ),
        })
    }
}

/// Finds what is wrong with the logits of a token.
#[inline]
pub(super) fn check_logits(row: usize, chosen: &Chosen, values: &Values<'_>, logits: &[f64]) -> Option<Wrong> {
    if chosen.scoring != Scoring::Probabilities {
        let wrong = logits.iter().position(|&x| x.is_nan() || x == f64::INFINITY);
        return wrong.map(|column| Wrong::number(row, chosen, column, logits[column]));
    }
    if let Some(column) = logits.iter().position(|&x| !(0.0..f64::INFINITY).contains(&x)) {
        return Some(Wrong::number(row, chosen, column, logits[column]));
    }
    let total: f64 = logits.iter().sum();
    // As where fingerprints are made of them.
    let tolerance = if matches!(values, Values::F16(_)) { 1e-2 } else { 1e-4 };
    let sums_to_one = total == 0.0 || (total - 1.0).abs() <= tolerance;
    if sums_to_one { None } else { Some(Wrong { row, layer: chosen.index, what: What::Sum(total) }) }
}

/// The expert in a slot: `None` where it is empty, an error where it holds what no slot may.
#[inline(always)]
pub(super) fn expert_in(slot: usize, id: i16, chosen: &Chosen) -> Result<Option<usize>, ()> {
    match usize::try_from(id) {
        Ok(expert) if expert < chosen.layer.n_experts && slot < chosen.layer.top_k => Ok(Some(expert)),
        Err(_) if id == -1 => Ok(None),
        _ => Err(()),
    }
}
