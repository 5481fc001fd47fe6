//! Tiles: some tokens of one layer, slot by slot, so that what is done to each token is done to many at once.
#![expect(clippy::needless_range_loop, reason = "loops over the tokens of a tile touch several rows at once")]

use half::f16;
use ndarray::{ArrayView3, s};

use crate::l1::prefetch;
use crate::sample::Values;
use crate::trace::Layer;

/// Tokens of a tile.
pub(crate) const TILE: usize = 128;
/// Rows that are asked for before they are read.
const ROWS_AHEAD: usize = 12;
/// What is asked for of such a row.
const LINE_BYTES: usize = 64;

/// A value for each token.
pub(crate) type Row<T> = [T; TILE];

/// Where the values of a token's slots go: to the slot whose number is in the last 16 bits of each.
pub(crate) type Order = [Row<u32>];

/// Ids and weights in the slots of some tokens, as they are read.
pub(crate) struct Slots {
    /// -1 past the last token.
    pub(crate) ids: Vec<Row<i16>>,
    pub(crate) weights: Vec<Row<f64>>,
    halves: Vec<Row<f16>>,
    singles: Vec<Row<f32>>,
}

impl Slots {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            ids: vec![[-1; TILE]; slots],
            weights: vec![[0.0; TILE]; slots],
            halves: vec![[f16::ZERO; TILE]; slots],
            singles: vec![[0.0; TILE]; slots],
        }
    }

    /// Reads the ids of a layer in `len` rows, at most [`TILE`]. `row` numbers them, and says of what comes after them
    /// where to look ahead.
    #[inline(always)]
    pub(crate) fn read_ids(
        &mut self,
        from: &ArrayView3<'_, i16>,
        layer: usize,
        len: usize,
        row: impl Fn(usize) -> usize,
    ) {
        self.ids.iter_mut().for_each(|ids| ids[len..].fill(-1));
        read(from, layer, len, row, None, &mut self.ids);
    }

    /// Reads the weights of a layer in such rows; each token's in an order of their own, where there is one.
    #[inline(always)]
    pub(crate) fn read_weights(
        &mut self,
        from: &Values<'_>,
        layer: usize,
        len: usize,
        row: impl Fn(usize) -> usize,
        order: Option<&Order>,
    ) {
        match from {
            Values::F16(from) => {
                read(from, layer, len, row, order, &mut self.halves);
                convert(&self.halves, &mut self.weights, widen);
            }
            Values::F32(from) => {
                read(from, layer, len, row, order, &mut self.singles);
                convert(&self.singles, &mut self.weights, f64::from);
            }
            Values::F64(from) => read(from, layer, len, row, order, &mut self.weights),
        }
    }

    /// Whether every id is of an expert or empty, and slots that the layer does not have are empty.
    #[inline(always)]
    pub(crate) fn ids_are_good(&self, rules: &Layer) -> bool {
        let mut good = true;
        for (slot, ids) in self.ids.iter().enumerate() {
            let mut largest = 0;
            for &id in ids {
                // An empty slot's -1 becomes 0, and what is below it the largest numbers.
                largest = largest.max((id as u16).wrapping_add(1));
            }
            good &= usize::from(largest) <= if slot < rules.top_k { rules.n_experts } else { 0 };
        }
        good
    }
}

/// Sorts the values of each token over the slots, ascending.
#[inline(always)]
pub(crate) fn sort<T: Copy + Ord>(slots: &mut [Row<T>]) {
    let k = slots.len();
    // A network of neighbours: as many rounds as slots put any order right.
    for round in 0..k {
        for j in (round % 2..k - 1).step_by(2) {
            let (low, high) = slots.split_at_mut(j + 1);
            let (low, high) = (&mut low[j], &mut high[0]);
            for t in 0..TILE {
                let (a, b) = (low[t], high[t]);
                low[t] = a.min(b);
                high[t] = a.max(b);
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

#[inline(always)]
fn convert<T: Copy>(from: &[Row<T>], to: &mut [Row<f64>], widen: impl Fn(T) -> f64) {
    for (to, from) in to.iter_mut().zip(from) {
        for t in 0..TILE {
            to[t] = widen(from[t]);
        }
    }
}

/// Copies the slots of a layer in some rows, turned so that those of a number lie beside each other.
#[inline(always)]
fn read<T: Copy>(
    from: &ArrayView3<'_, T>,
    layer: usize,
    len: usize,
    row: impl Fn(usize) -> usize,
    order: Option<&Order>,
    to: &mut [Row<T>],
) {
    let (_, layers, k) = from.dim();
    let Some(all) = from.as_slice() else {
        for t in 0..len {
            let slots = from.slice(s![row(t), layer, ..]);
            for (j, to) in to.iter_mut().enumerate() {
                to[t] = slots[order.map_or(j, |order| slot_of(order[j][t]))];
            }
        }
        return;
    };
    // Loops and functions rather than closures, which might be compiled for no instruction set in particular.
    let place = (layers, layer, k);
    if let Some(order) = order {
        for t in 0..len {
            let slots = slots_at(all, place, &row, t);
            for (to, keys) in to.iter_mut().zip(order) {
                to[t] = slots[slot_of(keys[t])];
            }
        }
        return;
    }
    match k {
        2 => turn::<T, 2>(all, place, row, len, to),
        4 => turn::<T, 4>(all, place, row, len, to),
        6 => turn::<T, 6>(all, place, row, len, to),
        8 => turn::<T, 8>(all, place, row, len, to),
        10 => turn::<T, 10>(all, place, row, len, to),
        _ => {
            for t in 0..len {
                let slots = slots_at(all, place, &row, t);
                to.iter_mut().zip(slots).for_each(|(to, &value)| to[t] = value);
            }
        }
    }
}

/// The slot that a key stands for.
#[inline(always)]
fn slot_of(key: u32) -> usize {
    (key & 0xffff) as usize
}

/// The slots of a layer in a row, where rows lie beside each other.
#[inline(always)]
fn slots_at<'a, T>(
    all: &'a [T],
    (layers, layer, k): (usize, usize, usize),
    row: &impl Fn(usize) -> usize,
    t: usize,
) -> &'a [T] {
    // The rows of a layer lie further apart than the processor looks ahead by itself.
    let ahead = (row(t + ROWS_AHEAD) * layers + layer) * k;
    prefetch(&all[ahead..all.len().min(ahead + LINE_BYTES / size_of::<T>())]);
    &all[(row(t) * layers + layer) * k..][..k]
}

/// [`read`] for a number of slots that the compiler knows.
#[inline(always)]
fn turn<T: Copy, const K: usize>(
    all: &[T],
    place: (usize, usize, usize),
    row: impl Fn(usize) -> usize,
    len: usize,
    to: &mut [Row<T>],
) {
    let Some(to) = to.first_chunk_mut::<K>() else { return };
    for t in 0..len.min(TILE) {
        if let Some(slots) = slots_at(all, place, &row, t).first_chunk::<K>() {
            for j in 0..K {
                to[j][t] = slots[j];
            }
        }
    }
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
