//! The first value of a trace that is not accepted.

use ndarray::ArrayView3;

use super::{Layer, Trace, Weights};
use crate::Error;

/// Where a wrong value is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong {
    row: usize,
    layer: usize,
    slot: usize,
    /// In the weights, else in the ids.
    weight: bool,
}

impl Wrong {
    /// Sorts by token, layer and slot.
    pub(crate) fn place(&self) -> (usize, usize, usize) {
        (self.row, self.layer, self.slot)
    }

    /// Says what was found and what is accepted.
    pub(crate) fn error(&self, trace: &Trace<'_>) -> Error {
        let Self { row, layer, slot, weight } = *self;
        let rules = &trace.layers[layer];
        let (name, found, accepted) = if weight {
            let accepted = if rules.signed_weights { "finite numbers" } else { "finite numbers >= 0" };
            ("expert_weights", weight_at(trace, row, layer, slot).to_string(), accepted.to_string())
        } else {
            let accepted = match slot < rules.top_k {
                true => format!("0 to {}, or -1 for an empty slot", rules.n_experts - 1),
                false => format!("-1, since the layer has {} slots", rules.top_k),
            };
            ("expert_ids", trace.expert_ids[[row, layer, slot]].to_string(), accepted)
        };
        Error::Data(format!("{name}: token row {row}, layer {layer}, slot {slot} is {found}; accepted: {accepted}"))
    }
}

/// Finds the first wrong value of a layer, in rows that have one.
pub(crate) fn first_wrong(trace: &Trace<'_>, layer: usize, rows: std::ops::Range<usize>) -> Wrong {
    let rules = &trace.layers[layer];
    let (_, _, k) = trace.expert_ids.dim();
    for row in rows.clone() {
        for slot in 0..k {
            let id = trace.expert_ids[[row, layer, slot]];
            if !id_is_good(rules, slot, id) {
                return Wrong { row, layer, slot, weight: false };
            }
            if id >= 0 && trace.expert_weights.is_some() && !weight_is_good(rules, weight_at(trace, row, layer, slot)) {
                return Wrong { row, layer, slot, weight: true };
            }
        }
    }
    // Only memory that changes meanwhile, such as a mapped file that is written to, gets here.
    Wrong { row: rows.start, layer, slot: 0, weight: false }
}

fn id_is_good(layer: &Layer, slot: usize, id: i16) -> bool {
    id == -1 || slot < layer.top_k && usize::try_from(id).is_ok_and(|id| id < layer.n_experts)
}

fn weight_is_good(layer: &Layer, weight: f64) -> bool {
    weight.is_finite() && (layer.signed_weights || weight >= 0.0)
}

fn weight_at(trace: &Trace<'_>, row: usize, layer: usize, slot: usize) -> f64 {
    fn at<T: Copy>(array: &ArrayView3<'_, T>, place: [usize; 3]) -> T {
        array[place]
    }
    match &trace.expert_weights {
        None => 0.0,
        Some(Weights::F16(weights)) => at(weights, [row, layer, slot]).to_f64(),
        Some(Weights::F32(weights)) => at(weights, [row, layer, slot]).into(),
    }
}
