//! Counts of a trace: fast against plain, and whatever the threads.
#![allow(missing_docs)]

mod common;

use common::on;
use moefps_core::Error;
use moefps_core::count::{Coactivation, Counts, Trace, count};
use moefps_core::sample::Values;
use moefps_core::task::Task;
use moefps_core::trace::{Groups, Layer};
use ndarray::{Array2, Array3};
use proptest::prelude::*;

const EXPERTS: i16 = 12;

fn layer() -> Layer {
    Layer { n_experts: 12, passive_experts: 2, top_k: 3, signed_weights: false, scoring: None }
}

/// Ids and weights of some tokens, two layers and three slots.
fn traces() -> impl Strategy<Value = (Array3<i16>, Array3<f32>)> {
    (1usize..400).prop_flat_map(|tokens| {
        let cells = tokens * 6;
        (prop::collection::vec(-1..EXPERTS, cells), prop::collection::vec(0u8..4, cells)).prop_map(
            move |(ids, weights)| {
                let shape = (tokens, 2, 3);
                let weights = weights.into_iter().map(|w| f32::from(w) / 4.0).collect();
                (
                    Array3::from_shape_vec(shape, ids).expect("ids"),
                    Array3::from_shape_vec(shape, weights).expect("weights"),
                )
            },
        )
    })
}

fn counts(ids: &Array3<i16>, weights: &Array3<f32>, groups: Option<Groups<'_>>, threads: usize) -> Counts {
    let follows: Vec<bool> = (0..ids.dim().0).map(|t| t % 7 != 0).collect();
    let trace = Trace {
        expert_ids: ids.view(),
        expert_weights: Some(Values::F32(weights.view())),
        layers: &[layer(), layer()],
        follows: Some(&follows),
        groups,
        coactivation: if groups.is_some() { Coactivation::ByGroup } else { Coactivation::Whole },
    };
    on(threads, || count(&trace, &Task::new())).expect("counts")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histograms_are_what_the_definitions_say((ids, weights) in traces()) {
        let found = counts(&ids, &weights, None, 2);
        let active = layer().active_experts();
        for l in 0..2 {
            let mut activations = vec![0i64; active];
            let mut sums = vec![0f64; active];
            let mut together = Array2::<i64>::zeros((active, active));
            for t in 0..ids.dim().0 {
                let chosen: Vec<usize> = (0..3).filter_map(|j| usize::try_from(ids[[t, l, j]]).ok()).collect();
                for j in 0..3 {
                    if let Some(e) = usize::try_from(ids[[t, l, j]]).ok().filter(|&e| e < active) {
                        activations[e] += 1;
                        sums[e] += f64::from(weights[[t, l, j]]);
                    }
                }
                for ((a, b), count) in together.indexed_iter_mut() {
                    *count += i64::from(chosen.contains(&a) && chosen.contains(&b));
                }
            }
            let pairs = found.coactivation.as_ref().expect("pairs");
            let weighted = found.weights.as_ref().expect("weights");
            for a in 0..active {
                prop_assert_eq!(found.activations[[0, l, a]], activations[a]);
                prop_assert_eq!(found.tokens[[0, l, a]], together[[a, a]]);
                prop_assert_eq!(weighted.weight_sums[[0, l, a]], sums[a]);
                for b in 0..active {
                    prop_assert_eq!(pairs[[0, l, a, b]], together[[a, b]]);
                }
            }
        }
    }

    #[test]
    fn threads_change_nothing((ids, weights) in traces(), threads in 2usize..9) {
        prop_assert_eq!(counts(&ids, &weights, None, threads), counts(&ids, &weights, None, 1));
        let groups: Vec<u32> = (0..ids.dim().0 as u32).map(|t| t / 5 % 3).collect();
        let groups = Some(Groups { ids: &groups, count: 3 });
        prop_assert_eq!(counts(&ids, &weights, groups, threads), counts(&ids, &weights, groups, 1));
    }
}

#[test]
fn a_cancelled_count_ends() {
    let ids = Array3::zeros((1000, 2, 3));
    let layers = [layer(), layer()];
    let trace = Trace {
        expert_ids: ids.view(),
        expert_weights: None,
        layers: &layers,
        follows: None,
        groups: None,
        coactivation: Coactivation::None,
    };
    let task = Task::new();
    task.cancel();
    assert!(matches!(count(&trace, &task), Err(Error::Cancelled)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let ids = Array3::zeros((4, 1, 3));
    let one = [layer()];
    let good = Trace {
        expert_ids: ids.view(),
        expert_weights: None,
        layers: &one,
        follows: None,
        groups: None,
        coactivation: Coactivation::Whole,
    };
    let groups = Groups { ids: &[0, 1, 2, 0], count: 2 };
    let message = |trace: Trace<'_>| count(&trace, &Task::new()).expect_err("refused").to_string();
    assert!(count(&good, &Task::new()).is_ok());
    assert!(message(Trace { layers: &[], ..good }).contains("0 layers"));
    assert!(message(Trace { follows: Some(&[true]), ..good }).contains("follows: 1 tokens; accepted: 4"));
    assert_eq!(message(Trace { groups: Some(groups), ..good }), "groups: token row 2 is 2; accepted: 0 to 1");
    let narrow = [Layer { passive_experts: 12, ..layer() }];
    assert!(message(Trace { layers: &narrow, ..good }).contains("layer 0"));
    let weights = Array3::<f32>::zeros((4, 1, 2));
    let trace = Trace { expert_weights: Some(Values::F32(weights.view())), ..good };
    assert!(message(trace).contains("expert_weights"));
}
