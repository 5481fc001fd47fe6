//! One token's row of a layer: whom it chose and its logits, as doubles.

use ndarray::{ArrayView3, Axis};

use super::{Logits, Trace};
use crate::count::tile::widen;
use crate::l1::prefetch;

/// Rows are taken in blocks, the last of them filled up with experts that have no part in anything.
pub(super) const BLOCK: usize = 8;
/// Experts beside each other.
pub(super) type Block = [f64; BLOCK];
/// Rows that are asked for before they are read.
const ROWS_AHEAD: usize = 4;
/// What is asked for of a row, at least.
const LINE_BYTES: usize = 64;

/// What of a row is worked on.
pub(super) struct Parts<'a> {
    pub(super) logits: &'a [Block],
    pub(super) passive: &'a [Block],
    pub(super) scores: &'a mut [Block],
    pub(super) terms: &'a mut [Block],
}

/// Room for a row.
#[derive(Debug)]
pub(super) struct Row {
    logits: Vec<Block>,
    passive: Vec<Block>,
    scores: Vec<Block>,
    terms: Vec<Block>,
    /// Experts of the layer, without passive ones.
    pub(super) experts: usize,
    passive_experts: usize,
    /// Experts that it chose, each once, without passive ones.
    pub(super) chosen: Vec<usize>,
}

impl Row {
    pub(super) fn new(columns: usize) -> Self {
        let room = vec![[0.0; BLOCK]; columns.div_ceil(BLOCK)];
        Self {
            logits: room.clone(),
            passive: room.clone(),
            scores: room.clone(),
            terms: room,
            experts: 0,
            passive_experts: 0,
            chosen: Vec::new(),
        }
    }

    /// Logits of the experts; -inf where a block is filled up.
    #[inline(always)]
    pub(super) fn logits(&self) -> &[Block] {
        &self.logits[..self.experts.div_ceil(BLOCK)]
    }

    /// Logits of the passive experts.
    #[inline(always)]
    pub(super) fn passive(&self) -> &[Block] {
        &self.passive[..self.passive_experts.div_ceil(BLOCK)]
    }

    /// Logits of the experts and of the passive ones, their scores, and room for one more number of each.
    #[inline(always)]
    pub(super) fn parts(&mut self) -> Parts<'_> {
        let (n, passive) = (self.experts.div_ceil(BLOCK), self.passive_experts.div_ceil(BLOCK));
        Parts {
            logits: &self.logits[..n],
            passive: &self.passive[..passive],
            scores: &mut self.scores[..n],
            terms: &mut self.terms,
        }
    }

    /// Logits of experts and passive ones, without what fills up the blocks.
    pub(super) fn all(&self) -> impl Iterator<Item = f64> {
        let ours = &self.logits.as_flattened()[..self.experts];
        ours.iter().chain(&self.passive.as_flattened()[..self.passive_experts]).copied()
    }

    /// Finds out whom a token chose, and whether any of its slots is filled, be it by a passive expert; or the first slot
    /// whose id is not accepted.
    #[inline(always)]
    pub(super) fn choose(&mut self, trace: &Trace<'_>, layer: usize, token: usize) -> Result<bool, usize> {
        let rules = &trace.layers[layer];
        self.chosen.clear();
        let mut filled = false;
        for slot in 0..trace.expert_ids.dim().2 {
            let id = trace.expert_ids[[token, layer, slot]];
            if id == -1 {
                continue;
            }
            let Some(id) = usize::try_from(id).ok().filter(|&id| id < rules.n_experts && slot < rules.top_k) else {
                return Err(slot);
            };
            filled = true;
            if id < rules.active_experts() && !self.chosen.contains(&id) {
                self.chosen.push(id);
            }
        }
        Ok(filled)
    }

    /// Reads a token's logits.
    #[inline(always)]
    pub(super) fn load(&mut self, trace: &Trace<'_>, layer: usize, token: usize) {
        let rules = &trace.layers[layer];
        (self.experts, self.passive_experts) = (rules.active_experts(), rules.passive_experts);
        let (logits, passive) = (self.logits.as_flattened_mut(), self.passive.as_flattened_mut());
        let logits = &mut logits[..rules.active_experts().next_multiple_of(BLOCK)];
        let passive = &mut passive[..rules.passive_experts.next_multiple_of(BLOCK)];
        let n = rules.n_experts;
        match &trace.router_logits {
            Logits::F16(from) => match row_of(from, layer, token) {
                Some(row) => fill(&row[..n], widen, self.experts, logits, passive),
                None => pick(|column| from[[token, layer, column]].to_f64(), self.experts, n, logits, passive),
            },
            Logits::F32(from) => match row_of(from, layer, token) {
                Some(row) => fill(&row[..n], f64::from, self.experts, logits, passive),
                None => pick(|column| from[[token, layer, column]].into(), self.experts, n, logits, passive),
            },
        }
        logits[self.experts..].fill(f64::NEG_INFINITY);
        passive[self.passive_experts..].fill(f64::NEG_INFINITY);
    }
}

/// A row that lies in one piece, as those of a file do.
#[inline(always)]
fn row_of<'a, T>(from: &ArrayView3<'a, T>, layer: usize, token: usize) -> Option<&'a [T]> {
    let (tokens, layers, columns) = from.dim();
    let Some(all) = from.to_slice() else {
        return (*from).index_axis_move(Axis(0), token).index_axis_move(Axis(0), layer).to_slice();
    };
    // The rows of a layer lie further apart than the processor looks ahead by itself.
    let ahead = ((token + ROWS_AHEAD).min(tokens - 1) * layers + layer) * columns;
    prefetch(&all[ahead..all.len().min(ahead + columns.max(LINE_BYTES / size_of::<T>()))]);
    Some(&all[(token * layers + layer) * columns..][..columns])
}

#[inline(always)]
fn fill<T: Copy>(from: &[T], widen: impl Fn(T) -> f64, experts: usize, logits: &mut [f64], passive: &mut [f64]) {
    let (ours, idle) = from.split_at(experts);
    logits.iter_mut().zip(ours).for_each(|(to, &x)| *to = widen(x));
    passive.iter_mut().zip(idle).for_each(|(to, &x)| *to = widen(x));
}

/// [`fill`], one by one.
fn pick(from: impl Fn(usize) -> f64, experts: usize, n: usize, logits: &mut [f64], passive: &mut [f64]) {
    logits.iter_mut().zip(0..experts).for_each(|(to, column)| *to = from(column));
    passive.iter_mut().zip(experts..n).for_each(|(to, column)| *to = from(column));
}
