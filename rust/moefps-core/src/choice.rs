//! The experts that one token chooses in one layer, each once.
//!
//! What asks whether a token uses an expert, and not in how many slots, reads a trace through this: empty slots and
//! passive experts are left out, and so is an expert that the token has chosen already.

use ndarray::{ArrayView2, ArrayView3, Axis};

use crate::trace::{Layer, NAMES, changed, check_layers, check_slots, first_wrong};
use crate::{Error, Result};

/// The expert ids of a trace, and what its layers choose from. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// L of them.
    pub layers: &'a [Layer],
}

impl<'a> Choices<'a> {
    /// What does not fit together, in the words of the Python arguments.
    pub(crate) fn check(&self) -> Result<()> {
        let (t, l, k) = self.expert_ids.dim();
        check_slots("expert_ids", t, k)?;
        check_layers(self.layers, l, k, usize::MAX)
    }

    /// A reader of one layer.
    pub(crate) fn reader(&self, layer: usize) -> Reader<'a> {
        let rules = self.layers[layer];
        let active = rules.active_experts();
        Reader { ids: self.expert_ids.index_axis_move(Axis(1), layer), rules, active, last: vec![0; active], token: 0 }
    }

    /// The error for the first wrong id, by token, layer and slot, of a trace that has one at `row` or before.
    pub(crate) fn error(&self, row: usize) -> Error {
        let mut places =
            (0..=row).flat_map(|row| self.layers.iter().enumerate().map(move |(l, rules)| ([row, l], rules)));
        let wrong = |(place, rules)| first_wrong(&self.expert_ids, None, NAMES, rules, place);
        places.find_map(wrong).unwrap_or_else(|| changed(row))
    }
}

/// Reads tokens of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    ids: ArrayView2<'a, i16>,
    rules: Layer,
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
            good &= self.rules.accepts_id(slot, id);
            let Some(last) = self.last.get_mut(usize::from(id as u16)) else { continue };
            // Written in any case, and kept where it is new.
            to[n] = id as u16;
            n += usize::from(*last != self.token);
            *last = self.token;
        }
        good.then_some(n)
    }
}
