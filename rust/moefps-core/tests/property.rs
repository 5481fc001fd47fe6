//! Fast against plain, on random fingerprints.
#![allow(missing_docs)]

mod common;

use common::{distances, fingerprints, ground, metrics, on, picks, plain_distance, plain_fps, samples};
use moefps_core::ground::Metric;
use moefps_core::start::Start;
use moefps_core::sum::{Precision, mean_distances};
use moefps_core::task::Task;
use ndarray::{Axis, concatenate, s};
use proptest::prelude::*;

fn largest_gap(metric: &Metric) -> f64 {
    match metric {
        Metric::Positions(x) => x.iter().copied().fold(0.0, f64::max) - x.iter().copied().fold(0.0, f64::min),
        _ => 1.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matrix_is_what_the_definition_says(x in fingerprints()) {
        let (n, layers, experts) = x.dim();
        for metric in metrics(layers, experts) {
            let ground = ground(metric.clone(), &x);
            let (single, double) = (distances::<f32>(&x, &ground), distances::<f64>(&x, &ground));
            for i in 0..n {
                prop_assert_eq!(single[[i, i]], 0.0);
                prop_assert_eq!(double[[i, i]], 0.0);
                for j in 0..n {
                    let plain = plain_distance(&metric, &x, i, j);
                    let fixed_point = (layers * experts) as f64 * 2f64.powi(-31) * largest_gap(&metric);
                    prop_assert!((f64::from(single[[i, j]]) - plain).abs() <= 1e-6 * plain + fixed_point);
                    prop_assert!((double[[i, j]] - plain).abs() <= 1e-12 * plain.max(1.0));
                    prop_assert_eq!(single[[i, j]], single[[j, i]]);
                    prop_assert_eq!(double[[i, j]], double[[j, i]]);
                }
            }
        }
    }

    #[test]
    fn select_is_fps_on_the_matrix(x in fingerprints(), start in 0usize..40, threads in 1usize..4) {
        let (n, layers, experts) = x.dim();
        let start = start % n;
        for metric in metrics(layers, experts) {
            let ground = ground(metric, &x);
            let single = plain_fps(&distances::<f32>(&x, &ground).mapv(f64::from), start, n);
            let double = plain_fps(&distances::<f64>(&x, &ground), start, n);
            for (precision, (indices, radii)) in [(Precision::Float32, single), (Precision::Float64, double)] {
                for prune in [true, false] {
                    let found =
                        on(threads, || picks(&x, &ground, precision, Start::Indices(vec![start]), n, prune));
                    prop_assert_eq!(&found.indices, &indices);
                    prop_assert_eq!(&found.radii, &radii);
                }
            }
        }
    }

    #[test]
    fn pruning_changes_nothing(x in fingerprints(), some in 1usize..40, threads in 1usize..4) {
        let (n, layers, experts) = x.dim();
        // Half of them twice, for ties.
        let x = concatenate![Axis(0), x, x.slice(s![..n / 2, .., ..])];
        let some = some.min(n);
        for metric in metrics(layers, experts) {
            let ground = ground(metric, &x);
            for precision in [Precision::Float32, Precision::Float64] {
                for start in [Start::Medoid, Start::Indices((0..some).rev().collect())] {
                    let found = |prune| on(threads, || picks(&x, &ground, precision, start.clone(), some, prune));
                    prop_assert_eq!(found(true), found(false));
                }
            }
        }
    }

    #[test]
    fn medoid_has_the_smallest_sum(x in fingerprints()) {
        let (_, layers, experts) = x.dim();
        for metric in metrics(layers, experts) {
            let ground = ground(metric, &x);
            let sums = mean_distances(&samples(&x), &ground, Precision::Float32, &Task::new()).expect("sums");
            let smallest = sums.iter().copied().fold(f64::INFINITY, f64::min);
            let expected = sums.iter().position(|&s| s == smallest);
            let found = picks(&x, &ground, Precision::Float32, Start::Medoid, 1, true);
            prop_assert_eq!(Some(found.indices[0]), expected);
        }
    }

    #[test]
    fn means_are_means_of_the_matrix(x in fingerprints()) {
        let (n, layers, experts) = x.dim();
        for metric in metrics(layers, experts) {
            let ground = ground(metric, &x);
            let d = distances::<f64>(&x, &ground);
            let means = mean_distances(&samples(&x), &ground, Precision::Float64, &Task::new()).expect("means");
            for (mean, row) in means.iter().zip(d.rows()) {
                let plain = row.sum() / (n - 1) as f64;
                prop_assert!((mean - plain).abs() <= 1e-12 * plain.max(1.0) * n as f64);
            }
        }
    }
}
