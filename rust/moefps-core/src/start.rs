//! Where a selection starts, and what every selection returns.

use crate::{Error, Result};

/// The first pick or picks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The sample with the smallest sum of distances to all.
    Medoid,
    /// The sample with the largest sum of distances to all.
    Farthest,
    /// These samples, in this order.
    Indices(Vec<usize>),
}

/// How far a selection goes.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Picks at most, the start included.
    pub n_select: usize,
    /// Stop once no sample is farther than this from a pick.
    pub stop_radius: Option<f64>,
    /// The first picks.
    pub start: Start,
}

impl Goal {
    /// Whether the goal can be met with `n` samples.
    ///
    /// # Errors
    /// No picks or more than samples; a start that is out of range, given twice, or longer than the selection.
    pub fn check(&self, n: usize) -> Result<()> {
        let m = self.n_select;
        if m == 0 || m > n {
            return Err(Error::Argument(format!("n_select: {m}; accepted: 1 to {n}, the number of samples")));
        }
        if let Some(r) = self.stop_radius.filter(|r| r.is_nan() || *r < 0.0) {
            return Err(Error::Argument(format!("stop_radius: {r}; accepted: a number >= 0")));
        }
        if let Start::Indices(indices) = &self.start {
            if indices.is_empty() || indices.len() > m {
                let found = indices.len();
                return Err(Error::Argument(format!(
                    "start: {found} indices; accepted: 1 to {m}, the picks asked for"
                )));
            }
            let mut seen = vec![false; n];
            for &i in indices {
                if i >= n {
                    return Err(Error::Argument(format!("start: index {i}; accepted: 0 to {}", n - 1)));
                }
                if std::mem::replace(&mut seen[i], true) {
                    return Err(Error::Argument(format!("start: index {i} twice; accepted: each index once")));
                }
            }
        }
        Ok(())
    }
}

/// The samples picked and how well they cover the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// In pick order.
    pub indices: Vec<usize>,
    /// The largest distance from any sample to its nearest pick, after each pick.
    pub radii: Vec<f64>,
    /// For each sample the position in `indices` of its nearest pick, the earliest of equally near ones.
    pub assignment: Vec<usize>,
    /// For each sample the distance to its nearest pick.
    pub distances: Vec<f64>,
}

/// The sample whose sum is smallest (medoid) or largest; the lowest index of equals.
pub(crate) fn extreme<S: PartialOrd>(sums: &[S], start: &Start) -> usize {
    let better = |a: &S, b: &S| if *start == Start::Farthest { a > b } else { a < b };
    (1..sums.len()).fold(0, |best, i| if better(&sums[i], &sums[best]) { i } else { best })
}

/// The greedy loop: picks the starts, then time and again the sample farthest from all picks.
///
/// `update(pick, position)` takes note of the new pick and returns the sample farthest from all with its distance: the
/// lowest index of equals, and if all distances are 0, any.
pub(crate) fn greedy(
    n: usize,
    goal: &Goal,
    starts: &[usize],
    mut update: impl FnMut(usize, usize) -> Result<(usize, f64)>,
) -> Result<(Vec<usize>, Vec<f64>)> {
    let (mut indices, mut radii) = (Vec::with_capacity(goal.n_select), Vec::with_capacity(goal.n_select));
    let mut picked = vec![false; n];
    let mut lowest_unpicked = 0;
    let mut next = starts[0];
    while indices.len() < goal.n_select {
        picked[next] = true;
        let (farthest, radius) = update(next, indices.len())?;
        indices.push(next);
        radii.push(radius);
        let started = indices.len() >= starts.len();
        if started && goal.stop_radius.is_some_and(|stop| radius <= stop) {
            break;
        }
        next = if !started {
            starts[indices.len()]
        } else if radius > 0.0 {
            farthest
        } else {
            // Only duplicates of picks are left.
            while lowest_unpicked < n && picked[lowest_unpicked] {
                lowest_unpicked += 1;
            }
            lowest_unpicked
        };
    }
    Ok((indices, radii))
}
