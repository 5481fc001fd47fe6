//! What the tokens of one side of a tile chose: in the order of the experts, with their shares and ranks.
//!
//! That order is the same whatever slot an expert was chosen in, so that sums over the experts of a pair do not depend
//! on which side is looked at first.

use std::ops::Range;

use super::{Side, TOP};
use crate::math::ln;
use crate::tile::{Row, Slots, TILE, sort};
use crate::trace::Layer;

/// An empty slot's -1, as a number without a sign.
const NOTHING: u32 = 0xffff;
/// A mark of an expert that is chosen.
pub(super) const CHOSEN: u64 = 1;
/// A mark of one that is among the first [`TOP`].
pub(super) const AT_TOP: u64 = 2;

/// Room for one side of a tile. Of rows for each slot, the experts come first, ascending, then empty slots.
pub(super) struct Choices {
    /// What stands for an empty slot in `ids`: no expert's, and not the other side's.
    empty: u64,
    /// Ids as they were read, and the weights, in the order of the experts; 0 where the slot is empty.
    slots: Slots,
    /// Id and slot in one number; ascending.
    keys: Vec<Row<u32>>,
    pub(super) ids: Vec<Row<u64>>,
    /// [`CHOSEN`] and [`AT_TOP`]; without weights only the first.
    pub(super) marks: Vec<Row<u64>>,
    ranks: Vec<Row<u64>>,
    /// ŵ; 0 for tokens without shares.
    pub(super) shares: Vec<Row<f64>>,
    /// ŵ ln ŵ
    pub(super) logs: Vec<Row<f64>>,
    /// How many experts are chosen.
    pub(super) chosen: Row<u64>,
    /// The expert with the largest weight.
    pub(super) first: Row<u64>,
    /// Whether ŵ is defined: Σw > 0, no weight below 0.
    pub(super) shared: Row<bool>,
    /// H(ŵ), nats.
    pub(super) entropy: Row<f64>,
    /// The largest share less the second largest.
    pub(super) margin: Row<f64>,
    /// Tokens that chose an expert once more, and the expert.
    pub(super) repeats: Vec<(usize, u64)>,
}

impl Choices {
    pub(super) fn new(k: usize) -> Self {
        Self {
            empty: 0,
            slots: Slots::new(k),
            keys: vec![[0; TILE]; k],
            ids: vec![[0; TILE]; k],
            marks: vec![[0; TILE]; k],
            ranks: vec![[0; TILE]; k],
            shares: vec![[0.0; TILE]; k],
            logs: vec![[0.0; TILE]; k],
            chosen: [0; TILE],
            first: [0; TILE],
            shared: [false; TILE],
            entropy: [0.0; TILE],
            margin: [0.0; TILE],
            repeats: Vec::new(),
        }
    }

    /// Reads one side of the first [`TILE`] of some pairs; false where a value is not accepted.
    #[inline(always)]
    pub(super) fn load(&mut self, side: &Side<'_>, layer: (usize, &Layer), pairs: Range<usize>, empty: u64) -> bool {
        let (index, rules) = layer;
        self.empty = empty;
        let len = pairs.len().min(TILE);
        // Rows of pairs after these may not have been found to be those of the trace.
        let row = |t: usize| side.row((pairs.start + t).min(pairs.end - 1));
        self.slots.read_ids(&side.expert_ids, index, len, row);
        if !self.slots.ids_are_good(rules) {
            return false;
        }
        self.sort();
        let experts = rules.active_experts() as u32;
        self.chosen = [0; TILE];
        for ((keys, ids), marks) in self.keys.iter().zip(&mut self.ids).zip(&mut self.marks) {
            for t in 0..TILE {
                let id = keys[t] >> 16;
                let filled = id < experts;
                ids[t] = if filled { u64::from(id) } else { empty };
                marks[t] = u64::from(filled);
                self.chosen[t] += marks[t];
            }
        }
        if let Some(weights) = &side.expert_weights {
            self.slots.read_weights(weights, index, len, row, Some(&self.keys));
            if !self.weigh(rules.signed_weights) {
                return false;
            }
            self.rank();
        }
        self.find_repeats();
        if side.expert_weights.is_some() {
            self.share();
        }
        true
    }

    /// Sorts the ids of each token, and knows which slots they came from.
    #[inline(always)]
    fn sort(&mut self) {
        for (slot, (keys, raw)) in self.keys.iter_mut().zip(&self.slots.ids).enumerate() {
            for t in 0..TILE {
                keys[t] = u32::from(raw[t] as u16) << 16 | slot as u32;
            }
        }
        sort(&mut self.keys);
    }

    /// Clears the weights of empty slots and works out which tokens have shares; false if a weight is not accepted.
    #[inline(always)]
    fn weigh(&mut self, signed: bool) -> bool {
        let lowest = if signed { f64::MIN } else { 0.0 };
        let mut bad = false;
        let mut least: Row<f64> = [0.0; TILE];
        let mut sum: Row<f64> = [0.0; TILE];
        for ((weights, keys), marks) in self.slots.weights.iter_mut().zip(&self.keys).zip(&self.marks) {
            for t in 0..TILE {
                let weight = weights[t];
                // The other way round, NaN would pass. Those of passive experts are looked at, too.
                let accepted = (weight >= lowest) & (weight <= f64::MAX);
                bad |= (keys[t] >> 16 != NOTHING) & !accepted;
                let weight = if marks[t] == CHOSEN { weight } else { 0.0 };
                weights[t] = weight;
                sum[t] += weight;
                least[t] = if weight < least[t] { weight } else { least[t] };
            }
        }
        for t in 0..TILE {
            self.shared[t] = (sum[t] > 0.0) & (least[t] >= 0.0);
        }
        !bad
    }

    /// How many slots come before each: those with a larger weight, and lower ones with the same.
    #[inline(always)]
    fn rank(&mut self) {
        let k = self.ids.len();
        self.ranks.fill([0; TILE]);
        for j in 1..k {
            for i in 0..j {
                let (low, high) = self.ranks.split_at_mut(j);
                let (rank_i, rank_j) = (&mut low[i], &mut high[0]);
                for t in 0..TILE {
                    let (a, b) = (self.slots.weights[i][t], self.slots.weights[j][t]);
                    let lower = (self.keys[i][t] & 0xffff) < (self.keys[j][t] & 0xffff);
                    // Empty slots come last, whatever the weights.
                    let first = (self.marks[j][t] == 0) | (a > b) | ((a == b) & lower);
                    rank_j[t] += u64::from(first);
                    rank_i[t] += u64::from(!first);
                }
            }
        }
        self.first = [0; TILE];
        for ((ranks, marks), ids) in self.ranks.iter().zip(&mut self.marks).zip(&self.ids) {
            for t in 0..TILE {
                self.first[t] += if ranks[t] == 0 { ids[t] } else { 0 };
                let top = (ranks[t] < TOP as u64) & (marks[t] == CHOSEN);
                marks[t] |= if top { AT_TOP } else { 0 };
            }
        }
    }

    /// Makes one choice of those of an expert that a token chose more than once.
    #[inline(always)]
    fn find_repeats(&mut self) {
        self.repeats.clear();
        let mut repeating: Row<u64> = [0; TILE];
        let mut any = 0;
        for pair in self.ids.windows(2) {
            for t in 0..TILE {
                let same = u64::from((pair[0][t] == pair[1][t]) & (pair[0][t] != self.empty));
                repeating[t] |= same;
                any |= same;
            }
        }
        if any != 0 {
            (0..TILE).filter(|&t| repeating[t] != 0).for_each(|t| self.merge(t));
        }
    }

    /// Leaves each expert of a token its first place, the sum of its weights and the best of its ranks.
    fn merge(&mut self, t: usize) {
        let k = self.ids.len();
        let mut kept = 0;
        for j in 1..k {
            let id = self.ids[j][t];
            if id == self.empty {
                break;
            }
            if id != self.ids[kept][t] {
                kept = j;
                continue;
            }
            self.slots.weights[kept][t] += self.slots.weights[j][t];
            self.ranks[kept][t] = self.ranks[kept][t].min(self.ranks[j][t]);
            self.slots.weights[j][t] = 0.0;
            self.ids[j][t] = self.empty;
            self.marks[j][t] = 0;
            self.chosen[t] -= 1;
            self.repeats.push((t, id));
        }
        for j in (0..k).filter(|&j| self.marks[j][t] != 0).collect::<Vec<_>>() {
            let before = |i: &usize| self.marks[*i][t] != 0 && self.ranks[*i][t] < self.ranks[j][t];
            let top = (0..k).filter(before).count() < TOP;
            self.marks[j][t] = if top { CHOSEN | AT_TOP } else { CHOSEN };
        }
    }

    /// Divides weights by their sum, and works out how they are spread.
    #[inline(always)]
    fn share(&mut self) {
        let mut inverse: Row<f64> = [0.0; TILE];
        for weights in &self.slots.weights {
            for t in 0..TILE {
                inverse[t] += weights[t];
            }
        }
        for t in 0..TILE {
            inverse[t] = if self.shared[t] { 1.0 / inverse[t] } else { 0.0 };
        }
        let (mut largest, mut second): (Row<f64>, Row<f64>) = ([0.0; TILE], [0.0; TILE]);
        self.entropy = [0.0; TILE];
        for ((weights, shares), logs) in self.slots.weights.iter().zip(&mut self.shares).zip(&mut self.logs) {
            for t in 0..TILE {
                let share = weights[t] * inverse[t];
                shares[t] = share;
                // 0 ln 0 = 0: the logarithm of 0 is finite here.
                logs[t] = share * ln(share);
                self.entropy[t] -= logs[t];
                let lesser = if share < largest[t] { share } else { largest[t] };
                second[t] = if lesser > second[t] { lesser } else { second[t] };
                largest[t] = if share > largest[t] { share } else { largest[t] };
            }
        }
        for t in 0..TILE {
            // Rounding may put the entropy of a single expert below 0.
            self.entropy[t] = if self.entropy[t] > 0.0 { self.entropy[t] } else { 0.0 };
            self.margin[t] = largest[t] - second[t];
        }
    }
}
