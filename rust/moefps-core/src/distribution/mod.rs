//! What one token's router computed in a layer, and the distribution over experts that it stands for.
//!
//! Numbers are widened to doubles, checked, and turned into probabilities (`score`) with functions that are the same on
//! every machine ([`math`](crate::math)).

mod score;

use ndarray::{ArrayView3, Axis, s};

use crate::l1::prefetch;
use crate::sample::Values;
use crate::tile::widen;
use crate::trace::{Layer, NAMES, Scoring, changed, first_wrong};
use crate::{Error, Result};
pub(crate) use score::{largest, two_largest};

/// Rows are taken in blocks, the last of them filled up with experts that have no part in anything.
pub(crate) const BLOCK: usize = 8;
/// Experts beside each other.
pub(crate) type Block = [f64; BLOCK];
/// Rows that are asked for before they are read.
const ROWS_AHEAD: usize = 4;
/// What is asked for of a row, at least.
const LINE_BYTES: usize = 64;

/// Room for a row.
#[derive(Debug)]
pub(crate) struct Row {
    logits: Vec<Block>,
    passive: Vec<Block>,
    scores: Vec<Block>,
    terms: Vec<Block>,
    /// Experts with a part in the distribution.
    experts: usize,
    passive_experts: usize,
    /// Experts that the token chose, each once, without passive ones.
    pub(crate) chosen: Vec<usize>,
}

impl Row {
    pub(crate) fn new(columns: usize) -> Self {
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

    /// What was read, of experts and passive ones.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f64> {
        let ours = &self.logits.as_flattened()[..self.experts];
        ours.iter().chain(&self.passive.as_flattened()[..self.passive_experts]).copied()
    }

    /// Logits of the experts; -inf where a block is filled up.
    #[inline(always)]
    pub(crate) fn logits(&self) -> &[Block] {
        &self.logits[..self.experts.div_ceil(BLOCK)]
    }

    /// Logits of the passive experts.
    #[inline(always)]
    fn passive(&self) -> &[Block] {
        &self.passive[..self.passive_experts.div_ceil(BLOCK)]
    }

    /// Probabilities, after [`Self::distribute`]; 0 where a block is filled up.
    #[inline(always)]
    pub(crate) fn probs(&mut self) -> &mut [Block] {
        &mut self.scores[..self.experts.div_ceil(BLOCK)]
    }

    /// Finds out whom a token chose, and whether any of its slots is filled, be it by a passive expert.
    ///
    /// # Errors
    /// An id that is not accepted.
    #[inline(always)]
    pub(crate) fn choose(&mut self, ids: &ArrayView3<'_, i16>, rules: &Layer, place: [usize; 2]) -> Result<bool> {
        self.chosen.clear();
        let [token, layer] = place;
        let mut filled = false;
        for slot in 0..ids.dim().2 {
            let id = ids[[token, layer, slot]];
            if id == -1 {
                continue;
            }
            if !rules.accepts_id(slot, id) {
                return Err(first_wrong(ids, None, NAMES, rules, place).unwrap_or_else(|| changed(token)));
            }
            filled = true;
            let expert = id as usize;
            if expert < rules.active_experts() && !self.chosen.contains(&expert) {
                self.chosen.push(expert);
            }
        }
        Ok(filled)
    }

    /// Reads the numbers of a token's experts, of which the last, `passive`, have no part in the distribution.
    #[inline(always)]
    pub(crate) fn read(&mut self, from: &Values<'_>, n_experts: usize, passive: usize, place: [usize; 2]) {
        (self.experts, self.passive_experts) = (n_experts - passive, passive);
        match from {
            Values::F16(from) => self.fill(from, widen, place),
            Values::F32(from) => self.fill(from, f64::from, place),
            Values::F64(from) => self.fill(from, |x| x, place),
        }
    }

    #[inline(always)]
    fn fill<T: Copy>(&mut self, from: &ArrayView3<'_, T>, widen: impl Fn(T) -> f64, place: [usize; 2]) {
        let [token, layer] = place;
        let copy;
        let row = match row_of(from, layer, token) {
            Some(row) => row,
            None => {
                copy = from.slice(s![token, layer, ..]).to_vec();
                &copy
            }
        };
        let (ours, passive) = row[..self.experts + self.passive_experts].split_at(self.experts);
        widen_row(ours, &widen, &mut self.logits);
        widen_row(passive, &widen, &mut self.passive);
    }

    /// Looks at the numbers that were read.
    ///
    /// # Errors
    /// The first number that is not accepted, or probabilities that do not sum to 1.
    #[inline(always)]
    pub(crate) fn check(&self, scoring: Scoring, from: &Values<'_>, place: [usize; 2]) -> Result<()> {
        if scoring != Scoring::Probabilities && all_good(self.logits()) && all_good(self.passive()) {
            return Ok(());
        }
        let tolerance = if matches!(from, Values::F16(_)) { 1e-2 } else { 1e-4 };
        self.check_each(scoring, tolerance, place)
    }

    fn check_each(&self, scoring: Scoring, tolerance: f64, [token, layer]: [usize; 2]) -> Result<()> {
        let are_probabilities = scoring == Scoring::Probabilities;
        let (least, accepted) = match are_probabilities {
            true => (0.0, "probabilities, as the layer's scoring says"),
            false => (f64::NEG_INFINITY, "numbers, or minus infinity for a masked expert"),
        };
        let place = || format!("router_logits: token row {token}, layer {layer}");
        if let Some((expert, x)) = self.numbers().enumerate().find(|(_, x)| !(least..f64::INFINITY).contains(x)) {
            return Err(Error::Data(format!("{}, expert {expert} is {x}; accepted: {accepted}", place())));
        }
        let sum: f64 = self.numbers().sum();
        // All zeros stand for none.
        if are_probabilities && sum != 0.0 && (sum - 1.0).abs() > tolerance {
            let accepted = "probabilities that sum to 1, as the layer's scoring says";
            return Err(Error::Data(format!("{} sums to {sum:.6}; accepted: {accepted}", place())));
        }
        Ok(())
    }
}

/// Whether numbers are logits: no NaN and no infinity, but for masked experts.
#[inline(always)]
fn all_good(blocks: &[Block]) -> bool {
    let mut good = [true; BLOCK];
    for block in blocks {
        for i in 0..BLOCK {
            good[i] &= block[i] < f64::INFINITY;
        }
    }
    !good.contains(&false)
}

/// Widens numbers, and fills up the last block with experts that are masked.
#[inline(always)]
fn widen_row<T: Copy>(from: &[T], widen: impl Fn(T) -> f64, to: &mut [Block]) {
    let to = to.as_flattened_mut();
    to.iter_mut().zip(from).for_each(|(to, &x)| *to = widen(x));
    to[from.len()..from.len().next_multiple_of(BLOCK)].fill(f64::NEG_INFINITY);
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
