//! Activations of the experts in the slots of tokens, many tokens at once.

use std::ops::Range;

use super::state::LayerState;
use super::{Request, Source};
use crate::chunk::Wrong;
use crate::tile::{Row, Slots, TILE};
use crate::trace::{Layer, NAMES, first_wrong, runs};

/// Some tokens of one layer, slot by slot.
pub(crate) struct Tile {
    /// Ids as they were read; weights, then activations, then those that count.
    slots: Slots,
    /// Ids of filled slots; the number of experts in the others, and where an expert was met in an earlier slot.
    ids: Vec<Row<u16>>,
    /// Whether a slot is filled.
    filled: Row<bool>,
    /// Sum of the weights in filled slots.
    sum: Row<f64>,
    /// The bin of each activation.
    bins: Vec<Row<u32>>,
}

impl Tile {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: Slots::new(slots),
            ids: vec![[0; TILE]; slots],
            filled: [false; TILE],
            sum: [0.0; TILE],
            bins: vec![[0; TILE]; slots],
        }
    }
}

/// Adds some rows of a layer; returns the first value that is not accepted.
#[inline(always)]
pub(super) fn add_rows(
    request: &Request<'_>,
    layer: usize,
    rows: Range<usize>,
    tile: &mut Tile,
    state: &mut LayerState,
) -> Option<Wrong> {
    let Source::Slots { expert_ids, expert_weights, renormalized } = &request.source else { return None };
    let rules = &request.layers[layer];
    let experts = rules.active_experts() as u16;
    let last = expert_ids.dim().0 - 1;
    for start in rows.clone().step_by(TILE) {
        let rows = start..rows.end.min(start + TILE);
        let row = |t: usize| (start + t).min(last);
        tile.slots.read_ids(expert_ids, layer, rows.len(), row);
        tile.slots.read_weights(expert_weights, layer, rows.len(), row, None);
        if !tile.slots.ids_are_good(rules) | !tile.weights_are_good(rules) {
            let find = |row| first_wrong(expert_ids, Some(expert_weights), NAMES, rules, [row, layer]);
            return Some(Wrong::first(rows, layer, find));
        }
        tile.weigh(experts);
        tile.merge_repeats(experts);
        if *renormalized {
            tile.renormalize();
        }
        tile.slots.weights.iter_mut().zip(&mut tile.bins).for_each(|(values, bins)| state.classify(values, bins));
        for (tokens, group) in runs(request.groups, rows) {
            for t in tokens.clone().filter(|&t| tile.filled[t]) {
                state.see(group, !renormalized || tile.sum[t] != 0.0);
            }
            for slot in 0..tile.ids.len() {
                let (ids, counted, bins) = (&tile.ids[slot], &tile.slots.weights[slot], &tile.bins[slot]);
                state.add_many(group, &ids[tokens.clone()], &counted[tokens.clone()], &bins[tokens.clone()]);
            }
        }
    }
    None
}

impl Tile {
    /// Whether every weight of a filled slot is accepted.
    #[inline(always)]
    fn weights_are_good(&self, rules: &Layer) -> bool {
        let lowest = if rules.signed_weights { f64::MIN } else { 0.0 };
        let mut bad = false;
        for (ids, weights) in self.slots.ids.iter().zip(&self.slots.weights) {
            for t in 0..TILE {
                // The other way round, NaN would pass.
                let accepted = (weights[t] >= lowest) & (weights[t] <= f64::MAX);
                bad |= (ids[t] >= 0) & !accepted;
            }
        }
        !bad
    }

    /// Tells filled slots, and sums their weights.
    #[inline(always)]
    fn weigh(&mut self, experts: u16) {
        self.sum = [0.0; TILE];
        self.filled = [false; TILE];
        for ((ids, raw), values) in self.ids.iter_mut().zip(&self.slots.ids).zip(&self.slots.weights) {
            for t in 0..TILE {
                ids[t] = (raw[t] as u16).min(experts);
                let filled = ids[t] < experts;
                self.filled[t] |= filled;
                self.sum[t] += if filled { values[t] } else { 0.0 };
            }
        }
    }

    /// Puts the weights of an expert that a token chose twice into one slot: it has one activation on a token.
    #[inline(always)]
    fn merge_repeats(&mut self, experts: u16) {
        let mut repeats = [false; TILE];
        let mut any = false;
        for later in 1..self.ids.len() {
            let (earlier, rest) = self.ids.split_at(later);
            for ids in earlier {
                for t in 0..TILE {
                    let same = (ids[t] == rest[0][t]) & (ids[t] < experts);
                    repeats[t] |= same;
                    any |= same;
                }
            }
        }
        if any {
            (0..TILE).filter(|&t| repeats[t]).for_each(|t| self.merge_token(t, experts));
        }
    }

    #[cold]
    fn merge_token(&mut self, t: usize, experts: u16) {
        for later in 1..self.ids.len() {
            let id = self.ids[later][t];
            let earlier = (0..later).find(|&earlier| id < experts && self.ids[earlier][t] == id);
            if let Some(earlier) = earlier {
                self.slots.weights[earlier][t] += self.slots.weights[later][t];
                self.ids[later][t] = experts;
            }
        }
    }

    /// Divides the weights of each token by their sum; where that is 0, no slot is left.
    #[inline(always)]
    fn renormalize(&mut self) {
        for (ids, values) in self.ids.iter_mut().zip(&mut self.slots.weights) {
            for t in 0..TILE {
                ids[t] = if self.sum[t] == 0.0 { u16::MAX } else { ids[t] };
                values[t] /= self.sum[t];
            }
        }
    }
}
