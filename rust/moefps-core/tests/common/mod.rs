//! Plain, slow and obvious versions of what the crate does fast, and random fingerprints to hold them against.
#![allow(dead_code, missing_docs, reason = "each test file uses a part")]

use moefps_core::ground::{Ground, Metric, Reduce};
use moefps_core::matrix::{Arithmetic, Pairs, matrix};
use moefps_core::output::Memory;
use moefps_core::sample::{Samples, Values};
use moefps_core::start::{Goal, Selection, Start};
use moefps_core::sum::Precision;
use moefps_core::task::Task;
use ndarray::{Array2, Array3};
use proptest::prelude::*;

pub fn samples(x: &Array3<f64>) -> Samples<'_> {
    Samples { name: "X", values: Values::F64(x.view()), normalize: false }
}

pub fn ground(metric: Metric, x: &Array3<f64>) -> Ground {
    let (_, layers, experts) = x.dim();
    Ground::new(metric, Reduce::Sum, None, layers, experts).expect("a valid ground")
}

/// Runs `work` on a pool of `threads` threads.
pub fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(work)
}

pub fn distances<T: Arithmetic>(x: &Array3<f64>, ground: &Ground) -> Array2<T> {
    let n = x.dim().0;
    let mut d = Array2::from_elem((n, n), T::zeroed());
    let out = Memory::new(d.as_slice_mut().expect("contiguous"));
    matrix(&samples(x), ground, Pairs::Square, &out, &Task::new()).expect("distances");
    d
}

pub fn picks(x: &Array3<f64>, ground: &Ground, precision: Precision, start: Start, m: usize, prune: bool) -> Selection {
    let goal = Goal { n_select: m, stop_radius: None, start };
    moefps_core::select::select(&samples(x), ground, precision, &goal, prune, &Task::new()).expect("a selection")
}

/// The distance as the definition has it: mass moved between positions on a line, or half the absolute differences.
pub fn plain_distance(metric: &Metric, a: &Array3<f64>, i: usize, j: usize) -> f64 {
    let (_, layers, experts) = a.dim();
    let mut total = 0.0;
    for layer in 0..layers {
        let row = |i: usize| {
            let row: Vec<f64> = (0..experts).map(|e| a[[i, layer, e]]).collect();
            let sum: f64 = row.iter().sum();
            row.into_iter().map(|p| p / sum).collect::<Vec<f64>>()
        };
        let (mut p, mut q) = (row(i), row(j));
        total += match metric {
            Metric::Discrete => p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0,
            Metric::Values => {
                p.sort_by(f64::total_cmp);
                q.sort_by(f64::total_cmp);
                p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / experts as f64
            }
            Metric::Index | Metric::Positions(_) => {
                let at = |e: usize| match metric {
                    Metric::Positions(x) => x[layer * experts + e],
                    _ => e as f64,
                };
                let mut order: Vec<usize> = (0..experts).collect();
                order.sort_by(|&a, &b| at(a).total_cmp(&at(b)));
                let (mut carried, mut work) = (0.0, 0.0);
                for pair in order.windows(2) {
                    carried += p[pair[0]] - q[pair[0]];
                    work += f64::abs(carried) * (at(pair[1]) - at(pair[0]));
                }
                work
            }
        };
    }
    total
}

/// Farthest point sampling by its definition, on a matrix.
pub fn plain_fps(d: &Array2<f64>, start: usize, m: usize) -> (Vec<usize>, Vec<f64>) {
    let n = d.nrows();
    let (mut indices, mut radii) = (vec![start], Vec::new());
    loop {
        let to_nearest = |i: usize| indices.iter().map(|&p| d[[i, p]]).fold(f64::INFINITY, f64::min);
        let nearest: Vec<f64> = (0..n).map(to_nearest).collect();
        radii.push(nearest.iter().copied().fold(0.0, f64::max));
        if indices.len() == m {
            return (indices, radii);
        }
        let open = (0..n).filter(|i| !indices.contains(i));
        indices.extend(open.reduce(|best, i| if nearest[i] > nearest[best] { i } else { best }));
    }
}

/// Fingerprints of up to 40 samples: smooth, sparse or one-hot rows, some samples exact or near copies of others.
pub fn fingerprints() -> impl Strategy<Value = Array3<f64>> {
    (2usize..40, 1usize..4, 2usize..70, 0u8..3, any::<u64>()).prop_map(|(n, layers, experts, kind, seed)| {
        let mut state = seed | 1;
        let mut random = move || {
            // Marsaglia's xorshift: any stream of numbers does.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut x = Array3::zeros((n, layers, experts));
        for i in 0..n {
            if i > 1 && random() < 0.2 {
                let copied = x.index_axis(ndarray::Axis(0), i / 2).to_owned();
                x.index_axis_mut(ndarray::Axis(0), i).assign(&copied);
                continue;
            }
            for mut row in x.index_axis_mut(ndarray::Axis(0), i).rows_mut() {
                for v in &mut row {
                    *v = match kind {
                        0 => random(),
                        1 => (random() - 0.8).max(0.0),
                        _ => 0.0,
                    };
                }
                let hot = (random() * experts as f64) as usize;
                row[hot] += if kind == 0 { 0.0 } else { 1.0 };
                if random() < 0.2 {
                    row[(hot + 1) % experts] += 1e-9;
                }
                let sum = row.sum();
                row /= sum;
            }
        }
        x
    })
}

pub fn metrics(layers: usize, experts: usize) -> Vec<Metric> {
    let positions = (0..layers * experts).map(|i| ((i * 7919) % 101) as f64 * 0.5 - 3.0).collect();
    vec![Metric::Index, Metric::Values, Metric::Discrete, Metric::Positions(positions)]
}
