//! The distance matrix, tile by tile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use crate::aligned::AlignedMatrix;
use crate::ground::{FixedFeatures, FloatFeatures, Ground};
use crate::l1::Simd;
use crate::l1::tile::{FLOAT_CHUNK, Panel, add_float_differences, add_maxima, group_ends};
use crate::output::{Element, Output};
use crate::sample::Samples;
use crate::task::Task;
use crate::{Error, Result};

/// Rows and columns of a tile.
const TILE: usize = 128;

/// Fixed-point features taken at a time: 4 rows of the left side stay in the L1 cache while the right side of a tile,
/// 128 rows of 1024 features, comes from the L2 cache.
const FIXED_CHUNK: usize = 1024;

/// Which pairs are wanted and how they are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// `[N, N]`, each with each.
    Square,
    /// `[N (N - 1) / 2]`, the upper triangle row by row, as SciPy's `pdist` gives it.
    Condensed,
}

/// Distances between all samples, in the arithmetic of `T`: f32 for fixed point, f64 for floats.
///
/// # Errors
/// Samples that are no distributions, an unknown instruction set, [`Error::Cancelled`], or the output's error.
pub fn matrix<T: Arithmetic>(
    samples: &Samples<'_>,
    ground: &Ground,
    pairs: Pairs,
    output: &dyn Output<T>,
    task: &Task,
) -> Result<()> {
    let simd = Simd::choose()?;
    let n = samples.shape().0;
    let tiles = upper_tiles(n);
    announce(ground, n, &tiles, task);
    let mut features = [T::features(ground, samples, task)?];
    let prepared = T::prepare(&mut features, simd);
    let [features] = &features;
    for_each_tile(&tiles, ground, task, |tile, scratch, block: &mut Vec<T>| {
        T::distances(simd, &prepared, features, features, tile, scratch, block);
        store_upper(tile, block, n, pairs, output)
    })
}

/// Distances between every sample of `left` and every sample of `right`, `[N, M]`.
///
/// # Errors
/// As [`matrix`].
pub fn cross<T: Arithmetic>(
    left: &Samples<'_>,
    right: &Samples<'_>,
    ground: &Ground,
    output: &dyn Output<T>,
    task: &Task,
) -> Result<()> {
    let simd = Simd::choose()?;
    let (n, m) = (left.shape().0, right.shape().0);
    let tiles = all_tiles(n, m);
    announce(ground, n + m, &tiles, task);
    let mut features = [T::features(ground, left, task)?, T::features(ground, right, task)?];
    let prepared = T::prepare(&mut features, simd);
    let [a, b] = &features;
    for_each_tile(&tiles, ground, task, |tile, scratch, block: &mut Vec<T>| {
        T::distances(simd, &prepared, a, b, tile, scratch, block);
        for (r, run) in block.chunks_exact(tile.columns).enumerate() {
            output.put((tile.row + r) * m + tile.column, run)?;
        }
        Ok(())
    })
}

/// A block of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

fn all_tiles(n: usize, m: usize) -> Vec<Tile> {
    let starts = |n: usize| (0..n).step_by(TILE).map(move |at| (at, TILE.min(n - at)));
    starts(n)
        .flat_map(|(row, rows)| starts(m).map(move |(column, columns)| Tile { row, column, rows, columns }))
        .collect()
}

fn upper_tiles(n: usize) -> Vec<Tile> {
    all_tiles(n, n).into_iter().filter(|tile| tile.column >= tile.row).collect()
}

fn announce(ground: &Ground, samples: usize, tiles: &[Tile], task: &Task) {
    task.announce(ground.units(samples) + tiles.iter().map(|t| units(t, ground)).sum::<u64>());
}

fn units(tile: &Tile, ground: &Ground) -> u64 {
    (tile.rows * tile.columns * ground.features()) as u64
}

/// Runs `work(tile, scratch, block)` for all tiles, in their order as far as the threads allow, so that a file grows
/// from its start.
fn for_each_tile<T: Arithmetic>(
    tiles: &[Tile],
    ground: &Ground,
    task: &Task,
    work: impl Fn(&Tile, &mut Vec<T::Sum>, &mut Vec<T>) -> Result<()> + Sync,
) -> Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    rayon::broadcast(|_| {
        let (mut scratch, mut block) = (Vec::new(), Vec::new());
        while let Some(tile) = tiles.get(next.fetch_add(1, Relaxed)) {
            match task.check().and_then(|()| work(tile, &mut scratch, &mut block)) {
                Ok(()) => task.advance(units(tile, ground)),
                Err(error) => {
                    next.store(tiles.len(), Relaxed);
                    if let Ok(mut failure) = failure.lock() {
                        failure.get_or_insert(error);
                    }
                }
            }
        }
    });
    match failure.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => Err(Error::Cancelled),
    }
}

fn store_upper<T: Element>(tile: &Tile, block: &[T], n: usize, pairs: Pairs, output: &dyn Output<T>) -> Result<()> {
    let &Tile { row, column, rows, columns } = tile;
    if pairs == Pairs::Condensed {
        for (i, run) in (row..).zip(block.chunks_exact(columns)) {
            let skip = (i + 1).saturating_sub(column);
            if skip < columns {
                // Rows before i hold n-1, n-2, … elements.
                let start = i * (2 * n - i - 1) / 2;
                output.put(start + column + skip - i - 1, &run[skip..])?;
            }
        }
        return Ok(());
    }
    for (i, run) in (row..).zip(block.chunks_exact(columns)) {
        output.put(i * n + column, run)?;
    }
    if row != column {
        let mut mirrored = vec![T::zeroed(); rows];
        for c in 0..columns {
            for (mirrored, run) in mirrored.iter_mut().zip(block.chunks_exact(columns)) {
                *mirrored = run[c];
            }
            output.put((column + c) * n + row, &mirrored)?;
        }
    }
    Ok(())
}

/// One of the two ways to compute: f32 over fixed-point features, f64 over float features.
pub trait Arithmetic: Element {
    /// What a distance is added up in.
    type Sum;
    /// The features of all samples.
    type Features: Sync;
    /// What is known of the features before the first tile.
    type Prepared: Sync;

    /// Computes the features.
    ///
    /// # Errors
    /// As [`Ground::fixed`].
    fn features(ground: &Ground, samples: &Samples<'_>, task: &Task) -> Result<Self::Features>;
    /// Readies the features of both sides for tiles.
    fn prepare(features: &mut [Self::Features], simd: Simd) -> Self::Prepared;
    /// Fills `block` with the distances of a tile, row by row.
    fn distances(
        simd: Simd,
        prepared: &Self::Prepared,
        left: &Self::Features,
        right: &Self::Features,
        tile: &Tile,
        scratch: &mut Vec<Self::Sum>,
        block: &mut Vec<Self>,
    );
}

/// See [`Arithmetic::Prepared`].
pub struct Plan {
    /// Ends of ranges of features, see [`group_ends`].
    groups: Vec<usize>,
}

/// Fixed-point features ready for tiles.
pub struct Shifted {
    features: FixedFeatures,
    /// The sum of each row.
    sums: Vec<u64>,
}

impl Arithmetic for f32 {
    type Sum = u64;
    type Features = Shifted;
    type Prepared = Plan;

    fn features(ground: &Ground, samples: &Samples<'_>, task: &Task) -> Result<Shifted> {
        Ok(Shifted { features: ground.fixed(samples, task)?, sums: Vec::new() })
    }

    /// Subtracts from each feature the smallest value that any sample has: differences stay what they are, and the
    /// smaller numbers overflow later, so that more maxima are added before they have to be widened.
    fn prepare(features: &mut [Shifted], simd: Simd) -> Plan {
        let width = features[0].features.features.width();
        let mut low = vec![u32::MAX; width];
        let mut high = vec![0; width];
        for side in features.iter() {
            let (l, h) = side.features.features.column_range();
            low.iter_mut().zip(l).for_each(|(a, b)| *a = (*a).min(b));
            high.iter_mut().zip(h).for_each(|(a, b)| *a = (*a).max(b));
        }
        for side in features.iter_mut() {
            side.sums = shift_columns(&mut side.features.features, &low);
        }
        let largest: Vec<u32> = high.iter().zip(&low).map(|(h, l)| h - l).collect();
        Plan { groups: group_ends(&largest, simd.lanes()) }
    }

    fn distances(
        simd: Simd,
        plan: &Plan,
        left: &Shifted,
        right: &Shifted,
        tile: &Tile,
        sums: &mut Vec<u64>,
        block: &mut Vec<Self>,
    ) {
        sums.clear();
        sums.resize(tile.rows * tile.columns, 0);
        let (a, b) = panels(&left.features.features, &right.features.features, tile);
        let (mut from, mut first) = (0, 0);
        while first < plan.groups.len() {
            let count = plan.groups[first..].partition_point(|&end| end <= from + FIXED_CHUNK).max(1);
            let groups = &plan.groups[first..first + count];
            add_maxima(simd, a, b, from, groups, sums);
            from = groups[count - 1];
            first += count;
        }
        let unit = left.features.unit;
        block.clear();
        for (row, maxima) in left.sums[tile.row..].iter().zip(sums.chunks_exact(tile.columns)) {
            let columns = &right.sums[tile.column..tile.column + tile.columns];
            block.extend(maxima.iter().zip(columns).map(|(m, c)| ((2 * m - row - c) as f64 * unit) as f32));
        }
    }
}

impl Arithmetic for f64 {
    type Sum = f64;
    type Features = FloatFeatures;
    type Prepared = ();

    fn features(ground: &Ground, samples: &Samples<'_>, task: &Task) -> Result<FloatFeatures> {
        ground.float(samples, task)
    }

    fn prepare(_: &mut [FloatFeatures], _: Simd) {}

    fn distances(
        simd: Simd,
        (): &(),
        left: &FloatFeatures,
        right: &FloatFeatures,
        tile: &Tile,
        _: &mut Vec<f64>,
        block: &mut Vec<Self>,
    ) {
        block.clear();
        block.resize(tile.rows * tile.columns, 0.0);
        let (a, b) = panels(&left.features, &right.features, tile);
        for from in (0..left.features.stride()).step_by(FLOAT_CHUNK) {
            add_float_differences(simd, a, b, from, block);
        }
    }
}

fn panels<'a, T: bytemuck::Pod>(
    left: &'a AlignedMatrix<T>,
    right: &'a AlignedMatrix<T>,
    tile: &Tile,
) -> (Panel<'a, T>, Panel<'a, T>) {
    fn panel<T: bytemuck::Pod>(from: &AlignedMatrix<T>, row: usize, rows: usize) -> Panel<'_, T> {
        let stride = from.stride();
        Panel::new(&from.as_slice()[row * stride..(row + rows) * stride], rows, stride)
    }
    (panel(left, tile.row, tile.rows), panel(right, tile.column, tile.columns))
}

/// Subtracts `low` from every row and returns the sums of the rows.
fn shift_columns(features: &mut AlignedMatrix<u32>, low: &[u32]) -> Vec<u64> {
    let stride = features.stride();
    features
        .as_mut_slice()
        .par_chunks_mut(stride)
        .map(|row| {
            row.iter_mut().zip(low).for_each(|(v, low)| *v -= low);
            row.iter().map(|&v| u64::from(v)).sum()
        })
        .collect()
}
