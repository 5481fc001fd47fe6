//! Some tokens of one layer, slot by slot, so that what is done to each token is done to many at once.

use half::f16;
use ndarray::{ArrayView3, s};

use super::state::LayerState;
use super::{Layer, Trace, Weights};
use crate::l1::prefetch;

/// Tokens of a tile.
pub(crate) const TILE: usize = 128;
/// Rows that are asked for before they are read.
const ROWS_AHEAD: usize = 16;
/// What is asked for of such a row.
const LINE_BYTES: usize = 64;

/// A value for each token.
pub(crate) type Row<T> = [T; TILE];

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
    /// Ids as they were read.
    pub(super) raw: Vec<Row<i16>>,
    /// Ids of filled slots, [`Self::experts`] in the others.
    pub(super) ids: Vec<Row<u16>>,
    /// Ids of each token ascending, so that those of empty slots come last; each once, after [`Self::merge_repeats`].
    pub(super) sorted: Vec<Row<u16>>,
    /// Weights of filled slots, 0 in the others.
    pub(super) weights: Vec<Row<f64>>,
    halves: Vec<Row<f16>>,
    singles: Vec<Row<f32>>,
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
    /// Groups of tokens beside each other: where they end, and which it is.
    pub(super) runs: Vec<(usize, usize)>,
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
            raw: vec![[-1; TILE]; k],
            ids: vec![[0; TILE]; k],
            sorted: vec![[0; TILE]; k],
            weights: vec![[0.0; TILE]; k],
            halves: vec![[f16::ZERO; TILE]; k],
            singles: vec![[0.0; TILE]; k],
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
    pub(super) fn load(&mut self, trace: &Trace<'_>, layer: usize, rows: std::ops::Range<usize>) {
        self.first_row = rows.start;
        self.len = rows.len();
        // A layer's experts fit into 15 bits.
        self.experts = trace.layers[layer].active_experts() as u16;
        for raw in &mut self.raw {
            raw[rows.len()..].fill(-1);
        }
        gather(&trace.expert_ids, layer, rows.clone(), &mut self.raw);
        self.filled = [0; TILE];
        for (ids, raw) in self.ids.iter_mut().zip(&self.raw) {
            for t in 0..TILE {
                // An empty slot's -1 is the largest number without a sign.
                ids[t] = (raw[t] as u16).min(self.experts);
                self.filled[t] += u16::from(ids[t] < self.experts);
            }
        }
        self.chosen = self.filled;
        match &trace.expert_weights {
            None => {}
            Some(Weights::F16(weights)) => {
                gather(weights, layer, rows.clone(), &mut self.halves);
                for (to, from) in self.weights.iter_mut().zip(&self.halves) {
                    for t in 0..TILE {
                        to[t] = widen(from[t]);
                    }
                }
            }
            Some(Weights::F32(weights)) => {
                gather(weights, layer, rows.clone(), &mut self.singles);
                for (to, from) in self.weights.iter_mut().zip(&self.singles) {
                    for t in 0..TILE {
                        to[t] = f64::from(from[t]);
                    }
                }
            }
        }
        self.find_runs(trace, rows);
    }

    #[inline(always)]
    fn find_runs(&mut self, trace: &Trace<'_>, rows: std::ops::Range<usize>) {
        self.runs.clear();
        let len = rows.len();
        if let Some(groups) = trace.groups {
            let ids = &groups.ids[rows];
            for t in 1..len {
                if ids[t] != ids[t - 1] {
                    self.runs.push((t, ids[t - 1] as usize));
                }
            }
            self.runs.push((len, ids[len - 1] as usize));
        } else {
            self.runs.push((len, 0));
        }
    }

    /// Whether every id is of an expert or empty, and slots that the layer does not have are empty.
    #[inline(always)]
    pub(super) fn ids_are_good(&self, layer: &Layer) -> bool {
        let mut good = true;
        for (slot, raw) in self.raw.iter().enumerate() {
            let mut largest = 0;
            for &id in raw {
                largest = largest.max((id as u16).wrapping_add(1));
            }
            good &= usize::from(largest) <= if slot < layer.top_k { layer.n_experts } else { 0 };
        }
        good
    }

    /// Sorts the ids of each token, and says whether any token chooses an expert twice.
    #[inline(always)]
    pub(super) fn find_repeats(&mut self, state: &LayerState) -> bool {
        let k = self.k;
        self.sorted.copy_from_slice(&self.ids);
        // A network of neighbours: as many rounds as slots put any order right.
        for round in 0..k {
            for j in (round % 2..k - 1).step_by(2) {
                let (low, high) = self.sorted.split_at_mut(j + 1);
                let (low, high) = (&mut low[j], &mut high[0]);
                for t in 0..TILE {
                    let (a, b) = (low[t], high[t]);
                    low[t] = a.min(b);
                    high[t] = a.max(b);
                }
            }
        }
        debug_assert_eq!(state.experts, usize::from(self.experts));
        self.repeating = [false; TILE];
        let mut any = false;
        for j in 1..k {
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
        let mut start = 0;
        for (stop, group) in self.runs.clone() {
            for t in (start..stop).filter(|&t| self.repeating[t]).collect::<Vec<_>>() {
                self.merge_token(t, |id| {
                    if count {
                        state.add_repeat(group, id)
                    }
                });
            }
            start = stop;
        }
    }

    fn merge_token(&mut self, t: usize, mut repeated: impl FnMut(usize)) {
        for slot in 1..self.k {
            let id = self.ids[slot][t];
            if id < self.experts
                && let Some(earlier) = (0..slot).find(|&earlier| self.ids[earlier][t] == id)
            {
                self.weights[earlier][t] += self.weights[slot][t];
                self.weights[slot][t] = 0.0;
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

/// Copies rows of a layer, turned so that slots lie after each other.
#[inline(always)]
fn gather<T: Copy>(from: &ArrayView3<'_, T>, layer: usize, rows: std::ops::Range<usize>, to: &mut [Row<T>]) {
    let (_, layers, k) = from.dim();
    let Some(all) = from.as_slice() else {
        for (t, row) in from.slice(s![rows, layer, ..]).outer_iter().enumerate() {
            to.iter_mut().zip(row).for_each(|(to, &value)| to[t] = value);
        }
        return;
    };
    let last = from.dim().0 - 1 - rows.start;
    let row = |t: usize| {
        // The rows of a layer lie further apart than the processor looks ahead by itself.
        let ahead = ((rows.start + (t + ROWS_AHEAD).min(last)) * layers + layer) * k;
        prefetch(&all[ahead..all.len().min(ahead + LINE_BYTES / size_of::<T>())]);
        &all[((rows.start + t) * layers + layer) * k..][..k]
    };
    match k {
        2 => turn::<T, 2>(row, rows.len(), to),
        4 => turn::<T, 4>(row, rows.len(), to),
        6 => turn::<T, 6>(row, rows.len(), to),
        8 => turn::<T, 8>(row, rows.len(), to),
        10 => turn::<T, 10>(row, rows.len(), to),
        _ => (0..rows.len()).for_each(|t| to.iter_mut().zip(row(t)).for_each(|(to, &value)| to[t] = value)),
    }
}

/// [`gather`] for a number of slots that the compiler knows.
#[inline(always)]
fn turn<'a, T: Copy + 'a, const K: usize>(row: impl Fn(usize) -> &'a [T], len: usize, to: &mut [Row<T>]) {
    let Some(to) = to.first_chunk_mut::<K>() else { return };
    for t in 0..len.min(TILE) {
        if let Some(row) = row(t).first_chunk::<K>() {
            for j in 0..K {
                to[j][t] = row[j];
            }
        }
    }
}

/// A half as a double, without a branch or a table, so that many are done at once.
#[inline(always)]
pub(crate) fn widen(half: f16) -> f64 {
    let bits = u32::from(half.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    // The exponent's bias differs by 112; for infinity and NaN, all its bits are set.
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let value = if magnitude >= 0x7c00 << 13 { special } else { finite };
    f64::from(f32::from_bits(value.to_bits() | (bits & 0x8000) << 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_is_exact() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let (found, expected) = (widen(half), half.to_f64());
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#x}");
        }
    }
}
