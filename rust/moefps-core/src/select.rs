//! Farthest point sampling without the distance matrix.
//!
//! The same picks as [`crate::fps`] on the matrix: each new pick updates the distance of every sample to its nearest
//! pick. Where a lower bound ([`crate::bounds`]) already reaches that distance, the new pick cannot be nearer, and the
//! exact distance is never computed.

use rayon::prelude::*;

use crate::Result;
use crate::bounds::Bounds;
use crate::ground::{FixedFeatures, FloatFeatures, Ground};
use crate::l1::lanes::Lanes;
use crate::l1::tile::{COLUMN, fixed_distance, float_distance};
use crate::l1::{Simd, for_each_simd, prefetch};
use crate::medoid::{self, medoid};
use crate::sample::Samples;
use crate::start::{Cover, Goal, Selection, Start, extreme, greedy};
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
        let starts = match (&goal.start, self.extreme) {
            (Start::Indices(indices), _) => indices.clone(),
            (_, extreme) => extreme.into_iter().collect(),
        };
        let mut cover = Cover::new(self.n);
        let mut thresholds = Thresholds::new(self.n);
        let (indices, radii) = greedy(self.n, goal, &starts, &mut cover, |pick, position, cover| {
            task.check()?;
            thresholds.set(pick);
            let farthest = match &self.features {
                Features::Fixed(features) => self.update(features, pick, position, cover, &mut thresholds),
                Features::Float { features, unit } => {
                    self.update(&Float { features, unit: *unit }, pick, position, cover, &mut thresholds)
                }
            };
            task.advance(self.units_per_pick);
            Ok(farthest)
        })?;
        Ok(cover.into_selection(indices, radii))
    }

    /// Lowers all distances to those from `pick` and returns the farthest sample.
    fn update<D: ExactDistance>(
        &self,
        exact: &D,
        pick: usize,
        position: usize,
        cover: &mut Cover,
        thresholds: &mut Thresholds,
    ) -> (usize, f64) {
        let center = self.bounds.as_ref().map(|bounds| bounds.coarse_center(pick)).unwrap_or_default();
        let pick = Pick { index: pick, position: position as u32, center: &center };
        let share = if self.bounds.is_some() { PRUNED_SHARE } else { 1 };
        let rows = (ELEMENTS_PER_THREAD * share / exact.features()).max(1).next_multiple_of(COLUMN);
        let chunk = |first: usize, (distances, nearest, exact_thresholds, coarse): ChunkState<'_>| {
            let state = State { first, distances, nearest, thresholds: exact_thresholds, coarse };
            scan(self.simd, exact, self.bounds.as_ref(), pick, state)
        };
        if self.n <= rows {
            let Cover { distances, nearest } = cover;
            return chunk(0, (distances, nearest, &mut thresholds.exact, &mut thresholds.coarse));
        }
        (cover.distances.par_chunks_mut(rows), cover.nearest.par_chunks_mut(rows))
            .into_par_iter()
            .zip((thresholds.exact.par_chunks_mut(rows), thresholds.coarse.par_chunks_mut(rows)))
            .enumerate()
            .map(|(i, ((distances, nearest), (exact, coarse)))| chunk(i * rows, (distances, nearest, exact, coarse)))
            // Chunks come in order and only a larger radius wins, so ties go to the lowest index.
            .reduce(|| (usize::MAX, -1.0), |a, b| if b.1 > a.1 || (b.1 == a.1 && b.0 < a.0) { b } else { a })
    }
}

type ChunkState<'a> = (&'a mut [f64], &'a mut [u32], &'a mut [u64], &'a mut [u32]);

/// For each sample, what a lower bound has to reach for the sample to be left alone.
struct Thresholds {
    /// In fixed-point units.
    exact: Vec<u64>,
    /// In units of the coarse bound.
    coarse: Vec<u32>,
}

impl Thresholds {
    fn new(n: usize) -> Self {
        Self { exact: vec![u64::MAX; n], coarse: vec![u32::MAX; n] }
    }

    /// A pick is at distance 0, which nothing improves.
    fn set(&mut self, pick: usize) {
        self.exact[pick] = 0;
        self.coarse[pick] = 0;
    }
}

/// A new pick.
#[derive(Clone, Copy)]
struct Pick<'a> {
    index: usize,
    position: u32,
    /// Its coarse summary; empty without bounds.
    center: &'a [u32],
}

/// The samples `first ..` as far as they are known.
struct State<'a> {
    first: usize,
    distances: &'a mut [f64],
    nearest: &'a mut [u32],
    thresholds: &'a mut [u64],
    coarse: &'a mut [u32],
}

impl State<'_> {
    /// Computes the distance of sample `first + i` and stores it where it is smaller.
    ///
    /// # Safety
    /// The instruction set of `L`.
    #[inline(always)]
    unsafe fn visit<L: Lanes, D: ExactDistance>(
        &mut self,
        exact: &D,
        bounds: Option<&Bounds>,
        pick: Pick<'_>,
        i: usize,
    ) {
        // SAFETY: the caller vouches for the instruction set.
        let (distance, threshold) = unsafe { exact.distance::<L>(pick.index, self.first + i) };
        if distance < self.distances[i] {
            self.distances[i] = distance;
            self.nearest[i] = pick.position;
            self.thresholds[i] = threshold;
            self.coarse[i] = bounds.map_or(0, |bounds| bounds.coarse_threshold(threshold));
        }
    }

    #[inline(always)]
    fn farthest(&self) -> (usize, f64) {
        // Floats that are not negative are ordered as their bits are, and the maximum of integers vectorises.
        let radius = self.distances.iter().map(|d| d.to_bits()).fold(0, u64::max);
        let at = self.distances.iter().position(|d| d.to_bits() == radius).unwrap_or(0);
        (self.first + at, f64::from_bits(radius))
    }
}

for_each_simd! {
    /// Lowers the distances of a run of samples to those from `pick`, and returns the farthest.
    fn scan<D: ExactDistance>(exact: &D, bounds: Option<&Bounds>, pick: Pick<'_>, state: State<'_>) -> (usize, f64) = scan_with;
}

#[inline(always)]
unsafe fn scan_with<L: Lanes, D: ExactDistance>(
    _: L,
    exact: &D,
    bounds: Option<&Bounds>,
    pick: Pick<'_>,
    mut state: State<'_>,
) -> (usize, f64) {
    let n = state.distances.len();
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        match bounds {
            None => {
                for i in 0..n {
                    if state.thresholds[i] > 0 {
                        state.visit::<L, D>(exact, bounds, pick, i);
                    }
                }
            }
            Some(known) => {
                // In three sweeps, so that the rows that the next one needs are on their way from memory meanwhile.
                let mut left = Vec::with_capacity(n);
                for (group, thresholds) in state.coarse.chunks(COLUMN).enumerate() {
                    let coarse = known.coarse::<L>(pick.index, pick.center, state.first / COLUMN + group);
                    let mut near = 0u32;
                    for (lane, (coarse, threshold)) in coarse.iter().zip(thresholds).enumerate() {
                        near |= u32::from(coarse < threshold) << lane;
                    }
                    while near != 0 {
                        let i = group * COLUMN + near.trailing_zeros() as usize;
                        known.prefetch(state.first + i);
                        left.push(i);
                        near &= near - 1;
                    }
                }
                // No closure here: it would not be compiled for the instruction set.
                let mut kept = 0;
                for k in 0..left.len() {
                    let i = left[k];
                    if !known.apart::<L>(pick.index, state.first + i, state.thresholds[i]) {
                        exact.prefetch(state.first + i);
                        left[kept] = i;
                        kept += 1;
                    }
                }
                left.truncate(kept);
                for i in left {
                    state.visit::<L, D>(exact, bounds, pick, i);
                }
            }
        }
    }
    state.farthest()
}

/// Distances in the arithmetic that was asked for.
trait ExactDistance: Sync {
    /// Features of a sample.
    fn features(&self) -> usize;

    /// The distance between samples `i` and `j`, and the fixed-point distance from which on another one cannot be
    /// smaller.
    ///
    /// # Safety
    /// The instruction set of `L`.
    unsafe fn distance<L: Lanes>(&self, i: usize, j: usize) -> (f64, u64);

    /// Has the features of sample `i` fetched into the cache.
    fn prefetch(&self, i: usize);
}

impl ExactDistance for FixedFeatures {
    fn features(&self) -> usize {
        self.features.width()
    }

    #[inline(always)]
    unsafe fn distance<L: Lanes>(&self, i: usize, j: usize) -> (f64, u64) {
        // SAFETY: the caller vouches for the instruction set.
        let distance = unsafe { fixed_distance::<L>(self.features.row(i), self.features.row(j)) };
        // Rounded as the matrix is, so that both have the same ties.
        (f64::from((distance as f64 * self.unit) as f32), distance)
    }

    #[inline(always)]
    fn prefetch(&self, i: usize) {
        prefetch(self.features.row(i));
    }
}

struct Float<'a> {
    features: &'a FloatFeatures,
    unit: f64,
}

impl ExactDistance for Float<'_> {
    fn features(&self) -> usize {
        self.features.features.width()
    }

    #[inline(always)]
    unsafe fn distance<L: Lanes>(&self, i: usize, j: usize) -> (f64, u64) {
        let rows = &self.features.features;
        // SAFETY: the caller vouches for the instruction set.
        let distance = unsafe { float_distance::<L>(rows.row(i), rows.row(j)) };
        // Each feature's fixed-point difference is off by a unit at most, and floats round a little themselves.
        let slack = self.features() as u64 + 2;
        let threshold = (distance * (1.0 + 1e-9) / self.unit).ceil() as u64 + slack;
        (distance, threshold)
    }

    #[inline(always)]
    fn prefetch(&self, i: usize) {
        prefetch(self.features.features.row(i));
    }
}
