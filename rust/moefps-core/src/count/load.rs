//! How much each expert gets: choices, first choices and weights.

use super::Trace;
use super::state::LayerState;
use super::tile::Tile;

/// Adds a tile to the histograms of its groups.
#[inline(always)]
pub(super) fn count(tile: &Tile, trace: &Trace<'_>, layer: usize, state: &mut LayerState) {
    let passive = trace.layers[layer].passive_experts > 0;
    for (tokens, group) in &tile.runs {
        count_filled(tile, tokens.clone(), &mut state.filled[group * (tile.k + 1)..][..=tile.k]);
        if passive {
            // Ids were found to be those of experts; the last of them are passive.
            let slots = tile.slots.ids.iter().flat_map(|ids| &ids[tokens.clone()]);
            state.passive[*group] += slots.filter(|&&id| id >= tile.experts as i16).count() as u64;
        }
        let histogram = group * state.width..(group + 1) * state.width;
        count_slots(tile, tokens.clone(), &mut state.activations[histogram.clone()]);
        if trace.expert_weights.is_some() {
            add_weights(tile, tokens.clone(), &mut state.sums[histogram.clone()]);
            let first = &mut state.first[histogram];
            tile.first[tokens.clone()].iter().for_each(|&id| first[usize::from(id)] += 1);
            state.confidence[*group].add(tile, tokens.clone(), &state.inverse_ln);
        }
    }
}

#[inline(always)]
fn count_filled(tile: &Tile, tokens: std::ops::Range<usize>, histogram: &mut [u32]) {
    let filled = &tile.filled[tokens];
    // Mostly all tokens are alike, and counting them one by one would wait for itself.
    let alike = filled[0];
    if filled.iter().fold(true, |same, &n| same & (n == alike)) {
        histogram[usize::from(alike)] += filled.len() as u32;
    } else {
        filled.iter().for_each(|&n| histogram[usize::from(n)] += 1);
    }
}

#[inline(always)]
fn count_slots(tile: &Tile, tokens: std::ops::Range<usize>, histogram: &mut [u32]) {
    for ids in &tile.ids {
        ids[tokens.clone()].iter().for_each(|&id| histogram[usize::from(id)] += 1);
    }
}

#[inline(always)]
fn add_weights(tile: &Tile, tokens: std::ops::Range<usize>, sums: &mut [[f64; 2]]) {
    for (ids, weights) in tile.ids.iter().zip(&tile.slots.weights) {
        let tokens = tokens.clone();
        let inverse = &tile.inverse[tokens.clone()];
        for ((&id, &weight), &inverse) in ids[tokens.clone()].iter().zip(&weights[tokens]).zip(inverse) {
            let [sum, shares] = &mut sums[usize::from(id)];
            *sum += weight;
            *shares += weight * inverse;
        }
    }
}
