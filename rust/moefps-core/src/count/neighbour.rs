//! How much a token's choice is like that of the token before it.
//!
//! Both are small sets of experts. Each expert remembers by which token it was last chosen, and with which share, so
//! the experts that two neighbours have in common are found in as many steps as a token has slots.

use super::Trace;
use super::state::LayerState;
use super::tile::Tile;

/// When an expert was last chosen.
#[derive(Clone, Copy, Debug, Default)]
struct Stamp {
    share: f64,
    token: u32,
}

/// What is remembered of the token before.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    stamps: Vec<Stamp>,
    token: u32,
    group: usize,
    /// Experts that it chose.
    chosen: u16,
    first: u16,
    shared: bool,
    /// Σ |ŵ|
    norm: f64,
}

impl Trail {
    pub(super) fn new(width: usize) -> Self {
        Self {
            stamps: vec![Stamp::default(); width],
            token: 0,
            group: 0,
            chosen: 0,
            first: 0,
            shared: false,
            norm: 0.0,
        }
    }

    /// Starts anew: the next token has no neighbour.
    pub(super) fn forget(&mut self) {
        self.stamps.fill(Stamp::default());
        // Stamps of token 0 are no one's neighbour's.
        self.token = 1;
        self.chosen = 0;
    }
}

/// Sums over the pairs of neighbours of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Neighbours {
    pub(super) pairs: u64,
    pub(super) same_first: u64,
    pub(super) any_common: u64,
    pub(super) common: u64,
    pub(super) jaccard: f64,
    /// 1 - TV(ŵ, ŵ')
    pub(super) locality: f64,
    /// Pairs that are not in that sum.
    pub(super) without_shares: u64,
}

impl Neighbours {
    pub(super) fn merge(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.same_first += other.same_first;
        self.any_common += other.any_common;
        self.common += other.common;
        self.jaccard += other.jaccard;
        self.locality += other.locality;
        self.without_shares += other.without_shares;
    }
}

/// Remembers the one token of a tile, whose own neighbours are counted elsewhere.
pub(super) fn look_at(tile: &Tile, trace: &Trace<'_>, layer: usize, state: &mut LayerState) {
    state.forget_neighbour();
    if let Some(trail) = &mut state.trail {
        let group = tile.runs[0].1;
        let signed = trace.layers[layer].signed_weights;
        let weighted = trace.expert_weights.is_some();
        let kind = (weighted, signed);
        add(tile, 0..1, &[false], group, kind, trail);
    }
}

/// Adds the pairs of each token of a tile and the one before it.
#[inline(always)]
pub(super) fn count(tile: &Tile, trace: &Trace<'_>, layer: usize, state: &mut LayerState) {
    let (Some(trail), Some(follows)) = (&mut state.trail, trace.follows) else { return };
    let follows = &follows[tile.first_row..][..tile.len];
    let kind = (trace.expert_weights.is_some(), trace.layers[layer].signed_weights);
    for (tokens, group) in &tile.runs {
        state.neighbours[*group].merge(&add(tile, tokens.clone(), follows, *group, kind, trail));
    }
}

#[inline(always)]
fn add(
    tile: &Tile,
    tokens: std::ops::Range<usize>,
    follows: &[bool],
    group: usize,
    kind: (bool, bool),
    trail: &mut Trail,
) -> Neighbours {
    match kind {
        (false, _) => add_tokens::<false, false>(tile, tokens, follows, group, trail),
        (true, false) => add_tokens::<true, false>(tile, tokens, follows, group, trail),
        (true, true) => add_tokens::<true, true>(tile, tokens, follows, group, trail),
    }
}

#[inline(always)]
fn add_tokens<const WEIGHTED: bool, const SIGNED: bool>(
    tile: &Tile,
    tokens: std::ops::Range<usize>,
    follows: &[bool],
    group: usize,
    trail: &mut Trail,
) -> Neighbours {
    let mut sums = Neighbours::default();
    let empty = usize::from(tile.experts);
    for t in tokens {
        let (before, now) = (trail.token, trail.token + 1);
        let (mut common, mut overlap, mut norm) = (0u32, 0.0, 0.0);
        for (ids, weights) in tile.ids.iter().zip(&tile.slots.weights) {
            let stamp = &mut trail.stamps[usize::from(ids[t])];
            let share = if WEIGHTED { weights[t] * tile.inverse[t] } else { 0.0 };
            let both = stamp.token == before;
            common += u32::from(both);
            if WEIGHTED {
                let shared = if SIGNED { signed_overlap(share, stamp.share) } else { smaller(share, stamp.share) };
                overlap += if both { shared } else { 0.0 };
            }
            if SIGNED {
                norm += share.abs();
            }
            *stamp = Stamp { share, token: now };
        }
        // Empty slots have nothing in common.
        trail.stamps[empty].token = 0;
        let (chosen, first, shared) = (tile.chosen[t], tile.first[t], tile.inverse[t] != 0.0);
        let pair = follows[t] & (trail.chosen > 0) & (chosen > 0) & (trail.group == group);
        if pair {
            sums.pairs += 1;
            sums.any_common += u64::from(common > 0);
            sums.common += u64::from(common);
            let union = u32::from(chosen) + u32::from(trail.chosen) - common;
            sums.jaccard += f64::from(common) / f64::from(union);
            if WEIGHTED {
                sums.same_first += u64::from(first == trail.first);
                let counted = shared & trail.shared;
                // Σ |ŵ| is 1 but where weights are negative.
                let apart = if SIGNED { 1.0 - (norm + trail.norm) / 2.0 } else { 0.0 };
                sums.locality += if counted { apart + overlap } else { 0.0 };
                sums.without_shares += u64::from(!counted);
            }
        }
        (trail.token, trail.group, trail.chosen) = (now, group, chosen);
        (trail.first, trail.shared, trail.norm) = (first, shared, norm);
    }
    sums
}

/// `(|a| + |b| - |a - b|) / 2` of two numbers that are not negative.
#[inline(always)]
fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// `(|a| + |b| - |a - b|) / 2`
#[inline(always)]
fn signed_overlap(a: f64, b: f64) -> f64 {
    if a * b > 0.0 { smaller(a.abs(), b.abs()) } else { 0.0 }
}
