//! What everything that reads a trace is told of it, and what it says of values that are not accepted.

use std::ops::Range;

use ndarray::ArrayView3;

use crate::sample::Values;
use crate::{Error, Result};

/// What one layer's router chooses from, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// All that it can choose, passive experts among them.
    pub n_experts: usize,
    /// The last so many do nothing, and a slot on one counts as empty.
    pub passive_experts: usize,
    /// Slots; those past them must be empty.
    pub top_k: usize,
    /// Whether weights may be negative.
    pub signed_weights: bool,
    /// How logits become a distribution over experts; without it, they tell none.
    pub scoring: Option<Scoring>,
}

/// How logits become scores, of which each one's share is its probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Exponentials.
    Softmax,
    /// Logistic functions.
    Sigmoid,
    /// Square roots of softplus.
    SqrtSoftplus,
    /// They are probabilities already.
    Probabilities,
}

/// A group for each token.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// `[T]`
    pub ids: &'a [u32],
    /// How many there are.
    pub count: usize,
}

impl Layer {
    /// Experts that do something.
    #[must_use]
    pub fn active_experts(&self) -> usize {
        self.n_experts.saturating_sub(self.passive_experts)
    }

    /// Whether a slot may hold an id.
    #[inline(always)]
    pub(crate) fn accepts_id(&self, slot: usize, id: i16) -> bool {
        id == -1 || slot < self.top_k && usize::try_from(id).is_ok_and(|id| id < self.n_experts)
    }

    fn accepts_weight(&self, weight: f64) -> bool {
        weight.is_finite() && (self.signed_weights || weight >= 0.0)
    }
}

/// Refuses layers that are not as many as the arrays have, or have more experts or slots than there is room for.
pub(crate) fn check_layers(layers: &[Layer], found: usize, slots: usize, most_experts: usize) -> Result<()> {
    if found == 0 || layers.len() != found {
        let described = layers.len();
        return Err(Error::Argument(format!(
            "arrays of {found} layers for {described} layers; accepted: as many, > 0"
        )));
    }
    let most = most_experts.min(i16::MAX as usize);
    let fits = |l: &Layer| l.active_experts() > 0 && l.n_experts <= most && l.top_k <= slots;
    match layers.iter().position(|layer| !fits(layer)) {
        None => Ok(()),
        Some(index) => {
            let found = layers[index];
            let accepted = format!("1 to {most} experts, up to {slots} slots");
            Err(Error::Argument(format!("layer {index}: {found:?}; accepted: {accepted}")))
        }
    }
}

/// Refuses numbers of layers that there are not, and none.
pub(crate) fn check_chosen(chosen: &[usize], layers: usize) -> Result<()> {
    if !chosen.is_empty() && chosen.iter().all(|&layer| layer < layers) {
        return Ok(());
    }
    Err(Error::Argument(format!("layers: {chosen:?}; accepted: some of 0 to {}", layers - 1)))
}

/// Refuses more slots in a layer than counters of 32 bits can count, and none.
pub(crate) fn check_slots(name: &str, rows: usize, slots: usize) -> Result<()> {
    if (1..=usize::from(u16::MAX)).contains(&slots) && rows.saturating_mul(slots) < u32::MAX as usize {
        return Ok(());
    }
    let accepted = "at least 1 slot, and up to 2^32 slots a layer at a time";
    Err(Error::Argument(format!("{name}: {rows} rows of {slots} slots; accepted: {accepted}")))
}

/// Refuses what is not one for each token.
pub(crate) fn check_length(name: &str, length: usize, tokens: usize) -> Result<()> {
    if length == tokens {
        return Ok(());
    }
    Err(Error::Argument(format!("{name}: {length} tokens; accepted: {tokens}")))
}

/// How many groups there are: one where none are told apart.
pub(crate) fn n_groups(groups: Option<Groups<'_>>) -> usize {
    groups.map_or(1, |groups| groups.count)
}

/// Finds the first of some rows whose group does not exist; `what` is what a row is called.
pub(crate) fn check_groups(groups: Option<Groups<'_>>, rows: Range<usize>, what: &str) -> Result<()> {
    let Some(groups) = groups else { return Ok(()) };
    match groups.ids[rows.clone()].iter().position(|&group| group as usize >= groups.count) {
        None => Ok(()),
        Some(at) => {
            let (row, last) = (rows.start + at, groups.count.saturating_sub(1));
            let found = groups.ids[row];
            Err(Error::Data(format!("groups: {what} {row} is {found}; accepted: 0 to {last}")))
        }
    }
}

/// Rows of one group beside each other, counted from the first, and the group.
#[inline(always)]
pub(crate) fn runs(groups: Option<Groups<'_>>, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
    let whole = groups.is_none().then_some((0..rows.len(), 0));
    let ids = groups.map_or(&[][..], |groups| &groups.ids[rows]);
    let mut start = 0;
    whole.into_iter().chain(ids.chunk_by(|a, b| a == b).map(move |run| {
        start += run.len();
        (start - run.len()..start, run[0] as usize)
    }))
}

/// What ids and weights are called in most calls.
pub(crate) const NAMES: [&str; 2] = ["expert_ids", "expert_weights"];

/// The error for the first slot of a row and layer whose id or weight is not accepted; `names` are those of the arrays.
pub(crate) fn first_wrong(
    expert_ids: &ArrayView3<'_, i16>,
    expert_weights: Option<&Values<'_>>,
    names: [&str; 2],
    rules: &Layer,
    [row, layer]: [usize; 2],
) -> Option<Error> {
    (0..expert_ids.dim().2).find_map(|slot| {
        let id = expert_ids[[row, layer, slot]];
        let weight = expert_weights.map(|weights| weights.at([row, layer, slot]));
        let (name, found, accepted) = if !rules.accepts_id(slot, id) {
            let accepted = match slot < rules.top_k {
                true => format!("0 to {}, or -1 for an empty slot", rules.n_experts - 1),
                false => format!("-1, since the layer has {} slots", rules.top_k),
            };
            (names[0], id.to_string(), accepted)
        } else {
            let weight = weight.filter(|&weight| id >= 0 && !rules.accepts_weight(weight))?;
            let accepted = if rules.signed_weights { "finite numbers" } else { "finite numbers >= 0" };
            (names[1], weight.to_string(), accepted.to_string())
        };
        let place = format!("token row {row}, layer {layer}, slot {slot}");
        Some(Error::Data(format!("{name}: {place} is {found}; accepted: {accepted}")))
    })
}

/// The error for a value that was found wrong once, and is not any more.
///
/// Only memory that changes meanwhile, such as a mapped file that is written to, leads here.
pub(crate) fn changed(row: usize) -> Error {
    Error::Data(format!("expert_ids: token row {row} changed while it was read"))
}

/// Memory for counters, or an error that says how much there would have to be.
pub(crate) fn zeros<T: Clone + Default>(n: usize) -> Result<Vec<T>> {
    let mut counters = Vec::new();
    let bytes = n.saturating_mul(size_of::<T>());
    counters.try_reserve_exact(n).map_err(|_| Error::Memory { what: "counters of a trace", bytes })?;
    counters.resize(n, T::default());
    Ok(counters)
}
