//! The first value of some pairs that is not accepted.

use super::{Comparison, Side};
use crate::Error;
use crate::count::Layer;
use crate::count::Weights;

/// Where a wrong value is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrong {
    pair: usize,
    side: char,
    layer: usize,
    slot: usize,
    /// In the weights, else in the ids.
    weight: bool,
}

impl Wrong {
    /// Sorts by pair, layer, side and slot.
    pub(super) fn place(&self) -> (usize, usize, char, usize) {
        (self.pair, self.layer, self.side, self.slot)
    }

    /// Says what was found and what is accepted.
    pub(super) fn error(&self, comparison: &Comparison<'_>) -> Error {
        let Self { pair, side, layer, slot, weight } = *self;
        let trace = if side == 'a' { &comparison.a } else { &comparison.b };
        let (row, rules) = (trace.row(pair), &comparison.layers[layer]);
        let (name, found, accepted) = if weight {
            let accepted = if rules.signed_weights { "finite numbers" } else { "finite numbers >= 0" };
            ("weights", weight_at(trace, row, layer, slot).unwrap_or(0.0).to_string(), accepted.to_string())
        } else {
            let accepted = match slot < rules.top_k {
                true => format!("0 to {}, or -1 for an empty slot", rules.n_experts - 1),
                false => format!("-1, since the layer has {} slots", rules.top_k),
            };
            ("ids", trace.expert_ids[[row, layer, slot]].to_string(), accepted)
        };
        let place = format!("token row {row}, layer {layer}, slot {slot}");
        Error::Data(format!("{name}_{side}: {place} is {found}; accepted: {accepted}"))
    }
}

/// Finds the first wrong value of a layer, in pairs that have one.
pub(super) fn first_wrong(comparison: &Comparison<'_>, layer: usize, pairs: std::ops::Range<usize>) -> Wrong {
    let rules = &comparison.layers[layer];
    let k = comparison.a.expert_ids.dim().2;
    for pair in pairs.clone() {
        for (side, trace) in [('a', &comparison.a), ('b', &comparison.b)] {
            let row = trace.row(pair);
            for slot in 0..k {
                let id = trace.expert_ids[[row, layer, slot]];
                if !id_is_good(rules, slot, id) {
                    return Wrong { pair, side, layer, slot, weight: false };
                }
                let weight = weight_at(trace, row, layer, slot);
                if id >= 0 && weight.is_some_and(|weight| !weight_is_good(rules, weight)) {
                    return Wrong { pair, side, layer, slot, weight: true };
                }
            }
        }
    }
    // Only memory that changes meanwhile, such as a mapped file that is written to, gets here.
    Wrong { pair: pairs.start, side: 'a', layer, slot: 0, weight: false }
}

fn id_is_good(layer: &Layer, slot: usize, id: i16) -> bool {
    id == -1 || slot < layer.top_k && usize::try_from(id).is_ok_and(|id| id < layer.n_experts)
}

fn weight_is_good(layer: &Layer, weight: f64) -> bool {
    weight.is_finite() && (layer.signed_weights || weight >= 0.0)
}

fn weight_at(side: &Side<'_>, row: usize, layer: usize, slot: usize) -> Option<f64> {
    match &side.expert_weights {
        None => None,
        Some(Weights::F16(weights)) => Some(weights[[row, layer, slot]].to_f64()),
        Some(Weights::F32(weights)) => Some(weights[[row, layer, slot]].into()),
    }
}
