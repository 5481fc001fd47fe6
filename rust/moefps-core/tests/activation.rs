//! Sums of activations: fast against plain, and whatever the threads.
#![allow(missing_docs)]

mod common;

use common::on;
use half::f16;
use moefps_core::Error;
use moefps_core::activation::{Bins, Request, Source, Sums, sum};
use moefps_core::sample::Values;
use moefps_core::task::Task;
use moefps_core::trace::{Groups, Layer, Scoring};
use ndarray::{Array3, s};
use proptest::prelude::*;

const BINS: Bins = Bins { count: 4, highest: 0.8 };

const LAYER: Layer =
    Layer { n_experts: 6, passive_experts: 1, top_k: 3, signed_weights: false, scoring: Some(Scoring::Softmax) };

/// Ids and weights of some tokens, three layers and three slots, some experts chosen twice.
fn traces() -> impl Strategy<Value = (Array3<i16>, Array3<f32>)> {
    (1usize..300).prop_flat_map(|tokens| {
        let cells = tokens * 9;
        (prop::collection::vec(-1..6i16, cells), prop::collection::vec(0u8..6, cells)).prop_map(
            move |(ids, weights)| {
                let weights = weights.into_iter().map(|w| f32::from(w) / 5.0).collect();
                let shape = (tokens, 3, 3);
                (
                    Array3::from_shape_vec(shape, ids).expect("ids"),
                    Array3::from_shape_vec(shape, weights).expect("weights"),
                )
            },
        )
    })
}

fn run<'a>(source: Source<'a>, chosen: &'a [usize], groups: Option<Groups<'a>>, threads: usize) -> Sums {
    let request = Request { source, layers: &[LAYER; 3], chosen, groups, threshold: 0.3, bins: BINS };
    on(threads, || sum(&request, &Task::new())).expect("sums")
}

fn one_layer<'a>(source: Source<'a>, layers: &'a [Layer; 1]) -> Sums {
    let request = Request { source, layers, chosen: &[0], groups: None, threshold: 0.3, bins: BINS };
    sum(&request, &Task::new()).expect("sums")
}

fn slots<'a>(ids: &'a Array3<i16>, weights: &'a Array3<f32>, renormalized: bool) -> Source<'a> {
    Source::Slots { expert_ids: ids.view(), expert_weights: Values::F32(weights.view()), renormalized }
}

/// Activations of the five experts on a token.
fn plain_token(ids: &[i16], weights: &[f32], renormalized: bool) -> Option<Vec<f64>> {
    let filled: Vec<(usize, f64)> = (0..3)
        .filter_map(|j| usize::try_from(ids[j]).ok().filter(|&e| e < 5).map(|e| (e, f64::from(weights[j]))))
        .collect();
    let whole = if renormalized { filled.iter().map(|(_, w)| w).sum() } else { 1.0 };
    if filled.is_empty() || whole == 0.0 {
        return None;
    }
    let mut found = vec![f64::NAN; 5];
    for (expert, weight) in filled {
        found[expert] = if found[expert].is_nan() { weight } else { found[expert] + weight };
    }
    Some(found.into_iter().map(|weight| weight / whole).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_what_the_definitions_say((ids, weights) in traces(), renormalized in any::<bool>()) {
        let found = run(slots(&ids, &weights, renormalized), &[2, 0], None, 2);
        for (l, layer) in [2, 0].into_iter().enumerate() {
            let mut summed = 0;
            let mut values: Vec<Vec<f64>> = vec![Vec::new(); 5];
            for t in 0..ids.dim().0 {
                let row = s![t, layer, ..];
                let (ids, weights) = (ids.slice(row).to_vec(), weights.slice(row).to_vec());
                if let Some(token) = plain_token(&ids, &weights, renormalized) {
                    summed += 1;
                    token.into_iter().zip(&mut values).filter(|(a, _)| !a.is_nan()).for_each(|(a, v)| v.push(a));
                }
            }
            prop_assert_eq!(found.tokens[[0, l]] - found.left_out[[0, l]], summed);
            for (e, values) in values.iter().enumerate() {
                let counted: Vec<f64> = values.iter().copied().filter(|&a| a > 0.3).collect();
                prop_assert_eq!(found.activations[[0, l, e]], values.len() as i64);
                prop_assert_eq!(found.counts[[0, l, e]], counted.len() as i64);
                prop_assert!((found.totals[[0, l, e]] - counted.iter().sum::<f64>()).abs() < 1e-9);
                prop_assert_eq!(found.maxima[[0, l, e]], counted.iter().copied().fold(0.0, f64::max));
                let mut bins = [0; 5];
                values.iter().for_each(|&a| bins[if a > 0.8 { 4 } else { ((a * (4.0 / 0.8)) as usize).min(3) }] += 1);
                prop_assert_eq!(found.histogram.slice(s![l, e, ..]).to_vec(), bins[..4].to_vec());
                prop_assert_eq!((found.below[[l, e]], found.above[[l, e]]), (0, bins[4]));
            }
        }
    }

    #[test]
    fn threads_and_groups((ids, weights) in traces(), threads in 2usize..9) {
        let groups: Vec<u32> = (0..ids.dim().0 as u32).map(|t| t / 5 % 3).collect();
        let groups = Some(Groups { ids: &groups, count: 3 });
        let logits = Array3::from_shape_fn((ids.dim().0, 3, 6), |(t, l, e)| f16::from_f32(((t * 7 + l + e * e) % 5) as f32));
        let router = Source::Router { expert_ids: ids.view(), router_logits: Values::F16(logits.view()) };
        for source in [slots(&ids, &weights, true), router] {
            let one = run(source, &[0, 1, 2], groups, 1);
            prop_assert_eq!(&run(source, &[0, 1, 2], groups, threads), &one);
            let whole = run(source, &[0, 1, 2], None, 2);
            prop_assert_eq!(one.counts.sum_axis(ndarray::Axis(0)), whole.counts.index_axis(ndarray::Axis(0), 0).to_owned());
            prop_assert_eq!(&one.histogram, &whole.histogram);
        }
    }
}

#[test]
fn a_distribution_worked_by_hand() {
    let ids = Array3::from_shape_vec((3, 1, 1), vec![0, -1, 5]).expect("ids");
    let quarters = |row: [f64; 6]| row.map(|p| p.ln() as f32);
    let rows = [quarters([0.5, 0.25, 0.25, 0.0, 0.0, 0.0]), [f32::NAN; 6], [1.0; 6]];
    let logits = Array3::from_shape_vec((3, 1, 6), rows.concat()).expect("logits");
    let source = Source::Router { expert_ids: ids.view(), router_logits: Values::F32(logits.view()) };
    // The second token has no slot, the third only one on the passive expert.
    let found = one_layer(source, &[Layer { top_k: 1, ..LAYER }]);
    assert_eq!(found.tokens[[0, 0]], 1);
    assert_eq!(found.activations.slice(s![0, 0, ..]).to_vec(), vec![1; 5]);
    assert_eq!(found.counts.slice(s![0, 0, ..]).to_vec(), vec![1, 0, 0, 0, 0]);
    assert!((found.totals[[0, 0, 0]] - 0.5).abs() < 1e-7);
}

#[test]
fn zeros_of_a_dense_array_are_no_activations() {
    let rows = vec![0.0, 0.9, 0.2, 0.0, 0.0, 0.0, 0.8, 0.0, 0.4];
    let dense = Array3::from_shape_vec((3, 1, 3), rows).expect("activations");
    let layer = Layer { n_experts: 3, passive_experts: 0, top_k: 0, ..LAYER };
    let found = one_layer(Source::Dense(Values::F64(dense.view())), &[layer]);
    assert_eq!((found.tokens[[0, 0]], found.left_out[[0, 0]]), (2, 0));
    assert_eq!(found.activations.slice(s![0, 0, ..]).to_vec(), vec![1, 1, 2]);
    assert_eq!(found.totals.slice(s![0, 0, ..]).to_vec(), vec![0.8, 0.9, 0.4]);
    // 0.8 is the upper edge of the last bin, and 0.9 is above it.
    assert_eq!(found.histogram.slice(s![0, 0, ..]).to_vec(), vec![0, 0, 0, 1]);
    assert_eq!(found.above.slice(s![0, ..]).to_vec(), vec![0, 1, 0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let ids = Array3::from_elem((4, 2, 3), 1i16);
    let weights = Array3::<f32>::ones((4, 2, 3));
    let source = slots(&ids, &weights, false);
    let good = Request { source, layers: &[LAYER; 2], chosen: &[1], groups: None, threshold: 0.1, bins: BINS };
    let message = |request: Request<'_>| sum(&request, &Task::new()).expect_err("refused").to_string();
    assert!(sum(&good, &Task::new()).is_ok());
    assert!(message(Request { layers: &[], ..good }).contains("0 layers"));
    assert!(message(Request { chosen: &[], ..good }).contains("layers: []; accepted: some of 0 to 1"));
    assert!(message(Request { chosen: &[2], ..good }).contains("layers: [2]"));
    let groups = Groups { ids: &[0, 1, 2, 0], count: 2 };
    assert_eq!(message(Request { groups: Some(groups), ..good }), "groups: token row 2 is 2; accepted: 0 to 1");
    let narrow = Array3::<f32>::ones((4, 2, 2));
    assert!(message(Request { source: slots(&ids, &narrow, false), ..good }).contains("expert_weights"));
    let mut wrong = weights.clone();
    wrong[[3, 1, 0]] = f32::NAN;
    wrong[[2, 1, 2]] = -1.0;
    assert_eq!(
        message(Request { source: slots(&ids, &wrong, false), ..good }),
        "expert_weights: token row 2, layer 1, slot 2 is -1; accepted: finite numbers >= 0"
    );
    let mut wrong = ids.clone();
    wrong[[1, 1, 0]] = 6;
    assert_eq!(
        message(Request { source: slots(&wrong, &weights, false), ..good }),
        "expert_ids: token row 1, layer 1, slot 0 is 6; accepted: 0 to 5, or -1 for an empty slot"
    );
    let task = Task::new();
    task.cancel();
    assert!(matches!(sum(&good, &task), Err(Error::Cancelled)));
}
