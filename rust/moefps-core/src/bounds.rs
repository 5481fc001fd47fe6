//! Lower bounds on distances between samples, far cheaper than the distances.
//!
//! Three summaries of the fixed-point features, each a bound from below on their L1 distance `d`:
//! - coarse: `|ΣA - ΣB| ≤ Σ|a - b|` over blocks of [`COARSE`] neighbouring features of a layer, sixteen samples at once;
//! - fine: the same over smaller blocks;
//! - bytes: every feature to eight bits, `a = s·q + r`, so that `d ≥ s·Σ|q - q'| - Σ|r| - Σ|r'|`.
//!
//! All are in integers with their rounding taken off, so a bound can never lie above the distance.

use rayon::prelude::*;

use crate::Result;
use crate::aligned::AlignedMatrix;
use crate::ground::FixedFeatures;
use crate::l1::lanes::Lanes;
use crate::l1::tile::{COLUMN, byte_distance, column_maxima, short_distance};
use crate::l1::{Simd, for_each_simd, prefetch};
use crate::task::Task;

/// Features of a coarse block.
const COARSE: usize = 32;

/// Features of a fine block: fewer where layers are small.
fn fine_size(per_layer: usize) -> usize {
    per_layer.div_ceil(8).next_power_of_two().clamp(2, 8)
}

/// Rows that decide how features are cut down to bytes.
const SAMPLED_ROWS: usize = 128;

/// Bits that a fixed-point feature fills.
const FEATURE_BITS: u32 = 31;

/// Blocks of neighbouring features, none of which crosses from one layer into the next.
#[derive(Clone, Copy)]
struct Blocks {
    count: usize,
    /// Bits that are dropped from the sum of a block.
    shift: u32,
}

impl Blocks {
    /// Blocks of `size`, whose sums are cut down to what `bits` says for their count.
    fn new(features: usize, per_layer: usize, size: usize, bits: impl Fn(usize) -> u32) -> Self {
        let sum_bits = FEATURE_BITS + size.min(per_layer).next_power_of_two().ilog2();
        let count = features / per_layer * per_layer.div_ceil(size);
        Self { count, shift: sum_bits.saturating_sub(bits(count)) }
    }

    /// Every block sum may have lost just under one unit.
    fn bound(self, distance: u64) -> u64 {
        distance.saturating_sub(self.count as u64) << self.shift
    }
}

/// The summaries of all samples.
pub(crate) struct Bounds {
    layout: Layout,
    /// `[ceil(N / COLUMN)][coarse blocks][COLUMN]`
    coarse_columns: Vec<u32>,
    coarse_sums: Vec<u32>,
    fine: AlignedMatrix<u16>,
    bytes: AlignedMatrix<u8>,
    remainders: Vec<u64>,
}

/// How summaries are made of features.
struct Layout {
    per_layer: usize,
    coarse: Blocks,
    fine: Blocks,
    fine_size: usize,
    /// About the smallest value of each feature, taken off before it is cut down to a byte.
    low: Vec<u32>,
    byte_shift: u32,
}

impl Layout {
    fn new(features: &AlignedMatrix<u32>, per_layer: usize) -> Self {
        let width = features.width();
        // Σ max over all coarse blocks stays below 2^31, so that twice its difference to the sums fits into 32 bits.
        let coarse_bits = |blocks: usize| (FEATURE_BITS - 1).saturating_sub(blocks.next_power_of_two().ilog2());
        let coarse = Blocks::new(width, per_layer, COARSE, coarse_bits);
        let fine_size = fine_size(per_layer);
        let fine = Blocks::new(width, per_layer, fine_size, |_| 15);

        // A bound holds whatever is taken off and cut off, so a few rows may decide.
        let rows = (0..features.rows()).step_by(features.rows().div_ceil(SAMPLED_ROWS));
        let (mut low, mut high) = (vec![u32::MAX; width], vec![0; width]);
        for i in rows.clone() {
            low.iter_mut().zip(features.row(i)).for_each(|(low, &v)| *low = v.min(*low));
            high.iter_mut().zip(features.row(i)).for_each(|(high, &v)| *high = v.max(*high));
        }
        let range = high.iter().zip(&low).map(|(h, l)| h - l).max().unwrap_or(0);
        let whole = (u32::BITS - range.leading_zeros()).saturating_sub(8);
        // A few wide features would waste the bits of all others: larger values are cut off where that loses less.
        let loss = |shift: u32| -> u64 { rows.clone().step_by(8).map(|i| lost(features.row(i), &low, shift)).sum() };
        let byte_shift = (whole.saturating_sub(4)..=whole).min_by_key(|&shift| loss(shift)).unwrap_or(whole);
        Self { per_layer, coarse, fine, fine_size, low, byte_shift }
    }

    /// Bytes and blocks of one row; `sums` is room for the fine block sums before they are cut down. Returns what the
    /// bytes lost.
    #[inline(always)]
    fn summarize(
        &self,
        row: &[u32],
        sums: &mut [u64],
        coarse: impl FnMut((usize, u64)),
        fine: &mut [u16],
        bytes: &mut [u8],
    ) -> u64 {
        match self.fine_size {
            2 => block_sums::<2>(row, self.per_layer, sums),
            4 => block_sums::<4>(row, self.per_layer, sums),
            _ => block_sums::<8>(row, self.per_layer, sums),
        }
        for (out, sum) in fine.iter_mut().zip(&*sums) {
            *out = (sum >> self.fine.shift) as u16;
        }
        sums.chunks_exact(self.per_layer.div_ceil(self.fine_size))
            .flat_map(|layer| layer.chunks(COARSE / self.fine_size))
            .map(|block| block.iter().sum::<u64>() >> self.coarse.shift)
            .enumerate()
            .for_each(coarse);
        let mut lost = 0;
        for ((out, &v), &low) in bytes.iter_mut().zip(row).zip(&self.low) {
            let (byte, remainder) = split(v, low, self.byte_shift);
            *out = byte;
            lost += u64::from(remainder);
        }
        lost
    }
}

/// Sums of `S` neighbouring features.
#[inline(always)]
fn block_sums<const S: usize>(row: &[u32], per_layer: usize, sums: &mut [u64]) {
    let layers = row.chunks_exact(per_layer).zip(sums.chunks_exact_mut(per_layer.div_ceil(S)));
    for (layer, sums) in layers {
        let (blocks, rest) = layer.as_chunks::<S>();
        for (sum, block) in sums.iter_mut().zip(blocks) {
            *sum = block.iter().map(|&v| u64::from(v)).sum();
        }
        if let (Some(sum), false) = (sums.last_mut(), rest.is_empty()) {
            *sum = rest.iter().map(|&v| u64::from(v)).sum();
        }
    }
}

/// `v` above `low` as a byte times 2^shift, and how far that is off. A byte stands for the middle of what it covers.
#[inline(always)]
fn split(v: u32, low: u32, shift: u32) -> (u8, u32) {
    let byte = (v.saturating_sub(low) >> shift).min(255);
    let middle = low + (byte << shift) + (1 << shift) / 2;
    (byte as u8, v.abs_diff(middle))
}

fn lost(row: &[u32], low: &[u32], shift: u32) -> u64 {
    row.iter().zip(low).map(|(&v, &low)| u64::from(split(v, low, shift).1)).sum()
}

/// The summaries of up to [`COLUMN`] samples.
struct Group<'a> {
    coarse_columns: &'a mut [u32],
    coarse_sums: &'a mut [u32],
    fine: &'a mut [u16],
    bytes: &'a mut [u8],
    remainders: &'a mut [u64],
}

for_each_simd! {
    /// Summarises the samples `first ..` that `group` has room for.
    fn summarize_group(layout: &Layout, features: &AlignedMatrix<u32>, first: usize, group: Group<'_>) = summarize_group_with;
}

#[inline(always)]
unsafe fn summarize_group_with<L: Lanes>(
    _: L,
    layout: &Layout,
    features: &AlignedMatrix<u32>,
    first: usize,
    group: Group<'_>,
) {
    let rows = group.remainders.len();
    let mut sums = vec![0; layout.fine.count];
    let fine = group.fine.chunks_exact_mut(group.fine.len() / rows);
    let bytes = group.bytes.chunks_exact_mut(group.bytes.len() / rows);
    for (lane, ((fine, bytes), remainder)) in fine.zip(bytes).zip(group.remainders).enumerate() {
        let row = &features.row(first + lane)[..features.width()];
        let coarse = |(block, sum): (usize, u64)| {
            group.coarse_columns[block * COLUMN + lane] = sum as u32;
            group.coarse_sums[lane] += sum as u32;
        };
        *remainder = layout.summarize(row, &mut sums, coarse, &mut fine[..layout.fine.count], bytes);
    }
}

impl Bounds {
    /// Summarises `features`, `per_layer` of which belong to each layer.
    pub(crate) fn new(simd: Simd, features: &FixedFeatures, per_layer: usize, task: &Task) -> Result<Self> {
        let features = &features.features;
        let (n, layout) = (features.rows(), Layout::new(features, per_layer));
        let columns = layout.coarse.count * COLUMN;
        let mut coarse_columns = vec![0; n.div_ceil(COLUMN) * columns];
        let mut coarse_sums = vec![0; n.next_multiple_of(COLUMN)];
        let mut fine = AlignedMatrix::<u16>::zeroed(n, layout.fine.count, "the pruning bounds")?;
        let mut bytes = AlignedMatrix::<u8>::zeroed(n, features.width(), "the pruning bounds")?;
        let mut remainders = vec![0; n];
        let (fine_group, byte_group) = (fine.stride() * COLUMN, bytes.stride() * COLUMN);
        coarse_columns
            .par_chunks_mut(columns)
            .zip(coarse_sums.par_chunks_mut(COLUMN))
            .zip(fine.as_mut_slice().par_chunks_mut(fine_group))
            .zip(bytes.as_mut_slice().par_chunks_mut(byte_group))
            .zip(remainders.par_chunks_mut(COLUMN))
            .enumerate()
            .try_for_each(|(i, ((((coarse_columns, coarse_sums), fine), bytes), remainders))| {
                task.check()?;
                let group = Group { coarse_columns, coarse_sums, fine, bytes, remainders };
                summarize_group(simd, &layout, features, i * COLUMN, group);
                Ok(())
            })?;
        Ok(Self { layout, coarse_columns, coarse_sums, fine, bytes, remainders })
    }

    /// The coarse summary of sample `i`, in the form that [`Bounds::coarse`] takes.
    pub(crate) fn coarse_center(&self, i: usize) -> Vec<u32> {
        let columns = self.coarse_group(i / COLUMN);
        columns.iter().skip(i % COLUMN).step_by(COLUMN).copied().collect()
    }

    fn coarse_group(&self, group: usize) -> &[u32] {
        let size = self.layout.coarse.count * COLUMN;
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

    /// Has the finer summaries of sample `i` fetched into the cache.
    #[inline(always)]
    pub(crate) fn prefetch(&self, i: usize) {
        prefetch(self.fine.row(i));
        prefetch(self.bytes.row(i));
    }

    /// The smallest coarse distance whose bound reaches `threshold`.
    pub(crate) fn coarse_threshold(&self, threshold: u64) -> u32 {
        let units = threshold.div_ceil(1 << self.layout.coarse.shift).saturating_add(self.layout.coarse.count as u64);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Whether the finer summaries show that samples `i` and `j` are at least `threshold` apart.
    ///
    /// # Safety
    /// The instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn apart<L: Lanes>(&self, i: usize, j: usize, threshold: u64) -> bool {
        // SAFETY: the caller vouches for the instruction set.
        let fine = unsafe { short_distance::<L>(self.fine.row(i), self.fine.row(j)) };
        if self.layout.fine.bound(fine) >= threshold {
            return true;
        }
        // SAFETY: the caller vouches for the instruction set.
        let bytes = unsafe { byte_distance::<L>(self.bytes.row(i), self.bytes.row(j)) };
        (bytes << self.layout.byte_shift).saturating_sub(self.remainders[i] + self.remainders[j]) >= threshold
    }
}
