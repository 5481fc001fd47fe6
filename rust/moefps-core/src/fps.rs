//! Farthest point sampling on a precomputed distance matrix.

use half::f16;
use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use crate::start::{Goal, Selection, Start, extreme, greedy};
use crate::task::Task;
use crate::{Error, Result};

/// Rows and columns of the blocks in which symmetry is checked, so that both sides of the diagonal are in cache.
const BLOCK: usize = 64;

/// A type that distances come in.
pub trait Distance: Copy + Send + Sync + std::fmt::Display {
    /// How much two mirrored entries may differ, relative to the larger.
    const TOLERANCE: f64;
    /// Exact widening.
    fn widen(self) -> f64;
}

impl Distance for f16 {
    const TOLERANCE: f64 = 1e-3;
    fn widen(self) -> f64 {
        self.to_f64()
    }
}

impl Distance for f32 {
    const TOLERANCE: f64 = 1e-6;
    fn widen(self) -> f64 {
        f64::from(self)
    }
}

impl Distance for f64 {
    const TOLERANCE: f64 = 1e-9;
    fn widen(self) -> f64 {
        self
    }
}

/// Picks samples by farthest point sampling (Gonzalez 1985) on the distance matrix `d`, `[N, N]`.
///
/// # Errors
/// A goal that cannot be met ([`Goal::check`]), a matrix that is not square and symmetric with finite entries >= 0 and
/// a zero diagonal, or [`Error::Cancelled`].
pub fn fps<T: Distance>(d: &ArrayView2<'_, T>, goal: &Goal, task: &Task) -> Result<Selection> {
    let (n, columns) = d.dim();
    if n != columns {
        return Err(Error::Argument(format!("D: {n} x {columns}; accepted: a square matrix")));
    }
    if n == 0 {
        return Err(Error::Argument("D: 0 x 0; accepted: at least one sample".into()));
    }
    goal.check(n)?;
    task.announce((n * n + goal.n_select * n) as u64);
    let sums = checked_sums(d, task)?;
    let starts = match &goal.start {
        Start::Indices(indices) => indices.clone(),
        start => vec![extreme(&sums, start)],
    };
    let (mut distances, mut assignment) = (vec![f64::INFINITY; n], vec![0; n]);
    let (indices, radii) = greedy(n, goal, &starts, |pick, position| {
        task.check()?;
        let (mut farthest, mut radius) = (0, 0.0);
        let state = distances.iter_mut().zip(&mut assignment);
        for (i, ((distance, nearest), new)) in state.zip(d.row(pick)).enumerate() {
            // The diagonal may be a rounding error above 0.
            let new = if i == pick { 0.0 } else { new.widen() };
            if new < *distance {
                *distance = new;
                *nearest = position;
            }
            if *distance > radius {
                (farthest, radius) = (i, *distance);
            }
        }
        task.advance(n as u64);
        Ok((farthest, radius))
    })?;
    Ok(Selection { indices, radii, assignment, distances })
}

/// The sum of each row, once the matrix is known to be one of distances.
fn checked_sums<T: Distance>(d: &ArrayView2<'_, T>, task: &Task) -> Result<Vec<f64>> {
    let n = d.nrows();
    let bands: Vec<Result<Vec<f64>>> = (0..n.div_ceil(BLOCK))
        .into_par_iter()
        .map(|band| {
            let rows = band * BLOCK..n.min((band + 1) * BLOCK);
            let mut mirrored = [[0.0; BLOCK]; BLOCK];
            for column in (rows.start..n).step_by(BLOCK) {
                task.check()?;
                let columns = column..n.min(column + BLOCK);
                for (c, j) in columns.clone().enumerate() {
                    for (line, v) in mirrored.iter_mut().zip(d.slice(s![j, rows.clone()])) {
                        line[c] = v.widen();
                    }
                }
                for (i, line) in rows.clone().zip(&mirrored) {
                    let row = d.slice(s![i, columns.clone()]);
                    // Without a branch for each pair; which one it was is found where there is one.
                    let sound = row.iter().zip(line).fold(true, |sound, (a, &b)| sound & is_pair::<T>(a.widen(), b));
                    if !sound {
                        columns.clone().try_for_each(|j| check_pair(i, j, d[[i, j]], d[[j, i]]))?;
                    }
                }
            }
            let mut sums = Vec::with_capacity(rows.len());
            for i in rows {
                task.check()?;
                let row = d.row(i);
                let sum: f64 = row.iter().map(|v| v.widen()).sum();
                let diagonal = d[[i, i]].widen();
                if diagonal > 0.0 && diagonal > T::TOLERANCE * row.iter().fold(0.0, |m: f64, v| m.max(v.widen())) {
                    return Err(Error::Data(format!("D: D[{i}, {i}] is {diagonal}; accepted: a diagonal of zeros")));
                }
                sums.push(sum);
                task.advance(n as u64);
            }
            Ok(sums)
        })
        .collect();
    let mut sums = Vec::with_capacity(n);
    for band in bands {
        sums.extend(band?);
    }
    Ok(sums)
}

/// Whether `a` and `b` may be mirrored entries of a distance matrix: not where one is NaN, negative or infinite.
fn is_pair<T: Distance>(a: f64, b: f64) -> bool {
    (a >= 0.0) & (b >= 0.0) & (a.max(b) < f64::INFINITY) & ((a - b).abs() <= T::TOLERANCE * a.max(b))
}

fn check_pair<T: Distance>(i: usize, j: usize, a: T, b: T) -> Result<()> {
    for (i, j, v) in [(i, j, a), (j, i, b)] {
        let v = v.widen();
        if !v.is_finite() || v < 0.0 {
            return Err(Error::Data(format!("D: D[{i}, {j}] is {v}; accepted: finite distances >= 0")));
        }
    }
    let (a, b) = (a.widen(), b.widen());
    if !is_pair::<T>(a, b) {
        return Err(Error::Data(format!(
            "D: not symmetric, D[{i}, {j}] is {a} and D[{j}, {i}] is {b}; accepted: a symmetric matrix, such as (D + D.T) / 2"
        )));
    }
    Ok(())
}
