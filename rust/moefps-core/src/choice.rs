//! The experts that one token chooses in one layer, each once.
//!
//! What asks whether a token uses an expert, and not in how many slots, reads a trace through this: empty slots and
//! passive experts are left out, and so is an expert that the token has chosen already.

use ndarray::{ArrayView2, ArrayView3, Axis};

use crate::count::Layer;
use crate::{Error, Result};

/// The expert ids of a trace, and what its layers choose from. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// L of them; whether weights may be negative is not looked at.
    pub layers: &'a [Layer],
}

impl<'a> Choices<'a> {
    /// What does not fit together, in the words of the Python arguments.
    pub(crate) fn check(&self) -> Result<()> {
        let (t, l, k) = self.expert_ids.dim();
        let wrong = |message: String| Err(Error::Argument(message));
        if l == 0 || k == 0 || self.layers.len() != l {
            return wrong(format!("expert_ids: shape [{t}, {l}, {k}] for {} layers", self.layers.len()));
        }
        // Counters have 32 bits.
        if t.saturating_mul(k) >= u32::MAX as usize || k > usize::from(u16::MAX) {
            return wrong(format!("expert_ids: {t} tokens of {k} slots; accepted: up to 2^32 slots a layer at a time"));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            if layer.active_experts() == 0 || layer.n_experts > i16::MAX as usize || layer.top_k > k {
                return wrong(format!("layer {index}: {layer:?}; accepted: 1 to 32767 experts, up to {k} slots"));
            }
        }
        Ok(())
    }

    /// Refuses what is not one for each token.
    pub(crate) fn check_length(&self, name: &str, length: usize) -> Result<()> {
        let tokens = self.expert_ids.dim().0;
        if length != tokens {
            return Err(Error::Argument(format!("{name}: {length} tokens; accepted: {tokens}")));
        }
        Ok(())
    }

    /// A reader of one layer.
    pub(crate) fn reader(&self, layer: usize) -> Reader<'a> {
        let rules = self.layers[layer];
        Reader {
            ids: self.expert_ids.index_axis_move(Axis(1), layer),
            top_k: rules.top_k,
            n_experts: rules.n_experts,
            active: rules.active_experts(),
            last: vec![0; rules.active_experts()],
            token: 0,
        }
    }

    /// The error for the first wrong id, by token, layer and slot, of a trace that has one at `row` or before.
    pub(crate) fn error(&self, row: usize) -> Error {
        for (row, layers) in self.expert_ids.outer_iter().take(row + 1).enumerate() {
            for (layer, (slots, rules)) in layers.outer_iter().zip(self.layers).enumerate() {
                for (slot, &id) in slots.iter().enumerate() {
                    if !is_good(rules.n_experts, rules.top_k, slot, id) {
                        let accepted = match slot < rules.top_k {
                            true => format!("0 to {}, or -1 for an empty slot", rules.n_experts - 1),
                            false => format!("-1, since the layer has {} slots", rules.top_k),
                        };
                        let place = format!("token row {row}, layer {layer}, slot {slot}");
                        return Error::Data(format!("expert_ids: {place} is {id}; accepted: {accepted}"));
                    }
                }
            }
        }
        // Only memory that changes meanwhile, such as a mapped file that is written to, gets here.
        Error::Data(format!("expert_ids: token row {row} changed while it was read"))
    }
}

#[inline(always)]
fn is_good(n_experts: usize, top_k: usize, slot: usize, id: i16) -> bool {
    id == -1 || slot < top_k && usize::try_from(id).is_ok_and(|id| id < n_experts)
}

/// Reads tokens of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    ids: ArrayView2<'a, i16>,
    n_experts: usize,
    top_k: usize,
    /// Experts that are not passive.
    pub(crate) active: usize,
    /// For each expert, the last token that was seen to choose it.
    last: Vec<u32>,
    token: u32,
}

impl Reader<'_> {
    /// Writes the experts that a token chooses to the front of `to`, in the order of the slots, and says how many there
    /// are; nothing for a token with an id that is not accepted.
    #[inline(always)]
    pub(crate) fn read(&mut self, row: usize, to: &mut [u16]) -> Option<usize> {
        self.token += 1;
        let ids = self.ids;
        let slots = ids.row(row);
        match slots.to_slice() {
            Some(slots) => self.pick(slots.iter().copied(), to),
            None => self.pick(slots.iter().copied(), to),
        }
    }

    #[inline(always)]
    fn pick(&mut self, slots: impl Iterator<Item = i16>, to: &mut [u16]) -> Option<usize> {
        let mut n = 0;
        let mut good = true;
        for (slot, id) in slots.enumerate() {
            good &= is_good(self.n_experts, self.top_k, slot, id);
            let Some(last) = self.last.get_mut(usize::from(id as u16)) else { continue };
            // Written in any case, and kept where it is new.
            to[n] = id as u16;
            n += usize::from(*last != self.token);
            *last = self.token;
        }
        good.then_some(n)
    }
}
