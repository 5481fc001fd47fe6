//! Farthest point sampling without the distance matrix.
//!
//! The same picks as [`crate::fps`] on the matrix: each new pick updates the distance of every sample to its nearest
//! pick, as far as that has to be known ([`crate::nearest`]).

use rayon::prelude::*;

use crate::Result;
use crate::bounds::Bounds;
use crate::exact::{ExactDistance, Float};
use crate::ground::{FixedFeatures, FloatFeatures, Ground};
use crate::l1::Simd;
use crate::l1::tile::COLUMN;
use crate::medoid::{self, medoid};
use crate::nearest::{Chunk, Pick, scan, settle};
use crate::sample::Samples;
use crate::start::{Goal, Selection, Start, extreme, greedy};
use crate::sum::{self, Precision, fixed_sums, float_sums};
use crate::task::Task;

/// Kernel elements after which a second thread is worth waking.
const ELEMENTS_PER_THREAD: usize = 1 << 17;

/// What a pruned sample costs on average, as a share of its features (one in this many).
const PRUNED_SHARE: usize = 24;

/// Picks samples by farthest point sampling. The answer does not depend on `prune`, only the time.
///
/// # Errors
/// A goal that cannot be met ([`Goal::check`]), samples that are no distributions, or [`crate::Error::Cancelled`].
pub fn select(
    samples: &Samples<'_>,
    ground: &Ground,
    precision: Precision,
    goal: &Goal,
    prune: bool,
    task: &Task,
) -> Result<Selection> {
    goal.check(samples.shape().0)?;
    let index = Index::new(samples, ground, precision, Some(&goal.start), prune, goal.n_select, task)?;
    index.select(goal, task)
}

/// How well each of several sets of picks covers the samples: the largest and the mean distance to the nearest pick.
///
/// # Errors
/// As [`select`].
pub fn cover(
    samples: &Samples<'_>,
    ground: &Ground,
    precision: Precision,
    sets: &[Vec<usize>],
    task: &Task,
) -> Result<Vec<(f64, f64)>> {
    let n = samples.shape().0;
    let goal =
        |picks: &Vec<usize>| Goal { n_select: picks.len(), stop_radius: None, start: Start::Indices(picks.clone()) };
    sets.iter().try_for_each(|picks| goal(picks).check(n))?;
    let index = Index::new(samples, ground, precision, None, true, sets.iter().map(Vec::len).sum(), task)?;
    sets.par_iter()
        .map(|picks| {
            let selection = index.select(&goal(picks), task)?;
            let mean = selection.distances.iter().sum::<f64>() / n as f64;
            Ok((selection.radii.last().copied().unwrap_or(0.0), mean))
        })
        .collect()
}

/// Everything about the samples that picking needs.
struct Index {
    simd: Simd,
    n: usize,
    features: Features,
    bounds: Option<Bounds>,
    /// The start, where it takes a look at all samples.
    extreme: Option<usize>,
    units_per_pick: u64,
}

enum Features {
    Fixed(FixedFeatures),
    Float { features: FloatFeatures, unit: f64 },
}

impl Index {
    fn new(
        samples: &Samples<'_>,
        ground: &Ground,
        precision: Precision,
        start: Option<&Start>,
        prune: bool,
        picks: usize,
        task: &Task,
    ) -> Result<Self> {
        let simd = Simd::choose()?;
        let n = samples.shape().0;
        let sorted = start.filter(|start| !matches!(start, Start::Indices(_)));
        let float = precision == Precision::Float64;
        let fixed_wanted = prune || !float;
        let passes = u64::from(fixed_wanted) + u64::from(float);
        let start_units = match sorted {
            None => 0,
            Some(Start::Medoid) if !float => medoid::units(n, ground.features()),
            Some(_) => sum::units(n, ground.features()),
        };
        let units_per_pick = (n * ground.features()).div_ceil(if prune { PRUNED_SHARE } else { 1 }) as u64;
        task.announce(ground.units(n) * passes + start_units + picks as u64 * units_per_pick);

        let fixed = fixed_wanted.then(|| ground.fixed(samples, task)).transpose()?;
        let bounds = match &fixed {
            Some(fixed) if prune => Some(Bounds::new(simd, fixed, ground.features_per_layer(), task)?),
            _ => None,
        };
        let (features, extreme) = match fixed {
            Some(features) if !float => {
                let extreme = match sorted {
                    Some(Start::Medoid) => Some(medoid(simd, &features, task)?),
                    Some(start) => Some(extreme(&fixed_sums(&features, task)?, start)),
                    None => None,
                };
                (Features::Fixed(features), extreme)
            }
            fixed => {
                drop(fixed);
                let features = ground.float(samples, task)?;
                let extreme = match sorted {
                    Some(start) => Some(extreme(&float_sums(&features, task)?, start)),
                    None => None,
                };
                (Features::Float { features, unit: ground.fixed_unit() }, extreme)
            }
        };
        Ok(Self { simd, n, features, bounds, extreme, units_per_pick })
    }

    fn select(&self, goal: &Goal, task: &Task) -> Result<Selection> {
        match &self.features {
            Features::Fixed(features) => self.select_with(features, goal, task),
            Features::Float { features, unit } => self.select_with(&Float { features, unit: *unit }, goal, task),
        }
    }

    fn select_with<D: ExactDistance>(&self, exact: &D, goal: &Goal, task: &Task) -> Result<Selection> {
        let starts = match (&goal.start, self.extreme) {
            (Start::Indices(indices), _) => indices.clone(),
            (_, extreme) => extreme.into_iter().collect(),
        };
        let share = if self.bounds.is_some() { PRUNED_SHARE } else { 1 };
        let rows = (ELEMENTS_PER_THREAD * share / exact.features()).max(1).next_multiple_of(COLUMN);
        let mut chunks: Vec<Chunk> =
            (0..self.n).step_by(rows).map(|first| Chunk::new(first, rows.min(self.n - first))).collect();
        let mut picks = Vec::with_capacity(goal.n_select);
        let (indices, radii) = greedy(self.n, goal, &starts, |pick, _| {
            task.check()?;
            picks.push(pick);
            let farthest = self.update(exact, &picks, &mut chunks);
            task.advance(self.units_per_pick);
            Ok(farthest)
        })?;
        chunks.par_iter_mut().try_for_each(|chunk| {
            task.check()?;
            settle(self.simd, exact, self.bounds.as_ref(), &picks, 0.0, chunk);
            Ok(())
        })?;
        let assignment = chunks.iter().flat_map(|chunk| &chunk.nearest).map(|&p| p as usize).collect();
        let distances = chunks.into_iter().flat_map(|chunk| chunk.distances).collect();
        Ok(Selection { indices, radii, assignment, distances })
    }

    /// Takes note of the last pick and returns the farthest sample.
    fn update<D: ExactDistance>(&self, exact: &D, picks: &[usize], chunks: &mut [Chunk]) -> (usize, f64) {
        let bounds = self.bounds.as_ref();
        let index = picks[picks.len() - 1];
        let center = bounds.map(|bounds| bounds.coarse_center(index)).unwrap_or_default();
        let pick = Pick { index, position: picks.len() as u32 - 1, center: &center };
        let farthest = chunks.par_iter_mut().map(|chunk| scan(self.simd, exact, bounds, picks, pick, chunk));
        // Chunks come in order and only a larger radius wins, so ties go to the lowest index.
        farthest.reduce(|| (usize::MAX, -1.0), |a, b| if b.1 > a.1 || (b.1 == a.1 && b.0 < a.0) { b } else { a })
    }
}
