//! Some pairs of tokens in one layer, compared.

use std::f64::consts::LN_2;

use super::Comparison;
use super::choice::{AT_TOP, CHOSEN, Choices};
use super::state::{Counts, Sums};
use crate::math::{exp, ln};
use crate::tile::{Row, TILE};

/// Pairs whose values are held in registers while the slots of both sides are matched.
const BLOCK: usize = 8;

/// Room for both sides of a tile, and what the comparison of each pair gave: 0 where the pair does not count.
pub(crate) struct Tile {
    pub(super) a: Choices,
    pub(super) b: Choices,
    weighted: bool,
    /// Pairs that count.
    pub(super) counted: Row<bool>,
    /// Of these, the ones where ŵ is defined on both sides.
    pub(super) shared: Row<bool>,
    pub(super) counts: Counts<Row<u64>>,
    pub(super) sums: Sums<Row<f64>>,
    /// For each slot of b whether a chose its expert, with all bits set.
    hits: Vec<Row<u64>>,
}

impl Tile {
    pub(super) fn new(comparison: &Comparison<'_>) -> Self {
        let k = comparison.a.expert_ids.dim().2;
        Self {
            a: Choices::new(k),
            b: Choices::new(k),
            weighted: comparison.is_weighted(),
            counted: [false; TILE],
            shared: [false; TILE],
            counts: Counts::each(|_| [0; TILE]),
            sums: Sums::each(|_| [0.0; TILE]),
            hits: vec![[0; TILE]; k],
        }
    }

    /// Reads the first [`TILE`] of some pairs; false where a value is not accepted.
    #[inline(always)]
    pub(super) fn load(&mut self, comparison: &Comparison<'_>, layer: usize, pairs: std::ops::Range<usize>) -> bool {
        let rules = &comparison.layers[layer];
        let nobody = rules.n_experts as u64;
        self.a.load(&comparison.a, (layer, rules), pairs.clone(), nobody)
            & self.b.load(&comparison.b, (layer, rules), pairs, nobody + 1)
    }

    /// Compares the pairs that were read.
    #[inline(always)]
    pub(super) fn compare(&mut self, require_shares: bool) {
        for t in 0..TILE {
            let both = (self.a.chosen[t] > 0) & (self.b.chosen[t] > 0);
            let shared = both & self.a.shared[t] & self.b.shared[t];
            self.shared[t] = shared & self.weighted;
            self.counted[t] = both & (shared | !require_shares);
            self.counts.pairs[t] = u64::from(both);
            self.counts.without_shares[t] = u64::from(both & !shared & self.weighted);
        }
        if self.weighted {
            self.match_slots::<true>();
            self.compare_shares();
        } else {
            self.match_slots::<false>();
        }
        self.compare_sets();
    }

    /// Finds the experts that both sides chose, and adds up what they and the others have.
    #[inline(always)]
    fn match_slots<const WEIGHTED: bool>(&mut self) {
        self.hits.fill([0; TILE]);
        for start in (0..TILE).step_by(BLOCK) {
            self.match_block::<WEIGHTED>(start);
        }
    }

    #[inline(always)]
    fn match_block<const WEIGHTED: bool>(&mut self, start: usize) {
        let block = start..start + BLOCK;
        let (mut common, mut top) = ([0; BLOCK], [0; BLOCK]);
        // ŵ of experts that only a chose; |ŵa - ŵb|, ŵa ln ŵa and 2m ln m, m = (ŵa + ŵb) / 2, of those that both did.
        let (mut alone, mut apart) = ([0.0; BLOCK], [0.0; BLOCK]);
        let (mut logs, mut middle) = ([0.0; BLOCK], [0.0; BLOCK]);
        for i in 0..self.a.ids.len() {
            let (mut share, mut marks) = ([0; BLOCK], [0; BLOCK]);
            let ids = &self.a.ids[i][block.clone()];
            for j in 0..self.b.ids.len() {
                let others = &self.b.ids[j][block.clone()];
                let (other_marks, other_shares) = (&self.b.marks[j][block.clone()], &self.b.shares[j][block.clone()]);
                let hits = &mut self.hits[j][block.clone()];
                for t in 0..BLOCK {
                    let same = if ids[t] == others[t] { u64::MAX } else { 0 };
                    marks[t] |= same & other_marks[t];
                    if WEIGHTED {
                        // At most one slot matches, so that "or" takes its value as it is.
                        share[t] |= same & other_shares[t].to_bits();
                        hits[t] |= same;
                    }
                }
            }
            let (own_marks, own_shares) = (&self.a.marks[i][block.clone()], &self.a.shares[i][block.clone()]);
            let own_logs = &self.a.logs[i][block.clone()];
            for t in 0..BLOCK {
                let hit = marks[t] & CHOSEN != 0;
                common[t] += marks[t] & CHOSEN;
                if WEIGHTED {
                    top[t] += (marks[t] & own_marks[t] & AT_TOP) / AT_TOP;
                    let (one, other) = (own_shares[t], f64::from_bits(share[t]));
                    let sum = one + other;
                    let both = sum * ln(sum / 2.0);
                    alone[t] += if hit { 0.0 } else { one };
                    apart[t] += if hit { (one - other).abs() } else { 0.0 };
                    logs[t] += if hit { own_logs[t] } else { 0.0 };
                    middle[t] += if hit { both } else { 0.0 };
                }
            }
        }
        self.counts.common[block.clone()].copy_from_slice(&common);
        if WEIGHTED {
            self.counts.common_top[block.clone()].copy_from_slice(&top);
            self.diverge(block, &alone, &apart, &logs, &middle);
        }
    }

    /// Total variation and Jensen-Shannon divergence, of what was added up over the slots of a.
    #[inline(always)]
    fn diverge(
        &mut self,
        block: std::ops::Range<usize>,
        alone: &[f64; BLOCK],
        apart: &[f64; BLOCK],
        logs: &[f64; BLOCK],
        middle: &[f64; BLOCK],
    ) {
        let (mut other_alone, mut other_logs) = ([0.0; BLOCK], [0.0; BLOCK]);
        for j in 0..self.hits.len() {
            let hits = &self.hits[j][block.clone()];
            let (shares, own_logs) = (&self.b.shares[j][block.clone()], &self.b.logs[j][block.clone()]);
            for t in 0..BLOCK {
                other_alone[t] += if hits[t] == 0 { shares[t] } else { 0.0 };
                other_logs[t] += if hits[t] == 0 { 0.0 } else { own_logs[t] };
            }
        }
        let (tv, js) = (&mut self.sums.tv[block.clone()], &mut self.sums.js[block]);
        for t in 0..BLOCK {
            // a ln (a/m) + b ln (b/m) = a ln a + b ln b - 2m ln m; of an expert of one side alone, a ln 2.
            let alone = alone[t] + other_alone[t];
            tv[t] = within_one((apart[t] + alone) / 2.0);
            js[t] = within_one((((logs[t] + other_logs[t]) - middle[t]) / LN_2 + alone) / 2.0);
        }
    }

    /// What is said of the weights of each pair.
    #[inline(always)]
    fn compare_shares(&mut self) {
        let sums = &mut self.sums;
        for t in 0..TILE {
            let (shared, counted) = (self.shared[t], self.counted[t]);
            let only = |value: f64| if shared { value } else { 0.0 };
            sums.tv[t] = only(sums.tv[t]);
            sums.js[t] = only(sums.js[t]);
            sums.entropy_a[t] = only(self.a.entropy[t]);
            sums.entropy_b[t] = only(self.b.entropy[t]);
            sums.neff_a[t] = only(exp(self.a.entropy[t]));
            sums.neff_b[t] = only(exp(self.b.entropy[t]));
            sums.margin_a[t] = only(self.a.margin[t]);
            sums.margin_b[t] = only(self.b.margin[t]);
            let same_first = self.a.first[t] == self.b.first[t];
            self.counts.same_first[t] = u64::from(same_first & counted);
            self.counts.common_top[t] = if counted { self.counts.common_top[t] } else { 0 };
        }
    }

    /// What is said of the experts of each pair.
    #[inline(always)]
    fn compare_sets(&mut self) {
        for t in 0..TILE {
            let counted = self.counted[t];
            let only = |value: u64| if counted { value } else { 0 };
            let (a, b, common) = (self.a.chosen[t], self.b.chosen[t], self.counts.common[t]);
            let union = a + b - common;
            self.counts.common[t] = only(common);
            self.counts.experts_a[t] = only(a);
            self.counts.experts_b[t] = only(b);
            self.counts.equal[t] = only(u64::from(union == common));
            // As 32 bits, which vector code makes doubles of.
            let (common, union) = (f64::from(common as u32), f64::from(union as u32));
            self.sums.jaccard[t] = if counted { common / union } else { 0.0 };
        }
    }
}

/// A measure from 0 to 1 that rounding may have put outside.
#[inline(always)]
fn within_one(value: f64) -> f64 {
    let value = if value > 0.0 { value } else { 0.0 };
    if value < 1.0 { value } else { 1.0 }
}
