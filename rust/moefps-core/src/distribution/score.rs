//! From a row of logits to the distribution over experts that they stand for.

use super::{BLOCK, Block, Row};
use crate::math::{exp, ln, ln_1p};
use crate::trace::Scoring;

/// What is known of a row's distribution beside the probabilities, which are left in its scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// In nats.
    pub(crate) entropy: f64,
    /// ln Σ e^x over experts and passive ones; 0 where the row holds no logits.
    pub(crate) log_sum: f64,
}

impl Row {
    /// Turns the logits into probabilities, or says that there are none, all scores being 0.
    #[inline(always)]
    pub(crate) fn distribute(&mut self, scoring: Scoring) -> Option<Spread> {
        let (n, passive) = (self.experts.div_ceil(BLOCK), self.passive_experts.div_ceil(BLOCK));
        let (logits, passive, scores) = (&self.logits[..n], &self.passive[..passive], &mut self.scores[..n]);
        let terms = &mut self.terms[..];
        match scoring {
            Scoring::Softmax => return softmax(logits, passive, scores, terms),
            Scoring::Sigmoid => map(logits, scores, sigmoid),
            Scoring::SqrtSoftplus => map(logits, scores, |x| softplus(x).sqrt()),
            // What fills up the row has the logit -inf.
            Scoring::Probabilities => map(logits, scores, |x| if x > 0.0 { x } else { 0.0 }),
        }
        let total = sum(scores);
        if total == 0.0 {
            return None;
        }
        // Divided, since one part of the smallest numbers that there are is no number.
        change(scores, |score| score / total);
        // 0 ln 0 = 0: the logarithm of 0 is finite here.
        map(scores, terms, |p| -p * ln(p));
        let entropy = sum(&terms[..scores.len()]);
        let log_sum = if scoring == Scoring::Probabilities { 0.0 } else { log_sum(logits, passive, terms) };
        Some(Spread { entropy, log_sum })
    }
}

#[inline(always)]
fn softmax(logits: &[Block], passive: &[Block], scores: &mut [Block], terms: &mut [Block]) -> Option<Spread> {
    let most = largest(logits);
    if most == f64::NEG_INFINITY {
        return None;
    }
    map(logits, scores, |x| exp(x - most));
    let total = sum(scores);
    // H = -Σ p ln p with ln p = x - most - ln total: one logarithm for all, and a sum of what is never negative.
    let mut below = [0.0; BLOCK];
    for (logits, scores) in logits.iter().zip(&*scores) {
        for i in 0..BLOCK {
            let gap = most - logits[i];
            below[i] += scores[i] * if gap < f64::MAX { gap } else { 0.0 };
        }
    }
    let inverse = 1.0 / total;
    change(scores, |score| score * inverse);
    let log = ln(total);
    let log_sum = if passive.is_empty() { most + log } else { log_sum(logits, passive, terms) };
    Some(Spread { entropy: log + across(below) * inverse, log_sum })
}

/// ln Σ e^x over all that the router can choose.
#[inline(always)]
fn log_sum(logits: &[Block], passive: &[Block], terms: &mut [Block]) -> f64 {
    let most = largest(logits).max(largest(passive));
    let mut total = 0.0;
    for part in [logits, passive] {
        map(part, terms, |x| exp(x - most));
        total += sum(&terms[..part.len()]);
    }
    most + ln(total)
}

#[inline(always)]
fn sigmoid(x: f64) -> f64 {
    let small = exp(-x.abs());
    (if x >= 0.0 { 1.0 } else { small }) / (1.0 + small)
}

#[inline(always)]
fn softplus(x: f64) -> f64 {
    ln_1p(exp(-x.abs())) + if x > 0.0 { x } else { 0.0 }
}

#[inline(always)]
fn map(from: &[Block], to: &mut [Block], f: impl Fn(f64) -> f64) {
    // Flat, since the compiler makes vector code of one long loop, but not of many short ones.
    for (to, &from) in to.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
        *to = f(from);
    }
}

#[inline(always)]
fn change(blocks: &mut [Block], f: impl Fn(f64) -> f64) {
    for x in blocks.as_flattened_mut() {
        *x = f(*x);
    }
}

/// The largest; -inf of none.
#[inline(always)]
pub(crate) fn largest(blocks: &[Block]) -> f64 {
    let mut most = [f64::NEG_INFINITY; BLOCK];
    for block in blocks {
        for i in 0..BLOCK {
            most[i] = if block[i] > most[i] { block[i] } else { most[i] };
        }
    }
    most.into_iter().fold(f64::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// The largest and the second largest.
#[inline(always)]
pub(crate) fn two_largest(blocks: &[Block]) -> (f64, f64) {
    let mut first = [f64::NEG_INFINITY; BLOCK];
    let mut second = [f64::NEG_INFINITY; BLOCK];
    for block in blocks {
        for i in 0..BLOCK {
            (first[i], second[i]) = rank(first[i], second[i], block[i]);
        }
    }
    let none = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    first.into_iter().chain(second).fold(none, |(first, second), x| rank(first, second, x))
}

#[inline(always)]
fn rank(first: f64, second: f64, x: f64) -> (f64, f64) {
    let smaller = if x < first { x } else { first };
    (if x > first { x } else { first }, if smaller > second { smaller } else { second })
}

/// Added up in one order, whatever the width of the machine's vectors.
#[inline(always)]
fn sum(blocks: &[Block]) -> f64 {
    let mut sums = [0.0; BLOCK];
    for block in blocks {
        for i in 0..BLOCK {
            sums[i] += block[i];
        }
    }
    across(sums)
}

#[inline(always)]
fn across([a, b, c, d, e, f, g, h]: Block) -> f64 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::{Row, Scoring};
    use crate::sample::Values;

    fn distribution(scoring: Scoring, logits: &[f64]) -> Option<Vec<f64>> {
        let (n, mut row) = (logits.len(), Row::new(logits.len()));
        let logits = Array3::from_shape_fn((1, 1, n), |(_, _, expert)| logits[expert]);
        row.read(&Values::F64(logits.view()), n, 0, [0, 0]);
        row.distribute(scoring).map(|_| row.probs().as_flattened()[..n].to_vec())
    }

    #[test]
    fn worked_examples() {
        let near = |found: Option<Vec<f64>>, expected: &[f64]| {
            let found = found.expect("a distribution");
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?} {expected:?}");
        };
        near(distribution(Scoring::Softmax, &[1.0_f64.ln(), 3.0_f64.ln()]), &[0.25, 0.75]);
        near(distribution(Scoring::Softmax, &[1000.0, 1000.0, f64::NEG_INFINITY]), &[0.5, 0.5, 0.0]);
        // Sigmoids of 1/2 and 1/4.
        near(distribution(Scoring::Sigmoid, &[0.0, -(3.0_f64.ln())]), &[2.0 / 3.0, 1.0 / 3.0]);
        near(distribution(Scoring::Sigmoid, &[800.0, -800.0]), &[1.0, 0.0]);
        // ln(1 + e^x) of 4 and 1.
        let logits = [(4.0_f64.exp() - 1.0).ln(), (1.0_f64.exp() - 1.0).ln()];
        near(distribution(Scoring::SqrtSoftplus, &logits), &[2.0 / 3.0, 1.0 / 3.0]);
        near(distribution(Scoring::Probabilities, &[0.25, 0.75]), &[0.25, 0.75]);
    }

    #[test]
    fn masked_altogether() {
        for scoring in [Scoring::Softmax, Scoring::Sigmoid, Scoring::SqrtSoftplus] {
            assert_eq!(distribution(scoring, &[f64::NEG_INFINITY; 2]), None);
        }
        assert_eq!(distribution(Scoring::Probabilities, &[0.0; 2]), None);
    }
}
