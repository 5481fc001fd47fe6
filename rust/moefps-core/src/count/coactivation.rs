//! Which experts are chosen together.

use super::state::LayerState;
use super::tile::Tile;
use super::{Coactivation, Trace};
use crate::tile::{Row, TILE};

/// Counts every pair of experts that a token chooses, the lower one first.
#[inline(always)]
pub(super) fn count(tile: &Tile, trace: &Trace<'_>, state: &mut LayerState) {
    match trace.coactivation {
        Coactivation::None => {}
        Coactivation::Whole => count_tokens(tile, 0..tile.len, state.width, &mut state.pairs),
        Coactivation::ByGroup => {
            let cells = state.width * state.width;
            for (tokens, group) in &tile.runs {
                count_tokens(tile, tokens.clone(), state.width, &mut state.pairs[group * cells..][..cells]);
            }
        }
    }
}

#[inline(always)]
fn count_tokens(tile: &Tile, tokens: std::ops::Range<usize>, width: usize, pairs: &mut [u32]) {
    let mut rows: Row<u32> = [0; TILE];
    let mut cells: Row<u32> = [0; TILE];
    for low in 0..tile.k {
        for t in 0..TILE {
            rows[t] = u32::from(tile.sorted[low][t]) * width as u32;
        }
        for high in low + 1..tile.k {
            // Computed ahead, many at once: what is left to do one by one is the counting.
            for t in 0..TILE {
                cells[t] = rows[t] + u32::from(tile.sorted[high][t]);
            }
            cells[tokens.clone()].iter().for_each(|&cell| pairs[cell as usize] += 1);
        }
    }
}
