//! Lower bounds on distances between samples, far cheaper than the distances.
//!
//! Three summaries of the fixed-point features, each a bound from below on their L1 distance `d`:
//! - coarse: `|ΣA - ΣB| ≤ Σ|a - b|` over blocks of [`COARSE`] neighbouring features of a layer, sixteen samples at once;
//! - fine: the same over blocks of [`FINE`];
//! - bytes: every feature to eight bits, `a = s·q + r`, so that `d ≥ s·Σ|q - q'| - Σ|r| - Σ|r'|`.
//!
//! All are in integers with their rounding taken off, so a bound can never lie above the distance.

use rayon::prelude::*;

use crate::Result;
use crate::aligned::AlignedMatrix;
use crate::ground::FixedFeatures;
use crate::l1::lanes::Lanes;
use crate::l1::tile::{COLUMN, byte_distance, column_maxima, short_distance};
use crate::task::Task;

/// Features of a coarse block.
pub const COARSE: usize = 32;
/// Features of a fine block.
pub const FINE: usize = 8;

/// Bits that a fixed-point feature fills.
const FEATURE_BITS: u32 = 31;

/// Blocks of neighbouring features, none of which crosses from one layer into the next.
#[derive(Clone, Copy)]
struct Blocks {
    per_layer: usize,
    size: usize,
    count: usize,
    /// Bits that are dropped from the sum of a block.
    shift: u32,
}

impl Blocks {
    /// `bits` are what the sum of a block is cut down to.
    fn new(features: usize, per_layer: usize, size: usize, bits: u32) -> Self {
        let sum_bits = FEATURE_BITS + size.min(per_layer).next_power_of_two().ilog2();
        let count = features / per_layer * per_layer.div_ceil(size);
        Self { per_layer, size, count, shift: sum_bits.saturating_sub(bits) }
    }

    fn sums(self, row: &[u32]) -> impl Iterator<Item = u64> {
        row.chunks_exact(self.per_layer)
            .flat_map(move |layer| layer.chunks(self.size))
            .map(move |block| block.iter().map(|&v| u64::from(v)).sum::<u64>() >> self.shift)
    }

    /// Every block sum may have lost just under one unit.
    fn bound(self, distance: u64) -> u64 {
        distance.saturating_sub(self.count as u64) << self.shift
    }
}

/// The summaries of all samples.
pub(crate) struct Bounds {
    coarse: Blocks,
    /// `[ceil(N / COLUMN)][blocks][COLUMN]`
    coarse_columns: Vec<u32>,
    coarse_sums: Vec<u32>,
    fine: Option<Fine>,
    bytes: AlignedMatrix<u8>,
    byte_shift: u32,
    remainders: Vec<u64>,
}

struct Fine {
    blocks: Blocks,
    sums: AlignedMatrix<u16>,
}

impl Bounds {
    /// Summarises `features`, `per_layer` of which belong to each layer.
    pub(crate) fn new(features: &FixedFeatures, per_layer: usize, task: &Task) -> Result<Self> {
        let features = &features.features;
        let (n, width) = (features.rows(), features.width());
        task.check()?;
        // Σ max over all blocks has to stay below 2^31, so that twice its difference to the sums fits into 32 bits.
        let blocks = Blocks::new(width, per_layer, COARSE, 0).count;
        let bits = (FEATURE_BITS - 1).saturating_sub(blocks.next_power_of_two().ilog2());
        let coarse = Blocks::new(width, per_layer, COARSE, bits);
        let mut coarse_columns = vec![0; n.div_ceil(COLUMN) * blocks * COLUMN];
        let mut coarse_sums = vec![0; n.next_multiple_of(COLUMN)];
        coarse_columns.par_chunks_mut(blocks * COLUMN).zip(coarse_sums.par_chunks_mut(COLUMN)).enumerate().for_each(
            |(group, (columns, sums))| {
                for (lane, total) in (0..COLUMN.min(n - group * COLUMN)).zip(sums) {
                    for (block, sum) in coarse.sums(&features.row(group * COLUMN + lane)[..width]).enumerate() {
                        columns[block * COLUMN + lane] = sum as u32;
                        *total += sum as u32;
                    }
                }
            },
        );
        task.check()?;
        // Where layers are so small that fine blocks are hardly finer, they only cost.
        let blocks = Blocks::new(width, per_layer, FINE, 15);
        let fine = (blocks.count >= 2 * coarse.count).then(|| Fine::new(features, blocks)).transpose()?;
        task.check()?;
        let (bytes, byte_shift, remainders) = to_bytes(features)?;
        Ok(Self { coarse, coarse_columns, coarse_sums, fine, bytes, byte_shift, remainders })
    }

    /// The coarse summary of sample `i`, in the form that [`Bounds::coarse`] takes.
    pub(crate) fn coarse_center(&self, i: usize) -> Vec<u32> {
        let columns = self.coarse_group(i / COLUMN);
        columns.iter().skip(i % COLUMN).step_by(COLUMN).copied().collect()
    }

    fn coarse_group(&self, group: usize) -> &[u32] {
        let size = self.coarse.count * COLUMN;
        &self.coarse_columns[group * size..(group + 1) * size]
    }

    /// Coarse distances, in coarse units, from sample `i` to the samples `group * COLUMN ..`.
    ///
    /// # Safety
    /// The instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn coarse<L: Lanes>(&self, i: usize, center: &[u32], group: usize) -> [u32; COLUMN] {
        let mut out = [0; COLUMN];
        // SAFETY: the caller vouches for the instruction set.
        unsafe { column_maxima::<L>(center, self.coarse_group(group), &mut out) };
        let own = self.coarse_sums[i];
        for (out, sum) in out.iter_mut().zip(&self.coarse_sums[group * COLUMN..]) {
            *out = (2 * *out).wrapping_sub(own).wrapping_sub(*sum);
        }
        out
    }

    /// The smallest coarse distance whose bound reaches `threshold`.
    pub(crate) fn coarse_threshold(&self, threshold: u64) -> u32 {
        let units = threshold.div_ceil(1 << self.coarse.shift).saturating_add(self.coarse.count as u64);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Whether the finer summaries show that samples `i` and `j` are at least `threshold` apart.
    ///
    /// # Safety
    /// The instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn apart<L: Lanes>(&self, i: usize, j: usize, threshold: u64) -> bool {
        if let Some(fine) = &self.fine {
            // SAFETY: the caller vouches for the instruction set.
            let distance = unsafe { short_distance::<L>(fine.sums.row(i), fine.sums.row(j)) };
            if fine.blocks.bound(distance) >= threshold {
                return true;
            }
        }
        // SAFETY: the caller vouches for the instruction set.
        let distance = unsafe { byte_distance::<L>(self.bytes.row(i), self.bytes.row(j)) };
        (distance << self.byte_shift).saturating_sub(self.remainders[i] + self.remainders[j]) >= threshold
    }
}

impl Fine {
    fn new(features: &AlignedMatrix<u32>, blocks: Blocks) -> Result<Self> {
        let width = features.width();
        let mut sums = AlignedMatrix::<u16>::zeroed(features.rows(), blocks.count, "the pruning bounds")?;
        let stride = sums.stride();
        sums.as_mut_slice().par_chunks_mut(stride).enumerate().for_each(|(i, out)| {
            for (out, sum) in out.iter_mut().zip(blocks.sums(&features.row(i)[..width])) {
                *out = sum as u16;
            }
        });
        Ok(Self { blocks, sums })
    }
}

/// Eight bits of each feature, after the smallest value of the feature is taken off; how many bits those stand above
/// the last; and the sum of what each row lost.
fn to_bytes(features: &AlignedMatrix<u32>) -> Result<(AlignedMatrix<u8>, u32, Vec<u64>)> {
    let (low, high) = features.column_range();
    let range = high.iter().zip(&low).map(|(h, l)| h - l).max().unwrap_or(0);
    let whole = (u32::BITS - range.leading_zeros()).saturating_sub(8);
    // A few wide features would waste the bits of all others, so larger values may be cut off where that loses less.
    let stride = (features.rows() / 64).max(1);
    let loss = |shift: u32| -> u64 {
        (0..features.rows())
            .step_by(stride)
            .map(|i| features.row(i).iter().zip(&low).map(|(v, l)| split(v - l, shift).1).sum::<u64>())
            .sum()
    };
    let shift = (whole.saturating_sub(4)..=whole).min_by_key(|&shift| loss(shift)).unwrap_or(whole);
    let mut bytes = AlignedMatrix::<u8>::zeroed(features.rows(), features.width(), "the pruning bounds")?;
    let row_length = bytes.stride();
    let remainders = bytes
        .as_mut_slice()
        .par_chunks_mut(row_length)
        .enumerate()
        .map(|(i, out)| {
            let mut lost = 0;
            for ((out, v), l) in out.iter_mut().zip(features.row(i)).zip(&low) {
                let (byte, remainder) = split(v - l, shift);
                *out = byte;
                lost += remainder;
            }
            lost
        })
        .collect();
    Ok((bytes, shift, remainders))
}

/// `v` as a byte times 2^shift, and how far that is off. The byte stands for the middle of what it covers.
fn split(v: u32, shift: u32) -> (u8, u64) {
    let byte = (v >> shift).min(255);
    let middle = (u64::from(byte) << shift) + (1 << shift) / 2;
    (byte as u8, u64::from(v).abs_diff(middle))
}
