//! Bounds on distances between samples, far cheaper than the distances.
//!
//! Numbers are cut down to bytes, `a = s·q + r`, so that their L1 distance is within `Σ|r| + Σ|r'|` of `s·Σ|q - q'|`.
//! That is done with
//! - every feature, for bounds on both sides;
//! - coarse: the sums of blocks of neighbouring features of a layer, many samples at once, for a bound from below:
//!   `|ΣA - ΣB| ≤ Σ|a - b|`.
//!
//! All are in integers with their rounding taken off, so a distance can never lie outside its bounds.

use rayon::prelude::*;

use crate::Result;
use crate::aligned::AlignedMatrix;
use crate::ground::FixedFeatures;
use crate::l1::lanes::Lanes;
use crate::l1::tile::{COLUMN, WORD, byte_distance, column_distances};
use crate::l1::{Simd, for_each_simd, prefetch};
use crate::task::Task;

/// Features of a block: about four blocks to a layer, but no longer ones than this.
const LONGEST_BLOCK: usize = 16;

/// Rows that decide how numbers are cut down to bytes.
const SAMPLED_ROWS: usize = 128;

/// The summaries of all samples.
pub(crate) struct Bounds {
    layout: Layout,
    /// `[ceil(N / COLUMN)][coarse words][COLUMN][WORD]`
    coarse: AlignedMatrix<u8>,
    coarse_lost: Vec<u32>,
    bytes: AlignedMatrix<u8>,
    lost: Vec<u64>,
}

/// How summaries are made of features.
struct Layout {
    blocks: Blocks,
    coarse: Scale,
    bytes: Scale,
}

impl Layout {
    fn new(features: &AlignedMatrix<u32>, per_layer: usize) -> Self {
        let blocks = Blocks::new(features.width(), per_layer);
        // A bound holds whatever is taken off and cut off, so a few rows may decide.
        let rows = (0..features.rows()).step_by(features.rows().div_ceil(SAMPLED_ROWS));
        let rows: Vec<&[u32]> = rows.map(|i| &features.row(i)[..features.width()]).collect();
        let sums: Vec<Vec<u32>> = rows
            .iter()
            .map(|row| {
                let mut sums = vec![0; blocks.count];
                blocks.sum(row, &mut sums);
                sums
            })
            .collect();
        let sums: Vec<&[u32]> = sums.iter().map(Vec::as_slice).collect();
        Self { blocks, coarse: Scale::new(&sums), bytes: Scale::new(&rows) }
    }
}

/// Blocks of neighbouring features, none of which crosses from one layer into the next.
struct Blocks {
    per_layer: usize,
    size: usize,
    count: usize,
}

impl Blocks {
    fn new(features: usize, per_layer: usize) -> Self {
        let size = per_layer.div_ceil(4).next_power_of_two().clamp(2, LONGEST_BLOCK);
        Self { per_layer, size, count: features / per_layer * per_layer.div_ceil(size) }
    }

    /// Bits that each feature loses, so that the sum of a block fits into as many as a feature has.
    fn shift(&self) -> u32 {
        self.size.ilog2()
    }

    /// What that takes off the distance of two samples at most, in units of the sums.
    fn lost(&self) -> u64 {
        (self.count * self.size) as u64
    }

    #[inline(always)]
    fn sum(&self, row: &[u32], sums: &mut [u32]) {
        match self.size {
            2 => block_sums::<2>(row, self.per_layer, sums),
            4 => block_sums::<4>(row, self.per_layer, sums),
            8 => block_sums::<8>(row, self.per_layer, sums),
            _ => block_sums::<LONGEST_BLOCK>(row, self.per_layer, sums),
        }
    }
}

/// Sums of `S` neighbouring features.
#[inline(always)]
fn block_sums<const S: usize>(row: &[u32], per_layer: usize, sums: &mut [u32]) {
    let layers = row.chunks_exact(per_layer).zip(sums.chunks_exact_mut(per_layer.div_ceil(S)));
    for (layer, sums) in layers {
        let (blocks, rest) = layer.as_chunks::<S>();
        for (sum, block) in sums.iter_mut().zip(blocks) {
            *sum = block.iter().map(|&v| v >> S.ilog2()).sum();
        }
        if let (Some(sum), false) = (sums.last_mut(), rest.is_empty()) {
            *sum = rest.iter().map(|&v| v >> S.ilog2()).sum();
        }
    }
}

/// How numbers are cut down to bytes.
struct Scale {
    /// About the smallest value of each, taken off before.
    low: Vec<u32>,
    shift: u32,
}

impl Scale {
    fn new(rows: &[&[u32]]) -> Self {
        let (mut low, mut high) = (rows[0].to_vec(), rows[0].to_vec());
        for row in rows {
            low.iter_mut().zip(*row).for_each(|(low, &v)| *low = v.min(*low));
            high.iter_mut().zip(*row).for_each(|(high, &v)| *high = v.max(*high));
        }
        let range = high.iter().zip(&low).map(|(h, l)| h - l).max().unwrap_or(0);
        let whole = (u32::BITS - range.leading_zeros()).saturating_sub(8);
        // A few wide ones would waste the bits of all others: larger values are cut off where that loses less.
        let lost = |row: &[u32], shift| -> u64 { row.iter().zip(&low).map(|(&v, &l)| cut(v, l, shift).1).sum() };
        let loss = |&shift: &u32| -> u64 { rows.iter().step_by(8).map(|row| lost(row, shift)).sum() };
        let shift = (whole.saturating_sub(4)..=whole).min_by_key(loss).unwrap_or(whole);
        Self { low, shift }
    }

    /// Cuts a row down and returns what it lost.
    #[inline(always)]
    fn cut(&self, row: &[u32], bytes: &mut [u8]) -> u64 {
        let mut lost = 0;
        for ((out, &v), &low) in bytes.iter_mut().zip(row).zip(&self.low) {
            let (byte, remainder) = cut(v, low, self.shift);
            *out = byte;
            lost += remainder;
        }
        lost
    }
}

/// `v` above `low` as a byte times 2^shift, and how far that is off. A byte stands for the middle of what it covers.
#[inline(always)]
fn cut(v: u32, low: u32, shift: u32) -> (u8, u64) {
    let byte = (v.saturating_sub(low) >> shift).min(255);
    let middle = low + (byte << shift) + (1 << shift) / 2;
    (byte as u8, u64::from(v.abs_diff(middle)))
}

/// The summaries of up to [`COLUMN`] samples.
struct Group<'a> {
    coarse: &'a mut [u8],
    coarse_lost: &'a mut [u32],
    bytes: &'a mut [u8],
    lost: &'a mut [u64],
}

for_each_simd! {
    /// Summarises the samples `first ..` that `group` has room for.
    fn summarize(layout: &Layout, features: &AlignedMatrix<u32>, first: usize, group: Group<'_>) = summarize_with;
}

#[inline(always)]
unsafe fn summarize_with<L: Lanes>(
    _: L,
    layout: &Layout,
    features: &AlignedMatrix<u32>,
    first: usize,
    group: Group<'_>,
) {
    let mut sums = vec![0; layout.blocks.count];
    let mut coarse = vec![0; layout.blocks.count];
    let rows = group.bytes.chunks_exact_mut(group.bytes.len() / group.lost.len());
    for (lane, (bytes, lost)) in rows.zip(group.lost).enumerate() {
        let row = &features.row(first + lane)[..features.width()];
        *lost = layout.bytes.cut(row, bytes);
        layout.blocks.sum(row, &mut sums);
        let coarse_lost = layout.coarse.cut(&sums, &mut coarse);
        group.coarse_lost[lane] = whole_units(coarse_lost, layout.coarse.shift);
        for (word, bytes) in coarse.chunks(WORD).enumerate() {
            group.coarse[(word * COLUMN + lane) * WORD..][..bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// The smallest number of units `2^shift` that are not below `v`.
fn whole_units(v: u64, shift: u32) -> u32 {
    u32::try_from(v.div_ceil(1 << shift)).unwrap_or(u32::MAX)
}

impl Bounds {
    /// Summarises `features`, `per_layer` of which belong to each layer.
    pub(crate) fn new(simd: Simd, features: &FixedFeatures, per_layer: usize, task: &Task) -> Result<Self> {
        let features = &features.features;
        let (n, layout) = (features.rows(), Layout::new(features, per_layer));
        let words = layout.blocks.count.div_ceil(WORD);
        let mut coarse = AlignedMatrix::<u8>::zeroed(n.div_ceil(COLUMN), words * COLUMN * WORD, "the pruning bounds")?;
        let mut coarse_lost = vec![0; n];
        let mut bytes = AlignedMatrix::<u8>::zeroed(n, features.width(), "the pruning bounds")?;
        let mut lost = vec![0; n];
        let (coarse_stride, byte_stride) = (coarse.stride(), bytes.stride());
        (coarse.as_mut_slice().par_chunks_mut(coarse_stride), coarse_lost.par_chunks_mut(COLUMN))
            .into_par_iter()
            .zip((bytes.as_mut_slice().par_chunks_mut(byte_stride * COLUMN), lost.par_chunks_mut(COLUMN)))
            .enumerate()
            .try_for_each(|(i, ((coarse, coarse_lost), (bytes, lost)))| {
                task.check()?;
                summarize(simd, &layout, features, i * COLUMN, Group { coarse, coarse_lost, bytes, lost });
                Ok(())
            })?;
        Ok(Self { layout, coarse, coarse_lost, bytes, lost })
    }

    /// The coarse summary of sample `i`, each word of it once for every word of a vector.
    pub(crate) fn coarse_center(&self, i: usize) -> Vec<[[u8; WORD]; WORD]> {
        let (words, _) = self.coarse.row(i / COLUMN).as_chunks::<WORD>();
        let own = words.iter().skip(i % COLUMN).step_by(COLUMN);
        own.take(self.layout.blocks.count.div_ceil(WORD)).map(|&word| [word; WORD]).collect()
    }

    /// Coarse distances from sample `i` to the samples `group * COLUMN ..`, as [`Bounds::coarse_threshold`] has them.
    ///
    /// # Safety
    /// The instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn coarse<L: Lanes>(&self, center: &[[[u8; WORD]; WORD]], group: usize) -> [u64; COLUMN] {
        let columns = &self.coarse.row(group)[..center.len() * COLUMN * WORD];
        let mut out = [0; COLUMN];
        // SAFETY: the caller vouches for the instruction set.
        unsafe { column_distances::<L>(center, columns, &mut out) };
        out
    }

    /// What a sample's own rounding takes off coarse distances to it.
    pub(crate) fn coarse_slack(&self, i: usize) -> u64 {
        u64::from(self.coarse_lost[i])
    }

    /// The coarse distance, [`Bounds::coarse_slack`] of the other sample taken off, from which on samples are at least
    /// `threshold` away from sample `j`.
    pub(crate) fn coarse_threshold(&self, j: usize, threshold: u64) -> u32 {
        let Layout { blocks, coarse, .. } = &self.layout;
        if threshold == 0 {
            return 0;
        }
        let units = whole_units(threshold, blocks.shift() + coarse.shift);
        units.saturating_add(whole_units(blocks.lost(), coarse.shift)).saturating_add(self.coarse_lost[j])
    }

    /// Has the bytes of sample `i` fetched into the cache.
    #[inline(always)]
    pub(crate) fn prefetch(&self, i: usize) {
        prefetch(self.bytes.row(i));
    }

    /// What the distance of samples `i` and `j` cannot be below, and what it cannot be above.
    ///
    /// # Safety
    /// The instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn range<L: Lanes>(&self, i: usize, j: usize) -> (u64, u64) {
        // SAFETY: the caller vouches for the instruction set.
        let bytes = unsafe { byte_distance::<L>(self.bytes.row(i), self.bytes.row(j)) };
        let (middle, lost) = (bytes << self.layout.bytes.shift, self.lost[i] + self.lost[j]);
        (middle.saturating_sub(lost), middle + lost)
    }
}
