//! From a router's logits to its full distribution over experts.

/// How a router turns logits into scores, of which the distribution is each one's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoids divided by their sum.
    Sigmoid,
    /// Square roots of softplus, divided by their sum.
    SqrtSoftplus,
    /// The numbers as they are.
    Probabilities,
}

/// Replaces the logits of a token by the distribution; says whether there is one. Logits are numbers, or minus infinity
/// for an expert that is masked; where all are, no distribution exists.
pub(super) fn distribute(scoring: Scoring, row: &mut [f64]) -> bool {
    match scoring {
        Scoring::Softmax => {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if largest == f64::NEG_INFINITY {
                return false;
            }
            row.iter_mut().for_each(|x| *x = (*x - largest).exp());
        }
        Scoring::Sigmoid => row.iter_mut().for_each(|x| {
            let small = (-x.abs()).exp();
            *x = if *x >= 0.0 { 1.0 } else { small } / (1.0 + small);
        }),
        Scoring::SqrtSoftplus => row.iter_mut().for_each(|x| {
            // ln(1 + e^x), by what does not overflow.
            *x = (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt();
        }),
        Scoring::Probabilities => return row.iter().sum::<f64>() != 0.0,
    }
    let total: f64 = row.iter().sum();
    if total == 0.0 {
        return false;
    }
    row.iter_mut().for_each(|x| *x /= total);
    true
}

#[cfg(test)]
mod tests {
    use super::{Scoring, distribute};

    fn distribution(scoring: Scoring, logits: &[f64]) -> Option<Vec<f64>> {
        let mut row = logits.to_vec();
        distribute(scoring, &mut row).then_some(row)
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
