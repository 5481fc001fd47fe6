//! What is known of the tokens of a tile.

use std::ops::Range;

use super::Trace;
use super::state::LayerState;
use crate::tile::{Row, Slots, TILE, sort};
use crate::trace::runs;

/// Room for a tile, and what is known of its tokens.
pub(crate) struct Tile {
    /// The first token's row in the trace.
    pub(super) first_row: usize,
    /// Tokens in the tile; the others have no filled slot.
    pub(super) len: usize,
    /// Slots of a token.
    pub(super) k: usize,
    /// Experts that count; what is not below it is an empty slot.
    pub(super) experts: u16,
    /// Ids as they were read, and the weights of filled slots, 0 in the others.
    pub(super) slots: Slots,
    /// Ids of filled slots, [`Self::experts`] in the others.
    pub(super) ids: Vec<Row<u16>>,
    /// Ids of each token ascending, so that those of empty slots come last; each once, after [`Self::merge_repeats`].
    pub(super) sorted: Vec<Row<u16>>,
    /// How many slots are filled.
    pub(super) filled: Row<u16>,
    /// How many experts are chosen: less than slots are filled where one is chosen twice.
    pub(super) chosen: Row<u16>,
    /// 1 / Σw; 0 where Σw is 0.
    pub(super) inverse: Row<f64>,
    /// The expert in the slot with the largest weight.
    pub(super) first: Row<u16>,
    /// Entropy of the weights divided by their sum, in nats.
    pub(super) entropy: Row<f64>,
    /// The smallest weight, or 0.
    pub(super) least: Row<f64>,
    /// Tokens of one group beside each other, and the group.
    pub(super) runs: Vec<(Range<usize>, usize)>,
    /// Tokens that choose an expert twice.
    repeating: Row<bool>,
}

impl Tile {
    pub(super) fn new(k: usize) -> Self {
        Self {
            first_row: 0,
            len: 0,
            k,
            experts: 0,
            slots: Slots::new(k),
            ids: vec![[0; TILE]; k],
            sorted: vec![[0; TILE]; k],
            filled: [0; TILE],
            chosen: [0; TILE],
            inverse: [0.0; TILE],
            first: [0; TILE],
            entropy: [0.0; TILE],
            least: [0.0; TILE],
            runs: Vec::with_capacity(TILE),
            repeating: [false; TILE],
        }
    }

    /// Reads the ids and weights of some rows, at most [`TILE`].
    #[inline(always)]
    pub(super) fn load(&mut self, trace: &Trace<'_>, layer: usize, rows: Range<usize>) {
        self.first_row = rows.start;
        self.len = rows.len();
        // A layer's experts fit into 15 bits.
        self.experts = trace.layers[layer].active_experts() as u16;
        let last = trace.expert_ids.dim().0 - 1;
        let row = |t: usize| (rows.start + t).min(last);
        self.slots.read_ids(&trace.expert_ids, layer, rows.len(), row);
        self.filled = [0; TILE];
        for (ids, raw) in self.ids.iter_mut().zip(&self.slots.ids) {
            for t in 0..TILE {
                // An empty slot's -1 is the largest number without a sign.
                ids[t] = (raw[t] as u16).min(self.experts);
                self.filled[t] += u16::from(ids[t] < self.experts);
            }
        }
        self.chosen = self.filled;
        if let Some(weights) = &trace.expert_weights {
            self.slots.read_weights(weights, layer, rows.len(), row, None);
        }
        self.runs.clear();
        self.runs.extend(runs(trace.groups, rows));
    }

    /// Sorts the ids of each token, and says whether any token chooses an expert twice.
    #[inline(always)]
    pub(super) fn find_repeats(&mut self) -> bool {
        self.sorted.copy_from_slice(&self.ids);
        sort(&mut self.sorted);
        self.repeating = [false; TILE];
        let mut any = false;
        for j in 1..self.k {
            let (low, high) = (&self.sorted[j - 1], &self.sorted[j]);
            for t in 0..TILE {
                let same = (low[t] == high[t]) & (low[t] < self.experts);
                self.repeating[t] |= same;
                any |= same;
            }
        }
        any
    }

    /// Puts the weight of an expert that a token chooses twice into one slot, and empties the others.
    pub(super) fn merge_repeats(&mut self, state: &mut LayerState, count: bool) {
        for (tokens, group) in self.runs.clone() {
            for t in tokens.filter(|&t| self.repeating[t]).collect::<Vec<_>>() {
                self.merge_token(t, |id| {
                    if count {
                        state.add_repeat(group, id)
                    }
                });
            }
        }
    }

    fn merge_token(&mut self, t: usize, mut repeated: impl FnMut(usize)) {
        for slot in 1..self.k {
            let id = self.ids[slot][t];
            if id < self.experts
                && let Some(earlier) = (0..slot).find(|&earlier| self.ids[earlier][t] == id)
            {
                self.slots.weights[earlier][t] += self.slots.weights[slot][t];
                self.slots.weights[slot][t] = 0.0;
                self.ids[slot][t] = self.experts;
                self.chosen[t] -= 1;
                repeated(usize::from(id));
            }
        }
        let mut ids: Vec<u16> = self.ids.iter().map(|row| row[t]).collect();
        ids.sort_unstable();
        self.sorted.iter_mut().zip(ids).for_each(|(row, id)| row[t] = id);
    }
}
