//! How far each sample is from its nearest pick, as far as that has to be known.
//!
//! Where a lower bound ([`crate::bounds`]) already reaches a sample's distance, a new pick cannot be nearer. Elsewhere it
//! becomes a candidate for the nearest, and bounds from both sides are all that is known of its distance: which
//! candidate is the nearest, and how near, is found out once the sample may be the farthest of all, or at the end.

use crate::bounds::Bounds;
use crate::exact::ExactDistance;
use crate::l1::for_each_simd;
use crate::l1::lanes::Lanes;
use crate::l1::tile::{COLUMN, WORD};

/// Candidates for the nearest pick that are kept of a sample: a bound on memory.
const MOST_CANDIDATES: usize = 8;

/// A new pick.
#[derive(Clone, Copy)]
pub(crate) struct Pick<'a> {
    pub(crate) index: usize,
    pub(crate) position: u32,
    /// Its coarse summary; empty without bounds.
    pub(crate) center: &'a [[[u8; WORD]; WORD]],
}

/// A pick that may be the nearest.
struct Candidate {
    position: u32,
    /// What its distance cannot be below.
    low: f64,
    /// Whether that is its distance.
    exact: bool,
}

/// The samples `first ..` and how far they are from the picks, as far as that is known.
pub(crate) struct Chunk {
    first: usize,
    /// The distance to the nearest pick; with candidates, what that cannot be above, …
    pub(crate) distances: Vec<f64>,
    /// … and what it cannot be below.
    lows: Vec<f64>,
    /// The nearest pick where there are no candidates.
    pub(crate) nearest: Vec<u32>,
    /// One of these is the nearest pick.
    candidates: Vec<Vec<Candidate>>,
    /// What a lower bound has to reach for a sample to be left alone, in fixed-point units …
    thresholds: Vec<u64>,
    /// … and in those of the coarse bound.
    coarse: Vec<u32>,
}

impl Chunk {
    pub(crate) fn new(first: usize, n: usize) -> Self {
        Self {
            first,
            distances: vec![f64::INFINITY; n],
            lows: vec![f64::INFINITY; n],
            nearest: vec![0; n],
            candidates: (0..n).map(|_| Vec::new()).collect(),
            thresholds: vec![u64::MAX; n],
            coarse: vec![u32::MAX; n],
        }
    }

    /// Keeps a new pick as a candidate for sample `first + i`, from which it is between `low` and `high` away.
    fn consider(&mut self, bounds: &Bounds, i: usize, new: Candidate, (high, threshold): (f64, u64)) {
        let candidates = &mut self.candidates[i];
        if candidates.is_empty() && self.distances[i] < f64::INFINITY {
            candidates.push(Candidate { position: self.nearest[i], low: self.distances[i], exact: true });
        }
        candidates.retain(|candidate| candidate.low <= high);
        self.lows[i] = self.lows[i].min(new.low);
        self.distances[i] = self.distances[i].min(high);
        candidates.push(new);
        self.lower_threshold(bounds, i, threshold);
    }

    /// Sample `first + i` is a pick: at distance 0, but perhaps not only from itself.
    fn set(&mut self, bounds: Option<&Bounds>, i: usize, position: u32) {
        if !self.candidates[i].is_empty() {
            self.candidates[i].push(Candidate { position, low: 0.0, exact: true });
        } else if self.distances[i] > 0.0 {
            self.nearest[i] = position;
        }
        (self.distances[i], self.lows[i]) = (0.0, 0.0);
        if let Some(bounds) = bounds {
            self.lower_threshold(bounds, i, 0);
        }
    }

    fn lower_threshold(&mut self, bounds: &Bounds, i: usize, threshold: u64) {
        if threshold < self.thresholds[i] {
            self.thresholds[i] = threshold;
            self.coarse[i] = bounds.coarse_threshold(self.first + i, threshold);
        }
    }

    /// Finds the nearest of the candidates of sample `first + i`, the earliest of equals.
    ///
    /// # Safety
    /// The instruction set of `L`.
    #[inline(always)]
    unsafe fn decide<L: Lanes, D: ExactDistance>(&mut self, exact: &D, bounds: &Bounds, picks: &[usize], i: usize) {
        let mut candidates = std::mem::take(&mut self.candidates[i]);
        candidates.sort_unstable_by(|a, b| a.low.total_cmp(&b.low));
        let mut best = (f64::INFINITY, u32::MAX);
        for candidate in &candidates {
            if candidate.low > best.0 {
                break;
            }
            let mut distance = candidate.low;
            if !candidate.exact {
                // SAFETY: the caller vouches for the instruction set.
                let found = unsafe { exact.distance::<L>(picks[candidate.position as usize], self.first + i) };
                distance = found.0;
                self.lower_threshold(bounds, i, found.1);
            }
            if (distance, candidate.position) < best {
                best = (distance, candidate.position);
            }
        }
        (self.distances[i], self.nearest[i]) = best;
        self.lows[i] = best.0;
        candidates.clear();
        self.candidates[i] = candidates;
    }
}

for_each_simd! {
    /// Takes note of `pick`, the last of `picks`, and returns the farthest sample.
    pub(crate) fn scan<D: ExactDistance>(exact: &D, bounds: Option<&Bounds>, picks: &[usize], pick: Pick<'_>, chunk: &mut Chunk) -> (usize, f64) = scan_with;
}

#[inline(always)]
unsafe fn scan_with<L: Lanes, D: ExactDistance>(
    lanes: L,
    exact: &D,
    bounds: Option<&Bounds>,
    picks: &[usize],
    pick: Pick<'_>,
    chunk: &mut Chunk,
) -> (usize, f64) {
    let n = chunk.distances.len();
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        match bounds {
            None => {
                for i in 0..n {
                    if chunk.distances[i] > 0.0 {
                        let (distance, _) = exact.distance::<L>(pick.index, chunk.first + i);
                        if distance < chunk.distances[i] {
                            chunk.distances[i] = distance;
                            chunk.lows[i] = distance;
                            chunk.nearest[i] = pick.position;
                        }
                    }
                }
            }
            Some(bounds) => {
                // In two sweeps, so that the rows that the next one needs are on their way from memory meanwhile.
                let mut left = Vec::with_capacity(n);
                let slack = bounds.coarse_slack(pick.index);
                for (group, thresholds) in chunk.coarse.chunks(COLUMN).enumerate() {
                    let coarse = bounds.coarse::<L>(pick.center, chunk.first / COLUMN + group);
                    let mut near = 0u32;
                    for (lane, (coarse, &threshold)) in coarse.iter().zip(thresholds).enumerate() {
                        near |= u32::from(coarse.saturating_sub(slack) < u64::from(threshold)) << lane;
                    }
                    while near != 0 {
                        let i = group * COLUMN + near.trailing_zeros() as usize;
                        bounds.prefetch(chunk.first + i);
                        left.push(i);
                        near &= near - 1;
                    }
                }
                for i in left {
                    let (low, high) = bounds.range::<L>(pick.index, chunk.first + i);
                    if low < chunk.thresholds[i] {
                        let new = Candidate { position: pick.position, low: exact.at_least(low), exact: false };
                        chunk.consider(bounds, i, new, exact.at_most(high));
                        if chunk.candidates[i].len() == MOST_CANDIDATES {
                            chunk.decide::<L, D>(exact, bounds, picks, i);
                        }
                    }
                }
            }
        }
    }
    if let Some(i) = pick.index.checked_sub(chunk.first).filter(|&i| i < n) {
        chunk.set(bounds, i, pick.position);
    }
    // SAFETY: as above.
    unsafe { settle_with(lanes, exact, bounds, picks, largest(&chunk.lows), chunk) }
}

/// Floats that are not negative are ordered as their bits are, and the maximum of integers vectorises.
#[inline(always)]
fn largest(v: &[f64]) -> f64 {
    f64::from_bits(v.iter().map(|d| d.to_bits()).fold(0, u64::max))
}

for_each_simd! {
    /// Finds the nearest picks of all samples that may be as far as `floor` from theirs, and returns the farthest.
    pub(crate) fn settle<D: ExactDistance>(exact: &D, bounds: Option<&Bounds>, picks: &[usize], floor: f64, chunk: &mut Chunk) -> (usize, f64) = settle_with;
}

#[inline(always)]
unsafe fn settle_with<L: Lanes, D: ExactDistance>(
    _: L,
    exact: &D,
    bounds: Option<&Bounds>,
    picks: &[usize],
    floor: f64,
    chunk: &mut Chunk,
) -> (usize, f64) {
    let mut farthest = (usize::MAX, -1.0);
    for first in (0..chunk.distances.len()).step_by(COLUMN) {
        let group = first..chunk.distances.len().min(first + COLUMN);
        // Few samples are that far, so most groups are done at once.
        if !chunk.distances[group.clone()].iter().fold(false, |far, &d| far | (d >= floor)) {
            continue;
        }
        for i in group {
            if chunk.distances[i] < floor {
                continue;
            }
            if let Some(bounds) = bounds.filter(|_| !chunk.candidates[i].is_empty()) {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { chunk.decide::<L, D>(exact, bounds, picks, i) };
            }
            if chunk.distances[i] > farthest.1 {
                farthest = (chunk.first + i, chunk.distances[i]);
            }
        }
    }
    farthest
}
