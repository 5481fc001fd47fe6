//! Activations of the experts in the slots of tokens, many tokens at once.

use half::f16;
use ndarray::{ArrayView3, s};

use super::check::{Wrong, expert_in};
use super::state::LayerState;
use super::{Chosen, Request, Source};
use crate::l1::{for_each_simd, lanes::Lanes, prefetch};
use crate::sample::Values;

/// Tokens of a tile.
pub(super) const TILE: usize = 128;
/// Rows that are asked for before they are read.
const ROWS_AHEAD: usize = 16;
/// What is asked for of such a row.
const LINE_BYTES: usize = 64;

/// A value for each token.
type Row<T> = [T; TILE];

/// Some tokens of one layer, slot by slot.
pub(super) struct Tile {
    len: usize,
    /// Ids as they were read; -1 past the last token.
    raw: Vec<Row<i16>>,
    /// Ids of filled slots; the number of experts in the others, and where an expert was met in an earlier slot.
    ids: Vec<Row<u16>>,
    /// Weights, then activations, then those that count.
    values: Vec<Row<f64>>,
    halves: Vec<Row<f16>>,
    singles: Vec<Row<f32>>,
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
            len: 0,
            raw: vec![[-1; TILE]; slots],
            ids: vec![[0; TILE]; slots],
            values: vec![[0.0; TILE]; slots],
            halves: vec![[f16::ZERO; TILE]; slots],
            singles: vec![[0.0; TILE]; slots],
            filled: [false; TILE],
            sum: [0.0; TILE],
            bins: vec![[0; TILE]; slots],
        }
    }
}

for_each_simd! {
    /// Adds some rows of a layer; returns the first value that is not accepted.
    pub(super) fn add_rows(request: &Request<'_>, chosen: &Chosen, rows: std::ops::Range<usize>, tile: &mut Tile, state: &mut LayerState) -> Option<Wrong> = add_rows_with;
}

#[inline(always)]
unsafe fn add_rows_with<L: Lanes>(
    _: L,
    request: &Request<'_>,
    chosen: &Chosen,
    rows: std::ops::Range<usize>,
    tile: &mut Tile,
    state: &mut LayerState,
) -> Option<Wrong> {
    let Source::Slots { expert_ids, expert_weights, renormalized } = request.source else { return None };
    for start in rows.clone().step_by(TILE) {
        let rows = start..rows.end.min(start + TILE);
        tile.load(&expert_ids, &expert_weights, chosen.index, rows.clone());
        if !tile.is_good(chosen) {
            return Some(tile.first_wrong(chosen, start));
        }
        tile.weigh(chosen.layer.active_experts() as u16);
        tile.merge_repeats(chosen.layer.active_experts() as u16);
        if renormalized {
            tile.renormalize();
        }
        tile.values.iter_mut().zip(&mut tile.bins).for_each(|(values, bins)| state.classify(values, bins));
        for (tokens, group) in request.runs(rows) {
            for t in tokens.clone().filter(|&t| tile.filled[t]) {
                state.see(group, !renormalized || tile.sum[t] != 0.0);
            }
            for slot in 0..tile.ids.len() {
                let (ids, counted, bins) = (&tile.ids[slot], &tile.values[slot], &tile.bins[slot]);
                state.add_many(group, &ids[tokens.clone()], &counted[tokens.clone()], &bins[tokens.clone()]);
            }
        }
    }
    None
}

impl Tile {
    #[inline(always)]
    fn load(&mut self, ids: &ArrayView3<'_, i16>, weights: &Values<'_>, layer: usize, rows: std::ops::Range<usize>) {
        self.len = rows.len();
        self.raw.iter_mut().for_each(|raw| raw[rows.len()..].fill(-1));
        gather(ids, layer, rows.clone(), &mut self.raw);
        match weights {
            Values::F16(weights) => {
                gather(weights, layer, rows, &mut self.halves);
                for (to, from) in self.values.iter_mut().zip(&self.halves) {
                    for t in 0..TILE {
                        to[t] = widen(from[t]);
                    }
                }
            }
            Values::F32(weights) => {
                gather(weights, layer, rows, &mut self.singles);
                for (to, from) in self.values.iter_mut().zip(&self.singles) {
                    for t in 0..TILE {
                        to[t] = f64::from(from[t]);
                    }
                }
            }
            Values::F64(weights) => gather(weights, layer, rows, &mut self.values),
        }
    }

    /// Whether every id is of an expert or empty, and every weight of a filled slot is accepted.
    #[inline(always)]
    fn is_good(&self, chosen: &Chosen) -> bool {
        let lowest = if chosen.layer.signed_weights { f64::MIN } else { 0.0 };
        let mut bad = false;
        for (slot, (raw, values)) in self.raw.iter().zip(&self.values).enumerate() {
            let mut largest = 0;
            for t in 0..TILE {
                // An empty slot's -1 becomes 0, and what is below it the largest numbers.
                largest = largest.max((raw[t] as u16).wrapping_add(1));
                // The other way round, NaN would pass.
                let accepted = (values[t] >= lowest) & (values[t] <= f64::MAX);
                bad |= (raw[t] >= 0) & !accepted;
            }
            bad |= usize::from(largest) > if slot < chosen.layer.top_k { chosen.layer.n_experts } else { 0 };
        }
        !bad
    }

    #[cold]
    fn first_wrong(&self, chosen: &Chosen, first_row: usize) -> Wrong {
        for t in 0..self.len {
            for (slot, (raw, values)) in self.raw.iter().zip(&self.values).enumerate() {
                match expert_in(slot, raw[t], chosen) {
                    Err(()) => return Wrong::id(first_row + t, chosen, slot, raw[t]),
                    Ok(Some(_)) if !weight_is_good(chosen, values[t]) => {
                        return Wrong::number(first_row + t, chosen, slot, values[t]);
                    }
                    Ok(_) => {}
                }
            }
        }
        // What is past the last token is good.
        Wrong::id(first_row, chosen, 0, self.raw[0][0])
    }

    /// Tells filled slots, and sums their weights.
    #[inline(always)]
    fn weigh(&mut self, experts: u16) {
        self.sum = [0.0; TILE];
        self.filled = [false; TILE];
        for ((ids, raw), values) in self.ids.iter_mut().zip(&self.raw).zip(&self.values) {
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
                self.values[earlier][t] += self.values[later][t];
                self.ids[later][t] = experts;
            }
        }
    }

    /// Divides the weights of each token by their sum; where that is 0, no slot is left.
    #[inline(always)]
    fn renormalize(&mut self) {
        for (ids, values) in self.ids.iter_mut().zip(&mut self.values) {
            for t in 0..TILE {
                ids[t] = if self.sum[t] == 0.0 { u16::MAX } else { ids[t] };
                values[t] /= self.sum[t];
            }
        }
    }
}

fn weight_is_good(chosen: &Chosen, weight: f64) -> bool {
    weight.is_finite() && (chosen.layer.signed_weights || weight >= 0.0)
}

/// Copies rows of a layer, turned so that slots lie after each other.
#[inline(always)]
fn gather<T: Copy>(from: &ArrayView3<'_, T>, layer: usize, rows: std::ops::Range<usize>, to: &mut [Row<T>]) {
    let (tokens, layers, k) = from.dim();
    let Some(all) = from.as_slice() else {
        for (t, row) in from.slice(s![rows, layer, ..]).outer_iter().enumerate() {
            to.iter_mut().zip(row).for_each(|(to, &value)| to[t] = value);
        }
        return;
    };
    let last = tokens - 1 - rows.start;
    for t in 0..rows.len() {
        // The rows of a layer lie further apart than the processor looks ahead by itself.
        let ahead = ((rows.start + (t + ROWS_AHEAD).min(last)) * layers + layer) * k;
        prefetch(&all[ahead..all.len().min(ahead + LINE_BYTES / size_of::<T>())]);
        let row = &all[((rows.start + t) * layers + layer) * k..][..k];
        to.iter_mut().zip(row).for_each(|(to, &value)| to[t] = value);
    }
}

/// A half as a double, without a branch or a table, so that many are done at once.
#[inline(always)]
fn widen(half: f16) -> f64 {
    let bits = u32::from(half.to_bits());
    // The exponent's bias differs by 112; what infinity and NaN become is not finite either.
    let magnitude = (bits & 0x7fff) << 13;
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let value = if magnitude >= 0x7c00 << 13 { f32::from_bits(magnitude | 0x7f80_0000) } else { finite };
    f64::from(f32::from_bits(value.to_bits() | (bits & 0x8000) << 16))
}
