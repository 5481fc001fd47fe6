//! The first value of a trace that is not accepted.

use super::row::{BLOCK, Block, Row};
use super::{Logits, Scoring, Trace};
use crate::Error;

/// What is wrong with a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The token's group does not exist.
    Group,
    /// An id.
    Id { slot: usize },
    /// A logit.
    Logit { expert: usize },
    /// What probabilities sum to.
    Sum(f64),
}

/// Where a wrong value is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrong {
    row: usize,
    layer: usize,
    what: What,
}

impl Wrong {
    pub(super) fn new(row: usize, layer: usize, what: What) -> Self {
        Self { row, layer, what }
    }

    /// Sorts by token and layer.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.row, self.layer)
    }

    /// Says what was found and what is accepted.
    pub(super) fn error(&self, trace: &Trace<'_>) -> Error {
        let Self { row, layer, what } = *self;
        let rules = &trace.layers[layer];
        let place = format!("token row {row}, layer {layer}");
        Error::Data(match what {
            What::Group => {
                let last = trace.n_groups().saturating_sub(1);
                format!("groups: token row {row} is {}; accepted: 0 to {last}", trace.group(row))
            }
            What::Id { slot } => {
                let found = trace.expert_ids[[row, layer, slot]];
                let accepted = match slot < rules.top_k {
                    true => format!("0 to {}, or -1 for an empty slot", rules.n_experts - 1),
                    false => format!("-1, since the layer has {} slots", rules.top_k),
                };
                format!("expert_ids: {place}, slot {slot} is {found}; accepted: {accepted}")
            }
            What::Logit { expert } => {
                let found = match &trace.router_logits {
                    Logits::F16(x) => x[[row, layer, expert]].to_f64(),
                    Logits::F32(x) => x[[row, layer, expert]].into(),
                };
                let accepted = match rules.scoring {
                    Some(Scoring::Probabilities) => "probabilities, as the layer's scoring says",
                    _ => "numbers, or -inf for a masked expert",
                };
                format!("router_logits: {place}, expert {expert} is {found}; accepted: {accepted}")
            }
            What::Sum(sum) => format!(
                "router_logits: {place} sums to {sum:.6}; accepted: probabilities that sum to 1, as the layer's \
                 scoring says"
            ),
        })
    }
}

/// Finds the first logit of a row that is not accepted.
#[inline(always)]
pub(super) fn logits(row: &Row, scoring: Scoring, tolerance: f64) -> Option<What> {
    if !(all_good(row.logits()) && all_good(row.passive())) {
        return first(row, |x| x < f64::INFINITY);
    }
    if scoring == Scoring::Probabilities {
        return probabilities(row, tolerance);
    }
    None
}

#[inline(always)]
fn all_good(blocks: &[Block]) -> bool {
    let mut good = [true; BLOCK];
    for block in blocks {
        for i in 0..BLOCK {
            good[i] &= block[i] < f64::INFINITY;
        }
    }
    !good.contains(&false)
}

fn probabilities(row: &Row, tolerance: f64) -> Option<What> {
    let found = first(row, |x| x >= 0.0);
    if found.is_some() {
        return found;
    }
    let sum: f64 = row.all().sum();
    // All zeros stand for none.
    (sum != 0.0 && (sum - 1.0).abs() > tolerance).then_some(What::Sum(sum))
}

fn first(row: &Row, good: impl Fn(f64) -> bool) -> Option<What> {
    row.all().position(|x| !good(x)).map(|expert| What::Logit { expert })
}
